/* SPDX-License-Identifier: MIT */
/*
 * What the statements of an engine run share: lookups, outcomes, the table of what is built, and giving everything
 * back.
 */
#include "engine.h"

#include <errno.h>
#include <stdlib.h>

/* ---- lookups ---- */

struct engine_process *engine_process(struct engine *engine, const struct stmt *stmt, int name)
{
	struct engine_process *process = &engine->objects[name].process;

	if (process->mm)
		return process;
	run_result_error(engine->result, stmt, "process %s is not there", engine->litmus->names[name].text);
	return NULL;
}

/* A cpu comes with the first access: of a thousand children most never make one. */
struct ucow_cpu *engine_cpu(struct engine *engine, const struct stmt *stmt, int name)
{
	struct engine_process *process = engine_process(engine, stmt, name);
	struct ucow_cpu *cpu;
	int error;

	if (!process || engine->cpus[name])
		return process ? engine->cpus[name] : NULL;
	error = ucow_cpu_create(engine->machine, &cpu);
	if (error) {
		run_result_error(engine->result, stmt, "engine: no cpu: %s", litmus_error_name(-error));
		return NULL;
	}
	ucow_cpu_attach(cpu, process->mm);
	engine->cpus[name] = cpu;
	return cpu;
}

void engine_destroy_cpu(struct engine *engine, int name)
{
	ucow_cpu_destroy(engine->cpus[name]);
	engine->cpus[name] = NULL;
}

void engine_destroy_cpus(struct engine *engine)
{
	for (int name = 0; name < (int)engine->litmus->nnames; name++)
		engine_destroy_cpu(engine, name);
}

struct engine_handle *engine_held(struct engine *engine, const struct stmt *stmt)
{
	struct engine_handle *handle = &engine->objects[stmt->handle].handle;

	switch (handle->state) {
	case HANDLE_UNBOUND:
		return NULL;
	case HANDLE_HELD:
	case HANDLE_DRAINED:
		return handle;
	case HANDLE_RELEASED:
		break;
	}
	run_result_error(engine->result, stmt, "%s has been released", engine->litmus->names[stmt->handle].text);
	return NULL;
}

uint64_t engine_va_start(const struct engine *engine, const struct place *place)
{
	return engine->objects[place->region].va + place->first * UCOW_PAGE_SIZE;
}

uint64_t engine_va(const struct engine *engine, const struct place *place, uint64_t page)
{
	return engine_va_start(engine, place) + page * UCOW_PAGE_SIZE + place->offset;
}

/* ---- outcomes ---- */

int engine_outcome(int error)
{
	return -error;
}

int engine_access_outcome(int error)
{
	if (error == -EFAULT || error == -EACCES) /* no mapping, no permission; a snapshot */
		return LITMUS_SIGSEGV;
	if (error == -ENXIO || error == -EIO) /* nothing behind the mapping; what was swapped out cannot be read */
		return LITMUS_SIGBUS;
	return -error;
}

/* ---- what is built ---- */

#define SUPPORTED_NEEDS                                                                                       \
	(NEED_RO_LONGTERM | NEED_DIRECT_IO | NEED_SNAPSHOT | NEED_SWAP | NEED_KSM | NEED_CGROUP | NEED_UFFD | \
	 NEED_SOFT_DIRTY | NEED_FILE)

