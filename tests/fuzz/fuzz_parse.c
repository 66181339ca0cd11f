/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: the litmus parser takes any bytes. What it accepts keeps every promise of litmus.h, and is the same test
 * again when printed and parsed; what it refuses has a place inside the file and a message. Built without libFuzzer
 * (no UCOW_LIBFUZZER) it replays the files given as arguments.
 */
#include "litmus/litmus.h"

#include "litmus_ast.h"

#include "replay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void demand(bool condition, const char *what, const char *detail)
{
	if (condition)
		return;
	fprintf(stderr, "fuzz_parse: %s: %s\n", what, detail);
	abort();
}

static unsigned count_lines(const char *bytes, size_t nbytes)
{
	unsigned lines = 1;

	for (size_t i = 0; i < nbytes; i++)
		lines += bytes[i] == '\n';
	return lines;
}

static bool has_long_line(const char *bytes)
{
	for (const char *feed; (feed = strchr(bytes, '\n')); bytes = feed + 1)
		if (feed - bytes > 65536)
			return true;
	return false;
}

/* Escapes make a line longer, so a line near the limit may not come back. */
static void check_round_trip(const struct litmus *litmus)
{
	size_t nonce, ntwice;
	char *once = ast_print(litmus, &nonce), *twice;
	struct litmus_error error;
	struct litmus *again;

	demand(once, "printing", "out of memory");
	if (nonce <= 4u << 20 && !has_long_line(once)) {
		demand(!litmus_parse("again.litmus", once, nonce, &again, &error), "the printed test is refused",
		       error.text);
		twice = ast_print(again, &ntwice);
		demand(twice && !strcmp(once, twice), "the test is another one after printing", once);
		demand(litmus->needs == again->needs, "needs after printing", once);
		free(twice);
		litmus_free(again);
	}
	free(once);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
	struct litmus_error error = {0};
	struct litmus *litmus = NULL;
	char *bytes = malloc(nbytes ? nbytes : 1); /* exactly as large, so that a read past the end is seen */
	int err;

	demand(bytes, "input", "out of memory");
	if (nbytes)
		memcpy(bytes, data, nbytes);
	err = litmus_parse("fuzz.litmus", bytes, nbytes, &litmus, &error);
	if (err) {
		demand(err == -EINVAL && !litmus, "result of a refusal", error.text);
		demand(error.loc.line && error.loc.column, "a refusal without a place", error.text);
		demand(error.loc.line <= count_lines(bytes, nbytes), "the place is behind the file", error.text);
		demand(*error.text && memchr(error.text, 0, sizeof(error.text) - 1), "the message", error.text);
	} else {
		const char *complaint = ast_complain(litmus);

		demand(!complaint, "a promise is broken", complaint ? complaint : "");
		check_round_trip(litmus);
		litmus_free(litmus);
	}
	free(bytes);
	return 0;
}
