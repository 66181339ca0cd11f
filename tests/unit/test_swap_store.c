/* SPDX-License-Identifier: MIT */
/* The swap store: what was written is read back, however it is kept; what fails is told, and nothing else is lost. */
#include "swap/store_internal.h"
#include "tap.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { PAGE = UCOW_PAGE_SIZE, SLOTS = 1024, BATCH = 64 };

/* ---- pages ---- */

enum content { ZEROS, TEXT, HALF, NOISE, CONTENTS };

static uint64_t draw(uint64_t *state, uint64_t n)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % n;
}

/* Nothing, what shrinks to a few bytes, to between a half and three quarters, not at all. Two seeds give two pages. */
static void fill(void *page, enum content content, uint64_t seed)
{
	static const size_t noisy[CONTENTS] = {[TEXT] = 64, [HALF] = 2400, [NOISE] = PAGE};
	uint64_t *words = page;

	memset(page, content == ZEROS ? 0 : (int)(seed % 255) + 1, PAGE);
	for (size_t i = 0; i < noisy[content] / sizeof(*words); i++)
		words[i] = draw(&seed, UINT64_MAX) | 1;
}

static char *map_pages(size_t n)
{
	char *pages = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(pages != MAP_FAILED);
	return pages;
}

/* ---- a store, and what became of the writes ---- */

struct kind {
	const char *name;
	uint32_t flags;
};

static const struct kind kinds[] = {
	{"file", 0},
	{"file without a ring", UCOW_SWAP_NO_URING},
	{"direct", UCOW_SWAP_DIRECT},
	{"direct without a ring", UCOW_SWAP_DIRECT | UCOW_SWAP_NO_URING},
	{"compressed, file", UCOW_SWAP_COMPRESS},
	{"compressed, file without a ring", UCOW_SWAP_COMPRESS | UCOW_SWAP_NO_URING},
	{"compressed, direct", UCOW_SWAP_COMPRESS | UCOW_SWAP_DIRECT},
	{"compressed, direct without a ring", UCOW_SWAP_COMPRESS | UCOW_SWAP_DIRECT | UCOW_SWAP_NO_URING},
	{"memory", UCOW_SWAP_MEMORY},
	{"memory, compressed", UCOW_SWAP_MEMORY | UCOW_SWAP_COMPRESS},
};
struct rig {
	struct swap_store *store;
	struct inject inject;
	char *pages; /* one a slot, as they should be */
	struct swap_write writes[SLOTS];
	_Atomic unsigned done[SLOTS]; /* how often each was called back */
	_Atomic unsigned ndone;
	bool discards; /* done() gives the slot up at once */
};

static void note(void *arg, struct swap_write *write)
{
	struct rig *rig = arg;

	REQUIRE(write == &rig->writes[write->slot]);
	if (rig->discards)
		swap_store_discard(rig->store, write->slot);
	atomic_fetch_add(&rig->done[write->slot], 1);
	atomic_fetch_add(&rig->ndone, 1);
}

static int open_store(struct rig *rig, uint32_t flags, const char *path, uint64_t nbytes)
{
	struct ucow_swap_options options = {.size = sizeof(options), .nbytes = nbytes, .path = path, .flags = flags};

	return swap_store_open(&options, &rig->inject, note, rig, &rig->store);
}

/* Returns: whether this build and this file system have such stores. */
static bool rig_open(struct rig *rig, const struct kind *kind)
{
	int error;

	memset(rig, 0, sizeof(*rig));
	error = open_store(rig, kind->flags, NULL, (uint64_t)SLOTS * PAGE);
	if (error)
		printf("# %s: %s\n", kind->name, strerror(-error));
	if (error == -EOPNOTSUPP && (kind->flags & UCOW_SWAP_COMPRESS))
		return false;
	if (error == -EINVAL && (kind->flags & UCOW_SWAP_DIRECT))
		return false;
	REQUIRE_EQ(error, 0);
	rig->pages = map_pages(SLOTS);
	return true;
}

static void rig_close(struct rig *rig)
{
	REQUIRE_EQ(swap_store_in_flight(rig->store), 0);
	swap_store_close(rig->store);
	munmap(rig->pages, (size_t)SLOTS * PAGE);
}

static char *page_of(struct rig *rig, uint64_t slot)
{
	return rig->pages + slot * PAGE;
}

static void wait_all(struct rig *rig)
{
	while (swap_store_in_flight(rig->store))
		swap_store_reap(rig->store, true);
}

static void submit(struct rig *rig, const uint64_t *slots, unsigned n)
{
	struct swap_write *writes[SLOTS];

	for (unsigned i = 0; i < n; i++) {
		writes[i] = &rig->writes[slots[i]];
		*writes[i] = (struct swap_write){.slot = slots[i], .bytes = page_of(rig, slots[i]), .error = 1};
	}
	swap_store_submit(rig->store, writes, n);
}

