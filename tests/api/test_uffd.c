/* SPDX-License-Identifier: MIT */
/* Userfaultfds: the rows of docs/semantics.md A.4 and B.7, on private and on shared memory. */
#include "files.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>

#define NPAGES 48 /* from BASE: over the edges of leaves and of what lies above them */
#define FAR    ((uint64_t)1 << 33)

#define ALL_EVENTS                                                                                       \
	(UCOW_UFFD_FEATURE_EVENT_FORK | UCOW_UFFD_FEATURE_EVENT_REMAP | UCOW_UFFD_FEATURE_EVENT_REMOVE | \
	 UCOW_UFFD_FEATURE_EVENT_UNMAP)

/* What a handler was told, and what it does about it. */
struct told {
	unsigned missing, wp, minor, forks, remaps, removes, unmaps;
	struct ucow_uffd_msg last;
	struct ucow_uffd *child; /* of the last FORK */
	enum ucow_uffd_answer answer;
	bool resolve;
	bool protect_copies; /* what it supplies is protected */
};

struct scene {
	struct world w;
	uint64_t va;
	struct ucow_uffd *uffd;
	struct told told;
};

/* What a supplied page holds. */
static uint64_t pattern_of(uint64_t va)
{
	return va * 3 + 1;
}

static void supply(struct ucow_uffd *uffd, uint64_t va, unsigned mode)
{
	uint64_t page[512];

	for (unsigned i = 0; i < 512; i++)
		page[i] = pattern_of(va) + i;
	REQUIRE_EQ(ucow_uffd_copy(uffd, va, page, PAGE, mode, NULL), 0);
}

static void resolve_fault(struct told *told, struct ucow_uffd *uffd, const struct ucow_uffd_msg *msg)
{
	if (msg->flags & UCOW_UFFD_FAULT_WP)
		REQUIRE_EQ(ucow_uffd_writeprotect(uffd, msg->va, PAGE, 0), 0);
	else if (msg->flags & UCOW_UFFD_FAULT_MINOR)
		REQUIRE_EQ(ucow_uffd_continue(uffd, msg->va, PAGE, told->protect_copies ? UCOW_UFFD_MODE_WP : 0, NULL),
			   0);
	else
		supply(uffd, msg->va, told->protect_copies ? UCOW_UFFD_MODE_WP : 0);
}

static void note(struct told *told, const struct ucow_uffd_msg *msg)
{
	told->last = *msg;
	switch (msg->event) {
	case UCOW_UFFD_EVENT_PAGEFAULT:
		told->wp += !!(msg->flags & UCOW_UFFD_FAULT_WP);
		told->minor += !!(msg->flags & UCOW_UFFD_FAULT_MINOR);
		told->missing += !(msg->flags & (UCOW_UFFD_FAULT_WP | UCOW_UFFD_FAULT_MINOR));
		break;
	case UCOW_UFFD_EVENT_FORK:
		told->forks++;
		told->child = msg->child;
		break;
	case UCOW_UFFD_EVENT_REMAP:
		told->remaps++;
		break;
	case UCOW_UFFD_EVENT_REMOVE:
		told->removes++;
		break;
	case UCOW_UFFD_EVENT_UNMAP:
		told->unmaps++;
		break;
	}
}

static enum ucow_uffd_answer on_message(void *arg, struct ucow_uffd *uffd, const struct ucow_uffd_msg *msg)
{
	struct told *told = arg;

	note(told, msg);
	if (msg->event == UCOW_UFFD_EVENT_PAGEFAULT && told->resolve)
		resolve_fault(told, uffd, msg);
	return told->answer;
}

static struct ucow_uffd *watch(struct scene *s, uint32_t features, bool callback)
{
	const struct ucow_uffd_options options = {
		.size = sizeof(options),
		.features = features,
		.callback = callback ? on_message : NULL,
		.arg = &s->told,
	};
	struct ucow_uffd *uffd = NULL;

	s->told = (struct told){.answer = UCOW_UFFD_RESOLVED, .resolve = true};
	REQUIRE_EQ(ucow_uffd_create(s->w.mm, &options, &uffd), 0);
	return uffd;
}

static void scene_begin(struct scene *s, bool shared, uint32_t features, unsigned modes)
{
	s->w = world_open();
	s->va = shared ? map_shared(s->w.mm, NPAGES) : map_private(s->w.mm, NPAGES);
	s->uffd = watch(s, features, true);
	if (modes)
		REQUIRE_EQ(ucow_uffd_register(s->uffd, s->va, NPAGES * PAGE, modes, NULL), 0);
}

static void scene_end(struct scene *s)
{
	check_invariants(s->w.machine);
	ucow_uffd_close(s->uffd);
	check_invariants(s->w.machine);
	world_close(&s->w);
}

static void add_swap(struct ucow_machine *machine)
{
	const struct ucow_swap_options options = {
		.size = sizeof(options), .nbytes = 4 * NPAGES * PAGE, .flags = UCOW_SWAP_MEMORY};

	REQUIRE_EQ(ucow_swapon(machine, &options, NULL), 0);
}

static void fill(struct ucow_cpu *cpu, uint64_t va, uint64_t npages)
{
	for (uint64_t i = 0; i < npages; i++)
		put64(cpu, va + i * PAGE, i + 1);
}

static void protect(struct ucow_uffd *uffd, uint64_t va, uint64_t npages)
{
	REQUIRE_EQ(ucow_uffd_writeprotect(uffd, va, npages * PAGE, UCOW_UFFD_MODE_WP), 0);
}

static void lift(struct ucow_uffd *uffd, uint64_t va, uint64_t npages)
{
	REQUIRE_EQ(ucow_uffd_writeprotect(uffd, va, npages * PAGE, 0), 0);
}

static bool is_protected(struct ucow_mm *mm, uint64_t va)
{
	return query(mm, va).uffd_wp;
}

/* How many of the scene's pages are protected in @mm. */
static unsigned protected_pages(struct ucow_mm *mm, uint64_t va)
{
	unsigned n = 0;

	for (unsigned i = 0; i < NPAGES; i++)
		n += is_protected(mm, va + i * PAGE);
	return n;
}

static void page_out(struct scene *s)
{
	REQUIRE_EQ(ucow_madvise(s->w.mm, s->va, NPAGES * PAGE, UCOW_MADV_PAGEOUT), 0);
}

static void exit_child(struct ucow_mm *child)
{
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
}

/* ---- write-protection ---- */

static void check_stores_are_reported(bool shared)
{
	struct scene s;

	scene_begin(&s, shared, 0, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, NPAGES);
	CHECK_EQ(s.told.wp, 0);
	protect(s.uffd, s.va, NPAGES);
	for (unsigned i = 0; i < NPAGES; i++) {
		struct ucow_entry_info e = query(s.w.mm, s.va + i * PAGE);

		CHECK(e.present && e.uffd_wp && !e.writable);
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), i + 1);
	}
	CHECK_EQ(s.told.wp, 0);
	for (unsigned i = 0; i < NPAGES; i += 2) {
		put64(s.w.cpu, s.va + i * PAGE, 100 + i);
		CHECK_EQ(s.told.wp, i / 2 + 1);
		CHECK_EQ(s.told.last.va, s.va + i * PAGE);
		CHECK_EQ(s.told.last.flags, UCOW_UFFD_FAULT_WRITE | UCOW_UFFD_FAULT_WP);
		put64(s.w.cpu, s.va + i * PAGE, 200 + i); /* once is enough */
		CHECK_EQ(s.told.wp, i / 2 + 1);
	}
	for (unsigned i = 0; i < NPAGES; i++) {
		CHECK_EQ(is_protected(s.w.mm, s.va + i * PAGE), i % 2);
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), i % 2 ? i + 1 : 200 + i);
	}
	CHECK_EQ(counted(&s.w, UCOW_COUNTER_WP_EVENT), NPAGES / 2);
	scene_end(&s);
}

TEST(stores_to_protected_private_pages_are_reported)
{
	check_stores_are_reported(false);
}

TEST(stores_to_protected_shared_pages_are_reported)
{
	check_stores_are_reported(true);
}

static void check_async(bool shared)
{
	struct scene s;

	scene_begin(&s, shared, UCOW_UFFD_FEATURE_WP_ASYNC, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, NPAGES / 2);
	protect(s.uffd, s.va, NPAGES);
	CHECK_EQ(protected_pages(s.w.mm, s.va), NPAGES); /* those that are not there yet, too */
	for (unsigned i = 0; i < NPAGES; i += 3)
		put64(s.w.cpu, s.va + i * PAGE, 100 + i);
	for (unsigned i = 0; i < NPAGES; i++) {
		CHECK_EQ(is_protected(s.w.mm, s.va + i * PAGE), i % 3 != 0);
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), i % 3 == 0 ? 100 + i : i < NPAGES / 2 ? i + 1 : 0);
	}
	CHECK_EQ(s.told.wp, 0);
	scene_end(&s);
}

TEST(async_stores_lift_the_protection_of_private_pages)
{
	check_async(false);
}

TEST(async_stores_lift_the_protection_of_shared_pages)
{
	check_async(true);
}

/* A.4 wp-unpopulated */
TEST(empty_private_pages_are_protected_by_request)
{
	struct scene s;

	scene_begin(&s, false, UCOW_UFFD_FEATURE_WP_UNPOPULATED, UCOW_UFFD_WP);
	protect(s.uffd, s.va, NPAGES);
	CHECK_EQ(protected_pages(s.w.mm, s.va), NPAGES);
	CHECK(!query(s.w.mm, s.va).present && !query(s.w.mm, s.va).swapped);
	lift(s.uffd, s.va, 1);
	CHECK(!is_protected(s.w.mm, s.va));
	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va + PAGE, PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK(!is_protected(s.w.mm, s.va + PAGE));
	put64(s.w.cpu, s.va + PAGE, 5);
	CHECK(!is_protected(s.w.mm, s.va + PAGE));
	CHECK_EQ(s.told.wp, 0);
	/* A read maps the zero page, which carries the bit. */
	CHECK_EQ(get64(s.w.cpu, s.va + 2 * PAGE), 0);
	CHECK(query(s.w.mm, s.va + 2 * PAGE).zero_page && is_protected(s.w.mm, s.va + 2 * PAGE));
	CHECK_EQ(s.told.wp, 0);
	put64(s.w.cpu, s.va + 2 * PAGE, 6);
	CHECK_EQ(s.told.wp, 1);
	put64(s.w.cpu, s.va + 3 * PAGE, 7); /* a store where nothing was is reported as well */
	CHECK_EQ(s.told.wp, 2);
	CHECK(!is_protected(s.w.mm, s.va + 3 * PAGE));
	CHECK_EQ(get64(s.w.cpu, s.va + 3 * PAGE), 7);
	scene_end(&s);
}

TEST(empty_private_pages_are_not_protected_otherwise)
{
	struct scene s;

	scene_begin(&s, false, 0, UCOW_UFFD_WP);
	put64(s.w.cpu, s.va, 1);
	protect(s.uffd, s.va, NPAGES);
	CHECK_EQ(protected_pages(s.w.mm, s.va), 1);
	put64(s.w.cpu, s.va + PAGE, 2);
	CHECK_EQ(s.told.wp, 0);
	scene_end(&s);
}

TEST(empty_shared_pages_are_always_protected)
{
	struct scene s;

	scene_begin(&s, true, 0, UCOW_UFFD_WP);
	protect(s.uffd, s.va, NPAGES);
	CHECK_EQ(protected_pages(s.w.mm, s.va), NPAGES);
	CHECK_EQ(get64(s.w.cpu, s.va), 0);
	CHECK(query(s.w.mm, s.va).present && is_protected(s.w.mm, s.va));
	put64(s.w.cpu, s.va, 1);
	put64(s.w.cpu, s.va + PAGE, 2);
	CHECK_EQ(s.told.wp, 2);
	CHECK_EQ(get64(s.w.cpu, s.va + PAGE), 2);
	scene_end(&s);
}

