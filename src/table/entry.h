/* SPDX-License-Identifier: MIT */
/*
 * What a leaf entry looks like. Only table/ knows the bits; everybody else uses the accessors.
 *
 *     63    53 52  51                              12 11  10   9   8   7   6   5   4   3   2   1   0
 *    +--------+---+----------------------------------+-------+---+---+---+---+---+---+---+---+---+---+
 *    | none   | L |  frame number, or host address   | type  | Z | F | U | S | N | X | A | D | W | P |
 *    |        |   |  >> 12 for memory without a page |       |   |   |   |   |   |   |   |   |   |   |
 *    +--------+---+----------------------------------+-------+---+---+---+---+---+---+---+---+---+---+
 *
 *    P present   W writable   D dirty   A accessed   X special: no page behind it   N protnone: present, no access
 *    S soft-dirty   U userfaultfd write-protected   F page of a shared mapping (RSS kind)   Z the shared zero page
 *    L of a locked mapping: reclaim leaves the page   type: of entries that are not present; 0 in all others
 *
 * An entry is empty (all zero), present, or of one of the not-present types:
 *
 *    swap (type 1): S, U and N as above, W: exclusive (B.6), and in place of the frame number
 *    the device (5 bits) and the slot (35 bits).
 *
 *    marker (type 2): there is no page, but something to remember. U: write-protected for userfaultfd, else as empty;
 *    bit 12: poisoned, every access ends in SIGBUS (B.2).
 */
#ifndef TABLE_ENTRY_H
#define TABLE_ENTRY_H

#include "frame/frame.h"

struct pte {
	uint64_t v;
};

/* Names a slot of a swap device; 0: none. */
struct swap_entry {
	uint64_t v;
};

#define PTE_PRESENT     ((uint64_t)1 << 0)
#define PTE_WRITE       ((uint64_t)1 << 1)
#define PTE_DIRTY       ((uint64_t)1 << 2)
#define PTE_ACCESSED    ((uint64_t)1 << 3)
#define PTE_SPECIAL     ((uint64_t)1 << 4)
#define PTE_PROTNONE    ((uint64_t)1 << 5)
#define PTE_SOFT_DIRTY  ((uint64_t)1 << 6)
#define PTE_UFFD_WP     ((uint64_t)1 << 7)
#define PTE_FILE        ((uint64_t)1 << 8)
#define PTE_ZERO        ((uint64_t)1 << 9)
#define PTE_TYPE_MASK   ((uint64_t)3 << 10)
#define PTE_TYPE_SWAP   ((uint64_t)1 << 10)
#define PTE_TYPE_MARKER ((uint64_t)2 << 10)
#define PTE_POISONED    ((uint64_t)1 << 12) /* of markers */
#define PTE_LOCKED      ((uint64_t)1 << 52)
#define PTE_FRAME_SHIFT 12
#define PTE_FRAME_BITS  40
#define PTE_FRAME_MASK  ((((uint64_t)1 << PTE_FRAME_BITS) - 1) << PTE_FRAME_SHIFT)
#define PTE_FLAG_MASK                                                                                       \
	(PTE_PRESENT | PTE_WRITE | PTE_DIRTY | PTE_ACCESSED | PTE_SPECIAL | PTE_PROTNONE | PTE_SOFT_DIRTY | \
	 PTE_UFFD_WP | PTE_FILE | PTE_ZERO)

static_assert((PTE_FLAG_MASK & PTE_TYPE_MASK) == 0, "flags and type overlap");
static_assert(((PTE_FLAG_MASK | PTE_TYPE_MASK) & PTE_FRAME_MASK) == 0, "flags and frame number overlap");
static_assert(PTE_FLAG_MASK == 0x3ff, "ten distinct flags");
static_assert((PTE_LOCKED & (PTE_FLAG_MASK | PTE_TYPE_MASK | PTE_FRAME_MASK)) == 0, "an eleventh, above the frame");

