/* SPDX-License-Identifier: MIT */
/*
 * Swap slots and the swap cache. A slot is named by entries (counted), and may have its page in RAM: the swap cache,
 * which is one reference to that page. Semantics.md B.6.
 *
 * A page in the cache has one slot and knows it. The page lock is held by whoever puts the page in or
 * takes it out, reads or writes its bytes from or to the device. A slot comes free when no entry names it and it has no
 * page; who finds only the page left takes that out, or leaves it to the holder of the page lock, who looks afterwards
 * (swap_unlock).
 */
#ifndef SWAP_SWAP_H
#define SWAP_SWAP_H

#include "space/mm.h"
#include "swap/store.h"

#define SWAP_COUNT_MAX 0x7fffffffu

struct swap_slot {
	uint32_t count;         /* (S) entries that name it */
	uint16_t memcg;         /* (S) the group that it is charged to */
	int8_t home;            /* (S) of the page that went out, in ... */
	uint8_t flags;          /* (S) SLOT_* */
	void *mapping;          /* (S) ... its family, which lasts while entries of its leaves name the slot */
	struct ucow_page *page; /* (S) in the swap cache; NULL: not there */
};
#define SLOT_USED 1u /* the slot is taken */
#define SLOT_KSM  2u /* a merged page went out: `mapping` is its struct rmap_merged */

struct swap_device {
	struct spin lock;         /* LOCK_SWAP; (S) */
	bool is_open;             /* (S) slots may be taken */
	struct swap_store *store; /* (S) NULL: no device has this number */
	_Atomic uint64_t nslots;  /* (S) to write; 0: no device has this number */
	_Atomic uint32_t users;   /* (A) of the store, that no slot keeps there */
	struct swap_slot *slots;  /* (S) */
	uint64_t *taken;          /* (S) one bit a slot */
	uint64_t next;            /* (S) where to look for free ones first */
	_Atomic uint64_t used;    /* (S) to write */
	uint64_t cached;          /* (S) */
	uint64_t steal;           /* (S) where to look next for slots that only the cache needs */
	int priority;             /* (S) */
	_Atomic uint32_t window;  /* (A) of readahead, pages */
	_Atomic uint32_t misses;  /* (A) reads with a window of one */
	_Atomic uint32_t hits;    /* (A) of readahead since the window was set */
};

struct swap {
	struct ucow_machine *machine;                  /* (C) */
	struct swap_device devices[UCOW_SWAP_DEVICES]; /* come and go under swap_lock */
	_Atomic unsigned turn;                         /* (A) among devices of equal priority */
	/* (C) called when a page has been written; see reclaim/ */
	void (*written)(void *machine, struct swap_write *write);
};

/* The machine's swap, or NULL. */
static inline struct swap *machine_swap(const struct ucow_machine *machine)
{
	return atomic_load_explicit(&machine->swap, memory_order_acquire);
}

/* swap_device_of - the device of a slot that an entry names, or named. */
static inline struct swap_device *swap_device_of(struct swap *swap, struct swap_entry entry)
{
	return &swap->devices[swap_entry_device(entry) % UCOW_SWAP_DEVICES];
}

static inline bool swap_device_is_there(const struct swap_device *device)
{
	return atomic_load_explicit(&device->nslots, memory_order_acquire);
}

/*
 * swap_device_use - the device's store, which stays until swap_device_done, or NULL: it has gone. Not needed by who
 * keeps a slot of it from coming free.
 */
struct swap_store *swap_device_use(struct swap_device *device);
void swap_device_done(struct swap_device *device);

/* ---- slots ---- */

/*
 * swap_take - slots for @n pages, which go into the swap cache: in one device, side by side as far as possible.
 * Requires: the page locks; no page in the cache. Returns: how many, from the first on, got one.
 */
unsigned swap_take(struct swap *swap, struct ucow_page *const *pages, unsigned n);
/* swap_forget - take @page out of the cache: its slot, if no entry names it, is free. Requires: the page lock. Returns:
 * whether it is out: not while it is being written, or (@even_if_named false) while entries name the slot. */
bool swap_forget(struct swap *swap, struct ucow_page *page, bool even_if_named);
/*
 * swap_evict - swap_forget of a page that nobody but the cache and the caller refers to, entries or not: the caller's
 * reference is the last then. Returns: whether it was so; else nothing has changed. Requires: the page lock, and bytes
 * that the device has.
 */
bool swap_evict(struct swap *swap, struct ucow_page *page);
/* swap_is_merged - whether the slot that an entry names, whose leaf is locked, is a merged page's. */
bool swap_is_merged(struct swap *swap, struct swap_entry entry);
/* swap_count - entries that name the slot of @page; 0 if it is not in the cache. Without the page lock it may just have
 * been. */
uint32_t swap_count(struct swap *swap, const struct ucow_page *page);
/* swap_is_tight - more than half of all slots are in use. */
bool swap_is_tight(struct swap *swap);
/* swap_unlock - page_unlock; and if nothing but the cache is left of the slot, the page leaves it. */
void swap_unlock(struct swap *swap, struct ucow_page *page);

static inline struct swap_entry page_swap_entry(const struct ucow_page *page)
{
	return (struct swap_entry){atomic_load_explicit(&page->entry, memory_order_relaxed)};
}

/* ---- in ---- */

/* swap_lookup - the page of @entry in the cache, with a reference, or NULL. Spin locks may be held. */
struct ucow_page *swap_lookup(struct swap *swap, struct swap_entry entry);
/*
 * swap_read - bring the page of @entry into the cache, its neighbours too where that pays. @mm: who asks.
 * Requires: no spin lock, no section; the entry cannot go away. Returns: 0 and the page, with a reference, or NULL: it
 * is there already, or nobody names the slot: look again; -ENOMEM; -EIO (this page cannot be read).
 */
int swap_read(struct swap *swap, struct ucow_mm *mm, struct swap_entry entry, struct ucow_page **page);
/* swap_note_hit - a fault found @page in the cache. */
void swap_note_hit(struct swap *swap, struct ucow_page *page);

/* ---- life ---- */

/* swap_next_used - the first slot in use from *slot on. Returns: whether there is one. */
bool swap_next_used(struct swap_device *device, uint64_t *slot);
/* swap_device_remove - Requires: machine->swap_lock, no slot in use, none can be taken. */
void swap_device_remove(struct swap *swap, unsigned number);
/* swap_close - the machine ends. Requires: no slot in use. */
void swap_close(struct ucow_machine *machine);
/*
 * swap_open_lists - pages are listed by age from now on, for what can go without a device. Requires: no lock. Returns:
 * 0; -ENOMEM.
 */
int swap_open_lists(struct ucow_machine *machine);
/* swap_used - slots in use. */
uint64_t swap_used(struct swap *swap);

#endif
