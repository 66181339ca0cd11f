/* SPDX-License-Identifier: MIT */
/*
 * Fork an address space, write on both sides, and look at what each side sees.
 *
 * Right after the fork the two spaces share every page; the first store to a page on either side gives that side a copy
 * of its own. A page that nobody writes stays shared.
 */
#include <stdio.h>
#include <string.h>

#include <ucow/ucow.h>

#define NPAGES 4

static struct ucow_machine *machine;
static struct ucow_mm *parent, *child;
static struct ucow_cpu *cpu;
static uint64_t va;

/* A cpu is a thread's view of one space at a time: attach it to whichever space is to be read or written. */
static int put(struct ucow_mm *mm, unsigned page, const char *text)
{
	ucow_cpu_attach(cpu, mm);
	return ucow_write(cpu, va + page * UCOW_PAGE_SIZE, text, strlen(text) + 1, NULL);
}

/* Print one page of a space. Returns: whether it reads @expected. */
static bool shows(const char *who, struct ucow_mm *mm, unsigned page, const char *expected)
{
	char text[16] = "";

	ucow_cpu_attach(cpu, mm);
	if (ucow_read(cpu, va + page * UCOW_PAGE_SIZE, text, sizeof(text), NULL))
		return false;
	printf("%-6s page %u: \"%.15s\"\n", who, page, text);
	return strcmp(text, expected) == 0;
}

/* Whether the two spaces have the same frame behind a page. */
static bool is_shared(unsigned page)
{
	struct ucow_entry_info ours, theirs;

	ucow_query(parent, va + page * UCOW_PAGE_SIZE, &ours);
	ucow_query(child, va + page * UCOW_PAGE_SIZE, &theirs);
	return ours.present && theirs.present && ours.pfn == theirs.pfn;
}

static int set_up(void)
{
	const struct ucow_machine_options options = {.size = sizeof(options)};
	int err = ucow_machine_create(&options, &machine);

	if (!err)
		err = ucow_mm_create(machine, &parent);
	if (!err)
		err = ucow_cpu_create(machine, &cpu);
	if (!err)
		err = ucow_mmap(parent, 0, NPAGES * UCOW_PAGE_SIZE, UCOW_PROT_READ | UCOW_PROT_WRITE, UCOW_MAP_PRIVATE,
				&va);
	return err;
}

int main(void)
{
	uint64_t copies;
	bool right;

	if (set_up() || put(parent, 0, "zero") || put(parent, 1, "one") || put(parent, 2, "two"))
		return 1;
	if (ucow_fork(parent, &child))
		return 1;

	/* Page 0 is written by the parent, page 1 by the child, page 2 by nobody; page 3 was never touched. */
	if (put(parent, 0, "ping") || put(child, 1, "pong"))
		return 1;

	right = shows("parent", parent, 0, "ping");
	right &= shows("parent", parent, 1, "one");
	right &= shows("parent", parent, 2, "two");
	right &= shows("parent", parent, 3, "");
	right &= shows("child", child, 0, "zero");
	right &= shows("child", child, 1, "pong");
	right &= shows("child", child, 2, "two");
	right &= shows("child", child, 3, "");

	copies = ucow_machine_counter(machine, UCOW_COUNTER_COPY_SHARED);
	printf("%llu pages were copied; page 2 is %s\n", (unsigned long long)copies,
	       is_shared(2) ? "still shared" : "not shared");
	right &= copies == 2 && !is_shared(0) && !is_shared(1) && is_shared(2);

	/* A space can go only when no cpu is attached to it, a machine only when nothing of it is left. */
	ucow_cpu_destroy(cpu);
	right &= ucow_mm_destroy(child) == 0;
	right &= ucow_mm_destroy(parent) == 0;
	right &= ucow_machine_destroy(machine) == 0;
	puts(right ? "neither side saw the other's writes" : "WRONG");
	return right ? 0 : 1;
}
