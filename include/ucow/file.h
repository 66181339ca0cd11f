/* SPDX-License-Identifier: MIT */
/*
 * Files: a page cache in front of a host file, or of nothing (memory-backed), that spaces map shared and private, and
 * that is read and written by calls too. What a shared mapping stores becomes dirty and reaches the host file by
 * writeback: when asked to, by age, or under pressure. Offsets and lengths are bytes.
 *
 * The engine is the only one to write to the host file's part meanwhile; what others write there is seen only where it
 * is not in the cache yet. Rules: docs/semantics.md A.2, B.2, B.8.
 */
#ifndef UCOW_FILE_H
#define UCOW_FILE_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A file that is open. Several may be open on one cache (ucow_file_reopen); each is told of each write error once. */
struct ucow_file;

/** The opener may not write: no ucow_file_write, no shared mapping that can be written, no truncating, no punching. */
#define UCOW_FILE_READ_ONLY (1u << 0)

struct ucow_file_options {
	size_t size; /* sizeof(struct ucow_file_options) */
	/*
	 * The host file: a regular file or a block device, opened for reading and, without UCOW_FILE_READ_ONLY, writing
	 * (duplicated; the caller's may be closed). -1: memory-backed, as shmem: never written back, never written
	 * protected for tracking (B.8).
	 */
	int fd;
	uint32_t flags;  /* UCOW_FILE_* */
	uint64_t offset; /* where in the host file byte 0 is; page aligned */
	/*
	 * With a descriptor 0: to the end of the host file, which truncating changes and writing extends. Else the size
	 * in bytes: of a part of the host file, which stays as long as that, or of memory.
	 */
	uint64_t length;
	uint32_t readahead; /* most pages that one miss reads; 0: the default, 32; 1: no readahead */
	uint32_t reserved;  /* 0 */
};

/**
 * ucow_file_open - a cache in front of a host file, or of nothing, and its first opener.
 * Returns: 0; -EINVAL (options, descriptor); -EBADF; -EACCES (the descriptor's mode); -ENOMEM. Thread: any.
 */
UCOW_API UCOW_NODISCARD int ucow_file_open(struct ucow_machine *machine, const struct ucow_file_options *options,
					   struct ucow_file **file);

/**
 * ucow_file_reopen - one more opener of the same cache. Errors that some opener has been told of are not reported to
 * it.
 * @flags: UCOW_FILE_READ_ONLY, which must be there if @file has it.
 * Returns: 0; -EINVAL; -ENOMEM. Thread: any.
 */
UCOW_API UCOW_NODISCARD int ucow_file_reopen(struct ucow_file *file, uint32_t flags, struct ucow_file **result);

/**
 * ucow_file_close - mappings of it stay, and keep it open. With the last opener and mapping what is dirty is written
 * back, then the cache ends; pages that are pinned live on.
 * Returns: 0; -EIO, -ENOSPC, ...: writing failed, now or earlier, and nobody was told yet; the file is closed all the
 * same. Thread: any; no other call on @file may be running.
 */
UCOW_API int ucow_file_close(struct ucow_file *file);

/**
 * ucow_mmap_file - map @length bytes of @file from @offset on, which is page aligned. What lies beyond the file's end
 * is mapped too, and an access to it is refused like SIGBUS (-ENXIO), but for the rest of the last page, which reads as
 * zeros and is never written to the host file.
 *
 * A private mapping copies a page of the file on the first store; until then it sees what is stored to the file.
 * @hint, @flags: as ucow_mmap, without UCOW_MAP_PFN.
 * Returns: 0 and the address in @va; -EINVAL; -EACCES (@file is read-only and the mapping shared and writable);
 * -ENOMEM; -EEXIST; -EOVERFLOW. Thread: any; takes mmap_lock exclusively.
 */
UCOW_API UCOW_NODISCARD int ucow_mmap_file(struct ucow_mm *mm, uint64_t hint, uint64_t length, unsigned prot,
					   unsigned flags, struct ucow_file *file, uint64_t offset, uint64_t *va);

/**
 * ucow_file_read, ucow_file_write - through the cache, as read(2) and write(2) with an offset. A write beyond the end
 * extends the file, unless it is a part of a host file or memory-backed (-EFBIG).
 * Returns: the number of bytes, which is smaller at the end of the file or where an error came later; -EINVAL; -EACCES
 * (read-only); -EFBIG; -ENOMEM; -EIO (the host file could not be read). Thread: any, not inside a span.
 */
