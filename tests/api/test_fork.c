/* SPDX-License-Identifier: MIT */
/* fork and exit: isolation, trees of spaces, pins, accounting. */
#include "fixture.h"

TEST(child_has_the_parents_bytes_and_neither_sees_the_other_write)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 80);
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	for (unsigned i = 0; i < 80; i++)
		put64(w.cpu, va + i * PAGE, i + 1);
	child = fork_mm(w.mm);
	cpu = cpu_on(child);
	for (unsigned i = 0; i < 80; i++) {
		CHECK_EQ(get64(cpu, va + i * PAGE), i + 1);
		put64(i % 2 ? cpu : w.cpu, va + i * PAGE, 1000 + i);
		CHECK_EQ(get64(i % 2 ? w.cpu : cpu, va + i * PAGE), i + 1);
		CHECK_EQ(get64(i % 2 ? cpu : w.cpu, va + i * PAGE), 1000 + i);
	}
	exit_mm(cpu, child);
	world_close(&w);
}

/* Would catch translations of the parent that stay writable over the fork. */
TEST(fork_takes_cached_write_translations_away)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), value;
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	CHECK_EQ(ucow_store_u64(w.cpu, va, 1), 0);
	CHECK_EQ(ucow_store_u64(w.cpu, va, 2), 0);
	child = fork_mm(w.mm);
	CHECK_EQ(ucow_store_u64(w.cpu, va, 3), 0);
	cpu = cpu_on(child);
	CHECK_EQ(ucow_load_u64(cpu, va, &value), 0);
	CHECK_EQ(value, 2);
	exit_mm(cpu, child);
	world_close(&w);
}

/* Would catch a translation for reading that still shows the shared page after the own copy was made. */
TEST(copy_replaces_the_cached_read_translation)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), value;
	struct ucow_cpu *second = cpu_on(w.mm);
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	child = fork_mm(w.mm);
	CHECK_EQ(ucow_load_u64(w.cpu, va, &value), 0);
	CHECK_EQ(ucow_load_u64(second, va, &value), 0);
	CHECK_EQ(ucow_store_u64(w.cpu, va, 2), 0);
	CHECK_EQ(ucow_load_u64(w.cpu, va, &value), 0);
	CHECK_EQ(value, 2);
	CHECK_EQ(ucow_load_u64(second, va, &value), 0);
	CHECK_EQ(value, 2);
	ucow_cpu_destroy(second);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

static void check_generations(struct ucow_cpu *cpu, struct ucow_mm *const *mms, uint64_t va, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		ucow_cpu_attach(cpu, mms[i]);
		CHECK_EQ(get64(cpu, va), i);
		CHECK_EQ(get64(cpu, va + PAGE), 7);
	}
}

/* A chain of forks, each with a write of its own, destroyed in either order. */
TEST(grandchildren_keep_their_own_bytes)
{
	for (int oldest_first = 0; oldest_first < 2; oldest_first++) {
		struct world w = world_open();
		uint64_t va = map_private(w.mm, 2);
		struct ucow_mm *mms[8] = {w.mm};

		put64(w.cpu, va, 0);
		put64(w.cpu, va + PAGE, 7);
		for (unsigned i = 1; i < 8; i++) {
			mms[i] = fork_mm(mms[i - 1]);
			ucow_cpu_attach(w.cpu, mms[i]);
			put64(w.cpu, va, i);
		}
		check_generations(w.cpu, mms, va, 8);
		CHECK_GO_ON();
		ucow_cpu_attach(w.cpu, NULL);
		for (unsigned i = 0; i < 7; i++) {
			CHECK_EQ(ucow_mm_destroy(mms[oldest_first ? i : 7 - i]), 0);
			check_invariants(w.machine);
		}
		w.mm = mms[oldest_first ? 7 : 0];
		ucow_cpu_attach(w.cpu, w.mm);
		CHECK_EQ(get64(w.cpu, va), oldest_first ? 7 : 0);
		CHECK_EQ(get64(w.cpu, va + PAGE), 7);
		world_close(&w);
	}
}

