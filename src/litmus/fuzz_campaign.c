/* SPDX-License-Identifier: MIT */
/* The campaign's own process: gives each desk its next task, watches over those at work, and keeps the findings. */
#include "fuzz_campaign.h"

#include "fuzz_worker.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	DESKS_MAX = 256,
	POLL_MS = 100,
	GRACE_MS = 3000, /* for everybody to end when all must */
	SAME_KIND = 8,   /* findings of one kind that are made smaller */
	KINDS_MAX = 256,
	TEXTS_MAX = 1024, /* programs that are saved */
};

const struct campaign_court campaign_real_court = {fuzz_court_open, fuzz_noise};

/* Who sits at a desk. */
struct seat {
	struct fuzz_desk *desk;
	int cpu;
	pid_t pid; /* 0: nobody */
	int watch; /* -1: nothing to poll */
	int said;  /* what its stderr leads to */
	enum worker_task task;
	uint64_t moved; /* when it was seen to go on, and with what: */
	uint64_t beats, place, programs;
	bool hangs;
	uint64_t number; /* of the program of the finding */
	double found_seconds;
	char crash_said[1000]; /* of the finding */
};

struct campaign {
	const struct campaign_options *options;
	struct campaign_result *result;
	struct fuzz_hall *hall;
	struct seat seats[DESKS_MAX];
	unsigned nseats;
	uint64_t started, hurried; /* hurried 0: nobody has to */
	struct {
		char what[64], guilty[16];
		unsigned n;
	} kinds[KINDS_MAX];
	unsigned nkinds;
	uint64_t texts[TEXTS_MAX]; /* hashes */
	unsigned ntexts;
	char *why;
	size_t why_size;
	int error;
};

/* splitmix64, from a state that the number has chosen, so that neighbours have nothing in common. */
uint64_t fuzz_program_seed(uint64_t campaign, uint64_t number)
{
	uint64_t z = campaign ^ (number + 1) * 0xd1342543de82ef95;

	for (int i = 0; i < 2; i++) {
		z += 0x9e3779b97f4a7c15;
		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
		z = (z ^ z >> 27) * 0x94d049bb133111eb;
		z ^= z >> 31;
	}
	return z;
}

/* Of numbers first, first + 1, ... those before the first of the shard. */
static uint64_t before_first(const struct campaign_options *options)
{
	return (options->shard + options->nshards - options->first % options->nshards) % options->nshards;
}

uint64_t campaign_size(const struct campaign_options *options)
{
	uint64_t skip = before_first(options);

	return options->programs <= skip ? 0 : (options->programs - 1 - skip) / options->nshards + 1;
}

uint64_t campaign_number(const struct campaign_options *options, uint64_t i)
{
	return options->first + before_first(options) + i * options->nshards;
}

/* ---- processes ---- */

static void sit_down(struct seat *seat)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(seat->cpu, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	dup2(seat->said, STDERR_FILENO);
	/* What a program's process writes into is nobody's report. */
	dup2(STDERR_FILENO, STDOUT_FILENO);
}

/* A group of its own: an interrupt from the terminal is the campaign's to handle, and all of it can be ended at once.
 */
static void start(struct campaign *c, struct seat *seat, enum worker_task task)
{
	pid_t parent = getpid();

	seat->task = task;
	seat->hangs = false;
	seat->moved = now_ms();
	atomic_store(&seat->desk->state, DESK_BUSY);
	if (seat->said >= 0)
		(void)!(ftruncate(seat->said, 0) || lseek(seat->said, 0, SEEK_SET));
	fflush(NULL);
	seat->pid = fork();
	if (!seat->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setpgid(0, 0);
		if (getppid() != parent)
			_exit(1);
		sit_down(seat);
		worker_main(c->options, c->hall, seat->desk, task);
	}
	if (seat->pid < 0) {
		c->error = -errno;
		snprintf(c->why, c->why_size, "no process can be started: %s", strerror(errno));
		seat->pid = 0;
		atomic_store(&c->hall->stop, true);
		return;
	}
	setpgid(seat->pid, seat->pid);
	seat->watch = watch_child(seat->pid);
}

/* Returns: whether whoever sat there has ended; then also what it had started. */
static bool has_ended(struct seat *seat, int *status)
{
	siginfo_t info = {0};

	if (!seat->pid || waitid(P_PID, (id_t)seat->pid, &info, WEXITED | WNOHANG | WNOWAIT) || !info.si_pid)
		return false;
	kill(-seat->pid, SIGKILL);
	while (waitpid(seat->pid, status, 0) < 0 && errno == EINTR)
		continue;
	if (seat->watch >= 0)
		close(seat->watch);
	seat->watch = -1;
	seat->pid = 0;
	return true;
}

