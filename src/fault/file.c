/* SPDX-License-Identifier: MIT */
/*
 * Faults in mappings of files and of shared memory (semantics.md B.2, B.8). What the cache has is mapped at once; what
 * has to be read first is read by fault.c's loop, outside of any section.
 */
#include "fault/fault_internal.h"

#include "base/mutate.h"
#include "cache/cache.h"

#include <errno.h>

#define AROUND_PAGES 16 /* a read fault maps what the cache has of so many, aligned */

/*
 * The page of the cache, with a reference; memory is made, and charged to this space, if it is not there yet. Returns:
 * 0; -ENXIO; -ENOMEM; -EAGAIN: it has to be read first; -EBUSY, -ENODATA: it is there, or is not, and a userfaultfd
 * wants to know.
 */
static int cached_page(struct fault *fault, struct ucow_page **page)
{
	struct cache *cache = fault->vma->object;
	uint64_t index = vma_page_index(fault->vma, fault->va);
	int error = cache_find(cache, index, page);
	struct ucow_page *made;

	if (!error && unlikely(!cache_is_filled(*page))) {
		page_put(*page);
		return -EAGAIN;
	}
	if (!error && unlikely(fault->vma->flags & VMA_UFFD_MINOR)) {
		page_put(*page);
		return -EBUSY;
	}
	if (error != -ENOENT)
		return error;
	if (unlikely(fault->vma->flags & VMA_UFFD_MISSING))
		return -ENODATA;
	if (cache_is_tracked(cache))
		return -EAGAIN;
	made = mm_alloc_page(fault->mm, FRAME_ZEROED);
	if (!made)
		return -ENOMEM;
	error = cache_insert(cache, index, made, page);
	if (!error && *page == made)
		fault_count(fault, UCOW_COUNTER_ZERO_FILL);
	return error;
}

static enum fault_result result_of(struct fault *fault, int error)
{
	switch (error) {
	case -EBUSY:
		return fault_ask_user(fault, UCOW_UFFD_FAULT_MINOR);
	case -ENODATA:
		return fault_ask_user(fault, 0);
	case -EAGAIN:
		return FAULT_FILE_IN;
	case -ENOMEM:
		return FAULT_OOM;
	default:
		return FAULT_SIGBUS; /* beyond the end, or it could not be read */
	}
}

/*
 * What the cache has around the address is mapped too, for loads alone and as not accessed. Requires: the leaf's lock.
 */
static void map_around(struct fault *fault)
{
	const struct vma *vma = fault->vma;
	uint64_t start = fault->va & ~(AROUND_PAGES * UCOW_PAGE_SIZE - 1), end = start + AROUND_PAGES * UCOW_PAGE_SIZE;
	struct ucow_page *page;
	unsigned n = 0;

	for (uint64_t va = max_u64(start, vma->start); va < min_u64(end, vma->end); va += UCOW_PAGE_SIZE) {
		if (!pte_is_none(leaf_get(fault->leaf, va)) || cache_find(vma->object, vma_page_index(vma, va), &page))
			continue;
		if (!cache_is_filled(page)) {
			page_put(page);
			continue;
		}
		page_map(page);
		leaf_set(fault->leaf, va, entry_permit(vma, pte_mkold(pte_make_shared(page)), false));
		n++;
	}
	count_add(&fault->mm->machine->counters, UCOW_COUNTER_FILE_AROUND, n);
}

static bool maps_around(const struct fault *fault)
{
	return fault->vma->file && cache_is_tracked(fault->vma->object) && !(fault->flags & FAULT_WRITE) &&
	       !(fault->vma->flags & VMA_UFFD);
}

/*
 * The entry for a page of the cache. A private mapping gets it for loads. A shared one of memory is mapped as the
 * mapping permits, whatever the access; one of a file waits for the first store, which says that the page is dirty
 * (B.8).
 */
static struct pte cached_entry(const struct fault *fault, const struct ucow_page *page)
{
	const struct vma *vma = fault->vma;
	bool write = fault->flags & FAULT_WRITE;
	struct pte pte = pte_inherit(pte_make_shared(page), fault->pte); /* a marker's protection (B.2) */

	if (write)
		pte = pte_mkdirty(pte);
	return entry_permit(vma, pte,
			    !vma_is_cow(vma) && (write || !vma_is_tracked(vma) || MUTATED(FILE_WRITABLE_ON_READ)));
}

enum fault_result fault_map_cached(struct fault *fault)
{
	struct ucow_page *page;
	int error = cached_page(fault, &page);

	if (error)
		return result_of(fault, error);
	if (!fault_relock(fault)) {
		page_put(page);
		return FAULT_RETRY;
	}
	page_map(page);
	if (unlikely(fault->vma->file) && (fault->flags & FAULT_WRITE))
		fault_dirty_cached(fault, page);
	leaf_set(fault->leaf, fault->va, cached_entry(fault, page));
	if (unlikely(maps_around(fault)))
		map_around(fault);
	table_unlock(fault->leaf);
	return FAULT_DONE;
}

/* Before the entry permits the store: whoever finds that it does, and syncs, finds the page dirty. */
void fault_dirty_cached(struct fault *fault, struct ucow_page *page)
{
	if (!MUTATED(FORGET_FILE_DIRTY))
		cache_set_dirty(fault->vma->object, page);
}

/* Requires: a reference to @page of the cache. */
static enum fault_result install_copy(struct fault *fault, const struct ucow_page *page)
{
	struct ucow_page *copy = mm_alloc_page(fault->mm, FRAME_ANY);
	struct pte pte;

	if (!copy)
		return FAULT_OOM;
	page_copy(page_bytes(copy), page_bytes(page));
	pte = pte_inherit(pte_mkdirty(pte_make_anon(copy)), fault->pte);
	if (!fault_relock(fault)) {
		page_put(copy);
		return FAULT_RETRY;
	}
	anon_page_init(fault->mm, fault->vma, fault->leaf, fault->va, copy);
	leaf_set(fault->leaf, fault->va, entry_permit(fault->vma, pte, true));
	table_unlock(fault->leaf);
	if (unlikely(fault->mm->read_only && fault->mm->group)) /* policies that write before they look */
		group_charge(fault->mm->group, &fault->mm->snapshot, 1);
	fault_count(fault, UCOW_COUNTER_FILE_COW);
	return FAULT_DONE;
}

/* do_cow_fault: the first store to a private mapping, where nothing is mapped yet, copies at once. */
enum fault_result fault_copy_cached(struct fault *fault)
{
	enum fault_result result;
	struct ucow_page *page;
	int error = cached_page(fault, &page);

	if (error)
		return result_of(fault, error);
	result = install_copy(fault, page);
	page_put(page);
	return result;
}

enum fault_result fault_fetch(struct fault *fault)
{
	struct ucow_page *page;
	bool major = false;
	int error;

	fault_release_brought(fault);
	fault_release_waited(fault);
	error = cache_fetch(fault->vma->object, fault->mm, vma_page_index(fault->vma, fault->va), &page, &major);
	if (major)
		fault_count(fault, UCOW_COUNTER_FAULT_MAJOR);
	if (error)
		return result_of(fault, error);
	fault->brought = page; /* it stays in the cache until it is mapped */
	return FAULT_RETRY;
}
