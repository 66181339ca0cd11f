/* SPDX-License-Identifier: MIT */
/* Locked memory: what is fetched, what stays under pressure, limits, fork, and what refuses to touch it (mlock(2)). */
#include "fixture.h"

#include <errno.h>

static void add_device(struct ucow_machine *machine, uint64_t npages)
{
	const struct ucow_swap_options options = {
		.size = sizeof(options),
		.nbytes = npages * PAGE,
		.flags = UCOW_SWAP_MEMORY,
	};

	REQUIRE_EQ(ucow_swapon(machine, &options, NULL), 0);
}

static uint64_t locked(struct ucow_mm *mm)
{
	struct ucow_mm_stat stat;

	ucow_mm_stat(mm, &stat);
	return stat.locked_pages;
}

static uint64_t mappings(struct ucow_mm *mm)
{
	struct ucow_mm_stat stat;

	ucow_mm_stat(mm, &stat);
	return stat.mappings;
}

/* Take what can be taken. */
static void press(struct ucow_machine *machine)
{
	for (unsigned i = 0; i < 4; i++)
		(void)ucow_reclaim(machine, NULL, 1000);
}

static unsigned present(struct ucow_mm *mm, uint64_t va, uint64_t npages)
{
	unsigned n = 0;

	for (uint64_t i = 0; i < npages; i++)
		n += query(mm, va + i * PAGE).present;
	return n;
}

TEST(mlock_fetches_for_writing)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);

	CHECK_EQ(ucow_mlock(w.mm, va + PAGE, 2 * PAGE, 0), 0);
	CHECK_EQ(locked(w.mm), 2);
	CHECK_EQ(mappings(w.mm), 3);
	CHECK_EQ(present(w.mm, va, 4), 2);
	CHECK(query(w.mm, va + PAGE).writable);
	CHECK(!query(w.mm, va).present);
	check_invariants(w.machine);
	CHECK_EQ(ucow_munlock(w.mm, va, 4 * PAGE), 0);
	CHECK_EQ(locked(w.mm), 0);
	CHECK_EQ(mappings(w.mm), 1);
	check_invariants(w.machine);
	world_close(&w);
}

TEST(mlock_of_memory_that_is_only_read)
{
	struct world w = world_open();
	uint64_t va = map_at(w.mm, BASE, 2, UCOW_PROT_READ, UCOW_MAP_PRIVATE), shared = BASE + 32 * PAGE;

	CHECK_EQ(ucow_mlock(w.mm, va, 2 * PAGE, 0), 0);
	CHECK(query(w.mm, va).zero_page);
	map_at(w.mm, shared, 2, RW, UCOW_MAP_SHARED);
	CHECK_EQ(ucow_mlock(w.mm, shared, 2 * PAGE, 0), 0);
	CHECK_EQ(present(w.mm, shared, 2), 2);
	CHECK(!query(w.mm, shared).dirty);
	check_invariants(w.machine);
	world_close(&w);
}

/* Addresses are rounded down, lengths up. */
TEST(mlock_rounds)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);

	CHECK_EQ(ucow_mlock(w.mm, va + PAGE + 5, PAGE, 0), 0);
	CHECK_EQ(locked(w.mm), 2);
	CHECK_EQ(ucow_mlock(w.mm, va, 0, 0), 0);
	CHECK_EQ(locked(w.mm), 2);
	world_close(&w);
}

TEST(locked_pages_stay)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 64);

	add_device(w.machine, 256);
	for (uint64_t i = 0; i < 64; i++)
		put64(w.cpu, va + i * PAGE, i);
	CHECK_EQ(ucow_mlock(w.mm, va, 20 * PAGE, 0), 0);
	press(w.machine);
	CHECK_EQ(present(w.mm, va, 20), 20);
	CHECK(present(w.mm, va + 20 * PAGE, 44) < 44);
	check_invariants(w.machine);
	CHECK_EQ(ucow_munlock(w.mm, va, 20 * PAGE), 0);
	press(w.machine);
	CHECK(present(w.mm, va, 20) < 20);
	for (uint64_t i = 0; i < 64; i++)
		CHECK_EQ(get64(w.cpu, va + i * PAGE), i);
	world_close(&w);
}

