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

/* What the program runs on. Under any policy but exclusive the model does not know what pages hold once references
 * are out: then results, invariants and the balance at the end are compared, not bytes. */
struct setting {
	enum ucow_policy policy;
	enum ucow_fork_mode mode;
	bool pressure; /* pages go to swap after every operation; nothing that is compared may tell */
};

void program_run(const struct program *p, const struct setting *setting, struct outcome *outcome);

#endif
