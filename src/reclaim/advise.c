/* SPDX-License-Identifier: MIT */
/* madvise COLD and PAGEOUT: the pages of a range that nobody else maps go first, or go now. */
#include "reclaim/internal.h"

/* Pages of a range with a reference each. */
struct range {
	struct ucow_mm *mm;
	uint64_t va, end;
	bool cold; /* forget that they were accessed */
	unsigned n;
	struct ucow_page *pages[RECLAIM_PAGES];
};

/* Others' mappings are not interfered with: as Linux, by the number of entries; and by the path where these are shared.
 */
static bool is_ours(const struct ucow_page *page, const struct walk *walk)
{
	return walk->is_private && page_mapcount(page) == 1;
}

static void gather_entry(struct range *range, const struct walk *walk, uint64_t va)
{
	struct pte pte = leaf_get(walk->leaf, va);
	struct ucow_page *page;

	if (pte_kind(pte) != PTE_KIND_ANON && pte_kind(pte) != PTE_KIND_SHARED)
		return;
	page = pte_page(&range->mm->machine->frames, pte);
	if (!page_is(page, PAGE_ANON | PAGE_FILE))
		return;
	if (!is_ours(page, walk) || page_try_get(page))
		return;
	if (range->cold && pte_is_accessed(pte))
		leaf_set(walk->leaf, va, pte_mkold(pte));
	range->pages[range->n++] = page;
}

/* What one leaf has, at most a batch. Returns: whether there is more. */
static bool gather(struct range *range)
{
	struct table *leaf;
	struct walk walk;
	uint64_t end;

	range->n = 0;
	leaf = table_next_leaf(&range->mm->pt, &range->va, range->end, false);
	if (!leaf)
		return false;
	walk = table_walk_now(&range->mm->pt, range->va);
	end = table_leaf_end(range->va, range->end);
	table_lock(leaf);
	for (; walk.leaf == leaf && range->va < end; range->va += UCOW_PAGE_SIZE)
		gather_entry(range, &walk, range->va);
	table_unlock(leaf);
	range->va = end;
	return true;
}

static void make_cold(struct range *range)
{
	for (unsigned i = 0; i < range->n; i++) {
		struct ucow_page *page = range->pages[i];

		if (lru_isolate_page(page)) {
			page_clear(page, PAGE_ACTIVE);
			lru_put_back(page, LRU_OLDEST);
		} else {
			page_put(page);
		}
	}
}

static bool gather_locked(struct range *range)
{
	bool more;

	rwlock_read_lock(&range->mm->mmap_lock);
	epoch_enter(&range->mm->machine->epoch);
	more = gather(range);
	epoch_leave(&range->mm->machine->epoch);
	rwlock_read_unlock(&range->mm->mmap_lock);
	return more;
}

void reclaim_range(struct ucow_mm *mm, uint64_t start, uint64_t end, bool now)
{
	struct range range = {.mm = mm, .va = start, .end = end, .cold = !now};

	if (!mm->machine->frames.lru)
		return;
	lru_drain(&mm->machine->frames);
	while (gather_locked(&range))
		if (now)
			reclaim_pages(mm->machine, range.pages, range.n);
		else
			make_cold(&range);
	if (now)
		reclaim_wait(mm->machine);
}
