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

/* One sample of the kernel in a process that comes and goes with it. */
static int sample_kernel_apart(struct bench_result *result, const struct bench_row *row, char why[BENCH_WHY])
{
	struct bench_worker worker;
	double value;
	int err = bench_worker_start(&worker, row, why);

	if (err)
		return err;
	err = bench_worker_sample(&worker, &value, why);
	bench_worker_stop(&worker);
	if (!err)
		result->kernel.samples[result->kernel.n++] = value;
	return err;
}

static int sample_ucow_apart(struct bench_result *result, const struct bench_row *row, char why[BENCH_WHY])
{
	double value;
	void *ucow;
	int err = row->ucow->open(row, &ucow, why);

	if (err)
		return err;
	err = row->ucow->sample(ucow, &value, why);
	row->ucow->close(ucow);
	if (!err)
		result->ucow.samples[result->ucow.n++] = value;
	return err;
}

/* One sample of a side. Returns: whether to go on with it; *failed if what is missing should have been there. */
static bool sample_apart(struct bench_result *result, const struct bench_row *row, bool kernel, bool *failed)
{
	char why[BENCH_WHY] = "";
	int err = kernel ? sample_kernel_apart(result, row, why) : sample_ucow_apart(result, row, why);

	if (!err)
		return true;
	note(result, kernel ? "kernel" : "ucow", err, why);
	*failed |= !is_lack(err);
	return false;
}

/* Sides that would be in each other's way if both were there: everything is done anew for each sample. */
static int measure_apart(struct bench_result *result, const struct bench_row *row)
{
	bool kernel = row->kernel, ucow = true, failed = false;

	for (unsigned n = 0; !failed && (kernel || ucow) && n < row->apart; n++) {
		kernel = kernel && sample_apart(result, row, true, &failed);
		ucow = ucow && sample_apart(result, row, false, &failed);
		progress(row, n + 1);
	}
	finish(result);
	return failed ? -EPROTO : 0;
}

/*
 * Measure one row into @result. Without the kernel's side the row still tells what ucow does.
 * Returns: 0, also when something was skipped; -errno if a measurement failed.
 */
static int measure(struct bench_result *result, const struct bench_row *row, const struct effort *effort)
{
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

/* Both sides hold all copies at once, unless they come one after the other; an eighth on top for tables and
 * descriptors. */
static uint64_t memory_needed(const struct bench_row *row)
{
	uint64_t npages = row->ram_pages ? row->ram_pages : row->npages * row->copies;
	uint64_t nbytes = npages * UCOW_PAGE_SIZE * (row->kernel && !row->apart ? 2 : 1);

	return nbytes + nbytes / 8;
}

/* Whether the row can be measured here; if not, @result says why. */
static bool can_measure(struct bench_result *result, const struct bench_row *row, bool quick)
{
	uint64_t need = memory_needed(row), left = bench_memory_available();
	uint64_t room = row->swap_pages * UCOW_PAGE_SIZE, free_room = room ? bench_swap_available() : 0;

	if (quick && row->large) {
		snprintf(result->skipped, sizeof(result->skipped), "left out by --quick");
		return false;
	}
	if (room + room / 8 > free_room) {
		snprintf(result->skipped, sizeof(result->skipped), "needs %llu MiB of disk, %llu MiB are free",
			 (unsigned long long)(room >> 20), (unsigned long long)(free_room >> 20));
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

/* The row as it is measured: smaller in a hurry. */
static struct bench_row row_scaled(const struct bench_row *row, bool quick)
{
	struct bench_row scaled = *row;

	if (!quick || !row->quick_part)
		return scaled;
	scaled.npages /= row->quick_part;
	scaled.ram_pages /= row->quick_part;
	scaled.swap_pages /= row->quick_part;
	scaled.seconds = (row->seconds + row->quick_part - 1) / row->quick_part;
	return scaled;
}

/* Measure one row with the effort asked for, or tell why not. */
static void measure_row(struct bench_result *result, const struct bench_row *row, bool quick)
{
	struct bench_row scaled = row_scaled(row, quick);

	result->row = row;
	progress(row, 0);
	if (!can_measure(result, &scaled, quick))
		return;
	if (row->apart)
		result->failed = measure_apart(result, &scaled) != 0;
	else
		result->failed = measure(result, &scaled, quick ? &quick_effort : &full_effort) != 0;
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
		measure_row(result, &bench_rows[i], arguments->quick);
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
