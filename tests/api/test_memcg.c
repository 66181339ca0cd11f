/* SPDX-License-Identifier: MIT */
/*
 * Memory control groups: who is charged in each case of copy-on-write (semantics.md B.9), what a limit refuses and
 * leaves as it was, members that move, groups that go before their pages do. Limits here are met without swap: nothing
 * can be reclaimed, so every refusal is final.
 */
#include "fixture.h"

#include <pthread.h>

#define NPAGES 20
#define NONE   UCOW_MEMCG_NO_LIMIT

static struct ucow_memcg *group_below(struct ucow_machine *machine, struct ucow_memcg *parent, uint64_t limit)
{
	struct ucow_memcg *memcg = NULL;

	REQUIRE_EQ(ucow_memcg_create(machine, parent, limit, NONE, &memcg), 0);
	return memcg;
}

static struct ucow_memcg_stat stat_of(struct ucow_memcg *memcg)
{
	struct ucow_memcg_stat stat;

	memset(&stat, 0xff, sizeof(stat));
	ucow_memcg_stat(memcg, &stat);
	return stat;
}

static uint64_t usage(struct ucow_memcg *memcg)
{
	return stat_of(memcg).usage;
}

static struct ucow_mm *fork_into(struct ucow_mm *mm, struct ucow_memcg *memcg)
{
	struct ucow_mm *child = NULL;

	REQUIRE_EQ(ucow_fork_into(mm, memcg, &child), 0);
	REQUIRE(ucow_mm_memcg(child) == memcg);
	return child;
}

static void destroy_group(struct ucow_memcg *memcg)
{
	REQUIRE_EQ(ucow_memcg_destroy(memcg), 0);
}

/* A world whose space is a member of `a`, with a second group beside it, and memory mapped but not touched. */
struct scene {
	struct world w;
	struct ucow_memcg *a, *b;
	uint64_t va;
};

static struct scene open_scene(uint64_t limit)
{
	struct scene s = {.w = world_open()};

	s.a = group_below(s.w.machine, NULL, limit);
	s.b = group_below(s.w.machine, NULL, NONE);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, s.a), 0);
	s.va = map_private(s.w.mm, NPAGES);
	return s;
}

static void fill(struct scene *s, unsigned npages)
{
	for (unsigned i = 0; i < npages; i++)
		put64(s->w.cpu, s->va + i * PAGE, i + 1);
}

static void check_filled(struct ucow_cpu *cpu, uint64_t va, unsigned npages)
{
	for (unsigned i = 0; i < npages; i++)
		CHECK_EQ(get64(cpu, va + i * PAGE), i + 1);
}

/* Space and groups go, and every page that was charged is uncharged. */
static void close_scene(struct scene *s)
{
	check_invariants(s->w.machine);
	exit_mm(s->w.cpu, s->w.mm);
	s->w.cpu = NULL;
	s->w.mm = NULL;
	ucow_machine_synchronize(s->w.machine);
	REQUIRE_EQ(usage(s->a), 0);
	REQUIRE_EQ(usage(s->b), 0);
	destroy_group(s->a);
	destroy_group(s->b);
	world_close(&s->w);
}

/* ---- who is charged ---- */

TEST(a_page_is_charged_when_it_is_filled_and_only_then)
{
	struct scene s = open_scene(NONE);

	CHECK_EQ(get64(s.w.cpu, s.va), 0);
	CHECK_EQ(usage(s.a), 0); /* the zero page is nobody's */
	put64(s.w.cpu, s.va, 1);
	CHECK_EQ(usage(s.a), 1);
	put64(s.w.cpu, s.va, 2);
	put64(s.w.cpu, s.va + PAGE, 2);
	CHECK_EQ(usage(s.a), 2);
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va, PAGE), 0);
	CHECK_EQ(usage(s.a), 1);
	CHECK_EQ(stat_of(s.a).peak, 2);
	CHECK_EQ(usage(s.b), 0);
	close_scene(&s);
}

