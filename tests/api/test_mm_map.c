/* SPDX-License-Identifier: MIT */
/* mmap, munmap, mprotect and mremap: arguments, errors and effects. */
#include "fixture.h"

/* What a refused call must leave: nothing changed. */
static int refused_mmap(struct world *w, uint64_t hint, uint64_t length, unsigned prot, unsigned flags)
{
	struct ucow_mm_stat before, after;
	uint64_t va = 12345;
	int rc;

	ucow_mm_stat(w->mm, &before);
	rc = ucow_mmap(w->mm, hint, length, prot, flags, &va);
	ucow_mm_stat(w->mm, &after);
	REQUIRE(va == 12345 || rc == 0);
	REQUIRE(rc == 0 || (before.mappings == after.mappings && before.mapped_pages == after.mapped_pages));
	return rc;
}

/* ---- mmap ---- */

TEST(mmap_refuses_bad_arguments)
{
	struct world w = world_open();

	CHECK_EQ(refused_mmap(&w, 0, 0, RW, UCOW_MAP_PRIVATE), -EINVAL);
	CHECK_EQ(refused_mmap(&w, 0, PAGE, RW, 0), -EINVAL);
	CHECK_EQ(refused_mmap(&w, 0, PAGE, RW, UCOW_MAP_PRIVATE | UCOW_MAP_SHARED), -EINVAL);
	CHECK_EQ(refused_mmap(&w, 0, PAGE, RW, UCOW_MAP_PRIVATE | 1u << 30), -EINVAL);
	CHECK_EQ(refused_mmap(&w, BASE + 1, PAGE, RW, UCOW_MAP_PRIVATE | UCOW_MAP_FIXED), -EINVAL);
	CHECK_EQ(refused_mmap(&w, BASE + 1, PAGE, RW, UCOW_MAP_PRIVATE | UCOW_MAP_FIXED_NOREPLACE), -EINVAL);
	CHECK_EQ(refused_mmap(&w, 0, PAGE, 1u << 20, UCOW_MAP_PRIVATE), -EINVAL);
	world_close(&w);
}

/* The first 64 KiB and what lies above the limit are never mapped, however asked for. */
TEST(mmap_stays_within_the_address_space)
{
	struct world w = world_open();
	unsigned flags = UCOW_MAP_PRIVATE | UCOW_MAP_FIXED;

	CHECK(refused_mmap(&w, 0, PAGE, RW, flags) < 0);
	CHECK(refused_mmap(&w, UCOW_ADDRESS_MIN - PAGE, PAGE, RW, flags) < 0);
	CHECK(refused_mmap(&w, UCOW_ADDRESS_MIN - PAGE, 2 * PAGE, RW, flags) < 0);
	CHECK(refused_mmap(&w, UCOW_ADDRESS_LIMIT, PAGE, RW, flags) < 0);
	CHECK(refused_mmap(&w, UCOW_ADDRESS_LIMIT - PAGE, 2 * PAGE, RW, flags) < 0);
	CHECK(refused_mmap(&w, UINT64_MAX - PAGE + 1, PAGE, RW, flags) < 0);
	CHECK_EQ(refused_mmap(&w, 0, (uint64_t)1 << 48, RW, UCOW_MAP_PRIVATE), -ENOMEM);
	CHECK(refused_mmap(&w, 0, UINT64_MAX, RW, UCOW_MAP_PRIVATE) < 0);
	CHECK(refused_mmap(&w, BASE, UINT64_MAX - BASE, RW, flags) < 0);
	world_close(&w);
}

TEST(mmap_reaches_both_ends_of_the_address_space)
{
	struct world w = world_open();

	map_at(w.mm, UCOW_ADDRESS_MIN, 1, RW, UCOW_MAP_PRIVATE);
	map_at(w.mm, UCOW_ADDRESS_LIMIT - PAGE, 1, RW, UCOW_MAP_PRIVATE);
	put64(w.cpu, UCOW_ADDRESS_MIN, 1);
	put64(w.cpu, UCOW_ADDRESS_LIMIT - 8, 2);
	CHECK_EQ(get64(w.cpu, UCOW_ADDRESS_MIN), 1);
	CHECK_EQ(get64(w.cpu, UCOW_ADDRESS_LIMIT - 8), 2);
	world_close(&w);
}

