/* SPDX-License-Identifier: MIT */
/* What the threads do: a table of operations with their weights. */
#include "stress.h"

#include <errno.h>
#include <string.h>

#define SPACE_BYTES ((uint64_t)STRESS_PAGES * UCOW_PAGE_SIZE)

/* ---- helpers ---- */

static unsigned any_page(struct worker *worker)
{
	return (unsigned)stress_random(worker, STRESS_PAGES);
}

/* A page that this worker writes. */
static unsigned own_page(struct worker *worker)
{
	unsigned threads = worker->family->stress->options.threads;

	return (unsigned)stress_random(worker, STRESS_PAGES / threads) * threads + worker->number;
}

static void fail(struct worker *worker, const char *operation, unsigned page, const char *what, uint64_t saw)
{
	stress_fail(worker->family->stress,
		    "family %u thread %u, %s of page %u: %s (saw space %llu page %llu version %llu; written %llu)",
		    worker->family->number, worker->number, operation, page, what, (unsigned long long)stamp_space(saw),
		    (unsigned long long)stamp_page(saw), (unsigned long long)stamp_version(saw),
		    (unsigned long long)atomic_load(&worker->family->pages[page].written));
}

/* Out of memory is no failure: there is little RAM, so that running out of it is part of the game. */
static bool went_well(struct worker *worker, const char *operation, unsigned page, int error)
{
	if (error && error != -ENOMEM)
		stress_fail(worker->family->stress, "family %u thread %u, %s of page %u: %s", worker->family->number,
			    worker->number, operation, page, strerror(-error));
	return !error;
}

static uint64_t begin_version(struct worker *worker, unsigned page)
{
	struct page_state *state = &worker->family->pages[page];
	uint64_t version = atomic_load(&state->started) + 1;

	atomic_store(&state->started, version);
	return version;
}

/* The store is done: nobody may see less from here on, and no zeros. */
static void end_version(struct worker *worker, unsigned page, uint64_t version)
{
	struct page_state *state = &worker->family->pages[page];
	uint64_t drops = atomic_load(&state->drops);

	atomic_store(&state->written, version);
	if (drops & 1)
		atomic_store(&state->drops, drops + 1);
}

static void begin_drop(struct worker *worker, unsigned page)
{
	uint64_t drops = atomic_load(&worker->family->pages[page].drops);

	if (worker->held && worker->held_page == page)
		stress_release(worker); /* the pin would stay with a page that is no longer there */
	atomic_store(&worker->family->pages[page].drops, drops | 1);
}

/* Nothing was lost after all. */
static void end_drop(struct worker *worker, unsigned page, bool was_there)
{
	uint64_t drops = atomic_load(&worker->family->pages[page].drops);

	if (was_there)
		atomic_store(&worker->family->pages[page].drops, drops + 1);
}

static bool is_there(struct worker *worker, unsigned page)
{
	return !(atomic_load(&worker->family->pages[page].drops) & 1);
}

static uint64_t stamp_of(struct worker *worker, unsigned page, uint64_t version)
{
	return stamp_make(worker->family->number, page, version);
}

/* ---- loads and stores ---- */

static void read_page(struct worker *worker)
{
	unsigned page = any_page(worker);
	struct look look = model_look(worker->family, page);
	uint64_t stamp = 0;
	int error = ucow_load_u64(worker->cpu, page_va(worker->family, page), &stamp);
	const char *wrong;

	if (error == -EFAULT && model_may_be_gone(worker->family, page, look))
		return;
	if (!went_well(worker, "read", page, error))
		return;
	wrong = model_check(worker->family, page, look, stamp);
	if (!wrong && stamp && stamp_version(stamp) < worker->seen[page])
		wrong = "a version older than one seen before";
	if (wrong)
		fail(worker, "read", page, wrong, stamp);
	if (stamp)
		worker->seen[page] = stamp_version(stamp);
}

static void write_page(struct worker *worker)
{
	unsigned page = own_page(worker);
	uint64_t version = begin_version(worker, page);
	int error = ucow_store_u64(worker->cpu, page_va(worker->family, page), stamp_of(worker, page, version));

	if (went_well(worker, "write", page, error))
		end_version(worker, page, version);
}

static void exchange_page(struct worker *worker)
{
	unsigned page = own_page(worker);
	uint64_t version = begin_version(worker, page), va = page_va(worker->family, page), stamp = 0;
	bool exchanged;
	int error = ucow_load_u64(worker->cpu, va, &stamp);

	if (!error)
		error = ucow_cmpxchg_u64(worker->cpu, va, &stamp, stamp_of(worker, page, version), &exchanged);
	if (!went_well(worker, "exchange", page, error))
		return;
	/* Nobody else writes here. */
	if (!exchanged)
		fail(worker, "exchange", page, "the page has changed between a load and an exchange", stamp);
	end_version(worker, page, version);
}

