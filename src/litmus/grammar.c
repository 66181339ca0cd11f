/* SPDX-License-Identifier: MIT */
/*
 * The statements and checks of the litmus language. Each is a row of a table: its word and the functions that take its
 * parts from left to right.
 */
#include "parse_internal.h"

#include <errno.h>
#include <string.h>

typedef int part_fn(struct parser *p, struct stmt *st);

struct form {
	const char *word;
	enum stmt_kind kind;
	unsigned needs;
	part_fn *parts[4];
};

#define NELEMS(array) (sizeof(array) / sizeof((array)[0]))

/* ---- places ---- */

/* A number inside a place: from the mark before it, which is the current token, to the mark after it. */
static int take_inside(struct parser *p, const char *what, uint64_t last, uint64_t *number)
{
	int err = lex_next(p);

	if (!err)
		err = lex_no_blank(p, "a place");
	if (!err)
		err = lex_number(p, what, 0, last, number);
	return err ? err : lex_no_blank(p, "a place");
}

/* `[3]` or, if @ranged is given, `[0..7]`. */
static int take_index(struct parser *p, uint64_t npages, uint64_t *first, uint64_t *last, bool *ranged)
{
	int err = lex_no_blank(p, "a place");

	if (!err)
		err = take_inside(p, "the page number", npages - 1, first);
	*last = *first;
	if (!err && ranged && p->token.kind == TOKEN_DOTS) {
		const char *at = p->pos;

		err = take_inside(p, "the last page number", npages - 1, last);
		if (!err && *last < *first)
			return parse_fail(p, at, "the range ends before it starts");
		*ranged = true;
	}
	if (err)
		return err;
	if (p->token.kind != TOKEN_CLOSE)
		return parse_fail_token(p, "']' expected, found %s", parse_quote(p));
	return lex_next(p);
}

static int take_offset(struct parser *p, bool one_page, uint64_t *offset)
{
	int err = lex_no_blank(p, "a place");

	if (!err && !one_page)
		return parse_fail_token(p, "an offset stands after one page, as in buf[3]+512");
	if (!err)
		err = lex_next(p);
	if (!err)
		err = lex_no_blank(p, "a place");
	return err ? err : lex_number(p, "the offset", 0, LITMUS_PAGE_BYTES - 1, offset);
}

static int take_place(struct parser *p, bool offset_allowed, struct place *place)
{
	struct place result = {.whole = true, .loc = parse_loc(p, p->token.start)};
	uint64_t last;
	bool ranged = false;
	int err = scope_use(p, KIND(REGION), &result.region);

	if (err)
		return err;
	last = p->litmus->names[result.region].npages - 1;
	if (p->token.kind == TOKEN_OPEN) {
		result.whole = false;
		err = take_index(p, last + 1, &result.first, &last, &ranged);
	}
	if (!err && p->token.kind == TOKEN_PLUS)
		err = offset_allowed ? take_offset(p, !result.whole && !ranged, &result.offset)
				     : parse_fail_token(p, "whole pages are meant here: no offset");
	if (err)
		return err;
	result.npages = last - result.first + 1;
	*place = result;
	return 0;
}

static int pages(struct parser *p, struct stmt *st)
{
	return take_place(p, false, &st->place);
}

static int bytes(struct parser *p, struct stmt *st)
{
	return take_place(p, true, &st->place);
}

/* The other place of `same`, `differs` and a userfaultfd's `move`: page by page beside the first. */
static int other_pages(struct parser *p, struct stmt *st)
{
	const char *at = p->token.start;
	int err = take_place(p, false, &st->place2);

	if (!err && st->place.npages != st->place2.npages)
		return parse_fail(p, at, "this place has %llu pages, the other one %llu: they are taken page by page",
				  (unsigned long long)st->place2.npages, (unsigned long long)st->place.npages);
	return err;
}

/* ---- texts ---- */

static int take_text(struct parser *p, struct stmt *st, bool zero_allowed)
{
	struct text *texts = parse_realloc(st->texts, (st->ntexts + 1) * sizeof(*texts)), *text;
	uint64_t offset = st->handle >= 0 ? p->infos[st->handle].offset : st->place.offset;

	if (!texts)
		return -ENOMEM;
	st->texts = texts;
	text = &texts[st->ntexts++];
	*text = (struct text){0};
	if (!lex_is(p, "zero"))
		return lex_text(p, LITMUS_PAGE_BYTES - offset, text);
	if (!zero_allowed)
		return parse_fail_token(p, "'zero' stands in checks only; here a text in double quotes is expected");
	text->zero = true;
	return lex_next(p);
}

static int text(struct parser *p, struct stmt *st)
{
	return take_text(p, st, false);
}

/* `"text" or zero or ...` */
static int alternatives(struct parser *p, struct stmt *st)
{
	int err = take_text(p, st, true);

	while (!err && lex_is(p, "or")) {
		if (st->ntexts == MAX_ALTERNATIVES)
			return parse_fail_token(p, "more than %u alternatives", MAX_ALTERNATIVES);
		err = lex_next(p);
		if (!err)
			err = take_text(p, st, true);
	}
	return err;
}

/* ---- single words ---- */

static int take_word(struct parser *p, const char *word)
{
	if (!lex_is(p, word))
		return parse_fail_token(p, "'%s' expected, found %s", word, parse_quote(p));
	return lex_next(p);
}

