/* SPDX-License-Identifier: MIT */
/* The host file behind a cache, and errors that are reported to every opener once. */
#include "cache/backing.h"
#include "cache/errseq.h"
#include "tap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { PAGE = UCOW_PAGE_SIZE, PAGES = 9000 };

static struct inject inject;

static int temporary(void)
{
	char path[] = "/tmp/ucow-test-backing-XXXXXX";
	int fd = mkstemp(path);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(unlink(path), 0);
	return fd;
}

static struct backing open_backing(int fd, uint64_t offset)
{
	struct backing backing;

	REQUIRE_EQ(backing_open(&backing, &inject, fd, offset), 0);
	return backing;
}

static char *map_pages(size_t n)
{
	char *pages = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(pages != MAP_FAILED);
	return pages;
}

/* Pages of @pages in an order in which some are neighbours and some are not. */
static void scatter(char *pages, void **bytes, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		bytes[i] = pages + (size_t)(i % 5 == 0 ? i : (i / 5 * 5 + 5 - i % 5)) * PAGE;
}

TEST(what_is_written_in_one_run_is_read_back_from_scattered_pages)
{
	int fd = temporary();
	struct backing backing = open_backing(fd, 0);
	char *from = map_pages(BACKING_RUN + 8), *to = map_pages(BACKING_RUN + 8);
	void *out[BACKING_RUN], *in[BACKING_RUN];
	unsigned n;

	scatter(from, out, BACKING_RUN - 4);
	for (unsigned i = 0; i < BACKING_RUN; i++)
		in[i] = to + (size_t)i * PAGE;
	for (unsigned i = 0; i < BACKING_RUN - 4; i++)
		memset(out[i], (int)i % 251 + 1, PAGE);
	CHECK_EQ(backing_write(&backing, 7, (const void *const *)out, BACKING_RUN - 4, (uint64_t)PAGE * PAGES, &n), 0);
	CHECK_EQ(n, BACKING_RUN - 4);
	CHECK_EQ(backing_read(&backing, 7, in, BACKING_RUN, &n), 0);
	CHECK_EQ(n, BACKING_RUN);
	for (unsigned i = 0; i < BACKING_RUN; i++)
		CHECK_EQ(to[(size_t)i * PAGE + 77], i < BACKING_RUN - 4 ? (char)(i % 251 + 1) : 0);
	backing_close(&backing);
}

TEST(nothing_is_written_behind_the_size_and_zeros_are_read_behind_the_end)
{
	int fd = temporary();
	struct backing backing = open_backing(fd, 2 * PAGE);
	char *pages = map_pages(4);
	const void *out[] = {pages, pages + PAGE, pages + 2 * PAGE};
	void *in[] = {pages, pages + PAGE, pages + 2 * PAGE, pages + 3 * PAGE};
	uint64_t size = 0;
	unsigned n;

	memset(pages, 7, (size_t)3 * PAGE);
	CHECK_EQ(backing_write(&backing, 0, out, 3, PAGE + 100, &n), 0);
	CHECK_EQ(n, 3);
	CHECK_EQ(lseek(fd, 0, SEEK_END), 3 * PAGE + 100);
	CHECK_EQ(backing_size(&backing, &size), 0);
	CHECK_EQ(size, PAGE + 100);
	memset(pages, 9, (size_t)4 * PAGE);
	CHECK_EQ(backing_read(&backing, 0, in, 4, &n), 0);
	CHECK_EQ(n, 4);
	CHECK_EQ(pages[PAGE - 1], 7);
	CHECK_EQ(pages[PAGE + 99], 7);
	for (size_t i = PAGE + 100; i < (size_t)4 * PAGE; i++)
		CHECK_EQ(pages[i], 0);
	backing_close(&backing);
}

