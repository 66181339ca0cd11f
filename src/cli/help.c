/* SPDX-License-Identifier: MIT */
/* The verb `help`: the list of commands, or one command's own help. */
#include "cmd.h"

#include <stdio.h>

static void list_commands(void)
{
	printf("Usage: ucow COMMAND [ARGUMENT...]\n\n");
	for (const struct cmd *cmd = cmd_table; cmd->name; cmd++)
		printf("  %-8s  %s\n", cmd->name, cmd->what);
	printf("\n`ucow help COMMAND` or `ucow COMMAND --help` tells more, the pages ucow(1) and ucow-litmus(1) most.\n"
	       "Exit status: 0 everything came out as it should, 1 something did not, 2 usage or bad input.\n");
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	const char **command = state->input;

	if (key != ARGP_KEY_ARG)
		return ARGP_ERR_UNKNOWN;
	if (*command)
		argp_error(state, "one command at a time");
	*command = value;
	return 0;
}

int cmd_help(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse_option,
		.args_doc = "[COMMAND]",
		.doc = "Say what commands there are, or what one does.",
	};
	const struct cmd *cmd;
	const char *command = NULL;
	char name[40], option[] = "--help";
	char *help[] = {name, option, NULL};

	if (argp_parse(&argp, argc, argv, 0, NULL, &command))
		return CMD_USAGE;
	if (!command) {
		list_commands();
		return CMD_OK;
	}
	cmd = cmd_find(command);
	if (!cmd)
		return cmd_unknown(command);
	snprintf(name, sizeof(name), "ucow %s", command);
	return cmd->main(2, help);
}
