/* SPDX-License-Identifier: MIT */
/*
 * Fork. Eager: duplicate the mappings, then one pass over the entries of those that have private pages. Lazy: share the
 * tables, and make that pass over the leaves alone that may hold references. In two phases, so that a fork that runs
 * out of memory has not touched the parent: first everything that may fail (nodes, tables, pages for early copies),
 * then the sharing itself, which cannot fail. Semantics.md B.4.
 */
#include "ops/ops.h"

#include "base/mutate.h"
#include "cache/cache.h"
#include "fault/fault.h"
#include "space/notifier.h"

#include <errno.h>

struct fork {
	struct ucow_mm *parent, *child;
	bool has_pinned;
	enum ucow_fork_mode mode;
	struct list copies; /* frames set aside for early copies, in address order; index names the frame to copy */
	uint64_t early_copies;
	struct list notes; /* to userfaultfds of the parent that want to hear of it */
};

/* ---- mappings ---- */

static bool is_absent_in_child(const struct vma *vma)
{
	return (vma->flags & VMA_DONTCOPY) && !MUTATED(LOSE_DONTFORK);
}

/*
 * Whether entries say what is the space's own business: a protection that children do not have, or have for
 * themselves. Such ranges are copied entry by entry in every mode, so that a bit means the same for all who share a
 * table.
 */
static bool entries_are_personal(const struct vma *vma)
{
	return vma->flags & (VMA_UFFD_WP | VMA_LOCKED);
}

/* The child goes on with the protection (B.4). While fork is at it, the child's mapping has the flag of its parent's.
 */
static bool keeps_protection(const struct vma *vma)
{
	return vma->uffd && (vma->flags & VMA_UFFD_WP);
}

/*
 * Only what cannot be faulted in again: shared memory has its object, memory that was never written has the zero page,
 * but for a protection nobody else remembers. Wiped memory starts empty.
 */
static bool entries_are_copied(const struct vma *vma)
{
	return !(vma->flags & VMA_WIPEONFORK) && (vma->has_anon || (vma->flags & VMA_PFNMAP) || keeps_protection(vma));
}

/* The child's userfaultfd for what @uffd watches in the parent, made at the first such mapping. */
static int uffd_of_child(struct fork *fork, struct ucow_uffd *uffd, struct ucow_uffd **made)
{
	struct ucow_uffd_msg msg = {.event = UCOW_UFFD_EVENT_FORK};
	int error;

	if (!uffd_has(uffd, UCOW_UFFD_FEATURE_EVENT_FORK) || fork->child->read_only) {
		*made = NULL;
		return 0;
	}
	*made = uffd_noted_child(&fork->notes, uffd);
	if (*made)
		return 0;
	msg.child = *made = uffd_create(fork->child, &uffd->with);
	if (!msg.child)
		return -ENOMEM;
	error = uffd_note(&fork->notes, uffd, &msg);
	if (error)
		uffd_put(msg.child);
	else
		list_add_tail(&fork->child->uffds, &msg.child->link);
	return error;
}

/* What no child has, unless its userfaultfd was told of it. */
static void strip_mappings(struct fork *fork)
{
	VMA_FOR_EACH (vma, &fork->child->vmas) {
		vma->flags &= ~(unsigned)(VMA_LOCKED | VMA_LOCKONFAULT);
		if (!vma->uffd)
			vma->flags &= ~(unsigned)VMA_UFFD;
	}
}

/* Nobody will receive the child's userfaultfds. */
static void forget_uffds(struct fork *fork)
{
	uffd_forget(&fork->notes);
	VMA_FOR_EACH (vma, &fork->child->vmas)
		vma->uffd = NULL;
	while (!list_is_empty(&fork->child->uffds)) {
		struct ucow_uffd *uffd = container_of(fork->child->uffds.next, struct ucow_uffd, link);

		list_del(&uffd->link);
		uffd_put(uffd);
	}
}

static int duplicate_mappings(struct fork *fork)
{
	VMA_FOR_EACH (vma, &fork->parent->vmas) {
		struct vma *copy;

		if (is_absent_in_child(vma))
			continue;
		copy = vma_create(fork->parent->machine);
		if (!copy)
			return -ENOMEM;
		*copy = *vma;
		copy->uffd = NULL;
		copy->has_anon &= !(vma->flags & VMA_WIPEONFORK);
		copy->inherited = copy->has_anon;
		copy->user = NULL;
		if (copy->object)
			cache_get(copy->object);
		if (copy->file)
			file_get(copy->file);
		if (cache_attach_child(fork->child, copy, vma)) {
			vma_release(copy);
			return -ENOMEM;
		}
		vma_insert(&fork->child->vmas, copy);
		if (unlikely(vma->uffd) && uffd_of_child(fork, vma->uffd, &copy->uffd))
			return -ENOMEM;
	}
	return 0;
}

