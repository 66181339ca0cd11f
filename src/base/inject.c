/* SPDX-License-Identifier: MIT */
/* Failure injection: counting down to the allocation that fails. */
#include "base/inject.h"

bool inject_fails_armed(struct inject *inject, unsigned kind)
{
	uint64_t left = atomic_load(&inject->left);

	if (!(atomic_load(&inject->kinds) & kind))
		return false;
	while (left)
		if (atomic_compare_exchange_weak(&inject->left, &left, left - 1))
			return left == 1;
	return false;
}

bool inject_arm(struct inject *inject, unsigned kinds, uint64_t nth)
{
	uint64_t left = atomic_exchange(&inject->left, 0);

	atomic_store(&inject->kinds, kinds);
	atomic_store(&inject->left, nth);
	return left != 0;
}
