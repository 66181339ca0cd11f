/* SPDX-License-Identifier: MIT */
/* The machine's counters (ucow/counters.inc), one copy a thread slot so that no fault touches a shared line. */
#ifndef BASE_COUNTERS_H
#define BASE_COUNTERS_H

#include "base/sync.h"
#include "base/thread.h"

#include <ucow/machine.h>

struct counter_slot {
	_Atomic uint64_t value[UCOW_COUNTER_COUNT];
} __attribute__((aligned(THREAD_APART)));

struct counters {
	struct counter_slot slots[THREAD_SLOTS];
};

/* A slot of one's own needs no locked addition: a load and a store, atomic for the readers' sake. */
static inline void count_add(struct counters *counters, enum ucow_counter counter, uint64_t n)
{
	unsigned slot = thread_slot();
	_Atomic uint64_t *value = &counters->slots[slot].value[counter];

	/* Additions commute, so for the explorer they are no steps. */
	if (exploring)
		*value += n;
	else if (likely(slot != THREAD_SLOT_SHARED))
		atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + n,
				      memory_order_relaxed);
	else
		atomic_fetch_add_explicit(value, n, memory_order_relaxed);
}

static inline void count(struct counters *counters, enum ucow_counter counter)
{
	count_add(counters, counter, 1);
}

uint64_t counters_sum(const struct counters *counters, enum ucow_counter counter);

#endif
