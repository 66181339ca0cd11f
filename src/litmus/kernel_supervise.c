/* SPDX-License-Identifier: MIT */
/*
 * The supervisor: prepares one run, does the statements in order, gives everything back and ends everybody.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- preparing ---- */

/* As much as the system gives: channels to a thousand processes, and long pins. What it refuses is missed later. */
static void raise_limits(void)
{
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY}, none = {0, 0};
	struct rlimit files;

	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	setrlimit(RLIMIT_CORE, &none);
}

/* Descriptors 0 to 2 are somebody's streams or nothing: none of ours may become one of them. */
static void occupy_streams(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static int find_cpus(struct kernel_run *run)
{
	cpu_set_t set;
	int here = sched_getcpu();

	if (sched_getaffinity(0, sizeof(set), &set))
		return errno;
	run->cpus = calloc((size_t)CPU_COUNT(&set), sizeof(*run->cpus));
	if (!run->cpus)
		return ENOMEM;
	/* The cpu that this process happens to be on comes first, so that runs beside each other spread. */
	for (int i = 0; i < CPU_SETSIZE; i++) {
		int cpu = (i + (here < 0 ? 0 : here)) % CPU_SETSIZE;

		if (CPU_ISSET(cpu, &set))
			run->cpus[run->ncpus++] = cpu;
	}
	return 0;
}

static int share_meeting(struct kernel_run *run)
{
	void *page = mmap(NULL, KERNEL_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return errno;
	run->meeting = page;
	return 0;
}

#define REGION_ALIGN UINT64_C(0x200000)

/* Regions start in 2 MiB blocks of their own, with a hole behind each. */
static uint64_t region_stride(const struct name *name)
{
	return (name->npages * KERNEL_PAGE + KERNEL_PAGE + REGION_ALIGN - 1) & ~(REGION_ALIGN - 1);
}

/*
 * Find addresses for all regions where nothing is now, in any participant, and nothing will come by itself: a stretch
 * is reserved with room to spare on either side, where the system's own choices fall first, and given back.
 */
static int place_regions(struct kernel_run *run)
{
	const struct litmus *litmus = run->litmus;
	const uint64_t spare = UINT64_C(1) << 28;
	uint64_t nbytes = REGION_ALIGN, va;
	void *room;

	for (size_t i = 0; i < litmus->nnames; i++)
		if (litmus->names[i].kind == NAME_REGION)
			nbytes += region_stride(&litmus->names[i]);
	room = mmap(NULL, nbytes + 2 * spare, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room == MAP_FAILED)
		return errno;
	munmap(room, nbytes + 2 * spare);
	va = ((uint64_t)(uintptr_t)room + spare + REGION_ALIGN - 1) & ~(REGION_ALIGN - 1);
	run->window_start = va;
	for (size_t i = 0; i < litmus->nnames; i++) {
		if (litmus->names[i].kind != NAME_REGION)
			continue;
		run->objects[i].va = va;
		va += region_stride(&litmus->names[i]);
	}
	run->window_end = va;
	return 0;
}

int kernel_make_objects(struct kernel_run *run)
{
	const struct litmus *litmus = run->litmus;

	run->objects = calloc(litmus->nnames, sizeof(*run->objects));
	for (size_t i = 0; run->objects && i < litmus->nnames; i++) {
		union kernel_object *object = &run->objects[i];

		switch ((int)litmus->names[i].kind) {
		case NAME_PROCESS:
			object->participant.channel = -1;
			break;
		case NAME_FILE:
			object->file.direct = object->file.cached = -1;
			break;
		case NAME_UFFD:
			kernel_uffd_init(&object->uffd);
			break;
		case NAME_PIN:
		case NAME_GET:
		case NAME_PIPE:
			object->handle.pipe = -1;
			pthread_mutex_init(&object->handle.lock, NULL);
			break;
		}
	}
	return run->objects ? 0 : ENOMEM;
}

/* ---- the statements ---- */

static int send_to_first_cpu(struct kernel_run *run)
{
	struct agent_command command = {.op = AGENT_CPU, .number = run->cpus[0]};
	struct kernel_step step = {.run = run, .stmt = &run->litmus->stmts[0]};
	struct agent_reply reply;

	return kernel_call(&step, 0, &command, -1, &reply);
}

static size_t end_of_block(const struct litmus *litmus, size_t start)
{
	size_t end = start;

	while (end < litmus->nstmts && litmus->stmts[end].block == litmus->stmts[start].block)
		end++;
	return end;
}

static void do_statements(struct kernel_run *run)
{
	const struct litmus *litmus = run->litmus;

	for (size_t i = 0, end; i < litmus->nstmts && !run->over; i = end) {
		struct kernel_step step = {.run = run, .stmt = &litmus->stmts[i]};

		end = i + 1;
		if (step.stmt->block) {
			end = end_of_block(litmus, i);
			kernel_run_block(run, step.stmt, end - i);
		} else {
			run->at = step.stmt;
			kernel_statement(&step);
			run->at = NULL;
		}
		kernel_note_frames(run);
	}
	if (!run->over)
		kernel_look_for_dead(&(struct kernel_step){.run = run, .stmt = &litmus->stmts[litmus->nstmts - 1]});
}

/* ---- one run ---- */

void kernel_become_supervisor(void)
{
	raise_limits();
	occupy_streams();
	/* Participants fetch rings from here, also where the system restricts that to ancestors. */
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* ignored, children would vanish unread */
}

static bool counts_usage(const struct litmus *litmus)
{
	for (size_t i = 0; i < litmus->nstmts; i++)
		if (litmus->stmts[i].kind == STMT_CHECK_USAGE)
			return true;
	return false;
}

static int prepare(struct kernel_run *run)
{
	int error;

	kernel_become_supervisor();
	kernel_open_eyes(&run->eyes);
	run->counts_usage = counts_usage(run->litmus) && !kernel_blind_to_owners(&run->eyes);
	error = find_cpus(run);
	if (!error)
		error = kernel_make_objects(run);
	if (!error)
		error = share_meeting(run);
	if (!error)
		error = place_regions(run);
	if (!error && run->litmus->needs & (NEED_SWAP | NEED_CGROUP))
		error = kernel_open_groups(run);
	if (!error)
		error = kernel_start_first(run);
	if (!error)
		error = kernel_enter_groups(run, run->objects[0].participant.pid);
	return error ? error : send_to_first_cpu(run);
}

void kernel_drop_objects(struct kernel_run *run)
{
	const struct litmus *litmus = run->litmus;

	for (size_t i = 0; run->objects && i < litmus->nnames; i++) {
		enum name_kind kind = litmus->names[i].kind;

		if (kind == NAME_PIN || kind == NAME_GET || kind == NAME_PIPE)
			kernel_release(&run->objects[i].handle);
		else if (kind == NAME_FILE)
			kernel_file_close(&run->objects[i].file);
		else if (kind == NAME_UFFD)
			kernel_uffd_close(&run->objects[i].uffd);
	}
	kernel_drop_groups(run);
	free(run->objects);
	run->objects = NULL;
}

static void give_back(struct kernel_run *run)
{
	kernel_drop_objects(run);
	kernel_close_groups(run);
	free(run->known.list);
	kernel_close_eyes(&run->eyes);
	free(run->cpus);
}

void kernel_supervise(const struct litmus *litmus, const struct run_options *options, int leash,
		      struct run_result *result)
{
	struct kernel_run run = {
		.litmus = litmus,
		.options = options,
		.result = result,
		.leash = leash,
		.result_lock = PTHREAD_MUTEX_INITIALIZER,
		.deadline_ns = kernel_now_ns() + options->timeout_seconds * UINT64_C(1000000000),
	};
	int error = prepare(&run);

	if (error && error != STEP_ENDED)
		run_result_error(result, NULL, "kernel: nothing could be started: %s", litmus_error_name(error));
	if (!error)
		do_statements(&run);
	if (run.objects && !kernel_end_all(&run))
		run_result_error(result, NULL, "kernel: some process cannot be ended");
	give_back(&run);
	if (result->verdict == VERDICT_PASS && !result->checks) {
		result->verdict = VERDICT_SKIP;
		snprintf(result->reason, sizeof(result->reason), "kernel: none of its checks can be made here");
	}
}
