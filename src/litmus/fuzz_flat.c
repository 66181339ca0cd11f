/* SPDX-License-Identifier: MIT */
/*
 * The flat reference model as a subject: what every statement must come to where each page of each process is bytes of
 * its own. Two things it leaves open. What a plain reference sees once its page is shared: the fork modes differ there
 * (docs/semantics.md, "Departures"). And what a device does that writes through such a reference, or through one for
 * reading: the test ends before that.
 */
#include "flat.h"
#include "fuzz.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_VPN UINT64_C(1024)
#define APART     16 /* page numbers from the first page of a region to that of the next one, per page */

_Static_assert((int)FUZZ_PROCESSES <= (int)MODEL_SPACES && (int)FUZZ_HANDLES <= (int)MODEL_HANDLES &&
		       (int)FUZZ_HANDLE_PAGES <= (int)MODEL_HANDLE_PAGES && (int)FUZZ_PAGES < (int)MODEL_SLOTS,
	       "the model has room for every test");

/* Pages of a file that mappings may reach, beyond its end too; and names of a test that fits a view. */
enum { MOST_MAPPED = 64, MOST_NAMES = 256 };

struct subject {
	struct fuzz_subject subject;
	const struct fuzz_test *test;
	struct model model;
	uint64_t offsets[FUZZ_HANDLES]; /* of their places, into each page */
	/*
	 * Whether a process has stored to a page since it last forked or was forked, if ever. Of a page that it has
	 * not, a plain reference promises nothing in lazy mode, even where a child got nothing of it (dontfork,
	 * wipeonfork).
	 */
	bool stored[FUZZ_PROCESSES][FUZZ_PAGES];
	/*
	 * What a handle sees, by plain references; and by short read pins, which may have met the zero page where a
	 * page may have gone, or have been merged with it.
	 */
	bool promised[FUZZ_HANDLES][FUZZ_HANDLE_PAGES];
	bool bound[MOST_NAMES];                  /* userfaultfds, by name */
	struct model_object *mapped[FUZZ_FILES]; /* files that may be mapped */
	struct {
		unsigned npages;
		uint8_t bytes[FUZZ_FILE_PAGES][MODEL_PAGE];
		uint8_t loose[FUZZ_FILE_PAGES][MODEL_PAGE]; /* as in struct model_bytes */
	} files[FUZZ_FILES];
};

/* A statement being done. */
struct doing {
	struct subject *s;
	const struct stmt *stmt;
	struct model_space *space; /* of the acting process */
	unsigned process;
	uint64_t vpn, npages; /* the place */
	struct fuzz_view *view;
};

static struct subject *own(struct fuzz_subject *subject)
{
	return (struct subject *)subject;
}

/* ---- where things are ---- */

static unsigned index_of(const int *list, unsigned n, int name)
{
	unsigned i = 0;

	while (i < n && list[i] != name)
		i++;
	return i;
}

static unsigned process_index(const struct subject *s, int name)
{
	return index_of(s->test->layout.process, s->test->layout.nprocesses, name);
}

static unsigned handle_index(const struct subject *s, int name)
{
	return index_of(s->test->layout.handle, s->test->layout.nhandles, name);
}

static unsigned file_index(const struct subject *s, int name)
{
	return index_of(s->test->layout.file, s->test->layout.nfiles, name);
}

static uint64_t region_vpn(const struct subject *s, int region)
{
	unsigned first = 0;

	while (s->test->layout.page[first].region != region)
		first++;
	return FIRST_VPN + (uint64_t)first * APART;
}

/* The number in the layout of the page at @vpn. */
static unsigned page_number(uint64_t vpn)
{
	return (unsigned)((vpn - FIRST_VPN) / APART + (vpn - FIRST_VPN) % APART);
}

/* ---- statements; outcomes as in struct stmt.error ---- */

typedef int flat_step(struct doing *d);

/* A snapshot refuses whatever would change it. */
static bool refuses(const struct doing *d)
{
	return d->space->read_only;
}

