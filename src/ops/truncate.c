/* SPDX-License-Identifier: MIT */
/*
 * The size of a file, and holes in it, against mappings, pins and writeback. Entries go under the mmap lock of their
 * space, held exclusively, so that no fault is half done: what it is about to map it has mapped, and whoever faults
 * afterwards sees the new size.
 */
#include "ops/ops.h"

#include "base/mutate.h"
#include "cache/cache.h"
#include "cache/flush.h"
#include "space/notifier.h"

#include <ucow/file.h>

#include <errno.h>

/* ---- entries ---- */

/* Entries that show pages of the cache go, private copies stay. Requires: mmap_lock exclusively. Returns: 0; -ENOMEM.
 */
static int drop_cached(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	struct ucow_page *pages[TABLE_LEAF_MAX];
	struct table *leaf;

	if (table_own_range(&mm->pt, start, end))
		return -ENOMEM;
	for (uint64_t at = start; (leaf = table_next_leaf(&mm->pt, &at, end, false)); at = table_leaf_end(at, end)) {
		unsigned n = 0;

		table_lock(leaf);
		for (uint64_t va = at; va < table_leaf_end(at, end); va += UCOW_PAGE_SIZE) {
			struct pte pte = leaf_get(leaf, va);

			if (pte_kind(pte) != PTE_KIND_SHARED)
				continue;
			pages[n++] = pte_page(&mm->machine->frames, pte);
			leaf_set(leaf, va, pte_zapped(pte));
		}
		table_unlock(leaf);
		if (!n)
			continue;
		tlb_invalidate(&mm->pt.generations, at, table_leaf_end(at, end));
		tlb_shootdown(&mm->pt);
		while (n)
			table_drop_mapping(&mm->machine->tables, pages[--n]);
	}
	return 0;
}

/* All entries of a part of a mapping go. What was protected stays so (B.7). Requires, returns: as drop_cached. */
static int zap_pages(struct ucow_mm *mm, const struct vma *vma, uint64_t start, uint64_t end)
{
	if (likely(!(vma->flags & VMA_UFFD_WP)))
		return table_zap(&mm->pt, start, end);
	if (table_own_range(&mm->pt, start, end))
		return -ENOMEM;
	zap_keeping_protection(mm, start, end);
	return 0;
}

/* The mappings of one space. With @copies private copies go too. Requires: as drop_cached. */
static int zap_user(struct cache_user *user, uint64_t first, uint64_t last, bool copies)
{
	struct ucow_mm *mm = user->mm;
	int error = 0;

	CACHE_FOR_EACH_MAPPING(link, user)
	{
		const struct vma *vma = cache_mapping(link);
		uint64_t start, end;

		if (error || !cache_vma_range(vma, first, last, &start, &end))
			continue;
		notify_start(mm, start, end, UCOW_NOTIFY_CLEAR);
		if (vma_is_cow(vma) && (!copies || MUTATED(TRUNCATE_KEEPS_COPIES)))
			error = drop_cached(mm, start, end);
		else
			error = zap_pages(mm, vma, start, end);
		notify_end(mm, start, end, UCOW_NOTIFY_CLEAR);
	}
	return error;
}

/* Pages [first, last] of the cache go from all spaces. Requires: no lock but LOCK_FILE. Returns: 0; -ENOMEM. */
static int zap_everywhere(struct cache *cache, uint64_t first, uint64_t last, bool copies)
{
	struct cache_user *user = NULL;

	while ((user = cache_next_user(cache, user))) {
		int error;

		rwlock_write_lock(&user->mm->mmap_lock);
		error = zap_user(user, first, last, copies);
		space_write_unlock(user->mm);
		if (error) {
			cache_release_user(user);
			return error;
		}
	}
	return 0;
}

/* ---- pages ---- */

/*
 * Take @page out of the cache, with the page lock, so that nobody is reading it. Who writes it back needs mmap locks,
 * for which he may wait behind somebody who waits for us: he is waited for with no lock but LOCK_FILE. Returns: false:
 * it is being written back.
 */
static bool try_drop(struct cache *cache, struct ucow_page *page)
{
	bool in_the_way;

	page_lock(page);
	if (cache_remove(cache, page))
		page_put(page);
	in_the_way = cache_of(page) == cache;
	page_unlock(page);
	return !in_the_way;
}

static void drop_pages(struct cache *cache, uint64_t first)
{
	struct ucow_page *pages[CACHE_BATCH];
	unsigned n;

	while ((n = cache_gather(cache, first, UINT64_MAX, CACHE_TAGS, pages, CACHE_BATCH)))
		for (unsigned i = 0; i < n; i++) {
			while (!try_drop(cache, pages[i]))
				flush_wait_page(pages[i]);
			page_put(pages[i]);
		}
}

/* The pages [first, last], until one is being written back. Returns: that, with a reference; NULL: all have gone. */
static struct ucow_page *drop_until_busy(struct cache *cache, uint64_t first, uint64_t last)
{
	struct ucow_page *page;

	while (cache_gather(cache, first, last, CACHE_TAGS, &page, 1)) {
		if (!try_drop(cache, page))
			return page;
		page_put(page);
	}
	return NULL;
}

/* Bytes [from, to) of one page read as zeros, if it is in the cache: else they do in the host file. */
static void zero_part(struct cache *cache, uint64_t from, uint64_t to)
{
	struct ucow_page *page;
	char *bytes;

	if (from >= to || cache_find(cache, from >> UCOW_PAGE_SHIFT, &page))
		return;
	page_lock(page); /* its bytes have come */
	bytes = page_bytes(page);
	hook_step(HOOK_STORE, bytes);
	for (uint64_t at = from & ~UCOW_PAGE_MASK; at < (from & ~UCOW_PAGE_MASK) + (to - from); at++)
		__atomic_store_n(bytes + at, 0, __ATOMIC_RELAXED);
	cache_set_dirty(cache, page);
	page_unlock(page);
	page_put(page);
}

