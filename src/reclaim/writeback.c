/* SPDX-License-Identifier: MIT */
/* Writing swap-cache pages to their slots, and what happens when they have been written. */
#include "reclaim/internal.h"

#include "base/host.h"

#include <errno.h>

/* One write; allocated with the batch that it belongs to, freed with the last of it. */
struct writeback {
	_Atomic unsigned left;
	struct ucow_machine *machine;
	struct {
		struct swap_write write;
		struct writeback *batch;
	} items[SHRINK_BATCH_MAX];
};

/*
 * The page has been written, or not. If not, it stays, dirty, and the slot that could not be written goes, unless
 * entries name it: then it stays in the cache, and there is no other copy.
 */
static void complete(struct ucow_machine *machine, struct ucow_page *page, int error)
{
	struct swap *swap = machine_swap(machine);

	page_clear(page, PAGE_WRITEBACK | (error ? 0 : (uint32_t)PAGE_DIRTY));
	if (!error) {
		count(&machine->counters, UCOW_COUNTER_SWAP_OUT);
		if (swap_evict(swap, page)) {
			memcg_note_reclaimed(machine, page->memcg);
			page_free(page);
			count(&machine->counters, UCOW_COUNTER_RECLAIM_STOLEN);
			return;
		}
	}
	if (error)
		page_set(page, PAGE_ACTIVE);
	page_get(page);
	lru_put_back(page, LRU_NEWEST);
	swap_unlock(swap, page);
	page_put(page);
}

void reclaim_written(void *machine, struct swap_write *write)
{
	struct writeback *batch = write->owner;
	struct ucow_page *page = page_of_bytes(&((struct ucow_machine *)machine)->frames, write->bytes);

	if (write->is_zero)
		count(&((struct ucow_machine *)machine)->counters, UCOW_COUNTER_SWAP_ZERO);
	complete(machine, page, write->error);
	if (atomic_fetch_sub(&batch->left, 1) == 1)
		host_free(batch);
}

static void give_up(struct shrink *shrink, struct ucow_page *const *pages, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		complete(shrink->machine, pages[i], -ENOMEM);
}

/*
 * Pages of one device, in the order of their slots. These keep it there; once the last of them is written nothing does,
 * and the store is still at work for a moment.
 */
static void submit_to(struct swap_device *device, struct swap_write **writes, unsigned n)
{
	struct swap_store *store;

	if (!n)
		return;
	store = swap_device_use(device);
	swap_store_submit(store, writes, n);
	swap_device_done(device);
}

void writeback_submit(struct shrink *shrink, struct ucow_page *const *pages, unsigned n)
{
	struct swap_write *writes[SHRINK_BATCH_MAX];
	struct writeback *batch;
	struct swap_device *device = NULL;
	unsigned from = 0;

	if (!n)
		return;
	batch = inject_fails(&shrink->machine->inject, UCOW_INJECT_OTHER) ? NULL : host_alloc(sizeof(*batch));
	if (!batch) {
		give_up(shrink, pages, n);
		return;
	}
	atomic_store(&batch->left, n);
	for (unsigned i = 0; i < n; i++) {
		struct swap_entry entry = page_swap_entry(pages[i]);
		struct swap_device *of = swap_device_of(shrink->swap, entry);

		page_set_and_wake(pages[i], PAGE_WRITEBACK);
		batch->items[i].write = (struct swap_write){
			.slot = swap_entry_slot(entry),
			.bytes = page_bytes(pages[i]),
			.owner = batch,
		};
		writes[i] = &batch->items[i].write;
		if (of != device || (i > from && writes[i]->slot < writes[i - 1]->slot)) {
			submit_to(device, writes + from, i - from);
			from = i;
			device = of;
		}
	}
	submit_to(device, writes + from, n - from);
}

/* Of one device, if it is there. */
static unsigned reap(struct swap_device *device, bool wait)
{
	struct swap_store *store = swap_device_use(device);
	unsigned n = 0;

	if (store) {
		n = swap_store_reap(store, wait);
		swap_device_done(device);
	}
	return n;
}

unsigned writeback_reap(struct swap *swap, bool wait)
{
	unsigned n = 0;

	for (unsigned i = 0; swap && i < UCOW_SWAP_DEVICES; i++)
		if (swap_device_is_there(&swap->devices[i]))
			n += reap(&swap->devices[i], wait && !n);
	return n;
}

static unsigned in_flight(struct swap_device *device)
{
	struct swap_store *store = swap_device_use(device);
	unsigned n = 0;

	if (store) {
		n = swap_store_in_flight(store);
		swap_device_done(device);
	}
	return n;
}

unsigned writeback_in_flight(struct swap *swap)
{
	unsigned n = 0;

	for (unsigned i = 0; swap && i < UCOW_SWAP_DEVICES; i++)
		if (swap_device_is_there(&swap->devices[i]))
			n += in_flight(&swap->devices[i]);
	return n;
}

void writeback_wait(struct swap *swap)
{
	while (writeback_in_flight(swap))
		writeback_reap(swap, true);
}

static bool is_under_way(const volatile void *flags, uintptr_t store)
{
	return !(__atomic_load_n((const volatile uint32_t *)flags, __ATOMIC_ACQUIRE) & PAGE_WRITEBACK) ||
	       swap_store_is_busy((const struct swap_store *)store);
}

/* Nothing is in flight: the page that is marked so has yet to be submitted, or has been written by now. */
static void await_submission(struct swap *swap, struct ucow_page *page)
{
	struct swap_device *device = swap_device_of(swap, page_swap_entry(page));
	struct swap_store *store = swap_device_use(device);

	if (!store)
		return;
	wait_until(HOOK_LOAD, &page->flags, is_under_way, (uintptr_t)store);
	swap_device_done(device);
}

/*
 * A page that is being written keeps its lock until somebody sees that it has been: whoever waits for it may be the
 * only one who can.
 */
void reclaim_lock_page(struct ucow_machine *machine, struct ucow_page *page)
{
	struct swap *swap = machine_swap(machine);

	while (!page_lock_unless(page, PAGE_WRITEBACK))
		if (!writeback_reap(swap, true))
			await_submission(swap, page);
}
