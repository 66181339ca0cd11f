/* SPDX-License-Identifier: MIT */
/*
 * Merging where hashes do not help: all pages are given one hash, so that the comparison of the bytes alone keeps
 * different ones apart. And what the check of merged pages reports.
 */
#include "fixture.h"

#include "ksm/ksm.h"

enum { PAGES = 48 };

static struct world open_colliding(bool zero_pages)
{
	struct world w = world_open();
	const struct ucow_ksm_options options = {
		.size = sizeof(options), .use_zero_pages = zero_pages, .max_page_sharing = 6};

	REQUIRE_EQ(ucow_ksm_configure(w.machine, &options), 0);
	w.machine->ksm->hash_mask = 0;
	w.machine->ksm->zero_hash = 1;
	map_private(w.mm, PAGES);
	REQUIRE_EQ(ucow_madvise(w.mm, BASE, PAGES * PAGE, UCOW_MADV_MERGEABLE), 0);
	return w;
}

/* Different in one word each, the last of the page included. */
static void fill_colliding(struct world *w, unsigned kinds)
{
	for (unsigned i = 0; i < PAGES; i++) {
		put64(w->cpu, BASE + i * PAGE, 1);
		put64(w->cpu, BASE + i * PAGE + (511 - i % kinds) * 8, 2);
	}
}

static void check_colliding(struct world *w, unsigned kinds)
{
	for (unsigned i = 0; i < PAGES; i++)
		for (unsigned k = 1; k < kinds; k++)
			REQUIRE_EQ(get64(w->cpu, BASE + i * PAGE + (511 - k) * 8), i % kinds == k ? 2 : 0);
}

static void check_merging(unsigned kinds, uint64_t expected)
{
	struct world w = open_colliding(false);
	uint64_t merged = 0;

	fill_colliding(&w, kinds);
	REQUIRE_EQ(ucow_ksm_merge(w.machine, &merged), 0);
	check_invariants(w.machine);
	check_colliding(&w, kinds);
	REQUIRE_EQ(merged, expected);
	REQUIRE_EQ(ucow_ksm_unmerge(w.machine), 0);
	check_invariants(w.machine);
	check_colliding(&w, kinds);
	world_close(&w);
}

TEST(bytes_decide_not_hashes)
{
	check_merging(1, PAGES - 8);
	check_merging(2, PAGES - 8);
	check_merging(3, PAGES - 9);
	check_merging(PAGES, 0);
}

TEST(a_page_is_not_the_zero_page_because_of_its_hash)
{
	struct world w = open_colliding(true);
	struct ucow_ksm_stat stat;
	uint64_t merged = 0;

	for (unsigned i = 0; i < PAGES; i++)
		put64(w.cpu, BASE + i * PAGE + 4088, i % 2);
	CHECK_EQ(ucow_ksm_merge(w.machine, &merged), 0);
	check_invariants(w.machine);
	ucow_ksm_stat(w.machine, &stat);
	CHECK_EQ(stat.zero_pages, PAGES / 2);
	for (unsigned i = 0; i < PAGES; i++)
		CHECK_EQ(get64(w.cpu, BASE + i * PAGE + 4088), i % 2);
	world_close(&w);
}

/* ---- the check ---- */

static bool reported(struct ucow_machine *machine, const char *id)
{
	char why[300] = "";
	int rc = ucow_machine_check(machine, why, sizeof(why));

	if (rc == -EUCLEAN && !strncmp(why, id, strlen(id)))
		return true;
	printf("# wanted %s, got %d: %s\n", id, rc, why);
	return false;
}

static struct world open_merged(struct ucow_page **page)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);
	const struct ucow_ksm_options options = {.size = sizeof(options), .use_zero_pages = true};

	REQUIRE_EQ(ucow_ksm_configure(w.machine, &options), 0);
	REQUIRE_EQ(ucow_madvise(w.mm, va, 4 * PAGE, UCOW_MADV_MERGEABLE), 0);
	for (unsigned i = 0; i < 4; i++)
		put64(w.cpu, va + i * PAGE, i < 2);
	REQUIRE_EQ(ucow_ksm_merge(w.machine, NULL), 0);
	check_invariants(w.machine);
	*page = &w.machine->frames.pages[query(w.mm, va).pfn];
	return w;
}

TEST(a_store_to_a_merged_page_is_reported)
{
	struct ucow_page *page;
	struct world w = open_merged(&page);

	*(uint64_t *)page_bytes(page) += 1;
	CHECK(reported(w.machine, "INV-KSM-2"));
	*(uint64_t *)page_bytes(page) -= 1;
	world_close(&w);
}

TEST(a_merged_page_with_a_wrong_node_is_reported)
{
	struct ucow_page *page;
	struct world w = open_merged(&page);
	void *node = page->mapping;

	page->mapping = NULL;
	CHECK(reported(w.machine, "INV-KSM-2"));
	page->mapping = node;
	atomic_store(&((struct ksm_node *)node)->merged.page, page + 1);
	CHECK(reported(w.machine, "INV-KSM-2"));
	atomic_store(&((struct ksm_node *)node)->merged.page, page);
	world_close(&w);
}

TEST(a_wrong_count_of_zero_pages_is_reported)
{
	struct ucow_page *page;
	struct world w = open_merged(&page);

	CHECK_EQ(atomic_load(&w.machine->tables.merged_zero), 2);
	atomic_fetch_add(&w.machine->tables.merged_zero, 1);
	CHECK(reported(w.machine, "INV-KSM-3"));
	atomic_fetch_sub(&w.machine->tables.merged_zero, 1);
	world_close(&w);
}

TEST(a_writable_entry_of_a_merged_page_is_reported)
{
	for (int policy = 0; policy < UCOW_POLICY_COUNT; policy++) {
		struct world w = world_open_policy(policy);
		uint64_t va = map_private(w.mm, 2);
		struct table *leaf;

		REQUIRE_EQ(ucow_madvise(w.mm, va, 2 * PAGE, UCOW_MADV_MERGEABLE), 0);
		put64(w.cpu, va, 1);
		put64(w.cpu, va + PAGE, 1);
		REQUIRE_EQ(ucow_ksm_merge(w.machine, NULL), 0);
		leaf = table_find_leaf(&w.mm->pt, va);
		leaf_set(leaf, va, pte_mkwrite(leaf_get(leaf, va)));
		CHECK(reported(w.machine, "INV-KSM-1"));
		leaf_set(leaf, va, pte_wrprotect(leaf_get(leaf, va)));
		world_close(&w);
	}
}

int main(int argc, char **argv)
{
	if (ksm_hash_is_built())
		return tap_main(argc, argv);
	printf("1..0 # SKIP built without xxhash\n");
	return 0;
}
