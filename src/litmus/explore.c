/* SPDX-License-Identifier: MIT */
/*
 * Exploring a test, seen from outside: a process that searches and, if it found something or crashed, a second one that
 * follows the schedule and writes down the steps.
 */
#include "explore.h"

#include "engine.h"
#include "explore_run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STUCK_SECONDS 20 /* without any step: the engine is in a loop that no hook sees */

typedef void child_main(const struct litmus *litmus, const struct explore_options *options,
			struct explore_shared *shared);

static void fail(struct explore_result *result, const char *why)
{
	result->verdict = VERDICT_ERROR;
	snprintf(result->reason, sizeof(result->reason), "%s", why);
}

/* ---- a process of its own ---- */

static int reap(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

/* Wait until the other end of @fd is closed, or until nothing has moved for long. Returns: whether it was closed. */
static bool watch(int fd, const struct explore_shared *shared)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	uint64_t steps = UINT64_MAX;

	for (;;) {
		int ready = poll(&poll_fd, 1, STUCK_SECONDS * 1000);
		uint64_t now = shared->search.steps + shared->nsteps + shared->interleavings;

		if (ready > 0)
			return true;
		if (ready < 0 && errno != EINTR)
			return false;
		if (!ready && now == steps)
			return false;
		steps = now;
	}
}

static _Noreturn void run_child(child_main *child, const struct litmus *litmus, const struct explore_options *options,
				struct explore_shared *shared, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent)
		child(litmus, options, shared);
	_exit(0);
}

static void describe_crash(struct explore_shared *shared, bool stuck, int status)
{
	struct run_result *result = &shared->result;

	result->verdict = VERDICT_ERROR;
	if (stuck)
		snprintf(result->reason, sizeof(result->reason), "livelock: a loop without steps");
	else if (shared->bug[0])
		snprintf(result->reason, sizeof(result->reason), "engine: %.180s", shared->bug);
	else if (WIFSIGNALED(status))
		snprintf(result->reason, sizeof(result->reason), "engine: crashed: SIG%s",
			 sigabbrev_np(WTERMSIG(status)));
	else
		snprintf(result->reason, sizeof(result->reason), "engine: ended with status %d", WEXITSTATUS(status));
	shared->engine_fault = true;
	shared->state = EXPLORE_FOUND;
}

/* Run @child to its end. Returns: 0; -errno: it could not be started. */
static int run_apart(child_main *child, const struct litmus *litmus, const struct explore_options *options,
		     struct explore_shared *shared)
{
	pid_t parent = getpid(), pid;
	bool closed;
	int fds[2], status;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	fflush(NULL);
	pid = fork();
	if (!pid)
		run_child(child, litmus, options, shared, parent);
	close(fds[1]);
	closed = pid > 0 && watch(fds[0], shared);
	close(fds[0]);
	if (pid < 0)
		return -EAGAIN;
	if (!closed)
		kill(pid, SIGKILL);
	status = reap(pid);
	if (shared->state == EXPLORE_RUNNING)
		describe_crash(shared, !closed, status);
	return 0;
}

/* ---- what came out ---- */

static const char *without_prefix(const char *reason)
{
	static const char prefix[] = "engine: ";

	return strncmp(reason, prefix, sizeof(prefix) - 1) ? reason : reason + sizeof(prefix) - 1;
}

/* What the engine did wrong is a finding like a check that failed, and has a schedule. */
static void tell_finding(struct explore_result *result, const struct explore_shared *shared)
{
	const struct run_result *run = &shared->result;

	result->verdict = VERDICT_BREAK;
	result->line = run->line;
	if (run->verdict == VERDICT_BREAK) {
		snprintf(result->check, sizeof(result->check), "%s", run->check);
		snprintf(result->saw, sizeof(result->saw), "%s", run->saw);
	} else {
		snprintf(result->check, sizeof(result->check), "%s", run->check[0] ? run->check : "the engine itself");
		snprintf(result->saw, sizeof(result->saw), "%s", without_prefix(run->reason));
	}
}

static void take_steps(struct explore_result *result, const struct explore_shared *shared)
{
	result->schedule = calloc(shared->nsteps ? shared->nsteps : 1, sizeof(*result->schedule));
	if (!result->schedule) {
		fail(result, "out of memory");
		return;
	}
	memcpy(result->schedule, shared->steps, shared->nsteps * sizeof(*result->schedule));
	result->nsteps = shared->nsteps;
}

/* A test that lists the policy must fail, and as the file says: by a check, not by the engine's own mistakes. */
static void judge(struct explore_result *result, bool engine_fault)
{
	bool listed = result->litmus->breaks >> result->options.policy & 1;

	if (result->verdict == VERDICT_SKIP)
		result->expected = true;
	else if (result->verdict == VERDICT_BREAK)
		result->expected = listed && !engine_fault;
	else
		result->expected = result->verdict == VERDICT_PASS && !listed;
}

static struct explore_shared *map_shared(void)
{
	struct explore_shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
					     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return shared == MAP_FAILED ? NULL : shared;
}

/* The choices that were made, and where the lanes stood that had not ended. */
static void copy_schedule(struct explore_shared *to, const struct search *search)
{
	for (int32_t i = 0; i < search->depth; i++)
		to->choices[to->nchoices++] = (struct lanes_choice){search->nodes[i].proc, search->nodes[i].block,
								    search->nodes[i].at};
	to->nmade = to->nchoices;
	for (unsigned i = 0; i < SEARCH_LANES && to->nchoices < SEARCH_NODES; i++)
		if (search->stops[i].stands)
			to->choices[to->nchoices++] = (struct lanes_choice){(uint8_t)i, search->stops[i].block,
									    search->stops[i].at};
}

