/* SPDX-License-Identifier: MIT */
/* The verbs of the ucow command: one file each, one entry point each. */
#ifndef CLI_CMD_H
#define CLI_CMD_H

#include <argp.h>
#include <stddef.h>
#include <stdint.h>

/* Exit statuses of every verb. */
enum cmd_status {
	CMD_OK = 0,         /* everything came out as it should */
	CMD_UNEXPECTED = 1, /* something did not */
	CMD_USAGE = 2,      /* bad options, bad input, or output that cannot be written */
};

/*
 * A verb's main: argv[0] is the name to show ("ucow litmus"), the rest is the verb's. `--help` and bad options end the
 * program.
 */
typedef int cmd_main(int argc, char **argv);

cmd_main cmd_litmus, cmd_explore, cmd_fuzz, cmd_bench, cmd_help;

struct cmd {
	const char *name;
	const char *what; /* half a line for `ucow help` */
	cmd_main *main;
};
/* The commands there are, ended by a NULL name. */
extern const struct cmd cmd_table[];

/* cmd_find - the command called @name, or NULL. */
const struct cmd *cmd_find(const char *name);
/* cmd_unknown - say on stderr that there is no command @name. Returns: CMD_USAGE. */
int cmd_unknown(const char *name);

/* cmd_number - the number that option @option got, from @least to @most; else a usage error ends the program. */
uint64_t cmd_number(const struct argp_state *state, const char *option, const char *value, uint64_t least,
		    uint64_t most);

#endif
