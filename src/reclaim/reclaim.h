/* SPDX-License-Identifier: MIT */
/* Taking pages from the least recently used: to swap, or, where nobody would miss them, to nowhere. */
#ifndef RECLAIM_RECLAIM_H
#define RECLAIM_RECLAIM_H

#include "space/memcg.h"
#include "swap/swap.h"

/*
 * reclaim_shrink - @npages pages of the machine, or of @memcg and the groups below it, if they can be had; @exact: no
 * more, and writes are waited for. Requires: no lock, no section. Returns: how many came free, by whomever.
 */
uint64_t reclaim_shrink(struct ucow_machine *machine, struct ucow_memcg *memcg, uint64_t npages, bool exact);
/*
 * reclaim_pages - these, up to RECLAIM_PAGES, each with a reference, which goes, however recently they were used. What
 * is written is not waited for. Requires: as reclaim_shrink.
 */
void reclaim_pages(struct ucow_machine *machine, struct ucow_page *const *pages, unsigned n);
#define RECLAIM_PAGES 64
/* reclaim_lock_page - page_lock, for pages that may be in the swap cache. */
void reclaim_lock_page(struct ucow_machine *machine, struct ucow_page *page);
/* reclaim_wait - until everything that was submitted has been written. */
void reclaim_wait(struct ucow_machine *machine);
/* reclaim_written - struct swap's. */
void reclaim_written(void *machine, struct swap_write *write);
/*
 * reclaim_range - the pages of [start, end) that nobody else maps: to swap @now, or first when there is pressure.
 * Requires: as reclaim_shrink.
 */
void reclaim_range(struct ucow_mm *mm, uint64_t start, uint64_t end, bool now);

#endif
