/* SPDX-License-Identifier: MIT */
/*
 * The kernel runner as its callers see it. Each run has a supervisor, a process of its own, so that whatever happens in
 * it ends with it: the caller waits for the result, for so long and no longer.
 */
#include "facilities.h"
#include "kernel.h"
#include "kernel_host.h"

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
/* How long what was killed may take to end. */
#define PATIENCE_SECONDS 5

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

/*
 * Both ends of what ties a run to its caller. The result comes over `answer`. `leash` carries nothing: the supervisor
 * and all participants keep its far end open, so that it is closed when the last of them has ended, whoever is left to
 * tell.
 */
struct ties {
	int answer[2], leash[2];
};

static _Noreturn void supervise(const struct litmus *litmus, const struct run_options *options, pid_t caller,
				const struct ties *ties)
{
	struct run_result result = {0};

	/* Out of the terminal's reach: interrupted, the caller dies, this process with it, and the participants with
	 * this. */
	setpgid(0, 0);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != caller)
		_exit(1);
	close(ties->answer[0]);
	close(ties->leash[0]);
	kernel_supervise(litmus, options, ties->leash[1], &result);
	write_all(ties->answer[1], &result, sizeof(result));
	_exit(0);
}

/* ---- the caller's end ---- */

#define SECOND_NS UINT64_C(1000000000)

enum wait_end { WAIT_READY, WAIT_LATE, WAIT_STOPPED };

/* Wait until @fd is readable or its far end is closed; until @deadline_ns; or until @stop, if not 0, is readable. */
static enum wait_end wait_for(int fd, int stop, uint64_t deadline_ns)
{
	struct pollfd ends[] = {{.fd = fd, .events = POLLIN}, {.fd = stop ? stop : -1, .events = POLLIN}};
	uint64_t now;

	while ((now = kernel_now_ns()) < deadline_ns) {
		if (poll(ends, 2, (int)((deadline_ns - now) / 1000000u) + 1) <= 0)
			continue;
		return ends[1].revents ? WAIT_STOPPED : WAIT_READY;
	}
	return WAIT_LATE;
}

/* Returns: whether the whole result came in time. */
static bool read_result(int answer, const struct run_options *options, struct run_result *result)
{
	uint64_t deadline_ns = kernel_now_ns() + (options->timeout_seconds + GRACE_SECONDS) * SECOND_NS;
	size_t done = 0;

	while (done < sizeof(*result)) {
		ssize_t got;

		if (wait_for(answer, options->stop, deadline_ns) != WAIT_READY)
			return false;
		got = read(answer, (char *)result + done, sizeof(*result) - done);
		if (got == 0)
			return false;
		done += got > 0 ? (size_t)got : 0;
	}
	return true;
}

/* Returns: whether @pid could be reaped; what the kernel does not let go of must not hold us too. */
static bool reap(pid_t pid, int *status)
{
	int ended = (int)syscall(SYS_pidfd_open, pid, 0);

	if (ended >= 0 && wait_for(ended, 0, kernel_now_ns() + PATIENCE_SECONDS * SECOND_NS) != WAIT_READY) {
		close(ended);
		return false;
	}
	if (ended >= 0)
		close(ended);
	while (waitpid(pid, status, 0) < 0)
		if (errno != EINTR)
			return false;
	return true;
}

/* An error of the run as a whole, whatever it said before. */
static void replace(struct run_result *result, const char *reason)
{
	memset(result, 0, sizeof(*result));
	run_result_error(result, NULL, "kernel: %s", reason);
}

static void describe_loss(struct run_result *result, int status)
{
	char text[80];

	if (WIFSIGNALED(status))
		snprintf(text, sizeof(text), "the supervisor crashed or hung: SIG%s", sigabbrev_np(WTERMSIG(status)));
	else
		snprintf(text, sizeof(text), "the supervisor ended with status %d", WEXITSTATUS(status));
	replace(result, text);
}

static void await_supervisor(pid_t pid, const struct ties *ties, const struct run_options *options,
			     struct run_result *result)
{
	bool complete = read_result(ties->answer[0], options, result);
	int status = 0;

