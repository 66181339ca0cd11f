/* SPDX-License-Identifier: MIT */
/* The ordered tree: order, floor, neighbours, summaries, against a sorted array. */
#include "base/tree.h"
#include "tap.h"

enum { N = 400, KEYS = 1200 };

struct item {
	struct tree_node node;
	uint64_t weight, sum; /* of the subtree */
	bool in;
};

static struct item items[N];

static struct item *item_of(const struct tree_node *node)
{
	return node ? container_of(node, struct item, node) : NULL;
}

static void update_sum(struct tree_node *node)
{
	struct item *item = item_of(node);

	item->sum = item->weight;
	if (node->left)
		item->sum += item_of(node->left)->sum;
	if (node->right)
		item->sum += item_of(node->right)->sum;
}

static uint64_t draw(uint64_t *state, uint64_t n)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % n;
}

static struct item *greatest_at_most(uint64_t key)
{
	struct item *best = NULL;

	for (unsigned i = 0; i < N; i++)
		if (items[i].in && items[i].node.key <= key && (!best || items[i].node.key > best->node.key))
			best = &items[i];
	return best;
}

static unsigned depth_below(const struct tree_node *node)
{
	unsigned left, right;

	if (!node)
		return 0;
	left = depth_below(node->left);
	right = depth_below(node->right);
	return 1 + (left > right ? left : right);
}

/* Links, order and summaries of a subtree. */
static void check_node(const struct tree_node *node)
{
	uint64_t sum;

	if (!node)
		return;
	sum = item_of(node)->weight;
	if (node->left) {
		CHECK(node->left->parent == node && node->left->key < node->key);
		sum += item_of(node->left)->sum;
	}
	if (node->right) {
		CHECK(node->right->parent == node && node->right->key > node->key);
		sum += item_of(node->right)->sum;
	}
	CHECK_EQ(item_of(node)->sum, sum);
	check_node(node->left);
	check_node(node->right);
}

static void check_tree(const struct tree *tree)
{
	const struct tree_node *previous = NULL;
	unsigned in_tree = 0, in = 0;

	check_node(tree->root);
	CHECK_GO_ON();
	CHECK(!tree->root || !tree->root->parent);
	for (struct tree_node *node = tree_first(tree); node; node = tree_next(node), in_tree++) {
		CHECK(item_of(node)->in);
		CHECK(tree_prev(node) == previous && (!previous || previous->key < node->key));
		previous = node;
	}
	CHECK(tree_last(tree) == previous);
	for (unsigned i = 0; i < N; i++)
		in += items[i].in;
	CHECK_EQ(in_tree, in);
}

static void check_floors(const struct tree *tree)
{
	for (uint64_t key = 0; key < KEYS + 2; key++)
		CHECK(item_of(tree_floor(tree, key)) == greatest_at_most(key));
}

static bool key_is_used(uint64_t key)
{
	const struct item *item = greatest_at_most(key);

	return item && item->node.key == key;
}

TEST(empty_tree)
{
	struct tree tree = {.update = update_sum};

	CHECK(!tree_first(&tree) && !tree_last(&tree) && !tree_floor(&tree, UINT64_MAX));
}

TEST(random_inserts_and_removals_keep_order_and_sums)
{
	struct tree tree = {.update = update_sum};
	uint64_t state = tap_seed();

	for (unsigned step = 0; step < 6000; step++) {
		struct item *item = &items[draw(&state, N)];
		uint64_t key = draw(&state, KEYS);

		if (item->in) {
			tree_remove(&tree, &item->node);
			item->in = false;
		} else if (!key_is_used(key)) {
			item->weight = draw(&state, 1000);
			tree_insert(&tree, &item->node, key);
			item->in = true;
		}
		if (step % 37 == 0) {
			check_tree(&tree);
			CHECK_GO_ON();
		}
	}
	check_floors(&tree);
}

/* In order, in reverse order and from both ends: the depth stays logarithmic. */
TEST(sorted_input_does_not_degenerate)
{
	for (int order = 0; order < 3; order++) {
		struct tree tree = {.update = update_sum};

		for (uint64_t i = 0; i < N; i++) {
			uint64_t key = order == 0 ? i : order == 1 ? N - i : i % 2 ? i : 2 * N - i;

			items[i] = (struct item){.weight = 1, .in = true};
			tree_insert(&tree, &items[i].node, key * 4096);
		}
		CHECK_EQ(item_of(tree.root)->sum, N);
		CHECK(depth_below(tree.root) < 40); /* 2^8.6 nodes */
		check_tree(&tree);
		CHECK_GO_ON();
		while (tree.root) {
			item_of(tree.root)->in = false;
			tree_remove(&tree, tree.root);
		}
		check_tree(&tree);
		CHECK_GO_ON();
	}
}

TEST(changed_weights_reach_the_root)
{
	struct tree tree = {.update = update_sum};
	uint64_t state = tap_seed(), total = 0;

	for (uint64_t i = 0; i < N; i++) {
		items[i] = (struct item){.in = true};
		tree_insert(&tree, &items[i].node, 7 * i);
	}
	for (unsigned step = 0; step < 1000; step++) {
		struct item *item = &items[draw(&state, N)];

		total -= item->weight;
		item->weight = draw(&state, 1000);
		total += item->weight;
		tree_updated(&tree, &item->node);
		CHECK_EQ(item_of(tree.root)->sum, total);
	}
	check_tree(&tree);
}

TEST(a_tree_without_summaries_works)
{
	struct tree tree = {0};

	for (uint64_t i = 0; i < 100; i++)
		tree_insert(&tree, &items[i].node, (i * 37) % 100);
	tree_updated(&tree, &items[3].node);
	for (uint64_t key = 0; key < 100; key++)
		CHECK_EQ(tree_floor(&tree, key)->key, key);
	for (uint64_t i = 0; i < 100; i++)
		tree_remove(&tree, &items[i].node);
	CHECK(!tree.root);
}

TAP_MAIN()
