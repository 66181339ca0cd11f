/* SPDX-License-Identifier: MIT */
/*
 * Results as TAP, version 13: a test point for each test in each column; `ok` means that it came out as the file says.
 * Descriptions depend on neither verdict nor folder, so that runs on two kernels can be compared; all else is in
 * comments, which the readers of kernel selftests want there too.
 */
#include "report.h"

#include <string.h>

static void begin_tap(const struct report *report)
{
	char value[400];

	fprintf(report->out, "TAP version 13\n1..%zu\n", report->ntests * report->ncolumns);
	for (size_t i = 0; report->host && i < report->host->n; i++) {
		report_host_value(&report->host->facts[i], value);
		fprintf(report->out, "# %s: %s\n", report->host->facts[i].key, value);
	}
	fflush(report->out);
}

/* A `#` would begin a directive. */
static void print_description(const struct report *report, const char *text)
{
	for (; *text; text++) {
		if (*text == '#' || *text == '\\')
			fputc('\\', report->out);
		fputc(*text, report->out);
	}
}

/* What happened where, if anything did. */
static void print_why(const struct report *report, const struct report_test *test, const struct report_cell *cell)
{
	const struct run_result *result = &cell->result;

	if (result->verdict == VERDICT_PASS && !cell->expected)
		fprintf(report->out, "# passed, but `breaks:` says that it breaks\n");
	if (result->verdict == VERDICT_BREAK && cell->expected)
		fprintf(report->out, "# breaks, as `breaks:` says\n");
	if (result->line)
		fprintf(report->out, "# %s:%u: %s\n", test->litmus->path, result->line, result->check);
	if (result->verdict == VERDICT_BREAK)
		fprintf(report->out, "# saw %s\n", result->saw);
	else if (result->verdict == VERDICT_ERROR)
		fprintf(report->out, "# %s\n", result->reason);
	if (test->litmus->nblocks && (result->verdict == VERDICT_BREAK || result->verdict == VERDICT_ERROR))
		fprintf(report->out, "# seed %ju\n", (uintmax_t)cell->seed);
}

static void print_point(const struct report *report, const struct report_test *test, size_t column, size_t number)
{
	const struct report_cell *cell = &test->cells[column];
	const struct run_result *result = &cell->result;
	char name[40];

	report_column_name(report, column, name);
	fprintf(report->out, "%sok %zu - %s: ", cell->expected ? "" : "not ", number, name);
	print_description(report, report_test_name(report, test));
	if (result->verdict == VERDICT_SKIP)
		fprintf(report->out, " # SKIP %s", result->reason);
	fputc('\n', report->out);
	for (unsigned i = 0; i < result->skipped_checks && i < MAX_SKIPPED_CHECKS; i++)
		fprintf(report->out, "# line %u: check skipped: %s\n", result->skipped[i].line,
			result->skipped[i].reason);
	if (result->verdict != VERDICT_SKIP)
		print_why(report, test, cell);
}

static void test_tap(const struct report *report, const struct report_test *test)
{
	size_t number = (size_t)(test - report->tests) * report->ncolumns;

	for (size_t i = 0; i < report->ncolumns; i++)
		print_point(report, test, i, number + i + 1);
	fflush(report->out);
}

static int end_tap(const struct report *report)
{
	if (report->interrupted_by)
		fprintf(report->out, "Bail out! interrupted by SIG%s\n", sigabbrev_np(report->interrupted_by));
	return 0;
}

const struct report_format report_tap = {begin_tap, test_tap, end_tap};
