/* SPDX-License-Identifier: MIT */
/* One fault on its way through fault.c and cow.c. */
#ifndef FAULT_FAULT_INTERNAL_H
#define FAULT_FAULT_INTERNAL_H

#include "fault/fault.h"

struct fault {
	struct ucow_mm *mm;
	struct vma *vma;
	uint64_t va;    /* page aligned */
	unsigned flags; /* enum fault_flag */
	struct table *leaf;
	struct pte pte;               /* as classified; acted upon only if still so under the leaf's lock */
	struct ucow_page *waited_for; /* its lock was waited for and is held, with a reference; else NULL */
	struct ucow_page *to_lock;    /* with FAULT_LOCK_PAGE: which page, with a reference */
};

static inline void fault_count(struct fault *fault, enum ucow_counter counter)
{
	count(&fault->mm->machine->counters, counter);
}

bool fault_relock(struct fault *fault);

/* fault_release_waited - give up the page lock that was waited for, if any. */
static inline void fault_release_waited(struct fault *fault)
{
	if (!fault->waited_for)
		return;
	page_unlock(fault->waited_for);
	page_put(fault->waited_for);
	fault->waited_for = NULL;
}

/* fault_write_protect - a present entry of a private mapping that is not writable, and a write or unshare fault (B.3).
 */
enum fault_result fault_write_protect(struct fault *fault);

#endif
