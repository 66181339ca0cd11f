/* SPDX-License-Identifier: MIT */
/* Userfaultfds: asking, waiting, waking, messages. */
#include "fault/uffd.h"

#include "base/event.h"
#include "base/futex.h"
#include "base/host.h"

#include <errno.h>

/* ---- life ---- */

struct ucow_uffd *uffd_create(struct ucow_mm *mm, const struct ucow_uffd_options *options)
{
	struct ucow_uffd *uffd;

	if (inject_fails(&mm->machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	uffd = host_alloc(sizeof(*uffd));
	if (!uffd)
		return NULL;
	uffd->machine = mm->machine;
	atomic_init(&uffd->mm, mm);
	uffd->with = *options;
	if (uffd_has(uffd, UCOW_UFFD_FEATURE_WP_ASYNC))
		uffd->with.features |= UCOW_UFFD_FEATURE_WP_UNPOPULATED;
	atomic_init(&uffd->refcount, 1);
	mutex_init(&uffd->lock, LOCK_UFFD);
	list_init(&uffd->faults);
	list_init(&uffd->told);
	list_init(&uffd->events);
	uffd->fd = -1;
	return uffd;
}

void uffd_put(struct ucow_uffd *uffd)
{
	if (atomic_fetch_sub_explicit(&uffd->refcount, 1, memory_order_acq_rel) != 1)
		return;
	if (uffd->fd >= 0)
		event_close(uffd->fd);
	mutex_destroy(&uffd->lock);
	host_free(uffd);
}

static void lock_uffd(struct ucow_uffd *uffd)
{
	mutex_lock(&uffd->lock);
}

static void unlock_uffd(struct ucow_uffd *uffd)
{
	mutex_unlock(&uffd->lock);
}

/* ---- the queue ---- */

/*
 * Somebody has something to read. Requires: its lock, which is released before anybody is woken: on one processor he
 * would run into it.
 */
static void announce_and_unlock(struct ucow_uffd *uffd)
{
	bool sleeps = uffd->readers;

	atomic_fetch_add(&uffd->arrivals, 1);
	if (uffd->fd >= 0)
		event_set(uffd->fd);
	unlock_uffd(uffd);
	if (sleeps)
		futex_wake(&uffd->arrivals);
}

/* Requires: its lock. */
static void retract(struct ucow_uffd *uffd)
{
	if (uffd->fd >= 0 && list_is_empty(&uffd->faults) && list_is_empty(&uffd->events))
		event_clear(uffd->fd);
}

/* Off its list, to be woken when the lock is free. Requires: its lock. */
static void claim(struct uffd_wait *wait, struct list *claimed)
{
	list_del(&wait->link);
	wait->claimed = true;
	list_add_tail(claimed, &wait->link);
}

/* After the store the waiter may be gone, and with him the memory: the address alone is looked up. */
static void wake_claimed(struct list *claimed)
{
	while (!list_is_empty(claimed)) {
		struct uffd_wait *wait = container_of(claimed->next, struct uffd_wait, link);
		_Atomic uint32_t *woken = &wait->woken;

		list_del(&wait->link);
		atomic_store(woken, 1);
		futex_wake(woken);
	}
}

static void sleep_until_woken(struct uffd_wait *wait)
{
	while (!atomic_load(&wait->woken))
		futex_wait(&wait->woken, 0);
}

static void claim_faults(struct ucow_uffd *uffd, struct list *waiters, uint64_t start, uint64_t end,
			 struct list *claimed)
{
	struct list *next;

	for (struct list *item = waiters->next; item != waiters; item = next) {
		struct uffd_wait *wait = container_of(item, struct uffd_wait, link);

		next = item->next;
		if (wait->msg.va < start || wait->msg.va >= end)
			continue;
		atomic_fetch_sub(&uffd->nwaiting, 1);
		claim(wait, claimed);
	}
}

/*
 * What was waited for has been done before. A locked operation between that and the look at who waits: whoever comes
 * after the look finds it done [ORD-UFFD-1].
 */
void uffd_wake(struct ucow_uffd *uffd, uint64_t start, uint64_t end)
{
	struct list claimed;

	if (likely(!atomic_fetch_add(&uffd->nwaiting, 0)))
		return;
	list_init(&claimed);
	lock_uffd(uffd);
	claim_faults(uffd, &uffd->told, start, end, &claimed);
	claim_faults(uffd, &uffd->faults, start, end, &claimed);
	retract(uffd);
	unlock_uffd(uffd);
	wake_claimed(&claimed);
}

void uffd_shut(struct ucow_uffd *uffd)
{
	struct list claimed;

	list_init(&claimed);
	lock_uffd(uffd);
	uffd->closed = true;
	claim_faults(uffd, &uffd->told, 0, UINT64_MAX, &claimed);
	claim_faults(uffd, &uffd->faults, 0, UINT64_MAX, &claimed);
	while (!list_is_empty(&uffd->events)) {
		struct uffd_wait *wait = container_of(uffd->events.next, struct uffd_wait, link);

		wait->dropped = true;
		claim(wait, &claimed);
	}
	announce_and_unlock(uffd);
	wake_claimed(&claimed);
}

/* ---- faults ---- */

/* Requires: the mmap lock, without which @uffd may end. */
static void note_fault(struct uffd_wait *wait, struct ucow_uffd *uffd, uint64_t va, unsigned flags)
{
	uffd_get(uffd);
	wait->uffd = uffd;
	wait->queued = false;
	wait->msg = (struct ucow_uffd_msg){.event = UCOW_UFFD_EVENT_PAGEFAULT, .flags = flags, .va = va};
}

bool uffd_ask(struct uffd_wait *wait, struct ucow_uffd *uffd, uint64_t va, unsigned flags)
{
	note_fault(wait, uffd, va, flags);
	if (uffd->with.callback && !wait->asked)
		return false;
	atomic_init(&wait->woken, 0);
	wait->queued = true;
	wait->claimed = false;
	lock_uffd(uffd);
	atomic_fetch_add(&uffd->nwaiting, 1);
	list_add_tail(&uffd->faults, &wait->link);
	announce_and_unlock(uffd);
	return true;
}

static void leave(struct uffd_wait *wait)
{
	struct ucow_uffd *uffd = wait->uffd;

	wait->uffd = NULL;
	uffd_put(uffd);
}

void uffd_cancel(struct uffd_wait *wait)
{
	struct ucow_uffd *uffd = wait->uffd;

	bool claimed;

	lock_uffd(uffd);
	claimed = wait->claimed;
	if (!claimed) {
		atomic_fetch_sub(&uffd->nwaiting, 1);
		list_del(&wait->link);
		retract(uffd);
	}
	unlock_uffd(uffd);
	if (claimed)
		sleep_until_woken(wait);
	leave(wait);
}

static int ask_callback(struct uffd_wait *wait)
{
	struct ucow_uffd *uffd = wait->uffd;
	enum ucow_uffd_answer answer = uffd->with.callback(uffd->with.arg, uffd, &wait->msg);

	wait->asked = answer == UCOW_UFFD_QUEUE;
	leave(wait);
	return answer == UCOW_UFFD_SIGBUS ? -ENXIO : 0;
}

int uffd_wait(struct uffd_wait *wait)
{
	lock_rank_none_held();
	if (!wait->queued)
		return ask_callback(wait);
	sleep_until_woken(wait);
	wait->asked = false;
	leave(wait);
	return 0;
}

/* ---- events ---- */

struct note {
	struct ucow_uffd *uffd; /* with a reference; `changing` counts it */
	struct ucow_uffd_msg msg;
	struct list link;
};

int uffd_note(struct list *notes, struct ucow_uffd *uffd, const struct ucow_uffd_msg *msg)
{
	struct note *note;

	if (inject_fails(&uffd->machine->inject, UCOW_INJECT_OTHER))
		return -ENOMEM;
	note = host_alloc(sizeof(*note));
	if (!note)
		return -ENOMEM;
	uffd_get(uffd);
	atomic_fetch_add(&uffd->changing, 1);
	note->uffd = uffd;
	note->msg = *msg;
	list_add_tail(notes, &note->link);
	return 0;
}

struct ucow_uffd *uffd_noted_child(const struct list *notes, const struct ucow_uffd *uffd)
{
	LIST_FOR_EACH (item, notes) {
		const struct note *note = container_of(item, struct note, link);

		if (note->uffd == uffd && note->msg.event == UCOW_UFFD_EVENT_FORK)
			return note->msg.child;
	}
	return NULL;
}

int uffd_note_unmap(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	struct vma *vma = vma_find(&mm->vmas, start);
	int error = 0;

	for (; vma && vma->start < end && !error; vma = vma_next(vma)) {
		const struct ucow_uffd_msg msg = {
			.event = UCOW_UFFD_EVENT_UNMAP,
			.va = max_u64(start, vma->start),
			.length = min_u64(end, vma->end) - max_u64(start, vma->start),
		};

		if (vma->uffd && uffd_has(vma->uffd, UCOW_UFFD_FEATURE_EVENT_UNMAP))
			error = uffd_note(&mm->uffd_notes, vma->uffd, &msg);
	}
	return error;
}

void uffd_take_notes(struct ucow_mm *mm, struct list *notes)
{
	while (!list_is_empty(&mm->uffd_notes)) {
		struct list *item = mm->uffd_notes.next;

		list_del(item);
		list_add_tail(notes, item);
	}
}

static struct note *take_note(struct list *notes)
{
	struct note *note = container_of(notes->next, struct note, link);

	list_del(&note->link);
	return note;
}

static void release_note(struct note *note)
{
	uffd_put(note->uffd);
	host_free(note);
}

/* Until somebody has received it. Returns: false: nobody will. */
static bool queue_event(struct ucow_uffd *uffd, const struct ucow_uffd_msg *msg)
{
	struct uffd_wait wait = {.uffd = uffd, .queued = true, .msg = *msg};

	lock_uffd(uffd);
	wait.dropped = uffd->closed;
	if (wait.dropped) {
		unlock_uffd(uffd);
		return false;
	}
	list_add_tail(&uffd->events, &wait.link);
	announce_and_unlock(uffd);
	sleep_until_woken(&wait);
	return !wait.dropped;
}

static void send_note(const struct note *note)
{
	struct ucow_uffd *uffd = note->uffd;
	const struct ucow_uffd_msg *msg = &note->msg;

	/* The callback may want to fill already. */
	if (uffd->with.callback) {
		atomic_fetch_sub(&uffd->changing, 1);
		if (uffd->with.callback(uffd->with.arg, uffd, msg) != UCOW_UFFD_QUEUE)
			return;
		atomic_fetch_add(&uffd->changing, 1);
	}
	if (queue_event(uffd, msg))
		return;
	atomic_fetch_sub(&uffd->changing, 1);
	if (msg->event == UCOW_UFFD_EVENT_FORK)
		ucow_uffd_close(msg->child);
}

void uffd_send(struct list *notes)
{
	while (!list_is_empty(notes)) {
		struct note *note = take_note(notes);

		lock_rank_none_held();
		send_note(note);
		release_note(note);
	}
}

void uffd_forget(struct list *notes)
{
	while (!list_is_empty(notes)) {
		struct note *note = take_note(notes);

		atomic_fetch_sub(&note->uffd->changing, 1);
		release_note(note);
	}
}

/* ---- reading ---- */

/* The next message, if there is one: faults first, as Linux gives them. Requires: its lock. */
static bool take_message(struct ucow_uffd *uffd, struct ucow_uffd_msg *msg, struct list *claimed)
{
	struct uffd_wait *wait;

	if (!list_is_empty(&uffd->faults)) {
		wait = container_of(uffd->faults.next, struct uffd_wait, link);
		*msg = wait->msg;
		list_del(&wait->link);
		list_add_tail(&uffd->told, &wait->link);
		return true;
	}
	if (list_is_empty(&uffd->events))
		return false;
	wait = container_of(uffd->events.next, struct uffd_wait, link);
	*msg = wait->msg;
	atomic_fetch_sub(&uffd->changing, 1);
	claim(wait, claimed);
	return true;
}

static long take_messages(struct ucow_uffd *uffd, struct ucow_uffd_msg *msgs, size_t n, struct list *claimed)
{
	size_t got = 0;

	while (got < n && take_message(uffd, &msgs[got], claimed))
		got++;
	if (got)
		retract(uffd);
	return (long)got;
}

static long read_messages(struct ucow_uffd *uffd, struct ucow_uffd_msg *msgs, size_t n, bool wait)
{
	struct list claimed;
	long got = 0;

	list_init(&claimed);
	lock_uffd(uffd);
	while (!uffd->closed && !(got = take_messages(uffd, msgs, n, &claimed)) && wait) {
		uint32_t seen = atomic_load(&uffd->arrivals);

		uffd->readers++;
		unlock_uffd(uffd);
		futex_wait(&uffd->arrivals, seen);
		lock_uffd(uffd);
		uffd->readers--;
	}
	got = uffd->closed ? -EBADF : got ? got : -EAGAIN;
	unlock_uffd(uffd);
	wake_claimed(&claimed);
	return got;
}

long uffd_read(struct ucow_uffd *uffd, struct ucow_uffd_msg *msgs, size_t n, bool wait)
{
	long got;

	uffd_get(uffd);
	got = read_messages(uffd, msgs, n, wait);
	uffd_put(uffd);
	return got;
}

int uffd_fd(struct ucow_uffd *uffd)
{
	int fd;

	lock_uffd(uffd);
	if (uffd->fd < 0) {
		uffd->fd = event_open();
		if (uffd->fd >= 0 && !(list_is_empty(&uffd->faults) && list_is_empty(&uffd->events)))
			event_set(uffd->fd);
	}
	fd = uffd->fd;
	if (fd < 0)
		uffd->fd = -1;
	unlock_uffd(uffd);
	return fd;
}

/* ---- the end of a space ---- */

void uffd_space_end(struct ucow_mm *mm)
{
	while (!list_is_empty(&mm->uffds)) {
		struct ucow_uffd *uffd = container_of(mm->uffds.next, struct ucow_uffd, link);

		list_del(&uffd->link);
		atomic_store(&uffd->mm, NULL);
	}
}
