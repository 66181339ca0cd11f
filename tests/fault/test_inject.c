/* SPDX-License-Identifier: MIT */
/*
 * The N-th allocation fails, or the N-th page is beyond the limit of the space's memory group, for N = 1, 2, 3, ...
 * until an operation needs fewer: after each failure the error is -ENOMEM, every space and every pin is as it was, the
 * invariants hold, the operation succeeds when repeated, and in the end nothing is left.
 */
#include "fixture.h"

enum { WINDOW = 96, SPACES = 2, MAX_N = 2000 };
#define FAR ((uint64_t)1 << 40)

/* What a page looks like from outside. */
struct look {
	bool mapped, special;
	unsigned prot;
	uint64_t hash; /* of the bytes; 0: zeros */
};

struct scene {
	struct world w;
	struct ucow_memcg *memcg; /* which all spaces are members of */
	const char *ram;
	struct ucow_mm *other; /* a child, in scenarios that need one */
	struct ucow_page *pins[8];
	unsigned npins;
	struct look before[SPACES][2 * WINDOW];
	uint64_t mappings[SPACES]; /* their number: a split that stays is a change */
	/* What the operation made, to be taken down again. */
	struct ucow_mm *made;
	struct ucow_cpu *made_cpu;
	struct ucow_page *taken[8];
	unsigned ntaken;
	bool taken_by_get;
};

/* What a failed allocation means to an operation. */
enum lack {
	FAILS,       /* -ENOMEM, and nothing has changed */
	SHRUGS,      /* that, or success: populate */
	SUCCEEDS,    /* it frees memory: there is a reserve */
	FAILS_ABOUT, /* as FAILS; giving frames back on its way, it meets a limit later than that */
};

struct scenario {
	void (*prepare)(struct scene *s);
	int (*run)(struct scene *s);
	void (*verify)(struct scene *s); /* of the result of success; may be NULL */
	enum lack lack;
};

/* Tables that the first change to a path after a fork takes: all of it, the block and the leaf, or none. */
#define UNSHARE (fork_is_lazy() ? 6u : fork_is_eager() ? 0u : 2u)

static uint8_t device[4096] __attribute__((aligned(4096)));

/* ---- looking ---- */

static uint64_t hash_bytes(const uint64_t *words)
{
	uint64_t hash = 0;

	for (unsigned i = 0; i < 512; i++)
		hash = hash * 31 + words[i];
	return hash;
}

/* Without faulting anything in: what is not present is zeros (all shared memory here is present). */
static struct look look_at(const struct scene *s, struct ucow_mm *mm, uint64_t va)
{
	struct ucow_entry_info e = query(mm, va);
	struct look look = {.mapped = e.mapped, .prot = e.mapped ? e.prot : 0};

	look.special = e.present && e.special && !e.zero_page;
	if (e.present && !look.special)
		look.hash = hash_bytes((const uint64_t *)(const void *)(s->ram + e.pfn * PAGE));
	return look;
}

/* Pages around BASE, where everything happens, and around FAR, where things are moved to. */
static uint64_t page_in_view(unsigned i)
{
	return i < WINDOW ? BASE + (i - WINDOW / 4) * PAGE : FAR + (i - WINDOW - WINDOW / 4) * PAGE;
}

static struct ucow_mm *space(const struct scene *s, unsigned i)
{
	return i ? s->other : s->w.mm;
}

static uint64_t mappings_of(struct ucow_mm *mm)
{
	struct ucow_mm_stat stat;

	ucow_mm_stat(mm, &stat);
	return stat.mappings;
}

static void remember(struct scene *s)
{
	for (unsigned i = 0; i < SPACES && space(s, i); i++) {
		s->mappings[i] = mappings_of(space(s, i));
		for (unsigned k = 0; k < 2 * WINDOW; k++)
			s->before[i][k] = look_at(s, space(s, i), page_in_view(k));
	}
}

static bool looks_as_before(const struct scene *s, unsigned i, unsigned k)
{
	struct look now = look_at(s, space(s, i), page_in_view(k)), then = s->before[i][k];

	if (now.mapped == then.mapped && now.prot == then.prot && now.hash == then.hash && now.special == then.special)
		return true;
	printf("# space %u, page %#" PRIx64 ": mapped %d, was %d; prot %u, was %u; hash %" PRIx64 ", was %" PRIx64 "\n",
	       i, page_in_view(k), now.mapped, then.mapped, now.prot, then.prot, now.hash, then.hash);
	return false;
}

static void check_unchanged(const struct scene *s)
{
	for (unsigned i = 0; i < SPACES && space(s, i); i++) {
		REQUIRE_EQ(mappings_of(space(s, i)), s->mappings[i]);
		for (unsigned k = 0; k < 2 * WINDOW; k++)
			REQUIRE(looks_as_before(s, i, k));
	}
}

/* Pins lie on the first pages of the first space. Coherent in both directions, and the child does not see it. */
static void check_pins(const struct scene *s)
{
	for (unsigned i = 0; i < s->npins; i++) {
		uint64_t was = device_read64(s->pins[i]);

		REQUIRE_EQ(get64(s->w.cpu, BASE + i * PAGE), was);
		device_write64(s->pins[i], was + 1);
		REQUIRE_EQ(get64(s->w.cpu, BASE + i * PAGE), was + 1);
		put64(s->w.cpu, BASE + i * PAGE, was);
		REQUIRE_EQ(device_read64(s->pins[i]), was);
	}
}

/* ---- the loop ---- */

/* Checks look at every frame: few frames, for every scene is opened hundreds of times. */
static struct world small_world(void)
{
	struct ucow_machine_options options = default_options();

	options.ram_bytes = (uint64_t)4 << 20;
	return world_open_with(&options);
}

static struct scene open_scene(const struct scenario *scenario)
{
	struct scene s = {.w = small_world()};

	s.ram = ram_of(s.w.machine);
	REQUIRE_EQ(ucow_memcg_create(s.w.machine, NULL, UCOW_MEMCG_NO_LIMIT, UCOW_MEMCG_NO_LIMIT, &s.memcg), 0);
	REQUIRE_EQ(ucow_mm_join(s.w.mm, s.memcg), 0);
	scenario->prepare(&s);
	remember(&s);
	return s;
}

static void undo(struct scene *s)
{
	if (s->taken_by_get)
		ucow_put_pages(s->taken, s->ntaken);
	else
		ucow_unpin_user_pages(s->taken, s->ntaken);
	s->ntaken = 0;
	ucow_cpu_destroy(s->made_cpu);
	s->made_cpu = NULL;
	if (s->made)
		REQUIRE_EQ(ucow_mm_destroy(s->made), 0);
	s->made = NULL;
}

static void close_scene(struct scene *s)
{
	undo(s);
	ucow_unpin_user_pages(s->pins, s->npins);
	if (s->other)
		REQUIRE_EQ(ucow_mm_destroy(s->other), 0);
	world_close(&s->w);
}

