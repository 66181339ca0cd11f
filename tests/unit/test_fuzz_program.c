/* SPDX-License-Identifier: MIT */
/*
 * Programs of the fuzzer: all of them print to litmus tests that fit a view and, against the kernel, to what it can do;
 * shrinking keeps what the judge sees; a saved file says what both sides showed.
 */
#include "litmus/fuzz_noise.h"
#include "litmus/fuzz_program.h"
#include "litmus/kernel.h"
#include "litmus/run.h"

#include "tap.h"

#include <dirent.h>
#include <sys/utsname.h>

static struct fuzz_program program;

static uint64_t random_state;

static uint64_t next_random(void)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return random_state >> 29;
}

/* ---- printing ---- */

static char *print(const struct fuzz_program *p)
{
	char *text;
	size_t nbytes;

	REQUIRE_EQ(fuzz_print(p, &text, &nbytes), 0);
	REQUIRE_EQ(strlen(text), nbytes);
	return text;
}

/* What is wrong with @litmus as a program of the fuzzer, or NULL. */
static const char *complain_of_processes(const struct litmus *litmus)
{
	unsigned alive = 1;

	for (size_t i = 0; i < litmus->nstmts; i++) {
		const struct stmt *stmt = &litmus->stmts[i];

		alive += stmt->kind == STMT_FORK || stmt->kind == STMT_SNAPSHOT;
		alive -= stmt->kind == STMT_EXIT;
		if (!alive || alive > FUZZ_LIVE)
			return "the number of the living";
	}
	return NULL;
}

static const char *complain_of_texts(const struct litmus *litmus)
{
	for (size_t i = 0; i < litmus->nstmts; i++)
		for (size_t j = 0; j < i && litmus->stmts[i].ntexts; j++)
			if (litmus->stmts[j].ntexts &&
			    !strcmp(litmus->stmts[i].texts->bytes, litmus->stmts[j].texts->bytes))
				return "a text stands twice";
	return NULL;
}

static bool is_offset(uint64_t offset)
{
	static const unsigned offsets[FUZZ_SPOTS] = FUZZ_SPOT_OFFSETS;

	for (unsigned i = 0; i < FUZZ_SPOTS; i++)
		if (offset == offsets[i])
			return true;
	return false;
}

static const char *complain_of_places(const struct litmus *litmus)
{
	for (size_t i = 0; i < litmus->nstmts; i++) {
		const struct stmt *stmt = &litmus->stmts[i];

		if (!is_offset(stmt->place.offset))
			return "an offset where no view looks";
		if (stmt->ntexts && stmt->texts->nbytes > FUZZ_TEXT)
			return "a text longer than a view";
		if ((litmus_is_check(stmt->kind) && stmt->kind != STMT_SCAN) || stmt->outcome != OUTCOME_OK)
			return "a promise";
	}
	return NULL;
}

/* Whether the region was mapped, or moved out of one that was. */
static bool is_shared(const struct litmus *litmus, int region)
{
	while (litmus->names[region].region >= 0)
		region = litmus->names[region].region;
	for (size_t i = 0; i < litmus->nstmts; i++)
		if (litmus->stmts[i].kind == STMT_MAP && litmus->stmts[i].name == region)
			return litmus->stmts[i].options & MAP_OPT_SHARED;
	return false;
}

static const char *complain_of_kernel(const struct litmus *litmus)
{
	static char why[200];

	if (kernel_unsupported(litmus, why, sizeof(why)))
		return why;
	for (size_t i = 0; i < litmus->nstmts; i++) {
		const struct stmt *stmt = &litmus->stmts[i];

		if (stmt->kind == STMT_PIN && !(stmt->options & GUP_OPT_LONGTERM) &&
		    is_shared(litmus, stmt->place.region))
			return "a short pin of shared memory";
	}
	return NULL;
}

static const char *complain_of(const struct litmus *litmus, enum fuzz_against against)
{
	struct fuzz_layout layout;
	const char *complaint = complain_of_processes(litmus);

	if (!fuzz_lay_out(litmus, &layout))
		return "it does not fit a view";
	if (!complaint && !(program.pressure & FUZZ_P_MERGING)) /* there pages are to be equal */
		complaint = complain_of_texts(litmus);
	if (!complaint)
		complaint = complain_of_places(litmus);
	if (!complaint && against == FUZZ_AGAINST_KERNEL)
		complaint = complain_of_kernel(litmus);
	return complaint;
}

/* Prints @p, parses what comes out, and ends the test if that is no good. The caller frees. */
static struct litmus *parse_printed(const struct fuzz_program *p)
{
	struct litmus_error error;
	struct litmus *litmus = NULL;
	char *text = print(p);
	const char *complaint;

