/* SPDX-License-Identifier: MIT */
/*
 * What a kernel run can do with stock interfaces, told from the test alone: a test with a statement for which there is
 * none is skipped whole, and the statement named.
 */
#include "facilities.h"
#include "kernel.h"

#define NO_INTERFACE "no stock interface "

static const char *if_any(const char *reason)
{
	return *reason ? reason : NULL;
}

static const char *need_missing(unsigned need)
{
	switch (need) {
	case NEED_SWAP:
		return if_any(facilities_held()->no_swap);
	case NEED_KSM:
		return if_any(facilities_held()->no_ksm);
	case NEED_CGROUP:
		return if_any(facilities_held()->no_groups);
	case NEED_UFFD:
		return kernel_no_uffd();
	case NEED_SOFT_DIRTY:
		return kernel_no_soft_dirty();
	case NEED_FILE:
	case NEED_DIRECT_IO:
		return NULL;
	case NEED_RO_LONGTERM:
		return NO_INTERFACE "holds a read pin";
	case NEED_SNAPSHOT:
		return "snapshots are the engine's";
	default:
		return "not driven yet";
	}
}

static bool is_in_memory(const struct litmus *litmus, int file)
{
	for (size_t i = 0; i < litmus->nstmts; i++)
		if (litmus->stmts[i].kind == STMT_FILE && litmus->stmts[i].name == file)
			return litmus->stmts[i].options & 1;
	return false;
}

/* Whether the region is a shared mapping of a file that is written back, which refuses long-term pins for writing. */
static bool is_tracked(const struct litmus *litmus, int region)
{
	for (size_t i = 0; i < litmus->nstmts; i++) {
		const struct stmt *stmt = &litmus->stmts[i];

		if (stmt->kind == STMT_MAP && stmt->name == region)
			return stmt->options & MAP_OPT_SHARED && stmt->file >= 0 && !is_in_memory(litmus, stmt->file);
	}
	return false;
}

static const char *pin_missing(const struct litmus *litmus, const struct stmt *stmt)
{
	if (!(stmt->options & GUP_OPT_LONGTERM) && is_tracked(litmus, stmt->place.region))
		return NO_INTERFACE "holds a short-term pin";
	if (!(stmt->options & GUP_OPT_WRITE))
		return NO_INTERFACE "holds a read pin";
	if (stmt->options & GUP_OPT_FORCE)
		return NO_INTERFACE "holds a forced pin";
#ifdef UCOW_HAVE_LIBURING
	return NULL;
#else
	return "built without liburing, which holds the pins";
#endif
}

static const char *get_missing(const struct stmt *stmt)
{
	if (stmt->options & GUP_OPT_WRITE)
		return NO_INTERFACE "holds a plain reference for writing";
	if (stmt->options & GUP_OPT_FORCE)
		return NO_INTERFACE "holds a forced reference";
	return NULL;
}

static const char *direct_missing(const struct litmus *litmus, const struct stmt *stmt)
{
	if (is_in_memory(litmus, stmt->file))
		return "files in memory have no direct I/O that pins";
	return stmt->place.offset % 512 ? "O_DIRECT moves whole sectors of 512 bytes" : NULL;
}

static const char *map_missing(const struct stmt *stmt)
{
	bool plain = !(stmt->options & (MAP_OPT_HUGE | MAP_OPT_HUGETLB));

	return plain ? NULL : "this mapping is not driven yet";
}

/* Advice whose effect a kernel run can show; the rest comes with the facilities that it asks for. */
static const char *advice_missing(const struct stmt *stmt)
{
	switch (stmt->advice) {
	case ADVICE_DONTFORK:
	case ADVICE_DOFORK:
	case ADVICE_WIPEONFORK:
	case ADVICE_KEEPONFORK:
	case ADVICE_DONTNEED:
	case ADVICE_FREE:
	case ADVICE_POPULATE_READ:
	case ADVICE_POPULATE_WRITE:
	case ADVICE_MERGEABLE:
	case ADVICE_UNMERGEABLE:
	case ADVICE_COLD:
	case ADVICE_PAGEOUT:
		return NULL;
	case ADVICE_HUGEPAGE:
	case ADVICE_NOHUGEPAGE:
	case ADVICE_COLLAPSE:
	case ADVICE_COUNT:
		break;
	}
	return "this advice is not driven yet";
}