static void submit_range(struct rig *rig, uint64_t first, unsigned n)
{
	uint64_t slots[SLOTS];

	for (unsigned i = 0; i < n; i++)
		slots[i] = first + i;
	submit(rig, slots, n);
}

/* All slots, in batches. */
static void write_all(struct rig *rig)
{
	for (unsigned slot = 0; slot < SLOTS; slot += BATCH)
		submit_range(rig, slot, BATCH);
	wait_all(rig);
}

static void fill_all(struct rig *rig, enum content content)
{
	for (unsigned slot = 0; slot < SLOTS; slot++)
		fill(page_of(rig, slot), content == CONTENTS ? (enum content)(slot / 3 % CONTENTS) : content, slot);
}

/* Whether @n slots read as they were written. */
static bool reads_back(struct rig *rig, uint64_t first, unsigned n)
{
	static char *buffer;
	void *bytes[SLOTS];
	unsigned nread = 0;

	if (!buffer)
		buffer = map_pages(SLOTS);
	memset(buffer, 0xaa, (size_t)n * PAGE);
	for (unsigned i = 0; i < n; i++)
		bytes[i] = buffer + (size_t)(n - 1 - i) * PAGE; /* not side by side */
	if (swap_store_read(rig->store, first, bytes, n, &nread) || nread != n)
		return false;
	for (unsigned i = 0; i < n; i++)
		if (memcmp(bytes[i], page_of(rig, first + i), PAGE) != 0)
			return false;
	return true;
}

static struct ucow_swap_stat stat_of(const struct rig *rig)
{
	struct ucow_swap_stat stat = {0};

	swap_store_stat(rig->store, &stat);
	return stat;
}

static void discard_all(struct rig *rig)
{
	for (unsigned slot = 0; slot < SLOTS; slot++)
		swap_store_discard(rig->store, slot);
}

static struct rig rig;

static void for_each_kind(void (*run)(const struct kind *kind))
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && !tap_failed; i++) {
		if (!rig_open(&rig, &kinds[i]))
			continue;
		run(&kinds[i]);
		if (tap_failed)
			printf("# ... in a store that is: %s\n", kinds[i].name);
		else
			rig_close(&rig);
	}
}

/* ---- between the store and the system ---- */

/* What the next transfers meet with: these stand before those of the system's libraries. */
static struct {
	_Atomic unsigned nwrites, nvectors; /* calls of pwritev, and pages in them */
	_Atomic unsigned ncompletions;      /* of the ring */
	size_t most;                        /* bytes in one transfer; 0: no limit */
	unsigned interruptions;             /* transfers that are interrupted first */
	unsigned fails_after;               /* pages that can still be written before error; counts down */
	int error;
	int submit_error;       /* of io_uring_submit ... */
	unsigned submit_errors; /* ... so many times */
	int completion;         /* the result of each request if not 0 */
	bool no_tmpfile;
} meddle;

static size_t limited(const struct iovec *vectors, int n, struct iovec *shorter)
{
	size_t left = meddle.most ? meddle.most : SIZE_MAX, count = 0;

	for (; count < (size_t)n && left; count++) {
		shorter[count] = vectors[count];
		if (shorter[count].iov_len > left)
			shorter[count].iov_len = left;
		left -= shorter[count].iov_len;
	}
	return count;
}

static bool is_interrupted(void)
{
	if (!meddle.interruptions)
		return false;
	meddle.interruptions--;
	errno = EINTR;
	return true;
}

ssize_t pwritev(int fd, const struct iovec *vectors, int n, off_t offset)
{
	struct iovec shorter[RUN_PAGES];
	size_t count;

	REQUIRE(n <= RUN_PAGES);
	atomic_fetch_add(&meddle.nwrites, 1);
	atomic_fetch_add(&meddle.nvectors, (unsigned)n);
	if (is_interrupted())
		return -1;
	if (meddle.error && !meddle.fails_after) {
		errno = meddle.error;
		return -1;
	}
	if (meddle.error && (unsigned)n > meddle.fails_after)
		n = (int)meddle.fails_after;
	if (meddle.error)
		meddle.fails_after -= (unsigned)n;
	count = limited(vectors, n, shorter);
	return syscall(SYS_pwritev, fd, shorter, count, offset, 0);
}

ssize_t preadv(int fd, const struct iovec *vectors, int n, off_t offset)
{
	struct iovec shorter[RUN_PAGES];
	size_t count = limited(vectors, n, shorter);

	return is_interrupted() ? -1 : syscall(SYS_preadv, fd, shorter, count, offset, 0);
}

