/* SPDX-License-Identifier: MIT */
/*
 * The first difference between what two subjects show. Only what both can see is compared, outcomes first: after
 * different outcomes everything else differs too.
 */
#include "fuzz.h"

#include <limits.h>
#include <stdarg.h>
#include <string.h>

struct comparison {
	const struct fuzz_test *test;
	const struct stmt *stmt; /* NULL: at the end */
	const struct fuzz_view *const *before, *const *now;
	unsigned sees;   /* both */
	bool is_machine; /* the reference is a kernel, not a model that knows what is promised */
	struct fuzz_divergence *divergence;
};

static bool differ(struct comparison *c, const char *what, int process, int page, int handle)
{
	struct fuzz_divergence *d = c->divergence;

	snprintf(d->what, sizeof(d->what), "%s", what);
	d->process = process;
	d->page = page;
	d->handle = handle;
	return true;
}

static void __attribute__((format(printf, 3, 4))) saw(struct comparison *c, unsigned who, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(c->divergence->saw[who], sizeof(c->divergence->saw[who]), format, args);
	va_end(args);
}

/* ---- one number or one flag ---- */

static bool differ_in_number(struct comparison *c, const char *what, int process, int page, uint64_t a, uint64_t b)
{
	if (a == b)
		return false;
	saw(c, 0, "%s %llu", what, (unsigned long long)a);
	saw(c, 1, "%s %llu", what, (unsigned long long)b);
	return differ(c, what, process, page, -1);
}

static bool differ_in_flag(struct comparison *c, const char *what, int process, int page, bool a, bool b)
{
	if (a == b)
		return false;
	saw(c, 0, "%s%s", a ? "" : "not ", what);
	saw(c, 1, "%s%s", b ? "" : "not ", what);
	return differ(c, what, process, page, -1);
}

/* ---- bytes ---- */

/* The spot that differs, as text; what cannot be printed is escaped. */
static void tell_bytes(struct comparison *c, unsigned who, const uint8_t *bytes, unsigned spot)
{
	static const unsigned offsets[FUZZ_SPOTS] = FUZZ_SPOT_OFFSETS;
	char text[4 * FUZZ_TEXT + 1];
	unsigned at = 0, n = FUZZ_TEXT;

	while (n > 1 && !bytes[spot * FUZZ_TEXT + n - 1])
		n--;
	for (unsigned i = 0; i < n; i++) {
		uint8_t byte = bytes[spot * FUZZ_TEXT + i];
		bool plain = byte >= ' ' && byte < 0x7f && byte != '"' && byte != '\\';

		at += (unsigned)snprintf(text + at, sizeof(text) - at, plain ? "%c" : "\\x%02x", byte);
	}
	saw(c, who, "at byte %u: \"%s\"", offsets[spot], text);
}

/* Whether they are the same but for bytes of @a that may as well be zero. */
static bool agree(const uint8_t *a, const uint8_t *b, uint64_t loose, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++)
		if (a[i] != b[i] && (b[i] || !(loose >> i & 1)))
			return false;
	return true;
}

bool fuzz_agree(const uint8_t *promised, const uint8_t *seen, uint64_t loose)
{
	return agree(promised, seen, loose, 0, FUZZ_WINDOW);
}

static bool differ_in_bytes(struct comparison *c, int process, int page, int handle, const uint8_t *a, const uint8_t *b,
			    uint64_t loose)
{
	if (!memcmp(a, b, FUZZ_WINDOW) || (loose && agree(a, b, loose, 0, FUZZ_WINDOW)))
		return false;
	for (unsigned spot = 0; spot < FUZZ_SPOTS; spot++) {
		if (agree(a, b, loose, spot * FUZZ_TEXT, FUZZ_TEXT))
			continue;
		tell_bytes(c, 0, a, spot);
		tell_bytes(c, 1, b, spot);
		break;
	}
	return differ(c, "bytes", process, page, handle);
}

/* ---- statements ---- */