static void check_failure(const struct scenario *scenario, struct scene *s, int rc, bool look)
{
	if (scenario->lack == SUCCEEDS || (scenario->lack == SHRUGS && rc == 0))
		REQUIRE_EQ(rc, 0);
	else
		REQUIRE_EQ(rc, -ENOMEM);
	check_invariants(s->w.machine);
	if (rc) {
		if (look) {
			check_unchanged(s);
			check_pins(s);
		}
		REQUIRE_EQ(scenario->run(s), 0);
	}
	if (scenario->verify)
		scenario->verify(s);
	check_invariants(s->w.machine);
	if (s->npins)
		check_pins(s);
}

/* Instead of injection: the spaces' group has room for N - 1 pages more. */
#define BY_LIMIT 0

static struct ucow_memcg_stat memcg_of(const struct scene *s)
{
	struct ucow_memcg_stat stat;

	ucow_memcg_stat(s->memcg, &stat);
	return stat;
}

static void arm(struct scene *s, unsigned kinds, uint64_t nth)
{
	ucow_machine_synchronize(s->w.machine);
	if (kinds == BY_LIMIT)
		REQUIRE_EQ(ucow_memcg_set_limit(s->memcg, memcg_of(s).usage + nth - 1, UCOW_MEMCG_NO_LIMIT), 0);
	else
		ucow_machine_inject(s->w.machine, kinds, nth);
}

/* Returns: whether an allocation failed. */
static bool disarm(struct scene *s, unsigned kinds)
{
	if (kinds != BY_LIMIT)
		return !ucow_machine_inject(s->w.machine, UCOW_INJECT_ALL, 0);
	REQUIRE_EQ(ucow_memcg_set_limit(s->memcg, UCOW_MEMCG_NO_LIMIT, UCOW_MEMCG_NO_LIMIT), 0);
	return memcg_of(s).oom_events != 0;
}

/* One N. Returns whether an allocation failed; if not, the operation needs fewer than N. */
static bool check_nth(const struct scenario *scenario, unsigned kinds, uint64_t nth, bool look)
{
	struct scene s = open_scene(scenario);
	bool fired;
	int rc;

	arm(&s, kinds, nth);
	rc = scenario->run(&s);
	fired = disarm(&s, kinds);
	if (fired)
		check_failure(scenario, &s, rc, look);
	else
		REQUIRE_EQ(rc, 0);
	close_scene(&s);
	return fired;
}

/* Pins are tried by stores, so that repeating is tried with and without that. */
static unsigned count_failures(const struct scenario *scenario, unsigned kinds)
{
	unsigned n = 0;

	while (check_nth(scenario, kinds, n + 1, true)) {
		REQUIRE(check_nth(scenario, kinds, n + 1, false));
		REQUIRE(++n < MAX_N);
	}
	return n;
}

/*
 * @least: so many allocations must have been made to fail; would catch a scenario that does not reach them. All frames
 * that fail are for spaces, and so charged.
 */
static void check_scenario(const struct scenario *scenario, unsigned least)
{
	unsigned n = count_failures(scenario, UCOW_INJECT_ALL), frames = count_failures(scenario, UCOW_INJECT_FRAME);
	unsigned limited;

	count_failures(scenario, UCOW_INJECT_TABLE);
	count_failures(scenario, UCOW_INJECT_OTHER);
	limited = count_failures(scenario, BY_LIMIT);
	CHECK(scenario->lack == FAILS_ABOUT ? limited && limited <= frames : limited == frames);
	printf("# %u allocations failed, %u of them frames\n", n, frames);
	CHECK(n >= least);
}

/* ---- scenes ---- */

static void prepare_nothing(struct scene *s)
{
	(void)s;
}

static void prepare_mapping(struct scene *s)
{
	map_private(s->w.mm, 40);
}

static void prepare_pages(struct scene *s)
{
	map_private(s->w.mm, 40);
	for (unsigned i = 0; i < 40; i++)
		put64(s->w.cpu, BASE + i * PAGE, i + 1);
}

static void prepare_child(struct scene *s)
{
	prepare_pages(s);
	s->other = fork_mm(s->w.mm);
}

static void prepare_pins(struct scene *s)
{
	prepare_pages(s);
	REQUIRE_EQ(ucow_pin_user_pages(s->w.cpu, BASE, 5, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM, s->pins), 5);
	s->npins = 5;
}

static void prepare_shared(struct scene *s)
{
	map_shared(s->w.mm, 8);
	for (unsigned i = 0; i < 8; i++)
		put64(s->w.cpu, BASE + i * PAGE, i + 1);
}

/* Several mappings of different kinds, near and far. */
static void prepare_variety(struct scene *s)
{
	prepare_pins(s);
	map_at(s->w.mm, BASE + 44 * PAGE, 4, RW, UCOW_MAP_SHARED);
	map_at(s->w.mm, FAR, 3, RW, UCOW_MAP_PRIVATE);
	for (unsigned i = 0; i < 4; i++)
		put64(s->w.cpu, BASE + (44 + i) * PAGE, 7);
	put64(s->w.cpu, FAR + PAGE, 8);
	REQUIRE_EQ(ucow_mprotect(s->w.mm, BASE + 20 * PAGE, 5 * PAGE, UCOW_PROT_READ), 0);
}

/* ---- faults ---- */

static int run_store(struct scene *s)
{
	return ucow_store_u64(s->w.cpu, BASE + 3 * PAGE, 77);
}

static void verify_store(struct scene *s)
{
	REQUIRE_EQ(get64(s->w.cpu, BASE + 3 * PAGE), 77);
	if (!s->other)
		return;
	ucow_cpu_attach(s->w.cpu, s->other);
	REQUIRE_EQ(get64(s->w.cpu, BASE + 3 * PAGE), 4);
	ucow_cpu_attach(s->w.cpu, s->w.mm);
}

TEST(write_fault)
{
	check_scenario(&(struct scenario){prepare_mapping, run_store, verify_store, FAILS}, 3);
}

TEST(cow_fault)
{
	check_scenario(&(struct scenario){prepare_child, run_store, verify_store, FAILS}, UNSHARE + 1);
}

static int run_load(struct scene *s)
{
	uint64_t value = 99;
	int rc = ucow_load_u64(s->w.cpu, BASE + 3 * PAGE, &value);

	REQUIRE(rc || value == 0);
	return rc;
}

/* Reading needs tables, but no frame: the zero page is there. */
TEST(read_fault)
{
	check_scenario(&(struct scenario){prepare_mapping, run_load, NULL, FAILS}, 2);
}

static int run_cmpxchg(struct scene *s)
{
	uint64_t expected = 4;
	bool exchanged = false;
	int rc = ucow_cmpxchg_u64(s->w.cpu, BASE + 3 * PAGE, &expected, 77, &exchanged);

	REQUIRE(rc || exchanged);
	return rc;
}

TEST(compare_exchange)
{
	check_scenario(&(struct scenario){prepare_child, run_cmpxchg, verify_store, FAILS}, 1);
}

static int run_span(struct scene *s)
{
	uint64_t value = 77;
	void *span;
	int rc = ucow_span_begin(s->w.cpu, BASE + 3 * PAGE, 8, true, &span);

	if (rc)
		return rc;
	memcpy(span, &value, 8);
	ucow_span_end(s->w.cpu);
	return 0;
}

TEST(span)
{
	check_scenario(&(struct scenario){prepare_child, run_span, verify_store, FAILS}, 1);
}