/* ---- size ---- */

static void set_size(struct cache *cache, uint64_t nbytes)
{
	spin_lock(&cache->lock, LOCK_CACHE);
	atomic_store_explicit(&cache->size, nbytes, memory_order_release);
	spin_unlock(&cache->lock, LOCK_CACHE);
}

/* What a mapping has stored behind the end, in the last page, is not to be seen when the end moves up. */
int file_grow(struct cache *cache, uint64_t nbytes)
{
	uint64_t size = cache_size(cache);

	if (nbytes > INT64_MAX)
		return -EFBIG;
	if (size & ~UCOW_PAGE_MASK)
		zero_part(cache, size, min_u64(nbytes, page_round_up(size)));
	set_size(cache, nbytes);
	return 0;
}

/* Requires: the resize lock. The host file last, when nothing can fail any more but that. */
int file_shrink(struct cache *cache, uint64_t nbytes)
{
	uint64_t size = cache_size(cache), first = page_round_up(nbytes) >> UCOW_PAGE_SHIFT;
	int error;

	set_size(cache, nbytes);
	error = zap_everywhere(cache, first, UINT64_MAX, true);
	if (!error && cache_is_tracked(cache)) {
		/* What is on its way could make the host file longer again. */
		flush_wait(cache, nbytes >> UCOW_PAGE_SHIFT, UINT64_MAX);
		error = backing_resize(&cache->backing, nbytes);
	}
	if (error) {
		set_size(cache, size);
		return error;
	}
	drop_pages(cache, first);
	if (nbytes & ~UCOW_PAGE_MASK)
		zero_part(cache, nbytes, page_round_up(nbytes));
	return 0;
}

static int grow(struct cache *cache, uint64_t nbytes)
{
	int error = cache_is_tracked(cache) ? backing_resize(&cache->backing, nbytes) : 0;

	return error ? error : file_grow(cache, nbytes);
}

int ucow_file_truncate(struct ucow_file *file, uint64_t nbytes)
{
	struct cache *cache = file->cache;
	int error = 0;

	if (file->flags & UCOW_FILE_READ_ONLY)
		return -EACCES;
	if (cache->is_part)
		return -EINVAL;
	if (nbytes > INT64_MAX - cache->backing.offset)
		return -EFBIG;
	mutex_lock(&cache->resize);
	if (nbytes < cache_size(cache))
		error = file_shrink(cache, nbytes);
	else if (nbytes > cache_size(cache))
		error = grow(cache, nbytes);
	mutex_unlock(&cache->resize);
	return error;
}

/* ---- holes ---- */

/*
 * The cache's pages and the host's bytes go together: nobody reads the one while the other is there still. Whole pages
 * leave the cache, parts are zeroed in it. *busy: what is being written back and has to be waited for first, with a
 * reference; or NULL. Returns: 0; what the host says.
 */
static int try_punch(struct cache *cache, uint64_t from, uint64_t to, struct ucow_page **busy)
{
	uint64_t first = page_round_up(from) >> UCOW_PAGE_SHIFT, end = to >> UCOW_PAGE_SHIFT;
	int error = 0;

	*busy = NULL;
	rwlock_write_lock(&cache->filling);
	/* First what the host may refuse, while nothing is lost; and again, for what was written back meanwhile. */
	if (cache_is_tracked(cache))
		error = backing_punch(&cache->backing, from, to);
	if (!error && first < end)
		*busy = drop_until_busy(cache, first, end - 1);
	if (!error && !*busy) {
		zero_part(cache, from, min_u64(to, page_round_up(from)));
		zero_part(cache, max_u64(from, to & UCOW_PAGE_MASK), to);
		if (cache_is_tracked(cache))
			error = backing_punch(&cache->backing, from, to);
	}
	rwlock_write_unlock(&cache->filling);
	return error;
}

static int punch(struct cache *cache, uint64_t from, uint64_t to)
{
	struct ucow_page *busy;
	int error;

	while ((error = try_punch(cache, from, to, &busy), busy)) {
		flush_wait_page(busy);
		page_put(busy);
	}
	return error;
}

int ucow_file_punch(struct ucow_file *file, uint64_t offset, uint64_t nbytes)
{
	struct cache *cache = file->cache;
	uint64_t first, end;
	int error = 0, late;

	if (file->flags & UCOW_FILE_READ_ONLY)
		return -EACCES;
	if (!nbytes || offset > INT64_MAX || nbytes > INT64_MAX - offset)
		return -EINVAL;
	mutex_lock(&cache->resize);
	nbytes = min_u64(nbytes, cache_size(cache) - min_u64(offset, cache_size(cache)));
	first = page_round_up(offset) >> UCOW_PAGE_SHIFT;
	end = (offset + nbytes) >> UCOW_PAGE_SHIFT;
	/* Before, since what fails then changes nothing; and after, for who has mapped a page meanwhile. */
	if (first < end)
		error = zap_everywhere(cache, first, end - 1, false);
	if (!error && nbytes) {
		error = punch(cache, offset, offset + nbytes);
		late = first < end ? zap_everywhere(cache, first, end - 1, false) : 0;
		error = error ? error : late;
	}
	mutex_unlock(&cache->resize);
	return error;
}
