/* SPDX-License-Identifier: MIT */
/*
 * Rows about many live snapshots of one space, with `changes` random pages written between two: the memory that they
 * take, and what one more costs when there are that many already. There is no kernel side: so many processes would not
 * fit.
 */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <ucow/ucow.h>

#define TIMED 10 /* snapshots whose mean is taken: one is shorter than the clock is good for */

struct snapshots {
	struct bench_space *space;
	struct ucow_mm **list;
	unsigned n;
};

static int change(struct bench_space *space)
{
	int err = 0;

	for (unsigned i = 0; !err && i < space->changes; i++)
		err = ucow_store_u64(space->cpu,
				     space->va + bench_random(&space->random, space->npages) * UCOW_PAGE_SIZE, i);
	return err;
}

/* One more, and what the call took. */
static int take(struct snapshots *snapshots, double *ns)
{
	uint64_t start = bench_now();
	int err = ucow_snapshot(snapshots->space->mm, &snapshots->list[snapshots->n]);

	*ns = (double)(bench_now() - start);
	snapshots->n += !err;
	return err ? err : change(snapshots->space);
}

/* Until there are @n; @mean is of the last TIMED. */
static int take_until(struct snapshots *snapshots, unsigned n, double *mean)
{
	double ns, sum = 0;
	int err = 0;

	while (!err && snapshots->n < n) {
		err = take(snapshots, &ns);
		sum += snapshots->n > n - TIMED ? ns : 0;
	}
	*mean = sum / TIMED;
	return err;
}

static void drop_all(struct snapshots *snapshots)
{
	while (snapshots->n > 0)
		(void)ucow_mm_destroy(snapshots->list[--snapshots->n]);
}

/* ---- time: one machine for all samples ---- */

static int timed_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_space *space;
	int err = bench_space_open(row, state, why);

	if (err)
		return err;
	space = *state;
	space->own = calloc(row->count, sizeof(struct ucow_mm *));
	if (space->own)
		return 0;
	bench_space_close(space);
	return -ENOMEM;
}

static int timed_sample(struct bench_space *space, unsigned n, double *value)
{
	struct snapshots snapshots = {.space = space, .list = space->own};
	double ns;
	int err = take_until(&snapshots, n, &ns);

	drop_all(&snapshots);
	*value = ns / 1000;
	return err;
}

static int last_sample(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;

	(void)why;
	return timed_sample(space, space->count, value);
}

static int tenth_sample(void *state, double *value, char why[BENCH_WHY])
{
	(void)why;
	return timed_sample(state, 2 * TIMED, value);
}

/* ---- memory: a machine for each sample, so that all of it is new ---- */

static int memory_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_row *copy = malloc(sizeof(*copy));

	(void)why;
	if (!copy)
		return -ENOMEM;
	*copy = *row;
	*state = copy;
	return 0;
}

/* What this process has in memory, as the host sees it. */
static double resident_bytes(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long total, resident = 0;

	if (file && fscanf(file, "%lu %lu", &total, &resident) != 2)
		resident = 0;
	if (file)
		fclose(file);
	return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

/* The pages that were copied and the tables that lead to them. */
static double ideal_bytes(struct bench_space *space)
{
	struct ucow_machine_stat stat;

	ucow_machine_stat(space->machine, &stat);
	return (double)ucow_machine_counter(space->machine, UCOW_COUNTER_COPY_SHARED) * UCOW_PAGE_SIZE +
	       (double)stat.table_bytes;
}

static int memory_sample(void *state, double *value, char why[BENCH_WHY])
{
	struct snapshots snapshots = {0};
	struct bench_space *space;
	double resident, ideal, none;
	int err = timed_open(state, (void **)&space, why);

	if (err)
		return err;
	snapshots = (struct snapshots){.space = space, .list = space->own};
	resident = resident_bytes();
	ideal = ideal_bytes(space);
	err = take_until(&snapshots, space->count, &none);
	*value = (resident_bytes() - resident) / (ideal_bytes(space) - ideal);
	drop_all(&snapshots);
	bench_space_close(space);
#ifdef __GLIBC__
	malloc_trim(0); /* or the next sample would find memory that is there already */
#endif
	return err;
}

const struct bench_side bench_snapshots_memory = {memory_open, memory_sample, free};
const struct bench_side bench_snapshots_last = {timed_open, last_sample, bench_space_close};
const struct bench_side bench_snapshots_tenth = {timed_open, tenth_sample, bench_space_close};
