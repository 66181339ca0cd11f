/* SPDX-License-Identifier: MIT */
/*
 * Making programs: from a seed, weighted towards few pages and many operations on the same one, or from any bytes. What
 * the operations mean is in fuzz_print.c.
 */
#include "fuzz_program.h"

#include <string.h>

static const struct {
	const char *name;
	unsigned weight, family_weight;
	bool on_kernel;
} kinds[FUZZ_OP_KINDS] = {
#define FUZZ_OP_ROW(id, name, weight, family_weight, on_kernel) [id] = {name, weight, family_weight, on_kernel},
	FUZZ_OPS(FUZZ_OP_ROW)
#undef FUZZ_OP_ROW
};

const char *fuzz_op_name(enum fuzz_op_kind kind)
{
	return kinds[kind].name;
}

unsigned fuzz_op_pressure(enum fuzz_op_kind kind)
{
	if (kind == FUZZ_OP_PAGEOUT || kind == FUZZ_OP_RECLAIM || kind == FUZZ_OP_SWAPOFF)
		return FUZZ_P_SWAP;
	if (kind == FUZZ_OP_MERGEABLE || kind == FUZZ_OP_KSM_MERGE)
		return FUZZ_P_MERGING;
	if (kind >= FUZZ_OP_SYNC && kind <= FUZZ_OP_STORE)
		return FUZZ_P_FILES;
	if (kind >= FUZZ_OP_UFFD && kind <= FUZZ_OP_MUNLOCK)
		return FUZZ_P_TRACKING;
	return kind == FUZZ_OP_CGROUP || kind == FUZZ_OP_JOIN || kind == FUZZ_OP_FORK_INTO ? FUZZ_P_GROUPS : 0;
}

/*
 * The swap file that a campaign has on a kernel is everybody's: nobody switches it off. Few kernels have soft-dirty
 * bits.
 */
bool fuzz_op_possible(enum fuzz_op_kind kind, enum fuzz_against against, unsigned pressure)
{
	bool never = kind == FUZZ_OP_SWAPOFF || kind == FUZZ_OP_CLEAR;

	return against == FUZZ_AGAINST_MODES || kinds[kind].on_kernel || (!never && fuzz_op_pressure(kind) & pressure);
}

bool fuzz_op_presses(enum fuzz_op_kind kind)
{
	return fuzz_op_pressure(kind) & (FUZZ_P_SWAP | FUZZ_P_MERGING);
}

/* What only programs have that are about it. */
#define ALONE (FUZZ_P_FILES | FUZZ_P_TRACKING)

bool fuzz_program_has(const struct fuzz_program *program, enum fuzz_op_kind kind)
{
	/* io_uring releases fixed buffers without marking them dirty: what a device wrote may be dropped as clean. */
	if (program->against == FUZZ_AGAINST_KERNEL && program->pressure & FUZZ_P_SWAP && kind == FUZZ_OP_DEVICE_WRITE)
		return false;
	/* Files that are mapped are not transferred past the cache too. */
	if (program->pressure & FUZZ_P_FILES && (kind == FUZZ_OP_DIRECT_IN || kind == FUZZ_OP_DIRECT_OUT))
		return false;
	if (fuzz_op_pressure(kind) & ALONE & ~program->pressure)
		return false;
	return fuzz_op_possible(kind, program->against, program->pressure);
}

/* ---- chance ---- */

/* What a program is like as a whole. */
struct taste {
	uint64_t state; /* of splitmix64 */
	const struct fuzz_program *program;
	enum fuzz_against against;
	bool family;
	bool alike;          /* pages are to be equal */
	unsigned spread;     /* most operations are on the first pages */
	unsigned hot[2];     /* and most of those on these */
	struct fuzz_op last; /* the operation before */
};

