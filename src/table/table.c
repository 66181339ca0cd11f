/* SPDX-License-Identifier: MIT */
/* The shape of the tables, their memory, walks, and emptying a range. Sharing and copying are in share.c. */
#include "table/internal.h"

#include "base/mutate.h"

#include <errno.h>
#include <string.h>

unsigned table_fanout(unsigned level)
{
	return fanout_of(level);
}

uint64_t table_span(unsigned level)
{
	return slot_span(level) << table_fanout_bits[level];
}

size_t table_size(unsigned level)
{
	return sizeof(struct table) + table_fanout(level) * sizeof(uint64_t) + (level ? 0 : sizeof(struct kin));
}

/* ---- memory ---- */

void table_pool_init(struct table_pool *pool, struct frame_pool *frames, struct epoch *epoch, struct inject *inject,
		     struct counters *counters, bool accounts_ahead)
{
	memset(pool, 0, sizeof(*pool));
	for (unsigned level = 0; level < TABLE_LEVELS; level++)
		slab_init(&pool->slabs[level], table_size(level));
	slab_init(&pool->families, sizeof(struct family));
	slab_init(&pool->kin, sizeof(struct kin));
	pool->frames = frames;
	pool->epoch = epoch;
	pool->inject = inject;
	pool->counters = counters;
	pool->accounts_ahead = accounts_ahead;
	table_reserve_fill(pool);
}

void table_pool_destroy(struct table_pool *pool)
{
	for (unsigned level = 0; level < TABLE_LEVELS; level++) {
		while (pool->nreserved[level])
			slab_free(&pool->slabs[level], pool->reserved[level][--pool->nreserved[level]]);
		slab_destroy(&pool->slabs[level]);
	}
	kin_reserve_empty(pool);
	slab_destroy(&pool->families);
	slab_destroy(&pool->kin);
}

static struct table *reserve_take(struct table_pool *pool, unsigned level)
{
	struct table *table = NULL;

	spin_lock(&pool->reserve_lock, LOCK_SLAB);
	if (pool->nreserved[level])
		table = pool->reserved[level][--pool->nreserved[level]];
	spin_unlock(&pool->reserve_lock, LOCK_SLAB);
	return table;
}

static bool reserve_put(struct table_pool *pool, unsigned level, struct table *table)
{
	bool room;

	spin_lock(&pool->reserve_lock, LOCK_SLAB);
	room = pool->nreserved[level] < TABLE_RESERVE;
	if (room)
		pool->reserved[level][pool->nreserved[level]++] = table;
	spin_unlock(&pool->reserve_lock, LOCK_SLAB);
	return room;
}

/* As far as there is memory. Injection does not count these: they are nobody's allocation. */
static void reserve_fill(struct table_pool *pool, unsigned level)
{
	struct table *table;

	while (unlikely(atomic_load_explicit(&pool->nreserved[level], memory_order_relaxed) < TABLE_RESERVE) &&
	       (table = slab_alloc(&pool->slabs[level])))
		if (!reserve_put(pool, level, table))
			slab_free(&pool->slabs[level], table);
}

void table_reserve_fill(struct table_pool *pool)
{
	for (unsigned level = 0; level < TABLE_LEVELS; level++)
		reserve_fill(pool, level);
	kin_reserve_fill(pool);
}

struct table *table_create(struct table_pool *pool, unsigned level, bool reserve)
{
	struct table *table = NULL;

	if (!reserve)
		reserve_fill(pool, level); /* before ordinary allocation [rule 2] */
	if (!inject_fails(pool->inject, UCOW_INJECT_TABLE))
		table = slab_alloc(&pool->slabs[level]);
	if (!table && reserve && !MUTATED(ZAP_WITHOUT_RESERVE))
		table = reserve_take(pool, level);
	if (!table)
		return NULL;
	atomic_init(&table->refcount, 1);
	table->level = (uint8_t)level;
	table->accounted = 1;
	atomic_fetch_add_explicit(&pool->bytes, table_size(level), memory_order_relaxed);
	return table;
}

bool table_drop_mapping(struct table_pool *pool, struct ucow_page *page)
{
	bool last = page_unmap(page);

	if (unlikely(last && page_is(page, PAGE_SWAPCACHE)))
		last = pool->swap->unmapped(pool->swap_arg, page);
	if (!MUTATED(LEAK_REF_ON_ZAP))
		page_put(page);
	return last;
}

