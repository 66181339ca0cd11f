/* SPDX-License-Identifier: MIT */
/*
 * A litmus test in memory: what the parser makes and what every runner reads. The language is docs/litmus.md.
 * Nothing here knows the engine or the kernel. Everything in a struct litmus is checked: indices lie in their arrays
 * and name something of the right kind, places lie in their regions, texts in their pages.
 */
#ifndef LITMUS_LITMUS_H
#define LITMUS_LITMUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Where something stands in the file; both from 1. A column is a character, not a byte; a tab is one. */
struct loc {
	unsigned line, column;
};

/* ---- header ---- */

/* Facilities of `needs`; a statement that needs one implies it even where the header does not say so. */
enum litmus_need {
	NEED_SWAP = 1u << 0,
	NEED_FILE = 1u << 1,
	NEED_THP = 1u << 2,
	NEED_HUGETLB = 1u << 3,
	NEED_KSM = 1u << 4,
	NEED_UFFD = 1u << 5,
	NEED_SOFT_DIRTY = 1u << 6,
	NEED_NUMA = 1u << 7,
	NEED_CGROUP = 1u << 8,
	NEED_RO_LONGTERM = 1u << 9,
	NEED_DIRECT_IO = 1u << 10,
	NEED_SNAPSHOT = 1u << 11, /* implied by `snapshot`; has no word in `needs` */
};
#define NEED_COUNT 12
/* Bits of `breaks` are 1u << enum ucow_policy, bits of `forks` 1u << enum ucow_fork_mode (ucow/machine.h). */

struct litmus_machine {
	uint64_t ram_bytes, swap_bytes; /* 0: not given */
	unsigned nodes, cpus;           /* 0: not given */
};

/* ---- names ---- */

enum name_kind {
	NAME_PROCESS,
	NAME_REGION,
	NAME_FILE,
	NAME_CGROUP,
	NAME_PIN,
	NAME_GET,
	NAME_PIPE,
	NAME_UFFD,
	NAME_LOCK
};

struct name {
	char *text;
	enum name_kind kind;
	struct loc loc;   /* of the definition (Kid1...KidN: of `Kid`); 0:0 for process A */
	uint64_t npages;  /* regions: size; files: size in pages */
	uint64_t nhandle; /* pins, gets, pipes, userfaultfds, locks: pages of the place they were made from */
	int region;       /* those: the region's name index; moved regions: the old one; else -1 */
	unsigned first;   /* those and moved regions: first page of the place in that region */
};

/* ---- places and texts ---- */

/* `buf`, `buf[3]`, `buf[0..7]`, `buf[3]+512`; always resolved: npages >= 1 and inside the region. */
struct place {
	int region; /* index into names */
	uint64_t first, npages;
	uint64_t offset; /* bytes into the page; 0 without `+`; else npages is 1 and it is a place of write, read, pin,
			    get, splice, direct-*, peek, poke, remote-write or check reads, where bytes are meant */
	bool whole;      /* written without [ ] */
	struct loc loc;
};

struct text {
	char *bytes;   /* NULL with `zero`; not terminated by meaning, a NUL follows all the same */
	size_t nbytes; /* 1 to what is left of the page from the place's (or the handle's) offset; 0 with `zero` */
	bool zero;     /* the word `zero`: all the page from the offset on; in checks only */
};

/* ---- statements ---- */

