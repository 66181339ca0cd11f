/* SPDX-License-Identifier: MIT */
/* Writing files back: by hand, by mapping, by age; and the thread that does it by itself. */
#include "base/daemon.h"
#include "base/host.h"
#include "cache/flush.h"

#include <ucow/file.h>

#include <errno.h>

/* ---- one file ---- */

static int told(struct ucow_file *file)
{
	return errseq_report(&file->cache->errors, &file->told);
}

int ucow_file_sync(struct ucow_file *file)
{
	flush_sync(file->cache, 0, UINT64_MAX);
	return told(file);
}

/* The last page of [offset, offset + nbytes), all that follow if nbytes is 0 or too much. */
static uint64_t last_page(uint64_t offset, uint64_t nbytes)
{
	uint64_t end;

	if (!nbytes || __builtin_add_overflow(offset, nbytes - 1, &end))
		return UINT64_MAX;
	return end >> UCOW_PAGE_SHIFT;
}

long ucow_file_writeback(struct ucow_file *file, uint64_t offset, uint64_t nbytes, unsigned flags)
{
	bool wait = flags & UCOW_WRITEBACK_WAIT;
	uint64_t n;
	int error;

	if (flags & ~UCOW_WRITEBACK_WAIT)
		return -EINVAL;
	if (!cache_is_tracked(file->cache))
		return 0;
	n = flush_range(file->cache, offset >> UCOW_PAGE_SHIFT, last_page(offset, nbytes), wait, UINT64_MAX);
	error = wait ? told(file) : 0;
	return error ? error : (long)n;
}

/* ---- mappings ---- */

/* What of a mapping is to be synced, found under the mmap lock and done without it. */
struct sync_range {
	struct ucow_file *file; /* NULL: nothing */
	uint64_t first, last;
};

static int sync_mapping(const struct sync_range *range)
{
	int error;

	flush_sync(range->file->cache, range->first, range->last);
	error = told(range->file);
	file_put(range->file);
	return error;
}

/*
 * The next mapping in [*va, end). *hole: something before it, or all, is not mapped. Returns: 0; -EBUSY. Requires: the
 * mmap lock.
 */
static int look_at_mapping(struct ucow_mm *mm, uint64_t *va, uint64_t end, unsigned flags, bool *hole,
			   struct sync_range *range)
{
	const struct vma *vma = vma_find(&mm->vmas, *va);
	uint64_t stop;

	if (!vma || vma->start >= end) {
		*hole = true;
		*va = end;
		return 0;
	}
	*hole |= vma->start > *va;
	*va = max_u64(*va, vma->start);
	stop = min_u64(end, vma->end);
	if ((flags & UCOW_MS_INVALIDATE) && (vma->flags & VMA_LOCKED))
		return -EBUSY;
	if ((flags & UCOW_MS_SYNC) && vma_is_tracked(vma)) {
		file_get(vma->file);
		*range = (struct sync_range){
			.file = vma->file,
			.first = vma_page_index(vma, *va),
			.last = vma_page_index(vma, stop - 1),
		};
	}
	*va = stop;
	return 0;
}

int ucow_msync(struct ucow_mm *mm, uint64_t va, uint64_t length, unsigned flags)
{
	uint64_t end = va + page_round_up(length);
	bool hole = false;
	int error = 0;

	if (flags & ~(UCOW_MS_ASYNC | UCOW_MS_INVALIDATE | UCOW_MS_SYNC) || (va & ~UCOW_PAGE_MASK) ||
	    (flags & (UCOW_MS_ASYNC | UCOW_MS_SYNC)) == (UCOW_MS_ASYNC | UCOW_MS_SYNC))
		return -EINVAL;
	if (end < va || page_round_up(length) < length)
		return -ENOMEM;
	while (va < end && !error) {
		struct sync_range range = {0};

		rwlock_read_lock(&mm->mmap_lock);
		error = look_at_mapping(mm, &va, end, flags, &hole, &range);
		rwlock_read_unlock(&mm->mmap_lock);
		if (range.file)
			error = sync_mapping(&range);
	}
	cache_settle(mm->machine);
	if (error)
		return error;
	return hole ? -ENOMEM : 0;
}

/* ---- by age ---- */

long ucow_writeback(struct ucow_machine *machine, uint64_t age_ns, uint64_t npages)
{
	return (long)flush_aged(machine, age_ns, npages);
}

/* ---- the thread ---- */

#define DEFAULT_INTERVAL_NS ((uint64_t)500 * 1000 * 1000)
#define DEFAULT_AGE_NS      ((uint64_t)3 * 1000 * 1000 * 1000)

struct writeback_thread {
	struct daemon daemon;
	struct ucow_machine *machine;
	struct ucow_writeback_options options;
};

static uint64_t turn(void *arg)
{
	struct writeback_thread *self = arg;
	const struct ucow_writeback_options *options = &self->options;

	flush_aged(self->machine, options->age_ns, UINT64_MAX);
	if (options->background && atomic_load(&self->machine->ndirty) >= options->background)
		flush_aged(self->machine, 0, UINT64_MAX);
	return options->interval_ns;
}

static struct writeback_thread *thread_create(struct ucow_machine *machine,
					      const struct ucow_writeback_options *options)
{
	struct writeback_thread *self;

	if (inject_fails(&machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	self = host_alloc(sizeof(*self));
	if (!self)
		return NULL;
	self->machine = machine;
	self->options = *options;
	if (!self->options.interval_ns)
		self->options.interval_ns = DEFAULT_INTERVAL_NS;
	if (!self->options.age_ns)
		self->options.age_ns = DEFAULT_AGE_NS;
	return self;
}

/* Requires: the machine's lock. */
static int start(struct ucow_machine *machine, const struct ucow_writeback_options *options)
{
	struct writeback_thread *self;
	int error;

	if (machine->writeback)
		return -EBUSY;
	self = thread_create(machine, options);
	if (!self)
		return -ENOMEM;
	error = daemon_start(&self->daemon, turn, self, self->options.interval_ns);
	if (error) {
		host_free(self);
		return error;
	}
	machine->writeback = self;
	atomic_store(&machine->dirty_limit, options->limit);
	return 0;
}

int ucow_writeback_start(struct ucow_machine *machine, const struct ucow_writeback_options *options)
{
	int error;

	if (!options || options->size != sizeof(*options))
		return -EINVAL;
	mutex_lock(&machine->lock);
	error = start(machine, options);
	mutex_unlock(&machine->lock);
	return error;
}

void ucow_writeback_stop(struct ucow_machine *machine)
{
	struct writeback_thread *self;

	mutex_lock(&machine->lock);
	self = machine->writeback;
	machine->writeback = NULL;
	atomic_store(&machine->dirty_limit, 0);
	mutex_unlock(&machine->lock);
	if (!self)
		return;
	daemon_stop(&self->daemon);
	host_free(self);
}