/* A long write stops where memory ends, and says where. Its first part stays written: only its end is repeated. */
TEST(long_write_reports_its_progress)
{
	for (uint64_t nth = 1;; nth++) {
		struct world w = world_open();
		uint64_t va = map_private(w.mm, 40);
		static uint8_t bytes[30 * 4096];
		size_t done = 0, rest = 0;
		int rc;

		memset(bytes, 0x77, sizeof(bytes));
		ucow_machine_inject(w.machine, UCOW_INJECT_ALL, nth);
		rc = ucow_write(w.cpu, va + 8, bytes, sizeof(bytes), &done);
		if (ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 0)) {
			CHECK_EQ(rc, 0);
			CHECK(nth > 30);
			world_close(&w);
			return;
		}
		CHECK_EQ(rc, -ENOMEM);
		CHECK(done < sizeof(bytes) && (done == 0 || (done + 8) % 4096 == 0));
		CHECK_EQ(ucow_write(w.cpu, va + 8 + done, bytes + done, sizeof(bytes) - done, &rest), 0);
		CHECK_EQ(done + rest, sizeof(bytes));
		for (unsigned i = 0; i < 30; i++)
			CHECK_EQ(get64(w.cpu, va + 8 + i * PAGE), 0x7777777777777777);
		world_close(&w);
	}
}

/* ---- fork ---- */

static int run_fork(struct scene *s)
{
	return ucow_fork(s->w.mm, &s->made);
}

/* The child has what the parent has, page by page, and its stores stay its own. */
static void verify_fork(struct scene *s)
{
	for (unsigned k = 0; k < 2 * WINDOW; k++) {
		uint64_t va = page_in_view(k);
		struct look parent = look_at(s, s->w.mm, va), child = look_at(s, s->made, va);

		REQUIRE_EQ(child.mapped, parent.mapped);
		REQUIRE_EQ(child.prot, parent.prot);
		if (!child.hash && query(s->made, va).mapped && !query(s->made, va).present)
			continue; /* shared memory starts empty */
		REQUIRE_EQ(child.hash, parent.hash);
	}
	ucow_cpu_attach(s->w.cpu, s->made);
	put64(s->w.cpu, BASE, 1234);
	ucow_cpu_attach(s->w.cpu, s->w.mm);
	if (!query(s->w.mm, BASE).anon)
		return;
	REQUIRE(get64(s->w.cpu, BASE) != 1234);
}

TEST(fork_of_many_pages)
{
	check_scenario(&(struct scenario){prepare_pages, run_fork, verify_fork, FAILS}, fork_is_lazy() ? 2 : 5);
}

TEST(fork_with_pins)
{
	check_scenario(&(struct scenario){prepare_pins, run_fork, verify_fork, FAILS}, 10);
}

TEST(fork_of_a_variety_of_mappings)
{
	check_scenario(&(struct scenario){prepare_variety, run_fork, verify_fork, FAILS}, 12);
}

TEST(fork_of_shared_memory)
{
	check_scenario(&(struct scenario){prepare_shared, run_fork, NULL, FAILS}, 2);
}

TEST(second_fork)
{
	check_scenario(&(struct scenario){prepare_child, run_fork, verify_fork, FAILS}, fork_is_lazy() ? 2 : 5);
}

/* Through exhaustion instead of injection: RAM holds the parent and not the early copies. */
TEST(fork_that_finds_no_frames_for_early_copies)
{
	struct ucow_machine_options options = default_options();
	static struct ucow_page *pages[300];
	struct ucow_mm *child = NULL;
	struct world w;
	uint64_t va;

	options.ram_bytes = (uint64_t)2 << 20;
	w = world_open_with(&options);
	va = map_private(w.mm, 300);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 300, UCOW_FOLL_WRITE, pages), 300);
	for (unsigned i = 0; i < 300; i++)
		put64(w.cpu, va + i * PAGE, i);
	CHECK_EQ(ucow_fork(w.mm, &child), -ENOMEM);
	CHECK(child == NULL);
	check_invariants(w.machine);
	for (unsigned i = 0; i < 300; i++) {
		device_write64(pages[i], 1000 + i);
		CHECK_EQ(get64(w.cpu, va + i * PAGE), 1000 + i);
	}
	ucow_unpin_user_pages(pages, 300);
	CHECK_EQ(ucow_fork(w.mm, &child), 0);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* ---- merging ---- */

/* Equal pages by threes, with a child that shares some of them, and zeros at the end. */
static void prepare_mergeable(struct scene *s)
{
	const struct ucow_ksm_options options = {
		.size = sizeof(options), .use_zero_pages = true, .max_page_sharing = 4};

	REQUIRE_EQ(ucow_ksm_configure(s->w.machine, &options), 0);
	map_private(s->w.mm, 40);
	REQUIRE_EQ(ucow_madvise(s->w.mm, BASE, 40 * PAGE, UCOW_MADV_MERGEABLE), 0);
	for (unsigned i = 0; i < 40; i++)
		put64(s->w.cpu, BASE + i * PAGE, i < 36 ? 1 + i % 3 : 0);
	s->other = fork_mm(s->w.mm);
	ucow_cpu_attach(s->w.cpu, s->other);
	put64(s->w.cpu, BASE, 77);
	ucow_cpu_attach(s->w.cpu, s->w.mm);
}

/* Not the first call, which makes the scanner. */
static void prepare_scanner(struct scene *s)
{
	map_private(s->w.mm, 4);
}

static bool ksm_is_built(void)
{
	struct world w = world_open();
	int rc = ucow_ksm_scan(w.machine, 1, NULL);

	world_close(&w);
	return rc != -EOPNOTSUPP;
}

static int run_configure(struct scene *s)
{
	const struct ucow_ksm_options options = {.size = sizeof(options)};

	return ucow_ksm_configure(s->w.machine, &options);
}

TEST(first_use_of_the_scanner)
{
	if (!ksm_is_built())
		SKIP("built without xxhash");
	check_scenario(&(struct scenario){prepare_scanner, run_configure, NULL, FAILS}, 1);
}

static int run_start(struct scene *s)
{
	return ucow_ksm_start(s->w.machine);
}

static void verify_start(struct scene *s)
{
	REQUIRE_EQ(ucow_ksm_start(s->w.machine), -EBUSY);
	ucow_ksm_stop(s->w.machine);
}

TEST(start_of_the_scanning_thread)
{
	if (!ksm_is_built())
		SKIP("built without xxhash");
	check_scenario(&(struct scenario){prepare_scanner, run_start, verify_start, FAILS}, 2);
}

static int run_merge(struct scene *s)
{
	return ucow_ksm_merge(s->w.machine, NULL);
}

/* All that can be is merged after all, with what was merged before memory ran out. */
static void verify_merge(struct scene *s)
{
	struct ucow_ksm_stat stat;

	ucow_ksm_stat(s->w.machine, &stat);
	REQUIRE(stat.pages_sharing >= 40);
	REQUIRE(stat.zero_pages == 8);
	for (unsigned i = 0; i < 40; i++)
		REQUIRE_EQ(get64(s->w.cpu, BASE + i * PAGE), i < 36 ? 1 + i % 3 : 0);
}

