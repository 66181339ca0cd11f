/* SPDX-License-Identifier: MIT */
/*
 * Locks with ranks. This header is the one place that states the lock order; docs/locking.md explains it.
 *
 * A thread takes locks in the order of their ranks, outermost first; two of equal rank only through the *_nested calls.
 *
 *   LOCK_SWAPON       swap devices come and go
 *   LOCK_KSM          the scanner of same-page merging: one scans at a time
 *   LOCK_RELIEF       reclaim on behalf of operations that lack memory
 *   LOCK_FILE         one writes to a file, truncates it or makes a hole in it at a time
 *   LOCK_MACHINE      machine: lists of spaces and cpus
 *     LOCK_MMAP       mm: mappings and the shape of the tables (shared: faults, GUP; exclusive: map, unmap, fork, ...)
 *       LOCK_NOTIFY   who follows which space; shared while reclaim takes pages from followed spaces
 *       LOCK_GROUP    the charges and members of a snapshot group
 *       LOCK_FILLING  pages of a file are being read
 *       LOCK_UFFD     who waits at a userfaultfd, and its messages
 *       LOCK_KSM_NODES  the table of merged pages
 *       LOCK_ROOT     which table is a space's root
 *       LOCK_TABLE+n  tables, root (n = 0) to leaf (n = 5), top down
 *         LOCK_KSM_HOMES  where one merged page may be mapped
 *         LOCK_FAMILY the leaves that may map the same pages; walks from a page take it first and try the leaves
 *         LOCK_CACHE  the pages of a file or of shared memory, and who maps it
 *         LOCK_CACHES the caches of a machine
 *         LOCK_SWAP   the slots of a swap device
 *         LOCK_STORE  the queues of a swap device's file; held while they are waited for
 *         LOCK_EPOCH  members of an epoch, what a thread has put off; held while sections are waited for
 *         LOCK_PINS   owners of pages that several spaces have pinned
 *         LOCK_BATCH  pages on their way to an LRU list
 *         LOCK_LRU    the LRU lists of a group
 *         LOCK_SLAB   table memory
 *         LOCK_PCP    per-thread frame caches
 *         LOCK_MEMCG  the groups of a machine: numbers, members
 *           LOCK_BUDDY  free lists
 *
 * The page lock (a flag of struct ucow_page) is outside the order: it is tried, never waited for, under any of these;
 * only the policies with a blocking lock mode wait for it, holding nothing but the mmap lock in shared mode.
 */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include "base/sync.h"

#include <pthread.h>
#include <sched.h>

enum lock_rank {
	LOCK_SWAPON = 1,
	LOCK_KSM,
	LOCK_RELIEF,
	LOCK_FILE,
	LOCK_MACHINE,
	LOCK_MMAP,
	LOCK_NOTIFY,
	LOCK_GROUP,
	LOCK_FILLING,
	LOCK_UFFD,
	LOCK_KSM_NODES,
	LOCK_ROOT,
	LOCK_TABLE,
	LOCK_TABLE_LEAF = LOCK_TABLE + 5,
	LOCK_KSM_HOMES,
	LOCK_FAMILY,
	LOCK_CACHE,
	LOCK_CACHES,
	LOCK_SWAP,
	LOCK_STORE,
	LOCK_EPOCH,
	LOCK_PINS,
	LOCK_BATCH,
	LOCK_LRU,
	LOCK_SLAB,
	LOCK_PCP,
	LOCK_MEMCG,
	LOCK_BUDDY,
	LOCK_RANKS
};

/* Lanes of the explorer are one thread, and it finds deadlocks itself. */
#define lock_ranks_checked (checked_build && !exploring)
#if lock_ranks_checked
void lock_rank_enter(enum lock_rank rank, bool nested);
void lock_rank_tried(enum lock_rank rank);
void lock_rank_leave(enum lock_rank rank);
/* lock_rank_none_held - abort unless the calling thread holds no lock. */
void lock_rank_none_held(void);
#else
static inline void lock_rank_enter(enum lock_rank rank, bool nested)
{
	(void)rank;
	(void)nested;
}
static inline void lock_rank_tried(enum lock_rank rank)
{
	(void)rank;
}
static inline void lock_rank_leave(enum lock_rank rank)
{
	(void)rank;
}
static inline void lock_rank_none_held(void)
{
}
#endif

/* ---- waiting ---- */

/* wait_until - until @ready says so: a step of kind @kind on @object. It gives the processor away when it takes long.
 */
static inline void wait_until(enum hook_kind kind, const volatile void *object, hook_ready *ready, uintptr_t arg)
{
#if exploring
	hook_await(kind, object, ready, arg);
#else
	(void)kind;
	for (unsigned tries = 0; !ready(object, arg); tries++)
		if (tries > 64)
			sched_yield();
#endif
}

