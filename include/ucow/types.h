/* SPDX-License-Identifier: MIT */
/*
 * Handles, constants and attributes that every public header of ucow needs.
 * Error convention of the whole library: 0 or a positive result, or -errno; results go to out-parameters, which are
 * written on success only; what a failure leaves behind is stated (default: nothing changed).
 */
#ifndef UCOW_TYPES_H
#define UCOW_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define UCOW_API         __attribute__((visibility("default")))
#define UCOW_NODISCARD   __attribute__((warn_unused_result))
#define UCOW_LIKELY(x)   __builtin_expect(!!(x), 1)
#define UCOW_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#error "ucow needs a compiler with the GNU C builtins (gcc or clang)"
#endif

#define UCOW_VERSION_MAJOR 0
#define UCOW_VERSION_MINOR 1
#define UCOW_VERSION_PATCH 0

/** One page, in bytes and as a shift. */
#define UCOW_PAGE_SHIFT 12
#define UCOW_PAGE_SIZE  ((uint64_t)1 << UCOW_PAGE_SHIFT)
#define UCOW_PAGE_MASK  (~(UCOW_PAGE_SIZE - 1))

/** Addresses are 0 .. 2^48 - 1. The first 64 KiB and the last page are never mapped. */
#if defined(UCOW_EXPLORE) && UCOW_EXPLORE
#define UCOW_ADDRESS_BITS 30 /* of the build that is explored: as few levels of tables as there are kinds of them */
#else
#define UCOW_ADDRESS_BITS 48
#endif
#define UCOW_ADDRESS_LIMIT (((uint64_t)1 << UCOW_ADDRESS_BITS) - UCOW_PAGE_SIZE)
#define UCOW_ADDRESS_MIN   ((uint64_t)0x10000)

/** A machine: RAM, policy, counters; a process may create several. Everything below belongs to one machine. */
struct ucow_machine;
/** An address space. */
struct ucow_mm;
/** The execution context of one host thread: its current space and its soft TLB. */
struct ucow_cpu;
/** The descriptor of one 4 KiB frame of a machine's RAM. Valid as long as the caller holds a get or a pin on it. */
struct ucow_page;

/** ucow_version - the library's version, "MAJOR.MINOR.PATCH". */
UCOW_API const char *ucow_version(void);

#ifdef __cplusplus
}
#endif
#endif
