/* SPDX-License-Identifier: MIT */
/* Same-page merging: what is merged and what is left alone, and how it is undone (docs/semantics.md A.6, B.6). */
#include "fixture.h"

#include <pthread.h>
#include <stdlib.h>

/* @npages of mergeable private memory at BASE. */
static uint64_t map_mergeable(struct ucow_mm *mm, uint64_t npages)
{
	uint64_t va = map_private(mm, npages);

	REQUIRE_EQ(ucow_madvise(mm, va, npages * PAGE, UCOW_MADV_MERGEABLE), 0);
	return va;
}

/* Every page of the range holds @value throughout. */
static void fill(struct ucow_cpu *cpu, uint64_t va, uint64_t npages, uint64_t value)
{
	static uint64_t page[512];

	for (unsigned i = 0; i < 512; i++)
		page[i] = value;
	for (uint64_t i = 0; i < npages; i++)
		REQUIRE_EQ(ucow_write(cpu, va + i * PAGE, page, sizeof(page), NULL), 0);
}

static bool holds(struct ucow_cpu *cpu, uint64_t va, uint64_t value)
{
	static uint64_t page[512];

	REQUIRE_EQ(ucow_read(cpu, va, page, sizeof(page), NULL), 0);
	for (unsigned i = 0; i < 512; i++)
		if (page[i] != value)
			return false;
	return true;
}

static uint64_t merge(struct ucow_machine *machine)
{
	uint64_t merged = 0;

	REQUIRE_EQ(ucow_ksm_merge(machine, &merged), 0);
	check_invariants(machine);
	return merged;
}

static struct ucow_ksm_stat stat_of(struct ucow_machine *machine)
{
	struct ucow_ksm_stat stat;

	ucow_ksm_stat(machine, &stat);
	return stat;
}

static void configure(struct ucow_machine *machine, bool zero_pages, uint32_t sharing)
{
	const struct ucow_ksm_options options = {
		.size = sizeof(options), .use_zero_pages = zero_pages, .max_page_sharing = sharing};

	REQUIRE_EQ(ucow_ksm_configure(machine, &options), 0);
}

TEST(equal_pages_become_one)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 64);
	struct ucow_machine_stat stat;

	fill(w.cpu, va, 64, 7);
	CHECK_EQ(merge(w.machine), 63);
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 1);
	for (unsigned i = 0; i < 64; i++) {
		struct ucow_entry_info e = query(w.mm, va + i * PAGE);

		CHECK(e.present && e.ksm && e.anon && !e.writable && !e.exclusive && !e.dirty);
		CHECK_EQ(e.pfn, query(w.mm, va).pfn);
		CHECK(holds(w.cpu, va + i * PAGE, 7));
	}
	CHECK_EQ(stat_of(w.machine).pages_shared, 1);
	CHECK_EQ(stat_of(w.machine).pages_sharing, 63);
	CHECK_EQ(counted(&w, UCOW_COUNTER_KSM_MERGE), 63);
	world_close(&w);
}

/* semantics.md A.6: what is shared and what shares are as the limit has it. */
TEST(sharing_has_a_limit)
{
	static const uint32_t limits[] = {2, 3, 10, 64, 100};

	for (unsigned i = 0; i < 5; i++) {
		uint64_t groups = (64 + limits[i] - 1) / limits[i];
		struct world w = world_open();
		uint64_t va = map_mergeable(w.mm, 64);

		configure(w.machine, false, limits[i]);
		fill(w.cpu, va, 64, 7);
		groups -= 64 % limits[i] == 1; /* one that is left over is alone */
		CHECK_EQ(merge(w.machine), 64 - groups - (64 % limits[i] == 1));
		CHECK_EQ(stat_of(w.machine).pages_shared, groups);
		CHECK_EQ(stat_of(w.machine).pages_sharing, 64 - groups - (64 % limits[i] == 1));
		CHECK_EQ(stat_of(w.machine).pages_unshared, 64 % limits[i] == 1);
		world_close(&w);
	}
}

/* ---- what is not merged ---- */

TEST(bad_options_are_refused)
{
	struct world w = world_open();
	struct ucow_ksm_options options = {.size = sizeof(options), .max_page_sharing = 1};

	CHECK_EQ(ucow_ksm_configure(w.machine, &options), -EINVAL);
	options.max_page_sharing = 2;
	CHECK_EQ(ucow_ksm_configure(w.machine, &options), 0);
	options.size--;
	CHECK_EQ(ucow_ksm_configure(w.machine, &options), -EINVAL);
	CHECK_EQ(ucow_ksm_configure(w.machine, NULL), -EINVAL);
	world_close(&w);
}

/* With nothing to look at a scan ends. */
TEST(scanning_nothing_ends)
{
	struct world w = world_open();
	uint64_t merged = 5;

	CHECK_EQ(ucow_ksm_scan(w.machine, UINT64_MAX, &merged), 0);
	CHECK_EQ(merged, 5);
	CHECK_EQ(merge(w.machine), 0);
	map_private(w.mm, 8);
	fill(w.cpu, BASE, 8, 7);
	CHECK_EQ(ucow_ksm_scan(w.machine, 100, NULL), 0);
	CHECK_EQ(stat_of(w.machine).pages_scanned, 0);
	CHECK_EQ(ucow_madvise(w.mm, BASE, 8 * PAGE, UCOW_MADV_MERGEABLE), 0);
	CHECK_EQ(ucow_ksm_scan(w.machine, UINT64_MAX, NULL), 0); /* no page is looked at twice */
	CHECK_EQ(stat_of(w.machine).pages_scanned, 8);
	world_close(&w);
}

TEST(only_advised_memory_is_merged)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 8);

	CHECK_EQ(ucow_madvise(w.mm, va + 2 * PAGE, 4 * PAGE, UCOW_MADV_MERGEABLE), 0);
	fill(w.cpu, va, 8, 7);
	CHECK_EQ(merge(w.machine), 3);
	for (unsigned i = 0; i < 8; i++)
		CHECK_EQ(query(w.mm, va + i * PAGE).ksm, i >= 2 && i < 6);
	world_close(&w);
}

/* As the system call, which takes the advice for them and does nothing. */
TEST(shared_mappings_are_left_alone)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 4);
	struct ucow_mm_stat stat;

	CHECK_EQ(ucow_madvise(w.mm, va + PAGE, PAGE, UCOW_MADV_MERGEABLE), 0);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mappings, 1);
	fill(w.cpu, va, 4, 7);
	CHECK_EQ(merge(w.machine), 0);
	CHECK_EQ(ucow_madvise(w.mm, va, 4 * PAGE, UCOW_MADV_UNMERGEABLE), 0);
	world_close(&w);
}

