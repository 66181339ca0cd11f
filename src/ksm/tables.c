/* SPDX-License-Identifier: MIT */
/* The stable table, of merged pages, and the unstable one, of pages whose equals have not turned up yet. */
#include "ksm/ksm.h"

#include "base/host.h"

#include <errno.h>
#include <string.h>

#define FEWEST 256

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- stable ---- */

int stable_init(struct ksm_stable *stable)
{
	stable->buckets = host_alloc(FEWEST * sizeof(*stable->buckets));
	if (!stable->buckets)
		return -ENOMEM;
	stable->nbuckets = FEWEST;
	mutex_init(&stable->lock, LOCK_KSM_NODES);
	slab_init(&stable->slab, sizeof(struct ksm_node));
	return 0;
}

void stable_destroy(struct ksm *ksm)
{
	struct ksm_stable *stable = &ksm->stable;

	for (uint64_t i = 0; i < stable->nbuckets; i++)
		while (stable->buckets[i]) {
			struct ksm_node *node = stable->buckets[i];

			stable->buckets[i] = node->next;
			stable_node_free(ksm, node);
		}
	slab_destroy(&stable->slab);
	mutex_destroy(&stable->lock);
	host_free(stable->buckets);
}

struct ksm_node *stable_node_create(struct ksm *ksm)
{
	struct ksm_node *node;

