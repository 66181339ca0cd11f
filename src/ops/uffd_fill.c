/* SPDX-License-Identifier: MIT */
/* Userfaultfds: supplying pages, and what stands in for one: copy, zeropage, continue, poison. */
#include "ops/uffd.h"

#include "cache/cache.h"

#include <errno.h>
#include <string.h>

enum fill_kind { FILL_COPY, FILL_ZEROS, FILL_CONTINUE, FILL_POISON };

struct fill {
	struct uffd_range range;
	enum fill_kind kind;
	const char *source; /* COPY: the bytes of range.start */
	struct vma *vma;
};

/* A page of its own with the bytes that are asked for. Returns: NULL: no memory. */
static struct ucow_page *make_page(const struct fill *fill)
{
	const struct uffd_range *range = &fill->range;
	struct ucow_page *page = mm_alloc_page(range->mm, fill->kind == FILL_COPY ? FRAME_ANY : FRAME_ZEROED);

	if (page && fill->kind == FILL_COPY)
		memcpy(page_bytes(page), fill->source + (range->at - range->start), UCOW_PAGE_SIZE);
	return page;
}

static struct pte supplied_entry(const struct fill *fill, struct pte pte, bool write)
{
	if (fill->range.mode & UCOW_UFFD_MODE_WP)
		pte = pte_mk_uffd_wp(pte);
	return entry_permit(fill->vma, pte, write);
}

/* Lock the leaf if nothing is at range.at: with @page markers give way to what comes. Returns: 0, locked; -EEXIST. */
static int lock_vacant(const struct fill *fill, struct table *leaf, bool page)
{
	struct pte pte;

	table_lock(leaf);
	pte = leaf_get(leaf, fill->range.at);
	if (pte_is_none(pte) || (pte_is_marker(pte) && page))
		return 0;
	table_unlock(leaf);
	return -EEXIST;
}

static int install_anon(struct fill *fill, struct table *leaf)
{
	struct ucow_page *page = make_page(fill);
	uint64_t va = fill->range.at;
	int error;

	if (!page)
		return -ENOMEM;
	error = lock_vacant(fill, leaf, true);
	if (error) {
		page_put(page);
		return error;
	}
	anon_page_init(fill->range.mm, fill->vma, leaf, va, page);
	leaf_set(leaf, va, supplied_entry(fill, pte_mkdirty(pte_make_anon(page)), true));
	table_unlock(leaf);
	return 0;
}

/* Poison, and zeros that are not a page, want an entry that is quite empty: a protection is not lost to them. */
static int install_special(const struct fill *fill, struct table *leaf)
{
	int error = lock_vacant(fill, leaf, false);

	if (error)
		return error;
	leaf_set(leaf, fill->range.at,
		 fill->kind == FILL_POISON
			 ? pte_make_poison()
			 : supplied_entry(fill, pte_make_zero(&fill->range.mm->machine->frames), false));
	table_unlock(leaf);
	return 0;
}

/* Put a page into the object that has none there yet. Returns: 0 and the page, with a reference; -EEXIST; -ENOMEM. */
static int add_to_object(const struct fill *fill, struct cache *cache, uint64_t index, struct ucow_page **page)
{
	struct ucow_page *made = make_page(fill);
	int error;

	if (!made)
		return -ENOMEM;
	error = cache_insert(cache, index, made, page);
	if (error)
		return error == -ENOMEM ? error : -EFAULT;
	if (*page == made)
		return 0;
	page_put(*page);
	return -EEXIST;
}

/* The page that the entry will show, with a reference. */
static int page_of_object(const struct fill *fill, struct ucow_page **page)
{
	struct cache *cache = fill->vma->object;
	uint64_t index = vma_page_index(fill->vma, fill->range.at);
	int error = cache_find(cache, index, page);

	if (fill->kind == FILL_CONTINUE)
		return error ? -EFAULT : 0;
	if (error == -ENOENT)
		return add_to_object(fill, cache, index, page);
	if (!error)
		page_put(*page);
	return error ? -EFAULT : -EEXIST;
}

