/* SPDX-License-Identifier: MIT */
/* Writeback of files: what is written when, who is told of errors, what pins and forks have to do with it. */
#include "file_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { PAGES = 40 };

/* A file of PAGES pages that is mapped shared, writable. */
struct mapped {
	struct world w;
	int fd;
	struct ucow_file *file;
	uint64_t va;
};

static struct mapped mapped_open(void)
{
	struct mapped m = {.w = world_open(), .fd = host_file(PAGES)};

	m.file = open_file(m.w.machine, m.fd);
	m.va = map_file(m.w.mm, m.file, PAGES, RW, UCOW_MAP_SHARED);
	return m;
}

static void mapped_close(struct mapped *m)
{
	check_invariants(m->w.machine);
	REQUIRE_EQ(ucow_munmap(m->w.mm, m->va, PAGES * PAGE), 0);
	REQUIRE_EQ(ucow_file_close(m->file), 0);
	world_close(&m->w);
	close(m->fd);
}

static uint64_t dirty(const struct mapped *m)
{
	return file_stat(m->file).dirty;
}

/* ---- by hand ---- */

TEST(a_sync_writes_what_was_stored_and_the_next_store_faults_again)
{
	struct mapped m = mapped_open();
	uint64_t faults;

	put64(m.w.cpu, m.va, 1);
	put64(m.w.cpu, m.va + 7 * PAGE, 2);
	CHECK_EQ(dirty(&m), 2);
	CHECK(query(m.w.mm, m.va).writable);
	CHECK_EQ(host64(m.fd, 0), 0);
	CHECK_EQ(ucow_file_sync(m.file), 0);
	CHECK_EQ(host64(m.fd, 0), 1);
	CHECK_EQ(host64(m.fd, 7 * PAGE), 2);
	CHECK_EQ(dirty(&m), 0);
	CHECK(!query(m.w.mm, m.va).writable);
	CHECK(!query(m.w.mm, m.va).dirty);
	faults = counted(&m.w, UCOW_COUNTER_FAULT_WP);
	put64(m.w.cpu, m.va, 3);
	CHECK_EQ(counted(&m.w, UCOW_COUNTER_FAULT_WP), faults + 1);
	CHECK_EQ(dirty(&m), 1);
	CHECK_EQ(host64(m.fd, 0), 1);
	CHECK_EQ(ucow_file_sync(m.file), 0);
	CHECK_EQ(host64(m.fd, 0), 3);
	mapped_close(&m);
}

TEST(the_size_of_the_host_file_bounds_what_is_written)
{
	struct world w = world_open();
	int fd = host_file(0);
	struct ucow_file *file;
	uint64_t va;

	REQUIRE_EQ(ftruncate(fd, PAGE + 100), 0);
	file = open_file(w.machine, fd);
	va = map_file(w.mm, file, 2, RW, UCOW_MAP_SHARED);
	put64(w.cpu, va + PAGE, 5);
	put64(w.cpu, va + PAGE + 200, 6);
	CHECK_EQ(ucow_file_sync(file), 0);
	CHECK_EQ(host64(fd, PAGE), 5);
	CHECK_EQ(lseek(fd, 0, SEEK_END), PAGE + 100);
	REQUIRE_EQ(ucow_munmap(w.mm, va, 2 * PAGE), 0);
	REQUIRE_EQ(ucow_file_close(file), 0);
	world_close(&w);
}

