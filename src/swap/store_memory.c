/* SPDX-License-Identifier: MIT */
/*
 * Memory for pages that were swapped out, small ones mostly. Pieces of one size share a chunk; a chunk without pieces
 * gives its pages back at once, an area without chunks its addresses, but for one area: this memory is asked for when
 * there is little. Nothing is written into free pieces of pages that were given back.
 */
#include "swap/store_internal.h"

#include "base/host.h"

#include <string.h>
#if packs
#include <lz4.h>
#endif

#define NOWHERE UINT16_MAX

struct chunk {
	struct list link;     /* in partial[] or empty; in no list while full, or while it gives its pages back */
	uint16_t used, fresh; /* pieces handed out; pieces ever handed out since the chunk was empty */
	uint16_t free;        /* a piece that came back, which names the next one; or NOWHERE */
	uint16_t number;      /* fixed: in the area */
	struct blob_area *area;
};

struct blob_area {
	char *bytes;
	uint32_t number;
	uint32_t used; /* chunks that are not in the list of empty ones */
	struct chunk chunks[];
};

static size_t areas_bytes(const struct blobs *blobs)
{
	return page_round_up(blobs->nareas * sizeof(*blobs->areas));
}

/* Pieces of many sizes, in chunks that are far from full, take more than the pages did: addresses for four times that.
 */
int blobs_init(struct blobs *blobs, uint64_t nslots)
{
	for (unsigned i = 0; i < BLOB_CLASSES; i++)
		list_init(&blobs->partial[i]);
	list_init(&blobs->empty);
	blobs->nareas = (uint32_t)(4 * (nslots * UCOW_PAGE_SIZE / BLOB_AREA_BYTES) + 2 * BLOB_CLASSES);
	blobs->areas = host_map(areas_bytes(blobs));
	return blobs->areas ? 0 : -ENOMEM;
}

static void area_free(struct blob_area *area)
{
	host_unmap(area->bytes, BLOB_AREA_BYTES);
	host_free(area);
}

void blobs_destroy(struct blobs *blobs)
{
	if (!blobs->areas)
		return;
	for (uint32_t i = 0; i < blobs->nareas; i++)
		if (blobs->areas[i])
			area_free(blobs->areas[i]);
	host_unmap(blobs->areas, areas_bytes(blobs));
}

/* ---- areas ---- */

static struct blob_area *area_create(void)
{
	struct blob_area *area = host_alloc(sizeof(*area) + BLOB_AREA_CHUNKS * sizeof(area->chunks[0]));

	if (!area)
		return NULL;
	area->bytes = host_map(BLOB_AREA_BYTES);
	if (!area->bytes) {
		host_free(area);
		return NULL;
	}
	for (uint16_t i = 0; i < BLOB_AREA_CHUNKS; i++) {
		area->chunks[i].area = area;
		area->chunks[i].number = i;
	}
	return area;
}

/* Returns: whether there was a number for it. Requires: the lock. */
static bool area_add(struct blobs *blobs, struct blob_area *area)
{
	uint32_t number = 0;

	while (number < blobs->nareas && blobs->areas[number])
		number++;
	if (number == blobs->nareas)
		return false;
	area->number = number;
	blobs->areas[number] = area;
	for (unsigned i = 0; i < BLOB_AREA_CHUNKS; i++)
		list_add_tail(&blobs->empty, &area->chunks[i].link);
	blobs->nempty += BLOB_AREA_CHUNKS;
	return true;
}

static void area_del(struct blobs *blobs, struct blob_area *area)
{
	for (unsigned i = 0; i < BLOB_AREA_CHUNKS; i++)
		list_del(&area->chunks[i].link);
	blobs->nempty -= BLOB_AREA_CHUNKS;
	blobs->areas[area->number] = NULL;
}

/* Another area. Called locked; the lock is dropped meanwhile. Returns: whether there may be an empty chunk now. */
static bool grow_locked(struct blobs *blobs)
{
	struct blob_area *area;
	bool added = false;

	spin_unlock(&blobs->lock, LOCK_SLAB);
	area = area_create();
	spin_lock(&blobs->lock, LOCK_SLAB);
	if (area)
		added = area_add(blobs, area);
	if (area && !added) {
		spin_unlock(&blobs->lock, LOCK_SLAB);
		area_free(area);
		spin_lock(&blobs->lock, LOCK_SLAB);
	}
	return added || blobs->nempty;
}

/* ---- pieces ---- */

static unsigned units_of(size_t nbytes)
{
	return (unsigned)((nbytes + BLOB_UNIT - 1) / BLOB_UNIT);
}

static char *piece_at(const struct chunk *chunk, unsigned units, unsigned index)
{
	return chunk->area->bytes + chunk->number * BLOB_CHUNK_BYTES + index * units * BLOB_UNIT;
}

static bool chunk_is_full(const struct chunk *chunk, unsigned units)
{
	return chunk->used == BLOB_CHUNK_UNITS / units;
}

