/* SPDX-License-Identifier: MIT */
/* get_user_pages and pin_user_pages: flags, refusals, counts, coherence. semantics.md B.5 */
#include "fixture.h"

#include <pthread.h>

/* The six calls as one: which of them is data. */
enum form { GET, GET_FAST, GET_REMOTE, PIN, PIN_FAST, PIN_REMOTE, FORMS };

static const char *const form_names[FORMS] = {"get", "get fast", "get remote", "pin", "pin fast", "pin remote"};

static bool form_pins(enum form form)
{
	return form >= PIN;
}

static bool form_is_fast(enum form form)
{
	return form == GET_FAST || form == PIN_FAST;
}

static long take(struct world *w, enum form form, uint64_t va, size_t n, unsigned flags, struct ucow_page **pages)
{
	switch (form) {
	case GET:
		return ucow_get_user_pages(w->cpu, va, n, flags, pages);
	case GET_FAST:
		return ucow_get_user_pages_fast(w->cpu, va, n, flags, pages);
	case GET_REMOTE:
		return ucow_get_user_pages_remote(w->mm, va, n, flags, pages);
	case PIN:
		return ucow_pin_user_pages(w->cpu, va, n, flags, pages);
	case PIN_FAST:
		return ucow_pin_user_pages_fast(w->cpu, va, n, flags, pages);
	case PIN_REMOTE:
		return ucow_pin_user_pages_remote(w->mm, va, n, flags, pages);
	case FORMS:
		break;
	}
	return -ENOSYS;
}

static void release(enum form form, struct ucow_page **pages, long n)
{
	if (n <= 0)
		return;
	if (form_pins(form))
		ucow_unpin_user_pages(pages, (size_t)n);
	else
		ucow_put_pages(pages, (size_t)n);
}

/* What one call takes; nothing stays taken. */
static long try_take(struct world *w, enum form form, uint64_t va, size_t n, unsigned flags)
{
	struct ucow_page *pages[16];
	long got = take(w, form, va, n, flags, pages);

	release(form, pages, got);
	return got;
}

/* Every combination of flags: refused ones are refused whatever the memory, the others take the page. */
static long wanted_of_flags(enum form form, unsigned flags)
{
	if ((flags & UCOW_FOLL_LONGTERM) && !form_pins(form))
		return -EINVAL;
	if ((flags & UCOW_FOLL_FAST_ONLY) && !form_is_fast(form))
		return -EINVAL;
	if ((flags & UCOW_FOLL_ANON) && form_is_fast(form))
		return -EINVAL;
	return 1;
}

TEST(every_flag_combination_is_taken_or_refused)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);

	put64(w.cpu, va, 7);
	for (int form = 0; form < FORMS; form++)
		for (unsigned flags = 0; flags < 0x80; flags++) {
			long wanted = wanted_of_flags(form, flags), got = try_take(&w, form, va, 1, flags);

			if (got == 0 && (flags & UCOW_FOLL_FAST_ONLY)) /* "maybe 0 pages" */
				continue;
			if (got != wanted)
				printf("# %s, flags %#x\n", form_names[form], flags);
			CHECK_EQ(got, wanted);
		}
	world_close(&w);
}

TEST(unknown_flags_are_refused)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);

	for (int form = 0; form < FORMS; form++)
		for (unsigned bit = 0x80; bit; bit <<= 1)
			CHECK_EQ(try_take(&w, form, va, 1, bit), -EINVAL);
	world_close(&w);
}

TEST(zero_pages_are_refused)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);

	for (int form = 0; form < FORMS; form++)
		CHECK_EQ(try_take(&w, form, va, 0, 0), -EINVAL);
	world_close(&w);
}

struct refusal {
	const char *what;
	unsigned prot;
	bool shared;
	unsigned flags;
	long wanted;
};

/* One page that was written, then given @prot. */
static const struct refusal refusals[] = {
	{"read of readable memory", UCOW_PROT_READ, false, 0, 1},
	{"write to read-only private memory", UCOW_PROT_READ, false, UCOW_FOLL_WRITE, -EFAULT},
	{"forced write to read-only private memory", UCOW_PROT_READ, false, UCOW_FOLL_WRITE | UCOW_FOLL_FORCE, 1},
	{"read of inaccessible memory", UCOW_PROT_NONE, false, 0, -EFAULT},
	{"forced read of inaccessible memory", UCOW_PROT_NONE, false, UCOW_FOLL_FORCE, 1},
	{"forced write to inaccessible private memory", UCOW_PROT_NONE, false, UCOW_FOLL_WRITE | UCOW_FOLL_FORCE, 1},
	{"write to read-only shared memory", UCOW_PROT_READ, true, UCOW_FOLL_WRITE, -EFAULT},
	{"forced write to read-only shared memory", UCOW_PROT_READ, true, UCOW_FOLL_WRITE | UCOW_FOLL_FORCE, -EFAULT},
	{"forced read of inaccessible shared memory", UCOW_PROT_NONE, true, UCOW_FOLL_FORCE, 1},
	{"write to writable shared memory", RW, true, UCOW_FOLL_WRITE, 1},
};