TEST(msync_writes_its_range_alone)
{
	struct mapped m = mapped_open();
	uint64_t hole = m.va + PAGES * PAGE;

	for (uint64_t i = 0; i < PAGES; i++)
		put64(m.w.cpu, m.va + i * PAGE, i + 1);
	CHECK_EQ(ucow_msync(m.w.mm, m.va + 3 * PAGE, 2 * PAGE, UCOW_MS_SYNC), 0);
	CHECK_EQ(dirty(&m), PAGES - 2);
	CHECK_EQ(host64(m.fd, 4 * PAGE), 5);
	CHECK_EQ(host64(m.fd, 5 * PAGE), 0);
	CHECK_EQ(ucow_msync(m.w.mm, m.va, PAGE, UCOW_MS_ASYNC | UCOW_MS_SYNC), -EINVAL);
	CHECK_EQ(ucow_msync(m.w.mm, m.va + 1, PAGE, UCOW_MS_SYNC), -EINVAL);
	CHECK_EQ(ucow_msync(m.w.mm, m.va, PAGE, 64), -EINVAL);
	CHECK_EQ(ucow_msync(m.w.mm, m.va, 0, UCOW_MS_SYNC), 0);
	CHECK_EQ(ucow_msync(m.w.mm, m.va, PAGE, UCOW_MS_ASYNC), 0);
	/* A hole is told of, and what is mapped before it is synced all the same. */
	CHECK_EQ(ucow_msync(m.w.mm, hole - PAGE, 2 * PAGE, UCOW_MS_SYNC), -ENOMEM);
	CHECK_EQ(host64(m.fd, (PAGES - 1) * PAGE), PAGES);
	CHECK_EQ(ucow_msync(m.w.mm, hole, PAGE, UCOW_MS_SYNC), -ENOMEM);
	mapped_close(&m);
}

TEST(a_private_mapping_is_never_written_back)
{
	struct world w = world_open();
	int fd = host_file(2);
	struct ucow_file *file = open_file(w.machine, fd);
	uint64_t va = map_file(w.mm, file, 2, RW, UCOW_MAP_PRIVATE);

	put64(w.cpu, va, 9);
	CHECK_EQ(file_stat(file).dirty, 0);
	CHECK_EQ(ucow_msync(w.mm, va, 2 * PAGE, UCOW_MS_SYNC), 0);
	CHECK_EQ(ucow_file_sync(file), 0);
	CHECK_EQ(host64(fd, 0), 0);
	CHECK_EQ(get64(w.cpu, va), 9);
	REQUIRE_EQ(ucow_munmap(w.mm, va, 2 * PAGE), 0);
	REQUIRE_EQ(ucow_file_close(file), 0);
	world_close(&w);
}

/* ---- many spaces ---- */

TEST(entries_of_all_spaces_are_cleaned)
{
	struct mapped m = mapped_open();
	struct ucow_mm *child, *grandchild;
	struct ucow_cpu *cpu, *cpu2;

	for (uint64_t i = 0; i < PAGES; i++)
		put64(m.w.cpu, m.va + i * PAGE, 1);
	child = fork_mm(m.w.mm);
	cpu = cpu_on(child);
	put64(cpu, m.va + PAGE, 2);
	grandchild = fork_mm(child);
	cpu2 = cpu_on(grandchild);
	put64(cpu2, m.va + 2 * PAGE, 3);
	CHECK_EQ(ucow_file_sync(m.file), 0);
	CHECK_EQ(dirty(&m), 0);
	CHECK_EQ(host64(m.fd, PAGE), 2);
	CHECK_EQ(host64(m.fd, 2 * PAGE), 3);
	check_invariants(m.w.machine);
	/* Whoever stores now makes the page dirty, whichever space it is. */
	put64(m.w.cpu, m.va, 4);
	put64(cpu, m.va + PAGE, 5);
	put64(cpu2, m.va + 2 * PAGE, 6);
	CHECK_EQ(dirty(&m), 3);
	CHECK_EQ(ucow_file_sync(m.file), 0);
	for (uint64_t i = 0; i < 3; i++)
		CHECK_EQ(host64(m.fd, i * PAGE), 4 + i);
	exit_mm(cpu2, grandchild);
	exit_mm(cpu, child);
	mapped_close(&m);
}

