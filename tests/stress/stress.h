/* SPDX-License-Identifier: MIT */
/*
 * Stress: threads that do everything to a few spaces at once, and stamps by which each page tells what it should be.
 *
 * The stage is one machine with a number of *families*. A family is one space at a time with several threads in it,
 * each with a cpu of its own, and the children and snapshots that these threads fork from it. Everybody reads
 * everything; each page has one writer among the threads, so that what it must hold is known to somebody.
 *
 * A stamp is eight bytes: which space wrote it, which page it is for, and a version that grows with every store, by
 * whichever way (store, compare-exchange, pin, io_uring).
 */
#ifndef STRESS_H
#define STRESS_H

#include <ucow/ucow.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define STRESS_PAGES   96 /* of a family's region: three leaves */
#define STRESS_THREADS 8  /* most in one family */

/* ---- stamps ---- */

static inline uint64_t stamp_make(uint64_t space, uint64_t page, uint64_t version)
{
	return space << 48 | page << 40 | version;
}

static inline uint64_t stamp_space(uint64_t stamp)
{
	return stamp >> 48;
}

static inline uint64_t stamp_page(uint64_t stamp)
{
	return stamp >> 40 & 0xff;
}

static inline uint64_t stamp_version(uint64_t stamp)
{
	return stamp & ((UINT64_C(1) << 40) - 1);
}

/* ---- the stage ---- */

struct stress_options {
	uint64_t seed;
	unsigned seconds, families, threads;
	enum ucow_fork_mode fork;
	bool soak;
	bool pressure; /* limits below what is used, and swap */
	bool merge;    /* a thread merges equal pages */
	bool plant;    /* write one wrong stamp, which must be noticed */
};

/* What the writer of a page says of it. Readers take `before` first and `after` last. */
struct page_state {
	_Atomic uint64_t written; /* version whose store has been done */
	_Atomic uint64_t started; /* version whose store has begun: never below `written` */
	_Atomic uint64_t drops;   /* odd from before its writer drops or unmaps it until it is written again */
};

struct family {
	struct stress *stress;
	unsigned number; /* 1.. */
	struct ucow_mm *mm;
	struct ucow_memcg *memcg; /* its first; NULL without pressure */
	uint64_t va;
	struct ucow_snapshot_group *group; /* of the first family; NULL */
	struct page_state pages[STRESS_PAGES];
};

struct worker {
	struct family *family;
	unsigned number; /* within the family */
	pthread_t thread;
	struct ucow_cpu *cpu, *child_cpu;
	uint64_t random;
	uint64_t seen[STRESS_PAGES]; /* highest version read from each page */
	uint64_t done;               /* operations */
	struct device *device;       /* NULL: none on this host */
	struct ucow_page *held;      /* pinned, or NULL */
	unsigned held_page;
};

struct stress {
	struct stress_options options;
	struct ucow_machine *machine;
	struct family *families;
	struct ucow_memcg *memcg; /* above those of the families */
	unsigned swap;            /* the device */
	_Atomic bool stop;
	_Atomic bool failed;
	char what[400]; /* of the first failure */
	pthread_mutex_t lock;
};

/* stress_fail - note what went wrong, once, and end the run. */
void stress_fail(struct stress *stress, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* stress_random - the next number below @limit. */
uint64_t stress_random(struct worker *worker, uint64_t limit);
/* stress_operation - one operation, chosen by weight (workload.c). */
void stress_operation(struct worker *worker);
/* stress_print_operations - how often each was done. */
void stress_print_operations(void);
/* stress_release - unpin what @worker holds. */
void stress_release(struct worker *worker);

/* ---- what a page may show (model.c) ---- */

/* A look at a page: what its writer had said before. */
struct look {
	uint64_t least; /* version */
	uint64_t drops;
};

static inline uint64_t page_va(const struct family *family, unsigned page)
{
	return family->va + (uint64_t)page * UCOW_PAGE_SIZE;
}

/* Each page has one writer. */
static inline unsigned page_writer(const struct family *family, unsigned page)
{
	return page % family->stress->options.threads;
}

/* model_look - before a page, or a fork of its space, is read. */
struct look model_look(const struct family *family, unsigned page);
/*
 * model_check - @stamp was seen in @page after @look: it is the family's, the page's, no older than the look and no
 * newer than what has been started. Returns: NULL or what is wrong.
 */
const char *model_check(const struct family *family, unsigned page, struct look look, uint64_t stamp);
/* model_may_be_gone - since @look the page was, for a time or still, dropped or not accessible. */
bool model_may_be_gone(const struct family *family, unsigned page, struct look look);

/* A page of a child or snapshot: what was known of it before the fork, and after. */
struct frozen {
	struct look before;
	uint64_t most; /* version */
	bool may_be_gone;
};

/* model_freeze - after the fork: @before was looked at before it. */
struct frozen model_freeze(const struct family *family, unsigned page, struct look before);
/* model_check_frozen - as model_check, for a page that shows what it did at the fork, for good. */
const char *model_check_frozen(const struct family *family, unsigned page, struct frozen frozen, uint64_t stamp);

/* ---- real I/O (device.c) ---- */

/* device_create - Returns: NULL: no io_uring here. */
struct device *device_create(void);
void device_destroy(struct device *device);
/* device_write - let the kernel write @stamp to @address. Returns: 0; -errno. */
int device_write(struct device *device, void *address, uint64_t stamp);

#endif
