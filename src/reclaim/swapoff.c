/* SPDX-License-Identifier: MIT */
/*
 * swapoff: slot after slot, the page is brought to RAM and every entry that names the slot becomes present, read-only,
 * and exclusive if it was (B.6). The entries are found by the page's family, as the mappings of a page are.
 */
#include "reclaim/internal.h"

#include "base/mutate.h"

#include <errno.h>

struct swapoff {
	struct ucow_machine *machine;
	struct swap *swap;
	struct swap_device *device;
	unsigned number;
	struct swap_entry entry; /* at work on */
	struct ucow_page *page;  /* its, locked, with a reference */
};

/* Requires: the device's lock. */
static bool names(const struct swap_slot *slot)
{
	return slot->flags & SLOT_USED;
}

/* An entry that names the slot: map the page there, as a read fault would, but for the write permission. */
static bool restore_entry(void *arg, const struct rmap_entry *entry)
{
	struct swapoff *off = arg;
	uint32_t paths = entry->leaf->accounted;
	struct pte pte = pte_inherit(pte_make_anon(off->page), entry->pte);

	if (pte_is_protnone(entry->pte))
		pte = pte_mk_protnone(pte);
	if (pte_swap_is_exclusive(entry->pte) && !MUTATED(SWAPOFF_LOSES_EXCLUSIVE))
		page_set(off->page, PAGE_EXCLUSIVE);
	for (uint32_t i = 0; i < paths; i++) {
		page_get(off->page);
		page_map(off->page);
	}
	leaf_set(entry->leaf, entry->va, pte_mkold(pte));
	off->machine->tables.swap->drop(off->swap, off->entry, paths);
	return true;
}

static bool is_named(void *arg)
{
	const struct swapoff *off = arg;

	return swap_count(off->swap, off->page);
}

/* Returns: 0 and the slot's page, with a reference; -ENOENT: the slot is free; -ENOMEM; -EIO. */
static int bring(struct swapoff *off)
{
	int error = 0;

	for (;;) {
		struct swap_slot *slot = &off->device->slots[swap_entry_slot(off->entry)];
		bool used;

		spin_lock(&off->device->lock, LOCK_SWAP);
		used = names(slot);
		spin_unlock(&off->device->lock, LOCK_SWAP);
		if (!used)
			return -ENOENT;
		off->page = swap_lookup(off->swap, off->entry);
		if (off->page)
			return 0;
		error = swap_read(off->swap, NULL, off->entry, &off->page);
		if (error || off->page)
			return error;
	}
}

/* One slot. Returns: whether it is free now; else *error says why not, or 0: try again. */
static bool empty_slot(struct swapoff *off, int *error)
{
	enum rmap_result result = RMAP_DONE;

	*error = bring(off);
	if (*error) {
		bool is_free = *error == -ENOENT;

		*error = is_free ? 0 : *error;
		return is_free;
	}
	reclaim_lock_page(off->machine, off->page);
	if (page_is(off->page, PAGE_SWAPCACHE) && page_swap_entry(off->page).v == off->entry.v) {
		result = rmap_walk_swap(off->machine, off->page, off->entry, is_named, restore_entry, off);
		if (result == RMAP_DONE && !swap_count(off->swap, off->page))
			swap_forget(off->swap, off->page, false);
	}
	swap_unlock(off->swap, off->page);
	page_put(off->page);
	return false;
}

#define SLOT_TRIES 1000

static bool count_differs(const volatile void *count, uintptr_t old)
{
	return __atomic_load_n((const volatile uint32_t *)count, __ATOMIC_RELAXED) != old;
}

/*
 * Some entry is in other hands: one that is being moved is there a moment later, one that was unmapped is counted no
 * more a moment later. The first has had its chance when two walks have found nothing.
 */
static void wait_for_others(struct swapoff *off, unsigned tries)
{
	struct swap_slot *slot = &off->device->slots[swap_entry_slot(off->entry)];
	uint32_t count = __atomic_load_n(&slot->count, __ATOMIC_RELAXED);

	epoch_synchronize(&off->machine->epoch);
	if (exploring && tries && count)
		wait_until(HOOK_LOAD, &slot->count, count_differs, count);
	else if (tries > 8)
		sched_yield();
}

static int empty_slot_surely(struct swapoff *off)
{
	unsigned relieved = 0;
	int error = 0;

	for (unsigned tries = 0; tries < SLOT_TRIES; tries++) {
		if (empty_slot(off, &error))
			return 0;
		if (error == -EIO)
			return error;
		if (error == -ENOMEM && (relieved++ >= 8 || !off->machine->shrink(off->machine, NULL, SHRINK_BATCH)))
			return error;
		if (!error)
			wait_for_others(off, tries);
	}
	return error ? error : -EBUSY;
}

static int empty_device(struct swapoff *off)
{
	int error = 0;

	for (uint64_t slot = 0; !error && swap_next_used(off->device, &slot); slot++) {
		off->entry = swap_entry_make(off->number, slot);
		error = empty_slot_surely(off);
	}
	return error;
}

/* From here on no page gets a slot of the device, or, after a failure, may again. */
static void set_open(struct swap_device *device, bool is_open)
{
	spin_lock(&device->lock, LOCK_SWAP);
	device->is_open = is_open;
	spin_unlock(&device->lock, LOCK_SWAP);
}

static int swapoff_locked(struct swapoff *off)
{
	int error;

	off->swap = machine_swap(off->machine);
	off->device = off->swap && off->number < UCOW_SWAP_DEVICES ? &off->swap->devices[off->number] : NULL;
	if (!off->device || !swap_device_is_there(off->device))
		return -EINVAL;
	set_open(off->device, false);
	writeback_wait(off->swap);
	error = empty_device(off);
	if (error)
		set_open(off->device, true);
	else
		swap_device_remove(off->swap, off->number);
	return error;
}

int ucow_swapoff(struct ucow_machine *machine, unsigned device)
{
	struct swapoff off = {.machine = machine, .number = device};
	int error;

	mutex_lock(&machine->swap_lock);
	error = swapoff_locked(&off);
	mutex_unlock(&machine->swap_lock);
	return error;
}