static bool differ_in_outcome(struct comparison *c)
{
	int a = c->now[0]->outcome, b = c->now[1]->outcome;

	if (!(c->sees & FUZZ_SEES_OUTCOME) || a == b)
		return false;
	saw(c, 0, "%s", a ? litmus_error_name(a) : "success");
	saw(c, 1, "%s", b ? litmus_error_name(b) : "success");
	return differ(c, "outcome", -1, -1, -1);
}

static bool differ_in_scan(struct comparison *c)
{
	const struct fuzz_view *a = c->now[0], *b = c->now[1];

	if (!(c->sees & FUZZ_SEES_OUTCOME) || !a->scanned || !b->scanned || a->found == b->found)
		return false;
	saw(c, 0, "finds pages %#llx of its place", (unsigned long long)a->found);
	saw(c, 1, "finds pages %#llx of its place", (unsigned long long)b->found);
	return differ(c, "scan", -1, -1, -1);
}

/* Where a view shows the first page of @place; pages of a region follow one another. */
static unsigned first_page(const struct fuzz_layout *layout, const struct place *place)
{
	unsigned at = 0;

	while (at < layout->npages && layout->page[at].region != place->region)
		at++;
	return at + (unsigned)place->first;
}

static int process_index(const struct fuzz_layout *layout, int name)
{
	for (unsigned i = 0; i < layout->nprocesses; i++)
		if (layout->process[i] == name)
			return (int)i;
	return -1;
}

/* Faults say whether entries granted the access: of a `read` or a `write` of private memory that succeeded. */
static bool counts_faults(const struct comparison *c, int process)
{
	unsigned first = first_page(&c->test->layout, &c->stmt->place);

	if (!(c->sees & FUZZ_SEES_FAULTS) || c->now[0]->outcome || process < 0 || c->now[0]->faults == UINT_MAX ||
	    c->now[1]->faults == UINT_MAX || (c->stmt->kind != STMT_READ && c->stmt->kind != STMT_WRITE))
		return false;
	for (unsigned page = first; page < first + c->stmt->place.npages; page++)
		for (unsigned who = 0; who < 2; who++)
			if (c->now[who]->pages[process][page].shared)
				return false;
	return true;
}

static bool differ_in_faults(struct comparison *c)
{
	int process = c->stmt ? process_index(&c->test->layout, c->stmt->proc) : -1;

	return c->stmt && counts_faults(c, process) &&
	       differ_in_number(c, "faults", process, (int)first_page(&c->test->layout, &c->stmt->place),
				c->now[0]->faults, c->now[1]->faults);
}

/* ---- pages ---- */

static bool differ_in_entry(struct comparison *c, int process, int page, const struct fuzz_page *a,
			    const struct fuzz_page *b)
{
	if (c->sees & FUZZ_SEES_PRESENT && (differ_in_flag(c, "present", process, page, a->present, b->present) ||
					    differ_in_flag(c, "zero-page", process, page, a->zero, b->zero)))
		return true;
	if (!a->present)
		return false;
	return (c->sees & FUZZ_SEES_EXCLUSIVE &&
		differ_in_flag(c, "exclusive", process, page, a->exclusive, b->exclusive)) ||
	       (c->sees & FUZZ_SEES_MAPCOUNT &&
		differ_in_number(c, "mapcount", process, page, a->mapcount, b->mapcount));
}

/* Of pages on a swap device too, and where there is no page yet. No store may be missing from the soft-dirty ones. */
static bool differ_in_tracking(struct comparison *c, int process, int page, const struct fuzz_page *a,
			       const struct fuzz_page *b)
{
	if (!a->mapped || !b->mapped)
		return false;
	if (c->sees & FUZZ_SEES_WP && !a->wp_open && !b->wp_open &&
	    differ_in_flag(c, "wp", process, page, a->wp, b->wp))
		return true;
	return c->sees & FUZZ_SEES_SOFT_DIRTY && a->soft_dirty && !b->soft_dirty &&
	       differ_in_flag(c, "soft-dirty", process, page, true, false);
}

