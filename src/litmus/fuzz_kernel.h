/* SPDX-License-Identifier: MIT */
/*
 * The live kernel as a subject of differential fuzzing, as fuzz_kernel.c (statements) and fuzz_kernel_look.c (what is
 * seen after each) share it. The calling process is the supervisor of kernel.h; it and all participants stay on one
 * cpu.
 */
#ifndef LITMUS_FUZZ_KERNEL_H
#define LITMUS_FUZZ_KERNEL_H

#include "facilities.h"
#include "fuzz.h"
#include "kernel.h"

/* All regions of a test lie in a window of this many pages, each with a hole behind it. */
enum { WINDOW_PAGES = 2 * FUZZ_PAGES };

/* What one participant maps in the window, and the open files of /proc that tell. */
struct kernel_gaze {
	pid_t pid; /* whose they are; 0: not open */
	int pagemap, mem, maps;
	uint8_t areas[WINDOW_PAGES]; /* AREA_*, as it was seen last */
	uint64_t entries[WINDOW_PAGES];
};
enum { AREA_MAPPED = 1 << 0, AREA_SHARED = 1 << 1 /* or of a file: only a load tells what is there */ };

struct fuzz_kernel {
	struct fuzz_subject subject;
	struct fuzz_subject_type type;
	struct kernel_participant template; /* process A of every test is its fork */
	const struct fuzz_test *test;       /* NULL between tests */
	struct kernel_run run;
	struct run_options options;
	struct run_result result;
	struct facility_locks locks; /* while a test merges pages */
	uint64_t window;
	int vmstat;        /* -1: not readable */
	uint64_t migrated; /* pages that the kernel had moved, or tried to, when the test began */
	void *scratch;     /* a page that is never touched */
	struct kernel_gaze gazes[FUZZ_PROCESSES];
	struct fuzz_file files[FUZZ_FILES]; /* as they were read last */
	struct agent_reply reply;
	_Alignas(KERNEL_PAGE) unsigned char buffer[WINDOW_PAGES * KERNEL_PAGE];
};

/* fuzz_kernel_fail - the subject itself went wrong: tell in the run's result. Returns: -@error. */
int fuzz_kernel_fail(struct fuzz_kernel *kernel, int error, const char *what, ...)
	__attribute__((format(printf, 3, 4)));

/* fuzz_kernel_sees - what can be seen here. */
unsigned fuzz_kernel_sees(const struct kernel_eyes *eyes);
/* fuzz_kernel_look - everything but the outcome, after statement @at. Returns: 0; -errno. */
int fuzz_kernel_look(struct fuzz_kernel *kernel, size_t at, struct fuzz_view *view);
/* fuzz_kernel_areas - AREA_* of page @page of the window as process @process of the layout maps it. */
unsigned fuzz_kernel_area(const struct fuzz_kernel *kernel, int process, uint64_t page);
/* fuzz_kernel_look_away - close what is open of process @process of the layout. */
void fuzz_kernel_look_away(struct fuzz_kernel *kernel, unsigned process);

/*
 * fuzz_kernel_migrates - whether the kernel has moved pages of anybody from one frame to another, or has tried to,
 * since the last test of @subject, which is a kernel, began.
 */
bool fuzz_kernel_migrates(struct fuzz_subject *subject);

#endif