/* What a reader of the file sees, or what has been written back. */
static int reads_or_holds(struct parser *p, struct stmt *st)
{
	if (!lex_is(p, "holds"))
		return take_word(p, "reads");
	st->kind = STMT_CHECK_FILE_HOLDS;
	p->litmus->needs |= NEED_FILE;
	return lex_next(p);
}

static int word_write(struct parser *p, struct stmt *st)
{
	(void)st;
	return take_word(p, "write");
}

/* `merge [zero-pages]` */
static int word_merge(struct parser *p, struct stmt *st)
{
	int err = take_word(p, "merge");

	if (err || !lex_is(p, "zero-pages"))
		return err;
	st->options = 1;
	return lex_next(p);
}

/* Whether the parts of a statement are at an end: nothing follows, or `fails`, `may fail`. */
static bool at_suffix(const struct parser *p)
{
	return p->token.kind == TOKEN_END || lex_is(p, "fails") || lex_is(p, "may");
}

/*
 * One of the options @words, each at most once: sets bit i of *seen. *index is the option taken.
 */
static int take_option(struct parser *p, const char *const *words, size_t nwords, unsigned *seen, int *index)
{
	const char *at = p->token.start;
	int err = words_take(p, "an option", words, nwords, index);

	if (!err && *seen & 1u << *index)
		return parse_fail(p, at, "option '%s' stands twice", words[*index]);
	if (!err)
		*seen |= 1u << *index;
	return err;
}

static int protection(struct parser *p, struct stmt *st)
{
	static const char *const words[] = {
		[LITMUS_PROT_NONE] = "none", [LITMUS_PROT_R] = "r", [LITMUS_PROT_RW] = "rw"};
	int index, err = words_take(p, "a protection", words, NELEMS(words), &index);

	if (!err)
		st->prot = (enum litmus_prot)index;
	return err;
}

static unsigned advice_needs(enum litmus_advice advice)
{
	switch ((int)advice) {
	case ADVICE_MERGEABLE:
	case ADVICE_UNMERGEABLE:
		return NEED_KSM;
	case ADVICE_HUGEPAGE:
	case ADVICE_NOHUGEPAGE:
	case ADVICE_COLLAPSE:
		return NEED_THP;
	case ADVICE_COLD:
	case ADVICE_PAGEOUT:
		return NEED_SWAP;
	default:
		return 0;
	}
}

static int advice(struct parser *p, struct stmt *st)
{
	int index, err = words_take(p, "an advice", litmus_advice_words, ADVICE_COUNT, &index);

	if (err)
		return err;
	st->advice = (enum litmus_advice)index;
	p->litmus->needs |= advice_needs(st->advice);
	return 0;
}

/* ---- using names ---- */

static int other_process(struct parser *p, struct stmt *st)
{
	return scope_use(p, KIND(PROCESS), &st->proc2);
}

static int process(struct parser *p, struct stmt *st)
{
	return scope_use(p, KIND(PROCESS), &st->proc);
}

static int used_pin(struct parser *p, struct stmt *st)
{
	return scope_use(p, KIND(PIN), &st->handle);
}

static int used_get(struct parser *p, struct stmt *st)
{
	return scope_use(p, KIND(GET) | KIND(PIPE), &st->handle);
}

static int used_device(struct parser *p, struct stmt *st)
{
	return scope_use(p, KIND(PIN) | KIND(GET), &st->handle);
}

static int used_lock(struct parser *p, struct stmt *st)
{
	return scope_use(p, KIND(LOCK), &st->handle);
}

static int used_file(struct parser *p, struct stmt *st)
{
	return scope_use(p, KIND(FILE), &st->file);
}

static int used_cgroup(struct parser *p, struct stmt *st)
{
	return scope_use(p, KIND(CGROUP), &st->cgroup);
}

/* ---- defining names ---- */

static int new_region(struct parser *p, struct stmt *st)
{
	return scope_define(p, NAME_REGION, &st->name);
}

static int new_cgroup(struct parser *p, struct stmt *st)
{
	return scope_define(p, NAME_CGROUP, &st->name);
}

static int new_file(struct parser *p, struct stmt *st)
{
	return scope_define(p, NAME_FILE, &st->name);
}

/* `-> name` */
static int take_arrow(struct parser *p, struct stmt *st, enum name_kind kind)
{
	struct name *name;
	int err;

	if (p->token.kind != TOKEN_ARROW)
		return parse_fail_token(p, "'-> name' expected, found %s", parse_quote(p));
	err = lex_next(p);
	if (!err)
		err = scope_define(p, kind, &st->name);
	if (err)
		return err;
	name = &p->litmus->names[st->name];
	name->region = st->place.region;
	name->first = (unsigned)st->place.first;
	p->infos[st->name].offset = st->place.offset;
	if (kind == NAME_REGION)
		name->npages = st->place.npages;
	else
		name->nhandle = st->place.npages;
	return 0;
}

static int arrow_region(struct parser *p, struct stmt *st)
{
	return take_arrow(p, st, NAME_REGION);
}

static int arrow_pin(struct parser *p, struct stmt *st)
{
	return take_arrow(p, st, NAME_PIN);
}

