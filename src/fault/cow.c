/* SPDX-License-Identifier: MIT */
/*
 * Write-protect and unshare faults in private mappings: gather the facts, let the policy decide, serve its questions,
 * act. The rules themselves are in policy.c; semantics.md B.3.
 */
#include "fault/fault_internal.h"

#include "base/mutate.h"
#include "space/notifier.h"
#include "swap/swap.h"

/* What the policy is asked about. */
struct cow {
	struct fault *fault;
	struct ucow_page *page; /* NULL: the zero page, or memory that is not a page */
	struct cow_facts facts;
};

/* Counts as others see them: our own reference from waiting for the lock is not a user. */
static void refresh_counts(struct cow *cow)
{
	if (!cow->page)
		return;
	cow->facts.refcount = page_refcount(cow->page) - (cow->fault->waited_for == cow->page);
	cow->facts.mapcount = page_mapcount(cow->page);
	cow->facts.ksm = page_is(cow->page, PAGE_KSM);
	cow->facts.maybe_pinned = cow->facts.refcount >= UCOW_GUP_PIN_COUNTING_BIAS;
}

static void gather(struct cow *cow, struct fault *fault)
{
	struct cow_facts *facts = &cow->facts;

	*cow = (struct cow){.fault = fault};
	facts->unshare = fault->flags & FAULT_UNSHARE;
	facts->on_lru = true; /* batches hold no references */
	facts->no_page = !pte_has_page(fault->pte);
	if (facts->no_page)
		return;
	cow->page = pte_page(&fault->mm->machine->frames, fault->pte);
	facts->anon = page_is(cow->page, PAGE_ANON);
	facts->exclusive = page_is(cow->page, PAGE_EXCLUSIVE);
	facts->swapcache = page_is(cow->page, PAGE_SWAPCACHE);
	if (unlikely(facts->swapcache))
		facts->swapcount = swap_count(machine_swap(fault->mm->machine), cow->page);
	if (fault->waited_for == cow->page)
		facts->lock = LOCK_HELD;
	refresh_counts(cow);
}

/* Policies that wait for the page lock: let go of everything else, wait with a reference, and start over with it held.
 */
static enum fault_result ask_for_page_lock(struct cow *cow)
{
	page_get(cow->page);
	table_unlock(cow->fault->leaf);
	cow->fault->to_lock = cow->page;
	return FAULT_LOCK_PAGE;
}

/* Requires: the leaf's lock, under which the entry's own reference keeps the page. */
static void release_page_lock(struct cow *cow)
{
	if (cow->facts.lock == LOCK_HELD && cow->fault->waited_for != cow->page)
		fault_unlock_page(cow->fault, cow->page);
}

/* Ask until the policy decides. Returns: a final action; COW_NEED_LOCK only if the lock has to be waited for. */
static enum cow_action decide(struct cow *cow)
{
	const struct cow_policy *policy = cow->fault->mm->machine->policy;
	struct swap *swap = machine_swap(cow->fault->mm->machine);

	for (;;) {
		enum cow_action action = policy->write_protect(&cow->facts);

		switch (action) {
		case COW_NEED_LOCK:
			if (page_trylock(cow->page))
				cow->facts.lock = LOCK_HELD;
			else if (policy->lock_mode == LOCK_MODE_BLOCK)
				return action;
			else
				cow->facts.lock = LOCK_REFUSED;
			break;
		case COW_DRAIN:
			cow->facts.drained = true;
			break;
		case COW_DROP_SWAPCACHE:
			/* Whoever held the lock before us may have taken it out already. */
			cow->facts.drop_tried = true;
			if (!page_is(cow->page, PAGE_SWAPCACHE) || swap_forget(swap, cow->page, false))
				cow->facts.swapcache = false;
			break;
		case COW_NOTHING:
		case COW_REUSE:
		case COW_REUSE_SET:
		case COW_UNSHARE_SET:
		case COW_COPY:
			return action;
		}
		refresh_counts(cow);
	}
}

static void count_copy(struct cow *cow)
{
	static const enum ucow_counter by_cause[] = {
		[CAUSE_SHARED] = UCOW_COUNTER_COPY_SHARED, [CAUSE_REFERENCED] = UCOW_COUNTER_COPY_REFERENCED,
		[CAUSE_LOCKED] = UCOW_COUNTER_COPY_LOCKED, [CAUSE_ZERO_PAGE] = UCOW_COUNTER_COPY_ZERO,
		[CAUSE_KSM] = UCOW_COUNTER_COPY_KSM,       [CAUSE_FILE] = UCOW_COUNTER_COPY_FILE,
	};

	if (cow->facts.unshare) {
		fault_count(cow->fault, UCOW_COUNTER_UNSHARE);
		fault_count(cow->fault, UCOW_COUNTER_UNSHARE_COPY);
	} else if (pte_kind(cow->fault->pte) == PTE_KIND_PFN) {
		fault_count(cow->fault, UCOW_COUNTER_COPY_FILE);
	} else {
		fault_count(cow->fault, by_cause[cow_copy_cause(&cow->facts)]);
	}
}

