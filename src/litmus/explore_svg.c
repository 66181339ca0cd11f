/* SPDX-License-Identifier: MIT */
/*
 * A finding as a picture: lanes as columns, steps as rows from top to bottom, a box in the colour of the frame that a
 * step is about, and the check that fails in red.
 */
#include "explore_fold.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MOST_ROWS   40
#define MOST_FRAMES 8

/* Pixels. */
#define MARGIN      36u
#define GUTTER      52u /* of line numbers, at the left of each lane */
#define LANE_WIDTH  430u
#define ROW_HEIGHT  24u
#define HEAD_HEIGHT 132u
#define FOOT_HEIGHT 96u
#define BOX_WIDTH   26u
#define TEXT_CHARS  50 /* of a step, in its column */

static const char *const frame_colours[MOST_FRAMES] = {"#2f7ed8", "#f28f43", "#3aa66f", "#a65fd0",
						       "#d8a511", "#11a5b0", "#c44f6c", "#7a7f87"};
static const char *const lane_colours[] = {"#eef4fb", "#fdf3ea", "#f3eefa", "#edf7f1"};

struct picture {
	FILE *out;
	const struct explore_result *result;
	struct explore_row *rows;
	size_t nrows;
	unsigned nlanes;
	uint64_t frames[MOST_FRAMES]; /* in the order of their first step */
	unsigned nframes;
};

/* ---- text ---- */

/* Text for XML: what means something there, and what it cannot hold, is written otherwise. At most @most characters. */
static void put_text(FILE *out, const char *text, size_t most)
{
	size_t length = strlen(text);

	for (size_t i = 0; i < length && i < most; i++) {
		unsigned char c = (unsigned char)text[i];

		if (i + 1 == most && length > most)
			fputs("&#8230;", out);
		else if (c == '<')
			fputs("&lt;", out);
		else if (c == '>')
			fputs("&gt;", out);
		else if (c == '&')
			fputs("&amp;", out);
		else if (c == '"')
			fputs("&quot;", out);
		else
			fputc(c < 0x20 || c >= 0x7f ? '?' : c, out);
	}
}

static void put_line(const struct picture *picture, unsigned x, unsigned y, const char *style, const char *text,
		     size_t most)
{
	fprintf(picture->out, "<text x=\"%u\" y=\"%u\" class=\"%s\">", x, y, style);
	put_text(picture->out, text, most);
	fputs("</text>\n", picture->out);
}

/* ---- places ---- */

static unsigned lane_x(unsigned lane)
{
	return MARGIN + lane * (LANE_WIDTH + GUTTER);
}

static unsigned width_of(const struct picture *picture)
{
	return 2 * MARGIN + picture->nlanes * (LANE_WIDTH + GUTTER);
}

static unsigned row_y(size_t row)
{
	return (unsigned)(HEAD_HEIGHT + row * ROW_HEIGHT);
}

static unsigned height_of(const struct picture *picture)
{
	return row_y(picture->nrows) + FOOT_HEIGHT;
}

/* ---- frames ---- */

/* Which frame of the picture this is; MOST_FRAMES: one too many, or none. */
static unsigned frame_index(struct picture *picture, uint64_t frame)
{
	unsigned i = 0;

	if (frame == EXPLORE_NO_FRAME)
		return MOST_FRAMES;
	while (i < picture->nframes && picture->frames[i] != frame)
		i++;
	if (i == picture->nframes && i < MOST_FRAMES)
		picture->frames[picture->nframes++] = frame;
	return i;
}

static void put_frame(struct picture *picture, uint64_t frame, unsigned x, unsigned y)
{
	unsigned index = frame_index(picture, frame);

	if (index == MOST_FRAMES)
		return;
	fprintf(picture->out,
		"<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"18\" rx=\"4\" fill=\"%s\"/>\n"
		"<text x=\"%u\" y=\"%u\" class=\"frame\">%c</text>\n",
		x, y, BOX_WIDTH, frame_colours[index], x + BOX_WIDTH / 2, y + 13, 'A' + (int)index);
}

/* ---- parts ---- */

static void put_head(const struct picture *picture)
{
	const struct explore_result *result = picture->result;
	char text[300];

	fprintf(picture->out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" viewBox=\"0 0 %u %u\">\n"
		"<style>text{font-family:system-ui,'Segoe UI','DejaVu Sans',sans-serif;fill:#20242a}"
		".title{font-size:22px;font-weight:600}.about{font-size:14px;fill:#59616c}"
		".lane{font-size:15px;font-weight:600}"
		".step{font-size:12.5px;font-family:ui-monospace,'DejaVu Sans Mono',monospace}"
		".fold{font-size:12.5px;fill:#8a929c;font-style:italic}.line{font-size:11px;fill:#9aa2ab;text-anchor:"
		"end}"
		".frame{font-size:12px;font-weight:700;fill:#fff;text-anchor:middle}"
		".fails{font-size:15px;font-weight:600;fill:#fff}</style>\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
		width_of(picture), height_of(picture), width_of(picture), height_of(picture));
	put_line(picture, MARGIN, 40, "title", result->litmus->title, (width_of(picture) - 2 * MARGIN) / 11);
	snprintf(text, sizeof(text), "catches: %s", result->litmus->catches ? result->litmus->catches : "-");
	put_line(picture, MARGIN, 66, "about", text, (width_of(picture) - 2 * MARGIN) / 7);
	snprintf(text, sizeof(text), "%s, policy %s, fork mode %s, memory %s, after %" PRIu64 " interleavings",
		 result->litmus->test, ucow_policy_name(result->options.policy),
		 ucow_fork_mode_name(result->options.fork), result->options.memory == EXPLORE_TSO ? "tso" : "sc",
		 result->interleavings);
	put_line(picture, MARGIN, 88, "about", text, (width_of(picture) - 2 * MARGIN) / 7);
}

