/* SPDX-License-Identifier: MIT */
/*
 * An engine run in a process of its own, so that neither a crash nor a hang of the engine takes other runs with it.
 */
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Milliseconds until @deadline, at least 0. */
static int milliseconds_left(const struct timespec *deadline)
{
	struct timespec now;
	int64_t left;

	clock_gettime(CLOCK_MONOTONIC, &now);
	left = (deadline->tv_sec - now.tv_sec) * INT64_C(1000) + (deadline->tv_nsec - now.tv_nsec) / 1000000;
	return left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
}

/* Wait until the other end of @fd is closed. Returns: whether it was, within @seconds and before @stop was readable. */
static bool wait_closed(int fd, int stop, unsigned seconds)
{
	struct pollfd ends[] = {{.fd = fd, .events = POLLIN}, {.fd = stop ? stop : -1, .events = POLLIN}};
	struct timespec deadline;
	int ready;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += seconds;
	do
		ready = poll(ends, 2, milliseconds_left(&deadline));
	while (ready < 0 && errno == EINTR);
	return ready > 0 && ends[0].revents;
}

static int reap(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

/* What the child shares with its parent. */
struct answer {
	struct run_result result;
	bool done; /* the result is whole */
	/* The statements that run now, by lane: the parent has them at the same addresses. */
	const struct stmt *volatile at[LITMUS_LANES_MAX];
};

/* The first of them in the file; @others: whether there are more. */
static const struct stmt *running(const struct answer *answer, bool *others)
{
	const struct stmt *first = NULL;

	*others = false;
	for (size_t i = 0; i < LITMUS_LANES_MAX; i++) {
		const struct stmt *stmt = answer->at[i];

		*others |= first && stmt;
		if (!first)
			first = stmt;
	}
	return first;
}

static void describe_end(struct run_result *result, const struct answer *answer, int status)
{
	bool others;
	const struct stmt *at = running(answer, &others);
	const char *when = !at ? " at the end of the test" : others ? " here or in another lane" : "";

	if (WIFSIGNALED(status))
		run_result_error(result, at, "engine: crashed%s: SIG%s", when, sigabbrev_np(WTERMSIG(status)));
	else
		run_result_error(result, at, "engine: ended%s with status %d", when, WEXITSTATUS(status));
}

static _Noreturn void run_child(const struct litmus *litmus, const struct run_options *options, struct answer *answer,
				pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	engine_run_here(litmus, options, &answer->result, answer->at);
	answer->done = true;
	_exit(0);
}

static void await_child(pid_t pid, int fd, const struct run_options *options, const struct answer *answer,
			struct run_result *result)
{
	bool ended = wait_closed(fd, options->stop, options->timeout_seconds), others;
	int status;

	if (!ended)
		kill(pid, SIGKILL);
	status = reap(pid);
	if (answer->done)
		*result = answer->result;
	else if (!ended)
		run_result_error(result, running(answer, &others), "engine: timed out after %u s",
				 options->timeout_seconds);
	else
		describe_end(result, answer, status);
}

void engine_run_apart(const struct litmus *litmus, const struct run_options *options, struct run_result *result)
{
	struct answer *answer = mmap(NULL, sizeof(*answer), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t parent = getpid(), pid = -1;
	int fds[2];

	if (answer != MAP_FAILED && !pipe2(fds, O_CLOEXEC)) {
		fflush(NULL);
		pid = fork();
		if (!pid)
			run_child(litmus, options, answer, parent);
		close(fds[1]);
		if (pid > 0)
			await_child(pid, fds[0], options, answer, result);
		close(fds[0]);
	}
	if (pid < 0)
		run_result_error(result, NULL, "no process for the engine: %s", strerror(errno));
	if (answer != MAP_FAILED)
		munmap(answer, sizeof(*answer));
}
