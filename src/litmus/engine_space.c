/* SPDX-License-Identifier: MIT */
/*
 * Statements about processes and their memory: map, unmap, protect, move, advise, write, read, fork, exit, and the
 * engine-only ones, snapshot, numa-hint and inject.
 */
#include "engine.h"

#include <errno.h>
#include <string.h>

/* Regions start in 2 MiB blocks of their own, so that no test depends on what lies beside its region. */
#define REGION_START ((UINT64_C(1) << UCOW_ADDRESS_BITS) / 16)
#define REGION_ALIGN UINT64_C(0x200000)

int engine_fresh_va(struct engine *engine, uint64_t npages, uint64_t *va)
{
	uint64_t start = engine->next_va ? engine->next_va : REGION_START;
	uint64_t room = (UCOW_ADDRESS_LIMIT - start) / UCOW_PAGE_SIZE;

	if (npages + 1 > room)
		return ENOMEM;
	*va = start;
	/* One page beyond the region stays free. */
	engine->next_va = (start + (npages + 1) * UCOW_PAGE_SIZE + REGION_ALIGN - 1) & ~(REGION_ALIGN - 1);
	return 0;
}

/* Once a statement: it may begin again, and those of lanes have theirs before the lanes run. */
int engine_place_region(struct engine *engine, const struct stmt *stmt)
{
	uint64_t *va = &engine->objects[stmt->name].va;

	return *va ? 0 : engine_fresh_va(engine, stmt->kind == STMT_MAP ? stmt->count : stmt->place.npages, va);
}

static unsigned prot_bits(enum litmus_prot prot)
{
	switch (prot) {
	case LITMUS_PROT_NONE:
		return UCOW_PROT_NONE;
	case LITMUS_PROT_R:
		return UCOW_PROT_READ;
	case LITMUS_PROT_RW:
		break;
	}
	return UCOW_PROT_READ | UCOW_PROT_WRITE;
}

static uint64_t place_bytes(const struct place *place)
{
	return place->npages * UCOW_PAGE_SIZE;
}

/* The address is the region's even if mapping fails: then it names a place where nothing is. */
int engine_map(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	unsigned flags = stmt->options & MAP_OPT_SHARED ? UCOW_MAP_SHARED : UCOW_MAP_PRIVATE;
	uint64_t mapped;

	if (!process)
		return 0;
	if (engine_place_region(engine, stmt))
		return ENOMEM;
	if (stmt->options & MAP_OPT_POPULATE)
		flags |= UCOW_MAP_POPULATE;
	if (stmt->file >= 0)
		return engine_outcome(engine_map_file(engine, stmt, process->mm, prot_bits(stmt->prot),
						      flags | UCOW_MAP_FIXED_NOREPLACE));
	return engine_outcome(ucow_mmap(process->mm, engine->objects[stmt->name].va, stmt->count * UCOW_PAGE_SIZE,
					prot_bits(stmt->prot), flags | UCOW_MAP_FIXED_NOREPLACE, &mapped));
}

int engine_unmap(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	uint64_t va = engine_va_start(engine, &stmt->place);

	return process ? engine_outcome(ucow_munmap(process->mm, va, place_bytes(&stmt->place))) : 0;
}

int engine_protect(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	uint64_t va = engine_va_start(engine, &stmt->place);

	if (!process)
		return 0;
	return engine_outcome(ucow_mprotect(process->mm, va, place_bytes(&stmt->place), prot_bits(stmt->prot)));
}

int engine_move(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	uint64_t nbytes = place_bytes(&stmt->place);
	uint64_t moved;

	if (!process)
		return 0;
	if (engine_place_region(engine, stmt))
		return ENOMEM;
	return engine_outcome(
		ucow_mremap(process->mm, engine_va_start(engine, &stmt->place), nbytes, nbytes,
			    UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED | (stmt->options & 1 ? UCOW_MREMAP_DONTUNMAP : 0),
			    engine->objects[stmt->name].va, &moved));
}