static int do_map(struct doing *d)
{
	if (refuses(d))
		return EACCES;
	if (d->stmt->file >= 0) {
		model_mmap_file(&d->s->model, d->process, region_vpn(d->s, d->stmt->name), d->stmt->count,
				(unsigned)d->stmt->prot, d->stmt->options & MAP_OPT_SHARED,
				d->stmt->options & MAP_OPT_POPULATE, d->s->mapped[file_index(d->s, d->stmt->file)],
				d->stmt->file_page);
		return 0;
	}
	model_mmap(&d->s->model, d->process, region_vpn(d->s, d->stmt->name), d->stmt->count, (unsigned)d->stmt->prot,
		   d->stmt->options & MAP_OPT_SHARED, d->stmt->options & MAP_OPT_POPULATE);
	return 0;
}

static int do_unmap(struct doing *d)
{
	if (refuses(d))
		return EACCES;
	model_munmap(&d->s->model, d->process, d->vpn, d->npages);
	return 0;
}

static int do_protect(struct doing *d)
{
	if (refuses(d))
		return EACCES;
	return -model_mprotect(&d->s->model, d->process, d->vpn, d->npages, (unsigned)d->stmt->prot);
}

/* Several mappings move with the holes between them; what begins with a hole does not. */
static int do_move(struct doing *d)
{
	uint64_t to = region_vpn(d->s, d->stmt->name);

	if (refuses(d))
		return EACCES;
	if (!model_find(d->space, d->vpn))
		return EFAULT;
	for (uint64_t i = 0; i < d->npages; i++)
		d->s->stored[d->process][page_number(to + i)] = d->s->stored[d->process][page_number(d->vpn + i)];
	model_move(&d->s->model, d->process, d->vpn, d->npages, d->npages, to, false);
	return 0;
}

/* Where a page lies changes nothing of what it holds. */
static bool presses(enum litmus_advice advice)
{
	return advice == ADVICE_PAGEOUT || advice == ADVICE_COLD || advice == ADVICE_MERGEABLE ||
	       advice == ADVICE_UNMERGEABLE;
}

static bool is_locked(const struct doing *d)
{
	for (uint64_t i = 0; i < d->npages; i++) {
		const struct model_page *page = model_find(d->space, d->vpn + i);

		if (page && page->locked)
			return true;
	}
	return false;
}

/* What the space has taken plain references to it may lose sight of: they promise nothing. */
static void forget_gets(struct doing *d)
{
	for (unsigned i = 0; i < FUZZ_HANDLES; i++)
		if (d->s->model.handles[i].space_id == d->space->id && !d->s->model.handles[i].pin)
			memset(d->s->promised[i], 0, sizeof(d->s->promised[i]));
}

static int do_advise(struct doing *d)
{
	static const struct {
		bool known;
		enum model_advice advice;
	} words[ADVICE_COUNT] = {
		[ADVICE_DONTFORK] = {true, MODEL_DONTFORK},
		[ADVICE_DOFORK] = {true, MODEL_DOFORK},
		[ADVICE_WIPEONFORK] = {true, MODEL_WIPEONFORK},
		[ADVICE_KEEPONFORK] = {true, MODEL_KEEPONFORK},
		[ADVICE_DONTNEED] = {true, MODEL_DONTNEED},
		[ADVICE_FREE] = {true, MODEL_FREE},
		[ADVICE_POPULATE_READ] = {true, MODEL_POPULATE_READ},
		[ADVICE_POPULATE_WRITE] = {true, MODEL_POPULATE_WRITE},
	};

	if (refuses(d))
		return EACCES;
	if ((d->stmt->advice == ADVICE_PAGEOUT || d->stmt->advice == ADVICE_COLD) && is_locked(d))
		return EINVAL;
	if (presses(d->stmt->advice))
		return -model_covered(d->space, d->vpn, d->npages);
	if (!words[d->stmt->advice].known)
		return -EOPNOTSUPP;
	/* The kernel swaps pages that are held by plain references too, and freeing then drops the slot. */
	if (d->stmt->advice == ADVICE_FREE && d->s->model.drops_freed)
		forget_gets(d);
	for (uint64_t i = 0; d->stmt->advice == ADVICE_FREE && d->s->model.drops_freed && i < d->npages; i++)
		d->s->stored[d->process][page_number(d->vpn + i)] = false;
	return -model_madvise(&d->s->model, d->process, d->vpn, d->npages, words[d->stmt->advice].advice);
}

