/* SPDX-License-Identifier: MIT */
/* The row about memory control groups: what charging a page to three of them adds to its first touch. */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>

#include <ucow/memcg.h>
#include <ucow/ucow.h>

#define LEVELS 3

struct groups {
	struct ucow_memcg *level[LEVELS];
};

static void groups_close(void *state)
{
	struct bench_space *space = state;
	struct groups groups = *(struct groups *)space->own;

	(void)ucow_mm_join(space->mm, NULL);
	for (unsigned i = LEVELS; i-- > 0;)
		if (groups.level[i])
			(void)ucow_memcg_destroy(groups.level[i]);
	bench_space_close(space);
}

/* Limits that are checked and never met. */
static int groups_make(struct bench_space *space)
{
	struct groups *groups = space->own;
	struct ucow_memcg *parent = NULL;
	int err = 0;

	for (unsigned i = 0; !err && i < LEVELS; i++) {
		err = ucow_memcg_create(space->machine, parent, 2 * space->npages, UCOW_MEMCG_NO_LIMIT,
					&groups->level[i]);
		parent = groups->level[i];
	}
	return err ? err : ucow_mm_join(space->mm, parent);
}

static int groups_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_space *space;
	int err = bench_space_open(row, state, why);

	if (err)
		return err;
	space = *state;
	space->own = calloc(1, sizeof(struct groups));
	if (!space->own) {
		bench_space_close(space);
		return -ENOMEM;
	}
	err = groups_make(space);
	if (err)
		groups_close(space);
	return err;
}

/* After the sample of the row zero-fill every page must have been charged to the uppermost group. */
static int charge_sample(void *state, double *value, char why[BENCH_WHY])
{
	const struct bench_space *space = state;
	const struct groups *groups = space->own;
	struct ucow_memcg_stat stat;
	int err = bench_zero_fill_ucow.sample(state, value, why);

	if (err)
		return err;
	ucow_memcg_stat(groups->level[0], &stat);
	if (stat.usage == space->npages)
		return 0;
	snprintf(why, BENCH_WHY, "%llu pages charged, not %llu", (unsigned long long)stat.usage,
		 (unsigned long long)space->npages);
	return -EPROTO;
}

const struct bench_side bench_memcg_charge = {groups_open, charge_sample, groups_close};
