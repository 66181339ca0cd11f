/* SPDX-License-Identifier: MIT */
/*
 * The N-th allocation, read or write of an operation under memory pressure fails, for N = 1, 2, 3, ... until it needs
 * fewer: the operation fails as it says, or does without; the invariants hold; no byte is lost; it succeeds when
 * repeated; and in the end neither a frame nor a slot is left. Each with swap in memory and in a file.
 */
#include "fixture.h"

enum { NPAGES = 24, SPACES = 2, MAX_N = 2000 };
#define FAR ((uint64_t)1 << 40)

struct scene {
	struct world w;
	uint32_t flags; /* of the device */
	unsigned kinds; /* what is to fail; 0: nothing */
	unsigned device;
	struct ucow_mm *other; /* a child, if there is one */
	uint64_t va[SPACES];
	uint64_t want[SPACES][NPAGES]; /* what is there; what run has changed included */
	unsigned nfailed;              /* accesses of run that failed */
	struct ucow_mm *made;          /* by run */
};

struct scenario {
	void (*prepare)(struct scene *s);
	int (*run)(struct scene *s);
	void (*verify)(struct scene *s); /* of what success has made; may be NULL */
	int read_error;                  /* what a failed read means; 0: it does without */
	unsigned memory, reads, writes;  /* so many must have been made to fail at least; else it does not reach them */
};

/* ---- contents ---- */

static struct ucow_mm *space(const struct scene *s, unsigned i)
{
	return i ? s->other : s->w.mm;
}

/* A page has its value at both ends. */
static int store_page(struct ucow_cpu *cpu, uint64_t va, uint64_t value)
{
	int rc = ucow_store_u64(cpu, va, value);

	return rc ? rc : ucow_store_u64(cpu, va + PAGE - 8, value);
}

static void check_page(struct ucow_cpu *cpu, uint64_t va, uint64_t value)
{
	REQUIRE_EQ(get64(cpu, va), value);
	REQUIRE_EQ(get64(cpu, va + 8), 0);
	REQUIRE_EQ(get64(cpu, va + PAGE - 8), value);
}

static void check_space(struct scene *s, struct ucow_mm *mm, uint64_t va, const uint64_t *want)
{
	ucow_cpu_attach(s->w.cpu, mm);
	for (unsigned i = 0; i < NPAGES; i++)
		check_page(s->w.cpu, va + i * PAGE, want[i]);
	ucow_cpu_attach(s->w.cpu, s->w.mm);
}

static void check_contents(struct scene *s)
{
	for (unsigned i = 0; i < SPACES && space(s, i); i++)
		check_space(s, space(s, i), s->va[i], s->want[i]);
}

/* One page is zeros: the devices keep nothing of it. */
static void fill(struct scene *s)
{
	s->va[0] = s->va[1] = map_private(s->w.mm, NPAGES);
	for (unsigned i = 0; i < NPAGES; i++) {
		s->want[0][i] = s->want[1][i] = i == 5 ? 0 : 1000 + i;
		REQUIRE_EQ(store_page(s->w.cpu, BASE + i * PAGE, s->want[0][i]), 0);
	}
}

static struct ucow_swap_stat stat_of(const struct scene *s)
{
	struct ucow_swap_stat stat = {0};

	REQUIRE_EQ(ucow_swap_stat(s->w.machine, s->device, &stat), 0);
	return stat;
}

static uint64_t swap_entries(struct ucow_mm *mm)
{
	struct ucow_mm_stat stat;

	ucow_mm_stat(mm, &stat);
	return stat.swap_entries;
}

/* ---- the loop ---- */

static int add_device(struct scene *s)
{
	const struct ucow_swap_options options = {
		.size = sizeof(options), .nbytes = 16 * NPAGES * PAGE, .flags = s->flags};

	return ucow_swapon(s->w.machine, &options, &s->device);
}

/* Checks look at every frame: few frames, for every scene is opened hundreds of times. */
static struct world small_world(void)
{
	struct ucow_machine_options options = default_options();

