/* SPDX-License-Identifier: MIT */
/*
 * Rows about forking a space that has `count` pages pinned, each in a 2 MiB block of its own, with as much between them
 * as the space has room for; and about forking it after they were unpinned. Microseconds per pinned block.
 */
#include "bench.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifdef UCOW_HAVE_LIBURING
#include <liburing.h>
#endif

#include <ucow/ucow.h>

#define BLOCK_PAGES 512
#define MAX_PINS    256
#define SMALL_PAGES 16384

static_assert(MAX_PINS <= 1024, "io_uring registers so many buffers at once");

/* The page of pin @i: in the middle of its block. */
static uint64_t pinned_page(unsigned i, unsigned count, uint64_t npages)
{
	uint64_t nblocks = npages / BLOCK_PAGES;

	return nblocks / count * i * BLOCK_PAGES + BLOCK_PAGES / 2;
}

/* ---- ucow ---- */

static int pin_all(struct bench_space *space, struct ucow_page **pages)
{
	for (unsigned i = 0; i < space->count; i++) {
		uint64_t va = space->va + pinned_page(i, space->count, space->npages) * UCOW_PAGE_SIZE;
		long got = ucow_pin_user_pages_fast(space->cpu, va, 1, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM, &pages[i]);

		if (got != 1) {
			ucow_unpin_user_pages(pages, i);
			return got < 0 ? (int)got : -EPROTO;
		}
	}
	return 0;
}

static int pinned_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_space *space;
	int err = bench_space_open(row, state, why);

	if (err)
		return err;
	space = *state;
	space->own = calloc(MAX_PINS, sizeof(struct ucow_page *));
	err = space->own ? pin_all(space, space->own) : -ENOMEM;
	if (err)
		bench_space_close(space);
	return err;
}

static void pinned_close(void *state)
{
	struct bench_space *space = state;

	ucow_unpin_user_pages(space->own, space->count);
	bench_space_close(space);
}

/* The same pins in a small space: what is not pinned should not matter. */
static int pinned_small_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_row other = *row;

	other.npages = SMALL_PAGES;
	return pinned_open(&other, state, why);
}

static int time_fork(struct bench_space *space, uint64_t expected_copies, double *value, char why[BENCH_WHY])
{
	uint64_t copies = ucow_machine_counter(space->machine, UCOW_COUNTER_EARLY_COPY), start = bench_now();
	struct ucow_mm *child;
	int err = ucow_fork(space->mm, &child);

	*value = (double)(bench_now() - start) / 1000 / space->count;
	if (err)
		return err;
	copies = ucow_machine_counter(space->machine, UCOW_COUNTER_EARLY_COPY) - copies;
	err = ucow_mm_destroy(child);
	if (err || copies == expected_copies)
		return err;
	snprintf(why, BENCH_WHY, "%llu early copies, not %llu", (unsigned long long)copies,
		 (unsigned long long)expected_copies);
	return -EPROTO;
}

static int pinned_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;

	return time_fork(space, space->count, value, why);
}

/* Each sample pins and unpins anew: the fork finds every mark stale. */
static int stale_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct ucow_page *pages[MAX_PINS];
	struct bench_space *space = state;
	int err = pin_all(space, pages);

	if (err)
		return err;
	ucow_unpin_user_pages(pages, space->count);
	return time_fork(space, 0, value, why);
}

const struct bench_side bench_fork_pinned_ucow = {pinned_open, pinned_ucow, pinned_close};
const struct bench_side bench_fork_pinned_small = {pinned_small_open, pinned_ucow, pinned_close};
const struct bench_side bench_fork_stale_ucow = {bench_space_open, stale_ucow, bench_space_close};

/* ---- the kernel: a registered buffer of io_uring is a long-term pin ---- */

#ifdef UCOW_HAVE_LIBURING

struct pinned_mapping {
	void *mapping; /* struct bench_mapping */
	struct io_uring ring;
};

static int register_all(struct pinned_mapping *pinned, char why[BENCH_WHY])
{
	const struct bench_mapping *mapping = pinned->mapping;
	struct iovec buffers[MAX_PINS];
	int err;

	for (unsigned i = 0; i < mapping->count; i++)
		buffers[i] = (struct iovec){
			mapping->bytes + pinned_page(i, mapping->count, mapping->npages) * UCOW_PAGE_SIZE,
			UCOW_PAGE_SIZE,
		};
	err = io_uring_register_buffers(&pinned->ring, buffers, mapping->count);
	if (err)
		snprintf(why, BENCH_WHY, "io_uring buffer registration: %s", strerror(-err));
	return err;
}

static void ring_close(void *state)
{
	struct pinned_mapping *pinned = state;

	io_uring_queue_exit(&pinned->ring);
	bench_mapping_close(pinned->mapping);
	free(pinned);
}

static int ring_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct pinned_mapping *pinned = calloc(1, sizeof(*pinned));
	int err;

	if (!pinned)
		return -ENOMEM;
	err = io_uring_queue_init(1, &pinned->ring, 0);
	if (err) {
		snprintf(why, BENCH_WHY, "io_uring: %s", strerror(-err));
		goto fail_free;
	}
	err = bench_mapping_open(row, &pinned->mapping, why);
	if (err)
		goto fail_ring;
	*state = pinned;
	return 0;

fail_ring:
	io_uring_queue_exit(&pinned->ring);
fail_free:
	free(pinned);
	return err;
}

static int ring_pinned_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	int err = ring_open(row, state, why);

	if (err)
		return err;
	err = register_all(*state, why);
	if (err)
		ring_close(*state);
	return err;
}

static int pinned_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct pinned_mapping *pinned = state;
	const struct bench_mapping *mapping = pinned->mapping;
	struct bench_child child;
	double ns;
	int err = bench_child_fork(&child, &ns);

	(void)why;
	if (err)
		return err;
	bench_child_reap(&child);
	*value = ns / 1000 / mapping->count;
	return 0;
}

static int stale_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct pinned_mapping *pinned = state;
	int err = register_all(pinned, why);

	if (!err)
		err = io_uring_unregister_buffers(&pinned->ring);
	return err ? err : pinned_kernel(state, value, why);
}

#else

static int ring_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	(void)row, (void)state;
	snprintf(why, BENCH_WHY, "built without liburing");
	return -EOPNOTSUPP;
}

static int ring_pinned_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	return ring_open(row, state, why);
}

static int pinned_kernel(void *state, double *value, char why[BENCH_WHY])
{
	(void)state, (void)value, (void)why;
	return -EOPNOTSUPP;
}

static int stale_kernel(void *state, double *value, char why[BENCH_WHY])
{
	return pinned_kernel(state, value, why);
}

static void ring_close(void *state)
{
	(void)state;
}

#endif

const struct bench_side bench_fork_pinned_kernel = {ring_pinned_open, pinned_kernel, ring_close};
const struct bench_side bench_fork_stale_kernel = {ring_open, stale_kernel, ring_close};
