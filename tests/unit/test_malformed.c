/* SPDX-License-Identifier: MIT */
/*
 * The corpus of malformed litmus files, replayed: each is refused, at the line and column that the file EXPECTED beside
 * them says, with a message, within the time of a test. Each line there: file, line, column.
 */
#include "litmus/litmus.h"

#include "tap.h"

#include <dirent.h>

/* The folder: UCOW_MALFORMED, or where this source file has it. */
static const char *corpus(void)
{
	static char folder[4096];
	const char *given = getenv("UCOW_MALFORMED"), *slash = strrchr(__FILE__, '/');

	if (given && *given)
		return given;
	snprintf(folder, sizeof(folder), "%.*s../fuzz/malformed", slash ? (int)(slash - __FILE__) + 1 : 0, __FILE__);
	return folder;
}

struct expected {
	char file[128];
	unsigned line, column;
};

static struct expected *expected;
static size_t nexpected;

static void read_expected(void)
{
	char path[4200], line[256];
	FILE *index;

	snprintf(path, sizeof(path), "%s/EXPECTED", corpus());
	index = fopen(path, "r");
	if (!index)
		printf("# %s: %s; UCOW_MALFORMED names the folder\n", path, strerror(errno));
	REQUIRE(index);
	while (fgets(line, sizeof(line), index)) {
		struct expected *e;
		char rest;

		expected = realloc(expected, (nexpected + 1) * sizeof(*expected));
		REQUIRE(expected);
		e = &expected[nexpected++];
		REQUIRE_EQ(sscanf(line, "%127s %u %u%c", e->file, &e->line, &e->column, &rest), 4);
		REQUIRE(rest == '\n' && e->line && e->column);
	}
	fclose(index);
}

static void forget_expected(void)
{
	free(expected);
	expected = NULL;
	nexpected = 0;
}

static char *read_file(const char *name, size_t *nbytes)
{
	char path[4400], *bytes;
	FILE *file;
	long size;

	snprintf(path, sizeof(path), "%s/%s", corpus(), name);
	file = fopen(path, "rb");
	if (!file)
		printf("# %s: %s\n", path, strerror(errno));
	REQUIRE(file && !fseek(file, 0, SEEK_END));
	size = ftell(file);
	REQUIRE(size >= 0 && !fseek(file, 0, SEEK_SET));
	bytes = malloc(size ? (size_t)size : 1); /* exactly as large: a read past the end is seen */
	REQUIRE(bytes);
	*nbytes = fread(bytes, 1, (size_t)size, file);
	REQUIRE_EQ(*nbytes, size);
	fclose(file);
	return bytes;
}

static bool is_utf8_line(const char *text)
{
	for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
		unsigned follow = *s < 0x80 ? 0 : *s < 0xc2 ? 9 : *s < 0xe0 ? 1 : *s < 0xf0 ? 2 : *s < 0xf5 ? 3 : 9;

		if (*s < 0x20 || *s == 0x7f || follow == 9)
			return false;
		while (follow--)
			if ((*++s & 0xc0) != 0x80)
				return false;
	}
	return true;
}

TEST(every_malformed_file_is_refused_at_its_line_and_column)
{
	unsigned wrong = 0;

	read_expected();
	for (size_t i = 0; i < nexpected; i++) {
		const struct expected *e = &expected[i];
		struct litmus_error error = {0};
		struct litmus *litmus = NULL;
		size_t nbytes;
		char *bytes = read_file(e->file, &nbytes);
		int err = litmus_parse(e->file, bytes, nbytes, &litmus, &error);

		free(bytes);
		litmus_free(litmus);
		if (err == -EINVAL && !litmus && error.loc.line == e->line && error.loc.column == e->column)
			continue;
		printf("# %s: result %d at %u:%u, not at %u:%u: %s\n", e->file, err, error.loc.line, error.loc.column,
		       e->line, e->column, error.text);
		wrong++;
	}
	CHECK_EQ(wrong, 0);
	CHECK(nexpected >= 220);
	forget_expected();
}

TEST(files_give_the_same_answer_as_bytes)
{
	char path[4400];

	read_expected();
	for (size_t i = 0; i < nexpected; i++) {
		struct litmus_error error = {0};
		struct litmus *litmus = NULL;

		snprintf(path, sizeof(path), "%s/%s", corpus(), expected[i].file);
		CHECK_EQ(litmus_parse_file(path, &litmus, &error), -EINVAL);
		CHECK_EQ(error.loc.line, expected[i].line);
		CHECK_EQ(error.loc.column, expected[i].column);
	}
	forget_expected();
}

TEST(every_message_is_one_whole_printable_line)
{
	read_expected();
	for (size_t i = 0; i < nexpected; i++) {
		struct litmus_error error = {0};
		struct litmus *litmus = NULL;
		size_t nbytes;
		char *bytes = read_file(expected[i].file, &nbytes);

		CHECK_EQ(litmus_parse(expected[i].file, bytes, nbytes, &litmus, &error), -EINVAL);
		free(bytes);
		if (!is_utf8_line(error.text) || strlen(error.text) < 8 || strlen(error.text) >= sizeof(error.text) - 1)
			printf("# %s: %s\n", expected[i].file, error.text);
		CHECK(is_utf8_line(error.text));
		CHECK(strlen(error.text) >= 8);
		CHECK(strlen(error.text) < sizeof(error.text) - 1);
	}
	forget_expected();
}

/* Cut anywhere, a malformed file is another one, or a good one: it must be read within its bytes. */
TEST(every_beginning_of_a_small_malformed_file_is_safe)
{
	size_t parsed = 0;

	read_expected();
	for (size_t i = 0; i < nexpected; i++) {
		size_t nbytes, end;
		char *bytes = read_file(expected[i].file, &nbytes);

		end = nbytes > 400 ? 400 : nbytes;
		for (size_t n = 0; n <= end; n++) {
			struct litmus_error error = {0};
			struct litmus *litmus = NULL;
			char *exact = malloc(n ? n : 1);
			int err;

			REQUIRE(exact);
			memcpy(exact, bytes, n);
			err = litmus_parse("cut", exact, n, &litmus, &error);
			CHECK(err == 0 || err == -EINVAL);
			CHECK(err == 0 || (error.loc.line && error.loc.column && *error.text));
			litmus_free(litmus);
			free(exact);
			parsed++;
		}
		free(bytes);
	}
	CHECK(parsed > 10000);
	forget_expected();
}

static bool is_expected(const char *file)
{
	for (size_t i = 0; i < nexpected; i++)
		if (!strcmp(expected[i].file, file))
			return true;
	return false;
}

TEST(the_index_names_every_file_once)
{
	DIR *folder = opendir(corpus());
	size_t nfiles = 0;

	REQUIRE(folder);
	read_expected();
	for (struct dirent *entry; (entry = readdir(folder));) {
		if (entry->d_name[0] == '.' || !strcmp(entry->d_name, "EXPECTED"))
			continue;
		if (!is_expected(entry->d_name))
			printf("# %s is not in EXPECTED\n", entry->d_name);
		CHECK(is_expected(entry->d_name));
		nfiles++;
	}
	closedir(folder);
	for (size_t i = 1; i < nexpected; i++)
		CHECK(strcmp(expected[i - 1].file, expected[i].file) < 0);
	CHECK_EQ(nfiles, nexpected);
	forget_expected();
}

TAP_MAIN()
