/* SPDX-License-Identifier: MIT */
/*
 * The kernel runner as its callers see it. Each run has a supervisor, a process of its own, so that whatever happens in
 * it ends with it: the caller waits for the result, for so long and no longer.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The supervisor keeps the time itself; this is for the case that it cannot. */
#define GRACE_SECONDS 10

/* ---- the supervisor's end ---- */

static void write_all(int fd, const void *bytes, size_t nbytes)
{
	for (size_t done = 0; done < nbytes;) {
		ssize_t put = write(fd, (const char *)bytes + done, nbytes - done);

		if (put < 0 && errno != EINTR)
			return;
		done += put > 0 ? (size_t)put : 0;
	}
}

static _Noreturn void supervise(const struct litmus *litmus, const struct run_options *options, pid_t caller,
				int answer)
{
	struct run_result result = {0};

	/* Out of the terminal's reach: interrupted, the caller dies, this process with it, and the participants with
	 * this. */
	setpgid(0, 0);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != caller)
		_exit(1);
	kernel_supervise(litmus, options, &result);
	write_all(answer, &result, sizeof(result));
	_exit(0);
}

/* ---- the caller's end ---- */

/* Returns: whether the whole result came in time. */
static bool read_result(int answer, struct run_result *result, uint64_t deadline_ns)
{
	struct pollfd wait = {.fd = answer, .events = POLLIN};
	size_t done = 0;

	while (done < sizeof(*result)) {
		uint64_t now = kernel_now_ns();
		ssize_t got = -1;

		if (now >= deadline_ns)
			return false;
		if (poll(&wait, 1, (int)((deadline_ns - now) / 1000000u) + 1) > 0)
			got = read(answer, (char *)result + done, sizeof(*result) - done);
		if (got == 0)
			return false;
		done += got > 0 ? (size_t)got : 0;
	}
	return true;
}

static int reap(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	return status;
}

static void describe_loss(struct run_result *result, int status)
{
	memset(result, 0, sizeof(*result));
	if (WIFSIGNALED(status))
		run_result_error(result, NULL, "kernel: the supervisor crashed or hung: SIG%s",
				 sigabbrev_np(WTERMSIG(status)));
	else
		run_result_error(result, NULL, "kernel: the supervisor ended with status %d", WEXITSTATUS(status));
}

static void await_supervisor(pid_t pid, int answer, unsigned seconds, struct run_result *result)
{
	bool complete = read_result(answer, result, kernel_now_ns() + seconds * UINT64_C(1000000000));
	int status;

	if (!complete)
		kill(pid, SIGKILL); /* takes the participants along: they asked for it (PR_SET_PDEATHSIG) */
	status = reap(pid);
	if (!complete)
		describe_loss(result, status);
}

static void run_supervised(const struct litmus *litmus, const struct run_options *options, struct run_result *result)
{
	pid_t caller = getpid(), pid;
	int answer[2];

	if (pipe2(answer, O_CLOEXEC)) {
		run_result_error(result, NULL, "kernel: no pipe: %s", litmus_error_name(errno));
		return;
	}
	pid = fork();
	if (pid == 0)
		supervise(litmus, options, caller, answer[1]);
	close(answer[1]);
	if (pid > 0)
		await_supervisor(pid, answer[0], options->timeout_seconds + GRACE_SECONDS, result);
	else
		run_result_error(result, NULL, "kernel: no process: %s", litmus_error_name(errno));
	close(answer[0]);
}

void litmus_run_kernel(const struct litmus *litmus, const struct run_options *options, struct run_result *result)
{
	memset(result, 0, sizeof(*result));
	if (kernel_unsupported(litmus, result->reason, sizeof(result->reason)))
		result->verdict = VERDICT_SKIP;
	else
		run_supervised(litmus, options, result);
}

/* A call that the kernel knows, whatever it says to these arguments. */
static bool knows(long result)
{
	return result >= 0 || errno != ENOSYS;
}

bool litmus_kernel_possible(const char **reason)
{
	if (sysconf(_SC_PAGESIZE) != KERNEL_PAGE)
		*reason = "pages here have another size than 4 KiB";
	else if (!knows(syscall(SYS_pidfd_open, -1, 0)) || !knows(syscall(SYS_close_range, 1, 0, 0)))
		*reason = "needs Linux 5.9 or newer";
	else if (access("/proc/self/maps", R_OK))
		*reason = "/proc is not mounted";
	else
		return true;
	return false;
}
