/* SPDX-License-Identifier: MIT */
/*
 * Mutation builds: each name switches one rule off, and the test suite must notice (scripts/mutants). A normal build
 * defines none of them, MUTATED(...) is then the constant 0.
 */
#ifndef BASE_MUTATE_H
#define BASE_MUTATE_H

/* The mutants, and the rule that each one breaks:
 *   SKIP_EARLY_COPY             fork shares pinned exclusive pages                      semantics.md B.4
 *   REUSE_SHARED                a write fault reuses a page that others map             B.3
 *   SKIP_UNSHARE                a read pin takes a shared page as it is                 B.5
 *   FORGET_WRITE_PROTECT        fork leaves the parent's entries writable               B.4
 *   SKIP_TLB_BUMP               fork and zap leave cached translations valid            rule 10
 *   UPGRADE_SHARED              mprotect makes shared pages writable at once            B.6
 *   SKIP_ZEROING                fresh memory shows what the frame held                  B.2
 *   LOSE_DONTFORK               fork copies MADV_DONTFORK ranges                        B.4
 *   FORCE_MAKES_WRITABLE        a forced write leaves the entry writable                B.5
 *   LEAK_REF_ON_ZAP             unmapping forgets the page reference                    B.0, invariant 7
 *   KEEP_EXCLUSIVE_AT_FORK      fork forgets to clear the exclusive flag                B.1
 *   LOSE_PIN_ON_MOVE            mremap copies the page instead of moving it             B.1
 *   SHARE_MARKED                fork shares tables that may hold references             rule 4
 *   UNSHARE_NO_COUNT            an unshare forgets to count the pages of its copy       rule 1, invariant 7
 *   KEEP_WRITE_ON_SHARED_PATH   the TLB takes writes below a shared table               rule 8
 *   STALE_WALK                  an unshare lets remembered walks live on                rule 8
 *   FORGET_MARK                 a get or pin leaves no mark                             rule 4
 *   KEEP_STALE_MARK             a mark stays when its references have gone              rule 4
 *   LOSE_MARK_ON_MOVE           mremap leaves the marks behind                          rule 4
 *   CHANGE_SHARED_RANGE         mprotect and its like do not unshare first              rule 1
 *   ZAP_WITHOUT_RESERVE         freeing memory fails for lack of it                     rule 2
 *   KEEP_CACHED_ZEROS           a fill leaves translations of the zero page             rule 5
 *   SKIP_BARRIER                a shootdown does without membarrier                     rule 10
 *   SKIP_WAIT                   a shootdown does not wait for accesses                  rule 10
 *   SKIP_RECHECK                a walk does not look at the shape again                 rule 8
 *   EARLY_REUSE                 a replaced page is let go of at once                    rule 11
 *   SKIP_SEQUENCE               a fast pin does not look for a fork                     rule 17
 *   SKIP_GUP_RECHECK            a fast pin does not walk again                          rule 17
 *   SKIP_UNSHARE_RECHECK        an unshare does not look whether others remain          rule 3
 *   FREE_TABLE_AT_ONCE          tables are freed without a grace period                 rule 8
 *   DROP_BEFORE_SHOOTDOWN       zapped pages go before the cpus have left               rule 10
 *   FORK_WITHOUT_EXPEL          fork lets accesses run on                               rule 14
 *   FORGET_CPU                  attaching a cpu does not tell its space                 rule 12
 *   SKIP_OWN_RECHECK            an unshare does not look at the place again             rule 3
 *   KEEP_LATE_WALKS             fork leaves walks alone that were made while it waited  rule 14
 *   SWAPIN_SETS_EXCLUSIVE       a page read back from swap is always exclusive          B.6
 *   RECLAIM_PINNED              reclaim takes pages that are held                       B.1, rule 18
 *   SWAPOUT_IGNORES_PINS        an unmapping does not look again for pins               B.1
 *   RECLAIM_WITHOUT_SHOOTDOWN   swapped pages stay cached                               rule 6
 *   SWAPOFF_LOSES_EXCLUSIVE     swapoff forgets the entry's exclusive bit               B.6
 *   SWAP_FORK_KEEPS_EXCLUSIVE   fork leaves swap entries exclusive                      B.4
 *   RECLAIM_WITHOUT_WAIT        pages are written out while accesses go on              ORD-GEN-1
 *   DROP_SLOT_EARLY             a slot goes before the entry that names it              ORD-SWAP-1
 *   SKIP_UNLOCK_RECHECK         nobody looks for slots that came free meanwhile         ORD-SWAP-2
 *   EVICT_REFERENCED            a page is freed though somebody has looked it up        docs/reclaim.md, 6
 *   MOVE_WITHOUT_FAMILY         mremap leaves pages where reclaim cannot find them      ORD-RMAP-1
 *   CHARGE_EARLY_COPY_TO_CHILD  a fork charges early copies to the child's group        B.9
 *   FORGET_UNCHARGE             a page that is freed stays charged                      B.9
 *   SWAPIN_CHARGES_FAULTER      a page read back is charged to whoever asks             B.9
 *   LIMIT_IGNORES_ANCESTORS     a charge does not look at the groups above              B.9
 *   FORGET_FILE_DIRTY           a store to a mapping of a file leaves the page clean    B.8
 *   TRUNCATE_KEEPS_COPIES       truncation leaves private copies beyond the end         B.2
 *   FILE_WRITABLE_ON_READ       a load maps a page of a file for stores too             B.8
 *   SKIP_MKCLEAN                writeback leaves entries writable                       B.8
 *   MKCLEAN_WITHOUT_WAIT        writeback does not wait for stores                      rule 10
 *   WRITEBACK_CLEANS_PINNED     writeback cleans pages that may be pinned               B.8
 *   WRITE_ERROR_CLEANS          a page that could not be written is clean               B.8
 *   RECLAIM_PINNED_FILE         reclaim unmaps pages of files that are held             B.8
 *   LONGTERM_FILE_WRITE         files may be pinned for long for writing                A.2
 *   MERGE_WITHOUT_COMPARE       pages are merged because of their hash                  B.6, KSM
 *   MERGE_WITHOUT_SHOOTDOWN     a merge lets cpus store on                              rule 10
 *   MERGE_IGNORES_REFERENCES    pages with gets and pins are merged                     B.1, invariant 4
 *   MERGE_WITHOUT_CLEARING      a merge looks at references with the entry in place     ORD-GUP-1
 *   UPGRADE_TRACKED             mprotect makes entries writable that are tracked    B.6
 *   CLEAR_PINNED                clearing soft-dirty write-protects pinned pages     B.7
 *   SCAN_WITHOUT_SHOOTDOWN      cpus go on storing to what a scan protected         rule 10
 *   RECLAIM_LOCKED              reclaim takes pages of locked mappings              mlock
 *   COPY_WITHOUT_NOTIFY         a copy does not tell who follows the space          INV-NOTIFY-1
 *   NOTIFY_WITHOUT_SEQUENCE     followers are not told what is going on             ORD-NOTIFY-1
 *   UFFD_WAIT_WITHOUT_RECHECK   who waits for a userfaultfd does not look again         ORD-UFFD-1
 *   UFFD_UNSHARE_NOTIFIES       unshare faults are reported as stores                   B.3
 *   FORK_KEEPS_UFFD_WP          fork leaves the protection on in the child              B.4
 */