int open(const char *path, int flags, ...)
{
	mode_t mode = 0;

	if (flags & (O_CREAT | O_TMPFILE)) {
		va_list arguments;

		va_start(arguments, flags);
		mode = va_arg(arguments, mode_t);
		va_end(arguments);
	}
	if (meddle.no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

struct io_uring;
int io_uring_submit(struct io_uring *ring);
unsigned io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **cqes, unsigned n);

int io_uring_submit(struct io_uring *ring)
{
	int (*next)(struct io_uring *) = (int (*)(struct io_uring *))dlsym(RTLD_NEXT, "io_uring_submit");

	if (!meddle.submit_errors)
		return next(ring);
	meddle.submit_errors--;
	return meddle.submit_error;
}

unsigned io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **cqes, unsigned n)
{
	unsigned (*next)(struct io_uring *, struct io_uring_cqe **, unsigned) = (unsigned (*)(
		struct io_uring *, struct io_uring_cqe **, unsigned))dlsym(RTLD_NEXT, "io_uring_peek_batch_cqe");
	unsigned some = next(ring, cqes, n);

	atomic_fetch_add(&meddle.ncompletions, some);
	for (unsigned i = 0; i < some && meddle.completion; i++)
		cqes[i]->res = meddle.completion;
	return some;
}

/* ---- round trips ---- */

static void round_trip(const struct kind *kind)
{
	(void)kind;
	fill_all(&rig, CONTENTS);
	write_all(&rig);
	for (unsigned slot = 0; slot < SLOTS; slot++) {
		CHECK_EQ(rig.writes[slot].error, 0);
		CHECK_EQ(rig.done[slot], 1);
		CHECK(reads_back(&rig, slot, 1));
	}
	for (unsigned n = 2; n <= 300; n += 37)
		for (unsigned slot = 0; slot + n <= SLOTS; slot += n + 13)
			CHECK(reads_back(&rig, slot, n));
}

TEST(what_is_written_is_read_back)
{
	for_each_kind(round_trip);
}

static void write_one(uint64_t slot, enum content content, uint64_t seed)
{
	fill(page_of(&rig, slot), content, seed);
	submit(&rig, &slot, 1);
	wait_all(&rig);
	REQUIRE_EQ(rig.writes[slot].error, 0);
}

/* From every content to every other; in the end nothing is left of any. */
static void write_again(const struct kind *kind)
{
	(void)kind;
	for (unsigned round = 0; round < CONTENTS * CONTENTS; round++) {
		write_one(7, (enum content)(round % CONTENTS), round);
		CHECK(reads_back(&rig, 7, 1));
		write_one(7, (enum content)(round / CONTENTS), round + 100);
		CHECK(reads_back(&rig, 7, 1));
	}
	CHECK_EQ(stat_of(&rig).zero + stat_of(&rig).compressed, swap_store_keeps(rig.store, 7) != SWAP_KEPT_FILE);
	discard_all(&rig);
	CHECK_EQ(stat_of(&rig).zero + stat_of(&rig).compressed + stat_of(&rig).compressed_bytes, 0);
}

TEST(a_slot_written_again_has_the_new_bytes)
{
	for_each_kind(write_again);
}

/* A batch of pages at random slots, in ascending order. */
static unsigned draw_slots(uint64_t *state, uint64_t *slots)
{
	unsigned n = 0;
	uint64_t slot = draw(state, SLOTS / 2);

	while (n < BATCH && slot < SLOTS) {
		slots[n++] = slot;
		slot += draw(state, 4) ? 1 : 1 + draw(state, 9);
	}
	return n;
}

static void random_operations(const struct kind *kind)
{
	uint64_t state = tap_seed(), slots[BATCH];
	bool written[SLOTS] = {false};

	(void)kind;
	for (unsigned step = 0; step < 400; step++) {
		unsigned n = draw_slots(&state, slots);

		if (draw(&state, 4) == 0) {
			for (unsigned i = 0; i < n; i++) {
				swap_store_discard(rig.store, slots[i]);
				written[slots[i]] = false;
			}
			continue;
		}
		for (unsigned i = 0; i < n; i++) {
			fill(page_of(&rig, slots[i]), (enum content)draw(&state, CONTENTS), draw(&state, 1000));
			written[slots[i]] = true;
		}
		submit(&rig, slots, n);
		wait_all(&rig);
		for (unsigned i = 0; i < n; i++)
			CHECK_EQ(rig.writes[slots[i]].error, 0);
		for (unsigned slot = (unsigned)draw(&state, 50); slot < SLOTS; slot += 50)
			CHECK(!written[slot] || reads_back(&rig, slot, 1));
	}
	for (unsigned slot = 0; slot < SLOTS; slot++)
		CHECK(!written[slot] || reads_back(&rig, slot, 1));
}

TEST(random_operations_leave_what_a_plain_array_has)
{
	for_each_kind(random_operations);
}

/* ---- what is kept where ---- */

