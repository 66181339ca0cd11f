/* SPDX-License-Identifier: MIT */
/*
 * What a program's loads and stores do when the inline fast path of ucow/access.h has no translation: walk, fill the
 * soft TLB, and fault, under mmap_lock, where the walk does not permit the access.
 *
 * An access is a section of its cpu: from before the generation is read until the bytes are loaded or stored. It takes
 * no sleeping lock; a fault leaves it first and begins anew afterwards [rule 15].
 */
#include "fault/fault.h"

#include "base/mutate.h"
#include "cache/flush.h"

#include <errno.h>
#include <string.h>

#define GUESS_TRUST_MAX 3 /* wrong guesses that end a series of right ones */

static bool span_is_open(const struct ucow_cpu *cpu)
{
	UCOW_BUG_ON(cpu->span_open);
	return cpu->span_open;
}

/* ---- sections ---- */

static inline void access_begin(struct ucow_cpu *cpu)
{
	word_enter(cpu_active(cpu), 1);
}

static inline void access_end(struct ucow_cpu *cpu)
{
	word_leave(cpu_active(cpu), 0);
}

#if exploring
void ucow_access_begin(struct ucow_cpu *cpu)
{
	access_begin(cpu);
}

void ucow_access_end(struct ucow_cpu *cpu)
{
	access_end(cpu);
}

uint64_t ucow_generation(const uint64_t *generation)
{
	hook_step(HOOK_LOAD, generation);
	return *generation;
}
#endif

/* ---- filling the TLB ---- */

/*
 * Note the access in the entry, as the processor would. Under the leaf's lock the shape tells whether the leaf is still
 * ours to change. Returns: false if that or the entry has changed.
 */
static bool note_access(const struct page_table *pt, uint64_t shape, struct table *leaf, uint64_t va, struct pte *pte,
			bool write)
{
	struct pte noted = pte_mkyoung(write ? pte_mkdirty(*pte) : *pte);
	bool same;

	if (pte_is_same(noted, *pte))
		return true;
	table_lock(leaf);
	same = pte_is_same(leaf_get(leaf, va), *pte) && shape_read(pt) == shape;
	if (same)
		leaf_set(leaf, va, noted);
	table_unlock(leaf);
	*pte = noted;
	return same;
}

static inline const struct ucow_tlb_entry *cache(struct ucow_cpu *cpu, uint64_t page_va, bool may_store,
						 uint64_t generation, const void *host)
{
	uint64_t index = (page_va >> UCOW_PAGE_SHIFT) & (TLB_DEFAULT_ENTRIES - 1);
	struct ucow_tlb_entry *entry = &cpu->tlb[index];

	cpu_note_fill(cpu, index);
	entry->read_tag = page_va;
	entry->write_tag = may_store ? page_va : ~(uint64_t)0;
	entry->generation = generation;
	entry->addend = (uintptr_t)host - (uintptr_t)page_va;
	return entry;
}

/* The shape is still the one that was read before the walk: what it found, the path's privacy included, holds [rule 8].
 */
static inline bool shape_holds(const struct page_table *pt, uint64_t shape)
{
	return likely(shape_read(pt) == shape) || MUTATED(SKIP_RECHECK);
}

/* What fill says beside a translation. */
enum fill { FILL_DONE, FILL_FAULT, FILL_AGAIN };

/*
 * Fill the TLB from the entry if that and the path permit the access. @generation was read before the walk [rule 8]; a
 * translation for writing exists only for dirty entries [rule 10] on private paths. Returns: FILL_FAULT: not permitted;
 * FILL_AGAIN: the tables have changed meanwhile.
 */
