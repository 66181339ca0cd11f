/* SPDX-License-Identifier: MIT */
/*
 * get_user_pages: find the page behind each address, fault where the policy asks for it, take a get or a pin. The fast
 * forms first try without locks and go on like the others where that does not work. Semantics.md B.5.
 */
#include "base/mutate.h"
#include "cache/cache.h"
#include "fault/fault.h"

#include <ucow/gup.h>

#include <errno.h>

#define FOLL_PUBLIC                                                                                    \
	(UCOW_FOLL_WRITE | UCOW_FOLL_FORCE | UCOW_FOLL_LONGTERM | UCOW_FOLL_NOFAULT | UCOW_FOLL_ANON | \
	 UCOW_FOLL_HONOR_NUMA_FAULT)
#define FOLL_FAST                                                                                                  \
	(UCOW_FOLL_WRITE | UCOW_FOLL_FORCE | UCOW_FOLL_LONGTERM | UCOW_FOLL_NOFAULT | UCOW_FOLL_HONOR_NUMA_FAULT | \
	 UCOW_FOLL_FAST_ONLY)

struct gup {
	struct ucow_mm *mm;
	struct ucow_page **pages;
	size_t npages, done;
	uint64_t start;
	unsigned flags;              /* UCOW_FOLL_* */
	struct pin_account *account; /* pins; NULL: gets */
	uint64_t budget;             /* pins: how many more the account has room for */
	struct vma *vma;             /* the mapping of the current address */
	bool faulted;                /* a write fault for the current address has completed */
	bool fast;                   /* try without locks first */
	bool over_limit;             /* the fault needs room that the space's snapshots take */
	bool waits;                  /* the fault needs a userfaultfd, as wait says */
	struct uffd_wait *wait;      /* NULL: such faults fail */
};

/* What follow says of one entry, beside the policy's actions. */
enum follow { FOLLOW_TAKEN, FOLLOW_FAULT_READ, FOLLOW_FAULT_WRITE, FOLLOW_FAULT_UNSHARE, FOLLOW_OVERFLOW };

static bool wants(const struct gup *gup, unsigned flag)
{
	return gup->flags & flag;
}

/* ---- the mapping (check_vma_flags) ---- */

static bool vma_permits(const struct gup *gup, const struct vma *vma)
{
	if (vma->flags & VMA_PFNMAP)
		return false;
	if (wants(gup, UCOW_FOLL_ANON) && (!vma_is_cow(vma) || vma->object))
		return false;
	/* A device that writes for long would write behind the back of writeback (B.8). */
	if (wants(gup, UCOW_FOLL_WRITE) && wants(gup, UCOW_FOLL_LONGTERM) && vma_is_tracked(vma) &&
	    !MUTATED(LONGTERM_FILE_WRITE))
		return false;
	if (wants(gup, UCOW_FOLL_WRITE))
		return (vma->flags & VMA_WRITE) || (wants(gup, UCOW_FOLL_FORCE) && vma_is_cow(vma));
	return (vma->flags & VMA_READ) || wants(gup, UCOW_FOLL_FORCE);
}

/* The mapping of @va into gup->vma. Returns: 0; -EFAULT. */
static int enter_vma(struct gup *gup, uint64_t va)
{
	if (gup->vma && va >= gup->vma->start && va < gup->vma->end)
		return 0;
	gup->vma = va < UCOW_ADDRESS_LIMIT ? vma_at(&gup->mm->vmas, va) : NULL;
	return gup->vma && vma_permits(gup, gup->vma) ? 0 : -EFAULT;
}

/* ---- one entry ---- */

static enum gup_action judge(const struct gup *gup, struct pte pte, const struct ucow_page *page, unsigned vma_flags)
{
	const struct gup_facts facts = {
		.write = wants(gup, UCOW_FOLL_WRITE),
		.force = wants(gup, UCOW_FOLL_FORCE),
		.pin = gup->account,
		.longterm = wants(gup, UCOW_FOLL_LONGTERM),
		.entry_writable = pte_is_writable(pte),
		.entry_dirty = pte_is_dirty(pte),
		.vma_writable = vma_flags & VMA_WRITE,
		.cow_mapping = !(vma_flags & VMA_SHARED),
		.anon = page && page_is(page, PAGE_ANON),
		.exclusive = page && page_is(page, PAGE_EXCLUSIVE),
		.faulted = gup->faulted,
		.soft_dirty_needed = !(vma_flags & VMA_SOFTDIRTY) && !pte_is_soft_dirty(pte),
	};

