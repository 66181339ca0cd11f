/* SPDX-License-Identifier: MIT */
/*
 * Rows about the policies: what today's rule (exclusive pages) costs beside the one it replaced (page lock, map and
 * swap counts; semantics.md B.3). First the benchmark that started the change: processes that share memory and write it
 * all. Then pages that only one space maps, on which somebody else holds a reference or, for moments, the lock.
 */
#include "bench_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ucow/ucow.h>

#define WRITERS 2

static int open_mapcount(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_row other = *row;

	other.policy = UCOW_POLICY_MAPCOUNT;
	return bench_space_open(&other, state, why);
}

/* ---- two children of one space write all that they share ---- */

struct writers {
	struct bench_space *space;
	struct ucow_mm *children[WRITERS];
	struct ucow_cpu *cpus[WRITERS];
};

static int writer_attach(void *arg, unsigned who)
{
	struct writers *writers = arg;
	int err = ucow_cpu_create(writers->space->machine, &writers->cpus[who]);

	if (!err)
		ucow_cpu_attach(writers->cpus[who], writers->children[who]);
	return err;
}

static int writer_detach(void *arg, unsigned who)
{
	struct writers *writers = arg;

	ucow_cpu_destroy(writers->cpus[who]);
	return 0;
}

static int writer_run(void *arg, unsigned who)
{
	const struct writers *writers = arg;
	const struct bench_space *space = writers->space;
	int err = 0;

	for (uint64_t i = 0; !err && i < space->npages; i++)
		err = ucow_store_u64(writers->cpus[who], space->va + i * UCOW_PAGE_SIZE, i);
	return err;
}

static int writers_fork(struct writers *writers)
{
	int err = 0;

	for (unsigned i = 0; !err && i < WRITERS; i++)
		err = ucow_fork(writers->space->mm, &writers->children[i]);
	return err;
}

static void writers_exit(struct writers *writers)
{
	for (unsigned i = 0; i < WRITERS; i++)
		if (writers->children[i])
			(void)ucow_mm_destroy(writers->children[i]);
	ucow_machine_synchronize(writers->space->machine);
}

/* The parent maps every page throughout, so that each store must have been answered by a copy. */
static int write_shared_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_space *space = state;
	struct writers writers = {.space = space};
	uint64_t copies = ucow_machine_counter(space->machine, UCOW_COUNTER_COPY_SHARED);
	double ns = 0;
	int err;

	ucow_cpu_attach(space->cpu, NULL);
	err = writers_fork(&writers);
	if (!err)
		err = bench_run_threads(WRITERS, writer_attach, writer_run, writer_detach, &writers, &ns);
	writers_exit(&writers);
	ucow_cpu_attach(space->cpu, space->mm);
	copies = ucow_machine_counter(space->machine, UCOW_COUNTER_COPY_SHARED) - copies;
	*value = ns / (double)space->npages;
	if (err || copies == WRITERS * space->npages)
		return err;
	snprintf(why, BENCH_WHY, "%llu pages copied by %llu writes", (unsigned long long)copies,
		 (unsigned long long)(WRITERS * space->npages));
	return -EPROTO;
}

static int raw_run(void *arg, unsigned who)
{
	const struct bench_mapping *mapping = arg;

	(void)who;
	for (uint64_t i = 0; i < mapping->npages; i++)
		*(volatile uint64_t *)(void *)(mapping->bytes + i * UCOW_PAGE_SIZE) = i;
	return 0;
}

static int reap(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status ? -EPROTO : 0;
}

/* Forks @pids, which begin when all are there. One that could not be made is made up for, so that none waits for it. */
static int raw_writers(struct bench_mapping *mapping, struct bench_start *start)
{
	pid_t pids[WRITERS];
	int err = 0;

	for (unsigned i = 0; i < WRITERS; i++) {
		pids[i] = fork();
		if (pids[i] < 0) {
			err = -errno;
			atomic_fetch_add(&start->ready, 1);
		} else if (pids[i] == 0) {
			bench_stay_on(i);
			bench_part_do(start, i, raw_run, mapping);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		int reap_err = pids[i] > 0 ? reap(pids[i]) : 0;

		err = err ? err : reap_err;
	}
	return err;
}

static int write_shared_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_mapping *mapping = state;
	struct bench_start *start = mmap(NULL, sizeof(*start), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
					 0);
	int err;

	(void)why;
	if (start == MAP_FAILED)
		return -ENOMEM;
	start->nparts = WRITERS;
	err = raw_writers(mapping, start);
	*value = bench_took(start) / (double)mapping->npages;
	munmap(start, sizeof(*start));
	return err;
}

