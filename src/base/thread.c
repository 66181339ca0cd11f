/* SPDX-License-Identifier: MIT */
/* Thread slots, dealt in turn; the slot of a thread that has ended is not dealt again. */
#include "base/thread.h"

#include "base/sync.h"

_Thread_local unsigned thread_slot_plus_one;
static _Atomic unsigned next_slot;

unsigned thread_slot_assign(void)
{
	unsigned slot = atomic_load_explicit(&next_slot, memory_order_relaxed);

	while (slot < THREAD_SLOT_SHARED &&
	       !atomic_compare_exchange_weak_explicit(&next_slot, &slot, slot + 1, memory_order_relaxed,
						      memory_order_relaxed))
		;
	thread_slot_plus_one = slot + 1;
	return slot;
}
