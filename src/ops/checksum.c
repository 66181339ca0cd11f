/* SPDX-License-Identifier: MIT */
/*
 * The checksum of a snapshot: four lanes of multiply and rotate over 8-byte words. Every step is a bijection of the
 * lane for a given word and of the word for a given lane, so that a single changed word always shows.
 */
#include "ops/checksum.h"

#include <string.h>

#define LANES 4

static const uint64_t factors[LANES] = {
	UINT64_C(0x9fb21c651e98df25),
	UINT64_C(0xd6e8feb86659fd93),
	UINT64_C(0xa0761d6478bd642f),
	UINT64_C(0xe7037ed1a0b428db),
};

static uint64_t rotate(uint64_t word, unsigned bits)
{
	return word << bits | word >> (64 - bits);
}

static uint64_t mix(uint64_t sum, uint64_t word)
{
	sum = (sum ^ word) * factors[0];
	return (sum ^ sum >> 32) * factors[1];
}

/* Add one page at @va. Pages of zeros add nothing: they read like memory that was never touched. */
static uint64_t add_page(uint64_t sum, uint64_t va, const unsigned char *bytes)
{
	uint64_t lanes[LANES] = {va, va, va, va}, any = 0;

	for (unsigned at = 0; at < UCOW_PAGE_SIZE; at += sizeof(lanes)) {
		uint64_t words[LANES];

		memcpy(words, bytes + at, sizeof(words));
		for (unsigned i = 0; i < LANES; i++) {
			any |= words[i];
			lanes[i] = rotate((lanes[i] ^ words[i]) * factors[i], 29);
		}
	}
	for (unsigned i = 0; i < LANES && any; i++)
		sum = mix(sum, lanes[i]);
	return sum;
}

/* The pages that a leaf maps in [start, end), each with a reference: a fault may replace an entry while we read. */
static void get_pages(struct frame_pool *frames, struct table *leaf, uint64_t start, uint64_t end,
		      struct ucow_page **pages)
{
	table_lock(leaf);
	for (uint64_t va = start; va < end; va += UCOW_PAGE_SIZE, pages++) {
		struct pte pte = leaf_get(leaf, va);

		*pages = pte_kind(pte) == PTE_KIND_ANON ? pte_page(frames, pte) : NULL;
		if (*pages)
			page_get(*pages);
	}
	table_unlock(leaf);
}

static uint64_t add_leaf(struct frame_pool *frames, uint64_t sum, struct table *leaf, uint64_t start, uint64_t end)
{
	struct ucow_page *pages[TABLE_LEAF_MAX], **page = pages;

	get_pages(frames, leaf, start, end, pages);
	for (uint64_t va = start; va < end; va += UCOW_PAGE_SIZE, page++) {
		if (!*page)
			continue;
		sum = add_page(sum, va, page_bytes(*page));
		page_put(*page);
	}
	return sum;
}

uint64_t checksum_private(struct ucow_mm *mm)
{
	uint64_t sum = 0;
	struct table *leaf;

	rwlock_write_lock(&mm->mmap_lock); /* under the shared lock faults replace tables */
	for (uint64_t va = 0; (leaf = table_next_leaf(&mm->pt, &va, UCOW_ADDRESS_LIMIT, false));
	     va = table_leaf_end(va, UCOW_ADDRESS_LIMIT))
		sum = add_leaf(&mm->machine->frames, sum, leaf, va, table_leaf_end(va, UCOW_ADDRESS_LIMIT));
	rwlock_write_unlock(&mm->mmap_lock);
	return sum;
}