/* After fork and exit the survivor reuses its pages: not one copy, and not even a fault where fork touched none. */
TEST(last_user_reuses_in_place)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 20), reuse, copies, faults, pfn;

	for (unsigned i = 0; i < 20; i++)
		put64(w.cpu, va + i * PAGE, i);
	pfn = query(w.mm, va).pfn;
	CHECK_EQ(ucow_mm_destroy(fork_mm(w.mm)), 0);
	CHECK_EQ(query(w.mm, va).exclusive, fork_is_lazy());
	CHECK_EQ(query(w.mm, va).writable, fork_is_lazy());
	reuse = counted(&w, UCOW_COUNTER_REUSE);
	faults = counted(&w, UCOW_COUNTER_FAULTS);
	copies = counted(&w, UCOW_COUNTER_COPY_SHARED) + counted(&w, UCOW_COUNTER_COPY_REFERENCED);
	for (unsigned i = 0; i < 20; i++)
		put64(w.cpu, va + i * PAGE, i + 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_REUSE), reuse + (fork_is_lazy() ? 0 : 20));
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULTS), faults + (fork_is_lazy() ? 0 : 20));
	CHECK_EQ(counted(&w, UCOW_COUNTER_COPY_SHARED) + counted(&w, UCOW_COUNTER_COPY_REFERENCED), copies);
	CHECK(query(w.mm, va).pfn == pfn && query(w.mm, va).exclusive);
	world_close(&w);
}

TEST(sharing_takes_exclusivity_from_both)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	CHECK(query(w.mm, va).exclusive && query(w.mm, va).writable);
	child = fork_mm(w.mm);
	CHECK(!query(w.mm, va).exclusive && !query(w.mm, va).writable);
	CHECK(!query(child, va).exclusive && !query(child, va).writable);
	CHECK_EQ(query(child, va).pfn, query(w.mm, va).pfn);
	CHECK_EQ(query(child, va).mapcount, 2);
	CHECK(query(child, va).dirty && query(child, va).soft_dirty);
	CHECK_EAGER(!query(child, va).accessed);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* The heart of the matter: a device write after fork arrives, and the child never sees it. */
TEST(pin_survives_fork)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), copies;
	struct ucow_page *page;
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	put64(w.cpu, va, 1);
	put64(w.cpu, va + PAGE, 1);
	page = pin_page(w.cpu, va, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM);
	child = fork_mm(w.mm);
	cpu = cpu_on(child);
	CHECK_EQ(counted(&w, UCOW_COUNTER_EARLY_COPY), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FORK_PINNED), 1);
	CHECK(query(w.mm, va).exclusive && query(w.mm, va).writable); /* untouched: no fault is owed */
	CHECK(query(child, va).exclusive && query(child, va).writable && query(child, va).dirty);
	CHECK_EQ(query(w.mm, va + PAGE).pfn, query(child, va + PAGE).pfn);
	copies = counted(&w, UCOW_COUNTER_FAULT_WP);
	put64(w.cpu, va, 2);
	CHECK_EQ(device_read64(page), 2);
	device_write64(page, 3);
	CHECK_EQ(get64(w.cpu, va), 3);
	CHECK_EQ(get64(cpu, va), 1);
	put64(cpu, va, 9);
	CHECK_EQ(device_read64(page), 3);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_WP), copies);
	ucow_unpin_user_pages(&page, 1);
	exit_mm(cpu, child);
	world_close(&w);
}

/* Once unpinned the page is shared like any other, although the space has pinned before. */
TEST(unpinned_page_is_shared_again)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page;
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	page = pin_page(w.cpu, va, UCOW_FOLL_WRITE);
	ucow_unpin_user_pages(&page, 1);
	child = fork_mm(w.mm);
	CHECK_EQ(counted(&w, UCOW_COUNTER_EARLY_COPY), 0);
	CHECK_EQ(query(w.mm, va).pfn, query(child, va).pfn);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

struct fork_log {
	unsigned calls;
	struct ucow_pinned_fork last;
};

