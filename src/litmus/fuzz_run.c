/* SPDX-License-Identifier: MIT */
/* A test on all subjects of a court, statement by statement. */
#include "fuzz.h"

#include <ucow/machine.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static int open_subject(enum fuzz_against against, unsigned number, struct fuzz_subject **subject)
{
	static const int modes[] = {UCOW_FORK_EAGER, UCOW_FORK_TABLES, UCOW_FORK_LAZY};

	if (!number)
		return against == FUZZ_AGAINST_KERNEL ? fuzz_kernel_open(subject) : fuzz_flat_open(subject);
	return fuzz_engine_open(modes[number - 1], subject);
}

static int open_shadow(struct fuzz_court *court)
{
	int error = fuzz_flat_open(&court->shadow);

	court->shadow_view = error ? NULL : calloc(1, sizeof(struct fuzz_view));
	return !error && !court->shadow_view ? -ENOMEM : error;
}

int fuzz_court_open(enum fuzz_against against, struct fuzz_court *court, char *why, size_t size)
{
	unsigned n = against == FUZZ_AGAINST_KERNEL ? 2 : 4;

	*court = (struct fuzz_court){0};
	for (unsigned i = 0; i < n; i++) {
		int error = open_subject(against, i, &court->subjects[i]);

		if (!error) {
			court->nsubjects++;
			for (unsigned k = 0; k < 2; k++)
				court->views[i][k] = calloc(1, sizeof(struct fuzz_view));
			if (!court->views[i][0] || !court->views[i][1])
				error = -ENOMEM;
		}
		if (error) {
			snprintf(why, size, "no %s: %s",
				 i                                ? "engine"
				 : against == FUZZ_AGAINST_KERNEL ? "kernel"
								  : "flat model",
				 litmus_error_name(-error));
			fuzz_court_close(court);
			return error;
		}
	}
	return against == FUZZ_AGAINST_KERNEL ? open_shadow(court) : 0;
}

void fuzz_court_close(struct fuzz_court *court)
{
	if (court->shadow)
		court->shadow->type->close(court->shadow);
	free(court->shadow_view);
	for (unsigned i = 0; i < court->nsubjects; i++) {
		court->subjects[i]->type->close(court->subjects[i]);
		free(court->views[i][0]);
		free(court->views[i][1]);
	}
	*court = (struct fuzz_court){0};
}

/* For whoever finds out where this process crashed, or why it does not go on. */
static void tell_place(const struct fuzz_court *court, size_t at, unsigned subject)
{
	if (court->place)
		atomic_store_explicit(court->place, FUZZ_PLACE(at, subject), memory_order_relaxed);
}

/* A subject that cannot be judged, or has gone wrong by itself. */
static int trouble(struct fuzz_divergence *divergence, const struct fuzz_subject *subject, size_t at, int error)
{
	divergence->at = at;
	divergence->process = divergence->page = divergence->handle = -1;
	divergence->is_error = true;
	snprintf(divergence->what, sizeof(divergence->what), "error");
	for (unsigned who = 0; who < 2; who++)
		snprintf(divergence->subjects[who], sizeof(divergence->subjects[who]), "%s", subject->type->name);
	return error;
}

/* *nbegun: so many are to be ended. */
static int begin_all(struct fuzz_court *court, const struct fuzz_test *test, unsigned *nbegun,
		     struct fuzz_divergence *divergence)
{
	for (*nbegun = 0; *nbegun < court->nsubjects;) {
		unsigned i = (*nbegun)++;
		struct fuzz_subject *subject = court->subjects[i];
		int error;

		tell_place(court, 0, i);
		error = subject->type->begin(subject, test, divergence->saw[0], sizeof(divergence->saw[0]));
		if (error)
			return trouble(divergence, subject, 0, error);
	}
	return 0;
}

static void swap_views(struct fuzz_court *court)
{
	for (unsigned i = 0; i < court->nsubjects; i++) {
		struct fuzz_view *now = court->views[i][0];

		court->views[i][0] = court->views[i][1];
		court->views[i][1] = now;
	}
}

/* ---- what may be gone ---- */

static bool wants_shadow(const struct fuzz_court *court, const struct fuzz_test *test)
{
	const struct litmus *litmus = test->litmus;
	bool frees = false;

	for (size_t i = 0; i < litmus->nstmts; i++)
		frees |= litmus->stmts[i].kind == STMT_ADVISE && litmus->stmts[i].advice == ADVICE_FREE;
	return court->shadow && frees && litmus->needs & NEED_SWAP;
}

