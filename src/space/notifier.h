/* SPDX-License-Identifier: MIT */
/*
 * Telling who follows a space what is about to be taken away, and that it has been (ucow/notifier.h). Where nobody
 * follows it costs an untaken branch.
 */
#ifndef SPACE_NOTIFIER_H
#define SPACE_NOTIFIER_H

#include "space/mm.h"

#include <ucow/notifier.h>

void notify_started(struct ucow_mm *mm, uint64_t start, uint64_t end, enum ucow_notify_reason reason);
void notify_ended(struct ucow_mm *mm, uint64_t start, uint64_t end, enum ucow_notify_reason reason);

/*
 * notify_start / notify_end - before the first entry of [start, end) loses a right or its page, and after the bump and
 * the wait for cpus; each start has its end, whether or not something came of it [INV-NOTIFY-1].
 * Requires: @mm's mmap_lock in any mode, held from start to end; no spin lock, no section.
 */
static inline void notify_start(struct ucow_mm *mm, uint64_t start, uint64_t end, enum ucow_notify_reason reason)
{
	if (unlikely(mm->notifiers))
		notify_started(mm, start, end, reason);
}

static inline void notify_end(struct ucow_mm *mm, uint64_t start, uint64_t end, enum ucow_notify_reason reason)
{
	if (unlikely(mm->notifiers))
		notify_ended(mm, start, end, reason);
}

/*
 * notify_all_start / notify_all_end - the same for changes of entries in place, by who holds no space's lock and does
 * not know whose the leaves are [rule 6]: everything of every space that is followed. Nobody begins to follow a space
 * meanwhile, or ends. Requires: no lock that comes after LOCK_NOTIFY.
 */
void notify_all_start(struct ucow_machine *machine, enum ucow_notify_reason reason);
void notify_all_end(struct ucow_machine *machine, enum ucow_notify_reason reason);

/* notify_release - the space ends, and nobody acts on it: its followers are told, and forgotten. */
void notify_release(struct ucow_mm *mm);

#endif
