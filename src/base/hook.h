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
/* Whether steps are choices now: lanes run, and the running one is not quiet. */
extern bool hook_live;

/* The source's own words for a step, for people: the expression that names the object, and the function. */
struct hook_site {
	const char *expression, *function;
	size_t nbytes; /* of the object; 0: not known */
};
void hook_step_at(enum hook_kind kind, const volatile void *object, const struct hook_site *site);
void hook_await_at(enum hook_kind kind, const volatile void *object, hook_ready *ready, uintptr_t arg,
		   const struct hook_site *site);
void hook_store_at(volatile void *object, uint64_t value, size_t nbytes, const struct hook_site *site);
/* An atomic store: as hook_store where stores wait in the lane's buffer already, else at once. */
void hook_sync_store_at(volatile void *object, uint64_t value, size_t nbytes, const struct hook_site *site);
uint64_t hook_load_at(const volatile void *object, size_t nbytes, const struct hook_site *site);
#define HOOK_SITE(expression, nbytes) (&(const struct hook_site){#expression, __func__, nbytes})

/* hook_step - the lane is about to do @kind to @object. */
#define hook_step(kind, object)                                           \
	do {                                                              \
		if (hook_live)                                            \
			hook_step_at(kind, object, HOOK_SITE(object, 0)); \
	} while (0)
/* hook_await - as hook_step, but the lane runs on only when @ready holds; what it then does is one step with the test.
 */
#define hook_await(kind, object, ready, arg) hook_await_at(kind, object, ready, arg, HOOK_SITE(object, 0))
/*
 * hook_store - a plain store of a lettered protocol word (docs/concurrency.md), or of a program: with --memory tso it
 * goes through the lane's store buffer.
 */
#define hook_store(object, value, nbytes) hook_store_at(object, value, nbytes, HOOK_SITE(object, nbytes))
/* hook_load - a load that may meet what the lane has in its store buffer. */
#define hook_load(object, nbytes) hook_load_at(object, nbytes, HOOK_SITE(object, nbytes))
/* hook_quiet_begin / hook_quiet_end - between them steps are no choices (allocator caches, statistics). Nests. */
void hook_quiet_begin(void);
void hook_quiet_end(void);
/*
 * hook_hold / hook_release - the lane's last step took @lock, alone or together with others that share it; its last
 * step gave it back. No steps: they tell the explorer what cannot happen meanwhile.
 */
void hook_hold(const volatile void *lock, bool alone);
void hook_release(const volatile void *lock);
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
static inline void hook_hold(const volatile void *lock, bool alone)
{
	(void)lock;
	(void)alone;
}
static inline void hook_release(const volatile void *lock)
{
	(void)lock;
}
#endif

#endif