/* A whole page at once: the stamp is in every word. */
static void copy_page(struct worker *worker)
{
	unsigned page = own_page(worker);
	uint64_t version = begin_version(worker, page), words[UCOW_PAGE_SIZE / 8];
	int error;

	for (size_t i = 0; i < UCOW_PAGE_SIZE / 8; i++)
		words[i] = stamp_of(worker, page, version);
	error = ucow_write(worker->cpu, page_va(worker->family, page), words, sizeof(words), NULL);
	if (went_well(worker, "write of all", page, error))
		end_version(worker, page, version);
}

static void span_page(struct worker *worker)
{
	unsigned page = any_page(worker);
	struct look look = model_look(worker->family, page);
	uint64_t stamp = 0;
	void *span;
	int error = ucow_span_begin(worker->cpu, page_va(worker->family, page), sizeof(stamp), false, &span);
	const char *wrong;

	if (!error) {
		stamp = __atomic_load_n((uint64_t *)span, __ATOMIC_RELAXED);
		ucow_span_end(worker->cpu);
	}
	if (error == -EFAULT && model_may_be_gone(worker->family, page, look))
		return;
	if (!went_well(worker, "span", page, error))
		return;
	wrong = model_check(worker->family, page, look, stamp);
	if (wrong)
		fail(worker, "span", page, wrong, stamp);
}

/* ---- pins and devices ---- */

void stress_release(struct worker *worker)
{
	if (worker->held)
		ucow_unpin_user_pages_dirty_lock(&worker->held, 1, true);
	worker->held = NULL;
}

static void pin_page(struct worker *worker)
{
	unsigned page = own_page(worker), flags = UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM;
	uint64_t va = page_va(worker->family, page);
	long got;

	stress_release(worker);
	if (stress_random(worker, 2))
		got = ucow_pin_user_pages_fast(worker->cpu, va, 1, flags, &worker->held);
	else
		got = ucow_pin_user_pages_remote(worker->family->mm, va, 1, flags, &worker->held);
	if (got != 1) {
		worker->held = NULL;
		(void)went_well(worker, "pin", page, (int)got);
		return;
	}
	worker->held_page = page;
}

/* The device stores into the pinned page; the program must see that at once, whatever forked meanwhile. */
static void device_page(struct worker *worker)
{
	uint64_t version, stamp = 0, want, *address;
	unsigned page = worker->held_page;
	int error = 0;

	if (!worker->held)
		return;
	version = begin_version(worker, page);
	want = stamp_of(worker, page, version);
	address = ucow_page_address(worker->held);
	if (worker->device)
		error = device_write(worker->device, address, want);
	else
		__atomic_store_n(address, want, __ATOMIC_RELAXED);
	if (error) {
		stress_fail(worker->family->stress, "io_uring: %s", strerror(-error));
		return;
	}
	error = ucow_load_u64(worker->cpu, page_va(worker->family, page), &stamp);
	if (!went_well(worker, "read after the device", page, error))
		return;
	if (stamp != want)
		fail(worker, "device write", page, "the program does not see the device's store", stamp);
	end_version(worker, page, version);
}

/* The program stores; the device must see that. */
static void see_by_device(struct worker *worker)
{
	unsigned page = worker->held_page;
	uint64_t version, stamp = 0;
	int error;

	if (!worker->held)
		return;
	version = begin_version(worker, page);
	error = ucow_store_u64(worker->cpu, page_va(worker->family, page), stamp_of(worker, page, version));
	if (!went_well(worker, "write of a pinned page", page, error))
		return;
	stamp = __atomic_load_n((uint64_t *)ucow_page_address(worker->held), __ATOMIC_RELAXED);
	if (stamp != stamp_of(worker, page, version))
		fail(worker, "write", page, "the device does not see the program's store", stamp);
	end_version(worker, page, version);
}

/* A read pin for a moment, of a page that others write. */
static void read_pin(struct worker *worker)
{
	unsigned page = any_page(worker);
	struct look look = model_look(worker->family, page);
	struct ucow_page *held;
	long got = ucow_pin_user_pages_fast(worker->cpu, page_va(worker->family, page), 1, 0, &held);
	uint64_t stamp = 0;
	const char *wrong;

	if (got != 1) {
		if (got != -EFAULT || !model_may_be_gone(worker->family, page, look))
			(void)went_well(worker, "read pin", page, (int)got);
		return;
	}
	stamp = __atomic_load_n((uint64_t *)ucow_page_address(held), __ATOMIC_RELAXED);
	wrong = model_check(worker->family, page, look, stamp);
	ucow_unpin_user_pages(&held, 1);
	if (wrong)
		fail(worker, "read pin", page, wrong, stamp);
}

