/* SPDX-License-Identifier: MIT */
/*
 * The ucow command: what stands before the verb, the table of verbs, and what all verbs share.
 */
#include "cmd.h"

#include <ucow/types.h>

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct cmd cmd_table[] = {
	{"litmus", "run litmus tests on the engine and on the live kernel", cmd_litmus},
	{"explore", "try the interleavings of parallel lanes on the engine", cmd_explore},
	{"fuzz", "compare the engine with the live kernel on random programs", cmd_fuzz},
	{"bench", "measure the engine and the live kernel side by side", cmd_bench},
	{"help", "what there is, or what a command does", cmd_help},
	{0},
};

const struct cmd *cmd_find(const char *name)
{
	for (const struct cmd *cmd = cmd_table; cmd->name; cmd++)
		if (!strcmp(cmd->name, name))
			return cmd;
	return NULL;
}

int cmd_unknown(const char *name)
{
	fprintf(stderr, "ucow: there is no command `%s`; `ucow help` lists them\n", name);
	return CMD_USAGE;
}

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

/* ---- before the verb ---- */

struct arguments {
	const struct cmd *cmd;
	char **argv; /* from the verb on */
	int argc;
	int status; /* where there is no verb */
};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case ARGP_KEY_ARG:
		arguments->argv = state->argv + state->next - 1;
		arguments->argc = state->argc - state->next + 1;
		arguments->cmd = cmd_find(value);
		if (!arguments->cmd)
			arguments->status = cmd_unknown(value);
		state->next = state->argc; /* the rest is the verb's */
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_usage(state);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static void print_version(FILE *stream, struct argp_state *state)
{
	(void)state;
	fprintf(stream, "ucow %s\n", ucow_version());
}

void (*argp_program_version_hook)(FILE *, struct argp_state *) = print_version;

static int run(const struct arguments *arguments)
{
	char name[40];

	snprintf(name, sizeof(name), "ucow %s", arguments->cmd->name);
	arguments->argv[0] = name;
	return arguments->cmd->main(arguments->argc, arguments->argv);
}

/* Output that got lost must not look like success. */
static int finish(int status)
{
	if (!fflush(stdout) && !ferror(stdout))
		return status;
	fprintf(stderr, "ucow: the output cannot be written: %s\n", strerror(errno));
	return CMD_USAGE;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse_option,
		.args_doc = "COMMAND [ARGUMENT...]",
		.doc = "Copy-on-write and page pins in user space, and beside the kernel.\v"
		       "`ucow help` lists the commands, `ucow help COMMAND` tells what one does.",
	};
	struct arguments arguments = {0};

	setlocale(LC_CTYPE, "");
	argp_err_exit_status = CMD_USAGE;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &arguments))
		return CMD_USAGE;
	return finish(arguments.cmd ? run(&arguments) : arguments.status);
}
