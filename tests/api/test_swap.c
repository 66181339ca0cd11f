/* SPDX-License-Identifier: MIT */
/*
 * Swap through the public interface: contents, exclusivity in entries (semantics.md B.6), counts of slots, devices that
 * come and go, errors of the device, files.
 */
#include "fixture.h"

#include <sys/stat.h>
#include <unistd.h>

#define NPAGES 96

struct scene {
	struct world w;
	unsigned device;
	uint64_t va;
};

static unsigned add_device(struct ucow_machine *machine, uint64_t npages, int priority)
{
	const struct ucow_swap_options options = {
		.size = sizeof(options),
		.nbytes = npages * PAGE,
		.priority = priority,
		.flags = UCOW_SWAP_MEMORY,
	};
	unsigned device = ~0u;

	REQUIRE_EQ(ucow_swapon(machine, &options, &device), 0);
	return device;
}

static void fill(struct ucow_cpu *cpu, uint64_t va, uint64_t plus)
{
	for (uint64_t i = 0; i < NPAGES; i++)
		put64(cpu, va + i * PAGE, i + plus);
}

static void check_filled(struct ucow_cpu *cpu, uint64_t va, uint64_t plus)
{
	for (uint64_t i = 0; i < NPAGES; i++)
		CHECK_EQ(get64(cpu, va + i * PAGE), i + plus);
}

static struct scene open_scene(void)
{
	struct scene s = {.w = world_open()};

	s.device = add_device(s.w.machine, 4 * NPAGES, 0);
	s.va = map_private(s.w.mm, NPAGES);
	fill(s.w.cpu, s.va, 1);
	return s;
}

static struct ucow_swap_stat stat_of(const struct scene *s, unsigned device)
{
	struct ucow_swap_stat stat = {0};

	REQUIRE_EQ(ucow_swap_stat(s->w.machine, device, &stat), 0);
	return stat;
}

static void close_scene(struct scene *s)
{
	check_invariants(s->w.machine);
	world_close(&s->w);
}

static struct ucow_entry_info look(struct ucow_mm *mm, uint64_t va)
{
	struct ucow_entry_info info;

	ucow_query(mm, va, &info);
	return info;
}

static void page_out(struct scene *s)
{
	REQUIRE_EQ(ucow_madvise(s->w.mm, s->va, NPAGES * PAGE, UCOW_MADV_PAGEOUT), 0);
	check_invariants(s->w.machine);
}

/* ---- out and in ---- */

TEST(bytes_come_back)
{
	struct scene s = open_scene();
	struct ucow_mm_stat stat;

	page_out(&s);
	ucow_mm_stat(s.w.mm, &stat);
	CHECK_EQ(stat.rss_anon, 0);
	CHECK_EQ(stat.swap_entries, NPAGES);
	CHECK_EQ(stat_of(&s, s.device).used, NPAGES);
	CHECK_EQ(ucow_machine_counter(s.w.machine, UCOW_COUNTER_SWAP_OUT), NPAGES);
	check_filled(s.w.cpu, s.va, 1);
	CHECK_EQ(ucow_machine_counter(s.w.machine, UCOW_COUNTER_SWAP_IN), NPAGES);
	ucow_mm_stat(s.w.mm, &stat);
	CHECK_EQ(stat.swap_entries, 0);
	close_scene(&s);
}

TEST(zeros_go_out_without_being_stored)
{
	static const char zeros[PAGE];
	struct scene s = open_scene();

	for (unsigned i = 0; i < NPAGES; i += 2)
		REQUIRE_EQ(ucow_write(s.w.cpu, s.va + i * PAGE, zeros, PAGE, NULL), 0);
	page_out(&s);
	CHECK_EQ(ucow_machine_counter(s.w.machine, UCOW_COUNTER_SWAP_OUT), NPAGES);
	CHECK_EQ(ucow_machine_counter(s.w.machine, UCOW_COUNTER_SWAP_ZERO), NPAGES / 2);
	CHECK_EQ(stat_of(&s, s.device).zero, NPAGES / 2);
	for (unsigned i = 0; i < NPAGES; i += 2)
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), 0);
	close_scene(&s);
}

