/* SPDX-License-Identifier: MIT */
/*
 * The kernel's sides of the rows about userfaultfd: stores to write-protected pages whose faults are resolved on the
 * faulting thread, in a handler of SIGBUS, or by a thread that reads events; and the scan for pages that were written.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What headers older than the kernel that runs do not have: the scan is of 6.7. */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1u << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1u << 15)
#endif
#ifndef PAGEMAP_SCAN
struct page_region {
	uint64_t start, end, categories;
};
struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN          _IOWR('f', 16, struct pm_scan_arg)
#define PM_SCAN_WP_MATCHING   (1u << 0)
#define PM_SCAN_CHECK_WPASYNC (1u << 1)
#define PAGE_IS_WRITTEN       (1u << 1)
#endif

/* A mapping that a descriptor watches. */
struct watched {
	struct bench_mapping *mapping;
	int fd, pagemap;
	int stop[2]; /* a pipe whose closing ends the thread */
	pthread_t thread;
	bool has_thread;
	_Atomic uint64_t handled; /* faults */
	int err;                  /* of the handler */
	struct page_region *regions;
};

/* For the handler of SIGBUS, which has nothing else to go by. */
static struct watched *handled_here;

static void watched_close(void *state)
{
	struct watched *watched = state;

	if (watched->has_thread) {
		close(watched->stop[1]);
		pthread_join(watched->thread, NULL);
		close(watched->stop[0]);
	}
	if (watched->fd >= 0)
		close(watched->fd);
	if (watched->pagemap >= 0)
		close(watched->pagemap);
	free(watched->regions);
	if (watched->mapping)
		bench_mapping_close(watched->mapping);
	free(watched);
}

static int register_all(struct watched *watched, uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features | UFFD_FEATURE_PAGEFAULT_FLAG_WP};
	struct uffdio_register range = {
		.range = {(uintptr_t)watched->mapping->bytes, watched->mapping->npages * UCOW_PAGE_SIZE},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	watched->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK); /* else poll(2) fails */
	if (watched->fd < 0)
		return -errno;
	return ioctl(watched->fd, UFFDIO_API, &api) || ioctl(watched->fd, UFFDIO_REGISTER, &range) ? -errno : 0;
}

static int watch(const struct bench_row *row, uint64_t features, struct watched **watched, char why[BENCH_WHY])
{
	struct watched *made = calloc(1, sizeof(*made));
	void *mapping = NULL;
	int err;

	if (!made)
		return -ENOMEM;
	made->fd = made->pagemap = -1;
	err = bench_mapping_open(row, &mapping, why);
	made->mapping = mapping;
	if (!err) {
		err = register_all(made, features);
		if (err)
			snprintf(why, BENCH_WHY, "userfaultfd with these features is not to be had");
	}
	if (err)
		watched_close(made);
	else
		*watched = made;
	return err == -EINVAL || err == -EPERM || err == -ENOSYS ? -EOPNOTSUPP : err;
}

static int protect(const struct watched *watched, uintptr_t start, uint64_t npages, bool on)
{
	struct uffdio_writeprotect range = {
		.range = {start, npages * UCOW_PAGE_SIZE},
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(watched->fd, UFFDIO_WRITEPROTECT, &range) ? -errno : 0;
}

static void resolve(struct watched *watched, uintptr_t address)
{
	int err;

	watched->handled++; /* before the faulting thread goes on */
	err = protect(watched, address & UCOW_PAGE_MASK, 1, false);
	if (err)
		watched->err = err;
}

/* ---- one fault a page ---- */

static int wp_sample(void *state, double *value, char why[BENCH_WHY])
{
	struct watched *watched = state;
	const struct bench_mapping *mapping = watched->mapping;
	uint64_t before = watched->handled, start;
	int err = protect(watched, (uintptr_t)mapping->bytes, mapping->npages, true);

	if (err)
		return err;
	start = bench_now();
	for (uint64_t i = 0; i < mapping->npages; i++)
		*(volatile uint64_t *)(void *)(mapping->bytes + i * UCOW_PAGE_SIZE) = i;
	*value = (double)(bench_now() - start) / (double)mapping->npages;
	if (watched->err || watched->handled - before != mapping->npages) {
		snprintf(why, BENCH_WHY, "%llu faults were handled", (unsigned long long)(watched->handled - before));
		return -EPROTO;
	}
	return 0;
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	(void)number, (void)context;
	resolve(handled_here, (uintptr_t)info->si_addr);
	if (handled_here->err)
		_exit(1); /* it would come again for ever */
}

/* The row's process has no other use for SIGBUS. */
static int callback_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
	struct watched *watched;
	int err = watch(row, UFFD_FEATURE_SIGBUS, &watched, why);

	if (err)
		return err;
	handled_here = watched;
	sigaction(SIGBUS, &action, NULL);
	*state = watched;
	return 0;
}

