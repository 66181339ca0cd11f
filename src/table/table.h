/* SPDX-License-Identifier: MIT */
/*
 * Tables: the refcounted tree of six levels between a space's root and its entries, its walks, and the generations by
 * which cached translations are invalidated. The shape is known to table/ alone.
 */
#ifndef TABLE_TABLE_H
#define TABLE_TABLE_H

#include "base/epoch.h"
#include "base/slab.h"
#include "table/entry.h"

#include <ucow/access.h>

#if exploring
#define TABLE_LEVELS 3 /* a root, a block of leaves, a leaf: more of the same would only be more interleavings */
#else
#define TABLE_LEVELS 6
#endif
#define TABLE_ROOT_LEVEL    (TABLE_LEVELS - 1)
#define TABLE_LEAF_BITS     5
#define TABLE_LEAF_MAX      (1 << TABLE_LEAF_BITS) /* entries of a leaf: for arrays that hold one leaf's worth */
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
	_Atomic uint8_t hints;     /* (A) TABLE_MAY_HOLD_REFS */
	uint16_t used;             /* (T) slots that are not empty */
	uint16_t anon, file, swap; /* (T) level 0: entries by kind; an mm's RSS is their sum */
	uint32_t accounted;        /* (T) level 0: on behalf of how many paths its pages are counted; see share.c */
	uint32_t tallied;          /* scratch of table_tally: references met so far */
	union {
		struct list family; /* reserved: the copies of one leaf, for the rmap */
		void *chain;        /* of a table that nobody refers to any more, until a grace period is over */
	};
	_Atomic uint64_t slots[]; /* (T) to write */
};

#define TABLE_RESERVE \
	2 /* tables of each level set aside so that freeing memory never lacks one: one for each end of a range */

struct table_pool {
	struct slab slabs[TABLE_LEVELS];
	struct frame_pool *frames; /* (C) the machine's */
	struct epoch *epoch;       /* (C) the machine's */
	struct inject *inject;     /* (C) the machine's */
	struct counters *counters; /* (C) the machine's */
	bool accounts_ahead;       /* (C) fork mode `tables`: a fork has counted the pages of what it shares */
	_Atomic uint64_t bytes;    /* tables in use */
	struct spin reserve_lock;  /* LOCK_SLAB; guards the next group */
	_Atomic unsigned nreserved[TABLE_LEVELS];
	struct table *reserved[TABLE_LEVELS][TABLE_RESERVE];
};

/* A space's counters, by 2 MiB region: see "generations" below. */
struct generations {
	uint64_t of[UCOW_TLB_REGIONS]; /* (A) by __atomic builtins: the installed inline functions read them */
};

/*
 * The tables of one space. A table with more than one reference is shared: whatever lies under it is neither writable
 * nor exclusive for anybody, whatever its entries say. A path is private if every table on it, the root included, has
 * one reference.
 */
struct page_table {
	struct table_pool *pool; /* (C) */
	struct drop_tally
		*tally; /* (M) told of what table_zap, table_clear and page_table_drop do; NULL: nobody asks */
	_Atomic(struct table *) root; /* (M) to read, or a section; replaced, under root_lock, when unshared */
	struct spin root_lock;        /* LOCK_ROOT */
	_Atomic uint32_t cpu_slots;   /* (A) thread slots that have a cpu attached, one bit each */
	_Atomic uint64_t shape;       /* (A) grows whenever a table that a walk may have met is replaced or detached */
	struct generations generations; /* (A) */
};

/* What a walk found. */
struct walk {
	struct table *leaf; /* NULL: no leaf covers the address */
	bool is_private;    /* of the tables that exist on the path */
};

/* What became of the anon pages that a space stopped mapping. */
struct drop_tally {
	bool wants_kept; /* count `kept` too, which for shared tables means to look at their leaves */
	uint64_t kept;   /* others map the page still */
	uint64_t freed;  /* nobody does */
};

struct table_totals {
	uint64_t anon, file, swap;
	uint64_t anon_shared;    /* of anon: on shared paths, or mapped by others through leaves of theirs */
	uint64_t anon_exclusive; /* of anon: by page and path */
	uint64_t bytes;          /* of tables */
	uint64_t bytes_private;  /* of bytes: on private paths */
};

void table_pool_init(struct table_pool *pool, struct frame_pool *frames, struct epoch *epoch, struct inject *inject,
		     struct counters *counters, bool accounts_ahead);
/* table_release_chain - what epoch_defer_chain was given: tables, whose memory is free from here on. */
void table_release_chain(struct table_pool *pool, void *chain);
/* table_pool_destroy - Requires: no table in use. */
void table_pool_destroy(struct table_pool *pool);

