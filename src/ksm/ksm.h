/* SPDX-License-Identifier: MIT */
/*
 * Same-page merging inside: what is remembered of pages between scans, the tables in which equal ones are looked for,
 * and the scanner. Both tables are keyed by a hash of the page's bytes; before pages are merged all bytes are compared.
 *
 * The stable table lists merged pages. It holds no reference to them: a page whose last mapping goes is freed, and its
 * node is dropped when somebody comes across it, unless the page has gone to swap. The unstable table lists pages that
 * may still be written, by address; it is made anew in every full scan.
 *
 * (S) the scanner's lock (N) to write: the scanner's lock and the nodes' lock; either to read (L) the machine's lock
 * (A) atomic (C) fixed after creation
 */
#ifndef KSM_KSM_H
#define KSM_KSM_H

#include "base/slab.h"
#include "rmap/rmap.h"
#include "space/mm.h"

#include <ucow/ksm.h>

/* A family and a home of one merged page. */
struct ksm_home {
	struct family *family; /* held; NULL: nothing here */
	int home;
};
#define KSM_FIRST_HOMES 2 /* a power of two */

/* A merged page. The page names its node: page->mapping while PAGE_KSM is set. (H) the homes' lock and (S) to write */
struct ksm_node {
	struct rmap_merged merged;                    /* first: swap/ knows nodes as this */
	struct ksm_node *next;                        /* (N) of its bucket */
	uint64_t hash;                                /* (C) of the page's bytes */
	void *family;                                 /* (C) what page->mapping was before */
	struct spin homes_lock;                       /* LOCK_KSM_HOMES */
	uint32_t nhomes;                              /* (H) */
	uint32_t homes_room;                          /* (H) a power of two */
	struct ksm_home *homes;                       /* (H) NULL: first_homes */
	struct ksm_home first_homes[KSM_FIRST_HOMES]; /* (H) */
};

struct ksm_stable {
	struct mutex lock;         /* LOCK_KSM_NODES */
	struct ksm_node **buckets; /* (N) */
	uint64_t nbuckets;         /* (N) a power of two */
	uint64_t nnodes;           /* (N) */
	struct slab slab;          /* of nodes */
};

/* A page that may be merged if its equal turns up: `where` is its space and page number, 0: nothing. */
struct unstable_slot {
	uint64_t hash;
	uint64_t where;
};

/* Open addressing; slots that lead nowhere any more keep their hash. */
struct ksm_unstable {
	struct unstable_slot *slots; /* (S) */
	uint64_t nslots;             /* (S) a power of two */
	uint64_t used;               /* (S) slots with a hash */
	uint64_t alive;              /* (S) of these: that lead somewhere */
};

/* What was seen of neighbouring pages: 0: nothing yet, else the hash. */
#define KSM_CHUNK_PAGES 64
struct ksm_chunk {
	struct tree_node node; /* keyed by address */
	uint64_t scan;         /* (S) the full scan that last came by */
	uint64_t hashes[KSM_CHUNK_PAGES];
};

/* What the scanner keeps for a space. */
struct ksm_space {
	struct ucow_mm *mm;     /* (C) */
	uint32_t id;            /* (C) */
	struct tree chunks;     /* (S), and by the space's end when the scanner has left it */
	struct ksm_chunk *last; /* (S) the chunk that was used last */
};

/* Counts of the full scan under way, and of the last one. */
struct ksm_tally {
	uint64_t pages;    /* looked at */
	uint64_t fresh;    /* seen for the first time */
	uint64_t changed;  /* since the scan before */
	uint64_t unshared; /* left in the unstable table */
	uint64_t merged;
};

struct ksm {
	struct ucow_machine *machine;    /* (C) */
	struct mutex lock;               /* LOCK_KSM: one scans at a time */
	_Atomic uint32_t waiting;        /* (A) for that lock */
	struct ucow_ksm_options options; /* (S) */
	struct ksm_stable stable;
	struct ksm_unstable unstable;
	struct ksm_space **spaces; /* (L) by id; NULL: free */
	uint32_t nspaces;          /* (L) */
	uint64_t hash_mask;        /* (C) all ones; tests make all pages collide */
	uint64_t zero_hash;        /* (C) of a page of zeros */
	/* The full scan under way. */
	uint64_t serial;        /* (S) the space that `va` is meant for */
	uint64_t va;            /* (S) next to look at */
	uint64_t scan;          /* (S) its number, from 1 */
	struct ksm_tally tally; /* (S) */
	int error;              /* (S) of the scan call under way */
	/* What ucow_ksm_stat tells. */
	_Atomic uint64_t scanned, full_scans, merged, stale, unshared, changed; /* (A) */
	/* The thread, if any: thread.c. */
	struct daemon *thread;                      /* (S) */
	void (*stop)(struct ucow_machine *machine); /* (S) set when one was started */
};

/* ---- ksm.c ---- */

/* ksm_of - the machine's scanner, made at first use. Returns: 0; -ENOMEM; -EOPNOTSUPP (built without a hash). */
int ksm_of(struct ucow_machine *machine, struct ksm **ksm);
void ksm_lock(struct ksm *ksm);
void ksm_unlock(struct ksm *ksm);

/* ---- scan.c ---- */

