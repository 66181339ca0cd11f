/* SPDX-License-Identifier: MIT */
/*
 * What changed between two spaces. What a page shows is known from its entry, but for shared mappings, where the object
 * knows and entries only tell who has looked. So mappings that are not the same object at the same place in both are
 * compared object by object, and everything between them by one walk of the tables, which skips what is common.
 */
#include "ops/ops.h"

#include "cache/cache.h"

#include <errno.h>

struct diff {
	struct ucow_mm *a, *b;
	int (*visit)(void *arg, uint64_t va, enum ucow_diff_kind kind);
	void *arg;
	const struct vma *vma_a, *vma_b; /* where the last page was found: the next one is mostly there too */
	uint64_t looked;                 /* at how many tables */
};

static int report(const struct diff *diff, uint64_t va, bool mapped_a, bool mapped_b)
{
	enum ucow_diff_kind kind = UCOW_DIFF_DIFFERENT;

	if (!mapped_a)
		kind = UCOW_DIFF_ONLY_B;
	else if (!mapped_b)
		kind = UCOW_DIFF_ONLY_A;
	return diff->visit(diff->arg, va, kind);
}

/* ---- what a page shows ---- */

/* Two with the same names show the same bytes. */
struct memory {
	uint64_t name;      /* as pte_memory's; 0: zeros, or what the file has */
	const void *file;   /* struct cache; NULL: none */
	uint64_t file_page; /* its number there */
};

#define NAME_OF_ZEROS 3 /* where an empty entry does not read as zeros */

static bool differs(struct memory a, struct memory b)
{
	return a.name != b.name || a.file != b.file || a.file_page != b.file_page;
}

/* A page of a cache: that of a file is named by its number, in memory or not; one of memory by the frame, if any. */
static struct memory memory_of_cache(const struct vma *vma, uint64_t va)
{
	uint64_t index = vma_page_index(vma, va);
	const struct ucow_page *page;

	if (cache_is_tracked(vma->object))
		return (struct memory){.file = vma->object, .file_page = index};
	page = cache_look(vma->object, index);
	return (struct memory){.name = page ? pte_memory(pte_make_shared(page)) : 0};
}

/* The memory behind @va. @vma: what covers @va, or NULL. */
static struct memory memory_at(const struct ucow_mm *mm, const struct vma *vma, uint64_t va)
{
	const struct table *leaf;
	struct pte pte;

	if (!vma)
		return (struct memory){0};
	if (vma->object && !vma_is_cow(vma))
		return memory_of_cache(vma, va);
	leaf = table_find_leaf(&mm->pt, va);
	pte = leaf ? leaf_get(leaf, va) : pte_none();
	if (vma->object && (pte_is_vacant(pte) || pte_kind(pte) == PTE_KIND_SHARED))
		return memory_of_cache(vma, va);
	if (vma->object && pte_kind(pte) == PTE_KIND_ZERO_PAGE)
		return (struct memory){.name = NAME_OF_ZEROS};
	return (struct memory){.name = pte_memory(pte)};
}

/* ---- by tables ---- */

static const struct vma *vma_near(const struct ucow_mm *mm, const struct vma **last, uint64_t va)
{
	if (!*last || va < (*last)->start || va >= (*last)->end)
		*last = vma_at(&mm->vmas, va);
	return *last;
}

/* A private mapping of a file: an empty entry and the zero page, which have one name, are not the same there. */
static bool hides_file(struct diff *diff, uint64_t va, struct pte a, struct pte b)
{
	const struct vma *vma;

	if (likely((pte_kind(a) == PTE_KIND_ZERO_PAGE) == (pte_kind(b) == PTE_KIND_ZERO_PAGE)))
		return false;
	vma = vma_near(diff->a, &diff->vma_a, va);
	return vma && vma->object && vma_is_cow(vma);
}

/* The entries show different memory. Where nothing is mapped the entry is empty, so the other one is not. */
static int diff_page(struct diff *diff, uint64_t va)
{
	const struct vma *a = vma_near(diff->a, &diff->vma_a, va), *b = vma_near(diff->b, &diff->vma_b, va);

	/* Here both are the same object at the same place: one has faulted the page in and the other has not. */
	if (a && a->object && !vma_is_cow(a))
		return 0;
	if (a && a->object && b && !differs(memory_at(diff->a, a, va), memory_at(diff->b, b, va)))
		return 0;
	return report(diff, va, a, b);
}