TEST(an_error_tells_how_far_it_came)
{
	int fd = temporary();
	struct backing backing = open_backing(fd, 0);
	struct rlimit limit = {.rlim_cur = 5 * PAGE, .rlim_max = RLIM_INFINITY};
	char *pages = map_pages(8);
	const void *out[8];
	void *in[8];
	unsigned n = 9;

	for (unsigned i = 0; i < 8; i++)
		in[i] = pages + (size_t)i * PAGE, out[i] = in[i];
	memset(pages, 3, (size_t)8 * PAGE);
	signal(SIGXFSZ, SIG_IGN);
	REQUIRE_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	CHECK_EQ(backing_write(&backing, 0, out, 8, UINT64_MAX, &n), -EFBIG);
	CHECK_EQ(n, 5);
	inject_arm(&inject, UCOW_INJECT_WRITE, 1);
	CHECK_EQ(backing_write(&backing, 0, out, 8, UINT64_MAX, &n), -EIO);
	CHECK_EQ(n, 0);
	inject_arm(&inject, UCOW_INJECT_READ, 1);
	CHECK_EQ(backing_read(&backing, 0, in, 8, &n), -EIO);
	CHECK_EQ(n, 0);
	CHECK_EQ(backing_read(&backing, 0, in, 8, &n), 0);
	inject_arm(&inject, UCOW_INJECT_WRITE, 1);
	CHECK_EQ(backing_sync(&backing), -EIO);
	CHECK_EQ(backing_sync(&backing), 0);
	backing_close(&backing);
}

TEST(punching_and_resizing_leave_zeros)
{
	int fd = temporary();
	struct backing backing = open_backing(fd, PAGE);
	char *pages = map_pages(4);
	const void *out[] = {pages, pages + PAGE, pages + 2 * PAGE, pages + 3 * PAGE};
	void *in[] = {pages, pages + PAGE, pages + 2 * PAGE, pages + 3 * PAGE};
	unsigned n;

	memset(pages, 5, (size_t)4 * PAGE);
	CHECK_EQ(backing_write(&backing, 0, out, 4, 4 * PAGE, &n), 0);
	CHECK_EQ(backing_punch(&backing, PAGE + 100, 3 * PAGE), 0);
	CHECK_EQ(backing_resize(&backing, 3 * PAGE + 50), 0);
	CHECK_EQ(backing_read(&backing, 0, in, 4, &n), 0);
	CHECK_EQ(pages[PAGE + 99], 5);
	CHECK_EQ(pages[PAGE + 100], 0);
	CHECK_EQ(pages[3 * PAGE - 1], 0);
	CHECK_EQ(pages[3 * PAGE + 49], 5);
	CHECK_EQ(pages[3 * PAGE + 50], 0);
	backing_close(&backing);
}

TEST(what_is_no_file_is_refused)
{
	struct backing backing;
	int ends[2];

	REQUIRE_EQ(pipe(ends), 0);
	CHECK_EQ(backing_open(&backing, &inject, ends[0], 0), -EINVAL);
	CHECK_EQ(backing_open(&backing, &inject, temporary(), 100), -EINVAL);
	CHECK_EQ(backing_open(&backing, &inject, 1000, 0), -EBADF);
	CHECK(!backing_is_there(&backing));
	CHECK_EQ(backing_open(&backing, &inject, -1, 0), 0);
	CHECK(!backing_is_there(&backing));
	backing_close(&backing);
}

TEST(an_error_is_reported_to_every_opener_once)
{
	struct errseq errors = {0};
	_Atomic uint32_t first = errseq_sample(&errors), second = errseq_sample(&errors), third;

	CHECK_EQ(errseq_report(&errors, &first), 0);
	errseq_record(&errors, -EIO);
	CHECK_EQ(errseq_report(&errors, &first), -EIO);
	CHECK_EQ(errseq_report(&errors, &first), 0);
	third = errseq_sample(&errors);
	CHECK_EQ(errseq_report(&errors, &third), 0);
	errseq_record(&errors, -ENOSPC);
	CHECK_EQ(errseq_report(&errors, &first), -ENOSPC);
	CHECK_EQ(errseq_report(&errors, &second), -ENOSPC);
	CHECK_EQ(errseq_report(&errors, &second), 0);
	CHECK_EQ(errseq_report(&errors, &third), -ENOSPC);
	CHECK_EQ(errseq_report(&errors, &third), 0);
}

TEST(an_error_that_nobody_has_seen_is_reported_to_later_openers)
{
	struct errseq errors = {0};
	_Atomic uint32_t later;

	errseq_record(&errors, -EIO);
	errseq_record(&errors, -EIO);
	later = errseq_sample(&errors);
	CHECK_EQ(errseq_report(&errors, &later), -EIO);
	later = errseq_sample(&errors);
	CHECK_EQ(errseq_report(&errors, &later), 0);
	errseq_record(&errors, -EIO);
	CHECK_EQ(errseq_report(&errors, &later), -EIO);
}

TAP_MAIN()