static void zeros_cost_nothing(const struct kind *kind)
{
	struct ucow_swap_stat stat;

	(void)kind;
	fill_all(&rig, ZEROS);
	write_all(&rig);
	stat = stat_of(&rig);
	CHECK_EQ(stat.zero, SLOTS);
	CHECK_EQ(stat.compressed + stat.compressed_bytes + stat.written, 0);
	CHECK_EQ(swap_store_keeps(rig.store, 5), SWAP_KEPT_ZERO);
	CHECK(reads_back(&rig, 0, SLOTS));
	CHECK_EQ(stat_of(&rig).read, 0);
	for (unsigned at = 0; at < PAGE; at += at < 80 || at > PAGE - 80 ? 1 : 61) {
		memset(page_of(&rig, 9), 0, PAGE);
		page_of(&rig, 9)[at] = 1;
		submit_range(&rig, 9, 1);
		wait_all(&rig);
		CHECK(swap_store_keeps(rig.store, 9) != SWAP_KEPT_ZERO);
		CHECK(reads_back(&rig, 9, 1));
	}
	CHECK_EQ(stat_of(&rig).zero, SLOTS - 1);
}

TEST(zeros_cost_nothing_and_one_byte_is_not_zeros)
{
	for_each_kind(zeros_cost_nothing);
}

/* Whether the library was built with lz4. */
static bool compresses(void)
{
	struct rig other = {0};
	int error = open_store(&other, UCOW_SWAP_MEMORY | UCOW_SWAP_COMPRESS, NULL, PAGE);

	if (!error)
		swap_store_close(other.store);
	return !error;
}

static void kept_as_the_flags_say(const struct kind *kind)
{
	bool memory = kind->flags & UCOW_SWAP_MEMORY, compress = kind->flags & UCOW_SWAP_COMPRESS;
	struct ucow_swap_stat stat;

	for (unsigned content = TEXT; content < CONTENTS; content++)
		write_one(content, (enum content)content, 1);
	CHECK_EQ(swap_store_keeps(rig.store, TEXT), memory || compress ? SWAP_KEPT_MEMORY : SWAP_KEPT_FILE);
	CHECK_EQ(swap_store_keeps(rig.store, HALF), memory ? SWAP_KEPT_MEMORY : SWAP_KEPT_FILE);
	CHECK_EQ(swap_store_keeps(rig.store, NOISE), memory ? SWAP_KEPT_MEMORY : SWAP_KEPT_FILE);
	stat = stat_of(&rig);
	CHECK_EQ(stat.compressed, memory ? 3 : compress);
	CHECK_EQ(stat.written, memory ? 0 : 3 - compress);
	if (memory && compresses()) {
		/* The first to a few bytes, the second to at most three quarters, the third not. */
		CHECK(stat.compressed_bytes >= PAGE + 2400 && stat.compressed_bytes <= PAGE + PAGE / 4 * 3 + 256);
	} else if (memory) {
		CHECK_EQ(stat.compressed_bytes, 3 * PAGE);
	} else {
		CHECK(stat.compressed_bytes >= compress * 64u && stat.compressed_bytes <= compress * 256u);
	}
}

TEST(pages_are_kept_as_the_flags_say)
{
	for_each_kind(kept_as_the_flags_say);
}

static unsigned areas_of(const struct swap_store *store)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < store->blobs.nareas; i++)
		n += store->blobs.areas[i] != NULL;
	return n;
}

/* Pieces of all sizes come and go in any order; in the end, one area at most is held back. */
TEST(memory_goes_back_when_slots_are_discarded)
{
	enum { MANY = 40000 };
	static struct blob blobs[MANY];
	static size_t sizes[MANY];
	struct swap_store *store;
	uint64_t state = tap_seed();

	memset(&rig, 0, sizeof(rig));
	REQUIRE_EQ(open_store(&rig, UCOW_SWAP_MEMORY, NULL, (uint64_t)MANY * PAGE), 0);
	store = rig.store;
	for (unsigned step = 0; step < 6 * MANY; step++) {
		unsigned i = (unsigned)draw(&state, MANY);
		unsigned *bytes;

		if (sizes[i]) {
			bytes = blob_bytes(&store->blobs, blobs[i]);
			CHECK(bytes[0] == i && bytes[blob_size(sizes[i]) / sizeof(*bytes) - 1] == i);
			blob_free(&store->blobs, blobs[i], sizes[i]);
			sizes[i] = 0;
			continue;
		}
		sizes[i] = 1 + draw(&state, PAGE);
		REQUIRE_EQ(blob_alloc(&store->blobs, sizes[i], &blobs[i]), 0);
		bytes = blob_bytes(&store->blobs, blobs[i]);
		bytes[0] = bytes[blob_size(sizes[i]) / sizeof(*bytes) - 1] = i;
	}
	CHECK(areas_of(store) > 5);
	for (unsigned i = 0; i < MANY; i++)
		if (sizes[i])
			blob_free(&store->blobs, blobs[i], sizes[i]);
	CHECK(areas_of(store) <= 1);
	CHECK_EQ(store->blobs.nempty, areas_of(store) * BLOB_AREA_CHUNKS);
	swap_store_close(store);
}

