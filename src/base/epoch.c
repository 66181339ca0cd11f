/* SPDX-License-Identifier: MIT */
/* Members, waiting for sections to be left, and what is put off until then. */
#include "base/epoch.h"

#include "base/host.h"
#include "base/mutate.h"

#include <errno.h>
#include <string.h>

int epoch_init(struct epoch *epoch, void (*release_item)(struct epoch *, void *),
	       void (*release_chain)(struct epoch *, void *))
{
	barrier_init();
	memset(epoch, 0, sizeof(*epoch));
	list_init(&epoch->members);
	epoch->release_item = release_item;
	epoch->release_chain = release_chain;
	epoch->backlogs = host_map(page_round_up(THREAD_SLOTS * sizeof(*epoch->backlogs)));
	if (!epoch->backlogs)
		return -ENOMEM;
	for (unsigned i = 0; i < THREAD_SLOTS; i++)
		epoch->slots[i].backlog = &epoch->backlogs[i];
	return 0;
}

void epoch_destroy(struct epoch *epoch)
{
	UCOW_BUG_ON(!list_is_empty(&epoch->members) || epoch_pending(epoch));
	host_unmap(epoch->backlogs, page_round_up(THREAD_SLOTS * sizeof(*epoch->backlogs)));
}

void epoch_register(struct epoch *epoch, unsigned slot)
{
	atomic_fetch_or(&epoch->users, (uint32_t)1 << slot);
}

/* ---- members ---- */

void epoch_join(struct epoch *epoch, struct epoch_member *member, _Atomic uint32_t *active)
{
	member->active = active;
	spin_lock(&epoch->lock, LOCK_EPOCH);
	list_add_tail(&epoch->members, &member->link);
	spin_unlock(&epoch->lock, LOCK_EPOCH);
}

void epoch_quit(struct epoch *epoch, struct epoch_member *member)
{
	spin_lock(&epoch->lock, LOCK_EPOCH);
	list_del(&member->link);
	spin_unlock(&epoch->lock, LOCK_EPOCH);
}

/* Requires: the epoch's lock. */
static uint32_t slots_of(const struct epoch *epoch, const void *of)
{
	uint32_t slots = 0;

	LIST_FOR_EACH (link, &epoch->members) {
		const struct epoch_member *member = container_of(link, struct epoch_member, link);

		if (atomic_load_explicit(&member->of, memory_order_relaxed) == of)
			slots |= (uint32_t)1 << member->slot;
	}
	return slots;
}

void epoch_attach(struct epoch *epoch, struct epoch_member *member, const void *of, _Atomic uint32_t *slots,
		  _Atomic uint32_t *old_slots)
{
	unsigned slot = thread_slot();
	const void *old;

	if (of && !(atomic_load_explicit(&epoch->users, memory_order_relaxed) >> slot & 1))
		epoch_register(epoch, slot);
	spin_lock(&epoch->lock, LOCK_EPOCH);
	old = atomic_load_explicit(&member->of, memory_order_relaxed);
	member->slot = slot;
	atomic_store_explicit(&member->of, of, memory_order_relaxed);
	if (old_slots && old != of)
		atomic_store(old_slots, slots_of(epoch, old));
	if (slots)
		atomic_exchange(slots, slots_of(epoch, of));
	spin_unlock(&epoch->lock, LOCK_EPOCH);
}

/* ---- waiting ---- */

static bool is_zero(const volatile void *word, uintptr_t unused)
{
	(void)unused;
	return !__atomic_load_n((const volatile uint32_t *)word, __ATOMIC_ACQUIRE);
}

static void wait_zero(_Atomic uint32_t *word)
{
	wait_until(HOOK_LOAD, word, is_zero, 0);
}

void epoch_expel(struct epoch *epoch, const void *of)
{
	if (!MUTATED(SKIP_BARRIER))
		barrier_expedite();
	spin_lock(&epoch->lock, LOCK_EPOCH);
	LIST_FOR_EACH (link, &epoch->members) {
		struct epoch_member *member = container_of(link, struct epoch_member, link);

		if (atomic_load_explicit(&member->of, memory_order_relaxed) == of && !MUTATED(SKIP_WAIT))
			wait_zero(member->active);
	}
	spin_unlock(&epoch->lock, LOCK_EPOCH);
}

