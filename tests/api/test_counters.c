/* SPDX-License-Identifier: MIT */
/* Counters with context: each write-protect fault is counted once, under its right cause. semantics.md B.9 */
#include "fixture.h"

static const enum ucow_counter causes[] = {
	UCOW_COUNTER_REUSE,           UCOW_COUNTER_REUSE_SHARED, UCOW_COUNTER_COPY_SHARED,
	UCOW_COUNTER_COPY_REFERENCED, UCOW_COUNTER_COPY_LOCKED,  UCOW_COUNTER_COPY_ZERO,
	UCOW_COUNTER_COPY_KSM,        UCOW_COUNTER_COPY_FILE,    UCOW_COUNTER_UNSHARE,
};
enum { CAUSES = sizeof(causes) / sizeof(causes[0]) };

static uint64_t sum_of_causes(const struct world *w)
{
	uint64_t sum = 0;

	for (int i = 0; i < CAUSES; i++)
		sum += counted(w, causes[i]);
	return sum;
}

/* One counter went up by one, and so did the write-protect faults; no other cause did. */
static bool counted_once(const struct world *w, const uint64_t *before, enum ucow_counter cause)
{
	for (int i = 0; i < CAUSES; i++)
		if (counted(w, causes[i]) != before[i] + (causes[i] == cause)) {
			printf("# %s rose by %" PRIu64 "\n", ucow_counter_name(causes[i]),
			       counted(w, causes[i]) - before[i]);
			return false;
		}
	return counted(w, UCOW_COUNTER_FAULT_WP) == before[CAUSES] + 1;
}

static void note(const struct world *w, uint64_t *before)
{
	for (int i = 0; i < CAUSES; i++)
		before[i] = counted(w, causes[i]);
	before[CAUSES] = counted(w, UCOW_COUNTER_FAULT_WP);
}

TEST(copy_of_a_shared_page)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), before[CAUSES + 1];
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	child = fork_mm(w.mm);
	note(&w, before);
	put64(w.cpu, va, 2);
	CHECK(counted_once(&w, before, UCOW_COUNTER_COPY_SHARED));
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(reuse_by_the_last_user)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), before[CAUSES + 1];

	put64(w.cpu, va, 1);
	share_once(w.mm, va);
	note(&w, before);
	put64(w.cpu, va, 2);
	CHECK(counted_once(&w, before, UCOW_COUNTER_REUSE));
	world_close(&w);
}

TEST(copy_of_a_referenced_page)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), before[CAUSES + 1];
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	share_once(w.mm, va);
	page = get_page(w.cpu, va, 0);
	note(&w, before);
	put64(w.cpu, va, 2);
	CHECK(counted_once(&w, before, UCOW_COUNTER_COPY_REFERENCED));
	ucow_put_pages(&page, 1);
	world_close(&w);
}

/* A scanner holds the page lock, and nothing else is in the way: its own reference is part of how it looks. */
TEST(copy_of_a_locked_page_is_not_a_reuse)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), before[CAUSES + 1];
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	page = get_page(w.cpu, va, 0);
	CHECK(ucow_page_trylock(page));
	ucow_put_pages(&page, 1); /* still mapped, so still there */
	share_once(w.mm, va);
	note(&w, before);
	put64(w.cpu, va, 2);
	CHECK(counted_once(&w, before, UCOW_COUNTER_COPY_LOCKED));
	world_close(&w);
}

TEST(write_to_the_zero_page)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), before[CAUSES + 1], fills;

	CHECK_EQ(get64(w.cpu, va), 0);
	fills = counted(&w, UCOW_COUNTER_ZERO_FILL);
	note(&w, before);
	put64(w.cpu, va, 2);
	CHECK(counted_once(&w, before, UCOW_COUNTER_COPY_ZERO));
	CHECK(counted(&w, UCOW_COUNTER_ZERO_FILL) - fills <= 1);
	world_close(&w);
}

TEST(first_write_is_no_write_protect_fault)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 3);

	for (unsigned i = 0; i < 3; i++)
		put64(w.cpu, va + i * PAGE, 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_ZERO_FILL), 3);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_WP), 0);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_WRITE), 3);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULTS), 3);
	CHECK_EQ(sum_of_causes(&w), 0);
	world_close(&w);
}

TEST(unshare_in_place_and_by_copy)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), before[CAUSES + 1];
	struct ucow_page *pages[2];
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	share_once(w.mm, va);
	note(&w, before);
	pages[0] = pin_page(w.cpu, va, 0);
	CHECK(counted_once(&w, before, UCOW_COUNTER_UNSHARE));
	CHECK_EQ(counted(&w, UCOW_COUNTER_UNSHARE_COPY), 0);
	put64(w.cpu, va + PAGE, 1);
	child = fork_mm(w.mm);
	note(&w, before);
	pages[1] = pin_page(w.cpu, va + PAGE, 0);
	CHECK(counted_once(&w, before, UCOW_COUNTER_UNSHARE));
	CHECK_EQ(counted(&w, UCOW_COUNTER_UNSHARE_COPY), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_COPY_SHARED), 0); /* a copy, but an unshare's */
	ucow_unpin_user_pages(pages, 2);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* The first store through an entry that maps a shared page read-only. */
