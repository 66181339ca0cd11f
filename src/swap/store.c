/* SPDX-License-Identifier: MIT */
/*
 * How the bytes of each slot are kept: not at all if they are zeros, in memory, or in the file. A slot has one word for
 * that; who may read or write a slot's bytes may read or write its word, and swap.c sees to that.
 */
#include "swap/store_internal.h"

#include "base/host.h"

#include <string.h>

/*
 * A slot's word:
 *     63            32 31            16  14         2  1  0
 *    +----------------+----------------+--+----------+----+
 *    |   blob area    |   blob unit    |  |  nbytes  |kind|
 *    +----------------+----------------+--+----------+----+
 * The upper parts are those of what is kept in memory; a whole page there is not compressed.
 */
enum slot_kind { KIND_NONE, KIND_ZERO, KIND_MEMORY, KIND_FILE };

static enum slot_kind slot_kind(uint64_t word)
{
	return (enum slot_kind)(word & 3);
}

static size_t slot_nbytes(uint64_t word)
{
	return word >> 2 & 0x1fff;
}

static struct blob slot_blob(uint64_t word)
{
	return (struct blob){.area = (uint32_t)(word >> 32), .unit = word >> 16 & 0xffff};
}

static uint64_t slot_in_memory(struct blob blob, size_t nbytes)
{
	return (uint64_t)blob.area << 32 | (uint64_t)blob.unit << 16 | nbytes << 2 | KIND_MEMORY;
}

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void subtract(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_sub_explicit(counter, n, memory_order_relaxed);
}

static uint64_t *word_of(const struct swap_store *store, uint64_t slot)
{
	UCOW_BUG_ON(slot >= store->nslots);
	return &store->slots[slot];
}

/* ---- open and close ---- */

static uint64_t slots_bytes(const struct swap_store *store)
{
	return page_round_up(store->nslots * sizeof(store->slots[0]));
}

static void set_limits(struct swap_store *store, uint32_t flags)
{
	store->keeps_all = flags & UCOW_SWAP_MEMORY;
	if (packs && store->keeps_all)
		store->shrink_to = UCOW_PAGE_SIZE / 4 * 3;
	else if (flags & UCOW_SWAP_COMPRESS)
		store->shrink_to = UCOW_PAGE_SIZE / 2;
}

static int open_file(struct swap_store *store, const struct ucow_swap_options *options)
{
	int error = file_open(options, &store->fd);

	/* A host without io_uring, or that does not let us, is no error: writes wait then. */
	if (!error && !(options->flags & UCOW_SWAP_NO_URING) && ring_open(store, &store->ring))
		store->ring = NULL;
	return error;
}

static int open_parts(struct swap_store *store, const struct ucow_swap_options *options)
{
	int error = 0;

	store->slots = host_map(slots_bytes(store));
	if (!store->slots)
		return -ENOMEM;
	if (store->keeps_all || store->shrink_to)
		error = blobs_init(&store->blobs, store->nslots);
	if (!error && !store->keeps_all)
		error = open_file(store, options);
	return error;
}

int swap_store_open(const struct ucow_swap_options *options, struct inject *inject,
		    void (*done)(void *arg, struct swap_write *write), void *arg, struct swap_store **result)
{
	struct swap_store *store;
	int error;

	if ((options->flags & UCOW_SWAP_COMPRESS) && !packs)
		return -EOPNOTSUPP;
	store = host_alloc(sizeof(*store));
	if (!store)
		return -ENOMEM;
	store->inject = inject;
	store->done = done;
	store->arg = arg;
	store->nslots = page_round_up(options->nbytes) >> UCOW_PAGE_SHIFT;
	store->fd = -1;
	set_limits(store, options->flags);
	error = open_parts(store, options);
	if (error)
		swap_store_close(store);
	else
		*result = store;
	return error;
}

void swap_store_close(struct swap_store *store)
{
	UCOW_BUG_ON(swap_store_in_flight(store));
	if (store->ring)
		ring_close(store->ring);
	if (store->fd >= 0)
		file_close(store->fd);
	blobs_destroy(&store->blobs);
	if (store->slots)
		host_unmap(store->slots, slots_bytes(store));
	host_free(store);
}

/* ---- discarding ---- */

void swap_store_discard(struct swap_store *store, uint64_t slot)
{
	uint64_t *word = word_of(store, slot), old = *word;

	*word = KIND_NONE;
	if (slot_kind(old) == KIND_ZERO) {
		subtract(&store->nzero, 1);
	} else if (slot_kind(old) == KIND_MEMORY) {
		subtract(&store->nmemory, 1);
		subtract(&store->memory_bytes, blob_size(slot_nbytes(old)));
		blob_free(&store->blobs, slot_blob(old), slot_nbytes(old));
	}
}

/* ---- writing ---- */