TEST(fork_charges_nobody_and_each_side_pays_for_its_own_copies)
{
	struct scene s = open_scene(NONE);
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	fill(&s, NPAGES);
	child = fork_into(s.w.mm, s.b);
	cpu = cpu_on(child);
	CHECK_EQ(usage(s.a), NPAGES);
	CHECK_EQ(usage(s.b), 0);
	put64(cpu, s.va, 100); /* the child's copy */
	CHECK_EQ(usage(s.a), NPAGES);
	CHECK_EQ(usage(s.b), 1);
	put64(s.w.cpu, s.va + PAGE, 200); /* the parent's; the old page is the child's alone, and stays charged to a */
	CHECK_EQ(usage(s.a), NPAGES + 1);
	CHECK_EQ(usage(s.b), 1);
	check_invariants(s.w.machine);
	exit_mm(cpu, child);
	ucow_machine_synchronize(s.w.machine);
	CHECK_EQ(usage(s.a), NPAGES);
	CHECK_EQ(usage(s.b), 0);
	close_scene(&s);
}

TEST(a_child_is_a_member_of_its_parents_group)
{
	struct scene s = open_scene(NONE);
	struct ucow_mm *child, *snapshot = NULL;
	struct ucow_cpu *cpu;

	fill(&s, 2);
	child = fork_mm(s.w.mm);
	REQUIRE_EQ(ucow_snapshot(s.w.mm, &snapshot), 0);
	CHECK(ucow_mm_memcg(child) == s.a);
	CHECK(ucow_mm_memcg(snapshot) == s.a);
	CHECK_EQ(stat_of(s.a).spaces, 3);
	cpu = cpu_on(child);
	put64(cpu, s.va, 9);
	CHECK_EQ(usage(s.a), 3);
	exit_mm(cpu, child);
	REQUIRE_EQ(ucow_mm_destroy(snapshot), 0);
	CHECK_EQ(stat_of(s.a).spaces, 1);
	close_scene(&s);
}

TEST(reuse_never_charges_again)
{
	struct scene s = open_scene(NONE);
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	fill(&s, 2);
	share_once(s.w.mm, s.va);
	ucow_machine_synchronize(s.w.machine);
	put64(s.w.cpu, s.va, 7);
	CHECK_EQ(usage(s.a), 2);
	/* The child that is left alone with its parent's pages writes to them in place: they stay its parent's. */
	child = fork_into(s.w.mm, s.b);
	ucow_cpu_attach(s.w.cpu, NULL);
	REQUIRE_EQ(ucow_mm_destroy(s.w.mm), 0);
	ucow_machine_synchronize(s.w.machine);
	cpu = cpu_on(child);
	put64(cpu, s.va, 8);
	CHECK_EQ(usage(s.a), 2);
	CHECK_EQ(usage(s.b), 0);
	CHECK_EQ(stat_of(s.a).spaces, 0);
	exit_mm(cpu, child);
	CHECK_EQ(usage(s.a), 0);
	REQUIRE_EQ(ucow_mm_create(s.w.machine, &s.w.mm), 0);
	close_scene(&s);
}

TEST(unshare_charges_the_space_that_pins)
{
	struct scene s = open_scene(NONE);
	struct ucow_mm *child;
	struct ucow_cpu *cpu;
	struct ucow_page *page;

	fill(&s, 2);
	child = fork_into(s.w.mm, s.b);
	cpu = cpu_on(child);
	page = pin_page(cpu, s.va, 0);
	CHECK_EQ(usage(s.a), 2);
	CHECK_EQ(usage(s.b), 1);
	exit_mm(cpu, child);
	CHECK_EQ(usage(s.b), 1); /* the pin keeps the page, and the page its charge */
	ucow_unpin_user_pages(&page, 1);
	CHECK_EQ(usage(s.b), 0);
	close_scene(&s);
}

