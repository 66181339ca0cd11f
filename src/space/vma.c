/* SPDX-License-Identifier: MIT */
/* The set of mappings of space/vma.h. */
#include "space/vma.h"

#include <errno.h>

static struct vma *node_vma(const struct tree_node *node)
{
	return node ? container_of(node, struct vma, node) : NULL;
}

static void update_max_gap(struct tree_node *node)
{
	struct vma *vma = node_vma(node);

	vma->max_gap = vma->gap;
	if (node->left)
		vma->max_gap = max_u64(vma->max_gap, node_vma(node->left)->max_gap);
	if (node->right)
		vma->max_gap = max_u64(vma->max_gap, node_vma(node->right)->max_gap);
}

void vma_set_init(struct vma_set *set, uint64_t low, uint64_t high)
{
	*set = (struct vma_set){.tree.update = update_max_gap, .low = low, .high = high};
}

struct vma *vma_first(const struct vma_set *set)
{
	return node_vma(tree_first(&set->tree));
}

struct vma *vma_next(const struct vma *vma)
{
	return node_vma(tree_next(&vma->node));
}

struct vma *vma_prev(const struct vma *vma)
{
	return node_vma(tree_prev(&vma->node));
}

struct vma *vma_find(const struct vma_set *set, uint64_t va)
{
	struct vma *vma = node_vma(tree_floor(&set->tree, va));

	if (vma && va < vma->end)
		return vma;
	return vma ? vma_next(vma) : vma_first(set);
}

struct vma *vma_at(const struct vma_set *set, uint64_t va)
{
	struct vma *vma = node_vma(tree_floor(&set->tree, va));

	return vma && va < vma->end ? vma : NULL;
}

/* The gap before @vma has changed: recompute it and the summaries above. */
static void refresh_gap(struct vma_set *set, struct vma *vma)
{
	struct vma *prev;

	if (!vma)
		return;
	prev = vma_prev(vma);
	vma->gap = vma->start - (prev ? prev->end : set->low);
	tree_updated(&set->tree, &vma->node);
}

void vma_insert(struct vma_set *set, struct vma *vma)
{
	UCOW_BUG_ON(vma->start >= vma->end || !vma_range_is_free(set, vma->start, vma->end));
	UCOW_BUG_ON(vma->start < set->low || vma->end > set->high);
	vma->gap = 0;
	tree_insert(&set->tree, &vma->node, vma->start);
	refresh_gap(set, vma);
	refresh_gap(set, vma_next(vma));
	set->count++;
	set->npages += (vma->end - vma->start) >> UCOW_PAGE_SHIFT;
}

void vma_remove(struct vma_set *set, struct vma *vma)
{
	struct vma *next = vma_next(vma);

	tree_remove(&set->tree, &vma->node);
	refresh_gap(set, next);
	set->count--;
	set->npages -= (vma->end - vma->start) >> UCOW_PAGE_SHIFT;
}

void vma_split(struct vma_set *set, struct vma *vma, uint64_t va, struct vma *upper)
{
	UCOW_BUG_ON(va <= vma->start || va >= vma->end);
	*upper = *vma;
	upper->pgoff = vma_page_index(vma, va);
	upper->start = va;
	set->npages -= (vma->end - va) >> UCOW_PAGE_SHIFT;
	vma->end = va;
	vma_insert(set, upper);
}

static bool has_anon(const struct vma *vma)
{
	return atomic_load_explicit(&vma->has_anon, memory_order_relaxed);
}

/* A mapping without anon pages was not inherited. */
static bool anon_can_merge(const struct vma *lower, const struct vma *upper)
{
	return has_anon(lower) && has_anon(upper) ? lower->inherited == upper->inherited
						  : !lower->inherited && !upper->inherited;
}

bool vma_can_merge(const struct vma *lower, const struct vma *upper)
{
	return lower->end == upper->start && !((lower->flags ^ upper->flags) & ~(unsigned)VMA_SOFTDIRTY) &&
	       lower->object == upper->object && lower->file == upper->file && lower->uffd == upper->uffd &&
	       vma_page_index(lower, lower->end) == upper->pgoff && anon_can_merge(lower, upper);
}

void vma_grow(struct vma_set *set, struct vma *vma, uint64_t end)
{
	UCOW_BUG_ON(end < vma->end || !vma_range_is_free(set, vma->end, end));
	set->npages += (end - vma->end) >> UCOW_PAGE_SHIFT;
	vma->end = end;
	refresh_gap(set, vma_next(vma));
}