bool engine_advice(enum litmus_advice advice, enum ucow_advice *word)
{
	static const struct {
		bool known;
		enum ucow_advice word;
	} words[ADVICE_COUNT] = {
		[ADVICE_DONTFORK] = {true, UCOW_MADV_DONTFORK},
		[ADVICE_DOFORK] = {true, UCOW_MADV_DOFORK},
		[ADVICE_WIPEONFORK] = {true, UCOW_MADV_WIPEONFORK},
		[ADVICE_KEEPONFORK] = {true, UCOW_MADV_KEEPONFORK},
		[ADVICE_DONTNEED] = {true, UCOW_MADV_DONTNEED},
		[ADVICE_FREE] = {true, UCOW_MADV_FREE},
		[ADVICE_COLD] = {true, UCOW_MADV_COLD},
		[ADVICE_PAGEOUT] = {true, UCOW_MADV_PAGEOUT},
		[ADVICE_MERGEABLE] = {true, UCOW_MADV_MERGEABLE},
		[ADVICE_UNMERGEABLE] = {true, UCOW_MADV_UNMERGEABLE},
		[ADVICE_POPULATE_READ] = {true, UCOW_MADV_POPULATE_READ},
		[ADVICE_POPULATE_WRITE] = {true, UCOW_MADV_POPULATE_WRITE},
	};

	*word = words[advice].word;
	return words[advice].known;
}

int engine_advise(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	uint64_t va = engine_va_start(engine, &stmt->place);
	enum ucow_advice word;

	if (!process || !engine_advice(stmt->advice, &word))
		return 0;
	return engine_outcome(ucow_madvise(process->mm, va, place_bytes(&stmt->place), word));
}

int engine_write(struct engine *engine, const struct stmt *stmt)
{
	struct ucow_cpu *cpu = engine_cpu(engine, stmt, stmt->proc);
	const struct text *text = &stmt->texts[0];
	int error = 0;

	for (; cpu && engine->stored < stmt->place.npages; engine->stored++) {
		error = ucow_write(cpu, engine_va(engine, &stmt->place, engine->stored), text->bytes, text->nbytes,
				   NULL);
		if (error)
			break;
	}
	return engine_access_outcome(error);
}

int engine_read(struct engine *engine, const struct stmt *stmt)
{
	struct ucow_cpu *cpu = engine_cpu(engine, stmt, stmt->proc);
	uint8_t byte;
	int error = 0;

	for (uint64_t i = 0; cpu && !error && i < stmt->place.npages; i++)
		error = ucow_load_u8(cpu, engine_va(engine, &stmt->place, i), &byte);
	return engine_access_outcome(error);
}

static int fork_one(struct engine *engine, const struct stmt *stmt, struct ucow_mm *parent, struct ucow_mm **child)
{
	if (stmt->cgroup < 0)
		return ucow_fork(parent, child);
	return ucow_fork_into(parent, engine->objects[stmt->cgroup].group, child);
}

/* All children or none. */
int engine_fork(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *parent = engine_process(engine, stmt, stmt->proc);
	union engine_object *children = &engine->objects[stmt->name];
	int error = 0;
	uint64_t n;

	for (n = 0; parent && n < stmt->count; n++) {
		error = fork_one(engine, stmt, parent->mm, &children[n].process.mm);
		if (error)
			break;
	}
	while (error && n)
		engine_exit_process(engine, stmt->name + (int)--n);
	return engine_outcome(error);
}

int engine_snapshot(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);

	return process ? engine_outcome(ucow_snapshot(process->mm, &engine->objects[stmt->name].process.mm)) : 0;
}

void engine_exit_process(struct engine *engine, int name)
{
	struct engine_process *process = &engine->objects[name].process;
	int error = 0;

	engine_destroy_cpu(engine, name);
	if (process->mm)
		error = ucow_mm_destroy(process->mm);
	if (error)
		run_result_error(engine->result, NULL, "engine: a space cannot be destroyed: %s",
				 litmus_error_name(-error));
	*process = (struct engine_process){0};
}

int engine_exit(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);

	if (process)
		engine_exit_process(engine, stmt->proc);
	return 0;
}

int engine_numa_hint(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	uint64_t va = engine_va_start(engine, &stmt->place);

	return process ? engine_outcome(ucow_numa_hint(process->mm, va, place_bytes(&stmt->place))) : 0;
}

int engine_inject(struct engine *engine, const struct stmt *stmt)
{
	ucow_machine_inject(engine->machine, UCOW_INJECT_FRAME | UCOW_INJECT_TABLE, stmt->count);
	return 0;
}
