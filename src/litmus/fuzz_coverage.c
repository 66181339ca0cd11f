/* SPDX-License-Identifier: MIT */
/* Pairs of statements on a page, counted from the litmus test that runs. */
#include "fuzz_coverage.h"

#include <string.h>

#define NOTHING FUZZ_OP_KINDS

/* ---- kinds ---- */

/* An operation is called as its statement is; of two kinds of one name the first is meant. */
static unsigned find_kind(const struct stmt *stmt)
{
	const char *name = litmus_stmt_name(stmt->kind);

	if (stmt->kind == STMT_ADVISE && (stmt->advice == ADVICE_PAGEOUT || stmt->advice == ADVICE_COLD))
		return FUZZ_OP_PAGEOUT;
	if (stmt->kind == STMT_ADVISE && (stmt->advice == ADVICE_MERGEABLE || stmt->advice == ADVICE_UNMERGEABLE))
		return FUZZ_OP_MERGEABLE;
	if (stmt->kind == STMT_FORK && stmt->cgroup >= 0)
		return FUZZ_OP_FORK_INTO;
	if (stmt->kind == STMT_UFFD_PROTECT || stmt->kind == STMT_UFFD_UNPROTECT)
		return stmt->kind == STMT_UFFD_PROTECT ? FUZZ_OP_WP : FUZZ_OP_UNWP;
	for (unsigned op = 0; op < FUZZ_OP_KINDS; op++)
		if (!strcmp(fuzz_op_name((enum fuzz_op_kind)op), name))
			return op;
	return NOTHING;
}

/* Only those that hold a handle can be the first use of it, and they come after the map. */
static bool needs_handle(enum fuzz_op_kind kind)
{
	return kind == FUZZ_OP_UNPIN || kind == FUZZ_OP_PUT || kind == FUZZ_OP_DEVICE_WRITE ||
	       kind == FUZZ_OP_UFFD_CLOSE;
}

#define ALONE (FUZZ_P_FILES | FUZZ_P_TRACKING)

/* Kernel programs with swap let no device write, and are about nothing else. */
static bool exclude_each_other(enum fuzz_op_kind a, enum fuzz_op_kind b)
{
	return (a == FUZZ_OP_DEVICE_WRITE || fuzz_op_pressure(a) & ALONE) && fuzz_op_pressure(b) == FUZZ_P_SWAP;
}

/* What has mapped files or is tracked has no merging, no groups, and no transfers past the cache. */
static bool are_apart(enum fuzz_op_kind a, enum fuzz_op_kind b)
{
	if (fuzz_op_pressure(a) == FUZZ_P_FILES && (b == FUZZ_OP_DIRECT_IN || b == FUZZ_OP_DIRECT_OUT))
		return true;
	return fuzz_op_pressure(a) & ALONE && fuzz_op_pressure(b) & (FUZZ_P_MERGING | FUZZ_P_GROUPS);
}

static bool is_on_no_page(enum fuzz_op_kind kind)
{
	return kind == FUZZ_OP_FILE || kind == FUZZ_OP_CGROUP;
}

bool fuzz_pair_possible(enum fuzz_op_kind first, enum fuzz_op_kind second, enum fuzz_against against, unsigned pressure)
{
	if (!fuzz_op_possible(first, against, pressure) || !fuzz_op_possible(second, against, pressure))
		return false;
	if (is_on_no_page(first) || is_on_no_page(second))
		return false;
	if (against == FUZZ_AGAINST_KERNEL && (exclude_each_other(first, second) || exclude_each_other(second, first)))
		return false;
	if (are_apart(first, second) || are_apart(second, first))
		return false;
	if (second == FUZZ_OP_MAP) /* its pages are new */
		return false;
	return first != FUZZ_OP_MAP || !needs_handle(second);
}

/* ---- pages ---- */

struct tracker {
	struct fuzz_pairs *pairs;
	const struct fuzz_test *test;
	uint8_t last[FUZZ_PAGES];   /* kind of statement, or NOTHING */
	uint16_t owned[FUZZ_PAGES]; /* bits of processes */
};

static unsigned process_of(const struct tracker *t, int name)
{
	for (unsigned i = 0; i < t->test->layout.nprocesses; i++)
		if (t->test->layout.process[i] == name)
			return i;
	return FUZZ_PROCESSES; /* a bit that nobody has */
}

static void touch(struct tracker *t, unsigned page, unsigned kind)
{
	if (t->last[page] != NOTHING)
		t->pairs->met[t->last[page]][kind]++;
	t->last[page] = (uint8_t)kind;
}

static void touch_range(struct tracker *t, int region, uint64_t first, uint64_t npages, unsigned kind)
{
	for (unsigned i = 0; i < t->test->layout.npages; i++)
		if (t->test->layout.page[i].region == region && t->test->layout.page[i].page >= first &&
		    t->test->layout.page[i].page - first < npages)
			touch(t, i, kind);
}