TEST(mmap_without_fixed_never_overlaps)
{
	struct world w = world_open();
	uint64_t vas[64];

	for (int i = 0; i < 64; i++) {
		CHECK_EQ(ucow_mmap(w.mm, 0, (uint64_t)(i % 5 + 1) * PAGE, RW, UCOW_MAP_PRIVATE, &vas[i]), 0);
		CHECK(vas[i] >= UCOW_ADDRESS_MIN && vas[i] % PAGE == 0);
		put64(w.cpu, vas[i], (uint64_t)i);
		if (i % 7 == 3)
			CHECK_EQ(ucow_munmap(w.mm, vas[i - 1], PAGE), 0);
	}
	for (int i = 0; i < 64; i++)
		if (i % 7 != 2)
			CHECK_EQ(get64(w.cpu, vas[i]), i);
	world_close(&w);
}

/* Would catch lengths that are cut instead of rounded up. */
TEST(mmap_rounds_the_length_up)
{
	struct world w = world_open();
	struct ucow_mm_stat stat;
	uint64_t va;

	CHECK_EQ(ucow_mmap(w.mm, BASE, PAGE + 1, RW, UCOW_MAP_PRIVATE | UCOW_MAP_FIXED, &va), 0);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mapped_pages, 2);
	put64(w.cpu, va + 2 * PAGE - 8, 1);
	world_close(&w);
}

TEST(mmap_fixed_replaces_what_was_there)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);

	for (unsigned i = 0; i < 4; i++)
		put64(w.cpu, va + i * PAGE, 7);
	map_at(w.mm, va + PAGE, 2, RW, UCOW_MAP_PRIVATE);
	CHECK_EQ(get64(w.cpu, va), 7);
	CHECK_EQ(get64(w.cpu, va + PAGE), 0);
	CHECK_EQ(get64(w.cpu, va + 2 * PAGE), 0);
	CHECK_EQ(get64(w.cpu, va + 3 * PAGE), 7);
	world_close(&w);
}

TEST(mmap_noreplace_refuses_an_overlap)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	unsigned flags = UCOW_MAP_PRIVATE | UCOW_MAP_FIXED_NOREPLACE;

	put64(w.cpu, va, 7);
	CHECK_EQ(refused_mmap(&w, va, PAGE, RW, flags), -EEXIST);
	CHECK_EQ(refused_mmap(&w, va - PAGE, 2 * PAGE, RW, flags), -EEXIST);
	CHECK_EQ(refused_mmap(&w, va + PAGE, 3 * PAGE, RW, flags), -EEXIST);
	CHECK_EQ(refused_mmap(&w, va + 2 * PAGE, PAGE, RW, flags), 0);
	CHECK_EQ(get64(w.cpu, va), 7);
	world_close(&w);
}

TEST(mmap_takes_a_free_wish)
{
	struct world w = world_open();
	uint64_t va, other;

	CHECK_EQ(ucow_mmap(w.mm, BASE, PAGE, RW, UCOW_MAP_PRIVATE, &va), 0);
	CHECK_EQ(va, BASE);
	CHECK_EQ(ucow_mmap(w.mm, BASE, PAGE, RW, UCOW_MAP_PRIVATE, &other), 0);
	CHECK(other != va);
	world_close(&w);
}

TEST(mmap_populate_leaves_no_fault)
{
	struct world w = world_open();
	uint64_t va = map_at(w.mm, BASE, 40, RW, UCOW_MAP_PRIVATE | UCOW_MAP_POPULATE), faults;

	faults = counted(&w, UCOW_COUNTER_FAULTS);
	for (unsigned i = 0; i < 40; i++)
		put64(w.cpu, va + i * PAGE, i);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULTS), faults);
	world_close(&w);
}

/* Failing to populate is not reported, and what was mapped stays mapped. */
TEST(mmap_populate_failure_is_silent)
{
	struct world w = world_open();
	uint64_t va = 0;

	ucow_machine_inject(w.machine, UCOW_INJECT_FRAME, 3);
	CHECK_EQ(ucow_mmap(w.mm, BASE, 8 * PAGE, RW, UCOW_MAP_PRIVATE | UCOW_MAP_FIXED | UCOW_MAP_POPULATE, &va), 0);
	for (unsigned i = 0; i < 8; i++)
		put64(w.cpu, va + i * PAGE, i);
	world_close(&w);
}

