/* SPDX-License-Identifier: MIT */
/* SIGINT, SIGTERM and SIGHUP as requests to end in order: to stop, tell what was done, and then end by that signal. */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

/*
 * interrupt_watch - from now on the first of these signals is noted rather than deadly; the same one once more is.
 * Ignored ones stay ignored, and children forked from here die as ever. Returns: a descriptor that becomes readable
 * with the signal; 0 if there is none, and signals are as before.
 */
int interrupt_watch(void);
/* interrupt_signal - the signal that came, or 0. */
int interrupt_signal(void);
/* interrupt_end - end this program by @sig, as if it had never been watched. */
_Noreturn void interrupt_end(int sig);

#endif
