/* SPDX-License-Identifier: MIT */
/*
 * Snapshots: what they refuse, what they keep, checksums; groups: charges against a recount, limits, dropping, failing
 * allocations.
 */
#include "fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define NPAGES 40

/* A world with NPAGES private pages at BASE, page i holding i + 1. */
static struct world open_filled(void)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, NPAGES);

	for (unsigned i = 0; i < NPAGES; i++)
		put64(w.cpu, va + i * PAGE, i + 1);
	return w;
}

static struct ucow_mm *snap(struct ucow_mm *mm)
{
	struct ucow_mm *snapshot = NULL;

	REQUIRE_EQ(ucow_snapshot(mm, &snapshot), 0);
	return snapshot;
}

static uint64_t peek_in(struct ucow_mm *mm, uint64_t va)
{
	struct ucow_cpu *cpu = cpu_on(mm);
	uint64_t value = get64(cpu, va);

	ucow_cpu_destroy(cpu);
	return value;
}

static uint64_t used_pages(struct ucow_machine *machine)
{
	struct ucow_machine_stat stat;

	ucow_machine_stat(machine, &stat);
	return stat.used_pages;
}

/* ---- read-only ---- */

/* Would catch a store, span or compare-exchange that goes through, on a cold and on a filled TLB. */
static void check_stores_refused(struct ucow_cpu *cpu, uint64_t va)
{
	uint64_t old64 = 1;
	uint32_t old32 = 1;
	size_t done = 99;
	bool exchanged = false;
	void *span;

	CHECK_EQ(ucow_write(cpu, va, "no", 2, &done), -EACCES);
	CHECK_EQ(done, 0);
	CHECK_EQ(ucow_store_u8(cpu, va + 1, 9), -EACCES);
	CHECK_EQ(ucow_store_u16(cpu, va + 2, 9), -EACCES);
	CHECK_EQ(ucow_store_u32(cpu, va + 4, 9), -EACCES);
	CHECK_EQ(ucow_store_u64(cpu, va, 9), -EACCES);
	CHECK_EQ(ucow_store_u64(cpu, va + 1, 9), -EACCES);
	CHECK_EQ(ucow_cmpxchg_u64(cpu, va, &old64, 9, &exchanged), -EACCES);
	CHECK_EQ(ucow_cmpxchg_u32(cpu, va, &old32, 9, &exchanged), -EACCES);
	CHECK(!exchanged);
	CHECK_EQ(ucow_span_begin(cpu, va, 8, true, &span), -EACCES);
	CHECK_EQ(ucow_store_u64(cpu, (uint64_t)1 << 44, 9), -EACCES);
}

static void check_gup_for_writing_refused(struct ucow_cpu *cpu, uint64_t va)
{
	struct ucow_mm *mm = ucow_cpu_mm(cpu);
	struct ucow_page *page;

	CHECK_EQ(ucow_get_user_pages(cpu, va, 1, UCOW_FOLL_WRITE, &page), -EACCES);
	CHECK_EQ(ucow_get_user_pages(cpu, va, 1, UCOW_FOLL_WRITE | UCOW_FOLL_FORCE, &page), -EACCES);
	CHECK_EQ(ucow_get_user_pages_fast(cpu, va, 1, UCOW_FOLL_WRITE, &page), -EACCES);
	CHECK_EQ(ucow_get_user_pages_remote(mm, va, 1, UCOW_FOLL_WRITE, &page), -EACCES);
	CHECK_EQ(ucow_pin_user_pages(cpu, va, 1, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM, &page), -EACCES);
	CHECK_EQ(ucow_pin_user_pages_fast(cpu, va, 1, UCOW_FOLL_WRITE, &page), -EACCES);
	CHECK_EQ(ucow_pin_user_pages_remote(mm, va, 1, UCOW_FOLL_WRITE | UCOW_FOLL_FORCE, &page), -EACCES);
}

static void check_changes_refused(struct ucow_mm *mm, uint64_t va)
{
	static char outside[PAGE] __attribute__((aligned(4096)));
	uint64_t result;

	CHECK_EQ(ucow_mmap(mm, 0, PAGE, RW, UCOW_MAP_PRIVATE, &result), -EACCES);
	CHECK_EQ(ucow_munmap(mm, va, PAGE), -EACCES);
	CHECK_EQ(ucow_mprotect(mm, va, PAGE, UCOW_PROT_READ), -EACCES);
	CHECK_EQ(ucow_mremap(mm, va, PAGE, 2 * PAGE, UCOW_MREMAP_MAYMOVE, 0, &result), -EACCES);
	CHECK_EQ(ucow_insert_pfn(mm, va, outside), -EACCES);
	for (int advice = 0; advice < UCOW_MADV_COUNT; advice++)
		CHECK_EQ(ucow_madvise(mm, va, PAGE, (enum ucow_advice)advice), -EACCES);
}

static void check_is_read_only(struct ucow_mm *snapshot, uint64_t va)
{
	struct ucow_cpu *cpu = cpu_on(snapshot);

	check_stores_refused(cpu, va);
	CHECK_EQ(get64(cpu, va), 1);
	check_stores_refused(cpu, va);
	CHECK_EQ(get64(cpu, va), 1);
	check_gup_for_writing_refused(cpu, va);
	check_changes_refused(snapshot, va);
	CHECK(!query(snapshot, va).writable);
	CHECK_EQ(get64(cpu, va), 1);
	ucow_cpu_destroy(cpu);
}

TEST(nothing_writes_to_a_snapshot_or_changes_its_mappings)
{
	struct world w = open_filled();
	struct ucow_mm *snapshot = snap(w.mm);

	check_is_read_only(snapshot, BASE);
	CHECK_GO_ON();
	CHECK_EQ(get64(w.cpu, BASE), 1);
	/* Alone, with tables and pages of its own: the entries may permit stores now. */
	ucow_cpu_attach(w.cpu, NULL);
	REQUIRE_EQ(ucow_mm_destroy(w.mm), 0);
	w.mm = snapshot;
	check_is_read_only(snapshot, BASE);
	CHECK_GO_ON();
	world_close(&w);
}

