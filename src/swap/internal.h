/* SPDX-License-Identifier: MIT */
/* What the files of swap/ share. */
#ifndef SWAP_INTERNAL_H
#define SWAP_INTERNAL_H

#include "space/memcg.h"
#include "swap/swap.h"

/* The operations that the tables call (struct swap_ops). */
void swap_dup(void *arg, struct swap_entry entry, uint32_t n);
bool swap_drop(void *arg, struct swap_entry entry, uint32_t n);
bool swap_is_full(void *arg, struct swap_entry entry);
bool swap_unmapped(void *arg, struct ucow_page *page);

#endif