TEST(permissions_and_force)
{
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		const struct refusal *r = &refusals[i];
		struct world w = world_open();
		uint64_t va = r->shared ? map_shared(w.mm, 1) : map_private(w.mm, 1);

		put64(w.cpu, va, 7);
		CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, r->prot), 0);
		for (int form = 0; form < FORMS; form++) {
			long got = try_take(&w, form, va, 1, r->flags);

			if (got != r->wanted)
				printf("# %s, %s\n", form_names[form], r->what);
			CHECK_EQ(got, r->wanted);
			CHECK_EQ(query(w.mm, va).prot, r->prot);
		}
		world_close(&w);
	}
}

TEST(unmapped_addresses_are_refused)
{
	static const uint64_t wild[] = {0, BASE - PAGE, UCOW_ADDRESS_LIMIT, (uint64_t)1 << 52, UINT64_MAX - 4095};
	struct world w = world_open();

	map_private(w.mm, 1);
	for (int form = 0; form < FORMS; form++)
		for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++)
			CHECK_EQ(try_take(&w, form, wild[i], 1, 0), -EFAULT);
	world_close(&w);
}

TEST(anon_flag_refuses_shared_mappings)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 1);

	put64(w.cpu, va, 1);
	CHECK_EQ(try_take(&w, GET, va, 1, UCOW_FOLL_ANON), -EFAULT);
	CHECK_EQ(try_take(&w, PIN_REMOTE, va, 1, UCOW_FOLL_ANON), -EFAULT);
	world_close(&w);
}

/* NOFAULT takes what is there as it is and faults nothing in, also not to unshare. */
TEST(nofault_does_not_fault)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), faults;
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	faults = counted(&w, UCOW_COUNTER_FAULTS);
	CHECK_EQ(try_take(&w, GET, va + PAGE, 1, UCOW_FOLL_NOFAULT), -EFAULT);
	CHECK_EQ(try_take(&w, PIN_FAST, va + PAGE, 1, UCOW_FOLL_NOFAULT), -EFAULT);
	CHECK_EQ(try_take(&w, PIN, va, 1, UCOW_FOLL_NOFAULT | UCOW_FOLL_WRITE), 1);
	CHECK_EQ(try_take(&w, PIN, va, 2, UCOW_FOLL_NOFAULT), 1);
	child = fork_mm(w.mm);
	CHECK_EQ(try_take(&w, PIN, va, 1, UCOW_FOLL_NOFAULT | UCOW_FOLL_WRITE), -EFAULT);
	CHECK_EQ(try_take(&w, PIN, va, 1, UCOW_FOLL_NOFAULT), -EFAULT);
	CHECK_EQ(try_take(&w, GET, va, 1, UCOW_FOLL_NOFAULT), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULTS), faults);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* Present memory is there for the taking without locks; the zero page and absent pages are not. */
TEST(fast_only_does_not_fall_back)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), faults;

	put64(w.cpu, va, 1);
	faults = counted(&w, UCOW_COUNTER_FAULTS);
	CHECK(try_take(&w, PIN_FAST, va + PAGE, 1, UCOW_FOLL_FAST_ONLY) <= 0);
	CHECK(try_take(&w, GET_FAST, va, 1, UCOW_FOLL_FAST_ONLY | UCOW_FOLL_WRITE) >= 0);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULTS), faults);
	CHECK(!query(w.mm, va + PAGE).present);
	world_close(&w);
}

TEST(numa_hints_are_honoured_on_request_only)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_numa_hint(w.mm, va, PAGE), 0);
	CHECK_EQ(try_take(&w, GET, va, 1, 0), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_NUMA), 0);
	CHECK_EQ(try_take(&w, GET, va, 1, UCOW_FOLL_HONOR_NUMA_FAULT), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_NUMA), 1);
	world_close(&w);
}

