/* SPDX-License-Identifier: MIT */
/*
 * O_DIRECT in and out of a space: the pages are pinned, the host's device reads or writes their bytes by io_uring, and
 * whoever takes the completion unpins them, dirty if they were written to. Semantics.md B.5: an O_DIRECT write reads
 * memory and pins for reading, an O_DIRECT read pins for writing; both for a short time.
 */
#include "base/host.h"
#include "space/mm.h"

#include <ucow/file.h>
#include <ucow/gup.h>

#include <errno.h>
#include <limits.h>
#include <sys/uio.h>

#if defined(UCOW_HAVE_LIBURING) && !exploring
#define has_ring 1
#include <liburing.h>
#include <sched.h>
#else
#define has_ring 0
#endif

#define MAX_DEPTH    4096u
#define CHUNK_PAGES  256u /* of the transfers that one call is made of */
#define CHUNKS       8u
#define SUBMIT_TRIES 1000

/* One transfer. */
struct transfer {
	struct transfer *next; /* free, or complete */
	enum ucow_direct_op op;
	int fd;
	uint64_t offset, user_data;
	long result;
	size_t npages;
	int npieces;
	struct ucow_page **pages; /* pinned */
	struct iovec *pieces;
};

struct ucow_direct {
	struct ucow_machine *machine; /* (C) */
	unsigned depth;               /* (C) */
	unsigned nbusy;               /* transfers that are with the kernel, or complete and not taken yet */
	unsigned nflying;             /* of these: with the kernel */
	struct transfer *free;
	struct transfer *first, **last; /* complete */
#if has_ring
	bool has_uring; /* else each transfer is waited for where it is submitted */
	bool is_broken; /* the kernel has refused a transfer, which is still in the queue: nothing is sent again */
	struct io_uring uring;
#endif
	struct transfer transfers[];
};

/* ---- memory ---- */

static void transfer_free(struct transfer *transfer)
{
	host_free(transfer->pages);
	host_free(transfer->pieces);
	transfer->pages = NULL;
	transfer->pieces = NULL;
}

static int transfer_alloc(struct inject *inject, struct transfer *transfer, size_t npages)
{
	if (inject_fails(inject, UCOW_INJECT_OTHER))
		return -ENOMEM;
	transfer->npages = npages;
	transfer->pages = host_alloc(npages * sizeof(struct ucow_page *));
	transfer->pieces = host_alloc(npages * sizeof(struct iovec));
	if (transfer->pages && transfer->pieces)
		return 0;
	transfer_free(transfer);
	return -ENOMEM;
}

/* ---- pins ---- */

static void unpin(struct transfer *transfer, size_t npages)
{
	ucow_unpin_user_pages_dirty_lock(transfer->pages, npages, transfer->op == UCOW_DIRECT_READ);
}

/* All or none. */
static int pin(struct transfer *transfer, struct ucow_mm *mm, uint64_t va)
{
	unsigned flags = transfer->op == UCOW_DIRECT_READ ? UCOW_FOLL_WRITE : 0;
	size_t done = 0;

	while (done < transfer->npages) {
		long n = ucow_pin_user_pages_remote(mm, va + (done << UCOW_PAGE_SHIFT), transfer->npages - done, flags,
						    transfer->pages + done);

		if (n <= 0) {
			ucow_unpin_user_pages(transfer->pages, done);
			return n ? (int)n : -EFAULT;
		}
		done += (size_t)n;
	}
	return 0;
}

/* The bytes of the pages, neighbours in one piece. */
static void gather(struct transfer *transfer)
{
	transfer->npieces = 0;
	for (size_t i = 0; i < transfer->npages; i++) {
		struct iovec *piece = &transfer->pieces[transfer->npieces];
		char *bytes = ucow_page_address(transfer->pages[i]);

		if (transfer->npieces && (char *)piece[-1].iov_base + piece[-1].iov_len == bytes)
			piece[-1].iov_len += UCOW_PAGE_SIZE;
		else
			transfer->pieces[transfer->npieces++] = (struct iovec){bytes, UCOW_PAGE_SIZE};
	}
}

/* ---- the transfer itself ---- */

#if exploring
/* There are no files to explore with. */
static long transfer_now(const struct transfer *transfer)
{
	(void)transfer;
	return -EOPNOTSUPP;
}
#else
static long transfer_now(const struct transfer *transfer)
{
	ssize_t n;

	do
		n = transfer->op == UCOW_DIRECT_READ
			    ? preadv(transfer->fd, transfer->pieces, transfer->npieces, (off_t)transfer->offset)
			    : pwritev(transfer->fd, transfer->pieces, transfer->npieces, (off_t)transfer->offset);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}
