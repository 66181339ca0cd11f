/* SPDX-License-Identifier: MIT */
/*
 * What the files of the litmus parser share: lex.c (bytes to tokens), scope.c (names), header.c (header lines),
 * grammar.c (statements), parse.c (files, lines, blocks), names.c (the words of the language). Nobody else includes
 * this, its tests apart.
 */
#ifndef LITMUS_PARSE_INTERNAL_H
#define LITMUS_PARSE_INTERNAL_H

#include "litmus.h"

/* Limits: they keep a hostile file from costing more than its size, and a typing error from costing a machine. */
#define LITMUS_PAGE_BYTES     4096u
#define MAX_INPUT_BYTES       (4u << 20)
#define MAX_LINE_BYTES        (64u << 10)
#define MAX_NAME_BYTES        63u
#define MAX_NAMES             65536u
#define MAX_PROCESSES         16384u
#define MAX_CHILDREN          4096u
#define MAX_STATEMENTS        65536u
#define MAX_ALTERNATIVES      64u
#define MAX_LANES             LITMUS_LANES_MAX
#define MAX_REGION_PAGES      ((uint64_t)1 << 18) /* 1 GiB; files too */
#define MAX_CHECKED_NUMBER    ((uint64_t)1 << 52)
#define MAX_MACHINE_BYTES     ((uint64_t)64 << 30)
#define MAX_MACHINE_NODES     8u
#define MAX_MACHINE_CPUS      64u
#define MAX_INJECTED_POSITION 1000000000u

/* ---- tokens ---- */

enum token_kind {
	TOKEN_END, /* of the line, or of what stands before its comment; at the end of the token before */
	TOKEN_WORD,
	TOKEN_NUMBER, /* starts with a digit; may have a unit */
	TOKEN_TEXT,   /* with its quotes; escapes are known to be good */
	TOKEN_ARROW,
	TOKEN_OPEN,
	TOKEN_CLOSE,
	TOKEN_DOTS,
	TOKEN_PLUS,
	TOKEN_STAR,
	TOKEN_AT,
	TOKEN_EQUALS
};

struct token {
	enum token_kind kind;
	const char *start;
	size_t nbytes;
	bool spaced; /* does not touch the token before */
};

/* ---- the state of one parse ---- */

/* What the parser knows of a name and no runner needs; same index as litmus->names. */
struct name_info {
	uint64_t hash;
	unsigned block, lane; /* where it was defined; block 0: outside `parallel` */
	unsigned gone_line;   /* processes: line of the exit or of the fork that fails; 0: usable */
	unsigned gone_block, gone_lane;
	bool never_made; /* its fork fails */
	uint64_t offset; /* pins, gets, pipes: of the place they were made from */
	uint64_t reach;  /* files: no page at or after this can exist so far */
};

struct parser {
	struct litmus *litmus;
	struct litmus_error *error;
	unsigned line;          /* number of the current line, from 1 */
	const char *text, *end; /* the current line, without its line ending */
	const char *pos;        /* where the next token is looked for */
	struct token token;     /* the current token */

	struct name_info *infos;
	size_t infos_room, names_room, stmts_room;
	unsigned *buckets; /* name index + 1, open addressing; a power of two */
	size_t nbuckets;
	size_t nprocesses;

	unsigned seen_keys;   /* header keys that stand only once */
	bool in_block;        /* between `parallel` and `end` */
	bool in_lane;         /* a lane has begun in the block */
	bool lane_empty;      /* no statement in the lane yet */
	struct loc block_loc; /* of `parallel` */
	struct loc lane_loc;  /* of `lane` */
	unsigned lane;

	char quoted[32]; /* of parse_quote() */
};

/* ---- parse.c: errors and memory ---- */