	if (!complete)
		kill(pid, SIGKILL); /* takes the participants along: they asked for it (PR_SET_PDEATHSIG) */
	if (!reap(pid, &status))
		replace(result, "the supervisor cannot be ended: it hangs in the kernel");
	else if (!complete)
		describe_loss(result, status);
	if (wait_for(ties->leash[0], 0, kernel_now_ns() + PATIENCE_SECONDS * SECOND_NS) != WAIT_READY &&
	    result->verdict != VERDICT_ERROR)
		replace(result, "some process cannot be ended: it hangs in the kernel");
}

static bool tie(struct ties *ties)
{
	if (pipe2(ties->answer, O_CLOEXEC))
		return false;
	if (!pipe2(ties->leash, O_CLOEXEC))
		return true;
	close(ties->answer[0]);
	close(ties->answer[1]);
	return false;
}

static void run_supervised(const struct litmus *litmus, const struct run_options *options, struct run_result *result)
{
	pid_t caller = getpid(), pid;
	struct ties ties;

	if (!tie(&ties)) {
		run_result_error(result, NULL, "kernel: no pipe: %s", litmus_error_name(errno));
		return;
	}
	pid = fork();
	if (pid == 0)
		supervise(litmus, options, caller, &ties);
	if (pid < 0)
		run_result_error(result, NULL, "kernel: no process: %s", litmus_error_name(errno));
	close(ties.answer[1]);
	close(ties.leash[1]);
	if (pid > 0)
		await_supervisor(pid, &ties, options, result);
	close(ties.answer[0]);
	close(ties.leash[0]);
}

/* ---- what the kernel says of itself ---- */

/* Marks that stay once something went wrong in the kernel. */
static const struct {
	unsigned bit;
	const char *what;
} taints[] = {
	{4, "M, a machine check"}, {5, "B, a bad page"},     {7, "D, an oops"},
	{9, "W, a warning"},       {14, "L, a soft lockup"},
};

/* A verdict is worth nothing where the kernel has broken down meanwhile, whoever's fault that was. */
static void look_for_taint(uint64_t before, struct run_result *result)
{
	uint64_t new = kernel_host_taint() & ~before;

	for (size_t i = 0; i < sizeof(taints) / sizeof(taints[0]); i++) {
		if (!(new >> taints[i].bit & 1))
			continue;
		result->verdict = VERDICT_ERROR;
		snprintf(result->reason, sizeof(result->reason),
			 "kernel: it tainted itself during this test (%s): see its log", taints[i].what);
	}
}

static bool has_swapoff(const struct litmus *litmus)
{
	for (size_t i = 0; i < litmus->nstmts; i++)
		if (litmus->stmts[i].kind == STMT_SWAPOFF)
			return true;
	return false;
}

/* What the machine has once is used by one run at a time. Waiting for it is not part of the run. */
static void run_locked(const struct litmus *litmus, const struct run_options *options, struct run_result *result)
{
	const uint64_t patience_ns = (options->timeout_seconds + GRACE_SECONDS) * SECOND_NS;
	struct facility_locks locks;
	int error = facilities_lock(&locks, litmus->needs, has_swapoff(litmus), options->stop,
				    kernel_now_ns() + patience_ns);

	if (error) {
		run_result_error(result, NULL, "kernel: another run holds swap or the same-page merger: %s",
				 litmus_error_name(-error));
		return;
	}
	run_supervised(litmus, options, result);
	facilities_settle(litmus->needs);
	facilities_unlock(&locks);
}

void litmus_run_kernel(const struct litmus *litmus, const struct run_options *options, struct run_result *result)
{
	uint64_t taint = kernel_host_taint();

	memset(result, 0, sizeof(*result));
	if (kernel_unsupported(litmus, result->reason, sizeof(result->reason))) {
		result->verdict = VERDICT_SKIP;
		return;
	}
	run_locked(litmus, options, result);
	look_for_taint(taint, result);
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