/* ---- requests ---- */

TEST(neighbours_go_to_the_file_in_one_request)
{
	static const uint64_t slots[] = {3, 4, 5, 9, 10, 20};

	rig_open(&rig, &(struct kind){"file without a ring", UCOW_SWAP_NO_URING});
	fill_all(&rig, NOISE);
	submit_range(&rig, 100, RUN_PAGES);
	CHECK_EQ(meddle.nwrites, 1);
	CHECK_EQ(meddle.nvectors, RUN_PAGES);
	submit(&rig, slots, 6);
	CHECK_EQ(meddle.nwrites, 1 + 3);
	submit_range(&rig, 200, 3 * RUN_PAGES + 1);
	CHECK_EQ(meddle.nwrites, 1 + 3 + 4);
	memset(page_of(&rig, 401), 0, PAGE); /* which parts its neighbours */
	submit_range(&rig, 400, 3);
	CHECK_EQ(meddle.nwrites, 1 + 3 + 4 + 2);
	CHECK_EQ(stat_of(&rig).written, RUN_PAGES + 6 + 3 * RUN_PAGES + 1 + 2);
	rig_close(&rig);
}

TEST(neighbours_go_to_the_ring_in_one_request)
{
	rig_open(&rig, &(struct kind){"file", 0});
	if (!rig.store->ring)
		SKIP("no io_uring here");
	fill_all(&rig, NOISE);
	submit_range(&rig, 100, RUN_PAGES);
	submit_range(&rig, 300, 2 * RUN_PAGES);
	wait_all(&rig);
	CHECK_EQ(meddle.ncompletions, 3);
	CHECK_EQ(meddle.nwrites, 0);
	CHECK(reads_back(&rig, 100, RUN_PAGES) && reads_back(&rig, 300, 2 * RUN_PAGES));
	rig_close(&rig);
}

/* More single pages at once than a ring takes. */
TEST(a_full_ring_is_waited_for)
{
	uint64_t slots[SLOTS / 2];

	rig_open(&rig, &(struct kind){"file", 0});
	fill_all(&rig, NOISE);
	for (unsigned i = 0; i < SLOTS / 2; i++)
		slots[i] = 2 * i;
	submit(&rig, slots, SLOTS / 2);
	wait_all(&rig);
	CHECK_EQ(rig.ndone, SLOTS / 2);
	for (unsigned i = 0; i < SLOTS / 2; i++)
		CHECK(reads_back(&rig, slots[i], 1));
	rig_close(&rig);
}

/* ---- failures ---- */

static void injected_writes_fail(const struct kind *kind)
{
	enum { N = 12 };

	(void)kind;
	for (unsigned nth = 1; nth <= N; nth++) {
		void *bytes = page_of(&rig, SLOTS - 1);
		unsigned nread;

		fill_all(&rig, CONTENTS);
		inject_arm(&rig.inject, UCOW_INJECT_WRITE, nth);
		submit_range(&rig, 0, N);
		wait_all(&rig);
		CHECK(!inject_arm(&rig.inject, 0, 0));
		for (unsigned slot = 0; slot < N; slot++) {
			CHECK_EQ(rig.writes[slot].error, slot == nth - 1 ? -EIO : 0);
			if (slot != nth - 1)
				CHECK(reads_back(&rig, slot, 1));
		}
		CHECK_EQ(stat_of(&rig).write_errors, nth);
		/* What was there before is gone, and is not handed out. */
		CHECK_EQ(swap_store_read(rig.store, nth - 1, &bytes, 1, &nread), -EIO);
		CHECK_EQ(nread, 0);
	}
}

TEST(an_injected_failure_is_the_failure_of_one_write)
{
	for_each_kind(injected_writes_fail);
}

static void injected_reads_fail(const struct kind *kind)
{
	enum { N = 12 };
	char *buffer = map_pages(N);
	void *bytes[N];

	(void)kind;
	for (unsigned i = 0; i < N; i++)
		bytes[i] = buffer + (size_t)i * PAGE;
	fill_all(&rig, CONTENTS);
	write_all(&rig);
	for (unsigned nth = 1; nth <= N; nth++) {
		unsigned nread;

		memset(buffer, 0xaa, (size_t)N * PAGE);
		inject_arm(&rig.inject, UCOW_INJECT_READ, nth);
		CHECK_EQ(swap_store_read(rig.store, 0, bytes, N, &nread), -EIO);
		CHECK_EQ(nread, nth - 1);
		CHECK(memcmp(buffer, rig.pages, (size_t)nread * PAGE) == 0);
		CHECK_EQ(stat_of(&rig).read_errors, nth);
		CHECK(reads_back(&rig, 0, N));
	}
	munmap(buffer, (size_t)N * PAGE);
}