TEST(the_fork_of_a_snapshot_is_writable)
{
	struct world w = open_filled();
	struct ucow_mm *first = snap(w.mm), *second = snap(first), *child = fork_mm(second);
	struct ucow_cpu *cpu = cpu_on(child);

	put64(w.cpu, BASE, 100);
	put64(cpu, BASE, 200);
	CHECK_EQ(ucow_munmap(child, BASE + PAGE, PAGE), 0);
	CHECK_EQ(peek_in(first, BASE), 1);
	CHECK_EQ(ucow_mm_destroy(first), 0);
	CHECK_EQ(peek_in(second, BASE), 1);
	CHECK_EQ(peek_in(second, BASE + PAGE), 2);
	CHECK_EQ(get64(cpu, BASE), 200);
	CHECK_EQ(ucow_mm_destroy(second), 0);
	exit_mm(cpu, child);
	world_close(&w);
}

TEST(bad_arguments_are_refused)
{
	struct world w = world_open();
	struct ucow_snapshot_group_options options = {.size = sizeof(options)};
	struct ucow_snapshot_group *group;
	struct ucow_snapshot_stat stat;
	struct ucow_mm *snapshot;

	CHECK_EQ(ucow_snapshot_with_flags(w.mm, 1u << 7, &snapshot), -EINVAL);
	CHECK_EQ(ucow_snapshot_verify(w.mm), -EINVAL);
	CHECK_EQ(ucow_snapshot_stat(w.mm, &stat), -EINVAL);
	options.size--;
	CHECK_EQ(ucow_snapshot_group_create(w.mm, &options, &group), -EINVAL);
	options.size++;
	options.policy = UCOW_SNAPSHOT_POLICY_COUNT;
	CHECK_EQ(ucow_snapshot_group_create(w.mm, &options, &group), -EINVAL);
	snapshot = snap(w.mm);
	CHECK_EQ(ucow_snapshot_group_create(snapshot, NULL, &group), -EACCES);
	CHECK_EQ(ucow_snapshot_verify(snapshot), -ENODATA);
	CHECK_EQ(ucow_snapshot_stat(snapshot, &stat), 0);
	CHECK(!stat.grouped && !stat.has_checksum && !stat.kept_bytes);
	CHECK_EQ(ucow_mm_destroy(snapshot), 0);
	world_close(&w);
}

/* ---- checksums ---- */

/* Would catch a checksum that depends on what a read or a pin leaves in the tables, or that faults memory in. */
TEST(verify_holds_while_others_write_and_readers_read)
{
	struct world w = open_filled();
	uint64_t far = map_at(w.mm, (uint64_t)1 << 40, 3, RW, UCOW_MAP_PRIVATE), used;
	struct ucow_page *page = NULL;
	struct ucow_mm *snapshot;
	struct ucow_cpu *cpu;

	CHECK_EQ(get64(w.cpu, far), 0);
	put64(w.cpu, far + PAGE, 0);
	CHECK_EQ(ucow_snapshot_with_flags(w.mm, UCOW_SNAPSHOT_CHECKSUM, &snapshot), 0);
	used = used_pages(w.machine);
	CHECK_EQ(ucow_snapshot_verify(snapshot), 0);
	CHECK_EQ(used_pages(w.machine), used);
	for (unsigned i = 0; i < NPAGES; i += 3)
		put64(w.cpu, BASE + i * PAGE, 1000 + i);
	put64(w.cpu, far + 2 * PAGE, 1);
	CHECK_EQ(ucow_snapshot_verify(snapshot), 0);
	cpu = cpu_on(snapshot);
	CHECK_EQ(get64(cpu, far + 2 * PAGE), 0);
	CHECK_EQ(ucow_pin_user_pages(cpu, far + 2 * PAGE, 1, UCOW_FOLL_LONGTERM, &page), 1);
	ucow_unpin_user_pages(&page, 1);
	CHECK_EQ(ucow_pin_user_pages(cpu, BASE + PAGE, 1, UCOW_FOLL_LONGTERM, &page), 1);
	CHECK_EQ(ucow_snapshot_verify(snapshot), 0);
	ucow_unpin_user_pages(&page, 1);
	CHECK_EQ(ucow_munmap(w.mm, BASE, NPAGES * PAGE), 0);
	CHECK_EQ(ucow_snapshot_verify(snapshot), 0);
	exit_mm(cpu, snapshot);
	world_close(&w);
}

/* Would catch bytes that the checksum leaves out, and pages that could change places. */
TEST(verify_notices_any_changed_byte)
{
	struct world w = open_filled();
	struct ucow_page *pages[2];
	struct ucow_mm *snapshot;
	unsigned char *bytes[2];

	CHECK_EQ(ucow_snapshot_with_flags(w.mm, UCOW_SNAPSHOT_CHECKSUM, &snapshot), 0);
	CHECK_EQ(ucow_get_user_pages_remote(snapshot, BASE, 2, 0, pages), 2);
	for (unsigned i = 0; i < 2; i++)
		bytes[i] = ucow_page_address(pages[i]);
	for (unsigned at = 0; at < PAGE; at += 61) {
		bytes[0][at] ^= (unsigned char)(1u << at % 8);
		CHECK_EQ(ucow_snapshot_verify(snapshot), -EUCLEAN);
		bytes[0][at] ^= (unsigned char)(1u << at % 8);
	}
	CHECK_EQ(ucow_snapshot_verify(snapshot), 0);
	bytes[0][0] = 2, bytes[1][0] = 1; /* the first two pages change places */
	CHECK_EQ(ucow_snapshot_verify(snapshot), -EUCLEAN);
	bytes[0][0] = 1, bytes[1][0] = 2;
	CHECK_EQ(ucow_snapshot_verify(snapshot), 0);
	ucow_put_pages(pages, 2);
	CHECK_EQ(ucow_mm_destroy(snapshot), 0);
	world_close(&w);
}

