/* SPDX-License-Identifier: MIT */
/*
 * What was written to: soft-dirty (semantics.md A.5, B.7), the words of pagemap (D.1), the scan call (A.7,
 * pagemap_ioctl), upgrades by mprotect while stores are tracked (B.6), and that the scan and ucow_diff agree.
 */
#include "file_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#define NPAGES 96 /* from BASE: several leaves, two blocks */

/* ---- one word a page ---- */

static uint64_t word_of(struct ucow_mm *mm, uint64_t va)
{
	uint64_t word = ~(uint64_t)0;

	REQUIRE_EQ(ucow_pagemap(mm, va, 1, &word), 0);
	return word;
}

static bool is_soft_dirty(struct ucow_mm *mm, uint64_t va)
{
	return word_of(mm, va) & UCOW_PM_SOFT_DIRTY;
}

static void clear(struct ucow_mm *mm)
{
	REQUIRE_EQ(ucow_clear_soft_dirty(mm), 0);
}

static unsigned add_device(struct ucow_machine *machine, uint64_t npages)
{
	const struct ucow_swap_options options = {
		.size = sizeof(options),
		.nbytes = npages * PAGE,
		.flags = UCOW_SWAP_MEMORY,
	};
	unsigned device = ~0u;

	REQUIRE_EQ(ucow_swapon(machine, &options, &device), 0);
	return device;
}

static struct ucow_uffd *watch_async(struct ucow_mm *mm, uint64_t va, uint64_t npages)
{
	const struct ucow_uffd_options options = {
		.size = sizeof(options),
		.features = UCOW_UFFD_FEATURE_WP_ASYNC,
	};
	struct ucow_uffd *uffd = NULL;

	REQUIRE_EQ(ucow_uffd_create(mm, &options, &uffd), 0);
	REQUIRE_EQ(ucow_uffd_register(uffd, va, npages * PAGE, UCOW_UFFD_WP, NULL), 0);
	return uffd;
}

TEST(words_tell_frames_and_kinds)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4), words[5], shared = BASE + 64 * PAGE;

	put64(w.cpu, va, 1);
	CHECK_EQ(get64(w.cpu, va + PAGE), 0);
	map_at(w.mm, shared, 1, RW, UCOW_MAP_SHARED);
	put64(w.cpu, shared, 1);
	clear(w.mm);
	REQUIRE_EQ(ucow_pagemap(w.mm, va, 5, words), 0);
	CHECK_EQ(words[0], UCOW_PM_PRESENT | UCOW_PM_EXCLUSIVE | query(w.mm, va).pfn);
	CHECK_EQ(words[1], UCOW_PM_PRESENT | query(w.mm, va + PAGE).pfn);
	CHECK_EQ(words[2], 0);
	CHECK_EQ(words[4], 0); /* not mapped */
	CHECK_EQ(word_of(w.mm, shared), UCOW_PM_PRESENT | UCOW_PM_FILE | UCOW_PM_EXCLUSIVE | query(w.mm, shared).pfn);
	world_close(&w);
}

TEST(words_of_a_mapping_that_others_share)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	CHECK(word_of(w.mm, va) & UCOW_PM_EXCLUSIVE);
	child = fork_mm(w.mm);
	CHECK(!(word_of(w.mm, va) & UCOW_PM_EXCLUSIVE));
	CHECK(!(word_of(child, va) & UCOW_PM_EXCLUSIVE));
	CHECK_EQ(ucow_mm_destroy(child), 0);
	CHECK(word_of(w.mm, va) & UCOW_PM_EXCLUSIVE);
	world_close(&w);
}

TEST(words_tell_swap_slots)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), word;
	unsigned device = add_device(w.machine, 16);

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_PAGEOUT), 0);
	word = word_of(w.mm, va);
	CHECK(word & UCOW_PM_SWAP);
	CHECK(!(word & UCOW_PM_PRESENT));
	CHECK_EQ(word & UCOW_PM_SWAP_DEVICE, device);
	CHECK((word & UCOW_PM_FRAME_MASK) >> 5 < 16);
	world_close(&w);
}

TEST(words_refuse_bad_ranges)
{
	struct world w = world_open();
	uint64_t word;

	CHECK_EQ(ucow_pagemap(w.mm, BASE + 1, 1, &word), -EINVAL);
	CHECK_EQ(ucow_pagemap(w.mm, (uint64_t)1 << UCOW_ADDRESS_BITS, 1, &word), -EINVAL);
	CHECK_EQ(ucow_pagemap(w.mm, 0, ~(uint64_t)0, &word), -EINVAL);
	CHECK_EQ(ucow_pagemap(w.mm, UCOW_ADDRESS_LIMIT, 1, &word), 0);
	CHECK_EQ(word, 0);
	world_close(&w);
}

/* ---- soft-dirty.c (A.5) ---- */

TEST(a_store_sets_it_a_clear_clears_it)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, NPAGES);

	for (uint64_t round = 0; round < 10; round++) {
		clear(w.mm);
		for (uint64_t i = 0; i < NPAGES; i++)
			CHECK(!is_soft_dirty(w.mm, va + i * PAGE));
		for (uint64_t i = round; i < NPAGES; i += 3)
			put64(w.cpu, va + i * PAGE, round);
		for (uint64_t i = 0; i < NPAGES; i++)
			CHECK_EQ(is_soft_dirty(w.mm, va + i * PAGE), i >= round && (i - round) % 3 == 0);
	}
	check_invariants(w.machine);
	world_close(&w);
}

TEST(a_load_does_not_set_it)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);

	put64(w.cpu, va, 7);
	clear(w.mm);
	CHECK_EQ(get64(w.cpu, va), 7);
	CHECK_EQ(get64(w.cpu, va + PAGE), 0);
	CHECK(!is_soft_dirty(w.mm, va));
	CHECK(!is_soft_dirty(w.mm, va + PAGE));
	world_close(&w);
}

TEST(a_fresh_mapping_reports_dirty)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);

	CHECK(is_soft_dirty(w.mm, va));
	put64(w.cpu, va, 1);
	clear(w.mm);
	CHECK(!is_soft_dirty(w.mm, va));
	/* At the address of one that was clean. */
	CHECK_EQ(ucow_munmap(w.mm, va, 2 * PAGE), 0);
	map_private(w.mm, 2);
	CHECK(is_soft_dirty(w.mm, va));
	CHECK_EQ(get64(w.cpu, va), 0);
	clear(w.mm);
	CHECK(!is_soft_dirty(w.mm, va));
	world_close(&w);
}

