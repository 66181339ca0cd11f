/* SPDX-License-Identifier: MIT */
/*
 * Rules about verdicts that both runners and the reports share: what counts in a run, what the file promised, and how
 * a result is filled in. The words are in docs/litmus.md.
 */
#include "run.h"

#include <stdarg.h>
#include <string.h>

/* Policies that know no exclusive flag have nothing to say about it. */
static bool policy_has_exclusive(enum ucow_policy policy)
{
	return policy == UCOW_POLICY_EXCLUSIVE;
}

static bool maps_shared(const struct litmus *litmus, int region)
{
	for (size_t i = 0; i < litmus->nstmts; i++) {
		const struct stmt *stmt = &litmus->stmts[i];

		if (stmt->kind == STMT_MAP && stmt->options & MAP_OPT_SHARED && (region < 0 || stmt->name == region))
			return true;
		if (stmt->kind == STMT_MOVE && stmt->name == region)
			return maps_shared(litmus, stmt->place.region);
	}
	return false;
}

/*
 * Linux's flags and counts are what an eager fork makes of them; the other modes promise contents, not these. Entries
 * of shared mappings are not copied by an eager fork, and are seen by the child in the others.
 */
static bool check_is_modal(const struct litmus *litmus, const struct stmt *check)
{
	switch ((int)check->kind) {
	case STMT_CHECK_FLAG:
		if (check->flag == LFLAG_PRESENT)
			return maps_shared(litmus, check->place.region);
		return check->flag == LFLAG_EXCLUSIVE || check->flag == LFLAG_WRITABLE;
	case STMT_CHECK_RSS:
		return maps_shared(litmus, -1);
	case STMT_CHECK_MAPCOUNT:
	case STMT_CHECK_COUNT:
		return true;
	default:
		return false;
	}
}

bool litmus_judges(const struct litmus *litmus, const struct stmt *check, bool on_kernel, enum ucow_policy policy,
		   enum ucow_fork_mode fork)
{
	bool exclusive = check->kind == STMT_CHECK_FLAG && check->flag == LFLAG_EXCLUSIVE;

	if (on_kernel)
		return true;
	if (exclusive && !policy_has_exclusive(policy))
		return false;
	return fork == UCOW_FORK_EAGER || check->in_all || !check_is_modal(litmus, check);
}

bool litmus_expected(const struct litmus *litmus, bool on_kernel, enum ucow_policy policy, enum verdict verdict)
{
	bool listed = litmus->breaks >> (on_kernel ? UCOW_POLICY_EXCLUSIVE : policy) & 1;

	switch (verdict) {
	case VERDICT_SKIP:
		return true;
	case VERDICT_ERROR:
		return false;
	case VERDICT_PASS:
		/* Not every interleaving need fail, and the kernel need not fail where today's rules only may. */
		return !listed || on_kernel || litmus->nblocks;
	case VERDICT_BREAK:
		return listed;
	}
	return false;
}

/* Cut a string that filled its @size bytes at the start of a character. */
static void cut_at_character(char *text, size_t size)
{
	size_t n = strlen(text), start = n;

	if (n + 1 < size)
		return;
	while (start && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
		start--;
	if (start && (unsigned char)text[start - 1] >= 0xc0)
		text[start - 1] = '\0';
}

static void fill(char *text, size_t size, const char *format, va_list args)
{
	vsnprintf(text, size, format, args);
	cut_at_character(text, size);
}

/* Whether this is the first break or error; the place is then @stmt's. */
static bool begin_bad(struct run_result *result, enum verdict verdict, const struct stmt *stmt)
{
	if (result->verdict == VERDICT_BREAK || result->verdict == VERDICT_ERROR)
		return false;
	result->verdict = verdict;
	result->line = stmt ? stmt->loc.line : 0;
	snprintf(result->check, sizeof(result->check), "%s", stmt ? stmt->source : "");
	cut_at_character(result->check, sizeof(result->check));
	return true;
}

void run_result_break(struct run_result *result, const struct stmt *stmt, const char *saw, ...)
{
	va_list args;

	if (!begin_bad(result, VERDICT_BREAK, stmt))
		return;
	va_start(args, saw);
	fill(result->saw, sizeof(result->saw), saw, args);
	va_end(args);
}

void run_result_error(struct run_result *result, const struct stmt *stmt, const char *reason, ...)
{
	va_list args;

	if (!begin_bad(result, VERDICT_ERROR, stmt))
		return;
	va_start(args, reason);
	fill(result->reason, sizeof(result->reason), reason, args);
	va_end(args);
}

void run_result_skip_check(struct run_result *result, const struct stmt *stmt, const char *reason, ...)
{
	struct skipped_check *skipped;
	va_list args;

	if (result->skipped_checks++ >= MAX_SKIPPED_CHECKS)
		return;
	skipped = &result->skipped[result->skipped_checks - 1];
	skipped->line = stmt->loc.line;
	va_start(args, reason);
	fill(skipped->reason, sizeof(skipped->reason), reason, args);
	va_end(args);
}
