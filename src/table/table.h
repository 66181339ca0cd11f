/* SPDX-License-Identifier: MIT */
/*
 * Tables: the refcounted tree of six levels between a space's root and its entries, its walks, and the generations by
 * which cached translations are invalidated. The shape is known to table.c alone.
 */
#ifndef TABLE_TABLE_H
#define TABLE_TABLE_H

#include "base/slab.h"
#include "table/entry.h"

#include <ucow/access.h>

#define TABLE_LEVELS        6
#define TABLE_ROOT_LEVEL    (TABLE_LEVELS - 1)
#define TABLE_LEAF_MAX      32 /* entries of a leaf: for arrays that hold one leaf's worth */
#define TABLE_MAY_HOLD_REFS 1u /* hint: a get or a pin was taken below; such a table has one reference [rule 4] */

/*
 * (A) atomic (T) this table's lock (C) fixed after creation
 *
 * Slots hold pointers to tables of the next level, or entries at level 0. Slots are read without the lock (relaxed for
 * entries, acquire for tables) and written under it.
 */
struct table {
	_Atomic uint32_t refcount; /* (A) parent slots and roots that point here */
	struct spin lock;          /* LOCK_TABLE + depth */
	uint8_t level;             /* (C) 0: leaf */
	uint8_t hints;             /* (T) TABLE_MAY_HOLD_REFS */
	uint16_t used;             /* (T) slots that are not empty */
	uint16_t anon, file, swap; /* (T) level 0: entries by kind; an mm's RSS is their sum */
	struct list family;        /* reserved: the copies of one leaf, for the rmap */
	_Atomic uint64_t slots[];  /* (T) to write */
};

struct table_pool {
	struct slab slabs[TABLE_LEVELS];
	struct inject *inject;
	_Atomic uint64_t bytes; /* tables in use */
};

struct table_totals {
	uint64_t anon, file, swap, bytes;
};

void table_pool_init(struct table_pool *pool, struct inject *inject);
/* table_pool_destroy - Requires: no table in use. */
void table_pool_destroy(struct table_pool *pool);

/* table_root_create - an empty root with one reference. Returns: NULL: no memory. */
struct table *table_root_create(struct table_pool *pool);

/*
 * table_put - drop one reference; the last one frees the table and what hangs below it.
 * Requires: nothing below the last reference maps anything. Recursion is bounded by the levels [rule 7].
 */
void table_put(struct table_pool *pool, struct table *table);

/* table_find_leaf - the leaf that covers @va, or NULL. Requires: the mmap lock. */
struct table *table_find_leaf(struct table *root, uint64_t va);

/*
 * table_make_leaf - the leaf that covers @va; what is missing on the path is made.
 * Requires: the mmap lock (shared will do), no table lock. Returns: 0; -ENOMEM (tables made so far stay, empty).
 */
int table_make_leaf(struct table_pool *pool, struct table *root, uint64_t va, struct table **leaf);

/*
 * table_next_leaf - the first leaf that covers an address in [*va, end); *va is moved up to the leaf's start if that is
 * higher. Returns: NULL when there is none. Requires: the mmap lock.
 */
struct table *table_next_leaf(struct table *root, uint64_t *va, uint64_t end);

/* table_same_leaf - whether one leaf covers both addresses. */
bool table_same_leaf(uint64_t a, uint64_t b);

/* table_leaf_end - the end of the leaf's span around @va, at most @end. */
uint64_t table_leaf_end(uint64_t va, uint64_t end);

/* table_free_empty - free the tables in [start, end) that have no used slot. Requires: the mmap lock, exclusively. */
void table_free_empty(struct table_pool *pool, struct table *root, uint64_t start, uint64_t end);

/* table_totals - sums over all tables below @root. Requires: the mmap lock. */
void table_totals(struct table *root, struct table_totals *totals);

/* table_walk - visit every table, parents first; @start is where the table's span starts. Ends early on non-zero. */
int table_walk(struct table *root, int (*visit)(void *arg, struct table *table, uint64_t start), void *arg);

/* table_span / table_fanout - bytes that a table of @level spans, and its number of slots. */
uint64_t table_span(unsigned level);
unsigned table_fanout(unsigned level);

static inline void table_lock(struct table *table)
{
	spin_lock(&table->lock, LOCK_TABLE_LEAF - table->level);
}

/* A second leaf: fork's child (not published yet), mremap's target (mmap lock held exclusively). */
static inline void table_lock_nested(struct table *table)
{
	spin_lock_nested(&table->lock, LOCK_TABLE_LEAF - table->level);
}

static inline void table_unlock(struct table *table)
{
	spin_unlock(&table->lock, LOCK_TABLE_LEAF - table->level);
}

/* leaf_get - the entry for @va. Without the leaf's lock it may change at any time. */
struct pte leaf_get(const struct table *leaf, uint64_t va);
/* leaf_set - write the entry for @va and keep the totals. Requires: the leaf's lock. */
void leaf_set(struct table *leaf, uint64_t va, struct pte pte);

/* ---- generations: how cached translations are taken back (rules 8 to 12) ---- */

/*
 * A space's counters, by 2 MiB region. A translation carries the value read before its walk and is valid while the
 * counter has it. [ORD-GEN-1] An entry is changed before its region is bumped (release), and a reader that sees the old
 * counter (acquire) after its access used a translation that was right when the access began.
 */
struct generations {
	uint64_t of[UCOW_TLB_REGIONS]; /* (A) by __atomic builtins: the installed inline functions read them */
};

void generations_init(struct generations *generations);
/* tlb_invalidate - no translation of [start, end) made before this call is used after it. */
void tlb_invalidate(struct generations *generations, uint64_t start, uint64_t end);

static inline uint64_t generation_read(const struct generations *generations, uint64_t va)
{
	return __atomic_load_n(&generations->of[(va >> UCOW_TLB_REGION_SHIFT) & (UCOW_TLB_REGIONS - 1)],
			       __ATOMIC_ACQUIRE);
}

#endif