	if (litmus_parse("printed.litmus", text, strlen(text), &litmus, &error)) {
		printf("# %u:%u: %s\n%s", error.loc.line, error.loc.column, error.text, text);
		REQUIRE(!"parsed");
	}
	complaint = complain_of(litmus, p->against);
	if (complaint) {
		printf("# %s\n%s", complaint, text);
		REQUIRE(!"complained of");
	}
	free(text);
	return litmus;
}

#ifdef UCOW_HAVE_LIBURING
#define FIRST_AGAINST FUZZ_AGAINST_KERNEL
#else
#define FIRST_AGAINST FUZZ_AGAINST_MODES
#endif

TEST(every_seed_is_a_test)
{
	for (enum fuzz_against against = FIRST_AGAINST; against <= FUZZ_AGAINST_MODES; against++) {
		for (uint64_t seed = 0; seed < 3000; seed++) {
			fuzz_generate(&program, tap_seed() + seed, seed % 50 ? 30 : FUZZ_OPS_MAX, against);
			litmus_free(parse_printed(&program));
		}
	}
}

TEST(every_array_of_operations_is_a_test)
{
	uint8_t bytes[FUZZ_OPS_MAX * sizeof(struct fuzz_op) + 20];

	random_state = tap_seed();
	for (unsigned round = 0; round < 3000; round++) {
		size_t nbytes = next_random() % (round % 20 ? 400 : sizeof(bytes) + 1);

		for (size_t i = 0; i < nbytes; i++)
			bytes[i] = (uint8_t)next_random();
		fuzz_from_bytes(&program, bytes, nbytes, round & 1 ? FUZZ_AGAINST_MODES : FIRST_AGAINST);
		litmus_free(parse_printed(&program));
	}
}

TEST(no_operation_is_a_test_too)
{
	struct litmus *litmus;

	fuzz_from_bytes(&program, NULL, 0, FUZZ_AGAINST_MODES);
	CHECK_EQ(program.nops, 0);
	litmus = parse_printed(&program);
	CHECK_EQ(litmus->nstmts, 1);
	litmus_free(litmus);
}

TEST(the_same_seed_is_the_same_program)
{
	unsigned differ = 0;

	for (uint64_t seed = 0; seed < 50; seed++) {
		char *once, *twice, *other;

		fuzz_generate(&program, seed, 30, FUZZ_AGAINST_MODES);
		once = print(&program);
		memset(&program, 0x55, sizeof(program));
		fuzz_generate(&program, seed, 30, FUZZ_AGAINST_MODES);
		twice = print(&program);
		fuzz_generate(&program, seed + 50, 30, FUZZ_AGAINST_MODES);
		other = print(&program);
		CHECK_STR_EQ(once, twice);
		differ += strcmp(strstr(once, "\n\n"), strstr(other, "\n\n")) != 0;
		free(once);
		free(twice);
		free(other);
	}
	CHECK_EQ(differ, 50);
}

static bool is_pressing_advice(const struct stmt *stmt)
{
	return stmt->kind == STMT_ADVISE && (stmt->advice == ADVICE_PAGEOUT || stmt->advice == ADVICE_COLD ||
					     stmt->advice == ADVICE_MERGEABLE || stmt->advice == ADVICE_UNMERGEABLE);
}

/* Which kinds of statements @n programs have. */
static void count_kinds(enum fuzz_against against, unsigned n, unsigned counts[STMT_KIND_COUNT])
{
	for (uint64_t seed = 0; seed < n; seed++) {
		struct litmus *litmus;

		fuzz_generate(&program, seed, 30, against);
		litmus = parse_printed(&program);
		for (size_t i = 0; i < litmus->nstmts; i++)
			counts[is_pressing_advice(&litmus->stmts[i]) ? STMT_KIND_COUNT : litmus->stmts[i].kind]++;
		litmus_free(litmus);
	}
}

static enum stmt_kind statement_of(enum fuzz_op_kind kind)
{
	if (kind == FUZZ_OP_PAGEOUT || kind == FUZZ_OP_MERGEABLE)
		return STMT_KIND_COUNT; /* advice of their own */
	if (kind == FUZZ_OP_FORK_INTO)
		return STMT_FORK;
	if (kind == FUZZ_OP_WP || kind == FUZZ_OP_UNWP)
		return kind == FUZZ_OP_WP ? STMT_UFFD_PROTECT : STMT_UFFD_UNPROTECT;
	for (unsigned i = 0; i < STMT_KIND_COUNT; i++)
		if (!strcmp(litmus_stmt_name(i), fuzz_op_name(kind)))
			return i;
	REQUIRE(!"a statement has the name");
	return STMT_KIND_COUNT;
}

