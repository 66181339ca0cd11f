/* SPDX-License-Identifier: MIT */
/* The object behind a shared anonymous mapping. */
#include "cache/shm.h"

#include "base/host.h"

#include <errno.h>

struct shm *shm_create(struct inject *inject, uint64_t npages)
{
	struct shm *shm;

	if (inject_fails(inject, UCOW_INJECT_OTHER))
		return NULL;
	shm = host_alloc(sizeof(*shm) + npages * sizeof(*shm->pages));
	if (!shm)
		return NULL;
	atomic_init(&shm->refcount, 1);
	shm->npages = npages;
	return shm;
}

void shm_get(struct shm *shm)
{
	atomic_fetch_add_explicit(&shm->refcount, 1, memory_order_relaxed);
}

void shm_put(struct shm *shm)
{
	if (atomic_fetch_sub_explicit(&shm->refcount, 1, memory_order_acq_rel) != 1)
		return;
	for (uint64_t i = 0; i < shm->npages; i++)
		if (shm->pages[i]) {
			page_clear(shm->pages[i], PAGE_SHMEM);
			shm->pages[i]->mapping = NULL;
			page_put(shm->pages[i]);
		}
	host_free(shm);
}

int shm_find(struct shm *shm, uint64_t index, struct ucow_page **page)
{
	if (index >= shm->npages)
		return -ENXIO;
	spin_lock(&shm->lock, LOCK_OBJECT);
	*page = shm->pages[index];
	if (*page)
		page_get(*page);
	spin_unlock(&shm->lock, LOCK_OBJECT);
	return *page ? 0 : -ENOENT;
}

struct ucow_page *shm_insert(struct shm *shm, uint64_t index, struct ucow_page *made)
{
	struct ucow_page *page;

	page_set(made, PAGE_SHMEM);
	made->mapping = shm;
	made->index = index;
	spin_lock(&shm->lock, LOCK_OBJECT);
	page = shm->pages[index];
	if (!page)
		page = shm->pages[index] = made;
	page_get(page);
	spin_unlock(&shm->lock, LOCK_OBJECT);
	if (page != made) {
		page_clear(made, PAGE_SHMEM);
		page_put(made);
	}
	return page;
}

const struct ucow_page *shm_look(struct shm *shm, uint64_t index)
{
	const struct ucow_page *page;

	if (index >= shm->npages)
		return NULL;
	spin_lock(&shm->lock, LOCK_OBJECT);
	page = shm->pages[index];
	spin_unlock(&shm->lock, LOCK_OBJECT);
	return page;
}