/* Neighbours that are alike are one mapping: would catch lists of mappings that grow for ever. */
TEST(alike_neighbours_merge)
{
	struct world w = world_open();
	struct ucow_mm_stat stat;

	map_at(w.mm, BASE, 2, RW, UCOW_MAP_PRIVATE);
	map_at(w.mm, BASE + 4 * PAGE, 2, RW, UCOW_MAP_PRIVATE);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mappings, 2);
	map_at(w.mm, BASE + 2 * PAGE, 2, RW, UCOW_MAP_PRIVATE);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mappings, 1);
	CHECK_EQ(stat.mapped_pages, 6);
	CHECK_EQ(ucow_mprotect(w.mm, BASE + PAGE, PAGE, UCOW_PROT_READ), 0);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mappings, 3);
	CHECK_EQ(ucow_mprotect(w.mm, BASE + PAGE, PAGE, RW), 0);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mappings, 1);
	world_close(&w);
}

/* ---- munmap ---- */

TEST(munmap_refuses_bad_arguments)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);

	CHECK_EQ(ucow_munmap(w.mm, va + 1, PAGE), -EINVAL);
	CHECK_EQ(ucow_munmap(w.mm, va, 0), -EINVAL);
	CHECK_EQ(ucow_munmap(w.mm, UCOW_ADDRESS_LIMIT + PAGE, PAGE), -EINVAL);
	CHECK_EQ(ucow_munmap(w.mm, va, UINT64_MAX - PAGE), -EINVAL);
	put64(w.cpu, va, 1);
	world_close(&w);
}

TEST(munmap_takes_away_exactly_its_range)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 40), value;

	for (unsigned i = 0; i < 40; i++)
		put64(w.cpu, va + i * PAGE, i + 1);
	CHECK_EQ(ucow_munmap(w.mm, va + 10 * PAGE, 20 * PAGE), 0);
	for (unsigned i = 0; i < 40; i++) {
		int rc = ucow_read(w.cpu, va + i * PAGE, &value, 8, NULL);

		CHECK_EQ(rc, i >= 10 && i < 30 ? -EFAULT : 0);
		if (!rc)
			CHECK_EQ(value, i + 1);
	}
	world_close(&w);
}

TEST(munmap_accepts_holes)
{
	struct world w = world_open();

	map_at(w.mm, BASE, 1, RW, UCOW_MAP_PRIVATE);
	map_at(w.mm, BASE + 5 * PAGE, 1, RW, UCOW_MAP_PRIVATE);
	CHECK_EQ(ucow_munmap(w.mm, BASE - PAGE, 20 * PAGE), 0);
	CHECK_EQ(ucow_munmap(w.mm, BASE - PAGE, 20 * PAGE), 0);
	CHECK_EQ(query(w.mm, BASE).mapped, false);
	CHECK_EQ(query(w.mm, BASE + 5 * PAGE).mapped, false);
	world_close(&w);
}

/* A stale translation here would let a program read a page that belongs to somebody else by now. */
TEST(munmap_takes_cached_translations_away)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), value;

	CHECK_EQ(ucow_store_u64(w.cpu, va, 1), 0);
	CHECK_EQ(ucow_load_u64(w.cpu, va, &value), 0);
	CHECK_EQ(ucow_munmap(w.mm, va, PAGE), 0);
	CHECK_EQ(ucow_load_u64(w.cpu, va, &value), -EFAULT);
	CHECK_EQ(ucow_store_u64(w.cpu, va, 2), -EFAULT);
	map_private(w.mm, 1);
	CHECK_EQ(ucow_load_u64(w.cpu, va, &value), 0);
	CHECK_EQ(value, 0);
	world_close(&w);
}

TEST(munmap_frees_frames_and_tables)
{
	struct world w = world_open();
	struct ucow_machine_stat empty, now;
	uint64_t va;

	ucow_machine_stat(w.machine, &empty);
	va = map_private(w.mm, 100);
	for (unsigned i = 0; i < 100; i++)
		put64(w.cpu, va + i * PAGE, i);
	CHECK_EQ(ucow_munmap(w.mm, va, 100 * PAGE), 0);
	ucow_machine_stat(w.machine, &now);
	CHECK_EQ(now.used_pages, empty.used_pages);
	CHECK_EQ(now.table_bytes, empty.table_bytes);
	world_close(&w);
}

/* ---- mprotect ---- */

TEST(mprotect_refuses_bad_arguments)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);

	CHECK_EQ(ucow_mprotect(w.mm, va + 1, PAGE, RW), -EINVAL);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, 1u << 20), -EINVAL);
	CHECK_EQ(ucow_mprotect(w.mm, va - PAGE, PAGE, RW), -ENOMEM);
	CHECK(ucow_mprotect(w.mm, va, UINT64_MAX - PAGE, RW) < 0);
	put64(w.cpu, va, 1);
	world_close(&w);
}