TEST(early_copies_are_charged_to_the_parents_group)
{
	struct scene s = open_scene(NONE);
	struct ucow_page *page;
	struct ucow_mm *child;

	fill(&s, 3);
	page = pin_page(s.w.cpu, s.va, UCOW_FOLL_WRITE);
	child = fork_into(s.w.mm, s.b);
	CHECK_EQ(usage(s.a), 4);
	CHECK_EQ(usage(s.b), 0);
	check_invariants(s.w.machine);
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
	CHECK_EQ(usage(s.a), 3);
	ucow_unpin_user_pages(&page, 1);
	close_scene(&s);
}

TEST(gup_charges_the_group_of_the_space_that_it_acts_on)
{
	struct scene s = open_scene(NONE);
	struct ucow_mm *other = NULL;
	struct ucow_cpu *cpu;
	struct ucow_page *page;
	uint64_t word = 5;

	REQUIRE_EQ(ucow_mm_create(s.w.machine, &other), 0);
	REQUIRE_EQ(ucow_mm_join(other, s.b), 0);
	cpu = cpu_on(other);
	REQUIRE_EQ(ucow_get_user_pages_remote(s.w.mm, s.va, 1, UCOW_FOLL_WRITE, &page), 1);
	ucow_put_pages(&page, 1);
	REQUIRE_EQ(ucow_access_remote(s.w.mm, s.va + PAGE, &word, sizeof(word), UCOW_FOLL_WRITE, NULL), 0);
	CHECK_EQ(usage(s.a), 2);
	CHECK_EQ(usage(s.b), 0);
	exit_mm(cpu, other);
	close_scene(&s);
}

TEST(a_shared_page_is_charged_to_whoever_touches_it_first)
{
	struct scene s = open_scene(NONE);
	uint64_t shared = map_at(s.w.mm, s.va + 100 * PAGE, 2, RW, UCOW_MAP_SHARED);
	struct ucow_mm *child = fork_into(s.w.mm, s.b);
	struct ucow_cpu *cpu = cpu_on(child);

	CHECK_EQ(get64(cpu, shared), 0); /* a load makes the page, as a store would */
	put64(s.w.cpu, shared, 1);
	put64(s.w.cpu, shared + PAGE, 2);
	put64(cpu, shared + PAGE, 3);
	CHECK_EQ(usage(s.a), 1);
	CHECK_EQ(usage(s.b), 1);
	exit_mm(cpu, child);
	CHECK_EQ(usage(s.b), 1); /* the object has it still */
	REQUIRE_EQ(ucow_munmap(s.w.mm, shared, 2 * PAGE), 0);
	CHECK_EQ(usage(s.a), 0);
	CHECK_EQ(usage(s.b), 0);
	close_scene(&s);
}

TEST(a_space_of_no_group_is_charged_to_nobody)
{
	struct scene s = open_scene(1);

	REQUIRE_EQ(ucow_mm_join(s.w.mm, NULL), 0);
	CHECK(!ucow_mm_memcg(s.w.mm));
	fill(&s, NPAGES);
	CHECK_EQ(usage(s.a), 0);
	CHECK_EQ(stat_of(s.a).spaces, 0);
	close_scene(&s);
}

/* ---- limits ---- */

TEST(a_store_beyond_the_limit_fails_and_another_group_goes_on)
{
	struct scene s = open_scene(4);
	struct ucow_mm *other = NULL;
	struct ucow_cpu *cpu;

	fill(&s, 4);
	CHECK_EQ(ucow_store_u64(s.w.cpu, s.va + 4 * PAGE, 9), -ENOMEM);
	CHECK_EQ(get64(s.w.cpu, s.va + 4 * PAGE), 0);
	CHECK_EQ(usage(s.a), 4);
	CHECK_EQ(stat_of(s.a).max_events, 1);
	CHECK_EQ(stat_of(s.a).oom_events, 1);
	check_invariants(s.w.machine);
	REQUIRE_EQ(ucow_mm_create(s.w.machine, &other), 0);
	REQUIRE_EQ(ucow_mm_join(other, s.b), 0);
	map_private(other, NPAGES);
	cpu = cpu_on(other);
	for (unsigned i = 0; i < NPAGES; i++)
		put64(cpu, s.va + i * PAGE, i);
	CHECK_EQ(usage(s.b), NPAGES);
	CHECK_EQ(stat_of(s.b).max_events, 0);
	exit_mm(cpu, other);
	/* What goes makes room. */
	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va, PAGE, UCOW_MADV_DONTNEED), 0);
	put64(s.w.cpu, s.va + 4 * PAGE, 9);
	CHECK_EQ(usage(s.a), 4);
	CHECK_EQ(stat_of(s.a).oom_events, 1);
	close_scene(&s);
}