static int access_outcome(int error)
{
	return !error ? 0 : error == -ENXIO ? LITMUS_SIGBUS : LITMUS_SIGSEGV;
}

/* Store the statement's text on each page of @process's place, as far as it goes. Returns: 0; -errno. */
static int store(struct doing *d, unsigned process, bool force)
{
	struct model_space *space = &d->s->model.spaces[process];
	const struct text *text = &d->stmt->texts[0];

	for (uint64_t i = 0; i < d->npages; i++) {
		int error = space->read_only ? -EACCES : model_may(space, d->vpn + i, true, force);
		struct model_page *page;
		uint64_t done;
		unsigned prot;

		if (error)
			return error;
		page = model_find(space, d->vpn + i);
		prot = page->prot;
		page->prot = LITMUS_PROT_RW;
		error = model_write(&d->s->model, process, (d->vpn + i) * MODEL_PAGE + d->stmt->place.offset,
				    (const uint8_t *)text->bytes, text->nbytes, &done);
		page->prot = prot;
		if (error)
			return error;
		d->s->stored[process][page_number(d->vpn + i)] = true;
	}
	return 0;
}

static int do_write(struct doing *d)
{
	return access_outcome(store(d, d->process, false));
}

static int do_read(struct doing *d)
{
	int error = 0;

	for (uint64_t i = 0; !error && i < d->npages; i++)
		error = model_may(d->space, d->vpn + i, false, false);
	return access_outcome(error);
}

static int do_poke(struct doing *d)
{
	return store(d, process_index(d->s, d->stmt->proc2), true) ? EIO : 0;
}

static int do_remote_write(struct doing *d)
{
	int error = store(d, process_index(d->s, d->stmt->proc2), false);

	return error == -EACCES ? EACCES : error ? EFAULT : 0;
}

static int do_child(struct doing *d)
{
	unsigned child = process_index(d->s, d->stmt->name);

	model_fork(&d->s->model, d->process, child);
	memset(d->s->stored[d->process], 0, sizeof(d->s->stored[0]));
	forget_gets(d);
	d->s->model.spaces[child].read_only = d->stmt->kind == STMT_SNAPSHOT;
	return 0;
}

static int do_exit(struct doing *d)
{
	model_exit(&d->s->model, d->process);
	return 0;
}

static int do_numa_hint(struct doing *d)
{
	return -model_covered(d->space, d->vpn, d->npages);
}

/* ---- references ---- */

/* Whether the page may be the zero page by now: nobody has stored to it since it might have become that. */
static bool may_be_zero_page(const struct doing *d, uint64_t vpn)
{
	const struct model_page *page = model_find(d->space, vpn);
	const uint8_t *bytes = model_content(&d->s->model, page), *loose = model_loose(page);

	if (page->object || d->s->stored[d->process][page_number(vpn)])
		return false;
	for (unsigned i = 0; i < MODEL_PAGE; i++)
		if (bytes[i] && !(loose && loose[i]))
			return false;
	return true;
}

static int do_take(struct doing *d)
{
	bool short_read = d->stmt->kind == STMT_PIN && !(d->stmt->options & (GUP_OPT_WRITE | GUP_OPT_LONGTERM));
	bool write = d->stmt->options & GUP_OPT_WRITE && d->stmt->kind != STMT_SPLICE;
	bool force = d->stmt->options & GUP_OPT_FORCE && d->stmt->kind != STMT_SPLICE;
	unsigned handle = handle_index(d->s, d->stmt->name);
	long taken;

	if (write && refuses(d))
		return EACCES;
	taken = model_take(&d->s->model, handle, d->process, d->vpn, d->npages, d->stmt->kind == STMT_PIN, write, force,
			   d->stmt->options & GUP_OPT_LONGTERM && d->stmt->kind == STMT_PIN);
	d->s->offsets[handle] = d->stmt->place.offset;
	for (long i = 0; i < taken; i++) {
		d->s->stored[d->process][page_number(d->vpn + (uint64_t)i)] |= write;
		d->s->promised[handle][i] = d->stmt->kind == STMT_PIN
						    ? !short_read || !may_be_zero_page(d, d->vpn + (uint64_t)i)
						    : d->s->stored[d->process][page_number(d->vpn + (uint64_t)i)];
	}
	d->view->pages_taken = taken > 0 ? (uint64_t)taken : 0;
	return taken > 0 ? 0 : EFAULT;
}

