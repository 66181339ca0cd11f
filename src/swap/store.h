/* SPDX-License-Identifier: MIT */
/*
 * Where the bytes of swapped pages are kept: a file, or memory. A store knows slots by number and nothing of pages,
 * entries or counts; those are swap.c's business, which also sees to it that nobody reads a slot that is being written.
 */
#ifndef SWAP_STORE_H
#define SWAP_STORE_H

#include "base/inject.h"
#include "base/lock.h"

#include <ucow/swap.h>

struct swap_store;

/* One page on its way out. The caller keeps it, and the bytes, until `done` was called. */
struct swap_write {
	uint64_t slot;
	const void *bytes; /* one page, at a page's address; not changed meanwhile */
	int error;         /* set before `done`: 0; -EIO, -ENOSPC, ... */
	bool is_zero;      /* set before `done`: all zeros, so that nothing is kept */
	void *owner;       /* the caller's */
};

enum swap_kept { SWAP_KEPT_ZERO, SWAP_KEPT_MEMORY, SWAP_KEPT_FILE };

/*
 * swap_store_open - @options as for ucow_swapon, checked. @done is called for each write, in the thread that submits or
 * reaps, with no lock of the store held; it may discard and read, but not submit or reap. Returns: 0; -ENOMEM;
 * -EOPNOTSUPP; -EINVAL; what opening the file said.
 */
int swap_store_open(const struct ucow_swap_options *options, struct inject *inject,
		    void (*done)(void *arg, struct swap_write *write), void *arg, struct swap_store **store);
/* swap_store_close - Requires: nothing in flight. */
void swap_store_close(struct swap_store *store);

/*
 * swap_store_submit - begin @n writes, in ascending order of slots; neighbours go to the file in one piece. Pages of
 * zeros and pages that compress are done at once. May wait when too much is in flight. Requires: no lock held, no
 * section.
 */
void swap_store_submit(struct swap_store *store, struct swap_write *const *writes, unsigned n);
/*
 * swap_store_reap - complete what has been written. With @wait, wait until at least one write is complete, if any is in
 * flight. Returns: how many were completed by this call; others may have completed some. Thread: any, several at once.
 */
unsigned swap_store_reap(struct swap_store *store, bool wait);
/*
 * swap_store_in_flight - writes submitted and not completed, and one more for each thread that submits. 0: nobody is in
 * the store but who reads and reaps.
 */
unsigned swap_store_in_flight(const struct swap_store *store);

/* swap_store_is_busy - whether something is in flight; for what wait_until asks: not a step of the explorer. */
bool swap_store_is_busy(const struct swap_store *store);

/*
 * swap_store_read - the bytes of @n consecutive slots, each into a page of its own; *nread of them, from the first on,
 * are good. Returns: 0 if all; else why the next one is not: -EIO, ... Requires: they have been written; no lock, no
 * section.
 */
int swap_store_read(struct swap_store *store, uint64_t slot, void *const *bytes, unsigned n, unsigned *nread);
/* swap_store_keeps - how the slot is kept. Requires: it has been written. */
enum swap_kept swap_store_keeps(const struct swap_store *store, uint64_t slot);
/* swap_store_discard - the slot's bytes are not needed any more. Spin locks may be held. */
void swap_store_discard(struct swap_store *store, uint64_t slot);
/* swap_store_stat - the store's part of @stat: zero, compressed, compressed_bytes, read, written, errors. */
void swap_store_stat(const struct swap_store *store, struct ucow_swap_stat *stat);

#endif
