/* SPDX-License-Identifier: MIT */
/*
 * Tables: entries, shape, walks, totals, emptying, generations; and sharing: whole trees by one reference, one path
 * taken back at a time, marks, and what happens when there is no memory for it.
 */
#include "table/table.h"
#include "tap.h"

#include <errno.h>
#include <pthread.h>

static struct frame_pool frames;
static struct counters counters;
static struct inject inject;
static struct epoch epoch;
static struct table_pool pool;
static struct page_table space; /* the one that most tests need */

#define PAGE UCOW_PAGE_SIZE
#define TOP  ((uint64_t)1 << UCOW_ADDRESS_BITS)

static void release_page(struct epoch *unused, void *page)
{
	(void)unused;
	page_put(page);
}

static void release_tables(struct epoch *unused, void *chain)
{
	(void)unused;
	table_release_chain(&pool, chain);
}

static void open_tables(void)
{
	memset(&inject, 0, sizeof(inject));
	memset(&counters, 0, sizeof(counters));
	REQUIRE_EQ(frame_pool_init(&frames, 4 * FRAME_BLOCK_BYTES, &inject, &counters, true, false), 0);
	REQUIRE_EQ(epoch_init(&epoch, release_page, release_tables), 0);
	table_pool_init(&pool, &frames, &epoch, &inject, &counters, false);
	page_table_init(&space, &pool);
	REQUIRE_EQ(page_table_make_root(&space), 0);
}

/* Nothing is left of a test, neither tables nor pages. */
static void close_tables(void)
{
	page_table_drop(&space);
	epoch_synchronize(&epoch);
	CHECK_EQ(atomic_load(&pool.bytes), 0);
	CHECK_EQ(frame_pool_used(&frames), 0);
	epoch_destroy(&epoch);
	table_pool_destroy(&pool);
	frame_pool_destroy(&frames);
}

static uint64_t bytes_in_use(void)
{
	return atomic_load(&pool.bytes);
}

static struct table *root_of(const struct page_table *pt)
{
	return atomic_load(&pt->root);
}

static uint32_t references(const struct table *table)
{
	return atomic_load(&table->refcount);
}

static struct table *own(struct page_table *pt, uint64_t va)
{
	struct table *leaf = NULL;

	REQUIRE_EQ(table_own_leaf(pt, va, &leaf), 0);
	return leaf;
}

static void set_in(struct page_table *pt, uint64_t va, struct pte pte)
{
	struct table *leaf = own(pt, va);

	table_lock(leaf);
	leaf_set(leaf, va, pte);
	table_unlock(leaf);
}

static struct table *leaf_of(uint64_t va)
{
	return own(&space, va);
}

static void set(uint64_t va, struct pte pte)
{
	set_in(&space, va, pte);
}

static struct pte entry(const struct page_table *pt, uint64_t va)
{
	const struct table *leaf = table_find_leaf(pt, va);

	return leaf ? leaf_get(leaf, va) : pte_none();
}

/* Something that maps nothing counted: tests of shape need no frames. */
static struct pte filler(void)
{
	return pte_make_zero(&frames);
}

/* ---- entries ---- */

TEST(an_empty_entry_is_nothing)
{
	struct pte pte = pte_none();

	CHECK(pte_is_none(pte) && !pte_is_present(pte) && !pte_has_page(pte));
	CHECK_EQ(pte_kind(pte), PTE_KIND_NONE);
}

TEST(entries_know_what_they_map)
{
	static char host[2 * 4096];
	char *aligned = host + (-(uintptr_t)host & 4095);
	struct ucow_page *page;
	struct pte pte;

	open_tables();
	page = frame_alloc(&frames, FRAME_ANY);
	pte = pte_make_anon(page);
	CHECK(pte_kind(pte) == PTE_KIND_ANON && pte_has_page(pte) && pte_page(&frames, pte) == page);
	CHECK(pte_host(&frames, pte) == page_bytes(page));
	pte = pte_make_shared(page);
	CHECK(pte_kind(pte) == PTE_KIND_SHARED && pte_has_page(pte) && pte_page(&frames, pte) == page);
	pte = pte_make_zero(&frames);
	CHECK(pte_kind(pte) == PTE_KIND_ZERO_PAGE && !pte_has_page(pte) && pte_is_special(pte));
	CHECK(pte_host(&frames, pte) == page_bytes(frames.zero_page));
	pte = pte_make_pfn(aligned);
	CHECK(pte_kind(pte) == PTE_KIND_PFN && !pte_has_page(pte) && pte_is_special(pte));
	CHECK(pte_host(&frames, pte) == aligned); /* a host address of 47 bits goes in and comes out */
	page_put(page);
	close_tables();
}

/* Every maker starts read-only, accessed and clean. */
TEST(fresh_entries_are_read_only_and_clean)
{
	struct ucow_page *page;
	struct pte ptes[3];

	open_tables();
	page = frame_alloc(&frames, FRAME_ANY);
	ptes[0] = pte_make_anon(page);
	ptes[1] = pte_make_shared(page);
	ptes[2] = pte_make_zero(&frames);
	for (int i = 0; i < 3; i++)
		CHECK(pte_is_present(ptes[i]) && pte_is_accessed(ptes[i]) && !pte_is_writable(ptes[i]) &&
		      !pte_is_dirty(ptes[i]) && !pte_is_soft_dirty(ptes[i]) && !pte_is_protnone(ptes[i]) &&
		      !pte_is_uffd_wp(ptes[i]));
	page_put(page);
	close_tables();
}

/* Each bit is changed by its own functions and by no other; the frame never changes. */
TEST(bits_do_not_disturb_each_other)
{
	struct ucow_page *page;
	struct pte pte, was;

	open_tables();
	page = frame_alloc(&frames, FRAME_ANY);
	was = pte_make_anon(page);
	pte = pte_mkwrite(was);
	CHECK(pte_is_writable(pte) && pte_is_same(pte_wrprotect(pte), was));
	pte = pte_mkdirty(was);
	CHECK(pte_is_dirty(pte) && pte_is_soft_dirty(pte)); /* on x86 dirty implies soft-dirty */
	CHECK(!pte_is_dirty(pte_mkclean(pte)) && pte_is_soft_dirty(pte_mkclean(pte)));
	pte = pte_mkold(was);
	CHECK(!pte_is_accessed(pte) && pte_is_same(pte_mkyoung(pte), was));
	pte = pte_mk_soft_dirty(was);
	CHECK(pte_is_soft_dirty(pte) && !pte_is_dirty(pte));
	pte = pte_mk_protnone(pte_mkwrite(was));
	CHECK(pte_is_protnone(pte) && !pte_is_writable(pte) && pte_is_present(pte));
	CHECK(pte_is_same(pte_clear_protnone(pte), was));
	pte = pte_mkwrite(pte_mkdirty(was));
	CHECK(pte_frame(pte) == pte_frame(was) && pte_page(&frames, pte) == page && pte_kind(pte) == PTE_KIND_ANON);
	page_put(page);
	close_tables();
}

/* An unshare copy keeps the soft-dirty and userfaultfd bits, and nothing else: semantics.md B.3. */
TEST(unshare_inherits_two_bits)
{
	struct ucow_page *page;
	struct pte old, fresh, pte;

	open_tables();
	page = frame_alloc(&frames, FRAME_ANY);
	fresh = pte_make_anon(page);
	old = pte_mkwrite(pte_mkdirty(pte_make_zero(&frames)));
	pte = pte_inherit(fresh, old);
	CHECK(pte_is_soft_dirty(pte) && !pte_is_dirty(pte) && !pte_is_writable(pte) && pte_page(&frames, pte) == page);
	CHECK(pte_is_same(pte_inherit(fresh, pte_make_zero(&frames)), fresh));
	page_put(page);
	close_tables();
}

