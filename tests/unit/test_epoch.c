/* SPDX-License-Identifier: MIT */
/* Sections and grace periods: what is put off, until when, for whom, and when nothing needs to be. */
#include "base/epoch.h"
#include "tap.h"

#include <pthread.h>

static struct epoch epoch;
static _Atomic unsigned released;

struct link {
	struct link *next;
};

static void release_item(struct epoch *unused, void *object)
{
	(void)unused;
	(void)object;
	atomic_fetch_add(&released, 1);
}

static void release_chain(struct epoch *unused, void *chain)
{
	(void)unused;
	for (struct link *link = chain; link; link = link->next)
		atomic_fetch_add(&released, 1);
}

static void open_epoch(void)
{
	atomic_store(&released, 0);
	REQUIRE_EQ(epoch_init(&epoch, release_item, release_chain), 0);
}

static void close_epoch(void)
{
	epoch_synchronize(&epoch);
	epoch_destroy(&epoch);
}

/* ---- another thread, inside a section until it is told to leave ---- */

struct other {
	pthread_t thread;
	_Atomic bool inside, leave;
	struct epoch_member member; /* used if `of` is set */
	_Atomic uint32_t active, *slots;
	const void *of;
};

static void wait_for(_Atomic bool *flag)
{
	while (!atomic_load(flag))
		sched_yield();
}

static void *stay_inside(void *arg)
{
	struct other *other = arg;

	if (other->of) {
		epoch_join(&epoch, &other->member, &other->active);
		epoch_attach(&epoch, &other->member, other->of, other->slots, NULL);
		word_enter(&other->active, 1);
	} else {
		epoch_enter(&epoch);
	}
	atomic_store(&other->inside, true);
	wait_for(&other->leave);
	if (other->of)
		word_leave(&other->active, 0);
	else
		epoch_leave(&epoch);
	return NULL;
}

static void other_start(struct other *other)
{
	REQUIRE_EQ(pthread_create(&other->thread, NULL, stay_inside, other), 0);
	wait_for(&other->inside);
}

static void other_stop(struct other *other)
{
	atomic_store(&other->leave, true);
	pthread_join(other->thread, NULL);
	if (!other->of)
		return;
	epoch_attach(&epoch, &other->member, NULL, NULL, other->slots);
	epoch_quit(&epoch, &other->member);
}

/* ---- tests ---- */

TEST(what_is_put_off_waits_for_synchronize)
{
	struct link links[3];

	open_epoch();
	CHECK(epoch_defer_item(&epoch, links));
	for (unsigned i = 0; i < 3; i++)
		epoch_defer_chain(&epoch, &links[i], (void **)&links[i].next);
	CHECK(epoch_pending(&epoch));
	CHECK_EQ(atomic_load(&released), 0);
	CHECK(epoch_synchronize(&epoch));
	CHECK_EQ(atomic_load(&released), 4);
	CHECK(!epoch_pending(&epoch));
	CHECK(!epoch_synchronize(&epoch));
	close_epoch();
}

TEST(a_full_backlog_says_so_and_settling_empties_it)
{
	unsigned put_off = 0;
	char object;

	open_epoch();
	while (put_off < EPOCH_BACKLOG - 1 && epoch_defer_item(&epoch, &object))
		put_off++;
	epoch_settle(&epoch);
	CHECK_EQ(atomic_load(&released), 0); /* not enough yet */
	while (epoch_defer_item(&epoch, &object))
		put_off++;
	CHECK_EQ(put_off, EPOCH_CAPACITY);
	epoch_settle(&epoch);
	CHECK_EQ(atomic_load(&released), put_off);
	close_epoch();
}

static void *synchronize(void *arg)
{
	_Atomic bool *done = arg;

	epoch_synchronize(&epoch);
	atomic_store(done, true);
	return NULL;
}

/* Nothing is released while @other is inside, and everything once it has left. */
static void check_grace(struct other *other)
{
	_Atomic bool done = false;
	pthread_t thread;
	char object;

	other_start(other);
	CHECK(epoch_defer_item(&epoch, &object));
	REQUIRE_EQ(pthread_create(&thread, NULL, synchronize, &done), 0);
	for (unsigned i = 0; i < 200; i++)
		sched_yield();
	CHECK(!atomic_load(&done));
	CHECK_EQ(atomic_load(&released), 0);
	other_stop(other);
	pthread_join(thread, NULL);
	CHECK(atomic_load(&done));
	CHECK_EQ(atomic_load(&released), 1);
}

