/* SPDX-License-Identifier: MIT */
/* What the files of table/ share: the shape, slots, and the life of a table. Nothing outside table/ includes this. */
#ifndef TABLE_INTERNAL_H
#define TABLE_INTERNAL_H

#include "table/table.h"

#include <assert.h>
#include <errno.h>

/*
 * Fan-outs as bits, leaf first: 32, 16, 32, 16, 512, 512. A leaf spans 128 KiB, then 2 MiB, 64 MiB, 1 GiB, 512 GiB, and
 * the root 256 TiB. Small tables below and large ones above: copying one path touches few references. Nothing outside
 * table/ may depend on these numbers; here so that the compiler knows them.
 */
#if exploring
static const unsigned table_fanout_bits[TABLE_LEVELS] = {TABLE_LEAF_BITS, 4, 9};
/* Bits of address below one slot of a table, by level. */
static const unsigned table_slot_shift[TABLE_LEVELS] = {12, 17, 21};

static_assert(TABLE_LEAF_BITS + 4 + 9 + UCOW_PAGE_SHIFT == UCOW_ADDRESS_BITS, "the levels cover the address");
#else
static const unsigned table_fanout_bits[TABLE_LEVELS] = {TABLE_LEAF_BITS, 4, 5, 4, 9, 9};
static const unsigned table_slot_shift[TABLE_LEVELS] = {12, 17, 21, 26, 30, 39};

static_assert(TABLE_LEAF_BITS + 4 + 5 + 4 + 9 + 9 + UCOW_PAGE_SHIFT == UCOW_ADDRESS_BITS,
	      "the levels cover the address");
#endif
static_assert(TABLE_LEAF_BITS == 5, "the shifts fit the fan-outs");

static inline unsigned fanout_of(unsigned level)
{
	return 1u << table_fanout_bits[level];
}

static inline unsigned slot_of(unsigned level, uint64_t va)
{
	return (unsigned)(va >> table_slot_shift[level]) & ((1u << table_fanout_bits[level]) - 1);
}

static inline uint64_t slot_span(unsigned level)
{
	return (uint64_t)1 << table_slot_shift[level];
}

static inline struct table *child_of(const struct table *table, unsigned slot)
{
	return (struct table *)(uintptr_t)atomic_load_explicit(&table->slots[slot], memory_order_acquire);
}

/* One of a table's totals, which its lock guards, and which others read meanwhile. */
static inline uint16_t total_read(const _Atomic uint16_t *total)
{
	return atomic_load_explicit(total, memory_order_relaxed);
}

static inline void total_add(_Atomic uint16_t *total, int n)
{
	atomic_store_explicit(total, (uint16_t)(total_read(total) + n), memory_order_relaxed);
}

/* Requires: the table's lock, or that nobody else knows the table. */
static inline void set_child(struct table *table, unsigned slot, struct table *child)
{
	total_add(&table->used, !!child - !!child_of(table, slot));
	atomic_store_explicit(&table->slots[slot], (uint64_t)(uintptr_t)child, memory_order_release);
}

static inline struct pte slot_pte(const struct table *leaf, unsigned slot)
{
	return (struct pte){atomic_load_explicit(&leaf->slots[slot], memory_order_relaxed)};
}

static inline void table_get(struct table *table)
{
	uint32_t before = atomic_fetch_add_explicit(&table->refcount, 1, memory_order_relaxed);

	UCOW_BUG_ON(!before || before == UINT32_MAX);
	(void)before;
}

/* table_create - a table with one reference. With @reserve, from the reserve if there is no memory. Returns: NULL. */
struct table *table_create(struct table_pool *pool, unsigned level, bool reserve);
/*
 * The explorer's machine has families only if it has swap: nobody else looks at them, and the orders in which leaves
 * may join would all be explored.
 */
static inline bool has_families(const struct table_pool *pool)
{
	return !exploring || pool->swap;
}

/*
 * kin_found - a family of its own for a new leaf. Returns: 0; -ENOMEM.
 * kin_prepare - what @copy, a new leaf, needs to join the families of @like; with @reserve, from the reserve if there
 * is no memory. Returns: 0; -ENOMEM. kin_join - join them. Requires: the lock of @like. Returns: false: they have
 * become others meanwhile. kin_leave - @leaf leaves all: nobody refers to it.
 */
int kin_found(struct table_pool *pool, struct table *leaf);
int kin_prepare(struct table_pool *pool, struct table *copy, struct table *like, bool reserve);
/* kin_reserve_fill - set memberships aside, as far as there is memory. kin_reserve_empty - give them back. */
void kin_reserve_fill(struct table_pool *pool);
void kin_reserve_empty(struct table_pool *pool);
bool kin_join(struct table *copy, struct table *like);
void kin_leave(struct table_pool *pool, struct table *leaf);

/* table_put - drop a reference that is no path of its own (a moved or temporary one). */
void table_put(struct table_pool *pool, struct table *table);
/* table_drop_path - drop a reference through which a space sees what hangs below: its pages are unaccounted as well.
 * @tally may be NULL. */
void table_drop_path(struct table_pool *pool, struct table *table, struct drop_tally *tally);
/* table_reserve_fill - set tables aside for table_zap, as far as there is memory. */
void table_reserve_fill(struct table_pool *pool);

/*
 * own_child - make the child in @slot private: a copy of it if it is shared. @parent NULL: the root of @pt.
 * Requires: @parent has one reference, @slot is not empty; a section, or the mmap lock exclusively; no table lock.
 * Returns: the child to go on with; NULL: no memory.
 */
struct table *own_child(struct page_table *pt, struct table *parent, unsigned slot, bool reserve);

/* own_down_to - the table of @level that covers @va on a private path; made or copied like table_own_leaf. NULL: no
 * memory. */
struct table *own_down_to(struct page_table *pt, uint64_t va, unsigned level);

/* table_changed_shape - walks made before this call must not be continued or cached. */
static inline void table_changed_shape(struct page_table *pt)
{
	atomic_fetch_add_explicit(&pt->shape, 1, memory_order_release);
}

#endif
