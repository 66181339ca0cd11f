/* SPDX-License-Identifier: MIT */
/* The eight policies: today's rules, their four predecessors and three proposals, as pure functions. */
#include "fault/policy.h"

#include "base/base.h"
#include "base/mutate.h"

#include <errno.h>
#include <string.h>

/* ---- write-protect faults, B.3 ---- */

enum cow_cause cow_copy_cause(const struct cow_facts *facts)
{
	if (facts->no_page)
		return CAUSE_ZERO_PAGE;
	if (!facts->anon)
		return CAUSE_FILE;
	if (facts->ksm)
		return CAUSE_KSM;
	if (facts->mapcount > 1)
		return CAUSE_SHARED;
	return facts->lock == LOCK_REFUSED ? CAUSE_LOCKED : CAUSE_REFERENCED;
}

/* What no policy can reuse. */
static bool must_copy(const struct cow_facts *facts)
{
	return facts->no_page || !facts->anon;
}

/* reuse_swap_page: mappings and swap references alone count; references of devices and pipes are not seen. */
static enum cow_action reuse_by_mapcount(const struct cow_facts *facts)
{
	uint32_t users = facts->mapcount + (facts->swapcache ? facts->swapcount : 0);

	if (facts->lock != LOCK_HELD)
		return COW_NEED_LOCK;
	if (users > 1 && !MUTATED(REUSE_SHARED))
		return COW_COPY;
	if (facts->swapcache && facts->writeback)
		return COW_COPY;
	if (facts->swapcache && !facts->drop_tried)
		return COW_DROP_SWAPCACHE;
	return COW_REUSE;
}

/* To 5.8, column (1). */
static enum cow_action wp_mapcount(const struct cow_facts *facts)
{
	if (must_copy(facts))
		return COW_COPY;
	if (facts->ksm && (facts->swapcache || facts->refcount != 1))
		return COW_COPY;
	return reuse_by_mapcount(facts);
}

/* 5.9 to 5.17, column (2): one mapping and no other reference of any kind; a page in the swap cache has one more. */
static enum cow_action wp_refcount(const struct cow_facts *facts)
{
	if (must_copy(facts) || facts->ksm)
		return COW_COPY;
	if (facts->refcount != 1 && !MUTATED(REUSE_SHARED))
		return COW_COPY;
	if (facts->lock == LOCK_NOT_TRIED)
		return COW_NEED_LOCK;
	if (facts->lock == LOCK_REFUSED || facts->mapcount != 1)
		return COW_COPY;
	return COW_REUSE;
}

/* Proposal: what may be pinned is judged by its mappings, the rest by its references. */
static enum cow_action wp_reuse_pinned(const struct cow_facts *facts)
{
	if (must_copy(facts) || facts->ksm || !facts->maybe_pinned)
		return wp_refcount(facts);
	return facts->mapcount == 1 ? COW_REUSE : COW_COPY;
}

/* wp_can_reuse_anon_folio: may a page whose flag is clear be taken over? COW_REUSE stands for yes. */
static enum cow_action reuse_by_references(const struct cow_facts *facts)
{
	if (MUTATED(REUSE_SHARED))
		return COW_REUSE;
	if (facts->ksm || facts->refcount > 3)
		return COW_COPY;
	if (!facts->on_lru && !facts->drained)
		return COW_DRAIN;
	if (facts->refcount > 1u + facts->swapcache)
		return COW_COPY;
	if (facts->lock == LOCK_NOT_TRIED)
		return COW_NEED_LOCK;
	if (facts->lock == LOCK_REFUSED)
		return COW_COPY;
	if (facts->swapcache && !facts->drop_tried)
		return COW_DROP_SWAPCACHE;
	return facts->refcount == 1 ? COW_REUSE : COW_COPY;
}

/* Since 5.19, column (3) and the table below it. */
static enum cow_action wp_exclusive(const struct cow_facts *facts)
{
	enum cow_action action;

	if (must_copy(facts))
		return COW_COPY;
	if (facts->exclusive)
		return facts->unshare ? COW_NOTHING : COW_REUSE;
	action = reuse_by_references(facts);
	if (action != COW_REUSE)
		return action;
	return facts->unshare ? COW_UNSHARE_SET : COW_REUSE_SET;
}

/* ---- fork, B.4 ---- */

static enum fork_action fork_share(const struct fork_facts *facts)
{
	(void)facts;
	return FORK_SHARE;
}