/* What is out comes back to be locked; what comes later is locked when it comes. */
TEST(mlock_fetches_from_swap)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 8);

	add_device(w.machine, 64);
	for (uint64_t i = 0; i < 4; i++)
		put64(w.cpu, va + i * PAGE, i);
	CHECK_EQ(ucow_madvise(w.mm, va, 8 * PAGE, UCOW_MADV_PAGEOUT), 0);
	CHECK_EQ(present(w.mm, va, 8), 0);
	CHECK_EQ(ucow_mlock(w.mm, va, 2 * PAGE, 0), 0);
	CHECK_EQ(present(w.mm, va, 8), 2);
	CHECK_EQ(ucow_mlock(w.mm, va + 2 * PAGE, 6 * PAGE, UCOW_MLOCK_ONFAULT), 0);
	CHECK_EQ(present(w.mm, va, 8), 2);
	CHECK_EQ(get64(w.cpu, va + 2 * PAGE), 2);
	put64(w.cpu, va + 5 * PAGE, 5);
	check_invariants(w.machine);
	press(w.machine);
	CHECK(query(w.mm, va + 2 * PAGE).present);
	CHECK(query(w.mm, va + 5 * PAGE).present);
	CHECK(!query(w.mm, va + 3 * PAGE).present);
	/* Locked anew, without reserve: the rest comes. */
	CHECK_EQ(ucow_mlock(w.mm, va, 8 * PAGE, 0), 0);
	CHECK_EQ(present(w.mm, va, 8), 8);
	CHECK_EQ(mappings(w.mm), 1);
	world_close(&w);
}

TEST(copies_are_locked_too)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	add_device(w.machine, 64);
	for (uint64_t i = 0; i < 4; i++)
		put64(w.cpu, va + i * PAGE, i);
	CHECK_EQ(ucow_mlock(w.mm, va, 4 * PAGE, 0), 0);
	child = fork_mm(w.mm);
	cpu = cpu_on(child);
	CHECK_EQ(locked(child), 0);
	CHECK_EQ(locked(w.mm), 4);
	check_invariants(w.machine);
	put64(w.cpu, va, 10);
	put64(cpu, va + PAGE, 11);
	check_invariants(w.machine);
	press(w.machine);
	CHECK_EQ(present(w.mm, va, 4), 4);
	CHECK(!query(child, va + PAGE).present); /* the child's own */
	CHECK_EQ(get64(cpu, va), 0);
	CHECK_EQ(get64(cpu, va + PAGE), 11);
	CHECK_EQ(get64(w.cpu, va), 10);
	exit_mm(cpu, child);
	check_invariants(w.machine);
	world_close(&w);
}

TEST(holes_and_bad_arguments)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	struct ucow_mm *snapshot = NULL;

	CHECK_EQ(ucow_munmap(w.mm, va + 2 * PAGE, PAGE), 0);
	CHECK_EQ(ucow_mlock(w.mm, va, 4 * PAGE, 0), -ENOMEM);
	CHECK_EQ(locked(w.mm), 2); /* what comes before the hole */
	CHECK_EQ(ucow_mlock(w.mm, va + 2 * PAGE, PAGE, 0), -ENOMEM);
	CHECK_EQ(ucow_munlock(w.mm, va, 4 * PAGE), -ENOMEM);
	CHECK_EQ(locked(w.mm), 0);
	CHECK_EQ(ucow_mlock(w.mm, va, PAGE, 2), -EINVAL);
	CHECK_EQ(ucow_mlock(w.mm, va, ~(uint64_t)0, 0), -EINVAL);
	CHECK_EQ(ucow_mlock(w.mm, 0, PAGE, 0), -ENOMEM);
	CHECK_EQ(ucow_mlockall(w.mm, 0), -EINVAL);
	CHECK_EQ(ucow_mlockall(w.mm, UCOW_MCL_ONFAULT), -EINVAL);
	CHECK_EQ(ucow_mlockall(w.mm, 8), -EINVAL);
	REQUIRE_EQ(ucow_snapshot(w.mm, &snapshot), 0);
	CHECK_EQ(ucow_mlock(snapshot, va, PAGE, 0), -EACCES);
	CHECK_EQ(ucow_munlock(snapshot, va, PAGE), -EACCES);
	CHECK_EQ(ucow_mlockall(snapshot, UCOW_MCL_CURRENT), -EACCES);
	CHECK_EQ(ucow_munlockall(snapshot), -EACCES);
	CHECK_EQ(ucow_mm_destroy(snapshot), 0);
	world_close(&w);
}

