/* SPDX-License-Identifier: MIT */
/* The scanner: page by page through all mergeable memory. */
#include "ksm/ksm.h"

#include <errno.h>

/* `where` of an unstable slot. */
#define PAGE_NUMBER_BITS (UCOW_ADDRESS_BITS - UCOW_PAGE_SHIFT)

static uint64_t pack(const struct ksm_space *space, uint64_t va)
{
	return (uint64_t)space->id << PAGE_NUMBER_BITS | va >> UCOW_PAGE_SHIFT;
}

static uint64_t packed_va(uint64_t where)
{
	return (where & (((uint64_t)1 << PAGE_NUMBER_BITS) - 1)) << UCOW_PAGE_SHIFT;
}

static void note_error(struct ksm *ksm, int error)
{
	if (!ksm->error)
		ksm->error = error;
}

/* ---- one page ---- */

/* Where a page was seen, and what it held. */
struct sight {
	struct ksm_space *space;
	uint64_t va;
	struct ucow_page *page; /* while it is hashed: with a reference */
	uint64_t hash;
};

static bool is_final(struct ksm *ksm, enum merge_result result)
{
	if (result == MERGE_NO_MEMORY)
		note_error(ksm, -ENOMEM);
	ksm->tally.merged += result == MERGE_DONE;
	return result != MERGE_DIFFERENT;
}

/* Returns: whether that settles it, one way or the other. */
static bool try_stable(struct ksm *ksm, const struct sight *sight)
{
	struct ksm_node *node = NULL;
	struct ucow_page *page;

	while ((node = stable_find(ksm, sight->hash, node, &page))) {
		enum merge_result result = ksm_merge_into(ksm, sight->space->mm, sight->va, node, page);

		page_put(page); /* if that was the last, the node is stale */
		if (is_final(ksm, result))
			return true;
	}
	return false;
}

static bool wants_zero(const struct ksm *ksm, const struct sight *sight)
{
	return ksm->options.use_zero_pages && sight->hash == ksm->zero_hash;
}

static bool try_zero(struct ksm *ksm, const struct sight *sight)
{
	return is_final(ksm, ksm_merge_into(ksm, sight->space->mm, sight->va, NULL, NULL));
}

/*
 * The page at sight->va has become the node's: merge the one at @va of @mm into it, or give it up. *give_way: that one
 * is not to be had, but something in its place may be.
 */
static enum merge_result merge_second(struct ksm *ksm, const struct sight *sight, struct ucow_mm *mm, uint64_t va,
				      struct ksm_node *node, bool *give_way)
{
	struct ucow_page *page = node_page(node);
	enum merge_result result = MERGE_NOT;

	/* Nobody stores to it now. What was hashed may have changed until then. */
	if (ksm_hash(ksm, page_bytes(page)) == sight->hash) {
		result = ksm_merge_into(ksm, mm, va, node, page);
		*give_way = result == MERGE_NOT;
	}
	if (result == MERGE_DONE) {
		node->hash = sight->hash;
		stable_insert(ksm, node);
	} else {
		ksm_revert(node);
		stable_node_free(ksm, node);
	}
	page_put(page);
	return result;
}

static enum merge_result merge_two(struct ksm *ksm, const struct sight *sight, struct ucow_mm *mm, uint64_t va,
				   bool *give_way)
{
	struct ksm_node *node = stable_node_create(ksm);
	enum merge_result result;

	if (!node)
		return MERGE_NO_MEMORY;
	result = ksm_convert(ksm, sight->space->mm, sight->va, node);
	if (result != MERGE_DONE) {
		stable_node_free(ksm, node);
		return result;
	}
	return merge_second(ksm, sight, mm, va, node, give_way);
}

/* With the page that the slot names. One that somebody holds does not keep the slot from others. */
static enum merge_result merge_with(struct ksm *ksm, const struct sight *sight, struct unstable_slot *slot)
{
	struct ucow_mm *mm = ksm_space_hold(ksm, (uint32_t)(slot->where >> PAGE_NUMBER_BITS));
	enum merge_result result;
	bool give_way = false;

	if (!mm) {
		unstable_drop(&ksm->unstable, slot);
		return MERGE_DIFFERENT;
	}
	result = merge_two(ksm, sight, mm, packed_va(slot->where), &give_way);
	mm_release(mm);
	if (result == MERGE_DONE || give_way)
		unstable_drop(&ksm->unstable, slot);
	return give_way ? MERGE_DIFFERENT : result;
}

