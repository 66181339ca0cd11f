/* SPDX-License-Identifier: MIT */
/* Which divergences from the live kernel are known, and why. */
#include "fuzz_noise.h"

#include "fuzz_kernel.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

static const struct {
	const char *name, *reason;
} classes[] = {
#define FUZZ_NOISE_ROW(id, name, reason) [id] = {name, reason},
	FUZZ_NOISE(FUZZ_NOISE_ROW)
#undef FUZZ_NOISE_ROW
};

const char *fuzz_noise_name(int class)
{
	return classes[class].name;
}

const char *fuzz_noise_reason(int class)
{
	return classes[class].reason;
}

/* What is no release is new. */
bool fuzz_noise_is_before(const char *release, unsigned major, unsigned minor)
{
	unsigned is_major, is_minor;

	if (sscanf(release, "%u.%u", &is_major, &is_minor) != 2)
		return false;
	return is_major < major || (is_major == major && is_minor < minor);
}

/* The kernel refuses several mappings, and does nothing; the engine moves them. */
static bool is_old_move(const struct fuzz_test *test, const struct fuzz_divergence *divergence)
{
	const struct stmt *stmt = divergence->at < test->litmus->nstmts ? &test->litmus->stmts[divergence->at] : NULL;
	struct utsname name;

	return stmt && stmt->kind == STMT_MOVE && stmt->place.npages > 1 && !strcmp(divergence->what, "outcome") &&
	       !strcmp(divergence->subjects[0], "kernel") && !strcmp(divergence->saw[0], "EFAULT") &&
	       !strcmp(divergence->saw[1], "success") && !uname(&name) && fuzz_noise_is_before(name.release, 6, 17);
}

/* ---- merged pages ---- */

static bool is_about_sharing(const struct fuzz_divergence *divergence)
{
	return !strcmp(divergence->what, "exclusive") || !strcmp(divergence->what, "mapcount") ||
	       !strcmp(divergence->what, "frame") || !strcmp(divergence->what, FUZZ_COPY);
}

static bool holds(enum stmt_kind kind)
{
	return kind == STMT_PIN || kind == STMT_GET || kind == STMT_SPLICE;
}

/* Whether a merge, at or before the divergence, may have met a page that something held. */
static bool is_after_held_merge(const struct fuzz_test *test, size_t at)
{
	bool held = false, merged = false;

	for (size_t i = 0; i < test->litmus->nstmts && i <= at; i++) {
		held |= holds(test->litmus->stmts[i].kind);
		merged |= held && test->litmus->stmts[i].kind == STMT_KSM_MERGE;
	}
	return merged;
}

static bool is_at(const struct fuzz_test *test, const struct fuzz_divergence *divergence, enum stmt_kind kind)
{
	return divergence->at < test->litmus->nstmts && test->litmus->stmts[divergence->at].kind == kind;
}

/* It shows at once, in the frame, or later, in whether a store takes a fault or the kernel copies. */
static bool is_given_up(const struct fuzz_test *test, const struct fuzz_divergence *divergence)
{
	bool copied = !strcmp(divergence->what, FUZZ_COPY) && !strcmp(divergence->saw[0], FUZZ_COPIED);
	bool shows = is_at(test, divergence, STMT_KSM_MERGE) ? is_about_sharing(divergence)
							     : copied || !strcmp(divergence->what, "faults");

	return shows && is_after_held_merge(test, divergence->at);
}

static bool is_merged_move(const struct fuzz_test *test, const struct fuzz_divergence *divergence)
{
	return test->litmus->needs & NEED_KSM && is_at(test, divergence, STMT_MOVE) &&
	       (is_about_sharing(divergence) || !strcmp(divergence->what, "zero-page"));
}

static bool is_before(const struct fuzz_test *test, size_t at, enum stmt_kind kind)
{
	for (size_t i = 0; i < at && i < test->litmus->nstmts; i++)
		if (test->litmus->stmts[i].kind == kind)
			return true;
	return false;
}

/* The numbers that are told of a property called @what. */
static bool numbers(const struct fuzz_divergence *divergence, const char *what, unsigned long long n[2])
{
	size_t length = strlen(what);

	if (strcmp(divergence->what, what) != 0)
		return false;
	for (unsigned who = 0; who < 2; who++)
		if (strncmp(divergence->saw[who], what, length) != 0 ||
		    sscanf(divergence->saw[who] + length, " %llu", &n[who]) != 1)
			return false;
	return true;
}

/* A page that becomes the merged one keeps the entries of those who never asked; the engine leaves them the old page.
 */
static bool merges_more(const struct fuzz_divergence *divergence)
{
	unsigned long long n[2];

	return numbers(divergence, "mapcount", n) && n[0] > n[1];
}

static bool is_for_others(const struct fuzz_test *test, const struct fuzz_divergence *divergence)
{
	bool unmerges = is_at(test, divergence, STMT_ADVISE) &&
			test->litmus->stmts[divergence->at].advice == ADVICE_UNMERGEABLE;

	return (unmerges || is_at(test, divergence, STMT_KSM_MERGE)) && is_about_sharing(divergence) &&
	       (merges_more(divergence) || is_before(test, divergence->at, STMT_KSM_MERGE)) &&
	       is_before(test, divergence->at, STMT_FORK);
}

/* ---- migration ---- */