	return gup->mm->machine->policy->gup(&facts);
}

/* Take the reference. The zero page only pretends: it is never counted (B.5). */
static int take(struct gup *gup, struct ucow_page *page)
{
	if (page_is(page, PAGE_ZERO))
		return 0;
	if (!gup->account)
		return page_try_get(page);
	if (!gup->budget || page_pin(page, gup->account))
		return -ENOMEM;
	gup->budget--;
	return 0;
}

/* FOLL_TOUCH: the device's access is an access. */
static void touch(const struct gup *gup, struct table *leaf, uint64_t va, struct pte pte)
{
	struct pte touched = pte_mkyoung(wants(gup, UCOW_FOLL_WRITE) ? pte_mkdirty(pte) : pte);

	if (!pte_is_same(touched, pte))
		leaf_set(leaf, va, touched);
}

/* What the fast path leaves to the slow one: armed entries, special ones, and long-term pins that may have to unshare
 * (B.5). */
static bool fast_declines(const struct gup *gup, struct pte pte)
{
	if (!wants(gup, UCOW_FOLL_FAST_ONLY))
		return false;
	return pte_is_protnone(pte) || pte_is_special(pte) ||
	       (wants(gup, UCOW_FOLL_LONGTERM) && pte_kind(pte) != PTE_KIND_ANON && !pte_is_writable(pte));
}

/* ---- one entry, under its leaf's lock ---- */

/* Requires: the leaf's lock. */
static enum follow follow(struct gup *gup, struct table *leaf, uint64_t va)
{
	struct frame_pool *frames = &gup->mm->machine->frames;
	struct pte pte = leaf_get(leaf, va);
	struct ucow_page *page;

	if (!pte_is_present(pte))
		return wants(gup, UCOW_FOLL_WRITE) ? FOLLOW_FAULT_WRITE : FOLLOW_FAULT_READ;
	if (pte_is_protnone(pte) && wants(gup, UCOW_FOLL_HONOR_NUMA_FAULT) && vma_is_accessible(gup->vma))
		return FOLLOW_FAULT_READ;
	if (fast_declines(gup, pte))
		return FOLLOW_FAULT_READ;
	page = pfn_to_page(frames, pte_frame(pte));
	/* Before anybody writes its userfaultfd wants to hear of it (can_follow_write_pte). */
	if (wants(gup, UCOW_FOLL_WRITE) && pte_is_uffd_wp(pte))
		return FOLLOW_FAULT_WRITE;
	switch (judge(gup, pte, pte_has_page(pte) ? page : NULL, gup->vma->flags)) {
	case GUP_FAULT_WRITE:
		return FOLLOW_FAULT_WRITE;
	case GUP_FAULT_UNSHARE:
		return FOLLOW_FAULT_UNSHARE;
	case GUP_TAKE:
		break;
	}
	if (take(gup, page))
		return FOLLOW_OVERFLOW;
	if (wants(gup, UCOW_FOLL_WRITE) && unlikely(page_is(page, PAGE_FILE)))
		cache_set_dirty(gup->vma->object, page); /* a device asks nobody when it writes (B.8) */
	touch(gup, leaf, va, pte);
	gup->pages[gup->done++] = page;
	gup->faulted = false;
	return FOLLOW_TAKEN;
}

/* Take what can be taken below one leaf without a fault, up to the mapping's end. */
static enum follow follow_leaf(struct gup *gup, struct table *leaf, uint64_t va, uint64_t end)
{
	enum follow result = FOLLOW_TAKEN;

	table_lock(leaf);
	while (va < end && gup->done < gup->npages && result == FOLLOW_TAKEN) {
		result = follow(gup, leaf, va);
		va += UCOW_PAGE_SIZE;
	}
	table_unlock(leaf);
	return result;
}

/* ---- without locks (gup_fast) ---- */

/* What a walk saw, and what must still be so when the reference is taken. */
struct fast {
	uint32_t sequence; /* write_protect_seq, even */
	uint64_t shape;
	const struct table *leaf;
};

