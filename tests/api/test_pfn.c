/* SPDX-License-Identifier: MIT */
/* Memory that is not a page: UCOW_MAP_PFN and ucow_insert_pfn. */
#include "fixture.h"

static uint64_t device_memory[4][512] __attribute__((aligned(4096)));

static uint64_t map_pfn(struct ucow_mm *mm, uint64_t npages, unsigned flags)
{
	return map_at(mm, BASE, npages, RW, flags | UCOW_MAP_PFN);
}

static struct world pfn_world(unsigned flags)
{
	struct world w = world_open();

	map_pfn(w.mm, 4, flags);
	for (unsigned i = 0; i < 4; i++)
		device_memory[i][0] = 100 + i;
	REQUIRE_EQ(ucow_insert_pfn(w.mm, BASE, device_memory[0]), 0);
	REQUIRE_EQ(ucow_insert_pfn(w.mm, BASE + PAGE, device_memory[1]), 0);
	return w;
}

TEST(insert_pfn_refuses_bad_arguments)
{
	struct world w = pfn_world(UCOW_MAP_SHARED);
	uint64_t plain = map_at(w.mm, BASE + 100 * PAGE, 1, RW, UCOW_MAP_PRIVATE);

	CHECK_EQ(ucow_insert_pfn(w.mm, plain, device_memory[2]), -EINVAL);
	CHECK_EQ(ucow_insert_pfn(w.mm, BASE + 200 * PAGE, device_memory[2]), -EINVAL);
	CHECK_EQ(ucow_insert_pfn(w.mm, BASE + 2 * PAGE + 8, device_memory[2]), -EINVAL);
	CHECK_EQ(ucow_insert_pfn(w.mm, BASE + 2 * PAGE, &device_memory[2][1]), -EINVAL);
	CHECK_EQ(ucow_insert_pfn(w.mm, BASE, device_memory[2]), -EBUSY);
	CHECK_EQ(get64(w.cpu, BASE), 100);
	world_close(&w);
}

TEST(shared_stores_go_through_to_the_device)
{
	struct world w = pfn_world(UCOW_MAP_SHARED);
	struct ucow_entry_info e = query(w.mm, BASE);

	CHECK(e.present && e.special && !e.anon && !e.exclusive && !e.zero_page);
	CHECK_EQ(get64(w.cpu, BASE), 100);
	put64(w.cpu, BASE, 7);
	CHECK_EQ(device_memory[0][0], 7);
	device_memory[0][0] = 8;
	CHECK_EQ(get64(w.cpu, BASE), 8);
	world_close(&w);
}

/* A store into a private mapping copies the bytes into a page; the device is never written to. */
TEST(private_stores_copy)
{
	struct world w = pfn_world(UCOW_MAP_PRIVATE);
	struct ucow_entry_info e;

	CHECK_EQ(get64(w.cpu, BASE), 100);
	device_memory[0][1] = 55;
	put64(w.cpu, BASE, 7);
	CHECK_EQ(device_memory[0][0], 100);
	CHECK_EQ(get64(w.cpu, BASE), 7);
	CHECK_EQ(get64(w.cpu, BASE + 8), 55);
	device_memory[0][1] = 56;
	CHECK_EQ(get64(w.cpu, BASE + 8), 55);
	e = query(w.mm, BASE);
	CHECK(e.anon && e.exclusive && !e.special);
	CHECK_EQ(counted(&w, UCOW_COUNTER_COPY_FILE), 1);
	world_close(&w);
}

TEST(pages_without_an_entry_are_sigbus)
{
	static const unsigned kinds[] = {UCOW_MAP_SHARED, UCOW_MAP_PRIVATE};

	for (int i = 0; i < 2; i++) {
		struct world w = pfn_world(kinds[i]);
		uint64_t value;

		CHECK_EQ(ucow_load_u64(w.cpu, BASE + 2 * PAGE, &value), -ENXIO);
		CHECK_EQ(ucow_store_u64(w.cpu, BASE + 2 * PAGE, 1), -ENXIO);
		CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_SIGBUS), 2);
		CHECK_EQ(ucow_insert_pfn(w.mm, BASE + 2 * PAGE, device_memory[2]), 0);
		CHECK_EQ(ucow_load_u64(w.cpu, BASE + 2 * PAGE, &value), 0);
		CHECK_EQ(value, 102);
		world_close(&w);
	}
}

