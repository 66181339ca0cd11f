/* SPDX-License-Identifier: MIT */
/* madvise: every advice, its errors and its effects. */
#include "fixture.h"

TEST(madvise_refuses_bad_arguments)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);

	put64(w.cpu, va, 7);
	CHECK_EQ(ucow_madvise(w.mm, va + 1, PAGE, UCOW_MADV_DONTNEED), -EINVAL);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_COUNT), -EINVAL);
	CHECK(ucow_madvise(w.mm, va, UINT64_MAX - PAGE, UCOW_MADV_DONTNEED) < 0);
	CHECK_EQ(get64(w.cpu, va), 7);
	world_close(&w);
}

TEST(madvise_of_nothing_succeeds)
{
	struct world w = world_open();

	for (int advice = 0; advice < UCOW_MADV_COUNT; advice++)
		CHECK_EQ(ucow_madvise(w.mm, BASE, 0, advice), 0);
	CHECK_EQ(ucow_madvise(w.mm, UCOW_ADDRESS_LIMIT, PAGE, UCOW_MADV_DONTNEED), -ENOMEM);
	world_close(&w);
}

TEST(every_advice_reports_a_hole)
{
	struct world w = world_open();

	map_at(w.mm, BASE, 1, RW, UCOW_MAP_PRIVATE);
	map_at(w.mm, BASE + 2 * PAGE, 1, RW, UCOW_MAP_PRIVATE);
	for (int advice = 0; advice < UCOW_MADV_COUNT; advice++) {
		CHECK_EQ(ucow_madvise(w.mm, BASE, 3 * PAGE, advice), -ENOMEM);
		CHECK_EQ(ucow_madvise(w.mm, BASE + PAGE, PAGE, advice), -ENOMEM);
		CHECK_EQ(ucow_madvise(w.mm, BASE, PAGE, advice), 0);
	}
	world_close(&w);
}

TEST(dontneed_drops_private_pages)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	struct ucow_machine_stat stat;

	for (unsigned i = 0; i < 4; i++)
		put64(w.cpu, va + i * PAGE, 7);
	CHECK_EQ(ucow_madvise(w.mm, va + PAGE, 2 * PAGE, UCOW_MADV_DONTNEED), 0);
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 2);
	CHECK_EQ(get64(w.cpu, va), 7);
	CHECK_EQ(get64(w.cpu, va + PAGE), 0);
	CHECK_EQ(get64(w.cpu, va + 2 * PAGE), 0);
	CHECK_EQ(get64(w.cpu, va + 3 * PAGE), 7);
	world_close(&w);
}

/* DONTNEED works on a read-only and an inaccessible range too. */
TEST(dontneed_does_not_ask_for_permission)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);

	put64(w.cpu, va, 7);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_NONE), 0);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(get64(w.cpu, va), 0);
	world_close(&w);
}

/* One sharer's DONTNEED is nothing to the other. */
TEST(dontneed_after_fork_leaves_the_other_space_alone)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	put64(w.cpu, va, 7);
	child = fork_mm(w.mm);
	cpu = cpu_on(child);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(get64(w.cpu, va), 0);
	CHECK_EQ(get64(cpu, va), 7);
	exit_mm(cpu, child);
	world_close(&w);
}

