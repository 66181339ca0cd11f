/* SPDX-License-Identifier: MIT */
/*
 * The engine runner: a fresh machine for one test, its statements in order, outcomes judged, and the balance drawn at
 * the end.
 */
#include "engine.h"
#include "judge.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_RAM (UINT64_C(64) << 20)

/* ---- the machine ---- */

/*
 * Where threads run, nobody waits inside of the engine: the statement gives up and begins again when the lock may be
 * free (engine_wait_page), so that waiting for ever is noticed. The explorer notices that by itself.
 */
static bool wait_for_page_lock(void *arg, struct ucow_page *page)
{
	struct engine *engine = engine_current();

	(void)arg;
	if (ENGINE_LANES_ARE_FIBRES)
		return true;
	engine->met = page;
	return false;
}

static uint64_t ram_bytes(const struct engine *engine)
{
	if (engine->litmus->machine.ram_bytes)
		return engine->litmus->machine.ram_bytes;
	return engine->options->ram_bytes ? engine->options->ram_bytes : DEFAULT_RAM;
}

bool engine_begin(struct engine *engine)
{
	const struct run_options *options = engine->options;
	struct ucow_machine_options machine_options = {
		.size = sizeof(machine_options),
		.ram_bytes = ram_bytes(engine),
		.policy = options->policy,
		.fork_mode = options->fork,
		.flags = UCOW_MACHINE_POISON,
		.on_page_lock_wait = wait_for_page_lock,
	};
	int error = ucow_machine_create(&machine_options, &engine->machine);

	if (!error) {
		ucow_machine_stat(engine->machine, &engine->fresh);
		if (!engine_begin_pressure(engine))
			return false;
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

static void left_behind(struct engine *engine, const char *what)
{
	violation(engine, NULL, "left behind", what);
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
		left_behind(engine, why);
	}
}

void engine_settle(struct engine *engine)
{
	engine_at(engine, NULL);
	ucow_machine_inject(engine->machine, UCOW_INJECT_ALL | UCOW_INJECT_READ | UCOW_INJECT_WRITE, 0);
	check_machine(engine, NULL, "after the last statement");
	engine_release_all(engine);
	check_machine(engine, NULL, "after all processes exited");
	engine_settle_pressure(engine, left_behind);
	check_balance(engine);
}

static void stop_machine(struct engine *engine)
{
	if (!engine->machine)
		return;
	engine_settle(engine);
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

void engine_at(struct engine *engine, const struct stmt *stmt)
{
	engine->at[engine->lane] = stmt;
}

/* Run @stmt, again and again if it meets a page lock and has done nothing. Returns: whether it ended, with @outcome. */
static bool complete(struct engine *engine, const struct stmt *stmt, int *outcome)
{
	int error = 0;

	engine->stored = 0;
	do {
		engine->met = NULL;
		*outcome = engine_statement(engine, stmt);
		if (*outcome != EDEADLK || !engine->met)
			return true;
		error = engine_wait_page(engine, engine->met);
	} while (!error);
	if (error == EDEADLK)
		run_result_break(engine->result, stmt, "blocked for ever on a page lock");
	return false;
}

void engine_run_statement(struct engine *engine, const struct stmt *stmt)
{
	bool listed = engine->litmus->breaks >> engine->options->policy & 1;
	int outcome;

	if (!judged(engine, stmt))
		return;
	engine_at(engine, stmt);
	if (!complete(engine, stmt, &outcome))
		return;
	engine->result->checks += judge_is_judgement(stmt);
	judge_outcome(engine->result, stmt, outcome, listed);
}

/* ---- one run ---- */

size_t engine_next(struct engine *engine, size_t i)
{
	const struct stmt *stmt = &engine->litmus->stmts[i];
	size_t next = i + 1;

	if (stmt->block)
		next = engine_parallel(engine, i);
	else
		engine_run_statement(engine, stmt);
	ucow_machine_synchronize(engine->machine);
	if (engine->check_always)
		check_machine(engine, stmt, stmt->block ? "after the lanes" : "after this statement");
	return next;
}

static void run_statements(struct engine *engine)
{
	size_t i = 0;

	engine_set_current(engine);
	while (engine->result->verdict == VERDICT_PASS && i < engine->litmus->nstmts)
		i = engine_next(engine, i);
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
		.cpus = calloc(litmus->nnames, sizeof(struct ucow_cpu *)),
	};

	if (!engine.objects || !engine.cpus) {
		run_result_error(result, NULL, "out of memory");
		engine_free(&engine);
		return;
	}
	if (engine_begin(&engine))
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

bool engine_suits(const struct litmus *litmus, enum ucow_fork_mode mode, char *why, size_t size)
{
	return !engine_unsupported(litmus, why, size) && has_mode(litmus, mode, why, size);
}

void litmus_run_engine(const struct litmus *litmus, const struct run_options *options, struct run_result *result)
{
	const struct stmt *volatile at[LITMUS_LANES_MAX] = {0};
	char *why = result->reason;

	memset(result, 0, sizeof(*result));
	if (!engine_suits(litmus, options->fork, why, sizeof(result->reason)))
		result->verdict = VERDICT_SKIP;
	else if (options->in_process)
		engine_run_here(litmus, options, result, at);
	else
		engine_run_apart(litmus, options, result);
}
