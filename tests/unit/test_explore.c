/* SPDX-License-Identifier: MIT */
/*
 * The explorer on lanes of a few steps: the numbers of interleavings that are known by heart, and for programs made up
 * at random the same outcomes as trying every order gives.
 */
#include "litmus/explore_lanes.h"

#include "base/futex.h"
#include "base/lock.h"

#include "tap.h"

#include <sys/mman.h>

enum { LANES = 3, WORDS = 4, LOCKS = 2, MOST_CODE = 8, MOST_OUTCOMES = 100000 };

enum code {
	CODE_LOAD,
	CODE_STORE, /* atomic, at once */
	CODE_SEND,  /* through the store buffer */
	CODE_ADD,   /* the result is not looked at */
	CODE_TAKE,  /* a locked addition whose result is looked at */
	CODE_LOCK,
	CODE_UNLOCK,
	CODE_FENCE,
	CODE_EXPEDITE,
	CODE_AWAIT, /* until the word is not 0 */
	CODE_SLEEP, /* futex: while the word is 0 */
	CODE_WAKE,
	CODE_KINDS
};

struct instruction {
	enum code code;
	unsigned word;
	uint32_t value;
};

struct program {
	unsigned nlanes, length[LANES];
	struct instruction code[LANES][MOST_CODE];
};

/* What a run leaves behind. */
struct outcome {
	enum lanes_end end;
	uint32_t words[WORDS], saw[LANES][MOST_CODE];
};

static _Atomic uint32_t words[WORDS];
static struct spin locks[LOCKS];
static struct outcome outcome;
static struct search *search;

static struct outcome found[2][MOST_OUTCOMES];
static size_t nfound[2];

/* How a program is searched. */
enum how { EVERY_ORDER, REDUCED, BY_STATES };
static enum how how;

/* ---- running programs ---- */

static bool is_set(const volatile void *word, uintptr_t unused)
{
	(void)unused;
	return *(const volatile uint32_t *)word;
}

static uint32_t execute(const struct instruction *instruction)
{
	_Atomic uint32_t *word = &words[instruction->word];

	switch (instruction->code) {
	case CODE_LOAD:
		return atomic_load_explicit(word, memory_order_relaxed);
	case CODE_STORE:
		atomic_store_explicit(word, instruction->value, memory_order_release);
		break;
	case CODE_SEND:
		hook_store(word, instruction->value, sizeof(*word));
		break;
	case CODE_ADD:
		atomic_fetch_add_explicit(word, instruction->value, memory_order_relaxed);
		break;
	case CODE_TAKE:
		return atomic_fetch_add(word, instruction->value);
	case CODE_LOCK:
		spin_lock_raw(&locks[instruction->word % LOCKS], LOCK_TABLE);
		break;
	case CODE_UNLOCK:
		spin_unlock(&locks[instruction->word % LOCKS], LOCK_TABLE);
		break;
	case CODE_FENCE:
		hook_step(HOOK_FENCE, NULL);
		break;
	case CODE_EXPEDITE:
		hook_step(HOOK_EXPEDITE, NULL);
		break;
	case CODE_AWAIT:
		hook_await(HOOK_LOAD, word, is_set, 0);
		break;
	case CODE_SLEEP:
		while (!atomic_load_explicit(word, memory_order_relaxed))
			futex_wait(word, 0);
		break;
	case CODE_WAKE:
		futex_wake(word);
		break;
	case CODE_KINDS:
		break;
	}
	return 0;
}

static void run_lane(void *arg, unsigned lane)
{
	const struct program *program = arg;

	for (unsigned i = 0; i < program->length[lane]; i++)
		outcome.saw[lane][i] = execute(&program->code[lane][i]);
}

static void remember(unsigned where)
{
	for (size_t i = 0; i < nfound[where]; i++)
		if (!memcmp(&found[where][i], &outcome, sizeof(outcome)))
			return;
	if (nfound[where] < MOST_OUTCOMES)
		found[where][nfound[where]++] = outcome;
}

