/* SPDX-License-Identifier: MIT */
/*
 * What sharers of tables may see of each other: nothing but that memory is saved. Runs in every fork mode; the costs at
 * the end are asked of the lazy one. Several threads drive spaces that descend from one another.
 */
#include "fixture.h"

#include <pthread.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Pages this far apart lie in different leaf tables, and a few of them in different 2 MiB blocks. */
#define APART (40 * PAGE)
enum { SPREAD = 64 };

static uint64_t map_spread(struct ucow_mm *mm)
{
	return map_private(mm, SPREAD * 40);
}

static void fill_spread(struct ucow_cpu *cpu, uint64_t va, uint64_t value)
{
	for (unsigned i = 0; i < SPREAD; i++)
		put64(cpu, va + i * APART, value + i);
}

static void check_spread(struct ucow_cpu *cpu, uint64_t va, uint64_t value)
{
	for (unsigned i = 0; i < SPREAD; i++)
		CHECK_EQ(get64(cpu, va + i * APART), value + i);
}

static int load_at(struct ucow_cpu *cpu, uint64_t va)
{
	uint64_t value;

	return ucow_load_u64(cpu, va, &value);
}

/* ---- empty memory below shared tables ---- */

/*
 * A region that nobody has written to, beside one that a child shares: a read finds no table there and caches the zero
 * page. That translation goes with the mapping: rule 10, "unmapping".
 */
static struct world open_with_empty_region(struct ucow_mm **child, uint64_t *empty)
{
	struct world w = world_open();

	map_private(w.mm, 1);
	put64(w.cpu, BASE, 1);
	*empty = map_at(w.mm, BASE + 4096 * PAGE, 100, RW, UCOW_MAP_PRIVATE);
	*child = fork_mm(w.mm);
	for (unsigned i = 0; i < 100; i++)
		REQUIRE_EQ(get64(w.cpu, *empty + i * PAGE), 0);
	return w;
}

static void close_with_empty_region(struct world *w, struct ucow_mm *child)
{
	check_invariants(w->machine);
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
	world_close(w);
}

TEST(zeros_read_below_a_shared_table_go_with_the_mapping)
{
	struct ucow_mm *child;
	uint64_t va;
	struct world w = open_with_empty_region(&child, &va);

	CHECK_EQ(ucow_munmap(w.mm, va + 10 * PAGE, 50 * PAGE), 0);
	CHECK_EQ(get64(w.cpu, va + 9 * PAGE), 0);
	for (unsigned i = 10; i < 60; i++)
		CHECK_EQ(load_at(w.cpu, va + i * PAGE), -EFAULT);
	CHECK_EQ(get64(w.cpu, va + 60 * PAGE), 0);
	close_with_empty_region(&w, child);
}

TEST(zeros_read_below_a_shared_table_go_when_protected)
{
	struct ucow_mm *child;
	uint64_t va;
	struct world w = open_with_empty_region(&child, &va);

	CHECK_EQ(ucow_mprotect(w.mm, va, 50 * PAGE, UCOW_PROT_NONE), 0);
	CHECK_EQ(load_at(w.cpu, va + PAGE), -EFAULT);
	CHECK_EQ(get64(w.cpu, va + 50 * PAGE), 0);
	close_with_empty_region(&w, child);
}

TEST(zeros_read_below_a_shared_table_go_when_mapped_over)
{
	struct ucow_mm *child;
	uint64_t va;
	struct world w = open_with_empty_region(&child, &va);
	struct ucow_cpu *cpu = cpu_on(w.mm);

	map_at(w.mm, va, 4, RW, UCOW_MAP_SHARED);
	put64(cpu, va + PAGE, 7);
	CHECK_EQ(get64(w.cpu, va + PAGE), 7);
	ucow_cpu_destroy(cpu);
	close_with_empty_region(&w, child);
}

