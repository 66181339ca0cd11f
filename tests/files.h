/* SPDX-License-Identifier: MIT */
/* What tests of files share: host files in memory, openers, mappings, and the values that their pages have. */
#ifndef UCOW_TESTS_FILES_H
#define UCOW_TESTS_FILES_H

#include "fixture.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Page @i of a host file has this at its start, and the rest of it zeros. */
static inline uint64_t file_value(uint64_t i)
{
	return 1000 + i;
}

/* A host file of @nbytes. */
static inline int host_file(uint64_t nbytes)
{
	int fd = memfd_create("ucow-test", MFD_CLOEXEC);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(ftruncate(fd, (off_t)nbytes), 0);
	for (uint64_t i = 0; i * PAGE < nbytes; i++) {
		uint64_t value = file_value(i);

		REQUIRE_EQ(pwrite(fd, &value, sizeof(value), (off_t)(i * PAGE)), sizeof(value));
	}
	REQUIRE_EQ(ftruncate(fd, (off_t)nbytes), 0);
	return fd;
}

static inline uint64_t host_get64(int fd, uint64_t offset)
{
	uint64_t value = 0;

	REQUIRE_EQ(pread(fd, &value, sizeof(value), (off_t)offset), sizeof(value));
	return value;
}

static inline uint64_t host_size(int fd)
{
	struct stat status;

	REQUIRE_EQ(fstat(fd, &status), 0);
	return (uint64_t)status.st_size;
}

/* @fd -1: memory of @nbytes; else the whole host file. */
static inline struct ucow_file *open_file(struct ucow_machine *machine, int fd, uint64_t nbytes)
{
	struct ucow_file_options options = {.size = sizeof(options), .fd = fd, .length = fd < 0 ? nbytes : 0};
	struct ucow_file *file = NULL;

	REQUIRE_EQ(ucow_file_open(machine, &options, &file), 0);
	return file;
}

/* Either kind, with the values of host_file. */
static inline struct ucow_file *open_filled(struct ucow_machine *machine, bool in_memory, uint64_t npages, int *fd)
{
	struct ucow_file *file;

	*fd = in_memory ? -1 : host_file(npages * PAGE);
	file = open_file(machine, *fd, npages * PAGE);
	for (uint64_t i = 0; in_memory && i < npages; i++) {
		uint64_t value = file_value(i);

		REQUIRE_EQ(ucow_file_write(file, &value, sizeof(value), i * PAGE), sizeof(value));
	}
	return file;
}

static inline void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static inline uint64_t map_file(struct ucow_mm *mm, uint64_t va, uint64_t npages, unsigned prot, unsigned flags,
				struct ucow_file *file, uint64_t first)
{
	uint64_t result = 0;

	REQUIRE_EQ(ucow_mmap_file(mm, va, npages * PAGE, prot, flags | UCOW_MAP_FIXED, file, first * PAGE, &result), 0);
	REQUIRE_EQ(result, va);
	return va;
}

static inline uint64_t file_get64(struct ucow_file *file, uint64_t offset)
{
	uint64_t value = 0;

	REQUIRE_EQ(ucow_file_read(file, &value, sizeof(value), offset), sizeof(value));
	return value;
}

static inline void file_put64(struct ucow_file *file, uint64_t offset, uint64_t value)
{
	REQUIRE_EQ(ucow_file_write(file, &value, sizeof(value), offset), sizeof(value));
}

static inline struct ucow_file_stat file_stat(struct ucow_file *file)
{
	struct ucow_file_stat stat;

	memset(&stat, 0xff, sizeof(stat));
	ucow_file_stat(file, &stat);
	return stat;
}

#endif
