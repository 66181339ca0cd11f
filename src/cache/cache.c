/* SPDX-License-Identifier: MIT */
/* Caches and openers: life, the index, tags. */
#include "cache/cache.h"

#include "base/host.h"

#include <errno.h>
#include <time.h>

/* ---- the index ---- */

static unsigned slot_in(const struct cache_node *node, uint64_t index)
{
	return (unsigned)(index >> node->shift) & (CACHE_NODE_SLOTS - 1);
}

/* Whether page number @index lies below @node, if that is the root. */
static bool node_covers(const struct cache_node *node, uint64_t index)
{
	return node->shift + CACHE_NODE_BITS >= 64 || !(index >> (node->shift + CACHE_NODE_BITS));
}

static void *slot_read(const struct cache_node *node, uint64_t index)
{
	return atomic_load_explicit(&node->slots[slot_in(node, index)], memory_order_acquire);
}

/* The slot of page number @index, whether or not there is a page in it, or NULL. It stays as long as the cache does. */
static _Atomic(void *) *find_slot(const struct cache *cache, uint64_t index)
{
	struct cache_node *node = atomic_load_explicit(&cache->root, memory_order_acquire);

	if (!node || !node_covers(node, index))
		return NULL;
	while (node && node->shift)
		node = slot_read(node, index);
	return node ? &node->slots[slot_in(node, index)] : NULL;
}

const struct ucow_page *cache_look(const struct cache *cache, uint64_t index)
{
	_Atomic(void *) *slot = find_slot(cache, index);

	return slot ? atomic_load_explicit(slot, memory_order_acquire) : NULL;
}

/* A page that is taken out of the index loses the cache's reference afterwards: who finds it there still has it. */
int cache_find(struct cache *cache, uint64_t index, struct ucow_page **page)
{
	_Atomic(void *) *slot;
	struct ucow_page *found;
	int error;

	if (index >= cache_end(cache))
		return -ENXIO;
	slot = find_slot(cache, index);
	while (slot && (found = atomic_load_explicit(slot, memory_order_acquire))) {
		if (likely(cache->is_anonymous)) {
			page_get(found);
			*page = found;
			return 0;
		}
		error = page_try_get(found);
		if (error == -ENOMEM)
			return error;
		if (likely(!error) && likely(atomic_load_explicit(slot, memory_order_acquire) == found)) {
			*page = found;
			return 0;
		}
		if (!error) {
			page_put(found);
		} else {
			/* Reclaim has all its references, and takes it out of the index under the lock. */
			spin_lock(&cache->lock, LOCK_CACHE);
			spin_unlock(&cache->lock, LOCK_CACHE);
		}
	}
	return -ENOENT;
}

static struct cache_node *node_create(struct cache *cache, unsigned shift)
{
	struct cache_node *node;