static int diff_leaf(void *arg, const struct table *a, const struct table *b, uint64_t start, uint64_t end)
{
	struct diff *diff = arg;
	int result = 0;

	for (uint64_t va = start; !result && va < end; va += UCOW_PAGE_SIZE) {
		struct pte in_a = a ? leaf_get(a, va) : pte_none(), in_b = b ? leaf_get(b, va) : pte_none();

		if (pte_memory(in_a) != pte_memory(in_b) || unlikely(hides_file(diff, va, in_a, in_b)))
			result = diff_page(diff, va);
	}
	return result;
}

static int diff_tables(struct diff *diff, uint64_t start, uint64_t end)
{
	return table_diff(&diff->a->pt, &diff->b->pt, start, end, diff_leaf, diff, &diff->looked);
}

/* ---- by objects ---- */

static int diff_objects(const struct diff *diff, const struct vma *a, const struct vma *b, uint64_t start, uint64_t end)
{
	int result = 0;

	for (uint64_t va = start; !result && va < end; va += UCOW_PAGE_SIZE)
		if (differs(memory_at(diff->a, a, va), memory_at(diff->b, b, va)))
			result = report(diff, va, a, b);
	return result;
}

/* ---- mappings ---- */

/* A range that one mapping of each space, or none, covers. */
struct stretch {
	const struct vma *a, *b;
	uint64_t start, end;
};

/* @vma is the first mapping that ends above stretch->start. Returns: it, if it covers the stretch; cuts that where it
 * does not. */
static const struct vma *cover(struct stretch *stretch, const struct vma *vma)
{
	bool covers = vma && vma->start <= stretch->start;

	if (vma)
		stretch->end = min_u64(stretch->end, covers ? vma->end : vma->start);
	return covers ? vma : NULL;
}

/* The stretch that starts at @start; in the last one nothing is mapped. */
static struct stretch stretch_at(const struct diff *diff, uint64_t start)
{
	struct stretch stretch = {.start = start, .end = UCOW_ADDRESS_LIMIT};

	stretch.a = cover(&stretch, vma_find(&diff->a->vmas, start));
	stretch.b = cover(&stretch, vma_find(&diff->b->vmas, start));
	return stretch;
}

/* Tables do not tell: an object is involved, and not in the same way on both sides. */
static bool objects_differ(const struct stretch *stretch)
{
	const struct vma *a = stretch->a, *b = stretch->b;
	const void *object_a = a ? a->object : NULL, *object_b = b ? b->object : NULL;

	if (object_a != object_b)
		return true;
	if (object_a && vma_is_cow(a) != vma_is_cow(b))
		return true;
	return object_a && vma_page_index(a, stretch->start) != vma_page_index(b, stretch->start);
}

/* Requires: both mmap_locks. */
static int diff_spaces(struct diff *diff)
{
	uint64_t done = 0; /* compared below */
	int result = 0;

	for (uint64_t va = 0; !result && va < UCOW_ADDRESS_LIMIT;) {
		struct stretch stretch = stretch_at(diff, va);

		if (objects_differ(&stretch)) {
			result = diff_tables(diff, done, stretch.start);
			if (!result)
				result = diff_objects(diff, stretch.a, stretch.b, stretch.start, stretch.end);
			done = stretch.end;
		}
		va = stretch.end;
	}
	return result ? result : diff_tables(diff, done, UCOW_ADDRESS_LIMIT);
}

int ucow_diff(struct ucow_mm *a, struct ucow_mm *b, int (*visit)(void *arg, uint64_t va, enum ucow_diff_kind kind),
	      void *arg)
{
	uint64_t looked = 0;

	return space_diff(a, b, visit, arg, &looked);
}

int space_diff(struct ucow_mm *a, struct ucow_mm *b, int (*visit)(void *arg, uint64_t va, enum ucow_diff_kind kind),
	       void *arg, uint64_t *looked)
{
	struct diff diff = {.a = a, .b = b, .visit = visit, .arg = arg};
	struct ucow_mm *older = a->serial < b->serial ? a : b, *younger = older == a ? b : a;
	int result;

	if (a == b)
		return 0;
	if (a->machine != b->machine)
		return -EINVAL;
	/* Exclusively: under the shared lock faults replace tables. */
	rwlock_write_lock(&older->mmap_lock);
	rwlock_write_lock_nested(&younger->mmap_lock);
	result = diff_spaces(&diff);
	rwlock_write_unlock(&younger->mmap_lock);
	rwlock_write_unlock(&older->mmap_lock);
	*looked += diff.looked;
	return result;
}