/* A page hinted for NUMA, or protected and permitted again, is not writable behind the back of writeback. */
TEST(no_way_leads_around_the_first_store)
{
	struct mapped m = mapped_open();

	for (unsigned i = 0; i < 3; i++) {
		put64(m.w.cpu, m.va, 10 + i);
		CHECK_EQ(ucow_file_sync(m.file), 0);
		if (i == 0)
			REQUIRE_EQ(ucow_numa_hint(m.w.mm, m.va, PAGES * PAGE), 0);
		REQUIRE_EQ(ucow_mprotect(m.w.mm, m.va, PAGE, UCOW_PROT_READ), 0);
		REQUIRE_EQ(ucow_mprotect(m.w.mm, m.va, PAGE, RW), 0);
		CHECK_EQ(get64(m.w.cpu, m.va), 10 + i);
		CHECK(!query(m.w.mm, m.va).writable);
		CHECK_EQ(dirty(&m), 0);
	}
	mapped_close(&m);
}

struct spanning {
	struct mapped *m;
	_Atomic bool inside;
};

/* Stores, by a pointer that was got before, some time after writeback has begun; whether it has is not asked. */
static void *store_late(void *arg)
{
	struct spanning *spanning = arg;
	struct ucow_cpu *cpu = cpu_on(spanning->m->w.mm);
	void *word;

	REQUIRE_EQ(ucow_span_begin(cpu, spanning->m->va, 8, true, &word), 0);
	atomic_store(&spanning->inside, true);
	usleep(100000);
	__atomic_store_n((uint64_t *)word, 2, __ATOMIC_RELAXED);
	ucow_span_end(cpu);
	ucow_cpu_destroy(cpu);
	return NULL;
}

/* Rule 10: whoever has the right to store when the entries lose it is waited for. */
TEST(a_store_that_is_under_way_is_in_what_is_written)
{
	struct mapped m = mapped_open();
	struct spanning spanning = {.m = &m};
	pthread_t thread;

	put64(m.w.cpu, m.va, 1);
	REQUIRE_EQ(pthread_create(&thread, NULL, store_late, &spanning), 0);
	while (!atomic_load(&spanning.inside))
		sched_yield();
	CHECK_EQ(ucow_file_sync(m.file), 0);
	REQUIRE_EQ(pthread_join(thread, NULL), 0);
	CHECK(dirty(&m) || host64(m.fd, 0) == 2);
	CHECK_EQ(ucow_file_sync(m.file), 0);
	CHECK_EQ(host64(m.fd, 0), 2);
	mapped_close(&m);
}

/* ---- errors ---- */

TEST(an_error_is_told_to_every_opener_once_and_the_page_stays_dirty)
{
	struct mapped m = mapped_open();
	struct ucow_file *second = NULL, *late = NULL;

	REQUIRE_EQ(ucow_file_reopen(m.file, 0, &second), 0);
	put64(m.w.cpu, m.va, 1);
	ucow_machine_inject(m.w.machine, UCOW_INJECT_WRITE, 1);
	CHECK_EQ(ucow_file_sync(m.file), -EIO);
	CHECK_EQ(dirty(&m), 1);
	CHECK_EQ(file_stat(m.file).write_errors, 1);
	CHECK_EQ(ucow_file_sync(m.file), 0);
	CHECK_EQ(host64(m.fd, 0), 1);
	CHECK_EQ(ucow_file_sync(second), -EIO);
	CHECK_EQ(ucow_file_sync(second), 0);
	REQUIRE_EQ(ucow_file_reopen(m.file, 0, &late), 0);
	CHECK_EQ(ucow_file_sync(late), 0);
	CHECK_EQ(ucow_file_close(late), 0);
	CHECK_EQ(ucow_file_close(second), 0);
	mapped_close(&m);
}

TEST(msync_tells_the_opener_of_the_mapping)
{
	struct mapped m = mapped_open();

	put64(m.w.cpu, m.va, 1);
	ucow_machine_inject(m.w.machine, UCOW_INJECT_WRITE, 1);
	CHECK_EQ(ucow_msync(m.w.mm, m.va, PAGE, UCOW_MS_SYNC), -EIO);
	CHECK_EQ(ucow_msync(m.w.mm, m.va, PAGE, UCOW_MS_SYNC), 0);
	CHECK_EQ(ucow_file_sync(m.file), 0);
	mapped_close(&m);
}

