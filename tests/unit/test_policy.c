/* SPDX-License-Identifier: MIT */
/*
 * The decision tables of semantics.md B.1 and B.3 to B.6, row by row, for all eight policies: facts in, action out, no
 * memory. Every row says what a wrong answer would mean.
 */
#include "fault/policy.h"
#include "tap.h"

#include <ucow/gup.h>

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

/* Policies that judge write-protect faults alike share a column. */
enum column { COL_MAPCOUNT, COL_REFCOUNT, COL_REUSE_PINNED, COL_EXCLUSIVE, COLUMNS };

static const enum column column_of[UCOW_POLICY_COUNT] = {
	[UCOW_POLICY_EXCLUSIVE] = COL_EXCLUSIVE,       [UCOW_POLICY_MAPCOUNT] = COL_MAPCOUNT,
	[UCOW_POLICY_FORCE_COW] = COL_MAPCOUNT,        [UCOW_POLICY_REFCOUNT] = COL_REFCOUNT,
	[UCOW_POLICY_REFCOUNT_PIN] = COL_REFCOUNT,     [UCOW_POLICY_PIN_BREAKS_COW] = COL_REFCOUNT,
	[UCOW_POLICY_REUSE_PINNED] = COL_REUSE_PINNED, [UCOW_POLICY_DONTCOPY_PINNED] = COL_REFCOUNT,
};

static const char *const action_names[] = {
	[COW_NOTHING] = "nothing",
	[COW_REUSE] = "reuse",
	[COW_REUSE_SET] = "set the flag and reuse",
	[COW_UNSHARE_SET] = "set the flag",
	[COW_COPY] = "copy",
	[COW_NEED_LOCK] = "need the lock",
	[COW_DRAIN] = "drain",
	[COW_DROP_SWAPCACHE] = "drop the swap cache",
};

/* ---- write-protect faults, B.3 ---- */

/* What the caller can do when a decision asks for it. */
struct world_facts {
	bool lock_is_held_elsewhere;
	bool batch_holds_a_reference;  /* draining the LRU batch drops one reference */
	bool swapcache_can_be_dropped; /* doing so drops one reference */
};

/* An ordinary anon page with so many references, of which mappings; in a per-cpu batch; of this space alone. */
#define USED(refs, maps)    .anon = true, .on_lru = true, .refcount = (refs), .mapcount = (maps)
#define BATCHED(refs, maps) .anon = true, .refcount = (refs), .mapcount = (maps)
#define SOLE                USED(1, 1)
#define PIN                 UCOW_GUP_PIN_COUNTING_BIAS

struct wp_row {
	const char *page;
	struct cow_facts facts;
	struct world_facts world;
	enum cow_action settled[COLUMNS]; /* after every request was served */
	const char *catches;
};

