/* SPDX-License-Identifier: MIT */
/*
 * What a space has in memory and what has been written to: pagemap, soft-dirty, the scan call, and the flags and counts
 * of frames. Bits and names are Linux's (docs/semantics.md B.7, D.1); ucow_pagemap(3) tells more.
 */
#ifndef UCOW_PAGEMAP_H
#define UCOW_PAGEMAP_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- soft-dirty ---- */

/**
 * ucow_clear_soft_dirty - from now on tell which pages are written to (clear_refs, 4).
 *
 * Every page of the space reports clean afterwards, until the next store, forced write, write pin, or copy that the
 * space makes of it. Of private memory, pages that may be pinned and may be written to go on reporting dirty, since
 * what a device writes is not seen. Mappings made later report dirty as a whole until the next clear, and so does
 * whatever they merge with; mremap marks what it moves. A child of a fork inherits what its parent reports.
 *
 * Returns: 0; -ENOMEM (tables shared with other spaces had to be copied: nothing has changed); -EACCES (a snapshot).
 * Thread: any; takes mmap_lock exclusively. When it returns, every store that it did not see yet will be reported.
 */
UCOW_API UCOW_NODISCARD int ucow_clear_soft_dirty(struct ucow_mm *mm);

/* ---- one word a page ---- */

/** What ucow_pagemap tells of a page. The low bits: its frame number, or of a swapped page device and slot. */
#define UCOW_PM_FRAME_MASK  (((uint64_t)1 << 55) - 1)
#define UCOW_PM_SWAP_DEVICE ((uint64_t)31)      /* of a swapped page: the device; the slot begins at bit 5 */
#define UCOW_PM_SOFT_DIRTY  ((uint64_t)1 << 55) /* written to since the last clear, as far as is known */
#define UCOW_PM_EXCLUSIVE   ((uint64_t)1 << 56) /* mapped once; not the exclusive flag of copy-on-write */
#define UCOW_PM_UFFD_WP     ((uint64_t)1 << 57) /* write-protected for userfaultfd */
#define UCOW_PM_FILE        ((uint64_t)1 << 61) /* a page of a file or of shared memory */
#define UCOW_PM_SWAP        ((uint64_t)1 << 62) /* in a swap slot, or a marker of userfaultfd */
#define UCOW_PM_PRESENT     ((uint64_t)1 << 63)

/**
 * ucow_pagemap - one word for each of @npages pages from @va on, into @words; where nothing is mapped it is 0.
 * UCOW_PM_EXCLUSIVE goes by what has been counted: pages on a path that others share are not, and in fork mode lazy a
 * page counts once for each leaf that maps it.
 * Returns: 0; -EINVAL (alignment, beyond the last address). Thread: any; takes mmap_lock exclusively.
 */
UCOW_API UCOW_NODISCARD int ucow_pagemap(struct ucow_mm *mm, uint64_t va, uint64_t npages, uint64_t *words);

/* ---- scanning (PAGEMAP_SCAN) ---- */

/** Categories of pages. */
#define UCOW_PAGE_IS_WPALLOWED  ((uint64_t)1 << 0) /* of a mapping that is write-protected asynchronously (uffd) */
#define UCOW_PAGE_IS_WRITTEN    ((uint64_t)1 << 1) /* not write-protected for userfaultfd */
#define UCOW_PAGE_IS_FILE       ((uint64_t)1 << 2)
#define UCOW_PAGE_IS_PRESENT    ((uint64_t)1 << 3)
#define UCOW_PAGE_IS_SWAPPED    ((uint64_t)1 << 4) /* swapped, or a marker of userfaultfd */
#define UCOW_PAGE_IS_PFNZERO    ((uint64_t)1 << 5) /* the shared zero page */
#define UCOW_PAGE_IS_HUGE       ((uint64_t)1 << 6)
#define UCOW_PAGE_IS_SOFT_DIRTY ((uint64_t)1 << 7)
#define UCOW_PAGE_IS_GUARD      ((uint64_t)1 << 8) /* never: there are no guard regions */
#define UCOW_PAGE_IS_ALL        ((uint64_t)0x1ff)

/** Write-protect every page that matches, in the same step in which it is reported; other mappings are left out. */
#define UCOW_PM_SCAN_WP_MATCHING ((uint64_t)1 << 0)
/** -EPERM if a mapping of the range is not one that is write-protected asynchronously. */
#define UCOW_PM_SCAN_CHECK_WPASYNC ((uint64_t)1 << 1)

