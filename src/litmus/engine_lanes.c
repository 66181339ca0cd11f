/* SPDX-License-Identifier: MIT */
/*
 * `parallel`: each lane has its own view of the run, cpus and result included, and is run by a thread of its own
 * (engine_threads.c). Afterwards the results become one: what the file says first comes first.
 */
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct engine_lane {
	struct engine view;
	struct run_result result;
	size_t next, end;            /* its statements */
	bool finished;               /* (L): engine_lock_shared */
	struct ucow_page *waits_for; /* (L) NULL: it does not wait */
};

struct engine_block {
	size_t start, end; /* statements of the block */
	unsigned nlanes;
	bool decided; /* one lane has a break or an error; atomic */
	bool stuck;   /* (L) all lanes that are left wait for each other or for nobody */
	struct engine_lane lanes[];
};

/* splitmix64 (Steele, Lea, Flood 2014). */
uint64_t engine_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* ---- page locks ---- */

/* Whether the test itself holds the lock of @page, so that only another statement can release it. Lock held. */
static bool test_holds(const struct engine *engine, const struct ucow_page *page)
{
	const struct litmus *litmus = engine->litmus;

	for (size_t i = 0; i < litmus->nnames; i++) {
		const struct engine_handle *handle = &engine->objects[i].handle;

		if (litmus->names[i].kind != NAME_LOCK || handle->state != HANDLE_HELD)
			continue;
		for (size_t page_number = 0; page_number < handle->npages; page_number++)
			if (handle->pages[page_number] == page)
				return true;
	}
	return false;
}

/* Whether no lane can ever go on. Lock held. */
static bool all_wait(const struct engine *engine, const struct engine_block *block)
{
	for (unsigned i = 0; i < block->nlanes; i++) {
		const struct engine_lane *lane = &block->lanes[i];

		if (!lane->finished && !(lane->waits_for && test_holds(engine, lane->waits_for)))
			return false;
	}
	return true;
}

static bool is_decided(const struct engine_block *block)
{
	return __atomic_load_n(&block->decided, __ATOMIC_RELAXED);
}

bool engine_is_decided(const struct engine *engine)
{
	return engine->block && is_decided(engine->block);
}

/* Whoever holds it and is no statement of the test is a fault in another lane, which will soon be done. */
int engine_wait_page(struct engine *engine, struct ucow_page *page)
{
	struct engine_block *block = engine->block;
	struct engine_lane *lane;
	int error;

	if (!block)
		return EDEADLK;
	lane = &block->lanes[engine->lane];
	engine_lock_shared();
	lane->waits_for = page;
	while (test_holds(engine, page) && !block->stuck && !is_decided(block)) {
		block->stuck = all_wait(engine, block);
		if (block->stuck)
			engine_wake();
		else
			engine_wait();
	}
	lane->waits_for = NULL;
	error = block->stuck ? EDEADLK : is_decided(block) ? ECANCELED : 0;
	engine_unlock_shared();
	engine_yield(page);
	return error;
}

/* ---- one lane ---- */

/*
 * Every other lane starts with its cpus attached, so that it meets the others at once; the rest attach them at the
 * first use, while others are at work.
 */
void engine_lane_warm_up(struct engine *engine, unsigned number)
{
	if (!(engine_random(&engine->block->lanes[number].view.random) & 1))
		engine_lane_prepare(engine, number);
}

static void finish_lane(struct engine_block *block, struct engine_lane *lane)
{
	engine_lock_shared();
	lane->finished = true;
	if (lane->result.verdict != VERDICT_PASS)
		__atomic_store_n(&block->decided, true, __ATOMIC_RELAXED);
	engine_wake();
	engine_unlock_shared();
	if (lane->result.verdict != VERDICT_PASS)
		engine_abandon_uffds(&lane->view);
}

void engine_lane_run(struct engine *engine, unsigned number)
{
	struct engine_block *block = engine->block;
	struct engine_lane *lane = &block->lanes[number];

	engine_set_current(&lane->view);
	engine_pause(&lane->view);
	while (lane->next < lane->end && lane->result.verdict == VERDICT_PASS && !is_decided(block)) {
		engine_run_statement(&lane->view, &engine->litmus->stmts[lane->next++]);
		engine_pause(&lane->view);
	}
	if (!ENGINE_LANES_ARE_FIBRES)
		engine_destroy_cpus(&lane->view);
	engine_at(&lane->view, NULL);
	finish_lane(block, lane);
}

