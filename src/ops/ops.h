/* SPDX-License-Identifier: MIT */
/* What the operations on spaces share: nodes of mappings, splitting and merging, zapping, populating. */
#ifndef OPS_OPS_H
#define OPS_OPS_H

#include "space/mm.h"

#include <ucow/mm.h>

/* ---- mappings with their memory (vmas.c). All require mmap_lock exclusively. ---- */

/* vma_create - a node that hangs nowhere. Returns: NULL: no memory. */
struct vma *vma_create(struct ucow_machine *machine);
/* vma_release - free a node that hangs nowhere, and its reference on the object. NULL is allowed. */
void vma_release(struct vma *vma);

/* vmas_isolate - split so that no mapping crosses @start or @end. Returns: 0; -ENOMEM: nothing changed. */
int vmas_isolate(struct ucow_mm *mm, uint64_t start, uint64_t end);
/* vmas_merge - merge what has become alike in [start, end), its neighbours included. */
void vmas_merge(struct ucow_mm *mm, uint64_t start, uint64_t end);
/* vmas_remove - take the mappings in [start, end) away. Requires: none crosses the ends. */
void vmas_remove(struct ucow_mm *mm, uint64_t start, uint64_t end);

/* ---- entries ---- */

/*
 * zap_range - drop every entry in [start, end): translations first, then the references (rule 10).
 * Requires: mmap_lock, shared or exclusive. Tables stay.
 */
void zap_range(struct ucow_mm *mm, uint64_t start, uint64_t end);

/* change_range - rewrite the entries that are not empty: @change answers the new one. Requires: mmap_lock. */
void change_range(struct ucow_mm *mm, struct vma *vma, uint64_t start, uint64_t end,
		  struct pte (*change)(struct ucow_mm *mm, const struct vma *vma, struct pte pte));

/*
 * unmap_range - munmap of a valid range. Requires: mmap_lock exclusively. Returns: 0; -ENOMEM: nothing changed.
 */
int unmap_range(struct ucow_mm *mm, uint64_t start, uint64_t end);

/*
 * populate_range - fault in every page, for writing if @write.
 * Requires: mmap_lock shared. Returns: 0; -ENOMEM (hole or memory); -EINVAL (permission, PFN mapping); -EFAULT
 * (SIGBUS).
 */
int populate_range(struct ucow_mm *mm, uint64_t start, uint64_t end, bool write);

#endif
