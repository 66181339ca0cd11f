/* SPDX-License-Identifier: MIT */
/*
 * Checks on the live kernel: what a load, a device, a pipe, a file or a tracer shows, and what /proc tells of pages.
 * What cannot be seen is skipped with the reason, never guessed.
 */
#include "kernel.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

static const char *name_of(const struct kernel_step *step, int name)
{
	return step->run->litmus->names[name].text;
}

/* How page @page of the checked place is called in what was seen. */
static void label_place(const struct kernel_step *step, uint64_t page, char label[64])
{
	const struct place *place = &step->stmt->place;

	judge_page_label(label, name_of(step, place->region), place->first + page, place->npages);
}

/* ---- contents ---- */

static int compare(struct kernel_step *step, const char *label, const void *bytes, size_t nbytes)
{
	char saw[JUDGE_SAW_SIZE];

	if (judge_bytes(step->stmt, bytes, nbytes, saw))
		return 0;
	return kernel_break(step, "%s%s", label, saw);
}

/* Let the acting process fetch the bytes of each page of the place with @command, and compare them. */
static int compare_place(struct kernel_step *step, struct agent_command *command)
{
	const struct stmt *stmt = step->stmt;
	struct agent_reply reply;
	char label[64];
	int error = 0;

	command->wanted = (uint32_t)judge_wanted(stmt, stmt->place.offset, KERNEL_PAGE);
	for (uint64_t page = 0; !error && page < stmt->place.npages; page++) {
		command->va = kernel_va(step->run, &stmt->place, page);
		error = kernel_call(step, stmt->proc, command, -1, &reply);
		label_place(step, page, label);
		if (!error)
			error = compare(step, label, reply.bytes, reply.nbytes);
	}
	return error;
}

int kernel_check_reads(struct kernel_step *step)
{
	struct agent_command command = {.op = AGENT_LOAD};

	return compare_place(step, &command);
}

int kernel_peek(struct kernel_step *step)
{
	struct kernel_participant *other = kernel_participant(step, step->stmt->proc2);
	struct agent_command command = {.op = AGENT_PEEK};

	if (!other)
		return STEP_ENDED;
	command.pid = other->pid;
	return compare_place(step, &command);
}

/* What page @page of the handle shows; @bytes has room for a page. */
static int look_at_handle(struct kernel_handle *handle, uint64_t page, void *bytes, size_t nbytes)
{
	if (handle->device)
		return kernel_device_read(handle->device, page, handle->offset, bytes, nbytes);
	memcpy(bytes, handle->bytes + page * KERNEL_PAGE + handle->offset, nbytes);
	return 0;
}

static int compare_handle(struct kernel_step *step, struct kernel_handle *handle)
{
	bool is_pipe = step->run->litmus->names[step->stmt->handle].kind == NAME_PIPE;
	size_t nbytes = judge_wanted(step->stmt, handle->offset, KERNEL_PAGE);
	int error = handle->device ? 0 : kernel_pipe_read(handle, is_pipe);
	char bytes[KERNEL_PAGE], label[64];

	for (uint64_t page = 0; !error && page < handle->npages; page++) {
		error = look_at_handle(handle, page, bytes, nbytes);
		judge_page_label(label, name_of(step, step->stmt->handle), page, handle->npages);
		if (!error)
			error = compare(step, label, bytes, nbytes);
	}
	return error;
}

int kernel_check_handle_reads(struct kernel_step *step)
{
	int error;
	struct kernel_handle *handle = kernel_held(step, &error);

	if (!handle)
		return error;
	error = compare_handle(step, handle);
	kernel_let_go(handle);
	return error;
}

int kernel_check_file_reads(struct kernel_step *step)
{
	char bytes[KERNEL_PAGE];
	int error = kernel_file_read(kernel_file_seen(&step->run->objects[step->stmt->file].file),
				     step->stmt->file_page, bytes);

	if (error == ENODATA)
		return kernel_break(step, "the end of the file");
	return error ? error : compare(step, "", bytes, judge_wanted(step->stmt, 0, KERNEL_PAGE));
}

int kernel_check_file_holds(struct kernel_step *step)
{
	return kernel_skip_check(step,
				 "what is on the disk shows only past the page cache, and asking writes it there");
}

/* ---- numbers ---- */

static int compare_number(struct kernel_step *step, const char *label, uint64_t value)
{
	return judge_number(step->stmt, value) ? 0 : kernel_break(step, "%s%" PRIu64, label, value);
}

