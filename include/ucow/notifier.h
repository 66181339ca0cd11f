/* SPDX-License-Identifier: MIT */
/*
 * Notifiers: a second table that shows pages of a space (an IOMMU's, a virtual machine's, a mapping of the host)
 * follows what the space does with them. ucow_notifier(3) has an example.
 */
#ifndef UCOW_NOTIFIER_H
#define UCOW_NOTIFIER_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Why a range is invalidated. */
enum ucow_notify_reason {
	UCOW_NOTIFY_UNMAP, /* munmap, or replaced by another mapping, or moved away */
	UCOW_NOTIFY_CLEAR, /* pages go, the mapping stays: dontneed, reclaim, truncate; or another page comes: a copy */
	UCOW_NOTIFY_PROTECT, /* pages stay, rights go: mprotect, fork, userfaultfd, writeback */
	UCOW_NOTIFY_TRACK,   /* only the right to write unnoticed goes: soft-dirty is cleared, a scan write-protects */
	UCOW_NOTIFY_REASON_COUNT
};

/** A registered notifier. */
struct ucow_notifier;

/**
 * What a follower is told. Before a page of [start, end) may be freed or used for something else, or a right to it is
 * taken away, `start` is called; when that is done, `end`, with the same range, for each start once.
 *
 * When `start` returns, the follower must have taken the range out of its own table, and nobody may be using what it
 * has taken out; until `end`, nothing of the range goes back in. The second half is what ucow_notifier_retry is for.
 *
 * Calls of several threads overlap, for the same range too. They come on the thread that acts, with locks of ucow held
 * (always those that keep the space's mappings from changing, except when reclaim calls): a callback may wait for locks
 * of its own, under which no call into ucow is made that waits, and must not call ucow but ucow_page_address. Reclaim
 * does not know which spaces show a page: it invalidates the whole range of addresses of each.
 *
 * `start` and `end` may be NULL. `release`, if not NULL, is called when the space ends while the notifier is
 * registered: after that nothing of the space may be used, and the handle is void.
 */
struct ucow_notifier_ops {
	size_t size; /* sizeof(struct ucow_notifier_ops) */
	void (*start)(void *arg, uint64_t start, uint64_t end, enum ucow_notify_reason reason);
	void (*end)(void *arg, uint64_t start, uint64_t end, enum ucow_notify_reason reason);
	void (*release)(void *arg);
};

/**
 * ucow_notifier_register - have @ops called with @arg for @mm. What was looked up before may be stale.
 * Returns: 0; -ENOMEM; -EINVAL. Thread: any, but not from a callback; takes mmap_lock exclusively.
 */
UCOW_API UCOW_NODISCARD int ucow_notifier_register(struct ucow_mm *mm, const struct ucow_notifier_ops *ops, void *arg,
						   struct ucow_notifier **notifier);

/**
 * ucow_notifier_unregister - when it returns no callback is running or will be called. Not after `release`.
 * Thread: any, but not from a callback, nor holding a lock that one waits for; takes mmap_lock exclusively.
 */
UCOW_API void ucow_notifier_unregister(struct ucow_notifier *notifier);

/**
 * ucow_notifier_begin, ucow_notifier_retry - how pages get into the second table:
 *
 *     do {
 *             sequence = ucow_notifier_begin(notifier);
 *             find the page: ucow_get_user_pages, which faults; let go of it again or keep it
 *             take the lock that `start` takes to empty the table
 *             if (!ucow_notifier_retry(notifier, sequence))
 *                     put the page into the table
 *             let go of the lock
 *     } while (it was not put there);
 *
 * retry answers whether an invalidation, of whatever range, is going on or has begun since: then the page may be the
 * wrong one, or the right to write be gone. begin waits for those that are going on.
 * Thread: any; begin: without the lock, and not from a callback.
 */
UCOW_API uint64_t ucow_notifier_begin(struct ucow_notifier *notifier);
UCOW_API bool ucow_notifier_retry(const struct ucow_notifier *notifier, uint64_t sequence);

#ifdef __cplusplus
}
#endif
#endif
