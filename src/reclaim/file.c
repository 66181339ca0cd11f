/* SPDX-License-Identifier: MIT */
/*
 * Pages of files under pressure: what is dirty is written first, what is clean is taken from its entries and dropped,
 * since the file has it. A page that may be pinned stays, and is not written either (semantics.md B.8).
 */
#include "reclaim/internal.h"

#include "base/mutate.h"
#include "cache/flush.h"
#include "cache/walk.h"

/* Isolated pages of one cache, in order. */
struct file_batch {
	struct shrink *shrink;
	struct cache *cache;
	unsigned n;
	struct ucow_page *pages[SHRINK_BATCH_MAX];
	bool keep[SHRINK_BATCH_MAX]; /* used since it was last looked at, or not to be taken from an entry */
};

/* ---- which cache ---- */

/* The cache that the page is in, with a reference. The page lock keeps it there, and so the cache from ending. */
static struct cache *hold_cache(struct ucow_page *page)
{
	struct cache *cache;

	if (!page_trylock(page))
		return NULL;
	cache = cache_of(page);
	if (cache && !cache_try_get(cache))
		cache = NULL;
	page_unlock(page);
	return cache;
}

static void put_back(struct ucow_page *page, bool active)
{
	if (active)
		page_set(page, PAGE_ACTIVE);
	lru_put_back(page, LRU_NEWEST);
}

/* ---- judging ---- */

/* Beside its mappings, the cache's and our reference: a pin, a get, a fault under way. */
static bool is_held(const struct ucow_page *page)
{
	return page_pincount(page) || page_refcount(page) != page_mapcount(page) + 2;
}

static bool is_in_hand(const struct ucow_page *page)
{
	return page_is(page, PAGE_WRITEBACK | PAGE_READING) || !page_is(page, PAGE_FILE);
}

/* The pages that may go stay in the batch. */
static void judge(struct file_batch *batch)
{
	struct counters *counters = &batch->shrink->machine->counters;
	unsigned n = 0;

	for (unsigned i = 0; i < batch->n; i++) {
		struct ucow_page *page = batch->pages[i];

		count(counters, UCOW_COUNTER_RECLAIM_SCANNED);
		if (is_in_hand(page)) {
			put_back(page, false);
		} else if (is_held(page) && !MUTATED(RECLAIM_PINNED_FILE)) {
			count(counters, UCOW_COUNTER_RECLAIM_HELD);
			put_back(page, true);
		} else {
			batch->pages[n++] = page;
		}
	}
	batch->n = n;
}

/* ---- taking it from its entries ---- */

static void drop_mapping(const struct cache_entry *entry, struct ucow_page *page)
{
	for (uint32_t paths = entry->leaf->accounted; paths; paths--) {
		page_unmap(page);
		page_put(page);
	}
}

/*
 * An entry that was used gives its page a second chance. A dirty one cannot go: the store came after the writing, and
 * the page is dirty too. What is write-protected for somebody stays so without its page (B.7).
 */
static bool unmap_entry(void *arg, const struct cache_entry *entry)
{
	struct file_batch *batch = arg;
	struct ucow_page *page = batch->pages[entry->i];
	bool used = pte_is_accessed(entry->pte) && !batch->shrink->force;

	if (used || pte_is_dirty(entry->pte) || pte_is_locked(entry->pte) || batch->keep[entry->i]) {
		batch->keep[entry->i] = true;
		if (used)
			leaf_set(entry->leaf, entry->va, pte_mkold(entry->pte));
		return false;
	}
	leaf_set(entry->leaf, entry->va, pte_is_uffd_wp(entry->pte) ? pte_make_wp_marker() : pte_none());
	drop_mapping(entry, page);
	return true;
}

/* ---- the batch ---- */

static bool drop_page(struct file_batch *batch, struct ucow_page *page)
{
	struct ucow_machine *machine = batch->shrink->machine;

	if (!cache_drop(batch->cache, page))
		return false;
	memcg_note_reclaimed(machine, page->memcg);
	page_free(page);
	count(&machine->counters, UCOW_COUNTER_RECLAIM_STOLEN);
	count(&machine->counters, UCOW_COUNTER_FILE_DROPPED);
	return true;
}

static void shrink_batch_of(struct file_batch *batch)
{
	struct ucow_machine *machine = batch->shrink->machine;

	judge(batch);
	if (!batch->n)
		return;
	flush_pages(batch->cache, batch->pages, batch->n);
	/* An entry that forks share went at once for all of them, whichever space it was found through [rule 6]. */
	if (cache_walk(batch->cache, batch->pages, batch->n, false, unmap_entry, batch)) {
		tlb_invalidate_all(&machine->epoch);
		epoch_quiesce(&machine->epoch);
	}
	for (unsigned i = 0; i < batch->n; i++) {
		bool used = batch->keep[i];

		if (used || !drop_page(batch, batch->pages[i]))
			put_back(batch->pages[i], used);
	}
}

/* ---- which pages ---- */

static bool comes_before(const struct ucow_page *a, const struct cache *of_a, const struct ucow_page *b,
			 const struct cache *of_b)
{
	return of_a != of_b ? of_a < of_b : a->index < b->index;
}

/* Sorted by cache and number, few as they are. */
static void insert(struct ucow_page **pages, struct cache **caches, unsigned n, struct ucow_page *page,
		   struct cache *cache)
{
	for (; n && comes_before(page, cache, pages[n - 1], caches[n - 1]); n--) {
		pages[n] = pages[n - 1];
		caches[n] = caches[n - 1];
	}
	pages[n] = page;
	caches[n] = cache;
}

/* Take the pages of files out of the batch, sorted. Returns: how many. */
static unsigned pick(struct shrink *shrink, struct ucow_page **pages, struct cache **caches)
{
	unsigned n = 0, others = 0;

	for (unsigned i = 0; i < shrink->n; i++) {
		struct ucow_page *page = shrink->pages[i];
		struct cache *cache;

		if (!page_is(page, PAGE_FILE)) {
			shrink->pages[others++] = page;
			continue;
		}
		cache = hold_cache(page);
		if (cache)
			insert(pages, caches, n++, page, cache);
		else
			put_back(page, false);
	}
	shrink->n = others;
	return n;
}

void shrink_files(struct shrink *shrink)
{
	struct ucow_page *pages[SHRINK_BATCH_MAX];
	struct cache *caches[SHRINK_BATCH_MAX];
	unsigned n = pick(shrink, pages, caches);

	for (unsigned i = 0; i < n;) {
		struct file_batch batch = {.shrink = shrink, .cache = caches[i]};

		for (; i < n && caches[i] == batch.cache; i++)
			batch.pages[batch.n++] = pages[i];
		shrink_batch_of(&batch);
	}
	for (unsigned i = 0; i < n; i++)
		cache_put(caches[i]);
	if (n)
		cache_settle(shrink->machine);
}
