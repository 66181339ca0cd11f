/* SPDX-License-Identifier: MIT */
/*
 * What a run on the live kernel sets up for tests under memory pressure: a swap file of its own, a place for memory
 * control groups, the same-page merger ready to be used. It is there once in a program; its processes inherit it.
 *
 * The order is plan, switches_hold() with facilities_undo() for its guardian, make; then undo, by whoever is left.
 */
#ifndef LITMUS_FACILITIES_H
#define LITMUS_FACILITIES_H

#include "switches.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct facilities {
	unsigned needs;      /* enum litmus_need */
	char swap_file[100]; /* our own; "": none */
	char groups[200];    /* the directory below which tests make their groups; "": none */
	char mount[100];     /* where the hierarchy of groups is mounted for this run alone; "": it was there */
	bool unified;        /* control groups of version 2 */
	char no_swap[120], no_groups[120], no_ksm[120]; /* why there is none; "": there is */
};

/*
 * facilities_plan - choose names for what tests with @needs may use, and say to @switches which files of the merger
 * change and who cleans up. Changes nothing on the machine. @facilities must live as long as @switches is held.
 */
void facilities_plan(struct facilities *facilities, unsigned needs, struct switches *switches);
/* facilities_make - make what was planned; what cannot be made says why in no_*. From here on it is held. */
void facilities_make(struct facilities *facilities);
/*
 * facilities_undo - give back the swap file, the groups and the mount of a struct facilities; what is gone already is
 * no error. Waits a while for processes that are about to end. Returns: 0; -errno of the last that is left behind.
 */
int facilities_undo(const void *facilities);

/* facilities_held - what this program holds; where it holds nothing, a struct that says so in its no_*. */
const struct facilities *facilities_held(void);
/* facilities_describe - what was made, in a few words, or "". */
void facilities_describe(const struct facilities *facilities, char *text, size_t size);

/*
 * facilities_settle - after a test with @needs, which may have been killed at any moment: swap is on again, and the
 * merger stopped. The caller holds the locks (below).
 */
void facilities_settle(unsigned needs);

/* ---- locks between runs of this program on one machine ---- */

/*
 * facilities_lock - wait until no other run uses the merger, if @needs has NEED_KSM, and until no other run switches
 * its swap off, if it has NEED_SWAP (@alone: until no other run uses swap). @stop: as in struct run_options.
 * Returns: 0, and @locks; -ETIMEDOUT, -EINTR (@stop), and none is held.
 */
struct facility_locks {
	int swap, ksm; /* -1: not held */
};
int facilities_lock(struct facility_locks *locks, unsigned needs, bool alone, int stop, uint64_t deadline_ns);
void facilities_unlock(struct facility_locks *locks);

#endif
