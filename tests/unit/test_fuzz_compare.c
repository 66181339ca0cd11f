/* SPDX-License-Identifier: MIT */
/*
 * Comparing in the fuzzer: whatever property of a view differs is seen if both sides can tell it, and called by its
 * name and place; nothing is seen where all is equal, where a side cannot tell, or where a field means nothing. And
 * subjects that run: a court agrees about generated programs, and one that is lied to does not.
 */
#include "litmus/fuzz_program.h"

#include "tap.h"

#include <errno.h>
#include <limits.h>
#include <ucow/machine.h>

/* Two processes with private memory (pages 0 and 1; 3 and 4, moved), shared memory (page 2), a pin and a file. */
static const char program_text[] = "title: everything that a view shows\n"
				   "A map a 2\n"
				   "A map s 1 shared\n"
				   "file f 2 \"disk\"\n"
				   "A pin a w -> p\n"
				   "A fork B\n"
				   "A write a \"x\"\n"
				   "A read s\n"
				   "A move a -> m\n";
enum { AT_PIN = 3, AT_FORK = 4, AT_WRITE = 5, AT_READ_SHARED = 6, AT_MOVE = 7, SHARED_PAGE = 2, MOVED_PAGE = 3 };
enum { SEES_ALL = (FUZZ_SEES_OUTCOME << 1) - 1 };

static struct fuzz_test test;
static struct fuzz_view before[2], now[2];
static struct fuzz_subject_type types[2];
static struct fuzz_divergence divergence;

static void show_page(struct fuzz_page *page, unsigned process, unsigned number)
{
	*page = (struct fuzz_page){
		.mapped = true,
		.has_bytes = true,
		.shared = number == SHARED_PAGE,
		.present = true,
		.mapcount = 1,
		.frame = 1000 + process * 100 + number,
	};
	memset(page->bytes, 'a' + (int)number, sizeof(page->bytes));
}

static void show_all(struct fuzz_view *view)
{
	const struct fuzz_layout *layout = &test.layout;

	memset(view, 0, sizeof(*view));
	for (unsigned process = 0; process < layout->nprocesses; process++) {
		view->alive[process] = true;
		for (unsigned page = 0; page < layout->npages; page++)
			show_page(&view->pages[process][page], process, page);
	}
	view->held[0] = (struct fuzz_held){.bound = true, .npages = 2, .has_bytes = {true, true}};
	view->files[0] = (struct fuzz_file){.made = true, .npages = 2};
}

/* Both sides show the same; the second one numbers its frames in its own way. */
static void set_up(void)
{
	struct litmus_error error;
	struct litmus *litmus;

	if (!test.litmus) {
		if (litmus_parse("program.litmus", program_text, strlen(program_text), &litmus, &error))
			printf("# %u: %s\n", error.loc.line, error.text);
		test.litmus = litmus;
		REQUIRE(litmus && fuzz_lay_out(litmus, &test.layout));
		REQUIRE_EQ(test.layout.npages, 5);
	}
	types[0] = (struct fuzz_subject_type){.name = "one", .sees = SEES_ALL};
	types[1] = (struct fuzz_subject_type){.name = "other", .sees = SEES_ALL};
	for (unsigned who = 0; who < 2; who++) {
		show_all(&before[who]);
		show_all(&now[who]);
	}
	for (unsigned process = 0; process < test.layout.nprocesses; process++)
		for (unsigned page = 0; page < test.layout.npages; page++) {
			before[1].pages[process][page].frame = 7 + 3 * before[0].pages[process][page].frame;
			now[1].pages[process][page].frame = 7 + 3 * now[0].pages[process][page].frame;
		}
}

static bool compare_at(size_t at)
{
	const struct fuzz_subject_type *const both[2] = {&types[0], &types[1]};
	const struct fuzz_view *const earlier[2] = {&before[0], &before[1]}, *const later[2] = {&now[0], &now[1]};

	return fuzz_compare(&test, at, both, earlier, later, &divergence);
}

/* ---- equal ---- */

TEST(nothing_differs_where_all_is_equal)
{
	set_up();
	for (size_t at = 0; at <= test.litmus->nstmts; at++)
		CHECK(!compare_at(at));
}

