/* SPDX-License-Identifier: MIT */
/* Userfaultfds: creation, registration, protection, messages. Supplying pages is in uffd_fill.c, moving in uffd_move.c.
 */
#include "ops/uffd.h"

#include "ops/ops.h"
#include "space/notifier.h"

#include <errno.h>

#define MODES (UCOW_UFFD_MISSING | UCOW_UFFD_WP | UCOW_UFFD_MINOR)

/* ---- ranges ---- */

static bool range_is_valid(uint64_t va, uint64_t length)
{
	return !(length & ~UCOW_PAGE_MASK) && mm_range_is_valid(va, length);
}

int uffd_range_begin(struct uffd_range *range, struct ucow_uffd *uffd, uint64_t va, uint64_t length, unsigned mode,
		     unsigned modes)
{
	*range = (struct uffd_range){
		.uffd = uffd,
		.mm = atomic_load(&uffd->mm),
		.start = va,
		.end = va + length,
		.at = va,
		.mode = mode,
	};
	if (!range_is_valid(va, length) || (mode & ~modes))
		return -EINVAL;
	return range->mm ? 0 : -ESRCH;
}

int uffd_range_end(struct uffd_range *range, int error, uint64_t *done)
{
	if (range->at != range->start && !(range->mode & UCOW_UFFD_MODE_DONTWAKE))
		uffd_wake(range->uffd, range->start, range->at);
	if (done)
		*done = range->at - range->start;
	return error;
}

/* ---- creation ---- */

static bool options_are_valid(const struct ucow_uffd_options *options)
{
	return options->size == sizeof(*options) && !(options->features & ~UCOW_UFFD_FEATURES);
}

int ucow_uffd_create(struct ucow_mm *mm, const struct ucow_uffd_options *options, struct ucow_uffd **uffd)
{
	struct ucow_uffd *made;

	if (!options_are_valid(options))
		return -EINVAL;
	if (mm->read_only)
		return -EACCES;
	made = uffd_create(mm, options);
	if (!made)
		return -ENOMEM;
	rwlock_write_lock(&mm->mmap_lock);
	list_add_tail(&mm->uffds, &made->link);
	rwlock_write_unlock(&mm->mmap_lock);
	*uffd = made;
	return 0;
}

struct ucow_mm *ucow_uffd_mm(const struct ucow_uffd *uffd)
{
	return atomic_load(&uffd->mm);
}

/* ---- registration ---- */

/* Whether @uffd may watch the mapping so. Returns: 0; -EINVAL; -EBUSY; -EPERM. */
static int may_register(const struct ucow_uffd *uffd, const struct vma *vma, unsigned modes)
{
	if (vma->flags & VMA_PFNMAP)
		return -EINVAL;
	if ((modes & UCOW_UFFD_MINOR) && !vma->object)
		return -EINVAL;
	/* Pages of a file that is written back come from there, and nowhere else (vma_can_userfault). */
	if (vma->object && cache_is_tracked(vma->object) &&
	    !(modes == UCOW_UFFD_WP && uffd_has(uffd, UCOW_UFFD_FEATURE_WP_ASYNC)))
		return -EINVAL;
	if (vma->flags & VMA_NOWRITE)
		return -EPERM;
	return vma->uffd && vma->uffd != uffd ? -EBUSY : 0;
}

static unsigned flags_of(unsigned modes)
{
	return (modes & UCOW_UFFD_MISSING ? VMA_UFFD_MISSING : 0u) | (modes & UCOW_UFFD_WP ? VMA_UFFD_WP : 0u) |
	       (modes & UCOW_UFFD_MINOR ? VMA_UFFD_MINOR : 0u);
}

static unsigned operations_of(const struct vma *vma, unsigned modes)
{
	unsigned can = UCOW_UFFD_CAN_COPY | UCOW_UFFD_CAN_ZEROPAGE | UCOW_UFFD_CAN_POISON | UCOW_UFFD_CAN_WAKE;

	if (modes & UCOW_UFFD_WP)
		can |= UCOW_UFFD_CAN_WRITEPROTECT;
	if (modes & UCOW_UFFD_MINOR)
		can |= UCOW_UFFD_CAN_CONTINUE;
	return vma->object ? can : can | UCOW_UFFD_CAN_MOVE;
}

/* What all mappings of a range have in common. Returns: 0; -EINVAL: there is none. */
static int check_range(struct ucow_uffd *uffd, struct ucow_mm *mm, const struct uffd_range *range, unsigned modes,
		       unsigned *can)
{
	struct vma *vma = vma_find(&mm->vmas, range->start);
	int error = vma && vma->start < range->end ? 0 : -EINVAL;

	*can = ~0u;
	for (; vma && vma->start < range->end && !error; vma = vma_next(vma)) {
		error = may_register(uffd, vma, modes);
		*can &= operations_of(vma, modes);
	}
	return error;
}