static const struct wp_row wp_rows[] = {
	{"zero page",
	 {.no_page = true},
	 {0},
	 {COW_COPY, COW_COPY, COW_COPY, COW_COPY},
	 "everybody's zeros are written to"},
	{"memory without a page",
	 {.no_page = true, .refcount = 1, .mapcount = 1},
	 {0},
	 {COW_COPY, COW_COPY, COW_COPY, COW_COPY},
	 "a private mapping writes to the device"},
	{"file page, one mapping",
	 {.refcount = 1, .mapcount = 1, .on_lru = true},
	 {0},
	 {COW_COPY, COW_COPY, COW_COPY, COW_COPY},
	 "a private mapping changes the file"},
	{"file page that looks exclusive",
	 {.refcount = 1, .mapcount = 1, .on_lru = true, .exclusive = true},
	 {0},
	 {COW_COPY, COW_COPY, COW_COPY, COW_COPY},
	 "the flag of a page that is not anon is believed"},
	{"anon, exclusive",
	 {SOLE, .exclusive = true},
	 {0},
	 {COW_REUSE, COW_REUSE, COW_REUSE, COW_REUSE},
	 "an unnecessary copy, slow for everybody"},
	{"anon, exclusive, one get",
	 {USED(2, 1), .exclusive = true},
	 {0},
	 {COW_REUSE, COW_COPY, COW_COPY, COW_REUSE},
	 "today: a copy because a plain reference exists"},
	{"anon, exclusive, pinned",
	 {USED(1 + PIN, 1), .exclusive = true, .maybe_pinned = true},
	 {0},
	 {COW_REUSE, COW_COPY, COW_REUSE, COW_REUSE},
	 "a write-protected pinned page is replaced: lost DMA"},
	{"anon, exclusive, locked by a scanner",
	 {SOLE, .exclusive = true},
	 {.lock_is_held_elsewhere = true},
	 {COW_NEED_LOCK, COW_COPY, COW_COPY, COW_REUSE},
	 "today: a page lock decides about an exclusive page"},
	{"anon, exclusive, pinned, locked",
	 {USED(1 + PIN, 1), .exclusive = true, .maybe_pinned = true},
	 {.lock_is_held_elsewhere = true},
	 {COW_NEED_LOCK, COW_COPY, COW_REUSE, COW_REUSE},
	 "a scanner's lock makes a pinned page be replaced"},
	{"anon, exclusive, in the swap cache",
	 {USED(2, 1), .exclusive = true, .swapcache = true},
	 {0},
	 {COW_REUSE, COW_COPY, COW_COPY, COW_REUSE},
	 "today: the swap cache's reference costs a copy"},
	{"anon, shared once, sole user now",
	 {SOLE},
	 {0},
	 {COW_REUSE, COW_REUSE, COW_REUSE, COW_REUSE_SET},
	 "after fork and exit of the child every page is copied for nothing"},
	{"anon, mapped twice",
	 {USED(2, 2)},
	 {0},
	 {COW_COPY, COW_COPY, COW_COPY, COW_COPY},
	 "the child sees the parent's write"},
	{"anon, mapped twice, pinned",
	 {USED(2 + PIN, 2), .maybe_pinned = true},
	 {0},
	 {COW_COPY, COW_COPY, COW_COPY, COW_COPY},
	 "the child sees the parent's write because of a pin"},
	{"anon, shared, one get left",
	 {USED(2, 1)},
	 {0},
	 {COW_REUSE, COW_COPY, COW_COPY, COW_COPY},
	 "the pipe of a child that has gone shows the parent's later secret (CVE-2020-29374)"},
	{"anon, shared, maybe pinned",
	 {USED(1 + PIN, 1), .maybe_pinned = true},
	 {0},
	 {COW_REUSE, COW_COPY, COW_REUSE, COW_COPY},
	 "a read reference of a stranger is written under"},
	{"anon, shared, locked by a scanner",
	 {SOLE},
	 {.lock_is_held_elsewhere = true},
	 {COW_NEED_LOCK, COW_COPY, COW_COPY, COW_COPY},
	 "a fault waits for a page lock, or takes a page that is locked"},
	{"anon, shared, a batch holds it",
	 {BATCHED(2, 1)},
	 {.batch_holds_a_reference = true},
	 {COW_REUSE, COW_COPY, COW_COPY, COW_REUSE_SET},
	 "a page that this cpu itself filled is copied"},
	{"anon, shared, not in a batch after all",
	 {BATCHED(2, 1)},
	 {0},
	 {COW_REUSE, COW_COPY, COW_COPY, COW_COPY},
	 "draining is taken for success"},
	{"anon, shared, two references of the cache kind",
	 {USED(2, 1), .swapcache = true},
	 {.swapcache_can_be_dropped = true},
	 {COW_REUSE, COW_COPY, COW_COPY, COW_REUSE_SET},
	 "a page in the swap cache is always copied (as it was until 5.17)"},
	{"anon, shared, swap cache stays",
	 {USED(2, 1), .swapcache = true, .swapcount = 0},
	 {0},
	 {COW_REUSE, COW_COPY, COW_COPY, COW_COPY},
	 "a page is taken over while its swap slot has other users"},
	{"anon, other users of the swap slot",
	 {USED(2, 1), .swapcache = true, .swapcount = 1},
	 {0},
	 {COW_COPY, COW_COPY, COW_COPY, COW_COPY},
	 "whoever swaps the slot in later sees the write"},
	{"anon, swap cache and a get",
	 {USED(3, 1), .swapcache = true},
	 {.swapcache_can_be_dropped = true},
	 {COW_REUSE, COW_COPY, COW_COPY, COW_COPY},
	 "the swap cache hides one stranger's reference"},
	{"anon, under stable writeback",
	 {USED(2, 1), .swapcache = true, .writeback = true},
	 {.swapcache_can_be_dropped = false},
	 {COW_COPY, COW_COPY, COW_COPY, COW_COPY},
	 "bytes change while the device reads them"},
	{"anon, four references",
	 {USED(4, 1)},
	 {0},
	 {COW_REUSE, COW_COPY, COW_COPY, COW_COPY},
	 "the early refusal lost"},
	{"ksm, sole",
	 {SOLE, .ksm = true},
	 {0},
	 {COW_REUSE, COW_COPY, COW_COPY, COW_COPY},
	 "a merged page is written to"},
	{"ksm, sole but referenced",
	 {USED(2, 1), .ksm = true},
	 {0},
	 {COW_COPY, COW_COPY, COW_COPY, COW_COPY},
	 "a merged page with a stranger's reference is written to"},
	{"ksm, in the swap cache",
	 {SOLE, .ksm = true, .swapcache = true},
	 {0},
	 {COW_COPY, COW_COPY, COW_COPY, COW_COPY},
	 "a merged page is taken out of the swap cache"},
	{"ksm, mapped twice",
	 {USED(2, 2), .ksm = true},
	 {0},
	 {COW_COPY, COW_COPY, COW_COPY, COW_COPY},
	 "one space's write appears in another that had equal bytes"},
};

