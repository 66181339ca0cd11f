/* SPDX-License-Identifier: MIT */
/*
 * Notifiers: whoever follows a space hears of everything that takes a page or a right away, before and after; and a
 * second table that is used by threads shows no page that the space does not show. ucow/notifier.h
 */
#include "file_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

/* ---- what is told ---- */

struct record {
	struct ucow_notifier *notifier;
	uint64_t sequence;
	unsigned starts, ends, released;
	unsigned open;                  /* begun and not ended */
	unsigned most;                  /* of these, at once */
	bool retry_inside;              /* whether retry said so between start and end */
	uint64_t start, end;            /* of the last */
	enum ucow_notify_reason reason; /* of the first */
};

static void note_start(void *arg, uint64_t start, uint64_t end, enum ucow_notify_reason reason)
{
	struct record *record = arg;

	if (!record->starts++)
		record->reason = reason;
	record->start = start;
	record->end = end;
	if (++record->open > record->most)
		record->most = record->open;
	record->retry_inside = ucow_notifier_retry(record->notifier, record->sequence);
}

static void note_end(void *arg, uint64_t start, uint64_t end, enum ucow_notify_reason reason)
{
	struct record *record = arg;

	(void)start;
	(void)end;
	(void)reason;
	record->ends++;
	record->open--;
}

static void note_release(void *arg)
{
	struct record *record = arg;

	record->released++;
}

static const struct ucow_notifier_ops recording = {sizeof(recording), note_start, note_end, note_release};

static void follow(struct ucow_mm *mm, struct record *record)
{
	REQUIRE_EQ(ucow_notifier_register(mm, &recording, record, &record->notifier), 0);
	record->sequence = ucow_notifier_begin(record->notifier);
}

static void forget(struct record *record)
{
	record->starts = record->ends = record->most = 0;
	record->sequence = ucow_notifier_begin(record->notifier);
}

/* One invalidation or more was told of, the page at @va among it, and all of them have ended. */
#define CHECK_TOLD(record, va, why)                                                  \
	do {                                                                         \
		CHECK((record)->starts > 0);                                         \
		CHECK_EQ((record)->starts, (record)->ends);                          \
		CHECK_EQ((record)->open, 0);                                         \
		CHECK_EQ((record)->reason, why);                                     \
		CHECK((record)->start <= (va) && (va) + PAGE <= (record)->end);      \
		CHECK((record)->retry_inside);                                       \
		CHECK(ucow_notifier_retry((record)->notifier, (record)->sequence));  \
		forget(record);                                                      \
		CHECK(!ucow_notifier_retry((record)->notifier, (record)->sequence)); \
	} while (0)

static void add_device(struct ucow_machine *machine, uint64_t npages)
{
	const struct ucow_swap_options options = {
		.size = sizeof(options),
		.nbytes = npages * PAGE,
		.flags = UCOW_SWAP_MEMORY,
	};

	REQUIRE_EQ(ucow_swapon(machine, &options, NULL), 0);
}

