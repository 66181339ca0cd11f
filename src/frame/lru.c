/* SPDX-License-Identifier: MIT */
/*
 * LRU lists: the private pages of each group by how long they were not used, on two lists, and the batches in which
 * new pages wait for their list. Which pages to take is reclaim/'s business.
 */
#include "frame/frame.h"

#include "base/host.h"

#include <errno.h>

/* Whoever walks over the groups may meet one whose lists are just being made. */
static struct lruvec *vec_at(const struct lru *lru, unsigned memcg)
{
	return atomic_load_explicit(&lru->vecs[memcg], memory_order_acquire);
}

static struct lruvec *vec_of(const struct ucow_page *page)
{
	return vec_at(page_pool(page)->lru, page->memcg);
}

static unsigned list_of(const struct ucow_page *page)
{
	return page_is(page, PAGE_ACTIVE) ? LRU_ACTIVE : LRU_INACTIVE;
}

/* ---- the lists of a pool ---- */

static struct lruvec *vec_init(struct lruvec *vec)
{
	for (unsigned i = 0; vec && i < LRU_LISTS; i++)
		list_init(&vec->lists[i]);
	return vec;
}

/* So that whoever looks at all groups need not look at those that never were. */
static void note_vec(struct lru *lru, unsigned memcg)
{
	unsigned n = atomic_load_explicit(&lru->nvecs, memory_order_relaxed);

	while (n <= memcg && !atomic_compare_exchange_weak(&lru->nvecs, &n, memcg + 1))
		continue;
}

int lru_vec_create(struct lru *lru, uint16_t memcg)
{
	struct lruvec *vec = vec_at(lru, memcg);

	if (vec)
		return 0;
	/* A page of its own: what only mapped memory points to would look lost to a leak checker. */
	vec = vec_init(memcg ? host_map(UCOW_PAGE_SIZE) : &lru->nobodys);
	atomic_store_explicit(&lru->vecs[memcg], vec, memory_order_release);
	if (vec)
		note_vec(lru, memcg);
	return vec ? 0 : -ENOMEM;
}

int lru_vec_open(struct frame_pool *pool, uint16_t memcg)
{
	return pool->lru ? lru_vec_create(pool->lru, memcg) : 0;
}

struct lru *lru_create(void)
{
	struct lru *lru = host_map(sizeof(*lru));

	for (unsigned slot = 0; lru && slot < THREAD_SLOTS; slot++)
		list_init(&lru->batches[slot].dead);
	if (lru)
		(void)lru_vec_create(lru, 0); /* which is there already */
	return lru;
}

void lru_destroy(struct lru *lru)
{
	for (unsigned id = 1; lru && id < lru->nvecs; id++)
		if (vec_at(lru, id))
			host_unmap(vec_at(lru, id), UCOW_PAGE_SIZE);
	if (lru)
		host_unmap(lru, page_round_up(sizeof(*lru)));
}

void lru_close(struct frame_pool *pool)
{
	if (pool->lru)
		lru_drain(pool);
	for (unsigned id = 0; pool->lru && id < pool->lru->nvecs; id++)
		UCOW_BUG_ON(lru_count(pool, (uint16_t)id, LRU_ACTIVE) || lru_count(pool, (uint16_t)id, LRU_INACTIVE));
	lru_destroy(atomic_exchange(&pool->lru, NULL));
}

uint64_t lru_count(const struct frame_pool *pool, uint16_t memcg, enum lru_list list)
{
	const struct lruvec *vec = pool->lru ? vec_at(pool->lru, memcg) : NULL;

	return vec ? atomic_load_explicit(&vec->npages[list], memory_order_relaxed) : 0;
}

/* ---- on and off a list. Require the list's lock. ---- */

static void link_page(struct lruvec *vec, struct ucow_page *page)
{
	unsigned list = list_of(page);

	list_add(&vec->lists[list], &page->link);
	atomic_store_explicit(&vec->npages[list], vec->npages[list] + 1, memory_order_relaxed);
}

static void unlink_page(struct lruvec *vec, struct ucow_page *page)
{
	unsigned list = list_of(page);

	list_del(&page->link);
	atomic_store_explicit(&vec->npages[list], vec->npages[list] - 1, memory_order_relaxed);
}

/* ---- batches ---- */

/*
 * A batch holds no reference, so that pages in it are as free to be reused by their owner as those on a list are
 * (unlike Linux's, semantics.md D.3, 1). Who drops the last reference of a page in a batch leaves it there, marked: one
 * locked operation of each side on one word decides who frees it. Returns: whether the page goes on to its list; false:
 * it was marked, and is the caller's to free.
 */
static bool leaves_batch(struct ucow_page *page)
{
	uint32_t flags = atomic_load_explicit(&page->flags, memory_order_relaxed), next;

	do
		next = (flags & ~(uint32_t)PAGE_BATCHED) | (flags & PAGE_DYING ? 0 : (uint32_t)PAGE_LRU);
	while (!atomic_compare_exchange_weak_explicit(&page->flags, &flags, next, memory_order_acq_rel,
						      memory_order_relaxed));
	return !(flags & PAGE_DYING);
}