/* B.7: dropped pages of shared memory leave the protection behind, private ones do not. */
static void check_dontneed(bool shared)
{
	struct scene s;

	scene_begin(&s, shared, 0, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, NPAGES);
	protect(s.uffd, s.va, NPAGES / 2);
	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va, NPAGES * PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(protected_pages(s.w.mm, s.va), shared ? NPAGES / 2 : 0);
	check_invariants(s.w.machine);
	for (unsigned i = 0; i < NPAGES; i++)
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), shared ? i + 1 : 0);
	fill(s.w.cpu, s.va, NPAGES);
	CHECK_EQ(s.told.wp, shared ? NPAGES / 2 : 0);
	scene_end(&s);
}

TEST(dropped_private_pages_lose_the_protection)
{
	check_dontneed(false);
}

TEST(dropped_shared_pages_keep_the_protection)
{
	check_dontneed(true);
}

TEST(protection_goes_to_swap_and_back)
{
	struct scene s;

	scene_begin(&s, false, 0, UCOW_UFFD_WP);
	add_swap(s.w.machine);
	fill(s.w.cpu, s.va, NPAGES);
	protect(s.uffd, s.va, NPAGES);
	page_out(&s);
	CHECK(query(s.w.mm, s.va).swapped);
	CHECK_EQ(protected_pages(s.w.mm, s.va), NPAGES);
	check_invariants(s.w.machine);
	CHECK_EQ(get64(s.w.cpu, s.va), 1);
	CHECK(query(s.w.mm, s.va).present && is_protected(s.w.mm, s.va) && !query(s.w.mm, s.va).writable);
	put64(s.w.cpu, s.va, 9);
	put64(s.w.cpu, s.va + PAGE, 8);
	CHECK_EQ(s.told.wp, 2);
	/* Protected and lifted while it is away. */
	page_out(&s);
	protect(s.uffd, s.va, 1);
	lift(s.uffd, s.va + 2 * PAGE, 1);
	CHECK(query(s.w.mm, s.va).swapped && is_protected(s.w.mm, s.va));
	CHECK(query(s.w.mm, s.va + 2 * PAGE).swapped && !is_protected(s.w.mm, s.va + 2 * PAGE));
	put64(s.w.cpu, s.va + 2 * PAGE, 7);
	CHECK_EQ(s.told.wp, 2);
	put64(s.w.cpu, s.va, 6);
	CHECK_EQ(s.told.wp, 3);
	CHECK_EQ(ucow_swapoff(s.w.machine, 0), 0);
	CHECK_EQ(protected_pages(s.w.mm, s.va), NPAGES - 3);
	scene_end(&s);
}

/* Nobody but a store lifts it: not mprotect, not the hinting fault. */
static void check_upgrades(bool shared)
{
	struct scene s;

	scene_begin(&s, shared, 0, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, NPAGES);
	protect(s.uffd, s.va, NPAGES);
	REQUIRE_EQ(ucow_mprotect(s.w.mm, s.va, NPAGES * PAGE, UCOW_PROT_READ), 0);
	REQUIRE_EQ(ucow_mprotect(s.w.mm, s.va, NPAGES * PAGE, UCOW_PROT_NONE), 0);
	REQUIRE_EQ(ucow_mprotect(s.w.mm, s.va, NPAGES * PAGE, RW), 0);
	check_invariants(s.w.machine);
	put64(s.w.cpu, s.va, 1);
	CHECK_EQ(s.told.wp, 1);
	REQUIRE_EQ(ucow_numa_hint(s.w.mm, s.va, NPAGES * PAGE), 0);
	CHECK_EQ(get64(s.w.cpu, s.va + PAGE), 2);
	check_invariants(s.w.machine);
	put64(s.w.cpu, s.va + PAGE, 1);
	put64(s.w.cpu, s.va + 2 * PAGE, 1);
	CHECK_EQ(s.told.wp, 3);
	CHECK_EQ(protected_pages(s.w.mm, s.va), NPAGES - 3);
	scene_end(&s);
}

TEST(protection_of_private_pages_outlives_changes_of_permission)
{
	check_upgrades(false);
}

TEST(protection_of_shared_pages_outlives_changes_of_permission)
{
	check_upgrades(true);
}

/* B.6: where no other fault is due, a lifted page is writable at once. */
TEST(lifted_pages_are_writable_if_they_are_exclusive)
{
	struct scene s;
	struct ucow_mm *child;

	scene_begin(&s, false, 0, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, 2);
	protect(s.uffd, s.va, 2);
	lift(s.uffd, s.va, 1);
	CHECK(query(s.w.mm, s.va).writable && !query(s.w.mm, s.va + PAGE).writable);
	child = fork_mm(s.w.mm);
	lift(s.uffd, s.va, 2);
	CHECK(!query(s.w.mm, s.va).writable && !query(s.w.mm, s.va + PAGE).writable);
	put64(s.w.cpu, s.va, 5);
	CHECK_EQ(s.told.wp, 0);
	exit_child(child);
	scene_end(&s);
}

/* ---- fork ---- */

/* A.4 wp-fork, wp-fork-with-event: @away makes the pages go. */
static void check_fork_once(struct scene *s, bool event)
{
	struct ucow_mm *child = fork_mm(s->w.mm);

	check_invariants(s->w.machine);
	CHECK_EQ(protected_pages(s->w.mm, s->va), NPAGES);
	CHECK_EQ(protected_pages(child, s->va), event ? NPAGES : 0);
	CHECK_EQ(!!s->told.child, event);
	ucow_uffd_close(s->told.child);
	s->told.child = NULL;
	CHECK_EQ(protected_pages(child, s->va), 0);
	CHECK_EQ(protected_pages(s->w.mm, s->va), NPAGES);
	exit_child(child);
}

static void check_fork(bool shared, bool event)
{
	struct scene s;

	scene_begin(&s, shared, event ? UCOW_UFFD_FEATURE_EVENT_FORK : 0, UCOW_UFFD_WP);
	if (!shared)
		add_swap(s.w.machine);
	fill(s.w.cpu, s.va, NPAGES);
	protect(s.uffd, s.va, NPAGES);
	check_fork_once(&s, event);
	CHECK_GO_ON();
	if (shared)
		REQUIRE_EQ(ucow_madvise(s.w.mm, s.va, NPAGES * PAGE, UCOW_MADV_DONTNEED), 0);
	else
		page_out(&s);
	CHECK(!query(s.w.mm, s.va).present);
	check_fork_once(&s, event);
	CHECK_GO_ON();
	lift(s.uffd, s.va, NPAGES);
	CHECK_EQ(protected_pages(s.w.mm, s.va), 0);
	fill(s.w.cpu, s.va, NPAGES);
	CHECK_EQ(protected_pages(s.w.mm, s.va), 0);
	CHECK_EQ(s.told.wp, 0);
	CHECK_EQ(s.told.forks, event ? 2 : 0);
	scene_end(&s);
}

TEST(children_are_not_protected)
{
	check_fork(false, false);
}

TEST(children_are_not_protected_in_shared_memory)
{
	check_fork(true, false);
}

TEST(children_are_protected_if_their_fork_is_reported)
{
	check_fork(false, true);
}

TEST(children_are_protected_in_shared_memory_if_their_fork_is_reported)
{
	check_fork(true, true);
}

TEST(stores_of_a_watched_child_are_reported_to_its_own)
{
	struct scene s;
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	scene_begin(&s, false, UCOW_UFFD_FEATURE_EVENT_FORK | UCOW_UFFD_FEATURE_WP_UNPOPULATED, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, 8);
	protect(s.uffd, s.va, NPAGES);
	child = fork_mm(s.w.mm);
	CHECK(ucow_uffd_mm(s.told.child) == child);
	cpu = cpu_on(child);
	put64(cpu, s.va, 100);
	put64(cpu, s.va + 20 * PAGE, 101);
	CHECK_EQ(s.told.wp, 2);
	CHECK(!is_protected(child, s.va) && is_protected(s.w.mm, s.va));
	CHECK(!is_protected(child, s.va + 20 * PAGE) && is_protected(s.w.mm, s.va + 20 * PAGE));
	CHECK_EQ(get64(s.w.cpu, s.va), 1);
	put64(s.w.cpu, s.va, 102);
	CHECK_EQ(s.told.wp, 3);
	CHECK_EQ(get64(cpu, s.va), 100);
	exit_mm(cpu, child);
	CHECK(!ucow_uffd_mm(s.told.child)); /* closed after its space has ended */
	ucow_uffd_close(s.told.child);
	scene_end(&s);
}

/* A.4 wp-fork-pin: the pinned page is copied for the child, at fork or by its own pin. */
static void check_fork_pin(bool event)
{
	struct scene s;
	struct ucow_page *page;
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	scene_begin(&s, false, event ? UCOW_UFFD_FEATURE_EVENT_FORK : 0, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, NPAGES);
	protect(s.uffd, s.va, NPAGES);
	page = pin_page(s.w.cpu, s.va, UCOW_FOLL_LONGTERM);
	CHECK_EQ(s.told.wp, 0); /* a read pin is no store */
	CHECK(is_protected(s.w.mm, s.va));
	child = fork_mm(s.w.mm);
	CHECK(query(child, s.va).pfn != query(s.w.mm, s.va).pfn);
	CHECK(is_protected(s.w.mm, s.va));
	CHECK_EQ(is_protected(child, s.va), event);
	ucow_unpin_user_pages(&page, 1);

	cpu = cpu_on(child);
	page = pin_page(cpu, s.va + PAGE, UCOW_FOLL_LONGTERM); /* unshares */
	CHECK(query(child, s.va + PAGE).pfn != query(s.w.mm, s.va + PAGE).pfn);
	CHECK_EQ(is_protected(child, s.va + PAGE), event);
	CHECK(is_protected(s.w.mm, s.va + PAGE));
	CHECK_EQ(s.told.wp, 0);
	ucow_unpin_user_pages(&page, 1);
	check_invariants(s.w.machine);
	exit_mm(cpu, child);
	ucow_uffd_close(s.told.child);
	scene_end(&s);
}

TEST(pinned_pages_are_protected_and_forked)
{
	check_fork_pin(false);
}

TEST(pinned_pages_are_protected_and_their_fork_reported)
{
	check_fork_pin(true);
}

/* Of a page that a child shares, a store is reported first, and copies then. */
TEST(copy_comes_after_the_report)
{
	struct scene s;
	struct ucow_mm *child;

	scene_begin(&s, false, 0, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, NPAGES);
	protect(s.uffd, s.va, NPAGES);
	child = fork_mm(s.w.mm);
	put64(s.w.cpu, s.va, 55);
	CHECK_EQ(s.told.wp, 1);
	CHECK(!is_protected(s.w.mm, s.va));
	CHECK(query(s.w.mm, s.va).pfn != query(child, s.va).pfn);
	exit_child(child);
	put64(s.w.cpu, s.va + PAGE, 56);
	CHECK_EQ(s.told.wp, 2);
	scene_end(&s);
}

/* Half a leaf is watched; the other half is shared with children as ever. */
TEST(neighbours_of_a_watched_range_fork_as_ever)
{
	struct scene s;
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	scene_begin(&s, false, 0, 0);
	fill(s.w.cpu, s.va, NPAGES);
	REQUIRE_EQ(ucow_uffd_register(s.uffd, s.va + 5 * PAGE, 30 * PAGE, UCOW_UFFD_WP, NULL), 0);
	protect(s.uffd, s.va + 5 * PAGE, 30);
	child = fork_mm(s.w.mm);
	cpu = cpu_on(child);
	check_invariants(s.w.machine);
	for (unsigned i = 0; i < NPAGES; i++) {
		CHECK_EQ(get64(cpu, s.va + i * PAGE), i + 1);
		put64(s.w.cpu, s.va + i * PAGE, 1000 + i);
		CHECK_EQ(get64(cpu, s.va + i * PAGE), i + 1);
		put64(cpu, s.va + i * PAGE, 2000 + i);
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), 1000 + i);
	}
	CHECK_EQ(s.told.wp, 30);
	check_invariants(s.w.machine);
	exit_mm(cpu, child);
	scene_end(&s);
}