/* Statements without an entry are not built yet. */
static engine_run *const statements[STMT_KIND_COUNT] = {
	[STMT_MAP] = engine_map,
	[STMT_UNMAP] = engine_unmap,
	[STMT_PROTECT] = engine_protect,
	[STMT_MOVE] = engine_move,
	[STMT_ADVISE] = engine_advise,
	[STMT_WRITE] = engine_write,
	[STMT_READ] = engine_read,
	[STMT_FORK] = engine_fork,
	[STMT_SNAPSHOT] = engine_snapshot,
	[STMT_EXIT] = engine_exit,
	[STMT_PIN] = engine_pin,
	[STMT_GET] = engine_get,
	[STMT_DEVICE_WRITE] = engine_device_write,
	[STMT_UNPIN] = engine_unpin,
	[STMT_PUT] = engine_put,
	[STMT_SPLICE] = engine_splice,
	[STMT_DIRECT_OUT] = engine_direct_out,
	[STMT_DIRECT_IN] = engine_direct_in,
	[STMT_PEEK] = engine_peek,
	[STMT_POKE] = engine_poke,
	[STMT_REMOTE_WRITE] = engine_remote_write,
	[STMT_FILE] = engine_define_file,
	[STMT_SYNC] = engine_sync,
	[STMT_MSYNC] = engine_msync,
	[STMT_TRUNCATE] = engine_truncate,
	[STMT_PUNCH] = engine_punch,
	[STMT_STORE] = engine_store,
	[STMT_DROP] = engine_drop,
	[STMT_NUMA_HINT] = engine_numa_hint,
	[STMT_KSM_MERGE] = engine_ksm_merge,
	[STMT_RECLAIM] = engine_reclaim,
	[STMT_SWAPOFF] = engine_swapoff,
	[STMT_CGROUP] = engine_cgroup,
	[STMT_JOIN] = engine_join,
	[STMT_INJECT_ALLOC] = engine_inject,
	[STMT_INJECT_READ] = engine_inject_io,
	[STMT_INJECT_WRITE] = engine_inject_io,
	[STMT_LOCK] = engine_lock,
	[STMT_UNLOCK] = engine_unlock,
	[STMT_UFFD] = engine_uffd,
	[STMT_UFFD_PROTECT] = engine_uffd_operate,
	[STMT_UFFD_UNPROTECT] = engine_uffd_operate,
	[STMT_UFFD_COPY] = engine_uffd_operate,
	[STMT_UFFD_ZEROPAGE] = engine_uffd_operate,
	[STMT_UFFD_CONTINUE] = engine_uffd_operate,
	[STMT_UFFD_MOVE] = engine_uffd_operate,
	[STMT_UFFD_POISON] = engine_uffd_operate,
	[STMT_UFFD_WAKE] = engine_uffd_operate,
	[STMT_UFFD_REGISTER] = engine_uffd_operate,
	[STMT_UFFD_UNREGISTER] = engine_uffd_operate,
	[STMT_UFFD_CLOSE] = engine_uffd_close,
	[STMT_CLEAR_SOFT_DIRTY] = engine_clear_soft_dirty,
	[STMT_MLOCK] = engine_mlock,
	[STMT_MUNLOCK] = engine_mlock,
	[STMT_SCAN] = engine_scan,
	[STMT_CHECK_EVENT] = engine_check_event,
	[STMT_CHECK_READS] = engine_check_reads,
	[STMT_CHECK_HANDLE_READS] = engine_check_handle_reads,
	[STMT_CHECK_FILE_READS] = engine_check_file_reads,
	[STMT_CHECK_FILE_HOLDS] = engine_check_file_holds,
	[STMT_CHECK_PAGES] = engine_check_pages,
	[STMT_CHECK_FLAG] = engine_check_flag,
	[STMT_CHECK_SAME] = engine_check_same,
	[STMT_CHECK_MAPCOUNT] = engine_check_mapcount,
	[STMT_CHECK_RSS] = engine_check_rss,
	[STMT_CHECK_USAGE] = engine_check_usage,
	[STMT_CHECK_COUNT] = engine_check_count,
};

int engine_statement(struct engine *engine, const struct stmt *stmt)
{
	return statements[stmt->kind](engine, stmt);
}

static bool stmt_unsupported(const struct stmt *stmt, char *why, size_t size)
{
	enum ucow_advice word;

	if (!statements[stmt->kind])
		snprintf(why, size, "engine: `%s` not built yet", litmus_stmt_name(stmt->kind));
	else if (stmt->kind == STMT_ADVISE && !engine_advice(stmt->advice, &word))
		snprintf(why, size, "engine: line %u: this advice is not built yet", stmt->loc.line);
	else if (stmt->kind == STMT_MAP && stmt->options & (MAP_OPT_HUGE | MAP_OPT_HUGETLB))
		snprintf(why, size, "engine: line %u: this mapping is not built yet", stmt->loc.line);
	else
		return false;
	return true;
}

bool engine_unsupported(const struct litmus *litmus, char *why, size_t size)
{
	unsigned missing = litmus->needs & ~SUPPORTED_NEEDS;

	if (missing) {
		snprintf(why, size, "engine: %s not built yet", litmus_need_name(missing & -missing));
		return true;
	}
	if (litmus->machine.nodes > 1) {
		snprintf(why, size, "engine: a machine of %u nodes not built yet", litmus->machine.nodes);
		return true;
	}
	for (size_t i = 0; i < litmus->nstmts; i++)
		if (stmt_unsupported(&litmus->stmts[i], why, size))
			return true;
	return false;
}

void engine_skip(struct engine *engine, const char *why)
{
	engine->result->verdict = VERDICT_SKIP;
	snprintf(engine->result->reason, sizeof(engine->result->reason), "%s", why);
}

/* ---- giving back ---- */

static bool is_handle(enum name_kind kind)
{
	return kind == NAME_PIN || kind == NAME_GET || kind == NAME_PIPE || kind == NAME_LOCK;
}

void engine_release_all(struct engine *engine)
{
	const struct litmus *litmus = engine->litmus;

	for (size_t i = 0; i < litmus->nnames; i++)
		if (is_handle(litmus->names[i].kind))
			engine_drop_handle(litmus->names[i].kind, &engine->objects[i].handle, false);
	for (size_t i = 0; i < litmus->nnames; i++)
		if (litmus->names[i].kind == NAME_UFFD)
			engine_drop_uffd(&engine->objects[i].uffd);
	for (size_t i = 0; i < litmus->nnames; i++)
		if (litmus->names[i].kind == NAME_PROCESS)
			engine_exit_process(engine, (int)i);
	for (size_t i = 0; i < litmus->nnames; i++)
		if (litmus->names[i].kind == NAME_FILE)
			engine_drop_file(&engine->objects[i].file);
}

void engine_free(struct engine *engine)
{
	const struct litmus *litmus = engine->litmus;

	for (size_t i = 0; engine->objects && i < litmus->nnames; i++) {
		if (is_handle(litmus->names[i].kind))
			free(engine->objects[i].handle.bytes);
		else if (litmus->names[i].kind == NAME_FILE)
			engine_drop_file(&engine->objects[i].file);
	}
	free(engine->objects);
	free(engine->cpus);
}
