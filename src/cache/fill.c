/* SPDX-License-Identifier: MIT */
/*
 * The bytes of pages: read from the host file where they are not in the cache, with those that follow; and written to
 * it when nobody is left to ask for that.
 */
#include "cache/cache.h"

#include <errno.h>

#define SMALL_WINDOW 4 /* pages that a miss reads which does not go on from the last one */

/* ---- reading ---- */

struct fill {
	struct cache *cache;
	struct ucow_mm *mm; /* NULL: nobody is charged */
	uint64_t index;
	unsigned n;
	struct ucow_page *pages[CACHE_BATCH]; /* locked, reading, with a reference each */
	void *bytes[CACHE_BATCH];
};

static struct ucow_page *alloc_page(struct cache *cache, struct ucow_mm *mm, enum frame_want want)
{
	return mm ? mm_alloc_page(mm, want) : mm_alloc_page_of(cache->machine, NULL, 0, want);
}

/* Misses in order read twice as much each time, others little. */
static unsigned choose_window(struct cache *cache, uint64_t index)
{
	uint32_t last = atomic_load_explicit(&cache->window, memory_order_relaxed), window = SMALL_WINDOW;

	if (index == atomic_load_explicit(&cache->next_read, memory_order_relaxed))
		window = last ? last * 2 : SMALL_WINDOW;
	window = (uint32_t)min_u64(window, cache->readahead);
	window = (uint32_t)min_u64(window, CACHE_BATCH);
	atomic_store_explicit(&cache->window, window, memory_order_relaxed);
	return window;
}

/* One page more of the run. Returns: 0; -EEXIST: somebody is at it already; -ENXIO; -ENOMEM. */
static int add_page(struct fill *fill)
{
	struct ucow_page *made = alloc_page(fill->cache, fill->mm, FRAME_ANY), *page;
	int error;

	if (!made)
		return -ENOMEM;
	page_set(made, PAGE_READING | PAGE_LOCKED);
	error = cache_insert(fill->cache, fill->index + fill->n, made, &page);
	if (error)
		return error;
	if (page != made) {
		page_put(page);
		return -EEXIST;
	}
	fill->bytes[fill->n] = page_bytes(page);
	fill->pages[fill->n++] = page;
	return 0;
}

/* Locked pages of which the first @good have their bytes; the others leave the cache. */
static void finish(struct fill *fill, unsigned good)
{
	for (unsigned i = 0; i < fill->n; i++) {
		struct ucow_page *page = fill->pages[i];
		bool failed = i >= good && cache_remove(fill->cache, page);

		if (i < good)
			lru_add(page);
		atomic_fetch_and_explicit(&page->flags, ~(uint32_t)PAGE_READING, memory_order_release);
		page_unlock(page);
		if (failed)
			page_put(page);
		if (i)
			page_put(page);
	}
}

/*
 * Pages from @index on, as many as the window says and are missing. *page: the first, with a reference. Requires: the
 * cache is held for filling. Returns: 0; -EEXIST: somebody else reads it; what add_page and the host say.
 */
static int fill_run(struct cache *cache, struct ucow_mm *mm, uint64_t index, struct ucow_page **page)
{
	struct fill fill = {.cache = cache, .mm = mm, .index = index};
	unsigned window = choose_window(cache, index), nread = 0;
	int error = add_page(&fill), failed;

	if (error)
		return error;
	while (fill.n < window && !add_page(&fill))
		;
	failed = backing_read(&cache->backing, index, fill.bytes, fill.n, &nread);
	atomic_store_explicit(&cache->next_read, index + fill.n, memory_order_relaxed);
	atomic_fetch_add_explicit(&cache->nread, nread, memory_order_relaxed);
	*page = fill.pages[0];
	finish(&fill, nread);
	if (!failed)
		return 0;
	atomic_fetch_add_explicit(&cache->read_errors, 1, memory_order_relaxed);
	if (nread)
		return 0; /* what is behind is asked for again by whoever needs it */
	errseq_record(&cache->errors, failed);
	page_put(*page);
	return failed;
}

/* Memory: a page of zeros. */
static int make_zeros(struct cache *cache, struct ucow_mm *mm, uint64_t index, struct ucow_page **page)
{
	struct ucow_page *made = alloc_page(cache, mm, FRAME_ZEROED);

	return made ? cache_insert(cache, index, made, page) : -ENOMEM;
}

static int fill(struct cache *cache, struct ucow_mm *mm, uint64_t index, struct ucow_page **page, bool *major)
{
	int error;

	if (!cache_is_tracked(cache))
		return make_zeros(cache, mm, index, page);
	*major = true;
	rwlock_read_lock(&cache->filling);
	error = fill_run(cache, mm, index, page);
	rwlock_read_unlock(&cache->filling);
	return error;
}

/* Whoever reads the page holds its lock. Returns: whether it has its bytes now; else it has left the cache. */
static bool wait_until_filled(struct ucow_page *page)
{
	page_lock(page);
	page_unlock(page);
	return cache_is_filled(page) && cache_is_in(page);
}

int cache_fetch(struct cache *cache, struct ucow_mm *mm, uint64_t index, struct ucow_page **page, bool *major)
{
	int error;

	for (;;) {
		error = cache_find(cache, index, page);
		if (error == -ENOENT)
			error = fill(cache, mm, index, page, major);
		if (error == -EEXIST)
			continue;
		if (error || likely(cache_is_filled(*page)))
			return error;
		*major = true;
		if (wait_until_filled(*page))
			return 0;
		page_put(*page);
	}
}

/* ---- writing what nobody maps or has open ---- */

/* A page that cannot be written is given up, for nobody will try again; those behind it are not. */
static void write_run(struct cache *cache, struct ucow_page *const *pages, unsigned n)
{
	const void *bytes[CACHE_BATCH];

	for (unsigned i = 0; i < n; i++)
		bytes[i] = page_bytes(pages[i]);
	for (unsigned done = 0; done < n;) {
		unsigned nwritten = 0;
		int error = backing_write(&cache->backing, pages[done]->index, bytes + done, n - done,
					  cache_size(cache), &nwritten);

		atomic_fetch_add_explicit(&cache->nwritten, nwritten, memory_order_relaxed);
		done += nwritten;
		if (error) {
			atomic_fetch_add_explicit(&cache->write_errors, 1, memory_order_relaxed);
			errseq_record(&cache->errors, error);
			done++;
		}
	}
	for (unsigned i = 0; i < n; i++)
		cache_end_write(cache, pages[i], false);
}

void cache_flush(struct cache *cache)
{
	struct ucow_page *pages[CACHE_BATCH], *run[CACHE_BATCH];
	uint64_t first = 0;
	unsigned got, n = 0;

	while ((got = cache_gather(cache, first, UINT64_MAX, CACHE_DIRTY, pages, CACHE_BATCH))) {
		first = pages[got - 1]->index + 1;
		for (unsigned i = 0; i < got; i++) {
			if (n && (pages[i]->index != run[n - 1]->index + 1 || n == CACHE_BATCH)) {
				write_run(cache, run, n);
				n = 0;
			}
			if (cache_begin_write(cache, pages[i]))
				run[n++] = pages[i];
			page_put(pages[i]);
		}
	}
	if (n)
		write_run(cache, run, n);
}