/* Does what an action asks for; false when it is an answer, or asks for something twice. */
static bool serve(struct cow_facts *f, const struct world_facts *world, enum lock_mode mode, enum cow_action action)
{
	if (action == COW_NEED_LOCK && f->lock == LOCK_NOT_TRIED) {
		if (world->lock_is_held_elsewhere && mode == LOCK_MODE_BLOCK)
			return false; /* waits */
		f->lock = world->lock_is_held_elsewhere ? LOCK_REFUSED : LOCK_HELD;
		return true;
	}
	if (action == COW_DRAIN && !f->drained) {
		f->drained = true;
		f->refcount -= world->batch_holds_a_reference;
		return true;
	}
	if (action == COW_DROP_SWAPCACHE && !f->drop_tried) {
		f->drop_tried = true;
		if (world->swapcache_can_be_dropped) {
			f->swapcache = false;
			f->refcount--;
		}
		return true;
	}
	return false;
}

static enum cow_action settle(const struct cow_policy *policy, struct cow_facts facts, const struct world_facts *world)
{
	enum cow_action action;

	do
		action = policy->write_protect(&facts);
	while (serve(&facts, world, policy->lock_mode, action));
	return action;
}

static bool wp_row_holds(const struct wp_row *row, const struct cow_policy *policy)
{
	enum cow_action action = settle(policy, row->facts, &row->world), wanted = row->settled[column_of[policy->id]];

	if (action == wanted)
		return true;
	printf("# %s, %s: %s, not %s; catches: %s\n", policy->name, row->page, action_names[action],
	       action_names[wanted], row->catches);
	return false;
}

static void check_wp_rows(enum ucow_policy policy)
{
	for (size_t i = 0; i < ROWS(wp_rows); i++)
		CHECK(wp_row_holds(&wp_rows[i], cow_policy_of(policy)));
}

TEST(write_fault_table_mapcount)
{
	check_wp_rows(UCOW_POLICY_MAPCOUNT);
}

TEST(write_fault_table_force_cow)
{
	check_wp_rows(UCOW_POLICY_FORCE_COW);
}

TEST(write_fault_table_refcount)
{
	check_wp_rows(UCOW_POLICY_REFCOUNT);
}

TEST(write_fault_table_refcount_pin)
{
	check_wp_rows(UCOW_POLICY_REFCOUNT_PIN);
}

TEST(write_fault_table_pin_breaks_cow)
{
	check_wp_rows(UCOW_POLICY_PIN_BREAKS_COW);
}

TEST(write_fault_table_reuse_pinned)
{
	check_wp_rows(UCOW_POLICY_REUSE_PINNED);
}

TEST(write_fault_table_dontcopy_pinned)
{
	check_wp_rows(UCOW_POLICY_DONTCOPY_PINNED);
}

TEST(write_fault_table_exclusive)
{
	check_wp_rows(UCOW_POLICY_EXCLUSIVE);
}

/* The unshare column of policy exclusive; the other policies know no unshare faults. */
static const struct wp_row unshare_rows[] = {
	{"anon, exclusive",
	 {SOLE, .exclusive = true},
	 {0},
	 {[COL_EXCLUSIVE] = COW_NOTHING},
	 "an exclusive page is copied or made writable by a read pin"},
	{"anon, exclusive, pinned",
	 {USED(1 + PIN, 1), .exclusive = true},
	 {0},
	 {[COL_EXCLUSIVE] = COW_NOTHING},
	 "a second pin takes the page from under the first"},
	{"anon, sole user now",
	 {SOLE},
	 {0},
	 {[COL_EXCLUSIVE] = COW_UNSHARE_SET},
	 "the entry becomes writable behind soft-dirty and userfaultfd"},
	{"anon, mapped twice",
	 {USED(2, 2)},
	 {0},
	 {[COL_EXCLUSIVE] = COW_COPY},
	 "a read pin of a shared page goes stale at the next write"},
	{"anon, one get left",
	 {USED(2, 1)},
	 {0},
	 {[COL_EXCLUSIVE] = COW_COPY},
	 "a page that a stranger holds becomes exclusive"},
	{"anon, locked by a scanner",
	 {SOLE},
	 {.lock_is_held_elsewhere = true},
	 {[COL_EXCLUSIVE] = COW_COPY},
	 "an unshare fault waits for a page lock"},
	{"ksm", {SOLE, .ksm = true}, {0}, {[COL_EXCLUSIVE] = COW_COPY}, "a merged page is pinned"},
	{"zero page",
	 {.no_page = true},
	 {0},
	 {[COL_EXCLUSIVE] = COW_COPY},
	 "a long-term pin of the zero page never sees a write"},
	{"file page",
	 {.refcount = 1, .mapcount = 1},
	 {0},
	 {[COL_EXCLUSIVE] = COW_COPY},
	 "a long-term pin of a private file mapping never sees a write"},
};