static void *handle_events(void *arg)
{
	struct watched *watched = arg;
	struct pollfd poll_on[2] = {{watched->fd, POLLIN, 0}, {watched->stop[0], POLLIN, 0}};
	struct uffd_msg msg;

	while (poll(poll_on, 2, -1) >= 0 && !poll_on[1].revents)
		if (read(watched->fd, &msg, sizeof(msg)) == sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT)
			resolve(watched, msg.arg.pagefault.address);
	return NULL;
}

static int thread_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct watched *watched;
	int err = watch(row, 0, &watched, why);

	if (err)
		return err;
	if (pipe(watched->stop))
		err = -errno;
	else
		err = -pthread_create(&watched->thread, NULL, handle_events, watched);
	if (err) {
		watched_close(watched);
		return err;
	}
	watched->has_thread = true;
	*state = watched;
	return 0;
}

const struct bench_side bench_wp_callback_kernel = {callback_open, wp_sample, watched_close};
const struct bench_side bench_wp_thread_kernel = {thread_open, wp_sample, watched_close};

/* ---- the scan ---- */

/* All pages that were written since the last call, which are protected again. Returns: how many regions; -errno. */
static long scan(struct watched *watched)
{
	const struct bench_mapping *mapping = watched->mapping;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = (uintptr_t)mapping->bytes,
		.end = (uintptr_t)mapping->bytes + mapping->npages * UCOW_PAGE_SIZE,
		.vec = (uintptr_t)watched->regions,
		.vec_len = mapping->npages,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	long n = ioctl(watched->pagemap, PAGEMAP_SCAN, &arg);

	return n < 0 ? -errno : n;
}

static int scan_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct watched *watched;
	long n;
	int err = watch(row, UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED, &watched, why);

	if (err)
		return err;
	watched->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	watched->regions = calloc(row->npages, sizeof(*watched->regions));
	if (watched->pagemap < 0 || !watched->regions) {
		err = watched->regions ? -errno : -ENOMEM;
		goto fail;
	}
	n = scan(watched);
	if (n < 0) {
		err = n == -ENOTTY ? -EOPNOTSUPP : (int)n;
		goto fail;
	}
	*state = watched;
	return 0;

fail:
	watched_close(watched);
	return err;
}

static int scan_sample(void *state, double *value, char why[BENCH_WHY])
{
	struct watched *watched = state;
	const struct bench_mapping *mapping = watched->mapping;
	uint64_t wanted = 0, start;
	long n;

	for (uint64_t i = 0; i < mapping->npages; i += mapping->count, wanted++)
		*(volatile uint64_t *)(void *)(mapping->bytes + i * UCOW_PAGE_SIZE) = i;
	start = bench_now();
	n = scan(watched);
	*value = (double)(bench_now() - start) / 1000;
	if (n == (long)wanted)
		return 0;
	snprintf(why, BENCH_WHY, "%ld regions found, not %llu", n, (unsigned long long)wanted);
	return -EPROTO;
}

const struct bench_side bench_scan_kernel = {scan_open, scan_sample, watched_close};