struct vma *vma_merge_next(struct vma_set *set, struct vma *vma)
{
	struct vma *next = vma_next(vma);
	uint64_t end;

	if (!next || !vma_can_merge(vma, next))
		return NULL;
	end = next->end;
	if (has_anon(next))
		atomic_store_explicit(&vma->has_anon, true, memory_order_relaxed);
	vma->flags |= next->flags & VMA_SOFTDIRTY;
	vma_remove(set, next);
	vma_grow(set, vma, end);
	return next;
}

bool vma_range_is_free(const struct vma_set *set, uint64_t start, uint64_t end)
{
	const struct vma *vma = vma_find(set, start);

	return !vma || vma->start >= end;
}

bool vma_range_is_mapped(const struct vma_set *set, uint64_t start, uint64_t end)
{
	for (const struct vma *vma = vma_at(set, start); vma && vma->start <= start; vma = vma_next(vma)) {
		if (vma->end >= end)
			return true;
		start = vma->end;
	}
	return start >= end;
}

/* Whether @nbytes fit, aligned, into the gap that ends at @end. */
static bool gap_fits(uint64_t start, uint64_t end, uint64_t nbytes, uint64_t align, uint64_t *va)
{
	*va = (start + align - 1) & ~(align - 1);
	return *va >= start && *va <= end && end - *va >= nbytes;
}

/* In address order, skipping subtrees whose greatest gap is too small; bounded by the tree's depth, not recursive. */
static struct tree_node *first_gap(struct tree_node *node, uint64_t nbytes)
{
	while (node && node_vma(node)->max_gap >= nbytes) {
		if (node->left && node_vma(node->left)->max_gap >= nbytes)
			node = node->left;
		else if (node_vma(node)->gap >= nbytes)
			return node;
		else
			node = node->right;
	}
	return NULL;
}

static struct tree_node *next_gap(struct tree_node *node, uint64_t nbytes)
{
	for (;;) {
		struct tree_node *found = first_gap(node->right, nbytes);

		if (found)
			return found;
		while (node->parent && node->parent->right == node)
			node = node->parent;
		node = node->parent;
		if (!node || node_vma(node)->gap >= nbytes)
			return node;
	}
}

int vma_find_room(const struct vma_set *set, uint64_t nbytes, uint64_t align, uint64_t *va)
{
	const struct vma *last = node_vma(tree_last(&set->tree));

	for (struct tree_node *node = first_gap(set->tree.root, nbytes); node; node = next_gap(node, nbytes)) {
		const struct vma *vma = node_vma(node);

		if (gap_fits(vma->start - vma->gap, vma->start, nbytes, align, va))
			return 0;
	}
	return gap_fits(last ? last->end : set->low, set->high, nbytes, align, va) ? 0 : -ENOMEM;
}

static const char *check_one(const struct vma *vma, uint64_t end_before)
{
	const struct tree_node *left = vma->node.left, *right = vma->node.right;
	uint64_t max_gap = vma->gap;

	if (vma->start >= vma->end)
		return "an empty mapping";
	if ((vma->start | vma->end) & ~UCOW_PAGE_MASK)
		return "a mapping that is not page aligned";
	if (vma->start < end_before)
		return "mappings overlap or are out of order";
	if (vma->gap != vma->start - end_before)
		return "a gap is not what lies before its mapping";
	if (left)
		max_gap = max_u64(max_gap, node_vma(left)->max_gap);
	if (right)
		max_gap = max_u64(max_gap, node_vma(right)->max_gap);
	return vma->max_gap == max_gap ? NULL : "a greatest gap is not the maximum of its subtree";
}

const char *vma_set_check(const struct vma_set *set)
{
	uint64_t count = 0, npages = 0, end = set->low;

	VMA_FOR_EACH (vma, set) {
		const char *wrong = vma_at(set, vma->start) != vma ? "a mapping is not found at its start"
								   : check_one(vma, end);

		if (wrong)
			return wrong;
		count++;
		npages += (vma->end - vma->start) >> UCOW_PAGE_SHIFT;
		end = vma->end;
	}
	if (end > set->high)
		return "a mapping above the limit";
	return count == set->count && npages == set->npages ? NULL : "the counts are not the sum over the mappings";
}
