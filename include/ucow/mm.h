/* SPDX-License-Identifier: MIT */
/*
 * Address spaces: creation, mappings, fork, exit. Calls are named after the system calls that they mirror; what those
 * return in errno, these return as -errno. Addresses and lengths are bytes; unless said, they must be page aligned
 * (lengths are rounded up), and a range is [va, va + length).
 */
#ifndef UCOW_MM_H
#define UCOW_MM_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UCOW_PROT_NONE  0u
#define UCOW_PROT_READ  1u
#define UCOW_PROT_WRITE 2u

#define UCOW_MAP_SHARED          0x01u /* stores are seen by every space that shares the mapping */
#define UCOW_MAP_PRIVATE         0x02u /* copy-on-write */
#define UCOW_MAP_FIXED           0x10u /* at exactly @hint; replaces what is there */
#define UCOW_MAP_FIXED_NOREPLACE 0x20u /* at exactly @hint; -EEXIST if something is there */
#define UCOW_MAP_POPULATE        0x40u /* fault everything in; failure to do so is not reported */
#define UCOW_MAP_PFN             0x80u /* for ucow_insert_pfn: holds memory that is not a page */

#define UCOW_MREMAP_MAYMOVE   1u
#define UCOW_MREMAP_FIXED     2u /* to exactly @new_va; replaces what is there */
#define UCOW_MREMAP_DONTUNMAP 4u /* the old range stays mapped, empty; needs MAYMOVE and equal lengths */

enum ucow_advice {
	UCOW_MADV_DONTFORK,   /* absent in children */
	UCOW_MADV_DOFORK,     /* undo */
	UCOW_MADV_WIPEONFORK, /* children read zeros; private anonymous only */
	UCOW_MADV_KEEPONFORK, /* undo */
	UCOW_MADV_DONTNEED,   /* drop the pages: private anonymous memory reads as zeros afterwards */
	UCOW_MADV_FREE,       /* contents may be dropped under pressure until the next store; private anonymous only */
	UCOW_MADV_POPULATE_READ,  /* fault in for reading; -EFAULT/-ENOMEM/-EINVAL as the system call */
	UCOW_MADV_POPULATE_WRITE, /* fault in for writing, breaking copy-on-write */
	UCOW_MADV_COLD,           /* first to go under pressure; pages that other spaces map are left alone */
	UCOW_MADV_PAGEOUT,        /* to swap now; pages that other spaces map are left alone */
	UCOW_MADV_MERGEABLE,      /* may be merged with equal pages; private mappings only (ucow/ksm.h) */
	UCOW_MADV_UNMERGEABLE,    /* undo, and give merged pages back their own copies */
	UCOW_MADV_COUNT
};

/**
 * ucow_mm_create - an empty address space.
 * Returns: 0; -ENOMEM. Thread: any.
 */
UCOW_API UCOW_NODISCARD int ucow_mm_create(struct ucow_machine *machine, struct ucow_mm **mm);

/**
 * ucow_mm_destroy - exit: drop every mapping and the space itself.
 *
 * Pages that are still held by gets and pins live on until released.
 * Returns: 0; -EBUSY while a cpu is attached, the space has a snapshot group, or (a snapshot) its group is dropping it:
 * nothing changed. Never fails for lack of memory.
 * Thread: any; no other call on @mm may be running.
 */
UCOW_API int ucow_mm_destroy(struct ucow_mm *mm);

/** ucow_mm_machine - the machine that @mm belongs to. Thread: any. */
UCOW_API struct ucow_machine *ucow_mm_machine(const struct ucow_mm *mm);

/**
 * ucow_fork - duplicate @parent copy-on-write.
 *
 * Pages pinned through @parent are copied for the child at once, so that the pin keeps seeing the parent's writes
 * [INV-PIN-1]; everything else becomes shared. DONTFORK ranges are absent, WIPEONFORK ranges read as zeros.
 * Source: docs/semantics.md B.4.
 *
 * Returns: 0; -ENOMEM: no child, the parent's contents and pins as they were.
 * Thread: any; takes @parent's mmap_lock exclusively.
 */
