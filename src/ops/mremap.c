/* SPDX-License-Identifier: MIT */
/*
 * mremap: shrink, grow in place, or move the entries. A page moves with its flags, its exclusivity and its pins;
 * whatever may fail (nodes, tables) is done before the first entry moves. A move to a fixed address that changes no
 * length may take several mappings along, as Linux does since 6.17.
 */
#include "ops/ops.h"

#include "base/host.h"
#include "base/mutate.h"
#include "fault/fault.h"
#include "space/notifier.h"

#include <errno.h>
#include <string.h>

struct remap {
	struct ucow_mm *mm;
	uint64_t from, old_length;
	uint64_t to, new_length;
	bool keep_old;         /* MREMAP_DONTUNMAP */
	bool fetch;            /* locked memory has grown */
	bool keeps_protection; /* of the entries that are moved at the moment: the mapping stays with its userfaultfd */
	/* The mappings that move: one, or several whose lengths stay and between which holes stay holes. */
	unsigned nparts;
	struct vma **targets; /* one a part, in order */
};

/* ---- entries ---- */

/* A mutant that the tests must notice: the moved page is another one, so that pins stay behind. */
static struct pte copy_instead(struct remap *remap, const struct table *target, uint64_t to, struct pte pte)
{
	struct frame_pool *frames = &remap->mm->machine->frames;
	struct vma *vma = vma_at(&remap->mm->vmas, to);
	struct ucow_page *copy = mm_alloc_page(remap->mm, FRAME_ANY);

	if (!copy)
		return pte;
	memcpy(page_bytes(copy), pte_host(frames, pte), UCOW_PAGE_SIZE);
	anon_page_init(remap->mm, vma, target, to, copy);
	page_drop_mapping(pte_page(frames, pte));
	return pte_mkdirty(pte_make_anon(copy));
}

/* Moved entries are soft-dirty, and lose their userfaultfd protection without a listener (B.7). */
static void move_entry(struct remap *remap, struct table *source, struct table *target, uint64_t va)
{
	struct pte pte = leaf_get(source, va);
	uint64_t to = va - remap->from + remap->to;

	if (pte_is_none(pte))
		return;
	leaf_set(source, va, pte_none());
	if (MUTATED(LOSE_PIN_ON_MOVE) && pte_kind(pte) == PTE_KIND_ANON)
		pte = copy_instead(remap, target, to, pte);
	if (!remap->keeps_protection)
		pte = pte_clear_uffd_wp(pte);
	leaf_set(target, to, pte_is_present(pte) || pte_is_swap(pte) ? pte_mk_soft_dirty(pte) : pte);
}

/* Entries [va, end) of one source leaf that go to one target leaf. The mmap lock is exclusive: no order among leaves.
 */
static void move_run(struct remap *remap, struct table *source, uint64_t va, uint64_t end)
{
	struct table *target = table_find_leaf(&remap->mm->pt, va - remap->from + remap->to);

	/* A source leaf that was made just now, as the target of others, is empty, and nothing was made for it. */
	if (!target)
		return;
	remap->keeps_protection = vma_at(&remap->mm->vmas, va - remap->from + remap->to)->uffd;
	table_lock(source);
	if (target != source)
		table_lock_nested(target);
	for (; va < end; va += UCOW_PAGE_SIZE)
		move_entry(remap, source, target, va);
	if (target != source)
		table_unlock(target);
	table_unlock(source);
}

/* The end of the run that starts at @va: one source leaf, one target leaf. */
static uint64_t run_end(const struct remap *remap, uint64_t va)
{
	uint64_t end = table_leaf_end(va, remap->from + min_u64(remap->old_length, remap->new_length));
	uint64_t to = va - remap->from + remap->to;

	return va + (table_leaf_end(to, to + (end - va)) - to);
}