/* Shared memory is no snapshot: that it changes is no damage. */
TEST(verify_leaves_shared_memory_out)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 2);
	struct ucow_mm *snapshot;

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_snapshot_with_flags(w.mm, UCOW_SNAPSHOT_CHECKSUM, &snapshot), 0);
	put64(w.cpu, va, 2);
	CHECK_EQ(peek_in(snapshot, va), 2);
	CHECK_EQ(ucow_snapshot_verify(snapshot), 0);
	CHECK_EQ(ucow_mm_destroy(snapshot), 0);
	world_close(&w);
}

/* ---- groups ---- */

/* What an owner keeps of its snapshots, oldest first; the callback strikes them off. */
struct owner {
	struct ucow_machine *machine;
	struct ucow_snapshot_group *group;
	struct ucow_mm *snapshots[4096];
	unsigned n;
	unsigned told;      /* calls of the callback */
	uint64_t last_seen; /* what the dropped snapshot read at BASE */
};

static void strike_off(struct owner *owner, struct ucow_mm *snapshot)
{
	unsigned i = 0;

	while (i < owner->n && owner->snapshots[i] != snapshot)
		i++;
	REQUIRE(i < owner->n);
	memmove(&owner->snapshots[i], &owner->snapshots[i + 1], (--owner->n - i) * sizeof(owner->snapshots[0]));
}

static void on_drop(void *arg, struct ucow_mm *snapshot)
{
	struct owner *owner = arg;

	owner->told++;
	if (query(snapshot, BASE).mapped)
		owner->last_seen = peek_in(snapshot, BASE);
	strike_off(owner, snapshot);
}

static struct owner *make_owner(struct world *w, enum ucow_snapshot_policy policy, uint64_t limit_pages)
{
	struct owner *owner = calloc(1, sizeof(*owner));
	struct ucow_snapshot_group_options options = {
		.size = sizeof(options),
		.limit = limit_pages * PAGE,
		.policy = policy,
		.on_drop = on_drop,
		.arg = owner,
	};

	REQUIRE(owner);
	owner->machine = w->machine;
	REQUIRE_EQ(ucow_snapshot_group_create(w->mm, &options, &owner->group), 0);
	return owner;
}

static struct ucow_mm *take(struct owner *owner)
{
	struct ucow_mm *snapshot = NULL;

	REQUIRE_EQ(ucow_snapshot_take(owner->group, 0, &snapshot), 0);
	owner->snapshots[owner->n++] = snapshot;
	return snapshot;
}

static void end(struct owner *owner, unsigned i)
{
	struct ucow_mm *snapshot = owner->snapshots[i];

	REQUIRE_EQ(ucow_mm_destroy(snapshot), 0);
	strike_off(owner, snapshot);
}

static void free_owner(struct owner *owner)
{
	while (owner->n)
		end(owner, owner->n - 1);
	ucow_snapshot_group_destroy(owner->group);
	free(owner);
}

static uint64_t kept(struct owner *owner)
{
	struct ucow_snapshot_group_stat stat;

	ucow_snapshot_group_stat(owner->group, &stat);
	REQUIRE_EQ(stat.snapshots, owner->n);
	REQUIRE_EQ(stat.kept_bytes % PAGE, 0);
	return stat.kept_bytes / PAGE;
}

static uint64_t kept_by(struct owner *owner, unsigned i)
{
	struct ucow_snapshot_stat stat;

	REQUIRE_EQ(ucow_snapshot_stat(owner->snapshots[i], &stat), 0);
	REQUIRE(stat.grouped);
	return stat.kept_bytes / PAGE;
}

/* Would catch charging the wrong snapshot, and charges that stay behind when one goes. */
TEST(a_page_is_charged_to_the_newest_snapshot_that_sees_it)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_REFUSE, 0);

	put64(w.cpu, BASE, 10);
	CHECK_EQ(kept(owner), 0);
	take(owner);
	take(owner);
	put64(w.cpu, BASE, 11);
	put64(w.cpu, BASE, 12);
	put64(w.cpu, BASE + PAGE, 13);
	CHECK_EQ(kept_by(owner, 0), 0);
	CHECK_EQ(kept_by(owner, 1), 2);
	take(owner);
	CHECK_EQ(ucow_munmap(w.mm, BASE, 4 * PAGE), 0);
	CHECK_EQ(kept_by(owner, 1), 2);
	CHECK_EQ(kept_by(owner, 2), 4);
	end(owner, 1); /* its two pages are seen by the oldest too */
	CHECK_EQ(kept_by(owner, 0), 2);
	CHECK_EQ(kept_by(owner, 1), 4);
	check_invariants(w.machine);
	end(owner, 1); /* two of four pages were made after the oldest */
	CHECK_EQ(kept_by(owner, 0), 4);
	CHECK_EQ(kept(owner), 4);
	end(owner, 0);
	CHECK_EQ(kept(owner), 0);
	free_owner(owner);
	world_close(&w);
}

/* Would catch a refused store that leaves a copy, a charge, or a byte behind. */
TEST(a_store_over_the_limit_is_refused_and_changes_nothing)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_REFUSE, 3);
	struct ucow_snapshot_group_stat stat;
	struct ucow_page *page;
	uint64_t used;

	take(owner);
	for (unsigned i = 0; i < 3; i++)
		put64(w.cpu, BASE + i * PAGE, 100 + i);
	used = used_pages(w.machine);
	CHECK_EQ(ucow_store_u64(w.cpu, BASE + 3 * PAGE, 103), -ENOMEM);
	CHECK_EQ(ucow_write(w.cpu, BASE + 4 * PAGE, "no", 2, NULL), -ENOMEM);
	CHECK_EQ(ucow_get_user_pages(w.cpu, BASE + 5 * PAGE, 1, UCOW_FOLL_WRITE, &page), -ENOMEM);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, BASE + 5 * PAGE, 1, UCOW_FOLL_WRITE, &page), -ENOMEM);
	CHECK_EQ(ucow_madvise(w.mm, BASE, 9 * PAGE, UCOW_MADV_POPULATE_WRITE), -ENOMEM);
	CHECK_EQ(used_pages(w.machine), used);
	CHECK_EQ(get64(w.cpu, BASE + 3 * PAGE), 4);
	CHECK_EQ(get64(w.cpu, BASE + 4 * PAGE), 5);
	put64(w.cpu, BASE, 200); /* needs no copy */
	ucow_snapshot_group_stat(owner->group, &stat);
	CHECK_EQ(stat.refused, 5);
	CHECK_EQ(stat.dropped, 0);
	CHECK_EQ(stat.limit, 3 * PAGE);
	CHECK_EQ(stat.kept_bytes, 3 * PAGE);
	check_invariants(w.machine);
	end(owner, 0);
	put64(w.cpu, BASE + 3 * PAGE, 103); /* nothing to keep */
	take(owner);
	put64(w.cpu, BASE + 3 * PAGE, 104);
	CHECK_EQ(kept(owner), 1);
	free_owner(owner);
	world_close(&w);
}