TEST(operations_tell)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4), to = BASE + 64 * PAGE, result;
	struct record record = {0};

	for (uint64_t i = 0; i < 4; i++)
		put64(w.cpu, va + i * PAGE, i);
	follow(w.mm, &record);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, UCOW_PROT_READ), 0);
	CHECK_TOLD(&record, va, UCOW_NOTIFY_PROTECT);
	CHECK_EQ(ucow_mprotect(w.mm, va, PAGE, RW), 0);
	forget(&record);
	CHECK_EQ(ucow_madvise(w.mm, va + PAGE, PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_TOLD(&record, va + PAGE, UCOW_NOTIFY_CLEAR);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_FREE), 0);
	CHECK_TOLD(&record, va, UCOW_NOTIFY_PROTECT);
	CHECK_EQ(ucow_numa_hint(w.mm, va, PAGE), 0);
	CHECK_TOLD(&record, va, UCOW_NOTIFY_PROTECT);
	CHECK_EQ(ucow_mremap(w.mm, va + 2 * PAGE, PAGE, PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, to, &result), 0);
	CHECK_EQ(record.most, 2);
	CHECK_TOLD(&record, to, UCOW_NOTIFY_UNMAP);
	CHECK_EQ(ucow_munmap(w.mm, va + 3 * PAGE, PAGE), 0);
	CHECK_TOLD(&record, va + 3 * PAGE, UCOW_NOTIFY_UNMAP);
	map_at(w.mm, to, 1, RW, UCOW_MAP_PRIVATE);
	CHECK_TOLD(&record, to, UCOW_NOTIFY_UNMAP);
	CHECK_EQ(ucow_clear_soft_dirty(w.mm), 0);
	CHECK_TOLD(&record, va, UCOW_NOTIFY_TRACK);
	ucow_notifier_unregister(record.notifier);
	CHECK_EQ(record.released, 0);
	world_close(&w);
}

TEST(faults_tell_when_a_page_is_replaced)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 3);
	struct record record = {0};
	struct ucow_page *page;
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	put64(w.cpu, va + PAGE, 1);
	CHECK_EQ(get64(w.cpu, va + 2 * PAGE), 0);
	follow(w.mm, &record);
	/* The first page of its own in place of the zero page. */
	put64(w.cpu, va + 2 * PAGE, 1);
	CHECK_TOLD(&record, va + 2 * PAGE, UCOW_NOTIFY_CLEAR);
	child = fork_mm(w.mm);
	CHECK_TOLD(&record, va, UCOW_NOTIFY_PROTECT);
	put64(w.cpu, va, 2);
	CHECK_TOLD(&record, va, UCOW_NOTIFY_CLEAR);
	page = pin_page(w.cpu, va + PAGE, 0); /* has to unshare */
	CHECK_TOLD(&record, va + PAGE, UCOW_NOTIFY_CLEAR);
	ucow_unpin_user_pages(&page, 1);
	/* What gives and takes nothing away tells nothing. */
	put64(w.cpu, va, 3);
	CHECK_EQ(get64(w.cpu, va + PAGE), 1);
	CHECK_EQ(record.starts, 0);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	ucow_notifier_unregister(record.notifier);
	world_close(&w);
}

TEST(reclaim_tells_everybody)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	struct record record = {0}, bystander = {0};
	struct ucow_mm *other;

	add_device(w.machine, 64);
	REQUIRE_EQ(ucow_mm_create(w.machine, &other), 0);
	put64(w.cpu, va, 1);
	follow(w.mm, &record);
	follow(other, &bystander);
	CHECK_EQ(ucow_madvise(w.mm, va, PAGE, UCOW_MADV_PAGEOUT), 0);
	CHECK(query(w.mm, va).swapped);
	CHECK_TOLD(&record, va, UCOW_NOTIFY_CLEAR);
	CHECK_TOLD(&bystander, va, UCOW_NOTIFY_CLEAR);
	/* Coming back takes nothing away. */
	CHECK_EQ(get64(w.cpu, va), 1);
	CHECK_EQ(record.starts, 0);
	CHECK_EQ(ucow_mm_destroy(other), 0);
	CHECK_EQ(bystander.released, 1);
	ucow_notifier_unregister(record.notifier);
	world_close(&w);
}

TEST(merging_tells)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2), merged = 0;
	struct record record = {0};
	int error;

	put64(w.cpu, va, 5);
	put64(w.cpu, va + PAGE, 5);
	CHECK_EQ(ucow_madvise(w.mm, va, 2 * PAGE, UCOW_MADV_MERGEABLE), 0);
	follow(w.mm, &record);
	error = ucow_ksm_merge(w.machine, &merged);
	CHECK(error == 0 || error == -EOPNOTSUPP);
	if (!error) {
		CHECK(query(w.mm, va).ksm && query(w.mm, va + PAGE).ksm);
		CHECK(record.starts >= 2);
		CHECK_EQ(record.starts, record.ends);
		forget(&record);
		put64(w.cpu, va, 6);
		CHECK_TOLD(&record, va, UCOW_NOTIFY_CLEAR);
	}
	ucow_notifier_unregister(record.notifier);
	world_close(&w);
}

