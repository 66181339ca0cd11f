/* SPDX-License-Identifier: MIT */
/* Undoing all merging, space by space. */
#include "ksm/ksm.h"

#include "ops/ops.h"

#include <errno.h>

/* The space after the one with @serial, held. The list is in no order; this is done rarely. Returns: NULL: none. */
static struct ucow_mm *space_after(struct ucow_machine *machine, uint64_t serial)
{
	struct ucow_mm *next = NULL;

	mutex_lock(&machine->lock);
	LIST_FOR_EACH (link, &machine->spaces) {
		struct ucow_mm *mm = container_of(link, struct ucow_mm, link);

		if (mm->serial > serial && (!next || mm->serial < next->serial))
			next = mm;
	}
	if (next && !mm_hold(next))
		UCOW_BUG("a space that ends is on the list");
	mutex_unlock(&machine->lock);
	return next;
}

/* A snapshot shows what it showed: its entries may keep merged pages until it ends. */
static int unmerge_space(struct ucow_mm *mm)
{
	return mm->read_only ? 0 : unmerge_range(mm, UCOW_ADDRESS_MIN, UCOW_ADDRESS_LIMIT, 0);
}

/* Without the scanner's lock: a copy may need room that a snapshot has, whose owner is then told, with no lock held. */
int ucow_ksm_unmerge(struct ucow_machine *machine)
{
	struct ucow_mm *mm;
	uint64_t serial = 0;
	int error = 0;

	if (!ksm_hash_is_built())
		return -EOPNOTSUPP;
	while (!error && (mm = space_after(machine, serial))) {
		serial = mm->serial;
		error = unmerge_space(mm);
		mm_release(mm);
	}
	return error;
}
