/* SPDX-License-Identifier: MIT */
/* Pools, the per-thread caches of single frames, poison, and the page lock. */
#include "frame/frame.h"

#include "base/barrier.h"
#include "base/futex.h"
#include "base/host.h"
#include "base/mutate.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define POISON_BYTE 0xa5

struct frame_pool *frame_pools[FRAME_POOLS];
static pthread_mutex_t pools_lock = PTHREAD_MUTEX_INITIALIZER; /* writers of frame_pools; innermost, held alone */

/* ---- pool ---- */

static int pool_register(struct frame_pool *pool)
{
	int error = -ENOMEM;

	pthread_mutex_lock(&pools_lock);
	for (unsigned id = 0; id < FRAME_POOLS && error; id++)
		if (!frame_pools[id]) {
			frame_pools[id] = pool;
			pool->id = (uint16_t)id;
			error = 0;
		}
	pthread_mutex_unlock(&pools_lock);
	return error;
}

static void pool_unregister(struct frame_pool *pool)
{
	pthread_mutex_lock(&pools_lock);
	frame_pools[pool->id] = NULL;
	pthread_mutex_unlock(&pools_lock);
}

/* Address space only, aligned to 2 MiB; the embedder's fork(2) must not copy it [rule 16]. */
static void *reserve(uint64_t nbytes)
{
	uint64_t total = nbytes + FRAME_BLOCK_BYTES;
	char *area = host_map(total);
	uint64_t before;

	if (!area)
		return NULL;
	before = -(uintptr_t)area & (FRAME_BLOCK_BYTES - 1);
	if (before)
		host_unmap(area, before);
	if (FRAME_BLOCK_BYTES - before)
		host_unmap(area + before + nbytes, FRAME_BLOCK_BYTES - before);
	area += before;
	if (host_keep_from_fork(area, nbytes)) {
		host_unmap(area, nbytes);
		return NULL;
	}
	host_advise_huge(area, nbytes);
	return area;
}

static uint64_t descriptor_bytes(const struct frame_pool *pool)
{
	return page_round_up(pool->npages * sizeof(struct ucow_page));
}

static void release(struct frame_pool *pool)
{
	if (pool->ram)
		host_unmap(pool->ram, pool->npages << UCOW_PAGE_SHIFT);
	if (pool->pages)
		host_unmap(pool->pages, descriptor_bytes(pool));
}

static int zero_page_create(struct frame_pool *pool)
{
	struct ucow_page *page = buddy_alloc(pool, 0);

	if (!page)
		return -ENOMEM;
	atomic_store(&page->word, 1);
	atomic_store(&page->flags, PAGE_ZERO);
	pool->zero_page = page;
	return 0;
}

int frame_pool_init(struct frame_pool *pool, uint64_t nbytes, struct inject *inject, struct counters *counters,
		    bool poison, bool keep)
{
	int error = -ENOMEM;

	memset(pool, 0, sizeof(*pool));
	pool->npages = nbytes >> UCOW_PAGE_SHIFT;
	pool->inject = inject;
	pool->counters = counters;
	pool->poison = poison;
	pool->keep = keep;
	list_init(&pool->cold);
	for (unsigned order = 0; order <= FRAME_MAX_ORDER; order++)
		list_init(&pool->free[order]);
	pool->ram = reserve(nbytes);
	pool->pages = reserve(descriptor_bytes(pool));
	if (!pool->ram || !pool->pages)
		goto fail_reserve;
	error = pool_register(pool);
	if (error)
		goto fail_reserve;
	error = zero_page_create(pool);
	if (error)
		goto fail_register;
	mutex_init(&pool->pins_lock, LOCK_PINS);
	return 0;

fail_register:
	pool_unregister(pool);
fail_reserve:
	release(pool);
	return error;
}

