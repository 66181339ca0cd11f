/* SPDX-License-Identifier: MIT */
/* Thread slots: dealt at a thread's first need, taken back by a destructor of thread-specific data when it ends. */
#include "base/thread.h"

#include <pthread.h>

#define SLOT_BIT(slot) ((uint32_t)1 << (slot))

_Thread_local unsigned thread_slot_plus_one;
_Atomic uint32_t thread_slots_dealt = SLOT_BIT(THREAD_SLOT_SHARED);

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_works;

/* Destructors of later rounds may call the engine again: they find no slot and are dealt one anew. */
static void slot_return(void *value)
{
	unsigned slot = (unsigned)((uintptr_t)value - 1);

	thread_slot_plus_one = 0;
	atomic_fetch_and(&thread_slots_dealt, ~SLOT_BIT(slot));
}

static void key_make(void)
{
	key_works = !pthread_key_create(&key, slot_return);
}

static unsigned lowest_free(uint32_t dealt)
{
	return ~dealt ? (unsigned)__builtin_ctz(~dealt) : THREAD_SLOT_SHARED;
}

unsigned thread_slot_assign(void)
{
	uint32_t dealt = atomic_load(&thread_slots_dealt);
	unsigned slot;

	pthread_once(&key_once, key_make);
	do
		slot = lowest_free(dealt);
	while (slot != THREAD_SLOT_SHARED &&
	       !atomic_compare_exchange_weak(&thread_slots_dealt, &dealt, dealt | SLOT_BIT(slot)));
	/* Without the key the slot stays this thread's for good. */
	if (slot != THREAD_SLOT_SHARED && key_works)
		(void)pthread_setspecific(key, (void *)(uintptr_t)(slot + 1));
	thread_slot_plus_one = slot + 1;
	return slot;
}
