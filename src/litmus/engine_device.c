/* SPDX-License-Identifier: MIT */
/*
 * Statements of everybody who reaches memory past the page tables: devices with pins and gets, pipes, O_DIRECT, other
 * processes, and scanners that lock pages.
 */
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef long gup_function(struct ucow_cpu *cpu, uint64_t va, size_t npages, unsigned flags, struct ucow_page **pages);

/* ---- handles ---- */

static struct ucow_page **alloc_pages(struct engine *engine, const struct stmt *stmt, uint64_t npages)
{
	struct ucow_page **pages = calloc(npages, sizeof(*pages));

	if (!pages)
		run_result_error(engine->result, stmt, "out of memory");
	return pages;
}

static void release_pages(enum name_kind kind, struct ucow_page **pages, size_t npages, bool dirty)
{
	switch (kind) {
	case NAME_PIN:
		if (dirty)
			ucow_unpin_user_pages_dirty_lock(pages, npages, true);
		else
			ucow_unpin_user_pages(pages, npages);
		break;
	case NAME_GET:
	case NAME_PIPE:
		ucow_put_pages(pages, npages);
		break;
	case NAME_LOCK:
		for (size_t i = 0; i < npages; i++)
			ucow_page_unlock(pages[i]);
		ucow_put_pages(pages, npages);
		break;
	case NAME_PROCESS:
	case NAME_REGION:
	case NAME_FILE:
	case NAME_CGROUP:
	case NAME_UFFD:
		break;
	}
}

void engine_drop_handle(enum name_kind kind, struct engine_handle *handle, bool dirty)
{
	if (handle->state == HANDLE_HELD)
		release_pages(kind, handle->pages, handle->npages, dirty);
	if (handle->state != HANDLE_UNBOUND)
		handle->state = HANDLE_RELEASED;
	free(handle->pages);
	handle->pages = NULL;
}

static void bind_handle(struct engine *engine, const struct stmt *stmt, struct ucow_page **pages, size_t npages)
{
	struct engine_handle *handle = &engine->objects[stmt->name].handle;

	handle->state = HANDLE_HELD;
	handle->pages = pages;
	handle->npages = npages;
	handle->offset = stmt->place.offset;
}

/*
 * Take the pages of the statement's place with @gup and bind them. Fewer pages than asked for is success, unless it was
 * a page lock that stopped the walk: then nothing is taken.
 */
static int take(struct engine *engine, const struct stmt *stmt, gup_function *gup, unsigned flags, enum name_kind kind)
{
	struct ucow_cpu *cpu = engine_cpu(engine, stmt, stmt->proc);
	uint64_t npages = stmt->place.npages;
	struct ucow_page **pages = cpu ? alloc_pages(engine, stmt, npages) : NULL;
	long taken;

	if (!pages)
		return 0;
	taken = gup(cpu, engine_va_start(engine, &stmt->place), npages, flags, pages);
	if (taken > 0 && (uint64_t)taken < npages && engine->met) {
		release_pages(kind, pages, (size_t)taken, false);
		taken = -EDEADLK;
	}
	if (taken <= 0) {
		free(pages);
		return taken ? engine_outcome((int)taken) : EFAULT;
	}
	bind_handle(engine, stmt, pages, (size_t)taken);
	return 0;
}

static unsigned gup_flags(unsigned options)
{
	return (options & GUP_OPT_WRITE ? UCOW_FOLL_WRITE : 0) | (options & GUP_OPT_LONGTERM ? UCOW_FOLL_LONGTERM : 0) |
	       (options & GUP_OPT_FORCE ? UCOW_FOLL_FORCE : 0);
}

int engine_pin(struct engine *engine, const struct stmt *stmt)
{
	gup_function *gup = stmt->options & GUP_OPT_FAST ? ucow_pin_user_pages_fast : ucow_pin_user_pages;

	return take(engine, stmt, gup, gup_flags(stmt->options), NAME_PIN);
}

int engine_get(struct engine *engine, const struct stmt *stmt)
{
	gup_function *gup = stmt->options & GUP_OPT_FAST ? ucow_get_user_pages_fast : ucow_get_user_pages;

	return take(engine, stmt, gup, gup_flags(stmt->options), NAME_GET);
}

/* vmsplice takes plain references for reading (semantics.md B.5). */
int engine_splice(struct engine *engine, const struct stmt *stmt)
{
	return take(engine, stmt, ucow_get_user_pages_fast, 0, NAME_PIPE);
}

int engine_device_write(struct engine *engine, const struct stmt *stmt)
{
	struct engine_handle *handle = engine_held(engine, stmt);
	const struct text *text = &stmt->texts[0];

	for (size_t i = 0; handle && i < handle->npages; i++)
		engine_store_bytes((char *)ucow_page_address(handle->pages[i]) + handle->offset, text->bytes,
				   text->nbytes);
	return 0;
}

static int release(struct engine *engine, const struct stmt *stmt, bool dirty)
{
	struct engine_handle *handle = engine_held(engine, stmt);

	if (handle)
		engine_drop_handle(engine->litmus->names[stmt->handle].kind, handle, dirty);
	return 0;
}

int engine_unpin(struct engine *engine, const struct stmt *stmt)
{
	return release(engine, stmt, stmt->options & 1);
}

int engine_put(struct engine *engine, const struct stmt *stmt)
{
	return release(engine, stmt, false);
}

/* ---- locks ---- */

