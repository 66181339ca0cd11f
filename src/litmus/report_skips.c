/* SPDX-License-Identifier: MIT */
/*
 * What was left out, for people: which tests and checks did not run, counted by reason.
 */
#include "report.h"

#include <stdlib.h>
#include <string.h>

struct reason {
	char text[200]; /* without the line, which differs from test to test */
	bool of_checks; /* checks were left out, not the test */
	size_t tests, checks;
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
	struct reason *reason;
	char text[200];
	size_t i = 0;

	drop_line(text, given);
	while (i < reasons->n && (reasons->list[i].of_checks != of_checks || strcmp(reasons->list[i].text, text)))
		i++;
	if (i == reasons->n) {
		reason = realloc(reasons->list, (reasons->n + 1) * sizeof(*reason));
		if (!reason)
			return; /* the list is a service; the counts of the summary are whole */
		reasons->list = reason;
		reasons->list[reasons->n++] = (struct reason){.of_checks = of_checks};
		strcpy(reasons->list[i].text, text);
	}
	reason = &reasons->list[i];
	reason->checks += of_checks;
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

/* ---- printing ---- */

#define WIDTH  120
#define INDENT 14

static bool left_out_for(const struct report *report, const struct report_test *test, const struct reason *reason)
{
	char text[200];

	for (size_t i = 0; i < report->ncolumns; i++) {
		const struct run_result *result = &test->cells[i].result;

		drop_line(text, result->reason);
		if (result->verdict == VERDICT_SKIP && !strcmp(text, reason->text))
			return true;
	}
	return false;
}

/* The tests that were left out for @reason, where no other line names them. */
static void print_tests(const struct report *report, const struct reason *reason)
{
	size_t at = WIDTH;

	report_paint(report, "2");
	for (size_t i = 0; i < report->ndone; i++) {
		const char *name = report_test_name(report, &report->tests[i]);

		if (!left_out_for(report, &report->tests[i], reason))
			continue;
		if (at + 1 + strlen(name) > WIDTH)
			at = (size_t)fprintf(report->out, "\n%*s%s", INDENT, "", name) - 1;
		else
			at += (size_t)fprintf(report->out, " %s", name);
	}
	report_paint(report, "");
}

static void print_reason(const struct report *report, const struct reason *reason, bool names)
{
	fprintf(report->out, "  %4zu test%s  %s", reason->tests, reason->tests == 1 ? " " : "s", reason->text);
	if (reason->of_checks)
		fprintf(report->out, " (%zu check%s)", reason->checks, reason->checks == 1 ? "" : "s");
	else if (names)
		print_tests(report, reason);
	fputc('\n', report->out);
}

void report_skips(const struct report *report, bool names)
{
	struct reasons reasons = {0};
	int kind = -1;

	for (size_t i = 0; i < report->ndone; i++)
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
		print_reason(report, reason, names);
	}
	free(reasons.list);
}
