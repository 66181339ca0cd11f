/* SPDX-License-Identifier: MIT */
/*
 * What a runner is asked and what it answers. Two runners: the engine (run_engine.c) and the live kernel
 * (run_kernel.c).
 */
#ifndef LITMUS_RUN_H
#define LITMUS_RUN_H

#include "litmus.h"

#include <ucow/machine.h>

enum verdict { VERDICT_PASS, VERDICT_BREAK, VERDICT_SKIP, VERDICT_ERROR };

struct run_options {
	enum ucow_policy policy;  /* engine only */
	enum ucow_fork_mode fork; /* engine only; never UCOW_FORK_DEFAULT here */
	uint64_t seed;            /* how long lanes wait before their statements */
	uint64_t ram_bytes;       /* engine only: where the test does not say; 0: 64 MiB */
	unsigned timeout_seconds; /* for one run; never 0 */
	int stop;                 /* a descriptor that becomes readable when the run must end at once; 0: none */
	bool in_process; /* engine only: in this process, for debuggers: no timeout, and a crash is everybody's */
};

/* A check that a runner could not make. */
struct skipped_check {
	unsigned line;
	char reason[120];
};
#define MAX_SKIPPED_CHECKS 64

struct run_result {
	enum verdict verdict;
	unsigned line;    /* break, error: of the statement; else 0 */
	char check[200];  /* break, error: the statement's text */
	char saw[200];    /* break: what was seen instead */
	char reason[200]; /* skip, error: why */
	unsigned checks;  /* checks that ran */
	unsigned skipped_checks;
	struct skipped_check skipped[MAX_SKIPPED_CHECKS]; /* the first of them */
};

/*
 * litmus_run_engine - run on a fresh machine with the given policy and fork mode.
 * After the last statement every process exits, every handle is released, the balance of frames, tables and references
 * and the whole-machine invariants are checked: a violation is VERDICT_ERROR.
 */
void litmus_run_engine(const struct litmus *litmus, const struct run_options *options, struct run_result *result);

/*
 * litmus_run_kernel - run on the live kernel with real processes. Never hangs: everything it started is ended when
 * @options->timeout_seconds have passed (VERDICT_ERROR, "timed out ...") or a participant crashed.
 */
void litmus_run_kernel(const struct litmus *litmus, const struct run_options *options, struct run_result *result);

/* litmus_kernel_possible - whether the kernel runner works here at all; else *reason says why not. */
bool litmus_kernel_possible(const char **reason);

/* litmus_judges - whether a check counts in this run (`in all`, modes, policies; docs/litmus.md, "Where checks count").
 * @on_kernel: policy and fork are ignored. */
bool litmus_judges(const struct litmus *litmus, const struct stmt *check, bool on_kernel, enum ucow_policy policy,
		   enum ucow_fork_mode fork);

/* litmus_expected - whether @verdict is what the file says: engine: break iff the policy is listed; kernel: no break,
 * a test that lists `exclusive` may pass or break there; skip is always expected, error never. Tests with `parallel`:
 * a listed policy may pass or break. */
bool litmus_expected(const struct litmus *litmus, bool on_kernel, enum ucow_policy policy, enum verdict verdict);

/* run_result_* - fill @result; the first break or error stays. */
void run_result_break(struct run_result *result, const struct stmt *stmt, const char *saw, ...)
	__attribute__((format(printf, 3, 4)));
void run_result_error(struct run_result *result, const struct stmt *stmt, const char *reason, ...)
	__attribute__((format(printf, 3, 4)));
void run_result_skip_check(struct run_result *result, const struct stmt *stmt, const char *reason, ...)
	__attribute__((format(printf, 3, 4)));

#endif