TEST(the_advice_splits_and_merges_mappings)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 8);
	struct ucow_mm_stat stat;

	CHECK_EQ(ucow_madvise(w.mm, va + 2 * PAGE, 2 * PAGE, UCOW_MADV_MERGEABLE), 0);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mappings, 3);
	CHECK_EQ(ucow_madvise(w.mm, va, 8 * PAGE, UCOW_MADV_MERGEABLE), 0);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mappings, 1);
	CHECK_EQ(ucow_madvise(w.mm, va, 8 * PAGE, UCOW_MADV_UNMERGEABLE), 0);
	fill(w.cpu, va, 8, 7);
	CHECK_EQ(merge(w.machine), 0);
	world_close(&w);
}

TEST(snapshots_are_left_alone)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 8);
	struct ucow_mm *snapshot = NULL;
	uint64_t pfn;

	fill(w.cpu, va, 8, 7);
	REQUIRE_EQ(ucow_snapshot(w.mm, &snapshot), 0);
	pfn = query(snapshot, va + 3 * PAGE).pfn;
	CHECK_EQ(merge(w.machine), 7);
	CHECK_EQ(query(snapshot, va + 3 * PAGE).pfn, pfn);
	CHECK(query(w.mm, va + 3 * PAGE).ksm);
	ucow_cpu_attach(w.cpu, snapshot);
	for (unsigned i = 0; i < 8; i++)
		CHECK(holds(w.cpu, va + i * PAGE, 7));
	ucow_cpu_attach(w.cpu, w.mm);
	CHECK_EQ(ucow_mm_destroy(snapshot), 0);
	world_close(&w);
}

/* The group's account knows pages that a space maps once. */
TEST(spaces_with_a_snapshot_group_are_left_alone)
{
	struct world w = world_open();
	struct ucow_snapshot_group *group = NULL;
	struct ucow_mm *snapshot = NULL;
	uint64_t va = map_mergeable(w.mm, 8);

	fill(w.cpu, va, 8, 7);
	REQUIRE_EQ(ucow_snapshot_group_create(w.mm, NULL, &group), 0);
	REQUIRE_EQ(ucow_snapshot_take(group, 0, &snapshot), 0);
	CHECK_EQ(merge(w.machine), 0);
	CHECK_EQ(ucow_mm_destroy(snapshot), 0);
	ucow_snapshot_group_destroy(group);
	CHECK_EQ(merge(w.machine), 7);
	world_close(&w);
}

/* A group that is made later copes with what was merged before. */
TEST(a_snapshot_group_of_a_merged_space)
{
	struct world w = world_open();
	struct ucow_snapshot_group *group = NULL;
	struct ucow_mm *snapshot = NULL;
	uint64_t va = map_mergeable(w.mm, 8);

	fill(w.cpu, va, 8, 7);
	CHECK_EQ(merge(w.machine), 7);
	REQUIRE_EQ(ucow_snapshot_group_create(w.mm, NULL, &group), 0);
	REQUIRE_EQ(ucow_snapshot_take(group, 0, &snapshot), 0);
	fill(w.cpu, va, 4, 9);
	check_invariants(w.machine);
	CHECK_EQ(ucow_ksm_unmerge(w.machine), 0);
	check_invariants(w.machine);
	for (unsigned i = 0; i < 8; i++)
		CHECK(holds(w.cpu, va + i * PAGE, i < 4 ? 9 : 7));
	ucow_cpu_attach(w.cpu, snapshot);
	for (unsigned i = 0; i < 8; i++)
		CHECK(holds(w.cpu, va + i * PAGE, 7));
	ucow_cpu_attach(w.cpu, w.mm);
	CHECK_EQ(ucow_mm_destroy(snapshot), 0);
	ucow_snapshot_group_destroy(group);
	world_close(&w);
}

/* B.6: a page that anybody refers to is left alone, whatever kind of reference it is. */
TEST(pinned_and_referenced_pages_are_left_alone)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 8);
	struct ucow_page *write_pin, *read_pin, *get;

	fill(w.cpu, va, 8, 7);
	write_pin = pin_page(w.cpu, va + PAGE, UCOW_FOLL_WRITE);
	read_pin = pin_page(w.cpu, va + 2 * PAGE, 0);
	get = get_page(w.cpu, va + 3 * PAGE, UCOW_FOLL_WRITE);
	CHECK_EQ(merge(w.machine), 4);
	for (unsigned i = 1; i < 4; i++)
		CHECK(!query(w.mm, va + i * PAGE).ksm && query(w.mm, va + i * PAGE).exclusive);
	device_write64(write_pin, 8);
	CHECK_EQ(get64(w.cpu, va + PAGE), 8);
	put64(w.cpu, va + 2 * PAGE, 9);
	CHECK_EQ(device_read64(read_pin), 9);
	device_write64(write_pin, 7);
	put64(w.cpu, va + 2 * PAGE, 7);
	ucow_unpin_user_pages(&write_pin, 1);
	ucow_unpin_user_pages(&read_pin, 1);
	CHECK_EQ(merge(w.machine), 2);
	ucow_put_pages(&get, 1);
	CHECK_EQ(merge(w.machine), 1);
	CHECK_EQ(stat_of(w.machine).pages_sharing, 7);
	world_close(&w);
}

/* One that cannot be merged does not stand between others. */
TEST(a_referenced_page_gives_way)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 4);
	struct ucow_page *get;

	fill(w.cpu, va, 4, 7);
	get = get_page(w.cpu, va, 0);
	CHECK_EQ(merge(w.machine), 2);
	CHECK(!query(w.mm, va).ksm && query(w.mm, va + 3 * PAGE).ksm);
	ucow_put_pages(&get, 1);
	CHECK_EQ(merge(w.machine), 1);
	world_close(&w);
}

/* A page whose lock somebody holds is left for a later scan. */
TEST(a_locked_page_waits_for_the_next_scan)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 2);
	struct ucow_page *page;

	fill(w.cpu, va, 2, 7);
	page = get_page(w.cpu, va, 0);
	REQUIRE(ucow_page_trylock(page));
	CHECK_EQ(merge(w.machine), 0);
	ucow_page_unlock(page);
	ucow_put_pages(&page, 1);
	CHECK_EQ(merge(w.machine), 1);
	world_close(&w);
}

/* Memory that changes from scan to scan is not worth it. */
TEST(pages_that_change_are_not_merged)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 8), merged = 0;

	for (uint64_t round = 1; round < 5; round++) {
		fill(w.cpu, va, 8, round);
		CHECK_EQ(ucow_ksm_scan(w.machine, 8, &merged), 0);
		CHECK_EQ(merged, 0);
	}
	CHECK_EQ(ucow_ksm_scan(w.machine, 8, &merged), 0);
	CHECK_EQ(stat_of(w.machine).pages_volatile, 8);
	CHECK_EQ(merged, 7);
	CHECK_EQ(stat_of(w.machine).merged, 7);
	CHECK_EQ(stat_of(w.machine).pages_scanned, 40);
	world_close(&w);
}