TEST(what_writeback_by_age_could_not_write_is_told_at_the_next_sync)
{
	struct mapped m = mapped_open();

	put64(m.w.cpu, m.va, 1);
	ucow_machine_inject(m.w.machine, UCOW_INJECT_WRITE, 1);
	CHECK_EQ(ucow_writeback(m.w.machine, 0, UINT64_MAX), 0);
	CHECK_EQ(dirty(&m), 1);
	CHECK_EQ(ucow_file_sync(m.file), -EIO);
	CHECK_EQ(host64(m.fd, 0), 1);
	mapped_close(&m);
}

/* Every write that a sync makes may fail: some pages are written, the others are dirty, and nothing else. */
TEST(every_write_may_fail)
{
	struct mapped m = mapped_open();
	uint64_t value = 1;

	for (uint64_t nth = 1;; nth++, value++) {
		int error;

		for (uint64_t i = 0; i < PAGES; i += 1 + i % 3)
			put64(m.w.cpu, m.va + i * PAGE, value + i);
		ucow_machine_inject(m.w.machine, UCOW_INJECT_WRITE, nth);
		error = ucow_file_sync(m.file);
		if (ucow_machine_inject(m.w.machine, 0, 0)) {
			CHECK_EQ(error, 0);
			CHECK(nth > 5);
			break;
		}
		CHECK_EQ(error, -EIO);
		for (uint64_t i = 0; i < PAGES; i += 1 + i % 3)
			CHECK((host64(m.fd, i * PAGE) == value + i) != file_page_is(m.file, i, UCOW_FILE_PAGE_DIRTY));
		check_invariants(m.w.machine);
	}
	mapped_close(&m);
}

/* Nobody is left to try again: what can be written is, whatever has failed before it. */
TEST(the_last_munmap_writes_what_it_can)
{
	struct mapped m = mapped_open();
	unsigned written = 0;

	for (uint64_t i = 0; i < 4; i++)
		put64(m.w.cpu, m.va + i * PAGE, 1 + i);
	REQUIRE_EQ(ucow_file_close(m.file), 0);
	ucow_machine_inject(m.w.machine, UCOW_INJECT_WRITE, 1);
	REQUIRE_EQ(ucow_munmap(m.w.mm, m.va, PAGES * PAGE), 0);
	CHECK(!ucow_machine_inject(m.w.machine, 0, 0));
	for (uint64_t i = 0; i < 4; i++)
		written += host64(m.fd, i * PAGE) == 1 + i;
	CHECK_EQ(written, 3);
	world_close(&m.w);
	close(m.fd);
}

TEST(a_full_disk_is_told_as_such)
{
	struct mapped m = mapped_open();
	int fd = memfd_create("ucow-test-sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct ucow_file *file;
	uint64_t va = 0;

	REQUIRE_EQ(ftruncate(fd, PAGE), 0);
	file = open_file(m.w.machine, fd);
	REQUIRE_EQ(ucow_mmap_file(m.w.mm, 0, PAGE, RW, UCOW_MAP_SHARED, file, 0, &va), 0);
	put64(m.w.cpu, va, 1);
	REQUIRE_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0); /* stands for whatever the host says */
	CHECK_EQ(ucow_file_sync(file), -EPERM);
	CHECK_EQ(file_stat(file).dirty, 1);
	REQUIRE_EQ(ucow_munmap(m.w.mm, va, PAGE), 0);
	CHECK_EQ(ucow_file_close(file), -EPERM);
	mapped_close(&m);
}

/* ---- pins ---- */

