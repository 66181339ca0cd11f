/* SPDX-License-Identifier: MIT */
/*
 * Files through the public interface: mappings of them, shared and private, reading and writing through the cache,
 * copy-on-write from it, pins (semantics.md A.1.4, A.2), errors, what closing leaves in the host file.
 */
#include "files.h"

#include <fcntl.h>

#define NPAGES 40
#define FAR    ((uint64_t)1 << 40)

/* ---- opening ---- */

TEST(what_cannot_be_opened_is_refused)
{
	struct world w = world_open();
	int fd = host_file(PAGE), folder = open("/", O_RDONLY | O_CLOEXEC);
	struct ucow_file_options good = {.size = sizeof(good), .fd = fd}, bad = good;
	struct ucow_file *file = NULL;

	bad.size--;
	CHECK_EQ(ucow_file_open(w.machine, &bad, &file), -EINVAL);
	bad = good;
	bad.flags = 8;
	CHECK_EQ(ucow_file_open(w.machine, &bad, &file), -EINVAL);
	bad = good;
	bad.offset = 1;
	CHECK_EQ(ucow_file_open(w.machine, &bad, &file), -EINVAL);
	bad = good;
	bad.reserved = 1;
	CHECK_EQ(ucow_file_open(w.machine, &bad, &file), -EINVAL);
	bad = good;
	bad.fd = -2;
	CHECK_EQ(ucow_file_open(w.machine, &bad, &file), -EBADF);
	bad.fd = 1 << 20;
	CHECK_EQ(ucow_file_open(w.machine, &bad, &file), -EBADF);
	bad.fd = folder; /* a folder, which is open for reading alone besides */
	CHECK_EQ(ucow_file_open(w.machine, &bad, &file), -EACCES);
	bad.flags = UCOW_FILE_READ_ONLY;
	CHECK_EQ(ucow_file_open(w.machine, &bad, &file), -EINVAL);
	CHECK(!file);
	close(folder);
	close(fd);
	world_close(&w);
}

TEST(a_read_only_opener_changes_nothing)
{
	struct world w = world_open();
	int fd = host_file(2 * PAGE);
	struct ucow_file_options options = {.size = sizeof(options), .fd = fd, .flags = UCOW_FILE_READ_ONLY};
	struct ucow_file *file = NULL, *other = NULL;
	uint64_t va = 0;

	REQUIRE_EQ(ucow_file_open(w.machine, &options, &file), 0);
	CHECK_EQ(ucow_file_write(file, &va, sizeof(va), 0), -EACCES);
	CHECK_EQ(ucow_file_truncate(file, 0), -EACCES);
	CHECK_EQ(ucow_file_punch(file, 0, PAGE), -EACCES);
	CHECK_EQ(ucow_file_reopen(file, 0, &other), -EINVAL);
	CHECK_EQ(ucow_mmap_file(w.mm, 0, PAGE, RW, UCOW_MAP_SHARED, file, 0, &va), -EACCES);
	map_file(w.mm, BASE, 1, UCOW_PROT_READ, UCOW_MAP_SHARED, file, 0);
	CHECK_EQ(ucow_mprotect(w.mm, BASE, PAGE, RW), -EACCES);
	CHECK_EQ(get64(w.cpu, BASE), file_value(0));
	CHECK_EQ(ucow_store_u64(w.cpu, BASE, 1), -EFAULT);
	map_file(w.mm, FAR, 1, RW, UCOW_MAP_PRIVATE, file, 0);
	put64(w.cpu, FAR, 5);
	CHECK_EQ(get64(w.cpu, BASE), file_value(0));
	check_invariants(w.machine);
	CHECK_EQ(ucow_file_close(file), 0);
	CHECK_EQ(host_get64(fd, 0), file_value(0));
	close(fd);
	world_close(&w);
}

TEST(a_mapping_begins_at_a_page_and_belongs_to_the_machine)
{
	struct world w = world_open(), other = world_open();
	struct ucow_file *file = open_file(w.machine, -1, 4 * PAGE);
	uint64_t va = 0;

	CHECK_EQ(ucow_mmap_file(w.mm, 0, PAGE, RW, UCOW_MAP_SHARED, file, 8, &va), -EINVAL);
	CHECK_EQ(ucow_mmap_file(w.mm, 0, PAGE, RW, UCOW_MAP_SHARED | UCOW_MAP_PFN, file, 0, &va), -EINVAL);
	CHECK_EQ(ucow_mmap_file(w.mm, 0, 0, RW, UCOW_MAP_SHARED, file, 0, &va), -EINVAL);
	CHECK_EQ(ucow_mmap_file(other.mm, 0, PAGE, RW, UCOW_MAP_SHARED, file, 0, &va), -EINVAL);
	CHECK_EQ(ucow_mmap_file(w.mm, 0, PAGE, RW, UCOW_MAP_SHARED, file, (uint64_t)1 << 63, &va), -EOVERFLOW);
	CHECK_EQ(ucow_mmap_file(w.mm, 0, PAGE, RW, UCOW_MAP_SHARED, file, INT64_MAX & UCOW_PAGE_MASK, &va), -EOVERFLOW);
	CHECK_EQ(ucow_file_close(file), 0);
	world_close(&w);
	world_close(&other);
}