static int arrow_get(struct parser *p, struct stmt *st)
{
	return take_arrow(p, st, NAME_GET);
}

static int arrow_pipe(struct parser *p, struct stmt *st)
{
	return take_arrow(p, st, NAME_PIPE);
}

static int arrow_uffd(struct parser *p, struct stmt *st)
{
	return take_arrow(p, st, NAME_UFFD);
}

static int arrow_lock(struct parser *p, struct stmt *st)
{
	return take_arrow(p, st, NAME_LOCK);
}

/* ---- map, fork ---- */

static int region_size(struct parser *p, struct stmt *st)
{
	int err = lex_size(p, "the size", true, MAX_REGION_PAGES, &st->count);

	if (!err)
		p->litmus->names[st->name].npages = st->count;
	return err;
}

static void reach_file(struct parser *p, int file, uint64_t npages)
{
	if (p->infos[file].reach < npages)
		p->infos[file].reach = npages;
}

/* `@N` after a file's name, if it is there: a page up to @last. */
static int take_at(struct parser *p, uint64_t last, uint64_t *page, bool *given)
{
	int err;

	*given = p->token.kind == TOKEN_AT;
	if (!*given)
		return 0;
	err = lex_no_blank(p, "a place in a file");
	if (!err)
		err = lex_next(p);
	if (!err)
		err = lex_no_blank(p, "a place in a file");
	return err ? err : lex_number(p, "the file page", 0, last, page);
}

/* `f` or `f@N`. A mapping may reach beyond the file's end, where there is nothing. */
static int mapped_file(struct parser *p, struct stmt *st)
{
	bool given;
	int err = used_file(p, st);

	return err ? err : take_at(p, MAX_REGION_PAGES, &st->file_page, &given);
}

enum { MAP_SHARED, MAP_HUGE, MAP_HUGETLB, MAP_POPULATE, MAP_READONLY, MAP_PROT, MAP_FILE, NMAP_WORDS };

static int map_options(struct parser *p, struct stmt *st)
{
	static const char *const words[NMAP_WORDS] = {"shared",   "huge", "hugetlb", "populate",
						      "readonly", "prot", "file"};
	unsigned seen = 0;
	int index, err = 0;

	while (!err && !at_suffix(p)) {
		err = take_option(p, words, NMAP_WORDS, &seen, &index);
		if (!err && (index == MAP_PROT || index == MAP_FILE))
			err = lex_equals(p, words[index]);
		if (!err && index == MAP_PROT)
			err = protection(p, st);
		else if (!err && index == MAP_FILE)
			err = mapped_file(p, st);
	}
	_Static_assert(MAP_OPT_SHARED == 1u << MAP_SHARED && MAP_OPT_HUGE == 1u << MAP_HUGE &&
			       MAP_OPT_HUGETLB == 1u << MAP_HUGETLB && MAP_OPT_POPULATE == 1u << MAP_POPULATE &&
			       MAP_OPT_READONLY == 1u << MAP_READONLY,
		       "an option's bit is its place in the list of words");
	st->options = seen & ((1u << MAP_PROT) - 1);
	if (!err && st->options & MAP_OPT_READONLY && st->file < 0)
		return parse_fail_token(p, "'readonly' is for files: write file=NAME");
	p->litmus->needs |= (st->options & MAP_OPT_HUGE ? NEED_THP : 0) |
			    (st->options & MAP_OPT_HUGETLB ? NEED_HUGETLB : 0) | (st->file >= 0 ? NEED_FILE : 0);
	return err;
}

/* `B`, or `Kid * 1100` */
static int children(struct parser *p, struct stmt *st)
{
	struct token word = p->token;
	int err;

	st->count = 1;
	if (word.kind != TOKEN_WORD || !lex_follows(p, '*'))
		return scope_define(p, NAME_PROCESS, &st->name);
	st->starred = true;
	err = scope_check_word(p, NAME_PROCESS);
	if (!err)
		err = lex_next(p);
	if (!err)
		err = lex_next(p);
	if (!err)
		err = lex_number(p, "the number of children", 1, MAX_CHILDREN, &st->count);
	return err ? err : scope_define_children(p, word, st->count, &st->name);
}

static int into(struct parser *p, struct stmt *st)
{
	int err;

	if (!lex_is(p, "into"))
		return 0;
	p->litmus->needs |= NEED_CGROUP;
	err = lex_next(p);
	return err ? err : used_cgroup(p, st);
}

static int snapshot_name(struct parser *p, struct stmt *st)
{
	st->count = 1;
	return scope_define(p, NAME_PROCESS, &st->name);
}

/* ---- pins, gets, direct I/O ---- */

static int direction(struct parser *p, struct stmt *st)
{
	static const char *const words[] = {"r", "w"};
	int index, err = words_take(p, "a direction", words, NELEMS(words), &index);

	if (!err && index)
		st->options |= GUP_OPT_WRITE;
	return err;
}

static int take_gup_options(struct parser *p, struct stmt *st, const char *const *words, size_t nwords,
			    const unsigned *options)
{
	unsigned seen = 0;
	int index, err = 0;

	while (!err && p->token.kind == TOKEN_WORD) {
		err = take_option(p, words, nwords, &seen, &index);
		if (!err)
			st->options |= options[index];
	}
	return err;
}

