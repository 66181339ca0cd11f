/* SPDX-License-Identifier: MIT */
/* madvise: flags of mappings (fork's, merging), dropping, lazy freeing, populating. */
#include "ops/ops.h"

#include "fault/fault.h"
#include "space/notifier.h"

#include <errno.h>

static bool is_private_anon(const struct vma *vma)
{
	return vma_is_cow(vma) && !vma->object && !(vma->flags & VMA_PFNMAP);
}

/* ---- advice that changes the mapping ---- */

struct flag_advice {
	unsigned set, clear;
	bool (*applies)(const struct vma *vma); /* to others: -EINVAL */
};

static bool applies_always(const struct vma *vma)
{
	(void)vma;
	return true;
}

static bool applies_to_pages(const struct vma *vma)
{
	return !(vma->flags & VMA_PFNMAP);
}

/* NULL: the advice changes no flags. */
static const struct flag_advice *flag_advice_of(enum ucow_advice advice)
{
	static const struct flag_advice table[UCOW_MADV_COUNT] = {
		[UCOW_MADV_DONTFORK] = {VMA_DONTCOPY, 0, applies_always},
		[UCOW_MADV_DOFORK] = {0, VMA_DONTCOPY, applies_to_pages},
		[UCOW_MADV_WIPEONFORK] = {VMA_WIPEONFORK, 0, is_private_anon},
		[UCOW_MADV_KEEPONFORK] = {0, VMA_WIPEONFORK, applies_always},
		/* To what cannot be merged it applies too, without effect. */
		[UCOW_MADV_MERGEABLE] = {VMA_MERGEABLE, 0, applies_always},
		[UCOW_MADV_UNMERGEABLE] = {0, VMA_MERGEABLE, applies_always},
	};

	return table[advice].applies ? &table[advice] : NULL;
}

static unsigned advised_flags(const struct vma *vma, const struct flag_advice *advice)
{
	if (advice->set == VMA_MERGEABLE && (!vma_is_cow(vma) || (vma->flags & VMA_PFNMAP)))
		return vma->flags;
	return (vma->flags & ~advice->clear) | advice->set;
}

/* What an advice would do to a range: how far it gets, and whether anything changes. */
struct flag_plan {
	uint64_t end; /* of the last mapping that it applies to */
	bool changes;
	bool hole;
	bool refused; /* by the mapping at or after `end` */
};

static struct flag_plan plan_flags(struct ucow_mm *mm, uint64_t start, uint64_t end, const struct flag_advice *advice)
{
	struct flag_plan plan = {.end = start};

	for (struct vma *vma = vma_find(&mm->vmas, start); vma && vma->start < end; vma = vma_next(vma)) {
		if (!advice->applies(vma)) {
			plan.refused = true;
			return plan;
		}
		plan.hole |= vma->start > plan.end;
		plan.changes |= advised_flags(vma, advice) != vma->flags;
		plan.end = min_u64(end, vma->end);
	}
	plan.hole |= plan.end < end;
	return plan;
}

/* As the system call: mappings before one that refuses have changed. Nothing is split where nothing changes. */
static int advise_flags(struct ucow_mm *mm, uint64_t start, uint64_t end, const struct flag_advice *advice)
{
	struct flag_plan plan = plan_flags(mm, start, end, advice);
	int error = plan.changes ? vmas_isolate(mm, start, plan.end) : 0;

	if (error)
		return error;
	for (struct vma *vma = vma_find(&mm->vmas, start); plan.changes && vma && vma->start < plan.end;
	     vma = vma_next(vma))
		vma->flags = advised_flags(vma, advice);
	vmas_merge(mm, start, plan.end);
	return plan.refused ? -EINVAL : plan.hole ? -ENOMEM : 0;
}

/* ---- advice that changes entries ---- */

/*
 * Contents may be lost until the next store: the entry becomes clean and old, so that a store is seen (it sets dirty).
 * A page that others use too is left alone; so is one in the swap cache, whose slot may be named by an entry of others
 * and not be written yet.
 */