UCOW_API UCOW_NODISCARD long ucow_file_read(struct ucow_file *file, void *buffer, size_t nbytes, uint64_t offset);
UCOW_API UCOW_NODISCARD long ucow_file_write(struct ucow_file *file, const void *buffer, size_t nbytes,
					     uint64_t offset);

/**
 * ucow_file_truncate - set the size, the host file's too. What is mapped beyond it goes from all spaces, private copies
 * included; a page that is pinned lives on, outside of the file. What the file grows by reads as zeros.
 * Returns: 0; -EACCES (read-only); -EINVAL (a part of a host file); -EFBIG; -ENOMEM, -EIO or what ftruncate said: the
 * size is as it was. Thread: any, not inside a span; waits for writeback of the pages that go.
 */
UCOW_API UCOW_NODISCARD int ucow_file_truncate(struct ucow_file *file, uint64_t nbytes);

/**
 * ucow_file_punch - make [offset, offset + nbytes) read as zeros, in the host file too, and give up what it takes. The
 * size stays. Pages of the file go from all spaces that map them; private copies stay.
 * Returns: 0; -EACCES; -EINVAL (nbytes 0); -ENOMEM, -EIO or what fallocate said. Thread: as ucow_file_truncate.
 */
UCOW_API UCOW_NODISCARD int ucow_file_punch(struct ucow_file *file, uint64_t offset, uint64_t nbytes);

/** What a cache holds, in pages unless said. */
struct ucow_file_stat {
	uint64_t size;      /* bytes */
	uint64_t cached;    /* pages in the cache */
	uint64_t dirty;     /* of these: to be written back (of memory-backed files: 0) */
	uint64_t writeback; /* of these: on their way to the host file */
	uint64_t spaces;    /* that map it */
	uint64_t openers;
	uint64_t read, written;             /* pages transferred from and to the host file, ever */
	uint64_t read_errors, write_errors; /* transfers that failed */
	uint64_t bounced; /* of written: through a copy, because the page may have been pinned (B.8) */
};
/** ucow_file_stat - Thread: any. */
UCOW_API void ucow_file_stat(struct ucow_file *file, struct ucow_file_stat *stat);

/** What one page of a cache is like; 0: not cached. */
#define UCOW_FILE_PAGE_CACHED    (1u << 0)
#define UCOW_FILE_PAGE_DIRTY     (1u << 1)
#define UCOW_FILE_PAGE_WRITEBACK (1u << 2)
#define UCOW_FILE_PAGE_MAPPED    (1u << 3)
#define UCOW_FILE_PAGE_PINNED    (1u << 4) /* maybe: ucow_page_maybe_dma_pinned */
/** ucow_file_page - UCOW_FILE_PAGE_* of the page at @offset. For tests and debugging. Thread: any. */
UCOW_API unsigned ucow_file_page(struct ucow_file *file, uint64_t offset);

/* ---- writeback ---- */

/**
 * ucow_file_sync - fsync: write back what is dirty, wait for that and for what was on its way, and have the host sync
 * the file. What is stored meanwhile may or may not be written.
 *
 * A page that may be pinned is written too, from a copy, and stays dirty: whoever pinned it may be changing it (B.8).
 * Returns: 0; -EIO, -ENOSPC, ...: something could not be written, or read for a mapping, since this opener was told
 * last; what could not be written is dirty still. Thread: any, not inside a span.
 */
UCOW_API UCOW_NODISCARD int ucow_file_sync(struct ucow_file *file);

#define UCOW_WRITEBACK_WAIT (1u << 0) /* until it is in the host file; else it is started */
/**
 * ucow_file_writeback - start, or with UCOW_WRITEBACK_WAIT complete, writing back what is dirty in [offset, offset +
 * nbytes); nbytes 0: to the end. The host is not asked to sync.
 * Returns: the number of pages that were sent; -EINVAL; with UCOW_WRITEBACK_WAIT an error as of ucow_file_sync.
 * Thread: any, not inside a span.
 */
UCOW_API long ucow_file_writeback(struct ucow_file *file, uint64_t offset, uint64_t nbytes, unsigned flags);

#define UCOW_MS_ASYNC      1u /* start writing */
#define UCOW_MS_INVALIDATE 2u /* no effect but for the check that nothing in the range is locked */
#define UCOW_MS_SYNC       4u /* as ucow_file_sync, for the range */
/**
 * ucow_msync - write back the shared mappings of files in [va, va + length). Errors are told to the opener that the
 * mapping was made with, once.
 * Returns: 0; -EINVAL (flags, alignment); -ENOMEM (a hole; the rest was synced); -EBUSY (UCOW_MS_INVALIDATE, locked);
 * -EIO, ... as ucow_file_sync. Thread: any, not inside a span; takes mmap_lock shared.
 */
