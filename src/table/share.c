/* SPDX-License-Identifier: MIT */
/*
 * Sharing of tables: giving a subtree away by one reference, taking an own copy of a path, and the marks that keep
 * references (gets, pins) out of shared tables. Design rules 1 to 7.
 *
 * Accounting. A leaf counts its pages (reference and mapping) on behalf of `accounted` paths. A lazy fork counts
 * nothing: a leaf stays at one, and the copy that an unshare makes counts for itself, as an eager fork would. Where a
 * fork has counted ahead (mode `tables`) the copy takes over the count of one path.
 */
#include "table/internal.h"

#include "base/mutate.h"

#include <errno.h>

/* ---- copying one table ---- */

/* The entry verbatim, as nobody's own: an anon page loses its exclusive flag, both entries the write permission. */
static struct pte copy_entry(struct table_pool *pool, struct pte pte)
{
	struct ucow_page *page;

	if (!pte_has_page(pte))
		return pte;
	page = pte_page(pool->frames, pte);
	if (!pool->accounts_ahead && !MUTATED(UNSHARE_NO_COUNT)) {
		page_get(page);
		page_map(page);
	}
	if (pte_kind(pte) != PTE_KIND_ANON)
		return pte;
	if (page_is(page, PAGE_EXCLUSIVE) && !MUTATED(KEEP_EXCLUSIVE_AT_FORK))
		page_clear(page, PAGE_EXCLUSIVE);
	return pte_wrprotect(pte);
}

/* Counting is one locked operation after another, each of which would wait for its page's line alone. */
static void prefetch_pages(const struct table_pool *pool, const struct table *leaf)
{
	for (unsigned slot = 0; slot < fanout_of(0); slot++)
		if (pte_has_page(slot_pte(leaf, slot)))
			__builtin_prefetch(pte_page(pool->frames, slot_pte(leaf, slot)), 1);
}

/* Requires: both locks; @copy is known to nobody. @shared keeps other users, so its permissions are in force for
 * nobody. */
static void copy_leaf(struct table_pool *pool, struct table *shared, struct table *copy)
{
	prefetch_pages(pool, shared);
	for (unsigned slot = 0; slot < fanout_of(0); slot++) {
		struct pte pte = copy_entry(pool, slot_pte(shared, slot));

		if (!MUTATED(FORGET_WRITE_PROTECT))
			atomic_store_explicit(&shared->slots[slot], pte.v, memory_order_relaxed);
		atomic_store_explicit(&copy->slots[slot], pte.v, memory_order_relaxed);
	}
	copy->anon = shared->anon;
	copy->file = shared->file;
	copy->swap = shared->swap;
	copy->used = shared->used;
	shared->accounted -= pool->accounts_ahead;
}

static void copy_upper(struct table *shared, struct table *copy)
{
	for (unsigned slot = 0, left = shared->used; left; slot++) {
		struct table *child = child_of(shared, slot);

		if (!child)
			continue;
		table_get(child);
		set_child(copy, slot, child);
		left--;
	}
}

/* ---- an own copy ---- */

/* Put @copy where @shared hangs. Returns: false if something else hangs there by now. */
static bool install(struct page_table *pt, struct table *parent, unsigned slot, struct table *shared,
		    struct table *copy)
{
	bool installed;

	if (!parent)
		return atomic_compare_exchange_strong(&pt->root, &shared, copy);
	table_lock(parent);
	installed = child_of(parent, slot) == shared;
	if (installed)
		set_child(parent, slot, copy);
	table_unlock(parent);
	return installed;
}

/* Fill @copy from @shared. Returns: false if @shared turned private meanwhile: our reference and the temporary one are
 * all. */
static bool fill(struct table_pool *pool, struct table *shared, struct table *copy)
{
	bool others;

	table_lock(shared);
	others = atomic_load_explicit(&shared->refcount, memory_order_acquire) > 2;
	if (others && shared->level)
		copy_upper(shared, copy);
	else if (others)
		copy_leaf(pool, shared, copy);
	table_unlock(shared);
	return others;
}

