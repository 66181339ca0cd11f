/* SPDX-License-Identifier: MIT */
/*
 * Memory control groups: a tree of limits on pages and swap slots. A page is charged once, when it is allocated, to the
 * group of the space that faults (docs/semantics.md B.9); a charge counts in the group and in all groups above it.
 * Groups that are left when their machine is destroyed go with it.
 */
#ifndef UCOW_MEMCG_H
#define UCOW_MEMCG_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A group. */
struct ucow_memcg;

#define UCOW_MEMCG_NO_LIMIT UINT64_MAX

/** What happened in a group, each since it was made. */
struct ucow_memcg_stat {
	uint64_t usage; /* pages charged, those of groups below included */
	uint64_t peak;  /* the most that was ever charged */
	uint64_t limit;
	uint64_t swap_usage; /* slots charged */
	uint64_t swap_limit;
	uint64_t spaces;          /* that are members */
	uint64_t max_events;      /* a charge met the limit, and what could be was reclaimed */
	uint64_t oom_events;      /* ... which was nothing, so that an operation failed with -ENOMEM */
	uint64_t swap_max_events; /* a page stayed because of the swap limit */
	uint64_t reclaimed;       /* pages taken from the lists of the group and those below it */
};

/**
 * ucow_memcg_create - a group below @parent (NULL: below the machine itself, which has no limit but its RAM).
 * @limit, @swap_limit: in pages; UCOW_MEMCG_NO_LIMIT. Returns: 0; -ENOMEM; -ENOSPC (more than 65,534 groups).
 * Thread: any.
 */
UCOW_API UCOW_NODISCARD int ucow_memcg_create(struct ucow_machine *machine, struct ucow_memcg *parent, uint64_t limit,
					      uint64_t swap_limit, struct ucow_memcg **memcg);

/**
 * ucow_memcg_destroy - give a group up. What is still charged to it (pages of children that have left, pinned pages,
 * swap slots) is charged to its parent from now on. Returns: 0; -EBUSY (spaces or groups below it). Thread: any.
 */
UCOW_API int ucow_memcg_destroy(struct ucow_memcg *memcg);

/**
 * ucow_memcg_set_limit - new limits. Lowering the memory limit below the usage reclaims first.
 * Returns: 0; -EBUSY: reclaim could not bring the usage below @limit; the limit holds for new charges all the same.
 */
UCOW_API int ucow_memcg_set_limit(struct ucow_memcg *memcg, uint64_t limit, uint64_t swap_limit);

/** ucow_memcg_stat - fill @stat. Thread: any; numbers are those of one moment each. */
UCOW_API void ucow_memcg_stat(struct ucow_memcg *memcg, struct ucow_memcg_stat *stat);

/**
 * ucow_mm_join - from now on @mm's new pages are charged to @memcg (NULL: to none). What was charged before stays where
 * it is. Returns: 0. Thread: any; takes mmap_lock exclusively.
 */
UCOW_API int ucow_mm_join(struct ucow_mm *mm, struct ucow_memcg *memcg);
/** ucow_mm_memcg - the group of @mm, or NULL. */
UCOW_API struct ucow_memcg *ucow_mm_memcg(const struct ucow_mm *mm);

/**
 * ucow_fork_into - ucow_fork; the child is a member of @memcg from its first page on (ucow_fork: of its parent's
 * group).
 * @memcg may be NULL: of none. Early copies are charged to the parent's group all the same. Returns: as ucow_fork.
 */
UCOW_API UCOW_NODISCARD int ucow_fork_into(struct ucow_mm *parent, struct ucow_memcg *memcg, struct ucow_mm **child);

#ifdef __cplusplus
}
#endif
#endif
