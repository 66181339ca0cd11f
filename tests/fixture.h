/* SPDX-License-Identifier: MIT */
/*
 * A world for a test: a machine, one space and one cpu on it, short forms of the calls that tests make all the time,
 * and a teardown that insists on balance. The short forms end the test when they fail; calls whose result is the
 * subject of a test are made directly.
 */
#ifndef UCOW_TESTS_FIXTURE_H
#define UCOW_TESTS_FIXTURE_H

#include "tap.h"

#include <ucow/ucow.h>

#define PAGE UCOW_PAGE_SIZE
#define RW   (UCOW_PROT_READ | UCOW_PROT_WRITE)
/* 16 pages below a 2 MiB boundary: ranges from here cross leaf tables and what lies above them. */
#define BASE ((uint64_t)0x40000000 - 16 * PAGE)

struct world {
	struct ucow_machine *machine;
	struct ucow_mm *mm;
	struct ucow_cpu *cpu;
	struct ucow_machine_stat before;
};

/*
 * The fork mode that the tests run in, by UCOW_TEST_FORK; eager without it. Contents, pins, errors and frames in common
 * are the same in every mode. Flags of entries right after a fork, mapcounts below shared tables and counts of faults
 * are Linux's in eager mode, and tests ask about them there only.
 */
static inline enum ucow_fork_mode fork_mode(void)
{
	const char *name = getenv("UCOW_TEST_FORK");
	enum ucow_fork_mode mode = UCOW_FORK_EAGER;

	if (name && *name)
		REQUIRE_EQ(ucow_fork_mode_parse(name, &mode), 0);
	return mode;
}

static inline bool fork_is_eager(void)
{
	return fork_mode() == UCOW_FORK_EAGER;
}

/* A fork that touches no page: after the child's exit the parent owes no fault. */
static inline bool fork_is_lazy(void)
{
	return fork_mode() == UCOW_FORK_LAZY;
}

/* CHECK of something that only an eager fork promises. */
#define CHECK_EAGER(cond)            \
	do {                         \
		if (fork_is_eager()) \
			CHECK(cond); \
	} while (0)
#define CHECK_EAGER_EQ(a, b)            \
	do {                            \
		if (fork_is_eager())    \
			CHECK_EQ(a, b); \
	} while (0)

static inline struct ucow_machine_options default_options(void)
{
	return (struct ucow_machine_options){
		.size = sizeof(struct ucow_machine_options),
		.ram_bytes = (uint64_t)32 << 20,
		.fork_mode = fork_mode(),
		.flags = UCOW_MACHINE_POISON,
	};
}

static inline void check_invariants(struct ucow_machine *machine)
{
	char why[300] = "";
	int rc = ucow_machine_check(machine, why, sizeof(why));

	if (rc)
		printf("# ucow_machine_check: %d: %s\n", rc, why);
	REQUIRE_EQ(rc, 0);
}

static inline struct world world_open_with(const struct ucow_machine_options *options)
{
	struct world w = {0};

	REQUIRE_EQ(ucow_machine_create(options, &w.machine), 0);
	ucow_machine_stat(w.machine, &w.before);
	REQUIRE_EQ(ucow_mm_create(w.machine, &w.mm), 0);
	REQUIRE_EQ(ucow_cpu_create(w.machine, &w.cpu), 0);
	ucow_cpu_attach(w.cpu, w.mm);
	return w;
}

static inline struct world world_open(void)
{
	struct ucow_machine_options options = default_options();

	return world_open_with(&options);
}

static inline struct world world_open_policy(enum ucow_policy policy)
{
	struct ucow_machine_options options = default_options();

	options.policy = policy;
	if (policy != UCOW_POLICY_EXCLUSIVE)
		options.fork_mode = UCOW_FORK_EAGER; /* the only one that the others have */
	return world_open_with(&options);
}

/* Nothing is left of the test: frames, tables, references, spaces as at the start. */
static inline void check_balance(struct ucow_machine *machine, const struct ucow_machine_stat *before)
{
	struct ucow_machine_stat now;

	check_invariants(machine);
	ucow_machine_stat(machine, &now);
	REQUIRE_EQ(now.used_pages, before->used_pages);
	REQUIRE_EQ(now.table_bytes, before->table_bytes);
	REQUIRE_EQ(now.spaces, before->spaces);
	REQUIRE_EQ(now.gets, before->gets);
	REQUIRE_EQ(now.pins, before->pins);
}

static inline void world_close(struct world *w)
{
	ucow_cpu_destroy(w->cpu);
	if (w->mm)
		REQUIRE_EQ(ucow_mm_destroy(w->mm), 0);
	check_balance(w->machine, &w->before);
	REQUIRE_EQ(ucow_machine_destroy(w->machine), 0);
}

