/* SPDX-License-Identifier: MIT */
/*
 * The verb `bench`: the command line, and the loop that takes samples of ucow and of the kernel in turn. The rows are
 * in bench_rows.c.
 */
#include "bench.h"
#include "cmd.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long and how often a row is measured. */
struct effort {
	unsigned min_samples, max_samples;
	uint64_t budget_ns; /* for all samples of a row together */
};

static const struct effort quick_effort = {.min_samples = 3, .max_samples = 15, .budget_ns = 600000000};
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
	if (result->ucow.n == 0 || result->kernel.n == 0 || result->ucow.median <= 0 || result->kernel.median <= 0)
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
	struct bench_worker worker = {0}, *kernel = row->kernel ? &worker : NULL;
	char why[BENCH_WHY] = "";
	void *ucow;
	int err = kernel ? bench_worker_start(kernel, row, why) : 0;

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
	uint64_t nbytes = row->npages * row->copies * UCOW_PAGE_SIZE * (row->kernel ? 2 : 1);

	return nbytes + nbytes / 8;
}

/* Whether the row can be measured here; if not, @result says why. */
static bool can_measure(struct bench_result *result, bool quick)
{
	uint64_t need = memory_needed(result->row), left = bench_memory_available();

	if (quick && result->row->large) {
		snprintf(result->skipped, sizeof(result->skipped), "left out by --quick");
		return false;
	}
	if (need <= left)
		return true;
	snprintf(result->skipped, sizeof(result->skipped), "needs %llu MiB of memory, %llu MiB are available",
		 (unsigned long long)(need >> 20), (unsigned long long)(left >> 20));
	return false;
}

/* ---- the command ---- */

struct arguments {
	bool quick, json;
	bool wanted[BENCH_MAX_ROWS];
	unsigned nwanted;
};

static bool want(struct arguments *arguments, const char *name)
{
	for (size_t i = 0; i < bench_nrows; i++) {
		if (strcmp(bench_rows[i].name, name) == 0) {
			arguments->wanted[i] = true;
			arguments->nwanted++;
			return true;
		}
	}
	return false;
}

static void refuse_name(const struct argp_state *state, const char *name)
{
	char known[1024] = "";
	size_t used = 0;

	for (size_t i = 0; i < bench_nrows && used < sizeof(known); i++)
		used += (size_t)snprintf(known + used, sizeof(known) - used, " %s", bench_rows[i].name);
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
	{"quick", OPTION_QUICK, NULL, 0, "the whole in less than a minute, the largest rows left out", 1},
	{"json", OPTION_JSON, NULL, 0, "print one JSON object and nothing else", 1},
	{NULL, 0, NULL, 0, "Rows:", 2},
};
#define NOPTIONS (sizeof(own_options) / sizeof(own_options[0]))

/* The command line; --help shows the rows after the options. Returns: 0; any usage error ends the program. */
static int parse(struct arguments *arguments, int argc, char **argv)
{
	struct argp_option all[NOPTIONS + BENCH_MAX_ROWS + 1] = {0};
	const struct argp argp = {
		.options = all,
		.parser = parse_option,
		.args_doc = "[NAME...]",
		.doc = "Measure ucow beside the kernel of this machine: the same work, in turn, on one cpu.",
	};

	memcpy(all, own_options, sizeof(own_options));
	for (size_t i = 0; i < bench_nrows; i++)
		all[NOPTIONS + i] = (struct argp_option){bench_rows[i].name, 0, NULL, OPTION_DOC,
							 bench_rows[i].what, 2};
	return argp_parse(&argp, argc, argv, 0, NULL, arguments);
}

/* Measure what was asked for. Returns: how many rows failed. */
static unsigned measure_rows(const struct arguments *arguments, struct bench_result *results, size_t *nresults)
{
	unsigned failed = 0;

	for (size_t i = 0; i < bench_nrows; i++) {
		struct bench_result *result = &results[*nresults];

		if (arguments->nwanted > 0 && !arguments->wanted[i])
			continue;
		(*nresults)++;
		result->row = &bench_rows[i];
		progress(result->row, 0);
		if (can_measure(result, arguments->quick))
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
	results = calloc(bench_nrows, sizeof(*results));
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