/* ---- findings ---- */

static double seconds_since_start(const struct campaign *c)
{
	return (double)(now_ms() - c->started) / 1000;
}

/* Returns: whether so many of its kind are known that it is only counted. */
static bool is_common(struct campaign *c, const struct fuzz_divergence *divergence)
{
	for (unsigned i = 0; i < c->nkinds; i++)
		if (!strcmp(c->kinds[i].what, divergence->what) && !strcmp(c->kinds[i].guilty, divergence->subjects[1]))
			return c->kinds[i].n++ >= SAME_KIND;
	if (c->nkinds == KINDS_MAX)
		return true;
	memcpy(c->kinds[c->nkinds].what, divergence->what, sizeof(divergence->what));
	memcpy(c->kinds[c->nkinds].guilty, divergence->subjects[1], sizeof(divergence->subjects[1]));
	c->kinds[c->nkinds++].n = 1;
	return false;
}

/* FNV-1a */
static uint64_t hash(const char *text)
{
	uint64_t sum = 0xcbf29ce484222325;

	for (; *text; text++)
		sum = (sum ^ (unsigned char)*text) * 0x100000001b3;
	return sum;
}

/* Returns: whether the same text, but for the seed in its title, has been saved, or will be. */
static bool is_known(struct campaign *c, const struct fuzz_program *program)
{
	struct fuzz_program anonymous = *program;
	size_t nbytes;
	uint64_t sum;
	char *text;

	anonymous.seed = 0;
	if (fuzz_print(&anonymous, &text, &nbytes))
		return false;
	sum = hash(text);
	free(text);
	for (unsigned i = 0; i < c->ntexts; i++)
		if (c->texts[i] == sum)
			return true;
	if (c->ntexts < TEXTS_MAX)
		c->texts[c->ntexts++] = sum;
	return false;
}

static void keep_finding(struct campaign *c, const struct seat *seat, const char *path, const char *problem)
{
	struct campaign_finding *finding;

	if (c->result->nfindings == CAMPAIGN_FINDINGS) {
		c->result->left++;
		return;
	}
	finding = &c->result->findings[c->result->nfindings++];
	*finding = (struct campaign_finding){
		.number = seat->number,
		.seed = fuzz_program_seed(c->options->seed, seat->number),
		.seconds = seat->found_seconds,
		.divergence = seat->desk->divergence,
		.repeats = seat->desk->repeats,
	};
	snprintf(finding->path, sizeof(finding->path), "%s", path);
	snprintf(finding->problem, sizeof(finding->problem), "%s", problem);
	memcpy(finding->said, seat->crash_said, sizeof(finding->said));
}

/* ---- what comes next at a desk ---- */

static void go_on(struct campaign *c, struct seat *seat)
{
	if (!atomic_load(&c->hall->stop))
		start(c, seat, TASK_WORK);
}

static void found(struct campaign *c, struct seat *seat)
{
	c->result->totals.divergences++;
	seat->number = atomic_load(&seat->desk->number);
	seat->found_seconds = seconds_since_start(c);
	if (c->options->most && c->result->totals.divergences >= c->options->most) {
		c->result->enough = true;
		atomic_store(&c->hall->stop, true);
	}
	if (is_common(c, &seat->desk->divergence)) {
		c->result->left++;
		go_on(c, seat);
		return;
	}
	seat->desk->repeats = false;
	start(c, seat, TASK_SHRINK);
}

static void read_said(struct seat *seat)
{
	ssize_t n = seat->said < 0 ? 0 : pread(seat->said, seat->crash_said, sizeof(seat->crash_said) - 1, 0);

	seat->crash_said[n > 0 ? n : 0] = '\0';
}

/* The program is made again: what lay at the desk may be damaged. */
static void crashed(struct campaign *c, struct seat *seat, int status)
{
	struct fuzz_desk *desk = seat->desk;
	char how[160] = "it did not go on";

	if (!seat->hangs)
		worker_how_ended(status, how, sizeof(how));
	worker_crash(desk, seat->hangs, how, &desk->divergence);
	worker_generate(&desk->program, c->options, atomic_load(&desk->number));
	atomic_fetch_add(&desk->programs, 1);
	atomic_fetch_add(&desk->operations, desk->divergence.at + 1);
	read_said(seat);
	found(c, seat);
}

