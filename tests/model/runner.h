/* SPDX-License-Identifier: MIT */
/* Running a program on the engine and on the model side by side. */
#ifndef TESTS_MODEL_RUNNER_H
#define TESTS_MODEL_RUNNER_H

#include "program.h"

#include <ucow/machine.h>

/* What came of a run; shared with the process that waits for it. */
struct outcome {
	size_t at;      /* the operation that runs or ran last; nops: teardown */
	bool agreed;    /* ran to the end without a mismatch */
	char why[400];  /* else: what differed */
	unsigned calls; /* operations that meant something */
};

void program_run(const struct program *p, enum ucow_fork_mode mode, struct outcome *outcome);

#endif
