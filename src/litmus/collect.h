/* SPDX-License-Identifier: MIT */
/* The litmus files behind the paths of a command line, found and parsed. */
#ifndef LITMUS_COLLECT_H
#define LITMUS_COLLECT_H

#include "litmus.h"

struct litmus_list {
	struct litmus **tests;
	size_t n, bad; /* parsed; files and paths that were not, each reported */
};

/*
 * litmus_collect - parse the file @path, or every *.litmus below the folder @path in name order.
 *
 * What is malformed, missing or empty is reported on @errors as `path:line:column: text` or `path: text`, counted in
 * list->bad, and does not end the search. Hidden files and links to folders are passed over.
 * Returns: 0; -ENOMEM.
 */
int litmus_collect(const char *path, struct litmus_list *list, FILE *errors);
void litmus_list_free(struct litmus_list *list);

#endif
