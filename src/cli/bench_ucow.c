/* SPDX-License-Identifier: MIT */
/* What ucow's sides of `ucow bench` are made of: one machine, one space, one cpu. */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>

#include <ucow/ucow.h>

/* For frames that the engine keeps in caches of its own. */
#define SLACK_BYTES ((uint64_t)32 << 20)

static int space_make(const struct bench_row *row, struct bench_space *space)
{
	struct ucow_machine_options options = {
		.size = sizeof(options),
		.ram_bytes = row->npages * UCOW_PAGE_SIZE * row->copies + SLACK_BYTES,
		.fork_mode = row->fork,
		.policy = row->policy,
		.flags = UCOW_MACHINE_KEEP_RAM,
	};
	int err = ucow_machine_create(&options, &space->machine);

	if (err)
		return err;
	err = ucow_mm_create(space->machine, &space->mm);
	if (err)
		goto fail_machine;
	err = ucow_cpu_create(space->machine, &space->cpu);
	if (err)
		goto fail_mm;
	err = ucow_cpu_create(space->machine, &space->child_cpu);
	if (err)
		goto fail_cpu;
	ucow_cpu_attach(space->cpu, space->mm);
	return 0;

fail_cpu:
	ucow_cpu_destroy(space->cpu);
fail_mm:
	(void)ucow_mm_destroy(space->mm);
fail_machine:
	(void)ucow_machine_destroy(space->machine);
	return err;
}

/* Unmap the last page of each of @nmappings equal parts. */
static int space_cut(struct bench_space *space, unsigned nmappings)
{
	uint64_t part = space->npages / nmappings;
	int err = 0;

	for (unsigned i = 1; !err && i <= nmappings; i++)
		err = ucow_munmap(space->mm, space->va + (i * part - 1) * UCOW_PAGE_SIZE, UCOW_PAGE_SIZE);
	return err;
}

static int space_populate(const struct bench_row *row, struct bench_space *space)
{
	double ns;
	int err = ucow_mmap(space->mm, 0, row->npages * UCOW_PAGE_SIZE, UCOW_PROT_READ | UCOW_PROT_WRITE,
			    UCOW_MAP_PRIVATE, &space->va);

	if (err)
		return err;
	space->npages = row->npages;
	space->count = row->count;
	space->changes = row->changes;
	space->fork = row->fork;
	err = bench_space_touch(space, &ns);
	return err || !row->nmappings ? err : space_cut(space, row->nmappings);
}

int bench_space_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_space *space = calloc(1, sizeof(*space));
	int err;

	(void)why;
	if (!space)
		return -ENOMEM;
	err = space_make(row, space);
	if (err) {
		free(space);
		return err;
	}
	err = space_populate(row, space);
	if (err) {
		bench_space_close(space);
		return err;
	}
	*state = space;
	return 0;
}

void bench_space_close(void *state)
{
	struct bench_space *space = state;

	ucow_cpu_destroy(space->child_cpu);
	ucow_cpu_destroy(space->cpu);
	(void)ucow_mm_destroy(space->mm);
	(void)ucow_machine_destroy(space->machine);
	free(space->own);
	free(space);
}

int bench_space_touch(struct bench_space *space, double *ns)
{
	uint64_t start = bench_now();

	for (uint64_t i = 0; i < space->npages; i++) {
		int err = ucow_store_u64(space->cpu, space->va + i * UCOW_PAGE_SIZE, i);

		if (err)
			return err;
	}
	*ns = (double)(bench_now() - start);
	return 0;
}
