/* SPDX-License-Identifier: MIT */
/*
 * The pin row: pin and unpin a batch of pages. The nearest thing that the kernel offers to programs is io_uring's
 * buffer registration, which pins with the same flags and does a little more.
 */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifdef UCOW_HAVE_LIBURING
#include <liburing.h>
#endif

#include <ucow/ucow.h>

#define NBATCHES 200

static double per_page(uint64_t start, uint64_t npages)
{
	return (double)(bench_now() - start) / (double)(NBATCHES * npages);
}

static int pin_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	struct ucow_page *pages[BENCH_PIN_PAGES];
	uint64_t start = bench_now();

	for (unsigned i = 0; i < NBATCHES; i++) {
		long got = ucow_pin_user_pages_fast(space->cpu, space->va, space->npages,
						    UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM, pages);

		if (got < 0)
			return (int)got;
		ucow_unpin_user_pages(pages, (size_t)got);
		if ((uint64_t)got != space->npages) {
			snprintf(why, BENCH_WHY, "%ld of %llu pages pinned", got, (unsigned long long)space->npages);
			return -EPROTO;
		}
	}
	*value = per_page(start, space->npages);
	return 0;
}

const struct bench_side bench_pin_ucow = {bench_space_open, pin_ucow, bench_space_close};

#ifdef UCOW_HAVE_LIBURING

struct pin_ring {
	void *mapping; /* struct bench_mapping */
	struct io_uring ring;
};

static int register_and_unregister(struct pin_ring *pin, char why[BENCH_WHY])
{
	const struct bench_mapping *mapping = pin->mapping;
	const struct iovec buffer = {mapping->bytes, mapping->npages * UCOW_PAGE_SIZE};
	int err = io_uring_register_buffers(&pin->ring, &buffer, 1);

	if (!err)
		err = io_uring_unregister_buffers(&pin->ring);
	if (err)
		snprintf(why, BENCH_WHY, "io_uring buffer registration: %s", strerror(-err));
	return err;
}

/* Registers once, to learn whether the limit on locked memory permits it. */
static int ring_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct pin_ring *pin = calloc(1, sizeof(*pin));
	int err;

	if (!pin)
		return -ENOMEM;
	err = bench_mapping_open(row, &pin->mapping, why);
	if (err)
		goto fail_free;
	err = io_uring_queue_init(1, &pin->ring, 0);
	if (err) {
		snprintf(why, BENCH_WHY, "io_uring: %s", strerror(-err));
		goto fail_mapping;
	}
	err = register_and_unregister(pin, why);
	if (err)
		goto fail_ring;
	*state = pin;
	return 0;

fail_ring:
	io_uring_queue_exit(&pin->ring);
fail_mapping:
	bench_mapping_close(pin->mapping);
fail_free:
	free(pin);
	return err;
}

static int ring_sample(void *state, double *value, char why[BENCH_WHY])
{
	struct pin_ring *pin = state;
	const struct bench_mapping *mapping = pin->mapping;
	uint64_t start = bench_now();

	for (unsigned i = 0; i < NBATCHES; i++) {
		int err = register_and_unregister(pin, why);

		if (err)
			return err;
	}
	*value = per_page(start, mapping->npages);
	return 0;
}

static void ring_close(void *state)
{
	struct pin_ring *pin = state;

	io_uring_queue_exit(&pin->ring);
	bench_mapping_close(pin->mapping);
	free(pin);
}

#else

static int ring_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	(void)row, (void)state;
	snprintf(why, BENCH_WHY, "built without liburing");
	return -EOPNOTSUPP;
}

static int ring_sample(void *state, double *value, char why[BENCH_WHY])
{
	(void)state, (void)value, (void)why;
	return -EOPNOTSUPP;
}

static void ring_close(void *state)
{
	(void)state;
}

#endif

const struct bench_side bench_pin_kernel = {ring_open, ring_sample, ring_close};