TEST(protection_tells)
{
	const struct ucow_uffd_options options = {.size = sizeof(options), .features = UCOW_UFFD_FEATURE_WP_ASYNC};
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4), moved = 0;
	struct ucow_uffd *uffd = NULL;
	struct record record = {0};
	struct ucow_pm_scan scan = {
		.size = sizeof(scan),
		.flags = UCOW_PM_SCAN_WP_MATCHING,
		.start = va,
		.end = va + 2 * PAGE,
	};

	put64(w.cpu, va, 1);
	REQUIRE_EQ(ucow_uffd_create(w.mm, &options, &uffd), 0);
	REQUIRE_EQ(ucow_uffd_register(uffd, va, 4 * PAGE, UCOW_UFFD_WP | UCOW_UFFD_MISSING, NULL), 0);
	follow(w.mm, &record);
	CHECK_EQ(ucow_uffd_writeprotect(uffd, va, PAGE, UCOW_UFFD_MODE_WP), 0);
	CHECK_TOLD(&record, va, UCOW_NOTIFY_PROTECT);
	put64(w.cpu, va, 2);
	forget(&record);
	CHECK_EQ(ucow_pagemap_scan(w.mm, &scan), 0);
	CHECK(query(w.mm, va).uffd_wp);
	CHECK_TOLD(&record, va, UCOW_NOTIFY_TRACK);
	CHECK_EQ(ucow_uffd_move(uffd, va + 3 * PAGE, va, PAGE, 0, &moved), 0);
	CHECK_TOLD(&record, va, UCOW_NOTIFY_CLEAR);
	ucow_notifier_unregister(record.notifier);
	ucow_uffd_close(uffd);
	world_close(&w);
}

/* Writeback takes the right to write, truncation and punching take pages: from every space that maps the file. */
TEST(files_tell)
{
	struct world w = world_open();
	int fd = host_file(4);
	struct ucow_file *file = open_file(w.machine, fd);
	uint64_t va = map_file(w.mm, file, 4, RW, UCOW_MAP_SHARED);
	struct record record = {0};

	put64(w.cpu, va, 1);
	put64(w.cpu, va + 3 * PAGE, 1);
	follow(w.mm, &record);
	CHECK_EQ(ucow_file_sync(file), 0);
	CHECK(!query(w.mm, va).writable);
	CHECK(record.starts && record.starts == record.ends);
	CHECK_EQ(record.reason, UCOW_NOTIFY_PROTECT);
	CHECK(record.retry_inside);
	forget(&record);
	CHECK_EQ(ucow_file_punch(file, 0, PAGE), 0);
	CHECK_TOLD(&record, va, UCOW_NOTIFY_CLEAR);
	CHECK_EQ(ucow_file_truncate(file, 2 * PAGE), 0);
	CHECK_TOLD(&record, va + 3 * PAGE, UCOW_NOTIFY_CLEAR);
	ucow_notifier_unregister(record.notifier);
	CHECK_EQ(ucow_munmap(w.mm, va, 4 * PAGE), 0);
	CHECK_EQ(ucow_file_close(file), 0);
	close(fd);
	world_close(&w);
}

