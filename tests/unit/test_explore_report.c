/* SPDX-License-Identifier: MIT */
/* How a finding of the explorer is shown: folding, columns, JSON and back, and a picture that is well-formed XML. */
#include "litmus/explore_fold.h"
#include "litmus/litmus.h"
#include "tap.h"

#include <stdlib.h>
#include <unistd.h>

#define NSTEPS 130

static char dir[] = "/tmp/ucow-explore-XXXXXX";
static char test_name[] = "two-lanes", test_path[] = "litmus/two-lanes.litmus";
static char test_title[] = "a <title> & \"quotes\"", test_catches[] = "what < nobody & nothing > sees";
static struct litmus litmus = {.path = test_path, .test = test_name, .title = test_title, .catches = test_catches};
static struct explore_step steps[NSTEPS];
static struct explore_result result;

/* Two lanes that take turns every 26 steps. */
static void make_result(size_t nsteps)
{
	memset(&result, 0, sizeof(result));
	for (size_t i = 0; i < nsteps; i++) {
		steps[i] = (struct explore_step){
			.lane = (uint32_t)(i / 26 % 2),
			.statement = (uint32_t)(10 + i / 26),
			.block = 1,
			.flush = i % 40 == 39,
			.frame = i % 5 ? EXPLORE_NO_FRAME : i % 3,
		};
		snprintf(steps[i].what, sizeof(steps[i].what), "load <word> & \"more\" %zu", i);
		snprintf(steps[i].saw, sizeof(steps[i].saw), "%zu", i);
	}
	result.litmus = &litmus;
	result.options =
		(struct explore_options){UCOW_POLICY_EXCLUSIVE, UCOW_FORK_LAZY, EXPLORE_TSO, EXPLORE_UNBOUNDED, 0, 0};
	result.verdict = VERDICT_BREAK;
	result.interleavings = 1234567;
	result.line = 17;
	snprintf(result.check, sizeof(result.check), "check A reads buf \"mine\"");
	snprintf(result.saw, sizeof(result.saw), "\"kid!\" <");
	result.schedule = steps;
	result.nsteps = nsteps;
}

/* At the end of a test, which is a process. */
static void remove_dir(void)
{
	static const char *const names[] = {"out", "bad", "picture.svg"};
	char path[100];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
}

