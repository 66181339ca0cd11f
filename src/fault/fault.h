/* SPDX-License-Identifier: MIT */
/*
 * Faults: classify the entry, decide (fault/policy.h), act. Also the one place that gives entries their permissions.
 */
#ifndef FAULT_FAULT_H
#define FAULT_FAULT_H

#include "cache/cache.h"
#include "fault/policy.h"
#include "fault/uffd.h"

#include <ucow/mm.h>

enum fault_flag {
	FAULT_READ = 0,
	FAULT_WRITE = 1u << 0,
	FAULT_UNSHARE = 1u << 1, /* make the page exclusive, leave the entry read-only; excludes WRITE */
	FAULT_ACCESS = 1u << 2,  /* by the program itself, through the cpu that will fill its TLB */
};

enum fault_result {
	FAULT_DONE,      /* look again: the entry now permits what was asked, or the fault must be repeated */
	FAULT_ZERO_PAGE, /* ACCESS only: the access reads zeros and no entry says so [rule 5] */
	FAULT_SIGSEGV,   /* no mapping, or not permitted */
	FAULT_READ_ONLY, /* a store into a snapshot */
	FAULT_SIGBUS,    /* nothing behind the mapping */
	FAULT_OOM,       /* no memory; nothing changed */
	FAULT_BLOCKED,   /* the page-lock callback gave up; nothing changed */
	/*
	 * A copy would keep more for the group's snapshots than its limit allows; nothing changed. The caller lets go
	 * of its locks, asks group_make_room(mm->group, 1), and tries again or fails with -ENOMEM.
	 */
	FAULT_OVER_LIMIT,
	/* A userfaultfd is to resolve it, as the caller's struct uffd_wait says: let go of all locks, uffd_wait, try
	   again. */
	FAULT_USERFAULT,
	FAULT_RETRY,     /* internal: the entry changed under us */
	FAULT_LOCK_PAGE, /* internal: the page's lock is to be waited for */
	FAULT_SWAP_IN,   /* internal: the page is to be read from swap */
	FAULT_FILE_IN,   /* internal: the page is to be read from its file */
};

/*
 * fault_handle - make the entry for @va permit what @flags ask. A write to a mapping without VMA_WRITE is a forced one
 * and needs a private mapping (else FAULT_SIGSEGV). Requires: mmap_lock, shared or exclusive; no table lock; @va lies
 * in @vma. @wait: of a caller who can wait for a userfaultfd; NULL: FAULT_SIGBUS where that would be needed.
 * Source: semantics.md B.2, B.3.
 */
enum fault_result fault_handle(struct ucow_mm *mm, struct vma *vma, uint64_t va, unsigned flags,
			       struct uffd_wait *wait);

/* What a walk found earlier; it holds if the space's shape is still @shape. */
struct walk_hint {
	struct walk walk;
	uint64_t shape;
};

/*
 * fault_access - fault_handle for a load or store of a program: finds the mapping and checks its permission first.
 * @hint may be NULL.
 */
enum fault_result fault_access(struct ucow_mm *mm, uint64_t va, bool write, const struct walk_hint *hint,
			       struct uffd_wait *wait);

/* fault_errno - 0, -EFAULT (SIGSEGV), -EACCES (READ_ONLY), -ENXIO (SIGBUS), -ENOMEM, -EDEADLK. */
int fault_errno(enum fault_result result);

/* needs_soft_dirty - stores to the mapping are tracked, and @pte has not seen one: it must not be writable (B.7). */
static inline bool needs_soft_dirty(const struct vma *vma, struct pte pte)
{
	return !(vma->flags & VMA_SOFTDIRTY) && !pte_is_soft_dirty(pte);
}

/*
 * vma_wants_notify - a shared mapping whose entries become writable by a fault only, so that the first store is seen
 * (B.8): of a file that is written back, soft-dirty tracking, or write protection for userfaultfd.
 */
static inline bool vma_wants_notify(const struct vma *vma)
{
	return (vma->flags & (VMA_SOFTDIRTY | VMA_UFFD_WP)) != VMA_SOFTDIRTY || vma_is_tracked(vma);
}

/*
 * entry_permit - a fresh entry @pte as @vma's permissions want it; writable only if @write, the mapping is, and nobody
 * wants to hear of the store: no userfaultfd (0.1, invariant 6), and no tracking.
 */
struct pte entry_permit(const struct vma *vma, struct pte pte, bool write);

/* entry_may_upgrade - whether @pte of @vma may become writable without a fault (B.6). Requires: the leaf's lock. */
bool entry_may_upgrade(const struct ucow_mm *mm, const struct vma *vma, struct pte pte);

/*
 * mapping_let_go - an entry of the space has stopped showing @page, and the bump has been made; its mapping and its
 * reference go, the reference when no cpu of the space reads the page any more. Returns: whether no entry maps it.
 */
bool mapping_let_go(struct ucow_mm *mm, struct ucow_page *page);

/*
 * anon_page_init - turn a fresh frame into a mapped anon page of @vma, born in @leaf at @va; its reference is the
 * mapping's. Requires: the lock of @leaf, or that nobody else knows it.
 */
void anon_page_init(const struct ucow_mm *mm, struct vma *vma, const struct table *leaf, uint64_t va,
		    struct ucow_page *page);

#endif