static int pin_options(struct parser *p, struct stmt *st)
{
	static const char *const words[] = {"fast", "longterm", "force"};
	static const unsigned options[] = {GUP_OPT_FAST, GUP_OPT_LONGTERM, GUP_OPT_FORCE};

	return take_gup_options(p, st, words, NELEMS(words), options);
}

static int get_options(struct parser *p, struct stmt *st)
{
	static const char *const words[] = {"force"};
	static const unsigned options[] = {GUP_OPT_FORCE};

	return take_gup_options(p, st, words, NELEMS(words), options);
}

static int dirty(struct parser *p, struct stmt *st)
{
	if (!lex_is(p, "dirty"))
		return 0;
	st->options = 1;
	return lex_next(p);
}

/* `f` or `f@N`. A write may make the file longer; a read that starts behind any end it can have is a mistake. */
static int file_at(struct parser *p, struct stmt *st)
{
	int err = used_file(p, st);
	uint64_t last;
	bool given;

	if (err)
		return err;
	st->file_page = st->place.first;
	last = st->kind == STMT_DIRECT_IN ? p->infos[st->file].reach - 1 : MAX_REGION_PAGES - st->place.npages;
	err = take_at(p, last, &st->file_page, &given);
	if (!err && !given && st->file_page > last)
		return parse_fail_token(p, "the file ends before page %llu: give a page with @N",
					(unsigned long long)st->file_page);
	if (!err && st->kind == STMT_DIRECT_OUT)
		reach_file(p, st->file, st->file_page + st->place.npages);
	return err;
}

/* ---- files, cgroups, numbers ---- */

static int file_size(struct parser *p, struct stmt *st)
{
	int err = lex_size(p, "the size", true, MAX_REGION_PAGES, &st->count);

	if (err)
		return err;
	p->litmus->names[st->name].npages = st->count;
	reach_file(p, st->name, st->count);
	return 0;
}

static int truncate_size(struct parser *p, struct stmt *st)
{
	int err = lex_number(p, "the number of pages", 0, MAX_REGION_PAGES, &st->count);

	if (!err)
		reach_file(p, st->file, st->count);
	return err;
}

/* A word that may stand next; then options is 1. */
static int optional_word(struct parser *p, struct stmt *st, const char *word)
{
	if (!lex_is(p, word))
		return 0;
	st->options = 1;
	return lex_next(p);
}

static int in_memory(struct parser *p, struct stmt *st)
{
	return optional_word(p, st, "memory");
}

static int asynchronous(struct parser *p, struct stmt *st)
{
	return optional_word(p, st, "async");
}

static int on_fault(struct parser *p, struct stmt *st)
{
	return optional_word(p, st, "onfault");
}

static int dont_unmap(struct parser *p, struct stmt *st)
{
	return optional_word(p, st, "dontunmap");
}

/* `f[0]` or `f[0..3]`, the pages of which are @st's count. */
static int file_pages(struct parser *p, struct stmt *st)
{
	uint64_t last;
	bool ranged;
	int err = used_file(p, st);

	if (err)
		return err;
	if (p->token.kind != TOKEN_OPEN)
		return parse_fail_token(p, "pages of the file expected, as in f[0] or f[0..3]; found %s",
					parse_quote(p));
	err = take_index(p, p->infos[st->file].reach, &st->file_page, &last, &ranged);
	st->count = last - st->file_page + 1;
	return err;
}

enum { CGROUP_LIMIT, CGROUP_SWAP, CGROUP_IN, NCGROUP_WORDS };

static int cgroup_limits(struct parser *p, struct stmt *st)
{
	static const char *const words[NCGROUP_WORDS] = {"limit", "swap", "in"};
	unsigned seen = 0;
	int index, err;

	do {
		err = take_option(p, words, NCGROUP_WORDS, &seen, &index);
		if (!err)
			err = lex_equals(p, words[index]);
		if (!err && index == CGROUP_IN)
			err = used_cgroup(p, st);
		else if (!err && index == CGROUP_SWAP)
			err = lex_number(p, "the swap limit in pages", 0, MAX_CHECKED_NUMBER, &st->swap_limit);
		else if (!err)
			err = lex_number(p, "the limit in pages", 1, MAX_CHECKED_NUMBER, &st->count);
	} while (!err && !at_suffix(p));
	p->litmus->needs |= seen & 1u << CGROUP_SWAP ? NEED_SWAP : 0;
	if (!err && !(seen & 1u << CGROUP_LIMIT))
		return parse_fail_token(p, "the cgroup has no limit: write limit=N");
	return err;
}

static int reclaim_number(struct parser *p, struct stmt *st)
{
	return lex_number(p, "the number of pages", 1, MAX_CHECKED_NUMBER, &st->count);
}

/* `alloc`, `read` or `write`, and which of them fails */
static int injected(struct parser *p, struct stmt *st)
{
	static const char *const words[] = {"alloc", "read", "write"};
	static const enum stmt_kind kinds[] = {STMT_INJECT_ALLOC, STMT_INJECT_READ, STMT_INJECT_WRITE};
	static const char *const numbers[] = {"the number of the allocation", "the number of the read",
					      "the number of the write"};
	int index, err = words_take(p, "what is to fail", words, NELEMS(words), &index);

	if (err)
		return err;
	st->kind = kinds[index];
	p->litmus->needs |= st->kind == STMT_INJECT_ALLOC ? 0 : NEED_SWAP;
	return lex_number(p, numbers[index], 1, MAX_INJECTED_POSITION, &st->count);
}

