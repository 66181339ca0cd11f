/* SPDX-License-Identifier: MIT */
/* Exploring one test: what the process that runs the engine (explore_run.c) tells the one that asked (explore.c). */
#ifndef LITMUS_EXPLORE_RUN_H
#define LITMUS_EXPLORE_RUN_H

#include "explore.h"
#include "explore_lanes.h"

enum explore_state {
	EXPLORE_RUNNING,  /* not over: if its process has ended, the engine has crashed */
	EXPLORE_FINISHED, /* nothing found */
	EXPLORE_FOUND,    /* the run that the search's nodes tell of failed */
	EXPLORE_SKIPPED,  /* the test cannot be run; the reason is in the result */
	EXPLORE_FAILED,   /* the explorer cannot go on; the same */
};

/* Shared by both. */
struct explore_shared {
	enum explore_state state;
	bool complete;
	bool engine_fault; /* what was found is wrong under every policy */
	uint64_t interleavings;
	uint64_t states;          /* met, where the search was by states */
	struct run_result result; /* of the run that failed */
	char bug[200];            /* what the engine said before it aborted */
	/* A schedule that was followed, and what was seen on the way. */
	uint32_t nchoices, nmade; /* see struct lanes_options */
	struct lanes_choice choices[SEARCH_NODES];
	uint32_t nsteps;
	struct explore_step steps[SEARCH_NODES];
	struct search search;
};

/* explore_run_all - search through the interleavings of @litmus. In a process of its own. */
void explore_run_all(const struct litmus *litmus, const struct explore_options *options, struct explore_shared *shared);
/* explore_run_one - follow the schedule in @shared. In a process of its own. */
void explore_run_one(const struct litmus *litmus, const struct explore_options *options, struct explore_shared *shared);
/* explore_run_machine - whether there is a machine with that policy and fork mode. In a process of its own. */
bool explore_run_machine(const struct explore_options *options);

#endif
