/* SPDX-License-Identifier: MIT */
/*
 * Memory control groups where there is swap: a group that meets its limit takes from itself and from nobody else, slots
 * are charged to whom their pages were, pages that come back go to that group while it exists (semantics.md B.9).
 */
#include "fixture.h"

#include <pthread.h>

#define NPAGES 120
#define LIMIT  24
#define NONE   UCOW_MEMCG_NO_LIMIT

struct scene {
	struct world w;
	struct ucow_memcg *a, *b;
	unsigned device;
	uint64_t va;
};

static struct ucow_memcg *group_below(struct ucow_machine *machine, struct ucow_memcg *parent, uint64_t limit)
{
	struct ucow_memcg *memcg = NULL;

	REQUIRE_EQ(ucow_memcg_create(machine, parent, limit, NONE, &memcg), 0);
	return memcg;
}

static struct ucow_memcg_stat stat_of(struct ucow_memcg *memcg)
{
	struct ucow_memcg_stat stat;

	ucow_memcg_stat(memcg, &stat);
	return stat;
}

/* A member of `a`, which has a limit, and 1 MiB of swap in memory. */
static struct scene open_scene(uint64_t limit)
{
	const struct ucow_swap_options options = {
		.size = sizeof(options),
		.nbytes = 1 << 20,
		.flags = UCOW_SWAP_MEMORY,
	};
	struct scene s = {.w = world_open()};

	REQUIRE_EQ(ucow_swapon(s.w.machine, &options, &s.device), 0);
	s.a = group_below(s.w.machine, NULL, limit);
	s.b = group_below(s.w.machine, NULL, NONE);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, s.a), 0);
	s.va = map_private(s.w.mm, NPAGES);
	return s;
}

static void fill(struct ucow_cpu *cpu, uint64_t va, unsigned npages, uint64_t plus)
{
	for (unsigned i = 0; i < npages; i++)
		put64(cpu, va + i * PAGE, i + plus);
}

static void check_filled(struct ucow_cpu *cpu, uint64_t va, unsigned npages, uint64_t plus)
{
	for (unsigned i = 0; i < npages; i++)
		CHECK_EQ(get64(cpu, va + i * PAGE), i + plus);
}

static void check_empty(struct ucow_memcg *memcg)
{
	struct ucow_memcg_stat stat = stat_of(memcg);

	REQUIRE_EQ(stat.usage, 0);
	REQUIRE_EQ(stat.swap_usage, 0);
}

static void close_scene(struct scene *s)
{
	struct ucow_swap_stat stat;

	check_invariants(s->w.machine);
	if (s->w.mm)
		exit_mm(s->w.cpu, s->w.mm);
	s->w.cpu = NULL;
	s->w.mm = NULL;
	ucow_machine_synchronize(s->w.machine);
	check_empty(s->a);
	check_empty(s->b);
	REQUIRE_EQ(ucow_memcg_destroy(s->a), 0);
	REQUIRE_EQ(ucow_memcg_destroy(s->b), 0);
	REQUIRE_EQ(ucow_swap_stat(s->w.machine, s->device, &stat), 0);
	REQUIRE_EQ(stat.used, 0);
	world_close(&s->w);
}

/* Another space, with @npages written, as member of @memcg. */
static struct ucow_cpu *neighbour(struct scene *s, struct ucow_memcg *memcg, unsigned npages)
{
	struct ucow_mm *mm = NULL;
	struct ucow_cpu *cpu;

	REQUIRE_EQ(ucow_mm_create(s->w.machine, &mm), 0);
	REQUIRE_EQ(ucow_mm_join(mm, memcg), 0);
	map_private(mm, NPAGES);
	cpu = cpu_on(mm);
	fill(cpu, s->va, npages, 7);
	return cpu;
}

static uint64_t present(struct ucow_mm *mm)
{
	struct ucow_mm_stat stat;

	ucow_mm_stat(mm, &stat);
	return stat.rss_anon;
}

static void leave(struct ucow_cpu *cpu)
{
	exit_mm(cpu, ucow_cpu_mm(cpu));
}