TEST(unshare_fault_table_exclusive)
{
	for (size_t i = 0; i < ROWS(unshare_rows); i++) {
		struct wp_row row = unshare_rows[i];

		row.facts.unshare = true;
		CHECK(wp_row_holds(&row, cow_policy_of(UCOW_POLICY_EXCLUSIVE)));
	}
}

/* Would catch an order of tests in which a lock is taken, or a batch drained, for a page that is copied anyhow. */
TEST(exclusive_asks_for_nothing_that_cannot_help)
{
	const struct cow_policy *policy = cow_policy_of(UCOW_POLICY_EXCLUSIVE);
	struct cow_facts f = {BATCHED(4, 1)};

	CHECK_EQ(policy->write_protect(&f), COW_COPY);
	f.refcount = 3;
	CHECK_EQ(policy->write_protect(&f), COW_DRAIN);
	f.drained = true;
	CHECK_EQ(policy->write_protect(&f), COW_COPY);
	f.refcount = 2;
	CHECK_EQ(policy->write_protect(&f), COW_COPY);
	f.refcount = 1;
	CHECK_EQ(policy->write_protect(&f), COW_NEED_LOCK);
	f.lock = LOCK_HELD;
	CHECK_EQ(policy->write_protect(&f), COW_REUSE_SET);
	f.swapcache = true;
	f.refcount = 2;
	CHECK_EQ(policy->write_protect(&f), COW_DROP_SWAPCACHE);
	f.drop_tried = true;
	CHECK_EQ(policy->write_protect(&f), COW_COPY);
}

/* Would catch a policy that asks for ever: a fault that never ends. Over all combinations of facts. */
TEST(no_decision_asks_twice)
{
	for (int id = 0; id < UCOW_POLICY_COUNT; id++)
		for (unsigned bits = 0; bits < 1u << 15; bits++) {
			const struct cow_policy *policy = cow_policy_of(id);
			struct world_facts world = {bits >> 9 & 1, bits >> 10 & 1, bits >> 11 & 1};
			struct cow_facts f = {
				.anon = bits & 1,
				.exclusive = bits >> 1 & 1,
				.ksm = bits >> 2 & 1,
				.swapcache = bits >> 3 & 1,
				.writeback = bits >> 4 & 1,
				.on_lru = bits >> 5 & 1,
				.unshare = id == UCOW_POLICY_EXCLUSIVE && (bits >> 6 & 1),
				.no_page = bits >> 7 & 1,
				.maybe_pinned = bits >> 8 & 1,
				.refcount = 2 + (bits >> 12 & 3),
				.mapcount = 1 + (bits >> 14 & 1),
			};
			enum cow_action action = settle(policy, f, &world);

			if (action == COW_NEED_LOCK)
				CHECK(policy->lock_mode == LOCK_MODE_BLOCK && world.lock_is_held_elsewhere);
			else
				CHECK(action != COW_DRAIN && action != COW_DROP_SWAPCACHE);
			if (f.unshare)
				CHECK(action != COW_REUSE && action != COW_REUSE_SET);
			else
				CHECK(action != COW_NOTHING && action != COW_UNSHARE_SET);
		}
}

/* Would catch rule 19 broken, or the history of the page lock lost. */
TEST(only_the_mapcount_policies_wait_for_page_locks)
{
	for (int id = 0; id < UCOW_POLICY_COUNT; id++)
		CHECK_EQ(cow_policy_of(id)->lock_mode, column_of[id] == COL_MAPCOUNT ? LOCK_MODE_BLOCK : LOCK_MODE_TRY);
}

/* The counter that a copy belongs to: exactly one, and the cause that a person would name. */
TEST(copies_are_put_down_to_their_cause)
{
	static const struct {
		struct cow_facts facts;
		enum cow_cause cause;
		const char *catches;
	} rows[] = {
		{{.no_page = true}, CAUSE_ZERO_PAGE, "zero page counted as file"},
		{{.refcount = 1, .mapcount = 1}, CAUSE_FILE, "file page counted as shared"},
		{{USED(2, 2), .ksm = true}, CAUSE_KSM, "merged page counted as shared by fork"},
		{{USED(2, 2)}, CAUSE_SHARED, "the ordinary copy counted as something else"},
		{{USED(3, 2), .lock = LOCK_REFUSED}, CAUSE_SHARED, "mapped twice, blamed on a lock"},
		{{USED(2, 1), .lock = LOCK_HELD}, CAUSE_REFERENCED, "a stranger's reference not named"},
		{{SOLE, .lock = LOCK_REFUSED}, CAUSE_LOCKED, "a scanner's lock not named"},
	};

	for (size_t i = 0; i < ROWS(rows); i++) {
		if (cow_copy_cause(&rows[i].facts) != rows[i].cause)
			printf("# catches: %s\n", rows[i].catches);
		CHECK_EQ(cow_copy_cause(&rows[i].facts), rows[i].cause);
	}
}

