/* SPDX-License-Identifier: MIT */
/* One batch of dirty pages on its way to the host file: collect, mkclean, shoot down, look for pins, write, finish. */
#include "cache/flush.h"

#include "base/futex.h"
#include "base/host.h"
#include "base/mutate.h"
#include "cache/walk.h"

#include <errno.h>

#define BATCH (exploring ? 4u : 4096u)
#define SMALL (exploring ? 4u : (unsigned)FLUSH_BATCH)

/* What a batch needs for each page. */
struct room {
	struct ucow_page *pages[FLUSH_BATCH], *found[FLUSH_BATCH];
	const void *bytes[FLUSH_BATCH];
	bool bounce[FLUSH_BATCH];
};

/* Pages under writeback, in order. */
struct batch {
	struct cache *cache;
	unsigned n;
	unsigned nbounce; /* of these: written from a copy */
	uint64_t nwritten;
	unsigned most;            /* pages in one batch */
	struct ucow_page **pages; /* by number, as the next two: */
	const void **bytes;       /* where they are written from */
	bool *bounce;             /* from a copy */
	struct ucow_page **found; /* for collect */
	void *memory;             /* what these are in; NULL: a struct room */
	char *copies;             /* room for `room` copies, of which a run has taken `used` */
	unsigned room, used;
};

static struct counters *counters_of(const struct batch *batch)
{
	return &batch->cache->machine->counters;
}

/* ---- memory ---- */

/* Many pages at once are written faster; where memory lacks, or there are few, those in @room do. */
static void batch_init(struct batch *batch, struct cache *cache, struct room *room)
{
	const size_t each = 3 * sizeof(void *) + sizeof(bool);
	bool many = atomic_load_explicit(&cache->machine->ndirty, memory_order_relaxed) > SMALL;

	*batch = (struct batch){
		.cache = cache,
		.most = SMALL,
		.pages = room->pages,
		.bytes = room->bytes,
		.bounce = room->bounce,
		.found = room->found,
	};
	if (many && !inject_fails(&cache->machine->inject, UCOW_INJECT_OTHER))
		batch->memory = host_alloc(BATCH * each);
	if (!batch->memory)
		return;
	batch->most = BATCH;
	batch->pages = batch->memory;
	batch->found = batch->pages + BATCH;
	batch->bytes = (const void **)(batch->found + BATCH);
	batch->bounce = (bool *)(batch->bytes + BATCH);
}

static void batch_destroy(struct batch *batch)
{
	host_free(batch->memory);
}

/* ---- collect ---- */

static void add(struct batch *batch, struct ucow_page *page)
{
	batch->pages[batch->n++] = page;
}

/*
 * The next dirty pages from *index on, which moves up to what follows them. With @wait the batch ends at a page that
 * somebody else is writing and that is dirty again: that is returned, with a reference, and waited for when the batch
 * has been written, since whoever waits must hold back nobody.
 */
static struct ucow_page *collect(struct batch *batch, uint64_t *index, uint64_t last, bool wait, unsigned most)
{
	struct ucow_page **pages = batch->found, *busy = NULL;
	unsigned n = cache_gather(batch->cache, *index, last, CACHE_DIRTY, pages, most);

	batch->n = batch->nbounce = 0;
	*index = n == most ? pages[n - 1]->index + 1 : last + 1;
	for (unsigned i = 0; i < n; i++) {
		if (!busy && cache_begin_write(batch->cache, pages[i])) {
			add(batch, pages[i]);
		} else if (!busy && wait && page_is(pages[i], PAGE_WRITEBACK)) {
			busy = pages[i];
			*index = busy->index;
			continue;
		}
		page_put(pages[i]);
	}
	return busy;
}

/* ---- mkclean ---- */

static bool clean_entry(void *arg, const struct cache_entry *entry)
{
	(void)arg;
	if (!pte_is_writable(entry->pte) && !pte_is_dirty(entry->pte))
		return false;
	leaf_set(entry->leaf, entry->va, pte_mkclean(pte_wrprotect(entry->pte)));
	return true;
}

