/* SPDX-License-Identifier: MIT */
/*
 * The slab of base/slab.h. A chunk is aligned to its size, so an object finds its chunk by masking. A slab that has
 * grown takes 32 chunks at a time, as one huge page of the host: tables are met in random order, and every miss of the
 * processor's TLB would double its price.
 */
#include "base/slab.h"

#include "base/host.h"
#include "base/thread.h"

#include <string.h>

#define CHUNK_BYTES ((size_t)64 << 10)
#define AREA_BYTES  ((size_t)2 << 20)
#define AREA_CHUNKS (AREA_BYTES / CHUNK_BYTES)
#define SMALL       16 /* a slab of so many chunks grows by areas */
#define ALIGNMENT   64
#define FREED_BYTE  0x5d
/* Empty chunks to keep: this many, or a quarter of what is in use. A fork and exit in a loop must not map and unmap. */
#define KEEP_CHUNKS 48

struct chunk {
	struct list link;
	uint32_t used;
	uint32_t owner; /* explorer: whose fresh objects these are */
	uint32_t fresh; /* objects never handed out; still zero from the host */
	void *free;     /* linked through their first word */
};

#define CHUNK_HEADER ((sizeof(struct chunk) + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1))

void slab_init(struct slab *slab, size_t object_bytes)
{
	memset(slab, 0, sizeof(*slab));
	slab->object_bytes = (uint32_t)((object_bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1));
	slab->objects_a_chunk = (uint32_t)((CHUNK_BYTES - CHUNK_HEADER) / slab->object_bytes);
	list_init(&slab->partial);
	list_init(&slab->full);
}

static void chunk_release(struct chunk *chunk)
{
	host_unmap(chunk, CHUNK_BYTES);
}

void slab_destroy(struct slab *slab)
{
	UCOW_BUG_ON(slab->in_use);
	while (!list_is_empty(&slab->partial)) {
		struct chunk *chunk = container_of(slab->partial.next, struct chunk, link);

		list_del(&chunk->link);
		chunk_release(chunk);
	}
}

/* Map more and trim, so that the area is aligned to its size. Returns: NULL: no memory. */
static char *map_aligned(size_t nbytes)
{
	char *area = host_map(2 * nbytes);
	size_t before;

	if (!area)
		return NULL;
	before = -(uintptr_t)area & (nbytes - 1);
	if (before)
		host_unmap(area, before);
	host_unmap(area + before + nbytes, nbytes - before);
	return area + before;
}

/*
 * A chunk with a free object. Where a fresh object lies must not depend on which lane of the explorer came first, or
 * one state would be many: each takes them from chunks of its own. What was freed goes to whoever comes next.
 */
static struct chunk *chunk_find(const struct slab *slab)
{
	if (exploring) {
		struct chunk *own = NULL;

		LIST_FOR_EACH (link, &slab->partial) {
			struct chunk *chunk = container_of(link, struct chunk, link);

			if (chunk->free)
				return chunk;
			if (!own && chunk->owner == thread_slot() && chunk->fresh < slab->objects_a_chunk)
				own = chunk;
		}
		return own;
	}
	return list_is_empty(&slab->partial) ? NULL : container_of(slab->partial.next, struct chunk, link);
}

/* Among those of the explorer by address, for the same reason. */
static void chunk_insert(struct slab *slab, struct chunk *chunk)
{
	struct list *before = &slab->partial;

	if (exploring) {
		chunk->owner = thread_slot();
		LIST_FOR_EACH (link, &slab->partial)
			if ((char *)link < (char *)chunk)
				before = link;
		list_add(before, &chunk->link);
		return;
	}
	list_add_tail(before, &chunk->link);
}

/* Fresh chunks into @chunks, linked with one another. Returns: how many. */
static unsigned chunks_create(struct list *chunks, bool grown)
{
	unsigned n = grown ? AREA_CHUNKS : 1;
	char *area = map_aligned(n * CHUNK_BYTES);

	if (!area)
		return 0;
	if (grown)
		host_advise_huge(area, AREA_BYTES);
	for (unsigned i = 0; i < n; i++)
		list_add_tail(chunks, &((struct chunk *)(void *)(area + i * CHUNK_BYTES))->link);
	return n;
}

/* Called locked; the lock is dropped meanwhile. Returns: whether there is a free object. */
static bool grow_locked(struct slab *slab)
{
	bool grown = slab->chunks >= SMALL;
	struct list chunks;
	unsigned n;

	list_init(&chunks);
	spin_unlock(&slab->lock, LOCK_SLAB);
	n = chunks_create(&chunks, grown);
	spin_lock(&slab->lock, LOCK_SLAB);
	slab->chunks += n;
	slab->empty_chunks += n;
	while (!list_is_empty(&chunks)) {
		struct list *link = chunks.next;

		list_del(link);
		chunk_insert(slab, container_of(link, struct chunk, link));
	}
	return chunk_find(slab);
}

static void *chunk_take(struct slab *slab, struct chunk *chunk, bool *fresh)
{
	char *object = chunk->free;

	*fresh = !object;
	if (object)
		memcpy(&chunk->free, object, sizeof(chunk->free));
	else
		object = (char *)chunk + CHUNK_HEADER + (size_t)slab->object_bytes * chunk->fresh++;
	if (!chunk->used++)
		slab->empty_chunks--;
	if (chunk->used == slab->objects_a_chunk) {
		list_del(&chunk->link);
		list_add(&slab->full, &chunk->link);
	}
	slab->in_use++;
	return object;
}

void *slab_alloc(struct slab *slab)
{
	struct chunk *chunk;
	void *object;
	bool fresh;

	spin_lock(&slab->lock, LOCK_SLAB);
	if (!chunk_find(slab) && !grow_locked(slab)) {
		spin_unlock(&slab->lock, LOCK_SLAB);
		return NULL;
	}
	chunk = chunk_find(slab);
	object = chunk_take(slab, chunk, &fresh);
	spin_unlock(&slab->lock, LOCK_SLAB);
	if (!fresh)
		memset(object, 0, slab->object_bytes);
	return object;
}

/* What was freed before the lanes run: the first to come would get it, see chunk_find. */
static bool slab_gives_again(void)
{
#if exploring
	return hook_live;
#else
	return true;
#endif
}

void slab_free(struct slab *slab, void *object)
{
	struct chunk *chunk = (struct chunk *)(void *)((uintptr_t)object & ~(CHUNK_BYTES - 1)), *release = NULL;
	bool again = slab_gives_again();

	/* Whoever looks at it still is to be found out. */
	hook_step(HOOK_STORE, object);
	if (exploring)
		memset(object, FREED_BYTE, slab->object_bytes);
	spin_lock(&slab->lock, LOCK_SLAB);
	if (again) {
		memcpy(object, &chunk->free, sizeof(chunk->free));
		chunk->free = object;
	}
	slab->in_use--;
	if (chunk->used-- == slab->objects_a_chunk) {
		list_del(&chunk->link);
		list_add(&slab->partial, &chunk->link);
	}
	if (!chunk->used && slab->empty_chunks++ >= max_u64(KEEP_CHUNKS, slab->in_use / slab->objects_a_chunk / 4)) {
		list_del(&chunk->link);
		slab->empty_chunks--;
		slab->chunks--;
		release = chunk;
	}
	spin_unlock(&slab->lock, LOCK_SLAB);
	if (release)
		chunk_release(release);
}