/* A range with a hole, an end or a forbidden page gives what comes before it; nothing else stays taken. */
TEST(partial_results)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 40);
	struct ucow_machine_stat stat;
	struct ucow_page *pages[64];

	CHECK_EQ(ucow_munmap(w.mm, va + 35 * PAGE, PAGE), 0);
	for (int form = 0; form < FORMS; form++) {
		long got = take(&w, form, va, 40, UCOW_FOLL_WRITE, pages);

		CHECK_EQ(got, 35);
		ucow_machine_stat(w.machine, &stat);
		CHECK_EQ(form_pins(form) ? stat.pins : stat.gets, 35);
		CHECK_EQ(form_pins(form) ? stat.gets : stat.pins, 0);
		release(form, pages, got);
		CHECK_EQ(try_take(&w, form, va + 35 * PAGE, 2, UCOW_FOLL_WRITE), -EFAULT);
		CHECK_EQ(try_take(&w, form, va + 36 * PAGE, 8, UCOW_FOLL_WRITE), 4);
	}
	CHECK_EQ(ucow_mprotect(w.mm, va + 3 * PAGE, PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(try_take(&w, PIN, va, 8, UCOW_FOLL_WRITE), 3);
	CHECK_EQ(try_take(&w, PIN, va, 8, 0), 8);
	world_close(&w);
}

/* Running out of memory in the middle is a partial result, at the start an error. */
TEST(out_of_memory_is_partial_or_an_error)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 8);
	struct ucow_page *pages[8];

	put64(w.cpu, va, 1); /* tables */
	ucow_machine_inject(w.machine, UCOW_INJECT_FRAME, 3);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 8, UCOW_FOLL_WRITE, pages), 3);
	ucow_unpin_user_pages(pages, 3);
	ucow_machine_inject(w.machine, UCOW_INJECT_FRAME, 1);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va + 4 * PAGE, 4, UCOW_FOLL_WRITE, pages), -ENOMEM);
	CHECK_EQ(try_take(&w, PIN, va, 8, UCOW_FOLL_WRITE), 8);
	world_close(&w);
}

TEST(an_address_within_a_page_means_the_page)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	struct ucow_page *page;
	long got;

	put64(w.cpu, va, 7);
	got = ucow_pin_user_pages(w.cpu, va + 100, 1, 0, &page);
	CHECK(got == 1 || got == -EINVAL);
	if (got != 1)
		SKIP("unaligned addresses are refused");
	CHECK_EQ(device_read64(page), 7);
	ucow_unpin_user_pages(&page, 1);
	world_close(&w);
}

/* ---- coherence ---- */

struct coherence {
	const char *what;
	bool fork_before, child_exits; /* before the pin */
	bool fork_after;
	bool detour; /* mprotect to read-only and back after the pin */
};

static const struct coherence coherences[] = {
	{"exclusive page", false, false, false, false},
	{"shared page", true, false, false, false},
	{"previously shared page", true, true, false, false},
	{"fork after the pin", false, false, true, false},
	{"shared page, fork after the pin", true, false, true, false},
	{"mprotect detour", false, false, false, true},
	{"fork after the pin and mprotect detour", false, false, true, true},
	{"previously shared page, all of it", true, true, true, true},
};

/* The kernel's R/O and R/W pin cases (semantics.md A.1.1, 7 to 14): pin and mapping agree whatever came before. */
static void check_coherence(const struct coherence *c, enum form form, unsigned flags)
{
	struct ucow_mm *before = NULL, *after = NULL;
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	if (c->fork_before)
		before = fork_mm(w.mm);
	if (c->child_exits) {
		CHECK_EQ(ucow_mm_destroy(before), 0);
		before = NULL;
	}
	CHECK_EQ(take(&w, form, va, 1, flags, &page), 1);
	CHECK_EQ(device_read64(page), 1);
	if (c->fork_after)
		after = fork_mm(w.mm);
	if (c->detour) {
		CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
		CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, RW), 0);
	}
	put64(w.cpu, va, 2);
	CHECK_EQ(device_read64(page), 2);
	if (flags & UCOW_FOLL_WRITE) {
		device_write64(page, 3);
		CHECK_EQ(get64(w.cpu, va), 3);
	}
	release(form, &page, 1);
	if (before)
		CHECK_EQ(ucow_mm_destroy(before), 0);
	if (after)
		CHECK_EQ(ucow_mm_destroy(after), 0);
	world_close(&w);
}

TEST(pins_stay_coherent_with_the_mapping)
{
	static const unsigned flags[] = {0, UCOW_FOLL_WRITE, UCOW_FOLL_LONGTERM, UCOW_FOLL_LONGTERM | UCOW_FOLL_WRITE};

	for (size_t i = 0; i < sizeof(coherences) / sizeof(coherences[0]); i++)
		for (int form = PIN; form < FORMS; form++)
			for (size_t k = 0; k < 4; k++) {
				check_coherence(&coherences[i], form, flags[k]);
				if (tap_failed)
					printf("# %s, %s, flags %#x\n", coherences[i].what, form_names[form], flags[k]);
				CHECK_GO_ON();
			}
}

