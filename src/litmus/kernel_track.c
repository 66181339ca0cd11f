/* SPDX-License-Identifier: MIT */
/*
 * What the kernel tells of changes: soft-dirty bits (clear_refs, pagemap) and PAGEMAP_SCAN; and locked memory.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- soft-dirty ---- */

/* A fresh mapping is soft-dirty, where the kernel knows the bit at all. */
const char *kernel_no_soft_dirty(void)
{
	char *page = mmap(NULL, KERNEL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kernel_eyes eyes = {.kpageflags = -1, .kpagecount = -1};
	struct kernel_page seen = {0};

	if (page == MAP_FAILED)
		return "no memory to look for soft-dirty bits";
	*(volatile char *)page = 1;
	kernel_look(&eyes, getpid(), (uint64_t)(uintptr_t)page, &seen);
	munmap(page, KERNEL_PAGE);
	return seen.entry & PAGEMAP_SOFT_DIRTY ? NULL : "this kernel has no soft-dirty bits";
}

int kernel_clear_soft_dirty(struct kernel_step *step)
{
	struct kernel_participant *participant = kernel_participant(step, step->stmt->proc);
	char path[40];
	int fd, error;

	if (!participant)
		return STEP_ENDED;
	snprintf(path, sizeof(path), "/proc/%d/clear_refs", (int)participant->pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	error = write(fd, "4", 1) == 1 ? 0 : errno;
	close(fd);
	return error;
}

/* ---- locked memory ---- */

int kernel_mlock(struct kernel_step *step)
{
	struct agent_command command = {.op = step->stmt->kind == STMT_MLOCK ? AGENT_MLOCK : AGENT_MUNLOCK,
					.va = kernel_va(step->run, &step->stmt->place, 0),
					.npages = step->stmt->place.npages,
					.number = step->stmt->options & 1};
	struct agent_reply reply;

	return kernel_call(step, step->stmt->proc, &command, -1, &reply);
}

/* ---- PAGEMAP_SCAN (include/uapi/linux/fs.h, since 6.7) ---- */

struct page_region {
	uint64_t start, end, categories;
};

struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN_CALL          _IOWR('f', 16, struct scan_arg)
#define SCAN_WP_MATCHING   1u
#define SCAN_CHECK_WPASYNC 2u

static uint64_t categories(unsigned bits)
{
	static const uint64_t kernels[SCAN_COUNT] = {
		[SCAN_WP_ALLOWED] = 1 << 0, [SCAN_WRITTEN] = 1 << 1, [SCAN_FILE] = 1 << 2,
		[SCAN_PRESENT] = 1 << 3,    [SCAN_SWAPPED] = 1 << 4, [SCAN_ZERO_PAGE] = 1 << 5,
		[SCAN_SOFT_DIRTY] = 1 << 7,
	};
	uint64_t mask = 0;

	for (unsigned i = 0; i < SCAN_COUNT; i++)
		mask |= bits >> i & 1 ? kernels[i] : 0;
	return mask;
}

static int scan(struct kernel_step *step, int fd, struct page_region *found, size_t *nfound)
{
	const struct stmt *stmt = step->stmt;
	struct scan_arg arg = {
		.size = sizeof(arg),
		.flags = (stmt->options & SCAN_OPT_PROTECT ? SCAN_WP_MATCHING : 0) |
			 (stmt->options & SCAN_OPT_ASYNC_ONLY ? SCAN_CHECK_WPASYNC : 0),
		.start = kernel_va(step->run, &stmt->place, 0),
		.end = kernel_va(step->run, &stmt->place, 0) + stmt->place.npages * KERNEL_PAGE,
		.vec = (uint64_t)(uintptr_t)found,
		.vec_len = *nfound,
		.max_pages = stmt->count,
		.category_inverted = categories(stmt->inverted),
		.category_mask = categories(stmt->required),
		.return_mask = categories(stmt->required),
	};
	int n = ioctl(fd, SCAN_CALL, &arg);

	*nfound = n < 0 ? 0 : (size_t)n;
	return n < 0 ? errno : 0;
}

static void note_found(struct kernel_step *step, const struct page_region *found, size_t nfound)
{
	uint64_t base = kernel_va(step->run, &step->stmt->place, 0);

	for (size_t i = 0; i < nfound; i++)
		for (uint64_t page = 0; page < step->stmt->place.npages && page < 64; page++)
			if (base + page * KERNEL_PAGE >= found[i].start && base + page * KERNEL_PAGE < found[i].end)
				step->run->found |= UINT64_C(1) << page;
}

static int compare_found(struct kernel_step *step, const struct page_region *found, size_t nfound)
{
	uint64_t base = step->run->objects[step->stmt->place.region].va;
	struct litmus_range ranges[JUDGE_RANGES];

	if (step->run->only_finds) {
		note_found(step, found, nfound);
		return 0;
	}
	for (size_t i = 0; i < nfound; i++)
		ranges[i] = (struct litmus_range){(found[i].start - base) / KERNEL_PAGE,
						  (found[i].end - found[i].start) / KERNEL_PAGE};
	char saw[JUDGE_SAW_SIZE];

	if (judge_ranges(step->stmt, ranges, nfound, saw))
		return 0;
	return kernel_break(step, "%s", saw);
}

int kernel_scan(struct kernel_step *step)
{
	struct kernel_participant *participant = kernel_participant(step, step->stmt->proc);
	struct page_region found[JUDGE_RANGES];
	size_t nfound = JUDGE_RANGES;
	char path[40];
	int fd, error;

	if (!participant)
		return STEP_ENDED;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)participant->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	error = scan(step, fd, found, &nfound);
	close(fd);
	if (error == ENOTTY)
		return kernel_skip_check(step, "this kernel has no PAGEMAP_SCAN");
	return error ? error : compare_found(step, found, nfound);
}