TEST(all_that_is_possible_occurs)
{
	for (enum fuzz_against against = FIRST_AGAINST; against <= FUZZ_AGAINST_MODES; against++) {
		unsigned counts[STMT_KIND_COUNT + 1] = {0};

		count_kinds(against, 1000, counts);
		for (unsigned kind = 0; kind < FUZZ_OP_KINDS; kind++) {
			bool occurs = counts[statement_of(kind)] >= 20 &&
				      (kind != FUZZ_OP_FORK_INTO || counts[STMT_JOIN] >= 20);

			if (occurs != fuzz_op_possible(kind, against, 0))
				TAP_FAIL("%s: %u times", fuzz_op_name(kind), counts[statement_of(kind)]);
		}
	}
}

/* ---- shrinking ---- */

struct planted {
	const char *lines[4]; /* each behind the one before */
	unsigned asked, refused;
	char *last; /* what was accepted */
};

static bool has_planted(const struct planted *planted, const char *text)
{
	for (unsigned i = 0; i < 4 && planted->lines[i]; i++) {
		text = strstr(text, planted->lines[i]);
		if (!text)
			return false;
		text += strlen(planted->lines[i]);
	}
	return true;
}

static bool judge_planted(const struct fuzz_program *p, void *arg)
{
	struct planted *planted = arg;
	char *text = print(p);
	bool has = has_planted(planted, text);

	planted->asked++;
	planted->refused += !has;
	if (has) {
		free(planted->last);
		planted->last = text;
	} else {
		free(text);
	}
	return has;
}

/* Shrinks the first @n generated programs that have what is planted. Returns: the most statements that are left. */
static size_t shrink_planted(struct planted *planted, unsigned n, unsigned runs)
{
	size_t most = 0;

	for (uint64_t seed = 1; n; seed++) {
		struct litmus *litmus;
		unsigned asked;

		fuzz_generate(&program, seed, 40, FUZZ_AGAINST_MODES);
		if (!judge_planted(&program, planted))
			continue;
		n--;
		planted->asked = 0;
		asked = fuzz_shrink(&program, judge_planted, planted, runs);
		REQUIRE_EQ(asked, planted->asked);
		REQUIRE(asked <= runs);
		litmus = parse_printed(&program);
		most = litmus->nstmts > most ? litmus->nstmts : most;
		litmus_free(litmus);
	}
	free(planted->last);
	planted->last = NULL;
	return most;
}

TEST(shrinking_finds_the_least_program)
{
	struct planted write = {.lines = {"\nA write "}};
	struct planted child = {.lines = {" fork B", "\nB write "}};
	struct planted pinned = {.lines = {" pin ", " fork ", "\nC write ", "\nunpin "}};
	struct planted exited = {.lines = {"\nB exit", " fork ", " exit\n"}};

	CHECK_EQ(shrink_planted(&write, 10, 4000), 2);  /* map, write */
	CHECK_EQ(shrink_planted(&child, 10, 4000), 3);  /* map, fork, write */
	CHECK_EQ(shrink_planted(&pinned, 10, 4000), 6); /* map, pin, fork, fork, write, unpin */
	CHECK(shrink_planted(&exited, 10, 4000) <= 5);  /* map, fork, exit, fork, exit */
	CHECK(pinned.refused > 0);
}

TEST(shrinking_makes_operations_simple)
{
	struct planted planted = {.lines = {" pin ", "\ndevice p"}};
	char *text;

	for (uint64_t seed = 1;; seed++) {
		fuzz_generate(&program, seed, 40, FUZZ_AGAINST_MODES);
		if (program.looks && judge_planted(&program, &planted))
			break;
	}
	fuzz_shrink(&program, judge_planted, &planted, 4000);
	text = print(&program);
	CHECK_STR_EQ(strstr(text, "\n\n"), "\n\nA map a 1\nA pin a w -> p1\ndevice p1 write \"a\"\n");
	CHECK(!program.looks);
	free(text);
	free(planted.last);
}

/* A forked child that writes needs neither a group, nor a small machine, nor equal pages. */
TEST(shrinking_takes_the_pressure_away)
{
	struct planted planted = {.lines = {" fork B", "\nB write "}};
	char *text;

	for (uint64_t seed = 1;; seed++) {
		fuzz_generate(&program, seed, 40, FUZZ_AGAINST_MODES);
		text = print(&program);
		if (program.room && program.pressure == (FUZZ_P_SWAP | FUZZ_P_MERGING | FUZZ_P_GROUPS) &&
		    strstr(text, " fork B into m") && judge_planted(&program, &planted))
			break;
		free(text);
	}
	free(text);
	fuzz_shrink(&program, judge_planted, &planted, 4000);
	CHECK_EQ(program.room, 0);
	CHECK_EQ(program.pressure, 0);
	text = print(&program);
	CHECK_STR_EQ(strstr(text, "\n\n"), "\n\nA map a 1\nA fork B\nB write a \"a\"\n");
	free(text);
	free(planted.last);
}