/* One that is equal to a merged page needs no second look: that cannot change. */
TEST(a_new_page_joins_a_merged_one_at_once)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 8), merged = 0;

	fill(w.cpu, va, 4, 7);
	CHECK_EQ(merge(w.machine), 3);
	fill(w.cpu, va + 4 * PAGE, 1, 7);
	CHECK_EQ(ucow_ksm_scan(w.machine, 5, &merged), 0);
	CHECK_EQ(merged, 1);
	world_close(&w);
}

TEST(distinct_pages_stay)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 600);

	for (unsigned i = 0; i < 600; i++)
		put64(w.cpu, va + i * PAGE + 8 * (i % 512), i + 1);
	CHECK_EQ(merge(w.machine), 0);
	CHECK_EQ(stat_of(w.machine).pages_unshared, 600);
	CHECK_EQ(stat_of(w.machine).pages_shared, 0);
	world_close(&w);
}

/* ---- stores ---- */

TEST(a_store_copies_the_merged_page)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 4);
	struct ucow_entry_info e;

	fill(w.cpu, va, 4, 7);
	merge(w.machine);
	put64(w.cpu, va + PAGE, 8);
	e = query(w.mm, va + PAGE);
	CHECK(!e.ksm && e.exclusive && e.writable);
	CHECK_EQ(counted(&w, UCOW_COUNTER_COPY_KSM), 1);
	CHECK_EQ(get64(w.cpu, va + PAGE), 8);
	for (unsigned i = 0; i < 4; i++)
		if (i != 1)
			CHECK(holds(w.cpu, va + i * PAGE, 7));
	CHECK_EQ(stat_of(w.machine).pages_sharing, 2);
	/* Never reused, not even by its last owner. */
	put64(w.cpu, va, 8);
	put64(w.cpu, va + 2 * PAGE, 8);
	put64(w.cpu, va + 3 * PAGE, 8);
	CHECK_EQ(counted(&w, UCOW_COUNTER_COPY_KSM), 4);
	CHECK_EQ(stat_of(w.machine).pages_shared, 0);
	check_invariants(w.machine);
	world_close(&w);
}

/* A.6: after all pages were written differently, nothing is merged. */
TEST(writing_everything_leaves_nothing_merged)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 64);
	struct ucow_machine_stat stat;

	fill(w.cpu, va, 64, 7);
	CHECK_EQ(merge(w.machine), 63);
	for (unsigned i = 0; i < 64; i++)
		put64(w.cpu, va + i * PAGE, 100 + i);
	CHECK_EQ(merge(w.machine), 0);
	CHECK_EQ(stat_of(w.machine).pages_shared, 0);
	CHECK_EQ(stat_of(w.machine).pages_sharing, 0);
	CHECK_EQ(stat_of(w.machine).stale_nodes, 1);
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 64);
	world_close(&w);
}

/* The entry that takes a merged page in is made from scratch (B.6). */
TEST(what_was_tracked_of_a_page_is_not_carried_over)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 3);
	unsigned tracked = 0;

	fill(w.cpu, va, 3, 7);
	merge(w.machine);
	for (unsigned i = 0; i < 3; i++)
		tracked += query(w.mm, va + i * PAGE).soft_dirty;
	CHECK_EQ(tracked, 1); /* the page that the others were merged into */
	world_close(&w);
}

/* mapcount reuses a merged page that nobody else uses, and from then on it is an ordinary page; others copy. */
TEST(only_mapcount_reuses_a_merged_page)
{
	for (int policy = 0; policy < UCOW_POLICY_COUNT; policy++) {
		struct world w = world_open_policy(policy);
		uint64_t va = map_mergeable(w.mm, 2), pfn;
		bool reuses = policy == UCOW_POLICY_MAPCOUNT || policy == UCOW_POLICY_FORCE_COW;

		fill(w.cpu, va, 2, 7);
		CHECK_EQ(merge(w.machine), 1);
		put64(w.cpu, va, 8);
		pfn = query(w.mm, va + PAGE).pfn;
		CHECK(query(w.mm, va + PAGE).ksm);
		put64(w.cpu, va + PAGE, 9);
		CHECK_EQ(query(w.mm, va + PAGE).pfn == pfn, reuses);
		CHECK(!query(w.mm, va + PAGE).ksm);
		CHECK_EQ(get64(w.cpu, va), 8);
		CHECK_EQ(get64(w.cpu, va + PAGE), 9);
		fill(w.cpu, va, 2, 7);
		CHECK_EQ(merge(w.machine), 1);
		CHECK_EQ(stat_of(w.machine).stale_nodes, 1);
		CHECK_EQ(ucow_ksm_unmerge(w.machine), 0);
		CHECK(!query(w.mm, va).ksm && !query(w.mm, va + PAGE).ksm);
		CHECK(holds(w.cpu, va, 7) && holds(w.cpu, va + PAGE, 7));
		world_close(&w);
	}
}

/* Invariant 4 of B.0: the pin gets a page of its own first. */
TEST(a_pin_of_a_merged_page_unshares_it)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 3);
	struct ucow_page *page;

	fill(w.cpu, va, 3, 7);
	merge(w.machine);
	page = pin_page(w.cpu, va, UCOW_FOLL_LONGTERM);
	CHECK(!query(w.mm, va).ksm && query(w.mm, va).exclusive);
	put64(w.cpu, va, 8);
	CHECK_EQ(device_read64(page), 8);
	CHECK_EQ(get64(w.cpu, va + PAGE), 7);
	CHECK_EQ(merge(w.machine), 0);
	ucow_unpin_user_pages(&page, 1);
	world_close(&w);
}

/* ---- spaces ---- */

TEST(pages_of_different_spaces_are_merged)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 4);
	struct ucow_mm *other = NULL;
	struct ucow_cpu *cpu;

	REQUIRE_EQ(ucow_mm_create(w.machine, &other), 0);
	cpu = cpu_on(other);
	map_mergeable(other, 4);
	for (unsigned i = 0; i < 4; i++) {
		fill(w.cpu, va + i * PAGE, 1, 10 + i);
		fill(cpu, va + i * PAGE, 1, 10 + i);
	}
	CHECK_EQ(merge(w.machine), 4);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(query(w.mm, va + i * PAGE).pfn, query(other, va + i * PAGE).pfn);
	put64(cpu, va, 99);
	CHECK_EQ(get64(w.cpu, va), 10);
	exit_mm(cpu, other);
	for (unsigned i = 0; i < 4; i++)
		CHECK(holds(w.cpu, va + i * PAGE, 10 + i));
	world_close(&w);
}

