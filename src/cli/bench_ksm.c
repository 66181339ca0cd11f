/* SPDX-License-Identifier: MIT */
/*
 * The row about equal pages: half of the pages are alone with their contents, the other half come in sets of equal
 * ones. A sample is the time from the first look at them until the last pair is one page. The kernel's side is ksmd
 * without its pauses.
 */
#include "bench_guard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <ucow/ksm.h>
#include <ucow/ucow.h>

#define EQUAL_PAGES 128 /* of one content */
#define MAX_SECONDS 120 /* for ksmd to find them all */

/* Every other page is one of a set of EQUAL_PAGES, which are spread over the whole range. */
static uint64_t page_seed(uint64_t npages, uint64_t page)
{
	uint64_t nsets = npages / 2 / EQUAL_PAGES;

	return page % 2 ? page : 2 * (page / 2 % nsets);
}

static uint64_t saved_pages(uint64_t npages)
{
	return npages / 2 - npages / 2 / EQUAL_PAGES;
}

static void page_contents(uint64_t npages, uint64_t page, uint64_t words[UCOW_PAGE_SIZE / sizeof(uint64_t)])
{
	uint64_t state = page_seed(npages, page) + 1;

	for (size_t i = 0; i < UCOW_PAGE_SIZE / sizeof(uint64_t); i++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		words[i] = state ^ (state >> 29);
	}
}

/* ---- ucow ---- */

/* Fresh pages, so that nothing is merged. */
static int ucow_fill(struct bench_space *space)
{
	uint64_t nbytes = space->npages * UCOW_PAGE_SIZE, words[UCOW_PAGE_SIZE / sizeof(uint64_t)];
	int err = ucow_madvise(space->mm, space->va, nbytes, UCOW_MADV_DONTNEED);

	for (uint64_t i = 0; !err && i < space->npages; i++) {
		page_contents(space->npages, i, words);
		err = ucow_write(space->cpu, space->va + i * UCOW_PAGE_SIZE, words, sizeof(words), NULL);
	}
	return err;
}

static int ksm_open_ucow(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	const struct ucow_ksm_options options = {.size = sizeof(options)};
	struct bench_space *space;
	int err = bench_space_open(row, state, why);

	if (err)
		return err;
	space = *state;
	err = ucow_ksm_configure(space->machine, &options);
	if (!err)
		err = ucow_madvise(space->mm, space->va, space->npages * UCOW_PAGE_SIZE, UCOW_MADV_MERGEABLE);
	if (err)
		bench_space_close(space);
	return err;
}

static int ksm_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	struct ucow_ksm_stat stat;
	uint64_t start;
	int err = ucow_fill(space);

	if (err)
		return err;
	start = bench_now();
	err = ucow_ksm_merge(space->machine, NULL);
	*value = (double)(bench_now() - start) / 1000;
	ucow_ksm_stat(space->machine, &stat);
	if (err || stat.pages_sharing == saved_pages(space->npages))
		return err;
	snprintf(why, BENCH_WHY, "%llu pages saved, not %llu", (unsigned long long)stat.pages_sharing,
		 (unsigned long long)saved_pages(space->npages));
	return -EPROTO;
}

/* ---- the kernel ---- */

#define KSM "/sys/kernel/mm/ksm/"

struct setting {
	const char *path, *value;
	bool optional; /* not in every kernel */
	char before[64];
};

static int pages_sharing(uint64_t *pages)
{
	char text[64];
	int err = bench_read_file(KSM "pages_sharing", text, sizeof(text));

	*pages = err ? 0 : strtoull(text, NULL, 10);
	return err;
}

/* In this order, and back in the other: ksmd stands still whenever anything else changes. */
static struct setting settings[] = {
	{.path = KSM "run", .value = "0"},
	{.path = KSM "advisor_mode", .value = "none", .optional = true},
	{.path = KSM "pages_to_scan", .value = "100000000"},
	{.path = KSM "sleep_millisecs", .value = "0"},
	{.path = KSM "use_zero_pages", .value = "0", .optional = true},
	{.path = KSM "max_page_sharing", .value = "256", .optional = true},
};
#define NSETTINGS (sizeof(settings) / sizeof(settings[0]))

/* "scan-time [none]": the one in brackets; any other text as it is. */
static void chosen(char *text)
{
	char *open = strchr(text, '['), *close = open ? strchr(open, ']') : NULL;

	if (!close)
		return;
	*close = '\0';
	memmove(text, open + 1, strlen(open + 1) + 1);
}

