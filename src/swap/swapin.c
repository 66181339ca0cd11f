/* SPDX-License-Identifier: MIT */
/* Reading swapped pages into the cache, neighbours with them where that has paid lately. */
#include "swap/internal.h"

#include "rmap/rmap.h"

#include <errno.h>

#define WINDOW_MAX 8 /* pages read at once; a power of two */

/* What one read brings in: consecutive slots around the one that was asked for. */
struct swapin {
	struct swap *swap;
	struct ucow_mm *mm; /* NULL: nobody's fault */
	struct swap_device *device;
	unsigned number; /* of the device */
	uint64_t wanted; /* slot */
	uint64_t first;  /* slot of pages[0] */
	unsigned n;
	struct ucow_page *pages[WINDOW_MAX]; /* locked, with a reference, in the cache */
};

static void prepare(struct ucow_page *page, struct swap_entry entry, const struct swap_slot *slot, bool ahead)
{
	bool is_merged = slot->flags & SLOT_KSM;

	atomic_store_explicit(&page->entry, entry.v, memory_order_relaxed);
	page->mapping = slot->mapping;
	page->home = slot->home;
	atomic_store_explicit(&page->flags,
			      PAGE_ANON | PAGE_LOCKED | PAGE_SWAPCACHE | PAGE_READING | (is_merged ? PAGE_KSM : 0) |
				      (ahead ? PAGE_READAHEAD : 0),
			      memory_order_release);
	/* A merged page is one still, in another frame: whoever mapped it may map it there. */
	if (is_merged)
		atomic_store(&((struct rmap_merged *)slot->mapping)->page, page);
}

/* ---- the cache ---- */

/*
 * The slot, if somebody may ask for it and it is nowhere but on the device; else NULL. Requires: the device's lock.
 * Which may have gone, and another come: an entry that was read without its leaf's lock may be history.
 */
static struct swap_slot *readable(const struct swapin *in, uint64_t at)
{
	struct swap_slot *slot = at < in->device->nslots ? &in->device->slots[at] : NULL;

	return slot && (slot->flags & SLOT_USED) && slot->count && !slot->page ? slot : NULL;
}

static bool is_wanted(struct swapin *in, uint64_t at, uint16_t *memcg)
{
	const struct swap_slot *slot;

	spin_lock(&in->device->lock, LOCK_SWAP);
	slot = readable(in, at);
	if (slot)
		*memcg = slot->memcg;
	spin_unlock(&in->device->lock, LOCK_SWAP);
	return slot;
}

/* Returns: whether @page is the slot's now, and has one reference more. */
static bool insert(struct swapin *in, uint64_t at, struct ucow_page *page)
{
	struct swap_slot *slot;

	spin_lock(&in->device->lock, LOCK_SWAP);
	slot = readable(in, at);
	if (slot) {
		prepare(page, swap_entry_make(in->number, at), slot, at != in->wanted);
		page_get(page); /* the cache's */
		slot->page = page;
		in->device->cached++;
	}
	spin_unlock(&in->device->lock, LOCK_SWAP);
	return slot;
}

/* A frame for the slot, into the cache. Returns: 0; -ENOMEM; -ENOENT: not needed. */
static int bring(struct swapin *in, uint64_t at, struct ucow_page **result)
{
	struct ucow_page *page;
	uint16_t memcg;

	if (!is_wanted(in, at, &memcg))
		return -ENOENT;
	/* Who had the page charged pays, while that group exists, else who asks (B.9). */
	page = mm_alloc_page_of(in->swap->machine, in->mm, memcg, FRAME_ANY);
	if (!page)
		return -ENOMEM;
	if (!insert(in, at, page)) {
		page_put(page);
		return -ENOENT;
	}
	*result = page;
	return 0;
}

/* ---- readahead ---- */

/* Windows grow while what was read ahead is used, and shrink to nothing when it is not. */
static unsigned window_of(struct swap_device *device)
{
	uint32_t hits = atomic_exchange_explicit(&device->hits, 0, memory_order_relaxed);
	uint32_t window = atomic_load_explicit(&device->window, memory_order_relaxed);

	if (hits)
		window = window < WINDOW_MAX ? 2 * window : WINDOW_MAX;
	else if (window > 1)
		window /= 2;
	else if (device->misses++ % 64 == 0)
		window = 2; /* now and then, to see whether it pays again */
	atomic_store_explicit(&device->window, window, memory_order_relaxed);
	return window;
}

/* The neighbours of the wanted slot in its window, without a gap. */
static void bring_neighbours(struct swapin *in)
{
	unsigned window = window_of(in->device);
	uint64_t start = in->wanted & ~(uint64_t)(window - 1), end = min_u64(start + window, in->device->nslots);
	struct ucow_page *page;

	for (uint64_t at = in->wanted + 1; at < end && !bring(in, at, &page); at++)
		in->pages[in->n++] = page;
	count_add(&in->swap->machine->counters, UCOW_COUNTER_SWAP_READAHEAD, in->n - 1);
}

void swap_note_hit(struct swap *swap, struct ucow_page *page)
{
	count(&swap->machine->counters, UCOW_COUNTER_SWAP_CACHE_HIT);
	if (!page_is(page, PAGE_READAHEAD))
		return;
	page_clear(page, PAGE_READAHEAD);
	count(&swap->machine->counters, UCOW_COUNTER_SWAP_READAHEAD_HIT);
	atomic_fetch_add_explicit(&swap_device_of(swap, page_swap_entry(page))->hits, 1, memory_order_relaxed);
}

/* ---- reading ---- */

/* What was read is everybody's; what was not goes, and whoever asks again gets the error himself. */
static void settle(struct swapin *in, unsigned i, bool is_good)
{
	struct ucow_page *page = in->pages[i];

	page_clear(page, PAGE_READING);
	if (is_good) {
		lru_add(page);
		count(&in->swap->machine->counters, UCOW_COUNTER_SWAP_IN);
	} else {
		swap_forget(in->swap, page, true);
	}
	swap_unlock(in->swap, page);
	if (i || !is_good)
		page_put(page);
}

static int read_pages(struct swapin *in)
{
	void *bytes[WINDOW_MAX];
	unsigned nread = 0;
	int error;

	for (unsigned i = 0; i < in->n; i++)
		bytes[i] = page_bytes(in->pages[i]);
	error = swap_store_read(in->device->store, in->first, bytes, in->n, &nread);
	for (unsigned i = 0; i < in->n; i++)
		settle(in, i, i < nread);
	return nread ? 0 : error;
}

int swap_read(struct swap *swap, struct ucow_mm *mm, struct swap_entry entry, struct ucow_page **result)
{
	struct swapin in = {
		.swap = swap,
		.mm = mm,
		.device = swap_device_of(swap, entry),
		.number = swap_entry_device(entry),
		.wanted = swap_entry_slot(entry),
		.first = swap_entry_slot(entry),
	};
	int error = bring(&in, in.wanted, &in.pages[0]);

	*result = NULL;
	if (error)
		return error == -ENOENT ? 0 : error;
	in.n = 1;
	bring_neighbours(&in);
	error = read_pages(&in);
	if (!error)
		*result = in.pages[0];
	return error;
}