void engine_lane_cancel(struct engine *engine, unsigned number)
{
	struct engine_lane *lane = &engine->block->lanes[number];

	engine_destroy_cpus(&lane->view);
	engine_at(&lane->view, NULL);
}

static bool uses_cpu(enum stmt_kind kind)
{
	switch ((int)kind) {
	case STMT_WRITE:
	case STMT_READ:
	case STMT_PIN:
	case STMT_GET:
	case STMT_SPLICE:
	case STMT_DIRECT_OUT:
	case STMT_DIRECT_IN:
	case STMT_CHECK_READS:
		return true;
	default:
		return false;
	}
}

void engine_lane_prepare(struct engine *engine, unsigned number)
{
	struct engine_lane *lane = &engine->block->lanes[number];

	engine_at(&lane->view, &engine->litmus->stmts[lane->next]);
	for (size_t i = lane->next; i < lane->end; i++) {
		const struct stmt *stmt = &engine->litmus->stmts[i];

		if (uses_cpu(stmt->kind) && engine->objects[stmt->proc].process.mm)
			(void)engine_cpu(&lane->view, stmt, stmt->proc);
	}
}

/* ---- the block ---- */

/*
 * Whether @stmt ends something that other statements use: a process by its exit, a handle by its release. A pipe is
 * used up by the first look at it.
 */
static bool ends_process(const struct stmt *stmt, int *name)
{
	*name = stmt->proc;
	return stmt->kind == STMT_EXIT;
}

static bool ends_handle(const struct engine *engine, const struct stmt *stmt, int *name)
{
	*name = stmt->handle;
	switch ((int)stmt->kind) {
	case STMT_UNPIN:
	case STMT_PUT:
	case STMT_UNLOCK:
	case STMT_UFFD_CLOSE:
		return true;
	case STMT_CHECK_HANDLE_READS:
		return engine->litmus->names[stmt->handle].kind == NAME_PIPE;
	default:
		return false;
	}
}

/* The first statement of another lane that uses @name. */
static const struct stmt *other_user(const struct engine *engine, const struct stmt *ending, int name)
{
	const struct litmus *litmus = engine->litmus;

	for (size_t i = engine->block->start; i < engine->block->end; i++) {
		const struct stmt *stmt = &litmus->stmts[i];

		if (stmt->lane != ending->lane && (stmt->proc == name || stmt->proc2 == name || stmt->handle == name))
			return stmt;
	}
	return NULL;
}

/*
 * What one lane ends no other may use: whether it were still there would be chance. Returns: whether that is so, else
 * it is reported.
 */
bool engine_block_agrees(struct engine *engine)
{
	const struct litmus *litmus = engine->litmus;

	for (size_t i = engine->block->start; i < engine->block->end; i++) {
		const struct stmt *stmt = &litmus->stmts[i], *user;
		int name;

		if (!ends_process(stmt, &name) && !ends_handle(engine, stmt, &name))
			continue;
		user = other_user(engine, stmt, name);
		if (!user)
			continue;
		run_result_error(engine->result, user, "%s may be gone: another lane ends it in line %u",
				 litmus->names[name].text, stmt->loc.line);
		return false;
	}
	return true;
}

static unsigned measure(const struct litmus *litmus, size_t start, size_t *end)
{
	unsigned nlanes = 0;
	size_t i;

	for (i = start; i < litmus->nstmts && litmus->stmts[i].block == litmus->stmts[start].block; i++)
		if (litmus->stmts[i].lane >= nlanes)
			nlanes = litmus->stmts[i].lane + 1;
	*end = i;
	return nlanes;
}

