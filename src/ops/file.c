/* SPDX-License-Identifier: MIT */
/* Files: opening, mapping, reading and writing through the cache, statistics. */
#include "ops/ops.h"

#include "cache/cache.h"
#include "swap/swap.h"

#include <ucow/file.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>

/* ---- opening ---- */

#if exploring
static int check_mode(const struct ucow_file_options *options)
{
	(void)options;
	return 0;
}
#else
/* What the descriptor permits. */
static int check_mode(const struct ucow_file_options *options)
{
	int flags = fcntl(options->fd, F_GETFL), mode;

	if (flags < 0)
		return -errno;
	mode = flags & O_ACCMODE;
	if (mode == O_WRONLY || (mode == O_RDONLY && !(options->flags & UCOW_FILE_READ_ONLY)))
		return -EACCES;
	return flags & O_APPEND ? -EINVAL : 0; /* pwrite would go to the end */
}
#endif

static int check_options(const struct ucow_file_options *options)
{
	if (options->size != sizeof(*options) || (options->flags & ~UCOW_FILE_READ_ONLY) || options->reserved)
		return -EINVAL;
	if (options->fd < -1)
		return -EBADF;
	if (options->offset > INT64_MAX || options->length > INT64_MAX - options->offset)
		return -EINVAL;
	if (options->fd == -1)
		return options->offset ? -EINVAL : 0;
	return options->offset & ~UCOW_PAGE_MASK ? -EINVAL : check_mode(options);
}

static int make_cache(struct ucow_machine *machine, const struct ucow_file_options *options, struct cache **result)
{
	uint64_t nbytes = options->length;
	struct backing backing;
	int error = backing_open(&backing, &machine->inject, options->fd, options->offset);

	if (error)
		return error;
	if (options->fd >= 0 && !nbytes)
		error = backing_size(&backing, &nbytes);
	*result = error ? NULL : cache_create(machine, nbytes, &backing);
	if (!*result) {
		backing_close(&backing);
		return error ? error : -ENOMEM;
	}
	(*result)->is_part = options->fd >= 0 && options->length;
	if (options->readahead)
		(*result)->readahead = options->readahead;
	return 0;
}

int ucow_file_open(struct ucow_machine *machine, const struct ucow_file_options *options, struct ucow_file **file)
{
	struct ucow_file *made;
	struct cache *cache;
	int error = check_options(options);

	if (!error && options->fd >= 0)
		error = swap_open_lists(machine); /* its pages can go under pressure */
	if (!error)
		error = make_cache(machine, options, &cache);
	if (error)
		return error;
	made = file_create(cache, options->flags);
	if (!made) {
		cache_put(cache);
		cache_settle(machine);
		return -ENOMEM;
	}
	*file = made;
	return 0;
}

int ucow_file_reopen(struct ucow_file *file, uint32_t flags, struct ucow_file **result)
{
	struct ucow_file *made;

	if ((flags & ~UCOW_FILE_READ_ONLY) || ((file->flags & UCOW_FILE_READ_ONLY) && !(flags & UCOW_FILE_READ_ONLY)))
		return -EINVAL;
	cache_get(file->cache);
	made = file_create(file->cache, flags);
	if (!made) {
		cache_put(file->cache); /* not the last */
		return -ENOMEM;
	}
	*result = made;
	return 0;
}

int ucow_file_close(struct ucow_file *file)
{
	struct cache *cache = file->cache;
	struct ucow_machine *machine = cache->machine;
	int error;

	/* Only this opener, and no mapping, has it: it is now or never. */
	if (cache_is_tracked(cache) && atomic_load(&cache->refcount) == 1)
		cache_flush(cache);
	error = errseq_report(&cache->errors, &file->told);
	file_put(file);
	cache_settle(machine);
	return error;
}

/* ---- mapping ---- */