TEST(memory_without_permissions_is_locked_and_reported)
{
	struct world w = world_open();
	uint64_t va = map_at(w.mm, BASE, 2, UCOW_PROT_NONE, UCOW_MAP_PRIVATE);

	CHECK_EQ(ucow_mlock(w.mm, va, 2 * PAGE, 0), -ENOMEM);
	CHECK_EQ(locked(w.mm), 2);
	CHECK_EQ(ucow_mprotect(w.mm, va, 2 * PAGE, RW), 0);
	put64(w.cpu, va, 1);
	check_invariants(w.machine);
	world_close(&w);
}

TEST(the_limit_holds)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 16), result;
	struct ucow_mm *child;

	ucow_mm_set_lock_limit(w.mm, 8);
	CHECK_EQ(ucow_mlock(w.mm, va, 9 * PAGE, 0), -ENOMEM);
	CHECK_EQ(locked(w.mm), 0);
	CHECK_EQ(ucow_mlock(w.mm, va, 6 * PAGE, 0), 0);
	/* What is locked already does not count twice. */
	CHECK_EQ(ucow_mlock(w.mm, va + 2 * PAGE, 6 * PAGE, 0), 0);
	CHECK_EQ(locked(w.mm), 8);
	CHECK_EQ(ucow_mlock(w.mm, va + 8 * PAGE, PAGE, 0), -ENOMEM);
	CHECK_EQ(ucow_mlockall(w.mm, UCOW_MCL_CURRENT), -ENOMEM);
	CHECK_EQ(ucow_munmap(w.mm, va, 4 * PAGE), 0);
	CHECK_EQ(locked(w.mm), 4);
	CHECK_EQ(ucow_mlock(w.mm, va + 8 * PAGE, 4 * PAGE, 0), 0);
	CHECK_EQ(ucow_mremap(w.mm, va + 8 * PAGE, 4 * PAGE, 8 * PAGE, UCOW_MREMAP_MAYMOVE, 0, &result), -EAGAIN);
	/* A child has the limit, not the locks. */
	child = fork_mm(w.mm);
	CHECK_EQ(locked(child), 0);
	CHECK_EQ(ucow_mlock(child, va + 4 * PAGE, 9 * PAGE, 0), -ENOMEM);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	ucow_mm_set_lock_limit(w.mm, 0);
	CHECK_EQ(ucow_mlock(w.mm, va + 4 * PAGE, PAGE, 0), -EPERM);
	CHECK_EQ(ucow_mlockall(w.mm, UCOW_MCL_CURRENT), -EPERM);
	CHECK_EQ(ucow_munlockall(w.mm), 0);
	CHECK_EQ(locked(w.mm), 0);
	world_close(&w);
}

TEST(mlockall_now_and_later)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4), later = BASE + 64 * PAGE, result;

	CHECK_EQ(ucow_mlockall(w.mm, UCOW_MCL_CURRENT), 0);
	CHECK_EQ(locked(w.mm), 4);
	CHECK_EQ(present(w.mm, va, 4), 4);
	map_at(w.mm, later, 2, RW, UCOW_MAP_PRIVATE);
	CHECK_EQ(locked(w.mm), 4);
	CHECK_EQ(ucow_mlockall(w.mm, UCOW_MCL_FUTURE), 0);
	map_at(w.mm, later + 32 * PAGE, 2, RW, UCOW_MAP_PRIVATE);
	CHECK_EQ(locked(w.mm), 6);
	CHECK_EQ(present(w.mm, later + 32 * PAGE, 2), 2);
	CHECK_EQ(ucow_mlockall(w.mm, UCOW_MCL_FUTURE | UCOW_MCL_ONFAULT), 0);
	map_at(w.mm, later + 64 * PAGE, 2, RW, UCOW_MAP_PRIVATE);
	CHECK_EQ(locked(w.mm), 8);
	CHECK_EQ(present(w.mm, later + 64 * PAGE, 2), 0);
	ucow_mm_set_lock_limit(w.mm, 9);
	CHECK_EQ(ucow_mmap(w.mm, 0, 2 * PAGE, RW, UCOW_MAP_PRIVATE, &result), -EAGAIN);
	CHECK_EQ(ucow_mmap(w.mm, 0, PAGE, RW, UCOW_MAP_PRIVATE, &result), 0);
	CHECK_EQ(locked(w.mm), 9);
	CHECK_EQ(ucow_munlockall(w.mm), 0);
	CHECK_EQ(locked(w.mm), 0);
	CHECK_EQ(ucow_mmap(w.mm, 0, 20 * PAGE, RW, UCOW_MAP_PRIVATE, &result), 0);
	CHECK_EQ(locked(w.mm), 0);
	check_invariants(w.machine);
	world_close(&w);
}

