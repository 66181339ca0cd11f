/* SPDX-License-Identifier: MIT */
/*
 * Making one entry show a merged page. In this order (semantics.md B.1, B.6): take the write permission away, and wait
 * until no cpu uses it; compare all bytes; clear the entry, and only then look at the references, so that a fast pin is
 * either counted or finds the entry changed; then put the new entry there, or the old one back.
 */
#include "ksm/ksm.h"

#include "base/mutate.h"
#include "fault/fault.h"
#include "space/notifier.h"
#include "swap/swap.h"

/* One entry and its page, which can be stored to by nobody. The page is locked and has a reference of ours. */
struct place {
	struct ucow_mm *mm;
	struct vma *vma;
	uint64_t va;
	struct table *leaf;
	struct ucow_page *page;
	struct pte pte; /* read-only and clean: a store, or a write pin, would show */
};

/*
 * Snapshots never change, and the account of a snapshot group knows pages that a space maps once; merging would save
 * nothing there anyway, for whatever is left alone stays in the snapshots.
 */
bool ksm_may_merge(const struct ucow_mm *mm, const struct vma *vma)
{
	return !mm->read_only && !mm->group && (vma->flags & VMA_MERGEABLE) && vma_is_cow(vma) &&
	       !(vma->flags & (VMA_PFNMAP | VMA_LOCKED));
}

/* ---- finding and protecting ---- */

/* The leaf that has the entry, on a private path; none is made where there is none. */
static enum merge_result find_leaf(struct place *place)
{
	struct page_table *pt = &place->mm->pt;
	bool found;

	place->vma = vma_at(&place->mm->vmas, place->va);
	if (!place->vma || !ksm_may_merge(place->mm, place->vma))
		return MERGE_NOT;
	epoch_enter(&place->mm->machine->epoch);
	found = table_find_leaf(pt, place->va);
	epoch_leave(&place->mm->machine->epoch);
	if (!found)
		return MERGE_NOT;
	return table_own_leaf(pt, place->va, &place->leaf) ? MERGE_NO_MEMORY : MERGE_DONE;
}

/*
 * Whether the page has no references but its mappings, the swap cache's and ours. Mappings come and go in other spaces
 * meanwhile, but not those of an exclusive page: its only entry is the one whose leaf is locked.
 */
static bool is_only_mapped(struct ucow_page *page)
{
	uint32_t mapcount = page_mapcount(page);

	uint32_t expected = mapcount + page_is(page, PAGE_SWAPCACHE) + 1;

	if (MUTATED(MERGE_IGNORES_REFERENCES))
		return true;
	return page_refcount_settled(page) == expected && page_mapcount(page) == mapcount;
}

/* What can be merged at all. Requires: the leaf's lock. */
static bool is_candidate(const struct place *place, struct pte pte)
{
	const struct ucow_page *page;

	if (pte_kind(pte) != PTE_KIND_ANON)
		return false;
	page = pte_page(&place->mm->machine->frames, pte);
	return !page_is(page, PAGE_KSM | PAGE_WRITEBACK);
}

/* Whoever stored to a page after MADV_FREE wants its bytes; only the entry's dirty bit has told so. */
static void keep_dirt(struct ucow_page *page, struct pte pte)
{
	if (!pte_is_dirty(pte))
		return;
	page_set(page, PAGE_DIRTY);
	page_clear(page, PAGE_LAZYFREE);
}

/* Requires: the leaf's lock. Returns: whether there is a page to merge; its lock and a reference are taken then. */
static bool take_page(struct place *place, bool *was_writable)
{
	struct pte pte = leaf_get(place->leaf, place->va);
	struct ucow_page *page;

	if (!is_candidate(place, pte))
		return false;
	page = pte_page(&place->mm->machine->frames, pte);
	if (!page_trylock(page))
		return false;
	page_get(page);
	if (!is_only_mapped(page)) {
		page_unlock(page);
		page_put(page); /* not the last: the entry has one */
		return false;
	}
	*was_writable = pte_is_writable(pte);
	place->page = page;
	place->pte = pte_mkclean(pte_wrprotect(pte));
	keep_dirt(page, pte);
	leaf_set(place->leaf, place->va, place->pte);
	return true;
}

