/* SPDX-License-Identifier: MIT */
/* A ring for writing long runs past the host's page cache, several pieces of a run at once. */
#ifndef CACHE_BACKING_RING_H
#define CACHE_BACKING_RING_H

#include "cache/backing.h"

#include <sys/uio.h>

#define BACKING_DIRECT 32  /* pages of a run that is worth it */
#define BACKING_CHUNK  128 /* pages of one write, at least */

/* A run in chunks, each one write. */
struct backing_chunk {
	struct iovec *pieces;
	int npieces;
	size_t nbytes;
};
struct backing_chunks {
	unsigned n;
	struct backing_chunk chunks[BACKING_RUN / BACKING_CHUNK];
	struct iovec pieces[BACKING_RUN];
};
#define BACKING_PIECES 1024 /* that the host takes in one request */

#if defined(UCOW_HAVE_LIBURING) && !exploring
/* backing_ring_open - for the descriptor @fd, opened with O_DIRECT. Returns: NULL: there is none for us. */
struct backing_ring *backing_ring_open(int fd);
void backing_ring_close(struct backing_ring *ring);
/*
 * backing_ring_begin - the ring's chunks, for the caller alone until backing_ring_write. Returns: NULL: somebody else
 * is writing, or the kernel has refused the ring.
 */
struct backing_chunks *backing_ring_begin(struct backing_ring *ring);
/* backing_ring_write - write them, aligned memory, and wait. Returns: whether all is in the file. */
bool backing_ring_write(struct backing_ring *ring, off_t offset);
#else
static inline struct backing_ring *backing_ring_open(int fd)
{
	(void)fd;
	return NULL;
}
static inline void backing_ring_close(struct backing_ring *ring)
{
	(void)ring;
}
static inline struct backing_chunks *backing_ring_begin(struct backing_ring *ring)
{
	(void)ring;
	return NULL;
}
static inline bool backing_ring_write(struct backing_ring *ring, off_t offset)
{
	(void)ring;
	(void)offset;
	return false;
}
#endif

#endif
