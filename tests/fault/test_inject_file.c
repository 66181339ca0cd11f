/* SPDX-License-Identifier: MIT */
/*
 * The N-th allocation, read or write of an operation on files fails, for N = 1, 2, 3, ... until it needs fewer: the
 * operation fails as it says or does without, the invariants hold, what was there is there still, the same call
 * succeeds afterwards, and in the end nothing is left.
 */
#include "files.h"

enum { NPAGES = 24, MAX_N = 500 };
#define FAR ((uint64_t)1 << 40)

struct scene {
	struct world w;
	struct ucow_file *file;
	int fd;
	struct ucow_mm *child;
	struct ucow_cpu *child_cpu;
	bool is_away; /* pages AWAY to AWAY + 2 of the shared mapping are elsewhere */
};

enum { AWAY = 5 };

/* Stored before anything fails: shared page 1, private page 2. */
#define SHARED_VALUE  71
#define PRIVATE_VALUE 72

static struct scene scene_open(bool in_memory)
{
	struct scene s = {.w = world_open()};

	s.file = open_filled(s.w.machine, in_memory, NPAGES, &s.fd);
	map_file(s.w.mm, BASE, NPAGES, RW, UCOW_MAP_SHARED, s.file, 0);
	map_file(s.w.mm, FAR, NPAGES, RW, UCOW_MAP_PRIVATE, s.file, 0);
	put64(s.w.cpu, BASE + PAGE, SHARED_VALUE);
	put64(s.w.cpu, FAR + 2 * PAGE, PRIVATE_VALUE);
	return s;
}

static void drop_child(struct scene *s)
{
	if (s->child)
		exit_mm(s->child_cpu, s->child);
	s->child = NULL;
}

/* Page @i as the shared mapping shows it, and the private one; what lies behind the end has gone. */
static void check_contents(struct scene *s)
{
	uint64_t npages = file_stat(s->file).size / PAGE;

	for (uint64_t i = 0; i < npages && i < NPAGES; i++) {
		bool is_away = s->is_away && i >= AWAY && i < AWAY + 3;
		uint64_t shared = get64(s->w.cpu, is_away ? 2 * FAR + (i - AWAY) * PAGE : BASE + i * PAGE);
		uint64_t copy = get64(s->w.cpu, FAR + i * PAGE);

		CHECK(shared == (i == 1 ? SHARED_VALUE : file_value(i)) || !shared || shared == 99);
		CHECK(copy == (i == 2 ? PRIVATE_VALUE : shared) || (i == 2 && copy == shared) || copy == 98);
	}
}

static void scene_close(struct scene *s)
{
	drop_child(s);
	(void)ucow_file_close(s->file); /* tells what failed on the way */
	close_fd(s->fd);
	world_close(&s->w);
}

/* ---- operations: each may fail; done again it succeeds ---- */

static int load_everything(struct scene *s)
{
	uint64_t value;
	int rc = 0;

	for (uint64_t i = 0; i < NPAGES && !rc; i++) {
		rc = ucow_load_u64(s->w.cpu, BASE + i * PAGE, &value);
		if (!rc)
			rc = ucow_load_u64(s->w.cpu, FAR + i * PAGE, &value);
	}
	return rc;
}

static int store_everything(struct scene *s)
{
	int rc = 0;

	for (uint64_t i = 3; i < NPAGES && !rc; i++) {
		rc = ucow_store_u64(s->w.cpu, FAR + i * PAGE, 98);
		if (!rc)
			rc = ucow_store_u64(s->w.cpu, BASE + i * PAGE, 99);
	}
	return rc;
}

static int map_again(struct scene *s)
{
	struct ucow_file_options options = {.size = sizeof(options), .fd = s->fd, .length = s->fd < 0 ? PAGE : 0};
	struct ucow_file *other = NULL, *third = NULL;
	struct ucow_mm *mm = NULL;
	uint64_t va = 0;
	int rc = ucow_mm_create(s->w.machine, &mm);

	if (!rc)
		rc = ucow_file_open(s->w.machine, &options, &other);
	if (!rc)
		rc = ucow_file_reopen(other, 0, &third);
	if (!rc)
		rc = ucow_mmap_file(mm, BASE, PAGE, RW, UCOW_MAP_SHARED, third, 0, &va);
	if (!rc)
		rc = ucow_mmap_file(mm, BASE, PAGE, RW, UCOW_MAP_PRIVATE, s->file, 0, &va);
	if (third)
		REQUIRE_EQ(ucow_file_close(third), 0);
	if (other)
		REQUIRE_EQ(ucow_file_close(other), 0);
	if (mm)
		REQUIRE_EQ(ucow_mm_destroy(mm), 0);
	return rc;
}

static int fork_and_store(struct scene *s)
{
	int rc = 0;

	if (!s->child) {
		struct ucow_cpu *cpu;

		rc = ucow_fork(s->w.mm, &s->child);
		if (rc) {
			s->child = NULL;
			return rc;
		}
		rc = ucow_cpu_create(s->w.machine, &cpu);
		if (rc) {
			REQUIRE_EQ(ucow_mm_destroy(s->child), 0);
			s->child = NULL;
			return rc;
		}
		ucow_cpu_attach(cpu, s->child);
		s->child_cpu = cpu;
	}
	for (uint64_t i = 0; i < NPAGES && !rc; i++)
		rc = ucow_store_u64(s->child_cpu, FAR + i * PAGE, i);
	return rc;
}