/* ksm_scan - look at up to @npages pages, none twice. Requires: the scanner's lock. Returns: how many there were. */
uint64_t ksm_scan(struct ksm *ksm, uint64_t npages);
/* ksm_full_scan - all pages, from the first on. */
void ksm_full_scan(struct ksm *ksm);

/* ---- hash.c ---- */

bool ksm_hash_is_built(void);
/* ksm_hash - of a page's bytes, which may be changing; never 0. */
uint64_t ksm_hash(const struct ksm *ksm, const void *bytes);

/* ---- tables.c ---- */

int stable_init(struct ksm_stable *stable);
void stable_destroy(struct ksm *ksm);
struct ksm_node *stable_node_create(struct ksm *ksm);
void stable_node_free(struct ksm *ksm, struct ksm_node *node);
void stable_insert(struct ksm *ksm, struct ksm_node *node);
/*
 * stable_find - the first page with @hash after @node (NULL: of all) that has room for one more entry, with a
 * reference in *page. Stale nodes on the way are dropped. Requires: the scanner's lock. Returns: NULL.
 */
struct ksm_node *stable_find(struct ksm *ksm, uint64_t hash, struct ksm_node *node, struct ucow_page **page);
/* stable_prune - drop all stale nodes. */
void stable_prune(struct ksm *ksm);
/* node_page - the node's page, or what was it. */
static inline struct ucow_page *node_page(const struct ksm_node *node)
{
	return atomic_load_explicit(&node->merged.page, memory_order_acquire);
}

/* stable_stat - count what is alive into @stat. */
void stable_stat(struct ksm *ksm, struct ucow_ksm_stat *stat);
/* stable_check - [INV-KSM-2] Returns: NULL, or what is wrong with @page, a merged one. */
const char *stable_check(struct ksm *ksm, const struct ucow_page *page);

void unstable_destroy(struct ksm_unstable *unstable);
void unstable_clear(struct ksm_unstable *unstable);
/* unstable_find - the first slot with @hash after @slot (NULL: of all) that leads somewhere. Returns: NULL. */
struct unstable_slot *unstable_find(struct ksm_unstable *unstable, uint64_t hash, struct unstable_slot *slot);
/* unstable_insert - Returns: 0; -ENOMEM. */
int unstable_insert(struct ksm *ksm, uint64_t hash, uint64_t where);
void unstable_drop(struct ksm_unstable *unstable, struct unstable_slot *slot);

/* ---- homes.c ---- */

/* homes_add - entries of @family at @home may map the node's page. Returns: false: no memory. */
bool homes_add(struct ksm *ksm, struct ksm_node *node, struct family *family, int home);
/* homes_drop - forget them all, with the node. */
void homes_drop(struct ksm *ksm, struct ksm_node *node);
/* homes_for_each - struct rmap_homes for a merged page. Requires: its page lock. */
void homes_for_each(void *arg, struct ucow_page *page, bool (*each)(void *arg, struct family *family, int home),
		    void *each_arg);

/* ---- spaces.c ---- */

/* ksm_space_of - what is kept for @mm, made at first use. Requires: @mm is held. Returns: NULL: no memory. */
struct ksm_space *ksm_space_of(struct ksm *ksm, struct ucow_mm *mm);
/* ksm_space_hold - the space with @id, held. Returns: NULL: it has ended. */
struct ucow_mm *ksm_space_hold(struct ksm *ksm, uint32_t id);
/* ksm_space_end - @mm is ending and nobody holds it. */
void ksm_space_end(struct ucow_mm *mm);
/* ksm_remembered - what was seen at @va. Returns: NULL: no memory. */
uint64_t *ksm_remembered(struct ksm *ksm, struct ksm_space *space, uint64_t va);
/* ksm_space_trim - forget what this full scan has not come by. */
void ksm_space_trim(struct ksm *ksm, struct ksm_space *space);

/* ---- merge.c ---- */

enum merge_result {
	MERGE_DONE,
	MERGE_NOT,       /* not now: changed, referenced, locked, gone */
	MERGE_DIFFERENT, /* the bytes are others */
	MERGE_NO_MEMORY, /* for tables */
};

/* ksm_may_merge - whether pages of @vma may be merged. Requires: mmap_lock. */
bool ksm_may_merge(const struct ucow_mm *mm, const struct vma *vma);
/*
 * ksm_merge_into - make the entry at @va, if its page has the same bytes, one of @page, the merged page of @node; both
 * NULL: of the zero page. Requires: @mm is held, and a reference to @page; no lock but the scanner's.
 */
enum merge_result ksm_merge_into(struct ksm *ksm, struct ucow_mm *mm, uint64_t va, struct ksm_node *node,
				 struct ucow_page *page);
/*
 * ksm_convert - make the page at @va a merged page, with @node its node. From then on its bytes do not change.
 * Requires: as ksm_merge_into. Returns: MERGE_DONE, and a reference to its page; MERGE_NOT; MERGE_NO_MEMORY.
 */
enum merge_result ksm_convert(struct ksm *ksm, struct ucow_mm *mm, uint64_t va, struct ksm_node *node);
/* ksm_revert - undo ksm_convert: nothing was merged into the page. The reference stays. */
void ksm_revert(struct ksm_node *node);

#endif