static void put_lanes(const struct picture *picture)
{
	for (unsigned lane = 0; lane < picture->nlanes; lane++) {
		char name[20];

		fprintf(picture->out, "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" rx=\"8\" fill=\"%s\"/>\n",
			lane_x(lane) + GUTTER - 12, HEAD_HEIGHT - 30, LANE_WIDTH + 4,
			row_y(picture->nrows) - HEAD_HEIGHT + 40,
			lane_colours[lane % (sizeof(lane_colours) / sizeof(lane_colours[0]))]);
		snprintf(name, sizeof(name), "lane %u", lane + 1);
		put_line(picture, lane_x(lane) + GUTTER, HEAD_HEIGHT - 10, "lane", name, sizeof(name));
	}
}

/* From the end of one lane's stretch to the beginning of the next one's. */
static void put_switch(const struct picture *picture, size_t row, unsigned from, unsigned to)
{
	unsigned y = row_y(row) + 2, a = lane_x(from) + GUTTER + LANE_WIDTH / 2,
		 b = lane_x(to) + GUTTER + LANE_WIDTH / 2;

	fprintf(picture->out,
		"<line x1=\"%u\" y1=\"%u\" x2=\"%u\" y2=\"%u\" stroke=\"#c3cad2\" stroke-width=\"1.5\" "
		"stroke-dasharray=\"4 3\"/>\n",
		a, y, b, y);
}

static void put_step(struct picture *picture, size_t row, const struct explore_step *step)
{
	unsigned x = lane_x(step->lane) + GUTTER, y = row_y(row) + 17;
	char text[200];

	snprintf(text, sizeof(text), "%s%s%s%s", step->flush ? "buffer: " : "", step->what, step->saw[0] ? " = " : "",
		 step->saw);
	put_frame(picture, step->frame, x, row_y(row) + 4);
	put_line(picture, x + BOX_WIDTH + 8, y, "step", text, TEXT_CHARS);
}

static void put_row(struct picture *picture, size_t at)
{
	const struct explore_row *row = &picture->rows[at];
	const struct explore_step *step = &picture->result->schedule[row->first];
	unsigned x = lane_x(row->several_lanes ? 0 : step->lane) + GUTTER, y = row_y(at) + 17;
	char text[80];

	if (at && !row->several_lanes && !picture->rows[at - 1].several_lanes) {
		unsigned before = picture->result->schedule[picture->rows[at - 1].first].lane;

		if (before != step->lane)
			put_switch(picture, at, before, step->lane);
	}
	if (!row->several_lanes) {
		snprintf(text, sizeof(text), "%" PRIu32, step->statement);
		put_line(picture, x - 16, y, "line", text, sizeof(text));
	}
	if (row->count == 1) {
		put_step(picture, at, step);
		return;
	}
	snprintf(text, sizeof(text), "%zu %s", row->count,
		 row->several_lanes ? "steps of several lanes" : "more steps");
	put_line(picture, x + BOX_WIDTH + 8, y, "fold", text, sizeof(text));
}

static void put_foot(const struct picture *picture)
{
	const struct explore_result *result = picture->result;
	unsigned y = row_y(picture->nrows) + 28;
	bool broken = result->verdict == VERDICT_BREAK;
	char text[500];

	snprintf(text, sizeof(text), "%s%.0u%s%s%s%s", result->line ? "line " : "", result->line,
		 result->line ? ": " : "", broken ? result->check : "every check holds",
		 broken && result->saw[0] ? "   saw " : "", broken ? result->saw : "");
	fprintf(picture->out, "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"40\" rx=\"8\" fill=\"%s\"/>\n", MARGIN, y,
		width_of(picture) - 2 * MARGIN, broken ? "#cf2e2e" : "#2e8b57");
	put_line(picture, MARGIN + 18, y + 26, "fails", text, (width_of(picture) - 2 * MARGIN) / 9);
	fputs("</svg>\n", picture->out);
}

/* ---- the whole ---- */

static unsigned count_lanes(const struct explore_result *result)
{
	unsigned lanes = 1;

	for (size_t i = 0; i < result->nsteps; i++)
		if (result->schedule[i].lane >= lanes)
			lanes = result->schedule[i].lane + 1;
	return lanes;
}

int explore_svg(const char *path, const struct explore_result *result)
{
	struct picture picture = {.result = result, .nlanes = count_lanes(result)};
	int error = 0;

	picture.rows = explore_fold(result, MOST_ROWS, &picture.nrows);
	if (!picture.rows)
		return -ENOMEM;
	picture.out = fopen(path, "we");
	if (!picture.out) {
		error = -errno;
		free(picture.rows);
		return error;
	}
	put_head(&picture);
	put_lanes(&picture);
	for (size_t i = 0; i < picture.nrows; i++)
		put_row(&picture, i);
	put_foot(&picture);
	if (ferror(picture.out))
		error = -EIO;
	if (fclose(picture.out))
		error = -errno;
	free(picture.rows);
	return error;
}