TEST(a_machine_with_an_open_file_is_busy)
{
	struct world w = world_open();
	struct ucow_file *file = open_file(w.machine, -1, PAGE);
	struct ucow_machine *machine;
	struct ucow_machine_options options = default_options();
	struct ucow_file *lonely;

	REQUIRE_EQ(ucow_machine_create(&options, &machine), 0);
	lonely = open_file(machine, -1, PAGE);
	CHECK_EQ(ucow_machine_destroy(machine), -EBUSY);
	CHECK_EQ(ucow_file_close(lonely), 0);
	CHECK_EQ(ucow_machine_destroy(machine), 0);
	CHECK_EQ(ucow_file_close(file), 0);
	world_close(&w);
}

/* ---- shared mappings ---- */

/* Memory has no descriptor: not number 0 either. */
TEST(the_end_of_shared_memory_closes_no_descriptor)
{
	struct world w = world_open();
	uint64_t va;

	REQUIRE(fcntl(0, F_GETFD) >= 0 || open("/dev/null", O_RDONLY) == 0);
	REQUIRE_EQ(ucow_mmap(w.mm, 0, PAGE, UCOW_PROT_READ | UCOW_PROT_WRITE, UCOW_MAP_SHARED, &va), 0);
	CHECK_EQ(ucow_munmap(w.mm, va, PAGE), 0);
	CHECK(fcntl(0, F_GETFD) >= 0);
	world_close(&w);
}

TEST(spaces_share_what_they_store)
{
	for (int in_memory = 0; in_memory < 2; in_memory++) {
		struct world w = world_open();
		int fd;
		struct ucow_file *file = open_filled(w.machine, in_memory, NPAGES, &fd);
		struct ucow_mm *mm = NULL;
		struct ucow_cpu *cpu;

		REQUIRE_EQ(ucow_mm_create(w.machine, &mm), 0);
		cpu = cpu_on(mm);
		map_file(w.mm, BASE, NPAGES, RW, UCOW_MAP_SHARED, file, 0);
		map_file(mm, FAR, NPAGES - 3, RW, UCOW_MAP_SHARED, file, 3);
		for (uint64_t i = 0; i < NPAGES; i++)
			CHECK_EQ(get64(w.cpu, BASE + i * PAGE), file_value(i));
		put64(w.cpu, BASE + 5 * PAGE, 50);
		put64(cpu, FAR + 8, 30);
		CHECK_EQ(get64(cpu, FAR + 2 * PAGE), 50);
		CHECK_EQ(get64(w.cpu, BASE + 3 * PAGE + 8), 30);
		CHECK_EQ(file_get64(file, 5 * PAGE), 50);
		file_put64(file, 5 * PAGE, 51);
		CHECK_EQ(get64(cpu, FAR + 2 * PAGE), 51);
		CHECK_EQ(query(w.mm, BASE + 5 * PAGE).pfn, query(mm, FAR + 2 * PAGE).pfn);
		CHECK_EQ(file_stat(file).spaces, 2);
		check_invariants(w.machine);
		exit_mm(cpu, mm);
		CHECK_EQ(file_stat(file).spaces, 1);
		CHECK_EQ(ucow_file_close(file), 0); /* the mapping keeps it open */
		CHECK_EQ(get64(w.cpu, BASE + 5 * PAGE), 51);
		close_fd(fd);
		world_close(&w);
	}
}

