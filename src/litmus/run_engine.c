/* SPDX-License-Identifier: MIT */
/*
 * The engine runner: a fresh machine for one test, its statements in order, lanes interleaved by seed, outcomes judged,
 * and the balance drawn at the end.
 */
#include "engine.h"
#include "judge.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_RAM (UINT64_C(64) << 20)

/* ---- the machine ---- */

/* Nobody waits for a page lock here: statements run one at a time, so the holder would never get on. */
static bool give_up_page_lock(void *arg, struct ucow_page *page)
{
	struct engine *engine = arg;

	(void)page;
	engine->page_lock_held = true;
	return false;
}

static bool start_machine(struct engine *engine)
{
	const struct run_options *options = engine->options;
	struct ucow_machine_options machine_options = {
		.size = sizeof(machine_options),
		.ram_bytes = engine->litmus->machine.ram_bytes ? engine->litmus->machine.ram_bytes : DEFAULT_RAM,
		.policy = options->policy,
		.fork_mode = options->fork,
		.flags = UCOW_MACHINE_POISON,
		.on_page_lock_wait = give_up_page_lock,
		.arg = engine,
	};
	int error = ucow_machine_create(&machine_options, &engine->machine);

	if (!error) {
		ucow_machine_stat(engine->machine, &engine->fresh);
		error = ucow_mm_create(engine->machine, &engine->objects[0].process.mm);
	}
	if (error == -EOPNOTSUPP)
		engine_skip(engine, "engine: this policy does not run in this fork mode");
	else if (error)
		run_result_error(engine->result, NULL, "engine: no machine: %s", litmus_error_name(-error));
	return !error;
}

/*
 * What the engine itself did wrong. It outweighs a break: under a policy that is known to fail, the failure must not
 * hide it.
 */
static void violation(struct engine *engine, const struct stmt *stmt, const char *what, const char *why)
{
	if (engine->result->verdict != VERDICT_ERROR) {
		engine->result->verdict = VERDICT_PASS;
		engine->result->saw[0] = '\0';
	}
	run_result_error(engine->result, stmt, "engine: %s: %s", what, why);
}

static void check_machine(struct engine *engine, const struct stmt *stmt, const char *when)
{
	char why[160];

	if (ucow_machine_check(engine->machine, why, sizeof(why)))
		violation(engine, stmt, when, why);
}

static void check_balance(struct engine *engine)
{
	struct ucow_machine_stat now;
	char why[80];

	ucow_machine_stat(engine->machine, &now);
	const struct {
		const char *name;
		uint64_t before, now;
	} figures[] = {
		{"frames", engine->fresh.used_pages, now.used_pages},
		{"bytes of tables", engine->fresh.table_bytes, now.table_bytes},
		{"spaces", engine->fresh.spaces, now.spaces},
		{"gets", engine->fresh.gets, now.gets},
		{"pins", engine->fresh.pins, now.pins},
	};
	for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
		if (figures[i].before == figures[i].now)
			continue;
		snprintf(why, sizeof(why), "%" PRIu64 " %s, at the start %" PRIu64, figures[i].now, figures[i].name,
			 figures[i].before);
		violation(engine, NULL, "left behind", why);
	}
}

static void stop_machine(struct engine *engine)
{
	*engine->at = NULL;
	if (!engine->machine)
		return;
	ucow_machine_inject(engine->machine, UCOW_INJECT_ALL, 0);
	check_machine(engine, NULL, "after the last statement");
	engine_release_all(engine);
	check_machine(engine, NULL, "after all processes exited");
	check_balance(engine);
	if (ucow_machine_destroy(engine->machine))
		violation(engine, NULL, "the machine cannot be destroyed", "something is left");
}

/* ---- one statement ---- */

static bool judged(struct engine *engine, const struct stmt *stmt)
{
	const struct run_options *options = engine->options;

	if (!litmus_is_check(stmt->kind) || litmus_judges(engine->litmus, stmt, false, options->policy, options->fork))
		return true;
	if (litmus_judges(engine->litmus, stmt, false, UCOW_POLICY_EXCLUSIVE, options->fork))
		run_result_skip_check(engine->result, stmt, "engine: the older policies know no `exclusive`");
	else
		run_result_skip_check(engine->result, stmt, "engine: judged in fork mode eager only");
	return false;
}

/* Returns: false if the statement waits for a page lock and has done nothing. */
static bool run_statement(struct engine *engine, const struct stmt *stmt)
{
	bool listed = engine->litmus->breaks >> engine->options->policy & 1;
	int outcome;

	if (!judged(engine, stmt))
		return true;
	engine->page_lock_held = false;
	*engine->at = stmt;
	outcome = engine_statement(engine, stmt);
	if (outcome == EDEADLK && engine->page_lock_held)
		return false;
	if (engine->result->verdict == VERDICT_SKIP)
		return true;
	engine->result->checks += judge_is_judgement(stmt);
	judge_outcome(engine->result, stmt, outcome, listed);
	if (engine->check_always)
		check_machine(engine, stmt, "after this statement");
	return true;
}

static void blocked_for_ever(struct engine *engine, const struct stmt *stmt)
{
	run_result_break(engine->result, stmt, "blocked for ever on a page lock");
}

/* ---- lanes ---- */