/* ---- fork, B.4 ---- */

static enum fork_action fork_wanted(enum ucow_policy policy, const struct fork_facts *f)
{
	bool pin = f->has_pinned && f->maybe_pinned && f->cow_mapping;

	if (policy == UCOW_POLICY_EXCLUSIVE)
		return pin && f->exclusive ? FORK_COPY : FORK_SHARE;
	if (policy == UCOW_POLICY_REFCOUNT_PIN)
		return pin ? FORK_COPY : FORK_SHARE;
	if (policy == UCOW_POLICY_DONTCOPY_PINNED)
		return pin ? FORK_SKIP : FORK_SHARE;
	return FORK_SHARE;
}

struct fork_row {
	struct fork_facts facts;
	enum fork_action exclusive, refcount_pin, dontcopy;
	const char *catches;
};

/* The rows of B.4 "present entry, anon", spelled out; the sweep below covers the rest and the other policies. */
static const struct fork_row fork_rows[] = {
	{{false, false, false, true}, FORK_SHARE, FORK_SHARE, FORK_SHARE, "an ordinary shared page copied at fork"},
	{{false, false, true, true}, FORK_SHARE, FORK_SHARE, FORK_SHARE, "an ordinary page copied at fork"},
	{{true, false, true, true}, FORK_SHARE, FORK_SHARE, FORK_SHARE, "a space that pinned once copies everything"},
	{{false, true, true, true},
	 FORK_SHARE,
	 FORK_SHARE,
	 FORK_SHARE,
	 "a page with many references counts as pinned in a space that never pinned"},
	{{true, true, false, true},
	 FORK_SHARE,
	 FORK_COPY,
	 FORK_SKIP,
	 "a false positive, or a pin taken through another space, costs a copy"},
	{{true, true, true, true}, FORK_COPY, FORK_COPY, FORK_SKIP, "the parent's next write leaves the pin behind"},
	{{true, true, true, false}, FORK_SHARE, FORK_SHARE, FORK_SHARE, "a shared mapping stops being shared"},
};

static void check_fork_row(const struct fork_row *row)
{
	const struct {
		enum ucow_policy policy;
		enum fork_action wanted;
	} columns[] = {
		{UCOW_POLICY_EXCLUSIVE, row->exclusive},
		{UCOW_POLICY_REFCOUNT_PIN, row->refcount_pin},
		{UCOW_POLICY_DONTCOPY_PINNED, row->dontcopy},
	};

	for (size_t i = 0; i < ROWS(columns); i++) {
		enum fork_action action = cow_policy_of(columns[i].policy)->fork_entry(&row->facts);

		if (action != columns[i].wanted)
			printf("# %s; catches: %s\n", ucow_policy_name(columns[i].policy), row->catches);
		CHECK_EQ(action, columns[i].wanted);
	}
}

TEST(fork_table)
{
	for (size_t i = 0; i < ROWS(fork_rows); i++)
		check_fork_row(&fork_rows[i]);
}

TEST(fork_decisions_over_all_facts_and_policies)
{
	for (int id = 0; id < UCOW_POLICY_COUNT; id++)
		for (unsigned bits = 0; bits < 16; bits++) {
			struct fork_facts f = {bits & 1, bits >> 1 & 1, bits >> 2 & 1, bits >> 3 & 1};

			CHECK_EQ(cow_policy_of(id)->fork_entry(&f), fork_wanted(id, &f));
		}
}

/* ---- get_user_pages, B.5 ---- */

struct gup_row {
	const char *entry;
	struct gup_facts facts;
	enum gup_action wanted;
	const char *catches;
};

#define ANON_COW .anon = true, .cow_mapping = true, .vma_writable = true

/* gup_must_unshare, consulted only when the entry is not writable. */
static const struct gup_row must_unshare_rows[] = {
	{"read get, shared page",
	 {ANON_COW},
	 GUP_TAKE,
	 "a plain reference unshares: process_vm and vmsplice slow down"},
	{"read pin, writable entry",
	 {ANON_COW, .pin = true, .entry_writable = true, .exclusive = true},
	 GUP_TAKE,
	 "a fault for nothing"},
	{"read pin, exclusive page",
	 {ANON_COW, .pin = true, .exclusive = true},
	 GUP_TAKE,
	 "an exclusive page is unshared on every pin"},
	{"read pin, shared page",
	 {ANON_COW, .pin = true},
	 GUP_FAULT_UNSHARE,
	 "a read pin of a shared page goes stale at the next write"},
	{"long-term read pin, shared page", {ANON_COW, .pin = true, .longterm = true}, GUP_FAULT_UNSHARE, "likewise"},
	{"read pin of a shared page in a read-only mapping",
	 {.anon = true, .cow_mapping = true, .pin = true},
	 GUP_FAULT_UNSHARE,
	 "mprotect after the pin leaves it behind"},
	{"short read pin of the zero page",
	 {.cow_mapping = true, .pin = true},
	 GUP_TAKE,
	 "O_DIRECT writes of untouched memory allocate"},
	{"long-term read pin of the zero page",
	 {.cow_mapping = true, .pin = true, .longterm = true},
	 GUP_FAULT_UNSHARE,
	 "a registered buffer of untouched memory never sees a write"},
	{"long-term read pin of a shared mapping",
	 {.pin = true, .longterm = true},
	 GUP_TAKE,
	 "a shared page is unshared: no longer shared"},
	{"write pin, read-only entry",
	 {ANON_COW, .pin = true, .write = true},
	 GUP_FAULT_WRITE,
	 "a write pin takes a page that others map"},
	{"write pin, exclusive page, read-only entry",
	 {ANON_COW, .pin = true, .write = true, .exclusive = true},
	 GUP_FAULT_WRITE,
	 "the entry stays clean under a device that writes"},
	{"write get, shared page",
	 {ANON_COW, .write = true},
	 GUP_FAULT_WRITE,
	 "ptrace writes into the child's sibling"},
};

