/* SPDX-License-Identifier: MIT */
/* Looking: ucow_query and ucow_walk_tables show what is there and disturb nothing. */
#include "fixture.h"

TEST(query_does_not_fault)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_machine_stat before, after;
	struct ucow_entry_info e;

	ucow_machine_stat(w.machine, &before);
	e = query(w.mm, va);
	CHECK(e.mapped && !e.present && !e.writable && !e.dirty && !e.exclusive);
	CHECK_EQ(e.prot, RW);
	e = query(w.mm, va - PAGE);
	CHECK(!e.mapped && !e.present);
	ucow_machine_stat(w.machine, &after);
	CHECK(memcmp(&before, &after, sizeof(before)) == 0);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULTS), 0);
	world_close(&w);
}

TEST(query_accepts_any_address)
{
	static const uint64_t wild[] = {0, 1, UCOW_ADDRESS_LIMIT, (uint64_t)1 << 48, UINT64_MAX};
	struct world w = world_open();

	for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++)
		CHECK(!query(w.mm, wild[i]).mapped && !query(w.mm, wild[i]).present);
	world_close(&w);
}

TEST(query_follows_the_life_of_an_entry)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_entry_info e;

	CHECK_EQ(get64(w.cpu, va), 0);
	e = query(w.mm, va);
	CHECK(e.present && e.zero_page && e.special && e.accessed);
	CHECK(!e.anon && !e.writable && !e.dirty && !e.exclusive && e.mapcount == 0 && !e.maybe_pinned);
	put64(w.cpu, va + 8, 1);
	e = query(w.mm, va + 100); /* any address within the page */
	CHECK(e.present && e.anon && e.exclusive && e.writable && e.dirty && e.soft_dirty && e.accessed);
	CHECK(!e.zero_page && !e.special && !e.swapped && !e.uffd_wp && !e.ksm && !e.huge && !e.protnone);
	CHECK_EQ(e.mapcount, 1);
	CHECK_EQ(e.refcount, 1);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_NONE), 0);
	e = query(w.mm, va);
	CHECK(e.present && e.exclusive && !e.writable && e.prot == UCOW_PROT_NONE);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_DONTNEED), 0);
	e = query(w.mm, va);
	CHECK(e.mapped && !e.present);
	world_close(&w);
}

TEST(different_pages_have_different_frames)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 100);
	static uint64_t pfns[100];

	for (unsigned i = 0; i < 100; i++) {
		put64(w.cpu, va + i * PAGE, 1);
		pfns[i] = query(w.mm, va + i * PAGE).pfn;
		for (unsigned k = 0; k < i; k++)
			CHECK(pfns[k] != pfns[i]);
	}
	world_close(&w);
}

struct tables {
	unsigned n, leaves, anon, file;
	uint64_t previous_start;
	struct ucow_table_info path[6];
	bool wrong;
	unsigned stop_after;
};

/* Parents first, in address order, children inside their parents and a fan-out's part of them. */
static int see_table(void *arg, const struct ucow_table_info *table)
{
	struct tables *t = arg;
	const struct ucow_table_info *parent = table->level < 5 ? &t->path[table->level + 1] : NULL;

	t->n++;
	if (table->level > 5 || table->start >= table->end || table->used > table->entries || !table->refcount)
		t->wrong = true;
	if (parent && (table->start < parent->start || table->end > parent->end ||
		       (table->end - table->start) * parent->entries != parent->end - parent->start))
		t->wrong = true;
	if (table->level < 5 && t->n == 1)
		t->wrong = true; /* the root comes first */
	if (table->level == 0) {
		if (t->leaves++ && table->start <= t->previous_start)
			t->wrong = true;
		t->previous_start = table->start;
		t->anon += table->anon;
		t->file += table->file;
		if (table->anon + table->file + table->swap > table->used)
			t->wrong = true;
	}
	t->path[table->level] = *table;
	return t->stop_after && t->n == t->stop_after ? 77 : 0;
}

TEST(walk_shows_every_table_once_in_order)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 40);
	struct tables t = {0};

	map_at(w.mm, BASE + ((uint64_t)1 << 40), 3, RW, UCOW_MAP_SHARED);
	for (unsigned i = 0; i < 40; i++)
		put64(w.cpu, va + i * PAGE, 1);
	put64(w.cpu, BASE + ((uint64_t)1 << 40), 1);
	CHECK_EQ(ucow_walk_tables(w.mm, see_table, &t), 0);
	CHECK(!t.wrong);
	CHECK_EQ(t.anon, 40);
	CHECK_EQ(t.file, 1);
	CHECK(t.leaves >= 3 && t.path[5].start == 0 && t.path[5].end == (uint64_t)1 << 48);
	world_close(&w);
}

TEST(walk_ends_where_the_visitor_says)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 40);
	struct tables t = {.stop_after = 3};

	put64(w.cpu, va, 1);
	put64(w.cpu, va + 39 * PAGE, 1);
	CHECK_EQ(ucow_walk_tables(w.mm, see_table, &t), 77);
	CHECK_EQ(t.n, 3);
	world_close(&w);
}

/* The bytes that the space accounts for are its tables, no more and no fewer. */
TEST(walk_of_an_empty_space_shows_at_most_the_root)
{
	struct world w = world_open();
	struct tables t = {0};

	CHECK_EQ(ucow_walk_tables(w.mm, see_table, &t), 0);
	CHECK(t.n <= 1 && !t.wrong);
	world_close(&w);
}

TEST(check_terminates_its_answer)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	char why[8] = "xxxxxxx";

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_machine_check(w.machine, why, sizeof(why)), 0);
	CHECK(memchr(why, 0, sizeof(why)) != NULL);
	world_close(&w);
}

TAP_MAIN()
