/* SPDX-License-Identifier: MIT */
/*
 * The verb `litmus`: the command line, the columns that it asks for, and the loop over tests and columns. How results
 * look is in litmus/report*.c.
 */
#include "cmd.h"
#include "interrupt.h"
#include "litmus/collect.h"
#include "litmus/facilities.h"
#include "litmus/report.h"
#include "litmus/switches.h"

#include <errno.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

enum where { ON_DEFAULT, ON_ENGINE = 1, ON_KERNEL = 2, ON_BOTH = ON_ENGINE | ON_KERNEL };

struct arguments {
	enum where on;
	bool all_policies;
	enum ucow_policy policy;
	bool all_modes;
	enum ucow_fork_mode fork; /* UCOW_FORK_DEFAULT: not given */
	uint64_t repeat, seed, timeout;
	bool json, tap, quiet, in_process;
	int stop; /* see run_options */
	char **paths;
	int npaths;
};

/* ---- the command line ---- */

enum { KEY_ON = 256, KEY_POLICY, KEY_FORK, KEY_REPEAT, KEY_SEED, KEY_TIMEOUT, KEY_JSON, KEY_TAP, KEY_NO_FORK };

static const struct argp_option options[] = {
	{"on", KEY_ON, "engine|kernel|both", 0, "where to run; default: both, where the kernel can", 0},
	{"policy", KEY_POLICY, "NAME|all", 0, "copy-on-write rules of the engine (exclusive); all: the matrix", 0},
	{"fork", KEY_FORK, "eager|tables|lazy|all", 0, "how the engine forks; default: the best there is", 0},
	{"repeat", KEY_REPEAT, "N", 0, "run each test N times, each with the next seed; the worst run counts (1)", 0},
	{"seed", KEY_SEED, "N", 0, "the first seed, which delays the statements of parallel lanes (0)", 0},
	{"timeout", KEY_TIMEOUT, "SECONDS", 0, "for one run (30)", 0},
	{"json", KEY_JSON, NULL, 0, "print one JSON object and nothing else", 0},
	{"tap", KEY_TAP, NULL, 0, "print TAP", 0},
	{"quiet", 'q', NULL, 0, "print only what did not come out as the files say", 0},
	{"no-fork", KEY_NO_FORK, NULL, OPTION_HIDDEN, "run the engine in this process, for debuggers", 0},
	{0},
};

static void parse_on(struct arguments *arguments, const char *value, const struct argp_state *state)
{
	if (!strcmp(value, "engine"))
		arguments->on = ON_ENGINE;
	else if (!strcmp(value, "kernel"))
		arguments->on = ON_KERNEL;
	else if (!strcmp(value, "both"))
		arguments->on = ON_BOTH;
	else
		argp_error(state, "--on wants engine, kernel or both, not `%s'", value);
}

static void parse_policy(struct arguments *arguments, const char *value, const struct argp_state *state)
{
	char known[200] = "";
	size_t used = 0;

	arguments->all_policies = !strcmp(value, "all");
	if (arguments->all_policies || !ucow_policy_parse(value, &arguments->policy))
		return;
	for (int i = 0; i < UCOW_POLICY_COUNT && used < sizeof(known); i++)
		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s, ",
					 ucow_policy_name((enum ucow_policy)i));
	argp_error(state, "no policy is called `%s'; there are: %sall", value, known);
}

static void parse_fork(struct arguments *arguments, const char *value, const struct argp_state *state)
{
	arguments->all_modes = !strcmp(value, "all");
	arguments->fork = UCOW_FORK_DEFAULT;
	if (arguments->all_modes)
		return;
	if (ucow_fork_mode_parse(value, &arguments->fork) || arguments->fork == UCOW_FORK_DEFAULT)
		argp_error(state, "--fork wants eager, tables, lazy or all, not `%s'", value);
}