static enum fill fill(struct ucow_cpu *cpu, uint64_t page_va, bool write, uint64_t generation,
		      const struct ucow_tlb_entry **entry)
{
	const struct page_table *pt = &cpu->mm->pt;
	const struct walk *walk = &cpu->walk;
	uint64_t shape = cpu->walk_shape;
	struct pte pte = walk->leaf ? leaf_peek(walk->leaf, page_va) : pte_none();
	bool is_private = walk->is_private || MUTATED(KEEP_WRITE_ON_SHARED_PATH);
	bool writable = pte_is_writable(pte) && is_private && !cpu->mm->read_only;

	if (!pte_is_present(pte) || pte_is_protnone(pte) || (write && !writable))
		return shape_holds(pt, shape) ? FILL_FAULT : FILL_AGAIN;
	if (!note_access(pt, shape, walk->leaf, page_va, &pte, write) || !shape_holds(pt, shape))
		return FILL_AGAIN;
	*entry = cache(cpu, page_va, writable && pte_is_dirty(pte), generation, pte_host(&cpu->machine->frames, pte));
	return FILL_DONE;
}

/* Whether the last walk went here: it holds for all that its leaf covers while the tables keep their shape. */
static inline bool walk_is_near(const struct ucow_cpu *cpu, uint64_t va)
{
	return cpu->walk.leaf && table_same_leaf(cpu->walk_va, va) && cpu->walk_shape == shape_read(&cpu->mm->pt);
}

static void walk_to(struct ucow_cpu *cpu, uint64_t va)
{
	struct page_table *pt = &cpu->mm->pt;

	if (likely(walk_is_near(cpu, va)))
		return;
	cpu->walk_shape = shape_read(pt);
	cpu->walk = table_walk_path(pt, va);
	cpu->walk_va = va;
}

/*
 * Memory that was filled in order lies in order, and then one distance leads from all its addresses to its bytes: fetch
 * what that of an earlier walk gives while this walk waits for its tables. A wrong guess costs a line of the cache, and
 * several wrong ones end the guessing.
 */
static inline void guess(const struct ucow_cpu *cpu, uint64_t va)
{
	if (cpu->guess_trust)
		__builtin_prefetch((const void *)(cpu->guess + va));
}

static inline void judge_guess(struct ucow_cpu *cpu, uintptr_t addend)
{
	if (likely(addend == cpu->guess)) {
		if (cpu->guess_trust < GUESS_TRUST_MAX)
			cpu->guess_trust++;
	} else if (cpu->guess_trust) {
		cpu->guess_trust--;
	} else {
		cpu->guess = addend;
	}
}

/*
 * While a fork is going on nothing is cached: the way through the fault waits for it, so that the child is a consistent
 * cut [rule 14]. Read after the generation: who reads the one that fork bumped finds the sequence odd, or the fork
 * over.
 */
static inline bool fork_is_going_on(const struct ucow_mm *mm)
{
	return unlikely(atomic_load_explicit(&mm->write_protect_seq, memory_order_acquire) & 1);
}

/* A miss that needs no fault takes no lock but, to note an access, the leaf's. Inside an access. NULL: fault. */
static const struct ucow_tlb_entry *refill(struct ucow_cpu *cpu, uint64_t va, bool write)
{
	const struct ucow_tlb_entry *entry = NULL;
	enum fill result;

	guess(cpu, va);
	do {
		uint64_t generation = generation_read(&cpu->mm->pt.generations, va);

		if (fork_is_going_on(cpu->mm))
			return NULL;
		walk_to(cpu, va);
		result = fill(cpu, va & UCOW_PAGE_MASK, write, generation, &entry);
	} while (unlikely(result == FILL_AGAIN));
	if (entry)
		judge_guess(cpu, entry->addend);
	return entry;
}

/*
 * refill without a walk and without a change: the next page after the last. The one miss that is common enough to keep
 * calls, and what they store, out of its way. What a load fills in is for loads alone. Returns: NULL: go the long way.
 */
static inline const struct ucow_tlb_entry *refill_near(struct ucow_cpu *cpu, uint64_t va, bool write)
{
	uint64_t generation;
	struct pte pte;

	if (!cpu->mm || span_is_open(cpu))
		return NULL;
	generation = generation_read(&cpu->mm->pt.generations, va);
	if (!walk_is_near(cpu, va) || fork_is_going_on(cpu->mm))
		return NULL;
	pte = leaf_peek(cpu->walk.leaf, va);
	if (!pte_is_noted(pte, write) || (write && (!cpu->walk.is_private || cpu->mm->read_only)))
		return NULL;
	if (!shape_holds(&cpu->mm->pt, cpu->walk_shape))
		return NULL;
	return cache(cpu, va & UCOW_PAGE_MASK, write, generation, pte_host(&cpu->machine->frames, pte));
}

