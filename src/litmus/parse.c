/* SPDX-License-Identifier: MIT */
/*
 * The litmus parser from the outside: files, lines, parallel blocks, what stands at the end of a statement, errors and
 * memory. One line at a time; the first error ends it. The statements themselves are in grammar.c.
 */
#include "parse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- memory and errors ---- */

unsigned long litmus_fail_allocation;

void *parse_realloc(void *old, size_t nbytes)
{
	if (litmus_fail_allocation && !--litmus_fail_allocation)
		return NULL;
	return realloc(old, nbytes);
}

char *parse_copy(const char *bytes, size_t nbytes)
{
	char *copy = parse_realloc(NULL, nbytes + 1);

	if (!copy)
		return NULL;
	memcpy(copy, bytes, nbytes);
	copy[nbytes] = '\0';
	return copy;
}

struct loc parse_loc(const struct parser *p, const char *at)
{
	struct loc loc = {p->line, 1};

	for (const char *s = p->text; s < at; s++)
		loc.column += ((unsigned char)*s & 0xc0) != 0x80; /* not inside a UTF-8 character */
	return loc;
}

static int fail_at(struct parser *p, struct loc loc, const char *format, va_list args)
{
	p->error->loc = loc;
	vsnprintf(p->error->text, sizeof(p->error->text), format, args);
	return -EINVAL;
}

