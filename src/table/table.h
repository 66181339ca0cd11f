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

/* Heads what may still be looked at after it has gone out of use: its memory waits for a grace period. */
struct grave {
	void *next;
	unsigned level; /* of the table; TABLE_LEVELS: a family */
};

/*
 * The reverse map of private memory. A page is born in a slot of a leaf, and from there it gets only into copies of
 * that leaf, at the same slot, or, by mremap, into another leaf at a distance that all pages of one leaf have in
 * common. So the leaves that may map a page are a *family*: the one in which it was born, all copies of it, and those
 * that pages were moved to. A page names its family and its home, the slot that it has in members without a shift;
 * whoever looks for its mappings looks at one slot of each member, however many spaces share a member.
 *
 * A member joins before it gets an entry that others have, under the lock of the leaf that it gets it from, and leaves
 * when nobody refers to it any more, before its entries go. (F) the family's lock
 */
struct family {
	struct spin lock; /* LOCK_FAMILY, after the leaf's; who goes the other way tries the leaf's */
	uint32_t nkin;    /* (F) */
	uint32_t holds;   /* (F) by merged pages, which name families that may have ended */
	struct list kin;  /* (F) oldest first */
	struct grave grave;
};

/* The membership of one leaf in one family. */
struct kin {
	struct family *family; /* (T) of the leaf; NULL: a leaf that has none yet */
	struct table *leaf;    /* (C) */
	struct kin *next;      /* (T) the leaf's next */
	struct list link;      /* (F) */
	int shift;             /* (C) the page at home h is in slot h + shift */
};

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
	_Atomic uint16_t used;     /* (T) to write: slots that are not empty */
	/* (T) to write; level 0: entries by kind; an mm's RSS is their sum */
	_Atomic uint16_t anon, file, swap;
	uint32_t accounted;       /* (T) level 0: on behalf of how many paths its pages are counted; see share.c */
	uint32_t tallied;         /* scratch of table_tally: references met so far */
	_Atomic uint32_t uffd_wp; /* (T) to write; level 0: which entries are write-protected for userfaultfd */
	struct grave grave;       /* once nobody refers to it */
	_Atomic uint64_t slots[]; /* (T) to write; behind those of a leaf: struct kin, its first family */
};

/* Swap slots as the tables see them: references counted elsewhere. Called with a leaf's lock held. */
struct swap_ops {
	/* One entry more, or @n, names the slot. @n entries less; returns whether it was the last to name or map the
	 * page. */
	void (*dup)(void *arg, struct swap_entry entry, uint32_t n);
	bool (*drop)(void *arg, struct swap_entry entry, uint32_t n);
	/* Whether one more would be too many. */
	bool (*is_full)(void *arg, struct swap_entry entry);
	/* @page is in the swap cache, and no entry maps it any more: its slot may be of no use. Returns: whether none
	 * names it. */
	bool (*unmapped)(void *arg, struct ucow_page *page);
};

#define TABLE_RESERVE \
	2 /* tables of each level set aside so that freeing memory never lacks one: one for each end of a range */