TEST(a_copy_beyond_the_limit_fails_and_both_sides_keep_their_bytes)
{
	struct scene s = open_scene(5);
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	fill(&s, 4);
	child = fork_mm(s.w.mm);
	cpu = cpu_on(child);
	put64(cpu, s.va, 1); /* the fifth page */
	CHECK_EQ(ucow_store_u64(cpu, s.va + PAGE, 99), -ENOMEM);
	CHECK_EQ(ucow_store_u64(s.w.cpu, s.va + PAGE, 99), -ENOMEM);
	CHECK_EQ(stat_of(s.a).oom_events, 2);
	check_filled(cpu, s.va, 4);
	check_filled(s.w.cpu, s.va, 4);
	CHECK_GO_ON();
	CHECK_EQ(usage(s.a), 5);
	check_invariants(s.w.machine);
	exit_mm(cpu, child);
	ucow_machine_synchronize(s.w.machine);
	put64(s.w.cpu, s.va + PAGE, 99); /* in place */
	CHECK_EQ(usage(s.a), 4);
	close_scene(&s);
}

TEST(an_unshare_beyond_the_limit_fails_and_pins_nothing)
{
	struct scene s = open_scene(4);
	struct ucow_mm *child;
	struct ucow_cpu *cpu;
	struct ucow_page *page;
	struct ucow_machine_stat stat;

	fill(&s, 4);
	child = fork_mm(s.w.mm);
	cpu = cpu_on(child);
	CHECK_EQ(ucow_pin_user_pages(cpu, s.va, 1, 0, &page), -ENOMEM);
	ucow_machine_stat(s.w.machine, &stat);
	CHECK_EQ(stat.pins, 0);
	CHECK_EQ(usage(s.a), 4);
	check_filled(cpu, s.va, 4);
	check_filled(s.w.cpu, s.va, 4);
	CHECK_GO_ON();
	check_invariants(s.w.machine);
	REQUIRE_EQ(ucow_mm_join(child, s.b), 0); /* whose limit is not in the way */
	REQUIRE_EQ(ucow_pin_user_pages(cpu, s.va, 1, 0, &page), 1);
	CHECK_EQ(usage(s.b), 1);
	ucow_unpin_user_pages(&page, 1);
	exit_mm(cpu, child);
	close_scene(&s);
}

TEST(a_pin_beyond_the_limit_takes_what_fits_and_then_nothing)
{
	struct scene s = open_scene(3);
	struct ucow_page *pages[5];

	REQUIRE_EQ(ucow_pin_user_pages(s.w.cpu, s.va, 5, UCOW_FOLL_WRITE, pages), 3);
	CHECK_EQ(ucow_pin_user_pages(s.w.cpu, s.va + 3 * PAGE, 2, UCOW_FOLL_WRITE, pages + 3), -ENOMEM);
	CHECK_EQ(usage(s.a), 3);
	check_invariants(s.w.machine);
	ucow_unpin_user_pages(pages, 3);
	close_scene(&s);
}

