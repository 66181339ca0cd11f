/* SPDX-License-Identifier: MIT */
/* Looking at entries and tables without touching them. */
#include "fault/fault.h"

#include <ucow/debug.h>

#include <errno.h>

static void describe_page(const struct ucow_page *page, struct ucow_entry_info *info)
{
	info->mapcount = page_mapcount(page);
	info->refcount = page_refcount(page);
	info->anon = page_is(page, PAGE_ANON);
	info->exclusive = page_is(page, PAGE_EXCLUSIVE);
	info->ksm = page_is(page, PAGE_KSM);
	info->maybe_pinned = page_maybe_pinned(page);
}

static void describe_entry(const struct frame_pool *frames, struct pte pte, struct ucow_entry_info *info)
{
	info->present = pte_is_present(pte);
	info->swapped = pte_is_swap(pte);
	info->writable = pte_is_writable(pte) && !pte_is_protnone(pte);
	info->dirty = pte_is_dirty(pte) && !pte_is_merged_zero(pte);
	info->accessed = pte_is_accessed(pte);
	info->soft_dirty = pte_is_soft_dirty(pte);
	info->uffd_wp = pte_is_uffd_wp(pte);
	info->special = pte_is_special(pte);
	info->protnone = pte_is_protnone(pte);
	info->zero_page = pte_kind(pte) == PTE_KIND_ZERO_PAGE;
	if (pte_has_page(pte)) {
		info->pfn = pte_frame(pte);
		describe_page(pte_page(frames, pte), info);
	} else if (info->zero_page) {
		info->pfn = pte_frame(pte);
	}
}

struct paths {
	uint64_t pfn;
	uint32_t found;
};

static int count_paths_in_leaf(void *arg, struct table *table, uint64_t start, bool is_private)
{
	struct paths *paths = arg;

	(void)is_private;
	for (uint64_t va = start; !table->level && va < start + table_span(0); va += UCOW_PAGE_SIZE) {
		struct pte pte = leaf_get(table, va);

		paths->found += pte_has_page(pte) && pte_frame(pte) == paths->pfn;
	}
	return 0;
}

/*
 * A lazy fork counts no mappings: what is reported is the number of paths that lead to the page. Looks at every entry
 * of every space; it is for debugging.
 */
static uint32_t count_paths(struct ucow_machine *machine, uint64_t pfn)
{
	struct paths paths = {.pfn = pfn};

	mutex_lock(&machine->lock);
	LIST_FOR_EACH (link, &machine->spaces) {
		struct ucow_mm *mm = container_of(link, struct ucow_mm, link);

		rwlock_write_lock(&mm->mmap_lock); /* its own thread replaces tables under the shared lock */
		table_walk(&mm->pt, count_paths_in_leaf, &paths);
		rwlock_write_unlock(&mm->mmap_lock);
	}
	mutex_unlock(&machine->lock);
	return paths.found;
}

void ucow_query(struct ucow_mm *mm, uint64_t va, struct ucow_entry_info *info)
{
	const struct vma *vma;
	struct walk walk = {0};

	*info = (struct ucow_entry_info){0};
	rwlock_read_lock(&mm->mmap_lock);
	epoch_enter(&mm->machine->epoch);
	vma = vma_at(&mm->vmas, va);
	if (vma) {
		info->mapped = true;
		info->prot = (vma->flags & VMA_READ ? UCOW_PROT_READ : 0) |
			     (vma->flags & VMA_WRITE ? UCOW_PROT_WRITE : 0);
		walk = table_walk_now(&mm->pt, va);
	}
	if (walk.leaf) {
		table_lock(walk.leaf);
		describe_entry(&mm->machine->frames, leaf_get(walk.leaf, va), info);
		table_unlock(walk.leaf);
		/* What lies under a shared table is neither writable nor exclusive, whatever the entry says. */
		info->writable &= walk.is_private && !mm->read_only;
		info->exclusive &= walk.is_private;
	}
	epoch_leave(&mm->machine->epoch);
	rwlock_read_unlock(&mm->mmap_lock);
	if (mm->machine->fork_mode == UCOW_FORK_LAZY && info->mapcount)
		info->mapcount = count_paths(mm->machine, info->pfn);
}

/* Requires: mmap_lock. */
static int lookup_locked(struct ucow_mm *mm, uint64_t va, struct ucow_page **result)
{
	struct table *leaf = va < UCOW_ADDRESS_LIMIT ? table_find_leaf(&mm->pt, va) : NULL;
	struct ucow_page *page = NULL;
	struct pte pte;
	int error = 0;

	if (!leaf)
		return -ENOENT;
	if (table_own_leaf(&mm->pt, va, &leaf))
		return -ENOMEM;
	table_mark_path(&mm->pt, va);
	table_lock(leaf);
	pte = leaf_get(leaf, va);
	if (pte_has_page(pte)) {
		page = pte_page(&mm->machine->frames, pte);
		error = page_try_get(page);
	}
	table_unlock(leaf);
	if (!page)
		return -ENOENT;
	if (error)
		return error;
	count(&mm->machine->counters, UCOW_COUNTER_GETS);
	*result = page;
	return 0;
}

int ucow_lookup_page(struct ucow_mm *mm, uint64_t va, struct ucow_page **page)
{
	int error;

	rwlock_read_lock(&mm->mmap_lock);
	epoch_enter(&mm->machine->epoch);
	error = lookup_locked(mm, va, page);
	epoch_leave(&mm->machine->epoch);
	rwlock_read_unlock(&mm->mmap_lock);
	return error;
}

struct visitor {
	int (*visit)(void *arg, const struct ucow_table_info *table);
	void *arg;
};

static int visit_table(void *arg, struct table *table, uint64_t start, bool is_private)
{
	const struct visitor *visitor = arg;
	const struct ucow_table_info info = {
		.level = table->level,
		.start = start,
		.end = start + table_span(table->level),
		.entries = table_fanout(table->level),
		.used = table->used,
		.refcount = atomic_load(&table->refcount),
		.anon = table->anon,
		.file = table->file,
		.swap = table->swap,
		.may_hold_refs = table->hints & TABLE_MAY_HOLD_REFS,
	};

	(void)is_private;
	return visitor->visit(visitor->arg, &info);
}

int ucow_walk_tables(struct ucow_mm *mm, int (*visit)(void *arg, const struct ucow_table_info *table), void *arg)
{
	struct visitor visitor = {visit, arg};
	int result;

	rwlock_write_lock(&mm->mmap_lock);
	result = table_walk(&mm->pt, visit_table, &visitor);
	rwlock_write_unlock(&mm->mmap_lock);
	return result;
}
