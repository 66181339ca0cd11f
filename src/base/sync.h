/* SPDX-License-Identifier: MIT */
/*
 * Atomic accesses, as the C standard names them. The explorer's build (UCOW_EXPLORE) puts a scheduling hook before
 * each; every other build takes them as they are.
 */
#ifndef BASE_SYNC_H
#define BASE_SYNC_H

#include "base/hook.h"

#include <stdatomic.h>

#if exploring
/*
 * The accesses of stdatomic.h with a hook before each. One thread runs all lanes and changes between them at hooks
 * alone, so what follows the hook may be a plain access.
 */
#undef atomic_load
#undef atomic_load_explicit
#undef atomic_store
#undef atomic_store_explicit
#undef atomic_exchange
#undef atomic_exchange_explicit
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak
#undef atomic_compare_exchange_weak_explicit
#undef atomic_fetch_add
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub
#undef atomic_fetch_sub_explicit
#undef atomic_fetch_or
#undef atomic_fetch_or_explicit
#undef atomic_fetch_and
#undef atomic_fetch_and_explicit

/* The object without _Atomic, and its type. */
#define SYNC_TYPE(object)             __typeof__(((void)0, *(object)))
#define SYNC_PLAIN(object)            (*(SYNC_TYPE(object) *)(uintptr_t)(object))
#define SYNC_SITE(object, expression) (&(const struct hook_site){expression, __func__, sizeof(*(object))})
/* Bits of a value as a number and back, whatever its type. */
#define SYNC_BITS(type, value)  \
	((union {               \
		 type typed;    \
		 uint64_t bits; \
	 }){.typed = (value)}   \
		 .bits)
#define SYNC_VALUE(type, number) \
	((union {                \
		 uint64_t bits;  \
		 type typed;     \
	 }){.bits = (number)}    \
		 .typed)

/* No variables here: loads stand in loads. */
#define SYNC_LOAD(object, expression)                                                                               \
	(hook_live ? SYNC_VALUE(SYNC_TYPE(object), hook_load_at((const volatile void *)(object), sizeof(*(object)), \
								SYNC_SITE(object, expression)))                     \
		   : SYNC_PLAIN(object))
#define SYNC_STORE(object, value, expression)                                                           \
	(hook_live ? hook_sync_store_at((volatile void *)(object), SYNC_BITS(SYNC_TYPE(object), value), \
					sizeof(*(object)), SYNC_SITE(object, expression))               \
		   : (void)(SYNC_PLAIN(object) = (value)))
#define SYNC_MODIFY(kind, object, operand, expression, after)                           \
	__extension__({                                                                 \
		__auto_type sync_object = (object);                                     \
		SYNC_TYPE(object) sync_operand = (operand), sync_before;                \
		if (hook_live)                                                          \
			hook_step_at(kind, sync_object, SYNC_SITE(object, expression)); \
		sync_before = SYNC_PLAIN(sync_object);                                  \
		SYNC_PLAIN(sync_object) = (SYNC_TYPE(object))(after);                   \
		sync_before;                                                            \
	})
#define SYNC_UPDATE(object, operand, expression, after) SYNC_MODIFY(HOOK_UPDATE, object, operand, expression, after)
/* Who asks for no order does not depend on the result either. */
#define SYNC_ADD(object, operand, order, expression, after) \
	SYNC_MODIFY((order) == memory_order_relaxed ? HOOK_ADD : HOOK_UPDATE, object, operand, expression, after)
#define SYNC_COMPARE_EXCHANGE(object, expected, desired, expression)                           \
	__extension__({                                                                        \
		__auto_type sync_object = (object);                                            \
		__auto_type sync_expected = (expected);                                        \
		SYNC_TYPE(object) sync_desired = (desired), sync_before;                       \
		bool sync_same;                                                                \
		if (hook_live)                                                                 \
			hook_step_at(HOOK_UPDATE, sync_object, SYNC_SITE(object, expression)); \
		sync_before = SYNC_PLAIN(sync_object);                                         \
		sync_same = sync_before == *sync_expected;                                     \
		if (sync_same)                                                                 \
			SYNC_PLAIN(sync_object) = sync_desired;                                \
		else                                                                           \
			*sync_expected = sync_before;                                          \
		sync_same;                                                                     \
	})

#define atomic_load(object)                         SYNC_LOAD(object, #object)
#define atomic_load_explicit(object, order)         SYNC_LOAD(object, #object)
#define atomic_store_explicit(object, value, order) SYNC_STORE(object, value, #object)
/* Sequentially consistent: as the processor does it, by a locked operation. */
#define atomic_store(object, value)                    ((void)SYNC_UPDATE(object, value, #object, sync_operand))
#define atomic_exchange(object, value)                 SYNC_UPDATE(object, value, #object, sync_operand)
#define atomic_exchange_explicit(object, value, order) SYNC_UPDATE(object, value, #object, sync_operand)
#define atomic_fetch_add(object, value)                SYNC_UPDATE(object, value, #object, sync_before + sync_operand)
#define atomic_fetch_add_explicit(object, value, order) \
	SYNC_ADD(object, value, order, #object, sync_before + sync_operand)
#define atomic_fetch_sub(object, value) SYNC_UPDATE(object, value, #object, sync_before - sync_operand)
#define atomic_fetch_sub_explicit(object, value, order) \
	SYNC_ADD(object, value, order, #object, sync_before - sync_operand)
#define atomic_fetch_or(object, value)                  SYNC_UPDATE(object, value, #object, sync_before | sync_operand)
#define atomic_fetch_or_explicit(object, value, order)  SYNC_UPDATE(object, value, #object, sync_before | sync_operand)
#define atomic_fetch_and(object, value)                 SYNC_UPDATE(object, value, #object, sync_before &sync_operand)
#define atomic_fetch_and_explicit(object, value, order) SYNC_UPDATE(object, value, #object, sync_before &sync_operand)

#define atomic_compare_exchange_strong(object, expected, desired) \
	SYNC_COMPARE_EXCHANGE(object, expected, desired, #object)
#define atomic_compare_exchange_strong_explicit(object, expected, desired, order, failure) \
	SYNC_COMPARE_EXCHANGE(object, expected, desired, #object)
#define atomic_compare_exchange_weak(object, expected, desired) \
	SYNC_COMPARE_EXCHANGE(object, expected, desired, #object)
#define atomic_compare_exchange_weak_explicit(object, expected, desired, order, failure) \
	SYNC_COMPARE_EXCHANGE(object, expected, desired, #object)
#endif

#endif
