/* SPDX-License-Identifier: MIT */
/*
 * Two trees side by side. Whatever hangs at the same place in both is the same for both, so that the walk goes down
 * only where at least one of the two has changed something since they were one.
 */
#include "table/internal.h"

struct side_by_side {
	uint64_t start, end;
	table_diff_visit *visit;
	void *arg;
	uint64_t looked;
};

/* @a and @b, tables of @level or nothing, hang at @base. The recursion is as deep as there are levels [rule 7]. */
static int diff_below(struct side_by_side *diff, const struct table *a, const struct table *b, unsigned level,
		      uint64_t base)
{
	uint64_t from = max_u64(base, diff->start), to = min_u64(base + table_span(level), diff->end);
	int result = 0;

	if (a == b)
		return 0;
	diff->looked += (a != NULL) + (b != NULL);
	if (!level)
		return diff->visit(diff->arg, a, b, from, to);
	for (uint64_t va = from & ~(slot_span(level) - 1); !result && va < to; va += slot_span(level)) {
		unsigned slot = slot_of(level, va);

		result = diff_below(diff, a ? child_of(a, slot) : NULL, b ? child_of(b, slot) : NULL, level - 1, va);
	}
	return result;
}

int table_diff(const struct page_table *a, const struct page_table *b, uint64_t start, uint64_t end,
	       table_diff_visit *visit, void *arg, uint64_t *looked)
{
	struct side_by_side diff = {.start = start, .end = end, .visit = visit, .arg = arg};
	int result = 0;

	if (start < end)
		result = diff_below(&diff, atomic_load_explicit(&a->root, memory_order_acquire),
				    atomic_load_explicit(&b->root, memory_order_acquire), TABLE_ROOT_LEVEL, 0);
	*looked += diff.looked;
	return result;
}
