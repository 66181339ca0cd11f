/* SPDX-License-Identifier: MIT */
/* Families of leaves: which leaves may map the same pages. What walks them is rmap/. */
#include "table/internal.h"

static void join(struct family *family, struct kin *kin)
{
	kin->family = family;
	spin_lock(&family->lock, LOCK_FAMILY);
	list_add_tail(&family->kin, &kin->link);
	family->nkin++;
	spin_unlock(&family->lock, LOCK_FAMILY);
}

static void family_free(struct table_pool *pool, struct family *family)
{
	family->grave.level = TABLE_LEVELS;
	if (epoch_is_alone(pool->epoch))
		slab_free(&pool->families, family);
	else
		epoch_defer_chain(pool->epoch, &family->grave, &family->grave.next);
}

static void leave(struct table_pool *pool, struct kin *kin)
{
	struct family *family = kin->family;
	bool last;

	spin_lock(&family->lock, LOCK_FAMILY);
	list_del(&kin->link);
	last = !--family->nkin && !family->holds;
	spin_unlock(&family->lock, LOCK_FAMILY);
	if (last)
		family_free(pool, family);
}

void family_hold(struct family *family)
{
	spin_lock(&family->lock, LOCK_FAMILY);
	UCOW_BUG_ON(!family->nkin);
	family->holds++;
	spin_unlock(&family->lock, LOCK_FAMILY);
}

void family_drop(struct table_pool *pool, struct family *family)
{
	bool last;

	spin_lock(&family->lock, LOCK_FAMILY);
	last = !--family->holds && !family->nkin;
	spin_unlock(&family->lock, LOCK_FAMILY);
	if (last)
		family_free(pool, family);
}

bool family_is_empty(struct family *family)
{
	bool empty;

	spin_lock(&family->lock, LOCK_FAMILY);
	empty = !family->nkin;
	spin_unlock(&family->lock, LOCK_FAMILY);
	return empty;
}

static void free_nodes(struct table_pool *pool, struct kin *kin)
{
	while (kin) {
		struct kin *next = kin->next;

		slab_free(&pool->kin, kin);
		kin = next;
	}
}

/* Whether there are more is asked without the leaf's lock too. */
static void set_more(struct kin *first, struct kin *more)
{
	__atomic_store_n(&first->next, more, __ATOMIC_RELAXED);
}

void kin_leave(struct table_pool *pool, struct table *leaf)
{
	struct kin *first = leaf_kin(leaf), *rest = first->next;

	if (!first->family && !rest)
		return;
	/* Somebody may have met the leaf when it was in use, and be looking what families it has. */
	table_lock(leaf);
	for (struct kin *kin = first; kin && kin->family; kin = kin->next)
		leave(pool, kin);
	first->family = NULL;
	set_more(first, NULL);
	table_unlock(leaf);
	free_nodes(pool, rest);
}

int kin_found(struct table_pool *pool, struct table *leaf)
{
	struct kin *kin = leaf_kin(leaf);
	struct family *family;

	kin->leaf = leaf;
	if (!has_families(pool))
		return 0;
	family = inject_fails(pool->inject, UCOW_INJECT_OTHER) ? NULL : slab_alloc(&pool->families);
	if (!family)
		return -ENOMEM;
	list_init(&family->kin);
	join(family, kin);
	return 0;
}

static struct kin *node_create(struct table_pool *pool, struct table *leaf, int shift)
{
	struct kin *kin = inject_fails(pool->inject, UCOW_INJECT_OTHER) ? NULL : slab_alloc(&pool->kin);

	if (!kin)
		return NULL;
	kin->leaf = leaf;
	kin->shift = shift;
	return kin;
}

/* ---- the reserve ---- */

/*
 * Emptying a range may copy a shared leaf at either end of it, and must not fail for lack of memory [rule 2]: as many
 * memberships are set aside as two copies of the leaf that has the most can need. Injection does not count these: they
 * are nobody's allocation.
 */
static unsigned spares_wanted(const struct table_pool *pool)
{
	return 2 * atomic_load_explicit(&pool->most_kin, memory_order_relaxed);
}

static void spare_put(struct table_pool *pool, struct kin *kin)
{
	spin_lock(&pool->reserve_lock, LOCK_SLAB);
	kin->next = pool->spare_kin;
	pool->spare_kin = kin;
	pool->nspare_kin++;
	spin_unlock(&pool->reserve_lock, LOCK_SLAB);
}

static struct kin *spare_take(struct table_pool *pool)
{
	struct kin *kin;