/* The flag went before: a store that makes an entry writable after this makes the page dirty after that. */
static void clean_entries(struct batch *batch)
{
	struct epoch *epoch = &batch->cache->machine->epoch;

	if (MUTATED(SKIP_MKCLEAN))
		return;
	if (cache_walk(batch->cache, batch->pages, batch->n, true, clean_entry, NULL) && !MUTATED(MKCLEAN_WITHOUT_WAIT))
		epoch_quiesce(epoch);
}

/* ---- pins ---- */

/*
 * A fast pin takes its reference and then looks at the entry again [ORD-GUP-1]; the entries have been changed, and the
 * references are read by a locked operation: either the pin is seen here, or it sees the change, faults, and makes the
 * page dirty. A pinned page is dirty again before it is copied: who syncs when its device has finished has to find it.
 * Pins by bias alone, thousands of plain references, cost a copy and another write (B.5).
 */
static void look_for_pins(struct batch *batch)
{
	for (unsigned i = 0; i < batch->n; i++) {
		struct ucow_page *page = batch->pages[i];

		batch->bounce[i] = page_refcount_settled(page) >= UCOW_GUP_PIN_COUNTING_BIAS &&
				   !MUTATED(WRITEBACK_CLEANS_PINNED);
		if (!batch->bounce[i])
			continue;
		batch->nbounce++;
		cache_set_dirty(batch->cache, page);
		if (!page_pincount(page))
			count(counters_of(batch), UCOW_COUNTER_WRITEBACK_FALSE_POSITIVE);
	}
}

/* ---- copies ---- */

/* Without memory for all one page on the stack serves one after the other. */
static void copies_prepare(struct batch *batch, char *spare)
{
	unsigned wanted = BARRIER_TSAN ? batch->n : batch->nbounce;
	char *made = NULL;

	if (wanted && !inject_fails(&batch->cache->machine->inject, UCOW_INJECT_OTHER))
		made = host_map((size_t)wanted << UCOW_PAGE_SHIFT); /* aligned, as a long run wants */
	batch->copies = made ? made : spare;
	batch->room = made ? wanted : 1;
}

/* Cpus may store to the page while it is written; the tool for races is shown a copy of every page. */
static bool needs_copy(const struct batch *batch, unsigned i)
{
	return batch->bounce[i] || BARRIER_TSAN;
}

static const void *bytes_of(struct batch *batch, unsigned i)
{
	char *copy = batch->copies + ((size_t)batch->used << UCOW_PAGE_SHIFT);

	if (!needs_copy(batch, i))
		return page_bytes(batch->pages[i]);
	page_copy(copy, page_bytes(batch->pages[i]));
	batch->used++;
	return copy;
}

/* ---- write ---- */

static void finish_page(struct batch *batch, unsigned i)
{
	count(counters_of(batch), UCOW_COUNTER_WRITEBACK);
	if (batch->bounce[i]) {
		count(counters_of(batch), UCOW_COUNTER_WRITEBACK_BOUNCED);
		atomic_fetch_add_explicit(&batch->cache->bounced, 1, memory_order_relaxed);
	}
	atomic_fetch_add_explicit(&batch->cache->nwritten, 1, memory_order_relaxed);
	batch->nwritten++;
	cache_end_write(batch->cache, batch->pages[i], false);
}

/* It stays dirty, so that the next writeback tries again, and somebody is told. */
static void fail_page(struct batch *batch, unsigned i, int error)
{
	errseq_record(&batch->cache->errors, error);
	atomic_fetch_add_explicit(&batch->cache->write_errors, 1, memory_order_relaxed);
	count(counters_of(batch), UCOW_COUNTER_WRITEBACK_ERRORS);
	cache_end_write(batch->cache, batch->pages[i], !MUTATED(WRITE_ERROR_CLEANS));
}

