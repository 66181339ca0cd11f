/* SPDX-License-Identifier: MIT */
/*
 * Swap slots that are named as often as they can be: whoever would name one once more gets -ENOMEM before anything has
 * changed. No test makes two thousand million entries; the count is set to what they would have made it.
 */
#include "fixture.h"
#include "swap/swap.h"

#define NPAGES 4

struct scene {
	struct world w;
	uint64_t va;
	struct swap_slot *slot; /* of the first page */
};

static struct scene open_scene(void)
{
	const struct ucow_swap_options options = {
		.size = sizeof(options),
		.nbytes = 64 * PAGE,
		.flags = UCOW_SWAP_MEMORY,
	};
	struct scene s = {.w = world_open()};
	struct table *leaf;

	REQUIRE_EQ(ucow_swapon(s.w.machine, &options, NULL), 0);
	s.va = map_private(s.w.mm, NPAGES);
	for (unsigned i = 0; i < NPAGES; i++)
		put64(s.w.cpu, s.va + i * PAGE, i + 1);
	REQUIRE_EQ(ucow_madvise(s.w.mm, s.va, NPAGES * PAGE, UCOW_MADV_PAGEOUT), 0);
	leaf = table_find_leaf(&s.w.mm->pt, s.va);
	REQUIRE(leaf && pte_is_swap(leaf_get(leaf, s.va)));
	s.slot = &machine_swap(s.w.machine)->devices[0].slots[swap_entry_slot(pte_swap_entry(leaf_get(leaf, s.va)))];
	REQUIRE_EQ(s.slot->count, 1);
	return s;
}

static void fork_at_the_limit(const char *mode)
{
	struct scene s;
	struct ucow_mm *child = NULL;
	struct ucow_cpu *cpu;
	uint64_t value = 9;
	int error;

	REQUIRE_EQ(setenv("UCOW_TEST_FORK", mode, 1), 0);
	s = open_scene();
	s.slot->count = SWAP_COUNT_MAX;
	error = ucow_fork(s.w.mm, &child);
	if (fork_is_lazy()) {
		/* Sharing a table names nothing once more; the child's own copy of it would. */
		REQUIRE_EQ(error, 0);
		cpu = cpu_on(child);
		CHECK_EQ(ucow_write(cpu, s.va + PAGE, &value, sizeof(value), NULL), -ENOMEM);
		ucow_cpu_destroy(cpu);
		REQUIRE_EQ(ucow_mm_destroy(child), 0);
	} else {
		CHECK_EQ(error, -ENOMEM);
	}
	s.slot->count -= SWAP_COUNT_MAX - 1;
	check_invariants(s.w.machine);
	for (unsigned i = 0; i < NPAGES; i++)
		CHECK_EQ(get64(s.w.cpu, s.va + i * PAGE), i + 1);
	world_close(&s.w);
}

/* Would catch a count that wraps round, after which the slot is given to another page. */
TEST(a_slot_is_not_named_once_too_often_eager)
{
	fork_at_the_limit("eager");
}

TEST(a_slot_is_not_named_once_too_often_tables)
{
	fork_at_the_limit("tables");
}

TEST(a_slot_is_not_named_once_too_often_lazy)
{
	fork_at_the_limit("lazy");
}

TAP_MAIN()