TEST(exclusive_comes_back_writable)
{
	struct scene s = open_scene();
	uint64_t faults;

	page_out(&s);
	CHECK_EQ(get64(s.w.cpu, s.va), 1);
	CHECK(look(s.w.mm, s.va).exclusive);
	CHECK(look(s.w.mm, s.va).writable);
	faults = ucow_machine_counter(s.w.machine, UCOW_COUNTER_FAULTS);
	put64(s.w.cpu, s.va, 9);
	CHECK_EQ(ucow_machine_counter(s.w.machine, UCOW_COUNTER_FAULTS), faults);
	close_scene(&s);
}

TEST(fork_takes_exclusivity_from_entries)
{
	struct scene s = open_scene();
	struct ucow_mm *child = NULL;
	struct ucow_cpu *cpu;

	page_out(&s);
	REQUIRE_EQ(ucow_fork(s.w.mm, &child), 0);
	cpu = cpu_on(child);
	CHECK_EQ(get64(cpu, s.va), 1);
	CHECK(!look(child, s.va).writable);
	put64(s.w.cpu, s.va, 7);
	CHECK_EQ(get64(cpu, s.va), 1);
	check_invariants(s.w.machine);
	put64(cpu, s.va + PAGE, 8);
	CHECK_EQ(get64(s.w.cpu, s.va + PAGE), 2);
	ucow_cpu_destroy(cpu);
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
	close_scene(&s);
}

TEST(pinned_pages_stay)
{
	struct scene s = open_scene();
	struct ucow_page *pages[4];

	REQUIRE_EQ(ucow_pin_user_pages(s.w.cpu, s.va, 4, UCOW_FOLL_WRITE, pages), 4);
	page_out(&s);
	CHECK_EQ(ucow_reclaim(s.w.machine, NULL, NPAGES), 0);
	for (unsigned i = 0; i < 4; i++)
		CHECK(look(s.w.mm, s.va + i * PAGE).present);
	CHECK(look(s.w.mm, s.va + 4 * PAGE).swapped);
	*(uint64_t *)ucow_page_address(pages[2]) = 77;
	CHECK_EQ(get64(s.w.cpu, s.va + 2 * PAGE), 77);
	ucow_unpin_user_pages(pages, 4);
	page_out(&s);
	CHECK(look(s.w.mm, s.va).swapped);
	CHECK_EQ(get64(s.w.cpu, s.va + 2 * PAGE), 77);
	close_scene(&s);
}

/* One rewrite of a shared leaf serves everybody: as many entries are looked at for one space as for a hundred. */
TEST(rmap_costs_leaves_not_forks)
{
	enum { CHILDREN = 100 };
	struct scene s = open_scene();
	struct ucow_mm *children[CHILDREN];
	uint64_t looked;

	for (unsigned i = 0; i < CHILDREN; i++)
		REQUIRE_EQ(ucow_fork(s.w.mm, &children[i]), 0);
	looked = ucow_machine_counter(s.w.machine, UCOW_COUNTER_RMAP_ENTRIES);
	CHECK_EQ(ucow_reclaim(s.w.machine, NULL, NPAGES), NPAGES);
	looked = ucow_machine_counter(s.w.machine, UCOW_COUNTER_RMAP_ENTRIES) - looked;
	if (fork_is_lazy())
		CHECK(looked <= 4 * NPAGES);
	else if (fork_is_eager())
		CHECK(looked >= (uint64_t)CHILDREN * NPAGES);
	for (unsigned i = 0; i < CHILDREN; i++) {
		CHECK(look(children[i], s.va).swapped);
		REQUIRE_EQ(ucow_mm_destroy(children[i]), 0);
	}
	check_filled(s.w.cpu, s.va, 1);
	close_scene(&s);
}

TEST(moved_pages_are_found)
{
	struct scene s = open_scene();
	struct ucow_mm *child = NULL;
	uint64_t to = 0;

	REQUIRE_EQ(ucow_fork(s.w.mm, &child), 0);
	/* By an odd number of pages, so that every page changes its slot. */
	REQUIRE_EQ(ucow_mremap(s.w.mm, s.va, NPAGES * PAGE, NPAGES * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED,
			       s.va + 4096 * PAGE + 7 * PAGE, &to),
		   0);
	check_invariants(s.w.machine);
	CHECK_EQ(ucow_reclaim(s.w.machine, NULL, NPAGES), NPAGES);
	check_invariants(s.w.machine);
	for (unsigned i = 0; i < NPAGES; i++) {
		CHECK(look(s.w.mm, to + i * PAGE).swapped);
		CHECK(look(child, s.va + i * PAGE).swapped);
	}
	check_filled(s.w.cpu, to, 1);
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
	close_scene(&s);
}