/* What an entry stands for; a closed set. */
enum pte_kind {
	PTE_KIND_NONE,      /* empty */
	PTE_KIND_ANON,      /* a page of private memory */
	PTE_KIND_SHARED,    /* a page of a shared mapping */
	PTE_KIND_ZERO_PAGE, /* the shared zero page */
	PTE_KIND_PFN,       /* host memory that is not a page */
	PTE_KIND_SWAP,      /* not present: a page of private memory, in a swap slot */
	PTE_KIND_MARKER,    /* not present: no page, but something to remember */
};

static inline struct pte pte_none(void)
{
	return (struct pte){0};
}

static inline bool pte_is_none(struct pte pte)
{
	return pte.v == 0;
}

static inline bool pte_is_same(struct pte a, struct pte b)
{
	return a.v == b.v;
}

static inline bool pte_is_present(struct pte pte)
{
	return pte.v & PTE_PRESENT;
}

/* Of a swap entry the bit means something else. */
static inline bool pte_is_writable(struct pte pte)
{
	return (pte.v & (PTE_WRITE | PTE_PRESENT)) == (PTE_WRITE | PTE_PRESENT);
}

static inline bool pte_is_dirty(struct pte pte)
{
	return pte.v & PTE_DIRTY;
}

static inline bool pte_is_accessed(struct pte pte)
{
	return pte.v & PTE_ACCESSED;
}

/* pte_is_noted - the entry permits the access, and says already that there was one. */
static inline bool pte_is_noted(struct pte pte, bool write)
{
	uint64_t wanted = PTE_PRESENT | PTE_ACCESSED | (write ? PTE_WRITE | PTE_DIRTY : 0);

	return (pte.v & (wanted | PTE_PROTNONE)) == wanted;
}

static inline bool pte_is_special(struct pte pte)
{
	return pte.v & PTE_SPECIAL;
}

static inline bool pte_is_protnone(struct pte pte)
{
	return pte.v & PTE_PROTNONE;
}

static inline bool pte_is_soft_dirty(struct pte pte)
{
	return pte.v & PTE_SOFT_DIRTY;
}

static inline bool pte_is_uffd_wp(struct pte pte)
{
	return pte.v & PTE_UFFD_WP;
}

static inline bool pte_is_swap(struct pte pte)
{
	return (pte.v & (PTE_TYPE_MASK | PTE_PRESENT)) == PTE_TYPE_SWAP;
}

static inline bool pte_is_marker(struct pte pte)
{
	return (pte.v & (PTE_TYPE_MASK | PTE_PRESENT)) == PTE_TYPE_MARKER;
}

/* pte_is_vacant - nothing was ever put here, or it is gone: an empty entry, or a marker that remembers no poison. */
static inline bool pte_is_vacant(struct pte pte)
{
	return pte_is_none(pte) || (pte_is_marker(pte) && !(pte.v & PTE_POISONED));
}

static inline bool pte_is_locked(struct pte pte)
{
	return pte.v & PTE_LOCKED;
}

static inline enum pte_kind pte_kind(struct pte pte)
{
	if (unlikely(!pte_is_present(pte))) {
		if (pte_is_none(pte))
			return PTE_KIND_NONE;
		return pte_is_swap(pte) ? PTE_KIND_SWAP : PTE_KIND_MARKER;
	}
	if (pte.v & PTE_ZERO)
		return PTE_KIND_ZERO_PAGE;
	if (pte.v & PTE_SPECIAL)
		return PTE_KIND_PFN;
	return pte.v & PTE_FILE ? PTE_KIND_SHARED : PTE_KIND_ANON;
}

/* pte_has_page - whether a counted page is behind the entry. */
static inline bool pte_has_page(struct pte pte)
{
	return (pte.v & (PTE_PRESENT | PTE_SPECIAL)) == PTE_PRESENT;
}

static inline uint64_t pte_frame(struct pte pte)
{
	return (pte.v & PTE_FRAME_MASK) >> PTE_FRAME_SHIFT;
}

/* Makers. A fresh entry is read-only, accessed, clean; a writable one is made by pte_mkwrite. */

static inline struct pte pte_make_anon(const struct ucow_page *page)
{
	return (struct pte){page_to_pfn(page) << PTE_FRAME_SHIFT | PTE_PRESENT | PTE_ACCESSED};
}