/* Mappings merge regardless of what they report; the result then reports dirty as a whole. */
TEST(a_mapping_that_merges_takes_its_neighbour_along)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	struct ucow_mm_stat stat;

	clear(w.mm);
	CHECK(!is_soft_dirty(w.mm, va));
	map_at(w.mm, va + 2 * PAGE, 2, RW, UCOW_MAP_PRIVATE);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mappings, 1);
	CHECK(is_soft_dirty(w.mm, va));
	CHECK(is_soft_dirty(w.mm, va + 2 * PAGE));
	world_close(&w);
}

static void check_mprotect(unsigned flags)
{
	struct world w = world_open();
	uint64_t va = map_at(w.mm, BASE, 2, RW, flags);

	put64(w.cpu, va, 1);
	clear(w.mm);
	CHECK_EQ(ucow_mprotect(w.mm, va, 2 * PAGE, UCOW_PROT_READ), 0);
	CHECK(!is_soft_dirty(w.mm, va));
	CHECK_EQ(ucow_mprotect(w.mm, va, 2 * PAGE, RW), 0);
	CHECK(!is_soft_dirty(w.mm, va));
	CHECK(!query(w.mm, va).writable); /* the next store must fault */
	check_invariants(w.machine);
	put64(w.cpu, va, 2);
	CHECK(is_soft_dirty(w.mm, va));
	CHECK(!is_soft_dirty(w.mm, va + PAGE));
	/* Once it has been seen, the upgrade is due again: no fault. */
	CHECK_EQ(ucow_mprotect(w.mm, va, 2 * PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, 2 * PAGE, RW), 0);
	CHECK(query(w.mm, va).writable);
	world_close(&w);
}

TEST(mprotect_does_not_upgrade_what_is_tracked)
{
	check_mprotect(UCOW_MAP_PRIVATE);
}

TEST(mprotect_does_not_upgrade_shared_memory_that_is_tracked)
{
	check_mprotect(UCOW_MAP_SHARED);
}

TEST(mprotect_upgrades_shared_memory_that_is_not)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 1);

	CHECK_EQ(get64(w.cpu, va), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, RW), 0);
	CHECK(query(w.mm, va).writable);
	world_close(&w);
}

/* B.6: an entry that is armed, or protected for userfaultfd, is not upgraded. */
TEST(mprotect_does_not_upgrade_what_is_protected)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	struct ucow_uffd *uffd = watch_async(w.mm, va, 2);

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_uffd_writeprotect(uffd, va, PAGE, UCOW_UFFD_MODE_WP), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, 2 * PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, 2 * PAGE, RW), 0);
	CHECK(!query(w.mm, va).writable);
	CHECK(query(w.mm, va).uffd_wp);
	CHECK_EQ(ucow_mprotect(w.mm, va, 2 * PAGE, UCOW_PROT_NONE), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, 2 * PAGE, RW), 0);
	CHECK(!query(w.mm, va).writable);
	put64(w.cpu, va, 2);
	CHECK(!query(w.mm, va).uffd_wp);
	ucow_uffd_close(uffd);
	world_close(&w);
}

/* A.5, of a file: the bit and the page's own dirt are two things. */
TEST(files_are_tracked)
{
	struct world w = world_open();
	int fd = host_file(4);
	struct ucow_file *file = open_file(w.machine, fd);
	uint64_t va = map_file(w.mm, file, 4, RW, UCOW_MAP_SHARED), value = 0;

	put64(w.cpu, va, 1);
	CHECK_EQ(get64(w.cpu, va + PAGE), 0);
	clear(w.mm);
	CHECK(!is_soft_dirty(w.mm, va) && !is_soft_dirty(w.mm, va + PAGE));
	CHECK(word_of(w.mm, va) & UCOW_PM_FILE);
	CHECK_EQ(ucow_mprotect(w.mm, va, 4 * PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, 4 * PAGE, RW), 0);
	CHECK(!query(w.mm, va).writable && !query(w.mm, va + PAGE).writable);
	CHECK(!is_soft_dirty(w.mm, va));
	put64(w.cpu, va + PAGE, 2);
	CHECK(is_soft_dirty(w.mm, va + PAGE) && !is_soft_dirty(w.mm, va));
	/* Writing back cleans the page, not the bit; the clear takes nothing away from what has to be written. */
	CHECK_EQ(ucow_file_sync(file), 0);
	CHECK(is_soft_dirty(w.mm, va + PAGE) && !is_soft_dirty(w.mm, va));
	put64(w.cpu, va, 3);
	clear(w.mm);
	check_invariants(w.machine);
	CHECK_EQ(ucow_file_sync(file), 0);
	CHECK_EQ(pread(fd, &value, sizeof(value), 0), (ssize_t)sizeof(value));
	CHECK_EQ(value, 3);
	CHECK_EQ(ucow_munmap(w.mm, va, 4 * PAGE), 0);
	CHECK_EQ(ucow_file_close(file), 0);
	close(fd);
	world_close(&w);
}

/* pagemap_ioctl.c: a private mapping of a file; its pages are the file's until they are copied. */
TEST(private_files_are_tracked)
{
	struct world w = world_open();
	int fd = host_file(4);
	struct ucow_file *file = open_file(w.machine, fd);
	uint64_t va = map_file(w.mm, file, 4, RW, UCOW_MAP_PRIVATE);
	struct ucow_uffd *uffd = watch_async(w.mm, va, 4);
	struct ucow_page_region vec[4];
	struct ucow_pm_scan scan = {
		.size = sizeof(scan),
		.flags = UCOW_PM_SCAN_WP_MATCHING,
		.start = va,
		.end = va + 4 * PAGE,
		.vec = vec,
		.vec_len = 4,
		.category_mask = UCOW_PAGE_IS_WRITTEN,
		.return_mask = UCOW_PAGE_IS_WRITTEN | UCOW_PAGE_IS_FILE,
	};

	CHECK_EQ(get64(w.cpu, va), 0);
	put64(w.cpu, va + PAGE, 1);
	clear(w.mm);
	REQUIRE(ucow_pagemap_scan(w.mm, &scan) > 0);
	CHECK_EQ(vec[0].categories, UCOW_PAGE_IS_WRITTEN | UCOW_PAGE_IS_FILE);
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 0);
	put64(w.cpu, va, 2);
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 1);
	CHECK_EQ(vec[0].start, va);
	CHECK_EQ(vec[0].end, va + PAGE);
	CHECK_EQ(vec[0].categories, UCOW_PAGE_IS_WRITTEN);
	CHECK(is_soft_dirty(w.mm, va) && !is_soft_dirty(w.mm, va + PAGE));
	check_invariants(w.machine);
	ucow_uffd_close(uffd);
	CHECK_EQ(ucow_munmap(w.mm, va, 4 * PAGE), 0);
	CHECK_EQ(ucow_file_close(file), 0);
	close(fd);
	world_close(&w);
}

