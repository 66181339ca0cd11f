/* SPDX-License-Identifier: MIT */
/*
 * A libFuzzer target as a plain program: it replays the files given as arguments, as the fuzzer would feed them.
 * Included by targets once; under libFuzzer (UCOW_LIBFUZZER) there is no main.
 */
#ifndef TESTS_FUZZ_REPLAY_H
#define TESTS_FUZZ_REPLAY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

#ifndef UCOW_LIBFUZZER
static int replay(const char *path)
{
	FILE *file = fopen(path, "rb");
	char *bytes = NULL;
	size_t nbytes = 0, room = 0;

	while (file && !feof(file) && !ferror(file)) {
		if (nbytes == room) {
			bytes = realloc(bytes, room = room ? room * 2 : 65536);
			if (!bytes)
				abort();
		}
		nbytes += fread(bytes + nbytes, 1, room - nbytes, file);
	}
	if (!file || ferror(file)) {
		perror(path);
		free(bytes);
		return 1;
	}
	fclose(file);
	LLVMFuzzerTestOneInput((const uint8_t *)bytes, nbytes);
	free(bytes);
	return 0;
}

int main(int argc, char **argv)
{
	int status = argc > 1 ? 0 : 2;

	if (argc < 2)
		fprintf(stderr, "usage: %s FILE...\n", argv[0]);
	for (int i = 1; i < argc; i++)
		status |= replay(argv[i]);
	if (!status)
		printf("%d files replayed\n", argc - 1);
	return status;
}
#endif

#endif
