/* SPDX-License-Identifier: MIT */
/* A campaign's report for people: what was done, what is known to differ, what was not tried, what diverged. */
#include "fuzz_campaign.h"

#include <inttypes.h>
#include <sys/utsname.h>

const char *campaign_against_name(enum fuzz_against against)
{
	return against == FUZZ_AGAINST_KERNEL ? "kernel" : "modes";
}

/* ---- what was done ---- */

static void print_totals(FILE *out, const struct campaign_options *options, const struct campaign_result *result)
{
	const struct campaign_totals *totals = &result->totals;
	double minutes = totals->seconds / 60;
	struct utsname host;
	bool on_kernel = options->against == FUZZ_AGAINST_KERNEL && !uname(&host);

	fprintf(out, "seed %" PRIu64 ", against %s%s%s, programs of %u operations, %u worker%s", options->seed,
		campaign_against_name(options->against), on_kernel ? " " : "", on_kernel ? host.release : "",
		options->ops, result->workers, result->workers == 1 ? "" : "s");
	if (options->nshards > 1)
		fprintf(out, ", shard %u/%u", options->shard + 1, options->nshards);
	if (options->first)
		fprintf(out, ", from program %" PRIu64 " on", options->first);
	fprintf(out, "\n%" PRIu64 " programs, %" PRIu64 " operations in %.1f s: %.0f programs a minute\n",
		totals->programs, totals->operations, totals->seconds,
		minutes > 0 ? (double)totals->programs / minutes : 0);
	if (result->stopped)
		fprintf(out, "stopped before its end\n");
	if (result->enough)
		fprintf(out, "ended by --max-divergences\n");
	if (result->out_of_time)
		fprintf(out, "ended by --seconds\n");
}

static void print_unjudged(FILE *out, const struct campaign_result *result)
{
	if (result->totals.unjudged)
		fprintf(out, "%" PRIu64 " more could not be judged, one of them: %s\n", result->totals.unjudged,
			result->unjudged);
}

static void print_noise(FILE *out, const struct campaign_result *result)
{
	bool any = false;

	for (int class = 0; class < FUZZ_NOISE_CLASSES; class ++) {
		if (!result->totals.noise[class])
			continue;
		fprintf(out, "%s  %-24s %8" PRIu64 "  %s\n", any ? "" : "known to differ:\n", fuzz_noise_name(class),
			result->totals.noise[class], fuzz_noise_reason(class));
		any = true;
	}
	if (!any)
		fprintf(out, "known to differ: none came up\n");
}

const char *fuzz_tally_name(enum fuzz_tally tally)
{
	static const char *const names[FUZZ_TALLIES] = {
#define FUZZ_TALLY_NAME(id, name, counter) [id] = name,
		FUZZ_TALLY(FUZZ_TALLY_NAME)
#undef FUZZ_TALLY_NAME
	};

	return names[tally];
}

static void print_tally(FILE *out, const struct campaign_result *result)
{
	const struct campaign_totals *totals = &result->totals;

	fprintf(out, "under pressure, in fork mode eager:\n");
	for (unsigned i = 0; i < FUZZ_TALLIES; i++)
		fprintf(out, "  %-42s %10" PRIu64 ", in %.1f of 1,000 programs\n", fuzz_tally_name((enum fuzz_tally)i),
			totals->tally[i],
			totals->programs ? 1000.0 * (double)totals->tallied[i] / (double)totals->programs : 0.0);
}

/* ---- what was tried ---- */

static void print_missing(FILE *out, const struct campaign_options *options, const struct fuzz_pairs *pairs,
			  enum fuzz_op_kind first)
{
	bool any = false;

	for (unsigned i = 0; i < FUZZ_OP_KINDS; i++) {
		enum fuzz_op_kind second = (enum fuzz_op_kind)i;

		if (!fuzz_pair_possible(first, second, options->against, options->pressure) ||
		    pairs->met[first][second])
			continue;
		if (!any)
			fprintf(out, "  not after %s:", fuzz_op_name(first));
		fprintf(out, "%s %s", any ? "," : "", fuzz_op_name(second));
		any = true;
	}
	if (any)
		fprintf(out, "\n");
}

static void print_coverage(FILE *out, const struct campaign_options *options, const struct campaign_result *result)
{
	struct fuzz_coverage coverage;

	fuzz_pairs_coverage(&result->pairs, options->against, options->pressure, &coverage);
	fprintf(out, "coverage: %u of %u pairs of operations on a page, the rarest %" PRIu64 " times\n", coverage.met,
		coverage.possible, coverage.rarest);
	for (unsigned first = 0; first < FUZZ_OP_KINDS; first++)
		print_missing(out, options, &result->pairs, (enum fuzz_op_kind)first);
}

/* ---- what diverged ---- */

static void print_said(FILE *out, const char *said)
{
	bool fresh = true;

	for (; *said; said++) {
		fprintf(out, "%s%c", fresh ? "    | " : "", *said);
		fresh = *said == '\n';
	}
	if (!fresh)
		fprintf(out, "\n");
}

static void print_finding(FILE *out, const struct campaign_finding *finding)
{
	const struct fuzz_divergence *divergence = &finding->divergence;

	fprintf(out, "! program %" PRIu64 ": ", finding->number);
	if (divergence->is_error)
		fprintf(out, "%s: %s\n    %s\n", divergence->subjects[0], divergence->what, divergence->saw[0]);
	else
		fprintf(out, "%s and %s differ: %s\n    %s: %s\n    %s: %s\n", divergence->subjects[0],
			divergence->subjects[1], divergence->what, divergence->subjects[0], divergence->saw[0],
			divergence->subjects[1], divergence->saw[1]);
	print_said(out, finding->said);
	if (!finding->repeats)
		fprintf(out, "    not seen again when it was run alone, so as long as it was\n");
	if (finding->path[0])
		fprintf(out, "    saved: %s\n", finding->path);
	else
		fprintf(out, "    not saved: %s\n", finding->problem);
}

static void print_divergences(FILE *out, const struct campaign_result *result)
{
	for (unsigned i = 0; i < result->nfindings; i++)
		print_finding(out, &result->findings[i]);
	if (result->same)
		fprintf(out, "%" PRIu64 " came to the same small programs\n", result->same);
	if (result->left)
		fprintf(out, "%" PRIu64 " more of these kinds, only counted\n", result->left);
}

/* ---- */

void campaign_report(FILE *out, const struct campaign_options *options, const struct campaign_result *result,
		     bool quiet)
{
	print_divergences(out, result);
	print_unjudged(out, result);
	if (!quiet) {
		print_totals(out, options, result);
		print_noise(out, result);
		print_tally(out, result);
		print_coverage(out, options, result);
	}
	if (!quiet || result->totals.divergences)
		fprintf(out, "%" PRIu64 " divergence%s\n", result->totals.divergences,
			result->totals.divergences == 1 ? "" : "s");
}