/* fork shares merged pages like others, and children are scanned as their parents were. */
TEST(fork_inherits)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 8);
	struct ucow_machine_stat stat;
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	fill(w.cpu, va, 8, 7);
	CHECK_EQ(merge(w.machine), 7);
	child = fork_mm(w.mm);
	cpu = cpu_on(child);
	CHECK(query(child, va).ksm);
	CHECK_EAGER_EQ(query(child, va).mapcount, 16);
	fill(cpu, va, 4, 8);
	fill(w.cpu, va + 4 * PAGE, 4, 8);
	CHECK_EQ(merge(w.machine), 7);
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 2);
	for (unsigned i = 0; i < 8; i++) {
		CHECK(holds(w.cpu, va + i * PAGE, i < 4 ? 7 : 8));
		CHECK(holds(cpu, va + i * PAGE, i < 4 ? 8 : 7));
	}
	exit_mm(cpu, child);
	world_close(&w);
}

/* Pages that a fork left in common are merged entry by entry, on each side's own path. */
TEST(pages_shared_by_a_fork_are_merged)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 8);
	struct ucow_machine_stat stat;
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	fill(w.cpu, va, 8, 7);
	child = fork_mm(w.mm);
	cpu = cpu_on(child);
	merge(w.machine);
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 1);
	for (unsigned i = 0; i < 8; i++)
		CHECK(query(w.mm, va + i * PAGE).ksm && query(child, va + i * PAGE).ksm);
	put64(cpu, va, 8);
	put64(w.cpu, va + PAGE, 9);
	CHECK_EQ(get64(w.cpu, va), 7);
	CHECK_EQ(get64(cpu, va + PAGE), 7);
	exit_mm(cpu, child);
	world_close(&w);
}

TEST(exit_leaves_nothing)
{
	struct world w = world_open();
	struct ucow_machine_stat stat;
	struct ucow_mm *spaces[6];
	struct ucow_cpu *cpu;
	uint64_t va = map_mergeable(w.mm, 40);

	fill(w.cpu, va, 40, 7);
	for (unsigned i = 0; i < 6; i++) {
		spaces[i] = fork_mm(w.mm);
		cpu = cpu_on(spaces[i]);
		fill(cpu, va, 20, 10 + i);
		ucow_cpu_destroy(cpu);
	}
	merge(w.machine);
	CHECK_EQ(stat_of(w.machine).pages_shared, 7);
	for (unsigned i = 0; i < 6; i++)
		CHECK_EQ(ucow_mm_destroy(spaces[i]), 0);
	CHECK_EQ(ucow_munmap(w.mm, va, 40 * PAGE), 0);
	CHECK_EQ(stat_of(w.machine).pages_shared, 0);
	CHECK_EQ(ucow_ksm_scan(w.machine, 1, NULL), 0);
	CHECK_EQ(stat_of(w.machine).stale_nodes, 7);
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 0);
	world_close(&w);
}

/* A frame that was a merged page and is something else now is not taken for it. */
TEST(frames_are_used_again)
{
	struct ucow_machine_options options = default_options();
	struct world w;
	uint64_t va;

	options.ram_bytes = (uint64_t)2 << 20;
	w = world_open_with(&options);
	va = map_mergeable(w.mm, 400);
	for (unsigned round = 0; round < 20; round++) {
		fill(w.cpu, va, 400, 7 + round % 3);
		CHECK(merge(w.machine) >= 398);
		CHECK(holds(w.cpu, va + 13 * PAGE, 7 + round % 3));
		if (round % 2)
			CHECK_EQ(ucow_madvise(w.mm, va, 400 * PAGE, UCOW_MADV_DONTNEED), 0);
	}
	world_close(&w);
}

TEST(merged_entries_move)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 8), to = va + ((uint64_t)1 << 30), result;

	fill(w.cpu, va, 8, 7);
	merge(w.machine);
	CHECK_EQ(ucow_mremap(w.mm, va, 8 * PAGE, 8 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, to, &result), 0);
	check_invariants(w.machine);
	for (unsigned i = 0; i < 8; i++)
		CHECK(query(w.mm, to + i * PAGE).ksm && holds(w.cpu, to + i * PAGE, 7));
	fill(w.cpu, to, 2, 8);
	CHECK_EQ(merge(w.machine), 1);
	CHECK_EQ(ucow_madvise(w.mm, to, 8 * PAGE, UCOW_MADV_UNMERGEABLE), 0);
	CHECK_EQ(stat_of(w.machine).pages_shared, 0);
	world_close(&w);
}

/* ---- zeros ---- */

/* A.6: the zero page only where that is asked for, and then it counts as nothing shared. */
TEST(zeros_become_the_zero_page_if_asked_for)
{
	for (int asked = 0; asked < 2; asked++) {
		struct world w = world_open();
		uint64_t va = map_mergeable(w.mm, 32);
		struct ucow_machine_stat stat;

		configure(w.machine, asked, 0);
		fill(w.cpu, va, 32, 0);
		CHECK_EQ(merge(w.machine), asked ? 32 : 31);
		CHECK_EQ(stat_of(w.machine).zero_pages, asked ? 32 : 0);
		CHECK_EQ(stat_of(w.machine).pages_shared, asked ? 0 : 1);
		CHECK_EQ(counted(&w, UCOW_COUNTER_KSM_ZERO), asked ? 32 : 0);
		ucow_machine_stat(w.machine, &stat);
		CHECK_EQ(stat.used_pages, asked ? 0 : 1);
		for (unsigned i = 0; i < 32; i++) {
			CHECK_EQ(query(w.mm, va + i * PAGE).zero_page, asked);
			CHECK(!query(w.mm, va + i * PAGE).dirty);
			CHECK(holds(w.cpu, va + i * PAGE, 0));
		}
		put64(w.cpu, va, 1);
		CHECK_EQ(get64(w.cpu, va), 1);
		CHECK_EQ(get64(w.cpu, va + PAGE), 0);
		world_close(&w);
	}
}