TEST(several_follow_one_space)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 2);
	struct record records[3] = {0};

	for (unsigned i = 0; i < 3; i++)
		follow(w.mm, &records[i]);
	CHECK_EQ(ucow_munmap(w.mm, va, PAGE), 0);
	for (unsigned i = 0; i < 3; i++)
		CHECK_TOLD(&records[i], va, UCOW_NOTIFY_UNMAP);
	ucow_notifier_unregister(records[1].notifier);
	CHECK_EQ(ucow_munmap(w.mm, va + PAGE, PAGE), 0);
	CHECK_TOLD(&records[0], va + PAGE, UCOW_NOTIFY_UNMAP);
	CHECK_TOLD(&records[2], va + PAGE, UCOW_NOTIFY_UNMAP);
	CHECK_EQ(records[1].starts, 0);
	/* The space ends with two who follow it. */
	ucow_cpu_attach(w.cpu, NULL);
	CHECK_EQ(ucow_mm_destroy(w.mm), 0);
	w.mm = NULL;
	CHECK_EQ(records[0].released, 1);
	CHECK_EQ(records[1].released, 0);
	CHECK_EQ(records[2].released, 1);
	world_close(&w);
}

TEST(registration_can_fail)
{
	const struct ucow_notifier_ops bad = {sizeof(bad) - 1, NULL, NULL, NULL},
				       none = {sizeof(none), NULL, NULL, NULL};
	struct world w = world_open();
	struct ucow_notifier *notifier = NULL;
	uint64_t va = map_private(w.mm, 1);

	CHECK_EQ(ucow_notifier_register(w.mm, &bad, NULL, &notifier), -EINVAL);
	CHECK_EQ(ucow_notifier_register(w.mm, NULL, NULL, &notifier), -EINVAL);
	(void)ucow_machine_inject(w.machine, UCOW_INJECT_OTHER, 1);
	CHECK_EQ(ucow_notifier_register(w.mm, &recording, NULL, &notifier), -ENOMEM);
	CHECK(!ucow_machine_inject(w.machine, UCOW_INJECT_OTHER, 0));
	/* Callbacks that are not there are not called. */
	CHECK_EQ(ucow_notifier_register(w.mm, &none, NULL, &notifier), 0);
	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_munmap(w.mm, va, PAGE), 0);
	CHECK_EQ(ucow_mm_destroy(fork_mm(w.mm)), 0);
	world_close(&w);
}

/* A child is followed by nobody. */
TEST(fork_leaves_followers_behind)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct record record = {0};
	struct ucow_mm *child;

	put64(w.cpu, va, 1);
	follow(w.mm, &record);
	child = fork_mm(w.mm);
	forget(&record);
	CHECK_EQ(ucow_munmap(child, va, PAGE), 0);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	CHECK_EQ(record.starts, 0);
	CHECK_EQ(record.released, 0);
	ucow_notifier_unregister(record.notifier);
	world_close(&w);
}

/* ---- a second table, and threads that use it ---- */

#define TABLE_PAGES 24
#define USERS       2

/* Users hold the lock for reading while they use an entry; who empties entries, or fills them, for writing. */
struct second_table {
	struct ucow_mm *mm;
	uint64_t va;
	struct ucow_notifier *notifier;
	pthread_rwlock_t lock;
	struct {
		uint64_t *bytes; /* NULL: look it up */
		bool writable;
		unsigned invalid; /* invalidations of it that are going on */
	} entries[TABLE_PAGES];
	_Atomic bool stop;
	_Atomic uint64_t uses, fills, retries;
	_Atomic unsigned violations;
};

static bool covers(const struct second_table *table, unsigned i, uint64_t start, uint64_t end)
{
	return table->va + i * PAGE >= start && table->va + i * PAGE < end;
}

/* With the lock for writing nobody is using an entry, and none that is empty now comes back before the end. */
static void empty_entries(void *arg, uint64_t start, uint64_t end, enum ucow_notify_reason reason)
{
	struct second_table *table = arg;

	(void)reason;
	pthread_rwlock_wrlock(&table->lock);
	for (unsigned i = 0; i < TABLE_PAGES; i++)
		if (covers(table, i, start, end)) {
			table->entries[i].bytes = NULL;
			table->entries[i].invalid++;
		}
	pthread_rwlock_unlock(&table->lock);
}