/* A new page with the old bytes, or NULL. Requires: no lock; the old page cannot go away. */
static struct ucow_page *duplicate(struct fault *fault)
{
	struct frame_pool *frames = &fault->mm->machine->frames;
	bool zero = pte_kind(fault->pte) == PTE_KIND_ZERO_PAGE;
	struct ucow_page *page = mm_alloc_page(fault->mm, zero ? FRAME_ZEROED : FRAME_ANY);

	if (page && !zero)
		page_copy(page_bytes(page), pte_host(frames, fault->pte));
	return page;
}

/* The entry for the copy: a write's is dirty and as writable as the mapping; an unshare's keeps what was tracked. */
static struct pte copied_entry(const struct fault *fault, const struct ucow_page *page)
{
	struct pte pte = pte_make_anon(page);

	if (fault->flags & FAULT_UNSHARE)
		return entry_permit(fault->vma, pte_inherit(pte, fault->pte), false);
	return entry_permit(fault->vma, pte_mkdirty(pte), true);
}

/*
 * The space maps the old page no more. Another cpu of it may be in the middle of a read of the page, with a translation
 * that the bump came too late for. Until it has left, the page must neither be freed nor be taken for another space's
 * own: its reference is kept for a grace period, which costs no barrier here, and a last owner who cannot wait finds
 * two references and copies [rule 11]. Policies that go by the mapcount, which falls at once, wait for the cpus, as
 * Linux then did. Returns: whether no entry maps it any more.
 */
bool mapping_let_go(struct ucow_mm *mm, struct ucow_page *page)
{
	struct ucow_machine *machine = mm->machine;
	bool mine = tlb_is_mine(&mm->pt) || MUTATED(EARLY_REUSE), last;

	if (unlikely(!mine && !machine->policy->uses_exclusive))
		tlb_shootdown(&mm->pt);
	last = page_unmap(page);
	if (unlikely(last && page_is(page, PAGE_SWAPCACHE)))
		last = machine->tables.swap->unmapped(machine->tables.swap_arg, page);
	if (likely(mine) || !machine->policy->uses_exclusive) {
		page_put(page);
	} else if (!epoch_defer_item(&machine->epoch, page)) {
		tlb_shootdown(&mm->pt);
		page_put(page);
	}
	return last;
}

/*
 * Replace the page by a copy (wp_page_copy). The leaf's lock is dropped for the allocation and the bytes; if the entry
 * has changed meanwhile the copy is thrown away. Takes away a read-only translation only: a bump, no barrier [rule 11].
 */
static enum fault_result put_copy(struct cow *cow, struct ucow_page *copy, bool *last)
{
	struct fault *fault = cow->fault;

	if (!fault_relock(fault)) {
		page_put(copy);
		return FAULT_RETRY;
	}
	anon_page_init(fault->mm, fault->vma, fault->leaf, fault->va, copy);
	leaf_set(fault->leaf, fault->va, copied_entry(fault, copy));
	table_unlock(fault->leaf);
	tlb_invalidate(&fault->mm->pt.generations, fault->va, fault->va + UCOW_PAGE_SIZE);
	count_copy(cow);
	table_count_zero(&fault->mm->machine->tables, fault->pte, -1);
	*last = cow->page && mapping_let_go(fault->mm, cow->page);
	return FAULT_DONE;
}

/* Who follows the space lets go of the old page first. */
static enum fault_result copy_page(struct cow *cow, bool *last)
{
	const struct fault *fault = cow->fault;
	struct ucow_page *copy = duplicate(cow->fault);
	enum fault_result result;

	if (!copy)
		return FAULT_OOM;
	if (!MUTATED(COPY_WITHOUT_NOTIFY))
		notify_start(fault->mm, fault->va, fault->va + UCOW_PAGE_SIZE, UCOW_NOTIFY_CLEAR);
	result = put_copy(cow, copy, last);
	if (!MUTATED(COPY_WITHOUT_NOTIFY))
		notify_end(fault->mm, fault->va, fault->va + UCOW_PAGE_SIZE, UCOW_NOTIFY_CLEAR);
	return result;
}