/* A limit that is not a whole page is rounded down: below one page nothing may be kept. */
TEST(a_limit_below_a_page_keeps_nothing)
{
	struct world w = open_filled();
	struct ucow_snapshot_group_options options = {.size = sizeof(options), .limit = PAGE - 1};
	struct ucow_snapshot_group *group;
	struct ucow_mm *snapshot;

	CHECK_EQ(ucow_snapshot_group_create(w.mm, &options, &group), 0);
	CHECK_EQ(ucow_store_u64(w.cpu, BASE, 2), 0);
	CHECK_EQ(ucow_snapshot_take(group, 0, &snapshot), 0);
	CHECK_EQ(ucow_store_u64(w.cpu, BASE, 3), -ENOMEM);
	CHECK_EQ(ucow_mm_destroy(snapshot), 0);
	CHECK_EQ(ucow_store_u64(w.cpu, BASE, 3), 0);
	ucow_snapshot_group_destroy(group);
	world_close(&w);
}

/* Would catch dropping in another order, too many, without a word, or while the handle is still said to be good. */
TEST(the_oldest_snapshots_are_dropped_to_make_room)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_DROP_OLDEST, 6);
	struct ucow_snapshot_group_stat stat;

	for (unsigned s = 0; s < 3; s++) {
		put64(w.cpu, BASE, 1000 + s);
		take(owner);
		put64(w.cpu, BASE + (2 * s + 1) * PAGE, 7);
		put64(w.cpu, BASE + (2 * s + 2) * PAGE, 7);
	}
	/* The pages of BASE: two are kept; with them 8 would be, so the oldest has gone. */
	CHECK_EQ(owner->told, 1);
	CHECK_EQ(owner->last_seen, 1000);
	CHECK_EQ(owner->n, 2);
	check_invariants(w.machine);
	for (unsigned i = 10; i < 14; i++)
		put64(w.cpu, BASE + i * PAGE, 8);
	CHECK(kept(owner) <= 6);
	CHECK_EQ(owner->n, 1);
	CHECK_EQ(owner->last_seen, 1001);
	CHECK_EQ(peek_in(owner->snapshots[0], BASE), 1002);
	for (unsigned i = 14; i < NPAGES; i++)
		put64(w.cpu, BASE + i * PAGE, 9);
	CHECK_EQ(owner->n, 0); /* its own pages alone were too many */
	ucow_snapshot_group_stat(owner->group, &stat);
	CHECK_EQ(stat.dropped, 3);
	CHECK_EQ(stat.refused, 0);
	CHECK_EQ(stat.kept_bytes, 0);
	free_owner(owner);
	world_close(&w);
}

/* Would catch a snapshot that goes away under somebody who reads it. */
TEST(a_snapshot_in_use_is_not_dropped)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_DROP_OLDEST, 2);
	struct ucow_cpu *reader = cpu_on(take(owner));

	put64(w.cpu, BASE, 50);
	take(owner);
	put64(w.cpu, BASE + PAGE, 51);
	/* The second goes, which frees nothing that the first does not see. */
	CHECK_EQ(ucow_store_u64(w.cpu, BASE + 2 * PAGE, 52), -ENOMEM);
	CHECK_EQ(owner->told, 1);
	CHECK_EQ(owner->n, 1);
	CHECK_EQ(get64(w.cpu, BASE + 2 * PAGE), 3);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(get64(reader, BASE + i * PAGE), i + 1);
	ucow_cpu_destroy(reader);
	put64(w.cpu, BASE + 2 * PAGE, 53);
	CHECK_EQ(owner->n, 0);
	free_owner(owner);
	world_close(&w);
}

/* GUP, populate and every way to lose a mapping make room, or may pass the limit, as documented. */
TEST(other_ways_to_break_cow_and_unmapping_make_room)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_DROP_OLDEST, 2);
	struct ucow_page *pages[6];
	uint64_t moved;

	take(owner);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, BASE, 6, UCOW_FOLL_WRITE, pages), 6);
	CHECK_EQ(owner->told, 1);
	ucow_unpin_user_pages(pages, 6);
	take(owner);
	CHECK_EQ(ucow_madvise(w.mm, BASE + 8 * PAGE, 6 * PAGE, UCOW_MADV_POPULATE_WRITE), 0);
	CHECK_EQ(owner->told, 2);
	take(owner);
	CHECK_EQ(ucow_munmap(w.mm, BASE, 2 * PAGE), 0);
	CHECK_EQ(kept(owner), 2);
	CHECK_EQ(ucow_madvise(w.mm, BASE + 4 * PAGE, PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(owner->told, 3);
	take(owner);
	CHECK_EQ(ucow_mremap(w.mm, BASE + 20 * PAGE, 4 * PAGE, 4 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED,
			     BASE + 30 * PAGE, &moved),
		 0);
	CHECK_EQ(owner->told, 4);
	take(owner);
	CHECK_EQ(ucow_mmap(w.mm, BASE + 8 * PAGE, 4 * PAGE, RW, UCOW_MAP_PRIVATE | UCOW_MAP_FIXED, &moved), 0);
	CHECK_EQ(owner->told, 5);
	CHECK_EQ(owner->n, 0);
	free_owner(owner);
	world_close(&w);
}

TEST(unmapping_is_not_refused)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_REFUSE, 2);

	take(owner);
	CHECK_EQ(ucow_munmap(w.mm, BASE, 5 * PAGE), 0);
	CHECK_EQ(kept(owner), 5);
	CHECK_EQ(ucow_store_u64(w.cpu, BASE + 6 * PAGE, 1), -ENOMEM);
	take(owner); /* costs nothing, so it is not refused */
	free_owner(owner);
	world_close(&w);
}

