/* SPDX-License-Identifier: MIT */
/*
 * What is asked to reclaim when memory runs out, by a reclaimer of the test's own: the group that refused and no other,
 * the machine when RAM is out, nobody when something else failed; and swap slots charged to groups.
 */
#include "fixture.h"

#include "space/mm.h"

#include <pthread.h>
#include <sched.h>

#define NPAGES 12
#define NONE   UCOW_MEMCG_NO_LIMIT

/* Each call gives back up to @bite pages of @victim's memory from @next on, and notes for whom. */
static struct {
	struct ucow_mm *victim;
	uint64_t next, end;
	uint64_t bite;
	unsigned calls;
	struct ucow_memcg *asked;
} reclaimer;

static uint64_t give_back(struct ucow_machine *machine, struct ucow_memcg *memcg, uint64_t npages)
{
	uint64_t n = 0;

	(void)machine;
	reclaimer.calls++;
	reclaimer.asked = memcg;
	for (; n < reclaimer.bite && n < npages && reclaimer.next < reclaimer.end; n++, reclaimer.next += PAGE)
		REQUIRE_EQ(ucow_madvise(reclaimer.victim, reclaimer.next, PAGE, UCOW_MADV_DONTNEED), 0);
	return n;
}

struct scene {
	struct world w;
	struct ucow_memcg *memcg;
	uint64_t va;
};

/* A member of a group with room for NPAGES, which it has used up. */
static struct scene open_full(uint64_t bite)
{
	struct scene s = {.w = world_open()};

	REQUIRE_EQ(ucow_memcg_create(s.w.machine, NULL, NPAGES, 2, &s.memcg), 0);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, s.memcg), 0);
	s.va = map_private(s.w.mm, 10 * NPAGES);
	for (unsigned i = 0; i < NPAGES; i++)
		put64(s.w.cpu, s.va + i * PAGE, i + 1);
	reclaimer.victim = s.w.mm;
	reclaimer.next = s.va;
	reclaimer.end = s.va + NPAGES / 2 * PAGE;
	reclaimer.bite = bite;
	reclaimer.calls = 0;
	s.w.machine->shrink = give_back;
	return s;
}

static struct ucow_memcg_stat stat_of(const struct scene *s)
{
	struct ucow_memcg_stat stat;

	ucow_memcg_stat(s->memcg, &stat);
	return stat;
}

static void close_scene(struct scene *s)
{
	check_invariants(s->w.machine);
	world_close(&s->w);
}

TEST(a_group_at_its_limit_is_reclaimed_until_nothing_comes)
{
	struct scene s = open_full(1);
	unsigned i = NPAGES;

	for (; i < NPAGES + NPAGES / 2; i++)
		put64(s.w.cpu, s.va + i * PAGE, i);
	CHECK_EQ(reclaimer.calls, NPAGES / 2);
	CHECK(reclaimer.asked == s.memcg);
	CHECK_EQ(ucow_store_u64(s.w.cpu, s.va + i * PAGE, 1), -ENOMEM);
	CHECK_EQ(reclaimer.calls, NPAGES / 2 + 1);
	CHECK_EQ(stat_of(&s).max_events, NPAGES / 2 + 1);
	CHECK_EQ(stat_of(&s).oom_events, 1);
	CHECK_EQ(stat_of(&s).usage, NPAGES);
	close_scene(&s);
}

/* Each round brings one page and a populate needs six: all are asked for, as long as each round brings something. */
TEST(progress_goes_on_until_there_is_enough)
{
	struct scene s = open_full(1);

	CHECK_EQ(ucow_madvise(s.w.mm, s.va + NPAGES * PAGE, NPAGES / 2 * PAGE, UCOW_MADV_POPULATE_WRITE), 0);
	CHECK_EQ(stat_of(&s).usage, NPAGES);
	CHECK_EQ(stat_of(&s).oom_events, 0);
	close_scene(&s);
}

TEST(a_fork_reclaims_for_its_early_copies)
{
	struct scene s = open_full(2);
	struct ucow_page *pages[3];
	struct ucow_mm *child;

	REQUIRE_EQ(ucow_pin_user_pages(s.w.cpu, s.va + 8 * PAGE, 3, UCOW_FOLL_WRITE, pages), 3);
	CHECK_EQ(ucow_fork(s.w.mm, &child), 0);
	CHECK_EQ(reclaimer.calls, 2);
	CHECK_EQ(stat_of(&s).usage, NPAGES - 4 + 3);
	ucow_unpin_user_pages(pages, 3);
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
	close_scene(&s);
}