static uint64_t next(struct taste *taste)
{
	uint64_t z = taste->state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static unsigned below(struct taste *taste, unsigned n)
{
	return (unsigned)(next(taste) % n);
}

static bool chance(struct taste *taste, unsigned percent)
{
	return below(taste, 100) < percent;
}

/* Merging takes an advice and a merge, between two stores: many of them, for some to meet. */
static unsigned weight_of(const struct taste *taste, unsigned kind)
{
	unsigned weight;

	if (!fuzz_program_has(taste->program, kind) || fuzz_op_pressure(kind) & ~taste->program->pressure)
		return 0;
	weight = taste->family ? kinds[kind].family_weight : kinds[kind].weight;
	return taste->alike && fuzz_op_pressure(kind) == FUZZ_P_MERGING ? 4 * weight : weight;
}

static enum fuzz_op_kind draw_kind(struct taste *taste)
{
	unsigned sum = 0, x;

	for (unsigned kind = 0; kind < FUZZ_OP_KINDS; kind++)
		sum += weight_of(taste, kind);
	x = below(taste, sum);
	for (unsigned kind = 0; kind < FUZZ_OP_KINDS; kind++) {
		if (x < weight_of(taste, kind))
			return kind;
		x -= weight_of(taste, kind);
	}
	return FUZZ_OP_WRITE;
}

/* ---- operations ---- */

static unsigned draw_page(struct taste *taste)
{
	if (chance(taste, 25))
		return taste->last.page;
	if (chance(taste, 50))
		return taste->hot[below(taste, 2)];
	return below(taste, chance(taste, 80) ? taste->spread : FUZZ_PAGES);
}

static unsigned draw_npages(struct taste *taste, enum fuzz_op_kind kind)
{
	if (kind == FUZZ_OP_MAP)
		return below(taste, chance(taste, 70) ? 3 : 8);
	if (chance(taste, taste->alike && kind == FUZZ_OP_WRITE ? 20 : 60))
		return 0;
	return below(taste, chance(taste, 70) ? 3 : 8);
}

static unsigned draw_gup_flags(struct taste *taste, bool is_pin)
{
	bool kernel = taste->against == FUZZ_AGAINST_KERNEL;

	return (chance(taste, 55) || (is_pin && kernel) ? FUZZ_F_WRITE : 0) | (chance(taste, 30) ? FUZZ_F_FAST : 0) |
	       (chance(taste, 50) ? FUZZ_F_LONGTERM : 0) | (chance(taste, 15) ? FUZZ_F_FORCE : 0);
}

static unsigned draw_flags(struct taste *taste, enum fuzz_op_kind kind)
{
	unsigned flags = chance(taste, 4) ? FUZZ_F_ANYWHERE : 0;

	if (kind == FUZZ_OP_MAP)
		flags |= (chance(taste, 15) ? FUZZ_F_SHARED : 0) | (chance(taste, 20) ? FUZZ_F_POPULATE : 0);
	if (kind == FUZZ_OP_MAP && taste->program->pressure & FUZZ_P_FILES)
		flags |= (chance(taste, 70) ? FUZZ_F_FILE : 0) | (chance(taste, 50) ? FUZZ_F_SHARED : 0);
	if (kind == FUZZ_OP_PIN || kind == FUZZ_OP_GET)
		flags |= draw_gup_flags(taste, kind == FUZZ_OP_PIN);
	if (kind == FUZZ_OP_UNPIN)
		flags |= chance(taste, 30) ? FUZZ_F_DIRTY : 0;
	return flags;
}

static struct fuzz_op draw_op(struct taste *taste)
{
	enum fuzz_op_kind kind = draw_kind(taste);

	return (struct fuzz_op){
		.kind = (uint8_t)kind,
		.proc = (uint8_t)(!taste->family && chance(taste, 40) ? 0 : below(taste, 60)),
		.other = (uint8_t)below(taste, 60),
		.page = (uint8_t)draw_page(taste),
		.npages = (uint8_t)draw_npages(taste, kind),
		.arg = (uint8_t)below(taste, 240),
		.flags = (uint8_t)draw_flags(taste, kind),
		.text = (uint8_t)next(taste),
	};
}

/* Starts with memory to work on: without it most operations would mean nothing. */
static struct fuzz_op first_op(struct taste *taste)
{
	return (struct fuzz_op){.kind = FUZZ_OP_MAP,
				.npages = (uint8_t)(taste->spread - 1),
				.flags = (uint8_t)((chance(taste, 10) ? FUZZ_F_SHARED : 0) | FUZZ_F_FILE)};
}

/* Whether a program has @what, of a chance of its own: the others of a seed stay as they are without it. */
static bool is_one_of(uint64_t seed, unsigned what, unsigned n)
{
	return next(&(struct taste){.state = ~seed - what}) % n == 1;
}

/* Of those with swap, half merge pages, one of four has groups, and one of six too little memory for what it does. */
static const unsigned rooms[] = {10, 16, 28};

/* One of @n has files, one of @n tracking, some of those have both; what both sides may do differently, none. */
static void add_alone(struct fuzz_program *program, uint64_t seed, unsigned n)
{
	if (is_one_of(seed, 4, n))
		program->pressure |= FUZZ_P_FILES | (is_one_of(seed, 6, 3) ? FUZZ_P_TRACKING : 0);
	else if (is_one_of(seed, 5, n))
		program->pressure |= FUZZ_P_TRACKING;
	if (!(program->pressure & ALONE))
		return;
	program->pressure &= ~(unsigned)(FUZZ_P_MERGING | FUZZ_P_GROUPS);
	program->room = 0;
}

static void press_modes(struct fuzz_program *program, uint64_t seed)
{
	bool pressed = is_one_of(seed, 0, 2);

	if (pressed)
		program->pressure |= FUZZ_P_SWAP;
	if (pressed && is_one_of(seed, 1, 2))
		program->pressure |= FUZZ_P_MERGING;
	if (is_one_of(seed, 2, pressed ? 4 : 10))
		program->pressure |= FUZZ_P_GROUPS;
	if (pressed && is_one_of(seed, 3, 6))
		program->room = rooms[seed % 3];
	add_alone(program, seed, 10);
}

static void press_kernel(struct fuzz_program *program, uint64_t seed, unsigned possible)
{
	if (is_one_of(seed, 0, 4))
		program->pressure |= FUZZ_P_SWAP;
	if (is_one_of(seed, 1, 12))
		program->pressure |= FUZZ_P_MERGING;
	if (is_one_of(seed, 2, 12))
		program->pressure |= FUZZ_P_GROUPS;
	program->pressure &= possible;
	if (is_one_of(seed, 4, 10) || is_one_of(seed, 5, 10)) {
		unsigned before = program->pressure;

		program->pressure = 0;
		add_alone(program, seed, 10);
		program->pressure &= possible;
		if (!program->pressure)
			program->pressure = before;
	}
}

static void generate(struct fuzz_program *program, unsigned nops)
{
	struct taste taste = {.state = program->seed, .against = program->against, .program = program};

	program->nops = nops < FUZZ_OPS_MAX ? nops : FUZZ_OPS_MAX;
	program->looks = chance(&taste, 30);
	taste.family = chance(&taste, 40);
	taste.spread = 1 + below(&taste, chance(&taste, 60) ? 4 : 8);
	taste.alike = program->pressure & FUZZ_P_MERGING;
	if (taste.alike && taste.spread < 4)
		taste.spread = 4;
	taste.hot[0] = below(&taste, taste.spread);
	taste.hot[1] = below(&taste, taste.spread);
	for (unsigned i = 0; i < program->nops; i++)
		program->ops[i] = taste.last = i ? draw_op(&taste) : first_op(&taste);
}

void fuzz_generate(struct fuzz_program *program, uint64_t seed, unsigned nops, enum fuzz_against against)
{
	*program = (struct fuzz_program){.seed = seed, .against = against};
	if (against == FUZZ_AGAINST_MODES)
		press_modes(program, seed);
	generate(program, nops);
}

void fuzz_generate_pressed(struct fuzz_program *program, uint64_t seed, unsigned nops, unsigned possible)
{
	*program = (struct fuzz_program){.seed = seed, .against = FUZZ_AGAINST_KERNEL};
	press_kernel(program, seed, possible);
	generate(program, nops);
}

/* The first byte is for the program as a whole. */
void fuzz_from_bytes(struct fuzz_program *program, const uint8_t *bytes, size_t nbytes, enum fuzz_against against)
{
	size_t nops = nbytes ? (nbytes - 1) / sizeof(struct fuzz_op) : 0;

	_Static_assert(sizeof(struct fuzz_op) == 8, "an operation is its bytes, without holes");
	*program = (struct fuzz_program){.against = against};
	program->nops = nops < FUZZ_OPS_MAX ? (unsigned)nops : FUZZ_OPS_MAX;
	program->looks = nbytes && bytes[0] & 1;
	if (nbytes && against == FUZZ_AGAINST_MODES && bytes[0] & 2)
		program->pressure = FUZZ_P_MERGING;
	if (nbytes && against == FUZZ_AGAINST_MODES && bytes[0] & 4)
		program->room = rooms[bytes[0] / 8 % 3];
	if (nbytes && bytes[0] & 0xc0) {
		program->pressure = (bytes[0] & 0x40 ? FUZZ_P_FILES : 0) | (bytes[0] & 0x80 ? FUZZ_P_TRACKING : 0);
		program->room = 0;
	}
	if (program->nops)
		memcpy(program->ops, bytes + 1, program->nops * sizeof(struct fuzz_op));
}