/* An unshare for a read pin leaves the entry read-only and does not dirty it. */
TEST(read_pin_of_a_shared_page_unshares_it_read_only)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), pfn;
	struct ucow_mm *child;
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	child = fork_mm(w.mm);
	pfn = query(child, va).pfn;
	page = pin_page(w.cpu, va, 0);
	CHECK_EQ(counted(&w, UCOW_COUNTER_UNSHARE), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_UNSHARE_COPY), 1);
	CHECK(query(w.mm, va).exclusive && !query(w.mm, va).writable);
	CHECK(query(w.mm, va).pfn != pfn);
	CHECK(query(child, va).pfn == pfn && !query(child, va).exclusive);
	ucow_unpin_user_pages(&page, 1);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(read_pin_after_the_child_has_gone_unshares_in_place)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), pfn;
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	pfn = query(w.mm, va).pfn;
	CHECK_EQ(ucow_mm_destroy(fork_mm(w.mm)), 0);
	page = pin_page(w.cpu, va, 0);
	CHECK_EQ(counted(&w, UCOW_COUNTER_UNSHARE), fork_is_lazy() ? 0 : 1); /* exclusive again without it */
	CHECK_EQ(counted(&w, UCOW_COUNTER_UNSHARE_COPY), 0);
	CHECK(query(w.mm, va).pfn == pfn && query(w.mm, va).exclusive);
	CHECK_EQ(query(w.mm, va).writable, fork_is_lazy());
	ucow_unpin_user_pages(&page, 1);
	world_close(&w);
}

/* A plain get promises less, and costs less: the shared page is taken as it is. */
TEST(read_get_takes_a_shared_page_as_it_is)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_mm *child;
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	child = fork_mm(w.mm);
	page = get_page(w.cpu, va, 0);
	CHECK_EQ(counted(&w, UCOW_COUNTER_UNSHARE), 0);
	CHECK_EQ(query(w.mm, va).pfn, query(child, va).pfn);
	put64(w.cpu, va, 2);
	CHECK_EQ(device_read64(page), 1); /* the vmsplice case: the holder must not see the later secret */
	ucow_put_pages(&page, 1);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* CVE-2020-29374: child takes a reference and goes; the parent's later secret must not appear behind it. */
TEST(get_of_a_dead_child_does_not_see_the_parent)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page;
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	child = fork_mm(w.mm);
	CHECK_EQ(ucow_get_user_pages_remote(child, va, 1, 0, &page), 1);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	put64(w.cpu, va, 0x5ec7e7);
	CHECK_EQ(device_read64(page), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_COPY_REFERENCED), 1);
	ucow_put_pages(&page, 1);
	world_close(&w);
}

TEST(get_of_an_exclusive_page_stays_coherent)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	page = get_page(w.cpu, va, 0);
	put64(w.cpu, va, 2);
	CHECK_EQ(device_read64(page), 2);
	ucow_put_pages(&page, 1);
	world_close(&w);
}

/* FOLL_FORCE writes a page that is then dirty but never writable: semantics.md A.7, mkdirty. */
TEST(forced_write_leaves_the_entry_read_only)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_entry_info e;
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
	page = get_page(w.cpu, va, UCOW_FOLL_WRITE | UCOW_FOLL_FORCE);
	device_write64(page, 2);
	ucow_put_pages(&page, 1);
	e = query(w.mm, va);
	CHECK(e.dirty && !e.writable && e.exclusive);
	CHECK_EQ(ucow_store_u64(w.cpu, va, 3), -EFAULT);
	CHECK_EQ(get64(w.cpu, va), 2);
	world_close(&w);
}

TEST(forced_write_breaks_copy_on_write)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_mm *child;
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
	child = fork_mm(w.mm);
	page = get_page(w.cpu, va, UCOW_FOLL_WRITE | UCOW_FOLL_FORCE);
	device_write64(page, 2);
	ucow_put_pages(&page, 1);
	CHECK(query(w.mm, va).dirty && !query(w.mm, va).writable);
	CHECK_EQ(get64(w.cpu, va), 2);
	ucow_cpu_attach(w.cpu, child);
	CHECK_EQ(get64(w.cpu, va), 1);
	ucow_cpu_attach(w.cpu, w.mm);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* The forced write must not be let through to the zero page, everybody's zeros. */
TEST(forced_write_to_untouched_memory)
{
	struct world w = world_open();
	uint64_t va = map_at(w.mm, BASE, 2, UCOW_PROT_READ, UCOW_MAP_PRIVATE);
	struct ucow_page *page;

	CHECK_EQ(get64(w.cpu, va), 0);
	page = get_page(w.cpu, va, UCOW_FOLL_WRITE | UCOW_FOLL_FORCE);
	device_write64(page, 2);
	ucow_put_pages(&page, 1);
	CHECK_EQ(get64(w.cpu, va), 2);
	CHECK_EQ(get64(w.cpu, va + PAGE), 0);
	world_close(&w);
}

/* A reference for writing dirties the entry: what was freed lazily must not be dropped under a device that writes. */
TEST(references_touch_the_entry)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_FREE), 0);
	CHECK(!query(w.mm, va).dirty && !query(w.mm, va).accessed);
	CHECK_EQ(try_take(&w, GET, va, 1, 0), 1);
	CHECK(!query(w.mm, va).dirty && query(w.mm, va).accessed);
	CHECK_EQ(try_take(&w, PIN, va, 1, UCOW_FOLL_WRITE), 1);
	CHECK(query(w.mm, va).dirty);
	child = fork_mm(w.mm);
	CHECK_EAGER(!query(child, va).accessed);
	ucow_cpu_attach(w.cpu, child);
	CHECK_EQ(try_take(&w, GET_FAST, va, 1, 0), 1);
	CHECK(query(child, va).accessed);
	ucow_cpu_attach(w.cpu, w.mm);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* ---- zero page ---- */