/* ---- more of B.7 ---- */

TEST(shared_memory_is_tracked_from_a_read_fault_on)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 2);

	clear(w.mm);
	CHECK_EQ(get64(w.cpu, va), 0);
	CHECK(query(w.mm, va).present);
	CHECK(!query(w.mm, va).writable);
	CHECK(!is_soft_dirty(w.mm, va));
	put64(w.cpu, va, 1);
	CHECK(is_soft_dirty(w.mm, va));
	world_close(&w);
}

TEST(forced_writes_and_write_pins_are_seen)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), value = 5;
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	put64(w.cpu, va + PAGE, 1);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
	clear(w.mm);
	CHECK_EQ(ucow_access_remote(w.mm, va, &value, sizeof(value), UCOW_FOLL_WRITE | UCOW_FOLL_FORCE, NULL), 0);
	CHECK(is_soft_dirty(w.mm, va));
	page = pin_page(w.cpu, va + PAGE, UCOW_FOLL_WRITE);
	CHECK(is_soft_dirty(w.mm, va + PAGE));
	ucow_unpin_user_pages(&page, 1);
	world_close(&w);
}

TEST(fork_hands_it_down)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 3);
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	put64(w.cpu, va, 1);
	put64(w.cpu, va + PAGE, 1);
	clear(w.mm);
	put64(w.cpu, va, 2);
	child = fork_mm(w.mm);
	cpu = cpu_on(child);
	CHECK(is_soft_dirty(child, va));
	CHECK(!is_soft_dirty(child, va + PAGE));
	put64(cpu, va + PAGE, 3);
	CHECK(is_soft_dirty(child, va + PAGE));
	CHECK(!is_soft_dirty(w.mm, va + PAGE));
	/* Clearing one's own leaves the other's alone. */
	clear(child);
	CHECK(!is_soft_dirty(child, va));
	CHECK(is_soft_dirty(w.mm, va));
	check_invariants(w.machine);
	put64(cpu, va, 9);
	CHECK(is_soft_dirty(child, va));
	CHECK_EQ(get64(w.cpu, va), 2);
	exit_mm(cpu, child);
	CHECK(!is_soft_dirty(w.mm, va + PAGE));
	put64(w.cpu, va + PAGE, 4);
	CHECK(is_soft_dirty(w.mm, va + PAGE));
	world_close(&w);
}

TEST(an_early_copy_is_dirty)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page;
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	clear(w.mm);
	page = pin_page(w.cpu, va, 0);
	child = fork_mm(w.mm);
	CHECK(is_soft_dirty(child, va));
	CHECK_EQ(ucow_mm_destroy(child), 0);
	ucow_unpin_user_pages(&page, 1);
	world_close(&w);
}

/* An unshare keeps what was tracked; a read pin is no store. */
TEST(an_unshare_keeps_it)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	struct ucow_page *pages[2];
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	put64(w.cpu, va + PAGE, 1);
	clear(w.mm);
	put64(w.cpu, va, 2);
	child = fork_mm(w.mm);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 2, 0, pages), 2);
	CHECK(is_soft_dirty(w.mm, va));
	CHECK(!is_soft_dirty(w.mm, va + PAGE));
	ucow_unpin_user_pages(pages, 2);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(swap_carries_it)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 3);

	add_device(w.machine, 16);
	put64(w.cpu, va, 1);
	put64(w.cpu, va + PAGE, 1);
	put64(w.cpu, va + 2 * PAGE, 1);
	clear(w.mm);
	put64(w.cpu, va, 2);
	CHECK_EQ(ucow_madvise(w.mm, va, 3 * PAGE, UCOW_MADV_PAGEOUT), 0);
	CHECK(query(w.mm, va).swapped);
	CHECK(query(w.mm, va + PAGE).swapped);
	CHECK(is_soft_dirty(w.mm, va));
	CHECK(!is_soft_dirty(w.mm, va + PAGE));
	/* A load brings it back, exclusive, but a store must be seen. */
	CHECK_EQ(get64(w.cpu, va + PAGE), 1);
	CHECK(!query(w.mm, va + PAGE).writable);
	CHECK(!is_soft_dirty(w.mm, va + PAGE));
	check_invariants(w.machine);
	put64(w.cpu, va + PAGE, 2);
	CHECK(is_soft_dirty(w.mm, va + PAGE));
	put64(w.cpu, va + 2 * PAGE, 2);
	CHECK(is_soft_dirty(w.mm, va + 2 * PAGE));
	/* A clear while it is out counts. */
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_PAGEOUT), 0);
	clear(w.mm);
	CHECK(!is_soft_dirty(w.mm, va));
	CHECK_EQ(get64(w.cpu, va), 2);
	CHECK(!is_soft_dirty(w.mm, va));
	world_close(&w);
}

TEST(mremap_marks_what_it_moves)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), to = BASE + 128 * PAGE, result;

	put64(w.cpu, va, 1);
	clear(w.mm);
	CHECK_EQ(ucow_mremap(w.mm, va, 2 * PAGE, 2 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, to, &result), 0);
	CHECK(is_soft_dirty(w.mm, to));
	CHECK(!is_soft_dirty(w.mm, to + PAGE));
	world_close(&w);
}

TEST(dropping_loses_it)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);

	clear(w.mm);
	put64(w.cpu, va, 1);
	CHECK(is_soft_dirty(w.mm, va));
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK(!is_soft_dirty(w.mm, va));
	world_close(&w);
}

/* madv_populate.c */
TEST(populating_for_reading_is_no_store_for_writing_is)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);

	clear(w.mm);
	CHECK_EQ(ucow_madvise(w.mm, va, 2 * PAGE, UCOW_MADV_POPULATE_READ), 0);
	CHECK_EQ(ucow_madvise(w.mm, va + 2 * PAGE, 2 * PAGE, UCOW_MADV_POPULATE_WRITE), 0);
	CHECK(!is_soft_dirty(w.mm, va) && !is_soft_dirty(w.mm, va + PAGE));
	CHECK(is_soft_dirty(w.mm, va + 2 * PAGE) && is_soft_dirty(w.mm, va + 3 * PAGE));
	clear(w.mm);
	CHECK_EQ(ucow_madvise(w.mm, va, 4 * PAGE, UCOW_MADV_POPULATE_READ), 0);
	CHECK(!is_soft_dirty(w.mm, va + 2 * PAGE));
	world_close(&w);
}

TEST(a_snapshot_is_not_cleared)
{
	struct world w = world_open();
	struct ucow_mm *snapshot = NULL;

	map_private(w.mm, 1);
	REQUIRE_EQ(ucow_snapshot(w.mm, &snapshot), 0);
	CHECK_EQ(ucow_clear_soft_dirty(snapshot), -EACCES);
	CHECK_EQ(ucow_mm_destroy(snapshot), 0);
	world_close(&w);
}

