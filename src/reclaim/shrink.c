/* SPDX-License-Identifier: MIT */
/*
 * One batch of pages on its way out. A page is unmapped everywhere, so that its entries name a swap slot and the page
 * is in the swap cache; then every cpu is made to forget it; then it is written; and when that is done, and nobody has
 * asked for it meanwhile, its frame is free. Semantics.md B.1 (try_share), B.6.
 *
 * From the unmapping on a fault finds the page in the cache. The page lock is held until it has been written, so that
 * its bytes stand still. One barrier serves the whole batch.
 */
#include "reclaim/internal.h"

#include "base/host.h"
#include "base/mutate.h"
#include "fault/policy.h"
#include "space/notifier.h"

/* ---- looking at a page ---- */

struct look {
	bool accessed, dirty, locked;
};

static bool look_at_entry(void *arg, const struct rmap_entry *entry)
{
	struct look *look = arg;

	look->dirty |= pte_is_dirty(entry->pte);
	look->locked |= pte_is_locked(entry->pte);
	if (!pte_is_accessed(entry->pte))
		return true;
	look->accessed = true;
	leaf_set(entry->leaf, entry->va, pte_mkold(entry->pte));
	return true;
}

/*
 * Whether somebody holds the page beside its mappings, the cache and us: a pin, a get, a copy that is being made. Such
 * a page is left alone [INV-PIN-1]; more than Linux does for plain references, whose pages it unmaps in vain.
 */
static bool is_held(const struct ucow_page *page)
{
	uint32_t expected = page_mapcount(page) + 1 + page_is(page, PAGE_SWAPCACHE);

	return page_pincount(page) || page_refcount(page) != expected;
}

/* What to do with an isolated page. */
enum verdict { TAKE, DROP, KEEP, ACTIVATE };

static enum verdict judge(struct shrink *shrink, struct ucow_page *page)
{
	struct look look = {0};

	if (page_is(page, PAGE_WRITEBACK | PAGE_READING) || !page_is(page, PAGE_ANON))
		return KEEP;
	if (!shrink->swap && !page_is(page, PAGE_LAZYFREE))
		return KEEP;
	if (is_held(page) && !MUTATED(RECLAIM_PINNED)) {
		count(&shrink->machine->counters, UCOW_COUNTER_RECLAIM_HELD);
		return ACTIVATE;
	}
	if (rmap_walk(shrink->machine, page, look_at_entry, &look) != RMAP_DONE)
		return KEEP;
	if (look.locked && !MUTATED(RECLAIM_LOCKED))
		return ACTIVATE;
	if (look.accessed && !shrink->force) {
		count(&shrink->machine->counters, UCOW_COUNTER_RECLAIM_REFERENCED);
		return ACTIVATE;
	}
	if (page_is(page, PAGE_LAZYFREE)) {
		if (!look.dirty && !page_is(page, PAGE_DIRTY))
			return DROP;
		page_clear(page, PAGE_LAZYFREE); /* written to since: swap-backed again (B.6) */
	}
	return TAKE;
}

/* ---- taking it from its entries ---- */

struct unmap {
	struct shrink *shrink;
	struct ucow_page *page;
	bool drop; /* lazily freed: entries become empty */
};

/*
 * The flag may go only if nobody has pinned the page: entry first, then a full barrier, then the look at the references
 * [ORD-GUP-1]; gup_fast takes its reference first and then looks at the entry again.
 */
static bool try_share(struct ucow_page *page)
{
	atomic_fetch_add(&page->mapcount, 0);
	return !is_held(page) || MUTATED(SWAPOUT_IGNORES_PINS) || MUTATED(RECLAIM_PINNED);
}

/* Again, under the leaf's lock: it may have been written to since, or somebody has noted what it reads as. */
static bool may_drop(const struct ucow_page *page, struct pte pte)
{
	return !pte_is_dirty(pte) && page_is(page, PAGE_LAZYFREE) && !page_is(page, PAGE_DIRTY);
}

static bool unmap_entry(void *arg, const struct rmap_entry *entry)
{
	const struct unmap *unmap = arg;
	struct ucow_machine *machine = unmap->shrink->machine;
	struct ucow_page *page = unmap->page;
	uint32_t paths = entry->leaf->accounted;
	struct swap_entry slot = page_swap_entry(page);

	if (unmap->drop && !may_drop(page, entry->pte))
		return false;
	if (pte_is_locked(entry->pte) && !MUTATED(RECLAIM_LOCKED))
		return false; /* since we looked */
	/* Still the page's, to a fork that looks for pinned pages without our lock; a pin that is begun now waits. */
	leaf_set(entry->leaf, entry->va, pte_mk_protnone(entry->pte));
	if (!try_share(page)) {
		leaf_set(entry->leaf, entry->va, entry->pte);
		return false;
	}
	leaf_set(entry->leaf, entry->va,
		 unmap->drop ? pte_none() : pte_make_swap(slot, page_is(page, PAGE_EXCLUSIVE), entry->pte));
	page_clear(page, PAGE_EXCLUSIVE); /* it lives in the entry from now on (semantics.md 0.1, 5) */
	if (pte_is_dirty(entry->pte))
		page_set(page, PAGE_DIRTY);
	if (!unmap->drop)
		machine->tables.swap->dup(machine->tables.swap_arg, slot, paths);
	for (uint32_t i = 0; i < paths; i++) {
		page_unmap(page);
		page_put(page);
	}
	return true;
}

