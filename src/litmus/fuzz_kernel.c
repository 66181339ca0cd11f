/* SPDX-License-Identifier: MIT */
/*
 * The live kernel as a subject: each test gets a fresh process A, its statements are done by the kernel runner's own
 * steps, whose outcomes are taken as they are. What costs time to make (a participant to fork A from, the window of
 * addresses) is made once.
 */
#include "fuzz_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS_A_STATEMENT 10

static struct fuzz_kernel *kernel_of(struct fuzz_subject *subject)
{
	return (struct fuzz_kernel *)(void *)((char *)subject - offsetof(struct fuzz_kernel, subject));
}

static uint64_t deadline(void)
{
	return kernel_now_ns() + SECONDS_A_STATEMENT * UINT64_C(1000000000);
}

int fuzz_kernel_fail(struct fuzz_kernel *kernel, int error, const char *what, ...)
{
	char text[120];
	va_list args;

	va_start(args, what);
	vsnprintf(text, sizeof(text), what, args);
	va_end(args);
	/* The first word stands: a participant that crashed is why its /proc is gone. */
	if (kernel->result.verdict == VERDICT_PASS)
		run_result_error(&kernel->result, NULL, "kernel: %s: %s", text, litmus_error_name(error));
	return -error;
}

/* Copy why something went wrong. Returns: @error. */
static int tell(const struct fuzz_kernel *kernel, int error, char *why, size_t size)
{
	const struct run_result *result = &kernel->result;

	if (error)
		snprintf(why, size, "%s%s%s", result->check, *result->check ? ": " : "",
			 result->verdict == VERDICT_BREAK ? result->saw : result->reason);
	return error;
}

/* ---- participants ---- */

static int start_template(struct fuzz_kernel *kernel)
{
	union kernel_object first = {0};
	struct kernel_run run = {.objects = &first};
	int error = kernel_start_first(&run);

	kernel->template.pid = first.participant.pid;
	kernel->template.channel = error ? -1 : first.participant.channel;
	if (!error)
		error = kernel_enter_groups(&kernel->run, kernel->template.pid);
	return -error;
}

/* End @participant. Returns: whether it is gone. */
static bool finish(struct kernel_participant *participant)
{
	pid_t pid = participant->pid;
	int status;
	pid_t reaped = pid > 0 ? waitpid(pid, &status, WNOHANG) : -1;
	bool gone = reaped != 0; /* reaped now or before, or never there */

	if (!gone) {
		kill(pid, SIGKILL);
		gone = kernel_await_end(pid, deadline(), &status);
	}
	if (participant->channel >= 0)
		close(participant->channel);
	participant->channel = -1;
	participant->pid = 0;
	return gone;
}

/* Let the template fork process A. Returns: 0; -errno. */
static int fork_first(struct fuzz_kernel *kernel)
{
	struct kernel_participant *first = &kernel->run.objects[0].participant;
	struct agent_command command = {.op = AGENT_FORK};
	int ends[2], fd, error = channel_pair(ends);

	if (error)
		return -error;
	error = channel_send_command(kernel->template.channel, &command, ends[1]);
	close(ends[1]);
	if (!error)
		error = channel_receive(kernel->template.channel, &kernel->reply, sizeof(kernel->reply), &fd,
					deadline());
	if (!error)
		error = kernel->reply.error;
	first->pid = error ? 0 : (pid_t)kernel->reply.value;
	if (!error)
		error = channel_receive(ends[0], &kernel->reply, sizeof(kernel->reply), &fd, deadline());
	first->channel = ends[0];
	return -error;
}

/* The template may have died: of a lack of memory, say. One new one is tried. */
static int start_first(struct fuzz_kernel *kernel)
{
	int error = fork_first(kernel);

	if (error != -EPIPE)
		return error;
	finish(&kernel->run.objects[0].participant);
	finish(&kernel->template);
	error = start_template(kernel);
	return error ? error : fork_first(kernel);
}

/* ---- what the kernel does by itself ---- */

/* The sum of the machine's counters of pages that were taken from where they were. */
static uint64_t count_migrations(struct fuzz_kernel *kernel)
{
	static const char *const counters[] = {"\npgmigrate_success ", "\npgmigrate_fail ", "\ncompact_isolated "};
	char *text = (char *)kernel->buffer;
	ssize_t nbytes = pread(kernel->vmstat, text, sizeof(kernel->buffer) - 1, 0);
	uint64_t sum = 0;

	text[nbytes > 0 ? nbytes : 0] = '\0';
	for (unsigned i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		const char *counter = strstr(text, counters[i]);

		if (counter)
			sum += strtoull(counter + strlen(counters[i]), NULL, 10);
	}
	return sum;
}

bool fuzz_kernel_migrates(struct fuzz_subject *subject)
{
	struct fuzz_kernel *kernel = kernel_of(subject);

	/* Pages are counted some time after they were taken, many at once. */
	for (unsigned tries = 0; tries < 4; tries++) {
		if (count_migrations(kernel) != kernel->migrated)
			return true;
		usleep(5000);
	}
	return false;
}

