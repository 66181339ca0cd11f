/* SPDX-License-Identifier: MIT */
/* Slots: taking, counting, giving back; and the swap cache. Reading is in swapin.c, devices come and go in device.c. */
#include "swap/internal.h"

#include "base/mutate.h"
#include "rmap/rmap.h"

static void lock(struct swap_device *device)
{
	spin_lock(&device->lock, LOCK_SWAP);
}

static void unlock(struct swap_device *device)
{
	spin_unlock(&device->lock, LOCK_SWAP);
}

/* ---- slots. Require the device's lock. ---- */

static bool is_taken(const struct swap_device *device, uint64_t slot)
{
	return device->taken[slot / 64] >> slot % 64 & 1;
}

/* Whether there is such a slot, taken: an entry that was read without its leaf's lock may be history. */
static bool is_named_slot(const struct swap_device *device, struct swap_entry entry)
{
	return swap_entry_slot(entry) < device->nslots && is_taken(device, swap_entry_slot(entry));
}

/* The first free slot of [from, end), or @end. */
static uint64_t first_free(const struct swap_device *device, uint64_t from, uint64_t end)
{
	while (from < end) {
		uint64_t word = ~device->taken[from / 64] >> from % 64;

		if (word)
			return min_u64(from + (uint64_t)__builtin_ctzll(word), end);
		from = (from / 64 + 1) * 64;
	}
	return end;
}

bool swap_next_used(struct swap_device *device, uint64_t *slot)
{
	uint64_t at = *slot;
	bool found;

	lock(device);
	while (at < device->nslots && !(device->taken[at / 64] >> at % 64))
		at = (at / 64 + 1) * 64;
	if (at < device->nslots)
		at += (uint64_t)__builtin_ctzll(device->taken[at / 64] >> at % 64);
	found = at < device->nslots;
	unlock(device);
	*slot = at;
	return found;
}

/* Slots are dealt in order, round and round, so that pages that go together lie together. */
static bool find_slot(struct swap_device *device, uint64_t *slot)
{
	uint64_t at;

	if (!device->is_open || device->used == device->nslots)
		return false;
	at = first_free(device, device->next, device->nslots);
	if (at == device->nslots)
		at = first_free(device, 0, device->next);
	device->next = at + 1 < device->nslots ? at + 1 : 0;
	*slot = at;
	return true;
}

static void take_slot(struct swap_device *device, uint64_t at, struct ucow_page *page)
{
	device->taken[at / 64] |= (uint64_t)1 << at % 64;
	atomic_store_explicit(&device->used, device->used + 1, memory_order_relaxed);
	device->cached++;
	if (page_is(page, PAGE_KSM))
		atomic_fetch_add(&((struct rmap_merged *)page->mapping)->slots, 1);
	device->slots[at] = (struct swap_slot){
		.memcg = page->memcg,
		.home = page->home,
		.flags = SLOT_USED | (page_is(page, PAGE_KSM) ? SLOT_KSM : 0),
		.mapping = page->mapping,
		.page = page,
	};
}

static void free_slot(struct swap *swap, struct swap_device *device, uint64_t at)
{
	uint16_t memcg = device->slots[at].memcg;

	if (device->slots[at].flags & SLOT_KSM)
		atomic_fetch_sub(&((struct rmap_merged *)device->slots[at].mapping)->slots, 1);
	swap_store_discard(device->store, at);
	device->slots[at] = (struct swap_slot){0};
	device->taken[at / 64] &= ~((uint64_t)1 << at % 64);
	atomic_store_explicit(&device->used, device->used - 1, memory_order_relaxed);
	if (memcg)
		memcg_swap_uncharge(swap->machine, memcg, 1);
}

/* ---- taking ---- */

#define STEAL_SLOTS 4096 /* looked at in one go */

/* A page that the cache alone keeps a slot for, with a reference, or NULL. */
static struct ucow_page *find_unneeded(struct swap_device *device)
{
	struct ucow_page *page = NULL;

