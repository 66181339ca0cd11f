/* SPDX-License-Identifier: MIT */
/*
 * What the operations of a program mean: they become statements of the litmus language. Follows which processes live,
 * which handles are held, and what each process has mapped.
 */
#include "fuzz_program.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A page of a process. */
enum {
	PAGE_MAPPED = 1 << 0,
	PAGE_SHARED = 1 << 1,
	PAGE_READ = 1 << 2,
	PAGE_WRITE = 1 << 3,
	PAGE_NOFORK = 1 << 4,
	PAGE_MERGEABLE = 1 << 5,
	PAGE_FILE = 1 << 6,  /* of a file */
	PAGE_HOST = 1 << 7,  /* behind which there is a host's */
	PAGE_UFFD = 1 << 8,  /* a userfaultfd tracks stores */
	PAGE_ASYNC = 1 << 9, /* by itself */
	PAGE_TRACKED = PAGE_UFFD | PAGE_ASYNC,
	PAGE_ACCESS = PAGE_READ | PAGE_WRITE,
};

struct process {
	bool alive, is_snapshot;
	uint16_t pages[FUZZ_PAGES]; /* PAGE_* */
};

struct handle {
	enum name_kind kind;
	bool held, writes;
	unsigned number;
};

enum { MOST_UFFDS = 6 };

struct printer {
	FILE *out;
	enum fuzz_against against;
	bool pressed; /* some operation is about memory that is short */
	bool alike;   /* pages are to be equal */
	unsigned nprocesses, nregions, npages, nhandles, nfiles, ntexts, ngroups;
	struct process processes[FUZZ_PROCESSES];
	struct {
		unsigned first, npages;
	} regions[FUZZ_PAGES]; /* none is empty */
	struct handle handles[FUZZ_HANDLES];
	unsigned file_pages[FUZZ_FILES]; /* as they are now */
	bool is_host[FUZZ_FILES];
	bool has_files; /* that may be mapped */
	unsigned nuffds;
	struct {
		bool open;
		unsigned process;
	} uffds[MOST_UFFDS];
};

struct span {
	unsigned region, first, npages; /* first: of all pages */
};

static bool for_kernel(const struct printer *pr)
{
	return pr->against == FUZZ_AGAINST_KERNEL;
}

/* ---- names ---- */

static char process_name(unsigned process)
{
	return (char)('A' + process);
}

static void print_region(struct printer *pr, unsigned region)
{
	if (region < 26)
		fprintf(pr->out, "%c", 'a' + (int)region);
	else
		fprintf(pr->out, "a%c", 'a' + (int)(region - 26));
}

static void print_handle(struct printer *pr, const struct handle *handle)
{
	char letter = handle->kind == NAME_PIN ? 'p' : handle->kind == NAME_GET ? 'g' : 's';

	fprintf(pr->out, "%c%u", letter, handle->number);
}

/* `A write ` */
static void print_actor(struct printer *pr, unsigned process, const char *what)
{
	fprintf(pr->out, "%c %s ", process_name(process), what);
}

/* `b[1..2]`, and `+512` where @offset is not 0 (then it is one page). */
static void print_span(struct printer *pr, const struct span *span, unsigned offset)
{
	unsigned first = span->first - pr->regions[span->region].first;

	print_region(pr, span->region);
	if (span->npages > 1 && span->npages < pr->regions[span->region].npages)
		fprintf(pr->out, "[%u..%u]", first, first + span->npages - 1);
	else if (span->npages < pr->regions[span->region].npages || offset)
		fprintf(pr->out, "[%u]", first);
	if (offset)
		fprintf(pr->out, "+%u", offset);
}

/* Where pages are to be equal: a text of one of these few, at the start of the page; now and then another one. */
static bool is_alike(const struct printer *pr, const struct fuzz_op *op)
{
	return pr->alike && op->arg % 8 != 7;
}

static void print_alike(struct printer *pr, const struct fuzz_op *op)
{
	static const char *const texts[] = {"same", "same", "same", "zero", "else", "same", "zero"};
	const char *text = texts[op->arg % 8];

	fprintf(pr->out, "\"%s\"", *text == 'z' ? "\\x00\\x00\\x00\\x00" : text);
}

/*
 * Every text of a program is another one: a digit of 62, from the 63rd text on behind a mark, over and over up to the
 * length.
 */
