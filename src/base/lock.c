/* SPDX-License-Identifier: MIT */
/* Sleeping locks over pthreads, and the rank checker of checked builds. */
#include "base/lock.h"

#if checked_build
static _Thread_local unsigned ranks_held[LOCK_RANKS];

void lock_rank_enter(enum lock_rank rank, bool nested)
{
	for (unsigned other = rank + 1; other < LOCK_RANKS; other++)
		if (ranks_held[other])
			UCOW_BUG("lock taken against the order of base/lock.h");
	if (ranks_held[rank] && !nested)
		UCOW_BUG("two locks of one rank without nesting");
	ranks_held[rank]++;
}

void lock_rank_leave(enum lock_rank rank)
{
	if (!ranks_held[rank])
		UCOW_BUG("lock released that this thread does not hold");
	ranks_held[rank]--;
}

void lock_rank_none_held(void)
{
	for (unsigned rank = 0; rank < LOCK_RANKS; rank++)
		if (ranks_held[rank])
			UCOW_BUG("a lock is still held");
}
#endif

/* pthread calls fail only on misuse: that is our bug. */
static void must(int error)
{
	if (unlikely(error))
		UCOW_BUG("pthread lock call failed");
}

void mutex_init(struct mutex *mutex, enum lock_rank rank)
{
	must(pthread_mutex_init(&mutex->lock, NULL));
	mutex->rank = rank;
}

void mutex_destroy(struct mutex *mutex)
{
	must(pthread_mutex_destroy(&mutex->lock));
}

void mutex_lock(struct mutex *mutex)
{
	lock_rank_enter(mutex->rank, false);
	must(pthread_mutex_lock(&mutex->lock));
}

void mutex_unlock(struct mutex *mutex)
{
	must(pthread_mutex_unlock(&mutex->lock));
	lock_rank_leave(mutex->rank);
}

void rwlock_init(struct rwlock *lock, enum lock_rank rank)
{
	must(pthread_rwlock_init(&lock->lock, NULL));
	lock->rank = rank;
}

void rwlock_destroy(struct rwlock *lock)
{
	must(pthread_rwlock_destroy(&lock->lock));
}

void rwlock_read_lock(struct rwlock *lock)
{
	lock_rank_enter(lock->rank, false);
	must(pthread_rwlock_rdlock(&lock->lock));
}

void rwlock_read_lock_nested(struct rwlock *lock)
{
	lock_rank_enter(lock->rank, true);
	must(pthread_rwlock_rdlock(&lock->lock));
}

void rwlock_read_unlock(struct rwlock *lock)
{
	must(pthread_rwlock_unlock(&lock->lock));
	lock_rank_leave(lock->rank);
}

void rwlock_write_lock(struct rwlock *lock)
{
	lock_rank_enter(lock->rank, false);
	must(pthread_rwlock_wrlock(&lock->lock));
}

void rwlock_write_unlock(struct rwlock *lock)
{
	must(pthread_rwlock_unlock(&lock->lock));
	lock_rank_leave(lock->rank);
}