TEST(a_machine_out_of_ram_is_reclaimed_as_a_whole)
{
	struct scene s = open_full(1);

	REQUIRE_EQ(ucow_mm_join(s.w.mm, NULL), 0);
	REQUIRE(!ucow_machine_inject(s.w.machine, UCOW_INJECT_FRAME, 1));
	put64(s.w.cpu, s.va + NPAGES * PAGE, 1);
	CHECK_EQ(reclaimer.calls, 1);
	CHECK(!reclaimer.asked);
	/* The same for a member of a group that has room. */
	REQUIRE_EQ(ucow_mm_join(s.w.mm, s.memcg), 0);
	REQUIRE(!ucow_machine_inject(s.w.machine, UCOW_INJECT_FRAME, 1));
	put64(s.w.cpu, s.va + (NPAGES + 1) * PAGE, 1);
	CHECK_EQ(reclaimer.calls, 2);
	CHECK(!reclaimer.asked);
	close_scene(&s);
}

TEST(what_is_not_a_lack_of_pages_reclaims_nothing)
{
	struct scene s = open_full(1);
	struct ucow_page *pages[2];
	struct ucow_mm *child;

	ucow_mm_set_pin_limit(s.w.mm, 1);
	REQUIRE_EQ(ucow_pin_user_pages(s.w.cpu, s.va + 8 * PAGE, 1, UCOW_FOLL_WRITE, pages), 1);
	CHECK_EQ(ucow_pin_user_pages(s.w.cpu, s.va + 9 * PAGE, 1, UCOW_FOLL_WRITE, pages + 1), -ENOMEM);
	ucow_unpin_user_pages(pages, 1);
	REQUIRE(!ucow_machine_inject(s.w.machine, UCOW_INJECT_OTHER, 1));
	CHECK_EQ(ucow_fork(s.w.mm, &child), -ENOMEM);
	CHECK_EQ(reclaimer.calls, 0);
	CHECK_EQ(stat_of(&s).max_events, 0);
	close_scene(&s);
}

TEST(a_lower_limit_reclaims_what_is_above_it)
{
	struct scene s = open_full(100);

	CHECK_EQ(ucow_memcg_set_limit(s.memcg, NPAGES - 4, NONE), 0);
	CHECK_EQ(stat_of(&s).usage, NPAGES - 4);
	CHECK(reclaimer.asked == s.memcg);
	CHECK_EQ(ucow_memcg_set_limit(s.memcg, 1, NONE), -EBUSY);
	CHECK_EQ(stat_of(&s).usage, NPAGES - 6);
	CHECK_EQ(stat_of(&s).limit, 1);
	close_scene(&s);
}

/* ---- swap slots ---- */

TEST(slots_are_charged_to_the_group_and_those_above)
{
	struct scene s = open_full(0);
	struct ucow_machine *machine = s.w.machine;
	struct ucow_memcg *below;
	struct ucow_memcg_stat stat;

	REQUIRE_EQ(ucow_memcg_create(machine, s.memcg, NONE, 5, &below), 0);
	CHECK_EQ(memcg_swap_charge(machine, 0), 0); /* nobody's */
	memcg_swap_uncharge(machine, 0, 1);
	CHECK_EQ(memcg_swap_charge(machine, below->id), 0);
	CHECK_EQ(memcg_swap_charge(machine, s.memcg->id), 0);
	CHECK_EQ(memcg_swap_charge(machine, below->id), -ENOMEM); /* 2 of 2 above */
	CHECK_EQ(stat_of(&s).swap_usage, 2);
	CHECK_EQ(stat_of(&s).swap_max_events, 1);
	ucow_memcg_stat(below, &stat);
	CHECK_EQ(stat.swap_usage, 1);
	CHECK_EQ(stat.swap_max_events, 0);
	memcg_swap_uncharge(machine, s.memcg->id, 1);
	memcg_swap_uncharge(machine, below->id, 1);
	CHECK_EQ(stat_of(&s).swap_usage, 0);
	close_scene(&s);
}