void frame_pool_destroy(struct frame_pool *pool)
{
	UCOW_BUG_ON(frame_pool_used(pool));
	mutex_destroy(&pool->pins_lock);
	if (pool->accounts)
		host_unmap(pool->accounts, PIN_ACCOUNT_LIMIT * sizeof(*pool->accounts));
	pool_unregister(pool);
	release(pool);
}

uint64_t frame_pool_used(struct frame_pool *pool)
{
	uint64_t idle = 0, used;

	for (unsigned slot = 0; slot < THREAD_SLOTS; slot++)
		idle += atomic_load_explicit(&pool->caches[slot].count, memory_order_relaxed) +
			atomic_load_explicit(&pool->caches[slot].home_left, memory_order_relaxed);
	spin_lock(&pool->lock, LOCK_BUDDY);
	used = pool->committed_blocks * FRAME_BLOCK_PAGES - pool->free_pages;
	spin_unlock(&pool->lock, LOCK_BUDDY);
	/* Frames on the move between the two readings may be seen twice. */
	idle += pool->zero_page != NULL;
	return used > idle ? used - idle : 0;
}

/* ---- poison ---- */

void frame_poison(struct ucow_page *page, unsigned order)
{
	memset(page_bytes(page), POISON_BYTE, UCOW_PAGE_SIZE << order);
}

bool frame_poison_check(const struct ucow_page *page)
{
	const unsigned char *bytes = page_bytes(page);

	return bytes[0] == POISON_BYTE && !memcmp(bytes, bytes + 1, UCOW_PAGE_SIZE - 1);
}

/* ---- single frames ---- */

/* Whether more than one slot has ever run out of frames. */
static bool is_crowded(struct frame_pool *pool)
{
	uint32_t first = 0, self = thread_slot() + 1;

	if (likely(atomic_load_explicit(&pool->crowded, memory_order_relaxed)))
		return true;
	if (atomic_compare_exchange_strong(&pool->refiller, &first, self) || first == self)
		return false;
	atomic_store_explicit(&pool->crowded, true, memory_order_relaxed);
	return true;
}

/* A batch out of the slot's home block, which is renewed. Returns: how many; 0: no home, or no such block is free. */
static unsigned home_take(struct frame_pool *pool, struct frame_cache *cache, struct ucow_page **batch)
{
	uint32_t left = atomic_load_explicit(&cache->home_left, memory_order_relaxed);

	if (!left) {
		cache->home = is_crowded(pool) ? buddy_alloc(pool, FRAME_HOME_ORDER) : NULL;
		if (!cache->home)
			return 0;
		left = 1u << FRAME_HOME_ORDER;
	}
	for (unsigned i = 0; i < FRAME_CACHE_BATCH; i++)
		batch[i] = cache->home++;
	atomic_store_explicit(&cache->home_left, left - FRAME_CACHE_BATCH, memory_order_relaxed);
	return FRAME_CACHE_BATCH;
}

static void home_give_up(struct frame_pool *pool, struct frame_cache *cache)
{
	uint32_t left = atomic_load_explicit(&cache->home_left, memory_order_relaxed);

	for (; left; left--, cache->home++)
		buddy_free_batch(pool, &cache->home, 1);
	atomic_store_explicit(&cache->home_left, 0, memory_order_relaxed);
}

/* The stock is used from its end: turned round, frames come out in the ascending order that prefetchers follow. */
static void cache_refill(struct frame_pool *pool, struct frame_cache *cache)
{
	struct ucow_page *batch[FRAME_CACHE_BATCH];
	unsigned n = home_take(pool, cache, batch);

	if (!n)
		n = buddy_alloc_batch(pool, batch, FRAME_CACHE_BATCH);
	for (unsigned i = 0; i < n; i++) {
		page_set(batch[i], PAGE_CACHED);
		cache->pages[n - 1 - i] = batch[i];
	}
	atomic_store_explicit(&cache->count, n, memory_order_relaxed);
}