/* ---- shape ---- */

/* Six levels cover the address space exactly; would catch a fan-out that was changed in one place only. */
TEST(levels_cover_the_address_space)
{
	uint64_t span = PAGE;

	for (unsigned level = 0; level < TABLE_LEVELS; level++) {
		CHECK(table_fanout(level) > 1);
		span *= table_fanout(level);
		CHECK_EQ(table_span(level), span);
	}
	CHECK_EQ(span, TOP);
	CHECK_EQ(table_fanout(0), TABLE_LEAF_MAX);
}

TEST(an_empty_root_has_no_leaves)
{
	uint64_t va = 0;

	open_tables();
	CHECK(!table_find_leaf(&space, 0) && !table_find_leaf(&space, TOP - PAGE));
	CHECK(!table_next_leaf(&space, &va, TOP, false));
	close_tables();
}

/* One leaf for all addresses that it spans, another one for the next. */
TEST(a_leaf_covers_its_span)
{
	uint64_t span = table_span(0), base = 7 * table_span(2) - span;
	struct table *leaf;

	open_tables();
	leaf = leaf_of(base + 5 * PAGE);
	CHECK_EQ(leaf->level, 0);
	for (uint64_t va = base; va < base + span; va += PAGE) {
		CHECK(table_find_leaf(&space, va) == leaf && leaf_of(va) == leaf);
		CHECK(table_same_leaf(va, base));
	}
	CHECK(!table_find_leaf(&space, base - 1) && !table_find_leaf(&space, base + span));
	CHECK(!table_same_leaf(base - 1, base) && !table_same_leaf(base + span - 1, base + span));
	CHECK(leaf_of(base + span) != leaf);
	CHECK_EQ(table_leaf_end(base, TOP), base + span);
	CHECK_EQ(table_leaf_end(base + span - 1, TOP), base + span);
	CHECK_EQ(table_leaf_end(base + PAGE, base + 3 * PAGE), base + 3 * PAGE);
	close_tables();
}

/* Every slot of every level can be used, the first and the last of each. */
TEST(both_ends_of_every_level)
{
	open_tables();
	for (unsigned level = 0; level < TABLE_LEVELS; level++) {
		uint64_t step = level ? table_span(level - 1) : PAGE;

		set(step * (table_fanout(level) - 1), filler());
		set(TOP - step, filler());
	}
	for (unsigned level = 0; level < TABLE_LEVELS; level++) {
		uint64_t step = level ? table_span(level - 1) : PAGE, va = step * (table_fanout(level) - 1);

		CHECK(pte_is_same(leaf_get(table_find_leaf(&space, va), va), filler()));
		va = TOP - step;
		CHECK(pte_is_same(leaf_get(table_find_leaf(&space, va), va), filler()));
	}
	for (unsigned level = 0; level < TABLE_LEVELS; level++) {
		uint64_t step = level ? table_span(level - 1) : PAGE;

		set(step * (table_fanout(level) - 1), pte_none());
		set(TOP - step, pte_none());
	}
	close_tables();
}

/* ---- totals ---- */

TEST(totals_follow_the_entries)
{
	uint64_t base = 3 * table_span(1);
	struct table_totals totals;
	struct ucow_page *page;
	struct table *leaf;

	open_tables();
	page = frame_alloc(&frames, FRAME_ANY);
	leaf = leaf_of(base);
	for (unsigned i = 0; i < table_fanout(0); i++)
		set(base + i * PAGE, i % 3 == 0 ? pte_make_anon(page) : i % 3 == 1 ? pte_make_shared(page) : filler());
	CHECK_EQ(leaf->used, 32);
	CHECK_EQ(leaf->anon, 11);
	CHECK_EQ(leaf->file, 11);
	set(base, pte_make_shared(page)); /* one kind replaces another */
	set(base + PAGE, pte_none());
	set(base + 2 * PAGE, pte_make_anon(page));
	set(base + 3 * PAGE, pte_mkwrite(pte_make_anon(page))); /* the same kind again */
	CHECK(leaf->used == 31 && leaf->anon == 11 && leaf->file == 11);
	set(base + table_span(0), pte_make_anon(page)); /* another leaf */
	table_totals(&space, &totals);
	CHECK(totals.anon == 12 && totals.file == 11 && totals.swap == 0);
	CHECK_EQ(totals.bytes, atomic_load(&pool.bytes));
	for (unsigned i = 0; i < 33; i++)
		set(base + i * PAGE, pte_none());
	table_totals(&space, &totals);
	CHECK(totals.anon == 0 && totals.file == 0 && leaf->used == 0);
	page_put(page);
	close_tables();
}

/* ---- iteration ---- */

static uint64_t draw(uint64_t *state, uint64_t n)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % n;
}

enum { PLACES = 40 };
static uint64_t places[PLACES]; /* leaf starts, ascending */

static void scatter(void)
{
	uint64_t state = tap_seed(), va = 0;

	for (unsigned i = 0; i < PLACES; i++) {
		unsigned level = (unsigned)draw(&state, TABLE_LEVELS - 1);

		va += table_span(level) * (1 + draw(&state, 3));
		va &= ~(table_span(0) - 1);
		places[i] = va;
		set(va + draw(&state, table_fanout(0)) * PAGE, filler());
	}
}

static void unscatter(void)
{
	for (unsigned i = 0; i < PLACES; i++)
		for (uint64_t va = places[i]; va < places[i] + table_span(0); va += PAGE)
			set(va, pte_none());
}

/* Every leaf once, in order; would catch a skip that jumps too far over an empty subtree. */
TEST(next_leaf_finds_every_leaf_in_order)
{
	unsigned n = 0;

	open_tables();
	scatter();
	for (uint64_t va = 0; table_next_leaf(&space, &va, TOP, false); va = table_leaf_end(va, TOP), n++) {
		CHECK(n < PLACES);
		CHECK_EQ(va, places[n]);
	}
	CHECK_EQ(n, PLACES);
	unscatter();
	close_tables();
}

TEST(next_leaf_respects_both_ends)
{
	open_tables();
	scatter();
	for (unsigned i = 0; i < PLACES; i++) {
		struct table *leaf = table_find_leaf(&space, places[i]);
		uint64_t va = places[i] + 5 * PAGE; /* from the middle of a leaf: that leaf, from there on */

		CHECK(table_next_leaf(&space, &va, TOP, false) == leaf && va == places[i] + 5 * PAGE);
		va = places[i] - PAGE;
		CHECK(table_next_leaf(&space, &va, places[i] + PAGE, false) != NULL);
		va = i ? places[i - 1] + table_span(0) : 0;
		if (va < places[i])
			CHECK(table_next_leaf(&space, &va, places[i], false) == NULL); /* the end is not included */
	}
	unscatter();
	close_tables();
}

struct seen {
	unsigned n, stop_at, by_level[TABLE_LEVELS];
	uint64_t last[TABLE_LEVELS];
	bool wrong;
};

static int see(void *arg, struct table *table, uint64_t start, bool is_private)
{
	struct seen *seen = arg;

	seen->n++;
	if (start % table_span(table->level) != 0 || (seen->n == 1) != (table->level == TABLE_ROOT_LEVEL))
		seen->wrong = true;
	if (seen->by_level[table->level]++ && start <= seen->last[table->level])
		seen->wrong = true;
	seen->last[table->level] = start;
	if (references(table) != 1 || !is_private)
		seen->wrong = true;
	return seen->stop_at == seen->n ? 5 : 0;
}

