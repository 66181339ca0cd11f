/* SPDX-License-Identifier: MIT */
/*
 * The history of copy-on-write, replayed through the API: eight scenarios under eight policies, and which of them each
 * policy gets wrong. Derived by reasoning from the tables of semantics.md B.3 to B.5, not from what the engine does.
 */
#include "fixture.h"

/* What a scenario works on; it returns whether the promise was kept. */
struct stage {
	struct world w;
	uint64_t va;
	struct ucow_mm *child;
};

/* A child takes a plain reference and goes: it must not see the parent's later secret (CVE-2020-29374). */
static bool dead_childs_get_sees_no_secret(struct stage *s)
{
	struct ucow_page *page;
	bool kept;

	s->child = fork_mm(s->w.mm);
	REQUIRE_EQ(ucow_get_user_pages_remote(s->child, s->va, 1, 0, &page), 1);
	REQUIRE_EQ(ucow_mm_destroy(s->child), 0);
	s->child = NULL;
	put64(s->w.cpu, s->va, 2);
	kept = device_read64(page) == 1;
	ucow_put_pages(&page, 1);
	return kept;
}

/* The same with a read pin: what may be pinned must not be judged by its mappings alone. */
static bool dead_childs_pin_sees_no_secret(struct stage *s)
{
	struct ucow_page *page;
	bool kept;

	s->child = fork_mm(s->w.mm);
	REQUIRE_EQ(ucow_pin_user_pages_remote(s->child, s->va, 1, 0, &page), 1);
	REQUIRE_EQ(ucow_mm_destroy(s->child), 0);
	s->child = NULL;
	put64(s->w.cpu, s->va, 2);
	kept = device_read64(page) == 1;
	ucow_unpin_user_pages(&page, 1);
	return kept;
}

/* Whether what the process writes now arrives at the device, and the other way round if that may write. */
static bool agree(struct stage *s, struct ucow_page *page, bool writes)
{
	put64(s->w.cpu, s->va, 5);
	if (device_read64(page) != 5)
		return false;
	if (!writes)
		return true;
	device_write64(page, 6);
	return get64(s->w.cpu, s->va) == 6;
}

static bool write_pin_survives_fork(struct stage *s)
{
	struct ucow_page *page = pin_page(s->w.cpu, s->va, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM);
	bool kept;

	s->child = fork_mm(s->w.mm);
	kept = agree(s, page, true);
	ucow_unpin_user_pages(&page, 1);
	return kept;
}

static bool write_pin_survives_fork_and_exit(struct stage *s)
{
	struct ucow_page *page = pin_page(s->w.cpu, s->va, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM);
	bool kept;

	REQUIRE_EQ(ucow_mm_destroy(fork_mm(s->w.mm)), 0);
	kept = agree(s, page, true);
	ucow_unpin_user_pages(&page, 1);
	return kept;
}

static bool read_pin_after_the_child_has_gone(struct stage *s)
{
	struct ucow_page *page;
	bool kept;

	REQUIRE_EQ(ucow_mm_destroy(fork_mm(s->w.mm)), 0);
	page = pin_page(s->w.cpu, s->va, UCOW_FOLL_LONGTERM);
	kept = agree(s, page, false);
	ucow_unpin_user_pages(&page, 1);
	return kept;
}

static bool read_pin_while_the_child_lives(struct stage *s)
{
	struct ucow_page *page;
	bool kept;

	s->child = fork_mm(s->w.mm);
	page = pin_page(s->w.cpu, s->va, UCOW_FOLL_LONGTERM);
	kept = agree(s, page, false);
	ucow_unpin_user_pages(&page, 1);
	return kept;
}