/* More pages than the test can ever fill: each process its own copy of all that anybody maps. */
static uint64_t pages_at_most(const struct litmus *litmus)
{
	uint64_t npages = 0, nprocesses = 0;

	for (size_t i = 0; i < litmus->nnames; i++)
		nprocesses += litmus->names[i].kind == NAME_PROCESS;
	for (size_t i = 0; i < litmus->nstmts; i++)
		npages += litmus->stmts[i].kind == STMT_MAP ? litmus->stmts[i].count : 0;
	return npages * nprocesses;
}

/* The kernel's groups have no limit (kernel_group.c), and its swap file has one size. */
static const char *cgroup_missing(const struct litmus *litmus, const struct stmt *stmt)
{
	uint64_t npages = pages_at_most(litmus);

	if (stmt->cgroup >= 0 && facilities_held()->unified)
		return "groups of version 2 have members or groups in them, not both";
	return npages <= stmt->count && npages <= stmt->swap_limit
		       ? NULL
		       : "may meet its limit, which on the kernel holds for more than pages of tests";
}

static const char *machine_missing(const struct litmus *litmus)
{
	uint64_t nbytes = litmus->machine.swap_bytes;

	return nbytes && nbytes < pages_at_most(litmus) * KERNEL_PAGE
		       ? "the swap device of the test may be full, the one here is larger"
		       : NULL;
}

/* Why @stmt cannot be done here, or NULL. */
static const char *missing(const struct litmus *litmus, const struct stmt *stmt)
{
	switch ((int)stmt->kind) {
	case STMT_MAP:
		return map_missing(stmt);
	case STMT_ADVISE:
		return advice_missing(stmt);
	case STMT_CGROUP:
		return cgroup_missing(litmus, stmt);
	case STMT_RECLAIM:
		return if_any(facilities_held()->no_groups);
	case STMT_PIN:
		return pin_missing(litmus, stmt);
	case STMT_GET:
		return get_missing(stmt);
	case STMT_DEVICE_WRITE:
		return litmus->names[stmt->handle].kind == NAME_PIN ? NULL
								    : NO_INTERFACE "writes through a plain reference";
	case STMT_DIRECT_OUT:
	case STMT_DIRECT_IN:
		return direct_missing(litmus, stmt);
	case STMT_UFFD_MOVE:
		return stmt->block ? "the process moves its pages itself, and may be waiting in its lane" : NULL;
	case STMT_NUMA_HINT:
		return NO_INTERFACE "makes entries protnone";
	case STMT_INJECT_ALLOC:
		return NO_INTERFACE "makes one allocation fail";
	case STMT_INJECT_READ:
	case STMT_INJECT_WRITE:
		return NO_INTERFACE "makes one transfer from or to swap fail";
	case STMT_LOCK:
		return NO_INTERFACE "holds a page lock";
	default:
		return kernel_is_driven(stmt->kind) ? NULL : "not driven yet";
	}
}

static bool needs_missing(unsigned needs, char *why, size_t size)
{
	for (unsigned bit = 0; bit < NEED_COUNT; bit++) {
		const char *what = needs & 1u << bit ? need_missing(1u << bit) : NULL;

		if (!what)
			continue;
		snprintf(why, size, "kernel: %s: %s", litmus_need_name(1u << bit), what);
		return true;
	}
	return false;
}

void kernel_describe_skip(char *why, size_t size, const struct stmt *stmt, const char *what)
{
	snprintf(why, size, "kernel: line %u, %s: %s", stmt->loc.line, litmus_stmt_name(stmt->kind), what);
}

bool kernel_unsupported(const struct litmus *litmus, char *why, size_t size)
{
	const char *machine = machine_missing(litmus);

	if (needs_missing(litmus->needs, why, size))
		return true;
	if (machine)
		snprintf(why, size, "kernel: %s", machine);
	if (machine)
		return true;
	for (size_t i = 0; i < litmus->nstmts; i++) {
		const struct stmt *stmt = &litmus->stmts[i];
		const char *what = missing(litmus, stmt);

		if (!what)
			continue;
		kernel_describe_skip(why, size, stmt, what);
		return true;
	}
	return false;
}