static int do_device_write(struct doing *d)
{
	unsigned handle = handle_index(d->s, d->stmt->handle);
	const struct text *text = &d->stmt->texts[0];

	if (!d->s->model.handles[handle].live)
		return 0;
	d->view->undefined = !model_device_may_write(&d->s->model, handle);
	if (!d->view->undefined)
		model_device_write(&d->s->model, handle, (unsigned)d->s->offsets[handle], (const uint8_t *)text->bytes,
				   (unsigned)text->nbytes);
	return 0;
}

static int do_release(struct doing *d)
{
	unsigned handle = handle_index(d->s, d->stmt->handle);

	if (d->s->model.handles[handle].live)
		model_release(&d->s->model, handle, false);
	return 0;
}

/* ---- files ---- */

static int do_file(struct doing *d)
{
	unsigned file = file_index(d->s, d->stmt->name);
	const struct text *text = d->stmt->ntexts ? &d->stmt->texts[0] : NULL;

	if (d->s->test->litmus->needs & NEED_FILE) {
		d->s->mapped[file] = model_file((unsigned)d->stmt->count, MOST_MAPPED, !(d->stmt->options & 1));
		for (unsigned i = 0; text && i < d->stmt->count; i++)
			model_file_store(d->s->mapped[file], i, (const uint8_t *)text->bytes, text->nbytes);
		return 0;
	}
	memset(&d->s->files[file], 0, sizeof(d->s->files[file]));
	d->s->files[file].npages = (unsigned)d->stmt->count;
	for (unsigned i = 0; text && i < d->stmt->count; i++)
		memcpy(d->s->files[file].bytes[i], text->bytes, text->nbytes);
	return 0;
}

static struct model_object *mapped_file(const struct doing *d)
{
	return d->s->mapped[file_index(d->s, d->stmt->file)];
}

static int do_truncate(struct doing *d)
{
	model_truncate(&d->s->model, mapped_file(d), (unsigned)d->stmt->count);
	return 0;
}

static int do_punch(struct doing *d)
{
	model_punch(&d->s->model, mapped_file(d), d->stmt->file_page, d->stmt->count);
	return 0;
}

static int do_store(struct doing *d)
{
	model_file_store(mapped_file(d), d->stmt->file_page, (const uint8_t *)d->stmt->texts[0].bytes,
			 d->stmt->texts[0].nbytes);
	return 0;
}

static int do_msync(struct doing *d)
{
	return -model_covered(d->space, d->vpn, d->npages);
}

/* ---- who has written ---- */

static int do_uffd(struct doing *d)
{
	int error = refuses(d) ? EACCES
			       : -model_track(&d->s->model, d->process, d->vpn, d->npages, (unsigned)d->stmt->name,
					      d->stmt->options & UFFD_MODE_ASYNC);

	d->s->bound[d->stmt->name] = !error;
	return error;
}

/* The process that made the userfaultfd. */
static unsigned process_behind(const struct doing *d)
{
	const struct stmt *made = d->s->test->litmus->stmts;

	while (made->name != d->stmt->handle)
		made++;
	return process_index(d->s, made->proc);
}

/* One whose registration failed is bound to nothing. */
static int do_protection(struct doing *d)
{
	if (!d->s->bound[d->stmt->handle])
		return 0;
	return -model_protect(&d->s->model, process_behind(d), d->vpn, d->npages, d->stmt->kind == STMT_UFFD_PROTECT);
}

static int do_uffd_close(struct doing *d)
{
	model_untrack(&d->s->model, (unsigned)d->stmt->handle);
	return 0;
}