TEST(an_injected_failure_ends_a_read_at_its_page)
{
	for_each_kind(injected_reads_fail);
}

/* Transfers end early, within a page or not, and are interrupted. */
TEST(short_transfers_are_continued)
{
	rig_open(&rig, &(struct kind){"file without a ring", UCOW_SWAP_NO_URING});
	fill_all(&rig, NOISE);
	for (meddle.most = PAGE; meddle.most < 6 * PAGE; meddle.most += 1000) {
		meddle.interruptions = 3;
		submit_range(&rig, 17, 40);
		for (unsigned slot = 17; slot < 57; slot++)
			CHECK_EQ(rig.writes[slot].error, 0);
		meddle.interruptions = 3;
		CHECK(reads_back(&rig, 17, 40));
		fill_all(&rig, meddle.most % 3 ? NOISE : HALF);
	}
	CHECK_EQ(stat_of(&rig).write_errors + stat_of(&rig).read_errors, 0);
	rig_close(&rig);
}

TEST(what_fits_is_written_and_the_rest_fails)
{
	void *bytes = map_pages(1);
	unsigned nread;

	rig_open(&rig, &(struct kind){"file without a ring", UCOW_SWAP_NO_URING});
	fill_all(&rig, NOISE);
	meddle.error = ENOSPC;
	meddle.fails_after = 5;
	submit_range(&rig, 30, 20);
	for (unsigned slot = 30; slot < 50; slot++)
		CHECK_EQ(rig.writes[slot].error, slot < 35 ? 0 : -ENOSPC);
	CHECK_EQ(stat_of(&rig).write_errors, 15);
	CHECK_EQ(stat_of(&rig).written, 5);
	CHECK(reads_back(&rig, 30, 5));
	/* Not what the file happens to have there. */
	CHECK_EQ(swap_store_read(rig.store, 35, &bytes, 1, &nread), -EIO);
	meddle.error = 0;
	submit_range(&rig, 35, 15);
	CHECK(reads_back(&rig, 30, 20));
	rig_close(&rig);
}

/* The host's limit stands for a full disk; the request that meets it is written in part. */
static void short_of_room(const struct kind *kind)
{
	struct rlimit limit = {.rlim_max = RLIM_INFINITY}, before;

	if (kind->flags & (UCOW_SWAP_MEMORY | UCOW_SWAP_COMPRESS))
		return;
	fill_all(&rig, NOISE);
	limit.rlim_cur = 40 * PAGE + (kind->flags & UCOW_SWAP_DIRECT ? 0 : 100);
	getrlimit(RLIMIT_FSIZE, &before);
	limit.rlim_max = before.rlim_max;
	REQUIRE_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	submit_range(&rig, 10, 60);
	wait_all(&rig);
	REQUIRE_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
	for (unsigned slot = 10; slot < 70; slot++) {
		if (slot < 40)
			CHECK_EQ(rig.writes[slot].error, 0);
		else
			CHECK(rig.writes[slot].error == -EFBIG || rig.writes[slot].error == -ENOSPC);
	}
	CHECK(reads_back(&rig, 10, 30));
	CHECK_EQ(stat_of(&rig).write_errors, 30);
	submit_range(&rig, 40, 30);
	wait_all(&rig);
	CHECK(reads_back(&rig, 10, 60));
}

TEST(a_device_short_of_room_takes_what_fits)
{
	signal(SIGXFSZ, SIG_IGN);
	for_each_kind(short_of_room);
}

/* ---- the ring ---- */

static void check_ring_writes(void)
{
	fill_all(&rig, NOISE);
	write_all(&rig);
	for (unsigned slot = 0; slot < SLOTS; slot++)
		CHECK_EQ(rig.writes[slot].error, 0);
	CHECK(reads_back(&rig, 0, SLOTS));
	CHECK_EQ(rig.ndone, SLOTS);
	CHECK_EQ(stat_of(&rig).written, SLOTS);
	CHECK_EQ(stat_of(&rig).write_errors, 0);
	rig_close(&rig);
}

TEST(a_ring_that_is_busy_is_asked_again)
{
	rig_open(&rig, &(struct kind){"file", 0});
	if (!rig.store->ring)
		SKIP("no io_uring here");
	meddle.submit_error = -EAGAIN;
	meddle.submit_errors = 10;
	check_ring_writes();
	CHECK_GO_ON();
	CHECK_EQ(meddle.nwrites, 0);
}

TEST(a_ring_that_is_refused_is_done_without)
{
	rig_open(&rig, &(struct kind){"file", 0});
	if (!rig.store->ring)
		SKIP("no io_uring here");
	meddle.submit_error = -EPERM;
	meddle.submit_errors = 1;
	check_ring_writes();
	CHECK_GO_ON();
	CHECK_EQ(meddle.nwrites, SLOTS / BATCH);
	CHECK_EQ(meddle.ncompletions, 0);
}

