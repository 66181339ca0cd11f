/* SPDX-License-Identifier: MIT */
/*
 * Writing through io_uring: several runs are with the kernel at once, and whoever has submitted goes on. Threads submit
 * one after the other, and reap one after the other; the two do not meet.
 */
#include "swap/store_internal.h"

#if defined(UCOW_HAVE_LIBURING) && !exploring
#include "base/host.h"

#include <liburing.h>
#include <sched.h>

#define REQUESTS     256 /* with the kernel at most */
#define REAP_BATCH   32
#define SUBMIT_TRIES 1000

struct request {
	struct run run;
	struct request *next; /* free ones */
};

/* The locks are of rank LOCK_STORE and never held together. */
struct ring {
	struct swap_store *store; /* fixed */
	struct io_uring uring;
	struct mutex submitting; /* guards the submission queue and the next group */
	bool is_broken;          /* the kernel has refused it */
	unsigned nunsent;
	struct request *unsent[REQUESTS]; /* what is in the queue, the oldest first */
	struct mutex reaping;             /* guards the completion queue; held while it is waited for */
	_Atomic unsigned queued;          /* requests that are unsent or with the kernel */
	struct spin lock;                 /* guards the list of free requests */
	struct request *free;
	struct request requests[REQUESTS];
};

/* ---- open and close ---- */

static int queue_init(struct io_uring *uring)
{
	int error = io_uring_queue_init(REQUESTS, uring, IORING_SETUP_SUBMIT_ALL);

	/* Before Linux 5.18 there is no such flag. */
	return error == -EINVAL ? io_uring_queue_init(REQUESTS, uring, 0) : error;
}

int ring_open(struct swap_store *store, struct ring **result)
{
	struct ring *ring = host_alloc(sizeof(*ring));
	int error;

	if (!ring)
		return -ENOMEM;
	error = queue_init(&ring->uring);
	/* Without it (before Linux 5.11) waiting for a time takes a place in the submission queue. */
	if (!error && !(ring->uring.features & IORING_FEAT_EXT_ARG)) {
		io_uring_queue_exit(&ring->uring);
		error = -EOPNOTSUPP;
	}
	if (error) {
		host_free(ring);
		return error;
	}
	ring->store = store;
	mutex_init(&ring->submitting, LOCK_STORE);
	mutex_init(&ring->reaping, LOCK_STORE);
	for (unsigned i = 0; i < REQUESTS; i++) {
		ring->requests[i].next = ring->free;
		ring->free = &ring->requests[i];
	}
	*result = ring;
	return 0;
}

void ring_close(struct ring *ring)
{
	io_uring_queue_exit(&ring->uring);
	mutex_destroy(&ring->submitting);
	mutex_destroy(&ring->reaping);
	host_free(ring);
}

/* ---- requests ---- */

static struct request *request_get(struct ring *ring)
{
	struct request *request;

	spin_lock(&ring->lock, LOCK_STORE);
	request = ring->free;
	if (request)
		ring->free = request->next;
	spin_unlock(&ring->lock, LOCK_STORE);
	return request;
}

static void request_put(struct ring *ring, struct request *request)
{
	spin_lock(&ring->lock, LOCK_STORE);
	request->next = ring->free;
	ring->free = request;
	spin_unlock(&ring->lock, LOCK_STORE);
}

struct run *ring_take(struct ring *ring)
{
	struct request *request = request_get(ring);

	while (!request) {
		/* What this thread has not sent on yet is waited for by nobody else. */
		ring_kick(ring);
		swap_store_reap(ring->store, true);
		request = request_get(ring);
	}
	return &request->run;
}

bool ring_is_waiting(const struct ring *ring)
{
	return atomic_load_explicit(&ring->queued, memory_order_acquire) > 0;
}

/*
 * The first @ngood pages are in the file; what is left, for whatever reason, is written here, which tells what is
 * wrong. With the last write that is completed the store may be closed: the request is given back before.
 */
static void request_finish(struct ring *ring, struct request *request, unsigned ngood)
{
	struct swap_store *store = ring->store;
	struct run run = request->run;

	request_put(ring, request);
	run_write(store, &run, ngood);
}

/* ---- submitting ---- */