struct pte uffd_lifted(struct ucow_mm *mm, const struct vma *vma, struct pte pte)
{
	if (!pte_is_uffd_wp(pte))
		return pte;
	pte = pte_clear_uffd_wp(pte);
	return pte_is_present(pte) && entry_may_upgrade(mm, vma, pte) ? pte_mkwrite(pte) : pte;
}

void uffd_lift(struct ucow_mm *mm, struct vma *vma, uint64_t start, uint64_t end)
{
	change_range(mm, vma, start, end, uffd_lifted);
}

/* The mapping as a whole. Whoever could have read zeros that nobody supplied, or waits, looks again. */
static void set_watch(struct ucow_mm *mm, struct vma *vma, struct ucow_uffd *uffd, unsigned flags)
{
	unsigned lost = vma->flags & VMA_UFFD & ~flags;

	vma->flags = (vma->flags & ~(unsigned)VMA_UFFD) | flags;
	if (lost & VMA_UFFD_WP)
		uffd_lift(mm, vma, vma->start, vma->end);
	if (lost)
		uffd_wake(vma->uffd, vma->start, vma->end);
	vma->uffd = uffd;
}

/* Mappings of @uffd, and with @others those of nobody too. Everything in the range is isolated and owned. */
static void set_range(struct ucow_uffd *uffd, struct ucow_mm *mm, const struct uffd_range *range, unsigned flags)
{
	struct vma *vma = vma_find(&mm->vmas, range->start);

	for (; vma && vma->start < range->end; vma = vma_next(vma))
		if (vma->uffd == uffd || flags)
			set_watch(mm, vma, flags ? uffd : NULL, flags);
	tlb_invalidate(&mm->pt.generations, range->start, range->end);
	tlb_shootdown(&mm->pt);
}

static int change_watch(struct ucow_uffd *uffd, struct ucow_mm *mm, const struct uffd_range *range, unsigned flags)
{
	int error = vmas_isolate(mm, range->start, range->end);

	if (!error)
		error = table_own_range(&mm->pt, range->start, range->end);
	if (!error)
		set_range(uffd, mm, range, flags);
	vmas_merge(mm, range->start, range->end);
	return error;
}

int ucow_uffd_register(struct ucow_uffd *uffd, uint64_t va, uint64_t length, unsigned modes, unsigned *can)
{
	struct uffd_range range;
	unsigned common;
	int error = uffd_range_begin(&range, uffd, va, length, 0, 0);

	if (!error && (!modes || (modes & ~MODES)))
		error = -EINVAL;
	if (error)
		return error;
	rwlock_write_lock(&range.mm->mmap_lock);
	error = check_range(uffd, range.mm, &range, modes, &common);
	if (!error)
		error = change_watch(uffd, range.mm, &range, flags_of(modes));
	space_write_unlock(range.mm);
	if (!error && can)
		*can = common;
	return error;
}

int ucow_uffd_unregister(struct ucow_uffd *uffd, uint64_t va, uint64_t length)
{
	struct uffd_range range;
	const struct vma *vma;
	int error = uffd_range_begin(&range, uffd, va, length, 0, 0);

	if (error)
		return error;
	rwlock_write_lock(&range.mm->mmap_lock);
	vma = vma_find(&range.mm->vmas, va);
	error = vma && vma->start < range.end ? change_watch(uffd, range.mm, &range, 0) : -EINVAL;
	space_write_unlock(range.mm);
	return error;
}

/*
 * All mappings of @uffd. What is protected is on private paths: it was owned when it was protected, and forks copy such
 * ranges; so there is nothing to be copied that memory could lack for.
 */
static void leave_space(struct ucow_uffd *uffd, struct ucow_mm *mm)
{
	rwlock_write_lock(&mm->mmap_lock);
	VMA_FOR_EACH (vma, &mm->vmas)
		if (vma->uffd == uffd)
			set_watch(mm, vma, NULL, 0);
	list_del(&uffd->link);
	vmas_merge(mm, 0, UCOW_ADDRESS_LIMIT);
	space_write_unlock(mm);
}

void ucow_uffd_shutdown(struct ucow_uffd *uffd)
{
	struct ucow_mm *mm = atomic_exchange(&uffd->mm, NULL);

	if (mm)
		leave_space(uffd, mm);
	uffd_shut(uffd);
}

void ucow_uffd_close(struct ucow_uffd *uffd)
{
	if (!uffd)
		return;
	ucow_uffd_shutdown(uffd);
	uffd_put(uffd);
}

/* ---- write protection ---- */

/* Empty entries too, if anybody can see them protected: in file mappings always, in private memory by request (B.7). */
static bool protects_emptiness(const struct vma *vma)
{
	return vma->object || uffd_has(vma->uffd, UCOW_UFFD_FEATURE_WP_UNPOPULATED);
}

