/* SPDX-License-Identifier: MIT */
/* Faults by the state of the entry: empty, armed for NUMA hinting, present. Write-protect faults are in cow.c. */
#include "fault/fault_internal.h"

#include "base/mutate.h"
#include "cache/cache.h"
#include "swap/swap.h"

#include <errno.h>

int fault_errno(enum fault_result result)
{
	switch (result) {
	case FAULT_DONE:
	case FAULT_ZERO_PAGE:
	case FAULT_RETRY:
	case FAULT_LOCK_PAGE:
	case FAULT_SWAP_IN:
	case FAULT_FILE_IN:
		return 0;
	case FAULT_SIGSEGV:
		return -EFAULT;
	case FAULT_READ_ONLY:
		return -EACCES;
	case FAULT_SIGBUS:
		return -ENXIO;
	case FAULT_OOM:
	case FAULT_OVER_LIMIT:
		return -ENOMEM;
	case FAULT_USERFAULT: /* the caller waits first */
		return -EAGAIN;
	case FAULT_BLOCKED:
		break;
	}
	return -EDEADLK;
}

/* What stands in the way of writing at once, the permissions of the mapping aside: somebody wants to see it first. */
static bool write_is_awaited(const struct vma *vma, struct pte pte)
{
	return pte_is_uffd_wp(pte) || needs_soft_dirty(vma, pte);
}

struct pte entry_permit(const struct vma *vma, struct pte pte, bool write)
{
	if (unlikely(vma->flags & VMA_LOCKED))
		pte = pte_mk_locked(pte);
	if (!vma_is_accessible(vma))
		return pte_mk_protnone(pte);
	if (write && ((vma->flags & VMA_WRITE) || MUTATED(FORCE_MAKES_WRITABLE)) && likely(!write_is_awaited(vma, pte)))
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
		.soft_dirty_needed = needs_soft_dirty(vma, pte) && !MUTATED(UPGRADE_TRACKED),
		.anon = pte_kind(pte) == PTE_KIND_ANON,
		.dirty = pte_is_dirty(pte),
	};

	if (facts.anon)
		facts.exclusive = page_is(pte_page(&mm->machine->frames, pte), PAGE_EXCLUSIVE);
	return mm->machine->policy->may_upgrade(&facts);
}

void anon_page_init(const struct ucow_mm *mm, struct vma *vma, const struct table *leaf, uint64_t va,
		    struct ucow_page *page)
{
	uint32_t flags = PAGE_ANON;

	if (mm->machine->policy->uses_exclusive)
		flags |= PAGE_EXCLUSIVE;
	page->index = vma_page_index(vma, va);
	leaf_bear(leaf, va, page);
	page_init_mapped(page, flags);
	lru_add(page);
	if (!atomic_load_explicit(&vma->has_anon, memory_order_relaxed))
		atomic_store_explicit(&vma->has_anon, true, memory_order_relaxed);
}

