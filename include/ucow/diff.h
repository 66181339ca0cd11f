/* SPDX-License-Identifier: MIT */
/*
 * What changed: the pages in which two spaces differ. Spaces that descend from one fork (or a space and its snapshots)
 * share the tables that neither has touched, and those are not looked into: the cost goes with the difference.
 */
#ifndef UCOW_DIFF_H
#define UCOW_DIFF_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * How a page differs. In these words: a page of a space is *there* if memory of its own is behind it: an anonymous
 * page, a page of a shared mapping that somebody has touched in any space, or memory inserted by ucow_insert_pfn. It is
 * *empty* if a mapping covers it and nothing is there; but for UCOW_MAP_PFN mappings it then reads as zeros, whether or
 * not the zero page has been faulted in.
 */
enum ucow_diff_kind {
	UCOW_DIFF_ONLY_A,    /* there in a, and no mapping of b covers it */
	UCOW_DIFF_ONLY_B,    /* there in b, and no mapping of a covers it */
	UCOW_DIFF_DIFFERENT, /* mapped in both: there in both with different frames, or there in one and empty in the
				other */
};

/**
 * ucow_diff - call @visit for every page in which @a and @b differ, in address order.
 *
 * No difference are: the same frame at the same address; pages that are empty in both; pages that are empty in one and
 * not mapped in the other; different protections or advice; pages of one shared mapping, at one place of it, however
 * many of them either space has faulted in. Frames are compared, not bytes: what is not visited reads the same through
 * both (where both map it), what is visited may do so too, for instance after a store of what was there.
 *
 * Cost: the mappings, the tables that are not one table at one place in both, and the pages of shared mappings that are
 * not the same mapping in both.
 *
 * @visit: gets the page's address and kind, and returns 0 to go on; anything else ends the visits and is returned. Both
 * spaces are locked meanwhile: it must not call ucow on them, nor on any other space.
 * Returns: 0; what @visit returned; -EINVAL (spaces of two machines). @a may be @b: no difference.
 * Thread: any. Faults and operations on both spaces wait meanwhile; loads and stores that need no fault do not.
 */
UCOW_API UCOW_NODISCARD int ucow_diff(struct ucow_mm *a, struct ucow_mm *b,
				      int (*visit)(void *arg, uint64_t va, enum ucow_diff_kind kind), void *arg);

#ifdef __cplusplus
}
#endif
#endif
