/* SPDX-License-Identifier: MIT */
/*
 * The matrix: a row a test, a column a policy, and one for the live kernel. Column heads stand above each other like
 * stairs, so that their full names fit however narrow the columns are.
 */
#include "report.h"

#include <string.h>

#define WIDTH      120
#define CELL_WIDTH 3
#define NOTE_WIDTH 25
#define GAP        2 /* between history, proposals and today */

struct marks {
	const char *pass, *partial, *broken, *skip, *error, *stair;
};

static const struct marks *marks(const struct report *report)
{
	static const struct marks ascii = {".", "o", "x", "-", "E", "|"};
	static const struct marks unicode = {"·", "∘", "✗", "-", "E", "│"};

	return report->unicode ? &unicode : &ascii;
}

/* ---- geometry ---- */

static bool begins_group(const struct report *report, size_t column)
{
	const struct report_column *c = &report->columns[column];

	if (!column)
		return false;
	if (c->on_kernel)
		return c[-1].on_kernel || c[-1].policy != UCOW_POLICY_EXCLUSIVE;
	return c->policy != c[-1].policy && report_policy(c->policy)->begins_group;
}

/* Where @column stands, counted from the first one. */
static size_t column_start(const struct report *report, size_t column)
{
	size_t start = 0;

	for (size_t i = 1; i <= column; i++)
		start += CELL_WIDTH + (begins_group(report, i) ? GAP : 0);
	return start;
}

/* Where notes on columns stand, counted from the first column: behind the longest stair. */
static size_t note_start(const struct report *report)
{
	size_t start = 0;
	char name[40];

	for (size_t i = 0; i < report->ncolumns; i++) {
		report_column_name(report, i, name);
		if (column_start(report, i) + strlen(name) + 2 > start)
			start = column_start(report, i) + strlen(name) + 2;
	}
	return start;
}

