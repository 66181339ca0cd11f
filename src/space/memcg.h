/* SPDX-License-Identifier: MIT */
/*
 * Memory control groups: who may be charged, and for how long what was charged is remembered (docs/semantics.md B.9).
 *
 * A page names its group by a number. A group that was destroyed keeps its number and its counters until the last page
 * and the last swap slot that name it are gone; as all it holds counts in its parent as well, the parent has taken over
 * from the moment of the destruction. A struct ucow_memcg is given out again, with its number, but never freed
 * before its machine is: whoever frees the last page may look at it once more.
 *
 * (G) the set's lock (C) fixed while the number is in use
 */
#ifndef SPACE_MEMCG_H
#define SPACE_MEMCG_H

#include "frame/frame.h"
#include "space/page_counter.h"

#include <ucow/memcg.h>

enum memcg_state {
	MEMCG_FREE,    /* its number is nobody's */
	MEMCG_ONLINE,  /* a group */
	MEMCG_OFFLINE, /* destroyed; something is still charged to it */
};

struct ucow_memcg {
	struct page_counter pages, swap;
	struct ucow_machine *machine;     /* fixed */
	struct ucow_memcg *parent;        /* (C) NULL: the machine itself */
	uint16_t id;                      /* fixed; never 0 */
	_Atomic uint32_t state;           /* enum memcg_state; written under (G) */
	uint64_t spaces;                  /* (G) members */
	uint64_t below, online_below;     /* (G) groups whose parent it is; those that are online */
	uint64_t holds;                   /* (G) somebody looks at it */
	struct ucow_memcg *next_free;     /* (G) */
	_Atomic uint64_t max_events;      /* (A) */
	_Atomic uint64_t oom_events;      /* (A) */
	_Atomic uint64_t swap_max_events; /* (A) */
	_Atomic uint64_t reclaimed;       /* (A) added to by reclaim */
};

#define MEMCG_MAX    65534u
#define MEMCG_CHUNK  256u
#define MEMCG_CHUNKS 256u

/* The groups of a machine, by number. */
struct memcg_set {
	struct spin lock;                         /* LOCK_MEMCG */
	unsigned last;                            /* (G) highest number ever given; 0: there never was a group */
	struct ucow_memcg *free;                  /* (G) */
	struct ucow_memcg **chunks[MEMCG_CHUNKS]; /* an entry is fixed once its number was given */
};

void memcg_set_init(struct ucow_machine *machine);
/* memcg_set_destroy - all groups go. Requires: no space, nothing charged. */
void memcg_set_destroy(struct ucow_machine *machine);

/* memcg_create - Returns: 0; -ENOMEM; -ENOSPC (no number is free). */
int memcg_create(struct ucow_machine *machine, struct ucow_memcg *parent, int64_t limit, int64_t swap_limit,
		 struct ucow_memcg **memcg);
/* memcg_destroy - Returns: 0; -EBUSY (spaces, or groups below it). */
int memcg_destroy(struct ucow_memcg *memcg);

/* memcg_join / memcg_leave - one space more, or less. NULL is allowed. */
void memcg_join(struct ucow_memcg *memcg);
void memcg_leave(struct ucow_memcg *memcg);
uint64_t memcg_spaces(struct ucow_memcg *memcg);

/*
 * memcg_next - the groups of @machine one after the other, destroyed ones with charges included, each held while the
 * caller looks at it; @memcg (NULL: begin) is let go. Returns: NULL: that was the last. memcg_put ends a walk early.
 */
struct ucow_memcg *memcg_next(struct ucow_machine *machine, struct ucow_memcg *memcg);
void memcg_put(struct ucow_memcg *memcg);
/* memcg_hold_id - the online group of number @id, or (@above) the nearest above it, held. Returns: NULL: none. */
struct ucow_memcg *memcg_hold_id(struct ucow_machine *machine, uint16_t id, bool above);

/* memcg_of_id - the group, online or not. Requires: something that is charged to it, or a hold; @id is not 0. */
struct ucow_memcg *memcg_of_id(struct ucow_machine *machine, uint16_t id);

static inline bool memcg_is_online(const struct ucow_memcg *memcg)
{
	return atomic_load(&memcg->state) == MEMCG_ONLINE;
}

/* memcg_is_within - whether @memcg is @root or below it; everything is below NULL. */
static inline bool memcg_is_within(const struct ucow_memcg *memcg, const struct ucow_memcg *root)
{
	while (memcg && memcg != root)
		memcg = memcg->parent;
	return memcg == root;
}

/*
 * memcg_charge - one page for @memcg. Returns: false: a limit is in the way; *refused is whose.
 * memcg_uncharge_id - frame_pool.uncharge: a page of group @id was freed.
 */
bool memcg_charge(struct ucow_memcg *memcg, struct ucow_memcg **refused);
/* memcg_count_refusal - an operation met the limit, for the @first time, and has @failed. */
static inline void memcg_count_refusal(struct ucow_memcg *memcg, bool first, bool failed)
{
	if (first)
		atomic_fetch_add_explicit(&memcg->max_events, 1, memory_order_relaxed);
	if (failed)
		atomic_fetch_add_explicit(&memcg->oom_events, 1, memory_order_relaxed);
}
void memcg_uncharge_id(struct frame_pool *pool, uint16_t id);
/* memcg_note_reclaimed - a page of group @id (0: nobody's) is about to be freed under pressure. */
static inline void memcg_note_reclaimed(struct ucow_machine *machine, uint16_t id)
{
	for (struct ucow_memcg *at = id ? memcg_of_id(machine, id) : NULL; at; at = at->parent)
		atomic_fetch_add_explicit(&at->reclaimed, 1, memory_order_relaxed);
}

/*
 * memcg_swap_charge - one swap slot for what was charged to group @id (0: nobody, always granted). If the group is
 * gone, its number goes on counting. Requires: a page charged to @id. Returns: 0; -ENOMEM (counted as swap_max event).
 */
int memcg_swap_charge(struct ucow_machine *machine, uint16_t id);
/* memcg_swap_uncharge - @n slots of group @id are free. */
void memcg_swap_uncharge(struct ucow_machine *machine, uint16_t id, uint64_t n);

#endif
