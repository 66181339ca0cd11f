/* SPDX-License-Identifier: MIT */
/*
 * An error that is reported to everybody once. One word keeps the last error, whether anybody has been told of it, and
 * a number that grows with every error that comes after somebody was told; each opener of the file keeps the word as it
 * was when he last looked. An error that nobody has seen yet is reported to openers that come later, too: it would be
 * lost otherwise. Pure.
 */
#ifndef CACHE_ERRSEQ_H
#define CACHE_ERRSEQ_H

#include "base/sync.h"

#define ERRSEQ_ERROR_BITS 12
#define ERRSEQ_ERROR_MASK ((1u << ERRSEQ_ERROR_BITS) - 1)
#define ERRSEQ_SEEN       (1u << ERRSEQ_ERROR_BITS)
#define ERRSEQ_ONE        (ERRSEQ_SEEN << 1)

struct errseq {
	_Atomic uint32_t word; /* 0: no error ever */
};

/* errseq_record - @error, negative, has happened. */
static inline void errseq_record(struct errseq *errors, int error)
{
	uint32_t before = atomic_load(&errors->word), next;

	do {
		next = (before & ~(ERRSEQ_ERROR_MASK | ERRSEQ_SEEN)) | ((uint32_t)-error & ERRSEQ_ERROR_MASK);
		if (before & ERRSEQ_SEEN)
			next += ERRSEQ_ONE;
	} while (!atomic_compare_exchange_weak(&errors->word, &before, next));
}

/* errseq_sample - where a new opener begins. */
static inline uint32_t errseq_sample(const struct errseq *errors)
{
	uint32_t now = atomic_load(&errors->word);

	return now & ERRSEQ_SEEN ? now : 0;
}

/*
 * errseq_report - what has happened since *@since, which moves on: told once. Two threads of one opener: one of them is
 * told. Returns: 0; the last error, negative.
 */
static inline int errseq_report(struct errseq *errors, _Atomic uint32_t *since)
{
	uint32_t now = atomic_load(&errors->word), seen = atomic_load(since);

	if (now == seen)
		return 0;
	if (!(now & ERRSEQ_SEEN) && !atomic_compare_exchange_strong(&errors->word, &now, now | ERRSEQ_SEEN))
		now = atomic_load(&errors->word); /* the other has marked it, or there is a later one */
	if (!atomic_compare_exchange_strong(since, &seen, now | ERRSEQ_SEEN))
		return 0;
	return -(int)(now & ERRSEQ_ERROR_MASK);
}

#endif