struct lane {
	size_t next, end; /* statements still to run */
	bool blocked;     /* its next statement waits for a page lock */
};

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* Split the block that starts at statement @start. Returns: its end. */
static size_t find_lanes(const struct litmus *litmus, size_t start, struct lane *lanes)
{
	unsigned block = litmus->stmts[start].block;
	size_t i;

	for (i = start; i < litmus->nstmts && litmus->stmts[i].block == block; i++) {
		struct lane *lane = &lanes[litmus->stmts[i].lane];

		if (lane->next == lane->end)
			lane->next = i;
		lane->end = i + 1;
	}
	return i;
}

/* A lane that may run now, each with the same chance. NULL: none. */
static struct lane *choose_lane(struct engine *engine, struct lane *lanes, size_t nlanes)
{
	size_t ready = 0, chosen;

	for (size_t i = 0; i < nlanes; i++)
		ready += lanes[i].next < lanes[i].end && !lanes[i].blocked;
	if (!ready)
		return NULL;
	chosen = next_random(&engine->random) % ready;
	for (size_t i = 0;; i++)
		if (lanes[i].next < lanes[i].end && !lanes[i].blocked && !chosen--)
			return &lanes[i];
}

static void run_lanes(struct engine *engine, struct lane *lanes, size_t nlanes)
{
	const struct stmt *stmts = engine->litmus->stmts;
	struct lane *lane;

	while (engine->result->verdict == VERDICT_PASS && (lane = choose_lane(engine, lanes, nlanes))) {
		if (!run_statement(engine, &stmts[lane->next])) {
			lane->blocked = true;
			continue;
		}
		lane->next++;
		for (size_t i = 0; i < nlanes; i++)
			lanes[i].blocked = false;
	}
	for (size_t i = 0; i < nlanes; i++)
		if (lanes[i].blocked)
			blocked_for_ever(engine, &stmts[lanes[i].next]);
}

/* Returns: the statement after the block. */
static size_t run_parallel(struct engine *engine, size_t start)
{
	const struct litmus *litmus = engine->litmus;
	size_t nlanes = 0, end;
	struct lane *lanes;

	for (size_t i = start; i < litmus->nstmts && litmus->stmts[i].block == litmus->stmts[start].block; i++)
		if (litmus->stmts[i].lane >= nlanes)
			nlanes = litmus->stmts[i].lane + 1;
	lanes = calloc(nlanes, sizeof(*lanes));
	if (!lanes) {
		run_result_error(engine->result, &litmus->stmts[start], "out of memory");
		return litmus->nstmts;
	}
	end = find_lanes(litmus, start, lanes);
	run_lanes(engine, lanes, nlanes);
	free(lanes);
	return end;
}

/* ---- one run ---- */

static void run_statements(struct engine *engine)
{
	const struct litmus *litmus = engine->litmus;
	size_t i = 0;

	while (engine->result->verdict == VERDICT_PASS && i < litmus->nstmts) {
		if (litmus->stmts[i].block) {
			i = run_parallel(engine, i);
			continue;
		}
		if (!run_statement(engine, &litmus->stmts[i]))
			blocked_for_ever(engine, &litmus->stmts[i]);
		i++;
	}
}

static bool checks_always(void)
{
#ifdef NDEBUG
	const char *value = getenv("UCOW_CHECK");

	return value && !strcmp(value, "1");
#else
	return true;
#endif
}

void engine_run_here(const struct litmus *litmus, const struct run_options *options, struct run_result *result,
		     const struct stmt *volatile *at)
{
	struct engine engine = {
		.litmus = litmus,
		.options = options,
		.result = result,
		.random = options->seed,
		.at = at,
		.check_always = checks_always(),
		.objects = calloc(litmus->nnames, sizeof(*engine.objects)),
	};

	if (!engine.objects) {
		run_result_error(result, NULL, "out of memory");
		return;
	}
	if (start_machine(&engine))
		run_statements(&engine);
	stop_machine(&engine);
	engine_free(&engine);
	if (result->verdict == VERDICT_PASS && !result->checks)
		engine_skip(&engine, "none of its checks is judged here");
}

/* Whether the test is for this mode at all; else the reason is in @why. */
static bool has_mode(const struct litmus *litmus, enum ucow_fork_mode mode, char *why, size_t size)
{
	if (litmus->forks && !(litmus->forks >> mode & 1)) {
		snprintf(why, size, "not judged in fork mode %s (`forks:`)", ucow_fork_mode_name(mode));
		return false;
	}
	for (size_t i = 0; mode != UCOW_FORK_EAGER && i < litmus->nstmts; i++)
		if (litmus->stmts[i].kind == STMT_INJECT_ALLOC && litmus->stmts[i].count > 1) {
			snprintf(why, size, "line %u: only an eager fork allocates in a known order",
				 litmus->stmts[i].loc.line);
			return false;
		}
	return true;
}

void litmus_run_engine(const struct litmus *litmus, const struct run_options *options, struct run_result *result)
{
	const struct stmt *volatile at = NULL;
	char *why = result->reason;

	memset(result, 0, sizeof(*result));
	if (engine_unsupported(litmus, why, sizeof(result->reason)) ||
	    !has_mode(litmus, options->fork, why, sizeof(result->reason)))
		result->verdict = VERDICT_SKIP;
	else if (options->in_process)
		engine_run_here(litmus, options, result, &at);
	else
		engine_run_apart(litmus, options, result);
}