UCOW_API UCOW_NODISCARD int ucow_msync(struct ucow_mm *mm, uint64_t va, uint64_t length, unsigned flags);

/**
 * ucow_writeback - write back up to @npages pages, the longest dirty first, of all files of the machine, that have been
 * dirty for @age_ns nanoseconds or more (0: whatever their age). Waits until they are written.
 * Returns: how many were written. Thread: any, not inside a span.
 */
UCOW_API long ucow_writeback(struct ucow_machine *machine, uint64_t age_ns, uint64_t npages);

struct ucow_writeback_options {
	size_t size;          /* sizeof(struct ucow_writeback_options) */
	uint64_t interval_ns; /* how often the thread looks; 0: 500 ms */
	uint64_t age_ns;      /* what has been dirty for so long is written; 0: 3 s */
	uint64_t background; /* dirty pages of the machine from which on all are written, whatever their age; 0: none */
	uint64_t limit;      /* dirty pages from which on whoever makes more waits for writeback; 0: none */
};
/**
 * ucow_writeback_start, ucow_writeback_stop - a thread of the library that writes back by age and number; the limits
 * hold from the start to the stop.
 * Returns (start): 0; -EINVAL; -EBUSY (it runs); -ENOMEM; -EAGAIN. Thread: any.
 */
UCOW_API UCOW_NODISCARD int ucow_writeback_start(struct ucow_machine *machine,
						 const struct ucow_writeback_options *options);
UCOW_API void ucow_writeback_stop(struct ucow_machine *machine);

/* ---- O_DIRECT: a device reads and writes a space's pages ---- */

/** A queue of such transfers, on io_uring where the host has it. */
struct ucow_direct;

enum ucow_direct_op {
	UCOW_DIRECT_READ,  /* from the host file into memory: pins for writing; completion marks the pages dirty */
	UCOW_DIRECT_WRITE, /* from memory to the host file: pins for reading */
};

struct ucow_direct_done {
	uint64_t user_data;
	long result; /* bytes; or -errno */
};

/** The most bytes of one transfer that is submitted. */
#define UCOW_DIRECT_MAX_BYTES ((uint64_t)4 << 20)

/** ucow_direct_create - @depth: most transfers at once, at least 1. Returns: 0; -EINVAL; -ENOMEM. Thread: any. */
UCOW_API UCOW_NODISCARD int ucow_direct_create(struct ucow_machine *machine, unsigned depth,
					       struct ucow_direct **direct);
/** ucow_direct_destroy - waits for what is under way. */
UCOW_API void ucow_direct_destroy(struct ucow_direct *direct);
/**
 * ucow_direct_submit - pin [va, va + nbytes), whole pages, at most UCOW_DIRECT_MAX_BYTES, and start the transfer. The
 * pages are unpinned when it is complete, by whoever calls ucow_direct_wait then; @fd must stay open till then.
 * Returns: 0; -EINVAL; -EFAULT (as ucow_pin_user_pages); -EAGAIN: @depth transfers are under way; -ENOMEM. Thread: one
 * at a time.
 */
UCOW_API UCOW_NODISCARD int ucow_direct_submit(struct ucow_direct *direct, enum ucow_direct_op op, struct ucow_mm *mm,
					       uint64_t va, uint64_t nbytes, int fd, uint64_t offset,
					       uint64_t user_data);
/**
 * ucow_direct_wait - wait until at least @min transfers have completed (or none is under way), and take up to @max.
 * Returns: how many. Thread: one at a time.
 */
UCOW_API unsigned ucow_direct_wait(struct ucow_direct *direct, unsigned min, struct ucow_direct_done *done,
				   unsigned max);
/** ucow_direct_read, ucow_direct_write - one transfer, waited for. Returns: bytes; or -errno. Thread: any. */
UCOW_API UCOW_NODISCARD long ucow_direct_read(struct ucow_mm *mm, uint64_t va, uint64_t nbytes, int fd,
					      uint64_t offset);
UCOW_API UCOW_NODISCARD long ucow_direct_write(struct ucow_mm *mm, uint64_t va, uint64_t nbytes, int fd,
					       uint64_t offset);

#ifdef __cplusplus
}
#endif
#endif
