/* SPDX-License-Identifier: MIT */
/* What the scan for written pages needs of the tables: many leaves, one line of each. */
#include "table/internal.h"

#define BLOCK_LEVEL 1

static_assert(TABLE_BLOCK_LEAVES == 1 << 4, "the fan-out above the leaves");

void table_block(const struct page_table *pt, uint64_t va, struct table_block *block)
{
	struct table *table = atomic_load_explicit(&pt->root, memory_order_acquire);

	block->is_private = !table_is_shared(table);
	for (unsigned level = TABLE_ROOT_LEVEL; level > BLOCK_LEVEL && table; level--) {
		table = child_of(table, slot_of(level, va));
		block->is_private = block->is_private && table && !table_is_shared(table);
	}
	block->exists = table;
	for (unsigned slot = 0; slot < TABLE_BLOCK_LEAVES; slot++) {
		block->leaves[slot] = table ? child_of(table, slot) : NULL;
		__builtin_prefetch(block->leaves[slot]);
	}
}

void leaf_protect(struct table *leaf, uint32_t slots)
{
	table_lock(leaf);
	for (uint32_t left = slots; left; left &= left - 1) {
		unsigned slot = (unsigned)__builtin_ctz(left);
		struct pte pte = slot_pte(leaf, slot);

		if (unlikely(pte_is_none(pte))) {
			total_add(&leaf->used, 1);
			pte = pte_make_wp_marker();
		}
		atomic_store_explicit(&leaf->slots[slot], pte_mk_uffd_wp(pte).v, memory_order_release);
	}
	atomic_store_explicit(&leaf->uffd_wp, leaf_wp_mask(leaf) | slots, memory_order_relaxed);
	table_unlock(leaf);
}
