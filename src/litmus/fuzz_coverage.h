/* SPDX-License-Identifier: MIT */
/*
 * Which statement came after which on the same page: what a campaign has tried. A page is a page of a region, in all
 * processes that have it: neighbours of two processes are the interesting ones. fork, snapshot and exit are statements
 * on every page that the process has, statements with a handle on those that it was made from.
 */
#ifndef LITMUS_FUZZ_COVERAGE_H
#define LITMUS_FUZZ_COVERAGE_H

#include "fuzz_program.h"

struct fuzz_pairs {
	uint64_t met[FUZZ_OP_KINDS][FUZZ_OP_KINDS]; /* [first][second] */
};

/* fuzz_pairs_count - add the pairs of @test. */
void fuzz_pairs_count(struct fuzz_pairs *pairs, const struct fuzz_test *test);
/* fuzz_pairs_add - add @more to @sum. */
void fuzz_pairs_add(struct fuzz_pairs *sum, const struct fuzz_pairs *more);
struct fuzz_coverage {
	unsigned possible, met;
	uint64_t rarest; /* how often the rarest of those met was */
};
/* fuzz_pairs_coverage - @pressure: as for fuzz_op_possible(). */
void fuzz_pairs_coverage(const struct fuzz_pairs *pairs, enum fuzz_against against, unsigned pressure,
			 struct fuzz_coverage *coverage);
/* fuzz_pair_possible - whether programs for @against can have @second after @first on a page. */
bool fuzz_pair_possible(enum fuzz_op_kind first, enum fuzz_op_kind second, enum fuzz_against against,
			unsigned pressure);

#endif
