/* SPDX-License-Identifier: MIT */
/*
 * Rows about two threads: the same work done by one thread and by two side by side, in one space, or by a parent and
 * its child. A sample is the throughput of two over that of one: 2 is perfect, below 1 they are in each other's way.
 */
#include "bench_parts.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef UCOW_HAVE_LIBURING
#include <liburing.h>
#endif

#include <ucow/ucow.h>

#define NBATCHES 200

/* ---- ucow ---- */

struct duo {
	struct bench_space *space;
	struct ucow_mm *mms[2];
	struct ucow_cpu *cpus[2];
	uint64_t first[2], npages; /* which pages each part works on */
};

static int attach(void *arg, unsigned who)
{
	struct duo *duo = arg;
	int err = ucow_cpu_create(duo->space->machine, &duo->cpus[who]);

	if (!err)
		ucow_cpu_attach(duo->cpus[who], duo->mms[who]);
	return err;
}

static int detach(void *arg, unsigned who)
{
	struct duo *duo = arg;

	ucow_cpu_destroy(duo->cpus[who]);
	duo->cpus[who] = NULL;
	return 0;
}

static int touch(void *arg, unsigned who)
{
	struct duo *duo = arg;
	uint64_t va = duo->space->va + duo->first[who] * UCOW_PAGE_SIZE;
	int err = 0;

	for (uint64_t i = 0; !err && i < duo->npages; i++)
		err = ucow_store_u64(duo->cpus[who], va + i * UCOW_PAGE_SIZE, i);
	return err;
}

static int pin(void *arg, unsigned who)
{
	struct duo *duo = arg;
	uint64_t va = duo->space->va + duo->first[who] * UCOW_PAGE_SIZE;
	struct ucow_page *pages[BENCH_PIN_PAGES];

	for (unsigned i = 0; i < NBATCHES; i++) {
		long got = ucow_pin_user_pages_fast(duo->cpus[who], va, BENCH_PIN_PAGES,
						    UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM, pages);

		if (got < 0)
			return (int)got;
		ucow_unpin_user_pages(pages, (size_t)got);
		if (got != BENCH_PIN_PAGES)
			return -EPROTO;
	}
	return 0;
}

static struct duo duo_make(struct bench_space *space)
{
	struct duo duo = {.space = space, .mms = {space->mm, space->mm}, .npages = space->npages / 2};

	duo.first[1] = duo.npages;
	return duo;
}

/* The main cpu would be a third one in the space; it sits out. */
static int run_duo(struct duo *duo, unsigned nparts, bench_part *run, double *ns)
{
	int err;

	ucow_cpu_attach(duo->space->cpu, NULL);
	err = bench_run_threads(nparts, attach, run, detach, duo, ns);
	ucow_machine_synchronize(duo->space->machine);
	ucow_cpu_attach(duo->space->cpu, duo->space->mm);
	return err;
}

static int pin_duo_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct duo duo = duo_make(state);
	double one, two;
	int err = run_duo(&duo, 1, pin, &one);

	(void)why;
	if (!err)
		err = run_duo(&duo, 2, pin, &two);
	*value = err ? 0 : 2 * one / two;
	return err;
}

static int fresh_memory(struct bench_space *space)
{
	uint64_t nbytes = space->npages * UCOW_PAGE_SIZE;
	int err = ucow_munmap(space->mm, space->va, nbytes);

	return err ? err
		   : ucow_mmap(space->mm, space->va, nbytes, UCOW_PROT_READ | UCOW_PROT_WRITE,
			       UCOW_MAP_PRIVATE | UCOW_MAP_FIXED, &space->va);
}

static int zero_fill_duo_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct duo duo = duo_make(state);
	double ns[2] = {0, 0};
	int err = 0;

	(void)why;
	for (unsigned nparts = 1; !err && nparts <= 2; nparts++) {
		err = fresh_memory(state);
		if (!err)
			err = run_duo(&duo, nparts, touch, &ns[nparts - 1]);
	}
	*value = err ? 0 : 2 * ns[0] / ns[1];
	return err;
}

