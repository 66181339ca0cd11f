/* SPDX-License-Identifier: MIT */
/*
 * What a program's loads and stores do when the inline fast path of ucow/access.h has no translation: walk, fill the
 * soft TLB, and fault, under mmap_lock, where the walk does not permit the access.
 */
#include "fault/fault.h"

#include "base/mutate.h"

#include <errno.h>
#include <string.h>

#define GUESS_TRUST_MAX 3 /* wrong guesses that end a series of right ones */

static bool span_is_open(const struct ucow_cpu *cpu)
{
	UCOW_BUG_ON(cpu->span_open);
	return cpu->span_open;
}

/* Note the access in the entry, as the processor would. Returns: false if the entry has changed. */
static bool note_access(struct table *leaf, uint64_t va, struct pte *pte, bool write)
{
	struct pte noted = pte_mkyoung(write ? pte_mkdirty(*pte) : *pte);
	bool same;

	if (pte_is_same(noted, *pte))
		return true;
	table_lock(leaf);
	same = pte_is_same(leaf_get(leaf, va), *pte);
	if (same)
		leaf_set(leaf, va, noted);
	table_unlock(leaf);
	*pte = noted;
	return same;
}

static inline const struct ucow_tlb_entry *cache(struct ucow_cpu *cpu, uint64_t page_va, bool may_store,
						 uint64_t generation, const void *host)
{
	uint64_t index = (page_va >> UCOW_PAGE_SHIFT) & cpu->fast.tlb_mask;
	struct ucow_tlb_entry *entry = &cpu->tlb[index];

	cpu_note_fill(cpu, index);
	entry->read_tag = page_va;
	entry->write_tag = may_store ? page_va : ~(uint64_t)0;
	entry->generation = generation;
	entry->addend = (uintptr_t)host - (uintptr_t)page_va;
	return entry;
}

/*
 * Fill the TLB from the entry if that and the path permit the access. @generation was read before the walk [rule 8]; a
 * translation for writing exists only for dirty entries [rule 10] on private paths. Returns: the translation, or NULL:
 * fault first.
 */
static const struct ucow_tlb_entry *fill(struct ucow_cpu *cpu, const struct walk *walk, uint64_t page_va, bool write,
					 uint64_t generation)
{
	struct pte pte = walk->leaf ? leaf_get(walk->leaf, page_va) : pte_none();
	bool is_private = walk->is_private || MUTATED(KEEP_WRITE_ON_SHARED_PATH);
	bool writable = pte_is_writable(pte) && is_private && !cpu->mm->read_only;

	if (!pte_is_present(pte) || pte_is_protnone(pte) || (write && !writable))
		return NULL;
	if (!note_access(walk->leaf, page_va, &pte, write))
		return NULL;
	return cache(cpu, page_va, writable && pte_is_dirty(pte), generation, pte_host(&cpu->machine->frames, pte));
}

/* Whether the last walk went here: it holds for all that its leaf covers while the tables keep their shape. */
static inline bool walk_is_near(const struct ucow_cpu *cpu, uint64_t va)
{
	return cpu->walk.leaf && table_same_leaf(cpu->walk_va, va) &&
	       cpu->walk_shape == atomic_load_explicit(&cpu->mm->pt.shape, memory_order_acquire);
}