/** Neighbouring pages with the same categories, as far as return_mask asks for them. */
struct ucow_page_region {
	uint64_t start, end;
	uint64_t categories;
};

struct ucow_pm_scan {
	size_t size;                  /* sizeof(struct ucow_pm_scan) */
	uint64_t flags;               /* UCOW_PM_SCAN_* */
	uint64_t start, end;          /* start page aligned; end is rounded up */
	uint64_t walk_end;            /* out: where the scan has come to; end, unless there was no more room */
	struct ucow_page_region *vec; /* out; NULL: nothing is reported (to write-protect only) */
	uint64_t vec_len;             /* regions that have room there; 0 as NULL */
	uint64_t max_pages;           /* most pages to report; 0: no limit */
	uint64_t category_inverted;   /* categories whose value is inverted before the next two look */
	uint64_t category_mask;       /* a page matches if all of these hold */
	uint64_t category_anyof_mask; /* and, unless 0, one of these */
	uint64_t return_mask;         /* what is reported of a page that matches */
};

/**
 * ucow_pagemap_scan - find the pages of a range that match.
 *
 * WRITTEN is told of pages that are not write-protected for userfaultfd; where a mapping is so protected
 * asynchronously, also of pages with nothing there yet, or no more. Thus a scan with WP_MATCHING for WRITTEN reports
 * what has been stored to, thrown away or brought anew since the last one, and misses nothing that happens afterwards:
 * when the call returns, no store goes unnoticed by the next.
 *
 * Cost: a line of memory for each 128 KiB that is mapped, and what is found.
 * Returns: the number of regions; -EINVAL (size, unknown flag or category, alignment, end before start, beyond the last
 * address, no vec but a length); -EPERM (CHECK_WPASYNC);
 * -ENOMEM (nothing was reported; if something was, the call ends early instead, as for lack of room); -EACCES
 * (WP_MATCHING in a snapshot). Thread: any; takes mmap_lock exclusively.
 */
UCOW_API UCOW_NODISCARD long ucow_pagemap_scan(struct ucow_mm *mm, struct ucow_pm_scan *scan);

/* ---- frames, for debugging ---- */

/** Flags of a frame, as in /proc/kpageflags. */
#define UCOW_KPF_LOCKED         ((uint64_t)1 << 0)
#define UCOW_KPF_REFERENCED     ((uint64_t)1 << 2)
#define UCOW_KPF_UPTODATE       ((uint64_t)1 << 3)
#define UCOW_KPF_DIRTY          ((uint64_t)1 << 4)
#define UCOW_KPF_LRU            ((uint64_t)1 << 5)
#define UCOW_KPF_ACTIVE         ((uint64_t)1 << 6)
#define UCOW_KPF_WRITEBACK      ((uint64_t)1 << 8)
#define UCOW_KPF_BUDDY          ((uint64_t)1 << 10) /* free */
#define UCOW_KPF_MMAP           ((uint64_t)1 << 11) /* some entry maps it */
#define UCOW_KPF_ANON           ((uint64_t)1 << 12)
#define UCOW_KPF_SWAPCACHE      ((uint64_t)1 << 13)
#define UCOW_KPF_SWAPBACKED     ((uint64_t)1 << 14)
#define UCOW_KPF_NOPAGE         ((uint64_t)1 << 20) /* there is no such frame */
#define UCOW_KPF_KSM            ((uint64_t)1 << 21)
#define UCOW_KPF_ZERO_PAGE      ((uint64_t)1 << 24)
#define UCOW_KPF_MAPPEDTODISK   ((uint64_t)1 << 34) /* of an anonymous page: its exclusive flag */
#define UCOW_KPF_ANON_EXCLUSIVE UCOW_KPF_MAPPEDTODISK

/**
 * ucow_page_flags, ucow_page_count - what a frame is, and how many entries map it (shared tables count once), by frame
 * number. For looking at frames that others use: it may have changed when the call returns.
 * Of a number without a frame UCOW_KPF_NOPAGE and 0. Thread: any.
 */
UCOW_API uint64_t ucow_page_flags(struct ucow_machine *machine, uint64_t pfn);
UCOW_API uint64_t ucow_page_count(struct ucow_machine *machine, uint64_t pfn);

#ifdef __cplusplus
}
#endif
#endif
