/* SPDX-License-Identifier: MIT */
/*
 * What the files of the swap store share: store.c decides how a page is kept, store_memory.c keeps bytes in memory,
 * store_file.c in a file, and store_uring.c writes to the file without waiting for it.
 */
#ifndef SWAP_STORE_INTERNAL_H
#define SWAP_STORE_INTERNAL_H

#include "base/list.h"
#include "swap/store.h"

#include <errno.h>
#include <sys/uio.h>

/* ---- memory: pieces of 64 bytes to a page, in chunks of pieces of one size, in areas of chunks ---- */

#define BLOB_UNIT        ((size_t)64)
#define BLOB_CLASSES     (UCOW_PAGE_SIZE / BLOB_UNIT)
#define BLOB_CHUNK_BYTES ((size_t)64 << 10)
#define BLOB_AREA_CHUNKS (exploring ? 4u : 64u)
#define BLOB_AREA_BYTES  (BLOB_AREA_CHUNKS * BLOB_CHUNK_BYTES)
#define BLOB_AREA_UNITS  ((uint32_t)(BLOB_AREA_BYTES / BLOB_UNIT))
#define BLOB_CHUNK_UNITS ((uint32_t)(BLOB_CHUNK_BYTES / BLOB_UNIT))

struct blob_area;
struct blobs {
	struct spin lock;                  /* LOCK_SLAB; guards the rest but for the areas' bytes */
	struct list partial[BLOB_CLASSES]; /* chunks with room, by size */
	struct list empty;                 /* chunks of no size */
	uint32_t nempty;                   /* chunks there */
	uint32_t nareas;                   /* fixed: entries of areas[] */
	struct blob_area **areas;          /* fixed, if there are any; NULL: none there */
};

/* Where a piece is: an area's number and a unit in it. */
struct blob {
	uint32_t area, unit;
};

/* blobs_init - for @nslots pages at most. Returns: 0; -ENOMEM. */
int blobs_init(struct blobs *blobs, uint64_t nslots);
/* blobs_destroy - with all that is in it. */
void blobs_destroy(struct blobs *blobs);
/* blob_alloc - room for @nbytes, at most a page. Returns: 0; -ENOMEM. */
int blob_alloc(struct blobs *blobs, size_t nbytes, struct blob *blob);
/* blob_free - what blob_alloc gave for as many bytes. Spin locks may be held. */
void blob_free(struct blobs *blobs, struct blob blob, size_t nbytes);
/* blob_bytes - Thread: any, while the piece is not freed. */
void *blob_bytes(const struct blobs *blobs, struct blob blob);

static inline size_t blob_size(size_t nbytes)
{
	return (nbytes + BLOB_UNIT - 1) & ~(BLOB_UNIT - 1);
}

/* ---- compression ---- */

/* What compressing takes; one caller at a time. */
struct packer;
/* packer_create - Returns: NULL: no memory, or nothing compresses in this build (packs). */
struct packer *packer_create(void);
void packer_destroy(struct packer *packer);
/* pack - the page @bytes as at most @limit bytes. Returns: how many, at *packed, until the next call; 0: it takes more.
 */
size_t pack(struct packer *packer, const void *bytes, size_t limit, const void **packed);
/* unpack - Returns: whether @nbytes at @packed were a page. */
bool unpack(const void *packed, size_t nbytes, void *bytes);

#if defined(UCOW_HAVE_LZ4) && !exploring
#define packs 1
#else
#define packs 0
#endif

/* ---- the store ---- */

/* Neighbours that go to the file in one request. */
#define RUN_PAGES 64

struct ring;
struct swap_store {
	struct inject *inject;                             /* fixed */
	void (*done)(void *arg, struct swap_write *write); /* fixed */
	void *arg;                                         /* fixed */
	uint64_t nslots;                                   /* fixed */
	uint64_t *slots;   /* how each is kept; whoever may touch a slot's bytes may touch its word (store.h) */
	size_t shrink_to;  /* fixed: what compresses to so many bytes is kept in memory; 0: nothing is compressed */
	bool keeps_all;    /* fixed: whatever does not compress is kept in memory, too */
	int fd;            /* fixed: the file, or -1 */
	struct ring *ring; /* fixed: NULL: writes wait for the file */
	struct blobs blobs;

