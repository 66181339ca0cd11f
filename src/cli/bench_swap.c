/* SPDX-License-Identifier: MIT */
/*
 * Rows about more memory than there is RAM: two threads dirty random pages of a space that is larger than RAM, with
 * swap for the rest. The contents do not compress. The kernel's side is a process in a control group of the same size,
 * with a swap file on the same disk.
 */
#include "bench_guard.h"
#include "bench_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ucow/swap.h>
#include <ucow/ucow.h>

#define THREADS   2
#define NS_A_SEC  1000000000u
#define CHUNK     64 /* stores between two looks at the clock */
#define WARM_PART 2  /* this part of a sample's time comes before it, unmeasured, to fill RAM as the work leaves it */

/* One side's space, and how to store into it. */
struct dirty {
	uint64_t npages;
	unsigned seconds;
	int (*fill)(struct dirty *dirty, unsigned who, uint64_t page, const void *bytes);
	int (*store)(struct dirty *dirty, unsigned who, uint64_t at, uint64_t value);
	bench_part *attach, *detach;
	uint64_t deadline, stores[THREADS], random[THREADS];
	/* ucow */
	struct ucow_machine *machine;
	struct ucow_mm *mm;
	struct ucow_cpu *cpus[THREADS];
	uint64_t va;
	/* the kernel */
	struct bench_mapping mapping;
	struct bench_pressure pressure;
};

/* ---- the work ---- */

/* A sequence that no compressor sees through. */
static uint64_t next_word(uint64_t *state)
{
	uint64_t word = *state += 0x9e3779b97f4a7c15;

	word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
	word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
	return word ^ (word >> 31);
}

static int fill_part(void *arg, unsigned who)
{
	struct dirty *dirty = arg;
	uint64_t half = dirty->npages / THREADS, state = (uint64_t)who << 60;
	uint64_t words[UCOW_PAGE_SIZE / sizeof(uint64_t)];
	int err = 0;

	for (uint64_t i = 0; !err && i < half; i++) {
		for (size_t word = 0; word < sizeof(words) / sizeof(words[0]); word++)
			words[word] = next_word(&state);
		err = dirty->fill(dirty, who, who * half + i, words);
	}
	return err;
}

/* 8 bytes at a random place of a random page, until time is up. */
static int dirty_part(void *arg, unsigned who)
{
	struct dirty *dirty = arg;
	uint64_t *state = &dirty->random[who], stores = 0;
	int err = 0;

	while (!err && bench_now() < dirty->deadline) {
		for (unsigned i = 0; !err && i < CHUNK; i++, stores++) {
			uint64_t word = next_word(state);
			uint64_t page = ((word >> 32) * dirty->npages) >> 32;

			err = dirty->store(dirty, who, page * UCOW_PAGE_SIZE + (word & 511) * sizeof(word), word);
		}
	}
	dirty->stores[who] = stores;
	return err;
}

static int dirty_for(struct dirty *dirty, uint64_t duration, double *ns)
{
	dirty->deadline = bench_now() + duration;
	return bench_run_threads(THREADS, dirty->attach, dirty_part, dirty->detach, dirty, ns);
}

static int dirty_sample(void *state, double *value, char why[BENCH_WHY])
{
	struct dirty *dirty = state;
	uint64_t duration = (uint64_t)dirty->seconds * NS_A_SEC;
	double ns;
	int err = dirty_for(dirty, duration / WARM_PART, &ns);

	if (!err)
		err = dirty_for(dirty, duration, &ns);
	if (err)
		snprintf(why, BENCH_WHY, "a store failed: %s", strerror(-err));
	else
		*value = ns / (double)(dirty->stores[0] + dirty->stores[1]);
	/* Not a lack of anything: the row checked before that there is room. */
	return err ? -EPROTO : 0;
}

static struct dirty *dirty_make(const struct bench_row *row)
{
	struct dirty *dirty = calloc(1, sizeof(*dirty));

	if (!dirty)
		return NULL;
	dirty->npages = row->npages;
	dirty->seconds = row->seconds;
	for (unsigned i = 0; i < THREADS; i++)
		dirty->random[i] = (uint64_t)(i + 1) << 56;
	return dirty;
}

/* ---- ucow ---- */

static int ucow_fill(struct dirty *dirty, unsigned who, uint64_t page, const void *bytes)
{
	return ucow_write(dirty->cpus[who], dirty->va + page * UCOW_PAGE_SIZE, bytes, UCOW_PAGE_SIZE, NULL);
}

static int ucow_one_store(struct dirty *dirty, unsigned who, uint64_t at, uint64_t value)
{
	return ucow_store_u64(dirty->cpus[who], dirty->va + at, value);
}

static int ucow_attach(void *arg, unsigned who)
{
	struct dirty *dirty = arg;
	int err = ucow_cpu_create(dirty->machine, &dirty->cpus[who]);

	if (!err)
		ucow_cpu_attach(dirty->cpus[who], dirty->mm);
	return err;
}

