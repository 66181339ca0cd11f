/* SPDX-License-Identifier: MIT */
/* Sets of accesses as bits, in the order in which accesses were first met; stored sets are kept once. */
#include "explore_future.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* What matters of how a step touches its object. */
enum touch {
	TOUCH_LOAD,
	TOUCH_ADD,
	TOUCH_CHANGE,
	TOUCH_WAIT_LOAD,
	TOUCH_WAIT_CHANGE,
	TOUCH_PUSH,
	TOUCH_EXPEDITE,
	TOUCHES
};

#define ANYTHING    UINT64_C(1)
#define POOL_BYTES  ((size_t)16 << 30)
#define FEWEST_SETS (UINT32_C(1) << 16)

/* Those of a process and object are linked by their numbers; 0 ends. */
struct access {
	enum touch touch;
	uint16_t locks, next;
	uint64_t last; /* position where it was seen */
};

static struct access accesses[FUTURE_WORDS * 64];
static uint32_t naccesses = 1;
static uint16_t heads[SEARCH_OBJECTS][SEARCH_PROCS];

/* Stored sets: the number of words, then the words without the zeros at the end. */
static struct {
	uint64_t *pool;
	size_t used; /* words */
	uint32_t nsets, nslots;
	size_t *sets;    /* where in the pool */
	uint32_t *slots; /* numbers of sets plus one, by hash */
} stored;

/* ---- locks ---- */

#define MOST_HELD  8
#define MOST_LOCKS 4096

/* Twice the number of a lock, plus one if it is shared; in the order in which they were taken, zeros at the end. */
struct locks {
	uint32_t held[MOST_HELD];
};

static struct locks locks[MOST_LOCKS];
static uint32_t nlocks = 1;

/* Without room: none, which is never wrong. */
static uint16_t number_of_locks(const struct locks *set)
{
	for (uint32_t i = 0; i < nlocks; i++)
		if (!memcmp(&locks[i], set, sizeof(*set)))
			return (uint16_t)i;
	if (nlocks == MOST_LOCKS)
		return FUTURE_NO_LOCKS;
	locks[nlocks] = *set;
	return (uint16_t)nlocks++;
}

static void add_lock(struct locks *set, uint32_t lock, bool alone)
{
	for (unsigned i = 0; i < MOST_HELD; i++) {
		if (set->held[i])
			continue;
		set->held[i] = 2 * lock + !alone;
		return;
	}
}

static void remove_lock(struct locks *set, uint32_t lock)
{
	unsigned n = 0;

	for (unsigned i = 0; i < MOST_HELD; i++)
		if (set->held[i] / 2 != lock)
			set->held[n++] = set->held[i];
	while (n < MOST_HELD)
		set->held[n++] = 0;
}

/* The same few changes come again and again. */
static uint16_t change(uint16_t number, uint32_t lock, bool take, bool alone)
{
	static struct {
		uint32_t lock;
		uint16_t number, result;
		bool take, alone;
	} known[1024], *slot;
	struct locks set;

	slot = &known[(lock * 37 + number * 5u + take * 2u + alone) % 1024];
	if (slot->lock == lock && slot->number == number && slot->take == take && slot->alone == alone)
		return slot->result;
	set = locks[number];
	if (take)
		add_lock(&set, lock, alone);
	else
		remove_lock(&set, lock);
	slot->lock = lock;
	slot->number = number;
	slot->take = take;
	slot->alone = alone;
	slot->result = number_of_locks(&set);
	return slot->result;
}

uint16_t future_hold(uint16_t number, uint32_t lock, bool alone)
{
	return change(number, lock, true, alone);
}

uint16_t future_release(uint16_t number, uint32_t lock)
{
	return change(number, lock, false, false);
}

bool future_excludes(uint16_t one, uint16_t other)
{
	const uint32_t *a = locks[one].held, *b = locks[other].held;

	for (unsigned i = 0; i < MOST_HELD && a[i]; i++)
		for (unsigned j = 0; j < MOST_HELD && b[j]; j++)
			if (a[i] / 2 == b[j] / 2 && !(a[i] & b[j] & 1))
				return true;
	return false;
}

static void *reserve(size_t nbytes)
{
	void *area = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return area == MAP_FAILED ? NULL : area;
}

#define MOST_SETS (UINT32_C(1) << 26)

static void store_fixed(void)
{
	static const struct future nothing, anything = {.words = {ANYTHING}};

	future_store(&nothing);
	future_store(&anything);
}

int future_open(void)
{
	stored.pool = reserve(POOL_BYTES);
	stored.sets = reserve(MOST_SETS * sizeof(*stored.sets));
	stored.slots = reserve(FEWEST_SETS * sizeof(*stored.slots));
	if (!stored.pool || !stored.sets || !stored.slots)
		return -ENOMEM;
	stored.nslots = FEWEST_SETS;
	store_fixed();
	return 0;
}

void future_forget(void)
{
	madvise(stored.pool, stored.used * sizeof(*stored.pool), MADV_DONTNEED);
	memset(stored.slots, 0, stored.nslots * sizeof(*stored.slots));
	stored.used = 0;
	stored.nsets = 0;
	store_fixed();
}

static unsigned words_in_use(void)
{
	return naccesses / 64 + 1;
}

void future_clear(struct future *future)
{
	memset(future->words, 0, words_in_use() * sizeof(*future->words));
}

