/* SPDX-License-Identifier: MIT */
/*
 * Writing dirty pages of a cache to the host file. A page goes from dirty to under writeback, then every entry that
 * shows it loses its write permission and its dirty bit (mkclean), then every cpu forgets what it has cached, then the
 * bytes are written: a store that comes later faults first, and makes the page dirty again. A page that may be pinned
 * is written from a copy and is dirty again afterwards, since a device asks nobody (semantics.md B.8).
 */
#ifndef CACHE_FLUSH_H
#define CACHE_FLUSH_H

#include "cache/cache.h"

/*
 * flush_range - write up to @most of the pages [first, last] that are dirty; with @wait also those that are under
 * writeback already and have become dirty since, and all of the range is written when this returns. What fails stays
 * dirty and is noted in the cache's errors. Requires: a reference to the cache; no lock, no section.
 * Returns: how many pages were written.
 */
uint64_t flush_range(struct cache *cache, uint64_t first, uint64_t last, bool wait, uint64_t most);

/* flush_sync - flush_range with waiting, and the host's file synced. */
void flush_sync(struct cache *cache, uint64_t first, uint64_t last);

/* flush_pages - those of @pages, in order, with a reference each, that are dirty. Requires, returns: as the range. */
uint64_t flush_pages(struct cache *cache, struct ucow_page *const *pages, unsigned n);
#define FLUSH_BATCH 64

/* flush_wait_page - until @page is not under writeback. Requires: a reference; no lock that a writer may need. */
void flush_wait_page(struct ucow_page *page);
/* flush_wait - the same for those of [first, last] that are under writeback now. */
void flush_wait(struct cache *cache, uint64_t first, uint64_t last);

/*
 * flush_aged - up to @npages pages of the files that have been dirty for @age_ns or more, the longest dirty first. Age
 * is that of a file's oldest dirty page, as with Linux. Waits. Requires: no lock, no section. Returns: how many pages
 * were written.
 */
uint64_t flush_aged(struct ucow_machine *machine, uint64_t age_ns, uint64_t npages);

/* flush_throttle - more is dirty than the machine's limit allows: whoever has stored writes. Requires: as flush_aged.
 */
void flush_throttle_slow(struct ucow_machine *machine);
static inline void flush_throttle(struct ucow_machine *machine)
{
	if (unlikely(atomic_load_explicit(&machine->dirty_limit, memory_order_relaxed)))
		flush_throttle_slow(machine);
}

#endif
