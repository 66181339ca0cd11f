/* SPDX-License-Identifier: MIT */
/* Soft-dirty: clearing it. Pages as /proc/PID/pagemap shows them; frames as /proc/kpageflags and kpagecount do. */
#include "ops/ops.h"

#include "base/mutate.h"
#include "fault/fault.h"
#include "space/notifier.h"

#include <ucow/pagemap.h>

#include <errno.h>

/* ---- clearing soft-dirty (clear_refs 4, semantics.md B.7) ---- */

static bool is_marked(struct pte pte)
{
	return pte_is_soft_dirty(pte) || pte_is_writable(pte);
}

/* Whether anything in the leaf has been noted, or could be without a fault. What is below shared tables is looked at
 * as it is; entries change there only in ways that are no matter here. */
static bool leaf_is_marked(const struct table *leaf, uint64_t start)
{
	bool marked = false;

	for (uint64_t va = start; va < table_leaf_end(start, UCOW_ADDRESS_LIMIT) && !marked; va += UCOW_PAGE_SIZE)
		marked = is_marked(leaf_get(leaf, va));
	return marked;
}

/* Own what will change, so that nothing fails later; leaves that nobody has written to stay shared. */
static int own_marked(struct ucow_mm *mm)
{
	struct table *leaf, *own;
	int error = 0;

	for (uint64_t va = 0; !error && (leaf = table_next_leaf(&mm->pt, &va, UCOW_ADDRESS_LIMIT, false));
	     va = table_leaf_end(va, UCOW_ADDRESS_LIMIT))
		if (leaf_is_marked(leaf, va))
			error = table_own_leaf(&mm->pt, va, &own);
	return error;
}

/*
 * A device may write through the pin whenever it likes, and nobody sees it: the page goes on being writable and
 * reporting dirty (pte_is_pinned).
 */
static bool is_spared(struct ucow_mm *mm, const struct vma *vma, struct pte pte)
{
	return mm->machine->policy->clear_spares_pinned && !MUTATED(CLEAR_PINNED) && atomic_load(&mm->has_pinned) &&
	       vma_is_cow(vma) && pte_is_writable(pte) && pte_has_page(pte) &&
	       page_maybe_pinned(pte_page(&mm->machine->frames, pte));
}

static struct pte clear_entry(struct ucow_mm *mm, const struct vma *vma, struct pte pte)
{
	if (is_spared(mm, vma, pte))
		return pte_mk_soft_dirty(pte);
	return pte_clear_soft_dirty(pte_is_present(pte) ? pte_wrprotect(pte) : pte);
}

/*
 * A fast pin that was going on while its page was looked at: it found the entry as it was, writable. Its reference is
 * seen now, after the bump. [ORD-GUP-1] The entry stays read-only, but reports dirty.
 */
static struct pte note_late_pin(struct ucow_mm *mm, const struct vma *vma, struct pte pte)
{
	const struct ucow_page *page;

	if (!vma_is_cow(vma) || !(vma->flags & VMA_WRITE) || !pte_has_page(pte))
		return pte;
	page = pte_page(&mm->machine->frames, pte);
	return page_is(page, PAGE_EXCLUSIVE) && page_maybe_pinned(page) ? pte_mk_soft_dirty(pte) : pte;
}

static void change_all(struct ucow_mm *mm, change_entry *change)
{
	VMA_FOR_EACH (vma, &mm->vmas)
		change_entries(mm, vma, vma->start, vma->end, change);
}

/* One bump and one wait for all of it. */
static int clear_locked(struct ucow_mm *mm)
{
	int error = own_marked(mm);

	if (error)
		return error;
	notify_start(mm, 0, UCOW_ADDRESS_LIMIT, UCOW_NOTIFY_TRACK);
	VMA_FOR_EACH (vma, &mm->vmas)
		vma->flags &= ~(unsigned)VMA_SOFTDIRTY;
	change_all(mm, clear_entry);
	tlb_invalidate(&mm->pt.generations, 0, UCOW_ADDRESS_LIMIT);
	if (mm->machine->policy->clear_spares_pinned && atomic_load(&mm->has_pinned))
		change_all(mm, note_late_pin);
	tlb_shootdown(&mm->pt);
	notify_end(mm, 0, UCOW_ADDRESS_LIMIT, UCOW_NOTIFY_TRACK);
	return 0;
}

int ucow_clear_soft_dirty(struct ucow_mm *mm)
{
	unsigned tries = 0;
	int error;

	if (mm->read_only)
		return -EACCES;
	do {
		rwlock_write_lock(&mm->mmap_lock);
		error = clear_locked(mm);
		rwlock_write_unlock(&mm->mmap_lock);
	} while (unlikely(error == -ENOMEM) && space_relieve(mm, &tries));
	return error;
}