TEST(mprotect_of_nothing_succeeds)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);

	CHECK_EQ(ucow_mprotect(w.mm, va, 0, UCOW_PROT_NONE), 0);
	CHECK_EQ(query(w.mm, va).prot, RW);
	CHECK_EQ(ucow_mprotect(w.mm, UCOW_ADDRESS_LIMIT, PAGE, RW), -ENOMEM);
	world_close(&w);
}

TEST(mprotect_takes_rights_away_and_gives_them_back)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 3), value = 0;

	for (unsigned i = 0; i < 3; i++)
		put64(w.cpu, va + i * PAGE, i + 1);
	CHECK_EQ(ucow_mprotect(w.mm, va + PAGE, PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(get64(w.cpu, va + PAGE), 2);
	CHECK_EQ(ucow_store_u64(w.cpu, va + PAGE, 9), -EFAULT);
	CHECK_EQ(ucow_mprotect(w.mm, va + PAGE, PAGE, UCOW_PROT_NONE), 0);
	CHECK_EQ(ucow_load_u64(w.cpu, va + PAGE, &value), -EFAULT);
	put64(w.cpu, va, 10);
	put64(w.cpu, va + 2 * PAGE, 30);
	CHECK_EQ(ucow_mprotect(w.mm, va + PAGE, PAGE, RW), 0);
	CHECK_EQ(get64(w.cpu, va + PAGE), 2);
	put64(w.cpu, va + PAGE, 20);
	CHECK_EQ(get64(w.cpu, va + PAGE), 20);
	world_close(&w);
}

/* On a hole, ranges before it have changed and ranges behind it have not. */
TEST(mprotect_stops_at_a_hole)
{
	struct world w = world_open();

	map_at(w.mm, BASE, 2, RW, UCOW_MAP_PRIVATE);
	map_at(w.mm, BASE + 3 * PAGE, 1, RW, UCOW_MAP_PRIVATE);
	CHECK_EQ(ucow_mprotect(w.mm, BASE, 4 * PAGE, UCOW_PROT_READ), -ENOMEM);
	CHECK_EQ(query(w.mm, BASE).prot, UCOW_PROT_READ);
	CHECK_EQ(query(w.mm, BASE + PAGE).prot, UCOW_PROT_READ);
	CHECK_EQ(query(w.mm, BASE + 3 * PAGE).prot, RW);
	world_close(&w);
}

/* An exclusive page is writable again at once; a page shared by fork is not. semantics.md B.6 */
TEST(mprotect_upgrades_exclusive_pages_only)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), faults;
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
	CHECK(!query(w.mm, va).writable);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, RW), 0);
	CHECK(query(w.mm, va).writable);
	faults = counted(&w, UCOW_COUNTER_FAULTS);
	put64(w.cpu, va, 2);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULTS), faults);

	child = fork_mm(w.mm);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, RW), 0);
	CHECK(!query(w.mm, va).writable);
	put64(w.cpu, va, 3);
	ucow_cpu_attach(w.cpu, child);
	CHECK_EQ(get64(w.cpu, va), 2);
	ucow_cpu_attach(w.cpu, w.mm);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* ---- mremap ---- */

static int refused_mremap(struct world *w, uint64_t va, uint64_t old_length, uint64_t new_length, unsigned flags,
			  uint64_t new_va)
{
	uint64_t result = 12345;
	int rc = ucow_mremap(w->mm, va, old_length, new_length, flags, new_va, &result);

	REQUIRE(result == 12345 || rc == 0);
	return rc;
}

TEST(mremap_refuses_bad_arguments)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4), to = BASE + 100 * PAGE;
	unsigned fixed = UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED;

	put64(w.cpu, va, 7);
	CHECK_EQ(refused_mremap(&w, va + 1, PAGE, PAGE, 0, 0), -EINVAL);
	CHECK_EQ(refused_mremap(&w, va, PAGE, 0, 0, 0), -EINVAL);
	CHECK_EQ(refused_mremap(&w, va, PAGE, PAGE, 1u << 20, 0), -EINVAL);
	CHECK_EQ(refused_mremap(&w, va, PAGE, PAGE, UCOW_MREMAP_FIXED, to), -EINVAL);
	CHECK_EQ(refused_mremap(&w, va, PAGE, PAGE, fixed, to + 1), -EINVAL);
	CHECK_EQ(refused_mremap(&w, va, 2 * PAGE, 2 * PAGE, fixed, va + PAGE), -EINVAL);
	CHECK_EQ(refused_mremap(&w, va + 2 * PAGE, 2 * PAGE, 2 * PAGE, fixed, va + PAGE), -EINVAL);
	CHECK_EQ(refused_mremap(&w, va, PAGE, PAGE, UCOW_MREMAP_DONTUNMAP, 0), -EINVAL);
	CHECK_EQ(refused_mremap(&w, va, PAGE, 2 * PAGE, UCOW_MREMAP_DONTUNMAP | UCOW_MREMAP_MAYMOVE, 0), -EINVAL);
	CHECK_EQ(refused_mremap(&w, va, PAGE, PAGE, fixed, UCOW_ADDRESS_LIMIT), -EINVAL);
	CHECK_EQ(get64(w.cpu, va), 7);
	world_close(&w);
}