/* @family: the second part is the child, and both write all pages. */
static int copy_duo(struct bench_space *space, bool family, double *value)
{
	struct duo duo = duo_make(space);
	double ns[2] = {0, 0};
	int err = 0;

	if (family) {
		duo.first[1] = 0;
		duo.npages = space->npages;
	}
	for (unsigned nparts = 1; !err && nparts <= 2; nparts++) {
		struct ucow_mm *child;

		err = ucow_fork(space->mm, &child);
		if (err)
			break;
		duo.mms[1] = family ? child : space->mm;
		err = run_duo(&duo, nparts, touch, &ns[nparts - 1]);
		(void)ucow_mm_destroy(child);
		ucow_machine_synchronize(space->machine);
	}
	*value = err ? 0 : 2 * ns[0] / ns[1];
	return err;
}

static int cow_copy_duo_ucow(void *state, double *value, char why[BENCH_WHY])
{
	(void)why;
	return copy_duo(state, false, value);
}

static int family_ucow(void *state, double *value, char why[BENCH_WHY])
{
	(void)why;
	return copy_duo(state, true, value);
}

/* ---- fork while another thread runs in the space ---- */

struct runner {
	struct bench_space *space;
	_Atomic bool stop, running;
	int err;
};

/* Loads from a few pages, as a thread does that has bench_nothing to do with the fork. */
static void *keep_loading(void *arg)
{
	struct runner *runner = arg;
	struct ucow_cpu *cpu;
	uint64_t value;

	bench_stay_on(1);
	runner->err = ucow_cpu_create(runner->space->machine, &cpu);
	if (!runner->err)
		ucow_cpu_attach(cpu, runner->space->mm);
	atomic_store(&runner->running, true);
	for (uint64_t i = 0; !runner->err && !atomic_load_explicit(&runner->stop, memory_order_relaxed); i++)
		runner->err = ucow_load_u64(cpu, runner->space->va + (i & 3) * UCOW_PAGE_SIZE, &value);
	ucow_cpu_destroy(cpu);
	return NULL;
}

static int fork_beside_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct runner runner = {.space = state};
	struct ucow_mm *child = NULL;
	pthread_t thread;
	uint64_t start;
	int err;

	(void)why;
	if (pthread_create(&thread, NULL, keep_loading, &runner))
		return -EAGAIN;
	while (!atomic_load(&runner.running))
		sched_yield();
	start = bench_now();
	err = ucow_fork(runner.space->mm, &child);
	*value = (double)(bench_now() - start) / 1000;
	atomic_store(&runner.stop, true);
	pthread_join(thread, NULL);
	if (!err)
		(void)ucow_mm_destroy(child);
	return err ? err : runner.err;
}

static void *keep_loading_raw(void *arg)
{
	struct {
		const volatile char *bytes;
		_Atomic bool stop;
	} *raw = arg;

	bench_stay_on(1);
	while (!atomic_load_explicit(&raw->stop, memory_order_relaxed))
		(void)*raw->bytes;
	return NULL;
}

static int fork_beside_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_mapping *mapping = state;
	struct {
		const volatile char *bytes;
		_Atomic bool stop;
	} raw = {.bytes = mapping->bytes};
	struct bench_child child;
	pthread_t thread;
	double ns;
	int err;

	(void)why;
	if (pthread_create(&thread, NULL, keep_loading_raw, &raw))
		return -EAGAIN;
	err = bench_child_fork(&child, &ns);
	atomic_store(&raw.stop, true);
	pthread_join(thread, NULL);
	if (err)
		return err;
	bench_child_reap(&child);
	*value = ns / 1000;
	return 0;
}

/* ---- the kernel ---- */

struct raw_duo {
	struct bench_mapping *mapping;
	uint64_t first[2], npages;
#ifdef UCOW_HAVE_LIBURING
	struct io_uring rings[2];
#endif
};

static struct raw_duo raw_make(struct bench_mapping *mapping)
{
	struct raw_duo duo = {.mapping = mapping, .npages = mapping->npages / 2};

	duo.first[1] = duo.npages;
	return duo;
}

