/* SPDX-License-Identifier: MIT */
/*
 * An intrusive ordered binary tree (a treap: heap-ordered by a priority derived from the key, so its shape depends on
 * the set of keys alone) with an augmentation hook. libbsd's RB trees would serve but for two things: embedding needs
 * no package beyond libc, and their augmentation stops at the parent while the gap search needs it on the whole path.
 * No locking: the owner says what guards it.
 */
#ifndef BASE_TREE_H
#define BASE_TREE_H

#include "base/base.h"

struct tree_node {
	struct tree_node *parent, *left, *right;
	uint64_t key;
	uint32_t priority;
};

struct tree {
	struct tree_node *root;
	/* Recompute @node's summary from itself and its children; NULL: no augmentation. */
	void (*update)(struct tree_node *node);
};

/* tree_insert - add @node under @key. Requires: no node with this key. */
void tree_insert(struct tree *tree, struct tree_node *node, uint64_t key);
void tree_remove(struct tree *tree, struct tree_node *node);
/* tree_updated - @node's own part of the summary has changed: recompute it and its ancestors. */
void tree_updated(struct tree *tree, struct tree_node *node);
/* tree_floor - the node with the greatest key <= @key, or NULL. */
struct tree_node *tree_floor(const struct tree *tree, uint64_t key);
struct tree_node *tree_first(const struct tree *tree);
struct tree_node *tree_last(const struct tree *tree);
struct tree_node *tree_next(const struct tree_node *node);
struct tree_node *tree_prev(const struct tree_node *node);

#endif