/* Short-term read pins of the zero page are a pretence: no counts, no frames. */
TEST(zero_page_is_pinned_in_pretence)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_machine_stat stat;
	struct ucow_page *page;

	page = pin_page(w.cpu, va, 0);
	CHECK(query(w.mm, va).zero_page);
	CHECK_EQ(device_read64(page), 0);
	CHECK(!ucow_page_maybe_dma_pinned(page));
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 0);
	put64(w.cpu, va, 1);
	CHECK_EQ(device_read64(page), 0);
	ucow_unpin_user_pages(&page, 1);
	ucow_unpin_user_pages_dirty_lock(&page, 0, true);
	world_close(&w);
}

/* Many more pins than a reference count could hold. */
TEST(zero_page_pins_do_not_overflow)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);

	for (unsigned i = 0; i < 3000; i++) {
		struct ucow_page *page = pin_page(w.cpu, va, 0);

		(void)page; /* kept: all are released below through the same descriptor */
	}
	for (unsigned i = 0; i < 3000; i++) {
		struct ucow_page *page = pin_page(w.cpu, va, 0);

		ucow_unpin_user_pages(&page, 1);
		ucow_unpin_user_pages(&page, 1);
	}
	world_close(&w);
}

/* Long-term: the mapping gets a page of its own, which then sees the writes. */
TEST(long_term_pin_of_the_zero_page_gets_a_page)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	struct ucow_page *page;

	CHECK_EQ(get64(w.cpu, va), 0);
	for (int form = PIN; form <= PIN_FAST; form++) {
		CHECK_EQ(take(&w, form, va, 1, UCOW_FOLL_LONGTERM, &page), 1);
		CHECK(!query(w.mm, va).zero_page && query(w.mm, va).exclusive);
		put64(w.cpu, va, 5);
		CHECK_EQ(device_read64(page), 5);
		ucow_unpin_user_pages(&page, 1);
		va += PAGE;
	}
	world_close(&w);
}

/* ---- counts ---- */

TEST(counts_are_what_was_taken)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *pin, *get;
	struct ucow_mm_stat stat;

	put64(w.cpu, va, 1);
	CHECK_EQ(query(w.mm, va).refcount, 1);
	get = get_page(w.cpu, va, 0);
	CHECK_EQ(query(w.mm, va).refcount, 2);
	CHECK(!query(w.mm, va).maybe_pinned);
	pin = pin_page(w.cpu, va, UCOW_FOLL_WRITE);
	CHECK(pin == get);
	CHECK_EQ(query(w.mm, va).refcount, 2 + UCOW_GUP_PIN_COUNTING_BIAS);
	CHECK(query(w.mm, va).maybe_pinned && ucow_page_maybe_dma_pinned(pin));
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.pinned, 1);
	CHECK(stat.has_pinned);
	check_invariants(w.machine);
	ucow_put_pages(&get, 1);
	ucow_unpin_user_pages(&pin, 1);
	CHECK_EQ(query(w.mm, va).refcount, 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_PINS), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_UNPINS), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_GETS), 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_PUTS), 1);
	world_close(&w);
}

TEST(a_page_can_be_pinned_many_times)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *pages[200];
	struct ucow_mm_stat stat;

	for (unsigned i = 0; i < 200; i++)
		pages[i] = pin_page(w.cpu, va, i % 2 ? UCOW_FOLL_WRITE : UCOW_FOLL_LONGTERM);
	for (unsigned i = 0; i < 200; i++) {
		CHECK(pages[i] == pages[0]);
		CHECK(ucow_page_maybe_dma_pinned(pages[0]));
		ucow_unpin_user_pages(&pages[i], 1);
		ucow_mm_stat(w.mm, &stat);
		CHECK_EQ(stat.pinned, 199 - i);
	}
	CHECK(!query(w.mm, va).maybe_pinned);
	world_close(&w);
}

/* A count never wraps: in the end the pin is refused, and everything can be released. */
TEST(pin_counts_do_not_overflow)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	enum { MANY = 3000000 };
	struct ucow_page *page = NULL;
	unsigned pins = 0;
	long got = 1;

	put64(w.cpu, va, 1);
	while (pins < MANY && (got = ucow_pin_user_pages(w.cpu, va, 1, UCOW_FOLL_WRITE, &page)) == 1)
		pins++;
	CHECK_EQ(got, -ENOMEM); /* 2^31 references of 1,024 are two million pins */
	CHECK(pins >= 1000);
	check_invariants(w.machine);
	put64(w.cpu, va, 2);
	CHECK_EQ(ucow_get_user_pages(w.cpu, va, 1, 0, &page), 1);
	ucow_put_pages(&page, 1);
	for (; pins; pins--)
		ucow_unpin_user_pages(&page, 1);
	world_close(&w);
}