/* ---- the batch ---- */

static void put_back(struct shrink *shrink, struct ucow_page *page, bool active)
{
	if (page_is(page, PAGE_SWAPCACHE)) {
		struct swap *swap = shrink->swap;

		/* Mapped again, or never unmapped: the slot is of no use if no entry names it. */
		if (page_mapcount(page) && !swap_count(swap, page))
			swap_forget(swap, page, false);
		if (active)
			page_set(page, PAGE_ACTIVE);
		page_get(page);
		lru_put_back(page, LRU_NEWEST);
		swap_unlock(swap, page);
		page_put(page);
		return;
	}
	if (active)
		page_set(page, PAGE_ACTIVE);
	page_unlock(page);
	lru_put_back(page, LRU_NEWEST);
}

/* Sort the isolated pages; those that go are left in shrink->pages, in order, first those that need nothing. */
static void judge_all(struct shrink *shrink)
{
	unsigned n = 0;

	for (unsigned i = 0; i < shrink->n; i++) {
		struct ucow_page *page = shrink->pages[i];
		enum verdict verdict;

		count(&shrink->machine->counters, UCOW_COUNTER_RECLAIM_SCANNED);
		if (!page_trylock(page)) {
			lru_put_back(page, LRU_NEWEST);
			continue;
		}
		verdict = judge(shrink, page);
		if (verdict == KEEP || verdict == ACTIVATE) {
			put_back(shrink, page, verdict == ACTIVATE);
			continue;
		}
		shrink->drop[n] = verdict == DROP;
		shrink->pages[n++] = page;
	}
	shrink->n = n;
}

/* Slots for all that have none. A page that gets none stays where it is. */
static void take_slots(struct shrink *shrink)
{
	struct ucow_page *need[SHRINK_BATCH];
	unsigned n = 0, kept = 0, got;

	for (unsigned i = 0; i < shrink->n; i++)
		if (!shrink->drop[i] && !page_is(shrink->pages[i], PAGE_SWAPCACHE))
			need[n++] = shrink->pages[i];
	got = shrink->swap ? swap_take(shrink->swap, need, n) : 0;
	for (unsigned i = got; i < n; i++)
		put_back(shrink, need[i], true);
	for (unsigned i = 0, refused = got; i < shrink->n; i++) {
		if (refused < n && shrink->pages[i] == need[refused]) {
			refused++;
			continue;
		}
		shrink->drop[kept] = shrink->drop[i];
		shrink->pages[kept++] = shrink->pages[i];
	}
	shrink->n = kept;
}

static void unmap_all(struct shrink *shrink)
{
	for (unsigned i = 0; i < shrink->n; i++) {
		struct unmap unmap = {.shrink = shrink, .page = shrink->pages[i], .drop = shrink->drop[i]};

		rmap_walk(shrink->machine, shrink->pages[i], unmap_entry, &unmap);
	}
}

/*
 * Every cpu of the machine forgets what it has cached, since a leaf does not tell who shares it [rule 6]; whoever is
 * inside an access or a section leaves it.
 */
static void shoot_down(struct shrink *shrink)
{
	struct epoch *epoch = &shrink->machine->epoch;

	if (MUTATED(RECLAIM_WITHOUT_SHOOTDOWN))
		return;
	tlb_invalidate_all(epoch);
	if (!MUTATED(RECLAIM_WITHOUT_WAIT))
		epoch_quiesce(epoch);
}

static void free_page(struct shrink *shrink, struct ucow_page *page)
{
	memcg_note_reclaimed(shrink->machine, page->memcg);
	page_free(page);
	count(&shrink->machine->counters, UCOW_COUNTER_RECLAIM_STOLEN);
}

/* Lazily freed: nobody maps it and nobody but us refers to it. */
static bool drop_page(struct shrink *shrink, struct ucow_page *page)
{
	if (page_mapcount(page) || !page_freeze(page, 1))
		return false;
	free_page(shrink, page);
	count(&shrink->machine->counters, UCOW_COUNTER_LAZYFREE_DROPPED);
	return true;
}

/* The slot has its bytes already: nothing to write. */
static bool evict_clean(struct shrink *shrink, struct ucow_page *page)
{
	if (page_is(page, PAGE_DIRTY) || !swap_evict(shrink->swap, page))
		return false;
	free_page(shrink, page);
	return true;
}

static void finish(struct shrink *shrink)
{
	struct ucow_page *write[SHRINK_BATCH];
	unsigned n = 0;

	for (unsigned i = 0; i < shrink->n; i++) {
		struct ucow_page *page = shrink->pages[i];

		if (shrink->drop[i]) {
			if (!drop_page(shrink, page))
				put_back(shrink, page, true);
		} else if (page_mapcount(page) || is_held(page)) {
			put_back(shrink, page, true);
		} else if (!evict_clean(shrink, page)) {
			write[n++] = page;
		}
	}
	writeback_submit(shrink, write, n);
}

void shrink_batch(struct shrink *shrink)
{
	shrink_files(shrink);
	judge_all(shrink);
	take_slots(shrink);
	if (!shrink->n)
		return;
	notify_all_start(shrink->machine, UCOW_NOTIFY_CLEAR);
	unmap_all(shrink);
	shoot_down(shrink);
	notify_all_end(shrink->machine, UCOW_NOTIFY_CLEAR);
	finish(shrink);
}
