/* SPDX-License-Identifier: MIT */
/*
 * Differential fuzzing: random litmus programs, run statement by statement on several subjects (the engine in each fork
 * mode, the flat model, the live kernel), which must show the same after every statement.
 *
 *   seed or bytes --fuzz_generate--> struct fuzz_program --fuzz_print--> litmus text --litmus_parse--> struct litmus
 *   struct litmus --fuzz_run--> every subject steps through it; fuzz_compare looks for the first difference
 *   a divergence --fuzz_shrink--> a smaller program --fuzz_save--> NAME.litmus
 *
 * The text is what runs: a saved file holds the very program. A fuzzed program has no checks and promises no outcomes;
 * both are added when it is saved.
 */
#ifndef LITMUS_FUZZ_H
#define LITMUS_FUZZ_H

#include "litmus.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	FUZZ_PROCESSES = 12, /* that a program ever has */
	FUZZ_LIVE = 5,       /* of those at a time */
	FUZZ_PAGES = 40,     /* pages of all its regions, moved ones too */
	FUZZ_HANDLES = 12,   /* pins, gets and pipes that it ever binds */
	FUZZ_HANDLE_PAGES = 4,
	FUZZ_FILES = 2,
	FUZZ_FILE_PAGES = 4,
	FUZZ_GROUPS = 3,
	FUZZ_OPS_MAX = 200,
};

/* Texts are 1 to FUZZ_TEXT bytes and start at one of these offsets; a view holds FUZZ_TEXT bytes from each. */
enum { FUZZ_TEXT = 16, FUZZ_SPOTS = 3, FUZZ_WINDOW = FUZZ_TEXT * FUZZ_SPOTS };
#define FUZZ_SPOT_OFFSETS                \
	{                                \
		0, 512, 4096 - FUZZ_TEXT \
	}

/* Frames of the smallest machine there is. */
#define FUZZ_SMALL_FRAMES 512

/* The limit, in pages, of a group that no program of the fuzzer meets. */
#define FUZZ_NO_LIMIT 100000

enum fuzz_against { FUZZ_AGAINST_KERNEL, FUZZ_AGAINST_MODES };

/* ---- what a subject shows ---- */

/* What a subject can tell of each page; fields of the others mean nothing. */
enum {
	FUZZ_SEES_BYTES = 1u << 0, /* what loads return, of pages and of what handles hold, and files */
	FUZZ_SEES_MAPPED = 1u << 1,
	FUZZ_SEES_PRESENT = 1u << 2, /* present and zero: of private mappings */
	FUZZ_SEES_FRAMES = 1u << 3,
	FUZZ_SEES_EXCLUSIVE = 1u << 4,
	FUZZ_SEES_MAPCOUNT = 1u << 5,
	FUZZ_SEES_WP = 1u << 6,
	FUZZ_SEES_FAULTS = 1u << 7, /* how many page faults a `read` or `write` of private memory took: writability */
	FUZZ_SEES_OUTCOME = 1u << 8,
	FUZZ_SEES_USAGE = 1u << 9, /* how many pages are charged to memory groups */
	FUZZ_SEES_SOFT_DIRTY = 1u << 10,
};

struct fuzz_page {
	bool mapped;
	bool has_bytes; /* a load may read it: else `bytes` means nothing */
	bool shared;    /* of a shared mapping */
	bool present;
	bool zero; /* maps the zero page */
	bool exclusive;
	bool wp;
	bool swapped; /* on a swap device: its bytes are not looked at, which would bring it back */
	uint32_t mapcount;
	uint64_t frame; /* in the subject's own numbers; 0: none */
	uint8_t bytes[FUZZ_WINDOW];
	/* `wp` is nobody's promise: the flat model does not know, or an engine's page is as another fork left it. */
	bool wp_open;
	bool soft_dirty; /* of the flat model: stored to since soft-dirty bits were cleared */
	uint64_t loose;  /* of the reference: bits of those bytes that may as well be zero (`advise free`) */
};
_Static_assert(FUZZ_WINDOW <= 64, "a bit for each byte");

/* What a pin, a get or a pipe holds: the device's side. */
struct fuzz_held {
	bool bound;
	unsigned npages;
	bool has_bytes[FUZZ_HANDLE_PAGES]; /* false: nothing is promised (a plain get whose page was replaced) */
	uint8_t bytes[FUZZ_HANDLE_PAGES][FUZZ_WINDOW];
	uint64_t loose[FUZZ_HANDLE_PAGES];
};

