/* SPDX-License-Identifier: MIT */
/* Thread slots, the readers-writer lock in both of its forms, and its hand-over to waiting writers. */
#include "base/lock.h"
#include "base/thread.h"
#include "tap.h"

#include <pthread.h>

#define NTHREADS 4
#define NROUNDS  4000

/* ---- slots ---- */

static void *tell_slot(void *arg)
{
	*(unsigned *)arg = thread_slot();
	return NULL;
}

static unsigned slot_of_a_thread(void)
{
	unsigned slot = THREAD_SLOTS;
	pthread_t thread;

	REQUIRE_EQ(pthread_create(&thread, NULL, tell_slot, &slot), 0);
	REQUIRE_EQ(pthread_join(thread, NULL), 0);
	return slot;
}

TEST(a_slot_is_dealt_again_when_its_thread_has_ended)
{
	unsigned mine = thread_slot(), first = slot_of_a_thread();

	CHECK(first != mine);
	for (unsigned i = 0; i < 3 * THREAD_SLOTS; i++)
		CHECK_EQ(slot_of_a_thread(), first);
	CHECK_EQ(thread_slot(), mine);
}

struct crowd {
	pthread_barrier_t barrier;
	_Atomic uint32_t taken; /* one bit a slot that has one thread */
	_Atomic unsigned shared;
};

static void *take_slot(void *arg)
{
	struct crowd *crowd = arg;
	unsigned slot = thread_slot();

	pthread_barrier_wait(&crowd->barrier);
	if (slot == THREAD_SLOT_SHARED)
		atomic_fetch_add(&crowd->shared, 1);
	else
		REQUIRE(!(atomic_fetch_or(&crowd->taken, UINT32_C(1) << slot) >> slot & 1));
	pthread_barrier_wait(&crowd->barrier);
	return NULL;
}

TEST(threads_beyond_the_slots_share_the_last_one)
{
	enum { CROWD = THREAD_SLOTS + 5 };
	pthread_t threads[CROWD];
	struct crowd crowd = {0};

	(void)thread_slot();
	pthread_barrier_init(&crowd.barrier, NULL, CROWD);
	for (unsigned i = 0; i < CROWD; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, take_slot, &crowd), 0);
	for (unsigned i = 0; i < CROWD; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&crowd.barrier);
	/* All own slots but ours were dealt. */
	CHECK_EQ(__builtin_popcount(atomic_load(&crowd.taken)), THREAD_SLOT_SHARED - 1);
	CHECK_EQ(atomic_load(&crowd.shared), CROWD - (THREAD_SLOT_SHARED - 1));
	CHECK_EQ(thread_slots_alive(), (UINT32_C(1) << THREAD_SLOT_SHARED) | UINT32_C(1) << thread_slot());
}

/* ---- readers and writers ---- */

/* Two words that a writer keeps equal. Not atomic: the lock is what orders them. */
struct guarded {
	struct rwlock lock;
	uint64_t a, b;
	bool spread; /* change the form of the lock half way */
	_Atomic unsigned torn;
};

static void read_once(struct guarded *guarded)
{
	rwlock_read_lock(&guarded->lock);
	if (guarded->a != guarded->b)
		atomic_fetch_add(&guarded->torn, 1);
	rwlock_read_unlock(&guarded->lock);
}

static void write_once(struct guarded *guarded)
{
	rwlock_write_lock(&guarded->lock);
	guarded->a++;
	guarded->b++;
	rwlock_write_unlock(&guarded->lock);
}

static void *read_and_write(void *arg)
{
	struct guarded *guarded = arg;

	for (unsigned i = 0; i < NROUNDS; i++) {
		if (guarded->spread && i == NROUNDS / 2)
			rwlock_spread(&guarded->lock);
		if (i % 8)
			read_once(guarded);
		else
			write_once(guarded);
	}
	return NULL;
}

static void run_guarded(bool spread_first, bool spread_midway)
{
	struct guarded guarded = {.spread = spread_midway};
	pthread_t threads[NTHREADS];

	rwlock_init(&guarded.lock, LOCK_MMAP);
	if (spread_first)
		rwlock_spread(&guarded.lock);
	for (unsigned i = 0; i < NTHREADS; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, read_and_write, &guarded), 0);
	for (unsigned i = 0; i < NTHREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(atomic_load(&guarded.torn), 0);
	CHECK_EQ(guarded.a, NTHREADS * NROUNDS / 8);
	CHECK_EQ(guarded.b, guarded.a);
	rwlock_destroy(&guarded.lock);
}

TEST(readers_see_whole_writes_while_they_are_counted_in_one_word)
{
	run_guarded(false, false);
}

TEST(readers_see_whole_writes_while_they_are_counted_by_slot)
{
	run_guarded(true, false);
}

TEST(the_form_of_the_lock_may_change_under_its_users)
{
	run_guarded(false, true);
}

struct meeting {
	struct rwlock lock;
	pthread_barrier_t inside;
};

static void *meet(void *arg)
{
	struct meeting *meeting = arg;

	rwlock_read_lock(&meeting->lock);
	pthread_barrier_wait(&meeting->inside); /* all readers are inside at once, or this never returns */
	rwlock_read_unlock(&meeting->lock);
	return NULL;
}

static void meet_all(bool spread)
{
	pthread_t threads[NTHREADS];
	struct meeting meeting;

	rwlock_init(&meeting.lock, LOCK_MMAP);
	if (spread)
		rwlock_spread(&meeting.lock);
	pthread_barrier_init(&meeting.inside, NULL, NTHREADS);
	for (unsigned i = 0; i < NTHREADS; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, meet, &meeting), 0);
	for (unsigned i = 0; i < NTHREADS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	pthread_barrier_destroy(&meeting.inside);
	rwlock_write_lock(&meeting.lock);
	rwlock_write_unlock(&meeting.lock);
	rwlock_destroy(&meeting.lock);
}

TEST(readers_are_inside_together)
{
	meet_all(false);
	meet_all(true);
}

TAP_MAIN()