static int fail_loc(struct parser *p, struct loc loc, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int fail_loc(struct parser *p, struct loc loc, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fail_at(p, loc, format, args);
	va_end(args);
	return -EINVAL;
}

int parse_fail(struct parser *p, const char *at, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fail_at(p, parse_loc(p, at), format, args);
	va_end(args);
	return -EINVAL;
}

int parse_fail_token(struct parser *p, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fail_at(p, parse_loc(p, p->token.start), format, args);
	va_end(args);
	return -EINVAL;
}

const char *parse_quote(struct parser *p)
{
	size_t n = p->token.nbytes;
	bool cut = n > 24;

	if (p->token.kind == TOKEN_END)
		return "the end of the line";
	for (n = cut ? 24 : n; cut && ((unsigned char)p->token.start[n] & 0xc0) == 0x80;)
		n--; /* between two UTF-8 characters */
	snprintf(p->quoted, sizeof(p->quoted), "'%.*s%s'", (int)n, p->token.start, cut ? "..." : "");
	return p->quoted;
}

/* ---- the end of a statement ---- */

static int take_outcome(struct parser *p, struct stmt *st, enum outcome outcome)
{
	const char *at = p->token.start;
	int err;

	if (st->kind != STMT_PEEK && st->kind != STMT_SCAN && litmus_is_check(st->kind))
		return parse_fail(p, at, "a check holds or does not: 'fails' and 'may fail' stand after statements");
	err = lex_next(p);
	if (!err && outcome == OUTCOME_MAY_FAIL) {
		if (!lex_is(p, "fail"))
			return parse_fail_token(p, "'fail' expected after 'may', found %s", parse_quote(p));
		err = lex_next(p);
	}
	if (err)
		return err;
	at = p->token.start;
	err = error_take(p, &st->error);
	if (!err && st->error < 0 && st->kind != STMT_READ && st->kind != STMT_WRITE)
		return parse_fail(p, at, "a signal is for read and write only; %s ends with an errno",
				  litmus_stmt_name(st->kind));
	st->outcome = outcome;
	return err;
}

static int take_in_all(struct parser *p, struct stmt *st)
{
	int err;

	if (!litmus_is_check(st->kind))
		return parse_fail_token(p, "'in all' is for checks only");
	err = lex_next(p);
	if (err)
		return err;
	if (!lex_is(p, "all"))
		return parse_fail_token(p, "'all' expected after 'in', found %s", parse_quote(p));
	st->in_all = true;
	return lex_next(p);
}

static int take_suffixes(struct parser *p, struct stmt *st)
{
	int err = 0;

	if (lex_is(p, "fails"))
		err = take_outcome(p, st, OUTCOME_FAILS);
	else if (lex_is(p, "may"))
		err = take_outcome(p, st, OUTCOME_MAY_FAIL);
	if (!err && lex_is(p, "in"))
		err = take_in_all(p, st);
	if (!err && p->token.kind != TOKEN_END)
		return parse_fail_token(p, "%s does not belong here: the statement is complete", parse_quote(p));
	return err;
}

/* ---- statements ---- */

/* A statement without any operand yet; it belongs to the test from here on, also when the rest of it is an error. */
static int new_stmt(struct parser *p, struct stmt **stmt)
{
	struct litmus *litmus = p->litmus;
	struct place nowhere = {.region = -1};

	if (litmus->nstmts >= MAX_STATEMENTS)
		return parse_fail_token(p, "more than %u statements", MAX_STATEMENTS);
	if (litmus->nstmts == p->stmts_room) {
		size_t room = p->stmts_room ? p->stmts_room * 2 : 32;
		struct stmt *stmts = parse_realloc(litmus->stmts, room * sizeof(*stmts));

		if (!stmts)
			return -ENOMEM;
		litmus->stmts = stmts;
		p->stmts_room = room;
	}
	*stmt = &litmus->stmts[litmus->nstmts++];
	**stmt = (struct stmt){
		.loc = parse_loc(p, p->token.start),
		.block = p->in_block ? litmus->nblocks : 0,
		.lane = p->in_block ? p->lane : 0,
		.proc = -1,
		.proc2 = -1,
		.name = -1,
		.handle = -1,
		.file = -1,
		.cgroup = -1,
		.place = nowhere,
		.place2 = nowhere,
		.swap_limit = UINT64_MAX,
		.prot = LITMUS_PROT_RW,
	};
	return 0;
}

/* What a complete statement means for the ones that follow. */
static void apply(struct parser *p, const struct stmt *st)
{
	if (st->kind == STMT_EXIT && st->outcome == OUTCOME_OK)
		scope_gone(p, st->proc, false);
	if ((st->kind == STMT_FORK || st->kind == STMT_SNAPSHOT) && st->outcome == OUTCOME_FAILS)
		for (uint64_t i = 0; i < st->count; i++)
			scope_gone(p, st->name + (int)i, true);
}

static int parse_statement(struct parser *p)
{
	const char *start = p->token.start;
	struct stmt *st = NULL;
	int err;

	if (p->in_block && !p->in_lane)
		return parse_fail_token(p, "'lane' expected: a parallel block holds lanes, lanes hold statements");
	err = new_stmt(p, &st);
	if (!err)
		err = grammar_parse(p, st);
	if (!err)
		err = take_suffixes(p, st);
	if (err)
		return err;
	p->lane_empty = false;
	apply(p, st);
	st->source = parse_copy(start, (size_t)(p->token.start - start)); /* the end stands where the last token ends */
	return st->source ? 0 : -ENOMEM;
}

/* ---- parallel blocks ---- */

static int begin_block(struct parser *p)
{
	if (p->in_block)
		return parse_fail_token(p, "parallel blocks do not nest; the one of line %u is open",
					p->block_loc.line);
	p->in_block = true;
	p->in_lane = false;
	p->lane = 0;
	p->block_loc = parse_loc(p, p->token.start);
	p->litmus->nblocks++;
	return 0;
}

static int check_lane(struct parser *p)
{
	if (p->in_lane && p->lane_empty)
		return fail_loc(p, p->lane_loc, "the lane has no statement");
	return 0;
}

static int begin_lane(struct parser *p)
{
	int err;

	if (!p->in_block)
		return parse_fail_token(p, "'lane' outside a parallel block");
	err = check_lane(p);
	if (err)
		return err;
	if (p->in_lane && ++p->lane >= MAX_LANES)
		return parse_fail_token(p, "more than %u lanes", MAX_LANES);
	p->in_lane = true;
	p->lane_empty = true;
	p->lane_loc = parse_loc(p, p->token.start);
	return 0;
}

static int end_block(struct parser *p)
{
	int err;

	if (!p->in_block)
		return parse_fail_token(p, "'end' outside a parallel block");
	if (!p->in_lane)
		return parse_fail_token(p, "the parallel block has no lane");
	err = check_lane(p);
	p->in_block = false;
	p->in_lane = false;
	p->lane = 0;
	return err;
}

/* ---- lines ---- */

static int (*block_word(const struct parser *p))(struct parser *)
{
	return lex_is(p, "parallel") ? begin_block
	       : lex_is(p, "lane")   ? begin_lane
	       : lex_is(p, "end")    ? end_block
				     : NULL;
}

/* A line that is neither blank nor a header line. */
static int parse_body_line(struct parser *p)
{
	int (*begin_or_end)(struct parser *) = block_word(p);
	bool first = !p->litmus->nstmts && !p->in_block;
	int err;

	if (first && header_is_key(p))
		return parse_fail_token(p, "a header line needs a colon: write %.*s: ...", (int)p->token.nbytes,
					p->token.start);
	if (first && !p->litmus->title)
		return parse_fail_token(p, "the header has no title: a 'title: ...' line must come first");
	if (!begin_or_end)
		return parse_statement(p);
	err = begin_or_end(p);
	if (!err)
		err = lex_next(p);
	if (!err && p->token.kind != TOKEN_END)
		return parse_fail_token(p, "%s does not belong here: the word stands alone on its line",
					parse_quote(p));
	return err;
}

static int parse_line(struct parser *p)
{
	int err = lex_check_line(p);

	if (!err)
		err = lex_start(p, p->text);
	if (err || p->token.kind == TOKEN_END)
		return err;
	return header_is_line(p) ? header_parse_line(p) : parse_body_line(p);
}

/* Lines end in a line feed, or a carriage return and a line feed; the last one need not. */
static int parse_lines(struct parser *p, const char *bytes, const char *end)
{
	const char *feed;
	int err;

	for (; (feed = memchr(bytes, '\n', (size_t)(end - bytes))); bytes = feed + 1, p->line++) {
		p->text = bytes;
		p->end = feed > bytes && feed[-1] == '\r' ? feed - 1 : feed;
		err = parse_line(p);
		if (err)
			return err;
	}
	p->text = bytes;
	p->end = end;
	return parse_line(p);
}

/* What only the end of the file shows; the current line is the last one. */
static int check_whole(struct parser *p)
{
	if (p->in_block)
		return fail_loc(p, p->block_loc, "the parallel block has no 'end'");
	if (!p->litmus->title)
		return parse_fail(p, p->end, "the file ends without a title: a 'title: ...' line must come first");
	if (!p->litmus->nstmts)
		return parse_fail(p, p->end, "the file ends without a statement");
	return 0;
}

static int parse_bytes(struct parser *p, const char *bytes, size_t nbytes)
{
	int err;

	p->line = 1;
	p->text = bytes;
	p->end = bytes + nbytes;
	if (nbytes > MAX_INPUT_BYTES)
		return parse_fail(p, bytes, "the file is larger than %u MiB", MAX_INPUT_BYTES >> 20);
	if (nbytes >= 3 && !memcmp(bytes, "\xef\xbb\xbf", 3))
		return parse_fail(p, bytes, "the file starts with a byte order mark: write UTF-8 without it");
	err = scope_enter_first(p);
	if (!err)
		err = parse_lines(p, bytes, bytes + nbytes);
	return err ? err : check_whole(p);
}

/* ---- entry points ---- */

/* The file name without folder and `.litmus`. */
static char *test_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash && slash[1] ? slash + 1 : path;
	size_t nbytes = strlen(name);

	if (nbytes > 7 && !strcmp(name + nbytes - 7, ".litmus"))
		nbytes -= 7;
	return parse_copy(name, nbytes);
}

