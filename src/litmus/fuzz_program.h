/* SPDX-License-Identifier: MIT */
/*
 * Programs of the fuzzer before they are text: arrays of operations made of small numbers. A number names what exists
 * when its operation is printed, modulo how much of it there is, and an operation that means nothing then is left out:
 * every array of any values prints to a litmus test. That is what shrinking and libFuzzer rely on.
 */
#ifndef LITMUS_FUZZ_PROGRAM_H
#define LITMUS_FUZZ_PROGRAM_H

#include "fuzz.h"

/*
 * X(id, "name", weight, weight in a family, whether the kernel has it): a family is a program of forks, exits, pins and
 * writes above all.
 */
#define FUZZ_OPS(X)                                         \
	X(FUZZ_OP_MAP, "map", 5, 3, true)                   \
	X(FUZZ_OP_WRITE, "write", 22, 22, true)             \
	X(FUZZ_OP_READ, "read", 7, 4, true)                 \
	X(FUZZ_OP_FORK, "fork", 9, 18, true)                \
	X(FUZZ_OP_EXIT, "exit", 4, 10, true)                \
	X(FUZZ_OP_PROTECT, "protect", 6, 2, true)           \
	X(FUZZ_OP_ADVISE, "advise", 9, 4, true)             \
	X(FUZZ_OP_MOVE, "move", 4, 2, true)                 \
	X(FUZZ_OP_UNMAP, "unmap", 3, 2, true)               \
	X(FUZZ_OP_PIN, "pin", 8, 11, true)                  \
	X(FUZZ_OP_GET, "get", 3, 3, true)                   \
	X(FUZZ_OP_UNPIN, "unpin", 5, 7, true)               \
	X(FUZZ_OP_PUT, "put", 3, 3, true)                   \
	X(FUZZ_OP_DEVICE_WRITE, "device write", 7, 8, true) \
	X(FUZZ_OP_SPLICE, "splice", 3, 2, true)             \
	X(FUZZ_OP_FILE, "file", 1, 0, true)                 \
	X(FUZZ_OP_DIRECT_OUT, "direct-out", 2, 1, true)     \
	X(FUZZ_OP_DIRECT_IN, "direct-in", 3, 2, true)       \
	X(FUZZ_OP_POKE, "poke", 3, 2, true)                 \
	X(FUZZ_OP_REMOTE_WRITE, "remote-write", 3, 2, true) \
	X(FUZZ_OP_NUMA_HINT, "numa-hint", 3, 2, false)      \
	X(FUZZ_OP_SNAPSHOT, "snapshot", 3, 4, false)        \
	X(FUZZ_OP_PAGEOUT, "pageout", 7, 6, false)          \
	X(FUZZ_OP_RECLAIM, "reclaim", 5, 6, false)          \
	X(FUZZ_OP_SWAPOFF, "swapoff", 1, 1, false)          \
	X(FUZZ_OP_MERGEABLE, "mergeable", 4, 3, false)      \
	X(FUZZ_OP_KSM_MERGE, "ksm merge", 3, 3, false)      \
	X(FUZZ_OP_CGROUP, "cgroup", 3, 2, false)            \
	X(FUZZ_OP_JOIN, "join", 3, 3, false)                \
	X(FUZZ_OP_FORK_INTO, "fork into", 4, 8, false)      \
	X(FUZZ_OP_SYNC, "sync", 4, 2, false)                \
	X(FUZZ_OP_MSYNC, "msync", 4, 2, false)              \
	X(FUZZ_OP_TRUNCATE, "truncate", 5, 4, false)        \
	X(FUZZ_OP_PUNCH, "punch", 4, 3, false)              \
	X(FUZZ_OP_STORE, "store", 6, 4, false)              \
	X(FUZZ_OP_UFFD, "uffd", 6, 5, false)                \
	X(FUZZ_OP_WP, "wp", 12, 9, false)                   \
	X(FUZZ_OP_UNWP, "unwp", 4, 3, false)                \
	X(FUZZ_OP_UFFD_CLOSE, "close", 3, 3, false)         \
	X(FUZZ_OP_SCAN, "scan", 8, 6, false)                \
	X(FUZZ_OP_CLEAR, "clear-soft-dirty", 4, 4, false)   \
	X(FUZZ_OP_MLOCK, "mlock", 4, 3, false)              \
	X(FUZZ_OP_MUNLOCK, "munlock", 2, 2, false)

enum fuzz_op_kind {
#define FUZZ_OP_ID(id, name, weight, family_weight, on_kernel) id,
	FUZZ_OPS(FUZZ_OP_ID)
#undef FUZZ_OP_ID
		FUZZ_OP_KINDS
};