static int ucow_detach(void *arg, unsigned who)
{
	struct dirty *dirty = arg;

	ucow_cpu_destroy(dirty->cpus[who]);
	dirty->cpus[who] = NULL;
	return 0;
}

static void ucow_close(void *state)
{
	struct dirty *dirty = state;

	if (dirty->mm)
		(void)ucow_mm_destroy(dirty->mm);
	if (dirty->machine)
		(void)ucow_machine_destroy(dirty->machine);
	free(dirty);
}

static int ucow_make(const struct bench_row *row, struct dirty *dirty, uint32_t flags)
{
	const struct ucow_machine_options options = {
		.size = sizeof(options),
		.ram_bytes = row->ram_pages * UCOW_PAGE_SIZE,
		.flags = UCOW_MACHINE_KEEP_RAM,
	};
	const struct ucow_swap_options swap = {
		.size = sizeof(swap),
		.nbytes = row->swap_pages * UCOW_PAGE_SIZE,
		.flags = flags,
	};
	double ns;
	int err = ucow_machine_create(&options, &dirty->machine);

	if (!err)
		err = ucow_swapon(dirty->machine, &swap, NULL);
	if (!err)
		err = ucow_mm_create(dirty->machine, &dirty->mm);
	if (!err)
		err = ucow_mmap(dirty->mm, 0, row->npages * UCOW_PAGE_SIZE, UCOW_PROT_READ | UCOW_PROT_WRITE,
				UCOW_MAP_PRIVATE, &dirty->va);
	if (!err)
		err = bench_run_threads(THREADS, ucow_attach, fill_part, ucow_detach, dirty, &ns);
	return err;
}

static int ucow_open(const struct bench_row *row, void **state, uint32_t flags)
{
	struct dirty *dirty = dirty_make(row);
	int err;

	if (!dirty)
		return -ENOMEM;
	dirty->fill = ucow_fill;
	dirty->store = ucow_one_store;
	dirty->attach = ucow_attach;
	dirty->detach = ucow_detach;
	err = ucow_make(row, dirty, flags);
	if (err)
		ucow_close(dirty);
	else
		*state = dirty;
	return err;
}

static int ucow_open_direct(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	int err = ucow_open(row, state, UCOW_SWAP_DIRECT);

	if (err != -EINVAL)
		return err;
	snprintf(why, BENCH_WHY, "the file system of the swap file has no O_DIRECT");
	return -EOPNOTSUPP;
}

static int ucow_open_buffered(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	(void)why;
	return ucow_open(row, state, 0);
}

/* ---- the kernel ---- */

static int raw_fill(struct dirty *dirty, unsigned who, uint64_t page, const void *bytes)
{
	(void)who;
	memcpy(dirty->mapping.bytes + page * UCOW_PAGE_SIZE, bytes, UCOW_PAGE_SIZE);
	return 0;
}

static int raw_one_store(struct dirty *dirty, unsigned who, uint64_t at, uint64_t value)
{
	(void)who;
	*(volatile uint64_t *)(void *)(dirty->mapping.bytes + at) = value;
	return 0;
}

static int raw_make(const struct bench_row *row, struct dirty *dirty)
{
	double ns;
	int err = bench_map(&dirty->mapping, row->npages, false);

	if (err)
		return err;
	err = bench_run_threads(THREADS, bench_nothing, fill_part, bench_nothing, dirty, &ns);
	if (err)
		bench_unmap(&dirty->mapping);
	return err;
}

static int raw_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct dirty *dirty = dirty_make(row);
	int err;

	if (!dirty)
		return -ENOMEM;
	dirty->fill = raw_fill;
	dirty->store = raw_one_store;
	dirty->attach = bench_nothing;
	dirty->detach = bench_nothing;
	err = bench_pressure_start(&dirty->pressure, row->ram_pages * UCOW_PAGE_SIZE, row->swap_pages * UCOW_PAGE_SIZE,
				   why);
	if (err)
		goto fail;
	err = raw_make(row, dirty);
	if (err) {
		bench_pressure_stop(&dirty->pressure);
		goto fail;
	}
	*state = dirty;
	return 0;

fail:
	free(dirty);
	return err;
}

static void raw_close(void *state)
{
	struct dirty *dirty = state;

	bench_unmap(&dirty->mapping);
	bench_pressure_stop(&dirty->pressure);
	free(dirty);
}

const struct bench_side bench_swap_dirty_ucow = {ucow_open_direct, dirty_sample, ucow_close};
const struct bench_side bench_swap_dirty_buffered = {ucow_open_buffered, dirty_sample, ucow_close};
const struct bench_side bench_swap_dirty_kernel = {raw_open, dirty_sample, raw_close};
