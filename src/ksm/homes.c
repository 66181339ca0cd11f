/* SPDX-License-Identifier: MIT */
/*
 * Where a merged page may be mapped: the families and homes (table/table.h) of all entries that were ever merged into
 * it, so that it can be swapped out. A set by open addressing; what belongs to families that have ended is dropped when
 * it would have to grow.
 */
#include "ksm/ksm.h"

#include "base/host.h"

static struct ksm_home *array_of(struct ksm_node *node)
{
	return node->homes ? node->homes : node->first_homes;
}

static uint64_t hash_of(const struct ksm_home *home)
{
	return ((uintptr_t)home->family + (uint64_t)home->home * 64) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
}

/* The slot that has @home, or a free one for it. Returns: NULL: neither. */
static struct ksm_home *find(struct ksm_home *homes, uint32_t room, const struct ksm_home *home)
{
	uint64_t at = hash_of(home);

	for (uint32_t i = 0; i < room; i++) {
		struct ksm_home *slot = &homes[(at + i) & (room - 1)];

		if (!slot->family || (slot->family == home->family && slot->home == home->home))
			return slot;
	}
	return NULL;
}

/* Homes of families that no leaf belongs to any more are not taken along. Returns: how many were. */
static uint32_t copy_homes(struct ksm *ksm, struct ksm_node *node, struct ksm_home *into, uint32_t room)
{
	struct ksm_home *homes = array_of(node);
	uint32_t n = 0;

	for (uint32_t i = 0; i < node->homes_room; i++) {
		if (!homes[i].family)
			continue;
		if (family_is_empty(homes[i].family)) {
			family_drop(&ksm->machine->tables, homes[i].family);
			continue;
		}
		*find(into, room, &homes[i]) = homes[i];
		n++;
	}
	return n;
}

static int grow(struct ksm *ksm, struct ksm_node *node)
{
	uint32_t room = node->homes_room * 4;
	struct ksm_home *grown, *old = node->homes;

	if (inject_fails(&ksm->machine->inject, UCOW_INJECT_OTHER))
		return -1;
	grown = host_alloc(room * sizeof(*grown));
	if (!grown)
		return -1;
	spin_lock(&node->homes_lock, LOCK_KSM_HOMES);
	node->nhomes = copy_homes(ksm, node, grown, room);
	node->homes = grown;
	node->homes_room = room;
	spin_unlock(&node->homes_lock, LOCK_KSM_HOMES);
	host_free(old);
	return 0;
}

static bool is_crowded(const struct ksm_node *node)
{
	return node->homes_room > KSM_FIRST_HOMES && node->nhomes * 4 >= node->homes_room * 3;
}

/* Nobody but the scanner adds; the lock is for those who look. */
bool homes_add(struct ksm *ksm, struct ksm_node *node, struct family *family, int home)
{
	const struct ksm_home wanted = {.family = family, .home = home};
	struct ksm_home *slot;

	if (!family)
		return true; /* the machine has none: there is no swap */
	while (!(slot = find(array_of(node), node->homes_room, &wanted)) || (!slot->family && is_crowded(node)))
		if (grow(ksm, node))
			return false;
	if (slot->family)
		return true;
	family_hold(family);
	spin_lock(&node->homes_lock, LOCK_KSM_HOMES);
	*slot = wanted;
	node->nhomes++;
	spin_unlock(&node->homes_lock, LOCK_KSM_HOMES);
	return true;
}

void homes_drop(struct ksm *ksm, struct ksm_node *node)
{
	struct ksm_home *homes = array_of(node);

	for (uint32_t i = 0; i < node->homes_room; i++)
		if (homes[i].family)
			family_drop(&ksm->machine->tables, homes[i].family);
	host_free(node->homes);
}

void homes_for_each(void *arg, struct ucow_page *page, bool (*each)(void *arg, struct family *family, int home),
		    void *each_arg)
{
	struct ksm_node *node = page->mapping;
	struct ksm_home *homes;
	bool more = true;

	(void)arg;
	spin_lock(&node->homes_lock, LOCK_KSM_HOMES);
	homes = array_of(node);
	for (uint32_t i = 0; i < node->homes_room && more; i++)
		if (homes[i].family)
			more = each(each_arg, homes[i].family, homes[i].home);
	spin_unlock(&node->homes_lock, LOCK_KSM_HOMES);
}