/* ---- one word a page ---- */

static uint64_t describe_present(const struct ucow_machine *machine, struct pte pte, bool is_private)
{
	uint64_t word = UCOW_PM_PRESENT | pte_frame(pte);

	if (!pte_has_page(pte))
		return word;
	if (pte_kind(pte) == PTE_KIND_SHARED)
		word |= UCOW_PM_FILE;
	if (is_private && page_mapcount(pte_page(&machine->frames, pte)) == 1)
		word |= UCOW_PM_EXCLUSIVE;
	return word;
}

static uint64_t describe(const struct ucow_machine *machine, const struct vma *vma, struct pte pte, bool is_private)
{
	uint64_t word = vma->flags & VMA_SOFTDIRTY || pte_is_soft_dirty(pte) ? UCOW_PM_SOFT_DIRTY : 0;

	if (pte_is_uffd_wp(pte))
		word |= UCOW_PM_UFFD_WP;
	if (pte_is_present(pte))
		return word | describe_present(machine, pte, is_private);
	if (pte_is_swap(pte))
		return word | UCOW_PM_SWAP | swap_entry_device(pte_swap_entry(pte)) |
		       swap_entry_slot(pte_swap_entry(pte)) << 5;
	return pte_is_none(pte) ? word : word | UCOW_PM_SWAP;
}

static void describe_range(struct ucow_mm *mm, uint64_t va, uint64_t end, uint64_t *words)
{
	const struct vma *vma = NULL;
	struct walk walk = {0};

	for (uint64_t at = va; at < end; at += UCOW_PAGE_SIZE) {
		if (at == va || !table_same_leaf(at, at - UCOW_PAGE_SIZE))
			walk = table_walk_path(&mm->pt, at);
		if (!vma || at >= vma->end)
			vma = vma_find(&mm->vmas, at);
		if (!vma || at < vma->start)
			*words++ = 0;
		else
			*words++ = describe(mm->machine, vma, walk.leaf ? leaf_get(walk.leaf, at) : pte_none(),
					    walk.is_private);
	}
}

int ucow_pagemap(struct ucow_mm *mm, uint64_t va, uint64_t npages, uint64_t *words)
{
	uint64_t most = ((uint64_t)1 << UCOW_ADDRESS_BITS) >> UCOW_PAGE_SHIFT;

	if ((va & ~UCOW_PAGE_MASK) || va >> UCOW_PAGE_SHIFT > most || npages > most - (va >> UCOW_PAGE_SHIFT))
		return -EINVAL;
	rwlock_write_lock(&mm->mmap_lock);
	describe_range(mm, va, va + (npages << UCOW_PAGE_SHIFT), words);
	rwlock_write_unlock(&mm->mmap_lock);
	return 0;
}

/* ---- frames ---- */

/* The frame numbered @pfn, if RAM has been committed that far. */
static const struct ucow_page *frame_of(struct ucow_machine *machine, uint64_t pfn)
{
	return pfn < machine->frames.npages ? &machine->frames.pages[pfn] : NULL;
}

uint64_t ucow_page_flags(struct ucow_machine *machine, uint64_t pfn)
{
	static const struct {
		uint32_t flag;
		uint64_t shown;
	} shown[] = {
		{PAGE_LOCKED, UCOW_KPF_LOCKED},
		{PAGE_DIRTY, UCOW_KPF_DIRTY},
		{PAGE_LRU, UCOW_KPF_LRU},
		{PAGE_ACTIVE, UCOW_KPF_ACTIVE},
		{PAGE_WRITEBACK, UCOW_KPF_WRITEBACK},
		{PAGE_ANON, UCOW_KPF_ANON | UCOW_KPF_SWAPBACKED},
		{PAGE_SWAPCACHE, UCOW_KPF_SWAPCACHE},
		{PAGE_KSM, UCOW_KPF_KSM},
		{PAGE_ZERO, UCOW_KPF_ZERO_PAGE},
		{PAGE_EXCLUSIVE, UCOW_KPF_ANON_EXCLUSIVE},
	};
	const struct ucow_page *page = frame_of(machine, pfn);
	uint64_t flags = 0;

	if (!page)
		return UCOW_KPF_NOPAGE;
	if (!page_refcount(page))
		return UCOW_KPF_BUDDY;
	for (unsigned i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
		if (page_is(page, shown[i].flag))
			flags |= shown[i].shown;
	return flags | UCOW_KPF_UPTODATE | (page_mapcount(page) ? UCOW_KPF_MMAP : 0);
}

uint64_t ucow_page_count(struct ucow_machine *machine, uint64_t pfn)
{
	const struct ucow_page *page = frame_of(machine, pfn);

	return page && page_refcount(page) ? page_mapcount(page) : 0;
}
