/* SPDX-License-Identifier: MIT */
/*
 * Machines, spaces and cpus as the engine sees them. What happens to mappings and entries is the upper floors'
 * business.
 *
 * Key letters: (C) fixed after creation (L) the machine's lock (M) mmap_lock: shared to read, exclusive to write
 * (A) atomic (T) the cpu's own thread (N) notify_lock: shared while followers are called
 */
#ifndef SPACE_MM_H
#define SPACE_MM_H

#include "space/group.h"
#include "space/memcg.h"
#include "space/vma.h"

#include <ucow/access.h>
#include <ucow/machine.h>

struct cow_policy;
struct swap;
struct swap_write;
struct rmap_homes;
struct ucow_memcg;
struct ksm;
struct ksm_space;
struct ucow_notifier;
struct writeback_thread;
struct ucow_mm;
struct ucow_machine;

/* What lower floors ask of reclaim/, which is above them. */
struct pressure_ops {
	/* Take pages from the least recently used, of a group or (NULL) of all. Returns: how many came free. */
	uint64_t (*shrink)(struct ucow_machine *machine, struct ucow_memcg *memcg, uint64_t npages);
	/* A swap device has written a page, or failed to. */
	void (*written)(void *machine, struct swap_write *write);
	/* madvise PAGEOUT (@now) and COLD. */
	void (*advise)(struct ucow_mm *mm, uint64_t start, uint64_t end, bool now);
	/* Wait until all that is being written has been written. */
	void (*settle)(struct ucow_machine *machine);
	/* page_lock, for pages that may be in the swap cache. */
	void (*lock_page)(struct ucow_machine *machine, struct ucow_page *page);
};
extern const struct pressure_ops pressure_ops;

/* What same-page merging, which stands above, has the floors below call; see ksm/ksm.h. */
struct ksm_ops {
	/* A space ends, and nobody holds it. */
	void (*space_end)(struct ucow_mm *mm);
	/* The machine ends: no space is left. */
	void (*destroy)(struct ucow_machine *machine);
	/* [INV-KSM-2] Returns: NULL, or what is wrong with a merged page. */
	const char *(*check)(struct ucow_machine *machine, const struct ucow_page *page);
};

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
	/* (C) take @npages from the least recently used, of a group or (NULL) of all. Returns: how many. */
	uint64_t (*shrink)(struct ucow_machine *, struct ucow_memcg *, uint64_t npages);
	struct memcg_set memcgs;
	_Atomic uint32_t shortage[THREAD_SLOTS]; /* (A) why a thread's last mm_alloc_page failed; see space_relieve */
	struct rwlock relief_lock;               /* LOCK_RELIEF; see alloc.c */
	struct mutex lock;
	struct list spaces;                       /* (L) */
	struct list cpus;                         /* (L) */
	uint64_t nspaces;                         /* (L) */
	uint64_t ncpus;                           /* (L) */
	_Atomic(struct swap *) swap;              /* (A) made by the first swapon; NULL: none */
	struct mutex swap_lock;                   /* LOCK_SWAPON: devices come and go */
	_Atomic(const struct rmap_homes *) homes; /* (A) where merged pages may be; NULL: there are none */
	struct spin caches_lock;                  /* LOCK_CACHES; guards the next group */
	struct list caches;                       /* all that are in use */
	uint64_t ncaches;                         /* those and the orphans */
	struct list orphans;                      /* that nobody uses any more, and that are to be written and closed */
	_Atomic uint64_t ndirty;                  /* (A) pages of files that are to be written back */
	_Atomic uint64_t dirty_limit;             /* (A) from which on whoever stores writes back; 0: none */
	struct writeback_thread *writeback;       /* (L) NULL: does not run */
	_Atomic uint64_t norphans;                /* (A) */
	struct rwlock notify_lock;                /* LOCK_NOTIFY: (N) */
	struct list notifiers;                    /* (N) of all spaces */
	struct list *scan_at;                     /* (L) where the scanner is on the list of spaces; NULL: nowhere */
	struct ksm *ksm;                          /* (L) to set; NULL: nothing was ever merged */
	const struct ksm_ops *ksm_ops;            /* (L) to set, before ksm */
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
	struct ucow_memcg *memcg;              /* (M) new pages are charged to it; NULL: to none */
	bool read_only;                        /* (C) a snapshot: nothing changes what it shows */
	struct snapshot snapshot;              /* of a read-only space */
	struct ucow_snapshot_group *group;     /* (M) that a live space keeps or a snapshot belongs to; NULL: none */
	_Atomic uint32_t write_protect_seq;    /* (A) odd while a fork is going on; written under mmap_lock exclusive */
	_Atomic bool has_pinned;               /* (A) sticky: a pin was ever attempted (B.4) */
	_Atomic(struct pin_account *) account; /* (A) made by the first pin */
	_Atomic uint64_t pin_limit;            /* (A) */
	_Atomic uint64_t lock_limit;           /* (A) most pages that mlock takes */
	unsigned lock_future;                  /* (M) VMA_* of mappings made from now on (mlockall) */
	_Atomic uint32_t attached;             /* (A) cpus */
	struct list file_users;                /* (M) struct cache_user: the files that are mapped here */
	struct list link;                      /* (L) */
	bool ending;                           /* (L) off the list */
	_Atomic uint32_t holds;                /* (A) grows under (L) while not ending: see mm_hold */
	struct ksm_space *ksm;                 /* what the scanner keeps; its own */
	struct ucow_notifier *notifiers;       /* (M), and (N) to write; who follows it; NULL: nobody */
	struct list uffds;                     /* (M) userfaultfds that watch it */
	struct list uffd_notes;                /* (M) events to send as soon as the lock is free */
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
/* Waits until nobody holds it. */
void mm_unpublish(struct ucow_mm *mm);
/* mm_retire - as mm_unpublish, for a space that may not have been published, and that files may list. */
void mm_retire(struct ucow_mm *mm);
/*
 * mm_hold - keep a space that was found on the list from ending; for short, since its owner waits.
 * Requires: the machine's lock. Returns: false: it is ending.
 */