/* There is no page to refer to: every kind of reference is refused, and nothing is faulted in on the way. */
TEST(references_are_refused)
{
	static const unsigned kinds[] = {UCOW_MAP_SHARED, UCOW_MAP_PRIVATE};
	static const unsigned flags[] = {0, UCOW_FOLL_WRITE, UCOW_FOLL_FORCE, UCOW_FOLL_WRITE | UCOW_FOLL_FORCE};

	for (int i = 0; i < 2; i++)
		for (int k = 0; k < 4; k++) {
			struct world w = pfn_world(kinds[i]);
			struct ucow_page *page;

			CHECK_EQ(ucow_get_user_pages(w.cpu, BASE, 1, flags[k], &page), -EFAULT);
			CHECK_EQ(ucow_get_user_pages_fast(w.cpu, BASE, 1, flags[k], &page), -EFAULT);
			CHECK_EQ(ucow_pin_user_pages(w.cpu, BASE, 2, flags[k], &page), -EFAULT);
			CHECK_EQ(ucow_pin_user_pages_fast(w.cpu, BASE, 1, flags[k] | UCOW_FOLL_LONGTERM, &page),
				 -EFAULT);
			CHECK_EQ(ucow_pin_user_pages_remote(w.mm, BASE, 1, flags[k], &page), -EFAULT);
			CHECK(query(w.mm, BASE).special);
			world_close(&w);
		}
}

TEST(fork_copies_the_entry)
{
	struct world w = pfn_world(UCOW_MAP_SHARED);
	struct ucow_mm *child = fork_mm(w.mm);
	struct ucow_cpu *cpu = cpu_on(child);

	CHECK(query(child, BASE).present && query(child, BASE).special);
	put64(cpu, BASE, 7);
	CHECK_EQ(device_memory[0][0], 7);
	CHECK_EQ(get64(w.cpu, BASE), 7);
	exit_mm(cpu, child);
	CHECK_EQ(get64(w.cpu, BASE + PAGE), 101);
	world_close(&w);
}

/* The child's and the parent's private copies are theirs; what neither wrote shows the device. */
TEST(fork_of_a_private_mapping_copies_on_write)
{
	struct world w = pfn_world(UCOW_MAP_PRIVATE);
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	put64(w.cpu, BASE, 1);
	child = fork_mm(w.mm);
	cpu = cpu_on(child);
	CHECK(query(child, BASE).anon && query(child, BASE + PAGE).special);
	put64(cpu, BASE, 2);
	put64(cpu, BASE + PAGE, 3);
	CHECK_EQ(get64(w.cpu, BASE), 1);
	CHECK_EQ(get64(w.cpu, BASE + PAGE), 101);
	CHECK_EQ(device_memory[0][0], 100);
	CHECK_EQ(device_memory[1][0], 101);
	exit_mm(cpu, child);
	world_close(&w);
}

