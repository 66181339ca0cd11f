/* SPDX-License-Identifier: MIT */
/* A checksum over what a space shows of its private memory. */
#ifndef OPS_CHECKSUM_H
#define OPS_CHECKSUM_H

#include "space/mm.h"

/*
 * checksum_private - over the addresses and bytes of all private pages of a snapshot that are not all zero, in order.
 * Faults nothing in; pages that are swapped out are read. Not for keeping secrets or withstanding them: it notices
 * accidents. Takes mmap_lock exclusively. Returns: 0; -ENOMEM, -EIO (for reading from swap).
 */
int checksum_private(struct ucow_mm *mm, uint64_t *checksum);

#endif
