/* SPDX-License-Identifier: MIT */
/*
 * The names of a test: one name space, who may be used where. A hash table over litmus->names; no grammar.
 */
#include "parse_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[] = {
	[NAME_PROCESS] = "process", [NAME_REGION] = "region",    [NAME_FILE] = "file",
	[NAME_CGROUP] = "cgroup",   [NAME_PIN] = "pin",          [NAME_GET] = "get",
	[NAME_PIPE] = "pipe",       [NAME_UFFD] = "userfaultfd", [NAME_LOCK] = "lock",
};
#define NKINDS (sizeof(kind_names) / sizeof(kind_names[0]))

const char *scope_kind_name(enum name_kind kind)
{
	return kind_names[kind];
}

/* ---- the table ---- */

/* FNV-1a. */
static uint64_t hash_word(const char *word, size_t nbytes)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < nbytes; i++)
		hash = (hash ^ (unsigned char)word[i]) * 0x100000001b3u;
	return hash;
}

static unsigned *bucket_of(const struct parser *p, uint64_t hash, const char *word, size_t nbytes)
{
	size_t i = (hash ^ hash >> 32) & (p->nbuckets - 1);

	for (; p->buckets[i]; i = (i + 1) & (p->nbuckets - 1)) {
		unsigned index = p->buckets[i] - 1;
		const char *text = p->litmus->names[index].text;

		if (p->infos[index].hash == hash && strlen(text) == nbytes && !memcmp(text, word, nbytes))
			break;
	}
	return &p->buckets[i];
}

int scope_find(const struct parser *p, const char *word, size_t nbytes)
{
	return (int)*bucket_of(p, hash_word(word, nbytes), word, nbytes) - 1;
}

/* Half of the buckets stay empty. */
static int grow_buckets(struct parser *p)
{
	size_t nbuckets = p->nbuckets ? p->nbuckets * 2 : 64;
	unsigned *buckets = parse_realloc(NULL, nbuckets * sizeof(*buckets));

	if (!buckets)
		return -ENOMEM;
	memset(buckets, 0, nbuckets * sizeof(*buckets));
	free(p->buckets);
	p->buckets = buckets;
	p->nbuckets = nbuckets;
	for (unsigned i = 0; i < p->litmus->nnames; i++) {
		const char *text = p->litmus->names[i].text;

		*bucket_of(p, p->infos[i].hash, text, strlen(text)) = i + 1;
	}
	return 0;
}

static int grow_names(struct parser *p)
{
	size_t room = p->names_room ? p->names_room * 2 : 32;
	struct name *names = parse_realloc(p->litmus->names, room * sizeof(*names));
	struct name_info *infos;

	if (!names)
		return -ENOMEM;
	p->litmus->names = names;
	infos = parse_realloc(p->infos, room * sizeof(*infos));
	if (!infos)
		return -ENOMEM;
	p->infos = infos;
	p->names_room = room;
	return 0;
}

/* Enter a name that is known to be new. */
static int insert(struct parser *p, const char *word, size_t nbytes, enum name_kind kind, struct loc loc)
{
	struct litmus *litmus = p->litmus;
	uint64_t hash = hash_word(word, nbytes);
	char *text;
	int err;

	err = litmus->nnames == p->names_room ? grow_names(p) : 0;
	if (!err && litmus->nnames * 2 >= p->nbuckets)
		err = grow_buckets(p);
	if (err)
		return err;
	text = parse_copy(word, nbytes);
	if (!text)
		return -ENOMEM;
	litmus->names[litmus->nnames] = (struct name){.text = text, .kind = kind, .loc = loc, .region = -1};
	p->infos[litmus->nnames] =
		(struct name_info){.hash = hash, .block = p->in_block ? litmus->nblocks : 0, .lane = p->lane};
	*bucket_of(p, hash, word, nbytes) = (unsigned)++litmus->nnames;
	p->nprocesses += kind == NAME_PROCESS;
	return 0;
}

int scope_enter_first(struct parser *p)
{
	return insert(p, "A", 1, NAME_PROCESS, (struct loc){0, 0});
}

/* ---- defining ---- */

/*
 * Words that a name of these kinds may not be, because a statement that starts with it, or that has it after `check`
 * or `check A`, would mean something else.
 */
static const char *const statement_words[] = {
	"check",  "device", "unpin",    "put",  "file", "sync",   "truncate", "ksm",   "reclaim", "swapoff", "migrate",
	"cgroup", "inject", "parallel", "lane", "end",  "unlock", "count",    "punch", "store",   "drop",
};
static const char *const check_words[] = {"reads", "mapcount", "rss"};

static bool is_reserved(const struct parser *p, enum name_kind kind)
{
	if (kind == NAME_REGION)
		return words_find(p, check_words, sizeof(check_words) / sizeof(check_words[0])) >= 0;
	if (kind == NAME_FILE)
		return false;
	return words_find(p, statement_words, sizeof(statement_words) / sizeof(statement_words[0])) >= 0;
}

static bool is_capital(char c)
{
	return c >= 'A' && c <= 'Z';
}