/* Outcomes are part of a state: what a lane has seen decides what comes out. */
static void add_memory(struct state_sum *sum)
{
	states_add_part(sum, UINT64_C(1) << 32, (const void *)words, sizeof(words));
	states_add_part(sum, UINT64_C(2) << 32, locks, sizeof(locks));
	states_add_part(sum, UINT64_C(3) << 32, &outcome, sizeof(outcome));
}

static void run_once(const struct program *program, bool tso)
{
	struct lanes_options options = {.search = search,
					.tso = tso,
					.every_step = how == EVERY_ORDER,
					.add_memory = how == BY_STATES ? add_memory : NULL};

	memset(words, 0, sizeof(words));
	memset(locks, 0, sizeof(locks));
	memset(&outcome, 0, sizeof(outcome));
	lanes_begin_run(&options);
	outcome.end = lanes_run(program->nlanes, run_lane, (void *)(uintptr_t)program);
	memcpy(outcome.words, words, sizeof(outcome.words));
	/* How far a run came that could not go on is the search's own affair. */
	if (outcome.end == LANES_DEADLOCK || outcome.end == LANES_LOST_WAKE)
		memset(&outcome.words, 0, sizeof(outcome) - offsetof(struct outcome, words));
}

static void begin_search(uint32_t bound)
{
	if (!search)
		search = mmap(NULL, sizeof(*search), PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	memset(search->hash, 0, sizeof(search->hash));
	memset(search, 0, offsetof(struct search, nodes));
	search_init(search, bound, bound != UINT32_MAX);
	search->exhaustive = how == EVERY_ORDER;
	search->by_states = how == BY_STATES;
	if (how == BY_STATES)
		states_forget();
}

/* Explore @program, its outcomes into found[@where]. Returns: how many whole runs. */
static uint64_t explore_as(enum how as, const struct program *program, bool tso, uint32_t bound, unsigned where)
{
	uint32_t pass = 0;
	uint64_t runs = 0;

	how = as;
	begin_search(bound);
	nfound[where] = 0;
	do {
		if (search->passes != pass && how == BY_STATES)
			states_forget();
		runs = search->passes == pass ? runs : 0;
		pass = search->passes;
		run_once(program, tso);
		if (search->diverged)
			abort();
		if (outcome.end == LANES_PRUNED)
			continue;
		runs++;
		remember(where);
	} while (search_next(search));
	return runs;
}

static uint64_t explore(const struct program *program, bool tso, bool exhaustive, uint32_t bound, unsigned where)
{
	return explore_as(exhaustive ? EVERY_ORDER : REDUCED, program, tso, bound, where);
}

static void open_lanes(void)
{
	if (lanes_open())
		abort();
}

static bool saw(uint32_t first, unsigned first_at, uint32_t second, unsigned second_at)
{
	for (size_t i = 0; i < nfound[0]; i++)
		if (found[0][i].end == LANES_DONE && found[0][i].saw[0][first_at] == first &&
		    found[0][i].saw[1][second_at] == second)
			return true;
	return false;
}

static bool ended(enum lanes_end end)
{
	for (size_t i = 0; i < nfound[0]; i++)
		if (found[0][i].end == end)
			return true;
	return false;
}

/* ---- known by heart ---- */

TEST(steps_on_different_objects_have_one_interleaving)
{
	static const struct program program = {
		2,
		{4, 4},
		{{{CODE_STORE, 0, 1}, {CODE_LOAD, 0, 0}, {CODE_TAKE, 0, 1}, {CODE_LOAD, 0, 0}},
		 {{CODE_STORE, 1, 1}, {CODE_LOAD, 1, 0}, {CODE_TAKE, 1, 1}, {CODE_LOAD, 1, 0}}}};

	open_lanes();
	CHECK_EQ(explore(&program, false, false, UINT32_MAX, 0), 1);
	/* Eight steps, the two beginnings among them, in every order. */
	CHECK_EQ(explore(&program, false, true, UINT32_MAX, 0), 252);
}

TEST(loads_and_additions_commute)
{
	static const struct program program = {3,
					       {2, 2, 2},
					       {{{CODE_LOAD, 0, 0}, {CODE_ADD, 1, 1}},
						{{CODE_LOAD, 0, 0}, {CODE_ADD, 1, 1}},
						{{CODE_ADD, 1, 1}, {CODE_LOAD, 0, 0}}}};

	open_lanes();
	CHECK_EQ(explore(&program, false, false, UINT32_MAX, 0), 1);
	CHECK_EQ(found[0][0].words[1], 3);
}

TEST(n_stores_to_one_word_have_as_many_interleavings_as_orders)
{
	static const struct program two = {
		2, {2, 2}, {{{CODE_STORE, 0, 1}, {CODE_STORE, 0, 2}}, {{CODE_STORE, 0, 3}, {CODE_STORE, 0, 4}}}};
	static const struct program three = {
		3, {1, 1, 1}, {{{CODE_STORE, 0, 1}}, {{CODE_STORE, 0, 2}}, {{CODE_STORE, 0, 3}}}};

	open_lanes();
	CHECK_EQ(explore(&two, false, false, UINT32_MAX, 0), 6);
	CHECK_EQ(explore(&three, false, false, UINT32_MAX, 0), 6);
}

TEST(a_lock_has_two_orders)
{
	static const struct program program = {
		2,
		{4, 4},
		{{{CODE_LOCK, 0, 0}, {CODE_LOAD, 0, 0}, {CODE_STORE, 0, 1}, {CODE_UNLOCK, 0, 0}},
		 {{CODE_LOCK, 0, 0}, {CODE_LOAD, 0, 0}, {CODE_STORE, 0, 2}, {CODE_UNLOCK, 0, 0}}}};

	open_lanes();
	CHECK_EQ(explore(&program, false, false, UINT32_MAX, 0), 2);
	CHECK_EQ(nfound[0], 2);
}

/* Each lane stores and then looks at what the other stores: 0 and 0 only where stores wait in buffers. */
TEST(store_buffers_show_under_tso_alone)
{
	static const struct program plain = {
		2, {2, 2}, {{{CODE_SEND, 0, 1}, {CODE_LOAD, 1, 0}}, {{CODE_SEND, 1, 1}, {CODE_LOAD, 0, 0}}}};
	static const struct program fenced = {2,
					      {3, 3},
					      {{{CODE_SEND, 0, 1}, {CODE_FENCE, 0, 0}, {CODE_LOAD, 1, 0}},
					       {{CODE_SEND, 1, 1}, {CODE_FENCE, 0, 0}, {CODE_LOAD, 0, 0}}}};
	static const struct program half = {
		2,
		{3, 2},
		{{{CODE_SEND, 0, 1}, {CODE_FENCE, 0, 0}, {CODE_LOAD, 1, 0}}, {{CODE_SEND, 1, 1}, {CODE_LOAD, 0, 0}}}};
	static const struct program expedited = {2,
						 {3, 2},
						 {{{CODE_SEND, 0, 1}, {CODE_EXPEDITE, 0, 0}, {CODE_LOAD, 1, 0}},
						  {{CODE_SEND, 1, 1}, {CODE_LOAD, 0, 0}}}};

	open_lanes();
	explore(&plain, false, false, UINT32_MAX, 0);
	CHECK(!saw(0, 1, 0, 1) && saw(1, 1, 1, 1) && saw(0, 1, 1, 1) && saw(1, 1, 0, 1));
	explore(&plain, true, false, UINT32_MAX, 0);
	CHECK(saw(0, 1, 0, 1) && saw(1, 1, 1, 1) && saw(0, 1, 1, 1) && saw(1, 1, 0, 1));
	explore(&fenced, true, false, UINT32_MAX, 0);
	CHECK(!saw(0, 2, 0, 2) && saw(1, 2, 1, 2) && saw(0, 2, 1, 2) && saw(1, 2, 0, 2));
	explore(&half, true, false, UINT32_MAX, 0);
	CHECK(saw(0, 2, 0, 1));
	explore(&expedited, true, false, UINT32_MAX, 0);
	CHECK(!saw(0, 2, 0, 1) && saw(1, 2, 1, 1) && saw(0, 2, 1, 1) && saw(1, 2, 0, 1));
}

TEST(a_lane_sees_its_own_stores)
{
	static const struct program program = {
		2, {3, 1}, {{{CODE_SEND, 0, 1}, {CODE_SEND, 0, 2}, {CODE_LOAD, 0, 0}}, {{CODE_LOAD, 0, 0}}}};

	open_lanes();
	explore(&program, true, false, UINT32_MAX, 0);
	CHECK(nfound[0] == 3 && saw(2, 2, 0, 0) && saw(2, 2, 1, 0) && saw(2, 2, 2, 0));
}

TEST(locks_taken_crosswise_deadlock)
{
	static const struct program crosswise = {
		2,
		{4, 4},
		{{{CODE_LOCK, 0, 0}, {CODE_LOCK, 1, 0}, {CODE_UNLOCK, 1, 0}, {CODE_UNLOCK, 0, 0}},
		 {{CODE_LOCK, 1, 0}, {CODE_LOCK, 0, 0}, {CODE_UNLOCK, 0, 0}, {CODE_UNLOCK, 1, 0}}}};
	static const struct program in_order = {
		2,
		{4, 4},
		{{{CODE_LOCK, 0, 0}, {CODE_LOCK, 1, 0}, {CODE_UNLOCK, 1, 0}, {CODE_UNLOCK, 0, 0}},
		 {{CODE_LOCK, 0, 0}, {CODE_LOCK, 1, 0}, {CODE_UNLOCK, 1, 0}, {CODE_UNLOCK, 0, 0}}}};

	open_lanes();
	explore(&crosswise, false, false, UINT32_MAX, 0);
	CHECK(ended(LANES_DEADLOCK) && ended(LANES_DONE));
	explore(&crosswise, false, false, 0, 0);
	CHECK(!ended(LANES_DEADLOCK));
	explore(&crosswise, false, false, 1, 0);
	CHECK(ended(LANES_DEADLOCK));
	explore(&in_order, false, false, UINT32_MAX, 0);
	CHECK(!ended(LANES_DEADLOCK) && ended(LANES_DONE));
}

TEST(a_wake_up_before_its_store_is_lost)
{
	static const struct program good = {2, {1, 2}, {{{CODE_SLEEP, 0, 0}}, {{CODE_STORE, 0, 1}, {CODE_WAKE, 0, 0}}}};
	static const struct program bad = {2, {1, 2}, {{{CODE_SLEEP, 0, 0}}, {{CODE_WAKE, 0, 0}, {CODE_STORE, 0, 1}}}};

	open_lanes();
	explore(&good, false, false, UINT32_MAX, 0);
	CHECK(ended(LANES_DONE) && !ended(LANES_LOST_WAKE) && !ended(LANES_DEADLOCK));
	explore(&bad, false, false, UINT32_MAX, 0);
	CHECK(ended(LANES_DONE) && ended(LANES_LOST_WAKE));
}

static void spin(void *arg, unsigned lane)
{
	(void)arg;
	while (!lane && !atomic_load_explicit(&words[0], memory_order_relaxed))
		;
}

TEST(a_lane_that_spins_is_found)
{
	static const struct program program = {.nlanes = 2};
	struct lanes_options options = {0};

	open_lanes();
	explore(&program, false, false, UINT32_MAX, 0);
	options.search = search;
	search_next(search);
	lanes_begin_run(&options);
	CHECK_EQ(lanes_run(2, spin, NULL), LANES_LIVELOCK);
}

/* ---- against every order ---- */

static uint64_t draw(uint64_t *state, uint64_t n)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % n;
}

