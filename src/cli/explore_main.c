/* SPDX-License-Identifier: MIT */
/*
 * The program ucow-explore: the verb `explore`, in a program of its own because it holds the engine built in another
 * way.
 */
#include "cmd.h"
#include "litmus/collect.h"
#include "litmus/explore.h"

#include <ucow/ucow.h>

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_BOUND   2
#define DEFAULT_SECONDS 60

struct arguments {
	bool all_policies, all_modes, full, json, bounded;
	enum ucow_policy policy;
	enum ucow_fork_mode fork; /* UCOW_FORK_DEFAULT: not given */
	struct explore_options options;
	const char *replay, *svg;
	char **paths;
	int npaths;
};

/* ---- the command line ---- */

enum {
	KEY_POLICY = 256,
	KEY_FORK,
	KEY_MEMORY,
	KEY_BOUND,
	KEY_FULL,
	KEY_MAX,
	KEY_SECONDS,
	KEY_REPLAY,
	KEY_JSON,
	KEY_SVG
};

static const struct argp_option options[] = {
	{"policy", KEY_POLICY, "NAME|all", 0, "copy-on-write rules of the engine (exclusive)", 0},
	{"fork", KEY_FORK, "eager|tables|lazy|all", 0, "how the engine forks; default: the best there is", 0},
	{"memory", KEY_MEMORY, "sc|tso", 0, "sequential consistency (default), or stores that wait in buffers", 0},
	{"bound", KEY_BOUND, "N", 0, "try interleavings with at most N preemptions (2)", 0},
	{"full", KEY_FULL, NULL, 0, "try all interleavings", 0},
	{"max", KEY_MAX, "N", 0, "end after N interleavings of a test", 0},
	{"seconds", KEY_SECONDS, "N", 0, "end after N seconds of a test (60); 0: never", 0},
	{"replay", KEY_REPLAY, "FILE", 0, "run the one interleaving that FILE, output of --json, tells of", 0},
	{"json", KEY_JSON, NULL, 0, "print one JSON object and nothing else", 0},
	{"svg", KEY_SVG, "FILE", 0, "draw the first finding", 0},
	{0},
};

uint64_t cmd_number(const struct argp_state *state, const char *option, const char *value, uint64_t least,
		    uint64_t most)
{
	char *end;
	unsigned long long number;

	errno = 0;
	number = strtoull(value, &end, 10);
	/* strtoull takes signs and spaces, which no option means. */
	if (errno || *end || value[0] < '0' || value[0] > '9' || number < least || number > most)
		argp_error(state, "%s wants a number from %ju to %ju, not `%s'", option, (uintmax_t)least,
			   (uintmax_t)most, value);
	return number;
}

static void parse_policy(struct arguments *arguments, const char *value, const struct argp_state *state)
{
	arguments->all_policies = !strcmp(value, "all");
	if (!arguments->all_policies && ucow_policy_parse(value, &arguments->policy))
		argp_error(state, "no policy is called `%s'", value);
}

static void parse_fork(struct arguments *arguments, const char *value, const struct argp_state *state)
{
	arguments->all_modes = !strcmp(value, "all");
	arguments->fork = UCOW_FORK_DEFAULT;
	if (!arguments->all_modes &&
	    (ucow_fork_mode_parse(value, &arguments->fork) || arguments->fork == UCOW_FORK_DEFAULT))
		argp_error(state, "--fork wants eager, tables, lazy or all, not `%s'", value);
}

static void parse_memory(struct arguments *arguments, const char *value, const struct argp_state *state)
{
	if (!strcmp(value, "sc"))
		arguments->options.memory = EXPLORE_SC;
	else if (!strcmp(value, "tso"))
		arguments->options.memory = EXPLORE_TSO;
	else
		argp_error(state, "--memory wants sc or tso, not `%s'", value);
}

