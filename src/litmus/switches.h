/* SPDX-License-Identifier: MIT */
/*
 * Machine-wide switches (files below /proc/sys and /sys) that a run sets and gives back. Whoever sets one starts a
 * guardian first, a process of its own that outlives signals and even SIGKILL to the program, and restores what the
 * program no longer can.
 */
#ifndef LITMUS_SWITCHES_H
#define LITMUS_SWITCHES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define SWITCHES_MAX 10

struct machine_switch {
	const char *name, *path;
	const char *wanted;  /* while it is held */
	const char *flipped; /* what it may be set to meanwhile by whoever holds it; or NULL */
	char before[32];
};

/* All zero at first. */
struct switches {
	struct machine_switch list[SWITCHES_MAX];
	size_t n;
	pid_t guardian;                /* 0: nothing is held */
	int line;                      /* shut down, it asks the guardian to restore */
	int (*undo)(const void *what); /* what else is to be given back, before the switches; or NULL */
	const void *what;
};

/*
 * switches_add - let @path read @wanted while the switches are held. The strings stay the caller's. What is not there,
 * may not be written, or reads @wanted already is left alone. Returns: whether it will be set.
 */
bool switches_add(struct switches *switches, const char *name, const char *path, const char *wanted);
/* switches_add_flipped - the same for a file that its holder sets now to @wanted and now to @flipped. */
bool switches_add_flipped(struct switches *switches, const char *name, const char *path, const char *wanted,
			  const char *flipped);
/*
 * switches_undo_with - let the guardian, and switches_release(), call @undo(@what) too. It must do nothing the second
 * time, may run in another process, which has @what as it was when the switches were held, and returns 0 or -errno.
 */
void switches_undo_with(struct switches *switches, int (*undo)(const void *what), const void *what);
/* switches_add_movers - what moves pages or takes entries away at any moment: off while tests run. */
void switches_add_movers(struct switches *switches);
/* switches_hold - set what was added; does nothing where that is nothing. Returns: 0; -errno, and nothing is set. */
int switches_hold(struct switches *switches);
/*
 * switches_release - restore each switch that still reads what it was set to (what somebody else has set meanwhile is
 * theirs), and end the guardian. Returns: 0; -errno.
 */
int switches_release(struct switches *switches);

#endif
