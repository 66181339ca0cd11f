/* SPDX-License-Identifier: MIT */
/* Creation, exit and statistics of spaces. */
#include "ops/ops.h"

#include "cache/cache.h"
#include "fault/uffd.h"
#include "space/notifier.h"

#include <errno.h>

int ucow_mm_create(struct ucow_machine *machine, struct ucow_mm **mm)
{
	struct ucow_mm *made = mm_create(machine);

	if (!made)
		return -ENOMEM;
	if (page_table_make_root(&made->pt)) {
		mm_free(made);
		return -ENOMEM;
	}
	mm_publish(made);
	*mm = made;
	return 0;
}

void space_discard(struct ucow_mm *mm)
{
	struct ucow_machine *machine = mm->machine;

	mm_retire(mm);
	notify_release(mm);
	/* The tables first: pages of shared mappings are still in their objects. */
	page_table_drop(&mm->pt);
	vmas_remove(mm, 0, UCOW_ADDRESS_LIMIT);
	uffd_space_end(mm);
	mm_free(mm);
	epoch_settle(&machine->epoch);
	cache_settle(machine);
}

void space_write_unlock(struct ucow_mm *mm)
{
	struct ucow_snapshot_group *group = mm->group;
	bool trim = unlikely(group) && group_settle(group);
	struct list notes;

	list_init(&notes);
	uffd_take_notes(mm, &notes);
	rwlock_write_unlock(&mm->mmap_lock);
	epoch_settle(&mm->machine->epoch);
	cache_settle(mm->machine);
	uffd_send(&notes);
	if (unlikely(trim))
		(void)group_make_room(group, 0); /* what is unmapped is unmapped, whether or not a snapshot can go */
}

int ucow_mm_destroy(struct ucow_mm *mm)
{
	if (atomic_load(&mm->attached))
		return -EBUSY;
	if (mm->group)
		return mm->read_only ? snapshot_end(mm) : -EBUSY;
	mm_unpublish(mm);
	space_discard(mm);
	return 0;
}

void ucow_mm_stat(struct ucow_mm *mm, struct ucow_mm_stat *stat)
{
	struct table_totals totals;
	struct pin_account *account;

	rwlock_write_lock(&mm->mmap_lock);
	table_totals(&mm->pt, &totals);
	account = atomic_load(&mm->account);
	*stat = (struct ucow_mm_stat){
		.mapped_pages = mm->vmas.npages,
		.rss_anon = totals.anon,
		.rss_file = totals.file,
		.swap_entries = totals.swap,
		.table_bytes = totals.bytes,
		.table_bytes_private = totals.bytes_private,
		.table_bytes_shared = totals.bytes - totals.bytes_private,
		.frames_shared = totals.anon_shared,
		.frames_exclusive = totals.anon_exclusive,
		.mappings = mm->vmas.count,
		.locked_pages = locked_pages(mm),
		.pinned = account ? pin_account_count(account) : 0,
		.has_pinned = atomic_load(&mm->has_pinned),
	};
	rwlock_write_unlock(&mm->mmap_lock);
}

void ucow_mm_set_pin_limit(struct ucow_mm *mm, uint64_t pages)
{
	struct pin_account *account;

	/* mm_pin_account reads the limit again after it has published the account: whoever comes second sees the other.
	 */
	atomic_store(&mm->pin_limit, pages);
	account = atomic_load(&mm->account);
	if (account)
		atomic_store(&account->limit, pages);
}
