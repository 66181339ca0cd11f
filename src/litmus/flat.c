/* SPDX-License-Identifier: MIT */
/* The flat reference model; see flat.h. Slow and plain on purpose. */
#include "flat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PROT_R = 1, PROT_W = 2 };

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

/* ---- bytes ---- */

static struct model_bytes *bytes_new(const uint8_t *from)
{
	struct model_bytes *b = must(calloc(1, sizeof(*b)));

	b->refs = 1;
	if (from)
		memcpy(b->data, from, MODEL_PAGE);
	return b;
}

static struct model_bytes *bytes_copy(const struct model_bytes *from)
{
	struct model_bytes *b = bytes_new(from->data);

	if (from->loose)
		b->loose = memcpy(must(malloc(MODEL_PAGE)), from->loose, MODEL_PAGE);
	return b;
}

/* All that is not zero may become zero at any time. */
static void bytes_loosen(struct model_bytes *b)
{
	if (!b->loose)
		b->loose = must(malloc(MODEL_PAGE));
	memset(b->loose, 1, MODEL_PAGE);
}

/* Nothing of it was stored since it was advised free. */
static bool bytes_may_go(const struct model_bytes *b)
{
	return b->loose && b->loose[0] && !memcmp(b->loose, b->loose + 1, MODEL_PAGE - 1);
}

/* What is stored stays, and whatever has become of the rest of the page. */
static void bytes_store(struct model_bytes *b, uint64_t offset, const uint8_t *buffer, uint64_t nbytes)
{
	memcpy(b->data + offset, buffer, nbytes);
	if (b->loose)
		memset(b->loose + offset, 0, nbytes);
}

static struct model_bytes *bytes_hold(struct model_bytes *b)
{
	b->refs++;
	return b;
}

static void bytes_drop(struct model_bytes *b)
{
	if (!b || --b->refs)
		return;
	free(b->loose);
	free(b);
}

static struct model_object *object_new(unsigned npages)
{
	struct model_object *o = must(calloc(1, sizeof(*o)));

	o->npages = o->room = npages;
	o->pages = must(calloc(npages, sizeof(*o->pages)));
	return o;
}

static void object_drop(struct model_object *o)
{
	if (--o->refs)
		return;
	for (unsigned i = 0; i < o->room; i++)
		bytes_drop(o->pages[i]);
	free(o->pages);
	free(o);
}

/* ---- pages of a space ---- */

void model_init(struct model *m)
{
	memset(m, 0, sizeof(*m));
	m->zero = bytes_new(NULL);
}

void model_fini(struct model *m)
{
	for (unsigned i = 0; i < MODEL_HANDLES; i++)
		if (m->handles[i].live)
			model_release(m, i, false);
	for (unsigned i = 0; i < MODEL_SPACES; i++)
		if (m->spaces[i].live)
			model_exit(m, i);
	bytes_drop(m->zero);
}

struct model_page *model_find(struct model_space *s, uint64_t vpn)
{
	for (unsigned i = 0; i < MODEL_SLOTS; i++)
		if (s->pages[i].mapped && s->pages[i].vpn == vpn)
			return &s->pages[i];
	return NULL;
}

static struct model_page *new_page(struct model_space *s, uint64_t vpn)
{
	for (unsigned i = 0; i < MODEL_SLOTS; i++) {
		if (s->pages[i].mapped)
			continue;
		s->pages[i] = (struct model_page){.mapped = true, .vpn = vpn};
		return &s->pages[i];
	}
	abort();
}

static void set_object(struct model_page *p, struct model_object *o)
{
	p->object = o;
	if (o)
		o->refs++;
}

static void set_file(struct model_page *p, struct model_object *file)
{
	p->file = file;
	if (file)
		file->refs++;
}

static void unmap_page(struct model_page *p)
{
	bytes_drop(p->bytes);
	if (p->object)
		object_drop(p->object);
	if (p->file)
		object_drop(p->file);
	*p = (struct model_page){0};
}

