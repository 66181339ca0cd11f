/* SPDX-License-Identifier: MIT */
/*
 * Decisions. A policy is a struct of pure functions: facts in, an action out; no memory, no locks, no tables. The
 * tables of semantics.md B.3 to B.6 are tests of these functions (tests/unit/test_policy.c). [rule 20]
 *
 * An action may ask for more: NEED_LOCK, DRAIN, DROP_SWAPCACHE. The caller does that, updates the facts and asks again;
 * the facts say what was done, so a decision never asks for the same thing twice.
 */
#ifndef FAULT_POLICY_H
#define FAULT_POLICY_H

#include <ucow/machine.h>

/* Whether the page lock is held for this decision. */
enum lock_state {
	LOCK_NOT_TRIED,
	LOCK_HELD,
	LOCK_REFUSED, /* trylock failed: somebody else holds it */
};

/* How NEED_LOCK is to be served. */
enum lock_mode {
	LOCK_MODE_TRY, /* never wait [rule 19] */
	LOCK_MODE_BLOCK,
};

/* ---- write-protect faults (B.3) ---- */

/* A present entry that is not writable, in a private mapping. */
struct cow_facts {
	bool unshare;   /* an unshare fault; else a write fault */
	bool no_page;   /* the zero page, or memory that is not a page */
	bool anon;      /* else a file page */
	bool exclusive; /* the page's flag */
	bool ksm;
	bool swapcache;
	bool writeback;  /* under writeback on a device that needs stable pages */
	bool on_lru;     /* false: a per-cpu batch may hold one more reference */
	bool drained;    /* that batch was drained for this decision */
	bool drop_tried; /* DROP_SWAPCACHE was tried for this decision */
	enum lock_state lock;
	uint32_t refcount; /* without references that the caller took for this decision */
	uint32_t mapcount;
	uint32_t swapcount; /* other references to the swap slot, if in the swap cache */
	bool maybe_pinned;
};

enum cow_action {
	COW_NOTHING,        /* unshare: the page is exclusive already */
	COW_REUSE,          /* make the entry writable in place */
	COW_REUSE_SET,      /* set the exclusive flag, then reuse */
	COW_UNSHARE_SET,    /* set the exclusive flag; the entry stays read-only */
	COW_COPY,           /* a new page */
	COW_NEED_LOCK,      /* take the page lock as the policy's lock mode says, ask again */
	COW_DRAIN,          /* drain this cpu's LRU batch, ask again */
	COW_DROP_SWAPCACHE, /* try to free the swap slot, ask again */
};

/* Why a copy was made: the counter that it belongs to. */
enum cow_cause { CAUSE_SHARED, CAUSE_REFERENCED, CAUSE_LOCKED, CAUSE_ZERO_PAGE, CAUSE_KSM, CAUSE_FILE };

/* cow_copy_cause - for facts that were answered with COW_COPY. */
enum cow_cause cow_copy_cause(const struct cow_facts *facts);

/* ---- fork, one present anon entry (B.4) ---- */

struct fork_facts {
	bool has_pinned;   /* the space ever pinned */
	bool maybe_pinned; /* the page */
	bool exclusive;
	bool cow_mapping;
};

enum fork_action {
	FORK_SHARE,
	FORK_COPY, /* the child gets its own copy now; the parent's entry and page stay untouched */
	FORK_SKIP, /* the child gets nothing (a proposal) */
};

/* ---- get_user_pages, one present entry (B.5) ---- */

struct gup_facts {
	bool write, force, pin, longterm;
	bool entry_writable;
	bool entry_dirty;
	bool vma_writable;
	bool cow_mapping;
	bool anon; /* an anon page */
	bool exclusive;
	bool faulted;           /* a write fault for this address has completed in this call */
	bool soft_dirty_needed; /* writes are tracked, and this entry's were not seen yet */
};

enum gup_action {
	GUP_TAKE,          /* take the page as it is */
	GUP_FAULT_WRITE,   /* fault for writing, look again */
	GUP_FAULT_UNSHARE, /* unshare fault, look again */
};

/* ---- swap-in (B.6); the caller comes with swap ---- */

struct swapin_facts {
	bool write;
	bool ksm;
	bool entry_exclusive;  /* the swap entry's bit */
	bool exposed;          /* the page came through the swap cache */
	bool stable_writeback; /* under writeback on a device that needs stable pages */
	uint32_t refcount, mapcount, swapcount;
	bool vma_writable;
};

enum swapin_action {
	SWAPIN_READ_ONLY, /* shared: a write continues as a write-protect fault */
	SWAPIN_EXCLUSIVE, /* set the flag; writable if the mapping is */
	SWAPIN_WRITABLE,  /* older rules: writable for this write fault */
};

struct upgrade_facts {
	bool vma_writable;
	bool shared_mapping;
	bool protnone;
	bool uffd_wp;
	bool soft_dirty_needed;
	bool anon;
	bool exclusive;
	bool dirty;
};

struct cow_policy {
	enum ucow_policy id;
	const char *name;
	enum lock_mode lock_mode;
	bool uses_exclusive;      /* the flag means something under this policy */
	bool numa_keeps_write;    /* NUMA hinting keeps the write permission (to 6.1); else the hinting fault decides */
	bool protects_sequence;   /* fork holds write_protect_seq odd (since 5.11) */
	bool clear_spares_pinned; /* clearing soft-dirty leaves pages alone that may be pinned (B.7) */
	enum cow_action (*write_protect)(const struct cow_facts *facts);
	enum fork_action (*fork_entry)(const struct fork_facts *facts);
	enum gup_action (*gup)(const struct gup_facts *facts);
	enum swapin_action (*swap_in)(const struct swapin_facts *facts);
	/* Whether an entry may become writable without a fault (mprotect, NUMA fault, uffd unprotect). */
	bool (*may_upgrade)(const struct upgrade_facts *facts);
	/* Whether unmapping for swap-out, migration or merging may take the flag away (try_share, B.1). */
	bool (*may_unmap)(bool exclusive, bool maybe_pinned);
};

/* cow_policy_of - never NULL for a valid policy. */
const struct cow_policy *cow_policy_of(enum ucow_policy policy);

#endif
