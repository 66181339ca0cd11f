/* SPDX-License-Identifier: MIT */
/*
 * Campaigns, with subjects that do as they are told: every program runs once whoever runs it, what diverges, crashes or
 * hangs becomes a small saved test while the rest goes on, and nobody is left behind.
 */
#include "litmus/fuzz_campaign.h"

#include "tap.h"

#include <dirent.h>
#include <stdatomic.h>
#include <sys/mman.h>

/* ---- subjects ---- */

enum mishap { NONE, DIFFERS, DIFFERS_ONCE, CRASHES, HANGS, FAILS };

/* What all processes of a test see of it. */
static struct {
	enum mishap mishap;   /* of the second subject; FAILS: of the first */
	enum stmt_kind where; /* at each statement of this kind */
	int noise;            /* what fuzz_noise() would say */
	bool no_court;
	_Atomic uint64_t begun, sum; /* tests of the second subject; of what they were */
	_Atomic unsigned mishaps;
} * plan;

struct fake {
	struct fuzz_subject subject;
	const struct fuzz_test *test;
};

static uint64_t hash_test(const struct litmus *litmus)
{
	uint64_t sum = 1;

	for (size_t i = 0; i < litmus->nstmts; i++)
		for (const char *c = litmus->stmts[i].source; *c; c++)
			sum = sum * 1099511628211u + (unsigned char)*c;
	return sum;
}

static int fake_begin(struct fuzz_subject *subject, const struct fuzz_test *test, char *why, size_t size)
{
	(void)why;
	(void)size;
	((struct fake *)subject)->test = test;
	return 0;
}

static int bad_begin(struct fuzz_subject *subject, const struct fuzz_test *test, char *why, size_t size)
{
	atomic_fetch_add(&plan->begun, 1);
	atomic_fetch_add(&plan->sum, hash_test(test->litmus));
	return fake_begin(subject, test, why, size);
}

static int good_step(struct fuzz_subject *subject, size_t i, struct fuzz_view *view, char *why, size_t size)
{
	struct fake *fake = (struct fake *)subject;

	memset(view, 0, sizeof(*view));
	view->faults = UINT32_MAX;
	if (plan->mishap != FAILS || fake->test->litmus->stmts[i].kind != plan->where)
		return 0;
	snprintf(why, size, "as planned");
	return -EIO;
}

static int bad_step(struct fuzz_subject *subject, size_t i, struct fuzz_view *view, char *why, size_t size)
{
	struct fake *fake = (struct fake *)subject;
	bool here = fake->test->litmus->stmts[i].kind == plan->where;
	unsigned before = here ? atomic_fetch_add(&plan->mishaps, 1) : 0;

	(void)why;
	(void)size;
	memset(view, 0, sizeof(*view));
	view->faults = UINT32_MAX;
	if (!here)
		return 0;
	if (plan->mishap == DIFFERS || (plan->mishap == DIFFERS_ONCE && !before))
		view->outcome = EIO;
	if (plan->mishap == CRASHES) {
		fprintf(stderr, "the last words\n");
		kill(getpid(), SIGKILL);
	}
	while (plan->mishap == HANGS)
		pause();
	return 0;
}

static int fake_end(struct fuzz_subject *subject, char *why, size_t size)
{
	(void)why;
	(void)size;
	((struct fake *)subject)->test = NULL;
	return 0;
}

static void fake_close(struct fuzz_subject *subject)
{
	free(subject);
}

static const struct fuzz_subject_type good = {
	"good", FUZZ_SEES_OUTCOME, fake_begin, good_step, fake_end, fake_close,
};
static const struct fuzz_subject_type bad = {
	"bad", FUZZ_SEES_OUTCOME, bad_begin, bad_step, fake_end, fake_close,
};

static int open_fakes(enum fuzz_against against, struct fuzz_court *court, char *why, size_t size)
{
	(void)against;
	*court = (struct fuzz_court){.nsubjects = 2};
	if (plan->no_court) {
		snprintf(why, size, "no court today");
		return -EIO;
	}
	for (unsigned i = 0; i < 2; i++) {
		struct fake *fake = calloc(1, sizeof(*fake));

		if (!fake)
			return -ENOMEM;
		fake->subject.type = i ? &bad : &good;
		court->subjects[i] = &fake->subject;
		for (unsigned k = 0; k < 2; k++)
			court->views[i][k] = calloc(1, sizeof(struct fuzz_view));
	}
	return 0;
}