int litmus_parse(const char *path, const char *bytes, size_t nbytes, struct litmus **litmus, struct litmus_error *error)
{
	struct parser p = {.error = error};
	int err = -ENOMEM;

	*error = (struct litmus_error){.text = "out of memory"};
	p.litmus = parse_realloc(NULL, sizeof(*p.litmus));
	if (!p.litmus)
		return -ENOMEM;
	*p.litmus = (struct litmus){0};
	p.litmus->path = parse_copy(path, strlen(path));
	p.litmus->test = test_name(path);
	if (p.litmus->path && p.litmus->test)
		err = parse_bytes(&p, nbytes ? bytes : "", nbytes);
	free(p.infos);
	free(p.buckets);
	if (err) {
		litmus_free(p.litmus);
		return err;
	}
	*litmus = p.litmus;
	return 0;
}

/* All of a file, up to just more than the parser takes. */
static int read_all(int fd, char **bytes, size_t *nbytes)
{
	size_t room = 0;
	ssize_t n = 1;

	*bytes = NULL;
	for (*nbytes = 0; n && *nbytes <= MAX_INPUT_BYTES; *nbytes += (size_t)n) {
		if (*nbytes == room) {
			char *grown = parse_realloc(*bytes, room = room ? room * 2 : 8192);

			if (!grown)
				return -ENOMEM;
			*bytes = grown;
		}
		do
			n = read(fd, *bytes + *nbytes, room - *nbytes);
		while (n < 0 && errno == EINTR);
		if (n < 0)
			return -errno;
	}
	return 0;
}

int litmus_parse_file(const char *path, struct litmus **litmus, struct litmus_error *error)
{
	char *bytes = NULL;
	size_t nbytes = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int err = fd < 0 ? -errno : read_all(fd, &bytes, &nbytes);

	if (fd >= 0)
		close(fd);
	if (err) {
		*error = (struct litmus_error){0};
		snprintf(error->text, sizeof(error->text), "cannot be read: %s", strerror(-err));
	} else {
		err = litmus_parse(path, bytes, nbytes, litmus, error);
	}
	free(bytes);
	return err;
}

static void free_lines(char **lines, size_t nlines)
{
	for (size_t i = 0; i < nlines; i++)
		free(lines[i]);
	free(lines);
}

static void free_stmt(struct stmt *st)
{
	for (size_t i = 0; i < st->ntexts; i++)
		free(st->texts[i].bytes);
	free(st->texts);
	free(st->counter);
	free(st->ranges);
	free(st->source);
}

void litmus_free(struct litmus *litmus)
{
	if (!litmus)
		return;
	for (size_t i = 0; i < litmus->nstmts; i++)
		free_stmt(&litmus->stmts[i]);
	for (size_t i = 0; i < litmus->nnames; i++)
		free(litmus->names[i].text);
	free(litmus->stmts);
	free(litmus->names);
	free_lines(litmus->about, litmus->nabout);
	free_lines(litmus->source, litmus->nsource);
	free(litmus->path);
	free(litmus->test);
	free(litmus->title);
	free(litmus->catches);
	free(litmus);
}