/* A device's stores are not seen: what may be pinned, and may be written, goes on reporting dirty, and writable. */
TEST(pinned_pages_are_spared)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	struct ucow_page *page;
	uint64_t faults;

	put64(w.cpu, va, 1);
	put64(w.cpu, va + PAGE, 1);
	page = pin_page(w.cpu, va, UCOW_FOLL_WRITE);
	clear(w.mm);
	CHECK(is_soft_dirty(w.mm, va));
	CHECK(query(w.mm, va).writable);
	CHECK(!is_soft_dirty(w.mm, va + PAGE));
	check_invariants(w.machine);
	faults = counted(&w, UCOW_COUNTER_FAULTS);
	put64(w.cpu, va, 2);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULTS), faults);
	CHECK_EQ(device_read64(page), 2);
	ucow_unpin_user_pages(&page, 1);
	clear(w.mm);
	CHECK(!is_soft_dirty(w.mm, va));
	world_close(&w);
}

/* ---- fast pins against clears: whoever holds a page for writing, it reports dirty ---- */

struct pinner {
	struct ucow_mm *mm;
	uint64_t va;
	_Atomic uint64_t sequence; /* odd: the pin is held */
	_Atomic bool stop;
};

static void *keep_pinning(void *arg)
{
	struct pinner *pinner = arg;
	struct ucow_cpu *cpu = cpu_on(pinner->mm);

	while (!pinner->stop) {
		struct ucow_page *page = NULL;

		REQUIRE_EQ(ucow_pin_user_pages_fast(cpu, pinner->va, 1, UCOW_FOLL_WRITE, &page), 1);
		pinner->sequence++;
		sched_yield();
		pinner->sequence++;
		ucow_unpin_user_pages(&page, 1);
	}
	ucow_cpu_destroy(cpu);
	return NULL;
}

TEST(a_write_pin_that_comes_meanwhile_is_seen)
{
	struct world w = world_open();
	struct pinner pinner = {.mm = w.mm, .va = map_private(w.mm, 1)};
	unsigned held = 0;
	pthread_t thread;

	put64(w.cpu, pinner.va, 1);
	REQUIRE_EQ(pthread_create(&thread, NULL, keep_pinning, &pinner), 0);
	for (unsigned i = 0; i < 200000 && held < 2000; i++) {
		uint64_t before;
		bool dirty;

		clear(w.mm);
		before = pinner.sequence;
		dirty = is_soft_dirty(w.mm, pinner.va);
		if (!(before & 1) || pinner.sequence != before)
			continue;
		held++;
		CHECK(dirty);
	}
	pinner.stop = true;
	REQUIRE_EQ(pthread_join(thread, NULL), 0);
	CHECK(held > 0);
	check_invariants(w.machine);
	world_close(&w);
}

/* Without the exemption, and with references deciding: the next store leaves the device behind. */
TEST(older_rules_lose_pinned_pages)
{
	struct world w = world_open_policy(UCOW_POLICY_REFCOUNT_PIN);
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	page = pin_page(w.cpu, va, UCOW_FOLL_WRITE);
	clear(w.mm);
	CHECK(!is_soft_dirty(w.mm, va));
	put64(w.cpu, va, 2);
	CHECK_EQ(device_read64(page), 1);
	ucow_unpin_user_pages(&page, 1);
	world_close(&w);
}

/* Under a policy that knows only mapcounts, tracking works as well. */
TEST(older_rules_track_too)
{
	struct world w = world_open_policy(UCOW_POLICY_MAPCOUNT);
	uint64_t va = map_private(w.mm, 2);

	put64(w.cpu, va, 1);
	clear(w.mm);
	CHECK(!is_soft_dirty(w.mm, va));
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, RW), 0);
	put64(w.cpu, va, 2);
	CHECK(is_soft_dirty(w.mm, va));
	world_close(&w);
}

/* ---- frames ---- */

TEST(frames_tell_what_they_are)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), flags, pfn;
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	CHECK_EQ(get64(w.cpu, va + PAGE), 0);
	pfn = query(w.mm, va).pfn;
	flags = ucow_page_flags(w.machine, pfn);
	CHECK(flags & UCOW_KPF_ANON && flags & UCOW_KPF_SWAPBACKED && flags & UCOW_KPF_MMAP);
	CHECK(flags & UCOW_KPF_ANON_EXCLUSIVE);
	CHECK_EQ(ucow_page_count(w.machine, pfn), 1);
	CHECK(ucow_page_flags(w.machine, query(w.mm, va + PAGE).pfn) & UCOW_KPF_ZERO_PAGE);
	CHECK_EQ(ucow_page_count(w.machine, query(w.mm, va + PAGE).pfn), 0);
	CHECK_EQ(ucow_page_flags(w.machine, ~(uint64_t)0), UCOW_KPF_NOPAGE);
	CHECK_EQ(ucow_page_count(w.machine, ~(uint64_t)0), 0);
	child = fork_mm(w.mm);
	CHECK_EAGER_EQ(ucow_page_count(w.machine, pfn), 2);
	CHECK_EAGER(!(ucow_page_flags(w.machine, pfn) & UCOW_KPF_ANON_EXCLUSIVE));
	CHECK_EQ(ucow_mm_destroy(child), 0);
	CHECK_EQ(ucow_munmap(w.mm, va, 2 * PAGE), 0);
	ucow_machine_synchronize(w.machine);
	CHECK_EQ(ucow_page_flags(w.machine, pfn), UCOW_KPF_BUDDY);
	world_close(&w);
}

/* ---- the scan ---- */

static struct ucow_pm_scan scan_of(uint64_t va, uint64_t npages, struct ucow_page_region *vec, uint64_t n)
{
	return (struct ucow_pm_scan){
		.size = sizeof(struct ucow_pm_scan),
		.start = va,
		.end = va + npages * PAGE,
		.vec = vec,
		.vec_len = n,
		.return_mask = UCOW_PAGE_IS_ALL,
	};
}

/* The categories of one page. */
static uint64_t categories(struct ucow_mm *mm, uint64_t va)
{
	struct ucow_page_region region = {0};
	struct ucow_pm_scan scan = scan_of(va, 1, &region, 1);

	REQUIRE_EQ(ucow_pagemap_scan(mm, &scan), 1);
	REQUIRE_EQ(region.start, va);
	REQUIRE_EQ(region.end, va + PAGE);
	return region.categories;
}