TEST(a_fork_whose_early_copies_do_not_fit_fails_and_leaves_the_parent_alone)
{
	struct scene s = open_scene(6);
	struct ucow_machine_stat before, after;
	struct ucow_page *pages[3];
	struct ucow_mm *child;

	fill(&s, 4);
	REQUIRE_EQ(ucow_pin_user_pages(s.w.cpu, s.va, 3, UCOW_FOLL_WRITE, pages), 3);
	ucow_machine_stat(s.w.machine, &before);
	CHECK_EQ(ucow_fork(s.w.mm, &child), -ENOMEM);
	CHECK_EQ(ucow_fork_into(s.w.mm, s.b, &child), -ENOMEM); /* they are the parent's to pay */
	ucow_machine_synchronize(s.w.machine);
	ucow_machine_stat(s.w.machine, &after);
	CHECK_EQ(after.used_pages, before.used_pages);
	CHECK_EQ(after.spaces, before.spaces);
	CHECK_EQ(usage(s.a), 4);
	CHECK_EQ(stat_of(s.a).spaces, 1);
	CHECK_EQ(stat_of(s.b).spaces, 0);
	check_filled(s.w.cpu, s.va, 4);
	CHECK_GO_ON();
	check_invariants(s.w.machine);
	device_write64(pages[0], 77);
	CHECK_EQ(get64(s.w.cpu, s.va), 77);
	ucow_unpin_user_pages(pages, 1);
	child = fork_into(s.w.mm, s.b); /* two copies fit */
	CHECK_EQ(usage(s.a), 6);
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
	ucow_unpin_user_pages(pages + 1, 2);
	close_scene(&s);
}

TEST(shared_memory_and_remote_writes_meet_the_limit_too)
{
	struct scene s = open_scene(1);
	uint64_t shared = map_at(s.w.mm, s.va + 100 * PAGE, 2, RW, UCOW_MAP_SHARED), word = 1;

	put64(s.w.cpu, shared, 1);
	CHECK_EQ(ucow_load_u64(s.w.cpu, shared + PAGE, &word), -ENOMEM);
	CHECK_EQ(ucow_access_remote(s.w.mm, s.va, &word, sizeof(word), UCOW_FOLL_WRITE, NULL), -ENOMEM);
	CHECK_EQ(ucow_madvise(s.w.mm, s.va, 2 * PAGE, UCOW_MADV_POPULATE_WRITE), -ENOMEM);
	CHECK_EQ(usage(s.a), 1);
	CHECK_EQ(stat_of(s.a).oom_events, 3);
	close_scene(&s);
}

TEST(a_limit_above_binds_all_groups_below)
{
	struct scene s = open_scene(NONE);
	struct ucow_memcg *left = group_below(s.w.machine, s.a, NONE), *right = group_below(s.w.machine, s.a, 3);
	struct ucow_mm *other;
	struct ucow_cpu *cpu;

	REQUIRE_EQ(ucow_memcg_set_limit(s.a, 8, NONE), 0);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, left), 0);
	other = fork_into(s.w.mm, right);
	cpu = cpu_on(other);
	fill(&s, 6);
	put64(cpu, s.va, 1);
	put64(cpu, s.va + PAGE, 1);
	CHECK_EQ(ucow_store_u64(cpu, s.va + 2 * PAGE, 1), -ENOMEM);
	CHECK_EQ(ucow_store_u64(s.w.cpu, s.va + 6 * PAGE, 1), -ENOMEM);
	CHECK_EQ(usage(left), 6);
	CHECK_EQ(usage(right), 2);
	CHECK_EQ(usage(s.a), 8);
	CHECK_EQ(stat_of(s.a).oom_events, 2); /* the group whose limit it was */
	CHECK_EQ(stat_of(left).oom_events, 0);
	CHECK_EQ(stat_of(right).oom_events, 0);
	check_invariants(s.w.machine);
	exit_mm(cpu, other);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, s.a), 0);
	destroy_group(left);
	destroy_group(right);
	close_scene(&s);
}

