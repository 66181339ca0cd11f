/* SPDX-License-Identifier: MIT */
/* What `ucow bench` prints: a table with bars for people, one JSON object for programs. */
#include "bench.h"

#include <errno.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef UCOW_HAVE_JANSSON
#include <jansson.h>
#endif

#include <ucow/types.h>

/* ---- numbers ---- */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void bench_stat_finish(struct bench_stat *stat)
{
	unsigned n = stat->n;

	if (n == 0)
		return;
	qsort(stat->samples, n, sizeof(stat->samples[0]), compare_doubles);
	stat->min = stat->samples[0];
	stat->max = stat->samples[n - 1];
	stat->median = n % 2 ? stat->samples[n / 2] : (stat->samples[n / 2 - 1] + stat->samples[n / 2]) / 2;
}

/* ---- for people ---- */

/* Bars have a logarithmic scale: every column is a factor of 10^(1/5). */
#define COLUMNS_PER_DECADE 5
#define COLUMN_FACTOR      1.584893192461114
#define HALF_COLUMN_FACTOR 1.258925411794167

/* How to draw: fixed for one report. */
struct style {
	const char *bold, *dim, *good, *bad, *reset;
	const char *block; /* one column of a bar */
	int decades_left;  /* of the scale, below and above 1x */
	int decades_right;
};

static int count_decades(double factor)
{
	int decades = 0;

	for (; factor > 1.0001; factor /= 10)
		decades++;
	return decades;
}

static int count_columns(double factor)
{
	int columns = 0;

	for (; factor >= HALF_COLUMN_FACTOR; factor /= COLUMN_FACTOR)
		columns++;
	return columns;
}

static struct style choose_style(FILE *out, const struct bench_result *results, size_t nresults)
{
	const char *no_color = getenv("NO_COLOR");
	bool terminal = isatty(fileno(out)), colour = terminal && !(no_color && no_color[0]);
	double low = 1, high = 10;

	for (size_t i = 0; i < nresults; i++) {
		double ratio = results[i].ratio;

		low = ratio > 0 && ratio < low ? ratio : low;
		high = ratio > high ? ratio : high;
	}
	return (struct style){
		.bold = colour ? "\033[1m" : "",
		.dim = colour ? "\033[2m" : "",
		.good = colour ? "\033[32m" : "",
		.bad = colour ? "\033[33m" : "",
		.reset = colour ? "\033[0m" : "",
		.block = terminal && strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? "\u2588" : "#",
		.decades_left = count_decades(1 / low),
		.decades_right = count_decades(high),
	};
}

/* Three significant digits or all before the point, thousands apart. */
static const char *number_text(double value, char text[32])
{
	unsigned long long whole = (unsigned long long)(value + 0.5);

	if (value < 0.9995)
		snprintf(text, 32, "%.3f", value);
	else if (value < 9.995)
		snprintf(text, 32, "%.2f", value);
	else if (value < 99.95)
		snprintf(text, 32, "%.1f", value);
	else if (whole < 1000)
		snprintf(text, 32, "%llu", whole);
	else if (whole < 1000000)
		snprintf(text, 32, "%llu,%03llu", whole / 1000, whole % 1000);
	else
		snprintf(text, 32, "%llu,%03llu,%03llu", whole / 1000000, whole / 1000 % 1000, whole % 1000);
	return text;
}

static void print_stat(FILE *out, const struct style *style, const struct bench_stat *stat)
{
	char median[32], min[32], max[32], spread[80];

	if (stat->n == 0) {
		fprintf(out, "  %9s %s%-17s%s", "-", style->dim, "", style->reset);
		return;
	}
	snprintf(spread, sizeof(spread), "%s..%s", number_text(stat->min, min), number_text(stat->max, max));
	fprintf(out, "  %9s %s%-17s%s", number_text(stat->median, median), style->dim, spread, style->reset);
}

static void print_repeated(FILE *out, const char *text, int count)
{
	for (int i = 0; i < count; i++)
		fputs(text, out);
}

/* A bar from 1x towards the ratio, to the right if that is the better side. */
static void print_bar(FILE *out, const struct style *style, double ratio)
{
	bool good = ratio >= 1;
	int left = style->decades_left * COLUMNS_PER_DECADE, columns = count_columns(good ? ratio : 1 / ratio);

	fputs("  ", out);
	print_repeated(out, " ", good ? left : left - columns);
	fputs(good ? "" : style->bad, out);
	print_repeated(out, style->block, good ? 0 : columns);
	fprintf(out, "%s|%s", style->reset, good ? style->good : "");
	print_repeated(out, style->block, good ? columns : 0);
	fputs(style->reset, out);
}

