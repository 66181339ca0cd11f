/* SPDX-License-Identifier: MIT */
/* Slabs: objects are zero, aligned and apart; chunks come from the host and go back to it. */
#include "base/slab.h"
#include "tap.h"

#include <pthread.h>

enum { MANY = 20000, ALIGN = 64 };

static struct slab slab;
static char *objects[MANY];

static uint64_t draw(uint64_t *state, uint64_t n)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % n;
}

static bool is_zero(const char *object, size_t nbytes)
{
	for (size_t i = 0; i < nbytes; i++)
		if (object[i])
			return false;
	return true;
}

static unsigned length(const struct list *head)
{
	unsigned n = 0;

	LIST_FOR_EACH (item, head)
		n++;
	return n;
}

/* Sizes that do and do not divide a chunk, the smallest and the largest. */
TEST(objects_are_zero_and_aligned_at_every_size)
{
	static const size_t sizes[] = {1, 8, 64, 65, 200, 320, 1000, 4160, 30000, 60000};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		slab_init(&slab, sizes[i]);
		for (int round = 0; round < 3; round++) { /* fresh ones, then recycled ones */
			for (unsigned k = 0; k < 40; k++) {
				objects[k] = slab_alloc(&slab);
				CHECK(objects[k] && (uintptr_t)objects[k] % ALIGN == 0);
				CHECK(is_zero(objects[k], sizes[i]));
				memset(objects[k], 0xee, sizes[i]);
			}
			CHECK_EQ(slab.in_use, 40);
			for (unsigned k = 0; k < 40; k++)
				slab_free(&slab, objects[k]);
		}
		CHECK_EQ(slab.in_use, 0);
		slab_destroy(&slab);
	}
}

/* Would catch two owners of one object. */
TEST(random_lifetimes_do_not_overlap)
{
	uint64_t state = tap_seed();
	enum { SLOTS = 3000 };

	memset(objects, 0, sizeof(objects));
	slab_init(&slab, 320);
	for (unsigned step = 0; step < 200000; step++) {
		unsigned k = (unsigned)draw(&state, SLOTS);

		if (objects[k]) {
			CHECK(memcmp(objects[k], &k, sizeof(k)) == 0);
			CHECK(memcmp(objects[k] + 316, &k, sizeof(k)) == 0);
			slab_free(&slab, objects[k]);
			objects[k] = NULL;
			continue;
		}
		objects[k] = slab_alloc(&slab);
		CHECK(objects[k] && is_zero(objects[k], 320));
		memcpy(objects[k], &k, sizeof(k));
		memcpy(objects[k] + 316, &k, sizeof(k));
	}
	for (unsigned k = 0; k < SLOTS; k++)
		if (objects[k])
			slab_free(&slab, objects[k]);
	CHECK_EQ(slab.in_use, 0);
	slab_destroy(&slab);
}

/* What is free goes back, up to the few chunks that are kept; the number of empty chunks is the real one. */
TEST(empty_chunks_go_back_to_the_host)
{
	unsigned most, left;

	slab_init(&slab, 1000);
	for (unsigned k = 0; k < MANY; k++)
		objects[k] = slab_alloc(&slab);
	most = length(&slab.partial) + length(&slab.full);
	CHECK_EQ(slab.chunks, most);
	CHECK_EQ(most - slab.empty_chunks, (MANY + slab.objects_a_chunk - 1) / slab.objects_a_chunk);
	for (unsigned k = 0; k < MANY; k++)
		slab_free(&slab, objects[k]);
	left = length(&slab.partial);
	CHECK(length(&slab.full) == 0 && left >= 1 && left < most / 2);
	CHECK_EQ(slab.empty_chunks, left);
	for (unsigned k = 0; k < slab.objects_a_chunk; k++) { /* out of what was kept */
		objects[k] = slab_alloc(&slab);
		CHECK(is_zero(objects[k], 1000));
	}
	CHECK(length(&slab.partial) + length(&slab.full) == left && slab.empty_chunks == left - 1);
	for (unsigned k = 0; k < slab.objects_a_chunk; k++)
		slab_free(&slab, objects[k]);
	slab_destroy(&slab);
}

static void *alloc_and_free(void *arg)
{
	uint64_t state = (uintptr_t)arg;
	char *mine[50] = {0};
	bool good = true;

	for (unsigned step = 0; step < 5000; step++) {
		unsigned k = (unsigned)draw(&state, 50);

		if (mine[k]) {
			good &= *(uintptr_t *)(void *)mine[k] == (uintptr_t)arg;
			slab_free(&slab, mine[k]);
			mine[k] = NULL;
			continue;
		}
		mine[k] = slab_alloc(&slab);
		good &= mine[k] && is_zero(mine[k], 100);
		if (mine[k])
			*(uintptr_t *)(void *)mine[k] = (uintptr_t)arg;
	}
	for (unsigned k = 0; k < 50; k++)
		if (mine[k])
			slab_free(&slab, mine[k]);
	return good ? arg : NULL;
}

TEST(threads_share_a_slab)
{
	pthread_t threads[4];

	slab_init(&slab, 100);
	for (uintptr_t i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, alloc_and_free, (void *)(i + 1)), 0);
	for (uintptr_t i = 0; i < 4; i++) {
		void *result = NULL;

		CHECK_EQ(pthread_join(threads[i], &result), 0);
		CHECK_EQ((uintptr_t)result, i + 1);
	}
	CHECK_EQ(slab.in_use, 0);
	slab_destroy(&slab);
}

TAP_MAIN()
