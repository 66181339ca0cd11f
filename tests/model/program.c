/* SPDX-License-Identifier: MIT */
/* Making and printing programs; see program.h. */
#include "program.h"
#include "litmus/flat.h"

#include <stdio.h>

static const struct {
	const char *name;
	unsigned weight;
} kinds[OP_COUNT] = {
#define PROGRAM_OP_ROW(id, name, weight) [id] = {name, weight},
	PROGRAM_OPS(PROGRAM_OP_ROW)
#undef PROGRAM_OP_ROW
};

static const char *const advice_names[] = {
	[MODEL_DONTFORK] = "dontfork",           [MODEL_DOFORK] = "dofork",
	[MODEL_WIPEONFORK] = "wipeonfork",       [MODEL_KEEPONFORK] = "keeponfork",
	[MODEL_DONTNEED] = "dontneed",           [MODEL_FREE] = "free",
	[MODEL_POPULATE_READ] = "populate-read", [MODEL_POPULATE_WRITE] = "populate-write",
};

static const struct {
	unsigned bit;
	const char *name;
} flag_names[] = {
	{F_SHARED, "shared"},   {F_NOREPLACE, "noreplace"}, {F_POPULATE, "populate"},   {F_WRITE, "w"},
	{F_FAST, "fast"},       {F_REMOTE, "remote"},       {F_FORCE, "force"},         {F_LONGTERM, "longterm"},
	{F_MAYMOVE, "maymove"}, {F_FIXED, "fixed"},         {F_DONTUNMAP, "dontunmap"}, {F_DIRTY, "dirty"},
	{F_CPU2, "cpu2"},       {F_SNAPSHOT, "snapshot"},
};

static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static unsigned below(uint64_t *state, unsigned n)
{
	return (unsigned)(next(state) % n);
}

static bool chance(uint64_t *state, unsigned percent)
{
	return below(state, 100) < percent;
}

static enum op_kind draw_kind(uint64_t *state)
{
	unsigned sum = 0, x;

	for (unsigned k = 0; k < OP_COUNT; k++)
		sum += kinds[k].weight;
	x = below(state, sum);
	for (unsigned k = 0; k < OP_COUNT; k++) {
		if (x < kinds[k].weight)
			return k;
		x -= kinds[k].weight;
	}
	return OP_READ;
}

/* Most programs live on few pages, where operations meet; some use the whole window. */
static unsigned draw_page(uint64_t *state, unsigned spread)
{
	return chance(state, 80) ? 12 + below(state, spread) : below(state, PROGRAM_WINDOW + 8);
}

static unsigned draw_flags(uint64_t *state, enum op_kind kind)
{
	unsigned flags = chance(state, 25) ? F_CPU2 : 0;

	if (kind == OP_MMAP)
		flags |= (chance(state, 25) ? F_SHARED : 0) | (chance(state, 20) ? F_NOREPLACE : 0) |
			 (chance(state, 15) ? F_POPULATE : 0);
	if (kind == OP_PIN || kind == OP_GET)
		flags |= (chance(state, 50) ? F_WRITE : 0) | (chance(state, 30) ? F_FAST : 0) |
			 (chance(state, 25) ? F_REMOTE : 0) | (chance(state, 15) ? F_FORCE : 0) |
			 (kind == OP_PIN && chance(state, 40) ? F_LONGTERM : 0);
	if (kind == OP_MREMAP)
		flags |= (chance(state, 85) ? F_MAYMOVE : 0) | (chance(state, 65) ? F_FIXED : 0) |
			 (chance(state, 25) ? F_DONTUNMAP : 0);
	if (kind == OP_FORK)
		flags |= chance(state, 25) ? F_SNAPSHOT : 0;
	if (kind == OP_RELEASE)
		flags |= (chance(state, 30) ? F_DIRTY : 0) | (chance(state, 60) ? F_REMOTE : 0);
	return flags;
}

static unsigned draw_arg(uint64_t *state, enum op_kind kind)
{
	static const uint8_t prots[] = {0, 1, 1, 1, 3, 3, 3, 3};
	static const uint8_t map_prots[] = {3, 3, 3, 3, 3, 3, 1, 0};

	if (kind == OP_MMAP)
		return map_prots[below(state, 8)];
	if (kind == OP_MPROTECT)
		return prots[below(state, 8)];
	if (kind == OP_MADVISE)
		return below(state, MODEL_POPULATE_WRITE + 1);
	return below(state, 4);
}