/* Order-0 pages with a pin's worth of plain references look pinned; nothing worse follows. */
TEST(many_references_are_taken_for_a_pin)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	static struct ucow_page *pages[1100];
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	for (unsigned i = 0; i < 1100; i++)
		pages[i] = get_page(w.cpu, va, 0);
	CHECK(ucow_page_maybe_dma_pinned(pages[0]));
	CHECK(query(w.mm, va).maybe_pinned);
	child = fork_mm(w.mm); /* has never pinned: shared as usual */
	CHECK_EQ(counted(&w, UCOW_COUNTER_EARLY_COPY), 0);
	CHECK_EQ(query(w.mm, va).pfn, query(child, va).pfn);
	ucow_put_pages(pages, 1100);
	CHECK(!query(w.mm, va).maybe_pinned);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* Eleven hundred children are no pin: false positives cost copies at most, never sharing or bytes. */
TEST(eleven_hundred_children_are_a_false_positive)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	static struct ucow_mm *kids[1100];
	struct ucow_page *page;

	put64(w.cpu, va, 7);
	page = pin_page(w.cpu, va + PAGE, UCOW_FOLL_WRITE); /* has_pinned */
	ucow_unpin_user_pages(&page, 1);
	for (unsigned i = 0; i < 1100; i++)
		kids[i] = fork_mm(w.mm);
	CHECK_EQ(query(w.mm, va).maybe_pinned, !fork_is_lazy());  /* that counts nothing */
	CHECK_EQ(query(w.mm, va).pfn, query(kids[1099], va).pfn); /* not exclusive: shared all the same */
	put64(w.cpu, va, 8);
	ucow_cpu_attach(w.cpu, kids[1099]);
	CHECK_EQ(get64(w.cpu, va), 7);
	ucow_cpu_attach(w.cpu, w.mm);
	CHECK_EQ(get64(w.cpu, va), 8);
	check_invariants(w.machine);
	for (unsigned i = 0; i < 1100; i++)
		CHECK_EQ(ucow_mm_destroy(kids[i]), 0);
	world_close(&w);
}

/* ---- limits ---- */

TEST(pin_limit_is_exact)
{
	struct ucow_machine_options options = default_options();
	struct ucow_page *pages[8];
	struct ucow_mm_stat stat;
	struct ucow_mm *child;
	struct world w;
	uint64_t va;

	options.pin_limit = 3;
	w = world_open_with(&options);
	va = map_private(w.mm, 8);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 2, UCOW_FOLL_WRITE, pages), 2);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va + 2 * PAGE, 1, UCOW_FOLL_WRITE, pages + 2), 1);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va + 3 * PAGE, 1, UCOW_FOLL_WRITE, pages + 3), -ENOMEM);
	CHECK_EQ(ucow_pin_user_pages_fast(w.cpu, va, 1, UCOW_FOLL_WRITE, pages + 3), -ENOMEM);
	CHECK_EQ(ucow_get_user_pages(w.cpu, va, 1, 0, pages + 3), 1); /* gets are not pins */
	ucow_put_pages(pages + 3, 1);
	child = fork_mm(w.mm); /* children have the limit, not the pins */
	CHECK_EQ(ucow_pin_user_pages_remote(child, va, 4, 0, pages + 3), 3);
	CHECK_EQ(ucow_pin_user_pages_remote(child, va, 1, 0, pages + 6), -ENOMEM);
	ucow_unpin_user_pages(pages + 3, 3);
	ucow_unpin_user_pages(pages, 1);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 1, UCOW_FOLL_WRITE, pages), 1);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.pinned, 3);
	ucow_mm_set_pin_limit(w.mm, 0);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 5, UCOW_FOLL_WRITE, pages + 3), 5);
	ucow_unpin_user_pages(pages, 8);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* A limit below what is held refuses new pins and takes none away. */
TEST(lowered_limit_keeps_what_is_held)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	struct ucow_page *pages[4];

	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 3, UCOW_FOLL_WRITE, pages), 3);
	ucow_mm_set_pin_limit(w.mm, 1);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 1, UCOW_FOLL_WRITE, pages + 3), -ENOMEM);
	ucow_unpin_user_pages(pages, 3);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 4, UCOW_FOLL_WRITE, pages), 1);
	ucow_unpin_user_pages(pages, 1);
	world_close(&w);
}

/* ---- release ---- */

struct late_unpin {
	struct ucow_page **pages;
	size_t n;
};

static void *unpin_later(void *arg)
{
	const struct late_unpin *late = arg;

	device_write64(late->pages[0], 99);
	ucow_unpin_user_pages_dirty_lock(late->pages, late->n, true);
	return NULL;
}

