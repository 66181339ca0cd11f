/* SPDX-License-Identifier: MIT */
/* Faults by the state of the entry: empty, armed for NUMA hinting, present. Write-protect faults are in cow.c. */
#include "fault/fault_internal.h"

#include "base/mutate.h"
#include "cache/shm.h"

#include <errno.h>

int fault_errno(enum fault_result result)
{
	switch (result) {
	case FAULT_DONE:
	case FAULT_RETRY:
		return 0;
	case FAULT_SIGSEGV:
		return -EFAULT;
	case FAULT_SIGBUS:
		return -ENXIO;
	case FAULT_OOM:
		return -ENOMEM;
	case FAULT_BLOCKED:
		break;
	}
	return -EDEADLK;
}

struct pte entry_permit(const struct vma *vma, struct pte pte, bool write)
{
	if (!vma_is_accessible(vma))
		return pte_mk_protnone(pte);
	if (write && ((vma->flags & VMA_WRITE) || MUTATED(FORCE_MAKES_WRITABLE)))
		pte = pte_mkwrite(pte);
	return pte;
}

bool entry_may_upgrade(const struct ucow_mm *mm, const struct vma *vma, struct pte pte)
{
	struct upgrade_facts facts = {
		.vma_writable = vma->flags & VMA_WRITE,
		.shared_mapping = !vma_is_cow(vma),
		.protnone = pte_is_protnone(pte),
		.uffd_wp = pte_is_uffd_wp(pte),
		.anon = pte_kind(pte) == PTE_KIND_ANON,
		.dirty = pte_is_dirty(pte),
	};

	if (facts.anon)
		facts.exclusive = page_is(pte_page(&mm->machine->frames, pte), PAGE_EXCLUSIVE);
	return mm->machine->policy->may_upgrade(&facts);
}

void anon_page_init(const struct ucow_mm *mm, struct vma *vma, uint64_t va, struct ucow_page *page)
{
	uint32_t flags = PAGE_ANON;

	if (mm->machine->policy->uses_exclusive)
		flags |= PAGE_EXCLUSIVE;
	page->index = vma_page_index(vma, va);
	page_init_mapped(page, flags);
	if (!atomic_load_explicit(&vma->has_anon, memory_order_relaxed))
		atomic_store_explicit(&vma->has_anon, true, memory_order_relaxed);
}

void page_drop_mapping(struct ucow_page *page)
{
	page_unmap(page);
	page_put(page);
}

/* ---- empty entries ---- */

/* Lock the leaf and see whether the entry is still what the fault saw. Returns: false, unlocked, if not. */
bool fault_relock(struct fault *fault)
{
	table_lock(fault->leaf);
	if (pte_is_same(leaf_get(fault->leaf, fault->va), fault->pte))
		return true;
	table_unlock(fault->leaf);
	return false;
}

/* First store to private memory: a fresh zeroed page, exclusive, dirty. */
static enum fault_result fault_zero_fill(struct fault *fault)
{
	struct ucow_page *page = frame_alloc(&fault->mm->machine->frames, FRAME_ZEROED);

	if (!page)
		return FAULT_OOM;
	if (!fault_relock(fault)) {
		page_put(page);
		return FAULT_RETRY;
	}
	anon_page_init(fault->mm, fault->vma, fault->va, page);
	leaf_set(fault->leaf, fault->va, entry_permit(fault->vma, pte_mkdirty(pte_make_anon(page)), true));
	table_unlock(fault->leaf);
	fault_count(fault, UCOW_COUNTER_ZERO_FILL);
	return FAULT_DONE;
}

/* First load of private memory: the shared zero page, special, never writable, never dirty. */
static enum fault_result fault_zero_page(struct fault *fault)
{
	if (!fault_relock(fault))
		return FAULT_RETRY;
	leaf_set(fault->leaf, fault->va, entry_permit(fault->vma, pte_make_zero(&fault->mm->machine->frames), false));
	table_unlock(fault->leaf);
	fault_count(fault, UCOW_COUNTER_ZERO_PAGE);
	return FAULT_DONE;
}

/* Shared memory without dirty tracking is mapped as the mapping permits, whatever the access (B.8). */
static enum fault_result fault_shared(struct fault *fault)
{
	struct ucow_page *page;
	struct pte pte;
	int error = shm_page(fault->vma->object, vma_page_index(fault->vma, fault->va), &page);

	if (error)
		return error == -ENXIO ? FAULT_SIGBUS : FAULT_OOM;
	if (!fault_relock(fault)) {
		page_put(page);
		return FAULT_RETRY;
	}
	page_map(page);
	pte = pte_make_shared(page);
	if (fault->flags & FAULT_WRITE)
		pte = pte_mkdirty(pte);
	leaf_set(fault->leaf, fault->va, entry_permit(fault->vma, pte, true));
	table_unlock(fault->leaf);
	return FAULT_DONE;
}

static enum fault_result fault_empty(struct fault *fault)
{
	if (fault->vma->flags & VMA_PFNMAP)
		return FAULT_SIGBUS;
	if (!vma_is_cow(fault->vma))
		return fault_shared(fault);
	/* An unshare fault reads: GUP looks again and decides again (B.2). */
	return fault->flags & FAULT_WRITE ? fault_zero_fill(fault) : fault_zero_page(fault);
}

/* ---- present entries ---- */

