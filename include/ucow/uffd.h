/* SPDX-License-Identifier: MIT */
/*
 * userfaultfd: a program's own fault handler for ranges of a space. Pages that are missing are supplied by it, stores
 * to pages that it write-protected are reported to it, and so are the ones that find their page in shared memory but
 * not yet mapped. As userfaultfd(2), with Linux's names; docs/semantics.md A.4, B.7. ucow_uffd(3) tells more.
 *
 * Whoever faults waits, holding no lock, until the range is woken: by copy, zeropage, continue, writeprotect, move,
 * poison (unless told not to), by wake, unregister or close. It then tries again. A handler learns of faults in one of
 * two ways: a callback on the faulting thread, or messages from a queue, which another thread reads.
 */
#ifndef UCOW_UFFD_H
#define UCOW_UFFD_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A userfaultfd: belongs to one space, may watch many ranges of it. */
struct ucow_uffd;

/** What is reported of a registered range; any combination. */
#define UCOW_UFFD_MISSING 1u /* accesses where there is no page: nothing was ever there, or it was dropped */
#define UCOW_UFFD_WP      2u /* stores to pages that ucow_uffd_writeprotect has protected */
#define UCOW_UFFD_MINOR   4u /* shared memory: there is a page, which this mapping does not show yet */

/** Features, chosen at creation. */
#define UCOW_UFFD_FEATURE_EVENT_FORK     (1u << 0) /* children are watched too, by a userfaultfd of their own */
#define UCOW_UFFD_FEATURE_EVENT_REMAP    (1u << 1) /* ranges that mremap moves stay registered, and protected */
#define UCOW_UFFD_FEATURE_EVENT_REMOVE   (1u << 2) /* madvise DONTNEED and FREE report the range, before */
#define UCOW_UFFD_FEATURE_EVENT_UNMAP    (1u << 3) /* munmap, and what else unmaps, reports the range, afterwards */
#define UCOW_UFFD_FEATURE_SIGBUS         (1u << 4) /* faults are not reported: the access fails with -ENXIO */
#define UCOW_UFFD_FEATURE_WP_UNPOPULATED (1u << 5) /* private memory: pages not there yet can be protected too */
#define UCOW_UFFD_FEATURE_WP_ASYNC       (1u << 6) /* a store lifts the protection itself; implies WP_UNPOPULATED */
#define UCOW_UFFD_FEATURES               0x7fu

enum ucow_uffd_event {
	UCOW_UFFD_EVENT_PAGEFAULT,
	UCOW_UFFD_EVENT_FORK,
	UCOW_UFFD_EVENT_REMAP,
	UCOW_UFFD_EVENT_REMOVE,
	UCOW_UFFD_EVENT_UNMAP,
};

/** Of a PAGEFAULT. */
#define UCOW_UFFD_FAULT_WRITE 1u /* the access is a store */
#define UCOW_UFFD_FAULT_WP    2u /* to a protected page */
#define UCOW_UFFD_FAULT_MINOR 4u /* the page is there, but not mapped. Neither WP nor MINOR: it is missing */

struct ucow_uffd_msg {
	enum ucow_uffd_event event;
	unsigned flags;          /* PAGEFAULT: UCOW_UFFD_FAULT_* */
	uint64_t va;             /* PAGEFAULT: the page; REMAP: where it was; REMOVE, UNMAP: start */
	uint64_t length;         /* REMAP, REMOVE, UNMAP: of the range */
	uint64_t to;             /* REMAP: where it is now */
	struct ucow_uffd *child; /* FORK: the child's, with the same features; the receiver closes it */
};

enum ucow_uffd_answer {
	UCOW_UFFD_QUEUE,    /* not mine: to the queue with it, and wait */
	UCOW_UFFD_RESOLVED, /* dealt with: try again */
	UCOW_UFFD_SIGBUS,   /* the access fails with -ENXIO; of events other than PAGEFAULT as RESOLVED */
};

