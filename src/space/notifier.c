/* SPDX-License-Identifier: MIT */
/* Followers of spaces: who is registered, and the calls. */
#include "space/notifier.h"

#include "base/host.h"
#include "base/mutate.h"

#include <errno.h>

/* On its space's list, which mmap_lock guards, and the machine's, which notify_lock does. */
struct ucow_notifier {
	struct ucow_mm *mm;           /* (C) */
	struct ucow_notifier_ops ops; /* (C) */
	void *arg;                    /* (C) */
	struct ucow_notifier *next;   /* (M) */
	struct list link;             /* (N) */
	_Atomic uint32_t active;      /* (A) invalidations that are going on */
	_Atomic uint64_t sequence;    /* (A) grows with each that begins */
};

/* ---- calls ---- */

/*
 * Counted before the follower is told: it looks at the count under the lock that its callback takes. So what it puts
 * into its table before the callback comes is taken out by that, and afterwards it finds the count. [ORD-NOTIFY-1]
 */
static void begin_one(struct ucow_notifier *notifier, uint64_t start, uint64_t end, enum ucow_notify_reason reason)
{
	if (!MUTATED(NOTIFY_WITHOUT_SEQUENCE)) {
		atomic_fetch_add(&notifier->active, 1);
		atomic_fetch_add(&notifier->sequence, 1);
	}
	if (notifier->ops.start)
		notifier->ops.start(notifier->arg, start, end, reason);
}

static void end_one(struct ucow_notifier *notifier, uint64_t start, uint64_t end, enum ucow_notify_reason reason)
{
	if (notifier->ops.end)
		notifier->ops.end(notifier->arg, start, end, reason);
	if (!MUTATED(NOTIFY_WITHOUT_SEQUENCE))
		atomic_fetch_sub(&notifier->active, 1);
}

void notify_started(struct ucow_mm *mm, uint64_t start, uint64_t end, enum ucow_notify_reason reason)
{
	for (struct ucow_notifier *notifier = mm->notifiers; notifier; notifier = notifier->next)
		begin_one(notifier, start, end, reason);
}

void notify_ended(struct ucow_mm *mm, uint64_t start, uint64_t end, enum ucow_notify_reason reason)
{
	for (struct ucow_notifier *notifier = mm->notifiers; notifier; notifier = notifier->next)
		end_one(notifier, start, end, reason);
}

/*
 * The lock is taken though nobody be registered: who registers after that could otherwise look up a page that is just
 * about to go. For the explorer, whose programs register nobody, it is no choice.
 */
void notify_all_start(struct ucow_machine *machine, enum ucow_notify_reason reason)
{
	hook_quiet_begin();
	rwlock_read_lock(&machine->notify_lock);
	hook_quiet_end();
	LIST_FOR_EACH (link, &machine->notifiers)
		begin_one(container_of(link, struct ucow_notifier, link), 0, UCOW_ADDRESS_LIMIT, reason);
}

void notify_all_end(struct ucow_machine *machine, enum ucow_notify_reason reason)
{
	LIST_FOR_EACH (link, &machine->notifiers)
		end_one(container_of(link, struct ucow_notifier, link), 0, UCOW_ADDRESS_LIMIT, reason);
	hook_quiet_begin();
	rwlock_read_unlock(&machine->notify_lock);
	hook_quiet_end();
}

/* ---- registration ---- */

static bool ops_are_valid(const struct ucow_notifier_ops *ops)
{
	return ops && ops->size == sizeof(*ops);
}

int ucow_notifier_register(struct ucow_mm *mm, const struct ucow_notifier_ops *ops, void *arg,
			   struct ucow_notifier **notifier)
{
	struct ucow_notifier *made;

	if (!ops_are_valid(ops))
		return -EINVAL;
	made = inject_fails(&mm->machine->inject, UCOW_INJECT_OTHER) ? NULL : host_alloc(sizeof(*made));
	if (!made)
		return -ENOMEM;
	made->mm = mm;
	made->ops = *ops;
	made->arg = arg;
	rwlock_write_lock(&mm->mmap_lock);
	rwlock_write_lock(&mm->machine->notify_lock);
	list_add_tail(&mm->machine->notifiers, &made->link);
	made->next = mm->notifiers;
	mm->notifiers = made;
	rwlock_write_unlock(&mm->machine->notify_lock);
	rwlock_write_unlock(&mm->mmap_lock);
	*notifier = made;
	return 0;
}

/* Requires: both locks, exclusively. */
static void forget(struct ucow_notifier *notifier)
{
	struct ucow_notifier **at = &notifier->mm->notifiers;

	while (*at != notifier)
		at = &(*at)->next;
	*at = notifier->next;
	list_del(&notifier->link);
}

void ucow_notifier_unregister(struct ucow_notifier *notifier)
{
	struct ucow_mm *mm = notifier->mm;

	rwlock_write_lock(&mm->mmap_lock);
	rwlock_write_lock(&mm->machine->notify_lock);
	forget(notifier);
	rwlock_write_unlock(&mm->machine->notify_lock);
	rwlock_write_unlock(&mm->mmap_lock);
	host_free(notifier);
}

/* Reclaim is kept out until all have let go. */
void notify_release(struct ucow_mm *mm)
{
	if (likely(!mm->notifiers))
		return;
	rwlock_write_lock(&mm->machine->notify_lock);
	while (mm->notifiers) {
		struct ucow_notifier *notifier = mm->notifiers;

		if (notifier->ops.release)
			notifier->ops.release(notifier->arg);
		forget(notifier);
		host_free(notifier);
	}
	rwlock_write_unlock(&mm->machine->notify_lock);
}

/* ---- for followers ---- */

static bool is_idle(const volatile void *active, uintptr_t unused)
{
	(void)unused;
	return !__atomic_load_n((const volatile uint32_t *)active, __ATOMIC_ACQUIRE);
}

uint64_t ucow_notifier_begin(struct ucow_notifier *notifier)
{
	wait_until(HOOK_LOAD, &notifier->active, is_idle, 0);
	return atomic_load(&notifier->sequence);
}

bool ucow_notifier_retry(const struct ucow_notifier *notifier, uint64_t sequence)
{
	return atomic_load(&notifier->active) || atomic_load(&notifier->sequence) != sequence;
}
