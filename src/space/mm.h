/* SPDX-License-Identifier: MIT */
/*
 * Machines, spaces and cpus as the engine sees them. What happens to mappings and entries is the upper floors'
 * business.
 *
 * Key letters: (C) fixed after creation (L) the machine's lock (M) mmap_lock: shared to read, exclusive to write
 * (A) atomic (T) the cpu's own thread
 */
#ifndef SPACE_MM_H
#define SPACE_MM_H

#include "space/group.h"
#include "space/vma.h"

#include <ucow/access.h>
#include <ucow/machine.h>

struct cow_policy;

struct ucow_machine {
	struct frame_pool frames;
	struct table_pool tables;
	struct counters counters;
	struct inject inject;
	struct epoch epoch;              /* sections of all threads and cpus; what waits for them to end */
	const struct cow_policy *policy; /* (C) */
	enum ucow_fork_mode fork_mode;   /* (C) */
	uint64_t pin_limit;              /* (C) of new spaces */
	void (*on_pinned_fork)(void *arg, const struct ucow_pinned_fork *info); /* (C) */
	bool (*on_page_lock_wait)(void *arg, struct ucow_page *page);           /* (C) */
	void *callback_arg;                                                     /* (C) */
	struct mutex lock;
	struct list spaces; /* (L) */
	struct list cpus;   /* (L) */
	uint64_t nspaces;   /* (L) */
	uint64_t ncpus;     /* (L) */
	/* What numbers were given. Here and not static: the machine's memory is all that a run depends on. */
	_Atomic uint64_t last_serial;      /* (A) of spaces */
	_Atomic uint64_t next_pfn_mapping; /* (A) */
};

struct ucow_mm {
	struct ucow_machine *machine; /* (C) */
	uint64_t serial;              /* (C) unique among all spaces of the machine; never 0 */
	struct rwlock mmap_lock;
	struct vma_set vmas;                   /* (M) */
	struct page_table pt;                  /* (M) the shape, exclusively to detach; see table/table.h */
	bool read_only;                        /* (C) a snapshot: nothing changes what it shows */
	struct snapshot snapshot;              /* of a read-only space */
	struct ucow_snapshot_group *group;     /* (M) that a live space keeps or a snapshot belongs to; NULL: none */
	_Atomic uint32_t write_protect_seq;    /* (A) odd while a fork is going on; written under mmap_lock exclusive */
	_Atomic bool has_pinned;               /* (A) sticky: a pin was ever attempted (B.4) */
	_Atomic(struct pin_account *) account; /* (A) made by the first pin */
	_Atomic uint64_t pin_limit;            /* (A) */
	_Atomic uint32_t attached;             /* (A) cpus */
	struct list link;                      /* (L) */
};

#if exploring
#define TLB_DEFAULT_ENTRIES 32 /* cheap to put back */
#else
#define TLB_DEFAULT_ENTRIES 1024
#endif
#define TLB_NOTED 64

struct ucow_cpu {
	struct ucow_cpu_fast fast;    /* first: the inline functions of ucow/access.h look here */
	struct ucow_machine *machine; /* (C) */
	struct ucow_mm *mm;           /* (T) */
	uint64_t tlb_serial;          /* (T) the space whose translations the TLB holds */
	/* The page-walk cache: what the last walk found, valid while the space's tables keep their shape. */
	struct walk walk;           /* (T) leaf NULL: nothing */
	uint64_t walk_va;           /* (T) an address that it covers */
	uint64_t walk_shape;        /* (T) the shape read before that walk */
	uintptr_t guess;            /* (T) the addend that many translations had; guess_trust 0: not now */
	unsigned guess_trust;       /* (T) */
	bool span_open;             /* (T) */
	unsigned nnoted;            /* (T) entries filled since the TLB was empty; above TLB_NOTED: many */
	uint16_t noted[TLB_NOTED];  /* (T) which: flushing a barely used TLB touches only these */
	struct list link;           /* (L) */
	struct epoch_member member; /* its section is fast.active */
	struct ucow_tlb_entry tlb[TLB_DEFAULT_ENTRIES]; /* (T) */
};
static_assert(offsetof(struct ucow_cpu, fast) == 0, "the inline functions cast a cpu to its fast part");

/* mm_create - a space without a root table, known to nobody. Returns: NULL: no memory. */
struct ucow_mm *mm_create(struct ucow_machine *machine);
/* mm_publish / mm_unpublish - put it on, take it off the machine's list, where debugging looks at it. Requires: a root.
 */
void mm_publish(struct ucow_mm *mm);
void mm_unpublish(struct ucow_mm *mm);
/* mm_free - Requires: not published, no mapping is left, no cpu attached. */
void mm_free(struct ucow_mm *mm);

static inline _Atomic uint32_t *cpu_active(struct ucow_cpu *cpu)
{
	return (_Atomic uint32_t *)&cpu->fast.active;
}

/* mm_pin_account - the space's account, made at first use. Returns: NULL: no memory. */
struct pin_account *mm_pin_account(struct ucow_mm *mm);

/* mm_range_is_valid - page-aligned @va, and [va, va + nbytes) inside the addresses that may be mapped; @nbytes > 0. */
bool mm_range_is_valid(uint64_t va, uint64_t nbytes);

/* cpu_note_fill - TLB entry @index is about to be filled. */
static inline void cpu_note_fill(struct ucow_cpu *cpu, uint64_t index)
{
	if (cpu->nnoted < TLB_NOTED)
		cpu->noted[cpu->nnoted] = (uint16_t)index;
	if (cpu->nnoted <= TLB_NOTED)
		cpu->nnoted++;
}

#endif
