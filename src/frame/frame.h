/* SPDX-License-Identifier: MIT */
/*
 * Physical memory: a pool of 4 KiB frames, their descriptors, references, mappings, pins and flags. Nothing outside
 * frame/ changes a count by hand. What a frame is used for (anon, shared, ...) is the upper floors' business.
 */
#ifndef FRAME_FRAME_H
#define FRAME_FRAME_H

#include "base/counters.h"
#include "base/inject.h"
#include "base/list.h"
#include "base/lock.h"

#include <ucow/gup.h>

#include <assert.h>

#define FRAME_MAX_ORDER   9 /* 2 MiB */
#define FRAME_BLOCK_PAGES (1u << FRAME_MAX_ORDER)
#define FRAME_BLOCK_BYTES ((uint64_t)FRAME_BLOCK_PAGES << UCOW_PAGE_SHIFT)

enum page_flag {
	PAGE_LOCKED = 1u << 0,
	PAGE_ANON = 1u << 1,      /* private anonymous memory */
	PAGE_EXCLUSIVE = 1u << 2, /* anon: only one mapping, and no other reference was handed out (B.1) */
	PAGE_SHMEM = 1u << 3,     /* in the cache of shared memory without a file behind it */
	PAGE_KSM = 1u << 4,
	PAGE_DIRTY = 1u << 5,
	PAGE_SWAPCACHE = 1u << 6,
	PAGE_LRU = 1u << 7,
	PAGE_WRITEBACK = 1u << 8,
	PAGE_HEAD = 1u << 9,
	PAGE_TAIL = 1u << 10,
	PAGE_LAZYFREE = 1u << 11,  /* contents may be dropped while the entry is clean (MADV_FREE) */
	PAGE_ZERO = 1u << 12,      /* the shared zero page: no counts of any kind */
	PAGE_FREE = 1u << 13,      /* head of a free block in the buddy lists */
	PAGE_ZEROED = 1u << 14,    /* free, and all bytes are known to be zero */
	PAGE_CACHED = 1u << 15,    /* free, in a per-thread cache */
	PAGE_WAITERS = 1u << 16,   /* somebody sleeps for the page lock */
	PAGE_ACTIVE = 1u << 17,    /* LRU: on the active list, or to go there */
	PAGE_BATCHED = 1u << 18,   /* LRU: in a batch, not on a list yet */
	PAGE_DYING = 1u << 19,     /* nobody refers to it; whoever takes it out of its batch frees it */
	PAGE_READAHEAD = 1u << 20, /* swap cache: read because a neighbour was asked for */
	PAGE_READING = 1u << 21,   /* in a cache: its bytes are on their way; the reader holds the page lock */
	PAGE_FAILED = 1u << 22,    /* swap cache: they could not be read */
	PAGE_FILE = 1u << 23,      /* in the cache of a file, to which it is written back when dirty */
};

/*
 * (A) atomic (O) set by the owner while nobody else can see the page (P) LOCK_PCP or LOCK_BUDDY while free
 * (K) the page lock (R) the lock of the page's LRU lists
 *
 * `word` holds, in one atomic so that a pin is one locked operation:
 *     63            48 47            32 31                             0
 *    +----------------+----------------+--------------------------------+
 *    |  pin account   |   pin count    |      references (B.5)          |
 *    +----------------+----------------+--------------------------------+
 * One pin adds 1 to the pin count and 1,024 to the references. The count is exact; the public question
 * ucow_page_maybe_dma_pinned looks at the references alone and keeps Linux's false positives.
 */
struct ucow_page {
	_Atomic uint64_t word;     /* (A) */
	_Atomic uint32_t mapcount; /* (A) entries that map the page */
	_Atomic uint32_t flags;    /* (A) enum page_flag */
	uint16_t pool;             /* fixed: index of the pool */
	uint16_t memcg;            /* (O) the group that it is charged to; 0: none */
	int8_t home;               /* (O) anon: the slot that it has in its family's leaves without a shift */
	void *mapping;             /* (O) the cache of a shared page; of an anon page its family (table/table.h) */
	uint64_t index : 48;       /* (O) page number in its object or, anon, of its first address */
	uint64_t order : 8;        /* (P) of a free block */
	uint64_t node : 8;         /* fixed */
	_Atomic uint64_t entry;    /* (A) of a page in the swap cache: its slot, written under (K); else 0 */
	struct list link;          /* (P) free list; in use: (R) LRU */
};
static_assert(sizeof(struct ucow_page) == 64, "the descriptor of a page takes 64 bytes");

