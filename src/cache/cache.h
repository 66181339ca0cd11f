/* SPDX-License-Identifier: MIT */
/*
 * The page cache: the pages of one file, of a part of one, or of shared memory without a file, by number; what of them
 * is dirty; the openers; and the spaces that map it, so that a page's entries are found.
 *
 * (C) fixed after creation (K) the cache's lock (A) atomic (M) the mmap lock of the space, exclusively
 */
#ifndef CACHE_CACHE_H
#define CACHE_CACHE_H

#include "cache/backing.h"
#include "cache/errseq.h"
#include "space/mm.h"

#define CACHE_NODE_BITS  6
#define CACHE_NODE_SLOTS (1u << CACHE_NODE_BITS)
#define CACHE_READAHEAD  32 /* pages that a miss reads, unless the opener says otherwise */
#define CACHE_BATCH      64 /* of a gathering walk: for arrays */

/* What pages are looked for by, in order. */
enum cache_tag { CACHE_DIRTY, CACHE_WRITEBACK, CACHE_TAGS };

/*
 * A node of the index, a tree of 64 ways that is as high as its greatest number needs. Nodes are never taken out while
 * the cache lives, so that look-ups need no lock. Slots are written under the lock.
 */
struct cache_node {
	unsigned shift;                          /* (C) bits of a page number below one slot */
	uint64_t tags[CACHE_TAGS];               /* (K) a bit for each slot below which some page has the tag */
	_Atomic(void *) slots[CACHE_NODE_SLOTS]; /* (K) to write: nodes, or at shift 0 pages */
};

struct cache {
	_Atomic uint32_t refcount;         /* (A) openers, mappings */
	struct ucow_machine *machine;      /* (C) */
	struct spin lock;                  /* LOCK_CACHE, after that of a leaf */
	_Atomic uint64_t size;             /* (K) to write: bytes; beyond it there is nothing (SIGBUS) */
	_Atomic(struct cache_node *) root; /* (K) to write; NULL: nothing is cached */
	uint64_t npages;                   /* (K) each with one reference of the cache */
	uint64_t tagged[CACHE_TAGS];       /* (K) pages that have the tag */
	_Atomic uint64_t dirty_since; /* (K) to write: when the first of those that are dirty became so; 0: none is */
	struct list users;            /* (K) struct cache_user: spaces that map it, through an opener */
	uint64_t nusers;              /* (K) */
	_Atomic uint32_t openers;     /* (A) */
	struct backing backing;       /* (C) none: memory-backed */
	bool is_anonymous;            /* (C) never has an opener: pages stay as long as the cache does */
	bool is_part;                 /* (C) of a host file that keeps its length */
	unsigned readahead;           /* (C) */
	struct errseq errors;         /* of writing and reading */
	struct mutex resize;          /* LOCK_FILE: one writes, truncates or punches at a time */
	struct rwlock filling;        /* LOCK_FILLING: shared while pages are read, exclusive while a hole is made */
	_Atomic uint64_t next_read;   /* (A) a miss here goes on from the last one */
	_Atomic uint32_t window;      /* (A) so many pages did that read */
	struct list link;             /* the machine's caches, under its caches_lock */
	_Atomic uint64_t nread, nwritten, read_errors, write_errors, bounced; /* (A) statistics */
};

/* One opener. */
struct ucow_file {
	_Atomic uint32_t refcount; /* (A) the opener's own, and mappings made through it */
	_Atomic uint32_t told;     /* (A) of which errors: see errseq_report */
	struct cache *cache;       /* (C) */
	uint32_t flags;            /* (C) UCOW_FILE_* */
};

/* One space that maps the cache, in any number of mappings. */
struct cache_user {
	struct cache *cache;     /* (C) */
	struct ucow_mm *mm;      /* (C) */
	struct list link;        /* (K) cache->users */
	uint32_t refs;           /* (K) one while there are mappings, and those of walkers */
	struct list mappings;    /* (M) struct vma, by user_link */
	struct list of_space;    /* (M) mm->file_users, while there are mappings */
	struct cache_user *twin; /* (M) the one that a fork has made of it for the space of number @twin_serial */
	uint64_t twin_serial;    /* (M) */
};

/* ---- life ---- */

/*
 * cache_create - a cache of @nbytes, with one reference. @backing, which passes to the cache, is NULL for memory that
 * has no opener either.
 * Returns: NULL: no memory, and @backing is the caller's still.
 */
