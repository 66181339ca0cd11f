/* SPDX-License-Identifier: MIT */
/*
 * Files: nameless, so that nothing can stay behind. Where the test maps none, they are touched past the page cache
 * only; a participant's O_DIRECT transfer then pins its pages, as a device's would. Where it does, a second descriptor
 * reads and writes through the cache.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

/* ---- descriptors ---- */

int kernel_file_open(const struct kernel_file *file, bool readonly)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file->cached >= 0 ? file->cached : file->direct);
	return open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
}

int kernel_file_seen(const struct kernel_file *file)
{
	return file->cached >= 0 ? file->cached : file->direct;
}

void kernel_file_close(struct kernel_file *file)
{
	if (file->direct >= 0)
		close(file->direct);
	if (file->cached >= 0)
		close(file->cached);
	file->direct = file->cached = -1;
}

static int define_in_memory(struct kernel_step *step, struct kernel_file *file)
{
	file->cached = memfd_create("ucow", MFD_CLOEXEC);
	return file->cached < 0 ? errno : fill(file->cached, step->stmt->count, &step->stmt->texts[0]);
}

/* It is filled past the cache, which starts empty. */
int kernel_define_file(struct kernel_step *step)
{
	struct kernel_file *file = &step->run->objects[step->stmt->name].file;
	int error;

	if (step->stmt->options & 1)
		return define_in_memory(step, file);
	file->direct = open_file();
	if (file->direct < 0)
		return kernel_skip_test(step, "no O_DIRECT in $TMPDIR, /var/tmp or /tmp");
	error = fill(file->direct, step->stmt->count, &step->stmt->texts[0]);
	if (error || !(step->run->litmus->needs & NEED_FILE))
		return error;
	file->cached = kernel_file_open(file, false);
	return file->cached < 0 ? errno : 0;
}

/* ---- through the cache ---- */

static int cached(const struct kernel_step *step)
{
	return step->run->objects[step->stmt->file].file.cached;
}

int kernel_sync(struct kernel_step *step)
{
	return fsync(cached(step)) ? errno : 0;
}

int kernel_truncate(struct kernel_step *step)
{
	return ftruncate(cached(step), (off_t)(step->stmt->count * KERNEL_PAGE)) ? errno : 0;
}

int kernel_punch(struct kernel_step *step)
{
	const struct stmt *stmt = step->stmt;

	return fallocate(cached(step), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)(stmt->file_page * KERNEL_PAGE), (off_t)(stmt->count * KERNEL_PAGE))
		       ? errno
		       : 0;
}

int kernel_store(struct kernel_step *step)
{
	const struct text *text = &step->stmt->texts[0];
	ssize_t put = pwrite(cached(step), text->bytes, text->nbytes, (off_t)(step->stmt->file_page * KERNEL_PAGE));

	return put < 0 ? errno : (size_t)put < text->nbytes ? EIO : 0;
}

int kernel_drop(struct kernel_step *step)
{
	return posix_fadvise(cached(step), 0, 0, POSIX_FADV_DONTNEED);
}

/* ---- what readers see ---- */

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
	int error = kernel_call(step, stmt->proc, &command, step->run->objects[stmt->file].file.direct, &reply);

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
	off_t end = lseek(step->run->objects[step->stmt->file].file.direct, 0, SEEK_END);

	return direct(step, AGENT_DIRECT_IN, (uint64_t)end);
}
