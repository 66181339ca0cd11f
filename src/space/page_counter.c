/* SPDX-License-Identifier: MIT */
/* Charging counters and what is above them. */
#include "space/page_counter.h"

#include "base/mutate.h"

void page_counter_init(struct page_counter *counter, struct page_counter *parent, int64_t limit)
{
	atomic_init(&counter->usage, 0);
	atomic_init(&counter->peak, 0);
	atomic_init(&counter->limit, limit);
	counter->parent = parent;
}

static void note_peak(struct page_counter *counter, int64_t usage)
{
	int64_t peak = page_counter_peak(counter);

	while (usage > peak && !atomic_compare_exchange_weak_explicit(&counter->peak, &peak, usage,
								      memory_order_relaxed, memory_order_relaxed))
		;
}

/* Compare and exchange, so that nobody ever sees more than the limit, and no thread is refused for another's attempt.
 */
static bool try_charge_one(struct page_counter *counter, int64_t n)
{
	int64_t usage = page_counter_usage(counter);

	do {
		if (usage > page_counter_limit(counter) - n)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&counter->usage, &usage, usage + n, memory_order_relaxed,
							memory_order_relaxed));
	note_peak(counter, usage + n);
	return true;
}

bool page_counter_try_charge(struct page_counter *counter, int64_t n, struct page_counter **refused)
{
	for (struct page_counter *at = counter; at; at = at->parent) {
		if (likely(try_charge_one(at, n)))
			continue;
		if (MUTATED(LIMIT_IGNORES_ANCESTORS) && at != counter) {
			page_counter_charge(at, n);
			return true;
		}
		for (struct page_counter *back = counter; back != at; back = back->parent)
			atomic_fetch_sub(&back->usage, n);
		if (refused)
			*refused = at;
		return false;
	}
	return true;
}

void page_counter_charge(struct page_counter *counter, int64_t n)
{
	for (; counter; counter = counter->parent)
		note_peak(counter, atomic_fetch_add_explicit(&counter->usage, n, memory_order_relaxed) + n);
}

int64_t page_counter_uncharge(struct page_counter *counter, int64_t n)
{
	for (struct page_counter *above = counter->parent; above; above = above->parent)
		atomic_fetch_sub_explicit(&above->usage, n, memory_order_relaxed);
	/* In one order with the state that its owner looks at when nothing is left (memcg.c). */
	return atomic_fetch_sub(&counter->usage, n) - n;
}
