/* SPDX-License-Identifier: MIT */
/*
 * The arena hands out memory in ascending order and never twice: a run is short, and what was freed stays recognizable.
 * After the snapshot its pages are read-only; the first store to one keeps a copy of what it held. From then on the
 * page stays writable and is put back before every run, so that the same few pages are copied and nothing faults.
 */
#include "explore_arena.h"

#include "base/host.h"
#include "base/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ARENA_BYTES ((size_t)1 << 32)
#define PART_BYTES  (ARENA_BYTES / THREAD_SLOTS)
#define ARENA_PAGES (ARENA_BYTES / UCOW_PAGE_SIZE)
/* Always the same, so that whatever depends on addresses is the same in every run, and where a finding is replayed. */
#define ARENA_START ((char *)0x300000000000)
#define LINE_BYTES  64
#define FREED_BYTE  0x5d

/*
 * At the start of the arena, and so put back with the rest. Each lane takes memory from a part of its own: what it is
 * given does not depend on what others take.
 */
struct arena_head {
	size_t used[THREAD_SLOTS];
};

/* Before each piece of host_alloc. */
struct piece {
	size_t nbytes;
};

static struct {
	char *start; /* NULL: not open */
	char *copies;
	bool watching;
	size_t ndirty;
	uint32_t *dirty; /* numbers of pages that were stored to in some run */
	const char *left_out, *left_out_end;
	struct state_sum *clean; /* of each of them: what it adds to a state as it was at the snapshot */
	struct state_sum *added; /* the same, as it was when it was added last, */
	char *last;              /* and that: most pages have not changed since */
} arena;

static void *reserve(void *wish, size_t nbytes, int flags)
{
	void *area = mmap(wish, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1,
			  0);

	return area == MAP_FAILED ? NULL : area;
}

int arena_open(void)
{
	struct arena_head *head;

	arena.start = reserve(ARENA_START, ARENA_BYTES, MAP_FIXED_NOREPLACE);
	arena.copies = reserve(NULL, ARENA_BYTES, 0);
	arena.dirty = reserve(NULL, ARENA_PAGES * sizeof(*arena.dirty), 0);
	arena.clean = reserve(NULL, ARENA_PAGES * sizeof(*arena.clean), 0);
	arena.added = reserve(NULL, ARENA_PAGES * sizeof(*arena.added), 0);
	arena.last = reserve(NULL, ARENA_BYTES, 0);
	if (arena.start != ARENA_START || !arena.copies || !arena.dirty || !arena.clean || !arena.added || !arena.last)
		return -ENOMEM;
	head = (struct arena_head *)(void *)ARENA_START;
	for (size_t i = 0; i < THREAD_SLOTS; i++)
		head->used[i] = i * PART_BYTES + (i ? 0 : UCOW_PAGE_SIZE);
	return 0;
}

bool arena_holds(const void *address)
{
	return arena.start && (const char *)address >= arena.start && (const char *)address < arena.start + ARENA_BYTES;
}

void arena_snapshot(void)
{
	arena.watching = true;
	if (mprotect(arena.start, ARENA_BYTES, PROT_READ))
		abort();
}

void arena_restore(void)
{
	for (size_t i = 0; i < arena.ndirty; i++) {
		size_t at = (size_t)arena.dirty[i] * UCOW_PAGE_SIZE;

		memcpy(arena.start + at, arena.copies + at, UCOW_PAGE_SIZE);
	}
}

static void add_bytes(struct state_sum *sum, const char *page, size_t at, size_t from, size_t to)
{
	if (from < to)
		states_add_part(sum, (UINT64_C(1) << 32) + at + from, page + from, to - from);
}

/* The page at @at of the arena, whose bytes are at @page, but for what is left out. */
static void add_page(struct state_sum *sum, const char *page, size_t at)
{
	const char *start = arena.start + at, *end = start + UCOW_PAGE_SIZE;
	const char *out = arena.left_out < end ? arena.left_out : end, *in = arena.left_out_end;

	if (out < start)
		out = start;
	if (in < out || in > end)
		in = in < out ? out : end;
	add_bytes(sum, page, at, 0, (size_t)(out - start));
	add_bytes(sum, page, at, (size_t)(in - start), UCOW_PAGE_SIZE);
}

