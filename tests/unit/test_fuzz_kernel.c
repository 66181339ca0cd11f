/* SPDX-License-Identifier: MIT */
/*
 * The live kernel as a subject of differential fuzzing: fixed programs step through it and show what they must. Where
 * the kernel or this user's rights do not allow it, a test is skipped and says why.
 */
#include "tap.h"

#include "litmus/facilities.h"
#include "litmus/fuzz_kernel.h"
#include "litmus/fuzz_noise.h"

#include <dirent.h>
#include <grp.h>
#include <sys/prctl.h>

static struct fuzz_view view;

struct bench {
	struct fuzz_subject *subject;
	struct fuzz_test test;
	struct litmus *litmus;
	char why[200];
	size_t done;
};

static bool open_bench(struct bench *bench)
{
	const char *reason;

	*bench = (struct bench){0};
	if (!litmus_kernel_possible(&reason)) {
		snprintf(tap_skipped, sizeof(tap_skipped), "no live kernel: %s", reason);
		return false;
	}
	REQUIRE_EQ(fuzz_kernel_open(&bench->subject), 0);
	return true;
}

static bool sees(const struct bench *bench, unsigned what)
{
	return (bench->subject->type->sees & what) == what;
}

static int begin(struct bench *bench, const char *program, bool looks)
{
	struct litmus_error error;
	char text[2000];

	snprintf(text, sizeof(text), "title: a test\n%s", program);
	REQUIRE_EQ(litmus_parse("test.litmus", text, strlen(text), &bench->litmus, &error), 0);
	bench->test = (struct fuzz_test){.litmus = bench->litmus, .looks = looks};
	REQUIRE(fuzz_lay_out(bench->litmus, &bench->test.layout));
	bench->done = 0;
	return bench->subject->type->begin(bench->subject, &bench->test, bench->why, sizeof(bench->why));
}

/* Do @n more statements. */
static int steps(struct bench *bench, size_t n)
{
	int error = 0;

	for (; !error && n; n--)
		error = bench->subject->type->step(bench->subject, bench->done++, &view, bench->why,
						   sizeof(bench->why));
	return error;
}

static int end(struct bench *bench)
{
	int error = bench->subject->type->end(bench->subject, bench->why, sizeof(bench->why));

	litmus_free(bench->litmus);
	bench->litmus = NULL;
	return error;
}

static void close_bench(struct bench *bench)
{
	bench->subject->type->close(bench->subject);
}

/* Begin @program and do @n statements of it; false, and the reason, if it is skipped. */
static bool start(struct bench *bench, const char *program, bool looks, size_t n)
{
	int error;

	if (!open_bench(bench))
		return false;
	error = begin(bench, program, looks);
	if (!error)
		error = steps(bench, n);
	if (error == -EOPNOTSUPP) {
		snprintf(tap_skipped, sizeof(tap_skipped), "%.180s", bench->why);
		return false;
	}
	REQUIRE_EQ(error, 0);
	return true;
}

static bool starts_with(const uint8_t *bytes, const char *text)
{
	return !memcmp(bytes, text, strlen(text));
}

static void finish(struct bench *bench)
{
	REQUIRE_EQ(end(bench), 0);
	close_bench(bench);
}

/* ---- what a step shows ---- */

TEST(contents_after_every_statement)
{
	struct bench bench;

	if (!start(&bench, "A map a 2\nA write a[0] \"one\"\nA fork B\nA write a[0]+512 \"two\"\nB exit\n", false, 3))
		return;
	CHECK(view.alive[0] && view.alive[1]);
	CHECK(starts_with(view.pages[1][0].bytes, "one"));
	CHECK_EQ(steps(&bench, 1), 0);
	CHECK(starts_with(view.pages[0][0].bytes, "one"));
	CHECK(starts_with(view.pages[0][0].bytes + FUZZ_TEXT, "two"));
	CHECK_EQ(view.pages[1][0].bytes[FUZZ_TEXT], 0);
	CHECK_EQ(steps(&bench, 1), 0);
	CHECK(view.alive[0] && !view.alive[1]);
	finish(&bench);
}

