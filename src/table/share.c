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

	if (unlikely(pte_is_swap(pte))) {
		if (!pool->accounts_ahead)
			pool->swap->dup(pool->swap_arg, pte_swap_entry(pte), 1);
		return pte_swap_share(pte);
	}
	table_count_zero(pool, pte, 1);
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
			atomic_store_explicit(&shared->slots[slot], pte.v, memory_order_release);
		atomic_store_explicit(&copy->slots[slot], pte.v, memory_order_relaxed);
	}
	total_add(&copy->anon, total_read(&shared->anon));
	total_add(&copy->file, total_read(&shared->file));
	total_add(&copy->swap, total_read(&shared->swap));
	total_add(&copy->used, total_read(&shared->used));
	atomic_store_explicit(&copy->uffd_wp, leaf_wp_mask(shared), memory_order_relaxed);
	shared->accounted -= pool->accounts_ahead;
}

/* From its joining on, reclaim can find the copy: not before it is whole. Returns: false: @shared has joined a family.
 */
static bool join_and_copy(struct table_pool *pool, struct table *shared, struct table *copy)
{
	bool joined;

	if (has_families(pool))
		table_lock_nested(copy);
	joined = kin_join(copy, shared);
	if (joined)
		copy_leaf(pool, shared, copy);
	if (has_families(pool))
		table_unlock(copy);
	return joined;
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

/* Whether an entry's swap slot can be named by no more. Slots are counted far beyond any real number of tables. */
static bool names_full_slots(const struct table_pool *pool, const struct table *leaf)
{
	if (likely(!leaf->swap))
		return false;
	for (unsigned slot = 0; slot < fanout_of(0); slot++) {
		struct pte pte = slot_pte(leaf, slot);

		if (pte_is_swap(pte) && pool->swap->is_full(pool->swap_arg, pte_swap_entry(pte)))
			return true;
	}
	return false;
}

/* ---- an own copy ---- */

/* What hangs in @slot of @parent; NULL: the root. */
static struct table *hanging(struct page_table *pt, struct table *parent, unsigned slot)
{
	return parent ? child_of(parent, slot) : atomic_load_explicit(&pt->root, memory_order_acquire);
}

static void place_lock(struct page_table *pt, struct table *parent)
{
	if (parent)
		table_lock(parent);
	else
		spin_lock(&pt->root_lock, LOCK_ROOT);
}

static void place_unlock(struct page_table *pt, struct table *parent)
{
	if (parent)
		table_unlock(parent);
	else
		spin_unlock(&pt->root_lock, LOCK_ROOT);
}

/* Requires: the place's lock. */
static void install(struct page_table *pt, struct table *parent, unsigned slot, struct table *copy)
{
	if (parent)
		set_child(parent, slot, copy);
	else
		atomic_store_explicit(&pt->root, copy, memory_order_release);
}

/*
 * Fill @copy from @shared. Returns: false if @shared has turned private meanwhile: our reference and the temporary one
 * are all; or if it has joined another family.
 */
static bool fill(struct table_pool *pool, struct table *shared, struct table *copy)
{
	bool others;

	table_lock(shared);
	others = MUTATED(SKIP_UNSHARE_RECHECK) || atomic_load_explicit(&shared->refcount, memory_order_acquire) > 2;
	if (others && shared->level)
		copy_upper(shared, copy);
	else if (others)
		others = join_and_copy(pool, shared, copy);
	table_unlock(shared);
	return others;
}

/*
 * Replace what hangs in the place by @copy. The lock of the place keeps a second thread of this space from doing the
 * same, and from seeing our temporary reference on what stays ours: two threads would otherwise take each other for
 * sharers and copy in turns. The temporary reference keeps the table from being freed, and others from taking it for
 * theirs alone, until the shape has changed [rule 3]: a walk of ours that met it must not find it private when the
 * others have gone. [ORD-SHAPE-1] Translations stay: the copy says what the shared table says, and whoever cached one
 * under it did so for reading alone. Returns: false: another thread was faster, or nobody else uses the table any more;
 * look again.
 */
static bool replace(struct page_table *pt, struct table *parent, unsigned slot, struct table *copy)
{
	struct table *shared;
	bool replaced;

	place_lock(pt, parent);
	shared = hanging(pt, parent, slot);
	if (!table_is_shared(shared)) {
		place_unlock(pt, parent);
		return false;
	}
	table_get(shared);
	replaced = fill(pt->pool, shared, copy);
	if (replaced) {
		install(pt, parent, slot, copy);
		if (!MUTATED(STALE_WALK))
			table_changed_shape(pt);
	} else {
		table_put(pt->pool, shared); /* not the last: ours remains */
	}
	place_unlock(pt, parent);
	if (replaced) {
		table_put(pt->pool, shared);
		table_put(pt->pool, shared);
	}
	return replaced;
}

/*
 * What hangs in the place, if it is private. Another thread may replace it and drop our reference between the two looks
 * that this takes, and then the count says that the table is somebody else's alone. While a table hangs here its count
 * includes our reference, so the place is looked at again. [ORD-OWN-1]
 */
static struct table *hanging_private(struct page_table *pt, struct table *parent, unsigned slot)
{
	struct table *child = hanging(pt, parent, slot);

	if (table_is_shared(child))
		return NULL;
	return likely(hanging(pt, parent, slot) == child) || MUTATED(SKIP_OWN_RECHECK) ? child : NULL;
}

/*
 * What a copy of @table needs, taken beforehand: the table, room in as many families, and in the counts of the swap
 * slots that it names. Returns: NULL: no memory.
 */
static struct table *create_like(struct table_pool *pool, struct table *table, bool reserve)
{
	struct table *copy = table_create(pool, table->level, reserve);

	if (!copy || table->level)
		return copy;
	if (unlikely(kin_prepare(pool, copy, table, reserve)) || unlikely(names_full_slots(pool, table))) {
		table_put(pool, copy);
		return NULL;
	}
	return copy;
}

struct table *own_child(struct page_table *pt, struct table *parent, unsigned slot, bool reserve)
{
	struct table *child, *copy;

	while (!(child = hanging_private(pt, parent, slot))) {
		copy = create_like(pt->pool, hanging(pt, parent, slot), reserve);
		if (!copy)
			return NULL;
		if (replace(pt, parent, slot, copy)) {
			count(pt->pool->counters, UCOW_COUNTER_TABLE_UNSHARE);
			return copy;
		}
		table_put(pt->pool, copy); /* empty, and never installed */
	}
	return child;
}

/* ---- marks ---- */

void table_mark_path(struct page_table *pt, uint64_t va)
{
	struct table *table = atomic_load_explicit(&pt->root, memory_order_relaxed);

	/* No check that the path is private: a thread whose unshare comes too late holds a temporary reference. */
	for (;; table = child_of(table, slot_of(table->level, va))) {
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
		if (page_is(page, PAGE_EXCLUSIVE) && page_refcount(page) > 1u + page_is(page, PAGE_SWAPCACHE))
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

/* The parent's space is locked exclusively, and @table, marked, is its alone: nobody else lets it join a family. */
static void join_under_lock(struct table *made, struct table *table)
{
	table_lock(table);
	if (!kin_join(made, table))
		UCOW_BUG("a marked leaf joined a family while its space was locked");
	table_unlock(table);
}

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
	made = create_like(pool, table, false);
	if (made && !table->level)
		join_under_lock(made, table);
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

int table_prepare_block(const struct page_table *parent, struct page_table *child, uint64_t va)
{
	const struct table *block = find_block(parent, va);

	for (unsigned slot = 0; slot < fanout_of(BLOCK_LEVEL); slot++)
		if (child_of(block, slot) && names_full_slots(parent->pool, child_of(block, slot)))
			return -ENOMEM;
	return own_down_to(child, va, BLOCK_LEVEL + 1) ? 0 : -ENOMEM;
}

/* One path more sees the leaf: count its pages, as nobody's own. */
static void leaf_account(struct table_pool *pool, struct table *leaf)
{
	table_lock(leaf);
	for (unsigned slot = 0; slot < fanout_of(0); slot++) {
		struct pte pte = slot_pte(leaf, slot);
		struct ucow_page *page;

		if (unlikely(pte_is_swap(pte))) {
			pool->swap->dup(pool->swap_arg, pte_swap_entry(pte), 1);
			atomic_store_explicit(&leaf->slots[slot], pte_swap_share(pte).v, memory_order_release);
		}
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
			atomic_store_explicit(&leaf->slots[slot], pte_wrprotect(pte).v, memory_order_release);
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
