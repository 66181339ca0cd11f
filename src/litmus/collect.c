/* SPDX-License-Identifier: MIT */
/*
 * Finding litmus files: a path of the command line is a file, or a folder that is walked in name order.
 */
#include "collect.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void complain(struct litmus_list *list, FILE *errors, const char *path, const char *what)
{
	fprintf(errors, "%s: %s\n", path, what);
	list->bad++;
}

static int add_test(struct litmus_list *list, struct litmus *test)
{
	struct litmus **tests = realloc(list->tests, (list->n + 1) * sizeof(*tests));

	if (!tests) {
		litmus_free(test);
		return -ENOMEM;
	}
	list->tests = tests;
	list->tests[list->n++] = test;
	return 0;
}

static int collect_file(const char *path, struct litmus_list *list, FILE *errors)
{
	struct litmus_error error = {0};
	struct litmus *test;
	int result = litmus_parse_file(path, &test, &error);

	if (!result)
		return add_test(list, test);
	if (result == -ENOMEM)
		return result;
	if (error.loc.line)
		fprintf(errors, "%s:%u:%u: %s\n", path, error.loc.line, error.loc.column, error.text);
	else
		fprintf(errors, "%s: %s\n", path, error.text);
	list->bad++;
	return 0;
}

/* Of a file name, without `.litmus`. */
static size_t name_length(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot && !strcmp(dot, ".litmus") ? (size_t)(dot - name) : strlen(name);
}

static bool is_litmus(const char *name)
{
	return name[name_length(name)];
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* The same order everywhere, whatever the locale; without `.litmus`, so that a test stands before its variants. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
	const char *x = (*a)->d_name, *y = (*b)->d_name;
	size_t nx = name_length(x), ny = name_length(y);
	int order = memcmp(x, y, nx < ny ? nx : ny);

	if (!order && nx != ny)
		order = nx < ny ? -1 : 1;
	return order ? order : strcmp(x, y);
}

static int collect_folder(const char *folder, struct litmus_list *list, FILE *errors, size_t *found);

static int collect_entry(const char *path, const char *name, struct litmus_list *list, FILE *errors, size_t *found)
{
	struct stat status;

	if (lstat(path, &status)) {
		complain(list, errors, path, strerror(errno));
		return 0;
	}
	if (S_ISDIR(status.st_mode))
		return collect_folder(path, list, errors, found);
	if (!is_litmus(name))
		return 0;
	++*found;
	return collect_file(path, list, errors);
}

static int collect_folder(const char *folder, struct litmus_list *list, FILE *errors, size_t *found)
{
	struct dirent **entries;
	int n = scandir(folder, &entries, is_visible, by_name), result = 0;
	size_t length = strlen(folder);

	if (n < 0) {
		complain(list, errors, folder, strerror(errno));
		return 0;
	}
	while (length > 1 && folder[length - 1] == '/')
		length--;
	for (int i = 0; i < n; i++) {
		char *path = NULL;

		if (!result && asprintf(&path, "%.*s/%s", (int)length, folder, entries[i]->d_name) < 0)
			result = -ENOMEM;
		else if (!result)
			result = collect_entry(path, entries[i]->d_name, list, errors, found);
		free(path);
		free(entries[i]);
	}
	free(entries);
	return result;
}

int litmus_collect(const char *path, struct litmus_list *list, FILE *errors)
{
	struct stat status;
	size_t found = 0, bad = list->bad;
	int result;

	if (stat(path, &status)) {
		complain(list, errors, path, strerror(errno));
		return 0;
	}
	if (!S_ISDIR(status.st_mode))
		return collect_file(path, list, errors);
	result = collect_folder(path, list, errors, &found);
	if (!result && !found && bad == list->bad)
		complain(list, errors, path, "no *.litmus files in this folder");
	return result;
}

void litmus_list_free(struct litmus_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		litmus_free(list->tests[i]);
	free(list->tests);
}
