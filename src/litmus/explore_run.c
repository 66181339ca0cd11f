/* SPDX-License-Identifier: MIT */
/*
 * One process that runs a test over and over, each time with the lanes in another order: the statements before the
 * first `parallel` once, then from a snapshot of all memory the lanes, what follows them, and the checks of the
 * machine.
 */
#include "explore_run.h"

#include "engine.h"
#include "explore_arena.h"
#include "explore_names.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PAGES_PER_MAPPED 8 /* RAM for each page that the test maps: copies, and what lanes' caches hold */
#define SCOUT_BOUND      1
#define SCOUT_RUNS       1000
#define REDUCED_RUNS     20000 /* of a reduced search before one by states takes over */
#define SMALL_RAM        (UINT64_C(2) << 20)

/*
 * A search of all interleavings has three parts. A scout with one preemption comes by most of what lanes share, so that
 * the real one need not begin anew late, and most mistakes show in it. The reduced search is soon through where lanes
 * seldom meet. Where they meet often the number of interleavings explodes while that of the states does not: then a run
 * ends where it comes to a state that was met.
 */
enum phase { PHASE_SCOUT, PHASE_REDUCED, PHASE_STATES };

/* Of this process. Not in the arena: it outlives the runs. */
static struct {
	const struct litmus *litmus;
	const struct explore_options *options;
	struct explore_shared *shared;
	struct run_options run_options;
	struct engine *engine; /* in the arena, like all that hangs on it */
	struct shared_lock *lock;
	struct engine *views[SEARCH_LANES]; /* of the lanes, as they go */
	size_t start;                       /* the first statement that is in a block, or the end */
	unsigned nlanes;                    /* of that block, which is open already */
	enum lanes_end end;                 /* of the last block */
	bool recording;
	enum phase phase;
	uint32_t lines[SEARCH_LANES]; /* where the lanes are, when recording */
	bool meet;                    /* lanes use the lock */
	const struct stmt *volatile at[LITMUS_LANES_MAX];
} run;

/* ---- what the runner of statements does here (engine_hooks.h) ---- */

void *engine_calloc(size_t n, size_t nbytes)
{
	return arena_calloc(n, nbytes);
}

void *engine_realloc(void *memory, size_t nbytes)
{
	return arena_realloc(memory, nbytes);
}

void engine_free_memory(void *memory)
{
	arena_free(memory);
}

/* One lock and one queue, in the arena. */
struct shared_lock {
	uint32_t held, wakes;
};

static bool is_free(const volatile void *held, uintptr_t unused)
{
	(void)unused;
	return !*(const volatile uint32_t *)held;
}

static bool lanes_share_files(const struct litmus *litmus)
{
	for (size_t i = 0; i < litmus->nstmts; i++) {
		const struct stmt *one = &litmus->stmts[i];

		for (size_t j = 0; j < i && one->block && one->file >= 0; j++) {
			const struct stmt *other = &litmus->stmts[j];

			if (other->block == one->block && other->lane != one->lane && other->file >= 0)
				return true;
		}
	}
	return false;
}

/*
 * Lanes meet outside of the engine only where tests have locks, userfaultfds, or files that several lanes use; else
 * that is no choice.
 */
static bool lanes_meet(void)
{
	const struct litmus *litmus = run.litmus;

	for (size_t i = 0; i < litmus->nnames; i++)
		if (litmus->names[i].kind == NAME_LOCK || litmus->names[i].kind == NAME_UFFD)
			return true;
	return lanes_share_files(litmus);
}

void engine_lock_shared(void)
{
	if (!run.meet)
		return;
	hook_await(HOOK_UPDATE, &run.lock->held, is_free, 0);
	run.lock->held = 1;
	hook_hold(run.lock, true);
}

void engine_unlock_shared(void)
{
	if (!run.meet)
		return;
	hook_step(HOOK_STORE, &run.lock->held);
	run.lock->held = 0;
	hook_release(run.lock);
}

static bool has_changed(const volatile void *wakes, uintptr_t before)
{
	return *(const volatile uint32_t *)wakes != before;
}

