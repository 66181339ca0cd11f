/* SPDX-License-Identifier: MIT */
/* mmap: where a mapping goes and what is behind it; insert_pfn; populating. */
#include "ops/ops.h"

#include "cache/cache.h"
#include "fault/fault.h"

#include <ucow/file.h>

#include <errno.h>

#define MAP_FLAGS                                                                                             \
	(UCOW_MAP_SHARED | UCOW_MAP_PRIVATE | UCOW_MAP_FIXED | UCOW_MAP_FIXED_NOREPLACE | UCOW_MAP_POPULATE | \
	 UCOW_MAP_PFN)
#define HUGE_ALIGNMENT ((uint64_t)2 << 20)

static bool flags_are_valid(unsigned prot, unsigned flags)
{
	unsigned sharing = flags & (UCOW_MAP_SHARED | UCOW_MAP_PRIVATE);

	return !(prot & ~(UCOW_PROT_READ | UCOW_PROT_WRITE)) && !(flags & ~MAP_FLAGS) &&
	       (sharing == UCOW_MAP_SHARED || sharing == UCOW_MAP_PRIVATE);
}

static unsigned vma_flags_of(unsigned prot, unsigned flags)
{
	bool promised = (prot & UCOW_PROT_WRITE) && !(flags & (UCOW_MAP_SHARED | UCOW_MAP_PFN));

	return VMA_SOFTDIRTY | (promised ? VMA_ACCOUNT : 0u) | (prot & UCOW_PROT_READ ? VMA_READ : 0u) |
	       (prot & UCOW_PROT_WRITE ? VMA_WRITE : 0u) | (flags & UCOW_MAP_SHARED ? VMA_SHARED : 0u) |
	       (flags & UCOW_MAP_PFN ? VMA_PFNMAP : 0u);
}

/* The address: as asked, the wish if it is free, or the first room. Big mappings start where a huge page could. */
static int choose_address(struct ucow_mm *mm, uint64_t hint, uint64_t length, unsigned flags, uint64_t *va)
{
	uint64_t align = length >= HUGE_ALIGNMENT ? HUGE_ALIGNMENT : UCOW_PAGE_SIZE;

	if (flags & (UCOW_MAP_FIXED | UCOW_MAP_FIXED_NOREPLACE)) {
		if (!mm_range_is_valid(hint, length))
			return hint & ~UCOW_PAGE_MASK ? -EINVAL : -ENOMEM;
		if ((flags & UCOW_MAP_FIXED_NOREPLACE) && !vma_range_is_free(&mm->vmas, hint, hint + length))
			return -EEXIST;
		*va = hint;
		return 0;
	}
	hint &= UCOW_PAGE_MASK;
	if (mm_range_is_valid(hint, length) && vma_range_is_free(&mm->vmas, hint, hint + length)) {
		*va = hint;
		return 0;
	}
	return vma_find_room(&mm->vmas, length, align, va) ? vma_find_room(&mm->vmas, length, UCOW_PAGE_SIZE, va) : 0;
}

/* Two mappings of memory that is not pages never merge, the halves of one do: each has page numbers of its own. */
static uint64_t pfn_mapping_offset(struct ucow_machine *machine)
{
	uint64_t number = atomic_fetch_add_explicit(&machine->next_pfn_mapping, 1, memory_order_relaxed);

	return number << (UCOW_ADDRESS_BITS - UCOW_PAGE_SHIFT);
}

/* What is behind the mapping: the file, memory of its own if it is shared, or nothing. Returns: 0; -ENOMEM. */
static int back_mapping(struct ucow_mm *mm, struct vma *vma, const struct map_request *request)
{
	if (request->file) {
		vma->pgoff = request->offset >> UCOW_PAGE_SHIFT;
		vma->file = request->file;
		vma->object = request->file->cache;
		file_get(vma->file);
		cache_get(vma->object);
		return cache_attach(mm, vma);
	}
	if (!(vma->flags & VMA_SHARED) || (vma->flags & VMA_PFNMAP))
		return 0;
	vma->pgoff = 0;
	vma->object = cache_create(mm->machine, request->length, NULL);
	return vma->object ? 0 : -ENOMEM;
}

/* A node for the mapping and what is behind it. */
static struct vma *make_mapping(struct ucow_mm *mm, uint64_t va, const struct map_request *request)
{
	struct vma *vma = vma_create(mm->machine);

	if (!vma)
		return NULL;
	vma->start = va;
	vma->end = va + request->length;
	vma->flags = vma_flags_of(request->prot, request->flags);
	if (request->file && (request->flags & UCOW_MAP_SHARED) && (request->file->flags & UCOW_FILE_READ_ONLY))
		vma->flags |= VMA_NOWRITE;
	vma->pgoff = vma->flags & VMA_PFNMAP ? pfn_mapping_offset(mm->machine) : va >> UCOW_PAGE_SHIFT;
	if (!back_mapping(mm, vma, request))
		return vma;
	vma_release(vma);
	return NULL;
}

static int map_locked(struct ucow_mm *mm, const struct map_request *request, uint64_t *va)
{
	struct vma *vma;
	uint64_t length = request->length;
	int error = choose_address(mm, request->hint, length, request->flags, va);

	if (error)
		return error;
	if (unlikely(mm->lock_future) && !may_lock(mm, request->length >> UCOW_PAGE_SHIFT))
		return -EAGAIN;
	vma = make_mapping(mm, *va, request);
	if (!vma)
		return -ENOMEM;
	error = unmap_range(mm, *va, *va + length);
	if (error) {
		vma_release(vma);
		return error;
	}
	if (!(vma->flags & VMA_PFNMAP))
		vma->flags |= mm->lock_future;
	vma_insert(&mm->vmas, vma);
	vmas_merge(mm, *va, *va + length);
	return 0;
}

