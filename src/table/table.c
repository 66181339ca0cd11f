/* SPDX-License-Identifier: MIT */
/* The shape of the tables, their memory, and the walks. */
#include "table/table.h"

#include "base/mutate.h"

#include <errno.h>
#include <string.h>

/*
 * Fan-outs as bits, leaf first: 32, 16, 32, 16, 512, 512. A leaf spans 128 KiB, then 2 MiB, 64 MiB, 1 GiB, 512 GiB, and
 * the root 256 TiB. Small tables below and large ones above: copying one path touches few references. Nothing else in
 * the program may depend on these numbers.
 */
static const unsigned fanout_bits[TABLE_LEVELS] = {5, 4, 5, 4, 9, 9};
/* Bits of address below one slot of a table, by level. */
static const unsigned slot_shift[TABLE_LEVELS] = {12, 17, 21, 26, 30, 39};

static_assert(5 + 4 + 5 + 4 + 9 + 9 + UCOW_PAGE_SHIFT == UCOW_ADDRESS_BITS, "six levels cover the address");
static_assert(1 << 5 == TABLE_LEAF_MAX, "TABLE_LEAF_MAX is the leaf's fan-out");

unsigned table_fanout(unsigned level)
{
	return 1u << fanout_bits[level];
}

uint64_t table_span(unsigned level)
{
	return (uint64_t)1 << (slot_shift[level] + fanout_bits[level]);
}

static size_t table_bytes(unsigned level)
{
	return sizeof(struct table) + table_fanout(level) * sizeof(uint64_t);
}

static unsigned slot_of(unsigned level, uint64_t va)
{
	return (unsigned)(va >> slot_shift[level]) & (table_fanout(level) - 1);
}

/* ---- memory ---- */

void table_pool_init(struct table_pool *pool, struct inject *inject)
{
	for (unsigned level = 0; level < TABLE_LEVELS; level++)
		slab_init(&pool->slabs[level], table_bytes(level));
	pool->inject = inject;
	atomic_init(&pool->bytes, 0);
}

void table_pool_destroy(struct table_pool *pool)
{
	for (unsigned level = 0; level < TABLE_LEVELS; level++)
		slab_destroy(&pool->slabs[level]);
}

static struct table *table_create(struct table_pool *pool, unsigned level)
{
	struct table *table;

	if (inject_fails(pool->inject, UCOW_INJECT_TABLE))
		return NULL;
	table = slab_alloc(&pool->slabs[level]);
	if (!table)
		return NULL;
	atomic_init(&table->refcount, 1);
	table->level = (uint8_t)level;
	atomic_fetch_add_explicit(&pool->bytes, table_bytes(level), memory_order_relaxed);
	return table;
}

static void table_free(struct table_pool *pool, struct table *table)
{
	atomic_fetch_sub_explicit(&pool->bytes, table_bytes(table->level), memory_order_relaxed);
	slab_free(&pool->slabs[table->level], table);
}

struct table *table_root_create(struct table_pool *pool)
{
	return table_create(pool, TABLE_ROOT_LEVEL);
}

/* ---- slots ---- */

static struct table *child_of(const struct table *table, unsigned slot)
{
	return (struct table *)(uintptr_t)atomic_load_explicit(&table->slots[slot], memory_order_acquire);
}

static void set_child(struct table *table, unsigned slot, struct table *child)
{
	table->used = (uint16_t)(table->used + !!child - !!child_of(table, slot));
	atomic_store_explicit(&table->slots[slot], (uint64_t)(uintptr_t)child, memory_order_release);
}

void table_put(struct table_pool *pool, struct table *table)
{
	if (atomic_fetch_sub_explicit(&table->refcount, 1, memory_order_acq_rel) != 1)
		return;
	if (!table->level)
		UCOW_BUG_ON(table->used);
	else
		for (unsigned slot = 0; table->used && slot < table_fanout(table->level); slot++)
			if (child_of(table, slot)) {
				table_put(pool, child_of(table, slot));
				table->used--;
			}
	table_free(pool, table);
}

struct pte leaf_get(const struct table *leaf, uint64_t va)
{
	return (struct pte){atomic_load_explicit(&leaf->slots[slot_of(0, va)], memory_order_relaxed)};
}

/* The leaf's total that counts entries of this kind, or NULL: special memory is in no RSS. */
static uint16_t *total_of(struct table *leaf, struct pte pte)
{
	switch (pte_kind(pte)) {
	case PTE_KIND_ANON:
		return &leaf->anon;
	case PTE_KIND_SHARED:
		return &leaf->file;
	case PTE_KIND_NONE:
	case PTE_KIND_ZERO_PAGE:
	case PTE_KIND_PFN:
		break;
	}
	return NULL;
}

void leaf_set(struct table *leaf, uint64_t va, struct pte pte)
{
	struct pte old = leaf_get(leaf, va);
	uint16_t *less = total_of(leaf, old), *more = total_of(leaf, pte);

	if (less)
		(*less)--;
	if (more)
		(*more)++;
	leaf->used = (uint16_t)(leaf->used + !pte_is_none(pte) - !pte_is_none(old));
	atomic_store_explicit(&leaf->slots[slot_of(0, va)], pte.v, memory_order_relaxed);
}