static inline struct pte pte_make_shared(const struct ucow_page *page)
{
	return (struct pte){page_to_pfn(page) << PTE_FRAME_SHIFT | PTE_PRESENT | PTE_ACCESSED | PTE_FILE};
}

static inline struct pte pte_make_zero(const struct frame_pool *pool)
{
	return (struct pte){page_to_pfn(pool->zero_page) << PTE_FRAME_SHIFT | PTE_PRESENT | PTE_ACCESSED | PTE_SPECIAL |
			    PTE_ZERO};
}

/* Requires: @host is page-aligned. */
static inline struct pte pte_make_pfn(const void *host)
{
	return (struct pte){((uint64_t)(uintptr_t)host & PTE_FRAME_MASK) | PTE_PRESENT | PTE_ACCESSED | PTE_SPECIAL};
}

/* The zero page in place of a page of zeros (ucow/ksm.h): told from others by a dirty bit that nobody else sets there.
 */
static inline struct pte pte_make_merged_zero(const struct frame_pool *pool)
{
	return (struct pte){pte_make_zero(pool).v | PTE_DIRTY};
}

static inline bool pte_is_merged_zero(struct pte pte)
{
	return (pte.v & (PTE_PRESENT | PTE_ZERO | PTE_DIRTY)) == (PTE_PRESENT | PTE_ZERO | PTE_DIRTY);
}

static inline struct pte pte_mkwrite(struct pte pte)
{
	return (struct pte){pte.v | PTE_WRITE};
}

static inline struct pte pte_wrprotect(struct pte pte)
{
	return (struct pte){pte.v & ~PTE_WRITE};
}

/* A store has happened or is about to: on x86 dirty implies soft-dirty (B.7). */
static inline struct pte pte_mkdirty(struct pte pte)
{
	return (struct pte){pte.v | PTE_DIRTY | PTE_SOFT_DIRTY};
}

static inline struct pte pte_mkclean(struct pte pte)
{
	return (struct pte){pte.v & ~PTE_DIRTY};
}

static inline struct pte pte_mkyoung(struct pte pte)
{
	return (struct pte){pte.v | PTE_ACCESSED};
}

static inline struct pte pte_mkold(struct pte pte)
{
	return (struct pte){pte.v & ~PTE_ACCESSED};
}

static inline struct pte pte_mk_soft_dirty(struct pte pte)
{
	return (struct pte){pte.v | PTE_SOFT_DIRTY};
}

/* No access until a fault; write permission does not survive (B.6). */
static inline struct pte pte_mk_protnone(struct pte pte)
{
	return (struct pte){(pte.v | PTE_PROTNONE) & ~PTE_WRITE};
}

/* As kernels before 6.2 armed NUMA hints: the write permission waits behind the protnone bit for the hinting fault. */
static inline struct pte pte_mk_protnone_keep_write(struct pte pte)
{
	return (struct pte){pte.v | PTE_PROTNONE};
}

static inline struct pte pte_clear_protnone(struct pte pte)
{
	return (struct pte){pte.v & ~PTE_PROTNONE};
}

static inline struct pte pte_clear_soft_dirty(struct pte pte)
{
	return (struct pte){pte.v & ~PTE_SOFT_DIRTY};
}

static inline struct pte pte_mk_locked(struct pte pte)
{
	return (struct pte){pte.v | PTE_LOCKED};
}

static inline struct pte pte_clear_locked(struct pte pte)
{
	return (struct pte){pte.v & ~PTE_LOCKED};
}

/* Of an entry that is present or swapped: a present one loses its write permission (0.1, invariant 6). */
static inline struct pte pte_mk_uffd_wp(struct pte pte)
{
	return (struct pte){(pte_is_present(pte) ? pte.v & ~PTE_WRITE : pte.v) | PTE_UFFD_WP};
}

/* A marker that remembers nothing else goes. */
static inline struct pte pte_clear_uffd_wp(struct pte pte)
{
	if (unlikely(pte.v == (PTE_TYPE_MARKER | PTE_UFFD_WP)))
		return pte_none();
	return (struct pte){pte.v & ~PTE_UFFD_WP};
}