/* Written pages of a range, as a set; @protect: and write-protected. */
static uint64_t written(struct ucow_mm *mm, uint64_t va, uint64_t npages, bool protect, bool *set)
{
	struct ucow_page_region vec[NPAGES];
	struct ucow_pm_scan scan = scan_of(va, npages, vec, NPAGES);
	uint64_t n = 0;
	long regions;

	scan.category_mask = scan.return_mask = UCOW_PAGE_IS_WRITTEN;
	scan.flags = protect ? UCOW_PM_SCAN_WP_MATCHING | UCOW_PM_SCAN_CHECK_WPASYNC : 0;
	for (uint64_t i = 0; i < npages; i++)
		set[i] = false;
	regions = ucow_pagemap_scan(mm, &scan);
	REQUIRE(regions >= 0);
	REQUIRE_EQ(scan.walk_end, scan.end);
	for (long i = 0; i < regions; i++)
		for (uint64_t at = vec[i].start; at < vec[i].end; at += PAGE, n++)
			set[(at - va) / PAGE] = true;
	return n;
}

TEST(scan_refuses_bad_arguments)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	struct ucow_page_region vec[4];
	struct ucow_pm_scan good = scan_of(va, 4, vec, 4), bad;

	bad = good;
	bad.size--;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &bad), -EINVAL);
	bad = good;
	bad.flags = 4;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &bad), -EINVAL);
	bad = good;
	bad.category_mask = 0x200;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &bad), -EINVAL);
	bad = good;
	bad.category_anyof_mask = 0x200;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &bad), -EINVAL);
	bad = good;
	bad.category_inverted = 0x200;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &bad), -EINVAL);
	bad = good;
	bad.return_mask = 0x200;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &bad), -EINVAL);
	bad = good;
	bad.start++;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &bad), -EINVAL);
	bad = good;
	bad.end = va - PAGE;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &bad), -EINVAL);
	bad = good;
	bad.end = ((uint64_t)1 << UCOW_ADDRESS_BITS) + 1;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &bad), -EINVAL);
	bad = good;
	bad.vec = NULL;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &bad), -EINVAL);
	bad = good;
	bad.flags = UCOW_PM_SCAN_CHECK_WPASYNC;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &bad), -EPERM);
	world_close(&w);
}

/* pagemap_ioctl.c: what is empty gives nothing, and is no error. */
TEST(scan_of_nothing_finds_nothing)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	struct ucow_page_region vec[4];
	struct ucow_pm_scan scan = scan_of(va, 0, vec, 4);

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 0);
	scan = scan_of(va, 4, NULL, 0);
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 0);
	CHECK_EQ(scan.walk_end, scan.end);
	scan = scan_of(va, 4, vec, 0);
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 0);
	/* Nothing is asked of what is returned: one run of anything. */
	scan = scan_of(va, 4, vec, 4);
	scan.return_mask = 0;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 1);
	CHECK_EQ(vec[0].end - vec[0].start, 4 * PAGE);
	CHECK_EQ(vec[0].categories, 0);
	/* Where nothing is mapped. */
	scan = scan_of(va + 1024 * PAGE, 64, vec, 4);
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 0);
	/* Categories that no page has together. */
	scan = scan_of(va, 4, vec, 4);
	scan.category_mask = UCOW_PAGE_IS_ALL;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 0);
	world_close(&w);
}

TEST(scan_tells_categories)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4), shared = BASE + 64 * PAGE;

	add_device(w.machine, 16);
	put64(w.cpu, va, 1);
	CHECK_EQ(get64(w.cpu, va + PAGE), 0);
	put64(w.cpu, va + 2 * PAGE, 1);
	clear(w.mm);
	put64(w.cpu, va, 2);
	CHECK_EQ(ucow_madvise(w.mm, va + 2 * PAGE, PAGE, UCOW_MADV_PAGEOUT), 0);
	CHECK_EQ(categories(w.mm, va), UCOW_PAGE_IS_WRITTEN | UCOW_PAGE_IS_PRESENT | UCOW_PAGE_IS_SOFT_DIRTY);
	CHECK_EQ(categories(w.mm, va + PAGE), UCOW_PAGE_IS_WRITTEN | UCOW_PAGE_IS_PRESENT | UCOW_PAGE_IS_PFNZERO);
	CHECK_EQ(categories(w.mm, va + 2 * PAGE), UCOW_PAGE_IS_WRITTEN | UCOW_PAGE_IS_SWAPPED);
	CHECK_EQ(categories(w.mm, va + 3 * PAGE), 0);
	map_at(w.mm, shared, 2, RW, UCOW_MAP_SHARED);
	put64(w.cpu, shared, 1);
	CHECK_EQ(categories(w.mm, shared),
		 UCOW_PAGE_IS_WRITTEN | UCOW_PAGE_IS_PRESENT | UCOW_PAGE_IS_FILE | UCOW_PAGE_IS_SOFT_DIRTY);
	CHECK_EQ(categories(w.mm, shared + PAGE), UCOW_PAGE_IS_SOFT_DIRTY);
	world_close(&w);
}

/* Numbers as measured on Linux 6.18. */
TEST(scan_tells_categories_of_what_is_watched)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	struct ucow_uffd *uffd = watch_async(w.mm, va, 4);

	clear(w.mm);
	CHECK_EQ(get64(w.cpu, va + PAGE), 0);
	put64(w.cpu, va, 1);
	CHECK_EQ(categories(w.mm, va), 0x0b | UCOW_PAGE_IS_SOFT_DIRTY);
	CHECK_EQ(categories(w.mm, va + PAGE), 0x2b);
	CHECK_EQ(categories(w.mm, va + 2 * PAGE), 0x3);
	CHECK_EQ(ucow_uffd_writeprotect(uffd, va, 4 * PAGE, UCOW_UFFD_MODE_WP), 0);
	CHECK_EQ(categories(w.mm, va), 0x09 | UCOW_PAGE_IS_SOFT_DIRTY);
	CHECK_EQ(categories(w.mm, va + PAGE), 0x29);
	CHECK_EQ(categories(w.mm, va + 2 * PAGE), 0x11);
	CHECK(word_of(w.mm, va) & UCOW_PM_UFFD_WP);
	CHECK_EQ(word_of(w.mm, va + 2 * PAGE), UCOW_PM_UFFD_WP | UCOW_PM_SWAP);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(categories(w.mm, va), 0x3);
	ucow_uffd_close(uffd);
	world_close(&w);
}

