/* SPDX-License-Identifier: MIT */
/*
 * Swap: where pages go when RAM, or a group's share of it, runs out; and reclaim by hand. A machine without a swap
 * device keeps no LRU lists and pays nothing for any of this.
 */
#ifndef UCOW_SWAP_H
#define UCOW_SWAP_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ucow_memcg;

/** Hold the bytes in the embedder's own memory, compressed where that helps, and use no file. */
#define UCOW_SWAP_MEMORY (1u << 0)
/** Compress pages in memory first; only what does not shrink enough goes to the file. -EOPNOTSUPP without lz4. */
#define UCOW_SWAP_COMPRESS (1u << 1)
/** Go past the host's page cache (O_DIRECT). -EINVAL where the file system cannot. */
#define UCOW_SWAP_DIRECT (1u << 2)
/** Never use io_uring, even where it is there. */
#define UCOW_SWAP_NO_URING (1u << 3)

#define UCOW_SWAP_DEVICES 16

struct ucow_swap_options {
	size_t size;     /* sizeof(struct ucow_swap_options) */
	uint64_t nbytes; /* capacity, rounded up to pages; at least one */
	/*
	 * A file that is created, or overwritten if it exists as a regular file, with mode 0600, and that stays when
	 * the device goes. NULL: an unlinked temporary file in $TMPDIR or /var/tmp, which nobody else can open and
	 * which ends with the machine.
	 */
	const char *path;
	int priority;   /* devices of higher priority are filled first, those of equal priority by turns */
	uint32_t flags; /* UCOW_SWAP_* */
};

/**
 * ucow_swapon - add a swap device.
 *
 * The file grows as it is used; what the host lacks room for later is a failed write, which keeps its page in RAM.
 * Returns: 0 and the device's number in @device (may be NULL); -EINVAL; -ENOMEM; -ENOSPC (no more than
 * UCOW_SWAP_DEVICES); -EOPNOTSUPP; or what opening the file said. Thread: any.
 */
UCOW_API UCOW_NODISCARD int ucow_swapon(struct ucow_machine *machine, const struct ucow_swap_options *options,
					unsigned *device);

/**
 * ucow_swapoff - bring every page of a device back to RAM and give the device up.
 *
 * Each entry becomes present and read-only, exclusive if the entry was (docs/semantics.md B.6).
 * Returns: 0; -EINVAL (no such device); -ENOMEM: RAM is too small, and -EIO: a page could not be read; in both cases
 * the device stays in use, with what could not be brought back. Thread: any.
 */
UCOW_API UCOW_NODISCARD int ucow_swapoff(struct ucow_machine *machine, unsigned device);

/** A device's state, in pages unless said. */
struct ucow_swap_stat {
	uint64_t capacity;
	uint64_t used;             /* slots that entries or the swap cache name */
	uint64_t cached;           /* of these: their page is in RAM as well */
	uint64_t zero;             /* of used: all bytes are zero, nothing is stored */
	uint64_t compressed;       /* of used: held in memory */
	uint64_t compressed_bytes; /* what these take */
	uint64_t read, written;    /* pages transferred to and from the file, ever */
	uint64_t read_errors, write_errors;
	int priority;
};
/** ucow_swap_stat - Returns: 0; -EINVAL (no such device). Thread: any. */
UCOW_API int ucow_swap_stat(struct ucow_machine *machine, unsigned device, struct ucow_swap_stat *stat);

/**
 * ucow_reclaim - take @npages pages from the least recently used, as pressure would: all of the machine, or those
 * charged to @memcg (and the groups below it) if that is not NULL. Pinned pages stay.
 * Returns: how many pages came free, which may be fewer or, at the end, a few more. Thread: any, but not inside a span.
 */
UCOW_API long ucow_reclaim(struct ucow_machine *machine, struct ucow_memcg *memcg, uint64_t npages);

#ifdef __cplusplus
}
#endif
#endif
