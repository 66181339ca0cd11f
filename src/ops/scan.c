/* SPDX-License-Identifier: MIT */
/*
 * PAGEMAP_SCAN: find pages by category, and write-protect those that are found (semantics.md A.7, D.1).
 *
 * Where only WRITTEN is asked for, a leaf's mask of write-protected entries answers for all 32 of them, and entries are
 * touched to be protected alone. The mmap lock is held exclusively: no fault lifts a protection meanwhile; cpus go on
 * storing with the translations that they have, until the wait at the end. What they store until then is in a page that
 * was reported; afterwards it faults.
 */
#include "ops/ops.h"

#include "base/mutate.h"
#include "fault/fault.h"
#include "fault/uffd.h"
#include "space/notifier.h"

#include <ucow/pagemap.h>

#include <errno.h>

#define LEAF_BYTES (TABLE_LEAF_MAX * UCOW_PAGE_SIZE)
#define SCAN_FLAGS (UCOW_PM_SCAN_WP_MATCHING | UCOW_PM_SCAN_CHECK_WPASYNC)
/* What can be told without looking at entries. */
#define SCAN_SUMMARY (UCOW_PAGE_IS_WPALLOWED | UCOW_PAGE_IS_WRITTEN)

struct scan {
	struct ucow_mm *mm;
	const struct ucow_pm_scan *arg;
	uint64_t max_pages, vec_len;
	uint64_t n, found; /* regions, pages */
	uint64_t stopped;  /* full: where */
	bool full;         /* no room for the page at `stopped` */
	bool protects;
	bool changed; /* something was protected */
	/* Of the current mapping. */
	uint64_t categories; /* that all its pages have */
	bool by_mask;        /* pages that are written match, others do not: leaf_wp_mask says it all */
};

/* ---- matching and reporting ---- */

static bool matches(const struct scan *scan, uint64_t categories)
{
	const struct ucow_pm_scan *arg = scan->arg;

	categories ^= arg->category_inverted;
	return (categories & arg->category_mask) == arg->category_mask &&
	       (!arg->category_anyof_mask || (categories & arg->category_anyof_mask));
}

/* Returns: up to where there was room. */
static uint64_t report(struct scan *scan, uint64_t start, uint64_t end, uint64_t categories)
{
	struct ucow_page_region *last = scan->n ? &scan->arg->vec[scan->n - 1] : NULL;
	uint64_t room = scan->max_pages - scan->found, wanted = end;

	if (!scan->vec_len)
		return end;
	categories &= scan->arg->return_mask;
	if ((end - start) >> UCOW_PAGE_SHIFT > room)
		end = start + (room << UCOW_PAGE_SHIFT);
	if (start == end)
		; /* no room for a page */
	else if (last && last->end == start && last->categories == categories)
		last->end = end;
	else if (scan->n < scan->vec_len)
		scan->arg->vec[scan->n++] = (struct ucow_page_region){start, end, categories};
	else
		end = start;
	scan->found += (end - start) >> UCOW_PAGE_SHIFT;
	if (end != wanted) {
		scan->full = true;
		scan->stopped = end;
	}
	return end;
}

/* ---- one leaf's worth ---- */

/* Bits [first, last) of a leaf's mask. */
static uint32_t slots_between(unsigned first, unsigned last)
{
	return (uint32_t)((((uint64_t)1 << last) - 1) & ~(((uint64_t)1 << first) - 1));
}

/* One page, where there is no doubt about the room. */
static void report_page(struct scan *scan, uint64_t va, uint64_t categories)
{
	struct ucow_page_region *last = &scan->arg->vec[scan->n];

	categories &= scan->arg->return_mask;
	scan->found++;
	if (scan->n && last[-1].end == va && last[-1].categories == categories) {
		last[-1].end += UCOW_PAGE_SIZE;
		return;
	}
	*last = (struct ucow_page_region){va, va + UCOW_PAGE_SIZE, categories};
	scan->n++;
}

