/* SPDX-License-Identifier: MIT */
/*
 * Rows about dependent 8-byte loads at random addresses of a space that no cache and no TLB holds: the address of each
 * depends on the value of the one before. ucow walks its tables on nearly every one; the other side is raw memory in
 * 4 KiB pages, where the processor walks.
 */
#include "bench.h"

#include <ucow/ucow.h>

#define NLOADS         ((uint64_t)1 << 18)
#define CHURN_CHILDREN 4

/* A place of 8 bytes; @before is what the last load gave, and takes part so that the processor has to wait for it. */
static uint64_t next_place(uint64_t *random, uint64_t before, uint64_t nbytes)
{
	*random ^= before;
	return bench_random(random, nbytes / 8) * 8;
}

static double per_load(uint64_t start)
{
	return (double)(bench_now() - start) / (double)NLOADS;
}

static int random_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	uint64_t nbytes = space->npages * UCOW_PAGE_SIZE, loaded = 0, start = bench_now();

	(void)why;
	for (uint64_t i = 0; i < NLOADS; i++) {
		int err = ucow_load_u64(space->cpu, space->va + next_place(&space->random, loaded, nbytes), &loaded);

		if (err)
			return err;
	}
	*value = per_load(start);
	return 0;
}

static int random_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_mapping *mapping = state;
	uint64_t nbytes = mapping->npages * UCOW_PAGE_SIZE, loaded = 0, start = bench_now();

	(void)why;
	for (uint64_t i = 0; i < NLOADS; i++)
		loaded = *(volatile uint64_t *)(void *)(mapping->bytes + next_place(&mapping->random, loaded, nbytes));
	*value = per_load(start);
	return 0;
}

/* ---- churn: writes in random order while children come and go, so that frames and tables lie anywhere ---- */

static int churn(struct bench_space *space)
{
	int err = 0;

	for (unsigned n = 0; !err && n < CHURN_CHILDREN; n++) {
		struct ucow_mm *child;

		err = ucow_fork(space->mm, &child);
		if (err)
			break;
		for (uint64_t i = 0; !err && i < space->npages / 2; i++)
			err = ucow_store_u64(space->cpu,
					     space->va + bench_random(&space->random, space->npages) * UCOW_PAGE_SIZE,
					     i);
		(void)ucow_mm_destroy(child);
	}
	return err;
}

static int churned_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	int err = bench_space_open(row, state, why);

	if (err)
		return err;
	err = churn(*state);
	if (err)
		bench_space_close(*state);
	return err;
}

const struct bench_side bench_random_ucow = {bench_space_open, random_ucow, bench_space_close};
const struct bench_side bench_random_churned_ucow = {churned_open, random_ucow, bench_space_close};
const struct bench_side bench_random_kernel = {bench_mapping_open, random_kernel, bench_mapping_close};
