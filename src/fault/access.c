/* SPDX-License-Identifier: MIT */
/*
 * What a program's loads and stores do when the inline fast path of ucow/access.h has no translation: walk, fault, fill
 * the soft TLB. The walk runs under mmap_lock for now; it already follows rule 8, so that it can do without.
 */
#include "fault/fault.h"

#include <errno.h>
#include <string.h>

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

/*
 * Fill the TLB from the entry if that permits the access. @generation was read before the walk [rule 8]; a translation
 * for writing exists only for dirty entries [rule 10]. Returns: the translation, or NULL: fault first.
 */
static const struct ucow_tlb_entry *fill(struct ucow_cpu *cpu, struct table *leaf, uint64_t page_va, bool write,
					 uint64_t generation)
{
	uint64_t index = (page_va >> UCOW_PAGE_SHIFT) & cpu->fast.tlb_mask;
	struct ucow_tlb_entry *entry = &cpu->tlb[index];
	struct pte pte = leaf_get(leaf, page_va);
	bool may_store;

	if (!pte_is_present(pte) || pte_is_protnone(pte) || (write && !pte_is_writable(pte)))
		return NULL;
	if (!note_access(leaf, page_va, &pte, write))
		return NULL;
	may_store = pte_is_writable(pte) && pte_is_dirty(pte);
	cpu_note_fill(cpu, index);
	entry->read_tag = page_va;
	entry->write_tag = may_store ? page_va : ~(uint64_t)0;
	entry->generation = generation;
	entry->addend = (uintptr_t)pte_host(&cpu->machine->frames, pte) - (uintptr_t)page_va;
	return entry;
}

/* The leaf that covers @va, or NULL; mostly the one of the last time. Requires: mmap_lock, shared. */
static struct table *find_leaf(struct ucow_cpu *cpu, uint64_t va)
{
	struct ucow_mm *mm = cpu->mm;

	if (likely(cpu->leaf && cpu->leaf_writes == mm->mmap_lock.writes && table_same_leaf(cpu->leaf_va, va)))
		return cpu->leaf;
	return va < UCOW_ADDRESS_LIMIT ? table_find_leaf(mm->root, va) : NULL;
}

/* The host address of @va for an access inside one page, faulting as needed. Returns: 0; as ucow/access.h. */
static int translate(struct ucow_cpu *cpu, uint64_t va, bool write, char **host)
{
	const struct ucow_tlb_entry *entry = ucow_tlb_lookup(cpu, va, 1, write);
	uint64_t page_va = va & UCOW_PAGE_MASK;
	struct ucow_mm *mm = cpu->mm;
	int error = 0;

	if (!mm || span_is_open(cpu))
		return -EINVAL;
	if (!entry) {
		struct table *leaf;

		rwlock_read_lock(&mm->mmap_lock);
		leaf = find_leaf(cpu, va);
		do {
			uint64_t generation = generation_read(&mm->generations, va);

			entry = leaf ? fill(cpu, leaf, page_va, write, generation) : NULL;
			if (!entry)
				error = fault_errno(fault_access(mm, va, write, &leaf));
		} while (!entry && !error);
		cpu->leaf = leaf;
		cpu->leaf_va = va;
		cpu->leaf_writes = mm->mmap_lock.writes;
		rwlock_read_unlock(&mm->mmap_lock);
	}
	if (entry)
		*host = (char *)(entry->addend + va);
	return error;
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

static void load_aligned(void *value, const char *host, size_t nbytes)
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

static void store_aligned(char *host, const void *value, size_t nbytes)
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

int ucow_access_slow(struct ucow_cpu *cpu, uint64_t va, void *value, size_t nbytes, bool write)
{
	char *host;
	int error;

	if (va & (nbytes - 1))
		return write ? ucow_write(cpu, va, value, nbytes, NULL) : ucow_read(cpu, va, value, nbytes, NULL);
	error = translate(cpu, va, write, &host);
	if (error)
		return error;
	if (write)
		store_aligned(host, value, nbytes);
	else
		load_aligned(value, host, nbytes);
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