	if (inject_fails(&cache->machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	node = host_alloc(sizeof(*node));
	if (node)
		node->shift = shift;
	return node;
}

static uint64_t tag_bit(const struct cache_node *node, uint64_t index)
{
	return (uint64_t)1 << slot_in(node, index);
}

/* A root above the one that there is, which covers too little. Requires: the lock. */
static void raise_root(struct cache *cache, struct cache_node *made)
{
	struct cache_node *below = cache->root;

	for (unsigned tag = 0; tag < CACHE_TAGS; tag++)
		made->tags[tag] = below && below->tags[tag];
	atomic_store_explicit(&made->slots[0], below, memory_order_relaxed);
	atomic_store_explicit(&cache->root, made, memory_order_release);
}

/*
 * The leaf node for @index, or where one is missing: *shift is that of the node to be made, *parent the one to hang it
 * into (NULL: it becomes the root). Requires: the lock.
 */
static struct cache_node *find_leaf(const struct cache *cache, uint64_t index, struct cache_node **parent,
				    unsigned *shift)
{
	struct cache_node *node = cache->root, *child;

	*parent = NULL;
	*shift = node ? node->shift + CACHE_NODE_BITS : 0;
	if (!node || !node_covers(node, index))
		return NULL;
	for (; node->shift; node = child) {
		child = slot_read(node, index);
		if (!child) {
			*parent = node;
			*shift = node->shift - CACHE_NODE_BITS;
			return NULL;
		}
	}
	return node;
}

/* Requires: the lock; comes back with it. Returns: the leaf node; NULL: no memory. */
static struct cache_node *make_leaf(struct cache *cache, uint64_t index)
{
	struct cache_node *leaf, *parent, *above, *made = NULL;
	unsigned shift, wanted;

	while (!(leaf = find_leaf(cache, index, &parent, &wanted))) {
		/* Without the lock for the allocation; what it is for may have been made by then. */
		if (!made || made->shift != wanted) {
			spin_unlock(&cache->lock, LOCK_CACHE);
			host_free(made);
			made = node_create(cache, wanted);
			spin_lock(&cache->lock, LOCK_CACHE);
			if (!made)
				return NULL;
			if (find_leaf(cache, index, &above, &shift) || above != parent || shift != wanted)
				continue;
		}
		if (parent)
			atomic_store_explicit(&parent->slots[slot_in(parent, index)], made, memory_order_release);
		else
			raise_root(cache, made);
		made = NULL;
	}
	host_free(made);
	return leaf;
}

/* ---- pages come and go ---- */

static uint32_t page_flag_of(const struct cache *cache)
{
	return cache_is_tracked(cache) ? PAGE_FILE : PAGE_SHMEM;
}

int cache_insert(struct cache *cache, uint64_t index, struct ucow_page *made, struct ucow_page **page)
{
	struct cache_node *leaf;
	int error = 0;

	made->mapping = cache;
	made->index = index;
	page_set(made, page_flag_of(cache));
	spin_lock(&cache->lock, LOCK_CACHE);
	leaf = make_leaf(cache, index);
	if (!leaf)
		error = -ENOMEM;
	else if (index >= cache_end(cache))
		error = -ENXIO;
	else if (!(*page = slot_read(leaf, index)))
		*page = made;
	if (!error)
		page_get(*page);
	if (!error && *page == made) {
		atomic_store_explicit(&leaf->slots[slot_in(leaf, index)], made, memory_order_release);
		cache->npages++;
	}
	spin_unlock(&cache->lock, LOCK_CACHE);
	if (error || *page != made) {
		page_clear(made, page_flag_of(cache));
		made->mapping = NULL;
		if (page_is(made, PAGE_LOCKED))
			page_unlock(made);
		page_put(made);
	}
	return error;
}

/* Requires: the lock. */
static bool is_in(const struct cache *cache, const struct ucow_page *page)
{
	return page->mapping == cache && cache_is_in(page);
}

static bool has_tag(const struct cache *cache, uint64_t index, enum cache_tag tag)
{
	const struct cache_node *node = cache->root;

	while (node->shift)
		node = slot_read(node, index);
	return node->tags[tag] & tag_bit(node, index);
}

#if exploring
uint64_t cache_clock(void)
{
	return 1;
}
#else
uint64_t cache_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec + 1;
}
#endif

/* One page more, or less, is dirty: what writeback by age and number goes by. */
static void note_dirty(struct cache *cache)
{
	atomic_fetch_add_explicit(&cache->machine->ndirty, 1, memory_order_relaxed);
	if (cache->tagged[CACHE_DIRTY] == 1)
		atomic_store_explicit(&cache->dirty_since, cache_clock(), memory_order_relaxed);
}

static void note_clean(struct cache *cache)
{
	atomic_fetch_sub_explicit(&cache->machine->ndirty, 1, memory_order_relaxed);
	if (!cache->tagged[CACHE_DIRTY])
		atomic_store_explicit(&cache->dirty_since, 0, memory_order_relaxed);
}

void cache_restamp(struct cache *cache, uint64_t when)
{
	spin_lock(&cache->lock, LOCK_CACHE);
	if (cache->tagged[CACHE_DIRTY])
		atomic_store_explicit(&cache->dirty_since, when, memory_order_relaxed);
	spin_unlock(&cache->lock, LOCK_CACHE);
}

/* Requires: the lock, and that the page is there. */
static void set_tag(struct cache *cache, uint64_t index, enum cache_tag tag)
{
	struct cache_node *node = cache->root;

	if (has_tag(cache, index, tag))
		return;
	cache->tagged[tag]++;
	if (tag == CACHE_DIRTY)
		note_dirty(cache);
	for (;; node = slot_read(node, index)) {
		node->tags[tag] |= tag_bit(node, index);
		if (!node->shift)
			return;
	}
}

/* Below @node; bounded by the height. Returns: whether anything below it has the tag still. */
static bool clear_tag_below(struct cache_node *node, uint64_t index, enum cache_tag tag)
{
	if (!node->shift || !clear_tag_below(slot_read(node, index), index, tag))
		node->tags[tag] &= ~tag_bit(node, index);
	return node->tags[tag];
}

static void clear_tag(struct cache *cache, uint64_t index, enum cache_tag tag)
{
	if (!has_tag(cache, index, tag))
		return;
	cache->tagged[tag]--;
	if (tag == CACHE_DIRTY)
		note_clean(cache);
	clear_tag_below(cache->root, index, tag);
}

/* Requires: the lock, and that the page is there. */
static void take_out(struct cache *cache, struct ucow_page *page)
{
	struct cache_node *node;

	for (unsigned tag = 0; tag < CACHE_TAGS; tag++)
		clear_tag(cache, page->index, tag);
	for (node = cache->root; node->shift; node = slot_read(node, page->index))
		;
	atomic_store_explicit(&node->slots[slot_in(node, page->index)], NULL, memory_order_release);
	cache->npages--;
	page->mapping = NULL;
	page_clear(page, PAGE_SHMEM | PAGE_FILE | PAGE_DIRTY);
}

bool cache_remove(struct cache *cache, struct ucow_page *page)
{
	bool was_in;

	spin_lock(&cache->lock, LOCK_CACHE);
	was_in = is_in(cache, page) && !page_is(page, PAGE_WRITEBACK);
	if (was_in)
		take_out(cache, page);
	spin_unlock(&cache->lock, LOCK_CACHE);
	return was_in;
}

bool cache_drop(struct cache *cache, struct ucow_page *page)
{
	bool goes;

	spin_lock(&cache->lock, LOCK_CACHE);
	goes = is_in(cache, page) && !page_is(page, PAGE_DIRTY | PAGE_WRITEBACK | PAGE_LOCKED) &&
	       !page_mapcount(page) && page_freeze(page, 2);
	if (goes)
		take_out(cache, page);
	spin_unlock(&cache->lock, LOCK_CACHE);
	return goes;
}

struct cache *cache_of(const struct ucow_page *page)
{
	return cache_is_in(page) ? page->mapping : NULL;
}

/*
 * The first slot at or after @from in @node that is of interest: with a tag where one is asked for, not empty
 * otherwise. CACHE_NODE_SLOTS: none.
 */
static unsigned next_slot(const struct cache_node *node, unsigned from, enum cache_tag tag)
{
	for (; from < CACHE_NODE_SLOTS; from++)
		if (tag < CACHE_TAGS ? node->tags[tag] >> from & 1
				     : atomic_load_explicit(&node->slots[from], memory_order_relaxed) != NULL)
			break;
	return from;
}

/* The first page of a number in [index, last] below @node, whose numbers begin at @base. Requires: the lock. */
static struct ucow_page *next_page(const struct cache_node *node, uint64_t base, uint64_t index, uint64_t last,
				   enum cache_tag tag)
{
	unsigned slot = index > base ? slot_in(node, index) : 0;

