/* SPDX-License-Identifier: MIT */
/*
 * Results as TAP, version 13: a test point for each test in each column; `ok` means that it came out as the file says.
 */
#include "report.h"

#include <string.h>

static void begin_tap(const struct report *report)
{
	fprintf(report->out, "TAP version 13\n1..%zu\n", report->ntests * report->ncolumns);
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

static void print_why(const struct report *report, const struct report_test *test, const struct run_result *result)
{
	if (result->verdict == VERDICT_PASS)
		fprintf(report->out, "# passed, but `breaks:` says that it breaks\n");
	else if (result->line)
		fprintf(report->out, "# %s:%u: %s\n", test->litmus->path, result->line, result->check);
	if (result->verdict == VERDICT_BREAK)
		fprintf(report->out, "# saw %s\n", result->saw);
	else if (result->verdict == VERDICT_ERROR)
		fprintf(report->out, "# %s\n", result->reason);
}

static void print_point(const struct report *report, const struct report_test *test, size_t column, size_t number)
{
	const struct report_cell *cell = &test->cells[column];
	const struct run_result *result = &cell->result;
	char name[40];

	report_column_name(report, column, name);
	fprintf(report->out, "%sok %zu - %s: ", cell->expected ? "" : "not ", number, name);
	print_description(report, test->litmus->path);
	if (result->verdict == VERDICT_SKIP)
		fprintf(report->out, " # SKIP %s", result->reason);
	else if (result->verdict == VERDICT_BREAK && cell->expected)
		fprintf(report->out, ", breaks as it should");
	fputc('\n', report->out);
	for (unsigned i = 0; i < result->skipped_checks && i < MAX_SKIPPED_CHECKS; i++)
		fprintf(report->out, "# line %u: check skipped: %s\n", result->skipped[i].line,
			result->skipped[i].reason);
	if (!cell->expected)
		print_why(report, test, result);
}

static void test_tap(const struct report *report, const struct report_test *test)
{
	size_t number = (size_t)(test - report->tests) * report->ncolumns;

	for (size_t i = 0; i < report->ncolumns; i++)
		print_point(report, test, i, number + i + 1);
	fflush(report->out);
}

const struct report_format report_tap = {begin_tap, test_tap, NULL};
