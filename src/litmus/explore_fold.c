/* SPDX-License-Identifier: MIT */
/* Folding of schedules. */
#include "explore_fold.h"

#include <stdlib.h>

#define KEEP_MAX 8 /* steps kept at each end of a stretch */

static bool same_stretch(const struct explore_step *a, const struct explore_step *b)
{
	return a->lane == b->lane && a->statement == b->statement && a->block == b->block && a->flush == b->flush;
}

static size_t stretch_end(const struct explore_result *result, size_t first)
{
	size_t end = first + 1;

	while (end < result->nsteps && same_stretch(&result->schedule[first], &result->schedule[end]))
		end++;
	return end;
}

static void put(struct explore_row *rows, size_t *nrows, size_t first, size_t count)
{
	if (count)
		rows[(*nrows)++] = (struct explore_row){.first = first, .count = count};
}

/* One stretch with @keep steps at each end. */
static void fold_stretch(struct explore_row *rows, size_t *nrows, size_t first, size_t end, size_t keep)
{
	size_t middle = end - first;

	if (middle > 2 * keep + 1) {
		for (size_t i = 0; i < keep; i++)
			put(rows, nrows, first + i, 1);
		put(rows, nrows, first + keep, middle - 2 * keep);
		first = end - keep;
	}
	for (; first < end; first++)
		put(rows, nrows, first, 1);
}

static size_t fold_with(const struct explore_result *result, struct explore_row *rows, size_t keep)
{
	size_t nrows = 0;

	for (size_t first = 0; first < result->nsteps; first = stretch_end(result, first))
		fold_stretch(rows, &nrows, first, stretch_end(result, first), keep);
	return nrows;
}

/* Still too long: its middle goes, whoever ran it. */
static size_t cut_middle(struct explore_row *rows, size_t nrows, size_t most)
{
	size_t head = most / 2, tail = most - head - 1, first_tail = nrows - tail;

	rows[head].count = rows[first_tail].first - rows[head].first;
	rows[head].several_lanes = true;
	for (size_t i = 0; i < tail; i++)
		rows[head + 1 + i] = rows[first_tail + i];
	return most;
}

struct explore_row *explore_fold(const struct explore_result *result, size_t most, size_t *nrows)
{
	struct explore_row *rows = calloc(result->nsteps ? result->nsteps : 1, sizeof(*rows));
	size_t keep = KEEP_MAX;

	*nrows = 0;
	if (!rows)
		return NULL;
	while ((*nrows = fold_with(result, rows, keep)) > most && keep)
		keep--;
	if (*nrows > most)
		*nrows = cut_middle(rows, *nrows, most);
	return rows;
}
