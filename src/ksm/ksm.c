/* SPDX-License-Identifier: MIT */
/* The machine's scanner, made at first use, and the calls of ucow/ksm.h. */
#include "ksm/ksm.h"

#include "base/host.h"

#include <errno.h>

#define DEFAULT_SHARING 256
#define DEFAULT_PAGES   100
#define MERGE_SCANS     64 /* of ucow_ksm_merge, however much is being stored meanwhile */

/* ---- the machine's scanner ---- */

static const char *check(struct ucow_machine *machine, const struct ucow_page *page)
{
	return stable_check(machine->ksm, page);
}

static void destroy(struct ucow_machine *machine)
{
	struct ksm *ksm = machine->ksm;

	if (ksm->stop)
		ksm->stop(machine);
	machine->homes = NULL;
	stable_destroy(ksm);
	epoch_synchronize(&machine->epoch); /* families that nodes kept */
	unstable_destroy(&ksm->unstable);
	host_free(ksm->spaces);
	mutex_destroy(&ksm->lock);
	host_free(ksm);
	machine->ksm = NULL;
}

static const struct rmap_homes homes = {.for_each = homes_for_each};

static const struct ksm_ops ops = {
	.space_end = ksm_space_end,
	.destroy = destroy,
	.check = check,
};

static struct ucow_ksm_options defaults(void)
{
	return (struct ucow_ksm_options){
		.size = sizeof(struct ucow_ksm_options),
		.max_page_sharing = DEFAULT_SHARING,
		.pages_to_scan = DEFAULT_PAGES,
	};
}

static struct ksm *create(struct ucow_machine *machine)
{
	struct ksm *ksm;

	if (inject_fails(&machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	ksm = host_alloc(sizeof(*ksm));
	if (!ksm)
		return NULL;
	if (stable_init(&ksm->stable)) {
		host_free(ksm);
		return NULL;
	}
	ksm->machine = machine;
	mutex_init(&ksm->lock, LOCK_KSM);
	ksm->options = defaults();
	ksm->hash_mask = ~(uint64_t)0;
	ksm->zero_hash = ksm_hash(ksm, page_bytes(machine->frames.zero_page));
	return ksm;
}

int ksm_of(struct ucow_machine *machine, struct ksm **result)
{
	int error = 0;

	if (!ksm_hash_is_built())
		return -EOPNOTSUPP;
	mutex_lock(&machine->lock);
	if (!machine->ksm) {
		machine->ksm_ops = &ops;
		machine->ksm = create(machine);
		error = machine->ksm ? 0 : -ENOMEM;
		machine->homes = machine->ksm ? &homes : NULL;
	}
	*result = machine->ksm;
	mutex_unlock(&machine->lock);
	return error;
}

void ksm_lock(struct ksm *ksm)
{
	atomic_fetch_add(&ksm->waiting, 1);
	mutex_lock(&ksm->lock);
	atomic_fetch_sub(&ksm->waiting, 1);
}

void ksm_unlock(struct ksm *ksm)
{
	mutex_unlock(&ksm->lock);
}

/* ---- the calls ---- */

int ucow_ksm_configure(struct ucow_machine *machine, const struct ucow_ksm_options *options)
{
	struct ksm *ksm;
	int error;

	if (!options || options->size != sizeof(*options) || options->max_page_sharing == 1)
		return -EINVAL;
	error = ksm_of(machine, &ksm);
	if (error)
		return error;
	ksm_lock(ksm);
	ksm->options = *options;
	if (!options->max_page_sharing)
		ksm->options.max_page_sharing = DEFAULT_SHARING;
	if (!options->pages_to_scan)
		ksm->options.pages_to_scan = DEFAULT_PAGES;
	ksm_unlock(ksm);
	return 0;
}

static int enter(struct ucow_machine *machine, struct ksm **ksm)
{
	int error = ksm_of(machine, ksm);

	if (error)
		return error;
	ksm_lock(*ksm);
	(*ksm)->error = 0;
	return 0;
}

/* What a call has merged since @before goes to *merged. */
static int leave(struct ksm *ksm, uint64_t before, uint64_t *merged)
{
	int error = ksm->error;

	if (merged)
		*merged += atomic_load_explicit(&ksm->merged, memory_order_relaxed) - before;
	ksm_unlock(ksm);
	return error;
}

int ucow_ksm_scan(struct ucow_machine *machine, uint64_t npages, uint64_t *merged)
{
	struct ksm *ksm;
	uint64_t before;
	int error = enter(machine, &ksm);

	if (error)
		return error;
	before = atomic_load_explicit(&ksm->merged, memory_order_relaxed);
	ksm_scan(ksm, npages);
	return leave(ksm, before, merged);
}

int ucow_ksm_merge(struct ucow_machine *machine, uint64_t *merged)
{
	struct ksm *ksm;
	uint64_t before;
	unsigned scans = 0;
	int error = enter(machine, &ksm);

	if (error)
		return error;
	before = atomic_load_explicit(&ksm->merged, memory_order_relaxed);
	do
		ksm_full_scan(ksm);
	while (++scans < 2 || ((ksm->tally.merged || ksm->tally.fresh) && !ksm->error && scans < MERGE_SCANS));
	return leave(ksm, before, merged);
}

void ucow_ksm_stat(struct ucow_machine *machine, struct ucow_ksm_stat *stat)
{
	struct ksm *ksm;

	*stat = (struct ucow_ksm_stat){0};
	mutex_lock(&machine->lock);
	ksm = machine->ksm;
	mutex_unlock(&machine->lock);
	if (!ksm)
		return;
	stat->pages_unshared = atomic_load_explicit(&ksm->unshared, memory_order_relaxed);
	stat->pages_volatile = atomic_load_explicit(&ksm->changed, memory_order_relaxed);
	stat->zero_pages = atomic_load_explicit(&machine->tables.merged_zero, memory_order_relaxed);
	stat->pages_scanned = atomic_load_explicit(&ksm->scanned, memory_order_relaxed);
	stat->full_scans = atomic_load_explicit(&ksm->full_scans, memory_order_relaxed);
	stat->merged = atomic_load_explicit(&ksm->merged, memory_order_relaxed);
	stat->stale_nodes = atomic_load_explicit(&ksm->stale, memory_order_relaxed);
	stable_stat(ksm, stat);
}
