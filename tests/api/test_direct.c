/* SPDX-License-Identifier: MIT */
/* O_DIRECT in and out of a space's pages: pinned while the host has them, dirty afterwards, and coherent with forks. */
#include "fixture.h"

#include <fcntl.h>
#include <sys/stat.h>

/* A file that takes O_DIRECT if the host's file system does. */
static int temporary(void)
{
	char path[] = "/var/tmp/ucow-test-direct-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC), direct;

	REQUIRE(fd >= 0);
	direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	REQUIRE_EQ(unlink(path), 0);
	if (direct < 0)
		return fd;
	close(fd);
	return direct;
}

static void fill_file(int fd, uint64_t npages, unsigned char seed)
{
	unsigned char *page = aligned_alloc(PAGE, PAGE);

	REQUIRE(page);
	for (uint64_t i = 0; i < npages; i++) {
		memset(page, (unsigned char)(seed + i), PAGE);
		REQUIRE_EQ(pwrite(fd, page, PAGE, (off_t)(i * PAGE)), (ssize_t)PAGE);
	}
	free(page);
}

static unsigned char byte_at(struct ucow_cpu *cpu, uint64_t va)
{
	unsigned char byte = 0;

	REQUIRE_EQ(ucow_read(cpu, va, &byte, 1, NULL), 0);
	return byte;
}

static unsigned char file_byte(int fd, uint64_t at)
{
	unsigned char *page = aligned_alloc(PAGE, PAGE), byte;

	REQUIRE(page && pread(fd, page, PAGE, (off_t)(at & UCOW_PAGE_MASK)) == (ssize_t)PAGE);
	byte = page[at % PAGE];
	free(page);
	return byte;
}

TEST(a_file_is_read_into_memory_and_written_from_it)
{
	enum { PAGES = 1200 }; /* several chunks */
	struct world w = world_open();
	uint64_t va = map_private(w.mm, PAGES);
	int from = temporary(), to = temporary();

	fill_file(from, PAGES, 3);
	REQUIRE_EQ(ucow_direct_read(w.mm, va, PAGES * PAGE, from, 0), PAGES * PAGE);
	for (uint64_t i = 0; i < PAGES; i++)
		CHECK_EQ(byte_at(w.cpu, va + i * PAGE + i), (unsigned char)(3 + i));
	put64(w.cpu, va + 5 * PAGE, 0x7777777777777777);
	REQUIRE_EQ(ucow_direct_write(w.mm, va, PAGES * PAGE, to, PAGE), PAGES * PAGE);
	CHECK_EQ(file_byte(to, 6 * PAGE), 0x77);
	CHECK_EQ(file_byte(to, PAGES * PAGE), (unsigned char)(3 + PAGES - 1));
	world_close(&w);
}

TEST(a_transfer_ends_at_the_end_of_the_file)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 800);
	int fd = temporary();

	fill_file(fd, 300, 1);
	CHECK_EQ(ucow_direct_read(w.mm, va, 800 * PAGE, fd, 0), 300 * PAGE);
	CHECK_EQ(ucow_direct_read(w.mm, va, 800 * PAGE, fd, 300 * PAGE), 0);
	world_close(&w);
}

TEST(pages_are_pinned_until_completion_is_taken_and_dirty_then)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	int fd = temporary();
	struct ucow_direct *direct = NULL;
	struct ucow_direct_done done = {0};

	fill_file(fd, 4, 9);
	REQUIRE_EQ(ucow_direct_create(w.machine, 2, &direct), 0);
	REQUIRE_EQ(ucow_direct_submit(direct, UCOW_DIRECT_READ, w.mm, va, 4 * PAGE, fd, 0, 42), 0);
	REQUIRE_EQ(ucow_direct_wait(direct, 1, &done, 1), 1);
	CHECK_EQ(done.user_data, 42);
	CHECK_EQ(done.result, 4 * PAGE);
	CHECK(!query(w.mm, va).maybe_pinned);
	CHECK(query(w.mm, va).dirty);
	CHECK_EQ(byte_at(w.cpu, va + 3 * PAGE), 12);
	CHECK_EQ(counted(&w, UCOW_COUNTER_PINS), 4);
	CHECK_EQ(counted(&w, UCOW_COUNTER_UNPINS), 4);
	ucow_direct_destroy(direct);
	world_close(&w);
}