TEST(a_limit_below_the_usage_holds_for_new_charges)
{
	struct scene s = open_scene(NONE);

	fill(&s, 6);
	CHECK_EQ(ucow_memcg_set_limit(s.a, 5, NONE), -EBUSY);
	CHECK_EQ(stat_of(s.a).limit, 5);
	CHECK_EQ(ucow_store_u64(s.w.cpu, s.va + 6 * PAGE, 1), -ENOMEM);
	check_filled(s.w.cpu, s.va, 6);
	CHECK_GO_ON();
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va, 2 * PAGE), 0);
	CHECK_EQ(ucow_memcg_set_limit(s.a, 4, 17), 0);
	CHECK_EQ(stat_of(s.a).swap_limit, 17);
	CHECK_EQ(ucow_store_u64(s.w.cpu, s.va + 6 * PAGE, 1), -ENOMEM);
	CHECK_EQ(ucow_memcg_set_limit(s.a, NONE, NONE), 0);
	put64(s.w.cpu, s.va + 6 * PAGE, 1);
	CHECK_EQ(stat_of(s.a).limit, UCOW_MEMCG_NO_LIMIT);
	CHECK_EQ(stat_of(s.a).peak, 6);
	close_scene(&s);
}

TEST(a_limit_of_nothing_refuses_the_first_page)
{
	struct scene s = open_scene(0);

	CHECK_EQ(ucow_store_u64(s.w.cpu, s.va, 1), -ENOMEM);
	CHECK_EQ(get64(s.w.cpu, s.va), 0);
	CHECK_EQ(usage(s.a), 0);
	close_scene(&s);
}

/* ---- members ---- */

TEST(what_was_charged_stays_when_a_space_moves)
{
	struct scene s = open_scene(NONE);

	fill(&s, 4);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, s.b), 0);
	CHECK(ucow_mm_memcg(s.w.mm) == s.b);
	CHECK_EQ(stat_of(s.a).spaces, 0);
	CHECK_EQ(stat_of(s.b).spaces, 1);
	CHECK_EQ(usage(s.a), 4);
	put64(s.w.cpu, s.va, 9);
	put64(s.w.cpu, s.va + 4 * PAGE, 9);
	CHECK_EQ(usage(s.a), 4);
	CHECK_EQ(usage(s.b), 1);
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va, 2 * PAGE), 0);
	CHECK_EQ(usage(s.a), 2);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, s.b), 0); /* where it is already */
	CHECK_EQ(stat_of(s.b).spaces, 1);
	close_scene(&s);
}

TEST(a_group_with_members_or_groups_below_it_stays)
{
	struct scene s = open_scene(NONE);
	struct ucow_memcg *below = group_below(s.w.machine, s.b, NONE);

	CHECK_EQ(ucow_memcg_destroy(s.a), -EBUSY);
	CHECK_EQ(ucow_memcg_destroy(s.b), -EBUSY);
	destroy_group(below);
	fill(&s, 1);
	CHECK_EQ(usage(s.a), 1);
	close_scene(&s);
}

TEST(what_a_destroyed_group_leaves_is_its_parents)
{
	struct scene s = open_scene(NONE);
	struct ucow_memcg *below = group_below(s.w.machine, s.a, 10), *again;
	struct ucow_page *page;

	REQUIRE_EQ(ucow_mm_join(s.w.mm, below), 0);
	fill(&s, 5);
	page = pin_page(s.w.cpu, s.va, UCOW_FOLL_WRITE);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, NULL), 0);
	destroy_group(below);
	CHECK_EQ(usage(s.a), 5);
	check_invariants(s.w.machine);
	again = group_below(s.w.machine, s.b, NONE); /* must not inherit anything */
	CHECK_EQ(usage(again), 0);
	CHECK_EQ(usage(s.b), 0);
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va, 5 * PAGE), 0);
	CHECK_EQ(usage(s.a), 1);
	CHECK_EQ(usage(again), 0);
	ucow_unpin_user_pages(&page, 1);
	CHECK_EQ(usage(s.a), 0);
	check_invariants(s.w.machine);
	destroy_group(again);
	close_scene(&s);
}