/* The page outlives the mapping and the space, and whoever holds it releases it from wherever. */
TEST(unpin_from_another_thread_after_the_space_is_gone)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	struct ucow_page *pages[4];
	struct late_unpin late = {pages, 4};
	struct ucow_machine_stat stat;
	pthread_t thread;

	put64(w.cpu, va, 7);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 4, UCOW_FOLL_WRITE, pages), 4);
	exit_mm(w.cpu, w.mm);
	w.cpu = NULL;
	w.mm = NULL;
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 4);
	CHECK_EQ(stat.spaces, 0);
	CHECK_EQ(device_read64(pages[0]), 7);
	check_invariants(w.machine);
	CHECK_EQ(pthread_create(&thread, NULL, unpin_later, &late), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	world_close(&w);
}

TEST(pinned_page_outlives_its_mapping)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page;

	put64(w.cpu, va, 7);
	page = pin_page(w.cpu, va, UCOW_FOLL_WRITE);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(get64(w.cpu, va), 0);
	CHECK_EQ(device_read64(page), 7);
	put64(w.cpu, va, 8);
	device_write64(page, 9);
	CHECK_EQ(get64(w.cpu, va), 8);
	CHECK_EQ(ucow_munmap(w.mm, va, PAGE), 0);
	CHECK_EQ(device_read64(page), 9);
	ucow_unpin_user_pages(&page, 1);
	world_close(&w);
}

/* Pins of one page through several spaces: each space's count is its own. */
TEST(pins_are_counted_where_they_were_taken)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 1);
	struct ucow_mm *child = fork_mm(w.mm);
	struct ucow_page *mine[3], *theirs[2];
	struct ucow_mm_stat stat;

	for (unsigned i = 0; i < 3; i++)
		mine[i] = pin_page(w.cpu, va, UCOW_FOLL_WRITE);
	for (unsigned i = 0; i < 2; i++)
		CHECK_EQ(ucow_pin_user_pages_remote(child, va, 1, UCOW_FOLL_WRITE, &theirs[i]), 1);
	CHECK(mine[0] == theirs[0]);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.pinned, 3);
	ucow_mm_stat(child, &stat);
	CHECK_EQ(stat.pinned, 2);
	check_invariants(w.machine);
	ucow_unpin_user_pages(mine, 3);
	ucow_unpin_user_pages(theirs, 2);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.pinned, 0);
	ucow_mm_stat(child, &stat);
	CHECK_EQ(stat.pinned, 0);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* Released through the right space in any order, every count stays exact. */
TEST(remote_unpin_keeps_every_count_exact)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 2);
	struct ucow_mm *child = fork_mm(w.mm);
	struct ucow_page *mine[2], *theirs[2];
	struct ucow_mm_stat stat;

	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 2, UCOW_FOLL_WRITE, mine), 2);
	CHECK_EQ(ucow_pin_user_pages_remote(child, va, 2, UCOW_FOLL_WRITE, theirs), 2);
	ucow_unpin_user_pages_remote(child, theirs, 2); /* the later pins first */
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.pinned, 2);
	ucow_mm_stat(child, &stat);
	CHECK_EQ(stat.pinned, 0);
	CHECK(ucow_page_maybe_dma_pinned(mine[0]));
	check_invariants(w.machine);
	ucow_unpin_user_pages_remote(w.mm, mine, 2);
	CHECK(!query(w.mm, va).maybe_pinned);
	ucow_mm_stat(w.mm, &stat);
	CHECK_EQ(stat.pinned, 0);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(unpin_dirty_dirties_and_plain_unpin_does_not)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	page = pin_page(w.cpu, va, UCOW_FOLL_WRITE);
	ucow_unpin_user_pages_dirty_lock(&page, 1, true);
	page = pin_page(w.cpu, va, 0);
	ucow_unpin_user_pages_dirty_lock(&page, 1, false);
	CHECK(query(w.mm, va).dirty);
	CHECK_EQ(query(w.mm, va).refcount, 1);
	CHECK_EQ(counted(&w, UCOW_COUNTER_UNPINS), 2);
	world_close(&w);
}

/* Dirtying takes the page lock and gives it back. */
TEST(page_lock_is_free_after_unpin_dirty)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page = pin_page(w.cpu, va, UCOW_FOLL_WRITE), *other = pin_page(w.cpu, va, UCOW_FOLL_WRITE);

	ucow_unpin_user_pages_dirty_lock(&page, 1, true);
	CHECK(ucow_page_trylock(other));
	CHECK(!ucow_page_trylock(other));
	ucow_page_unlock(other);
	ucow_unpin_user_pages(&other, 1);
	world_close(&w);
}