UCOW_API UCOW_NODISCARD int ucow_fork(struct ucow_mm *parent, struct ucow_mm **child);

/**
 * ucow_mmap - map @length bytes of fresh zeroed memory.
 *
 * @hint: with UCOW_MAP_FIXED or _FIXED_NOREPLACE the address; otherwise a wish, 0 for none.
 * @flags: exactly one of SHARED and PRIVATE, and any of the rest.
 * Returns: 0 and the address in @va; -EINVAL (length 0, flags, alignment); -ENOMEM (no room or no memory); -EEXIST;
 * -EAGAIN (mlockall: more than may be locked).
 * Thread: any; takes mmap_lock exclusively.
 */
UCOW_API UCOW_NODISCARD int ucow_mmap(struct ucow_mm *mm, uint64_t hint, uint64_t length, unsigned prot, unsigned flags,
				      uint64_t *va);

/** ucow_munmap - unmap a range; holes are fine. Returns: 0; -EINVAL; -ENOMEM (a mapping had to be split). */
UCOW_API UCOW_NODISCARD int ucow_munmap(struct ucow_mm *mm, uint64_t va, uint64_t length);

/**
 * ucow_mprotect - change the protection of a range that is mapped throughout.
 *
 * An entry that becomes permitted to write is made writable at once only if its page is private and exclusive
 * [semantics.md B.6]; otherwise the next store faults.
 * Returns: 0; -EINVAL; -ENOMEM (a hole, or no memory to split a mapping); -EACCES (writing to a shared mapping of a
 * file that was opened for reading). On a hole and on refusal, ranges before it have changed.
 */
UCOW_API UCOW_NODISCARD int ucow_mprotect(struct ucow_mm *mm, uint64_t va, uint64_t length, unsigned prot);

/**
 * ucow_mremap - move, grow or shrink a mapping. Pages, their exclusivity and their pins move along. With
 * UCOW_MREMAP_FIXED, the same length and without UCOW_MREMAP_DONTUNMAP the range may hold several mappings, with holes
 * between them or at its end, which stay holes and leave alone what lies where they would go (Linux since 6.17).
 *
 * @new_va: the address with UCOW_MREMAP_FIXED, a wish otherwise.
 * Returns: 0 and the address in @result; -EFAULT (not one mapping, or a hole at the start); -EINVAL; -ENOMEM;
 * -EAGAIN (locked memory would grow beyond the limit).
 */
UCOW_API UCOW_NODISCARD int ucow_mremap(struct ucow_mm *mm, uint64_t va, uint64_t old_length, uint64_t new_length,
					unsigned flags, uint64_t new_va, uint64_t *result);

/**
 * ucow_madvise - see enum ucow_advice.
 * Returns: 0; -EINVAL; -ENOMEM (a hole, the rest of the range was advised; or no memory, nothing or, when populating, a
 * part was done); -EFAULT (populate: nothing behind the mapping); -EDEADLK (populate: the page-lock callback gave up).
 */
UCOW_API UCOW_NODISCARD int ucow_madvise(struct ucow_mm *mm, uint64_t va, uint64_t length, enum ucow_advice advice);

/**
 * ucow_insert_pfn - let one page of a UCOW_MAP_PFN mapping show host memory that is not a page of the machine.
 *
 * GUP refuses such memory, fork copies the entry, and a store into a private mapping copies the bytes into a page.
 * @host: page-aligned; must stay valid while mapped anywhere. Read-write in shared mappings.
 * Returns: 0; -EINVAL (no UCOW_MAP_PFN mapping at @va, alignment); -EBUSY (something is there already); -ENOMEM.
 */
UCOW_API UCOW_NODISCARD int ucow_insert_pfn(struct ucow_mm *mm, uint64_t va, void *host);