static void begin_shadow(struct fuzz_court *court, const struct fuzz_test *test)
{
	char why[160];

	court->is_shadowed = wants_shadow(court, test) &&
			     !court->shadow->type->begin(court->shadow, test, why, sizeof(why));
}

static void end_shadow(struct fuzz_court *court)
{
	char why[160];

	if (court->is_shadowed)
		court->shadow->type->end(court->shadow, why, sizeof(why));
	court->is_shadowed = false;
}

/*
 * What the kernel has dropped the engine may still have, and the other way round. So where the kernel shows what it
 * may, the reference shows what is there as long as nothing was dropped, and what may be gone.
 */
static void lend_bytes(const uint8_t *promised, uint64_t loose, uint8_t *seen, uint64_t *seen_loose)
{
	*seen_loose = 0;
	if (!loose || !fuzz_agree(promised, seen, loose))
		return;
	memcpy(seen, promised, FUZZ_WINDOW);
	*seen_loose = loose;
}

static void lend_held(const struct fuzz_held *promised, struct fuzz_held *seen)
{
	for (unsigned i = 0; i < promised->npages && i < seen->npages; i++) {
		seen->has_bytes[i] &= promised->has_bytes[i];
		lend_bytes(promised->bytes[i], promised->loose[i], seen->bytes[i], &seen->loose[i]);
	}
}

static void lend_doubts(const struct fuzz_test *test, const struct fuzz_view *shadow, struct fuzz_view *view)
{
	const struct fuzz_layout *layout = &test->layout;

	for (unsigned process = 0; process < layout->nprocesses; process++)
		for (unsigned i = 0; shadow->alive[process] && i < layout->npages; i++) {
			const struct fuzz_page *promised = &shadow->pages[process][i];
			struct fuzz_page *seen = &view->pages[process][i];

			if (promised->mapped && promised->has_bytes && seen->has_bytes)
				lend_bytes(promised->bytes, promised->loose, seen->bytes, &seen->loose);
		}
	for (unsigned i = 0; i < layout->nhandles; i++)
		lend_held(&shadow->held[i], &view->held[i]);
	for (unsigned i = 0; i < layout->nfiles; i++)
		for (unsigned page = 0; page < shadow->files[i].npages && page < view->files[i].npages; page++)
			lend_bytes(shadow->files[i].bytes[page], shadow->files[i].loose[page],
				   view->files[i].bytes[page], &view->files[i].loose[page]);
}

static void step_shadow(struct fuzz_court *court, const struct fuzz_test *test, size_t at)
{
	char why[160];

	if (court->is_shadowed && !court->shadow->type->step(court->shadow, at, court->shadow_view, why, sizeof(why)))
		lend_doubts(test, court->shadow_view, court->views[0][0]);
}

/* ---- memory that does not suffice ---- */

bool fuzz_may_run_out(const struct fuzz_test *test)
{
	bool may = test->room;

	for (size_t i = 0; !may && i < test->litmus->nstmts; i++)
		may = test->litmus->stmts[i].kind == STMT_CGROUP &&
		      (test->litmus->stmts[i].count < FUZZ_NO_LIMIT || test->litmus->stmts[i].swap_limit != UINT64_MAX);
	return may;
}

/*
 * Pages that an operation may have let go of when it failed: those that it had taken all at once. A load or a store
 * wants one, and should have found it.
 */
static unsigned lets_go(const struct stmt *stmt)
{
	bool single = stmt->kind == STMT_WRITE || stmt->kind == STMT_READ || stmt->kind == STMT_POKE ||
		      stmt->kind == STMT_REMOTE_WRITE;

	return single ? 1 : FUZZ_HANDLE_PAGES + 4;
}

/*
 * An engine that differs from the reference after it found no memory, though reclaim did what it could, is right as
 * long as each page is as it was or as it should be; from there on the two have nothing in common.
 */
static bool is_excused(struct fuzz_court *court, const struct fuzz_test *test, size_t at, unsigned i,
		       struct fuzz_divergence *divergence)
{
	const struct fuzz_subject_type *types[] = {court->subjects[0]->type, court->subjects[i]->type};
	const struct fuzz_view *now = court->views[i][0];
	struct fuzz_divergence half;