TEST(snapshots_are_not_watched)
{
	struct scene s;
	struct ucow_mm *snapshot = NULL;
	struct ucow_cpu *cpu;

	scene_begin(&s, false, ALL_EVENTS, UCOW_UFFD_WP | UCOW_UFFD_MISSING);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), pattern_of(s.va + i * PAGE));
	protect(s.uffd, s.va, 4);
	REQUIRE_EQ(ucow_snapshot(s.w.mm, &snapshot), 0);
	cpu = cpu_on(snapshot);
	CHECK_EQ(get64(cpu, s.va), pattern_of(s.va));
	CHECK_EQ(get64(cpu, s.va + 9 * PAGE), 0); /* nobody is asked */
	CHECK_EQ(s.told.missing, 4);
	CHECK_EQ(s.told.forks, 0);
	CHECK_EQ(protected_pages(snapshot, s.va), 0);
	put64(s.w.cpu, s.va, 3);
	CHECK_EQ(s.told.wp, 1);
	CHECK_EQ(get64(cpu, s.va), pattern_of(s.va));
	exit_mm(cpu, snapshot);
	scene_end(&s);
}

/* ---- missing and minor ---- */

static void check_missing(bool shared)
{
	struct scene s;

	scene_begin(&s, shared, 0, UCOW_UFFD_MISSING);
	for (unsigned i = 0; i < NPAGES; i++) {
		uint64_t va = s.va + i * PAGE;

		if (i % 2) {
			CHECK_EQ(get64(s.w.cpu, va), pattern_of(va));
			CHECK_EQ(s.told.last.flags, 0);
		} else {
			put64(s.w.cpu, va, i);
			CHECK_EQ(s.told.last.flags, UCOW_UFFD_FAULT_WRITE);
			CHECK_EQ(get64(s.w.cpu, va + 8), pattern_of(va) + 1);
		}
		CHECK_EQ(s.told.last.va, va);
		CHECK_EQ(s.told.missing, i + 1);
	}
	CHECK_EQ(counted(&s.w, UCOW_COUNTER_MISSING_EVENT), NPAGES);
	CHECK_EQ(s.told.wp + s.told.minor, 0);
	/* What was dropped is missing again; the object of shared memory still has it. */
	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va, PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(get64(s.w.cpu, s.va), shared ? 0 : pattern_of(s.va));
	CHECK_EQ(s.told.missing, shared ? NPAGES : NPAGES + 1);
	scene_end(&s);
}

TEST(missing_private_pages_are_supplied)
{
	check_missing(false);
}

TEST(missing_shared_pages_are_supplied)
{
	check_missing(true);
}

/* Translations of the zero page from before the registration do not hide what is missing. */
TEST(zeros_that_were_read_before_are_not_missing_but_shared_emptiness_is)
{
	struct scene s;
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	scene_begin(&s, false, 0, 0);
	fill(s.w.cpu, s.va, 1);
	child = fork_mm(s.w.mm);
	cpu = cpu_on(child);
	CHECK_EQ(get64(s.w.cpu, s.va + PAGE), 0);
	CHECK_EQ(get64(cpu, s.va + PAGE), 0);
	REQUIRE_EQ(ucow_uffd_register(s.uffd, s.va, NPAGES * PAGE, UCOW_UFFD_MISSING, NULL), 0);
	CHECK_EQ(get64(s.w.cpu, s.va + 2 * PAGE), pattern_of(s.va + 2 * PAGE));
	if (!query(s.w.mm, s.va + PAGE).present)
		CHECK_EQ(get64(s.w.cpu, s.va + PAGE), pattern_of(s.va + PAGE));
	CHECK_EQ(get64(cpu, s.va + 2 * PAGE), 0);
	exit_mm(cpu, child);
	scene_end(&s);
}

/* A.4 minor: another mapping of the object has filled it. */
TEST(minor_faults_find_the_page_there)
{
	struct scene s;
	struct ucow_mm *child;
	struct ucow_cpu *cpu;
	unsigned can = 0;

	scene_begin(&s, true, 0, 0);
	child = fork_mm(s.w.mm);
	cpu = cpu_on(child);
	fill(cpu, s.va, NPAGES / 2);
	REQUIRE_EQ(ucow_uffd_register(s.uffd, s.va, NPAGES * PAGE, UCOW_UFFD_MINOR | UCOW_UFFD_WP, &can), 0);
	CHECK(can & UCOW_UFFD_CAN_CONTINUE);
	s.told.protect_copies = true;
	for (unsigned i = 0; i < NPAGES / 2; i++)
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), i + 1);
	CHECK_EQ(s.told.minor, NPAGES / 2);
	CHECK_EQ(s.told.last.flags, UCOW_UFFD_FAULT_MINOR);
	CHECK_EQ(counted(&s.w, UCOW_COUNTER_MINOR_EVENT), NPAGES / 2);
	/* A.4 minor-wp: it came protected. */
	CHECK_EQ(protected_pages(s.w.mm, s.va), NPAGES / 2);
	put64(s.w.cpu, s.va, 77);
	CHECK_EQ(s.told.wp, 1);
	CHECK_EQ(get64(cpu, s.va), 77);
	/* Where there is none it is no minor fault. */
	CHECK_EQ(get64(s.w.cpu, s.va + (NPAGES - 1) * PAGE), 0);
	CHECK_EQ(s.told.minor, NPAGES / 2);
	CHECK_EQ(ucow_uffd_continue(s.uffd, s.va + (NPAGES - 2) * PAGE, PAGE, 0, NULL), -EFAULT);
	CHECK_EQ(ucow_uffd_continue(s.uffd, s.va, PAGE, 0, NULL), -EEXIST);
	exit_mm(cpu, child);
	scene_end(&s);
}

/* ---- files ---- */

struct file_scene {
	struct scene s;
	struct ucow_file *file;
	int fd;
};

/* @filled pages of a file of NPAGES, mapped at BASE; the rest of one in memory are holes. */
static void file_scene_begin(struct file_scene *f, bool in_memory, unsigned map, uint32_t features, unsigned modes)
{
	f->s.w = world_open();
	f->fd = in_memory ? -1 : host_file(NPAGES * PAGE);
	f->file = open_file(f->s.w.machine, f->fd, NPAGES * PAGE);
	for (uint64_t i = 0; in_memory && i < NPAGES / 2; i++)
		file_put64(f->file, i * PAGE, file_value(i));
	f->s.va = map_file(f->s.w.mm, BASE, NPAGES, RW, map, f->file, 0);
	f->s.uffd = watch(&f->s, features, true);
	if (modes)
		REQUIRE_EQ(ucow_uffd_register(f->s.uffd, f->s.va, NPAGES * PAGE, modes, NULL), 0);
}

static void file_scene_end(struct file_scene *f)
{
	check_invariants(f->s.w.machine);
	ucow_uffd_close(f->s.uffd);
	REQUIRE_EQ(ucow_munmap(f->s.w.mm, f->s.va, NPAGES * PAGE), 0);
	REQUIRE_EQ(ucow_file_close(f->file), 0);
	world_close(&f->s.w);
	close_fd(f->fd);
}

TEST(stores_to_protected_pages_of_a_private_file_mapping)
{
	struct file_scene f;
	struct scene *s = &f.s;

	file_scene_begin(&f, true, UCOW_MAP_PRIVATE, 0, UCOW_UFFD_WP);
	CHECK_EQ(get64(s->w.cpu, s->va), file_value(0));
	put64(s->w.cpu, s->va + PAGE, 5); /* a copy already */
	protect(s->uffd, s->va, NPAGES);
	CHECK_EQ(protected_pages(s->w.mm, s->va), NPAGES);
	for (unsigned i = 0; i < 8; i++) {
		CHECK_EQ(get64(s->w.cpu, s->va + i * PAGE), i == 1 ? 5 : file_value(i));
		CHECK(is_protected(s->w.mm, s->va + i * PAGE));
		put64(s->w.cpu, s->va + i * PAGE, 100 + i);
		CHECK_EQ(s->told.wp, i + 1);
		CHECK(!is_protected(s->w.mm, s->va + i * PAGE));
		CHECK_EQ(file_get64(f.file, i * PAGE), file_value(i));
	}
	put64(s->w.cpu, s->va + 10 * PAGE, 7); /* not read before */
	CHECK_EQ(s->told.wp, 9);
	CHECK_EQ(get64(s->w.cpu, s->va + 10 * PAGE), 7);
	/* Dropped, with copies and without, they stay protected; so does what is cut off. */
	protect(s->uffd, s->va, 4);
	REQUIRE_EQ(ucow_madvise(s->w.mm, s->va, 20 * PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK(is_protected(s->w.mm, s->va) && is_protected(s->w.mm, s->va + 15 * PAGE));
	CHECK(!is_protected(s->w.mm, s->va + 5 * PAGE));
	CHECK_EQ(get64(s->w.cpu, s->va), file_value(0));
	CHECK_EQ(get64(s->w.cpu, s->va + 20 * PAGE), file_value(20));
	REQUIRE_EQ(ucow_file_truncate(f.file, 3 * PAGE), 0);
	REQUIRE_EQ(ucow_file_truncate(f.file, NPAGES * PAGE), 0);
	CHECK(is_protected(s->w.mm, s->va + 20 * PAGE) && !query(s->w.mm, s->va + 20 * PAGE).present);
	check_invariants(s->w.machine);
	put64(s->w.cpu, s->va + 20 * PAGE, 1);
	CHECK_EQ(s->told.wp, 10);
	file_scene_end(&f);
}

TEST(missing_pages_of_a_private_file_mapping)
{
	struct file_scene f;
	struct scene *s = &f.s;

	file_scene_begin(&f, true, UCOW_MAP_PRIVATE, 0, UCOW_UFFD_MISSING);
	for (unsigned i = 0; i < NPAGES; i++) {
		bool hole = i >= NPAGES / 2;

		CHECK_EQ(get64(s->w.cpu, s->va + i * PAGE), hole ? pattern_of(s->va + i * PAGE) : file_value(i));
		CHECK_EQ(s->told.missing, hole ? i + 1 - NPAGES / 2 : 0);
	}
	CHECK_EQ(file_get64(f.file, (NPAGES - 1) * PAGE), 0); /* the page is this mapping's own */
	CHECK(query(s->w.mm, s->va + (NPAGES - 1) * PAGE).anon);
	file_scene_end(&f);
}

TEST(minor_faults_of_a_private_file_mapping)
{
	struct file_scene f;
	struct scene *s = &f.s;

	file_scene_begin(&f, true, UCOW_MAP_PRIVATE, 0, UCOW_UFFD_MINOR);
	CHECK_EQ(get64(s->w.cpu, s->va), file_value(0));
	put64(s->w.cpu, s->va + PAGE, 9);
	CHECK_EQ(s->told.minor, 2);
	CHECK_EQ(get64(s->w.cpu, s->va + PAGE), 9);
	CHECK_EQ(file_get64(f.file, PAGE), file_value(1));
	file_scene_end(&f);
}

/* vma_can_userfault: of files that are written back only what a store lifts by itself. */
TEST(files_are_watched_only_for_async_protection)
{
	struct file_scene f;
	struct scene *s = &f.s;

	file_scene_begin(&f, false, UCOW_MAP_SHARED, 0, 0);
	CHECK_EQ(ucow_uffd_register(s->uffd, s->va, PAGE, UCOW_UFFD_MISSING, NULL), -EINVAL);
	CHECK_EQ(ucow_uffd_register(s->uffd, s->va, PAGE, UCOW_UFFD_MINOR, NULL), -EINVAL);
	CHECK_EQ(ucow_uffd_register(s->uffd, s->va, PAGE, UCOW_UFFD_WP, NULL), -EINVAL);
	file_scene_end(&f);

	file_scene_begin(&f, false, UCOW_MAP_SHARED, UCOW_UFFD_FEATURE_WP_ASYNC, UCOW_UFFD_WP);
	CHECK_EQ(get64(s->w.cpu, s->va), file_value(0));
	put64(s->w.cpu, s->va + PAGE, 1);
	protect(s->uffd, s->va, NPAGES);
	CHECK_EQ(protected_pages(s->w.mm, s->va), NPAGES);
	for (unsigned i = 0; i < 4; i++)
		put64(s->w.cpu, s->va + i * PAGE, 50 + i);
	CHECK_EQ(protected_pages(s->w.mm, s->va), NPAGES - 4);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(file_get64(f.file, i * PAGE), 50 + i);
	CHECK_EQ(get64(s->w.cpu, s->va + 9 * PAGE), file_value(9));
	CHECK(is_protected(s->w.mm, s->va + 9 * PAGE));
	file_scene_end(&f);
}

/* ---- SIGBUS ---- */

/* A.4 sigbus-wp */
static void check_sigbus(bool shared)
{
	struct scene s;
	uint64_t value = 1;

	scene_begin(&s, shared, UCOW_UFFD_FEATURE_SIGBUS, UCOW_UFFD_MISSING | UCOW_UFFD_WP);
	for (unsigned i = 0; i < NPAGES; i++) {
		CHECK_EQ(ucow_read(s.w.cpu, s.va + i * PAGE, &value, 8, NULL), -ENXIO);
		supply(s.uffd, s.va + i * PAGE, UCOW_UFFD_MODE_WP);
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), pattern_of(s.va + i * PAGE));
		CHECK_EQ(ucow_write(s.w.cpu, s.va + i * PAGE, &value, 8, NULL), -ENXIO);
		lift(s.uffd, s.va + i * PAGE, 1);
		put64(s.w.cpu, s.va + i * PAGE, i);
	}
	CHECK_EQ(counted(&s.w, UCOW_COUNTER_FAULT_SIGBUS), 2 * NPAGES);
	CHECK_EQ(counted(&s.w, UCOW_COUNTER_WP_EVENT), NPAGES);
	CHECK_EQ(s.told.wp + s.told.missing, 0);
	scene_end(&s);
}