static void unlock_page(struct place *place)
{
	if (page_is(place->page, PAGE_SWAPCACHE))
		swap_unlock(machine_swap(place->mm->machine), place->page);
	else
		page_unlock(place->page);
}

static void leave_page(struct place *place)
{
	unlock_page(place);
	page_put(place->page);
}

static void invalidate(const struct place *place)
{
	tlb_invalidate(&place->mm->pt.generations, place->va, place->va + UCOW_PAGE_SIZE);
}

/* Returns: MERGE_DONE: nobody stores to the page any more, and if somebody is about to, the entry will have changed. */
static enum merge_result protect(struct place *place)
{
	enum merge_result result = find_leaf(place);
	bool taken, was_writable = false;

	if (result != MERGE_DONE)
		return result;
	table_lock(place->leaf);
	taken = take_page(place, &was_writable);
	table_unlock(place->leaf);
	if (!taken)
		return MERGE_NOT;
	if (was_writable) {
		invalidate(place);
		if (!MUTATED(MERGE_WITHOUT_SHOOTDOWN))
			tlb_shootdown(&place->mm->pt);
	}
	return MERGE_DONE;
}

/* ---- the new entry ---- */

/*
 * Try to take the page out of its entry (try_share, B.1). Nobody meets the empty entry: whoever faults waits for the
 * leaf's lock and looks again, and who walks without it finds that there is nothing for him. Requires: the leaf's lock.
 * Returns: whether the page has no user but its mappings; the entry is empty then, and else as it was.
 */
static bool clear_entry(struct place *place)
{
	const struct cow_policy *policy = place->mm->machine->policy;
	struct pte pte = leaf_get(place->leaf, place->va);
	bool alone;

	if (!pte_is_same(pte_mkyoung(pte), pte_mkyoung(place->pte)))
		return false;
	if (!MUTATED(MERGE_WITHOUT_CLEARING))
		leaf_set(place->leaf, place->va, pte_none());
	alone = is_only_mapped(place->page) &&
		policy->may_unmap(page_is(place->page, PAGE_EXCLUSIVE), page_maybe_pinned(place->page));
	if (alone)
		page_clear(place->page, PAGE_EXCLUSIVE);
	else
		leaf_set(place->leaf, place->va, pte);
	return alone;
}

/* The entry of a merged page is made from scratch: what was tracked of the old one is not carried over (B.6). */
static struct pte merged_entry(const struct place *place, const struct ucow_page *page)
{
	const struct frame_pool *frames = &place->mm->machine->frames;

	return entry_permit(place->vma, page ? pte_make_anon(page) : pte_make_merged_zero(frames), false);
}

static bool replace(struct place *place, struct ucow_page *page)
{
	struct table_pool *pool = &place->mm->machine->tables;
	bool cleared;

	table_lock(place->leaf);
	cleared = clear_entry(place);
	if (cleared) {
		struct pte pte = merged_entry(place, page);

		if (page) {
			page_get(page);
			page_map(page);
		}
		leaf_set(place->leaf, place->va, pte);
		table_count_zero(pool, pte, 1);
	}
	table_unlock(place->leaf);
	return cleared;
}

static void count_merge(struct ksm *ksm, const struct ucow_page *page)
{
	count(&ksm->machine->counters, page ? UCOW_COUNTER_KSM_MERGE : UCOW_COUNTER_KSM_ZERO);
	atomic_fetch_add_explicit(&ksm->merged, 1, memory_order_relaxed);
}

/* Where the leaf bears pages is where its entries, and those of all its copies, are found again. */
static bool add_home(struct ksm *ksm, struct place *place, struct ksm_node *node)
{
	const struct kin *kin = leaf_kin(place->leaf);

	return homes_add(ksm, node, kin->family, leaf_slot(place->va) - kin->shift);
}

/* Requires: mmap_lock, shared. */
static enum merge_result merge_locked(struct ksm *ksm, struct place *place, struct ksm_node *node,
				      struct ucow_page *page)
{
	const struct ucow_page *model = page ? page : ksm->machine->frames.zero_page;
	enum merge_result result = protect(place);