/* Promised is what a scan of pages finds that all are noted by themselves. */
static int do_scan(struct doing *d)
{
	bool protects = d->stmt->options & SCAN_OPT_PROTECT;

	d->view->scanned = true;
	for (uint64_t i = 0; i < d->npages; i++) {
		struct model_page *page = model_find(d->space, d->vpn + i);

		if (!page || !page->is_async || page->wp_open)
			d->view->scanned = false;
		else
			d->view->found |= (uint64_t)!page->wp << i;
		if (page && page->is_async && protects && !page->wp_open)
			page->wp = true;
	}
	return 0;
}

static int do_clear(struct doing *d)
{
	if (refuses(d))
		return EACCES;
	for (unsigned i = 0; i < MODEL_SLOTS; i++)
		d->space->pages[i].soft_dirty = false;
	return 0;
}

static int do_mlock(struct doing *d)
{
	if (refuses(d))
		return EACCES;
	return -(d->stmt->kind == STMT_MLOCK
			 ? model_mlock(&d->s->model, d->process, d->vpn, d->npages, d->stmt->options & 1)
			 : model_munlock(&d->s->model, d->process, d->vpn, d->npages));
}

static int do_nothing(struct doing *d)
{
	(void)d;
	return 0;
}

/* Any page may be a merged one now, which a store replaces: a plain reference taken before that sees no store. */
static int do_merge(struct doing *d)
{
	memset(d->s->stored, 0, sizeof(d->s->stored));
	return 0;
}

/* Between the bytes of handle @spare, which are those of the place, and the file; up to its end. */
static void transfer(struct doing *d, unsigned spare, bool to_file)
{
	struct model_handle *handle = &d->s->model.handles[spare];
	unsigned file = file_index(d->s, d->stmt->file);
	uint64_t offset = d->stmt->place.offset;

	for (unsigned i = 0; i < d->npages; i++) {
		uint64_t at = d->stmt->file_page + i;

		if (at >= d->s->files[file].npages)
			break;
		if (to_file) {
			memcpy(d->s->files[file].bytes[at] + offset, handle->bytes[i]->data + offset,
			       MODEL_PAGE - offset);
			model_get_loose(handle->bytes[i], offset, d->s->files[file].loose[at] + offset,
					MODEL_PAGE - offset);
		} else {
			memcpy(handle->bytes[i]->data + offset, d->s->files[file].bytes[at] + offset,
			       MODEL_PAGE - offset);
			model_put_loose(handle->bytes[i], offset, d->s->files[file].loose[at] + offset,
					MODEL_PAGE - offset);
		}
	}
}

/* A pin for as long as it takes. */
static int direct(struct doing *d, bool to_file)
{
	unsigned spare = MODEL_HANDLES - 1, file = file_index(d->s, d->stmt->file);
	uint64_t end = d->stmt->file_page + d->npages;
	long taken;

	if (to_file && end > d->s->files[file].npages)
		d->s->files[file].npages = (unsigned)end;
	if (!to_file && refuses(d))
		return EACCES;
	taken = model_take(&d->s->model, spare, d->process, d->vpn, d->npages, true, !to_file, false, false);
	if (taken == (long)d->npages)
		transfer(d, spare, to_file);
	if (taken > 0)
		model_release(&d->s->model, spare, true);
	return taken == (long)d->npages ? 0 : EFAULT;
}

static int do_direct_out(struct doing *d)
{
	return direct(d, true);
}

static int do_direct_in(struct doing *d)
{
	return direct(d, false);
}