/* Nothing mapped at the start, and several mappings where the length changes or the old ones stay: nothing changes. */
TEST(mremap_wants_one_mapping)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4), to = BASE + 100 * PAGE;
	unsigned fixed = UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED;

	CHECK_EQ(ucow_mprotect(w.mm, va + 2 * PAGE, 2 * PAGE, UCOW_PROT_READ), 0);
	map_at(w.mm, to, 1, RW, UCOW_MAP_PRIVATE);
	put64(w.cpu, to, 5);
	CHECK_EQ(refused_mremap(&w, va - PAGE, PAGE, 2 * PAGE, UCOW_MREMAP_MAYMOVE, 0), -EFAULT);
	CHECK_EQ(refused_mremap(&w, va - PAGE, 2 * PAGE, 2 * PAGE, fixed, to), -EFAULT);
	CHECK_EQ(refused_mremap(&w, va + 3 * PAGE, 2 * PAGE, 3 * PAGE, fixed, to), -EFAULT);
	CHECK_EQ(refused_mremap(&w, va, 4 * PAGE, 5 * PAGE, fixed, to), -EFAULT);
	CHECK_EQ(refused_mremap(&w, va, 4 * PAGE, 4 * PAGE, fixed | UCOW_MREMAP_DONTUNMAP, to), -EFAULT);
	CHECK_EQ(get64(w.cpu, to), 5);
	world_close(&w);
}

static unsigned prot_at(struct ucow_mm *mm, uint64_t va)
{
	struct ucow_entry_info info;

	ucow_query(mm, va, &info);
	return info.mapped ? info.prot : 99;
}

/* Also if it is one mapping that moves: the hole behind it is no part of it. */
TEST(mremap_leaves_the_hole_behind_a_mapping)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 3), to = BASE + 100 * PAGE, moved;
	unsigned fixed = UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED;

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_munmap(w.mm, va + PAGE, 2 * PAGE), 0);
	map_at(w.mm, to + 2 * PAGE, 1, RW, UCOW_MAP_PRIVATE);
	put64(w.cpu, to + 2 * PAGE, 5);
	CHECK_EQ(ucow_mremap(w.mm, va, 3 * PAGE, 3 * PAGE, fixed, to, &moved), 0);
	CHECK_EQ(get64(w.cpu, to), 1);
	CHECK_EQ(prot_at(w.mm, to + PAGE), 99);
	CHECK_EQ(get64(w.cpu, to + 2 * PAGE), 5);
	world_close(&w);
}

/* Linux since 6.17: several mappings at once, each with its protection; between them holes stay, at either end. */
TEST(mremap_moves_several_mappings)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 6), to = BASE + 100 * PAGE, result, value;
	unsigned fixed = UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED;
	struct ucow_page *pin;

	for (unsigned i = 0; i < 6; i++)
		put64(w.cpu, va + i * PAGE, 10 + i);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va + 2 * PAGE, 1, UCOW_FOLL_WRITE, &pin), 1);
	CHECK_EQ(ucow_mprotect(w.mm, va + 2 * PAGE, 2 * PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_munmap(w.mm, va + 4 * PAGE, PAGE), 0);
	map_at(w.mm, to, 6, RW, UCOW_MAP_PRIVATE);
	for (unsigned i = 0; i < 6; i++)
		put64(w.cpu, to + i * PAGE, 20 + i);
	CHECK_EQ(ucow_mremap(w.mm, va + PAGE, 5 * PAGE, 5 * PAGE, fixed, to + PAGE, &result), 0);
	CHECK_EQ(result, to + PAGE);
	CHECK_EQ(get64(w.cpu, va), 10);
	for (unsigned i = 1; i < 6; i++)
		CHECK_EQ(prot_at(w.mm, va + i * PAGE), 99);
	CHECK_EQ(get64(w.cpu, to), 20);
	for (unsigned i = 1; i < 6; i++) {
		CHECK_EQ(get64(w.cpu, to + i * PAGE), i == 4 ? 24 : 10 + i); /* the hole took nothing along */
		CHECK_EQ(prot_at(w.mm, to + i * PAGE), i == 2 || i == 3 ? UCOW_PROT_READ : RW);
	}
	*(uint64_t *)ucow_page_address(pin) = 77;
	CHECK_EQ(get64(w.cpu, to + 2 * PAGE), 77);
	CHECK_EQ(ucow_store_u64(w.cpu, to + 3 * PAGE, 1), -EFAULT);
	CHECK_EQ(ucow_load_u64(w.cpu, va + PAGE, &value), -EFAULT);
	ucow_unpin_user_pages(&pin, 1);
	world_close(&w);
}