/* ---- pages of one space, each with a plain reference ---- */

static int held_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_space *space;
	long got;
	int err = bench_space_open(row, state, why);

	if (err)
		return err;
	space = *state;
	space->own = calloc(space->npages, sizeof(struct ucow_page *));
	got = space->own ? ucow_get_user_pages(space->cpu, space->va, space->npages, UCOW_FOLL_WRITE, space->own)
			 : -ENOMEM;
	if (got == (long)space->npages)
		return 0;
	bench_space_close(space);
	return got < 0 ? (int)got : -ENOMEM;
}

static int held_open_mapcount(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_row other = *row;

	other.policy = UCOW_POLICY_MAPCOUNT;
	return held_open(&other, state, why);
}

static void held_close(void *state)
{
	struct bench_space *space = state;

	ucow_put_pages(space->own, space->npages);
	bench_space_close(space);
}

/* References to what is mapped now: a copy has taken the place of what was held. */
static int hold_again(struct bench_space *space)
{
	long got;

	ucow_put_pages(space->own, space->npages);
	got = ucow_get_user_pages(space->cpu, space->va, space->npages, UCOW_FOLL_WRITE, space->own);
	if (got == (long)space->npages)
		return 0;
	/* Nothing may be put twice. */
	ucow_put_pages(space->own, got > 0 ? (size_t)got : 0);
	free(space->own);
	space->own = NULL;
	space->npages = 0;
	return got < 0 ? (int)got : -ENOMEM;
}

/* After a fork and the child's exit every page is mapped once and written again. */
static int held_sample(struct bench_space *space, enum ucow_counter counter, double *value, char why[BENCH_WHY])
{
	struct ucow_mm *child;
	uint64_t before, got;
	double ns;
	int err = ucow_fork(space->mm, &child);

	if (err)
		return err;
	(void)ucow_mm_destroy(child);
	before = ucow_machine_counter(space->machine, counter);
	err = bench_space_touch(space, &ns);
	got = ucow_machine_counter(space->machine, counter) - before;
	*value = ns / (double)space->npages;
	if (!err && got != space->npages) {
		snprintf(why, BENCH_WHY, "%llu of %llu faults counted as %s", (unsigned long long)got,
			 (unsigned long long)space->npages, ucow_counter_name(counter));
		err = -EPROTO;
	}
	return err ? err : hold_again(space);
}

/* A reference could be a device's: the page is left to it, and the space gets a copy. */
static int held_exclusive(void *state, double *value, char why[BENCH_WHY])
{
	return held_sample(state, UCOW_COUNTER_COPY_REFERENCED, value, why);
}

/* References are not looked at. */
static int held_mapcount(void *state, double *value, char why[BENCH_WHY])
{
	return held_sample(state, UCOW_COUNTER_REUSE, value, why);
}

/* ---- pages of one space, while a scanner takes their locks ---- */

#define SCAN_BATCH  32  /* pages that are locked at one time, as reclaim takes them */
#define SCAN_ROUNDS 200 /* times that all pages are written, in one sample */

struct scan {
	struct bench_space *space;
	struct ucow_cpu *cpu;
	_Atomic bool stop;
	uint64_t ns, sum;
};

/* Lock a batch, read it all, let go: what everybody does who looks for pages to merge, to move or to write out. */
static void scan_batch(struct scan *scan, struct ucow_page **pages)
{
	bool locked[SCAN_BATCH];

	for (unsigned i = 0; i < SCAN_BATCH; i++)
		locked[i] = ucow_page_trylock(pages[i]);
	for (unsigned i = 0; i < SCAN_BATCH; i++) {
		const uint64_t *words = ucow_page_address(pages[i]);

		for (unsigned word = 1; locked[i] && word < UCOW_PAGE_SIZE / sizeof(*words); word++)
			scan->sum = scan->sum * 31 + words[word];
	}
	for (unsigned i = 0; i < SCAN_BATCH; i++)
		if (locked[i])
			ucow_page_unlock(pages[i]);
}