void engine_wait(void)
{
	uint32_t before = run.lock->wakes;

	engine_unlock_shared();
	hook_await(HOOK_LOAD, &run.lock->wakes, has_changed, before);
	engine_lock_shared();
}

void engine_wake(void)
{
	if (!run.meet)
		return;
	hook_step(HOOK_ADD, &run.lock->wakes);
	run.lock->wakes++;
}

static bool is_unlocked(const volatile void *flags, uintptr_t page)
{
	(void)flags;
	return !explore_page_is_locked((const struct ucow_page *)page);
}

void engine_yield(const struct ucow_page *page)
{
	/* The lock is a flag, and any change of the flags is a step on them. */
	hook_await(HOOK_LOAD, explore_page_flags(page), is_unlocked, (uintptr_t)page);
}

void engine_pause(struct engine *engine)
{
	(void)engine;
}

struct engine *engine_current(void)
{
	int lane = lanes_current();

	return lane < 0 ? run.engine : run.views[lane];
}

void engine_set_current(struct engine *engine)
{
	int lane = lanes_current();

	if (lane >= 0)
		run.views[lane] = engine;
}

/* A little of the engine's own memory stands for host files, whose descriptor is any. */
int engine_host_file(uint64_t nbytes)
{
	(void)nbytes;
	return 0;
}

long engine_host_read(int fd, void *bytes, size_t nbytes, uint64_t offset)
{
	(void)fd;
	(void)bytes;
	(void)nbytes;
	(void)offset;
	return -EOPNOTSUPP;
}

/* A device's access is one step: that it can be torn is not what is looked at. */
void engine_store_bytes(void *page, const void *bytes, size_t nbytes)
{
	hook_step(HOOK_STORE, page);
	memcpy(page, bytes, nbytes);
}

void engine_load_bytes(void *bytes, const void *page, size_t nbytes)
{
	hook_step(HOOK_LOAD, page);
	memcpy(bytes, page, nbytes);
}

/* ---- crashes ---- */

_Noreturn void base_bug(const char *file, int line, const char *what)
{
	fprintf(stderr, "ucow: BUG at %s:%d: %s\n", file, line, what);
	if (run.shared)
		snprintf(run.shared->bug, sizeof(run.shared->bug), "BUG at %s:%d: %s", file, line, what);
	abort();
}

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
	(void)context;
	if (arena_fault(info->si_addr))
		return;
	snprintf(run.shared->bug, sizeof(run.shared->bug), "bad access at %p", info->si_addr);
	signal(signal_number, SIG_DFL); /* the access is made again, and ends the process */
}

static bool catch_faults(void)
{
	static char stack[65536];
	stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	return !sigaltstack(&alternate, NULL) && !sigaction(SIGSEGV, &action, NULL);
}

/* ---- before the lanes ---- */

static uint64_t ram_wanted(const struct litmus *litmus)
{
	uint64_t npages = 0, nbytes;

	if (!litmus->nblocks)
		return 0;
	for (size_t i = 0; i < litmus->nstmts; i++)
		if (litmus->stmts[i].kind == STMT_MAP)
			npages += litmus->stmts[i].count;
	nbytes = npages * PAGES_PER_MAPPED * UCOW_PAGE_SIZE;
	return nbytes > SMALL_RAM ? nbytes : SMALL_RAM;
}

static bool begin(void)
{
	struct engine *engine = arena_calloc(1, sizeof(*engine));

	run.engine = engine;
	run.run_options = (struct run_options){
		.policy = run.options->policy, .fork = run.options->fork, .ram_bytes = ram_wanted(run.litmus)};
	if (!engine)
		return false;
	*engine = (struct engine){
		.litmus = run.litmus,
		.options = &run.run_options,
		.result = arena_calloc(1, sizeof(*engine->result)),
		.objects = arena_calloc(run.litmus->nnames, sizeof(*engine->objects)),
		.cpus = arena_calloc(run.litmus->nnames, sizeof(struct ucow_cpu *)),
		.at = run.at,
	};
	run.lock = arena_calloc(1, sizeof(*run.lock));
	run.meet = lanes_meet();
	return engine->result && engine->objects && engine->cpus && run.lock;
}

