/* SPDX-License-Identifier: MIT */
/* The counterpart of failing.c: what the harness must not report as failed. */
#include "tap.h"

TEST(passes)
{
	CHECK_EQ(1 + 1, 2);
	CHECK_STR_EQ("same", "same");
}

TEST(is_skipped)
{
	SKIP("for the reason %d", 7);
}

TAP_MAIN()