static int raw_touch(void *arg, unsigned who)
{
	const struct raw_duo *duo = arg;
	volatile char *bytes = duo->mapping->bytes + duo->first[who] * UCOW_PAGE_SIZE;

	for (uint64_t i = 0; i < duo->npages; i++)
		bytes[i * UCOW_PAGE_SIZE] = (char)i;
	return 0;
}

static int zero_fill_duo_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct bench_mapping *mapping = state;
	struct raw_duo duo = raw_make(mapping);
	double ns[2] = {0, 0};
	int err = 0;

	(void)why;
	for (unsigned nparts = 1; !err && nparts <= 2; nparts++) {
		bench_unmap(mapping);
		err = bench_map(mapping, mapping->npages, false);
		if (!err)
			err = bench_run_threads(nparts, bench_nothing, raw_touch, bench_nothing, &duo, &ns[nparts - 1]);
	}
	*value = err ? 0 : 2 * ns[0] / ns[1];
	return err;
}

static int cow_copy_duo_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct raw_duo duo = raw_make(state);
	double ns[2] = {0, 0};
	int err = 0;

	(void)why;
	for (unsigned nparts = 1; !err && nparts <= 2; nparts++) {
		struct bench_child child;

		err = bench_child_fork(&child, NULL);
		if (err)
			break;
		err = bench_run_threads(nparts, bench_nothing, raw_touch, bench_nothing, &duo, &ns[nparts - 1]);
		bench_child_reap(&child);
	}
	*value = err ? 0 : 2 * ns[0] / ns[1];
	return err;
}

/* The parent, and with two parts its child too, write every page. */
static int family_round(struct raw_duo *duo, struct bench_start *start, unsigned nparts)
{
	pid_t pid;

	*start = (struct bench_start){.nparts = nparts};
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		bench_stay_on(1);
		if (nparts == 2)
			bench_part_do(start, 1, raw_touch, duo);
		else
			pause(); /* alive, so that the parent copies */
		_exit(0);
	}
	bench_stay_on(0);
	bench_part_do(start, 0, raw_touch, duo);
	if (nparts == 1)
		kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return 0;
}

static int family_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct raw_duo duo = raw_make(state);
	double ns[2] = {0, 0};
	struct bench_start *start = mmap(NULL, sizeof(*start), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
					 0);
	int err = 0;

	(void)why;
	if (start == MAP_FAILED)
		return -ENOMEM;
	duo.first[1] = 0;
	duo.npages = duo.mapping->npages;
	for (unsigned nparts = 1; !err && nparts <= 2; nparts++) {
		err = family_round(&duo, start, nparts);
		ns[nparts - 1] = bench_took(start);
	}
	munmap(start, sizeof(*start));
	*value = err ? 0 : 2 * ns[0] / ns[1];
	return err;
}

#ifdef UCOW_HAVE_LIBURING
static int ring_start(void *arg, unsigned who)
{
	struct raw_duo *duo = arg;

	return io_uring_queue_init(1, &duo->rings[who], 0);
}

static int ring_pin(void *arg, unsigned who)
{
	struct raw_duo *duo = arg;
	const struct iovec buffer = {duo->mapping->bytes + duo->first[who] * UCOW_PAGE_SIZE,
				     BENCH_PIN_PAGES * UCOW_PAGE_SIZE};
	int err = 0;

	for (unsigned i = 0; !err && i < NBATCHES; i++) {
		err = io_uring_register_buffers(&duo->rings[who], &buffer, 1);
		if (!err)
			err = io_uring_unregister_buffers(&duo->rings[who]);
	}
	return err;
}

static int ring_stop(void *arg, unsigned who)
{
	struct raw_duo *duo = arg;

	io_uring_queue_exit(&duo->rings[who]);
	return 0;
}

