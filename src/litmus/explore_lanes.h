/* SPDX-License-Identifier: MIT */
/*
 * Lanes as fibres, under the hooks of base/hook.h: what each does next, store buffers, sleepers, and the order in which
 * a search (explore_search.h) or a recorded schedule lets them go on.
 */
#ifndef LITMUS_EXPLORE_LANES_H
#define LITMUS_EXPLORE_LANES_H

#include "explore_search.h"
#include "explore_states.h"

#include "base/hook.h"

/* How a block ended. */
enum lanes_end {
	LANES_DONE,
	LANES_PRUNED,    /* what follows was tried elsewhere */
	LANES_DEADLOCK,  /* every lane that has not ended waits */
	LANES_LOST_WAKE, /* the same, and one of them sleeps for a wake-up */
	LANES_LIVELOCK,  /* a lane takes steps without end */
	LANES_MISFIT,    /* the schedule names a lane that cannot run */
};

/* A recorded choice: in which block (from 1), @proc, and for a lane which of its steps that was. */
struct lanes_choice {
	uint8_t proc;
	uint32_t block, at;
};

struct lanes_observer {
	/*
	 * After a choice, before its step. @kind, @object, @site: as at the hook; NULL site: the lane begins, or a
	 * flush.
	 */
	void (*step)(void *arg, const struct lanes_choice *choice, enum op_kind kind, bool waits,
		     const volatile void *object, const struct hook_site *site, bool preempts);
	/* After the last choice, for each other lane that has not ended: the step that it stands before. */
	void (*stop)(void *arg, const struct lanes_choice *choice, enum op_kind kind, bool waits,
		     const volatile void *object, const struct hook_site *site);
	void *arg;
};

/* What the lanes of this process run under. */
struct lanes_options {
	struct search *search; /* NULL: a schedule is followed */
	const struct lanes_choice *schedule;
	size_t nschedule;
	size_t nmade;    /* so many of them are followed; the others say where lanes stood when the schedule ended */
	bool every_step; /* also those on objects that only one lane touches (tests) */
	bool tso;
	/*
	 * add_memory - add to @sum all memory that decides how a run goes on, but for the lanes' stacks. With it, a run
	 * ends as LANES_PRUNED where it comes to a state that one has come to before. NULL: no state is remembered.
	 */
	void (*add_memory)(struct state_sum *sum);
	const struct lanes_observer *observer; /* NULL: nobody watches */
	/* Objects of @coarse bytes (a power of two) between these addresses; elsewhere each address is its own. */
	const char *coarse_start, *coarse_end;
	size_t coarse;
};

/* lanes_open - make room for the fibres. Returns: 0; -ENOMEM. */
int lanes_open(void);
/* lanes_begin_run - before each run. */
void lanes_begin_run(const struct lanes_options *options);
/* lanes_coarse - see lanes_options. */
void lanes_coarse(const void *start, size_t nbytes, size_t coarse);
/* lanes_run - run @n lanes, each @lane(@arg, number), until all have ended or cannot go on. */
enum lanes_end lanes_run(unsigned n, void (*lane)(void *arg, unsigned number), void *arg);
/* lanes_unfinished - whether @lane has not ended. */
bool lanes_unfinished(unsigned lane);
/* lanes_as - outside of a block: act as if @lane ran; -1: no lane. */
void lanes_as(int lane);
/* lanes_current - the running lane, or -1. */
int lanes_current(void);
/* lanes_within - whether a block is running. */
bool lanes_within(void);
/* lanes_followed - whether the schedule was used up. */
bool lanes_followed(void);

#endif