/* Requires: the batch's lock. Returns: how many frames came free. */
static unsigned batch_drain(struct lru_batch *batch)
{
	struct lruvec *held = NULL;
	unsigned freed = 0;

	for (unsigned i = 0; i < batch->count; i++) {
		struct ucow_page *page = batch->pages[i];
		struct lruvec *vec = vec_of(page);

		if (vec != held && held)
			spin_unlock(&held->lock, LOCK_LRU);
		if (vec != held)
			spin_lock(&vec->lock, LOCK_LRU);
		held = vec;
		if (leaves_batch(page))
			link_page(vec, page);
		else
			list_add(&batch->dead, &page->link);
	}
	if (held)
		spin_unlock(&held->lock, LOCK_LRU);
	batch->count = 0;
	for (; !list_is_empty(&batch->dead); freed++) {
		struct ucow_page *page = container_of(batch->dead.next, struct ucow_page, link);

		list_del(&page->link);
		page_free_now(page);
	}
	return freed;
}

void lru_add_slow(struct ucow_page *page)
{
	struct lru_batch *batch = &page_pool(page)->lru->batches[thread_slot()];

	page_set(page, PAGE_BATCHED);
	spin_lock(&batch->lock, LOCK_BATCH);
	batch->pages[batch->count++] = page;
	if (batch->count == LRU_BATCH)
		batch_drain(batch);
	spin_unlock(&batch->lock, LOCK_BATCH);
}

uint64_t lru_drain(struct frame_pool *pool)
{
	uint64_t freed = 0;

	for (unsigned slot = 0; pool->lru && slot < THREAD_SLOTS; slot++) {
		struct lru_batch *batch = &pool->lru->batches[slot];

		spin_lock(&batch->lock, LOCK_BATCH);
		freed += batch_drain(batch);
		spin_unlock(&batch->lock, LOCK_BATCH);
	}
	return freed;
}

bool lru_forget(struct ucow_page *page)
{
	uint32_t flags = atomic_fetch_or_explicit(&page->flags, PAGE_DYING, memory_order_acq_rel);
	struct lruvec *vec;

	if (flags & PAGE_BATCHED)
		return false; /* and it may be gone */
	vec = vec_of(page);
	spin_lock(&vec->lock, LOCK_LRU);
	/* Who isolates a page needs a reference, which there was none to get: it is where its flag says. */
	if (page_is(page, PAGE_LRU))
		unlink_page(vec, page);
	spin_unlock(&vec->lock, LOCK_LRU);
	return true;
}

/* ---- reclaim's hands ---- */

unsigned lru_isolate(struct frame_pool *pool, uint16_t memcg, enum lru_list list, struct ucow_page **pages, unsigned n)
{
	struct lruvec *vec = vec_at(pool->lru, memcg);
	unsigned got = 0, looked = 0;

	if (!vec)
		return 0;
	spin_lock(&vec->lock, LOCK_LRU);
	while (got < n && looked++ < 2 * n && !list_is_empty(&vec->lists[list])) {
		struct ucow_page *page = container_of(vec->lists[list].prev, struct ucow_page, link);

		if (page_try_get(page)) {
			/* Somebody is freeing it, and will find it here. */
			list_del(&page->link);
			list_add(&vec->lists[list], &page->link);
			continue;
		}
		unlink_page(vec, page);
		page_clear(page, PAGE_LRU);
		pages[got++] = page;
	}
	spin_unlock(&vec->lock, LOCK_LRU);
	return got;
}

bool lru_isolate_page(struct ucow_page *page)
{
	struct lruvec *vec = page_pool(page)->lru ? vec_of(page) : NULL;
	bool isolated;

	if (!vec)
		return false;
	spin_lock(&vec->lock, LOCK_LRU);
	isolated = page_is(page, PAGE_LRU);
	if (isolated) {
		unlink_page(vec, page);
		page_clear(page, PAGE_LRU);
	}
	spin_unlock(&vec->lock, LOCK_LRU);
	return isolated;
}

void lru_put_back(struct ucow_page *page, enum lru_end end)
{
	struct lruvec *vec = vec_of(page);

	spin_lock(&vec->lock, LOCK_LRU);
	page_set(page, PAGE_LRU);
	link_page(vec, page);
	if (end == LRU_OLDEST) {
		struct list *list = &vec->lists[list_of(page)];

		list_del(&page->link);
		list_add_tail(list, &page->link);
	}
	spin_unlock(&vec->lock, LOCK_LRU);
	page_put(page);
}

const char *lru_check(const struct frame_pool *pool)
{
	for (unsigned id = 0; pool->lru && id < pool->lru->nvecs; id++)
		for (unsigned list = 0; vec_at(pool->lru, id) && list < LRU_LISTS; list++) {
			uint64_t n = 0;

			LIST_FOR_EACH (link, &vec_at(pool->lru, id)->lists[list]) {
				const struct ucow_page *page = container_of(link, struct ucow_page, link);

				if (!page_is(page, PAGE_LRU) || page->memcg != id || list_of(page) != list)
					return "a page is on an LRU list that is not its own";
				n++;
			}
			if (n != vec_at(pool->lru, id)->npages[list])
				return "an LRU list's number of pages is wrong";
		}
	return NULL;
}