/* Both ends of every run on private paths; the marks of references go along with the entries [rule 4]. */
static int own_tables(struct remap *remap)
{
	uint64_t end = remap->from + min_u64(remap->old_length, remap->new_length);
	struct page_table *pt = &remap->mm->pt;
	struct table *source, *target;

	if (table_own_range(pt, remap->from, remap->from + remap->old_length) ||
	    table_own_edges(pt, remap->from, remap->from + remap->old_length) ||
	    table_own_range(pt, remap->to, remap->to + remap->new_length))
		return -ENOMEM;
	for (uint64_t va = remap->from; (source = table_next_leaf(pt, &va, end, false)); va = run_end(remap, va)) {
		if (table_own_leaf(pt, va - remap->from + remap->to, &target) ||
		    (!MUTATED(MOVE_WITHOUT_FAMILY) &&
		     table_adopt(pt->pool, target, source, leaf_slot(va - remap->from + remap->to) - leaf_slot(va))))
			return -ENOMEM;
		if ((source->hints & TABLE_MAY_HOLD_REFS) && !MUTATED(LOSE_MARK_ON_MOVE))
			table_mark_path(pt, va - remap->from + remap->to);
	}
	return 0;
}

static void move_entries(struct remap *remap)
{
	uint64_t end = remap->from + min_u64(remap->old_length, remap->new_length);
	struct table *source;

	for (uint64_t va = remap->from; (source = table_next_leaf(&remap->mm->pt, &va, end, false));
	     va = run_end(remap, va))
		move_run(remap, source, va, run_end(remap, va));
	tlb_invalidate(&remap->mm->pt.generations, remap->from, remap->from + remap->old_length);
	tlb_shootdown(&remap->mm->pt);
}

/* ---- mappings ---- */

static uint64_t old_end_of(const struct remap *remap)
{
	return remap->from + remap->old_length;
}

static unsigned count_parts(const struct remap *remap)
{
	unsigned n = 0;

	for (const struct vma *vma = vma_at(&remap->mm->vmas, remap->from); vma && vma->start < old_end_of(remap);
	     vma = vma_next(vma))
		n++;
	return n;
}

/* The mapping that @source, a whole one, becomes. One that fills the old range takes the new length. */
static struct vma *make_target(struct remap *remap, const struct vma *source)
{
	struct vma *target = vma_create(remap->mm->machine);

	if (!target)
		return NULL;
	target->start = source->start - remap->from + remap->to;
	target->end = remap->nparts > 1 || source->end < old_end_of(remap) ? source->end - remap->from + remap->to
									   : remap->to + remap->new_length;
	target->flags = source->flags;
	if (source->uffd && uffd_has(source->uffd, UCOW_UFFD_FEATURE_EVENT_REMAP))
		target->uffd = source->uffd;
	else
		target->flags &= ~(unsigned)VMA_UFFD;
	/* Memory without pages yet is as if mapped here in the first place, and may merge with its new neighbours. */
	target->pgoff = vma_is_cow(source) && !source->object && !source->has_anon ? target->start >> UCOW_PAGE_SHIFT
										   : source->pgoff;
	target->object = source->object;
	target->file = source->file;
	target->has_anon = source->has_anon;
	target->inherited = source->inherited;
	vma_share_object(target, source);
	return target;
}

static void release_targets(struct remap *remap)
{
	for (unsigned i = 0; remap->targets && i < remap->nparts; i++)
		vma_release(remap->targets[i]);
	host_free(remap->targets);
}

/* Requires: the old range is isolated. */
static int make_targets(struct remap *remap)
{
	struct vma *source = vma_at(&remap->mm->vmas, remap->from);

	if (inject_fails(&remap->mm->machine->inject, UCOW_INJECT_OTHER))
		return -ENOMEM;
	remap->targets = host_alloc(remap->nparts * sizeof(struct vma *));
	if (!remap->targets)
		return -ENOMEM;
	for (unsigned i = 0; i < remap->nparts; i++, source = vma_next(source)) {
		struct vma *target = make_target(remap, source);

		if (!target || vmas_isolate(remap->mm, target->start, target->end)) {
			vma_release(target);
			return -ENOMEM;
		}
		remap->targets[i] = target;
	}
	return 0;
}