static bool open_lane(struct engine *engine, unsigned number)
{
	struct engine_block *block = engine->block;
	struct engine_lane *lane = &block->lanes[number];

	lane->view = *engine;
	lane->view.result = &lane->result;
	lane->view.lane = number;
	lane->view.random = engine_random(&engine->random);
	lane->view.cpus = calloc(engine->litmus->nnames, sizeof(*lane->view.cpus));
	for (size_t i = block->start; i < block->end; i++) {
		if (engine->litmus->stmts[i].lane != number)
			continue;
		if (lane->next == lane->end)
			lane->next = i;
		lane->end = i + 1;
	}
	return lane->view.cpus;
}

/* Addresses of what the lanes map, so that they do not depend on the order in which they do. */
static void place_regions(struct engine *engine)
{
	const struct engine_block *block = engine->block;

	for (size_t i = block->start; i < block->end; i++) {
		const struct stmt *stmt = &engine->litmus->stmts[i];

		if (stmt->kind == STMT_MAP || stmt->kind == STMT_MOVE)
			(void)engine_place_region(engine, stmt); /* what fails here fails again in the lane */
	}
}

/*
 * A space cannot go while a cpu is attached, so the main thread's leave the processes that exit in a lane. The others
 * stay or not: whether a lane is alone in a space makes a difference to the engine.
 */
static void release_main_cpus(struct engine *engine)
{
	const struct engine_block *block = engine->block;

	if (engine_random(&engine->random) & 1)
		engine_destroy_cpus(engine);
	for (size_t i = block->start; i < block->end; i++) {
		const struct stmt *stmt = &engine->litmus->stmts[i];

		if (stmt->kind == STMT_EXIT)
			engine_destroy_cpu(engine, stmt->proc);
	}
}

int engine_block_open(struct engine *engine, size_t start, unsigned *nlanes)
{
	unsigned n;
	size_t end;
	bool ready = true;

	n = measure(engine->litmus, start, &end);
	engine->block = calloc(1, sizeof(*engine->block) + n * sizeof(engine->block->lanes[0]));
	if (!engine->block)
		return ENOMEM;
	engine->block->start = start;
	engine->block->end = end;
	engine->block->nlanes = *nlanes = n;
	place_regions(engine);
	for (unsigned i = 0; i < n; i++)
		ready &= open_lane(engine, i);
	release_main_cpus(engine);
	return ready ? 0 : ENOMEM;
}

static void merge_skipped(struct run_result *to, const struct run_result *from)
{
	for (unsigned i = 0; i < from->skipped_checks; i++, to->skipped_checks++)
		if (i < MAX_SKIPPED_CHECKS && to->skipped_checks < MAX_SKIPPED_CHECKS)
			to->skipped[to->skipped_checks] = from->skipped[i];
}

/* The lanes stand in the file one after the other: so the first one's result is the first in the file. */
static void merge(struct run_result *to, const struct run_result *from)
{
	to->checks += from->checks;
	merge_skipped(to, from);
	if (to->verdict != VERDICT_PASS || from->verdict == VERDICT_PASS)
		return;
	to->verdict = from->verdict;
	to->line = from->line;
	memcpy(to->check, from->check, sizeof(to->check));
	memcpy(to->saw, from->saw, sizeof(to->saw));
	memcpy(to->reason, from->reason, sizeof(to->reason));
}

size_t engine_block_close(struct engine *engine)
{
	struct engine_block *block = engine->block;
	size_t end = block->end;

	for (unsigned i = 0; i < block->nlanes; i++) {
		struct engine_lane *lane = &block->lanes[i];

		merge(engine->result, &lane->result);
		if (ENGINE_LANES_ARE_FIBRES)
			engine_destroy_cpus(&lane->view);
		free(lane->view.cpus);
	}
	free(block);
	engine->block = NULL;
	engine_set_current(engine);
	return end;
}

size_t engine_parallel(struct engine *engine, size_t start)
{
	const struct litmus *litmus = engine->litmus;
	unsigned nlanes;
	int error = engine_block_open(engine, start, &nlanes);

	engine_at(engine, &litmus->stmts[start]);
	if (!error && engine_block_agrees(engine))
		error = engine_run_lanes(engine, nlanes);
	if (error)
		run_result_error(engine->result, &litmus->stmts[start], "engine: no lanes: %s",
				 litmus_error_name(error));
	return engine->block ? engine_block_close(engine) : litmus->nstmts;
}
