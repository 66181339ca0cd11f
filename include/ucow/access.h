/* SPDX-License-Identifier: MIT */
/*
 * Loads and stores through a space: cpus, the soft TLB and its inline fast path.
 *
 * A cpu belongs to the thread that has attached it, until it is detached or attached again: hand it over by calling
 * ucow_cpu_attach in the thread that takes it. Many cpus may be attached to one space. Aligned accesses of up to 8
 * bytes and compare-exchange are single accesses of the host (linearizable); longer or unaligned ones are sequences of
 * them. Every call returns 0, or
 *
 * - -EFAULT: SIGSEGV, no mapping or not permitted
 * - -EACCES: SIGSEGV, a store into a snapshot (ucow/snapshot.h)
 * - -ENXIO: SIGBUS, nothing behind the mapping
 * - -ENOMEM: no memory for a page or a table, or none under the limit of the space's snapshots
 * - -EDEADLK: the page-lock callback gave up (ucow/machine.h)
 * - -EINVAL: the cpu is not attached to a space
 *
 * ucow_read and ucow_write report in *done how many bytes came before the failure.
 */
#ifndef UCOW_ACCESS_H
#define UCOW_ACCESS_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** ucow_cpu_create - a cpu, attached to nothing. Returns: 0; -ENOMEM. */
UCOW_API UCOW_NODISCARD int ucow_cpu_create(struct ucow_machine *machine, struct ucow_cpu **cpu);
/** ucow_cpu_destroy - detach and free. NULL is allowed. */
UCOW_API void ucow_cpu_destroy(struct ucow_cpu *cpu);
/**
 * ucow_cpu_attach - make @mm the space that @cpu accesses, and the calling thread the one that may use @cpu; NULL
 * detaches. Thread: any, while no other uses @cpu.
 */
UCOW_API void ucow_cpu_attach(struct ucow_cpu *cpu, struct ucow_mm *mm);
/** ucow_cpu_mm - the space that @cpu is attached to, or NULL. */
UCOW_API struct ucow_mm *ucow_cpu_mm(const struct ucow_cpu *cpu);

/** ucow_read - copy @nbytes at @va into @buffer. @done may be NULL. */
UCOW_API UCOW_NODISCARD int ucow_read(struct ucow_cpu *cpu, uint64_t va, void *buffer, size_t nbytes, size_t *done);
/** ucow_write - copy @nbytes from @buffer to @va. @done may be NULL. */
UCOW_API UCOW_NODISCARD int ucow_write(struct ucow_cpu *cpu, uint64_t va, const void *buffer, size_t nbytes,
				       size_t *done);

/**
 * ucow_span_begin - a host pointer to the bytes at @va, valid until ucow_span_end.
 *
 * The span must not cross a page. A read span is a view no newer than its begin. Between begin and end the thread makes
 * no other ucow call and does not block (checked builds abort).
 * Returns: 0 and *span; as above; -EINVAL (crosses a page, or a span is open).
 */
UCOW_API UCOW_NODISCARD int ucow_span_begin(struct ucow_cpu *cpu, uint64_t va, size_t nbytes, bool write, void **span);
UCOW_API void ucow_span_end(struct ucow_cpu *cpu);

/* ---- the fast path; everything below up to the loads is private to the inline functions ---- */

/* One translation: valid while `generation` equals the space's counter for the region [rule 9]. */
struct ucow_tlb_entry {
	uint64_t read_tag;   /* page address if loads are permitted, else ~0 */
	uint64_t write_tag;  /* page address if stores are permitted, else ~0 */
	uint64_t generation; /* read before the walk that made this entry [rule 8] */
	uintptr_t addend;    /* host address - page address */
};

#define UCOW_TLB_REGION_SHIFT 21
#define UCOW_TLB_REGIONS      64

/* What the inline functions see of a cpu; the first member of struct ucow_cpu. */
struct ucow_cpu_fast {
	struct ucow_tlb_entry *tlb;
	uint64_t tlb_mask;           /* entries - 1 */
	const uint64_t *generations; /* UCOW_TLB_REGIONS counters of the attached space */
	uint32_t active;             /* 1 inside an access, else 0 */
};

UCOW_API UCOW_NODISCARD int ucow_access_slow(struct ucow_cpu *cpu, uint64_t va, void *value, size_t nbytes, bool write);
UCOW_API UCOW_NODISCARD int ucow_cmpxchg_slow(struct ucow_cpu *cpu, uint64_t va, void *expected, uint64_t desired,
					      size_t nbytes, bool *exchanged);

static inline unsigned ucow_tlb_region(uint64_t va)
{
	return (unsigned)(va >> UCOW_TLB_REGION_SHIFT) & (UCOW_TLB_REGIONS - 1);
}

#if defined(__SANITIZE_THREAD__)
#define UCOW_FULL_FENCES 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UCOW_FULL_FENCES 1
#endif
#endif

#if defined(UCOW_EXPLORE) && UCOW_EXPLORE
void ucow_access_begin(struct ucow_cpu *cpu);
void ucow_access_end(struct ucow_cpu *cpu);
uint64_t ucow_generation(const uint64_t *generation);
#else
/*
 * An access begins by a plain store, without a fence: whoever takes a translation away makes every thread pass one
 * before it looks whether an access is going on [rule 13].
 */
