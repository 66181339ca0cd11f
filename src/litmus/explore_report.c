/* SPDX-License-Identifier: MIT */
/* Explored tests for people: a line each, and the interleaving that breaks one as columns, a lane each. */
#include "explore_fold.h"
#include "report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MOST_ROWS   60
#define LANE_WIDTH  44
#define LINE_WIDTH  5
#define MOST_LANES  4 /* side by side; with more each step names its lane */
#define LANE_INDENT 2

static void paint(const struct explore_report *report, const char *sgr)
{
	if (report->colour)
		fprintf(report->out, "\033[%sm", sgr);
}

static const char *lane_colour(uint32_t lane)
{
	static const char *const colours[] = {"36", "33", "35", "32"};

	return colours[lane % (sizeof(colours) / sizeof(colours[0]))];
}

/* 1234567 as 1,234,567. */
static const char *grouped(uint64_t number, char text[32])
{
	char digits[24];
	int length = snprintf(digits, sizeof(digits), "%" PRIu64, number), at = 0;

	for (int i = 0; i < length; i++) {
		if (i && (length - i) % 3 == 0)
			text[at++] = ',';
		text[at++] = digits[i];
	}
	text[at] = '\0';
	return text;
}

/* ---- columns ---- */

static unsigned count_lanes(const struct explore_result *result)
{
	unsigned lanes = 0;

	for (size_t i = 0; i < result->nsteps; i++)
		if (result->schedule[i].lane >= lanes)
			lanes = result->schedule[i].lane + 1;
	return lanes;
}

static void step_text(const struct explore_step *step, char text[200])
{
	snprintf(text, 200, "%s%s%s%s", step->flush ? "(buffer) " : "", step->what, step->saw[0] ? " = " : "",
		 step->saw);
}

static void row_text(const struct explore_result *result, const struct explore_row *row, char text[200])
{
	if (row->count == 1)
		step_text(&result->schedule[row->first], text);
	else if (row->several_lanes)
		snprintf(text, 200, "... %zu steps of several lanes ...", row->count);
	else
		snprintf(text, 200, "... %zu more steps", row->count);
}

static void print_row(const struct explore_report *report, const struct explore_result *result,
		      const struct explore_row *row, unsigned nlanes, bool switched)
{
	const struct explore_step *step = &result->schedule[row->first];
	unsigned column = nlanes <= MOST_LANES ? step->lane : 0;
	char text[200];

	row_text(result, row, text);
	paint(report, row->count > 1 ? "2" : lane_colour(step->lane));
	fprintf(report->out, "%*s", LANE_INDENT + (int)column * LANE_WIDTH, "");
	if (nlanes > MOST_LANES)
		fprintf(report->out, "lane %" PRIu32 "  ", step->lane + 1);
	if (row->several_lanes)
		fprintf(report->out, "%*s  %s", LINE_WIDTH, "", text);
	else
		fprintf(report->out, "%c%*" PRIu32 "  %s", switched ? '>' : ' ', LINE_WIDTH - 1, step->statement, text);
	paint(report, "");
	fputc('\n', report->out);
}

static void print_heads(const struct explore_report *report, unsigned nlanes)
{
	paint(report, "1");
	fprintf(report->out, "%*s", LANE_INDENT, "");
	for (unsigned lane = 0; lane < nlanes && nlanes <= MOST_LANES; lane++) {
		char head[40];

		snprintf(head, sizeof(head), " line  lane %u", lane + 1);
		fprintf(report->out, "%-*s", LANE_WIDTH, head);
	}
	paint(report, "");
	fputc('\n', report->out);
}

static void print_finding(const struct explore_report *report, const struct explore_result *result)
{
	paint(report, "1;31");
	if (result->line)
		fprintf(report->out, "  %s:%u: ", result->litmus->path, result->line);
	else
		fprintf(report->out, "  %s: ", result->litmus->path);
	fprintf(report->out, "%s%s%s\n", result->check, result->saw[0] ? ": saw " : "", result->saw);
	paint(report, "");
}

void explore_columns(const struct explore_report *report, const struct explore_result *result)
{
	unsigned nlanes = count_lanes(result);
	struct explore_row *rows;
	size_t nrows;

	rows = explore_fold(result, MOST_ROWS, &nrows);
	if (!rows)
		return;
	if (nrows)
		print_heads(report, nlanes);
	for (size_t i = 0; i < nrows; i++) {
		bool switched = i && result->schedule[rows[i].first].lane != result->schedule[rows[i - 1].first].lane;

		print_row(report, result, &rows[i], nlanes, switched);
	}
	free(rows);
	if (result->verdict == VERDICT_BREAK)
		print_finding(report, result);
}

/* ---- a line each ---- */

static const char *verdict_colour(const struct explore_result *result)
{
	if (!result->expected)
		return "1;31";
	switch (result->verdict) {
	case VERDICT_PASS:
		return "32";
	case VERDICT_BREAK:
	case VERDICT_SKIP:
		return "33";
	case VERDICT_ERROR:
		break;
	}
	return "1;31";
}

static void print_extent(const struct explore_report *report, const struct explore_result *result)
{
	char number[32];

	fprintf(report->out, "%11s interleaving%s", grouped(result->interleavings, number),
		result->interleavings == 1 ? " " : "s");
	if (result->complete && result->options.bound == EXPLORE_UNBOUNDED)
		fputs(", all     ", report->out);
	else if (result->complete)
		fprintf(report->out, ", bound %-2" PRIu32, result->options.bound);
	else
		fputs(result->verdict == VERDICT_PASS ? ", not all " : "          ", report->out);
}

static void line_result(const struct explore_report *report, const struct explore_result *result)
{
	char column[40], number[32];

	snprintf(column, sizeof(column), "%s/%s", ucow_policy_name(result->options.policy),
		 ucow_fork_mode_name(result->options.fork));
	paint(report, verdict_colour(result));
	fprintf(report->out, "%c %-5s", result->expected ? ' ' : '!', report_verdict_name(result->verdict));
	paint(report, "");
	fprintf(report->out, "  %-17s %-3s ", column, result->options.memory == EXPLORE_TSO ? "tso" : "sc");
	print_extent(report, result);
	fprintf(report->out, "  %s%s%s", result->litmus->path, result->reason[0] ? ": " : "", result->reason);
	if (result->states)
		fprintf(report->out, " (%s states)", grouped(result->states, number));
	fputc('\n', report->out);
	if (result->verdict == VERDICT_ERROR && result->check[0])
		print_finding(report, result);
	if (result->verdict == VERDICT_BREAK)
		explore_columns(report, result);
}

static int line_end(const struct explore_report *report)
{
	uint64_t interleavings = 0;
	size_t by_verdict[VERDICT_ERROR + 1] = {0}, unexpected = 0;
	double seconds = 0;
	char number[32];

	for (size_t i = 0; i < report->nresults; i++) {
		by_verdict[report->results[i].verdict]++;
		unexpected += !report->results[i].expected;
		interleavings += report->results[i].interleavings;
		seconds += report->results[i].took_seconds;
	}
	fprintf(report->out, "\n%zu runs: %zu pass, %zu break, %zu skip, %zu error; %s interleavings in %.1f s; ",
		report->nresults, by_verdict[VERDICT_PASS], by_verdict[VERDICT_BREAK], by_verdict[VERDICT_SKIP],
		by_verdict[VERDICT_ERROR], grouped(interleavings, number), seconds);
	if (unexpected)
		fprintf(report->out, "%zu not as the files say\n", unexpected);
	else
		fputs("all as the files say\n", report->out);
	return 0;
}

const struct explore_format explore_lines = {NULL, line_result, line_end};
