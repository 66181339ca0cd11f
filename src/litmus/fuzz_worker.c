/* SPDX-License-Identifier: MIT */
/* What the processes of a campaign do: run programs, make a divergence smaller, save it. */
#include "fuzz_worker.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	SHRINK_RUNS = 4000,
	SHRINK_TRIES = 3, /* for a divergence to come again */
};

struct worker {
	const struct campaign_options *options;
	struct fuzz_hall *hall;
	struct fuzz_desk *desk;
	struct fuzz_court court;
};

uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int watch_child(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

void worker_how_ended(int status, char *how, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(how, size, "it was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(how, size, "it exited with status %d", WEXITSTATUS(status));
}

void worker_crash(const struct fuzz_desk *desk, bool hangs, const char *how, struct fuzz_divergence *divergence)
{
	uint64_t place = atomic_load_explicit(&desk->place, memory_order_acquire);
	const char *guilty = desk->names[place % 8 % 4];

	*divergence = (struct fuzz_divergence){.at = place >> 3, .process = -1, .page = -1, .handle = -1};
	divergence->is_error = true;
	snprintf(divergence->what, sizeof(divergence->what), "%s", hangs ? "hang" : "crash");
	snprintf(divergence->subjects[0], sizeof(divergence->subjects[0]), "%s", guilty);
	snprintf(divergence->subjects[1], sizeof(divergence->subjects[1]), "%s", guilty);
	snprintf(divergence->saw[0], sizeof(divergence->saw[0]), "%s", how);
}

static void beat(struct fuzz_desk *desk)
{
	atomic_fetch_add_explicit(&desk->beats, 1, memory_order_relaxed);
}

_Noreturn static void leave(struct fuzz_desk *desk, enum desk_state state)
{
	atomic_store_explicit(&desk->state, state, memory_order_release);
	_exit(0);
}

/* ---- a program on a court ---- */

static bool open_court(struct worker *w)
{
	struct fuzz_desk *desk = w->desk;

	if (w->options->court->open(w->options->against, &w->court, desk->why, sizeof(desk->why)))
		return false;
	w->court.place = &desk->place;
	for (unsigned i = 0; i < w->court.nsubjects; i++)
		snprintf(desk->names[i], sizeof(desk->names[i]), "%s", w->court.subjects[i]->type->name);
	return true;
}

static int open_test(const struct fuzz_program *program, struct litmus **litmus, struct fuzz_test *test, char *why,
		     size_t size)
{
	struct litmus_error error;
	size_t nbytes;
	char *text;
	int err = fuzz_print(program, &text, &nbytes);

	if (err)
		return err;
	err = litmus_parse("fuzz.litmus", text, nbytes, litmus, &error);
	free(text);
	if (err) {
		snprintf(why, size, "the program is no litmus test: %u:%u: %.100s", error.loc.line, error.loc.column,
			 error.text);
		return err;
	}
	*test = (struct fuzz_test){.litmus = *litmus, .looks = program->looks, .room = program->room};
	if (fuzz_lay_out(*litmus, &test->layout))
		return 0;
	snprintf(why, size, "the program is larger than a view");
	litmus_free(*litmus);
	return -E2BIG;
}

/* What became of a program. */
struct trial {
	int result;   /* as fuzz_run() */
	int noise;    /* class, or -1 */
	bool ran_out; /* of memory: some subject was not compared to the end */
	uint64_t operations;
	uint64_t tally[FUZZ_TALLIES];
	struct fuzz_divergence divergence;
};

/* Of the first engine, since it was opened. */
static void read_tally(const struct worker *w, uint64_t tally[FUZZ_TALLIES])
{
	const uint64_t *counts = w->court.nsubjects > 1 ? w->court.subjects[1]->tally : NULL;

	for (unsigned i = 0; i < FUZZ_TALLIES; i++)
		tally[i] = counts ? counts[i] : 0;
}

/* @pairs, where given, counts what was tried. */
static void try_program(struct worker *w, const struct fuzz_program *program, struct fuzz_pairs *pairs,
			struct trial *trial)
{
	uint64_t before[FUZZ_TALLIES];
	struct fuzz_test test;
	struct litmus *litmus;

	*trial = (struct trial){.noise = -1};
	trial->result = open_test(program, &litmus, &test, trial->divergence.saw[0], sizeof(trial->divergence.saw[0]));
	if (trial->result)
		return;
	read_tally(w, before);
	trial->result = fuzz_run(&w->court, &test, &trial->divergence);
	read_tally(w, trial->tally);
	for (unsigned i = 0; i < FUZZ_TALLIES; i++)
		trial->tally[i] -= before[i];
	trial->operations = atomic_load_explicit(&w->desk->place, memory_order_relaxed) >> 3;
	if (trial->result > 0)
		trial->noise = w->options->court->noise(&w->court, &test, &trial->divergence);
	if (pairs && trial->result >= 0)
		fuzz_pairs_count(pairs, &test);
	for (unsigned i = 0; i < w->court.nsubjects; i++)
		trial->ran_out |= w->court.out[i];
	litmus_free(litmus);
	beat(w->desk);
}

/* ---- working ---- */

/* Returns: whether there is one more. */
static bool next_number(struct worker *w, uint64_t *number)
{
	uint64_t i;

	if (atomic_load_explicit(&w->hall->stop, memory_order_relaxed))
		return false;
	i = atomic_fetch_add_explicit(&w->hall->next, 1, memory_order_relaxed);
	*number = campaign_number(w->options, i);
	return i < campaign_size(w->options);
}

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* A reference that failed gets a second chance, from a fresh start. Returns: whether there is a court again. */
static bool try_afresh(struct worker *w, struct trial *trial)
{
	fuzz_court_close(&w->court);
	if (!open_court(w))
		return false;
	try_program(w, &w->desk->program, &w->desk->pairs, trial);
	return true;
}

static void count_trial(struct fuzz_desk *desk, const struct trial *trial)
{
	if (trial->result < 0) {
		snprintf(desk->unjudged_why, sizeof(desk->unjudged_why), "%s: %.140s",
			 trial->divergence.subjects[0][0] ? trial->divergence.subjects[0] : "generator",
			 trial->divergence.saw[0][0] ? trial->divergence.saw[0] : litmus_error_name(-trial->result));
		add(&desk->unjudged, 1);
		return;
	}
	add(&desk->operations, trial->operations);
	if (trial->noise >= 0)
		add(&desk->noise[trial->noise], 1);
	else if (!trial->result && trial->ran_out)
		add(&desk->noise[FUZZ_NOISE_MEMORY], 1);
	for (unsigned i = 0; i < FUZZ_TALLIES; i++) {
		add(&desk->tally[i], trial->tally[i]);
		add(&desk->tallied[i], trial->tally[i] != 0);
	}
	add(&desk->programs, 1);
}

void worker_generate(struct fuzz_program *program, const struct campaign_options *options, uint64_t number)
{
	uint64_t seed = fuzz_program_seed(options->seed, number);

	if (options->against == FUZZ_AGAINST_KERNEL)
		fuzz_generate_pressed(program, seed, options->ops, options->pressure);
	else
		fuzz_generate(program, seed, options->ops, options->against);
}

static enum desk_state work(struct worker *w)
{
	struct fuzz_desk *desk = w->desk;
	struct trial trial;
	uint64_t number;

	while (next_number(w, &number)) {
		worker_generate(&desk->program, w->options, number);
		atomic_store_explicit(&desk->number, number, memory_order_relaxed);
		try_program(w, &desk->program, &desk->pairs, &trial);
		if (trial.result < 0 && !try_afresh(w, &trial))
			return DESK_FAILED;
		count_trial(desk, &trial);
		if (trial.result <= 0 || trial.noise >= 0)
			continue;
		desk->divergence = trial.divergence;
		return DESK_FOUND;
	}
	return DESK_DONE;
}

/* ---- the judge ---- */

struct shrinker {
	struct worker *w;
	pid_t judge;
	int line; /* to it; -1: there is none */
	int watch;
	uint64_t deadline;
	struct fuzz_divergence sought;
};

/* What is done at one desk alone is judged by one child: a byte asks about the candidate, a byte answers. */
_Noreturn static void be_judge(struct worker *w, int line)
{
	struct trial trial;
	char byte;

	if (!open_court(w))
		_exit(1);
	while (read(line, &byte, 1) == 1) {
		try_program(w, &w->desk->candidate, NULL, &trial);
		w->desk->judged = trial.divergence;
		byte = trial.result > 0 && trial.noise < 0 ? 'y' : 'n';
		if (write(line, &byte, 1) != 1)
			break;
	}
	fuzz_court_close(&w->court);
	_exit(0);
}

static bool start_judge(struct shrinker *s)
{
	int ends[2];
	pid_t parent = getpid();

	if (s->line >= 0)
		return true;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return false;
	s->judge = fork();
	if (!s->judge) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		close(ends[0]);
		be_judge(s->w, ends[1]);
	}
	close(ends[1]);
	if (s->judge < 0) {
		close(ends[0]);
		return false;
	}
	s->line = ends[0];
	s->watch = watch_child(s->judge);
	return true;
}

/* Returns: its wait status. */
static int end_judge(struct shrinker *s)
{
	int status = 0;

	close(s->line);
	if (s->watch >= 0)
		close(s->watch);
	s->line = s->watch = -1;
	while (waitpid(s->judge, &status, 0) < 0 && errno == EINTR)
		continue;
	return status;
}

enum answer { ANSWER_NO, ANSWER_YES, ANSWER_CRASH, ANSWER_HANG };

static enum answer await_answer(struct shrinker *s)
{
	uint64_t moved = now_ms(), before = 0;
	char byte;

	for (;;) {
		struct pollfd waits[] = {{.fd = s->line, .events = POLLIN}, {.fd = s->watch, .events = POLLIN}};
		uint64_t place = atomic_load_explicit(&s->w->desk->place, memory_order_relaxed);

		if (place != before) {
			before = place;
			moved = now_ms();
		}
		poll(waits, 2, 100);
		if (waits[0].revents & (POLLIN | POLLHUP))
			return read(s->line, &byte, 1) == 1 ? byte == 'y' ? ANSWER_YES : ANSWER_NO : ANSWER_CRASH;
		if (waits[1].revents)
			return ANSWER_CRASH;
		/* So long that it is one, and soon enough for the campaign not to take the shrinker for one. */
		if (now_ms() - moved > s->w->options->hang_ms / 4)
			return ANSWER_HANG;
	}
}

/* Returns: whether it diverges; desk->judged tells how. */
static bool ask(struct shrinker *s, const struct fuzz_program *program)
{
	struct fuzz_desk *desk = s->w->desk;
	enum answer answer;
	char how[160];

	beat(desk);
	if (!start_judge(s))
		return false;
	desk->candidate = *program;
	answer = send(s->line, "?", 1, MSG_NOSIGNAL) == 1 ? await_answer(s) : ANSWER_CRASH;
	if (answer <= ANSWER_YES)
		return answer == ANSWER_YES;
	if (answer == ANSWER_HANG)
		kill(s->judge, SIGKILL);
	worker_how_ended(end_judge(s), how, sizeof(how));
	worker_crash(desk, answer == ANSWER_HANG, answer == ANSWER_HANG ? "it did not go on" : how, &desk->judged);
	return true;
}

/* ---- making smaller ---- */

/* Another property, or another subject, is another finding. */
static bool is_same(const struct fuzz_divergence *a, const struct fuzz_divergence *b)
{
	return !strcmp(a->what, b->what) && !strcmp(a->subjects[0], b->subjects[0]) &&
	       !strcmp(a->subjects[1], b->subjects[1]);
}

static bool still_diverges(const struct fuzz_program *program, void *arg)
{
	struct shrinker *s = arg;
	struct fuzz_desk *desk = s->w->desk;

	if (atomic_load_explicit(&s->w->hall->hurry, memory_order_relaxed) || now_ms() > s->deadline)
		return false;
	if (!ask(s, program) || !is_same(&desk->judged, &s->sought))
		return false;
	desk->divergence = desk->judged;
	return true;
}

static enum desk_state shrink(struct worker *w)
{
	struct fuzz_desk *desk = w->desk;
	struct shrinker s = {.w = w, .line = -1, .watch = -1, .sought = desk->divergence};
	struct fuzz_program program = desk->program;

	s.deadline = now_ms() + w->options->shrink_ms;
	desk->repeats = false;
	for (unsigned i = 0; i < SHRINK_TRIES && !desk->repeats; i++)
		desk->repeats = still_diverges(&program, &s);
	if (desk->repeats)
		fuzz_shrink(&program, still_diverges, &s, SHRINK_RUNS);
	desk->program = program;
	if (s.line >= 0)
		end_judge(&s);
	return DESK_SHRUNK;
}

/* ---- saving ---- */

static enum desk_state save(struct worker *w)
{
	struct fuzz_desk *desk = w->desk;
	int error;

	desk->path[0] = '\0';
	if (!open_court(w))
		return DESK_SAVED;
	error = fuzz_save(w->options->save, &desk->program, w->court.subjects[0], &desk->divergence, desk->path,
			  sizeof(desk->path));
	if (error) {
		desk->path[0] = '\0';
		snprintf(desk->why, sizeof(desk->why), "%s", strerror(-error));
	}
	return DESK_SAVED;
}

/* ---- */

_Noreturn void worker_main(const struct campaign_options *options, struct fuzz_hall *hall, struct fuzz_desk *desk,
			   enum worker_task task)
{
	struct worker w = {.options = options, .hall = hall, .desk = desk};

	if (task == TASK_SHRINK)
		leave(desk, shrink(&w));
	if (task == TASK_SAVE)
		leave(desk, save(&w));
	if (!open_court(&w))
		leave(desk, DESK_FAILED);
	{
		enum desk_state state = work(&w);

		if (state != DESK_FAILED)
			fuzz_court_close(&w.court);
		leave(desk, state);
	}
}