#ifdef UCOW_MUTATE_ANY
#include <string.h>

/* One build for all of them: the name of the one that is on, from UCOW_MUTATE in the environment; else NULL. */
extern const char *mutation_chosen;
#define MUTATED(name) (mutation_chosen && !strcmp(mutation_chosen, #name))
#else
#define MUTATED(name) (UCOW_MUTATE_##name)
#endif

#ifndef UCOW_MUTATE_FORGET_FILE_DIRTY
#define UCOW_MUTATE_FORGET_FILE_DIRTY 0
#endif
#ifndef UCOW_MUTATE_TRUNCATE_KEEPS_COPIES
#define UCOW_MUTATE_TRUNCATE_KEEPS_COPIES 0
#endif
#ifndef UCOW_MUTATE_FILE_WRITABLE_ON_READ
#define UCOW_MUTATE_FILE_WRITABLE_ON_READ 0
#endif
#ifndef UCOW_MUTATE_SKIP_MKCLEAN
#define UCOW_MUTATE_SKIP_MKCLEAN 0
#endif
#ifndef UCOW_MUTATE_MKCLEAN_WITHOUT_WAIT
#define UCOW_MUTATE_MKCLEAN_WITHOUT_WAIT 0
#endif
#ifndef UCOW_MUTATE_WRITEBACK_CLEANS_PINNED
#define UCOW_MUTATE_WRITEBACK_CLEANS_PINNED 0
#endif
#ifndef UCOW_MUTATE_WRITE_ERROR_CLEANS
#define UCOW_MUTATE_WRITE_ERROR_CLEANS 0
#endif
#ifndef UCOW_MUTATE_RECLAIM_PINNED_FILE
#define UCOW_MUTATE_RECLAIM_PINNED_FILE 0
#endif
#ifndef UCOW_MUTATE_LONGTERM_FILE_WRITE
#define UCOW_MUTATE_LONGTERM_FILE_WRITE 0
#endif
#ifndef UCOW_MUTATE_SKIP_EARLY_COPY
#define UCOW_MUTATE_SKIP_EARLY_COPY 0
#endif
#ifndef UCOW_MUTATE_REUSE_SHARED
#define UCOW_MUTATE_REUSE_SHARED 0
#endif
#ifndef UCOW_MUTATE_SKIP_UNSHARE
#define UCOW_MUTATE_SKIP_UNSHARE 0
#endif
#ifndef UCOW_MUTATE_FORGET_WRITE_PROTECT
#define UCOW_MUTATE_FORGET_WRITE_PROTECT 0
#endif
#ifndef UCOW_MUTATE_SKIP_TLB_BUMP
#define UCOW_MUTATE_SKIP_TLB_BUMP 0
#endif
#ifndef UCOW_MUTATE_UPGRADE_SHARED
#define UCOW_MUTATE_UPGRADE_SHARED 0
#endif
#ifndef UCOW_MUTATE_SKIP_ZEROING
#define UCOW_MUTATE_SKIP_ZEROING 0
#endif
#ifndef UCOW_MUTATE_LOSE_DONTFORK
#define UCOW_MUTATE_LOSE_DONTFORK 0
#endif
#ifndef UCOW_MUTATE_FORCE_MAKES_WRITABLE
#define UCOW_MUTATE_FORCE_MAKES_WRITABLE 0
#endif
#ifndef UCOW_MUTATE_LEAK_REF_ON_ZAP
#define UCOW_MUTATE_LEAK_REF_ON_ZAP 0
#endif
#ifndef UCOW_MUTATE_KEEP_EXCLUSIVE_AT_FORK
#define UCOW_MUTATE_KEEP_EXCLUSIVE_AT_FORK 0
#endif
#ifndef UCOW_MUTATE_LOSE_PIN_ON_MOVE
#define UCOW_MUTATE_LOSE_PIN_ON_MOVE 0
#endif
#ifndef UCOW_MUTATE_SHARE_MARKED
#define UCOW_MUTATE_SHARE_MARKED 0
#endif
#ifndef UCOW_MUTATE_UNSHARE_NO_COUNT
#define UCOW_MUTATE_UNSHARE_NO_COUNT 0
#endif
#ifndef UCOW_MUTATE_KEEP_WRITE_ON_SHARED_PATH
#define UCOW_MUTATE_KEEP_WRITE_ON_SHARED_PATH 0
#endif
#ifndef UCOW_MUTATE_STALE_WALK
#define UCOW_MUTATE_STALE_WALK 0
#endif
#ifndef UCOW_MUTATE_FORGET_MARK
#define UCOW_MUTATE_FORGET_MARK 0
#endif
#ifndef UCOW_MUTATE_KEEP_STALE_MARK
#define UCOW_MUTATE_KEEP_STALE_MARK 0
#endif
#ifndef UCOW_MUTATE_LOSE_MARK_ON_MOVE
#define UCOW_MUTATE_LOSE_MARK_ON_MOVE 0
#endif
#ifndef UCOW_MUTATE_CHANGE_SHARED_RANGE
#define UCOW_MUTATE_CHANGE_SHARED_RANGE 0
#endif
#ifndef UCOW_MUTATE_ZAP_WITHOUT_RESERVE
#define UCOW_MUTATE_ZAP_WITHOUT_RESERVE 0
#endif
#ifndef UCOW_MUTATE_KEEP_CACHED_ZEROS
#define UCOW_MUTATE_KEEP_CACHED_ZEROS 0
#endif
#ifndef UCOW_MUTATE_SKIP_BARRIER
#define UCOW_MUTATE_SKIP_BARRIER 0
#endif
#ifndef UCOW_MUTATE_SKIP_WAIT
#define UCOW_MUTATE_SKIP_WAIT 0
#endif
#ifndef UCOW_MUTATE_SKIP_RECHECK
#define UCOW_MUTATE_SKIP_RECHECK 0
#endif
#ifndef UCOW_MUTATE_EARLY_REUSE
#define UCOW_MUTATE_EARLY_REUSE 0
#endif
#ifndef UCOW_MUTATE_SKIP_SEQUENCE
#define UCOW_MUTATE_SKIP_SEQUENCE 0
#endif
#ifndef UCOW_MUTATE_SKIP_GUP_RECHECK
#define UCOW_MUTATE_SKIP_GUP_RECHECK 0
#endif
#ifndef UCOW_MUTATE_SKIP_UNSHARE_RECHECK
#define UCOW_MUTATE_SKIP_UNSHARE_RECHECK 0
#endif
#ifndef UCOW_MUTATE_FREE_TABLE_AT_ONCE
#define UCOW_MUTATE_FREE_TABLE_AT_ONCE 0
#endif
#ifndef UCOW_MUTATE_DROP_BEFORE_SHOOTDOWN
#define UCOW_MUTATE_DROP_BEFORE_SHOOTDOWN 0
#endif
#ifndef UCOW_MUTATE_FORK_WITHOUT_EXPEL
#define UCOW_MUTATE_FORK_WITHOUT_EXPEL 0
#endif
#ifndef UCOW_MUTATE_FORGET_CPU
#define UCOW_MUTATE_FORGET_CPU 0
#endif
#ifndef UCOW_MUTATE_SKIP_OWN_RECHECK
#define UCOW_MUTATE_SKIP_OWN_RECHECK 0
#endif
#ifndef UCOW_MUTATE_KEEP_LATE_WALKS
#define UCOW_MUTATE_KEEP_LATE_WALKS 0
#endif
#ifndef UCOW_MUTATE_SWAPIN_SETS_EXCLUSIVE
#define UCOW_MUTATE_SWAPIN_SETS_EXCLUSIVE 0
#endif
#ifndef UCOW_MUTATE_RECLAIM_PINNED
#define UCOW_MUTATE_RECLAIM_PINNED 0
#endif
#ifndef UCOW_MUTATE_SWAPOUT_IGNORES_PINS
#define UCOW_MUTATE_SWAPOUT_IGNORES_PINS 0
#endif
#ifndef UCOW_MUTATE_RECLAIM_WITHOUT_SHOOTDOWN
#define UCOW_MUTATE_RECLAIM_WITHOUT_SHOOTDOWN 0
#endif
#ifndef UCOW_MUTATE_SWAPOFF_LOSES_EXCLUSIVE
#define UCOW_MUTATE_SWAPOFF_LOSES_EXCLUSIVE 0
#endif
#ifndef UCOW_MUTATE_SWAP_FORK_KEEPS_EXCLUSIVE
#define UCOW_MUTATE_SWAP_FORK_KEEPS_EXCLUSIVE 0
#endif
#ifndef UCOW_MUTATE_RECLAIM_WITHOUT_WAIT
#define UCOW_MUTATE_RECLAIM_WITHOUT_WAIT 0
#endif
#ifndef UCOW_MUTATE_DROP_SLOT_EARLY
#define UCOW_MUTATE_DROP_SLOT_EARLY 0
#endif
#ifndef UCOW_MUTATE_SKIP_UNLOCK_RECHECK
#define UCOW_MUTATE_SKIP_UNLOCK_RECHECK 0
#endif
#ifndef UCOW_MUTATE_EVICT_REFERENCED
#define UCOW_MUTATE_EVICT_REFERENCED 0
#endif
#ifndef UCOW_MUTATE_MOVE_WITHOUT_FAMILY
#define UCOW_MUTATE_MOVE_WITHOUT_FAMILY 0
#endif
#ifndef UCOW_MUTATE_CHARGE_EARLY_COPY_TO_CHILD
#define UCOW_MUTATE_CHARGE_EARLY_COPY_TO_CHILD 0
#endif
#ifndef UCOW_MUTATE_FORGET_UNCHARGE
#define UCOW_MUTATE_FORGET_UNCHARGE 0
#endif
#ifndef UCOW_MUTATE_SWAPIN_CHARGES_FAULTER
#define UCOW_MUTATE_SWAPIN_CHARGES_FAULTER 0
#endif
#ifndef UCOW_MUTATE_LIMIT_IGNORES_ANCESTORS
#define UCOW_MUTATE_LIMIT_IGNORES_ANCESTORS 0
#endif
#ifndef UCOW_MUTATE_MERGE_WITHOUT_COMPARE
#define UCOW_MUTATE_MERGE_WITHOUT_COMPARE 0
#endif
#ifndef UCOW_MUTATE_MERGE_WITHOUT_SHOOTDOWN
#define UCOW_MUTATE_MERGE_WITHOUT_SHOOTDOWN 0
#endif
#ifndef UCOW_MUTATE_MERGE_IGNORES_REFERENCES
#define UCOW_MUTATE_MERGE_IGNORES_REFERENCES 0
#endif
#ifndef UCOW_MUTATE_MERGE_WITHOUT_CLEARING
#define UCOW_MUTATE_MERGE_WITHOUT_CLEARING 0
#endif
#ifndef UCOW_MUTATE_UPGRADE_TRACKED
#define UCOW_MUTATE_UPGRADE_TRACKED 0
#endif
#ifndef UCOW_MUTATE_CLEAR_PINNED
#define UCOW_MUTATE_CLEAR_PINNED 0
#endif
#ifndef UCOW_MUTATE_SCAN_WITHOUT_SHOOTDOWN
#define UCOW_MUTATE_SCAN_WITHOUT_SHOOTDOWN 0
#endif
#ifndef UCOW_MUTATE_RECLAIM_LOCKED
#define UCOW_MUTATE_RECLAIM_LOCKED 0
#endif
#ifndef UCOW_MUTATE_COPY_WITHOUT_NOTIFY
#define UCOW_MUTATE_COPY_WITHOUT_NOTIFY 0
#endif
#ifndef UCOW_MUTATE_NOTIFY_WITHOUT_SEQUENCE
#define UCOW_MUTATE_NOTIFY_WITHOUT_SEQUENCE 0
#endif
#ifndef UCOW_MUTATE_UFFD_WAIT_WITHOUT_RECHECK
#define UCOW_MUTATE_UFFD_WAIT_WITHOUT_RECHECK 0
#endif
#ifndef UCOW_MUTATE_UFFD_UNSHARE_NOTIFIES
#define UCOW_MUTATE_UFFD_UNSHARE_NOTIFIES 0
#endif
#ifndef UCOW_MUTATE_FORK_KEEPS_UFFD_WP
#define UCOW_MUTATE_FORK_KEEPS_UFFD_WP 0
#endif

#endif