TEST(pageout_leaves_what_others_map)
{
	struct scene s = open_scene();
	struct ucow_mm *child = NULL;

	REQUIRE_EQ(ucow_fork(s.w.mm, &child), 0);
	page_out(&s);
	CHECK(look(s.w.mm, s.va).present);
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
	page_out(&s);
	CHECK(look(s.w.mm, s.va).swapped);
	close_scene(&s);
}

TEST(unmapping_frees_slots)
{
	struct scene s = open_scene();
	struct ucow_mm *child = NULL;

	page_out(&s);
	REQUIRE_EQ(ucow_fork(s.w.mm, &child), 0);
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va, NPAGES / 2 * PAGE), 0);
	check_invariants(s.w.machine);
	CHECK_EQ(stat_of(&s, s.device).used, NPAGES);
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
	CHECK_EQ(stat_of(&s, s.device).used, NPAGES / 2);
	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va + NPAGES / 2 * PAGE, NPAGES / 2 * PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(stat_of(&s, s.device).used, 0);
	close_scene(&s);
}

TEST(lazily_freed_pages_are_dropped)
{
	struct scene s = open_scene();

	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va, NPAGES * PAGE, UCOW_MADV_FREE), 0);
	put64(s.w.cpu, s.va, 5);
	CHECK_EQ(ucow_reclaim(s.w.machine, NULL, NPAGES), NPAGES);
	CHECK_EQ(get64(s.w.cpu, s.va), 5);
	CHECK_EQ(get64(s.w.cpu, s.va + PAGE), 0);
	CHECK_EQ(ucow_machine_counter(s.w.machine, UCOW_COUNTER_LAZYFREE_DROPPED), NPAGES - 1);
	close_scene(&s);
}

/* ---- more than fits ---- */

TEST(space_larger_than_ram)
{
	enum { MANY = 2000 };
	struct ucow_machine_options options = default_options();
	struct scene s = {0};

	options.ram_bytes = 2 << 20;
	s.w = world_open_with(&options);
	s.device = add_device(s.w.machine, MANY, 0);
	s.va = map_private(s.w.mm, MANY);
	for (uint64_t round = 0; round < 3; round++)
		for (uint64_t i = 0; i < MANY; i++) {
			if (round)
				CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), i * 3 + round - 1);
			put64(s.w.cpu, s.va + i * PAGE, i * 3 + round);
		}
	close_scene(&s);
}

TEST(full_device_is_enomem)
{
	struct ucow_machine_options options = default_options();
	struct scene s = {0};
	uint64_t value = 1, i;
	int error = 0;

	options.ram_bytes = 2 << 20;
	s.w = world_open_with(&options);
	s.device = add_device(s.w.machine, 64, 0);
	s.va = map_private(s.w.mm, 1024);
	for (i = 0; i < 1024 && !error; i++)
		error = ucow_write(s.w.cpu, s.va + i * PAGE, &value, sizeof(value), NULL);
	CHECK_EQ(error, -ENOMEM);
	REQUIRE(i > 500);
	/* Nothing comes back either while there is no frame for it; what is given up makes room. */
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va + (i - 100) * PAGE, 100 * PAGE), 0);
	for (uint64_t at = 0; at < i - 100; at++)
		CHECK_EQ(get64(s.w.cpu, s.va + at * PAGE), 1);
	close_scene(&s);
}

/* ---- devices ---- */

TEST(priorities)
{
	struct scene s = open_scene();
	unsigned first = add_device(s.w.machine, 10, 5);

	page_out(&s);
	CHECK_EQ(stat_of(&s, first).used, 10);
	CHECK_EQ(stat_of(&s, s.device).used, NPAGES - 10);
	REQUIRE_EQ(ucow_swapoff(s.w.machine, first), 0);
	check_invariants(s.w.machine);
	check_filled(s.w.cpu, s.va, 1);
	close_scene(&s);
}