TEST(a_grace_period_waits_for_a_section)
{
	struct other other = {0};

	open_epoch();
	check_grace(&other);
	close_epoch();
}

TEST(a_grace_period_waits_for_a_cpu)
{
	_Atomic uint32_t slots = 0;
	struct other other = {.of = &slots, .slots = &slots};

	open_epoch();
	check_grace(&other);
	close_epoch();
}

struct expulsion {
	const void *of;
	_Atomic bool done;
};

static void *expel(void *arg)
{
	struct expulsion *expulsion = arg;

	epoch_expel(&epoch, expulsion->of);
	atomic_store(&expulsion->done, true);
	return NULL;
}

TEST(expelling_waits_for_the_cpus_of_one_space)
{
	_Atomic uint32_t slots = 0, others_slots = 0;
	struct other other = {.of = &slots, .slots = &slots};
	struct expulsion expulsion = {.of = &slots};
	pthread_t thread;

	open_epoch();
	other_start(&other);
	epoch_expel(&epoch, &others_slots); /* nobody there: returns */
	REQUIRE_EQ(pthread_create(&thread, NULL, expel, &expulsion), 0);
	for (unsigned i = 0; i < 200; i++)
		sched_yield();
	CHECK(!atomic_load(&expulsion.done));
	/* Out of the section is enough; the cpu may stay attached. */
	atomic_store(&other.leave, true);
	pthread_join(thread, NULL);
	CHECK(atomic_load(&expulsion.done));
	other_stop(&other);
	close_epoch();
}

TEST(sections_nest)
{
	open_epoch();
	epoch_enter(&epoch);
	epoch_enter(&epoch);
	epoch_leave(&epoch);
	CHECK_EQ(atomic_load(&epoch.slots[thread_slot()].active), 1);
	epoch_leave(&epoch);
	CHECK_EQ(atomic_load(&epoch.slots[thread_slot()].active), 0);
	close_epoch();
}

TEST(attaching_and_leaving_keep_the_set_of_slots)
{
	struct epoch_member members[2];
	_Atomic uint32_t active[2] = {0}, a = 0, b = 0;
	uint32_t mine = UINT32_C(1) << thread_slot();

	open_epoch();
	for (unsigned i = 0; i < 2; i++) {
		members[i] = (struct epoch_member){0};
		epoch_join(&epoch, &members[i], &active[i]);
		epoch_attach(&epoch, &members[i], &a, &a, NULL);
	}
	CHECK_EQ(atomic_load(&a), mine);
	epoch_attach(&epoch, &members[0], &b, &b, &a);
	CHECK_EQ(atomic_load(&a), mine); /* the other member is still there */
	CHECK_EQ(atomic_load(&b), mine);
	epoch_attach(&epoch, &members[1], NULL, NULL, &a);
	CHECK_EQ(atomic_load(&a), 0);
	epoch_attach(&epoch, &members[0], NULL, NULL, &b);
	CHECK_EQ(atomic_load(&b), 0);
	for (unsigned i = 0; i < 2; i++)
		epoch_quit(&epoch, &members[i]);
	close_epoch();
}

static void *be_there(void *arg)
{
	epoch_enter(arg);
	epoch_leave(arg);
	return NULL;
}

TEST(a_thread_that_has_ended_keeps_nobody_company)
{
	struct other other = {0};
	pthread_t thread;

	open_epoch();
	epoch_enter(&epoch);
	epoch_leave(&epoch);
	CHECK(epoch_is_alone(&epoch));
	other_start(&other);
	CHECK(!epoch_is_alone(&epoch));
	other_stop(&other);
	CHECK(epoch_is_alone(&epoch));
	REQUIRE_EQ(pthread_create(&thread, NULL, be_there, &epoch), 0);
	pthread_join(thread, NULL);
	CHECK(epoch_is_alone(&epoch));
	close_epoch();
}

TAP_MAIN()