/* ---- faults ---- */

/* One fault, outside of any access. *generation: read before it was decided that the access reads zeros. */
static enum fault_result fault_once(struct ucow_cpu *cpu, uint64_t va, bool write, uint64_t *generation,
				    struct uffd_wait *wait)
{
	const struct walk_hint hint = {.walk = cpu->walk, .shape = cpu->walk_shape};
	bool is_near = cpu->walk.leaf && table_same_leaf(cpu->walk_va, va);
	struct ucow_mm *mm = cpu->mm;
	enum fault_result result;

	rwlock_read_lock(&mm->mmap_lock);
	*generation = generation_read(&mm->pt.generations, va);
	result = fault_access(mm, va, write, is_near ? &hint : NULL, wait);
	rwlock_read_unlock(&mm->mmap_lock);
	if (!cpu->walk.is_private)
		cpu->walk.leaf = NULL; /* the path may be private by now */
	return result;
}

/* A userfaultfd has to resolve it. Returns: FAULT_DONE: it may have, look again; FAULT_USERFAULT: fault again;
 * FAULT_SIGBUS. */
static enum fault_result wait_for_user(struct uffd_wait *wait)
{
	if (uffd_wait(wait))
		return FAULT_SIGBUS;
	return wait->asked ? FAULT_USERFAULT : FAULT_DONE;
}

/* As fault_once, and again for as long as the space's snapshots make room, or memory that was put off comes free. */
static enum fault_result fault(struct ucow_cpu *cpu, uint64_t va, bool write, uint64_t *generation)
{
	enum fault_result result;
	struct uffd_wait wait;
	unsigned tries = 0;

	uffd_wait_init(&wait);
	do {
		result = fault_once(cpu, va, write, generation, &wait);
		epoch_settle(&cpu->machine->epoch);
		if (write)
			flush_throttle(cpu->machine);
		if (unlikely(result == FAULT_USERFAULT))
			result = wait_for_user(&wait);
	} while (unlikely(result == FAULT_USERFAULT) ||
		 (unlikely(result == FAULT_OVER_LIMIT) && !group_make_room(cpu->mm->group, 1)) ||
		 (unlikely(result == FAULT_OOM) && space_relieve(cpu->mm, &tries)));
	return result;
}

/* Inside an access. Nothing is mapped there that a table knows of, and nothing has come since @generation was read. */
static const struct ucow_tlb_entry *cache_zeros(struct ucow_cpu *cpu, uint64_t va, uint64_t generation)
{
	if (generation_read(&cpu->mm->pt.generations, va) != generation || fork_is_going_on(cpu->mm))
		return NULL;
	return cache(cpu, va & UCOW_PAGE_MASK, false, generation, page_bytes(cpu->machine->frames.zero_page));
}

static const struct ucow_tlb_entry *lookup(const struct ucow_cpu *cpu, uint64_t va, bool write)
{
	const struct ucow_tlb_entry *entry = &cpu->tlb[(va >> UCOW_PAGE_SHIFT) & (TLB_DEFAULT_ENTRIES - 1)];

	if ((va & UCOW_PAGE_MASK) != (write ? entry->write_tag : entry->read_tag) ||
	    entry->generation != generation_read(&cpu->mm->pt.generations, va))
		return NULL;
	return entry;
}

/*
 * The host address of @va for an access inside one page, faulting as needed. Returns: 0, and then the access has begun
 * and the caller ends it; as ucow/access.h.
 */