/* A.6: the count is that of pages merged, halves when half is unmerged, and is nothing when the rest is written. */
TEST(zero_pages_are_counted)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 64), value;

	configure(w.machine, true, 0);
	CHECK_EQ(ucow_load_u64(w.cpu, va + 63 * PAGE, &value), 0); /* the zero page that nobody merged does not count */
	fill(w.cpu, va, 60, 0);
	merge(w.machine);
	CHECK_EQ(stat_of(w.machine).zero_pages, 60);
	CHECK_EQ(ucow_madvise(w.mm, va, 30 * PAGE, UCOW_MADV_UNMERGEABLE), 0);
	CHECK_EQ(stat_of(w.machine).zero_pages, 30);
	CHECK(query(w.mm, va).exclusive && !query(w.mm, va).writable);
	fill(w.cpu, va + 30 * PAGE, 20, 5);
	CHECK_EQ(stat_of(w.machine).zero_pages, 10);
	CHECK_EQ(ucow_madvise(w.mm, va + 50 * PAGE, 5 * PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(stat_of(w.machine).zero_pages, 5);
	fill(w.cpu, va + 55 * PAGE, 5, 5);
	CHECK_EQ(stat_of(w.machine).zero_pages, 0);
	CHECK_EQ(merge(w.machine), 24);
	world_close(&w);
}

/* Entries are counted wherever fork, moves and exits take them. */
TEST(zero_pages_are_counted_across_forks)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 40), to = va + ((uint64_t)1 << 30), result;
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	configure(w.machine, true, 0);
	fill(w.cpu, va, 40, 0);
	fill(w.cpu, va, 1, 3);
	merge(w.machine);
	child = fork_mm(w.mm);
	CHECK_EAGER_EQ(stat_of(w.machine).zero_pages, 78);
	cpu = cpu_on(child);
	put64(cpu, va + PAGE, 1);
	put64(cpu, va + 39 * PAGE, 1);
	CHECK_EQ(stat_of(w.machine).zero_pages, 76);
	check_invariants(w.machine);
	CHECK_EQ(ucow_mremap(child, va, 8 * PAGE, 8 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, to, &result), 0);
	check_invariants(w.machine);
	CHECK_EQ(stat_of(w.machine).zero_pages, 76);
	exit_mm(cpu, child);
	CHECK_EQ(stat_of(w.machine).zero_pages, 39);
	check_invariants(w.machine);
	ucow_cpu_destroy(w.cpu);
	w.cpu = NULL;
	CHECK_EQ(ucow_mm_destroy(w.mm), 0);
	w.mm = NULL;
	CHECK_EQ(stat_of(w.machine).zero_pages, 0);
	world_close(&w);
}

/* ---- undoing ---- */

static bool no_two_alike(struct ucow_mm *mm, uint64_t va, unsigned npages)
{
	for (unsigned i = 0; i < npages; i++)
		for (unsigned k = 0; k < i; k++) {
			struct ucow_entry_info a = query(mm, va + i * PAGE), b = query(mm, va + k * PAGE);

			if (a.present && b.present && a.pfn == b.pfn)
				return false;
		}
	return true;
}

/* A.6: no two entries of the range show the same frame afterwards. */
TEST(unmergeable_gives_everybody_his_own)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 64);

	fill(w.cpu, va, 64, 7);
	CHECK_EQ(merge(w.machine), 63);
	CHECK_EQ(ucow_madvise(w.mm, va, 64 * PAGE, UCOW_MADV_UNMERGEABLE), 0);
	check_invariants(w.machine);
	CHECK(no_two_alike(w.mm, va, 64));
	for (unsigned i = 0; i < 64; i++) {
		struct ucow_entry_info e = query(w.mm, va + i * PAGE);

		CHECK(!e.ksm && e.exclusive && !e.writable && !e.dirty);
		CHECK(holds(w.cpu, va + i * PAGE, 7));
	}
	CHECK_EQ(counted(&w, UCOW_COUNTER_UNSHARE_COPY), 64);
	CHECK_EQ(merge(w.machine), 0); /* and stays so */
	put64(w.cpu, va, 8);
	CHECK_EQ(counted(&w, UCOW_COUNTER_REUSE), 1);
	world_close(&w);
}

TEST(unmergeable_of_a_part)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 64);

	fill(w.cpu, va, 64, 7);
	merge(w.machine);
	CHECK_EQ(ucow_madvise(w.mm, va + 16 * PAGE, 16 * PAGE, UCOW_MADV_UNMERGEABLE), 0);
	for (unsigned i = 0; i < 64; i++)
		CHECK_EQ(query(w.mm, va + i * PAGE).ksm, i < 16 || i >= 32);
	CHECK_EQ(merge(w.machine), 0);
	world_close(&w);
}

/* A.6: with half of the range discarded. */
TEST(unmergeable_with_half_discarded)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 64);

	fill(w.cpu, va, 64, 7);
	merge(w.machine);
	CHECK_EQ(ucow_madvise(w.mm, va, 32 * PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(ucow_madvise(w.mm, va, 64 * PAGE, UCOW_MADV_UNMERGEABLE), 0);
	check_invariants(w.machine);
	CHECK(no_two_alike(w.mm, va, 64));
	for (unsigned i = 0; i < 64; i++)
		CHECK_EQ(query(w.mm, va + i * PAGE).present, i >= 32);
	world_close(&w);
}

/* A.6: inaccessible memory; forced writes to one half and the advice for the other both end the sharing. */
TEST(unmerging_without_permissions)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 64), value = 8;

	fill(w.cpu, va, 64, 7);
	CHECK_EQ(ucow_mprotect(w.mm, va, 64 * PAGE, UCOW_PROT_NONE), 0);
	CHECK_EQ(merge(w.machine), 63);
	CHECK(query(w.mm, va).protnone);
	CHECK_EQ(ucow_load_u64(w.cpu, va, &value), -EFAULT);
	value = 8;
	for (unsigned i = 0; i < 32; i++)
		CHECK_EQ(ucow_access_remote(w.mm, va + i * PAGE, &value, sizeof(value),
					    UCOW_FOLL_WRITE | UCOW_FOLL_FORCE, NULL),
			 0);
	CHECK_EQ(ucow_madvise(w.mm, va + 32 * PAGE, 32 * PAGE, UCOW_MADV_UNMERGEABLE), 0);
	check_invariants(w.machine);
	CHECK(no_two_alike(w.mm, va, 64));
	for (unsigned i = 0; i < 64; i++)
		CHECK(query(w.mm, va + i * PAGE).protnone && !query(w.mm, va + i * PAGE).ksm);
	CHECK_EQ(ucow_mprotect(w.mm, va, 64 * PAGE, UCOW_PROT_READ), 0);
	for (unsigned i = 0; i < 64; i++)
		CHECK_EQ(get64(w.cpu, va + i * PAGE), i < 32 ? 8 : 7);
	world_close(&w);
}

TEST(unmerge_undoes_it_everywhere)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 40);
	struct ucow_mm *child, *snapshot = NULL;

	configure(w.machine, true, 0);
	fill(w.cpu, va, 30, 7);
	fill(w.cpu, va + 30 * PAGE, 10, 0);
	merge(w.machine);
	child = fork_mm(w.mm);
	REQUIRE_EQ(ucow_snapshot(w.mm, &snapshot), 0);
	CHECK_EQ(ucow_ksm_unmerge(w.machine), 0);
	check_invariants(w.machine);
	CHECK(no_two_alike(w.mm, va, 40) && no_two_alike(child, va, 40));
	CHECK(query(snapshot, va).ksm); /* shows what it showed */
	for (unsigned i = 0; i < 40; i++)
		CHECK(holds(w.cpu, va + i * PAGE, i < 30 ? 7 : 0));
	CHECK_EQ(ucow_mm_destroy(snapshot), 0);
	CHECK_EQ(stat_of(w.machine).pages_shared, 0);
	CHECK_EQ(stat_of(w.machine).zero_pages, 0);
	CHECK_EQ(merge(w.machine), 79); /* the advice stands */
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