static int node(struct parser *p, struct stmt *st)
{
	unsigned nodes = p->litmus->machine.nodes ? p->litmus->machine.nodes : MAX_MACHINE_NODES;
	int err = take_word(p, "node");

	if (!err)
		err = lex_equals(p, "node");
	return err ? err : lex_number(p, "the node", 0, nodes - 1, &st->count);
}

/* ---- userfaultfd ---- */

static int take_uffd_mode(struct parser *p, unsigned *mode)
{
	int index, err = words_take(p, "a userfaultfd mode", litmus_event_words, EVENT_MINOR + 1, &index);

	_Static_assert(UFFD_MODE_WP == 1u << EVENT_WP && UFFD_MODE_MISSING == 1u << EVENT_MISSING &&
			       UFFD_MODE_MINOR == 1u << EVENT_MINOR,
		       "a mode's bit is its place in the list of words");
	if (!err)
		*mode = 1u << index;
	return err;
}

/* `wp`, `wp+missing`, ... */
static int uffd_modes(struct parser *p, struct stmt *st)
{
	unsigned mode;
	int err = take_uffd_mode(p, &st->options);

	while (!err && lex_touches(p, TOKEN_PLUS)) {
		const char *at = p->pos;

		err = lex_next(p);
		if (!err)
			err = take_uffd_mode(p, &mode);
		if (!err && st->options & mode)
			return parse_fail(p, at, "the mode stands twice");
		st->options |= err ? 0 : mode;
	}
	return err;
}

/* `async`, `sigbus`, ..., each at most once */
static int uffd_features(struct parser *p, struct stmt *st)
{
	static const char *const words[] = {"async",    "sigbus",    "unpopulated", "on-fork",
					    "on-remap", "on-remove", "on-unmap"};
	unsigned seen = 0;
	int index, err = 0;

	_Static_assert(UFFD_MODE_ASYNC == 1u << 3 && UFFD_ON_UNMAP == 1u << 9, "in the order of the words");
	while (!err && p->token.kind == TOKEN_WORD)
		err = take_option(p, words, NELEMS(words), &seen, &index);
	st->options |= seen << 3;
	return err;
}

/* The pages are given back protected. */
static int with_wp(struct parser *p, struct stmt *st)
{
	return optional_word(p, st, "wp");
}

/* ---- scans ---- */

/* `written`, `written+present`, ... into *bits */
static int take_categories(struct parser *p, unsigned *bits)
{
	int index, err = words_take(p, "a category", litmus_scan_words, SCAN_COUNT, &index);

	while (!err) {
		if (index == SCAN_SOFT_DIRTY)
			p->litmus->needs |= NEED_SOFT_DIRTY;
		if (index == SCAN_SWAPPED)
			p->litmus->needs |= NEED_SWAP;
		*bits |= 1u << index;
		if (!lex_touches(p, TOKEN_PLUS))
			break;
		err = lex_next(p);
		if (!err)
			err = words_take(p, "a category", litmus_scan_words, SCAN_COUNT, &index);
	}
	return err;
}

/* `CATEGORIES [not CATEGORIES] [protect] [async-only] [max=N]` */
static int scan_what(struct parser *p, struct stmt *st)
{
	static const char *const words[] = {"protect", "async-only", "max"};
	unsigned seen = 0;
	int index, err = lex_is(p, "not") ? 0 : take_categories(p, &st->required);

	if (!err && lex_is(p, "not")) {
		err = lex_next(p);
		if (!err)
			err = take_categories(p, &st->inverted);
	}
	while (!err && !lex_is(p, "finds") && !at_suffix(p)) {
		err = take_option(p, words, NELEMS(words), &seen, &index);
		if (!err && index == 2)
			err = lex_equals(p, "max");
		if (!err && index == 2)
			err = lex_number(p, "the most pages to find", 1, MAX_REGION_PAGES, &st->count);
	}
	st->required |= st->inverted;
	st->options = seen & (SCAN_OPT_PROTECT | SCAN_OPT_ASYNC_ONLY);
	if (st->options)
		p->litmus->needs |= NEED_UFFD;
	return err;
}

static int add_range(struct parser *p, struct stmt *st, const struct place *found, const char *at)
{
	struct litmus_range *ranges = parse_realloc(st->ranges, (st->nranges + 1) * sizeof(*ranges));

	if (!ranges)
		return -ENOMEM;
	st->ranges = ranges;
	if (found->region != st->place.region)
		return parse_fail(p, at, "a scan finds pages of the place that it looks at");
	if (st->nranges && found->first <= ranges[st->nranges - 1].first + ranges[st->nranges - 1].npages - 1)
		return parse_fail(p, at, "what a scan finds stands in the order of the pages");
	ranges[st->nranges++] = (struct litmus_range){found->first, found->npages};
	return 0;
}

/* `finds nothing` or `finds P P...`; a scan that fails finds nothing */
static int scan_finds(struct parser *p, struct stmt *st)
{
	struct place found;
	int err;

	if (at_suffix(p) && p->token.kind != TOKEN_END)
		return 0;
	err = take_word(p, "finds");
	if (err || lex_is(p, "nothing"))
		return err ? err : lex_next(p);
	do {
		const char *at = p->token.start;

		err = take_place(p, false, &found);
		if (!err)
			err = add_range(p, st, &found, at);
	} while (!err && !at_suffix(p));
	return err;
}

