/* SPDX-License-Identifier: MIT */
/* Reading and writing the host file behind a cache, by preadv and pwritev of whole runs. */
#include "cache/backing_ring.h"

#include "base/host.h"

#include <errno.h>
#include <string.h>

#if exploring

/* ---- the stand-in: no size of its own, all zeros at first ---- */

#define EXPLORED_BYTES (BACKING_EXPLORED_PAGES * UCOW_PAGE_SIZE)

int backing_open(struct backing *backing, struct inject *inject, int fd, uint64_t offset)
{
	*backing = (struct backing){.fd = fd, .offset = offset, .inject = inject};
	if (fd < 0)
		return 0;
	backing->explored = host_alloc(EXPLORED_BYTES);
	return backing->explored ? 0 : -ENOMEM;
}

void backing_close(struct backing *backing)
{
	host_free(backing->explored);
	backing->fd = -1;
}

int backing_size(const struct backing *backing, uint64_t *nbytes)
{
	(void)backing;
	*nbytes = EXPLORED_BYTES;
	return 0;
}

int backing_read(const struct backing *backing, uint64_t index, void *const *bytes, unsigned n, unsigned *nread)
{
	*nread = 0;
	hook_step(HOOK_LOAD, backing->explored);
	if (inject_fails(backing->inject, UCOW_INJECT_READ))
		return -EIO;
	for (; *nread < n && index < BACKING_EXPLORED_PAGES; ++*nread, index++)
		memcpy(bytes[*nread], backing->explored + index * UCOW_PAGE_SIZE, UCOW_PAGE_SIZE);
	return *nread == n ? 0 : -EIO;
}

int backing_write(struct backing *backing, uint64_t index, const void *const *bytes, unsigned n, uint64_t size,
		  unsigned *nwritten)
{
	(void)size;
	*nwritten = 0;
	hook_step(HOOK_STORE, backing->explored);
	if (inject_fails(backing->inject, UCOW_INJECT_WRITE))
		return -EIO;
	for (; *nwritten < n && index < BACKING_EXPLORED_PAGES; ++*nwritten, index++)
		memcpy(backing->explored + index * UCOW_PAGE_SIZE, bytes[*nwritten], UCOW_PAGE_SIZE);
	return *nwritten == n ? 0 : -ENOSPC;
}

int backing_sync(const struct backing *backing)
{
	(void)backing;
	return 0;
}

int backing_resize(const struct backing *backing, uint64_t nbytes)
{
	if (nbytes < EXPLORED_BYTES)
		memset(backing->explored + nbytes, 0, EXPLORED_BYTES - nbytes);
	return 0;
}

int backing_punch(const struct backing *backing, uint64_t from, uint64_t to)
{
	to = min_u64(to, EXPLORED_BYTES);
	if (from < to)
		memset(backing->explored + from, 0, to - from);
	return 0;
}

#else

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- opening ---- */

static int check_kind(int fd)
{
	struct stat status;

	if (fstat(fd, &status))
		return -errno;
	return S_ISREG(status.st_mode) || S_ISBLK(status.st_mode) ? 0 : -EINVAL;
}

/*
 * Long runs need no copy in the host's page cache: it would take as long as the medium does. A descriptor of our own
 * for that, since flags and position of @fd are the caller's too; where there is none the other serves for all.
 */
static int reopen_direct(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	char path[40];

	if (flags < 0)
		return -1;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, (flags & (O_ACCMODE | O_SYNC | O_DSYNC)) | O_DIRECT | O_CLOEXEC);
}

int backing_open(struct backing *backing, struct inject *inject, int fd, uint64_t offset)
{
	int error;

	*backing = (struct backing){.fd = -1, .direct = -1, .offset = offset, .inject = inject};
	if (fd < 0)
		return 0;
	error = offset & ~UCOW_PAGE_MASK ? -EINVAL : check_kind(fd);
	if (error)
		return error;
	backing->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (backing->fd < 0)
		return -errno;
	backing->direct = reopen_direct(backing->fd);
	return 0;
}

void backing_close(struct backing *backing)
{
	struct backing_ring *ring = atomic_load(&backing->ring);

	if (ring)
		backing_ring_close(ring);
	if (backing->direct >= 0)
		close(backing->direct);
	if (backing->fd >= 0)
		close(backing->fd);
	backing->fd = backing->direct = -1;
	atomic_store(&backing->ring, NULL);
}

int backing_size(const struct backing *backing, uint64_t *nbytes)
{
	struct stat status;
	uint64_t size;

	if (fstat(backing->fd, &status))
		return -errno;
	size = (uint64_t)status.st_size;
	if (S_ISBLK(status.st_mode) && ioctl(backing->fd, BLKGETSIZE64, &size))
		return -errno;
	*nbytes = size > backing->offset ? size - backing->offset : 0;
	return 0;
}

/* ---- runs ---- */

