/* SPDX-License-Identifier: MIT */
/* What the operations on spaces share: nodes of mappings, splitting and merging, zapping, populating. */
#ifndef OPS_OPS_H
#define OPS_OPS_H

#include "space/mm.h"

#include <ucow/diff.h>
#include <ucow/mm.h>

/* ---- mappings with their memory (vmas.c). All require mmap_lock exclusively. ---- */

/* vma_create - a node that hangs nowhere. Returns: NULL: no memory. */
struct vma *vma_create(struct ucow_machine *machine);
/* vma_release - free a node that hangs nowhere, and its references on object and opener. NULL is allowed. */
void vma_release(struct vma *vma);

/* vma_share_object - @vma, which names the object and the opener of @like, a mapping of the same space, counts for
 * them.
 */
void vma_share_object(struct vma *vma, const struct vma *like);

/* vmas_isolate - split so that no mapping crosses @start or @end. Returns: 0; -ENOMEM: nothing changed. */
int vmas_isolate(struct ucow_mm *mm, uint64_t start, uint64_t end);
/* vmas_merge - merge what has become alike in [start, end), its neighbours included. */
void vmas_merge(struct ucow_mm *mm, uint64_t start, uint64_t end);
/* vmas_remove - take the mappings in [start, end) away. Requires: none crosses the ends. */
void vmas_remove(struct ucow_mm *mm, uint64_t start, uint64_t end);

/* space_discard - free a space that is not published, with all that it maps. */
void space_discard(struct ucow_mm *mm);

/* ---- entries ---- */

/*
 * change_range - rewrite the entries that are not empty: @change answers the new one. When it returns no cpu uses a
 * permission any more that was taken away [rule 10].
 * Requires: mmap_lock exclusively; the range's leaves are owned (table_own_range).
 */
typedef struct pte change_entry(struct ucow_mm *mm, const struct vma *vma, struct pte pte);
void change_range(struct ucow_mm *mm, struct vma *vma, uint64_t start, uint64_t end, change_entry *change);
/* change_entries - the same without the wait: bump, shootdown and those who follow the space are the caller's. */
void change_entries(struct ucow_mm *mm, struct vma *vma, uint64_t start, uint64_t end, change_entry *change);

/*
 * zap_keeping_protection - empty [start, end) of a file or shared mapping: what was protected for a userfaultfd stays
 * so (B.7). Requires: mmap_lock exclusively; the range's leaves are owned.
 */
void zap_keeping_protection(struct ucow_mm *mm, uint64_t start, uint64_t end);

/*
 * unmerge_range - give the entries of merged pages pages of their own, but for mappings with one of the flags @spared.
 * Requires: no lock. Returns: 0; -ENOMEM; -EDEADLK (the page-lock callback gave up): a part was done.
 */
int unmerge_range(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned spared);

/*
 * unmap_range - munmap of a range that may start below the lowest mapping. Requires: mmap_lock exclusively.
 * Returns: 0; -ENOMEM: nothing changed.
 */
int unmap_range(struct ucow_mm *mm, uint64_t start, uint64_t end);

/*
 * populate - fault in every page, for writing if @write.
 * Requires: no lock. Returns: 0; -ENOMEM (hole or memory); -EINVAL (permission, PFN mapping); -EFAULT (SIGBUS).
 */
int populate(struct ucow_mm *mm, uint64_t start, uint64_t end, bool write);

/* What is to be mapped, as ucow_mmap and ucow_mmap_file say. */
struct map_request {
	uint64_t hint, length;
	unsigned prot, flags;
	struct ucow_file *file; /* NULL: anonymous */
	uint64_t offset;
};
/* space_map - ucow_mmap. The length is rounded up. Requires: no lock. */
int space_map(struct ucow_mm *mm, struct map_request *request, uint64_t *va);

struct cache;
/* file_grow - the end moves up to @nbytes, in the cache. Requires: the cache's resize lock. Returns: 0; -EFBIG. */
int file_grow(struct cache *cache, uint64_t nbytes);
/* file_shrink - the end moves down to @nbytes, the host file's too. Requires: the same. Returns: 0; -ENOMEM, what the
 * host says: nothing of it. */
int file_shrink(struct cache *cache, uint64_t nbytes);

/* ---- locked memory (mlock.c) ---- */

/* locked_pages - pages of locked mappings. Requires (both): mmap_lock. */
uint64_t locked_pages(const struct ucow_mm *mm);
/* may_lock - whether the limit permits @npages more. */
bool may_lock(const struct ucow_mm *mm, uint64_t npages);
/*
 * fetch_locked - fault in what is locked in [start, end), but for mappings that are locked as pages come.
 * Requires: no lock. Returns: 0; -ENOMEM (a mapping without permissions, or nothing behind it); -EAGAIN: a part is
 * there.
 */
int fetch_locked(struct ucow_mm *mm, uint64_t start, uint64_t end);

/* ---- spaces ---- */

/* What a fork makes. All zero: an ordinary child, in its parent's memory group. */
struct fork_request {
	bool read_only;                    /* a snapshot */
	struct ucow_snapshot_group *group; /* which is the parent's, and which it joins, state NEW; NULL: none */
	bool into;                         /* @memcg is its memory group, which may be NULL: none */
	struct ucow_memcg *memcg;
};

/* space_fork - ucow_fork. Returns: 0; -ENOMEM. */
int space_fork(struct ucow_mm *parent, const struct fork_request *request, struct ucow_mm **child);

/* space_diff - ucow_diff; *looked grows by the number of tables that it looked into. */
int space_diff(struct ucow_mm *a, struct ucow_mm *b, int (*visit)(void *arg, uint64_t va, enum ucow_diff_kind kind),
	       void *arg, uint64_t *looked);

/* space_write_unlock - the end of an operation that may have unmapped something: its snapshots' share is charged. */
void space_write_unlock(struct ucow_mm *mm);

/* snapshot_end - ucow_mm_destroy of a member of a group. Returns: 0; -EBUSY: somebody is at it already. */
int snapshot_end(struct ucow_mm *mm);

#endif
