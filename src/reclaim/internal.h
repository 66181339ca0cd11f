/* SPDX-License-Identifier: MIT */
/* What the files of reclaim/ share. */
#ifndef RECLAIM_INTERNAL_H
#define RECLAIM_INTERNAL_H

#include "reclaim/reclaim.h"
#include "rmap/rmap.h"

#define SHRINK_BATCH     (exploring ? 4 : 64)
#define SHRINK_BATCH_MAX RECLAIM_PAGES

/* Pages on their way out. */
struct shrink {
	struct ucow_machine *machine;
	struct swap *swap; /* NULL: none; only what needs no slot can go */
	bool force;        /* however recently they were used */
	unsigned n;
	struct ucow_page *pages[SHRINK_BATCH_MAX]; /* isolated; once judged: locked */
	bool drop[SHRINK_BATCH_MAX];               /* lazily freed */
};

/* shrink_batch - as many of the isolated pages as can go; the rest go back to their lists. */
void shrink_batch(struct shrink *shrink);

/* shrink_files - the same for those of the pages that are files': they leave the batch. */
void shrink_files(struct shrink *shrink);

/* writeback_submit - write locked pages of the swap cache that nobody maps. */
void writeback_submit(struct shrink *shrink, struct ucow_page *const *pages, unsigned n);
/* writeback_reap - complete writes; with @wait at least one, if any is in flight. @swap may be NULL. Returns: how many.
 */
unsigned writeback_reap(struct swap *swap, bool wait);
unsigned writeback_in_flight(struct swap *swap);
/* writeback_wait - until nothing is in flight. */
void writeback_wait(struct swap *swap);

#endif
