/* SPDX-License-Identifier: MIT */
/*
 * Which mistake of mutate.h is switched on, in a build that has all of them (-Dmutate=any); no other build has this
 * file.
 */
#include "base/mutate.h"

#include <stdlib.h>

const char *mutation_chosen;

__attribute__((constructor)) static void choose_mutation(void)
{
	const char *name = getenv("UCOW_MUTATE");

	mutation_chosen = name && *name ? name : NULL;
}