/* What a family does: forks of forks, exits, pins that are there before a fork and gone before the next. */
static enum op_kind draw_family_kind(uint64_t *state)
{
	static const enum op_kind family[] = {OP_FORK, OP_FORK,    OP_FORK,    OP_EXIT,  OP_EXIT,         OP_PIN,
					      OP_GET,  OP_RELEASE, OP_RELEASE, OP_STORE, OP_DEVICE_WRITE, OP_MUNMAP};

	return chance(state, 60) ? family[below(state, sizeof(family) / sizeof(family[0]))] : draw_kind(state);
}

static struct op draw_op(uint64_t *state, unsigned spread, bool family)
{
	enum op_kind kind = family ? draw_family_kind(state) : draw_kind(state);

	return (struct op){
		.kind = (uint8_t)kind,
		.space = (uint8_t)(!family && chance(state, 50) ? 0 : below(state, MODEL_SPACES)),
		.other = (uint8_t)below(state, kind == OP_FORK ? MODEL_SPACES : MODEL_HANDLES),
		.at = (uint8_t)draw_page(state, spread),
		.n = (uint8_t)(1 + below(state, chance(state, 70) ? 3 : 9)),
		.to = (uint8_t)draw_page(state, spread + 12),
		.to_n = (uint8_t)(1 + below(state, 6)),
		.arg = (uint8_t)draw_arg(state, kind),
		.flags = (uint16_t)draw_flags(state, kind),
		.offset = (uint16_t)(chance(state, 50) ? 8 * below(state, 4) : below(state, MODEL_PAGE)),
		.value = next(state),
	};
}

/* Starts with memory to work on: without it most draws would mean nothing. */
static struct op first_op(uint64_t *state)
{
	return (struct op){.kind = OP_MMAP,
			   .at = 12,
			   .n = (uint8_t)(4 + below(state, 6)),
			   .arg = 3,
			   .flags = (uint16_t)(chance(state, 15) ? F_SHARED : 0)};
}

void program_generate(struct program *p, uint64_t seed, size_t nops)
{
	uint64_t state = seed;
	unsigned spread = 4 + below(&state, 14);

	p->nops = nops < PROGRAM_MAX_OPS ? nops : PROGRAM_MAX_OPS;
	p->looks = chance(&state, 40);
	p->family = chance(&state, 40);
	p->suspects = false;
	for (size_t i = 0; i < p->nops; i++)
		p->ops[i] = i ? draw_op(&state, spread, p->family) : first_op(&state);
}

void program_format_op(const struct op *op, char *line, size_t nbytes)
{
	int at = snprintf(line, nbytes, "S%u %s [%u]+%u x%u", op->space, kinds[op->kind].name, op->at, op->offset,
			  op->n);

	if (op->kind == OP_FORK)
		at = snprintf(line, nbytes, "S%u fork -> S%u", op->space, op->other);
	else if (op->kind == OP_PIN || op->kind == OP_GET)
		at = snprintf(line, nbytes, "S%u %s [%u] x%u -> h%u", op->space, kinds[op->kind].name, op->at, op->n,
			      op->other);
	else if (op->kind == OP_RELEASE || op->kind == OP_DEVICE_WRITE)
		at = snprintf(line, nbytes, "%s h%u +%u", kinds[op->kind].name, op->other, op->offset);
	else if (op->kind == OP_MREMAP)
		at = snprintf(line, nbytes, "S%u mremap [%u] x%u to [%u] x%u", op->space, op->at, op->n, op->to,
			      op->to_n);
	else if (op->kind == OP_MADVISE)
		at = snprintf(line, nbytes, "S%u madvise [%u] x%u %s", op->space, op->at, op->n, advice_names[op->arg]);
	else if (op->kind == OP_MMAP || op->kind == OP_MPROTECT)
		at = snprintf(line, nbytes, "S%u %s [%u] x%u %s", op->space, kinds[op->kind].name, op->at, op->n,
			      op->arg == 3 ? "rw"
			      : op->arg    ? "r"
					   : "none");
	for (unsigned i = 0; i < sizeof(flag_names) / sizeof(flag_names[0]); i++)
		if ((op->flags & flag_names[i].bit) && (size_t)at < nbytes)
			at += snprintf(line + at, nbytes - (size_t)at, " %s", flag_names[i].name);
}