/* ---- addresses ---- */

#define TABLE_BYTES UINT64_C(0x200000)

/*
 * Where nothing is and nothing will come by itself in the template: a stretch is reserved with room to spare on either
 * side, where the system's own choices fall first, and given back. The window crosses from one table to the next.
 */
static int find_window(struct fuzz_kernel *kernel)
{
	const uint64_t spare = UINT64_C(1) << 28, nbytes = 2 * TABLE_BYTES;
	void *room = mmap(NULL, nbytes + 2 * spare, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t border;

	if (room == MAP_FAILED)
		return -errno;
	munmap(room, nbytes + 2 * spare);
	border = ((uint64_t)(uintptr_t)room + spare + TABLE_BYTES) & ~(TABLE_BYTES - 1);
	kernel->window = border - 8 * KERNEL_PAGE;
	return 0;
}

static void place_regions(struct fuzz_kernel *kernel)
{
	const struct litmus *litmus = kernel->run.litmus;
	uint64_t va = kernel->window;

	for (size_t i = 0; i < litmus->nnames; i++) {
		if (litmus->names[i].kind != NAME_REGION)
			continue;
		kernel->run.objects[i].va = va;
		va += (litmus->names[i].npages + 1) * KERNEL_PAGE;
	}
}

/* ---- what is the machine's ---- */

/*
 * The merger takes whatever it finds: as long as a program with equal pages runs, nobody else's does. What is charged
 * can be told where nothing moves pages.
 */
static int take_machine(struct fuzz_kernel *kernel, unsigned needs)
{
	const uint64_t patience_ns = UINT64_C(60) * 1000000000;

	kernel->run.known.n = 0;
	kernel->run.counts_usage = needs & NEED_CGROUP && !(needs & (NEED_SWAP | NEED_KSM)) &&
				   !kernel_blind_to_owners(&kernel->run.eyes);
	if (!(needs & NEED_KSM))
		return 0;
	return facilities_lock(&kernel->locks, NEED_KSM, false, 0, kernel_now_ns() + patience_ns);
}

static void give_machine(struct fuzz_kernel *kernel)
{
	if (kernel->locks.ksm < 0)
		return;
	facilities_settle(NEED_KSM);
	facilities_unlock(&kernel->locks);
}

/* ---- a test ---- */

static int kernel_begin(struct fuzz_subject *subject, const struct fuzz_test *test, char *why, size_t size)
{
	struct fuzz_kernel *kernel = kernel_of(subject);
	int error;

	if (kernel_unsupported(test->litmus, why, size))
		return -EOPNOTSUPP;
	kernel->test = test;
	kernel->result = (struct run_result){0};
	kernel->run.litmus = test->litmus;
	kernel->run.over = false;
	kernel->migrated = count_migrations(kernel);
	memset(kernel->files, 0, sizeof(kernel->files));
	error = take_machine(kernel, test->litmus->needs);
	if (!error)
		error = -kernel_make_objects(&kernel->run);
	if (!error) {
		place_regions(kernel);
		error = start_first(kernel);
	}
	if (error)
		snprintf(why, size, "kernel: no first process: %s", litmus_error_name(-error));
	return error;
}

/* Whether all pages that @stmt loads or stores were private memory before it: faults of others are nobody's promise. */
static bool is_private(const struct fuzz_kernel *kernel, const struct stmt *stmt)
{
	uint64_t first = (kernel_va(&kernel->run, &stmt->place, 0) - kernel->window) / KERNEL_PAGE;

	for (uint64_t page = first; page < first + stmt->place.npages; page++)
		if ((fuzz_kernel_area(kernel, stmt->proc, page) & (AREA_MAPPED | AREA_SHARED)) != AREA_MAPPED)
			return false;
	return true;
}

static unsigned faults_of(const struct fuzz_kernel *kernel, const struct kernel_step *step, int outcome)
{
	bool counts = step->stmt->kind == STMT_READ || step->stmt->kind == STMT_WRITE;

	return counts && !outcome && is_private(kernel, step->stmt) ? (unsigned)step->value : UINT_MAX;
}

static uint64_t pages_taken(const struct fuzz_kernel *kernel, const struct stmt *stmt, int outcome)
{
	bool takes = stmt->kind == STMT_PIN || stmt->kind == STMT_GET || stmt->kind == STMT_SPLICE;

	return takes && !outcome ? kernel->run.objects[stmt->name].handle.npages : 0;
}

static int do_statement(struct fuzz_kernel *kernel, size_t i, struct fuzz_view *view)
{
	struct kernel_step step = {.run = &kernel->run, .stmt = &kernel->test->litmus->stmts[i]};
	int outcome;

	kernel->run.found = 0;
	outcome = litmus_is_check(step.stmt->kind) && step.stmt->kind != STMT_SCAN ? 0 : kernel_do(&step);

	if (outcome == STEP_ENDED || outcome == STEP_SKIPPED)
		return kernel->result.verdict == VERDICT_SKIP ? -EOPNOTSUPP : -EIO;
	view->outcome = outcome;
	view->undefined = false;
	view->scanned = step.stmt->kind == STMT_SCAN;
	view->found = kernel->run.found;
	view->pages_taken = pages_taken(kernel, step.stmt, outcome);
	view->faults = faults_of(kernel, &step, outcome);
	return 0;
}

static int kernel_step(struct fuzz_subject *subject, size_t i, struct fuzz_view *view, char *why, size_t size)
{
	struct fuzz_kernel *kernel = kernel_of(subject);
	int error;

	kernel->run.deadline_ns = deadline();
	error = do_statement(kernel, i, view);
	if (!error)
		error = fuzz_kernel_look(kernel, i, view);
	return tell(kernel, error, why, size);
}

/* Who is left: children whose birth went wrong half-way. All participants are in the template's group. */
static void reap_strays(const struct fuzz_kernel *kernel)
{
	while (kernel->template.pid > 0 && waitpid(-kernel->template.pid, NULL, WNOHANG) > 0)
		continue;
}

static int kernel_end(struct fuzz_subject *subject, char *why, size_t size)
{
	struct fuzz_kernel *kernel = kernel_of(subject);
	bool all = true;

	if (!kernel->test)
		return 0;
	for (unsigned i = 0; i < kernel->test->layout.nprocesses; i++) {
		fuzz_kernel_look_away(kernel, i);
		if (kernel->run.objects)
			all &= finish(&kernel->run.objects[kernel->test->layout.process[i]].participant);
	}
	reap_strays(kernel);
	kernel_drop_objects(&kernel->run);
	give_machine(kernel);
	kernel->test = NULL;
	if (!all)
		snprintf(why, size, "kernel: some process cannot be ended");
	return all ? 0 : -EBUSY;
}

/* ---- the subject ---- */

static void kernel_close(struct fuzz_subject *subject)
{
	struct fuzz_kernel *kernel = kernel_of(subject);

	kernel_end(subject, (char[1]){0}, 1);
	finish(&kernel->template);
	kernel_close_groups(&kernel->run);
	kernel_close_eyes(&kernel->run.eyes);
	free(kernel->run.known.list);
	if (kernel->vmstat >= 0)
		close(kernel->vmstat);
	if (kernel->scratch != MAP_FAILED)
		munmap(kernel->scratch, KERNEL_PAGE);
	free(kernel);
}

/* Where this process may be on several cpus, it stays on the one that it is on. */
static int stay_here(void)
{
	cpu_set_t set;
	int here = sched_getcpu();

	if (sched_getaffinity(0, sizeof(set), &set) || here < 0)
		return -errno;
	if (CPU_COUNT(&set) == 1)
		return 0;
	CPU_ZERO(&set);
	CPU_SET(here, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

static struct fuzz_kernel *make(void)
{
	struct fuzz_kernel *kernel = aligned_alloc(_Alignof(struct fuzz_kernel), sizeof(*kernel));

	if (!kernel)
		return NULL;
	memset(kernel, 0, sizeof(*kernel));
	kernel->subject.type = &kernel->type;
	kernel->options.timeout_seconds = SECONDS_A_STATEMENT;
	kernel->template.channel = -1;
	kernel->locks = (struct facility_locks){-1, -1};
	kernel->vmstat = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
	kernel->scratch = mmap(NULL, KERNEL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	kernel->run.options = &kernel->options;
	kernel->run.result = &kernel->result;
	kernel->run.takes_more = true;
	kernel->run.only_finds = true;
	pthread_mutex_init(&kernel->run.result_lock, NULL);
	kernel_open_eyes(&kernel->run.eyes);
	kernel->type = (struct fuzz_subject_type){
		.name = "kernel",
		.sees = fuzz_kernel_sees(&kernel->run.eyes),
		.begin = kernel_begin,
		.step = kernel_step,
		.end = kernel_end,
		.close = kernel_close,
	};
	return kernel;
}

int fuzz_kernel_open(struct fuzz_subject **subject)
{
	struct fuzz_kernel *kernel;
	const char *reason;
	int error;

	if (!litmus_kernel_possible(&reason))
		return -EOPNOTSUPP;
	kernel_become_supervisor();
	error = stay_here();
	if (error)
		return error;
	kernel = make();
	if (!kernel)
		return -ENOMEM;
	error = kernel->scratch == MAP_FAILED ? -ENOMEM : find_window(kernel);
	if (!error)
		error = -kernel_open_groups(&kernel->run);
	if (!error)
		error = start_template(kernel);
	if (error) {
		kernel_close(&kernel->subject);
		return error;
	}
	*subject = &kernel->subject;
	return 0;
}