static void try_unstable(struct ksm *ksm, const struct sight *sight)
{
	struct unstable_slot *slot = NULL;

	while ((slot = unstable_find(&ksm->unstable, sight->hash, slot)))
		if (is_final(ksm, merge_with(ksm, sight, slot)))
			return;
	if (unstable_insert(ksm, sight->hash, pack(sight->space, sight->va)))
		note_error(ksm, -ENOMEM);
}

/*
 * A page whose bytes have changed since the last scan is likely to change again. Zeros go to the zero page even where
 * there is a merged page of zeros, as in Linux since 6.11.
 */
static void look_at(struct ksm *ksm, const struct sight *sight)
{
	uint64_t *remembered = ksm_remembered(ksm, sight->space, sight->va), before;

	if (!remembered) {
		note_error(ksm, -ENOMEM);
		return;
	}
	before = *remembered;
	*remembered = sight->hash;
	ksm->tally.fresh += !before;
	ksm->tally.changed += before && before != sight->hash;
	if (wants_zero(ksm, sight) && (before != sight->hash || try_zero(ksm, sight)))
		return;
	if (try_stable(ksm, sight) || before != sight->hash)
		return;
	try_unstable(ksm, sight);
}

/* ---- one leaf ---- */

struct batch {
	unsigned n;
	struct sight sights[TABLE_LEAF_MAX];
};

/* A reference keeps the bytes while they are hashed. Requires: the leaf's lock. */
static void collect_entry(struct ksm *ksm, struct batch *batch, struct pte pte, uint64_t va)
{
	struct ucow_page *page;

	if (pte_kind(pte) != PTE_KIND_ANON)
		return;
	ksm->tally.pages++;
	page = pte_page(&ksm->machine->frames, pte);
	if (page_is(page, PAGE_KSM) || page_maybe_pinned(page) || page_try_get(page))
		return;
	batch->sights[batch->n++] = (struct sight){.va = va, .page = page};
}

/* Descriptors are met at random: fetch them side by side. */
static void prefetch(const struct frame_pool *frames, const struct table *leaf, uint64_t va, uint64_t end)
{
	for (; va < end; va += UCOW_PAGE_SIZE) {
		struct pte pte = leaf_get(leaf, va);

		if (pte_kind(pte) == PTE_KIND_ANON)
			__builtin_prefetch(pte_page(frames, pte), 1);
	}
}

/* From ksm->va on, until the leaf or @npages are used up. Requires: mmap_lock, a section. */
static void collect_leaf(struct ksm *ksm, struct batch *batch, struct table *leaf, uint64_t end, uint64_t npages)
{
	uint64_t most = ksm->tally.pages + npages;

	prefetch(&ksm->machine->frames, leaf, ksm->va, end);
	table_lock(leaf);
	for (; ksm->va < end && ksm->tally.pages < most; ksm->va += UCOW_PAGE_SIZE)
		collect_entry(ksm, batch, leaf_get(leaf, ksm->va), ksm->va);
	table_unlock(leaf);
}

/* The next leaf of mergeable memory at or after ksm->va. Requires: as above. Returns: NULL: none. */
static struct table *next_leaf(struct ksm *ksm, struct ucow_mm *mm, uint64_t *end)
{
	for (struct vma *vma = vma_find(&mm->vmas, ksm->va); vma; vma = vma_next(vma)) {
		struct table *leaf;

		if (!ksm_may_merge(mm, vma))
			continue;
		ksm->va = max_u64(ksm->va, vma->start);
		leaf = table_next_leaf(&mm->pt, &ksm->va, vma->end, false);
		if (leaf) {
			*end = table_leaf_end(ksm->va, vma->end);
			return leaf;
		}
	}
	return NULL;
}

static void hash_batch(struct ksm *ksm, struct batch *batch)
{
	for (unsigned i = 0; i < batch->n; i++) {
		struct sight *sight = &batch->sights[i];

		sight->hash = ksm_hash(ksm, page_bytes(sight->page));
		page_put(sight->page);
	}
}

/* One leaf's worth. The references are gone before a fork can begin. Returns: whether there was a leaf. */
static bool collect(struct ksm *ksm, struct ucow_mm *mm, struct batch *batch, uint64_t npages)
{
	struct table *leaf;
	uint64_t end = 0;

	batch->n = 0;
	rwlock_read_lock(&mm->mmap_lock);
	epoch_enter(&ksm->machine->epoch);
	leaf = next_leaf(ksm, mm, &end);
	if (leaf)
		collect_leaf(ksm, batch, leaf, end, npages);
	epoch_leave(&ksm->machine->epoch);
	hash_batch(ksm, batch);
	rwlock_read_unlock(&mm->mmap_lock);
	return leaf;
}

