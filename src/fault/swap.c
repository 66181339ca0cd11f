/* SPDX-License-Identifier: MIT */
/*
 * Faults on swap entries (do_swap_page, semantics.md B.6). The page is mapped with its lock held; its bytes are read,
 * and its lock waited for, by fault.c outside of any section.
 */
#include "fault/fault_internal.h"

#include "base/mutate.h"
#include "swap/swap.h"

#include <errno.h>

/* What is known of the page when its entry is about to become present. */
struct swapin {
	struct fault *fault;
	struct swap *swap;
	struct ucow_page *page; /* locked, with a reference */
	bool forgets;           /* the slot comes free */
	bool writable;
};

/* References besides those that this fault took for itself; one of its own stands for the mapping to be. */
static uint32_t refcount_of(const struct swapin *in)
{
	uint32_t own = 1;

	own += in->fault->waited_for == in->page;
	own += in->fault->brought == in->page;
	return page_refcount(in->page) - own + 1;
}

/*
 * A store will make what the slot keeps worthless: if nobody else needs that, it comes free, and the page may turn out
 * to be ours alone. The same where slots are scarce. Requires: the leaf's lock, so that no entry of ours is copied
 * meanwhile.
 */
static bool may_forget(const struct swapin *in, uint32_t others)
{
	if (others || page_is(in->page, PAGE_WRITEBACK))
		return false;
	return ((in->fault->flags & FAULT_WRITE) && refcount_of(in) == 2) || swap_is_tight(in->swap);
}

/* @named: entries that name the slot, this one included. */
static enum swapin_action decide(const struct swapin *in, uint32_t named)
{
	const struct fault *fault = in->fault;
	const struct swapin_facts facts = {
		.write = fault->flags & FAULT_WRITE,
		.ksm = page_is(in->page, PAGE_KSM),
		.entry_exclusive = pte_swap_is_exclusive(fault->pte),
		.exposed = true,
		.refcount = refcount_of(in) - in->forgets,
		.mapcount = page_mapcount(in->page),
		.swapcount = named,
		.vma_writable = fault->vma->flags & VMA_WRITE,
	};

	return fault->mm->machine->policy->swap_in(&facts);
}

static struct pte present_entry(const struct swapin *in)
{
	const struct fault *fault = in->fault;
	struct pte pte = pte_inherit(pte_make_anon(in->page), fault->pte);

	if ((fault->flags & FAULT_WRITE) && in->writable)
		pte = pte_mkdirty(pte);
	return entry_permit(fault->vma, pte, in->writable);
}

static void let_slot_go(struct swapin *in, uint32_t paths)
{
	const struct fault *fault = in->fault;

	fault->mm->machine->tables.swap->drop(in->swap, pte_swap_entry(fault->pte), paths);
	if (in->forgets)
		swap_forget(in->swap, in->page, false);
}

/*
 * Entries of a shared leaf change in place, for all who share it: an entry then stands for every path that is accounted
 * for, and is read-only [rule 6]. Who turns out to be alone on the path learns so by a write-protect fault.
 */
static void install(struct swapin *in)
{
	struct fault *fault = in->fault;
	uint32_t paths = fault->leaf->accounted, named = swap_count(in->swap, in->page);
	enum swapin_action action;

	in->forgets = may_forget(in, named - paths);
	action = decide(in, named);
	in->writable = action != SWAPIN_READ_ONLY && fault->is_private && !pte_is_uffd_wp(fault->pte);
	if (action == SWAPIN_EXCLUSIVE || MUTATED(SWAPIN_SETS_EXCLUSIVE))
		page_set(in->page, PAGE_EXCLUSIVE);
	for (uint32_t i = 0; i < paths; i++) {
		page_get(in->page);
		page_map(in->page);
	}
	/* While an entry names the slot, the slot is there [ORD-SWAP-1]. */
	if (MUTATED(DROP_SLOT_EARLY))
		let_slot_go(in, paths);
	leaf_set(fault->leaf, fault->va, present_entry(in));
	if (!MUTATED(DROP_SLOT_EARLY))
		let_slot_go(in, paths);
}

/*
 * Whether the leaf is still in its place: one that others share may have been let go of meanwhile, and they may have
 * freed it. As for accessed bits, the shape tells, under the leaf's lock.
 */
static bool lock_leaf(struct fault *fault)
{
	if (!fault_relock(fault))
		return false;
	if (fault->is_private || shape_read(&fault->mm->pt) == fault->shape)
		return true;
	table_unlock(fault->leaf);
	return false;
}

/* Requires: the page lock. The page lock keeps the page in the cache, where it is since the entry still names it. */
static enum fault_result map_page(struct swapin *in)
{
	struct fault *fault = in->fault;

	if (!page_is(in->page, PAGE_SWAPCACHE) || page_swap_entry(in->page).v != pte_swap_entry(fault->pte).v)
		return FAULT_RETRY; /* not read after all, or gone and come back elsewhere */
	if (!lock_leaf(fault))
		return FAULT_RETRY;
	install(in);
	table_unlock(fault->leaf);
	if (fault->brought == in->page)
		fault_count(fault, UCOW_COUNTER_FAULT_MAJOR);
	else
		swap_note_hit(in->swap, in->page);
	/* A write to what is not ours goes on as a write-protect fault. */
	if ((fault->flags & (FAULT_WRITE | FAULT_UNSHARE)) && !in->writable) {
		if (page_is(in->page, PAGE_KSM))
			fault_count(fault, UCOW_COUNTER_KSM_SWAPIN_COPY);
		return FAULT_RETRY;
	}
	return FAULT_DONE;
}

enum fault_result fault_swap(struct fault *fault)
{
	struct swapin in = {.fault = fault, .swap = machine_swap(fault->mm->machine)};
	bool is_ours;
	enum fault_result result;

	in.page = swap_lookup(in.swap, pte_swap_entry(fault->pte));
	if (!in.page)
		return FAULT_SWAP_IN;
	is_ours = fault->waited_for == in.page;
	if (!is_ours && !page_trylock(in.page)) {
		fault->to_lock = in.page; /* with our reference */
		fault->for_bytes = true;
		return FAULT_LOCK_PAGE;
	}
	result = map_page(&in);
	if (!is_ours)
		swap_unlock(in.swap, in.page);
	page_put(in.page);
	return result;
}

enum fault_result fault_bring(struct fault *fault)
{
	struct swap *swap = machine_swap(fault->mm->machine);
	struct ucow_page *page;
	int error;

	fault_release_brought(fault);
	fault_release_waited(fault);
	error = swap_read(swap, fault->mm, pte_swap_entry(fault->pte), &page);
	if (error)
		return error == -ENOMEM ? FAULT_OOM : FAULT_SIGBUS;
	fault->brought = page;
	return FAULT_RETRY;
}

void fault_release_brought(struct fault *fault)
{
	if (fault->brought)
		page_put(fault->brought);
	fault->brought = NULL;
}
