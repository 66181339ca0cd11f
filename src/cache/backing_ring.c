/* SPDX-License-Identifier: MIT */
/* One run as several writes that are with the kernel at once. */
#include "cache/backing_ring.h"

#if defined(UCOW_HAVE_LIBURING) && !exploring
#include "base/host.h"
#include "base/lock.h"

#include <errno.h>
#include <liburing.h>
#include <sched.h>

#define DEPTH        16
#define SUBMIT_TRIES 1000

struct backing_ring {
	int fd;            /* (C) */
	struct mutex lock; /* LOCK_STORE; guards the rest; held while writes are waited for */
	bool is_broken;    /* the kernel has refused it */
	struct io_uring uring;
	struct backing_chunks chunks;
};

/* A run on its way. */
struct progress {
	const struct backing_chunks *chunks;
	unsigned next; /* chunk */
	off_t offset;  /* its */
	unsigned flying;
	bool failed;
};

struct backing_ring *backing_ring_open(int fd)
{
	struct backing_ring *ring = host_alloc(sizeof(*ring));

	if (!ring)
		return NULL;
	if (io_uring_queue_init(DEPTH, &ring->uring, 0)) {
		host_free(ring);
		return NULL;
	}
	ring->fd = fd;
	mutex_init(&ring->lock, LOCK_STORE);
	return ring;
}

void backing_ring_close(struct backing_ring *ring)
{
	io_uring_queue_exit(&ring->uring);
	mutex_destroy(&ring->lock);
	host_free(ring);
}

/* Returns: whether there was a chunk left, and room for it. */
static bool enqueue(struct backing_ring *ring, struct progress *at)
{
	const struct backing_chunk *chunk = &at->chunks->chunks[at->next];
	struct io_uring_sqe *sqe;

	if (at->next == at->chunks->n || at->failed || at->flying == DEPTH)
		return false;
	sqe = io_uring_get_sqe(&ring->uring);
	if (!sqe)
		return false;
	io_uring_prep_writev(sqe, ring->fd, chunk->pieces, (unsigned)chunk->npieces, (uint64_t)at->offset);
	io_uring_sqe_set_data64(sqe, chunk->nbytes);
	at->offset += (off_t)chunk->nbytes;
	at->flying++;
	at->next++;
	return true;
}

/* Returns: how many of the @queued the kernel has not taken, and will not. */
static unsigned submit(struct backing_ring *ring, unsigned queued)
{
	unsigned tries = 0;

	while (queued && tries < SUBMIT_TRIES) {
		int n = io_uring_submit(&ring->uring);

		if (n > 0) {
			queued -= (unsigned)n;
		} else if (n == -EINTR || n == -EAGAIN || n == -EBUSY) {
			tries++;
			sched_yield();
		} else {
			break;
		}
	}
	return queued;
}

static void reap(struct backing_ring *ring, struct progress *at)
{
	struct io_uring_cqe *cqe;

	if (io_uring_wait_cqe(&ring->uring, &cqe))
		return;
	at->failed |= cqe->res < 0 || (uint64_t)cqe->res != cqe->user_data;
	io_uring_cqe_seen(&ring->uring, cqe);
	at->flying--;
}

/* Requires: the lock. */
static void write_chunks(struct backing_ring *ring, struct progress *at)
{
	do {
		unsigned queued = 0, refused;

		while (enqueue(ring, at))
			queued++;
		refused = submit(ring, queued);
		at->flying -= refused;
		if (refused)
			ring->is_broken = at->failed = true; /* they stay in the queue, and nothing is sent again */
		if (at->flying)
			reap(ring, at);
	} while (at->flying || (at->next < at->chunks->n && !at->failed));
}

struct backing_chunks *backing_ring_begin(struct backing_ring *ring)
{
	if (!mutex_trylock(&ring->lock))
		return NULL;
	if (ring->is_broken) {
		mutex_unlock(&ring->lock);
		return NULL;
	}
	ring->chunks.n = 0;
	return &ring->chunks;
}

bool backing_ring_write(struct backing_ring *ring, off_t offset)
{
	struct progress at = {.chunks = &ring->chunks, .offset = offset};

	write_chunks(ring, &at);
	mutex_unlock(&ring->lock);
	return !at.failed;
}
#endif