static void print_result(FILE *out, const struct style *style, const struct bench_result *result)
{
	char ratio[32];

	fprintf(out, "%s%-20s%s %-5s", style->bold, result->row->name, style->reset, result->row->unit);
	if (result->ucow.n == 0 && result->skipped[0]) {
		fprintf(out, "  %s: %s\n", result->failed ? "failed" : "skipped", result->skipped);
		return;
	}
	print_stat(out, style, &result->ucow);
	print_stat(out, style, &result->kernel);
	if (result->ratio > 0) {
		fprintf(out, "  %7sx", number_text(result->ratio, ratio));
		print_bar(out, style, result->ratio);
	} else {
		fprintf(out, "  %s", result->skipped);
	}
	fputc('\n', out);
}

/* The ticks of the bars' scale, from 1x downwards and upwards: ... 0.1x 1x 10x 100x 1k 10k ... */
static void print_scale(FILE *out, const struct style *style)
{
	double tick = 1;

	for (int i = 0; i < style->decades_left; i++)
		tick /= 10;
	for (int i = 0; i <= style->decades_left + style->decades_right; i++, tick *= 10) {
		char text[32];

		if (tick < 999)
			snprintf(text, sizeof(text), "%gx", tick);
		else
			snprintf(text, sizeof(text), "%.0f%s", tick < 999999 ? tick / 1e3 : tick / 1e6,
				 tick < 999999 ? "k" : "M");
		fprintf(out, "%-*s", COLUMNS_PER_DECADE, text);
	}
}

static void print_header(FILE *out, const struct style *style, const struct bench_host *host)
{
	fprintf(out, "%sucow %s beside %s%s (%s; %s, %ld cpu%s, %.1f GiB)\n", style->bold, ucow_version(), host->kernel,
		style->reset, host->architecture, host->cpu, host->cpus, host->cpus == 1 ? "" : "s",
		(double)host->memory / (1 << 30));
	fprintf(out,
		"The same work on 4 KiB pages, sampled in turn in one run, on one cpu, in memory touched before.\n");
	fprintf(out, "Medians (min..max); ratio = kernel / ucow, higher is better.\n\n");
	fprintf(out, "%s%-20s %-5s  %9s %-17s  %9s %-17s  %8s  ", style->dim, "", "unit", "ucow", "", "kernel", "",
		"ratio");
	print_scale(out, style);
	fprintf(out, "%s\n", style->reset);
}

void bench_report_text(FILE *out, const struct bench_host *host, const struct bench_result *results, size_t nresults)
{
	struct style style = choose_style(out, results, nresults);

	print_header(out, &style, host);
	for (size_t i = 0; i < nresults; i++)
		print_result(out, &style, &results[i]);
	fputc('\n', out);
	for (size_t i = 0; i < nresults; i++)
		fprintf(out, "%s%-20s %s%s\n", style.dim, results[i].row->name, results[i].row->what, style.reset);
}

/* ---- for programs ---- */

#ifdef UCOW_HAVE_JANSSON

const bool bench_report_has_json = true;

static json_t *stat_json(const struct bench_stat *stat)
{
	if (stat->n == 0)
		return json_null();
	return json_pack("{s:f, s:f, s:f, s:i}", "median", stat->median, "min", stat->min, "max", stat->max, "n",
			 (int)stat->n);
}

static json_t *result_json(const struct bench_result *result)
{
	json_t *ratio = result->ratio > 0 ? json_real(result->ratio) : json_null();
	json_t *object = json_pack("{s:s, s:s, s:o, s:o, s:o}", "name", result->row->name, "unit", result->row->unit,
				   "ucow", stat_json(&result->ucow), "kernel", stat_json(&result->kernel), "ratio",
				   ratio);

	if (object && result->skipped[0])
		json_object_set_new(object, result->failed ? "failed" : "skipped", json_string(result->skipped));
	return object;
}

static json_t *host_json(const struct bench_host *host)
{
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:s}", "kernel", host->kernel, "architecture", host->architecture,
			 "cpu", host->cpu, "cpus", (json_int_t)host->cpus, "memory", (json_int_t)host->memory, "ucow",
			 ucow_version());
}

int bench_report_json(FILE *out, const struct bench_host *host, const struct bench_result *results, size_t nresults)
{
	json_t *list = json_array(), *root;
	int err = 0;

	for (size_t i = 0; i < nresults; i++)
		if (json_array_append_new(list, result_json(&results[i])))
			err = -ENOMEM;
	root = json_pack("{s:i, s:o, s:o}", "version", 1, "host", host_json(host), "results", list);
	if (!root)
		return -ENOMEM;
	if (!err && (json_dumpf(root, out, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) || fputc('\n', out) == EOF))
		err = -EIO;
	json_decref(root);
	return err;
}

#else

const bool bench_report_has_json = false;

int bench_report_json(FILE *out, const struct bench_host *host, const struct bench_result *results, size_t nresults)
{
	(void)out, (void)host, (void)results, (void)nresults;
	return -EOPNOTSUPP;
}

#endif