static void admit_entries(void *arg, uint64_t start, uint64_t end, enum ucow_notify_reason reason)
{
	struct second_table *table = arg;

	(void)reason;
	pthread_rwlock_wrlock(&table->lock);
	for (unsigned i = 0; i < TABLE_PAGES; i++)
		if (covers(table, i, start, end)) {
			table->violations += table->entries[i].bytes != NULL; /* it came in before the end */
			table->entries[i].invalid--;
		}
	pthread_rwlock_unlock(&table->lock);
}

/* Returns: whether the entry was there. */
static bool use(struct second_table *table, unsigned i, bool write, uint64_t value)
{
	bool there;

	pthread_rwlock_rdlock(&table->lock);
	there = table->entries[i].bytes && (!write || table->entries[i].writable);
	if (there) {
		volatile uint64_t *word = table->entries[i].bytes;

		table->violations += table->entries[i].invalid != 0;
		if (write)
			__atomic_store_n(word, value, __ATOMIC_RELAXED);
		else
			(void)__atomic_load_n(word, __ATOMIC_RELAXED);
		table->uses++;
	}
	pthread_rwlock_unlock(&table->lock);
	return there;
}

/* As ucow/notifier.h says; the reference is let go of: it is the notifier that keeps the entry right. */
static void look_up(struct second_table *table, unsigned i, bool write)
{
	uint64_t sequence = ucow_notifier_begin(table->notifier);
	struct ucow_page *page;

	if (ucow_get_user_pages_remote(table->mm, table->va + i * PAGE, 1, write ? UCOW_FOLL_WRITE : 0, &page) != 1)
		return;
	pthread_rwlock_wrlock(&table->lock);
	if (ucow_notifier_retry(table->notifier, sequence)) {
		table->retries++;
	} else {
		table->entries[i].bytes = ucow_page_address(page);
		table->entries[i].writable = write;
		table->fills++;
	}
	pthread_rwlock_unlock(&table->lock);
	ucow_put_pages(&page, 1);
}

static void *use_table(void *arg)
{
	struct second_table *table = arg;
	uint64_t seed = (uintptr_t)&seed;

	for (unsigned n = 0; !table->stop; n++) {
		unsigned i = (unsigned)(draw(&seed) % TABLE_PAGES);
		bool write = draw(&seed) % 2;

		if (!use(table, i, write, draw(&seed)))
			look_up(table, i, write);
		if (n % 32 == 0)
			sched_yield();
	}
	return NULL;
}

/* What does not change while others run, though they would change it: two looks at all pages of a space. */
static bool stands_still(struct ucow_cpu *cpu, uint64_t va)
{
	uint64_t first[TABLE_PAGES];
	bool same = true;

	for (unsigned i = 0; i < TABLE_PAGES; i++)
		first[i] = get64(cpu, va + i * PAGE);
	for (unsigned i = 0; i < 20; i++)
		sched_yield();
	for (unsigned i = 0; i < TABLE_PAGES; i++)
		same &= first[i] == get64(cpu, va + i * PAGE);
	return same;
}

static bool child_stands_still(struct ucow_mm *mm, uint64_t va)
{
	struct ucow_mm *child = fork_mm(mm);
	struct ucow_cpu *cpu = cpu_on(child);
	bool same = stands_still(cpu, va);

	exit_mm(cpu, child);
	return same;
}

/* Pages that are freed go to somebody else at once, whose bytes are his own. */
static bool others_are_left_alone(struct ucow_machine *machine)
{
	struct ucow_mm *mm = NULL;
	struct ucow_cpu *cpu;
	bool same = true;

	REQUIRE_EQ(ucow_mm_create(machine, &mm), 0);
	cpu = cpu_on(mm);
	map_private(mm, TABLE_PAGES);
	for (unsigned i = 0; i < TABLE_PAGES; i++)
		put64(cpu, BASE + i * PAGE, i + 1);
	for (unsigned i = 0; i < 20; i++)
		sched_yield();
	for (unsigned i = 0; i < TABLE_PAGES; i++)
		same &= get64(cpu, BASE + i * PAGE) == i + 1;
	exit_mm(cpu, mm);
	return same;
}