/* ---- parts of checks ---- */

static int checked_number(struct parser *p, struct stmt *st)
{
	return lex_number(p, "a number", 0, MAX_CHECKED_NUMBER, &st->count);
}

/* `f[0]` */
static int file_page(struct parser *p, struct stmt *st)
{
	uint64_t last;
	int err = used_file(p, st);

	if (err)
		return err;
	if (p->token.kind != TOKEN_OPEN)
		return parse_fail_token(p, "a page of the file expected, as in f[0]; found %s", parse_quote(p));
	return take_index(p, p->infos[st->file].reach, &st->file_page, &last, NULL);
}

/* The child's userfaultfd is for what the parent's is for. */
static int uffd_of_child(struct parser *p, struct stmt *st)
{
	int err = arrow_uffd(p, st);
	struct name *parent, *child;

	if (err)
		return err;
	parent = &p->litmus->names[st->handle];
	child = &p->litmus->names[st->name];
	child->region = parent->region;
	child->first = parent->first;
	child->nhandle = parent->nhandle;
	return 0;
}

/* `wp P`, `fork -> v`, `remap P Q`, `none`, ... */
static int event(struct parser *p, struct stmt *st)
{
	int index, err = words_take(p, "an event", litmus_event_words, EVENT_COUNT, &index);

	if (err)
		return err;
	st->event = (enum litmus_event)index;
	if (st->event == EVENT_NONE)
		return 0;
	if (st->event == EVENT_FORK)
		return uffd_of_child(p, st);
	err = pages(p, st);
	return err || st->event != EVENT_REMAP ? err : other_pages(p, st);
}

/* The counters of the language; an engine may have more. */
static const struct {
	const char *word;
	unsigned needs;
} counters[] = {
	{"faults", 0},
	{"reuse", 0},
	{"copy", 0},
	{"unshare", 0},
	{"early-copy", 0},
	{"zero-fill", 0},
	{"table-share", 0},
	{"table-unshare", 0},
	{"pins", 0},
	{"unpins", 0},
	{"swap-in", NEED_SWAP},
	{"swap-out", NEED_SWAP},
	{"ksm-merge", NEED_KSM},
	{"wp-event", NEED_UFFD},
};

static int counter(struct parser *p, struct stmt *st)
{
	const char *words[NELEMS(counters)];
	int index, err;

	for (size_t i = 0; i < NELEMS(counters); i++)
		words[i] = counters[i].word;
	err = words_take(p, "a counter", words, NELEMS(words), &index);
	if (err)
		return err;
	p->litmus->needs |= counters[index].needs;
	st->counter = parse_copy(words[index], strlen(words[index]));
	return st->counter ? 0 : -ENOMEM;
}

/* `N` or `N+` */
static int least_number(struct parser *p, struct stmt *st)
{
	int err = checked_number(p, st);

	if (err || !lex_touches(p, TOKEN_PLUS))
		return err;
	st->at_least = true;
	return lex_next(p);
}

static unsigned flag_needs(enum litmus_flag flag)
{
	switch ((int)flag) {
	case LFLAG_SOFT_DIRTY:
		return NEED_SOFT_DIRTY;
	case LFLAG_WP:
		return NEED_UFFD;
	case LFLAG_SWAPPED:
		return NEED_SWAP;
	case LFLAG_KSM:
		return NEED_KSM;
	case LFLAG_HUGE:
		return NEED_THP;
	default:
		return 0;
	}
}

/* `[not] FLAG` */
static int flag(struct parser *p, struct stmt *st)
{
	int index, err = 0;

	st->negated = lex_is(p, "not");
	if (st->negated)
		err = lex_next(p);
	if (!err)
		err = words_take(p, "a flag", litmus_flag_words, LFLAG_COUNT, &index);
	if (err)
		return err;
	st->flag = (enum litmus_flag)index;
	p->litmus->needs |= flag_needs(st->flag);
	return 0;
}

/* ---- the tables ---- */