int kernel_check_pages(struct kernel_step *step)
{
	struct kernel_handle *handle = &step->run->objects[step->stmt->handle].handle;

	return handle->state == KERNEL_UNBOUND ? 0 : compare_number(step, "", handle->npages);
}

int kernel_check_rss(struct kernel_step *step)
{
	struct kernel_participant *participant = kernel_participant(step, step->stmt->proc);
	uint64_t npages;
	int error;

	if (!participant)
		return STEP_ENDED;
	error = kernel_rss(participant->pid, step->run->window_start, step->run->window_end, &npages);
	return error ? error : compare_number(step, "", npages);
}

int kernel_check_count(struct kernel_step *step)
{
	return kernel_skip_check(step, "the kernel has no such counter for one test");
}

/* ---- pages ---- */

/* Look at the checked page @page of @place, mapped by process @name. Returns: 0; STEP_ENDED. */
static int look(struct kernel_step *step, int name, const struct place *place, uint64_t page, struct kernel_page *seen)
{
	struct kernel_participant *participant = kernel_participant(step, name);
	int error;

	if (!participant)
		return STEP_ENDED;
	error = kernel_look(&step->run->eyes, participant->pid, kernel_va(step->run, place, page), seen);
	if (error)
		return kernel_error(step, "kernel: /proc shows nothing of process %s: %s", name_of(step, name),
				    litmus_error_name(error));
	return 0;
}

int kernel_check_mapcount(struct kernel_step *step)
{
	const char *blind = kernel_blind(&step->run->eyes);
	struct kernel_page seen;
	char label[64];
	int error = 0;

	if (blind)
		return kernel_skip_check(step, "%s", blind);
	for (uint64_t page = 0; !error && page < step->stmt->place.npages; page++) {
		error = look(step, step->stmt->proc, &step->stmt->place, page, &seen);
		label_place(step, page, label);
		if (!error)
			error = compare_number(step, label, seen.mapcount);
	}
	return error;
}

static bool is_present(const struct kernel_page *page)
{
	return page->entry & PAGEMAP_PRESENT;
}

/* `same` and `differs` compare frames: both want one on either side. */
static int compare_frames(struct kernel_step *step, const char *label, const struct kernel_page *one,
			  const struct kernel_page *other)
{
	if (!is_present(one) || !is_present(other))
		return kernel_break(step, "%s%s is not present", label, is_present(one) ? "the second" : "the first");
	if ((one->frame == other->frame) != step->stmt->negated)
		return 0;
	if (one->flags & other->flags & PAGE_ZERO)
		return kernel_break(step, "%sboth are the zero page", label);
	return kernel_break(step, "%sframes %" PRIx64 " and %" PRIx64, label, one->frame, other->frame);
}

int kernel_check_same(struct kernel_step *step)
{
	const struct stmt *stmt = step->stmt;
	const char *blind = kernel_blind(&step->run->eyes);
	struct kernel_page one, other;
	char label[64];
	int error = 0;

	if (blind)
		return kernel_skip_check(step, "%s", blind);
	for (uint64_t page = 0; !error && page < stmt->place.npages; page++) {
		error = look(step, stmt->proc, &stmt->place, page, &one);
		if (!error)
			error = look(step, stmt->proc2, &stmt->place2, page, &other);
		label_place(step, page, label);
		if (!error)
			error = compare_frames(step, label, &one, &other);
	}
	return error;
}

/* ---- flags ---- */

/* Why a flag cannot be seen here at all, or NULL. */
static const char *flag_hidden(const struct kernel_eyes *eyes, enum litmus_flag flag)
{
	switch (flag) {
	case LFLAG_EXCLUSIVE:
		return kernel_blind_to_exclusive(eyes);
	case LFLAG_KSM:
	case LFLAG_HUGE:
	case LFLAG_ZERO_PAGE:
		return kernel_blind(eyes);
	case LFLAG_DIRTY:
	case LFLAG_ACCESSED:
		return "the kernel does not show this bit of an entry";
	case LFLAG_PINNED:
		return "the kernel shows no such flag";
	case LFLAG_PRESENT:
	case LFLAG_WRITABLE:
	case LFLAG_WP:
	case LFLAG_SWAPPED:
	case LFLAG_MAPPED:
	case LFLAG_SOFT_DIRTY:
	case LFLAG_COUNT:
		break;
	}
	return NULL;
}

