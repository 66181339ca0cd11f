/* SPDX-License-Identifier: MIT */
/*
 * The header of a litmus file: `key: value` lines before the first statement.
 */
#include "parse_internal.h"

#include <ucow/machine.h>

#include <errno.h>
#include <string.h>

/* Free text: the value up to a comment, trimmed. The current token is its first, whatever that is. */
static int take_line(struct parser *p, char **line)
{
	const char *start = p->pos, *end = memchr(p->pos, '#', (size_t)(p->end - p->pos));

	end = end ? end : p->end;
	while (start < end && (*start == ' ' || *start == '\t'))
		start++;
	while (end > start && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	if (start == end)
		return parse_fail(p, p->pos, "the line has no value");
	*line = parse_copy(start, (size_t)(end - start));
	return *line ? 0 : -ENOMEM;
}

static int take_repeated(struct parser *p, char ***lines, size_t *nlines)
{
	char **grown = *lines;
	int err;

	/* Doubles: room is the power of two at or above the number of lines. */
	if (!(*nlines & (*nlines - 1)))
		grown = parse_realloc(*lines, (*nlines ? *nlines * 2 : 1) * sizeof(**lines));
	if (!grown)
		return -ENOMEM;
	*lines = grown;
	err = take_line(p, &grown[*nlines]);
	*nlines += !err;
	return err;
}

/* One or more of @words; bit i for word i. */
static int take_words(struct parser *p, const char *what, const char *const *words, size_t nwords, unsigned *bits)
{
	int index, err = lex_start(p, p->pos);

	do {
		const char *at = p->token.start;

		if (!err)
			err = words_take(p, what, words, nwords, &index);
		if (err)
			return err;
		if (*bits & 1u << index)
			return parse_fail(p, at, "'%s' is listed twice", words[index]);
		*bits |= 1u << index;
	} while (p->token.kind != TOKEN_END);
	return 0;
}

/* ---- keys ---- */

static int parse_title(struct parser *p)
{
	return take_line(p, &p->litmus->title);
}

static int parse_about(struct parser *p)
{
	return take_repeated(p, &p->litmus->about, &p->litmus->nabout);
}

static int parse_source(struct parser *p)
{
	return take_repeated(p, &p->litmus->source, &p->litmus->nsource);
}

static int parse_catches(struct parser *p)
{
	return take_line(p, &p->litmus->catches);
}

static int parse_needs(struct parser *p)
{
	int err = take_words(p, "a facility", litmus_need_words, NEED_COUNT - 1, &p->litmus->declared_needs);

	p->litmus->needs |= p->litmus->declared_needs;
	return err;
}

static int parse_forks(struct parser *p)
{
	const char *words[UCOW_FORK_MODE_COUNT] = {0};

	for (unsigned i = UCOW_FORK_DEFAULT + 1; i < UCOW_FORK_MODE_COUNT; i++)
		words[i] = ucow_fork_mode_name(i);
	return take_words(p, "a fork mode", words, UCOW_FORK_MODE_COUNT, &p->litmus->forks);
}

static int parse_breaks(struct parser *p)
{
	const char *words[UCOW_POLICY_COUNT];

	for (unsigned i = 0; i < UCOW_POLICY_COUNT; i++)
		words[i] = ucow_policy_name(i);
	return take_words(p, "a policy", words, UCOW_POLICY_COUNT, &p->litmus->breaks);
}

enum { MACHINE_RAM, MACHINE_SWAP, MACHINE_NODES, MACHINE_CPUS, NMACHINE_WORDS };

static int take_property_value(struct parser *p, int property)
{
	static const char *const what[NMACHINE_WORDS] = {"the size of the RAM", "the size of the swap",
							 "the number of nodes", "the number of cpus"};
	struct litmus_machine *machine = &p->litmus->machine;
	bool is_size = property == MACHINE_RAM || property == MACHINE_SWAP;
	uint64_t number = 0;
	int err;

	if (is_size)
		err = lex_size(p, what[property], false, MAX_MACHINE_BYTES >> 12, &number);
	else
		err = lex_number(p, what[property], 1, property == MACHINE_NODES ? MAX_MACHINE_NODES : MAX_MACHINE_CPUS,
				 &number);
	if (property == MACHINE_RAM)
		machine->ram_bytes = number << 12;
	else if (property == MACHINE_SWAP)
		machine->swap_bytes = number << 12;
	else if (property == MACHINE_NODES)
		machine->nodes = (unsigned)number;
	else
		machine->cpus = (unsigned)number;
	return err;
}

static int take_property(struct parser *p, unsigned *seen)
{
	static const char *const words[NMACHINE_WORDS] = {"ram", "swap", "nodes", "cpus"};
	const char *at = p->token.start;
	int property, err = words_take(p, "a property of the machine", words, NMACHINE_WORDS, &property);

	if (err)
		return err;
	if (*seen & 1u << property)
		return parse_fail(p, at, "'%s=' stands twice", words[property]);
	*seen |= 1u << property;
	err = lex_equals(p, words[property]);
	return err ? err : take_property_value(p, property);
}

static int parse_machine(struct parser *p)
{
	unsigned seen = 0;
	int err = lex_start(p, p->pos);

	do {
		if (!err)
			err = take_property(p, &seen);
	} while (!err && p->token.kind != TOKEN_END);
	if (p->litmus->machine.swap_bytes)
		p->litmus->needs |= NEED_SWAP;
	if (p->litmus->machine.nodes > 1)
		p->litmus->needs |= NEED_NUMA;
	return err;
}

static const struct {
	const char *word;
	bool repeats;
	int (*parse)(struct parser *p);
} keys[] = {
	{"title", false, parse_title},     {"about", true, parse_about},      {"source", true, parse_source},
	{"catches", false, parse_catches}, {"needs", false, parse_needs},     {"forks", false, parse_forks},
	{"breaks", false, parse_breaks},   {"machine", false, parse_machine},
};
#define NKEYS (sizeof(keys) / sizeof(keys[0]))

static int find_key(const struct parser *p)
{
	for (size_t i = 0; i < NKEYS; i++)
		if (lex_is(p, keys[i].word))
			return (int)i;
	return -1;
}

bool header_is_key(const struct parser *p)
{
	return find_key(p) >= 0;
}

bool header_is_line(const struct parser *p)
{
	return p->token.kind == TOKEN_WORD && lex_follows(p, ':');
}

static int unknown_key(struct parser *p)
{
	struct word_list list = {0};

	for (size_t i = 0; i < NKEYS; i++)
		word_list_add(&list, keys[i].word);
	return parse_fail_token(p, "unknown key %s; possible: %s", parse_quote(p), list.text);
}

int header_parse_line(struct parser *p)
{
	int key = find_key(p);

	if (p->litmus->nstmts || p->in_block)
		return parse_fail_token(p, "%s: header lines stand before the first statement", parse_quote(p));
	if (key < 0)
		return unknown_key(p);
	if (*p->pos != ':')
		return parse_fail(p, p->pos, "no blank before ':': write %s: ...", keys[key].word);
	if (!keys[key].repeats && p->seen_keys & 1u << key)
		return parse_fail_token(p, "a second %s line: it may stand only once", keys[key].word);
	p->seen_keys |= 1u << key;
	p->pos++;
	return keys[key].parse(p);
}
