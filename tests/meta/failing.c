/* SPDX-License-Identifier: MIT */
/*
 * Tests that must fail, one for each way in which a test can: run as expected failures, and one by one by
 * test_harness.c, which insists that the harness sees each of them.
 */
#include "tap.h"

static int three(void)
{
	return 3;
}

TEST(wrong_value)
{
	CHECK_EQ(three(), 4);
}

TEST(wrong_condition)
{
	CHECK(three() < 0);
}

TEST(wrong_string)
{
	CHECK_STR_EQ("this", "that");
}

TEST(failed_set_up)
{
	REQUIRE_EQ(three(), 5);
}

TEST(crash)
{
	raise(SIGSEGV);
}

TEST(abort_by_a_checked_build)
{
	abort();
}

TEST(hang)
{
	alarm(1);
	for (;;)
		pause();
}

TEST(exit_in_the_middle)
{
	exit(0);
}

TAP_MAIN()
