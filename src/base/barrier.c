/* SPDX-License-Identifier: MIT */
/* membarrier(2), if the kernel has its private expedited form. */
#include "base/barrier.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

bool barrier_is_symmetric;

#if exploring
void barrier_init(void)
{
}

void barrier_expedite(void)
{
	hook_step(HOOK_EXPEDITE, NULL);
}
#else
static bool register_expedited(void)
{
	long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

	return commands > 0 && (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) &&
	       !syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
}

void barrier_init(void)
{
	static _Atomic int settled;

	if (atomic_load(&settled))
		return;
	/* Registering twice does no harm, and a process does not lose the system call. */
	if (!register_expedited())
		barrier_is_symmetric = true;
	atomic_store(&settled, 1);
}

void barrier_expedite(void)
{
	static _Atomic uint32_t fence;

	/* Our own order too, and what ThreadSanitizer can see of it. */
	atomic_fetch_add(&fence, 1);
	if (likely(!barrier_is_symmetric) && syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))
		UCOW_BUG("membarrier failed");
}
#endif
