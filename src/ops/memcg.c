/* SPDX-License-Identifier: MIT */
/* Memory control groups as the embedder sees them. What is charged to whom is space/memcg.c's business. */
#include "ops/ops.h"

#include <errno.h>

static int64_t to_limit(uint64_t pages)
{
	return pages >= INT64_MAX ? PAGE_COUNTER_NO_LIMIT : (int64_t)pages;
}

static uint64_t from_limit(int64_t pages)
{
	return pages == PAGE_COUNTER_NO_LIMIT ? UCOW_MEMCG_NO_LIMIT : (uint64_t)pages;
}

/* What is charged and uncharged by several threads at once is never negative when it is read, but for a moment. */
static uint64_t to_count(int64_t pages)
{
	return pages > 0 ? (uint64_t)pages : 0;
}

int ucow_memcg_create(struct ucow_machine *machine, struct ucow_memcg *parent, uint64_t limit, uint64_t swap_limit,
		      struct ucow_memcg **memcg)
{
	struct ucow_memcg *made = NULL;
	int error;

	mutex_lock(&machine->swap_lock); /* the first swap device makes the lists of those groups that there are */
	error = memcg_create(machine, parent, to_limit(limit), to_limit(swap_limit), &made);
	if (!error && lru_vec_open(&machine->frames, made->id)) {
		(void)memcg_destroy(made); /* nobody knows it */
		error = -ENOMEM;
	}
	mutex_unlock(&machine->swap_lock);
	if (!error)
		*memcg = made;
	return error;
}

int ucow_memcg_destroy(struct ucow_memcg *memcg)
{
	return memcg_destroy(memcg);
}

/*
 * Bring the usage below the limit, for as long as something comes free: what waited for a grace period, and what
 * reclaim finds. Returns: 0; -EBUSY: it cannot be done.
 */
static int fit(struct ucow_memcg *memcg)
{
	struct ucow_machine *machine = memcg->machine;
	int64_t excess;

	while ((excess = page_counter_usage(&memcg->pages) - page_counter_limit(&memcg->pages)) > 0) {
		bool progress = epoch_synchronize(&machine->epoch) || lru_drain(&machine->frames);

		if (!progress)
			progress = machine->shrink(machine, memcg, (uint64_t)excess);
		if (!progress)
			return -EBUSY;
	}
	return 0;
}

int ucow_memcg_set_limit(struct ucow_memcg *memcg, uint64_t limit, uint64_t swap_limit)
{
	page_counter_set_limit(&memcg->pages, to_limit(limit));
	page_counter_set_limit(&memcg->swap, to_limit(swap_limit));
	return fit(memcg);
}

void ucow_memcg_stat(struct ucow_memcg *memcg, struct ucow_memcg_stat *stat)
{
	lru_drain(&memcg->machine->frames); /* what nobody uses any more is free */
	*stat = (struct ucow_memcg_stat){
		.usage = to_count(page_counter_usage(&memcg->pages)),
		.peak = to_count(page_counter_peak(&memcg->pages)),
		.limit = from_limit(page_counter_limit(&memcg->pages)),
		.swap_usage = to_count(page_counter_usage(&memcg->swap)),
		.swap_limit = from_limit(page_counter_limit(&memcg->swap)),
		.spaces = memcg_spaces(memcg),
		.max_events = atomic_load(&memcg->max_events),
		.oom_events = atomic_load(&memcg->oom_events),
		.swap_max_events = atomic_load(&memcg->swap_max_events),
		.reclaimed = atomic_load(&memcg->reclaimed),
	};
}

int ucow_mm_join(struct ucow_mm *mm, struct ucow_memcg *memcg)
{
	rwlock_write_lock(&mm->mmap_lock);
	mm_join(mm, memcg);
	rwlock_write_unlock(&mm->mmap_lock);
	return 0;
}

struct ucow_memcg *ucow_mm_memcg(const struct ucow_mm *mm)
{
	struct ucow_mm *locked = (struct ucow_mm *)(uintptr_t)mm; /* the lock only; nothing that is visible changes */
	struct ucow_memcg *memcg;

	rwlock_read_lock(&locked->mmap_lock);
	memcg = mm->memcg;
	rwlock_read_unlock(&locked->mmap_lock);
	return memcg;
}
