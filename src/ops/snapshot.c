/* SPDX-License-Identifier: MIT */
/*
 * Snapshots and their groups: taking them, ending them, and making room under a group's limit. What is charged to whom
 * is space/group.c's business.
 */
#include "ops/ops.h"

#include "base/host.h"
#include "ops/checksum.h"

#include <errno.h>
#include <sched.h>

#define SNAPSHOT_FLAGS UCOW_SNAPSHOT_CHECKSUM

/* ---- snapshots ---- */

static int take(struct ucow_mm *mm, unsigned flags, struct ucow_snapshot_group *group, struct ucow_mm **result)
{
	struct ucow_mm *made;
	int error;

	if (flags & ~SNAPSHOT_FLAGS)
		return -EINVAL;
	error = space_fork(mm, &(struct fork_request){.read_only = true, .group = group}, &made);
	if (error)
		return error;
	if (flags & UCOW_SNAPSHOT_CHECKSUM) {
		error = checksum_private(made, &made->snapshot.checksum);
		made->snapshot.has_checksum = true;
	}
	if (error) {
		(void)ucow_mm_destroy(made);
		return error;
	}
	*result = made;
	return 0;
}

int ucow_snapshot(struct ucow_mm *mm, struct ucow_mm **snapshot)
{
	return take(mm, 0, NULL, snapshot);
}

int ucow_snapshot_with_flags(struct ucow_mm *mm, unsigned flags, struct ucow_mm **snapshot)
{
	return take(mm, flags, NULL, snapshot);
}

int ucow_snapshot_verify(struct ucow_mm *mm)
{
	uint64_t checksum;
	int error;

	if (!mm->read_only)
		return -EINVAL;
	if (!mm->snapshot.has_checksum)
		return -ENODATA;
	error = checksum_private(mm, &checksum);
	if (error)
		return error;
	return checksum == mm->snapshot.checksum ? 0 : -EUCLEAN;
}

static uint64_t pages_to_bytes(int64_t pages)
{
	return pages > 0 ? (uint64_t)pages << UCOW_PAGE_SHIFT : 0;
}

int ucow_snapshot_stat(struct ucow_mm *mm, struct ucow_snapshot_stat *stat)
{
	if (!mm->read_only)
		return -EINVAL;
	*stat = (struct ucow_snapshot_stat){
		.has_checksum = mm->snapshot.has_checksum,
		.checksum = mm->snapshot.checksum,
		.grouped = mm->group,
	};
	if (mm->group) {
		group_lock(mm->group);
		stat->kept_bytes = pages_to_bytes(mm->snapshot.charge);
		group_unlock(mm->group);
	}
	return 0;
}

/* ---- ending a member ---- */

/* Claim the right to end it. Returns: false: somebody else has. */
static bool claim(struct snapshot *snapshot)
{
	bool ours = snapshot->state != SNAPSHOT_DROPPING;

	if (ours)
		snapshot->state = SNAPSHOT_DROPPING;
	return ours;
}

/* The tables go first and tell what they freed; the snapshot leaves the group before it is gone. */
static void end_claimed(struct ucow_mm *mm)
{
	struct drop_tally tally = {0};

	mm_unpublish(mm);
	mm->pt.tally = &tally;
	page_table_drop(&mm->pt);
	group_leave(mm->group, &mm->snapshot, (int64_t)tally.freed);
	space_discard(mm);
}

int snapshot_end(struct ucow_mm *mm)
{
	bool ours;

	group_lock(mm->group);
	ours = claim(&mm->snapshot);
	group_unlock(mm->group);
	if (!ours)
		return -EBUSY;
	end_claimed(mm);
	return 0;
}

/* ---- room ---- */

static struct ucow_mm *mm_of(struct list *link)
{
	return container_of(container_of(link, struct snapshot, link), struct ucow_mm, snapshot);
}

/*
 * What stands between a group and room for @n pages: *victim is the oldest snapshot that may go, claimed. One that a
 * cpu is attached to stays. Requires: the group's lock. Returns: 0: there is room, or *victim; -EAGAIN: a snapshot is
 * just going; -ENOMEM.
 */
static int find_victim(struct ucow_snapshot_group *group, int64_t n, struct ucow_mm **victim)
{
	bool going = false;

	*victim = NULL;
	if (!group->nmembers || page_counter_fits(&group->kept, n))
		return 0;
	if (group->policy == UCOW_SNAPSHOT_DROP_OLDEST)
		LIST_FOR_EACH (link, &group->members) {
			struct ucow_mm *mm = mm_of(link);

			going |= mm->snapshot.state == SNAPSHOT_DROPPING;
			if (mm->snapshot.state != SNAPSHOT_ALIVE || atomic_load(&mm->attached))
				continue;
			claim(&mm->snapshot);
			*victim = mm;
			return 0;
		}
	if (going)
		return -EAGAIN;
	group->refused++;
	return -ENOMEM;
}

