/* SPDX-License-Identifier: MIT */
/* Rows about the fork call itself, on a space whose every page is there. */
#include "bench.h"

#include <ucow/ucow.h>

static int fork_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	uint64_t start = bench_now(), end;
	struct ucow_mm *child;
	int err = ucow_fork(space->mm, &child);

	(void)why;
	end = bench_now();
	if (err)
		return err;
	*value = (double)(end - start) / 1000;
	return ucow_mm_destroy(child);
}

static int fork_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_child child;
	double ns;
	int err = bench_child_fork(&child, &ns);

	(void)state, (void)why;
	if (err)
		return err;
	bench_child_reap(&child);
	*value = ns / 1000;
	return 0;
}

const struct bench_side bench_fork_ucow = {bench_space_open, fork_ucow, bench_space_close};
const struct bench_side bench_fork_kernel = {bench_mapping_open, fork_kernel, bench_mapping_close};