static void disturb(const struct world *w, struct second_table *table, uint64_t *seed)
{
	uint64_t va = table->va + draw(seed) % (TABLE_PAGES / 2) * PAGE, length = TABLE_PAGES / 2 * PAGE, result;
	uint64_t away = BASE + 1024 * PAGE;
	bool same = true;

	switch (draw(seed) % 7) {
	case 0:
		REQUIRE_EQ(ucow_madvise(w->mm, va, length, UCOW_MADV_DONTNEED), 0);
		same = others_are_left_alone(w->machine);
		break;
	case 1:
		REQUIRE_EQ(ucow_mprotect(w->mm, table->va, TABLE_PAGES * PAGE, UCOW_PROT_READ), 0);
		same = stands_still(w->cpu, table->va);
		REQUIRE_EQ(ucow_mprotect(w->mm, table->va, TABLE_PAGES * PAGE, RW), 0);
		break;
	case 2:
		same = child_stands_still(w->mm, table->va);
		break;
	case 3:
		REQUIRE_EQ(ucow_munmap(w->mm, va, length), 0);
		same = others_are_left_alone(w->machine);
		map_at(w->mm, va, TABLE_PAGES / 2, RW, UCOW_MAP_PRIVATE);
		break;
	case 4:
		REQUIRE_EQ(ucow_madvise(w->mm, va, length, UCOW_MADV_PAGEOUT), 0);
		break;
	case 5:
		REQUIRE_EQ(
			ucow_mremap(w->mm, va, length, length, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, away, &result),
			0);
		for (uint64_t at = away; at < away + length; at += PAGE) {
			uint64_t value = get64(w->cpu, at);

			sched_yield();
			same &= value == get64(w->cpu, at);
		}
		REQUIRE_EQ(
			ucow_mremap(w->mm, away, length, length, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, va, &result),
			0);
		break;
	default:
		put64(w->cpu, va, draw(seed));
	}
	table->violations += !same;
}

TEST(a_second_table_follows_the_space)
{
	static const struct ucow_notifier_ops ops = {sizeof(ops), empty_entries, admit_entries, NULL};
	struct world w = world_open();
	struct second_table table = {.mm = w.mm, .va = map_private(w.mm, TABLE_PAGES)};
	pthread_rwlockattr_t writers_first;
	pthread_t users[USERS];
	uint64_t seed = 4711;

	add_device(w.machine, 16 * TABLE_PAGES);
	REQUIRE_EQ(pthread_rwlockattr_init(&writers_first), 0);
	REQUIRE_EQ(pthread_rwlockattr_setkind_np(&writers_first, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP), 0);
	REQUIRE_EQ(pthread_rwlock_init(&table.lock, &writers_first), 0);
	REQUIRE_EQ(ucow_notifier_register(w.mm, &ops, &table, &table.notifier), 0);
	for (unsigned i = 0; i < USERS; i++)
		REQUIRE_EQ(pthread_create(&users[i], NULL, use_table, &table), 0);
	while (table.uses < 100)
		sched_yield();
	for (unsigned i = 0; i < 600; i++)
		disturb(&w, &table, &seed);
	table.stop = true;
	for (unsigned i = 0; i < USERS; i++)
		REQUIRE_EQ(pthread_join(users[i], NULL), 0);
	CHECK_EQ(table.violations, 0);
	CHECK(table.uses > 0 && table.fills > 0);
	printf("# %ju uses, %ju fills, %ju retries\n", (uintmax_t)table.uses, (uintmax_t)table.fills,
	       (uintmax_t)table.retries);
	ucow_notifier_unregister(table.notifier);
	CHECK_EQ(pthread_rwlock_destroy(&table.lock), 0);
	world_close(&w);
}

TAP_MAIN()