/* ---- first phase: what may fail ---- */

static enum fork_action decide(const struct fork *fork, const struct vma *vma, const struct ucow_page *page)
{
	const struct fork_facts facts = {
		.has_pinned = fork->has_pinned,
		.maybe_pinned = page_maybe_pinned(page),
		.exclusive = page_is(page, PAGE_EXCLUSIVE),
		.cow_mapping = vma_is_cow(vma),
	};

	return fork->parent->machine->policy->fork_entry(&facts);
}

/* B.9: the copy is the child's page, and charged to the parent's group. */
static int reserve_copy(struct fork *fork, const struct ucow_page *source)
{
	struct ucow_page *page = mm_alloc_page(MUTATED(CHARGE_EARLY_COPY_TO_CHILD) ? fork->child : fork->parent,
					       FRAME_ANY);

	if (!page)
		return -ENOMEM;
	page->index = page_to_pfn(source);
	list_add_tail(&fork->copies, &page->link);
	return 0;
}

/* One frame for every page that must be copied at once. No pin of this space can begin: mmap_lock is exclusive,
 * and write_protect_seq odd. */
static int reserve_copies(struct fork *fork, const struct vma *vma, struct table *leaf, uint64_t va, uint64_t end)
{
	struct frame_pool *frames = &fork->parent->machine->frames;
	const struct table_pool *tables = &fork->parent->machine->tables;

	for (; va < end; va += UCOW_PAGE_SIZE) {
		struct pte pte = leaf_get(leaf, va);

		if (pte_kind(pte) == PTE_KIND_ANON && decide(fork, vma, pte_page(frames, pte)) == FORK_COPY &&
		    reserve_copy(fork, pte_page(frames, pte)))
			return -ENOMEM;
		if (unlikely(pte_is_swap(pte)) && tables->swap->is_full(tables->swap_arg, pte_swap_entry(pte)))
			return -ENOMEM;
	}
	return 0;
}

/* The leaves of [start, end) whose entries are copied one by one: with lazy sharing, those that may hold references. */
static struct table *next_copied_leaf(const struct fork *fork, const struct vma *vma, uint64_t *va, uint64_t end)
{
	return table_next_leaf(&fork->parent->pt, va, end, fork->mode == UCOW_FORK_LAZY && !entries_are_personal(vma));
}

static int prepare_mapping(struct fork *fork, const struct vma *vma, uint64_t start, uint64_t end)
{
	struct table *leaf, *target;

	for (uint64_t va = start; (leaf = next_copied_leaf(fork, vma, &va, end)); va = table_leaf_end(va, end)) {
		if (leaf->used && table_own_leaf_of(&fork->child->pt, va, leaf, &target))
			return -ENOMEM;
		if ((fork->has_pinned || leaf->swap) && reserve_copies(fork, vma, leaf, va, table_leaf_end(va, end)))
			return -ENOMEM;
	}
	return 0;
}

static int prepare_range(struct fork *fork, uint64_t start, uint64_t end)
{
	struct vma *vma = vma_find(&fork->child->vmas, start);
	int error = 0;

	for (; vma && vma->start < end && !error; vma = vma_next(vma))
		if (entries_are_copied(vma))
			error = prepare_mapping(fork, vma, max_u64(start, vma->start), min_u64(end, vma->end));
	return error;
}

/* What the child must not see of the shared tables. It goes from the child's side: the parent's are not touched. */
static int hide_mappings(struct fork *fork)
{
	int error = 0;

	VMA_FOR_EACH (vma, &fork->parent->vmas) {
		if (error)
			break;
		if (is_absent_in_child(vma) || (vma->flags & VMA_WIPEONFORK) || entries_are_personal(vma))
			error = table_zap(&fork->child->pt, vma->start, vma->end);
	}
	return error;
}

static int prepare_lazy(struct fork *fork)
{
	int error;

	table_refresh_marks(&fork->parent->pt);
	/* Shared from here on: should the rest fail, the parent gets its right to write back by faults. */
	error = page_table_share(&fork->parent->pt, &fork->child->pt);
	if (!error)
		error = hide_mappings(fork);
	return error ? error : prepare_range(fork, 0, UCOW_ADDRESS_LIMIT);
}

