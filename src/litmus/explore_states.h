/* SPDX-License-Identifier: MIT */
/*
 * The states that a search has met. A state is everything that decides how a run can go on: the memory of the engine
 * and of the runner, and where each lane stands. Two runs that have come to one state go on alike, so the second need
 * not go on at all.
 */
#ifndef LITMUS_EXPLORE_STATES_H
#define LITMUS_EXPLORE_STATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A sum of parts: in which order they are added does not matter. */
struct state_sum {
	uint64_t low, high;
};

/* states_are_built - whether the build has what it takes (xxhash). */
bool states_are_built(void);
/* states_open - make room. Returns: 0; -ENOMEM. */
int states_open(void);
/* states_forget - all of them. */
void states_forget(void);
/* states_add_part - add @nbytes at @bytes, which stand for part number @number, to @sum. */
void states_add_part(struct state_sum *sum, uint64_t number, const void *bytes, size_t nbytes);
/*
 * states_meet - note that a run has come to @sum. Returns: whether one had before, with its future in
 * *future (FUTURE_OPEN: not closed yet). Two states pass for one with a
 * probability of 2^-127 a pair.
 */
bool states_meet(const struct state_sum *sum, uint32_t *future);
/* states_close - all that can follow @sum was tried: @future is the number of what processes did (explore_future.h). */
void states_close(const struct state_sum *sum, uint32_t future);
/* states_full - whether no more can be noted: a search that goes on may meet them again. */
bool states_full(void);
/* states_count - how many were met. */
uint64_t states_count(void);

#endif
