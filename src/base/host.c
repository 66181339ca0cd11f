/* SPDX-License-Identifier: MIT */
/* Memory from the host: libc's allocator, and anonymous mappings. */
#include "base/host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LINE_BYTES 128

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

void *host_alloc(size_t nbytes)
{
	return calloc(1, nbytes);
}

void *host_alloc_lines(size_t nbytes)
{
	size_t rounded = (nbytes + LINE_BYTES - 1) & ~(size_t)(LINE_BYTES - 1);
	void *memory = aligned_alloc(LINE_BYTES, rounded);

	if (memory)
		memset(memory, 0, rounded);
	return memory;
}

void host_free(void *memory)
{
	free(memory);
}

void *host_map(size_t nbytes)
{
	void *area = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return area == MAP_FAILED ? NULL : area;
}

void host_unmap(void *memory, size_t nbytes)
{
	munmap(memory, nbytes);
}

void host_advise_huge(void *memory, size_t nbytes)
{
	(void)madvise(memory, nbytes, MADV_HUGEPAGE);
}

int host_keep_from_fork(void *memory, size_t nbytes)
{
	return madvise(memory, nbytes, MADV_DONTFORK) ? -ENOMEM : 0;
}

int host_commit(void *memory, size_t nbytes)
{
	if (!madvise(memory, nbytes, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL)
		return -ENOMEM;
	/* Before Linux 5.14 touching is all one can do. */
	for (size_t at = 0; at < nbytes; at += UCOW_PAGE_SIZE)
		((volatile char *)memory)[at] = 0;
	return 0;
}

bool host_decommit(void *memory, size_t nbytes)
{
	return !madvise(memory, nbytes, MADV_DONTNEED);
}