static void worked(struct campaign *c, struct seat *seat, int status)
{
	enum desk_state state = atomic_load_explicit(&seat->desk->state, memory_order_acquire);

	if (state == DESK_DONE)
		return;
	if (state == DESK_FOUND) {
		seat->crash_said[0] = '\0';
		found(c, seat);
	} else if (state == DESK_FAILED) {
		c->error = c->error ? c->error : -EIO;
		snprintf(c->why, c->why_size, "%s", seat->desk->why);
		atomic_store(&c->hall->stop, true);
	} else if (!seat->desk->names[0][0]) {
		/* Before there was a court, so of no program. */
		c->error = -EIO;
		worker_how_ended(status, seat->desk->why, sizeof(seat->desk->why));
		snprintf(c->why, c->why_size, "a process did not come to its first program: %s", seat->desk->why);
		atomic_store(&c->hall->stop, true);
	} else if (!c->hurried) {
		crashed(c, seat, status);
	}
}

/* A shrinker that did not come to its end leaves the last that diverged, or the whole program. */
static void shrank(struct campaign *c, struct seat *seat)
{
	if (is_known(c, &seat->desk->program)) {
		c->result->same++;
		go_on(c, seat);
		return;
	}
	start(c, seat, TASK_SAVE);
}

static void saved(struct campaign *c, struct seat *seat, int status)
{
	char how[160];

	if (atomic_load_explicit(&seat->desk->state, memory_order_acquire) == DESK_SAVED) {
		keep_finding(c, seat, seat->desk->path, seat->desk->path[0] ? "" : seat->desk->why);
	} else {
		worker_how_ended(status, how, sizeof(how));
		keep_finding(c, seat, "", how);
	}
	go_on(c, seat);
}

static void next_task(struct campaign *c, struct seat *seat, int status)
{
	switch (seat->task) {
	case TASK_WORK:
		worked(c, seat, status);
		break;
	case TASK_SHRINK:
		shrank(c, seat);
		break;
	case TASK_SAVE:
		saved(c, seat, status);
		break;
	}
}

/* ---- watching ---- */

static void watch_progress(struct campaign *c, struct seat *seat, uint64_t now)
{
	uint64_t beats = atomic_load_explicit(&seat->desk->beats, memory_order_relaxed);
	uint64_t place = atomic_load_explicit(&seat->desk->place, memory_order_relaxed);
	uint64_t programs = atomic_load_explicit(&seat->desk->programs, memory_order_relaxed);

	if (beats != seat->beats || place != seat->place || programs != seat->programs) {
		seat->beats = beats;
		seat->place = place;
		seat->programs = programs;
		seat->moved = now;
	}
	if (seat->hangs || now - seat->moved <= c->options->hang_ms)
		return;
	seat->hangs = true;
	kill(-seat->pid, SIGKILL);
}

static bool is_readable(int fd)
{
	struct pollfd wait = {.fd = fd, .events = POLLIN};

	return fd > 0 && poll(&wait, 1, 0) > 0;
}

/* No new programs when time is up; everybody home when asked to stop. */
static void watch_end(struct campaign *c, uint64_t now)
{
	if (c->options->seconds && now - c->started >= (uint64_t)c->options->seconds * 1000 &&
	    !atomic_exchange(&c->hall->stop, true))
		c->result->out_of_time = true;
	if (!c->hurried && is_readable(c->options->stop)) {
		c->hurried = now;
		c->result->stopped = true;
		atomic_store(&c->hall->stop, true);
		atomic_store(&c->hall->hurry, true);
	}
	for (unsigned i = 0; c->hurried && now - c->hurried > GRACE_MS && i < c->nseats; i++)
		if (c->seats[i].pid)
			kill(-c->seats[i].pid, SIGKILL);
}

static void await(struct campaign *c)
{
	struct pollfd waits[DESKS_MAX + 1];
	nfds_t n = 0;

	for (unsigned i = 0; i < c->nseats; i++)
		if (c->seats[i].pid)
			waits[n++] = (struct pollfd){.fd = c->seats[i].watch, .events = POLLIN};
	if (!c->hurried && c->options->stop > 0)
		waits[n++] = (struct pollfd){.fd = c->options->stop, .events = POLLIN};
	poll(waits, n, POLL_MS);
}

static bool anybody(const struct campaign *c)
{
	for (unsigned i = 0; i < c->nseats; i++)
		if (c->seats[i].pid)
			return true;
	return false;
}

