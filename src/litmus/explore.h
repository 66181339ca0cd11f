/* SPDX-License-Identifier: MIT */
/*
 * Exploring a test: what is asked, what comes out, and how that is shown. The explorer runs the engine's own code,
 * built with UCOW_EXPLORE, and tries the interleavings of the lanes of each `parallel` block.
 */
#ifndef LITMUS_EXPLORE_H
#define LITMUS_EXPLORE_H

#include "run.h"

enum explore_memory { EXPLORE_SC, EXPLORE_TSO };

#define EXPLORE_UNBOUNDED UINT32_MAX

struct explore_options {
	enum ucow_policy policy;
	enum ucow_fork_mode fork; /* never UCOW_FORK_DEFAULT here */
	enum explore_memory memory;
	uint32_t bound;   /* preemptions an interleaving may have; EXPLORE_UNBOUNDED: any number */
	uint64_t max;     /* interleavings; 0: no limit */
	uint64_t seconds; /* for one test; 0: no limit */
};

#define EXPLORE_NO_FRAME UINT64_MAX

/*
 * One step of a lane that others could see: steps on what only one lane touches, or lanes only look at, are not told.
 * --json gives lane, statement, step, saw, frame, and for --replay `block`, `at` and `flush`.
 */
struct explore_step {
	uint32_t lane;      /* of the block, from 0 */
	uint32_t at;        /* which of the lane's steps in the block, those counted that are not shown here */
	uint32_t statement; /* line in the file */
	uint32_t block;     /* which `parallel`, from 1 */
	bool flush;         /* not the lane's own code: the oldest store of its buffer reaches memory (tso) */
	bool stop;          /* not taken: where the lane stands when the schedule ends */
	bool preempts;      /* the lane before it could have run on */
	char what[120];     /* "lock table 0x200000 level 0", "load page 12 refs" */
	char saw[60];       /* "1025"; empty: nothing to tell */
	uint64_t frame;     /* number of the frame that it is about; or EXPLORE_NO_FRAME */
};

struct explore_result {
	const struct litmus *litmus; /* test and file are there */
	struct explore_options options;
	enum verdict verdict;   /* pass, break, skip, error */
	bool expected;          /* came out as the file says */
	bool complete;          /* nothing within the bound is left untried (a break ends the search: then false) */
	uint64_t interleavings; /* that were run, to their end or to a state that had been met */
	uint64_t states;        /* met; 0: the search was not by states */
	uint64_t steps;         /* in all of them */
	double took_seconds;
	unsigned line;    /* break, error: of the statement that failed; 0: no single one */
	char check[200];  /* its text; or what else was found: "deadlock", "livelock", "balance", "crash" */
	char saw[200];    /* what was seen instead */
	char reason[200]; /* skip, error: why */
	struct explore_step *schedule; /* break: the interleaving, step by step; allocated; else NULL */
	size_t nsteps;
};

/* What a schedule says about the choices, and no more: enough to run it again. */
struct explore_choice {
	uint32_t block, lane, at; /* of struct explore_step */
	bool flush, stop;
};

/* explore_exists - whether the engine has the policy in that fork mode. */
bool explore_exists(enum ucow_policy policy, enum ucow_fork_mode fork);
/* explore_test - try the interleavings. The result is to be cleared by explore_result_clear. Never fails: what goes
 * wrong is in the result. */
void explore_test(const struct litmus *litmus, const struct explore_options *options, struct explore_result *result);
/* explore_replay - one interleaving, as @choices say. A schedule that does not fit is VERDICT_ERROR. The steps are in
 * the result, whatever the verdict. */
void explore_replay(const struct litmus *litmus, const struct explore_options *options,
		    const struct explore_choice *choices, size_t nchoices, struct explore_result *result);
void explore_result_clear(struct explore_result *result);

/* ---- how results are shown (explore_report*.c) ---- */

struct explore_report {
	FILE *out;
	bool colour, unicode;
	const char *svg; /* file for the picture of the first finding, or NULL */
	struct explore_result *results;
	size_t nresults; /* so far */
};

/* Any member may be NULL; result is called after each test, end after the last. */
struct explore_format {
	void (*begin)(const struct explore_report *report);
	void (*result)(const struct explore_report *report, const struct explore_result *result);
	int (*end)(const struct explore_report *report); /* 0; -errno */
};
extern const struct explore_format explore_lines, explore_json;

/* explore_has_json - whether explore_json, and explore_read_finding, can be used in this build. */
bool explore_has_json(void);
/* explore_columns - a schedule as columns, a lane each. */
void explore_columns(const struct explore_report *report, const struct explore_result *result);
/* explore_svg - a picture of @result's schedule. Returns: 0; -errno. */
int explore_svg(const char *path, const struct explore_result *result);

/* What --replay needs of a file: one result object of the JSON output, or the whole output with one break in it. */
struct explore_finding {
	char *file; /* path of the test */
	struct explore_options options;
	struct explore_choice *choices;
	size_t nchoices;
};
/* explore_read_finding - Returns: 0; -EINVAL and a sentence in @why; -errno. */
int explore_read_finding(const char *path, struct explore_finding *finding, char *why, size_t size);
void explore_finding_clear(struct explore_finding *finding);

#endif