/* NUMA hinting: give the access back, and the write permission where no fault would be needed for it (B.6). */
static enum fault_result fault_numa(struct fault *fault)
{
	struct pte pte;

	if (!fault_relock(fault))
		return FAULT_RETRY;
	pte = pte_mkyoung(pte_clear_protnone(fault->pte));
	if (!vma_is_cow(fault->vma) || entry_may_upgrade(fault->mm, fault->vma, pte))
		pte = entry_permit(fault->vma, pte, true);
	leaf_set(fault->leaf, fault->va, pte);
	table_unlock(fault->leaf);
	fault_count(fault, UCOW_COUNTER_FAULT_NUMA);
	if ((fault->flags & (FAULT_WRITE | FAULT_UNSHARE)) && !pte_is_writable(pte))
		return FAULT_RETRY; /* continues as a write-protect fault */
	return FAULT_DONE;
}

/* A write to a page of a shared mapping whose entry lost its permission: never copies. */
static enum fault_result fault_shared_wp(struct fault *fault)
{
	if (!fault_relock(fault))
		return FAULT_RETRY;
	leaf_set(fault->leaf, fault->va, entry_permit(fault->vma, pte_mkyoung(pte_mkdirty(fault->pte)), true));
	table_unlock(fault->leaf);
	fault_count(fault, UCOW_COUNTER_FAULT_WP);
	fault_count(fault, UCOW_COUNTER_REUSE_SHARED);
	return FAULT_DONE;
}

/* Nothing stands in the way: note the access (B.2, 6). */
static enum fault_result fault_touch(struct fault *fault)
{
	struct pte pte = pte_mkyoung(fault->pte);

	if (!fault_relock(fault))
		return FAULT_RETRY;
	if ((fault->flags & FAULT_WRITE) && pte_is_writable(pte))
		pte = pte_mkdirty(pte);
	leaf_set(fault->leaf, fault->va, pte);
	table_unlock(fault->leaf);
	return FAULT_DONE;
}

static enum fault_result dispatch(struct fault *fault)
{
	bool wants_more = (fault->flags & (FAULT_WRITE | FAULT_UNSHARE)) && !pte_is_writable(fault->pte);

	if (pte_is_none(fault->pte))
		return fault_empty(fault);
	if (pte_is_protnone(fault->pte) && vma_is_accessible(fault->vma))
		return fault_numa(fault);
	if (!wants_more)
		return fault_touch(fault);
	return vma_is_cow(fault->vma) ? fault_write_protect(fault) : fault_shared_wp(fault);
}

static void count_result(struct fault *fault, enum fault_result result)
{
	switch (result) {
	case FAULT_DONE:
		fault_count(fault, UCOW_COUNTER_FAULTS);
		fault_count(fault, fault->flags & FAULT_WRITE ? UCOW_COUNTER_FAULT_WRITE : UCOW_COUNTER_FAULT_READ);
		break;
	case FAULT_SIGSEGV:
		fault_count(fault, UCOW_COUNTER_FAULT_SIGSEGV);
		break;
	case FAULT_SIGBUS:
		fault_count(fault, UCOW_COUNTER_FAULT_SIGBUS);
		break;
	case FAULT_OOM:
		fault_count(fault, UCOW_COUNTER_FAULT_NOMEM);
		break;
	case FAULT_BLOCKED:
	case FAULT_RETRY:
		break;
	}
}

static enum fault_result handle(struct ucow_mm *mm, struct vma *vma, uint64_t va, unsigned flags, struct table **leaf)
{
	struct fault fault = {.mm = mm, .vma = vma, .va = va & UCOW_PAGE_MASK, .flags = flags, .leaf = *leaf};
	enum fault_result result;

	UCOW_BUG_ON((flags & FAULT_WRITE) && (flags & FAULT_UNSHARE));
	if (!vma_is_cow(vma))
		fault.flags &= ~(unsigned)FAULT_UNSHARE;
	if ((flags & FAULT_WRITE) && !(vma->flags & VMA_WRITE) && !vma_is_cow(vma)) {
		count_result(&fault, FAULT_SIGSEGV);
		return FAULT_SIGSEGV;
	}
	do {
		if (!fault.leaf && table_make_leaf(&mm->machine->tables, mm->root, fault.va, &fault.leaf)) {
			result = FAULT_OOM;
			break;
		}
		fault.pte = leaf_get(fault.leaf, fault.va);
		result = dispatch(&fault);
	} while (result == FAULT_RETRY);
	fault_release_waited(&fault);
	count_result(&fault, result);
	*leaf = fault.leaf;
	return result;
}

enum fault_result fault_handle(struct ucow_mm *mm, struct vma *vma, uint64_t va, unsigned flags)
{
	struct table *leaf = NULL;

	return handle(mm, vma, va, flags, &leaf);
}

enum fault_result fault_access(struct ucow_mm *mm, uint64_t va, bool write, struct table **leaf)
{
	struct vma *vma = vma_at(&mm->vmas, va);

	if (!vma || !(write ? vma->flags & VMA_WRITE : vma_is_accessible(vma))) {
		count(&mm->machine->counters, UCOW_COUNTER_FAULT_SIGSEGV);
		return FAULT_SIGSEGV;
	}
	return handle(mm, vma, va, write ? FAULT_WRITE : FAULT_READ, leaf);
}
