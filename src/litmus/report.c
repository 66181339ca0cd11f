/* SPDX-License-Identifier: MIT */
/*
 * What all formats share: what policies are about, totals, names, colours.
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

	for (size_t i = 0; i < report->ndone; i++)
		add_cell(&totals, &report->tests[i].cells[column]);
	return totals;
}

struct report_totals report_totals(const struct report *report)
{
	struct report_totals totals = {0};

	for (size_t i = 0; i < report->ndone; i++)
		for (size_t j = 0; j < report->ncolumns; j++)
			add_cell(&totals, &report->tests[i].cells[j]);
	return totals;
}

const char *report_test_name(const struct report *report, const struct report_test *test)
{
	for (size_t i = 0; i < report->ntests; i++)
		if (&report->tests[i] != test && !strcmp(report->tests[i].litmus->test, test->litmus->test))
			return test->litmus->path;
	return test->litmus->test;
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