static int fake_noise(struct fuzz_court *court, const struct fuzz_test *test, const struct fuzz_divergence *divergence)
{
	(void)court;
	(void)test;
	(void)divergence;
	return plan->noise;
}

static const struct campaign_court fakes = {open_fakes, fake_noise};

/* ---- campaigns ---- */

static char folder[64];
static struct campaign_options options;
static struct campaign_result result;
static char why[200];

static void prepare(enum mishap mishap, enum stmt_kind where)
{
	plan = mmap(NULL, sizeof(*plan), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(plan != MAP_FAILED);
	plan->mishap = mishap;
	plan->where = where;
	plan->noise = -1;
	snprintf(folder, sizeof(folder), "%s/fuzz-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	REQUIRE(mkdtemp(folder));
	options = (struct campaign_options){
		.seed = 1,
		.programs = 40,
		.ops = 30,
		.against = FUZZ_AGAINST_MODES,
		.nshards = 1,
		.workers = 2,
		.hang_ms = 40000,
		.shrink_ms = 20000,
		.save = folder,
		.court = &fakes,
	};
}

static void run(void)
{
	REQUIRE_EQ(fuzz_campaign(&options, &result, why, sizeof(why)), 0);
	/* All its processes are gone. */
	REQUIRE_EQ(waitpid(-1, NULL, WNOHANG), -1);
	REQUIRE_EQ(errno, ECHILD);
}

static unsigned remove_files(void)
{
	char path[400];
	DIR *dir = opendir(folder);
	struct dirent *entry;
	unsigned n = 0;

	REQUIRE(dir);
	while ((entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%.255s", folder, entry->d_name);
		if (entry->d_name[0] != '.')
			n += unlink(path) == 0;
	}
	closedir(dir);
	REQUIRE_EQ(rmdir(folder), 0);
	return n;
}

static void check_counts(void)
{
	CHECK_EQ(result.totals.divergences, result.nfindings + result.same + result.left);
	CHECK_EQ(result.totals.programs, options.programs);
}

/* How many programs of the campaign have a statement of that kind. */
static unsigned programs_with(enum stmt_kind kind)
{
	unsigned n = 0;

	for (uint64_t i = 0; i < options.programs; i++) {
		struct fuzz_program program;
		struct litmus *litmus;
		size_t nbytes, at = 0;
		char *text;

		fuzz_generate(&program, fuzz_program_seed(options.seed, i), options.ops, options.against);
		REQUIRE_EQ(fuzz_print(&program, &text, &nbytes), 0);
		REQUIRE_EQ(litmus_parse("p", text, nbytes, &litmus, &(struct litmus_error){0}), 0);
		while (at < litmus->nstmts && litmus->stmts[at].kind != kind)
			at++;
		n += at < litmus->nstmts;
		litmus_free(litmus);
		free(text);
	}
	return n;
}

/* ---- which programs ---- */

TEST(workers_share_the_programs_of_the_seed)
{
	uint64_t sum, operations;

	prepare(NONE, STMT_MAP);
	options.workers = 1;
	run();
	CHECK_EQ(result.totals.programs, 40);
	CHECK_EQ(plan->begun, 40);
	CHECK_EQ(result.totals.divergences, 0);
	sum = plan->sum;
	operations = result.totals.operations;
	CHECK(operations > 400);
	plan->sum = 0;
	options.workers = 3;
	run();
	CHECK_EQ(plan->sum, sum);
	CHECK_EQ(result.totals.operations, operations);
	plan->sum = 0;
	options.seed = 2;
	run();
	CHECK(plan->sum != sum);
	remove_files();
}

TEST(shards_together_are_the_whole)
{
	uint64_t sum, operations, parts = 0;

	prepare(NONE, STMT_MAP);
	options.first = 7;
	run();
	sum = plan->sum;
	operations = result.totals.operations;
	plan->sum = plan->begun = 0;
	options.nshards = 3;
	for (options.shard = 0; options.shard < 3; options.shard++) {
		run();
		CHECK_EQ(result.totals.programs, campaign_size(&options));
		CHECK(result.totals.programs >= 13 && result.totals.programs <= 14);
		parts += result.totals.operations;
	}
	CHECK_EQ(plan->begun, 40);
	CHECK_EQ(plan->sum, sum);
	CHECK_EQ(parts, operations);
	remove_files();
}

TEST(a_shard_may_have_nothing)
{
	prepare(NONE, STMT_MAP);
	options.programs = 2;
	options.nshards = 5;
	options.shard = 4;
	run();
	CHECK_EQ(result.totals.programs, 0);
	CHECK_EQ(plan->begun, 0);
	remove_files();
}

TEST(a_part_of_the_numbers_is_a_part_of_the_programs)
{
	uint64_t sum;

	prepare(NONE, STMT_MAP);
	run();
	sum = plan->sum;
	plan->sum = 0;
	options.programs = 15;
	run();
	options.first = 15;
	options.programs = 25;
	run();
	CHECK_EQ(plan->sum, sum);
	remove_files();
}

TEST(seeds_of_programs_differ)
{
	for (uint64_t i = 0; i < 300; i++)
		for (uint64_t j = 0; j < i; j++)
			CHECK(fuzz_program_seed(j % 3, i) != fuzz_program_seed(j % 3, j));
	CHECK(fuzz_program_seed(1, 5) != fuzz_program_seed(2, 5));
	CHECK(fuzz_program_seed(1, 2) != fuzz_program_seed(2, 1));
}

/* ---- what diverges ---- */

static void check_saved(const struct campaign_finding *finding, size_t nstmts, enum stmt_kind last)
{
	struct litmus *litmus;
	size_t n = 0;

	CHECK_STR_EQ(finding->problem, "");
	CHECK(finding->repeats);
	REQUIRE_EQ(litmus_parse_file(finding->path, &litmus, &(struct litmus_error){0}), 0);
	while (n < litmus->nstmts && !litmus_is_check(litmus->stmts[n].kind))
		n++;
	CHECK_EQ(n, nstmts);
	CHECK_EQ(litmus->stmts[n - 1].kind, last);
	litmus_free(litmus);
}

TEST(a_divergence_is_made_small_and_saved_once)
{
	prepare(DIFFERS, STMT_FORK);
	run();
	check_counts();
	CHECK(programs_with(STMT_FORK) > 10);
	CHECK_EQ(result.totals.divergences, programs_with(STMT_FORK));
	CHECK_EQ(result.nfindings, 1);
	CHECK(result.same > 0);
	CHECK_STR_EQ(result.findings[0].divergence.what, "outcome");
	CHECK_STR_EQ(result.findings[0].divergence.subjects[0], "good");
	CHECK_STR_EQ(result.findings[0].divergence.subjects[1], "bad");
	check_saved(&result.findings[0], 1, STMT_FORK);
	CHECK_GO_ON();
	CHECK_EQ(remove_files(), 1);
}

TEST(a_crash_is_a_divergence_and_the_rest_goes_on)
{
	prepare(CRASHES, STMT_FORK);
	run();
	check_counts();
	CHECK_EQ(result.totals.divergences, programs_with(STMT_FORK));
	CHECK_EQ(result.nfindings, 1);
	CHECK_STR_EQ(result.findings[0].divergence.what, "crash");
	CHECK_STR_EQ(result.findings[0].divergence.subjects[0], "bad");
	CHECK(strstr(result.findings[0].divergence.saw[0], "signal 9"));
	CHECK_STR_EQ(result.findings[0].said, "the last words\n");
	check_saved(&result.findings[0], 1, STMT_FORK);
	CHECK_GO_ON();
	CHECK_EQ(remove_files(), 1);
}

TEST(a_hang_is_a_divergence_and_the_rest_goes_on)
{
	prepare(HANGS, STMT_REMOTE_WRITE);
	options.programs = 4;
	options.hang_ms = 2000;
	options.shrink_ms = 2000;
	while (programs_with(STMT_REMOTE_WRITE) != 1)
		options.seed++;
	run();
	check_counts();
	CHECK(result.nfindings > 0);
	CHECK_STR_EQ(result.findings[0].divergence.what, "hang");
	CHECK_STR_EQ(result.findings[0].divergence.subjects[0], "bad");
	CHECK(result.findings[0].path[0]);
	CHECK_EQ(remove_files(), result.nfindings);
}

TEST(what_does_not_come_again_is_saved_as_it_was)
{
	prepare(DIFFERS_ONCE, STMT_FORK);
	run();
	check_counts();
	CHECK_EQ(result.totals.divergences, 1);
	CHECK(!result.findings[0].repeats);
	CHECK(result.findings[0].path[0]);
	CHECK_EQ(remove_files(), 1);
}

TEST(enough_divergences_end_a_campaign)
{
	prepare(DIFFERS, STMT_MAP);
	options.programs = 1000000;
	options.most = 2;
	run();
	CHECK(result.enough);
	CHECK(result.totals.divergences >= 2);
	CHECK(result.totals.programs < 1000000);
	remove_files();
}

TEST(many_of_a_kind_are_only_counted)
{
	prepare(DIFFERS, STMT_MAP);
	options.programs = 60;
	run();
	check_counts();
	CHECK_EQ(result.totals.divergences, 60);
	CHECK(result.left > 0);
	CHECK(result.left < 60);
	remove_files();
}

TEST(a_folder_that_cannot_be_made_is_told)
{
	prepare(DIFFERS, STMT_FORK);
	options.save = "/dev/null/folder";
	run();
	check_counts();
	CHECK_EQ(result.nfindings, 1);
	CHECK_STR_EQ(result.findings[0].path, "");
	CHECK(result.findings[0].problem[0]);
	remove_files();
}

/* ---- what is none ---- */

TEST(a_reference_that_fails_judges_nobody)
{
	prepare(FAILS, STMT_FORK);
	run();
	CHECK_EQ(result.totals.divergences, 0);
	CHECK_EQ(result.totals.unjudged, programs_with(STMT_FORK));
	CHECK_EQ(result.totals.programs, options.programs - result.totals.unjudged);
	CHECK_STR_EQ(result.unjudged, "good: as planned");
	remove_files();
}

TEST(without_a_court_there_is_no_campaign)
{
	prepare(NONE, STMT_FORK);
	plan->no_court = true;
	CHECK(fuzz_campaign(&options, &result, why, sizeof(why)) < 0);
	CHECK_STR_EQ(why, "no court today");
	CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
	remove_files();
}

/* Noise is counted, neither saved nor a divergence. */
TEST(noise_is_counted_by_class)
{
	prepare(DIFFERS, STMT_FORK);
	plan->noise = FUZZ_NOISE_MIGRATION;
	run();
	CHECK_EQ(result.totals.divergences, 0);
	CHECK_EQ(result.totals.noise[FUZZ_NOISE_MIGRATION], programs_with(STMT_FORK));
	CHECK_EQ(result.totals.noise[FUZZ_NOISE_MOVE], 0);
	CHECK_EQ(result.totals.programs, options.programs);
	CHECK_EQ(remove_files(), 0);
}

/* ---- ends ---- */

static int readable(void)
{
	int ends[2];

	REQUIRE_EQ(pipe(ends), 0);
	REQUIRE_EQ(write(ends[1], "!", 1), 1);
	return ends[0];
}

TEST(asked_to_stop_it_stops)
{
	prepare(NONE, STMT_FORK);
	options.programs = 100000000;
	options.stop = readable();
	run();
	CHECK(result.stopped);
	CHECK(result.totals.programs < options.programs);
	remove_files();
}

TEST(asked_to_stop_it_does_not_wait_for_what_hangs)
{
	prepare(HANGS, STMT_MAP);
	options.stop = readable();
	run();
	CHECK(result.stopped);
	CHECK_EQ(result.totals.programs, 0);
	CHECK_EQ(remove_files(), 0);
}

TEST(time_ends_a_campaign)
{
	prepare(NONE, STMT_FORK);
	options.programs = 100000000;
	options.seconds = 1;
	run();
	CHECK(result.out_of_time);
	CHECK(!result.stopped);
	CHECK(result.totals.programs > 0);
	CHECK(result.totals.programs < options.programs);
	remove_files();
}

/* ---- coverage ---- */

static void count_pairs(const char *text, struct fuzz_pairs *pairs)
{
	struct litmus *litmus;
	struct fuzz_test test = {0};

	memset(pairs, 0, sizeof(*pairs));
	REQUIRE_EQ(litmus_parse("p", text, strlen(text), &litmus, &(struct litmus_error){0}), 0);
	test.litmus = litmus;
	REQUIRE(fuzz_lay_out(litmus, &test.layout));
	fuzz_pairs_count(pairs, &test);
	litmus_free(litmus);
}

static uint64_t sum_pairs(const struct fuzz_pairs *pairs)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < FUZZ_OP_KINDS; i++)
		for (unsigned j = 0; j < FUZZ_OP_KINDS; j++)
			sum += pairs->met[i][j];
	return sum;
}

TEST(pairs_are_statements_on_one_page)
{
	struct fuzz_pairs pairs;

	count_pairs("title: t\nA map a 3\nA write a[0] \"x\"\nA read a[1]\nA protect a[0..1] r\n", &pairs);
	CHECK_EQ(pairs.met[FUZZ_OP_MAP][FUZZ_OP_WRITE], 1);
	CHECK_EQ(pairs.met[FUZZ_OP_MAP][FUZZ_OP_READ], 1);
	CHECK_EQ(pairs.met[FUZZ_OP_WRITE][FUZZ_OP_PROTECT], 1);
	CHECK_EQ(pairs.met[FUZZ_OP_READ][FUZZ_OP_PROTECT], 1);
	CHECK_EQ(sum_pairs(&pairs), 4);
}

TEST(pairs_go_from_process_to_process)
{
	struct fuzz_pairs pairs;

	count_pairs("title: t\nA map a 1\nA fork B\nB write a \"x\"\nA exit\nB write a \"y\"\n", &pairs);
	CHECK_EQ(pairs.met[FUZZ_OP_MAP][FUZZ_OP_FORK], 1);
	CHECK_EQ(pairs.met[FUZZ_OP_FORK][FUZZ_OP_WRITE], 1);
	CHECK_EQ(pairs.met[FUZZ_OP_WRITE][FUZZ_OP_EXIT], 1);
	CHECK_EQ(pairs.met[FUZZ_OP_EXIT][FUZZ_OP_WRITE], 1);
	CHECK_EQ(sum_pairs(&pairs), 4);
}

TEST(pages_of_others_are_not_touched_by_a_fork)
{
	struct fuzz_pairs pairs;

	count_pairs("title: t\nA fork B\nB map b 1\nA fork C\nB write b \"x\"\n", &pairs);
	CHECK_EQ(pairs.met[FUZZ_OP_MAP][FUZZ_OP_WRITE], 1);
	CHECK_EQ(sum_pairs(&pairs), 1);
}

TEST(handles_touch_the_pages_they_were_made_from)
{
	struct fuzz_pairs pairs;

	count_pairs("title: t\nA map a 2\nA pin a[1] w -> p\ndevice p write \"x\"\nunpin p\nA read a[0]\n", &pairs);
	CHECK_EQ(pairs.met[FUZZ_OP_MAP][FUZZ_OP_PIN], 1);
	CHECK_EQ(pairs.met[FUZZ_OP_PIN][FUZZ_OP_DEVICE_WRITE], 1);
	CHECK_EQ(pairs.met[FUZZ_OP_DEVICE_WRITE][FUZZ_OP_UNPIN], 1);
	CHECK_EQ(pairs.met[FUZZ_OP_MAP][FUZZ_OP_READ], 1);
	CHECK_EQ(sum_pairs(&pairs), 4);
}

TEST(only_possible_pairs_are_counted_as_missing)
{
	struct fuzz_coverage coverage;
	struct fuzz_pairs pairs = {0};

	fuzz_pairs_coverage(&pairs, FUZZ_AGAINST_MODES, 0, &coverage);
	CHECK_EQ(coverage.met, 0);
	CHECK(coverage.possible > 300);
	pairs.met[FUZZ_OP_MAP][FUZZ_OP_WRITE] = 3;
	pairs.met[FUZZ_OP_WRITE][FUZZ_OP_FORK] = 2;
	pairs.met[FUZZ_OP_WRITE][FUZZ_OP_MAP] = 1; /* cannot be */
	fuzz_pairs_coverage(&pairs, FUZZ_AGAINST_MODES, 0, &coverage);
	CHECK_EQ(coverage.met, 2);
	CHECK_EQ(coverage.rarest, 2);
	CHECK(!fuzz_pair_possible(FUZZ_OP_SNAPSHOT, FUZZ_OP_WRITE, FUZZ_AGAINST_KERNEL, 0));
}

TAP_MAIN()