TEST(what_the_ring_did_not_write_is_written_after_all)
{
	static const int results[] = {-EINTR, -EAGAIN, -ECANCELED, -EIO, 0, 100, PAGE, 5 * PAGE + 100};

	for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
		rig_open(&rig, &(struct kind){"file", 0});
		if (!rig.store->ring)
			SKIP("no io_uring here");
		meddle.nwrites = 0;
		meddle.completion = results[i];
		check_ring_writes();
		CHECK_GO_ON();
		CHECK_EQ(meddle.nwrites, results[i] ? SLOTS / BATCH : 0);
	}
}

/* ---- the file ---- */

/* The only descriptor of a file in @folder, or of one without a name. */
static int find_descriptor(struct stat *status)
{
	for (int fd = 3; fd < 100; fd++)
		if (!fstat(fd, status) && S_ISREG(status->st_mode) && status->st_size == (off_t)SLOTS * PAGE)
			return fd;
	return -1;
}

static char folder[100];

static void make_folder(void)
{
	strcpy(folder, "/var/tmp/ucow-test-XXXXXX");
	REQUIRE(mkdtemp(folder));
}

static const char *in_folder(const char *name)
{
	static char path[200];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static unsigned files_in_folder(void)
{
	DIR *stream = opendir(folder);
	unsigned n = 0;

	REQUIRE(stream);
	while (readdir(stream))
		n++;
	closedir(stream);
	return n - 2;
}

static void check_temporary(void)
{
	struct stat status;
	int fd;

	make_folder();
	setenv("TMPDIR", folder, 1);
	umask(0);
	rig_open(&rig, &(struct kind){"file", 0});
	CHECK_EQ(files_in_folder(), 0);
	fd = find_descriptor(&status);
	CHECK(fd >= 0);
	CHECK_EQ(status.st_nlink, 0);
	CHECK_EQ(status.st_mode & 07777, 0600);
	CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	rig_close(&rig);
	CHECK_EQ(files_in_folder(), 0);
	CHECK_EQ(fcntl(fd, F_GETFD), -1);
	REQUIRE_EQ(rmdir(folder), 0);
}

TEST(a_temporary_file_has_no_name_and_is_its_owners)
{
	check_temporary();
}

TEST(so_it_is_where_files_cannot_be_made_without_a_name)
{
	meddle.no_tmpfile = true;
	check_temporary();
}

static int open_named(const char *path, uint32_t flags)
{
	return open_store(&rig, flags, path, (uint64_t)SLOTS * PAGE);
}

TEST(a_named_file_is_its_owners_and_stays)
{
	struct rig other = {0};
	struct stat status;
	const char *path;
	int fd;

	make_folder();
	umask(0);
	path = in_folder("swap");
	fd = open(path, O_CREAT | O_WRONLY, 0666);
	REQUIRE(fd >= 0 && write(fd, "secret", 6) == 6 && !close(fd));
	memset(&rig, 0, sizeof(rig));
	CHECK_EQ(open_named(path, 0), 0);
	rig.pages = map_pages(SLOTS);
	CHECK_EQ(stat(path, &status), 0);
	CHECK_EQ(status.st_mode & 07777, 0600);
	CHECK_EQ(status.st_size, (off_t)SLOTS * PAGE);
	/* Two stores in one file would overwrite each other. */
	CHECK_EQ(open_store(&other, 0, path, PAGE), -EBUSY);
	fill_all(&rig, NOISE);
	write_all(&rig);
	CHECK(reads_back(&rig, 0, SLOTS));
	/* Somebody cuts it. */
	REQUIRE_EQ(truncate(path, 10 * PAGE + 100), 0);
	CHECK(reads_back(&rig, 0, 10));
	CHECK(!reads_back(&rig, 10, 1) && !reads_back(&rig, 20, 1));
	CHECK_EQ(stat_of(&rig).read_errors, 2);
	rig_close(&rig);
	CHECK_EQ(stat(path, &status), 0);
	CHECK_EQ(open_named(path, UCOW_SWAP_NO_URING), 0);
	swap_store_close(rig.store);
	REQUIRE(!unlink(path) && !rmdir(folder));
}

TEST(what_is_no_regular_file_is_refused)
{
	struct stat status;
	int fd;

	make_folder();
	memset(&rig, 0, sizeof(rig));
	CHECK_EQ(open_named(folder, 0), -EISDIR);
	CHECK_EQ(open_named("/dev/null", 0), -EINVAL);
	CHECK_EQ(open_named(in_folder("missing/file"), 0), -ENOENT);
	REQUIRE_EQ(mkfifo(in_folder("fifo"), 0600), 0);
	CHECK_EQ(open_named(in_folder("fifo"), 0), -EINVAL);
	fd = open(in_folder("precious"), O_CREAT | O_WRONLY, 0644);
	REQUIRE(fd >= 0 && write(fd, "precious", 8) == 8 && !close(fd));
	REQUIRE_EQ(symlink("precious", in_folder("link")), 0);
	CHECK_EQ(open_named(in_folder("link"), 0), -ELOOP);
	CHECK_EQ(stat(in_folder("precious"), &status), 0);
	CHECK(status.st_size == 8 && (status.st_mode & 0777) == 0644);
	CHECK_EQ(find_descriptor(&status), -1);
	REQUIRE(!unlink(in_folder("fifo")) && !unlink(in_folder("link")) && !unlink(in_folder("precious")));
	setenv("TMPDIR", in_folder("missing"), 1);
	CHECK_EQ(open_named(NULL, 0), -ENOENT);
	REQUIRE_EQ(rmdir(folder), 0);
}

TEST(the_last_page_is_a_whole_one)
{
	static const uint32_t flags[] = {0, UCOW_SWAP_NO_URING, UCOW_SWAP_MEMORY};

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		memset(&rig, 0, sizeof(rig));
		REQUIRE_EQ(open_store(&rig, flags[i], NULL, PAGE + 1), 0);
		rig.pages = map_pages(SLOTS);
		fill_all(&rig, NOISE);
		submit_range(&rig, 0, 2);
		wait_all(&rig);
		CHECK(reads_back(&rig, 0, 2));
		rig_close(&rig);
	}
}