static void note_drop(void *arg, struct ucow_mm *snapshot)
{
	(void)snapshot;
	++*(unsigned *)arg;
}

/* Copies that keep pages for snapshots count against their limit; a snapshot that has to go is announced. */
TEST(unmerging_makes_room_among_snapshots)
{
	unsigned drops = 0;
	const struct ucow_snapshot_group_options options = {
		.size = sizeof(options),
		.limit = 4 * PAGE,
		.policy = UCOW_SNAPSHOT_DROP_OLDEST,
		.on_drop = note_drop,
		.arg = &drops,
	};
	struct world w = world_open();
	struct ucow_snapshot_group *group = NULL;
	struct ucow_mm *snapshot = NULL;
	uint64_t va = map_mergeable(w.mm, 16);

	fill(w.cpu, va, 16, 7);
	merge(w.machine);
	REQUIRE_EQ(ucow_snapshot_group_create(w.mm, &options, &group), 0);
	REQUIRE_EQ(ucow_snapshot_take(group, 0, &snapshot), 0);
	CHECK_EQ(ucow_ksm_unmerge(w.machine), 0);
	CHECK_EQ(drops, 1);
	CHECK(no_two_alike(w.mm, va, 16));
	for (unsigned i = 0; i < 16; i++)
		CHECK(holds(w.cpu, va + i * PAGE, 7));
	ucow_snapshot_group_destroy(group);
	world_close(&w);
}

/* A full machine: a part is unmerged, the rest reads as before. */
TEST(unmerging_without_memory)
{
	struct ucow_machine_options options = default_options();
	uint64_t va, own = 0;
	struct world w;

	options.ram_bytes = (uint64_t)2 << 20;
	w = world_open_with(&options);
	va = map_mergeable(w.mm, 400);
	fill(w.cpu, va, 400, 7);
	merge(w.machine);
	map_at(w.mm, va + ((uint64_t)1 << 30), 300, RW, UCOW_MAP_PRIVATE);
	fill(w.cpu, va + ((uint64_t)1 << 30), 300, 1);
	CHECK_EQ(ucow_ksm_unmerge(w.machine), -ENOMEM);
	check_invariants(w.machine);
	CHECK_EQ(ucow_madvise(w.mm, va, 400 * PAGE, UCOW_MADV_UNMERGEABLE), -ENOMEM);
	check_invariants(w.machine);
	for (unsigned i = 0; i < 400; i++) {
		CHECK(holds(w.cpu, va + i * PAGE, 7));
		own += !query(w.mm, va + i * PAGE).ksm;
	}
	CHECK(own > 0 && own < 400);
	CHECK_EQ(ucow_munmap(w.mm, va + ((uint64_t)1 << 30), 300 * PAGE), 0);
	CHECK_EQ(ucow_madvise(w.mm, va, 400 * PAGE, UCOW_MADV_UNMERGEABLE), 0);
	CHECK(no_two_alike(w.mm, va, 400));
	world_close(&w);
}

/* ---- swap ---- */

static void swap_on(struct ucow_machine *machine)
{
	const struct ucow_swap_options options = {
		.size = sizeof(options), .nbytes = (uint64_t)8 << 20, .flags = UCOW_SWAP_MEMORY};

	REQUIRE_EQ(ucow_swapon(machine, &options, NULL), 0);
}

/* Pages that were out and came back, with a slot of swap each, are merged like others; those that are out are not. */
TEST(pages_that_came_back_from_swap_are_merged)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 16);

	swap_on(w.machine);
	fill(w.cpu, va, 16, 7);
	CHECK_EQ(ucow_madvise(w.mm, va, 16 * PAGE, UCOW_MADV_PAGEOUT), 0);
	CHECK(query(w.mm, va).swapped);
	CHECK_EQ(merge(w.machine), 0);
	for (unsigned i = 0; i < 8; i++)
		CHECK(holds(w.cpu, va + i * PAGE, 7));
	CHECK_EQ(merge(w.machine), 7);
	check_invariants(w.machine);
	put64(w.cpu, va + PAGE, 8);
	for (unsigned i = 0; i < 16; i++)
		CHECK_EQ(get64(w.cpu, va + i * PAGE), i == 1 ? 8 : 7);
	world_close(&w);
}

/* Until nothing is left that can go: what was accessed goes in the second round. */
static void reclaim_all(struct world *w)
{
	for (unsigned i = 0; i < 4; i++)
		REQUIRE(ucow_reclaim(w->machine, NULL, 100000) >= 0);
	check_invariants(w->machine);
}

static unsigned count_swapped(struct ucow_mm *mm, uint64_t va, unsigned npages)
{
	unsigned n = 0;

	for (unsigned i = 0; i < npages; i++)
		n += query(mm, va + i * PAGE).swapped;
	return n;
}

/* A merged page goes out by one slot for all of its entries, and comes back as the merged page that it was. */
TEST(merged_pages_are_swapped)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 40);
	struct ucow_machine_stat stat;
	struct ucow_ksm_stat ksm;

	swap_on(w.machine);
	fill(w.cpu, va, 40, 7);
	CHECK_EQ(merge(w.machine), 39);
	reclaim_all(&w);
	CHECK_EQ(count_swapped(w.mm, va, 40), 40);
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 0);
	CHECK_EQ(counted(&w, UCOW_COUNTER_SWAP_OUT), 1);
	CHECK_EQ(stat_of(w.machine).pages_shared, 0);
	CHECK(holds(w.cpu, va + 5 * PAGE, 7));
	CHECK(query(w.mm, va + 5 * PAGE).ksm && !query(w.mm, va + 5 * PAGE).writable);
	put64(w.cpu, va + 6 * PAGE, 8);
	CHECK(!query(w.mm, va + 6 * PAGE).ksm);
	CHECK_EQ(counted(&w, UCOW_COUNTER_KSM_SWAPIN_COPY), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_COPY_KSM), 1);
	check_invariants(w.machine);
	for (unsigned i = 0; i < 40; i++)
		CHECK_EQ(get64(w.cpu, va + i * PAGE), i == 6 ? 8 : 7);
	CHECK_EQ(counted(&w, UCOW_COUNTER_SWAP_IN), 1);
	ksm = stat_of(w.machine);
	CHECK_EQ(ksm.pages_shared, 1);
	CHECK_EQ(ksm.pages_sharing, 38);
	CHECK_EQ(ksm.stale_nodes, 0);
	/* More join it. */
	fill(w.cpu, va + 6 * PAGE, 1, 7);
	CHECK_EQ(merge(w.machine), 1);
	CHECK_EQ(stat_of(w.machine).pages_sharing, 39);
	reclaim_all(&w);
	CHECK_EQ(count_swapped(w.mm, va, 40), 40);
	world_close(&w);
}

