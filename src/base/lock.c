/* SPDX-License-Identifier: MIT */
/* Sleeping locks, and the rank checker of checked builds. */
#include "base/lock.h"

#include "base/futex.h"
#include "base/host.h"
#include "base/thread.h"

#if lock_ranks_checked
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

/* Who got a lock without waiting is nobody's deadlock. */
void lock_rank_tried(enum lock_rank rank)
{
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

/* ---- mutex ---- */

#if exploring
void mutex_init(struct mutex *mutex, enum lock_rank rank)
{
	*mutex = (struct mutex){.rank = rank};
}

void mutex_destroy(struct mutex *mutex)
{
	(void)mutex;
}

void mutex_lock(struct mutex *mutex)
{
	spin_lock(&mutex->lock, mutex->rank);
}

bool mutex_trylock(struct mutex *mutex)
{
	return spin_trylock(&mutex->lock, mutex->rank);
}

void mutex_unlock(struct mutex *mutex)
{
	spin_unlock(&mutex->lock, mutex->rank);
}
#else
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

bool mutex_trylock(struct mutex *mutex)
{
	if (pthread_mutex_trylock(&mutex->lock))
		return false;
	lock_rank_tried(mutex->rank);
	return true;
}

void mutex_unlock(struct mutex *mutex)
{
	must(pthread_mutex_unlock(&mutex->lock));
	lock_rank_leave(mutex->rank);
}
#endif

/* ---- readers and writers ---- */

void rwlock_init(struct rwlock *lock, enum lock_rank rank)
{
	atomic_init(&lock->state, 0);
	atomic_init(&lock->leaving, 0);
	atomic_init(&lock->counts, NULL);
	lock->rank = rank;
}

void rwlock_destroy(struct rwlock *lock)
{
	host_free(atomic_load_explicit(&lock->counts, memory_order_relaxed));
}

/* Sleep until the writer that @state speaks of has gone. Returns: the state then. */
static uint32_t sleep_off_writer(struct rwlock *lock, uint32_t state)
{
	while (state & RWLOCK_WRITER) {
		if (!(state & RWLOCK_SLEEPERS) &&
		    !atomic_compare_exchange_weak(&lock->state, &state, state | RWLOCK_SLEEPERS))
			continue;
		futex_wait(&lock->state, state | RWLOCK_SLEEPERS);
		state = atomic_load(&lock->state);
	}
	return state;
}

/* A reader has left, or backed off: the writer may be waiting for him. */
static void tell_writer(struct rwlock *lock)
{
	atomic_fetch_add(&lock->leaving, 1);
	futex_wake(&lock->leaving);
}

static struct rwlock_count *own_count(struct rwlock *lock)
{
	struct rwlock_count *counts = atomic_load_explicit(&lock->counts, memory_order_acquire);

	return counts ? &counts[thread_slot()] : NULL;
}

/* [ORD-RW-1] A reader counts himself, then looks for a writer; a writer bars, then looks at the counts: one sees the
 * other. Returns: false: nothing is counted. */
static bool try_read_spread(struct rwlock *lock, struct rwlock_count *count)
{
	atomic_fetch_add(&count->readers, 1);
	if (likely(!(atomic_load(&lock->state) & RWLOCK_WRITER)))
		return true;
	atomic_fetch_sub(&count->readers, 1);
	tell_writer(lock);
	return false;
}

static bool try_read_one_word(struct rwlock *lock)
{
	uint32_t state = atomic_load_explicit(&lock->state, memory_order_relaxed);

	while (!(state & (RWLOCK_WRITER | RWLOCK_SPREAD)))
		if (atomic_compare_exchange_weak_explicit(&lock->state, &state, state + 1, memory_order_acquire,
							  memory_order_relaxed))
			return true;
	return false;
}

void rwlock_read_lock(struct rwlock *lock)
{
	lock_rank_enter(lock->rank, false);
	for (;;) {
		struct rwlock_count *count = own_count(lock);

		if (likely(count ? try_read_spread(lock, count) : try_read_one_word(lock))) {
			hook_hold(lock, false);
			return;
		}
		sleep_off_writer(lock, atomic_load(&lock->state));
	}
}

void rwlock_read_unlock(struct rwlock *lock)
{
	/* Counted where it was locked: only a writer changes where. */
	struct rwlock_count *count = own_count(lock);
	uint32_t state;

	if (count) {
		atomic_fetch_sub(&count->readers, 1);
		hook_release(lock);
		state = atomic_load(&lock->state);
	} else {
		state = atomic_fetch_sub(&lock->state, 1);
		hook_release(lock);
	}
	if (unlikely(state & RWLOCK_WRITER))
		tell_writer(lock);
	lock_rank_leave(lock->rank);
}

static bool readers_inside(struct rwlock *lock, uint32_t state)
{
	struct rwlock_count *counts = atomic_load_explicit(&lock->counts, memory_order_acquire);
	uint32_t inside = state & RWLOCK_READERS;

	for (unsigned slot = 0; unlikely(counts) && !inside && slot < THREAD_SLOTS; slot++)
		inside = atomic_load(&counts[slot].readers);
	return inside;
}

/* Bar the way for others. Returns: the state, which says who is still inside. */
static uint32_t bar(struct rwlock *lock)
{
	uint32_t state = atomic_load_explicit(&lock->state, memory_order_relaxed);

	do
		state = sleep_off_writer(lock, state);
	while (!atomic_compare_exchange_weak(&lock->state, &state, state | RWLOCK_WRITER));
	return state;
}

static void write_lock(struct rwlock *lock)
{
	uint32_t state = bar(lock);

	while (unlikely(readers_inside(lock, state))) {
		uint32_t leaving = atomic_load(&lock->leaving);

		state = atomic_load(&lock->state);
		if (readers_inside(lock, state))
			futex_wait(&lock->leaving, leaving);
	}
	hook_hold(lock, true);
}

void rwlock_write_lock(struct rwlock *lock)
{
	lock_rank_enter(lock->rank, false);
	write_lock(lock);
}

void rwlock_write_lock_nested(struct rwlock *lock)
{
	lock_rank_enter(lock->rank, true);
	write_lock(lock);
}

void rwlock_write_unlock(struct rwlock *lock)
{
	uint32_t state = atomic_fetch_and(&lock->state, ~(RWLOCK_WRITER | RWLOCK_SLEEPERS));

	hook_release(lock);
	if (state & RWLOCK_SLEEPERS)
		futex_wake(&lock->state);
	lock_rank_leave(lock->rank);
}

void rwlock_spread(struct rwlock *lock)
{
	struct rwlock_count *counts;

	if (atomic_load_explicit(&lock->counts, memory_order_relaxed))
		return;
	counts = host_alloc_lines(THREAD_SLOTS * sizeof(*counts));
	if (!counts)
		return;
	rwlock_write_lock(lock);
	if (!atomic_load_explicit(&lock->counts, memory_order_relaxed)) {
		atomic_fetch_or(&lock->state, RWLOCK_SPREAD);
		atomic_store(&lock->counts, counts);
		counts = NULL;
	}
	rwlock_write_unlock(lock);
	host_free(counts);
}
