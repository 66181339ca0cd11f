/* SPDX-License-Identifier: MIT */
/*
 * The harness tested: it runs the programs failing and passing, named by the environment, and reads what they print.
 */
#include "tap.h"

struct result {
	int status;
	char text[4000];
};

static struct result run_test(const char *variable, const char *arguments)
{
	struct result r = {.status = -1};
	const char *program = getenv(variable);
	char command[1000];
	FILE *pipe;
	size_t n;

	REQUIRE(program != NULL);
	snprintf(command, sizeof(command), "'%s' %s 2>&1", program, arguments);
	pipe = popen(command, "r");
	REQUIRE(pipe != NULL);
	n = fread(r.text, 1, sizeof(r.text) - 1, pipe);
	r.text[n] = 0;
	r.status = pclose(pipe);
	return r;
}

static bool seen_to_fail(const char *test)
{
	struct result r = run_test("UCOW_META_FAILING", test);
	char line[200];

	snprintf(line, sizeof(line), "\nnot ok 1 - %s\n", test);
	if (WIFEXITED(r.status) && WEXITSTATUS(r.status) == 1 && strstr(r.text, line))
		return true;
	printf("# status %#x, printed:\n# %s\n", (unsigned int)r.status, r.text);
	return false;
}

TEST(failed_check_is_a_failure)
{
	CHECK(seen_to_fail("wrong_value"));
	CHECK(seen_to_fail("wrong_condition"));
	CHECK(seen_to_fail("wrong_string"));
}

/* Would catch helpers whose failures vanish. */
TEST(failed_set_up_is_a_failure)
{
	CHECK(seen_to_fail("failed_set_up"));
}

TEST(crash_is_a_failure)
{
	CHECK(seen_to_fail("crash"));
	CHECK(seen_to_fail("abort_by_a_checked_build"));
}

TEST(hang_is_a_failure)
{
	CHECK(seen_to_fail("hang"));
}

/* Would catch a test that ends itself with status 0 before its last check. */
TEST(early_exit_is_a_failure)
{
	CHECK(seen_to_fail("exit_in_the_middle"));
}

TEST(both_sides_of_a_failed_comparison_are_printed)
{
	struct result r = run_test("UCOW_META_FAILING", "wrong_value");

	CHECK(strstr(r.text, "three() is 3") && strstr(r.text, "failing.c:"));
}

TEST(passing_tests_pass_and_skips_give_their_reason)
{
	struct result r = run_test("UCOW_META_PASSING", "");

	CHECK_EQ(r.status, 0);
	CHECK(strstr(r.text, "\n1..2\n") && strstr(r.text, "\nok 1 - passes\n"));
	CHECK(strstr(r.text, "\nok 2 - is_skipped # SKIP for the reason 7\n"));
}

TEST(results_do_not_depend_on_forking)
{
	struct result r = run_test("UCOW_META_PASSING", "--no-fork");

	CHECK_EQ(r.status, 0);
	r = run_test("UCOW_META_FAILING", "--no-fork wrong_value");
	CHECK(WIFEXITED(r.status) && WEXITSTATUS(r.status) == 1);
}

/* Would catch a misspelt filter that runs nothing and passes. */
TEST(filter_that_selects_nothing_is_a_failure)
{
	struct result r = run_test("UCOW_META_PASSING", "no_such_test");

	CHECK(WIFEXITED(r.status) && WEXITSTATUS(r.status) == 1);
}

TEST(seed_is_printed_and_comes_from_the_environment)
{
	struct result r;

	setenv("UCOW_TEST_SEED", "4711", 1);
	r = run_test("UCOW_META_PASSING", "");
	CHECK(strstr(r.text, "\n# seed 4711\n"));
}

TAP_MAIN()