static bool passes(void)
{
	return run.engine->result->verdict == VERDICT_PASS;
}

/* The threads are there before they meet: making them is no part of what is looked at. */
static void open_first_block(void)
{
	if (engine_block_open(run.engine, run.start, &run.nlanes)) {
		run_result_error(run.engine->result, NULL, "out of memory");
		return;
	}
	if (!engine_block_agrees(run.engine))
		return;
	for (unsigned i = 0; i < run.nlanes; i++) {
		lanes_as((int)i);
		engine_lane_prepare(run.engine, i);
	}
	lanes_as(-1);
}

static void run_beginning(void)
{
	const struct litmus *litmus = run.litmus;

	while (run.start < litmus->nstmts && !litmus->stmts[run.start].block && passes())
		run.start = engine_next(run.engine, run.start);
	if (passes() && run.start < litmus->nstmts)
		open_first_block();
}

/* ---- lanes ---- */

static const char *describe_end(enum lanes_end end)
{
	switch (end) {
	case LANES_DEADLOCK:
		return "deadlock: every lane waits";
	case LANES_LOST_WAKE:
		return "lost wake-up: a lane sleeps for ever";
	case LANES_LIVELOCK:
		return "livelock: a lane takes steps without end";
	case LANES_MISFIT:
		return "the schedule does not fit the test";
	case LANES_DONE:
	case LANES_PRUNED:
		break;
	}
	return NULL;
}

/* The statement where the first lane is that has not ended. */
static const struct stmt *stuck_stmt(void)
{
	for (unsigned i = 0; i < SEARCH_LANES; i++)
		if (lanes_unfinished(i))
			return run.at[i];
	return NULL;
}

static void run_lane(void *engine, unsigned number)
{
	engine_lane_run(engine, number);
}

/* A block that does not end ends the run: its lanes hold locks. */
int engine_run_lanes(struct engine *engine, unsigned nlanes)
{
	run.end = lanes_run(nlanes, run_lane, engine);
	if (run.end == LANES_MISFIT)
		run_result_error(engine->result, NULL, "%s", describe_end(run.end));
	else if (describe_end(run.end))
		run_result_break(engine->result, stuck_stmt(), "%s", describe_end(run.end));
	return run.end == LANES_DONE ? 0 : ECANCELED;
}

/* ---- a whole run ---- */

static void name_step(void *arg, const struct lanes_choice *choice, enum op_kind kind, bool waits,
		      const volatile void *object, const struct hook_site *site, bool preempts)
{
	struct explore_shared *shared = arg;
	struct explore_step *step = &shared->steps[shared->nsteps];
	unsigned lane = choice->proc % SEARCH_LANES;

	if (shared->nsteps == SEARCH_NODES)
		return;
	/* After its last statement the lane is still at that. */
	if (run.at[lane])
		run.lines[lane] = run.at[lane]->loc.line;
	*step = (struct explore_step){
		.lane = lane,
		.at = choice->at,
		.statement = run.lines[lane],
		.block = choice->block,
		.flush = choice->proc >= SEARCH_LANES,
		.preempts = preempts,
		.frame = EXPLORE_NO_FRAME,
	};
	explore_name_step(run.engine, step, kind, waits, object, site);
	shared->nsteps++;
}

/* Told as steps: a schedule that is followed ends with where the lanes stand. */
static void name_stop(void *arg, const struct lanes_choice *choice, enum op_kind kind, bool waits,
		      const volatile void *object, const struct hook_site *site)
{
	struct explore_shared *shared = arg;
	struct explore_step *step = &shared->steps[shared->nsteps];
	char what[sizeof(step->what)];

	if (shared->nsteps == SEARCH_NODES)
		return;
	name_step(arg, choice, kind, waits, object, site, false);
	snprintf(what, sizeof(what), "stands before: %.80s", step->what);
	memcpy(step->what, what, sizeof(what));
	step->saw[0] = '\0';
	step->stop = true;
}

/*
 * Counters decide nothing but what `check count` sees, and the balance of references at the end: in a test without such
 * checks it is only the balance that belongs to a state.
 */