	lock(device);
	for (unsigned i = 0; i < STEAL_SLOTS && i < device->nslots && !page; i++) {
		const struct swap_slot *slot = &device->slots[device->steal];

		device->steal = device->steal + 1 < device->nslots ? device->steal + 1 : 0;
		if (slot->page && !slot->count && !page_is(slot->page, PAGE_LOCKED))
			page = slot->page;
	}
	if (page)
		page_get(page);
	unlock(device);
	return page;
}

/* The device is full. Returns: whether a slot came free that only a page in RAM had, to which it is worth little. */
static bool steal_slot(struct swap *swap, struct swap_device *device)
{
	struct ucow_page *page = device->is_open && device->cached ? find_unneeded(device) : NULL;
	bool stolen = false;

	if (!page)
		return false;
	if (page_trylock(page)) {
		stolen = page_is(page, PAGE_SWAPCACHE) && swap_forget(swap, page, false);
		swap_unlock(swap, page);
	}
	page_put(page);
	return stolen;
}

/* Put @page into the cache, at a slot of its own. */
static bool take_one(struct swap *swap, unsigned number, struct swap_device *device, struct ucow_page *page)
{
	uint64_t at;
	bool found;

	if (page->memcg && memcg_swap_charge(swap->machine, page->memcg))
		return false;
	lock(device);
	found = find_slot(device, &at);
	if (found) {
		page_get(page); /* the cache's */
		atomic_store_explicit(&page->entry, swap_entry_make(number, at).v, memory_order_relaxed);
		page_set(page, PAGE_SWAPCACHE | PAGE_DIRTY);
		take_slot(device, at, page);
	}
	unlock(device);
	if (!found && page->memcg)
		memcg_swap_uncharge(swap->machine, page->memcg, 1);
	return found;
}

/* Of the open devices that were not tried yet (one bit each), the first by priority, equal ones by turns. -1: none. */
static int best_device(struct swap *swap, unsigned tried, unsigned turn)
{
	int best = -1;

	for (unsigned i = 0; i < UCOW_SWAP_DEVICES; i++) {
		unsigned number = (turn + i) % UCOW_SWAP_DEVICES;
		const struct swap_device *device = &swap->devices[number];

		if (!swap_device_is_there(device) || tried >> number & 1)
			continue;
		if (best < 0 || device->priority > swap->devices[best].priority)
			best = (int)number;
	}
	return best;
}

unsigned swap_take(struct swap *swap, struct ucow_page *const *pages, unsigned n)
{
	unsigned turn = atomic_fetch_add_explicit(&swap->turn, 1, memory_order_relaxed), tried = 0, done = 0;
	int number;

	while (done < n && (number = best_device(swap, tried, turn)) >= 0) {
		struct swap_device *device = &swap->devices[number];

		while (done < n &&
		       (take_one(swap, (unsigned)number, device, pages[done]) ||
			(steal_slot(swap, device) && take_one(swap, (unsigned)number, device, pages[done]))))
			done++;
		tried |= 1u << number;
	}
	return done;
}

/* ---- counts ---- */

static struct swap_slot *slot_of_entry(struct swap_device *device, struct swap_entry entry)
{
	uint64_t at = swap_entry_slot(entry);

	UCOW_BUG_ON(at >= device->nslots || !is_taken(device, at));
	return &device->slots[at];
}

void swap_dup(void *arg, struct swap_entry entry, uint32_t n)
{
	struct swap_device *device = swap_device_of(arg, entry);
	struct swap_slot *slot;

	lock(device);
	slot = slot_of_entry(device, entry);
	UCOW_BUG_ON(slot->count > UINT32_MAX - n);
	slot->count += n;
	unlock(device);
}

bool swap_is_merged(struct swap *swap, struct swap_entry entry)
{
	struct swap_device *device = swap_device_of(swap, entry);
	bool merged;

	lock(device);
	merged = slot_of_entry(device, entry)->flags & SLOT_KSM;
	unlock(device);
	return merged;
}

bool swap_is_full(void *arg, struct swap_entry entry)
{
	struct swap_device *device = swap_device_of(arg, entry);
	bool full;

	lock(device);
	full = is_named_slot(device, entry) && slot_of_entry(device, entry)->count >= SWAP_COUNT_MAX;
	unlock(device);
	return full;
}