/* The bytes of a page of a file or a shared mapping, made real so that somebody can refer to them. */
static struct model_bytes *bytes_in(struct model_object *o, uint64_t page)
{
	struct model_bytes **slot = &o->pages[page];

	if (!*slot)
		*slot = bytes_new(NULL);
	return *slot;
}

static struct model_bytes *object_bytes(struct model_page *p)
{
	return bytes_in(p->object, p->offset);
}

bool model_beyond_object(const struct model_page *p)
{
	const struct model_object *o = p->object ? p->object : p->file;

	return o && p->offset >= o->npages;
}

const uint8_t *model_content(const struct model *m, const struct model_page *p)
{
	const struct model_bytes *b = p->object ? p->object->pages[p->offset] : p->bytes;

	if (!b && p->file && !model_beyond_object(p))
		b = p->file->pages[p->offset];
	return b ? b->data : m->zero->data;
}

const uint8_t *model_loose(const struct model_page *p)
{
	return p->object || !p->bytes ? NULL : p->bytes->loose;
}

void model_get_loose(const struct model_bytes *b, uint64_t offset, uint8_t *loose, uint64_t nbytes)
{
	if (b->loose)
		memcpy(loose, b->loose + offset, nbytes);
	else
		memset(loose, 0, nbytes);
}

void model_put_loose(struct model_bytes *b, uint64_t offset, const uint8_t *loose, uint64_t nbytes)
{
	if (!b->loose)
		b->loose = must(calloc(1, MODEL_PAGE));
	memcpy(b->loose + offset, loose, nbytes);
}

unsigned model_mapped(const struct model_space *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < MODEL_SLOTS; i++)
		n += s->pages[i].mapped;
	return n;
}

unsigned model_populated(const struct model_space *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < MODEL_SLOTS; i++)
		n += s->pages[i].mapped && s->pages[i].bytes;
	return n;
}

bool model_range_free(struct model_space *s, uint64_t vpn, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		if (model_find(s, vpn + i))
			return false;
	return true;
}

int model_covered(struct model_space *s, uint64_t vpn, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		if (!model_find(s, vpn + i))
			return -ENOMEM;
	return 0;
}

/* ---- access ---- */

int model_may(struct model_space *s, uint64_t vpn, bool write, bool force)
{
	const struct model_page *p = model_find(s, vpn);

	if (!p)
		return -EFAULT;
	if (write && !(p->prot & PROT_W) && (!force || p->object))
		return -EFAULT;
	if (!write && !(p->prot & PROT_R) && !force)
		return -EFAULT;
	return model_beyond_object(p) ? -ENXIO : 0;
}

/* The bytes that a store to the page changes; a private page is the space's own afterwards. */
static struct model_bytes *own_bytes(struct model_page *p)
{
	if (p->object)
		return object_bytes(p);
	if (!p->bytes) {
		const struct model_bytes *from = p->file ? p->file->pages[p->offset] : NULL;

		p->bytes = bytes_new(from ? from->data : NULL);
	}
	p->exclusive = true;
	return p->bytes;
}

/* A store that is granted: whoever tracks the page is told, or refuses it. semantics.md B.7. */
static int notify_store(struct model_page *p)
{
	if (p->tracker && p->wp && !p->is_async) {
		p->refused = true;
		return -ENXIO;
	}
	p->wp = p->wp_open = p->refused = false;
	p->soft_dirty = !p->object && !p->file;
	return 0;
}

int model_touch_for_write(struct model *m, unsigned space, uint64_t vpn, bool force)
{
	struct model_space *s = &m->spaces[space];
	int rc = model_may(s, vpn, true, force);

	if (!rc)
		rc = notify_store(model_find(s, vpn));
	if (!rc)
		own_bytes(model_find(s, vpn));
	return rc;
}

static uint64_t chunk(uint64_t va, uint64_t left)
{
	uint64_t room = MODEL_PAGE - va % MODEL_PAGE;

	return left < room ? left : room;
}

