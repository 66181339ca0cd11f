/* SPDX-License-Identifier: MIT */
/*
 * Bytes, numbers and outcomes against what a test says of them.
 */
#include "judge.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#define SAW_BYTES 24

/* ---- bytes ---- */

static size_t count_zeros(const unsigned char *bytes, size_t nbytes)
{
	size_t n = 0;

	while (n < nbytes && !bytes[n])
		n++;
	return n;
}

static size_t longest_text(const struct stmt *check)
{
	size_t longest = 0;

	for (size_t i = 0; i < check->ntexts; i++)
		if (check->texts[i].nbytes > longest)
			longest = check->texts[i].nbytes;
	return longest;
}

size_t judge_wanted(const struct stmt *check, uint64_t offset, size_t page_size)
{
	for (size_t i = 0; i < check->ntexts; i++)
		if (check->texts[i].zero)
			return page_size - offset;
	return longest_text(check);
}

static bool text_matches(const struct text *text, const unsigned char *bytes, size_t nbytes)
{
	if (text->zero)
		return count_zeros(bytes, nbytes) == nbytes;
	return nbytes >= text->nbytes && !memcmp(bytes, text->bytes, text->nbytes);
}

static size_t escape_byte(char out[5], unsigned char byte)
{
	if (byte == '\n')
		return (size_t)sprintf(out, "\\n");
	if (byte == '\t')
		return (size_t)sprintf(out, "\\t");
	if (byte == '"' || byte == '\\')
		return (size_t)sprintf(out, "\\%c", byte);
	if (byte < 0x80 && isprint(byte))
		return (size_t)sprintf(out, "%c", byte);
	return (size_t)sprintf(out, "\\x%02X", byte);
}

static void quote(char *out, const unsigned char *bytes, size_t nbytes)
{
	size_t shown = nbytes > SAW_BYTES ? SAW_BYTES : nbytes;

	*out++ = '"';
	for (size_t i = 0; i < shown; i++)
		out += escape_byte(out, bytes[i]);
	strcpy(out, shown < nbytes ? "\"..." : "\"");
}

/* As many bytes as the texts have; where only `zero` was expected, the first that are not. */
static void describe_bytes(const struct stmt *check, const unsigned char *bytes, size_t nbytes, char *saw)
{
	size_t shown = longest_text(check), zeros = count_zeros(bytes, nbytes);

	if (zeros == nbytes) {
		strcpy(saw, "zero");
	} else if (shown) {
		quote(saw, bytes, shown);
	} else {
		quote(saw, bytes + zeros, nbytes - zeros < 8 ? nbytes - zeros : 8);
		sprintf(saw + strlen(saw), " at byte %zu", zeros);
	}
}

bool judge_bytes(const struct stmt *check, const unsigned char *bytes, size_t nbytes, char saw[JUDGE_SAW_SIZE])
{
	_Static_assert(JUDGE_SAW_SIZE >= SAW_BYTES * 4 + 5 + 21, "room for escapes, quotes, dots and a position");

	for (size_t i = 0; i < check->ntexts; i++)
		if (text_matches(&check->texts[i], bytes, nbytes))
			return true;
	describe_bytes(check, bytes, nbytes, saw);
	return false;
}

/* ---- scans ---- */

/* The next run of consecutive pages, from range *i on. Returns: whether there is one. */
static bool next_run(const struct litmus_range *ranges, size_t n, size_t *i, struct litmus_range *run)
{
	if (*i >= n)
		return false;
	*run = ranges[(*i)++];
	while (*i < n && ranges[*i].first == run->first + run->npages)
		run->npages += ranges[(*i)++].npages;
	return true;
}

static bool same_ranges(const struct litmus_range *a, size_t na, const struct litmus_range *b, size_t nb)
{
	size_t i = 0, j = 0;
	struct litmus_range x, y;

	while (next_run(a, na, &i, &x))
		if (!next_run(b, nb, &j, &y) || x.first != y.first || x.npages != y.npages)
			return false;
	return !next_run(b, nb, &j, &y);
}

bool judge_ranges(const struct stmt *check, const struct litmus_range *found, size_t nfound, char saw[JUDGE_SAW_SIZE])
{
	struct litmus_range run;
	size_t i = 0, n = 0;

	if (same_ranges(check->ranges, check->nranges, found, nfound))
		return true;
	strcpy(saw, "nothing");
	while (n + 50 < JUDGE_SAW_SIZE && next_run(found, nfound, &i, &run))
		n += (size_t)snprintf(saw + n, JUDGE_SAW_SIZE - n, "%s[%" PRIu64 "..%" PRIu64 "]", n ? " " : "",
				      run.first, run.first + run.npages - 1);
	return false;
}

/* ---- numbers and labels ---- */

bool judge_number(const struct stmt *check, uint64_t value)
{
	return value == check->count || (check->at_least && value > check->count);
}

void judge_page_label(char label[64], const char *name, uint64_t page, uint64_t npages)
{
	label[0] = '\0';
	if (npages > 1)
		snprintf(label, 64, "%.40s[%" PRIu64 "]: ", name, page);
}

/* ---- outcomes ---- */

bool judge_is_judgement(const struct stmt *stmt)
{
	return litmus_is_check(stmt->kind) || stmt->outcome == OUTCOME_FAILS;
}

static void describe_outcome(char text[64], int outcome)
{
	if (outcome == LITMUS_SIGSEGV || outcome == LITMUS_SIGBUS)
		snprintf(text, 64, "%s", litmus_error_name(outcome));
	else if (outcome)
		snprintf(text, 64, "failed with %s", litmus_error_name(outcome));
	else
		snprintf(text, 64, "succeeded");
}

bool judge_outcome(struct run_result *result, const struct stmt *stmt, int outcome, bool listed)
{
	bool must_fail = stmt->outcome == OUTCOME_FAILS;
	char what[64];

	if (must_fail ? outcome == stmt->error : !outcome)
		return true;
	if (stmt->outcome == OUTCOME_MAY_FAIL && outcome == stmt->error)
		return true;
	describe_outcome(what, outcome);
	if (must_fail || listed || litmus_is_check(stmt->kind))
		run_result_break(result, stmt, "%s", what);
	else
		run_result_error(result, stmt, "%s", what);
	return false;
}