/* A ... */
static const struct form process_forms[] = {
	{"map", STMT_MAP, 0, {new_region, region_size, map_options}},
	{"unmap", STMT_UNMAP, 0, {pages}},
	{"protect", STMT_PROTECT, 0, {pages, protection}},
	{"move", STMT_MOVE, 0, {pages, arrow_region, dont_unmap}},
	{"advise", STMT_ADVISE, 0, {pages, advice}},
	{"write", STMT_WRITE, 0, {bytes, text}},
	{"read", STMT_READ, 0, {bytes}},
	{"fork", STMT_FORK, 0, {children, into}},
	{"snapshot", STMT_SNAPSHOT, NEED_SNAPSHOT, {snapshot_name}},
	{"exit", STMT_EXIT, 0, {NULL}},
	{"pin", STMT_PIN, 0, {bytes, direction, pin_options, arrow_pin}},
	{"get", STMT_GET, 0, {bytes, direction, get_options, arrow_get}},
	{"splice", STMT_SPLICE, 0, {bytes, arrow_pipe}},
	{"direct-out", STMT_DIRECT_OUT, NEED_DIRECT_IO, {bytes, file_at}},
	{"direct-in", STMT_DIRECT_IN, NEED_DIRECT_IO, {bytes, file_at}},
	{"peek", STMT_PEEK, 0, {other_process, bytes, alternatives}},
	{"poke", STMT_POKE, 0, {other_process, bytes, text}},
	{"remote-write", STMT_REMOTE_WRITE, 0, {other_process, bytes, text}},
	{"uffd", STMT_UFFD, NEED_UFFD, {pages, uffd_modes, uffd_features, arrow_uffd}},
	{"clear-soft-dirty", STMT_CLEAR_SOFT_DIRTY, NEED_SOFT_DIRTY, {NULL}},
	{"mlock", STMT_MLOCK, 0, {pages, on_fault}},
	{"munlock", STMT_MUNLOCK, 0, {pages}},
	{"msync", STMT_MSYNC, NEED_FILE, {pages, asynchronous}},
	{"scan", STMT_SCAN, 0, {pages, scan_what, scan_finds}},
	{"numa-hint", STMT_NUMA_HINT, 0, {pages}},
	{"join", STMT_JOIN, NEED_CGROUP, {used_cgroup}},
	{"lock", STMT_LOCK, 0, {pages, arrow_lock}},
};

/* Statements that no process starts. */
static const struct form plain_forms[] = {
	{"device", STMT_DEVICE_WRITE, 0, {used_device, word_write, text}},
	{"unpin", STMT_UNPIN, 0, {used_pin, dirty}},
	{"put", STMT_PUT, 0, {used_get}},
	{"unlock", STMT_UNLOCK, 0, {used_lock}},
	{"file", STMT_FILE, 0, {new_file, file_size, text, in_memory}},
	{"sync", STMT_SYNC, NEED_FILE, {used_file}},
	{"truncate", STMT_TRUNCATE, NEED_FILE, {used_file, truncate_size}},
	{"punch", STMT_PUNCH, NEED_FILE, {file_pages}},
	{"store", STMT_STORE, NEED_FILE, {file_page, text}},
	{"drop", STMT_DROP, NEED_FILE, {used_file}},
	{"ksm", STMT_KSM_MERGE, NEED_KSM, {word_merge}},
	{"reclaim", STMT_RECLAIM, NEED_SWAP, {reclaim_number}},
	{"swapoff", STMT_SWAPOFF, NEED_SWAP, {NULL}},
	{"migrate", STMT_MIGRATE, NEED_NUMA, {process, pages, node}},
	{"cgroup", STMT_CGROUP, NEED_CGROUP, {new_cgroup, cgroup_limits}},
	{"inject", STMT_INJECT_ALLOC, 0, {injected}},
};

/* u ... */
static const struct form uffd_forms[] = {
	{"protect", STMT_UFFD_PROTECT, NEED_UFFD, {pages}},
	{"unprotect", STMT_UFFD_UNPROTECT, NEED_UFFD, {pages}},
	{"copy", STMT_UFFD_COPY, NEED_UFFD, {pages, text, with_wp}},
	{"zeropage", STMT_UFFD_ZEROPAGE, NEED_UFFD, {pages}},
	{"continue", STMT_UFFD_CONTINUE, NEED_UFFD, {pages, with_wp}},
	{"move", STMT_UFFD_MOVE, NEED_UFFD, {pages, other_pages}},
	{"poison", STMT_UFFD_POISON, NEED_UFFD, {pages}},
	{"wake", STMT_UFFD_WAKE, NEED_UFFD, {pages}},
	{"register", STMT_UFFD_REGISTER, NEED_UFFD, {pages, uffd_modes}},
	{"unregister", STMT_UFFD_UNREGISTER, NEED_UFFD, {pages}},
	{"close", STMT_UFFD_CLOSE, NEED_UFFD, {NULL}},
};

/* check A ... */
static const struct form process_checks[] = {
	{"reads", STMT_CHECK_READS, 0, {bytes, alternatives}},
	{"mapcount", STMT_CHECK_MAPCOUNT, 0, {pages, checked_number}},
	{"rss", STMT_CHECK_RSS, 0, {checked_number}},
};

/* check A P ... */
static const struct form page_checks[] = {
	{"is", STMT_CHECK_FLAG, 0, {flag}},
	{"same", STMT_CHECK_SAME, 0, {other_process, other_pages}},
	{"differs", STMT_CHECK_SAME, 0, {other_process, other_pages}},
};

/* check p ... */
static const struct form device_checks[] = {
	{"reads", STMT_CHECK_HANDLE_READS, 0, {alternatives}},
	{"pages", STMT_CHECK_PAGES, 0, {checked_number}},
};
static const struct form pipe_checks[] = {{"reads", STMT_CHECK_HANDLE_READS, 0, {alternatives}}};
static const struct form cgroup_checks[] = {{"usage", STMT_CHECK_USAGE, NEED_CGROUP, {checked_number}}};
static const struct form uffd_checks[] = {{"event", STMT_CHECK_EVENT, NEED_UFFD, {event}}};

/* check ... */
static const struct form plain_checks[] = {
	{"file", STMT_CHECK_FILE_READS, 0, {file_page, reads_or_holds, alternatives}},
	{"count", STMT_CHECK_COUNT, 0, {counter, least_number}},
};