static void look_at_batch(struct ksm *ksm, struct ucow_mm *mm, struct batch *batch)
{
	struct ksm_space *space = batch->n ? ksm_space_of(ksm, mm) : NULL;

	if (batch->n && !space)
		note_error(ksm, -ENOMEM);
	for (unsigned i = 0; space && i < batch->n; i++) {
		batch->sights[i].space = space;
		look_at(ksm, &batch->sights[i]);
	}
}

/* ---- all spaces ---- */

static void scan_rewind(struct ksm *ksm)
{
	ksm->serial = 0;
	mutex_lock(&ksm->machine->lock);
	ksm->machine->scan_at = ksm->machine->spaces.next;
	mutex_unlock(&ksm->machine->lock);
}

static void scan_stop(struct ksm *ksm)
{
	mutex_lock(&ksm->machine->lock);
	ksm->machine->scan_at = NULL;
	mutex_unlock(&ksm->machine->lock);
}

static void begin_full_scan(struct ksm *ksm)
{
	epoch_synchronize(&ksm->machine->epoch); /* what waits for that looks like a reference */
	unstable_clear(&ksm->unstable);
	ksm->scan++;
	ksm->tally = (struct ksm_tally){0};
	scan_rewind(ksm);
}

static void end_full_scan(struct ksm *ksm)
{
	stable_prune(ksm);
	ksm->tally.unshared = ksm->unstable.alive;
	atomic_store_explicit(&ksm->unshared, ksm->unstable.alive, memory_order_relaxed);
	atomic_store_explicit(&ksm->changed, ksm->tally.changed, memory_order_relaxed);
	atomic_fetch_add_explicit(&ksm->full_scans, 1, memory_order_relaxed);
	scan_stop(ksm);
}

static struct ucow_mm *scan_space(struct ksm *ksm)
{
	struct ucow_machine *machine = ksm->machine;
	struct ucow_mm *mm = NULL;

	mutex_lock(&machine->lock);
	if (machine->scan_at && machine->scan_at != &machine->spaces) {
		mm = container_of(machine->scan_at, struct ucow_mm, link);
		if (!mm_hold(mm))
			UCOW_BUG("a space that ends is on the list");
	}
	mutex_unlock(&machine->lock);
	if (mm && mm->serial != ksm->serial) {
		ksm->serial = mm->serial;
		ksm->va = 0;
	}
	return mm;
}

/* The owner of @mm may have taken it off the list meanwhile, and the scanner with it to the next. */
static void scan_next_space(struct ksm *ksm, struct ucow_mm *mm)
{
	mutex_lock(&ksm->machine->lock);
	if (ksm->machine->scan_at == &mm->link)
		ksm->machine->scan_at = mm->link.next;
	mutex_unlock(&ksm->machine->lock);
}

static void leave_space(struct ksm *ksm, struct ucow_mm *mm)
{
	if (mm->ksm)
		ksm_space_trim(ksm, mm->ksm);
	scan_next_space(ksm, mm);
}

/* Returns: whether there is more of this full scan. */
static bool scan_step(struct ksm *ksm, uint64_t npages)
{
	struct ucow_mm *mm = scan_space(ksm);
	struct batch batch;

	if (!mm)
		return false;
	if (collect(ksm, mm, &batch, npages))
		look_at_batch(ksm, mm, &batch);
	else
		leave_space(ksm, mm);
	mm_release(mm);
	return true;
}

static bool is_scanning(struct ksm *ksm)
{
	bool scanning;

	mutex_lock(&ksm->machine->lock);
	scanning = ksm->machine->scan_at;
	mutex_unlock(&ksm->machine->lock);
	return scanning;
}

uint64_t ksm_scan(struct ksm *ksm, uint64_t npages)
{
	uint64_t done = 0, before;
	bool begun = false;

	while (done < npages) {
		if (!is_scanning(ksm)) {
			if (begun)
				break;
			begin_full_scan(ksm);
			begun = true;
		}
		before = ksm->tally.pages;
		if (!scan_step(ksm, npages - done))
			end_full_scan(ksm);
		done += ksm->tally.pages - before;
	}
	atomic_fetch_add_explicit(&ksm->scanned, done, memory_order_relaxed);
	return done;
}

void ksm_full_scan(struct ksm *ksm)
{
	begin_full_scan(ksm);
	while (scan_step(ksm, UINT64_MAX - ksm->tally.pages))
		;
	end_full_scan(ksm);
	atomic_fetch_add_explicit(&ksm->scanned, ksm->tally.pages, memory_order_relaxed);
}