/* Equal pages that are there do not wait for one that is out. */
TEST(a_merged_page_that_is_out_takes_nobody_in)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 8);

	swap_on(w.machine);
	fill(w.cpu, va, 4, 7);
	CHECK_EQ(merge(w.machine), 3);
	reclaim_all(&w);
	fill(w.cpu, va + 4 * PAGE, 4, 7);
	CHECK_EQ(merge(w.machine), 3);
	CHECK_EQ(count_swapped(w.mm, va, 8), 4);
	CHECK_EQ(stat_of(w.machine).stale_nodes, 0);
	for (unsigned i = 0; i < 8; i++)
		CHECK(holds(w.cpu, va + i * PAGE, 7));
	CHECK_EQ(stat_of(w.machine).pages_shared, 2);
	CHECK_EQ(ucow_munmap(w.mm, va, 8 * PAGE), 0);
	CHECK_EQ(ucow_ksm_scan(w.machine, 1, NULL), 0);
	CHECK_EQ(stat_of(w.machine).stale_nodes, 2);
	world_close(&w);
}

/* From several spaces, forks and moved memory: all entries are found. */
TEST(merged_pages_of_many_places_are_swapped)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 100), to = va + ((uint64_t)1 << 30) + 5 * PAGE, result;
	struct ucow_mm *child, *grandchild, *other = NULL;
	struct ucow_machine_stat stat;
	struct ucow_cpu *cpu;

	swap_on(w.machine);
	for (unsigned i = 0; i < 100; i++)
		fill(w.cpu, va + i * PAGE, 1, 1 + i % 4);
	child = fork_mm(w.mm);
	REQUIRE_EQ(ucow_mm_create(w.machine, &other), 0);
	cpu = cpu_on(other);
	map_mergeable(other, 100);
	for (unsigned i = 0; i < 100; i++)
		fill(cpu, va + i * PAGE, 1, 1 + i % 4);
	merge(w.machine);
	grandchild = fork_mm(child);
	CHECK_EQ(ucow_mremap(child, va, 100 * PAGE, 100 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, to, &result),
		 0);
	reclaim_all(&w);
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 0);
	CHECK_EQ(count_swapped(w.mm, va, 100), 100);
	CHECK_EQ(count_swapped(child, to, 100), 100);
	CHECK_EQ(count_swapped(grandchild, va, 100), 100);
	CHECK_EQ(count_swapped(other, va, 100), 100);
	ucow_cpu_attach(cpu, child);
	for (unsigned i = 0; i < 100; i++)
		CHECK(holds(cpu, to + i * PAGE, 1 + i % 4) && holds(w.cpu, va + i * PAGE, 1 + i % 4));
	check_invariants(w.machine);
	ucow_cpu_attach(cpu, other);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	reclaim_all(&w);
	fill(cpu, va, 50, 9);
	ucow_cpu_attach(cpu, grandchild);
	for (unsigned i = 0; i < 100; i++)
		CHECK(holds(cpu, va + i * PAGE, 1 + i % 4));
	CHECK_EQ(ucow_mm_destroy(other), 0);
	exit_mm(cpu, grandchild);
	world_close(&w);
}

/* Merged and parted again at the same place, many times: the page is found there as ever. */
TEST(pages_that_are_merged_again_and_again)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 40), state = tap_seed();

	swap_on(w.machine);
	fill(w.cpu, va, 40, 7);
	merge(w.machine);
	for (unsigned round = 0; round < 40; round++) {
		for (unsigned i = 0; i < 10; i++)
			fill(w.cpu, va + draw(&state) % 39 * PAGE, 1, 8 + i);
		for (unsigned i = 0; i < 39; i++)
			fill(w.cpu, va + i * PAGE, 1, 7);
		merge(w.machine);
		CHECK_EQ(stat_of(w.machine).pages_shared, 1);
	}
	reclaim_all(&w);
	CHECK_EQ(count_swapped(w.mm, va, 40), 40);
	for (unsigned i = 0; i < 40; i++)
		CHECK(holds(w.cpu, va + i * PAGE, 7));
	world_close(&w);
}

TEST(swapped_merged_pages_are_unmerged)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 40);

	swap_on(w.machine);
	fill(w.cpu, va, 40, 7);
	merge(w.machine);
	reclaim_all(&w);
	CHECK_EQ(ucow_madvise(w.mm, va, 20 * PAGE, UCOW_MADV_UNMERGEABLE), 0);
	CHECK(no_two_alike(w.mm, va, 20));
	CHECK(query(w.mm, va).present && query(w.mm, va).exclusive);
	check_invariants(w.machine);
	reclaim_all(&w);
	CHECK_EQ(ucow_ksm_unmerge(w.machine), 0);
	CHECK(no_two_alike(w.mm, va, 40));
	for (unsigned i = 0; i < 40; i++)
		CHECK(holds(w.cpu, va + i * PAGE, 7));
	CHECK_EQ(stat_of(w.machine).pages_shared, 0);
	world_close(&w);
}

TEST(swapoff_brings_merged_pages_back)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 40);
	struct ucow_mm *child;

	swap_on(w.machine);
	fill(w.cpu, va, 40, 7);
	merge(w.machine);
	child = fork_mm(w.mm);
	reclaim_all(&w);
	CHECK_EQ(count_swapped(w.mm, va, 40), 40);
	CHECK_EQ(ucow_swapoff(w.machine, 0), 0);
	check_invariants(w.machine);
	for (unsigned i = 0; i < 40; i++) {
		CHECK(query(w.mm, va + i * PAGE).ksm && query(child, va + i * PAGE).ksm);
		CHECK(holds(w.cpu, va + i * PAGE, 7));
	}
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* Reclaim and the scanner take turns with the same pages; whatever they do to them, the bytes stay. */
TEST(merging_under_pressure)
{
	struct ucow_machine_options options = default_options();
	uint64_t va, state = tap_seed(), values[600] = {0};
	struct world w;

	options.ram_bytes = (uint64_t)2 << 20;
	w = world_open_with(&options);
	swap_on(w.machine);
	configure(w.machine, true, 0);
	va = map_mergeable(w.mm, 600);
	for (unsigned step = 0; step < 6000; step++) {
		uint64_t i = draw(&state) % 600;

		if (draw(&state) % 3) {
			CHECK_EQ(get64(w.cpu, va + i * PAGE), values[i]);
		} else {
			values[i] = draw(&state) % 5 * (draw(&state) % 2 ? 1 : i);
			fill(w.cpu, va + i * PAGE, 1, values[i]);
		}
		if (step % 60 == 0)
			CHECK_EQ(ucow_ksm_scan(w.machine, 200, NULL), 0);
		if (step % 600 == 0)
			check_invariants(w.machine);
	}
	CHECK(stat_of(w.machine).merged > 100);
	merge(w.machine);
	for (unsigned i = 0; i < 600; i++)
		CHECK(holds(w.cpu, va + i * PAGE, values[i]));
	world_close(&w);
}