/* page_table_init - no root yet: page_table_make_root or page_table_share follows. */
void page_table_init(struct page_table *pt, struct table_pool *pool);
/* page_table_make_root - an empty root. Returns: 0; -ENOMEM. */
int page_table_make_root(struct page_table *pt);
/* page_table_drop - drop the root, which frees or unaccounts what hangs below. NULL root is allowed. */
void page_table_drop(struct page_table *pt);

/*
 * table_walk_path - Requires: a section, or the mmap lock exclusively. Reference counts are read before the slots below
 * them [rule 8]. What it answers in a section holds if the space's shape, read before, is the same afterwards.
 */
struct walk table_walk_path(const struct page_table *pt, uint64_t va);

/* table_walk_now - again until nothing has changed meanwhile: right when it returns. Requires: as table_walk_path. */
struct walk table_walk_now(const struct page_table *pt, uint64_t va);

/* table_find_leaf - the leaf that covers @va, shared or not, or NULL. Requires: as table_walk_path. */
static inline struct table *table_find_leaf(const struct page_table *pt, uint64_t va)
{
	return table_walk_path(pt, va).leaf;
}

/*
 * table_own_leaf - the leaf that covers @va on a private path: what is missing is made, what is shared is copied, top
 * down [rule 1]. This is the only way to change an entry of a space. The leaf stays in its place for as long as the
 * mmap lock is held. Requires: the mmap lock (shared will do), no table lock. Returns: 0; -ENOMEM (nothing that a
 * program sees has changed).
 */
int table_own_leaf(struct page_table *pt, uint64_t va, struct table **leaf);

/*
 * table_own_range - own every leaf that exists in [start, end), so that changing it cannot fail for lack of memory.
 * Requires: as table_own_leaf. Returns: 0; -ENOMEM.
 */
int table_own_range(struct page_table *pt, uint64_t start, uint64_t end);

/*
 * table_next_leaf - the first leaf, shared or not, that covers an address in [*va, end); *va is moved up to the leaf's
 * start if that is higher. With @marked, only leaves that may hold references. Returns: NULL: none. Requires: as
 * table_walk_path.
 */
struct table *table_next_leaf(const struct page_table *pt, uint64_t *va, uint64_t end, bool marked);

/*
 * table_zap - empty [start, end): entries, and the tables that become empty. Whole shared subtrees go by one reference.
 * References are dropped when no cpu uses a translation any more [rule 10].
 * Requires: the mmap lock, exclusively. Returns: 0; -ENOMEM: nothing changed (the reserve makes this all but
 * impossible).
 */
int table_zap(struct page_table *pt, uint64_t start, uint64_t end);

/*
 * table_own_edges - own what exists on the paths to both ends of [start, end): after that table_zap of the range cannot
 * fail. Requires: the mmap lock, exclusively. Returns: 0; -ENOMEM.
 */
int table_own_edges(struct page_table *pt, uint64_t start, uint64_t end);

/* table_clear - as table_zap, but the tables stay. Requires: mmap lock exclusively, the range owned. */
void table_clear(struct page_table *pt, uint64_t start, uint64_t end);

/* ---- references and fork (share.c) ---- */

/* table_mark_path - a get or a pin was taken below @va [rule 4]. Requires: the mmap lock, a private path to a leaf. */
void table_mark_path(struct page_table *pt, uint64_t va);
/* table_refresh_marks - clear the marks under which no exclusive page has a reference left. Requires: mmap lock
 * exclusively. */
void table_refresh_marks(struct page_table *pt);
/*
 * page_table_share - give @child what @parent has: unmarked subtrees by one reference each, marked ones as new tables
 * whose leaves are empty, for the caller to copy. Requires: @child has no root; @parent's mmap lock exclusively.
 * Returns: 0; -ENOMEM: drop @child; @parent is as it was.
 */
int page_table_share(struct page_table *parent, struct page_table *child);
/*
 * Blocks: the 2 MiB that one table above the leaves spans; what a fork with accounting ahead (mode `tables`) shares.
 *
 * table_next_block - move *va to the first block in [*va, end) that has a table; *marked tells whether that may hold
 * references. Returns: whether there is one.
 */
bool table_next_block(const struct page_table *pt, uint64_t *va, uint64_t end, bool *marked);
uint64_t table_block_end(uint64_t va);
/* table_prepare_block - make what @child needs to take the block at @va. Returns: 0; -ENOMEM. */
int table_prepare_block(struct page_table *child, uint64_t va);
/*
 * table_share_block - account for every entry of @parent's block at @va as an eager fork does, then share its tables
 * with @child. Requires: table_prepare_block; @parent's mmap lock exclusively; the block is not marked.
 */