#endif

/* The device has finished with the pages. */
static void complete(struct ucow_direct *direct, struct transfer *transfer, long result)
{
	unpin(transfer, transfer->npages);
	transfer_free(transfer);
	transfer->result = result;
	transfer->next = NULL;
	*direct->last = transfer;
	direct->last = &transfer->next;
}

/* ---- the ring ---- */

#if has_ring
static void ring_open(struct ucow_direct *direct)
{
	direct->has_uring = !io_uring_queue_init(direct->depth, &direct->uring, 0);
}

static void ring_close(struct ucow_direct *direct)
{
	if (direct->has_uring)
		io_uring_queue_exit(&direct->uring);
}

/* Returns: whether the kernel has taken it. */
static bool ring_submit(struct ucow_direct *direct, struct transfer *transfer)
{
	struct io_uring_sqe *sqe = NULL;
	unsigned tries = 0;
	int n;

	if (direct->has_uring && !direct->is_broken)
		sqe = io_uring_get_sqe(&direct->uring);
	if (!sqe)
		return false;
	if (transfer->op == UCOW_DIRECT_READ)
		io_uring_prep_readv(sqe, transfer->fd, transfer->pieces, (unsigned)transfer->npieces, transfer->offset);
	else
		io_uring_prep_writev(sqe, transfer->fd, transfer->pieces, (unsigned)transfer->npieces,
				     transfer->offset);
	io_uring_sqe_set_data(sqe, transfer);
	while ((n = io_uring_submit(&direct->uring)) <= 0 && tries++ < SUBMIT_TRIES &&
	       (n == -EINTR || n == -EAGAIN || n == -EBUSY))
		sched_yield();
	if (n > 0)
		direct->nflying++;
	else
		direct->is_broken = true;
	return n > 0;
}

/* Take one completion, waiting for it. */
static void ring_reap(struct ucow_direct *direct)
{
	struct io_uring_cqe *cqe;

	if (io_uring_wait_cqe(&direct->uring, &cqe))
		return;
	direct->nflying--;
	complete(direct, io_uring_cqe_get_data(cqe), cqe->res);
	io_uring_cqe_seen(&direct->uring, cqe);
}
#else
static void ring_open(struct ucow_direct *direct)
{
	(void)direct;
}
static void ring_close(struct ucow_direct *direct)
{
	(void)direct;
}
static bool ring_submit(struct ucow_direct *direct, struct transfer *transfer)
{
	(void)direct;
	(void)transfer;
	return false;
}
static void ring_reap(struct ucow_direct *direct)
{
	(void)direct;
}
#endif

/* ---- the queue ---- */

int ucow_direct_create(struct ucow_machine *machine, unsigned depth, struct ucow_direct **result)
{
	struct ucow_direct *direct;

	if (!depth || depth > MAX_DEPTH)
		return -EINVAL;
	if (inject_fails(&machine->inject, UCOW_INJECT_OTHER))
		return -ENOMEM;
	direct = host_alloc(sizeof(*direct) + depth * sizeof(direct->transfers[0]));
	if (!direct)
		return -ENOMEM;
	direct->machine = machine;
	direct->depth = depth;
	direct->last = &direct->first;
	for (unsigned i = 0; i < depth; i++) {
		direct->transfers[i].next = direct->free;
		direct->free = &direct->transfers[i];
	}
	ring_open(direct);
	*result = direct;
	return 0;
}

void ucow_direct_destroy(struct ucow_direct *direct)
{
	while (direct->nflying)
		ring_reap(direct);
	ring_close(direct);
	host_free(direct);
}

static bool is_valid(const struct ucow_mm *mm, uint64_t va, uint64_t nbytes)
{
	return mm && nbytes && !((va | nbytes) & ~UCOW_PAGE_MASK);
}

int ucow_direct_submit(struct ucow_direct *direct, enum ucow_direct_op op, struct ucow_mm *mm, uint64_t va,
		       uint64_t nbytes, int fd, uint64_t offset, uint64_t user_data)
{
	struct transfer *transfer = direct->free;
	int error;

	if (!is_valid(mm, va, nbytes) || nbytes > UCOW_DIRECT_MAX_BYTES || mm->machine != direct->machine)
		return -EINVAL;
	if (!transfer)
		return -EAGAIN;
	error = transfer_alloc(&direct->machine->inject, transfer, nbytes >> UCOW_PAGE_SHIFT);
	if (error)
		return error;
	transfer->op = op;
	transfer->fd = fd;
	transfer->offset = offset;
	transfer->user_data = user_data;
	error = pin(transfer, mm, va);
	if (error) {
		transfer_free(transfer);
		return error;
	}
	gather(transfer);
	direct->free = transfer->next;
	direct->nbusy++;
	if (!ring_submit(direct, transfer))
		complete(direct, transfer, transfer_now(transfer));
	return 0;
}