/* Drop what @pte names, and note what became of its page. */
static void drop_entry(struct table_pool *pool, struct pte pte, struct drop_tally *tally)
{
	bool last;

	if (unlikely(pte_is_swap(pte)))
		last = pool->swap->drop(pool->swap_arg, pte_swap_entry(pte), 1);
	else
		last = table_drop_mapping(pool, pte_page(pool->frames, pte));
	if (likely(!tally) || pte_kind(pte) == PTE_KIND_SHARED)
		return;
	tally->freed += last;
	tally->kept += !last;
}

/* One path less counts the pages of this leaf. */
static void leaf_unaccount(struct table_pool *pool, struct table *leaf, struct drop_tally *tally)
{
	for (unsigned slot = 0; slot < fanout_of(0); slot++) {
		struct pte pte = slot_pte(leaf, slot);

		if (pte_has_page(pte) || pte_is_swap(pte))
			drop_entry(pool, pte, tally);
	}
	leaf->accounted--;
}

/* However many paths it counts for, none perhaps, its merged pages of zeros are counted once. */
static void leaf_uncount_zeros(struct table_pool *pool, const struct table *leaf)
{
	if (likely(!atomic_load_explicit(&pool->merged_zero, memory_order_relaxed)))
		return;
	for (unsigned slot = 0; slot < fanout_of(0); slot++)
		table_count_zero(pool, slot_pte(leaf, slot), -1);
}

/*
 * Nobody refers to the table, but a walk that met it before may still be looking: its memory, slots included, stays as
 * it is until a grace period is over. The caller has dropped a reference, by a locked operation [ORD-ALONE-1].
 */
static void give_back(struct table_pool *pool, struct table *table)
{
	atomic_fetch_sub_explicit(&pool->bytes, table_size(table->level), memory_order_relaxed);
	table->grave.level = table->level;
	if (epoch_is_alone(pool->epoch) || MUTATED(FREE_TABLE_AT_ONCE))
		slab_free(&pool->slabs[table->level], table);
	else
		epoch_defer_chain(pool->epoch, &table->grave, &table->grave.next);
}

void table_release_chain(struct table_pool *pool, void *chain)
{
	while (chain) {
		struct grave *grave = chain;

		chain = grave->next;
		if (grave->level == TABLE_LEVELS)
			slab_free(&pool->families, container_of(grave, struct family, grave));
		else
			slab_free(&pool->slabs[grave->level], container_of(grave, struct table, grave));
	}
}

static void put_tallied(struct table_pool *pool, struct table *table, struct drop_tally *tally);

static void table_free(struct table_pool *pool, struct table *table, struct drop_tally *tally)
{
	for (unsigned slot = 0; table->level && table->used && slot < fanout_of(table->level); slot++) {
		struct table *child = child_of(table, slot);

		if (child) {
			put_tallied(pool, child, tally);
			total_add(&table->used, -1);
		}
	}
	if (!table->level) {
		kin_leave(pool, table);
		leaf_uncount_zeros(pool, table);
	}
	while (!table->level && table->accounted)
		leaf_unaccount(pool, table, tally);
	give_back(pool, table);
}

/* Anon pages that others go on mapping through @table, which is shared: those of its leaves. */
static uint64_t anon_below(struct table *table)
{
	uint64_t n = 0;

	if (!table->level) {
		table_lock(table);
		n = (uint64_t)table->anon + table->swap;
		table_unlock(table);
	}
	for (unsigned slot = 0; table->level && slot < table_fanout(table->level); slot++)
		if (child_of(table, slot))
			n += anon_below(child_of(table, slot));
	return n;
}

/*
 * Pages below a table that stays are looked at before the reference goes, after which the table may be gone too. Where
 * a fork has counted ahead, unaccount_below has noted them one by one.
 */
static void put_tallied(struct table_pool *pool, struct table *table, struct drop_tally *tally)
{
	uint64_t kept = 0;

	if (unlikely(tally && tally->wants_kept) && !pool->accounts_ahead && table_is_shared(table))
		kept = anon_below(table);
	if (atomic_fetch_sub_explicit(&table->refcount, 1, memory_order_acq_rel) == 1)
		table_free(pool, table, tally);
	else if (tally)
		tally->kept += kept;
}

