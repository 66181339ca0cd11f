/* SPDX-License-Identifier: MIT */
/*
 * The verb `bench`: the table of rows, the command line, and the loop that takes samples of ucow and of the kernel in
 * turn. What a row does is in bench_cow.c, bench_fork.c, bench_access.c and bench_pin.c.
 */
#include "bench.h"
#include "cmd.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COW_PAGES  16384 /* 64 MiB: more than a cache holds */
#define HOT_PAGES  4     /* within the first-level cache and every TLB */
#define PAGES_1GIB 262144

/* The two sides of a row, by their common name. */
#define SIDES(what) .ucow = &bench_##what##_ucow, .kernel = &bench_##what##_kernel

static const struct bench_row rows[] = {
	{
		.name = "fork-1g-eager",
		.unit = "us",
		.what = "the fork call on 1 GiB of populated pages; ucow in fork mode eager",
		.npages = PAGES_1GIB,
		.copies = 1,
		.fork = UCOW_FORK_EAGER,
		SIDES(fork),
	},
	{
		.name = "cow-copy",
		.unit = "ns",
		.what = "first write to a page after a fork, child alive: a copy",
		.npages = COW_PAGES,
		.copies = 2,
		SIDES(cow_copy),
	},
	{
		.name = "cow-reuse",
		.unit = "ns",
		.what = "first write to a page after a fork, child gone: reuse in place",
		.npages = COW_PAGES,
		.copies = 1,
		SIDES(cow_reuse),
	},
	{
		.name = "zero-fill",
		.unit = "ns",
		.what = "first write to a page of fresh memory",
		.npages = COW_PAGES,
		.copies = 1,
		SIDES(zero_fill),
	},
	{
		.name = "memcpy-cold",
		.unit = "ns",
		.what = "a page copied by ucow on a write, beside a bare memcpy of a cold page: 1x is the limit",
		.npages = COW_PAGES,
		.copies = 2,
		.ucow = &bench_cow_copy_ucow,
		.kernel = &bench_memcpy_kernel,
	},
	{
		.name = "pin-batch",
		.unit = "ns",
		.what = "pin and unpin 512 pages, per page; the kernel's side is io_uring buffer registration",
		.npages = BENCH_PIN_PAGES,
		.copies = 1,
		SIDES(pin),
	},
	{
		.name = "load-hit",
		.unit = "ns",
		.what = "an 8-byte load from a hot set; the kernel's side is raw memory",
		.npages = HOT_PAGES,
		.copies = 1,
		SIDES(load),
	},
	{
		.name = "store-hit",
		.unit = "ns",
		.what = "an 8-byte store to a hot set; the kernel's side is raw memory",
		.npages = HOT_PAGES,
		.copies = 1,
		SIDES(store),
	},
};

#define NROWS (sizeof(rows) / sizeof(rows[0]))

/* How long and how often a row is measured. */
struct effort {
	unsigned min_samples, max_samples;
	uint64_t budget_ns; /* for all samples of a row together */
};

static const struct effort quick_effort = {.min_samples = 3, .max_samples = 15, .budget_ns = 1500000000};
static const struct effort full_effort = {.min_samples = 5, .max_samples = 51, .budget_ns = 5000000000};

/* ---- one row ---- */

static void note(struct bench_result *result, const char *side, int err, const char *why)
{
	snprintf(result->skipped, sizeof(result->skipped), "%s: %s", side, why[0] ? why : strerror(-err));
}

/* A side that this machine cannot provide is a reason to skip; anything else is a failure of the benchmark. */
static bool is_lack(int err)
{
	return err == -ENOMEM || err == -EOPNOTSUPP || err == -ENOSYS || err == -EPERM || err == -EACCES ||
	       err == -EAGAIN || err == -EMFILE || err == -EINTR;
}

static void progress(const struct bench_row *row, unsigned n)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K%s: %u samples", row->name, n);
	else if (n == 0)
		fprintf(stderr, "%s\n", row->name);
}

/* One sample of each side that is there; the first pair brings memory and caches into their steady state. */
static int sample_pair(struct bench_result *result, void *ucow, struct bench_worker *kernel, bool keep)
{
	char why[BENCH_WHY] = "";
	double value;
	int err = result->row->ucow->sample(ucow, &value, why);

	if (err) {
		note(result, "ucow", err, why);
		return err;
	}
	if (keep)
		result->ucow.samples[result->ucow.n++] = value;
	if (!kernel)
		return 0;
	err = bench_worker_sample(kernel, &value, why);
	if (err) {
		note(result, "kernel", err, why);
		return err;
	}
	if (keep)
		result->kernel.samples[result->kernel.n++] = value;
	return 0;
}

static int sample_all(struct bench_result *result, const struct effort *effort, void *ucow, struct bench_worker *kernel)
{
	int err = sample_pair(result, ucow, kernel, false);
	uint64_t start = bench_now();

	for (unsigned n = 0; !err && n < effort->max_samples; n++) {
		if (n >= effort->min_samples && bench_now() - start > effort->budget_ns)
			break;
		err = sample_pair(result, ucow, kernel, true);
		progress(result->row, n + 1);
	}
	return err;
}

static void finish(struct bench_result *result)
{
	bench_stat_finish(&result->ucow);
	bench_stat_finish(&result->kernel);
	if (result->ucow.n == 0 || result->kernel.n == 0)
		return;
	if (result->row->ratio == BENCH_KERNEL_OVER_UCOW)
		result->ratio = result->kernel.median / result->ucow.median;
	else
		result->ratio = result->ucow.median / result->kernel.median;
}

/*
 * Measure one row into @result. Without the kernel's side the row still tells what ucow does.
 * Returns: 0, also when something was skipped; -errno if a measurement failed.
 */