static bool take_one(struct ucow_direct *direct, struct ucow_direct_done *done)
{
	struct transfer *transfer = direct->first;

	if (!transfer)
		return false;
	direct->first = transfer->next;
	if (!direct->first)
		direct->last = &direct->first;
	*done = (struct ucow_direct_done){.user_data = transfer->user_data, .result = transfer->result};
	transfer->next = direct->free;
	direct->free = transfer;
	direct->nbusy--;
	return true;
}

unsigned ucow_direct_wait(struct ucow_direct *direct, unsigned min, struct ucow_direct_done *done, unsigned max)
{
	unsigned n = 0;

	while (n < max) {
		if (take_one(direct, &done[n]))
			n++;
		else if (n < min && direct->nflying)
			ring_reap(direct);
		else
			break;
	}
	return n;
}

/* ---- one call: a queue of chunks ---- */

/* A range as chunks, several under way. The first that comes short ends it; an error is told if nothing came before. */
struct range {
	struct ucow_direct *direct;
	enum ucow_direct_op op;
	struct ucow_mm *mm;
	int fd;
	uint64_t va, nbytes, offset;
	uint64_t sent, done; /* bytes; multiples of a chunk but for the last */
	long results[CHUNKS];
};

#define CHUNK_BYTES ((uint64_t)CHUNK_PAGES << UCOW_PAGE_SHIFT)
#define UNDER_WAY   LONG_MIN

static long *result_at(struct range *range, uint64_t at)
{
	return &range->results[at / CHUNK_BYTES % CHUNKS];
}

/* As many as fit. Returns: the error of one that could not be sent: it comes again when all before are done. */
static int send_chunks(struct range *range)
{
	while (range->sent < range->nbytes && range->sent < range->done + CHUNKS * CHUNK_BYTES) {
		uint64_t at = range->sent, length = min_u64(CHUNK_BYTES, range->nbytes - at);
		int error = ucow_direct_submit(range->direct, range->op, range->mm, range->va + at, length, range->fd,
					       range->offset + at, at);

		if (error)
			return error;
		*result_at(range, at) = UNDER_WAY;
		range->sent += length;
	}
	return 0;
}

/* The result of the oldest chunk. */
static long await_chunk(struct range *range)
{
	struct ucow_direct_done done;

	while (*result_at(range, range->done) == UNDER_WAY)
		if (ucow_direct_wait(range->direct, 1, &done, 1))
			*result_at(range, done.user_data) = done.result;
	return *result_at(range, range->done);
}

static long transfer_chunks(struct range *range)
{
	uint64_t total = 0, want;
	long result;

	do {
		want = min_u64(CHUNK_BYTES, range->nbytes - range->done);
		result = send_chunks(range);
		if (range->sent > range->done)
			result = await_chunk(range);
		range->done += want;
		total += result > 0 ? (uint64_t)result : 0;
	} while (result == (long)want && range->done < range->nbytes);
	return total ? (long)total : result;
}

static long transfer_range(struct range *range)
{
	long result;

	if (!is_valid(range->mm, range->va, range->nbytes))
		return -EINVAL;
	result = ucow_direct_create(range->mm->machine, CHUNKS, &range->direct);
	if (result)
		return result;
	result = transfer_chunks(range);
	ucow_direct_destroy(range->direct);
	return result;
}

long ucow_direct_read(struct ucow_mm *mm, uint64_t va, uint64_t nbytes, int fd, uint64_t offset)
{
	struct range range = {.op = UCOW_DIRECT_READ, .mm = mm, .va = va, .nbytes = nbytes, .fd = fd, .offset = offset};

	return transfer_range(&range);
}

long ucow_direct_write(struct ucow_mm *mm, uint64_t va, uint64_t nbytes, int fd, uint64_t offset)
{
	struct range range = {
		.op = UCOW_DIRECT_WRITE, .mm = mm, .va = va, .nbytes = nbytes, .fd = fd, .offset = offset};

	return transfer_range(&range);
}