TEST(sigbus_instead_of_a_report_for_private_pages)
{
	check_sigbus(false);
}

TEST(sigbus_instead_of_a_report_for_shared_pages)
{
	check_sigbus(true);
}

TEST(callback_may_refuse)
{
	struct scene s;
	uint64_t value;

	scene_begin(&s, false, 0, UCOW_UFFD_MISSING);
	s.told.answer = UCOW_UFFD_SIGBUS;
	s.told.resolve = false;
	CHECK_EQ(ucow_read(s.w.cpu, s.va, &value, 8, NULL), -ENXIO);
	CHECK_EQ(s.told.missing, 1);
	scene_end(&s);
}

/* ---- get_user_pages ---- */

TEST(pins_ask_as_accesses_do)
{
	struct scene s;
	struct ucow_page *pages[4], *page;

	scene_begin(&s, false, 0, UCOW_UFFD_MISSING | UCOW_UFFD_WP);
	CHECK_EQ(ucow_pin_user_pages(s.w.cpu, s.va, 4, 0, pages), 4);
	CHECK_EQ(s.told.missing, 4);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(device_read64(pages[i]), pattern_of(s.va + i * PAGE));
	protect(s.uffd, s.va, 4);
	page = pin_page(s.w.cpu, s.va, 0);
	CHECK_EQ(s.told.wp, 0);
	ucow_unpin_user_pages(&page, 1);
	page = pin_page(s.w.cpu, s.va, UCOW_FOLL_WRITE);
	CHECK_EQ(s.told.wp, 1);
	CHECK(page == pages[0]); /* a pinned page stays the one that is mapped */
	ucow_unpin_user_pages(&page, 1);
	page = NULL;
	CHECK_EQ(ucow_get_user_pages_fast(s.w.cpu, s.va + PAGE, 1, UCOW_FOLL_WRITE, &page), 1);
	CHECK_EQ(s.told.wp, 2);
	CHECK(page == pages[1]);
	ucow_put_pages(&page, 1);
	put64(s.w.cpu, s.va + 2 * PAGE, 88);
	CHECK_EQ(device_read64(pages[2]), 88);
	ucow_unpin_user_pages(pages, 4);
	CHECK_EQ(ucow_pin_user_pages(s.w.cpu, s.va + 9 * PAGE, 1, UCOW_FOLL_NOFAULT, &page), -EFAULT);
	CHECK_EQ(ucow_pin_user_pages(s.w.cpu, s.va + 3 * PAGE, 1, UCOW_FOLL_NOFAULT | UCOW_FOLL_WRITE, &page), -EFAULT);
	CHECK_EQ(s.told.missing, 4);
	/* Nobody waits on behalf of a debugger. */
	CHECK_EQ(ucow_access_remote(s.w.mm, s.va + 9 * PAGE, pages, 8, 0, NULL), -EFAULT);
	CHECK_EQ(ucow_access_remote(s.w.mm, s.va + 3 * PAGE, pages, 8, UCOW_FOLL_WRITE, NULL), -EFAULT);
	CHECK_EQ(ucow_access_remote(s.w.mm, s.va + 3 * PAGE, pages, 8, 0, NULL), 0);
	CHECK_EQ(ucow_madvise(s.w.mm, s.va, 12 * PAGE, UCOW_MADV_POPULATE_WRITE), 0);
	CHECK_EQ(s.told.missing, 12);
	CHECK_EQ(s.told.wp, 4);
	s.told.answer = UCOW_UFFD_SIGBUS;
	s.told.resolve = false;
	CHECK_EQ(ucow_pin_user_pages(s.w.cpu, s.va + 11 * PAGE, 3, 0, pages), 1); /* what came before the refusal */
	ucow_unpin_user_pages(pages, 1);
	CHECK_EQ(ucow_madvise(s.w.mm, s.va, 20 * PAGE, UCOW_MADV_POPULATE_READ), -EFAULT);
	scene_end(&s);
}

/* A store that the mapping does not permit is one all the same. */
TEST(forced_writes_are_reported)
{
	struct scene s;
	struct ucow_page *page;

	scene_begin(&s, false, 0, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, 2);
	protect(s.uffd, s.va, 2);
	REQUIRE_EQ(ucow_mprotect(s.w.mm, s.va, NPAGES * PAGE, UCOW_PROT_READ), 0);
	page = get_page(s.w.cpu, s.va, UCOW_FOLL_WRITE | UCOW_FOLL_FORCE);
	CHECK_EQ(s.told.wp, 1);
	CHECK(!is_protected(s.w.mm, s.va) && !query(s.w.mm, s.va).writable);
	ucow_put_pages(&page, 1);
	scene_end(&s);
}

/* A.6: giving merged pages their own again is an unshare, no store. */
TEST(unmerging_is_not_reported)
{
	struct scene s;
	uint64_t merged = 0;

	scene_begin(&s, false, 0, UCOW_UFFD_WP);
	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va, NPAGES * PAGE, UCOW_MADV_MERGEABLE), 0);
	for (unsigned i = 0; i < NPAGES; i++)
		put64(s.w.cpu, s.va + i * PAGE, 7);
	if (ucow_ksm_merge(s.w.machine, &merged) == -EOPNOTSUPP) {
		scene_end(&s);
		SKIP("built without same-page merging");
	}
	CHECK_EQ(merged, NPAGES - 1);
	protect(s.uffd, s.va, NPAGES);
	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va, NPAGES * PAGE, UCOW_MADV_UNMERGEABLE), 0);
	CHECK_EQ(s.told.wp, 0);
	CHECK(!query(s.w.mm, s.va).ksm);
	CHECK_EQ(protected_pages(s.w.mm, s.va), NPAGES);
	scene_end(&s);
}

/* ---- supplying ---- */

/* A.4 zeropage */
static void check_zeropage(bool shared)
{
	struct scene s;
	uint64_t done = 1;

	scene_begin(&s, shared, 0, UCOW_UFFD_MISSING);
	CHECK_EQ(ucow_uffd_zeropage(s.uffd, s.va, 3 * PAGE, 0, &done), 0);
	CHECK_EQ(done, 3 * PAGE);
	CHECK_EQ(query(s.w.mm, s.va).zero_page, !shared);
	CHECK_EQ(ucow_uffd_zeropage(s.uffd, s.va, PAGE, 0, &done), -EEXIST);
	CHECK_EQ(done, 0);
	CHECK_EQ(get64(s.w.cpu, s.va), 0);
	put64(s.w.cpu, s.va + PAGE, 4);
	CHECK_EQ(get64(s.w.cpu, s.va + PAGE), 4);
	CHECK_EQ(s.told.missing, 0);
	/* Up to what is there. */
	REQUIRE_EQ(ucow_uffd_zeropage(s.uffd, s.va + 5 * PAGE, PAGE, 0, NULL), 0);
	CHECK_EQ(ucow_uffd_zeropage(s.uffd, s.va + 3 * PAGE, 4 * PAGE, 0, &done), -EEXIST);
	CHECK_EQ(done, 2 * PAGE);
	scene_end(&s);
}

TEST(zeropage_in_private_memory)
{
	check_zeropage(false);
}

TEST(zeropage_in_shared_memory)
{
	check_zeropage(true);
}

/* A.4 poison */
static void check_poison(bool shared)
{
	struct scene s;
	struct ucow_page *page = NULL;
	struct ucow_mm *child;
	uint64_t value = 0;

	scene_begin(&s, shared, 0, UCOW_UFFD_MISSING);
	CHECK_EQ(ucow_uffd_poison(s.uffd, s.va, 2 * PAGE, 0, NULL), 0);
	CHECK_EQ(ucow_read(s.w.cpu, s.va, &value, 8, NULL), -ENXIO);
	CHECK_EQ(ucow_write(s.w.cpu, s.va, &value, 8, NULL), -ENXIO);
	CHECK_EQ(ucow_pin_user_pages(s.w.cpu, s.va, 1, 0, &page), -EFAULT);
	CHECK_EQ(s.told.missing, 0);
	CHECK_EQ(ucow_uffd_poison(s.uffd, s.va, PAGE, 0, NULL), -EEXIST);
	CHECK(!query(s.w.mm, s.va).present && !query(s.w.mm, s.va).swapped);
	put64(s.w.cpu, s.va + 5 * PAGE, 1); /* from here on there is something for a fork to copy */
	child = fork_mm(s.w.mm);
	check_invariants(s.w.machine);
	exit_child(child);
	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va, PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(get64(s.w.cpu, s.va), pattern_of(s.va));
	/* It gives way to a page. */
	supply(s.uffd, s.va + PAGE, 0);
	CHECK_EQ(get64(s.w.cpu, s.va + PAGE), pattern_of(s.va + PAGE));
	scene_end(&s);
}

TEST(poison_in_private_memory)
{
	check_poison(false);
}

TEST(poison_in_shared_memory)
{
	check_poison(true);
}

TEST(copies_may_come_protected_and_may_replace_markers)
{
	struct scene s;

	scene_begin(&s, false, UCOW_UFFD_FEATURE_WP_UNPOPULATED, UCOW_UFFD_MISSING | UCOW_UFFD_WP);
	protect(s.uffd, s.va, 2);
	supply(s.uffd, s.va, UCOW_UFFD_MODE_WP);
	supply(s.uffd, s.va + PAGE, 0);
	CHECK(is_protected(s.w.mm, s.va) && !is_protected(s.w.mm, s.va + PAGE));
	put64(s.w.cpu, s.va + PAGE, 1);
	CHECK_EQ(s.told.wp, 0);
	put64(s.w.cpu, s.va, 1);
	CHECK_EQ(s.told.wp, 1);
	/* Into memory that may not be written: the bytes are there, the permission is not (A.7, mkdirty). */
	REQUIRE_EQ(ucow_mprotect(s.w.mm, s.va + 4 * PAGE, PAGE, UCOW_PROT_READ), 0);
	supply(s.uffd, s.va + 4 * PAGE, 0);
	CHECK(query(s.w.mm, s.va + 4 * PAGE).dirty && !query(s.w.mm, s.va + 4 * PAGE).writable);
	scene_end(&s);
}

/* ---- move ---- */