TEST(outcomes_are_taken_not_judged)
{
	struct bench bench;

	if (!start(&bench, "A map a 3\nA unmap a[1]\nA read a\nA protect a r\nA write a[2] \"x\"\nA read a[2]\n", false,
		   2))
		return;
	CHECK(view.pages[0][0].mapped && !view.pages[0][1].mapped && !view.pages[0][1].has_bytes);
	CHECK_EQ(steps(&bench, 1), 0);
	CHECK_EQ(view.outcome, LITMUS_SIGSEGV);
	CHECK_EQ(steps(&bench, 1), 0);
	CHECK_EQ(view.outcome, ENOMEM);
	CHECK_EQ(steps(&bench, 2), 0);
	CHECK_EQ(view.outcome, 0);
	finish(&bench);
}

TEST(frames_flags_and_counts)
{
	struct bench bench;

	if (!start(&bench, "A map a 1\nA write a \"one\"\nA fork B\nB write a \"two\"\n", false, 2))
		return;
	if (!sees(&bench, FUZZ_SEES_FRAMES | FUZZ_SEES_EXCLUSIVE | FUZZ_SEES_MAPCOUNT))
		SKIP("this user does not see frames");
	CHECK(view.pages[0][0].present && view.pages[0][0].exclusive);
	CHECK_EQ(view.pages[0][0].mapcount, 1);
	CHECK_EQ(steps(&bench, 1), 0);
	CHECK(view.pages[0][0].frame && view.pages[0][0].frame == view.pages[1][0].frame);
	CHECK(!view.pages[0][0].exclusive && !view.pages[1][0].exclusive);
	CHECK_EQ(view.pages[1][0].mapcount, 2);
	CHECK_EQ(steps(&bench, 1), 0);
	CHECK(view.pages[0][0].frame != view.pages[1][0].frame);
	CHECK(!view.pages[0][0].exclusive && view.pages[1][0].exclusive);
	finish(&bench);
}

/* Would catch a count that takes the agent's own faults along: it was forked just before. */
TEST(faults_are_those_of_the_access)
{
	struct bench bench;

	if (!start(&bench,
		   "A map a 2\nA fork B\nB read a\nB read a\nB write a[0] \"x\"\nB write a[0] \"y\"\nB write a \"z\"\n",
		   false, 2))
		return;
	CHECK_EQ(view.faults, UINT_MAX);
	for (unsigned i = 0; i < 5; i++) {
		static const unsigned faults[] = {2, 0, 1, 0, 1};

		CHECK_EQ(steps(&bench, 1), 0);
		CHECK_EQ(view.faults, faults[i]);
	}
	finish(&bench);
}

TEST(absent_pages_stay_absent_unless_looks_are_loads)
{
	static const char program[] = "A map a 2\nA write a[0] \"x\"\n";
	struct bench bench;

	if (!start(&bench, program, false, 2))
		return;
	if (!sees(&bench, FUZZ_SEES_PRESENT))
		SKIP("this user cannot tell the zero page");
	CHECK(view.pages[0][0].present && !view.pages[0][1].present);
	CHECK(view.pages[0][1].has_bytes && view.pages[0][1].bytes[0] == 0);
	CHECK_EQ(end(&bench), 0);
	CHECK_EQ(begin(&bench, program, true), 0);
	CHECK_EQ(steps(&bench, 2), 0);
	CHECK(view.pages[0][1].present && view.pages[0][1].zero && !view.pages[0][0].zero);
	CHECK(starts_with(view.pages[0][0].bytes, "x"));
	finish(&bench);
}

TEST(what_may_not_be_read)
{
	static const char program[] = "A map a 1\nA write a \"kept\"\nA protect a none\n";
	struct bench bench;

	if (!start(&bench, program, false, 3))
		return;
	CHECK(view.pages[0][0].mapped);
	CHECK(view.pages[0][0].has_bytes && starts_with(view.pages[0][0].bytes, "kept"));
	CHECK_EQ(end(&bench), 0);
	CHECK_EQ(begin(&bench, program, true), 0);
	CHECK_EQ(steps(&bench, 3), 0);
	CHECK(view.pages[0][0].mapped && !view.pages[0][0].has_bytes);
	finish(&bench);
}

TEST(shared_memory_is_loaded)
{
	struct bench bench;

	if (!start(&bench, "A map a 1 shared\nA fork B\nB write a \"both\"\n", false, 3))
		return;
	CHECK(view.pages[0][0].shared && view.pages[1][0].shared);
	CHECK(view.pages[0][0].has_bytes && starts_with(view.pages[0][0].bytes, "both"));
	finish(&bench);
}