static uint32_t report_runs(struct scan *scan, uint64_t base, uint32_t slots, uint64_t categories)
{
	uint32_t reported = 0;

	while (slots && !scan->full) {
		unsigned first = (unsigned)__builtin_ctz(slots);
		unsigned last = first + (unsigned)__builtin_ctzll(~((uint64_t)slots >> first));
		uint64_t start = base + ((uint64_t)first << UCOW_PAGE_SHIFT);
		uint64_t end = report(scan, start, base + ((uint64_t)last << UCOW_PAGE_SHIFT), categories);

		reported |= slots_between(first, first + (unsigned)((end - start) >> UCOW_PAGE_SHIFT));
		slots &= ~slots_between(first, last);
	}
	return reported;
}

/* The pages of @slots, from @base on, all of @categories. Returns: those that were reported. */
static inline uint32_t report_slots(struct scan *scan, uint64_t base, uint32_t slots, uint64_t categories)
{
	if (!scan->vec_len)
		return slots;
	if ((slots & (slots - 1)) || !slots || scan->n == scan->vec_len || scan->found == scan->max_pages)
		return report_runs(scan, base, slots, categories);
	report_page(scan, base + ((uint64_t)__builtin_ctz(slots) << UCOW_PAGE_SHIFT), categories);
	return slots;
}

/* What an empty entry is written as goes by whether stores to it are awaited: then it has not been protected since. */
static uint64_t categories_of(const struct scan *scan, struct pte pte)
{
	uint64_t categories = scan->categories;
	bool counts = !pte_is_none(pte) || (categories & UCOW_PAGE_IS_WPALLOWED);

	if (counts && !pte_is_uffd_wp(pte))
		categories |= UCOW_PAGE_IS_WRITTEN;
	if (pte_is_soft_dirty(pte))
		categories |= UCOW_PAGE_IS_SOFT_DIRTY;
	if (pte_is_present(pte))
		categories |= UCOW_PAGE_IS_PRESENT;
	else if (!pte_is_none(pte))
		categories |= UCOW_PAGE_IS_SWAPPED;
	if (pte_kind(pte) == PTE_KIND_SHARED)
		categories |= UCOW_PAGE_IS_FILE;
	if (pte_kind(pte) == PTE_KIND_ZERO_PAGE)
		categories |= UCOW_PAGE_IS_PFNZERO;
	return categories;
}

/* Pages [va, end) of one leaf, which may not exist. Returns: those of its slots that match and were reported. */
static uint32_t scan_entries(struct scan *scan, const struct table *leaf, uint64_t va, uint64_t end)
{
	uint64_t base = va & ~(LEAF_BYTES - 1);
	uint32_t reported = 0;

	for (; va < end && !scan->full; va += UCOW_PAGE_SIZE) {
		uint64_t categories = categories_of(scan, leaf ? leaf_get(leaf, va) : pte_none());

		if (matches(scan, categories))
			reported |= report_slots(scan, base, (uint32_t)1 << leaf_slot(va), categories);
	}
	return reported;
}

/* ---- protecting ---- */

/* What was reported before a leaf, should it turn out that it cannot be protected. */
struct mark {
	uint64_t n, found, last_end;
};

static struct mark mark(const struct scan *scan)
{
	return (struct mark){scan->n, scan->found, scan->n ? scan->arg->vec[scan->n - 1].end : 0};
}

static void unreport(struct scan *scan, const struct mark *before, uint64_t va)
{
	scan->n = before->n;
	scan->found = before->found;
	if (scan->n)
		scan->arg->vec[scan->n - 1].end = before->last_end;
	scan->full = true;
	scan->stopped = va;
}

/* Whether @leaf, below what is private, is too. */
static bool is_own(const struct table_block *block, const struct table *leaf)
{
	return leaf && block->is_private && !table_is_shared(leaf);
}

/* Protect what was reported of a leaf, or take the report back: its table has to be copied, or made, for that. */
static int protect(struct scan *scan, const struct table_block *block, struct table *leaf, uint64_t va, uint32_t slots,
		   const struct mark *before)
{
	if (leaf)
		slots &= ~leaf_wp_mask(leaf);
	if (!slots)
		return 0;
	if (!is_own(block, leaf) && table_own_leaf(&scan->mm->pt, va, &leaf)) {
		unreport(scan, before, va);
		return -ENOMEM;
	}
	leaf_protect(leaf, slots);
	scan->changed = true;
	return 0;
}

/* ---- ranges ---- */