	if (!now->ran_out || !fuzz_may_run_out(test) || now->reclaimable > lets_go(&test->litmus->stmts[at]))
		return false;
	court->out[i] = !fuzz_compare_half(test, at, types, at ? court->views[0][1] : NULL, court->views[0][0], now,
					   &half);
	if (!court->out[i])
		*divergence = half;
	return court->out[i];
}

/* Whether a page that has a plain reference is copied is one of the things in which fork modes differ. */
static bool has_plain_references(const struct fuzz_test *test)
{
	for (unsigned i = 0; i < test->layout.nhandles; i++)
		if (test->litmus->names[test->layout.handle[i]].kind != NAME_PIN)
			return true;
	return false;
}

/* Fork modes charge alike. The flat model charges nobody: the first engine is the reference. */
static int compare_usage(struct fuzz_court *court, const struct fuzz_test *test, size_t at,
			 struct fuzz_divergence *divergence)
{
	struct fuzz_subject_type type = {.sees = FUZZ_SEES_USAGE, .name = court->subjects[1]->type->name};

	if (has_plain_references(test))
		return 0;
	for (unsigned i = 2; i < court->nsubjects; i++) {
		struct fuzz_subject_type other = {.sees = FUZZ_SEES_USAGE, .name = court->subjects[i]->type->name};
		const struct fuzz_subject_type *types[] = {&type, &other};
		const struct fuzz_view *now[] = {court->views[1][0], court->views[i][0]};
		const struct fuzz_view *before[] = {NULL, NULL};

		if (!court->out[1] && !court->out[i] && fuzz_compare(test, at, types, before, now, divergence))
			return 1;
	}
	return 0;
}

/* Statement @at on all. Returns: 0; 1: *divergence; -errno: a subject cannot go on; -ECANCELED: it means nothing. */
static int step_all(struct fuzz_court *court, const struct fuzz_test *test, size_t at,
		    struct fuzz_divergence *divergence)
{
	swap_views(court);
	for (unsigned i = 0; i < court->nsubjects; i++) {
		struct fuzz_subject *subject = court->subjects[i];
		int error;

		if (court->out[i])
			continue;
		tell_place(court, at, i);
		error = subject->type->step(subject, at, court->views[i][0], divergence->saw[0],
					    sizeof(divergence->saw[0]));
		/* What an engine says against itself is a finding; a reference that fails judges nobody. */
		if (error)
			return trouble(divergence, subject, at, i ? 1 : error);
		if (!i && court->views[0][0]->undefined)
			return -ECANCELED;
		if (!i)
			step_shadow(court, test, at);
	}
	for (unsigned i = 1; i < court->nsubjects; i++) {
		const struct fuzz_subject_type *types[] = {court->subjects[0]->type, court->subjects[i]->type};
		const struct fuzz_view *now[] = {court->views[0][0], court->views[i][0]};
		const struct fuzz_view *before[] = {at ? court->views[0][1] : NULL, at ? court->views[i][1] : NULL};

		if (!court->out[i] && fuzz_compare(test, at, types, before, now, divergence) &&
		    !is_excused(court, test, at, i, divergence))
			return 1;
	}
	return compare_usage(court, test, at, divergence);
}

/* After @done statements. Returns: @result, or, if all went well so far, 1 for an engine that left something behind. */
static int end_all(struct fuzz_court *court, const struct fuzz_test *test, unsigned nbegun, size_t done,
		   struct fuzz_divergence *divergence, int result)
{
	char why[160];

	for (unsigned i = 0; i < nbegun; i++) {
		struct fuzz_subject *subject = court->subjects[i];
		int error;

		tell_place(court, done, i);
		error = subject->type->end(subject, why, sizeof(why));
		if (!error || result)
			continue;
		*divergence = (struct fuzz_divergence){0};
		memcpy(divergence->saw[0], why, sizeof(why));
		result = trouble(divergence, subject, test->litmus->nstmts, i ? 1 : error);
	}
	return result;
}

int fuzz_run(struct fuzz_court *court, const struct fuzz_test *test, struct fuzz_divergence *divergence)
{
	size_t done = 0;
	unsigned nbegun;
	int result;

	*divergence = (struct fuzz_divergence){0};
	memset(court->out, 0, sizeof(court->out));
	begin_shadow(court, test);
	result = begin_all(court, test, &nbegun, divergence);
	while (!result && done < test->litmus->nstmts) {
		result = step_all(court, test, done, divergence);
		done += result != -ECANCELED;
	}
	end_shadow(court);
	return end_all(court, test, nbegun, done, divergence, result == -ECANCELED ? 0 : result);
}