static struct pte make_lazyfree(struct ucow_mm *mm, const struct vma *vma, struct pte pte)
{
	struct table_pool *tables = &mm->machine->tables;
	struct ucow_page *page;

	(void)vma;
	if (pte_is_swap(pte)) {
		/* Nobody wants it back: as if it had been dropped already. */
		tables->swap->drop(tables->swap_arg, pte_swap_entry(pte), 1);
		return pte_none();
	}
	if (!pte_has_page(pte))
		return pte;
	page = pte_page(&mm->machine->frames, pte);
	if (page_mapcount(page) != 1 || page_maybe_pinned(page) || page_is(page, PAGE_KSM | PAGE_SWAPCACHE))
		return pte;
	page_clear(page, PAGE_DIRTY);
	page_set(page, PAGE_LAZYFREE);
	return pte_mkold(pte_mkclean(pte));
}

static bool markers_stay(const struct vma *vma)
{
	return vma->object && (vma->flags & VMA_UFFD_WP);
}

static int advise_entries(struct ucow_mm *mm, struct vma *vma, uint64_t start, uint64_t end, enum ucow_advice advice)
{
	int error = 0;

	/* What is locked stays: it would be gone else, and come back as something new. */
	if (vma->flags & (VMA_PFNMAP | VMA_LOCKED))
		return -EINVAL;
	if (advice == UCOW_MADV_FREE) {
		if (!is_private_anon(vma))
			return -EINVAL;
		change_range(mm, vma, start, end, make_lazyfree);
		return 0;
	}
	notify_start(mm, start, end, UCOW_NOTIFY_CLEAR);
	if (markers_stay(vma))
		zap_keeping_protection(mm, start, end);
	else
		error = table_zap(&mm->pt, start, end);
	notify_end(mm, start, end, UCOW_NOTIFY_CLEAR);
	return error;
}

/* ---- the call ---- */

/* All that may need memory: the tables whose entries change, or which are cut in two. */
static int own_advised(struct ucow_mm *mm, uint64_t start, uint64_t end, enum ucow_advice advice)
{
	struct vma *vma = vma_find(&mm->vmas, start);
	int error = 0;

	if (advice == UCOW_MADV_FREE)
		return table_own_range(&mm->pt, start, end);
	for (; vma && vma->start < end && !error; vma = vma_next(vma)) {
		uint64_t from = max_u64(start, vma->start), to = min_u64(end, vma->end);

		error = markers_stay(vma) ? table_own_range(&mm->pt, from, to) : table_own_edges(&mm->pt, from, to);
	}
	return error;
}

/* As the system call: a hole does not stop the advice, it is reported at the end. */
static int advise_range(struct ucow_mm *mm, uint64_t start, uint64_t end, enum ucow_advice advice)
{
	struct vma *vma = vma_find(&mm->vmas, start);
	uint64_t va = start;
	bool hole = false;
	int error = own_advised(mm, start, end, advice);

	for (; vma && vma->start < end && !error; vma = vma_next(vma)) {
		hole |= vma->start > va;
		va = min_u64(end, vma->end);
		error = advise_entries(mm, vma, max_u64(start, vma->start), va, advice);
	}
	return error ? error : hole || va < end ? -ENOMEM : 0;
}

static bool is_populate(enum ucow_advice advice)
{
	return advice == UCOW_MADV_POPULATE_READ || advice == UCOW_MADV_POPULATE_WRITE;
}

/* Whether every mapping in the range may be paged out, and there is no hole. As the system call: the rest is advised.
 */