/* A mapping that moves along with its userfaultfd. */
static int note_remap(struct remap *remap)
{
	struct vma *vma = vma_at(&remap->mm->vmas, remap->from);
	int error = 0;

	for (; vma && vma->start < old_end_of(remap) && !error; vma = vma_next(vma)) {
		const struct ucow_uffd_msg msg = {
			.event = UCOW_UFFD_EVENT_REMAP,
			.va = vma->start,
			.length = vma->end - vma->start,
			.to = vma->start - remap->from + remap->to,
		};

		if (vma->uffd && uffd_has(vma->uffd, UCOW_UFFD_FEATURE_EVENT_REMAP))
			error = uffd_note(&remap->mm->uffd_notes, vma->uffd, &msg);
	}
	return error;
}

/* In Linux's order: what was at the target, the move, what is left of the source. */
static int note_move(struct remap *remap)
{
	int error = uffd_note_unmap(remap->mm, remap->to, remap->to + remap->new_length);

	if (!error)
		error = note_remap(remap);
	if (!error && !remap->keep_old)
		error = uffd_note_unmap(remap->mm, remap->from, old_end_of(remap));
	return error;
}

static void merge_ranges(struct remap *remap)
{
	vmas_merge(remap->mm, remap->from, old_end_of(remap));
	vmas_merge(remap->mm, remap->to, remap->to + remap->new_length);
}

/* All that can fail. Splitting changes nothing that a program sees; a failure merges again. */
static int prepare_move(struct remap *remap)
{
	int error;

	remap->nparts = count_parts(remap);
	remap->targets = NULL;
	error = vmas_isolate(remap->mm, remap->from, old_end_of(remap));
	if (error)
		return error;
	error = make_targets(remap);
	if (!error)
		error = own_tables(remap);
	if (!error)
		error = note_move(remap);
	if (!error)
		return 0;
	uffd_forget(&remap->mm->uffd_notes);
	release_targets(remap);
	merge_ranges(remap);
	return error;
}

static int move(struct remap *remap)
{
	uint64_t old_end = old_end_of(remap);
	struct ucow_mm *mm = remap->mm;
	int error = prepare_move(remap);

	if (error)
		return error;
	notify_start(mm, remap->from, old_end, UCOW_NOTIFY_UNMAP);
	notify_start(mm, remap->to, remap->to + remap->new_length, UCOW_NOTIFY_UNMAP);
	for (unsigned i = 0; i < remap->nparts; i++) {
		struct vma *target = remap->targets[i];

		table_clear(&mm->pt, target->start, target->end);
		vmas_remove(mm, target->start, target->end);
		vma_insert(&mm->vmas, target);
	}
	move_entries(remap);
	if (!remap->keep_old) {
		/* The tail, when the move also shrinks, and the empty tables; all of it is owned. */
		if (table_zap(&mm->pt, remap->from, old_end))
			UCOW_BUG("emptying tables of one's own needed memory");
		vmas_remove(mm, remap->from, old_end);
	} else {
		/* The lock has gone with the pages; there is one mapping. */
		vma_at(&mm->vmas, remap->from)->flags &= ~(unsigned)(VMA_LOCKED | VMA_LOCKONFAULT);
	}
	notify_end(mm, remap->to, remap->to + remap->new_length, UCOW_NOTIFY_UNMAP);
	notify_end(mm, remap->from, old_end, UCOW_NOTIFY_UNMAP);
	host_free(remap->targets);
	merge_ranges(remap);
	return 0;
}

/* Grow without moving, if the mapping ends where the range does and there is room. */
static bool grow_in_place(struct remap *remap, struct vma *vma)
{
	uint64_t end = remap->from + remap->new_length;

	if (vma->end != remap->from + remap->old_length || end > UCOW_ADDRESS_LIMIT ||
	    !vma_range_is_free(&remap->mm->vmas, vma->end, end))
		return false;
	vma_grow(&remap->mm->vmas, vma, end);
	vmas_merge(remap->mm, remap->from, end);
	return true;
}

/* ---- the call ---- */

