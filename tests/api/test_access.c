/* SPDX-License-Identifier: MIT */
/* Loads, stores, compare-exchange and spans through a cpu. */
#include "fixture.h"

TEST(every_size_loads_what_it_stored)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), v64 = 0;
	uint32_t v32 = 0;
	uint16_t v16 = 0;
	uint8_t v8 = 0;

	CHECK_EQ(ucow_store_u64(w.cpu, va, 0x1122334455667788), 0);
	CHECK_EQ(ucow_load_u8(w.cpu, va, &v8), 0);
	CHECK_EQ(v8, 0x88);
	CHECK_EQ(ucow_load_u16(w.cpu, va + 2, &v16), 0);
	CHECK_EQ(v16, 0x5566);
	CHECK_EQ(ucow_load_u32(w.cpu, va + 4, &v32), 0);
	CHECK_EQ(v32, 0x11223344);
	CHECK_EQ(ucow_store_u8(w.cpu, va, 0xaa), 0);
	CHECK_EQ(ucow_store_u16(w.cpu, va + 2, 0xbbbb), 0);
	CHECK_EQ(ucow_store_u32(w.cpu, va + 4, 0xcccccccc), 0);
	CHECK_EQ(ucow_load_u64(w.cpu, va, &v64), 0);
	CHECK_EQ(v64, 0xccccccccbbbb77aa);
	world_close(&w);
}

/* Unaligned, within a page and over its end, cached and not: the same bytes. */
TEST(unaligned_accesses_see_the_same_bytes)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), value;
	uint8_t bytes[32];

	for (uint8_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = i + 1;
	for (int pass = 0; pass < 2; pass++)
		for (uint64_t at = va + PAGE - 16; at <= va + PAGE + 8; at++) {
			uint64_t wanted;

			CHECK_EQ(ucow_write(w.cpu, va + PAGE - 16, bytes, sizeof(bytes), NULL), 0);
			memcpy(&wanted, bytes + (at - va - PAGE + 16), 8);
			CHECK_EQ(ucow_load_u64(w.cpu, at, &value), 0);
			CHECK_EQ(value, wanted);
			CHECK_EQ(ucow_store_u64(w.cpu, at, ~wanted), 0);
			CHECK_EQ(ucow_load_u64(w.cpu, at, &value), 0);
			CHECK_EQ(value, ~wanted);
			CHECK_EQ(get64(w.cpu, at), ~wanted);
		}
	world_close(&w);
}

TEST(long_transfers_cross_pages_and_tables)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 80);
	static uint8_t out[70 * 4096], in[sizeof(out)];
	uint64_t state = tap_seed();
	size_t done = 0;

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)draw(&state);
	CHECK_EQ(ucow_write(w.cpu, va + 1234, out, sizeof(out), &done), 0);
	CHECK_EQ(done, sizeof(out));
	CHECK_EQ(ucow_read(w.cpu, va + 1234, in, sizeof(in), &done), 0);
	CHECK_EQ(done, sizeof(in));
	CHECK(memcmp(in, out, sizeof(in)) == 0);
	world_close(&w);
}

TEST(failing_transfers_say_how_far_they_got)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	uint8_t bytes[3 * 4096];
	size_t done = 99;

	memset(bytes, 7, sizeof(bytes));
	CHECK_EQ(ucow_write(w.cpu, va + 100, bytes, sizeof(bytes), &done), -EFAULT);
	CHECK_EQ(done, 2 * PAGE - 100);
	CHECK_EQ(ucow_read(w.cpu, va + PAGE + 100, bytes, sizeof(bytes), &done), -EFAULT);
	CHECK_EQ(done, PAGE - 100);
	CHECK_EQ(ucow_read(w.cpu, va - 8, bytes, 16, &done), -EFAULT);
	CHECK_EQ(done, 0);
	CHECK_EQ(ucow_mprotect(w.mm, va + PAGE, PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_write(w.cpu, va + PAGE - 10, bytes, 20, &done), -EFAULT);
	CHECK_EQ(done, 10);
	CHECK_EQ(ucow_read(w.cpu, va, bytes, 2 * PAGE, NULL), 0);
	world_close(&w);
}

TEST(transfers_of_nothing_succeed_anywhere)
{
	struct world w = world_open();
	size_t done = 99;

	CHECK_EQ(ucow_read(w.cpu, BASE, NULL, 0, &done), 0);
	CHECK_EQ(done, 0);
	CHECK_EQ(ucow_write(w.cpu, BASE, NULL, 0, &done), 0);
	CHECK_EQ(done, 0);
	world_close(&w);
}

