/* SPDX-License-Identifier: MIT */
/* The treap of base/tree.h. Expected depth is logarithmic: priorities are a hash of the key at insertion. */
#include "base/tree.h"

static uint32_t priority_of(uint64_t key)
{
	key ^= key >> 33;
	key *= 0xff51afd7ed558ccdULL;
	key ^= key >> 33;
	key *= 0xc4ceb9fe1a85ec53ULL;
	return (uint32_t)(key >> 32);
}

static void update(struct tree *tree, struct tree_node *node)
{
	if (tree->update)
		tree->update(node);
}

void tree_updated(struct tree *tree, struct tree_node *node)
{
	if (tree->update)
		for (; node; node = node->parent)
			tree->update(node);
}

/* Put @child where @node hangs. */
static void replace(struct tree *tree, struct tree_node *node, struct tree_node *child)
{
	if (!node->parent)
		tree->root = child;
	else if (node->parent->left == node)
		node->parent->left = child;
	else
		node->parent->right = child;
	if (child)
		child->parent = node->parent;
}

/* Lift @node over its parent; the order of keys is kept. */
static void rotate_up(struct tree *tree, struct tree_node *node)
{
	struct tree_node *parent = node->parent, *moved;

	replace(tree, parent, node);
	if (parent->left == node) {
		moved = node->right;
		node->right = parent;
		parent->left = moved;
	} else {
		moved = node->left;
		node->left = parent;
		parent->right = moved;
	}
	if (moved)
		moved->parent = parent;
	parent->parent = node;
	update(tree, parent);
	update(tree, node);
}

void tree_insert(struct tree *tree, struct tree_node *node, uint64_t key)
{
	struct tree_node **link = &tree->root, *parent = NULL;

	while (*link) {
		parent = *link;
		UCOW_BUG_ON(parent->key == key);
		link = key < parent->key ? &parent->left : &parent->right;
	}
	*node = (struct tree_node){.parent = parent, .key = key, .priority = priority_of(key)};
	*link = node;
	tree_updated(tree, node);
	while (node->parent && node->parent->priority < node->priority)
		rotate_up(tree, node);
	tree_updated(tree, node);
}

void tree_remove(struct tree *tree, struct tree_node *node)
{
	struct tree_node *parent;

	while (node->left && node->right)
		rotate_up(tree, node->left->priority > node->right->priority ? node->left : node->right);
	parent = node->parent;
	replace(tree, node, node->left ? node->left : node->right);
	tree_updated(tree, parent);
}

struct tree_node *tree_floor(const struct tree *tree, uint64_t key)
{
	struct tree_node *node = tree->root, *best = NULL;

	while (node) {
		if (node->key <= key) {
			best = node;
			node = node->right;
		} else {
			node = node->left;
		}
	}
	return best;
}

static struct tree_node *leftmost(struct tree_node *node)
{
	while (node && node->left)
		node = node->left;
	return node;
}

static struct tree_node *rightmost(struct tree_node *node)
{
	while (node && node->right)
		node = node->right;
	return node;
}

struct tree_node *tree_first(const struct tree *tree)
{
	return leftmost(tree->root);
}

struct tree_node *tree_last(const struct tree *tree)
{
	return rightmost(tree->root);
}

struct tree_node *tree_next(const struct tree_node *node)
{
	if (node->right)
		return leftmost(node->right);
	while (node->parent && node->parent->right == node)
		node = node->parent;
	return node->parent;
}

struct tree_node *tree_prev(const struct tree_node *node)
{
	if (node->left)
		return rightmost(node->left);
	while (node->parent && node->parent->left == node)
		node = node->parent;
	return node->parent;
}
