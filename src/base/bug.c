/* SPDX-License-Identifier: MIT */
/* The end of a program that broke an invariant, and the library's version. */
#include "base/hook.h"

#include <stdio.h>
#include <stdlib.h>

#if !exploring /* the explorer writes down what led there: src/litmus/explore_run.c */
void base_bug(const char *file, int line, const char *what)
{
	fprintf(stderr, "ucow: BUG at %s:%d: %s\n", file, line, what);
	abort();
}
#endif

#define STRING(x)  #x
#define VERSION(x) STRING(x)

const char *ucow_version(void)
{
	return VERSION(UCOW_VERSION_MAJOR) "." VERSION(UCOW_VERSION_MINOR) "." VERSION(UCOW_VERSION_PATCH);
}
