/* SPDX-License-Identifier: MIT */
/* Fibres: stacks that one thread changes between, without system calls. */
#ifndef LITMUS_EXPLORE_FIBRE_H
#define LITMUS_EXPLORE_FIBRE_H

#include <stddef.h>

struct fibre {
	void *top;   /* of the saved registers while it does not run */
	char *stack; /* NULL: the thread's own */
	size_t nbytes;
};

/* fibre_create - a stack of @nbytes with a guard page below. Returns: 0; -ENOMEM. */
int fibre_create(struct fibre *fibre, size_t nbytes);
void fibre_destroy(struct fibre *fibre);
/* fibre_prepare - the next change to @fibre calls @entry(@arg), which never returns. What it ran before is dropped. */
void fibre_prepare(struct fibre *fibre, void (*entry)(void *arg), void *arg);
/* fibre_change - leave @from, go on with @to. */
void fibre_change(struct fibre *from, struct fibre *to);

/*
 * fibre_wipe - zero @nbytes of the stack beyond what is in use. It says nothing, but frames that come to lie there have
 * holes in which it would show. Requires: @fibre does not run.
 */
void fibre_wipe(struct fibre *fibre, size_t nbytes);

#endif