static bool fork_sees_pin(const struct fork_facts *facts)
{
	return facts->cow_mapping && facts->has_pinned && facts->maybe_pinned;
}

/* 5.9 to 5.18: whatever may be pinned, by whatever permission. */
static enum fork_action fork_copy_pinned(const struct fork_facts *facts)
{
	return fork_sees_pin(facts) && !MUTATED(SKIP_EARLY_COPY) ? FORK_COPY : FORK_SHARE;
}

static enum fork_action fork_skip_pinned(const struct fork_facts *facts)
{
	return fork_sees_pin(facts) ? FORK_SKIP : FORK_SHARE;
}

/* Since 5.19: a page that lost its flag was shared before the pin, or the pin is a false positive. */
static enum fork_action fork_copy_pinned_exclusive(const struct fork_facts *facts)
{
	return facts->exclusive ? fork_copy_pinned(facts) : FORK_SHARE;
}

/* ---- get_user_pages, B.5 ---- */

/* Before FOLL_FORCE learned of exclusivity: the entry that our own write fault left dirty is good enough. */
static enum gup_action gup_as_is(const struct gup_facts *facts)
{
	if (!facts->write || facts->entry_writable)
		return GUP_TAKE;
	return facts->faulted && !facts->vma_writable && facts->entry_dirty ? GUP_TAKE : GUP_FAULT_WRITE;
}

/* As above with every reference to a copy-on-write mapping turned into a write fault (should_force_cow_break). */
static enum gup_action gup_break_cow(const struct gup_facts *facts)
{
	struct gup_facts as_write = *facts;

	as_write.write |= facts->cow_mapping;
	return gup_as_is(&as_write);
}

static enum gup_action gup_pin_breaks_cow(const struct gup_facts *facts)
{
	return facts->pin ? gup_break_cow(facts) : gup_as_is(facts);
}

/* can_follow_write_pte */
static bool may_force_write(const struct gup_facts *facts)
{
	return facts->force && facts->cow_mapping && !facts->vma_writable && facts->anon && facts->exclusive &&
	       !facts->soft_dirty_needed;
}

/* gup_must_unshare; consulted only where the entry is not writable. */
static bool must_unshare(const struct gup_facts *facts)
{
	if (facts->write || !facts->pin || MUTATED(SKIP_UNSHARE))
		return false;
	if (!facts->anon)
		return facts->longterm && facts->cow_mapping;
	return !facts->exclusive;
}

static enum gup_action gup_exclusive(const struct gup_facts *facts)
{
	if (facts->entry_writable)
		return GUP_TAKE;
	if (facts->write)
		return may_force_write(facts) ? GUP_TAKE : GUP_FAULT_WRITE;
	return must_unshare(facts) ? GUP_FAULT_UNSHARE : GUP_TAKE;
}

/* ---- swap-in, B.6 ---- */

/* To 5.17: as a write-protect fault of the time would judge, for writes only. */
static enum swapin_action swapin_mapcount(const struct swapin_facts *facts)
{
	bool sole = !facts->ksm && facts->mapcount + facts->swapcount <= 1;

	return facts->write && facts->vma_writable && sole ? SWAPIN_WRITABLE : SWAPIN_READ_ONLY;
}

static enum swapin_action swapin_exclusive(const struct swapin_facts *facts)
{
	bool exclusive = !facts->ksm && (facts->entry_exclusive || !facts->exposed);

	if (facts->stable_writeback)
		exclusive = false;
	if (!facts->ksm && (exclusive || facts->refcount == 1))
		return SWAPIN_EXCLUSIVE;
	return SWAPIN_READ_ONLY;
}

/* ---- upgrades without a fault, B.6 ---- */

static bool upgrade_never_private(const struct upgrade_facts *facts)
{
	if (MUTATED(UPGRADE_SHARED))
		return facts->vma_writable;
	return facts->shared_mapping && facts->vma_writable && !facts->protnone && facts->dirty && !facts->uffd_wp &&
	       !facts->soft_dirty_needed;
}

/* can_change_pte_writable */
static bool upgrade_exclusive(const struct upgrade_facts *facts)
{
	if (!facts->vma_writable || facts->protnone || facts->uffd_wp || facts->soft_dirty_needed)
		return false;
	if (facts->shared_mapping)
		return facts->dirty;
	return facts->anon && (facts->exclusive || MUTATED(UPGRADE_SHARED));
}

/* ---- unmapping, B.1 ---- */