/* Would catch early copies that nobody pays for, and a take that leaves its snapshot when it is refused. */
TEST(a_snapshot_of_pinned_pages_pays_for_their_copies)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_REFUSE, 4);
	struct ucow_page *pages[3];
	struct ucow_mm *refused = NULL;
	uint64_t used;

	CHECK_EQ(ucow_pin_user_pages(w.cpu, BASE, 3, UCOW_FOLL_WRITE, pages), 3);
	take(owner);
	CHECK_EQ(kept_by(owner, 0), 3);
	used = used_pages(w.machine);
	CHECK_EQ(ucow_snapshot_take(owner->group, 0, &refused), -ENOMEM);
	CHECK(!refused);
	CHECK_EQ(used_pages(w.machine), used);
	CHECK_EQ(kept(owner), 3);
	check_invariants(w.machine);
	ucow_unpin_user_pages(pages, 3);
	free_owner(owner);

	owner = make_owner(&w, UCOW_SNAPSHOT_DROP_OLDEST, 4);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, BASE, 3, UCOW_FOLL_WRITE, pages), 3);
	take(owner);
	take(owner);
	CHECK_EQ(owner->told, 1);
	CHECK_EQ(kept(owner), 3);
	ucow_unpin_user_pages(pages, 3);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, BASE, 3, UCOW_FOLL_WRITE, pages), 3);
	free_owner(owner);
	ucow_unpin_user_pages(pages, 3);

	/* Too big for itself: everything else goes, and it is refused all the same. */
	owner = make_owner(&w, UCOW_SNAPSHOT_DROP_OLDEST, 2);
	take(owner);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, BASE, 3, UCOW_FOLL_WRITE, pages), 3);
	CHECK_EQ(ucow_snapshot_take(owner->group, 0, &refused), -ENOMEM);
	CHECK_EQ(kept(owner), 0);
	CHECK_EQ(owner->n, 0);
	ucow_unpin_user_pages(pages, 3);
	free_owner(owner);
	world_close(&w);
}

/* Would catch pages under whole tables that go at once, shared or not, and are charged twice or not at all. */
TEST(unmapping_whole_tables_charges_what_was_in_them)
{
	struct world w = world_open();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_REFUSE, 0);
	uint64_t va = (uint64_t)1 << 31, npages = 3 * 512;

	map_at(w.mm, va, npages, RW, UCOW_MAP_PRIVATE);
	for (unsigned i = 0; i < 300; i++)
		put64(w.cpu, va + (uint64_t)i * 5 * PAGE, i);
	take(owner);
	put64(w.cpu, va, 1000);              /* a path of its own */
	put64(w.cpu, va + 700 * PAGE, 1001); /* and another one in another block */
	put64(w.cpu, va + 3 * PAGE, 1002);   /* not in the snapshot */
	CHECK_EQ(kept(owner), 2);
	CHECK_EQ(ucow_munmap(w.mm, va, 512 * PAGE), 0);
	CHECK_EQ(kept(owner), 1 + 103);
	check_invariants(w.machine);
	take(owner);
	CHECK_EQ(ucow_madvise(w.mm, va + 512 * PAGE, 40 * PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(kept_by(owner, 1), 8);
	check_invariants(w.machine);
	CHECK_EQ(ucow_munmap(w.mm, va, npages * PAGE), 0);
	CHECK_EQ(kept(owner), 300 + 1); /* the page at 700 twice: before and after the store between the snapshots */
	check_invariants(w.machine);
	end(owner, 0);
	CHECK_EQ(kept(owner), 300 - 103);
	check_invariants(w.machine);
	end(owner, 0);
	CHECK_EQ(kept(owner), 0);
	free_owner(owner);
	world_close(&w);
}

/* The page that a snapshot gives up for a copy of its own may have been its alone: then nothing more is kept. */
TEST(a_copy_that_replaces_a_snapshots_own_page_is_not_charged_twice)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_REFUSE, 0);
	struct ucow_page *got, *pinned;

	take(owner);
	put64(w.cpu, BASE, 10);
	CHECK_EQ(kept(owner), 1);
	CHECK_EQ(ucow_get_user_pages_remote(owner->snapshots[0], BASE, 1, 0, &got), 1);
	CHECK_EQ(ucow_pin_user_pages_remote(owner->snapshots[0], BASE, 1, UCOW_FOLL_LONGTERM, &pinned), 1);
	CHECK(pinned != got || !fork_is_eager());
	CHECK_EQ(kept(owner), 1);
	check_invariants(w.machine);
	ucow_unpin_user_pages(&pinned, 1);
	ucow_put_pages(&got, 1);
	free_owner(owner);
	world_close(&w);
}

/* A read pin gives a snapshot pages of its own. */
TEST(pins_of_a_snapshot_are_charged_to_it)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_REFUSE, 0);
	struct ucow_page *pages[4];

	take(owner);
	take(owner);
	put64(w.cpu, BASE, 10);
	CHECK_EQ(ucow_pin_user_pages_remote(owner->snapshots[1], BASE, 2, UCOW_FOLL_LONGTERM, pages), 2);
	check_invariants(w.machine);
	CHECK_EQ(ucow_pin_user_pages_remote(owner->snapshots[0], BASE, 2, UCOW_FOLL_LONGTERM, pages + 2), 2);
	check_invariants(w.machine);
	end(owner, 1);
	check_invariants(w.machine);
	ucow_unpin_user_pages(pages, 4);
	end(owner, 0);
	CHECK_EQ(kept(owner), 0);
	free_owner(owner);
	world_close(&w);
}