TEST(shrinking_asks_no_more_than_it_may)
{
	struct planted planted = {.lines = {" pin ", " fork ", " write "}};

	shrink_planted(&planted, 5, 7);
	CHECK(planted.asked <= 7);
	shrink_planted(&planted, 1, 0);
	CHECK_EQ(planted.asked, 0);
}

static bool judge_never(const struct fuzz_program *p, void *arg)
{
	(void)p;
	(void)arg;
	return false;
}

TEST(shrinking_against_the_judge_keeps_the_text)
{
	char *before, *after;

	fuzz_generate(&program, 5, 40, FUZZ_AGAINST_MODES);
	before = print(&program);
	fuzz_shrink(&program, judge_never, NULL, 4000);
	after = print(&program);
	CHECK_STR_EQ(before, after);
	free(before);
	free(after);
}

/* ---- pressure ---- */

static void press(uint64_t seed, unsigned possible)
{
	fuzz_generate_pressed(&program, seed, 30, possible);
}

static bool has_text(const char *what)
{
	char *text = print(&program);
	bool has = strstr(text, what) != NULL;

	free(text);
	return has;
}

/* Of a thousand programs for a kernel that has @possible, how many have @what. */
static unsigned count_pressed(unsigned possible, const char *what)
{
	unsigned n = 0;

	for (uint64_t seed = 0; seed < 1000; seed++) {
		press(seed, possible);
		n += has_text(what);
	}
	return n;
}

TEST(kernel_programs_have_what_the_machine_has)
{
	CHECK_EQ(count_pressed(0, "pageout"), 0);
	CHECK_EQ(count_pressed(0, "ksm merge"), 0);
	CHECK_EQ(count_pressed(0, "cgroup"), 0);
	CHECK(count_pressed(FUZZ_P_SWAP, "pageout") > 100);
	CHECK_EQ(count_pressed(FUZZ_P_SWAP, "ksm merge"), 0);
	CHECK(count_pressed(FUZZ_P_MERGING, "ksm merge") > 30);
	CHECK_EQ(count_pressed(FUZZ_P_MERGING, "cgroup"), 0);
	CHECK(count_pressed(FUZZ_P_GROUPS, "cgroup") > 30);
	CHECK(count_pressed(FUZZ_P_GROUPS, " into m") > 20);
	CHECK_EQ(count_pressed(FUZZ_P_ALL, "swapoff"), 0);
}

/* So that what a seed has found without stays found with. */
TEST(programs_without_pressure_are_the_same_on_every_machine)
{
	unsigned n = 0;

	for (uint64_t seed = 0; seed < 200; seed++) {
		char *with, *without;
		bool pressed;

		press(seed, FUZZ_P_ALL);
		pressed = program.pressure;
		with = print(&program);
		press(seed, 0);
		without = print(&program);
		n += pressed;
		CHECK_EQ(!strcmp(with, without), !pressed);
		free(with);
		free(without);
	}
	CHECK(n > 40 && n < 120);
}

static unsigned count_of(const char *text, const char *what)
{
	unsigned n = 0;

	for (text = strstr(text, what); text; text = strstr(text + 1, what))
		n++;
	return n;
}

/* A limit that a kernel group would have to have is none of its. */
TEST(limits_are_met_on_the_engine_only)
{
	unsigned small = 0, inner = 0;

	for (uint64_t seed = 0; seed < 1000; seed++) {
		char *text;

		press(seed, FUZZ_P_ALL);
		text = print(&program);
		CHECK_EQ(count_of(text, "cgroup "), count_of(text, " limit=100000\n"));
		free(text);
		fuzz_generate(&program, seed, 30, FUZZ_AGAINST_MODES);
		text = print(&program);
		small += count_of(text, "cgroup ") - count_of(text, " limit=100000");
		inner += count_of(text, " in=m");
		free(text);
	}
	CHECK(small > 30 && inner > 10);
}

/* But where nothing is mapped, or a snapshot's turn it is. */
TEST(a_merge_comes_after_an_advice)
{
	unsigned merges = 0, advised = 0;

	for (uint64_t seed = 0; seed < 1000; seed++) {
		const char *merge, *advice;
		char *text;

		fuzz_generate(&program, seed, 30, FUZZ_AGAINST_MODES);
		if (!(program.pressure & FUZZ_P_MERGING))
			continue;
		text = print(&program);
		merge = strstr(text, "\nksm merge");
		advice = strstr(text, " mergeable");
		merges += merge != NULL;
		advised += merge && advice && advice < merge;
		free(text);
	}
	CHECK(merges > 100);
	CHECK(10 * advised > 9 * merges);
}