TEST(a_page_is_dirty_from_the_first_store_on)
{
	struct world w = world_open();
	int fd = host_file(NPAGES * PAGE);
	struct ucow_file *file = open_file(w.machine, fd, 0);

	map_file(w.mm, BASE, NPAGES, RW, UCOW_MAP_SHARED, file, 0);
	CHECK_EQ(get64(w.cpu, BASE), file_value(0));
	CHECK(!query(w.mm, BASE).writable);
	CHECK_EQ(file_stat(file).dirty, 0);
	put64(w.cpu, BASE, 7);
	CHECK(query(w.mm, BASE).writable);
	CHECK_EQ(file_stat(file).dirty, 1);
	CHECK(ucow_file_page(file, 0) & UCOW_FILE_PAGE_DIRTY);
	CHECK_EQ(counted(&w, UCOW_COUNTER_REUSE_SHARED), 1);
	put64(w.cpu, BASE + 9 * PAGE, 7); /* nothing was mapped there yet, or by the neighbour's fault */
	CHECK_EQ(file_stat(file).dirty, 2);
	/* Permission that was taken away comes back without a fault where the page is dirty, and only there (B.6). */
	REQUIRE_EQ(ucow_mprotect(w.mm, BASE, NPAGES * PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(get64(w.cpu, BASE + PAGE), file_value(1));
	REQUIRE_EQ(ucow_mprotect(w.mm, BASE, NPAGES * PAGE, RW), 0);
	CHECK(query(w.mm, BASE).writable);
	CHECK(!query(w.mm, BASE + PAGE).writable);
	check_invariants(w.machine);
	CHECK_EQ(ucow_file_close(file), 0);
	world_close(&w);
	CHECK_EQ(host_get64(fd, 0), 7);
	CHECK_EQ(host_get64(fd, 9 * PAGE), 7);
	CHECK_EQ(host_get64(fd, PAGE), file_value(1));
	close(fd);
}

TEST(memory_is_not_tracked)
{
	struct world w = world_open();
	struct ucow_file *file = open_file(w.machine, -1, 4 * PAGE);

	map_file(w.mm, BASE, 4, RW, UCOW_MAP_SHARED, file, 0);
	CHECK_EQ(get64(w.cpu, BASE), 0);
	CHECK(query(w.mm, BASE).writable);
	put64(w.cpu, BASE, 1);
	CHECK_EQ(file_stat(file).dirty, 0);
	CHECK_EQ(file_stat(file).cached, 1);
	CHECK_EQ(ucow_file_close(file), 0);
	world_close(&w);
}

/* ---- reading from the host ---- */

TEST(misses_in_order_read_ahead_and_loads_map_what_is_near)
{
	struct world w = world_open();
	int fd = host_file(NPAGES * PAGE);
	struct ucow_file *file = open_file(w.machine, fd, 0);
	uint64_t majors;

	map_file(w.mm, BASE, NPAGES, UCOW_PROT_READ, UCOW_MAP_SHARED, file, 0);
	CHECK_EQ(get64(w.cpu, BASE), file_value(0));
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_MAJOR), 1);
	CHECK(file_stat(file).read > 1);
	CHECK(query(w.mm, BASE + PAGE).present);
	CHECK(!query(w.mm, BASE + PAGE).accessed);
	for (uint64_t i = 0; i < NPAGES; i++)
		CHECK_EQ(get64(w.cpu, BASE + i * PAGE), file_value(i));
	majors = counted(&w, UCOW_COUNTER_FAULT_MAJOR);
	CHECK(majors < 8);
	CHECK(counted(&w, UCOW_COUNTER_FILE_AROUND) > NPAGES / 2);
	CHECK_EQ(file_stat(file).read, NPAGES);
	CHECK_EQ(file_stat(file).cached, NPAGES);
	check_invariants(w.machine);
	CHECK_EQ(ucow_file_close(file), 0);
	close(fd);
	world_close(&w);
}

TEST(without_readahead_a_miss_reads_one_page)
{
	struct world w = world_open();
	int fd = host_file(NPAGES * PAGE);
	struct ucow_file_options options = {.size = sizeof(options), .fd = fd, .readahead = 1};
	struct ucow_file *file = NULL;

	REQUIRE_EQ(ucow_file_open(w.machine, &options, &file), 0);
	map_file(w.mm, BASE, NPAGES, UCOW_PROT_READ, UCOW_MAP_PRIVATE, file, 0);
	for (uint64_t i = 0; i < 5; i++) {
		CHECK_EQ(get64(w.cpu, BASE + i * PAGE), file_value(i));
		CHECK_EQ(file_stat(file).read, i + 1);
	}
	CHECK_EQ(ucow_file_close(file), 0);
	close(fd);
	world_close(&w);
}

TEST(beyond_the_end_there_is_nothing)
{
	struct world w = world_open();
	int fd = host_file(2 * PAGE + 100);
	struct ucow_file *file = open_file(w.machine, fd, 0);
	struct ucow_page *page;
	uint64_t value;

	map_file(w.mm, BASE, 5, RW, UCOW_MAP_SHARED, file, 0);
	map_file(w.mm, FAR, 5, RW, UCOW_MAP_PRIVATE, file, 0);
	CHECK_EQ(get64(w.cpu, BASE + 2 * PAGE), file_value(2));
	CHECK_EQ(get64(w.cpu, BASE + 2 * PAGE + 104), 0); /* the rest of the last page */
	CHECK_EQ(ucow_load_u64(w.cpu, BASE + 3 * PAGE, &value), -ENXIO);
	CHECK_EQ(ucow_store_u64(w.cpu, BASE + 3 * PAGE, 1), -ENXIO);
	CHECK_EQ(ucow_load_u64(w.cpu, FAR + 3 * PAGE, &value), -ENXIO);
	CHECK_EQ(ucow_store_u64(w.cpu, FAR + 3 * PAGE, 1), -ENXIO);
	CHECK_EQ(ucow_get_user_pages(w.cpu, BASE + 3 * PAGE, 1, 0, &page), -EFAULT);
	CHECK_EQ(ucow_madvise(w.mm, BASE, 5 * PAGE, UCOW_MADV_POPULATE_READ), -EFAULT);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_SIGBUS), 6);
	put64(w.cpu, BASE + 2 * PAGE + 104, 9); /* is seen, and never written */
	CHECK_EQ(get64(w.cpu, FAR + 2 * PAGE + 104), 9);
	CHECK_EQ(ucow_file_read(file, &value, sizeof(value), 2 * PAGE + 96), 4);
	CHECK_EQ(ucow_file_read(file, &value, sizeof(value), 3 * PAGE), 0);
	check_invariants(w.machine);
	CHECK_EQ(ucow_file_close(file), 0);
	world_close(&w);
	CHECK_EQ(host_size(fd), 2 * PAGE + 100);
	close(fd);
}

