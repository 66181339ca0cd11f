/* SPDX-License-Identifier: MIT */
/*
 * What every file of the engine may use: helpers of the language and the kinds of complaint.
 *
 * - UCOW_BUG_ON: a broken invariant or a caller's misuse; aborts in debug and checked builds, costs nothing in release
 * - UCOW_BUG: the same in every build, where going on would corrupt memory
 * - checked_build: for checks that cost more than a comparison
 */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ucow/types.h>

#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))
#define ARRAY_SIZE(array)                   (sizeof(array) / sizeof((array)[0]))
#define likely(x)                           UCOW_LIKELY(x)
#define unlikely(x)                         UCOW_UNLIKELY(x)
#define min_u64(a, b)                       ((uint64_t)(a) < (uint64_t)(b) ? (uint64_t)(a) : (uint64_t)(b))
#define max_u64(a, b)                       ((uint64_t)(a) > (uint64_t)(b) ? (uint64_t)(a) : (uint64_t)(b))

_Noreturn void base_bug(const char *file, int line, const char *what);

#define UCOW_BUG(what) base_bug(__FILE__, __LINE__, what)

#if defined(UCOW_CHECKED) && UCOW_CHECKED
#define checked_build 1
#else
#define checked_build 0
#endif

#if !defined(NDEBUG) || checked_build
#define debug_build 1
#else
#define debug_build 0
#endif

#define UCOW_BUG_ON(condition)                          \
	do {                                            \
		if (debug_build && unlikely(condition)) \
			UCOW_BUG(#condition);           \
	} while (0)

static inline uint64_t page_round_up(uint64_t nbytes)
{
	return (nbytes + UCOW_PAGE_SIZE - 1) & UCOW_PAGE_MASK;
}

#endif