static int scan_leaf(struct scan *scan, const struct table_block *block, struct table *leaf, uint64_t va, uint64_t end)
{
	struct mark before = mark(scan);
	uint32_t slots = scan_entries(scan, leaf, va, end);

	return scan->protects ? protect(scan, block, leaf, va, slots, &before) : 0;
}

/* No leaf in [va, end). */
static int scan_hole(struct scan *scan, const struct table_block *block, uint64_t va, uint64_t end)
{
	uint64_t categories = categories_of(scan, pte_none());
	int error = 0;

	if (!matches(scan, categories))
		return 0;
	if (!scan->protects) {
		(void)report(scan, va, end, categories);
		return 0;
	}
	for (; va < end && !scan->full && !error; va = table_leaf_end(va, end))
		error = scan_leaf(scan, block, NULL, va, table_leaf_end(va, end));
	return error;
}

/* @slots of a leaf are written: report, and protect. */
static inline int take_written(struct scan *scan, const struct table_block *block, struct table *leaf, uint64_t base,
			       uint32_t slots)
{
	uint64_t categories = scan->categories | UCOW_PAGE_IS_WRITTEN;
	struct mark before;

	if (unlikely(scan->protects && !is_own(block, leaf))) {
		before = mark(scan);
		slots = report_slots(scan, base, slots, categories);
		return protect(scan, block, leaf, base, slots, &before);
	}
	slots = report_slots(scan, base, slots, categories);
	if (scan->protects && slots) {
		leaf_protect(leaf, slots);
		scan->changed = true;
	}
	return 0;
}

/*
 * Only pages that are written match: all masks first, so that the entries that will change are on their way, then the
 * leaves that have such pages.
 */
static int scan_written(struct scan *scan, const struct table_block *block, uint64_t va, uint64_t end)
{
	unsigned first = table_block_slot(va), last = table_block_slot(end - 1), todo = 0;
	uint64_t base = table_block_end(va) - TABLE_BLOCK_LEAVES * LEAF_BYTES;
	uint32_t written[TABLE_BLOCK_LEAVES];
	int error = 0;

	for (unsigned i = first; i <= last; i++) {
		const struct table *leaf = block->leaves[i];

		written[i] = leaf ? ~leaf_wp_mask(leaf) : ~(uint32_t)0;
		todo |= (unsigned)!!written[i] << i;
		if (leaf && scan->protects)
			leaf_fetch(leaf, written[i]);
	}
	written[first] &= slots_between((unsigned)leaf_slot(va), TABLE_LEAF_MAX);
	written[last] &= slots_between(0, (unsigned)leaf_slot(end - UCOW_PAGE_SIZE) + 1);
	for (; todo && !scan->full && !error; todo &= todo - 1) {
		unsigned i = (unsigned)__builtin_ctz(todo);

		error = take_written(scan, block, block->leaves[i], base + i * LEAF_BYTES, written[i]);
	}
	return error;
}

static int scan_block(struct scan *scan, const struct table_block *block, uint64_t va, uint64_t end)
{
	int error = 0;

	if (!block->exists)
		return scan_hole(scan, block, va, end);
	if (scan->by_mask)
		return scan_written(scan, block, va, end);
	for (; va < end && !scan->full && !error; va = table_leaf_end(va, end))
		error = scan_leaf(scan, block, block->leaves[table_block_slot(va)], va, table_leaf_end(va, end));
	return error;
}

/* The next block is looked up, and fetched, before this one is looked at. */
static int scan_blocks(struct scan *scan, uint64_t va, uint64_t end)
{
	struct table_block blocks[2];
	unsigned at = 0;
	int error = 0;

	table_block(&scan->mm->pt, va, &blocks[at]);
	while (va < end && !scan->full && !error) {
		uint64_t next = min_u64(table_block_end(va), end);

		if (!blocks[at].exists && !table_next_leaf(&scan->mm->pt, &next, end, false))
			next = end;
		if (next < end)
			table_block(&scan->mm->pt, next, &blocks[!at]);
		error = scan_block(scan, &blocks[at], va, next);
		va = next;
		at = !at;
	}
	return error;
}

static bool needs_summary_only(const struct ucow_pm_scan *arg)
{
	return !((arg->category_inverted | arg->category_mask | arg->category_anyof_mask | arg->return_mask) &
		 ~SCAN_SUMMARY);
}