TEST(a_pinned_page_is_written_from_a_copy_and_stays_dirty)
{
	struct mapped m = mapped_open();
	struct ucow_page *page = pin_page(m.w.cpu, m.va, UCOW_FOLL_WRITE);

	CHECK_EQ(dirty(&m), 1); /* from the pin on, whether or not anything was stored */
	device_write64(page, 1);
	CHECK_EQ(ucow_file_sync(m.file), 0);
	CHECK_EQ(host64(m.fd, 0), 1);
	CHECK_EQ(dirty(&m), 1);
	CHECK_EQ(file_stat(m.file).bounced, 1);
	device_write64(page, 2);
	CHECK_EQ(ucow_writeback(m.w.machine, 0, UINT64_MAX), 1);
	CHECK_EQ(host64(m.fd, 0), 2);
	device_write64(page, 3);
	ucow_unpin_user_pages(&page, 1); /* the page is dirty, though nobody says so */
	CHECK_EQ(ucow_file_sync(m.file), 0);
	CHECK_EQ(host64(m.fd, 0), 3);
	CHECK_EQ(dirty(&m), 0);
	CHECK_EQ(counted(&m.w, UCOW_COUNTER_WRITEBACK_BOUNCED), 2);
	CHECK_EQ(counted(&m.w, UCOW_COUNTER_WRITEBACK_FALSE_POSITIVE), 0);
	mapped_close(&m);
}

TEST(many_references_are_taken_for_a_pin_and_counted)
{
	struct mapped m = mapped_open();
	struct ucow_page *pages[1030];

	put64(m.w.cpu, m.va, 1);
	for (unsigned i = 0; i < 1030; i++)
		pages[i] = get_page(m.w.cpu, m.va, 0);
	CHECK_EQ(ucow_file_sync(m.file), 0);
	CHECK_EQ(dirty(&m), 1);
	CHECK_EQ(counted(&m.w, UCOW_COUNTER_WRITEBACK_FALSE_POSITIVE), 1);
	ucow_put_pages(pages, 1030);
	CHECK_EQ(ucow_file_sync(m.file), 0);
	CHECK_EQ(dirty(&m), 0);
	mapped_close(&m);
}

/* Semantics.md A.2: long-term pins, by mapping and access. */
TEST(long_term_pins_for_writing_are_refused_where_writeback_is)
{
	struct world w = world_open();
	int fd = host_file(4);
	struct ucow_file *file = open_file(w.machine, fd);
	const unsigned longterm = UCOW_FOLL_LONGTERM, write = longterm | UCOW_FOLL_WRITE;
	uint64_t shared = map_file(w.mm, file, 4, RW, UCOW_MAP_SHARED), private = 0;
	struct ucow_page *page;

	REQUIRE_EQ(ucow_mmap_file(w.mm, 0, 4 * PAGE, RW, UCOW_MAP_PRIVATE, file, 0, &private), 0);
	put64(w.cpu, shared, 1);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, shared, 1, write, &page), -EFAULT);
	CHECK_EQ(ucow_pin_user_pages_fast(w.cpu, shared, 1, write, &page), -EFAULT);
	CHECK_EQ(ucow_pin_user_pages_fast(w.cpu, shared, 1, write | UCOW_FOLL_FAST_ONLY, &page), 0);
	for (unsigned i = 0; i < 2; i++) {
		REQUIRE_EQ(ucow_pin_user_pages_fast(w.cpu, shared, 1, UCOW_FOLL_WRITE, &page), 1);
		ucow_unpin_user_pages(&page, 1);
	}
	REQUIRE_EQ(ucow_pin_user_pages(w.cpu, shared, 1, longterm, &page), 1);
	ucow_unpin_user_pages(&page, 1);
	/* A private mapping gets a copy of its own, whichever access. */
	REQUIRE_EQ(ucow_pin_user_pages(w.cpu, private, 1, longterm, &page), 1);
	CHECK(query(w.mm, private).anon);
	ucow_unpin_user_pages(&page, 1);
	REQUIRE_EQ(ucow_pin_user_pages_fast(w.cpu, private + PAGE, 1, write, &page), 1);
	CHECK(query(w.mm, private + PAGE).anon);
	ucow_unpin_user_pages(&page, 1);
	CHECK_EQ(ucow_file_sync(file), 0);
	REQUIRE_EQ(ucow_munmap(w.mm, shared, 4 * PAGE), 0);
	REQUIRE_EQ(ucow_munmap(w.mm, private, 4 * PAGE), 0);
	REQUIRE_EQ(ucow_file_close(file), 0);
	world_close(&w);
}

