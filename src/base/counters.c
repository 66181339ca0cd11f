/* SPDX-License-Identifier: MIT */
/* Sums and names of counters. */
#include "base/counters.h"

uint64_t counters_sum(const struct counters *counters, enum ucow_counter counter)
{
	uint64_t sum = 0;

	for (unsigned slot = 0; slot < THREAD_SLOTS; slot++)
		sum += atomic_load_explicit(&counters->slots[slot].value[counter], memory_order_relaxed);
	return sum;
}

const char *ucow_counter_name(enum ucow_counter counter)
{
	static const char *const names[] = {
#define UCOW_COUNTER(id, name, meaning) [UCOW_COUNTER_##id] = name,
#include <ucow/counters.inc>
#undef UCOW_COUNTER
	};

	return (unsigned)counter < UCOW_COUNTER_COUNT ? names[counter] : NULL;
}
