/* SPDX-License-Identifier: MIT */
/* The pages of a shared anonymous mapping: an object that the mappings refer to, in one space or many. */
#ifndef CACHE_SHM_H
#define CACHE_SHM_H

#include "frame/frame.h"

struct shm {
	_Atomic uint32_t refcount; /* (A) mappings */
	struct spin lock;          /* LOCK_OBJECT; guards pages[] */
	struct frame_pool *pool;   /* fixed */
	uint64_t npages;           /* fixed: size; beyond it there is nothing (SIGBUS) */
	struct ucow_page *pages[]; /* each with one reference of the object */
};

/* shm_create - an object of @npages, all zero, with one reference. Returns: NULL: no memory. */
struct shm *shm_create(struct frame_pool *pool, uint64_t npages);
void shm_get(struct shm *shm);
/* shm_put - the last reference drops the pages; those that are pinned live on. */
void shm_put(struct shm *shm);

/*
 * shm_page - page number @index with a reference for the caller, made if it is not there yet.
 * Requires: no table lock. Returns: 0; -ENXIO (beyond the end); -ENOMEM.
 */
int shm_page(struct shm *shm, uint64_t index, struct ucow_page **page);

/* shm_look - page number @index if it is there, or NULL. It stays as long as the object does. */
const struct ucow_page *shm_look(struct shm *shm, uint64_t index);

#endif