/* Mode `tables`: whether parent and child will see the same in this block, and no reference is in the way. */
static bool block_is_shared(const struct fork *fork, uint64_t start, bool marked)
{
	struct vma *vma = vma_find(&fork->parent->vmas, start);

	for (; vma && vma->start < table_block_end(start); vma = vma_next(vma))
		if (is_absent_in_child(vma) || (vma->flags & VMA_WIPEONFORK) || entries_are_personal(vma))
			return false;
	return !marked;
}

static int prepare_blocks(struct fork *fork)
{
	int error = page_table_make_root(&fork->child->pt);
	bool marked;

	table_refresh_marks(&fork->parent->pt);
	for (uint64_t va = 0; !error && table_next_block(&fork->parent->pt, &va, UCOW_ADDRESS_LIMIT, &marked);
	     va = table_block_end(va))
		error = block_is_shared(fork, va, marked) ? table_prepare_block(&fork->parent->pt, &fork->child->pt, va)
							  : prepare_range(fork, va, table_block_end(va));
	return error;
}

static int prepare_eager(struct fork *fork)
{
	int error = page_table_make_root(&fork->child->pt);

	return error ? error : prepare_range(fork, 0, UCOW_ADDRESS_LIMIT);
}

static int prepare(struct fork *fork)
{
	if (fork->mode == UCOW_FORK_LAZY)
		return prepare_lazy(fork);
	return fork->mode == UCOW_FORK_TABLES ? prepare_blocks(fork) : prepare_eager(fork);
}

static void release_copies(struct fork *fork)
{
	while (!list_is_empty(&fork->copies)) {
		struct ucow_page *page = container_of(fork->copies.next, struct ucow_page, link);

		list_del(&page->link);
		page_put(page);
	}
}

/* ---- second phase: what cannot fail ---- */

/* References alone decide, as in Linux; the exact count tells afterwards whether they were pins. */
static void count_false_positive(const struct fork *fork, const struct ucow_page *page)
{
	if (!page_pincount(page))
		count(&fork->parent->machine->counters, UCOW_COUNTER_PIN_FALSE_POSITIVE);
}

/* The frame that the first phase set aside for @source, or NULL. */
static struct ucow_page *reserved_copy(struct fork *fork, const struct ucow_page *source)
{
	struct ucow_page *copy;

	if (list_is_empty(&fork->copies))
		return NULL;
	copy = container_of(fork->copies.next, struct ucow_page, link);
	return copy->index == page_to_pfn(source) ? copy : NULL;
}

/* The child's own page, now; the parent's entry and page stay as they are. */
static struct pte copy_early(struct fork *fork, struct vma *vma, const struct table *target, uint64_t va,
			     struct pte pte, struct ucow_page *copy)
{
	struct pte made;

	list_del(&copy->link);
	page_copy(page_bytes(copy), pte_host(&fork->parent->machine->frames, pte));
	anon_page_init(fork->child, vma, target, va, copy);
	fork->early_copies++;
	count_false_positive(fork, pte_page(&fork->parent->machine->frames, pte));
	made = pte_mkdirty(pte_make_anon(copy));
	if (pte_is_uffd_wp(pte) && keeps_protection(vma))
		made = pte_mk_uffd_wp(made);
	return pte_clear_locked(entry_permit(vma, made, true));
}

/* One more entry maps the page; it is nobody's alone any more. */
static void share_page(struct ucow_page *page)
{
	if (!MUTATED(KEEP_EXCLUSIVE_AT_FORK))
		page_clear(page, PAGE_EXCLUSIVE);
	page_get(page);
	page_map(page);
}

/* What is locked is so for the parent; the protection stays behind, unless the child's userfaultfd was told (B.4). */
static struct pte leave_protection(const struct vma *vma, struct pte pte)
{
	pte = pte_clear_locked(pte);
	return keeps_protection(vma) || MUTATED(FORK_KEEPS_UFFD_WP) ? pte : pte_clear_uffd_wp(pte);
}

/* The child's entry for a shared one: old; both sides lose the write permission. */
static struct pte share_entry(struct table *leaf, const struct vma *vma, uint64_t va, struct pte pte)
{
	if (vma_is_cow(vma) && pte_is_writable(pte)) {
		struct pte readonly = pte_wrprotect(pte);

		if (!MUTATED(FORGET_WRITE_PROTECT))
			leaf_set(leaf, va, readonly);
		pte = readonly;
	}
	if (pte_has_page(pte))
		pte = pte_mkold(pte);
	return leave_protection(vma, pte);
}

