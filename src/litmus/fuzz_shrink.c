/* SPDX-License-Identifier: MIT */
/*
 * Making a program smaller that shows something. Candidates that print to the same text are the same program and are
 * taken unasked; the others are taken if the judge says so.
 */
#include "fuzz_program.h"

#include <stdlib.h>
#include <string.h>

struct shrinker {
	struct fuzz_program *best;
	char *text; /* of *best */
	fuzz_judge *judge;
	void *arg;
	unsigned asked, runs;
};

/* Returns: whether @candidate is the best from now on. One that cannot be printed for want of memory is not. */
static bool try_program(struct shrinker *s, const struct fuzz_program *candidate, bool ask)
{
	char *text;
	size_t nbytes;
	bool good;

	if (fuzz_print(candidate, &text, &nbytes))
		return false;
	good = !strcmp(text, s->text);
	if (!good && ask && s->asked < s->runs) {
		s->asked++;
		good = s->judge(candidate, s->arg);
	}
	if (!good) {
		free(text);
		return false;
	}
	*s->best = *candidate;
	free(s->text);
	s->text = text;
	return true;
}

/* ---- leaving out ---- */

static void drop_ops(struct fuzz_program *program, unsigned first, unsigned n)
{
	memmove(&program->ops[first], &program->ops[first + n], (program->nops - first - n) * sizeof(program->ops[0]));
	program->nops -= n;
}

static bool try_without(struct shrinker *s, unsigned first, unsigned n, bool ask)
{
	struct fuzz_program candidate = *s->best;

	drop_ops(&candidate, first, n);
	return try_program(s, &candidate, ask);
}

/* Runs of @n operations, from the end on: what comes after the divergence goes first. */
static bool drop_runs(struct shrinker *s, unsigned n, bool ask)
{
	bool dropped = false;

	for (unsigned end = s->best->nops; end; end = end > n ? end - n : 0) {
		unsigned length = end > n ? n : end;

		dropped |= try_without(s, end - length, length, ask);
	}
	return dropped;
}

/* A fork and its exit, a pin and its unpin: neither can go alone. */
static bool drop_pairs(struct shrinker *s)
{
	for (unsigned second = s->best->nops; second-- > 1;) {
		for (unsigned first = second; first-- > 0;) {
			struct fuzz_program candidate = *s->best;

			drop_ops(&candidate, second, 1);
			drop_ops(&candidate, first, 1);
			if (try_program(s, &candidate, true))
				return true;
		}
	}
	return false;
}

static bool is_between_processes(const struct fuzz_op *op)
{
	return op->kind == FUZZ_OP_POKE || op->kind == FUZZ_OP_REMOTE_WRITE;
}

/* Processes are numbered as they live: from @op on, those from @process on have another number. */
static void renumber(struct fuzz_program *program, unsigned op, unsigned process, int by)
{
	for (; op < program->nops; op++) {
		if (program->ops[op].proc >= process)
			program->ops[op].proc = (uint8_t)(program->ops[op].proc + by);
		if (program->ops[op].other >= process && is_between_processes(&program->ops[op]))
			program->ops[op].other = (uint8_t)(program->ops[op].other + by);
	}
}

/* Let a process live, or never be, while the others keep their parts. */
static bool drop_process(struct shrinker *s, unsigned op, unsigned process, int by)
{
	struct fuzz_program candidate = *s->best;

	drop_ops(&candidate, op, 1);
	renumber(&candidate, op, process, by);
	return try_program(s, &candidate, true);
}

static bool drop_processes(struct shrinker *s)
{
	bool dropped = false;

	for (unsigned op = s->best->nops; op-- > 0;) {
		const struct fuzz_op *which = &s->best->ops[op];

		if (which->kind == FUZZ_OP_EXIT)
			dropped |= drop_process(s, op, which->proc, 1);
		for (unsigned process = 1; op < s->best->nops && process < FUZZ_LIVE; process++)
			if (which->kind == FUZZ_OP_FORK || which->kind == FUZZ_OP_FORK_INTO ||
			    which->kind == FUZZ_OP_SNAPSHOT)
				dropped |= drop_process(s, op, process, -1);
	}
	return dropped;
}

static bool drop_ops_of_all_lengths(struct shrinker *s)
{
	bool dropped = false;

	for (unsigned n = (s->best->nops + 1) / 2; n; n /= 2)
		dropped |= drop_runs(s, n, true);
	return dropped;
}

/* ---- simpler operations ---- */

/* The numbers of an operation but its kind. */
static const size_t fields[] = {
	offsetof(struct fuzz_op, npages), offsetof(struct fuzz_op, flags), offsetof(struct fuzz_op, text),
	offsetof(struct fuzz_op, arg),    offsetof(struct fuzz_op, proc),  offsetof(struct fuzz_op, other),
	offsetof(struct fuzz_op, page),
};
enum { NFIELDS = sizeof(fields) / sizeof(fields[0]) };

static uint8_t value_of(const struct shrinker *s, unsigned op, size_t field)
{
	return ((const uint8_t *)&s->best->ops[op])[field];
}

static bool try_value(struct shrinker *s, unsigned op, size_t field, unsigned value, bool ask)
{
	struct fuzz_program candidate = *s->best;

	if (value >= value_of(s, op, field))
		return false;
	((uint8_t *)&candidate.ops[op])[field] = (uint8_t)value;
	return try_program(s, &candidate, ask);
}