TEST(a_group_goes_before_its_space_and_leaves_its_snapshots)
{
	struct world w = open_filled();
	struct ucow_snapshot_group *group, *second;
	struct ucow_snapshot_stat stat;
	struct ucow_mm *snapshot;

	CHECK_EQ(ucow_snapshot_group_create(w.mm, NULL, &group), 0);
	CHECK_EQ(ucow_snapshot_group_create(w.mm, NULL, &second), -EBUSY);
	CHECK_EQ(ucow_snapshot_take(group, 1u << 9, &snapshot), -EINVAL);
	CHECK_EQ(ucow_snapshot_take(group, UCOW_SNAPSHOT_CHECKSUM, &snapshot), 0);
	put64(w.cpu, BASE, 5);
	ucow_cpu_attach(w.cpu, NULL);
	CHECK_EQ(ucow_mm_destroy(w.mm), -EBUSY);
	ucow_snapshot_group_destroy(group);
	ucow_snapshot_group_destroy(NULL);
	CHECK_EQ(ucow_mm_destroy(w.mm), 0);
	CHECK_EQ(ucow_snapshot_stat(snapshot, &stat), 0);
	CHECK(!stat.grouped && stat.has_checksum);
	CHECK_EQ(ucow_snapshot_verify(snapshot), 0);
	CHECK_EQ(peek_in(snapshot, BASE), 1);
	w.mm = snapshot;
	world_close(&w);
}

/* Ordinary children make the charges an estimate, which is gone with the last snapshot. */
TEST(charges_with_ordinary_children_end_with_the_snapshots)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_REFUSE, 0);
	struct ucow_mm *child, *grandchild;

	take(owner);
	child = fork_mm(w.mm);
	grandchild = fork_mm(owner->snapshots[0]);
	for (unsigned i = 0; i < 8; i++)
		put64(w.cpu, BASE + i * PAGE, 70 + i);
	CHECK_EQ(kept(owner), 8);
	take(owner);
	put64(w.cpu, BASE, 80);
	end(owner, 0);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	end(owner, 0);
	CHECK_EQ(kept(owner), 0);
	check_invariants(w.machine);
	CHECK_EQ(peek_in(grandchild, BASE), 1);
	CHECK_EQ(ucow_mm_destroy(grandchild), 0);
	free_owner(owner);
	world_close(&w);
}

/* ---- charges against a recount ---- */

enum { RANDOM_SNAPSHOTS = 10, WINDOW = NPAGES + 24 };

/* Frames by address: 0 for none. */
static void look(struct ucow_mm *mm, uint64_t *frames)
{
	for (unsigned i = 0; i < WINDOW; i++) {
		struct ucow_entry_info info = query(mm, BASE + i * PAGE);

		frames[i] = info.present && info.anon ? info.pfn : 0;
	}
}

static bool contains(const uint64_t *frames, uint64_t frame)
{
	for (unsigned i = 0; i < WINDOW; i++)
		if (frames[i] == frame)
			return true;
	return false;
}

/* Charge every page anew: to the newest snapshot that sees it, if the live space does not. */
static void check_charges(struct world *w, struct owner *owner)
{
	static uint64_t live[WINDOW], seen[RANDOM_SNAPSHOTS][WINDOW];
	uint64_t total = 0;

	look(w->mm, live);
	for (unsigned s = 0; s < owner->n; s++)
		look(owner->snapshots[s], seen[s]);
	for (unsigned s = 0; s < owner->n; s++) {
		uint64_t own = 0;

		for (unsigned i = 0; i < WINDOW; i++) {
			bool ours = seen[s][i] && !contains(live, seen[s][i]);

			for (unsigned newer = s + 1; ours && newer < owner->n; newer++)
				ours = !contains(seen[newer], seen[s][i]);
			own += ours;
		}
		CHECK_EQ(kept_by(owner, s), own);
		total += own;
	}
	CHECK_EQ(kept(owner), total);
}

static uint64_t next_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

/* Stores, fills and losses of mappings by the live space; what is refused must not change the charges. */
static void random_change(struct world *w, uint64_t *state)
{
	uint64_t at = next_random(state) % WINDOW, n = 1 + next_random(state) % 6, result;
	uint64_t va = BASE + at * PAGE, nbytes = (at + n > WINDOW ? WINDOW - at : n) * PAGE;
	struct ucow_page *page;
	int error = 0;

	switch (next_random(state) % 24) {
	case 0:
		error = ucow_munmap(w->mm, va, nbytes);
		break;
	case 1:
		error = ucow_madvise(w->mm, va, nbytes, UCOW_MADV_DONTNEED);
		break;
	case 2:
	case 3:
		error = ucow_mmap(w->mm, va, nbytes, RW, UCOW_MAP_PRIVATE | UCOW_MAP_FIXED, &result);
		break;
	case 4:
		error = ucow_mremap(w->mm, va, PAGE, PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED,
				    BASE + next_random(state) % WINDOW * PAGE, &result);
		break;
	case 5:
		error = ucow_madvise(w->mm, va, nbytes, UCOW_MADV_POPULATE_WRITE);
		break;
	case 6:
		if (ucow_pin_user_pages(w->cpu, va, 1, next_random(state) % 2 ? UCOW_FOLL_WRITE : 0, &page) == 1)
			ucow_unpin_user_pages(&page, 1);
		break;
	case 8:
		error = ucow_munmap(w->mm, BASE, WINDOW * PAGE);
		if (!error)
			error = ucow_mmap(w->mm, BASE, WINDOW * PAGE, RW, UCOW_MAP_PRIVATE | UCOW_MAP_FIXED, &result);
		for (uint64_t i = next_random(state) % 3; i < WINDOW && !error; i += 3)
			error = ucow_store_u64(w->cpu, BASE + i * PAGE, i);
		break;
	case 7:
		error = ucow_mprotect(w->mm, va, nbytes, next_random(state) % 3 ? RW : UCOW_PROT_READ);
		break;
	default:
		for (uint64_t i = 0; i < nbytes / PAGE && !error; i++)
			error = ucow_store_u64(w->cpu, va + i * PAGE, next_random(state));
		break;
	}
	REQUIRE(!error || error == -EFAULT || error == -EINVAL || error == -ENOMEM);
}