TEST(shared_memory_may_be_pinned_for_long)
{
	struct world w = world_open();
	struct ucow_file_options options = {.size = sizeof(options), .fd = -1, .length = 4 * PAGE};
	struct ucow_file *file = NULL;
	struct ucow_page *page;
	uint64_t va;

	REQUIRE_EQ(ucow_file_open(w.machine, &options, &file), 0);
	va = map_file(w.mm, file, 4, RW, UCOW_MAP_SHARED);
	REQUIRE_EQ(ucow_pin_user_pages(w.cpu, va, 1, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM, &page), 1);
	CHECK_EQ(ucow_file_sync(file), 0);
	CHECK_EQ(ucow_writeback(w.machine, 0, UINT64_MAX), 0);
	ucow_unpin_user_pages_dirty_lock(&page, 1, true);
	REQUIRE_EQ(ucow_munmap(w.mm, va, 4 * PAGE), 0);
	REQUIRE_EQ(ucow_file_close(file), 0);
	world_close(&w);
}

/* O_DIRECT from one file into the mapping of another: what the device wrote reaches the other file. */
TEST(a_direct_read_into_a_mapping_makes_it_dirty)
{
	struct mapped m = mapped_open();
	int from = host_file(PAGES);

	for (uint64_t i = 0; i < PAGES; i++)
		host_put64(from, i * PAGE, 100 + i);
	CHECK_EQ(ucow_direct_read(m.w.mm, m.va, PAGES * PAGE, from, 0), PAGES * PAGE);
	CHECK_EQ(dirty(&m), PAGES);
	CHECK_EQ(ucow_file_sync(m.file), 0);
	for (uint64_t i = 0; i < PAGES; i++)
		CHECK_EQ(host64(m.fd, i * PAGE), 100 + i);
	CHECK_EQ(dirty(&m), 0);
	mapped_close(&m);
}

/* ---- pressure ---- */

TEST(reclaim_drops_clean_pages_writes_dirty_ones_first_and_leaves_pinned_ones)
{
	struct mapped m = mapped_open();
	struct ucow_page *page;

	for (uint64_t i = 0; i < PAGES; i++)
		put64(m.w.cpu, m.va + i * PAGE, 1 + i);
	page = pin_page(m.w.cpu, m.va + 5 * PAGE, 0);
	for (unsigned i = 0; i < 8 && file_stat(m.file).cached > 1; i++)
		REQUIRE(ucow_reclaim(m.w.machine, NULL, PAGES) >= 0);
	CHECK_EQ(file_stat(m.file).cached, 1);
	CHECK(file_page_is(m.file, 5, UCOW_FILE_PAGE_CACHED | UCOW_FILE_PAGE_DIRTY | UCOW_FILE_PAGE_PINNED));
	CHECK_EQ(counted(&m.w, UCOW_COUNTER_FILE_DROPPED), PAGES - 1);
	CHECK_EQ(host64(m.fd, 5 * PAGE), 0);
	check_invariants(m.w.machine);
	for (uint64_t i = 0; i < PAGES; i++)
		CHECK_EQ(get64(m.w.cpu, m.va + i * PAGE), 1 + i);
	ucow_unpin_user_pages(&page, 1);
	mapped_close(&m);
}