bool mm_hold(struct ucow_mm *mm);
void mm_release(struct ucow_mm *mm);
/* mm_free - Requires: not published, no mapping is left, no cpu attached. */
void mm_free(struct ucow_mm *mm);

static inline _Atomic uint32_t *cpu_active(struct ucow_cpu *cpu)
{
	return (_Atomic uint32_t *)&cpu->fast.active;
}

/* mm_join - @mm's new pages are charged to @memcg from now on. Requires: mmap_lock exclusively, or nobody knows @mm. */
void mm_join(struct ucow_mm *mm, struct ucow_memcg *memcg);

struct ucow_page *mm_alloc_charged(struct ucow_mm *mm, enum frame_want want);
struct ucow_page *mm_lacks_ram(struct ucow_mm *mm);

/*
 * mm_alloc_page - frame_alloc for a page of @mm, charged to its group (B.9). Requires: mmap_lock, in any mode.
 * Returns: NULL: RAM, or a group, has no room; space_relieve knows which.
 */
static inline struct ucow_page *mm_alloc_page(struct ucow_mm *mm, enum frame_want want)
{
	struct ucow_page *page;

	if (unlikely(mm->memcg))
		return mm_alloc_charged(mm, want);
	page = frame_alloc(&mm->machine->frames, want);
	return likely(page) ? page : mm_lacks_ram(mm);
}

/*
 * mm_alloc_page_of - the same for a page that comes back: charged to the group of number @id, if that still exists,
 * else to @mm's or, where nobody asks for it (@mm NULL), to the nearest group above that exists. @id 0: it was
 * nobody's.
 */
struct ucow_page *mm_alloc_page_of(struct ucow_machine *machine, struct ucow_mm *mm, uint16_t id, enum frame_want want);

/*
 * space_relieve - memory has run out for @mm: whether it is worth another try, because something has come free. What
 * waited for a grace period comes first; then, if an allocation of a page failed, reclaim, in the group that refused
 * alone or in the whole machine. *tries starts at 0 and bounds the tries that bring nothing. Requires: no lock.
 */
bool machine_relieve(struct ucow_machine *machine, unsigned *tries);
static inline bool space_relieve(struct ucow_mm *mm, unsigned *tries)
{
	return machine_relieve(mm->machine, tries);
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