int ucow_mmap_file(struct ucow_mm *mm, uint64_t hint, uint64_t length, unsigned prot, unsigned flags,
		   struct ucow_file *file, uint64_t offset, uint64_t *va)
{
	struct map_request request = {
		.hint = hint, .length = length, .prot = prot, .flags = flags, .file = file, .offset = offset};

	if ((offset & ~UCOW_PAGE_MASK) || (flags & UCOW_MAP_PFN) || file->cache->machine != mm->machine)
		return -EINVAL;
	if (offset > INT64_MAX || length > INT64_MAX - offset)
		return -EOVERFLOW;
	if ((flags & UCOW_MAP_SHARED) && (prot & UCOW_PROT_WRITE) && (file->flags & UCOW_FILE_READ_ONLY))
		return -EACCES;
	return space_map(mm, &request, va);
}

/* ---- reading and writing ---- */

/* Programs may be storing to the page: words where that goes, bytes at the ends. */
static void copy_out(char *to, const char *from, size_t nbytes)
{
	hook_step(HOOK_LOAD, from);
	for (; nbytes && ((uintptr_t)from & 7); nbytes--)
		*to++ = __atomic_load_n(from++, __ATOMIC_RELAXED);
	for (; nbytes >= 8; nbytes -= 8, to += 8, from += 8) {
		uint64_t word = __atomic_load_n((const uint64_t *)(const void *)from, __ATOMIC_RELAXED);

		__builtin_memcpy(to, &word, sizeof(word));
	}
	while (nbytes--)
		*to++ = __atomic_load_n(from++, __ATOMIC_RELAXED);
}

static void copy_in(char *to, const char *from, size_t nbytes)
{
	hook_step(HOOK_STORE, to);
	for (; nbytes && ((uintptr_t)to & 7); nbytes--)
		__atomic_store_n(to++, *from++, __ATOMIC_RELAXED);
	for (; nbytes >= 8; nbytes -= 8, to += 8, from += 8) {
		uint64_t word;

		__builtin_memcpy(&word, from, sizeof(word));
		__atomic_store_n((uint64_t *)(void *)to, word, __ATOMIC_RELAXED);
	}
	while (nbytes--)
		__atomic_store_n(to++, *from++, __ATOMIC_RELAXED);
}

/* cache_fetch for a call that holds no lock: where memory lacks, room is made. */
static int fetch(struct cache *cache, uint64_t index, struct ucow_page **page)
{
	unsigned tries = 0;
	bool major = false;
	int error;

	do
		error = cache_fetch(cache, NULL, index, page, &major);
	while (unlikely(error == -ENOMEM) && machine_relieve(cache->machine, &tries));
	return error;
}

/* The part of [*offset, *offset + nbytes) that lies in one page. */
static size_t part_of_page(uint64_t offset, size_t nbytes)
{
	return (size_t)min_u64(nbytes, UCOW_PAGE_SIZE - (offset & ~UCOW_PAGE_MASK));
}

long ucow_file_read(struct ucow_file *file, void *buffer, size_t nbytes, uint64_t offset)
{
	struct cache *cache = file->cache;
	size_t done = 0;
	int error = 0;

	if (offset > INT64_MAX)
		return -EINVAL;
	nbytes = (size_t)min_u64(nbytes, LONG_MAX);
	while (done < nbytes && offset + done < cache_size(cache)) {
		size_t part = part_of_page(offset + done, nbytes - done);
		struct ucow_page *page;

		error = fetch(cache, (offset + done) >> UCOW_PAGE_SHIFT, &page);
		if (error)
			break;
		part = (size_t)min_u64(part, cache_size(cache) - min_u64(offset + done, cache_size(cache)));
		copy_out((char *)buffer + done, (char *)page_bytes(page) + ((offset + done) & ~UCOW_PAGE_MASK), part);
		page_put(page);
		done += part;
	}
	return done || !error || error == -ENXIO ? (long)done : error;
}

