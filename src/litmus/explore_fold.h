/* SPDX-License-Identifier: MIT */
/* A schedule cut down to what fits a screen or a picture: rows of one step, or of several that are only counted. */
#ifndef LITMUS_EXPLORE_FOLD_H
#define LITMUS_EXPLORE_FOLD_H

#include "explore.h"

struct explore_row {
	size_t first, count; /* steps; more than one: folded */
	bool several_lanes;  /* folded across lanes: something was left out for length alone */
};

/*
 * explore_fold - @result's schedule in at most @most rows (at least 3): as much of each stretch that one lane ran
 * within one statement as fits, its beginning and its end first. Returns: the rows, to be freed, and *nrows; NULL: no
 * memory.
 */
struct explore_row *explore_fold(const struct explore_result *result, size_t most, size_t *nrows);

#endif