TEST(advice_refuses_what_is_locked)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);

	add_device(w.machine, 64);
	put64(w.cpu, va + PAGE, 7);
	CHECK_EQ(ucow_mlock(w.mm, va + PAGE, PAGE, 0), 0);
	CHECK_EQ(ucow_madvise(w.mm, va, 4 * PAGE, UCOW_MADV_DONTNEED), -EINVAL);
	CHECK_EQ(ucow_madvise(w.mm, va, 4 * PAGE, UCOW_MADV_FREE), -EINVAL);
	CHECK_EQ(ucow_madvise(w.mm, va, 4 * PAGE, UCOW_MADV_COLD), -EINVAL);
	CHECK_EQ(ucow_madvise(w.mm, va, 4 * PAGE, UCOW_MADV_PAGEOUT), -EINVAL);
	CHECK_EQ(get64(w.cpu, va + PAGE), 7);
	world_close(&w);
}

TEST(mremap_takes_the_lock_along)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4), to = BASE + 128 * PAGE, result;

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_mlock(w.mm, va, 4 * PAGE, 0), 0);
	CHECK_EQ(ucow_mremap(w.mm, va, 4 * PAGE, 8 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, to, &result), 0);
	CHECK_EQ(locked(w.mm), 8);
	CHECK_EQ(present(w.mm, to, 8), 8);
	check_invariants(w.machine);
	CHECK_EQ(ucow_mremap(w.mm, to, 8 * PAGE, 8 * PAGE,
			     UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED | UCOW_MREMAP_DONTUNMAP, va, &result),
		 0);
	CHECK_EQ(locked(w.mm), 8);
	CHECK_EQ(get64(w.cpu, to), 0);
	CHECK_EQ(get64(w.cpu, va), 1);
	check_invariants(w.machine);
	world_close(&w);
}

/* The pages of mappings next to it, below the same tables, are nobody's business. */
TEST(unlocked_neighbours_go)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 32);
	struct ucow_mm *child;

	add_device(w.machine, 256);
	for (uint64_t i = 0; i < 32; i++)
		put64(w.cpu, va + i * PAGE, i);
	CHECK_EQ(ucow_mlock(w.mm, va + 8 * PAGE, 2 * PAGE, 0), 0);
	child = fork_mm(w.mm);
	press(w.machine);
	CHECK_EQ(present(w.mm, va + 8 * PAGE, 2), 2);
	CHECK(present(w.mm, va, 32) < 32);
	check_invariants(w.machine);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	for (uint64_t i = 0; i < 32; i++)
		CHECK_EQ(get64(w.cpu, va + i * PAGE), i);
	world_close(&w);
}

TEST(locked_pages_are_not_merged)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4), merged = 0;

	for (uint64_t i = 0; i < 4; i++)
		put64(w.cpu, va + i * PAGE, 9);
	CHECK_EQ(ucow_madvise(w.mm, va, 4 * PAGE, UCOW_MADV_MERGEABLE), 0);
	CHECK_EQ(ucow_mlock(w.mm, va, 2 * PAGE, 0), 0);
	if (ucow_ksm_merge(w.machine, &merged) == -EOPNOTSUPP)
		SKIP("built without xxhash");
	CHECK(!query(w.mm, va).ksm && !query(w.mm, va + PAGE).ksm);
	CHECK(query(w.mm, va + 2 * PAGE).ksm && query(w.mm, va + 3 * PAGE).ksm);
	world_close(&w);
}

/* Not all could be fetched: what is there is locked, and stays. */
TEST(mlock_of_more_than_there_is)
{
	struct ucow_machine_options options = default_options();
	struct world w;
	uint64_t va;

	options.ram_bytes = (uint64_t)2 << 20;
	w = world_open_with(&options);
	va = map_private(w.mm, 1024);
	CHECK_EQ(ucow_mlock(w.mm, va, 1024 * PAGE, 0), -EAGAIN);
	CHECK_EQ(locked(w.mm), 1024);
	check_invariants(w.machine);
	world_close(&w);
}

TAP_MAIN()