static bool arguments_are_valid(const struct remap *remap, unsigned flags)
{
	if (flags & ~(UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED | UCOW_MREMAP_DONTUNMAP))
		return false;
	if ((flags & (UCOW_MREMAP_FIXED | UCOW_MREMAP_DONTUNMAP)) && !(flags & UCOW_MREMAP_MAYMOVE))
		return false;
	if ((flags & UCOW_MREMAP_DONTUNMAP) && remap->old_length != remap->new_length)
		return false;
	if (!mm_range_is_valid(remap->from, remap->old_length) || !remap->new_length)
		return false;
	if (!(flags & UCOW_MREMAP_FIXED))
		return true;
	return mm_range_is_valid(remap->to, remap->new_length) &&
	       (remap->to + remap->new_length <= remap->from || remap->from + remap->old_length <= remap->to);
}

static int choose_target(struct remap *remap, unsigned flags)
{
	uint64_t wish = remap->to & UCOW_PAGE_MASK;

	if (flags & UCOW_MREMAP_FIXED)
		return 0;
	if (mm_range_is_valid(wish, remap->new_length) &&
	    vma_range_is_free(&remap->mm->vmas, wish, wish + remap->new_length)) {
		remap->to = wish;
		return 0;
	}
	return vma_find_room(&remap->mm->vmas, remap->new_length, UCOW_PAGE_SIZE, &remap->to);
}

/* A hole at the start is an error even then. */
static bool moves_several(const struct remap *remap, unsigned flags)
{
	return flags & UCOW_MREMAP_FIXED && !(flags & UCOW_MREMAP_DONTUNMAP) && remap->old_length == remap->new_length;
}

static int remap_locked(struct remap *remap, unsigned flags, uint64_t *result)
{
	uint64_t old_end = remap->from + remap->old_length;
	struct vma *vma = vma_at(&remap->mm->vmas, remap->from);
	bool stays = !(flags & (UCOW_MREMAP_FIXED | UCOW_MREMAP_DONTUNMAP));
	int error;

	if (!vma)
		return -EFAULT;
	if (stays && remap->new_length <= remap->old_length) {
		/* Shrinking only unmaps: what lies in the rest of the old range does not matter. */
		error = remap->new_length < remap->old_length
				? unmap_range(remap->mm, remap->from + remap->new_length, old_end)
				: 0;
		if (!error)
			*result = remap->from;
		return error;
	}
	if (old_end > vma->end && !moves_several(remap, flags))
		return -EFAULT;
	if ((vma->flags & VMA_PFNMAP) && (flags & UCOW_MREMAP_DONTUNMAP))
		return -EINVAL;
	if ((vma->flags & VMA_PFNMAP) && remap->new_length > remap->old_length)
		return -EFAULT;
	if ((vma->flags & VMA_LOCKED) && remap->new_length > remap->old_length) {
		if (!may_lock(remap->mm, (remap->new_length - remap->old_length) >> UCOW_PAGE_SHIFT))
			return -EAGAIN;
		remap->fetch = true;
	}
	if (stays && grow_in_place(remap, vma)) {
		*result = remap->from;
		return 0;
	}
	if (!(flags & UCOW_MREMAP_MAYMOVE))
		return -ENOMEM;
	error = choose_target(remap, flags);
	if (!error)
		error = move(remap);
	if (!error)
		*result = remap->to;
	return error;
}

int ucow_mremap(struct ucow_mm *mm, uint64_t va, uint64_t old_length, uint64_t new_length, unsigned flags,
		uint64_t new_va, uint64_t *result)
{
	struct remap remap = {
		.mm = mm,
		.from = va,
		.to = new_va,
		.keep_old = flags & UCOW_MREMAP_DONTUNMAP,
	};
	int error;

	if (old_length > UCOW_ADDRESS_LIMIT || new_length > UCOW_ADDRESS_LIMIT)
		return -EINVAL;
	remap.old_length = page_round_up(old_length);
	remap.new_length = page_round_up(new_length);
	if (!arguments_are_valid(&remap, flags))
		return -EINVAL;
	if (mm->read_only)
		return -EACCES;
	rwlock_write_lock(&mm->mmap_lock);
	error = remap_locked(&remap, flags, result);
	space_write_unlock(mm);
	if (!error && unlikely(remap.fetch))
		(void)fetch_locked(mm, *result, *result + remap.new_length);
	return error;
}