	if (inject_fails(&ksm->machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	node = slab_alloc(&ksm->stable.slab);
	if (node)
		node->homes_room = KSM_FIRST_HOMES;
	return node;
}

void stable_node_free(struct ksm *ksm, struct ksm_node *node)
{
	homes_drop(ksm, node);
	slab_free(&ksm->stable.slab, node);
}

static struct ksm_node **bucket_of(const struct ksm_stable *stable, uint64_t hash)
{
	return &stable->buckets[hash & (stable->nbuckets - 1)];
}

/* Without memory the buckets get longer, which is no reason to fail. Requires: the nodes' lock. */
static void stable_grow(struct ksm *ksm)
{
	struct ksm_stable *stable = &ksm->stable, grown = {.nbuckets = stable->nbuckets * 2};

	if (inject_fails(&ksm->machine->inject, UCOW_INJECT_OTHER))
		return;
	grown.buckets = host_alloc(grown.nbuckets * sizeof(*grown.buckets));
	if (!grown.buckets)
		return;
	for (uint64_t i = 0; i < stable->nbuckets; i++)
		for (struct ksm_node *node = stable->buckets[i], *next; node; node = next) {
			struct ksm_node **bucket = bucket_of(&grown, node->hash);

			next = node->next;
			node->next = *bucket;
			*bucket = node;
		}
	host_free(stable->buckets);
	stable->buckets = grown.buckets;
	stable->nbuckets = grown.nbuckets;
}

/* In front of its bucket: the latest of several nodes with the same bytes is the one that has room. */
void stable_insert(struct ksm *ksm, struct ksm_node *node)
{
	struct ksm_stable *stable = &ksm->stable;
	struct ksm_node **bucket;

	mutex_lock(&stable->lock);
	if (stable->nnodes >= stable->nbuckets)
		stable_grow(ksm);
	bucket = bucket_of(stable, node->hash);
	node->next = *bucket;
	*bucket = node;
	stable->nnodes++;
	mutex_unlock(&stable->lock);
}

/*
 * A reference to the node's page. The frame may have been freed, and used again for anything. Nobody but the scanner
 * and swap makes merged pages, and with a reference a page stays one; of any other page the word `mapping` is not ours
 * to read. Returns: NULL: there is no page now.
 */
static struct ucow_page *get_page(const struct ksm_node *node)
{
	struct ucow_page *page = node_page(node);

	if (page_try_get(page))
		return NULL;
	if ((atomic_load_explicit(&page->flags, memory_order_acquire) & PAGE_KSM) && page->mapping == node)
		return page;
	page_put(page);
	return NULL;
}

/* Asked after the page was found gone, since a slot is taken before the page goes. */
static bool is_swapped(struct ksm_node *node)
{
	return atomic_load(&node->merged.slots);
}

static void drop_stale(struct ksm *ksm, struct ksm_node **link)
{
	struct ksm_node *node = *link;

	mutex_lock(&ksm->stable.lock);
	*link = node->next;
	ksm->stable.nnodes--;
	mutex_unlock(&ksm->stable.lock);
	stable_node_free(ksm, node);
	add(&ksm->stale, 1);
}

static bool has_room(const struct ksm *ksm, const struct ucow_page *page)
{
	return page_mapcount(page) < ksm->options.max_page_sharing;
}

/* Its bytes are there, and nobody is at work on it who may be about to change where they are. */
static bool is_settled(const struct ucow_page *page)
{
	return !(atomic_load_explicit(&page->flags, memory_order_acquire) & (PAGE_LOCKED | PAGE_READING));
}

/* Returns: whether the node's page will do, with a reference in *page then; the next link to look at is *link. */
static bool look_at_node(struct ksm *ksm, struct ksm_node ***link, uint64_t hash, struct ucow_page **page)
{
	struct ksm_node *node = **link;

	if (node->hash != hash) {
		*link = &node->next;
		return false;
	}
	*page = get_page(node);
	if (!*page && !is_swapped(node)) {
		drop_stale(ksm, *link);
		return false;
	}
	if (*page && has_room(ksm, *page) && is_settled(*page))
		return true;
	if (*page)
		page_put(*page);
	*link = &node->next;
	return false;
}

struct ksm_node *stable_find(struct ksm *ksm, uint64_t hash, struct ksm_node *node, struct ucow_page **page)
{
	struct ksm_node **link = node ? &node->next : bucket_of(&ksm->stable, hash);

	while (*link)
		if (look_at_node(ksm, &link, hash, page))
			return *link;
	return NULL;
}

void stable_prune(struct ksm *ksm)
{
	for (uint64_t i = 0; i < ksm->stable.nbuckets; i++)
		for (struct ksm_node **link = &ksm->stable.buckets[i]; *link;) {
			struct ucow_page *page = get_page(*link);

			if (page) {
				page_put(page);
			} else if (!is_swapped(*link)) {
				drop_stale(ksm, link);
				continue;
			}
			link = &(*link)->next;
		}
}

static void count_node(const struct ksm_node *node, struct ucow_ksm_stat *stat)
{
	struct ucow_page *page = get_page(node);
	uint32_t mapcount;

	if (!page)
		return;
	mapcount = page_mapcount(page);
	stat->pages_shared += mapcount > 0;
	stat->pages_sharing += mapcount ? mapcount - 1 : 0;
	page_put(page);
}

void stable_stat(struct ksm *ksm, struct ucow_ksm_stat *stat)
{
	mutex_lock(&ksm->stable.lock);
	for (uint64_t i = 0; i < ksm->stable.nbuckets; i++)
		for (const struct ksm_node *node = ksm->stable.buckets[i]; node; node = node->next)
			count_node(node, stat);
	mutex_unlock(&ksm->stable.lock);
}

/* Its bytes are those that it was merged for, or it would not be found by their hash. */
const char *stable_check(struct ksm *ksm, const struct ucow_page *page)
{
	uint64_t hash = ksm_hash(ksm, page_bytes(page));

	for (const struct ksm_node *node = *bucket_of(&ksm->stable, hash); node; node = node->next)
		if (node == page->mapping)
			return node->hash != hash        ? "has other bytes than it was merged for"
			       : node_page(node) != page ? "is not named by its node"
							 : NULL;
	return "names no node, or has other bytes than it was merged for";
}

/* ---- unstable ---- */

void unstable_destroy(struct ksm_unstable *unstable)
{
	host_free(unstable->slots);
}

void unstable_clear(struct ksm_unstable *unstable)
{
	if (unstable->used)
		memset(unstable->slots, 0, unstable->nslots * sizeof(*unstable->slots));
	unstable->used = unstable->alive = 0;
}

static struct unstable_slot *slot_at(const struct ksm_unstable *unstable, uint64_t index)
{
	return &unstable->slots[index & (unstable->nslots - 1)];
}

/* The first slot that leads somewhere for @hash, or one without a hash, from @index on. */
static struct unstable_slot *probe(const struct ksm_unstable *unstable, uint64_t hash, uint64_t index)
{
	struct unstable_slot *slot;

	while ((slot = slot_at(unstable, index))->hash && !(slot->hash == hash && slot->where))
		index++;
	return slot;
}

struct unstable_slot *unstable_find(struct ksm_unstable *unstable, uint64_t hash, struct unstable_slot *slot)
{
	if (!unstable->nslots)
		return NULL;
	slot = probe(unstable, hash, slot ? (uint64_t)(slot - unstable->slots) + 1 : hash);
	return slot->hash ? slot : NULL;
}

static void put(struct ksm_unstable *unstable, uint64_t hash, uint64_t where)
{
	uint64_t index = hash;

	while (slot_at(unstable, index)->hash)
		index++;
	*slot_at(unstable, index) = (struct unstable_slot){hash, where};
	unstable->used++;
	unstable->alive++;
}

static int unstable_grow(struct ksm *ksm)
{
	struct ksm_unstable *unstable = &ksm->unstable;
	struct ksm_unstable grown = {.nslots = unstable->nslots ? unstable->nslots * 2 : FEWEST};

	if (inject_fails(&ksm->machine->inject, UCOW_INJECT_OTHER))
		return -ENOMEM;
	grown.slots = host_alloc(grown.nslots * sizeof(*grown.slots));
	if (!grown.slots)
		return -ENOMEM;
	for (uint64_t i = 0; i < unstable->nslots; i++)
		if (unstable->slots[i].where)
			put(&grown, unstable->slots[i].hash, unstable->slots[i].where);
	host_free(unstable->slots);
	*unstable = grown;
	return 0;
}

int unstable_insert(struct ksm *ksm, uint64_t hash, uint64_t where)
{
	if (ksm->unstable.used * 2 >= ksm->unstable.nslots && unstable_grow(ksm))
		return -ENOMEM;
	put(&ksm->unstable, hash, where);
	return 0;
}

void unstable_drop(struct ksm_unstable *unstable, struct unstable_slot *slot)
{
	slot->where = 0;
	unstable->alive--;
}
