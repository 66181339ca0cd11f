/* SPDX-License-Identifier: MIT */
/*
 * Rows about fork: the call itself, fork with exit and a few writes by the child, and the memory that it takes. Where
 * ucow needs less than the clock can tell, a sample is the mean of many.
 */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <ucow/ucow.h>

#define SAMPLE_NS  200000 /* repeat for about so long, */
#define MAX_ROUNDS 1000   /* but not more often */

/* ---- the call ---- */

static int fork_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	uint64_t total = 0;
	unsigned rounds = 0;

	(void)why;
	while (total < SAMPLE_NS && rounds < MAX_ROUNDS) {
		uint64_t start = bench_now();
		struct ucow_mm *child;
		int err = ucow_fork(space->mm, &child);

		total += bench_now() - start;
		rounds++;
		if (!err)
			err = ucow_mm_destroy(child);
		if (err)
			return err;
	}
	*value = (double)total / rounds / 1000;
	return 0;
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

/* ucow once more, under the last policy before exclusive pages. */
static int refcount_pin_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_row other = *row;

	other.policy = UCOW_POLICY_REFCOUNT_PIN;
	return bench_space_open(&other, state, why);
}

/* ---- fork, `count` writes to random pages by the child, exit ---- */

/* One child's life. */
static int touch_once(struct bench_space *space)
{
	struct ucow_mm *child;
	int err = ucow_fork(space->mm, &child), exit_err;

	if (err)
		return err;
	if (space->count > 0)
		ucow_cpu_attach(space->child_cpu, child);
	for (unsigned i = 0; !err && i < space->count; i++)
		err = ucow_store_u64(space->child_cpu,
				     space->va + bench_random(&space->random, space->npages) * UCOW_PAGE_SIZE, i);
	ucow_cpu_attach(space->child_cpu, NULL);
	exit_err = ucow_mm_destroy(child);
	return err ? err : exit_err;
}

static int touch_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	uint64_t start = bench_now(), elapsed;
	unsigned rounds = 0;

	(void)why;
	do {
		int err = touch_once(space);

		if (err)
			return err;
		elapsed = bench_now() - start;
	} while (++rounds < MAX_ROUNDS && elapsed < 10 * SAMPLE_NS);
	*value = (double)elapsed / rounds / 1000;
	return 0;
}

static int touch_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_mapping *mapping = state;
	uint64_t start = bench_now();
	int pid = fork(), status;

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		for (unsigned i = 0; i < mapping->count; i++)
			*(volatile uint64_t *)(void *)(mapping->bytes +
						       bench_random(&mapping->random, mapping->npages) *
							       UCOW_PAGE_SIZE) = i;
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	*value = (double)(bench_now() - start) / 1000;
	/* The child drew its pages from a copy of the sequence: the next one must draw others. */
	for (unsigned i = 0; i < mapping->count; i++)
		bench_random(&mapping->random, mapping->npages);
	if (status == 0)
		return 0;
	snprintf(why, BENCH_WHY, "a child has died");
	return -EPROTO;
}

/* ---- memory ---- */

#define MAX_CHILDREN (BENCH_MAX_SAMPLES + 1)

/* The children of all samples stay, so that none lives in memory that another left behind. */
struct children {
	struct ucow_mm *spaces[MAX_CHILDREN];
	unsigned n;
};

static int tables_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_space *space;
	int err = bench_space_open(row, state, why);

	if (err)
		return err;
	space = *state;
	space->own = calloc(1, sizeof(struct children));
	if (space->own)
		return 0;
	bench_space_close(space);
	return -ENOMEM;
}

static void tables_close(void *state)
{
	struct bench_space *space = state;
	struct children *children = space->own;

	for (unsigned i = 0; i < children->n; i++)
		(void)ucow_mm_destroy(children->spaces[i]);
	bench_space_close(space);
}

/* Tables, and what the library took from malloc for the space itself where that can be seen. */
static uint64_t bytes_in_use(struct bench_space *space)
{
	struct ucow_machine_stat stat;
	uint64_t heap = 0;

#ifdef __GLIBC__
	heap = mallinfo2().uordblks;
#endif
	ucow_machine_stat(space->machine, &stat);
	return stat.table_bytes + heap;
}

static int tables_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	struct children *children = space->own;
	uint64_t before = bytes_in_use(space);
	int err;

	(void)why;
	if (children->n == MAX_CHILDREN)
		return -ENOMEM;
	err = ucow_fork(space->mm, &children->spaces[children->n]);
	if (err)
		return err;
	children->n++;
	*value = (double)(bytes_in_use(space) - before);
	return 0;
}

/* VmPTE of the child, in bytes. */
static int read_table_bytes(int pid, double *value)
{
	char path[64], line[128];
	int err = -ENOENT;
	unsigned long kib;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "r");
	if (!file)
		return -errno;
	while (err && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "VmPTE: %lu kB", &kib) == 1) {
			*value = (double)kib * 1024;
			err = 0;
		}
	}
	fclose(file);
	return err;
}

static int tables_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_child child;
	int err = bench_child_fork(&child, NULL);

	(void)state;
	if (err)
		return err;
	err = read_table_bytes(child.pid, value);
	if (err)
		snprintf(why, BENCH_WHY, "no VmPTE in /proc/PID/status");
	bench_child_reap(&child);
	return err;
}

const struct bench_side bench_fork_ucow = {bench_space_open, fork_ucow, bench_space_close};
const struct bench_side bench_fork_kernel = {bench_mapping_open, fork_kernel, bench_mapping_close};
const struct bench_side bench_fork_refcount_pin = {refcount_pin_open, fork_ucow, bench_space_close};
const struct bench_side bench_fork_touch_ucow = {bench_space_open, touch_ucow, bench_space_close};
const struct bench_side bench_fork_touch_kernel = {bench_mapping_open, touch_kernel, bench_mapping_close};
const struct bench_side bench_fork_tables_ucow = {tables_open, tables_ucow, tables_close};
const struct bench_side bench_fork_tables_kernel = {bench_mapping_open, tables_kernel, bench_mapping_close};