#define PAGE_REF_MASK     0xffffffffu
#define PAGE_REF_MAX      0x7fffffffu
#define PAGE_ONE_PIN      (((uint64_t)1 << 32) + UCOW_GUP_PIN_COUNTING_BIAS)
#define PAGE_PIN_MAX      0xffffu
#define PIN_ACCOUNT_NONE  0u
#define PIN_ACCOUNT_MANY  0xffffu /* pins of several accounts: see pins.c */
#define PIN_ACCOUNT_LIMIT 0xffffu

/* One thread slot's stock of single frames. */
#define FRAME_CACHE_PAGES 64
#define FRAME_CACHE_BATCH 32
/*
 * When several threads allocate, each takes its batches from a block of its own: descriptors of neighbouring frames
 * that two processors use by turns would be fetched back and forth.
 */
#define FRAME_HOME_ORDER 7
struct frame_cache {
	struct spin lock;           /* LOCK_PCP; guards the rest */
	_Atomic uint32_t count;     /* in pages[] */
	_Atomic uint32_t home_left; /* left of the home block, at its end */
	struct ucow_page *home;     /* the next of it */
	struct ucow_page *pages[FRAME_CACHE_PAGES];
} __attribute__((aligned(THREAD_APART)));

/* ---- LRU lists (lru.c) ---- */

enum lru_list { LRU_INACTIVE, LRU_ACTIVE, LRU_LISTS };
#define LRU_BATCH 31
#define LRU_VECS  65536 /* one for each group that pages are charged to; 0: none */

/* The private pages of one group, the latest first. */
struct lruvec {
	struct spin lock;                   /* LOCK_LRU */
	struct list lists[LRU_LISTS];       /* (R) */
	_Atomic uint64_t npages[LRU_LISTS]; /* (R) to write */
};

/* New pages of one thread slot, on their way to their lists. */
struct lru_batch {
	struct spin lock; /* LOCK_BATCH; guards the rest */
	unsigned count;
	struct ucow_page *pages[LRU_BATCH];
	struct list dead; /* while it is being drained */
} __attribute__((aligned(THREAD_APART)));

struct lru {
	struct lru_batch batches[THREAD_SLOTS];
	struct lruvec nobodys;                   /* of pages of no group: vecs[0] */
	_Atomic unsigned nvecs;                  /* the first group's number above all that have any */
	_Atomic(struct lruvec *) vecs[LRU_VECS]; /* by group */
};

struct pin_account;
struct pin_shares;
#define FRAME_PIN_BUCKETS 1024

struct frame_pool {
	char *ram;                                             /* fixed: host address of frame 0, 2 MiB aligned */
	struct ucow_page *pages;                               /* fixed: descriptors */
	uint64_t npages;                                       /* fixed: maximum, a multiple of FRAME_BLOCK_PAGES */
	uint16_t id;                                           /* fixed: index into frame_pools */
	bool poison;                                           /* fixed */
	bool keep;                                             /* fixed: never give blocks back */
	struct ucow_page *zero_page;                           /* fixed */
	struct inject *inject;                                 /* fixed: the machine's */
	struct counters *counters;                             /* fixed: the machine's */
	void (*uncharge)(struct frame_pool *, uint16_t memcg); /* fixed: a page that was charged to a group is freed */

	struct spin lock;                      /* LOCK_BUDDY; guards the next group */
	struct list free[FRAME_MAX_ORDER + 1]; /* committed blocks by order */
	struct list cold;                      /* blocks given back to the host (their head pages) */
	uint64_t next_block;                   /* blocks from here on were never committed */
	uint64_t free_pages;                   /* in free[] */
	uint64_t free_blocks;                  /* in free[FRAME_MAX_ORDER] */
	uint64_t committed_blocks;

	struct frame_cache caches[THREAD_SLOTS];
	_Atomic uint32_t refiller; /* 1 + the slot that refilled its cache first */
	_Atomic bool crowded;      /* another one has too */

	_Atomic(struct lru *) lru; /* (A) NULL: nothing is ever reclaimed, and no lists are kept */

	struct mutex pins_lock;        /* LOCK_PINS; guards the next group */
	struct pin_account **accounts; /* by number */
	unsigned next_account;
	struct pin_shares *shares[FRAME_PIN_BUCKETS]; /* pins of pages that several accounts have pinned */
};

