/* SPDX-License-Identifier: MIT */
/* The verb `fuzz`: the command line, progress on stderr, and the report of a campaign. */
#include "cmd.h"
#include "interrupt.h"
#include "litmus/facilities.h"
#include "litmus/fuzz_campaign.h"
#include "litmus/kernel.h"
#include "litmus/run.h"
#include "litmus/switches.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HANG_MS   20000
#define SHRINK_MS 60000

struct arguments {
	struct campaign_options campaign;
	bool has_seed, has_against, json, quiet;
};

/* ---- the command line ---- */

enum {
	KEY_SEED = 256,
	KEY_PROGRAMS,
	KEY_FIRST,
	KEY_OPS,
	KEY_AGAINST,
	KEY_SHARD,
	KEY_SECONDS,
	KEY_MAX,
	KEY_WORKERS,
	KEY_SAVE,
	KEY_JSON,
};

static const struct argp_option options[] = {
	{"seed", KEY_SEED, "N", 0, "what all programs are made from; default: the clock, and it is printed", 0},
	{"programs", KEY_PROGRAMS, "N", 0, "how many programs (1000)", 0},
	{"first", KEY_FIRST, "N", 0, "the number of the first program (0)", 0},
	{"ops", KEY_OPS, "N", 0, "operations of a program (30)", 0},
	{"against", KEY_AGAINST, "kernel|modes", 0,
	 "the live kernel, or fork modes against each other and a simple model; default: the kernel, where it can", 0},
	{"shard", KEY_SHARD, "I/N", 0, "only every N-th program, beginning with the I-th (1/1)", 0},
	{"seconds", KEY_SECONDS, "N", 0, "begin no program after so long", 0},
	{"max-divergences", KEY_MAX, "N", 0, "begin no program after so many divergences", 0},
	{"workers", KEY_WORKERS, "N", 0, "processes at work; default: one for each cpu", 0},
	{"save", KEY_SAVE, "DIR", 0, "where what diverges is saved (ucow-fuzz)", 0},
	{"json", KEY_JSON, NULL, 0, "print one JSON object and nothing else", 0},
	{"quiet", 'q', NULL, 0, "no progress; print only what diverged", 0},
	{0},
};

static void parse_against(struct arguments *arguments, const char *value, const struct argp_state *state)
{
	arguments->has_against = true;
	if (!strcmp(value, "kernel"))
		arguments->campaign.against = FUZZ_AGAINST_KERNEL;
	else if (!strcmp(value, "modes"))
		arguments->campaign.against = FUZZ_AGAINST_MODES;
	else
		argp_error(state, "--against wants kernel or modes, not `%s'", value);
}

static void parse_shard(struct arguments *arguments, const char *value, const struct argp_state *state)
{
	const char *slash = strchr(value, '/');
	char number[24] = "";

	if (slash && slash - value < (ptrdiff_t)sizeof(number))
		memcpy(number, value, (size_t)(slash - value));
	if (!number[0])
		argp_error(state, "--shard wants I/N, such as 2/4, not `%s'", value);
	arguments->campaign.nshards = (unsigned)cmd_number(state, "N of --shard I/N", slash + 1, 1, 1000000);
	arguments->campaign.shard =
		(unsigned)cmd_number(state, "I of --shard I/N", number, 1, arguments->campaign.nshards) - 1;
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct arguments *arguments = state->input;
	struct campaign_options *campaign = &arguments->campaign;

	switch (key) {
	case KEY_SEED:
		/* JSON has no larger integers. */
		campaign->seed = cmd_number(state, "--seed", value, 0, INT64_MAX);
		arguments->has_seed = true;
		break;
	case KEY_PROGRAMS:
		campaign->programs = cmd_number(state, "--programs", value, 1, UINT32_MAX);
		break;
	case KEY_FIRST:
		campaign->first = cmd_number(state, "--first", value, 0, INT64_MAX / 2);
		break;
	case KEY_OPS:
		campaign->ops = (unsigned)cmd_number(state, "--ops", value, 1, FUZZ_OPS_MAX);
		break;
	case KEY_AGAINST:
		parse_against(arguments, value, state);
		break;
	case KEY_SHARD:
		parse_shard(arguments, value, state);
		break;
	case KEY_SECONDS:
		campaign->seconds = (unsigned)cmd_number(state, "--seconds", value, 1, 10000000);
		break;
	case KEY_MAX:
		campaign->most = cmd_number(state, "--max-divergences", value, 1, UINT32_MAX);
		break;
	case KEY_WORKERS:
		campaign->workers = (unsigned)cmd_number(state, "--workers", value, 1, 256);
		break;
	case KEY_SAVE:
		if (!*value)
			argp_error(state, "--save wants a folder");
		campaign->save = value;
		break;
	case KEY_JSON:
		arguments->json = true;
		break;
	case 'q':
		arguments->quiet = true;
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "`%s' is no option, and fuzz takes nothing else", value);
		break;
	case ARGP_KEY_END:
		if (arguments->json && !campaign_has_json())
			argp_error(state, "--json: this ucow was built without jansson");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* ---- progress ---- */

struct progress {
	bool terminal;
	time_t next;
	uint64_t programs; /* of this shard */
};

static time_t seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static void show_progress(const struct campaign_totals *totals, void *arg)
{
	struct progress *progress = arg;
	double rate = totals->seconds > 0 ? 60 * (double)totals->programs / totals->seconds : 0;

	if (seconds_now() < progress->next)
		return;
	progress->next = seconds_now() + (progress->terminal ? 1 : 10);
	fprintf(stderr,
		"%s%" PRIu64 "/%" PRIu64 " programs, %" PRIu64 " operations, %" PRIu64 " divergences, %.0f a minute%s",
		progress->terminal ? "\r\033[K" : "ucow fuzz: ", totals->programs, progress->programs,
		totals->operations, totals->divergences, rate, progress->terminal ? "" : "\n");
}

static void clear_progress(const struct progress *progress)
{
	if (progress->terminal)
		fputs("\r\033[K", stderr);
}

/* ---- */

/* Returns: whether it can be done; if not, stderr says why. */
static bool choose_against(struct arguments *arguments)
{
	const char *why = "";

	if (arguments->has_against && arguments->campaign.against == FUZZ_AGAINST_MODES)
		return true;
	if (litmus_kernel_possible(&why))
		return true;
	if (arguments->has_against) {
		fprintf(stderr, "ucow fuzz: not against this kernel: %s\n", why);
		return false;
	}
	fprintf(stderr, "ucow fuzz: against modes, not the kernel: %s\n", why);
	arguments->campaign.against = FUZZ_AGAINST_MODES;
	return true;
}

/* Short enough to be typed again. */
static uint64_t seed_of_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return fuzz_program_seed((uint64_t)now.tv_sec, (uint64_t)now.tv_nsec) >> 33;
}