static int write_all_again(struct scan *scan)
{
	struct bench_space *space = scan->space;
	uint64_t nbytes = space->npages * UCOW_PAGE_SIZE, start;
	int err = ucow_mprotect(space->mm, space->va, nbytes, UCOW_PROT_READ);

	if (!err)
		err = ucow_mprotect(space->mm, space->va, nbytes, UCOW_PROT_READ | UCOW_PROT_WRITE);
	start = bench_now();
	for (uint64_t i = 0; !err && i < space->npages; i++)
		err = ucow_store_u64(scan->cpu, space->va + i * UCOW_PAGE_SIZE, i);
	scan->ns += bench_now() - start;
	return err;
}

/* The second part scans until the first has written. */
static int scan_run(void *arg, unsigned who)
{
	struct scan *scan = arg;
	struct ucow_page **pages = scan->space->own;
	uint64_t nbatches = scan->space->npages / SCAN_BATCH, random = 0;
	int err = 0;

	if (who == 1) {
		while (!atomic_load_explicit(&scan->stop, memory_order_relaxed))
			scan_batch(scan, pages + bench_random(&random, nbatches) * SCAN_BATCH);
		return 0;
	}
	for (unsigned i = 0; !err && i < SCAN_ROUNDS; i++)
		err = write_all_again(scan);
	atomic_store(&scan->stop, true);
	return err;
}

static int scan_attach(void *arg, unsigned who)
{
	struct scan *scan = arg;
	int err;

	if (who == 1)
		return 0;
	err = ucow_cpu_create(scan->space->machine, &scan->cpu);
	if (!err)
		ucow_cpu_attach(scan->cpu, scan->space->mm);
	return err;
}

static int scan_detach(void *arg, unsigned who)
{
	struct scan *scan = arg;

	if (who == 0)
		ucow_cpu_destroy(scan->cpu);
	return 0;
}

/* @faults: how many the writes must take. */
static int scan_sample(struct bench_space *space, uint64_t faults, double *value, char why[BENCH_WHY])
{
	struct scan scan = {.space = space};
	uint64_t got = ucow_machine_counter(space->machine, UCOW_COUNTER_REUSE);
	double ns;
	int err;

	ucow_cpu_attach(space->cpu, NULL);
	err = bench_run_threads(2, scan_attach, scan_run, scan_detach, &scan, &ns);
	ucow_cpu_attach(space->cpu, space->mm);
	got = ucow_machine_counter(space->machine, UCOW_COUNTER_REUSE) - got;
	*value = (double)scan.ns / (double)(SCAN_ROUNDS * space->npages);
	if (err || got == faults)
		return err;
	snprintf(why, BENCH_WHY, "%llu faults, not %llu", (unsigned long long)got, (unsigned long long)faults);
	return -EPROTO;
}

/* A page that is the space's own is writable again as soon as the mapping is: nothing is asked, nobody is waited for.
 */
static int scan_exclusive(void *state, double *value, char why[BENCH_WHY])
{
	return scan_sample(state, 0, value, why);
}

/* Every page owes a fault, which waits for the page's lock. */
static int scan_mapcount(void *state, double *value, char why[BENCH_WHY])
{
	const struct bench_space *space = state;

	return scan_sample(state, SCAN_ROUNDS * space->npages, value, why);
}

const struct bench_side bench_write_shared_ucow = {bench_space_open, write_shared_ucow, bench_space_close};
const struct bench_side bench_write_shared_mapcount = {open_mapcount, write_shared_ucow, bench_space_close};
const struct bench_side bench_write_shared_kernel = {bench_mapping_open, write_shared_kernel, bench_mapping_close};
const struct bench_side bench_held_exclusive = {held_open, held_exclusive, held_close};
const struct bench_side bench_held_mapcount = {held_open_mapcount, held_mapcount, held_close};
const struct bench_side bench_scan_exclusive = {held_open, scan_exclusive, held_close};
const struct bench_side bench_scan_mapcount = {held_open_mapcount, scan_mapcount, held_close};
