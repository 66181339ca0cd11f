/* SPDX-License-Identifier: MIT */
/*
 * Print the page-table tree of a space.
 *
 * Six levels translate 48-bit addresses; a table exists only where something below it was touched. Four pages, far
 * apart in three mappings, show which levels they share.
 */
#include <inttypes.h>
#include <stdio.h>

#include <ucow/ucow.h>

#define NPAGES 4

/*
 * Two neighbours, which one leaf table holds; 3 MiB further, another leaf; and near the other end of the address space,
 * where only the root is common.
 */
static const uint64_t pages[NPAGES] = {0x200000000, 0x200001000, 0x200300000, 0x7f0000000000};

struct walk {
	unsigned tables, leaves, anon;
	uint64_t last_start[6]; /* where the latest table of each level starts */
	bool right;
};

static const char *span(uint64_t nbytes, char text[16])
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
	unsigned unit = 0;

	nbytes >>= 10;
	for (; nbytes >= 1024 && unit < 3; unit++)
		nbytes >>= 10;
	snprintf(text, 16, "%u %s", (unsigned)nbytes, units[unit]);
	return text;
}

/* Tables come parents first and in address order, so the level is all that is needed to draw the tree. */
static int print_table(void *arg, const struct ucow_table_info *table)
{
	struct walk *walk = arg;
	char size[16];

	printf("%*s0x%012" PRIx64 "  level %u, spans %s, %u of %u entries used", (int)(5 - table->level) * 2, "",
	       table->start, table->level, span(table->end - table->start, size), table->used, table->entries);
	if (table->level == 0)
		printf(" (%u anonymous pages)", table->anon);
	putchar('\n');

	walk->tables++;
	walk->leaves += table->level == 0;
	walk->anon += table->anon;
	walk->last_start[table->level] = table->start;
	/* A table lies within the latest table of the level above, and every table that exists is used. */
	if (table->used == 0 || table->used > table->entries || table->refcount != 1)
		walk->right = false;
	if (table->level < 5 && table->start < walk->last_start[table->level + 1])
		walk->right = false;
	return 0;
}

static int touch(struct ucow_mm *mm, struct ucow_cpu *cpu, uint64_t va)
{
	uint64_t where;
	int err = ucow_mmap(mm, va, UCOW_PAGE_SIZE, UCOW_PROT_READ | UCOW_PROT_WRITE,
			    UCOW_MAP_PRIVATE | UCOW_MAP_FIXED_NOREPLACE, &where);

	return err ? err : ucow_store_u64(cpu, va, va);
}

int main(void)
{
	const struct ucow_machine_options options = {.size = sizeof(options)};
	struct walk walk = {.right = true};
	struct ucow_machine_stat stat;
	struct ucow_machine *machine;
	struct ucow_cpu *cpu;
	struct ucow_mm *mm;

	if (ucow_machine_create(&options, &machine) || ucow_mm_create(machine, &mm) || ucow_cpu_create(machine, &cpu))
		return 1;
	ucow_cpu_attach(cpu, mm);
	for (unsigned i = 0; i < NPAGES; i++)
		if (touch(mm, cpu, pages[i]))
			return 1;

	if (ucow_walk_tables(mm, print_table, &walk))
		return 1;
	ucow_machine_stat(machine, &stat);
	printf("%u tables, %u of them leaves with %u pages, in %" PRIu64 " bytes\n", walk.tables, walk.leaves,
	       walk.anon, stat.table_bytes);
	if (walk.leaves != 3 || walk.anon != NPAGES || walk.tables < 6)
		walk.right = false;

	ucow_cpu_destroy(cpu);
	if (ucow_mm_destroy(mm) || ucow_machine_destroy(machine))
		return 1;
	puts(walk.right ? "as expected" : "WRONG");
	return walk.right ? 0 : 1;
}
