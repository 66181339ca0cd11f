/* SPDX-License-Identifier: MIT */
/* mprotect with the private-exclusive upgrade, and the arming of NUMA hints, which is a change of protection too. */
#include "ops/ops.h"

#include "fault/fault.h"

#include <ucow/debug.h>

#include <errno.h>

#define VMA_PERMISSIONS ((unsigned)(VMA_READ | VMA_WRITE))

/* The entry under the mapping's new permissions; a write permission appears only where no fault would be due (B.6). */
static struct pte reprotect(struct ucow_mm *mm, const struct vma *vma, struct pte pte)
{
	if (!vma_is_accessible(vma))
		return pte_mk_protnone(pte);
	pte = pte_clear_protnone(pte);
	if (!(vma->flags & VMA_WRITE))
		return pte_wrprotect(pte);
	if (!vma_is_cow(vma) || entry_may_upgrade(mm, vma, pte))
		return pte_mkwrite(pte);
	return pte;
}

static int protect_one(struct ucow_mm *mm, struct vma *vma, uint64_t start, uint64_t end, unsigned flags)
{
	int error;

	start = max_u64(start, vma->start);
	end = min_u64(end, vma->end);
	if (flags == vma->flags)
		return 0;
	error = vmas_isolate(mm, start, end);
	if (error)
		return error;
	vma = vma_at(&mm->vmas, start);
	vma->flags = flags;
	change_range(mm, vma, start, end, reprotect);
	return 0;
}

/* Mapping by mapping, as the system call does: what precedes a hole has changed. */
static int protect_range(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned permissions)
{
	uint64_t va = start;
	int error = 0;

	while (va < end && !error) {
		struct vma *vma = vma_at(&mm->vmas, va);
		uint64_t next;

		if (!vma) {
			error = -ENOMEM;
			break;
		}
		next = vma->end;
		error = protect_one(mm, vma, va, end, (vma->flags & ~VMA_PERMISSIONS) | permissions);
		va = next;
	}
	vmas_merge(mm, start, end);
	return error;
}

int ucow_mprotect(struct ucow_mm *mm, uint64_t va, uint64_t length, unsigned prot)
{
	unsigned permissions = (prot & UCOW_PROT_READ ? VMA_READ : 0u) | (prot & UCOW_PROT_WRITE ? VMA_WRITE : 0u);
	int error;

	if ((prot & ~(UCOW_PROT_READ | UCOW_PROT_WRITE)) || (va & ~UCOW_PAGE_MASK))
		return -EINVAL;
	if (!length)
		return 0;
	length = page_round_up(length);
	if (!mm_range_is_valid(va, length))
		return -ENOMEM;
	rwlock_write_lock(&mm->mmap_lock);
	error = protect_range(mm, va, va + length, permissions);
	rwlock_write_unlock(&mm->mmap_lock);
	return error;
}

/* ---- NUMA hints ---- */

/* Merged pages, and in private mappings pages that may be pinned or shared, are not worth moving: left alone (B.6). */
static struct pte arm(struct ucow_mm *mm, const struct vma *vma, struct pte pte)
{
	const struct ucow_page *page;

	if (!vma_is_accessible(vma) || !pte_has_page(pte))
		return pte;
	page = pte_page(&mm->machine->frames, pte);
	if (page_is(page, PAGE_KSM))
		return pte;
	if (vma_is_cow(vma) && (page_maybe_pinned(page) || page_mapcount(page) > 1))
		return pte;
	return mm->machine->policy->numa_keeps_write ? pte_mk_protnone_keep_write(pte) : pte_mk_protnone(pte);
}

static int arm_range(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	if (!vma_range_is_mapped(&mm->vmas, start, end))
		return -ENOMEM;
	for (struct vma *vma = vma_at(&mm->vmas, start); vma && vma->start < end; vma = vma_next(vma))
		change_range(mm, vma, max_u64(start, vma->start), min_u64(end, vma->end), arm);
	return 0;
}

int ucow_numa_hint(struct ucow_mm *mm, uint64_t va, uint64_t length)
{
	int error;

	length = page_round_up(length);
	if (!mm_range_is_valid(va, length))
		return -EINVAL;
	rwlock_read_lock(&mm->mmap_lock);
	error = arm_range(mm, va, va + length);
	rwlock_read_unlock(&mm->mmap_lock);
	return error;
}