static int settings_make(void *arg, char why[BENCH_WHY])
{
	uint64_t pages;

	(void)arg;
	if (!pages_sharing(&pages) && pages > 0) {
		/* Nothing has been changed, and nothing is to be undone. */
		snprintf(why, BENCH_WHY, "ksmd holds pages of other programs");
		return -EAGAIN;
	}
	for (size_t i = 0; i < NSETTINGS; i++) {
		struct setting *setting = &settings[i];
		int err = bench_read_file(setting->path, setting->before, sizeof(setting->before));

		chosen(setting->before);
		if (!err && strcmp(setting->before, setting->value) != 0)
			err = bench_write_file(setting->path, setting->value);
		if (err && !setting->optional) {
			snprintf(why, BENCH_WHY, "%s: %s", setting->path, strerror(-err));
			return err == -ENOENT ? -EOPNOTSUPP : err;
		}
	}
	return 0;
}

/* "2" takes back all that was merged, which is the row's alone, and what ksmd still counts of a process that is gone.
 */
static void settings_undo(void *arg)
{
	(void)arg;
	if (!settings[0].before[0])
		return;
	(void)bench_write_file(settings[0].path, "2");
	for (size_t i = NSETTINGS; i-- > 0;)
		if (settings[i].before[0])
			(void)bench_write_file(settings[i].path, settings[i].before);
}

struct ksm_raw {
	struct bench_mapping mapping;
	struct bench_guard guard;
};

static int ksm_open_kernel(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	static const struct bench_change change = {settings_make, settings_undo};
	struct ksm_raw *raw = calloc(1, sizeof(*raw));
	int err = raw ? 0 : -ENOMEM;

	if (!err && geteuid() != 0) {
		snprintf(why, BENCH_WHY, "the settings of ksmd need root");
		err = -EPERM;
	}
	if (!err)
		err = bench_map(&raw->mapping, row->npages, false);
	if (err)
		goto fail;
	err = bench_guard_start(&raw->guard, &change, NULL, why);
	if (err) {
		bench_unmap(&raw->mapping);
		goto fail;
	}
	*state = raw;
	return 0;

fail:
	free(raw);
	return err;
}

static void ksm_close_kernel(void *state)
{
	struct ksm_raw *raw = state;

	bench_guard_stop(&raw->guard);
	bench_unmap(&raw->mapping);
	free(raw);
}

/* Until ksmd has merged @wanted pages. */
static int wait_for_ksmd(uint64_t wanted, uint64_t *took)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	uint64_t start = bench_now(), pages = 0;
	int err = bench_write_file(KSM "run", "1");

	while (!err && pages < wanted) {
		*took = bench_now() - start;
		if (*took > (uint64_t)MAX_SECONDS * 1000000000)
			return -ETIME;
		nanosleep(&moment, NULL);
		err = pages_sharing(&pages);
	}
	*took = bench_now() - start;
	return err;
}

/* Returns: 0; -errno. The pages are those of the row, freshly mapped. */
static int raw_fill(struct bench_mapping *mapping)
{
	uint64_t npages = mapping->npages;
	int err;

	bench_unmap(mapping);
	err = bench_map(mapping, npages, false);
	for (uint64_t i = 0; !err && i < npages; i++)
		page_contents(npages, i, (void *)(mapping->bytes + i * UCOW_PAGE_SIZE));
	if (!err && madvise(mapping->bytes, npages * UCOW_PAGE_SIZE, MADV_MERGEABLE))
		err = -errno;
	return err;
}

static int ksm_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct ksm_raw *raw = state;
	uint64_t took = 0;
	int err = bench_write_file(KSM "run", "0");

	if (!err)
		err = raw_fill(&raw->mapping);
	if (!err)
		err = wait_for_ksmd(saved_pages(raw->mapping.npages), &took);
	(void)bench_write_file(KSM "run", "0");
	*value = (double)took / 1000;
	if (err == -ETIME)
		snprintf(why, BENCH_WHY, "ksmd has not merged the pages within %d s", MAX_SECONDS);
	return err;
}

const struct bench_side bench_ksm_merge_ucow = {ksm_open_ucow, ksm_ucow, bench_space_close};
const struct bench_side bench_ksm_merge_kernel = {ksm_open_kernel, ksm_kernel, ksm_close_kernel};