static inline struct ucow_cpu *cpu_on(struct ucow_mm *mm)
{
	struct ucow_cpu *cpu;

	REQUIRE_EQ(ucow_cpu_create(ucow_mm_machine(mm), &cpu), 0);
	ucow_cpu_attach(cpu, mm);
	return cpu;
}

static inline uint64_t map_at(struct ucow_mm *mm, uint64_t va, uint64_t npages, unsigned prot, unsigned flags)
{
	uint64_t result = 0;

	REQUIRE_EQ(ucow_mmap(mm, va, npages * PAGE, prot, flags | UCOW_MAP_FIXED, &result), 0);
	REQUIRE_EQ(result, va);
	return result;
}

/* @npages of private anonymous memory at BASE, readable and writable. */
static inline uint64_t map_private(struct ucow_mm *mm, uint64_t npages)
{
	return map_at(mm, BASE, npages, RW, UCOW_MAP_PRIVATE);
}

static inline uint64_t map_shared(struct ucow_mm *mm, uint64_t npages)
{
	return map_at(mm, BASE, npages, RW, UCOW_MAP_SHARED);
}

static inline void put64(struct ucow_cpu *cpu, uint64_t va, uint64_t value)
{
	REQUIRE_EQ(ucow_write(cpu, va, &value, sizeof(value), NULL), 0);
}

static inline uint64_t get64(struct ucow_cpu *cpu, uint64_t va)
{
	uint64_t value = 0;

	REQUIRE_EQ(ucow_read(cpu, va, &value, sizeof(value), NULL), 0);
	return value;
}

static inline struct ucow_mm *fork_mm(struct ucow_mm *mm)
{
	struct ucow_mm *child = NULL;

	REQUIRE_EQ(ucow_fork(mm, &child), 0);
	return child;
}

/*
 * Leave the page at @va as one that was shared and is not any more: nobody's alone until a fault finds that out. Lazy
 * forks count nothing until somebody changes something, so the child does before it goes.
 */
static inline void share_once(struct ucow_mm *mm, uint64_t va)
{
	struct ucow_mm *child = fork_mm(mm);

	REQUIRE_EQ(ucow_madvise(child, va, PAGE, UCOW_MADV_DONTNEED), 0);
	REQUIRE_EQ(ucow_mm_destroy(child), 0);
}

/* Exit: the cpu goes, then the space. */
static inline void exit_mm(struct ucow_cpu *cpu, struct ucow_mm *mm)
{
	ucow_cpu_destroy(cpu);
	REQUIRE_EQ(ucow_mm_destroy(mm), 0);
}

static inline struct ucow_entry_info query(struct ucow_mm *mm, uint64_t va)
{
	struct ucow_entry_info info;

	memset(&info, 0, sizeof(info));
	ucow_query(mm, va, &info);
	return info;
}

/*
 * The host's address of frame 0. With it and a frame number a test sees bytes without a load, a reference or a fault:
 * each of these may unshare a path or leave a mark.
 */
static inline const char *ram_of(struct ucow_machine *machine)
{
	struct ucow_mm *mm = NULL;
	struct ucow_page *page = NULL;
	const char *ram;
	uint64_t va = 0;

	REQUIRE_EQ(ucow_mm_create(machine, &mm), 0);
	REQUIRE_EQ(ucow_mmap(mm, 0, PAGE, RW, UCOW_MAP_PRIVATE, &va), 0);
	REQUIRE_EQ(ucow_get_user_pages_remote(mm, va, 1, UCOW_FOLL_WRITE, &page), 1);
	ram = (const char *)ucow_page_address(page) - query(mm, va).pfn * PAGE;
	ucow_put_pages(&page, 1);
	REQUIRE_EQ(ucow_mm_destroy(mm), 0);
	return ram;
}

static inline struct ucow_page *pin_page(struct ucow_cpu *cpu, uint64_t va, unsigned flags)
{
	struct ucow_page *page = NULL;

	REQUIRE_EQ(ucow_pin_user_pages(cpu, va, 1, flags, &page), 1);
	return page;
}

static inline struct ucow_page *get_page(struct ucow_cpu *cpu, uint64_t va, unsigned flags)
{
	struct ucow_page *page = NULL;

	REQUIRE_EQ(ucow_get_user_pages(cpu, va, 1, flags, &page), 1);
	return page;
}

/* What a device that holds @page does. */
static inline uint64_t device_read64(const struct ucow_page *page)
{
	return *(const volatile uint64_t *)ucow_page_address(page);
}

static inline void device_write64(struct ucow_page *page, uint64_t value)
{
	*(volatile uint64_t *)ucow_page_address(page) = value;
}

static inline uint64_t counted(const struct world *w, enum ucow_counter counter)
{
	return ucow_machine_counter(w->machine, counter);
}

/* A small generator for tests that draw; the stream depends on its state only. */
static inline uint64_t draw(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

#endif