	options.ram_bytes = (uint64_t)2 << 20;
	return world_open_with(&options);
}

static struct scene open_scene(const struct scenario *scenario, uint32_t flags)
{
	struct scene s = {.w = small_world(), .flags = flags, .device = ~0u};

	scenario->prepare(&s);
	ucow_machine_synchronize(s.w.machine);
	return s;
}

static void close_scene(struct scene *s)
{
	struct ucow_swap_stat stat = {0};

	ucow_cpu_destroy(s->w.cpu);
	if (s->made)
		REQUIRE_EQ(ucow_mm_destroy(s->made), 0);
	if (s->other)
		REQUIRE_EQ(ucow_mm_destroy(s->other), 0);
	REQUIRE_EQ(ucow_mm_destroy(s->w.mm), 0);
	s->w.cpu = NULL;
	s->w.mm = NULL;
	ucow_machine_synchronize(s->w.machine);
	if (!ucow_swap_stat(s->w.machine, s->device, &stat)) {
		REQUIRE_EQ(stat.used, 0);
		REQUIRE_EQ(stat.cached, 0);
		REQUIRE_EQ(stat.compressed, 0);
		REQUIRE_EQ(stat.zero, 0);
	}
	world_close(&s->w);
}

static bool is_allowed(const struct scenario *scenario, const struct scene *s, int rc)
{
	if (s->kinds & UCOW_INJECT_ALL)
		return rc == 0 || rc == -ENOMEM;
	return rc == 0 || (s->kinds == UCOW_INJECT_READ && rc == scenario->read_error);
}

/* The one failure was one access's alone, and the device has counted it. */
static void check_one_error(const struct scene *s)
{
	struct ucow_swap_stat stat = {0};

	REQUIRE(s->nfailed <= 1);
	if (ucow_swap_stat(s->w.machine, s->device, &stat))
		return;
	REQUIRE_EQ(stat.read_errors, s->kinds == UCOW_INJECT_READ);
	REQUIRE_EQ(stat.write_errors, s->kinds == UCOW_INJECT_WRITE);
}

static void check_failure(const struct scenario *scenario, struct scene *s, int rc, bool look)
{
	if (!is_allowed(scenario, s, rc))
		printf("# kinds %u: %d\n", s->kinds, rc);
	REQUIRE(is_allowed(scenario, s, rc));
	check_invariants(s->w.machine);
	check_one_error(s);
	s->kinds = 0;
	if (look)
		check_contents(s);
	if (rc)
		REQUIRE_EQ(scenario->run(s), 0);
}

/* One N. Returns whether something failed; if not, the operation needs fewer than N. */
static bool check_nth(const struct scenario *scenario, uint32_t flags, unsigned kinds, uint64_t nth, bool look)
{
	struct scene s = open_scene(scenario, flags);
	bool fired;
	int rc;

	s.kinds = kinds;
	ucow_machine_inject(s.w.machine, kinds, nth);
	rc = scenario->run(&s);
	fired = !ucow_machine_inject(s.w.machine, UCOW_INJECT_ALL, 0);
	if (fired)
		check_failure(scenario, &s, rc, look);
	else
		REQUIRE_EQ(rc, 0);
	check_invariants(s.w.machine);
	if (scenario->verify)
		scenario->verify(&s);
	check_contents(&s);
	close_scene(&s);
	return fired;
}

/* Looking reads all of it back, so that repeating is tried with and without that. */
static unsigned count_failures(const struct scenario *scenario, uint32_t flags, unsigned kinds)
{
	unsigned n = 0;

	while (check_nth(scenario, flags, kinds, n + 1, true)) {
		REQUIRE(check_nth(scenario, flags, kinds, n + 1, false));
		REQUIRE(++n < MAX_N);
	}
	return n;
}

