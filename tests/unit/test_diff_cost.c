/* SPDX-License-Identifier: MIT */
/*
 * What ucow_diff costs, counted in tables that it looks into and not in time: after a fork that shares tables the
 * number goes with the paths that changed, whatever the size of the spaces.
 */
#include "fixture.h"

#include "ops/ops.h"

enum { CHANGED = 10 };
#define START    ((uint64_t)2 << 30)
#define GIGABYTE ((uint64_t)1 << 30)

/* One page in every leaf of a GiB: as many tables as if all were there. */
static struct world open_gigabyte(enum ucow_fork_mode mode)
{
	struct ucow_machine_options options = default_options();
	struct world w;

	options.ram_bytes = (uint64_t)64 << 20;
	options.fork_mode = mode;
	w = world_open_with(&options);
	map_at(w.mm, START, GIGABYTE / PAGE, RW, UCOW_MAP_PRIVATE);
	for (uint64_t va = START; va < START + GIGABYTE; va += table_span(0))
		put64(w.cpu, va, 1);
	return w;
}

/* Spread over the leaves, no two in one block of 2 MiB. */
static uint64_t changed_page(unsigned i)
{
	return START + i * (GIGABYTE / CHANGED / table_span(0)) * table_span(0);
}

struct shape {
	unsigned tables; /* of any level */
	unsigned upper;  /* above the 2 MiB blocks, which a fork in mode `tables` shares */
};

static int add_table(void *arg, struct table *table, uint64_t start, bool is_private)
{
	struct shape *shape = arg;

	(void)start;
	(void)is_private;
	shape->tables++;
	shape->upper += table_span(table->level) > (uint64_t)2 << 20;
	return 0;
}

static struct shape shape_of(const struct ucow_mm *mm)
{
	struct shape shape = {0};

	table_walk(&mm->pt, add_table, &shape);
	return shape;
}

static int count_visit(void *arg, uint64_t va, enum ucow_diff_kind kind)
{
	unsigned *n = arg;

	REQUIRE_EQ(va, changed_page(*n));
	REQUIRE_EQ(kind, UCOW_DIFF_DIFFERENT);
	(*n)++;
	return 0;
}

/* Returns: tables looked into; insists on @pages visits, of the pages that changed. */
static uint64_t cost(struct ucow_mm *a, struct ucow_mm *b, unsigned pages)
{
	uint64_t looked = 0;
	unsigned n = 0;

	REQUIRE_EQ(space_diff(a, b, count_visit, &n, &looked), 0);
	REQUIRE_EQ(n, pages);
	return looked;
}

static struct ucow_mm *fork_and_change(struct world *w)
{
	struct ucow_mm *child = fork_mm(w->mm);

	ucow_cpu_attach(w->cpu, child);
	for (unsigned i = 0; i < CHANGED; i++)
		put64(w->cpu, changed_page(i), 2);
	ucow_cpu_attach(w->cpu, w->mm);
	return child;
}

