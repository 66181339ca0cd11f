/* SPDX-License-Identifier: MIT */
/* Creation, end and statistics of machines. */
#include "base/host.h"
#include "cache/cache.h"
#include "fault/policy.h"
#include "space/mm.h"
#include "swap/swap.h"

#include <ucow/debug.h>

#include <ucow/file.h>

#include <errno.h>
#include <string.h>

#define DEFAULT_RAM   ((uint64_t)64 << 20)
#define MACHINE_FLAGS (UCOW_MACHINE_POISON | UCOW_MACHINE_KEEP_RAM)

static const char *const fork_mode_names[UCOW_FORK_MODE_COUNT] = {
	[UCOW_FORK_DEFAULT] = "default",
	[UCOW_FORK_EAGER] = "eager",
	[UCOW_FORK_TABLES] = "tables",
	[UCOW_FORK_LAZY] = "lazy",
};

const char *ucow_fork_mode_name(enum ucow_fork_mode mode)
{
	return (unsigned)mode < UCOW_FORK_MODE_COUNT ? fork_mode_names[mode] : NULL;
}

int ucow_fork_mode_parse(const char *name, enum ucow_fork_mode *mode)
{
	for (unsigned i = 0; i < UCOW_FORK_MODE_COUNT; i++)
		if (!strcmp(name, fork_mode_names[i])) {
			*mode = (enum ucow_fork_mode)i;
			return 0;
		}
	return -EINVAL;
}

static int check_options(const struct ucow_machine_options *options)
{
	if (options->size != sizeof(*options) || (unsigned)options->policy >= UCOW_POLICY_COUNT ||
	    (unsigned)options->fork_mode >= UCOW_FORK_MODE_COUNT || (options->flags & ~MACHINE_FLAGS))
		return -EINVAL;
	if (options->ram_bytes > UCOW_ADDRESS_LIMIT)
		return -ENOMEM;
	/* Shared tables rest on exclusivity by page and path; the older policies know neither. */
	if (options->policy != UCOW_POLICY_EXCLUSIVE && options->fork_mode != UCOW_FORK_DEFAULT &&
	    options->fork_mode != UCOW_FORK_EAGER)
		return -EOPNOTSUPP;
	return 0;
}

static enum ucow_fork_mode fork_mode(const struct ucow_machine_options *options)
{
	if (options->fork_mode != UCOW_FORK_DEFAULT)
		return options->fork_mode;
	return options->policy == UCOW_POLICY_EXCLUSIVE ? UCOW_FORK_LAZY : UCOW_FORK_EAGER;
}

static uint64_t ram_bytes(const struct ucow_machine_options *options)
{
	uint64_t wanted = options->ram_bytes ? options->ram_bytes : DEFAULT_RAM;

	return (wanted + FRAME_BLOCK_BYTES - 1) & ~(FRAME_BLOCK_BYTES - 1);
}

static void release_page(struct epoch *epoch, void *page)
{
	(void)epoch;
	page_put(page);
}

static void release_tables(struct epoch *epoch, void *chain)
{
	table_release_chain(&container_of(epoch, struct ucow_machine, epoch)->tables, chain);
}

int ucow_machine_create(const struct ucow_machine_options *options, struct ucow_machine **result)
{
	struct ucow_machine *machine;
	int error = check_options(options);

	if (error)
		return error;
	machine = host_alloc_lines(sizeof(*machine));
	if (!machine)
		return -ENOMEM;
	error = frame_pool_init(&machine->frames, ram_bytes(options), &machine->inject, &machine->counters,
				debug_build || (options->flags & UCOW_MACHINE_POISON),
				options->flags & UCOW_MACHINE_KEEP_RAM);
	if (error) {
		host_free(machine);
		return error;
	}
	if (epoch_init(&machine->epoch, release_page, release_tables)) {
		frame_pool_destroy(&machine->frames);
		host_free(machine);
		return -ENOMEM;
	}
	memcg_set_init(machine);
	machine->fork_mode = fork_mode(options);
	table_pool_init(&machine->tables, &machine->frames, &machine->epoch, &machine->inject, &machine->counters,
			machine->fork_mode == UCOW_FORK_TABLES);
	machine->policy = cow_policy_of(options->policy);
	machine->pin_limit = options->pin_limit;
	machine->on_pinned_fork = options->on_pinned_fork;
	machine->on_page_lock_wait = options->on_page_lock_wait;
	machine->callback_arg = options->arg;
	mutex_init(&machine->lock, LOCK_MACHINE);
	mutex_init(&machine->swap_lock, LOCK_SWAPON);
	rwlock_init(&machine->relief_lock, LOCK_RELIEF);
	rwlock_init(&machine->notify_lock, LOCK_NOTIFY);
	list_init(&machine->notifiers);
	machine->shrink = pressure_ops.shrink;
	list_init(&machine->spaces);
	list_init(&machine->cpus);
	list_init(&machine->caches);
	list_init(&machine->orphans);
	*result = machine;
	return 0;
}