static void own_region(struct tracker *t, int region, unsigned process)
{
	for (unsigned i = 0; i < t->test->layout.npages; i++)
		if (t->test->layout.page[i].region == region)
			t->owned[i] |= (uint16_t)(1u << process);
}

/* reclaim, swapoff, ksm merge: whatever somebody has mapped. */
static void touch_machine(struct tracker *t, unsigned kind)
{
	for (unsigned i = 0; i < t->test->layout.npages; i++)
		if (t->owned[i])
			touch(t, i, kind);
}

/* Statements on a file are on every page that maps it. */
static void touch_file(struct tracker *t, int file, unsigned kind)
{
	const struct litmus *litmus = t->test->litmus;

	for (size_t i = 0; i < litmus->nstmts; i++)
		if (litmus->stmts[i].kind == STMT_MAP && litmus->stmts[i].file == file)
			for (unsigned page = 0; page < t->test->layout.npages; page++)
				if (t->owned[page] && t->test->layout.page[page].region == litmus->stmts[i].name)
					touch(t, page, kind);
}

/* fork, snapshot, exit, join */
static void touch_process(struct tracker *t, const struct stmt *stmt, unsigned kind)
{
	uint16_t bit = (uint16_t)(1u << process_of(t, stmt->proc));
	uint16_t child = stmt->kind == STMT_JOIN || stmt->name < 0 ? 0 : (uint16_t)(1u << process_of(t, stmt->name));

	for (unsigned i = 0; i < t->test->layout.npages; i++) {
		if (!(t->owned[i] & bit))
			continue;
		touch(t, i, kind);
		if (stmt->kind == STMT_EXIT)
			t->owned[i] &= (uint16_t)~bit;
		else
			t->owned[i] |= child;
	}
}

static void count_stmt(struct tracker *t, const struct stmt *stmt)
{
	const struct name *name = stmt->name < 0 ? NULL : &t->test->litmus->names[stmt->name];
	unsigned kind = find_kind(stmt);

	if (kind == NOTHING)
		return;
	if (stmt->kind == STMT_FORK || stmt->kind == STMT_SNAPSHOT || stmt->kind == STMT_EXIT ||
	    stmt->kind == STMT_JOIN) {
		touch_process(t, stmt, kind);
		return;
	}
	if (stmt->kind == STMT_CLEAR_SOFT_DIRTY) {
		touch_process(t, stmt, kind);
		return;
	}
	if (stmt->file >= 0 && stmt->kind != STMT_MAP && stmt->place.region < 0)
		touch_file(t, stmt->file, kind);
	if (stmt->kind == STMT_RECLAIM || stmt->kind == STMT_SWAPOFF || stmt->kind == STMT_KSM_MERGE)
		touch_machine(t, kind);
	if (stmt->place.region >= 0)
		touch_range(t, stmt->place.region, stmt->place.first, stmt->place.npages, kind);
	if (stmt->handle >= 0) {
		const struct name *handle = &t->test->litmus->names[stmt->handle];

		touch_range(t, handle->region, handle->first, handle->nhandle, kind);
	}
	if (name && name->kind == NAME_REGION) {
		own_region(t, stmt->name, process_of(t, stmt->proc));
		touch_range(t, stmt->name, 0, name->npages, kind);
	}
}

/* ---- */

void fuzz_pairs_count(struct fuzz_pairs *pairs, const struct fuzz_test *test)
{
	struct tracker t = {.pairs = pairs, .test = test};

	memset(t.last, NOTHING, sizeof(t.last));
	for (size_t i = 0; i < test->litmus->nstmts; i++)
		count_stmt(&t, &test->litmus->stmts[i]);
}

void fuzz_pairs_add(struct fuzz_pairs *sum, const struct fuzz_pairs *more)
{
	for (unsigned first = 0; first < FUZZ_OP_KINDS; first++)
		for (unsigned second = 0; second < FUZZ_OP_KINDS; second++)
			sum->met[first][second] += more->met[first][second];
}

void fuzz_pairs_coverage(const struct fuzz_pairs *pairs, enum fuzz_against against, unsigned pressure,
			 struct fuzz_coverage *coverage)
{
	*coverage = (struct fuzz_coverage){0};
	for (unsigned i = 0; i < FUZZ_OP_KINDS * FUZZ_OP_KINDS; i++) {
		unsigned first = i / FUZZ_OP_KINDS, second = i % FUZZ_OP_KINDS;
		uint64_t met = pairs->met[first][second];

		if (!fuzz_pair_possible((enum fuzz_op_kind)first, (enum fuzz_op_kind)second, against, pressure))
			continue;
		coverage->possible++;
		coverage->met += met != 0;
		if (met && (!coverage->rarest || met < coverage->rarest))
			coverage->rarest = met;
	}
}