/* A destroyed group that has nothing but a slot keeps its number until the slot is free. */
TEST(a_slot_outlives_its_group)
{
	struct scene s = open_full(0);
	struct ucow_machine *machine = s.w.machine;
	struct ucow_memcg *below, *again;
	struct ucow_page *page;
	uint16_t id;

	REQUIRE_EQ(ucow_memcg_create(machine, s.memcg, NONE, NONE, &below), 0);
	id = below->id;
	CHECK_EQ(memcg_swap_charge(machine, id), 0);
	/* While it exists a page that comes back is its own... */
	REQUIRE_EQ(ucow_memcg_set_limit(s.memcg, NONE, NONE), 0);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, NULL), 0);
	page = mm_alloc_page_of(machine, s.w.mm, id, FRAME_ANY);
	REQUIRE(page);
	CHECK_EQ(page->memcg, id);
	CHECK_EQ(stat_of(&s).usage, NPAGES + 1);
	page_put(page);
	/* ... and then the space's that asks for it. */
	REQUIRE_EQ(ucow_memcg_destroy(below), 0);
	page = mm_alloc_page_of(machine, s.w.mm, id, FRAME_ANY);
	REQUIRE(page);
	CHECK_EQ(page->memcg, 0);
	page_put(page);
	/* Nobody asks for it: the group above. */
	page = mm_alloc_page_of(machine, NULL, id, FRAME_ANY);
	REQUIRE(page);
	CHECK_EQ(page->memcg, s.memcg->id);
	page_put(page);
	page = mm_alloc_page_of(machine, NULL, 0, FRAME_ANY);
	REQUIRE(page);
	CHECK_EQ(page->memcg, 0);
	page_put(page);
	CHECK_EQ(stat_of(&s).swap_usage, 1);
	REQUIRE_EQ(ucow_memcg_create(machine, s.memcg, NONE, NONE, &again), 0);
	CHECK(again->id != id);
	REQUIRE_EQ(ucow_memcg_destroy(again), 0);
	memcg_swap_uncharge(machine, id, 1);
	CHECK_EQ(stat_of(&s).swap_usage, 0);
	REQUIRE_EQ(ucow_memcg_create(machine, s.memcg, NONE, NONE, &again), 0);
	CHECK_EQ(again->id, id);
	CHECK(!memcg_hold_id(machine, (uint16_t)(machine->memcgs.last + 1), true));
	close_scene(&s);
}

/* Who walks over the groups may meet one that is destroyed under his eyes; it stays until he has gone on. */
TEST(a_walk_holds_what_it_looks_at)
{
	struct scene s = open_full(0);
	struct ucow_machine *machine = s.w.machine;
	struct ucow_memcg *below, *again, *at;
	unsigned seen = 0;

	REQUIRE_EQ(ucow_memcg_create(machine, s.memcg, NONE, NONE, &below), 0);
	at = memcg_next(machine, NULL);
	CHECK(at == s.memcg);
	at = memcg_next(machine, at);
	CHECK(at == below && memcg_is_within(at, s.memcg) && !memcg_is_within(s.memcg, at));
	REQUIRE_EQ(ucow_memcg_destroy(below), 0);
	REQUIRE_EQ(ucow_memcg_create(machine, NULL, NONE, NONE, &again), 0);
	CHECK(again != at && !memcg_is_within(again, s.memcg) && memcg_is_within(again, NULL));
	CHECK(memcg_next(machine, at) == again);
	memcg_put(again);
	REQUIRE_EQ(ucow_memcg_create(machine, NULL, NONE, NONE, &again), 0);
	CHECK(again == below); /* given out again */
	for (at = NULL; (at = memcg_next(machine, at));)
		seen++;
	CHECK_EQ(seen, 3);
	close_scene(&s);
}

/* ---- the last page goes while its group is destroyed ---- */

enum { ROUNDS = 5000 };

struct handover {
	_Atomic(struct ucow_page *) page; /* for the other thread to free */
	_Atomic bool done;
};

static void *free_pages(void *arg)
{
	struct handover *handover = arg;
	struct ucow_page *page;

	while (!atomic_load(&handover->done)) {
		page = atomic_exchange(&handover->page, NULL);
		if (page)
			page_put(page);
		else
			sched_yield();
	}
	return NULL;
}

/* Whoever comes second must free the number, and the parent's with it: would catch numbers that are lost, or freed
 * twice. */
TEST(numbers_survive_the_race_of_the_last_page_with_the_end_of_its_group)
{
	struct world w = world_open();
	struct handover handover = {.page = NULL};
	struct ucow_memcg *above, *below;
	pthread_t thread;

	REQUIRE_EQ(pthread_create(&thread, NULL, free_pages, &handover), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct ucow_page *page;

		REQUIRE_EQ(ucow_memcg_create(w.machine, NULL, NONE, NONE, &above), 0);
		REQUIRE_EQ(ucow_memcg_create(w.machine, above, NONE, NONE, &below), 0);
		REQUIRE_EQ(ucow_mm_join(w.mm, below), 0);
		page = mm_alloc_page(w.mm, FRAME_ANY);
		REQUIRE(page && page->memcg == below->id);
		REQUIRE_EQ(ucow_mm_join(w.mm, NULL), 0);
		atomic_store(&handover.page, page);
		REQUIRE_EQ(ucow_memcg_destroy(below), 0);
		REQUIRE_EQ(ucow_memcg_destroy(above), 0);
		while (atomic_load(&handover.page))
			sched_yield();
	}
	atomic_store(&handover.done, true);
	REQUIRE_EQ(pthread_join(thread, NULL), 0);
	CHECK(w.machine->memcgs.last <= 6); /* at most two rounds' at a time, and one more */
	CHECK(!memcg_next(w.machine, NULL));
	world_close(&w);
}

TAP_MAIN()
