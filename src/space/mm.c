/* SPDX-License-Identifier: MIT */
/* Making and freeing spaces. */
#include "space/mm.h"

#include "base/host.h"

#include <ucow/mm.h>

struct ucow_mm *mm_create(struct ucow_machine *machine)
{
	struct ucow_mm *mm;

	if (inject_fails(&machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	mm = host_alloc(sizeof(*mm));
	if (!mm)
		return NULL;
	mm->machine = machine;
	mm->serial = atomic_fetch_add_explicit(&machine->last_serial, 1, memory_order_relaxed) + 1;
	atomic_init(&mm->pin_limit, machine->pin_limit);
	atomic_init(&mm->lock_limit, UINT64_MAX);
	rwlock_init(&mm->mmap_lock, LOCK_MMAP);
	list_init(&mm->uffds);
	list_init(&mm->uffd_notes);
	vma_set_init(&mm->vmas, UCOW_ADDRESS_MIN, UCOW_ADDRESS_LIMIT);
	page_table_init(&mm->pt, &machine->tables);
	list_init(&mm->file_users);
	return mm;
}

void mm_publish(struct ucow_mm *mm)
{
	struct ucow_machine *machine = mm->machine;

	mutex_lock(&machine->lock);
	list_add_tail(&machine->spaces, &mm->link);
	machine->nspaces++;
	mutex_unlock(&machine->lock);
}

static bool is_zero(const volatile void *word, uintptr_t unused)
{
	(void)unused;
	return !__atomic_load_n((const volatile uint32_t *)word, __ATOMIC_ACQUIRE);
}

void mm_unpublish(struct ucow_mm *mm)
{
	struct ucow_machine *machine = mm->machine;

	mutex_lock(&machine->lock);
	if (machine->scan_at == &mm->link)
		machine->scan_at = mm->link.next;
	list_del(&mm->link);
	mm->ending = true;
	machine->nspaces--;
	mutex_unlock(&machine->lock);
	wait_until(HOOK_LOAD, &mm->holds, is_zero, 0);
	if (mm->ksm)
		machine->ksm_ops->space_end(mm);
}

void mm_retire(struct ucow_mm *mm)
{
	if (mm->ending || list_is_empty(&mm->file_users))
		return;
	mutex_lock(&mm->machine->lock);
	mm->ending = true;
	mutex_unlock(&mm->machine->lock);
	wait_until(HOOK_LOAD, &mm->holds, is_zero, 0);
}

bool mm_hold(struct ucow_mm *mm)
{
	if (mm->ending)
		return false;
	atomic_fetch_add_explicit(&mm->holds, 1, memory_order_relaxed);
	return true;
}

void mm_release(struct ucow_mm *mm)
{
	atomic_fetch_sub_explicit(&mm->holds, 1, memory_order_release);
}

void mm_free(struct ucow_mm *mm)
{
	UCOW_BUG_ON(mm->vmas.count || mm->attached);
	page_table_drop(&mm->pt);
	memcg_leave(mm->memcg);
	pin_account_close(mm->account);
	rwlock_destroy(&mm->mmap_lock);
	host_free(mm);
}

void mm_join(struct ucow_mm *mm, struct ucow_memcg *memcg)
{
	memcg_join(memcg);
	memcg_leave(mm->memcg);
	mm->memcg = memcg;
}

struct pin_account *mm_pin_account(struct ucow_mm *mm)
{
	struct pin_account *account = atomic_load(&mm->account), *made;

	if (likely(account))
		return account;
	made = pin_account_create(&mm->machine->frames, atomic_load(&mm->pin_limit));
	if (!made)
		return NULL;
	if (atomic_compare_exchange_strong(&mm->account, &account, made)) {
		/* Again, now that ucow_mm_set_pin_limit can see it: a limit set since we read it is not lost. */
		atomic_store(&made->limit, atomic_load(&mm->pin_limit));
		return made;
	}
	pin_account_close(made);
	return account;
}

bool mm_range_is_valid(uint64_t va, uint64_t nbytes)
{
	return !(va & ~UCOW_PAGE_MASK) && nbytes && nbytes <= UCOW_ADDRESS_LIMIT && va >= UCOW_ADDRESS_MIN &&
	       va <= UCOW_ADDRESS_LIMIT - nbytes;
}

struct ucow_machine *ucow_mm_machine(const struct ucow_mm *mm)
{
	return mm->machine;
}