TEST(a_part_of_a_host_file_keeps_its_length)
{
	struct world w = world_open();
	int fd = host_file(8 * PAGE);
	struct ucow_file_options options = {
		.size = sizeof(options), .fd = fd, .offset = 2 * PAGE, .length = 2 * PAGE + 8};
	struct ucow_file *file = NULL;
	uint64_t value = 1;

	REQUIRE_EQ(ucow_file_open(w.machine, &options, &file), 0);
	map_file(w.mm, BASE, 3, RW, UCOW_MAP_SHARED, file, 0);
	for (uint64_t i = 0; i < 3; i++) {
		CHECK_EQ(get64(w.cpu, BASE + i * PAGE), file_value(i + 2));
		put64(w.cpu, BASE + i * PAGE, 70 + i);
		put64(w.cpu, BASE + i * PAGE + 8, 80 + i); /* in the last page behind the part's end */
	}
	CHECK_EQ(ucow_file_truncate(file, 0), -EINVAL);
	CHECK_EQ(ucow_file_write(file, &value, sizeof(value), 2 * PAGE + 8), -EFBIG);
	CHECK_EQ(ucow_file_write(file, &value, sizeof(value), 2 * PAGE), 8);
	REQUIRE_EQ(ucow_munmap(w.mm, BASE, 3 * PAGE), 0);
	CHECK_EQ(ucow_file_close(file), 0);
	CHECK_EQ(host_get64(fd, PAGE), file_value(1));
	CHECK_EQ(host_get64(fd, 2 * PAGE), 70);
	CHECK_EQ(host_get64(fd, 3 * PAGE + 8), 81);
	CHECK_EQ(host_get64(fd, 4 * PAGE), 1);
	CHECK_EQ(host_get64(fd, 4 * PAGE + 8), 0);
	CHECK_EQ(host_get64(fd, 5 * PAGE), file_value(5));
	CHECK_EQ(host_size(fd), 8 * PAGE);
	close(fd);
	world_close(&w);
}

/* ---- errors ---- */

TEST(a_page_that_cannot_be_read_is_refused_and_every_opener_is_told_once)
{
	struct world w = world_open();
	int fd = host_file(4 * PAGE);
	struct ucow_file *file = open_file(w.machine, fd, 0), *second = NULL, *third = NULL;
	uint64_t value = 0;

	REQUIRE_EQ(ucow_file_reopen(file, 0, &second), 0);
	map_file(w.mm, BASE, 4, RW, UCOW_MAP_SHARED, file, 0);
	ucow_machine_inject(w.machine, UCOW_INJECT_READ, 1);
	CHECK_EQ(ucow_load_u64(w.cpu, BASE, &value), -ENXIO);
	CHECK(!ucow_machine_inject(w.machine, UCOW_INJECT_READ, 0));
	CHECK_EQ(file_stat(file).read_errors, 1);
	CHECK_EQ(file_stat(file).cached, 0);
	CHECK_EQ(get64(w.cpu, BASE), file_value(0)); /* tried again */
	ucow_machine_inject(w.machine, UCOW_INJECT_READ, 1);
	REQUIRE_EQ(ucow_file_reopen(file, 0, &third), 0);
	CHECK(ucow_machine_inject(w.machine, UCOW_INJECT_READ, 0));
	CHECK_EQ(ucow_file_close(second), -EIO);
	REQUIRE_EQ(ucow_file_reopen(file, 0, &second), 0);
	CHECK_EQ(ucow_file_close(second), 0); /* opened after somebody had been told */
	CHECK_EQ(ucow_file_close(third), -EIO);
	CHECK_EQ(ucow_file_close(file), -EIO);
	check_invariants(w.machine);
	close(fd);
	world_close(&w);
}

TEST(a_failed_read_is_the_callers_error)
{
	struct world w = world_open();
	int fd = host_file(4 * PAGE);
	struct ucow_file *file = open_file(w.machine, fd, 0);
	uint64_t value = 0;

	ucow_machine_inject(w.machine, UCOW_INJECT_READ, 1);
	CHECK_EQ(ucow_file_read(file, &value, sizeof(value), 0), -EIO);
	ucow_machine_inject(w.machine, UCOW_INJECT_READ, 1);
	CHECK_EQ(ucow_file_write(file, &value, sizeof(value), 0), -EIO); /* a part of a page needs the rest */
	ucow_machine_inject(w.machine, UCOW_INJECT_READ, 0);
	CHECK_EQ(file_get64(file, 0), file_value(0));
	CHECK_EQ(ucow_file_close(file), -EIO);
	close(fd);
	world_close(&w);
}

