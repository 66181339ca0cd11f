/* SPDX-License-Identifier: MIT */
/*
 * The row about pages that a thousand spaces map: take them all to swap, which means finding every entry that maps
 * them. The spaces are made anew for each sample, as nothing maps a page any more once it has gone.
 */
#include "bench_guard.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ucow/swap.h>
#include <ucow/ucow.h>

/* ---- ucow ---- */

struct family {
	struct bench_space *space;
	struct ucow_mm **children;
	unsigned nchildren, nforked;
};

static void family_close(void *state)
{
	struct family *family = state;

	for (unsigned i = 0; i < family->nforked; i++)
		(void)ucow_mm_destroy(family->children[i]);
	if (family->space)
		bench_space_close(family->space);
	free(family->children);
	free(family);
}

static int family_make(const struct bench_row *row, struct family *family, char why[BENCH_WHY])
{
	const struct ucow_swap_options swap = {
		.size = sizeof(swap),
		.nbytes = row->swap_pages * UCOW_PAGE_SIZE,
		.flags = UCOW_SWAP_DIRECT,
	};
	void *space;
	int err = bench_space_open(row, &space, why);

	if (err)
		return err;
	family->space = space;
	/* Before there are pages, as they are to be on the lists. */
	err = ucow_madvise(family->space->mm, family->space->va, row->npages * UCOW_PAGE_SIZE, UCOW_MADV_DONTNEED);
	if (!err)
		err = ucow_swapon(family->space->machine, &swap, NULL);
	return err;
}

static int family_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct family *family = calloc(1, sizeof(*family));
	int err;

	if (!family)
		return -ENOMEM;
	family->nchildren = row->count;
	family->children = calloc(row->count, sizeof(*family->children));
	err = family->children ? family_make(row, family, why) : -ENOMEM;
	if (err)
		family_close(family);
	else
		*state = family;
	return err;
}

static int family_fork(struct family *family)
{
	int err = 0;

	while (!err && family->nforked < family->nchildren) {
		err = ucow_fork(family->space->mm, &family->children[family->nforked]);
		family->nforked += !err;
	}
	return err;
}

/* Pages that are not zeros, or there would be nothing to write. */
static int family_fill(struct bench_space *space)
{
	uint64_t words[UCOW_PAGE_SIZE / sizeof(uint64_t)], state = 0;
	int err = 0;

	for (uint64_t i = 0; !err && i < space->npages; i++) {
		for (size_t word = 0; word < sizeof(words) / sizeof(words[0]); word++)
			words[word] = bench_random(&state, 1ull << 31);
		err = ucow_write(space->cpu, space->va + i * UCOW_PAGE_SIZE, words, sizeof(words), NULL);
	}
	return err;
}

static int family_reclaim(void *state, double *value, char why[BENCH_WHY])
{
	struct family *family = state;
	struct bench_space *space = family->space;
	uint64_t start;
	long taken;
	int err = family_fill(space);

	if (!err)
		err = family_fork(family);
	if (err)
		return err;
	start = bench_now();
	taken = ucow_reclaim(space->machine, NULL, space->npages);
	*value = (double)(bench_now() - start) / (double)space->npages;
	if (taken >= (long)space->npages)
		return 0;
	snprintf(why, BENCH_WHY, "%ld of %llu pages reclaimed", taken, (unsigned long long)space->npages);
	return -EPROTO;
}

/* ---- the kernel ---- */

struct raw_family {
	struct bench_mapping mapping;
	struct bench_pressure pressure;
	pid_t *children;
	unsigned nchildren, nforked;
};

static void raw_exit(struct raw_family *family)
{
	for (unsigned i = 0; i < family->nforked; i++)
		kill(family->children[i], SIGKILL);
	for (unsigned i = 0; i < family->nforked; i++)
		while (waitpid(family->children[i], NULL, 0) < 0 && errno == EINTR)
			;
	family->nforked = 0;
}

static int raw_fork(struct raw_family *family)
{
	while (family->nforked < family->nchildren) {
		pid_t pid = fork();

		if (pid < 0)
			return -errno;
		if (pid == 0)
			for (;;)
				pause();
		family->children[family->nforked++] = pid;
	}
	return 0;
}

/* VmSwap of this process, in pages. */
static uint64_t pages_in_swap(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	unsigned long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "VmSwap: %lu kB", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib * 1024 / UCOW_PAGE_SIZE;
}

static void raw_close(void *state)
{
	struct raw_family *family = state;

	raw_exit(family);
	bench_pressure_stop(&family->pressure);
	bench_unmap(&family->mapping);
	free(family->children);
	free(family);
}

static int raw_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct raw_family *family = calloc(1, sizeof(*family));
	int err;

	if (!family)
		return -ENOMEM;
	family->nchildren = row->count;
	family->children = calloc(row->count, sizeof(*family->children));
	err = family->children ? bench_map(&family->mapping, row->npages, false) : -ENOMEM;
	if (err)
		goto fail;
	/* A limit that is not met: the group is emptied by hand. */
	err = bench_pressure_start(&family->pressure, (uint64_t)64 << 30, row->swap_pages * UCOW_PAGE_SIZE, why);
	if (err) {
		bench_unmap(&family->mapping);
		goto fail;
	}
	*state = family;
	return 0;

fail:
	free(family->children);
	free(family);
	return err;
}

static void raw_fill(struct raw_family *family)
{
	uint64_t *words = (void *)family->mapping.bytes, state = 0;

	for (uint64_t i = 0; i < family->mapping.npages * UCOW_PAGE_SIZE / sizeof(*words); i++)
		words[i] = bench_random(&state, 1ull << 31);
}

/* Nearly all will do: the kernel stops when only what it cannot take is left. */
static int raw_reclaim(void *state, double *value, char why[BENCH_WHY])
{
	struct raw_family *family = state;
	uint64_t start, taken;
	int err;

	raw_fill(family);
	err = raw_fork(family);
	if (err)
		return err;
	start = bench_now();
	/* Busy: something is left, as what follows will tell. */
	err = bench_pressure_write(&family->pressure, "memory.force_empty", "1");
	taken = pages_in_swap();
	*value = (double)(bench_now() - start) / (double)(taken ? taken : 1);
	if (taken >= family->mapping.npages / 10 * 9)
		return 0;
	snprintf(why, BENCH_WHY, "%llu of %llu pages reclaimed: %.40s", (unsigned long long)taken,
		 (unsigned long long)family->mapping.npages, strerror(-err));
	return -EPROTO;
}

const struct bench_side bench_rmap_ucow = {family_open, family_reclaim, family_close};
const struct bench_side bench_rmap_kernel = {raw_open, raw_reclaim, raw_close};