/* ---- threads ---- */

/*
 * Each thread has every fourth slot, writes, reads back what it wrote last time, and gives slots up; whoever reaps
 * completes the writes of all.
 */
enum { THREADS = 4, ROUNDS = 60, PART = SLOTS / THREADS };

static unsigned pick(uint64_t *state, unsigned thread, uint64_t *slots)
{
	unsigned n = 0;

	for (uint64_t slot = thread * PART; slot < (thread + 1) * PART && n < BATCH; slot++)
		if (draw(state, 3) && atomic_load(&rig.done[slot]))
			slots[n++] = slot;
	return n;
}

static bool work_once(uint64_t *state, unsigned thread)
{
	uint64_t slots[BATCH];
	unsigned n = pick(state, thread, slots);
	void *bytes = aligned_alloc(PAGE, PAGE);
	bool good = bytes != NULL;

	for (unsigned i = 0; i < n && good; i++) {
		unsigned nread;

		if (rig.writes[slots[i]].owner && !rig.discards)
			good = !swap_store_read(rig.store, slots[i], &bytes, 1, &nread) &&
			       !memcmp(bytes, page_of(&rig, slots[i]), PAGE);
		fill(page_of(&rig, slots[i]), (enum content)draw(state, CONTENTS), draw(state, 1000));
		atomic_store(&rig.done[slots[i]], 0);
		rig.writes[slots[i]] = (struct swap_write){
			.slot = slots[i],
			.bytes = page_of(&rig, slots[i]),
			.owner = &rig,
		};
	}
	if (good) {
		struct swap_write *writes[BATCH];

		for (unsigned i = 0; i < n; i++)
			writes[i] = &rig.writes[slots[i]];
		swap_store_submit(rig.store, writes, n);
		swap_store_reap(rig.store, draw(state, 2));
	}
	free(bytes);
	return good;
}

static void *work(void *arg)
{
	unsigned thread = (unsigned)(uintptr_t)arg;
	uint64_t state = tap_seed() + thread;

	for (unsigned round = 0; round < ROUNDS; round++)
		if (!work_once(&state, thread))
			return NULL;
	/* More than its own, perhaps; but it must come to an end. */
	wait_all(&rig);
	return &rig;
}

static void threads_share(const struct kind *kind)
{
	pthread_t threads[THREADS];

	(void)kind;
	for (unsigned slot = 0; slot < SLOTS; slot++)
		atomic_store(&rig.done[slot], 1);
	for (uintptr_t i = 0; i < THREADS; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, work, (void *)i), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		void *result = NULL;

		REQUIRE_EQ(pthread_join(threads[i], &result), 0);
		CHECK(result == &rig);
	}
	CHECK_EQ(stat_of(&rig).write_errors + stat_of(&rig).read_errors, 0);
	for (unsigned slot = 0; slot < SLOTS; slot++)
		CHECK(!rig.writes[slot].owner || rig.discards || reads_back(&rig, slot, 1));
	if (rig.discards)
		CHECK_EQ(stat_of(&rig).zero + stat_of(&rig).compressed + stat_of(&rig).compressed_bytes, 0);
}

TEST(threads_submit_and_reap_at_once)
{
	for_each_kind(threads_share);
}

static void threads_give_up(const struct kind *kind)
{
	rig.discards = true;
	threads_share(kind);
}

TEST(slots_may_be_given_up_as_they_are_written)
{
	for_each_kind(threads_give_up);
}

TAP_MAIN()