/* ---- saving ---- */

/* A subject that shows what is planned, whatever it is told to do. */
struct fake {
	struct fuzz_subject subject;
	struct fuzz_subject_type type;
	struct fuzz_view view; /* after every statement, but for the outcome */
	int outcomes[8];
	size_t breaks_at; /* goes wrong at this statement */
	unsigned begun, ended;
};

static int fake_begin(struct fuzz_subject *subject, const struct fuzz_test *test, char *why, size_t size)
{
	(void)test;
	(void)why;
	(void)size;
	((struct fake *)subject)->begun++;
	return 0;
}

static int fake_step(struct fuzz_subject *subject, size_t i, struct fuzz_view *view, char *why, size_t size)
{
	struct fake *fake = (struct fake *)subject;

	if (i == fake->breaks_at) {
		snprintf(why, size, "went wrong");
		return -EIO;
	}
	*view = fake->view;
	view->outcome = fake->outcomes[i];
	return 0;
}

static int fake_end(struct fuzz_subject *subject, char *why, size_t size)
{
	(void)why;
	(void)size;
	((struct fake *)subject)->ended++;
	return 0;
}

static struct fake fake;
static struct fuzz_divergence divergence;
static char folder[200], path[400];

/*
 * A writes; B, its child, unmaps, and then its write fails. The page of A holds what it wrote, in a frame of its own.
 */
static void plan(void)
{
	static const struct fuzz_op ops[] = {
		{.kind = FUZZ_OP_MAP, .npages = 1},
		{.kind = FUZZ_OP_WRITE, .text = 2},
		{.kind = FUZZ_OP_PIN, .flags = FUZZ_F_WRITE | FUZZ_F_LONGTERM},
		{.kind = FUZZ_OP_FORK},
		{.kind = FUZZ_OP_UNMAP, .proc = 1},
		{.kind = FUZZ_OP_WRITE, .proc = 1, .flags = FUZZ_F_ANYWHERE},
		{.kind = FUZZ_OP_READ},
	};
	struct fuzz_page *page = &fake.view.pages[0][0];
	const char *base = getenv("TMPDIR");

	program = (struct fuzz_program){.seed = 77, .against = FUZZ_AGAINST_KERNEL, .nops = 7};
	memcpy(program.ops, ops, sizeof(ops));
	fake = (struct fake){.type = {.name = "fake", .sees = ~0u, fake_begin, fake_step, fake_end, NULL},
			     .breaks_at = SIZE_MAX};
	fake.subject.type = &fake.type;
	fake.outcomes[5] = LITMUS_SIGSEGV;
	fake.view.alive[0] = fake.view.alive[1] = true;
	*page = (struct fuzz_page){.mapped = true, .has_bytes = true, .present = true, .mapcount = 1, .frame = 5};
	memcpy(page->bytes, "aaa", 3);
	page[1] = (struct fuzz_page){.mapped = true, .has_bytes = true};
	fake.view.held[0] = (struct fuzz_held){.bound = true, .npages = 1, .has_bytes = {true}};
	memcpy(fake.view.held[0].bytes[0], "aaa", 3);
	divergence = (struct fuzz_divergence){.at = 5,
					      .subjects = {"kernel", "eager"},
					      .what = "bytes",
					      .page = 0,
					      .handle = -1,
					      .saw = {"reads \"aaa\"", "reads #1\n and \xff"}};
	snprintf(folder, sizeof(folder), "%s/ucow-fuzz-XXXXXX", base ? base : P_tmpdir);
	REQUIRE(mkdtemp(folder));
}

static struct litmus *parse_saved(void)
{
	struct litmus_error error = {0};
	struct litmus *litmus = NULL;

	if (litmus_parse_file(path, &litmus, &error))
		printf("# %s:%u:%u: %s\n", path, error.loc.line, error.loc.column, error.text);
	REQUIRE(litmus);
	return litmus;
}

static struct litmus *save(void)
{
	REQUIRE_EQ(fuzz_save(folder, &program, &fake.subject, &divergence, path, sizeof(path)), 0);
	return parse_saved();
}

static void clean_up(void)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;

	REQUIRE(dir);
	while ((entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%.150s", folder, entry->d_name);
		unlink(path);
	}
	closedir(dir);
	CHECK_EQ(rmdir(folder), 0);
}

static bool says(const struct litmus *litmus, const char *text)
{
	for (size_t i = 0; i < litmus->nabout; i++)
		if (strstr(litmus->about[i], text))
			return true;
	return false;
}

static const struct stmt *last_of(const struct litmus *litmus)
{
	return &litmus->stmts[litmus->nstmts - 1];
}

