/* SPDX-License-Identifier: MIT */
/*
 * Judging what a run shows, the same for every runner: bytes against the texts of a check, numbers, outcomes. The words
 * in which a result tells what was seen are chosen here.
 */
#ifndef LITMUS_JUDGE_H
#define LITMUS_JUDGE_H

#include "run.h"

#define JUDGE_SAW_SIZE 128

/* judge_wanted - how many bytes a check looks at in a page of @page_size, from @offset: for `zero` all the rest. */
size_t judge_wanted(const struct stmt *check, uint64_t offset, size_t page_size);
/* judge_bytes - whether @bytes, judge_wanted() of them, hold one of the texts of @check; else @saw says what they hold.
 */
bool judge_bytes(const struct stmt *check, const unsigned char *bytes, size_t nbytes, char saw[JUDGE_SAW_SIZE]);
/* Ranges of pages that a scan finds and that can be told apart. */
#define JUDGE_RANGES 64
/* judge_ranges - whether a scan has found what @check expects; neighbouring ranges count as one. Else @saw says what.
 */
bool judge_ranges(const struct stmt *check, const struct litmus_range *found, size_t nfound, char saw[JUDGE_SAW_SIZE]);
/* judge_number - whether @value is the number that @check expects. */
bool judge_number(const struct stmt *check, uint64_t value);
/* judge_page_label - `buf[2]: ` for page @page of something of @npages; nothing where that is one. */
void judge_page_label(char label[64], const char *name, uint64_t page, uint64_t npages);
/* judge_is_judgement - whether @stmt counts as a check: also a statement that must fail is one. */
bool judge_is_judgement(const struct stmt *stmt);
/*
 * judge_outcome - whether @stmt may end as @outcome says (struct stmt.error); else the result has a break, or an error
 * where a plain statement failed that must not (a break if @listed: the rules in force are known to fail this test).
 */
bool judge_outcome(struct run_result *result, const struct stmt *stmt, int outcome, bool listed);

#endif