static void check_on(const struct scenario *scenario, uint32_t flags)
{
	unsigned memory = count_failures(scenario, flags, UCOW_INJECT_ALL);
	unsigned reads = count_failures(scenario, flags, UCOW_INJECT_READ);
	unsigned writes = count_failures(scenario, flags, UCOW_INJECT_WRITE);

	/* Allocations are the same with any device. */
	for (unsigned kind = UCOW_INJECT_FRAME; kind <= UCOW_INJECT_OTHER && flags; kind <<= 1)
		count_failures(scenario, flags, kind);
	printf("# flags %u: %u allocations, %u reads, %u writes failed\n", flags, memory, reads, writes);
	CHECK(memory >= scenario->memory);
	CHECK(reads >= scenario->reads);
	CHECK(writes >= scenario->writes);
}

static void check_scenario(const struct scenario *scenario)
{
	check_on(scenario, UCOW_SWAP_MEMORY);
	check_on(scenario, 0);
}

/* ---- scenes ---- */

static void prepare_bare(struct scene *s)
{
	fill(s);
}

static void prepare_pages(struct scene *s)
{
	REQUIRE_EQ(add_device(s), 0);
	fill(s);
}

static int page_out(struct scene *s)
{
	return ucow_madvise(s->w.mm, BASE, NPAGES * PAGE, UCOW_MADV_PAGEOUT);
}

static void prepare_swapped(struct scene *s)
{
	prepare_pages(s);
	REQUIRE_EQ(page_out(s), 0);
	REQUIRE_EQ(swap_entries(s->w.mm), NPAGES);
	REQUIRE_EQ(stat_of(s).cached, 0);
}

static void prepare_swapped_child(struct scene *s)
{
	prepare_swapped(s);
	s->other = fork_mm(s->w.mm);
}

/* Pages of both, then out: every entry of theirs names the slot. */
static void prepare_child(struct scene *s)
{
	prepare_pages(s);
	s->other = fork_mm(s->w.mm);
}

/* ---- out ---- */

/* What could not be written is in RAM, and its entry says so all the same. */
static void check_out(const struct scene *s)
{
	struct ucow_swap_stat stat = stat_of(s);

	REQUIRE_EQ(swap_entries(s->w.mm), NPAGES);
	REQUIRE_EQ(stat.used, NPAGES);
	/* A batch that there is no memory for is not written at all. */
	REQUIRE(stat.cached == stat.write_errors || (s->kinds & UCOW_INJECT_OTHER));
}

/* A page whose write failed is written when it is its turn again. */
static void verify_out(struct scene *s)
{
	REQUIRE(ucow_reclaim(s->w.machine, NULL, NPAGES) >= (long)stat_of(s).cached);
	REQUIRE_EQ(stat_of(s).cached, 0);
	REQUIRE_EQ(swap_entries(s->w.mm), NPAGES);
}

TEST(first_device)
{
	check_scenario(&(struct scenario){prepare_bare, add_device, NULL, 0, 1, 0, 0});
}

static int run_pageout(struct scene *s)
{
	int rc = page_out(s);

	check_out(s);
	return rc;
}

TEST(pageout)
{
	check_scenario(&(struct scenario){prepare_pages, run_pageout, verify_out, 0, 0, 0, NPAGES});
}

/* No other page can go in the place of one whose write fails, so that it is tried again by the same call. */
static int run_reclaim(struct scene *s)
{
	REQUIRE_EQ(ucow_reclaim(s->w.machine, NULL, NPAGES), NPAGES);
	REQUIRE_EQ(stat_of(s).cached, 0);
	return 0;
}

TEST(reclaim)
{
	check_scenario(&(struct scenario){prepare_pages, run_reclaim, verify_out, 0, 0, 0, NPAGES});
}

TEST(reclaim_of_what_a_child_shares)
{
	check_scenario(&(struct scenario){prepare_child, run_reclaim, NULL, 0, 0, 0, NPAGES});
}

/* ---- back in ---- */