/* can_follow_write_pte: when a read-only entry may be written through. */
static const struct gup_row follow_write_rows[] = {
	{"writable entry",
	 {ANON_COW, .write = true, .entry_writable = true, .exclusive = true},
	 GUP_TAKE,
	 "a fault for nothing"},
	{"forced, exclusive, mapping read-only",
	 {.write = true, .force = true, .anon = true, .cow_mapping = true, .exclusive = true},
	 GUP_TAKE,
	 "a debugger cannot set a breakpoint: the call never ends"},
	{"not forced, exclusive, mapping read-only",
	 {.write = true, .anon = true, .cow_mapping = true, .exclusive = true},
	 GUP_FAULT_WRITE,
	 "read-only memory is written without FORCE"},
	{"forced, shared page",
	 {.write = true, .force = true, .anon = true, .cow_mapping = true},
	 GUP_FAULT_WRITE,
	 "a breakpoint appears in every process (Dirty COW's shape)"},
	{"forced, exclusive, but the mapping is writable",
	 {ANON_COW, .write = true, .force = true, .exclusive = true},
	 GUP_FAULT_WRITE,
	 "FORCE skips a write fault that would have marked the page"},
	{"forced, dirty but not exclusive",
	 {.write = true, .force = true, .anon = true, .cow_mapping = true, .entry_dirty = true, .faulted = true},
	 GUP_FAULT_WRITE,
	 "the dirty bit is believed instead of the flag"},
	{"forced, zero page",
	 {.write = true, .force = true, .cow_mapping = true},
	 GUP_FAULT_WRITE,
	 "the zero page is written to"},
	{"forced, shared mapping",
	 {.write = true, .force = true, .exclusive = true, .anon = true},
	 GUP_FAULT_WRITE,
	 "FORCE writes into a shared mapping without permission"},
};

static void check_gup_rows(const struct gup_row *rows, size_t n)
{
	const struct cow_policy *policy = cow_policy_of(UCOW_POLICY_EXCLUSIVE);

	for (size_t i = 0; i < n; i++) {
		enum gup_action action = policy->gup(&rows[i].facts);

		if (action != rows[i].wanted)
			printf("# %s; catches: %s\n", rows[i].entry, rows[i].catches);
		CHECK_EQ(action, rows[i].wanted);
	}
}

TEST(gup_must_unshare_table)
{
	check_gup_rows(must_unshare_rows, ROWS(must_unshare_rows));
}

TEST(can_follow_write_table)
{
	check_gup_rows(follow_write_rows, ROWS(follow_write_rows));
}

static struct gup_facts gup_facts_of(unsigned bits)
{
	return (struct gup_facts){
		.write = bits & 1,
		.force = bits >> 1 & 1,
		.pin = bits >> 2 & 1,
		.longterm = bits >> 3 & 1,
		.entry_writable = bits >> 4 & 1,
		.entry_dirty = bits >> 5 & 1,
		.vma_writable = bits >> 6 & 1,
		.cow_mapping = bits >> 7 & 1,
		.anon = bits >> 8 & 1,
		.exclusive = bits >> 9 & 1,
		.faulted = bits >> 10 & 1,
	};
}

/* Would catch an unshare fault before 5.19, where the fault path does not know it. */
TEST(only_exclusive_unshares)
{
	for (int id = 0; id < UCOW_POLICY_COUNT; id++)
		for (unsigned bits = 0; bits < 1u << 11; bits++) {
			struct gup_facts f = gup_facts_of(bits);
			enum gup_action action = cow_policy_of(id)->gup(&f);

			CHECK(id == UCOW_POLICY_EXCLUSIVE || action != GUP_FAULT_UNSHARE);
			if (f.write)
				CHECK(action != GUP_FAULT_UNSHARE);
			if (f.entry_writable)
				CHECK_EQ(action, GUP_TAKE);
		}
}