void store_complete(struct swap_store *store, struct swap_write *write, int error)
{
	write->error = error;
	if (error) {
		*word_of(store, write->slot) = KIND_NONE;
		add(&store->write_errors, 1);
	}
	store->done(store->arg, write);
	atomic_fetch_add_explicit(&store->completed, 1, memory_order_release);
}

void run_complete(struct swap_store *store, struct run *run, unsigned ngood, int error)
{
	add(&store->nwritten, ngood);
	for (unsigned i = 0; i < run->n; i++)
		store_complete(store, run->writes[i], i < ngood ? 0 : error);
}

/* Pages that are not zeros differ early, mostly. */
static bool is_zero(const void *bytes)
{
	const uint64_t *words = bytes;

	if (words[0])
		return false;
	for (unsigned i = 0; i < UCOW_PAGE_SIZE / sizeof(*words); i += 8) {
		uint64_t any = 0;

		for (unsigned j = 0; j < 8; j++)
			any |= words[i + j];
		if (any)
			return false;
	}
	return true;
}

static int keep_in_memory(struct swap_store *store, uint64_t slot, const void *bytes, size_t nbytes)
{
	struct blob blob;
	int error = blob_alloc(&store->blobs, nbytes, &blob);

	if (error)
		return error;
	memcpy(blob_bytes(&store->blobs, blob), bytes, nbytes);
	*word_of(store, slot) = slot_in_memory(blob, nbytes);
	add(&store->nmemory, 1);
	add(&store->memory_bytes, blob_size(nbytes));
	return 0;
}

/* Returns: 0: the bytes are kept; -ENOENT: they go to the file; what else went wrong. */
static int keep(struct swap_store *store, struct packer *packer, struct swap_write *write)
{
	const void *packed;
	size_t nbytes;

	swap_store_discard(store, write->slot);
	write->is_zero = false;
	if (inject_fails(store->inject, UCOW_INJECT_WRITE))
		return -EIO;
	if (is_zero(write->bytes)) {
		write->is_zero = true;
		*word_of(store, write->slot) = KIND_ZERO;
		add(&store->nzero, 1);
		return 0;
	}
	nbytes = packer ? pack(packer, write->bytes, store->shrink_to, &packed) : 0;
	if (nbytes && !keep_in_memory(store, write->slot, packed, nbytes))
		return 0;
	return store->keeps_all ? keep_in_memory(store, write->slot, write->bytes, UCOW_PAGE_SIZE) : -ENOENT;
}

/* A run on its way; @own serves where there is no ring. */
struct outgoing {
	struct swap_store *store;
	struct run *run; /* NULL: none begun */
	struct run own;
};

static void send(struct outgoing *out)
{
	if (!out->run)
		return;
	if (out->store->ring)
		ring_send(out->store->ring, out->run);
	else
		run_write(out->store, out->run, 0);
	out->run = NULL;
}

static void add_to_run(struct outgoing *out, struct swap_write *write)
{
	struct run *run = out->run;

	if (run && (run->n == RUN_PAGES || run->writes[run->n - 1]->slot + 1 != write->slot))
		send(out);
	if (!out->run) {
		out->run = out->store->ring ? ring_take(out->store->ring) : &out->own;
		out->run->n = 0;
	}
	run = out->run;
	*word_of(out->store, write->slot) = KIND_FILE;
	run->vectors[run->n] = (struct iovec){.iov_base = (void *)(uintptr_t)write->bytes, .iov_len = UCOW_PAGE_SIZE};
	run->writes[run->n++] = write;
}

void swap_store_submit(struct swap_store *store, struct swap_write *const *writes, unsigned n)
{
	struct packer *packer = store->shrink_to ? packer_create() : NULL;
	struct outgoing out;

	out.store = store;
	out.run = NULL;
	/* This call is one more in flight: others may complete all its writes before it ends, and then close the store.
	 */
	add(&store->submitted, n + 1);
	for (unsigned i = 0; i < n; i++) {
		int error = keep(store, packer, writes[i]);

		if (error == -ENOENT)
			add_to_run(&out, writes[i]);
		else
			store_complete(store, writes[i], error);
	}
	send(&out);
	if (store->ring)
		ring_kick(store->ring);
	if (packer)
		packer_destroy(packer);
	atomic_fetch_add_explicit(&store->completed, 1, memory_order_release);
}

/* ---- reaping ---- */

unsigned swap_store_in_flight(const struct swap_store *store)
{
	/* In this order, so that what comes and goes meanwhile does not make it negative. */
	uint64_t completed = atomic_load_explicit(&store->completed, memory_order_acquire);

	return (unsigned)(atomic_load_explicit(&store->submitted, memory_order_relaxed) - completed);
}