TEST(walk_visits_every_table_once)
{
	struct seen seen = {0};

	open_tables();
	scatter();
	CHECK_EQ(table_walk(&space, see, &seen), 0);
	CHECK(!seen.wrong);
	CHECK_EQ(seen.by_level[0], PLACES);
	CHECK_EQ(seen.by_level[TABLE_ROOT_LEVEL], 1);
	for (unsigned stop = 1; stop <= seen.n; stop++) {
		struct seen again = {.stop_at = stop};

		CHECK_EQ(table_walk(&space, see, &again), 5);
		CHECK_EQ(again.n, stop);
	}
	unscatter();
	close_tables();
}

/* ---- emptying ---- */

TEST(empty_tables_are_freed_and_others_kept)
{
	uint64_t empty_bytes, base = table_span(3) - table_span(0);

	open_tables();
	empty_bytes = bytes_in_use();
	set(base, filler());
	set(base + table_span(0), filler()); /* the next leaf has no common parent below the third level */
	CHECK_EQ(table_zap(&space, base + PAGE, base + table_span(0)), 0);
	CHECK(table_find_leaf(&space, base) && table_find_leaf(&space, base + table_span(0)));
	CHECK_EQ(table_zap(&space, base, base + PAGE), 0);
	CHECK(!table_find_leaf(&space, base) && table_find_leaf(&space, base + table_span(0)));
	CHECK_EQ(table_zap(&space, base, base + 2 * table_span(0)), 0);
	CHECK(!table_find_leaf(&space, base + table_span(0)));
	CHECK_EQ(bytes_in_use(), empty_bytes);
	CHECK_EQ(root_of(&space)->used, 0);
	close_tables();
}

/* Would catch a range that frees what lies beside it, at any level. */
TEST(emptying_stays_within_its_range)
{
	open_tables();
	for (unsigned level = 0; level < TABLE_ROOT_LEVEL; level++) {
		uint64_t span = table_span(level), base = 6 * span;

		set(base - PAGE, filler());
		set(base, filler());
		set(base + span - PAGE, filler());
		set(base + span, filler());
		CHECK_EQ(table_zap(&space, base, base + span), 0);
		CHECK(!pte_is_none(entry(&space, base - PAGE)) && !pte_is_none(entry(&space, base + span)));
		CHECK(pte_is_none(entry(&space, base)) && pte_is_none(entry(&space, base + span - PAGE)));
		CHECK_EQ(table_zap(&space, 0, TOP), 0);
		CHECK_EQ(root_of(&space)->used, 0);
	}
	close_tables();
}

TEST(emptying_what_is_empty_needs_nothing)
{
	uint64_t shape;

	open_tables();
	shape = atomic_load(&space.shape);
	inject_arm(&inject, UCOW_INJECT_TABLE, 1);
	CHECK_EQ(table_zap(&space, 0, TOP), 0);
	CHECK_EQ(table_zap(&space, 5 * PAGE, 5 * PAGE), 0);
	CHECK(inject_arm(&inject, UCOW_INJECT_TABLE, 0));
	CHECK_EQ(atomic_load(&space.shape), shape);
	close_tables();
}

TEST(clearing_keeps_the_tables)
{
	struct table *leaf;

	open_tables();
	leaf = leaf_of(0);
	set(PAGE, filler());
	set(2 * PAGE, filler());
	table_clear(&space, 0, 2 * PAGE);
	CHECK(table_find_leaf(&space, 0) == leaf && leaf->used == 1);
	CHECK(pte_is_none(entry(&space, PAGE)) && !pte_is_none(entry(&space, 2 * PAGE)));
	close_tables();
}

/* ---- out of memory ---- */

/* At every level: the tables made so far stay, empty, and the next try goes on from there. */
TEST(a_path_without_memory_can_be_finished_later)
{
	for (uint64_t nth = 1; nth < TABLE_LEVELS; nth++) {
		uint64_t va = 77 * table_span(3);
		struct table *leaf = NULL;

		open_tables();
		inject_arm(&inject, UCOW_INJECT_TABLE, nth);
		CHECK_EQ(table_own_leaf(&space, va, &leaf), -ENOMEM);
		CHECK(!table_find_leaf(&space, va));
		CHECK_EQ(table_own_leaf(&space, va, &leaf), 0);
		CHECK(table_find_leaf(&space, va) == leaf);
		close_tables();
	}
}

TEST(a_root_without_memory)
{
	struct page_table other;

	open_tables();
	page_table_init(&other, &pool);
	inject_arm(&inject, UCOW_INJECT_TABLE, 1);
	CHECK_EQ(page_table_make_root(&other), -ENOMEM);
	page_table_drop(&other); /* without a root there is nothing to drop */
	close_tables();
}

/* ---- sharing: what the tests below stand on ---- */

/* Addresses whose paths part at every level: the first two lie in one leaf, the last has only the root in common. */
enum { PLACES_APART = TABLE_LEVELS + 1 };

static uint64_t apart(unsigned i)
{
	uint64_t base = 3 * table_span(TABLE_LEVELS - 2);

	return i == 0 ? base : i == 1 ? base + PAGE : base + table_span(i - 2);
}

/* A page as a first store leaves it: exclusive, its entry writable and dirty. */
static struct ucow_page *fill(struct page_table *pt, uint64_t va)
{
	struct ucow_page *page = frame_alloc(&frames, FRAME_ANY);

	REQUIRE(page != NULL);
	page_init_mapped(page, PAGE_ANON | PAGE_EXCLUSIVE);
	set_in(pt, va, pte_mkwrite(pte_mkdirty(pte_make_anon(page))));
	return page;
}

static struct ucow_page *apart_pages[PLACES_APART];

static void fill_apart(void)
{
	for (unsigned i = 0; i < PLACES_APART; i++)
		apart_pages[i] = fill(&space, apart(i));
}

static void share_to(struct page_table *child)
{
	page_table_init(child, &pool);
	REQUIRE_EQ(page_table_share(&space, child), 0);
}

static bool is_private(const struct page_table *pt, uint64_t va)
{
	return table_walk_path(pt, va).is_private;
}

/* As a page that nobody but one entry knows of. */
static bool is_untouched(const struct ucow_page *page)
{
	return page_refcount(page) == 1 && page_mapcount(page) == 1 && page_is(page, PAGE_EXCLUSIVE);
}

static uint64_t path_bytes(void)
{
	uint64_t nbytes = 0;

	for (unsigned level = 0; level < TABLE_LEVELS; level++)
		nbytes += table_size(level);
	return nbytes;
}

static uint64_t counted(enum ucow_counter counter)
{
	return counters_sum(&counters, counter);
}

/* Once for each table that a tally meets. */
static void count_table(void *arg, struct table *table)
{
	(void)table;
	++*(unsigned *)arg;
}

/* The references of all tables are as many as slots and roots point to them. */
static const char *recount(struct page_table *const *spaces, unsigned n, unsigned *tables)
{
	const char *wrong = NULL;

	*tables = 0;
	for (unsigned i = 0; i < n; i++)
		table_tally(spaces[i], count_table, tables);
	for (unsigned i = 0; i < n; i++) {
		const char *found = table_verify(spaces[i]);

		wrong = wrong ? wrong : found;
	}
	return wrong;
}

static const char *recount_two(struct page_table *child)
{
	struct page_table *spaces[] = {&space, child};
	unsigned tables;

	return recount(spaces, 2, &tables);
}

/* ---- sharing: a whole tree by one reference ---- */