static bool has_stmt(const struct litmus *litmus, const char *source)
{
	for (size_t i = 0; i < litmus->nstmts; i++)
		if (!strcmp(litmus->stmts[i].source, source))
			return true;
	return false;
}

TEST(a_saved_file_has_the_small_machine)
{
	struct litmus *litmus;

	plan();
	program.against = FUZZ_AGAINST_MODES;
	program.room = 16;
	litmus = save();
	CHECK_EQ(litmus->machine.ram_bytes, 2 << 20);
	CHECK_EQ(litmus->machine.swap_bytes, 4 << 20);
	CHECK(has_stmt(litmus, "Holder map held 496"));
	CHECK(has_stmt(litmus, "Holder pin held w longterm -> rest"));
	litmus_free(litmus);
	clean_up();
}

TEST(a_saved_file_says_what_both_showed)
{
	struct litmus *litmus;

	plan();
	litmus = save();
	CHECK(says(litmus, "kernel: reads \"aaa\""));
	CHECK(says(litmus, "eager: reads \\x231\\x0a and \\xff"));
	CHECK(strstr(litmus->source[0], "--against kernel"));
	CHECK(strstr(litmus->source[0], "seed 77"));
	CHECK(strstr(litmus->title, "kernel and eager differ: bytes"));
	CHECK(litmus->catches);
	CHECK_STR_EQ(litmus->test, "fuzz-bytes-77");
	CHECK_EQ(fake.begun, 1);
	CHECK_EQ(fake.ended, 1);
	litmus_free(litmus);
	clean_up();
}

TEST(a_saved_file_promises_what_the_reference_did)
{
	struct litmus *litmus;

	plan();
	litmus = save();
	/* It ends where the two diverge. */
	CHECK(!has_stmt(litmus, "A read a[0]"));
	CHECK_EQ(litmus->stmts[4].outcome, OUTCOME_OK);
	CHECK_EQ(litmus->stmts[5].outcome, OUTCOME_FAILS);
	CHECK_EQ(litmus->stmts[5].error, LITMUS_SIGSEGV);
	CHECK_EQ(last_of(litmus)->kind, STMT_PEEK);
	CHECK_EQ(litmus->stmts[6].kind, STMT_PEEK);
	CHECK_EQ(litmus->stmts[6].texts->nbytes, FUZZ_TEXT);
	CHECK(!memcmp(litmus->stmts[6].texts->bytes, "aaa\0\0", 5));
	litmus_free(litmus);
	clean_up();
}

static void check_saved(const char *what, int page, int handle, const char *check)
{
	struct litmus *litmus;

	snprintf(divergence.what, sizeof(divergence.what), "%s", what);
	divergence.page = page;
	divergence.handle = handle;
	litmus = save();
	if (!has_stmt(litmus, check))
		TAP_FAIL("%s: no line '%s'; the last is '%s'", what, check, last_of(litmus)->source);
	litmus_free(litmus);
}

TEST(the_check_is_about_what_differs)
{
	plan();
	check_saved("present", 0, -1, "check A a[0] is present");
	check_saved("present", 1, -1, "check A a[1] is not present");
	check_saved("zero", 1, -1, "check A a[1] is not zero-page");
	check_saved("exclusive", 0, -1, "check A a[0] is not exclusive");
	check_saved("mapcount", 0, -1, "check A mapcount a[0] 1");
	check_saved("bytes", 1, -1, "A peek A a[1] zero");
	program.looks = true;
	check_saved("bytes", 1, -1, "check A reads a[1] zero");
	check_saved("mapped", 1, -1, "check A a[1] is mapped");
	fake.view.pages[0][1].has_bytes = false;
	check_saved("readable", 1, -1, "A read a[1] fails SIGSEGV");
	fake.view.pages[0][1].has_bytes = true;
	check_saved("pages", -1, 0, "check p1 pages 1");
	check_saved("held bytes", -1, 0,
		    "check p1 reads \"aaa\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\"");
	check_saved("of which nobody has heard", -1, -1, "check A reads a[1] zero");
	fake.view.pages[1][0] = fake.view.pages[0][0];
	check_saved("frame", 0, -1, "check A a[0] same B a[0]");
	fake.view.pages[1][0].frame = 6;
	check_saved("frame", 0, -1, "check A a[0] differs B a[0]");
	memset(&fake.view.pages[0][0], 0, sizeof(fake.view.pages[0][0]));
	check_saved("mapped", 0, -1, "check A a[0] is not mapped");
	clean_up();
}