/* A part may be done, of which programs see nothing; what only makes searches longer is not missed. */
TEST(merging)
{
	if (!ksm_is_built())
		SKIP("built without xxhash");
	check_scenario(&(struct scenario){prepare_mergeable, run_merge, verify_merge, SHRUGS}, 10);
}

static void prepare_merged(struct scene *s)
{
	prepare_mergeable(s);
	REQUIRE_EQ(ucow_ksm_merge(s->w.machine, NULL), 0);
}

static int run_unmerge(struct scene *s)
{
	return ucow_ksm_unmerge(s->w.machine);
}

static void verify_unmerge(struct scene *s)
{
	struct ucow_ksm_stat stat;

	ucow_ksm_stat(s->w.machine, &stat);
	REQUIRE(!stat.pages_shared && !stat.zero_pages);
}

TEST(unmerging)
{
	if (!ksm_is_built())
		SKIP("built without xxhash");
	check_scenario(&(struct scenario){prepare_merged, run_unmerge, verify_unmerge, FAILS_ABOUT}, 40);
}

static int run_unmergeable(struct scene *s)
{
	return ucow_madvise(s->w.mm, BASE, 40 * PAGE, UCOW_MADV_UNMERGEABLE);
}

static void verify_unmergeable(struct scene *s)
{
	for (unsigned i = 0; i < 40; i++)
		REQUIRE(!query(s->w.mm, BASE + i * PAGE).ksm);
}

TEST(advice_unmergeable)
{
	if (!ksm_is_built())
		SKIP("built without xxhash");
	check_scenario(&(struct scenario){prepare_merged, run_unmergeable, verify_unmergeable, FAILS}, 40);
}

TEST(cow_fault_of_a_merged_page)
{
	if (!ksm_is_built())
		SKIP("built without xxhash");
	check_scenario(&(struct scenario){prepare_merged, run_store, NULL, FAILS}, 1);
}

/* ---- references ---- */

/* All or nothing for the loop's sake: a partial result counts as the error that cut it short. */
static int took(struct scene *s, long got, long wanted, bool get)
{
	s->taken_by_get = get;
	s->ntaken = got > 0 ? (unsigned)got : 0;
	if (got == wanted)
		return 0;
	undo(s);
	return got < 0 ? (int)got : -ENOMEM;
}

static int run_read_pin(struct scene *s)
{
	return took(s, ucow_pin_user_pages(s->w.cpu, BASE + 2 * PAGE, 4, 0, s->taken), 4, false);
}

/* The pin had to unshare: it sees the next store. */
static void verify_read_pin(struct scene *s)
{
	for (unsigned i = 0; i < 4; i++) {
		put64(s->w.cpu, BASE + (2 + i) * PAGE, 500 + i);
		REQUIRE_EQ(device_read64(s->taken[i]), 500 + i);
		put64(s->w.cpu, BASE + (2 + i) * PAGE, i + 3);
	}
}

TEST(unshare_for_a_read_pin)
{
	check_scenario(&(struct scenario){prepare_child, run_read_pin, verify_read_pin, FAILS}, 4);
}

static int run_write_pin(struct scene *s)
{
	return took(s, ucow_pin_user_pages_fast(s->w.cpu, BASE, 8, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM, s->taken), 8,
		    false);
}

TEST(write_pin_of_untouched_memory)
{
	check_scenario(&(struct scenario){prepare_mapping, run_write_pin, NULL, FAILS}, 10);
}

TEST(write_pin_of_shared_pages)
{
	check_scenario(&(struct scenario){prepare_child, run_write_pin, NULL, FAILS}, 8);
}

static int run_zero_page_pin(struct scene *s)
{
	return took(s, ucow_pin_user_pages(s->w.cpu, BASE, 3, UCOW_FOLL_LONGTERM, s->taken), 3, false);
}

TEST(long_term_pin_of_the_zero_page)
{
	check_scenario(&(struct scenario){prepare_mapping, run_zero_page_pin, NULL, FAILS}, 5);
}

static int run_remote_get(struct scene *s)
{
	return took(s, ucow_get_user_pages_remote(s->other, BASE, 4, UCOW_FOLL_WRITE, s->taken), 4, true);
}

TEST(remote_write_get)
{
	check_scenario(&(struct scenario){prepare_child, run_remote_get, NULL, FAILS}, 4);
}

static void prepare_readonly_child(struct scene *s)
{
	prepare_pages(s);
	REQUIRE_EQ(ucow_mprotect(s->w.mm, BASE, 40 * PAGE, UCOW_PROT_READ), 0);
	s->other = fork_mm(s->w.mm);
}

static int run_poke(struct scene *s)
{
	return took(s, ucow_get_user_pages_remote(s->w.mm, BASE, 2, UCOW_FOLL_WRITE | UCOW_FOLL_FORCE, s->taken), 2,
		    true);
}

TEST(forced_write_to_shared_pages)
{
	check_scenario(&(struct scenario){prepare_readonly_child, run_poke, NULL, FAILS}, 2);
}

/* Pins of one shared page through two spaces need a note of who holds what. */
static void prepare_pinned_shared(struct scene *s)
{
	prepare_shared(s);
	s->other = fork_mm(s->w.mm);
	REQUIRE_EQ(ucow_pin_user_pages_remote(s->other, BASE, 2, UCOW_FOLL_WRITE, s->pins), 2);
	s->npins = 2;
}

static int run_pin_shared(struct scene *s)
{
	return took(s, ucow_pin_user_pages(s->w.cpu, BASE, 2, UCOW_FOLL_WRITE, s->taken), 2, false);
}

TEST(pin_through_a_second_space)
{
	check_scenario(&(struct scenario){prepare_pinned_shared, run_pin_shared, NULL, FAILS}, 1);
}

/* ---- mappings ---- */

static int run_mmap(struct scene *s)
{
	uint64_t va;

	return ucow_mmap(s->w.mm, BASE + 10 * PAGE, 4 * PAGE, RW, UCOW_MAP_PRIVATE | UCOW_MAP_FIXED, &va);
}

TEST(mmap_into_nothing)
{
	check_scenario(&(struct scenario){prepare_nothing, run_mmap, NULL, FAILS}, 1);
}

/* Replacing the middle of a mapping splits it: if that fails, the old pages are still there. */
TEST(mmap_over_something)
{
	check_scenario(&(struct scenario){prepare_pins, run_mmap, NULL, FAILS}, 1);
}

static int run_mmap_shared(struct scene *s)
{
	uint64_t va;

	return ucow_mmap(s->w.mm, BASE + 10 * PAGE, 4 * PAGE, RW, UCOW_MAP_SHARED | UCOW_MAP_FIXED, &va);
}

TEST(mmap_of_shared_memory)
{
	check_scenario(&(struct scenario){prepare_pages, run_mmap_shared, NULL, FAILS}, 2);
}

static int run_mmap_populate(struct scene *s)
{
	uint64_t va;
	unsigned flags = UCOW_MAP_PRIVATE | UCOW_MAP_FIXED | UCOW_MAP_POPULATE;

	return ucow_mmap(s->w.mm, BASE, 20 * PAGE, RW, flags, &va);
}

static void verify_mapped(struct scene *s)
{
	for (unsigned i = 0; i < 20; i++) {
		REQUIRE_EQ(get64(s->w.cpu, BASE + i * PAGE), 0);
		put64(s->w.cpu, BASE + i * PAGE, i);
	}
}