/* A leaf that forks share is emptied once; the translations that its other users have cached go all the same. */
TEST(no_space_reads_a_dropped_page_through_an_old_translation)
{
	struct mapped m = mapped_open();
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	for (uint64_t i = 0; i < PAGES; i++)
		host_put64(m.fd, i * PAGE, 1000 + i);
	for (uint64_t i = 0; i < PAGES; i++)
		CHECK_EQ(get64(m.w.cpu, m.va + i * PAGE), 1000 + i);
	child = fork_mm(m.w.mm);
	cpu = cpu_on(child);
	for (uint64_t i = 0; i < PAGES; i++) {
		CHECK_EQ(get64(m.w.cpu, m.va + i * PAGE), 1000 + i);
		CHECK_EQ(get64(cpu, m.va + i * PAGE), 1000 + i);
	}
	for (unsigned i = 0; i < 8 && file_stat(m.file).cached; i++)
		REQUIRE(ucow_reclaim(m.w.machine, NULL, PAGES) >= 0);
	CHECK_EQ(file_stat(m.file).cached, 0);
	for (uint64_t i = 0; i < PAGES; i++)
		host_put64(m.fd, i * PAGE, 2000 + i);
	for (uint64_t i = 0; i < PAGES; i++) {
		CHECK_EQ(get64(cpu, m.va + i * PAGE), 2000 + i);
		CHECK_EQ(get64(m.w.cpu, m.va + i * PAGE), 2000 + i);
	}
	exit_mm(cpu, child);
	mapped_close(&m);
}

TEST(a_file_larger_than_ram_can_be_stored_to)
{
	enum { MANY = 12000 };
	struct ucow_machine_options options = default_options();
	struct world w;
	int fd = host_file(MANY);
	struct ucow_file *file;
	uint64_t va;

	options.ram_bytes = (uint64_t)16 << 20;
	w = world_open_with(&options);
	file = open_file(w.machine, fd);
	va = map_file(w.mm, file, MANY, RW, UCOW_MAP_SHARED);
	for (uint64_t i = 0; i < MANY; i++)
		put64(w.cpu, va + i * PAGE, i + 1);
	for (uint64_t i = 0; i < MANY; i += 7)
		CHECK_EQ(get64(w.cpu, va + i * PAGE), i + 1);
	CHECK_EQ(ucow_file_sync(file), 0);
	for (uint64_t i = 0; i < MANY; i++)
		REQUIRE_EQ(host64(fd, i * PAGE), i + 1);
	CHECK(counted(&w, UCOW_COUNTER_FILE_DROPPED) > 0);
	REQUIRE_EQ(ucow_munmap(w.mm, va, MANY * PAGE), 0);
	REQUIRE_EQ(ucow_file_close(file), 0);
	world_close(&w);
}

TEST(a_page_that_cannot_be_written_is_not_dropped)
{
	struct mapped m = mapped_open();

	put64(m.w.cpu, m.va, 77);
	for (unsigned i = 0; i < 6; i++) {
		ucow_machine_inject(m.w.machine, UCOW_INJECT_WRITE, 1);
		REQUIRE(ucow_reclaim(m.w.machine, NULL, 1) >= 0);
		if (!ucow_machine_inject(m.w.machine, 0, 0))
			break;
	}
	CHECK(file_stat(m.file).write_errors > 0);
	CHECK_EQ(get64(m.w.cpu, m.va), 77);
	CHECK_EQ(ucow_file_sync(m.file), -EIO);
	CHECK_EQ(host64(m.fd, 0), 77);
	mapped_close(&m);
}

/* ---- by age and number ---- */

TEST(what_is_old_enough_is_written_and_nothing_else)
{
	struct mapped m = mapped_open();
	const uint64_t hour = (uint64_t)3600 * 1000 * 1000 * 1000;

	put64(m.w.cpu, m.va, 1);
	CHECK_EQ(ucow_writeback(m.w.machine, hour, UINT64_MAX), 0);
	CHECK_EQ(host64(m.fd, 0), 0);
	put64(m.w.cpu, m.va + PAGE, 2);
	put64(m.w.cpu, m.va + 2 * PAGE, 3);
	CHECK_EQ(ucow_writeback(m.w.machine, 0, 2), 2);
	CHECK_EQ(dirty(&m), 1);
	CHECK_EQ(ucow_writeback(m.w.machine, 0, UINT64_MAX), 1);
	CHECK_EQ(dirty(&m), 0);
	CHECK_EQ(host64(m.fd, 2 * PAGE), 3);
	mapped_close(&m);
}

