/* SPDX-License-Identifier: MIT */
/*
 * Rows about the first write to a page: copy, reuse and zero-fill, and the memcpy that bounds the copy. Each sample
 * proves by a counter (ucow's own, or the kernel's minor faults) that it measured the faults that it is about.
 */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ucow/ucow.h>

static double per_page(double ns, uint64_t npages)
{
	return ns / (double)npages;
}

/* ---- ucow ---- */

/* Touch every page; that must take exactly @expected faults of the kind that @counter counts. */
static int touch_counted(struct bench_space *space, enum ucow_counter counter, uint64_t expected, double *value,
			 char why[BENCH_WHY])
{
	uint64_t before = ucow_machine_counter(space->machine, counter), got;
	double ns;
	int err = bench_space_touch(space, &ns);

	if (err)
		return err;
	got = ucow_machine_counter(space->machine, counter) - before;
	if (got != expected) {
		snprintf(why, BENCH_WHY, "%llu faults counted as %s, not %llu", (unsigned long long)got,
			 ucow_counter_name(counter), (unsigned long long)expected);
		return -EPROTO;
	}
	*value = per_page(ns, space->npages);
	return 0;
}

static int cow_copy_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	struct ucow_mm *child;
	int err = ucow_fork(space->mm, &child);

	if (err)
		return err;
	err = touch_counted(space, UCOW_COUNTER_COPY_SHARED, space->npages, value, why);
	(void)ucow_mm_destroy(child);
	return err;
}

/*
 * After an eager fork every page owes a fault that finds it reusable. After the default one nothing is owed: entries
 * were never touched, and the writes take no fault at all, only their translations anew.
 */
static int cow_reuse_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	bool faults = space->fork == UCOW_FORK_EAGER;
	struct ucow_mm *child;
	int err = ucow_fork(space->mm, &child);

	if (err)
		return err;
	(void)ucow_mm_destroy(child);
	return touch_counted(space, faults ? UCOW_COUNTER_REUSE : UCOW_COUNTER_FAULTS, faults ? space->npages : 0,
			     value, why);
}

/* The very first write after a fork, to a random page: of `count` forks in a row, the mean. */
static int first_write_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	uint64_t copies = ucow_machine_counter(space->machine, UCOW_COUNTER_COPY_SHARED), total = 0, start;
	struct ucow_mm *child;
	int err = 0;

	for (unsigned i = 0; !err && i < space->count; i++) {
		uint64_t va = space->va + bench_random(&space->random, space->npages) * UCOW_PAGE_SIZE;

		err = ucow_fork(space->mm, &child);
		if (err)
			return err;
		start = bench_now();
		err = ucow_store_u64(space->cpu, va, i);
		total += bench_now() - start;
		(void)ucow_mm_destroy(child);
	}
	copies = ucow_machine_counter(space->machine, UCOW_COUNTER_COPY_SHARED) - copies;
	*value = (double)total / space->count / 1000;
	if (err || copies == space->count)
		return err;
	snprintf(why, BENCH_WHY, "%llu pages copied by %u writes", (unsigned long long)copies, space->count);
	return -EPROTO;
}

/* The pages were used before (open populated them), so ucow has to clear them, as the kernel has. */
static int zero_fill_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	uint64_t nbytes = space->npages * UCOW_PAGE_SIZE;
	int err = ucow_munmap(space->mm, space->va, nbytes);

	if (!err)
		err = ucow_mmap(space->mm, space->va, nbytes, UCOW_PROT_READ | UCOW_PROT_WRITE,
				UCOW_MAP_PRIVATE | UCOW_MAP_FIXED, &space->va);
	return err ? err : touch_counted(space, UCOW_COUNTER_ZERO_FILL, space->npages, value, why);
}

/* ---- the kernel ---- */

static int touch_faulting(struct bench_mapping *mapping, double *value, char why[BENCH_WHY])
{
	uint64_t faults;
	double ns;

	bench_touch(mapping, &ns, &faults);
	if (faults < mapping->npages) {
		snprintf(why, BENCH_WHY, "%llu faults for %llu pages: not 4 KiB pages, or not faulted one by one",
			 (unsigned long long)faults, (unsigned long long)mapping->npages);
		return -EPROTO;
	}
	*value = per_page(ns, mapping->npages);
	return 0;
}