/* Constant cost: one reference on the root, whatever hangs below; no page, entry or other table is touched. */
TEST(sharing_takes_one_reference_on_the_root)
{
	struct page_table child;
	uint64_t nbytes;

	open_tables();
	fill_apart();
	nbytes = bytes_in_use();
	share_to(&child);
	CHECK(root_of(&child) == root_of(&space));
	CHECK_EQ(references(root_of(&space)), 2);
	CHECK_EQ(bytes_in_use(), nbytes);
	CHECK_EQ(counted(UCOW_COUNTER_TABLE_SHARE), 1);
	for (unsigned i = 0; i < PLACES_APART; i++) {
		CHECK_EQ(references(table_find_leaf(&space, apart(i))), 1);
		CHECK(is_untouched(apart_pages[i]) && pte_is_writable(entry(&space, apart(i))));
		CHECK(!is_private(&space, apart(i)) && !is_private(&child, apart(i)));
	}
	CHECK(recount_two(&child) == NULL);
	page_table_drop(&child);
	close_tables();
}

/* No fault is owed after fork and exit: entries and flags are in force again, without anything having been done. */
TEST(the_last_sharer_finds_everything_as_it_was)
{
	struct page_table child, grandchild;

	open_tables();
	fill_apart();
	share_to(&child);
	share_to(&grandchild);
	CHECK_EQ(references(root_of(&space)), 3);
	page_table_drop(&child);
	CHECK(!is_private(&space, apart(0)));
	page_table_drop(&grandchild);
	for (unsigned i = 0; i < PLACES_APART; i++)
		CHECK(is_private(&space, apart(i)) && is_untouched(apart_pages[i]) &&
		      pte_is_writable(entry(&space, apart(i))));
	CHECK_EQ(counted(UCOW_COUNTER_TABLE_UNSHARE), 0);
	close_tables();
}

/* The one who forked may go first. */
TEST(the_child_inherits_when_the_parent_is_dropped)
{
	struct page_table child;

	open_tables();
	fill_apart();
	share_to(&child);
	page_table_drop(&space);
	for (unsigned i = 0; i < PLACES_APART; i++)
		CHECK(is_private(&child, apart(i)) && is_untouched(apart_pages[i]));
	page_table_drop(&child);
	close_tables();
}

TEST(an_empty_tree_is_shared)
{
	struct page_table child;
	struct table *leaf;

	open_tables();
	share_to(&child);
	leaf = own(&child, 5 * PAGE);
	CHECK(leaf && !table_find_leaf(&space, 5 * PAGE));
	CHECK(recount_two(&child) == NULL);
	page_table_drop(&child);
	close_tables();
}

/* ---- sharing: one path taken back ---- */

/* Six tables and no more; what parts from the path keeps its one copy, with one more reference where it parts. */
TEST(an_unshare_copies_the_tables_of_one_path)
{
	struct page_table child;
	struct table *before, *after;
	uint64_t nbytes;

	open_tables();
	fill_apart();
	share_to(&child);
	nbytes = bytes_in_use();
	before = table_find_leaf(&space, apart(0));
	after = own(&child, apart(0));
	CHECK_EQ(bytes_in_use(), nbytes + path_bytes());
	CHECK_EQ(counted(UCOW_COUNTER_TABLE_UNSHARE), TABLE_LEVELS);
	CHECK(after != before && table_find_leaf(&child, apart(0)) == after);
	CHECK(table_find_leaf(&space, apart(0)) == before);
	CHECK(references(before) == 1 && references(after) == 1);
	CHECK(is_private(&space, apart(0)) && is_private(&child, apart(0)));
	for (unsigned i = 2; i < PLACES_APART; i++) {
		struct table *leaf = table_find_leaf(&space, apart(i));

		CHECK(table_find_leaf(&child, apart(i)) == leaf);
		CHECK(!is_private(&space, apart(i)) && !is_private(&child, apart(i)));
		CHECK_EQ(references(leaf), i == 2 ? 2 : 1); /* the others hang below a shared table */
	}
	CHECK(recount_two(&child) == NULL);
	page_table_drop(&child);
	close_tables();
}

/* The pages of the copied leaf, and only they, are accounted for as an eager fork does: semantics.md B.1, B.4. */
TEST(an_unshare_accounts_for_the_pages_of_its_leaf)
{
	struct page_table child;

	open_tables();
	fill_apart();
	share_to(&child);
	own(&child, apart(0));
	for (unsigned i = 0; i < PLACES_APART; i++) {
		const struct ucow_page *page = apart_pages[i];
		bool copied = i < 2;

		CHECK_EQ(page_refcount(page), copied ? 2 : 1);
		CHECK_EQ(page_mapcount(page), copied ? 2 : 1);
		CHECK_EQ(page_is(page, PAGE_EXCLUSIVE), !copied);
		CHECK_EQ(pte_is_writable(entry(&space, apart(i))), !copied);
		CHECK_EQ(pte_is_writable(entry(&child, apart(i))), !copied);
		CHECK(pte_is_dirty(entry(&child, apart(i))));
	}
	page_table_drop(&child);
	CHECK_EQ(page_refcount(apart_pages[0]), 1);
	CHECK_EQ(page_mapcount(apart_pages[0]), 1);
	close_tables();
}

/* Would catch an unshare that copies what is private already, or counts the pages twice. */
TEST(the_other_side_keeps_the_original)
{
	struct page_table child;
	struct table *leaf, *copy;
	uint64_t nbytes;

	open_tables();
	fill_apart();
	share_to(&child);
	leaf = table_find_leaf(&space, apart(0));
	copy = own(&child, apart(0));
	nbytes = bytes_in_use();
	CHECK(own(&space, apart(0)) == leaf && own(&child, apart(0)) == copy);
	CHECK_EQ(bytes_in_use(), nbytes);
	CHECK_EQ(page_refcount(apart_pages[0]), 2);
	own(&space, apart(2)); /* only its leaf is still shared */
	CHECK_EQ(bytes_in_use(), nbytes + table_size(0));
	own(&child, apart(2));
	CHECK_EQ(bytes_in_use(), nbytes + table_size(0));
	CHECK_EQ(page_refcount(apart_pages[2]), 2);
	CHECK(recount_two(&child) == NULL);
	page_table_drop(&child);
	close_tables();
}

/* A missing leaf is made for one side and is missing for the other as before. */
TEST(a_new_leaf_is_its_makers_alone)
{
	uint64_t va = apart(0) + 5 * table_span(0);
	struct page_table child;

	open_tables();
	fill_apart();
	share_to(&child);
	set_in(&child, va, filler());
	CHECK(!table_find_leaf(&space, va));
	CHECK(is_private(&child, va));
	CHECK(is_untouched(apart_pages[0]) && is_untouched(apart_pages[2]));
	CHECK(recount_two(&child) == NULL);
	page_table_drop(&child);
	close_tables();
}

/* The entries of one leaf, one of every kind, and what a copy makes of them. */
static void set_kinds(uint64_t base, struct ucow_page *anon, struct ucow_page *file, const void *host)
{
	struct pte own_page = pte_mkdirty(pte_make_anon(anon));
	const struct pte kinds[] = {
		pte_mkwrite(own_page),
		pte_mk_protnone(own_page),
		pte_mkold(pte_mkclean(own_page)),
		{pte_make_anon(anon).v | PTE_UFFD_WP},
		pte_mkwrite(pte_mkdirty(pte_make_shared(file))),
		pte_make_zero(&frames),
		pte_mkwrite(pte_make_pfn(host)),
		pte_mk_soft_dirty(pte_make_zero(&frames)),
	};

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		set(base + 2 * i * PAGE, kinds[i]);
		if (!pte_has_page(kinds[i]))
			continue;
		page_get(pte_page(&frames, kinds[i]));
		page_map(pte_page(&frames, kinds[i]));
	}
}