void table_put(struct table_pool *pool, struct table *table)
{
	put_tallied(pool, table, NULL);
}

/* Fork mode `tables` has counted every page once for each path: take this path's counts back. */
static void unaccount_below(struct table_pool *pool, struct table *table, struct drop_tally *tally)
{
	if (!table->level) {
		table_lock(table);
		leaf_unaccount(pool, table, tally);
		table_unlock(table);
		return;
	}
	for (unsigned slot = 0; slot < fanout_of(table->level); slot++)
		if (child_of(table, slot))
			unaccount_below(pool, child_of(table, slot), tally);
}

void table_drop_path(struct table_pool *pool, struct table *table, struct drop_tally *tally)
{
	if (pool->accounts_ahead)
		unaccount_below(pool, table, tally);
	put_tallied(pool, table, tally);
}

/* ---- a space's tables ---- */

void page_table_init(struct page_table *pt, struct table_pool *pool)
{
	pt->pool = pool;
	pt->tally = NULL;
	atomic_init(&pt->root, NULL);
	pt->root_lock = (struct spin){0};
	atomic_init(&pt->cpu_slots, 0);
	atomic_init(&pt->shape, 1);
	generations_init(&pt->generations);
}

int page_table_make_root(struct page_table *pt)
{
	struct table *root = table_create(pt->pool, TABLE_ROOT_LEVEL, false);

	if (!root)
		return -ENOMEM;
	atomic_store_explicit(&pt->root, root, memory_order_release);
	return 0;
}

void page_table_drop(struct page_table *pt)
{
	struct table *root = atomic_load_explicit(&pt->root, memory_order_relaxed);

	if (root)
		table_drop_path(pt->pool, root, pt->tally);
	atomic_store_explicit(&pt->root, NULL, memory_order_relaxed);
}

/* ---- leaves ---- */

/* The leaf's total that counts entries of this kind, or NULL: special memory is in no RSS. */
static _Atomic uint16_t *total_of(struct table *leaf, struct pte pte)
{
	switch (pte_kind(pte)) {
	case PTE_KIND_ANON:
		return &leaf->anon;
	case PTE_KIND_SHARED:
		return &leaf->file;
	case PTE_KIND_SWAP:
		return &leaf->swap;
	case PTE_KIND_NONE:
	case PTE_KIND_ZERO_PAGE:
	case PTE_KIND_PFN:
	case PTE_KIND_MARKER:
		break;
	}
	return NULL;
}

void leaf_set(struct table *leaf, uint64_t va, struct pte pte)
{
	struct pte old = leaf_get(leaf, va);
	_Atomic uint16_t *less = total_of(leaf, old), *more = total_of(leaf, pte);

	/* Accessed bits change under shared leaves too, whose totals other spaces may be reading: those stay untouched.
	 */
	if (less != more) {
		if (less)
			total_add(less, -1);
		if (more)
			total_add(more, 1);
	}
	if (unlikely((pte.v ^ old.v) & PTE_UFFD_WP))
		atomic_store_explicit(&leaf->uffd_wp, leaf_wp_mask(leaf) ^ (uint32_t)1 << slot_of(0, va),
				      memory_order_relaxed);
	if (pte_is_none(pte) != pte_is_none(old))
		total_add(&leaf->used, pte_is_none(old) ? 1 : -1);
	/* What walks without locks find behind the entry is there: the bytes of a new page, for instance. [ORD-ENTRY-1]
	 */
	atomic_store_explicit(&leaf->slots[slot_of(0, va)], pte.v, memory_order_release);
}

/* ---- walks ---- */

struct walk table_walk_path(const struct page_table *pt, uint64_t va)
{
	struct table *table = atomic_load_explicit(&pt->root, memory_order_acquire);
	bool is_private = !table_is_shared(table);

	/* By depth, not by table->level, so that the loop unrolls into loads at constant shifts. */
	for (unsigned level = TABLE_ROOT_LEVEL; level && table; level--) {
		table = child_of(table, slot_of(level, va));
		is_private = is_private && !(table && table_is_shared(table));
	}
	return (struct walk){.leaf = table, .is_private = is_private};
}

