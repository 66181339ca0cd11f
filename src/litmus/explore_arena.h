/* SPDX-License-Identifier: MIT */
/*
 * All memory of a run, at one address, and putting it back: the engine's (base/host.h, which is implemented here in
 * this build) and the runner's own.
 */
#ifndef LITMUS_EXPLORE_ARENA_H
#define LITMUS_EXPLORE_ARENA_H

#include "explore_states.h"

#include <stdbool.h>
#include <stddef.h>

/* arena_open - Returns: 0; -ENOMEM. Once a process. */
int arena_open(void);
/* arena_snapshot - remember what the arena holds now. */
void arena_snapshot(void);
/* arena_restore - put it back. */
void arena_restore(void);
/* arena_fault - whether a bad access at @address was the first store to a page since the snapshot; then it may go on.
 * For handlers of SIGSEGV. */
bool arena_fault(void *address);
/* arena_leave_out - what decides nothing, and adds nothing to a state; before the snapshot, once. */
void arena_leave_out(const void *start, size_t nbytes);
/* arena_add - add what the arena holds now to @sum. */
void arena_add(struct state_sum *sum);
/* arena_holds - whether @address lies in the arena. */
bool arena_holds(const void *address);

/* calloc, realloc, free of the runner: in the arena while there is one. */
void *arena_calloc(size_t n, size_t nbytes);
void *arena_realloc(void *memory, size_t nbytes);
void arena_free(void *memory);

#endif