/* ---- walks ---- */

struct table *table_find_leaf(struct table *root, uint64_t va)
{
	struct table *table = root;

	/* By depth, not by table->level, so that the loop unrolls into loads at constant shifts. */
	for (unsigned level = TABLE_ROOT_LEVEL; level && table; level--)
		table = child_of(table, slot_of(level, va));
	return table;
}

/* The child in @slot, made if missing. Allocation happens outside the lock; whoever installs first wins. */
static struct table *make_child(struct table_pool *pool, struct table *table, unsigned slot)
{
	struct table *made = table_create(pool, table->level - 1u), *child;

	if (!made)
		return NULL;
	table_lock(table);
	child = child_of(table, slot);
	if (!child)
		set_child(table, slot, made);
	table_unlock(table);
	if (!child)
		return made;
	table_put(pool, made);
	return child;
}

int table_make_leaf(struct table_pool *pool, struct table *root, uint64_t va, struct table **leaf)
{
	struct table *table = root;

	for (unsigned level = TABLE_ROOT_LEVEL; level; level--) {
		unsigned slot = slot_of(level, va);
		struct table *child = child_of(table, slot);

		if (!child)
			child = make_child(pool, table, slot);
		if (!child)
			return -ENOMEM;
		table = child;
	}
	*leaf = table;
	return 0;
}

struct table *table_next_leaf(struct table *root, uint64_t *va, uint64_t end)
{
	struct table *table = root;

	while (*va < end) {
		struct table *child = child_of(table, slot_of(table->level, *va));

		if (!child) {
			uint64_t step = (uint64_t)1 << slot_shift[table->level];

			*va = (*va & ~(step - 1)) + step;
			table = root;
		} else if (!child->level) {
			return child;
		} else {
			table = child;
		}
	}
	return NULL;
}

bool table_same_leaf(uint64_t a, uint64_t b)
{
	return (a ^ b) >> (slot_shift[0] + fanout_bits[0]) == 0;
}

uint64_t table_leaf_end(uint64_t va, uint64_t end)
{
	return min_u64((va & ~(table_span(0) - 1)) + table_span(0), end);
}

static void free_empty_below(struct table_pool *pool, struct table *table, uint64_t base, uint64_t start, uint64_t end)
{
	uint64_t step = (uint64_t)1 << slot_shift[table->level];

	for (unsigned slot = 0; table->used && slot < table_fanout(table->level); slot++) {
		uint64_t from = base + slot * step;
		struct table *child = child_of(table, slot);

		if (!child || from + step <= start || from >= end)
			continue;
		if (child->level)
			free_empty_below(pool, child, from, start, end);
		if (child->used)
			continue;
		table_lock(table);
		set_child(table, slot, NULL);
		table_unlock(table);
		table_put(pool, child);
	}
}

void table_free_empty(struct table_pool *pool, struct table *root, uint64_t start, uint64_t end)
{
	free_empty_below(pool, root, 0, start, end);
}

static int walk_below(struct table *table, uint64_t start, int (*visit)(void *, struct table *, uint64_t), void *arg)
{
	int result = visit(arg, table, start);

	if (!table->level)
		return result;
	for (unsigned slot = 0; !result && slot < table_fanout(table->level); slot++)
		if (child_of(table, slot))
			result = walk_below(child_of(table, slot), start + ((uint64_t)slot << slot_shift[table->level]),
					    visit, arg);
	return result;
}

int table_walk(struct table *root, int (*visit)(void *arg, struct table *table, uint64_t start), void *arg)
{
	return walk_below(root, 0, visit, arg);
}

static int add_totals(void *arg, struct table *table, uint64_t start)
{
	struct table_totals *totals = arg;

	(void)start;
	totals->bytes += table_bytes(table->level);
	totals->anon += table->anon;
	totals->file += table->file;
	totals->swap += table->swap;
	return 0;
}

void table_totals(struct table *root, struct table_totals *totals)
{
	*totals = (struct table_totals){0};
	table_walk(root, add_totals, totals);
}

/* ---- generations ---- */

void generations_init(struct generations *generations)
{
	for (unsigned i = 0; i < UCOW_TLB_REGIONS; i++)
		__atomic_store_n(&generations->of[i], 1, __ATOMIC_RELAXED);
}

void tlb_invalidate(struct generations *generations, uint64_t start, uint64_t end)
{
	uint64_t first = start >> UCOW_TLB_REGION_SHIFT, last = (end - 1) >> UCOW_TLB_REGION_SHIFT;

	if (end <= start || MUTATED(SKIP_TLB_BUMP))
		return;
	if (last - first >= UCOW_TLB_REGIONS)
		last = first + UCOW_TLB_REGIONS - 1;
	for (uint64_t region = first; region <= last; region++)
		__atomic_fetch_add(&generations->of[region & (UCOW_TLB_REGIONS - 1)], 1, __ATOMIC_SEQ_CST);
}
