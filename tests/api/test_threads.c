/* SPDX-License-Identifier: MIT */
/*
 * Several threads, one space and one cpu each at any time, on one machine: frames, tables and references are shared
 * between them, spaces are not. Seeded; run under ThreadSanitizer as well.
 */
#include "fixture.h"

#include <pthread.h>

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

enum { THREADS = 4, PAGES = 48, STEPS = SANITIZED ? 300 : 3000 };

/* A thread's failure is told to the test, which alone may fail. */
struct worker {
	pthread_t thread;
	struct ucow_machine *machine;
	struct ucow_mm *mm;
	uint64_t va, seed;
	char wrong[200];
};

#define EXPECT(w, cond)                                                                                   \
	do {                                                                                              \
		if (!(cond) && !(w)->wrong[0])                                                            \
			snprintf((w)->wrong, sizeof((w)->wrong), "%s:%d: %s", __FILE__, __LINE__, #cond); \
	} while (0)

static void run_workers(struct worker *workers, void *(*run)(void *))
{
	for (int i = 0; i < THREADS; i++)
		REQUIRE_EQ(pthread_create(&workers[i].thread, NULL, run, &workers[i]), 0);
	for (int i = 0; i < THREADS; i++)
		REQUIRE_EQ(pthread_join(workers[i].thread, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		if (workers[i].wrong[0]) {
			printf("# thread %d: %s\n", i, workers[i].wrong);
			REQUIRE(!"a thread saw something wrong");
		}
}

/* What a thread knows of its space: one value a page. */
struct life {
	struct worker *w;
	struct ucow_cpu *cpu;
	uint64_t values[PAGES];
	uint64_t state;
};

static void check_page(struct life *l, unsigned i)
{
	uint64_t value = 0;

	EXPECT(l->w, ucow_load_u64(l->cpu, l->w->va + i * PAGE, &value) == 0);
	EXPECT(l->w, value == l->values[i]);
}

static void store_page(struct life *l, unsigned i)
{
	l->values[i] = draw(&l->state);
	EXPECT(l->w, ucow_store_u64(l->cpu, l->w->va + i * PAGE, l->values[i]) == 0);
}

/* A child of this thread's space lives for a moment; the stores on either side stay there. */
static void fork_step(struct life *l)
{
	uint64_t value = 0, i = draw(&l->state) % PAGES;
	struct ucow_mm *child = NULL;

	EXPECT(l->w, ucow_fork(l->w->mm, &child) == 0);
	if (!child)
		return;
	ucow_cpu_attach(l->cpu, child);
	EXPECT(l->w, ucow_store_u64(l->cpu, l->w->va + i * PAGE, ~l->values[i]) == 0);
	ucow_cpu_attach(l->cpu, l->w->mm);
	EXPECT(l->w, ucow_load_u64(l->cpu, l->w->va + i * PAGE, &value) == 0 && value == l->values[i]);
	EXPECT(l->w, ucow_mm_destroy(child) == 0);
}

static void pin_step(struct life *l)
{
	uint64_t i = draw(&l->state) % PAGES;
	bool write = draw(&l->state) % 2;
	struct ucow_page *page = NULL;
	struct ucow_mm *child = NULL;

	EXPECT(l->w, ucow_pin_user_pages_fast(l->cpu, l->w->va + i * PAGE, 1,
					      UCOW_FOLL_LONGTERM | (write ? UCOW_FOLL_WRITE : 0), &page) == 1);
	if (!page)
		return;
	EXPECT(l->w, ucow_fork(l->w->mm, &child) == 0);
	store_page(l, (unsigned)i);
	EXPECT(l->w, device_read64(page) == l->values[i]);
	if (write) {
		l->values[i] = draw(&l->state);
		device_write64(page, l->values[i]);
	}
	ucow_unpin_user_pages(&page, 1);
	if (child)
		EXPECT(l->w, ucow_mm_destroy(child) == 0);
}

static void get_step(struct life *l)
{
	uint64_t i = draw(&l->state) % PAGES;
	struct ucow_page *page = NULL;

	EXPECT(l->w, ucow_get_user_pages(l->cpu, l->w->va + i * PAGE, 1, 0, &page) == 1);
	if (!page)
		return;
	EXPECT(l->w, device_read64(page) == l->values[i]);
	ucow_put_pages(&page, 1);
}

static void step(struct life *l)
{
	unsigned i = (unsigned)(draw(&l->state) % PAGES);

	switch (draw(&l->state) % 12) {
	case 0:
		fork_step(l);
		break;
	case 1:
		pin_step(l);
		break;
	case 2:
		get_step(l);
		break;
	case 3:
		EXPECT(l->w, ucow_madvise(l->w->mm, l->w->va + i * PAGE, PAGE, UCOW_MADV_DONTNEED) == 0);
		l->values[i] = 0;
		break;
	case 4:
	case 5:
	case 6:
		check_page(l, i);
		break;
	default:
		store_page(l, i);
		break;
	}
}

static void *live(void *arg)
{
	struct life l = {.w = arg, .state = ((struct worker *)arg)->seed};

	EXPECT(l.w, ucow_cpu_create(l.w->machine, &l.cpu) == 0);
	if (!l.cpu)
		return NULL;
	ucow_cpu_attach(l.cpu, l.w->mm);
	for (unsigned i = 0; i < PAGES; i++)
		EXPECT(l.w, ucow_load_u64(l.cpu, l.w->va + i * PAGE, &l.values[i]) == 0);
	for (unsigned i = 0; i < STEPS && !l.w->wrong[0]; i++)
		step(&l);
	for (unsigned i = 0; i < PAGES; i++)
		check_page(&l, i);
	ucow_cpu_destroy(l.cpu);
	return NULL;
}

/* Every thread has a child of one space: all begin with the same frames and take them from each other by writing. */
TEST(threads_in_siblings_keep_their_own_bytes)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, PAGES);
	struct worker workers[THREADS] = {0};

	for (unsigned i = 0; i < PAGES; i++)
		put64(w.cpu, va + i * PAGE, 1000 + i);
	for (unsigned i = 0; i < THREADS; i++)
		workers[i] =
			(struct worker){.machine = w.machine, .mm = fork_mm(w.mm), .va = va, .seed = tap_seed() + i};
	run_workers(workers, live);
	for (unsigned i = 0; i < PAGES; i++)
		CHECK_EQ(get64(w.cpu, va + i * PAGE), 1000 + i);
	check_invariants(w.machine);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(ucow_mm_destroy(workers[i].mm), 0);
	world_close(&w);
}

/* Each thread goes on from a child of a child: spaces of different depth share. */
TEST(threads_in_a_line_of_descent_keep_their_own_bytes)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, PAGES);
	struct worker workers[THREADS] = {0};
	struct ucow_mm *last = w.mm;

	for (unsigned i = 0; i < THREADS; i++) {
		ucow_cpu_attach(w.cpu, last);
		for (unsigned k = i; k < PAGES; k += 2)
			put64(w.cpu, va + k * PAGE, 100 * i + k);
		last = fork_mm(last);
		workers[i] = (struct worker){.machine = w.machine, .mm = last, .va = va, .seed = tap_seed() + 100 + i};
	}
	ucow_cpu_attach(w.cpu, w.mm);
	run_workers(workers, live);
	check_invariants(w.machine);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(ucow_mm_destroy(workers[i].mm), 0);
	world_close(&w);
}

