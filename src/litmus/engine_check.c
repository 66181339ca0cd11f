/* SPDX-License-Identifier: MIT */
/*
 * Checks on the engine: what a load, a device, a pipe or a file shows, and what an entry looks like.
 */
#include "engine.h"
#include "judge.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void label_page(char label[64], const struct engine *engine, const struct place *place, uint64_t page)
{
	judge_page_label(label, engine->litmus->names[place->region].text, place->first + page, place->npages);
}

/* ---- contents ---- */

/* Compare what one page shows with the texts of the check. Returns: whether one of them is there. */
static bool compare(struct engine *engine, const struct stmt *stmt, const char *label, const unsigned char *bytes,
		    size_t nbytes)
{
	char saw[JUDGE_SAW_SIZE];

	if (judge_bytes(stmt, bytes, nbytes, saw))
		return true;
	run_result_break(engine->result, stmt, "%s%s", label, saw);
	return false;
}

/* Compare each page of the statement's place, as @read fetches it. Returns: the first error of @read. */
static int compare_pages(struct engine *engine, const struct stmt *stmt,
			 int (*read)(void *source, uint64_t va, unsigned char *bytes, size_t nbytes), void *source)
{
	size_t nbytes = judge_wanted(stmt, stmt->place.offset, UCOW_PAGE_SIZE);
	unsigned char bytes[UCOW_PAGE_SIZE];
	char label[64];

	for (uint64_t i = 0; i < stmt->place.npages; i++) {
		int error = read(source, engine_va(engine, &stmt->place, i), bytes, nbytes);

		if (error)
			return error;
		label_page(label, engine, &stmt->place, i);
		if (!compare(engine, stmt, label, bytes, nbytes))
			break;
	}
	return 0;
}

static int load(void *cpu, uint64_t va, unsigned char *bytes, size_t nbytes)
{
	return ucow_read(cpu, va, bytes, nbytes, NULL);
}

int engine_check_reads(struct engine *engine, const struct stmt *stmt)
{
	struct ucow_cpu *cpu = engine_cpu(engine, stmt, stmt->proc);

	return cpu ? engine_access_outcome(compare_pages(engine, stmt, load, cpu)) : 0;
}

/* A tracer reads with plain references, whatever the protection (semantics.md B.5: /proc/PID/mem). */
static int peek(void *mm, uint64_t va, unsigned char *bytes, size_t nbytes)
{
	return ucow_access_remote(mm, va, bytes, nbytes, UCOW_FOLL_FORCE, NULL);
}

/* /proc/PID/mem tells of anything that it cannot reach as EIO. */
int engine_peek(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *actor = engine_process(engine, stmt, stmt->proc);
	struct engine_process *other = engine_process(engine, stmt, stmt->proc2);
	int outcome = actor && other ? engine_outcome(compare_pages(engine, stmt, peek, other->mm)) : 0;

	return outcome == EFAULT ? EIO : outcome;
}

/* The bytes of a pipe's pages leave it with the first look at them, and the references with them. */
static void drain(struct engine *engine, const struct stmt *stmt, struct engine_handle *pipe)
{
	pipe->bytes = malloc(pipe->npages * UCOW_PAGE_SIZE);
	if (!pipe->bytes) {
		run_result_error(engine->result, stmt, "out of memory");
		return;
	}
	for (size_t i = 0; i < pipe->npages; i++)
		engine_load_bytes(pipe->bytes + i * UCOW_PAGE_SIZE, ucow_page_address(pipe->pages[i]), UCOW_PAGE_SIZE);
	engine_drop_handle(NAME_PIPE, pipe, false);
	pipe->state = HANDLE_DRAINED;
}

static void handle_bytes(const struct engine_handle *handle, size_t page, unsigned char *bytes, size_t nbytes)
{
	if (handle->state == HANDLE_DRAINED)
		memcpy(bytes, handle->bytes + page * UCOW_PAGE_SIZE + handle->offset, nbytes);
	else
		engine_load_bytes(bytes, (char *)ucow_page_address(handle->pages[page]) + handle->offset, nbytes);
}