	_Atomic uint64_t submitted, completed; /* writes, ever */
	_Atomic uint64_t nzero, nmemory, memory_bytes;
	_Atomic uint64_t nread, nwritten, read_errors, write_errors;
};

/* store_complete - hand @write back. It may be gone when this returns. */
void store_complete(struct swap_store *store, struct swap_write *write, int error);

/* ---- the file ---- */

/* Pages for consecutive slots, in one request. */
struct run {
	unsigned n;
	struct swap_write *writes[RUN_PAGES];
	struct iovec vectors[RUN_PAGES];
};

#if exploring
static inline int file_open(const struct ucow_swap_options *options, int *fd)
{
	(void)options;
	(void)fd;
	return -EOPNOTSUPP;
}
static inline void file_close(int fd)
{
	(void)fd;
}
static inline void run_write(struct swap_store *store, struct run *run, unsigned ngood)
{
	(void)store;
	(void)run;
	(void)ngood;
}
static inline int file_read(int fd, uint64_t slot, void *const *bytes, unsigned n, unsigned *nread)
{
	(void)fd;
	(void)slot;
	(void)bytes;
	(void)n;
	*nread = 0;
	return -EIO;
}
#else
/* file_open - as ucow_swapon says. Returns: 0; -ENOMEM; what the system said. */
int file_open(const struct ucow_swap_options *options, int *fd);
void file_close(int fd);
/* run_write - write @run, of which @ngood pages are in the file already, and complete all of it. */
void run_write(struct swap_store *store, struct run *run, unsigned ngood);
/* file_read - as swap_store_read, from the file alone. Requires: n <= RUN_PAGES. */
int file_read(int fd, uint64_t slot, void *const *bytes, unsigned n, unsigned *nread);
#endif
/* run_complete - the first @ngood pages are in the file, the others met with @error. */
void run_complete(struct swap_store *store, struct run *run, unsigned ngood, int error);

/* ---- the ring ---- */

#if defined(UCOW_HAVE_LIBURING) && !exploring
/* ring_open - Returns: 0; -ENOMEM; -EOPNOTSUPP, -EPERM, ...: this system has none for us. */
int ring_open(struct swap_store *store, struct ring **ring);
/* ring_close - Requires: nothing in flight. */
void ring_close(struct ring *ring);
/* ring_take - an empty run. May wait for others to complete. */
struct run *ring_take(struct ring *ring);
/* ring_send - write it; nothing goes out before ring_kick. The run is the ring's again. */
void ring_send(struct ring *ring, struct run *run);
void ring_kick(struct ring *ring);
/* ring_reap - as swap_store_reap; it may return 0 because another thread has reaped, or does so now. */
unsigned ring_reap(struct ring *ring, bool wait);
/* ring_is_waiting - writes are with the kernel, so that reaping may wait for one. */
bool ring_is_waiting(const struct ring *ring);
#else
static inline int ring_open(struct swap_store *store, struct ring **ring)
{
	(void)store;
	(void)ring;
	return -EOPNOTSUPP;
}
static inline void ring_close(struct ring *ring)
{
	(void)ring;
}
static inline struct run *ring_take(struct ring *ring)
{
	(void)ring;
	return NULL;
}
static inline void ring_send(struct ring *ring, struct run *run)
{
	(void)ring;
	(void)run;
}
static inline void ring_kick(struct ring *ring)
{
	(void)ring;
}
static inline unsigned ring_reap(struct ring *ring, bool wait)
{
	(void)ring;
	(void)wait;
	return 0;
}
static inline bool ring_is_waiting(const struct ring *ring)
{
	(void)ring;
	return false;
}
#endif

#endif