TEST(faults_are_checked_before_the_statement)
{
	struct litmus *litmus;

	plan();
	program.ops[5] = (struct fuzz_op){.kind = FUZZ_OP_WRITE};
	fake.outcomes[5] = 0;
	fake.view.faults = 1;
	snprintf(divergence.what, sizeof(divergence.what), "faults");
	litmus = save();
	CHECK_STR_EQ(litmus->stmts[5].source, "check A a[0] is not writable");
	CHECK_EQ(litmus->stmts[6].kind, STMT_WRITE);
	litmus_free(litmus);
	clean_up();
}

TEST(a_file_that_is_there_is_left_alone)
{
	char first[400];
	struct litmus *litmus;

	plan();
	litmus_free(save());
	memcpy(first, path, sizeof(first));
	snprintf(divergence.saw[0], sizeof(divergence.saw[0]), "another thing");
	litmus = save();
	CHECK(strcmp(first, path) != 0);
	CHECK_STR_EQ(litmus->test, "fuzz-bytes-77-2");
	litmus_free(litmus);
	REQUIRE_EQ(litmus_parse_file(first, &litmus, &(struct litmus_error){0}), 0);
	CHECK(says(litmus, "reads \"aaa\""));
	CHECK(!says(litmus, "another thing"));
	litmus_free(litmus);
	clean_up();
}

TEST(a_reference_that_goes_wrong_again_is_told)
{
	struct litmus *litmus;

	plan();
	fake.breaks_at = 4;
	divergence.is_error = true;
	litmus = save();
	CHECK(says(litmus, "outcomes and checks are missing"));
	CHECK(!says(litmus, "eager: "));
	CHECK_EQ(litmus->nstmts, 6);
	CHECK_EQ(fake.ended, 1);
	litmus_free(litmus);
	clean_up();
}

/* What the reference, an engine, showed is what an engine shows: the file passes there. */
static void check_passes(const struct litmus *litmus)
{
	struct run_options options = {
		.policy = UCOW_POLICY_EXCLUSIVE, .fork = UCOW_FORK_EAGER, .timeout_seconds = 60, .in_process = true};
	static struct run_result result;

	memset(&result, 0, sizeof(result));
	litmus_run_engine(litmus, &options, &result);
	if (result.verdict != VERDICT_PASS || !result.checks)
		TAP_FAIL("%s: verdict %d after %u checks: line %u, %s: %s%s", path, (int)result.verdict, result.checks,
			 result.line, result.check, result.saw, result.reason);
}

TEST(a_saved_file_holds_where_the_reference_is_right)
{
	static const char *const properties[] = {"bytes",     "readable",  "mapped",   "present",
						 "zero-page", "exclusive", "mapcount", "frame",
						 "copy",      "faults",    "pages",    "file bytes"};
	struct fuzz_subject *engine;

	plan();
	random_state = tap_seed();
	REQUIRE_EQ(fuzz_engine_open(UCOW_FORK_EAGER, &engine), 0);
	for (uint64_t seed = 0; seed < 240; seed++) {
		const char *what = properties[seed % (sizeof(properties) / sizeof(properties[0]))];
		struct litmus *litmus;
		struct fuzz_layout layout;

		/* Not against modes: there a device may spoil the zero page, which the flat model refuses to judge. */
		fuzz_generate(&program, tap_seed() + seed, 25, FUZZ_AGAINST_KERNEL);
		litmus = parse_printed(&program);
		REQUIRE(fuzz_lay_out(litmus, &layout));
		litmus_free(litmus);
		snprintf(divergence.what, sizeof(divergence.what), "%s", what);
		divergence.at = 5 + next_random() % 20;
		divergence.process = (int)(next_random() % layout.nprocesses);
		divergence.page = (int)(next_random() % layout.npages);
		divergence.handle = !layout.nhandles || seed & 1 ? -1 : (int)(next_random() % layout.nhandles);
		CHECK_EQ(fuzz_save(folder, &program, engine, &divergence, path, sizeof(path)), 0);
		litmus = parse_saved();
		check_passes(litmus);
		CHECK_GO_ON();
		litmus_free(litmus);
	}
	engine->type->close(engine);
	clean_up();
}

TEST(a_folder_that_cannot_be_made_is_an_error)
{
	plan();
	CHECK_EQ(fuzz_save("/dev/null/there", &program, &fake.subject, &divergence, path, sizeof(path)), -ENOTDIR);
	clean_up();
}

/* ---- what is known to differ ---- */

TEST(releases_are_compared_as_numbers)
{
	CHECK(fuzz_noise_is_before("5.19.0-41-generic", 6, 17));
	CHECK(fuzz_noise_is_before("6.9", 6, 17));
	CHECK(fuzz_noise_is_before("6.16.12+deb14-amd64", 6, 17));
	CHECK(!fuzz_noise_is_before("6.17.0-rc1", 6, 17));
	CHECK(!fuzz_noise_is_before("6.170", 6, 17));
	CHECK(!fuzz_noise_is_before("10.0.1", 6, 17));
	CHECK(!fuzz_noise_is_before("unknown", 6, 17));
}