/* Decided by page and entry, never by a mapping: only anon pages lose the write permission. Rule 1. */
TEST(a_copied_leaf_is_verbatim)
{
	uint64_t base = 9 * table_span(3);
	struct ucow_page *anon, *file;
	struct page_table child;
	struct pte was[TABLE_LEAF_MAX];
	struct table *leaf, *copy;

	open_tables();
	anon = frame_alloc(&frames, FRAME_ANY);
	file = frame_alloc(&frames, FRAME_ANY);
	page_set(anon, PAGE_ANON);
	set_kinds(base, anon, file, frames.ram);
	leaf = leaf_of(base);
	for (unsigned i = 0; i < table_fanout(0); i++)
		was[i] = leaf_get(leaf, base + i * PAGE);
	share_to(&child);
	copy = own(&child, base);
	for (unsigned i = 0; i < table_fanout(0); i++) {
		struct pte expected = pte_kind(was[i]) == PTE_KIND_ANON ? pte_wrprotect(was[i]) : was[i];

		CHECK(pte_is_same(leaf_get(copy, base + i * PAGE), expected));
		CHECK(pte_is_same(leaf_get(leaf, base + i * PAGE), expected));
	}
	CHECK(copy->used == leaf->used && copy->anon == leaf->anon && copy->file == leaf->file);
	CHECK(copy->used == 8 && copy->anon == 4 && copy->file == 1);
	CHECK_EQ(page_mapcount(anon), 8);
	CHECK_EQ(page_mapcount(file), 2);
	page_table_drop(&child);
	CHECK_EQ(page_mapcount(anon), 4);
	page_put(anon);
	page_put(file);
	close_tables();
}

/* A grandchild takes its path from a tree that is itself half shared. */
TEST(three_generations_unshare_one_page_each)
{
	struct page_table child, grandchild, *all[] = {&space, &child, &grandchild};
	unsigned tables;

	open_tables();
	fill_apart();
	share_to(&child);
	own(&child, apart(0));
	page_table_init(&grandchild, &pool);
	CHECK_EQ(page_table_share(&child, &grandchild), 0);
	own(&grandchild, apart(0));
	CHECK_EQ(page_refcount(apart_pages[0]), 3);
	own(&space, apart(3));
	own(&grandchild, apart(3));
	own(&child, apart(3));
	CHECK_EQ(page_refcount(apart_pages[3]), 3);
	CHECK_EQ(page_mapcount(apart_pages[3]), 3);
	CHECK_EQ(page_refcount(apart_pages[4]), 1);
	CHECK(recount(all, 3, &tables) == NULL);
	page_table_drop(&child);
	page_table_drop(&space);
	CHECK(is_private(&grandchild, apart(4)) && is_untouched(apart_pages[4]));
	page_table_drop(&grandchild);
	page_table_init(&space, &pool);
	close_tables();
}

/* Whoever cached a walk or a translation below a table that is replaced must walk again: rules 8 and 9. */
/* The copy says what the shared table says: translations stay. */
TEST(an_unshare_voids_walks_of_its_space_and_no_translations)
{
	uint64_t shape, generation, others;
	struct page_table child;

	open_tables();
	fill_apart();
	share_to(&child);
	shape = atomic_load(&child.shape);
	generation = generation_read(&child.generations, apart(0));
	others = generation_read(&space.generations, apart(0));
	own(&child, apart(0));
	CHECK(atomic_load(&child.shape) > shape);
	CHECK_EQ(generation_read(&child.generations, apart(0)), generation);
	CHECK_EQ(generation_read(&space.generations, apart(0)), others);
	shape = atomic_load(&child.shape);
	own(&child, apart(0)); /* nothing is replaced now */
	CHECK_EQ(atomic_load(&child.shape), shape);
	CHECK_EQ(generation_read(&child.generations, apart(0)), generation);
	page_table_drop(&child);
	close_tables();
}

TEST(owning_a_range_owns_the_leaves_that_exist)
{
	uint64_t base = apart(0), span = table_span(0);
	struct page_table child;
	uint64_t nbytes;

	open_tables();
	for (unsigned i = 0; i < 6; i++)
		if (i != 3)
			fill(&space, base + i * span);
	share_to(&child);
	own(&child, base);
	nbytes = bytes_in_use();
	CHECK_EQ(table_own_range(&child, base + 2 * span - PAGE, base + 4 * span + PAGE), 0);
	CHECK_EQ(bytes_in_use(), nbytes + 3 * table_size(0)); /* 1, 2 and 4: 3 is not there */
	CHECK(!table_find_leaf(&child, base + 3 * span));
	CHECK(is_private(&child, base + span) && is_private(&child, base + 4 * span));
	CHECK(!is_private(&child, base + 5 * span));
	CHECK(recount_two(&child) == NULL);
	page_table_drop(&child);
	close_tables();
}

/* ---- sharing without memory ---- */

/* At every level: nothing that a program sees has changed, for nobody, and the next try goes on. */
TEST(an_unshare_without_memory_changes_nothing)
{
	for (uint64_t nth = 1; nth <= TABLE_LEVELS; nth++) {
		struct page_table child;
		struct table *leaf = NULL;

		open_tables();
		fill_apart();
		share_to(&child);
		inject_arm(&inject, UCOW_INJECT_TABLE, nth);
		CHECK_EQ(table_own_leaf(&child, apart(0), &leaf), -ENOMEM);
		for (unsigned i = 0; i < PLACES_APART; i++) {
			CHECK(is_untouched(apart_pages[i]) && pte_is_writable(entry(&space, apart(i))));
			CHECK(table_find_leaf(&child, apart(i)) == table_find_leaf(&space, apart(i)));
			CHECK(!is_private(&child, apart(i)) && !is_private(&space, apart(i)));
		}
		CHECK(recount_two(&child) == NULL);
		CHECK_EQ(table_own_leaf(&child, apart(0), &leaf), 0);
		CHECK_EQ(page_refcount(apart_pages[0]), 2);
		CHECK(recount_two(&child) == NULL);
		page_table_drop(&child);
		close_tables();
	}
}

/* Owning a range needs a table a leaf; whichever is missing, the entries are as they were. */
TEST(owning_a_range_without_memory)
{
	unsigned failures = 0;

	for (uint64_t nth = 1;; nth++) {
		struct page_table child;
		int rc;

		open_tables();
		for (unsigned i = 0; i < 4; i++)
			fill(&space, apart(0) + i * table_span(0));
		share_to(&child);
		inject_arm(&inject, UCOW_INJECT_TABLE, nth);
		rc = table_own_range(&child, apart(0), apart(0) + 4 * table_span(0));
		failures += rc == -ENOMEM;
		CHECK_EQ(rc, inject_arm(&inject, UCOW_INJECT_TABLE, 0) ? 0 : -ENOMEM);
		CHECK(recount_two(&child) == NULL);
		for (unsigned i = 0; i < 4; i++)
			CHECK(!pte_is_none(entry(&child, apart(0) + i * table_span(0))));
		page_table_drop(&child);
		close_tables();
		if (!rc)
			break;
	}
	CHECK_EQ(failures, TABLE_LEVELS + 3);
}

/* ---- marks ---- */

static bool is_marked(const struct table *table)
{
	return atomic_load(&table->hints) & TABLE_MAY_HOLD_REFS;
}

static int count_marks(void *arg, struct table *table, uint64_t start, bool private_path)
{
	(void)start;
	(void)private_path;
	*(unsigned *)arg += is_marked(table);
	return 0;
}

static unsigned marks(const struct page_table *pt)
{
	unsigned n = 0;

	table_walk(pt, count_marks, &n);
	return n;
}

