/* SPDX-License-Identifier: MIT */
/* Dropping and rewriting ranges of entries, and munmap. */
#include "ops/ops.h"

#include "base/mutate.h"
#include "fault/fault.h"

#include <errno.h>

/* Empty [start, end) of one leaf. The references go after the translations are invalid [rule 10]. */
static void zap_leaf(struct ucow_mm *mm, struct table *leaf, uint64_t start, uint64_t end)
{
	struct ucow_page *dropped[TABLE_LEAF_MAX];
	unsigned ndropped = 0;

	table_lock(leaf);
	for (uint64_t va = start; va < end; va += UCOW_PAGE_SIZE) {
		struct pte pte = leaf_get(leaf, va);

		if (pte_is_none(pte))
			continue;
		if (pte_has_page(pte))
			dropped[ndropped++] = pte_page(&mm->machine->frames, pte);
		leaf_set(leaf, va, pte_none());
	}
	table_unlock(leaf);
	tlb_invalidate(&mm->generations, start, end);
	for (unsigned i = 0; i < ndropped; i++)
		if (MUTATED(LEAK_REF_ON_ZAP))
			page_unmap(dropped[i]);
		else
			page_drop_mapping(dropped[i]);
}

void zap_range(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	struct table *leaf;

	for (uint64_t va = start; (leaf = table_next_leaf(mm->root, &va, end)); va = table_leaf_end(va, end))
		zap_leaf(mm, leaf, va, table_leaf_end(va, end));
}

void change_range(struct ucow_mm *mm, struct vma *vma, uint64_t start, uint64_t end,
		  struct pte (*change)(struct ucow_mm *mm, const struct vma *vma, struct pte pte))
{
	struct table *leaf;

	for (uint64_t at = start; (leaf = table_next_leaf(mm->root, &at, end)); at = table_leaf_end(at, end)) {
		table_lock(leaf);
		for (uint64_t va = at; va < table_leaf_end(at, end); va += UCOW_PAGE_SIZE) {
			struct pte pte = leaf_get(leaf, va);

			if (!pte_is_none(pte))
				leaf_set(leaf, va, change(mm, vma, pte));
		}
		table_unlock(leaf);
	}
	tlb_invalidate(&mm->generations, start, end);
}

int unmap_range(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	int error = vmas_isolate(mm, start, end);

	if (error)
		return error;
	zap_range(mm, start, end);
	vmas_remove(mm, start, end);
	table_free_empty(&mm->machine->tables, mm->root, start, end);
	return 0;
}

int ucow_munmap(struct ucow_mm *mm, uint64_t va, uint64_t length)
{
	int error;

	/* Below the lowest address there is nothing to unmap, which is no error. */
	if ((va & ~UCOW_PAGE_MASK) || !length || length > UCOW_ADDRESS_LIMIT ||
	    va > UCOW_ADDRESS_LIMIT - page_round_up(length))
		return -EINVAL;
	length = page_round_up(length);
	rwlock_write_lock(&mm->mmap_lock);
	error = unmap_range(mm, va, va + length);
	rwlock_write_unlock(&mm->mmap_lock);
	return error;
}