static void get_pages(struct worker *worker)
{
	struct ucow_page *pages[STRESS_PAGES];
	long got = ucow_get_user_pages_fast(worker->cpu, worker->family->va, STRESS_PAGES, 0, pages);

	if (got > 0)
		ucow_put_pages(pages, (size_t)got);
}

/* A scanner: a reference and the page lock for a moment. */
static void scan_page(struct worker *worker)
{
	struct ucow_page *page;

	if (ucow_lookup_page(worker->family->mm, page_va(worker->family, any_page(worker)), &page))
		return;
	if (ucow_page_trylock(page))
		ucow_page_unlock(page);
	ucow_put_pages(&page, 1);
}

/* ---- children ---- */

static void check_child(struct worker *worker, struct ucow_mm *child, const struct frozen *frozen, const char *what)
{
	ucow_cpu_attach(worker->child_cpu, child);
	for (unsigned page = 0; page < STRESS_PAGES; page++) {
		const char *wrong;
		uint64_t stamp = 0;
		int error = ucow_load_u64(worker->child_cpu, page_va(worker->family, page), &stamp);

		if (error == -EFAULT && frozen[page].may_be_gone)
			continue;
		if (!went_well(worker, what, page, error))
			continue;
		wrong = model_check_frozen(worker->family, page, frozen[page], stamp);
		if (wrong)
			fail(worker, what, page, wrong, stamp);
	}
}

static void look_all(const struct family *family, struct look looks[STRESS_PAGES])
{
	for (unsigned page = 0; page < STRESS_PAGES; page++)
		looks[page] = model_look(family, page);
}

static void freeze_all(const struct family *family, const struct look *looks, struct frozen frozen[STRESS_PAGES])
{
	for (unsigned page = 0; page < STRESS_PAGES; page++)
		frozen[page] = model_freeze(family, page, looks[page]);
}

/* The child's stores are the child's alone: a parent that sees one fails its own checks, for want of its number. */
static void write_as_child(struct worker *worker)
{
	for (unsigned i = 0; i < 8; i++) {
		unsigned page = any_page(worker);
		uint64_t stamp = stamp_make(0x8000u | worker->family->number, page, i + 1), saw = 0;
		uint64_t va = page_va(worker->family, page);
		int error = ucow_store_u64(worker->child_cpu, va, stamp);

		if (!error)
			error = ucow_load_u64(worker->child_cpu, va, &saw);
		if (error && error != -EFAULT)
			(void)went_well(worker, "a child's write", page, error);
		else if (!error && saw != stamp)
			fail(worker, "a child's write", page, "something else", saw);
	}
}

static void drop_space(struct worker *worker, struct ucow_mm *mm)
{
	int error;

	ucow_cpu_attach(worker->child_cpu, NULL);
	error = ucow_mm_destroy(mm);
	if (error)
		stress_fail(worker->family->stress, "exit: %s", strerror(-error));
}

/* A group of some family's, which with it may have a child of another. NULL: there are none. */
static struct ucow_memcg *any_memcg(struct worker *worker)
{
	struct stress *stress = worker->family->stress;

	return stress->families[stress_random(worker, stress->options.families)].memcg;
}

static int fork_somewhere(struct worker *worker, struct ucow_mm **child)
{
	struct ucow_memcg *memcg = any_memcg(worker);

	return memcg ? ucow_fork_into(worker->family->mm, memcg, child) : ucow_fork(worker->family->mm, child);
}

static void fork_child(struct worker *worker)
{
	struct frozen frozen[STRESS_PAGES];
	struct look looks[STRESS_PAGES];
	struct ucow_mm *child;

	look_all(worker->family, looks);
	if (!went_well(worker, "fork", 0, fork_somewhere(worker, &child)))
		return;
	freeze_all(worker->family, looks, frozen);
	check_child(worker, child, frozen, "a child's read");
	write_as_child(worker);
	drop_space(worker, child);
}

static int count_difference(void *arg, uint64_t va, enum ucow_diff_kind kind)
{
	(void)va;
	(void)kind;
	++*(uint64_t *)arg;
	return 0;
}