/* One failed access does not keep the next from what it wants. */
static int load_all(struct scene *s, unsigned which)
{
	int error = 0;

	ucow_cpu_attach(s->w.cpu, space(s, which));
	for (unsigned i = 0; i < NPAGES; i++) {
		uint64_t value = ~s->want[which][i];
		int rc = ucow_load_u64(s->w.cpu, s->va[which] + i * PAGE, &value);

		REQUIRE(rc || value == s->want[which][i]);
		s->nfailed += rc != 0;
		error = rc ? rc : error;
	}
	ucow_cpu_attach(s->w.cpu, s->w.mm);
	return error;
}

static int run_load(struct scene *s)
{
	return load_all(s, 0);
}

TEST(loads)
{
	check_scenario(&(struct scenario){prepare_swapped, run_load, NULL, -ENXIO, NPAGES, NPAGES, 0});
}

static int run_load_twice(struct scene *s)
{
	int error = load_all(s, 1), second = load_all(s, 0);

	return error ? error : second;
}

TEST(loads_of_a_child_and_its_parent)
{
	check_scenario(&(struct scenario){prepare_swapped_child, run_load_twice, NULL, -ENXIO, NPAGES, NPAGES, 0});
}

static int store_all(struct scene *s, unsigned which, uint64_t plus)
{
	int error = 0;

	ucow_cpu_attach(s->w.cpu, space(s, which));
	for (unsigned i = 0; i < NPAGES; i++) {
		uint64_t va = s->va[which] + i * PAGE;
		int rc = ucow_store_u64(s->w.cpu, va, plus + i);

		s->nfailed += rc != 0;
		error = rc ? rc : error;
		if (rc)
			continue;
		REQUIRE_EQ(ucow_store_u64(s->w.cpu, va + PAGE - 8, plus + i), 0);
		s->want[which][i] = plus + i;
	}
	ucow_cpu_attach(s->w.cpu, s->w.mm);
	return error;
}

static int run_store(struct scene *s)
{
	return store_all(s, 0, 2000);
}

TEST(stores)
{
	check_scenario(&(struct scenario){prepare_swapped, run_store, NULL, -ENXIO, NPAGES, NPAGES, 0});
}

static int run_store_twice(struct scene *s)
{
	int error = store_all(s, 1, 3000), second = store_all(s, 0, 2000);

	return error ? error : second;
}

/* Each page is read once, and copied once. */
TEST(stores_of_a_child_and_its_parent)
{
	check_scenario(&(struct scenario){prepare_swapped_child, run_store_twice, NULL, -ENXIO, 2 * NPAGES, NPAGES, 0});
}

/* ---- fork ---- */

static int run_fork(struct scene *s)
{
	return ucow_fork(s->w.mm, &s->made);
}

static void verify_fork(struct scene *s)
{
	check_space(s, s->made, s->va[0], s->want[0]);
	ucow_cpu_attach(s->w.cpu, s->made);
	for (unsigned i = 0; i < NPAGES; i += 2)
		REQUIRE_EQ(store_page(s->w.cpu, BASE + i * PAGE, 5), 0);
	ucow_cpu_attach(s->w.cpu, s->w.mm);
	check_invariants(s->w.machine);
}

TEST(fork_of_swapped_pages)
{
	check_scenario(&(struct scenario){prepare_swapped, run_fork, verify_fork, 0, fork_is_lazy() ? 2 : 5, 0, 0});
}

TEST(second_fork_of_swapped_pages)
{
	check_scenario(
		&(struct scenario){prepare_swapped_child, run_fork, verify_fork, 0, fork_is_lazy() ? 2 : 5, 0, 0});
}

/* ---- mremap ---- */

static int run_mremap(struct scene *s)
{
	uint64_t result, length = NPAGES * PAGE;
	unsigned flags = UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED;
	int rc = ucow_mremap(s->w.mm, BASE, length, length, flags, FAR + 3 * PAGE, &result);

	if (!rc)
		s->va[0] = result;
	return rc;
}

