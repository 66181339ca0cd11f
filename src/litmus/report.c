/* SPDX-License-Identifier: MIT */
/*
 * Results for people, a line each, and what all formats share. The matrix is in report_matrix.c.
 */
#include "report.h"

#include <stdlib.h>
#include <string.h>

const struct report_policy report_policies[UCOW_POLICY_COUNT] = {
	{UCOW_POLICY_MAPCOUNT, "Linux to 5.7", "a page that nobody else maps is reused, whoever holds it", true},
	{UCOW_POLICY_FORCE_COW, "Linux 5.8", "the same, and every get and pin is a write fault", false},
	{UCOW_POLICY_REFCOUNT, "Linux 5.9-rc", "a page that anybody else holds is copied", false},
	{UCOW_POLICY_REFCOUNT_PIN, "Linux 5.9 to 5.18", "the same, and fork copies pinned pages for the child", false},
	{UCOW_POLICY_PIN_BREAKS_COW, "proposal", "refcount, and every pin breaks copy-on-write first", true},
	{UCOW_POLICY_REUSE_PINNED, "proposal", "refcount, but pinned pages are judged by mapcount", false},
	{UCOW_POLICY_DONTCOPY_PINNED, "proposal", "refcount, and fork leaves pinned pages out of the child", false},
	{UCOW_POLICY_EXCLUSIVE, "Linux since 5.19", "only exclusive pages are pinned, and they are always reused",
	 true},
};

const struct report_policy *report_policy(enum ucow_policy policy)
{
	const struct report_policy *entry = report_policies;

	while (entry->policy != policy)
		entry++;
	return entry;
}

/* ---- shared ---- */

static void add_cell(struct report_totals *totals, const struct report_cell *cell)
{
	switch (cell->result.verdict) {
	case VERDICT_PASS:
		totals->pass++;
		break;
	case VERDICT_BREAK:
		totals->broken++;
		break;
	case VERDICT_SKIP:
		totals->skip++;
		break;
	case VERDICT_ERROR:
		totals->error++;
		break;
	}
	totals->unexpected += !cell->expected;
}

struct report_totals report_column_totals(const struct report *report, size_t column)
{
	struct report_totals totals = {0};

	for (size_t i = 0; i < report->ntests; i++)
		add_cell(&totals, &report->tests[i].cells[column]);
	return totals;
}

struct report_totals report_totals(const struct report *report)
{
	struct report_totals totals = {0};

	for (size_t i = 0; i < report->ntests; i++)
		for (size_t j = 0; j < report->ncolumns; j++)
			add_cell(&totals, &report->tests[i].cells[j]);
	return totals;
}

const char *report_verdict_name(enum verdict verdict)
{
	static const char *const names[] = {
		[VERDICT_PASS] = "pass",
		[VERDICT_BREAK] = "break",
		[VERDICT_SKIP] = "skip",
		[VERDICT_ERROR] = "error",
	};

	return names[verdict];
}

static bool has_several_modes(const struct report *report)
{
	const struct report_column *first = NULL;

	for (size_t i = 0; i < report->ncolumns; i++) {
		if (report->columns[i].on_kernel)
			continue;
		if (first && first->fork != report->columns[i].fork)
			return true;
		first = &report->columns[i];
	}
	return false;
}

void report_column_name(const struct report *report, size_t column, char name[40])
{
	const struct report_column *c = &report->columns[column];

	if (c->on_kernel)
		snprintf(name, 40, "kernel");
	else if (has_several_modes(report))
		snprintf(name, 40, "%s/%s", ucow_policy_name(c->policy), ucow_fork_mode_name(c->fork));
	else
		snprintf(name, 40, "%s", ucow_policy_name(c->policy));
}

void report_paint(const struct report *report, const char *sgr)
{
	if (report->colour)
		fprintf(report->out, "\033[%sm", sgr);
}

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

/* The reasons why checks were left out, each once. */
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
		if (j == i)
			fprintf(report->out, "%s %s", i ? ";" : ":", result->skipped[i].reason);
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

/* ---- what was left out ---- */

