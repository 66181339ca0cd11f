/* SPDX-License-Identifier: MIT */
/* A small number for the calling thread: the index of its frame cache, its counters, and its word of each epoch. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include "base/sync.h"

/*
 * Every living thread has a slot of its own while there are any; the rest share the last one. A slot is dealt again
 * when its thread has ended.
 */
/* What threads write side by side lies so far apart: processors fetch lines in pairs. */
#define THREAD_APART 128

#if exploring
#define THREAD_SLOTS 4
#else
#define THREAD_SLOTS 32
#endif
#define THREAD_SLOT_SHARED (THREAD_SLOTS - 1)

#if exploring
static inline unsigned thread_slot(void)
{
	return hook_lane();
}

static inline uint32_t thread_slots_alive(void)
{
	return ~(uint32_t)0;
}
#else
extern _Thread_local unsigned thread_slot_plus_one;
extern _Atomic uint32_t thread_slots_dealt;

unsigned thread_slot_assign(void);

/* thread_slot - 0 .. THREAD_SLOTS - 1, the same for the life of the thread. */
static inline unsigned thread_slot(void)
{
	if (unlikely(!thread_slot_plus_one))
		return thread_slot_assign();
	return thread_slot_plus_one - 1;
}

/* thread_slots_alive - the slots that have a thread now, one bit each. The shared one's is always set. */
static inline uint32_t thread_slots_alive(void)
{
	return atomic_load(&thread_slots_dealt);
}
#endif

#endif
