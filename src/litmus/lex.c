/* SPDX-License-Identifier: MIT */
/*
 * From the bytes of one line to tokens: UTF-8 and control characters, words, numbers, sizes, texts with their escapes.
 * Knows no statement.
 */
#include "parse_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_word_char(char c)
{
	return is_letter(c) || is_digit(c) || c == '_';
}

static int hex_value(char c)
{
	if (is_digit(c))
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* ---- bytes ---- */

/* Length of the UTF-8 character at @s, or 0: no surrogates, no overlong forms, nothing above U+10FFFF. */
static size_t utf8_length(const unsigned char *s, size_t room)
{
	unsigned char low = 0x80, high = 0xbf; /* of the second byte */
	size_t n;

	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (room < n || s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return n;
}

int lex_check_line(struct parser *p)
{
	const char *s = p->text;

	while (s < p->end) {
		unsigned char c = (unsigned char)*s;
		size_t n = utf8_length((const unsigned char *)s, (size_t)(p->end - s));

		if (s - p->text >= (ptrdiff_t)MAX_LINE_BYTES)
			return parse_fail(p, s, "the line is longer than %u bytes", MAX_LINE_BYTES);
		if (!n)
			return parse_fail(p, s, "byte 0x%02x is not UTF-8 here", c);
		if (c == 0)
			return parse_fail(p, s, "NUL byte");
		if (c == '\r')
			return parse_fail(p, s,
					  "a carriage return stands only at the end of a line, before a line feed");
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return parse_fail(p, s, "control character 0x%02x; inside a text write \\x%02x", c, c);
		s += n;
	}
	return 0;
}

/* ---- tokens ---- */

/* A word: letters, digits, `_`, and `-` where a letter or digit follows (so that `r->p` ends before the arrow). */
static const char *word_end(const char *s, const char *end)
{
	while (s < end && (is_word_char(*s) || (*s == '-' && s + 1 < end && is_word_char(s[1]))))
		s++;
	return s;
}

static const char *number_end(const char *s, const char *end)
{
	while (s < end && is_word_char(*s))
		s++;
	return s;
}

/* The escape at @s, which points at a backslash: its length, or 0. */
static size_t escape_length(const char *s, const char *end)
{
	if (end - s < 2)
		return 0;
	if (s[1] == 'n' || s[1] == 't' || s[1] == '\\' || s[1] == '"')
		return 2;
	if (s[1] == 'x' && end - s >= 4 && hex_value(s[2]) >= 0 && hex_value(s[3]) >= 0)
		return 4;
	return 0;
}

/* Past the closing quote of the text at @s. */
static int text_end(struct parser *p, const char *s, const char **after)
{
	const char *start = s++;

	while (s < p->end && *s != '"') {
		size_t n = 1;

		if (*s == '\\' && s + 1 < p->end) {
			n = escape_length(s, p->end);
			if (!n)
				return parse_fail(p, s, "bad escape; possible: \\n \\t \\\\ \\\" \\xHH");
		}
		s += n;
	}
	if (s >= p->end)
		return parse_fail(p, start, "the text has no closing quote");
	*after = s + 1;
	return 0;
}

static const struct {
	const char *text;
	enum token_kind kind;
} marks[] = {
	{"->", TOKEN_ARROW}, {"..", TOKEN_DOTS}, {"[", TOKEN_OPEN}, {"]", TOKEN_CLOSE},
	{"+", TOKEN_PLUS},   {"*", TOKEN_STAR},  {"@", TOKEN_AT},   {"=", TOKEN_EQUALS},
};

/* Those outside ASCII with their number: some look like what is meant, some like nothing at all. */
static int unexpected_character(struct parser *p, const char *at)
{
	const unsigned char *s = (const unsigned char *)at;
	size_t n = utf8_length(s, (size_t)(p->end - at));
	unsigned character = n == 1 ? s[0] : s[0] & (0x7fu >> n);

	for (size_t i = 1; i < n; i++)
		character = character << 6 | (s[i] & 0x3f);
	if (n == 1)
		return parse_fail(p, at, "unexpected character '%c'", *at);
	return parse_fail(p, at, "unexpected character '%.*s' (U+%04X)", (int)n, at, character);
}

static int mark_token(struct parser *p, const char *s, enum token_kind *kind, const char **after)
{
	size_t room = (size_t)(p->end - s);

	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		size_t n = strlen(marks[i].text);

		if (n <= room && !memcmp(s, marks[i].text, n)) {
			*kind = marks[i].kind;
			*after = s + n;
			return 0;
		}
	}
	return unexpected_character(p, s);
}

int lex_next(struct parser *p)
{
	const char *s = p->pos, *after = NULL;
	enum token_kind kind;
	int err = 0;

	while (s < p->end && is_blank(*s))
		s++;
	if (s == p->end || *s == '#') {
		p->token.start += p->token.nbytes;
		p->token.nbytes = 0;
		p->token.kind = TOKEN_END;
		return 0;
	}
	if (is_letter(*s)) {
		kind = TOKEN_WORD;
		after = word_end(s, p->end);
	} else if (is_digit(*s)) {
		kind = TOKEN_NUMBER;
		after = number_end(s, p->end);
	} else if (*s == '"') {
		kind = TOKEN_TEXT;
		err = text_end(p, s, &after);
	} else {
		err = mark_token(p, s, &kind, &after);
	}
	if (err)
		return err;
	p->token = (struct token){kind, s, (size_t)(after - s), s != p->pos};
	p->pos = after;
	return 0;
}

int lex_start(struct parser *p, const char *from)
{
	p->pos = from;
	p->token = (struct token){TOKEN_END, from, 0, true};
	return lex_next(p);
}

bool lex_is(const struct parser *p, const char *word)
{
	return p->token.kind == TOKEN_WORD && strlen(word) == p->token.nbytes &&
	       !memcmp(word, p->token.start, p->token.nbytes);
}

bool lex_follows(const struct parser *p, char c)
{
	const char *s = p->pos;

	while (s < p->end && is_blank(*s))
		s++;
	return s < p->end && *s == c;
}

bool lex_touches(const struct parser *p, enum token_kind kind)
{
	return p->token.kind == kind && !p->token.spaced;
}

int lex_no_blank(struct parser *p, const char *what)
{
	if (p->token.spaced && p->token.kind != TOKEN_END)
		return parse_fail_token(p, "%s has no blanks inside", what);
	return 0;
}

int lex_equals(struct parser *p, const char *option)
{
	int err;

	if (p->token.kind != TOKEN_EQUALS)
		return parse_fail_token(p, "'=' expected, found %s: write %s=...", parse_quote(p), option);
	err = lex_no_blank(p, "an option");
	if (!err)
		err = lex_next(p);
	return err ? err : lex_no_blank(p, "an option");
}

/* ---- numbers and sizes ---- */

/* The digits of a number; saturates. Returns how many bytes are digits. */
static size_t digits(const struct token *token, uint64_t *value)
{
	size_t i = 0;

	for (*value = 0; i < token->nbytes && is_digit(token->start[i]); i++) {
		if (*value > (UINT64_MAX - 9) / 10)
			*value = (UINT64_MAX - 9) / 10; /* stays too large: no limit is near */
		*value = *value * 10 + (uint64_t)(token->start[i] - '0');
	}
	return i;
}

int lex_number(struct parser *p, const char *what, uint64_t min, uint64_t max, uint64_t *number)
{
	uint64_t value;

	if (p->token.kind != TOKEN_NUMBER)
		return parse_fail_token(p, "%s expected, found %s", what, parse_quote(p));
	if (digits(&p->token, &value) != p->token.nbytes)
		return parse_fail_token(p, "%s expected; %s is not a decimal number", what, parse_quote(p));
	if ((value < min || value > max) && min == max)
		return parse_fail_token(p, "%s must be %" PRIu64, what, min);
	if (value < min || value > max)
		return parse_fail_token(p, "%s must lie between %" PRIu64 " and %" PRIu64, what, min, max);
	*number = value;
	return lex_next(p);
}

/* log2 of the bytes that a size's unit stands for; pages without one; -1: no such unit. */
static int unit_shift(const char *unit, size_t nbytes)
{
	if (nbytes == 0)
		return 12;
	if (nbytes != 1)
		return -1;
	return *unit == 'K' ? 10 : *unit == 'M' ? 20 : *unit == 'G' ? 30 : -1;
}

int lex_size(struct parser *p, const char *what, bool plain, uint64_t max, uint64_t *npages)
{
	const struct token *token = &p->token;
	uint64_t value;
	size_t ndigits;
	int shift;

	if (token->kind != TOKEN_NUMBER)
		return parse_fail_token(p, "%s expected, found %s", what, parse_quote(p));
	ndigits = digits(token, &value);
	shift = unit_shift(token->start + ndigits, token->nbytes - ndigits);
	if (shift < 0 || (shift == 12 && !plain))
		return parse_fail_token(p, "%s expected; %s is not %s64K, 2M or 1G", what, parse_quote(p),
					plain ? "a number of pages, or a size such as " : "a size such as ");
	if (!value || value > (max << 12) >> shift)
		return parse_fail_token(p, "%s must lie between one page and %" PRIu64 "M", what, max >> 8);
	if ((value << shift) % LITMUS_PAGE_BYTES)
		return parse_fail_token(p, "%s must be whole pages of 4K", what);
	*npages = (value << shift) >> 12;
	return lex_next(p);
}

/* ---- texts ---- */

/* One character of a text that text_end() has accepted. */
static const char *unescape(const char *s, char *byte)
{
	if (*s != '\\') {
		*byte = *s;
		return s + 1;
	}
	if (s[1] == 'x') {
		*byte = (char)(hex_value(s[2]) << 4 | hex_value(s[3]));
		return s + 4;
	}
	*byte = s[1] == 'n' ? '\n' : s[1] == 't' ? '\t' : s[1];
	return s + 2;
}

int lex_text(struct parser *p, size_t room, struct text *text)
{
	const char *s, *last;
	size_t nbytes = 0;

	if (p->token.kind != TOKEN_TEXT)
		return parse_fail_token(p, "a text in double quotes expected, found %s", parse_quote(p));
	s = p->token.start + 1;
	last = p->token.start + p->token.nbytes - 1;
	if (s == last)
		return parse_fail_token(p, "the text is empty: nothing would be written or compared");
	text->bytes = parse_realloc(NULL, (size_t)(last - s) + 1);
	if (!text->bytes)
		return -ENOMEM;
	while (s < last)
		s = unescape(s, &text->bytes[nbytes++]);
	text->bytes[nbytes] = '\0';
	text->nbytes = nbytes;
	if (nbytes > room)
		return parse_fail_token(p, "the text has %zu bytes, the page from where it starts %zu", nbytes, room);
	return lex_next(p);
}