int model_read(struct model *m, unsigned space, uint64_t va, uint8_t *buffer, uint64_t nbytes, uint64_t *done)
{
	struct model_space *s = &m->spaces[space];

	for (*done = 0; *done < nbytes;) {
		uint64_t at = va + *done, n = chunk(at, nbytes - *done);
		int rc = model_may(s, at / MODEL_PAGE, false, false);

		if (rc)
			return rc;
		memcpy(buffer + *done, model_content(m, model_find(s, at / MODEL_PAGE)) + at % MODEL_PAGE, n);
		*done += n;
	}
	return 0;
}

int model_write(struct model *m, unsigned space, uint64_t va, const uint8_t *buffer, uint64_t nbytes, uint64_t *done)
{
	struct model_space *s = &m->spaces[space];

	for (*done = 0; *done < nbytes;) {
		uint64_t at = va + *done, n = chunk(at, nbytes - *done);
		int rc = model_may(s, at / MODEL_PAGE, true, false);

		if (!rc)
			rc = notify_store(model_find(s, at / MODEL_PAGE));
		if (rc)
			return rc;
		bytes_store(own_bytes(model_find(s, at / MODEL_PAGE)), at % MODEL_PAGE, buffer + *done, n);
		*done += n;
	}
	return 0;
}

/* ---- spaces ---- */

void model_create(struct model *m, unsigned space)
{
	m->spaces[space] = (struct model_space){.live = true, .id = ++m->ids};
}

void model_exit(struct model *m, unsigned space)
{
	struct model_space *s = &m->spaces[space];

	for (unsigned i = 0; i < MODEL_SLOTS; i++)
		if (s->pages[i].mapped)
			unmap_page(&s->pages[i]);
	s->live = false;
}

/*
 * From here on the page is shared and held, so that no store changes it in place any more: every get of it sees what
 * it holds now, for ever. That is all that a plain reference promises.
 */
static void freeze_gets(struct model *m, struct model_bytes *bytes)
{
	for (unsigned i = 0; i < MODEL_HANDLES; i++) {
		struct model_handle *h = &m->handles[i];

		for (unsigned k = 0; h->live && !h->pin && k < h->npages; k++) {
			if (h->bytes[k] != bytes || h->frozen[k])
				continue;
			h->bytes[k] = bytes_copy(bytes);
			h->frozen[k] = true;
			bytes_drop(bytes);
		}
	}
}

static void fork_private(struct model *m, struct model_page *from, struct model_page *to)
{
	if (!from->bytes || from->wipeonfork)
		return;
	to->bytes = bytes_copy(from->bytes);
	if (from->bytes->pins) { /* copied for the child at once: semantics.md B.4 */
		to->exclusive = true;
		return;
	}
	freeze_gets(m, from->bytes);
	from->exclusive = to->exclusive = false;
}

void model_fork(struct model *m, unsigned parent, unsigned child)
{
	model_create(m, child);
	for (unsigned i = 0; i < MODEL_SLOTS; i++) {
		struct model_page *from = &m->spaces[parent].pages[i], *to;

		if (!from->mapped || from->dontfork)
			continue;
		to = new_page(&m->spaces[child], from->vpn);
		*to = *from;
		to->bytes = NULL;
		to->exclusive = to->locked = to->wp = to->wp_open = to->is_async = false;
		to->tracker = 0;
		to->soft_dirty &= from->bytes && !from->wipeonfork;
		set_object(to, from->object);
		set_file(to, from->file);
		fork_private(m, from, to);
	}
}

/* ---- mappings ---- */

void model_munmap(struct model *m, unsigned space, uint64_t vpn, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		struct model_page *p = model_find(&m->spaces[space], vpn + i);

		if (p)
			unmap_page(p);
	}
}

void model_mmap(struct model *m, unsigned space, uint64_t vpn, uint64_t n, unsigned prot, bool shared, bool populate)
{
	struct model_object *o = shared ? object_new((unsigned)n) : NULL;

	model_munmap(m, space, vpn, n);
	m->births++;
	for (uint64_t i = 0; i < n; i++) {
		struct model_page *p = new_page(&m->spaces[space], vpn + i);

		p->prot = prot;
		p->birth = m->births;
		p->offset = i;
		set_object(p, o);
		if (populate && (prot & PROT_W))
			own_bytes(p);
	}
}