static int measure(struct bench_result *result, const struct effort *effort)
{
	const struct bench_row *row = result->row;
	struct bench_worker worker, *kernel = &worker;
	char why[BENCH_WHY] = "";
	void *ucow;
	int err = bench_worker_start(&worker, row, why);

	if (err) {
		note(result, "kernel", err, why);
		if (!is_lack(err))
			return err;
		kernel = NULL;
	}
	why[0] = '\0';
	err = row->ucow->open(row, &ucow, why);
	if (err) {
		note(result, "ucow", err, why);
		err = is_lack(err) ? 0 : err;
		goto out_worker;
	}
	err = sample_all(result, effort, ucow, kernel);
	row->ucow->close(ucow);
	finish(result);
out_worker:
	if (kernel)
		bench_worker_stop(kernel);
	return err;
}

/* ---- what the machine can hold ---- */

/* Both sides hold all copies at once; an eighth on top for tables and descriptors. */
static uint64_t memory_needed(const struct bench_row *row)
{
	uint64_t nbytes = row->npages * row->copies * UCOW_PAGE_SIZE * 2;

	return nbytes + nbytes / 8;
}

static bool fits(struct bench_result *result)
{
	uint64_t need = memory_needed(result->row), left = bench_memory_available();

	if (need <= left)
		return true;
	snprintf(result->skipped, sizeof(result->skipped), "needs %llu MiB of memory, %llu MiB are available",
		 (unsigned long long)(need >> 20), (unsigned long long)(left >> 20));
	return false;
}

/* ---- the command ---- */

struct arguments {
	bool quick, json;
	bool wanted[NROWS];
	unsigned nwanted;
};

static bool want(struct arguments *arguments, const char *name)
{
	for (size_t i = 0; i < NROWS; i++) {
		if (strcmp(rows[i].name, name) == 0) {
			arguments->wanted[i] = true;
			arguments->nwanted++;
			return true;
		}
	}
	return false;
}

static void refuse_name(const struct argp_state *state, const char *name)
{
	char known[512] = "";
	size_t used = 0;

	for (size_t i = 0; i < NROWS && used < sizeof(known); i++)
		used += (size_t)snprintf(known + used, sizeof(known) - used, " %s", rows[i].name);
	argp_error(state, "no row is called `%s`; there are:%s", name, known);
}

enum { OPTION_QUICK = 1, OPTION_JSON };

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case OPTION_QUICK:
		arguments->quick = true;
		return 0;
	case OPTION_JSON:
		if (!bench_report_has_json)
			argp_error(state, "--json: this ucow was built without jansson");
		arguments->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (!want(arguments, value))
			refuse_name(state, value);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option own_options[] = {
	{"quick", OPTION_QUICK, NULL, 0, "every row in a few seconds, the largest ones left out", 1},
	{"json", OPTION_JSON, NULL, 0, "print one JSON object and nothing else", 1},
	{NULL, 0, NULL, 0, "Rows:", 2},
};
#define NOPTIONS (sizeof(own_options) / sizeof(own_options[0]))

/* The command line; --help shows the rows after the options. Returns: 0; any usage error ends the program. */
static int parse(struct arguments *arguments, int argc, char **argv)
{
	struct argp_option all[NOPTIONS + NROWS + 1] = {0};
	const struct argp argp = {
		.options = all,
		.parser = parse_option,
		.args_doc = "[NAME...]",
		.doc = "Measure ucow beside the kernel of this machine: the same work, in turn, on one cpu.",
	};

	memcpy(all, own_options, sizeof(own_options));
	for (size_t i = 0; i < NROWS; i++)
		all[NOPTIONS + i] = (struct argp_option){rows[i].name, 0, NULL, OPTION_DOC, rows[i].what, 2};
	return argp_parse(&argp, argc, argv, 0, NULL, arguments);
}

/* Measure what was asked for. Returns: how many rows failed. */
static unsigned measure_rows(const struct arguments *arguments, struct bench_result *results, size_t *nresults)
{
	unsigned failed = 0;

	for (size_t i = 0; i < NROWS; i++) {
		struct bench_result *result = &results[*nresults];

		if (arguments->nwanted > 0 && !arguments->wanted[i])
			continue;
		(*nresults)++;
		result->row = &rows[i];
		progress(result->row, 0);
		if (arguments->quick && rows[i].large)
			snprintf(result->skipped, sizeof(result->skipped), "left out by --quick");
		else if (fits(result))
			result->failed = measure(result, arguments->quick ? &quick_effort : &full_effort) != 0;
		failed += result->failed;
	}
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K");
	return failed;
}

static int report(const struct arguments *arguments, const struct bench_result *results, size_t nresults)
{
	struct bench_host host;
	int err;

	bench_host_describe(&host);
	if (!arguments->json) {
		bench_report_text(stdout, &host, results, nresults);
		return 0;
	}
	err = bench_report_json(stdout, &host, results, nresults);
	if (err)
		fprintf(stderr, "ucow bench: --json: %s\n", strerror(-err));
	return err;
}

int cmd_bench(int argc, char **argv)
{
	struct arguments arguments = {0};
	struct bench_result *results;
	size_t nresults = 0;
	unsigned failed;
	int err;

	if (parse(&arguments, argc, argv))
		return CMD_USAGE;
	results = calloc(NROWS, sizeof(*results));
	if (!results) {
		fprintf(stderr, "ucow bench: %s\n", strerror(ENOMEM));
		return CMD_UNEXPECTED;
	}
	bench_stay_on_one_cpu();
	failed = measure_rows(&arguments, results, &nresults);
	err = report(&arguments, results, nresults);
	free(results);
	return failed || err ? CMD_UNEXPECTED : CMD_OK;
}
