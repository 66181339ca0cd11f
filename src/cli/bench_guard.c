/* SPDX-License-Identifier: MIT */
/* The process that undoes what a row has changed in the running system. */
#include "bench_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct made {
	int err;
	char why[BENCH_WHY];
};

/* What is typed at the terminal, or sent to the group, is meant for the benchmark, whose end the guard waits for. */
static void stand_apart(void)
{
	static const int deadly[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};

	for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++)
		signal(deadly[i], SIG_IGN);
	(void)setsid();
}

/* Until the owner says so or is no more. Its children may hold the other end of @fd as well: that end alone is no sign.
 */
static void wait_for_end(int fd, int owner)
{
	struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = owner, .events = POLLIN}};

	while (poll(fds, 2, -1) < 0 && errno == EINTR)
		;
}

static _Noreturn void guard_main(int fd, int owner, const struct bench_change *change, void *arg)
{
	struct made made = {0};

	stand_apart();
	made.err = change->make(arg, made.why);
	if (send(fd, &made, sizeof(made), MSG_NOSIGNAL) == (ssize_t)sizeof(made) && !made.err)
		wait_for_end(fd, owner);
	change->undo(arg);
	_exit(0);
}

static int take_made(const struct bench_guard *guard, char why[BENCH_WHY])
{
	struct made made;
	ssize_t got;

	do
		got = recv(guard->fd, &made, sizeof(made), 0);
	while (got < 0 && errno == EINTR);
	if (got != (ssize_t)sizeof(made)) {
		snprintf(why, BENCH_WHY, "the process that changes the system has died");
		return -EPIPE;
	}
	memcpy(why, made.why, BENCH_WHY);
	return made.err;
}

int bench_guard_start(struct bench_guard *guard, const struct bench_change *change, void *arg, char why[BENCH_WHY])
{
	int owner = (int)syscall(SYS_pidfd_open, getpid(), 0), fds[2], err;

	if (owner < 0)
		return -errno;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds)) {
		err = -errno;
		close(owner);
		return err;
	}
	fflush(NULL);
	guard->pid = fork();
	if (guard->pid == 0)
		guard_main(fds[1], owner, change, arg);
	err = guard->pid < 0 ? -errno : 0;
	close(owner);
	close(fds[1]);
	guard->fd = fds[0];
	if (err) {
		close(guard->fd);
		return err;
	}
	err = take_made(guard, why);
	if (err)
		bench_guard_stop(guard);
	return err;
}

void bench_guard_stop(struct bench_guard *guard)
{
	char end = 'e';

	/* A guard that is gone has nothing left to undo. */
	(void)!send(guard->fd, &end, sizeof(end), MSG_NOSIGNAL);
	while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR)
		;
	close(guard->fd);
}

int bench_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		err = errno ? -errno : -EIO;
	close(fd);
	return err;
}

int bench_read_file(const char *path, char *text, size_t nbytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return -errno;
	got = read(fd, text, nbytes - 1);
	close(fd);
	if (got < 0)
		return -errno;
	text[got] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return 0;
}