static flat_step *const steps[STMT_KIND_COUNT] = {
	[STMT_MAP] = do_map,
	[STMT_UNMAP] = do_unmap,
	[STMT_PROTECT] = do_protect,
	[STMT_MOVE] = do_move,
	[STMT_ADVISE] = do_advise,
	[STMT_WRITE] = do_write,
	[STMT_READ] = do_read,
	[STMT_FORK] = do_child,
	[STMT_SNAPSHOT] = do_child,
	[STMT_EXIT] = do_exit,
	[STMT_PIN] = do_take,
	[STMT_GET] = do_take,
	[STMT_SPLICE] = do_take,
	[STMT_DEVICE_WRITE] = do_device_write,
	[STMT_UNPIN] = do_release,
	[STMT_PUT] = do_release,
	[STMT_DIRECT_OUT] = do_direct_out,
	[STMT_DIRECT_IN] = do_direct_in,
	[STMT_POKE] = do_poke,
	[STMT_REMOTE_WRITE] = do_remote_write,
	[STMT_FILE] = do_file,
	[STMT_SYNC] = do_nothing,
	[STMT_NUMA_HINT] = do_numa_hint,
	[STMT_RECLAIM] = do_nothing,
	[STMT_SWAPOFF] = do_nothing,
	[STMT_KSM_MERGE] = do_merge,
	[STMT_CGROUP] = do_nothing,
	[STMT_JOIN] = do_nothing,
	[STMT_MSYNC] = do_msync,
	[STMT_TRUNCATE] = do_truncate,
	[STMT_PUNCH] = do_punch,
	[STMT_STORE] = do_store,
	[STMT_UFFD] = do_uffd,
	[STMT_UFFD_PROTECT] = do_protection,
	[STMT_UFFD_UNPROTECT] = do_protection,
	[STMT_UFFD_CLOSE] = do_uffd_close,
	[STMT_SCAN] = do_scan,
	[STMT_CLEAR_SOFT_DIRTY] = do_clear,
	[STMT_MLOCK] = do_mlock,
	[STMT_MUNLOCK] = do_mlock,
};

/* ---- looking ---- */

static void take_window(uint8_t window[FUZZ_WINDOW], const uint8_t *bytes)
{
	static const unsigned offsets[FUZZ_SPOTS] = FUZZ_SPOT_OFFSETS;

	for (unsigned spot = 0; spot < FUZZ_SPOTS; spot++)
		memcpy(window + spot * FUZZ_TEXT, bytes + offsets[spot], FUZZ_TEXT);
}

static uint64_t take_loose(const uint8_t *loose)
{
	uint8_t window[FUZZ_WINDOW];
	uint64_t bits = 0;

	if (!loose)
		return 0;
	take_window(window, loose);
	for (unsigned i = 0; i < FUZZ_WINDOW; i++)
		bits |= (uint64_t)window[i] << i;
	return bits;
}

static void look_at_page(const struct subject *s, const struct model_page *page, struct fuzz_page *shown)
{
	shown->mapped = true;
	shown->swapped = false;
	shown->shared = page->object || page->file;
	shown->wp = page->wp;
	shown->wp_open = page->wp_open;
	/* A page of zeros that is merged with the zero page is written no more. */
	shown->soft_dirty = page->soft_dirty && !(s->test->litmus->needs & NEED_KSM);
	shown->has_bytes = page->object || page->file || s->test->looks
				   ? page->prot & LITMUS_PROT_R && !model_beyond_object(page)
				   : true;
	if (shown->has_bytes)
		take_window(shown->bytes, model_content(&s->model, page));
	shown->loose = take_loose(model_loose(page));
}

static void look_at_space(struct subject *s, unsigned process, struct fuzz_page *shown)
{
	const struct model_space *space = &s->model.spaces[process];

	for (unsigned i = 0; i < s->test->layout.npages; i++)
		shown[i].mapped = shown[i].has_bytes = shown[i].wp = shown[i].wp_open = false;
	for (unsigned i = 0; i < MODEL_SLOTS; i++) {
		uint64_t at = space->pages[i].vpn - FIRST_VPN;

		if (space->pages[i].mapped)
			look_at_page(s, &space->pages[i], &shown[at / APART + at % APART]);
	}
}

static void look_at_handle(const struct subject *s, unsigned number, struct fuzz_held *shown)
{
	const struct model_handle *handle = &s->model.handles[number];

	shown->bound = handle->live;
	shown->npages = handle->live ? handle->npages : 0;
	for (unsigned i = 0; i < shown->npages; i++) {
		shown->has_bytes[i] = s->promised[number][i] && !handle->unknown[i] &&
				      (handle->pin || !handle->frozen[i]);
		take_window(shown->bytes[i], handle->bytes[i]->data);
		shown->loose[i] = take_loose(handle->bytes[i]->loose);
	}
}

