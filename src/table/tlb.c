/* SPDX-License-Identifier: MIT */
/* Taking cached translations back: generations, whose cpus could have some, and the wait for those. Rules 8 to 14. */
#include "table/internal.h"

#include "base/mutate.h"

/* ---- generations ---- */

void generations_init(struct generations *generations)
{
	for (unsigned i = 0; i < UCOW_TLB_REGIONS; i++)
		__atomic_store_n(&generations->of[i], 1, __ATOMIC_RELAXED);
}

static void bump(uint64_t *generation)
{
	hook_step(HOOK_ADD, generation);
	__atomic_fetch_add(generation, 1, __ATOMIC_SEQ_CST);
}

void tlb_invalidate(struct generations *generations, uint64_t start, uint64_t end)
{
	uint64_t first = start >> UCOW_TLB_REGION_SHIFT, last = (end - 1) >> UCOW_TLB_REGION_SHIFT;

	if (end <= start || MUTATED(SKIP_TLB_BUMP))
		return;
	if (last - first >= UCOW_TLB_REGIONS) {
		for (unsigned i = 0; i < UCOW_TLB_REGIONS; i++)
			bump(&generations->of[i]);
		return;
	}
	for (uint64_t region = first; region <= last; region++)
		bump(&generations->of[ucow_tlb_region(region << UCOW_TLB_REGION_SHIFT)]);
}

/*
 * All regions at once, by fork: 64 locked operations are spared. Whoever bumps one region holds the mmap lock, which
 * fork holds exclusively; reclaim alone does not (tlb_invalidate_all). If it bumps a counter between our load and our
 * store, then after the sequence was made odd, so that nothing is cached that has its value; and its bump is not lost,
 * for ours is as good. [ORD-GEN-2]
 */
static void generations_advance(struct generations *generations)
{
	for (unsigned i = 0; i < UCOW_TLB_REGIONS && !MUTATED(SKIP_TLB_BUMP); i++) {
		hook_step(HOOK_ADD, &generations->of[i]);
		__atomic_store_n(&generations->of[i], __atomic_load_n(&generations->of[i], __ATOMIC_RELAXED) + 1,
				 __ATOMIC_RELEASE);
	}
}

void table_changed(struct page_table *pt)
{
	generations_advance(&pt->generations);
	atomic_fetch_add(&pt->shape, 1); /* a full barrier: one locked operation for all regions */
}

void table_forget_walks(struct page_table *pt)
{
	table_changed_shape(pt);
}

void tlb_invalidate_all(struct epoch *epoch)
{
	spin_lock(&epoch->lock, LOCK_EPOCH);
	LIST_FOR_EACH (link, &epoch->members) {
		const struct epoch_member *member = container_of(link, struct epoch_member, link);
		struct page_table *pt = (struct page_table *)(uintptr_t)atomic_load_explicit(&member->of,
											     memory_order_relaxed);

		for (unsigned i = 0; pt && i < UCOW_TLB_REGIONS && !MUTATED(SKIP_TLB_BUMP); i++)
			bump(&pt->generations.of[i]);
	}
	spin_unlock(&epoch->lock, LOCK_EPOCH);
}

/* ---- cpus ---- */

void tlb_attach(struct epoch *epoch, struct epoch_member *member, struct page_table *pt, struct page_table *old)
{
	epoch_attach(epoch, member, pt, pt && !MUTATED(FORGET_CPU) ? &pt->cpu_slots : NULL,
		     old ? &old->cpu_slots : NULL);
}

bool tlb_is_mine(const struct page_table *pt)
{
	uint32_t slots = atomic_load(&pt->cpu_slots) & thread_slots_alive();
	unsigned slot = thread_slot();

	return !slots || (slot != THREAD_SLOT_SHARED && slots == (uint32_t)1 << slot);
}

void tlb_shootdown(struct page_table *pt)
{
	if (!tlb_is_mine(pt))
		epoch_expel(pt->pool->epoch, pt);
}