static int move_to(struct scene *s, uint64_t from, uint64_t to)
{
	uint64_t result = 0;

	return ucow_mremap(s->w.mm, from, 3 * PAGE, 3 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, to, &result);
}

/* There and back. */
static int move_about(struct scene *s)
{
	int rc = s->is_away ? 0 : move_to(s, BASE + AWAY * PAGE, 2 * FAR);

	if (rc)
		return rc;
	s->is_away = true;
	rc = move_to(s, 2 * FAR, BASE + AWAY * PAGE);
	if (!rc)
		s->is_away = false;
	return rc;
}

static int cut_off(struct scene *s)
{
	int rc = ucow_file_truncate(s->file, 7 * PAGE + 100);

	REQUIRE_EQ(file_stat(s->file).size, rc ? NPAGES * PAGE : 7 * PAGE + 100);
	return rc;
}

static int cut_off_with_a_child(struct scene *s)
{
	return cut_off(s);
}

static int punch(struct scene *s)
{
	return ucow_file_punch(s->file, 9 * PAGE + 5, 6 * PAGE);
}

static int read_and_write(struct scene *s)
{
	static char buffer[NPAGES * 4096];
	uint64_t value = 99;
	long got = ucow_file_read(s->file, buffer, sizeof(buffer), 0);

	if (got >= 0 && got < (long)sizeof(buffer))
		got = ucow_file_read(s->file, buffer, 1, (uint64_t)got); /* what stopped it is what comes next */
	if (got < 0)
		return (int)got;
	got = ucow_file_write(s->file, &value, sizeof(value), 20 * PAGE);
	return got < 0 ? (int)got : 0;
}

static int pin(struct scene *s)
{
	struct ucow_page *pages[NPAGES];
	long got = ucow_pin_user_pages(s->w.cpu, FAR, NPAGES, UCOW_FOLL_LONGTERM, pages);

	if (got > 0)
		ucow_unpin_user_pages(pages, (size_t)got);
	return got < 0 ? (int)got : 0;
}

static int snapshot(struct scene *s)
{
	struct ucow_mm *mm = NULL;
	int rc = ucow_snapshot(s->w.mm, &mm);

	if (!rc)
		REQUIRE_EQ(ucow_mm_destroy(mm), 0);
	return rc;
}

static bool is_allowed(unsigned kinds, int rc)
{
	if (kinds == UCOW_INJECT_ALL)
		return rc == 0 || rc == -ENOMEM;
	return rc == 0 || rc == -EIO || rc == -ENXIO || rc == -EFAULT;
}

/* Returns: whether the N-th was reached. */
static bool fail_once(int (*operation)(struct scene *s), bool in_memory, unsigned kinds, uint64_t n)
{
	struct scene s = scene_open(in_memory);
	bool fired;
	int rc;

	if (operation == cut_off_with_a_child) {
		s.child = fork_mm(s.w.mm);
		s.child_cpu = cpu_on(s.child);
	}
	ucow_machine_inject(s.w.machine, kinds, n);
	rc = operation(&s);
	fired = !ucow_machine_inject(s.w.machine, kinds, 0);
	if (!is_allowed(kinds, rc))
		printf("# %s, failure %lu: %d\n", in_memory ? "memory" : "a file", (unsigned long)n, rc);
	REQUIRE(is_allowed(kinds, rc));
	REQUIRE(fired || !rc);
	check_invariants(s.w.machine);
	check_contents(&s);
	if (rc)
		REQUIRE_EQ(operation(&s), 0);
	check_invariants(s.w.machine);
	check_contents(&s);
	scene_close(&s);
	return fired;
}

static void fail_everywhere(int (*operation)(struct scene *s), bool has_host_io)
{
	for (int in_memory = 0; in_memory < 2; in_memory++) {
		uint64_t n = 1;

		while (fail_once(operation, in_memory, UCOW_INJECT_ALL, n))
			REQUIRE(++n < MAX_N);
		for (n = 1; !in_memory && fail_once(operation, in_memory, UCOW_INJECT_READ, n); n++)
			REQUIRE(n < MAX_N);
		CHECK(in_memory || !has_host_io || n > 1);
		for (n = 1; !in_memory && fail_once(operation, in_memory, UCOW_INJECT_WRITE, n); n++)
			REQUIRE(n < MAX_N);
	}
}

TEST(loading)
{
	fail_everywhere(load_everything, true);
}

TEST(storing)
{
	fail_everywhere(store_everything, true);
}

TEST(opening_and_mapping)
{
	fail_everywhere(map_again, false);
}

TEST(forking)
{
	fail_everywhere(fork_and_store, true);
}

TEST(a_snapshot)
{
	fail_everywhere(snapshot, false);
}

TEST(moving)
{
	fail_everywhere(move_about, false);
}

TEST(truncating)
{
	fail_everywhere(cut_off, false);
}

TEST(truncating_what_a_child_shares)
{
	fail_everywhere(cut_off_with_a_child, false);
}

TEST(making_a_hole)
{
	fail_everywhere(punch, false);
}

TEST(reading_and_writing)
{
	fail_everywhere(read_and_write, true);
}

TEST(pinning)
{
	fail_everywhere(pin, true);
}

TAP_MAIN()