/* Everybody, whatever he is attached to. */
static void wait_for_all(struct epoch *epoch)
{
	uint32_t users = atomic_load(&epoch->users);

	barrier_expedite();
	for (unsigned slot = 0; slot < THREAD_SLOTS; slot++)
		if (users >> slot & 1)
			wait_zero(&epoch->slots[slot].active);
	spin_lock(&epoch->lock, LOCK_EPOCH);
	LIST_FOR_EACH (link, &epoch->members)
		wait_zero(container_of(link, struct epoch_member, link)->active);
	spin_unlock(&epoch->lock, LOCK_EPOCH);
}

void epoch_quiesce(struct epoch *epoch)
{
	wait_for_all(epoch);
}

/* ---- putting off ---- */

static void note_pending(struct epoch_slot *slot, uint32_t pending)
{
	atomic_store_explicit(&slot->pending, pending, memory_order_relaxed);
}

bool epoch_defer_item(struct epoch *epoch, void *object)
{
	struct epoch_slot *slot = &epoch->slots[thread_slot()];
	struct epoch_backlog *backlog = slot->backlog;
	bool room;

	spin_lock(&slot->lock, LOCK_EPOCH);
	room = backlog->count < EPOCH_CAPACITY;
	if (room) {
		backlog->items[backlog->count++] = object;
		note_pending(slot, slot->pending + 1);
	}
	spin_unlock(&slot->lock, LOCK_EPOCH);
	return room;
}

void epoch_defer_chain(struct epoch *epoch, void *object, void **next)
{
	struct epoch_slot *slot = &epoch->slots[thread_slot()];

	spin_lock(&slot->lock, LOCK_EPOCH);
	*next = slot->backlog->chain;
	slot->backlog->chain = object;
	note_pending(slot, slot->pending + 1);
	spin_unlock(&slot->lock, LOCK_EPOCH);
}

bool epoch_pending(const struct epoch *epoch)
{
	for (unsigned i = 0; i < THREAD_SLOTS; i++)
		if (atomic_load_explicit(&epoch->slots[i].pending, memory_order_relaxed))
			return true;
	return false;
}

/* Take what @slot has put off into @taken. Returns: whether there was anything. */
static bool take(struct epoch_slot *slot, struct epoch_backlog *taken)
{
	struct epoch_backlog *backlog = slot->backlog;
	bool any;

	spin_lock(&slot->lock, LOCK_EPOCH);
	any = slot->pending;
	if (any) {
		taken->count = backlog->count;
		memcpy(taken->items, backlog->items, backlog->count * sizeof(*backlog->items));
		taken->chain = backlog->chain;
		backlog->count = 0;
		backlog->chain = NULL;
		note_pending(slot, 0);
	}
	spin_unlock(&slot->lock, LOCK_EPOCH);
	return any;
}

static void release(struct epoch *epoch, struct epoch_backlog *taken)
{
	for (unsigned i = 0; i < taken->count; i++)
		epoch->release_item(epoch, taken->items[i]);
	if (taken->chain)
		epoch->release_chain(epoch, taken->chain);
}

bool epoch_synchronize(struct epoch *epoch)
{
	bool any = false;

	UCOW_BUG_ON(thread_slot() != THREAD_SLOT_SHARED &&
		    atomic_load_explicit(&epoch->slots[thread_slot()].active, memory_order_relaxed));
	for (unsigned i = 0; i < THREAD_SLOTS; i++) {
		struct epoch_slot *slot = &epoch->slots[i];
		struct epoch_backlog taken;

		if (!atomic_load_explicit(&slot->pending, memory_order_relaxed) || !take(slot, &taken))
			continue;
		wait_for_all(epoch);
		release(epoch, &taken);
		any = true;
	}
	return any;
}