TEST(a_mark_lies_on_every_table_of_the_path)
{
	open_tables();
	fill_apart();
	CHECK_EQ(marks(&space), 0);
	table_mark_path(&space, apart(1));
	CHECK_EQ(marks(&space), TABLE_LEVELS);
	CHECK(is_marked(root_of(&space)) && is_marked(table_find_leaf(&space, apart(0))));
	CHECK(!is_marked(table_find_leaf(&space, apart(2))));
	table_mark_path(&space, apart(2));
	CHECK_EQ(marks(&space), TABLE_LEVELS + 1);
	close_tables();
}

/* True as long as an exclusive page below has a reference beyond its mapping's: rule 4. */
TEST(stale_marks_go_and_true_ones_stay)
{
	open_tables();
	fill_apart();
	for (unsigned i = 0; i < PLACES_APART; i++)
		table_mark_path(&space, apart(i));
	page_get(apart_pages[3]);
	table_refresh_marks(&space);
	CHECK_EQ(marks(&space), TABLE_LEVELS);
	CHECK(is_marked(table_find_leaf(&space, apart(3))) && !is_marked(table_find_leaf(&space, apart(0))));
	page_put(apart_pages[3]);
	table_refresh_marks(&space);
	CHECK_EQ(marks(&space), 0);
	close_tables();
}

/* A page that is nobody's alone is copied by whoever writes to it: references on it do not matter. */
TEST(references_on_pages_that_are_not_exclusive_keep_no_mark)
{
	open_tables();
	fill_apart();
	page_get(apart_pages[0]);
	page_clear(apart_pages[0], PAGE_EXCLUSIVE);
	table_mark_path(&space, apart(0));
	table_refresh_marks(&space);
	CHECK_EQ(marks(&space), 0);
	page_put(apart_pages[0]);
	close_tables();
}

TEST(marked_leaves_are_found_alone)
{
	uint64_t va = 0;

	open_tables();
	fill_apart();
	CHECK(!table_next_leaf(&space, &va, TOP, true));
	table_mark_path(&space, apart(2));
	table_mark_path(&space, apart(5));
	va = 0;
	CHECK(table_next_leaf(&space, &va, TOP, true) == table_find_leaf(&space, apart(2)));
	CHECK_EQ(va, apart(2));
	va += table_span(0);
	CHECK(table_next_leaf(&space, &va, TOP, true) == table_find_leaf(&space, apart(5)));
	va += table_span(0);
	CHECK(!table_next_leaf(&space, &va, TOP, true));
	close_tables();
}

/* A marked table has one reference, always: the child gets tables of its own there, its leaf still empty. */
TEST(marked_paths_are_not_shared)
{
	struct page_table child;
	const struct table *leaf;

	open_tables();
	fill_apart();
	page_get(apart_pages[0]);
	table_mark_path(&space, apart(0));
	share_to(&child);
	leaf = table_find_leaf(&child, apart(0));
	CHECK(leaf && leaf != table_find_leaf(&space, apart(0)) && leaf->used == 0);
	CHECK(is_private(&space, apart(0)) && is_private(&child, apart(0)));
	CHECK(is_marked(table_find_leaf(&space, apart(0))) && !is_marked(leaf));
	CHECK_EQ(page_refcount(apart_pages[0]), 2);
	CHECK_EQ(page_mapcount(apart_pages[0]), 1);
	CHECK(page_is(apart_pages[0], PAGE_EXCLUSIVE) && pte_is_writable(entry(&space, apart(0))));
	for (unsigned i = 2; i < PLACES_APART; i++) {
		CHECK(table_find_leaf(&child, apart(i)) == table_find_leaf(&space, apart(i)));
		CHECK(!is_private(&child, apart(i)) && is_untouched(apart_pages[i]));
	}
	CHECK_EQ(counted(UCOW_COUNTER_TABLE_SHARE), PLACES_APART - 2);
	CHECK(recount_two(&child) == NULL);
	page_put(apart_pages[0]);
	page_table_drop(&child);
	close_tables();
}

/* Whichever table is missing, the parent is as before and nothing is left of the child. */
TEST(sharing_without_memory_for_the_marked_paths)
{
	for (uint64_t nth = 1; nth <= TABLE_LEVELS; nth++) {
		struct page_table child, *alone[] = {&space};
		unsigned tables;
		uint64_t nbytes;

		open_tables();
		fill_apart();
		table_mark_path(&space, apart(0));
		nbytes = bytes_in_use();
		page_table_init(&child, &pool);
		inject_arm(&inject, UCOW_INJECT_TABLE, nth);
		CHECK_EQ(page_table_share(&space, &child), -ENOMEM);
		page_table_drop(&child);
		CHECK_EQ(bytes_in_use(), nbytes);
		CHECK(recount(alone, 1, &tables) == NULL);
		for (unsigned i = 0; i < PLACES_APART; i++)
			CHECK(is_private(&space, apart(i)) && is_untouched(apart_pages[i]));
		close_tables();
	}
}

/* ---- emptying what is shared ---- */

/* One sharer empties some entries of a leaf; the others see theirs, and the pages are counted right. */
TEST(emptying_a_part_of_a_shared_leaf)
{
	struct page_table child;
	struct ucow_page *pages[8];
	uint64_t base = apart(0);

	open_tables();
	for (unsigned i = 0; i < 8; i++)
		pages[i] = fill(&space, base + i * PAGE);
	share_to(&child);
	CHECK_EQ(table_zap(&child, base + 2 * PAGE, base + 5 * PAGE), 0);
	for (unsigned i = 0; i < 8; i++) {
		bool gone = i >= 2 && i < 5;

		CHECK_EQ(pte_is_none(entry(&child, base + i * PAGE)), gone);
		CHECK(pte_page(&frames, entry(&space, base + i * PAGE)) == pages[i]);
		CHECK_EQ(page_refcount(pages[i]), gone ? 1 : 2);
		CHECK_EQ(page_mapcount(pages[i]), gone ? 1 : 2);
	}
	CHECK(recount_two(&child) == NULL);
	page_table_drop(&child);
	close_tables();
}

/* What lies wholly inside the range goes by one reference, unseen: no page is touched but in the leaves of its ends. */
TEST(emptying_whole_shared_subtrees_touches_no_page)
{
	for (unsigned level = 1; level < TABLE_ROOT_LEVEL; level++) {
		uint64_t span = table_span(level), base = 3 * table_span(TABLE_LEVELS - 2), step = span / 8;
		struct ucow_page *pages[15];
		struct page_table child;

		open_tables();
		for (unsigned i = 0; i < 15; i++)
			pages[i] = fill(&space, base + step / 2 + i * step);
		share_to(&child);
		CHECK_EQ(table_zap(&child, base, base + 2 * span), 0);
		for (unsigned i = 0; i < 15; i++) {
			CHECK(pte_is_none(entry(&child, base + step / 2 + i * step)));
			CHECK(is_untouched(pages[i]) && pte_is_writable(entry(&space, base + step / 2 + i * step)));
		}
		CHECK(is_private(&space, base + span)); /* nobody else is left there */
		CHECK(recount_two(&child) == NULL);
		page_table_drop(&child);
		close_tables();
	}
}

/* Either side may empty its range; what is left is the other's alone. */
TEST(the_sharer_that_empties_leaves_the_pages_to_the_other)
{
	struct page_table child;

	open_tables();
	fill_apart();
	share_to(&child);
	CHECK_EQ(table_zap(&space, 0, TOP), 0);
	CHECK_EQ(root_of(&space)->used, 0);
	for (unsigned i = 0; i < PLACES_APART; i++) {
		CHECK(pte_page(&frames, entry(&child, apart(i))) == apart_pages[i]);
		CHECK_EQ(page_refcount(apart_pages[i]), 1);
		CHECK_EQ(page_mapcount(apart_pages[i]), 1);
	}
	CHECK(recount_two(&child) == NULL);
	page_table_drop(&child);
	close_tables();
}

