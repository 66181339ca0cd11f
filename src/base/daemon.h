/* SPDX-License-Identifier: MIT */
/* A thread of the library that does something now and then, until it is told to end. */
#ifndef BASE_DAEMON_H
#define BASE_DAEMON_H

#include "base/base.h"

#include <pthread.h>

struct daemon {
	uint64_t (*turn)(void *arg);
	void *arg;
	uint64_t pause; /* before the first turn, in nanoseconds */
	pthread_t thread;
	pthread_mutex_t lock; /* guards `ending`; innermost */
	pthread_cond_t wake;
	bool ending;
};

/*
 * daemon_start - a thread that calls @turn(@arg) after @pause nanoseconds, and then each time after as many as the last
 * turn said; 0: at once. Returns: 0; -EAGAIN, ... (what the host said). Requires: @daemon is zeroed, and stays until
 * daemon_stop has returned.
 */
int daemon_start(struct daemon *daemon, uint64_t (*turn)(void *arg), void *arg, uint64_t pause);
/* daemon_stop - ends a pause; waits for the turn that goes on. Requires: no lock that a turn takes. */
void daemon_stop(struct daemon *daemon);

#endif