static enum touch touch_of(const struct op *op)
{
	switch (op->kind) {
	case OP_LOAD:
		return op->waits ? TOUCH_WAIT_LOAD : TOUCH_LOAD;
	case OP_ADD:
		return TOUCH_ADD;
	case OP_PUSH:
		return TOUCH_PUSH;
	case OP_EXPEDITE:
		return TOUCH_EXPEDITE;
	case OP_STORE:
	case OP_UPDATE:
	case OP_LOCAL:
		break;
	}
	return op->waits ? TOUCH_WAIT_CHANGE : TOUCH_CHANGE;
}

/* The number of an access. Words that come into use late are zero: nobody has stored there. Without room: "anything".
 */
static uint16_t number_of(unsigned proc, const struct op *op)
{
	uint16_t *head = &heads[op->object][proc], i;
	enum touch touch = touch_of(op);

	for (i = *head; i; i = accesses[i].next)
		if (accesses[i].touch == touch && accesses[i].locks == op->locks)
			return i;
	if (naccesses == FUTURE_WORDS * 64)
		return 0;
	accesses[naccesses] = (struct access){touch, op->locks, *head, 0};
	return *head = (uint16_t)naccesses++;
}

void future_add(struct future *future, unsigned proc, const struct op *op)
{
	uint16_t number;

	if (op->kind == OP_LOCAL)
		return;
	number = number_of(proc, op);
	future->words[number / 64] |= UINT64_C(1) << number % 64;
}

void future_join(struct future *future, const struct future *other)
{
	for (unsigned i = 0; i < words_in_use(); i++)
		future->words[i] |= other->words[i];
}

void future_join_stored(struct future *future, uint32_t number)
{
	const uint64_t *set;

	if (number == FUTURE_OPEN) {
		future->words[0] |= ANYTHING;
		return;
	}
	set = stored.pool + stored.sets[number];
	for (uint64_t i = 0; i < set[0]; i++)
		future->words[i] |= set[i + 1];
}

static bool touches_depend(enum touch a, enum touch b)
{
	static const enum op_kind kinds[TOUCHES] = {OP_LOAD, OP_ADD, OP_STORE, OP_LOAD, OP_STORE, OP_PUSH, OP_EXPEDITE};

	return search_kinds_depend(kinds[a], kinds[b]);
}

bool future_races(const struct future *future, unsigned proc, const struct op *op, bool barred)
{
	if (op->kind == OP_LOCAL)
		return false;
	if (future->words[0] & ANYTHING)
		return true;
	for (uint16_t i = heads[op->object][proc]; i; i = accesses[i].next) {
		const struct access *access = &accesses[i];
		bool waits = access->touch == TOUCH_WAIT_LOAD || access->touch == TOUCH_WAIT_CHANGE;

		if (future->words[i / 64] >> i % 64 & 1 && !(waits && barred) &&
		    touches_depend(touch_of(op), access->touch) && !future_excludes(op->locks, access->locks))
			return true;
	}
	return false;
}

void future_seen(unsigned proc, const struct op *op, uint64_t position)
{
	struct access *access;

	if (op->kind == OP_LOCAL)
		return;
	access = &accesses[number_of(proc, op)];
	if (access->last < position)
		access->last = position;
}

bool future_expects(unsigned proc, uint64_t position, const struct op *op)
{
	if (op->kind == OP_LOCAL)
		return false;
	for (uint16_t i = heads[op->object][proc]; i; i = accesses[i].next)
		if (accesses[i].last >= position && touches_depend(touch_of(op), accesses[i].touch) &&
		    !future_excludes(op->locks, accesses[i].locks))
			return true;
	return false;
}

/* ---- storing ---- */

static uint64_t hash_of(const uint64_t *words, uint64_t n)
{
	uint64_t hash = n;

	for (uint64_t i = 0; i < n; i++) {
		hash = (hash ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
		hash ^= hash >> 29;
	}
	return hash;
}

static uint32_t *find(const uint64_t *words, uint64_t n)
{
	uint64_t at = hash_of(words, n);

	for (;; at++) {
		uint32_t *slot = &stored.slots[at & (stored.nslots - 1)];
		const uint64_t *set = stored.pool + stored.sets[*slot ? *slot - 1 : 0];

		if (!*slot || (set[0] == n && !memcmp(set + 1, words, n * sizeof(*words))))
			return slot;
	}
}

static bool grow(void)
{
	uint32_t nslots = 2 * stored.nslots, *slots = reserve(nslots * sizeof(*slots));

	if (!slots)
		return false;
	munmap(stored.slots, stored.nslots * sizeof(*stored.slots));
	stored.slots = slots;
	stored.nslots = nslots;
	for (uint32_t i = 0; i < stored.nsets; i++) {
		const uint64_t *set = stored.pool + stored.sets[i];

		*find(set + 1, set[0]) = i + 1;
	}
	return true;
}

uint32_t future_store(const struct future *future)
{
	uint64_t n = words_in_use();
	uint32_t *slot;

	while (n && !future->words[n - 1])
		n--;
	slot = find(future->words, n);
	if (*slot)
		return *slot - 1;
	/* Without room: anything, which is never wrong. */
	if (stored.nsets == MOST_SETS || stored.used + n + 1 > POOL_BYTES / sizeof(*stored.pool) ||
	    (stored.nsets >= stored.nslots / 2 && !grow()))
		return FUTURE_ANYTHING;
	slot = find(future->words, n);
	stored.sets[stored.nsets] = stored.used;
	stored.pool[stored.used] = n;
	memcpy(stored.pool + stored.used + 1, future->words, n * sizeof(*future->words));
	stored.used += n + 1;
	*slot = ++stored.nsets;
	return *slot - 1;
}