TEST(store_to_a_shared_mapping_never_copies)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 2);

	CHECK_EQ(get64(w.cpu, va), 0);
	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, RW), 0);
	put64(w.cpu, va, 2);
	put64(w.cpu, va + PAGE, 3);
	CHECK_EQ(counted(&w, UCOW_COUNTER_REUSE_SHARED), counted(&w, UCOW_COUNTER_FAULT_WP));
	CHECK_EQ(sum_of_causes(&w), counted(&w, UCOW_COUNTER_FAULT_WP));
	world_close(&w);
}

TEST(refused_faults_are_not_completed_faults)
{
	struct world w = world_open();
	uint64_t va = map_at(w.mm, BASE, 1, UCOW_PROT_READ, UCOW_MAP_PRIVATE), value, faults;

	faults = counted(&w, UCOW_COUNTER_FAULTS);
	CHECK_EQ(ucow_store_u64(w.cpu, va, 1), -EFAULT);
	CHECK_EQ(ucow_load_u64(w.cpu, va + PAGE, &value), -EFAULT);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_SIGSEGV), 2);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULTS), faults);
	world_close(&w);
}

/* A fault that finds no memory is counted as that and, when repeated, once as what it was. */
TEST(fault_without_memory_is_counted_apart)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), before[CAUSES + 1];
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	child = fork_mm(w.mm);
	note(&w, before);
	ucow_machine_inject(w.machine, UCOW_INJECT_FRAME, 1);
	CHECK_EQ(ucow_store_u64(w.cpu, va, 2), -ENOMEM);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_NOMEM), 1);
	CHECK_EQ(sum_of_causes(&w), 0);
	put64(w.cpu, va, 2);
	CHECK(counted(&w, UCOW_COUNTER_COPY_SHARED) == 1 && sum_of_causes(&w) == 1);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* The early copies of fork are counted, and are no faults. */
TEST(early_copies_are_no_faults)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 5), faults;
	struct ucow_page *pages[5];
	struct ucow_mm *child;

	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 5, UCOW_FOLL_WRITE, pages), 5);
	faults = counted(&w, UCOW_COUNTER_FAULTS);
	child = fork_mm(w.mm);
	CHECK_EQ(counted(&w, UCOW_COUNTER_EARLY_COPY), 5);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FORKS), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FORK_PINNED), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULTS), faults);
	ucow_unpin_user_pages(pages, 5);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* One random step of a life that meets every cause. */
static void random_step(struct world *w, struct ucow_mm **child, uint64_t va, uint64_t *state)
{
	uint64_t at = va + draw(state) % 8 * PAGE;
	struct ucow_page *page;

	switch (draw(state) % 7) {
	case 0:
		if (!*child)
			REQUIRE_EQ(ucow_fork(w->mm, child), 0);
		return;
	case 1:
		if (*child)
			REQUIRE_EQ(ucow_mm_destroy(*child), 0);
		*child = NULL;
		return;
	case 2:
		get64(w->cpu, at);
		return;
	case 3:
		page = pin_page(w->cpu, at, draw(state) % 2 ? UCOW_FOLL_WRITE : UCOW_FOLL_LONGTERM);
		ucow_unpin_user_pages(&page, 1);
		return;
	case 4:
		page = get_page(w->cpu, at, 0);
		put64(w->cpu, at, draw(state));
		ucow_put_pages(&page, 1);
		return;
	case 5:
		REQUIRE_EQ(ucow_madvise(w->mm, at, PAGE, UCOW_MADV_DONTNEED), 0);
		return;
	default:
		put64(w->cpu, at, draw(state));
		return;
	}
}

/* Whatever happens, and under every policy: the causes add up to the write-protect faults. */
TEST(causes_add_up_under_every_policy)
{
	for (int policy = 0; policy < UCOW_POLICY_COUNT; policy++) {
		struct world w = world_open_policy(policy);
		uint64_t va = map_private(w.mm, 8), state = tap_seed() + (unsigned)policy;
		struct ucow_mm *child = NULL;

		for (unsigned step = 0; step < 2000; step++) {
			random_step(&w, &child, va, &state);
			CHECK_EQ(sum_of_causes(&w), counted(&w, UCOW_COUNTER_FAULT_WP));
		}
		CHECK(counted(&w, UCOW_COUNTER_FAULT_WP) > 100);
		CHECK(policy == UCOW_POLICY_EXCLUSIVE || counted(&w, UCOW_COUNTER_UNSHARE) == 0);
		CHECK_EQ(counted(&w, UCOW_COUNTER_PINS), counted(&w, UCOW_COUNTER_UNPINS));
		CHECK_EQ(counted(&w, UCOW_COUNTER_GETS), counted(&w, UCOW_COUNTER_PUTS));
		CHECK(counted(&w, UCOW_COUNTER_UNSHARE_COPY) <= counted(&w, UCOW_COUNTER_UNSHARE));
		if (child)
			CHECK_EQ(ucow_mm_destroy(child), 0);
		world_close(&w);
	}
}

TAP_MAIN()
