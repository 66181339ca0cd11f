/* SPDX-License-Identifier: MIT */
/*
 * `ucow bench`: a table of rows, each the same work done by ucow and by the kernel this machine runs. A row says how to
 * take one sample of either side; bench.c interleaves the samples and bench_report.c prints what came out.
 */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include <ucow/machine.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Pages of one batch of the pin row. */
#define BENCH_PIN_PAGES 512

/* Room for the reason why a side or a row cannot be measured. */
#define BENCH_WHY 160

struct bench_row;

/*
 * One side of a row. open prepares everything that is not measured, sample does the work once and tells what it cost in
 * the row's unit, close undoes open. All return 0 or -errno and may put a reason into @why (empty: strerror will do).
 * The kernel's sides run in a process of their own (bench_worker.c), which ends with the row.
 */
struct bench_side {
	int (*open)(const struct bench_row *row, void **state, char why[BENCH_WHY]);
	int (*sample)(void *state, double *value, char why[BENCH_WHY]);
	void (*close)(void *state);
};

enum bench_ratio { BENCH_KERNEL_OVER_UCOW, BENCH_UCOW_OVER_KERNEL };

struct bench_row {
	const char *name;
	const char *unit; /* of both sides: "ns", "us", "ratio", "bytes" */
	const char *what; /* the work, and of what `unit` is told */
	enum bench_ratio ratio;
	uint64_t npages;          /* pages that the work touches */
	unsigned copies;          /* how many pages may stand behind each of them at one time */
	unsigned count;           /* what else the work needs to know; its side says of what this is the number */
	unsigned changes;         /* snapshots: pages changed between two */
	unsigned nmappings;       /* that the pages are cut into by holes of one page; 0: one */
	enum ucow_fork_mode fork; /* of ucow's machine; 0: the default */
	enum ucow_policy policy;  /* of ucow's machine; 0: exclusive */
	bool large;               /* left out by --quick */
	uint64_t ram_pages;       /* RAM of each side, where that is less than the work's pages; 0: enough for them */
	uint64_t swap_pages;      /* swap of each side; the row needs so much room in $TMPDIR or /var/tmp */
	unsigned seconds;         /* how long a sample takes, where it is told in advance */
	unsigned quick_part;      /* --quick: so many times less of pages and seconds; 0: all */
	unsigned apart; /* so many samples, each side opened, measured and closed before the other; 0: in turn */
	const struct bench_side *ucow, *kernel; /* no kernel: ucow's side stands alone */
};

/* ---- the rows (bench_rows.c), and their sides by theme ---- */

#define BENCH_MAX_ROWS 64

extern const struct bench_row bench_rows[];
extern const size_t bench_nrows;

extern const struct bench_side bench_cow_copy_ucow, bench_cow_copy_kernel;
extern const struct bench_side bench_cow_reuse_ucow, bench_cow_reuse_kernel;
extern const struct bench_side bench_zero_fill_ucow, bench_zero_fill_kernel;
extern const struct bench_side bench_first_write_ucow, bench_first_write_kernel;
extern const struct bench_side bench_memcpy_kernel;
extern const struct bench_side bench_fork_ucow, bench_fork_kernel, bench_fork_refcount_pin;
extern const struct bench_side bench_fork_touch_ucow, bench_fork_touch_kernel;
extern const struct bench_side bench_fork_tables_ucow, bench_fork_tables_kernel;
extern const struct bench_side bench_fork_pinned_ucow, bench_fork_pinned_kernel, bench_fork_pinned_small;
extern const struct bench_side bench_fork_stale_ucow, bench_fork_stale_kernel;
extern const struct bench_side bench_load_ucow, bench_load_kernel;
extern const struct bench_side bench_store_ucow, bench_store_kernel;
extern const struct bench_side bench_random_ucow, bench_random_churned_ucow, bench_random_kernel;
extern const struct bench_side bench_pin_ucow, bench_pin_kernel;
extern const struct bench_side bench_cow_copy_duo_ucow, bench_cow_copy_duo_kernel;
extern const struct bench_side bench_zero_fill_duo_ucow, bench_zero_fill_duo_kernel;
extern const struct bench_side bench_pin_duo_ucow, bench_pin_duo_kernel;
extern const struct bench_side bench_family_ucow, bench_family_kernel;
extern const struct bench_side bench_fork_beside_ucow, bench_fork_beside_kernel;
extern const struct bench_side bench_fill_duo, bench_copy_duo; /* bare memory */
extern const struct bench_side bench_write_shared_ucow, bench_write_shared_mapcount, bench_write_shared_kernel;
extern const struct bench_side bench_held_exclusive, bench_held_mapcount;
extern const struct bench_side bench_scan_exclusive, bench_scan_mapcount;
extern const struct bench_side bench_swap_dirty_ucow, bench_swap_dirty_buffered, bench_swap_dirty_kernel;
extern const struct bench_side bench_ksm_merge_ucow, bench_ksm_merge_kernel;
extern const struct bench_side bench_rmap_ucow, bench_rmap_kernel;
extern const struct bench_side bench_memcg_charge;
extern const struct bench_side bench_wp_callback_ucow, bench_wp_callback_kernel;
extern const struct bench_side bench_wp_thread_ucow, bench_wp_thread_kernel;
extern const struct bench_side bench_scan_ucow, bench_scan_kernel;
extern const struct bench_side bench_msync_ucow, bench_msync_kernel;
extern const struct bench_side bench_snapshots_memory, bench_snapshots_last, bench_snapshots_tenth;