TEST(nothing_differs_without_a_statement_before)
{
	const struct fuzz_subject_type *const both[2] = {&types[0], &types[1]};
	const struct fuzz_view *const none[2] = {NULL, NULL}, *const later[2] = {&now[0], &now[1]};

	set_up();
	now[0].pages[0][0].frame = 5555;
	CHECK(!fuzz_compare(&test, 0, both, none, later, &divergence));
}

/* ---- one property at a time ---- */

static struct fuzz_page *changed_page(void)
{
	return &now[1].pages[1][1];
}

static void change_outcome(void)
{
	now[1].outcome = LITMUS_SIGSEGV;
}

static void change_life(void)
{
	now[1].alive[1] = false;
}

static void change_mapped(void)
{
	changed_page()->mapped = false;
}

static void change_readable(void)
{
	changed_page()->has_bytes = false;
}

static void change_first_byte(void)
{
	changed_page()->bytes[0] ^= 1;
}

static void change_last_byte(void)
{
	changed_page()->bytes[FUZZ_WINDOW - 1] ^= 1;
}

static void change_present(void)
{
	changed_page()->present = false;
}

static void change_zero(void)
{
	changed_page()->zero = true;
}

static void change_exclusive(void)
{
	changed_page()->exclusive = true;
}

static void change_mapcount(void)
{
	changed_page()->mapcount = 2;
}

static void change_wp(void)
{
	changed_page()->wp = true;
}

static void change_bound(void)
{
	now[1].held[0].bound = false;
}

static void change_taken(void)
{
	now[1].held[0].npages = 1;
}

static void change_held(void)
{
	now[1].held[0].bytes[1][FUZZ_TEXT] ^= 1;
}

static void change_file_size(void)
{
	now[1].files[0].npages = 3;
}

static void change_file(void)
{
	now[1].files[0].bytes[1][0] ^= 1;
}

static void change_faults(void)
{
	now[1].faults = 1;
}

/* Now it shares a frame with another process, in this view only. */
static void change_frame(void)
{
	now[1].pages[1][1].frame = before[1].pages[1][1].frame = now[1].pages[0][1].frame;
}

static void change_copy(void)
{
	changed_page()->frame = 9999;
}

static const struct property {
	void (*change)(void);
	const char *what;
	unsigned sees; /* by whoever does not see it, nothing is */
	int process, page, handle;
} properties[] = {
	{change_outcome, "outcome", FUZZ_SEES_OUTCOME, -1, -1, -1},
	{change_life, "alive", 0, 1, -1, -1},
	{change_mapped, "mapped", FUZZ_SEES_MAPPED, 1, 1, -1},
	{change_readable, "readable", FUZZ_SEES_MAPPED, 1, 1, -1},
	{change_first_byte, "bytes", FUZZ_SEES_BYTES, 1, 1, -1},
	{change_last_byte, "bytes", FUZZ_SEES_BYTES, 1, 1, -1},
	{change_present, "present", FUZZ_SEES_PRESENT, 1, 1, -1},
	{change_zero, "zero-page", FUZZ_SEES_PRESENT, 1, 1, -1},
	{change_exclusive, "exclusive", FUZZ_SEES_EXCLUSIVE, 1, 1, -1},
	{change_mapcount, "mapcount", FUZZ_SEES_MAPCOUNT, 1, 1, -1},
	{change_wp, "wp", FUZZ_SEES_WP, 1, 1, -1},
	{change_bound, "bound", FUZZ_SEES_BYTES, -1, -1, 0},
	{change_taken, "pages", FUZZ_SEES_BYTES, -1, -1, 0},
	{change_held, "bytes", FUZZ_SEES_BYTES, -1, 1, 0},
	{change_file_size, "file pages", FUZZ_SEES_BYTES, -1, -1, -1},
	{change_file, "file bytes", FUZZ_SEES_BYTES, -1, 1, -1},
	{change_faults, "faults", FUZZ_SEES_FAULTS, 0, 0, -1},
	{change_frame, "frame", FUZZ_SEES_FRAMES, 1, 1, -1},
	{change_copy, "copy", FUZZ_SEES_FRAMES, 1, 1, -1},
};

static const struct property *const properties_end = properties + sizeof(properties) / sizeof(properties[0]);

