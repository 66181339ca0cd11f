/* SPDX-License-Identifier: MIT */
/*
 * The checksum of a snapshot: four lanes of multiply and rotate over 8-byte words. Every step is a bijection of the
 * lane for a given word and of the word for a given lane, so that a single changed word always shows.
 */
#include "ops/checksum.h"

#include "swap/swap.h"

#include <errno.h>
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

/* ---- pages ---- */

/*
 * The page behind a swap entry, with a reference, in the cache; its bytes are there. NULL: the entry may have changed.
 * Returns: 0; -ENOMEM; -EIO.
 */
static int get_swapped(struct ucow_mm *mm, struct swap_entry entry, struct ucow_page **page)
{
	struct swap *swap = machine_swap(mm->machine);
	bool is_same;

	*page = swap_lookup(swap, entry);
	if (!*page)
		return swap_read(swap, mm, entry, page);
	page_lock(*page); /* somebody may be reading it; who holds it waits for no space */
	is_same = page_is(*page, PAGE_SWAPCACHE) && page_swap_entry(*page).v == entry.v;
	swap_unlock(swap, *page);
	if (is_same)
		return 0;
	page_put(*page);
	*page = NULL;
	return 0;
}

/*
 * What is lazily freed reads as it did or as zeros, and may change from the one to the other. A snapshot may not: what
 * was noted is kept.
 */
static void keep_page(struct ucow_page *page)
{
	if (!page_is(page, PAGE_LAZYFREE))
		return;
	page_set(page, PAGE_DIRTY);
	page_clear(page, PAGE_LAZYFREE);
}

/* The page that the entry at @va shows, with a reference; NULL: zeros. Returns: 0; -ENOMEM; -EIO. */
static int get_page(struct ucow_mm *mm, struct table *leaf, uint64_t va, struct ucow_page **page)
{
	struct pte pte;
	int error;

	do {
		*page = NULL;
		table_lock(leaf);
		pte = leaf_get(leaf, va);
		if (pte_kind(pte) == PTE_KIND_ANON) {
			*page = pte_page(&mm->machine->frames, pte);
			page_get(*page); /* a fault may replace the entry while we read */
			keep_page(*page);
		}
		table_unlock(leaf);
		error = pte_is_swap(pte) ? get_swapped(mm, pte_swap_entry(pte), page) : 0;
	} while (!error && !*page && pte_is_swap(pte));
	return error;
}

/* ---- the sum ---- */

struct sum {
	struct ucow_mm *mm;
	uint64_t va; /* how far it has come */
	uint64_t value;
};

static int add_leaf(struct sum *sum, struct table *leaf, uint64_t end)
{
	for (; sum->va < end; sum->va += UCOW_PAGE_SIZE) {
		struct ucow_page *page;
		int error = get_page(sum->mm, leaf, sum->va, &page);

		if (error)
			return error;
		if (!page)
			continue;
		sum->value = add_page(sum->value, sum->va, page_bytes(page));
		page_put(page);
	}
	return 0;
}

/* As far as memory reaches. Under the shared lock faults replace tables; between two calls nothing changes what a
 * snapshot shows. */
static int go_on(struct sum *sum)
{
	struct table *leaf;
	int error = 0;

	rwlock_write_lock(&sum->mm->mmap_lock);
	while (!error && (leaf = table_next_leaf(&sum->mm->pt, &sum->va, UCOW_ADDRESS_LIMIT, false)))
		error = add_leaf(sum, leaf, table_leaf_end(sum->va, UCOW_ADDRESS_LIMIT));
	rwlock_write_unlock(&sum->mm->mmap_lock);
	return error;
}

int checksum_private(struct ucow_mm *mm, uint64_t *checksum)
{
	struct sum sum = {.mm = mm};
	unsigned tries = 0;
	uint64_t from;
	int error;

	do {
		from = sum.va;
		error = go_on(&sum);
		if (sum.va != from)
			tries = 0;
	} while (error == -ENOMEM && space_relieve(mm, &tries));
	*checksum = sum.value;
	return error;
}