TEST(what_pins_hold)
{
	struct bench bench;

	if (!start(&bench,
		   "A map a 2\nA pin a w longterm -> p\ndevice p write \"dev\"\nA fork B\nA exit\ndevice p write "
		   "\"ice\"\n"
		   "unpin p\n",
		   false, 3))
		return;
	CHECK(view.held[0].bound);
	CHECK_EQ(view.held[0].npages, 2);
	CHECK(view.held[0].has_bytes[1] && starts_with(view.held[0].bytes[1], "dev"));
	CHECK(starts_with(view.pages[0][1].bytes, "dev"));
	CHECK_EQ(steps(&bench, 3), 0);
	CHECK(!view.alive[0] && starts_with(view.held[0].bytes[0], "ice"));
	CHECK(starts_with(view.pages[1][0].bytes, "dev"));
	CHECK_EQ(steps(&bench, 1), 0);
	CHECK(!view.held[0].bound);
	finish(&bench);
}

/* Would catch a look that drains. */
TEST(what_pipes_hold)
{
	struct bench bench;

	if (!start(&bench, "A map a 1\nA write a \"old\"\nA splice a -> s\nA fork B\nA write a \"new\"\nput s\n", false,
		   3))
		return;
	CHECK_EQ(view.pages_taken, 1);
	for (unsigned i = 0; i < 2; i++) {
		CHECK_EQ(steps(&bench, 1), 0);
		CHECK(view.held[0].bound && starts_with(view.held[0].bytes[0], "old"));
	}
	CHECK(starts_with(view.pages[0][0].bytes, "new"));
	CHECK_EQ(steps(&bench, 1), 0);
	CHECK(!view.held[0].bound);
	finish(&bench);
}

TEST(files_after_transfers)
{
	struct bench bench;

	if (!start(&bench,
		   "file f 2 \"disk\"\nA map a 1\nA write a \"memory\"\nA direct-out a f@1\nA direct-in a f@0\nA read "
		   "a\n",
		   false, 3))
		return;
	CHECK(view.files[0].made);
	CHECK_EQ(view.files[0].npages, 2);
	CHECK(starts_with(view.files[0].bytes[1], "disk"));
	CHECK_EQ(steps(&bench, 1), 0);
	CHECK(starts_with(view.files[0].bytes[0], "disk") && starts_with(view.files[0].bytes[1], "memory"));
	CHECK_EQ(steps(&bench, 2), 0);
	CHECK(starts_with(view.pages[0][0].bytes, "disk"));
	finish(&bench);
}

/*
 * Would catch looks that leave references behind: the page would be copied, not reused. Each statement between gives a
 * look at the page once more.
 */
TEST(looks_do_not_disturb_reuse)
{
	struct bench bench;
	uint64_t frame;

	if (!start(&bench, "A map a 1\nA write a \"1\"\nA fork B\nB write a \"2\"\nA protect a rw\nA write a \"3\"\n",
		   false, 1))
		return;
	if (!sees(&bench, FUZZ_SEES_FRAMES))
		SKIP("this user does not see frames");
	for (unsigned i = 0; i < 20; i++) {
		CHECK_EQ(steps(&bench, 1), 0);
		frame = view.pages[0][0].frame;
		CHECK_EQ(steps(&bench, 4), 0);
		CHECK_EQ(view.pages[0][0].frame, frame);
		CHECK_EQ(end(&bench), 0);
		CHECK_EQ(begin(&bench,
			       "A map a 1\nA write a \"1\"\nA fork B\nB write a \"2\"\nA protect a rw\nA write a "
			       "\"3\"\n",
			       false),
			 0);
		CHECK_EQ(steps(&bench, 1), 0);
	}
	finish(&bench);
}

/* ---- one test after another ---- */

static unsigned open_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned n = 0;

	REQUIRE(folder != NULL);
	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

