/* SPDX-License-Identifier: MIT */
/*
 * A process for the kernel's side of one row. It is forked before ucow has any memory, so that the kernel pays for what
 * the row is about and for nothing else; it waits in the kernel while ucow is measured. A message of one byte asks for
 * a sample; end of file ends it.
 */
#include "bench.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct reply {
	int err;
	double value;
	char why[BENCH_WHY];
};

static int send_reply(int fd, const struct reply *reply)
{
	return send(fd, reply, sizeof(*reply), MSG_NOSIGNAL) == (ssize_t)sizeof(*reply) ? 0 : -EPIPE;
}

static int receive(int fd, void *message, size_t nbytes)
{
	ssize_t got;

	do
		got = recv(fd, message, nbytes, 0);
	while (got < 0 && errno == EINTR);
	return got == (ssize_t)nbytes ? 0 : -EPIPE;
}

/* The worker's whole life. */
static void serve(int fd, const struct bench_side *side, const struct bench_row *row)
{
	struct reply reply = {0};
	void *state = NULL;
	char request;

	reply.err = side->open(row, &state, reply.why);
	if (send_reply(fd, &reply) || reply.err)
		return;
	while (!receive(fd, &request, sizeof(request))) {
		memset(&reply, 0, sizeof(reply));
		reply.err = side->sample(state, &reply.value, reply.why);
		if (send_reply(fd, &reply))
			break;
	}
	side->close(state);
}

static int take_reply(const struct bench_worker *worker, double *value, char why[BENCH_WHY])
{
	struct reply reply;

	if (receive(worker->fd, &reply, sizeof(reply))) {
		snprintf(why, BENCH_WHY, "the process that measures the kernel has died");
		return -EPIPE;
	}
	memcpy(why, reply.why, BENCH_WHY);
	*value = reply.value;
	return reply.err;
}

int bench_worker_start(struct bench_worker *worker, const struct bench_row *row, char why[BENCH_WHY])
{
	int fds[2], err;
	double none;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		return -errno;
	fflush(NULL);
	worker->pid = fork();
	if (worker->pid < 0) {
		err = -errno;
		close(fds[0]);
		close(fds[1]);
		return err;
	}
	if (worker->pid == 0) {
		/* Not to go on measuring when the benchmark has been killed. */
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[0]);
		serve(fds[1], row->kernel, row);
		_exit(0);
	}
	close(fds[1]);
	worker->fd = fds[0];
	err = take_reply(worker, &none, why);
	if (err)
		bench_worker_stop(worker);
	return err;
}

int bench_worker_sample(struct bench_worker *worker, double *value, char why[BENCH_WHY])
{
	char request = 's';

	/* A worker that has died shows when its reply is read. */
	(void)!send(worker->fd, &request, sizeof(request), MSG_NOSIGNAL);
	return take_reply(worker, value, why);
}

void bench_worker_stop(struct bench_worker *worker)
{
	close(worker->fd);
	while (waitpid(worker->pid, NULL, 0) < 0 && errno == EINTR)
		;
}