/* ---- spin lock: 4 bytes, for short sections without system calls ---- */

struct spin {
	_Atomic uint32_t held;
};

static inline bool spin_is_free(const volatile void *held, uintptr_t unused)
{
	(void)unused;
	return !__atomic_load_n((const volatile uint32_t *)held, __ATOMIC_RELAXED);
}

static inline void spin_lock_raw(struct spin *lock, enum lock_rank rank)
{
#if exploring
	/* What lies behind the late ranks commutes: allocators, statistics. */
	if (rank >= LOCK_PINS)
		hook_quiet_begin();
	hook_await(HOOK_UPDATE, lock, spin_is_free, 0);
	__atomic_store_n((uint32_t *)(void *)&lock->held, 1, __ATOMIC_RELAXED);
	hook_hold(lock, true);
#else
	(void)rank;
	while (unlikely(atomic_exchange_explicit(&lock->held, 1, memory_order_acquire)))
		wait_until(HOOK_UPDATE, lock, spin_is_free, 0);
#endif
}

/* spin_trylock - against the order of ranks, therefore: who gets it goes on in that order. */
static inline bool spin_trylock(struct spin *lock, enum lock_rank rank)
{
#if exploring
	hook_step(HOOK_UPDATE, lock);
	if (__atomic_load_n((uint32_t *)(void *)&lock->held, __ATOMIC_RELAXED))
		return false;
	__atomic_store_n((uint32_t *)(void *)&lock->held, 1, __ATOMIC_RELAXED);
	hook_hold(lock, true);
#else
	if (atomic_load_explicit(&lock->held, memory_order_relaxed) ||
	    atomic_exchange_explicit(&lock->held, 1, memory_order_acquire))
		return false;
#endif
	lock_rank_tried(rank);
	return true;
}

static inline void spin_lock(struct spin *lock, enum lock_rank rank)
{
	lock_rank_enter(rank, false);
	spin_lock_raw(lock, rank);
}

/* A second lock of the same rank; the caller's contract says why this cannot deadlock. */
static inline void spin_lock_nested(struct spin *lock, enum lock_rank rank)
{
	lock_rank_enter(rank, true);
	spin_lock_raw(lock, rank);
}

static inline void spin_unlock(struct spin *lock, enum lock_rank rank)
{
	atomic_store_explicit(&lock->held, 0, memory_order_release);
	hook_release(lock);
	lock_rank_leave(rank);
#if exploring
	if (rank >= LOCK_PINS)
		hook_quiet_end();
#endif
}

/* ---- sleeping locks ---- */

struct mutex {
#if exploring
	struct spin lock;
#else
	pthread_mutex_t lock;
#endif
	enum lock_rank rank;
};

/*
 * Many readers or one writer, who bars new readers and then waits for those inside. At first readers are counted in one
 * word; when several threads meet here the lock is given a count for each thread slot, on lines of their own, so that
 * readers share no line at all (rwlock_spread).
 */
struct rwlock {
	_Atomic uint32_t state;   /* RWLOCK_*, and readers while there are no counts */
	_Atomic uint32_t leaving; /* counts the readers that have left under a writer's eyes, who sleeps here */
	_Atomic(struct rwlock_count *) counts; /* NULL, or one a slot; set with the lock held exclusively */
	enum lock_rank rank;
};

struct rwlock_count {
	_Atomic uint32_t readers;
} __attribute__((aligned(128))); /* THREAD_APART */

#define RWLOCK_WRITER   ((uint32_t)1 << 31) /* a writer holds it, or waits for the readers inside */
#define RWLOCK_SPREAD   ((uint32_t)1 << 30) /* readers are in the counts */
#define RWLOCK_SLEEPERS ((uint32_t)1 << 29) /* somebody sleeps until the writer has gone */
#define RWLOCK_READERS  (RWLOCK_SLEEPERS - 1)

void mutex_init(struct mutex *mutex, enum lock_rank rank);
void mutex_destroy(struct mutex *mutex);
void mutex_lock(struct mutex *mutex);
bool mutex_trylock(struct mutex *mutex);
void mutex_unlock(struct mutex *mutex);

void rwlock_init(struct rwlock *lock, enum lock_rank rank);
void rwlock_destroy(struct rwlock *lock);
/* rwlock_spread - prepare for readers of several threads. Without memory it stays as it is. Requires: not held. */
void rwlock_spread(struct rwlock *lock);
void rwlock_read_lock(struct rwlock *lock);
void rwlock_read_unlock(struct rwlock *lock);
void rwlock_write_lock(struct rwlock *lock);
/* rwlock_write_lock_nested - a second one of the same rank; the caller's contract says why this cannot deadlock. */
void rwlock_write_lock_nested(struct rwlock *lock);
void rwlock_write_unlock(struct rwlock *lock);

#endif