static int translate(struct ucow_cpu *cpu, uint64_t va, bool write, char **host)
{
	enum fault_result result = FAULT_SIGSEGV;
	const struct ucow_tlb_entry *entry;
	uint64_t generation = 0;

	if (!cpu->mm || span_is_open(cpu))
		return -EINVAL;
	if (va >= UCOW_ADDRESS_LIMIT)
		return fault_errno(FAULT_SIGSEGV);
	for (;;) {
		access_begin(cpu);
		entry = lookup(cpu, va, write);
		if (!entry)
			entry = refill(cpu, va, write);
		if (!entry && result == FAULT_ZERO_PAGE)
			entry = cache_zeros(cpu, va, generation);
		if (entry)
			break;
		access_end(cpu);
		result = fault(cpu, va, write, &generation);
		if (result != FAULT_DONE && result != FAULT_ZERO_PAGE)
			return fault_errno(result);
	}
	*host = (char *)(entry->addend + va);
	return 0;
}

/* ---- bytes ---- */

/*
 * A program's memory is shared with its other threads, so it is loaded and stored in single accesses, as wide as the
 * addresses permit: long ones are a sequence of these.
 */
#if exploring
static uint64_t load_word(const char *host, size_t nbytes)
{
	return hook_load(host, nbytes);
}

static void store_word(char *host, uint64_t word, size_t nbytes)
{
	hook_store(host, word, nbytes);
}
#else
static inline uint64_t load_word(const char *host, size_t nbytes)
{
	switch (nbytes) {
	case 8:
		return __atomic_load_n((const uint64_t *)(const void *)host, __ATOMIC_RELAXED);
	case 4:
		return __atomic_load_n((const uint32_t *)(const void *)host, __ATOMIC_RELAXED);
	case 2:
		return __atomic_load_n((const uint16_t *)(const void *)host, __ATOMIC_RELAXED);
	default:
		return __atomic_load_n((const uint8_t *)host, __ATOMIC_RELAXED);
	}
}

static inline void store_word(char *host, uint64_t word, size_t nbytes)
{
	switch (nbytes) {
	case 8:
		__atomic_store_n((uint64_t *)(void *)host, word, __ATOMIC_RELAXED);
		break;
	case 4:
		__atomic_store_n((uint32_t *)(void *)host, (uint32_t)word, __ATOMIC_RELAXED);
		break;
	case 2:
		__atomic_store_n((uint16_t *)(void *)host, (uint16_t)word, __ATOMIC_RELAXED);
		break;
	default:
		__atomic_store_n((uint8_t *)host, (uint8_t)word, __ATOMIC_RELAXED);
		break;
	}
}
#endif

/* The widest access that @host's alignment and @nbytes permit. */
static inline size_t word_bytes(const char *host, size_t nbytes)
{
	size_t width = 8;

	while (width > nbytes || ((uintptr_t)host & (width - 1)))
		width >>= 1;
	return width;
}

#define ACCESS_AS(type)                                             \
	do {                                                        \
		type word;                                          \
		if (write) {                                        \
			memcpy(&word, value, sizeof(word));         \
			store_word(host, word, sizeof(word));       \
		} else {                                            \
			word = (type)load_word(host, sizeof(word)); \
			memcpy(value, &word, sizeof(word));         \
		}                                                   \
	} while (0)

/* One access, of 1, 2, 4 or 8 bytes; @host is aligned to that, @value need not be. */
static inline void access_word(char *host, void *value, size_t nbytes, bool write)
{
	if (nbytes == 8)
		ACCESS_AS(uint64_t);
	else if (nbytes == 4)
		ACCESS_AS(uint32_t);
	else if (nbytes == 2)
		ACCESS_AS(uint16_t);
	else
		ACCESS_AS(uint8_t);
}

static void access_bytes(char *host, char *value, size_t nbytes, bool write)
{
	while (nbytes) {
		size_t width = word_bytes(host, nbytes);

		for (; nbytes >= width && (width == 8 || word_bytes(host, nbytes) == width); nbytes -= width) {
			access_word(host, value, width, write);
			host += width;
			value += width;
		}
	}
}

static size_t bytes_left_in_page(uint64_t va, size_t nbytes)
{
	return (size_t)min_u64(nbytes, UCOW_PAGE_SIZE - (va & ~UCOW_PAGE_MASK));
}

