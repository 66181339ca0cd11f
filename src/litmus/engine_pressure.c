/* SPDX-License-Identifier: MIT */
/*
 * Statements about memory that is short: swap and reclaim, groups with limits, same-page merging. They belong to the
 * machine, not to a process; whatever they take is given back when all processes have left.
 */
#include "engine.h"

#include <errno.h>
#include <inttypes.h>

#define DEFAULT_SWAP (UINT64_C(64) << 20)

/* ---- the machine ---- */

/* In memory: a file would tell nothing more, and the explorer has none. */
static int add_swap(struct engine *engine)
{
	uint64_t nbytes = engine->litmus->machine.swap_bytes;
	const struct ucow_swap_options options = {
		.size = sizeof(options),
		.nbytes = nbytes ? nbytes : DEFAULT_SWAP,
		.flags = UCOW_SWAP_MEMORY,
	};

	return ucow_swapon(engine->machine, &options, NULL);
}

static int configure_ksm(struct engine *engine, bool use_zero_pages)
{
	const struct ucow_ksm_options options = {.size = sizeof(options), .use_zero_pages = use_zero_pages};

	return ucow_ksm_configure(engine->machine, &options);
}

bool engine_begin_pressure(struct engine *engine)
{
	unsigned needs = engine->litmus->needs;
	int error = needs & NEED_SWAP ? add_swap(engine) : 0;

	if (error)
		run_result_error(engine->result, NULL, "engine: no swap: %s", litmus_error_name(-error));
	if (error || !(needs & NEED_KSM))
		return !error;
	error = configure_ksm(engine, false);
	if (error == -EOPNOTSUPP)
		engine_skip(engine, "engine: built without same-page merging");
	else if (error)
		run_result_error(engine->result, NULL, "engine: no merging: %s", litmus_error_name(-error));
	return !error;
}

/* ---- swap ---- */

/* How many pages come free is for the test's checks to say. */
int engine_reclaim(struct engine *engine, const struct stmt *stmt)
{
	long freed = ucow_reclaim(engine->machine, NULL, stmt->count);

	return freed < 0 ? engine_outcome((int)freed) : 0;
}

/* All devices, the rest of them also after an error. */
int engine_swapoff(struct engine *engine, const struct stmt *stmt)
{
	struct ucow_swap_stat stat;
	int first = 0;

	(void)stmt;
	for (unsigned device = 0; device < UCOW_SWAP_DEVICES; device++) {
		int error = ucow_swap_stat(engine->machine, device, &stat);

		error = error ? 0 : ucow_swapoff(engine->machine, device);
		first = first ? first : error;
	}
	return engine_outcome(first);
}

int engine_inject_io(struct engine *engine, const struct stmt *stmt)
{
	unsigned kind = stmt->kind == STMT_INJECT_READ ? UCOW_INJECT_READ : UCOW_INJECT_WRITE;

	ucow_machine_inject(engine->machine, kind, stmt->count);
	return 0;
}

/* ---- same-page merging ---- */

int engine_ksm_merge(struct engine *engine, const struct stmt *stmt)
{
	int error = configure_ksm(engine, stmt->options & 1);

	return engine_outcome(error ? error : ucow_ksm_merge(engine->machine, NULL));
}

/* ---- groups ---- */

/* NULL after a report to the result. */
static struct ucow_memcg *used_group(struct engine *engine, const struct stmt *stmt)
{
	struct ucow_memcg *group = engine->objects[stmt->cgroup].group;

	if (!group)
		run_result_error(engine->result, stmt, "cgroup %s is not there",
				 engine->litmus->names[stmt->cgroup].text);
	return group;
}

int engine_cgroup(struct engine *engine, const struct stmt *stmt)
{
	struct ucow_memcg *above = stmt->cgroup >= 0 ? used_group(engine, stmt) : NULL;

	if (stmt->cgroup >= 0 && !above)
		return 0;
	return engine_outcome(ucow_memcg_create(engine->machine, above, stmt->count,
						stmt->swap_limit == UINT64_MAX ? UCOW_MEMCG_NO_LIMIT : stmt->swap_limit,
						&engine->objects[stmt->name].group));
}

int engine_join(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	struct ucow_memcg *group = used_group(engine, stmt);

	return process && group ? engine_outcome(ucow_mm_join(process->mm, group)) : 0;
}

/* ---- giving back ---- */

/* A group stands behind the one above it, so they go last to first. */
static void settle_groups(struct engine *engine, engine_left_behind *left_behind)
{
	const struct litmus *litmus = engine->litmus;
	struct ucow_memcg_stat stat;
	char what[160];

	for (size_t i = litmus->nnames; i--;) {
		struct ucow_memcg *group = litmus->names[i].kind == NAME_CGROUP ? engine->objects[i].group : NULL;
		int error;

		if (!group)
			continue;
		ucow_memcg_stat(group, &stat);
		error = ucow_memcg_destroy(group);
		engine->objects[i].group = NULL;
		if (!stat.usage && !stat.swap_usage && !error)
			continue;
		snprintf(what, sizeof(what), "cgroup %s: %" PRIu64 " pages, %" PRIu64 " slots, destroyed: %s",
			 litmus->names[i].text, stat.usage, stat.swap_usage, error ? litmus_error_name(-error) : "yes");
		left_behind(engine, what);
	}
}

static void settle_swap(struct engine *engine, engine_left_behind *left_behind)
{
	struct ucow_swap_stat stat;
	char what[80];

	for (unsigned device = 0; device < UCOW_SWAP_DEVICES; device++) {
		if (ucow_swap_stat(engine->machine, device, &stat) || !stat.used)
			continue;
		snprintf(what, sizeof(what), "%" PRIu64 " slots of swap", stat.used);
		left_behind(engine, what);
	}
}

void engine_settle_pressure(struct engine *engine, engine_left_behind *left_behind)
{
	settle_groups(engine, left_behind);
	settle_swap(engine, left_behind);
}