static bool write_pin_survives_an_mprotect_detour(struct stage *s)
{
	struct ucow_page *page = pin_page(s->w.cpu, s->va, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM);
	bool kept;

	REQUIRE_EQ(ucow_mprotect(s->w.mm, s->va, PAGE, UCOW_PROT_READ), 0);
	REQUIRE_EQ(ucow_mprotect(s->w.mm, s->va, PAGE, RW), 0);
	kept = agree(s, page, true);
	ucow_unpin_user_pages(&page, 1);
	return kept;
}

/* fork promises the child all of the parent's bytes, also those that a device holds. */
static bool child_has_pinned_memory(struct stage *s)
{
	struct ucow_page *page = pin_page(s->w.cpu, s->va, UCOW_FOLL_WRITE);
	bool kept;

	s->child = fork_mm(s->w.mm);
	ucow_unpin_user_pages(&page, 1);
	ucow_cpu_attach(s->w.cpu, s->child);
	kept = get64(s->w.cpu, s->va) == 1;
	ucow_cpu_attach(s->w.cpu, s->w.mm);
	return kept;
}

#define BIT(policy) (1u << UCOW_POLICY_##policy)

static const struct scenario {
	const char *name;
	bool (*run)(struct stage *s);
	unsigned broken; /* by which policies */
} scenarios[] = {
	{"a dead child's get sees no secret", dead_childs_get_sees_no_secret, BIT(MAPCOUNT)},
	{"a dead child's pin sees no secret", dead_childs_pin_sees_no_secret, BIT(MAPCOUNT) | BIT(REUSE_PINNED)},
	{"a write pin survives fork", write_pin_survives_fork,
	 BIT(MAPCOUNT) | BIT(FORCE_COW) | BIT(REFCOUNT) | BIT(PIN_BREAKS_COW) | BIT(REUSE_PINNED)},
	{"a write pin survives fork and exit", write_pin_survives_fork_and_exit, BIT(REFCOUNT) | BIT(PIN_BREAKS_COW)},
	{"a read pin after the child has gone", read_pin_after_the_child_has_gone,
	 BIT(REFCOUNT) | BIT(REFCOUNT_PIN) | BIT(DONTCOPY_PINNED)},
	{"a read pin while the child lives", read_pin_while_the_child_lives,
	 BIT(MAPCOUNT) | BIT(REFCOUNT) | BIT(REFCOUNT_PIN) | BIT(REUSE_PINNED) | BIT(DONTCOPY_PINNED)},
	{"a write pin survives an mprotect detour", write_pin_survives_an_mprotect_detour,
	 BIT(REFCOUNT) | BIT(REFCOUNT_PIN) | BIT(PIN_BREAKS_COW) | BIT(DONTCOPY_PINNED)},
	{"the child has pinned memory", child_has_pinned_memory, BIT(DONTCOPY_PINNED)},
};
enum { SCENARIOS = sizeof(scenarios) / sizeof(scenarios[0]) };

static bool kept_under(const struct scenario *scenario, enum ucow_policy policy)
{
	struct stage s = {.w = world_open_policy(policy)};
	bool kept;

	s.va = map_private(s.w.mm, 1);
	put64(s.w.cpu, s.va, 1);
	kept = scenario->run(&s);
	if (s.child)
		REQUIRE_EQ(ucow_mm_destroy(s.child), 0);
	world_close(&s.w);
	return kept;
}

/* Both ways: what is listed breaks, and nothing else does. */
static void check_policy(enum ucow_policy policy)
{
	for (int i = 0; i < SCENARIOS; i++) {
		bool broken = scenarios[i].broken >> policy & 1;

		if (kept_under(&scenarios[i], policy) == broken)
			TAP_FAIL("%s: %s, %s", ucow_policy_name(policy), scenarios[i].name,
				 broken ? "should break" : "should hold");
	}
}

TEST(exclusive_keeps_every_promise)
{
	for (int i = 0; i < SCENARIOS; i++)
		CHECK(!(scenarios[i].broken & BIT(EXCLUSIVE)));
	check_policy(UCOW_POLICY_EXCLUSIVE);
}

