/* SPDX-License-Identifier: MIT */
/* Files for a test: a host file without a name, an opener, a mapping, and what the host file says. */
#ifndef UCOW_TESTS_FILE_FIXTURE_H
#define UCOW_TESTS_FILE_FIXTURE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fixture.h"

#include <sys/mman.h>

/* A host file of @npages pages of zeros. */
static inline int host_file(uint64_t npages)
{
	int fd = memfd_create("ucow-test", MFD_CLOEXEC);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(ftruncate(fd, (off_t)(npages * PAGE)), 0);
	return fd;
}

static inline uint64_t host64(int fd, uint64_t offset)
{
	uint64_t value = 0;

	REQUIRE_EQ(pread(fd, &value, sizeof(value), (off_t)offset), (ssize_t)sizeof(value));
	return value;
}

static inline void host_put64(int fd, uint64_t offset, uint64_t value)
{
	REQUIRE_EQ(pwrite(fd, &value, sizeof(value), (off_t)offset), (ssize_t)sizeof(value));
}

static inline struct ucow_file *open_file(struct ucow_machine *machine, int fd)
{
	struct ucow_file_options options = {.size = sizeof(options), .fd = fd};
	struct ucow_file *file = NULL;

	REQUIRE_EQ(ucow_file_open(machine, &options, &file), 0);
	return file;
}

/* @npages of @file from its start at BASE. */
static inline uint64_t map_file(struct ucow_mm *mm, struct ucow_file *file, uint64_t npages, unsigned prot,
				unsigned flags)
{
	uint64_t va = 0;

	REQUIRE_EQ(ucow_mmap_file(mm, BASE, npages * PAGE, prot, flags | UCOW_MAP_FIXED, file, 0, &va), 0);
	return va;
}

static inline bool file_page_is(struct ucow_file *file, uint64_t number, unsigned flags)
{
	return (ucow_file_page(file, number * PAGE) & flags) == flags;
}

static inline struct ucow_file_stat file_stat(struct ucow_file *file)
{
	struct ucow_file_stat stat;

	ucow_file_stat(file, &stat);
	return stat;
}

#endif