	while ((slot = next_slot(node, slot, tag)) < CACHE_NODE_SLOTS) {
		uint64_t start = base + ((uint64_t)slot << node->shift);
		struct ucow_page *page;

		if (start > last)
			return NULL;
		if (!node->shift)
			return node->slots[slot];
		page = next_page(node->slots[slot], start, max_u64(index, start), last, tag);
		if (page)
			return page;
		slot++;
	}
	return NULL;
}

unsigned cache_gather(struct cache *cache, uint64_t first, uint64_t last, enum cache_tag tag, struct ucow_page **pages,
		      unsigned n)
{
	unsigned got = 0;

	spin_lock(&cache->lock, LOCK_CACHE);
	while (cache->root && node_covers(cache->root, first) && first <= last && got < n) {
		struct ucow_page *page = next_page(cache->root, 0, first, last, tag);

		if (!page)
			break;
		page_get(page);
		pages[got++] = page;
		first = page->index + 1;
	}
	spin_unlock(&cache->lock, LOCK_CACHE);
	return got;
}

/* ---- dirty pages ---- */

void cache_set_dirty(struct cache *cache, struct ucow_page *page)
{
	if (!cache_is_tracked(cache) || page_is(page, PAGE_DIRTY))
		return;
	spin_lock(&cache->lock, LOCK_CACHE);
	if (is_in(cache, page)) {
		page_set(page, PAGE_DIRTY);
		set_tag(cache, page->index, CACHE_DIRTY);
	}
	spin_unlock(&cache->lock, LOCK_CACHE);
}

void page_note_dirty(struct ucow_page *page)
{
	struct cache *cache;

	if (page_is(page, PAGE_DIRTY | PAGE_ZERO))
		return;
	if (!page_is(page, PAGE_FILE)) {
		page_set(page, PAGE_DIRTY);
		return;
	}
	page_lock(page);
	cache = cache_of(page);
	if (cache)
		cache_set_dirty(cache, page);
	page_unlock(page);
}

bool cache_begin_write(struct cache *cache, struct ucow_page *page)
{
	bool begins;

	spin_lock(&cache->lock, LOCK_CACHE);
	begins = is_in(cache, page) && page_is(page, PAGE_DIRTY) && !page_is(page, PAGE_WRITEBACK);
	if (begins) {
		page_get(page);
		page_clear(page, PAGE_DIRTY);
		page_set(page, PAGE_WRITEBACK);
		clear_tag(cache, page->index, CACHE_DIRTY);
		set_tag(cache, page->index, CACHE_WRITEBACK);
	}
	spin_unlock(&cache->lock, LOCK_CACHE);
	return begins;
}

void cache_end_write(struct cache *cache, struct ucow_page *page, bool again)
{
	spin_lock(&cache->lock, LOCK_CACHE);
	if (is_in(cache, page)) {
		clear_tag(cache, page->index, CACHE_WRITEBACK);
		if (again) {
			page_set(page, PAGE_DIRTY);
			set_tag(cache, page->index, CACHE_DIRTY);
		}
	}
	page_clear_and_wake(page, PAGE_WRITEBACK);
	spin_unlock(&cache->lock, LOCK_CACHE);
	page_put(page);
}

/* ---- caches ---- */

struct cache *cache_create(struct ucow_machine *machine, uint64_t nbytes, const struct backing *backing)
{
	struct cache *cache;

