/* SPDX-License-Identifier: MIT */
/* Tables: entries, shape, walks, totals, freeing, generations. */
#include "table/table.h"
#include "tap.h"

#include <errno.h>

static struct frame_pool frames;
static struct counters counters;
static struct inject inject;
static struct table_pool pool;
static struct table *root;

#define PAGE UCOW_PAGE_SIZE
#define TOP  ((uint64_t)1 << UCOW_ADDRESS_BITS)

static void open_tables(void)
{
	memset(&inject, 0, sizeof(inject));
	memset(&counters, 0, sizeof(counters));
	REQUIRE_EQ(frame_pool_init(&frames, FRAME_BLOCK_BYTES, &inject, &counters, true, false), 0);
	table_pool_init(&pool, &inject);
	root = table_root_create(&pool);
	REQUIRE(root != NULL);
}

static void close_tables(void)
{
	table_put(&pool, root);
	CHECK_EQ(atomic_load(&pool.bytes), 0);
	table_pool_destroy(&pool);
	frame_pool_destroy(&frames);
}

static struct table *leaf_of(uint64_t va)
{
	struct table *leaf = NULL;

	REQUIRE_EQ(table_make_leaf(&pool, root, va, &leaf), 0);
	return leaf;
}

static void set(uint64_t va, struct pte pte)
{
	struct table *leaf = leaf_of(va);

	table_lock(leaf);
	leaf_set(leaf, va, pte);
	table_unlock(leaf);
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
	CHECK(!table_find_leaf(root, 0) && !table_find_leaf(root, TOP - PAGE));
	CHECK(!table_next_leaf(root, &va, TOP));
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
		CHECK(table_find_leaf(root, va) == leaf && leaf_of(va) == leaf);
		CHECK(table_same_leaf(va, base));
	}
	CHECK(!table_find_leaf(root, base - 1) && !table_find_leaf(root, base + span));
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

		CHECK(pte_is_same(leaf_get(table_find_leaf(root, va), va), filler()));
		va = TOP - step;
		CHECK(pte_is_same(leaf_get(table_find_leaf(root, va), va), filler()));
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
	table_totals(root, &totals);
	CHECK(totals.anon == 12 && totals.file == 11 && totals.swap == 0);
	CHECK_EQ(totals.bytes, atomic_load(&pool.bytes));
	for (unsigned i = 0; i < 33; i++)
		set(base + i * PAGE, pte_none());
	table_totals(root, &totals);
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
	for (uint64_t va = 0; table_next_leaf(root, &va, TOP); va = table_leaf_end(va, TOP), n++) {
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
		struct table *leaf = table_find_leaf(root, places[i]);
		uint64_t va = places[i] + 5 * PAGE; /* from the middle of a leaf: that leaf, from there on */

		CHECK(table_next_leaf(root, &va, TOP) == leaf && va == places[i] + 5 * PAGE);
		va = places[i] - PAGE;
		CHECK(table_next_leaf(root, &va, places[i] + PAGE) != NULL);
		va = i ? places[i - 1] + table_span(0) : 0;
		if (va < places[i])
			CHECK(table_next_leaf(root, &va, places[i]) == NULL); /* the end is not included */
	}
	unscatter();
	close_tables();
}

struct seen {
	unsigned n, stop_at, by_level[TABLE_LEVELS];
	uint64_t last[TABLE_LEVELS];
	bool wrong;
};

static int see(void *arg, struct table *table, uint64_t start)
{
	struct seen *seen = arg;

	seen->n++;
	if (start % table_span(table->level) != 0 || (seen->n == 1) != (table->level == TABLE_ROOT_LEVEL))
		seen->wrong = true;
	if (seen->by_level[table->level]++ && start <= seen->last[table->level])
		seen->wrong = true;
	seen->last[table->level] = start;
	if (atomic_load(&table->refcount) != 1)
		seen->wrong = true;
	return seen->stop_at == seen->n ? 5 : 0;
}

TEST(walk_visits_every_table_once)
{
	struct seen seen = {0};

	open_tables();
	scatter();
	CHECK_EQ(table_walk(root, see, &seen), 0);
	CHECK(!seen.wrong);
	CHECK_EQ(seen.by_level[0], PLACES);
	CHECK_EQ(seen.by_level[TABLE_ROOT_LEVEL], 1);
	for (unsigned stop = 1; stop <= seen.n; stop++) {
		struct seen again = {.stop_at = stop};

		CHECK_EQ(table_walk(root, see, &again), 5);
		CHECK_EQ(again.n, stop);
	}
	unscatter();
	close_tables();
}

/* ---- freeing ---- */

TEST(empty_tables_are_freed_and_others_kept)
{
	uint64_t empty_bytes, base = table_span(3) - table_span(0);

	open_tables();
	empty_bytes = atomic_load(&pool.bytes);
	set(base, filler());
	set(base + table_span(0), filler()); /* the next leaf has no common parent below the third level */
	table_free_empty(&pool, root, 0, TOP);
	CHECK(table_find_leaf(root, base) && table_find_leaf(root, base + table_span(0)));
	set(base, pte_none());
	table_free_empty(&pool, root, base, base + PAGE);
	CHECK(!table_find_leaf(root, base) && table_find_leaf(root, base + table_span(0)));
	set(base + table_span(0), pte_none());
	table_free_empty(&pool, root, base, base + 2 * table_span(0));
	CHECK(!table_find_leaf(root, base + table_span(0)));
	CHECK_EQ(atomic_load(&pool.bytes), empty_bytes);
	CHECK_EQ(root->used, 0);
	close_tables();
}

/* Would catch a range that frees what lies beside it. */
TEST(freeing_stays_within_its_range)
{
	uint64_t base = 5 * table_span(1);

	open_tables();
	for (unsigned i = 0; i < 4; i++)
		leaf_of(base + i * table_span(0)); /* four empty leaves */
	table_free_empty(&pool, root, base + table_span(0), base + 3 * table_span(0));
	CHECK(table_find_leaf(root, base) && table_find_leaf(root, base + 3 * table_span(0)));
	CHECK(!table_find_leaf(root, base + table_span(0)) && !table_find_leaf(root, base + 2 * table_span(0)));
	table_free_empty(&pool, root, 0, TOP);
	CHECK_EQ(root->used, 0);
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
		CHECK_EQ(table_make_leaf(&pool, root, va, &leaf), -ENOMEM);
		CHECK(!table_find_leaf(root, va));
		CHECK_EQ(table_make_leaf(&pool, root, va, &leaf), 0);
		CHECK(table_find_leaf(root, va) == leaf);
		close_tables();
	}
}

TEST(a_root_without_memory)
{
	open_tables();
	inject_arm(&inject, UCOW_INJECT_TABLE, 1);
	CHECK(!table_root_create(&pool));
	close_tables();
}

/* A root with a second reference stays until that goes as well. */
TEST(tables_live_as_long_as_references)
{
	uint64_t bytes;

	open_tables();
	leaf_of(0);
	bytes = atomic_load(&pool.bytes);
	atomic_fetch_add(&root->refcount, 1);
	table_put(&pool, root);
	CHECK_EQ(atomic_load(&pool.bytes), bytes);
	CHECK(table_find_leaf(root, 0) != NULL);
	close_tables();
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
