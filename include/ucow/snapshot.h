/* SPDX-License-Identifier: MIT */
/*
 * Snapshots: read-only spaces that keep the contents of a moment, and groups of them that bound the memory which is
 * kept for nobody else.
 *
 * A snapshot is a struct ucow_mm: read it through a cpu, pin its pages for reading, fork it (which gives an ordinary,
 * writable space), take a snapshot of it, end it with ucow_mm_destroy. Whatever would change what it shows fails with
 * -EACCES: stores and compare-exchanges, write spans, gets and pins for writing (also forced ones), ucow_mmap,
 * ucow_munmap, ucow_mprotect, ucow_mremap, ucow_madvise and ucow_insert_pfn.
 *
 * What fork does holds for snapshots too: DONTFORK ranges are absent, WIPEONFORK ranges read as zeros, pinned pages are
 * copied at once, shared mappings and inserted memory go on showing what others store there.
 */
#ifndef UCOW_SNAPSHOT_H
#define UCOW_SNAPSHOT_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Note a checksum at birth, for ucow_snapshot_verify. Costs a read of all private memory. */
#define UCOW_SNAPSHOT_CHECKSUM (1u << 0)

/**
 * ucow_snapshot - a read-only space with @mm's contents of this moment.
 * Returns: 0; -ENOMEM: nothing changed. Thread: any; takes @mm's mmap_lock exclusively.
 */
UCOW_API UCOW_NODISCARD int ucow_snapshot(struct ucow_mm *mm, struct ucow_mm **snapshot);
/**
 * ucow_snapshot_with_flags - the same, with UCOW_SNAPSHOT_* in @flags.
 * Returns: 0; -ENOMEM; -EINVAL (flags); with CHECKSUM also -EIO (a page that is swapped out cannot be read).
 */
UCOW_API UCOW_NODISCARD int ucow_snapshot_with_flags(struct ucow_mm *mm, unsigned flags, struct ucow_mm **snapshot);

/**
 * ucow_snapshot_verify - read a snapshot's private memory and compare it with the checksum noted at birth.
 *
 * Faults nothing in, installs nothing. Shared mappings and inserted memory are left out: they are not snapshots.
 * Returns: 0: unchanged; -EUCLEAN: the bytes are not those of its birth; -ENODATA: no checksum was noted; -EINVAL: not
 * a snapshot; -ENOMEM, -EIO: a page that is swapped out cannot be read. Thread: any; takes the snapshot's mmap_lock
 * exclusively.
 */
UCOW_API UCOW_NODISCARD int ucow_snapshot_verify(struct ucow_mm *snapshot);

/** What is known of a snapshot. */
struct ucow_snapshot_stat {
	uint64_t kept_bytes; /* in a group: pages kept for it and older snapshots only; else 0 */
	uint64_t checksum;   /* if noted */
	bool has_checksum;
	bool grouped; /* belongs to a group */
};
/** ucow_snapshot_stat - fill @stat. Returns: 0; -EINVAL: not a snapshot. Thread: any. */
UCOW_API int ucow_snapshot_stat(struct ucow_mm *snapshot, struct ucow_snapshot_stat *stat);

/* ---- groups ---- */

/** The snapshots of one live space, under one memory bound. */
struct ucow_snapshot_group;

/** What happens to a store that would keep more memory for the snapshots than the limit allows. */
enum ucow_snapshot_policy {
	UCOW_SNAPSHOT_REFUSE = 0,  /* it fails with -ENOMEM and changes nothing */
	UCOW_SNAPSHOT_DROP_OLDEST, /* the oldest snapshots are dropped until it fits */
	UCOW_SNAPSHOT_POLICY_COUNT
};

struct ucow_snapshot_group_options {
	size_t size;                      /* sizeof(struct ucow_snapshot_group_options) */
	uint64_t limit;                   /* bytes of pages kept for the group's snapshots alone; 0: no limit */
	enum ucow_snapshot_policy policy; /* 0: UCOW_SNAPSHOT_REFUSE */
	/*
	 * DROP_OLDEST: called before @snapshot is dropped, on the thread that stores (or unmaps, or takes the next
	 * snapshot), with no lock held. It may still read @snapshot; it must not end it, and leave no cpu attached to
	 * it. When it returns the handle is invalid. It must not use the live space or the group, nor wait for a thread
	 * that is inside ucow_snapshot_take or a store into the live space: these wait for it. With several threads a
	 * snapshot may be dropped before the call that took it has returned. May be NULL.
	 */
	void (*on_drop)(void *arg, struct ucow_mm *snapshot);
	void *arg; /* passed to the callback */
};

/**
 * ucow_snapshot_group_create - an empty group for @live.
 *
 * A space has at most one group. @options may be NULL: no limit.
 * Returns: 0; -ENOMEM; -EINVAL (options); -EBUSY (@live has a group); -EACCES (@live is a snapshot). Thread: any; takes
 * @live's mmap_lock exclusively.
 */
UCOW_API UCOW_NODISCARD int ucow_snapshot_group_create(struct ucow_mm *live,
						       const struct ucow_snapshot_group_options *options,
						       struct ucow_snapshot_group **group);
/**
 * ucow_snapshot_group_destroy - end the bound. The group's snapshots live on as ordinary ones. NULL is allowed.
 * It must go before its live space: until then ucow_mm_destroy of that returns -EBUSY.
 * Thread: any; no other call on the group, its live space or its snapshots may be running.
 */
UCOW_API void ucow_snapshot_group_destroy(struct ucow_snapshot_group *group);

/**
 * ucow_snapshot_take - a snapshot of the group's live space that counts against the limit.
 *
 * With pinned pages a snapshot costs memory at once (their copies): where these do not fit the policy decides as for a
 * store. Ends, like any snapshot, with ucow_mm_destroy, which returns -EBUSY while the group is dropping it.
 * Returns: 0; -ENOMEM: no snapshot; with DROP_OLDEST older ones may have gone; -EINVAL (flags); -EIO (CHECKSUM).
 */
UCOW_API UCOW_NODISCARD int ucow_snapshot_take(struct ucow_snapshot_group *group, unsigned flags,
					       struct ucow_mm **snapshot);

/** What a group holds. */
struct ucow_snapshot_group_stat {
	uint64_t snapshots;  /* alive */
	uint64_t kept_bytes; /* pages kept for them alone */
	uint64_t limit;      /* bytes, whole pages; 0: none */
	uint64_t dropped;    /* snapshots dropped to make room, so far */
	uint64_t refused;    /* stores (or takes) refused, so far */
};
/** ucow_snapshot_group_stat - fill @stat. Thread: any. */
UCOW_API void ucow_snapshot_group_stat(struct ucow_snapshot_group *group, struct ucow_snapshot_group_stat *stat);

#ifdef __cplusplus
}
#endif
#endif