TEST(a_difference_is_seen_and_told)
{
	for (const struct property *p = properties; p < properties_end; p++) {
		set_up();
		p->change();
		CHECK(compare_at(AT_WRITE));
		CHECK_STR_EQ(divergence.what, p->what);
		CHECK_EQ(divergence.at, AT_WRITE);
		CHECK_EQ(divergence.process, p->process);
		CHECK_EQ(divergence.page, p->page);
		CHECK_EQ(divergence.handle, p->handle);
		CHECK_STR_EQ(divergence.subjects[0], "one");
		CHECK_STR_EQ(divergence.subjects[1], "other");
		CHECK(!divergence.is_error);
		CHECK(divergence.saw[0][0] && strcmp(divergence.saw[0], divergence.saw[1]));
	}
}

TEST(what_one_side_cannot_see_does_not_differ)
{
	for (const struct property *p = properties; p < properties_end; p++)
		for (unsigned blind = 0; blind < 2; blind++) {
			set_up();
			p->change();
			types[blind].sees &= ~p->sees;
			CHECK_EQ(compare_at(AT_WRITE), !p->sees);
		}
}

TEST(an_outcome_goes_before_what_comes_of_it)
{
	set_up();
	change_first_byte();
	change_copy();
	change_outcome();
	CHECK(compare_at(AT_WRITE));
	CHECK_STR_EQ(divergence.what, "outcome");
	CHECK_STR_EQ(divergence.saw[0], "success");
	CHECK_STR_EQ(divergence.saw[1], "SIGSEGV");
}

TEST(bytes_are_told_where_they_are)
{
	set_up();
	memcpy(now[0].pages[0][1].bytes + FUZZ_TEXT, "same\1", 5);
	memcpy(now[1].pages[0][1].bytes + FUZZ_TEXT, "sane\1", 5);
	memset(now[0].pages[0][1].bytes + FUZZ_TEXT + 5, 0, FUZZ_TEXT - 5);
	memset(now[1].pages[0][1].bytes + FUZZ_TEXT + 5, 0, FUZZ_TEXT - 5);
	CHECK(compare_at(AT_WRITE));
	CHECK_STR_EQ(divergence.saw[0], "at byte 512: \"same\\x01\"");
	CHECK_STR_EQ(divergence.saw[1], "at byte 512: \"sane\\x01\"");
}

/* ---- what means nothing ---- */

TEST(bytes_that_are_not_promised_do_not_differ)
{
	set_up();
	now[0].held[0].has_bytes[1] = false;
	change_held();
	CHECK(!compare_at(AT_WRITE));

	set_up();
	now[0].pages[1][1].has_bytes = now[1].pages[1][1].has_bytes = false;
	change_first_byte();
	CHECK(!compare_at(AT_WRITE));
}

/* What was advised free is what it was, or zero; nothing else. */
TEST(bytes_that_may_be_gone_may_be_zero)
{
	set_up();
	now[0].pages[1][1].loose = 1 << 3;
	now[1].pages[1][1].bytes[3] = 0;
	CHECK(!compare_at(AT_WRITE));
	now[1].pages[1][1].bytes[3] = 1;
	CHECK(compare_at(AT_WRITE));
	now[1].pages[1][1].bytes[3] = now[0].pages[1][1].bytes[3];
	now[1].pages[1][1].bytes[4] = 0;
	CHECK(compare_at(AT_WRITE));
	CHECK_STR_EQ(divergence.what, "bytes");

	set_up();
	now[0].held[0].bytes[1][7] = 'x';
	CHECK(compare_at(AT_WRITE));
	now[0].held[0].loose[1] = 1 << 7;
	CHECK(!compare_at(AT_WRITE));
	now[0].files[0].bytes[0][FUZZ_WINDOW - 1] = 'x';
	CHECK(compare_at(AT_WRITE));
	now[0].files[0].loose[0] = UINT64_C(1) << (FUZZ_WINDOW - 1);
	CHECK(!compare_at(AT_WRITE));
}

