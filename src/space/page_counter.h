/* SPDX-License-Identifier: MIT */
/*
 * Counters of pages with limits, which may form a tree: what is charged to one counts in all above it. Pure: no locks,
 * no allocation; compiled and tested alone.
 */
#ifndef SPACE_PAGE_COUNTER_H
#define SPACE_PAGE_COUNTER_H

#include "base/sync.h"

#define PAGE_COUNTER_NO_LIMIT INT64_MAX

/* Signed: an account may be cleared before the charge has come in (space/group.h). */
struct page_counter {
	_Atomic int64_t usage, peak, limit;
	struct page_counter *parent; /* fixed; NULL: none */
};

void page_counter_init(struct page_counter *counter, struct page_counter *parent, int64_t limit);

/*
 * page_counter_try_charge - @n > 0 more, here and above, if that fits everywhere; else nothing. One that refuses is
 * *refused (may be NULL). Where several threads meet at the limit of an ancestor, one may be refused for a charge that
 * another is about to take back.
 */
bool page_counter_try_charge(struct page_counter *counter, int64_t n, struct page_counter **refused);
/* page_counter_charge - @n more (or, negative, less), whatever the limits say. */
void page_counter_charge(struct page_counter *counter, int64_t n);
/*
 * page_counter_uncharge - @n less; @counter itself comes last, for what it holds may be what keeps its ancestors alive.
 * Returns: what is left in @counter.
 */
int64_t page_counter_uncharge(struct page_counter *counter, int64_t n);

static inline int64_t page_counter_usage(const struct page_counter *counter)
{
	return atomic_load_explicit(&counter->usage, memory_order_relaxed);
}

static inline int64_t page_counter_peak(const struct page_counter *counter)
{
	return atomic_load_explicit(&counter->peak, memory_order_relaxed);
}

static inline int64_t page_counter_limit(const struct page_counter *counter)
{
	return atomic_load_explicit(&counter->limit, memory_order_relaxed);
}

/* page_counter_set_limit - for charges from now on; what is above it already stays. */
static inline void page_counter_set_limit(struct page_counter *counter, int64_t limit)
{
	atomic_store_explicit(&counter->limit, limit, memory_order_relaxed);
}

/* page_counter_fits - whether @counter itself has room for @n more now. */
static inline bool page_counter_fits(const struct page_counter *counter, int64_t n)
{
	return page_counter_usage(counter) <= page_counter_limit(counter) - n;
}

#endif