/*
 * Whether nothing has come between: no fork, no change of the tables, none of the entry. The reference was taken by a
 * locked operation, which orders it before these loads; fork makes its sequence odd before it looks at references
 * [ORD-SEQ-1], and whoever takes a page away changes the entry before he drops the reference [ORD-GUP-1].
 */
static bool fast_holds(const struct gup *gup, const struct fast *fast, uint64_t va, struct pte pte)
{
	const struct ucow_mm *mm = gup->mm;

	if (mm->machine->policy->protects_sequence && atomic_load(&mm->write_protect_seq) != fast->sequence &&
	    !MUTATED(SKIP_SEQUENCE))
		return false;
	if (MUTATED(SKIP_GUP_RECHECK))
		return true;
	return shape_read(&mm->pt) == fast->shape && pte_is_same(leaf_peek(fast->leaf, va), pte);
}

/* The mapping is not looked at: an entry permits no more than it does, and its kind tells private from shared. */
static bool fast_permits(const struct gup *gup, struct pte pte, const struct ucow_page *page)
{
	unsigned vma_flags = VMA_WRITE | (pte_kind(pte) == PTE_KIND_SHARED ? VMA_SHARED : 0u);

	return judge(gup, pte, page, vma_flags) == GUP_TAKE;
}

static int fast_take(struct gup *gup, struct ucow_page *page)
{
	if (!gup->account)
		return page_try_get(page);
	return gup->budget ? page_try_pin(page, gup->account) : -ENOMEM;
}

static void fast_undo(const struct gup *gup, struct ucow_page *page)
{
	if (gup->account)
		(void)page_unpin(page, gup->account); /* its place in the account stays reserved */
	else
		page_put(page);
}

/*
 * A page of a file that a device is to write to is dirty before it is pinned, or the slow path makes it so; for long it
 * is not pinned here at all (B.5, B.8). Requires: the reference was taken: writeback that cleans the page now looks for
 * it afterwards.
 */
static bool fast_permits_file(const struct gup *gup, const struct ucow_page *page)
{
	if (likely(!page_is(page, PAGE_FILE)) || !wants(gup, UCOW_FOLL_WRITE))
		return true;
	return page_is(page, PAGE_DIRTY) && !wants(gup, UCOW_FOLL_LONGTERM);
}

/* Entries that say already what the access would have them say; special and armed ones are the slow path's. */
static bool fast_page(struct gup *gup, const struct fast *fast, uint64_t va)
{
	struct pte pte = leaf_peek(fast->leaf, va);
	struct ucow_page *page;

	if (!pte_is_noted(pte, wants(gup, UCOW_FOLL_WRITE)) || pte_is_special(pte))
		return false;
	if (wants(gup, UCOW_FOLL_LONGTERM) && pte_kind(pte) != PTE_KIND_ANON && !pte_is_writable(pte))
		return false;
	page = pte_page(&gup->mm->machine->frames, pte);
	if (fast_take(gup, page))
		return false;
	/* The flag is read after the reference was taken and found good, as in gup_must_unshare (B.5). */
	if (!fast_holds(gup, fast, va, pte) || !fast_permits(gup, pte, page) || !fast_permits_file(gup, page)) {
		fast_undo(gup, page);
		return false;
	}
	gup->budget -= gup->account != NULL;
	gup->pages[gup->done++] = page;
	return true;
}

/*
 * The pages of one leaf. It must be private and marked already: a mark is made under the mmap lock alone, so that no
 * table is ever marked that a fork has just shared [rule 4].
 */
static bool fast_leaf(struct gup *gup, uint64_t va)
{
	const struct ucow_mm *mm = gup->mm;
	struct fast fast = {.sequence = atomic_load(&mm->write_protect_seq), .shape = shape_read(&mm->pt)};
	struct walk walk = table_walk_path(&mm->pt, va);
	uint64_t end = table_leaf_end(va, UCOW_ADDRESS_LIMIT);

	if ((mm->machine->policy->protects_sequence && (fast.sequence & 1)) || !walk.leaf || !walk.is_private ||
	    !(atomic_load_explicit(&walk.leaf->hints, memory_order_acquire) & TABLE_MAY_HOLD_REFS))
		return false;
	fast.leaf = walk.leaf;
	for (; va < end && gup->done < gup->npages; va += UCOW_PAGE_SIZE)
		if (!fast_page(gup, &fast, va))
			return false;
	return true;
}