static const char *in_dir(const char *name)
{
	static char path[100];
	static bool made;

	if (!made && mkdtemp(dir)) {
		made = true;
		atexit(remove_dir);
	}
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static char *contents(const char *path)
{
	static char text[1 << 20];
	FILE *in = fopen(path, "re");
	size_t n;

	REQUIRE(in);
	n = fread(text, 1, sizeof(text) - 1, in);
	fclose(in);
	text[n] = '\0';
	return text;
}

/* What @show prints of the result. */
static char *shown(const struct explore_format *format)
{
	struct explore_report report = {.results = &result, .nresults = 1};
	const char *path = in_dir("out");

	report.out = fopen(path, "we");
	REQUIRE(report.out);
	if (format->result)
		format->result(&report, &result);
	if (format->end)
		REQUIRE_EQ(format->end(&report), 0);
	fclose(report.out);
	return contents(path);
}

/* ---- folding ---- */

/* The rows are the schedule, in order and without a gap. */
static void check_rows(size_t most)
{
	size_t nrows, next = 0;
	struct explore_row *rows = explore_fold(&result, most, &nrows);

	REQUIRE(rows);
	CHECK(nrows <= most || nrows == result.nsteps);
	for (size_t i = 0; i < nrows; i++) {
		CHECK_EQ(rows[i].first, next);
		CHECK(rows[i].count > 0);
		next = rows[i].first + rows[i].count;
	}
	CHECK_EQ(next, result.nsteps);
	free(rows);
}

TEST(rows_are_the_whole_schedule_however_few)
{
	for (size_t nsteps = 1; nsteps <= NSTEPS; nsteps += 43) {
		make_result(nsteps);
		for (size_t most = 3; most < 140; most += 7)
			check_rows(most);
	}
}

TEST(what_fits_is_not_folded)
{
	struct explore_row *rows;
	size_t nrows;

	make_result(9);
	rows = explore_fold(&result, 20, &nrows);
	REQUIRE(rows);
	CHECK_EQ(nrows, 9);
	free(rows);
}

/* ---- columns ---- */

TEST(columns_tell_lanes_lines_and_the_check)
{
	const char *text;

	make_result(NSTEPS);
	text = shown(&explore_lines);
	CHECK(strstr(text, "break"));
	CHECK(strstr(text, "exclusive/lazy"));
	CHECK(strstr(text, "tso"));
	CHECK(strstr(text, "1,234,567 interleavings"));
	CHECK(strstr(text, "lane 1"));
	CHECK(strstr(text, "lane 2"));
	CHECK(strstr(text, "load <word> & \"more\" 0 = 0"));
	CHECK(strstr(text, "more steps"));
	CHECK(strstr(text, "litmus/two-lanes.litmus:17: check A reads buf \"mine\": saw \"kid!\" <"));
	CHECK(strstr(text, "1 runs: 0 pass, 1 break"));
	CHECK(strstr(text, "1 not as the files say"));
}

TEST(a_complete_pass_says_so)
{
	make_result(0);
	result.verdict = VERDICT_PASS;
	result.expected = result.complete = true;
	CHECK(strstr(shown(&explore_lines), ", all"));
	CHECK(strstr(shown(&explore_lines), "all as the files say"));
	result.options.bound = 2;
	CHECK(strstr(shown(&explore_lines), ", bound 2"));
	result.complete = false;
	CHECK(strstr(shown(&explore_lines), ", not all"));
}

/* ---- JSON, and back ---- */

TEST(a_finding_survives_json)
{
	struct explore_finding finding;
	char why[200];

	if (!explore_has_json())
		SKIP("built without jansson");
	make_result(NSTEPS);
	CHECK(strstr(shown(&explore_json), "\"interleavings\": 1234567"));
	REQUIRE_EQ(explore_read_finding(in_dir("out"), &finding, why, sizeof(why)), 0);
	CHECK_STR_EQ(finding.file, test_path);
	CHECK_EQ(finding.options.policy, UCOW_POLICY_EXCLUSIVE);
	CHECK_EQ(finding.options.fork, UCOW_FORK_LAZY);
	CHECK_EQ(finding.options.memory, EXPLORE_TSO);
	CHECK_EQ(finding.nchoices, NSTEPS);
	for (size_t i = 0; i < NSTEPS; i++) {
		CHECK_EQ(finding.choices[i].lane, steps[i].lane);
		CHECK_EQ(finding.choices[i].flush, steps[i].flush);
	}
	explore_finding_clear(&finding);
}

static const struct {
	const char *text, *says;
} malformed[] = {
	{"", ":"},
	{"{", ":"},
	{"[]", "no result with a schedule"},
	{"{\"results\": []}", "no result with a schedule"},
	{"{\"results\": 7}", "no result with a schedule"},
	{"{\"schedule\": []}", "names no file"},
	{"{\"schedule\": [], \"file\": \"a\"}", "policy"},
	{"{\"schedule\": [], \"file\": \"a\", \"policy\": \"exclusive\", \"fork\": \"none\"}", "policy"},
	{"{\"schedule\": [], \"file\": \"a\", \"policy\": \"exclusive\", \"fork\": \"lazy\", \"memory\": \"pso\"}",
	 "memory"},
	{"{\"schedule\": [], \"file\": \"a\", \"policy\": \"exclusive\", \"fork\": \"lazy\"}", "not a list of steps"},
	{"{\"schedule\": [1], \"file\": \"a\", \"policy\": \"exclusive\", \"fork\": \"lazy\"}", "not a list of steps"},
	{"{\"schedule\": [{\"lane\": -1}], \"file\": \"a\", \"policy\": \"exclusive\", \"fork\": \"lazy\"}",
	 "not a list"},
	{"{\"schedule\": [{\"lane\": 9999}], \"file\": \"a\", \"policy\": \"exclusive\", \"fork\": \"lazy\"}",
	 "not a list"},
	{"{\"schedule\": [{\"lane\": \"x\"}], \"file\": \"a\", \"policy\": \"exclusive\", \"fork\": \"lazy\"}",
	 "not a list"},
};

TEST(malformed_findings_are_refused_with_a_reason)
{
	struct explore_finding finding;
	const char *path = in_dir("bad");
	char why[200];

	if (!explore_has_json())
		SKIP("built without jansson");
	for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
		FILE *out = fopen(path, "we");

		REQUIRE(out);
		fputs(malformed[i].text, out);
		fclose(out);
		CHECK(explore_read_finding(path, &finding, why, sizeof(why)) < 0);
		CHECK(strstr(why, malformed[i].says));
		CHECK(strstr(why, path));
	}
	unlink(path);
	CHECK(explore_read_finding(path, &finding, why, sizeof(why)) < 0);
	CHECK(strstr(why, path));
}

/* ---- the picture ---- */

/* Elements nest and end, and text has no bare markup: enough of XML for what is written here. */
static bool is_well_formed(const char *text)
{
	unsigned depth = 0;

	while (*text) {
		const char *end;

		if (*text == '&' && !strchr("lgaq#", text[1]))
			return false;
		if (*text++ != '<')
			continue;
		end = strpbrk(text, "<>");
		if (!end || *end == '<')
			return false;
		if (*text == '/') {
			if (!depth--)
				return false;
		} else if (end[-1] != '/') {
			depth++;
		}
		text = end + 1;
	}
	return depth == 0;
}

TEST(the_picture_is_xml_and_shows_the_failing_check)
{
	const char *path = in_dir("picture.svg"), *text;

	make_result(NSTEPS);
	REQUIRE_EQ(explore_svg(path, &result), 0);
	text = contents(path);
	CHECK(!strncmp(text, "<svg ", 5));
	CHECK(is_well_formed(text));
	CHECK(strstr(text, "a &lt;title&gt; &amp; &quot;quotes&quot;"));
	CHECK(strstr(text, "catches: what &lt; nobody"));
	CHECK(strstr(text, "line 17: check A reads buf &quot;mine&quot;"));
	CHECK(strstr(text, "#cf2e2e"));
	CHECK(strstr(text, "class=\"frame\">C<"));
	unlink(path);
}

TEST(a_picture_that_cannot_be_written_says_so)
{
	make_result(3);
	CHECK(explore_svg("/nonexistent/picture.svg", &result) < 0);
}

TAP_MAIN()