/* Nobody needs the slot but, perhaps, whoever holds the page lock now; he looks when he lets go. */
static void try_forget(struct swap *swap, struct ucow_page *page)
{
	if (page_trylock(page))
		swap_unlock(swap, page);
	page_put(page);
}

bool swap_drop(void *arg, struct swap_entry entry, uint32_t n)
{
	struct swap *swap = arg;
	struct swap_device *device = swap_device_of(swap, entry);
	struct ucow_page *page = NULL;
	struct swap_slot *slot;
	bool last;

	lock(device);
	slot = slot_of_entry(device, entry);
	UCOW_BUG_ON(slot->count < n);
	slot->count -= n;
	last = !slot->count && !(slot->page && page_mapcount(slot->page));
	if (!slot->count) {
		page = slot->page;
		if (page)
			page_get(page);
		else
			free_slot(swap, device, swap_entry_slot(entry));
	}
	unlock(device);
	if (page)
		try_forget(swap, page);
	return last;
}

bool swap_unmapped(void *arg, struct ucow_page *page)
{
	bool last = !swap_count(arg, page);

	page_get(page);
	try_forget(arg, page);
	return last;
}

uint32_t swap_count(struct swap *swap, const struct ucow_page *page)
{
	struct swap_entry entry = page_swap_entry(page);
	struct swap_device *device = swap_entry_is_none(entry) ? NULL : swap_device_of(swap, entry);
	uint32_t count = 0;

	if (!device)
		return 0;
	lock(device);
	if (is_named_slot(device, entry) && device->slots[swap_entry_slot(entry)].page == page)
		count = device->slots[swap_entry_slot(entry)].count;
	unlock(device);
	return count;
}

/* ---- the cache ---- */

struct ucow_page *swap_lookup(struct swap *swap, struct swap_entry entry)
{
	struct swap_device *device = swap_device_of(swap, entry);
	struct ucow_page *page;

	lock(device);
	page = is_named_slot(device, entry) ? device->slots[swap_entry_slot(entry)].page : NULL;
	if (page)
		page_get(page);
	unlock(device);
	return page;
}

/* Requires: the device's lock, the page's. */
static void detach(struct swap *swap, struct swap_device *device, struct ucow_page *page)
{
	uint64_t at = swap_entry_slot(page_swap_entry(page));

	device->slots[at].page = NULL;
	device->cached--;
	page_clear(page, PAGE_SWAPCACHE | PAGE_READAHEAD);
	atomic_store_explicit(&page->entry, 0, memory_order_relaxed);
	if (!device->slots[at].count)
		free_slot(swap, device, at);
}

bool swap_forget(struct swap *swap, struct ucow_page *page, bool even_if_named)
{
	struct swap_device *device = swap_device_of(swap, page_swap_entry(page));
	bool out;

	lock(device);
	out = !page_is(page, PAGE_WRITEBACK) && (even_if_named || !slot_of_entry(device, page_swap_entry(page))->count);
	if (out)
		detach(swap, device, page);
	unlock(device);
	if (out)
		page_put(page);
	return out;
}

bool swap_evict(struct swap *swap, struct ucow_page *page)
{
	struct swap_device *device = swap_device_of(swap, page_swap_entry(page));
	bool alone;

	lock(device);
	alone = !page_mapcount(page) && (page_freeze(page, 2) || MUTATED(EVICT_REFERENCED));
	if (alone)
		detach(swap, device, page);
	unlock(device);
	return alone;
}

/* Nobody maps the page and no entry names its slot. */
static bool is_useless(struct swap *swap, struct ucow_page *page)
{
	return page_is(page, PAGE_SWAPCACHE) && !page_mapcount(page) && !swap_count(swap, page);
}

/*
 * Whether the slot has become useless is looked at again after the lock is free: whoever made it so meanwhile found the
 * lock held and left it to us. Requires: a reference that lasts.
 */
void swap_unlock(struct swap *swap, struct ucow_page *page)
{
	do {
		if (is_useless(swap, page))
			swap_forget(swap, page, false);
		page_unlock(page);
	} while (!MUTATED(SKIP_UNLOCK_RECHECK) && is_useless(swap, page) && page_trylock(page));
}
