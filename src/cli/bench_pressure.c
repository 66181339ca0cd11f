/* SPDX-License-Identifier: MIT */
/*
 * Memory pressure for the kernel's sides: a control group (version 1, the one that can be emptied by hand) with a
 * limit, and a temporary swap file. What a space of ucow gets from its machine and its swap device.
 */
#include "bench_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_GROUPS "/sys/fs/cgroup/memory"

/* All that is to be made and undone. */
struct pressure {
	char group[256], file[256];
	uint64_t limit, swap;
	bool have_group, have_file, have_swap;
};

/* ---- the swap file ---- */

/* What mkswap writes: the version, the last page and the signature at the end of the first page. */
static int write_header(int fd, uint64_t npages)
{
	static char header[UCOW_PAGE_SIZE];
	uint32_t fields[2] = {1, (uint32_t)npages - 1};

	memset(header, 0, sizeof(header));
	memcpy(header + 1024, fields, sizeof(fields));
	memcpy(header + sizeof(header) - 10, "SWAPSPACE2", 10);
	if (pwrite(fd, header, sizeof(header), 0) != (ssize_t)sizeof(header))
		return -EIO;
	return fsync(fd) ? -errno : 0;
}

/* A file without holes; one page more for the header. */
static int make_file(struct pressure *pressure)
{
	uint64_t npages = pressure->swap / UCOW_PAGE_SIZE + 1;
	int fd = open(pressure->file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), err;

	if (fd < 0)
		return -errno;
	pressure->have_file = true;
	err = -posix_fallocate(fd, 0, (off_t)(npages * UCOW_PAGE_SIZE));
	if (!err)
		err = write_header(fd, npages);
	close(fd);
	return err;
}

static int make_swap(struct pressure *pressure, char why[BENCH_WHY])
{
	int err = make_file(pressure);

	/* Before every other swap device, so that the disk is the one that ucow uses. */
	if (!err && swapon(pressure->file, SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK))
		err = -errno;
	pressure->have_swap = !err;
	/* Not every file system can hold one. */
	if (err == -EINVAL)
		err = -EOPNOTSUPP;
	if (err)
		snprintf(why, BENCH_WHY, "swap file %.80s: %.40s", pressure->file, strerror(-err));
	return err;
}

/* ---- the group ---- */

static int make_group(struct pressure *pressure, char why[BENCH_WHY])
{
	char path[300], text[32];
	int err = mkdir(pressure->group, 0755) ? -errno : 0;

	if (!err) {
		pressure->have_group = true;
		snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", pressure->group);
		snprintf(text, sizeof(text), "%llu", (unsigned long long)pressure->limit);
		err = bench_write_file(path, text);
	}
	if (err)
		snprintf(why, BENCH_WHY, "memory control group: %s", strerror(-err));
	return err;
}

/* Returns: how many there were. */
static unsigned kill_members(const struct pressure *pressure)
{
	char path[300];
	unsigned n = 0;
	FILE *file;
	int pid;

	snprintf(path, sizeof(path), "%s/cgroup.procs", pressure->group);
	file = fopen(path, "r");
	while (file && fscanf(file, "%d", &pid) == 1) {
		kill(pid, SIGKILL);
		n++;
	}
	if (file)
		fclose(file);
	return n;
}

/* A group can go only when its members are quite gone, which takes them a moment after the signal. */
static void remove_group(const struct pressure *pressure)
{
	const struct timespec moment = {.tv_nsec = 10000000};

	for (unsigned i = 0; i < 3000; i++) {
		if (!kill_members(pressure) && (!rmdir(pressure->group) || errno != EBUSY))
			return;
		nanosleep(&moment, NULL);
	}
}

/* ---- the change ---- */

static int pressure_make(void *arg, char why[BENCH_WHY])
{
	struct pressure *pressure = arg;
	int err = make_group(pressure, why);

	return err ? err : make_swap(pressure, why);
}

/* The members go first: their pages need not be read back then. */
static void pressure_undo(void *arg)
{
	const struct pressure *pressure = arg;

	if (pressure->have_group)
		remove_group(pressure);
	if (pressure->have_swap)
		(void)swapoff(pressure->file);
	if (pressure->have_file)
		(void)unlink(pressure->file);
}

/* The caller's group: the line "N:memory:/path". */
static int find_home(char *home, size_t nbytes)
{
	FILE *file = fopen("/proc/self/cgroup", "r");
	char line[300];
	int err = -ENOENT;

	while (file && fgets(line, sizeof(line), file)) {
		char *path = strstr(line, ":memory:");

		if (!path)
			continue;
		path[strcspn(path, "\n")] = '\0';
		path += sizeof(":memory:") - 1;
		snprintf(home, nbytes, MEMORY_GROUPS "%s", strcmp(path, "/") == 0 ? "" : path);
		err = access(home, F_OK) ? -errno : 0;
	}
	if (file)
		fclose(file);
	return err;
}

static int move_to(const char *group)
{
	char path[300], text[32];

	snprintf(path, sizeof(path), "%s/cgroup.procs", group);
	snprintf(text, sizeof(text), "%d", getpid());
	return bench_write_file(path, text);
}

static int check_possible(struct bench_pressure *pressure, char why[BENCH_WHY])
{
	if (geteuid() != 0) {
		snprintf(why, BENCH_WHY, "a swap file and a memory control group need root");
		return -EPERM;
	}
	if (!find_home(pressure->home, sizeof(pressure->home)))
		return 0;
	snprintf(why, BENCH_WHY, "no memory control groups of version 1");
	return -EOPNOTSUPP;
}

int bench_pressure_start(struct bench_pressure *pressure, uint64_t limit, uint64_t swap, char why[BENCH_WHY])
{
	static const struct bench_change change = {pressure_make, pressure_undo};
	const char *folder = getenv("TMPDIR");
	struct pressure made = {.limit = limit, .swap = swap};
	int err = check_possible(pressure, why);

	if (err)
		return err;
	snprintf(pressure->group, sizeof(pressure->group), "%.200s/ucow-bench-%d", pressure->home, getpid());
	memcpy(made.group, pressure->group, sizeof(made.group));
	snprintf(made.file, sizeof(made.file), "%.200s/ucow-bench-swap-%d", folder ? folder : "/var/tmp", getpid());
	err = bench_guard_start(&pressure->guard, &change, &made, why);
	if (err)
		return err;
	err = move_to(pressure->group);
	if (err)
		bench_pressure_stop(pressure);
	return err;
}

void bench_pressure_stop(struct bench_pressure *pressure)
{
	(void)move_to(pressure->home);
	bench_guard_stop(&pressure->guard);
}

int bench_pressure_write(const struct bench_pressure *pressure, const char *file, const char *text)
{
	char path[400];

	snprintf(path, sizeof(path), "%s/%s", pressure->group, file);
	return bench_write_file(path, text);
}