	if (inject_fails(&machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	cache = host_alloc(sizeof(*cache));
	if (!cache)
		return NULL;
	atomic_init(&cache->refcount, 1);
	cache->machine = machine;
	atomic_init(&cache->size, nbytes);
	list_init(&cache->users);
	cache->is_anonymous = !backing;
	if (backing)
		cache->backing = *backing;
	else
		(void)backing_open(&cache->backing, &machine->inject, -1, 0); /* nothing, which cannot fail */
	cache->readahead = CACHE_READAHEAD;
	mutex_init(&cache->resize, LOCK_FILE);
	rwlock_init(&cache->filling, LOCK_FILLING);
	spin_lock(&machine->caches_lock, LOCK_CACHES);
	list_add_tail(&machine->caches, &cache->link);
	machine->ncaches++;
	spin_unlock(&machine->caches_lock, LOCK_CACHES);
	return cache;
}

void cache_get(struct cache *cache)
{
	atomic_fetch_add_explicit(&cache->refcount, 1, memory_order_relaxed);
}

bool cache_try_get(struct cache *cache)
{
	uint32_t before = atomic_load_explicit(&cache->refcount, memory_order_relaxed);

	while (before && !atomic_compare_exchange_weak(&cache->refcount, &before, before + 1))
		;
	return before;
}

/* Whoever has got at the page, by a pin or the LRU lists, finds out under its lock whether it is in a cache still. */
static void drop_page(struct cache *cache, struct ucow_page *page)
{
	bool lock = cache_is_tracked(cache);

	if (lock)
		page_lock(page);
	page->mapping = NULL;
	page_clear(page, PAGE_SHMEM | PAGE_FILE | PAGE_DIRTY);
	if (lock)
		page_unlock(page);
	page_put(page);
}

/* Nobody refers to the cache. Frees the nodes, and lets go of the pages, below @node; bounded by the height. */
static void drop_below(struct cache *cache, struct cache_node *node)
{
	for (unsigned slot = 0; slot < CACHE_NODE_SLOTS; slot++) {
		void *below = atomic_load_explicit(&node->slots[slot], memory_order_relaxed);

		if (!below)
			continue;
		if (node->shift) {
			drop_below(cache, below);
		} else {
			drop_page(cache, below);
		}
	}
	host_free(node);
}

static void destroy(struct cache *cache)
{
	struct ucow_machine *machine = cache->machine;

	UCOW_BUG_ON(!list_is_empty(&cache->users) || cache->tagged[CACHE_WRITEBACK]);
	spin_lock(&machine->caches_lock, LOCK_CACHES);
	list_del(&cache->link);
	machine->ncaches--;
	spin_unlock(&machine->caches_lock, LOCK_CACHES);
	atomic_fetch_sub_explicit(&machine->ndirty, cache->tagged[CACHE_DIRTY], memory_order_relaxed);
	if (cache->root)
		drop_below(cache, cache->root);
	backing_close(&cache->backing);
	mutex_destroy(&cache->resize);
	rwlock_destroy(&cache->filling);
	host_free(cache);
}

void cache_put(struct cache *cache)
{
	struct ucow_machine *machine = cache->machine;

	if (atomic_fetch_sub_explicit(&cache->refcount, 1, memory_order_acq_rel) != 1)
		return;
	if (likely(!cache_is_tracked(cache))) {
		destroy(cache);
		return;
	}
	/* It has something to write perhaps, and closing takes a system call. */
	spin_lock(&machine->caches_lock, LOCK_CACHES);
	list_del(&cache->link);
	list_add_tail(&machine->orphans, &cache->link);
	atomic_fetch_add_explicit(&machine->norphans, 1, memory_order_relaxed);
	spin_unlock(&machine->caches_lock, LOCK_CACHES);
}

void cache_settle_slow(struct ucow_machine *machine)
{
	for (;;) {
		struct cache *cache = NULL;

		spin_lock(&machine->caches_lock, LOCK_CACHES);
		if (!list_is_empty(&machine->orphans)) {
			cache = container_of(machine->orphans.next, struct cache, link);
			list_del(&cache->link);
			list_add_tail(&machine->caches, &cache->link);
			atomic_fetch_sub_explicit(&machine->norphans, 1, memory_order_relaxed);
		}
		spin_unlock(&machine->caches_lock, LOCK_CACHES);
		if (!cache)
			return;
		cache_flush(cache);
		destroy(cache);
	}
}

/* ---- openers ---- */

struct ucow_file *file_create(struct cache *cache, uint32_t flags)
{
	struct ucow_file *file;

	if (inject_fails(&cache->machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	file = host_alloc(sizeof(*file));
	if (!file)
		return NULL;
	atomic_init(&file->refcount, 1);
	atomic_init(&file->told, errseq_sample(&cache->errors));
	file->cache = cache;
	file->flags = flags;
	atomic_fetch_add_explicit(&cache->openers, 1, memory_order_relaxed);
	return file;
}

void file_get(struct ucow_file *file)
{
	atomic_fetch_add_explicit(&file->refcount, 1, memory_order_relaxed);
}

void file_put(struct ucow_file *file)
{
	if (atomic_fetch_sub_explicit(&file->refcount, 1, memory_order_acq_rel) != 1)
		return;
	atomic_fetch_sub_explicit(&file->cache->openers, 1, memory_order_relaxed);
	cache_put(file->cache);
	host_free(file);
}

/* ---- checks ---- */

struct recount {
	struct cache *cache;
	uint64_t npages, tagged[CACHE_TAGS];
	const char *wrong;
};

static void recount_page(struct recount *recount, const struct cache_node *node, unsigned slot, uint64_t index)
{
	const struct ucow_page *page = node->slots[slot];

	recount->npages++;
	if (page->mapping != recount->cache || page->index != index)
		recount->wrong = "a page in the index that says it is elsewhere";
	if (!page_is(page, page_flag_of(recount->cache)) || page_is(page, PAGE_ANON))
		recount->wrong = "a page in the index without its flag";
	if (index >= cache_end(recount->cache))
		recount->wrong = "a page beyond the end";
	if (page_refcount(page) <= page_mapcount(page))
		recount->wrong = "a page without the cache's reference";
	if (cache_is_tracked(recount->cache) && page_is(page, PAGE_DIRTY) != !!(node->tags[CACHE_DIRTY] >> slot & 1))
		recount->wrong = "a page and its tag differ in whether it is dirty";
}

static void recount_below(struct recount *recount, const struct cache_node *node, uint64_t base)
{
	for (unsigned slot = 0; slot < CACHE_NODE_SLOTS; slot++) {
		uint64_t index = base + ((uint64_t)slot << node->shift);
		const struct cache_node *below = node->shift ? node->slots[slot] : NULL;

		for (unsigned tag = 0; tag < CACHE_TAGS; tag++) {
			bool tagged = node->tags[tag] >> slot & 1;

			recount->tagged[tag] += tagged && !node->shift;
			if (tagged != (below ? !!below->tags[tag] : tagged && node->slots[slot]))
				recount->wrong = "a tag for nothing, or one that is missing further up";
		}
		if (below)
			recount_below(recount, below, index);
		else if (node->slots[slot])
			recount_page(recount, node, slot, index);
	}
}

const char *cache_check(struct cache *cache)
{
	struct recount recount = {.cache = cache};

	if (cache->root)
		recount_below(&recount, cache->root, 0);
	if (recount.wrong)
		return recount.wrong;
	if (recount.npages != cache->npages)
		return "the number of pages is not what the index has";
	for (unsigned tag = 0; tag < CACHE_TAGS; tag++)
		if (recount.tagged[tag] != cache->tagged[tag])
			return "the number of dirty pages, or of those under writeback, is not that of the tags";
	return NULL;
}