TEST(mremap_moves_bytes_frame_and_exclusivity)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 40), to = BASE + 1000 * PAGE, result, faults;
	struct ucow_entry_info before, after;

	for (unsigned i = 0; i < 40; i++)
		put64(w.cpu, va + i * PAGE, i + 1);
	before = query(w.mm, va + 3 * PAGE);
	CHECK_EQ(ucow_mremap(w.mm, va, 40 * PAGE, 40 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, to, &result), 0);
	CHECK_EQ(result, to);
	after = query(w.mm, to + 3 * PAGE);
	CHECK_EQ(before.pfn, after.pfn);
	CHECK(after.exclusive && !query(w.mm, va).mapped);
	faults = counted(&w, UCOW_COUNTER_FAULT_WP);
	for (unsigned i = 0; i < 40; i++) {
		CHECK_EQ(get64(w.cpu, to + i * PAGE), i + 1);
		put64(w.cpu, to + i * PAGE, i + 2);
	}
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_WP), faults);
	CHECK_EQ(ucow_load_u64(w.cpu, va, &result), -EFAULT);
	world_close(&w);
}

TEST(mremap_grows_in_place_where_it_can)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), result;

	put64(w.cpu, va, 7);
	CHECK_EQ(ucow_mremap(w.mm, va, 2 * PAGE, 5 * PAGE, 0, 0, &result), 0);
	CHECK_EQ(result, va);
	CHECK_EQ(get64(w.cpu, va), 7);
	CHECK_EQ(get64(w.cpu, va + 4 * PAGE), 0);
	put64(w.cpu, va + 4 * PAGE, 8);
	world_close(&w);
}

TEST(mremap_grows_up_to_the_end_of_the_address_space_and_not_beyond)
{
	struct world w = world_open();
	uint64_t va = map_at(w.mm, UCOW_ADDRESS_LIMIT - 3 * PAGE, 1, RW, UCOW_MAP_PRIVATE), result;

	CHECK_EQ(refused_mremap(&w, va, PAGE, 4 * PAGE, 0, 0), -ENOMEM);
	CHECK_EQ(ucow_mremap(w.mm, va, PAGE, 3 * PAGE, 0, 0, &result), 0);
	CHECK_EQ(result, va);
	put64(w.cpu, UCOW_ADDRESS_LIMIT - 8, 1);
	world_close(&w);
}

TEST(mremap_without_maymove_does_not_move)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), result;

	map_at(w.mm, va + 3 * PAGE, 1, RW, UCOW_MAP_SHARED);
	put64(w.cpu, va, 7);
	CHECK_EQ(refused_mremap(&w, va, 2 * PAGE, 4 * PAGE, 0, 0), -ENOMEM);
	CHECK_EQ(get64(w.cpu, va), 7);
	CHECK_EQ(ucow_mremap(w.mm, va, 2 * PAGE, 4 * PAGE, UCOW_MREMAP_MAYMOVE, 0, &result), 0);
	CHECK(result != va);
	CHECK_EQ(get64(w.cpu, result), 7);
	CHECK_EQ(get64(w.cpu, result + 3 * PAGE), 0);
	CHECK(!query(w.mm, va).mapped);
	world_close(&w);
}

TEST(mremap_shrinks)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 5), result;
	struct ucow_mm_stat stat;

	for (unsigned i = 0; i < 5; i++)
		put64(w.cpu, va + i * PAGE, i + 1);
	CHECK_EQ(ucow_mremap(w.mm, va, 5 * PAGE, 2 * PAGE, 0, 0, &result), 0);
	CHECK_EQ(result, va);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mapped_pages, 2);
	CHECK_EQ(stat.rss_anon, 2);
	CHECK_EQ(get64(w.cpu, va + PAGE), 2);
	CHECK_EQ(ucow_load_u64(w.cpu, va + 2 * PAGE, &result), -EFAULT);
	world_close(&w);
}