TEST(scan_matches_by_masks)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 8);
	struct ucow_page_region vec[8];
	struct ucow_pm_scan scan = scan_of(va, 8, vec, 8);

	put64(w.cpu, va + PAGE, 1);
	put64(w.cpu, va + 2 * PAGE, 1);
	CHECK_EQ(get64(w.cpu, va + 3 * PAGE), 0);
	put64(w.cpu, va + 6 * PAGE, 1);
	scan.category_mask = UCOW_PAGE_IS_PRESENT;
	scan.return_mask = UCOW_PAGE_IS_PRESENT;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 2);
	CHECK_EQ(vec[0].start, va + PAGE);
	CHECK_EQ(vec[0].end, va + 4 * PAGE);
	CHECK_EQ(vec[1].start, va + 6 * PAGE);
	CHECK_EQ(vec[1].categories, UCOW_PAGE_IS_PRESENT);
	/* Those that differ in what is returned are regions of their own. */
	scan.return_mask = UCOW_PAGE_IS_PRESENT | UCOW_PAGE_IS_PFNZERO;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 3);
	/* Inverted: present and not the zero page. */
	scan.category_mask = UCOW_PAGE_IS_PRESENT | UCOW_PAGE_IS_PFNZERO;
	scan.category_inverted = UCOW_PAGE_IS_PFNZERO;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 2);
	CHECK_EQ(vec[0].end, va + 3 * PAGE);
	/* One of several. */
	scan = scan_of(va, 8, vec, 8);
	scan.category_anyof_mask = UCOW_PAGE_IS_PFNZERO | UCOW_PAGE_IS_SWAPPED;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 1);
	CHECK_EQ(vec[0].start, va + 3 * PAGE);
	world_close(&w);
}

TEST(scan_stops_where_there_is_no_room)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 16);
	struct ucow_page_region vec[8];
	struct ucow_pm_scan scan;

	for (uint64_t i = 0; i < 16; i += 2)
		put64(w.cpu, va + i * PAGE, 1);
	scan = scan_of(va, 16, vec, 3);
	scan.category_mask = UCOW_PAGE_IS_PRESENT;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 3);
	CHECK_EQ(scan.walk_end, va + 6 * PAGE);
	scan.start = scan.walk_end;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 3);
	CHECK_EQ(vec[0].start, va + 6 * PAGE);
	CHECK_EQ(scan.walk_end, va + 12 * PAGE);
	scan.start = scan.walk_end;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 2);
	CHECK_EQ(scan.walk_end, scan.end);
	/* By pages. */
	scan = scan_of(va, 16, vec, 8);
	scan.category_mask = UCOW_PAGE_IS_PRESENT;
	scan.max_pages = 2;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 2);
	CHECK_EQ(scan.walk_end, va + 4 * PAGE);
	scan = scan_of(va, 16, vec, 8);
	scan.return_mask = 0;
	scan.max_pages = 5;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 1);
	CHECK_EQ(vec[0].end, va + 5 * PAGE);
	CHECK_EQ(scan.walk_end, va + 5 * PAGE);
	world_close(&w);
}

TEST(scan_crosses_holes_and_mappings)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 16), far = BASE + 100000 * PAGE;
	struct ucow_page_region vec[8];
	struct ucow_pm_scan scan;

	map_at(w.mm, far, 4, RW, UCOW_MAP_PRIVATE);
	put64(w.cpu, va + 15 * PAGE, 1);
	put64(w.cpu, far, 1);
	scan = scan_of(0, 0, vec, 8);
	scan.end = (uint64_t)1 << UCOW_ADDRESS_BITS;
	scan.category_mask = UCOW_PAGE_IS_PRESENT;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 2);
	CHECK_EQ(vec[0].start, va + 15 * PAGE);
	CHECK_EQ(vec[1].start, far);
	world_close(&w);
}

TEST(scan_and_protect_is_get_and_clear)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, NPAGES);
	struct ucow_uffd *uffd = watch_async(w.mm, va, NPAGES);
	bool set[NPAGES];

	for (uint64_t i = 0; i < NPAGES; i += 2)
		put64(w.cpu, va + i * PAGE, 1);
	/* First everything: what is empty could have been anything. */
	CHECK_EQ(written(w.mm, va, NPAGES, true, set), NPAGES);
	CHECK_EQ(written(w.mm, va, NPAGES, true, set), 0);
	check_invariants(w.machine);
	put64(w.cpu, va + 5 * PAGE, 2);
	put64(w.cpu, va + 8 * PAGE, 2);
	put64(w.cpu, va + (NPAGES - 1) * PAGE, 2);
	CHECK_EQ(get64(w.cpu, va + 9 * PAGE), 0);
	CHECK_EQ(written(w.mm, va, NPAGES, false, set), 3);
	CHECK_EQ(written(w.mm, va, NPAGES, true, set), 3);
	CHECK(set[5] && set[8] && set[NPAGES - 1]);
	CHECK_EQ(written(w.mm, va, NPAGES, true, set), 0);
	/* Dropping is a change too. */
	CHECK_EQ(ucow_madvise(w.mm, va + 8 * PAGE, PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(written(w.mm, va, NPAGES, true, set), 1);
	CHECK(set[8]);
	CHECK_EQ(get64(w.cpu, va + 8 * PAGE), 0);
	CHECK_EQ(written(w.mm, va, NPAGES, true, set), 0);
	check_invariants(w.machine);
	ucow_uffd_close(uffd);
	CHECK(!query(w.mm, va).uffd_wp);
	world_close(&w);
}

/* Without room for the report nothing is protected that was not reported. */
TEST(scan_protects_what_it_reports_only)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, NPAGES);
	struct ucow_uffd *uffd = watch_async(w.mm, va, NPAGES);
	struct ucow_page_region vec[NPAGES];
	struct ucow_pm_scan scan;
	bool set[NPAGES];

	for (uint64_t i = 0; i < NPAGES; i++)
		put64(w.cpu, va + i * PAGE, 1);
	scan = scan_of(va, NPAGES, vec, 1);
	scan.flags = UCOW_PM_SCAN_WP_MATCHING;
	scan.category_mask = scan.return_mask = UCOW_PAGE_IS_WRITTEN;
	scan.max_pages = 40;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 1);
	CHECK_EQ(vec[0].end, va + 40 * PAGE);
	CHECK_EQ(scan.walk_end, va + 40 * PAGE);
	CHECK(query(w.mm, va + 39 * PAGE).uffd_wp);
	CHECK(!query(w.mm, va + 40 * PAGE).uffd_wp);
	CHECK_EQ(written(w.mm, va, NPAGES, false, set), NPAGES - 40);
	/* A range that begins and ends inside leaves. */
	scan = scan_of(va + 45 * PAGE, 3, NULL, 0);
	scan.flags = UCOW_PM_SCAN_WP_MATCHING;
	scan.category_mask = UCOW_PAGE_IS_WRITTEN;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 0);
	CHECK_EQ(written(w.mm, va, NPAGES, false, set), NPAGES - 43);
	CHECK(set[44] && !set[45] && !set[47] && set[48]);
	/* By entries too: those that are present. */
	scan = scan_of(va + 60 * PAGE, 2, vec, 8);
	scan.flags = UCOW_PM_SCAN_WP_MATCHING;
	scan.category_mask = UCOW_PAGE_IS_PRESENT | UCOW_PAGE_IS_WRITTEN;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 1);
	CHECK_EQ(written(w.mm, va, NPAGES, false, set), NPAGES - 45);
	check_invariants(w.machine);
	ucow_uffd_close(uffd);
	world_close(&w);
}