TEST(moved_pages_are_the_pages_themselves)
{
	struct scene s;
	uint64_t done, pfn[NPAGES];

	scene_begin(&s, false, 0, UCOW_UFFD_MISSING);
	map_at(s.w.mm, FAR, NPAGES, RW, UCOW_MAP_PRIVATE);
	fill(s.w.cpu, FAR, NPAGES);
	for (unsigned i = 0; i < NPAGES; i++)
		pfn[i] = query(s.w.mm, FAR + i * PAGE).pfn;
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va, FAR, NPAGES * PAGE, 0, &done), 0);
	CHECK_EQ(done, NPAGES * PAGE);
	check_invariants(s.w.machine);
	for (unsigned i = 0; i < NPAGES; i++) {
		struct ucow_entry_info e = query(s.w.mm, s.va + i * PAGE);

		CHECK(e.pfn == pfn[i] && e.exclusive && e.writable && e.soft_dirty);
		CHECK(!query(s.w.mm, FAR + i * PAGE).present);
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), i + 1);
		CHECK_EQ(get64(s.w.cpu, FAR + i * PAGE), 0);
	}
	CHECK_EQ(s.told.missing, 0);
	scene_end(&s);
}

TEST(move_takes_only_what_is_alone)
{
	struct scene s;
	struct ucow_page *page;
	struct ucow_mm *child;
	uint64_t done;

	scene_begin(&s, false, 0, UCOW_UFFD_MISSING);
	map_at(s.w.mm, FAR, NPAGES, RW, UCOW_MAP_PRIVATE);
	fill(s.w.cpu, FAR, 8);
	page = pin_page(s.w.cpu, FAR + 2 * PAGE, UCOW_FOLL_WRITE);
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va, FAR, 8 * PAGE, 0, &done), -EBUSY);
	CHECK_EQ(done, 2 * PAGE);
	CHECK_EQ(get64(s.w.cpu, FAR + 2 * PAGE), 3);
	device_write64(page, 33);
	CHECK_EQ(get64(s.w.cpu, FAR + 2 * PAGE), 33);
	ucow_unpin_user_pages(&page, 1);
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va + 2 * PAGE, FAR + 2 * PAGE, PAGE, 0, &done), 0);
	CHECK_EQ(get64(s.w.cpu, s.va + 2 * PAGE), 33);
	child = fork_mm(s.w.mm);
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va + 3 * PAGE, FAR + 3 * PAGE, PAGE, 0, &done), -EBUSY);
	exit_child(child);
	/* Occupied, empty, overlapping, not mapped, beyond the end. */
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va, FAR + 4 * PAGE, PAGE, 0, &done), -EEXIST);
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va + 9 * PAGE, FAR + 9 * PAGE, PAGE, 0, &done), -ENOENT);
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va + 9 * PAGE, FAR + 9 * PAGE, PAGE, UCOW_UFFD_MODE_ALLOW_SRC_HOLES, &done),
		 0);
	CHECK_EQ(done, PAGE);
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va, s.va + PAGE, 2 * PAGE, 0, &done), -EINVAL);
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va + 9 * PAGE, 2 * FAR, PAGE, 0, &done), -ENOENT);
	CHECK_EQ(ucow_uffd_move(s.uffd, FAR + 20 * PAGE, FAR, PAGE, 0, &done), -ENOENT);
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va, FAR, (NPAGES + 1) * PAGE, 0, &done), -EINVAL);
	scene_end(&s);
}

/* A.4 move: what children do not get stays alone. */
TEST(move_after_a_fork_that_leaves_the_source_out)
{
	struct scene s;
	struct ucow_mm *child;

	scene_begin(&s, false, 0, UCOW_UFFD_MISSING);
	map_at(s.w.mm, FAR, NPAGES, RW, UCOW_MAP_PRIVATE);
	fill(s.w.cpu, FAR, NPAGES);
	REQUIRE_EQ(ucow_madvise(s.w.mm, FAR, NPAGES * PAGE, UCOW_MADV_DONTFORK), 0);
	child = fork_mm(s.w.mm);
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va, FAR, NPAGES * PAGE, 0, NULL), 0);
	check_invariants(s.w.machine);
	for (unsigned i = 0; i < NPAGES; i++) {
		CHECK(query(s.w.mm, s.va + i * PAGE).exclusive);
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), i + 1);
	}
	exit_child(child);
	scene_end(&s);
}

/* Where a moved page is has to be known to reclaim, and pages that are away move too. */
TEST(moved_pages_can_be_swapped_and_swapped_pages_moved)
{
	struct scene s;

	scene_begin(&s, false, 0, UCOW_UFFD_MISSING);
	add_swap(s.w.machine);
	map_at(s.w.mm, FAR, NPAGES, RW, UCOW_MAP_PRIVATE);
	fill(s.w.cpu, FAR, NPAGES);
	REQUIRE_EQ(ucow_madvise(s.w.mm, FAR, 10 * PAGE, UCOW_MADV_PAGEOUT), 0);
	CHECK(query(s.w.mm, FAR).swapped && !query(s.w.mm, FAR + 10 * PAGE).swapped);
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va + 3 * PAGE, FAR, 40 * PAGE, 0, NULL), 0);
	check_invariants(s.w.machine);
	CHECK(query(s.w.mm, s.va + 3 * PAGE).swapped);
	page_out(&s);
	CHECK(query(s.w.mm, s.va + 20 * PAGE).swapped);
	check_invariants(s.w.machine);
	REQUIRE_EQ(ucow_swapoff(s.w.machine, 0), 0);
	for (unsigned i = 0; i < 40; i++)
		CHECK_EQ(get64(s.w.cpu, s.va + (3 + i) * PAGE), i + 1);
	CHECK_EQ(s.told.missing, 0);
	scene_end(&s);
}

/* ---- registration ---- */

TEST(registration_contract)
{
	struct scene s;
	struct ucow_uffd *other;
	const struct ucow_uffd_options options = {.size = sizeof(options)}, wrong = {.size = 3},
				       unknown = {.size = sizeof(unknown), .features = 1u << 31};
	struct ucow_mm *snapshot = NULL;
	unsigned can = 0;

	scene_begin(&s, false, 0, 0);
	REQUIRE_EQ(ucow_uffd_create(s.w.mm, &options, &other), 0);
	CHECK_EQ(ucow_uffd_create(s.w.mm, &wrong, &other), -EINVAL);
	CHECK_EQ(ucow_uffd_create(s.w.mm, &unknown, &other), -EINVAL);
	REQUIRE_EQ(ucow_snapshot(s.w.mm, &snapshot), 0);
	CHECK_EQ(ucow_uffd_create(snapshot, &options, &other), -EACCES);
	exit_child(snapshot);

	CHECK_EQ(ucow_uffd_register(s.uffd, s.va, PAGE, 0, &can), -EINVAL);
	CHECK_EQ(ucow_uffd_register(s.uffd, s.va, PAGE, 8, &can), -EINVAL);
	CHECK_EQ(ucow_uffd_register(s.uffd, s.va + 1, PAGE, UCOW_UFFD_WP, &can), -EINVAL);
	CHECK_EQ(ucow_uffd_register(s.uffd, s.va, PAGE + 1, UCOW_UFFD_WP, &can), -EINVAL);
	CHECK_EQ(ucow_uffd_register(s.uffd, s.va, 0, UCOW_UFFD_WP, &can), -EINVAL);
	CHECK_EQ(ucow_uffd_register(s.uffd, FAR, PAGE, UCOW_UFFD_WP, &can), -EINVAL);
	CHECK_EQ(ucow_uffd_register(s.uffd, s.va, PAGE, UCOW_UFFD_MINOR, &can), -EINVAL);
	map_at(s.w.mm, FAR, 1, RW, UCOW_MAP_PRIVATE | UCOW_MAP_PFN);
	CHECK_EQ(ucow_uffd_register(s.uffd, FAR, PAGE, UCOW_UFFD_WP, &can), -EINVAL);
	CHECK_EQ(can, 0);

	CHECK_EQ(ucow_uffd_register(s.uffd, s.va, 4 * PAGE, UCOW_UFFD_MISSING, &can), 0);
	CHECK_EQ(can, UCOW_UFFD_CAN_COPY | UCOW_UFFD_CAN_ZEROPAGE | UCOW_UFFD_CAN_POISON | UCOW_UFFD_CAN_WAKE |
			      UCOW_UFFD_CAN_MOVE);
	CHECK_EQ(ucow_uffd_register(other, s.va + 2 * PAGE, 4 * PAGE, UCOW_UFFD_MISSING, NULL), -EBUSY);
	/* Others' ranges are left alone. */
	CHECK_EQ(ucow_uffd_unregister(other, s.va, NPAGES * PAGE), 0);
	CHECK_EQ(get64(s.w.cpu, s.va), pattern_of(s.va));
	CHECK_EQ(ucow_uffd_unregister(s.uffd, s.va + PAGE, PAGE), 0);
	CHECK_EQ(get64(s.w.cpu, s.va + PAGE), 0);
	CHECK_EQ(get64(s.w.cpu, s.va + 2 * PAGE), pattern_of(s.va + 2 * PAGE));
	CHECK_EQ(ucow_uffd_unregister(s.uffd, 2 * FAR, PAGE), -EINVAL);

	/* What is not registered cannot be supplied; what is not registered so, not protected. */
	CHECK_EQ(ucow_uffd_zeropage(s.uffd, s.va + 9 * PAGE, PAGE, 0, NULL), -ENOENT);
	CHECK_EQ(ucow_uffd_zeropage(s.uffd, s.va + 3 * PAGE, 2 * PAGE, 0, NULL), -ENOENT);
	CHECK_EQ(ucow_uffd_writeprotect(s.uffd, s.va, PAGE, UCOW_UFFD_MODE_WP), -ENOENT);
	CHECK_EQ(ucow_uffd_writeprotect(s.uffd, 2 * FAR, PAGE, UCOW_UFFD_MODE_WP), -ENOENT);
	CHECK_EQ(ucow_uffd_writeprotect(s.uffd, s.va, PAGE, UCOW_UFFD_MODE_WP | UCOW_UFFD_MODE_DONTWAKE), -EINVAL);
	CHECK_EQ(ucow_uffd_copy(s.uffd, s.va + 3 * PAGE, &s, PAGE, UCOW_UFFD_MODE_WP, NULL), -EINVAL);
	CHECK_EQ(ucow_uffd_zeropage(s.uffd, s.va + 3 * PAGE, PAGE, UCOW_UFFD_MODE_WP, NULL), -EINVAL);
	CHECK_EQ(ucow_uffd_continue(s.uffd, s.va + 3 * PAGE, PAGE, 0, NULL), -EINVAL);
	CHECK_EQ(ucow_uffd_wake(s.uffd, s.va + 1, PAGE), -EINVAL);
	ucow_uffd_close(other);
	ucow_uffd_close(NULL);
	scene_end(&s);
}

TEST(unregistering_and_closing_lift_the_protection)
{
	struct scene s;

	scene_begin(&s, false, UCOW_UFFD_FEATURE_WP_UNPOPULATED, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, NPAGES / 2);
	protect(s.uffd, s.va, NPAGES);
	REQUIRE_EQ(ucow_uffd_unregister(s.uffd, s.va, 10 * PAGE), 0);
	CHECK_EQ(protected_pages(s.w.mm, s.va), NPAGES - 10);
	REQUIRE_EQ(ucow_uffd_register(s.uffd, s.va + 10 * PAGE, 5 * PAGE, UCOW_UFFD_MISSING, NULL), 0);
	CHECK_EQ(protected_pages(s.w.mm, s.va), NPAGES - 15);
	check_invariants(s.w.machine);
	ucow_uffd_close(s.uffd);
	CHECK_EQ(protected_pages(s.w.mm, s.va), 0);
	check_invariants(s.w.machine);
	put64(s.w.cpu, s.va + 20 * PAGE, 1);
	CHECK_EQ(s.told.wp, 0);
	s.uffd = NULL;
	scene_end(&s);
}

/* ---- mremap, madvise, munmap ---- */