/* Follow the schedule of @found in a process of its own, and take its steps. Returns: the same finding again. */
static bool record(const struct litmus *litmus, const struct explore_options *options,
		   const struct explore_shared *found, struct explore_result *result)
{
	struct explore_shared *shared = map_shared();
	bool same = false;

	if (!shared)
		return false;
	copy_schedule(shared, &found->search);
	if (!run_apart(explore_run_one, litmus, options, shared)) {
		same = shared->state == EXPLORE_FOUND && shared->result.line == found->result.line &&
		       shared->result.verdict == found->result.verdict;
		take_steps(result, shared);
	}
	munmap(shared, sizeof(*shared));
	return same;
}

static void tell_shared(struct explore_result *result, const struct explore_shared *shared)
{
	result->complete = shared->complete;
	result->interleavings = shared->interleavings;
	result->states = shared->states;
	result->steps = shared->search.steps;
	switch (shared->state) {
	case EXPLORE_FOUND:
		tell_finding(result, shared);
		break;
	case EXPLORE_SKIPPED:
		result->verdict = VERDICT_SKIP;
		snprintf(result->reason, sizeof(result->reason), "%s", shared->result.reason);
		break;
	case EXPLORE_FAILED:
		fail(result, shared->result.reason);
		break;
	case EXPLORE_FINISHED:
	case EXPLORE_RUNNING:
		result->verdict = VERDICT_PASS;
		if (shared->result.checks)
			break;
		result->verdict = VERDICT_SKIP;
		snprintf(result->reason, sizeof(result->reason), "none of its checks is judged here");
		break;
	}
}

static bool has_room(const struct litmus *litmus, char *why, size_t size)
{
	for (size_t i = 0; i < litmus->nstmts; i++)
		if (litmus->stmts[i].block && litmus->stmts[i].lane >= SEARCH_LANES) {
			snprintf(why, size, "more than %d lanes", SEARCH_LANES);
			return false;
		}
	return true;
}

static bool begin(const struct litmus *litmus, const struct explore_options *options, struct explore_result *result)
{
	*result = (struct explore_result){.litmus = litmus, .options = *options};
	if (engine_suits(litmus, options->fork, result->reason, sizeof(result->reason)) &&
	    has_room(litmus, result->reason, sizeof(result->reason)))
		return true;
	result->verdict = VERDICT_SKIP;
	result->expected = true;
	return false;
}

static void try_machine(const struct litmus *litmus, const struct explore_options *options,
			struct explore_shared *shared)
{
	(void)litmus;
	shared->state = explore_run_machine(options) ? EXPLORE_FINISHED : EXPLORE_SKIPPED;
}

/* The library says it, but its memory is to be had in a process of its own only. */
bool explore_exists(enum ucow_policy policy, enum ucow_fork_mode fork)
{
	struct explore_options options = {.policy = policy, .fork = fork};
	struct explore_shared *shared = map_shared();
	bool exists = false;

	if (!shared)
		return false;
	if (!run_apart(try_machine, NULL, &options, shared))
		exists = shared->state == EXPLORE_FINISHED;
	munmap(shared, sizeof(*shared));
	return exists;
}

static double seconds_since(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

void explore_test(const struct litmus *litmus, const struct explore_options *options, struct explore_result *result)
{
	struct explore_shared *shared;
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	if (!begin(litmus, options, result))
		return;
	shared = map_shared();
	if (!shared || run_apart(explore_run_all, litmus, options, shared)) {
		fail(result, "no process for the engine");
	} else {
		tell_shared(result, shared);
		result->took_seconds = seconds_since(&start);
		if (shared->state == EXPLORE_FOUND && !record(litmus, options, shared, result))
			fail(result, "explorer: the schedule that was found does not fail again");
		judge(result, shared->engine_fault);
	}
	if (shared)
		munmap(shared, sizeof(*shared));
}

static void take_choices(struct explore_shared *to, const struct explore_choice *choices, size_t nchoices)
{
	for (size_t i = 0; i < nchoices; i++) {
		const struct explore_choice *choice = &choices[i];
		unsigned proc = choice->flush ? search_flusher(choice->lane) : choice->lane;

		to->choices[i] = (struct lanes_choice){(uint8_t)proc, choice->block, choice->at};
		if (!choice->stop)
			to->nmade = (uint32_t)(i + 1);
	}
	to->nchoices = (uint32_t)nchoices;
}

void explore_replay(const struct litmus *litmus, const struct explore_options *options,
		    const struct explore_choice *choices, size_t nchoices, struct explore_result *result)
{
	struct explore_shared *shared;

	if (!begin(litmus, options, result))
		return;
	shared = map_shared();
	if (!shared || nchoices > SEARCH_NODES) {
		fail(result, shared ? "the schedule is too long" : "out of memory");
	} else {
		take_choices(shared, choices, nchoices);
		if (run_apart(explore_run_one, litmus, options, shared)) {
			fail(result, "no process for the engine");
		} else {
			tell_shared(result, shared);
			take_steps(result, shared);
			judge(result, shared->engine_fault);
		}
	}
	if (shared)
		munmap(shared, sizeof(*shared));
}

void explore_result_clear(struct explore_result *result)
{
	free(result->schedule);
	result->schedule = NULL;
	result->nsteps = 0;
}