/* Tell the owner, then end it. Returns: -EBUSY: the owner has attached a cpu to it, against the contract. */
static int drop(struct ucow_snapshot_group *group, struct ucow_mm *victim)
{
	bool attached;

	lock_rank_none_held();
	if (group->on_drop)
		group->on_drop(group->arg, victim);
	attached = atomic_load(&victim->attached);
	UCOW_BUG_ON(attached);
	group_lock(group);
	if (attached)
		victim->snapshot.state = SNAPSHOT_ALIVE;
	else
		group->dropped++;
	group_unlock(group);
	if (attached)
		return -EBUSY;
	end_claimed(victim);
	return 0;
}

static int make_room(struct ucow_snapshot_group *group, int64_t n)
{
	struct ucow_mm *victim;
	int error;

	do {
		group_lock(group);
		error = find_victim(group, n, &victim);
		group_unlock(group);
		if (victim && drop(group, victim))
			return -ENOMEM;
		if (error == -EAGAIN)
			sched_yield();
	} while (victim || error == -EAGAIN);
	return error;
}

/* ---- groups ---- */

static int check_options(const struct ucow_snapshot_group_options *options)
{
	if (options && (options->size != sizeof(*options) || (unsigned)options->policy >= UCOW_SNAPSHOT_POLICY_COUNT))
		return -EINVAL;
	return 0;
}

static struct ucow_snapshot_group *create(struct ucow_mm *live, const struct ucow_snapshot_group_options *options)
{
	struct ucow_snapshot_group *group = NULL;

	if (!inject_fails(&live->machine->inject, UCOW_INJECT_OTHER))
		group = host_alloc(sizeof(*group));
	if (!group)
		return NULL;
	group->live = live;
	page_counter_init(&group->kept, NULL, PAGE_COUNTER_NO_LIMIT);
	group->make_room = make_room;
	group->tally.wants_kept = true;
	list_init(&group->members);
	if (!options)
		return group;
	if (options->limit)
		page_counter_set_limit(&group->kept, (int64_t)(options->limit >> UCOW_PAGE_SHIFT));
	group->policy = options->policy;
	group->on_drop = options->on_drop;
	group->arg = options->arg;
	return group;
}

/* Whether no other space can share pages with @mm, nor it with itself: it is the only one, and nothing is merged. */
static bool is_alone(struct ucow_mm *mm)
{
	bool alone;

	mutex_lock(&mm->machine->lock);
	alone = mm->machine->nspaces == 1 && !mm->machine->ksm;
	mutex_unlock(&mm->machine->lock);
	return alone;
}

int ucow_snapshot_group_create(struct ucow_mm *live, const struct ucow_snapshot_group_options *options,
			       struct ucow_snapshot_group **result)
{
	struct ucow_snapshot_group *group;
	int error = check_options(options);

	if (error)
		return error;
	if (live->read_only)
		return -EACCES;
	group = create(live, options);
	if (!group)
		return -ENOMEM;
	group->recountable = is_alone(live);
	rwlock_write_lock(&live->mmap_lock);
	if (live->group) {
		error = -EBUSY;
	} else {
		live->group = group;
		live->pt.tally = &group->tally;
	}
	rwlock_write_unlock(&live->mmap_lock);
	if (error) {
		host_free(group);
		return error;
	}
	*result = group;
	return 0;
}

void ucow_snapshot_group_destroy(struct ucow_snapshot_group *group)
{
	if (!group)
		return;
	LIST_FOR_EACH (link, &group->members) {
		UCOW_BUG_ON(mm_of(link)->snapshot.state != SNAPSHOT_ALIVE);
		mm_of(link)->group = NULL;
	}
	rwlock_write_lock(&group->live->mmap_lock);
	group->live->group = NULL;
	group->live->pt.tally = NULL;
	rwlock_write_unlock(&group->live->mmap_lock);
	host_free(group);
}

/* The copies that a snapshot of pinned memory starts with have to fit. */
static int fit(struct ucow_snapshot_group *group, struct ucow_mm *made)
{
	bool has_own;

	group_lock(group);
	has_own = made->snapshot.charge > 0;
	group_unlock(group);
	return has_own ? make_room(group, 0) : 0;
}

int ucow_snapshot_take(struct ucow_snapshot_group *group, unsigned flags, struct ucow_mm **snapshot)
{
	struct ucow_mm *made;
	int error = take(group->live, flags, group, &made);

	if (error)
		return error;
	error = fit(group, made);
	group_lock(group);
	made->snapshot.state = SNAPSHOT_ALIVE;
	group_unlock(group);
	if (error) {
		int busy = snapshot_end(made);

		UCOW_BUG_ON(busy);
		(void)busy;
		return error;
	}
	*snapshot = made;
	return 0;
}

void ucow_snapshot_group_stat(struct ucow_snapshot_group *group, struct ucow_snapshot_group_stat *stat)
{
	group_lock(group);
	*stat = (struct ucow_snapshot_group_stat){
		.snapshots = group->nmembers,
		.kept_bytes = pages_to_bytes(page_counter_usage(&group->kept)),
		.limit = page_counter_limit(&group->kept) == PAGE_COUNTER_NO_LIMIT
				 ? 0
				 : pages_to_bytes(page_counter_limit(&group->kept)),
		.dropped = group->dropped,
		.refused = group->refused,
	};
	group_unlock(group);
}
