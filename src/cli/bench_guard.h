/* SPDX-License-Identifier: MIT */
/*
 * Changes to the running system for the time of one row: a swap file, a memory control group, settings of ksmd. A
 * process of its own makes them and undoes them, when told or when its owner has died of whatever: an interrupted
 * benchmark leaves nothing behind.
 */
#ifndef CLI_BENCH_GUARD_H
#define CLI_BENCH_GUARD_H

#include "bench.h"

struct bench_guard {
	int pid, fd;
};

/*
 * What the guard does, in its own process: @arg is a copy, and what make notes there undo finds. undo must cope with
 * whatever make has got done when it fails.
 */
struct bench_change {
	int (*make)(void *arg, char why[BENCH_WHY]);
	void (*undo)(void *arg);
};

/* bench_guard_start - make a change. Returns: 0; what make said, the change being undone; -errno. */
int bench_guard_start(struct bench_guard *guard, const struct bench_change *change, void *arg, char why[BENCH_WHY]);
/* bench_guard_stop - undo it, and wait until that is done. */
void bench_guard_stop(struct bench_guard *guard);

/* ---- memory pressure on the kernel (bench_pressure.c) ---- */

/* A control group with a limit, and a swap file for what it does not hold. */
struct bench_pressure {
	struct bench_guard guard;
	char group[256], home[256]; /* folders of the group, and of the one that the caller is in */
};

/*
 * bench_pressure_start - the calling process moves into a group that may use @limit bytes; the kernel gets @swap bytes
 * more in a temporary file. Root only. Returns: 0; -errno.
 */
int bench_pressure_start(struct bench_pressure *pressure, uint64_t limit, uint64_t swap, char why[BENCH_WHY]);
/* bench_pressure_stop - move back, and undo the rest; other processes of the group are killed. */
void bench_pressure_stop(struct bench_pressure *pressure);
/* bench_pressure_write - write @text into a file of the group. */
int bench_pressure_write(const struct bench_pressure *pressure, const char *file, const char *text);

/* bench_write_file - Returns: 0; -errno. */
int bench_write_file(const char *path, const char *text);
/* bench_read_file - the first line without its end. Returns: 0; -errno. */
int bench_read_file(const char *path, char *text, size_t nbytes);

#endif