/** What a space holds, in pages unless said. */
struct ucow_mm_stat {
	uint64_t mapped_pages; /* covered by mappings */
	uint64_t rss_anon;
	uint64_t rss_file; /* pages of shared mappings */
	uint64_t swap_entries;
	uint64_t table_bytes;         /* tables reachable from this space: the sum of the next two */
	uint64_t table_bytes_private; /* those that no other space reaches */
	uint64_t table_bytes_shared;  /* those that others reach too */
	/* Of rss_anon. What is neither was shared and is not any more: a store will find that out. */
	uint64_t frames_shared;    /* mapped by other spaces too */
	uint64_t frames_exclusive; /* this space's alone, by page and by path (docs/architecture.md) */
	uint64_t mappings;         /* number of mappings */
	uint64_t locked_pages;     /* covered by locked mappings */
	uint64_t
		pinned; /* pins taken through this space and not yet released; exact (docs/semantics.md, departure 7) */
	bool has_pinned; /* ever pinned (sticky) */
};
/**
 * ucow_mm_stat - fill @stat. Cost: all tables of @mm, and the pages in those that it does not share.
 * Thread: any; takes mmap_lock exclusively.
 */
UCOW_API void ucow_mm_stat(struct ucow_mm *mm, struct ucow_mm_stat *stat);

/** ucow_mm_set_pin_limit - most pins through @mm, in pages (0: none). Pins beyond fail with -ENOMEM. Thread: any. */
UCOW_API void ucow_mm_set_pin_limit(struct ucow_mm *mm, uint64_t pages);

/* ---- locked memory ---- */

#define UCOW_MLOCK_ONFAULT 1u /* pages stay from when they come; none is fetched for it */

#define UCOW_MCL_CURRENT 1u
#define UCOW_MCL_FUTURE  2u /* mappings made from now on, too, and fetched when they are made */
#define UCOW_MCL_ONFAULT 4u /* with one of the others */

/**
 * ucow_mlock - the pages of a range stay in memory: reclaim and same-page merging leave them alone.
 *
 * They are fetched, for writing where private memory permits it. What copy-on-write, migration of contents by fork or
 * dropping do to them is unchanged. A child does not inherit it. madvise DONTNEED, FREE, COLD and PAGEOUT refuse such
 * ranges.
 * @flags: 0 or UCOW_MLOCK_ONFAULT.
 * Returns: 0; -EINVAL; -ENOMEM (a hole, more than the limit: nothing changed; no memory to split a mapping; or a
 * mapping without any permission: it is locked nevertheless); -EPERM (the limit is 0); -EAGAIN (not all could be
 * fetched; what is there stays); -EACCES (a snapshot). Source: mlock(2).
 */
UCOW_API UCOW_NODISCARD int ucow_mlock(struct ucow_mm *mm, uint64_t va, uint64_t length, unsigned flags);
/** ucow_munlock - undo. Returns: 0; -EINVAL; -ENOMEM (a hole; what comes before it is unlocked; or no memory). */
UCOW_API UCOW_NODISCARD int ucow_munlock(struct ucow_mm *mm, uint64_t va, uint64_t length);
/**
 * ucow_mlockall - lock all mappings (UCOW_MCL_CURRENT), or those to come. Not being able to fetch all is no error.
 * With FUTURE, ucow_mmap fails with -EAGAIN where the limit is exceeded.
 * Returns: 0; -EINVAL (flags); -EPERM; -ENOMEM (more than the limit; or no memory: nothing changed); -EACCES.
 */
UCOW_API UCOW_NODISCARD int ucow_mlockall(struct ucow_mm *mm, unsigned flags);
/** ucow_munlockall - unlock all mappings, and those to come. Returns: 0; -ENOMEM: nothing changed. */
UCOW_API UCOW_NODISCARD int ucow_munlockall(struct ucow_mm *mm);
/** ucow_mm_set_lock_limit - most pages that may be locked (RLIMIT_MEMLOCK); no limit unless set. Thread: any. */
UCOW_API void ucow_mm_set_lock_limit(struct ucow_mm *mm, uint64_t pages);

#ifdef __cplusplus
}
#endif
#endif