static int cow_copy_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_child child;
	int err = bench_child_fork(&child, NULL);

	if (err)
		return err;
	err = touch_faulting(state, value, why);
	bench_child_reap(&child);
	return err;
}

static int cow_reuse_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_child child;
	int err = bench_child_fork(&child, NULL);

	if (err)
		return err;
	bench_child_reap(&child);
	return touch_faulting(state, value, why);
}

static int first_write_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_mapping *mapping = state;
	volatile char *place = mapping->bytes + bench_random(&mapping->random, mapping->npages) * UCOW_PAGE_SIZE;
	struct bench_child child;
	uint64_t start;
	int err = bench_child_fork(&child, NULL);

	(void)why;
	if (err)
		return err;
	start = bench_now();
	*place = 1;
	*value = (double)(bench_now() - start) / 1000;
	bench_child_reap(&child);
	return 0;
}

static int zero_fill_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_mapping *mapping = state;
	int err;

	bench_unmap(mapping);
	err = bench_map(mapping, mapping->npages, false);
	return err ? err : touch_faulting(mapping, value, why);
}

/* ---- memcpy: two sets of pages, both far larger than the caches ---- */

struct copy_sets {
	struct bench_mapping from, to;
};

static void memcpy_close(void *state)
{
	struct copy_sets *sets = state;

	bench_unmap(&sets->to);
	bench_unmap(&sets->from);
	free(sets);
}

static int memcpy_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct copy_sets *sets = calloc(1, sizeof(*sets));
	int err;

	(void)why;
	if (!sets)
		return -ENOMEM;
	/* Huge pages, as the machine's RAM has them where it can. */
	err = bench_map(&sets->from, row->npages, true);
	if (err)
		goto fail_free;
	err = bench_map(&sets->to, row->npages, true);
	if (err)
		goto fail_from;
	memset(sets->from.bytes, 1, row->npages * UCOW_PAGE_SIZE);
	memset(sets->to.bytes, 2, row->npages * UCOW_PAGE_SIZE);
	*state = sets;
	return 0;

fail_from:
	bench_unmap(&sets->from);
fail_free:
	free(sets);
	return err;
}

static int memcpy_sample(void *state, double *value, char why[BENCH_WHY])
{
	struct copy_sets *sets = state;
	uint64_t start = bench_now();

	(void)why;
	for (uint64_t i = 0; i < sets->from.npages; i++)
		memcpy(sets->to.bytes + i * UCOW_PAGE_SIZE, sets->from.bytes + i * UCOW_PAGE_SIZE, UCOW_PAGE_SIZE);
	__asm__ volatile("" : : "r"(sets->to.bytes) : "memory");
	*value = per_page((double)(bench_now() - start), sets->from.npages);
	return 0;
}

const struct bench_side bench_cow_copy_ucow = {bench_space_open, cow_copy_ucow, bench_space_close};
const struct bench_side bench_cow_copy_kernel = {bench_mapping_open, cow_copy_kernel, bench_mapping_close};
const struct bench_side bench_cow_reuse_ucow = {bench_space_open, cow_reuse_ucow, bench_space_close};
const struct bench_side bench_cow_reuse_kernel = {bench_mapping_open, cow_reuse_kernel, bench_mapping_close};
const struct bench_side bench_zero_fill_ucow = {bench_space_open, zero_fill_ucow, bench_space_close};
const struct bench_side bench_zero_fill_kernel = {bench_mapping_open, zero_fill_kernel, bench_mapping_close};
const struct bench_side bench_first_write_ucow = {bench_space_open, first_write_ucow, bench_space_close};
const struct bench_side bench_first_write_kernel = {bench_mapping_open, first_write_kernel, bench_mapping_close};
const struct bench_side bench_memcpy_kernel = {memcpy_open, memcpy_sample, memcpy_close};