static void note_pinned_fork(void *arg, const struct ucow_pinned_fork *info)
{
	struct fork_log *log = arg;

	log->calls++;
	log->last = *info;
	REQUIRE(query(info->parent, BASE).mapped); /* no lock is held: calls on the space are allowed */
}

/* Once for a fork of a space that holds pins; not for others, not for forks that fail. */
TEST(pinned_fork_is_reported)
{
	struct ucow_machine_options options = default_options();
	struct fork_log log = {0};
	struct ucow_page *pages[3];
	struct ucow_mm *child;
	struct world w;
	uint64_t va;

	options.on_pinned_fork = note_pinned_fork;
	options.arg = &log;
	w = world_open_with(&options);
	va = map_private(w.mm, 4);
	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_mm_destroy(fork_mm(w.mm)), 0);
	CHECK_EQ(log.calls, 0);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 2, UCOW_FOLL_WRITE, pages), 2);
	pages[2] = pin_page(w.cpu, va, UCOW_FOLL_WRITE);
	ucow_machine_inject(w.machine, UCOW_INJECT_FRAME, 1);
	CHECK_EQ(ucow_fork(w.mm, &child), -ENOMEM);
	ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 0);
	CHECK_EQ(log.calls, 0);
	child = fork_mm(w.mm);
	CHECK_EQ(log.calls, 1);
	CHECK(log.last.parent == w.mm);
	CHECK_EQ(log.last.pinned_pages, 3);
	CHECK_EQ(log.last.early_copies, 2);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	ucow_unpin_user_pages(pages, 3);
	CHECK_EQ(ucow_mm_destroy(fork_mm(w.mm)), 0);
	CHECK_EQ(log.calls, 1);
	world_close(&w);
}

/* Pins of DONTFORK and WIPEONFORK ranges cost no copies: the child has no such pages. */
TEST(pins_of_ranges_that_are_not_inherited_cost_nothing)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	struct ucow_page *pages[2];
	struct ucow_mm *child;

	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 2, UCOW_FOLL_WRITE, pages), 2);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_DONTFORK), 0);
	CHECK_EQ(ucow_madvise(w.mm, va + PAGE, PAGE, UCOW_MADV_WIPEONFORK), 0);
	child = fork_mm(w.mm);
	CHECK_EQ(counted(&w, UCOW_COUNTER_EARLY_COPY), 0);
	device_write64(pages[0], 5);
	device_write64(pages[1], 6);
	CHECK_EQ(get64(w.cpu, va), 5);
	CHECK_EQ(get64(w.cpu, va + PAGE), 6);
	ucow_cpu_attach(w.cpu, child);
	CHECK_EQ(get64(w.cpu, va + PAGE), 0);
	ucow_cpu_attach(w.cpu, w.mm);
	ucow_unpin_user_pages(pages, 2);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* has_pinned is the space's own: a child that never pinned treats no page as pinned. */
TEST(has_pinned_is_sticky_and_not_inherited)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_mm_stat stat;
	struct ucow_page *page;
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	page = pin_page(w.cpu, va, 0);
	ucow_unpin_user_pages(&page, 1);
	ucow_mm_stat(w.mm, &stat);
	CHECK(stat.has_pinned && stat.pinned == 0);
	child = fork_mm(w.mm);
	ucow_mm_stat(child, &stat);
	CHECK(!stat.has_pinned);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* Shared mappings start empty in the child but show the same memory; the counters of both are their own. */
