/* SPDX-License-Identifier: MIT */
/* A descriptor of the host that others can poll: readable or not, as its owner says. */
#ifndef BASE_EVENT_H
#define BASE_EVENT_H

#include "base/base.h"

/* event_open - not readable yet. Returns: the descriptor; -errno. */
int event_open(void);
void event_close(int fd);
/* event_set / event_clear - readable from now on, or not. Setting twice is as once. */
void event_set(int fd);
void event_clear(int fd);

#endif
