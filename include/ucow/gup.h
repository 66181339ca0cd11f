/* SPDX-License-Identifier: MIT */
/*
 * get_user_pages and friends: references to the pages behind a range, for devices.
 *
 * A *get* is a plain reference (FOLL_GET): it keeps the page alive, no more. A *pin* (FOLL_PIN) also keeps the space
 * and the device coherent: the page that was pinned stays the page that the space maps, through fork, write-protection
 * and write faults [INV-PIN-1]. Whoever reads or writes the bytes must pin; a get suffices only for looking at the page
 * itself.
 *
 * The plain forms act on the space that @cpu is attached to, _fast likewise without the slow path's locks where it can,
 * and _remote on any space. Source: docs/semantics.md B.5.
 *
 * Returns of all six: the number of pages taken, which may be less than asked for; -EFAULT (nothing there, or not
 * permitted); -EACCES (for writing, from a snapshot); -ENOMEM (memory, a count near overflow, the pin limit, or that of
 * the space's snapshots); -EDEADLK (the page-lock callback gave up); -EINVAL (flags; no space attached; npages == 0).
 * An error is returned only when no page was taken.
 */
#ifndef UCOW_GUP_H
#define UCOW_GUP_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UCOW_FOLL_WRITE            0x0001u /* the device will write */
#define UCOW_FOLL_FORCE            0x0002u /* like ptrace: ignore missing permission where copy-on-write makes it safe */
#define UCOW_FOLL_LONGTERM         0x0004u /* held for long; pins only */
#define UCOW_FOLL_NOFAULT          0x0008u /* -EFAULT instead of faulting */
#define UCOW_FOLL_ANON             0x0010u /* private anonymous mappings only */
#define UCOW_FOLL_HONOR_NUMA_FAULT 0x0020u /* treat an entry armed for NUMA hinting as not present */
#define UCOW_FOLL_FAST_ONLY        0x0040u /* fast forms only: take what needs no lock, maybe 0 pages */

/** One pin adds this much to a page's reference count. */
#define UCOW_GUP_PIN_COUNTING_BIAS 1024u

UCOW_API UCOW_NODISCARD long ucow_get_user_pages(struct ucow_cpu *cpu, uint64_t va, size_t npages, unsigned flags,
						 struct ucow_page **pages);
UCOW_API UCOW_NODISCARD long ucow_get_user_pages_fast(struct ucow_cpu *cpu, uint64_t va, size_t npages, unsigned flags,
						      struct ucow_page **pages);
UCOW_API UCOW_NODISCARD long ucow_get_user_pages_remote(struct ucow_mm *mm, uint64_t va, size_t npages, unsigned flags,
							struct ucow_page **pages);
UCOW_API UCOW_NODISCARD long ucow_pin_user_pages(struct ucow_cpu *cpu, uint64_t va, size_t npages, unsigned flags,
						 struct ucow_page **pages);
UCOW_API UCOW_NODISCARD long ucow_pin_user_pages_fast(struct ucow_cpu *cpu, uint64_t va, size_t npages, unsigned flags,
						      struct ucow_page **pages);
UCOW_API UCOW_NODISCARD long ucow_pin_user_pages_remote(struct ucow_mm *mm, uint64_t va, size_t npages, unsigned flags,
							struct ucow_page **pages);

/**
 * ucow_access_remote - copy @nbytes between @buffer and @va of any space, as a debugger does (/proc/PID/mem, ptrace).
 *
 * @flags: UCOW_FOLL_WRITE (into the space; else out of it), UCOW_FOLL_FORCE. Each page is copied with the space's
 * mappings held still: no fork, unmapping or protection comes between finding the page and the bytes.
 * Returns: 0; an error as above, *done (may be NULL) bytes having been copied before it.
 * Thread: any.
 */
UCOW_API UCOW_NODISCARD int ucow_access_remote(struct ucow_mm *mm, uint64_t va, void *buffer, size_t nbytes,
					       unsigned flags, size_t *done);

/** ucow_unpin_user_pages - release pins. Thread: any; the space may be gone. */
UCOW_API void ucow_unpin_user_pages(struct ucow_page *const *pages, size_t npages);
/**
 * ucow_unpin_user_pages_remote - release pins that were taken through @mm.
 * The plain form settles a page that several spaces have pinned (a shared mapping) with the one that pinned it first;
 * this one with @mm, so that every space's count stays exact. Requires: @mm has pinned each of @pages. Thread: any.
 */
UCOW_API void ucow_unpin_user_pages_remote(struct ucow_mm *mm, struct ucow_page *const *pages, size_t npages);
/** ucow_unpin_user_pages_dirty_lock - mark the pages dirty if @make_dirty, then release the pins. Thread: any. */
UCOW_API void ucow_unpin_user_pages_dirty_lock(struct ucow_page *const *pages, size_t npages, bool make_dirty);
/** ucow_put_pages - release gets. Thread: any; the space may be gone. */
UCOW_API void ucow_put_pages(struct ucow_page *const *pages, size_t npages);

/**
 * ucow_page_address - the page's bytes: what a device reads and writes.
 * Stable while the caller holds a get or a pin. Thread: any.
 */
UCOW_API void *ucow_page_address(const struct ucow_page *page);

/**
 * ucow_page_maybe_dma_pinned - whether the page may be pinned.
 * Never false for a pinned page; true also for a page with 1,024 or more other references. Thread: any.
 */
UCOW_API bool ucow_page_maybe_dma_pinned(const struct ucow_page *page);

/** ucow_page_trylock - take the page's lock, as a scanner does. Returns: whether it was taken. Thread: any. */
UCOW_API UCOW_NODISCARD bool ucow_page_trylock(struct ucow_page *page);
/** ucow_page_unlock - release the page's lock. Thread: any. */
UCOW_API void ucow_page_unlock(struct ucow_page *page);

#ifdef __cplusplus
}
#endif
#endif