TEST(depth_is_the_most_that_is_under_way)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 8);
	int fd = temporary();
	struct ucow_direct *direct = NULL;
	struct ucow_direct_done done[8];

	fill_file(fd, 8, 1);
	CHECK_EQ(ucow_direct_create(w.machine, 0, &direct), -EINVAL);
	REQUIRE_EQ(ucow_direct_create(w.machine, 3, &direct), 0);
	for (uint64_t i = 0; i < 3; i++)
		CHECK_EQ(ucow_direct_submit(direct, UCOW_DIRECT_READ, w.mm, va + i * PAGE, PAGE, fd, i * PAGE, i), 0);
	CHECK_EQ(ucow_direct_submit(direct, UCOW_DIRECT_READ, w.mm, va, PAGE, fd, 0, 3), -EAGAIN);
	CHECK_EQ(ucow_direct_wait(direct, 2, done, 2), 2);
	CHECK_EQ(ucow_direct_submit(direct, UCOW_DIRECT_READ, w.mm, va + 3 * PAGE, PAGE, fd, 3 * PAGE, 3), 0);
	CHECK_EQ(ucow_direct_wait(direct, 8, done, 8), 2);
	CHECK_EQ(ucow_direct_wait(direct, 1, done, 8), 0);
	for (uint64_t i = 0; i < 4; i++)
		CHECK_EQ(byte_at(w.cpu, va + i * PAGE), 1 + i);
	/* What is still under way when the queue goes is waited for: its pins are gone with it. */
	CHECK_EQ(ucow_direct_submit(direct, UCOW_DIRECT_WRITE, w.mm, va, PAGE, fd, 0, 4), 0);
	ucow_direct_destroy(direct);
	world_close(&w);
}

TEST(a_fork_in_between_does_not_take_the_bytes_away)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 64);
	int fd = temporary();
	struct ucow_direct *direct = NULL;
	struct ucow_direct_done done;
	struct ucow_mm *child;

	fill_file(fd, 64, 1);
	for (uint64_t i = 0; i < 64; i++)
		put64(w.cpu, va + i * PAGE, ~0ull);
	REQUIRE_EQ(ucow_direct_create(w.machine, 1, &direct), 0);
	REQUIRE_EQ(ucow_direct_submit(direct, UCOW_DIRECT_READ, w.mm, va, 64 * PAGE, fd, 0, 0), 0);
	child = fork_mm(w.mm);
	for (uint64_t i = 0; i < 64; i++)
		put64(w.cpu, va + i * PAGE + 8, 5);
	REQUIRE_EQ(ucow_direct_wait(direct, 1, &done, 1), 1);
	CHECK_EQ(done.result, 64 * PAGE);
	for (uint64_t i = 0; i < 64; i++)
		CHECK_EQ(byte_at(w.cpu, va + i * PAGE + 100), 1 + i);
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
	ucow_direct_destroy(direct);
	world_close(&w);
}

/* Semantics.md B.5: an O_DIRECT write pins for reading, and so unshares; contents stay everybody's own. */
TEST(writing_a_shared_page_out_unshares_it_and_leaves_the_child_its_bytes)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	int fd = temporary();
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	put64(w.cpu, va, 0x1111111111111111);
	child = fork_mm(w.mm);
	CHECK_EQ(ucow_direct_write(w.mm, va, PAGE, fd, 0), PAGE);
	CHECK(query(w.mm, va).pfn != query(child, va).pfn);
	CHECK_EQ(file_byte(fd, 7), 0x11);
	cpu = cpu_on(child);
	CHECK_EQ(get64(cpu, va), 0x1111111111111111);
	exit_mm(cpu, child);
	world_close(&w);
}

TEST(what_cannot_be_done_is_refused_and_nothing_stays_pinned)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	int fd = temporary(), out = open("/dev/full", O_WRONLY);

	fill_file(fd, 4, 1);
	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_direct_read(w.mm, va, 8 * PAGE, fd, 0), -EFAULT);
	CHECK_EQ(ucow_direct_read(w.mm, va + 1, PAGE, fd, 0), -EINVAL);
	CHECK_EQ(ucow_direct_read(w.mm, va, 100, fd, 0), -EINVAL);
	CHECK_EQ(ucow_direct_read(w.mm, va, 0, fd, 0), -EINVAL);
	CHECK_EQ(ucow_direct_read(w.mm, va, PAGE, 1000, 0), -EBADF);
	CHECK_EQ(ucow_direct_write(w.mm, va, PAGE, out, 0), -ENOSPC);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_direct_read(w.mm, va, PAGE, fd, 0), -EFAULT);
	CHECK_EQ(ucow_direct_write(w.mm, va, PAGE, fd, 0), PAGE);
	CHECK(!query(w.mm, va).maybe_pinned);
	world_close(&w);
}

TEST(every_allocation_may_fail)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 64);
	int fd = temporary();
	long result = -1;
	uint64_t nth = 0;

	fill_file(fd, 64, 1);
	for (; result != 64 * (long)PAGE; nth++) {
		REQUIRE(nth < 1000);
		ucow_machine_inject(w.machine, UCOW_INJECT_ALL, nth + 1);
		result = ucow_direct_read(w.mm, va, 64 * PAGE, fd, 0);
		CHECK(result == -ENOMEM || result == 64 * (long)PAGE);
		check_invariants(w.machine);
	}
	ucow_machine_inject(w.machine, 0, 0);
	CHECK(nth > 3);
	CHECK_EQ(byte_at(w.cpu, va + 63 * PAGE), 64);
	world_close(&w);
}

TAP_MAIN()