TEST(who_stopped_half_way_shows_what_was_or_what_should_be)
{
	const struct fuzz_subject_type *const both[2] = {&types[0], &types[1]};

	set_up();
	now[0].pages[0][0].bytes[0] = 'N';
	before[0].pages[0][0].bytes[0] = 'O';
	now[1].pages[0][0].bytes[0] = 'N';
	CHECK(!fuzz_compare_half(&test, AT_WRITE, both, &before[0], &now[0], &now[1], &divergence));
	now[1].pages[0][0].bytes[0] = 'O';
	CHECK(!fuzz_compare_half(&test, AT_WRITE, both, &before[0], &now[0], &now[1], &divergence));
	now[1].pages[0][0].bytes[0] = 'W';
	CHECK(fuzz_compare_half(&test, AT_WRITE, both, &before[0], &now[0], &now[1], &divergence));
	CHECK_STR_EQ(divergence.what, "bytes");
	CHECK(divergence.process == 0 && divergence.page == 0);
}

TEST(the_dead_do_not_differ)
{
	set_up();
	now[0].alive[1] = now[1].alive[1] = false;
	change_mapped();
	change_copy();
	change_exclusive();
	CHECK(!compare_at(AT_WRITE));
}

TEST(what_is_absent_or_shared_has_no_entry_to_differ_in)
{
	set_up();
	now[0].pages[1][1].present = now[1].pages[1][1].present = false;
	change_exclusive();
	change_mapcount();
	change_copy();
	CHECK(!compare_at(AT_WRITE));

	set_up();
	now[1].pages[1][SHARED_PAGE].present = false;
	now[1].pages[1][SHARED_PAGE].mapcount = 5;
	now[1].pages[0][SHARED_PAGE].frame = 12345;
	CHECK(!compare_at(AT_WRITE));
	now[1].pages[1][SHARED_PAGE].bytes[3] ^= 1;
	CHECK(compare_at(AT_WRITE));
	CHECK_STR_EQ(divergence.what, "bytes");
}

TEST(faults_count_where_entries_decide)
{
	const size_t silent[] = {AT_PIN, AT_FORK, AT_READ_SHARED, AT_MOVE};

	for (unsigned i = 0; i < sizeof(silent) / sizeof(silent[0]); i++) {
		set_up();
		change_faults();
		CHECK(!compare_at(silent[i]));
	}
	set_up();
	now[1].faults = UINT_MAX; /* not counted */
	CHECK(!compare_at(AT_WRITE));
	set_up();
	now[0].outcome = now[1].outcome = LITMUS_SIGSEGV;
	change_faults();
	CHECK(!compare_at(AT_WRITE));
}

/* ---- frames ---- */

TEST(the_same_frames_by_other_numbers_are_equal)
{
	set_up();
	for (unsigned who = 0; who < 2; who++)
		for (unsigned page = 0; page < 2; page++) {
			before[who].pages[1][page].frame = before[who].pages[0][page].frame;
			now[who].pages[1][page].frame = now[who].pages[0][page].frame;
		}
	CHECK(!compare_at(AT_WRITE));
}

TEST(sharing_is_told_with_whom)
{
	set_up();
	change_frame();
	CHECK(compare_at(AT_WRITE));
	CHECK_STR_EQ(divergence.saw[0], "another frame as A's page 1 of a");
	CHECK_STR_EQ(divergence.saw[1], "the same frame as A's page 1 of a");
}

TEST(a_new_frame_on_both_sides_is_equal)
{
	set_up();
	now[0].pages[1][1].frame = 4711;
	now[1].pages[1][1].frame = 4712;
	CHECK(!compare_at(AT_WRITE));
}

TEST(a_frame_is_kept_only_by_a_page_that_had_one)
{
	set_up();
	before[0].pages[1][1].present = false;
	change_copy();
	CHECK(!compare_at(AT_WRITE));
	set_up();
	before[1].pages[1][1].zero = true;
	change_copy();
	CHECK(!compare_at(AT_WRITE));
	set_up();
	before[0].alive[1] = false;
	change_copy();
	CHECK(!compare_at(AT_WRITE));
}

/* A's pages of m are on what were those of a: pages that moved keep their frames. */
static void move_frames(void)
{
	set_up();
	for (unsigned who = 0; who < 2; who++)
		for (unsigned page = 0; page < 2; page++) {
			struct fuzz_page *moved = &now[who].pages[0][MOVED_PAGE + page];

			before[who].pages[0][MOVED_PAGE + page] = (struct fuzz_page){0};
			moved->frame = before[who].pages[0][page].frame;
			now[who].pages[0][page] = (struct fuzz_page){0};
		}
}

