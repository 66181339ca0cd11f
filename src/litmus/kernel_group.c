/* SPDX-License-Identifier: MIT */
/*
 * Memory control groups of a kernel run: a directory for the run, below it one for those who have joined nothing and
 * one for each group of the test; who is charged for which page; and reclaim, which is asked of the run's directory,
 * that is of all participants and of nobody else.
 *
 * Limits are not set. The kernel charges a group for page tables and stacks too, and for pages by dozens in advance, so
 * that a limit of a few pages would kill its members: a test that may meet its limit does not come here
 * (kernel_plan.c).
 */
#include "facilities.h"
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Groups of a test begin with a letter. */
#define REST  "0rest"
#define EMPTY "0empty"

/* @name (NULL: none) of the group @group (NULL: the run's own). Returns: 0; ENAMETOOLONG. */
static int make_path(const struct kernel_run *run, const char *group, const char *name, char path[KERNEL_PATH])
{
	int length = snprintf(path, KERNEL_PATH, "%s%s%s%s%s", run->groups, group ? "/" : "", group ? group : "",
			      name ? "/" : "", name ? name : "");

	return length < KERNEL_PATH ? 0 : ENAMETOOLONG;
}

/* The path below the run's of names[@name], which lies in others. */
static void group_path(const struct kernel_run *run, int name, char path[KERNEL_PATH])
{
	char above[KERNEL_PATH];

	snprintf(path, KERNEL_PATH, "%s", run->litmus->names[name].text);
	for (name = run->objects[name].group.above; name >= 0; name = run->objects[name].group.above) {
		snprintf(above, sizeof(above), "%.250s/%.250s", run->litmus->names[name].text, path);
		memcpy(path, above, sizeof(above));
	}
}

static int write_to(const struct kernel_run *run, const char *group, const char *name, const char *text)
{
	char path[KERNEL_PATH];
	int error = make_path(run, group, name, path), fd;

	if (error)
		return error;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	do
		error = write(fd, text, strlen(text)) < 0 ? errno : 0;
	while (error == EINTR); /* a reclaim, by a signal that nobody waits for */
	close(fd);
	return error;
}

static int make_group(const struct kernel_run *run, const char *group)
{
	char path[KERNEL_PATH];
	int error = make_path(run, group, NULL, path);

	return error ? error : mkdir(path, 0700) ? errno : 0;
}

/* A group whose members have just ended stays busy for a moment. */
static void remove_group(const struct kernel_run *run, const char *group)
{
	const struct timespec while_members_end = {.tv_nsec = 2000000};
	char path[KERNEL_PATH];

	if (make_path(run, group, NULL, path))
		return;
	for (unsigned tries = 0; rmdir(path) && errno == EBUSY && tries < 500; tries++)
		nanosleep(&while_members_end, NULL);
}

static int enter(const struct kernel_run *run, const char *group, pid_t pid)
{
	char number[20];

	snprintf(number, sizeof(number), "%d", (int)pid);
	return write_to(run, group, "cgroup.procs", number);
}

/* ---- the run's own ---- */

int kernel_open_groups(struct kernel_run *run)
{
	const struct facilities *facilities = facilities_held();
	int error;

	if (*facilities->no_groups)
		return 0;
	snprintf(run->groups, sizeof(run->groups), "%s/%d", facilities->groups, (int)getpid());
	error = make_group(run, NULL);
	if (error) {
		run->groups[0] = '\0';
		return error;
	}
	/* So that pages go to swap, whatever the machine prefers; version 2 has no such file. */
	write_to(run, NULL, "memory.swappiness", "100");
	if (facilities->unified)
		error = write_to(run, NULL, "cgroup.subtree_control", "+memory");
	if (!error)
		error = make_group(run, REST);
	return error ? error : make_group(run, EMPTY);
}

int kernel_enter_groups(struct kernel_run *run, pid_t first)
{
	return *run->groups ? enter(run, REST, first) : 0;
}

void kernel_drop_groups(struct kernel_run *run)
{
	char path[KERNEL_PATH];

	/* The last first: what lies in another was made after it. */
	for (int i = (int)run->litmus->nnames - 1; run->objects && i >= 0; i--) {
		if (run->litmus->names[i].kind != NAME_CGROUP || !run->objects[i].group.inode)
			continue;
		group_path(run, i, path);
		remove_group(run, path);
	}
}

void kernel_close_groups(struct kernel_run *run)
{
	if (!*run->groups)
		return;
	remove_group(run, REST);
	remove_group(run, EMPTY);
	remove_group(run, NULL);
	run->groups[0] = '\0';
}

/* ---- the test's ---- */

