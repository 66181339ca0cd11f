/* SPDX-License-Identifier: MIT */
/* What the scanner keeps for each space: a number by which it is named, and what was seen of its pages. */
#include "ksm/ksm.h"

#include "base/host.h"

#include <string.h>

#define CHUNK_BYTES ((uint64_t)KSM_CHUNK_PAGES << UCOW_PAGE_SHIFT)

static struct ksm_chunk *chunk_of(struct tree_node *node)
{
	return node ? container_of(node, struct ksm_chunk, node) : NULL;
}

/* ---- numbers ---- */

/* Requires: the machine's lock. Returns: the lowest free number, above 0; 0: no memory. */
static uint32_t number_take(struct ksm *ksm)
{
	struct ksm_space **grown;
	uint32_t id = 1, n;

	while (id < ksm->nspaces && ksm->spaces[id])
		id++;
	if (id < ksm->nspaces)
		return id;
	n = ksm->nspaces ? ksm->nspaces * 2 : 16;
	grown = host_alloc(n * sizeof(struct ksm_space *));
	if (!grown)
		return 0;
	if (ksm->nspaces)
		memcpy(grown, ksm->spaces, ksm->nspaces * sizeof(struct ksm_space *));
	host_free(ksm->spaces);
	ksm->spaces = grown;
	ksm->nspaces = n;
	return id;
}

static bool number_give(struct ksm *ksm, struct ksm_space *space)
{
	mutex_lock(&ksm->machine->lock);
	space->id = number_take(ksm);
	if (space->id)
		ksm->spaces[space->id] = space;
	mutex_unlock(&ksm->machine->lock);
	return space->id;
}

struct ksm_space *ksm_space_of(struct ksm *ksm, struct ucow_mm *mm)
{
	struct ksm_space *space = mm->ksm;

	if (likely(space))
		return space;
	if (inject_fails(&ksm->machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	space = host_alloc(sizeof(*space));
	if (!space)
		return NULL;
	space->mm = mm;
	if (!number_give(ksm, space)) {
		host_free(space);
		return NULL;
	}
	mm->ksm = space;
	return space;
}

struct ucow_mm *ksm_space_hold(struct ksm *ksm, uint32_t id)
{
	struct ucow_mm *mm = NULL;

	mutex_lock(&ksm->machine->lock);
	if (id < ksm->nspaces && ksm->spaces[id] && mm_hold(ksm->spaces[id]->mm))
		mm = ksm->spaces[id]->mm;
	mutex_unlock(&ksm->machine->lock);
	return mm;
}

static void chunk_free(struct ksm_space *space, struct ksm_chunk *chunk)
{
	tree_remove(&space->chunks, &chunk->node);
	host_free(chunk);
}

void ksm_space_end(struct ucow_mm *mm)
{
	struct ksm *ksm = mm->machine->ksm;
	struct ksm_space *space = mm->ksm;

	if (!space)
		return;
	mutex_lock(&mm->machine->lock);
	ksm->spaces[space->id] = NULL;
	mutex_unlock(&mm->machine->lock);
	while (space->chunks.root)
		chunk_free(space, chunk_of(space->chunks.root));
	host_free(space);
	mm->ksm = NULL;
}

/* ---- what was seen ---- */

static struct ksm_chunk *chunk_find(struct ksm_space *space, uint64_t base)
{
	struct ksm_chunk *chunk = chunk_of(tree_floor(&space->chunks, base));

	return chunk && chunk->node.key == base ? chunk : NULL;
}

static struct ksm_chunk *chunk_create(struct ksm *ksm, struct ksm_space *space, uint64_t base)
{
	struct ksm_chunk *chunk;

	if (inject_fails(&ksm->machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	chunk = host_alloc(sizeof(*chunk));
	if (chunk)
		tree_insert(&space->chunks, &chunk->node, base);
	return chunk;
}

uint64_t *ksm_remembered(struct ksm *ksm, struct ksm_space *space, uint64_t va)
{
	uint64_t base = va & ~(CHUNK_BYTES - 1);
	struct ksm_chunk *chunk = space->last;

	if (!chunk || chunk->node.key != base) {
		chunk = chunk_find(space, base);
		if (!chunk)
			chunk = chunk_create(ksm, space, base);
		if (!chunk)
			return NULL;
		space->last = chunk;
	}
	chunk->scan = ksm->scan;
	return &chunk->hashes[(va - base) >> UCOW_PAGE_SHIFT];
}

void ksm_space_trim(struct ksm *ksm, struct ksm_space *space)
{
	struct ksm_chunk *chunk = chunk_of(tree_first(&space->chunks)), *next;

	for (; chunk; chunk = next) {
		next = chunk_of(tree_next(&chunk->node));
		if (chunk->scan != ksm->scan)
			chunk_free(space, chunk);
	}
	space->last = NULL;
}