/* Returns: NULL: all of them were locked; else none is, because of the one that is returned. */
static struct ucow_page *lock_pages(struct ucow_page **pages, size_t npages)
{
	for (size_t i = 0; i < npages; i++) {
		if (ucow_page_trylock(pages[i]))
			continue;
		for (size_t n = i; n--;)
			ucow_page_unlock(pages[n]);
		return pages[i];
	}
	return NULL;
}

/* Locked and bound as one, so that every other lane knows whom a taken lock belongs to. */
static bool lock_and_bind(struct engine *engine, const struct stmt *stmt, struct ucow_page **pages, size_t npages)
{
	engine_lock_shared();
	engine->met = lock_pages(pages, npages);
	if (!engine->met)
		bind_handle(engine, stmt, pages, npages);
	engine_unlock_shared();
	return !engine->met;
}

/* A scanner finds pages without a fault. Returns: how many, each with a reference; or an error if none. */
static long find_pages(struct engine *engine, const struct stmt *stmt, struct ucow_mm *mm, struct ucow_page **pages)
{
	uint64_t va = engine_va_start(engine, &stmt->place);
	int error = 0;
	long found = 0;

	while (found < (long)stmt->place.npages && !error) {
		error = ucow_lookup_page(mm, va + (uint64_t)found * UCOW_PAGE_SIZE, &pages[found]);
		found += !error;
	}
	return found ? found : error == -ENOENT ? -EFAULT : error;
}

/*
 * The lock comes with a reference, as every scanner of Linux holds one: a copy that the lock causes may leave the page
 * to the scanner alone.
 */
int engine_lock(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	uint64_t npages = stmt->place.npages;
	struct ucow_page **pages = process ? alloc_pages(engine, stmt, npages) : NULL;
	long found;

	if (!pages)
		return 0;
	found = find_pages(engine, stmt, process->mm, pages);
	if (found == (long)npages && lock_and_bind(engine, stmt, pages, npages))
		return 0;
	if (found > 0)
		ucow_put_pages(pages, (size_t)found);
	free(pages);
	if (found < (long)npages)
		return found < 0 ? engine_outcome((int)found) : EFAULT;
	return EDEADLK;
}

int engine_unlock(struct engine *engine, const struct stmt *stmt)
{
	engine_lock_shared();
	release(engine, stmt, false);
	engine_wake();
	engine_unlock_shared();
	return 0;
}

/* ---- other processes ---- */

/* Store @text, which does not leave its page. */
typedef int store_page(struct ucow_mm *mm, uint64_t va, const struct text *text);

static int poke_page(struct ucow_mm *mm, uint64_t va, const struct text *text)
{
	void *bytes = (void *)(uintptr_t)text->bytes; /* only read from */

	return ucow_access_remote(mm, va, bytes, text->nbytes, UCOW_FOLL_WRITE | UCOW_FOLL_FORCE, NULL);
}

static int remote_write_page(struct ucow_mm *mm, uint64_t va, const struct text *text)
{
	struct ucow_page *page;
	long taken = ucow_pin_user_pages_remote(mm, va & UCOW_PAGE_MASK, 1, UCOW_FOLL_WRITE, &page);

	if (taken != 1)
		return taken ? (int)taken : -EFAULT;
	engine_store_bytes((char *)ucow_page_address(page) + (va & ~UCOW_PAGE_MASK), text->bytes, text->nbytes);
	ucow_unpin_user_pages_dirty_lock(&page, 1, true);
	return 0;
}

static int store_remote(struct engine *engine, const struct stmt *stmt, store_page *store)
{
	struct engine_process *actor = engine_process(engine, stmt, stmt->proc);
	struct engine_process *other = engine_process(engine, stmt, stmt->proc2);
	int error = 0;

	for (; actor && other && engine->stored < stmt->place.npages; engine->stored++) {
		error = store(other->mm, engine_va(engine, &stmt->place, engine->stored), &stmt->texts[0]);
		if (error)
			break;
	}
	return engine_outcome(error);
}

/* /proc/PID/mem tells of anything that it cannot reach as EIO. */
int engine_poke(struct engine *engine, const struct stmt *stmt)
{
	int outcome = store_remote(engine, stmt, poke_page);

	return outcome == EFAULT || outcome == EACCES ? EIO : outcome;
}

int engine_remote_write(struct engine *engine, const struct stmt *stmt)
{
	return store_remote(engine, stmt, remote_write_page);
}

/* ---- O_DIRECT ---- */

/* O_DIRECT pins for as long as the transfer takes; what it cannot pin whole it refuses. */
static int direct(struct engine *engine, const struct stmt *stmt, bool to_file)
{
	struct ucow_cpu *cpu = engine_cpu(engine, stmt, stmt->proc);
	uint64_t npages = stmt->place.npages;
	struct ucow_page **pages = cpu ? alloc_pages(engine, stmt, npages) : NULL;
	bool ready = pages && (!to_file || engine_extend_file(engine, stmt));
	long taken = 0;

	if (ready)
		taken = ucow_pin_user_pages_fast(cpu, engine_va_start(engine, &stmt->place), npages,
						 to_file ? 0 : UCOW_FOLL_WRITE, pages);
	if (taken == (long)npages)
		engine_transfer(engine, stmt, pages, to_file);
	if (taken > 0)
		release_pages(NAME_PIN, pages, (size_t)taken, !to_file);
	free(pages);
	if (!ready || taken == (long)npages)
		return 0;
	return taken < 0 ? engine_outcome((int)taken) : engine->met ? EDEADLK : EFAULT;
}

int engine_direct_out(struct engine *engine, const struct stmt *stmt)
{
	return direct(engine, stmt, true);
}

int engine_direct_in(struct engine *engine, const struct stmt *stmt)
{
	return direct(engine, stmt, false);
}