static int pin_duo_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct raw_duo duo = raw_make(state);
	double one, two;
	int err = bench_run_threads(1, ring_start, ring_pin, ring_stop, &duo, &one);

	if (!err)
		err = bench_run_threads(2, ring_start, ring_pin, ring_stop, &duo, &two);
	if (err)
		snprintf(why, BENCH_WHY, "io_uring buffer registration: %s", strerror(-err));
	*value = err ? 0 : 2 * one / two;
	return err;
}
#else
static int pin_duo_kernel(void *state, double *value, char why[BENCH_WHY])
{
	(void)state, (void)value;
	snprintf(why, BENCH_WHY, "built without liburing");
	return -EOPNOTSUPP;
}
#endif

/* ---- bare memory: what two processors get of it at once ---- */

static int raw_fill(void *arg, unsigned who)
{
	const struct raw_duo *duo = arg;
	char *bytes = duo->mapping->bytes + duo->first[who] * UCOW_PAGE_SIZE;

	for (uint64_t i = 0; i < duo->npages; i++) {
		memset(bytes + i * UCOW_PAGE_SIZE, 0, UCOW_PAGE_SIZE);
		__asm__ volatile("" : : : "memory");
	}
	return 0;
}

/* Each part copies the first half of its pages onto the second. */
static int raw_copy(void *arg, unsigned who)
{
	const struct raw_duo *duo = arg;
	char *bytes = duo->mapping->bytes + duo->first[who] * UCOW_PAGE_SIZE;

	for (uint64_t i = 0; i < duo->npages / 2; i++) {
		memcpy(bytes + (duo->npages / 2 + i) * UCOW_PAGE_SIZE, bytes + i * UCOW_PAGE_SIZE, UCOW_PAGE_SIZE);
		__asm__ volatile("" : : : "memory");
	}
	return 0;
}

static int bare_duo(struct bench_mapping *mapping, bench_part *run, double *value)
{
	struct raw_duo duo = raw_make(mapping);
	double one, two;
	int err = bench_run_threads(1, bench_nothing, run, bench_nothing, &duo, &one);

	if (!err)
		err = bench_run_threads(2, bench_nothing, run, bench_nothing, &duo, &two);
	*value = err ? 0 : 2 * one / two;
	return err;
}

static int fill_duo(void *state, double *value, char why[BENCH_WHY])
{
	(void)why;
	return bare_duo(state, raw_fill, value);
}

static int copy_bare_duo(void *state, double *value, char why[BENCH_WHY])
{
	(void)why;
	return bare_duo(state, raw_copy, value);
}

static int huge_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_mapping *mapping = calloc(1, sizeof(*mapping));
	int err;

	(void)why;
	if (!mapping)
		return -ENOMEM;
	err = bench_map(mapping, row->npages, true);
	if (err) {
		free(mapping);
		return err;
	}
	memset(mapping->bytes, 1, row->npages * UCOW_PAGE_SIZE);
	*state = mapping;
	return 0;
}

const struct bench_side bench_cow_copy_duo_ucow = {bench_space_open, cow_copy_duo_ucow, bench_space_close};
const struct bench_side bench_cow_copy_duo_kernel = {bench_mapping_open, cow_copy_duo_kernel, bench_mapping_close};
const struct bench_side bench_zero_fill_duo_ucow = {bench_space_open, zero_fill_duo_ucow, bench_space_close};
const struct bench_side bench_zero_fill_duo_kernel = {bench_mapping_open, zero_fill_duo_kernel, bench_mapping_close};
const struct bench_side bench_pin_duo_ucow = {bench_space_open, pin_duo_ucow, bench_space_close};
const struct bench_side bench_pin_duo_kernel = {bench_mapping_open, pin_duo_kernel, bench_mapping_close};
const struct bench_side bench_family_ucow = {bench_space_open, family_ucow, bench_space_close};
const struct bench_side bench_family_kernel = {bench_mapping_open, family_kernel, bench_mapping_close};
const struct bench_side bench_fork_beside_ucow = {bench_space_open, fork_beside_ucow, bench_space_close};
const struct bench_side bench_fork_beside_kernel = {bench_mapping_open, fork_beside_kernel, bench_mapping_close};
const struct bench_side bench_fill_duo = {huge_open, fill_duo, bench_mapping_close};
const struct bench_side bench_copy_duo = {huge_open, copy_bare_duo, bench_mapping_close};