/* Failing to populate is not reported; failing to map is. */
TEST(mmap_populate)
{
	check_scenario(&(struct scenario){prepare_nothing, run_mmap_populate, verify_mapped, SHRUGS}, 20);
}

static int run_madvise_populate(struct scene *s)
{
	return ucow_madvise(s->w.mm, BASE, 10 * PAGE, UCOW_MADV_POPULATE_WRITE);
}

static void verify_populated(struct scene *s)
{
	for (unsigned i = 0; i < 10; i++)
		REQUIRE(query(s->w.mm, BASE + i * PAGE).writable);
}

TEST(populate_write)
{
	check_scenario(&(struct scenario){prepare_mapping, run_madvise_populate, verify_populated, FAILS}, 10);
}

TEST(populate_write_of_shared_pages)
{
	check_scenario(&(struct scenario){prepare_child, run_madvise_populate, verify_populated, FAILS}, 10);
}

static void prepare_shared_empty(struct scene *s)
{
	map_shared(s->w.mm, 8);
}

static void verify_shared_store(struct scene *s)
{
	REQUIRE_EQ(get64(s->w.cpu, BASE + 3 * PAGE), 77);
	REQUIRE_EQ(get64(s->w.cpu, BASE + 4 * PAGE), 0);
}

TEST(first_store_to_shared_memory)
{
	check_scenario(&(struct scenario){prepare_shared_empty, run_store, verify_shared_store, FAILS}, 3);
}

static int run_munmap_middle(struct scene *s)
{
	return ucow_munmap(s->w.mm, BASE + 10 * PAGE, 5 * PAGE);
}

static void verify_munmap_middle(struct scene *s)
{
	for (unsigned i = 0; i < 40; i++)
		REQUIRE_EQ(query(s->w.mm, BASE + i * PAGE).mapped, i < 10 || i >= 15);
	REQUIRE_EQ(get64(s->w.cpu, BASE + 9 * PAGE), 10);
	REQUIRE_EQ(get64(s->w.cpu, BASE + 15 * PAGE), 16);
}

TEST(munmap_that_splits)
{
	check_scenario(&(struct scenario){prepare_pins, run_munmap_middle, verify_munmap_middle, FAILS}, 1);
}

static int run_munmap_all(struct scene *s)
{
	return ucow_munmap(s->w.mm, BASE, 60 * PAGE);
}

/* Freeing memory whole mappings at a time must not fail for lack of it. */
TEST(munmap_that_does_not_split_needs_no_memory)
{
	check_scenario(&(struct scenario){prepare_child, run_munmap_all, NULL, SUCCEEDS}, 0);
}

static int run_dontneed(struct scene *s)
{
	return ucow_madvise(s->w.mm, BASE + 8 * PAGE, 20 * PAGE, UCOW_MADV_DONTNEED);
}

static void verify_dontneed(struct scene *s)
{
	REQUIRE_EQ(get64(s->w.cpu, BASE + 7 * PAGE), 8);
	REQUIRE_EQ(get64(s->w.cpu, BASE + 8 * PAGE), 0);
}

TEST(dontneed_needs_no_memory)
{
	check_scenario(&(struct scenario){prepare_child, run_dontneed, verify_dontneed, SUCCEEDS}, 0);
}

static int run_mprotect_middle(struct scene *s)
{
	return ucow_mprotect(s->w.mm, BASE + 10 * PAGE, 5 * PAGE, UCOW_PROT_READ);
}

TEST(mprotect_that_splits)
{
	check_scenario(&(struct scenario){prepare_pins, run_mprotect_middle, NULL, FAILS}, 2);
}

/* Across three mappings, the first and the last of which are split: all or nothing. */
static int run_mprotect_across(struct scene *s)
{
	return ucow_mprotect(s->w.mm, BASE + 10 * PAGE, 20 * PAGE, UCOW_PROT_NONE);
}

static void verify_mprotect_across(struct scene *s)
{
	for (unsigned i = 0; i < 40; i++)
		REQUIRE_EQ(query(s->w.mm, BASE + i * PAGE).prot, i < 10 || i >= 30 ? RW : UCOW_PROT_NONE);
}

TEST(mprotect_across_mappings)
{
	check_scenario(&(struct scenario){prepare_variety, run_mprotect_across, verify_mprotect_across, FAILS}, 2);
}

static int run_dontfork_middle(struct scene *s)
{
	return ucow_madvise(s->w.mm, BASE + 10 * PAGE, 5 * PAGE, UCOW_MADV_DONTFORK);
}

TEST(madvise_that_splits)
{
	check_scenario(&(struct scenario){prepare_pins, run_dontfork_middle, NULL, FAILS}, 2);
}

static int run_dontfork_across(struct scene *s)
{
	return ucow_madvise(s->w.mm, BASE + 10 * PAGE, 20 * PAGE, UCOW_MADV_DONTFORK);
}

/* The child misses the whole range or nothing. */
static unsigned missing_in_child(struct scene *s)
{
	struct ucow_mm *child = fork_mm(s->w.mm);
	unsigned missing = 0;

	for (unsigned i = 0; i < 40; i++)
		missing += !query(child, BASE + i * PAGE).mapped;
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
	return missing;
}

TEST(madvise_across_mappings)
{
	for (uint64_t nth = 1;; nth++) {
		struct scene s = {.w = small_world()};
		bool fired;
		int rc;

		prepare_variety(&s);
		ucow_machine_inject(s.w.machine, UCOW_INJECT_ALL, nth);
		rc = run_dontfork_across(&s);
		fired = !ucow_machine_inject(s.w.machine, UCOW_INJECT_ALL, 0);
		CHECK_EQ(rc, fired ? -ENOMEM : 0);
		CHECK_EQ(missing_in_child(&s), fired ? 0 : 20);
		close_scene(&s);
		if (!fired) {
			CHECK(nth > 2);
			return;
		}
	}
}

static int remap(struct scene *s, uint64_t old_n, uint64_t new_n, unsigned flags)
{
	uint64_t result;

	return ucow_mremap(s->w.mm, BASE, old_n * PAGE, new_n * PAGE, flags | UCOW_MREMAP_MAYMOVE, FAR, &result);
}

static int run_move(struct scene *s)
{
	return remap(s, 12, 12, UCOW_MREMAP_FIXED);
}

static void verify_move(struct scene *s)
{
	for (unsigned i = 0; i < 12; i++)
		REQUIRE_EQ(get64(s->w.cpu, FAR + i * PAGE), i + 1);
	for (unsigned i = 0; i < s->npins; i++) { /* the pins have moved along */
		device_write64(s->pins[i], 900 + i);
		REQUIRE_EQ(get64(s->w.cpu, FAR + i * PAGE), 900 + i);
	}
	ucow_unpin_user_pages(s->pins, s->npins);
	s->npins = 0;
}

TEST(mremap_to_a_place_without_tables)
{
	check_scenario(&(struct scenario){prepare_pins, run_move, verify_move, FAILS}, 4);
}

/* Three mappings by their protection. */
static void prepare_several(struct scene *s)
{
	prepare_pins(s);
	REQUIRE_EQ(ucow_mprotect(s->w.mm, BASE + 5 * PAGE, 3 * PAGE, UCOW_PROT_READ), 0);
}

