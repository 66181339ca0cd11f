/* SPDX-License-Identifier: MIT */
/*
 * What processes may still do from a state on: sets of accesses, an access being a process, an object, and how it is
 * touched. A search by states asks them whether a step could have come after another one's.
 */
#ifndef LITMUS_EXPLORE_FUTURE_H
#define LITMUS_EXPLORE_FUTURE_H

#include "explore_search.h"

/* Sets are bits; the first stands for "anything". */
#define FUTURE_WORDS 128

/* Numbers of sets that were stored. */
#define FUTURE_NOTHING  0u
#define FUTURE_ANYTHING 1u
#define FUTURE_OPEN     UINT32_MAX /* not known yet */

struct future {
	uint64_t words[FUTURE_WORDS];
};

/* Locks that a process holds, as numbers of sets of them; 0: none. */
#define FUTURE_NO_LOCKS 0u
/* future_hold / future_release - Returns: @locks with the lock of that number, or without it. */
uint16_t future_hold(uint16_t locks, uint32_t lock, bool alone);
uint16_t future_release(uint16_t locks, uint32_t lock);
/* future_excludes - whether nobody can have @one while somebody else has @other. */
bool future_excludes(uint16_t one, uint16_t other);

/* future_open - make room. Returns: 0; -ENOMEM. */
int future_open(void);
/* future_forget - all stored sets. */
void future_forget(void);
/* future_clear / future_add - no access; one more: @proc does @op. */
void future_clear(struct future *future);
void future_add(struct future *future, unsigned proc, const struct op *op);
/* future_join - add all of @other, and of the stored set @number. */
void future_join(struct future *future, const struct future *other);
void future_join_stored(struct future *future, uint32_t number);
/*
 * future_races - whether @proc may do something in @future that depends on @op and can come before it: not what it
 * does with a lock that @op's process has. @barred: none of those who wait for a
 * condition of @op's object could go on before @op.
 */
bool future_races(const struct future *future, unsigned proc, const struct op *op, bool barred);
/*
 * future_seen / future_expects - a guess at futures that are not known yet: @proc has done @op when its lane was at
 * @position; whether one that is at @position may come to do something that depends on @op.
 */
void future_seen(unsigned proc, const struct op *op, uint64_t position);
bool future_expects(unsigned proc, uint64_t position, const struct op *op);
/* future_store - Returns: a number, of an equal set if there is one. */
uint32_t future_store(const struct future *future);

#endif