/* Locks are released by whoever holds them. */
static void make_lane(struct program *program, unsigned lane, unsigned length, uint64_t *state)
{
	bool holds[LOCKS] = {0};

	program->length[lane] = length;
	for (unsigned i = 0; i < length; i++) {
		struct instruction *instruction = &program->code[lane][i];
		unsigned lock;

		*instruction = (struct instruction){(enum code)draw(state, CODE_SLEEP), (unsigned)draw(state, 2),
						    1 + (uint32_t)draw(state, 3)};
		lock = instruction->word % LOCKS;
		if (instruction->code == CODE_LOCK || instruction->code == CODE_UNLOCK) {
			instruction->code = holds[lock] ? CODE_UNLOCK : CODE_LOCK;
			holds[lock] = !holds[lock];
		}
	}
}

static void make_program(struct program *program, unsigned nlanes, unsigned length, uint64_t *state)
{
	memset(program, 0, sizeof(*program));
	program->nlanes = nlanes;
	for (unsigned lane = 0; lane < nlanes; lane++)
		make_lane(program, lane, length, state);
}

static bool is_among(const struct outcome *wanted, unsigned where)
{
	for (size_t i = 0; i < nfound[where]; i++)
		if (!memcmp(&found[where][i], wanted, sizeof(*wanted)))
			return true;
	return false;
}