/* One request: pieces of memory for consecutive bytes of the file. Pages that are neighbours in memory are one piece.
 */
struct run {
	int npieces;
	struct iovec pieces[BACKING_PIECES];
};

static void run_add(struct run *run, void *bytes, size_t nbytes)
{
	struct iovec *last = run->npieces ? &run->pieces[run->npieces - 1] : NULL;

	if (last && (char *)last->iov_base + last->iov_len == bytes)
		last->iov_len += nbytes;
	else
		run->pieces[run->npieces++] = (struct iovec){.iov_base = bytes, .iov_len = nbytes};
}

static off_t offset_of(const struct backing *backing, uint64_t index)
{
	return (off_t)(backing->offset + (index << UCOW_PAGE_SHIFT));
}

/* One request for pages [first, n). Returns: what the system said; the bytes are in the file, or here. */
static ssize_t read_once(const struct backing *backing, uint64_t index, void *const *bytes, unsigned first, unsigned n)
{
	struct run run = {0};

	if (inject_fails(backing->inject, UCOW_INJECT_READ)) {
		errno = EIO;
		return -1;
	}
	for (unsigned i = first; i < n && run.npieces < BACKING_PIECES; i++)
		run_add(&run, bytes[i], UCOW_PAGE_SIZE);
	return preadv(backing->fd, run.pieces, run.npieces, offset_of(backing, index + first));
}

/* The end of the file lies in page @first, @nbytes further on, or before it: the rest is zeros. */
static void fill_zeros(void *const *bytes, unsigned first, unsigned n, size_t nbytes)
{
	for (unsigned i = first; i < n; i++, nbytes = 0)
		memset((char *)bytes[i] + nbytes, 0, UCOW_PAGE_SIZE - nbytes);
}

/* Whether there is nothing but a hole, or the end: reading that would fill the host's page cache with zeros. */
static bool is_hole(const struct backing *backing, uint64_t index, unsigned n)
{
	off_t data;

	if (backing->direct < 0)
		return false;
	data = lseek(backing->direct, offset_of(backing, index), SEEK_DATA);
	return data < 0 ? errno == ENXIO : data >= offset_of(backing, index + n);
}

/* A transfer may end within a page because the file does, or for no reason: only the next one tells. */
int backing_read(const struct backing *backing, uint64_t index, void *const *bytes, unsigned n, unsigned *nread)
{
	size_t tail = 0; /* bytes of page *nread that are there already */

	*nread = 0;
	if (is_hole(backing, index, n) && !inject_fails(backing->inject, UCOW_INJECT_READ)) {
		fill_zeros(bytes, 0, n, 0);
		*nread = n;
	}
	while (*nread < n) {
		ssize_t nbytes = read_once(backing, index, bytes, *nread, n);

		if (nbytes < 0 && errno == EINTR)
			continue;
		if (nbytes < 0)
			return -errno;
		if ((size_t)nbytes <= tail) {
			fill_zeros(bytes, *nread, n, (size_t)nbytes);
			*nread = n;
			break;
		}
		*nread += (unsigned)((size_t)nbytes >> UCOW_PAGE_SHIFT);
		tail = (size_t)nbytes & ~UCOW_PAGE_MASK;
	}
	return 0;
}

/* How many bytes of page @index lie before byte @size. */
static size_t bytes_within(uint64_t index, uint64_t size)
{
	uint64_t start = index << UCOW_PAGE_SHIFT;

	return start < size ? (size_t)min_u64(size - start, UCOW_PAGE_SIZE) : 0;
}

static ssize_t write_once(const struct backing *backing, uint64_t index, const void *const *bytes, unsigned first,
			  unsigned n, uint64_t size)
{
	struct run run = {0};

	if (inject_fails(backing->inject, UCOW_INJECT_WRITE)) {
		errno = EIO;
		return -1;
	}
	for (unsigned i = first; i < n && run.npieces < BACKING_PIECES; i++)
		run_add(&run, (void *)(uintptr_t)bytes[i], bytes_within(index + i, size));
	return pwritev(backing->fd, run.pieces, run.npieces, offset_of(backing, index + first));
}

/* Whole pages count, and the last one's bytes before @size; a write that ends within one is done again from its start.
 */
static unsigned pages_written(uint64_t index, unsigned first, unsigned n, uint64_t size, size_t nbytes)
{
	while (first < n && bytes_within(index + first, size) && nbytes >= bytes_within(index + first, size)) {
		nbytes -= bytes_within(index + first, size);
		first++;
	}
	return first;
}

/* Whole pages, in chunks of @per that are written side by side; neighbours in memory are one piece within a chunk. */
static void cut(struct backing_chunks *chunks, const void *const *bytes, unsigned n, unsigned per)
{
	struct run run = {0};

	for (unsigned i = 0; i < n; i++) {
		struct backing_chunk *chunk = &chunks->chunks[i / per];

		if (i % per == 0) {
			chunks->n++;
			chunk->pieces = chunks->pieces + i;
			run.npieces = 0;
		}
		run_add(&run, (void *)(uintptr_t)bytes[i], UCOW_PAGE_SIZE);
		chunk->npieces = run.npieces;
		chunk->pieces[run.npieces - 1] = run.pieces[run.npieces - 1];
		chunk->nbytes = (size_t)(i % per + 1) << UCOW_PAGE_SHIFT;
	}
}