/* X(id, "syntax as messages show it") */
#define STMT_KINDS(X)                                                                                               \
	X(MAP, "map")                                                                                               \
	X(UNMAP, "unmap")                                                                                           \
	X(PROTECT, "protect")                                                                                       \
	X(MOVE, "move")                                                                                             \
	X(ADVISE, "advise")                                                                                         \
	X(WRITE, "write")                                                                                           \
	X(READ, "read")                                                                                             \
	X(FORK, "fork")                                                                                             \
	X(SNAPSHOT, "snapshot")                                                                                     \
	X(EXIT, "exit")                                                                                             \
	X(PIN, "pin")                                                                                               \
	X(GET, "get")                                                                                               \
	X(DEVICE_WRITE, "device write")                                                                             \
	X(UNPIN, "unpin")                                                                                           \
	X(PUT, "put")                                                                                               \
	X(SPLICE, "splice")                                                                                         \
	X(DIRECT_OUT, "direct-out")                                                                                 \
	X(DIRECT_IN, "direct-in")                                                                                   \
	X(PEEK, "peek")                                                                                             \
	X(POKE, "poke")                                                                                             \
	X(REMOTE_WRITE, "remote-write")                                                                             \
	X(FILE, "file")                                                                                             \
	X(SYNC, "sync")                                                                                             \
	X(MSYNC, "msync")                                                                                           \
	X(PUNCH, "punch")                                                                                           \
	X(STORE, "store") /* `store f[1] "text"`: write(2) */                                                       \
	X(DROP, "drop")   /* `drop f`: what is clean and unmapped leaves the page cache */                          \
	X(TRUNCATE, "truncate")                                                                                     \
	X(UFFD, "uffd")                                                                                             \
	X(UFFD_PROTECT, "protect")                                                                                  \
	X(UFFD_UNPROTECT, "unprotect")                                                                              \
	X(UFFD_COPY, "copy")                                                                                        \
	X(UFFD_ZEROPAGE, "zeropage")                                                                                \
	X(UFFD_CONTINUE, "continue")                                                                                \
	X(UFFD_MOVE, "move")                                                                                        \
	X(UFFD_POISON, "poison")                                                                                    \
	X(UFFD_WAKE, "wake")                                                                                        \
	X(UFFD_REGISTER, "register")                                                                                \
	X(UFFD_UNREGISTER, "unregister")                                                                            \
	X(UFFD_CLOSE, "close")                                                                                      \
	X(CLEAR_SOFT_DIRTY, "clear-soft-dirty")                                                                     \
	X(MLOCK, "mlock")                                                                                           \
	X(MUNLOCK, "munlock")                                                                                       \
	X(SCAN, "scan")                                                                                             \
	X(KSM_MERGE, "ksm merge")                                                                                   \
	X(RECLAIM, "reclaim")                                                                                       \
	X(SWAPOFF, "swapoff")                                                                                       \
	X(NUMA_HINT, "numa-hint")                                                                                   \
	X(MIGRATE, "migrate")                                                                                       \
	X(CGROUP, "cgroup")                                                                                         \
	X(JOIN, "join")                                                                                             \
	X(INJECT_ALLOC, "inject alloc")                                                                             \
	X(INJECT_READ, "inject read")                                                                               \
	X(INJECT_WRITE, "inject write")                                                                             \
	X(LOCK, "lock")               /* `A lock P -> l`: a scanner takes the locks of the pages that P maps now */ \
	X(UNLOCK, "unlock")           /* `unlock l` */                                                              \
	X(CHECK_READS, "check reads") /* check A reads P "text" [or "text"]... */                                   \
	X(CHECK_HANDLE_READS, "check handle reads") /* check p reads "text" [or ...] */                             \
	X(CHECK_FILE_READS, "check file reads")     /* check file f[0] reads "text" [or ...] */                     \
	X(CHECK_FILE_HOLDS, "check file holds")     /* check file f[0] holds "text" [or ...] */                     \
	X(CHECK_PAGES, "check pages")               /* check p pages N */                                           \
	X(CHECK_FLAG, "check is")                   /* check A P is [not] FLAG */                                   \
	X(CHECK_SAME, "check same")                 /* check A P same|differs B Q */                                \
	X(CHECK_MAPCOUNT, "check mapcount")                                                                         \
	X(CHECK_RSS, "check rss")                                                                                   \
	X(CHECK_USAGE, "check usage")                                                                               \
	X(CHECK_COUNT, "check count")                                                                               \
	X(CHECK_EVENT, "check event")

enum stmt_kind {
#define X(id, syntax) STMT_##id,
	STMT_KINDS(X)
#undef X
		STMT_KIND_COUNT
};

enum map_option {
	MAP_OPT_SHARED = 1u << 0,
	MAP_OPT_HUGE = 1u << 1,
	MAP_OPT_HUGETLB = 1u << 2,
	MAP_OPT_POPULATE = 1u << 3,
	MAP_OPT_READONLY = 1u << 4, /* the file is opened for reading */
};

enum litmus_prot { LITMUS_PROT_NONE = 0, LITMUS_PROT_R = 1, LITMUS_PROT_RW = 3 };

/* X(id, "word") */
#define ADVICE_WORDS(X)                     \
	X(DONTFORK, "dontfork")             \
	X(DOFORK, "dofork")                 \
	X(WIPEONFORK, "wipeonfork")         \
	X(KEEPONFORK, "keeponfork")         \
	X(MERGEABLE, "mergeable")           \
	X(UNMERGEABLE, "unmergeable")       \
	X(HUGEPAGE, "hugepage")             \
	X(NOHUGEPAGE, "nohugepage")         \
	X(DONTNEED, "dontneed")             \
	X(FREE, "free")                     \
	X(COLD, "cold")                     \
	X(PAGEOUT, "pageout")               \
	X(POPULATE_READ, "populate-read")   \
	X(POPULATE_WRITE, "populate-write") \
	X(COLLAPSE, "collapse")
