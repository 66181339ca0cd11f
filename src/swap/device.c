/* SPDX-License-Identifier: MIT */
/* Swap devices: how they come and what they tell. How they go is reclaim/swapoff.c. */
#include "swap/internal.h"

#include "base/host.h"

#include <errno.h>

static const struct swap_ops table_ops = {
	.dup = swap_dup,
	.drop = swap_drop,
	.is_full = swap_is_full,
	.unmapped = swap_unmapped,
};

/* ---- memory ---- */

/* What a device has while it is there. */
struct parts {
	struct swap_store *store;
	struct swap_slot *slots;
	uint64_t *taken;
	uint64_t nslots;
};

static uint64_t slots_bytes(const struct parts *parts)
{
	return page_round_up(parts->nslots * sizeof(struct swap_slot));
}

static uint64_t taken_bytes(const struct parts *parts)
{
	return page_round_up((parts->nslots + 63) / 64 * sizeof(uint64_t));
}

static void parts_release(struct parts *parts)
{
	if (parts->slots)
		host_unmap(parts->slots, slots_bytes(parts));
	if (parts->taken)
		host_unmap(parts->taken, taken_bytes(parts));
	if (parts->store)
		swap_store_close(parts->store);
}

static int parts_make(struct swap *swap, const struct ucow_swap_options *options, struct parts *parts)
{
	int error = -ENOMEM;

	*parts = (struct parts){.nslots = (options->nbytes + UCOW_PAGE_SIZE - 1) >> UCOW_PAGE_SHIFT};
	parts->slots = host_map(slots_bytes(parts));
	parts->taken = host_map(taken_bytes(parts));
	if (parts->slots && parts->taken)
		error = swap_store_open(options, &swap->machine->inject, swap->written, swap->machine, &parts->store);
	if (error)
		parts_release(parts);
	return error;
}

/* A device's memory stays, empty, when the device goes: a fault may have read its number in an entry that is gone. */
static void device_fill(struct swap_device *device, const struct parts *parts, int priority)
{
	spin_lock(&device->lock, LOCK_SWAP);
	device->slots = parts->slots;
	device->taken = parts->taken;
	device->store = parts->store;
	device->priority = priority;
	device->next = device->steal = 0;
	device->is_open = true;
	atomic_store_explicit(&device->window, 1, memory_order_relaxed);
	atomic_store(&device->nslots, parts->nslots); /* last: it is there */
	spin_unlock(&device->lock, LOCK_SWAP);
}

static struct parts device_empty(struct swap_device *device)
{
	struct parts parts;

	spin_lock(&device->lock, LOCK_SWAP);
	parts = (struct parts){
		.store = device->store, .slots = device->slots, .taken = device->taken, .nslots = device->nslots};
	atomic_store(&device->nslots, 0);
	device->store = NULL;
	device->slots = NULL;
	device->taken = NULL;
	device->is_open = false;
	spin_unlock(&device->lock, LOCK_SWAP);
	return parts;
}

struct swap_store *swap_device_use(struct swap_device *device)
{
	struct swap_store *store;

	spin_lock(&device->lock, LOCK_SWAP);
	store = device->store;
	if (store)
		atomic_fetch_add(&device->users, 1);
	spin_unlock(&device->lock, LOCK_SWAP);
	return store;
}

void swap_device_done(struct swap_device *device)
{
	atomic_fetch_sub(&device->users, 1);
}

/* ---- the machine's swap ---- */

/* Lists for everybody who may be charged. Requires: swap_lock, so that no group comes meanwhile. */
static int open_lists(struct ucow_machine *machine)
{
	struct ucow_memcg *memcg = NULL;
	struct lru *lru = lru_create();
	int error = lru ? 0 : -ENOMEM;

	while (!error && (memcg = memcg_next(machine, memcg)))
		error = lru_vec_create(lru, memcg->id);
	memcg_put(memcg);
	if (error)
		lru_destroy(lru);
	else
		atomic_store(&machine->frames.lru, lru);
	return error;
}

int swap_open_lists(struct ucow_machine *machine)
{
	int error = 0;

	if (likely(machine->frames.lru))
		return 0;
	mutex_lock(&machine->swap_lock);
	if (!machine->frames.lru)
		error = open_lists(machine);
	mutex_unlock(&machine->swap_lock);
	return error;
}

/*
 * The first device: from now on pages are listed by age. Those that were there before are too old to matter until they
 * are found by their frames (swap_list_pages).
 */
static int swap_create(struct ucow_machine *machine, struct swap **result)
{
	struct swap *swap = host_alloc(sizeof(*swap));

	if (!swap)
		return -ENOMEM;
	swap->machine = machine;
	swap->written = pressure_ops.written;
	if (!machine->frames.lru && open_lists(machine)) {
		host_free(swap);
		return -ENOMEM;
	}
	machine->tables.swap_arg = swap;
	machine->tables.swap = &table_ops;
	atomic_store_explicit(&machine->swap, swap, memory_order_release);
	*result = swap;
	return 0;
}