static void check_remap(uint32_t features, bool pinned)
{
	bool event = features & UCOW_UFFD_FEATURE_EVENT_REMAP;
	struct ucow_page *page = NULL;
	struct scene s;
	uint64_t to = 0;

	scene_begin(&s, false, features, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, NPAGES);
	protect(s.uffd, s.va, NPAGES);
	if (pinned)
		page = pin_page(s.w.cpu, s.va, UCOW_FOLL_LONGTERM);
	REQUIRE_EQ(ucow_mremap(s.w.mm, s.va, NPAGES * PAGE, NPAGES * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED,
			       FAR + 3 * PAGE, &to),
		   0);
	check_invariants(s.w.machine);
	CHECK_EQ(protected_pages(s.w.mm, to), event ? NPAGES : 0);
	CHECK_EQ(s.told.remaps, event);
	CHECK_EQ(s.told.unmaps, !!(features & UCOW_UFFD_FEATURE_EVENT_UNMAP));
	put64(s.w.cpu, to, 9);
	CHECK_EQ(s.told.wp, event);
	if (pinned) {
		CHECK_EQ(device_read64(page), 9);
		ucow_unpin_user_pages(&page, 1);
	}
	scene_end(&s);
}

TEST(moved_mappings_are_left)
{
	check_remap(0, false);
}

TEST(moved_mappings_of_pinned_pages_are_left)
{
	check_remap(0, true);
}

TEST(moved_mappings_are_followed_if_that_is_reported)
{
	check_remap(UCOW_UFFD_FEATURE_EVENT_REMAP, false);
}

TEST(moved_mappings_of_pinned_pages_are_followed)
{
	check_remap(UCOW_UFFD_FEATURE_EVENT_REMAP | UCOW_UFFD_FEATURE_EVENT_UNMAP, true);
}

TEST(markers_move_with_their_mapping)
{
	struct scene s;
	uint64_t to = 0;

	scene_begin(&s, false, UCOW_UFFD_FEATURE_WP_UNPOPULATED | UCOW_UFFD_FEATURE_EVENT_REMAP,
		    UCOW_UFFD_WP | UCOW_UFFD_MISSING);
	protect(s.uffd, s.va, 2);
	REQUIRE_EQ(ucow_uffd_poison(s.uffd, s.va + 2 * PAGE, PAGE, 0, NULL), 0);
	REQUIRE_EQ(ucow_mremap(s.w.mm, s.va, NPAGES * PAGE, NPAGES * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_DONTUNMAP,
			       0, &to),
		   0);
	check_invariants(s.w.machine);
	CHECK_EQ(protected_pages(s.w.mm, to), 2);
	CHECK_EQ(protected_pages(s.w.mm, s.va), 0);
	CHECK_EQ(ucow_read(s.w.cpu, to + 2 * PAGE, &to, 8, NULL), -ENXIO);
	/* The old mapping stays watched. */
	CHECK_EQ(get64(s.w.cpu, s.va), pattern_of(s.va));
	scene_end(&s);
}

TEST(events_tell_of_ranges)
{
	struct scene s;
	uint64_t va;

	scene_begin(&s, false, ALL_EVENTS, UCOW_UFFD_WP | UCOW_UFFD_MISSING);
	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va + PAGE, 3 * PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK(s.told.removes == 1 && s.told.last.va == s.va + PAGE && s.told.last.length == 3 * PAGE);
	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va, PAGE, UCOW_MADV_FREE), 0);
	CHECK_EQ(s.told.removes, 2);
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va + 4 * PAGE, 2 * PAGE), 0);
	CHECK(s.told.unmaps == 1 && s.told.last.va == s.va + 4 * PAGE && s.told.last.length == 2 * PAGE);
	REQUIRE_EQ(ucow_mmap(s.w.mm, s.va + 8 * PAGE, PAGE, RW, UCOW_MAP_PRIVATE | UCOW_MAP_FIXED, &va), 0);
	CHECK(s.told.unmaps == 2 && s.told.last.va == va && s.told.last.length == PAGE);
	REQUIRE_EQ(ucow_munmap(s.w.mm, va, PAGE), 0); /* nobody watches the new mapping */
	CHECK_EQ(s.told.unmaps, 2);
	/* Two pieces of the range are left here. */
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va + 6 * PAGE, 8 * PAGE), 0);
	CHECK_EQ(s.told.unmaps, 4);
	CHECK_EQ(s.told.forks + s.told.remaps, 0);
	scene_end(&s);
}

/* ---- a handler in a thread ---- */

/* Unmapping it ends a handler that reads. */
#define LAST (FAR * 2)

struct handler {
	pthread_t thread;
	struct ucow_uffd *uffd;
	struct told told;
	bool poll;
};

static void wait_readable(int fd)
{
	struct epoll_event event = {.events = EPOLLIN}, seen;
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	REQUIRE(fd >= 0 && epoll >= 0);
	REQUIRE_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
	REQUIRE_EQ(poll(&pollfd, 1, -1), 1);
	REQUIRE_EQ(pollfd.revents, POLLIN);
	REQUIRE_EQ(epoll_wait(epoll, &seen, 1, -1), 1);
	close(epoll);
}

static bool is_readable(struct ucow_uffd *uffd)
{
	struct pollfd pollfd = {.fd = ucow_uffd_fd(uffd), .events = POLLIN};

	REQUIRE(pollfd.fd >= 0);
	return poll(&pollfd, 1, 0) == 1;
}

static void *handle(void *arg)
{
	struct handler *handler = arg;
	struct ucow_uffd_msg msg;

	for (;;) {
		if (handler->poll)
			wait_readable(ucow_uffd_fd(handler->uffd));
		REQUIRE_EQ(ucow_uffd_read(handler->uffd, &msg, 1, !handler->poll), 1);
		if (msg.event == UCOW_UFFD_EVENT_UNMAP && msg.va == LAST)
			return NULL;
		note(&handler->told, &msg);
		if (msg.event == UCOW_UFFD_EVENT_PAGEFAULT)
			resolve_fault(&handler->told, handler->uffd, &msg);
	}
}

static void handler_start(struct handler *handler, struct ucow_uffd *uffd, bool with_poll)
{
	*handler = (struct handler){.uffd = uffd, .poll = with_poll};
	map_at(ucow_uffd_mm(uffd), LAST, 1, RW, UCOW_MAP_PRIVATE);
	REQUIRE_EQ(ucow_uffd_register(uffd, LAST, PAGE, UCOW_UFFD_WP, NULL), 0);
	REQUIRE_EQ(pthread_create(&handler->thread, NULL, handle, handler), 0);
}

static void handler_stop(struct handler *handler)
{
	REQUIRE_EQ(ucow_munmap(ucow_uffd_mm(handler->uffd), LAST, PAGE), 0);
	pthread_join(handler->thread, NULL);
}

static void check_handler_thread(bool with_poll)
{
	struct handler handler;
	struct scene s;
	uint64_t to;

	s.w = world_open();
	s.va = map_private(s.w.mm, NPAGES);
	s.uffd = watch(&s, ALL_EVENTS, false);
	REQUIRE_EQ(ucow_uffd_register(s.uffd, s.va, NPAGES * PAGE, UCOW_UFFD_WP | UCOW_UFFD_MISSING, NULL), 0);
	handler_start(&handler, s.uffd, with_poll);
	for (unsigned i = 0; i < NPAGES; i++)
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), pattern_of(s.va + i * PAGE));
	protect(s.uffd, s.va, NPAGES);
	for (unsigned i = 0; i < NPAGES; i++)
		put64(s.w.cpu, s.va + i * PAGE, i);
	exit_child(fork_mm(s.w.mm));
	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va, PAGE, UCOW_MADV_DONTNEED), 0);
	REQUIRE_EQ(ucow_mremap(s.w.mm, s.va, NPAGES * PAGE, NPAGES * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, FAR,
			       &to),
		   0);
	REQUIRE_EQ(ucow_munmap(s.w.mm, to, NPAGES * PAGE), 0);
	handler_stop(&handler);
	ucow_uffd_close(handler.told.child);
	CHECK_EQ(handler.told.missing, NPAGES);
	CHECK_EQ(handler.told.wp, NPAGES);
	CHECK_EQ(handler.told.forks, 1);
	CHECK_EQ(handler.told.removes, 1);
	CHECK_EQ(handler.told.remaps, 1);
	CHECK_EQ(handler.told.unmaps, 2);
	scene_end(&s);
}

TEST(thread_that_reads_handles_everything)
{
	check_handler_thread(false);
}

TEST(thread_that_polls_handles_everything)
{
	check_handler_thread(true);
}

/* One access of a thread's own. */
struct accessor {
	pthread_t thread;
	struct ucow_mm *mm;
	uint64_t va, value;
	int result;
};

static void *load(void *arg)
{
	struct accessor *accessor = arg;
	struct ucow_cpu *cpu = cpu_on(accessor->mm);

	accessor->result = ucow_read(cpu, accessor->va, &accessor->value, 8, NULL);
	ucow_cpu_destroy(cpu);
	return NULL;
}

static void load_start(struct accessor *accessor, struct ucow_mm *mm, uint64_t va)
{
	*accessor = (struct accessor){.mm = mm, .va = va, .value = ~0ull};
	REQUIRE_EQ(pthread_create(&accessor->thread, NULL, load, accessor), 0);
}

static void scene_begin_queue(struct scene *s, unsigned modes)
{
	s->w = world_open();
	s->va = map_private(s->w.mm, NPAGES);
	s->uffd = watch(s, 0, false);
	REQUIRE_EQ(ucow_uffd_register(s->uffd, s->va, NPAGES * PAGE, modes, NULL), 0);
}

TEST(messages_wait_to_be_read_and_waiters_to_be_woken)
{
	struct accessor accessor;
	struct ucow_uffd_msg msg;
	struct scene s;

	scene_begin_queue(&s, UCOW_UFFD_MISSING);
	CHECK_EQ(ucow_uffd_read(s.uffd, &msg, 0, true), -EINVAL);
	CHECK_EQ(ucow_uffd_read(s.uffd, &msg, 1, false), -EAGAIN);
	CHECK(!is_readable(s.uffd));
	load_start(&accessor, s.w.mm, s.va + PAGE + 8);
	wait_readable(ucow_uffd_fd(s.uffd));
	CHECK_EQ(ucow_uffd_read(s.uffd, &msg, 1, true), 1);
	CHECK(msg.event == UCOW_UFFD_EVENT_PAGEFAULT && msg.va == s.va + PAGE && !msg.flags);
	CHECK(!is_readable(s.uffd));
	CHECK_EQ(ucow_uffd_read(s.uffd, &msg, 1, false), -EAGAIN);
	/* Woken for nothing, it asks again; elsewhere nobody is woken. */
	CHECK_EQ(ucow_uffd_wake(s.uffd, s.va, PAGE), 0);
	CHECK_EQ(ucow_uffd_wake(s.uffd, s.va + 2 * PAGE, PAGE), 0);
	CHECK_EQ(ucow_uffd_wake(s.uffd, s.va + PAGE, PAGE), 0);
	CHECK_EQ(ucow_uffd_read(s.uffd, &msg, 1, true), 1);
	CHECK_EQ(msg.va, s.va + PAGE);
	supply(s.uffd, s.va + PAGE, UCOW_UFFD_MODE_DONTWAKE);
	CHECK_EQ(ucow_uffd_wake(s.uffd, s.va, 2 * PAGE), 0);
	pthread_join(accessor.thread, NULL);
	CHECK_EQ(accessor.result, 0);
	CHECK_EQ(accessor.value, pattern_of(s.va + PAGE) + 1);
	scene_end(&s);
}

static void queue_one(struct scene *s, struct accessor *accessor)
{
	scene_begin_queue(s, UCOW_UFFD_MISSING);
	load_start(accessor, s->w.mm, s->va);
	wait_readable(ucow_uffd_fd(s->uffd));
}

TEST(closing_ends_waiting)
{
	struct accessor accessor;
	struct scene s;

	queue_one(&s, &accessor);
	ucow_uffd_close(s.uffd);
	pthread_join(accessor.thread, NULL);
	CHECK_EQ(accessor.result, 0);
	CHECK_EQ(accessor.value, 0);
	s.uffd = NULL;
	scene_end(&s);
}