static void parse_end(struct arguments *arguments, struct argp_state *state)
{
	if (arguments->full && arguments->bounded)
		argp_error(state, "--full and --bound exclude each other");
	if (arguments->json && !explore_has_json())
		argp_error(state, "--json: this ucow was built without jansson");
	if (arguments->replay && !explore_has_json())
		argp_error(state, "--replay: this ucow was built without jansson");
	if (!arguments->npaths && !arguments->replay)
		argp_error(state, "which tests? PATH is a file or a folder");
	if (arguments->full)
		arguments->options.bound = EXPLORE_UNBOUNDED;
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case KEY_POLICY:
		parse_policy(arguments, value, state);
		break;
	case KEY_FORK:
		parse_fork(arguments, value, state);
		break;
	case KEY_MEMORY:
		parse_memory(arguments, value, state);
		break;
	case KEY_BOUND:
		arguments->options.bound = (uint32_t)cmd_number(state, "--bound", value, 0, 1000);
		arguments->bounded = true;
		break;
	case KEY_FULL:
		arguments->full = true;
		break;
	case KEY_MAX:
		arguments->options.max = cmd_number(state, "--max", value, 1, UINT64_MAX);
		break;
	case KEY_SECONDS:
		arguments->options.seconds = cmd_number(state, "--seconds", value, 0, 1000000);
		break;
	case KEY_REPLAY:
		arguments->replay = value;
		break;
	case KEY_JSON:
		arguments->json = true;
		break;
	case KEY_SVG:
		arguments->svg = value;
		break;
	case ARGP_KEY_ARGS:
		arguments->paths = state->argv + state->next;
		arguments->npaths = state->argc - state->next;
		break;
	case ARGP_KEY_END:
		parse_end(arguments, state);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* ---- columns: a policy in a fork mode ---- */

struct column {
	enum ucow_policy policy;
	enum ucow_fork_mode fork;
};
#define MAX_COLUMNS (UCOW_POLICY_COUNT * UCOW_FORK_MODE_COUNT)

struct columns {
	struct column list[MAX_COLUMNS];
	size_t n;
};

static void add_policy(struct columns *columns, const struct arguments *arguments, enum ucow_policy policy)
{
	static const enum ucow_fork_mode best_first[] = {UCOW_FORK_LAZY, UCOW_FORK_TABLES, UCOW_FORK_EAGER};

	for (size_t i = 0; i < sizeof(best_first) / sizeof(best_first[0]); i++) {
		if (arguments->fork != UCOW_FORK_DEFAULT && arguments->fork != best_first[i])
			continue;
		if (!explore_exists(policy, best_first[i]))
			continue;
		columns->list[columns->n++] = (struct column){policy, best_first[i]};
		if (!arguments->all_modes)
			return;
	}
}

static bool choose_columns(struct columns *columns, const struct arguments *arguments)
{
	for (unsigned i = 0; i < UCOW_POLICY_COUNT; i++)
		if (arguments->all_policies || i == (unsigned)arguments->policy)
			add_policy(columns, arguments, (enum ucow_policy)i);
	if (!columns->n)
		fprintf(stderr, "ucow explore: this policy does not run in fork mode %s\n",
			ucow_fork_mode_name(arguments->fork));
	return columns->n;
}

/* ---- runs ---- */

static bool wants_colour(void)
{
	const char *no_colour = getenv("NO_COLOR"), *terminal = getenv("TERM");

	return isatty(STDOUT_FILENO) && !(no_colour && *no_colour) && terminal && strcmp(terminal, "dumb");
}

static void show_progress(const struct explore_report *report, const struct litmus *litmus, const struct column *column)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K%zu %.50s (%s, %s)", report->nresults + 1, litmus->test,
			ucow_policy_name(column->policy), ucow_fork_mode_name(column->fork));
}