int kernel_define_group(struct kernel_step *step)
{
	struct kernel_group *group = &step->run->objects[step->stmt->name].group;
	char name[KERNEL_PATH], path[KERNEL_PATH];
	struct stat status;
	int error;

	group->above = step->stmt->cgroup;
	group_path(step->run, step->stmt->name, name);
	error = make_group(step->run, name);
	if (!error)
		error = make_path(step->run, name, NULL, path);
	if (!error && stat(path, &status))
		error = errno;
	if (error)
		return kernel_error(step, "kernel: no group %.60s: %s", name, litmus_error_name(error));
	group->inode = status.st_ino;
	return 0;
}

int kernel_enter_group(struct kernel_step *step, int name, pid_t pid)
{
	char group[KERNEL_PATH];
	int error;

	group_path(step->run, name, group);
	error = enter(step->run, group, pid);
	return error ? kernel_error(step, "kernel: group %.60s takes no member: %s", group, litmus_error_name(error))
		     : 0;
}

int kernel_join_group(struct kernel_step *step)
{
	struct kernel_participant *participant = kernel_participant(step, step->stmt->proc);

	return participant ? kernel_enter_group(step, step->stmt->cgroup, participant->pid) : STEP_ENDED;
}

/* ---- who pays ---- */

static int add_frame(void *arg, uint64_t frame)
{
	struct kernel_frames *frames = arg;

	if (frames->n == frames->room) {
		size_t room = frames->room ? 2 * frames->room : 256;
		uint64_t *list = realloc(frames->list, room * sizeof(*list));

		if (!list)
			return ENOMEM;
		frames->list = list;
		frames->room = room;
	}
	frames->list[frames->n++] = frame;
	return 0;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void sort_frames(struct kernel_frames *frames)
{
	size_t kept = 0;

	if (frames->n)
		qsort(frames->list, frames->n, sizeof(*frames->list), by_number);
	for (size_t i = 0; i < frames->n; i++)
		if (!kept || frames->list[kept - 1] != frames->list[i])
			frames->list[kept++] = frames->list[i];
	frames->n = kept;
}

static bool has_frame(const struct kernel_frames *frames, uint64_t frame)
{
	return frames->n && bsearch(&frame, frames->list, frames->n, sizeof(frame), by_number);
}

/* Add all frames that the test's processes map in its regions. */
static int add_mapped_frames(struct kernel_run *run, struct kernel_frames *frames)
{
	int error = 0;

	for (size_t i = 0; i < run->litmus->nnames; i++) {
		const struct kernel_participant *participant = &run->objects[i].participant;

		if (run->litmus->names[i].kind != NAME_PROCESS || participant->channel < 0)
			continue;
		for (size_t j = 0; !error && j < run->litmus->nnames; j++)
			if (run->litmus->names[j].kind == NAME_REGION)
				error = kernel_frames(participant->pid, run->objects[j].va,
						      run->litmus->names[j].npages, add_frame, frames);
	}
	sort_frames(frames);
	return error;
}

void kernel_note_frames(struct kernel_run *run)
{
	if (run->counts_usage)
		add_mapped_frames(run, &run->known);
}

/* Whether the group whose directory is @inode is names[@name] or lies in it. */
static bool lies_in(const struct kernel_run *run, uint64_t inode, int name)
{
	for (int i = 0; inode && i < (int)run->litmus->nnames; i++) {
		int at = i;

		if (run->litmus->names[i].kind != NAME_CGROUP || run->objects[i].group.inode != inode)
			continue;
		while (at >= 0 && at != name)
			at = run->objects[at].group.above;
		return at == name;
	}
	return false;
}

/*
 * Whether a frame that nobody maps now still is the test's: held by a pin or a pipe, or shared memory that nobody looks
 * at. A frame that was given back may have become anything; a page that lies on the swap device is on its way there.
 */
static int is_kept(const struct kernel_run *run, uint64_t frame, bool *is)
{
	uint64_t flags = 0, mapcount = 0;
	int error = kernel_flags(&run->eyes, frame, &flags);

	if (!error)
		error = kernel_mapcount(&run->eyes, frame, &mapcount);
	*is = !error && flags & (PAGE_ANON | PAGE_SWAPBACKED) && !(flags & PAGE_SWAPCACHE) && !mapcount;
	return error;
}

static int count_charged(struct kernel_run *run, int group, uint64_t *npages)
{
	struct kernel_frames mapped = {0};
	int error = add_mapped_frames(run, &mapped);

	kernel_note_frames(run);
	kernel_drain_batches(run); /* what was given back waits there, and looks as if it was kept */
	*npages = 0;
	for (size_t i = 0; !error && i < run->known.n; i++) {
		bool counts = has_frame(&mapped, run->known.list[i]);
		uint64_t owner = 0;

		error = kernel_owner(&run->eyes, run->known.list[i], &owner);
		if (!error && !counts)
			error = is_kept(run, run->known.list[i], &counts);
		*npages += counts && lies_in(run, owner, group);
	}
	free(mapped.list);
	return error;
}

int kernel_count_usage(struct kernel_run *run, int group, uint64_t *npages)
{
	return count_charged(run, group, npages);
}

/*
 * What the kernel says that a group uses contains its own memory, what participants need besides the regions, and pages
 * charged in advance. So count the pages of the test that are charged to it, one by one.
 */
int kernel_check_usage(struct kernel_step *step)
{
	const char *blind = kernel_blind_to_owners(&step->run->eyes);
	uint64_t npages;
	int error;

	if (blind)
		return kernel_skip_check(step, "%s", blind);
	error = count_charged(step->run, step->stmt->cgroup, &npages);
	if (error)
		return kernel_error(step, "kernel: pages cannot be counted: %s", litmus_error_name(error));
	return judge_number(step->stmt, npages) ? 0 : kernel_break(step, "%" PRIu64, npages);
}

/* ---- reclaim ---- */

/* Let all cpus put aside their batches of pages, which reclaim does before it looks, and find nothing to take. */
void kernel_drain_batches(struct kernel_run *run)
{
	if (!*run->groups)
		return;
	if (facilities_held()->unified)
		write_to(run, EMPTY, "memory.reclaim", "4096");
	else
		write_to(run, EMPTY, "memory.force_empty", "0");
}

static int reclaim_all(struct kernel_run *run)
{
	int error;

	if (!facilities_held()->unified)
		return write_to(run, NULL, "memory.force_empty", "0");
	error = write_to(run, NULL, "memory.reclaim", "1G swappiness=200");
	if (error == EINVAL) /* before 6.15 it takes no options */
		error = write_to(run, NULL, "memory.reclaim", "1G");
	return error == EAGAIN ? 0 : error; /* there was less */
}

/* Pages that a reclaim may find in the test's regions: pinned ones stay. */
static int count_reclaimable(struct kernel_run *run, uint64_t *npages)
{
	struct kernel_frames frames = {0};
	int error = add_mapped_frames(run, &frames);

	*npages = 0;
	for (size_t i = 0; !error && i < frames.n; i++) {
		uint64_t flags = 0;

		error = kernel_flags(&run->eyes, frames.list[i], &flags);
		*npages += !(flags & PAGE_ZERO);
	}
	free(frames.list);
	for (size_t i = 0; i < run->litmus->nnames; i++)
		if (run->litmus->names[i].kind == NAME_PIN && run->objects[i].handle.state == KERNEL_HELD)
			*npages -= run->objects[i].handle.npages < *npages ? run->objects[i].handle.npages : *npages;
	return error;
}

/* Be charged in the run's groups for @npages pages, for a moment. */
static void churn(const struct kernel_run *run, size_t npages)
{
	volatile char *pages;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (enter(run, REST, getpid()))
		_exit(1);
	pages = mmap(NULL, npages * KERNEL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED)
		_exit(1);
	madvise((void *)(uintptr_t)pages, npages * KERNEL_PAGE, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < npages; i++)
		pages[i * KERNEL_PAGE] = 1;
	_exit(0);
}

/*
 * Whether active pages may be taken, the kernel decides from its sums of what a group has. It adds those up two seconds
 * later, unless somebody asks for them after a change of more than 64 pages on each cpu: so make one, and ask.
 */
static void renew_sums(const struct kernel_run *run)
{
	char path[KERNEL_PATH], text[4096];
	pid_t pid = fork();
	int fd;

	if (pid == 0)
		churn(run, 128 * (size_t)sysconf(_SC_NPROCESSORS_CONF));
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	if (make_path(run, NULL, "memory.stat", path))
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && read(fd, text, sizeof(text)) > 0)
		continue;
	if (fd >= 0)
		close(fd);
}