TEST(dontfork_is_absent_and_dofork_brings_it_back)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 3), value;
	struct ucow_mm *child;

	for (unsigned i = 0; i < 3; i++)
		put64(w.cpu, va + i * PAGE, i + 1);
	CHECK_EQ(ucow_madvise(w.mm, va + PAGE, PAGE, UCOW_MADV_DONTFORK), 0);
	child = fork_mm(w.mm);
	CHECK(query(child, va).mapped && !query(child, va + PAGE).mapped && query(child, va + 2 * PAGE).mapped);
	CHECK_EAGER(query(w.mm, va + PAGE).exclusive && query(w.mm, va + PAGE).writable); /* fork did not touch it */
	ucow_cpu_attach(w.cpu, child);
	CHECK_EQ(ucow_load_u64(w.cpu, va + PAGE, &value), -EFAULT);
	CHECK_EQ(get64(w.cpu, va + 2 * PAGE), 3);
	ucow_cpu_attach(w.cpu, w.mm);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	CHECK_EQ(ucow_madvise(w.mm, va, 3 * PAGE, UCOW_MADV_DOFORK), 0);
	child = fork_mm(w.mm);
	CHECK(query(child, va + PAGE).mapped);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(wipeonfork_is_empty_in_children_and_their_children)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	struct ucow_mm *child, *grandchild;
	struct ucow_cpu *cpu;

	put64(w.cpu, va, 7);
	put64(w.cpu, va + PAGE, 8);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_WIPEONFORK), 0);
	child = fork_mm(w.mm);
	cpu = cpu_on(child);
	CHECK(query(child, va).mapped && !query(child, va).present);
	CHECK_EQ(get64(cpu, va), 0);
	CHECK_EQ(get64(cpu, va + PAGE), 8);
	CHECK_EAGER(query(w.mm, va).exclusive);
	CHECK_EQ(get64(w.cpu, va), 7);
	put64(cpu, va, 9);
	grandchild = fork_mm(child);
	ucow_cpu_attach(cpu, grandchild);
	CHECK_EQ(get64(cpu, va), 0);
	exit_mm(cpu, grandchild);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_KEEPONFORK), 0);
	child = fork_mm(w.mm);
	cpu = cpu_on(child);
	CHECK_EQ(get64(cpu, va), 7);
	exit_mm(cpu, child);
	world_close(&w);
}

TEST(wipeonfork_and_free_are_for_private_memory)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 1);

	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_WIPEONFORK), -EINVAL);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_FREE), -EINVAL);
	world_close(&w);
}

/* Without pressure MADV_FREE loses nothing, and a store afterwards keeps the page for good. */
TEST(free_keeps_contents_without_pressure)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);

	put64(w.cpu, va, 7);
	put64(w.cpu, va + PAGE, 8);
	CHECK_EQ(ucow_madvise(w.mm, va, 2 * PAGE, UCOW_MADV_FREE), 0);
	CHECK_EQ(get64(w.cpu, va), 7);
	put64(w.cpu, va + PAGE, 9);
	CHECK_EQ(get64(w.cpu, va + PAGE), 9);
	CHECK(query(w.mm, va + PAGE).dirty);
	world_close(&w);
}

/* The sixteen cases of the kernel's madv_populate that apply: semantics.md A.7. */
TEST(populate_read_maps_without_dirtying)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 40);

	CHECK(!query(w.mm, va).present);
	CHECK_EQ(ucow_madvise(w.mm, va, 40 * PAGE, UCOW_MADV_POPULATE_READ), 0);
	for (unsigned i = 0; i < 40; i++) {
		struct ucow_entry_info e = query(w.mm, va + i * PAGE);

		CHECK(e.present && e.zero_page && !e.dirty && !e.writable);
	}
	world_close(&w);
}

