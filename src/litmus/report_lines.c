/* SPDX-License-Identifier: MIT */
/*
 * Results for people, a line each, and the last line, which the matrix has too.
 */
#include "report.h"

#include <string.h>

/* ---- one result ---- */

static const char *verdict_colour(const struct report_cell *cell)
{
	if (!cell->expected)
		return "1;31";
	switch (cell->result.verdict) {
	case VERDICT_PASS:
		return "32";
	case VERDICT_BREAK:
		return "33";
	case VERDICT_SKIP:
	case VERDICT_ERROR:
		break;
	}
	return "2";
}

static const char *promise(const struct report_cell *cell)
{
	switch (cell->result.verdict) {
	case VERDICT_PASS:
		return " (`breaks:` says that it breaks)";
	case VERDICT_BREAK:
		return cell->expected ? " (as `breaks:` says)" : " (`breaks:` does not say so)";
	case VERDICT_SKIP:
	case VERDICT_ERROR:
		break;
	}
	return "";
}

/* The lines of all checks that were left out for the reason of @first, the first of them. */
static void print_lines_of_reason(const struct report *report, const struct run_result *result, unsigned first,
				  unsigned known)
{
	char text[MAX_SKIPPED_CHECKS * 12] = "";
	size_t used = 0, n = 0;

	for (unsigned i = first; i < known; i++)
		if (!strcmp(result->skipped[i].reason, result->skipped[first].reason))
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u", n++ ? ", " : "",
						 result->skipped[i].line);
	fprintf(report->out, "line%s %s: %s", n > 1 ? "s" : "", text, result->skipped[first].reason);
}

/* The reasons why checks were left out, each once, with the lines. */
static void print_skipped_checks(const struct report *report, const struct run_result *result)
{
	unsigned known = result->skipped_checks < MAX_SKIPPED_CHECKS ? result->skipped_checks : MAX_SKIPPED_CHECKS;

	if (!result->skipped_checks)
		return;
	fprintf(report->out, " [%u check%s skipped", result->skipped_checks, result->skipped_checks > 1 ? "s" : "");
	for (unsigned i = 0; i < known; i++) {
		unsigned j = 0;

		while (strcmp(result->skipped[j].reason, result->skipped[i].reason))
			j++;
		if (j < i)
			continue;
		fputs(i ? "; " : ": ", report->out);
		print_lines_of_reason(report, result, i, known);
	}
	fprintf(report->out, "]");
}

static void print_what_happened(const struct report *report, const struct litmus *litmus,
				const struct report_cell *cell)
{
	const struct run_result *result = &cell->result;

	if (result->line)
		fprintf(report->out, ":%u: %s", result->line, result->check);
	switch (result->verdict) {
	case VERDICT_PASS:
		break;
	case VERDICT_BREAK:
		fprintf(report->out, ": saw %s", result->saw);
		break;
	case VERDICT_SKIP:
	case VERDICT_ERROR:
		fprintf(report->out, ": %s", result->reason);
		break;
	}
	if (result->verdict == VERDICT_BREAK || !cell->expected)
		fputs(promise(cell), report->out);
	if (litmus->nblocks && (result->verdict == VERDICT_BREAK || result->verdict == VERDICT_ERROR))
		fprintf(report->out, " (seed %ju)", (uintmax_t)cell->seed);
}

void report_result_line(const struct report *report, const struct report_test *test, size_t column)
{
	const struct report_cell *cell = &test->cells[column];
	char name[40];
	size_t width = 0;

	for (size_t i = 0; i < report->ncolumns; i++) {
		report_column_name(report, i, name);
		if (strlen(name) > width)
			width = strlen(name);
	}
	report_column_name(report, column, name);
	report_paint(report, verdict_colour(cell));
	fprintf(report->out, "%c %-5s", cell->expected ? ' ' : '!', report_verdict_name(cell->result.verdict));
	report_paint(report, "");
	fprintf(report->out, "  %-*s  %s", (int)width, name, test->litmus->path);
	print_what_happened(report, test->litmus, cell);
	print_skipped_checks(report, &cell->result);
	fputc('\n', report->out);
}

/* ---- the end ---- */

void report_summary(const struct report *report)
{
	struct report_totals totals = report_totals(report);

	size_t nruns = report->ndone * report->ncolumns;

	fputc('\n', report->out);
	if (report->ndone < report->ntests)
		fprintf(report->out, "%zu of ", report->ndone);
	fprintf(report->out, "%zu test%s, %zu run%s: %zu pass, %zu break, %zu skip, %zu error; ", report->ntests,
		report->ntests == 1 ? "" : "s", nruns, nruns == 1 ? "" : "s", totals.pass, totals.broken, totals.skip,
		totals.error);
	report_paint(report, totals.unexpected ? "1;31" : "1;32");
	if (totals.unexpected)
		fprintf(report->out, "%zu not as the files say", totals.unexpected);
	else
		fprintf(report->out, "all as the files say");
	report_paint(report, "");
	if (report->interrupted_by)
		fprintf(report->out, "; interrupted by SIG%s", sigabbrev_np(report->interrupted_by));
	fputc('\n', report->out);
}

/* ---- lines ---- */

static void begin_lines(const struct report *report)
{
	const char *separator = "";

	if (report->quiet)
		return;
	for (size_t i = 0; i < report->ncolumns; i++) {
		const struct report_column *column = &report->columns[i];

		if (column->on_kernel)
			fprintf(report->out, "%skernel: Linux %s", separator, report->kernel);
		else
			fprintf(report->out, "%sengine: policy %s, fork mode %s", separator,
				ucow_policy_name(column->policy), ucow_fork_mode_name(column->fork));
		separator = "; ";
	}
	fprintf(report->out, "\n\n");
	report_host_lines(report);
}

static void test_lines(const struct report *report, const struct report_test *test)
{
	for (size_t i = 0; i < report->ncolumns; i++)
		if (!report->quiet || !test->cells[i].expected)
			report_result_line(report, test, i);
	fflush(report->out);
}

static int end_lines(const struct report *report)
{
	if (!report->quiet) {
		report_skips(report, false);
		report_summary(report);
	}
	return 0;
}

const struct report_format report_lines = {begin_lines, test_lines, end_lines};