static void random_step(struct world *w, struct owner *owner, uint64_t *state)
{
	struct ucow_mm *snapshot;

	switch (next_random(state) % 8) {
	case 0:
		if (owner->n < RANDOM_SNAPSHOTS && !ucow_snapshot_take(owner->group, 0, &snapshot))
			owner->snapshots[owner->n++] = snapshot;
		break;
	case 1:
		if (owner->n)
			end(owner, (unsigned)(next_random(state) % owner->n));
		break;
	default:
		random_change(w, state);
		break;
	}
}

/* Would catch any way in which a page is kept, freed or handed on without its charge. */
static void check_random_life(enum ucow_snapshot_policy policy, uint64_t limit, unsigned steps)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, policy, limit);
	uint64_t state = tap_seed() ^ limit;

	for (unsigned i = 0; i < steps && !tap_failed; i++) {
		random_step(&w, owner, &state);
		if (i % 4 == 0 || !fork_is_lazy()) /* a lazy mapcount walks every space */
			check_charges(&w, owner);
		if (i % 16 == 0)
			check_invariants(w.machine);
		if (tap_failed)
			printf("# policy %d, limit %u, step %u\n", (int)policy, (unsigned)limit, i);
	}
	CHECK_GO_ON();
	free_owner(owner);
	world_close(&w);
}

TEST(charges_are_those_of_a_recount)
{
	check_random_life(UCOW_SNAPSHOT_REFUSE, 0, 600);
	check_random_life(UCOW_SNAPSHOT_REFUSE, 12, 400);
	check_random_life(UCOW_SNAPSHOT_DROP_OLDEST, 20, 400);
}

/* Advice taken back between snapshots: who is charged is a guess then, how much is not (INV-SNAP-1 recounts it). */
TEST(the_sum_of_the_charges_survives_pages_that_some_snapshots_do_not_see)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_REFUSE, 0);

	take(owner);
	CHECK_EQ(ucow_madvise(w.mm, BASE, 4 * PAGE, UCOW_MADV_DONTFORK), 0);
	take(owner);
	put64(w.cpu, BASE, 10);
	put64(w.cpu, BASE + PAGE, 10);
	check_invariants(w.machine);
	end(owner, 0); /* frees what the younger one was charged for */
	check_invariants(w.machine);
	CHECK_EQ(kept(owner), 0);
	CHECK_EQ(ucow_madvise(w.mm, BASE, 4 * PAGE, UCOW_MADV_DOFORK), 0);
	take(owner);
	put64(w.cpu, BASE, 11);
	check_invariants(w.machine);
	CHECK_EQ(kept(owner), 1);
	free_owner(owner);
	world_close(&w);
}

/* ---- many ---- */

/* Would catch a cost a snapshot that is not its changes': frames are what was written, whatever the number. */
TEST(thousands_of_snapshots_keep_what_was_written)
{
	enum { MANY = 3000 };

	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_REFUSE, 0);
	uint64_t used = used_pages(w.machine), state = tap_seed();

	for (unsigned i = 0; i < MANY; i++) {
		take(owner);
		put64(w.cpu, BASE + i % NPAGES * PAGE, 10000 + i);
	}
	CHECK_EQ(kept(owner), MANY);
	CHECK_EQ(used_pages(w.machine), used + MANY);
	for (unsigned i = 0; i < MANY; i += 251)
		CHECK_EQ(peek_in(owner->snapshots[i], BASE + i % NPAGES * PAGE),
			 i < NPAGES ? i + 1 : 10000 + i - NPAGES);
	for (unsigned i = 0; i < 50; i++)
		end(owner, (unsigned)(next_random(&state) % owner->n));
	check_invariants(w.machine);
	while (owner->n > 1)
		end(owner, (unsigned)(next_random(&state) % owner->n));
	CHECK(kept(owner) <= NPAGES);
	free_owner(owner);
	CHECK_EQ(used_pages(w.machine), used);
	world_close(&w);
}

/* The limit holds at every moment, and the youngest stay. */
TEST(a_limit_rolls_a_window_of_snapshots)
{
	enum { LIMIT = 50, STEPS = 600 };

	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_DROP_OLDEST, LIMIT);

	for (unsigned i = 0; i < STEPS; i++) {
		take(owner);
		put64(w.cpu, BASE, i);
		CHECK(kept(owner) <= LIMIT);
	}
	CHECK_EQ(owner->n, LIMIT);
	for (unsigned i = 0; i < LIMIT; i++)
		CHECK_EQ(peek_in(owner->snapshots[i], BASE), STEPS - LIMIT + i - 1);
	free_owner(owner);
	world_close(&w);
}

/* ---- failing allocations ---- */

static uint64_t sum_of(struct ucow_mm *mm)
{
	struct ucow_cpu *cpu = cpu_on(mm);
	uint64_t sum = 0;

	for (unsigned i = 0; i < NPAGES; i++)
		sum = sum * 31 + get64(cpu, BASE + i * PAGE);
	ucow_cpu_destroy(cpu);
	return sum;
}