/* The oldest pages go first: the newest are warm. */
static void cache_drain(struct frame_pool *pool, struct frame_cache *cache, uint32_t keep)
{
	uint32_t have = atomic_load_explicit(&cache->count, memory_order_relaxed), drop = have > keep ? have - keep : 0;

	for (uint32_t i = 0; i < drop; i++)
		page_clear(cache->pages[i], PAGE_CACHED);
	buddy_free_batch(pool, cache->pages, drop);
	memmove(cache->pages, cache->pages + drop, (have - drop) * sizeof(*cache->pages));
	atomic_store_explicit(&cache->count, have - drop, memory_order_relaxed);
}

static struct ucow_page *cache_take(struct frame_pool *pool)
{
	struct frame_cache *cache = &pool->caches[thread_slot()];
	struct ucow_page *page = NULL;
	uint32_t have;

	spin_lock(&cache->lock, LOCK_PCP);
	if (!atomic_load_explicit(&cache->count, memory_order_relaxed))
		cache_refill(pool, cache);
	have = atomic_load_explicit(&cache->count, memory_order_relaxed);
	if (have) {
		page = cache->pages[have - 1];
		atomic_store_explicit(&cache->count, have - 1, memory_order_relaxed);
	}
	spin_unlock(&cache->lock, LOCK_PCP);
	return page;
}

/* RAM looks exhausted: what other threads' caches hold is free memory too. */
static void caches_drain(struct frame_pool *pool)
{
	for (unsigned slot = 0; slot < THREAD_SLOTS; slot++) {
		struct frame_cache *cache = &pool->caches[slot];

		spin_lock(&cache->lock, LOCK_PCP);
		cache_drain(pool, cache, 0);
		home_give_up(pool, cache);
		spin_unlock(&cache->lock, LOCK_PCP);
	}
}

struct ucow_page *frame_alloc(struct frame_pool *pool, enum frame_want want)
{
	struct ucow_page *page;
	uint32_t flags;

	if (inject_fails(pool->inject, UCOW_INJECT_FRAME))
		return NULL;
	page = cache_take(pool);
	if (unlikely(!page)) {
		/* Also waits for a thread that is committing the last block, which it does under its cache's lock. */
		caches_drain(pool);
		page = cache_take(pool);
		if (!page)
			return NULL;
	}
	flags = atomic_load_explicit(&page->flags, memory_order_relaxed);
	if (unlikely(pool->poison) && !(flags & PAGE_ZEROED) && !frame_poison_check(page))
		UCOW_BUG("a free frame was written to");
	if (want == FRAME_ZEROED && !(flags & PAGE_ZEROED) && !MUTATED(SKIP_ZEROING))
		memset(page_bytes(page), 0, UCOW_PAGE_SIZE);
	atomic_store_explicit(&page->flags, 0, memory_order_relaxed);
	page->mapping = NULL;
	/* Release: who gets a reference to what he knew of before finds that it is something else now. */
	atomic_store_explicit(&page->word, 1, memory_order_release);
	return page;
}

void page_free(struct ucow_page *page)
{
	if (unlikely(page_is(page, PAGE_LRU | PAGE_BATCHED)) && !lru_forget(page))
		return;
	page_free_now(page);
}

void page_free_now(struct ucow_page *page)
{
	struct frame_pool *pool = page_pool(page);
	struct frame_cache *cache = &pool->caches[thread_slot()];
	uint32_t have;

	UCOW_BUG_ON(page_mapcount(page) || page_pincount(page) || page_is(page, PAGE_ZERO | PAGE_FREE | PAGE_CACHED));
	hook_step(HOOK_STORE, page_bytes(page)); /* what a late reader finds is poison, or somebody else's */
	if (unlikely(page->memcg)) {
		if (!MUTATED(FORGET_UNCHARGE))
			pool->uncharge(pool, page->memcg);
		page->memcg = 0;
	}
	atomic_store_explicit(&page->word, 0, memory_order_relaxed);
	atomic_store_explicit(&page->flags, PAGE_CACHED, memory_order_relaxed);
	if (unlikely(pool->poison))
		frame_poison(page, 0);
	spin_lock(&cache->lock, LOCK_PCP);
	have = atomic_load_explicit(&cache->count, memory_order_relaxed);
	if (have == FRAME_CACHE_PAGES) {
		cache_drain(pool, cache, FRAME_CACHE_PAGES - FRAME_CACHE_BATCH);
		have = FRAME_CACHE_PAGES - FRAME_CACHE_BATCH;
	}
	cache->pages[have] = page;
	atomic_store_explicit(&cache->count, have + 1, memory_order_relaxed);
	spin_unlock(&cache->lock, LOCK_PCP);
}

