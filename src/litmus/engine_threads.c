/* SPDX-License-Identifier: MIT */
/*
 * What lanes need of threads, and all of it: starting them together, one lock, waiting, bytes that another thread may
 * touch at the same time. The explorer's build has its own versions of these functions, for lanes that are fibres.
 */
#include "engine.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- lock and waiting ---- */

/* One for all runs of this program: lanes come here between statements only. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

void engine_lock_shared(void)
{
	pthread_mutex_lock(&mutex);
}

void engine_unlock_shared(void)
{
	pthread_mutex_unlock(&mutex);
}

void engine_wait(void)
{
	pthread_cond_wait(&changed, &mutex);
}

void engine_wake(void)
{
	pthread_cond_broadcast(&changed);
}

void engine_yield(const struct ucow_page *page)
{
	(void)page;
	sched_yield();
}

/* ---- which lane this is ---- */

static _Thread_local struct engine *current;

struct engine *engine_current(void)
{
	return current;
}

void engine_set_current(struct engine *engine)
{
	current = engine;
}

/* ---- pages that devices reach ---- */

/* The longest access, a power of two, that stays aligned at @address. */
static size_t step(const void *address, size_t left)
{
	size_t nbytes = 8;

	while (nbytes > left || (uintptr_t)address % nbytes)
		nbytes /= 2;
	return nbytes;
}

#define STORE_AS(type)                                                \
	do {                                                          \
		type word;                                            \
		memcpy(&word, from, sizeof(word));                    \
		__atomic_store_n((type *)to, word, __ATOMIC_RELAXED); \
	} while (0)
#define LOAD_AS(type)                                                              \
	do {                                                                       \
		type word = __atomic_load_n((const type *)from, __ATOMIC_RELAXED); \
		memcpy(to, &word, sizeof(word));                                   \
	} while (0)

void engine_store_bytes(void *page, const void *bytes, size_t nbytes)
{
	char *to = page;
	const char *from = bytes;

	for (size_t n; nbytes; to += n, from += n, nbytes -= n) {
		n = step(to, nbytes);
		if (n == 8)
			STORE_AS(uint64_t);
		else if (n == 4)
			STORE_AS(uint32_t);
		else if (n == 2)
			STORE_AS(uint16_t);
		else
			STORE_AS(uint8_t);
	}
}

void engine_load_bytes(void *bytes, const void *page, size_t nbytes)
{
	char *to = bytes;
	const char *from = page;

	for (size_t n; nbytes; to += n, from += n, nbytes -= n) {
		n = step(from, nbytes);
		if (n == 8)
			LOAD_AS(uint64_t);
		else if (n == 4)
			LOAD_AS(uint32_t);
		else if (n == 2)
			LOAD_AS(uint16_t);
		else
			LOAD_AS(uint8_t);
	}
}

/* ---- host files ---- */

int engine_host_file(uint64_t nbytes)
{
	int fd = memfd_create("ucow", MFD_CLOEXEC), error;

	if (fd < 0 || !ftruncate(fd, (off_t)nbytes))
		return fd;
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

long engine_host_read(int fd, void *bytes, size_t nbytes, uint64_t offset)
{
	ssize_t got = pread(fd, bytes, nbytes, (off_t)offset);

	return got < 0 ? -errno : got;
}

/* ---- starting lanes ---- */

enum signal { SIGNAL_WAIT, SIGNAL_GO, SIGNAL_CANCEL };

struct start {
	struct engine *engine;
	unsigned ready; /* threads that wait for the signal */
	enum signal signal;
};

struct lane_thread {
	struct start *start;
	unsigned lane;
	pthread_t thread;
};

/* From nothing at all to some tens of microseconds, short ones as often as long ones. */
static void dawdle(uint64_t *random)
{
	uint64_t n = engine_random(random), spins = (n >> 32) % (UINT64_C(1) << (n & 15));

	if (n >> 8 & 1)
		sched_yield();
	for (volatile uint64_t i = 0; i < spins; i++)
		;
}

void engine_pause(struct engine *engine)
{
	dawdle(&engine->random);
}

/* Waiting is spinning: threads that sleep would start one after the other. */
static void *run_thread(void *arg)
{
	const struct lane_thread *self = arg;
	struct start *start = self->start;
	enum signal signal;

	engine_lane_warm_up(start->engine, self->lane);
	__atomic_add_fetch(&start->ready, 1, __ATOMIC_RELAXED);
	while ((signal = __atomic_load_n(&start->signal, __ATOMIC_ACQUIRE)) == SIGNAL_WAIT)
		sched_yield();
	if (signal == SIGNAL_GO)
		engine_lane_run(start->engine, self->lane);
	else
		engine_lane_cancel(start->engine, self->lane);
	return NULL;
}

int engine_run_lanes(struct engine *engine, unsigned nlanes)
{
	struct start start = {.engine = engine};
	struct lane_thread *threads = calloc(nlanes, sizeof(*threads));
	unsigned created = 0;
	int error = threads ? 0 : ENOMEM;

	while (!error && created < nlanes) {
		threads[created] = (struct lane_thread){.start = &start, .lane = created};
		error = pthread_create(&threads[created].thread, NULL, run_thread, &threads[created]);
		created += !error;
	}
	while (__atomic_load_n(&start.ready, __ATOMIC_RELAXED) < created)
		sched_yield();
	__atomic_store_n(&start.signal, error ? SIGNAL_CANCEL : SIGNAL_GO, __ATOMIC_RELEASE);
	while (created--)
		pthread_join(threads[created].thread, NULL);
	free(threads);
	return error;
}
