/* SPDX-License-Identifier: MIT */
/* Counters of pages: limits of the counter and of those above it, taking back, peaks, threads that meet at a limit. */
#include "tap.h"

#include "space/page_counter.h"

#include <pthread.h>

struct tree {
	struct page_counter root, middle, leaf, other;
};

static struct tree *grow(struct tree *t, int64_t root, int64_t middle, int64_t leaf)
{
	page_counter_init(&t->root, NULL, root);
	page_counter_init(&t->middle, &t->root, middle);
	page_counter_init(&t->leaf, &t->middle, leaf);
	page_counter_init(&t->other, &t->root, PAGE_COUNTER_NO_LIMIT);
	return t;
}

static void check_usage(struct tree *t, int64_t root, int64_t middle, int64_t leaf, int64_t other)
{
	CHECK_EQ(page_counter_usage(&t->root), root);
	CHECK_EQ(page_counter_usage(&t->middle), middle);
	CHECK_EQ(page_counter_usage(&t->leaf), leaf);
	CHECK_EQ(page_counter_usage(&t->other), other);
}

TEST(a_charge_counts_here_and_above)
{
	struct tree tree, *t = grow(&tree, PAGE_COUNTER_NO_LIMIT, 100, 10);

	CHECK(page_counter_try_charge(&t->leaf, 3, NULL));
	CHECK(page_counter_try_charge(&t->middle, 2, NULL));
	CHECK(page_counter_try_charge(&t->other, 1, NULL));
	check_usage(t, 6, 5, 3, 1);
	CHECK_EQ(page_counter_uncharge(&t->leaf, 2), 1);
	CHECK_EQ(page_counter_uncharge(&t->other, 1), 0);
	check_usage(t, 3, 3, 1, 0);
}

TEST(a_refusal_anywhere_charges_nothing_and_says_where)
{
	struct tree tree, *t = grow(&tree, 8, 6, 4);
	struct page_counter *refused = NULL;

	CHECK(page_counter_try_charge(&t->leaf, 4, &refused));
	CHECK(!refused);
	CHECK(!page_counter_try_charge(&t->leaf, 1, &refused));
	CHECK(refused == &t->leaf);
	page_counter_set_limit(&t->leaf, 100);
	CHECK(!page_counter_try_charge(&t->leaf, 3, &refused));
	CHECK(refused == &t->middle);
	CHECK(page_counter_try_charge(&t->leaf, 2, &refused));
	CHECK(page_counter_try_charge(&t->other, 2, &refused));
	page_counter_set_limit(&t->middle, 100);
	CHECK(!page_counter_try_charge(&t->leaf, 1, &refused));
	CHECK(refused == &t->root);
	CHECK(!page_counter_try_charge(&t->leaf, INT64_MAX, NULL));
	check_usage(t, 8, 6, 6, 2);
}

TEST(a_limit_may_be_below_the_usage)
{
	struct tree tree, *t = grow(&tree, PAGE_COUNTER_NO_LIMIT, PAGE_COUNTER_NO_LIMIT, 9);

	CHECK(page_counter_try_charge(&t->leaf, 9, NULL));
	CHECK(page_counter_fits(&t->leaf, 0));
	CHECK(!page_counter_fits(&t->leaf, 1));
	page_counter_set_limit(&t->leaf, 5);
	CHECK(!page_counter_fits(&t->leaf, 0));
	CHECK(!page_counter_try_charge(&t->leaf, 1, NULL));
	CHECK_EQ(page_counter_uncharge(&t->leaf, 5), 4);
	CHECK(page_counter_try_charge(&t->leaf, 1, NULL));
	CHECK(!page_counter_try_charge(&t->leaf, 1, NULL));
}

TEST(charges_without_asking_go_over_the_limit_and_below_zero)
{
	struct tree tree, *t = grow(&tree, 5, 5, 5);

	page_counter_charge(&t->leaf, 7);
	check_usage(t, 7, 7, 7, 0);
	page_counter_charge(&t->leaf, -9);
	check_usage(t, -2, -2, -2, 0);
	CHECK(page_counter_try_charge(&t->leaf, 7, NULL));
	check_usage(t, 5, 5, 5, 0);
}

TEST(peaks_stay)
{
	struct tree tree, *t = grow(&tree, 20, 20, 6);

	CHECK(page_counter_try_charge(&t->leaf, 6, NULL));
	CHECK(!page_counter_try_charge(&t->leaf, 1, NULL));
	page_counter_uncharge(&t->leaf, 6);
	page_counter_charge(&t->middle, 2);
	CHECK_EQ(page_counter_peak(&t->leaf), 6);
	CHECK_EQ(page_counter_peak(&t->middle), 6);
	CHECK_EQ(page_counter_peak(&t->root), 6);
	CHECK_EQ(page_counter_peak(&t->other), 0);
}

/* ---- threads ---- */

enum { THREADS = 4, TURNS = 20000, LIMIT = 6 };

struct worker {
	struct page_counter *own;
	int over;
	long charged;
};

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct page_counter *root = worker->own->parent;

	for (int i = 0; i < TURNS; i++) {
		int64_t n = 1 + i % 3;

		if (!page_counter_try_charge(worker->own, n, NULL))
			continue;
		worker->over += page_counter_usage(root) > LIMIT;
		worker->charged += n;
		page_counter_uncharge(worker->own, n);
	}
	return NULL;
}

TEST(threads_never_see_more_than_the_limit)
{
	struct page_counter root, own[THREADS];
	struct worker workers[THREADS];
	pthread_t threads[THREADS];

	page_counter_init(&root, NULL, LIMIT);
	for (int i = 0; i < THREADS; i++) {
		page_counter_init(&own[i], &root, PAGE_COUNTER_NO_LIMIT);
		workers[i] = (struct worker){.own = &own[i]};
		REQUIRE_EQ(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
		CHECK_EQ(workers[i].over, 0);
		CHECK(workers[i].charged > 0);
		CHECK_EQ(page_counter_usage(&own[i]), 0);
	}
	CHECK_EQ(page_counter_usage(&root), 0);
	CHECK(page_counter_peak(&root) <= LIMIT);
}

TAP_MAIN()
