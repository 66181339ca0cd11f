/* SPDX-License-Identifier: MIT */
/*
 * Which pages go: the oldest of each group's inactive list, group after group. A page that was accessed since it was
 * last looked at moves to the active list; from there the oldest come back, as if not accessed, when the inactive list
 * is the shorter one.
 */
#include "reclaim/internal.h"

#define PASSES 12 /* each looks at twice as many pages as the one before, the last at all */

struct pressure {
	struct ucow_machine *machine;
	struct swap *swap;        /* NULL: none */
	struct ucow_memcg *memcg; /* NULL: everybody */
	uint64_t wanted;
	uint64_t before; /* stolen when this began */
	unsigned pass;
	bool exact; /* no more than wanted, and all writes waited for */
};

static bool forget_access(void *arg, const struct rmap_entry *entry)
{
	(void)arg;
	if (pte_is_accessed(entry->pte))
		leaf_set(entry->leaf, entry->va, pte_mkold(entry->pte));
	return true;
}

/* The oldest active pages become inactive ones that nobody has accessed. */
static void deactivate(struct pressure *pressure, uint16_t id)
{
	struct frame_pool *frames = &pressure->machine->frames;
	struct ucow_page *pages[SHRINK_BATCH_MAX];
	unsigned n;

	if (lru_count(frames, id, LRU_INACTIVE) > lru_count(frames, id, LRU_ACTIVE))
		return;
	n = lru_isolate(frames, id, LRU_ACTIVE, pages, SHRINK_BATCH);
	for (unsigned i = 0; i < n; i++) {
		/*
		 * The lock: a merge may be changing what the page's mappings are found by. A file's page is asked
		 * when it is taken from its entries.
		 */
		if (!page_is(pages[i], PAGE_FILE) && page_trylock(pages[i])) {
			rmap_walk(pressure->machine, pages[i], forget_access, NULL);
			if (page_is(pages[i], PAGE_SWAPCACHE))
				swap_unlock(machine_swap(pressure->machine), pages[i]);
			else
				page_unlock(pages[i]);
		}
		page_clear(pages[i], PAGE_ACTIVE);
		lru_put_back(pages[i], LRU_NEWEST);
	}
}

/* Pages of the groups under pressure that came free under pressure, whoever saw to it, ever. */
static uint64_t stolen(const struct pressure *pressure)
{
	if (pressure->memcg)
		return atomic_load_explicit(&pressure->memcg->reclaimed, memory_order_relaxed);
	return counters_sum(&pressure->machine->counters, UCOW_COUNTER_RECLAIM_STOLEN);
}

static uint64_t missing(const struct pressure *pressure)
{
	uint64_t got = stolen(pressure) - pressure->before;

	return got < pressure->wanted ? pressure->wanted - got : 0;
}

/* One batch off a group's inactive list. Returns: how many pages were looked at. */
static unsigned shrink_once(struct pressure *pressure, uint16_t id)
{
	uint64_t most = pressure->exact ? min_u64(missing(pressure), SHRINK_BATCH) : SHRINK_BATCH;
	struct shrink shrink = {.machine = pressure->machine, .swap = pressure->swap};
	unsigned looked;

	deactivate(pressure, id);
	looked = shrink.n = lru_isolate(&pressure->machine->frames, id, LRU_INACTIVE, shrink.pages, (unsigned)most);
	if (looked)
		shrink_batch(&shrink);
	if (pressure->exact)
		writeback_wait(pressure->swap);
	return looked;
}

static void shrink_list(struct pressure *pressure, uint16_t id)
{
	const struct frame_pool *frames = &pressure->machine->frames;
	uint64_t pages = lru_count(frames, id, LRU_INACTIVE) + lru_count(frames, id, LRU_ACTIVE);
	uint64_t scan = max_u64(SHRINK_BATCH, pages >> (PASSES - 1 - pressure->pass)), looked = 0;
	unsigned n;

	do {
		n = shrink_once(pressure, id);
		looked += n;
	} while (n && looked < scan && missing(pressure));
}

/* Every list that counts: of the group and those below it, or of all, those that are charged to nobody first. */
static void shrink_lists(struct pressure *pressure)
{
	struct ucow_memcg *memcg = NULL;

	if (!pressure->memcg)
		shrink_list(pressure, 0);
	while (missing(pressure) && (memcg = memcg_next(pressure->machine, memcg)))
		if (memcg_is_within(memcg, pressure->memcg))
			shrink_list(pressure, memcg->id);
	memcg_put(memcg);
}

/*
 * Writes go on while the caller does: what an earlier call has begun is there for this one, which begins as much for
 * the next. Only who finds nothing waits.
 */
uint64_t reclaim_shrink(struct ucow_machine *machine, struct ucow_memcg *memcg, uint64_t npages, bool exact)
{
	struct pressure pressure = {
		.machine = machine,
		.swap = machine_swap(machine),
		.memcg = memcg,
		.wanted = npages,
		.exact = exact,
	};

	if (!machine->frames.lru)
		return 0;
	pressure.before = stolen(&pressure);
	lru_drain(&machine->frames);
	writeback_reap(pressure.swap, false);
	do {
		shrink_lists(&pressure);
		if (missing(&pressure))
			writeback_reap(pressure.swap, true);
	} while (++pressure.pass < PASSES && missing(&pressure));
	return stolen(&pressure) - pressure.before;
}

static uint64_t shrink(struct ucow_machine *machine, struct ucow_memcg *memcg, uint64_t npages)
{
	return reclaim_shrink(machine, memcg, npages, false);
}

void reclaim_pages(struct ucow_machine *machine, struct ucow_page *const *pages, unsigned n)
{
	struct shrink shrink = {.machine = machine, .swap = machine_swap(machine), .force = true};

	for (unsigned i = 0; i < n; i++)
		if (lru_isolate_page(pages[i]))
			shrink.pages[shrink.n++] = pages[i];
		else
			page_put(pages[i]);
	shrink_batch(&shrink);
}

void reclaim_wait(struct ucow_machine *machine)
{
	if (machine_swap(machine))
		writeback_wait(machine_swap(machine));
}

long ucow_reclaim(struct ucow_machine *machine, struct ucow_memcg *memcg, uint64_t npages)
{
	epoch_synchronize(&machine->epoch);
	return npages ? (long)reclaim_shrink(machine, memcg, npages, true) : 0;
}

const struct pressure_ops pressure_ops = {
	.shrink = shrink,
	.written = reclaim_written,
	.advise = reclaim_range,
	.settle = reclaim_wait,
	.lock_page = reclaim_lock_page,
};