struct walk table_walk_now(const struct page_table *pt, uint64_t va)
{
	struct walk walk;
	uint64_t shape;

	do {
		shape = shape_read(pt);
		walk = table_walk_path(pt, va);
	} while (unlikely(shape_read(pt) != shape) && !MUTATED(SKIP_RECHECK));
	return walk;
}

/* A leaf gets a family: that of @like, whose entries it will get, or its own. */
static int make_kin(struct table_pool *pool, struct table *made, struct table *like)
{
	int error;

	if (made->level)
		return 0;
	if (!like)
		return kin_found(pool, made);
	error = kin_prepare(pool, made, like, false);
	if (error)
		return error;
	table_lock(like);
	if (!kin_join(made, like))
		UCOW_BUG("a leaf joined a family while its space was locked");
	table_unlock(like);
	return 0;
}

/* The child in @slot, made if missing. Allocation happens outside the lock; whoever installs first wins. */
static struct table *make_child(struct table_pool *pool, struct table *table, unsigned slot, struct table *like)
{
	struct table *made = table_create(pool, table->level - 1u, false), *child;

	if (!made)
		return NULL;
	if (unlikely(make_kin(pool, made, like))) {
		table_put(pool, made);
		return NULL;
	}
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

/* A section, because what is shared may be let go of by another thread of this space while we look at it. */
static struct table *own_down(struct page_table *pt, uint64_t va, unsigned bottom, struct table *like)
{
	struct table *table;

	epoch_enter(pt->pool->epoch);
	table = own_child(pt, NULL, 0, false);
	for (unsigned level = TABLE_ROOT_LEVEL; level > bottom && table; level--) {
		unsigned slot = slot_of(level, va);

		table = child_of(table, slot) ? own_child(pt, table, slot, false)
					      : make_child(pt->pool, table, slot, like);
	}
	epoch_leave(pt->pool->epoch);
	return table;
}

struct table *own_down_to(struct page_table *pt, uint64_t va, unsigned bottom)
{
	return own_down(pt, va, bottom, NULL);
}

int table_own_leaf_of(struct page_table *pt, uint64_t va, struct table *source, struct table **leaf)
{
	struct table *table = own_down(pt, va, 0, source);

	if (!table)
		return -ENOMEM;
	*leaf = table;
	/* It was there already. */
	return table_adopt(pt->pool, table, source, 0);
}

int table_own_leaf(struct page_table *pt, uint64_t va, struct table **leaf)
{
	struct table *table = own_down_to(pt, va, 0);

	if (!table)
		return -ENOMEM;
	*leaf = table;
	return 0;
}

struct table *table_next_leaf(const struct page_table *pt, uint64_t *va, uint64_t end, bool marked)
{
	struct table *root = atomic_load_explicit(&pt->root, memory_order_acquire), *table = root;