static const struct walk *walk_to(struct ucow_cpu *cpu, uint64_t va)
{
	struct page_table *pt = &cpu->mm->pt;

	if (likely(walk_is_near(cpu, va)))
		return &cpu->walk;
	cpu->walk_shape = atomic_load_explicit(&pt->shape, memory_order_acquire);
	cpu->walk = table_walk_path(pt, va);
	cpu->walk_va = va;
	return &cpu->walk;
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
 * A miss that needs no fault takes no lock: the tables of a space are changed and freed by calls on this space alone,
 * and one thread at a time uses it; what other spaces do to a leaf that both share leaves its entries readable.
 */
static const struct ucow_tlb_entry *refill(struct ucow_cpu *cpu, uint64_t va, bool write)
{
	uint64_t generation = generation_read(&cpu->mm->pt.generations, va);
	const struct ucow_tlb_entry *entry;

	guess(cpu, va);
	entry = fill(cpu, walk_to(cpu, va), va & UCOW_PAGE_MASK, write, generation);
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

	if (!cpu->mm || span_is_open(cpu) || !walk_is_near(cpu, va))
		return NULL;
	generation = generation_read(&cpu->mm->pt.generations, va);
	pte = leaf_get(cpu->walk.leaf, va);
	if (!pte_is_noted(pte, write) || (write && (!cpu->walk.is_private || cpu->mm->read_only)))
		return NULL;
	return cache(cpu, va & UCOW_PAGE_MASK, write, generation, pte_host(&cpu->machine->frames, pte));
}

/* Fault until the access is possible. Requires: mmap_lock, shared. Returns: NULL and *result if it is not. */
static const struct ucow_tlb_entry *translate_fault(struct ucow_cpu *cpu, uint64_t va, bool write,
						    enum fault_result *result)
{
	const struct frame_pool *frames = &cpu->machine->frames;
	const struct ucow_tlb_entry *entry;
	struct ucow_mm *mm = cpu->mm;

	do {
		uint64_t generation = generation_read(&mm->pt.generations, va), page_va = va & UCOW_PAGE_MASK;
		const struct walk *walk = walk_to(cpu, va);

		*result = fault_access(mm, va, write, walk);
		if (!walk->is_private)
			cpu->walk.leaf = NULL; /* the path may be private by now */
		if (*result == FAULT_ZERO_PAGE)
			return cache(cpu, page_va, false, generation, page_bytes(frames->zero_page));
		if (*result != FAULT_DONE)
			return NULL;
		entry = refill(cpu, va, write);
	} while (!entry);
	return entry;
}

/* As translate_fault, and again for as long as the space's snapshots make room. Requires: no lock. */
static const struct ucow_tlb_entry *translate_miss(struct ucow_cpu *cpu, uint64_t va, bool write,
						   enum fault_result *result)
{
	const struct ucow_tlb_entry *entry;

	do {
		rwlock_read_lock(&cpu->mm->mmap_lock);
		entry = translate_fault(cpu, va, write, result);
		rwlock_read_unlock(&cpu->mm->mmap_lock);
	} while (!entry && unlikely(*result == FAULT_OVER_LIMIT) && !group_make_room(cpu->mm->group, 1));
	return entry;
}

/* The host address of @va for an access inside one page, faulting as needed. Returns: 0; as ucow/access.h. */
static int translate(struct ucow_cpu *cpu, uint64_t va, bool write, char **host)
{
	const struct ucow_tlb_entry *entry = ucow_tlb_lookup(cpu, va, 1, write);
	enum fault_result result = FAULT_SIGSEGV;

	if (!cpu->mm || span_is_open(cpu))
		return -EINVAL;
	if (!entry && va < UCOW_ADDRESS_LIMIT)
		entry = refill(cpu, va, write);
	if (!entry && va < UCOW_ADDRESS_LIMIT)
		entry = translate_miss(cpu, va, write, &result);
	if (!entry)
		return fault_errno(result);
	*host = (char *)(entry->addend + va);
	return 0;
}

static size_t bytes_left_in_page(uint64_t va, size_t nbytes)
{
	return (size_t)min_u64(nbytes, UCOW_PAGE_SIZE - (va & ~UCOW_PAGE_MASK));
}

int ucow_read(struct ucow_cpu *cpu, uint64_t va, void *buffer, size_t nbytes, size_t *done)
{
	size_t at = 0;
	int error = 0;

	while (at < nbytes) {
		size_t step = bytes_left_in_page(va + at, nbytes - at);
		char *host;

		error = translate(cpu, va + at, false, &host);
		if (error)
			break;
		memcpy((char *)buffer + at, host, step);
		at += step;
	}
	if (done)
		*done = at;
	return error;
}

int ucow_write(struct ucow_cpu *cpu, uint64_t va, const void *buffer, size_t nbytes, size_t *done)
{
	size_t at = 0;
	int error = 0;

	while (at < nbytes) {
		size_t step = bytes_left_in_page(va + at, nbytes - at);
		char *host;

		error = translate(cpu, va + at, true, &host);
		if (error)
			break;
		memcpy(host, (const char *)buffer + at, step);
		at += step;
	}
	if (done)
		*done = at;
	return error;
}

static inline void load_aligned(void *value, const char *host, size_t nbytes)
{
	switch (nbytes) {
	case 8:
		*(uint64_t *)value = __atomic_load_n((const uint64_t *)(const void *)host, __ATOMIC_RELAXED);
		break;
	case 4:
		*(uint32_t *)value = __atomic_load_n((const uint32_t *)(const void *)host, __ATOMIC_RELAXED);
		break;
	case 2:
		*(uint16_t *)value = __atomic_load_n((const uint16_t *)(const void *)host, __ATOMIC_RELAXED);
		break;
	default:
		*(uint8_t *)value = __atomic_load_n((const uint8_t *)host, __ATOMIC_RELAXED);
		break;
	}
}

static inline void store_aligned(char *host, const void *value, size_t nbytes)
{
	switch (nbytes) {
	case 8:
		__atomic_store_n((uint64_t *)(void *)host, *(const uint64_t *)value, __ATOMIC_RELAXED);
		break;
	case 4:
		__atomic_store_n((uint32_t *)(void *)host, *(const uint32_t *)value, __ATOMIC_RELAXED);
		break;
	case 2:
		__atomic_store_n((uint16_t *)(void *)host, *(const uint16_t *)value, __ATOMIC_RELAXED);
		break;
	default:
		__atomic_store_n((uint8_t *)host, *(const uint8_t *)value, __ATOMIC_RELAXED);
		break;
	}
}

static inline void access_aligned(char *host, void *value, size_t nbytes, bool write)
{
	if (write)
		store_aligned(host, value, nbytes);
	else
		load_aligned(value, host, nbytes);
}

static __attribute__((noinline)) int access_far(struct ucow_cpu *cpu, uint64_t va, void *value, size_t nbytes,
						bool write)
{
	char *host;
	int error;

	if (va & (nbytes - 1))
		return write ? ucow_write(cpu, va, value, nbytes, NULL) : ucow_read(cpu, va, value, nbytes, NULL);
	error = translate(cpu, va, write, &host);
	if (!error)
		access_aligned(host, value, nbytes, write);
	return error;
}

int ucow_access_slow(struct ucow_cpu *cpu, uint64_t va, void *value, size_t nbytes, bool write)
{
	const struct ucow_tlb_entry *entry = va & (nbytes - 1) ? NULL : refill_near(cpu, va, write);

	if (unlikely(!entry))
		return access_far(cpu, va, value, nbytes, write);
	access_aligned((char *)(entry->addend + va), value, nbytes, write);
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

	if (va & (nbytes - 1))
		return -EINVAL;
	error = translate(cpu, va, true, &host);
	if (error)
		return error;
	if (nbytes == 8)
		*exchanged = COMPARE_EXCHANGE(uint64_t);
	else if (nbytes == 4)
		*exchanged = COMPARE_EXCHANGE(uint32_t);
	else if (nbytes == 2)
		*exchanged = COMPARE_EXCHANGE(uint16_t);
	else
		*exchanged = COMPARE_EXCHANGE(uint8_t);
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
}
