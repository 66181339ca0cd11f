/* SPDX-License-Identifier: MIT */
/*
 * What came out of running tests, and the ways to show it: lines or a matrix for people, TAP and JSON for programs.
 * Tests run in columns: the engine under one policy in one fork mode, or the live kernel.
 */
#ifndef LITMUS_REPORT_H
#define LITMUS_REPORT_H

#include "kernel_host.h"
#include "run.h"

struct report_column {
	bool on_kernel;
	enum ucow_policy policy; /* engine only, and the next one */
	enum ucow_fork_mode fork;
};

/* One test in one column. */
struct report_cell {
	struct run_result result;
	bool expected;
	uint64_t seed; /* of the run that decided */
};

struct report_test {
	const struct litmus *litmus;
	struct report_cell *cells; /* one a column */
};

struct report {
	FILE *out;
	bool colour, unicode;
	bool quiet; /* for people: unexpected results only */
	const struct report_column *columns;
	size_t ncolumns;
	struct report_test *tests;
	size_t ntests;
	size_t ndone;                   /* of them, those that have been run; fewer after the end: interrupted */
	int interrupted_by;             /* a signal, or 0 */
	const struct kernel_host *host; /* NULL: the kernel takes no part */
	char kernel[80];                /* release of the live kernel */
};

/* How results are shown: begin before the first test, test after each, end after the last. Any may be NULL. */
struct report_format {
	void (*begin)(const struct report *report);
	void (*test)(const struct report *report, const struct report_test *test);
	int (*end)(const struct report *report); /* 0; -ENOMEM; -EIO */
};
extern const struct report_format report_lines, report_matrix, report_tap, report_json;

/* report_has_json - whether report_json can be used in this build. */
bool report_has_json(void);

/* ---- what people should know of a policy ---- */

struct report_policy {
	enum ucow_policy policy;
	const char *era;   /* "Linux 5.8", "proposal" */
	const char *rule;  /* one sentence */
	bool begins_group; /* history, proposals, today */
};
/* All of them, in the order of history. */
extern const struct report_policy report_policies[UCOW_POLICY_COUNT];
/* report_policy - the entry of @policy. */
const struct report_policy *report_policy(enum ucow_policy policy);

/* ---- shared by the formats ---- */

struct report_totals {
	size_t pass, broken, skip, error, unexpected;
};
/* report_totals - over all columns, or over one. */
struct report_totals report_totals(const struct report *report);
struct report_totals report_column_totals(const struct report *report, size_t column);

/* report_verdict_name - "pass", "break", "skip", "error". */
const char *report_verdict_name(enum verdict verdict);
/* report_column_name - "exclusive", "kernel"; with the fork mode where the columns do not all have the same. */
void report_column_name(const struct report *report, size_t column, char name[40]);
/* report_paint - start (@sgr such as "1;31") or end ("") colours; nothing where there are none. */
void report_paint(const struct report *report, const char *sgr);
/* report_result_line - one line for people: mark, verdict, column, file, what happened. */
void report_result_line(const struct report *report, const struct report_test *test, size_t column);
/* report_test_name - the name of a test; its path, if several here have that name. */
const char *report_test_name(const struct report *report, const struct report_test *test);
/* report_host_lines - what the kernel runs on, a line or more a group of facts; nothing if it takes no part. */
void report_host_lines(const struct report *report);
/* report_host_value - a fact as text. */
void report_host_value(const struct host_fact *fact, char text[400]);
/* report_skips - which checks and tests were left out, and why, counted by reason; @names: with the tests' names. */
void report_skips(const struct report *report, bool names);
/* report_summary - the last line. */
void report_summary(const struct report *report);

#endif