static bool differ_in_page(struct comparison *c, int process, int page)
{
	const struct fuzz_page *a = &c->now[0]->pages[process][page], *b = &c->now[1]->pages[process][page];

	if (c->sees & FUZZ_SEES_MAPPED && (differ_in_flag(c, "mapped", process, page, a->mapped, b->mapped) ||
					   differ_in_flag(c, "readable", process, page, a->has_bytes, b->has_bytes)))
		return true;
	if (differ_in_tracking(c, process, page, a, b))
		return true;
	/* Who swaps what, and when, is nobody's promise. */
	if (a->swapped || b->swapped)
		return false;
	if (c->sees & FUZZ_SEES_BYTES && a->has_bytes && b->has_bytes &&
	    differ_in_bytes(c, process, page, -1, a->bytes, b->bytes, a->loose))
		return true;
	return !a->shared && !b->shared && differ_in_entry(c, process, page, a, b);
}

/* ---- frames ---- */

/* A page that both show as present and that is no zero page, with both frames. */
struct pair {
	uint64_t frames[2];
	int process, page;
};

/* Same frames here, same frames there. */
static bool differ_in_classes(struct comparison *c, const struct pair *pairs, unsigned n)
{
	for (unsigned i = 1; i < n; i++)
		for (unsigned k = 0; k < i; k++) {
			bool a = pairs[i].frames[0] == pairs[k].frames[0], b = pairs[i].frames[1] == pairs[k].frames[1];
			const struct fuzz_layout *layout = &c->test->layout;
			const struct name *names = c->test->litmus->names;

			if (a == b)
				continue;
			for (unsigned who = 0; who < 2; who++)
				saw(c, who, "%s frame as %s's page %u of %s", (who ? b : a) ? "the same" : "another",
				    names[layout->process[pairs[k].process]].text, layout->page[pairs[k].page].page,
				    names[layout->page[pairs[k].page].region].text);
			return differ(c, "frame", pairs[i].process, pairs[i].page, -1);
		}
	return false;
}

/* Where the statement before showed the page: a page that has just been moved, where it came from. */
static unsigned page_before(const struct comparison *c, const struct pair *pair)
{
	const struct fuzz_layout *layout = &c->test->layout;

	if (!c->stmt || c->stmt->kind != STMT_MOVE || c->now[0]->outcome ||
	    layout->process[pair->process] != c->stmt->proc || layout->page[pair->page].region != c->stmt->name ||
	    layout->page[pair->page].page >= c->stmt->place.npages)
		return (unsigned)pair->page;
	return first_page(layout, &c->stmt->place) + layout->page[pair->page].page;
}

/* Whether a page that was present is on the frame on which it was. */
static bool differ_in_keeping(struct comparison *c, const struct pair *pair)
{
	unsigned number = page_before(c, pair);
	bool kept[2];

	for (unsigned who = 0; who < 2; who++) {
		const struct fuzz_page *page;

		if (!c->before[who] || !c->before[who]->alive[pair->process])
			return false;
		page = &c->before[who]->pages[pair->process][number];
		if (!page->present || page->zero || page->shared)
			return false;
		kept[who] = page->frame == pair->frames[who];
	}
	if (kept[0] == kept[1])
		return false;
	for (unsigned who = 0; who < 2; who++)
		saw(c, who, "%s", kept[who] ? "on the frame on which it was" : FUZZ_COPIED);
	return differ(c, FUZZ_COPY, pair->process, pair->page, -1);
}

static bool differ_in_frames(struct comparison *c)
{
	struct pair pairs[FUZZ_LIVE * FUZZ_PAGES];
	unsigned n = 0;

	if (!(c->sees & FUZZ_SEES_FRAMES))
		return false;
	for (int process = 0; process < (int)c->test->layout.nprocesses; process++)
		for (int page = 0; c->now[0]->alive[process] && page < (int)c->test->layout.npages; page++) {
			const struct fuzz_page *a = &c->now[0]->pages[process][page],
					       *b = &c->now[1]->pages[process][page];

			if (!a->frame || !b->frame || !a->present || !b->present || a->zero || b->zero || a->shared ||
			    n == sizeof(pairs) / sizeof(pairs[0]))
				continue;
			pairs[n++] = (struct pair){{a->frame, b->frame}, process, page};
			/* Which of equal pages is the one that stays is nobody's promise. */
			if (!(c->stmt && c->stmt->kind == STMT_KSM_MERGE) && differ_in_keeping(c, &pairs[n - 1]))
				return true;
		}
	return differ_in_classes(c, pairs, n);
}

