/* SPDX-License-Identifier: MIT */
/*
 * Swap in a kernel run: what was to be swapped out and was not, and the end of the swap file that the run has made for
 * itself.
 */
#include "facilities.h"
#include "kernel.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/swap.h>
#include <time.h>

/* ---- swapping out ---- */

static bool wants_it_out(const struct stmt *check)
{
	if (check->kind != STMT_CHECK_FLAG)
		return false;
	return (check->flag == LFLAG_SWAPPED && !check->negated) || (check->flag == LFLAG_PRESENT && check->negated);
}

/* How many pages of the checked place are in memory, though they are to be out of it. Returns: 0; an errno value. */
static int count_left(struct kernel_run *run, const struct stmt *check, uint64_t *left)
{
	const struct kernel_participant *participant = &run->objects[check->proc].participant;
	struct kernel_page seen;
	int error = 0;

	for (uint64_t page = 0; !error && participant->channel >= 0 && page < check->place.npages; page++) {
		error = kernel_look(&run->eyes, participant->pid, kernel_va(run, &check->place, page), &seen);
		*left += !error && seen.entry & PAGEMAP_PRESENT;
	}
	return error;
}

/* The checks right behind a statement tell which pages it was to take. */
static int count_all_left(struct kernel_step *step, uint64_t *left)
{
	const struct litmus *litmus = step->run->litmus;
	const struct stmt *check = step->stmt + 1;
	int error = 0;

	*left = 0;
	for (; !error && check < litmus->stmts + litmus->nstmts && litmus_is_check(check->kind); check++) {
		if (check->block != step->stmt->block || check->lane != step->stmt->lane)
			break;
		if (wants_it_out(check))
			error = count_left(step->run, check, left);
	}
	return error;
}

/*
 * A page that waits in a cpu's batch, or that somebody has locked or looks at, stays: try again, for a while. Nobody is
 * promised that it goes in the end, so that a page that stays is no finding (semantics.md A.1.2).
 */
int kernel_until_swapped(struct kernel_step *step, kernel_step_function *swap_out)
{
	const struct timespec while_others_look = {.tv_nsec = 3000000};
	uint64_t left = 0;

	for (unsigned tries = 0; tries < 12; tries++) {
		int error = swap_out(step);

		if (!error && count_all_left(step, &left))
			return kernel_error(step, "kernel: /proc shows no entries");
		if (error || !left)
			return error;
		kernel_drain_batches(step->run);
		nanosleep(&while_others_look, NULL);
	}
	return kernel_skip_test(step, "the kernel has left %" PRIu64 " page%s in memory, as it may", left,
				left == 1 ? "" : "s");
}

/* ---- swapoff ---- */

/* Swap devices that are on: lines of a table with a head. */
static unsigned count_devices(void)
{
	FILE *swaps = fopen("/proc/swaps", "re");
	unsigned lines = 0;
	int c;

	while (swaps && (c = fgetc(swaps)) != EOF)
		lines += c == '\n';
	if (swaps)
		fclose(swaps);
	return lines ? lines - 1 : 0;
}

/* Whether anybody has a page of the test on a swap device. */
static bool anything_swapped(struct kernel_run *run)
{
	struct kernel_page seen;

	for (size_t i = 0; i < run->litmus->nnames; i++) {
		const struct kernel_participant *participant = &run->objects[i].participant;

		if (run->litmus->names[i].kind != NAME_PROCESS || participant->channel < 0)
			continue;
		for (uint64_t va = run->window_start; va < run->window_end; va += KERNEL_PAGE)
			if (!kernel_look(&run->eyes, participant->pid, va, &seen) && kernel_is_swapped(seen.entry))
				return true;
	}
	return false;
}

/* Whether the test tries to swap again after @stmt. */
static bool swaps_again(const struct litmus *litmus, const struct stmt *stmt)
{
	for (stmt++; stmt < litmus->stmts + litmus->nstmts; stmt++)
		if (stmt->kind == STMT_RECLAIM || (stmt->kind == STMT_ADVISE && stmt->advice == ADVICE_PAGEOUT))
			return true;
	return false;
}

/* Off until the test is over: whoever started it switches it on again (run_kernel.c), also if it is killed. */
int kernel_swapoff(struct kernel_step *step)
{
	if (swapoff(facilities_held()->swap_file))
		return errno;
	if (count_devices() && (swaps_again(step->run->litmus, step->stmt) || anything_swapped(step->run)))
		return kernel_skip_test(step, "this machine swaps elsewhere too, where pages may be");
	return 0;
}