TEST(mremap_of_several_mappings)
{
	check_scenario(&(struct scenario){prepare_several, run_move, verify_move, FAILS}, 6);
}

/* The target is emptied by the call; a failure must not have emptied it. */
static void prepare_target(struct scene *s)
{
	prepare_pins(s);
	map_at(s->w.mm, FAR - 2 * PAGE, 30, RW, UCOW_MAP_PRIVATE);
	for (unsigned i = 0; i < 30; i++)
		put64(s->w.cpu, FAR + i * PAGE - 2 * PAGE, 300 + i);
}

TEST(mremap_over_something)
{
	check_scenario(&(struct scenario){prepare_target, run_move, verify_move, FAILS}, 1);
}

static int run_move_and_grow(struct scene *s)
{
	return remap(s, 12, 40, UCOW_MREMAP_FIXED);
}

TEST(mremap_that_moves_and_grows)
{
	check_scenario(&(struct scenario){prepare_pins, run_move_and_grow, verify_move, FAILS}, 4);
}

static int run_move_and_shrink(struct scene *s)
{
	return remap(s, 30, 12, UCOW_MREMAP_FIXED);
}

TEST(mremap_that_moves_and_shrinks)
{
	check_scenario(&(struct scenario){prepare_pins, run_move_and_shrink, verify_move, FAILS}, 4);
}

static int run_dontunmap(struct scene *s)
{
	return remap(s, 12, 12, UCOW_MREMAP_FIXED | UCOW_MREMAP_DONTUNMAP);
}

TEST(mremap_dontunmap)
{
	check_scenario(&(struct scenario){prepare_pins, run_dontunmap, verify_move, FAILS}, 4);
}

static void prepare_shared_target(struct scene *s)
{
	prepare_shared(s);
	map_at(s->w.mm, FAR, 2, RW, UCOW_MAP_SHARED);
	put64(s->w.cpu, FAR, 5);
	put64(s->w.cpu, FAR + PAGE, 6);
}

static int run_move_shared(struct scene *s)
{
	return remap(s, 3, 3, UCOW_MREMAP_FIXED);
}

TEST(mremap_of_shared_memory)
{
	check_scenario(&(struct scenario){prepare_shared_target, run_move_shared, NULL, FAILS}, 1);
}

static int run_numa_hint(struct scene *s)
{
	return ucow_numa_hint(s->w.mm, BASE, 40 * PAGE);
}

TEST(numa_hint_needs_no_memory)
{
	check_scenario(&(struct scenario){prepare_pages, run_numa_hint, NULL, SUCCEEDS}, 0);
}

static void prepare_pfn(struct scene *s)
{
	map_at(s->w.mm, BASE, 4, RW, UCOW_MAP_PRIVATE | UCOW_MAP_PFN);
	device[0] = 42;
}

static int run_insert_pfn(struct scene *s)
{
	return ucow_insert_pfn(s->w.mm, BASE + PAGE, device);
}

static void verify_insert_pfn(struct scene *s)
{
	REQUIRE_EQ(get64(s->w.cpu, BASE + PAGE), 42);
}

TEST(insert_pfn)
{
	check_scenario(&(struct scenario){prepare_pfn, run_insert_pfn, verify_insert_pfn, FAILS}, 2);
}

static void prepare_pfn_page(struct scene *s)
{
	prepare_pfn(s);
	REQUIRE_EQ(ucow_insert_pfn(s->w.mm, BASE + 3 * PAGE, device), 0);
}

static void verify_pfn_store(struct scene *s)
{
	REQUIRE_EQ(get64(s->w.cpu, BASE + 3 * PAGE), 77);
	REQUIRE_EQ(device[0], 42);
}

TEST(private_store_to_a_pfn_mapping)
{
	check_scenario(&(struct scenario){prepare_pfn_page, run_store, verify_pfn_store, FAILS}, 1);
}

/* Parts of mappings that never merge, onto the middle of another one: a failure leaves neither of them cut. */
static void prepare_pfn_target(struct scene *s)
{
	prepare_pfn_page(s);
	map_at(s->w.mm, FAR - 4 * PAGE, 12, RW, UCOW_MAP_SHARED | UCOW_MAP_PFN);
	REQUIRE_EQ(ucow_insert_pfn(s->w.mm, FAR + PAGE, device), 0);
}

static int run_move_pfn(struct scene *s)
{
	uint64_t result;

	return ucow_mremap(s->w.mm, BASE + 2 * PAGE, 2 * PAGE, 2 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, FAR,
			   &result);
}

static void verify_move_pfn(struct scene *s)
{
	REQUIRE_EQ(get64(s->w.cpu, FAR + PAGE), 42);
	REQUIRE(!query(s->w.mm, BASE + 3 * PAGE).mapped);
}

TEST(mremap_of_a_part_of_a_pfn_mapping)
{
	check_scenario(&(struct scenario){prepare_pfn_target, run_move_pfn, verify_move_pfn, FAILS}, 3);
}

static int run_munmap_pfn(struct scene *s)
{
	return ucow_munmap(s->w.mm, BASE + PAGE, PAGE);
}

TEST(munmap_of_the_middle_of_a_pfn_mapping)
{
	check_scenario(&(struct scenario){prepare_pfn_page, run_munmap_pfn, NULL, FAILS}, 2);
}

static int run_mmap_over_pfn(struct scene *s)
{
	uint64_t va;

	return ucow_mmap(s->w.mm, BASE + PAGE, PAGE, RW, UCOW_MAP_SHARED | UCOW_MAP_FIXED, &va);
}

TEST(mmap_over_the_middle_of_a_pfn_mapping)
{
	check_scenario(&(struct scenario){prepare_pfn_page, run_mmap_over_pfn, NULL, FAILS}, 3);
}

TEST(fork_of_a_pfn_mapping)
{
	check_scenario(&(struct scenario){prepare_pfn_page, run_fork, NULL, FAILS}, fork_is_lazy() ? 2 : 3);
}

/* ---- what is shared with a child ---- */

/* Both sides change something, so that some tables are shared and some are not; the child's side is the other space. */
static void prepare_half_shared(struct scene *s)
{
	struct ucow_cpu *cpu;

	prepare_pages(s);
	REQUIRE_EQ(ucow_mmap(s->w.mm, FAR, 3 * PAGE, RW, UCOW_MAP_PRIVATE | UCOW_MAP_FIXED, &(uint64_t){0}), 0);
	put64(s->w.cpu, FAR + PAGE, 8);
	s->other = fork_mm(s->w.mm);
	cpu = cpu_on(s->other);
	put64(cpu, BASE + 2 * PAGE, 55);
	ucow_cpu_destroy(cpu);
}

/* Pins, then a child: the pinned leaf is each side's own, the next one is shared. */
static void prepare_pins_and_child(struct scene *s)
{
	prepare_pins(s);
	s->other = fork_mm(s->w.mm);
}

/* A pin that has gone again: its mark is stale. */
static void prepare_stale_mark(struct scene *s)
{
	prepare_pins(s);
	ucow_unpin_user_pages(s->pins, s->npins);
	s->npins = 0;
}