int engine_check_handle_reads(struct engine *engine, const struct stmt *stmt)
{
	const struct name *name = &engine->litmus->names[stmt->handle];
	struct engine_handle *handle = engine_held(engine, stmt);
	unsigned char bytes[UCOW_PAGE_SIZE];
	size_t nbytes;
	char label[64];

	if (!handle)
		return 0;
	nbytes = judge_wanted(stmt, handle->offset, UCOW_PAGE_SIZE);
	if (name->kind == NAME_PIPE && handle->state == HANDLE_HELD)
		drain(engine, stmt, handle);
	for (size_t i = 0; engine->result->verdict == VERDICT_PASS && i < handle->npages; i++) {
		judge_page_label(label, name->text, i, handle->npages);
		handle_bytes(handle, i, bytes, nbytes);
		compare(engine, stmt, label, bytes, nbytes);
	}
	return 0;
}

/* ---- numbers ---- */

static void compare_number(struct engine *engine, const struct stmt *stmt, const char *label, uint64_t value)
{
	if (!judge_number(stmt, value))
		run_result_break(engine->result, stmt, "%s%" PRIu64, label, value);
}

int engine_check_pages(struct engine *engine, const struct stmt *stmt)
{
	const struct engine_handle *handle = &engine->objects[stmt->handle].handle;

	if (handle->state != HANDLE_UNBOUND)
		compare_number(engine, stmt, "", handle->npages);
	return 0;
}

int engine_check_rss(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	struct ucow_mm_stat stat;

	if (!process)
		return 0;
	ucow_mm_stat(process->mm, &stat);
	compare_number(engine, stmt, "", stat.rss_anon + stat.rss_file);
	return 0;
}

int engine_check_usage(struct engine *engine, const struct stmt *stmt)
{
	struct ucow_memcg *group = engine->objects[stmt->cgroup].group;
	struct ucow_memcg_stat stat;

	if (!group)
		return 0;
	ucow_memcg_stat(group, &stat);
	compare_number(engine, stmt, "", stat.usage);
	return 0;
}

static uint64_t sum_counters(const struct engine *engine, const enum ucow_counter *counters, size_t ncounters)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < ncounters; i++)
		sum += ucow_machine_counter(engine->machine, counters[i]);
	return sum;
}

/* Two words of the language stand for several counters: write-protect faults by what became of them. */
static bool read_counter(const struct engine *engine, const char *name, uint64_t *value)
{
	static const enum ucow_counter copy[] = {
		UCOW_COUNTER_COPY_SHARED, UCOW_COUNTER_COPY_REFERENCED, UCOW_COUNTER_COPY_LOCKED,
		UCOW_COUNTER_COPY_ZERO,   UCOW_COUNTER_COPY_KSM,        UCOW_COUNTER_COPY_FILE,
	};
	static const enum ucow_counter reuse[] = {UCOW_COUNTER_REUSE, UCOW_COUNTER_REUSE_SHARED};

	if (!strcmp(name, "copy")) {
		*value = sum_counters(engine, copy, sizeof(copy) / sizeof(copy[0]));
		return true;
	}
	if (!strcmp(name, "reuse")) {
		*value = sum_counters(engine, reuse, sizeof(reuse) / sizeof(reuse[0]));
		return true;
	}
	for (int i = 0; i < UCOW_COUNTER_COUNT; i++) {
		if (strcmp(name, ucow_counter_name((enum ucow_counter)i)))
			continue;
		*value = ucow_machine_counter(engine->machine, (enum ucow_counter)i);
		return true;
	}
	return false;
}

/* The machine is new, so its counters count since the test began. */
int engine_check_count(struct engine *engine, const struct stmt *stmt)
{
	uint64_t value;

	if (read_counter(engine, stmt->counter, &value))
		compare_number(engine, stmt, "", value);
	else
		run_result_error(engine->result, stmt, "the engine has no counter `%s`", stmt->counter);
	return 0;
}