TEST(nothing_changed_costs_nothing_after_a_lazy_fork)
{
	struct world w = open_gigabyte(UCOW_FORK_LAZY);
	struct ucow_mm *child = fork_mm(w.mm);

	CHECK_EQ(cost(w.mm, child, 0), 0);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(a_lazy_fork_costs_the_paths_that_changed)
{
	struct world w = open_gigabyte(UCOW_FORK_LAZY);
	struct ucow_mm *child = fork_and_change(&w), *grandchild = fork_mm(child);
	uint64_t looked = cost(w.mm, child, CHANGED);

	CHECK(looked > 2 * CHANGED);
	CHECK(looked <= 2 * CHANGED * TABLE_LEVELS);
	CHECK_EQ(cost(child, w.mm, CHANGED), looked);
	CHECK_EQ(cost(w.mm, grandchild, CHANGED), looked);
	CHECK_EQ(cost(child, grandchild, 0), 0);
	CHECK(shape_of(w.mm).tables > 8192);
	CHECK_EQ(ucow_mm_destroy(grandchild), 0);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* The child's upper tables are its own from the start, and few; of the blocks and leaves two for each change. */
TEST(a_fork_that_shares_blocks_costs_the_upper_tables_and_the_blocks_that_changed)
{
	struct world w = open_gigabyte(UCOW_FORK_TABLES);
	struct ucow_mm *child = fork_and_change(&w);
	struct shape shape = shape_of(w.mm);
	uint64_t looked = cost(w.mm, child, CHANGED);

	CHECK(shape.upper < 32);
	CHECK_EQ(looked, 2 * (shape.upper + 2 * CHANGED));
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* Nothing is shared: every table of both is looked into, and the answer is the same. */
TEST(an_eager_fork_costs_all_tables)
{
	struct world w = open_gigabyte(UCOW_FORK_EAGER);
	struct ucow_mm *child = fork_and_change(&w);

	CHECK_EQ(cost(w.mm, child, CHANGED), shape_of(w.mm).tables + shape_of(child).tables);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* Would catch a walk from the root for every mapping. */
TEST(many_mappings_cost_no_tables)
{
	struct world w = open_gigabyte(UCOW_FORK_LAZY);
	struct ucow_mm *child;
	uint64_t looked;

	for (unsigned i = 1; i < 1000; i += 2)
		REQUIRE_EQ(ucow_mprotect(w.mm, START + i * PAGE, PAGE, UCOW_PROT_READ), 0);
	child = fork_and_change(&w);
	looked = cost(w.mm, child, CHANGED);
	CHECK(looked <= 2 * CHANGED * TABLE_LEVELS);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* ucow_mm_stat: bytes of tables by who reaches them. */
TEST(table_bytes_are_private_or_shared)
{
	struct world w = open_gigabyte(UCOW_FORK_LAZY);
	struct ucow_mm_stat alone, parent, stat;
	struct ucow_mm *child;
	uint64_t path = 0;

	for (unsigned level = 0; level < TABLE_LEVELS; level++)
		path += table_size(level);
	ucow_mm_stat(w.mm, &alone);
	CHECK_EQ(alone.table_bytes_shared, 0);
	CHECK_EQ(alone.table_bytes_private, alone.table_bytes);
	CHECK_EQ(alone.frames_exclusive, GIGABYTE / table_span(0));
	CHECK_EQ(alone.frames_shared, 0);
	child = fork_mm(w.mm);
	ucow_mm_stat(child, &stat);
	CHECK_EQ(stat.table_bytes, alone.table_bytes);
	CHECK_EQ(stat.table_bytes_shared, alone.table_bytes);
	CHECK_EQ(stat.table_bytes_private, 0);
	CHECK_EQ(stat.frames_exclusive, 0);
	CHECK_EQ(stat.frames_shared, GIGABYTE / table_span(0));
	ucow_cpu_attach(w.cpu, child);
	put64(w.cpu, START, 2);
	ucow_cpu_attach(w.cpu, w.mm);
	ucow_mm_stat(child, &stat);
	ucow_mm_stat(w.mm, &parent);
	CHECK_EQ(stat.table_bytes_private, path);
	CHECK_EQ(parent.table_bytes_private, path);
	CHECK_EQ(stat.table_bytes_private + stat.table_bytes_shared, alone.table_bytes);
	CHECK_EQ(stat.frames_exclusive, 1);
	CHECK_EQ(stat.frames_shared, GIGABYTE / table_span(0) - 1);
	CHECK_EQ(parent.frames_shared, stat.frames_shared);
	CHECK_EQ(parent.frames_exclusive, 0); /* the page is alone again, which the parent's next store will see */
	CHECK_EQ(ucow_mm_destroy(child), 0);
	ucow_mm_stat(w.mm, &parent);
	CHECK_EQ(parent.table_bytes_shared, 0);
	CHECK_EQ(parent.frames_exclusive, GIGABYTE / table_span(0) - 1);
	CHECK_EQ(parent.frames_shared, 0);
	world_close(&w);
}

TAP_MAIN()