static void run_fast(struct gup *gup)
{
	struct epoch *epoch = &gup->mm->machine->epoch;
	uint64_t va = gup->start;

	epoch_enter(epoch);
	while (gup->done < gup->npages && va < UCOW_ADDRESS_LIMIT && fast_leaf(gup, va))
		va = gup->start + ((uint64_t)gup->done << UCOW_PAGE_SHIFT);
	epoch_leave(epoch);
}

/* ---- the loop (__get_user_pages) ---- */

/* FAULT_WRITE where the policy breaks COW for a read: not possible on a shared mapping, which policies never ask for.
 */
static unsigned fault_flags(enum follow need)
{
	switch (need) {
	case FOLLOW_FAULT_WRITE:
		return FAULT_WRITE;
	case FOLLOW_FAULT_UNSHARE:
		return FAULT_UNSHARE;
	case FOLLOW_FAULT_READ:
	case FOLLOW_TAKEN:
	case FOLLOW_OVERFLOW:
		break;
	}
	return FAULT_READ;
}

static int fault_in(struct gup *gup, uint64_t va, enum follow need)
{
	enum fault_result result;

	if (need == FOLLOW_OVERFLOW)
		return -ENOMEM;
	if (wants(gup, UCOW_FOLL_NOFAULT | UCOW_FOLL_FAST_ONLY))
		return -EFAULT;
	result = fault_handle(gup->mm, gup->vma, va, fault_flags(need), gup->wait);
	gup->faulted = result == FAULT_DONE && need == FOLLOW_FAULT_WRITE;
	gup->over_limit = result == FAULT_OVER_LIMIT;
	gup->waits = result == FAULT_USERFAULT;
	return result == FAULT_SIGBUS ? -EFAULT : fault_errno(result);
}

/* One step: what one leaf gives, or one fault. Requires: mmap_lock. */
static int step(struct gup *gup)
{
	uint64_t va = gup->start + ((uint64_t)gup->done << UCOW_PAGE_SHIFT);
	enum follow need = wants(gup, UCOW_FOLL_WRITE) ? FOLLOW_FAULT_WRITE : FOLLOW_FAULT_READ;
	struct table *leaf;
	int error;

	error = enter_vma(gup, va);
	if (error)
		return error;
	epoch_enter(&gup->mm->machine->epoch);
	leaf = table_find_leaf(&gup->mm->pt, va);
	epoch_leave(&gup->mm->machine->epoch);
	if (leaf) {
		size_t done = gup->done;

		/* References that outlive the call need a private path, and leave their mark on it [rule 4]. */
		if (table_own_leaf(&gup->mm->pt, va, &leaf))
			return -ENOMEM;
		need = follow_leaf(gup, leaf, va, table_leaf_end(va, gup->vma->end));
		if (gup->done != done && !MUTATED(FORGET_MARK))
			table_mark_path(&gup->mm->pt, va);
	}
	if (need == FOLLOW_TAKEN)
		return 0;
	return fault_in(gup, gup->start + ((uint64_t)gup->done << UCOW_PAGE_SHIFT), need);
}

/* Requires: no lock. Returns: 0: try again; -EFAULT. */
static int wait_for_user(struct gup *gup)
{
	gup->waits = false;
	return uffd_wait(gup->wait) ? -EFAULT : 0;
}

static int run(struct gup *gup)
{
	unsigned tries = 0;
	int error;

	if (gup->fast)
		run_fast(gup);
	do {
		error = 0;
		gup->vma = NULL;
		gup->over_limit = false;
		if (gup->done == gup->npages)
			break;
		rwlock_read_lock(&gup->mm->mmap_lock);
		while (!error && gup->done < gup->npages)
			error = step(gup);
		rwlock_read_unlock(&gup->mm->mmap_lock);
		epoch_settle(&gup->mm->machine->epoch);
		if (unlikely(gup->waits))
			error = wait_for_user(gup);
	} while (!error || (unlikely(gup->over_limit) && !group_make_room(gup->mm->group, 1)) ||
		 (unlikely(error == -ENOMEM) && space_relieve(gup->mm, &tries)));
	return gup->done || wants(gup, UCOW_FOLL_FAST_ONLY) ? 0 : error;
}