/* An empty table that was never installed. */
static void discard(struct table_pool *pool, struct table *table)
{
	table_put(pool, table);
}

/*
 * Translations stay: the copy says what @shared says, and whoever cached one under a shared table did so for reading
 * alone. Walks do not: one that met @shared must not find it private when the others have gone. [ORD-SHAPE-1] So the
 * shape changes before our reference is dropped.
 */
/*
 * Translations stay: the copy says what @shared says, and whoever cached one under a shared table did so for reading
 * alone. Walks do not: one that met @shared must not find it private when the others have gone. [ORD-SHAPE-1] So the
 * shape changes before our reference is dropped.
 */
struct table *own_child(struct page_table *pt, struct table *parent, unsigned slot, struct table *shared, bool reserve)
{
	struct table *copy;

	if (likely(!table_is_shared(shared)))
		return shared;
	UCOW_BUG_ON(shared->hints & TABLE_MAY_HOLD_REFS);
	copy = table_create(pt->pool, shared->level, reserve);
	if (!copy)
		return NULL;
	table_get(shared); /* keeps it until the shape has changed [rule 3] */
	if (!fill(pt->pool, shared, copy)) {
		discard(pt->pool, copy);
		table_put(pt->pool, shared);
		return shared;
	}
	if (!install(pt, parent, slot, shared, copy))
		UCOW_BUG("two threads unshare one path of a space");
	count(pt->pool->counters, UCOW_COUNTER_TABLE_UNSHARE);
	if (!MUTATED(STALE_WALK))
		table_changed_shape(pt);
	table_put(pt->pool, shared);
	table_put(pt->pool, shared);
	return copy;
}

/* ---- marks ---- */

void table_mark_path(struct page_table *pt, uint64_t va)
{
	struct table *table = atomic_load_explicit(&pt->root, memory_order_relaxed);

	for (;; table = child_of(table, slot_of(table->level, va))) {
		UCOW_BUG_ON(table_is_shared(table));
		if (!(atomic_load_explicit(&table->hints, memory_order_relaxed) & TABLE_MAY_HOLD_REFS))
			atomic_fetch_or_explicit(&table->hints, TABLE_MAY_HOLD_REFS, memory_order_relaxed);
		if (!table->level)
			return;
	}
}

/* An exclusive page with more than its mapping's reference: a get or a pin that lazy sharing would betray. */
static bool leaf_holds_refs(const struct table_pool *pool, const struct table *leaf)
{
	for (unsigned slot = 0; slot < fanout_of(0); slot++) {
		struct pte pte = slot_pte(leaf, slot);
		const struct ucow_page *page;

		if (pte_kind(pte) != PTE_KIND_ANON)
			continue;
		page = pte_page(pool->frames, pte);
		if (page_is(page, PAGE_EXCLUSIVE) && page_refcount(page) > 1)
			return true;
	}
	return false;
}

/* Returns: whether the mark stays. */
static bool refresh_marks(const struct table_pool *pool, struct table *table)
{
	bool stays = false;

	if (!(table->hints & TABLE_MAY_HOLD_REFS))
		return false;
	if (!table->level)
		stays = leaf_holds_refs(pool, table);
	for (unsigned slot = 0; table->level && slot < fanout_of(table->level); slot++)
		if (child_of(table, slot) && refresh_marks(pool, child_of(table, slot)))
			stays = true;
	if (!stays && !MUTATED(KEEP_STALE_MARK))
		table->hints &= (uint8_t)~TABLE_MAY_HOLD_REFS;
	return stays;
}

void table_refresh_marks(struct page_table *pt)
{
	refresh_marks(pt->pool, atomic_load_explicit(&pt->root, memory_order_relaxed));
}

/* ---- fork ---- */