struct ucow_uffd_options {
	size_t size;       /* sizeof(struct ucow_uffd_options) */
	uint32_t features; /* UCOW_UFFD_FEATURE_* */
	/*
	 * Called on the thread that faults, forks, unmaps, ..., before anything is queued, with no lock held: it may
	 * call ucow, on this space too. A fault of its own calls it again. NULL: everything goes to the queue.
	 */
	enum ucow_uffd_answer (*callback)(void *arg, struct ucow_uffd *uffd, const struct ucow_uffd_msg *msg);
	void *arg; /* passed to the callback; children's too */
};

/** ucow_uffd_create - watch nothing of @mm yet. Returns: 0; -EINVAL; -ENOMEM; -EACCES (a snapshot). Thread: any. */
UCOW_API UCOW_NODISCARD int ucow_uffd_create(struct ucow_mm *mm, const struct ucow_uffd_options *options,
					     struct ucow_uffd **uffd);

/**
 * ucow_uffd_shutdown - unregister everything, lift all protection, wake everybody. What waits in the queue is dropped,
 * children that nobody has received included, and reads fail with -EBADF from now on: so that threads that read end,
 * and ucow_uffd_close may follow. Thread: any, one at a time.
 */
UCOW_API void ucow_uffd_shutdown(struct ucow_uffd *uffd);

/**
 * ucow_uffd_close - ucow_uffd_shutdown, if that was not called, and free @uffd. NULL is allowed. May come after the
 * space has ended. Thread: any; no other call on @uffd may begin, but one that waits in ucow_uffd_read may end.
 */
UCOW_API void ucow_uffd_close(struct ucow_uffd *uffd);

/** ucow_uffd_mm - the space that is watched; NULL: it has ended, or the userfaultfd was shut down. Thread: any. */
UCOW_API struct ucow_mm *ucow_uffd_mm(const struct ucow_uffd *uffd);

/** What may be done with a registered range. */
#define UCOW_UFFD_CAN_COPY         (1u << 0)
#define UCOW_UFFD_CAN_ZEROPAGE     (1u << 1)
#define UCOW_UFFD_CAN_CONTINUE     (1u << 2)
#define UCOW_UFFD_CAN_WRITEPROTECT (1u << 3)
#define UCOW_UFFD_CAN_MOVE         (1u << 4)
#define UCOW_UFFD_CAN_POISON       (1u << 5)
#define UCOW_UFFD_CAN_WAKE         (1u << 6)

/**
 * ucow_uffd_register - report faults of the mappings in [va, va + length), holes aside, as @modes (UCOW_UFFD_*) say.
 *
 * A range that is registered here already gets the new modes. @can (may be NULL): what may be done with the range.
 * Returns: 0; -EINVAL (no mapping, modes, alignment, or a mapping that cannot be: host memory; MINOR on private
 * memory); -EBUSY (registered with another); -EPERM (a mapping that may never be written); -ENOMEM; -ESRCH (the space
 * has ended). On failure nothing has changed. Thread: any; takes mmap_lock exclusively.
 */
UCOW_API UCOW_NODISCARD int ucow_uffd_register(struct ucow_uffd *uffd, uint64_t va, uint64_t length, unsigned modes,
					       unsigned *can);

/**
 * ucow_uffd_unregister - report no more from the range; its protection is lifted, its waiters are woken. Other ranges
 * in it are left alone. Returns: 0; -EINVAL (no mapping, alignment); -ENOMEM; -ESRCH. Thread: as register.
 */
UCOW_API int ucow_uffd_unregister(struct ucow_uffd *uffd, uint64_t va, uint64_t length);

/** Of the calls below. */
#define UCOW_UFFD_MODE_DONTWAKE        1u /* leave waiters asleep */
#define UCOW_UFFD_MODE_WP              2u /* copy, continue: protect the new page; writeprotect: protect, not lift */
#define UCOW_UFFD_MODE_ALLOW_SRC_HOLES 4u /* move: skip what is empty at the source */

/*
 * The next six act on [va, va + length), page aligned, inside one mapping that is registered (move: with @uffd). They
 * go page by page, and report how many bytes were done in *done (may be NULL), on failure too; what was done is woken.
 * Returns: 0; -ENOENT (no such mapping, or not registered); -EINVAL; -EAGAIN (mappings are changing: a fork or
 * mremap whose event has not been received; try again); -ENOMEM; -ESRCH; and as said. Thread: any; take mmap_lock
 * shared, but for move.
 */