/* Move and shrink in one call: the tail goes. */
TEST(mremap_fixed_shrinks_and_replaces_the_target)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4), to = BASE + 100 * PAGE, result;

	map_at(w.mm, to - PAGE, 4, RW, UCOW_MAP_SHARED);
	put64(w.cpu, to - PAGE, 50);
	put64(w.cpu, to, 51);
	put64(w.cpu, to + 2 * PAGE, 53);
	put64(w.cpu, va, 1);
	put64(w.cpu, va + PAGE, 2);
	CHECK_EQ(ucow_mremap(w.mm, va, 4 * PAGE, 2 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, to, &result), 0);
	CHECK_EQ(get64(w.cpu, to - PAGE), 50);
	CHECK_EQ(get64(w.cpu, to), 1);
	CHECK_EQ(get64(w.cpu, to + PAGE), 2);
	CHECK_EQ(get64(w.cpu, to + 2 * PAGE), 53);
	for (unsigned i = 0; i < 4; i++)
		CHECK(!query(w.mm, va + i * PAGE).mapped);
	world_close(&w);
}

/* The old range stays mapped: private memory reads as zeros there, shared memory as before. */
TEST(mremap_dontunmap_leaves_an_empty_mapping)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), shared = BASE + 50 * PAGE, to;
	unsigned flags = UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_DONTUNMAP;
	uint64_t pfn;

	map_at(w.mm, shared, 2, RW, UCOW_MAP_SHARED);
	put64(w.cpu, va, 7);
	put64(w.cpu, shared, 8);
	pfn = query(w.mm, va).pfn;
	CHECK_EQ(ucow_mremap(w.mm, va, 2 * PAGE, 2 * PAGE, flags, 0, &to), 0);
	CHECK(query(w.mm, to).pfn == pfn && query(w.mm, to).exclusive);
	CHECK(query(w.mm, va).mapped && !query(w.mm, va).present);
	CHECK_EQ(get64(w.cpu, to), 7);
	CHECK_EQ(get64(w.cpu, va), 0);
	CHECK_EQ(ucow_mremap(w.mm, shared, 2 * PAGE, 2 * PAGE, flags, 0, &to), 0);
	CHECK_EQ(get64(w.cpu, to), 8);
	CHECK_EQ(get64(w.cpu, shared), 8);
	put64(w.cpu, shared, 9);
	CHECK_EQ(get64(w.cpu, to), 9);
	world_close(&w);
}

/* A free wish is taken when the mapping has to move; an occupied or impossible one is not. */
TEST(mremap_takes_a_free_wish)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), wish = BASE + 300 * PAGE, result;

	map_at(w.mm, va + 2 * PAGE, 1, RW, UCOW_MAP_SHARED); /* no room to grow in place */
	put64(w.cpu, va, 7);
	CHECK_EQ(ucow_mremap(w.mm, va, 2 * PAGE, 3 * PAGE, UCOW_MREMAP_MAYMOVE, va + 2 * PAGE, &result), 0);
	CHECK(result != va && result != va + 2 * PAGE);
	va = result;
	CHECK_EQ(get64(w.cpu, va), 7);
	map_at(w.mm, va + 3 * PAGE, 1, RW, UCOW_MAP_SHARED);
	CHECK_EQ(ucow_mremap(w.mm, va, 3 * PAGE, 4 * PAGE, UCOW_MREMAP_MAYMOVE, wish, &result), 0);
	CHECK_EQ(result, wish);
	CHECK_EQ(get64(w.cpu, wish), 7);
	world_close(&w);
}

TEST(mremap_refuses_absurd_lengths)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	unsigned fixed = UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED;

	put64(w.cpu, va, 7);
	CHECK(refused_mremap(&w, va, PAGE, UINT64_MAX, UCOW_MREMAP_MAYMOVE, 0) < 0);
	CHECK(refused_mremap(&w, va, UINT64_MAX, PAGE, fixed, BASE + 100 * PAGE) < 0);
	CHECK(refused_mremap(&w, va, PAGE, (uint64_t)1 << 48, UCOW_MREMAP_MAYMOVE, 0) < 0);
	CHECK(refused_mremap(&w, va, PAGE, (uint64_t)1 << 47, fixed, (uint64_t)1 << 47) < 0);
	CHECK(refused_mremap(&w, (uint64_t)1 << 60, PAGE, PAGE, UCOW_MREMAP_MAYMOVE, 0) < 0);
	CHECK_EQ(get64(w.cpu, va), 7);
	world_close(&w);
}