/* Addresses outside the space are refused, also those whose end wraps around. */
TEST(wild_addresses_are_refused)
{
	static const uint64_t wild[] = {0,
					UCOW_ADDRESS_MIN - 8,
					UCOW_ADDRESS_LIMIT,
					(uint64_t)1 << 48,
					(uint64_t)1 << 63,
					UINT64_MAX - 7,
					UINT64_MAX};
	struct world w = world_open();
	uint64_t value = 0;
	bool exchanged;
	void *span;

	map_at(w.mm, UCOW_ADDRESS_LIMIT - PAGE, 1, RW, UCOW_MAP_PRIVATE);
	for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
		CHECK_EQ(ucow_load_u64(w.cpu, wild[i], &value), -EFAULT);
		CHECK_EQ(ucow_store_u64(w.cpu, wild[i], 1), -EFAULT);
		CHECK_EQ(ucow_read(w.cpu, wild[i], &value, 8, NULL), -EFAULT);
		CHECK_EQ(ucow_write(w.cpu, wild[i], &value, 8, NULL), -EFAULT);
		CHECK(ucow_cmpxchg_u64(w.cpu, wild[i], &value, 1, &exchanged) < 0);
		CHECK(ucow_span_begin(w.cpu, wild[i], 8, false, &span) < 0);
	}
	/* An address that differs from a mapped one only above bit 47 is not that address. */
	put64(w.cpu, UCOW_ADDRESS_LIMIT - PAGE, 7);
	CHECK_EQ(ucow_load_u64(w.cpu, (UCOW_ADDRESS_LIMIT - PAGE) | (uint64_t)1 << 52, &value), -EFAULT);
	world_close(&w);
}

TEST(permissions_are_obeyed)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 3), value, expected = 0, sigsegv;
	bool exchanged;
	void *span;

	CHECK_EQ(ucow_mprotect(w.mm, va + PAGE, PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_mprotect(w.mm, va + 2 * PAGE, PAGE, UCOW_PROT_NONE), 0);
	CHECK_EQ(ucow_load_u64(w.cpu, va + PAGE, &value), 0);
	sigsegv = counted(&w, UCOW_COUNTER_FAULT_SIGSEGV);
	CHECK_EQ(ucow_store_u64(w.cpu, va + PAGE, 1), -EFAULT);
	CHECK_EQ(ucow_cmpxchg_u64(w.cpu, va + PAGE, &expected, 1, &exchanged), -EFAULT);
	CHECK_EQ(ucow_span_begin(w.cpu, va + PAGE, 8, true, &span), -EFAULT);
	CHECK_EQ(ucow_load_u64(w.cpu, va + 2 * PAGE, &value), -EFAULT);
	CHECK_EQ(ucow_store_u64(w.cpu, va + 2 * PAGE, 1), -EFAULT);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_SIGSEGV), sigsegv + 5);
	CHECK_EQ(ucow_span_begin(w.cpu, va + PAGE, 8, false, &span), 0);
	ucow_span_end(w.cpu);
	world_close(&w);
}

TEST(compare_exchange_exchanges_only_what_it_expects)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), e64 = 0;
	uint32_t e32 = 5;
	uint16_t e16 = 0x1234;
	uint8_t e8 = 9;
	bool exchanged = false;

	CHECK_EQ(ucow_cmpxchg_u64(w.cpu, va, &e64, 5, &exchanged), 0);
	CHECK(exchanged && e64 == 0);
	CHECK_EQ(ucow_cmpxchg_u64(w.cpu, va, &e64, 6, &exchanged), 0);
	CHECK(!exchanged && e64 == 5);
	CHECK_EQ(get64(w.cpu, va), 5);
	CHECK_EQ(ucow_cmpxchg_u32(w.cpu, va, &e32, 7, &exchanged), 0);
	CHECK(exchanged);
	CHECK_EQ(ucow_cmpxchg_u16(w.cpu, va + 2, &e16, 1, &exchanged), 0);
	CHECK(!exchanged && e16 == 0);
	CHECK_EQ(ucow_cmpxchg_u8(w.cpu, va, &e8, 1, &exchanged), 0);
	CHECK(!exchanged && e8 == 7);
	CHECK_EQ(get64(w.cpu, va), 7);
	world_close(&w);
}