bool swap_store_is_busy(const struct swap_store *store)
{
	uint64_t done = __atomic_load_n((const uint64_t *)&store->completed, __ATOMIC_ACQUIRE);

	return done != __atomic_load_n((const uint64_t *)&store->submitted, __ATOMIC_RELAXED);
}

/*
 * Something was completed by another thread, or there is nothing to wait for, or the kernel to wait for. The explorer
 * asks between the steps of its lanes, so that these loads must be none.
 */
static bool may_go_on(const volatile void *completed, uintptr_t before)
{
	const struct swap_store *store = container_of((uintptr_t)completed, struct swap_store, completed);
	uint64_t done = __atomic_load_n((const volatile uint64_t *)completed, __ATOMIC_ACQUIRE);

	return done != before || done == __atomic_load_n((const uint64_t *)&store->submitted, __ATOMIC_RELAXED) ||
	       (!exploring && store->ring && ring_is_waiting(store->ring));
}

unsigned swap_store_reap(struct swap_store *store, bool wait)
{
	uint64_t before = atomic_load_explicit(&store->completed, memory_order_acquire);

	for (;;) {
		unsigned n = store->ring ? ring_reap(store->ring, wait) : 0;

		if (n || !wait || !swap_store_in_flight(store) ||
		    atomic_load_explicit(&store->completed, memory_order_acquire) != before)
			return n;
		/* All that is in flight is in other threads' hands. */
		wait_until(HOOK_LOAD, &store->completed, may_go_on, before);
	}
}

/* ---- reading ---- */

enum swap_kept swap_store_keeps(const struct swap_store *store, uint64_t slot)
{
	enum slot_kind kind = slot_kind(*word_of(store, slot));

	return kind == KIND_ZERO ? SWAP_KEPT_ZERO : kind == KIND_MEMORY ? SWAP_KEPT_MEMORY : SWAP_KEPT_FILE;
}

static int read_memory(const struct swap_store *store, uint64_t word, void *bytes)
{
	const void *kept = blob_bytes(&store->blobs, slot_blob(word));

	if (slot_nbytes(word) < UCOW_PAGE_SIZE)
		return unpack(kept, slot_nbytes(word), bytes) ? 0 : -EIO;
	memcpy(bytes, kept, UCOW_PAGE_SIZE);
	return 0;
}

/* How many of @n slots from @slot are in the file, side by side, and are not to fail. */
static unsigned file_run(struct swap_store *store, uint64_t slot, unsigned n, bool *fails)
{
	unsigned length = 1;

	*fails = false;
	while (length < n && length < RUN_PAGES && slot_kind(*word_of(store, slot + length)) == KIND_FILE) {
		*fails = inject_fails(store->inject, UCOW_INJECT_READ);
		if (*fails)
			break;
		length++;
	}
	return length;
}

static int read_file(struct swap_store *store, uint64_t slot, void *const *bytes, unsigned n, unsigned *nread)
{
	bool fails;
	unsigned length = file_run(store, slot, n, &fails);
	int error = file_read(store->fd, slot, bytes, length, nread);

	add(&store->nread, *nread);
	return error ? error : fails ? -EIO : 0;
}

/* Some pages from the first on. Returns: 0, and at least one is good; what went wrong after *nread good ones. */
static int read_some(struct swap_store *store, uint64_t slot, void *const *bytes, unsigned n, unsigned *nread)
{
	uint64_t word = *word_of(store, slot);
	int error = 0;

	*nread = 0;
	if (inject_fails(store->inject, UCOW_INJECT_READ))
		return -EIO;
	switch (slot_kind(word)) {
	case KIND_FILE:
		return read_file(store, slot, bytes, n, nread);
	case KIND_ZERO:
		memset(bytes[0], 0, UCOW_PAGE_SIZE);
		break;
	case KIND_MEMORY:
		error = read_memory(store, word, bytes[0]);
		break;
	case KIND_NONE: /* it could not be written */
		error = -EIO;
		break;
	}
	*nread = error ? 0 : 1;
	return error;
}

int swap_store_read(struct swap_store *store, uint64_t slot, void *const *bytes, unsigned n, unsigned *nread)
{
	int error = 0;

	*nread = 0;
	while (*nread < n && !error) {
		unsigned some;

		error = read_some(store, slot + *nread, bytes + *nread, n - *nread, &some);
		*nread += some;
	}
	if (error)
		add(&store->read_errors, 1);
	return error;
}

/* ---- statistics ---- */

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void swap_store_stat(const struct swap_store *store, struct ucow_swap_stat *stat)
{
	stat->zero = get(&store->nzero);
	stat->compressed = get(&store->nmemory);
	stat->compressed_bytes = get(&store->memory_bytes);
	stat->read = get(&store->nread);
	stat->written = get(&store->nwritten);
	stat->read_errors = get(&store->read_errors);
	stat->write_errors = get(&store->write_errors);
}