int model_mprotect(struct model *m, unsigned space, uint64_t vpn, uint64_t n, unsigned prot)
{
	for (uint64_t i = 0; i < n; i++) {
		struct model_page *p = model_find(&m->spaces[space], vpn + i);

		if (!p)
			return -ENOMEM;
		/* Locked memory that may be written to from now on is fetched for that, as far as nobody refuses. */
		if (p->locked && !p->object && (prot & PROT_W) && !(p->prot & PROT_W)) {
			p->wp_open = p->wp && p->is_async;
			p->refused = !p->bytes;
		}
		p->prot = prot;
	}
	return 0;
}

static void forget(struct model_page *p)
{
	bytes_drop(p->bytes);
	p->bytes = NULL;
	p->exclusive = p->soft_dirty = false;
	if (!p->file)
		p->wp = false; /* a file's entry leaves a marker */
}

/* One page of madvise: 0 or the error that ends the call. */
static int advise_page(const struct model *m, struct model_page *p, enum model_advice advice)
{
	switch (advice) {
	case MODEL_DONTFORK:
	case MODEL_DOFORK:
		p->dontfork = advice == MODEL_DONTFORK;
		return 0;
	case MODEL_WIPEONFORK:
		if (p->object || p->file)
			return -EINVAL;
		p->wipeonfork = true;
		return 0;
	case MODEL_KEEPONFORK:
		p->wipeonfork = false;
		return 0;
	case MODEL_DONTNEED:
		if (p->locked)
			return -EINVAL;
		if (!p->object)
			forget(p);
		return 0;
	case MODEL_FREE:
		if (p->locked || p->file)
			return -EINVAL;
		/* without pressure: nothing */
		if (m->drops_freed && p->bytes && !p->object)
			bytes_loosen(p->bytes);
		/* With the page goes what was known of it. */
		if (m->drops_freed && !p->object) {
			p->wp_open = p->tracker;
			p->soft_dirty = false;
		}
		return p->object ? -EINVAL : 0;
	case MODEL_POPULATE_READ:
		if (!(p->prot & PROT_R))
			return -EINVAL;
		return model_beyond_object(p) ? -EFAULT : 0;
	case MODEL_POPULATE_WRITE:
		if (!(p->prot & PROT_W))
			return -EINVAL;
		if (model_beyond_object(p) || notify_store(p))
			return -EFAULT;
		own_bytes(p);
		return 0;
	}
	abort();
}

/* A hole is reported at the end, except by populate, which goes in order and stops there. */
int model_madvise(struct model *m, unsigned space, uint64_t vpn, uint64_t n, enum model_advice advice)
{
	bool populate = advice == MODEL_POPULATE_READ || advice == MODEL_POPULATE_WRITE;
	int hole = 0;

	for (uint64_t i = 0; i < n; i++) {
		struct model_page *p = model_find(&m->spaces[space], vpn + i);
		int rc = p ? advise_page(m, p, advice) : -ENOMEM;

		if (!p)
			hole = rc;
		if (rc && (p || populate))
			return rc;
	}
	return hole;
}

/* ---- files ---- */

struct model_object *model_file(unsigned npages, unsigned room, bool on_host)
{
	struct model_object *file = object_new(room);

	file->npages = npages;
	file->on_host = on_host;
	file->refs = 1;
	return file;
}

void model_file_drop(struct model_object *file)
{
	object_drop(file);
}

void model_file_store(struct model_object *file, uint64_t page, const uint8_t *bytes, uint64_t nbytes)
{
	if (page >= file->npages)
		file->npages = (unsigned)page + 1;
	bytes_store(bytes_in(file, page), 0, bytes, nbytes);
}

const uint8_t *model_file_content(const struct model *m, const struct model_object *file, uint64_t page)
{
	return file->pages[page] ? file->pages[page]->data : m->zero->data;
}