void table_share_block(struct page_table *parent, struct page_table *child, uint64_t va);
/* table_changed - every translation and every walk of the space made before this call is void (fork). */
void table_changed(struct page_table *pt);
/* table_forget_walks - every walk of the space made before this call is void; translations are not. */
void table_forget_walks(struct page_table *pt);
/* table_is_shared - more than one slot or root points to it. */
static inline bool table_is_shared(const struct table *table)
{
	return atomic_load_explicit(&table->refcount, memory_order_acquire) > 1;
}

/* table_same_leaf - whether one leaf covers both addresses. */
static inline bool table_same_leaf(uint64_t a, uint64_t b)
{
	return (a ^ b) >> (UCOW_PAGE_SHIFT + TABLE_LEAF_BITS) == 0;
}

/* table_leaf_end - the end of the leaf's span around @va, at most @end. */
uint64_t table_leaf_end(uint64_t va, uint64_t end);

/* table_totals - sums over all tables, and the pages on private paths. Requires: the mmap lock. */
void table_totals(const struct page_table *pt, struct table_totals *totals);

/*
 * table_walk - visit every table that the space sees, parents first; @start is where the table's span starts,
 * @is_private tells of the path down to it. Ends early on non-zero.
 */
int table_walk(const struct page_table *pt,
	       int (*visit)(void *arg, struct table *table, uint64_t start, bool is_private), void *arg);

/*
 * table_diff - the leaves of [start, end) that are not one leaf in both, in address order: visit @a's and @b's, of
 * which one may be NULL, and the part of the range that they cover. Subtrees that both have at the same place are not
 * looked into. Ends early on non-zero. *looked grows by the number of tables that were. Requires: both mmap locks.
 */
typedef int table_diff_visit(void *arg, const struct table *a, const struct table *b, uint64_t start, uint64_t end);
int table_diff(const struct page_table *a, const struct page_table *b, uint64_t start, uint64_t end,
	       table_diff_visit *visit, void *arg, uint64_t *looked);

/*
 * table_tally / table_verify - recount the references of all tables: tally every space, then verify every one. Tally
 * calls @on_table once for each table, however many spaces see it. Requires: nothing changes meanwhile. Returns
 * (verify): NULL or what is wrong.
 */
void table_tally(struct page_table *pt, void (*on_table)(void *arg, struct table *table), void *arg);
const char *table_verify(struct page_table *pt);
/* table_size - bytes of a table of @level. */
size_t table_size(unsigned level);

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
static inline struct pte leaf_get(const struct table *leaf, uint64_t va)
{
	unsigned slot = (unsigned)(va >> UCOW_PAGE_SHIFT) & (TABLE_LEAF_MAX - 1);

	return (struct pte){atomic_load_explicit(&leaf->slots[slot], memory_order_relaxed)};
}
/* leaf_peek - the same in a section: what is loaded afterwards is no older. */
static inline struct pte leaf_peek(const struct table *leaf, uint64_t va)
{
	unsigned slot = (unsigned)(va >> UCOW_PAGE_SHIFT) & (TABLE_LEAF_MAX - 1);

	return (struct pte){atomic_load_explicit(&leaf->slots[slot], memory_order_acquire)};
}
/* leaf_set - write the entry for @va and keep the totals. Requires: the leaf's lock. */
void leaf_set(struct table *leaf, uint64_t va, struct pte pte);

/* ---- how cached translations are taken back: tlb.c (rules 8 to 14) ---- */

/*
 * A space's counters, by 2 MiB region. A translation carries the value read before its walk and is valid while the
 * counter has it. [ORD-GEN-1] An entry is changed before its region is bumped, by a locked operation; a translation is
 * made, and used, inside a section that read the counter after it was entered.
 */
void generations_init(struct generations *generations);
/* tlb_invalidate - no translation of [start, end) made before this call is used in a section that begins after it. */
void tlb_invalidate(struct generations *generations, uint64_t start, uint64_t end);

static inline uint64_t generation_read(const struct generations *generations, uint64_t va)
{
	return ucow_generation(&generations->of[ucow_tlb_region(va)]);
}

/* shape_read - before a walk, and again before its answer is used. */
static inline uint64_t shape_read(const struct page_table *pt)
{
	return atomic_load_explicit(&pt->shape, memory_order_acquire);
}

/* tlb_attach - @member, a cpu of the calling thread, gets @pt instead of @old; either may be NULL. */
void tlb_attach(struct epoch *epoch, struct epoch_member *member, struct page_table *pt, struct page_table *old);

/*
 * tlb_is_mine - whether no other thread has a cpu attached. Asked after the bump: who comes later sees the change
 * [rule 12].
 */
bool tlb_is_mine(const struct page_table *pt);
/*
 * tlb_shootdown - wait until no cpu of the space is inside an access that began before this call. With the bump before
 * it: nobody uses what was taken away. Requires: no spin lock; not inside an access. [rule 10]
 */
void tlb_shootdown(struct page_table *pt);

#endif