/**
 * ucow_uffd_copy - supply pages with the bytes at @source, before anybody can see them. A private mapping gets pages of
 * its own, a shared one's object gets them. Returns: also -EEXIST (there is something); -EFAULT (beyond the object).
 */
UCOW_API UCOW_NODISCARD int ucow_uffd_copy(struct ucow_uffd *uffd, uint64_t va, const void *source, uint64_t length,
					   unsigned mode, uint64_t *done);

/** ucow_uffd_zeropage - supply pages that read as zeros. Returns: as ucow_uffd_copy. */
UCOW_API UCOW_NODISCARD int ucow_uffd_zeropage(struct ucow_uffd *uffd, uint64_t va, uint64_t length, unsigned mode,
					       uint64_t *done);

/** ucow_uffd_continue - map the pages that shared memory has. Returns: also -EFAULT (it has none); -EEXIST. */
UCOW_API UCOW_NODISCARD int ucow_uffd_continue(struct ucow_uffd *uffd, uint64_t va, uint64_t length, unsigned mode,
					       uint64_t *done);

/** ucow_uffd_poison - the next access fails with -ENXIO, and every one until the page is dropped. Returns: also
 * -EEXIST.
 */
UCOW_API UCOW_NODISCARD int ucow_uffd_poison(struct ucow_uffd *uffd, uint64_t va, uint64_t length, unsigned mode,
					     uint64_t *done);

/**
 * ucow_uffd_move - move pages of private memory from @source to @va, where nothing may be: the pages themselves, no
 * copy. The source is empty afterwards.
 * Returns: also -EBUSY (a page that is shared or may be pinned); -ENOENT (nothing at the source, without
 * ALLOW_SRC_HOLES); -EEXIST. Takes mmap_lock exclusively.
 */
UCOW_API UCOW_NODISCARD int ucow_uffd_move(struct ucow_uffd *uffd, uint64_t va, uint64_t source, uint64_t length,
					   unsigned mode, uint64_t *done);

/**
 * ucow_uffd_writeprotect - protect the pages of a range against stores (MODE_WP), or lift that and wake.
 *
 * Of private memory only pages that are there, unless WP_UNPOPULATED. The range may span mappings; all must be
 * registered with UCOW_UFFD_WP. When it returns no store goes on in a protected page.
 * Returns: 0; -EINVAL; -ENOENT (a mapping that is not: those before it have changed); -EAGAIN; -ENOMEM; -ESRCH. Thread:
 * any; takes mmap_lock shared.
 */
UCOW_API UCOW_NODISCARD int ucow_uffd_writeprotect(struct ucow_uffd *uffd, uint64_t va, uint64_t length, unsigned mode);

/** ucow_uffd_wake - those who wait in the range try again. Returns: 0; -EINVAL. Thread: any. */
UCOW_API int ucow_uffd_wake(struct ucow_uffd *uffd, uint64_t va, uint64_t length);

/**
 * ucow_uffd_read - receive up to @n messages: faults first, then events, each oldest first. With @wait, sleep until
 * there is one. Returns: how many; -EAGAIN (none, without @wait); -EINVAL (@n is 0); -EBADF: closed meanwhile. Thread:
 * any.
 */
UCOW_API UCOW_NODISCARD long ucow_uffd_read(struct ucow_uffd *uffd, struct ucow_uffd_msg *msgs, size_t n, bool wait);

/**
 * ucow_uffd_fd - a file descriptor for poll(2) and epoll(7): readable (POLLIN) while there are messages. It is
 * ucow_uffd_close's to close, and not for reading: ucow_uffd_read is. Returns: the descriptor; -EMFILE, -ENFILE,
 * -ENOMEM as eventfd(2). Thread: any.
 */
UCOW_API UCOW_NODISCARD int ucow_uffd_fd(struct ucow_uffd *uffd);

#ifdef __cplusplus
}
#endif
#endif
