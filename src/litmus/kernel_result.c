/* SPDX-License-Identifier: MIT */
/*
 * How steps tell the result of a kernel run: from any lane, the first word stands and ends the run.
 */
#include "kernel.h"

#include <stdarg.h>

#define FORMAT(text, format)                                 \
	do {                                                 \
		va_list args;                                \
                                                             \
		va_start(args, format);                      \
		vsnprintf(text, sizeof(text), format, args); \
		va_end(args);                                \
	} while (0)

/* Whether nobody has ended the run yet. The caller holds the result lock until leave(). */
static bool enter(struct kernel_run *run)
{
	pthread_mutex_lock(&run->result_lock);
	return run->result->verdict == VERDICT_PASS;
}

static int leave(struct kernel_run *run, int outcome)
{
	if (run->result->verdict != VERDICT_PASS)
		run->over = true;
	pthread_mutex_unlock(&run->result_lock);
	return outcome;
}

int kernel_break(struct kernel_step *step, const char *saw, ...)
{
	char text[sizeof(step->run->result->saw)];

	FORMAT(text, saw);
	if (enter(step->run))
		run_result_break(step->run->result, step->stmt, "%s", text);
	return leave(step->run, STEP_ENDED);
}

int kernel_error(struct kernel_step *step, const char *reason, ...)
{
	char text[sizeof(step->run->result->reason)];

	FORMAT(text, reason);
	if (enter(step->run))
		run_result_error(step->run->result, step->stmt, "%s", text);
	return leave(step->run, STEP_ENDED);
}

int kernel_skip_test(struct kernel_step *step, const char *reason, ...)
{
	struct run_result *result = step->run->result;
	char text[120];

	FORMAT(text, reason);
	if (enter(step->run)) {
		result->verdict = VERDICT_SKIP;
		kernel_describe_skip(result->reason, sizeof(result->reason), step->stmt, text);
	}
	return leave(step->run, STEP_ENDED);
}

int kernel_skip_check(struct kernel_step *step, const char *reason, ...)
{
	char text[sizeof(step->run->result->skipped[0].reason)];

	FORMAT(text, reason);
	if (enter(step->run))
		run_result_skip_check(step->run->result, step->stmt, "%s", text);
	return leave(step->run, STEP_SKIPPED);
}

void kernel_judge(struct kernel_step *step, int outcome)
{
	struct kernel_run *run = step->run;
	bool listed = run->litmus->breaks >> UCOW_POLICY_EXCLUSIVE & 1;

	if (enter(run)) {
		run->result->checks += judge_is_judgement(step->stmt);
		judge_outcome(run->result, step->stmt, outcome, listed);
	}
	leave(run, 0);
}