/* Today's rules never wait for a page lock: a scanner that holds it costs a copy at most. [INV-LOCK-1] */
TEST(held_page_lock_costs_a_copy_of_a_once_shared_page_only)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), pfn;
	struct ucow_page *pages[2];

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_mm_destroy(fork_mm(w.mm)), 0);
	put64(w.cpu, va + PAGE, 1);
	CHECK_EQ(ucow_get_user_pages(w.cpu, va, 2, 0, pages), 2);
	CHECK(ucow_page_trylock(pages[0]) && ucow_page_trylock(pages[1]));
	pfn = query(w.mm, va + PAGE).pfn;
	CHECK_EQ(ucow_mprotect(w.mm, va, 2 * PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va, 2 * PAGE, RW), 0);
	put64(w.cpu, va, 2);
	put64(w.cpu, va + PAGE, 2);
	CHECK_EQ(query(w.mm, va + PAGE).pfn, pfn);
	ucow_page_unlock(pages[0]);
	ucow_page_unlock(pages[1]);
	ucow_put_pages(pages, 2);
	world_close(&w);
}

static bool give_up_waiting(void *arg, struct ucow_page *page)
{
	unsigned *calls = arg;

	REQUIRE(page != NULL);
	++*calls;
	return false;
}

/* The older rules wait; the callback may decline, then nothing has changed. */
TEST(waiting_for_a_page_lock_can_be_declined)
{
	struct ucow_machine_options options = default_options();
	unsigned calls = 0;
	struct ucow_page *page;
	struct world w;
	uint64_t va;

	options.policy = UCOW_POLICY_MAPCOUNT;
	options.fork_mode = UCOW_FORK_EAGER;
	options.on_page_lock_wait = give_up_waiting;
	options.arg = &calls;
	w = world_open_with(&options);
	va = map_private(w.mm, 1);
	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_mm_destroy(fork_mm(w.mm)), 0);
	page = get_page(w.cpu, va, 0);
	CHECK(ucow_page_trylock(page));
	CHECK_EQ(ucow_store_u64(w.cpu, va, 2), -EDEADLK);
	CHECK(calls >= 1);
	CHECK_EQ(get64(w.cpu, va), 1);
	ucow_page_unlock(page);
	CHECK_EQ(ucow_store_u64(w.cpu, va, 2), 0);
	ucow_put_pages(&page, 1);
	world_close(&w);
}

struct lock_holder {
	pthread_t thread;
	struct ucow_page *page;
	bool started;
	unsigned calls;
};

static void *unlock_later(void *arg)
{
	struct lock_holder *holder = arg;

	ucow_page_unlock(holder->page);
	return NULL;
}

/* The fault waits from here on: let the holder go. */
static bool start_unlocking(void *arg, struct ucow_page *page)
{
	struct lock_holder *holder = arg;

	REQUIRE(page == holder->page);
	holder->calls++;
	if (!holder->started)
		REQUIRE_EQ(pthread_create(&holder->thread, NULL, unlock_later, holder), 0);
	holder->started = true;
	return true;
}

/* Both policies that wait get the page in place once it is unlocked, and leave it unlocked. */
TEST(waiting_for_a_page_lock_ends_in_reuse)
{
	static const enum ucow_policy policies[] = {UCOW_POLICY_MAPCOUNT, UCOW_POLICY_FORCE_COW};

	for (int i = 0; i < 2; i++) {
		struct ucow_machine_options options = default_options();
		struct lock_holder holder = {0};
		struct world w;
		uint64_t va;

		options.policy = policies[i];
		options.fork_mode = UCOW_FORK_EAGER;
		options.on_page_lock_wait = start_unlocking;
		options.arg = &holder;
		w = world_open_with(&options);
		va = map_private(w.mm, 1);
		put64(w.cpu, va, 1);
		holder.page = get_page(w.cpu, va, 0);
		CHECK_EQ(ucow_mm_destroy(fork_mm(w.mm)), 0);
		CHECK(ucow_page_trylock(holder.page));
		put64(w.cpu, va, 2);
		CHECK(holder.started && holder.calls >= 1);
		CHECK_EQ(pthread_join(holder.thread, NULL), 0);
		CHECK_EQ(device_read64(holder.page), 2);
		CHECK(ucow_page_trylock(holder.page));
		ucow_page_unlock(holder.page);
		ucow_put_pages(&holder.page, 1);
		world_close(&w);
	}
}

TEST(page_address_is_stable_and_the_mappings_bytes)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page = pin_page(w.cpu, va, UCOW_FOLL_WRITE);
	void *address = ucow_page_address(page);

	CHECK((uintptr_t)address % 4096 == 0);
	for (unsigned i = 0; i < 100; i++) {
		put64(w.cpu, va + 8 * i, i);
		CHECK_EQ(((uint64_t *)address)[i], i);
	}
	CHECK_EQ(ucow_mm_destroy(fork_mm(w.mm)), 0);
	CHECK(ucow_page_address(page) == address);
	ucow_unpin_user_pages(&page, 1);
	world_close(&w);
}

TAP_MAIN()
