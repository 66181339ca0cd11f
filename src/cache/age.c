/* SPDX-License-Identifier: MIT */
/* Which files are written back first, and how much may be dirty. */
#include "cache/flush.h"

#define THROTTLE_PAGES 1024 /* written at once by who has made too many dirty */

/* Requires: the lock of the machine's caches, under which those on the list stay there. */
static struct cache *find_oldest(struct ucow_machine *machine, uint64_t cutoff)
{
	struct cache *found = NULL;

	LIST_FOR_EACH (link, &machine->caches) {
		struct cache *cache = container_of(link, struct cache, link);
		uint64_t when = cache_dirty_since(cache);

		/* One that nobody refers to any more is left to whoever ends it. */
		if (when && when <= cutoff && atomic_load(&cache->refcount) &&
		    (!found || when < cache_dirty_since(found)))
			found = cache;
	}
	return found;
}

/* The file that has been dirty for longest, since @cutoff or before, with a reference. */
static struct cache *oldest(struct ucow_machine *machine, uint64_t cutoff)
{
	struct cache *cache;

	spin_lock(&machine->caches_lock, LOCK_CACHES);
	do
		cache = find_oldest(machine, cutoff);
	while (cache && !cache_try_get(cache));
	spin_unlock(&machine->caches_lock, LOCK_CACHES);
	return cache;
}

uint64_t flush_aged(struct ucow_machine *machine, uint64_t age_ns, uint64_t npages)
{
	uint64_t now = cache_clock(), cutoff = now > age_ns ? now - age_ns : 0, done = 0;
	struct cache *cache;

	while (done < npages && (cache = oldest(machine, cutoff))) {
		done += flush_range(cache, 0, UINT64_MAX, true, npages - done);
		/* What is left, pinned pages and those that failed, is as old as this attempt. */
		if (done < npages)
			cache_restamp(cache, now + 1);
		cache_put(cache);
	}
	cache_settle(machine);
	return done;
}

void flush_throttle_slow(struct ucow_machine *machine)
{
	uint64_t limit = atomic_load(&machine->dirty_limit), dirty;

	while (limit && (dirty = atomic_load(&machine->ndirty)) > limit) {
		flush_aged(machine, 0, THROTTLE_PAGES);
		if (atomic_load(&machine->ndirty) >= dirty)
			break; /* pinned, or somebody is as fast: no reason to wait for ever */
	}
}