TEST(closing_tells_what_could_not_be_written)
{
	struct world w = world_open();
	int fd = host_file(4 * PAGE);
	struct ucow_file *file = open_file(w.machine, fd, 0);

	file_put64(file, PAGE, 5);
	ucow_machine_inject(w.machine, UCOW_INJECT_WRITE, 1);
	CHECK_EQ(ucow_file_close(file), -EIO);
	CHECK(!ucow_machine_inject(w.machine, UCOW_INJECT_WRITE, 0));
	CHECK_EQ(host_get64(fd, PAGE), file_value(1));
	close(fd);
	world_close(&w);
}

/* ---- private mappings (A.1.4) ---- */

TEST(a_store_to_a_private_mapping_copies)
{
	for (int in_memory = 0; in_memory < 2; in_memory++) {
		struct world w = world_open();
		int fd;
		struct ucow_file *file = open_filled(w.machine, in_memory, NPAGES, &fd);

		map_file(w.mm, BASE, NPAGES, RW, UCOW_MAP_PRIVATE, file, 0);
		map_file(w.mm, FAR, NPAGES, RW, UCOW_MAP_SHARED, file, 0);
		for (uint64_t i = 0; i < 4; i++) { /* loaded first, and not */
			if (i & 1)
				CHECK_EQ(get64(w.cpu, BASE + i * PAGE), file_value(i));
			put64(w.cpu, BASE + i * PAGE + 8, 5);
			CHECK_EQ(get64(w.cpu, BASE + i * PAGE), file_value(i));
			CHECK_EQ(get64(w.cpu, FAR + i * PAGE + 8), 0);
			CHECK(query(w.mm, BASE + i * PAGE).anon);
			CHECK(query(w.mm, BASE + i * PAGE).exclusive);
			CHECK(!query(w.mm, FAR + i * PAGE).anon);
		}
		CHECK_EQ(counted(&w, UCOW_COUNTER_FILE_COW) + counted(&w, UCOW_COUNTER_COPY_FILE), 4);
		CHECK_EQ(file_stat(file).dirty, 0);
		/* Until then the private mapping follows the file; from then on it does not. */
		put64(w.cpu, FAR + 9 * PAGE, 90);
		CHECK_EQ(get64(w.cpu, BASE + 9 * PAGE), 90);
		put64(w.cpu, FAR + PAGE, 91);
		CHECK_EQ(get64(w.cpu, BASE + PAGE), file_value(1));
		REQUIRE_EQ(ucow_madvise(w.mm, BASE, NPAGES * PAGE, UCOW_MADV_DONTNEED), 0);
		CHECK_EQ(get64(w.cpu, BASE + PAGE), 91);
		CHECK_EQ(get64(w.cpu, BASE + PAGE + 8), 0);
		check_invariants(w.machine);
		CHECK_EQ(ucow_file_close(file), 0);
		close_fd(fd);
		world_close(&w);
	}
}

/* Basic COW, and pins for reading: the page is not anon, and a long-term pin must break copy-on-write all the same. */
TEST(a_long_term_pin_of_a_private_mapping_sees_the_next_store)
{
	for (int kind = 0; kind < 4; kind++) {
		bool in_memory = kind & 1, fast = kind & 2;
		struct world w = world_open();
		int fd;
		struct ucow_file *file = open_filled(w.machine, in_memory, 4, &fd);
		struct ucow_page *page = NULL;

		map_file(w.mm, BASE, 4, RW, UCOW_MAP_PRIVATE, file, 0);
		map_file(w.mm, FAR, 4, UCOW_PROT_READ, UCOW_MAP_PRIVATE, file, 0);
		CHECK_EQ(get64(w.cpu, BASE), file_value(0));
		CHECK_EQ(get64(w.cpu, FAR), file_value(0));
		if (fast)
			REQUIRE_EQ(ucow_pin_user_pages_fast(w.cpu, BASE, 1, UCOW_FOLL_LONGTERM, &page), 1);
		else
			page = pin_page(w.cpu, BASE, UCOW_FOLL_LONGTERM);
		CHECK(query(w.mm, BASE).anon);
		put64(w.cpu, BASE, 77);
		CHECK_EQ(device_read64(page), 77);
		CHECK_EQ(get64(w.cpu, FAR), file_value(0));
		check_invariants(w.machine);
		ucow_unpin_user_pages(&page, 1);
		/* A short-term one takes the page as it is, and the store copies. */
		page = pin_page(w.cpu, BASE + PAGE, 0);
		CHECK(!query(w.mm, BASE + PAGE).anon);
		put64(w.cpu, BASE + PAGE, 78);
		CHECK_EQ(device_read64(page), file_value(1));
		ucow_unpin_user_pages(&page, 1);
		CHECK_EQ(ucow_file_close(file), 0);
		close_fd(fd);
		world_close(&w);
	}
}

