/* SPDX-License-Identifier: MIT */
/* mprotect with the private-exclusive upgrade, and the arming of NUMA hints, which is a change of protection too. */
#include "ops/ops.h"

#include "cache/cache.h"
#include "fault/fault.h"

#include <ucow/debug.h>

#include <errno.h>

#define VMA_PERMISSIONS ((unsigned)(VMA_READ | VMA_WRITE))

/* The entry under the mapping's new permissions; a write permission appears only where no fault would be due (B.6). */
static struct pte reprotect(struct ucow_mm *mm, const struct vma *vma, struct pte pte)
{
	if (pte_is_swap(pte)) /* gets the rest of its permissions when it comes back */
		return vma_is_accessible(vma) ? pte_clear_protnone(pte) : pte_swap_mk_protnone(pte);
	if (pte_is_marker(pte))
		return pte;
	if (!vma_is_accessible(vma))
		return pte_mk_protnone(pte);
	pte = pte_clear_protnone(pte);
	if (!(vma->flags & VMA_WRITE) || pte_is_uffd_wp(pte))
		return pte_wrprotect(pte);
	if ((!vma_is_cow(vma) && !vma_wants_notify(vma)) || entry_may_upgrade(mm, vma, pte))
		return pte_mkwrite(pte);
	return pte;
}

/* Where the mappings that cover @start without a hole end, at most @end. */
static uint64_t covered_until(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	struct vma *vma = vma_at(&mm->vmas, start);

	while (vma && vma->start <= start && start < end) {
		start = vma->end;
		vma = vma_next(vma);
	}
	return min_u64(start, end);
}

/* Where the first mapping of a range that is covered starts that may not get @permissions, or @end. */
static uint64_t permitted_until(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned permissions)
{
	struct vma *vma = permissions & VMA_WRITE ? vma_at(&mm->vmas, start) : NULL;

	for (; vma && vma->start < end; vma = vma_next(vma))
		if (unlikely(vma->flags & VMA_NOWRITE))
			return max_u64(start, vma->start);
	return end;
}

/* Whether any mapping of a range that is covered would change; nothing is split where none does. */
static bool is_change(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned permissions)
{
	for (struct vma *vma = vma_at(&mm->vmas, start); vma && vma->start < end; vma = vma_next(vma))
		if ((vma->flags & VMA_PERMISSIONS) != permissions)
			return true;
	return false;
}

/*
 * The flags of @vma under new permissions. Memory is promised to private mappings when they become writable, and no
 * longer once they are not, unless they have had an anon page by then. Mappings that differ in it do not merge (B.4: it
 * can be seen in what a fork copies).
 */
static unsigned reprotected_flags(const struct vma *vma, unsigned permissions)
{
	unsigned flags = (vma->flags & ~VMA_PERMISSIONS) | permissions;

	if (flags == vma->flags)
		return flags;
	if (permissions & VMA_WRITE)
		return vma->flags & (VMA_WRITE | VMA_SHARED | VMA_PFNMAP) ? flags : flags | VMA_ACCOUNT;
	return vma->has_anon ? flags : flags & ~(unsigned)VMA_ACCOUNT;
}

/* As the system call does: what precedes a hole, or a mapping that refuses, changes. All splitting comes first, so that
 * no memory means no change.
 */
static int protect_range(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned permissions)
{
	uint64_t there = covered_until(mm, start, end), covered = permitted_until(mm, start, there, permissions);
	int error = 0;

	if (is_change(mm, start, covered, permissions)) {
		error = vmas_isolate(mm, start, covered);
		if (!error)
			error = table_own_range(&mm->pt, start, covered);
	}
	if (error) {
		vmas_merge(mm, start, covered);
		return error;
	}
	for (struct vma *vma = vma_at(&mm->vmas, start); vma && vma->start < covered; vma = vma_next(vma)) {
		unsigned flags = reprotected_flags(vma, permissions);

		if (flags == vma->flags)
			continue;
		vma->flags = flags;
		change_range(mm, vma, vma->start, vma->end, reprotect);
	}
	vmas_merge(mm, start, covered);
	if (covered < there)
		return -EACCES;
	return there < end ? -ENOMEM : 0;
}

/* Whether private memory that is locked, and not only as pages come, is about to become writable. */
static bool makes_locked_writable(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned permissions)
{
	const unsigned looked_at = VMA_WRITE | VMA_SHARED | VMA_LOCKED | VMA_LOCKONFAULT;

	for (struct vma *vma = vma_find(&mm->vmas, start); vma && vma->start < end; vma = vma_next(vma))
		if ((permissions & VMA_WRITE) && (vma->flags & looked_at) == VMA_LOCKED)
			return true;
	return false;
}

int ucow_mprotect(struct ucow_mm *mm, uint64_t va, uint64_t length, unsigned prot)
{
	unsigned permissions = (prot & UCOW_PROT_READ ? VMA_READ : 0u) | (prot & UCOW_PROT_WRITE ? VMA_WRITE : 0u);
	bool fetches;
	int error;

	if ((prot & ~(UCOW_PROT_READ | UCOW_PROT_WRITE)) || (va & ~UCOW_PAGE_MASK))
		return -EINVAL;
	if (mm->read_only)
		return -EACCES;
	if (!length)
		return 0;
	length = page_round_up(length);
	if (!mm_range_is_valid(va, length))
		return -ENOMEM;
	rwlock_write_lock(&mm->mmap_lock);
	fetches = makes_locked_writable(mm, va, va + length, permissions);
	error = protect_range(mm, va, va + length, permissions);
	rwlock_write_unlock(&mm->mmap_lock);
	/* No fault is to come where memory is locked, a copy included; what cannot be had is had later. */
	if (unlikely(fetches))
		(void)fetch_locked(mm, va, va + length);
	return error;
}

/* ---- NUMA hints ---- */

/* Merged pages, dirty ones of files, and in private mappings those that may be pinned or shared, are not worth moving:
 * left alone (B.6). */
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
	if (pte_kind(pte) == PTE_KIND_SHARED && cache_is_tracked(vma->object) && page_is(page, PAGE_DIRTY))
		return pte;
	return mm->machine->policy->numa_keeps_write ? pte_mk_protnone_keep_write(pte) : pte_mk_protnone(pte);
}

static int arm_range(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	if (!vma_range_is_mapped(&mm->vmas, start, end) || table_own_range(&mm->pt, start, end))
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
	rwlock_write_lock(&mm->mmap_lock);
	error = arm_range(mm, va, va + length);
	rwlock_write_unlock(&mm->mmap_lock);
	return error;
}
