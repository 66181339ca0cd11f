/* SPDX-License-Identifier: MIT */
/*
 * The buddy allocator: blocks of 1 to 512 frames, committed from the host 2 MiB at a time and given back so. The head
 * of a free block carries PAGE_FREE, its order, and PAGE_ZEROED when no byte of the block was ever written.
 */
#include "frame/frame.h"

#include "base/host.h"

#include <errno.h>
#include <string.h>

/* Free 2 MiB blocks to hold before any goes back: at least this many, and never more than half of what is committed. */
#define KEEP_FREE_BLOCKS 32

static struct ucow_page *list_page(struct list *link)
{
	return container_of(link, struct ucow_page, link);
}

static void block_insert(struct frame_pool *pool, struct ucow_page *page, unsigned order, uint32_t zeroed)
{
	atomic_store_explicit(&page->flags, PAGE_FREE | zeroed, memory_order_relaxed);
	page->order = order;
	list_add(&pool->free[order], &page->link);
	pool->free_pages += (uint64_t)1 << order;
	pool->free_blocks += order == FRAME_MAX_ORDER;
}

static void block_remove(struct frame_pool *pool, struct ucow_page *page)
{
	list_del(&page->link);
	pool->free_pages -= (uint64_t)1 << page->order;
	pool->free_blocks -= page->order == FRAME_MAX_ORDER;
	page_clear(page, PAGE_FREE);
}

/* The bytes and the descriptors of a block, so that no later touch can fail [rule 16]. */
static int commit(struct frame_pool *pool, struct ucow_page *head)
{
	uint64_t pfn = (uint64_t)(head - pool->pages);

	if (host_commit(head, FRAME_BLOCK_PAGES * sizeof(*head)))
		return -ENOMEM;
	return host_commit(pool->ram + (pfn << UCOW_PAGE_SHIFT), FRAME_BLOCK_BYTES);
}

static void describe_block(struct frame_pool *pool, struct ucow_page *head)
{
	for (unsigned i = 0; i < FRAME_BLOCK_PAGES; i++)
		head[i].pool = pool->id;
}

/* A block to commit: one that was given back, or the next never used. NULL: RAM is exhausted. Called locked. */
static struct ucow_page *uncommitted_take(struct frame_pool *pool)
{
	struct ucow_page *head;

	if (!list_is_empty(&pool->cold)) {
		head = list_page(pool->cold.next);
		list_del(&head->link);
		return head;
	}
	if (pool->next_block == pool->npages / FRAME_BLOCK_PAGES)
		return NULL;
	return &pool->pages[pool->next_block++ * FRAME_BLOCK_PAGES];
}

/* Commit one more block, the lock dropped meanwhile. Returns: whether the lists may have grown. */
static bool grow_locked(struct frame_pool *pool)
{
	struct ucow_page *head = uncommitted_take(pool);
	int error;

	if (!head)
		return false;
	spin_unlock(&pool->lock, LOCK_BUDDY);
	error = commit(pool, head);
	if (!error)
		describe_block(pool, head);
	spin_lock(&pool->lock, LOCK_BUDDY);
	if (error) {
		list_add(&pool->cold, &head->link);
		return false;
	}
	pool->committed_blocks++;
	block_insert(pool, head, FRAME_MAX_ORDER, PAGE_ZEROED);
	return true;
}

/* The smallest sufficient free block, or NULL. */
static struct ucow_page *find_locked(struct frame_pool *pool, unsigned order)
{
	for (unsigned have = order; have <= FRAME_MAX_ORDER; have++)
		if (!list_is_empty(&pool->free[have]))
			return list_page(pool->free[have].next);
	return NULL;
}

static struct ucow_page *alloc_locked(struct frame_pool *pool, unsigned order)
{
	struct ucow_page *page;
	uint32_t zeroed;
	unsigned have;

	while (!(page = find_locked(pool, order)))
		if (!grow_locked(pool))
			return NULL;
	have = (unsigned)page->order;
	block_remove(pool, page);
	zeroed = atomic_load_explicit(&page->flags, memory_order_relaxed) & PAGE_ZEROED;
	while (have-- > order)
		block_insert(pool, page + ((size_t)1 << have), have, zeroed);
	for (unsigned i = 0; i < 1u << order; i++)
		atomic_store_explicit(&page[i].flags, zeroed, memory_order_relaxed);
	return page;
}

struct ucow_page *buddy_alloc(struct frame_pool *pool, unsigned order)
{
	struct ucow_page *page;

	spin_lock(&pool->lock, LOCK_BUDDY);
	page = alloc_locked(pool, order);
	spin_unlock(&pool->lock, LOCK_BUDDY);
	return page;
}

unsigned buddy_alloc_batch(struct frame_pool *pool, struct ucow_page **pages, unsigned n)
{
	unsigned done = 0;

	spin_lock(&pool->lock, LOCK_BUDDY);
	while (done < n && (pages[done] = alloc_locked(pool, 0)))
		done++;
	spin_unlock(&pool->lock, LOCK_BUDDY);
	return done;
}

