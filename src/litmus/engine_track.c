/* SPDX-License-Identifier: MIT */
/*
 * What the engine tells of changes: soft-dirty and scans; and locked memory.
 */
#include "engine.h"
#include "judge.h"

int engine_clear_soft_dirty(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);

	return process ? engine_outcome(ucow_clear_soft_dirty(process->mm)) : 0;
}

int engine_mlock(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	uint64_t va = engine_va_start(engine, &stmt->place), nbytes = stmt->place.npages * UCOW_PAGE_SIZE;

	if (!process)
		return 0;
	if (stmt->kind == STMT_MUNLOCK)
		return engine_outcome(ucow_munlock(process->mm, va, nbytes));
	return engine_outcome(ucow_mlock(process->mm, va, nbytes, stmt->options & 1 ? UCOW_MLOCK_ONFAULT : 0));
}

static uint64_t categories(unsigned bits)
{
	static const uint64_t engines[SCAN_COUNT] = {
		[SCAN_WRITTEN] = UCOW_PAGE_IS_WRITTEN,      [SCAN_PRESENT] = UCOW_PAGE_IS_PRESENT,
		[SCAN_SWAPPED] = UCOW_PAGE_IS_SWAPPED,      [SCAN_FILE] = UCOW_PAGE_IS_FILE,
		[SCAN_ZERO_PAGE] = UCOW_PAGE_IS_PFNZERO,    [SCAN_SOFT_DIRTY] = UCOW_PAGE_IS_SOFT_DIRTY,
		[SCAN_WP_ALLOWED] = UCOW_PAGE_IS_WPALLOWED,
	};
	uint64_t mask = 0;

	for (unsigned i = 0; i < SCAN_COUNT; i++)
		mask |= bits >> i & 1 ? engines[i] : 0;
	return mask;
}

static uint64_t bits_of(const struct engine *engine, const struct stmt *stmt, const struct ucow_page_region *found)
{
	uint64_t base = engine_va_start(engine, &stmt->place), bits = 0;

	for (uint64_t i = 0; i < stmt->place.npages && i < 64; i++)
		if (base + i * UCOW_PAGE_SIZE >= found->start && base + i * UCOW_PAGE_SIZE < found->end)
			bits |= UINT64_C(1) << i;
	return bits;
}

static void compare(struct engine *engine, const struct stmt *stmt, const struct ucow_page_region *found, size_t nfound)
{
	uint64_t base = engine->objects[stmt->place.region].va;
	struct litmus_range ranges[JUDGE_RANGES];
	char saw[JUDGE_SAW_SIZE];

	for (size_t i = 0; engine->found && i < nfound; i++)
		*engine->found |= bits_of(engine, stmt, &found[i]);
	if (engine->found)
		return;
	for (size_t i = 0; i < nfound; i++)
		ranges[i] = (struct litmus_range){(found[i].start - base) / UCOW_PAGE_SIZE,
						  (found[i].end - found[i].start) / UCOW_PAGE_SIZE};
	if (!judge_ranges(stmt, ranges, nfound, saw))
		run_result_break(engine->result, stmt, "%s", saw);
}

int engine_scan(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	struct ucow_page_region found[JUDGE_RANGES];
	struct ucow_pm_scan scan = {
		.size = sizeof(scan),
		.flags = (stmt->options & SCAN_OPT_PROTECT ? UCOW_PM_SCAN_WP_MATCHING : 0) |
			 (stmt->options & SCAN_OPT_ASYNC_ONLY ? UCOW_PM_SCAN_CHECK_WPASYNC : 0),
		.start = engine_va_start(engine, &stmt->place),
		.end = engine_va_start(engine, &stmt->place) + stmt->place.npages * UCOW_PAGE_SIZE,
		.vec = found,
		.vec_len = JUDGE_RANGES,
		.max_pages = stmt->count,
		.category_inverted = categories(stmt->inverted),
		.category_mask = categories(stmt->required),
		.return_mask = categories(stmt->required),
	};
	long n = process ? ucow_pagemap_scan(process->mm, &scan) : 0;

	if (process && n >= 0)
		compare(engine, stmt, found, (size_t)n);
	return n < 0 ? engine_outcome((int)n) : 0;
}
