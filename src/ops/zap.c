/* SPDX-License-Identifier: MIT */
/* Rewriting ranges of entries, and munmap. */
#include "ops/ops.h"

#include "fault/fault.h"
#include "space/notifier.h"

#include <errno.h>

void change_entries(struct ucow_mm *mm, struct vma *vma, uint64_t start, uint64_t end, change_entry *change)
{
	struct table *leaf;

	for (uint64_t at = start; (leaf = table_next_leaf(&mm->pt, &at, end, false)); at = table_leaf_end(at, end)) {
		table_lock(leaf);
		for (uint64_t va = at; va < table_leaf_end(at, end); va += UCOW_PAGE_SIZE) {
			struct pte pte = leaf_get(leaf, va);

			if (!pte_is_none(pte))
				leaf_set(leaf, va, change(mm, vma, pte));
		}
		table_unlock(leaf);
	}
}

void change_range(struct ucow_mm *mm, struct vma *vma, uint64_t start, uint64_t end, change_entry *change)
{
	notify_start(mm, start, end, UCOW_NOTIFY_PROTECT);
	change_entries(mm, vma, start, end, change);
	tlb_invalidate(&mm->pt.generations, start, end);
	tlb_shootdown(&mm->pt);
	notify_end(mm, start, end, UCOW_NOTIFY_PROTECT);
}

/* What the protected entries of one leaf leave behind: bit n for slot n. */
static uint32_t protected_slots(struct table *leaf, uint64_t start, uint64_t end)
{
	uint32_t slots = 0;

	table_lock(leaf);
	for (uint64_t va = start; va < end; va += UCOW_PAGE_SIZE)
		slots |= (uint32_t)pte_is_uffd_wp(leaf_get(leaf, va)) << leaf_slot(va);
	table_unlock(leaf);
	return slots;
}

static void leave_markers(struct table *leaf, uint64_t start, uint64_t end, uint32_t slots)
{
	table_lock(leaf);
	for (uint64_t va = start; va < end; va += UCOW_PAGE_SIZE)
		if (slots >> leaf_slot(va) & 1)
			leaf_set(leaf, va, pte_make_wp_marker());
	table_unlock(leaf);
}

void zap_keeping_protection(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	struct table *leaf;

	for (uint64_t va = start; (leaf = table_next_leaf(&mm->pt, &va, end, false)); va = table_leaf_end(va, end)) {
		uint32_t slots = protected_slots(leaf, va, table_leaf_end(va, end));

		table_clear(&mm->pt, va, table_leaf_end(va, end));
		leave_markers(leaf, va, table_leaf_end(va, end), slots);
	}
}

int unmap_range(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	int error = vmas_isolate(mm, start, end);

	if (!error)
		error = uffd_note_unmap(mm, start, end);
	if (!error) {
		notify_start(mm, start, end, UCOW_NOTIFY_UNMAP);
		error = table_zap(&mm->pt, start, end);
		notify_end(mm, start, end, UCOW_NOTIFY_UNMAP);
	}
	if (error) {
		uffd_forget(&mm->uffd_notes);
		vmas_merge(mm, start, end);
		return error;
	}
	vmas_remove(mm, start, end);
	return 0;
}

int ucow_munmap(struct ucow_mm *mm, uint64_t va, uint64_t length)
{
	int error;

	/* Below the lowest address there is nothing to unmap, which is no error. */
	if ((va & ~UCOW_PAGE_MASK) || !length || length > UCOW_ADDRESS_LIMIT ||
	    va > UCOW_ADDRESS_LIMIT - page_round_up(length))
		return -EINVAL;
	if (mm->read_only)
		return -EACCES;
	length = page_round_up(length);
	rwlock_write_lock(&mm->mmap_lock);
	error = unmap_range(mm, va, va + length);
	space_write_unlock(mm);
	return error;
}