struct cache *cache_create(struct ucow_machine *machine, uint64_t nbytes, const struct backing *backing);
void cache_get(struct cache *cache);
/* cache_try_get - for one that was found on the machine's list, or by a page's lock: false if nobody refers to it. */
bool cache_try_get(struct cache *cache);
/*
 * cache_put - the last reference drops the pages; those that are pinned live on. One that is dirty waits, among the
 * machine's orphans, for cache_settle, since its pages are to be written and locks may be held here.
 */
void cache_put(struct cache *cache);
/* cache_settle - write and end what cache_put has left. Requires: no lock. */
void cache_settle_slow(struct ucow_machine *machine);
static inline void cache_settle(struct ucow_machine *machine)
{
	if (unlikely(atomic_load_explicit(&machine->norphans, memory_order_relaxed)))
		cache_settle_slow(machine);
}

/* file_create - an opener, which takes over the caller's reference on @cache. Returns: NULL: no memory. */
struct ucow_file *file_create(struct cache *cache, uint32_t flags);
void file_get(struct ucow_file *file);
void file_put(struct ucow_file *file);

static inline uint64_t cache_size(const struct cache *cache)
{
	return atomic_load_explicit(&cache->size, memory_order_acquire);
}

/* cache_end - the number of the first page beyond the end. */
static inline uint64_t cache_end(const struct cache *cache)
{
	return (cache_size(cache) + UCOW_PAGE_SIZE - 1) >> UCOW_PAGE_SHIFT;
}

/* cache_is_tracked - what is stored has to be written back: shared mappings are watched for the first store (B.8). */
static inline bool cache_is_tracked(const struct cache *cache)
{
	return backing_is_there(&cache->backing);
}

/* vma_is_tracked - the same of a mapping: it "needs dirty tracking". */
static inline bool vma_is_tracked(const struct vma *vma)
{
	return unlikely(vma->file) && !vma_is_cow(vma) && cache_is_tracked(vma->object);
}

/* ---- the index ---- */

/*
 * cache_find - page number @index with a reference for the caller; its bytes may be on their way (cache_is_filled).
 * Requires: a reference to the cache; any lock may be held. Returns: 0; -ENXIO (beyond the end); -ENOENT: it is not
 * there; -ENOMEM (its count is near overflow).
 */
int cache_find(struct cache *cache, uint64_t index, struct ucow_page **page);
/* cache_look - the same without a reference and without the end. */
const struct ucow_page *cache_look(const struct cache *cache, uint64_t index);
/* cache_is_filled - the page has its bytes. */
static inline bool cache_is_filled(const struct ucow_page *page)
{
	return !(atomic_load_explicit(&page->flags, memory_order_acquire) & PAGE_READING);
}

/*
 * cache_insert - put @made, with the caller's reference, in as page number @index unless somebody was faster; then
 * @made is freed. *page: what is in now, with a reference for the caller. Requires: no lock of rank LOCK_CACHE or
 * later. Returns: 0; -ENXIO (beyond the end by now), -ENOMEM: @made is freed.
 */
int cache_insert(struct cache *cache, uint64_t index, struct ucow_page *made, struct ucow_page **page);
/*
 * cache_remove - take @page out of its cache, clean. Its flag (PAGE_SHMEM, PAGE_FILE) goes and it has no number any
 * more; the cache's reference passes to the caller. Requires: the page lock, or no other user. Returns: false: it is
 * not in @cache, or is being written back.
 */
bool cache_remove(struct cache *cache, struct ucow_page *page);
/* cache_is_in - @page is in some cache. */
static inline bool cache_is_in(const struct ucow_page *page)
{
	return page_is(page, PAGE_SHMEM | PAGE_FILE);
}
/*
 * cache_drop - the same for reclaim: only a clean page, which no entry maps, and of which there is no reference but the
 * cache's and the caller's. Returns: whether it was; all references are gone then, and page_free follows.
 */
bool cache_drop(struct cache *cache, struct ucow_page *page);
/*
 * cache_of - the cache that @page is in, or NULL. Requires: the page lock, under which that stays so, and a cache that
 * is written back does not end.
 */
struct cache *cache_of(const struct ucow_page *page);

/*
 * cache_gather - up to @n pages of numbers in [first, last] with a reference each, in order; with @tag below CACHE_TAGS
 * only those that have it. Returns: how many.
 */