static void take_snapshot(struct worker *worker)
{
	struct ucow_snapshot_group *group = worker->family->group;
	struct frozen frozen[STRESS_PAGES];
	struct look looks[STRESS_PAGES];
	struct ucow_mm *snapshot;
	uint64_t differences = 0;
	int error;

	look_all(worker->family, looks);
	error = group ? ucow_snapshot_take(group, UCOW_SNAPSHOT_CHECKSUM, &snapshot)
		      : ucow_snapshot_with_flags(worker->family->mm, UCOW_SNAPSHOT_CHECKSUM, &snapshot);
	if (!went_well(worker, "snapshot", 0, error))
		return;
	freeze_all(worker->family, looks, frozen);
	check_child(worker, snapshot, frozen, "a snapshot's read");
	if (ucow_diff(snapshot, worker->family->mm, count_difference, &differences) || differences > 2 * STRESS_PAGES)
		stress_fail(worker->family->stress, "diff: %llu differences", (unsigned long long)differences);
	error = ucow_snapshot_verify(snapshot);
	if (error && error != -ENOMEM)
		stress_fail(worker->family->stress, "a snapshot has changed: %s", strerror(-error));
	drop_space(worker, snapshot);
}

/* ---- mappings ---- */

static void drop_page(struct worker *worker)
{
	unsigned page = own_page(worker);

	begin_drop(worker, page);
	(void)went_well(
		worker, "dontneed", page,
		ucow_madvise(worker->family->mm, page_va(worker->family, page), UCOW_PAGE_SIZE, UCOW_MADV_DONTNEED));
}

static void remap_page(struct worker *worker)
{
	unsigned page = own_page(worker);
	uint64_t va = page_va(worker->family, page), mapped;
	int error;

	begin_drop(worker, page);
	error = ucow_munmap(worker->family->mm, va, UCOW_PAGE_SIZE);
	while (went_well(worker, "munmap", page, error)) {
		/* The place must not stay empty, or the page's writer would fault for good. */
		error = ucow_mmap(worker->family->mm, va, UCOW_PAGE_SIZE, UCOW_PROT_READ | UCOW_PROT_WRITE,
				  UCOW_MAP_PRIVATE | UCOW_MAP_FIXED, &mapped);
		if (!error)
			return;
		(void)went_well(worker, "mmap", page, error);
		error = 0;
	}
}

/* The page goes elsewhere and comes back: as it was, with its pins. */
static void move_page(struct worker *worker)
{
	unsigned page = own_page(worker);
	uint64_t va = page_va(worker->family, page), away = va + 2 * SPACE_BYTES, moved;
	struct ucow_mm *mm = worker->family->mm;
	unsigned flags = UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED;
	bool was_there = is_there(worker, page);
	int error;

	begin_drop(worker, page);
	error = ucow_mremap(mm, va, UCOW_PAGE_SIZE, UCOW_PAGE_SIZE, flags, away, &moved);
	if (went_well(worker, "move", page, error))
		do
			error = ucow_mremap(mm, away, UCOW_PAGE_SIZE, UCOW_PAGE_SIZE, flags, va, &moved);
		while (!went_well(worker, "move back", page, error) && error == -ENOMEM);
	end_drop(worker, page, was_there);
}

static void protect_page(struct worker *worker)
{
	unsigned page = own_page(worker);
	uint64_t va = page_va(worker->family, page);
	struct ucow_mm *mm = worker->family->mm;
	int error = ucow_mprotect(mm, va, UCOW_PAGE_SIZE, UCOW_PROT_READ), stored;

	if (!went_well(worker, "protect", page, error))
		return;
	stored = ucow_store_u64(worker->cpu, va, 0);
	if (stored != -EFAULT)
		stress_fail(worker->family->stress, "a store into a read-only page: %d", stored);
	do
		error = ucow_mprotect(mm, va, UCOW_PAGE_SIZE, UCOW_PROT_READ | UCOW_PROT_WRITE);
	while (!went_well(worker, "unprotect", page, error) && error == -ENOMEM);
}

static void hide_page(struct worker *worker)
{
	unsigned page = own_page(worker);
	uint64_t va = page_va(worker->family, page);
	struct ucow_mm *mm = worker->family->mm;
	bool was_there = is_there(worker, page);
	int error;

	begin_drop(worker, page);
	error = ucow_mprotect(mm, va, UCOW_PAGE_SIZE, UCOW_PROT_NONE);
	if (went_well(worker, "protect none", page, error))
		do
			error = ucow_mprotect(mm, va, UCOW_PAGE_SIZE, UCOW_PROT_READ | UCOW_PROT_WRITE);
		while (!went_well(worker, "unprotect", page, error) && error == -ENOMEM);
	end_drop(worker, page, was_there);
}