static void *add_to_shared(void *arg)
{
	struct worker *w = arg;
	struct ucow_cpu *cpu = NULL;

	EXPECT(w, ucow_cpu_create(w->machine, &cpu) == 0);
	if (!cpu)
		return NULL;
	ucow_cpu_attach(cpu, w->mm);
	for (unsigned i = 0; i < STEPS; i++) {
		uint64_t at = w->va + i % 4 * PAGE, seen = 0;
		bool exchanged = false;

		EXPECT(w, ucow_load_u64(cpu, at, &seen) == 0);
		while (!exchanged && !w->wrong[0])
			EXPECT(w, ucow_cmpxchg_u64(cpu, at, &seen, seen + 1, &exchanged) == 0);
	}
	ucow_cpu_destroy(cpu);
	return NULL;
}

/* Compare-exchange on a shared mapping is one atomic access of the host: no increment is lost. */
TEST(increments_of_shared_memory_are_not_lost)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 4), sum = 0;
	struct worker workers[THREADS] = {0};

	for (unsigned i = 0; i < THREADS; i++)
		workers[i] = (struct worker){.machine = w.machine, .mm = fork_mm(w.mm), .va = va};
	run_workers(workers, add_to_shared);
	for (unsigned i = 0; i < 4; i++)
		sum += get64(w.cpu, va + i * PAGE);
	CHECK_EQ(sum, (uint64_t)THREADS * STEPS);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(ucow_mm_destroy(workers[i].mm), 0);
	world_close(&w);
}