TEST(zeros_read_below_a_shared_table_go_when_moved_over)
{
	struct ucow_mm *child;
	uint64_t va, result;
	struct world w = open_with_empty_region(&child, &va);

	CHECK_EQ(ucow_mremap(w.mm, BASE, PAGE, PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, va + 5 * PAGE, &result),
		 0);
	CHECK_EQ(get64(w.cpu, va + 5 * PAGE), 1);
	CHECK_EQ(get64(w.cpu, va + 4 * PAGE), 0);
	close_with_empty_region(&w, child);
}

/* Written by another cpu, through another space's call, by a device: whoever fills the entry, all see it. */
TEST(zeros_read_below_a_shared_table_go_when_filled)
{
	struct ucow_mm *child;
	uint64_t va;
	struct world w = open_with_empty_region(&child, &va);
	struct ucow_cpu *cpu = cpu_on(w.mm);
	struct ucow_page *page = NULL;

	REQUIRE_EQ(get64(cpu, va), 0);
	REQUIRE_EQ(get64(cpu, va + PAGE), 0);
	put64(w.cpu, va, 5);
	CHECK_EQ(get64(cpu, va), 5);
	CHECK_EQ(ucow_get_user_pages_remote(w.mm, va + PAGE, 1, UCOW_FOLL_WRITE, &page), 1);
	device_write64(page, 6);
	CHECK_EQ(get64(cpu, va + PAGE), 6);
	CHECK_EQ(get64(w.cpu, va + PAGE), 6);
	ucow_put_pages(&page, 1);
	ucow_cpu_attach(cpu, child);
	CHECK_EQ(get64(cpu, va), 0);
	CHECK_EQ(get64(cpu, va + PAGE), 0);
	ucow_cpu_destroy(cpu);
	close_with_empty_region(&w, child);
}

/* Reading nothing where everything is shared costs nothing, however much is read: rule 5. */
TEST(reading_empty_memory_of_a_sharer_takes_no_tables)
{
	struct ucow_machine_stat before, after;
	struct ucow_mm *child;
	uint64_t va;
	struct world w = open_with_empty_region(&child, &va);

	if (!fork_is_lazy()) {
		close_with_empty_region(&w, child);
		SKIP("only a lazy fork shares where there is nothing");
	}
	ucow_machine_stat(w.machine, &before);
	ucow_cpu_attach(w.cpu, child);
	for (unsigned i = 0; i < 100; i++)
		CHECK_EQ(get64(w.cpu, va + i * PAGE), 0);
	ucow_cpu_attach(w.cpu, w.mm);
	ucow_machine_stat(w.machine, &after);
	CHECK_EQ(after.table_bytes, before.table_bytes);
	CHECK_EQ(after.used_pages, before.used_pages);
	close_with_empty_region(&w, child);
}

/* ---- one sharer changes its mind, the others do not ---- */

typedef void change(struct ucow_mm *mm, struct ucow_cpu *cpu, uint64_t va);

static void unmap_some(struct ucow_mm *mm, struct ucow_cpu *cpu, uint64_t va)
{
	(void)cpu;
	REQUIRE_EQ(ucow_munmap(mm, va + 3 * APART, 20 * APART), 0);
}

static void unmap_all(struct ucow_mm *mm, struct ucow_cpu *cpu, uint64_t va)
{
	(void)cpu;
	REQUIRE_EQ(ucow_munmap(mm, va, SPREAD * APART), 0);
}

static void drop_some(struct ucow_mm *mm, struct ucow_cpu *cpu, uint64_t va)
{
	REQUIRE_EQ(ucow_madvise(mm, va + APART, 50 * APART, UCOW_MADV_DONTNEED), 0);
	REQUIRE_EQ(get64(cpu, va + 2 * APART), 0);
	put64(cpu, va + 2 * APART, 99);
}

static void forbid(struct ucow_mm *mm, struct ucow_cpu *cpu, uint64_t va)
{
	REQUIRE_EQ(ucow_mprotect(mm, va, 30 * APART, UCOW_PROT_READ), 0);
	REQUIRE_EQ(ucow_mprotect(mm, va + 30 * APART, 10 * APART, UCOW_PROT_NONE), 0);
	REQUIRE_EQ(ucow_store_u64(cpu, va, 1), -EFAULT);
	REQUIRE_EQ(load_at(cpu, va + 31 * APART), -EFAULT);
}

