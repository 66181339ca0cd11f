/* SPDX-License-Identifier: MIT */
/*
 * What the kernel's sides of `ucow bench` are made of: mappings of 4 KiB pages, children that sleep, a clock.
 */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

uint64_t bench_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int bench_map(struct bench_mapping *mapping, uint64_t npages, bool huge)
{
	size_t nbytes = npages * UCOW_PAGE_SIZE;
	void *bytes = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (bytes == MAP_FAILED)
		return -errno;
	/* A kernel without huge pages refuses both advices and needs neither. */
	(void)madvise(bytes, nbytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	mapping->bytes = bytes;
	mapping->npages = npages;
	return 0;
}

void bench_unmap(struct bench_mapping *mapping)
{
	munmap(mapping->bytes, mapping->npages * UCOW_PAGE_SIZE);
	mapping->bytes = NULL;
}

static uint64_t minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)usage.ru_minflt;
}

void bench_touch(struct bench_mapping *mapping, double *ns, uint64_t *faults)
{
	uint64_t before = minor_faults(), start = bench_now();

	for (uint64_t i = 0; i < mapping->npages; i++)
		*(volatile uint64_t *)(void *)(mapping->bytes + i * UCOW_PAGE_SIZE) = i;
	*ns = (double)(bench_now() - start);
	*faults = minor_faults() - before;
}

/*
 * In a virtual machine the first touch of a page costs ten times a fault. So touch as many pages as the row will ever
 * hold and free what is too much: freed pages are the next to be handed out.
 */
static int warm_host(uint64_t npages)
{
	struct bench_mapping pool = {0};
	uint64_t faults;
	double ns;
	int err = bench_map(&pool, npages, false);

	if (err)
		return err;
	bench_touch(&pool, &ns, &faults);
	bench_unmap(&pool);
	return 0;
}

/* Unmap the last page of each of @nmappings equal parts. */
static void mapping_cut(struct bench_mapping *mapping, unsigned nmappings)
{
	uint64_t part = mapping->npages / nmappings;

	for (unsigned i = 1; i <= nmappings; i++)
		munmap(mapping->bytes + (i * part - 1) * UCOW_PAGE_SIZE, UCOW_PAGE_SIZE);
}

int bench_mapping_open(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct bench_mapping *mapping = calloc(1, sizeof(*mapping));
	uint64_t faults;
	double ns;
	int err = 0;

	(void)why;
	if (!mapping)
		return -ENOMEM;
	if (row->copies > 1)
		err = warm_host(row->copies * row->npages);
	if (!err)
		err = bench_map(mapping, row->npages, false);
	if (err) {
		free(mapping);
		return err;
	}
	bench_touch(mapping, &ns, &faults);
	mapping->count = row->count;
	if (row->nmappings)
		mapping_cut(mapping, row->nmappings);
	*state = mapping;
	return 0;
}

void bench_mapping_close(void *state)
{
	bench_unmap(state);
	free(state);
}

/* The child's whole life: say that it runs, sleep until the other end closes. */
static _Noreturn void sleep_until_woken(int ready, int wake)
{
	char byte = 0;

	if (write(ready, &byte, 1) == 1)
		while (read(wake, &byte, 1) < 0 && errno == EINTR)
			;
	_exit(0);
}

int bench_child_fork(struct bench_child *child, double *ns)
{
	int ready[2], wake[2], err;
	uint64_t start;
	char byte;

	if (pipe(ready))
		return -errno;
	if (pipe(wake)) {
		err = -errno;
		goto fail_ready;
	}
	start = bench_now();
	child->pid = fork();
	if (ns)
		*ns = (double)(bench_now() - start);
	if (child->pid < 0) {
		err = -errno;
		goto fail_wake;
	}
	if (child->pid == 0) {
		close(wake[1]);
		sleep_until_woken(ready[1], wake[0]);
	}
	close(ready[1]);
	close(wake[0]);
	child->wake = wake[1];
	/* Nothing to report if the child is gone already: the caller reaps it all the same. */
	while (read(ready[0], &byte, 1) < 0 && errno == EINTR)
		;
	close(ready[0]);
	return 0;

fail_wake:
	close(wake[0]);
	close(wake[1]);
fail_ready:
	close(ready[0]);
	close(ready[1]);
	return err;
}

void bench_child_reap(struct bench_child *child)
{
	close(child->wake);
	while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
		;
}