TEST(mapcount_leaks_and_loses_pins_of_shared_pages)
{
	check_policy(UCOW_POLICY_MAPCOUNT);
}

TEST(force_cow_still_loses_pins_at_fork)
{
	check_policy(UCOW_POLICY_FORCE_COW);
}

TEST(refcount_loses_pins_everywhere)
{
	check_policy(UCOW_POLICY_REFCOUNT);
}

TEST(refcount_pin_loses_read_pins_and_detours)
{
	check_policy(UCOW_POLICY_REFCOUNT_PIN);
}

TEST(pin_breaks_cow_forgets_fork)
{
	check_policy(UCOW_POLICY_PIN_BREAKS_COW);
}

TEST(reuse_pinned_leaks_through_pins)
{
	check_policy(UCOW_POLICY_REUSE_PINNED);
}

TEST(dontcopy_pinned_takes_memory_from_the_child)
{
	check_policy(UCOW_POLICY_DONTCOPY_PINNED);
}

/* A page with a thousand plain references in a space that once pinned: copied as if pinned, and counted as a mistake.
 */
TEST(false_positives_at_fork_are_counted)
{
	static const enum ucow_policy policies[] = {UCOW_POLICY_EXCLUSIVE, UCOW_POLICY_REFCOUNT_PIN,
						    UCOW_POLICY_DONTCOPY_PINNED};

	for (int i = 0; i < 3; i++) {
		struct world w = world_open_policy(policies[i]);
		uint64_t va = map_private(w.mm, 1);
		static struct ucow_page *pages[UCOW_GUP_PIN_COUNTING_BIAS];
		struct ucow_page *pin;
		struct ucow_mm *child;

		put64(w.cpu, va, 1);
		pin = pin_page(w.cpu, va, UCOW_FOLL_WRITE);
		ucow_unpin_user_pages(&pin, 1);
		for (unsigned k = 0; k < UCOW_GUP_PIN_COUNTING_BIAS; k++)
			pages[k] = get_page(w.cpu, va, 0);
		child = fork_mm(w.mm);
		CHECK_EQ(counted(&w, UCOW_COUNTER_PIN_FALSE_POSITIVE), 1);
		CHECK_EQ(counted(&w, UCOW_COUNTER_EARLY_COPY), policies[i] == UCOW_POLICY_DONTCOPY_PINNED ? 0 : 1);
		ucow_put_pages(pages, UCOW_GUP_PIN_COUNTING_BIAS);
		CHECK_EQ(ucow_mm_destroy(child), 0);
		world_close(&w);
	}
}

/* Isolation without devices is no matter of policy: plain fork and write are right under all of them. */
TEST(plain_copy_on_write_is_right_under_every_policy)
{
	for (int policy = 0; policy < UCOW_POLICY_COUNT; policy++) {
		struct world w = world_open_policy(policy);
		uint64_t va = map_private(w.mm, 40);
		struct ucow_mm *child;

		for (unsigned i = 0; i < 40; i++)
			put64(w.cpu, va + i * PAGE, i + 1);
		child = fork_mm(w.mm);
		for (unsigned i = 0; i < 40; i += 2)
			put64(w.cpu, va + i * PAGE, 100);
		ucow_cpu_attach(w.cpu, child);
		for (unsigned i = 1; i < 40; i += 2)
			put64(w.cpu, va + i * PAGE, 200);
		for (unsigned i = 0; i < 40; i++)
			CHECK_EQ(get64(w.cpu, va + i * PAGE), i % 2 ? 200 : i + 1);
		ucow_cpu_attach(w.cpu, w.mm);
		for (unsigned i = 0; i < 40; i++)
			CHECK_EQ(get64(w.cpu, va + i * PAGE), i % 2 ? i + 1 : 100);
		CHECK_EQ(ucow_mm_destroy(child), 0);
		world_close(&w);
	}
}

TAP_MAIN()
