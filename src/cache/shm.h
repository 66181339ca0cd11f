/* SPDX-License-Identifier: MIT */
/* The pages of a shared anonymous mapping: an object that the mappings refer to, in one space or many. */
#ifndef CACHE_SHM_H
#define CACHE_SHM_H

#include "frame/frame.h"

struct shm {
	_Atomic uint32_t refcount; /* (A) mappings */
	struct spin lock;          /* LOCK_OBJECT; guards pages[] */
	uint64_t npages;           /* fixed: size; beyond it there is nothing (SIGBUS) */
	struct ucow_page *pages[]; /* each with one reference of the object */
};

/* shm_create - an object of @npages, all zero, with one reference. Returns: NULL: no memory. */
struct shm *shm_create(struct inject *inject, uint64_t npages);
void shm_get(struct shm *shm);
/* shm_put - the last reference drops the pages; those that are pinned live on. */
void shm_put(struct shm *shm);

/*
 * shm_find - page number @index with a reference for the caller.
 * Requires: no table lock. Returns: 0; -ENXIO (beyond the end); -ENOENT: it is not there yet.
 */
int shm_find(struct shm *shm, uint64_t index, struct ucow_page **page);
/*
 * shm_insert - put @made, a zeroed frame, in as page number @index unless somebody was faster; then @made is freed.
 * Returns: the page that is in, with a reference for the caller. Requires: no table lock.
 */
struct ucow_page *shm_insert(struct shm *shm, uint64_t index, struct ucow_page *made);

/* shm_look - page number @index if it is there, or NULL. It stays as long as the object does. */
const struct ucow_page *shm_look(struct shm *shm, uint64_t index);

#endif