/* Pages that were looked at twice are active: then take them the second time. */
static int reclaim_once(struct kernel_step *step)
{
	uint64_t left = 1;
	int error = 0;

	for (unsigned rounds = 0; !error && left && rounds < 3; rounds++) {
		if (rounds)
			renew_sums(step->run);
		error = reclaim_all(step->run);
		if (!error)
			error = count_reclaimable(step->run, &left);
	}
	if (error == ENOENT && facilities_held()->unified)
		return kernel_skip_test(step, "groups of version 2 can be asked to reclaim since Linux 5.19");
	return error ? kernel_error(step, "kernel: nothing can be reclaimed: %s", litmus_error_name(error)) : 0;
}

/*
 * The kernel takes 32 pages at a time, in an order of its own, so that only all pages can be taken exactly. Of a test
 * that wants fewer taken than there are, nothing can be told.
 */
int kernel_reclaim(struct kernel_step *step)
{
	uint64_t npages;
	int error = count_reclaimable(step->run, &npages);

	if (error)
		return kernel_error(step, "kernel: pages cannot be counted: %s", litmus_error_name(error));
	if (step->stmt->count < npages && !step->run->takes_more)
		return kernel_skip_test(step, "the kernel takes all %" PRIu64 " pages, not %" PRIu64, npages,
					step->stmt->count);
	return kernel_until_swapped(step, reclaim_once);
}