static int access_range(struct ucow_cpu *cpu, uint64_t va, char *value, size_t nbytes, bool write, size_t *done)
{
	size_t at = 0;
	int error = 0;

	while (at < nbytes) {
		size_t step = bytes_left_in_page(va + at, nbytes - at);
		char *host;

		error = translate(cpu, va + at, write, &host);
		if (error)
			break;
		access_bytes(host, value + at, step, write);
		access_end(cpu);
		at += step;
	}
	if (done)
		*done = at;
	return error;
}

int ucow_read(struct ucow_cpu *cpu, uint64_t va, void *buffer, size_t nbytes, size_t *done)
{
	return access_range(cpu, va, buffer, nbytes, false, done);
}

int ucow_write(struct ucow_cpu *cpu, uint64_t va, const void *buffer, size_t nbytes, size_t *done)
{
	return access_range(cpu, va, (char *)(uintptr_t)buffer, nbytes, true, done); /* a store only reads it */
}

/* ---- the slow side of the inline functions, which have begun an access ---- */

/* An open span is the caller's mistake; its section is left alone. */
static void access_abandon(struct ucow_cpu *cpu)
{
	if (!cpu->span_open)
		access_end(cpu);
}

static __attribute__((noinline)) int access_far(struct ucow_cpu *cpu, uint64_t va, void *value, size_t nbytes,
						bool write)
{
	char *host;
	int error;

	access_abandon(cpu);
	if (va & (nbytes - 1))
		return access_range(cpu, va, value, nbytes, write, NULL);
	error = translate(cpu, va, write, &host);
	if (error)
		return error;
	access_word(host, value, nbytes, write);
	access_end(cpu);
	return 0;
}

int ucow_access_slow(struct ucow_cpu *cpu, uint64_t va, void *value, size_t nbytes, bool write)
{
	const struct ucow_tlb_entry *entry;

	access_begin(cpu); /* again: this time with a fence, should the host want one */
	entry = va & (nbytes - 1) ? NULL : refill_near(cpu, va, write);
	if (unlikely(!entry))
		return access_far(cpu, va, value, nbytes, write);
	access_word((char *)(entry->addend + va), value, nbytes, write);
	access_end(cpu);
	return 0;
}

#define COMPARE_EXCHANGE(type)                                                                                      \
	__atomic_compare_exchange_n((type *)(void *)host, (type *)expected, (type)desired, false, __ATOMIC_SEQ_CST, \
				    __ATOMIC_SEQ_CST)

int ucow_cmpxchg_slow(struct ucow_cpu *cpu, uint64_t va, void *expected, uint64_t desired, size_t nbytes,
		      bool *exchanged)
{
	char *host;
	int error;

	access_abandon(cpu);
	if (va & (nbytes - 1))
		return -EINVAL;
	error = translate(cpu, va, true, &host);
	if (error)
		return error;
	hook_step(HOOK_UPDATE, host);
	if (nbytes == 8)
		*exchanged = COMPARE_EXCHANGE(uint64_t);
	else if (nbytes == 4)
		*exchanged = COMPARE_EXCHANGE(uint32_t);
	else if (nbytes == 2)
		*exchanged = COMPARE_EXCHANGE(uint16_t);
	else
		*exchanged = COMPARE_EXCHANGE(uint8_t);
	access_end(cpu);
	return 0;
}

int ucow_span_begin(struct ucow_cpu *cpu, uint64_t va, size_t nbytes, bool write, void **span)
{
	char *host;
	int error;

	if (nbytes > bytes_left_in_page(va, nbytes) || cpu->span_open)
		return -EINVAL;
	error = translate(cpu, va, write, &host);
	if (error)
		return error;
	cpu->span_open = true;
	*span = host;
	return 0;
}

void ucow_span_end(struct ucow_cpu *cpu)
{
	UCOW_BUG_ON(!cpu->span_open);
	cpu->span_open = false;
	access_end(cpu);
}