TEST(a_page_that_moves_keeps_its_frame)
{
	move_frames();
	CHECK(!compare_at(AT_MOVE));
	now[1].pages[0][MOVED_PAGE + 1].frame = 4711;
	CHECK(compare_at(AT_MOVE));
	CHECK_STR_EQ(divergence.what, "copy");
	CHECK_EQ(divergence.process, 0);
	CHECK_EQ(divergence.page, MOVED_PAGE + 1);
	CHECK(!compare_at(AT_WRITE));
}

/* ---- subjects that run ---- */

static struct fuzz_court court;

static void open_court(void)
{
	char why[200];

	if (fuzz_court_open(FUZZ_AGAINST_MODES, &court, why, sizeof(why)))
		printf("# %s\n", why);
	REQUIRE_EQ(court.nsubjects, 4);
}

static unsigned room; /* of the machines that run */

static int run_text(const char *text)
{
	struct litmus_error error;
	struct fuzz_test run = {0};
	struct litmus *litmus;
	int result;

	REQUIRE(!litmus_parse("run.litmus", text, strlen(text), &litmus, &error));
	run.litmus = litmus;
	run.room = room;
	REQUIRE(fuzz_lay_out(litmus, &run.layout));
	result = fuzz_run(&court, &run, &divergence);
	if (result)
		printf("# at %zu, %s and %s: %s: %s, %s\n", divergence.at, divergence.subjects[0],
		       divergence.subjects[1], divergence.what, divergence.saw[0], divergence.saw[1]);
	litmus_free(litmus);
	return result;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { PROGRAMS = 150 };
#else
enum { PROGRAMS = 600 };
#endif

TEST(the_subjects_agree_about_generated_programs)
{
	static struct fuzz_program program;

	open_court();
	for (uint64_t seed = 0; seed < PROGRAMS; seed++) {
		size_t nbytes;
		char *text;

		fuzz_generate(&program, tap_seed() + seed, seed % 50 ? 30 : 120, FUZZ_AGAINST_MODES);
		room = program.room;
		REQUIRE_EQ(fuzz_print(&program, &text, &nbytes), 0);
		if (run_text(text)) {
			printf("# seed %" PRIu64 "\n%s", tap_seed() + seed, text);
			REQUIRE(!"agreed");
		}
		free(text);
	}
	fuzz_court_close(&court);
}

TEST(views_show_what_a_program_does)
{
	open_court();
	CHECK_EQ(run_text("title: t\nA map a 2\nA write a[0] \"one\"\nA fork B\nA write a[0] \"two\"\n"
			  "B unmap a[1]\nB pin a[0] w -> p\nA write a[1]+512 \"three\"\nfile f 2 \"disk\"\n"),
		 0);
	for (unsigned i = 0; i < court.nsubjects; i++) {
		const struct fuzz_view *view = court.views[i][0];

		CHECK(view->alive[0] && view->alive[1]);
		CHECK(!memcmp(view->pages[0][0].bytes, "two", 4));
		CHECK(!memcmp(view->pages[0][1].bytes + FUZZ_TEXT, "three", 6));
		CHECK(!memcmp(view->pages[1][0].bytes, "one", 4));
		CHECK(!view->pages[1][1].mapped && view->pages[0][1].mapped);
		CHECK(view->held[0].bound && view->held[0].npages == 1);
		CHECK(!memcmp(view->held[0].bytes[0], "one", 4));
		CHECK(view->files[0].npages == 2 && !memcmp(view->files[0].bytes[1], "disk", 5));
	}
	CHECK(court.views[1][0]->pages[0][0].present && court.views[1][0]->pages[0][0].exclusive);
	CHECK_EQ(court.views[1][0]->pages[0][0].mapcount, 1);
	CHECK(court.views[1][0]->pages[0][0].frame != court.views[1][0]->pages[1][0].frame);
	fuzz_court_close(&court);
}

/* ---- memory that is short ---- */

static uint64_t tally_of(unsigned subject, enum fuzz_tally which)
{
	return court.subjects[subject]->tally[which];
}

/* A hundred pages of three processes, each with bytes of its own, where 28 fit. */
TEST(a_small_machine_swaps_by_itself)
{
	char text[4000] = "title: t\nmachine: ram=2M swap=4M\nA map a 8\nA map b 8\nA map c 8\nA fork B\nA fork C\n";

	for (unsigned i = 0; i < 9; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%c write %c \"%u\"\n", "ABC"[i % 3],
			 "abc"[i / 3], i);
	open_court();
	room = 28;
	CHECK_EQ(run_text(text), 0);
	for (unsigned i = 1; i < court.nsubjects; i++) {
		CHECK(tally_of(i, FUZZ_TALLY_OUT) > 20);
		CHECK(tally_of(i, FUZZ_TALLY_IN) > 20); /* at the end all pages are looked at */
		CHECK(!court.out[i]);
	}
	room = 0;
	CHECK_EQ(run_text(text), 0);
	for (unsigned i = 1; i < court.nsubjects; i++)
		CHECK(tally_of(i, FUZZ_TALLY_OUT) < 200);
	fuzz_court_close(&court);
}

TEST(what_was_advised_free_may_be_gone)
{
	open_court();
	CHECK_EQ(run_text("title: t\nA map a 4\nA write a \"old\"\nA fork B\nA write a \"own\"\nA advise a "
			  "free\nreclaim 100\n"
			  "A write a[1] \"n\"\nA pin a[2] r -> p\nA write a[2] \"m\"\nA fork C\nA advise a[3] free\n"),
		 0);
	CHECK(tally_of(1, FUZZ_TALLY_FREED) > 0);
	CHECK_EQ(court.views[0][0]->pages[0][0].loose, (UINT64_C(1) << FUZZ_WINDOW) - 1);
	CHECK_EQ(court.views[0][0]->pages[0][1].loose, (UINT64_C(1) << FUZZ_WINDOW) - 2);
	CHECK_EQ(court.views[0][0]->pages[1][0].loose, 0);
	CHECK(!memcmp(court.views[1][0]->pages[0][0].bytes, "\0\0", 3));
	CHECK(!memcmp(court.views[1][0]->pages[0][1].bytes, "n\0", 3));
	/* Nothing is lost of it where memory is not short. */
	CHECK_EQ(run_text("title: t\nA map a 4\nA write a \"old\"\nA advise a free\nA fork B\n"), 0);
	CHECK_EQ(court.views[0][0]->pages[0][0].loose, 0);
	CHECK(!memcmp(court.views[1][0]->pages[1][0].bytes, "old", 4));
	fuzz_court_close(&court);
}

TEST(equal_pages_merge_and_part)
{
	open_court();
	CHECK_EQ(run_text("title: t\nA map a 6\nA write a \"same\"\nA write a[5] \"\\x00\\x00\\x00\\x00\"\nA advise a "
			  "mergeable\n"
			  "ksm merge zero-pages\nreclaim 100\nA fork B\nB write a[1..2] \"else\"\nA advise a "
			  "unmergeable\n"),
		 0);
	CHECK(tally_of(1, FUZZ_TALLY_MERGED) >= 4);
	CHECK_EQ(tally_of(1, FUZZ_TALLY_ZEROED), 1);
	CHECK(tally_of(1, FUZZ_TALLY_OUT) >= 1);
	fuzz_court_close(&court);
}

/* Would catch a class that takes whatever differs. */
TEST(a_limit_is_met_by_what_is_pinned_only)
{
	open_court();
	CHECK_EQ(run_text("title: t\ncgroup m1 limit=4 swap=100\nA join m1\nA map a 8\nA write a \"1\"\nreclaim 1\n"
			  "A fork B into m1\nB write a \"2\"\n"),
		 0);
	for (unsigned i = 1; i < court.nsubjects; i++) {
		CHECK(!court.out[i]);
		CHECK(court.views[i][0]->usage[0] && court.views[i][0]->usage[0] <= 4);
	}
	CHECK_EQ(run_text("title: t\ncgroup m1 limit=4\nA join m1\nA map a 8\nA pin a[0..3] w longterm -> p\nA write a "
			  "\"1\"\n"
			  "reclaim 1\n"),
		 0);
	for (unsigned i = 1; i < court.nsubjects; i++)
		CHECK(court.out[i]);
	/* The next program has all of them again. */
	CHECK_EQ(run_text("title: t\nA map a 1\n"), 0);
	CHECK(!court.out[1]);
	fuzz_court_close(&court);
}

TEST(groups_are_charged_alike_in_all_fork_modes)
{
	open_court();
	CHECK_EQ(run_text("title: t\ncgroup m1 limit=100000\ncgroup m2 limit=100000 in=m1\nA join m2\nA map a 3\nA "
			  "write a \"1\"\n"
			  "A fork B into m1\nB write a[0] \"2\"\n"),
		 0);
	for (unsigned i = 1; i < court.nsubjects; i++) {
		CHECK_EQ(court.views[i][0]->usage[0], 4);
		CHECK_EQ(court.views[i][0]->usage[1], 3);
	}
	fuzz_court_close(&court);
}

/* A subject between the court and another one that changes what it shows from the third statement on. */
static const struct fuzz_subject_type *honest;
static const char *lie;

static int lying_step(struct fuzz_subject *subject, size_t i, struct fuzz_view *view, char *why, size_t size)
{
	int error = honest->step(subject, i, view, why, size);

	if (i < 3)
		return error;
	if (!strcmp(lie, "error")) {
		snprintf(why, size, "made up");
		return -EIO;
	}
	if (!strcmp(lie, "charge"))
		view->usage[0]++;
	else
		view->pages[0][0].bytes[0] ^= 1;
	if (!strcmp(lie, "no memory")) {
		view->outcome = ENOMEM;
		view->ran_out = true;
		view->reclaimable = 30;
	}
	return error;
}

static int lying_end(struct fuzz_subject *subject, char *why, size_t size)
{
	int error = honest->end(subject, why, size);

	snprintf(why, size, "left behind");
	return error ? error : -EIO;
}

static int run_with_lies(unsigned liar, bool at_end)
{
	struct fuzz_subject_type type;
	int result;

	open_court();
	honest = court.subjects[liar]->type;
	type = *honest;
	if (at_end)
		type.end = lying_end;
	else
		type.step = lying_step;
	court.subjects[liar]->type = &type;
	result = run_text("title: t\ncgroup m limit=50\nA map a 2\nA write a \"one\"\nA fork B\nB write a \"two\"\n");
	court.subjects[liar]->type = honest;
	fuzz_court_close(&court);
	return result;
}

TEST(every_engine_is_compared)
{
	static const char *const names[] = {"flat", "eager", "tables", "lazy"};

	lie = "bytes";
	for (unsigned liar = 0; liar < 4; liar++) {
		CHECK_EQ(run_with_lies(liar, false), 1);
		CHECK_EQ(divergence.at, 3);
		CHECK_STR_EQ(divergence.what, "bytes");
		CHECK_STR_EQ(divergence.subjects[0], "flat");
		CHECK_STR_EQ(divergence.subjects[1], liar ? names[liar] : "eager");
	}
}

TEST(an_engine_that_goes_wrong_is_a_divergence_and_a_reference_is_none)
{
	lie = "error";
	for (unsigned liar = 0; liar < 4; liar++) {
		CHECK_EQ(run_with_lies(liar, false), liar ? 1 : -EIO);
		CHECK(divergence.is_error);
		CHECK_EQ(divergence.at, 3);
		CHECK_STR_EQ(divergence.saw[0], "made up");
	}
}

TEST(no_memory_is_no_excuse_where_there_was_some)
{
	lie = "no memory";
	for (unsigned liar = 1; liar < 4; liar++) {
		CHECK_EQ(run_with_lies(liar, false), 1);
		CHECK_EQ(divergence.at, 3);
	}
}

TEST(engines_are_compared_in_what_they_charge)
{
	lie = "charge";
	CHECK_EQ(run_with_lies(0, false), 0); /* the model charges nobody */
	for (unsigned liar = 1; liar < 4; liar++) {
		CHECK_EQ(run_with_lies(liar, false), 1);
		CHECK_STR_EQ(divergence.what, "usage");
	}
}

TEST(what_an_engine_leaves_behind_is_a_divergence_at_the_end)
{
	CHECK_EQ(run_with_lies(3, true), 1);
	CHECK(divergence.is_error);
	CHECK_EQ(divergence.at, 5);
	CHECK_STR_EQ(divergence.subjects[0], "lazy");
	CHECK_STR_EQ(divergence.saw[0], "left behind");
}

TAP_MAIN()