static void print_program(const struct program *program)
{
	static const char *const names[] = {"load", "store",  "send",  "add",      "take",
					    "lock", "unlock", "fence", "expedite", "await"};

	for (unsigned lane = 0; lane < program->nlanes; lane++) {
		printf("# lane %u:", lane);
		for (unsigned i = 0; i < program->length[lane]; i++)
			printf(" %s %u %u;", names[program->code[lane][i].code], program->code[lane][i].word,
			       program->code[lane][i].value);
		printf("\n");
	}
}

static void print_difference(const struct program *program, const char *what, bool tso, uint32_t bound, uint64_t all,
			     uint64_t some)
{
	printf("# tso %d, bound %u: %zu outcomes in %" PRIu64 " runs, %s %zu in %" PRIu64 "\n", tso, bound, nfound[0],
	       all, what, nfound[1], some);
	print_program(program);
}

/* Whether found[0] and found[1] hold the same outcomes. */
static bool same_outcomes(void)
{
	bool same = true;

	for (size_t i = 0; i < nfound[0]; i++)
		same &= is_among(&found[0][i], 1);
	for (size_t i = 0; i < nfound[1]; i++)
		same &= is_among(&found[1][i], 0);
	return same;
}

/* Returns: whether reduction with @bound finds what all orders within it give, in no more runs. */
static bool agrees(const struct program *program, bool tso, uint32_t bound)
{
	uint64_t all = explore(program, tso, true, bound, 0), reduced = explore(program, tso, false, bound, 1);
	/* Deadlocks are not preempted into the open: how a bounded search meets one may differ. */
	bool good = reduced <= all && same_outcomes();

	if (!good)
		print_difference(program, "reduced", tso, bound, all, reduced);
	return good;
}