static void clear_progress(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

/* Returns: whether all came out as the files say. */
static bool run_tests(const struct arguments *arguments, const struct columns *columns, const struct litmus_list *list,
		      const struct explore_format *format, struct explore_report *report)
{
	bool expected = true;

	for (size_t i = 0; i < list->n; i++)
		for (size_t j = 0; j < columns->n; j++) {
			struct explore_result *result = &report->results[report->nresults];
			struct explore_options wanted = arguments->options;

			wanted.policy = columns->list[j].policy;
			wanted.fork = columns->list[j].fork;
			show_progress(report, list->tests[i], &columns->list[j]);
			explore_test(list->tests[i], &wanted, result);
			report->nresults++;
			clear_progress();
			expected &= result->expected;
			if (format->result)
				format->result(report, result);
		}
	return expected;
}

static const struct explore_result *first_finding(const struct explore_report *report)
{
	for (size_t i = 0; i < report->nresults; i++)
		if (report->results[i].verdict == VERDICT_BREAK)
			return &report->results[i];
	return NULL;
}

/* Returns: the exit status. */
static int end_report(const struct explore_format *format, const struct explore_report *report, bool expected)
{
	const struct explore_result *finding = report->svg ? first_finding(report) : NULL;
	int error = format->end ? format->end(report) : 0;

	if (!error && finding)
		error = explore_svg(report->svg, finding);
	if (error) {
		fprintf(stderr, "ucow explore: no report: %s\n", strerror(-error));
		return CMD_USAGE;
	}
	return expected ? CMD_OK : CMD_UNEXPECTED;
}

static int explore_all(const struct arguments *arguments, const struct columns *columns, const struct litmus_list *list)
{
	const struct explore_format *format = arguments->json ? &explore_json : &explore_lines;
	struct explore_report report = {
		.out = stdout,
		.colour = wants_colour(),
		.unicode = !strcmp(nl_langinfo(CODESET), "UTF-8"),
		.svg = arguments->svg,
		.results = calloc(list->n * columns->n, sizeof(*report.results)),
	};
	bool expected;
	int status;

	if (!report.results) {
		fprintf(stderr, "ucow explore: out of memory\n");
		return CMD_USAGE;
	}
	if (format->begin)
		format->begin(&report);
	expected = run_tests(arguments, columns, list, format, &report);
	status = end_report(format, &report, expected);
	for (size_t i = 0; i < report.nresults; i++)
		explore_result_clear(&report.results[i]);
	free(report.results);
	return status;
}

/* ---- replaying ---- */

static int replay_finding(const struct arguments *arguments, const struct explore_finding *finding,
			  const struct litmus *litmus)
{
	const struct explore_format *format = arguments->json ? &explore_json : &explore_lines;
	struct explore_result result;
	struct explore_report report = {
		.out = stdout,
		.colour = wants_colour(),
		.unicode = !strcmp(nl_langinfo(CODESET), "UTF-8"),
		.svg = arguments->svg,
		.results = &result,
		.nresults = 1,
	};
	int status;

	explore_replay(litmus, &finding->options, finding->choices, finding->nchoices, &result);
	if (format->begin)
		format->begin(&report);
	if (format->result)
		format->result(&report, &result);
	if (!arguments->json && result.expected)
		explore_columns(&report, &result);
	status = end_report(format, &report, result.expected);
	explore_result_clear(&result);
	return status;
}

static int replay(const struct arguments *arguments)
{
	struct explore_finding finding = {0};
	struct litmus_list list = {0};
	const char *path;
	char why[200] = "";
	int status = CMD_USAGE, error = explore_read_finding(arguments->replay, &finding, why, sizeof(why));

	if (error) {
		fprintf(stderr, "ucow explore: %s\n", *why ? why : strerror(-error));
		return CMD_USAGE;
	}
	/* A file that has moved is named on the command line. */
	path = arguments->npaths ? arguments->paths[0] : finding.file;
	if (!litmus_collect(path, &list, stderr) && !list.bad && list.n == 1)
		status = replay_finding(arguments, &finding, list.tests[0]);
	litmus_list_free(&list);
	explore_finding_clear(&finding);
	return status;
}

/* ---- */

static bool collect(const struct arguments *arguments, struct litmus_list *list)
{
	for (int i = 0; i < arguments->npaths; i++) {
		if (litmus_collect(arguments->paths[i], list, stderr) == 0)
			continue;
		fprintf(stderr, "ucow explore: out of memory\n");
		return false;
	}
	return !list->bad;
}

static int explore(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "PATH...",
		.doc = "Try the interleavings of the parallel lanes of litmus tests.\v"
		       "PATH is a file, or a folder whose *.litmus files are run in name order. Exit status: 0 "
		       "everything came out as the files say, 1 something did not, 2 usage or a malformed file.",
	};
	struct arguments arguments = {
		.policy = UCOW_POLICY_EXCLUSIVE,
		.options = {.bound = DEFAULT_BOUND, .seconds = DEFAULT_SECONDS},
	};
	struct litmus_list list = {0};
	struct columns columns = {0};
	int status = CMD_USAGE;

	if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
		return CMD_USAGE;
	if (arguments.replay)
		return replay(&arguments);
	if (collect(&arguments, &list) && choose_columns(&columns, &arguments))
		status = explore_all(&arguments, &columns, &list);
	litmus_list_free(&list);
	return status;
}

static void print_version(FILE *stream, struct argp_state *state)
{
	(void)state;
	fprintf(stream, "ucow %s\n", ucow_version());
}

void (*argp_program_version_hook)(FILE *, struct argp_state *) = print_version;

int main(int argc, char **argv)
{
	static char name[] = "ucow explore";
	int status;

	setlocale(LC_CTYPE, "");
	argp_err_exit_status = CMD_USAGE;
	argv[0] = name;
	status = explore(argc, argv);
	if (!fflush(stdout) && !ferror(stdout))
		return status;
	fprintf(stderr, "ucow: the output cannot be written: %s\n", strerror(errno));
	return CMD_USAGE;
}
