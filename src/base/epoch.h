/* SPDX-License-Identifier: MIT */
/*
 * Sections and grace periods. A thread that looks at tables or at the bytes of pages without locks does so inside a
 * section; what it might be looking at is given back only after a grace period, when every section that was open has
 * been left once. [ORD-EPOCH-1] Entering is a plain store, see base/barrier.h: whoever takes an object out of sight,
 * passes barrier_expedite and finds a section closed knows that it will not meet the object any more.
 *
 * There are two kinds of sections: one a thread slot (faults, gup), counted, so that they nest; and one a member, a
 * cpu, for loads and stores. Inside a section a thread waits for nothing but spin locks, and nobody who holds a spin
 * lock or is inside a section waits for a grace period.
 */
#ifndef BASE_EPOCH_H
#define BASE_EPOCH_H

#include "base/barrier.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/thread.h"

#define EPOCH_BACKLOG  512 /* objects put off by one slot that make it wait for a grace period */
#define EPOCH_CAPACITY (EPOCH_BACKLOG + 64)

/* What a slot has put off. (D) the slot's lock */
struct epoch_backlog {
	unsigned count;              /* (D) */
	void *items[EPOCH_CAPACITY]; /* (D) */
	void *chain;                 /* (D) objects linked through words of their own */
};

struct epoch_slot {
	_Atomic uint32_t active;       /* sections open; of the shared slot, by all its threads */
	_Atomic uint32_t pending;      /* objects put off */
	struct spin lock;              /* LOCK_EPOCH */
	struct epoch_backlog *backlog; /* fixed */
} __attribute__((aligned(THREAD_APART)));

/* The section of a cpu. (E) the epoch's lock */
struct epoch_member {
	_Atomic uint32_t *active; /* fixed: 1 inside a section */
	_Atomic(const void *) of; /* (E) what the cpu is attached to; NULL: nothing */
	unsigned slot;            /* (E) of the thread that has attached it */
	struct list link;         /* (E) */
};

struct epoch {
	_Atomic uint32_t users; /* slots that ever had a section here, one bit each */
	struct spin lock;       /* LOCK_EPOCH */
	struct list members;
	struct epoch_backlog *backlogs; /* fixed: one a slot */
	/* Give back one object, or a chain of objects. */
	void (*release_item)(struct epoch *epoch, void *object);
	void (*release_chain)(struct epoch *epoch, void *chain);
	struct epoch_slot slots[THREAD_SLOTS];
};

/* epoch_init - Returns: 0; -ENOMEM. */
int epoch_init(struct epoch *epoch, void (*release_item)(struct epoch *, void *),
	       void (*release_chain)(struct epoch *, void *));
/* epoch_destroy - Requires: no member, nothing put off. */
void epoch_destroy(struct epoch *epoch);

void epoch_register(struct epoch *epoch, unsigned slot);

/* epoch_enter / epoch_leave - a section of the calling thread; nests. */
static inline void epoch_enter(struct epoch *epoch)
{
	unsigned slot = thread_slot();
	_Atomic uint32_t *active = &epoch->slots[slot].active;

	if (unlikely(!(atomic_load_explicit(&epoch->users, memory_order_relaxed) >> slot & 1)))
		epoch_register(epoch, slot);
	if (likely(slot != THREAD_SLOT_SHARED))
		word_enter(active, atomic_load_explicit(active, memory_order_relaxed) + 1);
	else
		atomic_fetch_add(active, 1);
}

static inline void epoch_leave(struct epoch *epoch)
{
	unsigned slot = thread_slot();
	_Atomic uint32_t *active = &epoch->slots[slot].active;

	if (likely(slot != THREAD_SLOT_SHARED))
		word_leave(active, atomic_load_explicit(active, memory_order_relaxed) - 1);
	else
		atomic_fetch_sub_explicit(active, 1, memory_order_release);
}

/*
 * epoch_is_alone - whether no other thread can be inside a section. Asked after a locked read-modify-write that follows
 * the change that others must not miss: a thread that comes later sees the change. [ORD-ALONE-1]
 */
static inline bool epoch_is_alone(const struct epoch *epoch)
{
	unsigned slot = thread_slot();
	uint32_t users = atomic_load(&epoch->users) & thread_slots_alive();

	return slot != THREAD_SLOT_SHARED && !(users & ~((uint32_t)1 << slot));
}

/* epoch_join / epoch_quit - a cpu comes into being, or ends. */
void epoch_join(struct epoch *epoch, struct epoch_member *member, _Atomic uint32_t *active);
void epoch_quit(struct epoch *epoch, struct epoch_member *member);
/*
 * epoch_attach - from now on @member's sections are of @of, entered by the calling thread. @slots, if not NULL, holds
 * the slots of all members of @of; those of what @member was attached to before (@old_slots) are counted anew.
 * A full fence [ORD-MASK-1].
 */
void epoch_attach(struct epoch *epoch, struct epoch_member *member, const void *of, _Atomic uint32_t *slots,
		  _Atomic uint32_t *old_slots);

/*
 * epoch_expel - barrier_expedite, then wait until every member of @of has been seen outside a section.
 * Requires: no lock of rank LOCK_EPOCH or later; the caller is in no section of a member.
 */
void epoch_expel(struct epoch *epoch, const void *of);

/*
 * epoch_quiesce - wait until everybody, threads and cpus, has been seen outside a section. Requires: as epoch_expel,
 * and the calling thread in none at all.
 */
void epoch_quiesce(struct epoch *epoch);

/* epoch_defer_item - give @object back after a grace period. Returns: false: no room, the caller does it another way.
 */
bool epoch_defer_item(struct epoch *epoch, void *object);
/* epoch_defer_chain - the same for one with room for a link, *@next. Never fails. */
void epoch_defer_chain(struct epoch *epoch, void *object, void **next);

/* epoch_synchronize - wait for a grace period and give back what all slots had put off. Requires: no section, no spin
 * lock. Returns: whether there was anything. */
bool epoch_synchronize(struct epoch *epoch);
/* epoch_pending - whether anything waits for a grace period. */
bool epoch_pending(const struct epoch *epoch);
/* epoch_settle - synchronize if the calling thread has put off much. Requires: as epoch_synchronize. */
static inline void epoch_settle(struct epoch *epoch)
{
	struct epoch_slot *slot = &epoch->slots[thread_slot()];

	if (unlikely(atomic_load_explicit(&slot->pending, memory_order_relaxed) >= EPOCH_BACKLOG))
		epoch_synchronize(epoch);
}

#endif