void model_mmap_file(struct model *m, unsigned space, uint64_t vpn, uint64_t n, unsigned prot, bool shared,
		     bool populate, struct model_object *file, uint64_t first)
{
	model_munmap(m, space, vpn, n);
	m->births++;
	for (uint64_t i = 0; i < n; i++) {
		struct model_page *p = new_page(&m->spaces[space], vpn + i);

		p->prot = prot;
		p->birth = m->births;
		p->offset = first + i;
		if (shared)
			set_object(p, file);
		else
			set_file(p, file);
		if (populate && !shared && (prot & PROT_W) && !model_beyond_object(p))
			own_bytes(p);
	}
}

/* What maps pages from @first to before @end: private copies go too, if @copies. */
static void zap_file(struct model *m, const struct model_object *file, uint64_t first, uint64_t end, bool copies)
{
	for (unsigned i = 0; i < MODEL_SPACES * MODEL_SLOTS; i++) {
		struct model_page *p = &m->spaces[i / MODEL_SLOTS].pages[i % MODEL_SLOTS];

		if (!m->spaces[i / MODEL_SLOTS].live || !p->mapped || (p->object != file && p->file != file) ||
		    p->offset < first || p->offset >= end)
			continue;
		p->wp_open = p->tracker;
		if (copies && p->file)
			forget(p);
	}
}

static void drop_pages(struct model_object *file, uint64_t first, uint64_t end)
{
	for (uint64_t i = first; i < end && i < file->room; i++) {
		bytes_drop(file->pages[i]);
		file->pages[i] = NULL;
	}
}

void model_truncate(struct model *m, struct model_object *file, unsigned npages)
{
	file->npages = npages;
	zap_file(m, file, npages, UINT64_MAX, true);
	drop_pages(file, npages, file->room);
}

void model_punch(struct model *m, struct model_object *file, uint64_t first, uint64_t n)
{
	zap_file(m, file, first, first + n, false);
	drop_pages(file, first, first + n);
}

/* ---- tracking, locked memory ---- */

/* Of shared memory and anonymous memory any; of a host's file, what notes stores by itself: vma_can_userfault(). */
static bool may_track(const struct model_page *p, bool is_async)
{
	const struct model_object *o = p->object ? p->object : p->file;

	return is_async || !o || !o->on_host;
}

int model_track(struct model *m, unsigned space, uint64_t vpn, uint64_t n, unsigned id, bool is_async)
{
	bool any = false;

	for (uint64_t i = 0; i < n; i++) {
		const struct model_page *p = model_find(&m->spaces[space], vpn + i);

		any |= p != NULL;
		if (p && !may_track(p, is_async))
			return -EINVAL;
		if (p && p->tracker && p->tracker != id)
			return -EBUSY;
	}
	for (uint64_t i = 0; any && i < n; i++) {
		struct model_page *p = model_find(&m->spaces[space], vpn + i);

		if (p) {
			p->tracker = id;
			p->is_async = is_async;
		}
	}
	return any ? 0 : -EINVAL;
}

void model_untrack(struct model *m, unsigned id)
{
	for (unsigned i = 0; i < MODEL_SPACES * MODEL_SLOTS; i++) {
		struct model_page *p = &m->spaces[i / MODEL_SLOTS].pages[i % MODEL_SLOTS];

		if (!m->spaces[i / MODEL_SLOTS].live || p->tracker != id)
			continue;
		p->tracker = 0;
		p->wp = p->wp_open = p->is_async = false;
	}
}

/* From left to right, up to what nobody tracks; holes are passed over. */
int model_protect(struct model *m, unsigned space, uint64_t vpn, uint64_t n, bool protect)
{
	int rc = -ENOENT;

	for (uint64_t i = 0; i < n; i++) {
		struct model_page *p = model_find(&m->spaces[space], vpn + i);

		if (!p)
			continue;
		if (!p->tracker)
			return -ENOENT;
		p->wp = protect;
		/* With a page that was advised free goes its protection. */
		p->wp_open = protect && p->bytes && bytes_may_go(p->bytes);
		rc = 0;
	}
	return rc;
}