/* Others map the page, or will when they bring it back from swap. */
static bool is_used_elsewhere(const struct ucow_page *page, struct ucow_machine *machine)
{
	if (page_mapcount(page) > 1)
		return true;
	return page_is(page, PAGE_SWAPCACHE) && swap_count(machine_swap(machine), page);
}

/*
 * What a copy means for the space's snapshot group: a live space leaves the old page to its snapshots, if they map it;
 * a snapshot gets a page of its own, for a pin.
 */
static enum charge charge_copy(struct cow *cow)
{
	struct ucow_mm *mm = cow->fault->mm;

	if (likely(!mm->group) || (cow->page && !cow->facts.anon)) /* a file keeps its pages itself */
		return CHARGE_NONE;
	if (mm->read_only) {
		group_charge(mm->group, &mm->snapshot, 1);
		return CHARGE_MADE;
	}
	return cow->page && is_used_elsewhere(cow->page, mm->machine) ? group_reserve(mm->group) : CHARGE_NONE;
}

/* Nothing came of it, or the old page turned out to be nobody's. */
static void uncharge_copy(struct cow *cow)
{
	struct ucow_mm *mm = cow->fault->mm;

	group_charge(mm->group, mm->read_only ? &mm->snapshot : NULL, -1);
}

static enum fault_result act_copy(struct cow *cow)
{
	enum fault_result result = FAULT_OVER_LIMIT;
	enum charge charge;
	bool last = false;

	/* A page lock that was merely tried is not needed for a copy, nor over its allocation. */
	release_page_lock(cow);
	if (cow->page)
		page_get(cow->page);
	table_unlock(cow->fault->leaf);
	charge = charge_copy(cow);
	if (charge != CHARGE_REFUSED)
		result = copy_page(cow, &last);
	if (charge == CHARGE_MADE && (result != FAULT_DONE || last))
		uncharge_copy(cow);
	if (cow->page)
		page_put(cow->page);
	return result;
}

/*
 * reuse_ksm_page: a merged page that only one entry maps becomes an ordinary one. While its references are taken away
 * nobody merges another one into it. Requires: the page lock. Returns: false: it has other references by now.
 */
static bool take_merged(struct cow *cow)
{
	struct fault *fault = cow->fault;

	if (!page_freeze(cow->page, cow->facts.refcount + (fault->waited_for == cow->page)))
		return false;
	page_clear(cow->page, PAGE_KSM);
	leaf_bear(fault->leaf, fault->va, cow->page);
	page_unfreeze(cow->page, cow->facts.refcount + (fault->waited_for == cow->page));
	return true;
}

static enum fault_result act_reuse(struct cow *cow, bool set_exclusive)
{
	struct fault *fault = cow->fault;

	if (unlikely(cow->facts.ksm) && !take_merged(cow))
		return act_copy(cow);

	if (set_exclusive)
		page_set(cow->page, PAGE_EXCLUSIVE);
	leaf_set(fault->leaf, fault->va, entry_permit(fault->vma, pte_mkyoung(pte_mkdirty(fault->pte)), true));
	release_page_lock(cow);
	table_unlock(fault->leaf);
	fault_count(fault, UCOW_COUNTER_REUSE);
	return FAULT_DONE;
}

static enum fault_result act_unshare_in_place(struct cow *cow)
{
	page_set(cow->page, PAGE_EXCLUSIVE);
	release_page_lock(cow);
	table_unlock(cow->fault->leaf);
	fault_count(cow->fault, UCOW_COUNTER_UNSHARE);
	return FAULT_DONE;
}

static enum fault_result act(struct cow *cow, enum cow_action action)
{
	switch (action) {
	case COW_REUSE:
	case COW_REUSE_SET:
		return act_reuse(cow, action == COW_REUSE_SET);
	case COW_UNSHARE_SET:
		return act_unshare_in_place(cow);
	case COW_NOTHING:
		table_unlock(cow->fault->leaf);
		return FAULT_DONE;
	case COW_COPY:
		return act_copy(cow);
	case COW_NEED_LOCK:
		return ask_for_page_lock(cow);
	case COW_DRAIN:
	case COW_DROP_SWAPCACHE:
		break;
	}
	UCOW_BUG("a policy did not decide");
}

enum fault_result fault_write_protect(struct fault *fault)
{
	enum fault_result result;
	struct cow cow;

	if (!fault_relock(fault))
		return FAULT_RETRY;
	gather(&cow, fault);
	result = act(&cow, decide(&cow));
	if (result == FAULT_DONE)
		fault_count(fault, UCOW_COUNTER_FAULT_WP);
	return result;
}