int scope_check_word(struct parser *p, enum name_kind kind)
{
	const char *what = scope_kind_name(kind);

	if (p->token.kind != TOKEN_WORD)
		return parse_fail_token(p, "a name for the new %s expected, found %s", what, parse_quote(p));
	if (kind == NAME_PROCESS && !is_capital(*p->token.start))
		return parse_fail_token(p, "%s: a process starts with a capital letter", parse_quote(p));
	if (kind != NAME_PROCESS && is_capital(*p->token.start))
		return parse_fail_token(p, "%s: a %s starts with a small letter; capitals are for processes",
					parse_quote(p), what);
	if (p->token.nbytes > MAX_NAME_BYTES)
		return parse_fail_token(p, "the name is longer than %u characters", MAX_NAME_BYTES);
	if (is_reserved(p, kind))
		return parse_fail_token(p, "%s is a word of the language: a %s cannot be called so", parse_quote(p),
					what);
	return 0;
}

/* The limits and the one name space, for @word defined at @at. */
static int check_new(struct parser *p, const char *at, const char *word, size_t nbytes, enum name_kind kind)
{
	int old = scope_find(p, word, nbytes);
	const struct name *name = old < 0 ? NULL : &p->litmus->names[old];

	if (name && !name->loc.line)
		return parse_fail(p, at, "'A' is defined already: process A exists from the start");
	if (name)
		return parse_fail(p, at, "'%s' is defined already: a %s, on line %u", name->text,
				  scope_kind_name(name->kind), name->loc.line);
	if (p->litmus->nnames >= MAX_NAMES)
		return parse_fail(p, at, "more than %u names", MAX_NAMES);
	if (kind == NAME_PROCESS && p->nprocesses >= MAX_PROCESSES)
		return parse_fail(p, at, "more than %u processes", MAX_PROCESSES);
	return 0;
}

int scope_define(struct parser *p, enum name_kind kind, int *index)
{
	struct token word = p->token;
	int err = scope_check_word(p, kind);

	if (!err)
		err = check_new(p, word.start, word.start, word.nbytes, kind);
	if (!err)
		err = insert(p, word.start, word.nbytes, kind, parse_loc(p, word.start));
	if (err)
		return err;
	*index = (int)p->litmus->nnames - 1;
	return lex_next(p);
}

int scope_define_children(struct parser *p, struct token word, uint64_t count, int *index)
{
	struct loc loc = parse_loc(p, word.start);
	char name[MAX_NAME_BYTES + 24];

	*index = (int)p->litmus->nnames;
	for (uint64_t i = 1; i <= count; i++) {
		size_t nbytes = (size_t)snprintf(name, sizeof(name), "%.*s%u", (int)word.nbytes, word.start,
						 (unsigned)i);
		int err = check_new(p, word.start, name, nbytes, NAME_PROCESS);

		if (!err)
			err = insert(p, name, nbytes, NAME_PROCESS, loc);
		if (err)
			return err;
	}
	return 0;
}

/* ---- using ---- */

/* "pin, get or pipe" */
static void describe_kinds(unsigned kinds, char *text, size_t room)
{
	size_t n = 0;

	*text = '\0';
	for (unsigned i = 0; i < NKINDS && n < room; i++) {
		bool last = kinds >> i == 1;

		if (!(kinds & 1u << i))
			continue;
		n += (size_t)snprintf(text + n, room - n, "%s%s", !n ? "" : last ? " or " : ", ", kind_names[i]);
	}
}

void scope_gone(struct parser *p, int process, bool never_made)
{
	struct name_info *info = &p->infos[process];

	if (info->gone_line)
		return;
	info->gone_line = p->line;
	info->gone_block = p->in_block ? p->litmus->nblocks : 0;
	info->gone_lane = p->lane;
	info->never_made = never_made;
}

/* Another lane of the block that is open now: nothing is known of the order. */
static bool in_other_lane(const struct parser *p, unsigned block, unsigned lane)
{
	return p->in_block && block == p->litmus->nblocks && lane != p->lane;
}

static int check_usable(struct parser *p, int index)
{
	const struct name_info *info = &p->infos[index];
	const struct name *name = &p->litmus->names[index];

	if (in_other_lane(p, info->block, info->lane))
		return parse_fail_token(p, "'%s' is made in another lane of this block (line %u): it may not exist yet",
					name->text, name->loc.line);
	if (!info->gone_line || in_other_lane(p, info->gone_block, info->gone_lane))
		return 0;
	if (info->never_made)
		return parse_fail_token(p, "process '%s' does not exist: line %u, which would make it, fails",
					name->text, info->gone_line);
	return parse_fail_token(p, "process '%s' has exited on line %u", name->text, info->gone_line);
}

int scope_use(struct parser *p, unsigned kinds, int *index)
{
	char wanted[120];
	int found, err;

	describe_kinds(kinds, wanted, sizeof(wanted));
	if (p->token.kind != TOKEN_WORD)
		return parse_fail_token(p, "the name of a %s expected, found %s", wanted, parse_quote(p));
	found = scope_find(p, p->token.start, p->token.nbytes);
	if (found < 0)
		return parse_fail_token(p, "no %s is called %s", wanted, parse_quote(p));
	if (!(kinds & 1u << p->litmus->names[found].kind))
		return parse_fail_token(p, "%s is a %s, not a %s", parse_quote(p),
					scope_kind_name(p->litmus->names[found].kind), wanted);
	err = check_usable(p, found);
	if (err)
		return err;
	*index = found;
	return lex_next(p);
}