TEST(a_group_writes_more_than_its_limit_and_its_neighbour_is_left_alone)
{
	struct scene s = open_scene(LIMIT);
	struct ucow_cpu *cpu = neighbour(&s, s.b, 60);
	struct ucow_memcg_stat stat;

	fill(s.w.cpu, s.va, NPAGES, 1);
	stat = stat_of(s.a);
	CHECK(stat.usage <= LIMIT);
	CHECK(stat.usage + stat.swap_usage >= NPAGES);
	CHECK(stat.max_events > 0);
	CHECK_EQ(stat.oom_events, 0);
	CHECK(stat.reclaimed >= NPAGES - LIMIT);
	CHECK(stat.peak <= LIMIT);
	check_filled(s.w.cpu, s.va, NPAGES, 1);
	CHECK_GO_ON();
	CHECK(stat_of(s.a).usage <= LIMIT);
	check_invariants(s.w.machine);
	CHECK_EQ(present(ucow_cpu_mm(cpu)), 60);
	CHECK_EQ(stat_of(s.b).usage, 60);
	CHECK_EQ(stat_of(s.b).swap_usage, 0);
	CHECK_EQ(stat_of(s.b).reclaimed, 0);
	leave(cpu);
	close_scene(&s);
}

TEST(a_limit_above_reclaims_below_it_and_not_beside_it)
{
	struct scene s = open_scene(2 * LIMIT);
	struct ucow_memcg *left = group_below(s.w.machine, s.a, NONE), *right = group_below(s.w.machine, s.a, NONE);
	struct ucow_cpu *other, *outside = neighbour(&s, s.b, 50);

	REQUIRE_EQ(ucow_mm_join(s.w.mm, left), 0);
	other = neighbour(&s, right, LIMIT);
	fill(s.w.cpu, s.va, NPAGES, 1);
	CHECK(stat_of(s.a).usage <= 2 * LIMIT);
	CHECK_EQ(stat_of(left).oom_events + stat_of(right).oom_events + stat_of(s.a).oom_events, 0);
	CHECK_EQ(stat_of(s.a).swap_usage, stat_of(left).swap_usage + stat_of(right).swap_usage);
	CHECK(stat_of(s.a).max_events > 0);
	CHECK_EQ(stat_of(left).max_events, 0);
	check_filled(s.w.cpu, s.va, NPAGES, 1);
	check_filled(other, s.va, LIMIT, 7);
	CHECK_GO_ON();
	CHECK_EQ(stat_of(s.b).usage, 50);
	check_invariants(s.w.machine);
	leave(other);
	leave(outside);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, s.a), 0);
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va, NPAGES * PAGE), 0);
	REQUIRE_EQ(ucow_memcg_destroy(left), 0);
	REQUIRE_EQ(ucow_memcg_destroy(right), 0);
	close_scene(&s);
}

TEST(the_swap_limit_keeps_pages_in_ram_and_then_the_group_alone_fails)
{
	struct scene s = open_scene(LIMIT);
	struct ucow_cpu *cpu;
	struct ucow_memcg_stat stat;
	unsigned n = 0;

	REQUIRE_EQ(ucow_memcg_set_limit(s.a, LIMIT, 10), 0);
	while (n < NPAGES && !ucow_store_u64(s.w.cpu, s.va + n * PAGE, n + 1))
		n++;
	stat = stat_of(s.a);
	CHECK(n >= LIMIT && n <= LIMIT + 10);
	CHECK(stat.swap_usage <= 10);
	CHECK(stat.swap_max_events > 0);
	CHECK(stat.oom_events > 0);
	CHECK_EQ(get64(s.w.cpu, s.va + (n - 1) * PAGE), n);
	cpu = neighbour(&s, s.b, NPAGES);
	check_filled(cpu, s.va, NPAGES, 7);
	CHECK_GO_ON();
	check_invariants(s.w.machine);
	REQUIRE_EQ(ucow_memcg_set_limit(s.a, LIMIT, NONE), 0);
	fill(s.w.cpu, s.va + n * PAGE, NPAGES - n, n + 1);
	check_filled(s.w.cpu, s.va, NPAGES, 1);
	CHECK_GO_ON();
	leave(cpu);
	close_scene(&s);
}

TEST(a_lower_limit_sends_pages_out)
{
	struct scene s = open_scene(NONE);

	fill(s.w.cpu, s.va, NPAGES, 1);
	CHECK_EQ(stat_of(s.a).usage, NPAGES);
	CHECK_EQ(ucow_memcg_set_limit(s.a, LIMIT, NONE), 0);
	CHECK(stat_of(s.a).usage <= LIMIT);
	check_filled(s.w.cpu, s.va, NPAGES, 1);
	CHECK_GO_ON();
	close_scene(&s);
}

