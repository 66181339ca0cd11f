/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: any bytes are a program (src/litmus/fuzz_program.h), which prints to a litmus test that the parser takes
 * and a view has room for; and the engine in every fork mode and the flat model show the same after each of its
 * statements. Built without libFuzzer it replays the files given as arguments.
 */
#include "litmus/fuzz_program.h"

#include "replay.h"

#include <string.h>

static void __attribute__((noreturn)) complain(const char *what, const char *detail, const char *text)
{
	fprintf(stderr, "fuzz_program: %s: %s\n%s", what, detail, text);
	abort();
}

static struct litmus *parse(const struct fuzz_program *program, char **text, struct fuzz_layout *layout)
{
	struct litmus_error error = {0};
	struct litmus *litmus = NULL;
	size_t nbytes;

	if (fuzz_print(program, text, &nbytes))
		complain("printing", "out of memory", "");
	if (litmus_parse("fuzz.litmus", *text, nbytes, &litmus, &error))
		complain("the parser refuses it", error.text, *text);
	if (!fuzz_lay_out(litmus, layout))
		complain("layout", "it does not fit a view", *text);
	return litmus;
}

/* Opened once: a subject runs one test after another. */
static struct fuzz_court *modes(void)
{
	static struct fuzz_court court;
	char why[200];

	if (!court.nsubjects && fuzz_court_open(FUZZ_AGAINST_MODES, &court, why, sizeof(why)))
		complain("the court", why, "");
	return &court;
}

static void judge(const struct fuzz_test *test, const char *text)
{
	struct fuzz_divergence divergence;
	int result = fuzz_run(modes(), test, &divergence);

	if (!result)
		return;
	fprintf(stderr, "at statement %zu\n%s: %s\n%s: %s\n", divergence.at + 1, divergence.subjects[0],
		divergence.saw[0], divergence.subjects[1], divergence.saw[1]);
	complain(result < 0 ? "it could not be judged" : "a divergence", divergence.what, text);
}

static void try_program(const uint8_t *data, size_t nbytes, enum fuzz_against against)
{
	static struct fuzz_program program;
	struct fuzz_test test = {0};
	struct litmus *litmus;
	char *text;

	fuzz_from_bytes(&program, data, nbytes, against);
	litmus = parse(&program, &text, &test.layout);
	test.litmus = litmus;
	test.looks = program.looks;
	if (against == FUZZ_AGAINST_MODES)
		judge(&test, text);
	litmus_free(litmus);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
	try_program(data, nbytes, FUZZ_AGAINST_KERNEL);
	try_program(data, nbytes, FUZZ_AGAINST_MODES);
	return 0;
}