static size_t characters(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

/* The width of the names: what the longest needs, or what is left. */
static size_t name_width(const struct report *report)
{
	size_t width = 20, most = WIDTH - 4 - note_start(report) - NOTE_WIDTH;

	for (size_t i = 0; i < report->ntests; i++)
		if (characters(report->tests[i].litmus->test) > width)
			width = characters(report->tests[i].litmus->test);
	return width < most ? width : most;
}

static void pad(const struct report *report, size_t n)
{
	fprintf(report->out, "%*s", (int)n, "");
}

/* ---- stairs ---- */

/* Bars for the columns before @column, its name, and in line with the other stairs @note. */
static void print_stair(const struct report *report, size_t column, const char *note)
{
	size_t at = 0;
	char name[40];

	report_column_name(report, column, name);
	pad(report, name_width(report) + 4);
	report_paint(report, "2");
	for (size_t i = 0; i < column; i++) {
		pad(report, column_start(report, i) - at);
		fputs(marks(report)->stair, report->out);
		at = column_start(report, i) + 1;
	}
	report_paint(report, "");
	pad(report, column_start(report, column) - at);
	report_paint(report, "1");
	fputs(name, report->out);
	report_paint(report, "");
	pad(report, note_start(report) - column_start(report, column) - strlen(name));
	fprintf(report->out, "%s\n", note);
}

static void begin_matrix(const struct report *report)
{
	char kernel[NOTE_WIDTH + 1];

	if (!report->quiet)
		report_host_lines(report);
	snprintf(kernel, sizeof(kernel), "Linux %.*s", NOTE_WIDTH - 6, report->kernel);
	for (size_t i = 0; !report->quiet && i < report->ncolumns; i++) {
		const struct report_column *c = &report->columns[i];

		print_stair(report, i, c->on_kernel ? kernel : report_policy(c->policy)->era);
	}
}

/* ---- rows ---- */

static void print_cell(const struct report *report, const struct report_cell *cell)
{
	const struct marks *mark = marks(report);
	const char *text = "", *colour = "";

	switch (cell->result.verdict) {
	case VERDICT_PASS:
		text = cell->result.skipped_checks ? mark->partial : mark->pass;
		colour = "32";
		break;
	case VERDICT_BREAK:
		text = mark->broken;
		colour = "1;33";
		break;
	case VERDICT_SKIP:
		text = mark->skip;
		colour = "2";
		break;
	case VERDICT_ERROR:
		text = mark->error;
		break;
	}
	report_paint(report, cell->expected ? colour : "1;37;41");
	fprintf(report->out, "%s%s", text, cell->expected ? "" : "!");
	report_paint(report, "");
}

/* The folder of @path as far as it goes, without the last slash. */
static int folder_length(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (int)(slash - path) : 0;
}

static bool same_folder(const char *a, const char *b)
{
	int length = folder_length(a);

	return length == folder_length(b) && !strncmp(a, b, (size_t)length);
}

static void print_folder(const struct report *report, const struct report_test *test)
{
	const char *path = test->litmus->path;

	if (test > report->tests && same_folder(test[-1].litmus->path, path))
		return;
	fputc('\n', report->out);
	report_paint(report, "1");
	fprintf(report->out, "%.*s", folder_length(path), path);
	report_paint(report, "");
	fprintf(report->out, "%s\n", folder_length(path) ? "/" : "./");
}

/* The name, cut to its width at a character. */
static void print_name(const struct report *report, const char *name)
{
	size_t width = name_width(report), shown = 0;

	for (; *name; name++) {
		shown += ((unsigned char)*name & 0xc0) != 0x80;
		if (shown > width)
			break;
		fputc(*name, report->out);
	}
	pad(report, width - (shown > width ? width : shown));
}

static void test_matrix(const struct report *report, const struct report_test *test)
{
	size_t at = 0;

	if (report->quiet)
		return;
	print_folder(report, test);
	pad(report, 2);
	print_name(report, test->litmus->test);
	pad(report, 2);
	for (size_t i = 0; i < report->ncolumns; i++) {
		pad(report, column_start(report, i) - at);
		print_cell(report, &test->cells[i]);
		at = column_start(report, i) + (test->cells[i].expected ? 1 : 2);
	}
	fputc('\n', report->out);
	fflush(report->out);
}

/* ---- below the matrix ---- */

static void print_legend(const struct report *report)
{
	const struct marks *mark = marks(report);

	report_paint(report, "2");
	fprintf(report->out,
		"\n  %s pass  %s pass, some checks left out  %s break, as the file says  %s not run  %s error  "
		"! not as the file says\n",
		mark->pass, mark->partial, mark->broken, mark->skip, mark->error);
	report_paint(report, "");
}

/* The stairs once more, downwards, for those who have scrolled here; with what each column came to. */
static void print_sums(const struct report *report)
{
	char note[60];

	fputc('\n', report->out);
	for (size_t i = report->ncolumns; i-- > 0;) {
		struct report_totals totals = report_column_totals(report, i);

		snprintf(note, sizeof(note), "breaks %zu of %zu", totals.broken,
			 totals.pass + totals.broken + totals.error);
		print_stair(report, i, note);
	}
}

static void print_rule(const struct report *report, const char *name, const char *rule)
{
	fprintf(report->out, "  %-16s", name);
	report_paint(report, "2");
	fprintf(report->out, "%s", rule);
	report_paint(report, "");
	fputc('\n', report->out);
}

static void print_rules(const struct report *report)
{
	fprintf(report->out, "\nThe rules\n");
	for (size_t i = 0; i < report->ncolumns; i++) {
		const struct report_column *c = &report->columns[i];

		if (c->on_kernel)
			print_rule(report, "kernel", "what this machine does, with real processes and system calls");
		else if (!i || c[-1].policy != c->policy)
			print_rule(report, ucow_policy_name(c->policy), report_policy(c->policy)->rule);
	}
}

static void print_unexpected(const struct report *report)
{
	if (!report_totals(report).unexpected)
		return;
	if (!report->quiet)
		fprintf(report->out, "\nNot as the files say\n");
	for (size_t i = 0; i < report->ndone; i++)
		for (size_t j = 0; j < report->ncolumns; j++)
			if (!report->tests[i].cells[j].expected)
				report_result_line(report, &report->tests[i], j);
}

static int end_matrix(const struct report *report)
{
	if (!report->quiet) {
		print_legend(report);
		print_sums(report);
		print_rules(report);
		report_skips(report, true);
	}
	print_unexpected(report);
	if (!report->quiet)
		report_summary(report);
	return 0;
}

const struct report_format report_matrix = {begin_matrix, test_matrix, end_matrix};
