/* SPDX-License-Identifier: MIT */
/*
 * Locks with ranks. This header is the one place that states the lock order; docs/locking.md explains it.
 *
 * A thread takes locks in the order of their ranks, outermost first; two of equal rank only through the *_nested calls.
 *
 *   LOCK_MACHINE      machine: lists of spaces and cpus
 *     LOCK_MMAP       mm: mappings and the shape of the tables (shared: faults, GUP; exclusive: map, unmap, fork, ...)
 *       LOCK_GROUP    the charges and members of a snapshot group
 *       LOCK_OBJECT   the pages of a shared mapping
 *       LOCK_TABLE+n  tables, root (n = 0) to leaf (n = 5), top down
 *         LOCK_PINS   owners of pages that several spaces have pinned
 *         LOCK_SLAB   table memory
 *         LOCK_PCP    per-thread frame caches
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
	LOCK_MACHINE = 1,
	LOCK_MMAP,
	LOCK_GROUP,
	LOCK_OBJECT,
	LOCK_TABLE,
	LOCK_TABLE_LEAF = LOCK_TABLE + 5,
	LOCK_PINS,
	LOCK_SLAB,
	LOCK_PCP,
	LOCK_BUDDY,
	LOCK_RANKS
};

#if checked_build
void lock_rank_enter(enum lock_rank rank, bool nested);
void lock_rank_leave(enum lock_rank rank);
/* lock_rank_none_held - abort unless the calling thread holds no lock. */
void lock_rank_none_held(void);
#else
static inline void lock_rank_enter(enum lock_rank rank, bool nested)
{
	(void)rank;
	(void)nested;
}
static inline void lock_rank_leave(enum lock_rank rank)
{
	(void)rank;
}
static inline void lock_rank_none_held(void)
{
}
#endif

/* ---- spin lock: 4 bytes, for short sections without system calls ---- */

struct spin {
	_Atomic uint32_t held;
};

static inline void spin_wait(struct spin *lock)
{
	for (unsigned tries = 0; atomic_load_explicit(&lock->held, memory_order_relaxed); tries++)
		if (tries > 64)
			sched_yield();
}

static inline void spin_lock_raw(struct spin *lock)
{
	while (unlikely(atomic_exchange_explicit(&lock->held, 1, memory_order_acquire)))
		spin_wait(lock);
}

static inline void spin_lock(struct spin *lock, enum lock_rank rank)
{
	lock_rank_enter(rank, false);
	spin_lock_raw(lock);
}

/* A second lock of the same rank; the caller's contract says why this cannot deadlock. */
static inline void spin_lock_nested(struct spin *lock, enum lock_rank rank)
{
	lock_rank_enter(rank, true);
	spin_lock_raw(lock);
}

static inline void spin_unlock(struct spin *lock, enum lock_rank rank)
{
	atomic_store_explicit(&lock->held, 0, memory_order_release);
	lock_rank_leave(rank);
}

/* ---- sleeping locks ---- */

struct mutex {
	pthread_mutex_t lock;
	enum lock_rank rank;
};

struct rwlock {
	pthread_rwlock_t lock;
	enum lock_rank rank;
};

void mutex_init(struct mutex *mutex, enum lock_rank rank);
void mutex_destroy(struct mutex *mutex);
void mutex_lock(struct mutex *mutex);
void mutex_unlock(struct mutex *mutex);

void rwlock_init(struct rwlock *lock, enum lock_rank rank);
void rwlock_destroy(struct rwlock *lock);
void rwlock_read_lock(struct rwlock *lock);
/* rwlock_read_lock_nested - a second one of the same rank; the caller's contract says why this cannot deadlock. */
void rwlock_read_lock_nested(struct rwlock *lock);
void rwlock_read_unlock(struct rwlock *lock);
void rwlock_write_lock(struct rwlock *lock);
void rwlock_write_unlock(struct rwlock *lock);

#endif