TEST(compare_exchange_wants_alignment)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), e64 = 0;
	uint32_t e32 = 0;
	uint16_t e16 = 0;
	bool exchanged;

	for (int cached = 0; cached < 2; cached++) {
		CHECK_EQ(ucow_cmpxchg_u64(w.cpu, va + 4, &e64, 1, &exchanged), -EINVAL);
		CHECK_EQ(ucow_cmpxchg_u64(w.cpu, va + PAGE - 4, &e64, 1, &exchanged), -EINVAL);
		CHECK_EQ(ucow_cmpxchg_u32(w.cpu, va + 2, &e32, 1, &exchanged), -EINVAL);
		CHECK_EQ(ucow_cmpxchg_u16(w.cpu, va + 1, &e16, 1, &exchanged), -EINVAL);
		put64(w.cpu, va, 0);
	}
	world_close(&w);
}

/* A compare-exchange that declines does not write to a page shared by fork either. */
TEST(compare_exchange_breaks_copy_on_write)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), expected = 1;
	struct ucow_mm *child;
	bool exchanged;

	put64(w.cpu, va, 1);
	child = fork_mm(w.mm);
	CHECK_EQ(ucow_cmpxchg_u64(w.cpu, va, &expected, 2, &exchanged), 0);
	CHECK(exchanged);
	CHECK_EQ(get64(w.cpu, va), 2);
	ucow_cpu_attach(w.cpu, child);
	CHECK_EQ(get64(w.cpu, va), 1);
	ucow_cpu_attach(w.cpu, w.mm);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(spans_are_the_page)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	void *span = NULL;

	CHECK_EQ(ucow_span_begin(w.cpu, va, PAGE, true, &span), 0);
	memset(span, 0x5a, PAGE);
	ucow_span_end(w.cpu);
	CHECK_EQ(get64(w.cpu, va + PAGE - 8), 0x5a5a5a5a5a5a5a5a);
	CHECK_EQ(ucow_span_begin(w.cpu, va + 100, 8, false, &span), 0);
	CHECK(memcmp(span, "ZZZZZZZZ", 8) == 0);
	ucow_span_end(w.cpu);
	world_close(&w);
}

TEST(spans_do_not_cross_pages)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	void *span;

	CHECK_EQ(ucow_span_begin(w.cpu, va + PAGE - 4, 8, false, &span), -EINVAL);
	CHECK_EQ(ucow_span_begin(w.cpu, va, PAGE + 1, false, &span), -EINVAL);
	CHECK_EQ(ucow_span_begin(w.cpu, va, SIZE_MAX, false, &span), -EINVAL);
	CHECK_EQ(ucow_span_begin(w.cpu, va + PAGE - 8, 8, false, &span), 0);
	ucow_span_end(w.cpu);
	world_close(&w);
}

TEST(write_spans_break_copy_on_write)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_mm *child;
	void *span;

	put64(w.cpu, va, 1);
	child = fork_mm(w.mm);
	CHECK_EQ(ucow_span_begin(w.cpu, va, 8, true, &span), 0);
	memset(span, 0xff, 8);
	ucow_span_end(w.cpu);
	ucow_cpu_attach(w.cpu, child);
	CHECK_EQ(get64(w.cpu, va), 1);
	ucow_cpu_attach(w.cpu, w.mm);
	CHECK_EQ(get64(w.cpu, va), UINT64_MAX);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(a_second_span_is_refused)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	void *span, *other;

	CHECK_EQ(ucow_span_begin(w.cpu, va, 8, false, &span), 0);
	CHECK_EQ(ucow_span_begin(w.cpu, va, 8, false, &other), -EINVAL);
	ucow_span_end(w.cpu);
	CHECK_EQ(ucow_span_begin(w.cpu, va, 8, false, &span), 0);
	ucow_span_end(w.cpu);
	world_close(&w);
}

/* Would catch a translation of the old space that survives the detach. */
TEST(detached_cpu_accesses_nothing)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), value = 0;
	struct ucow_page *page;
	bool exchanged;
	void *span;

	put64(w.cpu, va, 7);
	CHECK_EQ(ucow_load_u64(w.cpu, va, &value), 0);
	CHECK(ucow_cpu_mm(w.cpu) == w.mm);
	ucow_cpu_attach(w.cpu, NULL);
	CHECK(ucow_cpu_mm(w.cpu) == NULL);
	CHECK_EQ(ucow_load_u64(w.cpu, va, &value), -EINVAL);
	CHECK_EQ(ucow_store_u64(w.cpu, va, 8), -EINVAL);
	CHECK_EQ(ucow_read(w.cpu, va, &value, 8, NULL), -EINVAL);
	CHECK_EQ(ucow_write(w.cpu, va, &value, 8, NULL), -EINVAL);
	CHECK_EQ(ucow_cmpxchg_u64(w.cpu, va, &value, 1, &exchanged), -EINVAL);
	CHECK_EQ(ucow_span_begin(w.cpu, va, 8, false, &span), -EINVAL);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 1, 0, &page), -EINVAL);
	CHECK_EQ(ucow_get_user_pages_fast(w.cpu, va, 1, 0, &page), -EINVAL);
	ucow_cpu_attach(w.cpu, w.mm);
	CHECK_EQ(get64(w.cpu, va), 7);
	world_close(&w);
}