/* gup_longterm: what may be pinned for long (A.2). */
TEST(long_term_pins_for_writing_are_refused_where_stores_are_tracked)
{
	for (int kind = 0; kind < 16; kind++) {
		bool in_memory = kind & 1, shared = kind & 2, write = kind & 4, fast = kind & 8;
		long want = !in_memory && shared && write ? -EFAULT : 1, got;
		unsigned flags = UCOW_FOLL_LONGTERM | (write ? UCOW_FOLL_WRITE : 0);
		struct world w = world_open();
		int fd;
		struct ucow_file *file = open_filled(w.machine, in_memory, 4, &fd);
		struct ucow_page *page = NULL;

		map_file(w.mm, BASE, 4, RW, shared ? UCOW_MAP_SHARED : UCOW_MAP_PRIVATE, file, 0);
		put64(w.cpu, BASE, 1);
		if (!write)
			REQUIRE_EQ(ucow_mprotect(w.mm, BASE, 4 * PAGE, UCOW_PROT_READ), 0);
		got = fast ? ucow_pin_user_pages_fast(w.cpu, BASE, 1, flags, &page)
			   : ucow_pin_user_pages(w.cpu, BASE, 1, flags, &page);
		CHECK_EQ(got, want);
		if (got == 1) {
			CHECK_EQ(device_read64(page), 1);
			ucow_unpin_user_pages(&page, 1);
		}
		CHECK_EQ(ucow_file_close(file), 0);
		close_fd(fd);
		world_close(&w);
	}
}

/* ---- fork ---- */

TEST(a_child_has_the_parents_copies_and_the_files_pages)
{
	for (int in_memory = 0; in_memory < 2; in_memory++) {
		struct world w = world_open();
		int fd;
		struct ucow_file *file = open_filled(w.machine, in_memory, NPAGES, &fd);
		struct ucow_mm *child;
		struct ucow_cpu *cpu;

		map_file(w.mm, BASE, NPAGES, RW, UCOW_MAP_PRIVATE, file, 0);
		map_file(w.mm, FAR, NPAGES, RW, UCOW_MAP_SHARED, file, 0);
		CHECK_EQ(get64(w.cpu, BASE + PAGE), file_value(1));
		put64(w.cpu, BASE, 5);
		put64(w.cpu, FAR + 20 * PAGE, 6);
		child = fork_mm(w.mm);
		cpu = cpu_on(child);
		check_invariants(w.machine);
		put64(w.cpu, BASE, 55);
		put64(w.cpu, BASE + PAGE, 56);
		put64(cpu, BASE + 2 * PAGE, 57);
		CHECK_EQ(get64(cpu, BASE), 5);
		CHECK_EQ(get64(cpu, BASE + PAGE), file_value(1));
		CHECK_EQ(get64(w.cpu, BASE + 2 * PAGE), file_value(2));
		CHECK_EQ(get64(cpu, BASE + 20 * PAGE), 6);
		put64(cpu, FAR + 21 * PAGE, 7);
		CHECK_EQ(get64(w.cpu, FAR + 21 * PAGE), 7);
		CHECK_EQ(get64(w.cpu, BASE + 21 * PAGE), 7);
		CHECK_EQ(file_stat(file).spaces, 2);
		check_invariants(w.machine);
		ucow_cpu_attach(w.cpu, child);
		REQUIRE_EQ(ucow_mm_destroy(w.mm), 0);
		w.mm = child;
		CHECK_EQ(get64(cpu, BASE), 5);
		CHECK_EQ(get64(cpu, FAR + 20 * PAGE), 6);
		CHECK_EQ(ucow_file_close(file), 0);
		ucow_cpu_destroy(cpu);
		close_fd(fd);
		world_close(&w);
	}
}

TEST(a_snapshot_keeps_the_copies_and_follows_the_file)
{
	struct world w = world_open();
	int fd;
	struct ucow_file *file = open_filled(w.machine, false, 8, &fd);
	struct ucow_snapshot_group *group = NULL;
	struct ucow_mm *snapshot = NULL;
	struct ucow_cpu *cpu;

	(void)group;
	map_file(w.mm, BASE, 8, RW, UCOW_MAP_PRIVATE, file, 0);
	CHECK_EQ(get64(w.cpu, BASE + 2 * PAGE), file_value(2));
	put64(w.cpu, BASE, 5);
	REQUIRE_EQ(ucow_snapshot(w.mm, &snapshot), 0);
	cpu = cpu_on(snapshot);
	put64(w.cpu, BASE, 6);
	put64(w.cpu, BASE + 2 * PAGE, 7);
	put64(w.cpu, BASE + 3 * PAGE, 8);
	CHECK_EQ(get64(cpu, BASE), 5);
	for (uint64_t i = 1; i < 8; i++)
		CHECK_EQ(get64(cpu, BASE + i * PAGE), file_value(i));
	CHECK_EQ(ucow_store_u64(cpu, BASE + 4 * PAGE, 1), -EACCES);
	check_invariants(w.machine);
	exit_mm(cpu, snapshot);
	CHECK_EQ(ucow_file_close(file), 0);
	close(fd);
	world_close(&w);
}

/* ---- mappings change ---- */