struct fuzz_file {
	bool made;
	unsigned npages;
	uint8_t bytes[FUZZ_FILE_PAGES][FUZZ_WINDOW];
	uint64_t loose[FUZZ_FILE_PAGES];
	/* Right after it was synced: what the host's file has, if there is one. */
	bool synced;
	uint8_t stored[FUZZ_FILE_PAGES][FUZZ_WINDOW];
};

/* Everything that a subject shows after one statement. Indices are those of struct fuzz_layout. */
struct fuzz_view {
	int outcome;          /* of the statement: 0, an errno value, LITMUS_SIGSEGV or LITMUS_SIGBUS */
	uint64_t pages_taken; /* pin, get, splice that succeeded: how many pages */
	/*
	 * Of the reference: what the statement does is promised to nobody (a device that writes through a plain
	 * reference to a page that others have by now). It is not run on the others, and the test ends before it.
	 */
	bool undefined;
	bool scanned;    /* the statement was a scan, whose result is promised */
	uint64_t found;  /* bits of the pages of its place that it found */
	unsigned faults; /* FUZZ_SEES_FAULTS: the statement's; UINT_MAX: not counted */
	/* Of an engine: an operation found no memory, and how many pages could have been had from reclaim afterwards.
	 */
	bool ran_out;
	unsigned reclaimable;
	bool alive[FUZZ_PROCESSES];
	struct fuzz_page pages[FUZZ_PROCESSES][FUZZ_PAGES]; /* of living processes */
	struct fuzz_held held[FUZZ_HANDLES];
	struct fuzz_file files[FUZZ_FILES];
	uint64_t usage[FUZZ_GROUPS]; /* pages; 0 before the group is made */
};

/* Where the things of a program stand in a view. */
struct fuzz_layout {
	unsigned nprocesses, npages, nhandles, nfiles, ngroups;
	int process[FUZZ_PROCESSES]; /* index into litmus->names */
	struct {
		int region; /* index into litmus->names */
		unsigned page;
	} page[FUZZ_PAGES];
	int handle[FUZZ_HANDLES];
	int file[FUZZ_FILES];
	int group[FUZZ_GROUPS];
};

/* fuzz_lay_out - Returns: false when @litmus has more of something than a view holds. */
bool fuzz_lay_out(const struct litmus *litmus, struct fuzz_layout *layout);

/* ---- subjects ---- */

struct fuzz_test {
	const struct litmus *litmus;
	struct fuzz_layout layout;
	/*
	 * Whether every look at a page is a load, which faults in what is absent; else absent private pages are taken
	 * for zeros and stay absent.
	 */
	bool looks;
	/* Engines: frames that the machine has to spare at the start, so that reclaim happens by itself; 0: plenty. */
	unsigned room;
};

/*
 * A subject lives as long as a worker and runs one test after another. All calls come from one thread.
 * Errors of a subject itself (not outcomes) are told in @why, at most @size bytes, and end the test.
 */
struct fuzz_subject {
	const struct fuzz_subject_type *type;
	const uint64_t *tally; /* what happened in all its tests by FUZZ_TALLY; or NULL */
};

/* X(id, "name", the engine's counter): what memory that is short made an engine do. */
#define FUZZ_TALLY(X)                                                                 \
	X(FUZZ_TALLY_OUT, "pages written to swap", SWAP_OUT)                          \
	X(FUZZ_TALLY_IN, "pages read back", SWAP_IN)                                  \
	X(FUZZ_TALLY_FREED, "pages advised free that were dropped", LAZYFREE_DROPPED) \
	X(FUZZ_TALLY_MERGED, "pages merged", KSM_MERGE)                               \
	X(FUZZ_TALLY_ZEROED, "pages of zeros merged with the zero page", KSM_ZERO)    \
	X(FUZZ_TALLY_PARTED, "merged pages copied for a store", COPY_KSM)             \
	X(FUZZ_TALLY_COPIED, "merged pages copied on their way from swap", KSM_SWAPIN_COPY)

enum fuzz_tally {
#define FUZZ_TALLY_ID(id, name, counter) id,
	FUZZ_TALLY(FUZZ_TALLY_ID)
#undef FUZZ_TALLY_ID
		FUZZ_TALLIES
};