static int check_reclaimable(struct ucow_mm *mm, uint64_t start, uint64_t *end)
{
	struct vma *vma;
	uint64_t va = start;
	bool hole = false, refused = false;

	rwlock_read_lock(&mm->mmap_lock);
	for (vma = vma_find(&mm->vmas, start); vma && vma->start < *end && !refused; vma = vma_next(vma)) {
		hole |= vma->start > va;
		refused = vma->flags & (VMA_PFNMAP | VMA_LOCKED);
		va = refused ? max_u64(start, vma->start) : min_u64(*end, vma->end);
	}
	rwlock_read_unlock(&mm->mmap_lock);
	hole |= !refused && va < *end;
	*end = refused ? va : *end;
	return refused ? -EINVAL : hole ? -ENOMEM : 0;
}

static int advise_reclaim(struct ucow_mm *mm, uint64_t start, uint64_t end, bool now)
{
	int error = check_reclaimable(mm, start, &end);

	epoch_synchronize(&mm->machine->epoch);
	pressure_ops.advise(mm, start, end, now);
	return error;
}

/* The first range at or above @va whose userfaultfd wants to hear that it is dropped. Returns: 0; -ENOMEM. */
static int note_remove(struct ucow_mm *mm, uint64_t *va, uint64_t end, struct list *notes)
{
	struct vma *vma;
	int error = 0;

	rwlock_read_lock(&mm->mmap_lock);
	vma = vma_find(&mm->vmas, *va);
	while (vma && vma->start < end && !(vma->uffd && uffd_has(vma->uffd, UCOW_UFFD_FEATURE_EVENT_REMOVE)))
		vma = vma_next(vma);
	if (vma && vma->start < end) {
		uint64_t start = max_u64(*va, vma->start);
		const struct ucow_uffd_msg msg = {
			.event = UCOW_UFFD_EVENT_REMOVE,
			.va = start,
			.length = min_u64(end, vma->end) - start,
		};

		*va = start + msg.length;
		error = uffd_note(notes, vma->uffd, &msg);
	} else {
		*va = end;
	}
	rwlock_read_unlock(&mm->mmap_lock);
	return error;
}

/* Before anything is dropped, as Linux does: who supplies pages may hold them ready. */
static int send_remove(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	struct list notes;
	int error = 0;

	list_init(&notes);
	while (start < end && !error) {
		error = note_remove(mm, &start, end, &notes);
		uffd_send(&notes);
	}
	return error;
}

static bool drops(enum ucow_advice advice)
{
	return advice == UCOW_MADV_DONTNEED || advice == UCOW_MADV_FREE;
}

int ucow_madvise(struct ucow_mm *mm, uint64_t va, uint64_t length, enum ucow_advice advice)
{
	const struct flag_advice *flags;
	int error;

	if ((unsigned)advice >= UCOW_MADV_COUNT || (va & ~UCOW_PAGE_MASK) || length > UCOW_ADDRESS_LIMIT)
		return -EINVAL;
	if (mm->read_only)
		return -EACCES;
	if (!length)
		return 0;
	length = page_round_up(length);
	if (!mm_range_is_valid(va, length))
		return -ENOMEM;
	if (advice == UCOW_MADV_COLD || advice == UCOW_MADV_PAGEOUT)
		return advise_reclaim(mm, va, va + length, advice == UCOW_MADV_PAGEOUT);
	if (is_populate(advice))
		return populate(mm, va, va + length, advice == UCOW_MADV_POPULATE_WRITE);
	if (drops(advice)) {
		error = send_remove(mm, va, va + length);
		if (error)
			return error;
	}
	flags = flag_advice_of(advice);
	rwlock_write_lock(&mm->mmap_lock);
	error = flags ? advise_flags(mm, va, va + length, flags) : advise_range(mm, va, va + length, advice);
	space_write_unlock(mm);
	/* The scanner keeps away by now, so this comes to an end. What was not advised, without memory, is spared. */
	if (advice == UCOW_MADV_UNMERGEABLE) {
		int unmerged = unmerge_range(mm, va, va + length, VMA_MERGEABLE);

		error = unmerged ? unmerged : error;
	}
	return error;
}