/* A page in a swap slot: one entry more names it, and neither is alone any more (B.4). */
static struct pte share_swap(struct fork *fork, const struct vma *vma, struct table *leaf, uint64_t va, struct pte pte)
{
	struct table_pool *pool = &fork->parent->machine->tables;
	struct pte shared = MUTATED(SWAP_FORK_KEEPS_EXCLUSIVE) ? pte : pte_swap_share(pte);

	pool->swap->dup(pool->swap_arg, pte_swap_entry(pte), 1);
	if (!pte_is_same(shared, pte))
		leaf_set(leaf, va, shared);
	return leave_protection(vma, shared);
}

/*
 * The first phase's decision binds, page by page. A page that looked pinned then is copied even if it was unpinned
 * since; one that looks pinned only now is a false positive (references of other spaces), for no pin of this space has
 * begun since.
 */
static struct pte copy_entry(struct fork *fork, struct vma *vma, struct table *leaf, const struct table *target,
			     uint64_t va)
{
	struct pte pte = leaf_get(leaf, va);

	if (pte_kind(pte) == PTE_KIND_ANON) {
		struct ucow_page *page = pte_page(&fork->parent->machine->frames, pte);
		struct ucow_page *copy = reserved_copy(fork, page);

		if (copy)
			return copy_early(fork, vma, target, va, pte, copy);
		if (decide(fork, vma, page) == FORK_SKIP) {
			count_false_positive(fork, page);
			return pte_none();
		}
		share_page(page);
	} else if (pte_kind(pte) == PTE_KIND_SHARED) {
		page_get(pte_page(&fork->parent->machine->frames, pte));
		page_map(pte_page(&fork->parent->machine->frames, pte));
	}
	if (unlikely(pte_is_swap(pte)))
		return share_swap(fork, vma, leaf, va, pte);
	table_count_zero(&fork->child->machine->tables, pte, 1);
	return pte_is_none(pte) ? pte : share_entry(leaf, vma, va, pte);
}

static void copy_leaf(struct fork *fork, struct vma *vma, struct table *leaf, uint64_t va, uint64_t end)
{
	struct table *target = table_find_leaf(&fork->child->pt, va);

	table_lock(leaf);
	table_lock_nested(target); /* nobody else knows the child's tables */
	for (; va < end; va += UCOW_PAGE_SIZE)
		leaf_set(target, va, copy_entry(fork, vma, leaf, target, va));
	table_unlock(target);
	table_unlock(leaf);
}

static void copy_mapping(struct fork *fork, struct vma *vma, uint64_t start, uint64_t end)
{
	struct table *leaf;

	for (uint64_t va = start; (leaf = next_copied_leaf(fork, vma, &va, end)); va = table_leaf_end(va, end))
		if (leaf->used)
			copy_leaf(fork, vma, leaf, va, table_leaf_end(va, end));
}

static void copy_range(struct fork *fork, uint64_t start, uint64_t end)
{
	struct vma *vma = vma_find(&fork->child->vmas, start);

	for (; vma && vma->start < end; vma = vma_next(vma))
		if (entries_are_copied(vma))
			copy_mapping(fork, vma, max_u64(start, vma->start), min_u64(end, vma->end));
}

static void share_blocks(struct fork *fork)
{
	bool marked;

	for (uint64_t va = 0; table_next_block(&fork->parent->pt, &va, UCOW_ADDRESS_LIMIT, &marked);
	     va = table_block_end(va))
		if (block_is_shared(fork, va, marked))
			table_share_block(&fork->parent->pt, &fork->child->pt, va);
		else
			copy_range(fork, va, table_block_end(va));
}

static void copy_entries(struct fork *fork)
{
	if (fork->mode == UCOW_FORK_TABLES)
		share_blocks(fork);
	else
		copy_range(fork, 0, UCOW_ADDRESS_LIMIT);
}

/* ---- the call ---- */

/*
 * Nobody else acts on the parent from here to resume: accesses and walks made before are void, the cpus have left, and
 * nothing is cached anew while the sequence is odd. So the child is a consistent cut of what cpus wrote [rule 14]. A
 * fast pin that overlaps sees the sequence odd or changed, and goes slow; one that did not has left its mark and its
 * references for us to see [ORD-SEQ-1, rule 17].
 */
static void stop(struct ucow_mm *parent)
{
	atomic_fetch_add(&parent->write_protect_seq, 1);
	table_changed(&parent->pt);
	if (!MUTATED(FORK_WITHOUT_EXPEL))
		tlb_shootdown(&parent->pt);
	/* The cpus that were just leaving may have walked anew, and remember private paths. */
	if (!MUTATED(KEEP_LATE_WALKS))
		table_forget_walks(&parent->pt);
}