TEST(nothing_is_left_of_a_test)
{
	static const char program[] = "A map a 2\nA write a \"x\"\nA fork B\nB fork C\nB exit\nA splice a -> s\n"
				      "A pin a w -> p\n";
	struct bench bench;
	unsigned before;

	if (!start(&bench, program, false, 7))
		return;
	CHECK_EQ(end(&bench), 0);
	before = open_descriptors();
	for (size_t n = 0; n <= 7; n++) {
		CHECK_EQ(begin(&bench, program, n % 2), 0);
		CHECK_EQ(steps(&bench, n), 0);
		CHECK_EQ(end(&bench), 0);
		CHECK_EQ(open_descriptors(), before);
	}
	close_bench(&bench);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

static struct fuzz_kernel *inside(struct bench *bench)
{
	return (struct fuzz_kernel *)(void *)((char *)bench->subject - offsetof(struct fuzz_kernel, subject));
}

TEST(a_dead_participant_is_an_error_and_no_more)
{
	static const char program[] = "A map a 1\nA write a \"x\"\nA read a\n";
	struct bench bench;

	if (!start(&bench, program, false, 2))
		return;
	kill(inside(&bench)->run.objects[0].participant.pid, SIGKILL);
	CHECK_EQ(steps(&bench, 1), -EIO);
	CHECK(strstr(bench.why, "SIGKILL"));
	CHECK_EQ(end(&bench), 0);
	CHECK_EQ(begin(&bench, program, false), 0);
	CHECK_EQ(steps(&bench, 3), 0);
	finish(&bench);
}

TEST(a_dead_template_is_replaced)
{
	static const char program[] = "A map a 1\nA write a \"x\"\n";
	struct bench bench;

	if (!start(&bench, program, false, 2))
		return;
	CHECK_EQ(end(&bench), 0);
	kill(inside(&bench)->template.pid, SIGKILL);
	CHECK_EQ(begin(&bench, program, false), 0);
	CHECK_EQ(steps(&bench, 2), 0);
	CHECK(starts_with(view.pages[0][0].bytes, "x"));
	finish(&bench);
}

TEST(what_has_no_interface_is_told_before_it_begins)
{
	struct bench bench;

	if (!open_bench(&bench))
		return;
	CHECK_EQ(begin(&bench, "A map a 1\nA pin a r longterm -> p\n", false), -EOPNOTSUPP);
	CHECK(strstr(bench.why, "read pin"));
	finish(&bench);
}

/* ---- what the kernel does by itself ---- */

static int noise(struct fuzz_court *court, const struct fuzz_test *test, const char *what, const char *kernel,
		 const char *engine)
{
	struct fuzz_divergence divergence = {.subjects = {"kernel", "eager"}, .process = 0, .page = 0, .handle = -1};

	snprintf(divergence.what, sizeof(divergence.what), "%s", what);
	snprintf(divergence.saw[0], sizeof(divergence.saw[0]), "%s", kernel);
	snprintf(divergence.saw[1], sizeof(divergence.saw[1]), "%s", engine);
	return fuzz_noise(court, test, &divergence);
}

/* As if a page had been moved since the last test began. */
static void pretend_migration(struct fuzz_court *court)
{
	struct bench bench = {.subject = court->subjects[0]};

	if (!fuzz_kernel_migrates(bench.subject))
		inside(&bench)->migrated--;
}

/* Would catch a class that takes whatever differs: each of its conditions is missing once. */
TEST(migration_is_known_by_all_its_signs)
{
	static const char kept[] = "on the frame on which it was", lost[] = "on another frame than before";
	struct fuzz_divergence divergence;
	struct fuzz_court court;
	struct bench bench;

	if (!open_bench(&bench))
		return;
	REQUIRE_EQ(begin(&bench, "A map a 1\nA write a \"x\"\n", false), 0);
	REQUIRE_EQ(bench.subject->type->end(bench.subject, bench.why, sizeof(bench.why)), 0);
	close_bench(&bench);
	REQUIRE_EQ(fuzz_court_open(FUZZ_AGAINST_KERNEL, &court, bench.why, sizeof(bench.why)), 0);
	CHECK_EQ(fuzz_run(&court, &bench.test, &divergence), 0);
	if (!fuzz_kernel_migrates(court.subjects[0]))
		CHECK_EQ(noise(&court, &bench.test, "copy", lost, kept), -1);
	pretend_migration(&court);
	CHECK_EQ(noise(&court, &bench.test, "copy", kept, lost), -1);
	CHECK_EQ(noise(&court, &bench.test, "mapcount", "mapcount 2", "mapcount 1"), -1);
	CHECK_EQ(noise(&court, &bench.test, "faults", "faults 0", "faults 1"), -1);
	CHECK_EQ(noise(&court, &bench.test, "bytes", "at byte 0: \"a\"", "at byte 0: \"b\""), -1);
	CHECK_EQ(noise(&court, &bench.test, "exclusive", "exclusive", "not exclusive"), -1);
	CHECK_EQ(noise(&court, &bench.test, "copy", lost, kept), FUZZ_NOISE_MIGRATION);
	litmus_free(bench.litmus);
	fuzz_court_close(&court);
}

/* ---- under pressure ---- */

/* What this program sets up for itself, where it may. */
static struct facilities facilities;
static struct switches switches;

static bool open_with(struct bench *bench, unsigned needs)
{
	facilities_plan(&facilities, needs, &switches);
	REQUIRE_EQ(switches_hold(&switches), 0);
	facilities_make(&facilities);
	if ((needs & NEED_SWAP && *facilities.no_swap) || (needs & NEED_KSM && *facilities.no_ksm) ||
	    (needs & (NEED_SWAP | NEED_CGROUP) && *facilities.no_groups)) {
		snprintf(tap_skipped, sizeof(tap_skipped), "%.60s %.60s %.60s", facilities.no_swap,
			 facilities.no_groups, facilities.no_ksm);
		switches_release(&switches);
		return false;
	}
	if (open_bench(bench))
		return true;
	switches_release(&switches);
	return false;
}

static void close_with(struct bench *bench)
{
	char file[sizeof(facilities.swap_file)], groups[sizeof(facilities.groups)];

	strcpy(file, facilities.swap_file);
	strcpy(groups, facilities.groups);
	close_bench(bench);
	CHECK_EQ(switches_release(&switches), 0);
	CHECK((!*file || access(file, F_OK)) && (!*groups || access(groups, F_OK)));
}

/* Twice, as one worker does it for many programs. */
TEST(swapped_pages_stay_swapped_until_somebody_touches_them)
{
	struct bench bench;

	if (!open_with(&bench, NEED_SWAP))
		return;
	for (unsigned times = 0; times < 2; times++) {
		REQUIRE_EQ(
			begin(&bench,
			      "A map a 3\nA write a \"x\"\nA fork B\nB write a[0] \"y\"\nreclaim 1\n"
			      "A read a[1]\nA advise a[1] pageout\nA advise a[2] cold\nA write a[2] \"z\"\nB read a\n",
			      false),
			0);
		REQUIRE_EQ(steps(&bench, 5), 0);
		for (unsigned process = 0; process < 2; process++)
			for (unsigned page = 0; page < 3; page++) {
				CHECK(view.pages[process][page].mapped && view.pages[process][page].has_bytes);
				CHECK(view.pages[process][page].swapped && !view.pages[process][page].present);
			}
		REQUIRE_EQ(steps(&bench, 1), 0);
		CHECK(view.pages[0][1].present && !view.pages[0][1].swapped);
		CHECK(starts_with(view.pages[0][1].bytes, "x") && view.pages[1][1].swapped);
		REQUIRE_EQ(steps(&bench, 4), 0);
		CHECK(view.pages[0][2].present && view.pages[0][2].bytes[0] == 'z');
		CHECK(view.pages[1][0].bytes[0] == 'y' && view.pages[1][2].bytes[0] == 'x');
		CHECK_EQ(view.faults, 3);
		CHECK_EQ(end(&bench), 0);
	}
	close_with(&bench);
}

/* Twice, as one worker does it for many programs, and nothing is merged behind their backs. */
TEST(merged_pages_are_seen_and_the_merger_stops)
{
	struct bench bench;
	char run[4] = "";
	FILE *file;

	if (!open_with(&bench, NEED_KSM))
		return;
	for (unsigned times = 0; times < 2; times++) {
		REQUIRE_EQ(begin(&bench,
				 "A map a 4\nA write a \"same\"\nA write a[3] \"\\x00\\x00\\x00\\x00\"\nA advise a "
				 "mergeable\n"
				 "ksm merge zero-pages\nA write a[1] \"mine\"\n",
				 false),
			   0);
		REQUIRE_EQ(steps(&bench, 4), 0);
		CHECK(view.pages[0][0].frame != view.pages[0][1].frame);
		REQUIRE_EQ(steps(&bench, 1), 0);
		CHECK(view.pages[0][0].frame && view.pages[0][0].frame == view.pages[0][1].frame);
		CHECK_EQ(view.pages[0][2].mapcount, 3);
		CHECK(view.pages[0][3].zero && !view.pages[0][0].exclusive);
		REQUIRE_EQ(steps(&bench, 1), 0);
		CHECK(view.pages[0][0].frame != view.pages[0][1].frame && starts_with(view.pages[0][1].bytes, "mine"));
		CHECK_EQ(end(&bench), 0);
	}
	file = fopen("/sys/kernel/mm/ksm/run", "re");
	REQUIRE(file && fgets(run, sizeof(run), file));
	fclose(file);
	CHECK_STR_EQ(run, "0\n");
	close_with(&bench);
}

TEST(who_pays_for_pages_is_seen)
{
	struct bench bench;

	if (!open_with(&bench, NEED_CGROUP))
		return;
	for (unsigned times = 0; times < 2; times++) {
		REQUIRE_EQ(begin(&bench,
				 "A map a 3\nA write a \"x\"\ncgroup m1 limit=100000\nA join m1\nA write a[0] \"y\"\n"
				 "A fork B into m1\nB write a[0..1] \"z\"\nB exit\n",
				 false),
			   0);
		REQUIRE_EQ(steps(&bench, 6), 0);
		if (!sees(&bench, FUZZ_SEES_USAGE))
			SKIP("this user does not see who pays");
		CHECK_EQ(view.usage[0], 0); /* what A had stays where it was */
		REQUIRE_EQ(steps(&bench, 1), 0);
		CHECK_EQ(view.usage[0], 2);
		REQUIRE_EQ(steps(&bench, 1), 0);
		CHECK_EQ(view.usage[0], 0);
		CHECK_EQ(end(&bench), 0);
	}
	close_with(&bench);
}

/* Each machine decides for itself whether what was advised free is gone; what is stored afterwards stays. */
TEST(what_was_advised_free_may_be_gone_on_one_side)
{
	struct fuzz_divergence divergence;
	struct fuzz_court court;
	struct bench bench;

	if (!open_with(&bench, NEED_SWAP))
		return;
	REQUIRE_EQ(
		begin(&bench,
		      "A map a 3\nA write a \"old\"\nA advise a free\nA write a[1] \"new\"\nreclaim 10000\nA read a\n",
		      false),
		0);
	REQUIRE_EQ(steps(&bench, 6), 0);
	CHECK(view.pages[0][0].bytes[0] == 'o' || view.pages[0][0].bytes[0] == 0);
	CHECK(starts_with(view.pages[0][1].bytes, "new"));
	REQUIRE_EQ(bench.subject->type->end(bench.subject, bench.why, sizeof(bench.why)), 0);
	close_bench(&bench);
	REQUIRE_EQ(fuzz_court_open(FUZZ_AGAINST_KERNEL, &court, bench.why, sizeof(bench.why)), 0);
	CHECK_EQ(fuzz_run(&court, &bench.test, &divergence), 0);
	CHECK_EQ(court.views[0][0]->pages[0][0].loose, (UINT64_C(1) << FUZZ_WINDOW) - 1);
	CHECK(starts_with(court.views[0][0]->pages[0][0].bytes, "old"));
	CHECK_EQ(court.views[0][0]->pages[0][1].loose & 7, 0);
	CHECK(starts_with(court.views[0][0]->pages[0][1].bytes, "new"));
	litmus_free(bench.litmus);
	fuzz_court_close(&court);
	CHECK_EQ(switches_release(&switches), 0);
}

/* ---- without rights ---- */

TEST(an_ordinary_user_sees_contents_and_faults)
{
	struct bench bench;

	if (!geteuid()) {
		REQUIRE(!setgroups(0, NULL) && !setresgid(65534, 65534, 65534) && !setresuid(65534, 65534, 65534));
		/* Who changes identity may not be looked into, by itself either. */
		REQUIRE(!prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	}
	if (!start(&bench, "A map a 2\nA read a[1]\nA fork B\nB write a[0] \"x\"\nB protect a[0] none\n", false, 4))
		return;
	CHECK(!sees(&bench, FUZZ_SEES_FRAMES) && !sees(&bench, FUZZ_SEES_EXCLUSIVE) &&
	      !sees(&bench, FUZZ_SEES_MAPCOUNT));
	CHECK(sees(&bench, FUZZ_SEES_BYTES | FUZZ_SEES_OUTCOME | FUZZ_SEES_MAPPED | FUZZ_SEES_FAULTS));
	CHECK_EQ(view.faults, 1);
	CHECK(starts_with(view.pages[1][0].bytes, "x") && view.pages[0][0].bytes[0] == 0);
	if (sees(&bench, FUZZ_SEES_PRESENT))
		CHECK(view.pages[0][1].zero && view.pages[1][0].present && !view.pages[1][0].zero);
	CHECK_EQ(steps(&bench, 1), 0);
	CHECK(view.pages[1][0].mapped && starts_with(view.pages[1][0].bytes, "x"));
	finish(&bench);
}

TAP_MAIN()
