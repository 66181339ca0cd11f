/* SPDX-License-Identifier: MIT */
/*
 * What a result on the live kernel depends on besides the test: the kernel, the machine, what this user may see and
 * do, and what else moves pages about. A list of facts, which reports print as they are.
 */
#ifndef LITMUS_KERNEL_HOST_H
#define LITMUS_KERNEL_HOST_H

#include <stddef.h>
#include <stdint.h>

enum host_kind { HOST_UNKNOWN, HOST_TEXT, HOST_NUMBER, HOST_FLAG };

struct host_fact {
	const char *group; /* facts of one group follow each other */
	const char *key;
	enum host_kind kind;
	int64_t number; /* of a flag 0 or 1 */
	char text[400];
};

#define HOST_FACTS_MAX 40

struct kernel_host {
	struct host_fact facts[HOST_FACTS_MAX];
	size_t n;
};

/* kernel_host_describe - look at everything. Changes nothing; what cannot be told is HOST_UNKNOWN. */
void kernel_host_describe(struct kernel_host *host);
/* kernel_host_add - one more fact, of text. */
void kernel_host_add(struct kernel_host *host, const char *group, const char *key, const char *text);
/* kernel_host_taint - the taint mask of the kernel, 0 where it cannot be read. */
uint64_t kernel_host_taint(void);

#endif
