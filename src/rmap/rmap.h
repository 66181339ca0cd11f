/* SPDX-License-Identifier: MIT */
/*
 * From a page to the entries that map it, by its family (table/table.h). One visit serves every space that shares the
 * leaf: the cost is that of the distinct leaves, not of the forks.
 */
#ifndef RMAP_RMAP_H
#define RMAP_RMAP_H

#include "space/mm.h"

/* An entry that maps the page. @va has the right place in its leaf, and is otherwise meaningless. */
struct rmap_entry {
	struct table *leaf; /* locked */
	uint64_t va;
	struct pte pte;
};

enum rmap_result {
	RMAP_DONE,    /* every entry that maps the page was visited */
	RMAP_BUSY,    /* leaves were locked by somebody else again and again: some entries were not visited */
	RMAP_STOPPED, /* @visit said so */
};

/*
 * rmap_walk - call @visit for each entry that maps @page, a private page. It may change the entry by leaf_set, takes no
 * other table lock, and returns whether to go on; one that it leaves as it is it may meet again. An entry that another
 * thread is moving (mremap) may be missed. Requires: a reference to @page and its lock, under which it stays merged or
 * not; no table lock.
 */
enum rmap_result rmap_walk(struct ucow_machine *machine, struct ucow_page *page,
			   bool (*visit)(void *arg, const struct rmap_entry *entry), void *arg);

/*
 * rmap_walk_swap - the same for the entries that name @entry, the slot that @page, in the swap cache, has. @is_named:
 * whether any does, asked once, when the walk could begin: else the family may be gone. Requires: the page lock,
 * besides.
 */
enum rmap_result rmap_walk_swap(struct ucow_machine *machine, struct ucow_page *page, struct swap_entry entry,
				bool (*is_named)(void *arg), bool (*visit)(void *arg, const struct rmap_entry *entry),
				void *arg);

/*
 * What page->mapping of a merged page points to begins with this. A swap slot that such a page goes to keeps it: the
 * page that comes back is the same merged page, in another frame.
 */
struct rmap_merged {
	_Atomic(struct ucow_page *) page; /* the page, or what was the page when it went out; no reference */
	_Atomic uint32_t slots;           /* swap slots that name this */
};

/*
 * A merged page (PAGE_KSM) has been born in many places: who keeps them lists them. @each is called for every family
 * and home, and returns whether to go on. Set by whoever merges pages.
 */
struct rmap_homes {
	void (*for_each)(void *arg, struct ucow_page *page, bool (*each)(void *arg, struct family *family, int home),
			 void *each_arg);
	void *arg;
};

#endif