static void print_text(struct printer *pr, const struct fuzz_op *op)
{
	static const char digits[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	static const char marks[] = "+-=*/%&!";
	unsigned n = sizeof(digits) - 1, number = pr->ntexts++, length = 1 + op->text % FUZZ_TEXT;
	char unit[2] = {digits[number % n]}, text[FUZZ_TEXT] = "";
	unsigned nunit = 1;

	_Static_assert(FUZZ_OPS_MAX + FUZZ_FILES <= 62 * sizeof(marks), "each text differs");
	if (is_alike(pr, op)) {
		print_alike(pr, op);
		return;
	}
	if (number >= n) {
		unit[1] = unit[0];
		unit[0] = marks[number / n - 1];
		nunit = 2;
		length = length < 2 ? 2 : length;
	}
	for (unsigned i = 0; i < length; i++)
		text[i] = unit[i % nunit];
	fprintf(pr->out, "\"%.*s\"", (int)length, text);
}

/* ---- choosing ---- */

/* The @number-th of the living, over and over: one always lives. */
static unsigned choose_process(const struct printer *pr, unsigned number)
{
	unsigned nalive = 0, i;

	for (i = 0; i < pr->nprocesses; i++)
		nalive += pr->processes[i].alive;
	number %= nalive ? nalive : 1;
	for (i = 0; !pr->processes[i].alive || number--; i++)
		continue;
	return i;
}

static unsigned region_of(const struct printer *pr, unsigned page)
{
	unsigned region = 0;

	while (page >= pr->regions[region].first + pr->regions[region].npages)
		region++;
	return region;
}

/* Returns: false if there is no page at all yet. */
static bool choose_span(const struct printer *pr, const struct fuzz_op *op, unsigned process, unsigned most,
			struct span *span)
{
	const uint16_t *pages = pr->processes[process].pages;
	unsigned first, tried, rest;

	if (!pr->npages)
		return false;
	first = op->page % pr->npages;
	for (tried = 0; tried < pr->npages && !(op->flags & FUZZ_F_ANYWHERE); tried++) {
		unsigned page = (first + tried) % pr->npages;

		if (pages[page] & PAGE_MAPPED) {
			first = page;
			break;
		}
	}
	span->region = region_of(pr, first);
	span->first = first;
	rest = pr->regions[span->region].first + pr->regions[span->region].npages - first;
	span->npages = 1 + op->npages % most;
	if (span->npages > rest)
		span->npages = rest;
	return true;
}

/* The kernel holds or transfers all of a range or a part that nobody sees: cut to pages which all can or cannot. */
static void cut_to_alike(const struct printer *pr, unsigned process, struct span *span)
{
	const uint16_t *pages = pr->processes[process].pages + span->first;
	unsigned n = 1;

	while (n < span->npages && !((pages[n] ^ pages[0]) & ~(PAGE_NOFORK | PAGE_MERGEABLE)))
		n++;
	span->npages = n;
	/* Where a file ends only the run tells. */
	if (pages[0] & PAGE_FILE && for_kernel(pr))
		span->npages = 1;
}

static void set_pages(struct process *actor, unsigned first, unsigned npages, unsigned state)
{
	for (unsigned i = 0; i < npages && !actor->is_snapshot; i++)
		actor->pages[first + i] = (uint16_t)state;
}

/* Where in a page: an offset stands after one page only. */
static unsigned choose_offset(const struct printer *pr, const struct fuzz_op *op, const struct span *span)
{
	static const unsigned offsets[FUZZ_SPOTS] = FUZZ_SPOT_OFFSETS;
	unsigned number = op->text / FUZZ_TEXT % 4;

	return span->npages > 1 || number >= FUZZ_SPOTS || is_alike(pr, op) ? 0 : offsets[number];
}

static struct handle *choose_handle(struct printer *pr, unsigned number, unsigned kinds, bool writes)
{
	unsigned fit[FUZZ_HANDLES], nfit = 0;

	for (unsigned i = 0; i < pr->nhandles; i++) {
		const struct handle *handle = &pr->handles[i];

		if (handle->held && kinds & 1u << handle->kind && (handle->writes || !writes))
			fit[nfit++] = i;
	}
	return nfit ? &pr->handles[fit[number % nfit]] : NULL;
}

/* ---- making ---- */

/* Returns: the new region, or -1: there are too many pages. */
static int new_region(struct printer *pr, unsigned npages)
{
	if (pr->npages + npages > FUZZ_PAGES)
		return -1;
	pr->regions[pr->nregions].first = pr->npages;
	pr->regions[pr->nregions].npages = npages;
	pr->npages += npages;
	return (int)pr->nregions++;
}

static struct handle *new_handle(struct printer *pr, enum name_kind kind, bool writes)
{
	struct handle *handle = &pr->handles[pr->nhandles];
	unsigned number = 1;

	for (unsigned i = 0; i < pr->nhandles; i++)
		number += pr->handles[i].kind == kind;
	*handle = (struct handle){kind, true, writes, number};
	pr->nhandles++;
	return handle;
}

/* ` -> p1` and the end of the line */
static void print_new_handle(struct printer *pr, enum name_kind kind, bool writes)
{
	fprintf(pr->out, " -> ");
	print_handle(pr, new_handle(pr, kind, writes));
	fprintf(pr->out, "\n");
}

static unsigned nalive(const struct printer *pr)
{
	unsigned n = 0;

	for (unsigned i = 0; i < pr->nprocesses; i++)
		n += pr->processes[i].alive;
	return n;
}

/* ---- mappings ---- */

static const struct {
	const char *word;
	unsigned access;
} protections[] = {{"rw", PAGE_ACCESS}, {"r", PAGE_READ}, {"none", 0}};

static void print_file(struct printer *pr, const struct fuzz_op *op, unsigned process);

/* ` file=f1@1`. Returns: what pages of it are. */
static unsigned print_mapped_file(struct printer *pr, const struct fuzz_op *op)
{
	unsigned file = op->other % pr->nfiles, at = op->arg / 8 % 4;

	fprintf(pr->out, " file=f%u", file + 1);
	if (at)
		fprintf(pr->out, "@%u", at < 3 ? at : 1);
	return PAGE_FILE | (pr->is_host[file] ? PAGE_HOST : 0);
}

static void print_map(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	static const unsigned drawn[] = {0, 0, 0, 0, 0, 0, 1, 2};
	unsigned npages = 1 + op->npages % 8, prot = drawn[op->arg % 8];
	unsigned state = PAGE_MAPPED | protections[prot].access | (op->flags & FUZZ_F_SHARED ? PAGE_SHARED : 0);
	int region = new_region(pr, npages);

	if (region < 0)
		return;
	if (pr->has_files && op->flags & FUZZ_F_FILE && !pr->nfiles)
		print_file(pr, op, process);
	print_actor(pr, process, "map");
	print_region(pr, (unsigned)region);
	fprintf(pr->out, " %u%s%s%s%s", npages, prot ? " prot=" : "", prot ? protections[prot].word : "",
		op->flags & FUZZ_F_SHARED ? " shared" : "", op->flags & FUZZ_F_POPULATE ? " populate" : "");
	if (pr->has_files && op->flags & FUZZ_F_FILE)
		state |= print_mapped_file(pr, op);
	fprintf(pr->out, "\n");
	set_pages(&pr->processes[process], pr->regions[region].first, npages, state);
}

static void print_unmap(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	struct span span;

	if (!choose_span(pr, op, process, 8, &span))
		return;
	print_actor(pr, process, "unmap");
	print_span(pr, &span, 0);
	fprintf(pr->out, "\n");
	set_pages(&pr->processes[process], span.first, span.npages, 0);
}

/* mprotect goes from left to right and stops where nothing is mapped. */
static void print_protect(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	static const unsigned drawn[] = {0, 0, 0, 0, 1, 1, 1, 2};
	unsigned prot = drawn[op->arg % 8];
	struct process *actor = &pr->processes[process];
	struct span span;

	if (!choose_span(pr, op, process, 8, &span))
		return;
	print_actor(pr, process, "protect");
	print_span(pr, &span, 0);
	fprintf(pr->out, " %s\n", protections[prot].word);
	if (actor->is_snapshot)
		return;
	for (unsigned i = 0; i < span.npages; i++) {
		uint16_t *page = &actor->pages[span.first + i];

		if (!(*page & PAGE_MAPPED))
			break;
		*page = (uint16_t)((*page & ~PAGE_ACCESS) | protections[prot].access);
	}
}

enum { DONTFORK, WIPEONFORK, DONTNEED, FREE, DOFORK, KEEPONFORK, POPULATE_READ, POPULATE_WRITE, NADVICE };

static void print_advise(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	static const char *const words[NADVICE] = {
		[DONTFORK] = "dontfork",
		[WIPEONFORK] = "wipeonfork",
		[DONTNEED] = "dontneed",
		[FREE] = "free",
		[DOFORK] = "dofork",
		[KEEPONFORK] = "keeponfork",
		[POPULATE_READ] = "populate-read",
		[POPULATE_WRITE] = "populate-write",
	};
	unsigned word = op->arg % NADVICE;
	struct process *actor = &pr->processes[process];
	struct span span;

	if (!choose_span(pr, op, process, 8, &span))
		return;
	print_actor(pr, process, "advise");
	print_span(pr, &span, 0);
	fprintf(pr->out, " %s\n", words[word]);
	for (unsigned i = 0; !actor->is_snapshot && i < span.npages; i++) {
		uint16_t *page = &actor->pages[span.first + i];

		if (*page && word == DONTFORK)
			*page |= PAGE_NOFORK;
		else if (word == DOFORK)
			*page &= (uint16_t)~PAGE_NOFORK;
	}
}

/*
 * Mappings move with the holes between them (by Linux since 6.17), but not what begins with a hole. Nobody tracks them
 * there.
 */
static void move_pages(struct process *actor, const struct span *from, unsigned to)
{
	uint16_t *source = actor->pages + from->first;

	if (!source[0])
		return;
	for (unsigned i = 0; i < from->npages; i++)
		actor->pages[to + i] = source[i] & (uint16_t)~PAGE_TRACKED;
	memset(source, 0, from->npages * sizeof(*source));
}

static void print_move(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	struct span span;
	int region;

	if (!choose_span(pr, op, process, 8, &span))
		return;
	region = new_region(pr, span.npages);
	if (region < 0)
		return;
	print_actor(pr, process, "move");
	print_span(pr, &span, 0);
	fprintf(pr->out, " -> ");
	print_region(pr, (unsigned)region);
	fprintf(pr->out, "\n");
	if (!pr->processes[process].is_snapshot)
		move_pages(&pr->processes[process], &span, pr->regions[region].first);
}

static void print_numa_hint(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	struct span span;

	if (!choose_span(pr, op, process, 8, &span))
		return;
	print_actor(pr, process, "numa-hint");
	print_span(pr, &span, 0);
	fprintf(pr->out, "\n");
}

/* ---- memory that is short ---- */

static void print_word(struct printer *pr, const struct fuzz_op *op, unsigned process, const char *word)
{
	struct span span;

	if (!choose_span(pr, op, process, 8, &span))
		return;
	print_actor(pr, process, "advise");
	print_span(pr, &span, 0);
	fprintf(pr->out, " %s\n", word);
}

static void print_pageout(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	print_word(pr, op, process, op->arg % 4 ? "pageout" : "cold");
}

static void note_mergeable(struct printer *pr, unsigned process, const struct span *span, bool mergeable)
{
	uint16_t *pages = pr->processes[process].pages + span->first;

	for (unsigned i = 0; i < span->npages && !pr->processes[process].is_snapshot; i++)
		pages[i] = (uint16_t)((pages[i] & ~PAGE_MERGEABLE) | (mergeable ? PAGE_MERGEABLE : 0));
}

static void print_mergeable(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	bool mergeable = op->arg % 4;
	struct span span;

	if (!choose_span(pr, op, process, 8, &span))
		return;
	print_word(pr, op, process, mergeable ? "mergeable" : "unmergeable");
	note_mergeable(pr, process, &span, mergeable);
}

/* A merge finds nothing where nobody has advised it: so somebody does, of a whole region. */
static void print_advised(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	struct span span;

	if (!choose_span(pr, op, process, 1, &span) || pr->processes[process].is_snapshot)
		return;
	span.first = pr->regions[span.region].first;
	span.npages = pr->regions[span.region].npages;
	for (unsigned i = 0; i < span.npages; i++)
		if (pr->processes[process].pages[span.first + i] & PAGE_MERGEABLE)
			return;
	print_actor(pr, process, "advise");
	print_span(pr, &span, 0);
	fprintf(pr->out, " mergeable\n");
	note_mergeable(pr, process, &span, true);
}

/* A few pages, or all that can be had. */
static void print_reclaim(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	bool all = op->arg % 2 || for_kernel(pr); /* a group is emptied there */

	(void)process;
	fprintf(pr->out, "reclaim %u\n", all ? 10000u : 1u + op->npages);
}

static void print_swapoff(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	(void)op;
	(void)process;
	fprintf(pr->out, "swapoff\n");
}

static void print_ksm_merge(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	print_advised(pr, op, process);
	fprintf(pr->out, "ksm merge%s\n", op->arg % 3 ? "" : " zero-pages");
}

/* ---- loads and stores ---- */

static void print_write(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	struct span span;

	if (!choose_span(pr, op, process, 8, &span))
		return;
	print_actor(pr, process, "write");
	print_span(pr, &span, choose_offset(pr, op, &span));
	fprintf(pr->out, " ");
	print_text(pr, op);
	fprintf(pr->out, "\n");
}

static void print_read(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	struct span span;

	if (!choose_span(pr, op, process, 8, &span))
		return;
	print_actor(pr, process, "read");
	print_span(pr, &span, choose_offset(pr, op, &span));
	fprintf(pr->out, "\n");
}

/* Pages are those of the process that is written to. */
static void print_remote(struct printer *pr, const struct fuzz_op *op, unsigned process, const char *what)
{
	unsigned other = choose_process(pr, op->other);
	struct span span;

	if (!choose_span(pr, op, other, 4, &span))
		return;
	print_actor(pr, process, what);
	fprintf(pr->out, "%c ", process_name(other));
	print_span(pr, &span, choose_offset(pr, op, &span));
	fprintf(pr->out, " ");
	print_text(pr, op);
	fprintf(pr->out, "\n");
}

static void print_poke(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	print_remote(pr, op, process, "poke");
}

static void print_remote_write(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	print_remote(pr, op, process, "remote-write");
}

/* ---- processes ---- */

static void print_child(struct printer *pr, unsigned process, const char *what, bool is_snapshot, int group)
{
	const struct process *parent = &pr->processes[process];
	struct process *child = &pr->processes[pr->nprocesses];

	if (pr->nprocesses == FUZZ_PROCESSES || nalive(pr) == FUZZ_LIVE)
		return;
	print_actor(pr, process, what);
	fprintf(pr->out, "%c", process_name(pr->nprocesses));
	if (group >= 0)
		fprintf(pr->out, " into m%d", group + 1);
	fprintf(pr->out, "\n");
	child->alive = true;
	child->is_snapshot = is_snapshot;
	for (unsigned i = 0; i < FUZZ_PAGES; i++)
		child->pages[i] = parent->pages[i] & PAGE_NOFORK ? 0 : parent->pages[i] & (uint16_t)~PAGE_TRACKED;
	pr->nprocesses++;
}

static void print_fork(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	(void)op;
	print_child(pr, process, "fork", false, -1);
}

static void print_snapshot(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	(void)op;
	print_child(pr, process, "snapshot", true, -1);
}

/* ---- memory groups ---- */

/* Without swap, where nothing can be reclaimed, mostly one that is never met. */
static unsigned choose_limit(const struct printer *pr, const struct fuzz_op *op)
{
	static const unsigned limits[] = {4, 6, 10, 16, 24, 40, FUZZ_NO_LIMIT, FUZZ_NO_LIMIT};

	if (for_kernel(pr) || (!pr->pressed && op->arg % 8))
		return FUZZ_NO_LIMIT;
	return limits[op->arg % 8];
}

static void print_cgroup(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	unsigned above = op->other % (pr->ngroups + 1);

	(void)process;
	if (pr->ngroups == FUZZ_GROUPS)
		return;
	pr->ngroups++;
	fprintf(pr->out, "cgroup m%u limit=%u", pr->ngroups, choose_limit(pr, op));
	if (op->flags & FUZZ_F_ANYWHERE && !for_kernel(pr))
		fprintf(pr->out, " swap=4");
	if (above && !for_kernel(pr))
		fprintf(pr->out, " in=m%u", above);
	fprintf(pr->out, "\n");
}

static int choose_group(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	if (!pr->ngroups)
		print_cgroup(pr, op, process);
	return (int)(op->other % pr->ngroups);
}

static void print_join(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	int group = choose_group(pr, op, process);

	print_actor(pr, process, "join");
	fprintf(pr->out, "m%d\n", group + 1);
}

static void print_fork_into(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	int group = choose_group(pr, op, process);

	print_child(pr, process, "fork", false, group);
}

/* One stays: without a process there is nothing to do and nothing to see. */
static void print_exit(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	(void)op;
	if (nalive(pr) == 1)
		return;
	fprintf(pr->out, "%c exit\n", process_name(process));
	pr->processes[process].alive = false;
}

/* ---- pins, gets, pipes ---- */

/*
 * The flags as they can be here. A pin of the kernel is for writing, and for long, which one of memory that is not
 * known as private says.
 */
static unsigned possible_flags(const struct printer *pr, const struct fuzz_op *op, unsigned process,
			       const struct span *span, bool is_pin)
{
	unsigned state = pr->processes[process].pages[span->first], flags = op->flags;
	bool is_private = (state & (PAGE_MAPPED | PAGE_SHARED)) == PAGE_MAPPED;

	if (!for_kernel(pr))
		return flags;
	flags &= ~(unsigned)FUZZ_F_FORCE;
	if (!is_pin)
		return flags & ~(unsigned)FUZZ_F_WRITE;
	return flags | FUZZ_F_WRITE | (is_private ? 0 : FUZZ_F_LONGTERM);
}

static void print_gup(struct printer *pr, const struct fuzz_op *op, unsigned process, bool is_pin)
{
	struct span span;
	unsigned flags;

	if (pr->nhandles == FUZZ_HANDLES || !choose_span(pr, op, process, FUZZ_HANDLE_PAGES, &span))
		return;
	if (for_kernel(pr) && is_pin)
		cut_to_alike(pr, process, &span);
	if (for_kernel(pr) && pr->has_files)
		span.npages = 1;
	flags = possible_flags(pr, op, process, &span, is_pin);
	print_actor(pr, process, is_pin ? "pin" : "get");
	print_span(pr, &span, choose_offset(pr, op, &span));
	fprintf(pr->out, flags & FUZZ_F_WRITE ? " w" : " r");
	if (is_pin)
		fprintf(pr->out, "%s%s", flags & FUZZ_F_FAST ? " fast" : "",
			flags & FUZZ_F_LONGTERM ? " longterm" : "");
	fprintf(pr->out, "%s", flags & FUZZ_F_FORCE ? " force" : "");
	print_new_handle(pr, is_pin ? NAME_PIN : NAME_GET, flags & FUZZ_F_WRITE);
}

static void print_pin(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	print_gup(pr, op, process, true);
}

static void print_get(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	print_gup(pr, op, process, false);
}

static void print_splice(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	struct span span;

	if (pr->nhandles == FUZZ_HANDLES || !choose_span(pr, op, process, FUZZ_HANDLE_PAGES, &span))
		return;
	if (pr->has_files && for_kernel(pr))
		span.npages = 1;
	print_actor(pr, process, "splice");
	print_span(pr, &span, choose_offset(pr, op, &span));
	print_new_handle(pr, NAME_PIPE, false);
}

static void print_release(struct printer *pr, const char *what, struct handle *handle, const char *how)
{
	if (!handle)
		return;
	fprintf(pr->out, "%s ", what);
	print_handle(pr, handle);
	fprintf(pr->out, "%s\n", how);
	handle->held = false;
}

static void print_unpin(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	(void)process;
	print_release(pr, "unpin", choose_handle(pr, op->other, 1u << NAME_PIN, false),
		      op->flags & FUZZ_F_DIRTY ? " dirty" : "");
}

static void print_put(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	(void)process;
	print_release(pr, "put", choose_handle(pr, op->other, 1u << NAME_GET | 1u << NAME_PIPE, false), "");
}

/* Mostly through what was taken for writing: of the rest little is promised. */
static void print_device_write(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	unsigned kinds = 1u << NAME_PIN | (for_kernel(pr) ? 0 : 1u << NAME_GET);
	struct handle *handle = choose_handle(pr, op->other, kinds, !(op->flags & FUZZ_F_ANYWHERE));

	(void)process;
	if (!handle)
		return;
	fprintf(pr->out, "device ");
	print_handle(pr, handle);
	fprintf(pr->out, " write ");
	print_text(pr, op);
	fprintf(pr->out, "\n");
}

/* ---- files ---- */

static void print_file(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	(void)process;
	if (pr->nfiles == FUZZ_FILES)
		return;
	pr->file_pages[pr->nfiles] = 1 + op->npages % FUZZ_FILE_PAGES;
	/* To write one back takes the kernel long. */
	pr->is_host[pr->nfiles] = op->arg % 4 < (for_kernel(pr) ? 1 : 2);
	fprintf(pr->out, "file f%u %u ", pr->nfiles + 1, pr->file_pages[pr->nfiles]);
	print_text(pr, op);
	fprintf(pr->out, pr->has_files && !pr->is_host[pr->nfiles] ? " memory\n" : "\n");
	pr->nfiles++;
}

/* A file that is there, or a new one. */
static unsigned choose_file(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	if (!pr->nfiles)
		print_file(pr, op, process);
	return op->other % pr->nfiles;
}

static void print_sync(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	fprintf(pr->out, "sync f%u\n", choose_file(pr, op, process) + 1);
}

static void print_msync(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	struct span span;

	if (!choose_span(pr, op, process, 8, &span))
		return;
	print_actor(pr, process, "msync");
	print_span(pr, &span, 0);
	fprintf(pr->out, "%s\n", op->arg % 4 ? "" : " async");
}

static void print_truncate(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	unsigned file = choose_file(pr, op, process);

	pr->file_pages[file] = op->arg % (FUZZ_FILE_PAGES + 1);
	fprintf(pr->out, "truncate f%u %u\n", file + 1, pr->file_pages[file]);
}

/* `f1[2]` or `f1[1..2]`, inside of the file as it is now; nothing where it is empty. Returns: whether it is not. */
static bool print_file_place(struct printer *pr, const struct fuzz_op *op, const char *what, unsigned file,
			     unsigned most)
{
	unsigned npages = pr->file_pages[file], first, last;

	if (!npages)
		return false;
	first = op->arg % npages;
	last = first + op->npages % most;
	last = last < npages ? last : npages - 1;
	fprintf(pr->out, "%s f%u[%u", what, file + 1, first);
	if (last > first)
		fprintf(pr->out, "..%u", last);
	fprintf(pr->out, "]");
	return true;
}

static void print_punch(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	if (print_file_place(pr, op, "punch", choose_file(pr, op, process), 3))
		fprintf(pr->out, "\n");
}

static void print_store(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	if (!print_file_place(pr, op, "store", choose_file(pr, op, process), 1))
		return;
	fprintf(pr->out, " ");
	print_text(pr, op);
	fprintf(pr->out, "\n");
}

/* ---- who has written ---- */

/* Pages of @process that all are of a kind, the first of them one that has all of @with and none of @without. */
static bool choose_tracked(const struct printer *pr, const struct fuzz_op *op, unsigned process, unsigned with,
			   unsigned without, struct span *span)
{
	const uint16_t *pages = pr->processes[process].pages;
	struct fuzz_op at = *op;

	for (unsigned tried = 0; tried < pr->npages && !pr->processes[process].is_snapshot; tried++) {
		unsigned n = 1;

		at.page = (uint8_t)((op->page + tried) % pr->npages);
		if ((pages[at.page] & with) != with || pages[at.page] & without)
			continue;
		choose_span(pr, &at, process, 8, span);
		while (n < span->npages && !((pages[span->first + n] ^ pages[span->first]) &
					     (PAGE_MAPPED | PAGE_SHARED | PAGE_FILE | PAGE_HOST | PAGE_TRACKED)))
			n++;
		span->npages = n;
		return true;
	}
	return false;
}

/*
 * What stores meet in files that change under them, where what was advised free is gone, and where nothing is yet, the
 * flat model does not follow: there none fails.
 */
static const char *choose_mode(const struct printer *pr, const struct fuzz_op *op, unsigned state)
{
	bool is_open = !for_kernel(pr) && (state & PAGE_FILE || pr->pressed);
	bool is_async = op->arg % 2 || state & PAGE_HOST || is_open;

	if (is_async)
		return "async";
	return for_kernel(pr) && op->arg % 4 ? "sigbus" : "sigbus unpopulated";
}

static void print_uffd(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	uint16_t *pages = pr->processes[process].pages;
	const char *mode;
	struct span span;

	if (pr->nuffds == MOST_UFFDS || !choose_tracked(pr, op, process, PAGE_MAPPED, PAGE_UFFD, &span))
		return;
	mode = choose_mode(pr, op, pages[span.first]);
	print_actor(pr, process, "uffd");
	print_span(pr, &span, 0);
	pr->uffds[pr->nuffds].open = true;
	pr->uffds[pr->nuffds].process = process;
	fprintf(pr->out, " wp %s -> u%u\n", mode, ++pr->nuffds);
	for (unsigned i = 0; i < span.npages; i++)
		pages[span.first + i] |= PAGE_UFFD | (*mode == 'a' ? PAGE_ASYNC : 0);
}

/* Returns: the number of one that is open, of a living process, or -1. */
static int choose_uffd(const struct printer *pr, unsigned number)
{
	int fit[MOST_UFFDS];
	unsigned nfit = 0;

	for (unsigned i = 0; i < pr->nuffds; i++)
		if (pr->uffds[i].open && pr->processes[pr->uffds[i].process].alive)
			fit[nfit++] = (int)i;
	return nfit ? fit[number % nfit] : -1;
}

static void print_protection(struct printer *pr, const struct fuzz_op *op, const char *what)
{
	int uffd = choose_uffd(pr, op->other);
	struct span span;

	if (uffd < 0 || !choose_tracked(pr, op, pr->uffds[uffd].process, PAGE_UFFD, 0, &span))
		return;
	fprintf(pr->out, "u%d %s ", uffd + 1, what);
	print_span(pr, &span, 0);
	fprintf(pr->out, "\n");
}

static void print_wp(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	if (choose_uffd(pr, op->other) < 0)
		print_uffd(pr, op, process);
	print_protection(pr, op, "protect");
}

static void print_unwp(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	(void)process;
	print_protection(pr, op, "unprotect");
}

/* Which pages it was told of the run knows; none is scanned any more that may have been one of them. */
static void print_uffd_close(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	int uffd = choose_uffd(pr, op->other);

	(void)process;
	if (uffd < 0)
		return;
	fprintf(pr->out, "u%d close\n", uffd + 1);
	pr->uffds[uffd].open = false;
	for (unsigned i = 0; i < FUZZ_PAGES; i++)
		pr->processes[pr->uffds[uffd].process].pages[i] &= (uint16_t)~PAGE_TRACKED;
}

static void print_scan(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	struct span span;

	if (!choose_tracked(pr, op, process, PAGE_ASYNC, 0, &span))
		return;
	print_actor(pr, process, "scan");
	print_span(pr, &span, 0);
	fprintf(pr->out, " written%s finds nothing\n", op->arg % 3 ? " protect" : "");
}

static void print_clear(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	(void)op;
	if (!pr->processes[process].is_snapshot)
		fprintf(pr->out, "%c clear-soft-dirty\n", process_name(process));
}

static void print_locking(struct printer *pr, const struct fuzz_op *op, unsigned process, const char *what,
			  const char *how)
{
	struct span span;

	if (!choose_span(pr, op, process, 8, &span))
		return;
	print_actor(pr, process, what);
	print_span(pr, &span, 0);
	fprintf(pr->out, "%s\n", how);
}

static void print_mlock(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	print_locking(pr, op, process, "mlock", op->arg % 3 ? "" : " onfault");
}

static void print_munlock(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	print_locking(pr, op, process, "munlock", "");
}

/* Inside of the file, and in whole sectors. */
static void print_direct(struct printer *pr, const struct fuzz_op *op, unsigned process, const char *what)
{
	unsigned file, at, offset;
	struct span span;

	if (!choose_span(pr, op, process, FUZZ_FILE_PAGES, &span))
		return;
	if (!pr->nfiles)
		print_file(pr, op, process);
	file = op->other % pr->nfiles;
	at = op->arg % pr->file_pages[file];
	if (for_kernel(pr))
		cut_to_alike(pr, process, &span);
	if (span.npages > pr->file_pages[file] - at)
		span.npages = pr->file_pages[file] - at;
	offset = choose_offset(pr, op, &span);
	print_actor(pr, process, what);
	print_span(pr, &span, offset % 512 ? 0 : offset);
	fprintf(pr->out, " f%u@%u\n", file + 1, at);
}

static void print_direct_out(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	print_direct(pr, op, process, "direct-out");
}

static void print_direct_in(struct printer *pr, const struct fuzz_op *op, unsigned process)
{
	print_direct(pr, op, process, "direct-in");
}

/* ---- programs ---- */

typedef void print_op(struct printer *pr, const struct fuzz_op *op, unsigned process);

static print_op *const printers[FUZZ_OP_KINDS] = {
	[FUZZ_OP_MAP] = print_map,
	[FUZZ_OP_WRITE] = print_write,
	[FUZZ_OP_READ] = print_read,
	[FUZZ_OP_FORK] = print_fork,
	[FUZZ_OP_EXIT] = print_exit,
	[FUZZ_OP_PROTECT] = print_protect,
	[FUZZ_OP_ADVISE] = print_advise,
	[FUZZ_OP_MOVE] = print_move,
	[FUZZ_OP_UNMAP] = print_unmap,
	[FUZZ_OP_PIN] = print_pin,
	[FUZZ_OP_GET] = print_get,
	[FUZZ_OP_UNPIN] = print_unpin,
	[FUZZ_OP_PUT] = print_put,
	[FUZZ_OP_DEVICE_WRITE] = print_device_write,
	[FUZZ_OP_SPLICE] = print_splice,
	[FUZZ_OP_FILE] = print_file,
	[FUZZ_OP_DIRECT_OUT] = print_direct_out,
	[FUZZ_OP_DIRECT_IN] = print_direct_in,
	[FUZZ_OP_POKE] = print_poke,
	[FUZZ_OP_REMOTE_WRITE] = print_remote_write,
	[FUZZ_OP_NUMA_HINT] = print_numa_hint,
	[FUZZ_OP_SNAPSHOT] = print_snapshot,
	[FUZZ_OP_PAGEOUT] = print_pageout,
	[FUZZ_OP_RECLAIM] = print_reclaim,
	[FUZZ_OP_SWAPOFF] = print_swapoff,
	[FUZZ_OP_MERGEABLE] = print_mergeable,
	[FUZZ_OP_KSM_MERGE] = print_ksm_merge,
	[FUZZ_OP_CGROUP] = print_cgroup,
	[FUZZ_OP_JOIN] = print_join,
	[FUZZ_OP_FORK_INTO] = print_fork_into,
	[FUZZ_OP_SYNC] = print_sync,
	[FUZZ_OP_MSYNC] = print_msync,
	[FUZZ_OP_TRUNCATE] = print_truncate,
	[FUZZ_OP_PUNCH] = print_punch,
	[FUZZ_OP_STORE] = print_store,
	[FUZZ_OP_UFFD] = print_uffd,
	[FUZZ_OP_WP] = print_wp,
	[FUZZ_OP_UNWP] = print_unwp,
	[FUZZ_OP_UFFD_CLOSE] = print_uffd_close,
	[FUZZ_OP_SCAN] = print_scan,
	[FUZZ_OP_CLEAR] = print_clear,
	[FUZZ_OP_MLOCK] = print_mlock,
	[FUZZ_OP_MUNLOCK] = print_munlock,
};

static void print_header(struct printer *pr, const struct fuzz_program *program)
{
	fprintf(pr->out, "title: a random program, of seed %llu\n", (unsigned long long)program->seed);
	fprintf(pr->out, "about: for a comparison with %s, which looks at pages %s\n",
		for_kernel(pr) ? "the kernel" : "the other fork modes and the flat model",
		program->looks ? "by loads" : "without touching them");
	if (program->pressure & (FUZZ_P_FILES | FUZZ_P_TRACKING))
		fprintf(pr->out, "needs:%s%s\n", program->pressure & FUZZ_P_FILES ? " file" : "",
			program->pressure & FUZZ_P_TRACKING ? " uffd" : "");
	if (program->room)
		fprintf(pr->out, "about: with %u frames to spare\nmachine: ram=2M swap=4M\n", program->room);
	fprintf(pr->out, "\n");
}

static void print_ops(struct printer *pr, const struct fuzz_program *program)
{
	for (unsigned i = 0; i < program->nops; i++) {
		const struct fuzz_op *op = &program->ops[i];
		enum fuzz_op_kind kind = op->kind % FUZZ_OP_KINDS;

		if (fuzz_program_has(program, kind))
			printers[kind](pr, op, choose_process(pr, op->proc));
	}
	/* A test has a statement; without a region nothing was printed but files. */
	if (!pr->nregions)
		print_map(pr, &(struct fuzz_op){0}, choose_process(pr, 0));
}

int fuzz_print(const struct fuzz_program *program, char **text, size_t *nbytes)
{
	struct printer pr = {.against = program->against, .nprocesses = 1};
	bool failed;

	pr.processes[0].alive = true;
	pr.alike = program->pressure & FUZZ_P_MERGING;
	pr.pressed = program->room;
	pr.has_files = program->pressure & FUZZ_P_FILES;
	for (unsigned i = 0; i < program->nops; i++) {
		enum fuzz_op_kind kind = program->ops[i].kind % FUZZ_OP_KINDS;

		pr.pressed |= fuzz_program_has(program, kind) && fuzz_op_presses(kind);
	}
	*text = NULL;
	pr.out = open_memstream(text, nbytes);
	if (!pr.out)
		return -ENOMEM;
	print_header(&pr, program);
	print_ops(&pr, program);
	failed = ferror(pr.out);
	if (!fclose(pr.out) && !failed)
		return 0;
	free(*text);
	*text = NULL;
	return -ENOMEM;
}