/* ---- what is held, and files ---- */

/*
 * A plain reference sees stores as long as its page stays private. A merged page that comes back from swap is merged
 * still for the engine, and a private one for the kernel.
 */
static bool promises_bytes(const struct comparison *c, int handle)
{
	bool mixed = c->is_machine && !(~c->test->litmus->needs & (NEED_SWAP | NEED_KSM));

	return !mixed || c->test->litmus->names[c->test->layout.handle[handle]].kind == NAME_PIN;
}

static bool differ_in_held(struct comparison *c, int handle)
{
	const struct fuzz_held *a = &c->now[0]->held[handle], *b = &c->now[1]->held[handle];

	if (a->bound != b->bound) {
		saw(c, 0, "%s", a->bound ? "bound" : "not bound");
		saw(c, 1, "%s", b->bound ? "bound" : "not bound");
		return differ(c, "bound", -1, -1, handle);
	}
	if (!a->bound)
		return false;
	if (a->npages != b->npages) {
		saw(c, 0, "%u pages", a->npages);
		saw(c, 1, "%u pages", b->npages);
		return differ(c, "pages", -1, -1, handle);
	}
	for (unsigned i = 0; i < a->npages && promises_bytes(c, handle); i++)
		if (a->has_bytes[i] && b->has_bytes[i] &&
		    differ_in_bytes(c, -1, (int)i, handle, a->bytes[i], b->bytes[i], a->loose[i]))
			return true;
	return false;
}

static bool differ_in_file(struct comparison *c, unsigned file)
{
	const struct fuzz_file *a = &c->now[0]->files[file], *b = &c->now[1]->files[file];

	if (differ_in_number(c, "file pages", -1, -1, a->npages, b->npages))
		return true;
	for (unsigned i = 0; i < a->npages; i++) {
		if (!differ_in_bytes(c, -1, (int)i, -1, a->bytes[i], b->bytes[i], a->loose[i]))
			continue;
		snprintf(c->divergence->what, sizeof(c->divergence->what), "file bytes");
		return true;
	}
	for (unsigned i = 0; a->synced && b->synced && i < a->npages; i++) {
		if (!differ_in_bytes(c, -1, (int)i, -1, a->stored[i], b->stored[i], 0))
			continue;
		snprintf(c->divergence->what, sizeof(c->divergence->what), "stored file bytes");
		return true;
	}
	return false;
}

static bool differ_in_life(struct comparison *c)
{
	for (int process = 0; process < (int)c->test->layout.nprocesses; process++)
		if (differ_in_flag(c, "alive", process, -1, c->now[0]->alive[process], c->now[1]->alive[process]))
			return true;
	return false;
}

static bool differ_in_contents(struct comparison *c)
{
	const struct fuzz_layout *layout = &c->test->layout;

	for (int process = 0; process < (int)layout->nprocesses; process++)
		for (int page = 0; c->now[0]->alive[process] && page < (int)layout->npages; page++)
			if (differ_in_page(c, process, page))
				return true;
	for (unsigned handle = 0; c->sees & FUZZ_SEES_BYTES && handle < layout->nhandles; handle++)
		if (differ_in_held(c, (int)handle))
			return true;
	for (unsigned file = 0; c->sees & FUZZ_SEES_BYTES && file < layout->nfiles; file++)
		if (differ_in_file(c, file))
			return true;
	return false;
}

/*
 * Which pages go under pressure, and what the entry of one that has come back has to say, depends on what else the
 * machine does: readahead, batches, who looked last. What a program can read does not.
 */