/* Every pool by its id; a page finds its pool here. Written under a lock of frame.c, read by holders of pages. */
#define FRAME_POOLS 1024
extern struct frame_pool *frame_pools[FRAME_POOLS];

/* ---- pool ---- */

/*
 * frame_pool_init - reserve RAM for @nbytes (a multiple of 2 MiB), nothing committed but the block of the zero page.
 * Returns: 0; -ENOMEM (address space, memory, or too many pools).
 */
int frame_pool_init(struct frame_pool *pool, uint64_t nbytes, struct inject *inject, struct counters *counters,
		    bool poison, bool keep);
/* frame_pool_destroy - Requires: no frame in use but the zero page. */
void frame_pool_destroy(struct frame_pool *pool);
/* frame_pool_used - frames in use, the zero page not counted. Thread: any; exact when nobody allocates or frees. */
uint64_t frame_pool_used(struct frame_pool *pool);

enum frame_want { FRAME_ANY = 0, FRAME_ZEROED = 1 };

/*
 * frame_alloc - one frame with one reference, no flags; its bytes are zero with FRAME_ZEROED, else arbitrary.
 * Returns: NULL when RAM is exhausted, the host has no memory, or injection says so. Thread: any; locks up to
 * LOCK_TABLE may be held, but committing a block is a slow system call: the fault path allocates without table locks.
 */
struct ucow_page *frame_alloc(struct frame_pool *pool, enum frame_want want);

/* buddy_alloc_batch - up to @n single frames into @pages. Returns: how many. */
unsigned buddy_alloc_batch(struct frame_pool *pool, struct ucow_page **pages, unsigned n);
void buddy_free_batch(struct frame_pool *pool, struct ucow_page *const *pages, unsigned n);
/* buddy.c: blocks of 2^order frames, references not touched. */
struct ucow_page *buddy_alloc(struct frame_pool *pool, unsigned order);
void buddy_free(struct frame_pool *pool, struct ucow_page *page, unsigned order);
/* buddy_check - recount the free lists. Returns: NULL or what is wrong. */
const char *buddy_check(struct frame_pool *pool);

/* frame_poison - overwrite a free block, so that a stale reader or writer is noticed. */
void frame_poison(struct ucow_page *page, unsigned order);
/* frame_poison_check - whether a freed, poisoned frame still holds the poison. */
bool frame_poison_check(const struct ucow_page *page);

/* ---- a page ---- */

static inline struct frame_pool *page_pool(const struct ucow_page *page)
{
	return frame_pools[page->pool];
}

static inline uint64_t page_to_pfn(const struct ucow_page *page)
{
	return (uint64_t)(page - page_pool(page)->pages);
}

static inline struct ucow_page *pfn_to_page(const struct frame_pool *pool, uint64_t pfn)
{
	UCOW_BUG_ON(pfn >= pool->npages);
	return &pool->pages[pfn];
}

static inline void *page_bytes(const struct ucow_page *page)
{
	const struct frame_pool *pool = page_pool(page);

	return pool->ram + ((uint64_t)(page - pool->pages) << UCOW_PAGE_SHIFT);
}

/* page_of_bytes - the page that has its bytes at @host. */
static inline struct ucow_page *page_of_bytes(const struct frame_pool *pool, const void *host)
{
	return pfn_to_page(pool, (uint64_t)((const char *)host - pool->ram) >> UCOW_PAGE_SHIFT);
}

/* page_copy - the bytes of one page, from and to host addresses. */
void page_copy(void *to, const void *from);
/* page_equals - whether the bytes of two pages are the same; somebody may be storing to them. */
bool page_equals(const void *a, const void *b);

static inline bool page_is(const struct ucow_page *page, enum page_flag flag)
{
	return atomic_load_explicit(&page->flags, memory_order_relaxed) & flag;
}

static inline void page_set(struct ucow_page *page, uint32_t flags)
{
	atomic_fetch_or_explicit(&page->flags, flags, memory_order_relaxed);
}

static inline void page_clear(struct ucow_page *page, uint32_t flags)
{
	atomic_fetch_and_explicit(&page->flags, ~flags, memory_order_relaxed);
}

static inline uint32_t page_refcount(const struct ucow_page *page)
{
	/* Acquire: whoever dropped the other references has finished with the bytes. */
	return (uint32_t)(atomic_load_explicit(&page->word, memory_order_acquire) & PAGE_REF_MASK);
}

/*
 * page_refcount_settled - read by a locked operation: whoever takes a reference later sees what the caller stored
 * before, a cleared entry for instance, and whoever took one earlier is counted.
 */
