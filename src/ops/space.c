/* SPDX-License-Identifier: MIT */
/* Creation, exit and statistics of spaces. */
#include "ops/ops.h"

#include <errno.h>

int ucow_mm_create(struct ucow_machine *machine, struct ucow_mm **mm)
{
	struct ucow_mm *made = mm_create(machine);

	if (!made)
		return -ENOMEM;
	*mm = made;
	return 0;
}

int ucow_mm_destroy(struct ucow_mm *mm)
{
	if (atomic_load(&mm->attached))
		return -EBUSY;
	rwlock_write_lock(&mm->mmap_lock);
	zap_range(mm, 0, UCOW_ADDRESS_LIMIT);
	vmas_remove(mm, 0, UCOW_ADDRESS_LIMIT);
	rwlock_write_unlock(&mm->mmap_lock);
	mm_free(mm);
	return 0;
}

void ucow_mm_stat(struct ucow_mm *mm, struct ucow_mm_stat *stat)
{
	struct table_totals totals;
	struct pin_account *account;

	rwlock_read_lock(&mm->mmap_lock);
	table_totals(mm->root, &totals);
	account = atomic_load(&mm->account);
	*stat = (struct ucow_mm_stat){
		.mapped_pages = mm->vmas.npages,
		.rss_anon = totals.anon,
		.rss_file = totals.file,
		.swap_entries = totals.swap,
		.table_bytes = totals.bytes,
		.mappings = mm->vmas.count,
		.pinned = account ? pin_account_count(account) : 0,
		.has_pinned = atomic_load(&mm->has_pinned),
	};
	rwlock_read_unlock(&mm->mmap_lock);
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