/* The moved pages are found where they are now. */
static void verify_mremap(struct scene *s)
{
	check_contents(s);
	REQUIRE(ucow_reclaim(s->w.machine, NULL, NPAGES) >= NPAGES / 2);
	check_invariants(s->w.machine);
}

TEST(mremap_of_swapped_pages)
{
	check_scenario(&(struct scenario){prepare_swapped, run_mremap, verify_mremap, 0, 4, 0, 0});
}

TEST(mremap_of_swapped_pages_of_a_child_too)
{
	check_scenario(&(struct scenario){prepare_swapped_child, run_mremap, verify_mremap, 0, 4, 0, 0});
}

/* A leaf with pages of several others, which a child shares. */
static void prepare_moved_child(struct scene *s)
{
	prepare_swapped(s);
	REQUIRE_EQ(run_mremap(s), 0);
	s->va[1] = s->va[0];
	s->other = fork_mm(s->w.mm);
}

static int run_dontneed(struct scene *s)
{
	REQUIRE_EQ(ucow_madvise(s->w.mm, s->va[0] + 4 * PAGE, 16 * PAGE, UCOW_MADV_DONTNEED), 0);
	for (unsigned i = 4; i < 20; i++)
		s->want[0][i] = 0;
	return 0;
}

TEST(dontneed_of_moved_pages_needs_no_memory)
{
	check_scenario(&(struct scenario){prepare_moved_child, run_dontneed, NULL, 0, 0, 0, 0});
}

/* ---- swapoff ---- */

static int run_swapoff(struct scene *s)
{
	return ucow_swapoff(s->w.machine, s->device);
}

static void verify_swapoff(struct scene *s)
{
	REQUIRE_EQ(swap_entries(s->w.mm), 0);
	REQUIRE_EQ(ucow_swapoff(s->w.machine, s->device), -EINVAL);
}

TEST(swapoff)
{
	check_scenario(&(struct scenario){prepare_swapped, run_swapoff, verify_swapoff, -EIO, NPAGES, NPAGES, 0});
}

TEST(swapoff_after_a_fork)
{
	check_scenario(&(struct scenario){prepare_swapped_child, run_swapoff, verify_swapoff, -EIO, NPAGES, NPAGES, 0});
}

/* ---- pins ---- */

static int run_pin(struct scene *s)
{
	struct ucow_page *pages[NPAGES];
	long got = ucow_pin_user_pages(s->w.cpu, BASE, NPAGES, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM, pages);

	for (long i = 0; i < got; i++)
		REQUIRE_EQ(device_read64(pages[i]), s->want[0][i]);
	for (long i = 0; i < got; i++) {
		device_write64(pages[i], s->want[0][i] + 1);
		REQUIRE_EQ(get64(s->w.cpu, BASE + (uint64_t)i * PAGE), s->want[0][i] + 1);
		device_write64(pages[i], s->want[0][i]);
	}
	if (got > 0)
		ucow_unpin_user_pages(pages, (unsigned long)got);
	if (got == NPAGES)
		return 0;
	return got < 0 ? (int)got : s->kinds == UCOW_INJECT_READ ? -EFAULT : -ENOMEM;
}

/* For a pin a page that cannot be read is one that is not there. */
TEST(pins_of_swapped_pages)
{
	check_scenario(&(struct scenario){prepare_swapped, run_pin, NULL, -EFAULT, NPAGES, NPAGES, 0});
}

TEST(pins_of_what_a_child_shares)
{
	check_scenario(&(struct scenario){prepare_swapped_child, run_pin, NULL, -EFAULT, 2 * NPAGES, NPAGES, 0});
}

/* ---- lazily freed pages ---- */