static unsigned seen_of(const struct fuzz_test *test, const struct fuzz_subject_type *const types[2])
{
	unsigned sees = types[0]->sees & types[1]->sees;

	if (test->litmus->needs & NEED_SWAP)
		sees &= FUZZ_SEES_OUTCOME | FUZZ_SEES_MAPPED | FUZZ_SEES_BYTES | FUZZ_SEES_WP | FUZZ_SEES_SOFT_DIRTY;
	/* What a file's pages cost whom depends on who touched them first, also of those around. */
	if (test->litmus->needs & (NEED_FILE | NEED_UFFD))
		sees &= ~(unsigned)FUZZ_SEES_USAGE;
	/* Which of equal pages is the one that stays is nobody's promise, and so who pays for it. */
	if (test->litmus->needs & NEED_KSM)
		sees &= ~(unsigned)FUZZ_SEES_USAGE;
	return sees;
}

/* Where nothing is reclaimed or merged, what is charged is what the rules say. */
static bool differ_in_usage(struct comparison *c)
{
	const struct fuzz_layout *layout = &c->test->layout;
	const struct name *names = c->test->litmus->names;

	for (unsigned i = 0; c->sees & FUZZ_SEES_USAGE && i < layout->ngroups; i++) {
		if (c->now[0]->usage[i] == c->now[1]->usage[i])
			continue;
		for (unsigned who = 0; who < 2; who++)
			saw(c, who, "%llu pages charged to %s", (unsigned long long)c->now[who]->usage[i],
			    names[layout->group[i]].text);
		return differ(c, "usage", -1, -1, -1);
	}
	return false;
}

bool fuzz_compare(const struct fuzz_test *test, size_t at, const struct fuzz_subject_type *const types[2],
		  const struct fuzz_view *const before[2], const struct fuzz_view *const now[2],
		  struct fuzz_divergence *divergence)
{
	struct comparison c = {
		.test = test,
		.stmt = at < test->litmus->nstmts ? &test->litmus->stmts[at] : NULL,
		.before = before,
		.now = now,
		.sees = seen_of(test, types),
		.is_machine = types[0]->sees & FUZZ_SEES_FAULTS,
		.divergence = divergence,
	};

	*divergence = (struct fuzz_divergence){.at = at, .process = -1, .page = -1, .handle = -1};
	for (unsigned who = 0; who < 2; who++)
		snprintf(divergence->subjects[who], sizeof(divergence->subjects[who]), "%s", types[who]->name);
	return differ_in_outcome(&c) || differ_in_scan(&c) || differ_in_life(&c) || differ_in_contents(&c) ||
	       differ_in_frames(&c) || differ_in_faults(&c) || differ_in_usage(&c);
}

/* ---- half-way ---- */

static bool is_either(const struct fuzz_page *now, const struct fuzz_page *a, const struct fuzz_page *b)
{
	if (!now->mapped || now->swapped || !now->has_bytes)
		return true;
	return (a->has_bytes && agree(a->bytes, now->bytes, a->loose, 0, FUZZ_WINDOW)) ||
	       (b->has_bytes && agree(b->bytes, now->bytes, b->loose, 0, FUZZ_WINDOW)) ||
	       (!a->has_bytes && !b->has_bytes);
}

bool fuzz_compare_half(const struct fuzz_test *test, size_t at, const struct fuzz_subject_type *const types[2],
		       const struct fuzz_view *before, const struct fuzz_view *after, const struct fuzz_view *now,
		       struct fuzz_divergence *divergence)
{
	const struct fuzz_view *const sides[2] = {after, now};
	struct comparison c = {.test = test, .now = sides, .divergence = divergence};
	const struct fuzz_layout *layout = &test->layout;

	*divergence = (struct fuzz_divergence){.at = at, .process = -1, .page = -1, .handle = -1};
	for (unsigned who = 0; who < 2; who++)
		snprintf(divergence->subjects[who], sizeof(divergence->subjects[who]), "%s", types[who]->name);
	for (int process = 0; process < (int)layout->nprocesses; process++)
		for (int page = 0; now->alive[process] && page < (int)layout->npages; page++) {
			const struct fuzz_page *shown = &now->pages[process][page];
			const struct fuzz_page *new = &after->pages[process][page];
			const struct fuzz_page *old = before && before->alive[process] ? &before->pages[process][page]
										       : new;

			if (!is_either(shown, new, old))
				return differ_in_bytes(&c, process, page, -1, new->bytes, shown->bytes, new->loose);
		}
	return false;
}
