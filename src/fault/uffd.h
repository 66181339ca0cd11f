/* SPDX-License-Identifier: MIT */
/*
 * Userfaultfds as faults see them: who is asked, who waits for an answer, what waits to be read. The operations that
 * programs call are in ops/uffd*.c.
 *
 * A fault that somebody else has to resolve ends with FAULT_USERFAULT, with who is asked noted in its struct uffd_wait.
 * Whoever called it lets go of all locks, calls uffd_wait, and tries again. A message is queued under the mmap lock,
 * and the entry looked at once more afterwards: who resolves changes the entry first and then looks for waiters, so one
 * of the two sees the other [ORD-UFFD-1].
 */
#ifndef FAULT_UFFD_H
#define FAULT_UFFD_H

#include "space/mm.h"

#include <ucow/uffd.h>

/*
 * (C) fixed after creation (A) atomic (M) the space's mmap lock: shared to read, exclusively to write (U) its own lock
 */
struct ucow_uffd {
	struct ucow_machine *machine;  /* (C) */
	_Atomic(struct ucow_mm *) mm;  /* (A) NULL: the space has ended */
	struct ucow_uffd_options with; /* (C) */
	struct list link;              /* (M) on mm->uffds */
	_Atomic uint32_t refcount;     /* (A) the owner, waiters, readers, notes */
	_Atomic uint32_t changing;     /* (A) events that have not been received yet: nothing may be filled meanwhile */
	_Atomic uint32_t nwaiting;     /* (A) waiters on the next two lists; grows and shrinks under (U) */
	struct mutex lock;             /* LOCK_UFFD */
	struct list faults;            /* (U) struct uffd_wait: not read yet */
	struct list told;              /* (U) read, and not woken yet */
	struct list events;            /* (U) struct uffd_wait: events that have not been read */
	_Atomic uint32_t arrivals;     /* (A) grows when something is queued; readers sleep on it */
	uint32_t readers;              /* (U) asleep, or about to be */
	bool closed;                   /* (U) */
	int fd;                        /* (U) for poll; -1: nobody wants it */
};

/* Somebody who waits, or is about to: lives with him. */
struct uffd_wait {
	struct ucow_uffd *uffd; /* whom he asks, with a reference; NULL: nobody */
	bool asked;             /* the callback has said QUEUE */
	/* The rest only with uffd. */
	bool queued;
	bool claimed; /* (U) off the lists: whoever took it wakes its owner */
	bool dropped; /* (U) an event that nobody will receive */
	struct ucow_uffd_msg msg;
	struct list link;       /* (U); claimed: whoever took it */
	_Atomic uint32_t woken; /* (A) */
};

static inline void uffd_wait_init(struct uffd_wait *wait)
{
	wait->uffd = NULL;
	wait->asked = false;
}

static inline bool uffd_has(const struct ucow_uffd *uffd, uint32_t feature)
{
	return uffd->with.features & feature;
}

/* uffd_wp_is_async - a store to a protected page of the mapping lifts the protection itself. */
static inline bool uffd_wp_is_async(const struct vma *vma)
{
	return vma->uffd && (vma->flags & VMA_UFFD_WP) && uffd_has(vma->uffd, UCOW_UFFD_FEATURE_WP_ASYNC);
}

/* uffd_create - known to nobody. Returns: NULL: no memory. */
struct ucow_uffd *uffd_create(struct ucow_mm *mm, const struct ucow_uffd_options *options);
static inline void uffd_get(struct ucow_uffd *uffd)
{
	atomic_fetch_add_explicit(&uffd->refcount, 1, memory_order_relaxed);
}
void uffd_put(struct ucow_uffd *uffd);
/* uffd_shut - whoever waits goes on, events are dropped, readers return. Requires: registered nowhere. */
void uffd_shut(struct ucow_uffd *uffd);

/* ---- faults ---- */

/*
 * uffd_ask - @uffd is to resolve a fault: note it in @wait, and queue it unless the callback is to be asked first.
 * Requires: the mmap lock. Returns: whether it was queued: then look at the entry again, and uffd_cancel if it changed.
 */
bool uffd_ask(struct uffd_wait *wait, struct ucow_uffd *uffd, uint64_t va, unsigned flags);
void uffd_cancel(struct uffd_wait *wait);
/*
 * uffd_wait - ask the callback, or wait until woken. Requires: no lock; a fault that ended with FAULT_USERFAULT.
 * Returns: 0: try again; -ENXIO: the access fails.
 */
int uffd_wait(struct uffd_wait *wait);
/* uffd_wake - who waits in [start, end) tries again. Requires: what they waited for was done before. */
void uffd_wake(struct ucow_uffd *uffd, uint64_t start, uint64_t end);
/* uffd_read - ucow_uffd_read. */
long uffd_read(struct ucow_uffd *uffd, struct ucow_uffd_msg *msgs, size_t n, bool wait);
int uffd_fd(struct ucow_uffd *uffd);

/* ---- events: noted while the space is locked, sent when it no longer is ---- */

/*
 * uffd_note - an event for @uffd, put on @notes. From here to its receipt @uffd is `changing`. Returns: 0; -ENOMEM.
 */
int uffd_note(struct list *notes, struct ucow_uffd *uffd, const struct ucow_uffd_msg *msg);
/* uffd_noted_child - the child that an event on @notes tells @uffd of; NULL: none does. */
struct ucow_uffd *uffd_noted_child(const struct list *notes, const struct ucow_uffd *uffd);
/* uffd_note_unmap - what unmapping [start, end) of @mm will report. Requires: mmap lock exclusively; isolated. */
int uffd_note_unmap(struct ucow_mm *mm, uint64_t start, uint64_t end);
/* uffd_send - deliver what is noted, in order, and wait for its receipt. Requires: no lock. */
void uffd_send(struct list *notes);
/* uffd_forget - nothing has happened after all. The children that events tell of are the caller's. */
void uffd_forget(struct list *notes);
/* uffd_take_notes - move what is noted of @mm to @notes, empty so far. Requires: mmap lock exclusively. */
void uffd_take_notes(struct ucow_mm *mm, struct list *notes);

/* uffd_space_end - @mm ends; its userfaultfds live on without. Requires: nobody else uses @mm. */
void uffd_space_end(struct ucow_mm *mm);

#endif