struct fuzz_subject_type {
	const char *name; /* "eager", "tables", "lazy", "flat", "kernel" */
	unsigned sees;
	/* begin - fresh processes for @test. Returns: 0; -errno. */
	int (*begin)(struct fuzz_subject *subject, const struct fuzz_test *test, char *why, size_t size);
	/* step - do statement @i, then look at everything. Returns: 0; -errno: the subject went wrong (invariants,
	 * crash). */
	int (*step)(struct fuzz_subject *subject, size_t i, struct fuzz_view *view, char *why, size_t size);
	/* end - give everything back, also after an error. Returns: 0; -errno: something is left, or is wrong. */
	int (*end)(struct fuzz_subject *subject, char *why, size_t size);
	void (*close)(struct fuzz_subject *subject);
};

/* fuzz_engine_open - the engine in fork mode @mode (enum ucow_fork_mode), policy `exclusive`. Returns: 0; -errno. */
int fuzz_engine_open(int mode, struct fuzz_subject **subject);
/* fuzz_flat_open - the flat reference model. */
int fuzz_flat_open(struct fuzz_subject **subject);
/* fuzz_kernel_open - the live kernel; what it sees depends on what this user may see. */
int fuzz_kernel_open(struct fuzz_subject **subject);

/* ---- comparing ---- */

struct fuzz_divergence {
	size_t at; /* statement; litmus->nstmts: at the end */
	char subjects[2][16];
	char what[64];             /* "bytes", "frame", "exclusive", ...: the property */
	int process, page, handle; /* indices of the layout, or -1 */
	char saw[2][160];          /* what each shows, for people */
	bool is_error;             /* a subject went wrong by itself; saw[0] tells */
};

/* What differs where one side copied a page and the other did not, and what the one shows that did. */
#define FUZZ_COPY   "copy"
#define FUZZ_COPIED "on another frame than before"

/*
 * fuzz_compare - the first difference in what both can see; @before are the views after the statement before (NULL:
 * none), so that a page that kept its frame on one side and got another on the other is seen. Returns: whether there is
 * one.
 */
bool fuzz_compare(const struct fuzz_test *test, size_t at, const struct fuzz_subject_type *const types[2],
		  const struct fuzz_view *const before[2], const struct fuzz_view *const now[2],
		  struct fuzz_divergence *divergence);

/* fuzz_agree - whether @seen are the bytes @promised, FUZZ_WINDOW each, or zero where @loose has a bit. */
bool fuzz_agree(const uint8_t *promised, const uint8_t *seen, uint64_t loose);

/*
 * fuzz_compare_half - the first difference between an engine that found no memory half-way (@now) and the reference:
 * each page must be as it was before the statement or as it is after it. Returns: whether there is one.
 */
bool fuzz_compare_half(const struct fuzz_test *test, size_t at, const struct fuzz_subject_type *const types[2],
		       const struct fuzz_view *before, const struct fuzz_view *after, const struct fuzz_view *now,
		       struct fuzz_divergence *divergence);

/* ---- one program ---- */

/* What is being done: statement (their number: the end) and subject, of which there are at most 8. */
#define FUZZ_PLACE(at, subject) ((uint64_t)(at) << 3 | (subject))

/* The subjects of a campaign; views are kept here, they are big. */
struct fuzz_court {
	unsigned nsubjects;
	struct fuzz_subject *subjects[4]; /* the first is the reference */
	struct fuzz_view *views[4][2];    /* now and before */
	bool out[4];                      /* of memory, in the program that was run last: not compared from there on */
	/*
	 * Against a kernel that may drop what is advised free: the model, which tells what may be gone. Nobody is
	 * compared with it.
	 */
	struct fuzz_subject *shadow;
	struct fuzz_view *shadow_view;
	bool is_shadowed;        /* the test that runs is one of those */
	_Atomic uint64_t *place; /* where fuzz_run() tells FUZZ_PLACE before whatever it does; or NULL */
};
int fuzz_court_open(enum fuzz_against against, struct fuzz_court *court, char *why, size_t size);
void fuzz_court_close(struct fuzz_court *court);

/*
 * fuzz_may_run_out - whether @test may come to want more memory than there is: it has a machine with little room, or a
 * group with a limit that can be met.
 */
bool fuzz_may_run_out(const struct fuzz_test *test);

/* fuzz_run - Returns: 0: all agree; 1: *divergence; -errno: it could not be judged (@divergence->saw[0] tells why). */
int fuzz_run(struct fuzz_court *court, const struct fuzz_test *test, struct fuzz_divergence *divergence);

/* ---- named classes of what is known to differ (kernel only) ---- */

/* X(id, "name", "reason") stands in fuzz_noise.h. */
/* fuzz_noise - the class that explains @divergence, or -1; may run the program again on @court to find out. */
int fuzz_noise(struct fuzz_court *court, const struct fuzz_test *test, const struct fuzz_divergence *divergence);

#endif
