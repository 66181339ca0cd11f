/* SPDX-License-Identifier: MIT */
/*
 * The set of mappings of a space: ordered, disjoint, with split and merge and a search for room. Pure: it knows no
 * tables, no pages and allocates nothing, so that it is compiled and tested alone. Nodes are supplied and freed by the
 * caller.
 */
#ifndef SPACE_VMA_H
#define SPACE_VMA_H

#include "base/list.h"
#include "base/sync.h"
#include "base/tree.h"

enum vma_flag {
	VMA_READ = 1u << 0,
	VMA_WRITE = 1u << 1,
	VMA_SHARED = 1u << 2,
	VMA_PFNMAP = 1u << 3,     /* memory that is not pages; GUP refuses it */
	VMA_DONTCOPY = 1u << 4,   /* absent in children */
	VMA_WIPEONFORK = 1u << 5, /* empty in children */
	VMA_ACCOUNT = 1u << 6,    /* memory was promised for it: private, and writable now or when an anon page came */
	VMA_MERGEABLE = 1u << 7,  /* pages may be merged with equal ones; of no use without private pages */

	VMA_UFFD_MISSING = 1u << 8, /* what vma->uffd is asked about (ucow/uffd.h) */
	VMA_UFFD_WP = 1u << 9,
	VMA_UFFD_MINOR = 1u << 10,
	VMA_SOFTDIRTY = 1u << 11,   /* all of it counts as written; where it is clear, writes are tracked (B.7) */
	VMA_LOCKED = 1u << 12,      /* mlock: pages stay in memory */
	VMA_LOCKONFAULT = 1u << 13, /* with LOCKED: from when they come, and none is fetched for it */
	VMA_NOWRITE = 1u << 14,     /* may never become writable: a shared mapping of a file opened for reading */

	VMA_UFFD = VMA_UFFD_MISSING | VMA_UFFD_WP | VMA_UFFD_MINOR,
};

struct cache_user;
struct ucow_file;
struct ucow_uffd;

struct vma {
	struct tree_node node; /* keyed by start */
	uint64_t start, end;   /* [start, end), page aligned, not empty */
	uint64_t pgoff; /* page number of start: in the object; (private) where it was first mapped; (PFN) its own */
	void *object;   /* struct cache: what backs shared mappings, and private ones of files; else NULL */
	struct ucow_file *file;  /* through which it was mapped; NULL: anonymous */
	struct cache_user *user; /* (of a file) where the cache lists the space's mappings, by user_link */
	struct list user_link;
	struct ucow_uffd
		*uffd;    /* who is asked, as VMA_UFFD_* say; NULL: nobody. Not counted: it leaves before it ends */
	uint64_t gap;     /* free bytes before start */
	uint64_t max_gap; /* the greatest gap in this subtree */
	unsigned flags;   /* enum vma_flag */
	_Atomic bool
		has_anon; /* an anon page was ever mapped here, as Linux tells by anon_vma: fork skips the rest (B.4) */
	bool inherited;   /* has_anon came from a parent: such mappings merge only with their like */
};

struct vma_set {
	struct tree tree;
	uint64_t low, high; /* mappings lie in [low, high) */
	uint64_t count;
	uint64_t npages;
};

void vma_set_init(struct vma_set *set, uint64_t low, uint64_t high);

/* A copy-on-write mapping, is_cow_mapping (semantics.md 0.1). Every mapping may be made writable, so private suffices.
 */
static inline bool vma_is_cow(const struct vma *vma)
{
	return !(vma->flags & VMA_SHARED);
}

/* Loads are permitted: as on x86, permission to write includes it. */
static inline bool vma_is_accessible(const struct vma *vma)
{
	return vma->flags & (VMA_READ | VMA_WRITE);
}

static inline uint64_t vma_page_index(const struct vma *vma, uint64_t va)
{
	return vma->pgoff + ((va - vma->start) >> UCOW_PAGE_SHIFT);
}

/* vma_find - the first mapping that ends above @va, or NULL; it may start above @va. */
struct vma *vma_find(const struct vma_set *set, uint64_t va);
/* vma_at - the mapping that contains @va, or NULL. */
struct vma *vma_at(const struct vma_set *set, uint64_t va);
struct vma *vma_first(const struct vma_set *set);
struct vma *vma_next(const struct vma *vma);
struct vma *vma_prev(const struct vma *vma);
#define VMA_FOR_EACH(item, set) for (struct vma *item = vma_first(set); item; item = vma_next(item))

/* vma_insert - Requires: start, end, pgoff, object, flags are set, and the range is free. */
void vma_insert(struct vma_set *set, struct vma *vma);
void vma_remove(struct vma_set *set, struct vma *vma);

/* vma_split - cut @vma at @va: @vma keeps the lower part, @upper (uninitialised) becomes the upper. start < va < end.
 */
void vma_split(struct vma_set *set, struct vma *vma, uint64_t va, struct vma *upper);

/*
 * vma_can_merge - whether two mappings, @lower ending where @upper starts, are alike in everything but VMA_SOFTDIRTY,
 * which the result has if one of them had it (B.7). Where one has anon
 * pages and the other has none yet, it is as Linux since 6.16 does: they merge unless the pages came from a parent.
 */
bool vma_can_merge(const struct vma *lower, const struct vma *upper);
/* vma_merge_next - merge @vma with its successor if they can. Returns: the node that is now unused, or NULL. */
struct vma *vma_merge_next(struct vma_set *set, struct vma *vma);

/* vma_grow - move @vma's end up. Requires: the room is free. */
void vma_grow(struct vma_set *set, struct vma *vma, uint64_t end);

/* vma_range_is_free / vma_range_is_mapped - whether nothing / everything in [start, end) is mapped. */
bool vma_range_is_free(const struct vma_set *set, uint64_t start, uint64_t end);
bool vma_range_is_mapped(const struct vma_set *set, uint64_t start, uint64_t end);

/*
 * vma_find_room - the lowest free range of @nbytes at a multiple of @align (a power of two) in [low, high).
 * Returns: 0 and *va; -ENOMEM. Time: logarithmic but for gaps that are large enough only before alignment.
 */
int vma_find_room(const struct vma_set *set, uint64_t nbytes, uint64_t align, uint64_t *va);

/* vma_set_check - [INV-VMA-1] sorted, disjoint, not empty, gaps and counts true. Returns: NULL or what is wrong. */
const char *vma_set_check(const struct vma_set *set);

#endif