static int run_far_store(struct scene *s)
{
	return ucow_store_u64(s->w.cpu, BASE + 30 * PAGE, 77);
}

TEST(first_store_beside_a_pinned_leaf)
{
	check_scenario(&(struct scenario){prepare_pins_and_child, run_far_store, NULL, FAILS}, fork_is_eager() ? 1 : 2);
}

TEST(store_to_a_half_shared_space)
{
	check_scenario(&(struct scenario){prepare_half_shared, run_far_store, NULL, FAILS}, fork_is_eager() ? 1 : 2);
}

static int run_load_of_nothing(struct scene *s)
{
	uint64_t value = 99;
	int rc = ucow_load_u64(s->w.cpu, BASE + 50 * PAGE, &value);

	REQUIRE(rc || value == 0);
	return rc;
}

static void prepare_nothing_and_child(struct scene *s)
{
	prepare_pages(s);
	map_at(s->w.mm, BASE + 48 * PAGE, 20, RW, UCOW_MAP_PRIVATE);
	s->other = fork_mm(s->w.mm);
}

/* Reading a snapshot never allocates: rule 5. */
TEST(reading_what_is_shared_and_empty_needs_no_memory)
{
	if (fork_is_eager())
		SKIP("an eager fork shares no tables");
	check_scenario(&(struct scenario){prepare_nothing_and_child, run_load_of_nothing, NULL, SUCCEEDS}, 0);
}

static int run_mprotect_all(struct scene *s)
{
	return ucow_mprotect(s->w.mm, BASE, 40 * PAGE, UCOW_PROT_READ);
}

static void verify_mprotect_all(struct scene *s)
{
	for (unsigned i = 0; i < 40; i++) {
		REQUIRE_EQ(query(s->w.mm, BASE + i * PAGE).prot, UCOW_PROT_READ);
		REQUIRE_EQ(query(s->other, BASE + i * PAGE).prot, RW);
		REQUIRE_EQ(get64(s->w.cpu, BASE + i * PAGE), i + 1);
	}
	REQUIRE_EQ(ucow_store_u64(s->w.cpu, BASE + 20 * PAGE, 1), -EFAULT);
}

/* Across two blocks, and so several tables: all of them are taken before the first entry changes. */
TEST(mprotect_across_shared_tables)
{
	check_scenario(&(struct scenario){prepare_child, run_mprotect_all, verify_mprotect_all, FAILS},
		       fork_is_eager() ? 0 : UNSHARE + 2);
}

TEST(mprotect_of_a_half_shared_space)
{
	check_scenario(&(struct scenario){prepare_half_shared, run_mprotect_middle, NULL, FAILS}, 2);
}

static void verify_dontneed_shared(struct scene *s)
{
	verify_dontneed(s);
	ucow_cpu_attach(s->w.cpu, s->other);
	for (unsigned i = 0; i < 40; i++)
		REQUIRE_EQ(get64(s->w.cpu, BASE + i * PAGE), i == 2 && s->before[1][WINDOW / 4 + 2].hash ? 55 : i + 1);
	ucow_cpu_attach(s->w.cpu, s->w.mm);
}

static int run_clear_soft_dirty(struct scene *s)
{
	return ucow_clear_soft_dirty(s->w.mm);
}

static bool is_soft_dirty(struct ucow_mm *mm, uint64_t va)
{
	uint64_t word = 0;

	REQUIRE_EQ(ucow_pagemap(mm, va, 1, &word), 0);
	return word & UCOW_PM_SOFT_DIRTY;
}

static void verify_clear(struct scene *s)
{
	for (unsigned i = 0; i < 40; i++) {
		REQUIRE(!is_soft_dirty(s->w.mm, BASE + i * PAGE));
		REQUIRE(is_soft_dirty(s->other, BASE + i * PAGE));
	}
}

/* Shared tables are copied before the first bit is cleared. */
TEST(clear_soft_dirty_across_shared_tables)
{
	check_scenario(&(struct scenario){prepare_child, run_clear_soft_dirty, verify_clear, FAILS},
		       fork_is_eager() ? 0 : UNSHARE + 2);
}

static int run_mlock_middle(struct scene *s)
{
	return ucow_mlock(s->w.mm, BASE + 10 * PAGE, 5 * PAGE, UCOW_MLOCK_ONFAULT);
}

static int run_mlockall(struct scene *s)
{
	return ucow_mlockall(s->w.mm, UCOW_MCL_CURRENT | UCOW_MCL_ONFAULT);
}

static int run_munlock_middle(struct scene *s)
{
	return ucow_munlock(s->w.mm, BASE + 10 * PAGE, 5 * PAGE);
}

static void prepare_locked(struct scene *s)
{
	prepare_pages(s);
	REQUIRE_EQ(ucow_mlock(s->w.mm, BASE, 40 * PAGE, 0), 0);
}

static void prepare_locked_child(struct scene *s)
{
	prepare_locked(s);
	s->other = fork_mm(s->w.mm);
}

TEST(mlock_that_splits)
{
	check_scenario(&(struct scenario){prepare_pins, run_mlock_middle, NULL, FAILS}, 2);
}

TEST(mlock_of_a_half_shared_space)
{
	check_scenario(&(struct scenario){prepare_half_shared, run_mlock_middle, NULL, FAILS}, 2);
}

TEST(mlockall_across_shared_tables)
{
	check_scenario(&(struct scenario){prepare_child, run_mlockall, NULL, FAILS}, fork_is_eager() ? 0 : UNSHARE + 2);
}

TEST(munlock_that_splits)
{
	check_scenario(&(struct scenario){prepare_locked_child, run_munlock_middle, NULL, FAILS}, 2);
}

/* Where tables are shared, locked ranges are hidden from the child first, for which there is a reserve. */
TEST(fork_of_locked_memory)
{
	check_scenario(&(struct scenario){prepare_locked, run_fork, NULL, fork_is_lazy() ? SHRUGS : FAILS}, 2);
}

TEST(dontneed_of_a_half_shared_space_needs_no_memory)
{
	check_scenario(&(struct scenario){prepare_half_shared, run_dontneed, verify_dontneed_shared, SUCCEEDS}, 0);
}

TEST(munmap_of_a_half_shared_space_needs_no_memory)
{
	check_scenario(&(struct scenario){prepare_half_shared, run_munmap_all, NULL, SUCCEEDS}, 0);
}

/* Splitting a mapping may fail; the tables must not be what it fails for. */
TEST(munmap_of_the_middle_never_lacks_tables)
{
	struct scenario scenario = {prepare_child, run_munmap_middle, verify_munmap_middle, SUCCEEDS};

	printf("# %u tables failed\n", count_failures(&scenario, UCOW_INJECT_TABLE));
	CHECK(count_failures(&scenario, UCOW_INJECT_TABLE) >= UNSHARE);
}

static int run_exit(struct scene *s)
{
	struct ucow_mm *other = s->other;

	s->other = NULL;
	return ucow_mm_destroy(other);
}

TEST(exit_of_a_sharer_needs_no_memory)
{
	check_scenario(&(struct scenario){prepare_half_shared, run_exit, NULL, SUCCEEDS}, 0);
	check_scenario(&(struct scenario){prepare_pins_and_child, run_exit, NULL, SUCCEEDS}, 0);
}