static void move_away(struct ucow_mm *mm, struct ucow_cpu *cpu, uint64_t va)
{
	uint64_t to = (uint64_t)1 << 42, result;

	REQUIRE_EQ(ucow_mremap(mm, va, SPREAD * APART, SPREAD * APART, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, to,
			       &result),
		   0);
	put64(cpu, to + 5 * APART, 1);
}

static void arm_hints(struct ucow_mm *mm, struct ucow_cpu *cpu, uint64_t va)
{
	REQUIRE_EQ(ucow_numa_hint(mm, va, SPREAD * APART), 0);
	put64(cpu, va + 9 * APART, 1);
}

static void free_lazily(struct ucow_mm *mm, struct ucow_cpu *cpu, uint64_t va)
{
	REQUIRE_EQ(ucow_madvise(mm, va, SPREAD * APART, UCOW_MADV_FREE), 0);
	put64(cpu, va + 9 * APART, 1);
}

static void populate(struct ucow_mm *mm, struct ucow_cpu *cpu, uint64_t va)
{
	REQUIRE_EQ(ucow_madvise(mm, va, 5 * APART, UCOW_MADV_POPULATE_WRITE), 0);
	REQUIRE_EQ(ucow_madvise(mm, va + 5 * APART, 5 * APART, UCOW_MADV_POPULATE_READ), 0);
	put64(cpu, va, 1);
}

static void write_all(struct ucow_mm *mm, struct ucow_cpu *cpu, uint64_t va)
{
	(void)mm;
	fill_spread(cpu, va, 7000);
}

static change *const changes[] = {
	unmap_some, unmap_all, drop_some, forbid, move_away, arm_hints, free_lazily, populate, write_all,
};
enum { CHANGES = sizeof(changes) / sizeof(changes[0]) };

/* Each kind of change, by the child, by the parent, by a grandchild, with the third party looking on. */
TEST(a_change_by_one_sharer_is_seen_by_no_other)
{
	for (unsigned k = 0; k < CHANGES * 3; k++) {
		struct world w = world_open();
		uint64_t va = map_spread(w.mm);
		struct ucow_mm *mms[3] = {w.mm};
		struct ucow_cpu *cpus[3] = {w.cpu};

		fill_spread(w.cpu, va, 1000);
		for (unsigned i = 1; i < 3; i++) {
			mms[i] = fork_mm(mms[i - 1]);
			cpus[i] = cpu_on(mms[i]);
		}
		changes[k / 3](mms[k % 3], cpus[k % 3], va);
		check_invariants(w.machine);
		for (unsigned i = 0; i < 3; i++)
			if (i != k % 3)
				check_spread(cpus[i], va, 1000);
		CHECK_GO_ON();
		fill_spread(cpus[(k + 1) % 3], va, 2000);
		check_spread(cpus[(k + 2) % 3], va, 1000);
		check_invariants(w.machine);
		exit_mm(cpus[1], mms[1]);
		exit_mm(cpus[2], mms[2]);
		world_close(&w);
	}
}

/* Two different changes in a row, by two sharers: neither spoils what the third one has. */
TEST(two_sharers_change_and_the_third_keeps_its_own)
{
	for (unsigned k = 0; k < CHANGES * CHANGES; k++) {
		struct world w = world_open();
		uint64_t va = map_spread(w.mm);
		struct ucow_mm *one, *two;
		struct ucow_cpu *cpu;

		fill_spread(w.cpu, va, 1000);
		one = fork_mm(w.mm);
		two = fork_mm(one);
		cpu = cpu_on(one);
		changes[k / CHANGES](one, cpu, va);
		ucow_cpu_attach(cpu, two);
		changes[k % CHANGES](two, cpu, va);
		check_spread(w.cpu, va, 1000);
		CHECK_EQ(ucow_mm_destroy(one), 0);
		check_invariants(w.machine);
		exit_mm(cpu, two);
		fill_spread(w.cpu, va, 3000);
		check_spread(w.cpu, va, 3000);
		world_close(&w);
	}
}

