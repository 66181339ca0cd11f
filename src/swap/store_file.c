/* SPDX-License-Identifier: MIT */
/*
 * The file of a swap device: slot n is page n. It holds what was in the memory of others, so nobody but its owner may
 * open it, and one without a name is gone with its last descriptor.
 */
#include "swap/store_internal.h"

#include "base/host.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- opening ---- */

/* File systems without O_TMPFILE: a name that lasts a moment. */
static int open_named_temporary(const char *folder)
{
	char path[PATH_MAX];
	int length = snprintf(path, sizeof(path), "%s/ucow-swap-XXXXXX", folder), fd;

	if (length < 0 || (size_t)length >= sizeof(path))
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (unlink(path)) {
		int error = -errno;

		close(fd);
		return error;
	}
	return fd;
}

static int open_temporary(void)
{
	const char *folder = secure_getenv("TMPDIR");
	int fd;

	if (!folder || !*folder)
		folder = "/var/tmp";
	fd = open(folder, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
	if (fd >= 0)
		return fd;
	/* Old kernels take the flag for a folder to be written to. */
	return errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL ? open_named_temporary(folder) : -errno;
}

/*
 * What is no regular file is opened at worst, and never written to; symbolic links are not followed. Two devices in one
 * file would overwrite each other: the lock keeps the second one out.
 */
static int check_named(int fd)
{
	struct stat status;

	if (fstat(fd, &status))
		return -errno;
	if (!S_ISREG(status.st_mode))
		return -EINVAL;
	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fchmod(fd, S_IRUSR | S_IWUSR) || ftruncate(fd, 0))
		return -errno;
	return 0;
}

static int open_named(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, S_IRUSR | S_IWUSR);
	int error;

	if (fd < 0)
		return -errno;
	error = check_named(fd);
	if (!error)
		return fd;
	close(fd);
	return error;
}

/* Not every file system that takes the flag can do it with pages: write one and see. */
static int try_direct(int fd)
{
	void *page = host_map(UCOW_PAGE_SIZE);
	int error = 0;

	if (!page)
		return -ENOMEM;
	if (pwrite(fd, page, UCOW_PAGE_SIZE, 0) < 0 || ftruncate(fd, 0))
		error = -errno;
	host_unmap(page, UCOW_PAGE_SIZE);
	return error;
}

static int prepare(int fd, const struct ucow_swap_options *options)
{
	bool direct = options->flags & UCOW_SWAP_DIRECT;
	int error = 0;

	if (fcntl(fd, F_SETFL, direct ? O_DIRECT : 0))
		return -errno;
	if (direct)
		error = try_direct(fd);
	if (!error && ftruncate(fd, (off_t)page_round_up(options->nbytes)))
		error = -errno;
	return error;
}

int file_open(const struct ucow_swap_options *options, int *result)
{
	int fd = options->path ? open_named(options->path) : open_temporary();
	int error;

	if (fd < 0)
		return fd;
	error = prepare(fd, options);
	if (error)
		file_close(fd);
	else
		*result = fd;
	return error;
}

/* A process that was forked meanwhile has the same lock, which must not outlast the device. */
void file_close(int fd)
{
	(void)flock(fd, LOCK_UN);
	close(fd);
}

/* ---- writing and reading ---- */

static off_t offset_of(uint64_t slot)
{
	return (off_t)(slot << UCOW_PAGE_SHIFT);
}

/*
 * Whole pages count. A transfer that ends within one is done again from its start, as O_DIRECT wants; one that does not
 * come to the end of its first page is short of room, or of a file that somebody has cut.
 */
static int pages_of(ssize_t nbytes, int short_error, unsigned *npages)
{
	*npages = nbytes > 0 ? (unsigned)((size_t)nbytes >> UCOW_PAGE_SHIFT) : 0;
	if (nbytes < 0)
		return errno == EINTR ? 0 : -errno;
	return *npages ? 0 : short_error;
}

void run_write(struct swap_store *store, struct run *run, unsigned ngood)
{
	uint64_t slot = run->writes[0]->slot;
	int error = 0;

	while (ngood < run->n && !error) {
		unsigned npages;
		ssize_t nbytes = pwritev(store->fd, run->vectors + ngood, (int)(run->n - ngood),
					 offset_of(slot + ngood));

		error = pages_of(nbytes, -ENOSPC, &npages);
		ngood += npages;
	}
	run_complete(store, run, ngood, error);
}

int file_read(int fd, uint64_t slot, void *const *bytes, unsigned n, unsigned *nread)
{
	struct iovec vectors[RUN_PAGES];
	int error = 0;

	for (unsigned i = 0; i < n; i++)
		vectors[i] = (struct iovec){.iov_base = bytes[i], .iov_len = UCOW_PAGE_SIZE};
	*nread = 0;
	while (*nread < n && !error) {
		unsigned npages;
		ssize_t nbytes = preadv(fd, vectors + *nread, (int)(n - *nread), offset_of(slot + *nread));

		error = pages_of(nbytes, -EIO, &npages);
		*nread += npages;
	}
	return error;
}
