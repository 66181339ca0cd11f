/* SPDX-License-Identifier: MIT */
/*
 * The processes of a campaign. All are children of the campaign's own process, one at a time at each desk: memory that
 * both share. Whatever happens to a child, the desk tells how far it was.
 *
 *   work ──found──> shrink ──> save ──> work ...
 *     └──crash, hang──┘
 *
 * What crashes while a program is made smaller is the judge, a child of the shrinker.
 */
#ifndef LITMUS_FUZZ_WORKER_H
#define LITMUS_FUZZ_WORKER_H

#include "fuzz_campaign.h"

#include <stdatomic.h>
#include <sys/types.h>

enum desk_state {
	DESK_BUSY,   /* a child that ends so has crashed */
	DESK_DONE,   /* no program is left */
	DESK_FOUND,  /* `program` and `divergence` are a finding */
	DESK_SHRUNK, /* and are as small as they get */
	DESK_SAVED,  /* to `path`, or not, and `why` */
	DESK_FAILED, /* no court can be opened, and `why` */
};

struct fuzz_desk {
	_Atomic enum desk_state state;
	_Atomic uint64_t beats;  /* changes with whatever is done */
	_Atomic uint64_t place;  /* FUZZ_PLACE */
	_Atomic uint64_t number; /* of the program */
	_Atomic uint64_t programs, operations, unjudged, noise[FUZZ_NOISE_ROOM];
	_Atomic uint64_t tally[FUZZ_TALLIES], tallied[FUZZ_TALLIES]; /* as in struct campaign_totals */
	struct fuzz_pairs pairs;
	char names[4][16]; /* of the subjects */
	struct fuzz_program program;
	struct fuzz_divergence divergence;
	bool repeats;
	char path[1000], why[160], unjudged_why[160];
	/* Between shrinker and judge. */
	struct fuzz_program candidate;
	struct fuzz_divergence judged;
};

struct fuzz_hall {
	_Atomic uint64_t next; /* how many programs have been given out */
	_Atomic bool stop;     /* give out no more */
	_Atomic bool hurry;    /* leave programs as big as they are */
	struct fuzz_desk desks[];
};

enum worker_task { TASK_WORK, TASK_SHRINK, TASK_SAVE };

/* worker_main - do @task at @desk. Ends this process, a forked child. */
/* worker_generate - program @number of a campaign. */
void worker_generate(struct fuzz_program *program, const struct campaign_options *options, uint64_t number);
_Noreturn void worker_main(const struct campaign_options *options, struct fuzz_hall *hall, struct fuzz_desk *desk,
			   enum worker_task task);

/* worker_crash - what it is when a process ends, or does not, at what @desk tells. @how: for people. */
void worker_crash(const struct fuzz_desk *desk, bool hangs, const char *how, struct fuzz_divergence *divergence);

/* worker_how_ended - of a wait status, for people. */
void worker_how_ended(int status, char *how, size_t size);

/* now_ms - of the monotonic clock. */
uint64_t now_ms(void);

/* watch_child - a descriptor that is readable when @pid has ended; -1: this kernel has none. */
int watch_child(pid_t pid);

#endif
