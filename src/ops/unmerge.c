/* SPDX-License-Identifier: MIT */
/* Entries of merged pages get pages of their own again: unshare faults, one by one (semantics.md B.6). */
#include "ops/ops.h"

#include "fault/fault.h"
#include "swap/swap.h"

#include <errno.h>

/* Requires: the leaf's lock. */
static bool is_merged(const struct ucow_machine *machine, struct pte pte)
{
	if (pte_is_swap(pte))
		return swap_is_merged(machine_swap(machine), pte_swap_entry(pte));
	if (pte_kind(pte) == PTE_KIND_ANON)
		return page_is(pte_page(&machine->frames, pte), PAGE_KSM);
	return pte_is_merged_zero(pte);
}

/* The first merged entry of one leaf in [*va, end), at *va then. */
static bool find_in_leaf(struct ucow_mm *mm, struct table *leaf, uint64_t *va, uint64_t end)
{
	bool found = false;

	table_lock(leaf);
	while (*va < end && !(found = is_merged(mm->machine, leaf_get(leaf, *va))))
		*va += UCOW_PAGE_SIZE;
	table_unlock(leaf);
	return found;
}

static bool find_merged(struct ucow_mm *mm, uint64_t *va, uint64_t end)
{
	struct table *leaf;
	bool found = false;

	epoch_enter(&mm->machine->epoch);
	while (!found && (leaf = table_next_leaf(&mm->pt, va, end, false)))
		found = find_in_leaf(mm, leaf, va, table_leaf_end(*va, end));
	epoch_leave(&mm->machine->epoch);
	return found;
}

/* *va moves up to what could not be done. Requires: mmap_lock. */
static enum fault_result unmerge_some(struct ucow_mm *mm, uint64_t *va, uint64_t end, unsigned spared)
{
	for (; find_merged(mm, va, end); *va += UCOW_PAGE_SIZE) {
		struct vma *vma = vma_at(&mm->vmas, *va);
		enum fault_result result;

		if (vma->flags & spared)
			continue;
		result = fault_handle(mm, vma, *va, FAULT_UNSHARE, NULL);
		if (result != FAULT_DONE)
			return result;
	}
	return FAULT_DONE;
}

int unmerge_range(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned spared)
{
	struct epoch *epoch = &mm->machine->epoch;
	enum fault_result result;
	unsigned tries = 0;

	do {
		rwlock_read_lock(&mm->mmap_lock);
		result = unmerge_some(mm, &start, end, spared);
		rwlock_read_unlock(&mm->mmap_lock);
		epoch_settle(epoch);
	} while ((unlikely(result == FAULT_OVER_LIMIT) && !group_make_room(mm->group, 1)) ||
		 (unlikely(result == FAULT_OOM) && space_relieve(mm, &tries)));
	return fault_errno(result);
}