TEST(mappings_split_move_and_merge)
{
	struct world w = world_open();
	int fd;
	struct ucow_file *file = open_filled(w.machine, false, NPAGES, &fd);
	struct ucow_mm_stat stat;
	uint64_t result = 0;

	map_file(w.mm, BASE, NPAGES / 2, RW, UCOW_MAP_SHARED, file, 0);
	map_file(w.mm, BASE + NPAGES / 2 * PAGE, NPAGES / 2, RW, UCOW_MAP_SHARED, file, NPAGES / 2);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mappings, 1);
	for (uint64_t i = 0; i < NPAGES; i += 3)
		put64(w.cpu, BASE + i * PAGE, i);
	REQUIRE_EQ(ucow_mprotect(w.mm, BASE + 4 * PAGE, 4 * PAGE, UCOW_PROT_READ), 0);
	check_invariants(w.machine);
	REQUIRE_EQ(ucow_mremap(w.mm, BASE + 6 * PAGE, 20 * PAGE, 20 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED,
			       FAR, &result),
		   0);
	check_invariants(w.machine);
	for (uint64_t i = 6; i < 26; i++)
		CHECK_EQ(get64(w.cpu, FAR + (i - 6) * PAGE), i % 3 ? file_value(i) : i);
	REQUIRE_EQ(ucow_mremap(w.mm, FAR, 20 * PAGE, 20 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED,
			       BASE + 6 * PAGE, &result),
		   0);
	REQUIRE_EQ(ucow_mprotect(w.mm, BASE, NPAGES * PAGE, RW), 0);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mappings, 1);
	REQUIRE_EQ(ucow_munmap(w.mm, BASE + PAGE, PAGE), 0);
	map_file(w.mm, BASE + PAGE, 1, RW, UCOW_MAP_SHARED, file, 7); /* not what was there */
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mappings, 3);
	CHECK_EQ(get64(w.cpu, BASE + PAGE), file_value(7));
	CHECK_EQ(file_stat(file).spaces, 1);
	check_invariants(w.machine);
	REQUIRE_EQ(ucow_munmap(w.mm, BASE, NPAGES * PAGE), 0);
	CHECK_EQ(file_stat(file).spaces, 0);
	CHECK_EQ(ucow_file_close(file), 0);
	for (uint64_t i = 0; i < NPAGES; i++)
		CHECK_EQ(host_get64(fd, i * PAGE), i % 3 ? file_value(i) : i);
	close(fd);
	world_close(&w);
}

TEST(mappings_through_different_openers_stay_apart)
{
	struct world w = world_open();
	struct ucow_file *file = open_file(w.machine, -1, 4 * PAGE), *other = NULL;
	struct ucow_mm_stat stat;

	REQUIRE_EQ(ucow_file_reopen(file, 0, &other), 0);
	map_file(w.mm, BASE, 2, RW, UCOW_MAP_SHARED, file, 0);
	map_file(w.mm, BASE + 2 * PAGE, 2, RW, UCOW_MAP_SHARED, other, 2);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mappings, 2);
	put64(w.cpu, BASE, 3);
	CHECK_EQ(file_get64(other, 0), 3);
	CHECK_EQ(file_stat(file).spaces, 1);
	CHECK_EQ(file_stat(file).openers, 2);
	CHECK_EQ(ucow_file_close(other), 0);
	CHECK_EQ(file_stat(file).openers, 2); /* its mapping keeps it */
	CHECK_EQ(ucow_file_close(file), 0);
	check_invariants(w.machine);
	world_close(&w);
}

TEST(advice_knows_files)
{
	struct world w = world_open();
	int fd;
	struct ucow_file *file = open_filled(w.machine, false, 4, &fd);

	map_file(w.mm, BASE, 4, RW, UCOW_MAP_PRIVATE, file, 0);
	CHECK_EQ(ucow_madvise(w.mm, BASE, PAGE, UCOW_MADV_WIPEONFORK), -EINVAL);
	CHECK_EQ(ucow_madvise(w.mm, BASE, PAGE, UCOW_MADV_FREE), -EINVAL);
	CHECK_EQ(ucow_madvise(w.mm, BASE, 4 * PAGE, UCOW_MADV_POPULATE_READ), 0);
	CHECK(!query(w.mm, BASE + PAGE).anon);
	CHECK_EQ(ucow_madvise(w.mm, BASE, 4 * PAGE, UCOW_MADV_POPULATE_WRITE), 0);
	CHECK(query(w.mm, BASE + PAGE).anon);
	CHECK_EQ(get64(w.cpu, BASE + PAGE), file_value(1));
	CHECK_EQ(ucow_file_close(file), 0);
	close(fd);
	world_close(&w);
}

/* ---- reading and writing ---- */