/* Returns: what a child space gets for @table: itself, or, where it may hold references, a new table. NULL: no memory.
 */
static struct table *share(struct table_pool *pool, struct table *table)
{
	struct table *made;

	if (!(table->hints & TABLE_MAY_HOLD_REFS) || MUTATED(SHARE_MARKED)) {
		table_get(table);
		count(pool->counters, UCOW_COUNTER_TABLE_SHARE);
		return table;
	}
	made = table_create(pool, table->level, false);
	for (unsigned slot = 0; made && table->level && slot < fanout_of(table->level); slot++) {
		struct table *child = child_of(table, slot), *given = child ? share(pool, child) : NULL;

		if (given)
			set_child(made, slot, given);
		if (child && !given) {
			table_put(pool, made);
			return NULL;
		}
	}
	return made;
}

int page_table_share(struct page_table *parent, struct page_table *child)
{
	struct table *root = share(parent->pool, atomic_load_explicit(&parent->root, memory_order_relaxed));

	if (!root)
		return -ENOMEM;
	atomic_store_explicit(&child->root, root, memory_order_release);
	return 0;
}

/* ---- fork with accounting ahead ---- */

#define BLOCK_LEVEL 1

static struct table *find_block(const struct page_table *pt, uint64_t va)
{
	struct table *table = atomic_load_explicit(&pt->root, memory_order_acquire);

	while (table && table->level > BLOCK_LEVEL)
		table = child_of(table, slot_of(table->level, va));
	return table;
}

uint64_t table_block_end(uint64_t va)
{
	uint64_t span = table_span(BLOCK_LEVEL);

	return (va & ~(span - 1)) + span;
}

bool table_next_block(const struct page_table *pt, uint64_t *va, uint64_t end, bool *marked)
{
	/* A block has a leaf, or is of no interest. */
	if (!table_next_leaf(pt, va, end, false))
		return false;
	*va &= ~(table_span(BLOCK_LEVEL) - 1);
	*marked = find_block(pt, *va)->hints & TABLE_MAY_HOLD_REFS;
	return true;
}

int table_prepare_block(struct page_table *child, uint64_t va)
{
	return own_down_to(child, va, BLOCK_LEVEL + 1) ? 0 : -ENOMEM;
}

/* One path more sees the leaf: count its pages, as nobody's own. */
static void leaf_account(struct table_pool *pool, struct table *leaf)
{
	table_lock(leaf);
	for (unsigned slot = 0; slot < fanout_of(0); slot++) {
		struct pte pte = slot_pte(leaf, slot);
		struct ucow_page *page;

		if (!pte_has_page(pte))
			continue;
		page = pte_page(pool->frames, pte);
		page_get(page);
		page_map(page);
		if (pte_kind(pte) != PTE_KIND_ANON)
			continue;
		if (!MUTATED(KEEP_EXCLUSIVE_AT_FORK))
			page_clear(page, PAGE_EXCLUSIVE);
		if (!MUTATED(FORGET_WRITE_PROTECT))
			atomic_store_explicit(&leaf->slots[slot], pte_wrprotect(pte).v, memory_order_relaxed);
	}
	leaf->accounted++;
	table_unlock(leaf);
}

void table_share_block(struct page_table *parent, struct page_table *child, uint64_t va)
{
	struct table *block = find_block(parent, va), *above = own_down_to(child, va, BLOCK_LEVEL + 1);

	UCOW_BUG_ON(block->hints & TABLE_MAY_HOLD_REFS);
	for (unsigned slot = 0; slot < fanout_of(BLOCK_LEVEL); slot++)
		if (child_of(block, slot))
			leaf_account(parent->pool, child_of(block, slot));
	table_get(block);
	table_lock(above);
	set_child(above, slot_of(BLOCK_LEVEL + 1, va), block);
	table_unlock(above);
	count(parent->pool->counters, UCOW_COUNTER_TABLE_SHARE);
}
