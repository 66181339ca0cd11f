/* SPDX-License-Identifier: MIT */
/*
 * The row about writing a file through memory: a shared mapping, a store to every page of it in order, msync. Each side
 * has a file of its own on the same disk, whose blocks are there already, and waits for the disk.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ucow/file.h>
#include <ucow/ucow.h>

struct written {
	uint64_t npages, round;
	int fd;
	char *bytes; /* the kernel's mapping */
	/* ucow */
	struct ucow_machine *machine;
	struct ucow_file *file;
	struct ucow_mm *mm;
	struct ucow_cpu *cpu;
	uint64_t va;
};

/* ---- the file ---- */

/* Every block is written, so that no sample has to find room for any. */
static int fill_file(int fd, uint64_t npages)
{
	char page[UCOW_PAGE_SIZE];

	memset(page, 1, sizeof(page));
	for (uint64_t i = 0; i < npages; i++)
		if (pwrite(fd, page, sizeof(page), (off_t)(i * sizeof(page))) != (ssize_t)sizeof(page))
			return errno ? -errno : -ENOSPC;
	return fsync(fd) ? -errno : 0;
}

/* Nobody else can open it, and it goes with the descriptor. */
static int make_file(uint64_t npages, int *fd)
{
	const char *folder = getenv("TMPDIR");
	char path[256];
	int err;

	snprintf(path, sizeof(path), "%.200s/ucow-bench-XXXXXX", folder ? folder : "/var/tmp");
	*fd = mkostemp(path, O_CLOEXEC);
	if (*fd < 0)
		return -errno;
	unlink(path);
	err = fill_file(*fd, npages);
	if (err)
		close(*fd);
	return err;
}

static int written_make(const struct bench_row *row, struct written **made, char why[BENCH_WHY])
{
	struct written *written = calloc(1, sizeof(*written));
	int err;

	if (!written)
		return -ENOMEM;
	written->npages = row->npages;
	err = make_file(row->npages, &written->fd);
	if (err) {
		snprintf(why, BENCH_WHY, "the file: %s", strerror(-err));
		free(written);
	} else {
		*made = written;
	}
	return err;
}

/* ---- ucow ---- */

static void ucow_close(void *state)
{
	struct written *written = state;

	if (written->cpu)
		ucow_cpu_destroy(written->cpu);
	if (written->mm)
		(void)ucow_mm_destroy(written->mm);
	if (written->file)
		(void)ucow_file_close(written->file); /* what matters was told by msync */
	if (written->machine)
		(void)ucow_machine_destroy(written->machine);
	close(written->fd);
	free(written);
}

static int ucow_make(struct written *written)
{
	const uint64_t nbytes = written->npages * UCOW_PAGE_SIZE;
	const struct ucow_machine_options options = {
		.size = sizeof(options),
		.ram_bytes = 2 * nbytes,
		.flags = UCOW_MACHINE_KEEP_RAM,
	};
	const struct ucow_file_options file = {.size = sizeof(file), .fd = written->fd};
	int err = ucow_machine_create(&options, &written->machine);

	if (!err)
		err = ucow_file_open(written->machine, &file, &written->file);
	if (!err)
		err = ucow_mm_create(written->machine, &written->mm);
	if (!err)
		err = ucow_mmap_file(written->mm, 0, nbytes, UCOW_PROT_READ | UCOW_PROT_WRITE, UCOW_MAP_SHARED,
				     written->file, 0, &written->va);
	if (!err)
		err = ucow_cpu_create(written->machine, &written->cpu);
	if (!err)
		ucow_cpu_attach(written->cpu, written->mm);
	return err;
}

static int msync_open_ucow(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct written *written;
	int err = written_make(row, &written, why);

	if (err)
		return err;
	err = ucow_make(written);
	if (err)
		ucow_close(written);
	else
		*state = written;
	return err;
}

static int msync_ucow(void *state, double *value, char why[BENCH_WHY])
{
	struct written *written = state;
	const uint64_t nbytes = written->npages * UCOW_PAGE_SIZE;
	struct ucow_file_stat stat;
	uint64_t before, start;
	int err = 0;

	ucow_file_stat(written->file, &stat);
	before = stat.written;
	written->round++;
	start = bench_now();
	for (uint64_t at = 0; !err && at < nbytes; at += UCOW_PAGE_SIZE)
		err = ucow_store_u64(written->cpu, written->va + at, written->round);
	if (!err)
		err = ucow_msync(written->mm, written->va, nbytes, UCOW_MS_SYNC);
	*value = (double)(bench_now() - start) / (double)written->npages;
	ucow_file_stat(written->file, &stat);
	if (err || stat.written - before == written->npages)
		return err;
	snprintf(why, BENCH_WHY, "%llu pages were written", (unsigned long long)(stat.written - before));
	return -EPROTO;
}

/* ---- the kernel ---- */

static int msync_open_kernel(const struct bench_row *row, void **state, char why[BENCH_WHY])
{
	struct written *written;
	int err = written_make(row, &written, why);

	if (err)
		return err;
	written->bytes = mmap(NULL, row->npages * UCOW_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, written->fd, 0);
	if (written->bytes == MAP_FAILED) {
		err = -errno;
		close(written->fd);
		free(written);
		return err;
	}
	*state = written;
	return 0;
}

static int msync_kernel(void *state, double *value, char why[BENCH_WHY])
{
	struct written *written = state;
	const uint64_t nbytes = written->npages * UCOW_PAGE_SIZE;
	uint64_t start;

	(void)why;
	written->round++;
	start = bench_now();
	for (uint64_t at = 0; at < nbytes; at += UCOW_PAGE_SIZE)
		*(volatile uint64_t *)(void *)(written->bytes + at) = written->round;
	if (msync(written->bytes, nbytes, MS_SYNC))
		return -errno;
	*value = (double)(bench_now() - start) / (double)written->npages;
	return 0;
}

static void msync_close_kernel(void *state)
{
	struct written *written = state;

	munmap(written->bytes, written->npages * UCOW_PAGE_SIZE);
	close(written->fd);
	free(written);
}

const struct bench_side bench_msync_ucow = {msync_open_ucow, msync_ucow, ucow_close};
const struct bench_side bench_msync_kernel = {msync_open_kernel, msync_kernel, msync_close_kernel};