/* Mappings that are not watched so are left out; or are an error, if that is asked for. */
TEST(scan_protects_what_is_watched_only)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4), other = BASE + 8 * PAGE;
	struct ucow_uffd *uffd = watch_async(w.mm, va, 4);
	struct ucow_page_region vec[8];
	struct ucow_pm_scan scan = scan_of(va, 16, vec, 8);

	map_at(w.mm, other, 4, RW, UCOW_MAP_PRIVATE);
	put64(w.cpu, va, 1);
	put64(w.cpu, other, 1);
	scan.flags = UCOW_PM_SCAN_WP_MATCHING;
	scan.category_mask = UCOW_PAGE_IS_PRESENT;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 1);
	CHECK_EQ(vec[0].start, va);
	CHECK(query(w.mm, other).writable);
	put64(w.cpu, va, 2);
	scan.flags |= UCOW_PM_SCAN_CHECK_WPASYNC;
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), -EPERM);
	CHECK(query(w.mm, va).writable);
	ucow_uffd_close(uffd);
	world_close(&w);
}

/* pagemap_ioctl.c: mprotect to nothing and back keeps the protection; a mapping over it does not. */
TEST(scan_survives_mprotect_and_mapping_over)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	struct ucow_uffd *uffd = watch_async(w.mm, va, 4);
	bool set[NPAGES];

	for (uint64_t i = 0; i < 4; i++)
		put64(w.cpu, va + i * PAGE, 1);
	CHECK_EQ(written(w.mm, va, 4, true, set), 4);
	CHECK_EQ(ucow_mprotect(w.mm, va, 4 * PAGE, UCOW_PROT_NONE), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, 4 * PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, 4 * PAGE, RW), 0);
	CHECK_EQ(written(w.mm, va, 4, false, set), 0);
	put64(w.cpu, va + PAGE, 2);
	CHECK_EQ(written(w.mm, va, 4, true, set), 1);
	map_at(w.mm, va, 4, RW, UCOW_MAP_PRIVATE);
	CHECK_EQ(categories(w.mm, va), UCOW_PAGE_IS_SOFT_DIRTY);
	ucow_uffd_close(uffd);
	world_close(&w);
}

/* What is below tables that a child shares is owned before it is protected; the child is not protected. */
TEST(scan_after_fork)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, NPAGES);
	struct ucow_mm *child;
	struct ucow_uffd *uffd;
	struct ucow_cpu *cpu;
	bool set[NPAGES];

	for (uint64_t i = 0; i < NPAGES; i++)
		put64(w.cpu, va + i * PAGE, 1);
	child = fork_mm(w.mm);
	uffd = watch_async(w.mm, va, NPAGES);
	CHECK_EQ(written(w.mm, va, NPAGES, true, set), NPAGES);
	CHECK(!query(child, va).uffd_wp);
	check_invariants(w.machine);
	put64(w.cpu, va + 3 * PAGE, 2);
	CHECK_EQ(written(w.mm, va, NPAGES, true, set), 1);
	cpu = cpu_on(child);
	CHECK_EQ(get64(cpu, va + 3 * PAGE), 1);
	put64(cpu, va + 4 * PAGE, 2);
	CHECK_EQ(written(w.mm, va, NPAGES, true, set), 0);
	exit_mm(cpu, child);
	check_invariants(w.machine);
	ucow_uffd_close(uffd);
	world_close(&w);
}

/* A list of what was reported, call after call, until the end of the range. Returns: 0; the first error. */
static long scan_on(struct ucow_mm *mm, uint64_t va, uint64_t *at, bool *set)
{
	struct ucow_page_region vec[NPAGES];
	struct ucow_pm_scan scan = scan_of(va, NPAGES, vec, NPAGES);
	long n = 0;

	scan.flags = UCOW_PM_SCAN_WP_MATCHING;
	scan.category_mask = scan.return_mask = UCOW_PAGE_IS_WRITTEN;
	for (; *at < scan.end && n >= 0; *at = n < 0 ? *at : scan.walk_end) {
		scan.start = *at;
		n = ucow_pagemap_scan(mm, &scan);
		for (long i = 0; i < n; i++)
			for (uint64_t page = vec[i].start; page < vec[i].end; page += PAGE)
				set[(page - va) / PAGE] = true;
	}
	return n < 0 ? n : 0;
}

/*
 * The N-th table that the scan needs is not there, for all N: what was reported is protected, what was not is not, and
 * the scan goes on from where it stopped.
 */
TEST(scan_without_memory)
{
	bool fired = true;

	for (uint64_t nth = 1; fired; nth++) {
		struct world w = world_open();
		uint64_t va = map_private(w.mm, NPAGES), at = va;
		bool set[NPAGES] = {false};
		struct ucow_uffd *uffd;
		struct ucow_mm *child;
		long error;

		for (uint64_t i = 0; i < NPAGES / 2; i++)
			put64(w.cpu, va + i * PAGE, 1);
		child = fork_mm(w.mm);
		uffd = watch_async(w.mm, va, NPAGES);
		(void)ucow_machine_inject(w.machine, UCOW_INJECT_TABLE, nth);
		error = scan_on(w.mm, va, &at, set);
		fired = !ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 0);
		CHECK(error == 0 || (fired && error == -ENOMEM));
		for (uint64_t i = 0; i < NPAGES; i++)
			CHECK_EQ(query(w.mm, va + i * PAGE).uffd_wp, set[i]);
		check_invariants(w.machine);
		CHECK_EQ(scan_on(w.mm, va, &at, set), 0);
		for (uint64_t i = 0; i < NPAGES; i++)
			CHECK(set[i] && query(w.mm, va + i * PAGE).uffd_wp);
		CHECK(nth < 100);
		ucow_uffd_close(uffd);
		CHECK_EQ(ucow_mm_destroy(child), 0);
		world_close(&w);
	}
}