static bool checks_counters(void)
{
	const struct litmus *litmus = run.litmus;

	for (size_t i = 0; i < litmus->nstmts; i++)
		if (litmus->stmts[i].kind == STMT_CHECK_COUNT)
			return true;
	return false;
}

static void leave_counters_out(void)
{
	const void *counters;
	size_t nbytes;

	explore_counters(run.engine, &counters, &nbytes);
	arena_leave_out(counters, checks_counters() ? 0 : nbytes);
}

static uint64_t counted(enum ucow_counter counter)
{
	return ucow_machine_counter(run.engine->machine, counter);
}

static void add_memory(struct state_sum *sum)
{
	uint64_t balance[] = {counted(UCOW_COUNTER_GETS) - counted(UCOW_COUNTER_PUTS),
			      counted(UCOW_COUNTER_PINS) - counted(UCOW_COUNTER_UNPINS)};

	arena_add(sum);
	states_add_part(sum, UINT64_C(1) << 31, balance, sizeof(balance));
}

static void begin_run(void)
{
	static struct lanes_observer mine = {name_step, name_stop, NULL};
	struct lanes_options options = {.tso = run.options->memory == EXPLORE_TSO};
	const void *ram;
	size_t nbytes;

	mine.arg = run.shared;
	if (run.recording) {
		options.observer = &mine;
		options.schedule = run.shared->choices;
		options.nschedule = run.shared->nchoices;
		options.nmade = run.shared->nmade;
	} else {
		options.search = &run.shared->search;
		options.add_memory = run.phase == PHASE_STATES ? add_memory : NULL;
	}
	lanes_begin_run(&options);
	explore_ram(run.engine, &ram, &nbytes);
	lanes_coarse(ram, nbytes, UCOW_PAGE_SIZE);
}

/* The block that is open. Returns: the statement after it. */
static size_t run_first_block(void)
{
	size_t next;

	engine_run_lanes(run.engine, run.nlanes);
	if (run.end != LANES_DONE)
		return run.litmus->nstmts;
	next = engine_block_close(run.engine);
	ucow_machine_synchronize(run.engine->machine);
	return next;
}

/* From the first block to the end. Returns: how its blocks ended; LANES_DONE also where a check failed. */
static enum lanes_end run_rest(void)
{
	const struct litmus *litmus = run.litmus;
	size_t i = run.start;

	begin_run();
	run.end = LANES_DONE;
	if (i < litmus->nstmts)
		i = run_first_block();
	while (i < litmus->nstmts && passes() && run.end == LANES_DONE)
		i = engine_next(run.engine, i);
	/* After a failed check too: what the engine did wrong says more than what came of it. */
	if (run.end == LANES_DONE)
		engine_settle(run.engine);
	return run.end;
}

static void tell_result(void)
{
	struct explore_shared *shared = run.shared;

	shared->result.checks = run.engine->result->checks;
	if (passes())
		return;
	shared->result = *run.engine->result;
	shared->engine_fault = shared->result.verdict == VERDICT_ERROR;
	shared->state = EXPLORE_FOUND;
}

static bool prepare(void)
{
	if (arena_open() || lanes_open() || !begin() || !catch_faults()) {
		run.shared->state = EXPLORE_FAILED;
		snprintf(run.shared->result.reason, sizeof(run.shared->result.reason), "out of memory");
		return false;
	}
	lanes_begin_run(&(struct lanes_options){0});
	engine_set_current(run.engine);
	if (!engine_begin(run.engine)) {
		run.shared->result = *run.engine->result;
		run.shared->state = passes() || run.engine->result->verdict == VERDICT_ERROR ? EXPLORE_FAILED
											     : EXPLORE_SKIPPED;
		return false;
	}
	run_beginning();
	return true;
}

static uint64_t seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec;
}

/* Whether the search must end before it is complete. */
static bool is_over(uint64_t deadline)
{
	const struct explore_options *options = run.options;

	if (options->max && run.shared->interleavings >= options->max)
		return true;
	return options->seconds && !(run.shared->search.runs & 63) && seconds_now() >= deadline;
}