/* It is the kernel's frame that changed, or lacks its flag or mappings, or an access that had to wait for it. */
static bool looks_migrated(const struct fuzz_divergence *divergence)
{
	unsigned long long n[2];

	if (strcmp(divergence->subjects[0], "kernel") != 0)
		return false;
	if (!strcmp(divergence->what, FUZZ_COPY))
		return !strcmp(divergence->saw[0], FUZZ_COPIED);
	if (!strcmp(divergence->what, "exclusive"))
		return !strcmp(divergence->saw[0], "not exclusive");
	return (numbers(divergence, "mapcount", n) && n[0] < n[1]) || (numbers(divergence, "faults", n) && n[0] > n[1]);
}

static bool is_same(const struct fuzz_divergence *a, const struct fuzz_divergence *b)
{
	return a->at == b->at && a->process == b->process && a->page == b->page && !strcmp(a->what, b->what);
}

/*
 * What is a rule of the kernel's shows every time, also while the kernel moves nothing. Run it until it has been quiet
 * twice; where it never gets quiet nothing is known, and the divergence stands.
 */
static bool is_gone_when_quiet(struct fuzz_court *court, const struct fuzz_test *test,
			       const struct fuzz_divergence *divergence)
{
	struct fuzz_divergence again;
	unsigned quiet = 0;

	for (unsigned tries = 0; quiet < 2 && tries < 40; tries++) {
		int result = fuzz_run(court, test, &again);

		if (result < 0 || fuzz_kernel_migrates(court->subjects[0]))
			continue;
		if (result && is_same(&again, divergence))
			return false;
		quiet++;
	}
	return quiet == 2;
}

/* Counters first: running it again begins to count anew. */
static bool is_migration(struct fuzz_court *court, const struct fuzz_test *test,
			 const struct fuzz_divergence *divergence)
{
	return looks_migrated(divergence) && fuzz_kernel_migrates(court->subjects[0]) &&
	       is_gone_when_quiet(court, test, divergence);
}

static int merging_noise(const struct fuzz_test *test, const struct fuzz_divergence *divergence)
{
	if (strcmp(divergence->subjects[0], "kernel") != 0)
		return -1;
	if (is_merged_move(test, divergence))
		return FUZZ_NOISE_MOVED;
	if (is_given_up(test, divergence))
		return FUZZ_NOISE_GIVEN_UP;
	return is_for_others(test, divergence) ? FUZZ_NOISE_OTHERS : -1;
}

/* Several mappings, of which it refuses the one that is tracked; what precedes that has moved. */
static bool is_tracked_move(const struct fuzz_test *test, const struct fuzz_divergence *divergence)
{
	const struct stmt *stmt = divergence->at < test->litmus->nstmts ? &test->litmus->stmts[divergence->at] : NULL;

	return stmt && stmt->kind == STMT_MOVE && stmt->place.npages > 1 && test->litmus->needs & NEED_UFFD &&
	       !strcmp(divergence->what, "outcome") && !strcmp(divergence->subjects[0], "kernel") &&
	       !strcmp(divergence->saw[0], "EFAULT") && !strcmp(divergence->saw[1], "success");
}

/* A program that comes to more than that after it is not compared on; see fuzz_noise.h. */
static bool is_part_of_pin(const struct fuzz_test *test, const struct fuzz_divergence *divergence)
{
	const struct stmt *stmt = divergence->at < test->litmus->nstmts ? &test->litmus->stmts[divergence->at] : NULL;

	return stmt && stmt->kind == STMT_PIN && stmt->place.npages > 1 && test->litmus->needs & NEED_UFFD &&
	       !strcmp(divergence->what, "outcome") && !strcmp(divergence->subjects[0], "kernel") &&
	       !strcmp(divergence->saw[0], "EFAULT") && !strcmp(divergence->saw[1], "success");
}

/* The kernel finds less, and all that it has not found are pages that are not there. */
static bool is_scan_of_nothing(const struct fuzz_court *court, const struct fuzz_test *test,
			       const struct fuzz_divergence *divergence)
{
	const struct fuzz_view *kernel, *engine;
	const struct stmt *stmt;
	unsigned first = 0, process = 0;
	uint64_t missing;

	if (strcmp(divergence->what, "scan") != 0 || strcmp(divergence->subjects[0], "kernel") != 0)
		return false;
	kernel = court->views[0][0];
	engine = court->views[1][0];
	stmt = &test->litmus->stmts[divergence->at];
	while (test->layout.page[first].region != stmt->place.region)
		first++;
	while (test->layout.process[process] != stmt->proc)
		process++;
	missing = engine->found & ~kernel->found;
	for (uint64_t i = 0; i < stmt->place.npages; i++)
		if (missing >> i & 1 && kernel->pages[process][first + stmt->place.first + i].present)
			return false;
	return !(kernel->found & ~engine->found);
}

int fuzz_noise(struct fuzz_court *court, const struct fuzz_test *test, const struct fuzz_divergence *divergence)
{
	int class = merging_noise(test, divergence);

	if (class >= 0)
		return class;
	if (is_scan_of_nothing(court, test, divergence))
		return FUZZ_NOISE_SCAN;
	if (is_tracked_move(test, divergence))
		return FUZZ_NOISE_TRACKED;
	if (is_part_of_pin(test, divergence))
		return FUZZ_NOISE_PART;
	if (is_old_move(test, divergence))
		return FUZZ_NOISE_MOVE;
	return is_migration(court, test, divergence) ? FUZZ_NOISE_MIGRATION : -1;
}