/* Swapped pages keep the protection in their entries. */
TEST(scan_of_swapped_pages)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	struct ucow_uffd *uffd = watch_async(w.mm, va, 4);
	bool set[NPAGES];

	add_device(w.machine, 16);
	for (uint64_t i = 0; i < 4; i++)
		put64(w.cpu, va + i * PAGE, 1);
	CHECK_EQ(ucow_madvise(w.mm, va, 2 * PAGE, UCOW_MADV_PAGEOUT), 0);
	CHECK_EQ(written(w.mm, va, 4, true, set), 4);
	CHECK_EQ(ucow_madvise(w.mm, va, 4 * PAGE, UCOW_MADV_PAGEOUT), 0);
	CHECK_EQ(written(w.mm, va, 4, true, set), 0);
	CHECK_EQ(get64(w.cpu, va), 1);
	CHECK_EQ(written(w.mm, va, 4, true, set), 0);
	put64(w.cpu, va, 2);
	put64(w.cpu, va + 3 * PAGE, 2);
	CHECK_EQ(written(w.mm, va, 4, true, set), 2);
	CHECK(set[0] && set[3]);
	check_invariants(w.machine);
	ucow_uffd_close(uffd);
	world_close(&w);
}

/* ---- no update is lost: threads store, one scans and copies what was reported (pagemap_ioctl.c) ---- */

struct writer {
	struct ucow_mm *mm;
	uint64_t va, seed;
	_Atomic bool *stop;
};

static void *keep_storing(void *arg)
{
	struct writer *writer = arg;
	struct ucow_cpu *cpu = cpu_on(writer->mm);

	for (unsigned n = 0; !*writer->stop; n++) {
		uint64_t value = draw(&writer->seed);

		put64(cpu, writer->va + value % NPAGES * PAGE, value);
		if (n % 16 == 0)
			sched_yield();
	}
	ucow_cpu_destroy(cpu);
	return NULL;
}

/* Returns: pages copied. */
static uint64_t copy_written(const struct world *w, uint64_t va, uint64_t *copy)
{
	bool set[NPAGES];
	uint64_t n = written(w->mm, va, NPAGES, true, set);

	for (uint64_t i = 0; i < NPAGES; i++)
		if (set[i])
			copy[i] = get64(w->cpu, va + i * PAGE);
	return n;
}

TEST(scan_loses_no_update)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, NPAGES), copy[NPAGES] = {0}, n = 0;
	struct ucow_uffd *uffd = watch_async(w.mm, va, NPAGES);
	_Atomic bool stop = false;
	struct writer writers[2];
	pthread_t threads[2];

	(void)copy_written(&w, va, copy);
	for (unsigned i = 0; i < 2; i++) {
		writers[i] = (struct writer){.mm = w.mm, .va = va, .seed = i + 1, .stop = &stop};
		REQUIRE_EQ(pthread_create(&threads[i], NULL, keep_storing, &writers[i]), 0);
	}
	while (n < 5000)
		n += copy_written(&w, va, copy);
	stop = true;
	for (unsigned i = 0; i < 2; i++)
		REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
	(void)copy_written(&w, va, copy);
	for (uint64_t i = 0; i < NPAGES; i++)
		CHECK_EQ(get64(w.cpu, va + i * PAGE), copy[i]);
	ucow_uffd_close(uffd);
	world_close(&w);
}

TEST(scan_of_a_snapshot)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	struct ucow_mm *snapshot = NULL;
	struct ucow_page_region vec[4];
	struct ucow_pm_scan scan = scan_of(va, 4, vec, 4);

	put64(w.cpu, va + PAGE, 1);
	REQUIRE_EQ(ucow_snapshot(w.mm, &snapshot), 0);
	scan.category_mask = UCOW_PAGE_IS_PRESENT;
	CHECK_EQ(ucow_pagemap_scan(snapshot, &scan), 1);
	CHECK_EQ(vec[0].start, va + PAGE);
	scan.flags = UCOW_PM_SCAN_WP_MATCHING;
	CHECK_EQ(ucow_pagemap_scan(snapshot, &scan), -EACCES);
	CHECK_EQ(ucow_mm_destroy(snapshot), 0);
	world_close(&w);
}

/* ---- the scan, soft-dirty and ucow_diff agree on what changed ---- */

struct changes {
	bool set[NPAGES];
	uint64_t va;
};

static int note_change(void *arg, uint64_t va, enum ucow_diff_kind kind)
{
	struct changes *changes = arg;

	(void)kind;
	changes->set[(va - changes->va) / PAGE] = true;
	return 0;
}

/* What a program does to the pages of the range; stores, drops, loads, forced writes, moves to swap. */
static void act(const struct world *w, uint64_t va, uint64_t *seed)
{
	uint64_t at = va + draw(seed) % NPAGES * PAGE, value = draw(seed) | 1;

	switch (draw(seed) % 6) {
	case 0:
		REQUIRE_EQ(ucow_madvise(w->mm, at, PAGE, UCOW_MADV_DONTNEED), 0);
		break;
	case 1:
		(void)get64(w->cpu, at);
		break;
	case 2:
		REQUIRE_EQ(ucow_access_remote(w->mm, at, &value, sizeof(value), UCOW_FOLL_WRITE, NULL), 0);
		break;
	case 3:
		REQUIRE_EQ(ucow_madvise(w->mm, at, PAGE, UCOW_MADV_PAGEOUT), 0);
		break;
	default:
		put64(w->cpu, at, value);
	}
}

/*
 * A snapshot, some work, another: the scan reports every page in which they differ, and, of those that are there in
 * both, only pages that were stored to, which differ in their frames.
 */
TEST(scan_and_diff_agree)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, NPAGES), seed = 11;
	struct ucow_uffd *uffd = watch_async(w.mm, va, NPAGES);
	bool set[NPAGES];

	add_device(w.machine, 4 * NPAGES);
	for (uint64_t i = 0; i < NPAGES; i += 2)
		put64(w.cpu, va + i * PAGE, 1);
	for (unsigned round = 0; round < 20; round++) {
		struct changes diff = {.va = va};
		struct ucow_mm *before = NULL;

		(void)written(w.mm, va, NPAGES, true, set);
		clear(w.mm);
		REQUIRE_EQ(ucow_snapshot(w.mm, &before), 0);
		for (unsigned i = draw(&seed) % 30; i; i--)
			act(&w, va, &seed);
		/* Bring back what is out, on both sides, for frames to be compared. */
		CHECK_EQ(ucow_madvise(w.mm, va, NPAGES * PAGE, UCOW_MADV_POPULATE_READ), 0);
		CHECK_EQ(ucow_diff(before, w.mm, note_change, &diff), 0);
		(void)written(w.mm, va, NPAGES, false, set);
		for (uint64_t i = 0; i < NPAGES; i++) {
			CHECK(!diff.set[i] || set[i]);
			CHECK(!is_soft_dirty(w.mm, va + i * PAGE) || set[i]);
		}
		check_invariants(w.machine);
		CHECK_EQ(ucow_mm_destroy(before), 0);
	}
	ucow_uffd_close(uffd);
	world_close(&w);
}

TAP_MAIN()
