/* SPDX-License-Identifier: MIT */
/*
 * Observation and torture: what an entry looks like, whole-machine invariant checks, failure injection. For tests and
 * for people who look inside; nothing here is needed to use the library.
 */
#ifndef UCOW_DEBUG_H
#define UCOW_DEBUG_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One page of a space as pagemap, kpageflags and kpagecount would show it. */
struct ucow_entry_info {
	uint64_t pfn;      /* frame number; meaningful if present and not special */
	uint32_t mapcount; /* entries that map the page (logical: paths) */
	uint32_t refcount; /* all references, pins at 1,024 each */
	unsigned prot;     /* of the mapping, UCOW_PROT_* */
	bool mapped;       /* a mapping covers the address */
	bool present;      /* the entry maps something */
	bool writable;     /* a store would not fault */
	bool dirty;
	bool accessed;
	bool soft_dirty;
	bool uffd_wp;
	bool swapped;
	bool zero_page;
	bool special;  /* memory that is not a page, or the zero page */
	bool protnone; /* armed for NUMA hinting */
	bool anon;
	bool exclusive;
	bool ksm;
	bool huge;
	bool maybe_pinned;
};

/** ucow_query - look at the page at @va without touching it. Thread: any; takes mmap_lock shared. */
UCOW_API void ucow_query(struct ucow_mm *mm, uint64_t va, struct ucow_entry_info *info);

/**
 * ucow_lookup_page - a plain reference to the page that @va maps now, as a scanner finds it: no fault, whatever the
 * policy. Release it with ucow_put_pages. Returns: 0; -ENOENT (no page there); -ENOMEM (count near overflow). Thread:
 * any; takes mmap_lock shared.
 */
UCOW_API UCOW_NODISCARD int ucow_lookup_page(struct ucow_mm *mm, uint64_t va, struct ucow_page **page);

/**
 * ucow_walk_tables - call @visit for every table of @mm, parents first, in address order.
 * @visit returns 0 to go on; anything else ends the walk and is returned. It must not call ucow on @mm.
 */
struct ucow_table_info {
	unsigned level;            /* 0: leaf ... 5: root */
	uint64_t start, end;       /* the range that the table spans */
	unsigned entries;          /* its fan-out */
	unsigned used;             /* entries that are not empty */
	unsigned refcount;         /* parent slots and roots that point to it */
	unsigned anon, file, swap; /* leaf totals */
	bool may_hold_refs;
};
UCOW_API int ucow_walk_tables(struct ucow_mm *mm, int (*visit)(void *arg, const struct ucow_table_info *table),
			      void *arg);

/**
 * ucow_numa_hint - arm the present entries of a range for NUMA hinting, as the balancer does: the next access faults.
 * Entries that the rules exempt (semantics.md B.6) are left alone. Returns: 0; -EINVAL; -ENOMEM (a hole).
 */
UCOW_API UCOW_NODISCARD int ucow_numa_hint(struct ucow_mm *mm, uint64_t va, uint64_t length);

/** What ucow_machine_inject can make fail. */
#define UCOW_INJECT_FRAME 1u
#define UCOW_INJECT_TABLE 2u
#define UCOW_INJECT_OTHER 4u  /* mappings, spaces, objects */
#define UCOW_INJECT_READ  8u  /* reads of swap and of files: they fail with -EIO */
#define UCOW_INJECT_WRITE 16u /* writes to swap and to files */
#define UCOW_INJECT_ALL   7u  /* memory */

/**
 * ucow_machine_inject - make the @nth (1 = next) allocation of the given kinds fail with -ENOMEM, once. 0 disarms.
 * Returns: whether the previous order was still armed, i.e. had not fired. Thread: any.
 */
UCOW_API bool ucow_machine_inject(struct ucow_machine *machine, unsigned kinds, uint64_t nth);

/**
 * ucow_machine_check - run every invariant checker (docs/invariants.md) over the whole machine.
 *
 * Gets and pins are recounted against what is outstanding.
 * Returns: 0; -EUCLEAN with the invariant's id and what was seen in @why (always terminated). Cost: all tables and
 * frames. Thread: any; no other call on @machine may be running.
 */
UCOW_API UCOW_NODISCARD int ucow_machine_check(struct ucow_machine *machine, char *why, size_t nbytes);

#ifdef __cplusplus
}
#endif
#endif