/* What the mapping says of all its pages. Returns: whether it is scanned. */
static bool enter_mapping(struct scan *scan, const struct vma *vma)
{
	uint64_t required = scan->arg->category_mask & UCOW_PAGE_IS_WPALLOWED, written;
	bool is_async = uffd_wp_is_async(vma);

	if ((!is_async && scan->protects) || (vma->flags & VMA_PFNMAP))
		return false;
	scan->categories = (is_async ? UCOW_PAGE_IS_WPALLOWED : 0) |
			   (vma->flags & VMA_SOFTDIRTY ? UCOW_PAGE_IS_SOFT_DIRTY : 0);
	written = scan->categories | UCOW_PAGE_IS_WRITTEN;
	scan->by_mask = is_async && needs_summary_only(scan->arg) && matches(scan, written) &&
			!matches(scan, scan->categories);
	return ((scan->categories ^ scan->arg->category_inverted) & required) == required;
}

static int check_async(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	for (struct vma *vma = vma_find(&mm->vmas, start); vma && vma->start < end; vma = vma_next(vma))
		if (!uffd_wp_is_async(vma))
			return -EPERM;
	return 0;
}

static int scan_range(struct scan *scan, uint64_t start, uint64_t end)
{
	struct vma *vma = vma_find(&scan->mm->vmas, start);
	int error = 0;

	for (; vma && vma->start < end && !scan->full && !error; vma = vma_next(vma))
		if (enter_mapping(scan, vma))
			error = scan_blocks(scan, max_u64(start, vma->start), min_u64(end, vma->end));
	return error;
}

/* ---- the call ---- */

static bool arguments_are_valid(const struct ucow_pm_scan *arg)
{
	uint64_t categories = arg->category_inverted | arg->category_mask | arg->category_anyof_mask | arg->return_mask;

	if (arg->size != sizeof(*arg) || (arg->flags & ~SCAN_FLAGS) || (categories & ~UCOW_PAGE_IS_ALL))
		return false;
	if ((arg->start & ~UCOW_PAGE_MASK) || arg->end < arg->start || arg->end > ((uint64_t)1 << UCOW_ADDRESS_BITS))
		return false;
	return arg->vec || !arg->vec_len;
}

/* One bump and one wait for all that was protected: from then on every store to it faults. */
static int scan_locked(struct scan *scan, uint64_t start, uint64_t end)
{
	struct ucow_mm *mm = scan->mm;
	int error = 0;

	if (scan->arg->flags & UCOW_PM_SCAN_CHECK_WPASYNC)
		error = check_async(mm, start, end);
	if (error)
		return error;
	if (!scan->protects)
		return scan_range(scan, start, end);
	notify_start(mm, start, end, UCOW_NOTIFY_TRACK);
	error = scan_range(scan, start, end);
	if (scan->changed && !MUTATED(SCAN_WITHOUT_SHOOTDOWN)) {
		tlb_invalidate(&mm->pt.generations, start, end);
		tlb_shootdown(&mm->pt);
	}
	notify_end(mm, start, end, UCOW_NOTIFY_TRACK);
	return error;
}

/* What was found before memory ran out is given back as if there were no more room for it. */
long ucow_pagemap_scan(struct ucow_mm *mm, struct ucow_pm_scan *arg)
{
	struct scan scan;
	unsigned tries = 0;
	int error;

	if (!arguments_are_valid(arg))
		return -EINVAL;
	if (mm->read_only && (arg->flags & UCOW_PM_SCAN_WP_MATCHING))
		return -EACCES;
	do {
		scan = (struct scan){
			.mm = mm,
			.arg = arg,
			.max_pages = arg->max_pages ? arg->max_pages : UINT64_MAX,
			.vec_len = arg->vec_len,
			.protects = arg->flags & UCOW_PM_SCAN_WP_MATCHING,
		};
		rwlock_write_lock(&mm->mmap_lock);
		error = scan_locked(&scan, arg->start, page_round_up(arg->end));
		rwlock_write_unlock(&mm->mmap_lock);
	} while (unlikely(error == -ENOMEM && !scan.n) && space_relieve(mm, &tries));
	if (error == -EPERM || (error && !scan.n))
		return error;
	arg->walk_end = scan.full ? scan.stopped : arg->end;
	return (long)scan.n;
}
