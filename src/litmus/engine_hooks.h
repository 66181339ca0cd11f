/* SPDX-License-Identifier: MIT */
/*
 * Memory of the engine runner under the explorer (explore_run.c): it is put back before each run, like the engine's. In
 * every other build this is libc's.
 */
#ifndef LITMUS_ENGINE_HOOKS_H
#define LITMUS_ENGINE_HOOKS_H

#if defined(UCOW_EXPLORE) && UCOW_EXPLORE
#include <stdlib.h>

void *engine_calloc(size_t n, size_t nbytes);
void *engine_realloc(void *memory, size_t nbytes);
void engine_free_memory(void *memory);
#undef calloc
#undef malloc
#undef realloc
#undef free
#define calloc(n, nbytes)       engine_calloc(n, nbytes)
#define malloc(nbytes)          engine_calloc(1, nbytes)
#define realloc(memory, nbytes) engine_realloc(memory, nbytes)
#define free(memory)            engine_free_memory(memory)
#endif

#endif