/* ---- references ---- */

/* Unpinned before the second fork: the mark is stale, and the tables are shared again as if nothing had been. */
TEST(a_stale_mark_does_not_keep_tables_apart)
{
	struct world w = world_open();
	uint64_t va = map_spread(w.mm), bytes[2];
	struct ucow_machine_stat stat;
	struct ucow_mm *child;

	fill_spread(w.cpu, va, 1);
	for (unsigned round = 0; round < 2; round++) {
		struct ucow_page *page = pin_page(w.cpu, va + 5 * APART, UCOW_FOLL_WRITE);
		uint64_t before;

		if (round)
			ucow_unpin_user_pages(&page, 1);
		ucow_machine_stat(w.machine, &stat);
		before = stat.table_bytes;
		child = fork_mm(w.mm);
		ucow_machine_stat(w.machine, &stat);
		bytes[round] = stat.table_bytes - before;
		CHECK_EQ(query(child, va + 5 * APART).pfn == query(w.mm, va + 5 * APART).pfn, round == 1);
		CHECK_EQ(ucow_mm_destroy(child), 0);
		if (!round)
			ucow_unpin_user_pages(&page, 1);
	}
	if (fork_is_lazy())
		CHECK(bytes[0] > 0 && bytes[1] == 0);
	world_close(&w);
}

/* One pin a block, everywhere: each keeps its coherence over forks of forks, and the rest stays shared. */
TEST(pins_in_many_tables_survive_generations_of_forks)
{
	struct world w = world_open();
	uint64_t va = map_spread(w.mm);
	struct ucow_page *pages[SPREAD / 4];
	struct ucow_mm *line[5] = {w.mm};
	struct ucow_cpu *cpu;

	fill_spread(w.cpu, va, 1);
	for (unsigned i = 0; i < SPREAD / 4; i++)
		pages[i] = pin_page(w.cpu, va + 4 * i * APART, UCOW_FOLL_LONGTERM | (i % 2 ? UCOW_FOLL_WRITE : 0));
	for (unsigned i = 1; i < 5; i++)
		line[i] = fork_mm(line[i - 1]);
	check_invariants(w.machine);
	for (unsigned i = 0; i < SPREAD / 4; i++) {
		put64(w.cpu, va + 4 * i * APART, 500 + i);
		CHECK_EQ(device_read64(pages[i]), 500 + i);
		device_write64(pages[i], 600 + i);
		CHECK_EQ(get64(w.cpu, va + 4 * i * APART), 600 + i);
	}
	cpu = cpu_on(line[4]);
	check_spread(cpu, va, 1);
	for (unsigned i = 1; i < SPREAD; i += 4)
		CHECK_EQ(query(w.mm, va + i * APART).pfn, query(line[4], va + i * APART).pfn);
	ucow_cpu_destroy(cpu);
	for (unsigned i = 1; i < 5; i++)
		CHECK_EQ(ucow_mm_destroy(line[i]), 0);
	ucow_unpin_user_pages(pages, SPREAD / 4);
	world_close(&w);
}

/*
 * The leak that marks are there to prevent: a child takes a plain reference and exits, the parent writes. And the other
 * way round: a reference taken before the fork by the side that exits.
 */
TEST(a_reference_outlives_its_space_without_seeing_later_stores)
{
	for (int before = 0; before < 2; before++) {
		struct world w = world_open();
		uint64_t va = map_spread(w.mm);
		struct ucow_page *page = NULL;
		struct ucow_mm *child;
		struct ucow_cpu *cpu;

		fill_spread(w.cpu, va, 1);
		if (before)
			page = get_page(w.cpu, va + APART, 0);
		child = fork_mm(w.mm);
		cpu = cpu_on(child);
		if (!before)
			page = get_page(cpu, va + APART, 0);
		if (before) {
			exit_mm(w.cpu, w.mm);
			w.mm = child;
			w.cpu = cpu;
		} else {
			exit_mm(cpu, child);
		}
		put64(w.cpu, va + APART, 77);
		CHECK_EQ(device_read64(page), 2);
		CHECK_EQ(get64(w.cpu, va + APART), 77);
		ucow_put_pages(&page, 1);
		world_close(&w);
	}
}