/* ---- the thread ---- */

TEST(the_thread_merges)
{
	struct world w = world_open();
	uint64_t va = map_mergeable(w.mm, 64);

	fill(w.cpu, va, 64, 7);
	CHECK_EQ(ucow_ksm_start(w.machine), 0);
	CHECK_EQ(ucow_ksm_start(w.machine), -EBUSY);
	while (stat_of(w.machine).pages_sharing < 63)
		usleep(1000);
	ucow_ksm_stop(w.machine);
	ucow_ksm_stop(w.machine);
	check_invariants(w.machine);
	for (unsigned i = 0; i < 64; i++)
		CHECK(holds(w.cpu, va + i * PAGE, 7));
	CHECK_EQ(ucow_ksm_start(w.machine), 0); /* the machine's end stops it */
	world_close(&w);
}

enum { WRITERS = 2, WRITTEN = 40, ROUNDS = 60 };

struct writer {
	pthread_t thread;
	struct ucow_mm *mm;
	struct ucow_cpu *cpu;
	uint64_t va, seed;
	bool reclaims, wrong;
};

/* What one stored is there, whatever was merged meanwhile. Most pages rest, so that they can be merged. */
static void write_round(struct writer *w, uint64_t *values)
{
	uint64_t from = draw(&w->seed) % WRITTEN;

	for (unsigned i = 0; i < 64; i++) {
		uint64_t page = (from + draw(&w->seed) % 4) % WRITTEN, value = 0;

		w->wrong |= ucow_load_u64(w->cpu, w->va + page * PAGE, &value) || value != values[page];
		if (draw(&w->seed) % 4)
			continue;
		values[page] = draw(&w->seed) % 3;
		w->wrong |= ucow_store_u64(w->cpu, w->va + page * PAGE, values[page]);
	}
}

static void *write_and_look(void *arg)
{
	struct writer *w = arg;
	uint64_t values[WRITTEN] = {0};
	struct ucow_page *page = NULL;
	struct ucow_mm *child = NULL;

	ucow_cpu_attach(w->cpu, w->mm);
	for (unsigned round = 0; !w->wrong && (round < ROUNDS || stat_of(ucow_mm_machine(w->mm)).merged < 300);
	     round++) {
		uint64_t at = draw(&w->seed) % WRITTEN;

		write_round(w, values);
		if (ucow_pin_user_pages(w->cpu, w->va + at * PAGE, 1, UCOW_FOLL_WRITE, &page) != 1) {
			w->wrong = true;
			break;
		}
		write_round(w, values);
		w->wrong |= device_read64(page) != values[at];
		ucow_unpin_user_pages(&page, 1);
		if (w->reclaims && round % 3 == 0)
			w->wrong |= ucow_reclaim(ucow_mm_machine(w->mm), NULL, 30) < 0;
		if (round % 4 == 0 && !ucow_fork(w->mm, &child))
			w->wrong |= ucow_mm_destroy(child) != 0;
	}
	ucow_cpu_attach(w->cpu, NULL);
	return NULL;
}

static void start_writer(struct world *world, struct writer *w, bool reclaims, uint64_t seed)
{
	*w = (struct writer){.seed = seed, .reclaims = reclaims};
	REQUIRE_EQ(ucow_mm_create(world->machine, &w->mm), 0);
	REQUIRE_EQ(ucow_cpu_create(world->machine, &w->cpu), 0);
	w->va = map_mergeable(w->mm, WRITTEN);
	REQUIRE_EQ(pthread_create(&w->thread, NULL, write_and_look, w), 0);
}

static void check_writers(bool reclaims)
{
	struct world w = world_open();
	struct writer writers[WRITERS];

	if (reclaims)
		swap_on(w.machine);
	configure(w.machine, true, 8);
	CHECK_EQ(ucow_ksm_start(w.machine), 0);
	for (unsigned i = 0; i < WRITERS; i++)
		start_writer(&w, &writers[i], reclaims, tap_seed() + i);
	for (unsigned i = 0; i < WRITERS; i++) {
		REQUIRE_EQ(pthread_join(writers[i].thread, NULL), 0);
		CHECK(!writers[i].wrong);
	}
	for (unsigned i = 0; i < WRITERS; i++)
		exit_mm(writers[i].cpu, writers[i].mm); /* while the thread scans */
	ucow_ksm_stop(w.machine);
	CHECK(stat_of(w.machine).merged > 0);
	world_close(&w);
}

TEST(merging_beside_stores_pins_forks_and_exits)
{
	check_writers(false);
}

TEST(merging_beside_all_that_and_reclaim)
{
	check_writers(true);
}

/* ---- builds without the hash ---- */

static bool is_built(void)
{
	const struct ucow_ksm_options options = {.size = sizeof(options)};
	struct world w = world_open();
	int rc = ucow_ksm_configure(w.machine, &options);

	world_close(&w);
	return rc != -EOPNOTSUPP;
}

TEST(without_a_hash_all_calls_say_so)
{
	const struct ucow_ksm_options options = {.size = sizeof(options)};
	struct world w = world_open();

	if (is_built())
		SKIP("the build has a hash");
	CHECK_EQ(ucow_ksm_configure(w.machine, &options), -EOPNOTSUPP);
	CHECK_EQ(ucow_ksm_scan(w.machine, 1, NULL), -EOPNOTSUPP);
	CHECK_EQ(ucow_ksm_merge(w.machine, NULL), -EOPNOTSUPP);
	CHECK_EQ(ucow_ksm_unmerge(w.machine), -EOPNOTSUPP);
	CHECK_EQ(ucow_ksm_start(w.machine), -EOPNOTSUPP);
	ucow_ksm_stop(w.machine);
	map_mergeable(w.mm, 2); /* the advice is taken, without effect */
	CHECK_EQ(ucow_madvise(w.mm, BASE, 2 * PAGE, UCOW_MADV_UNMERGEABLE), 0);
	CHECK_EQ(stat_of(w.machine).pages_scanned, 0);
	world_close(&w);
}

int main(int argc, char **argv)
{
	char name[] = "without_a_hash_all_calls_say_so", *without[] = {argv[0], name, NULL};

	return is_built() ? tap_main(argc, argv) : tap_main(2, without);
}
