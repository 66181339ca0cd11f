/* SPDX-License-Identifier: MIT */
/* The groups of a machine: numbers, members, charges, and the end of a group when nothing is charged to it any more. */
#include "space/memcg.h"

#include "base/host.h"
#include "space/mm.h"

#include <errno.h>

static void set_lock(struct memcg_set *set)
{
	spin_lock(&set->lock, LOCK_MEMCG);
}

static void set_unlock(struct memcg_set *set)
{
	spin_unlock(&set->lock, LOCK_MEMCG);
}

static struct ucow_memcg *by_id(const struct memcg_set *set, unsigned id)
{
	return set->chunks[id / MEMCG_CHUNK][id % MEMCG_CHUNK];
}

struct ucow_memcg *memcg_of_id(struct ucow_machine *machine, uint16_t id)
{
	UCOW_BUG_ON(!id || !machine->memcgs.chunks[id / MEMCG_CHUNK]);
	return by_id(&machine->memcgs, id);
}

void memcg_set_init(struct ucow_machine *machine)
{
	machine->frames.uncharge = memcg_uncharge_id;
}

void memcg_set_destroy(struct ucow_machine *machine)
{
	struct memcg_set *set = &machine->memcgs;

	for (unsigned id = 1; id <= set->last; id++) {
		UCOW_BUG_ON(page_counter_usage(&by_id(set, id)->pages) || page_counter_usage(&by_id(set, id)->swap));
		host_free(by_id(set, id));
	}
	for (unsigned i = 0; i < MEMCG_CHUNKS; i++)
		host_free(set->chunks[i]);
}

/* ---- the end of a group ---- */

/* Requires: the set's lock. */
static bool is_dead(struct ucow_memcg *memcg)
{
	return atomic_load(&memcg->state) == MEMCG_OFFLINE && !memcg->below && !memcg->holds &&
	       !atomic_load(&memcg->pages.usage) && !atomic_load(&memcg->swap.usage);
}

/* Free the number of a destroyed group that holds nothing, and then perhaps its parent's. Requires: the set's lock. */
static void reap(struct memcg_set *set, struct ucow_memcg *memcg)
{
	while (memcg && is_dead(memcg)) {
		struct ucow_memcg *parent = memcg->parent;

		atomic_store(&memcg->state, MEMCG_FREE);
		memcg->next_free = set->free;
		set->free = memcg;
		if (parent)
			parent->below--;
		memcg = parent;
	}
}

/*
 * A counter of @memcg has come down to zero. If the group lives on that is all; if not, whoever comes second, this or
 * memcg_destroy, sees what the other did, and the number is free. By now it may be somebody else's, and nothing
 * happens.
 */
static void emptied(struct ucow_memcg *memcg)
{
	struct memcg_set *set = &memcg->machine->memcgs;

	if (likely(atomic_load(&memcg->state) != MEMCG_OFFLINE))
		return;
	set_lock(set);
	reap(set, memcg);
	set_unlock(set);
}

/* ---- groups ---- */

static struct ucow_memcg **chunk_create(void)
{
	return host_alloc(MEMCG_CHUNK * sizeof(struct ucow_memcg *));
}

/*
 * A number that was never given, for the new group @spare. *chunk is memory for its table if that is not there yet.
 * Requires: the set's lock. Returns: NULL: all are given.
 */
static struct ucow_memcg *new_number(struct memcg_set *set, struct ucow_memcg *spare, struct ucow_memcg ***chunk)
{
	unsigned id = set->last + 1;

	if (id > MEMCG_MAX)
		return NULL;
	if (!set->chunks[id / MEMCG_CHUNK]) {
		set->chunks[id / MEMCG_CHUNK] = *chunk;
		*chunk = NULL;
	}
	spare->id = (uint16_t)id;
	set->chunks[id / MEMCG_CHUNK][id % MEMCG_CHUNK] = spare;
	set->last = id;
	return spare;
}

static void prepare(struct ucow_memcg *memcg, struct ucow_memcg *parent, int64_t limit, int64_t swap_limit)
{
	page_counter_init(&memcg->pages, parent ? &parent->pages : NULL, limit);
	page_counter_init(&memcg->swap, parent ? &parent->swap : NULL, swap_limit);
	memcg->parent = parent;
	memcg->spaces = memcg->below = memcg->online_below = 0;
	atomic_store(&memcg->max_events, 0);
	atomic_store(&memcg->oom_events, 0);
	atomic_store(&memcg->swap_max_events, 0);
	atomic_store(&memcg->reclaimed, 0);
	if (parent) {
		parent->below++;
		parent->online_below++;
	}
	atomic_store(&memcg->state, MEMCG_ONLINE);
}

int memcg_create(struct ucow_machine *machine, struct ucow_memcg *parent, int64_t limit, int64_t swap_limit,
		 struct ucow_memcg **result)
{
	struct memcg_set *set = &machine->memcgs;
	struct ucow_memcg *spare, *made, **chunk;

