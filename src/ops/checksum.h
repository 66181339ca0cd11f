/* SPDX-License-Identifier: MIT */
/* A checksum over what a space shows of its private memory. */
#ifndef OPS_CHECKSUM_H
#define OPS_CHECKSUM_H

#include "space/mm.h"

/*
 * checksum_private - over the addresses and bytes of all private pages that are not all zero, in order. Faults nothing
 * in. Not for keeping secrets or withstanding them: it notices accidents. Takes mmap_lock shared.
 */
uint64_t checksum_private(struct ucow_mm *mm);

#endif
