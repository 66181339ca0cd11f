/* SPDX-License-Identifier: MIT */
/* Failure injection: whatever the engine allocates for its caller asks here first (ucow_machine_inject). */
#ifndef BASE_INJECT_H
#define BASE_INJECT_H

#include "base/sync.h"

#include <ucow/debug.h>

struct inject {
	_Atomic uint64_t left;  /* 0: disarmed; n: the n-th allocation of these kinds from now fails */
	_Atomic unsigned kinds; /* UCOW_INJECT_* */
};

bool inject_fails_armed(struct inject *inject, unsigned kind);

/* inject_fails - whether this allocation must fail. */
static inline bool inject_fails(struct inject *inject, unsigned kind)
{
	if (likely(!atomic_load_explicit(&inject->left, memory_order_relaxed)))
		return false;
	return inject_fails_armed(inject, kind);
}

/* inject_arm - 0 disarms. Returns: whether an earlier order had not fired yet. */
bool inject_arm(struct inject *inject, unsigned kinds, uint64_t nth);

#endif