TEST(populate_write_breaks_copy_on_write)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 3);
	struct ucow_mm *child;

	put64(w.cpu, va, 7);
	child = fork_mm(w.mm);
	CHECK_EQ(ucow_madvise(w.mm, va, 3 * PAGE, UCOW_MADV_POPULATE_WRITE), 0);
	for (unsigned i = 0; i < 3; i++) {
		struct ucow_entry_info e = query(w.mm, va + i * PAGE);

		CHECK(e.present && e.exclusive && e.writable && e.dirty);
	}
	CHECK(query(w.mm, va).pfn != query(child, va).pfn);
	CHECK_EQ(get64(w.cpu, va), 7);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(populate_respects_permissions)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 3);

	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_POPULATE_READ), 0);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_POPULATE_WRITE), -EINVAL);
	CHECK_EQ(ucow_mprotect(w.mm, va + PAGE, PAGE, UCOW_PROT_WRITE), 0);
	CHECK_EQ(ucow_madvise(w.mm, va + PAGE, PAGE, UCOW_MADV_POPULATE_READ), -EINVAL);
	CHECK_EQ(ucow_madvise(w.mm, va + PAGE, PAGE, UCOW_MADV_POPULATE_WRITE), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va + 2 * PAGE, PAGE, UCOW_PROT_NONE), 0);
	CHECK_EQ(ucow_madvise(w.mm, va + 2 * PAGE, PAGE, UCOW_MADV_POPULATE_READ), -EINVAL);
	CHECK_EQ(ucow_madvise(w.mm, va + 2 * PAGE, PAGE, UCOW_MADV_POPULATE_WRITE), -EINVAL);
	world_close(&w);
}

/* Pages in front of the obstacle are populated, pages behind it are not. */
TEST(populate_stops_at_the_obstacle)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 6);

	CHECK_EQ(ucow_munmap(w.mm, va + 2 * PAGE, PAGE), 0);
	CHECK_EQ(ucow_madvise(w.mm, va, 6 * PAGE, UCOW_MADV_POPULATE_WRITE), -ENOMEM);
	CHECK(query(w.mm, va + PAGE).present && !query(w.mm, va + 3 * PAGE).present);
	world_close(&w);
}

TEST(populate_of_a_shared_mapping_beyond_its_object_fails)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 2), result;

	CHECK_EQ(ucow_mremap(w.mm, va, 2 * PAGE, 4 * PAGE, 0, 0, &result), 0);
	CHECK_EQ(ucow_madvise(w.mm, va, 2 * PAGE, UCOW_MADV_POPULATE_WRITE), 0);
	CHECK_EQ(ucow_madvise(w.mm, va, 4 * PAGE, UCOW_MADV_POPULATE_READ), -EFAULT);
	CHECK_EQ(ucow_madvise(w.mm, va, 4 * PAGE, UCOW_MADV_POPULATE_WRITE), -EFAULT);
	world_close(&w);
}

/* The hint is for the next access: the access works, is counted, and clears it. */
TEST(numa_hint_costs_one_fault)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);

	put64(w.cpu, va, 7);
	CHECK_EQ(ucow_numa_hint(w.mm, va, 2 * PAGE), 0);
	CHECK(query(w.mm, va).protnone);
	CHECK_EQ(get64(w.cpu, va), 7);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_NUMA), 1);
	CHECK(!query(w.mm, va).protnone);
	CHECK_EQ(get64(w.cpu, va), 7);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_NUMA), 1);
	world_close(&w);
}

/* semantics.md B.6: the zero page, and in private mappings pinned or shared pages, are left alone. */
TEST(numa_hint_spares_what_the_rules_exempt)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 3), value;
	struct ucow_page *page;
	struct ucow_mm *child;

	CHECK_EQ(ucow_load_u64(w.cpu, va, &value), 0); /* zero page */
	put64(w.cpu, va + PAGE, 1);
	put64(w.cpu, va + 2 * PAGE, 1);
	child = fork_mm(w.mm);
	put64(w.cpu, va + 2 * PAGE, 2);
	page = pin_page(w.cpu, va + 2 * PAGE, UCOW_FOLL_WRITE);
	CHECK_EQ(ucow_numa_hint(w.mm, va, 3 * PAGE), 0);
	for (unsigned i = 0; i < 3; i++)
		CHECK(!query(w.mm, va + i * PAGE).protnone);
	ucow_unpin_user_pages(&page, 1);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(numa_hint_refuses_bad_ranges)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);

	CHECK_EQ(ucow_numa_hint(w.mm, va + 1, PAGE), -EINVAL);
	CHECK_EQ(ucow_numa_hint(w.mm, va, 2 * PAGE), -ENOMEM);
	world_close(&w);
}

TAP_MAIN()