/* References that count: the zero page only pretends. */
static size_t counted(struct ucow_page *const *pages, size_t npages)
{
	size_t n = 0;

	for (size_t i = 0; i < npages; i++)
		n += !page_is(pages[i], PAGE_ZERO);
	return n;
}

static long get_pages(struct gup *gup)
{
	int error = run(gup);

	count_add(&gup->mm->machine->counters, UCOW_COUNTER_GETS, counted(gup->pages, gup->done));
	return error ? error : (long)gup->done;
}

/* The pins are reserved ahead, so that the limit holds exactly whoever else pins. */
static long pin_pages(struct gup *gup)
{
	uint64_t reserved;
	int error;

	atomic_store(&gup->mm->has_pinned, true);
	gup->account = mm_pin_account(gup->mm);
	if (!gup->account)
		return -ENOMEM;
	reserved = gup->budget = pin_account_reserve(gup->account, gup->npages);
	error = run(gup);
	pin_account_release(gup->account, gup->budget);
	count_add(&gup->mm->machine->counters, UCOW_COUNTER_PINS, reserved - gup->budget);
	return error ? error : (long)gup->done;
}

/* ---- the six forms ---- */

static long gup_common(struct ucow_mm *mm, uint64_t va, size_t npages, unsigned flags, unsigned allowed, bool pin,
		       struct ucow_page **pages)
{
	struct uffd_wait wait;
	struct gup gup = {
		.wait = &wait,
		.mm = mm,
		.pages = pages,
		.start = va & UCOW_PAGE_MASK,
		.flags = flags,
		.fast = allowed == FOLL_FAST,
	};

	gup.npages = (size_t)min_u64(npages, UCOW_ADDRESS_LIMIT >> UCOW_PAGE_SHIFT);
	if (!mm || !npages || !pages || (flags & ~allowed) || (!pin && (flags & UCOW_FOLL_LONGTERM)))
		return -EINVAL;
	if (mm->read_only && (flags & UCOW_FOLL_WRITE))
		return -EACCES;
	uffd_wait_init(&wait);
	return pin ? pin_pages(&gup) : get_pages(&gup);
}

long ucow_get_user_pages(struct ucow_cpu *cpu, uint64_t va, size_t npages, unsigned flags, struct ucow_page **pages)
{
	return gup_common(cpu->mm, va, npages, flags, FOLL_PUBLIC, false, pages);
}

long ucow_get_user_pages_fast(struct ucow_cpu *cpu, uint64_t va, size_t npages, unsigned flags,
			      struct ucow_page **pages)
{
	return gup_common(cpu->mm, va, npages, flags, FOLL_FAST, false, pages);
}

long ucow_get_user_pages_remote(struct ucow_mm *mm, uint64_t va, size_t npages, unsigned flags,
				struct ucow_page **pages)
{
	return gup_common(mm, va, npages, flags, FOLL_PUBLIC, false, pages);
}

long ucow_pin_user_pages(struct ucow_cpu *cpu, uint64_t va, size_t npages, unsigned flags, struct ucow_page **pages)
{
	return gup_common(cpu->mm, va, npages, flags, FOLL_PUBLIC, true, pages);
}

long ucow_pin_user_pages_fast(struct ucow_cpu *cpu, uint64_t va, size_t npages, unsigned flags,
			      struct ucow_page **pages)
{
	return gup_common(cpu->mm, va, npages, flags, FOLL_FAST, true, pages);
}

long ucow_pin_user_pages_remote(struct ucow_mm *mm, uint64_t va, size_t npages, unsigned flags,
				struct ucow_page **pages)
{
	return gup_common(mm, va, npages, flags, FOLL_PUBLIC, true, pages);
}

/* ---- access_remote_vm ---- */

/* Bytes of one page, while the mmap lock keeps forks and unmaps out. */
static void copy_bytes(const struct gup *gup, uint64_t va, char *buffer, size_t nbytes)
{
	char *bytes = (char *)page_bytes(gup->pages[0]) + (va & ~UCOW_PAGE_MASK);

	hook_step(wants(gup, UCOW_FOLL_WRITE) ? HOOK_STORE : HOOK_LOAD, bytes);
	for (size_t i = 0; i < nbytes; i++)
		if (wants(gup, UCOW_FOLL_WRITE))
			__atomic_store_n(bytes + i, buffer[i], __ATOMIC_RELAXED);
		else
			buffer[i] = __atomic_load_n(bytes + i, __ATOMIC_RELAXED);
}