/* Freeing memory does not fail for lack of it: the reserve has what the two edges need, every time. Rule 2. */
TEST(emptying_does_not_fail_for_lack_of_tables)
{
	uint64_t base = apart(0) + table_span(0) / 2, end = base + table_span(3);

	for (uint64_t nth = 1; nth <= 2 * TABLE_LEVELS; nth++) {
		struct page_table child;
		bool fired;

		open_tables();
		for (uint64_t va = base - table_span(0); va <= end + table_span(0); va += table_span(2) / 2)
			fill(&space, va);
		fill(&space, end - PAGE);
		fill(&space, end);
		share_to(&child);
		inject_arm(&inject, UCOW_INJECT_TABLE, nth);
		CHECK_EQ(table_zap(&child, base, end), 0);
		fired = !inject_arm(&inject, UCOW_INJECT_TABLE, 0);
		CHECK(fired || nth > TABLE_LEVELS);
		for (uint64_t va = base; va < end; va += table_span(0))
			CHECK(pte_is_none(entry(&child, va)));
		CHECK(pte_is_none(entry(&child, end - PAGE)) && !pte_is_none(entry(&child, end)));
		CHECK(!pte_is_none(entry(&space, end - PAGE)));
		CHECK(recount_two(&child) == NULL);
		page_table_drop(&child);
		close_tables();
	}
}

/* The reserve is filled again before each use; would catch one that is good for a few calls. */
TEST(the_reserve_lasts)
{
	struct page_table child;

	open_tables();
	for (unsigned i = 0; i < 100; i++)
		fill(&space, apart(0) + i * table_span(0));
	for (unsigned i = 0; i < 100; i++) {
		share_to(&child);
		inject_arm(&inject, UCOW_INJECT_TABLE, 1 + i % TABLE_LEVELS);
		CHECK_EQ(table_zap(&child, apart(0) + i * table_span(0), apart(0) + i * table_span(0) + PAGE), 0);
		CHECK(!inject_arm(&inject, UCOW_INJECT_TABLE, 0));
		page_table_drop(&child);
	}
	close_tables();
}

/* ---- counted ahead: fork mode `tables` ---- */

#define BLOCK table_span(1)

static void open_counting_tables(void)
{
	open_tables();
	pool.accounts_ahead = true;
}

/* @child gets @npages pages of one block that start at @base. */
static void fill_block(struct page_table *child, uint64_t base, struct ucow_page **pages, unsigned npages)
{
	for (unsigned i = 0; i < npages; i++)
		pages[i] = fill(&space, base + i * (table_span(0) / 2));
	page_table_init(child, &pool);
	REQUIRE_EQ(page_table_make_root(child), 0);
	REQUIRE_EQ(table_prepare_block(&space, child, base), 0);
	table_share_block(&space, child, base);
}

TEST(a_shared_block_counts_its_pages_for_both)
{
	uint64_t base = 5 * BLOCK;
	struct page_table child;
	struct ucow_page *pages[8];

	open_counting_tables();
	fill_block(&child, base, pages, 8);
	for (unsigned i = 0; i < 8; i++) {
		uint64_t va = base + i * (table_span(0) / 2);

		CHECK(page_refcount(pages[i]) == 2 && page_mapcount(pages[i]) == 2);
		CHECK(!page_is(pages[i], PAGE_EXCLUSIVE) && !pte_is_writable(entry(&space, va)));
		CHECK(table_find_leaf(&child, va) == table_find_leaf(&space, va));
		CHECK_EQ(table_find_leaf(&child, va)->accounted, 2);
		CHECK_EQ(references(table_find_leaf(&child, va)), 1); /* it is the block that is shared */
	}
	CHECK(!is_private(&space, base) && references(root_of(&space)) == 1);
	CHECK_EQ(counted(UCOW_COUNTER_TABLE_SHARE), 1);
	CHECK(recount_two(&child) == NULL);
	page_table_drop(&child);
	for (unsigned i = 0; i < 8; i++)
		CHECK(page_refcount(pages[i]) == 1 && page_mapcount(pages[i]) == 1);
	CHECK_EQ(table_find_leaf(&space, base)->accounted, 1);
	close_tables();
}

/* The copy takes over the count of one path, so that nothing is counted again. */
TEST(an_unshare_takes_over_what_was_counted)
{
	uint64_t base = 5 * BLOCK;
	struct page_table child;
	struct ucow_page *pages[8];
	struct table *copy;

	open_counting_tables();
	fill_block(&child, base, pages, 8);
	copy = own(&child, base);
	CHECK(copy != table_find_leaf(&space, base));
	CHECK(copy->accounted == 1 && table_find_leaf(&space, base)->accounted == 1);
	CHECK_EQ(table_find_leaf(&space, base + table_span(0))->accounted, 2);
	for (unsigned i = 0; i < 8; i++)
		CHECK(page_refcount(pages[i]) == 2 && page_mapcount(pages[i]) == 2);
	CHECK(recount_two(&child) == NULL);
	page_table_drop(&space);
	for (unsigned i = 0; i < 8; i++)
		CHECK(page_refcount(pages[i]) == 1 && page_mapcount(pages[i]) == 1);
	page_table_drop(&child);
	page_table_init(&space, &pool);
	close_tables();
}

TEST(emptying_a_counted_block_takes_one_count_back)
{
	uint64_t base = 5 * BLOCK;
	struct page_table child;
	struct ucow_page *pages[8];

	open_counting_tables();
	fill_block(&child, base, pages, 8);
	CHECK_EQ(table_zap(&child, base + 3 * PAGE, base + BLOCK), 0);
	CHECK(!pte_is_none(entry(&child, base)) && pte_is_none(entry(&child, base + table_span(0))));
	for (unsigned i = 0; i < 8; i++)
		CHECK(page_refcount(pages[i]) == (i ? 1 : 2) && page_mapcount(pages[i]) == (i ? 1 : 2));
	CHECK(recount_two(&child) == NULL);
	CHECK_EQ(table_zap(&space, base, base + BLOCK), 0);
	CHECK_EQ(page_refcount(pages[0]), 1);
	CHECK_EQ(frame_pool_used(&frames), 1);
	page_table_drop(&child);
	close_tables();
}

TEST(blocks_are_found_in_order_with_their_marks)
{
	uint64_t va = 0;
	bool marked = true;

	open_counting_tables();
	set(2 * BLOCK - PAGE, filler());
	set(7 * BLOCK, filler());
	set(9 * BLOCK + PAGE, filler());
	table_mark_path(&space, 7 * BLOCK);
	CHECK(table_next_block(&space, &va, TOP, &marked) && va == BLOCK && !marked);
	CHECK_EQ(table_block_end(va + PAGE), 2 * BLOCK);
	va = table_block_end(va);
	CHECK(table_next_block(&space, &va, TOP, &marked) && va == 7 * BLOCK && marked);
	va = table_block_end(va);
	CHECK(!table_next_block(&space, &va, 9 * BLOCK, &marked));
	va = 8 * BLOCK;
	CHECK(table_next_block(&space, &va, TOP, &marked) && va == 9 * BLOCK && !marked);
	va = table_block_end(va);
	CHECK(!table_next_block(&space, &va, TOP, &marked));
	close_tables();
}

/* ---- recounting ---- */

/* Each table is met once, however many spaces see it. */
TEST(a_tally_meets_every_table_once)
{
	struct page_table child, *all[] = {&space, &child};
	struct seen seen = {0};
	unsigned tables;

	open_tables();
	fill_apart();
	table_walk(&space, see, &seen);
	share_to(&child);
	CHECK(recount(all, 2, &tables) == NULL);
	CHECK_EQ(tables, seen.n);
	own(&child, apart(0));
	CHECK(recount(all, 2, &tables) == NULL);
	CHECK_EQ(tables, seen.n + TABLE_LEVELS);
	page_table_drop(&child);
	close_tables();
}