	if (result != MERGE_DONE)
		return result;
	if (!page_equals(page_bytes(place->page), page_bytes(model)) && !MUTATED(MERGE_WITHOUT_COMPARE)) {
		result = MERGE_DIFFERENT;
	} else if (node && !add_home(ksm, place, node)) {
		result = MERGE_NO_MEMORY;
	} else if (!replace(place, page)) {
		result = MERGE_NOT;
	} else {
		/* Reads of the old page go on until their cpus have left: its bytes are the same. */
		invalidate(place);
		(void)mapping_let_go(place->mm, place->page);
		count_merge(ksm, page);
	}
	leave_page(place);
	return result;
}

enum merge_result ksm_merge_into(struct ksm *ksm, struct ucow_mm *mm, uint64_t va, struct ksm_node *node,
				 struct ucow_page *page)
{
	struct place place = {.mm = mm, .va = va};
	enum merge_result result;
	unsigned tries = 0;

	do {
		rwlock_read_lock(&mm->mmap_lock);
		notify_start(mm, va, va + UCOW_PAGE_SIZE, UCOW_NOTIFY_CLEAR);
		result = merge_locked(ksm, &place, node, page);
		notify_end(mm, va, va + UCOW_PAGE_SIZE, UCOW_NOTIFY_CLEAR);
		rwlock_read_unlock(&mm->mmap_lock);
		epoch_settle(&ksm->machine->epoch);
	} while (unlikely(result == MERGE_NO_MEMORY) && space_relieve(mm, &tries));
	return result;
}

/* ---- the first of its kind ---- */

static bool become_merged(struct place *place, struct ksm_node *node)
{
	struct ucow_page *page = place->page;
	bool cleared;

	table_lock(place->leaf);
	cleared = clear_entry(place);
	if (cleared) {
		atomic_store_explicit(&node->merged.page, page, memory_order_relaxed);
		node->family = page->mapping;
		page->mapping = node;
		page_clear(page, PAGE_LAZYFREE);
		/* Release: who sees the flag may read whose page it is. */
		atomic_fetch_or_explicit(&page->flags, PAGE_KSM, memory_order_release);
		leaf_set(place->leaf, place->va, place->pte);
	}
	table_unlock(place->leaf);
	return cleared;
}

/* A page that came back from swap may keep its slot: that is of no use if no entry names it. Merged pages have none. */
static bool leave_cache(struct place *place)
{
	return !page_is(place->page, PAGE_SWAPCACHE) ||
	       swap_forget(machine_swap(place->mm->machine), place->page, false);
}

static enum merge_result convert_locked(struct ksm *ksm, struct place *place, struct ksm_node *node)
{
	enum merge_result result = protect(place);

	if (result != MERGE_DONE)
		return result;
	if (!homes_add(ksm, node, place->page->mapping, place->page->home)) {
		leave_page(place);
		return MERGE_NO_MEMORY;
	}
	if (!leave_cache(place) || !become_merged(place, node)) {
		leave_page(place);
		return MERGE_NOT;
	}
	unlock_page(place);
	return MERGE_DONE;
}

enum merge_result ksm_convert(struct ksm *ksm, struct ucow_mm *mm, uint64_t va, struct ksm_node *node)
{
	struct place place = {.mm = mm, .va = va};
	enum merge_result result;
	unsigned tries = 0;

	do {
		rwlock_read_lock(&mm->mmap_lock);
		notify_start(mm, va, va + UCOW_PAGE_SIZE, UCOW_NOTIFY_PROTECT);
		result = convert_locked(ksm, &place, node);
		notify_end(mm, va, va + UCOW_PAGE_SIZE, UCOW_NOTIFY_PROTECT);
		rwlock_read_unlock(&mm->mmap_lock);
	} while (unlikely(result == MERGE_NO_MEMORY) && space_relieve(mm, &tries));
	return result;
}

void ksm_revert(struct ksm_node *node)
{
	struct ucow_page *page = node_page(node);

	/* Waited for with nothing held that a fault could want. With our reference nobody has taken it to swap. */
	UCOW_BUG_ON(page_is(page, PAGE_SWAPCACHE));
	page_lock(page);
	page_clear(page, PAGE_KSM);
	page->mapping = node->family;
	page_unlock(page);
}