/* ---- what it costs ---- */

static uint64_t table_bytes(const struct world *w)
{
	struct ucow_machine_stat stat;

	ucow_machine_stat(w->machine, &stat);
	return stat.table_bytes;
}

/* A lazy fork takes no tables, a write those of one path, an exit gives them back. */
TEST(a_lazy_fork_costs_a_path_at_the_first_store)
{
	struct world w = world_open();
	uint64_t va = map_spread(w.mm), before, path;
	struct ucow_mm *child, *second;
	struct ucow_cpu *cpu;

	if (!fork_is_lazy()) {
		world_close(&w);
		SKIP("the costs of the lazy mode");
	}
	fill_spread(w.cpu, va, 1);
	before = table_bytes(&w);
	child = fork_mm(w.mm);
	second = fork_mm(child);
	CHECK_EQ(table_bytes(&w), before);
	CHECK_EQ(counted(&w, UCOW_COUNTER_TABLE_SHARE), 2);
	cpu = cpu_on(child);
	CHECK_EQ(get64(cpu, va + 8 * APART), 9);
	CHECK_EQ(table_bytes(&w), before);
	put64(cpu, va + 8 * APART, 5);
	path = table_bytes(&w) - before;
	CHECK(path > 0 && path <= 16384);
	CHECK_EQ(counted(&w, UCOW_COUNTER_TABLE_UNSHARE), 6);
	put64(cpu, va + 8 * APART + PAGE, 5); /* in the same leaf */
	CHECK_EQ(table_bytes(&w), before + path);
	CHECK_EQ(counted(&w, UCOW_COUNTER_TABLE_UNSHARE), 6);
	CHECK(query(w.mm, va + 9 * APART).pfn == query(child, va + 9 * APART).pfn);
	exit_mm(cpu, child);
	CHECK_EQ(table_bytes(&w), before);
	CHECK_EQ(ucow_mm_destroy(second), 0);
	CHECK(query(w.mm, va + 9 * APART).exclusive && query(w.mm, va + 9 * APART).writable);
	world_close(&w);
}

/* A thousand snapshots with one store between: each keeps its own page and path, nothing else. */
TEST(snapshots_in_a_row_keep_what_changed)
{
	enum { N = SANITIZED ? 100 : 1000 };
	static struct ucow_mm *kept[N];
	struct world w = world_open();
	uint64_t va = map_spread(w.mm);
	struct ucow_machine_stat stat;

	fill_spread(w.cpu, va, 0);
	for (unsigned i = 0; i < N; i++) {
		kept[i] = fork_mm(w.mm);
		put64(w.cpu, va + i % SPREAD * APART, 10000 + i);
	}
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, SPREAD + N);
	for (unsigned i = 0; i < N; i += 17) {
		ucow_cpu_attach(w.cpu, kept[i]);
		for (unsigned k = 0; k < SPREAD; k++) { /* the last store to page k before snapshot i */
			uint64_t last = i > k ? k + (i - 1 - k) / SPREAD * SPREAD : 0;

			CHECK_EQ(get64(w.cpu, va + k * APART), i > k ? 10000 + last : k);
		}
	}
	ucow_cpu_attach(w.cpu, w.mm);
	for (unsigned i = 0; i < N; i++)
		CHECK_EQ(ucow_mm_destroy(kept[i % 2 ? N - 1 - i / 2 : i / 2]), 0);
	world_close(&w);
}

/* ---- several threads ---- */

enum { THREADS = 4, MINE = 5, PLACES = 40, STEPS = SANITIZED ? 400 : 4000 };