static void verify_move_shared(struct scene *s)
{
	verify_move(s);
	for (unsigned i = 0; i < 12; i++)
		REQUIRE(query(s->other, BASE + i * PAGE).mapped);
	ucow_cpu_attach(s->w.cpu, s->other);
	REQUIRE_EQ(get64(s->w.cpu, BASE + PAGE), 2);
	ucow_cpu_attach(s->w.cpu, s->w.mm);
}

TEST(mremap_of_what_is_shared)
{
	check_scenario(&(struct scenario){prepare_child, run_move, verify_move_shared, FAILS}, UNSHARE + 4);
	check_scenario(&(struct scenario){prepare_pins_and_child, run_move, verify_move_shared, FAILS}, 4);
}

static int run_free(struct scene *s)
{
	return ucow_madvise(s->w.mm, BASE, 40 * PAGE, UCOW_MADV_FREE);
}

TEST(madvise_free_of_what_is_shared)
{
	check_scenario(&(struct scenario){prepare_child, run_free, NULL, FAILS}, UNSHARE);
}

TEST(numa_hint_of_what_is_shared)
{
	check_scenario(&(struct scenario){prepare_child, run_numa_hint, NULL, FAILS}, UNSHARE);
}

/* ---- forks of what is shared ---- */

TEST(fork_of_a_half_shared_space)
{
	check_scenario(&(struct scenario){prepare_half_shared, run_fork, verify_fork, FAILS}, fork_is_lazy() ? 2 : 5);
}

TEST(fork_after_pins_and_a_child)
{
	check_scenario(&(struct scenario){prepare_pins_and_child, run_fork, verify_fork, FAILS}, 10);
}

TEST(fork_over_a_stale_mark)
{
	check_scenario(&(struct scenario){prepare_stale_mark, run_fork, verify_fork, FAILS}, fork_is_lazy() ? 2 : 5);
}

/* Beside pins: ranges that the child must not see, in leaves of their own and in a leaf of others. The parent's cached
 * translations for writing must not outlive a fork that failed half-way.
 */
static void prepare_hidden(struct scene *s)
{
	prepare_pins(s);
	REQUIRE_EQ(ucow_madvise(s->w.mm, BASE + 18 * PAGE, 2 * PAGE, UCOW_MADV_WIPEONFORK), 0);
	REQUIRE_EQ(ucow_madvise(s->w.mm, BASE + 26 * PAGE, 4 * PAGE, UCOW_MADV_DONTFORK), 0);
	for (unsigned i = 0; i < 40; i++)
		put64(s->w.cpu, BASE + i * PAGE, i + 1);
}

static void verify_hidden(struct scene *s)
{
	ucow_cpu_attach(s->w.cpu, s->made);
	REQUIRE_EQ(get64(s->w.cpu, BASE + 17 * PAGE), 18);
	REQUIRE_EQ(get64(s->w.cpu, BASE + 18 * PAGE), 0);
	REQUIRE_EQ(get64(s->w.cpu, BASE + 30 * PAGE), 31);
	ucow_cpu_attach(s->w.cpu, s->w.mm);
	REQUIRE(!query(s->made, BASE + 27 * PAGE).mapped);
	for (unsigned i = 0; i < 40; i++)
		REQUIRE_EQ(get64(s->w.cpu, BASE + i * PAGE), i + 1);
}

TEST(fork_that_hides_ranges)
{
	check_scenario(&(struct scenario){prepare_hidden, run_fork, verify_hidden, SHRUGS}, 10);
}

/* ---- references to what is shared ---- */

TEST(read_pin_in_a_half_shared_space)
{
	check_scenario(&(struct scenario){prepare_half_shared, run_read_pin, verify_read_pin, FAILS}, 4);
}

static int run_read_get(struct scene *s)
{
	return took(s, ucow_get_user_pages(s->w.cpu, BASE + 2 * PAGE, 4, 0, s->taken), 4, true);
}

/* A plain reference copies no page, but it owns its path. */
TEST(read_reference_after_a_fork)
{
	check_scenario(&(struct scenario){prepare_child, run_read_get, NULL, FAILS}, UNSHARE);
}

/* ---- spaces and cpus ---- */

static int run_mm_create(struct scene *s)
{
	return ucow_mm_create(s->w.machine, &s->made);
}

TEST(mm_create)
{
	check_scenario(&(struct scenario){prepare_nothing, run_mm_create, NULL, FAILS}, 1);
}

static int run_cpu_create(struct scene *s)
{
	return ucow_cpu_create(s->w.machine, &s->made_cpu);
}

TEST(cpu_create)
{
	check_scenario(&(struct scenario){prepare_nothing, run_cpu_create, NULL, FAILS}, 1);
}

/* ---- a life in which every allocation fails now and then ---- */

static void random_call(struct world *w, struct ucow_mm **child, uint64_t *state, const uint64_t *values)
{
	uint64_t i = draw(state) % 8, at = BASE + i * PAGE, result;
	struct ucow_page *page = NULL;
	long got;

	switch (draw(state) % 8) {
	case 0:
		if (!*child && ucow_fork(w->mm, child))
			*child = NULL;
		return;
	case 1:
		if (*child)
			REQUIRE_EQ(ucow_mm_destroy(*child), 0);
		*child = NULL;
		return;
	case 2:
		got = ucow_pin_user_pages(w->cpu, at, 1, UCOW_FOLL_LONGTERM, &page);
		REQUIRE(got == 1 || got == -ENOMEM);
		if (got != 1)
			return;
		REQUIRE_EQ(device_read64(page), values[i]);
		ucow_unpin_user_pages(&page, 1);
		return;
	case 3: /* there and, if that worked, back; the way back has its tables */
		if (ucow_mremap(w->mm, at, PAGE, PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, FAR + at, &result))
			return;
		ucow_machine_inject(w->machine, UCOW_INJECT_ALL, 0);
		REQUIRE_EQ(
			ucow_mremap(w->mm, FAR + at, PAGE, PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, at, &result),
			0);
		return;
	case 4:
		if (!ucow_mprotect(w->mm, at, PAGE, UCOW_PROT_READ)) {
			ucow_machine_inject(w->machine, UCOW_INJECT_ALL, 0);
			REQUIRE_EQ(ucow_mprotect(w->mm, at, PAGE, RW), 0);
		}
		return;
	default:
		got = ucow_store_u64(w->cpu, at, values[i]);
		REQUIRE(got == 0 || got == -ENOMEM);
		return;
	}
}

TEST(nothing_is_lost_over_a_long_life_of_failures)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 8), state = tap_seed(), values[8];
	struct ucow_mm *child = NULL;

	for (uint64_t i = 0; i < 8; i++)
		put64(w.cpu, va + i * PAGE, values[i] = draw(&state));
	for (unsigned step = 0; step < 5000; step++) {
		ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 1 + draw(&state) % 6);
		random_call(&w, &child, &state, values);
		ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 0);
		for (uint64_t i = 0; i < 8; i++)
			CHECK_EQ(get64(w.cpu, va + i * PAGE), values[i]);
		if (step % 50 == 0)
			check_invariants(w.machine);
	}
	if (child)
		CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TAP_MAIN()
