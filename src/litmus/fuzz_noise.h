/* SPDX-License-Identifier: MIT */
/*
 * Named classes of what the live kernel is known to do differently. A class is as narrow as can be: fuzz_noise() says
 * which divergences are meant, and the campaign counts them.
 */
#ifndef LITMUS_FUZZ_NOISE_H
#define LITMUS_FUZZ_NOISE_H

#include "fuzz.h"

/* X(id, "name", "reason"). What waits in batches of a cpu is no class: it is pushed out after each look. */
#define FUZZ_NOISE(X)                                                                                               \
	X(FUZZ_NOISE_MOVE, "move-of-several",                                                                       \
	  "before Linux 6.17 a move takes one mapping; the engine takes several, as Linux does since")              \
	X(FUZZ_NOISE_MIGRATION, "migration",                                                                        \
	  "the kernel takes pages from their frames by itself, to make room for big ones: a page is on another "    \
	  "frame although nobody wrote, or is copied, not exclusive, mapped less often or waited for on its way; "  \
	  "meant are only programs during which the machine counted such pages, and which do not show it when "     \
	  "run again while it counts none")                                                                         \
	X(FUZZ_NOISE_GIVEN_UP, "merge-given-up",                                                                    \
	  "an equal page cannot be merged because a pin, a get or a pipe holds the other one: the kernel gives "    \
	  "the first a frame of its own again, the engine leaves it where it is, read-only and not exclusive, or "  \
	  "does not try; which of them is the first depends on the order of the scan")                              \
	X(FUZZ_NOISE_MOVED, "move-of-merged",                                                                       \
	  "the kernel parts merged pages that move, the engine moves them as they are")                             \
	X(FUZZ_NOISE_OTHERS, "merged-for-others",                                                                   \
	  "memory that nobody has advised shows a merged page, because a fork let it share the page with memory "   \
	  "that was: on `unmergeable` the engine parts it and the kernel leaves it; and the kernel merges nothing " \
	  "more into a page none of whose mergers is left")                                                         \
	X(FUZZ_NOISE_SCAN, "scan-of-nothing",                                                                       \
	  "a page of tracked memory that nobody has touched counts as written; where there is no page table yet "   \
	  "the kernel does not report it, the engine does, table or not")                                           \
	X(FUZZ_NOISE_TRACKED, "move-of-tracked",                                                                    \
	  "a move of several mappings fails on the kernel where a userfaultfd watches one of them; the engine "     \
	  "moves them")                                                                                             \
	X(FUZZ_NOISE_PART, "pin-of-a-part",                                                                         \
	  "of a range in which a userfaultfd refuses the store to a later page a pin gets what comes before; the "  \
	  "kernel's pins are registered buffers, which are made whole or not at all")                               \
	X(FUZZ_NOISE_MEMORY, "out-of-memory",                                                                       \
	  "against modes: a program with a group's limit or a small machine wants more pages than fit, most of "    \
	  "them pinned; the statement fails or stops half-way, each page is as before or after it, reclaim finds "  \
	  "nothing afterwards, and that fork mode is not compared any further")

enum fuzz_noise_class {
#define FUZZ_NOISE_ID(id, name, reason) id,
	FUZZ_NOISE(FUZZ_NOISE_ID)
#undef FUZZ_NOISE_ID
		FUZZ_NOISE_CLASSES
};

/* Room for a number for each class, where there is none too. */
#define FUZZ_NOISE_ROOM (FUZZ_NOISE_CLASSES + 1)

/* fuzz_noise_is_before - whether @release, as uname() tells it, is older than Linux @major.@minor. */
bool fuzz_noise_is_before(const char *release, unsigned major, unsigned minor);

const char *fuzz_noise_name(int class);
const char *fuzz_noise_reason(int class);

#endif