/* Requires: the resize lock. Returns: 0; what cache_fetch says. */
static int write_part(struct cache *cache, const char *buffer, size_t nbytes, uint64_t offset)
{
	struct ucow_page *page;
	bool major;
	int error = cache_fetch(cache, NULL, offset >> UCOW_PAGE_SHIFT, &page, &major);

	if (error)
		return error;
	copy_in((char *)page_bytes(page) + (offset & ~UCOW_PAGE_MASK), buffer, nbytes);
	cache_set_dirty(cache, page);
	page_put(page);
	return 0;
}

/* Whether [offset, offset + nbytes) may be written; the size grows as far as that is so. Requires: the resize lock. */
static int make_room(struct cache *cache, uint64_t offset, size_t nbytes)
{
	if (offset + nbytes <= cache_size(cache))
		return 0;
	if (!cache_is_tracked(cache) || cache->is_part)
		return -EFBIG;
	return file_grow(cache, offset + nbytes);
}

/* One page's worth at a time, so that the lock is never held over reclaim. What cannot be written moves no end. */
static int write_step(struct cache *cache, const char *buffer, size_t nbytes, uint64_t offset)
{
	uint64_t size;
	int error;

	mutex_lock(&cache->resize);
	size = cache_size(cache);
	error = make_room(cache, offset, nbytes);
	if (!error)
		error = write_part(cache, buffer, nbytes, offset);
	if (unlikely(error) && cache_size(cache) != size)
		(void)file_shrink(cache, size);
	mutex_unlock(&cache->resize);
	return error;
}

long ucow_file_write(struct ucow_file *file, const void *buffer, size_t nbytes, uint64_t offset)
{
	unsigned tries = 0;
	size_t done = 0;
	int error = 0;

	if (offset > INT64_MAX || nbytes > INT64_MAX - offset)
		return offset > INT64_MAX ? -EINVAL : -EFBIG;
	if (file->flags & UCOW_FILE_READ_ONLY)
		return -EACCES;
	while (done < nbytes && !error) {
		size_t part = part_of_page(offset + done, nbytes - done);

		error = write_step(file->cache, (const char *)buffer + done, part, offset + done);
		done += error ? 0 : part;
		if (unlikely(error == -ENOMEM) && machine_relieve(file->cache->machine, &tries))
			error = 0;
	}
	return done || !error ? (long)done : error;
}

/* ---- looking ---- */

void ucow_file_stat(struct ucow_file *file, struct ucow_file_stat *stat)
{
	struct cache *cache = file->cache;

	spin_lock(&cache->lock, LOCK_CACHE);
	*stat = (struct ucow_file_stat){
		.size = cache_size(cache),
		.cached = cache->npages,
		.dirty = cache->tagged[CACHE_DIRTY],
		.writeback = cache->tagged[CACHE_WRITEBACK],
		.spaces = cache->nusers,
		.openers = atomic_load(&cache->openers),
		.read = atomic_load(&cache->nread),
		.written = atomic_load(&cache->nwritten),
		.read_errors = atomic_load(&cache->read_errors),
		.write_errors = atomic_load(&cache->write_errors),
		.bounced = atomic_load(&cache->bounced),
	};
	spin_unlock(&cache->lock, LOCK_CACHE);
}

unsigned ucow_file_page(struct ucow_file *file, uint64_t offset)
{
	struct ucow_page *page;
	unsigned is = UCOW_FILE_PAGE_CACHED;

	if (cache_find(file->cache, offset >> UCOW_PAGE_SHIFT, &page))
		return 0;
	is |= page_is(page, PAGE_DIRTY) ? UCOW_FILE_PAGE_DIRTY : 0;
	is |= page_is(page, PAGE_WRITEBACK) ? UCOW_FILE_PAGE_WRITEBACK : 0;
	is |= page_mapcount(page) ? UCOW_FILE_PAGE_MAPPED : 0;
	is |= page_maybe_pinned(page) ? UCOW_FILE_PAGE_PINNED : 0;
	page_put(page);
	return is;
}