static inline void ucow_access_begin(struct ucow_cpu *cpu)
{
	struct ucow_cpu_fast *fast = (struct ucow_cpu_fast *)(void *)cpu;

#if defined(UCOW_FULL_FENCES)
	__atomic_exchange_n(&fast->active, 1, __ATOMIC_SEQ_CST);
#else
	__atomic_store_n(&fast->active, 1, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
#endif
}

static inline void ucow_access_end(struct ucow_cpu *cpu)
{
	__atomic_store_n(&((struct ucow_cpu_fast *)(void *)cpu)->active, 0, __ATOMIC_RELEASE);
}

static inline uint64_t ucow_generation(const uint64_t *generation)
{
	return __atomic_load_n(generation, __ATOMIC_ACQUIRE);
}
#endif

/* The translation for an aligned access of @nbytes, or NULL: then the slow path decides. Inside an access. */
static inline const struct ucow_tlb_entry *ucow_tlb_lookup(const struct ucow_cpu *cpu, uint64_t va, size_t nbytes,
							   bool write)
{
	const struct ucow_cpu_fast *fast = (const struct ucow_cpu_fast *)(const void *)cpu;
	const struct ucow_tlb_entry *entry = &fast->tlb[(va >> UCOW_PAGE_SHIFT) & fast->tlb_mask];
	/* An unaligned address keeps a low bit and so never equals a page's address. */
	uint64_t tag = va & (UCOW_PAGE_MASK | (nbytes - 1));

	if (UCOW_UNLIKELY(tag != (write ? entry->write_tag : entry->read_tag)))
		return NULL;
	if (UCOW_UNLIKELY(entry->generation != ucow_generation(&fast->generations[ucow_tlb_region(va)])))
		return NULL;
	return entry;
}

#define UCOW_DEFINE_ACCESS(bits)                                                                                      \
	/** ucow_load_uN - load from @va. */                                                                          \
	UCOW_NODISCARD static inline int ucow_load_u##bits(struct ucow_cpu *cpu, uint64_t va, uint##bits##_t *value)  \
	{                                                                                                             \
		ucow_access_begin(cpu);                                                                               \
		const struct ucow_tlb_entry *e = ucow_tlb_lookup(cpu, va, sizeof(*value), false);                     \
		if (UCOW_UNLIKELY(!e)) {                                                                              \
			uint##bits##_t far = 0; /* so that *value need not have an address */                         \
			int error = ucow_access_slow(cpu, va, &far, sizeof(far), false);                              \
			if (!error)                                                                                   \
				*value = far;                                                                         \
			return error;                                                                                 \
		}                                                                                                     \
		*value = __atomic_load_n((const uint##bits##_t *)(uintptr_t)(e->addend + va), __ATOMIC_RELAXED);      \
		ucow_access_end(cpu);                                                                                 \
		return 0;                                                                                             \
	}                                                                                                             \
	/** ucow_store_uN - store to @va. */                                                                          \
	UCOW_NODISCARD static inline int ucow_store_u##bits(struct ucow_cpu *cpu, uint64_t va, uint##bits##_t value)  \
	{                                                                                                             \
		ucow_access_begin(cpu);                                                                               \
		const struct ucow_tlb_entry *e = ucow_tlb_lookup(cpu, va, sizeof(value), true);                       \
		if (UCOW_UNLIKELY(!e)) {                                                                              \
			uint##bits##_t far = value;                                                                   \
			return ucow_access_slow(cpu, va, &far, sizeof(far), true);                                    \
		}                                                                                                     \
		__atomic_store_n((uint##bits##_t *)(uintptr_t)(e->addend + va), value, __ATOMIC_RELAXED);             \
		ucow_access_end(cpu);                                                                                 \
		return 0;                                                                                             \
	}                                                                                                             \
	/** ucow_cmpxchg_uN - if *@va == *expected store @desired, else load into *expected; sequentially consistent. \
	 * @va must be aligned (-EINVAL). *exchanged says which. */                                                   \
	UCOW_NODISCARD static inline int ucow_cmpxchg_u##bits(                                                        \
		struct ucow_cpu *cpu, uint64_t va, uint##bits##_t *expected, uint##bits##_t desired, bool *exchanged) \
	{                                                                                                             \
		ucow_access_begin(cpu);                                                                               \
		const struct ucow_tlb_entry *e = ucow_tlb_lookup(cpu, va, sizeof(desired), true);                     \
		if (UCOW_UNLIKELY(!e))                                                                                \
			return ucow_cmpxchg_slow(cpu, va, expected, desired, sizeof(desired), exchanged);             \
		*exchanged = __atomic_compare_exchange_n((uint##bits##_t *)(uintptr_t)(e->addend + va), expected,     \
							 desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);         \
		ucow_access_end(cpu);                                                                                 \
		return 0;                                                                                             \
	}

UCOW_DEFINE_ACCESS(8)
UCOW_DEFINE_ACCESS(16)
UCOW_DEFINE_ACCESS(32)
UCOW_DEFINE_ACCESS(64)
#undef UCOW_DEFINE_ACCESS

#ifdef __cplusplus
}
#endif
#endif