/* Would catch a failed take that leaves a member, a charge, a page, or a parent changed. */
TEST(a_take_that_fails_leaves_nothing)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_REFUSE, 0);
	struct ucow_mm *snapshot;
	struct ucow_page *pages[3];
	uint64_t sum, before, n = 1;
	int error;

	CHECK_EQ(ucow_pin_user_pages(w.cpu, BASE + 5 * PAGE, 3, UCOW_FOLL_WRITE, pages), 3);
	take(owner);
	put64(w.cpu, BASE, 9);
	sum = sum_of(w.mm);
	before = kept(owner);
	for (;; n++) {
		ucow_machine_inject(w.machine, UCOW_INJECT_ALL, n);
		error = ucow_snapshot_take(owner->group, UCOW_SNAPSHOT_CHECKSUM, &snapshot);
		if (ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 0))
			break;
		CHECK_EQ(error, -ENOMEM);
		CHECK_EQ(kept(owner), before);
		CHECK_EQ(sum_of(w.mm), sum);
		check_invariants(w.machine);
	}
	CHECK_EQ(error, 0);
	CHECK(n > 4); /* the space, its mapping, three copies at least */
	CHECK_EQ(ucow_snapshot_verify(snapshot), 0);
	owner->snapshots[owner->n++] = snapshot;
	CHECK_EQ(kept(owner), before + 3);
	ucow_unpin_user_pages(pages, 3);
	free_owner(owner);
	world_close(&w);
}

/* Would catch a charge for a copy that was never made, or a snapshot dropped for nothing and not told of. */
TEST(a_store_that_fails_beside_snapshots_changes_nothing)
{
	for (int policy = 0; policy < UCOW_SNAPSHOT_POLICY_COUNT; policy++) {
		struct world w = open_filled();
		struct owner *owner = make_owner(&w, (enum ucow_snapshot_policy)policy, 3);
		uint64_t sum, n = 1;
		int error;

		take(owner);
		put64(w.cpu, BASE, 9);
		put64(w.cpu, BASE + PAGE, 9);
		take(owner);
		sum = sum_of(w.mm);
		for (;; n++) {
			ucow_machine_inject(w.machine, UCOW_INJECT_ALL, n);
			error = ucow_store_u64(w.cpu, BASE + 2 * PAGE, 10);
			if (ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 0))
				break;
			CHECK_EQ(error, -ENOMEM);
			CHECK_EQ(kept(owner), 2);
			CHECK_EQ(sum_of(w.mm), sum);
			check_invariants(w.machine);
		}
		CHECK_EQ(error, 0);
		CHECK(n > 1);
		CHECK_EQ(kept(owner), 3);
		/* The next one is over the limit: dropping needs no memory, the copy after it does. */
		ucow_machine_inject(w.machine, UCOW_INJECT_FRAME, 1);
		CHECK_EQ(ucow_store_u64(w.cpu, BASE + 3 * PAGE, 10), -ENOMEM);
		ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 0);
		CHECK_EQ(owner->told, policy == UCOW_SNAPSHOT_DROP_OLDEST);
		check_invariants(w.machine);
		CHECK_EQ(get64(w.cpu, BASE + 3 * PAGE), 4);
		free_owner(owner);
		world_close(&w);
	}
}

TEST(ending_a_snapshot_needs_no_memory)
{
	struct world w = open_filled();
	struct owner *owner = make_owner(&w, UCOW_SNAPSHOT_REFUSE, 0);

	for (unsigned i = 0; i < 6; i++) {
		take(owner);
		put64(w.cpu, BASE + i * PAGE, 100);
	}
	while (owner->n) {
		ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 1);
		end(owner, owner->n / 2);
		CHECK(ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 0));
		check_invariants(w.machine);
	}
	CHECK_EQ(kept(owner), 0);
	free_owner(owner);
	world_close(&w);
}

/* ---- threads ---- */

/* The owner's lock: the callback takes it, and so does whoever ends a snapshot on another thread. */
static pthread_mutex_t owner_lock = PTHREAD_MUTEX_INITIALIZER;

static void on_drop_locked(void *arg, struct ucow_mm *snapshot)
{
	struct owner *owner = arg;

	pthread_mutex_lock(&owner_lock);
	owner->told++;
	strike_off(owner, snapshot);
	pthread_mutex_unlock(&owner_lock);
}

struct ender {
	struct owner *owner;
	_Atomic bool stop;
	unsigned ended, busy;
};

/* End the oldest and the youngest in turn, while the writer makes new ones and room. */
static void *end_snapshots(void *arg)
{
	struct ender *ender = arg;
	struct owner *owner = ender->owner;

	while (!atomic_load(&ender->stop)) {
		pthread_mutex_lock(&owner_lock);
		if (owner->n > 2) {
			unsigned i = ender->ended % 2 ? owner->n - 1 : 0;
			struct ucow_mm *snapshot = owner->snapshots[i];
			int error = ucow_mm_destroy(snapshot);

			REQUIRE(!error || error == -EBUSY);
			ender->ended += !error;
			ender->busy += !!error; /* the callback waits for our lock */
			if (!error)
				strike_off(owner, snapshot);
		}
		pthread_mutex_unlock(&owner_lock);
		sched_yield();
	}
	return NULL;
}

/* Would catch charges lost between a store and the end of a snapshot, and two threads that end the same one. */
TEST(snapshots_end_on_another_thread_while_their_space_is_written)
{
	struct world w = open_filled();
	struct ucow_snapshot_group_options options = {.size = sizeof(options), .limit = 30 * PAGE};
	struct owner *owner = calloc(1, sizeof(*owner));
	struct ender ender = {.owner = owner};
	struct ucow_mm *snapshot;
	pthread_t thread;

	REQUIRE(owner);
	options.policy = UCOW_SNAPSHOT_DROP_OLDEST;
	options.on_drop = on_drop_locked;
	options.arg = owner;
	CHECK_EQ(ucow_snapshot_group_create(w.mm, &options, &owner->group), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, end_snapshots, &ender), 0);
	for (unsigned i = 0; i < 2000; i++) {
		put64(w.cpu, BASE + i * 7 % NPAGES * PAGE, i);
		if (i % 3)
			continue;
		REQUIRE_EQ(ucow_snapshot_take(owner->group, 0, &snapshot), 0);
		pthread_mutex_lock(&owner_lock);
		REQUIRE(owner->n < 4096);
		owner->snapshots[owner->n++] = snapshot;
		pthread_mutex_unlock(&owner_lock);
	}
	atomic_store(&ender.stop, true);
	pthread_join(thread, NULL);
	check_charges(&w, owner);
	CHECK_GO_ON();
	free_owner(owner);
	world_close(&w);
}

TAP_MAIN()