/* A pin follows its page: DMA to a moved buffer arrives. */
TEST(mremap_moves_pinned_pages)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), to = BASE + 500 * PAGE, result;
	struct ucow_page *page;
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	page = pin_page(w.cpu, va, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM);
	CHECK_EQ(ucow_mremap(w.mm, va, PAGE, PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, to, &result), 0);
	child = fork_mm(w.mm);
	device_write64(page, 2);
	CHECK_EQ(get64(w.cpu, to), 2);
	put64(w.cpu, to, 3);
	CHECK_EQ(device_read64(page), 3);
	ucow_unpin_user_pages(&page, 1);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* ---- shared mappings ---- */

TEST(shared_mapping_is_one_memory_across_fork)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 40);
	struct ucow_mm *child = fork_mm(w.mm);
	struct ucow_cpu *cpu = cpu_on(child);

	for (unsigned i = 0; i < 40; i++) {
		put64(i % 2 ? cpu : w.cpu, va + i * PAGE, i + 1);
		CHECK_EQ(get64(w.cpu, va + i * PAGE), i + 1);
		CHECK_EQ(get64(cpu, va + i * PAGE), i + 1);
	}
	CHECK_EQ(query(child, va).pfn, query(w.mm, va).pfn);
	exit_mm(cpu, child);
	CHECK_EQ(get64(w.cpu, va + PAGE), 2);
	world_close(&w);
}

/* Pages of shared memory live until its last mapping goes: DONTNEED and munmap by one are no loss for the other. */
TEST(shared_memory_lives_as_long_as_a_mapping)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 2);
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	put64(w.cpu, va, 7);
	CHECK_EQ(ucow_madvise(w.mm, va, 2 * PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(get64(w.cpu, va), 7);
	child = fork_mm(w.mm);
	CHECK_EQ(ucow_munmap(w.mm, va, 2 * PAGE), 0);
	cpu = cpu_on(child);
	CHECK_EQ(get64(cpu, va), 7);
	exit_mm(cpu, child);
	map_shared(w.mm, 2);
	CHECK_EQ(get64(w.cpu, va), 0);
	world_close(&w);
}

TEST(two_shared_mappings_are_two_memories)
{
	struct world w = world_open();

	map_at(w.mm, BASE, 1, RW, UCOW_MAP_SHARED);
	map_at(w.mm, BASE + PAGE, 1, RW, UCOW_MAP_SHARED);
	put64(w.cpu, BASE, 1);
	CHECK_EQ(get64(w.cpu, BASE + PAGE), 0);
	world_close(&w);
}

/* ---- spaces ---- */

TEST(space_with_a_cpu_is_not_destroyed)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);

	put64(w.cpu, va, 7);
	CHECK_EQ(ucow_mm_destroy(w.mm), -EBUSY);
	CHECK_EQ(get64(w.cpu, va), 7);
	world_close(&w);
}

TEST(stat_of_a_space_is_its_recount)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 10), value;
	struct ucow_mm_stat stat;

	map_at(w.mm, BASE + 100 * PAGE, 5, RW, UCOW_MAP_SHARED);
	for (unsigned i = 0; i < 4; i++)
		put64(w.cpu, va + i * PAGE, 1);
	CHECK_EQ(ucow_read(w.cpu, va + 5 * PAGE, &value, 8, NULL), 0); /* the zero page is in no RSS */
	put64(w.cpu, BASE + 100 * PAGE, 1);
	put64(w.cpu, BASE + 101 * PAGE, 1);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.mapped_pages, 15);
	CHECK_EQ(stat.mappings, 2);
	CHECK_EQ(stat.rss_anon, 4);
	CHECK_EQ(stat.rss_file, 2);
	CHECK_EQ(stat.swap_entries, 0);
	CHECK_EQ(stat.pinned, 0);
	CHECK(!stat.has_pinned && stat.table_bytes > 0);
	world_close(&w);
}

/* The first target leaf made is also the leaf in which the source range begins: it must not be taken for a source. */
TEST(a_move_into_the_leaf_before_works)
{
	struct world w = world_open();
	uint64_t from = map_at(w.mm, 0x40009000, 31, RW, UCOW_MAP_PRIVATE), moved;

	CHECK_EQ(ucow_store_u64(w.cpu, 0x40020000, 7), 0);
	CHECK_EQ(ucow_mremap(w.mm, from, 31 * PAGE, 31 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, 0x3ffe9000,
			     &moved),
		 0);
	CHECK_EQ(get64(w.cpu, 0x40020000 - from + moved), 7);
	world_close(&w);
}

TAP_MAIN()