static void resume(struct ucow_mm *parent)
{
	atomic_fetch_add(&parent->write_protect_seq, 1);
}

static int fork_locked(struct fork *fork)
{
	int error = duplicate_mappings(fork);

	if (error)
		return error;
	/* First of all, so that what followers write is either in the child or after it. */
	notify_start(fork->parent, 0, UCOW_ADDRESS_LIMIT, UCOW_NOTIFY_PROTECT);
	stop(fork->parent);
	fork->has_pinned = atomic_load(&fork->parent->has_pinned); /* set before a fast pin looks at the sequence */
	error = prepare(fork);
	if (!error)
		copy_entries(fork);
	strip_mappings(fork);
	resume(fork->parent);
	notify_end(fork->parent, 0, UCOW_ADDRESS_LIMIT, UCOW_NOTIFY_PROTECT);
	release_copies(fork);
	return error;
}

static void report(const struct fork *fork, uint64_t pinned)
{
	struct ucow_machine *machine = fork->parent->machine;
	const struct ucow_pinned_fork info = {
		.parent = fork->parent,
		.pinned_pages = pinned,
		.early_copies = fork->early_copies,
	};

	count(&machine->counters, UCOW_COUNTER_FORKS);
	count_add(&machine->counters, UCOW_COUNTER_EARLY_COPY, fork->early_copies);
	if (!pinned)
		return;
	count(&machine->counters, UCOW_COUNTER_FORK_PINNED);
	lock_rank_none_held();
	if (machine->on_pinned_fork)
		machine->on_pinned_fork(machine->callback_arg, &info);
}

/* The child's place among its parent's snapshots. Requires: the parent's mmap_lock exclusively. */
static void join_group(struct fork *fork, struct ucow_snapshot_group *group)
{
	struct ucow_snapshot_group *parents = fork->parent->group;

	if (group) {
		group_join(group, &fork->child->snapshot, (int64_t)fork->early_copies);
		fork->child->group = group;
	} else if (parents) {
		group_lock(parents);
		parents->recountable = false;
		group_unlock(parents);
	}
}

static int fork_once(struct ucow_mm *parent, const struct fork_request *request, struct ucow_mm **child)
{
	struct fork fork = {.parent = parent};
	struct pin_account *account;
	uint64_t pinned = 0;
	bool has_files;
	int error;

	list_init(&fork.copies);
	list_init(&fork.notes);
	fork.child = mm_create(parent->machine);
	if (!fork.child)
		return -ENOMEM;
	fork.child->read_only = request->read_only;
	rwlock_write_lock(&parent->mmap_lock);
	/* Files list the child from its first mapping on, and whoever looks for their pages there waits till it is
	 * made. */
	has_files = !list_is_empty(&parent->file_users);
	if (unlikely(has_files))
		rwlock_write_lock_nested(&fork.child->mmap_lock);
	mm_join(fork.child, request->into ? request->memcg : parent->memcg);
	atomic_store(&fork.child->pin_limit, atomic_load(&parent->pin_limit));
	atomic_store(&fork.child->lock_limit, atomic_load(&parent->lock_limit));
	fork.mode = parent->machine->fork_mode;
	account = atomic_load(&parent->account);
	if (account)
		pinned = pin_account_count(account);
	error = fork_locked(&fork);
	if (!error)
		join_group(&fork, request->group);
	if (unlikely(has_files))
		rwlock_write_unlock(&fork.child->mmap_lock);
	rwlock_write_unlock(&parent->mmap_lock);
	if (error) {
		forget_uffds(&fork);
		space_discard(fork.child);
		return error;
	}
	mm_publish(fork.child);
	report(&fork, pinned);
	uffd_send(&fork.notes);
	*child = fork.child;
	return 0;
}

int space_fork(struct ucow_mm *parent, const struct fork_request *request, struct ucow_mm **child)
{
	unsigned tries = 0;
	int error;

	do
		error = fork_once(parent, request, child);
	while (unlikely(error == -ENOMEM) && space_relieve(parent, &tries));
	return error;
}

int ucow_fork(struct ucow_mm *parent, struct ucow_mm **child)
{
	return space_fork(parent, &(struct fork_request){0}, child);
}

int ucow_fork_into(struct ucow_mm *parent, struct ucow_memcg *memcg, struct ucow_mm **child)
{
	return space_fork(parent, &(struct fork_request){.into = true, .memcg = memcg}, child);
}
