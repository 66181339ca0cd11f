/* SPDX-License-Identifier: MIT */
/*
 * The participants of a kernel run as the supervisor sees them: forked, spoken to, missed, ended, reaped.
 */
#include "kernel.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *name_of(const struct kernel_step *step, int name)
{
	return step->run->litmus->names[name].text;
}

struct kernel_participant *kernel_participant(struct kernel_step *step, int name)
{
	struct kernel_participant *participant = &step->run->objects[name].participant;

	if (participant->channel >= 0)
		return participant;
	kernel_error(step, "process %s %s", name_of(step, name), participant->pid ? "has exited" : "is not there");
	return NULL;
}

/* ---- how they end ---- */

bool kernel_await_end(pid_t pid, uint64_t deadline_ns, int *status)
{
	struct pollfd wait = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
	uint64_t now = kernel_now_ns();
	int ready;

	if (wait.fd < 0)
		return false;
	do
		ready = poll(&wait, 1, now < deadline_ns ? (int)((deadline_ns - now) / 1000000u) + 1 : 0);
	while (ready < 0 && errno == EINTR);
	close(wait.fd);
	return ready > 0 && waitpid(pid, status, WNOHANG) == pid;
}

static int crashed(struct kernel_step *step, int name, int status)
{
	if (WIFSIGNALED(status))
		return kernel_error(step, "process %s crashed: SIG%s", name_of(step, name),
				    sigabbrev_np(WTERMSIG(status)));
	return kernel_error(step, "process %s ended with status %d", name_of(step, name), WEXITSTATUS(status));
}

static int missed(struct kernel_step *step, int name)
{
	pid_t pid = step->run->objects[name].participant.pid;
	int status;

	if (kernel_await_end(pid, step->run->deadline_ns, &status))
		return crashed(step, name, status);
	return kernel_error(step, "process %s does not answer", name_of(step, name));
}

void kernel_look_for_dead(struct kernel_step *step)
{
	const struct litmus *litmus = step->run->litmus;
	int status;
	pid_t dead = waitpid(-1, &status, WNOHANG);

	for (int name = 0; dead > 0 && name < (int)litmus->nnames; name++)
		if (litmus->names[name].kind == NAME_PROCESS && step->run->objects[name].participant.pid == dead)
			crashed(step, name, status);
}

/* A lane that stays blocked is a finding; elsewhere nothing can block but the runner itself. */
static int timed_out(struct kernel_step *step)
{
	unsigned seconds = step->run->options->timeout_seconds;

	if (step->lane)
		return kernel_break(step, "the lane stays blocked (%u s)", seconds);
	return kernel_error(step, "kernel: timed out after %u s", seconds);
}

/* ---- speaking to them ---- */

static int channel_to(const struct kernel_step *step, int name)
{
	int lanes_own = step->lane ? step->lane->channels[name] : -1;

	return lanes_own >= 0 ? lanes_own : step->run->objects[name].participant.channel;
}

/* The first command of a lane waits for the other lanes. */
static void join_meeting(struct kernel_step *step, struct agent_command *command)
{
	if (!step->lane)
		return;
	command->meet = step->lane->meet;
	command->delay_ns = step->lane->delay_ns;
	step->lane->meet = 0;
}

static int await_reply(struct kernel_step *step, int name, int channel, struct agent_reply *reply)
{
	int error = channel_receive(channel, reply, sizeof(*reply), &step->fd, step->run->deadline_ns);

	if (!error) {
		step->value = reply->value;
		return reply->error;
	}
	if (error == ETIMEDOUT)
		return timed_out(step);
	if (error == EPIPE)
		return missed(step, name);
	return kernel_error(step, "kernel: no answer from process %s: %s", name_of(step, name),
			    litmus_error_name(error));
}

int kernel_call_on(struct kernel_step *step, int name, int channel, struct agent_command *command, int fd,
		   struct agent_reply *reply)
{
	int error = channel_send_command(channel, command, fd);

	if (error == EPIPE)
		return missed(step, name);
	if (error)
		return kernel_error(step, "kernel: no word to process %s: %s", name_of(step, name),
				    litmus_error_name(error));
	return await_reply(step, name, channel, reply);
}

int kernel_call(struct kernel_step *step, int name, struct agent_command *command, int fd, struct agent_reply *reply)
{
	if (!kernel_participant(step, name))
		return STEP_ENDED;
	join_meeting(step, command);
	return kernel_call_on(step, name, channel_to(step, name), command, fd, reply);
}