/* Fetch a page as mlock does. */
static int fetch(struct model_page *p)
{
	if (!(p->prot & PROT_R) || model_beyond_object(p))
		return -ENOMEM;
	if (!(p->prot & PROT_W) || p->object)
		return 0;
	if (notify_store(p))
		return -ENOMEM;
	own_bytes(p);
	return 0;
}

static int set_locked(struct model *m, unsigned space, uint64_t vpn, uint64_t n, bool locked)
{
	for (uint64_t i = 0; i < n; i++) {
		struct model_page *p = model_find(&m->spaces[space], vpn + i);

		if (!p)
			return -ENOMEM;
		p->locked = locked;
	}
	return 0;
}

int model_mlock(struct model *m, unsigned space, uint64_t vpn, uint64_t n, bool on_fault)
{
	int rc = set_locked(m, space, vpn, n, true);

	for (uint64_t i = 0; !rc && !on_fault && i < n; i++)
		rc = fetch(model_find(&m->spaces[space], vpn + i));
	return rc;
}

int model_munlock(struct model *m, unsigned space, uint64_t vpn, uint64_t n)
{
	return set_locked(m, space, vpn, n, false);
}

/* ---- mremap ---- */

static bool alike(const struct model_page *a, const struct model_page *b)
{
	return a->prot == b->prot && a->object == b->object && a->dontfork == b->dontfork &&
	       a->wipeonfork == b->wipeonfork && a->file == b->file && (!a->object || b->offset == a->offset + 1);
}

enum model_one model_one_mapping(struct model_space *s, uint64_t vpn, uint64_t n)
{
	enum model_one sure = MODEL_ONE_YES;
	const struct model_page *a = model_find(s, vpn), *b;

	if (!a)
		return MODEL_ONE_NO;
	for (uint64_t i = 1; i < n; i++, a = b) {
		b = model_find(s, vpn + i);
		if (!b || !alike(a, b))
			return MODEL_ONE_NO;
		if (a->birth != b->birth || b->offset != a->offset + 1)
			sure = MODEL_ONE_MAYBE;
	}
	return sure;
}

void model_grow(struct model *m, unsigned space, uint64_t vpn, uint64_t old_n, uint64_t new_n)
{
	struct model_space *s = &m->spaces[space];

	for (uint64_t i = old_n; i < new_n; i++) {
		const struct model_page *last = model_find(s, vpn + i - 1);
		struct model_page *p = new_page(s, vpn + i);

		*p = *last;
		p->vpn = vpn + i;
		p->offset = last->offset + 1;
		p->bytes = NULL;
		p->exclusive = false;
		set_object(p, last->object);
		set_file(p, last->file);
	}
}

static void move_page(struct model_space *s, struct model_page *p, uint64_t to, bool keep)
{
	struct model_page *q;

	/* Whoever tracks it is not told: B.7. */
	p->tracker = 0;
	p->wp = p->wp_open = p->is_async = false;
	if (!keep) {
		p->vpn = to;
		return;
	}
	q = new_page(s, to);
	*q = *p;
	q->vpn = to;
	set_object(q, p->object);
	set_file(q, p->file);
	p->bytes = NULL;
	p->exclusive = false;
}

void model_move(struct model *m, unsigned space, uint64_t vpn, uint64_t old_n, uint64_t new_n, uint64_t to, bool keep)
{
	struct model_space *s = &m->spaces[space];

	if (old_n != new_n || keep)
		model_munmap(m, space, to, new_n);
	if (old_n > new_n) {
		model_munmap(m, space, vpn + new_n, old_n - new_n);
		old_n = new_n;
	}
	for (uint64_t i = 0; i < old_n; i++) {
		struct model_page *p = model_find(s, vpn + i);

		if (!p)
			continue; /* what lies where a hole would go stays */
		model_munmap(m, space, to + i, 1);
		move_page(s, p, to + i, keep);
	}
	model_grow(m, space, to, old_n, new_n);
}

/* ---- gets and pins ---- */