static int report(const struct arguments *arguments, const struct campaign_result *result)
{
	int error;

	if (!arguments->json) {
		campaign_report(stdout, &arguments->campaign, result, arguments->quiet);
	} else {
		error = campaign_json(stdout, &arguments->campaign, result);
		if (error) {
			fprintf(stderr, "ucow fuzz: no report: %s\n", strerror(-error));
			return CMD_USAGE;
		}
	}
	return result->totals.divergences || result->totals.unjudged ? CMD_UNEXPECTED : CMD_OK;
}

static int run(struct arguments *arguments, struct campaign_result *result)
{
	struct campaign_options *campaign = &arguments->campaign;
	struct progress progress = {.terminal = isatty(STDERR_FILENO), .programs = campaign_size(campaign)};
	char why[300] = "";
	int error;

	if (!arguments->quiet) {
		progress.next = seconds_now() + (progress.terminal ? 1 : 10);
		campaign->progress = show_progress;
		campaign->progress_arg = &progress;
	}
	error = fuzz_campaign(campaign, result, why, sizeof(why));
	if (!arguments->quiet)
		clear_progress(&progress);
	if (error) {
		fprintf(stderr, "ucow fuzz: the campaign could not go on: %s\n", why);
		return CMD_USAGE;
	}
	return report(arguments, result);
}

/* What kinds of pressure programs for the kernel may have. */
static unsigned possible_pressure(void)
{
	const struct facilities *facilities = facilities_held();

	return FUZZ_P_FILES | (kernel_no_uffd() ? 0 : FUZZ_P_TRACKING) |
	       (*facilities->no_swap || *facilities->no_groups ? 0 : FUZZ_P_SWAP) |
	       (*facilities->no_ksm ? 0 : FUZZ_P_MERGING) | (*facilities->no_groups ? 0 : FUZZ_P_GROUPS);
}

/* With what moves pages switched off, where the kernel takes part. */
static int run_undisturbed(struct arguments *arguments, struct campaign_result *result)
{
	struct switches switches = {0};
	struct facilities facilities;
	int status, error;

	if (arguments->campaign.against != FUZZ_AGAINST_KERNEL)
		return run(arguments, result);
	facilities_plan(&facilities, NEED_SWAP | NEED_KSM | NEED_CGROUP, &switches);
	switches_add_movers(&switches);
	error = switches_hold(&switches);
	if (error)
		fprintf(stderr, "ucow fuzz: no switch of this machine is set: %s\n", strerror(-error));
	else
		facilities_make(&facilities);
	arguments->campaign.pressure = possible_pressure();
	status = run(arguments, result);
	error = switches_release(&switches);
	if (error)
		fprintf(stderr, "ucow fuzz: a switch of this machine is not restored: %s\n", strerror(-error));
	return error ? CMD_USAGE : status;
}

int cmd_fuzz(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.doc = "Run random litmus programs on the engine and on the live kernel, or in all fork modes, and "
		       "compare after every statement.\v"
		       "What diverges is made as small as it gets and saved as a litmus test. Exit status: 0 nothing "
		       "diverged, 1 something did, 2 usage.",
	};
	struct arguments arguments = {
		.campaign = {.programs = 1000,
			     .ops = 30,
			     .nshards = 1,
			     .hang_ms = HANG_MS,
			     .shrink_ms = SHRINK_MS,
			     .save = "ucow-fuzz",
			     .court = &campaign_real_court},
	};
	struct campaign_result *result;
	int status;

	if (argp_parse(&argp, argc, argv, 0, NULL, &arguments) || !choose_against(&arguments))
		return CMD_USAGE;
	if (!arguments.has_seed)
		arguments.campaign.seed = seed_of_clock();
	if (!arguments.has_seed && !arguments.quiet)
		fprintf(stderr, "ucow fuzz: seed %" PRIu64 "\n", arguments.campaign.seed);
	result = calloc(1, sizeof(*result));
	if (!result) {
		fprintf(stderr, "ucow fuzz: out of memory\n");
		return CMD_USAGE;
	}
	arguments.campaign.stop = interrupt_watch();
	status = run_undisturbed(&arguments, result);
	free(result);
	if (interrupt_signal()) {
		fflush(stdout);
		interrupt_end(interrupt_signal());
	}
	return status;
}
