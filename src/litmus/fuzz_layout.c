/* SPDX-License-Identifier: MIT */
/*
 * Where the things of a test stand in a view: by kind, in the order in which the test names them.
 */
#include "fuzz.h"

static bool add(unsigned *n, unsigned most, int *list, size_t name)
{
	if (*n == most)
		return false;
	list[(*n)++] = (int)name;
	return true;
}

static bool add_pages(struct fuzz_layout *layout, uint64_t npages, size_t region)
{
	if (npages > FUZZ_PAGES - layout->npages)
		return false;
	for (unsigned page = 0; page < npages; page++) {
		layout->page[layout->npages].region = (int)region;
		layout->page[layout->npages++].page = page;
	}
	return true;
}

static bool add_name(struct fuzz_layout *layout, const struct name *name, size_t index)
{
	switch (name->kind) {
	case NAME_PROCESS:
		return add(&layout->nprocesses, FUZZ_PROCESSES, layout->process, index);
	case NAME_REGION:
		return add_pages(layout, name->npages, index);
	case NAME_PIN:
	case NAME_GET:
	case NAME_PIPE:
		return name->nhandle <= FUZZ_HANDLE_PAGES &&
		       add(&layout->nhandles, FUZZ_HANDLES, layout->handle, index);
	case NAME_FILE:
		return name->npages <= FUZZ_FILE_PAGES && add(&layout->nfiles, FUZZ_FILES, layout->file, index);
	case NAME_CGROUP:
		return add(&layout->ngroups, FUZZ_GROUPS, layout->group, index);
	case NAME_UFFD: /* nothing of it is looked at */
		return true;
	case NAME_LOCK:
		break;
	}
	return false;
}

/* A file may become longer than it was made. */
static bool fits_file(const struct stmt *stmt)
{
	if (stmt->kind == STMT_TRUNCATE)
		return stmt->count <= FUZZ_FILE_PAGES;
	if (stmt->kind == STMT_STORE)
		return stmt->file_page < FUZZ_FILE_PAGES;
	return stmt->kind != STMT_DIRECT_OUT || stmt->file_page + stmt->place.npages <= FUZZ_FILE_PAGES;
}

bool fuzz_lay_out(const struct litmus *litmus, struct fuzz_layout *layout)
{
	bool fits = !litmus->nblocks;

	*layout = (struct fuzz_layout){0};
	for (size_t i = 0; fits && i < litmus->nnames; i++)
		fits = add_name(layout, &litmus->names[i], i);
	for (size_t i = 0; fits && i < litmus->nstmts; i++)
		fits = fits_file(&litmus->stmts[i]);
	return fits;
}