enum litmus_advice {
#define X(id, word) ADVICE_##id,
	ADVICE_WORDS(X)
#undef X
		ADVICE_COUNT
};

#define FLAG_WORDS(X)               \
	X(PRESENT, "present")       \
	X(EXCLUSIVE, "exclusive")   \
	X(WRITABLE, "writable")     \
	X(DIRTY, "dirty")           \
	X(ACCESSED, "accessed")     \
	X(SOFT_DIRTY, "soft-dirty") \
	X(WP, "wp")                 \
	X(SWAPPED, "swapped")       \
	X(KSM, "ksm")               \
	X(HUGE, "huge")             \
	X(ZERO_PAGE, "zero-page")   \
	X(PINNED, "pinned")         \
	X(MAPPED, "mapped")
enum litmus_flag {
#define X(id, word) LFLAG_##id,
	FLAG_WORDS(X)
#undef X
		LFLAG_COUNT
};

enum gup_option {
	GUP_OPT_WRITE = 1u << 0,
	GUP_OPT_FAST = 1u << 1,
	GUP_OPT_LONGTERM = 1u << 2,
	GUP_OPT_FORCE = 1u << 3,
};

enum uffd_mode {
	UFFD_MODE_WP = 1u << 0,
	UFFD_MODE_MISSING = 1u << 1,
	UFFD_MODE_MINOR = 1u << 2,
	UFFD_MODE_ASYNC = 1u << 3, /* from here on: features, of `uffd` only */
	UFFD_SIGBUS = 1u << 4,
	UFFD_UNPOPULATED = 1u << 5,
	UFFD_ON_FORK = 1u << 6,
	UFFD_ON_REMAP = 1u << 7,
	UFFD_ON_REMOVE = 1u << 8,
	UFFD_ON_UNMAP = 1u << 9,
};
#define UFFD_MODES (UFFD_MODE_WP | UFFD_MODE_MISSING | UFFD_MODE_MINOR)

/* `check u event`; X(id, "word"). The first three are the modes, in the order of their bits. */
#define EVENT_WORDS(X)        \
	X(WP, "wp")           \
	X(MISSING, "missing") \
	X(MINOR, "minor")     \
	X(FORK, "fork")       \
	X(REMAP, "remap")     \
	X(REMOVE, "remove")   \
	X(UNMAP, "unmap")     \
	X(NONE, "none")
enum litmus_event {
#define X(id, word) EVENT_##id,
	EVENT_WORDS(X)
#undef X
		EVENT_COUNT
};

/* Categories of `scan`; X(id, "word"). */
#define SCAN_WORDS(X)               \
	X(WRITTEN, "written")       \
	X(PRESENT, "present")       \
	X(SWAPPED, "swapped")       \
	X(FILE, "file")             \
	X(ZERO_PAGE, "zero-page")   \
	X(SOFT_DIRTY, "soft-dirty") \
	X(WP_ALLOWED, "wp-allowed")
enum litmus_scan {
#define X(id, word) SCAN_##id,
	SCAN_WORDS(X)
#undef X
		SCAN_COUNT
};
enum scan_option { SCAN_OPT_PROTECT = 1u << 0, SCAN_OPT_ASYNC_ONLY = 1u << 1 };

/* Pages of a scan's place that it must find: consecutive ones, counted from the region's first. */
struct litmus_range {
	uint64_t first, npages;
};

/* How a statement must end. SIGSEGV and SIGBUS are kept as negative numbers beside errno values. */
enum outcome { OUTCOME_OK, OUTCOME_FAILS, OUTCOME_MAY_FAIL };
#define LITMUS_SIGSEGV (-1)
#define LITMUS_SIGBUS  (-2)