/* A chain of groups goes from the lowest up, one page still charged to the lowest; then the page goes. */
TEST(a_chain_of_destroyed_groups_ends_with_its_last_page)
{
	enum { DEPTH = 6 };
	struct scene s = open_scene(NONE);
	struct ucow_memcg *chain[DEPTH], *at = s.a, *fresh[DEPTH];

	for (unsigned i = 0; i < DEPTH; i++)
		at = chain[i] = group_below(s.w.machine, at, NONE);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, at), 0);
	fill(&s, 1);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, s.b), 0);
	for (unsigned i = DEPTH; i--;) {
		destroy_group(chain[i]);
		CHECK_EQ(usage(s.a), 1);
	}
	check_invariants(s.w.machine);
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va, PAGE), 0);
	CHECK_EQ(usage(s.a), 0);
	for (unsigned i = 0; i < DEPTH; i++) {
		fresh[i] = group_below(s.w.machine, NULL, NONE);
		CHECK_EQ(usage(fresh[i]), 0);
	}
	for (unsigned i = 0; i < DEPTH; i++)
		destroy_group(fresh[i]);
	close_scene(&s);
}

TEST(numbers_run_out_and_come_back)
{
	enum { MAX = 65534 };
	struct scene s = open_scene(NONE);
	static struct ucow_memcg *groups[MAX];
	struct ucow_memcg *none = NULL;

	for (unsigned i = 0; i < MAX - 2; i++)
		groups[i] = group_below(s.w.machine, NULL, NONE);
	CHECK_EQ(ucow_memcg_create(s.w.machine, NULL, NONE, NONE, &none), -ENOSPC);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, groups[MAX - 3]), 0);
	fill(&s, 1);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, NULL), 0);
	for (unsigned i = 0; i < MAX - 2; i++)
		destroy_group(groups[i]);
	check_invariants(s.w.machine);
	for (unsigned i = 0; i < MAX - 3; i++) /* one number is still in use */
		groups[i] = group_below(s.w.machine, NULL, NONE);
	CHECK_EQ(ucow_memcg_create(s.w.machine, NULL, NONE, NONE, &none), -ENOSPC);
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va, PAGE), 0);
	groups[MAX - 3] = group_below(s.w.machine, NULL, NONE);
	for (unsigned i = 0; i < MAX - 2; i++)
		destroy_group(groups[i]);
	close_scene(&s);
}

TEST(a_group_that_cannot_be_made_leaves_nothing)
{
	struct scene s = open_scene(NONE);
	struct ucow_memcg *memcg = NULL;

	REQUIRE(!ucow_machine_inject(s.w.machine, UCOW_INJECT_OTHER, 1));
	CHECK_EQ(ucow_memcg_create(s.w.machine, s.a, NONE, NONE, &memcg), -ENOMEM);
	CHECK_EQ(ucow_memcg_create(s.w.machine, s.a, NONE, NONE, &memcg), 0);
	destroy_group(memcg);
	close_scene(&s);
}

/* A frame that does not come, for a space of a group: the charge must go back. */
TEST(a_failed_allocation_charges_nothing)
{
	struct scene s = open_scene(NONE);

	fill(&s, 1);
	REQUIRE(!ucow_machine_inject(s.w.machine, UCOW_INJECT_FRAME, 1));
	CHECK_EQ(ucow_store_u64(s.w.cpu, s.va + PAGE, 1), -ENOMEM);
	CHECK_EQ(usage(s.a), 1);
	CHECK_EQ(stat_of(s.a).max_events, 0);
	put64(s.w.cpu, s.va + PAGE, 1);
	CHECK_EQ(usage(s.a), 2);
	close_scene(&s);
}

TEST(a_machine_may_go_before_its_groups)
{
	struct world w = world_open();
	struct ucow_memcg *memcg = group_below(w.machine, group_below(w.machine, NULL, 5), 3);

	CHECK_EQ(usage(memcg), 0);
	world_close(&w);
}

/* ---- many ---- */