struct reason {
	char text[200]; /* without the line, which differs from test to test */
	bool of_checks; /* checks were left out, not the test */
	size_t tests;
	const struct report_test *last;
};

/* Reasons in the order in which they first came up. */
struct reasons {
	struct reason *list;
	size_t n;
};

/* Copy @reason without the words `line N,` or `line N:`. */
static void drop_line(char text[200], const char *reason)
{
	const char *line = strstr(reason, "line ");
	size_t digits = line ? strspn(line + 5, "0123456789") : 0;
	const char *rest = line ? line + 5 + digits : "";
	bool found = digits && (!strncmp(rest, ", ", 2) || !strncmp(rest, ": ", 2));

	snprintf(text, 200, "%.*s%s", found ? (int)(line - reason) : 0, reason, found ? rest + 2 : reason);
}

static void add_reason(struct reasons *reasons, const char *given, bool of_checks, const struct report_test *test)
{
	struct reason *reason = reasons->list;
	char text[200];

	drop_line(text, given);
	while (reason < reasons->list + reasons->n && (reason->of_checks != of_checks || strcmp(reason->text, text)))
		reason++;
	if (reason == reasons->list + reasons->n) {
		reason = realloc(reasons->list, (reasons->n + 1) * sizeof(*reason));
		if (!reason)
			return; /* the list is a service; the counts of the summary are whole */
		reasons->list = reason;
		reason += reasons->n++;
		*reason = (struct reason){.of_checks = of_checks};
		strcpy(reason->text, text);
	}
	if (reason->last != test)
		reason->tests++;
	reason->last = test;
}

static void add_reasons_of(struct reasons *reasons, const struct report_test *test, const struct run_result *result)
{
	unsigned n = result->skipped_checks < MAX_SKIPPED_CHECKS ? result->skipped_checks : MAX_SKIPPED_CHECKS;

	if (result->verdict == VERDICT_SKIP)
		add_reason(reasons, result->reason, false, test);
	for (unsigned i = 0; i < n && result->verdict != VERDICT_SKIP; i++)
		add_reason(reasons, result->skipped[i].reason, true, test);
}

static int by_kind_and_number(const void *a, const void *b)
{
	const struct reason *x = a, *y = b;

	if (x->of_checks != y->of_checks)
		return x->of_checks - y->of_checks;
	if (x->tests != y->tests)
		return x->tests < y->tests ? 1 : -1;
	return strcmp(x->text, y->text);
}

void report_skips(const struct report *report)
{
	struct reasons reasons = {0};
	int kind = -1;

	for (size_t i = 0; i < report->ntests; i++)
		for (size_t j = 0; j < report->ncolumns; j++)
			add_reasons_of(&reasons, &report->tests[i], &report->tests[i].cells[j].result);
	if (reasons.n)
		qsort(reasons.list, reasons.n, sizeof(*reasons.list), by_kind_and_number);
	for (size_t i = 0; i < reasons.n; i++) {
		const struct reason *reason = &reasons.list[i];

		if (reason->of_checks != kind)
			fprintf(report->out, "\n%s\n",
				reason->of_checks ? "Checks left out in tests that ran" : "Tests left out");
		kind = reason->of_checks;
		fprintf(report->out, "  %4zu test%s  %s\n", reason->tests, reason->tests == 1 ? " " : "s",
			reason->text);
	}
	free(reasons.list);
}

void report_summary(const struct report *report)
{
	struct report_totals totals = report_totals(report);

	fprintf(report->out, "\n%zu test%s, %zu run%s: %zu pass, %zu break, %zu skip, %zu error; ", report->ntests,
		report->ntests == 1 ? "" : "s", report->ntests * report->ncolumns,
		report->ntests * report->ncolumns == 1 ? "" : "s", totals.pass, totals.broken, totals.skip,
		totals.error);
	report_paint(report, totals.unexpected ? "1;31" : "1;32");
	if (totals.unexpected)
		fprintf(report->out, "%zu not as the files say", totals.unexpected);
	else
		fprintf(report->out, "all as the files say");
	report_paint(report, "");
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
	if (!report->quiet)
		report_summary(report);
	return 0;
}

const struct report_format report_lines = {begin_lines, test_lines, end_lines};