static void *read_until_shut(void *arg)
{
	struct handler *handler = arg;
	struct ucow_uffd_msg msg;
	long got;

	while ((got = ucow_uffd_read(handler->uffd, &msg, 1, true)) == 1)
		note(&handler->told, &msg);
	REQUIRE_EQ(got, -EBADF);
	return NULL;
}

/* It ends readers, wherever they are, before what they use is freed. */
TEST(shutting_down_ends_reading_and_waiting)
{
	struct accessor accessor;
	struct handler handler;
	struct ucow_uffd_msg msg;
	struct scene s;

	queue_one(&s, &accessor);
	handler = (struct handler){.uffd = s.uffd};
	REQUIRE_EQ(pthread_create(&handler.thread, NULL, read_until_shut, &handler), 0);
	while (is_readable(s.uffd))
		sched_yield();
	ucow_uffd_shutdown(s.uffd);
	pthread_join(handler.thread, NULL);
	pthread_join(accessor.thread, NULL);
	CHECK_EQ(handler.told.missing, 1);
	CHECK_EQ(accessor.result, 0);
	CHECK_EQ(get64(s.w.cpu, s.va + PAGE), 0);
	CHECK_EQ(ucow_uffd_read(s.uffd, &msg, 1, false), -EBADF);
	CHECK_EQ(ucow_uffd_zeropage(s.uffd, s.va + 2 * PAGE, PAGE, 0, NULL), -ESRCH);
	CHECK(!ucow_uffd_mm(s.uffd));
	scene_end(&s);
}

TEST(unregistering_ends_waiting)
{
	struct accessor accessor;
	struct ucow_uffd_msg msg;
	struct scene s;

	queue_one(&s, &accessor);
	CHECK_EQ(ucow_uffd_read(s.uffd, &msg, 1, true), 1);
	REQUIRE_EQ(ucow_uffd_unregister(s.uffd, s.va, NPAGES * PAGE), 0);
	pthread_join(accessor.thread, NULL);
	CHECK_EQ(accessor.result, 0);
	scene_end(&s);
}

TEST(unmapping_ends_waiting)
{
	struct accessor accessor;
	struct scene s;

	queue_one(&s, &accessor);
	REQUIRE_EQ(ucow_munmap(s.w.mm, s.va, NPAGES * PAGE), 0);
	pthread_join(accessor.thread, NULL);
	CHECK_EQ(accessor.result, -EFAULT);
	CHECK(!is_readable(s.uffd));
	scene_end(&s);
}

TEST(poison_ends_waiting)
{
	struct accessor accessor;
	struct scene s;

	queue_one(&s, &accessor);
	REQUIRE_EQ(ucow_uffd_poison(s.uffd, s.va, PAGE, 0, NULL), 0);
	pthread_join(accessor.thread, NULL);
	CHECK_EQ(accessor.result, -ENXIO);
	scene_end(&s);
}

/* Until the event has been received the ranges that it tells of are not what the handler thinks. */
struct forker {
	pthread_t thread;
	struct ucow_mm *parent, *child;
};

static void *fork_in_thread(void *arg)
{
	struct forker *forker = arg;

	forker->child = fork_mm(forker->parent);
	return NULL;
}

TEST(nothing_is_supplied_while_an_event_waits)
{
	struct forker forker;
	struct ucow_uffd_msg msg;
	struct scene s;
	uint64_t done = 1;

	s.w = world_open();
	s.va = map_private(s.w.mm, NPAGES);
	s.uffd = watch(&s, UCOW_UFFD_FEATURE_EVENT_FORK, false);
	REQUIRE_EQ(ucow_uffd_register(s.uffd, s.va, NPAGES * PAGE, UCOW_UFFD_MISSING | UCOW_UFFD_WP, NULL), 0);
	forker = (struct forker){.parent = s.w.mm};
	REQUIRE_EQ(pthread_create(&forker.thread, NULL, fork_in_thread, &forker), 0);
	wait_readable(ucow_uffd_fd(s.uffd));
	CHECK_EQ(ucow_uffd_zeropage(s.uffd, s.va, PAGE, 0, &done), -EAGAIN);
	CHECK_EQ(done, 0);
	CHECK_EQ(ucow_uffd_writeprotect(s.uffd, s.va, PAGE, UCOW_UFFD_MODE_WP), -EAGAIN);
	CHECK_EQ(ucow_uffd_move(s.uffd, s.va, s.va + PAGE, PAGE, 0, &done), -EAGAIN);
	CHECK_EQ(ucow_uffd_read(s.uffd, &msg, 1, true), 1);
	CHECK_EQ(msg.event, UCOW_UFFD_EVENT_FORK);
	CHECK_EQ(ucow_uffd_zeropage(s.uffd, s.va, PAGE, 0, &done), 0);
	pthread_join(forker.thread, NULL);
	CHECK(ucow_uffd_mm(msg.child) == forker.child);
	CHECK_EQ(ucow_uffd_zeropage(msg.child, s.va, PAGE, 0, &done), 0);
	ucow_uffd_close(msg.child);
	exit_child(forker.child);
	scene_end(&s);
}

TEST(closing_drops_events_with_their_children)
{
	struct forker forker;
	struct scene s;

	s.w = world_open();
	s.va = map_private(s.w.mm, NPAGES);
	s.uffd = watch(&s, UCOW_UFFD_FEATURE_EVENT_FORK, false);
	REQUIRE_EQ(ucow_uffd_register(s.uffd, s.va, NPAGES * PAGE, UCOW_UFFD_WP, NULL), 0);
	fill(s.w.cpu, s.va, NPAGES);
	protect(s.uffd, s.va, NPAGES);
	forker = (struct forker){.parent = s.w.mm};
	REQUIRE_EQ(pthread_create(&forker.thread, NULL, fork_in_thread, &forker), 0);
	wait_readable(ucow_uffd_fd(s.uffd));
	ucow_uffd_close(s.uffd);
	pthread_join(forker.thread, NULL);
	CHECK_EQ(protected_pages(forker.child, s.va), 0);
	exit_child(forker.child);
	s.uffd = NULL;
	scene_end(&s);
}

/* A callback that leaves it to the queue. */
TEST(callback_may_leave_it_to_the_queue)
{
	struct accessor accessor;
	struct ucow_uffd_msg msg;
	struct scene s;

	scene_begin(&s, false, 0, UCOW_UFFD_MISSING);
	s.told.answer = UCOW_UFFD_QUEUE;
	s.told.resolve = false;
	load_start(&accessor, s.w.mm, s.va);
	CHECK_EQ(ucow_uffd_read(s.uffd, &msg, 1, true), 1);
	supply(s.uffd, s.va, 0);
	pthread_join(accessor.thread, NULL);
	CHECK_EQ(accessor.value, pattern_of(s.va));
	CHECK_EQ(s.told.missing, 1);
	scene_end(&s);
}

/* ---- many threads ---- */

enum { WRITERS = 3, ROUNDS = 60, COUNTERS = 8 };

struct writer {
	pthread_t thread;
	struct ucow_mm *mm;
	uint64_t va; /* its word in each page */
	uint64_t stores;
};

static _Atomic unsigned writing;

static void *keep_writing(void *arg)
{
	struct writer *writer = arg;
	struct ucow_cpu *cpu = cpu_on(writer->mm);

	while (writing) {
		for (unsigned i = 0; i < COUNTERS; i++) {
			uint64_t va = writer->va + i * 4 * PAGE;

			put64(cpu, va, get64(cpu, va) + 1);
		}
		writer->stores++;
	}
	ucow_cpu_destroy(cpu);
	return NULL;
}

static void copy_counters(const struct scene *s, uint64_t *copy)
{
	for (unsigned i = 0; i < COUNTERS; i++)
		for (unsigned j = 0; j < WRITERS; j++)
			copy[i * WRITERS + j] = get64(s->w.cpu, s->va + i * 4 * PAGE + j * 8);
}

/* Whoever has asked by now. */
static void answer_all(struct scene *s)
{
	struct ucow_uffd_msg msgs[4];
	long got;

	while ((got = ucow_uffd_read(s->uffd, msgs, 4, false)) > 0)
		for (long i = 0; i < got; i++)
			note(&s->told, &msgs[i]);
	lift(s->uffd, s->va, NPAGES);
}

/* Once the call has returned nothing changes behind the protection; and nothing that was stored is lost by it. */
static void check_writers(bool with_fork)
{
	uint64_t before[COUNTERS * WRITERS], after[COUNTERS * WRITERS];
	struct writer writers[WRITERS];
	struct scene s;

	scene_begin_queue(&s, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, NPAGES);
	for (unsigned i = 0; i < COUNTERS; i++)
		for (unsigned j = 0; j < WRITERS; j++)
			put64(s.w.cpu, s.va + i * 4 * PAGE + j * 8, 0);
	writing = 1;
	for (unsigned j = 0; j < WRITERS; j++) {
		writers[j] = (struct writer){.mm = s.w.mm, .va = s.va + j * 8};
		REQUIRE_EQ(pthread_create(&writers[j].thread, NULL, keep_writing, &writers[j]), 0);
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct ucow_mm *child = NULL;

		protect(s.uffd, s.va, NPAGES);
		copy_counters(&s, before);
		if (with_fork)
			child = fork_mm(s.w.mm);
		usleep(50);
		copy_counters(&s, after);
		CHECK_EQ(memcmp(before, after, sizeof(before)), 0);
		answer_all(&s);
		if (child)
			exit_child(child);
		usleep(50);
	}
	writing = 0;
	ucow_uffd_unregister(s.uffd, s.va, NPAGES * PAGE);
	for (unsigned j = 0; j < WRITERS; j++)
		pthread_join(writers[j].thread, NULL);
	copy_counters(&s, after);
	for (unsigned i = 0; i < COUNTERS; i++)
		for (unsigned j = 0; j < WRITERS; j++)
			CHECK_EQ(after[i * WRITERS + j], writers[j].stores);
	scene_end(&s);
}

TEST(protected_pages_do_not_change_while_others_write)
{
	check_writers(false);
}

TEST(protected_pages_do_not_change_while_others_write_and_fork)
{
	check_writers(true);
}

static void *read_all(void *arg)
{
	struct accessor *accessor = arg;
	struct ucow_cpu *cpu = cpu_on(accessor->mm);

	for (unsigned round = 0; round < 40; round++)
		for (unsigned i = 0; i < NPAGES; i++) {
			uint64_t va = accessor->va + i * PAGE;

			accessor->result |= get64(cpu, va) != pattern_of(va);
		}
	ucow_cpu_destroy(cpu);
	return NULL;
}

/* Two threads may ask for the same page: the second answer finds it there. */
static void answer_missing(struct ucow_uffd *uffd, const struct ucow_uffd_msg *msg)
{
	uint64_t page[512] = {pattern_of(msg->va)};
	int error = ucow_uffd_copy(uffd, msg->va, page, PAGE, 0, NULL);

	if (error == -EEXIST)
		REQUIRE_EQ(ucow_uffd_wake(uffd, msg->va, PAGE), 0);
	else
		REQUIRE_EQ(error, 0);
}

static void *answer_until_unmapped(void *arg)
{
	struct ucow_uffd_msg msg;

	for (;;) {
		REQUIRE_EQ(ucow_uffd_read(arg, &msg, 1, true), 1);
		if (msg.event == UCOW_UFFD_EVENT_UNMAP)
			return NULL;
		answer_missing(arg, &msg);
	}
}

