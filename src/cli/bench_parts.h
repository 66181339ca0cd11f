/* SPDX-License-Identifier: MIT */
/*
 * Work in one or two parts that begin together, each on a processor of its own. The time of a round is that from the
 * first beginning to the last end.
 */
#ifndef CLI_BENCH_PARTS_H
#define CLI_BENCH_PARTS_H

#include "bench.h"

#include <stdatomic.h>

/* What part number @who does; returns 0 or -errno. */
typedef int bench_part(void *arg, unsigned who);

/* One round; lives in memory that a forked child shares, if a part is a process. */
struct bench_start {
	_Atomic unsigned ready;
	unsigned nparts;
	uint64_t ended[2];
	uint64_t began[2];
	int err[2];
};

/* bench_stay_on - run on the first or the second processor that this process may use. */
void bench_stay_on(unsigned who);
/* bench_part_do - wait for the other part, then do @run. */
void bench_part_do(struct bench_start *start, unsigned who, bench_part *run, void *arg);
/* bench_took - nanoseconds from the first beginning to the last end. */
double bench_took(const struct bench_start *start);
/* bench_nothing - for bench_run_threads: nothing to do before or after. */
int bench_nothing(void *arg, unsigned who);
/*
 * bench_run_threads - @nparts threads do @run. @before and @after run in the same threads and are not measured: cpus of
 * ucow belong to the thread that attached them. Returns: 0 and *ns; -errno.
 */
int bench_run_threads(unsigned nparts, bench_part *before, bench_part *run, bench_part *after, void *arg, double *ns);

#endif