struct table_pool {
	struct slab slabs[TABLE_LEVELS];
	struct slab families, kin;
	const struct swap_ops *swap;  /* (C) once there are swap entries */
	void *swap_arg;               /* (C) */
	struct frame_pool *frames;    /* (C) the machine's */
	struct epoch *epoch;          /* (C) the machine's */
	struct inject *inject;        /* (C) the machine's */
	struct counters *counters;    /* (C) the machine's */
	bool accounts_ahead;          /* (C) fork mode `tables`: a fork has counted the pages of what it shares */
	_Atomic uint64_t bytes;       /* tables in use */
	_Atomic uint64_t merged_zero; /* entries that are the zero page because a page of zeros was merged */
	struct spin reserve_lock;     /* LOCK_SLAB; guards the next group */
	struct kin *spare_kin;        /* memberships set aside for copies of such tables */
	_Atomic unsigned nspare_kin;
	_Atomic unsigned most_kin; /* that a leaf ever had beyond its first */
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
 * table_own_leaf_of - table_own_leaf for a leaf that will get the entries of @source at the same place: if it has to be
 * made it is of the same families. Requires: as table_own_leaf, and the lock that keeps @source in its place.
 */
int table_own_leaf_of(struct page_table *pt, uint64_t va, struct table *source, struct table **leaf);

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
/* table_prepare_block - make what @child needs to take @parent's block at @va. Returns: 0; -ENOMEM. */
int table_prepare_block(const struct page_table *parent, struct page_table *child, uint64_t va);
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

/* table_trylock - against the order of locks, for who can do without. */
static inline bool table_trylock(struct table *table)
{
	return spin_trylock(&table->lock, LOCK_TABLE_LEAF - table->level);
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

/*
 * table_drop_mapping - one entry less maps @page: its count, then its reference; a swap slot that is of no use any more
 * goes with the last. Returns: whether no entry maps it any more.
 */
bool table_drop_mapping(struct table_pool *pool, struct ucow_page *page);

/* ---- families: family.c ---- */

static inline struct kin *leaf_kin(const struct table *leaf)
{
	return (struct kin *)(uintptr_t)&leaf->slots[TABLE_LEAF_MAX];
}

static inline int leaf_slot(uint64_t va)
{
	return (int)(va >> UCOW_PAGE_SHIFT) & (TABLE_LEAF_MAX - 1);
}

/* leaf_bear - @page is born at @va: its family and home. Requires: nobody else knows the page. */
static inline void leaf_bear(const struct table *leaf, uint64_t va, struct ucow_page *page)
{
	const struct kin *kin = leaf_kin(leaf);

	page->mapping = kin->family;
	page->home = (int8_t)(leaf_slot(va) - kin->shift);
}

/*
 * table_adopt - @leaf will get entries of @source, @shift slots further up: it joins the families of @source.
 * Requires: both mmap locks that matter exclusively; no table lock. Returns: 0; -ENOMEM (it may have joined some).
 */
int table_adopt(struct table_pool *pool, struct table *leaf, struct table *source, int shift);

/* family_hold / family_drop - the family's memory stays, with no leaf left in it too. Hold requires: it has a leaf. */
void family_hold(struct family *family);
void family_drop(struct table_pool *pool, struct family *family);
/* family_is_empty - no leaf belongs to it, and none ever will. Requires: a hold. */
bool family_is_empty(struct family *family);

/* family_check - [INV-RMAP-1] every member is a leaf that lists the family. Returns: NULL or what is wrong. */
const char *family_check(struct family *family);

/* table_count_zero - @n more entries like @pte, or (-1) one less; of interest if it is a merged page of zeros. */
static inline void table_count_zero(struct table_pool *pool, struct pte pte, int64_t n)
{
	if (unlikely(pte_is_merged_zero(pte)))
		atomic_fetch_add_explicit(&pool->merged_zero, (uint64_t)n, memory_order_relaxed);
}

/* leaf_set - write the entry for @va and keep the totals. Requires: the leaf's lock. */
void leaf_set(struct table *leaf, uint64_t va, struct pte pte);

/* ---- scanning: scan.c ---- */

#define TABLE_BLOCK_LEAVES 16

/* The leaves of 2 MiB, where there are some. */
struct table_block {
	bool exists;     /* there may be some; else nothing of the 2 MiB has a leaf */
	bool is_private; /* down to the table above them */
	struct table *leaves[TABLE_BLOCK_LEAVES];
};

/* table_block - look up the block of @va, and have what heads its leaves fetched. Requires: the mmap lock exclusively.
 */
void table_block(const struct page_table *pt, uint64_t va, struct table_block *block);
uint64_t table_block_end(uint64_t va);
/* table_block_slot - which of the block's leaves covers @va. */
static inline unsigned table_block_slot(uint64_t va)
{
	return (unsigned)(va >> (UCOW_PAGE_SHIFT + TABLE_LEAF_BITS)) & (TABLE_BLOCK_LEAVES - 1);
}

/* leaf_wp_mask - bit n: the leaf's entry n is write-protected for userfaultfd. */
static inline uint32_t leaf_wp_mask(const struct table *leaf)
{
	return atomic_load_explicit(&leaf->uffd_wp, memory_order_relaxed);
}

/*
 * leaf_protect - write-protect the entries of @slots for userfaultfd, empty ones by markers. Requires: a private path.
 */
void leaf_protect(struct table *leaf, uint32_t slots);

/* leaf_fetch - have the first entry of @slots fetched, which is about to change. */
static inline void leaf_fetch(const struct table *leaf, uint32_t slots)
{
	if (slots)
		__builtin_prefetch((const void *)&leaf->slots[__builtin_ctz(slots)], 1);
}

/* ---- how cached translations are taken back: tlb.c (rules 8 to 14) ---- */

/*
 * A space's counters, by 2 MiB region. A translation carries the value read before its walk and is valid while the
 * counter has it. [ORD-GEN-1] An entry is changed before its region is bumped, by a locked operation; a translation is
 * made, and used, inside a section that read the counter after it was entered.
 */
void generations_init(struct generations *generations);
/* tlb_invalidate - no translation of [start, end) made before this call is used in a section that begins after it. */
void tlb_invalidate(struct generations *generations, uint64_t start, uint64_t end);

/*
 * tlb_invalidate_all - no translation of any space that was made before this call is used in a section that begins
 * after it: for changes below tables that do not tell who shares them. Spaces without a cpu have no translations.
 */
void tlb_invalidate_all(struct epoch *epoch);

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