static inline uint32_t page_refcount_settled(struct ucow_page *page)
{
	return (uint32_t)(atomic_fetch_add(&page->word, 0) & PAGE_REF_MASK);
}

static inline uint32_t page_mapcount(const struct ucow_page *page)
{
	return atomic_load_explicit(&page->mapcount, memory_order_acquire);
}

/* B.5: an order-0 page may be pinned when it has a pin's worth of references. */
static inline bool page_maybe_pinned(const struct ucow_page *page)
{
	return page_refcount(page) >= UCOW_GUP_PIN_COUNTING_BIAS && !page_is(page, PAGE_ZERO);
}

static inline uint32_t page_pincount(const struct ucow_page *page)
{
	return (uint32_t)(atomic_load_explicit(&page->word, memory_order_relaxed) >> 32) & 0xffff;
}

/* page_get - one more reference. Requires: the caller has one, or the page cannot go away. */
static inline void page_get(struct ucow_page *page)
{
	uint64_t before = atomic_fetch_add_explicit(&page->word, 1, memory_order_relaxed);

	UCOW_BUG_ON((before & PAGE_REF_MASK) == 0 || (before & PAGE_REF_MASK) >= PAGE_REF_MAX);
	(void)before;
}

/*
 * page_try_get - page_get for a page that may be free by now, and that declines when the count is near overflow. A full
 * fence. Returns: 0; -ENOENT: free; -ENOMEM.
 */
int page_try_get(struct ucow_page *page);

/*
 * page_freeze - take all references away, if there are @expected and no pins: page_try_get fails meanwhile.
 * Returns: whether it did; page_unfreeze gives them back, or page_free follows.
 */
bool page_freeze(struct ucow_page *page, uint32_t expected);
static inline void page_unfreeze(struct ucow_page *page, uint32_t references)
{
	atomic_fetch_add_explicit(&page->word, references, memory_order_release);
}

void page_free(struct ucow_page *page);
/* page_free_now - the end of page_free: the frame is free. Requires: no reference, on no list. */
void page_free_now(struct ucow_page *page);

/* page_put - one reference less; the last one frees the frame. */
static inline void page_put(struct ucow_page *page)
{
	uint64_t before = atomic_fetch_sub_explicit(&page->word, 1, memory_order_acq_rel);

	UCOW_BUG_ON((before & PAGE_REF_MASK) == 0);
	if ((before & PAGE_REF_MASK) == 1)
		page_free(page);
}

/* page_map / page_unmap - count one entry that maps the page; references are separate (invariant 7). */
static inline void page_map(struct ucow_page *page)
{
	atomic_fetch_add_explicit(&page->mapcount, 1, memory_order_relaxed);
}

/* page_init_mapped - flags and first mapping of a frame that nobody else can see yet: no locked operation needed. */
static inline void page_init_mapped(struct ucow_page *page, uint32_t flags)
{
	atomic_store_explicit(&page->flags, flags, memory_order_relaxed);
	atomic_store_explicit(&page->mapcount, 1, memory_order_relaxed);
}

/* Returns (page_unmap): whether no entry maps the page any more. */
static inline bool page_unmap(struct ucow_page *page)
{
	uint32_t before = atomic_fetch_sub_explicit(&page->mapcount, 1, memory_order_release);

	UCOW_BUG_ON(before == 0);
	return before == 1;
}

/* page_drop_mapping - one entry less maps @page. Mapcount first, then the reference, so that refs >= mappings (0.1, 7).
 * Returns: whether no entry maps it any more.
 */
static inline bool page_drop_mapping(struct ucow_page *page)
{
	bool last = page_unmap(page);

	page_put(page);
	return last;
}

/* ---- page lock ---- */

static inline bool page_trylock(struct ucow_page *page)
{
	return !(atomic_fetch_or_explicit(&page->flags, PAGE_LOCKED, memory_order_acquire) & PAGE_LOCKED);
}

/* page_lock - wait for the lock. Requires: no spin lock held, a reference on @page. */
void page_lock(struct ucow_page *page);
/*
 * page_lock_unless - page_lock, but for pages that have @flag, or get it while it waits. Returns: whether it has the
 * lock. page_set_and_wake - set @flag, of a locked page, and let such waiters know.
 */
bool page_lock_unless(struct ucow_page *page, uint32_t flag);
/* page_clear_and_wake - clear flags, and wake who sleeps for that. */
void page_clear_and_wake(struct ucow_page *page, uint32_t flags);
void page_set_and_wake(struct ucow_page *page, uint32_t flag);
void page_unlock(struct ucow_page *page);

