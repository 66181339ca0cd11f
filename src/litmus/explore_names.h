/* SPDX-License-Identifier: MIT */
/* What the addresses that steps are about are called. */
#ifndef LITMUS_EXPLORE_NAMES_H
#define LITMUS_EXPLORE_NAMES_H

#include "engine.h"
#include "explore.h"
#include "explore_lanes.h"

/* explore_name_step - fill what, saw and frame of @step. */
void explore_name_step(const struct engine *engine, struct explore_step *step, enum op_kind kind, bool waits,
		       const volatile void *object, const struct hook_site *site);
/* explore_page_is_locked - whether somebody holds the page lock. */
bool explore_page_is_locked(const struct ucow_page *page);
const volatile void *explore_page_flags(const struct ucow_page *page);
/* explore_ram - where the machine's RAM is: pages of it are objects as a whole. */
void explore_ram(const struct engine *engine, const void **start, size_t *nbytes);
/* explore_counters - where the machine's counters are. */
void explore_counters(const struct engine *engine, const void **start, size_t *nbytes);

#endif
