/* SPDX-License-Identifier: MIT */
/*
 * Files for O_DIRECT: nameless, so that nothing can stay behind, and touched past the page cache only. A participant's
 * transfer then pins its pages, as a device's would.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

/* What the file system moves directly has to be aligned in memory, too. */
union aligned_page {
	_Alignas(KERNEL_PAGE) char bytes[KERNEL_PAGE];
};

/* A named file that is unlinked at once, where a file system knows no nameless ones. */
static int open_unlinked(const char *folder)
{
	char path[4096];
	int fd;

	if (snprintf(path, sizeof(path), "%s/ucow-XXXXXX", folder) >= (int)sizeof(path))
		return -1;
	fd = mkostemp(path, O_DIRECT | O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

/* tmpfs takes O_DIRECT and copies all the same: it pins nothing. */
static bool is_direct(int fd)
{
	static const union aligned_page zeros;
	struct statfs system;

	return !fstatfs(fd, &system) && system.f_type != TMPFS_MAGIC &&
	       pwrite(fd, zeros.bytes, KERNEL_PAGE, 0) == KERNEL_PAGE;
}

static int open_in(const char *folder)
{
	int fd;

	if (!folder)
		return -1;
	fd = open(folder, O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = open_unlinked(folder);
	if (fd < 0 || is_direct(fd))
		return fd;
	close(fd);
	return -1;
}

static int open_file(void)
{
	int fd = open_in(getenv("TMPDIR"));

	if (fd < 0)
		fd = open_in("/var/tmp");
	return fd < 0 ? open_in("/tmp") : fd;
}

static int fill(int fd, uint64_t npages, const struct text *text)
{
	union aligned_page page = {{0}};

	memcpy(page.bytes, text->bytes, text->nbytes);
	for (uint64_t i = 0; i < npages; i++)
		if (pwrite(fd, page.bytes, KERNEL_PAGE, (off_t)(i * KERNEL_PAGE)) != KERNEL_PAGE)
			return errno ? errno : EIO;
	return 0;
}

int kernel_define_file(struct kernel_step *step)
{
	int *file = &step->run->objects[step->stmt->name].file;

	*file = open_file();
	if (*file < 0)
		return kernel_skip_test(step, "no O_DIRECT in $TMPDIR, /var/tmp or /tmp");
	return fill(*file, step->stmt->count, &step->stmt->texts[0]);
}

int kernel_file_read(int file, uint64_t page, char bytes[KERNEL_PAGE])
{
	union aligned_page buffer;
	ssize_t got = pread(file, buffer.bytes, KERNEL_PAGE, (off_t)(page * KERNEL_PAGE));

	if (got < 0)
		return errno;
	if (got < (ssize_t)KERNEL_PAGE)
		return ENODATA;
	memcpy(bytes, buffer.bytes, KERNEL_PAGE);
	return 0;
}

/* Between the statement's place and its file. A transfer that stops early has met memory that it may not use. */
static int direct(struct kernel_step *step, enum agent_op op, uint64_t limit)
{
	const struct stmt *stmt = step->stmt;
	uint64_t start = stmt->file_page * KERNEL_PAGE + stmt->place.offset;
	uint64_t nbytes = stmt->place.npages * KERNEL_PAGE - stmt->place.offset;
	struct agent_command command = {
		.op = op, .va = kernel_va(step->run, &stmt->place, 0), .to = start, .length = nbytes};
	struct agent_reply reply;
	int error = kernel_call(step, stmt->proc, &command, step->run->objects[stmt->file].file, &reply);

	if (limit < start + nbytes)
		nbytes = limit > start ? limit - start : 0;
	return error ? error : reply.value < nbytes ? EFAULT : 0;
}

int kernel_direct_out(struct kernel_step *step)
{
	return direct(step, AGENT_DIRECT_OUT, UINT64_MAX);
}

/* A read stops at the end of the file. */
int kernel_direct_in(struct kernel_step *step)
{
	off_t end = lseek(step->run->objects[step->stmt->file].file, 0, SEEK_END);

	return direct(step, AGENT_DIRECT_IN, (uint64_t)end);
}
