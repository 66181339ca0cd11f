/* SPDX-License-Identifier: MIT */
/*
 * The host file behind the pages of a cache: reading and writing them in long runs. It knows nothing of pages but
 * their bytes. In the build that is explored a little memory stands for the file.
 */
#ifndef CACHE_BACKING_H
#define CACHE_BACKING_H

#include "base/inject.h"

#define BACKING_RUN            4096 /* pages that go in one request at most */
#define BACKING_EXPLORED_PAGES 16   /* of the stand-in */

struct backing_ring;
struct backing {
	int direct; /* (C) the same file without the host's page cache, by a description of our own; -1: none */
	_Atomic(struct backing_ring *) ring; /* (A) long runs go through it; NULL: there was none yet */
	int fd;                              /* (C) a duplicate of our own; -1: none */
	uint64_t offset;                     /* (C) where in the file page 0 begins */
	struct inject *inject;               /* (C) the machine's */
	char *explored;                      /* (C) the stand-in */
};

/*
 * backing_open - @fd, of which a duplicate is kept, from byte @offset on. -1: no file, and none of the calls below but
 * backing_close may be made. Returns: 0; -EBADF, -EMFILE, ... (what the system said); -EINVAL: it is no regular file or
 * block device, or the offset is no multiple of a page; -ENOMEM.
 */
int backing_open(struct backing *backing, struct inject *inject, int fd, uint64_t offset);
void backing_close(struct backing *backing);

static inline bool backing_is_there(const struct backing *backing)
{
	return backing->fd >= 0;
}

/* backing_size - what the file has from the offset on. Returns: 0; -errno. */
int backing_size(const struct backing *backing, uint64_t *nbytes);

/*
 * backing_read - pages @index to @index + @n of the file; what lies behind its end is zeros. *nread pages are there,
 * also when there is an error. Requires: n <= BACKING_RUN. Returns: 0: all; -EIO, ... (what the system said).
 */
int backing_read(const struct backing *backing, uint64_t index, void *const *bytes, unsigned n, unsigned *nread);

/*
 * backing_write - pages @index to @index + @n, but nothing behind byte @size. *nwritten pages are there, also when
 * there is an error. Requires: as backing_read; index < size / page, rounded up. Returns: as backing_read; -ENOSPC.
 */
int backing_write(struct backing *backing, uint64_t index, const void *const *bytes, unsigned n, uint64_t size,
		  unsigned *nwritten);

/* backing_sync - what was written is on the medium. Returns: 0; -EIO, ... */
int backing_sync(const struct backing *backing);

/* backing_resize - the file ends @nbytes behind the offset. Returns: 0; -errno. */
int backing_resize(const struct backing *backing, uint64_t nbytes);

/* backing_punch - the bytes from @from to @to read as zeros, and take no room where the host can. Returns: 0; -errno.
 */
int backing_punch(const struct backing *backing, uint64_t from, uint64_t to);

#endif