TEST(protection_applies)
{
	struct world w = pfn_world(UCOW_MAP_SHARED);
	uint64_t value;

	put64(w.cpu, BASE, 1);
	CHECK_EQ(ucow_mprotect(w.mm, BASE, 4 * PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_store_u64(w.cpu, BASE, 2), -EFAULT);
	CHECK_EQ(ucow_load_u64(w.cpu, BASE, &value), 0);
	CHECK_EQ(device_memory[0][0], 1);
	CHECK_EQ(ucow_mprotect(w.mm, BASE, 4 * PAGE, RW), 0);
	put64(w.cpu, BASE, 3);
	CHECK_EQ(device_memory[0][0], 3);
	world_close(&w);
}

/* Unmapping and exit touch no counts: there is nothing to count. */
TEST(unmapping_leaves_the_device_alone)
{
	struct world w = pfn_world(UCOW_MAP_SHARED);
	uint64_t value;

	CHECK_EQ(ucow_munmap(w.mm, BASE, PAGE), 0);
	CHECK_EQ(ucow_load_u64(w.cpu, BASE, &value), -EFAULT);
	CHECK_EQ(get64(w.cpu, BASE + PAGE), 101);
	CHECK_EQ(device_memory[0][0], 100);
	world_close(&w);
}

/* What would need pages, or a fresh one, is refused; the entries stay. */
TEST(calls_that_need_pages_are_refused)
{
	struct world w = pfn_world(UCOW_MAP_PRIVATE);
	unsigned move = UCOW_MREMAP_MAYMOVE;
	uint64_t result = 0;

	CHECK_EQ(ucow_madvise(w.mm, BASE, 2 * PAGE, UCOW_MADV_DONTNEED), -EINVAL);
	CHECK_EQ(ucow_madvise(w.mm, BASE, 2 * PAGE, UCOW_MADV_FREE), -EINVAL);
	CHECK_EQ(ucow_madvise(w.mm, BASE, 2 * PAGE, UCOW_MADV_WIPEONFORK), -EINVAL);
	CHECK_EQ(ucow_madvise(w.mm, BASE, 2 * PAGE, UCOW_MADV_DOFORK), -EINVAL);
	CHECK_EQ(ucow_mremap(w.mm, BASE, 4 * PAGE, 4 * PAGE, move | UCOW_MREMAP_DONTUNMAP, 0, &result), -EINVAL);
	CHECK_EQ(ucow_mremap(w.mm, BASE, 4 * PAGE, 5 * PAGE, move, 0, &result), -EFAULT);
	CHECK_EQ(get64(w.cpu, BASE), 100);
	CHECK_EQ(get64(w.cpu, BASE + PAGE), 101);
	world_close(&w);
}

TEST(moving_moves_the_entries)
{
	struct world w = pfn_world(UCOW_MAP_SHARED);
	uint64_t to = BASE + 100 * PAGE, result;

	CHECK_EQ(ucow_mremap(w.mm, BASE, 4 * PAGE, 4 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, to, &result), 0);
	CHECK_EQ(get64(w.cpu, to), 100);
	put64(w.cpu, to + PAGE, 5);
	CHECK_EQ(device_memory[1][0], 5);
	CHECK(!query(w.mm, BASE).mapped);
	world_close(&w);
}

/* Merging neighbours would let one device's mapping be moved together with another's. */
TEST(neighbouring_mappings_stay_two_while_halves_become_one_again)
{
	struct world w = pfn_world(UCOW_MAP_SHARED);
	uint64_t beside = map_at(w.mm, BASE + 4 * PAGE, 2, RW, UCOW_MAP_SHARED | UCOW_MAP_PFN), moved;

	CHECK_EQ(beside, BASE + 4 * PAGE);
	/* Two mappings are -EFAULT to a call that leaves the old ones there, one of this kind is -EINVAL. */
	CHECK_EQ(ucow_mremap(w.mm, BASE, 6 * PAGE, 6 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_DONTUNMAP, 0, &moved),
		 -EFAULT);
	CHECK_EQ(ucow_mprotect(w.mm, BASE, 2 * PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_mprotect(w.mm, BASE, 2 * PAGE, RW), 0);
	CHECK_EQ(ucow_mremap(w.mm, BASE, 4 * PAGE, 4 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_DONTUNMAP, 0, &moved),
		 -EINVAL);
	CHECK_EQ(ucow_mremap(w.mm, BASE, 4 * PAGE, 4 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, BASE + 64 * PAGE,
			     &moved),
		 0);
	CHECK_EQ(get64(w.cpu, BASE + 64 * PAGE), 100);
	world_close(&w);
}

/* In no RSS and no frame count. */
TEST(special_memory_is_in_no_account)
{
	struct world w = pfn_world(UCOW_MAP_SHARED);
	struct ucow_machine_stat machine;
	struct ucow_mm_stat stat;

	put64(w.cpu, BASE, 1);
	ucow_mm_stat(w.mm, &stat);
	ucow_machine_stat(w.machine, &machine);
	CHECK_EQ(stat.rss_anon, 0);
	CHECK_EQ(stat.rss_file, 0);
	CHECK_EQ(machine.used_pages, 0);
	CHECK_EQ(stat.mapped_pages, 4);
	world_close(&w);
}

TAP_MAIN()
