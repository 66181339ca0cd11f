/* SPDX-License-Identifier: MIT */
/* The hash by which equal pages are looked for: XXH3, where the build has it. It decides nothing by itself. */
#include "ksm/ksm.h"

#include "base/barrier.h"

#if defined(UCOW_HAVE_XXHASH)
#define XXH_INLINE_ALL
#include <xxhash.h>

bool ksm_hash_is_built(void)
{
	return true;
}

/* Programs may be storing to the page meanwhile: the hash is then one of some bytes, as good as any other. */
static uint64_t hash_bytes(const void *bytes)
{
#if BARRIER_TSAN
	uint64_t still[UCOW_PAGE_SIZE / sizeof(uint64_t)];

	page_copy(still, bytes);
	return XXH3_64bits(still, UCOW_PAGE_SIZE);
#else
	hook_step(HOOK_LOAD, bytes);
	return XXH3_64bits(bytes, UCOW_PAGE_SIZE);
#endif
}
#else
bool ksm_hash_is_built(void)
{
	return false;
}

static uint64_t hash_bytes(const void *bytes)
{
	(void)bytes;
	return 0;
}
#endif

uint64_t ksm_hash(const struct ksm *ksm, const void *bytes)
{
	uint64_t hash = hash_bytes(bytes) & ksm->hash_mask;

	return hash ? hash : 1;
}