/* A store takes a page back. Nothing of the others is written. */
static int run_free(struct scene *s)
{
	struct ucow_mm_stat stat;
	int rc = ucow_madvise(s->w.mm, BASE, NPAGES / 2 * PAGE, UCOW_MADV_FREE);

	if (rc)
		return rc;
	rc = store_page(s->w.cpu, BASE + 3 * PAGE, 77);
	if (rc)
		return rc;
	s->want[0][3] = 77;
	/* What a failed allocation has made room by is out already. */
	ucow_reclaim(s->w.machine, NULL, 2 * NPAGES);
	ucow_mm_stat(s->w.mm, &stat);
	REQUIRE_EQ(stat.rss_anon, 0);
	return 0;
}

/* What others map is not freed. */
static void verify_free(struct scene *s)
{
	if (s->other)
		return;
	for (unsigned i = 0; i < NPAGES / 2; i++)
		if (i != 3)
			s->want[0][i] = 0;
}

/* Looked at again, lazily freed pages may have their bytes or zeros, so that what is there after a failure is not
 * known: the operation goes on where it failed. */
static void check_free(void (*prepare)(struct scene *s), uint32_t flags, unsigned kinds, unsigned least)
{
	unsigned n = 0;

	for (;; n++) {
		const struct scenario scenario = {.prepare = prepare};
		struct scene s = open_scene(&scenario, flags);
		bool fired;
		int rc;

		ucow_machine_inject(s.w.machine, kinds, n + 1);
		rc = run_free(&s);
		fired = !ucow_machine_inject(s.w.machine, UCOW_INJECT_ALL, 0);
		check_invariants(s.w.machine);
		REQUIRE(rc == 0 || (fired && kinds == UCOW_INJECT_ALL && rc == -ENOMEM));
		if (rc)
			REQUIRE_EQ(run_free(&s), 0);
		verify_free(&s);
		check_contents(&s);
		close_scene(&s);
		if (!fired)
			break;
	}
	CHECK(n >= least);
}

TEST(lazily_freed_pages)
{
	check_free(prepare_pages, UCOW_SWAP_MEMORY, UCOW_INJECT_WRITE, NPAGES / 2 + 1);
	check_free(prepare_pages, 0, UCOW_INJECT_WRITE, NPAGES / 2 + 1);
	check_free(prepare_child, UCOW_SWAP_MEMORY, UCOW_INJECT_ALL, fork_is_eager() ? 1 : 2);
}

/* ---- merging ---- */

/* By threes, with a child; all of it out, and a part read back. */
static void prepare_mergeable(struct scene *s)
{
	const struct ucow_ksm_options options = {.size = sizeof(options), .max_page_sharing = 4};

	prepare_pages(s);
	REQUIRE_EQ(ucow_ksm_configure(s->w.machine, &options), 0);
	REQUIRE_EQ(ucow_madvise(s->w.mm, BASE, NPAGES * PAGE, UCOW_MADV_MERGEABLE), 0);
	for (unsigned i = 0; i < NPAGES; i++) {
		s->want[0][i] = s->want[1][i] = 1 + i % 3;
		REQUIRE_EQ(store_page(s->w.cpu, BASE + i * PAGE, 1 + i % 3), 0);
	}
	s->other = fork_mm(s->w.mm);
	ucow_cpu_attach(s->w.cpu, s->other);
	for (unsigned i = 0; i < NPAGES; i += 5)
		REQUIRE_EQ(store_page(s->w.cpu, BASE + i * PAGE, s->want[1][i]), 0);
	ucow_cpu_attach(s->w.cpu, s->w.mm);
}

static void all_out(struct scene *s)
{
	REQUIRE(ucow_reclaim(s->w.machine, NULL, 2 * NPAGES) > 0);
	REQUIRE_EQ(swap_entries(s->w.mm), NPAGES);
	REQUIRE_EQ(swap_entries(s->other), NPAGES);
}

static void prepare_mergeable_in_swap(struct scene *s)
{
	prepare_mergeable(s);
	all_out(s);
	for (unsigned i = 0; i < NPAGES; i += 2)
		check_page(s->w.cpu, BASE + i * PAGE, s->want[0][i]);
}

