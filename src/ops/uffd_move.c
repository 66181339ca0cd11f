/* SPDX-License-Identifier: MIT */
/*
 * Userfaultfds: moving pages of private memory to where they are missing. As in mremap a page moves itself, and its
 * leaf joins the families of the one it comes from; unlike there it must be this space's alone, and not be pinned
 * (B.6).
 */
#include "ops/uffd.h"

#include "ops/ops.h"
#include "space/notifier.h"

#include <errno.h>

#define VMA_ALIKE ((unsigned)(VMA_READ | VMA_WRITE | VMA_LOCKED))

struct uffd_move {
	struct uffd_range range; /* the target's */
	uint64_t source;         /* of range.start */
	struct vma *vma;         /* the target's */
	struct table *from, *to; /* of range.at */
};

static uint64_t source_of(const struct uffd_move *move)
{
	return move->range.at - move->range.start + move->source;
}

static bool is_private_anon(const struct vma *vma)
{
	return vma_is_cow(vma) && !vma->object && !(vma->flags & VMA_PFNMAP);
}

/* validate_move_areas. Returns: 0; -ENOENT; -EINVAL. */
static int find_mappings(struct uffd_move *move)
{
	const struct uffd_range *range = &move->range;
	const struct vma *source = vma_at(&range->mm->vmas, source_of(move));

	move->vma = vma_at(&range->mm->vmas, range->at);
	if (!source || !move->vma || !move->vma->uffd)
		return -ENOENT;
	if (source_of(move) + (range->end - range->at) > source->end || range->end > move->vma->end)
		return -EINVAL;
	if (!is_private_anon(source) || !is_private_anon(move->vma) || !(source->flags & VMA_WRITE))
		return -EINVAL;
	if ((source->flags ^ move->vma->flags) & VMA_ALIKE)
		return -EINVAL;
	return move->vma->uffd == range->uffd ? 0 : -EINVAL;
}

/*
 * Where forks share tables a page may have been another's for a moment, whose mapping was to be hidden from him
 * (MADV_DONTFORK); then its counts tell, as they would a store.
 */
static bool is_alone(const struct uffd_move *move, const struct ucow_page *page)
{
	const struct ucow_machine *machine = move->range.mm->machine;

	if (page_maybe_pinned(page) || page_is(page, PAGE_KSM))
		return false;
	if (!machine->policy->uses_exclusive)
		return page_mapcount(page) == 1;
	if (page_is(page, PAGE_EXCLUSIVE))
		return true;
	return machine->fork_mode != UCOW_FORK_EAGER && page_mapcount(page) == 1 && page_refcount(page) == 1;
}

/* Whether the entry may move. Returns: 0; -ENOENT: there is nothing; -EBUSY; -EEXIST. */
static int check_entry(const struct uffd_move *move, struct pte pte)
{
	if (!pte_is_none(leaf_get(move->to, move->range.at)))
		return -EEXIST;
	if (pte_is_vacant(pte))
		return -ENOENT;
	if (pte_is_swap(pte))
		return pte_swap_is_exclusive(pte) ? 0 : -EBUSY;
	if (pte_kind(pte) == PTE_KIND_ZERO_PAGE)
		return 0;
	if (pte_kind(pte) != PTE_KIND_ANON)
		return -EBUSY;
	return is_alone(move, pte_page(&move->range.mm->machine->frames, pte)) ? 0 : -EBUSY;
}

/* The entry as it arrives: written to, as far as anybody tracks that, and not protected. */
static struct pte moved_entry(const struct uffd_move *move, struct pte pte)
{
	if (pte_is_swap(pte))
		return pte_mk_soft_dirty(pte_clear_uffd_wp(pte));
	pte = pte_clear_locked(pte_clear_uffd_wp(pte));
	return entry_permit(move->vma, pte_has_page(pte) ? pte_mkdirty(pte) : pte, pte_has_page(pte));
}