/* Neighbours from number @from on, as many as there are copies for. Returns: the number of the first that is not one.
 */
static unsigned run_end(const struct batch *batch, unsigned from)
{
	unsigned to = from, copied = 0;

	while (to < batch->n && batch->pages[to]->index == batch->pages[from]->index + (to - from)) {
		copied += needs_copy(batch, to);
		if (copied > batch->room)
			break;
		to++;
	}
	return to;
}

/* An error of one page is not that of those behind it, unless there is no room for any. */
static unsigned write_run(struct batch *batch, unsigned from, unsigned to)
{
	uint64_t size = cache_size(batch->cache);
	unsigned nwritten;
	int error;

	batch->used = 0;
	for (unsigned i = from; i < to; i++)
		batch->bytes[i - from] = bytes_of(batch, i);
	error = backing_write(&batch->cache->backing, batch->pages[from]->index, batch->bytes, to - from, size,
			      &nwritten);
	for (unsigned i = 0; i < nwritten; i++)
		finish_page(batch, from++);
	if (!error)
		return to;
	do
		fail_page(batch, from++, error);
	while (from < to && error != -EIO);
	return from;
}

static void write_all(struct batch *batch)
{
	char spare[UCOW_PAGE_SIZE];
	unsigned from = 0;

	copies_prepare(batch, spare);
	while (from < batch->n)
		from = write_run(batch, from, run_end(batch, from));
	if (batch->copies != spare)
		host_unmap(batch->copies, (size_t)batch->room << UCOW_PAGE_SHIFT);
}

static void write_batch(struct batch *batch)
{
	if (!batch->n)
		return;
	clean_entries(batch);
	look_for_pins(batch);
	write_all(batch);
}

/* ---- ranges ---- */

uint64_t flush_range(struct cache *cache, uint64_t first, uint64_t last, bool wait, uint64_t most)
{
	uint64_t index = first;
	struct batch batch;
	struct room room;

	last = min_u64(last, UINT64_MAX - 1);
	batch_init(&batch, cache, &room);
	while (index <= last && batch.nwritten < most) {
		unsigned n = (unsigned)min_u64(batch.most, most - batch.nwritten);
		struct ucow_page *busy = collect(&batch, &index, last, wait, n);

		write_batch(&batch);
		if (busy) {
			flush_wait_page(busy);
			page_put(busy);
		}
	}
	batch_destroy(&batch);
	if (wait)
		flush_wait(cache, first, last);
	return batch.nwritten;
}

void flush_sync(struct cache *cache, uint64_t first, uint64_t last)
{
	int error;

	if (!cache_is_tracked(cache))
		return;
	flush_range(cache, first, last, true, UINT64_MAX);
	error = backing_sync(&cache->backing);
	if (error)
		errseq_record(&cache->errors, error);
}

uint64_t flush_pages(struct cache *cache, struct ucow_page *const *pages, unsigned n)
{
	struct room room;
	struct batch batch;

	UCOW_BUG_ON(n > FLUSH_BATCH);
	batch_init(&batch, cache, &room);
	for (unsigned i = 0; i < n; i++)
		if (cache_begin_write(cache, pages[i]))
			add(&batch, pages[i]);
	write_batch(&batch);
	batch_destroy(&batch);
	return batch.nwritten;
}

/* ---- waiting ---- */

void flush_wait_page(struct ucow_page *page)
{
	uint32_t flags;

	while ((flags = atomic_fetch_or(&page->flags, PAGE_WAITERS)) & PAGE_WRITEBACK)
		futex_wait(&page->flags, flags | PAGE_WAITERS);
}

void flush_wait(struct cache *cache, uint64_t first, uint64_t last)
{
	struct ucow_page *page;

	while (first <= last && cache_gather(cache, first, last, CACHE_WRITEBACK, &page, 1)) {
		first = page->index + 1;
		flush_wait_page(page);
		page_put(page);
	}
}