struct stmt {
	enum stmt_kind kind;
	struct loc loc; /* of its first word */
	char *source;   /* the line, trimmed, without comment */
	unsigned block; /* 0: not in `parallel`; else which block, from 1 */
	unsigned lane;  /* inside a block: from 0 */
	int proc;       /* acting, checked or (migrate) migrated process; -1 too for what is done with a handle */
	int proc2;      /* peek, poke, remote-write, same: the other; else -1 */
	int name;       /* what the statement defines, also where it fails: region, file, cgroup, handle, process (fork,
			   snapshot: the first of `count` consecutive names); else -1 */
	int handle;     /* pin, get, pipe, uffd, lock that it uses; else -1 */
	int file;       /* file it uses; else -1 */
	int cgroup;     /* cgroup it uses (fork into, join, usage; cgroup: the one above it); else -1 */
	struct place place, place2; /* region -1 where absent; place2: same, userfaultfd move (target); as many pages */
	uint64_t file_page; /* direct-*, map: page in the file of the place's first page; punch, store, check file:
			       the (first) page */
	struct text *texts; /* writes: one; checks and peek: the alternatives, at least one */
	size_t ntexts;
	uint64_t count; /* map, file, punch: pages; fork, snapshot: how many children; N of checks, inject, reclaim,
			   truncate, node of migrate, limit of cgroup in pages, max of scan (0: none) */
	uint64_t swap_limit; /* cgroup swap=; UINT64_MAX: not given */
	bool at_least;       /* `N+` */
	bool starred;        /* fork Kid * N (children are Kid1...KidN) */
	/*
	 * enum map_option, gup_option, uffd_mode, scan_option; unpin: 1 = dirty; ksm merge: 1 = zero-pages; msync: 1 =
	 * async; mlock: 1 = onfault; move: 1 = dontunmap; file: 1 = memory; copy, continue, zeropage: 1 = wp
	 */
	unsigned options;
	unsigned required, inverted; /* scan: bits of enum litmus_scan */
	struct litmus_range *ranges; /* scan: what it finds */
	size_t nranges;
	enum litmus_prot prot; /* map (RW where not given), protect */
	enum litmus_advice advice;
	enum litmus_flag flag; /* check is */
	bool negated;          /* is not; differs */
	bool in_all;           /* ends in `in all` */
	char *counter;         /* check count NAME */
	enum litmus_event event;
	enum outcome outcome;
	int error; /* with FAILS, MAY_FAIL: errno value, LITMUS_SIGSEGV or LITMUS_SIGBUS */
};

/* Lanes that a block may have. */
#define LITMUS_LANES_MAX 64u

struct litmus {
	char *path;   /* as given */
	char *test;   /* file name without folder and `.litmus` */
	char *title;  /* never NULL */
	char **about; /* repeated lines */
	size_t nabout;
	char **source;
	size_t nsource;
	char *catches;  /* or NULL */
	unsigned needs; /* declared and implied, enum litmus_need */
	unsigned declared_needs;
	unsigned forks;  /* 0: all; else bits of fork modes */
	unsigned breaks; /* bits of policies */
	struct litmus_machine machine;
	struct name *names; /* names[0] is process A */
	size_t nnames;
	struct stmt *stmts; /* in the order of the file */
	size_t nstmts;      /* at least one */
	unsigned nblocks;   /* each has at least one lane, each lane at least one statement */
};

struct litmus_error {
	struct loc loc;
	char text[320];
};

/*
 * litmus_parse - parse @nbytes of @bytes, naming it @path in results.
 * Returns: 0 and *litmus; -EINVAL and *error (first error, line and column from 1); -ENOMEM (*error: 0:0 and a text).
 * Total: any bytes are safe, embedded NULs and invalid UTF-8 are errors with a place. Time and memory are linear in
 * @nbytes but for the names of `fork Kid * N`, which are at most 16384 in a test.
 */
int litmus_parse(const char *path, const char *bytes, size_t nbytes, struct litmus **litmus,
		 struct litmus_error *error);
/* litmus_parse_file - the same for a file; a file that cannot be read is -errno with error->loc 0:0 and a text. */
int litmus_parse_file(const char *path, struct litmus **litmus, struct litmus_error *error);
void litmus_free(struct litmus *litmus);

/* Words for messages and JSON. */
const char *litmus_need_name(unsigned need_bit);
const char *litmus_stmt_name(enum stmt_kind kind);
const char *litmus_event_name(enum litmus_event event);
const char *litmus_flag_name(enum litmus_flag flag);
/* litmus_error_name - "ENOMEM", "SIGSEGV"; never NULL. */
const char *litmus_error_name(int error);
/* litmus_is_check - whether @kind is one of the CHECK_ kinds or PEEK, which compares too (but may also fail). */
bool litmus_is_check(enum stmt_kind kind);

#endif