void arena_leave_out(const void *start, size_t nbytes)
{
	arena.left_out = start;
	arena.left_out_end = arena.left_out + nbytes;
}

/*
 * A page that is as it was at the snapshot adds nothing: a state is the same whether or not some run has ever stored to
 * a page that it leaves alone.
 */
void arena_add(struct state_sum *sum)
{
	for (size_t i = 0; i < arena.ndirty; i++) {
		size_t at = (size_t)arena.dirty[i] * UCOW_PAGE_SIZE;
		char *last = arena.last + i * UCOW_PAGE_SIZE;

		if (memcmp(last, arena.start + at, UCOW_PAGE_SIZE)) {
			memcpy(last, arena.start + at, UCOW_PAGE_SIZE);
			arena.added[i] = (struct state_sum){0, 0};
			add_page(&arena.added[i], last, at);
		}
		sum->low += arena.added[i].low - arena.clean[i].low;
		sum->high += arena.added[i].high - arena.clean[i].high;
	}
}

bool arena_fault(void *address)
{
	size_t at;

	if (!arena.watching || !arena_holds(address))
		return false;
	at = (size_t)((char *)address - arena.start) & UCOW_PAGE_MASK;
	memcpy(arena.copies + at, arena.start + at, UCOW_PAGE_SIZE);
	arena.dirty[arena.ndirty] = (uint32_t)(at / UCOW_PAGE_SIZE);
	memcpy(arena.last + arena.ndirty * UCOW_PAGE_SIZE, arena.start + at, UCOW_PAGE_SIZE);
	add_page(&arena.clean[arena.ndirty], arena.copies + at, at);
	arena.added[arena.ndirty] = arena.clean[arena.ndirty];
	arena.ndirty++;
	return !mprotect(arena.start + at, UCOW_PAGE_SIZE, PROT_READ | PROT_WRITE);
}

static void *take(size_t nbytes, size_t align)
{
	struct arena_head *head = (void *)arena.start;
	unsigned part = thread_slot();
	size_t end = (part + 1) * PART_BYTES, at = arena.start ? (head->used[part] + align - 1) & ~(align - 1) : end;

	if (nbytes > end - at)
		return NULL;
	head->used[part] = at + nbytes;
	return arena.start + at;
}

/* ---- the host of base/host.h ---- */

void *host_alloc_lines(size_t nbytes)
{
	char *memory;

	memory = take(nbytes + LINE_BYTES, LINE_BYTES);
	if (!memory)
		return NULL;
	((struct piece *)(void *)(memory + LINE_BYTES))[-1].nbytes = nbytes;
	return memory + LINE_BYTES;
}

void *host_alloc(size_t nbytes)
{
	return host_alloc_lines(nbytes);
}

void host_free(void *memory)
{
	if (!arena_holds(memory))
		free(memory);
	else
		memset(memory, FREED_BYTE, ((struct piece *)memory)[-1].nbytes);
}

void *host_map(size_t nbytes)
{
	return take(nbytes, UCOW_PAGE_SIZE);
}

void host_unmap(void *memory, size_t nbytes)
{
	(void)memory;
	(void)nbytes;
}

void host_advise_huge(void *memory, size_t nbytes)
{
	(void)memory;
	(void)nbytes;
}

int host_keep_from_fork(void *memory, size_t nbytes)
{
	(void)memory;
	(void)nbytes;
	return 0;
}

int host_commit(void *memory, size_t nbytes)
{
	(void)memory;
	(void)nbytes;
	return 0;
}

bool host_decommit(void *memory, size_t nbytes)
{
	(void)memory;
	(void)nbytes;
	return false;
}

/* ---- the runner's ---- */

void *arena_calloc(size_t n, size_t nbytes)
{
	if (!arena.start)
		return calloc(n, nbytes);
	if (nbytes && n > ARENA_BYTES / nbytes)
		return NULL;
	return host_alloc(n * nbytes);
}

void *arena_realloc(void *memory, size_t nbytes)
{
	size_t before = arena_holds(memory) ? ((struct piece *)memory)[-1].nbytes : 0;
	void *moved;

	if (!arena.start)
		return realloc(memory, nbytes);
	moved = host_alloc(nbytes);
	if (moved && memory)
		memcpy(moved, memory, before < nbytes ? before : nbytes);
	return moved;
}

void arena_free(void *memory)
{
	host_free(memory);
}
