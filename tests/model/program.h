/* SPDX-License-Identifier: MIT */
/*
 * Programs: random sequences of operations on spaces, pins and gets. An operation names slots, not objects, and means
 * nothing when its slot does not hold what it needs, so that every part of a program is a program: that is what
 * shrinking relies on.
 */
#ifndef TESTS_MODEL_PROGRAM_H
#define TESTS_MODEL_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(id, "name", weight) */
#define PROGRAM_OPS(X)                        \
	X(OP_MMAP, "mmap", 7)                 \
	X(OP_MUNMAP, "munmap", 3)             \
	X(OP_MPROTECT, "mprotect", 6)         \
	X(OP_MREMAP, "mremap", 6)             \
	X(OP_MADVISE, "madvise", 8)           \
	X(OP_READ, "read", 6)                 \
	X(OP_WRITE, "write", 16)              \
	X(OP_LOAD, "load", 3)                 \
	X(OP_STORE, "store", 8)               \
	X(OP_CMPXCHG, "cmpxchg", 3)           \
	X(OP_SPAN_READ, "span-read", 2)       \
	X(OP_SPAN_WRITE, "span-write", 4)     \
	X(OP_FORK, "fork", 10)                \
	X(OP_EXIT, "exit", 5)                 \
	X(OP_PIN, "pin", 10)                  \
	X(OP_GET, "get", 5)                   \
	X(OP_RELEASE, "release", 9)           \
	X(OP_DEVICE_WRITE, "device-write", 9) \
	X(OP_PEEK, "peek", 2)                 \
	X(OP_POKE, "poke", 3)                 \
	X(OP_NUMA_HINT, "numa-hint", 3)       \
	X(OP_CPU, "cpu", 2)                   \
	X(OP_CREATE, "create", 1)

enum op_kind {
#define PROGRAM_OP_ID(id, name, weight) id,
	PROGRAM_OPS(PROGRAM_OP_ID)
#undef PROGRAM_OP_ID
		OP_COUNT
};

/* Bits of op.flags; each operation looks at the ones that it knows. */
enum {
	F_SHARED = 1 << 0,
	F_NOREPLACE = 1 << 1,
	F_POPULATE = 1 << 2,
	F_WRITE = 1 << 3,
	F_FAST = 1 << 4,
	F_REMOTE = 1 << 5,
	F_FORCE = 1 << 6,
	F_LONGTERM = 1 << 7,
	F_MAYMOVE = 1 << 8,
	F_FIXED = 1 << 9,
	F_DONTUNMAP = 1 << 10,
	F_DIRTY = 1 << 11,
	F_CPU2 = 1 << 12,     /* through the space's other cpu */
	F_SNAPSHOT = 1 << 13, /* fork: read-only */
};

struct op {
	uint8_t kind;
	uint8_t space;
	uint8_t other; /* fork: the child's slot; pin, get: the handle's */
	uint8_t at;    /* page number; see runner.c for how it becomes an address */
	uint8_t n;
	uint8_t to; /* mremap: target page and length */
	uint8_t to_n;
	uint8_t arg; /* protection, advice, access size */
	uint16_t flags;
	uint16_t offset; /* byte offset in the page */
	uint64_t value;
};

enum { PROGRAM_MAX_OPS = 400, PROGRAM_WINDOW = 64 };

struct program {
	size_t nops;
	bool family;   /* forks, exits and references more than anything else */
	bool looks;    /* compare by loads after every operation: whatever can be read is faulted in */
	bool suspects; /* check all invariants after every operation, not after every eighth (shrinking) */
	struct op ops[PROGRAM_MAX_OPS];
};

void program_generate(struct program *p, uint64_t seed, size_t nops);
/* One line, without the newline. */
void program_format_op(const struct op *op, char *line, size_t nbytes);

#endif