/* Take one free 2 MiB block off the lists if there are more than hysteresis wants. Called locked. */
static struct ucow_page *surplus_take(struct frame_pool *pool)
{
	struct ucow_page *head;

	if (pool->keep || pool->free_blocks <= max_u64(KEEP_FREE_BLOCKS, pool->committed_blocks / 2))
		return NULL;
	head = list_page(pool->free[FRAME_MAX_ORDER].prev);
	block_remove(pool, head);
	pool->committed_blocks--;
	return head;
}

static void give_back(struct frame_pool *pool, struct ucow_page *head)
{
	uint64_t pfn = (uint64_t)(head - pool->pages);
	bool given = host_decommit(pool->ram + (pfn << UCOW_PAGE_SHIFT), FRAME_BLOCK_BYTES);

	spin_lock(&pool->lock, LOCK_BUDDY);
	if (given) {
		list_add(&pool->cold, &head->link);
	} else {
		pool->committed_blocks++;
		block_insert(pool, head, FRAME_MAX_ORDER, page_is(head, PAGE_ZEROED) ? PAGE_ZEROED : 0);
	}
	spin_unlock(&pool->lock, LOCK_BUDDY);
}

/*
 * What is known of the bytes of two merging buddies: zero if both are, else nothing. Where frees are poisoned a merged
 * block is either all zero or all poison, so a half that was never written is poisoned now.
 */
static uint32_t merge_contents(struct frame_pool *pool, struct ucow_page *page, struct ucow_page *buddy, unsigned order,
			       uint32_t zeroed)
{
	uint32_t buddy_zeroed = atomic_load_explicit(&buddy->flags, memory_order_relaxed) & PAGE_ZEROED;

	if (pool->poison && zeroed != buddy_zeroed)
		frame_poison(zeroed ? page : buddy, order);
	return zeroed & buddy_zeroed;
}

static void free_locked(struct frame_pool *pool, struct ucow_page *page, unsigned order)
{
	uint64_t pfn = (uint64_t)(page - pool->pages);
	uint32_t zeroed = atomic_load_explicit(&page->flags, memory_order_relaxed) & PAGE_ZEROED;

	UCOW_BUG_ON(page_is(page, PAGE_FREE));
	while (order < FRAME_MAX_ORDER) {
		struct ucow_page *buddy = &pool->pages[pfn ^ ((uint64_t)1 << order)];

		if (!page_is(buddy, PAGE_FREE) || buddy->order != order)
			break;
		block_remove(pool, buddy);
		zeroed = merge_contents(pool, &pool->pages[pfn], buddy, order, zeroed);
		pfn &= ~((uint64_t)1 << order);
		order++;
	}
	block_insert(pool, &pool->pages[pfn], order, zeroed);
}

void buddy_free(struct frame_pool *pool, struct ucow_page *page, unsigned order)
{
	struct ucow_page *surplus;

	spin_lock(&pool->lock, LOCK_BUDDY);
	free_locked(pool, page, order);
	surplus = surplus_take(pool);
	spin_unlock(&pool->lock, LOCK_BUDDY);
	if (surplus)
		give_back(pool, surplus);
}

void buddy_free_batch(struct frame_pool *pool, struct ucow_page *const *pages, unsigned n)
{
	struct ucow_page *surplus;

	spin_lock(&pool->lock, LOCK_BUDDY);
	for (unsigned i = 0; i < n; i++)
		free_locked(pool, pages[i], 0);
	surplus = surplus_take(pool);
	spin_unlock(&pool->lock, LOCK_BUDDY);
	if (surplus)
		give_back(pool, surplus);
}

static const char *check_list_locked(struct frame_pool *pool, unsigned order, uint64_t *total)
{
	LIST_FOR_EACH (link, &pool->free[order]) {
		struct ucow_page *page = list_page(link);

		if (!page_is(page, PAGE_FREE) || page->order != order)
			return "a block on a free list is not marked so";
		if ((uint64_t)(page - pool->pages) & (((uint64_t)1 << order) - 1))
			return "a free block is not aligned to its order";
		if (page_refcount(page) || page_mapcount(page))
			return "a free frame has references";
		*total += (uint64_t)1 << order;
	}
	return NULL;
}

const char *buddy_check(struct frame_pool *pool)
{
	const char *wrong = NULL;
	uint64_t total = 0;

	spin_lock(&pool->lock, LOCK_BUDDY);
	for (unsigned order = 0; order <= FRAME_MAX_ORDER && !wrong; order++)
		wrong = check_list_locked(pool, order, &total);
	if (!wrong && total != pool->free_pages)
		wrong = "the count of free pages is not the sum of the lists";
	spin_unlock(&pool->lock, LOCK_BUDDY);
	return wrong;
}