static void advise_free(struct worker *worker)
{
	unsigned page = own_page(worker);

	if (worker->family->stress->options.pressure)
		begin_drop(worker, page); /* else nothing ever takes it */
	(void)went_well(
		worker, "free", page,
		ucow_madvise(worker->family->mm, page_va(worker->family, page), UCOW_PAGE_SIZE, UCOW_MADV_FREE));
}

static void populate(struct worker *worker)
{
	(void)!ucow_madvise(worker->family->mm, worker->family->va, SPACE_BYTES,
			    stress_random(worker, 2) ? UCOW_MADV_POPULATE_READ : UCOW_MADV_POPULATE_WRITE);
}

static void arm_hints(struct worker *worker)
{
	(void)!ucow_numa_hint(worker->family->mm, page_va(worker->family, any_page(worker)), UCOW_PAGE_SIZE);
}

/* ---- pressure ---- */

static void reclaim_pages(struct worker *worker)
{
	(void)ucow_reclaim(worker->family->stress->machine, any_memcg(worker), 1 + stress_random(worker, 16));
}

static void page_out(struct worker *worker)
{
	unsigned page = any_page(worker);

	(void)went_well(worker, "page out", page,
			ucow_madvise(worker->family->mm, page_va(worker->family, page), UCOW_PAGE_SIZE,
				     stress_random(worker, 4) ? UCOW_MADV_PAGEOUT : UCOW_MADV_COLD));
}

static void join_group(struct worker *worker)
{
	if (any_memcg(worker))
		(void)went_well(worker, "join", 0, ucow_mm_join(worker->family->mm, any_memcg(worker)));
}

/* ---- looking ---- */

static void query_page(struct worker *worker)
{
	struct ucow_entry_info info;
	struct ucow_mm_stat stat;

	ucow_query(worker->family->mm, page_va(worker->family, any_page(worker)), &info);
	ucow_mm_stat(worker->family->mm, &stat);
	if (stat.rss_anon > STRESS_PAGES + STRESS_THREADS)
		stress_fail(worker->family->stress, "%llu pages in a space of %u", (unsigned long long)stat.rss_anon,
			    STRESS_PAGES);
}

static void synchronize(struct worker *worker)
{
	ucow_machine_synchronize(worker->family->stress->machine);
}

/* ---- the table ---- */

static struct operation {
	const char *name;
	void (*run)(struct worker *worker);
	unsigned weight;
	_Atomic uint64_t times;
} operations[] = {
	{"read", read_page, 400, 0},        {"write", write_page, 300, 0},
	{"exchange", exchange_page, 60, 0}, {"copy", copy_page, 20, 0},
	{"span", span_page, 40, 0},         {"pin", pin_page, 40, 0},
	{"device", device_page, 60, 0},     {"see-by-device", see_by_device, 40, 0},
	{"read-pin", read_pin, 40, 0},      {"get", get_pages, 4, 0},
	{"scan", scan_page, 10, 0},         {"fork", fork_child, 8, 0},
	{"snapshot", take_snapshot, 6, 0},  {"dontneed", drop_page, 6, 0},
	{"remap", remap_page, 4, 0},        {"move", move_page, 4, 0},
	{"protect", protect_page, 6, 0},    {"hide", hide_page, 4, 0},
	{"free", advise_free, 4, 0},        {"populate", populate, 1, 0},
	{"numa-hint", arm_hints, 4, 0},     {"query", query_page, 4, 0},
	{"synchronize", synchronize, 1, 0}, {"reclaim", reclaim_pages, 8, 0},
	{"page-out", page_out, 20, 0},      {"join", join_group, 2, 0},
};

#define NOPERATIONS (sizeof(operations) / sizeof(operations[0]))

void stress_operation(struct worker *worker)
{
	unsigned total = 0, chosen;
	size_t i = 0;

	for (size_t j = 0; j < NOPERATIONS; j++)
		total += operations[j].weight;
	chosen = (unsigned)stress_random(worker, total);
	while (chosen >= operations[i].weight)
		chosen -= operations[i++].weight;
	operations[i].run(worker);
	atomic_fetch_add_explicit(&operations[i].times, 1, memory_order_relaxed);
	worker->done++;
}

void stress_print_operations(void)
{
	for (size_t i = 0; i < NOPERATIONS; i++)
		printf("%s%s %llu", i ? ", " : "# ", operations[i].name,
		       (unsigned long long)atomic_load(&operations[i].times));
	putchar('\n');
}
