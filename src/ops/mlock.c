/* SPDX-License-Identifier: MIT */
/*
 * mlock and its relatives. A mapping has the flag, and so have its entries (PTE_LOCKED), since who looks for pages to
 * take meets entries and no mappings. Faults set it in what they install; a lock or unlock goes over what is there.
 */
#include "ops/ops.h"

#include "fault/fault.h"

#include <errno.h>

#define VMA_LOCK_FLAGS ((unsigned)(VMA_LOCKED | VMA_LOCKONFAULT))

/* ---- how much ---- */

/* Pages of locked mappings in [start, end). */
static uint64_t locked_in(const struct vma_set *vmas, uint64_t start, uint64_t end)
{
	uint64_t n = 0;

	for (const struct vma *vma = vma_find(vmas, start); vma && vma->start < end; vma = vma_next(vma))
		if (vma->flags & VMA_LOCKED)
			n += (min_u64(end, vma->end) - max_u64(start, vma->start)) >> UCOW_PAGE_SHIFT;
	return n;
}

uint64_t locked_pages(const struct ucow_mm *mm)
{
	return locked_in(&mm->vmas, 0, UCOW_ADDRESS_LIMIT);
}

bool may_lock(const struct ucow_mm *mm, uint64_t npages)
{
	uint64_t limit = atomic_load(&mm->lock_limit), locked;

	if (likely(limit == UINT64_MAX))
		return true;
	locked = locked_pages(mm);
	return locked <= limit && npages <= limit - locked;
}

void ucow_mm_set_lock_limit(struct ucow_mm *mm, uint64_t pages)
{
	atomic_store(&mm->lock_limit, pages);
}

/* ---- flags of mappings and entries ---- */

static struct pte lock_entry(struct ucow_mm *mm, const struct vma *vma, struct pte pte)
{
	(void)mm;
	if (!pte_is_present(pte))
		return pte;
	return vma->flags & VMA_LOCKED ? pte_mk_locked(pte) : pte_clear_locked(pte);
}

/* Memory that is not pages cannot go away, and is left as it is. */
static unsigned locked_flags(const struct vma *vma, unsigned flags)
{
	return vma->flags & VMA_PFNMAP ? vma->flags : (vma->flags & ~VMA_LOCK_FLAGS) | flags;
}

static void set_locked(struct ucow_mm *mm, struct vma *vma, unsigned flags)
{
	flags = locked_flags(vma, flags);
	if (flags == vma->flags)
		return;
	vma->flags = flags;
	change_entries(mm, vma, vma->start, vma->end, lock_entry);
}

/* Where the mappings that cover @start without a hole end, at most @end. */
static uint64_t covered_until(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	for (struct vma *vma = vma_at(&mm->vmas, start); vma && vma->start <= start && start < end; vma = vma_next(vma))
		start = vma->end;
	return min_u64(start, end);
}

/* What can fail comes first. No permission changes: nobody has to be told. */
static int lock_mappings(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned flags)
{
	int error = vmas_isolate(mm, start, end);

	if (!error)
		error = table_own_range(&mm->pt, start, end);
	for (struct vma *vma = vma_find(&mm->vmas, start); !error && vma && vma->start < end; vma = vma_next(vma))
		set_locked(mm, vma, flags);
	vmas_merge(mm, start, end);
	return error;
}

/* As the system call does: what precedes a hole is locked, or unlocked. */
static int lock_covered(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned flags)
{
	uint64_t covered = covered_until(mm, start, end);
	int error = covered > start ? lock_mappings(mm, start, covered, flags) : 0;

	return error ? error : covered < end ? -ENOMEM : 0;
}

/* ---- fetching ---- */

/* The next mapping in [*start, end) that is locked and wants its pages now, and how they are fetched. */
static bool next_to_fetch(struct ucow_mm *mm, uint64_t *start, uint64_t end, uint64_t *stop, unsigned *flags)
{
	struct vma *vma;
	bool found;

	rwlock_read_lock(&mm->mmap_lock);
	vma = vma_find(&mm->vmas, *start);
	while (vma && vma->start < end && (vma->flags & VMA_LOCK_FLAGS) != VMA_LOCKED)
		vma = vma_next(vma);
	found = vma && vma->start < end;
	if (found) {
		*start = max_u64(*start, vma->start);
		*stop = min_u64(end, vma->end);
		*flags = vma->flags;
	}
	rwlock_read_unlock(&mm->mmap_lock);
	return found;
}

/* Private memory that may be written is written to, so that no store has to copy later. */
static int fetch_mapping(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned flags)
{
	if (!(flags & (VMA_READ | VMA_WRITE)))
		return -ENOMEM;
	return populate(mm, start, end, (flags & VMA_WRITE) && (!(flags & VMA_SHARED) || !(flags & VMA_READ)));
}