TEST(swapoff_restores_entries)
{
	struct scene s = open_scene();
	struct ucow_swap_stat stat;

	page_out(&s);
	REQUIRE_EQ(ucow_swapoff(s.w.machine, s.device), 0);
	check_invariants(s.w.machine);
	CHECK_EQ(ucow_swap_stat(s.w.machine, s.device, &stat), -EINVAL);
	CHECK_EQ(ucow_swapoff(s.w.machine, s.device), -EINVAL);
	CHECK(look(s.w.mm, s.va).present);
	CHECK(look(s.w.mm, s.va).exclusive);
	CHECK(!look(s.w.mm, s.va).writable);
	check_filled(s.w.cpu, s.va, 1);
	close_scene(&s);
}

TEST(swapoff_keeps_protection)
{
	struct scene s = open_scene();
	uint64_t value;

	page_out(&s);
	REQUIRE_EQ(ucow_mprotect(s.w.mm, s.va, NPAGES * PAGE, UCOW_PROT_NONE), 0);
	REQUIRE_EQ(ucow_swapoff(s.w.machine, s.device), 0);
	check_invariants(s.w.machine);
	CHECK_EQ(ucow_read(s.w.cpu, s.va, &value, sizeof(value), NULL), -EFAULT);
	REQUIRE_EQ(ucow_mprotect(s.w.mm, s.va, NPAGES * PAGE, UCOW_PROT_READ), 0);
	check_filled(s.w.cpu, s.va, 1);
	close_scene(&s);
}

TEST(write_errors_keep_pages)
{
	struct scene s = open_scene();

	REQUIRE_EQ(ucow_machine_inject(s.w.machine, UCOW_INJECT_WRITE, 3), false);
	page_out(&s);
	CHECK_EQ(stat_of(&s, s.device).write_errors, 1);
	check_filled(s.w.cpu, s.va, 1);
	close_scene(&s);
}

TEST(read_errors_are_one_accesses)
{
	struct scene s = open_scene();
	uint64_t value = 0;

	page_out(&s);
	REQUIRE_EQ(ucow_machine_inject(s.w.machine, UCOW_INJECT_READ, 1), false);
	CHECK_EQ(ucow_read(s.w.cpu, s.va, &value, sizeof(value), NULL), -ENXIO);
	CHECK_EQ(stat_of(&s, s.device).read_errors, 1);
	check_invariants(s.w.machine);
	check_filled(s.w.cpu, s.va, 1);
	close_scene(&s);
}

TEST(bad_options)
{
	struct world w = world_open();
	struct ucow_swap_options options = {.size = sizeof(options), .nbytes = PAGE, .flags = UCOW_SWAP_MEMORY};
	struct ucow_swap_options bad;

	bad = options, bad.size = 1;
	CHECK_EQ(ucow_swapon(w.machine, &bad, NULL), -EINVAL);
	bad = options, bad.nbytes = 0;
	CHECK_EQ(ucow_swapon(w.machine, &bad, NULL), -EINVAL);
	bad = options, bad.flags = 1u << 31;
	CHECK_EQ(ucow_swapon(w.machine, &bad, NULL), -EINVAL);
	bad = options, bad.path = "/dev/null";
	CHECK_EQ(ucow_swapon(w.machine, &bad, NULL), -EINVAL);
	for (unsigned i = 0; i < UCOW_SWAP_DEVICES; i++)
		CHECK_EQ(ucow_swapon(w.machine, &options, NULL), 0);
	CHECK_EQ(ucow_swapon(w.machine, &options, NULL), -ENOSPC);
	CHECK_EQ(ucow_reclaim(w.machine, NULL, 0), 0);
	world_close(&w);
}

TEST(file)
{
	struct scene s = {.w = world_open()};
	char path[] = "/tmp/ucow-test-swap-XXXXXX";
	struct ucow_swap_options options = {.size = sizeof(options), .nbytes = 4 * NPAGES * PAGE, .path = path};
	struct stat info;
	int fd = mkstemp(path);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(ucow_swapon(s.w.machine, &options, &s.device), 0);
	REQUIRE_EQ(fstat(fd, &info), 0);
	CHECK_EQ(info.st_mode & 0777, 0600);
	s.va = map_private(s.w.mm, NPAGES);
	fill(s.w.cpu, s.va, 3);
	page_out(&s);
	CHECK_EQ(stat_of(&s, s.device).written, NPAGES);
	check_filled(s.w.cpu, s.va, 3);
	close_scene(&s);
	close(fd);
	unlink(path);
}

TAP_MAIN()