static unsigned piece_take(struct chunk *chunk, unsigned units)
{
	unsigned index = chunk->free;

	if (index == NOWHERE)
		index = chunk->fresh++;
	else
		memcpy(&chunk->free, piece_at(chunk, units, index), sizeof(chunk->free));
	chunk->used++;
	return index;
}

/* A chunk with room for a piece; an empty one becomes one of this size. Requires: the lock. */
static struct chunk *chunk_with_room(struct blobs *blobs, unsigned units)
{
	struct list *partial = &blobs->partial[units - 1];
	struct chunk *chunk;

	if (!list_is_empty(partial))
		return container_of(partial->next, struct chunk, link);
	if (list_is_empty(&blobs->empty))
		return NULL;
	chunk = container_of(blobs->empty.next, struct chunk, link);
	list_del(&chunk->link);
	blobs->nempty--;
	chunk->area->used++;
	chunk->used = chunk->fresh = 0;
	chunk->free = NOWHERE;
	list_add(partial, &chunk->link);
	return chunk;
}

int blob_alloc(struct blobs *blobs, size_t nbytes, struct blob *blob)
{
	unsigned units = units_of(nbytes);
	struct chunk *chunk;

	spin_lock(&blobs->lock, LOCK_SLAB);
	do
		chunk = chunk_with_room(blobs, units);
	while (!chunk && grow_locked(blobs));
	if (chunk) {
		blob->area = chunk->area->number;
		blob->unit = chunk->number * BLOB_CHUNK_UNITS + piece_take(chunk, units) * units;
		if (chunk_is_full(chunk, units))
			list_del(&chunk->link);
	}
	spin_unlock(&blobs->lock, LOCK_SLAB);
	return chunk ? 0 : -ENOMEM;
}

void *blob_bytes(const struct blobs *blobs, struct blob blob)
{
	return blobs->areas[blob.area]->bytes + blob.unit * BLOB_UNIT;
}

/*
 * The chunk, which is in no list, gives its pages back; then others may have it. Returns: its area if that goes, for
 * the caller to free. Requires: the lock, which is dropped meanwhile.
 */
static struct blob_area *chunk_vacate(struct blobs *blobs, struct chunk *chunk)
{
	struct blob_area *area = chunk->area;

	spin_unlock(&blobs->lock, LOCK_SLAB);
	host_decommit(piece_at(chunk, 0, 0), BLOB_CHUNK_BYTES);
	spin_lock(&blobs->lock, LOCK_SLAB);
	list_add(&blobs->empty, &chunk->link);
	blobs->nempty++;
	if (--area->used || blobs->nempty < 2 * BLOB_AREA_CHUNKS)
		return NULL;
	area_del(blobs, area);
	return area;
}

void blob_free(struct blobs *blobs, struct blob blob, size_t nbytes)
{
	unsigned units = units_of(nbytes), index = blob.unit % BLOB_CHUNK_UNITS / units;
	struct blob_area *gone = NULL;
	struct chunk *chunk;

	spin_lock(&blobs->lock, LOCK_SLAB);
	chunk = &blobs->areas[blob.area]->chunks[blob.unit / BLOB_CHUNK_UNITS];
	memcpy(piece_at(chunk, units, index), &chunk->free, sizeof(chunk->free));
	chunk->free = (uint16_t)index;
	if (chunk_is_full(chunk, units))
		list_add(&blobs->partial[units - 1], &chunk->link);
	if (!--chunk->used) {
		list_del(&chunk->link);
		gone = chunk_vacate(blobs, chunk);
	}
	spin_unlock(&blobs->lock, LOCK_SLAB);
	if (gone)
		area_free(gone);
}

/* ---- compression ---- */

#if packs

struct packer {
	char packed[UCOW_PAGE_SIZE];
	char state[]; /* lz4's */
};

struct packer *packer_create(void)
{
	return host_alloc(sizeof(struct packer) + (size_t)LZ4_sizeofState());
}

void packer_destroy(struct packer *packer)
{
	host_free(packer);
}

size_t pack(struct packer *packer, const void *bytes, size_t limit, const void **packed)
{
	*packed = packer->packed;
	return (size_t)LZ4_compress_fast_extState(packer->state, bytes, packer->packed, UCOW_PAGE_SIZE, (int)limit, 1);
}

bool unpack(const void *packed, size_t nbytes, void *bytes)
{
	return LZ4_decompress_safe(packed, bytes, (int)nbytes, UCOW_PAGE_SIZE) == UCOW_PAGE_SIZE;
}
#else
struct packer *packer_create(void)
{
	return NULL;
}

void packer_destroy(struct packer *packer)
{
	(void)packer;
}

size_t pack(struct packer *packer, const void *bytes, size_t limit, const void **packed)
{
	(void)packer;
	(void)bytes;
	(void)limit;
	(void)packed;
	return 0;
}

bool unpack(const void *packed, size_t nbytes, void *bytes)
{
	(void)packed;
	(void)nbytes;
	(void)bytes;
	return false;
}
#endif
