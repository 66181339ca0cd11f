/* SPDX-License-Identifier: MIT */
/*
 * Rows about single 8-byte accesses to a hot set: through ucow's inline fast path, and to raw memory. Both sides visit
 * the same offsets in the same order, and each access is complete before the next one is looked at by the compiler: the
 * empty asm statements take its value and forget what is known of memory, so nothing is hoisted, merged or vectorized.
 */
#include "bench.h"

#include <ucow/ucow.h>

#define NACCESSES ((uint64_t)8 << 20)
#define STRIDE    264 /* changes the page often and meets every 8-byte word of the set */

#define COMPLETE_LOAD(value) __asm__ volatile("" : : "r"(value) : "memory")
#define COMPLETE_STORE()     __asm__ volatile("" : : : "memory")

static double per_access(uint64_t start)
{
	return (double)(bench_now() - start) / (double)NACCESSES;
}

static int load_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	uint64_t mask = space->npages * UCOW_PAGE_SIZE - 1, offset = 0, start = bench_now();

	(void)why;
	for (uint64_t i = 0; i < NACCESSES; i++) {
		uint64_t loaded;
		int err = ucow_load_u64(space->cpu, space->va + offset, &loaded);

		if (err)
			return err;
		COMPLETE_LOAD(loaded);
		offset = (offset + STRIDE) & mask;
	}
	*value = per_access(start);
	return 0;
}

static int store_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	uint64_t mask = space->npages * UCOW_PAGE_SIZE - 1, offset = 0, start = bench_now();

	(void)why;
	for (uint64_t i = 0; i < NACCESSES; i++) {
		int err = ucow_store_u64(space->cpu, space->va + offset, i);

		if (err)
			return err;
		COMPLETE_STORE();
		offset = (offset + STRIDE) & mask;
	}
	*value = per_access(start);
	return 0;
}

static int load_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_mapping *mapping = state;
	uint64_t mask = mapping->npages * UCOW_PAGE_SIZE - 1, offset = 0, start = bench_now();

	(void)why;
	for (uint64_t i = 0; i < NACCESSES; i++) {
		uint64_t loaded = *(uint64_t *)(void *)(mapping->bytes + offset);

		COMPLETE_LOAD(loaded);
		offset = (offset + STRIDE) & mask;
	}
	*value = per_access(start);
	return 0;
}

static int store_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_mapping *mapping = state;
	uint64_t mask = mapping->npages * UCOW_PAGE_SIZE - 1, offset = 0, start = bench_now();

	(void)why;
	for (uint64_t i = 0; i < NACCESSES; i++) {
		*(uint64_t *)(void *)(mapping->bytes + offset) = i;
		COMPLETE_STORE();
		offset = (offset + STRIDE) & mask;
	}
	*value = per_access(start);
	return 0;
}

const struct bench_side bench_load_ucow = {bench_space_open, load_ucow, bench_space_close};
const struct bench_side bench_load_kernel = {bench_mapping_open, load_kernel, bench_mapping_close};
const struct bench_side bench_store_ucow = {bench_space_open, store_ucow, bench_space_close};
const struct bench_side bench_store_kernel = {bench_mapping_open, store_kernel, bench_mapping_close};