/* ---- what the sides share (bench_ucow.c, bench_kernel.c) ---- */

/*
 * A machine with one space, one cpu in it and one for children, and a mapping of the row's pages.
 */
struct bench_space {
	struct ucow_machine *machine;
	struct ucow_mm *mm;
	struct ucow_cpu *cpu, *child_cpu;
	uint64_t va, npages;
	unsigned count, changes;  /* as the row's */
	enum ucow_fork_mode fork; /* as the row's */
	uint64_t random;          /* state of bench_random */
	void *own;                /* what a row keeps; freed on close */
};

/* bench_space_open - as bench_side's open: *state is a struct bench_space with every page written. */
int bench_space_open(const struct bench_row *row, void **state, char why[BENCH_WHY]);
void bench_space_close(void *state);
/* bench_space_touch - store into each page in turn. Returns: 0, or the first error. *ns is the time it took. */
int bench_space_touch(struct bench_space *space, double *ns);

/* A private mapping in the calling process. */
struct bench_mapping {
	char *bytes;
	uint64_t npages;
	unsigned count;  /* as the row's */
	uint64_t random; /* state of bench_random */
};

/* bench_map - map without touching; @huge asks for huge pages, otherwise there are 4 KiB pages only. */
int bench_map(struct bench_mapping *mapping, uint64_t npages, bool huge);
void bench_unmap(struct bench_mapping *mapping);
/* bench_touch - store into each page in turn; *faults is how many faults the kernel counted meanwhile. */
void bench_touch(struct bench_mapping *mapping, double *ns, uint64_t *faults);
/* bench_mapping_open - as bench_side's open: *state is a struct bench_mapping of 4 KiB pages, every one written. */
int bench_mapping_open(const struct bench_row *row, void **state, char why[BENCH_WHY]);
void bench_mapping_close(void *state);

/* A forked child that sleeps until it is told to exit. */
struct bench_child {
	int pid, wake;
};

/* bench_child_fork - fork it; *ns (if not NULL) is what fork itself took. On return the child is asleep. */
int bench_child_fork(struct bench_child *child, double *ns);
/* bench_child_reap - let it exit and wait until it is gone. */
void bench_child_reap(struct bench_child *child);

/* bench_now - nanoseconds from some start. */
uint64_t bench_now(void);

/* bench_random - the next of a fixed sequence, below @limit (a power of two). *state starts at 0. */
static inline uint64_t bench_random(uint64_t *state, uint64_t limit)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (*state >> 33) & (limit - 1);
}

/* ---- the kernel's process (bench_worker.c) ---- */

struct bench_worker {
	int pid, fd;
};

/* bench_worker_start - fork a process and open @row's kernel side in it. */
int bench_worker_start(struct bench_worker *worker, const struct bench_row *row, char why[BENCH_WHY]);
/* bench_worker_sample - one sample, taken there. */
int bench_worker_sample(struct bench_worker *worker, double *value, char why[BENCH_WHY]);
void bench_worker_stop(struct bench_worker *worker);

/* ---- the machine (bench_host.c) ---- */

struct bench_host {
	char kernel[200], architecture[80], cpu[120];
	long cpus;
	uint64_t memory;
};

void bench_host_describe(struct bench_host *host);
/* bench_swap_available - bytes of room where swap files are made. */
uint64_t bench_swap_available(void);
/* bench_memory_available - bytes that could be taken without reclaim, within the limit of the control group. */
uint64_t bench_memory_available(void);
/* bench_stay_on_one_cpu - so that nothing moves between samples; children inherit it. */
void bench_stay_on_one_cpu(void);

/* ---- what came out (bench_report.c) ---- */

#define BENCH_MAX_SAMPLES 64

struct bench_stat {
	double samples[BENCH_MAX_SAMPLES];
	unsigned n; /* 0: nothing was measured */
	double median, min, max;
};

struct bench_result {
	const struct bench_row *row;
	struct bench_stat ucow, kernel;
	double ratio;                 /* meaningful if both sides have samples */
	char skipped[BENCH_WHY + 32]; /* why a side or the whole row is missing; empty: nothing is */
	bool failed;                  /* and that is not for want of anything */
};

/* bench_stat_finish - median, min and max of the samples. */
void bench_stat_finish(struct bench_stat *stat);
/* bench_report_text - the table for people; colours only if @out is a terminal and NO_COLOR is not set. */
void bench_report_text(FILE *out, const struct bench_host *host, const struct bench_result *results, size_t nresults);
/* Whether this build has bench_report_json. */
extern const bool bench_report_has_json;
/* bench_report_json - the object of docs/litmus.md. Returns: 0; -ENOMEM; -EIO; -EOPNOTSUPP (built without jansson). */
int bench_report_json(FILE *out, const struct bench_host *host, const struct bench_result *results, size_t nresults);

#endif