static int access_page(struct ucow_mm *mm, uint64_t va, char *buffer, size_t nbytes, unsigned flags)
{
	struct epoch *epoch = &mm->machine->epoch;
	struct ucow_page *page;
	unsigned tries = 0;
	struct gup gup;
	int error;

	do {
		gup = (struct gup){
			.mm = mm,
			.pages = &page,
			.npages = 1,
			.start = va & UCOW_PAGE_MASK,
			.flags = flags,
		};
		error = 0;
		rwlock_read_lock(&mm->mmap_lock);
		while (!error && !gup.done)
			error = step(&gup);
		if (gup.done) {
			copy_bytes(&gup, va, buffer, nbytes);
			if (!page_is(page, PAGE_ZERO))
				page_put(page);
		}
		rwlock_read_unlock(&mm->mmap_lock);
		epoch_settle(epoch);
	} while ((unlikely(gup.over_limit) && !group_make_room(mm->group, 1)) ||
		 (unlikely(error == -ENOMEM) && space_relieve(mm, &tries)));
	return error;
}

int ucow_access_remote(struct ucow_mm *mm, uint64_t va, void *buffer, size_t nbytes, unsigned flags, size_t *done)
{
	size_t at = 0;
	int error = 0;

	if (flags & ~(UCOW_FOLL_WRITE | UCOW_FOLL_FORCE))
		return -EINVAL;
	if (mm->read_only && (flags & UCOW_FOLL_WRITE))
		return -EACCES;
	while (at < nbytes && !error) {
		size_t step_bytes = (size_t)min_u64(nbytes - at, UCOW_PAGE_SIZE - ((va + at) & ~UCOW_PAGE_MASK));

		error = access_page(mm, va + at, (char *)buffer + at, step_bytes, flags);
		at += error ? 0 : step_bytes;
	}
	if (done)
		*done = at;
	return error;
}

/* ---- release ---- */

static void release_run(struct pin_account *account, uint64_t length)
{
	if (!account)
		return;
	count_add(account->pool->counters, UCOW_COUNTER_UNPINS, length);
	pin_account_release(account, length);
}

/* Consecutive pages nearly always belong to one account: settle with it once a run. */
static void unpin(struct ucow_page *const *pages, size_t npages, const struct pin_account *whose)
{
	struct pin_account *account = NULL;
	uint64_t length = 0;

	for (size_t i = 0; i < npages; i++) {
		struct pin_account *owner;

		if (page_is(pages[i], PAGE_ZERO))
			continue;
		owner = page_unpin(pages[i], whose);
		if (owner != account) {
			release_run(account, length);
			account = owner;
			length = 0;
		}
		length++;
	}
	release_run(account, length);
}

void ucow_unpin_user_pages(struct ucow_page *const *pages, size_t npages)
{
	unpin(pages, npages, NULL);
}

void ucow_unpin_user_pages_remote(struct ucow_mm *mm, struct ucow_page *const *pages, size_t npages)
{
	unpin(pages, npages, atomic_load(&mm->account));
}

void ucow_unpin_user_pages_dirty_lock(struct ucow_page *const *pages, size_t npages, bool make_dirty)
{
	if (make_dirty)
		for (size_t i = 0; i < npages; i++)
			page_note_dirty(pages[i]);
	ucow_unpin_user_pages(pages, npages);
}

void ucow_put_pages(struct ucow_page *const *pages, size_t npages)
{
	for (size_t i = 0; i < npages; i++) {
		if (page_is(pages[i], PAGE_ZERO))
			continue;
		count(page_pool(pages[i])->counters, UCOW_COUNTER_PUTS);
		page_put(pages[i]);
	}
}

/* ---- pages ---- */

void *ucow_page_address(const struct ucow_page *page)
{
	return page_bytes(page);
}

bool ucow_page_maybe_dma_pinned(const struct ucow_page *page)
{
	return page_maybe_pinned(page);
}

bool ucow_page_trylock(struct ucow_page *page)
{
	return page_trylock(page);
}

void ucow_page_unlock(struct ucow_page *page)
{
	page_unlock(page);
}