TEST(attaching_switches_the_space_completely)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1), value;
	struct ucow_mm *other;

	CHECK_EQ(ucow_mm_create(w.machine, &other), 0);
	map_private(other, 1);
	for (unsigned i = 1; i <= 5; i++) {
		CHECK_EQ(ucow_store_u64(w.cpu, va, i), 0);
		ucow_cpu_attach(w.cpu, other);
		CHECK_EQ(ucow_load_u64(w.cpu, va, &value), 0);
		CHECK_EQ(value, 10 * (i - 1));
		CHECK_EQ(ucow_store_u64(w.cpu, va, 10 * i), 0);
		ucow_cpu_attach(w.cpu, w.mm);
		CHECK_EQ(ucow_load_u64(w.cpu, va, &value), 0);
		CHECK_EQ(value, i);
	}
	CHECK_EQ(ucow_mm_destroy(other), 0);
	world_close(&w);
}

/* A space may be destroyed and another made at the same host address: translations must not come back to life. */
TEST(a_new_space_does_not_inherit_translations)
{
	struct world w = world_open();
	uint64_t value;

	for (unsigned i = 0; i < 50; i++) {
		struct ucow_mm *mm;
		uint64_t va;

		CHECK_EQ(ucow_mm_create(w.machine, &mm), 0);
		va = map_private(mm, 2);
		ucow_cpu_attach(w.cpu, mm);
		CHECK_EQ(ucow_load_u64(w.cpu, va, &value), 0);
		CHECK_EQ(value, 0);
		CHECK_EQ(ucow_store_u64(w.cpu, va, i + 1), 0);
		ucow_cpu_attach(w.cpu, NULL);
		CHECK_EQ(ucow_mm_destroy(mm), 0);
	}
	ucow_cpu_attach(w.cpu, w.mm);
	world_close(&w);
}

/* More pages than the soft TLB has entries, and pages that collide in it. */
TEST(translations_that_collide_do_not_mix)
{
	struct world w = world_open();
	enum { N = 64 };
	uint64_t stride = (uint64_t)4 << 20, value;

	for (unsigned i = 0; i < N; i++)
		map_at(w.mm, BASE + i * stride, 1, RW, UCOW_MAP_PRIVATE);
	for (unsigned pass = 0; pass < 3; pass++)
		for (unsigned i = 0; i < N; i++) {
			if (pass) {
				CHECK_EQ(ucow_load_u64(w.cpu, BASE + i * stride, &value), 0);
				CHECK_EQ(value, 100 * pass + i);
			}
			CHECK_EQ(ucow_store_u64(w.cpu, BASE + i * stride, 100 * (pass + 1) + i), 0);
		}
	world_close(&w);
}

TEST(shared_mapping_beyond_its_object_is_sigbus)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 2), result, value = 0;
	struct ucow_page *page;
	size_t done = 99;
	uint8_t bytes[4096];

	CHECK_EQ(ucow_mremap(w.mm, va, 2 * PAGE, 4 * PAGE, 0, 0, &result), 0);
	put64(w.cpu, va + PAGE, 7);
	CHECK_EQ(ucow_load_u64(w.cpu, va + 2 * PAGE, &value), -ENXIO);
	CHECK_EQ(ucow_store_u64(w.cpu, va + 3 * PAGE, 1), -ENXIO);
	CHECK_EQ(ucow_read(w.cpu, va + PAGE + 100, bytes, sizeof(bytes), &done), -ENXIO);
	CHECK_EQ(done, PAGE - 100);
	CHECK_EQ(counted(&w, UCOW_COUNTER_FAULT_SIGBUS), 3);
	CHECK_EQ(ucow_get_user_pages(w.cpu, va + 2 * PAGE, 1, 0, &page), -EFAULT);
	world_close(&w);
}

/* Reading never allocates: untouched memory is the one zero page. */
TEST(reading_untouched_memory_takes_no_frames)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 100);
	struct ucow_machine_stat stat;

	for (unsigned i = 0; i < 100; i++) {
		CHECK_EQ(get64(w.cpu, va + i * PAGE), 0);
		CHECK(query(w.mm, va + i * PAGE).zero_page);
	}
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 0);
	CHECK_EQ(counted(&w, UCOW_COUNTER_ZERO_PAGE), 100);
	world_close(&w);
}

TAP_MAIN()