static bool is_aligned(const void *const *bytes, unsigned n)
{
	uintptr_t all = 0;

	for (unsigned i = 0; i < n; i++)
		all |= (uintptr_t)bytes[i];
	return !(all & ~UCOW_PAGE_MASK);
}

/*
 * Blocks for all of the run at once: writes into holes would each take theirs, one after the other. The host notes of
 * each write that its blocks have bytes now, so that one is best. Returns: whether there was a hole.
 */
static bool fill_holes(const struct backing *backing, uint64_t index, unsigned n)
{
	off_t start = offset_of(backing, index), end = offset_of(backing, index + n);
	off_t hole = lseek(backing->direct, start, SEEK_HOLE);

	if (hole < 0 || hole >= end)
		return false;
	(void)fallocate(backing->direct, FALLOC_FL_KEEP_SIZE, hole, end - hole);
	return true;
}

/* A ring costs the host more than a file, and many files never have a long run: made when the first comes. */
static struct backing_ring *ring_of(struct backing *backing)
{
	struct backing_ring *ring = atomic_load(&backing->ring), *made;

	if (ring || backing->direct < 0)
		return ring;
	made = backing_ring_open(backing->direct);
	if (!made || atomic_compare_exchange_strong(&backing->ring, &ring, made))
		return made;
	backing_ring_close(made);
	return ring;
}

/*
 * What of a run can go without the host's page cache. Returns: so many pages are in the file; the rest, whatever the
 * reason, is written with it, which also tells what is wrong.
 */
static unsigned write_direct(struct backing *backing, uint64_t index, const void *const *bytes, unsigned n,
			     uint64_t size)
{
	struct backing_chunks *chunks;
	struct backing_ring *ring;

	if (n < BACKING_DIRECT || !is_aligned(bytes, n))
		return 0;
	ring = ring_of(backing);
	if (!ring)
		return 0;
	if (inject_fails(backing->inject, UCOW_INJECT_WRITE))
		return 0;
	n -= bytes_within(index + n - 1, size) < UCOW_PAGE_SIZE;
	chunks = backing_ring_begin(ring);
	if (!chunks)
		return 0;
	cut(chunks, bytes, n, fill_holes(backing, index, n) ? BACKING_PIECES : BACKING_CHUNK);
	return backing_ring_write(ring, offset_of(backing, index)) ? n : 0;
}

int backing_write(struct backing *backing, uint64_t index, const void *const *bytes, unsigned n, uint64_t size,
		  unsigned *nwritten)
{
	unsigned inside = n;

	while (inside && !bytes_within(index + inside - 1, size))
		inside--;
	*nwritten = write_direct(backing, index, bytes, inside, size);
	while (*nwritten < inside) {
		ssize_t nbytes = write_once(backing, index, bytes, *nwritten, inside, size);
		unsigned before = *nwritten;

		if (nbytes < 0 && errno == EINTR)
			continue;
		if (nbytes < 0)
			return -errno;
		*nwritten = pages_written(index, before, inside, size, (size_t)nbytes);
		if (*nwritten == before)
			return -ENOSPC; /* not one page: there is no room */
	}
	*nwritten = n;
	return 0;
}

int backing_sync(const struct backing *backing)
{
	if (inject_fails(backing->inject, UCOW_INJECT_WRITE))
		return -EIO;
	return fdatasync(backing->fd) ? -errno : 0;
}

int backing_resize(const struct backing *backing, uint64_t nbytes)
{
	return ftruncate(backing->fd, (off_t)(backing->offset + nbytes)) ? -errno : 0;
}

/* Where there are no holes, zeros are written. */
static int write_zeros(const struct backing *backing, uint64_t from, uint64_t to)
{
	static const char zeros[UCOW_PAGE_SIZE];

	while (from < to) {
		size_t want = (size_t)min_u64(to - from, sizeof(zeros));
		ssize_t n = pwrite(backing->fd, zeros, want, (off_t)(backing->offset + from));

		if (n < 0 && errno != EINTR)
			return -errno;
		from += n > 0 ? (uint64_t)n : 0;
	}
	return 0;
}

int backing_punch(const struct backing *backing, uint64_t from, uint64_t to)
{
	if (from >= to)
		return 0;
	if (inject_fails(backing->inject, UCOW_INJECT_WRITE))
		return -EIO;
	if (!fallocate(backing->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(backing->offset + from),
		       (off_t)(to - from)))
		return 0;
	return errno == EOPNOTSUPP ? write_zeros(backing, from, to) : -errno;
}

#endif
