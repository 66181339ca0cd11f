/* SPDX-License-Identifier: MIT */
/*
 * Fixed-size objects out of host memory, in 64 KiB chunks. Objects are zeroed when handed out; a chunk whose objects
 * are all free goes back to the host, a few spare ones apart.
 */
#ifndef BASE_SLAB_H
#define BASE_SLAB_H

#include "base/list.h"
#include "base/lock.h"

struct slab {
	struct spin lock;         /* LOCK_SLAB; guards what follows */
	uint32_t object_bytes;    /* fixed after slab_init */
	uint32_t objects_a_chunk; /* fixed after slab_init */
	uint32_t chunks;
	uint32_t empty_chunks;
	uint64_t in_use;
	struct list partial; /* chunks with a free object */
	struct list full;
};

void slab_init(struct slab *slab, size_t object_bytes);
/* slab_destroy - give all memory back. Requires: no object in use. */
void slab_destroy(struct slab *slab);
/* slab_alloc - a zeroed object, 64-byte aligned. Returns: NULL when the host has no memory. Thread: any. */
void *slab_alloc(struct slab *slab);
/* slab_free - Thread: any. */
void slab_free(struct slab *slab, void *object);

#endif