static void prepare_merged_in_swap(struct scene *s)
{
	prepare_mergeable(s);
	REQUIRE_EQ(ucow_ksm_merge(s->w.machine, NULL), 0);
	all_out(s);
}

static bool ksm_is_built(void)
{
	struct world w = world_open();
	int rc = ucow_ksm_scan(w.machine, 1, NULL);

	world_close(&w);
	return rc != -EOPNOTSUPP;
}

static int run_merge(struct scene *s)
{
	return ucow_ksm_merge(s->w.machine, NULL);
}

TEST(merging_beside_swap)
{
	if (!ksm_is_built())
		SKIP("built without xxhash");
	check_scenario(&(struct scenario){prepare_mergeable_in_swap, run_merge, NULL, 0, 3, 0, 0});
}

TEST(loads_of_merged_pages)
{
	if (!ksm_is_built())
		SKIP("built without xxhash");
	check_scenario(&(struct scenario){prepare_merged_in_swap, run_load_twice, NULL, -ENXIO, 3, 3, 0});
}

TEST(stores_to_merged_pages)
{
	if (!ksm_is_built())
		SKIP("built without xxhash");
	check_scenario(&(struct scenario){prepare_merged_in_swap, run_store_twice, NULL, -ENXIO, 2 * NPAGES, 3, 0});
}

static int run_unmerge(struct scene *s)
{
	return ucow_ksm_unmerge(s->w.machine);
}

TEST(unmerging_of_what_is_in_swap)
{
	if (!ksm_is_built())
		SKIP("built without xxhash");
	check_scenario(&(struct scenario){prepare_merged_in_swap, run_unmerge, NULL, -ENXIO, 3, 3, 0});
}

/* ---- a group with room for a part of what it has ---- */

static void prepare_group(struct scene *s)
{
	struct ucow_memcg *memcg;

	REQUIRE_EQ(add_device(s), 0);
	REQUIRE_EQ(ucow_memcg_create(s->w.machine, NULL, NPAGES / 3, UCOW_MEMCG_NO_LIMIT, &memcg), 0);
	REQUIRE_EQ(ucow_mm_join(s->w.mm, memcg), 0);
	fill(s);
}

/* Everything goes out and comes back in several times. */
static int run_rounds(struct scene *s)
{
	int error = 0;

	for (unsigned round = 1; round <= 2; round++) {
		int store = store_all(s, 0, 1000 * round), load = load_all(s, 0);

		error = store ? store : load ? load : error;
	}
	return error;
}

TEST(work_in_a_small_group)
{
	check_scenario(&(struct scenario){prepare_group, run_rounds, NULL, -ENXIO, NPAGES, NPAGES, NPAGES});
}

/* ---- the other kinds of device ---- */

/* Whether a device of the kind can be had here, lz4 and a file system with O_DIRECT permitting. */
static bool has_device(uint32_t flags)
{
	struct scene s = {.w = small_world(), .flags = flags};
	int rc = add_device(&s);

	world_close(&s.w);
	REQUIRE(rc == 0 || rc == -EOPNOTSUPP || rc == -EINVAL);
	return rc == 0;
}

static void check_device(uint32_t flags, unsigned transfers)
{
	if (!has_device(flags))
		SKIP("no such device here");
	check_on(&(struct scenario){prepare_pages, run_pageout, verify_out, 0, 0, 0, transfers}, flags);
	check_on(&(struct scenario){prepare_swapped, run_load, NULL, -ENXIO, NPAGES, transfers ? 3 : 0, 0}, flags);
}

TEST(device_without_a_ring)
{
	check_device(UCOW_SWAP_NO_URING, NPAGES - 1);
}

TEST(device_past_the_page_cache)
{
	check_device(UCOW_SWAP_DIRECT, NPAGES - 1);
}

/* What shrinks is not transferred at all. */
TEST(device_that_compresses)
{
	check_device(UCOW_SWAP_COMPRESS, 0);
}

TAP_MAIN()
