/* SPDX-License-Identifier: MIT */
/* A small number for the calling thread: the index of its frame cache and of its counters. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include "base/base.h"

/* Each of the first threads has a slot of its own; all later ones share the last. */
#define THREAD_SLOTS       32
#define THREAD_SLOT_SHARED (THREAD_SLOTS - 1)

extern _Thread_local unsigned thread_slot_plus_one;

unsigned thread_slot_assign(void);

/* thread_slot - 0 .. THREAD_SLOTS - 1, the same for the life of the thread. */
static inline unsigned thread_slot(void)
{
	if (unlikely(!thread_slot_plus_one))
		return thread_slot_assign();
	return thread_slot_plus_one - 1;
}

#endif
