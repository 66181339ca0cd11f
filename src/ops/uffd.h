/* SPDX-License-Identifier: MIT */
/* What the operations on userfaultfds share. */
#ifndef OPS_UFFD_H
#define OPS_UFFD_H

#include "fault/fault.h"

/* A range of an operation, and how far it has come. */
struct uffd_range {
	struct ucow_uffd *uffd;
	struct ucow_mm *mm;
	uint64_t start, end;
	uint64_t at;
	unsigned mode; /* UCOW_UFFD_MODE_* */
};

/*
 * uffd_range_begin - check the arguments of an operation. @modes: those that it knows. Returns: 0; -EINVAL; -ESRCH.
 */
int uffd_range_begin(struct uffd_range *range, struct ucow_uffd *uffd, uint64_t va, uint64_t length, unsigned mode,
		     unsigned modes);
/* uffd_range_end - wake whom the part that was done may help, and report it. Returns: @error. */
int uffd_range_end(struct uffd_range *range, int error, uint64_t *done);

/* uffd_lift - lift the protection of [start, end), which is owned. Requires: mmap_lock exclusively. */
void uffd_lift(struct ucow_mm *mm, struct vma *vma, uint64_t start, uint64_t end);
/* uffd_lifted - @pte of @vma without the protection, writable at once where no fault would be due (B.6). Requires: the
 * leaf's lock. */
struct pte uffd_lifted(struct ucow_mm *mm, const struct vma *vma, struct pte pte);

#endif