/* Returns: whether a search by states finds what all orders give. */
static bool agrees_by_states(const struct program *program, bool tso)
{
	uint64_t all = explore_as(EVERY_ORDER, program, tso, UINT32_MAX, 0);
	uint64_t some = explore_as(BY_STATES, program, tso, UINT32_MAX, 1);
	bool good = same_outcomes();

	if (!good)
		print_difference(program, "by states", tso, UINT32_MAX, all, some);
	return good;
}

static void compare(unsigned nlanes, unsigned length, bool tso, uint32_t bound, unsigned times)
{
	uint64_t state = tap_seed();
	struct program program;

	open_lanes();
	for (unsigned i = 0; i < times; i++) {
		make_program(&program, nlanes, length, &state);
		CHECK(agrees(&program, tso, bound));
	}
}

TEST(two_lanes_have_the_outcomes_of_all_orders)
{
	compare(2, 4, false, UINT32_MAX, 1500);
}

TEST(three_lanes_have_the_outcomes_of_all_orders)
{
	compare(3, 2, false, UINT32_MAX, 300);
}

TEST(buffers_have_the_outcomes_of_all_orders)
{
	compare(2, 3, true, UINT32_MAX, 1000);
}

static void compare_states(unsigned nlanes, unsigned length, bool tso, unsigned times)
{
	uint64_t state = tap_seed();
	struct program program;

	if (!states_are_built())
		SKIP("built without xxhash");
	open_lanes();
	REQUIRE_EQ(states_open(), 0);
	for (unsigned i = 0; i < times; i++) {
		make_program(&program, nlanes, length, &state);
		CHECK(agrees_by_states(&program, tso));
	}
}

