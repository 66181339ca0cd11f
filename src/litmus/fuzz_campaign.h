/* SPDX-License-Identifier: MIT */
/*
 * A fuzzing campaign: many programs of one seed on all cpus, what came of them, and the files of what diverged.
 *
 * Program number i depends on the seed of the campaign and i alone, not on who runs it when.
 */
#ifndef LITMUS_FUZZ_CAMPAIGN_H
#define LITMUS_FUZZ_CAMPAIGN_H

#include "fuzz_coverage.h"
#include "fuzz_noise.h"

struct campaign_totals {
	uint64_t programs, operations; /* that all subjects did; those that diverged to where they did */
	uint64_t divergences;          /* programs with one, but for noise */
	uint64_t unjudged;             /* programs of which a reference could not do its part */
	uint64_t noise[FUZZ_NOISE_ROOM];
	/* What memory that is short made the first engine do, how often and in how many programs. */
	uint64_t tally[FUZZ_TALLIES], tallied[FUZZ_TALLIES];
	double seconds;
};

/* Where subjects and noise come from: tests have their own. */
struct campaign_court {
	int (*open)(enum fuzz_against against, struct fuzz_court *court, char *why, size_t size);
	int (*noise)(struct fuzz_court *court, const struct fuzz_test *test, const struct fuzz_divergence *divergence);
};
extern const struct campaign_court campaign_real_court;

struct campaign_options {
	uint64_t seed;
	uint64_t first, programs; /* numbers first..first + programs - 1 */
	unsigned ops;             /* of each */
	enum fuzz_against against;
	unsigned pressure;       /* against the kernel: what it can have of FUZZ_P_* */
	unsigned shard, nshards; /* only those with number % nshards == shard */
	unsigned workers;        /* 0: one a cpu */
	unsigned seconds;        /* 0: as long as it takes */
	uint64_t most;           /* divergences: begin nothing after so many; 0: no matter how many */
	unsigned hang_ms;        /* so long without progress is a hang */
	unsigned shrink_ms;      /* so long a program is made smaller at most */
	const char *save;        /* folder for files; made when the first comes */
	int stop;                /* a descriptor that becomes readable when all must end; 0: none */
	const struct campaign_court *court;
	void (*progress)(const struct campaign_totals *totals, void *arg); /* several times a second; or NULL */
	void *progress_arg;
};

/* A divergence that has its file, or could not get one. */
struct campaign_finding {
	uint64_t number, seed; /* of the program that showed it first */
	double seconds;        /* when */
	struct fuzz_divergence divergence;
	bool repeats;    /* it came again, and has been made smaller */
	char path[1000]; /* empty: not saved, and `problem` tells why */
	char problem[80];
	char said[1000]; /* what the process wrote on stderr before it crashed */
};

enum { CAMPAIGN_FINDINGS = 64 };

struct campaign_result {
	struct campaign_totals totals;
	struct fuzz_pairs pairs;
	struct campaign_finding findings[CAMPAIGN_FINDINGS];
	unsigned nfindings;
	uint64_t same;      /* divergences that became a program that is saved already */
	uint64_t left;      /* that were only counted: many of the kind are there, or all had to end */
	char unjudged[160]; /* why, of one of them */
	bool stopped;       /* by options->stop */
	bool out_of_time;   /* by options->seconds */
	bool enough;        /* by options->most */
	unsigned workers;
};

/*
 * fuzz_campaign - run it. All processes that it started are gone when it returns.
 * Returns: 0; -errno if it could not go on, and @why.
 */
int fuzz_campaign(const struct campaign_options *options, struct campaign_result *result, char *why, size_t size);

/* campaign_size - how many programs the shard has. */
uint64_t campaign_size(const struct campaign_options *options);
/* campaign_number - the number of the shard's program @i, from 0. */
uint64_t campaign_number(const struct campaign_options *options, uint64_t i);

/* fuzz_program_seed - the seed for fuzz_generate() of program @number. */
uint64_t fuzz_program_seed(uint64_t campaign, uint64_t number);

/* ---- reports (fuzz_report.c, fuzz_json.c) ---- */

void campaign_report(FILE *out, const struct campaign_options *options, const struct campaign_result *result,
		     bool quiet);
/* fuzz_tally_name - in words. */
const char *fuzz_tally_name(enum fuzz_tally tally);
/* campaign_json - Returns: 0; -errno; -EOPNOTSUPP in a build without jansson. */
int campaign_json(FILE *out, const struct campaign_options *options, const struct campaign_result *result);
bool campaign_has_json(void);
const char *campaign_against_name(enum fuzz_against against);

#endif
