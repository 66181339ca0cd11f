/* SPDX-License-Identifier: MIT */
/* From pages of a cache to the entries that show them, in every space that maps the cache. */
#ifndef CACHE_WALK_H
#define CACHE_WALK_H

#include "cache/cache.h"

/* An entry that shows page number @i of those that were asked for. */
struct cache_entry {
	struct ucow_mm *mm;
	const struct vma *vma;
	struct table *leaf; /* locked */
	uint64_t va;
	struct pte pte;
	unsigned i;
};

/*
 * cache_walk - call @visit for each entry that shows one of @pages, which are in order; with @shared_only, for who
 * takes rights alone, none of private mappings. It may take rights, or the page, from the entry by leaf_set, in place
 * for all who share the leaf: they map the same pages there, and each is visited [rule 6]. Returns whether it did; then
 * translations of the space made before are void. The caller waits for those who use one (epoch_quiesce).
 *
 * A space is visited under its mmap lock, exclusively: no copy of a shared leaf is under way then that would keep what
 * the entry said before. One that is made meanwhile by a fork is visited after its parent.
 * Requires: a reference to each page; no lock. Returns: whether any visit changed anything.
 */
bool cache_walk(struct cache *cache, struct ucow_page *const *pages, unsigned n, bool shared_only,
		bool (*visit)(void *arg, const struct cache_entry *entry), void *arg);

#endif