/* MAP_POPULATE writes to private memory that may be written, so that no store faults later, and where it may not read
 * (B.5). */
static void populate_mapping(struct ucow_mm *mm, uint64_t va, const struct map_request *request)
{
	bool write = (request->prot & UCOW_PROT_WRITE) &&
		     (!(request->flags & UCOW_MAP_SHARED) || !(request->prot & UCOW_PROT_READ));

	(void)populate(mm, va, va + request->length, write);
}

int space_map(struct ucow_mm *mm, struct map_request *request, uint64_t *va)
{
	uint64_t chosen;
	int error;

	if (!request->length || !flags_are_valid(request->prot, request->flags))
		return -EINVAL;
	if (mm->read_only)
		return -EACCES;
	if (request->length > UCOW_ADDRESS_LIMIT)
		return -ENOMEM;
	request->length = page_round_up(request->length);
	rwlock_write_lock(&mm->mmap_lock);
	error = map_locked(mm, request, &chosen);
	space_write_unlock(mm);
	if (error)
		return error;
	if (request->flags & UCOW_MAP_POPULATE)
		populate_mapping(mm, chosen, request);
	else if (unlikely(mm->lock_future))
		(void)fetch_locked(mm, chosen, chosen + request->length);
	*va = chosen;
	return 0;
}

int ucow_mmap(struct ucow_mm *mm, uint64_t hint, uint64_t length, unsigned prot, unsigned flags, uint64_t *va)
{
	struct map_request request = {.hint = hint, .length = length, .prot = prot, .flags = flags};

	return space_map(mm, &request, va);
}

/* ---- populate ---- */

/* To populate for writing is to write (FOLL_TOUCH): what was advised free stays. */
static bool entry_permits(struct ucow_mm *mm, uint64_t va, bool write)
{
	struct epoch *epoch = &mm->machine->epoch;
	struct walk walk;
	struct pte pte;

	epoch_enter(epoch);
	walk = table_walk_path(&mm->pt, va);
	pte = walk.leaf ? leaf_get(walk.leaf, va) : pte_none();
	epoch_leave(epoch);
	return pte_is_present(pte) && (!write || (pte_is_writable(pte) && pte_is_dirty(pte) && walk.is_private));
}

/* Requires: mmap_lock shared. *at: how far it has come. *last: what the last fault said. */
static int populate_range(struct ucow_mm *mm, uint64_t *at, uint64_t end, bool write, struct uffd_wait *wait,
			  enum fault_result *last)
{
	struct vma *vma = NULL;

	for (; *at < end; *at += UCOW_PAGE_SIZE) {
		enum fault_result result = FAULT_DONE;
		uint64_t va = *at;

		if (!vma || va >= vma->end)
			vma = vma_at(&mm->vmas, va);
		if (!vma)
			return -ENOMEM;
		if ((vma->flags & VMA_PFNMAP) || !(vma->flags & (write ? VMA_WRITE : VMA_READ)))
			return -EINVAL;
		while (result == FAULT_DONE && !entry_permits(mm, va, write))
			result = fault_handle(mm, vma, va, write ? FAULT_WRITE : FAULT_READ, wait);
		*last = result;
		if (result == FAULT_SIGBUS)
			return -EFAULT;
		if (result != FAULT_DONE)
			return fault_errno(result);
	}
	return 0;
}

/* What makes room for the last pages may take the first ones away again: they were there. */
int populate(struct ucow_mm *mm, uint64_t start, uint64_t end, bool write)
{
	enum fault_result last = FAULT_DONE;
	uint64_t at = start, before;
	struct uffd_wait wait;
	unsigned tries = 0;
	int error;

	uffd_wait_init(&wait);
	do {
		rwlock_read_lock(&mm->mmap_lock);
		before = at;
		error = populate_range(mm, &at, end, write, &wait, &last);
		if (at != before)
			tries = 0;
		rwlock_read_unlock(&mm->mmap_lock);
		epoch_settle(&mm->machine->epoch);
		if (error && unlikely(last == FAULT_USERFAULT))
			error = uffd_wait(&wait) ? -EFAULT : -EAGAIN;
	} while (error && (error == -EAGAIN || (last == FAULT_OVER_LIMIT && !group_make_room(mm->group, 1)) ||
			   (error == -ENOMEM && space_relieve(mm, &tries))));
	return error;
}

/* ---- memory that is not a page ---- */

static int insert_locked(struct ucow_mm *mm, uint64_t va, void *host)
{
	struct vma *vma = vma_at(&mm->vmas, va);
	struct table *leaf;
	int error = 0;

	if (!vma || !(vma->flags & VMA_PFNMAP))
		return -EINVAL;
	if (table_own_leaf(&mm->pt, va, &leaf))
		return -ENOMEM;
	table_lock(leaf);
	if (pte_is_none(leaf_get(leaf, va)))
		/* A private mapping copies on the first store; a shared one writes through. */
		leaf_set(leaf, va, entry_permit(vma, pte_make_pfn(host), !vma_is_cow(vma)));
	else
		error = -EBUSY;
	table_unlock(leaf);
	return error;
}

int ucow_insert_pfn(struct ucow_mm *mm, uint64_t va, void *host)
{
	int error;

	if (!mm_range_is_valid(va, UCOW_PAGE_SIZE) || !host || ((uintptr_t)host & ~UCOW_PAGE_MASK))
		return -EINVAL;
	if (mm->read_only)
		return -EACCES;
	rwlock_write_lock(&mm->mmap_lock);
	error = insert_locked(mm, va, host);
	rwlock_write_unlock(&mm->mmap_lock);
	return error;
}