TEST(reads_and_writes_of_any_place_and_length)
{
	enum { BYTES = 6 * 4096 + 123 };
	static unsigned char want[BYTES + 9000], got[BYTES + 9000];
	struct world w = world_open();
	int fd = host_file(BYTES);
	struct ucow_file *file = open_file(w.machine, fd, 0);
	uint64_t state = tap_seed(), size = BYTES;

	REQUIRE_EQ(pread(fd, want, BYTES, 0), BYTES);
	for (unsigned step = 0; step < 400; step++) {
		uint64_t offset = draw(&state) % size, nbytes = 1 + draw(&state) % 9000;

		if (offset + nbytes > sizeof(want))
			nbytes = sizeof(want) - offset;
		if (draw(&state) % 2) {
			for (uint64_t i = 0; i < nbytes; i++)
				want[offset + i] = (unsigned char)draw(&state);
			REQUIRE_EQ(ucow_file_write(file, want + offset, nbytes, offset), nbytes);
			size = offset + nbytes > size ? offset + nbytes : size;
		} else {
			uint64_t there = offset >= size ? 0 : size - offset < nbytes ? size - offset : nbytes;

			REQUIRE_EQ(ucow_file_read(file, got, nbytes, offset), there);
			REQUIRE(!memcmp(got, want + offset, there));
		}
		REQUIRE_EQ(file_stat(file).size, size);
	}
	check_invariants(w.machine);
	CHECK_EQ(ucow_file_close(file), 0);
	CHECK_EQ(host_size(fd), size);
	REQUIRE_EQ(pread(fd, got, sizeof(got), 0), (ssize_t)size);
	CHECK(!memcmp(got, want, size));
	close(fd);
	world_close(&w);
}

TEST(a_file_far_out)
{
	struct world w = world_open();
	struct ucow_file *file = open_file(w.machine, -1, (uint64_t)1 << 60);
	uint64_t last = ((uint64_t)1 << 60) - PAGE;

	map_file(w.mm, BASE, 1, RW, UCOW_MAP_SHARED, file, last / PAGE);
	map_file(w.mm, FAR, 1, RW, UCOW_MAP_SHARED, file, 0);
	put64(w.cpu, BASE, 1);
	put64(w.cpu, FAR, 2);
	file_put64(file, (uint64_t)1 << 40, 3);
	CHECK_EQ(file_get64(file, last), 1);
	CHECK_EQ(file_get64(file, 0), 2);
	CHECK_EQ(file_get64(file, (uint64_t)1 << 40), 3);
	CHECK_EQ(file_stat(file).cached, 3);
	check_invariants(w.machine);
	CHECK_EQ(ucow_file_close(file), 0);
	world_close(&w);
}

/* ---- what differs ---- */

static int note(void *arg, uint64_t va, enum ucow_diff_kind kind)
{
	uint64_t *pages = arg;

	(void)kind;
	*pages |= (uint64_t)1 << (va - BASE) / PAGE;
	return 0;
}

TEST(a_diff_sees_copies_and_not_who_has_looked)
{
	struct world w = world_open();
	int fd;
	struct ucow_file *file = open_filled(w.machine, false, 16, &fd), *other;
	struct ucow_mm *child;
	struct ucow_cpu *cpu;
	uint64_t pages = 0;
	int fd2;

	map_file(w.mm, BASE, 8, RW, UCOW_MAP_PRIVATE, file, 0);
	map_file(w.mm, BASE + 8 * PAGE, 8, RW, UCOW_MAP_SHARED, file, 8);
	put64(w.cpu, BASE, 1);
	child = fork_mm(w.mm);
	cpu = cpu_on(child);
	for (uint64_t i = 0; i < 16; i++)
		(void)get64(cpu, BASE + i * PAGE);
	REQUIRE_EQ(ucow_diff(w.mm, child, note, &pages), 0);
	CHECK_EQ(pages, 0);
	put64(w.cpu, BASE + 3 * PAGE, 1);
	put64(cpu, BASE + 5 * PAGE, 1);
	put64(cpu, BASE + 9 * PAGE, 1);
	REQUIRE_EQ(ucow_diff(w.mm, child, note, &pages), 0);
	CHECK_EQ(pages, 1 << 3 | 1 << 5);
	other = open_filled(w.machine, false, 2, &fd2);
	map_file(child, BASE + 6 * PAGE, 2, RW, UCOW_MAP_PRIVATE, other, 0);
	pages = 0;
	REQUIRE_EQ(ucow_diff(w.mm, child, note, &pages), 0);
	CHECK_EQ(pages, 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7);
	CHECK_EQ(ucow_file_close(other), 0);
	CHECK_EQ(ucow_file_close(file), 0);
	close(fd);
	close(fd2);
	exit_mm(cpu, child);
	world_close(&w);
}

/* A write that could not begin does not move the end. */
TEST(a_write_that_fails_does_not_extend_the_file)
{
	for (uint64_t nth = 1;; nth++) {
		struct world w = world_open();
		int fd = host_file(PAGE);
		struct ucow_file *file = open_file(w.machine, fd, 0);
		uint64_t value = 5;
		bool through;
		long n;

		ucow_machine_inject(w.machine, UCOW_INJECT_ALL | UCOW_INJECT_READ, nth);
		n = ucow_file_write(file, &value, sizeof(value), 100 * PAGE);
		through = ucow_machine_inject(w.machine, 0, 0);
		CHECK_EQ(file_stat(file).size, n == (long)sizeof(value) ? 100 * PAGE + sizeof(value) : PAGE);
		check_invariants(w.machine);
		(void)ucow_file_close(file);
		world_close(&w);
		close(fd);
		if (through)
			break;
	}
}

TAP_MAIN()