/* Private pages from before the lists: frames are looked at one by one. */
static void list_pages(struct ucow_machine *machine)
{
	struct frame_pool *frames = &machine->frames;
	uint64_t end;

	spin_lock(&frames->lock, LOCK_BUDDY);
	end = frames->next_block << FRAME_MAX_ORDER;
	spin_unlock(&frames->lock, LOCK_BUDDY);
	for (uint64_t pfn = 0; pfn < end; pfn++) {
		struct ucow_page *page = &frames->pages[pfn];

		if (!page_is(page, PAGE_ANON) || page_try_get(page))
			continue;
		if (page_is(page, PAGE_ANON) && !page_is(page, PAGE_LRU | PAGE_BATCHED))
			lru_add(page);
		page_put(page);
	}
}

static int free_number(struct swap *swap)
{
	for (unsigned i = 0; i < UCOW_SWAP_DEVICES; i++)
		if (!swap_device_is_there(&swap->devices[i]))
			return (int)i;
	return -1;
}

static int add_locked(struct ucow_machine *machine, const struct ucow_swap_options *options, unsigned *number)
{
	struct swap *swap = machine_swap(machine);
	bool is_first = !swap;
	struct parts parts;
	int error = swap ? 0 : swap_create(machine, &swap), at;

	if (error)
		return error;
	at = free_number(swap);
	if (at < 0)
		return -ENOSPC;
	error = parts_make(swap, options, &parts);
	if (error)
		return error;
	if (is_first)
		list_pages(machine);
	device_fill(&swap->devices[at], &parts, options->priority);
	*number = (unsigned)at;
	return 0;
}

static bool options_are_valid(const struct ucow_swap_options *options)
{
	const uint32_t all = UCOW_SWAP_MEMORY | UCOW_SWAP_COMPRESS | UCOW_SWAP_DIRECT | UCOW_SWAP_NO_URING;

	return options->size == sizeof(*options) && !(options->flags & ~all) && options->nbytes &&
	       options->nbytes >> UCOW_PAGE_SHIFT < (uint64_t)1 << SWAP_SLOT_BITS &&
	       !((options->flags & UCOW_SWAP_MEMORY) && (options->path || (options->flags & UCOW_SWAP_DIRECT)));
}

int ucow_swapon(struct ucow_machine *machine, const struct ucow_swap_options *options, unsigned *device)
{
	unsigned number;
	int error;

	if (!options_are_valid(options))
		return -EINVAL;
	if (inject_fails(&machine->inject, UCOW_INJECT_OTHER))
		return -ENOMEM;
	mutex_lock(&machine->swap_lock);
	error = add_locked(machine, options, &number);
	mutex_unlock(&machine->swap_lock);
	if (!error && device)
		*device = number;
	return error;
}

static bool is_unused(const volatile void *users, uintptr_t unused)
{
	(void)unused;
	return !__atomic_load_n((const volatile uint32_t *)users, __ATOMIC_ACQUIRE);
}

void swap_device_remove(struct swap *swap, unsigned number)
{
	struct swap_device *device = &swap->devices[number];
	struct parts parts = device_empty(device);

	wait_until(HOOK_LOAD, &device->users, is_unused, 0);
	parts_release(&parts);
}

/* ---- what it tells ---- */

int ucow_swap_stat(struct ucow_machine *machine, unsigned number, struct ucow_swap_stat *stat)
{
	struct swap *swap = machine_swap(machine);
	struct swap_device *device;
	int error = -EINVAL;

	mutex_lock(&machine->swap_lock);
	device = swap && number < UCOW_SWAP_DEVICES ? &swap->devices[number] : NULL;
	if (device && swap_device_is_there(device)) {
		*stat = (struct ucow_swap_stat){.capacity = device->nslots, .priority = device->priority};
		swap_store_stat(device->store, stat);
		spin_lock(&device->lock, LOCK_SWAP);
		stat->used = device->used;
		stat->cached = device->cached;
		spin_unlock(&device->lock, LOCK_SWAP);
		error = 0;
	}
	mutex_unlock(&machine->swap_lock);
	return error;
}

bool swap_is_tight(struct swap *swap)
{
	uint64_t slots = 0;

	for (unsigned i = 0; i < UCOW_SWAP_DEVICES; i++)
		slots += atomic_load_explicit(&swap->devices[i].nslots, memory_order_relaxed);
	return 2 * swap_used(swap) > slots;
}

uint64_t swap_used(struct swap *swap)
{
	uint64_t used = 0;

	for (unsigned i = 0; swap && i < UCOW_SWAP_DEVICES; i++)
		used += atomic_load_explicit(&swap->devices[i].used, memory_order_relaxed);
	return used;
}

void swap_close(struct ucow_machine *machine)
{
	struct swap *swap = machine_swap(machine);

	if (!swap)
		return;
	for (unsigned i = 0; i < UCOW_SWAP_DEVICES; i++)
		if (swap_device_is_there(&swap->devices[i]))
			swap_device_remove(swap, i);
	atomic_store(&machine->swap, NULL);
	host_free(swap);
}