TEST(many_readers_and_two_handlers)
{
	enum { READERS = 4, HANDLERS = 2 };
	struct accessor readers[READERS];
	pthread_t handlers[HANDLERS];
	struct scene s;

	s.w = world_open();
	s.va = map_private(s.w.mm, NPAGES);
	s.uffd = watch(&s, UCOW_UFFD_FEATURE_EVENT_UNMAP, false);
	REQUIRE_EQ(ucow_uffd_register(s.uffd, s.va, NPAGES * PAGE, UCOW_UFFD_MISSING, NULL), 0);
	for (unsigned i = 0; i < HANDLERS; i++)
		REQUIRE_EQ(pthread_create(&handlers[i], NULL, answer_until_unmapped, s.uffd), 0);
	for (unsigned i = 0; i < READERS; i++) {
		readers[i] = (struct accessor){.mm = s.w.mm, .va = s.va};
		REQUIRE_EQ(pthread_create(&readers[i].thread, NULL, read_all, &readers[i]), 0);
	}
	for (unsigned i = 0; i < 100; i++) {
		REQUIRE_EQ(ucow_madvise(s.w.mm, s.va, NPAGES * PAGE, UCOW_MADV_DONTNEED), 0);
		usleep(20);
	}
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(readers[i].thread, NULL);
		CHECK_EQ(readers[i].result, 0);
	}
	for (unsigned i = 0; i < HANDLERS; i++) /* one event ends one handler */
		REQUIRE_EQ(ucow_munmap(s.w.mm, s.va + i * PAGE, PAGE), 0);
	for (unsigned i = 0; i < HANDLERS; i++)
		pthread_join(handlers[i], NULL);
	scene_end(&s);
}

/* One page after another is read by one thread and supplied by another, at the same moment and once. */
struct race {
	struct scene s;
	_Atomic unsigned ready, go; /* rounds */
};

static void meet(struct race *race, unsigned round)
{
	if (atomic_fetch_add(&race->ready, 1) + 1 == 2 * round)
		race->go = round;
	for (unsigned i = 0; race->go < round; i++)
		if (i > 1000)
			sched_yield();
}

static uint64_t page_of_round(const struct race *race, unsigned round)
{
	return race->s.va + round % NPAGES * PAGE;
}

enum { RACES = 5000 };

static void *read_each(void *arg)
{
	struct race *race = arg;
	struct ucow_cpu *cpu = cpu_on(race->s.w.mm);

	for (unsigned round = 1; round <= RACES; round++) {
		uint64_t va = page_of_round(race, round);

		meet(race, round);
		for (unsigned i = 0; i < round % 1024; i++) /* sooner or later than the other */
			atomic_load(&race->go);
		REQUIRE_EQ(get64(cpu, va), pattern_of(va));
		REQUIRE_EQ(ucow_madvise(race->s.w.mm, va, PAGE, UCOW_MADV_DONTNEED), 0);
	}
	ucow_cpu_destroy(cpu);
	return NULL;
}

TEST(no_answer_is_missed)
{
	struct race race = {.go = 0};
	pthread_t reader;

	scene_begin_queue(&race.s, UCOW_UFFD_MISSING);
	REQUIRE_EQ(pthread_create(&reader, NULL, read_each, &race), 0);
	for (unsigned round = 1; round <= RACES; round++) {
		meet(&race, round);
		supply(race.s.uffd, page_of_round(&race, round), 0);
	}
	pthread_join(reader, NULL);
	scene_end(&race.s);
}

/* ---- other policies ---- */

static void scene_begin_policy(struct scene *s, enum ucow_policy policy)
{
	struct ucow_machine_options options = default_options();

	options.policy = policy;
	options.fork_mode = UCOW_FORK_EAGER;
	s->w = world_open_with(&options);
	s->va = map_private(s->w.mm, NPAGES);
	s->uffd = watch(s, 0, true);
	REQUIRE_EQ(ucow_uffd_register(s->uffd, s->va, NPAGES * PAGE, UCOW_UFFD_WP, NULL), 0);
	fill(s->w.cpu, s->va, NPAGES);
	protect(s->uffd, s->va, NPAGES);
}

/*
 * What broke umapsort: where every reference to a private page breaks copy-on-write first, a read pin, for writing the
 * page out, is a store to userfaultfd. Reported as one, it lifts the protection: the page counts as dirty for ever.
 */
TEST(read_pins_lose_the_protection_under_force_cow)
{
	struct ucow_page *page;
	struct scene s;

	scene_begin_policy(&s, UCOW_POLICY_FORCE_COW);
	page = pin_page(s.w.cpu, s.va, 0);
	CHECK_EQ(s.told.wp, 1);
	CHECK(!is_protected(s.w.mm, s.va));
	ucow_unpin_user_pages(&page, 1);
	scene_end(&s);
}

TEST(read_pins_keep_the_protection_elsewhere)
{
	static const enum ucow_policy policies[] = {UCOW_POLICY_EXCLUSIVE, UCOW_POLICY_MAPCOUNT, UCOW_POLICY_REFCOUNT,
						    UCOW_POLICY_REFCOUNT_PIN};

	for (unsigned i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
		struct ucow_page *page;
		struct scene s;

		scene_begin_policy(&s, policies[i]);
		page = pin_page(s.w.cpu, s.va, 0);
		CHECK_EQ(s.told.wp, 0);
		CHECK(is_protected(s.w.mm, s.va));
		ucow_unpin_user_pages(&page, 1);
		scene_end(&s);
	}
}

/*
 * A pinned page is protected and lifted again: where references forbid reuse the next store goes to a copy, and the pin
 * is left with the old page.
 */
static void check_pin_survives_protection(enum ucow_policy policy, bool survives)
{
	struct ucow_page *page;
	struct scene s;

	scene_begin_policy(&s, policy);
	lift(s.uffd, s.va, NPAGES);
	page = pin_page(s.w.cpu, s.va, UCOW_FOLL_WRITE);
	protect(s.uffd, s.va, 1);
	put64(s.w.cpu, s.va, 1234);
	CHECK_EQ(s.told.wp, 1);
	CHECK_EQ(device_read64(page) == 1234, survives);
	ucow_unpin_user_pages(&page, 1);
	scene_end(&s);
}

TEST(protection_of_pinned_pages)
{
	check_pin_survives_protection(UCOW_POLICY_EXCLUSIVE, true);
	CHECK_GO_ON();
	check_pin_survives_protection(UCOW_POLICY_MAPCOUNT, true);
	CHECK_GO_ON();
	check_pin_survives_protection(UCOW_POLICY_REFCOUNT, false);
	CHECK_GO_ON();
	check_pin_survives_protection(UCOW_POLICY_REFCOUNT_PIN, false);
}

/* ---- without memory ---- */

/* The n-th allocation of @run fails, for all n that it comes to: then nothing has changed, or a part, which is told. */
static void check_without_memory(struct scene *s, int (*run)(struct scene *s), void (*undo)(struct scene *s))
{
	for (unsigned n = 1;; n++) {
		bool left;
		int error;

		REQUIRE(n < 200);
		ucow_machine_inject(s->w.machine, UCOW_INJECT_ALL, n);
		error = run(s);
		left = ucow_machine_inject(s->w.machine, UCOW_INJECT_ALL, 0);
		check_invariants(s->w.machine);
		CHECK_GO_ON();
		if (left) {
			CHECK_EQ(error, 0);
			return;
		}
		CHECK(!error || error == -ENOMEM);
		if (!error)
			undo(s);
	}
}

static int run_register(struct scene *s)
{
	return ucow_uffd_register(s->uffd, s->va + 3 * PAGE, 30 * PAGE, UCOW_UFFD_WP | UCOW_UFFD_MISSING, NULL);
}

static void undo_register(struct scene *s)
{
	REQUIRE_EQ(ucow_uffd_unregister(s->uffd, s->va, NPAGES * PAGE), 0);
}

static int run_create(struct scene *s)
{
	const struct ucow_uffd_options options = {.size = sizeof(options)};
	struct ucow_uffd *uffd = NULL;
	int error = ucow_uffd_create(s->w.mm, &options, &uffd);

	if (!error)
		ucow_uffd_close(uffd);
	return error;
}

static void undo_nothing(struct scene *s)
{
	(void)s;
}

TEST(registration_without_memory)
{
	struct scene s;

	scene_begin(&s, false, 0, 0);
	fill(s.w.cpu, s.va, NPAGES);
	check_without_memory(&s, run_create, undo_nothing);
	check_without_memory(&s, run_register, undo_register);
	scene_end(&s);
}

static int run_copy(struct scene *s)
{
	static const char bytes[4 * UCOW_PAGE_SIZE];
	uint64_t done = 0;
	int error = ucow_uffd_copy(s->uffd, s->va, bytes, 4 * PAGE, 0, &done);

	if (error)
		REQUIRE_EQ(ucow_madvise(s->w.mm, s->va, 4 * PAGE, UCOW_MADV_DONTNEED), 0);
	return error;
}

static void undo_copy(struct scene *s)
{
	REQUIRE_EQ(ucow_madvise(s->w.mm, s->va, 4 * PAGE, UCOW_MADV_DONTNEED), 0);
}

static int run_protect(struct scene *s)
{
	return ucow_uffd_writeprotect(s->uffd, s->va, NPAGES * PAGE, UCOW_UFFD_MODE_WP);
}

static void undo_protect(struct scene *s)
{
	lift(s->uffd, s->va, NPAGES);
}

static int run_move(struct scene *s)
{
	uint64_t done;
	int error = ucow_uffd_move(s->uffd, s->va, FAR, 40 * PAGE, 0, &done);

	for (unsigned i = 0; i < 40; i++)
		REQUIRE_EQ(get64(s->w.cpu, (i * PAGE < done ? s->va : FAR) + i * PAGE), i + 1);
	if (error && done)
		REQUIRE_EQ(ucow_uffd_move(s->uffd, FAR, s->va, done, 0, NULL), 0);
	return error;
}

static void undo_move(struct scene *s)
{
	REQUIRE_EQ(ucow_uffd_move(s->uffd, FAR, s->va, 40 * PAGE, 0, NULL), 0);
}

TEST(supplying_without_memory)
{
	struct scene s;

	scene_begin(&s, false, UCOW_UFFD_FEATURE_WP_UNPOPULATED, UCOW_UFFD_MISSING | UCOW_UFFD_WP);
	check_without_memory(&s, run_copy, undo_copy);
	undo_copy(&s);
	check_without_memory(&s, run_protect, undo_protect);
	undo_protect(&s);
	map_at(s.w.mm, FAR, NPAGES, RW, UCOW_MAP_PRIVATE);
	fill(s.w.cpu, FAR, NPAGES);
	REQUIRE_EQ(ucow_uffd_register(s.uffd, FAR, NPAGES * PAGE, UCOW_UFFD_WP, NULL), 0);
	check_without_memory(&s, run_move, undo_move);
	scene_end(&s);
}

static int run_fork(struct scene *s)
{
	struct ucow_mm *child = NULL;
	int error = ucow_fork(s->w.mm, &child);

	if (error)
		return error;
	if (protected_pages(child, s->va) != NPAGES)
		return -EILSEQ;
	exit_child(child);
	ucow_uffd_close(s->told.child);
	return 0;
}

static int run_remap(struct scene *s)
{
	uint64_t to = 0;
	unsigned events = s->told.remaps + s->told.unmaps;
	int error = ucow_mremap(s->w.mm, s->va, NPAGES * PAGE, NPAGES * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED,
				FAR, &to);

	if (error && (s->told.remaps + s->told.unmaps != events || protected_pages(s->w.mm, s->va) != NPAGES))
		return -EILSEQ;
	return error;
}

static void undo_remap(struct scene *s)
{
	uint64_t to = 0;

	REQUIRE_EQ(ucow_mremap(s->w.mm, FAR, NPAGES * PAGE, NPAGES * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED,
			       s->va, &to),
		   0);
}

static int run_unmap(struct scene *s)
{
	unsigned events = s->told.unmaps;
	int error = ucow_munmap(s->w.mm, FAR + PAGE, PAGE);

	return error && s->told.unmaps != events ? -EILSEQ : error;
}

TEST(events_without_memory)
{
	struct scene s;

	scene_begin(&s, false, ALL_EVENTS, UCOW_UFFD_WP);
	fill(s.w.cpu, s.va, NPAGES);
	protect(s.uffd, s.va, NPAGES);
	check_without_memory(&s, run_fork, undo_nothing);
	CHECK_EQ(protected_pages(s.w.mm, s.va), NPAGES);
	check_without_memory(&s, run_remap, undo_remap);
	CHECK_GO_ON();
	CHECK_EQ(protected_pages(s.w.mm, FAR), NPAGES);
	check_without_memory(&s, run_unmap, undo_nothing);
	scene_end(&s);
}

TAP_MAIN()