static void *touch_in_order(void *arg)
{
	struct worker *w = arg;
	struct ucow_cpu *cpu = NULL;

	EXPECT(w, ucow_cpu_create(w->machine, &cpu) == 0);
	if (!cpu)
		return NULL;
	ucow_cpu_attach(cpu, w->mm);
	for (unsigned i = 0; i < 40 * PAGES; i++)
		EXPECT(w, ucow_store_u8(cpu, w->va + i * PAGE + w->seed, (uint8_t)(1 + w->seed)) == 0);
	ucow_cpu_destroy(cpu);
	return NULL;
}

/* All threads touch the same shared pages first: one page comes of each, and nobody's byte is lost with another one. */
TEST(first_touches_of_shared_memory_meet_in_one_page)
{
	struct world w = world_open();
	uint64_t va = map_shared(w.mm, 40 * PAGES);
	struct worker workers[THREADS] = {0};
	struct ucow_machine_stat stat;

	for (unsigned i = 0; i < THREADS; i++)
		workers[i] = (struct worker){.machine = w.machine, .mm = fork_mm(w.mm), .va = va, .seed = i};
	run_workers(workers, touch_in_order);
	for (unsigned i = 0; i < 40 * PAGES; i++)
		CHECK_EQ(get64(w.cpu, va + i * PAGE), 0x04030201);
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 40 * PAGES);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(ucow_mm_destroy(workers[i].mm), 0);
	world_close(&w);
}

static void *come_and_go(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < STEPS / 10 && !w->wrong[0]; i++) {
		struct ucow_mm *mm = NULL;
		struct ucow_cpu *cpu = NULL;
		uint64_t va = 0, value = 0;

		EXPECT(w, ucow_mm_create(w->machine, &mm) == 0 && ucow_cpu_create(w->machine, &cpu) == 0);
		if (w->wrong[0])
			break;
		EXPECT(w, ucow_mmap(mm, 0, 8 * PAGE, RW, UCOW_MAP_PRIVATE, &va) == 0);
		ucow_cpu_attach(cpu, mm);
		for (unsigned k = 0; k < 8; k++)
			EXPECT(w, ucow_store_u64(cpu, va + k * PAGE, w->seed + k) == 0);
		for (unsigned k = 0; k < 8; k++)
			EXPECT(w, ucow_load_u64(cpu, va + k * PAGE, &value) == 0 && value == w->seed + k);
		ucow_cpu_destroy(cpu);
		EXPECT(w, ucow_mm_destroy(mm) == 0);
	}
	return NULL;
}

/* Spaces and cpus come and go on all threads at once: frames pass from one thread to another and are zeros each time.
 */
TEST(spaces_come_and_go_on_all_threads)
{
	struct world w = world_open();
	struct worker workers[THREADS] = {0};

	for (unsigned i = 0; i < THREADS; i++)
		workers[i] = (struct worker){.machine = w.machine, .seed = 1000 * (i + 1)};
	run_workers(workers, come_and_go);
	world_close(&w);
}

struct handover {
	struct worker worker;
	struct ucow_page *pages[PAGES];
};

static void *unpin_all(void *arg)
{
	struct worker *w = arg;
	struct handover *h = (struct handover *)(void *)w;

	for (unsigned i = 0; i < PAGES; i++)
		EXPECT(w, device_read64(h->pages[i]) == i);
	ucow_unpin_user_pages(h->pages, PAGES);
	return NULL;
}

/* Pins of one range taken by one thread, released by four others while the owner forks, writes and goes. */
TEST(pins_are_released_on_other_threads)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, PAGES);
	static struct handover handovers[THREADS];

	for (unsigned i = 0; i < PAGES; i++)
		put64(w.cpu, va + i * PAGE, i);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(ucow_pin_user_pages(w.cpu, va, PAGES, UCOW_FOLL_LONGTERM, handovers[i].pages), PAGES);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&handovers[i].worker.thread, NULL, unpin_all, &handovers[i].worker), 0);
	CHECK_EQ(ucow_mm_destroy(fork_mm(w.mm)), 0);
	exit_mm(w.cpu, w.mm);
	w.cpu = NULL;
	w.mm = NULL;
	for (int i = 0; i < THREADS; i++) {
		CHECK_EQ(pthread_join(handovers[i].worker.thread, NULL), 0);
		CHECK_STR_EQ(handovers[i].worker.wrong, "");
	}
	world_close(&w);
}

TAP_MAIN()
