/* SPDX-License-Identifier: MIT */
/*
 * Same-page merging: equal pages of ranges advised UCOW_MADV_MERGEABLE become one page, read-only, from which every
 * store copies (docs/semantics.md B.6). Pinned pages are never merged, merged pages never reused in place. ucow_ksm(3)
 * tells more.
 */
#ifndef UCOW_KSM_H
#define UCOW_KSM_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ucow_ksm_options {
	size_t size;               /* sizeof(struct ucow_ksm_options) */
	bool use_zero_pages;       /* pages of zeros become the shared zero page */
	uint32_t max_page_sharing; /* most entries that one merged page stands for, at least 2; 0: 256 */
	uint32_t pages_to_scan;    /* by the thread, between two pauses; 0: 100 */
	uint32_t sleep_us;         /* the pause; 0: none */
};

/** ucow_ksm_configure - Returns: 0; -EINVAL; -EOPNOTSUPP (built without xxhash). Thread: any. */
UCOW_API UCOW_NODISCARD int ucow_ksm_configure(struct ucow_machine *machine, const struct ucow_ksm_options *options);

/**
 * ucow_ksm_scan - look at the next @npages pages, at all of them once at most, in the caller's thread. *merged (may be
 * NULL) grows by what was merged. Returns: 0; -ENOMEM (a part was done); -EOPNOTSUPP. Thread: any, one at a time
 * (others wait).
 */
UCOW_API UCOW_NODISCARD int ucow_ksm_scan(struct ucow_machine *machine, uint64_t npages, uint64_t *merged);

/** ucow_ksm_merge - full scans until one merges nothing more and has seen every page twice. Returns: as ucow_ksm_scan.
 */
UCOW_API UCOW_NODISCARD int ucow_ksm_merge(struct ucow_machine *machine, uint64_t *merged);

/** ucow_ksm_start / ucow_ksm_stop - a thread that scans. Returns: 0; -EBUSY (it runs); -EAGAIN, -ENOMEM (no thread). */
UCOW_API UCOW_NODISCARD int ucow_ksm_start(struct ucow_machine *machine);
UCOW_API void ucow_ksm_stop(struct ucow_machine *machine);

/**
 * ucow_ksm_unmerge - give every merged page's entries pages of their own again, but for those of snapshots.
 * Returns: 0; -ENOMEM, -EDEADLK, -ENXIO (a merged page was on a swap device and cannot be read): a part was done;
 * -EOPNOTSUPP. Thread: any.
 */
UCOW_API UCOW_NODISCARD int ucow_ksm_unmerge(struct ucow_machine *machine);

struct ucow_ksm_stat {
	uint64_t pages_shared;   /* merged pages */
	uint64_t pages_sharing;  /* entries that map them, beyond the first each: what is saved */
	uint64_t pages_unshared; /* scanned, stable, and alone with their contents */
	uint64_t pages_volatile; /* changed between two scans */
	uint64_t zero_pages;     /* entries that map the zero page because of the scanner */
	uint64_t pages_scanned;  /* ever */
	uint64_t full_scans;     /* ever */
	uint64_t merged;         /* ever; each after a comparison of all bytes */
	uint64_t stale_nodes;    /* dropped from the stable tree, their page having gone */
};
UCOW_API void ucow_ksm_stat(struct ucow_machine *machine, struct ucow_ksm_stat *stat);

#ifdef __cplusplus
}
#endif
#endif