/* Of what a move may come to only the one thing is known, and only on old kernels. */
static void expect_noise(const char *text, size_t at, const char *what, int expected)
{
	struct fuzz_divergence d = {.at = at, .subjects = {"kernel", "eager"}, .saw = {"one", "other"}};
	struct fuzz_divergence of_model = {.at = at, .subjects = {"flat", "eager"}};
	struct fuzz_test test = {0};
	struct litmus_error error;
	struct litmus *litmus;

	REQUIRE(!litmus_parse("noise.litmus", text, strlen(text), &litmus, &error));
	test.litmus = litmus;
	snprintf(d.what, sizeof(d.what), "%s", what);
	snprintf(of_model.what, sizeof(of_model.what), "%s", what);
	CHECK_EQ(fuzz_noise(NULL, &test, &d), expected);
	CHECK_EQ(fuzz_noise(NULL, &test, &of_model), -1);
	litmus_free(litmus);
}

/* Would catch classes that take whatever differs where pages merge. */
TEST(classes_of_merged_pages_are_narrow)
{
	static const char held[] =
		"title: t\nA map a 2\nA advise a mergeable\nksm merge\nA pin a[0] w -> p\nksm merge\nA "
		"write a \"x\"\nA move a -> b\n";
	static const char shared[] = "title: t\nA map a 2\nA fork B\nA advise a mergeable\nksm merge\nB advise a "
				     "unmergeable\nksm merge\nB advise a mergeable\n";

	expect_noise(held, 2, "exclusive", -1); /* nothing is held yet */
	expect_noise(held, 4, "exclusive", FUZZ_NOISE_GIVEN_UP);
	expect_noise(held, 4, "frame", FUZZ_NOISE_GIVEN_UP);
	expect_noise(held, 4, "bytes", -1);
	expect_noise(held, 4, "outcome", -1);
	expect_noise(held, 4, "present", -1);
	expect_noise(held, 5, "faults", FUZZ_NOISE_GIVEN_UP);
	expect_noise(held, 5, "exclusive", -1);
	expect_noise(held, 6, "mapcount", FUZZ_NOISE_MOVED);
	expect_noise(held, 6, "zero-page", FUZZ_NOISE_MOVED);
	expect_noise(held, 6, "bytes", -1);
	expect_noise(shared, 3, "mapcount", -1); /* the first merge */
	expect_noise(shared, 4, "mapcount", FUZZ_NOISE_OTHERS);
	expect_noise(shared, 4, "bytes", -1);
	expect_noise(shared, 5, "mapcount", FUZZ_NOISE_OTHERS);
	expect_noise(shared, 6, "mapcount", -1);
	expect_noise("title: t\nA map a 2\nA move a -> b\n", 1, "mapcount", -1);
}

TEST(a_class_of_noise_is_narrow)
{
	struct fuzz_divergence d = {
		.at = 1, .subjects = {"kernel", "eager"}, .what = "outcome", .saw = {"EFAULT", "success"}};
	static const struct fuzz_op ops[] = {
		{.kind = FUZZ_OP_MAP, .npages = 2}, {.kind = FUZZ_OP_MOVE, .npages = 1}, {.kind = FUZZ_OP_MOVE}};
	struct fuzz_test test = {0};
	struct utsname name;
	struct litmus *litmus;
	int old;

	REQUIRE_EQ(uname(&name), 0);
	old = fuzz_noise_is_before(name.release, 6, 17) ? FUZZ_NOISE_MOVE : -1;
	program = (struct fuzz_program){.against = FUZZ_AGAINST_MODES, .nops = 3};
	memcpy(program.ops, ops, sizeof(ops));
	litmus = parse_printed(&program);
	test.litmus = litmus;
	CHECK_EQ(fuzz_noise(NULL, &test, &d), old);
	d.at = 2; /* one page */
	CHECK_EQ(fuzz_noise(NULL, &test, &d), -1);
	d.at = 3; /* the end */
	CHECK_EQ(fuzz_noise(NULL, &test, &d), -1);
	d.at = 1;
	snprintf(d.saw[0], sizeof(d.saw[0]), "EINVAL");
	CHECK_EQ(fuzz_noise(NULL, &test, &d), -1);
	snprintf(d.saw[0], sizeof(d.saw[0]), "EFAULT");
	snprintf(d.subjects[0], sizeof(d.subjects[0]), "flat");
	CHECK_EQ(fuzz_noise(NULL, &test, &d), -1);
	litmus_free(litmus);
}

TAP_MAIN()
