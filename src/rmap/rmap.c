/* SPDX-License-Identifier: MIT */
/* Walks from a page to its entries. */
#include "rmap/rmap.h"

#define LEAF_TRIES (exploring ? 1 : 256)
#define ROUNDS     16 /* of walks that a locked leaf ended */

struct rmap {
	struct ucow_machine *machine;
	struct ucow_page *page;
	struct swap_entry slot; /* what is looked for instead of the page's mappings; or none */
	bool (*visit)(void *arg, const struct rmap_entry *entry);
	void *arg;
	enum rmap_result result;
	uint64_t looked;
	struct table *busy; /* the leaf that ended the walk */
};

/* Faults hold a leaf's lock for moments, and may be waiting for the family's, which is ours: a few tries, no wait. */
static bool try_leaf(struct table *leaf)
{
	for (int tries = 0; tries < LEAF_TRIES; tries++)
		if (table_trylock(leaf))
			return true;
	return false;
}

static bool is_match(const struct rmap *rmap, struct pte pte)
{
	if (!swap_entry_is_none(rmap->slot))
		return pte_is_swap(pte) && pte_swap_entry(pte).v == rmap->slot.v;
	return pte_kind(pte) == PTE_KIND_ANON && pte_frame(pte) == page_to_pfn(rmap->page);
}

/* Returns: whether to go on. */
static bool look(struct rmap *rmap, const struct kin *kin, int home)
{
	struct rmap_entry entry = {.leaf = kin->leaf, .va = (uint64_t)(home + kin->shift) << UCOW_PAGE_SHIFT};
	bool more = true;

	if (home + kin->shift < 0 || home + kin->shift >= TABLE_LEAF_MAX)
		return true;
	rmap->looked++;
	if (!try_leaf(kin->leaf)) {
		rmap->result = RMAP_BUSY;
		rmap->busy = kin->leaf;
		return false;
	}
	entry.pte = leaf_get(kin->leaf, entry.va);
	if (is_match(rmap, entry.pte))
		more = rmap->visit(rmap->arg, &entry);
	table_unlock(kin->leaf);
	if (!more)
		rmap->result = RMAP_STOPPED;
	return more;
}

static bool walk_family(void *arg, struct family *family, int home)
{
	struct rmap *rmap = arg;
	bool more = true;

	spin_lock(&family->lock, LOCK_FAMILY);
	for (struct list *link = family->kin.next; link != &family->kin && more; link = link->next)
		more = look(rmap, container_of(link, struct kin, link), home);
	spin_unlock(&family->lock, LOCK_FAMILY);
	return more;
}

/*
 * While an entry maps the page, or names its slot, the entry's leaf is a member of the page's family, which therefore
 * exists; and it existed when the section began, so that its memory stays until the section ends.
 */
static enum rmap_result walk(struct rmap *rmap)
{
	struct ucow_machine *machine = rmap->machine;
	struct ucow_page *page = rmap->page;

	for (unsigned round = 0; round < ROUNDS; round++) {
		rmap->result = RMAP_DONE;
		if (page_is(page, PAGE_KSM) && machine->homes)
			machine->homes->for_each(machine->homes->arg, page, walk_family, rmap);
		else if (!page_is(page, PAGE_KSM) && page->mapping)
			walk_family(rmap, page->mapping, page->home);
		if (rmap->result != RMAP_BUSY)
			break;
		/* With the family's lock let go of: the leaf's holder may want it. In a section the leaf's memory
		 * stays. */
		wait_until(HOOK_LOAD, &rmap->busy->lock, spin_is_free, 0);
	}
	count_add(&machine->counters, UCOW_COUNTER_RMAP_ENTRIES, rmap->looked);
	return rmap->result;
}

enum rmap_result rmap_walk(struct ucow_machine *machine, struct ucow_page *page,
			   bool (*visit)(void *arg, const struct rmap_entry *entry), void *arg)
{
	struct rmap rmap = {.machine = machine, .page = page, .visit = visit, .arg = arg};
	enum rmap_result result = RMAP_DONE;

	epoch_enter(&machine->epoch);
	if (page_mapcount(page))
		result = walk(&rmap);
	epoch_leave(&machine->epoch);
	return result;
}

enum rmap_result rmap_walk_swap(struct ucow_machine *machine, struct ucow_page *page, struct swap_entry entry,
				bool (*is_named)(void *arg), bool (*visit)(void *arg, const struct rmap_entry *entry),
				void *arg)
{
	struct rmap rmap = {.machine = machine, .page = page, .slot = entry, .visit = visit, .arg = arg};
	enum rmap_result result = RMAP_DONE;

	epoch_enter(&machine->epoch);
	if (is_named(arg))
		result = walk(&rmap);
	epoch_leave(&machine->epoch);
	return result;
}