	spin_lock(&pool->reserve_lock, LOCK_SLAB);
	kin = pool->spare_kin;
	if (kin) {
		pool->spare_kin = kin->next;
		pool->nspare_kin--;
	}
	spin_unlock(&pool->reserve_lock, LOCK_SLAB);
	if (kin)
		*kin = (struct kin){0};
	return kin;
}

void kin_reserve_fill(struct table_pool *pool)
{
	struct kin *kin;

	while (unlikely(atomic_load_explicit(&pool->nspare_kin, memory_order_relaxed) < spares_wanted(pool)) &&
	       (kin = slab_alloc(&pool->kin)))
		spare_put(pool, kin);
}

void kin_reserve_empty(struct table_pool *pool)
{
	struct kin *kin;

	while ((kin = spare_take(pool)))
		slab_free(&pool->kin, kin);
}

/* A leaf is about to have @n memberships beyond its first. Returns: 0; -ENOMEM: no reserve for its copies. */
static int reserve_for(struct table_pool *pool, unsigned n)
{
	unsigned most = atomic_load_explicit(&pool->most_kin, memory_order_relaxed);

	while (n > most && !atomic_compare_exchange_weak(&pool->most_kin, &most, n))
		;
	kin_reserve_fill(pool);
	return atomic_load_explicit(&pool->nspare_kin, memory_order_relaxed) < spares_wanted(pool) ? -ENOMEM : 0;
}

/* ---- memberships of a leaf ---- */

/* How many memberships beyond the first. */
static unsigned extra_kin(const struct table *leaf)
{
	unsigned n = 0;

	for (const struct kin *kin = leaf_kin(leaf)->next; kin; kin = kin->next)
		n++;
	return n;
}

int kin_prepare(struct table_pool *pool, struct table *copy, struct table *like, bool reserve)
{
	unsigned missing;

	leaf_kin(copy)->leaf = copy;
	if (likely(!__atomic_load_n(&leaf_kin(like)->next, __ATOMIC_RELAXED)))
		return 0;
	table_lock(like);
	missing = extra_kin(like);
	table_unlock(like);
	for (; missing; missing--) {
		struct kin *kin = node_create(pool, copy, 0);

		if (!kin && reserve)
			kin = spare_take(pool);
		if (!kin)
			return -ENOMEM; /* what is there goes with the copy */
		kin->leaf = copy;
		kin->next = leaf_kin(copy)->next;
		leaf_kin(copy)->next = kin;
	}
	return 0;
}

bool kin_join(struct table *copy, struct table *like)
{
	struct kin *mine = leaf_kin(copy), *theirs = leaf_kin(like);

	if (unlikely(extra_kin(copy) != extra_kin(like)))
		return false;
	for (; theirs && theirs->family; theirs = theirs->next, mine = mine->next) {
		mine->shift = theirs->shift;
		join(theirs->family, mine);
	}
	return true;
}

static bool is_member(const struct table *leaf, const struct family *family, int shift)
{
	for (const struct kin *kin = leaf_kin(leaf); kin; kin = kin->next)
		if (kin->family == family && kin->shift == shift)
			return true;
	return false;
}

/* Whether any home of the family can be in a slot of a leaf with this shift. */
static int adopt(struct table_pool *pool, struct table *leaf, struct family *family, int shift)
{
	struct kin *kin;

	if (is_member(leaf, family, shift))
		return 0;
	if (reserve_for(pool, extra_kin(leaf) + 1))
		return -ENOMEM;
	kin = node_create(pool, leaf, shift);
	if (!kin)
		return -ENOMEM;
	join(family, kin);
	table_lock(leaf);
	kin->next = leaf_kin(leaf)->next;
	set_more(leaf_kin(leaf), kin);
	table_unlock(leaf);
	return 0;
}

int table_adopt(struct table_pool *pool, struct table *leaf, struct table *source, int shift)
{
	int error = 0;

	if (leaf == source && !shift)
		return 0;
	for (struct kin *kin = leaf_kin(source); kin && kin->family && !error; kin = kin->next)
		error = adopt(pool, leaf, kin->family, kin->shift + shift);
	return error;
}

const char *family_check(struct family *family)
{
	uint32_t n = 0;

	LIST_FOR_EACH (link, &family->kin) {
		const struct kin *kin = container_of(link, struct kin, link);

		if (kin->family != family)
			return "a member of a family names another one";
		if (kin->leaf->level || !is_member(kin->leaf, family, kin->shift))
			return "a member of a family is no leaf, or does not know it";
		n++;
	}
	return n == family->nkin ? NULL : "a family's number of members is wrong";
}