/* Returns: whether it is in the queue. Requires: ring->submitting. */
static bool enqueue(struct ring *ring, struct request *request)
{
	const struct run *run = &request->run;
	struct io_uring_sqe *sqe = ring->is_broken ? NULL : io_uring_get_sqe(&ring->uring);

	if (!sqe)
		return false;
	io_uring_prep_writev(sqe, ring->store->fd, run->vectors, run->n, run->writes[0]->slot << UCOW_PAGE_SHIFT);
	io_uring_sqe_set_data(sqe, request);
	ring->unsent[ring->nunsent++] = request;
	atomic_fetch_add_explicit(&ring->queued, 1, memory_order_release);
	return true;
}

void ring_send(struct ring *ring, struct run *run)
{
	struct request *request = container_of(run, struct request, run);
	bool is_queued;

	mutex_lock(&ring->submitting);
	is_queued = enqueue(ring, request);
	mutex_unlock(&ring->submitting);
	if (!is_queued)
		request_finish(ring, request, 0);
}

/*
 * Returns: how many of the unsent requests the kernel has taken: all, or it refuses for good. Requires:
 * ring->submitting.
 */
static unsigned submit(struct ring *ring)
{
	unsigned sent = 0, tries = 0;

	while (sent < ring->nunsent && tries < SUBMIT_TRIES) {
		int n = io_uring_submit(&ring->uring);

		if (n > 0) {
			sent += (unsigned)n;
		} else if (n == -EINTR || n == -EAGAIN || n == -EBUSY) {
			tries++;
			sched_yield();
		} else {
			break;
		}
	}
	return sent;
}

void ring_kick(struct ring *ring)
{
	struct request *refused[REQUESTS];
	unsigned n = 0;

	mutex_lock(&ring->submitting);
	for (unsigned i = submit(ring); i < ring->nunsent; i++)
		refused[n++] = ring->unsent[i];
	ring->nunsent = 0;
	/* They stay in the queue, and nothing is sent from there again. */
	if (n)
		ring->is_broken = true;
	mutex_unlock(&ring->submitting);
	atomic_fetch_sub_explicit(&ring->queued, n, memory_order_relaxed);
	for (unsigned i = 0; i < n; i++)
		request_finish(ring, refused[i], 0);
}

/* ---- reaping ---- */

struct reaped {
	unsigned n;
	struct io_uring_cqe cqes[REAP_BATCH];
};

/* Requires: ring->reaping. */
static void drain(struct ring *ring, struct reaped *reaped)
{
	struct io_uring_cqe *cqes[REAP_BATCH];

	reaped->n = io_uring_peek_batch_cqe(&ring->uring, cqes, REAP_BATCH);
	for (unsigned i = 0; i < reaped->n; i++)
		reaped->cqes[i] = *cqes[i];
	io_uring_cq_advance(&ring->uring, reaped->n);
	/* Acquires what the submitters have written in their requests. */
	if (reaped->n)
		atomic_fetch_sub_explicit(&ring->queued, reaped->n, memory_order_acquire);
}

/*
 * Nobody else takes completions meanwhile, so that what is queued arrives here; unless the kernel refuses it, hence the
 * limit.
 */
static void wait_and_drain(struct ring *ring, struct reaped *reaped)
{
	struct __kernel_timespec limit = {.tv_nsec = 100 * 1000 * 1000};
	struct io_uring_cqe *first;

	if (!ring_is_waiting(ring))
		return;
	(void)io_uring_wait_cqe_timeout(&ring->uring, &first, &limit);
	drain(ring, reaped);
}

unsigned ring_reap(struct ring *ring, bool wait)
{
	struct reaped reaped;
	unsigned n = 0;

	if (wait)
		mutex_lock(&ring->reaping);
	else if (!mutex_trylock(&ring->reaping))
		return 0;
	drain(ring, &reaped);
	if (!reaped.n && wait)
		wait_and_drain(ring, &reaped);
	mutex_unlock(&ring->reaping);
	for (unsigned i = 0; i < reaped.n; i++) {
		struct request *request = io_uring_cqe_get_data(&reaped.cqes[i]);
		int result = reaped.cqes[i].res;

		n += request->run.n;
		request_finish(ring, request, result > 0 ? (unsigned)result >> UCOW_PAGE_SHIFT : 0);
	}
	return n;
}
#endif