TEST(the_thread_writes_back_by_itself)
{
	struct mapped m = mapped_open();
	struct ucow_writeback_options options = {.size = sizeof(options), .interval_ns = 1000000, .age_ns = 1};

	CHECK_EQ(ucow_writeback_start(m.w.machine, &(struct ucow_writeback_options){.size = 1}), -EINVAL);
	REQUIRE_EQ(ucow_writeback_start(m.w.machine, &options), 0);
	CHECK_EQ(ucow_writeback_start(m.w.machine, &options), -EBUSY);
	put64(m.w.cpu, m.va, 1);
	while (host64(m.fd, 0) != 1 || dirty(&m))
		usleep(1000);
	ucow_writeback_stop(m.w.machine);
	ucow_writeback_stop(m.w.machine);
	put64(m.w.cpu, m.va, 2);
	CHECK_EQ(dirty(&m), 1);
	mapped_close(&m);
}

TEST(whoever_makes_more_dirty_than_the_limit_writes_back)
{
	struct mapped m = mapped_open();
	struct ucow_writeback_options options = {
		.size = sizeof(options), .interval_ns = (uint64_t)1 << 40, .age_ns = (uint64_t)1 << 60, .limit = 5};
	struct ucow_page *page = pin_page(m.w.cpu, m.va, UCOW_FOLL_WRITE);

	REQUIRE_EQ(ucow_writeback_start(m.w.machine, &options), 0);
	for (uint64_t i = 0; i < PAGES; i++) {
		put64(m.w.cpu, m.va + i * PAGE, i + 1);
		CHECK(dirty(&m) <= 6);
	}
	CHECK(counted(&m.w, UCOW_COUNTER_WRITEBACK) >= PAGES - 6);
	ucow_writeback_stop(m.w.machine);
	for (uint64_t i = 0; i < PAGES; i++)
		put64(m.w.cpu, m.va + i * PAGE, i + 1);
	CHECK_EQ(dirty(&m), PAGES);
	ucow_unpin_user_pages(&page, 1);
	mapped_close(&m);
}

/* ---- memory ---- */

/* Every allocation on the way to the host file may fail, that of the copies included: what is lost is time. */
TEST(every_allocation_may_fail)
{
	struct mapped m = mapped_open();
	struct ucow_page *pages[4];

	for (uint64_t nth = 1;; nth++) {
		long n;

		for (uint64_t i = 0; i < PAGES; i++)
			put64(m.w.cpu, m.va + i * PAGE, nth + i);
		REQUIRE_EQ(ucow_pin_user_pages(m.w.cpu, m.va + 3 * PAGE, 4, UCOW_FOLL_WRITE, pages), 4);
		ucow_machine_inject(m.w.machine, UCOW_INJECT_ALL, nth);
		CHECK_EQ(ucow_file_sync(m.file), 0);
		n = ucow_reclaim(m.w.machine, NULL, PAGES / 2);
		if (ucow_machine_inject(m.w.machine, 0, 0))
			nth = 1000;
		CHECK(n >= 0);
		for (uint64_t i = 0; i < PAGES; i++)
			CHECK_EQ(host64(m.fd, i * PAGE), (nth == 1000 ? host64(m.fd, 0) : nth) + i);
		ucow_unpin_user_pages(pages, 4);
		check_invariants(m.w.machine);
		if (nth == 1000)
			break;
		CHECK(nth < 100);
	}
	mapped_close(&m);
}

TAP_MAIN()
