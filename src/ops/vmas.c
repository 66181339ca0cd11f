/* SPDX-License-Identifier: MIT */
/* Mappings with their memory: nodes, references on objects, isolating a range and merging again. */
#include "ops/ops.h"

#include "base/host.h"
#include "cache/cache.h"
#include "fault/uffd.h"

#include <errno.h>

struct vma *vma_create(struct ucow_machine *machine)
{
	if (inject_fails(&machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	return host_alloc(sizeof(struct vma));
}

void vma_release(struct vma *vma)
{
	if (vma && vma->object) {
		cache_detach(vma);
		cache_put(vma->object);
	}
	if (vma && vma->file)
		file_put(vma->file);
	host_free(vma);
}

void vma_share_object(struct vma *vma, const struct vma *like)
{
	if (like->object)
		cache_get(like->object);
	if (like->file)
		file_get(like->file);
	cache_attach_like(vma, like);
}

/* Whether a mapping crosses @va. */
static struct vma *crossing(struct ucow_mm *mm, uint64_t va)
{
	struct vma *vma = vma_at(&mm->vmas, va);

	return vma && vma->start < va ? vma : NULL;
}

static void split_at(struct ucow_mm *mm, uint64_t va, struct vma *upper)
{
	struct vma *lower = crossing(mm, va);

	vma_split(&mm->vmas, lower, va, upper);
	vma_share_object(upper, lower);
}

int vmas_isolate(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	struct vma *at_start = NULL, *at_end = NULL;

	if (crossing(mm, start)) {
		at_start = vma_create(mm->machine);
		if (!at_start)
			return -ENOMEM;
	}
	if (crossing(mm, end)) {
		at_end = vma_create(mm->machine);
		if (!at_end) {
			vma_release(at_start);
			return -ENOMEM;
		}
	}
	if (at_start)
		split_at(mm, start, at_start);
	if (at_end)
		split_at(mm, end, at_end);
	return 0;
}

void vmas_merge(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	struct vma *vma = vma_find(&mm->vmas, start ? start - 1 : 0);

	while (vma && vma->start < end) {
		struct vma *merged = vma_merge_next(&mm->vmas, vma);

		vma_release(merged);
		if (!merged)
			vma = vma_next(vma);
	}
}

void vmas_remove(struct ucow_mm *mm, uint64_t start, uint64_t end)
{
	struct vma *vma = vma_find(&mm->vmas, start), *next;

	for (; vma && vma->start < end; vma = next) {
		UCOW_BUG_ON(vma->start < start || vma->end > end);
		next = vma_next(vma);
		if (unlikely(vma->uffd)) /* they will find that there is nothing to wait for */
			uffd_wake(vma->uffd, vma->start, vma->end);
		vma_remove(&mm->vmas, vma);
		vma_release(vma);
	}
}