static void sum_up(struct campaign *c)
{
	struct campaign_totals *totals = &c->result->totals;
	struct campaign_totals sum = {.divergences = totals->divergences};

	for (unsigned i = 0; i < c->nseats; i++) {
		struct fuzz_desk *desk = c->seats[i].desk;

		sum.programs += atomic_load_explicit(&desk->programs, memory_order_relaxed);
		sum.operations += atomic_load_explicit(&desk->operations, memory_order_relaxed);
		sum.unjudged += atomic_load_explicit(&desk->unjudged, memory_order_relaxed);
		for (int class = 0; class < FUZZ_NOISE_CLASSES; class ++)
			sum.noise[class] += atomic_load_explicit(&desk->noise[class], memory_order_relaxed);
		for (unsigned tally = 0; tally < FUZZ_TALLIES; tally++) {
			sum.tally[tally] += atomic_load_explicit(&desk->tally[tally], memory_order_relaxed);
			sum.tallied[tally] += atomic_load_explicit(&desk->tallied[tally], memory_order_relaxed);
		}
	}
	sum.seconds = seconds_since_start(c);
	*totals = sum;
}

static void watch(struct campaign *c)
{
	while (anybody(c)) {
		uint64_t now;
		int status;

		await(c);
		now = now_ms();
		watch_end(c, now);
		for (unsigned i = 0; i < c->nseats; i++) {
			if (has_ended(&c->seats[i], &status))
				next_task(c, &c->seats[i], status);
			else if (c->seats[i].pid)
				watch_progress(c, &c->seats[i], now);
		}
		sum_up(c);
		if (c->options->progress)
			c->options->progress(&c->result->totals, c->options->progress_arg);
	}
}

/* ---- beginning and end ---- */

/* Returns: how many cpus there are to pin to, at most DESKS_MAX, and which. */
static unsigned usable_cpus(int *cpus)
{
	unsigned n = 0;
	cpu_set_t set;

	if (!sched_getaffinity(0, sizeof(set), &set))
		for (int cpu = 0; cpu < CPU_SETSIZE && n < DESKS_MAX; cpu++)
			if (CPU_ISSET(cpu, &set))
				cpus[n++] = cpu;
	if (!n)
		cpus[n++] = 0;
	return n;
}

static size_t hall_size(const struct campaign *c)
{
	return sizeof(struct fuzz_hall) + c->nseats * sizeof(struct fuzz_desk);
}

static int open_hall(struct campaign *c)
{
	int cpus[DESKS_MAX];
	unsigned ncpus = usable_cpus(cpus);

	c->nseats = c->options->workers ? c->options->workers : ncpus;
	if (c->nseats > DESKS_MAX)
		c->nseats = DESKS_MAX;
	c->result->workers = c->nseats;
	c->hall = mmap(NULL, hall_size(c), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c->hall == MAP_FAILED)
		return -errno;
	for (unsigned i = 0; i < c->nseats; i++)
		c->seats[i] = (struct seat){
			.desk = &c->hall->desks[i],
			.cpu = cpus[i % ncpus],
			.watch = -1,
			.said = memfd_create("ucow-fuzz-stderr", MFD_CLOEXEC),
		};
	return 0;
}

static void close_hall(struct campaign *c)
{
	for (unsigned i = 0; i < c->nseats; i++) {
		struct fuzz_desk *desk = c->seats[i].desk;

		fuzz_pairs_add(&c->result->pairs, &desk->pairs);
		if (desk->unjudged_why[0])
			memcpy(c->result->unjudged, desk->unjudged_why, sizeof(desk->unjudged_why));
		if (c->seats[i].said >= 0)
			close(c->seats[i].said);
	}
	munmap(c->hall, hall_size(c));
}

int fuzz_campaign(const struct campaign_options *options, struct campaign_result *result, char *why, size_t size)
{
	struct campaign *c = calloc(1, sizeof(*c));
	int error;

	*result = (struct campaign_result){0};
	if (!c) {
		snprintf(why, size, "out of memory");
		return -ENOMEM;
	}
	*c = (struct campaign){.options = options, .result = result, .why = why, .why_size = size};
	error = open_hall(c);
	if (error) {
		snprintf(why, size, "no memory to share: %s", strerror(-error));
		free(c);
		return error;
	}
	c->started = now_ms();
	for (unsigned i = 0; i < c->nseats; i++)
		go_on(c, &c->seats[i]);
	watch(c);
	sum_up(c);
	close_hall(c);
	error = c->error;
	free(c);
	return error;
}