TEST(pinned_pages_stay_whatever_the_limit)
{
	struct scene s = open_scene(LIMIT);
	static struct ucow_page *pages[LIMIT];

	REQUIRE_EQ(ucow_pin_user_pages(s.w.cpu, s.va, LIMIT, UCOW_FOLL_WRITE, pages), LIMIT);
	CHECK_EQ(ucow_store_u64(s.w.cpu, s.va + LIMIT * PAGE, 1), -ENOMEM);
	CHECK(stat_of(s.a).oom_events > 0);
	CHECK_EQ(ucow_memcg_set_limit(s.a, LIMIT / 2, NONE), -EBUSY);
	CHECK_EQ(stat_of(s.a).usage, LIMIT);
	for (unsigned i = 0; i < LIMIT; i++) {
		device_write64(pages[i], 1000 + i);
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), 1000 + i);
	}
	ucow_unpin_user_pages(pages, LIMIT);
	CHECK_EQ(ucow_memcg_set_limit(s.a, LIMIT / 2, NONE), 0);
	check_filled(s.w.cpu, s.va, LIMIT, 1000);
	CHECK_GO_ON();
	close_scene(&s);
}

TEST(a_fork_makes_room_for_its_early_copies)
{
	struct scene s = open_scene(LIMIT);
	struct ucow_page *pages[4];
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	fill(s.w.cpu, s.va, NPAGES, 1);
	REQUIRE_EQ(ucow_pin_user_pages(s.w.cpu, s.va, 4, UCOW_FOLL_WRITE, pages), 4);
	fill(s.w.cpu, s.va, NPAGES, 1);
	REQUIRE_EQ(ucow_fork_into(s.w.mm, s.b, &child), 0);
	CHECK(stat_of(s.a).usage <= LIMIT);
	CHECK_EQ(stat_of(s.b).usage, 0);
	cpu = cpu_on(child);
	check_filled(cpu, s.va, NPAGES, 1);
	CHECK_GO_ON();
	check_invariants(s.w.machine);
	exit_mm(cpu, child);
	ucow_unpin_user_pages(pages, 4);
	close_scene(&s);
}

/* The child reads what its parent's group had swapped out: that group pays, and once it is gone the child's. */
TEST(what_comes_back_is_charged_to_its_old_group_while_that_exists)
{
	struct scene s = open_scene(NONE);
	struct ucow_memcg *c = group_below(s.w.machine, s.a, NONE);
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	REQUIRE_EQ(ucow_mm_join(s.w.mm, c), 0);
	fill(s.w.cpu, s.va, 40, 1);
	REQUIRE(ucow_reclaim(s.w.machine, c, 40) >= 40);
	CHECK_EQ(stat_of(c).swap_usage, 40);
	CHECK_EQ(stat_of(c).usage, 0);
	REQUIRE_EQ(ucow_fork_into(s.w.mm, s.b, &child), 0);
	cpu = cpu_on(child);
	check_filled(cpu, s.va, 10, 1);
	CHECK_GO_ON();
	CHECK(stat_of(c).usage >= 10);
	CHECK_EQ(stat_of(s.b).usage, 0);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, NULL), 0);
	ucow_cpu_attach(s.w.cpu, NULL);
	REQUIRE_EQ(ucow_mm_destroy(s.w.mm), 0);
	s.w.mm = NULL;
	REQUIRE_EQ(ucow_memcg_destroy(c), 0);
	CHECK(stat_of(s.a).swap_usage >= 20); /* c's are its parent's */
	check_invariants(s.w.machine);
	check_filled(cpu, s.va + 20 * PAGE, 20, 21);
	CHECK_GO_ON();
	CHECK(stat_of(s.b).usage >= 12); /* but for those that were read ahead before */
	check_filled(cpu, s.va, 40, 1);
	CHECK_GO_ON();
	check_invariants(s.w.machine);
	exit_mm(cpu, child);
	ucow_cpu_destroy(s.w.cpu);
	s.w.cpu = NULL;
	close_scene(&s);
}

TEST(swapoff_charges_the_group_or_the_one_above_it)
{
	struct scene s = open_scene(LIMIT);
	struct ucow_memcg *c = group_below(s.w.machine, s.a, NONE);
	struct ucow_mm *child;

	REQUIRE_EQ(ucow_mm_join(s.w.mm, c), 0);
	fill(s.w.cpu, s.va, 60, 1);
	CHECK_EQ(ucow_swapoff(s.w.machine, s.device), -ENOMEM); /* the limit is in the way */
	check_invariants(s.w.machine);
	check_filled(s.w.cpu, s.va, 60, 1);
	CHECK_GO_ON();
	REQUIRE_EQ(ucow_fork_into(s.w.mm, NULL, &child), 0);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, NULL), 0);
	REQUIRE_EQ(ucow_memcg_destroy(c), 0);
	REQUIRE_EQ(ucow_memcg_set_limit(s.a, NONE, NONE), 0);
	CHECK_EQ(ucow_swapoff(s.w.machine, s.device), 0);
	CHECK_EQ(stat_of(s.a).usage, 60);
	CHECK_EQ(stat_of(s.a).swap_usage, 0);
	check_filled(s.w.cpu, s.va, 60, 1);
	CHECK_GO_ON();
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
	exit_mm(s.w.cpu, s.w.mm);
	check_empty(s.a);
	REQUIRE_EQ(ucow_memcg_destroy(s.a), 0);
	REQUIRE_EQ(ucow_memcg_destroy(s.b), 0);
	s.w.cpu = NULL;
	s.w.mm = NULL;
	world_close(&s.w);
}