void fault_unlock_page(struct fault *fault, struct ucow_page *page)
{
	if (unlikely(page_is(page, PAGE_SWAPCACHE)))
		swap_unlock(machine_swap(fault->mm->machine), page);
	else
		page_unlock(page);
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

/*
 * An empty entry may be cached as reading zeros. The cpu that faults replaces its own translation; others must be told.
 */
static void forget_zeros(struct fault *fault)
{
	struct ucow_mm *mm = fault->mm;

	if (MUTATED(KEEP_CACHED_ZEROS))
		return;
	if (!(fault->flags & FAULT_ACCESS) || atomic_load_explicit(&mm->attached, memory_order_relaxed) > 1)
		tlb_invalidate(&mm->pt.generations, fault->va, fault->va + UCOW_PAGE_SIZE);
}

/* ---- userfaultfd ---- */

/* Its userfaultfd has to resolve this: after the section, with the mmap lock held. */
enum fault_result fault_ask_user(struct fault *fault, unsigned reason)
{
	fault->user = reason | (fault->flags & FAULT_WRITE ? UCOW_UFFD_FAULT_WRITE : 0u);
	return FAULT_USERFAULT;
}

/* Whether the entry is as the fault saw it; nobody who has changed it since may have missed who waits [ORD-UFFD-1]. */
static bool is_unresolved(const struct fault *fault)
{
	struct epoch *epoch = &fault->mm->machine->epoch;
	struct walk walk;
	struct pte pte;

	if (MUTATED(UFFD_WAIT_WITHOUT_RECHECK))
		return true;
	epoch_enter(epoch);
	walk = table_walk_now(&fault->mm->pt, fault->va);
	pte = walk.leaf ? leaf_peek(walk.leaf, fault->va) : pte_none();
	epoch_leave(epoch);
	return pte_is_same(pte, fault->pte);
}

static void count_user(struct fault *fault)
{
	if (fault->user & UCOW_UFFD_FAULT_WP)
		fault_count(fault, UCOW_COUNTER_WP_EVENT);
	else
		fault_count(fault, fault->user & UCOW_UFFD_FAULT_MINOR ? UCOW_COUNTER_MINOR_EVENT
								       : UCOW_COUNTER_MISSING_EVENT);
}

/* Returns: FAULT_USERFAULT; FAULT_SIGBUS: it wants no reports, or who faults cannot wait; FAULT_RETRY. */
static enum fault_result userfault(struct fault *fault)
{
	struct ucow_uffd *uffd = fault->vma->uffd;

	count_user(fault);
	if (!fault->wait || uffd_has(uffd, UCOW_UFFD_FEATURE_SIGBUS))
		return FAULT_SIGBUS;
	if (!uffd_ask(fault->wait, uffd, fault->va, fault->user) || is_unresolved(fault))
		return FAULT_USERFAULT;
	uffd_cancel(fault->wait);
	return FAULT_RETRY;
}

/*
 * A store to a protected page: reported, or, in async mode, what lifts the protection. A bit that nobody asked for any
 * more is lifted too. Returns: FAULT_DONE: fault->pte is not protected any more, go on.
 */
static enum fault_result fault_uffd_wp(struct fault *fault)
{
	const struct vma *vma = fault->vma;

	if ((vma->flags & VMA_UFFD_WP) && !uffd_has(vma->uffd, UCOW_UFFD_FEATURE_WP_ASYNC))
		return fault_ask_user(fault, UCOW_UFFD_FAULT_WP);
	if (!fault_relock(fault))
		return FAULT_RETRY;
	fault->pte = pte_clear_uffd_wp(fault->pte);
	leaf_set(fault->leaf, fault->va, fault->pte);
	table_unlock(fault->leaf);
	return FAULT_DONE;
}

/* First store to private memory: a fresh zeroed page, exclusive, dirty. */
static enum fault_result fault_zero_fill(struct fault *fault)
{
	struct ucow_page *page = mm_alloc_page(fault->mm, FRAME_ZEROED);
	struct pte pte;

	if (!page)
		return FAULT_OOM;
	if (!fault_relock(fault)) {
		page_put(page);
		return FAULT_RETRY;
	}
	anon_page_init(fault->mm, fault->vma, fault->leaf, fault->va, page);
	pte = pte_inherit(pte_mkdirty(pte_make_anon(page)), fault->pte); /* a marker's protection (B.2) */
	leaf_set(fault->leaf, fault->va, entry_permit(fault->vma, pte, true));
	table_unlock(fault->leaf);
	forget_zeros(fault);
	if (unlikely(fault->mm->read_only && fault->mm->group)) /* policies that write before they look */
		group_charge(fault->mm->group, &fault->mm->snapshot, 1);
	fault_count(fault, UCOW_COUNTER_ZERO_FILL);
	return FAULT_DONE;
}

/* First load of private memory: the shared zero page, special, never writable, never dirty. */
static enum fault_result fault_zero_page(struct fault *fault)
{
	struct pte pte = pte_inherit(pte_make_zero(&fault->mm->machine->frames), fault->pte);

	if (!fault_relock(fault))
		return FAULT_RETRY;
	leaf_set(fault->leaf, fault->va, entry_permit(fault->vma, pte, false));
	table_unlock(fault->leaf);
	fault_count(fault, UCOW_COUNTER_ZERO_PAGE);
	return FAULT_DONE;
}

static enum fault_result fault_empty(struct fault *fault)
{
	if (fault->vma->flags & VMA_PFNMAP)
		return FAULT_SIGBUS;
	if (!vma_is_cow(fault->vma))
		return fault_map_cached(fault);
	if (unlikely(fault->vma->object))
		return fault->flags & FAULT_WRITE ? fault_copy_cached(fault) : fault_map_cached(fault);
	if (unlikely(fault->vma->flags & VMA_UFFD_MISSING))
		return fault_ask_user(fault, 0);
	/* An unshare fault reads: GUP looks again and decides again (B.2). */
	return fault->flags & FAULT_WRITE ? fault_zero_fill(fault) : fault_zero_page(fault);
}

/* Poison, or a page that was protected before it came: as if there were nothing, but the bit is carried (B.2). */
static enum fault_result fault_marker(struct fault *fault)
{
	if (pte_is_poison(fault->pte))
		return FAULT_SIGBUS;
	return fault_empty(fault);
}

/* ---- present entries ---- */

/* NUMA hinting: give the access back, and the write permission where no fault would be needed for it (B.6). */
static enum fault_result fault_numa(struct fault *fault)
{
	struct pte pte;

	if (!fault_relock(fault))
		return FAULT_RETRY;
	pte = pte_mkyoung(pte_clear_protnone(fault->pte));
	if ((!vma_is_cow(fault->vma) && !vma_is_tracked(fault->vma) && !pte_is_uffd_wp(pte)) ||
	    entry_may_upgrade(fault->mm, fault->vma, pte))
		pte = entry_permit(fault->vma, pte, true);
	leaf_set(fault->leaf, fault->va, pte);
	table_unlock(fault->leaf);
	fault_count(fault, UCOW_COUNTER_FAULT_NUMA);
	if ((fault->flags & (FAULT_WRITE | FAULT_UNSHARE)) && !pte_is_writable(pte))
		return FAULT_RETRY; /* continues as a write-protect fault */
	return FAULT_DONE;
}

/* A write to a page of a shared mapping whose entry lost its permission, or waits for the first store: never copies. */
static enum fault_result fault_shared_wp(struct fault *fault)
{
	if (!fault_relock(fault))
		return FAULT_RETRY;
	if (unlikely(fault->vma->file) && pte_has_page(fault->pte))
		fault_dirty_cached(fault, pte_page(&fault->mm->machine->frames, fault->pte));
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
	if (unlikely(!pte_is_present(fault->pte)))
		return pte_is_swap(fault->pte) ? fault_swap(fault) : fault_marker(fault);
	if (pte_is_protnone(fault->pte) && vma_is_accessible(fault->vma))
		return fault_numa(fault);
	if (!wants_more)
		return fault_touch(fault);
	/* An unshare is no write, and reports nothing (B.3). */
	if (unlikely(pte_is_uffd_wp(fault->pte)) && ((fault->flags & FAULT_WRITE) || MUTATED(UFFD_UNSHARE_NOTIFIES))) {
		enum fault_result result = fault_uffd_wp(fault);

		if (result != FAULT_DONE)
			return result;
	}
	return vma_is_cow(fault->vma) ? fault_write_protect(fault) : fault_shared_wp(fault);
}

static void count_result(struct fault *fault, enum fault_result result)
{
	switch (result) {
	case FAULT_DONE:
	case FAULT_ZERO_PAGE:
		fault_count(fault, UCOW_COUNTER_FAULTS);
		fault_count(fault, fault->flags & FAULT_WRITE ? UCOW_COUNTER_FAULT_WRITE : UCOW_COUNTER_FAULT_READ);
		break;
	case FAULT_SIGSEGV:
	case FAULT_READ_ONLY:
		fault_count(fault, UCOW_COUNTER_FAULT_SIGSEGV);
		break;
	case FAULT_SIGBUS:
		fault_count(fault, UCOW_COUNTER_FAULT_SIGBUS);
		break;
	case FAULT_OOM:
		fault_count(fault, UCOW_COUNTER_FAULT_NOMEM);
		break;
	case FAULT_BLOCKED:
	case FAULT_OVER_LIMIT:
	case FAULT_USERFAULT:
	case FAULT_RETRY:
	case FAULT_LOCK_PAGE:
	case FAULT_SWAP_IN:
	case FAULT_FILE_IN:
		break;
	}
}

/*
 * Reading where nothing was ever written, below a table that others share or in a snapshot, installs nothing: reading a
 * snapshot never allocates [rule 5].
 */
static bool reads_shared_emptiness(const struct fault *fault, const struct walk *walk)
{
	if (!(fault->flags & FAULT_ACCESS) || (fault->flags & FAULT_WRITE))
		return false;
	if (walk->is_private && !fault->mm->read_only)
		return false;
	if (fault->vma->object || (fault->vma->flags & (VMA_PFNMAP | VMA_UFFD_MISSING)))
		return false;
	return !walk->leaf || pte_is_none(leaf_get(walk->leaf, fault->va));
}

/* A load changes no entry but for its accessed bit, or by bringing its page back: all sharers may see that [rule 6]. */
static bool needs_own_leaf(const struct fault *fault, const struct walk *walk)
{
	struct pte pte;

	if (!walk->leaf)
		return true;
	if (walk->is_private)
		return false;
	if (fault->flags & (FAULT_WRITE | FAULT_UNSHARE))
		return true;
	pte = leaf_get(walk->leaf, fault->va);
	if (pte_is_swap(pte))
		return false;
	return !pte_is_present(pte) || pte_is_protnone(pte);
}

static enum fault_result handle_once(struct fault *fault, const struct walk *walk)
{
	if (reads_shared_emptiness(fault, walk))
		return FAULT_ZERO_PAGE;
	fault->leaf = walk->leaf;
	fault->is_private = walk->is_private;
	if (needs_own_leaf(fault, walk)) {
		if (table_own_leaf(&fault->mm->pt, fault->va, &fault->leaf))
			return FAULT_OOM;
		fault->is_private = true;
	}
	fault->pte = leaf_get(fault->leaf, fault->va);
	return dispatch(fault);
}

/* A private path stays so, and what is on it stays in its place, while the mmap lock is held. */
static enum fault_result handle_in_section(struct fault *fault, const struct walk_hint *hint)
{
	const struct page_table *pt = &fault->mm->pt;
	struct walk walk;

	fault->shape = shape_read(pt);
	if (hint && hint->shape == fault->shape)
		walk = hint->walk;
	else
		walk = table_walk_now(pt, fault->va);
	return handle_once(fault, &walk);
}

/* Policies that wait for the page lock do so outside of any section. Returns: FAULT_RETRY; FAULT_BLOCKED. */
static enum fault_result wait_for_page(struct fault *fault)
{
	struct ucow_machine *machine = fault->mm->machine;

	if (!fault->for_bytes && machine->on_page_lock_wait &&
	    !machine->on_page_lock_wait(machine->callback_arg, fault->to_lock)) {
		page_put(fault->to_lock);
		return FAULT_BLOCKED;
	}
	fault->for_bytes = false;
	fault_release_waited(fault); /* never wait for one while holding another */
	pressure_ops.lock_page(machine, fault->to_lock);
	fault->waited_for = fault->to_lock;
	return FAULT_RETRY;
}

static enum fault_result handle(struct ucow_mm *mm, struct vma *vma, uint64_t va, unsigned flags,
				const struct walk_hint *hint, struct uffd_wait *wait)
{
	struct fault fault = {.mm = mm, .vma = vma, .va = va & UCOW_PAGE_MASK, .flags = flags, .wait = wait};
	enum fault_result result;

	UCOW_BUG_ON((flags & FAULT_WRITE) && (flags & FAULT_UNSHARE));
	if (!vma_is_cow(vma))
		fault.flags &= ~(unsigned)FAULT_UNSHARE;
	if ((flags & FAULT_WRITE) && !(vma->flags & VMA_WRITE) && !vma_is_cow(vma)) {
		count_result(&fault, FAULT_SIGSEGV);
		return FAULT_SIGSEGV;
	}
	do {
		epoch_enter(&mm->machine->epoch);
		result = handle_in_section(&fault, hint);
		epoch_leave(&mm->machine->epoch);
		hint = NULL;
		if (unlikely(result == FAULT_LOCK_PAGE))
			result = wait_for_page(&fault);
		else if (unlikely(result == FAULT_SWAP_IN))
			result = fault_bring(&fault);
		else if (unlikely(result == FAULT_FILE_IN))
			result = fault_fetch(&fault);
		else if (unlikely(result == FAULT_USERFAULT))
			result = userfault(&fault);
	} while (result == FAULT_RETRY);
	fault_release_waited(&fault);
	fault_release_brought(&fault);
	count_result(&fault, result);
	return result;
}

enum fault_result fault_handle(struct ucow_mm *mm, struct vma *vma, uint64_t va, unsigned flags, struct uffd_wait *wait)
{
	return handle(mm, vma, va, flags, NULL, wait);
}

enum fault_result fault_access(struct ucow_mm *mm, uint64_t va, bool write, const struct walk_hint *hint,
			       struct uffd_wait *wait)
{
	struct vma *vma = vma_at(&mm->vmas, va);

	if (write && unlikely(mm->read_only)) {
		count(&mm->machine->counters, UCOW_COUNTER_FAULT_SIGSEGV);
		return FAULT_READ_ONLY;
	}
	if (!vma || !(write ? vma->flags & VMA_WRITE : vma_is_accessible(vma))) {
		count(&mm->machine->counters, UCOW_COUNTER_FAULT_SIGSEGV);
		return FAULT_SIGSEGV;
	}
	return handle(mm, vma, va, FAULT_ACCESS | (write ? FAULT_WRITE : FAULT_READ), hint, wait);
}
