/* SPDX-License-Identifier: MIT */
/* Walks from the pages of a cache to their entries: space by space, mapping by mapping, leaf by leaf. */
#include "cache/walk.h"

#include "space/notifier.h"

struct cache_walk {
	struct ucow_page *const *pages;
	unsigned n;
	bool shared_only;
	enum ucow_notify_reason reason;
	bool (*visit)(void *arg, const struct cache_entry *entry);
	void *arg;
	uint64_t low, high; /* of the mapping at work on, what was changed lies in [low, high) */
	bool changed;
};

static void note_change(struct cache_walk *walk, uint64_t va)
{
	walk->low = min_u64(walk->low, va);
	walk->high = max_u64(walk->high, va + UCOW_PAGE_SIZE);
}

/* The first of the pages whose number is @index or more. */
static unsigned first_page(const struct cache_walk *walk, uint64_t index)
{
	unsigned low = 0, high = walk->n;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (walk->pages[middle]->index < index)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static uint64_t address_of(const struct vma *vma, const struct ucow_page *page)
{
	return vma->start + ((page->index - vma->pgoff) << UCOW_PAGE_SHIFT);
}

static void visit_entry(struct cache_walk *walk, struct cache_entry *entry)
{
	const struct ucow_page *page = walk->pages[entry->i];

	entry->pte = leaf_get(entry->leaf, entry->va);
	if (pte_kind(entry->pte) != PTE_KIND_SHARED || pte_page(&entry->mm->machine->frames, entry->pte) != page)
		return;
	if (walk->visit(walk->arg, entry))
		note_change(walk, entry->va);
}

/* Those from page number @i on that one leaf shows, up to @end. Returns: the number of the first that it does not. */
static unsigned visit_leaf(struct cache_walk *walk, struct ucow_mm *mm, const struct vma *vma, unsigned i, unsigned end)
{
	struct cache_entry entry = {.mm = mm, .vma = vma, .va = address_of(vma, walk->pages[i]), .i = i};
	uint64_t first = entry.va;

	entry.leaf = table_find_leaf(&mm->pt, first);
	if (entry.leaf)
		table_lock(entry.leaf);
	for (; entry.i < end; entry.i++) {
		entry.va = address_of(vma, walk->pages[entry.i]);
		if (!table_same_leaf(first, entry.va))
			break;
		if (entry.leaf)
			visit_entry(walk, &entry);
	}
	if (entry.leaf)
		table_unlock(entry.leaf);
	return entry.i;
}

/*
 * Who follows the space is told, and then cpus are waited for at once; without a follower that is left to the caller,
 * for all spaces together. Requires: the space's mmap lock, exclusively.
 */
static void visit_mapping(struct cache_walk *walk, struct ucow_mm *mm, const struct vma *vma)
{
	unsigned i = first_page(walk, vma->pgoff);
	unsigned end = first_page(walk, vma->pgoff + ((vma->end - vma->start) >> UCOW_PAGE_SHIFT));
	uint64_t from, to;

	if (i == end)
		return;
	from = address_of(vma, walk->pages[i]);
	to = address_of(vma, walk->pages[end - 1]) + UCOW_PAGE_SIZE;
	walk->low = UINT64_MAX;
	walk->high = 0;
	notify_start(mm, from, to, walk->reason);
	while (i < end)
		i = visit_leaf(walk, mm, vma, i, end);
	/* The tables may have been an earlier space's too, which has changed them: there is nothing left to see here.
	 */
	if (walk->changed) {
		walk->low = from;
		walk->high = to;
	}
	if (walk->low < walk->high) {
		tlb_invalidate(&mm->pt.generations, walk->low, walk->high);
		walk->changed = true;
		if (unlikely(mm->notifiers))
			tlb_shootdown(&mm->pt);
	}
	notify_end(mm, from, to, walk->reason);
}

static void visit_space(struct cache_walk *walk, struct cache_user *user)
{
	rwlock_write_lock(&user->mm->mmap_lock);
	CACHE_FOR_EACH_MAPPING(link, user)
	{
		const struct vma *vma = cache_mapping(link);

		if (!walk->shared_only || !vma_is_cow(vma))
			visit_mapping(walk, user->mm, vma);
	}
	rwlock_write_unlock(&user->mm->mmap_lock);
}

bool cache_walk(struct cache *cache, struct ucow_page *const *pages, unsigned n, bool shared_only,
		bool (*visit)(void *arg, const struct cache_entry *entry), void *arg)
{
	struct cache_walk walk = {
		.pages = pages,
		.n = n,
		.shared_only = shared_only,
		.reason = shared_only ? UCOW_NOTIFY_PROTECT : UCOW_NOTIFY_CLEAR,
		.visit = visit,
		.arg = arg,
	};

	for (struct cache_user *user = cache_next_user(cache, NULL); user; user = cache_next_user(cache, user))
		visit_space(&walk, user);
	return walk.changed;
}