/* ---- dispatch ---- */

static const struct form *find_form(const struct parser *p, const struct form *forms, size_t nforms)
{
	for (size_t i = 0; i < nforms; i++)
		if (lex_is(p, forms[i].word))
			return &forms[i];
	return NULL;
}

static int unknown_form(struct parser *p, const char *what, const struct form *forms, size_t nforms)
{
	struct word_list list = {0};

	for (size_t i = 0; i < nforms; i++)
		word_list_add(&list, forms[i].word);
	return parse_fail_token(p, "%s expected, found %s; possible: %s", what, parse_quote(p), list.text);
}

/* The current token is the form's word. */
static int take_form(struct parser *p, struct stmt *st, const struct form *form)
{
	int err = lex_next(p);

	st->kind = form->kind;
	p->litmus->needs |= form->needs;
	for (size_t i = 0; !err && i < NELEMS(form->parts) && form->parts[i]; i++)
		err = form->parts[i](p, st);
	return err;
}

static int take_one_of(struct parser *p, struct stmt *st, const char *what, const struct form *forms, size_t nforms)
{
	const struct form *form = find_form(p, forms, nforms);

	return form ? take_form(p, st, form) : unknown_form(p, what, forms, nforms);
}
#define TAKE_ONE_OF(p, st, what, forms) take_one_of(p, st, what, forms, NELEMS(forms))

static bool is_capital(const struct parser *p)
{
	return p->token.kind == TOKEN_WORD && *p->token.start >= 'A' && *p->token.start <= 'Z';
}

/* Kind of the name that is the current token, or -1. */
static int kind_of(const struct parser *p)
{
	int name = p->token.kind == TOKEN_WORD ? scope_find(p, p->token.start, p->token.nbytes) : -1;

	return name < 0 ? -1 : (int)p->litmus->names[name].kind;
}

/* `check A ...` */
static int process_check(struct parser *p, struct stmt *st)
{
	int err = process(p, st);

	if (err)
		return err;
	if (find_form(p, process_checks, NELEMS(process_checks)))
		return TAKE_ONE_OF(p, st, "", process_checks);
	if (kind_of(p) != NAME_REGION)
		return parse_fail_token(p, "reads, mapcount, rss or a region expected, found %s", parse_quote(p));
	err = pages(p, st);
	st->negated = lex_is(p, "differs");
	return err ? err : TAKE_ONE_OF(p, st, "a property of the pages", page_checks);
}

/* `check p ...`, with the name of anything that is not a process. */
static int handle_check(struct parser *p, struct stmt *st)
{
	int kind = kind_of(p);
	int err = kind == NAME_CGROUP
			  ? used_cgroup(p, st)
			  : scope_use(p, KIND(PIN) | KIND(GET) | KIND(PIPE) | KIND(CGROUP) | KIND(UFFD), &st->handle);

	if (err)
		return err;
	if (kind == NAME_CGROUP)
		return TAKE_ONE_OF(p, st, "a check of a cgroup", cgroup_checks);
	if (kind == NAME_UFFD)
		return TAKE_ONE_OF(p, st, "a check of a userfaultfd", uffd_checks);
	if (kind == NAME_PIPE)
		return TAKE_ONE_OF(p, st, "a check of a pipe", pipe_checks);
	return TAKE_ONE_OF(p, st, "a check of a pin or get", device_checks);
}

static int check(struct parser *p, struct stmt *st)
{
	const struct form *form;
	int err = lex_next(p);

	if (err)
		return err;
	if (is_capital(p))
		return process_check(p, st);
	form = find_form(p, plain_checks, NELEMS(plain_checks));
	if (form)
		return take_form(p, st, form);
	if (p->token.kind != TOKEN_WORD)
		return parse_fail_token(
			p, "a process, a pin, get, pipe, cgroup or userfaultfd, 'file' or 'count' expected, found %s",
			parse_quote(p));
	return handle_check(p, st);
}

static int unknown_statement(struct parser *p)
{
	struct word_list list = {0};
	int name = p->token.kind == TOKEN_WORD ? scope_find(p, p->token.start, p->token.nbytes) : -1;

	if (name >= 0)
		return parse_fail_token(p, "no statement starts with %s, a %s", parse_quote(p),
					scope_kind_name(p->litmus->names[name].kind));
	for (size_t i = 0; i < NELEMS(plain_forms); i++)
		word_list_add(&list, plain_forms[i].word);
	return parse_fail_token(
		p, "no statement starts with %s; possible: a process, a userfaultfd, check parallel lane end %s",
		parse_quote(p), list.text);
}

int grammar_parse(struct parser *p, struct stmt *st)
{
	const struct form *form = find_form(p, plain_forms, NELEMS(plain_forms));
	int err;

	if (form)
		return take_form(p, st, form);
	if (lex_is(p, "check"))
		return check(p, st);
	if (is_capital(p)) {
		err = process(p, st);
		return err ? err : TAKE_ONE_OF(p, st, "a statement", process_forms);
	}
	if (kind_of(p) == NAME_UFFD) {
		err = scope_use(p, KIND(UFFD), &st->handle);
		return err ? err : TAKE_ONE_OF(p, st, "a userfaultfd operation", uffd_forms);
	}
	return unknown_statement(p);
}