	if (marked && !(root->hints & TABLE_MAY_HOLD_REFS))
		return NULL;
	while (*va < end) {
		struct table *child = child_of(table, slot_of(table->level, *va));

		if (!child || (marked && !(child->hints & TABLE_MAY_HOLD_REFS))) {
			uint64_t step = slot_span(table->level);

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

int table_own_range(struct page_table *pt, uint64_t start, uint64_t end)
{
	struct table *leaf;
	int error = 0;

	if (MUTATED(CHANGE_SHARED_RANGE))
		return 0;
	for (uint64_t va = start; !error && table_next_leaf(pt, &va, end, false); va = table_leaf_end(va, end))
		error = table_own_leaf(pt, va, &leaf);
	return error;
}

uint64_t table_leaf_end(uint64_t va, uint64_t end)
{
	return min_u64((va & ~(table_span(0) - 1)) + table_span(0), end);
}

/* ---- emptying a range ---- */

/* Own what exists on the path to @va, the leaf included: an end of a range that will be emptied. */
static int own_edge(struct page_table *pt, uint64_t va)
{
	struct table *table = own_child(pt, NULL, 0, true);

	while (table && table->level) {
		unsigned slot = slot_of(table->level, va);

		if (!child_of(table, slot))
			return 0;
		table = own_child(pt, table, slot, true);
	}
	return table ? 0 : -ENOMEM;
}

#define ZAP_TABLES 64
#define ZAP_PAGES  (4 * TABLE_LEAF_MAX)

/* What was taken out of [start, end), not yet let go of. */
struct zap {
	struct page_table *pt;
	uint64_t start, end;
	unsigned ntables, npages;
	struct table *tables[ZAP_TABLES];
	struct pte pages[ZAP_PAGES];
};

static void zap_begin(struct zap *zap, struct page_table *pt, uint64_t start, uint64_t end)
{
	zap->pt = pt;
	zap->start = start;
	zap->end = end;
	zap->ntables = zap->npages = 0;
}

/* Out of sight first, then the bump, then the cpus leave, and only then the references go [rule 10]. */
static void zap_release(struct zap *zap)
{
	struct page_table *pt = zap->pt;

	if (zap->ntables)
		table_changed_shape(pt);
	tlb_invalidate(&pt->generations, zap->start, zap->end);
	if (!MUTATED(DROP_BEFORE_SHOOTDOWN))
		tlb_shootdown(pt);
	for (unsigned i = 0; i < zap->npages; i++)
		drop_entry(pt->pool, zap->pages[i], pt->tally);
	for (unsigned i = 0; i < zap->ntables; i++)
		table_drop_path(pt->pool, zap->tables[i], pt->tally);
	if (MUTATED(DROP_BEFORE_SHOOTDOWN))
		tlb_shootdown(pt);
	zap->ntables = zap->npages = 0;
}

/* A whole subtree: one reference. */
static void detach(struct zap *zap, struct table *table, unsigned slot)
{
	struct table *child = child_of(table, slot);

	table_lock(table);
	set_child(table, slot, NULL);
	table_unlock(table);
	zap->tables[zap->ntables++] = child;
	if (zap->ntables == ZAP_TABLES)
		zap_release(zap);
}

/* Entries [start, end) of one leaf. */
static void zap_entries(struct zap *zap, struct table *leaf, uint64_t start, uint64_t end)
{
	if (zap->npages + TABLE_LEAF_MAX > ZAP_PAGES)
		zap_release(zap);
	table_lock(leaf);
	for (uint64_t va = start; va < end; va += UCOW_PAGE_SIZE) {
		struct pte pte = leaf_get(leaf, va);

		if (pte_is_none(pte))
			continue;
		if (pte_has_page(pte) || pte_is_swap(pte))
			zap->pages[zap->npages++] = pte;
		table_count_zero(zap->pt->pool, pte, -1);
		leaf_set(leaf, va, pte_none());
	}
	table_unlock(leaf);
}

/* @table is private, and so is what a partly covered slot leads to: the edges were owned first. */
static void zap_below(struct zap *zap, struct table *table, uint64_t base)
{
	uint64_t step = slot_span(table->level), start = zap->start, end = zap->end;

	for (uint64_t from = max_u64(base, start & ~(step - 1)); from < min_u64(base + table_span(table->level), end);
	     from += step) {
		unsigned slot = slot_of(table->level, from);
		struct table *child = child_of(table, slot);

		if (!child)
			continue;
		if (start <= from && from + step <= end) {
			detach(zap, table, slot);
			continue;
		}
		UCOW_BUG_ON(table_is_shared(child));
		if (child->level)
			zap_below(zap, child, from);
		else
			zap_entries(zap, child, max_u64(from, start), min_u64(from + step, end));
		if (!child->used)
			detach(zap, table, slot);
	}
}

int table_own_edges(struct page_table *pt, uint64_t start, uint64_t end)
{
	return own_edge(pt, start) || own_edge(pt, end - 1) ? -ENOMEM : 0;
}

int table_zap(struct page_table *pt, uint64_t start, uint64_t end)
{
	uint64_t at = start;
	struct zap zap;

	if (start >= end || !table_next_leaf(pt, &at, end, false)) {
		/* Where there is no table too: empty entries may be cached as reading zeros [rule 5]. */
		tlb_invalidate(&pt->generations, start, end);
		return 0;
	}
	table_reserve_fill(pt->pool);
	if (table_own_edges(pt, start, end))
		return -ENOMEM;
	zap_begin(&zap, pt, start, end);
	zap_below(&zap, atomic_load_explicit(&pt->root, memory_order_relaxed), 0);
	zap_release(&zap);
	return 0;
}

void table_clear(struct page_table *pt, uint64_t start, uint64_t end)
{
	struct table *leaf;
	struct zap zap;

	zap_begin(&zap, pt, start, end);
	for (uint64_t va = start; (leaf = table_next_leaf(pt, &va, end, false)); va = table_leaf_end(va, end))
		zap_entries(&zap, leaf, va, table_leaf_end(va, end));
	zap_release(&zap);
}

/* ---- visits ---- */

typedef int table_visit(void *arg, struct table *table, uint64_t start, bool is_private);

static int walk_below(struct table *table, uint64_t start, bool is_private, table_visit *visit, void *arg)
{
	int result;

	is_private = is_private && !table_is_shared(table);
	result = visit(arg, table, start, is_private);
	if (!table->level)
		return result;
	for (unsigned slot = 0; !result && slot < fanout_of(table->level); slot++)
		if (child_of(table, slot))
			result = walk_below(child_of(table, slot), start + slot * slot_span(table->level), is_private,
					    visit, arg);
	return result;
}

int table_walk(const struct page_table *pt, table_visit *visit, void *arg)
{
	return walk_below(atomic_load_explicit(&pt->root, memory_order_acquire), 0, true, visit, arg);
}

struct summation {
	const struct table_pool *pool;
	struct table_totals *totals;
};

/* Whose the pages of a leaf on a private path are. */
static void add_owners(const struct table_pool *pool, const struct table *leaf, struct table_totals *totals)
{
	for (unsigned slot = 0; slot < table_fanout(0); slot++) {
		struct pte pte = slot_pte(leaf, slot);
		const struct ucow_page *page;

		if (pte_kind(pte) != PTE_KIND_ANON)
			continue;
		page = pte_page(pool->frames, pte);
		if (page_is(page, PAGE_EXCLUSIVE))
			totals->anon_exclusive++;
		else if (page_mapcount(page) > 1)
			totals->anon_shared++;
	}
}

static int add_totals(void *arg, struct table *table, uint64_t start, bool is_private)
{
	const struct summation *sum = arg;
	struct table_totals *totals = sum->totals;

	(void)start;
	totals->bytes += table_size(table->level);
	if (is_private)
		totals->bytes_private += table_size(table->level);
	totals->anon += table->anon;
	totals->file += table->file;
	totals->swap += table->swap;
	if (!is_private)
		totals->anon_shared += table->anon; /* others see them through the same table */
	else if (table->anon)
		add_owners(sum->pool, table, totals);
	return 0;
}

void table_totals(const struct page_table *pt, struct table_totals *totals)
{
	struct summation sum = {.pool = pt->pool, .totals = totals};

	*totals = (struct table_totals){0};
	table_walk(pt, add_totals, &sum);
}

/* ---- recount ---- */

static void tally(struct table *table, void (*on_table)(void *, struct table *), void *arg)
{
	if (table->tallied++)
		return;
	on_table(arg, table);
	for (unsigned slot = 0; table->level && slot < fanout_of(table->level); slot++)
		if (child_of(table, slot))
			tally(child_of(table, slot), on_table, arg);
}

void table_tally(struct page_table *pt, void (*on_table)(void *arg, struct table *table), void *arg)
{
	tally(atomic_load_explicit(&pt->root, memory_order_relaxed), on_table, arg);
}

static const char *verify(struct table *table)
{
	const char *wrong = NULL;
	uint32_t met = table->tallied;
	unsigned used = 0;

	if (!met)
		return NULL; /* verified through another parent */
	table->tallied = 0;
	for (unsigned slot = 0; slot < fanout_of(table->level); slot++) {
		used += atomic_load_explicit(&table->slots[slot], memory_order_relaxed) != 0;
		if (table->level && child_of(table, slot)) {
			const char *below = verify(child_of(table, slot));

			wrong = wrong ? wrong : below;
		}
	}
	if (wrong)
		return wrong;
	if (met != atomic_load_explicit(&table->refcount, memory_order_relaxed))
		return "a table's refcount is not the number of slots and roots that point to it";
	return used == table->used ? NULL : "a table's count of used slots is wrong";
}

const char *table_verify(struct page_table *pt)
{
	return verify(atomic_load_explicit(&pt->root, memory_order_relaxed));
}
