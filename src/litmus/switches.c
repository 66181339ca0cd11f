/* SPDX-License-Identifier: MIT */
/*
 * Switches and their guardian. Both sides restore in the same way, which does nothing the second time, so that either
 * may be killed at any moment.
 */
#include "switches.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- one switch ---- */

/* The first line of @path. Returns: 0; -errno. */
static int read_switch(const char *path, char *value, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return -errno;
	got = read(fd, value, size - 1);
	value[got > 0 ? got : 0] = '\0';
	close(fd);
	value[strcspn(value, "\n")] = '\0';
	return got < 0 ? -EIO : 0;
}

static int write_switch(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC), error = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		error = -errno;
	close(fd);
	return error;
}

static bool is_ours(const struct machine_switch *one, const char *now)
{
	return !strcmp(now, one->wanted) || (one->flipped && !strcmp(now, one->flipped));
}

/* Returns: 0, also where there is nothing to restore; -errno of the last that could not be. */
static int restore(const struct switches *switches)
{
	char now[sizeof(switches->list[0].before)];
	int error = switches->undo ? switches->undo(switches->what) : 0;

	for (size_t i = switches->n; i-- > 0;) {
		const struct machine_switch *one = &switches->list[i];
		int failed = read_switch(one->path, now, sizeof(now));

		if (!failed && is_ours(one, now) && strcmp(now, one->before))
			failed = write_switch(one->path, one->before);
		if (failed)
			error = failed;
	}
	return error;
}

static int set_all(const struct switches *switches)
{
	int error = 0;

	for (size_t i = 0; !error && i < switches->n; i++)
		error = write_switch(switches->list[i].path, switches->list[i].wanted);
	return error;
}

/* ---- the guardian ---- */

/* Nobody's terminal, nobody's streams, and no descriptor but @line: others wait for these to be closed. */
static void step_aside(int line)
{
	static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP};
	int null = open("/dev/null", O_RDWR);

	setsid();
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	for (int stream = 0; null >= 0 && stream <= STDERR_FILENO; stream++)
		dup2(null, stream);
	if (line > 3)
		close_range(3, (unsigned)line - 1, 0);
	close_range((unsigned)line + 1, ~0u, 0);
	prctl(PR_SET_NAME, "ucow-guardian");
}

/* Tell the program that it may set its switches now, and wait for it to release them or to die. */
static void await_end(pid_t program, int line)
{
	struct pollfd ends[] = {
		{.fd = line, .events = POLLIN},
		{.fd = (int)syscall(SYS_pidfd_open, program, 0), .events = POLLIN},
	};

	if (ends[1].fd < 0 || getppid() != program || send(line, "r", 1, MSG_NOSIGNAL) != 1)
		return;
	while (poll(ends, 2, -1) < 0 && errno == EINTR)
		continue;
}

static _Noreturn void guard(const struct switches *switches, pid_t program, int line)
{
	step_aside(line);
	await_end(program, line);
	_exit(restore(switches) ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* Returns: 0; -errno. */
static int await_guardian(int line)
{
	char ready;
	ssize_t got;

	do
		got = read(line, &ready, 1);
	while (got < 0 && errno == EINTR);
	return got == 1 ? 0 : -ESRCH;
}

static int start_guardian(struct switches *switches)
{
	pid_t program = getpid(), pid;
	int ends[2], error = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		guard(switches, program, ends[0]);
	if (pid < 0)
		error = -errno;
	close(ends[0]);
	if (error) {
		close(ends[1]);
		return error;
	}
	switches->guardian = pid;
	switches->line = ends[1];
	return await_guardian(switches->line);
}

static void end_guardian(struct switches *switches)
{
	shutdown(switches->line, SHUT_RDWR); /* others may have inherited it */
	close(switches->line);
	while (waitpid(switches->guardian, NULL, 0) < 0 && errno == EINTR)
		continue;
	switches->guardian = 0;
}

/* ---- for the program ---- */

static bool is_added(const struct switches *switches, const char *path)
{
	for (size_t i = 0; i < switches->n; i++)
		if (!strcmp(switches->list[i].path, path))
			return true;
	return false;
}

bool switches_add_flipped(struct switches *switches, const char *name, const char *path, const char *wanted,
			  const char *flipped)
{
	struct machine_switch one = {.name = name, .path = path, .wanted = wanted, .flipped = flipped};

	if (switches->n == SWITCHES_MAX || is_added(switches, path) || access(path, W_OK) ||
	    read_switch(path, one.before, sizeof(one.before)) || (!flipped && !strcmp(one.before, wanted)))
		return false;
	switches->list[switches->n++] = one;
	return true;
}

bool switches_add(struct switches *switches, const char *name, const char *path, const char *wanted)
{
	return switches_add_flipped(switches, name, path, wanted, NULL);
}

void switches_undo_with(struct switches *switches, int (*undo)(const void *what), const void *what)
{
	switches->undo = undo;
	switches->what = what;
}

void switches_add_movers(struct switches *switches)
{
	switches_add(switches, "numa_balancing", "/proc/sys/kernel/numa_balancing", "0");
	switches_add(switches, "ksm_run", "/sys/kernel/mm/ksm/run", "0");
}

int switches_hold(struct switches *switches)
{
	int error = switches->n || switches->undo ? start_guardian(switches) : 0;

	if (!error)
		error = set_all(switches);
	if (error)
		switches_release(switches);
	return error;
}

int switches_release(struct switches *switches)
{
	int error;

	if (!switches->guardian)
		return 0;
	end_guardian(switches);
	error = restore(switches); /* what the guardian could not, if it was killed */
	switches->n = 0;
	switches->undo = NULL;
	return error;
}