	if (inject_fails(&machine->inject, UCOW_INJECT_OTHER))
		return -ENOMEM;
	spare = host_alloc(sizeof(*spare));
	chunk = chunk_create();
	if (!spare || !chunk) {
		host_free(spare);
		host_free(chunk);
		return -ENOMEM;
	}
	spare->machine = machine;
	set_lock(set);
	made = set->free;
	if (made)
		set->free = made->next_free;
	else
		made = new_number(set, spare, &chunk);
	if (made)
		prepare(made, parent, limit, swap_limit);
	set_unlock(set);
	if (made != spare)
		host_free(spare);
	host_free(chunk);
	*result = made;
	return made ? 0 : -ENOSPC;
}

int memcg_destroy(struct ucow_memcg *memcg)
{
	struct memcg_set *set = &memcg->machine->memcgs;
	int error = 0;

	set_lock(set);
	if (memcg->spaces || memcg->online_below) {
		error = -EBUSY;
	} else {
		atomic_store(&memcg->state, MEMCG_OFFLINE);
		if (memcg->parent)
			memcg->parent->online_below--;
		reap(set, memcg);
	}
	set_unlock(set);
	return error;
}

void memcg_join(struct ucow_memcg *memcg)
{
	if (!memcg)
		return;
	set_lock(&memcg->machine->memcgs);
	memcg->spaces++;
	set_unlock(&memcg->machine->memcgs);
}

void memcg_leave(struct ucow_memcg *memcg)
{
	if (!memcg)
		return;
	set_lock(&memcg->machine->memcgs);
	UCOW_BUG_ON(!memcg->spaces);
	memcg->spaces--;
	set_unlock(&memcg->machine->memcgs);
}

uint64_t memcg_spaces(struct ucow_memcg *memcg)
{
	uint64_t spaces;

	set_lock(&memcg->machine->memcgs);
	spaces = memcg->spaces;
	set_unlock(&memcg->machine->memcgs);
	return spaces;
}

/* ---- looking at groups ---- */

/* Requires: the set's lock. */
static void put_locked(struct memcg_set *set, struct ucow_memcg *memcg)
{
	UCOW_BUG_ON(!memcg->holds);
	memcg->holds--;
	reap(set, memcg);
}

void memcg_put(struct ucow_memcg *memcg)
{
	if (!memcg)
		return;
	set_lock(&memcg->machine->memcgs);
	put_locked(&memcg->machine->memcgs, memcg);
	set_unlock(&memcg->machine->memcgs);
}

struct ucow_memcg *memcg_next(struct ucow_machine *machine, struct ucow_memcg *memcg)
{
	struct memcg_set *set = &machine->memcgs;
	struct ucow_memcg *next = NULL;
	unsigned id = memcg ? memcg->id : 0;

	set_lock(set);
	while (!next && ++id <= set->last)
		if (atomic_load(&by_id(set, id)->state) != MEMCG_FREE)
			next = by_id(set, id);
	if (next)
		next->holds++;
	if (memcg)
		put_locked(set, memcg);
	set_unlock(set);
	return next;
}

struct ucow_memcg *memcg_hold_id(struct ucow_machine *machine, uint16_t id, bool above)
{
	struct memcg_set *set = &machine->memcgs;
	struct ucow_memcg *memcg;

	set_lock(set);
	memcg = id && id <= set->last ? by_id(set, id) : NULL;
	while (memcg && atomic_load(&memcg->state) == MEMCG_OFFLINE && above)
		memcg = memcg->parent;
	if (memcg && !memcg_is_online(memcg))
		memcg = NULL;
	if (memcg)
		memcg->holds++;
	set_unlock(set);
	return memcg;
}

/* ---- charges ---- */

bool memcg_charge(struct ucow_memcg *memcg, struct ucow_memcg **refused)
{
	struct page_counter *counter;

	if (likely(page_counter_try_charge(&memcg->pages, 1, &counter)))
		return true;
	*refused = container_of(counter, struct ucow_memcg, pages);
	return false;
}

void memcg_uncharge_id(struct frame_pool *pool, uint16_t id)
{
	struct ucow_memcg *memcg = memcg_of_id(container_of(pool, struct ucow_machine, frames), id);

	if (!page_counter_uncharge(&memcg->pages, 1))
		emptied(memcg);
}

int memcg_swap_charge(struct ucow_machine *machine, uint16_t id)
{
	struct page_counter *counter;
	struct ucow_memcg *memcg;

	if (!id || page_counter_try_charge(&memcg_of_id(machine, id)->swap, 1, &counter))
		return 0;
	memcg = container_of(counter, struct ucow_memcg, swap);
	atomic_fetch_add_explicit(&memcg->swap_max_events, 1, memory_order_relaxed);
	return -ENOMEM;
}

void memcg_swap_uncharge(struct ucow_machine *machine, uint16_t id, uint64_t n)
{
	struct ucow_memcg *memcg;

	if (!id || !n)
		return;
	memcg = memcg_of_id(machine, id);
	if (!page_counter_uncharge(&memcg->swap, (int64_t)n))
		emptied(memcg);
}