static int install_shared(const struct fill *fill, struct table *leaf)
{
	struct ucow_page *page;
	int error = lock_vacant(fill, leaf, true);

	if (error)
		return error;
	table_unlock(leaf);
	error = page_of_object(fill, &page);
	if (error)
		return error;
	/* Who was faster in between has mapped the page that was just put in. */
	error = lock_vacant(fill, leaf, true);
	if (error) {
		page_put(page);
		return fill->kind == FILL_CONTINUE ? error : 0;
	}
	page_map(page);
	leaf_set(leaf, fill->range.at,
		 supplied_entry(fill, pte_mkdirty(pte_make_shared(page)), !vma_is_cow(fill->vma)));
	table_unlock(leaf);
	return 0;
}

static int fill_page(struct fill *fill)
{
	struct page_table *pt = &fill->range.mm->pt;
	struct table *leaf;
	int error;

	if (table_own_leaf(pt, fill->range.at, &leaf))
		return -ENOMEM;
	if (fill->kind == FILL_POISON || (fill->kind == FILL_ZEROS && vma_is_cow(fill->vma)))
		error = install_special(fill, leaf);
	else if (fill->kind == FILL_CONTINUE || !vma_is_cow(fill->vma))
		error = install_shared(fill, leaf);
	else
		error = install_anon(fill, leaf);
	/* An empty entry may be cached as reading zeros. */
	if (!error)
		tlb_invalidate(&pt->generations, fill->range.at, fill->range.at + UCOW_PAGE_SIZE);
	return error;
}

/* Requires: the mmap lock. Returns: 0; -EAGAIN; -ENOENT; -EINVAL. */
static int find_mapping(struct fill *fill)
{
	const struct uffd_range *range = &fill->range;
	struct vma *vma;

	if (unlikely(atomic_load(&range->uffd->changing)))
		return -EAGAIN;
	vma = vma_at(&range->mm->vmas, range->at);
	if (!vma || range->end > vma->end || !vma->uffd)
		return -ENOENT;
	if ((range->mode & UCOW_UFFD_MODE_WP) && !(vma->flags & VMA_UFFD_WP))
		return -EINVAL;
	if (fill->kind == FILL_CONTINUE && !vma->object)
		return -EINVAL;
	fill->vma = vma;
	return 0;
}

static int fill_locked(struct fill *fill)
{
	int error = find_mapping(fill);

	while (!error && fill->range.at < fill->range.end) {
		error = fill_page(fill);
		if (!error)
			fill->range.at += UCOW_PAGE_SIZE;
	}
	return error;
}

static int fill_range(struct fill *fill, uint64_t *done)
{
	struct ucow_mm *mm = fill->range.mm;
	unsigned tries = 0;
	int error;

	do {
		rwlock_read_lock(&mm->mmap_lock);
		error = fill_locked(fill);
		rwlock_read_unlock(&mm->mmap_lock);
		epoch_settle(&mm->machine->epoch);
	} while (unlikely(error == -ENOMEM) && space_relieve(mm, &tries));
	return uffd_range_end(&fill->range, error, done);
}

static int fill_call(struct ucow_uffd *uffd, enum fill_kind kind, uint64_t va, const void *source, uint64_t length,
		     unsigned mode, uint64_t *done)
{
	unsigned modes = UCOW_UFFD_MODE_DONTWAKE |
			 (kind == FILL_COPY || kind == FILL_CONTINUE ? UCOW_UFFD_MODE_WP : 0u);
	struct fill fill = {.kind = kind, .source = source};
	int error = uffd_range_begin(&fill.range, uffd, va, length, mode, modes);

	if (done)
		*done = 0;
	return error ? error : fill_range(&fill, done);
}

int ucow_uffd_copy(struct ucow_uffd *uffd, uint64_t va, const void *source, uint64_t length, unsigned mode,
		   uint64_t *done)
{
	return fill_call(uffd, FILL_COPY, va, source, length, mode, done);
}

int ucow_uffd_zeropage(struct ucow_uffd *uffd, uint64_t va, uint64_t length, unsigned mode, uint64_t *done)
{
	return fill_call(uffd, FILL_ZEROS, va, NULL, length, mode, done);
}

int ucow_uffd_continue(struct ucow_uffd *uffd, uint64_t va, uint64_t length, unsigned mode, uint64_t *done)
{
	return fill_call(uffd, FILL_CONTINUE, va, NULL, length, mode, done);
}

int ucow_uffd_poison(struct ucow_uffd *uffd, uint64_t va, uint64_t length, unsigned mode, uint64_t *done)
{
	return fill_call(uffd, FILL_POISON, va, NULL, length, mode, done);
}