TEST(thousands_of_forks_and_exits_end_with_nothing_charged)
{
	enum { CYCLES = 5000, GROUPS = 4, ALIVE = 8 };
	struct scene s = open_scene(NONE);
	struct ucow_memcg *groups[GROUPS];
	struct ucow_mm *alive[ALIVE] = {0};
	uint64_t state = tap_seed();

	for (unsigned i = 0; i < GROUPS; i++)
		groups[i] = group_below(s.w.machine, i & 1 ? s.a : s.b, NONE);
	fill(&s, NPAGES);
	for (unsigned i = 0; i < CYCLES; i++) {
		struct ucow_mm **slot = &alive[draw(&state) % ALIVE], *from = alive[draw(&state) % ALIVE];
		struct ucow_mm *child = fork_into(from ? from : s.w.mm, groups[draw(&state) % GROUPS]);

		if (*slot)
			REQUIRE_EQ(ucow_mm_destroy(*slot), 0);
		*slot = child;
		ucow_cpu_attach(s.w.cpu, child);
		put64(s.w.cpu, s.va + draw(&state) % NPAGES * PAGE, i);
		put64(s.w.cpu, s.va + draw(&state) % NPAGES * PAGE, i);
		ucow_cpu_attach(s.w.cpu, s.w.mm);
		put64(s.w.cpu, s.va + draw(&state) % NPAGES * PAGE, i);
		if (i % 500 == 0)
			check_invariants(s.w.machine);
	}
	for (unsigned i = 0; i < ALIVE; i++)
		if (alive[i])
			REQUIRE_EQ(ucow_mm_destroy(alive[i]), 0);
	ucow_machine_synchronize(s.w.machine);
	for (unsigned i = 0; i < GROUPS; i++)
		REQUIRE(usage(groups[i]) <= NPAGES);
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va, NPAGES * PAGE), 0);
	ucow_machine_synchronize(s.w.machine);
	for (unsigned i = 0; i < GROUPS; i++) {
		REQUIRE_EQ(usage(groups[i]), 0);
		destroy_group(groups[i]);
	}
	close_scene(&s);
}

/* Threads below one limit: none ever sees more charged than that, and all goes back. */
enum { THREADS = 4, TURNS = 300, ROOM = 24 };
struct worker {
	struct scene *s;
	struct ucow_memcg *own;
	unsigned refused, over;
	uint64_t state;
};

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct ucow_mm *mm = NULL, *child;
	struct ucow_cpu *cpu;

	REQUIRE_EQ(ucow_mm_create(worker->s->w.machine, &mm), 0);
	REQUIRE_EQ(ucow_mm_join(mm, worker->own), 0);
	map_private(mm, NPAGES);
	cpu = cpu_on(mm);
	for (unsigned i = 0; i < TURNS; i++) {
		uint64_t va = worker->s->va + draw(&worker->state) % NPAGES * PAGE;
		int error = ucow_store_u64(cpu, va, i);

		REQUIRE(!error || error == -ENOMEM);
		worker->refused += error != 0;
		worker->over += usage(worker->s->a) > ROOM;
		if (i % 4 == 0)
			REQUIRE_EQ(ucow_madvise(mm, worker->s->va, NPAGES / 2 * PAGE, UCOW_MADV_DONTNEED), 0);
		if (i % 8 == 0 && !ucow_fork_into(mm, i & 8 ? worker->own : worker->s->a, &child))
			REQUIRE_EQ(ucow_mm_destroy(child), 0);
	}
	exit_mm(cpu, mm);
	return NULL;
}

TEST(threads_share_a_limit)
{
	struct scene s = open_scene(ROOM);
	struct worker workers[THREADS];
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.s = &s, .own = group_below(s.w.machine, s.a, NONE), .state = i};
		REQUIRE_EQ(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
		CHECK_EQ(workers[i].over, 0);
	}
	ucow_machine_synchronize(s.w.machine);
	CHECK_EQ(usage(s.a), 0);
	for (unsigned i = 0; i < THREADS; i++)
		destroy_group(workers[i].own);
	close_scene(&s);
}

TAP_MAIN()