/* Bits of fuzz_op.flags; each operation looks at those that it knows. */
enum {
	FUZZ_F_SHARED = 1 << 0,   /* map */
	FUZZ_F_POPULATE = 1 << 1, /* map */
	FUZZ_F_FILE = 1 << 2,     /* map, in programs with files */
	FUZZ_F_WRITE = 1 << 0,    /* pin, get */
	FUZZ_F_FAST = 1 << 1,     /* pin */
	FUZZ_F_LONGTERM = 1 << 2, /* pin */
	FUZZ_F_FORCE = 1 << 3,    /* pin, get */
	FUZZ_F_DIRTY = 1 << 0,    /* unpin */
	FUZZ_F_ANYWHERE =
		1 << 7, /* also at pages that the process does not map, through handles that are for reading */
};

/*
 * What kinds of pressure, or of other things that few programs have, a program has. Against the modes any program may
 * have the operations of any kind; against the kernel only where the machine has what they need.
 */
enum {
	FUZZ_P_SWAP = 1 << 0,
	FUZZ_P_MERGING = 1 << 1, /* and few texts, so that many pages are equal */
	FUZZ_P_GROUPS = 1 << 2,
	FUZZ_P_FILES = 1 << 3, /* mapped ones; not with merging, nor with little memory */
	FUZZ_P_TRACKING =
		1 << 4, /* who has written: userfaultfds, scans, soft-dirty; and locked memory; as with files */
	FUZZ_P_ALL = FUZZ_P_SWAP | FUZZ_P_MERGING | FUZZ_P_GROUPS | FUZZ_P_FILES | FUZZ_P_TRACKING,
};

struct fuzz_op {
	uint8_t kind;   /* modulo FUZZ_OP_KINDS */
	uint8_t proc;   /* of the living, in the order of their birth */
	uint8_t other;  /* poke, remote-write: the other process; what uses a handle: of those held; direct-*: the file
			 */
	uint8_t page;   /* of all pages of all regions, in the order of their making */
	uint8_t npages; /* 0 is one page; ends with its region */
	uint8_t arg;    /* protection, advice, page of a file */
	uint8_t flags;
	uint8_t text; /* its length, and the offset in the page */
};

struct fuzz_program {
	uint64_t seed;
	enum fuzz_against against; /* what it may consist of */
	bool looks;                /* see struct fuzz_test */
	unsigned pressure;         /* FUZZ_P_* */
	unsigned room;             /* see struct fuzz_test */
	unsigned nops;
	struct fuzz_op ops[FUZZ_OPS_MAX];
};

/* fuzz_generate - make a program of @nops operations (cut to FUZZ_OPS_MAX); the same from the same @seed. */
void fuzz_generate(struct fuzz_program *program, uint64_t seed, unsigned nops, enum fuzz_against against);

/*
 * fuzz_generate_pressed - a program for a kernel that has what @possible (FUZZ_P_*) needs; one of four has its pages
 * sent to swap, one of twelve merges pages, one of twelve has groups, the others are as without.
 */
void fuzz_generate_pressed(struct fuzz_program *program, uint64_t seed, unsigned nops, unsigned possible);

/* fuzz_from_bytes - any @nbytes of @bytes are a program, of whole operations. */
void fuzz_from_bytes(struct fuzz_program *program, const uint8_t *bytes, size_t nbytes, enum fuzz_against against);

/*
 * fuzz_print - the program as a litmus test, which litmus_parse() takes and fuzz_lay_out() fits.
 * Returns: 0 and *text, to be freed, with *nbytes bytes and a NUL behind them; -ENOMEM.
 */
int fuzz_print(const struct fuzz_program *program, char **text, size_t *nbytes);

const char *fuzz_op_name(enum fuzz_op_kind kind);
/* Whether it is about memory that is short: pages on a swap device, merged pages. Not all programs have those. */
bool fuzz_op_presses(enum fuzz_op_kind kind);
/* fuzz_op_pressure - the one of FUZZ_P_* that @kind is about, or 0. */
unsigned fuzz_op_pressure(enum fuzz_op_kind kind);
/* fuzz_op_possible - whether programs can have it, on a kernel where they can have @pressure. */
bool fuzz_op_possible(enum fuzz_op_kind kind, enum fuzz_against against, unsigned pressure);
/* fuzz_program_has - whether operations of @kind mean something in @program. */
bool fuzz_program_has(const struct fuzz_program *program, enum fuzz_op_kind kind);

/* Whether @program still shows what is looked for. */
typedef bool fuzz_judge(const struct fuzz_program *program, void *arg);

/*
 * fuzz_shrink - make @program smaller as long as @judge, called at most @runs times, says yes: operations are left out,
 * in long runs first, then those that stay are made simpler. Returns: how often @judge was asked.
 */
unsigned fuzz_shrink(struct fuzz_program *program, fuzz_judge *judge, void *arg, unsigned runs);

/*
 * fuzz_save - write the program, up to where it diverges, into a new file of folder @dir (made if it is not there) that
 * is named from what differs and the seed, as a litmus test with both observations. @reference, of which @divergence
 * is one half, does it once more: its outcomes become what statements promise, what it shows becomes checks.
 * Returns: 0 and the file's name in @path; -errno, and then there is no new file.
 */
int fuzz_save(const char *dir, const struct fuzz_program *program, struct fuzz_subject *reference,
	      const struct fuzz_divergence *divergence, char *path, size_t size);

#endif
