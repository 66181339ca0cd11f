/* SPDX-License-Identifier: MIT */
/*
 * Scheduling hooks: the places where the explorer may let another lane run. In every build but the explorer's
 * (UCOW_EXPLORE) they are empty and cost nothing.
 *
 * What a hook announces happens right after it and before the lane's next hook, as one step. Whatever the code does
 * between two hooks is therefore atomic for the explorer: all that threads do to one another must be announced.
 */
#ifndef BASE_HOOK_H
#define BASE_HOOK_H

#include "base/base.h"

/* What a step does to its object. Two steps on one object commute if both are loads, or both additions. */
enum hook_kind {
	HOOK_LOAD,
	HOOK_STORE,
	HOOK_ADD,      /* a locked addition whose result nobody looks at */
	HOOK_UPDATE,   /* any other locked read-modify-write */
	HOOK_FENCE,    /* a full fence of the calling lane; no object */
	HOOK_EXPEDITE, /* membarrier: a full fence of every lane; no object */
};

/* hook_ready - whether a lane that waits for @object may go on. Looks at memory, changes nothing. */
typedef bool hook_ready(const volatile void *object, uintptr_t arg);

#if defined(UCOW_EXPLORE) && UCOW_EXPLORE
#define exploring 1
/* hook_step - the lane is about to do @kind to @object. */
void hook_step(enum hook_kind kind, const volatile void *object);
/* hook_await - as hook_step, but the lane runs on only when @ready holds; what it then does is one step with the test.
 */
void hook_await(enum hook_kind kind, const volatile void *object, hook_ready *ready, uintptr_t arg);
/*
 * hook_store - a plain store of a lettered protocol word (docs/concurrency.md): with --memory tso it goes through the
 * lane's store buffer.
 */
void hook_store(volatile void *object, uint64_t value, size_t nbytes);
/* hook_quiet_begin / hook_quiet_end - between them steps are no choices (allocator caches, statistics). Nests. */
void hook_quiet_begin(void);
void hook_quiet_end(void);
/* hook_lane - the running lane's number; 0 outside of a parallel block. */
unsigned hook_lane(void);
#else
#define exploring 0
static inline void hook_step(enum hook_kind kind, const volatile void *object)
{
	(void)kind;
	(void)object;
}
static inline void hook_quiet_begin(void)
{
}
static inline void hook_quiet_end(void)
{
}
#endif

#endif