/* Would catch a state that leaves something out: what follows from it is then taken for known. */
TEST(states_have_the_outcomes_of_all_orders)
{
	compare_states(2, 4, false, 1500);
	compare_states(3, 2, false, 300);
}

TEST(states_of_buffers_have_the_outcomes_of_all_orders)
{
	compare_states(2, 3, true, 1000);
}

/* Would catch a search that takes every state for a new one. */
TEST(states_are_met_again)
{
	struct program program = {.nlanes = 2, .length = {6, 6}};

	if (!states_are_built())
		SKIP("built without xxhash");
	for (unsigned lane = 0; lane < 2; lane++)
		for (unsigned i = 0; i < 6; i++)
			program.code[lane][i] = (struct instruction){CODE_STORE, lane, 1};
	program.code[0][5] = program.code[1][5] = (struct instruction){CODE_ADD, 2, 1};
	program.code[0][4] = program.code[1][4] = (struct instruction){CODE_TAKE, 3, 0};
	open_lanes();
	REQUIRE_EQ(states_open(), 0);
	explore_as(BY_STATES, &program, false, UINT32_MAX, 0);
	CHECK_EQ(nfound[0], 1);
	CHECK(explore_as(EVERY_ORDER, &program, false, UINT32_MAX, 1) > 4 * states_count());
}

/* Two additions go together, but a wait can come between them if the first of them is the lane's own. */
TEST(a_wait_can_follow_an_addition_of_its_own)
{
	static const struct program program = {
		2, {1, 3}, {{{CODE_ADD, 0, 1}}, {{CODE_ADD, 0, 3}, {CODE_AWAIT, 0, 1}, {CODE_LOAD, 0, 3}}}};

	open_lanes();
	CHECK(agrees(&program, false, UINT32_MAX));
	CHECK(nfound[1] == 2 && (found[1][0].saw[1][2] == 3) != (found[1][1].saw[1][2] == 3));
	if (!states_are_built())
		return;
	REQUIRE_EQ(states_open(), 0);
	CHECK(agrees_by_states(&program, false));
	CHECK_EQ(nfound[1], 2);
}

TEST(a_lane_that_comes_back_to_a_state_is_found)
{
	static const struct program program = {.nlanes = 2};
	struct lanes_options options = {.every_step = true, .add_memory = add_memory};

	if (!states_are_built())
		SKIP("built without xxhash");
	open_lanes();
	REQUIRE_EQ(states_open(), 0);
	explore_as(BY_STATES, &program, false, UINT32_MAX, 0);
	options.search = search;
	search_begin_anew(search, UINT32_MAX, false);
	states_forget();
	lanes_begin_run(&options);
	CHECK_EQ(lanes_run(2, spin, NULL), LANES_LIVELOCK);
	CHECK(search->depth < 10);
}

TEST(a_bound_loses_no_outcome_within_it)
{
	for (uint32_t bound = 0; bound < 3; bound++) {
		compare(2, 5, false, bound, 400);
		compare(3, 3, false, bound, 60);
	}
}

TEST(a_bound_loses_no_outcome_of_buffers)
{
	compare(2, 3, true, 1, 300);
}

TAP_MAIN()