static struct pte protected_entry(const struct vma *vma, struct pte pte)
{
	if (pte_is_none(pte))
		return protects_emptiness(vma) ? pte_make_wp_marker() : pte;
	return pte_is_marker(pte) ? pte : pte_mk_uffd_wp(pte);
}

/* Requires: the leaf is owned. Returns: whether a translation may say more than its entry does now; zeros may have been
 * cached of an empty one. */
static bool protect_leaf(struct ucow_mm *mm, const struct vma *vma, struct table *leaf, uint64_t start, uint64_t end,
			 bool protect)
{
	bool lost = false;

	table_lock(leaf);
	for (uint64_t va = start; va < end; va += UCOW_PAGE_SIZE) {
		struct pte pte = leaf_get(leaf, va);
		struct pte now = protect ? protected_entry(vma, pte) : uffd_lifted(mm, vma, pte);

		if (pte_is_same(now, pte))
			continue;
		lost |= pte_is_none(pte) || (pte_is_writable(pte) && !pte_is_writable(now));
		leaf_set(leaf, va, now);
	}
	table_unlock(leaf);
	return lost;
}

/* One leaf's worth of @range at range->at, of @vma. */
static int protect_step(struct uffd_range *range, const struct vma *vma, uint64_t end, bool *lost)
{
	bool protect = range->mode & UCOW_UFFD_MODE_WP;
	struct page_table *pt = &range->mm->pt;
	uint64_t stop = table_leaf_end(range->at, end);
	struct table *leaf;

	epoch_enter(&range->mm->machine->epoch);
	leaf = table_find_leaf(pt, range->at);
	epoch_leave(&range->mm->machine->epoch);
	if (!leaf && !(protect && protects_emptiness(vma))) {
		range->at = stop;
		return 0;
	}
	if (table_own_leaf(pt, range->at, &leaf))
		return -ENOMEM;
	*lost |= protect_leaf(range->mm, vma, leaf, range->at, stop, protect);
	range->at = stop;
	return 0;
}

/*
 * Under the mmap lock in shared mode: entries change under their leaves' locks, and faults that meet one half-way look
 * again. Rights that were given need no shootdown, rights that were taken away one for all.
 */
static int protect_range(struct uffd_range *range)
{
	struct ucow_mm *mm = range->mm;
	bool lost = false;
	int error = 0;

	while (range->at < range->end && !error) {
		const struct vma *vma = vma_find(&mm->vmas, range->at);

		if (!vma || vma->start >= range->end)
			break;
		range->at = max_u64(range->at, vma->start);
		if (!(vma->flags & VMA_UFFD_WP)) {
			error = -ENOENT;
			break;
		}
		while (range->at < min_u64(range->end, vma->end) && !error)
			error = protect_step(range, vma, min_u64(range->end, vma->end), &lost);
	}
	if (lost) {
		tlb_invalidate(&mm->pt.generations, range->start, range->at);
		tlb_shootdown(&mm->pt);
	}
	return range->at == range->start && !error ? -ENOENT : error;
}

int ucow_uffd_writeprotect(struct ucow_uffd *uffd, uint64_t va, uint64_t length, unsigned mode)
{
	struct uffd_range range;
	unsigned tries = 0;
	int error = uffd_range_begin(&range, uffd, va, length, mode, UCOW_UFFD_MODE_WP | UCOW_UFFD_MODE_DONTWAKE);

	if (mode == (UCOW_UFFD_MODE_WP | UCOW_UFFD_MODE_DONTWAKE))
		error = -EINVAL;
	if (error)
		return error;
	do {
		rwlock_read_lock(&range.mm->mmap_lock);
		notify_start(range.mm, va, va + length, UCOW_NOTIFY_PROTECT);
		error = unlikely(atomic_load(&uffd->changing)) ? -EAGAIN : protect_range(&range);
		notify_end(range.mm, va, va + length, UCOW_NOTIFY_PROTECT);
		rwlock_read_unlock(&range.mm->mmap_lock);
		epoch_settle(&range.mm->machine->epoch);
	} while (unlikely(error == -ENOMEM) && space_relieve(range.mm, &tries));
	if (mode & UCOW_UFFD_MODE_WP)
		return error;
	return uffd_range_end(&range, error, NULL);
}

/* ---- messages ---- */

int ucow_uffd_wake(struct ucow_uffd *uffd, uint64_t va, uint64_t length)
{
	if (!range_is_valid(va, length))
		return -EINVAL;
	uffd_wake(uffd, va, va + length);
	return 0;
}

long ucow_uffd_read(struct ucow_uffd *uffd, struct ucow_uffd_msg *msgs, size_t n, bool wait)
{
	return n ? uffd_read(uffd, msgs, n, wait) : -EINVAL;
}

int ucow_uffd_fd(struct ucow_uffd *uffd)
{
	return uffd_fd(uffd);
}