TEST(thousands_of_forks_and_exits_under_pressure_end_with_nothing_charged)
{
	enum { CYCLES = 3000, ALIVE = 5, PAGES = 40 };
	struct scene s = open_scene(LIMIT);
	struct ucow_memcg *groups[3] = {group_below(s.w.machine, s.a, NONE), group_below(s.w.machine, s.a, LIMIT / 2),
					s.b};
	struct ucow_mm *alive[ALIVE] = {0};
	uint64_t state = tap_seed();

	fill(s.w.cpu, s.va, PAGES, 0);
	for (unsigned i = 0; i < CYCLES; i++) {
		struct ucow_mm **slot = &alive[draw(&state) % ALIVE], *from = alive[draw(&state) % ALIVE], *child;

		REQUIRE_EQ(ucow_fork_into(from ? from : s.w.mm, groups[draw(&state) % 3], &child), 0);
		if (*slot)
			REQUIRE_EQ(ucow_mm_destroy(*slot), 0);
		*slot = child;
		ucow_cpu_attach(s.w.cpu, child);
		for (unsigned k = 0; k < 3; k++) {
			uint64_t page = draw(&state) % PAGES;

			REQUIRE_EQ(get64(s.w.cpu, s.va + page * PAGE) % PAGES, page);
			put64(s.w.cpu, s.va + page * PAGE, page + PAGES * (uint64_t)i);
		}
		ucow_cpu_attach(s.w.cpu, s.w.mm);
		REQUIRE(stat_of(s.a).usage <= LIMIT);
		if (i % 300 == 0)
			check_invariants(s.w.machine);
	}
	for (unsigned i = 0; i < ALIVE; i++)
		if (alive[i])
			REQUIRE_EQ(ucow_mm_destroy(alive[i]), 0);
	CHECK(stat_of(s.a).reclaimed > 0);
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va, NPAGES * PAGE), 0);
	ucow_machine_synchronize(s.w.machine);
	for (unsigned i = 0; i < 2; i++) {
		check_empty(groups[i]);
		REQUIRE_EQ(ucow_memcg_destroy(groups[i]), 0);
	}
	close_scene(&s);
}

/* ---- threads: each in a group of its own below one limit, together far above it ---- */

enum { THREADS = 3, TURNS = 1500, PAGES = 30 };
struct worker {
	struct scene *s;
	struct ucow_memcg *own;
	unsigned over, wrong, failed;
	uint64_t state;
};

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct ucow_cpu *cpu = neighbour(worker->s, worker->own, 0);
	uint64_t stamps[PAGES] = {0}, value;

	for (unsigned i = 1; i <= TURNS; i++) {
		unsigned page = (unsigned)(draw(&worker->state) % PAGES);
		uint64_t va = worker->s->va + page * PAGE;

		worker->over += stat_of(worker->s->a).usage > LIMIT;
		if (ucow_load_u64(cpu, va, &value))
			worker->failed++;
		else
			worker->wrong += value != stamps[page];
		if (ucow_store_u64(cpu, va, i))
			worker->failed++;
		else
			stamps[page] = i;
	}
	leave(cpu);
	return NULL;
}

TEST(threads_below_one_limit_swap_and_keep_their_bytes)
{
	struct scene s = open_scene(LIMIT);
	struct worker workers[THREADS];
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.s = &s, .own = group_below(s.w.machine, s.a, NONE), .state = i};
		REQUIRE_EQ(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
		CHECK_EQ(workers[i].over, 0);
		CHECK_EQ(workers[i].wrong, 0);
		CHECK_EQ(workers[i].failed, 0);
	}
	ucow_machine_synchronize(s.w.machine);
	for (unsigned i = 0; i < THREADS; i++) {
		check_empty(workers[i].own);
		REQUIRE_EQ(ucow_memcg_destroy(workers[i].own), 0);
	}
	close_scene(&s);
}

TAP_MAIN()
