/* SPDX-License-Identifier: MIT */
/*
 * The account of a snapshot group: which pages are kept for the snapshots of one live space alone, and for which.
 *
 * A page that some snapshot maps and the live space does not is charged to the newest snapshot that sees it. Three
 * things change that. The live space stops mapping a page that others map on: charged to the newest snapshot. A
 * snapshot ends: what nobody maps any more is taken off its charge, the rest moves to the next older one. A snapshot
 * gets a page of its own (a copy made at fork because of a pin, or for a pin of the snapshot): charged to it.
 *
 * Charges are made under the live space's mmap lock, drops are not: a drop may take a page off before the store that
 * let go of it has charged it. Charges are therefore signed, and right when nothing is on its way. "Others" are taken
 * to be the group's snapshots: where ordinary children share pages too, these are charged as well.
 */
#ifndef SPACE_GROUP_H
#define SPACE_GROUP_H

#include "space/page_counter.h"
#include "table/table.h"

#include <ucow/snapshot.h>

enum snapshot_state {
	SNAPSHOT_NEW, /* its creation has not returned */
	SNAPSHOT_ALIVE,
	SNAPSHOT_DROPPING, /* somebody is ending it */
};

/* What a read-only space has beyond others. (G) the group's lock */
struct snapshot {
	struct list link;          /* (G) the group's members, oldest first */
	enum snapshot_state state; /* (G) */
	int64_t charge;            /* (G) pages */
	bool has_checksum;         /* (C) */
	uint64_t checksum;         /* (C) */
};

struct ucow_snapshot_group {
	struct ucow_mm *live;                                      /* (C) */
	enum ucow_snapshot_policy policy;                          /* (C) */
	void (*on_drop)(void *arg, struct ucow_mm *snapshot);      /* (C) */
	void *arg;                                                 /* (C) */
	int (*make_room)(struct ucow_snapshot_group *, int64_t n); /* (C) ops/snapshot.c; see group_make_room */
	struct page_counter kept;                                  /* (G) sum of the members' charges, and the limit */
	struct drop_tally tally;                                   /* (M) of the live space */
	struct spin lock;                                          /* LOCK_GROUP; guards the rest (G) */
	struct list members;                                       /* (G) */
	uint64_t nmembers;                                         /* (G) */
	uint64_t dropped, refused;                                 /* (G) */
	bool recountable; /* (G) no space but the group's shares pages with them: the charges can be recounted */
};

enum charge {
	CHARGE_NONE,    /* nothing to account for */
	CHARGE_MADE,    /* one page charged, if that fits */
	CHARGE_REFUSED, /* over the limit */
};

/* group_reserve - charge one page to the newest snapshot, if there is one and the limit permits. */
enum charge group_reserve(struct ucow_snapshot_group *group);
/* group_charge - @n pages more (or, negative, less) for @snapshot; NULL: the newest, if there is one. */
void group_charge(struct ucow_snapshot_group *group, struct snapshot *snapshot, int64_t n);
/*
 * group_settle - charge what the live space's mappings left behind since the last time.
 * Requires: its mmap_lock exclusively. Returns: whether snapshots should be dropped for it (group_make_room with 0).
 */
bool group_settle(struct ucow_snapshot_group *group);

/* group_join - the newest member, state NEW, charged with @n. Requires: the live space's mmap_lock exclusively. */
void group_join(struct ucow_snapshot_group *group, struct snapshot *snapshot, int64_t n);
/* group_leave - @snapshot is gone, and with it the last mapping of @freed pages. */
void group_leave(struct ucow_snapshot_group *group, struct snapshot *snapshot, int64_t freed);

/*
 * group_make_room - let @n pages more fit, as the group's policy says: drop the oldest snapshots, or refuse.
 * Requires: no lock held. Returns: 0; -ENOMEM.
 */
static inline int group_make_room(struct ucow_snapshot_group *group, int64_t n)
{
	return group->make_room(group, n);
}

static inline void group_lock(struct ucow_snapshot_group *group)
{
	spin_lock(&group->lock, LOCK_GROUP);
}

static inline void group_unlock(struct ucow_snapshot_group *group)
{
	spin_unlock(&group->lock, LOCK_GROUP);
}

#endif