/* ---- fork ---- */

int kernel_start_first(struct kernel_run *run)
{
	struct kernel_participant *first = &run->objects[0].participant;
	pid_t supervisor = getpid(), pid;
	int ends[2], error = channel_pair(ends);

	if (error)
		return error;
	pid = fork();
	if (pid == 0)
		agent_main(ends[1], supervisor, run->leash, run->meeting);
	error = pid < 0 ? errno : 0;
	close(ends[1]);
	if (error) {
		close(ends[0]);
		return error;
	}
	/* One group for all participants, so that they can be ended together, also those not known yet. */
	setpgid(pid, pid);
	first->pid = pid;
	first->channel = ends[0];
	return 0;
}

/* What a shortage of the system's, not of memory, looks like: no finding about the rules. */
static int shortage(struct kernel_step *step, int error, const char *what)
{
	if (step->stmt->outcome == OUTCOME_OK)
		return kernel_skip_test(step, "no more %s here: %s", what, litmus_error_name(error));
	return error;
}

static int fork_one(struct kernel_step *step, int child)
{
	struct kernel_participant *participant = &step->run->objects[child].participant;
	struct agent_command command = {.op = AGENT_FORK};
	struct agent_reply reply;
	int ends[2], error = channel_pair(ends);

	if (error)
		return shortage(step, error, "descriptors");
	error = kernel_call(step, step->stmt->proc, &command, ends[1], &reply);
	close(ends[1]);
	if (error) {
		close(ends[0]);
		return error == EAGAIN ? shortage(step, error, "processes") : error;
	}
	participant->pid = (pid_t)reply.value;
	participant->channel = ends[0];
	error = await_reply(step, child, ends[0], &reply);
	/* In between it has touched no page of the test: it waits for its first command. */
	return error || step->stmt->cgroup < 0 ? error : kernel_enter_group(step, step->stmt->cgroup, participant->pid);
}

/* Let process @name exit, and wait until its memory is dropped. Returns: 0; STEP_ENDED. */
static int end_one(struct kernel_step *step, int name, int channel)
{
	struct kernel_participant *participant = &step->run->objects[name].participant;
	struct agent_command command = {.op = AGENT_EXIT};
	int status, error;

	join_meeting(step, &command);
	error = channel_send_command(channel, &command, -1);
	if (error && error != EPIPE)
		return kernel_error(step, "kernel: no word to process %s: %s", name_of(step, name),
				    litmus_error_name(error));
	if (!kernel_await_end(participant->pid, step->run->deadline_ns, &status))
		return timed_out(step);
	close(participant->channel);
	participant->channel = -1;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : crashed(step, name, status);
}

int kernel_exit(struct kernel_step *step)
{
	int name = step->stmt->proc;

	return kernel_participant(step, name) ? end_one(step, name, channel_to(step, name)) : STEP_ENDED;
}

/* All children or none. */
int kernel_fork(struct kernel_step *step)
{
	const struct stmt *stmt = step->stmt;
	int made = 0, error = 0;

	while (!error && made < (int)stmt->count) {
		error = fork_one(step, stmt->name + made);
		made += !error;
	}
	if (error == STEP_ENDED)
		return error;
	while (error && made > 0) {
		int child = stmt->name + --made;

		if (end_one(step, child, step->run->objects[child].participant.channel))
			return STEP_ENDED;
		step->run->objects[child].participant.pid = 0;
	}
	return error;
}

/* ---- the end ---- */

static void nap(void)
{
	const struct timespec millisecond = {.tv_nsec = 1000000};

	nanosleep(&millisecond, NULL);
}

/*
 * Every participant is a child of this process and in the group of the first. A group lives as long as one of its
 * members, be it a zombie, so its number means nobody else as long as a child is left.
 */
bool kernel_end_all(struct kernel_run *run)
{
	const uint64_t patience_ns = UINT64_C(5000000000);
	uint64_t start = kernel_now_ns();
	pid_t group = run->objects[0].participant.pid;

	while (group > 0 && kernel_now_ns() - start < patience_ns) {
		pid_t ended = waitpid(-1, NULL, WNOHANG);

		if (ended < 0 && errno == ECHILD)
			return true;
		if (ended)
			continue;
		kill(-group, SIGKILL);
		nap();
	}
	return group <= 0;
}