unsigned cache_gather(struct cache *cache, uint64_t first, uint64_t last, enum cache_tag tag, struct ucow_page **pages,
		      unsigned n);

/* ---- tags ---- */

/*
 * cache_set_dirty - @page is to be written back: PAGE_DIRTY and its tag. Nothing for memory-backed caches and for pages
 * that are not in the cache any more. Requires: a reference or an entry; the leaf's lock may be held.
 */
void cache_set_dirty(struct cache *cache, struct ucow_page *page);
/* page_note_dirty - the same for a page of any kind, that a device or a call has written to. */
void page_note_dirty(struct ucow_page *page);
/*
 * cache_begin_write - from dirty to under writeback, in one step; the page gets a reference. Returns: false: it was not
 * dirty, is under writeback already, or is not in the cache. cache_end_write - not under writeback any more (with
 * @again: dirty); the reference goes.
 */
bool cache_begin_write(struct cache *cache, struct ucow_page *page);
void cache_end_write(struct cache *cache, struct ucow_page *page, bool again);

/* cache_clock - nanoseconds from some moment on; never 0. */
uint64_t cache_clock(void);
/* cache_dirty_since - when the oldest dirty page became dirty; 0: none is. */
static inline uint64_t cache_dirty_since(const struct cache *cache)
{
	return atomic_load_explicit(&cache->dirty_since, memory_order_relaxed);
}
/* cache_restamp - what is dirty now counts as dirty since @when. */
void cache_restamp(struct cache *cache, uint64_t when);

/* ---- bytes: fill.c ---- */

/*
 * cache_fetch - page number @index with its bytes, read if need be, and some that follow with it. New pages are charged
 * to @mm (NULL: to nobody). *major: it was read, or waited for. Requires: no lock but mmap_lock, shared; no section.
 * Returns: 0 and the page with a reference; -ENXIO; -ENOMEM; -EIO, ...: it could not be read.
 */
int cache_fetch(struct cache *cache, struct ucow_mm *mm, uint64_t index, struct ucow_page **page, bool *major);

/* cache_flush - write all that is dirty. Requires: nobody has the cache open or maps it. */
void cache_flush(struct cache *cache);

/* ---- the spaces that map it: users.c ---- */

/* cache_attach - @vma, a mapping of @mm through an opener, is known to its cache. Returns: 0; -ENOMEM. Requires: (M).
 */
int cache_attach(struct ucow_mm *mm, struct vma *vma);
/* cache_attach_like - the same for one in the same space as @like, which maps the same cache. */
void cache_attach_like(struct vma *vma, const struct vma *like);
/* cache_attach_child - the same for @vma of a child of @parent's space, which maps the same cache. Requires: (M) of
 * both. Returns: 0; -ENOMEM. */
int cache_attach_child(struct ucow_mm *child, struct vma *vma, const struct vma *parent);
/* cache_detach - nothing if it is not known. Requires: (M), or that nobody else knows the space. */
void cache_detach(struct vma *vma);

/*
 * cache_next_user - the next space that maps the cache after @user (NULL: the first), which is let go of. It is held
 * (mm_hold): it does not end, and @user->mm->mmap_lock may be taken. Spaces that are ending are left out: nobody
 * accesses them any more. Those that come meanwhile may be left out too. Requires: no lock of rank LOCK_MACHINE or
 * later.
 */
struct cache_user *cache_next_user(struct cache *cache, struct cache_user *user);
/* cache_release_user - for who stops before the last. */
void cache_release_user(struct cache_user *user);

/* CACHE_FOR_EACH_MAPPING - the mappings of one user. Requires: its space's mmap_lock. */
#define CACHE_FOR_EACH_MAPPING(item, user) LIST_FOR_EACH (item, &(user)->mappings)
static inline struct vma *cache_mapping(struct list *link)
{
	return container_of(link, struct vma, user_link);
}

/*
 * cache_vma_range - the addresses of @vma that show pages [first, last] of its cache. Returns: whether there are any.
 */
bool cache_vma_range(const struct vma *vma, uint64_t first, uint64_t last, uint64_t *start, uint64_t *end);

/* cache_check - [INV-CACHE-1] Returns: NULL or what is wrong. Requires: nothing changes meanwhile. */
const char *cache_check(struct cache *cache);

#endif
