/* SPDX-License-Identifier: MIT */
/* A ring for writing long runs past the host's page cache, several pieces of a run at once. */
#ifndef CACHE_BACKING_RING_H
#define CACHE_BACKING_RING_H

#include "cache/backing.h"

#include <sys/uio.h>

#define BACKING_DIRECT 32  /* pages of a run that is worth it */
#define BACKING_CHUNK  128 /* pages of one write */

/* A run in chunks, of which all but the last are full. */
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

#if defined(UCOW_HAVE_LIBURING) && !exploring
/* backing_ring_open - for the descriptor @fd, opened with O_DIRECT. Returns: NULL: there is none for us. */
struct backing_ring *backing_ring_open(int fd);
void backing_ring_close(struct backing_ring *ring);
/*
 * backing_ring_write - write aligned memory, and wait until it is written. One thread at a time: whoever comes second
 * is told that it was not, as is everybody when something fails. Returns: whether all is in the file.
 */
bool backing_ring_write(struct backing_ring *ring, const struct backing_chunks *chunks, off_t offset);
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
static inline bool backing_ring_write(struct backing_ring *ring, const struct backing_chunks *chunks, off_t offset)
{
	(void)ring;
	(void)chunks;
	(void)offset;
	return false;
}
#endif

#endif
