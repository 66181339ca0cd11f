/* SPDX-License-Identifier: MIT */
/* Sleeping on a word of this process, and waking the sleepers. */
#ifndef BASE_FUTEX_H
#define BASE_FUTEX_H

#include "base/sync.h"

/* futex_wait - sleep while *word is @value, until woken. May return for no reason. */
void futex_wait(_Atomic uint32_t *word, uint32_t value);
/* futex_wake - wake all that sleep on @word. */
void futex_wake(_Atomic uint32_t *word);

#endif
