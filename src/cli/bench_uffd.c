/* SPDX-License-Identifier: MIT */
/*
 * ucow's sides of the rows about userfaultfd: stores to write-protected pages whose faults are resolved by a callback
 * on the faulting thread, or by a thread that reads messages; and the scan for pages that were written.
 */
#include "bench.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include <ucow/pagemap.h>
#include <ucow/ucow.h>
#include <ucow/uffd.h>

/* A space of which one userfaultfd watches everything. */
struct watched {
	struct bench_space *space;
	struct ucow_uffd *uffd;
	pthread_t thread;
	bool has_thread;
	_Atomic uint64_t handled; /* faults */
	_Atomic int err;          /* of the handler */
	struct ucow_page_region *regions;
};

static void watched_close(void *state)
{
	struct watched *watched = state;
	struct ucow_uffd *uffd = watched->uffd;

	/* Whoever reads is told, and ends. */
	if (watched->has_thread) {
		ucow_uffd_shutdown(uffd);
		pthread_join(watched->thread, NULL);
	}
	ucow_uffd_close(uffd);
	free(watched->regions);
	bench_space_close(watched->space);
	free(watched);
}

static uint64_t watched_bytes(const struct watched *watched)
{
	return watched->space->npages * UCOW_PAGE_SIZE;
}

static void resolve(struct watched *watched, struct ucow_uffd *uffd, uint64_t va)
{
	int err;

	watched->handled++; /* before the faulting thread goes on */
	err = ucow_uffd_writeprotect(uffd, va, UCOW_PAGE_SIZE, 0);
	if (err)
		watched->err = err;
}

static enum ucow_uffd_answer on_fault(void *arg, struct ucow_uffd *uffd, const struct ucow_uffd_msg *msg)
{
	struct watched *watched = arg;

	resolve(watched, uffd, msg->va);
	return watched->err ? UCOW_UFFD_SIGBUS : UCOW_UFFD_RESOLVED;
}

static int watch(const struct bench_row *row, const struct ucow_uffd_options *wanted, struct watched **watched,
		 char why[BENCH_WHY])
{
	struct watched *made = calloc(1, sizeof(*made));
	struct ucow_uffd_options options = *wanted;
	void *space;
	int err = made ? bench_space_open(row, &space, why) : -ENOMEM;

	if (err) {
		free(made);
		return err;
	}
	made->space = space;
	options.arg = made;
	err = ucow_uffd_create(made->space->mm, &options, &made->uffd);
	if (!err)
		err = ucow_uffd_register(made->uffd, made->space->va, watched_bytes(made), UCOW_UFFD_WP, NULL);
	if (err)
		watched_close(made);
	else
		*watched = made;
	return err;
}

/* ---- one fault a page ---- */

static int wp_sample(void *state, double *value, char why[BENCH_WHY])
{
	struct watched *watched = state;
	uint64_t before = watched->handled;
	double ns;
	int err = ucow_uffd_writeprotect(watched->uffd, watched->space->va, watched_bytes(watched), UCOW_UFFD_MODE_WP);

	if (!err)
		err = bench_space_touch(watched->space, &ns);
	if (err)
		return err;
	*value = ns / (double)watched->space->npages;
	if (watched->err || watched->handled - before != watched->space->npages) {
		snprintf(why, BENCH_WHY, "%llu faults were handled", (unsigned long long)(watched->handled - before));
		return -EPROTO;
	}
	return 0;
}

static int callback_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	const struct ucow_uffd_options options = {.size = sizeof(options), .callback = on_fault};
	struct watched *watched;
	int err = watch(row, &options, &watched, why);

	if (!err)
		*state = watched;
	return err;
}

static void *handle_messages(void *arg)
{
	struct watched *watched = arg;
	struct ucow_uffd_msg msg;

	while (ucow_uffd_read(watched->uffd, &msg, 1, true) == 1)
		resolve(watched, watched->uffd, msg.va);
	return NULL;
}

static int thread_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	const struct ucow_uffd_options options = {.size = sizeof(options)};
	struct watched *watched;
	int err = watch(row, &options, &watched, why);

	if (err)
		return err;
	err = -pthread_create(&watched->thread, NULL, handle_messages, watched);
	if (err) {
		watched_close(watched);
		return err;
	}
	watched->has_thread = true;
	*state = watched;
	return 0;
}

const struct bench_side bench_wp_callback_ucow = {callback_open, wp_sample, watched_close};
const struct bench_side bench_wp_thread_ucow = {thread_open, wp_sample, watched_close};

/* ---- the scan ---- */

/* All pages that were written since the last call, which are protected again. Returns: how many regions; -errno. */
static long scan(struct watched *watched)
{
	struct ucow_pm_scan arg = {
		.size = sizeof(arg),
		.flags = UCOW_PM_SCAN_WP_MATCHING | UCOW_PM_SCAN_CHECK_WPASYNC,
		.start = watched->space->va,
		.end = watched->space->va + watched_bytes(watched),
		.vec = watched->regions,
		.vec_len = watched->space->npages,
		.category_mask = UCOW_PAGE_IS_WRITTEN,
		.return_mask = UCOW_PAGE_IS_WRITTEN,
	};

	return ucow_pagemap_scan(watched->space->mm, &arg);
}

static int scan_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	const struct ucow_uffd_options options = {.size = sizeof(options), .features = UCOW_UFFD_FEATURE_WP_ASYNC};
	struct watched *watched;
	long n;
	int err = watch(row, &options, &watched, why);

	if (err)
		return err;
	watched->regions = calloc(row->npages, sizeof(*watched->regions));
	n = watched->regions ? scan(watched) : -ENOMEM;
	if (n < 0) {
		watched_close(watched);
		return (int)n;
	}
	*state = watched;
	return 0;
}

static int scan_sample(void *state, double *value, char why[BENCH_WHY])
{
	struct watched *watched = state;
	struct bench_space *space = watched->space;
	uint64_t wanted = 0, start;
	long n;
	int err = 0;

	for (uint64_t i = 0; !err && i < space->npages; i += space->count, wanted++)
		err = ucow_store_u64(space->cpu, space->va + i * UCOW_PAGE_SIZE, i);
	if (err)
		return err;
	start = bench_now();
	n = scan(watched);
	*value = (double)(bench_now() - start) / 1000;
	if (n == (long)wanted)
		return 0;
	snprintf(why, BENCH_WHY, "%ld regions found, not %llu", n, (unsigned long long)wanted);
	return -EPROTO;
}

const struct bench_side bench_scan_ucow = {scan_open, scan_sample, watched_close};