/* The smallest values that mean the same. */
static void reduce_values(struct shrinker *s)
{
	for (unsigned op = 0; op < s->best->nops; op++)
		for (unsigned i = 0; i < NFIELDS; i++)
			for (unsigned value = 0; value < value_of(s, op, fields[i]); value++)
				if (try_value(s, op, fields[i], value, false))
					break;
}

static bool simplify_flags(struct shrinker *s, unsigned op)
{
	bool simpler = false;

	for (unsigned bit = 0; bit < 8; bit++)
		simpler |= try_value(s, op, offsetof(struct fuzz_op, flags), s->best->ops[op].flags & ~(1u << bit),
				     true);
	return simpler;
}

/* Shorter, or not at an offset. */
static bool simplify_text(struct shrinker *s, unsigned op)
{
	size_t field = offsetof(struct fuzz_op, text);
	bool simpler = try_value(s, op, field, s->best->ops[op].text % FUZZ_TEXT, true);

	return try_value(s, op, field, s->best->ops[op].text / FUZZ_TEXT * FUZZ_TEXT, true) || simpler;
}

static bool simplify_value(struct shrinker *s, unsigned op, size_t field)
{
	unsigned value = value_of(s, op, field);

	if (!value)
		return false;
	if (try_value(s, op, field, 0, true))
		return true;
	if (field == offsetof(struct fuzz_op, flags))
		return simplify_flags(s, op);
	if (field == offsetof(struct fuzz_op, text))
		return simplify_text(s, op);
	return try_value(s, op, field, value / 2, true) || try_value(s, op, field, value - 1, true);
}

static bool simplify_values(struct shrinker *s)
{
	bool simpler = false;

	for (unsigned op = 0; op < s->best->nops; op++)
		for (unsigned i = 0; i < NFIELDS; i++)
			simpler |= simplify_value(s, op, fields[i]);
	return simpler;
}

/* Let what @op makes be a page shorter, and what lies behind @page move up. */
static bool drop_page(struct shrinker *s, unsigned op, unsigned page)
{
	struct fuzz_program candidate = *s->best;

	candidate.ops[op].npages--;
	for (unsigned i = op + 1; i < candidate.nops; i++)
		candidate.ops[i].page = (uint8_t)(candidate.ops[i].page - (candidate.ops[i].page > page));
	return try_program(s, &candidate, true);
}

static bool drop_pages(struct shrinker *s)
{
	bool dropped = false;

	for (unsigned op = 0; op < s->best->nops; op++)
		for (unsigned page = FUZZ_PAGES; page-- > 0;)
			if (s->best->ops[op].kind == FUZZ_OP_MAP && s->best->ops[op].npages)
				dropped |= drop_page(s, op, page);
	return dropped;
}

/* Plenty of memory, all texts different, no swap file. */
static bool simplify_pressure(struct shrinker *s)
{
	struct fuzz_program candidate = *s->best;
	bool simpler;

	candidate.room = 0;
	simpler = s->best->room && try_program(s, &candidate, true);
	for (unsigned bit = 1; bit < FUZZ_P_ALL; bit <<= 1) {
		candidate = *s->best;
		candidate.pressure &= ~bit;
		simpler |= s->best->pressure & bit && try_program(s, &candidate, true);
	}
	return simpler;
}

/* A fork into a group is a fork. */
static bool simplify_forks(struct shrinker *s)
{
	bool simpler = false;

	for (unsigned op = 0; op < s->best->nops; op++) {
		struct fuzz_program candidate = *s->best;

		candidate.ops[op].kind = FUZZ_OP_FORK;
		simpler |= s->best->ops[op].kind == FUZZ_OP_FORK_INTO && try_program(s, &candidate, true);
	}
	return simpler;
}

static bool simplify_looks(struct shrinker *s)
{
	struct fuzz_program candidate = *s->best;

	candidate.looks = false;
	return s->best->looks && try_program(s, &candidate, true);
}

/* ---- all of it ---- */

static bool shrink_once(struct shrinker *s)
{
	bool smaller = drop_ops_of_all_lengths(s);

	reduce_values(s);
	smaller |= simplify_looks(s);
	smaller |= simplify_pressure(s);
	smaller |= simplify_forks(s);
	smaller |= simplify_values(s);
	smaller |= drop_processes(s);
	smaller |= drop_pages(s);
	return smaller || drop_pairs(s);
}

/* What says nothing costs no question. */
static void tidy(struct shrinker *s)
{
	for (unsigned op = 0; op < s->best->nops; op++)
		s->best->ops[op].kind %= FUZZ_OP_KINDS;
	drop_runs(s, 1, false);
	reduce_values(s);
}

unsigned fuzz_shrink(struct fuzz_program *program, fuzz_judge *judge, void *arg, unsigned runs)
{
	struct shrinker s = {.best = program, .judge = judge, .arg = arg, .runs = runs};
	size_t nbytes;

	if (fuzz_print(program, &s.text, &nbytes))
		return 0;
	tidy(&s);
	while (s.asked < s.runs && shrink_once(&s))
		continue;
	free(s.text);
	return s.asked;
}