/* pte_inherit - @pte with the soft-dirty and userfaultfd bits of @old (unshare faults, B.3). */
static inline struct pte pte_inherit(struct pte pte, struct pte old)
{
	return (struct pte){pte.v | (old.v & (PTE_SOFT_DIRTY | PTE_UFFD_WP))};
}

/* ---- swap entries (B.6) ---- */

#define SWAP_SLOT_BITS 35

static inline struct swap_entry swap_entry_make(unsigned device, uint64_t slot)
{
	return (struct swap_entry){((uint64_t)device << SWAP_SLOT_BITS | slot) + 1};
}

static inline bool swap_entry_is_none(struct swap_entry entry)
{
	return !entry.v;
}

static inline unsigned swap_entry_device(struct swap_entry entry)
{
	return (unsigned)((entry.v - 1) >> SWAP_SLOT_BITS);
}

static inline uint64_t swap_entry_slot(struct swap_entry entry)
{
	return (entry.v - 1) & (((uint64_t)1 << SWAP_SLOT_BITS) - 1);
}

/* pte_make_swap - what replaces @old, whose page goes to @entry; what is tracked and whether it is accessible stays. */
static inline struct pte pte_make_swap(struct swap_entry entry, bool exclusive, struct pte old)
{
	return (struct pte){(entry.v - 1) << PTE_FRAME_SHIFT | PTE_TYPE_SWAP | (exclusive ? PTE_WRITE : 0) |
			    (old.v & (PTE_SOFT_DIRTY | PTE_UFFD_WP | PTE_PROTNONE))};
}

/* Requires (the next four): pte_is_swap. */
static inline struct swap_entry pte_swap_entry(struct pte pte)
{
	return (struct swap_entry){((pte.v & PTE_FRAME_MASK) >> PTE_FRAME_SHIFT) + 1};
}

static inline bool pte_swap_is_exclusive(struct pte pte)
{
	return pte.v & PTE_WRITE;
}

static inline struct pte pte_swap_mk_protnone(struct pte pte)
{
	return (struct pte){pte.v | PTE_PROTNONE};
}

static inline struct pte pte_swap_share(struct pte pte)
{
	return (struct pte){pte.v & ~PTE_WRITE};
}

/* ---- markers ---- */

static inline struct pte pte_make_wp_marker(void)
{
	return (struct pte){PTE_TYPE_MARKER | PTE_UFFD_WP};
}

/* pte_zapped - what the entry of a file mapping leaves behind when its page goes but the mapping stays (B.7). */
static inline struct pte pte_zapped(struct pte pte)
{
	return pte_is_uffd_wp(pte) ? pte_make_wp_marker() : pte_none();
}

static inline struct pte pte_make_poison(void)
{
	return (struct pte){PTE_TYPE_MARKER | PTE_POISONED};
}

static inline bool pte_is_poison(struct pte pte)
{
	return pte_is_marker(pte) && (pte.v & PTE_POISONED);
}

/* pte_page - the page behind the entry. Requires: pte_has_page. */
static inline struct ucow_page *pte_page(const struct frame_pool *pool, struct pte pte)
{
	UCOW_BUG_ON(!pte_has_page(pte));
	return pfn_to_page(pool, pte_frame(pte));
}

/* pte_host - the bytes behind a present entry of any kind. */
static inline void *pte_host(const struct frame_pool *pool, struct pte pte)
{
	if (pte_kind(pte) == PTE_KIND_PFN)
		return (void *)(uintptr_t)(pte_frame(pte) << PTE_FRAME_SHIFT);
	return pool->ram + (pte_frame(pte) << UCOW_PAGE_SHIFT);
}

/*
 * pte_memory - names the memory behind the entry: two entries with the same name show the same bytes. 0: none, or the
 * zero page, which reads the same as an empty entry of private memory.
 */
static inline uint64_t pte_memory(struct pte pte)
{
	if (pte_kind(pte) == PTE_KIND_PFN)
		return pte.v & PTE_FRAME_MASK;
	if (pte_is_swap(pte))
		return (pte.v & PTE_FRAME_MASK) | 2;
	return pte_has_page(pte) ? (pte.v & PTE_FRAME_MASK) | 1 : 0; /* addresses have no low bits */
}

#endif