/* Would catch a recount that cannot fail: one reference too many or too few anywhere is seen, and seen once. */
TEST(a_wrong_count_is_seen)
{
	struct page_table child;

	open_tables();
	fill_apart();
	share_to(&child);
	own(&child, apart(0));
	for (unsigned i = 0; i < PLACES_APART; i++) {
		struct table *leaf = table_find_leaf(&space, apart(i));

		atomic_fetch_add(&leaf->refcount, 1);
		CHECK(recount_two(&child) != NULL);
		atomic_fetch_sub(&leaf->refcount, 1);
		leaf->used++;
		CHECK(recount_two(&child) != NULL);
		leaf->used--;
		CHECK(recount_two(&child) == NULL);
	}
	atomic_fetch_add(&root_of(&child)->refcount, 1);
	CHECK(recount_two(&child) != NULL);
	atomic_fetch_sub(&root_of(&child)->refcount, 1);
	CHECK(recount_two(&child) == NULL);
	page_table_drop(&child);
	close_tables();
}

/* ---- depth and size ---- */

enum { GENERATIONS = 3000 };

static void *grow_and_fell(void *arg)
{
	static struct page_table line[GENERATIONS];
	bool oldest_first = *(bool *)arg;
	struct page_table *last = &space;

	for (unsigned i = 0; i < GENERATIONS; i++) {
		page_table_init(&line[i], &pool);
		if (page_table_share(last, &line[i]))
			return NULL;
		set_in(&line[i], apart(i % PLACES_APART), filler());
		last = &line[i];
	}
	for (unsigned i = 0; i < GENERATIONS; i++)
		page_table_drop(&line[oldest_first ? i : GENERATIONS - 1 - i]);
	return line;
}

/* Forks of forks, thousands deep, on a small stack: recursion goes by the levels of a tree, never by generations. */
TEST(a_deep_line_of_descent_needs_no_deep_stack)
{
	for (int oldest_first = 0; oldest_first < 2; oldest_first++) {
		bool order = oldest_first;
		pthread_attr_t attr;
		pthread_t thread;
		void *done = NULL;

		open_tables();
		for (unsigned i = 0; i < PLACES_APART; i++)
			set(apart(i), filler());
		REQUIRE_EQ(pthread_attr_init(&attr), 0);
		REQUIRE_EQ(pthread_attr_setstacksize(&attr, (size_t)256 << 10), 0);
		REQUIRE_EQ(pthread_create(&thread, &attr, grow_and_fell, &order), 0);
		REQUIRE_EQ(pthread_join(thread, &done), 0);
		pthread_attr_destroy(&attr);
		CHECK(done != NULL);
		CHECK(is_private(&space, apart(0)));
		close_tables();
	}
}

/* The last reference to a big tree takes everything along: tables and pages. */
TEST(the_last_reference_frees_a_big_tree)
{
	struct page_table child;

	open_tables();
	for (unsigned i = 0; i < 5000; i++)
		set(i * table_span(0), filler());
	for (unsigned i = 0; i < 1000; i++)
		fill(&space, i * (uint64_t)table_span(1) + PAGE);
	share_to(&child);
	page_table_drop(&space);
	CHECK_EQ(frame_pool_used(&frames), 1000);
	page_table_drop(&child);
	CHECK_EQ(frame_pool_used(&frames), 0);
	CHECK_EQ(bytes_in_use(), 0);
	page_table_init(&space, &pool);
	close_tables();
}

/* ---- several threads ---- */

enum { SHARERS = 4, ROUNDS = 200 };

struct sharer {
	pthread_t thread;
	struct page_table pt;
	int rc;
};

static void *own_everything(void *arg)
{
	struct sharer *sharer = arg;
	struct table *leaf;

	for (unsigned i = 0; i < PLACES_APART; i++)
		sharer->rc |= table_own_leaf(&sharer->pt, apart(PLACES_APART - 1 - i), &leaf);
	return NULL;
}

/* All sharers take the same paths at once: each ends with its own, one of them with the original, none with a copy too
 * many counted. Rule 3.
 */
TEST(sharers_may_unshare_one_path_at_the_same_time)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct page_table *all[SHARERS];
		struct sharer sharers[SHARERS];
		unsigned tables;

		open_tables();
		fill_apart();
		for (unsigned i = 0; i < SHARERS; i++) {
			share_to(&sharers[i].pt);
			sharers[i].rc = 0;
			all[i] = &sharers[i].pt;
		}
		page_table_drop(&space);
		for (unsigned i = 0; i < SHARERS; i++)
			REQUIRE_EQ(pthread_create(&sharers[i].thread, NULL, own_everything, &sharers[i]), 0);
		for (unsigned i = 0; i < SHARERS; i++)
			REQUIRE_EQ(pthread_join(sharers[i].thread, NULL), 0);
		CHECK(recount(all, SHARERS, &tables) == NULL);
		for (unsigned i = 0; i < PLACES_APART; i++)
			CHECK(page_refcount(apart_pages[i]) == SHARERS && page_mapcount(apart_pages[i]) == SHARERS);
		for (unsigned i = 0; i < SHARERS; i++) {
			CHECK(!sharers[i].rc && is_private(&sharers[i].pt, apart(0)));
			page_table_drop(&sharers[i].pt);
		}
		page_table_init(&space, &pool);
		close_tables();
	}
}

/* ---- generations ---- */

#define REGION ((uint64_t)1 << UCOW_TLB_REGION_SHIFT)

/* How many of the counters an invalidation changes, and whether those of its own range are among them. */
static unsigned changed_by(uint64_t start, uint64_t end, bool *covered)
{
	struct generations now, before;
	unsigned changed = 0;

	generations_init(&now);
	before = now;
	tlb_invalidate(&now, start, end);
	for (unsigned i = 0; i < UCOW_TLB_REGIONS; i++)
		changed += now.of[i] != before.of[i];
	*covered = generation_read(&now, start) != generation_read(&before, start) &&
		   generation_read(&now, end - 1) != generation_read(&before, end - 1);
	return changed;
}

/* Would catch a translation that survives at the border of two regions. */
TEST(invalidation_bumps_the_regions_of_its_range)
{
	bool covered;

	CHECK(changed_by(5 * REGION, 5 * REGION + PAGE, &covered) == 1 && covered);
	CHECK(changed_by(5 * REGION, 6 * REGION, &covered) == 1 && covered);
	CHECK(changed_by(6 * REGION - PAGE, 6 * REGION + PAGE, &covered) == 2 && covered);
	CHECK(changed_by(62 * REGION, 66 * REGION, &covered) == 4 && covered); /* around the end of the array */
	CHECK(changed_by(3 * REGION, 67 * REGION, &covered) == UCOW_TLB_REGIONS && covered);
	CHECK(changed_by(0, UCOW_ADDRESS_LIMIT, &covered) == UCOW_TLB_REGIONS && covered);
	CHECK_EQ(changed_by(REGION, REGION, &covered), 0);
}

TEST(invalidations_count_up)
{
	struct generations g;
	uint64_t before;

	generations_init(&g);
	before = generation_read(&g, 0);
	for (unsigned i = 1; i <= 100; i++) {
		tlb_invalidate(&g, 0, PAGE);
		CHECK_EQ(generation_read(&g, REGION - 1), before + i);
	}
	CHECK_EQ(generation_read(&g, REGION), before);
}

TAP_MAIN()
