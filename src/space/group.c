/* SPDX-License-Identifier: MIT */
/* Charging pages to the snapshots of a group: who owes what, and how it moves when one goes. */
#include "space/group.h"

static struct snapshot *newest(struct ucow_snapshot_group *group)
{
	return list_is_empty(&group->members) ? NULL : container_of(group->members.prev, struct snapshot, link);
}

static void add(struct ucow_snapshot_group *group, struct snapshot *snapshot, int64_t n)
{
	if (!snapshot)
		return;
	snapshot->charge += n;
	page_counter_charge(&group->kept, n);
}

enum charge group_reserve(struct ucow_snapshot_group *group)
{
	enum charge charge = CHARGE_NONE;

	group_lock(group);
	if (group->nmembers)
		charge = page_counter_try_charge(&group->kept, 1, NULL) ? CHARGE_MADE : CHARGE_REFUSED;
	if (charge == CHARGE_MADE)
		newest(group)->charge++;
	group_unlock(group);
	return charge;
}

void group_charge(struct ucow_snapshot_group *group, struct snapshot *snapshot, int64_t n)
{
	group_lock(group);
	add(group, snapshot ? snapshot : newest(group), n);
	group_unlock(group);
}

bool group_settle(struct ucow_snapshot_group *group)
{
	bool trim;

	group_lock(group);
	add(group, newest(group), (int64_t)group->tally.kept);
	trim = group->policy == UCOW_SNAPSHOT_DROP_OLDEST && group->nmembers && !page_counter_fits(&group->kept, 0);
	group_unlock(group);
	group->tally.kept = group->tally.freed = 0;
	return trim;
}

void group_join(struct ucow_snapshot_group *group, struct snapshot *snapshot, int64_t n)
{
	snapshot->state = SNAPSHOT_NEW;
	group_lock(group);
	list_add_tail(&group->members, &snapshot->link);
	group->nmembers++;
	add(group, snapshot, n);
	group_unlock(group);
}

/*
 * Who takes over what @snapshot still owes: the next older one, which sees the pages too. If more was freed than was
 * charged, the pages were charged to a newer one that does not see them (DONTFORK taken back in between, or a charge
 * that is on its way).
 */
static struct snapshot *heir(struct ucow_snapshot_group *group, struct snapshot *snapshot, int64_t rest)
{
	bool has_older = snapshot->link.prev != &group->members, has_newer = snapshot->link.next != &group->members;

	if (has_older && (rest > 0 || !has_newer))
		return container_of(snapshot->link.prev, struct snapshot, link);
	/* What the oldest owes and nobody freed is with spaces outside the group. */
	return has_newer && rest < 0 ? container_of(snapshot->link.next, struct snapshot, link) : NULL;
}

void group_leave(struct ucow_snapshot_group *group, struct snapshot *snapshot, int64_t freed)
{
	int64_t rest;

	group_lock(group);
	rest = snapshot->charge - freed;
	add(group, heir(group, snapshot, rest), rest);
	add(group, snapshot, -snapshot->charge);
	list_del(&snapshot->link);
	group->nmembers--;
	group_unlock(group);
}