/* ---- entries ---- */

static bool flag_is_set(const struct ucow_entry_info *info, enum litmus_flag flag)
{
	switch (flag) {
	case LFLAG_PRESENT:
		return info->present;
	case LFLAG_EXCLUSIVE:
		return info->exclusive;
	case LFLAG_WRITABLE:
		return info->writable;
	case LFLAG_DIRTY:
		return info->dirty;
	case LFLAG_ACCESSED:
		return info->accessed;
	case LFLAG_SOFT_DIRTY:
		return info->soft_dirty;
	case LFLAG_WP:
		return info->uffd_wp;
	case LFLAG_SWAPPED:
		return info->swapped;
	case LFLAG_KSM:
		return info->ksm;
	case LFLAG_HUGE:
		return info->huge;
	case LFLAG_ZERO_PAGE:
		return info->zero_page;
	case LFLAG_PINNED:
		return info->maybe_pinned;
	case LFLAG_MAPPED:
		return info->mapped;
	case LFLAG_COUNT:
		break;
	}
	return false;
}

/* A page reports soft-dirty for its entry or for its mapping (semantics.md B.7): pagemap knows both. */
static void query(struct ucow_mm *mm, uint64_t va, struct ucow_entry_info *info)
{
	uint64_t word;

	ucow_query(mm, va, info);
	if (!ucow_pagemap(mm, va, 1, &word))
		info->soft_dirty = word & UCOW_PM_SOFT_DIRTY;
}

int engine_check_flag(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	struct ucow_entry_info info;
	char label[64];

	for (uint64_t i = 0; process && i < stmt->place.npages; i++) {
		query(process->mm, engine_va(engine, &stmt->place, i), &info);
		if (flag_is_set(&info, stmt->flag) != stmt->negated)
			continue;
		label_page(label, engine, &stmt->place, i);
		run_result_break(engine->result, stmt, "%s%s%s", label, stmt->negated ? "" : "not ",
				 litmus_flag_name(stmt->flag));
		break;
	}
	return 0;
}

int engine_check_mapcount(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	struct ucow_entry_info info;
	char label[64];

	for (uint64_t i = 0; process && i < stmt->place.npages; i++) {
		ucow_query(process->mm, engine_va(engine, &stmt->place, i), &info);
		label_page(label, engine, &stmt->place, i);
		compare_number(engine, stmt, label, info.present ? info.mapcount : 0);
	}
	return 0;
}

/* Whether one page of each place is the same frame; false with @saw where one of them has none. */
static bool same_frame(const struct ucow_entry_info *a, const struct ucow_entry_info *b, char saw[64])
{
	if (!a->present || !b->present) {
		snprintf(saw, 64, "%s is not present", a->present ? "the second" : "the first");
		return false;
	}
	if (a->zero_page || b->zero_page) {
		snprintf(saw, 64, "%s the zero page", a->zero_page && b->zero_page ? "both are" : "one is");
		return a->zero_page && b->zero_page;
	}
	snprintf(saw, 64, "frames %" PRIu64 " and %" PRIu64, a->pfn, b->pfn);
	return a->pfn == b->pfn;
}

/* `same` and `differs` compare frames: both want one on either side. */
int engine_check_same(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *one = engine_process(engine, stmt, stmt->proc);
	struct engine_process *other = engine_process(engine, stmt, stmt->proc2);
	struct ucow_entry_info a, b;
	char label[64], saw[64];

	for (uint64_t i = 0; one && other && i < stmt->place.npages; i++) {
		ucow_query(one->mm, engine_va(engine, &stmt->place, i), &a);
		ucow_query(other->mm, engine_va(engine, &stmt->place2, i), &b);
		if (same_frame(&a, &b, saw) != stmt->negated && a.present && b.present)
			continue;
		label_page(label, engine, &stmt->place, i);
		run_result_break(engine->result, stmt, "%s%s", label, saw);
		break;
	}
	return 0;
}