static void parse_end(const struct arguments *arguments, struct argp_state *state)
{
	if (arguments->json && arguments->tap)
		argp_error(state, "--json and --tap exclude each other");
	if (arguments->json && !report_has_json())
		argp_error(state, "--json: this ucow was built without jansson");
	if (!arguments->npaths)
		argp_error(state, "which tests? PATH is a file or a folder");
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case KEY_ON:
		parse_on(arguments, value, state);
		break;
	case KEY_POLICY:
		parse_policy(arguments, value, state);
		break;
	case KEY_FORK:
		parse_fork(arguments, value, state);
		break;
	case KEY_REPEAT:
		arguments->repeat = cmd_number(state, "--repeat", value, 1, 1000000);
		break;
	case KEY_SEED:
		arguments->seed = cmd_number(state, "--seed", value, 0, UINT64_MAX);
		break;
	case KEY_TIMEOUT:
		arguments->timeout = cmd_number(state, "--timeout", value, 1, 86400);
		break;
	case KEY_JSON:
		arguments->json = true;
		break;
	case KEY_TAP:
		arguments->tap = true;
		break;
	case 'q':
		arguments->quiet = true;
		break;
	case KEY_NO_FORK:
		arguments->in_process = true;
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

/* ---- columns ---- */

#define MAX_COLUMNS (UCOW_POLICY_COUNT * UCOW_FORK_MODE_COUNT + 1)

struct columns {
	struct report_column list[MAX_COLUMNS];
	size_t n;
};

/* Which policy runs in which mode is the library's to say. */
static bool machine_exists(enum ucow_policy policy, enum ucow_fork_mode fork)
{
	struct ucow_machine_options machine_options = {
		.size = sizeof(machine_options), .policy = policy, .fork_mode = fork};
	struct ucow_machine *machine;

	if (ucow_machine_create(&machine_options, &machine))
		return false;
	ucow_machine_destroy(machine);
	return true;
}

static void add_column(struct columns *columns, bool on_kernel, enum ucow_policy policy, enum ucow_fork_mode fork)
{
	columns->list[columns->n++] = (struct report_column){.on_kernel = on_kernel, .policy = policy, .fork = fork};
}

/* The columns of one policy: the mode asked for, all there are, or the best there is. */
static void add_policy(struct columns *columns, const struct arguments *arguments, enum ucow_policy policy)
{
	static const enum ucow_fork_mode best_first[] = {UCOW_FORK_LAZY, UCOW_FORK_TABLES, UCOW_FORK_EAGER};

	if (arguments->fork != UCOW_FORK_DEFAULT) {
		if (machine_exists(policy, arguments->fork))
			add_column(columns, false, policy, arguments->fork);
		return;
	}
	for (size_t i = 0; i < sizeof(best_first) / sizeof(best_first[0]); i++) {
		if (!machine_exists(policy, best_first[i]))
			continue;
		add_column(columns, false, policy, best_first[i]);
		if (!arguments->all_modes)
			return;
	}
}

static void add_engine(struct columns *columns, const struct arguments *arguments)
{
	if (!arguments->all_policies) {
		add_policy(columns, arguments, arguments->policy);
		return;
	}
	for (size_t i = 0; i < UCOW_POLICY_COUNT; i++)
		add_policy(columns, arguments, report_policies[i].policy);
}

/* Returns: whether there is anything to run; if not, stderr says why. */
static bool choose_columns(struct columns *columns, const struct arguments *arguments)
{
	enum where on = arguments->on;
	const char *why = "";

	if (on == ON_DEFAULT) {
		on = litmus_kernel_possible(&why) ? ON_BOTH : ON_ENGINE;
		if (on == ON_ENGINE)
			fprintf(stderr, "ucow litmus: on the engine only: %s\n", why);
	}
	if (on & ON_ENGINE)
		add_engine(columns, arguments);
	if (on & ON_ENGINE && !columns->n) {
		fprintf(stderr, "ucow litmus: fork mode %s is not built yet%s\n", ucow_fork_mode_name(arguments->fork),
			arguments->all_policies ? "" : " for this policy");
		return false;
	}
	if (on & ON_KERNEL)
		add_column(columns, true, UCOW_POLICY_EXCLUSIVE, UCOW_FORK_EAGER);
	return true;
}

/* ---- runs ---- */

/* Of several runs the worst one counts. */
static int badness(enum verdict verdict)
{
	static const int order[] = {
		[VERDICT_SKIP] = 0,
		[VERDICT_PASS] = 1,
		[VERDICT_BREAK] = 2,
		[VERDICT_ERROR] = 3,
	};

	return order[verdict];
}

static void run_once(const struct litmus *litmus, const struct report_column *column, const struct run_options *run,
		     struct run_result *result)
{
	const char *why;

	if (!column->on_kernel) {
		litmus_run_engine(litmus, run, result);
	} else if (litmus_kernel_possible(&why)) {
		litmus_run_kernel(litmus, run, result);
	} else {
		*result = (struct run_result){.verdict = VERDICT_SKIP};
		snprintf(result->reason, sizeof(result->reason), "kernel: %s", why);
	}
}

static void run_cell(const struct litmus *litmus, const struct report_column *column, const struct arguments *arguments,
		     struct report_cell *cell)
{
	struct run_options run = {
		.policy = column->policy,
		.fork = column->fork,
		.timeout_seconds = (unsigned)arguments->timeout,
		.stop = arguments->stop,
		.in_process = arguments->in_process,
	};
	struct run_result result;

	for (uint64_t i = 0; i < arguments->repeat && !interrupt_signal(); i++) {
		run.seed = arguments->seed + i;
		run_once(litmus, column, &run, &result);
		if (i && badness(result.verdict) <= badness(cell->result.verdict))
			continue;
		cell->result = result;
		cell->seed = run.seed;
	}
	cell->expected = litmus_expected(litmus, column->on_kernel, column->policy, cell->result.verdict);
}

/* One line that is overwritten, where somebody watches. */
static void show_progress(const struct report *report, size_t test, size_t column)
{
	char name[40];

	if (!isatty(STDERR_FILENO))
		return;
	report_column_name(report, column, name);
	fprintf(stderr, "\r\033[K%zu/%zu %.50s (%s)", test + 1, report->ntests, report->tests[test].litmus->test, name);
}

static void clear_progress(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

/* Returns: whether it has run in every column. */
static bool run_test(const struct report *report, const struct arguments *arguments, size_t i)
{
	for (size_t j = 0; j < report->ncolumns && !interrupt_signal(); j++) {
		show_progress(report, i, j);
		run_cell(report->tests[i].litmus, &report->columns[j], arguments, &report->tests[i].cells[j]);
	}
	clear_progress();
	return !interrupt_signal();
}

static int run_all(struct report *report, const struct arguments *arguments, const struct report_format *format)
{
	int error = 0;

	if (format->begin)
		format->begin(report);
	while (report->ndone < report->ntests && run_test(report, arguments, report->ndone)) {
		report->ndone++;
		if (format->test)
			format->test(report, &report->tests[report->ndone - 1]);
	}
	if (report->ndone < report->ntests)
		report->interrupted_by = interrupt_signal();
	if (format->end)
		error = format->end(report);
	if (error) {
		fprintf(stderr, "ucow litmus: no report: %s\n", strerror(-error));
		return CMD_USAGE;
	}
	return report_totals(report).unexpected ? CMD_UNEXPECTED : CMD_OK;
}

/* ---- the report ---- */

static bool wants_colour(void)
{
	const char *no_colour = getenv("NO_COLOR"), *terminal = getenv("TERM");

	return isatty(STDOUT_FILENO) && !(no_colour && *no_colour) && terminal && strcmp(terminal, "dumb");
}

static const struct report_format *choose_format(const struct arguments *arguments)
{
	if (arguments->json)
		return &report_json;
	if (arguments->tap)
		return &report_tap;
	return arguments->all_policies ? &report_matrix : &report_lines;
}

static int report_tests(const struct arguments *arguments, const struct columns *columns,
			const struct litmus_list *list, const struct kernel_host *host)
{
	struct report report = {
		.host = host,
		.out = stdout,
		.colour = wants_colour(),
		.unicode = !strcmp(nl_langinfo(CODESET), "UTF-8"),
		.quiet = arguments->quiet,
		.columns = columns->list,
		.ncolumns = columns->n,
		.ntests = list->n,
		.tests = calloc(list->n, sizeof(*report.tests)),
	};
	struct report_cell *cells = calloc(list->n * columns->n, sizeof(*cells));
	struct utsname system;
	int status = CMD_USAGE;

	snprintf(report.kernel, sizeof(report.kernel), "%s", uname(&system) ? "?" : system.release);
	if (report.tests && cells) {
		for (size_t i = 0; i < list->n; i++)
			report.tests[i] = (struct report_test){list->tests[i], cells + i * columns->n};
		status = run_all(&report, arguments, choose_format(arguments));
	} else {
		fprintf(stderr, "ucow litmus: out of memory\n");
	}
	free(cells);
	free(report.tests);
	return status;
}

/* ---- what the kernel runs on ---- */

static void add_changes_to_host(struct kernel_host *host, const struct switches *switches,
				const struct facilities *facilities)
{
	char text[300], made[100];
	size_t used = 0;

	facilities_describe(facilities, made, sizeof(made));
	for (size_t i = 0; i < switches->n; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s=%s", i ? " " : "",
					 switches->list[i].name, switches->list[i].wanted);
	snprintf(text + used, sizeof(text) - used, "%s%s", used && *made ? " " : "",
		 *made  ? made
		 : used ? ""
			: "nothing");
	kernel_host_add(host, "set_for_run", "set_for_run", text);
}

static unsigned all_needs(const struct litmus_list *list)
{
	unsigned needs = 0;

	for (size_t i = 0; i < list->n; i++)
		needs |= list->tests[i]->needs;
	return needs;
}

/* Returns: the exit status. */
static int report_on_kernel(const struct arguments *arguments, const struct columns *columns,
			    const struct litmus_list *list)
{
	struct switches switches = {0};
	struct facilities facilities;
	struct kernel_host host;
	int status, error;

	kernel_host_describe(&host);
	facilities_plan(&facilities, all_needs(list), &switches);
	switches_add_movers(&switches);
	error = switches_hold(&switches);
	if (error)
		fprintf(stderr, "ucow litmus: no switch of this machine is set: %s\n", strerror(-error));
	else
		facilities_make(&facilities);
	add_changes_to_host(&host, &switches, &facilities);
	status = report_tests(arguments, columns, list, &host);
	error = switches_release(&switches);
	if (error)
		fprintf(stderr, "ucow litmus: a switch of this machine is not restored: %s\n", strerror(-error));
	return error ? CMD_USAGE : status;
}

static int report_columns(struct arguments *arguments, const struct columns *columns, const struct litmus_list *list)
{
	const char *why;
	int status;

	arguments->stop = interrupt_watch();
	if (columns->list[columns->n - 1].on_kernel && litmus_kernel_possible(&why))
		status = report_on_kernel(arguments, columns, list);
	else
		status = report_tests(arguments, columns, list, NULL);
	if (interrupt_signal()) {
		fflush(stdout);
		interrupt_end(interrupt_signal());
	}
	return status;
}

/* ---- */

/* Returns: whether every path is good. */
static bool collect(const struct arguments *arguments, struct litmus_list *list)
{
	for (int i = 0; i < arguments->npaths; i++) {
		if (litmus_collect(arguments->paths[i], list, stderr) == 0)
			continue;
		fprintf(stderr, "ucow litmus: out of memory\n");
		return false;
	}
	return !list->bad;
}

int cmd_litmus(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "PATH...",
		.doc = "Run litmus tests on the engine and on the live kernel.\v"
		       "PATH is a file, or a folder whose *.litmus files are run in name order. Exit status: 0 "
		       "everything "
		       "came out as the files say, 1 something did not, 2 usage or a malformed file.",
	};
	struct arguments arguments = {.repeat = 1, .timeout = 30};
	struct litmus_list list = {0};
	struct columns columns = {0};
	int status = CMD_USAGE;

	if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
		return CMD_USAGE;
	if (collect(&arguments, &list) && choose_columns(&columns, &arguments))
		status = report_columns(&arguments, &columns, &list);
	litmus_list_free(&list);
	return status;
}