TEST(child_accounts_for_itself)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 6), value;
	struct ucow_mm_stat parent, child_stat;
	struct ucow_machine_stat machine;
	struct ucow_mm *child;

	map_at(w.mm, BASE + 50 * PAGE, 2, RW, UCOW_MAP_SHARED);
	for (unsigned i = 0; i < 4; i++)
		put64(w.cpu, va + i * PAGE, 1);
	put64(w.cpu, BASE + 50 * PAGE, 1);
	CHECK_EQ(ucow_load_u64(w.cpu, va + 5 * PAGE, &value), 0);
	child = fork_mm(w.mm);
	ucow_mm_stat(w.mm, &parent);
	ucow_mm_stat(child, &child_stat);
	CHECK_EQ(parent.rss_anon, 4);
	CHECK_EQ(child_stat.rss_anon, 4);
	CHECK_EQ(child_stat.mapped_pages, 8);
	CHECK_EQ(child_stat.mappings, 2);
	ucow_machine_stat(w.machine, &machine);
	CHECK_EQ(machine.used_pages, 5);
	CHECK_EQ(machine.spaces, 2);
	ucow_cpu_attach(w.cpu, child);
	put64(w.cpu, va, 2);
	ucow_cpu_attach(w.cpu, w.mm);
	ucow_machine_stat(w.machine, &machine);
	CHECK_EQ(machine.used_pages, 6);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	ucow_machine_stat(w.machine, &machine);
	CHECK_EQ(machine.used_pages, 5);
	world_close(&w);
}

/* In a mapping that was written to; one that never was starts empty in the child. */
TEST(zero_page_stays_the_zero_page_in_the_child)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	struct ucow_machine_stat stat;
	struct ucow_mm *child;

	CHECK_EQ(get64(w.cpu, va), 0);
	put64(w.cpu, va + PAGE, 7);
	child = fork_mm(w.mm);
	CHECK(query(child, va).zero_page);
	ucow_cpu_attach(w.cpu, child);
	put64(w.cpu, va, 1);
	ucow_cpu_attach(w.cpu, w.mm);
	CHECK_EQ(get64(w.cpu, va), 0);
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 2);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(memory_that_was_only_read_is_zeros_in_the_child)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_mm *child;

	CHECK_EQ(get64(w.cpu, va), 0);
	child = fork_mm(w.mm);
	put64(w.cpu, va, 1);
	ucow_cpu_attach(w.cpu, child);
	CHECK_EQ(get64(w.cpu, va), 0);
	put64(w.cpu, va, 2);
	ucow_cpu_attach(w.cpu, w.mm);
	CHECK_EQ(get64(w.cpu, va), 1);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(an_empty_space_forks)
{
	struct world w = world_open();
	struct ucow_mm *child = fork_mm(w.mm);
	struct ucow_mm_stat stat;

	ucow_mm_stat(child, &stat);
	CHECK_EQ(stat.mapped_pages, 0);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* Thousands of sharers of one page: counts do not wrap, nobody is taken for pinned who must not be. */
TEST(many_children_share_one_page)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	static struct ucow_mm *children[3000];
	enum { N = sizeof(children) / sizeof(children[0]) };

	put64(w.cpu, va, 7);
	for (unsigned i = 0; i < N; i++)
		children[i] = fork_mm(w.mm);
	CHECK_EQ(query(w.mm, va).mapcount, N + 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_EARLY_COPY), 0);
	put64(w.cpu, va, 8);
	CHECK_EQ(query(children[0], va).mapcount, N);
	ucow_cpu_attach(w.cpu, children[N - 1]);
	CHECK_EQ(get64(w.cpu, va), 7);
	ucow_cpu_attach(w.cpu, w.mm);
	for (unsigned i = 0; i < N; i++)
		CHECK_EQ(ucow_mm_destroy(children[i]), 0);
	world_close(&w);
}

/* Memory is given back by exit at once, whatever the order. */
TEST(exit_returns_memory)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 200);
	struct ucow_machine_stat before, after;

	for (unsigned i = 0; i < 200; i++)
		put64(w.cpu, va + i * PAGE, 1);
	ucow_machine_stat(w.machine, &before);
	for (unsigned round = 0; round < 20; round++) {
		struct ucow_mm *child = fork_mm(w.mm);

		ucow_cpu_attach(w.cpu, child);
		for (unsigned i = 0; i < 200; i++)
			put64(w.cpu, va + i * PAGE, 2);
		ucow_cpu_attach(w.cpu, w.mm);
		CHECK_EQ(ucow_mm_destroy(child), 0);
	}
	ucow_machine_stat(w.machine, &after);
	CHECK_EQ(after.used_pages, before.used_pages);
	CHECK_EQ(after.table_bytes, before.table_bytes);
	world_close(&w);
}

TAP_MAIN()
