/* SPDX-License-Identifier: MIT */
/*
 * A device that holds a pin writes when it likes, and writeback and reclaim run meanwhile: whatever is reported clean
 * is in the host file, and after unpin and sync everything is. Random schedules by seed, then threads.
 */
#include "file_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum { PAGES = 6, PINS = 5, SCHEDULES = 10000, STEPS = 40 };

/* REQUIRE that says which schedule it was: UCOW_TEST_SEED of it and UCOW_TEST_SCHEDULES=1 repeat it. */
#define HOLDS(run, cond)                                                                       \
	do {                                                                                   \
		if (!(cond)) {                                                                 \
			printf("# in the schedule of seed %lu\n", (unsigned long)(run)->seed); \
			tap_give_up(__FILE__, __LINE__, #cond);                                \
		}                                                                              \
	} while (0)

/* ---- one schedule ---- */

struct pinned {
	struct ucow_page *page; /* NULL: none */
	unsigned number;
	bool write;
};

/* Each page has a word that cpus store to and one that devices write; what they should say is kept here. */
struct run {
	struct world *w;
	uint64_t seed, state; /* of the generator */
	int fd;
	struct ucow_file *file;
	uint64_t va;
	struct ucow_mm *child;
	struct ucow_cpu *child_cpu;
	struct pinned pins[PINS];
	uint64_t by_cpu[PAGES], by_device[PAGES], value;
};

static uint64_t roll(struct run *run, uint64_t n)
{
	return draw(&run->state) % n;
}

static bool is_pinned_for_write(const struct run *run, unsigned number)
{
	for (unsigned i = 0; i < PINS; i++)
		if (run->pins[i].page && run->pins[i].write && run->pins[i].number == number)
			return true;
	return false;
}

/* What nobody would write any more is in the host file. */
static void check_clean(struct run *run)
{
	for (unsigned i = 0; i < PAGES; i++) {
		unsigned flags = ucow_file_page(run->file, i * PAGE);

		if (flags & (UCOW_FILE_PAGE_DIRTY | UCOW_FILE_PAGE_WRITEBACK))
			continue;
		HOLDS(run, !is_pinned_for_write(run, i));
		HOLDS(run, host64(run->fd, i * PAGE) == run->by_cpu[i]);
		HOLDS(run, host64(run->fd, i * PAGE + 8) == run->by_device[i]);
	}
}

static void step_store(struct run *run)
{
	unsigned i = (unsigned)roll(run, PAGES);
	bool by_child = run->child && roll(run, 2);

	put64(by_child ? run->child_cpu : run->w->cpu, run->va + i * PAGE, run->by_cpu[i] = ++run->value);
}

static void step_load(struct run *run)
{
	unsigned i = (unsigned)roll(run, PAGES);

	HOLDS(run, get64(run->w->cpu, run->va + i * PAGE) == run->by_cpu[i]);
	HOLDS(run, get64(run->w->cpu, run->va + i * PAGE + 8) == run->by_device[i]);
}

static void step_write_call(struct run *run)
{
	unsigned i = (unsigned)roll(run, PAGES);

	run->by_cpu[i] = ++run->value;
	HOLDS(run, ucow_file_write(run->file, &run->value, sizeof(run->value), i * PAGE) == sizeof(run->value));
}

static void step_pin(struct run *run)
{
	struct pinned *pin = &run->pins[roll(run, PINS)];
	struct ucow_cpu *cpu = run->child && roll(run, 2) ? run->child_cpu : run->w->cpu;
	unsigned number = (unsigned)roll(run, PAGES), flags = roll(run, 4) ? UCOW_FOLL_WRITE : 0;
	struct ucow_page *page;
	long n;

	if (pin->page)
		return;
	if (roll(run, 2))
		n = ucow_pin_user_pages_fast(cpu, run->va + number * PAGE, 1, flags, &page);
	else
		n = ucow_pin_user_pages(cpu, run->va + number * PAGE, 1, flags, &page);
	HOLDS(run, n == 1);
	*pin = (struct pinned){.page = page, .number = number, .write = flags & UCOW_FOLL_WRITE};
}

static void step_device(struct run *run)
{
	struct pinned *pin = &run->pins[roll(run, PINS)];
	uint64_t *words;

	if (!pin->page)
		return;
	words = ucow_page_address(pin->page);
	if (pin->write)
		words[1] = run->by_device[pin->number] = ++run->value;
	else
		HOLDS(run, words[1] == run->by_device[pin->number]);
}

/* A page was dirty when it was pinned and is not cleaned meanwhile, so that it does not matter whether this says so. */
static void unpin(struct run *run, struct pinned *pin)
{
	if (pin->page && roll(run, 2))
		ucow_unpin_user_pages_dirty_lock(&pin->page, 1, pin->write);
	else if (pin->page)
		ucow_unpin_user_pages(&pin->page, 1);
	pin->page = NULL;
}

static void step_unpin(struct run *run)
{
	unpin(run, &run->pins[roll(run, PINS)]);
}

static void step_sync(struct run *run)
{
	HOLDS(run, ucow_file_sync(run->file) == 0);
	for (unsigned i = 0; i < PAGES; i++) {
		HOLDS(run, host64(run->fd, i * PAGE) == run->by_cpu[i]);
		HOLDS(run, host64(run->fd, i * PAGE + 8) == run->by_device[i]);
	}
	check_clean(run);
}

/* A write fails: that is told, once, and what failed is not taken for clean. */
static void step_sync_fails(struct run *run)
{
	int error;

	ucow_machine_inject(run->w->machine, UCOW_INJECT_WRITE, 1 + roll(run, 3));
	error = ucow_file_sync(run->file);
	HOLDS(run, ucow_machine_inject(run->w->machine, 0, 0) ? !error : error == -EIO);
	check_clean(run);
}

static void step_write_some(struct run *run)
{
	uint64_t from = roll(run, PAGES), n = 1 + roll(run, PAGES - from);
	unsigned flags = roll(run, 2) ? UCOW_WRITEBACK_WAIT : 0;

	HOLDS(run, ucow_file_writeback(run->file, from * PAGE, n * PAGE, flags) >= 0);
	check_clean(run);
}

static void step_msync(struct run *run)
{
	uint64_t from = roll(run, PAGES), n = 1 + roll(run, PAGES - from);
	struct ucow_mm *mm = run->child && roll(run, 2) ? run->child : run->w->mm;

	HOLDS(run, ucow_msync(mm, run->va + from * PAGE, n * PAGE, UCOW_MS_SYNC) == 0);
	check_clean(run);
}

static void step_age(struct run *run)
{
	HOLDS(run, ucow_writeback(run->w->machine, 0, 1 + roll(run, 2 * PAGES)) >= 0);
	check_clean(run);
}

static void step_reclaim(struct run *run)
{
	HOLDS(run, ucow_reclaim(run->w->machine, NULL, 1 + roll(run, PAGES)) >= 0);
	for (unsigned i = 0; i < PINS; i++)
		if (run->pins[i].page)
			HOLDS(run, ucow_file_page(run->file, run->pins[i].number * PAGE) & UCOW_FILE_PAGE_CACHED);
	check_clean(run);
}

static void end_child(struct run *run)
{
	if (run->child)
		exit_mm(run->child_cpu, run->child);
	run->child = NULL;
}

static void step_fork(struct run *run)
{
	if (run->child) {
		end_child(run);
		return;
	}
	run->child = fork_mm(run->w->mm);
	run->child_cpu = cpu_on(run->child);
}

static void step_protect(struct run *run)
{
	HOLDS(run, ucow_mprotect(run->w->mm, run->va, PAGES * PAGE, UCOW_PROT_READ) == 0);
	HOLDS(run, ucow_mprotect(run->w->mm, run->va, PAGES * PAGE, RW) == 0);
}

static void step_forget(struct run *run)
{
	HOLDS(run, ucow_madvise(run->w->mm, run->va, PAGES * PAGE, UCOW_MADV_DONTNEED) == 0);
}

static void (*const steps[])(struct run *run) = {
	step_store, step_store, step_store,   step_store,   step_load,       step_load,       step_write_call,
	step_pin,   step_pin,   step_pin,     step_device,  step_device,     step_device,     step_device,
	step_unpin, step_unpin, step_sync,    step_sync,    step_sync_fails, step_write_some, step_write_some,
	step_msync, step_age,   step_reclaim, step_reclaim, step_fork,       step_protect,    step_forget,
};

static void run_schedule(struct world *w, int fd, uint64_t seed)
{
	struct run run = {.w = w, .seed = seed, .state = seed, .fd = fd};

	HOLDS(&run, ftruncate(fd, 0) == 0);
	HOLDS(&run, ftruncate(fd, PAGES * PAGE) == 0);
	run.file = open_file(w->machine, fd);
	run.va = map_file(w->mm, run.file, PAGES, RW, UCOW_MAP_SHARED);
	for (unsigned i = 0; i < STEPS; i++)
		steps[roll(&run, sizeof(steps) / sizeof(steps[0]))](&run);
	for (unsigned i = 0; i < PINS; i++)
		unpin(&run, &run.pins[i]);
	HOLDS(&run, ucow_file_sync(run.file) == 0);
	for (unsigned i = 0; i < PAGES; i++)
		HOLDS(&run, !(ucow_file_page(run.file, i * PAGE) & UCOW_FILE_PAGE_DIRTY));
	check_clean(&run);
	end_child(&run);
	HOLDS(&run, ucow_munmap(w->mm, run.va, PAGES * PAGE) == 0);
	HOLDS(&run, ucow_file_close(run.file) == 0);
}

static unsigned long schedules(void)
{
	return tap_env("UCOW_TEST_SCHEDULES", SANITIZED ? SCHEDULES / 20 : SCHEDULES);
}

/* One of the four quarters of the schedules. */
static void run_schedules(unsigned quarter)
{
	unsigned long n = (schedules() + 3) / 4;
	struct world w = world_open();
	int fd = host_file(0);

	for (unsigned long i = quarter * n; i < (quarter + 1) * n; i++) {
		run_schedule(&w, fd, tap_seed() + i);
		if (i % 500 == 0)
			check_invariants(w.machine);
	}
	if (n > 20) {
		CHECK(counted(&w, UCOW_COUNTER_WRITEBACK_BOUNCED) > 0);
		CHECK(counted(&w, UCOW_COUNTER_FILE_DROPPED) > 0);
	}
	close(fd);
	world_close(&w);
}

TEST(nothing_that_is_reported_clean_is_lost_in_random_schedules_1)
{
	run_schedules(0);
}

TEST(nothing_that_is_reported_clean_is_lost_in_random_schedules_2)
{
	run_schedules(1);
}

TEST(nothing_that_is_reported_clean_is_lost_in_random_schedules_3)
{
	run_schedules(2);
}

TEST(nothing_that_is_reported_clean_is_lost_in_random_schedules_4)
{
	run_schedules(3);
}

/* ---- threads ---- */

enum { SHARED_PAGES = 16, ROUNDS = SANITIZED ? 60 : 400, DEVICE_WRITES = 40 };

struct crowd {
	struct world w;
	int fd;
	struct ucow_file *file;
	uint64_t va;
	_Atomic bool stop;
};

static void store_atomically(struct ucow_page *page, unsigned word, uint64_t value)
{
	__atomic_store_n((uint64_t *)ucow_page_address(page) + word, value, __ATOMIC_RELAXED);
}

static void *keep_writing_back(void *arg)
{
	struct crowd *crowd = arg;
	struct ucow_file *file = NULL;

	REQUIRE_EQ(ucow_file_reopen(crowd->file, 0, &file), 0);
	while (!atomic_load(&crowd->stop)) {
		REQUIRE_EQ(ucow_file_sync(file), 0);
		REQUIRE(ucow_writeback(crowd->w.machine, 0, UINT64_MAX) >= 0);
		REQUIRE_EQ(ucow_msync(crowd->w.mm, crowd->va, SHARED_PAGES * PAGE, UCOW_MS_SYNC), 0);
		sched_yield();
	}
	REQUIRE_EQ(ucow_file_close(file), 0);
	return NULL;
}

static void *keep_reclaiming(void *arg)
{
	struct crowd *crowd = arg;

	while (!atomic_load(&crowd->stop)) {
		REQUIRE(ucow_reclaim(crowd->w.machine, NULL, SHARED_PAGES / 2) >= 0);
		sched_yield();
	}
	return NULL;
}

/* The only one that stores to word 2 of each page: what it has stored is in the file when its own sync returns. */
static void *keep_storing(void *arg)
{
	struct crowd *crowd = arg;
	struct ucow_cpu *cpu = cpu_on(crowd->w.mm);
	struct ucow_file *file = NULL;
	uint64_t state = 7, value = 0;

	REQUIRE_EQ(ucow_file_reopen(crowd->file, 0, &file), 0);
	while (!atomic_load(&crowd->stop)) {
		uint64_t at = draw(&state) % SHARED_PAGES * PAGE + 16;

		put64(cpu, crowd->va + at, ++value);
		REQUIRE_EQ(get64(cpu, crowd->va + at), value);
		REQUIRE_EQ(ucow_file_sync(file), 0);
		REQUIRE_EQ(host64(crowd->fd, at), value);
	}
	REQUIRE_EQ(ucow_file_close(file), 0);
	ucow_cpu_destroy(cpu);
	return NULL;
}

/* Pin some pages, write to them for a while, let go, sync: every byte is in the file. */
static void device_round(struct crowd *crowd, uint64_t *state, uint64_t *value)
{
	unsigned number = (unsigned)(draw(state) % (SHARED_PAGES - 3));
	uint64_t va = crowd->va + number * PAGE, last[4];
	struct ucow_page *pages[4];

	for (unsigned i = 0; i < 4; i++)
		REQUIRE_EQ(ucow_pin_user_pages_fast(crowd->w.cpu, va + i * PAGE, 1, UCOW_FOLL_WRITE, &pages[i]), 1);
	for (unsigned n = 0; n < DEVICE_WRITES; n++)
		for (unsigned i = 0; i < 4; i++) {
			store_atomically(pages[i], 1, last[i] = ++*value);
			if (n % 8 == 0)
				sched_yield();
		}
	for (unsigned i = 0; i < 4; i++)
		REQUIRE(file_page_is(crowd->file, number + i, UCOW_FILE_PAGE_CACHED));
	if (draw(state) % 2)
		ucow_unpin_user_pages_dirty_lock(pages, 4, true);
	else
		ucow_unpin_user_pages(pages, 4);
	REQUIRE_EQ(ucow_file_sync(crowd->file), 0);
	for (unsigned i = 0; i < 4; i++)
		REQUIRE_EQ(host64(crowd->fd, (number + i) * PAGE + 8), last[i]);
}

static void run_crowd(void *(*const others[])(void *), unsigned nothers)
{
	struct crowd crowd = {.w = world_open(), .fd = host_file(SHARED_PAGES)};
	pthread_t threads[3];
	uint64_t state = tap_seed(), value = 0;

	crowd.file = open_file(crowd.w.machine, crowd.fd);
	crowd.va = map_file(crowd.w.mm, crowd.file, SHARED_PAGES, RW, UCOW_MAP_SHARED);
	for (unsigned i = 0; i < nothers; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, others[i], &crowd), 0);
	for (unsigned i = 0; i < ROUNDS; i++)
		device_round(&crowd, &state, &value);
	atomic_store(&crowd.stop, true);
	for (unsigned i = 0; i < nothers; i++)
		REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
	REQUIRE_EQ(ucow_munmap(crowd.w.mm, crowd.va, SHARED_PAGES * PAGE), 0);
	REQUIRE_EQ(ucow_file_close(crowd.file), 0);
	world_close(&crowd.w);
}

TEST(nothing_that_a_device_writes_is_lost_while_threads_write_back)
{
	void *(*const others[])(void *) = {keep_writing_back, keep_storing};

	run_crowd(others, 2);
}

TEST(nothing_that_a_device_writes_is_lost_while_threads_reclaim)
{
	void *(*const others[])(void *) = {keep_reclaiming, keep_writing_back, keep_storing};

	run_crowd(others, 3);
}

TAP_MAIN()
