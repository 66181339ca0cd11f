/* SPDX-License-Identifier: MIT */
/* A set of 128-bit sums with open addressing, in memory that the system gives when it is touched. */
#include "explore_states.h"

#include <errno.h>
#include <sys/mman.h>

#if defined(UCOW_HAVE_XXHASH)
#define XXH_INLINE_ALL
#include <xxhash.h>
#endif

#define ROOM (UINT64_C(1) << 27)
#define MOST (ROOM / 4 * 3)

static struct {
	struct state_sum *slots; /* all zeros: empty */
	uint64_t used;
} states;

static struct state_sum *reserve(void)
{
	void *area = mmap(NULL, ROOM * sizeof(struct state_sum), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return area == MAP_FAILED ? NULL : area;
}

int states_open(void)
{
	states.slots = reserve();
	return states.slots ? 0 : -ENOMEM;
}

void states_forget(void)
{
	if (states.used)
		madvise(states.slots, ROOM * sizeof(*states.slots), MADV_DONTNEED);
	states.used = 0;
}

#if defined(UCOW_HAVE_XXHASH)
bool states_are_built(void)
{
	return true;
}

void states_add_part(struct state_sum *sum, uint64_t number, const void *bytes, size_t nbytes)
{
	XXH128_hash_t hash = XXH3_128bits_withSeed(bytes, nbytes, number);

	sum->low += hash.low64;
	sum->high += hash.high64;
}
#else
bool states_are_built(void)
{
	return false;
}

void states_add_part(struct state_sum *sum, uint64_t number, const void *bytes, size_t nbytes)
{
	(void)sum;
	(void)number;
	(void)bytes;
	(void)nbytes;
}
#endif

bool states_full(void)
{
	return states.used >= MOST;
}

bool states_meet(const struct state_sum *sum)
{
	/* Never all zeros, which is an empty slot. */
	struct state_sum key = {sum->low, sum->high | 1};
	uint64_t at = key.low & (ROOM - 1);

	for (; states.slots[at].high; at = (at + 1) & (ROOM - 1))
		if (states.slots[at].low == key.low && states.slots[at].high == key.high)
			return true;
	if (!states_full()) {
		states.slots[at] = key;
		states.used++;
	}
	return false;
}

uint64_t states_count(void)
{
	return states.used;
}