/* parse_fail - report at @at, which lies in the current line. Returns: -EINVAL. */
int parse_fail(struct parser *p, const char *at, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* parse_fail_token - report at the current token. Returns: -EINVAL. */
int parse_fail_token(struct parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* parse_loc - line and column (in characters) of @at, which lies in the current line. */
struct loc parse_loc(const struct parser *p, const char *at);
/* parse_quote - the current token as messages show it: shortened, in quotes. Valid until the next call. */
const char *parse_quote(struct parser *p);

/* For tests: the N-th allocation of the parser from now on fails, once; 0: none does. */
extern unsigned long litmus_fail_allocation;
/* parse_realloc, parse_copy - realloc() and strndup() that litmus_fail_allocation can make fail. */
void *parse_realloc(void *old, size_t nbytes);
char *parse_copy(const char *bytes, size_t nbytes);

/* A growing message of possible words. */
struct word_list {
	char text[220];
	size_t nbytes;
};
void word_list_add(struct word_list *list, const char *word);

/* ---- lex.c ---- */

/* lex_check_line - UTF-8 without control characters, not too long. Returns: 0; -EINVAL. */
int lex_check_line(struct parser *p);
/* lex_start - make the first token at or after @from current. Returns: 0; -EINVAL. */
int lex_start(struct parser *p, const char *from);
/* lex_next - make the next token current. Returns: 0; -EINVAL (a character that starts no token, a bad text). */
int lex_next(struct parser *p);
/* lex_is - whether the current token is the word @word. */
bool lex_is(const struct parser *p, const char *word);
/* lex_follows - whether the character after the current token, blanks aside, is @c. */
bool lex_follows(const struct parser *p, char c);
/* lex_touches - whether the current token has kind @kind and no blank before it. */
bool lex_touches(const struct parser *p, enum token_kind kind);
/* lex_no_blank - complain if a blank stands before the current token; @what is that in which none may stand. */
int lex_no_blank(struct parser *p, const char *what);
/* lex_equals - take the `=` between @option and its value. */
int lex_equals(struct parser *p, const char *option);
/* lex_number - take a decimal number in [@min, @max]. @what names it in messages. */
int lex_number(struct parser *p, const char *what, uint64_t min, uint64_t max, uint64_t *number);
/* lex_size - take a size, plain number (pages; only if @plain) or with K, M, G; whole pages, at most @max of them. */
int lex_size(struct parser *p, const char *what, bool plain, uint64_t max, uint64_t *npages);
/* lex_text - take a text of 1 to @room bytes. */
int lex_text(struct parser *p, size_t room, struct text *text);

/* ---- scope.c ---- */

#define KIND(name) (1u << NAME_##name)

/* scope_define - enter the current token as a new name of @kind and take it. Returns: 0; -EINVAL; -ENOMEM. */
int scope_define(struct parser *p, enum name_kind kind, int *index);
/* scope_check_word - whether the current token may be the name of a @kind; says nothing of names that exist. */
int scope_check_word(struct parser *p, enum name_kind kind);
/* scope_define_children - enter processes NAME1 ... NAME@count, where @word is NAME; *index is the first. */
int scope_define_children(struct parser *p, struct token word, uint64_t count, int *index);
/* scope_use - find the current token among the names of @kinds, usable here, and take it. */
int scope_use(struct parser *p, unsigned kinds, int *index);
/* scope_find - index of the word, or -1. */
int scope_find(const struct parser *p, const char *word, size_t nbytes);
/* scope_enter_first - names[0] is process A. Returns: 0; -ENOMEM. */
int scope_enter_first(struct parser *p);
/* scope_gone - from here on @process does not exist. */
void scope_gone(struct parser *p, int process, bool never_made);
const char *scope_kind_name(enum name_kind kind);

/* ---- grammar.c ---- */

/* grammar_parse - take a statement or check up to what may stand at its end (`fails`, `may fail`, `in all`). */
int grammar_parse(struct parser *p, struct stmt *st);

/* ---- header.c ---- */

/* header_is_line - whether the current line is `word:` or `word :`. */
bool header_is_line(const struct parser *p);
/* header_is_key - whether the current token is a key of the header (which lacks its colon). */
bool header_is_key(const struct parser *p);
int header_parse_line(struct parser *p);

/* ---- names.c ---- */

/* words_find - index of the current token in @words (NULL where an index has no word), or -1. */
int words_find(const struct parser *p, const char *const *words, size_t nwords);
/* words_take - the same, taking the token; an unknown word is an error that calls it @what and lists @words. */
int words_take(struct parser *p, const char *what, const char *const *words, size_t nwords, int *index);
/* error_take - take an errno name or a signal. */
int error_take(struct parser *p, int *error);

extern const char *const litmus_need_words[NEED_COUNT];
extern const char *const litmus_advice_words[ADVICE_COUNT];
extern const char *const litmus_flag_words[LFLAG_COUNT];
extern const char *const litmus_event_words[EVENT_COUNT];
extern const char *const litmus_scan_words[SCAN_COUNT];

#endif
