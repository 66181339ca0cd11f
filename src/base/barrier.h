/* SPDX-License-Identifier: MIT */
/*
 * Fences of unequal price. The side that is passed often pays nothing but that the compiler keeps its order; the rare
 * side makes every running thread of the process pass a full fence (membarrier(2)), so that the two fit together like
 * two full fences. Where the system call is missing, and in the eyes of ThreadSanitizer, both sides are full.
 */
#ifndef BASE_BARRIER_H
#define BASE_BARRIER_H

#include "base/sync.h"

#if defined(__SANITIZE_THREAD__)
#define BARRIER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BARRIER_TSAN 1
#endif
#endif
#ifndef BARRIER_TSAN
#define BARRIER_TSAN 0
#endif

/* Whether both sides pay the full price; settled by barrier_init. */
extern bool barrier_is_symmetric;

/* barrier_init - register with the kernel. Any number of times, any thread. */
void barrier_init(void);
/* barrier_expedite - a full fence of every thread of the process. */
void barrier_expedite(void);

/*
 * word_enter - store @value, then a fence that barrier_expedite matches: what the caller loads afterwards is no older
 * than its store. Only one thread stores to @word.
 */
static inline void word_enter(_Atomic uint32_t *word, uint32_t value)
{
#if exploring
	hook_store(word, value, sizeof(*word));
#else
	if (BARRIER_TSAN || unlikely(barrier_is_symmetric)) {
		atomic_exchange(word, value);
	} else {
		atomic_store_explicit(word, value, memory_order_relaxed);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	}
#endif
}

/* word_leave - store @value after everything before it. */
static inline void word_leave(_Atomic uint32_t *word, uint32_t value)
{
#if exploring
	hook_store(word, value, sizeof(*word));
#else
	atomic_store_explicit(word, value, memory_order_release);
#endif
}

#endif
