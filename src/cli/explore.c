/* SPDX-License-Identifier: MIT */
/* The verb `explore`: the program ucow-explore, which lies beside this one or where it was installed. */
#include "cmd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef UCOW_LIBEXEC
#define UCOW_LIBEXEC "/usr/local/libexec/ucow"
#endif

/* Run what lies at @relative from the folder of this program. Returns if that cannot be. */
static void run_beside(const char *relative, char **argv)
{
	char path[4096];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
	char *slash;

	if (length < 0)
		return;
	path[length] = '\0';
	slash = strrchr(path, '/');
	if (!slash || (size_t)(slash + 1 - path) + strlen(relative) >= sizeof(path))
		return;
	strcpy(slash + 1, relative);
	execv(path, argv);
}

int cmd_explore(int argc, char **argv)
{
	(void)argc;
	fflush(NULL);
	run_beside("ucow-explore", argv);
	run_beside("../libexec/ucow/ucow-explore", argv);
	execv(UCOW_LIBEXEC "/ucow-explore", argv);
	fprintf(stderr, "ucow: ucow-explore cannot be run: %s\n", strerror(errno));
	return CMD_USAGE;
}