#if BARRIER_TSAN
/* Somebody may be storing to the page that is copied, and then the copy is thrown away: said in the terms of the tool.
 */
void page_copy(void *to, const void *from)
{
	for (size_t i = 0; i < UCOW_PAGE_SIZE / sizeof(uint64_t); i++)
		((uint64_t *)to)[i] = __atomic_load_n((const uint64_t *)from + i, __ATOMIC_RELAXED);
}

bool page_equals(const void *a, const void *b)
{
	bool same = true;

	for (size_t i = 0; i < UCOW_PAGE_SIZE / sizeof(uint64_t) && same; i++)
		same = __atomic_load_n((const uint64_t *)a + i, __ATOMIC_RELAXED) ==
		       __atomic_load_n((const uint64_t *)b + i, __ATOMIC_RELAXED);
	return same;
}
#else
void page_copy(void *to, const void *from)
{
	hook_step(HOOK_LOAD, from);
	memcpy(to, from, UCOW_PAGE_SIZE);
}

bool page_equals(const void *a, const void *b)
{
	hook_step(HOOK_LOAD, a);
	return !memcmp(a, b, UCOW_PAGE_SIZE);
}
#endif

int page_try_get(struct ucow_page *page)
{
	/* Acquire: who finds the page gone sees what its last user did before. */
	uint64_t before = atomic_load_explicit(&page->word, memory_order_acquire);

	do {
		if ((before & PAGE_REF_MASK) == 0)
			return -ENOENT;
		if ((before & PAGE_REF_MASK) >= PAGE_REF_MAX)
			return -ENOMEM;
	} while (!atomic_compare_exchange_weak(&page->word, &before, before + 1));
	return 0;
}

bool page_freeze(struct ucow_page *page, uint32_t expected)
{
	uint64_t before = atomic_load_explicit(&page->word, memory_order_relaxed);

	do {
		if ((before & PAGE_REF_MASK) != expected || page_pincount(page))
			return false;
	} while (!atomic_compare_exchange_weak(&page->word, &before, before - expected));
	return true;
}

/* ---- page lock ---- */

bool page_lock_unless(struct ucow_page *page, uint32_t flag)
{
	while (!page_trylock(page)) {
		uint32_t flags = atomic_fetch_or(&page->flags, PAGE_WAITERS) | PAGE_WAITERS;

		if (flags & flag)
			return false;
		if (flags & PAGE_LOCKED)
			futex_wait(&page->flags, flags);
	}
	return true;
}

void page_lock(struct ucow_page *page)
{
	(void)page_lock_unless(page, 0);
}

void page_set_and_wake(struct ucow_page *page, uint32_t flag)
{
	if (atomic_fetch_or(&page->flags, flag) & PAGE_WAITERS)
		futex_wake(&page->flags);
}

void page_clear_and_wake(struct ucow_page *page, uint32_t flags)
{
	if (atomic_fetch_and_explicit(&page->flags, ~flags, memory_order_release) & PAGE_WAITERS)
		futex_wake(&page->flags);
}

void page_unlock(struct ucow_page *page)
{
	uint32_t before = atomic_fetch_and_explicit(&page->flags, ~(PAGE_LOCKED | PAGE_WAITERS), memory_order_release);

	UCOW_BUG_ON(!(before & PAGE_LOCKED));
	if (before & PAGE_WAITERS)
		futex_wake(&page->flags);
}