static void look_at_mapped(const struct subject *s, const struct model_object *file, struct fuzz_file *shown)
{
	shown->npages = file->npages;
	shown->synced = file->on_host && !file->held;
	for (unsigned i = 0; i < file->npages && i < FUZZ_FILE_PAGES; i++) {
		take_window(shown->bytes[i], model_file_content(&s->model, file, i));
		memcpy(shown->stored[i], shown->bytes[i], FUZZ_WINDOW);
		shown->loose[i] = 0;
	}
}

static void look(struct subject *s, struct fuzz_view *view)
{
	const struct fuzz_layout *layout = &s->test->layout;

	for (unsigned process = 0; process < layout->nprocesses; process++) {
		view->alive[process] = s->model.spaces[process].live;
		if (view->alive[process])
			look_at_space(s, process, view->pages[process]);
	}
	for (unsigned handle = 0; handle < layout->nhandles; handle++)
		look_at_handle(s, handle, &view->held[handle]);
	for (unsigned file = 0; file < layout->nfiles; file++) {
		if (s->mapped[file]) {
			look_at_mapped(s, s->mapped[file], &view->files[file]);
			continue;
		}
		view->files[file].npages = s->files[file].npages;
		for (unsigned i = 0; i < s->files[file].npages; i++) {
			take_window(view->files[file].bytes[i], s->files[file].bytes[i]);
			view->files[file].loose[i] = take_loose(s->files[file].loose[i]);
		}
	}
}

/* ---- a test ---- */

static int begin(struct fuzz_subject *subject, const struct fuzz_test *test, char *why, size_t size)
{
	struct subject *s = own(subject);

	(void)why;
	(void)size;
	s->test = test;
	memset(s->files, 0, sizeof(s->files));
	memset(s->stored, 0, sizeof(s->stored));
	memset(s->stored[0], 1, sizeof(s->stored[0]));
	model_init(&s->model);
	s->model.drops_freed = test->litmus->needs & NEED_SWAP || fuzz_may_run_out(test);
	model_create(&s->model, 0);
	return 0;
}

static int step(struct fuzz_subject *subject, size_t i, struct fuzz_view *view, char *why, size_t size)
{
	struct subject *s = own(subject);
	const struct stmt *stmt = &s->test->litmus->stmts[i];
	struct doing d = {.s = s, .stmt = stmt, .view = view, .npages = stmt->place.npages};

	if (!steps[stmt->kind]) {
		snprintf(why, size, "the model knows no `%s`", litmus_stmt_name(stmt->kind));
		return -EOPNOTSUPP;
	}
	if (stmt->proc >= 0) {
		d.process = process_index(s, stmt->proc);
		d.space = &s->model.spaces[d.process];
	}
	if (stmt->place.region >= 0)
		d.vpn = region_vpn(s, stmt->place.region) + stmt->place.first;
	view->undefined = false;
	view->pages_taken = 0;
	view->faults = UINT_MAX;
	view->scanned = false;
	view->found = 0;
	view->outcome = steps[stmt->kind](&d);
	look(s, view);
	return 0;
}

static int end(struct fuzz_subject *subject, char *why, size_t size)
{
	struct subject *s = own(subject);

	(void)why;
	(void)size;
	model_fini(&s->model);
	for (unsigned i = 0; i < FUZZ_FILES; i++)
		if (s->mapped[i])
			model_file_drop(s->mapped[i]);
	memset(s->mapped, 0, sizeof(s->mapped));
	return 0;
}

static void close_subject(struct fuzz_subject *subject)
{
	free(subject);
}

static const struct fuzz_subject_type type = {
	.name = "flat",
	.sees = FUZZ_SEES_BYTES | FUZZ_SEES_MAPPED | FUZZ_SEES_OUTCOME | FUZZ_SEES_WP | FUZZ_SEES_SOFT_DIRTY,
	.begin = begin,
	.step = step,
	.end = end,
	.close = close_subject,
};

int fuzz_flat_open(struct fuzz_subject **subject)
{
	struct subject *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->subject.type = &type;
	*subject = &s->subject;
	return 0;
}