static int covered(struct kernel_step *step, uint64_t page, int prot, bool *is_covered)
{
	struct kernel_participant *participant = kernel_participant(step, step->stmt->proc);
	uint64_t npages;
	int error;

	if (!participant)
		return STEP_ENDED;
	error = kernel_covered(participant->pid, kernel_va(step->run, &step->stmt->place, page), 1, prot, &npages);
	*is_covered = npages;
	return error;
}

/* Whether a store would certainly fault: the area forbids it, or the entry cannot be writable (semantics.md 0.1). */
static int surely_write_protected(struct kernel_step *step, uint64_t page, const struct kernel_page *seen, bool *is)
{
	bool writable_area, base_page = !(seen->flags & (PAGE_COMPOUND | PAGE_HUGETLB));
	int error = covered(step, page, PROT_WRITE, &writable_area);

	if (error)
		return error;
	*is = !writable_area || !is_present(seen) || seen->entry & PAGEMAP_UFFD_WP || seen->flags & PAGE_ZERO;
	if (seen->flags & PAGE_ANON && base_page && !kernel_blind_to_exclusive(&step->run->eyes))
		*is |= !(seen->flags & PAGE_EXCLUSIVE);
	return 0;
}

/*
 * "A store would not fault" is not exported. Where it is expected to hold, a store of the byte that is there tells, and
 * has changed nothing if it did not fault; if it did, the check has failed anyway. Where it is expected not to hold,
 * the store would undo what it finds, so only what /proc rules out counts.
 */
static int see_writable(struct kernel_step *step, uint64_t page, const struct kernel_page *seen, bool *is_set)
{
	struct agent_command command = {.op = AGENT_STORE_FAULTS, .va = kernel_va(step->run, &step->stmt->place, page)};
	struct agent_reply reply;
	bool write_protected;
	int error = surely_write_protected(step, page, seen, &write_protected);

	*is_set = false;
	if (error || write_protected)
		return error;
	if (step->stmt->negated)
		return kernel_skip_check(step, "only a store would tell, and change what it tells of");
	error = kernel_call(step, step->stmt->proc, &command, -1, &reply);
	*is_set = !error && !reply.value;
	return error;
}

static int see_exclusive(struct kernel_step *step, const struct kernel_page *seen, bool *is_set)
{
	if (seen->flags & (PAGE_COMPOUND | PAGE_HUGETLB))
		return kernel_skip_check(step, "shown for base pages only");
	*is_set = seen->flags & PAGE_ANON && seen->flags & PAGE_EXCLUSIVE;
	return 0;
}

/* Whether the flag is set on page @page of the place. */
static int see_flag(struct kernel_step *step, uint64_t page, const struct kernel_page *seen, bool *is_set)
{
	switch ((int)step->stmt->flag) {
	case LFLAG_MAPPED:
		return covered(step, page, PROT_NONE, is_set);
	case LFLAG_WRITABLE:
		return see_writable(step, page, seen, is_set);
	case LFLAG_EXCLUSIVE:
		return see_exclusive(step, seen, is_set);
	case LFLAG_PRESENT:
		*is_set = is_present(seen);
		break;
	case LFLAG_SWAPPED:
		*is_set = kernel_is_swapped(seen->entry);
		break;
	case LFLAG_SOFT_DIRTY:
		*is_set = seen->entry & PAGEMAP_SOFT_DIRTY;
		break;
	case LFLAG_WP:
		*is_set = seen->entry & PAGEMAP_UFFD_WP;
		break;
	case LFLAG_KSM:
		*is_set = seen->flags & PAGE_KSM;
		break;
	case LFLAG_HUGE:
		*is_set = seen->flags & (PAGE_THP | PAGE_HUGETLB);
		break;
	case LFLAG_ZERO_PAGE:
		*is_set = seen->flags & PAGE_ZERO;
		break;
	}
	return 0;
}

int kernel_check_flag(struct kernel_step *step)
{
	const struct stmt *stmt = step->stmt;
	const char *hidden = flag_hidden(&step->run->eyes, stmt->flag);
	struct kernel_page seen;
	bool is_set = false;
	char label[64];
	int error = 0;

	if (hidden)
		return kernel_skip_check(step, "%s", hidden);
	for (uint64_t page = 0; !error && page < stmt->place.npages; page++) {
		error = look(step, stmt->proc, &stmt->place, page, &seen);
		if (!error)
			error = see_flag(step, page, &seen, &is_set);
		label_place(step, page, label);
		if (!error && is_set == stmt->negated)
			error = kernel_break(step, "%s%s%s", label, stmt->negated ? "" : "not ",
					     litmus_flag_name(stmt->flag));
	}
	return error;
}