/* What a run showed. Returns: whether the search goes on. */
static bool learn(enum lanes_end end)
{
	struct explore_shared *shared = run.shared;

	shared->search.runs++;
	if (shared->search.diverged) {
		shared->state = EXPLORE_FAILED;
		snprintf(shared->result.reason, sizeof(shared->result.reason),
			 "explorer: a repeated run took other steps");
		return false;
	}
	/* A run that came to a state that was met is one of its own up to there. */
	shared->interleavings += end != LANES_PRUNED || run.phase == PHASE_STATES;
	if (end != LANES_PRUNED)
		tell_result();
	if (shared->state == EXPLORE_FOUND && !shared->interleavings)
		shared->interleavings = 1;
	return shared->state == EXPLORE_RUNNING;
}

/* Whether this part of the search has done what it is for. @more: it is not complete. */
static bool is_phase_over(bool more)
{
	const struct search *search = &run.shared->search;
	bool full = run.options->bound == EXPLORE_UNBOUNDED;

	switch (run.phase) {
	case PHASE_SCOUT:
		return run.options->bound > SCOUT_BOUND && (!more || search->runs >= SCOUT_RUNS);
	case PHASE_REDUCED:
		return more && full && states_are_built() && search->runs_of_pass >= REDUCED_RUNS;
	case PHASE_STATES:
		break;
	}
	return false;
}

static void begin_phase(enum phase phase)
{
	uint32_t bound = run.options->bound;

	run.phase = phase;
	run.shared->search.by_states = phase == PHASE_STATES;
	search_begin_anew(&run.shared->search, bound, bound != EXPLORE_UNBOUNDED);
}

/* What was met so far will be met again. */
static void begin_pass(void)
{
	run.shared->interleavings = 0;
	if (run.phase == PHASE_STATES)
		states_forget();
}

static void end_search(bool more)
{
	run.shared->complete = !more && !states_full();
	run.shared->states = run.phase == PHASE_STATES ? states_count() : 0;
	run.shared->state = EXPLORE_FINISHED;
}

static void search_all(void)
{
	struct search *search = &run.shared->search;
	uint64_t deadline = seconds_now() + run.options->seconds;

	while (learn(run_rest())) {
		uint32_t pass = search->passes;
		bool more = search_next(search), over;

		over = is_over(deadline);
		if (!over && is_phase_over(more)) {
			begin_phase(run.phase + 1);
		} else if (!more || over) {
			end_search(more || is_phase_over(more));
			return;
		}
		if (search->passes != pass)
			begin_pass();
		arena_restore();
	}
}

void explore_run_all(const struct litmus *litmus, const struct explore_options *options, struct explore_shared *shared)
{
	run.litmus = litmus;
	run.options = options;
	run.shared = shared;
	search_init(&shared->search, options->bound < SCOUT_BOUND ? options->bound : SCOUT_BOUND, true);
	if (!prepare())
		return;
	if (!passes()) {
		shared->interleavings = 1;
		tell_result();
		return;
	}
	leave_counters_out();
	arena_snapshot();
	if (options->bound == EXPLORE_UNBOUNDED && states_open()) {
		shared->state = EXPLORE_FAILED;
		snprintf(shared->result.reason, sizeof(shared->result.reason), "no room for states");
		return;
	}
	search_all();
}

void explore_run_one(const struct litmus *litmus, const struct explore_options *options, struct explore_shared *shared)
{
	run.litmus = litmus;
	run.options = options;
	run.shared = shared;
	run.recording = true;
	if (!prepare())
		return;
	shared->interleavings = 1;
	if (passes())
		run_rest();
	if (passes() && !lanes_followed())
		run_result_error(run.engine->result, NULL, "%s", describe_end(LANES_MISFIT));
	tell_result();
	if (shared->state == EXPLORE_RUNNING)
		shared->state = EXPLORE_FINISHED;
}

bool explore_run_machine(const struct explore_options *options)
{
	struct ucow_machine_options machine_options = {
		.size = sizeof(machine_options), .policy = options->policy, .fork_mode = options->fork};
	struct ucow_machine *machine;

	return !arena_open() && !ucow_machine_create(&machine_options, &machine);
}