static bool unmap_always(bool exclusive, bool maybe_pinned)
{
	(void)exclusive;
	(void)maybe_pinned;
	return true;
}

static bool unmap_not_pinned(bool exclusive, bool maybe_pinned)
{
	return !(exclusive && maybe_pinned);
}

/* ---- the table ---- */

/* What everything before 5.19 has in common. */
#define OLDER_POLICY(policy, label)                                                        \
	.id = policy, .name = label, .numa_keeps_write = true, .swap_in = swapin_mapcount, \
	.may_upgrade = upgrade_never_private, .may_unmap = unmap_always

static const struct cow_policy policies[UCOW_POLICY_COUNT] = {
	[UCOW_POLICY_EXCLUSIVE] =
		{
			.id = UCOW_POLICY_EXCLUSIVE,
			.name = "exclusive",
			.lock_mode = LOCK_MODE_TRY,
			.uses_exclusive = true,
			.protects_sequence = true,
			.clear_spares_pinned = true,
			.write_protect = wp_exclusive,
			.fork_entry = fork_copy_pinned_exclusive,
			.gup = gup_exclusive,
			.swap_in = swapin_exclusive,
			.may_upgrade = upgrade_exclusive,
			.may_unmap = unmap_not_pinned,
		},
	[UCOW_POLICY_MAPCOUNT] =
		{
			OLDER_POLICY(UCOW_POLICY_MAPCOUNT, "mapcount"),
			.lock_mode = LOCK_MODE_BLOCK,
			.write_protect = wp_mapcount,
			.fork_entry = fork_share,
			.gup = gup_as_is,
		},
	[UCOW_POLICY_FORCE_COW] =
		{
			OLDER_POLICY(UCOW_POLICY_FORCE_COW, "force-cow"),
			.lock_mode = LOCK_MODE_BLOCK,
			.write_protect = wp_mapcount,
			.fork_entry = fork_share,
			.gup = gup_break_cow,
		},
	[UCOW_POLICY_REFCOUNT] =
		{
			OLDER_POLICY(UCOW_POLICY_REFCOUNT, "refcount"),
			.lock_mode = LOCK_MODE_TRY,
			.write_protect = wp_refcount,
			.fork_entry = fork_share,
			.gup = gup_as_is,
		},
	[UCOW_POLICY_REFCOUNT_PIN] =
		{
			OLDER_POLICY(UCOW_POLICY_REFCOUNT_PIN, "refcount-pin"),
			.lock_mode = LOCK_MODE_TRY,
			.protects_sequence = true,
			.write_protect = wp_refcount,
			.fork_entry = fork_copy_pinned,
			.gup = gup_as_is,
		},
	[UCOW_POLICY_PIN_BREAKS_COW] =
		{
			OLDER_POLICY(UCOW_POLICY_PIN_BREAKS_COW, "pin-breaks-cow"),
			.lock_mode = LOCK_MODE_TRY,
			.write_protect = wp_refcount,
			.fork_entry = fork_share,
			.gup = gup_pin_breaks_cow,
		},
	[UCOW_POLICY_REUSE_PINNED] =
		{
			OLDER_POLICY(UCOW_POLICY_REUSE_PINNED, "reuse-pinned"),
			.lock_mode = LOCK_MODE_TRY,
			.write_protect = wp_reuse_pinned,
			.fork_entry = fork_share,
			.gup = gup_as_is,
		},
	[UCOW_POLICY_DONTCOPY_PINNED] =
		{
			OLDER_POLICY(UCOW_POLICY_DONTCOPY_PINNED, "dontcopy-pinned"),
			.lock_mode = LOCK_MODE_TRY,
			.protects_sequence = true,
			.write_protect = wp_refcount,
			.fork_entry = fork_skip_pinned,
			.gup = gup_as_is,
		},
};

const struct cow_policy *cow_policy_of(enum ucow_policy policy)
{
	UCOW_BUG_ON((unsigned)policy >= UCOW_POLICY_COUNT);
	return &policies[policy];
}

const char *ucow_policy_name(enum ucow_policy policy)
{
	return (unsigned)policy < UCOW_POLICY_COUNT ? policies[policy].name : NULL;
}

int ucow_policy_parse(const char *name, enum ucow_policy *policy)
{
	for (unsigned i = 0; i < UCOW_POLICY_COUNT; i++)
		if (!strcmp(name, policies[i].name)) {
			*policy = (enum ucow_policy)i;
			return 0;
		}
	return -EINVAL;
}