/* One space and what must be in it. Every fifth place can be unmapped. */
struct member {
	struct ucow_mm *mm;
	uint64_t values[PLACES];
	bool gone[PLACES], readonly[PLACES];
};

/* A thread and the spaces that it drives, all of one family with those of the other threads. */
struct driver {
	pthread_t thread;
	struct ucow_machine *machine;
	struct ucow_cpu *cpu;
	struct member members[MINE];
	uint64_t va, state;
	char wrong[200];
};

#define EXPECT(d, cond)                                                                                   \
	do {                                                                                              \
		if (!(cond) && !(d)->wrong[0])                                                            \
			snprintf((d)->wrong, sizeof((d)->wrong), "%s:%d: %s", __FILE__, __LINE__, #cond); \
	} while (0)

static unsigned pick(struct driver *d, unsigned n)
{
	return (unsigned)(draw(&d->state) % n);
}

static uint64_t place(const struct driver *d, unsigned i)
{
	return d->va + i * APART;
}

static void check_place(struct driver *d, struct member *m, unsigned i)
{
	uint64_t value = 0;

	EXPECT(d, ucow_load_u64(d->cpu, place(d, i), &value) == (m->gone[i] ? -EFAULT : 0));
	EXPECT(d, m->gone[i] || value == m->values[i]);
}

static void store_place(struct driver *d, struct member *m, unsigned i)
{
	uint64_t value = draw(&d->state);
	int rc = ucow_store_u64(d->cpu, place(d, i), value);

	EXPECT(d, rc == (m->gone[i] || m->readonly[i] ? -EFAULT : 0));
	if (!rc)
		m->values[i] = value;
}

static void fork_member(struct driver *d, struct member *m)
{
	struct member *child = &d->members[pick(d, MINE)];
	struct ucow_mm *mm = NULL;

	if (child->mm)
		return;
	EXPECT(d, ucow_fork(m->mm, &mm) == 0);
	*child = *m;
	child->mm = mm;
}

static void exit_member(struct driver *d, struct member *m)
{
	unsigned live = 0;

	for (unsigned i = 0; i < MINE; i++)
		live += d->members[i].mm != NULL;
	if (live < 2)
		return;
	ucow_cpu_attach(d->cpu, NULL);
	EXPECT(d, ucow_mm_destroy(m->mm) == 0);
	m->mm = NULL;
}

/* Gone, or there again and empty. */
static void unmap_place(struct driver *d, struct member *m, unsigned i)
{
	uint64_t va;

	if (m->gone[i])
		EXPECT(d, ucow_mmap(m->mm, place(d, i), PAGE, RW, UCOW_MAP_PRIVATE | UCOW_MAP_FIXED, &va) == 0);
	else
		EXPECT(d, ucow_munmap(m->mm, place(d, i), PAGE) == 0);
	m->gone[i] = !m->gone[i];
	m->readonly[i] = false;
	m->values[i] = 0;
}

static void protect_place(struct driver *d, struct member *m, unsigned i)
{
	int rc = ucow_mprotect(m->mm, place(d, i), PAGE, m->readonly[i] ? RW : UCOW_PROT_READ);

	EXPECT(d, rc == (m->gone[i] ? -ENOMEM : 0));
	m->readonly[i] = !m->gone[i] && !m->readonly[i];
}

static void drop_place(struct driver *d, struct member *m, unsigned i)
{
	EXPECT(d, ucow_madvise(m->mm, place(d, i), PAGE, UCOW_MADV_DONTNEED) == (m->gone[i] ? -ENOMEM : 0));
	if (!m->gone[i])
		m->values[i] = 0;
}

/* A pin over a fork, or over no fork, and a store on either side of it. */
static void pin_place(struct driver *d, struct member *m, unsigned i)
{
	struct ucow_page *page = NULL;
	long got = ucow_pin_user_pages_fast(d->cpu, place(d, i), 1, UCOW_FOLL_LONGTERM, &page);

	EXPECT(d, got == (m->gone[i] ? -EFAULT : 1));
	if (got != 1)
		return;
	if (pick(d, 2))
		fork_member(d, m);
	store_place(d, m, i);
	EXPECT(d, device_read64(page) == m->values[i]);
	ucow_unpin_user_pages(&page, 1);
}

static void get_place(struct driver *d, struct member *m, unsigned i)
{
	struct ucow_page *page = NULL;
	uint64_t then = m->values[i];

	if (ucow_get_user_pages(d->cpu, place(d, i), 1, 0, &page) != 1)
		return;
	EXPECT(d, device_read64(page) == then);
	ucow_put_pages(&page, 1);
}

static void drive(struct driver *d)
{
	struct member *m = &d->members[pick(d, MINE)];
	unsigned i = pick(d, PLACES);

	if (!m->mm)
		return;
	if (ucow_cpu_mm(d->cpu) != m->mm)
		ucow_cpu_attach(d->cpu, m->mm);
	switch (pick(d, 14)) {
	case 0:
	case 1:
		return fork_member(d, m);
	case 2:
		return exit_member(d, m);
	case 3:
		return i % 5 ? check_place(d, m, i) : unmap_place(d, m, i);
	case 4:
		return protect_place(d, m, i);
	case 5:
		return drop_place(d, m, i);
	case 6:
		return pin_place(d, m, i);
	case 7:
		return get_place(d, m, i);
	case 8:
	case 9:
	case 10:
		return check_place(d, m, i);
	default:
		return store_place(d, m, i);
	}
}

static void *drive_all(void *arg)
{
	struct driver *d = arg;

	EXPECT(d, ucow_cpu_create(d->machine, &d->cpu) == 0);
	for (unsigned i = 0; i < STEPS && !d->wrong[0]; i++)
		drive(d);
	for (unsigned k = 0; k < MINE; k++) {
		if (!d->members[k].mm)
			continue;
		ucow_cpu_attach(d->cpu, d->members[k].mm);
		for (unsigned i = 0; i < PLACES; i++)
			check_place(d, &d->members[k], i);
	}
	ucow_cpu_destroy(d->cpu);
	return NULL;
}

static void start_driver(struct driver *d, struct world *w, struct ucow_mm *mm, uint64_t va, uint64_t seed)
{
	*d = (struct driver){.machine = w->machine, .va = va, .state = seed};
	d->members[0].mm = mm;
	ucow_cpu_attach(w->cpu, mm);
	for (unsigned i = 0; i < PLACES; i++)
		d->members[0].values[i] = get64(w->cpu, va + i * APART);
	ucow_cpu_attach(w->cpu, w->mm);
}

/*
 * One family: every thread begins with a descendant of one space, and from then on forks, writes, reads, pins, unmaps
 * and exits its own while the tables are everybody's.
 */
TEST(threads_with_spaces_of_one_family_never_meet)
{
	static struct driver drivers[THREADS];
	struct world w = world_open();
	uint64_t va = map_spread(w.mm);
	struct ucow_mm *last = w.mm;

	fill_spread(w.cpu, va, 1000);
	for (unsigned i = 0; i < THREADS; i++) {
		last = fork_mm(i % 2 ? last : w.mm);
		start_driver(&drivers[i], &w, last, va, tap_seed() + i);
	}
	for (unsigned i = 0; i < THREADS; i++)
		REQUIRE_EQ(pthread_create(&drivers[i].thread, NULL, drive_all, &drivers[i]), 0);
	for (unsigned i = 0; i < THREADS; i++)
		REQUIRE_EQ(pthread_join(drivers[i].thread, NULL), 0);
	check_invariants(w.machine);
	check_spread(w.cpu, va, 1000);
	for (unsigned i = 0; i < THREADS; i++) {
		CHECK_STR_EQ(drivers[i].wrong, "");
		for (unsigned k = 0; k < MINE; k++)
			if (drivers[i].members[k].mm)
				CHECK_EQ(ucow_mm_destroy(drivers[i].members[k].mm), 0);
	}
	world_close(&w);
}

TAP_MAIN()