/* ---- LRU lists (lru.c) ---- */

/* lru_create - with lists for pages of no group. lru_vec_create - and for those of group @memcg. Returns: NULL;
 * -ENOMEM. */
struct lru *lru_create(void);
int lru_vec_create(struct lru *lru, uint16_t memcg);
void lru_destroy(struct lru *lru);
/* lru_vec_open - lru_vec_create, if the pool keeps lists. Returns: 0; -ENOMEM. */
int lru_vec_open(struct frame_pool *pool, uint16_t memcg);
/* lru_close - no lists any more. Requires: no page on one. NULL is allowed. */
void lru_close(struct frame_pool *pool);
uint64_t lru_count(const struct frame_pool *pool, uint16_t memcg, enum lru_list list);

void lru_add_slow(struct ucow_page *page);
/* lru_add - a new private page; soon on its group's list. Requires: it is on none. */
static inline void lru_add(struct ucow_page *page)
{
	if (unlikely(page_pool(page)->lru))
		lru_add_slow(page);
}
/* lru_drain - what waits in batches goes to its lists. Returns: how many frames came free. Pools without lists: 0. */
uint64_t lru_drain(struct frame_pool *pool);
/* lru_forget - the last reference of a page has gone. Returns: false: it will be freed with the batch that it is in. */
bool lru_forget(struct ucow_page *page);

/* lru_isolate - up to @n of the oldest pages of a list, off it and with a reference each. Returns: how many. */
unsigned lru_isolate(struct frame_pool *pool, uint16_t memcg, enum lru_list list, struct ucow_page **pages, unsigned n);
/* lru_isolate_page - the same for one page that the caller has a reference to. Returns: whether it was on a list. */
bool lru_isolate_page(struct ucow_page *page);
enum lru_end { LRU_NEWEST, LRU_OLDEST };
/* lru_put_back - an isolated page to the list that PAGE_ACTIVE names; the reference goes. */
void lru_put_back(struct ucow_page *page, enum lru_end end);
/* lru_check - [INV-LRU-1] Returns: NULL or what is wrong. Requires: nothing changes meanwhile. */
const char *lru_check(const struct frame_pool *pool);

/* ---- pins (pins.c) ---- */

/*
 * An account counts, exactly, the pins that one space has taken; it outlives the space until the last one is released.
 * Unpinning needs neither the space nor its account: the page names the account.
 */
struct pin_account {
	_Atomic uint64_t state; /* pins outstanding, and PIN_ACCOUNT_OPEN while the space lives */
	_Atomic uint64_t limit; /* most pins; 0: none */
	struct frame_pool *pool;
	uint16_t id;
};
#define PIN_ACCOUNT_OPEN ((uint64_t)1 << 63)

/* pin_account_create - Returns: NULL when memory or account numbers are exhausted. */
struct pin_account *pin_account_create(struct frame_pool *pool, uint64_t limit);
/* pin_account_close - the space is gone; the account goes with its last pin. NULL is allowed. */
void pin_account_close(struct pin_account *account);
/* pin_account_reserve - count up to @npages pins ahead. Returns: how many fit under the limit. */
uint64_t pin_account_reserve(struct pin_account *account, uint64_t npages);
/* pin_account_release - take back what was reserved and not used, or unpinned. */
void pin_account_release(struct pin_account *account, uint64_t npages);
static inline uint64_t pin_account_count(const struct pin_account *account)
{
	return atomic_load_explicit(&account->state, memory_order_relaxed) & ~PIN_ACCOUNT_OPEN;
}

/*
 * page_pin - pin for @account, whose count the caller has reserved. Requires: the page cannot go away meanwhile.
 * Returns: 0; -ENOMEM (a count would overflow).
 */
int page_pin(struct ucow_page *page, struct pin_account *account);
/*
 * page_try_pin - page_pin for a page that may be free by now. Only the easy case: nobody else has pinned it. A full
 * fence. Returns: 0; -EAGAIN: not so easy.
 */
int page_try_pin(struct ucow_page *page, const struct pin_account *account);
/*
 * page_unpin - release a pin of @account, or, if that is NULL, of whoever pinned the page first.
 * Returns: the account whose pin this was; the caller releases its count.
 */
struct pin_account *page_unpin(struct ucow_page *page, const struct pin_account *account);

#endif