/* The bytes that a reference to the page holds; NULL for the zero page. Semantics.md B.5. */
static struct model_bytes *referenced(struct model_page *p, bool pin, bool write, bool longterm)
{
	if (p->object)
		return object_bytes(p);
	if (write || (pin && (p->bytes || longterm)))
		return own_bytes(p);
	if (!p->bytes && p->file)
		return bytes_in(p->file, p->offset);
	return p->bytes;
}

static void count_pin(struct model_bytes *b, unsigned space_id)
{
	if (!b->pins++) {
		b->pinned_by = space_id;
		b->pinned_by_others = false;
	}
	b->pinned_by_others |= b->pinned_by != space_id;
}

static void take_page(struct model *m, struct model_handle *h, struct model_page *p, bool longterm)
{
	bool unknown = p->refused && !p->object && !p->bytes && !h->write && !longterm;
	struct model_bytes *b = referenced(p, h->pin, h->write, longterm);
	unsigned k = h->npages++;

	h->unknown[k] = unknown;
	if (p->object && h->write && !h->pin)
		p->object->held = true;
	h->frozen[k] = b && !h->pin && !p->object && p->bytes && !p->exclusive;
	if (h->frozen[k])
		h->bytes[k] = bytes_copy(b);
	else
		h->bytes[k] = bytes_hold(b ? b : m->zero);
	if (b && h->pin)
		count_pin(b, h->space_id);
}

/* Whether the page may be taken so. A device that writes for long would do so behind the back of writeback: B.8. */
static bool may_take(struct model_space *s, uint64_t vpn, bool write, bool force, bool held_for_long)
{
	struct model_page *p = model_find(s, vpn);

	if (model_may(s, vpn, write, force) || (write && held_for_long && p->object && p->object->on_host))
		return false;
	return !write || !notify_store(p);
}

long model_take(struct model *m, unsigned handle, unsigned space, uint64_t vpn, uint64_t n, bool pin, bool write,
		bool force, bool longterm)
{
	struct model_handle *h = &m->handles[handle];
	struct model_space *s = &m->spaces[space];

	*h = (struct model_handle){.live = true, .pin = pin, .write = write, .space_id = s->id};
	while (h->npages < n && may_take(s, vpn + h->npages, write, force, pin && longterm))
		take_page(m, h, model_find(s, vpn + h->npages), longterm);
	if (h->npages)
		return h->npages;
	h->live = false;
	return -EFAULT;
}

void model_release(struct model *m, unsigned handle, bool named)
{
	struct model_handle *h = &m->handles[handle];

	for (unsigned k = 0; k < h->npages; k++) {
		if (h->pin && h->bytes[k] != m->zero) {
			m->pins_are_mixed |= !named && h->bytes[k]->pinned_by_others;
			h->bytes[k]->pins--;
		}
		bytes_drop(h->bytes[k]);
	}
	h->live = false;
	m->pins_are_mixed &= model_pinned(m, NULL) != 0;
}

bool model_device_may_write(const struct model *m, unsigned handle)
{
	const struct model_handle *h = &m->handles[handle];

	for (unsigned k = 0; k < h->npages; k++)
		if (h->frozen[k])
			return false;
	return h->write;
}

void model_device_write(struct model *m, unsigned handle, unsigned offset, const uint8_t *buffer, unsigned nbytes)
{
	struct model_handle *h = &m->handles[handle];

	/* Nobody knows of it: where the page may go, what is stored goes with it. */
	for (unsigned k = 0; k < h->npages; k++)
		if (bytes_may_go(h->bytes[k]))
			memcpy(h->bytes[k]->data + offset, buffer, nbytes);
		else
			bytes_store(h->bytes[k], offset, buffer, nbytes);
}

unsigned model_pinned(const struct model *m, const struct model_space *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < MODEL_HANDLES; i++) {
		const struct model_handle *h = &m->handles[i];

		if (!h->live || !h->pin || (s && h->space_id != s->id))
			continue;
		for (unsigned k = 0; k < h->npages; k++)
			n += h->bytes[k] != m->zero;
	}
	return n;
}