int fetch_locked(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	uint64_t stop;
	unsigned flags;
	int error = 0;

	while (!error && start < end && next_to_fetch(mm, &start, end, &stop, &flags)) {
		error = fetch_mapping(mm, start, stop, flags);
		/* Memory that there is not; a mapping without permissions is told apart from that. */
		if (error && (flags & (VMA_READ | VMA_WRITE)))
			error = error == -EFAULT ? -ENOMEM : -EAGAIN;
		start = stop;
	}
	return error;
}

/* ---- the calls ---- */

static int lock_within_limit(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned flags)
{
	uint64_t npages = ((end - start) >> UCOW_PAGE_SHIFT) - locked_in(&mm->vmas, start, end);

	return may_lock(mm, npages) ? lock_covered(mm, start, end, flags) : -ENOMEM;
}

static int change_locks(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned flags,
			int (*change)(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned flags))
{
	int error;

	rwlock_write_lock(&mm->mmap_lock);
	error = change(mm, start, end, flags);
	rwlock_write_unlock(&mm->mmap_lock);
	return error;
}

/* Returns: 0 and the range, which may be empty; -EINVAL; -ENOMEM. */
static int range_of(uint64_t va, uint64_t length, uint64_t *start, uint64_t *end)
{
	*start = *end = va & UCOW_PAGE_MASK;
	if (length > UCOW_ADDRESS_LIMIT || va > UCOW_ADDRESS_LIMIT)
		return -EINVAL;
	if (length)
		*end = page_round_up(va + length);
	if (*end > *start && !mm_range_is_valid(*start, *end - *start))
		return -ENOMEM;
	return 0;
}

int ucow_mlock(struct ucow_mm *mm, uint64_t va, uint64_t length, unsigned flags)
{
	uint64_t start, end;
	int error = range_of(va, length, &start, &end);

	if (flags & ~UCOW_MLOCK_ONFAULT)
		return -EINVAL;
	if (mm->read_only)
		return -EACCES;
	if (!atomic_load(&mm->lock_limit))
		return -EPERM;
	if (error || start == end)
		return error;
	error = change_locks(mm, start, end, VMA_LOCKED | (flags & UCOW_MLOCK_ONFAULT ? VMA_LOCKONFAULT : 0u),
			     lock_within_limit);
	return error ? error : fetch_locked(mm, start, end);
}

int ucow_munlock(struct ucow_mm *mm, uint64_t va, uint64_t length)
{
	uint64_t start, end;
	int error = range_of(va, length, &start, &end);

	if (mm->read_only)
		return -EACCES;
	if (error || start == end)
		return error;
	return change_locks(mm, start, end, 0, lock_covered);
}

/* Every mapping, and what is to come. */
static int lock_all(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned flags)
{
	unsigned now = flags & UCOW_MCL_ONFAULT ? VMA_LOCKED | VMA_LOCKONFAULT : VMA_LOCKED;
	int error = 0;

	if ((flags & UCOW_MCL_CURRENT) && mm->vmas.npages > atomic_load(&mm->lock_limit))
		return -ENOMEM;
	if (flags & UCOW_MCL_CURRENT)
		error = lock_mappings(mm, start, end, now);
	if (!error)
		mm->lock_future = flags & UCOW_MCL_FUTURE ? now : 0;
	return error;
}

int ucow_mlockall(struct ucow_mm *mm, unsigned flags)
{
	int error;

	if ((flags & ~(UCOW_MCL_CURRENT | UCOW_MCL_FUTURE | UCOW_MCL_ONFAULT)) ||
	    !(flags & (UCOW_MCL_CURRENT | UCOW_MCL_FUTURE)))
		return -EINVAL;
	if (mm->read_only)
		return -EACCES;
	if (!atomic_load(&mm->lock_limit))
		return -EPERM;
	error = change_locks(mm, 0, UCOW_ADDRESS_LIMIT, flags, lock_all);
	if (!error && (flags & UCOW_MCL_CURRENT))
		(void)fetch_locked(mm, 0, UCOW_ADDRESS_LIMIT); /* what cannot be fetched is locked when it comes */
	return error;
}

static int unlock_all(struct ucow_mm *mm, uint64_t start, uint64_t end, unsigned flags)
{
	int error = lock_mappings(mm, start, end, flags);

	if (!error)
		mm->lock_future = 0;
	return error;
}

int ucow_munlockall(struct ucow_mm *mm)
{
	if (mm->read_only)
		return -EACCES;
	return change_locks(mm, 0, UCOW_ADDRESS_LIMIT, 0, unlock_all);
}