/* Whether a read reference of this kind to a read-only entry of a private mapping breaks copy-on-write at once. */
static bool read_breaks_cow(enum ucow_policy policy, bool pin)
{
	if (policy == UCOW_POLICY_FORCE_COW)
		return true;
	return policy == UCOW_POLICY_PIN_BREAKS_COW && pin;
}

/* 5.8: every reference to a copy-on-write mapping is a write fault; the proposal: every pin is. */
TEST(forced_cow_break_belongs_to_two_policies)
{
	for (int id = UCOW_POLICY_MAPCOUNT; id < UCOW_POLICY_COUNT; id++)
		for (int pin = 0; pin < 2; pin++) {
			struct gup_facts f = {ANON_COW, .pin = pin};
			enum gup_action wanted = read_breaks_cow(id, pin) ? GUP_FAULT_WRITE : GUP_TAKE;

			CHECK_EQ(cow_policy_of(id)->gup(&f), wanted);
			f.cow_mapping = false; /* shared mappings have nothing to break */
			CHECK_EQ(cow_policy_of(id)->gup(&f), GUP_TAKE);
		}
}

/* Before 5.19 a forced write was let through by our own fault and the dirty bit, and by nothing less. */
TEST(older_forced_writes_need_their_own_fault)
{
	for (int id = UCOW_POLICY_MAPCOUNT; id < UCOW_POLICY_COUNT; id++) {
		struct gup_facts f = {.write = true, .force = true, .anon = true, .cow_mapping = true};

		CHECK_EQ(cow_policy_of(id)->gup(&f), GUP_FAULT_WRITE);
		f.entry_dirty = true; /* dirtied by somebody else, long ago */
		CHECK_EQ(cow_policy_of(id)->gup(&f), GUP_FAULT_WRITE);
		f.entry_dirty = false;
		f.faulted = true; /* the page was taken away between the fault and the look: Dirty COW */
		CHECK_EQ(cow_policy_of(id)->gup(&f), GUP_FAULT_WRITE);
		f.entry_dirty = true;
		CHECK_EQ(cow_policy_of(id)->gup(&f), GUP_TAKE);
	}
}

/* ---- upgrades without a fault, B.6 ---- */

struct upgrade_row {
	struct upgrade_facts facts;
	bool exclusive, older;
	const char *catches;
};

#define PRIVATE_RW .vma_writable = true, .anon = true

static const struct upgrade_row upgrade_rows[] = {
	{{PRIVATE_RW, .exclusive = true}, true, false, "mprotect of exclusive pages owes a fault for each"},
	{{PRIVATE_RW}, false, false, "mprotect makes a shared page writable: the child sees the write"},
	{{.vma_writable = true}, false, false, "mprotect makes the zero page writable"},
	{{.vma_writable = true, .exclusive = true}, false, false, "the flag of a page that is not anon is believed"},
	{{.anon = true, .exclusive = true}, false, false, "an entry is writable in a read-only mapping"},
	{{PRIVATE_RW, .exclusive = true, .protnone = true}, false, false, "a NUMA hint is lost"},
	{{PRIVATE_RW, .exclusive = true, .uffd_wp = true}, false, false, "a write escapes userfaultfd"},
	{{PRIVATE_RW, .exclusive = true, .soft_dirty_needed = true},
	 false,
	 false,
	 "a write escapes soft-dirty tracking"},
	{{.vma_writable = true, .shared_mapping = true, .dirty = true}, true, true, "a dirty shared page owes a fault"},
	{{.vma_writable = true, .shared_mapping = true}, false, false, "a write escapes dirty tracking"},
	{{.vma_writable = true, .shared_mapping = true, .dirty = true, .protnone = true},
	 false,
	 false,
	 "a NUMA hint is lost"},
	{{.shared_mapping = true, .dirty = true}, false, false, "an entry is writable in a read-only shared mapping"},
};

TEST(upgrade_table)
{
	for (int id = 0; id < UCOW_POLICY_COUNT; id++)
		for (size_t i = 0; i < ROWS(upgrade_rows); i++) {
			const struct upgrade_row *row = &upgrade_rows[i];
			bool may = cow_policy_of(id)->may_upgrade(&row->facts);
			bool wanted = id == UCOW_POLICY_EXCLUSIVE ? row->exclusive : row->older;

			if (may != wanted)
				printf("# %s, row %zu; catches: %s\n", ucow_policy_name(id), i, row->catches);
			CHECK_EQ(may, wanted);
		}
}

/* The detour over mprotect breaks the older policies because none of them upgrades a private entry. */
TEST(no_older_policy_upgrades_private_entries)
{
	for (int id = UCOW_POLICY_MAPCOUNT; id < UCOW_POLICY_COUNT; id++)
		for (unsigned bits = 0; bits < 64; bits++) {
			struct upgrade_facts f = {
				.vma_writable = bits & 1,
				.protnone = bits >> 1 & 1,
				.anon = bits >> 2 & 1,
				.exclusive = bits >> 3 & 1,
				.dirty = bits >> 4 & 1,
				.uffd_wp = bits >> 5 & 1,
			};

			CHECK(!cow_policy_of(id)->may_upgrade(&f));
		}
}