/* Take the entry out of its place, for good only if nobody has pinned the page by then [ORD-GUP-1]. */
static int take_entry(const struct uffd_move *move, struct pte *pte)
{
	struct page_table *pt = &move->range.mm->pt;
	uint64_t va = source_of(move);
	struct ucow_page *page;
	int error;

	table_lock(move->from);
	*pte = leaf_get(move->from, va);
	error = check_entry(move, *pte);
	if (!error)
		leaf_set(move->from, va, pte_none());
	table_unlock(move->from);
	if (error || !pte_is_present(*pte))
		return error;
	tlb_invalidate(&pt->generations, va, va + UCOW_PAGE_SIZE);
	tlb_shootdown(pt);
	if (!pte_has_page(*pte))
		return 0;
	page = pte_page(&move->range.mm->machine->frames, *pte);
	atomic_fetch_add(&page->mapcount, 0);
	if (is_alone(move, page))
		return 0;
	table_lock(move->from);
	leaf_set(move->from, va, *pte);
	table_unlock(move->from);
	return -EBUSY;
}

static void put_entry(const struct uffd_move *move, struct pte pte)
{
	struct page_table *pt = &move->range.mm->pt;
	uint64_t va = move->range.at;

	if (pte_has_page(pte)) {
		struct ucow_page *page = pte_page(&move->range.mm->machine->frames, pte);

		page->index = vma_page_index(move->vma, va);
		if (move->range.mm->machine->policy->uses_exclusive)
			page_set(page, PAGE_EXCLUSIVE);
	}
	if (pte_has_page(pte) || pte_is_swap(pte))
		atomic_store_explicit(&move->vma->has_anon, true, memory_order_relaxed);
	table_lock(move->to);
	leaf_set(move->to, va, moved_entry(move, pte));
	table_unlock(move->to);
	tlb_invalidate(&pt->generations, va, va + UCOW_PAGE_SIZE);
}

/* Both leaves, as one family. Returns: 0; -ENOENT: there is nothing at the source; -ENOMEM. */
static int own_leaves(struct uffd_move *move)
{
	uint64_t from = source_of(move), to = move->range.at;
	struct page_table *pt = &move->range.mm->pt;

	if (!table_find_leaf(pt, from))
		return -ENOENT;
	if (table_own_leaf(pt, from, &move->from) || table_own_leaf(pt, to, &move->to) ||
	    table_adopt(pt->pool, move->to, move->from, leaf_slot(to) - leaf_slot(from)))
		return -ENOMEM;
	if (move->from->hints & TABLE_MAY_HOLD_REFS)
		table_mark_path(pt, to);
	return 0;
}

static int move_page(struct uffd_move *move)
{
	struct pte pte = pte_none();
	int error = own_leaves(move);

	if (!error)
		error = take_entry(move, &pte);
	if (!error)
		put_entry(move, pte);
	if (error == -ENOENT && (move->range.mode & UCOW_UFFD_MODE_ALLOW_SRC_HOLES))
		error = 0;
	return error;
}

static int move_locked(struct uffd_move *move)
{
	int error = atomic_load(&move->range.uffd->changing) ? -EAGAIN : find_mappings(move);

	while (!error && move->range.at < move->range.end) {
		error = move_page(move);
		if (!error)
			move->range.at += UCOW_PAGE_SIZE;
	}
	return error;
}

static int begin(struct uffd_move *move, struct ucow_uffd *uffd, uint64_t va, uint64_t source, uint64_t length,
		 unsigned mode)
{
	int error = uffd_range_begin(&move->range, uffd, va, length, mode,
				     UCOW_UFFD_MODE_DONTWAKE | UCOW_UFFD_MODE_ALLOW_SRC_HOLES);

	if (error)
		return error;
	move->source = source;
	if (!mm_range_is_valid(source, length))
		return -EINVAL;
	return va < source + length && source < va + length ? -EINVAL : 0;
}

int ucow_uffd_move(struct ucow_uffd *uffd, uint64_t va, uint64_t source, uint64_t length, unsigned mode, uint64_t *done)
{
	struct uffd_move move;
	struct ucow_mm *mm;
	unsigned tries = 0;
	int error;

	if (done)
		*done = 0;
	error = begin(&move, uffd, va, source, length, mode);
	if (error)
		return error;
	mm = move.range.mm;
	do {
		rwlock_write_lock(&mm->mmap_lock);
		notify_start(mm, source, source + length, UCOW_NOTIFY_CLEAR);
		error = move_locked(&move);
		notify_end(mm, source, source + length, UCOW_NOTIFY_CLEAR);
		space_write_unlock(mm);
	} while (unlikely(error == -ENOMEM) && space_relieve(mm, &tries));
	return uffd_range_end(&move.range, error, done);
}