static uint64_t outstanding(const struct ucow_machine *machine, enum ucow_counter taken, enum ucow_counter released)
{
	/* Released first: a pin and its unpin between the two reads must not look like less than none. */
	uint64_t gone = counters_sum(&machine->counters, released);

	return counters_sum(&machine->counters, taken) - gone;
}

static bool is_busy(struct ucow_machine *machine)
{
	bool busy;

	mutex_lock(&machine->lock);
	busy = machine->nspaces || machine->ncpus;
	mutex_unlock(&machine->lock);
	spin_lock(&machine->caches_lock, LOCK_CACHES);
	busy |= machine->ncaches;
	spin_unlock(&machine->caches_lock, LOCK_CACHES);
	lru_drain(&machine->frames);
	return busy || frame_pool_used(&machine->frames);
}

void ucow_machine_synchronize(struct ucow_machine *machine)
{
	epoch_synchronize(&machine->epoch);
	lru_drain(&machine->frames);
}

int ucow_machine_destroy(struct ucow_machine *machine)
{
	cache_settle(machine);
	ucow_writeback_stop(machine);
	pressure_ops.settle(machine);
	epoch_synchronize(&machine->epoch);
	if (is_busy(machine))
		return -EBUSY;
	if (machine->ksm)
		machine->ksm_ops->destroy(machine); /* its thread first */
	swap_close(machine);
	lru_close(&machine->frames);
	epoch_destroy(&machine->epoch);
	table_pool_destroy(&machine->tables);
	memcg_set_destroy(machine);
	frame_pool_destroy(&machine->frames);
	mutex_destroy(&machine->lock);
	mutex_destroy(&machine->swap_lock);
	rwlock_destroy(&machine->relief_lock);
	rwlock_destroy(&machine->notify_lock);
	host_free(machine);
	return 0;
}

uint64_t ucow_machine_counter(const struct ucow_machine *machine, enum ucow_counter counter)
{
	return (unsigned)counter < UCOW_COUNTER_COUNT ? counters_sum(&machine->counters, counter) : 0;
}

void ucow_machine_stat(const struct ucow_machine *machine, struct ucow_machine_stat *stat)
{
	struct ucow_machine *m =
		(struct ucow_machine *)(uintptr_t)machine; /* locks only; nothing that is visible changes */

	*stat = (struct ucow_machine_stat){
		.ram_pages = m->frames.npages,
		.used_pages = frame_pool_used(&m->frames),
		.table_bytes = atomic_load(&m->tables.bytes),
		.gets = outstanding(m, UCOW_COUNTER_GETS, UCOW_COUNTER_PUTS),
		.pins = outstanding(m, UCOW_COUNTER_PINS, UCOW_COUNTER_UNPINS),
	};
	spin_lock(&m->frames.lock, LOCK_BUDDY);
	stat->committed_pages = m->frames.committed_blocks * FRAME_BLOCK_PAGES;
	spin_unlock(&m->frames.lock, LOCK_BUDDY);
	mutex_lock(&m->lock);
	stat->spaces = m->nspaces;
	mutex_unlock(&m->lock);
}

bool ucow_machine_inject(struct ucow_machine *machine, unsigned kinds, uint64_t nth)
{
	return inject_arm(&machine->inject, kinds, nth);
}
