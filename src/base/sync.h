/* SPDX-License-Identifier: MIT */
/*
 * Atomic accesses, as the C standard names them. The explorer's build (UCOW_EXPLORE) puts a scheduling hook before
 * each; every other build takes them as they are.
 */
#ifndef BASE_SYNC_H
#define BASE_SYNC_H

#include "base/hook.h"

#include <stdatomic.h>

#endif
