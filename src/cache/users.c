/* SPDX-License-Identifier: MIT */
/*
 * The spaces that map a cache. A space is listed once while it has mappings of the cache, and lists those itself, so
 * that whoever looks for the entries of a page asks each space for the mapping and the tables for the entry.
 */
#include "cache/cache.h"

#include "base/host.h"

#include <errno.h>

static struct cache_user *user_of(struct list *link)
{
	return container_of(link, struct cache_user, link);
}

/* ---- mappings ---- */

static struct cache_user *make_user(struct cache *cache, struct ucow_mm *mm)
{
	struct cache_user *user;

	if (inject_fails(&mm->machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	user = host_alloc(sizeof(*user));
	if (!user)
		return NULL;
	user->cache = cache;
	user->mm = mm;
	user->refs = 1;
	list_init(&user->mappings);
	list_add(&mm->file_users, &user->of_space);
	spin_lock(&cache->lock, LOCK_CACHE);
	list_add_tail(&cache->users, &user->link);
	cache->nusers++;
	spin_unlock(&cache->lock, LOCK_CACHE);
	return user;
}

static void add_mapping(struct cache_user *user, struct vma *vma)
{
	vma->user = user;
	list_add_tail(&user->mappings, &vma->user_link);
}

int cache_attach(struct ucow_mm *mm, struct vma *vma)
{
	struct cache_user *user = NULL;

	LIST_FOR_EACH (link, &mm->file_users) {
		user = container_of(link, struct cache_user, of_space);
		if (user->cache == vma->object)
			break;
		user = NULL;
	}
	if (!user)
		user = make_user(vma->object, mm);
	if (!user)
		return -ENOMEM;
	add_mapping(user, vma);
	return 0;
}

void cache_attach_like(struct vma *vma, const struct vma *like)
{
	vma->user = NULL;
	if (like->user)
		add_mapping(like->user, vma);
}

/* A parent with many mappings of one cache: its entry in the list remembers that of this child. */
int cache_attach_child(struct ucow_mm *child, struct vma *vma, const struct vma *parent)
{
	struct cache_user *user = parent->user;

	vma->user = NULL;
	if (!user)
		return 0;
	if (user->twin_serial != child->serial) {
		struct cache_user *made = make_user(user->cache, child);

		if (!made)
			return -ENOMEM;
		user->twin = made;
		user->twin_serial = child->serial;
	}
	add_mapping(user->twin, vma);
	return 0;
}

/* Requires: the lock. Returns: @user, if nobody has a reference to it any more. */
static struct cache_user *drop_user(struct cache_user *user)
{
	if (--user->refs)
		return NULL;
	list_del(&user->link);
	return user;
}

void cache_detach(struct vma *vma)
{
	struct cache_user *user = vma->user, *unused;
	struct cache *cache;

	if (!user)
		return;
	cache = user->cache;
	vma->user = NULL;
	list_del(&vma->user_link);
	if (!list_is_empty(&user->mappings))
		return;
	list_del(&user->of_space);
	spin_lock(&cache->lock, LOCK_CACHE);
	cache->nusers--;
	unused = drop_user(user);
	spin_unlock(&cache->lock, LOCK_CACHE);
	host_free(unused);
}

/* ---- walks ---- */

void cache_release_user(struct cache_user *user)
{
	struct cache *cache = user->cache;
	struct cache_user *unused;

	mm_release(user->mm);
	spin_lock(&cache->lock, LOCK_CACHE);
	unused = drop_user(user);
	spin_unlock(&cache->lock, LOCK_CACHE);
	host_free(unused);
}

struct cache_user *cache_next_user(struct cache *cache, struct cache_user *user)
{
	struct ucow_machine *machine = cache->machine;
	struct list *link;

	mutex_lock(&machine->lock); /* mm_hold's */
	spin_lock(&cache->lock, LOCK_CACHE);
	link = user ? user->link.next : cache->users.next;
	while (link != &cache->users && !mm_hold(user_of(link)->mm))
		link = link->next;
	if (link != &cache->users)
		user_of(link)->refs++;
	spin_unlock(&cache->lock, LOCK_CACHE);
	mutex_unlock(&machine->lock);
	if (user)
		cache_release_user(user);
	return link == &cache->users ? NULL : user_of(link);
}

bool cache_vma_range(const struct vma *vma, uint64_t first, uint64_t last, uint64_t *start, uint64_t *end)
{
	uint64_t npages = (vma->end - vma->start) >> UCOW_PAGE_SHIFT;

	if (last < vma->pgoff || first >= vma->pgoff + npages)
		return false;
	*start = vma->start + ((max_u64(first, vma->pgoff) - vma->pgoff) << UCOW_PAGE_SHIFT);
	*end = vma->start + ((min_u64(last, vma->pgoff + npages - 1) - vma->pgoff + 1) << UCOW_PAGE_SHIFT);
	return true;
}
