/* SPDX-License-Identifier: MIT */
/* One fault on its way through fault.c and cow.c. */
#ifndef FAULT_FAULT_INTERNAL_H
#define FAULT_FAULT_INTERNAL_H

#include "fault/fault.h"

/* It is cleared for every fault: a few bytes more, and compilers do that in a slow way. */
struct fault {
	struct ucow_mm *mm;
	struct vma *vma;
	uint64_t va;    /* page aligned */
	unsigned flags; /* enum fault_flag */
	unsigned user;  /* with FAULT_USERFAULT: UCOW_UFFD_FAULT_* */
	struct table *leaf;
	struct pte pte;               /* as classified; acted upon only if still so under the leaf's lock */
	struct ucow_page *waited_for; /* its lock was waited for and is held, with a reference; else NULL */
	struct ucow_page *to_lock;    /* with FAULT_LOCK_PAGE: which page, with a reference */
	struct ucow_page *brought;    /* read, from swap or its file, for this fault, with a reference; else NULL */
	uint64_t shape;               /* read before the walk */
	struct uffd_wait *wait;       /* NULL: who faults cannot wait for a userfaultfd */
	bool for_bytes;               /* with FAULT_LOCK_PAGE: until these have come or gone; not for a decision */
	bool is_private;              /* the path to the leaf */
};

static inline void fault_count(struct fault *fault, enum ucow_counter counter)
{
	count(&fault->mm->machine->counters, counter);
}

bool fault_relock(struct fault *fault);
/* fault_unlock_page - page_unlock, of a page that may be in the swap cache. */
void fault_unlock_page(struct fault *fault, struct ucow_page *page);

/* fault_swap - a swap entry. fault_bring - read its page, outside of any section. */
enum fault_result fault_swap(struct fault *fault);
enum fault_result fault_bring(struct fault *fault);
void fault_release_brought(struct fault *fault);

/* fault_ask_user - FAULT_USERFAULT: the userfaultfd has to resolve it. @reason: UCOW_UFFD_FAULT_*, but for WRITE. */
enum fault_result fault_ask_user(struct fault *fault, unsigned reason);

/*
 * file.c: nothing is mapped, and a cache is behind the mapping. fault_map_cached - map its page. fault_copy_cached -
 * map a copy: a store to a private mapping. Both may say FAULT_FILE_IN; fault_fetch - then read the page, outside of
 * any section. fault_dirty_cached - a page of a shared mapping is about to be stored to. Requires: the leaf's lock.
 */
enum fault_result fault_map_cached(struct fault *fault);
enum fault_result fault_copy_cached(struct fault *fault);
enum fault_result fault_fetch(struct fault *fault);
void fault_dirty_cached(struct fault *fault, struct ucow_page *page);

/* fault_release_waited - give up the page lock that was waited for, if any. */
static inline void fault_release_waited(struct fault *fault)
{
	if (!fault->waited_for)
		return;
	fault_unlock_page(fault, fault->waited_for);
	page_put(fault->waited_for);
	fault->waited_for = NULL;
}

/* fault_write_protect - a present entry of a private mapping that is not writable, and a write or unshare fault (B.3).
 */
enum fault_result fault_write_protect(struct fault *fault);

#endif