/* ---- swap-in, B.6 ---- */

struct swapin_row {
	struct swapin_facts facts;
	enum swapin_action exclusive, older;
	const char *catches;
};

static const struct swapin_row swapin_rows[] = {
	{{.entry_exclusive = true, .exposed = true, .refcount = 2, .mapcount = 0, .swapcount = 1, .vma_writable = true},
	 SWAPIN_EXCLUSIVE,
	 SWAPIN_READ_ONLY,
	 "an exclusive page loses its flag by going through swap"},
	{{.exposed = true, .refcount = 2, .swapcount = 1, .vma_writable = true},
	 SWAPIN_READ_ONLY,
	 SWAPIN_READ_ONLY,
	 "a page that others may have found in the swap cache becomes writable"},
	{{.exposed = true, .refcount = 1, .swapcount = 1, .vma_writable = true},
	 SWAPIN_EXCLUSIVE,
	 SWAPIN_READ_ONLY,
	 "the last user copies for nothing"},
	{{.refcount = 1, .swapcount = 1, .vma_writable = true},
	 SWAPIN_EXCLUSIVE,
	 SWAPIN_READ_ONLY,
	 "a page read past the swap cache is not known to be our own"},
	{{.entry_exclusive = true,
	  .exposed = true,
	  .stable_writeback = true,
	  .refcount = 2,
	  .swapcount = 1,
	  .vma_writable = true},
	 SWAPIN_READ_ONLY,
	 SWAPIN_READ_ONLY,
	 "bytes change while the device writes them"},
	{{.ksm = true, .entry_exclusive = true, .refcount = 1, .swapcount = 1, .vma_writable = true},
	 SWAPIN_READ_ONLY,
	 SWAPIN_READ_ONLY,
	 "a merged page becomes exclusive"},
	{{.write = true, .exposed = true, .refcount = 2, .swapcount = 1, .vma_writable = true},
	 SWAPIN_READ_ONLY,
	 SWAPIN_WRITABLE,
	 "the sole user of a slot writes to a copy, or: a referenced page is taken over today"},
	{{.write = true, .exposed = true, .refcount = 3, .mapcount = 1, .swapcount = 1, .vma_writable = true},
	 SWAPIN_READ_ONLY,
	 SWAPIN_READ_ONLY,
	 "a page that another space maps becomes writable"},
	{{.write = true, .exposed = true, .refcount = 2, .swapcount = 1},
	 SWAPIN_READ_ONLY,
	 SWAPIN_READ_ONLY,
	 "a forced write makes an entry writable in a read-only mapping"},
};

TEST(swap_in_table)
{
	for (int id = 0; id < UCOW_POLICY_COUNT; id++)
		for (size_t i = 0; i < ROWS(swapin_rows); i++) {
			const struct swapin_row *row = &swapin_rows[i];
			enum swapin_action action = cow_policy_of(id)->swap_in(&row->facts);
			enum swapin_action wanted = id == UCOW_POLICY_EXCLUSIVE ? row->exclusive : row->older;

			if (action != wanted)
				printf("# %s, row %zu; catches: %s\n", ucow_policy_name(id), i, row->catches);
			CHECK_EQ(action, wanted);
		}
}

/* ---- taking the flag away, B.1 ---- */

/* Would catch a pinned page that is swapped out or merged under its owner. */
TEST(pinned_exclusive_pages_are_not_unmapped)
{
	const struct cow_policy *policy = cow_policy_of(UCOW_POLICY_EXCLUSIVE);

	CHECK(policy->may_unmap(true, false));
	CHECK(policy->may_unmap(false, true));
	CHECK(policy->may_unmap(false, false));
	CHECK(!policy->may_unmap(true, true));
}

/* The others do not know the flag, so there is nothing to refuse. */
TEST(older_policies_unmap_anything)
{
	for (int id = UCOW_POLICY_MAPCOUNT; id < UCOW_POLICY_COUNT; id++)
		for (int bits = 0; bits < 4; bits++)
			CHECK(cow_policy_of(id)->may_unmap(bits & 1, bits & 2));
}

/* Would catch rows of the policy table in the wrong order. */
TEST(every_policy_is_its_own_row)
{
	for (int id = 0; id < UCOW_POLICY_COUNT; id++) {
		CHECK_EQ(cow_policy_of(id)->id, id);
		CHECK_STR_EQ(cow_policy_of(id)->name, ucow_policy_name(id));
		CHECK_EQ(cow_policy_of(id)->uses_exclusive, id == UCOW_POLICY_EXCLUSIVE);
	}
}

TAP_MAIN()
