/* SPDX-License-Identifier: MIT */
/*
 * What the engine takes from its host: memory. One place, so that the explorer's build can take all of it from one
 * arena that it puts back after every run.
 */
#ifndef BASE_HOST_H
#define BASE_HOST_H

#include "base/base.h"

/* host_alloc - @nbytes, zeroed. Returns: NULL: no memory. */
void *host_alloc(size_t nbytes);
/* host_alloc_lines - the same, on cache lines of its own, aligned to 128. */
void *host_alloc_lines(size_t nbytes);
/* host_free - NULL is allowed. */
void host_free(void *memory);

/* host_map - @nbytes of zeroed pages, taken from the host as they are touched. Returns: NULL. */
void *host_map(size_t nbytes);
/* host_unmap - the whole or a part of it, pages. */
void host_unmap(void *memory, size_t nbytes);
/* host_advise_huge - huge pages are welcome here; a host without them serves small ones. */
void host_advise_huge(void *memory, size_t nbytes);
/* host_keep_from_fork - the embedder's own fork(2) must not copy this. Returns: 0; -ENOMEM. */
int host_keep_from_fork(void *memory, size_t nbytes);
/* host_commit - take the pages now. Returns: 0; -ENOMEM: the host has no memory. */
int host_commit(void *memory, size_t nbytes);
/* host_decommit - give the pages back; they read as zeros when touched again. Returns: whether it did. */
bool host_decommit(void *memory, size_t nbytes);

#endif
