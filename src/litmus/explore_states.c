/* SPDX-License-Identifier: MIT */
/* A set of 128-bit sums with open addressing, which doubles when it is three quarters full. */
#include "explore_states.h"

#include "explore_future.h"

#include <errno.h>
#include <sys/mman.h>

#if defined(UCOW_HAVE_XXHASH)
#define XXH_INLINE_ALL
#include <xxhash.h>
#endif

#define FEWEST (UINT64_C(1) << 16)
#define MOST   (UINT64_C(1) << 30) /* slots: 16 GiB */

static struct {
	struct state_sum *slots; /* all zeros: empty */
	uint32_t *futures;       /* of the slots */
	uint64_t nslots;         /* a power of two */
	uint64_t used;
	bool full; /* there was no memory for more */
} states;

static void *reserve(uint64_t nslots, size_t nbytes)
{
	void *area = mmap(NULL, nslots * nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			  -1, 0);

	return area == MAP_FAILED ? NULL : area;
}

int states_open(void)
{
	states.slots = reserve(FEWEST, sizeof(*states.slots));
	states.futures = reserve(FEWEST, sizeof(*states.futures));
	states.nslots = FEWEST;
	return states.slots && states.futures ? future_open() : -ENOMEM;
}

void states_forget(void)
{
	if (states.used)
		madvise(states.slots, states.nslots * sizeof(*states.slots), MADV_DONTNEED);
	states.used = 0;
	states.full = false;
	future_forget();
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
	return states.full;
}

/* Where @key is, or where it belongs. Never all zeros, which is an empty slot. */
static struct state_sum *find(const struct state_sum *key)
{
	uint64_t at = key->low & (states.nslots - 1);

	while (states.slots[at].high && (states.slots[at].low != key->low || states.slots[at].high != key->high))
		at = (at + 1) & (states.nslots - 1);
	return &states.slots[at];
}

static void grow(void)
{
	struct state_sum *before = states.slots, *after = NULL;
	uint32_t *futures_before = states.futures, *futures = NULL;
	uint64_t nbefore = states.nslots;

	if (nbefore < MOST) {
		after = reserve(2 * nbefore, sizeof(*after));
		futures = reserve(2 * nbefore, sizeof(*futures));
	}
	if (!after || !futures) {
		states.full = true;
		return;
	}
	states.slots = after;
	states.futures = futures;
	states.nslots = 2 * nbefore;
	for (uint64_t i = 0; i < nbefore; i++) {
		if (!before[i].high)
			continue;
		*find(&before[i]) = before[i];
		futures[find(&before[i]) - after] = futures_before[i];
	}
	munmap(before, nbefore * sizeof(*before));
	munmap(futures_before, nbefore * sizeof(*futures));
}

void states_close(const struct state_sum *sum, uint32_t future)
{
	struct state_sum key = {sum->low, sum->high | 1}, *slot = find(&key);

	if (slot->high)
		states.futures[slot - states.slots] = future;
}

bool states_meet(const struct state_sum *sum, uint32_t *future)
{
	struct state_sum key = {sum->low, sum->high | 1}, *slot = find(&key);

	if (slot->high) {
		*future = states.futures[slot - states.slots];
		return true;
	}
	if (states.used >= states.nslots / 4 * 3)
		return false; /* full: it may be met again */
	*slot = key;
	states.futures[slot - states.slots] = FUTURE_OPEN;
	if (++states.used >= states.nslots / 4 * 3)
		grow();
	return false;
}

uint64_t states_count(void)
{
	return states.used;
}
