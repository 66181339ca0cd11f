/* SPDX-License-Identifier: MIT */
/*
 * Swap, groups and the merger for the time of a run. Names are chosen before anything is made, so that the guardian,
 * which is started in between, can clean up after a program that was killed at any moment.
 */
#include "facilities.h"

#include "kernel_agent.h"
#include "litmus.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define SWAP_BYTES (UINT64_C(256) << 20)
#define KSM        "/sys/kernel/mm/ksm/"

static struct facilities nothing = {
	.no_swap = "no swap file is held by this run",
	.no_groups = "no control groups are held by this run",
	.no_ksm = "the same-page merger is not held by this run",
};
static const struct facilities *held = &nothing;

const struct facilities *facilities_held(void)
{
	return held;
}

static void nap(void)
{
	const struct timespec while_others_end = {.tv_nsec = 10000000};

	nanosleep(&while_others_end, NULL);
}

static int write_word(const char *path, const char *word)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), error = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, word, strlen(word)) < 0)
		error = -errno;
	close(fd);
	return error;
}

/* ---- swap ---- */

/* The page that makes a file one to swap on: version 1, the number of the last page, and the signature at its end. */
struct swap_head {
	char boot[1024];
	uint32_t version, last_page, nbad;
	unsigned char uuid[16];
	char label[16];
	char unused[KERNEL_PAGE - 1024 - 12 - 32 - 10];
	char signature[10];
};
_Static_assert(sizeof(struct swap_head) == KERNEL_PAGE, "the head is a page");

static int write_head(int fd)
{
	struct swap_head head = {
		.version = 1, .last_page = SWAP_BYTES / KERNEL_PAGE - 1, .label = "ucow", .signature = "SWAPSPACE2"};

	if (pwrite(fd, &head, sizeof(head), 0) != sizeof(head))
		return errno ? -errno : -EIO;
	return fsync(fd) ? -errno : 0;
}

/* Blocks that are really there: some file systems do not swap on blocks that were only promised. */
static int write_zeros(int fd)
{
	static const char zeros[1 << 20];

	for (uint64_t at = 0; at < SWAP_BYTES; at += sizeof(zeros))
		if (pwrite(fd, zeros, sizeof(zeros), (off_t)at) != sizeof(zeros))
			return errno ? -errno : -EIO;
	return 0;
}

/* A file that is copied on write, as some file systems have them, is nothing to swap on: ask for one that is not. */
static void keep_in_place(int fd)
{
	int flags;

	if (!ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
		flags |= FS_NOCOW_FL;
		ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
}

static int swap_on(const char *path)
{
	/* The highest priority: whatever else is swapped on, pages go here first. */
	return swapon(path, SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK) ? -errno : 0;
}

static int fill_and_swap_on(int fd, const char *path)
{
	int error;

	keep_in_place(fd);
	error = fallocate(fd, 0, 0, (off_t)SWAP_BYTES) ? -errno : write_head(fd);
	if (!error)
		error = swap_on(path);
	if (error != -EINVAL && error != -EOPNOTSUPP)
		return error;
	error = write_zeros(fd);
	if (!error)
		error = write_head(fd);
	return error ? error : swap_on(path);
}

static void make_swap(struct facilities *facilities)
{
	const char *path = facilities->swap_file;
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), error;

	error = fd < 0 ? -errno : fill_and_swap_on(fd, path);
	if (fd >= 0)
		close(fd);
	if (!error)
		return;
	if (fd >= 0)
		unlink(path);
	snprintf(facilities->no_swap, sizeof(facilities->no_swap), "swap cannot be switched on (%.60s): %s", path,
		 litmus_error_name(-error));
	facilities->swap_file[0] = '\0';
}

static int undo_swap(const struct facilities *facilities)
{
	const char *path = facilities->swap_file;
	struct facility_locks locks;
	int error = 0;

	if (!*path || access(path, F_OK))
		return 0;
	/* Another run's pages may lie here: let its test end. If it takes too long, its pages come back, and that test
	 * sees it. */
	facilities_lock(&locks, NEED_SWAP, true, 0, kernel_now_ns() + UINT64_C(5000000000));
	if (swapoff(path) && errno != EINVAL)
		error = -errno;
	facilities_unlock(&locks);
	if (!error && unlink(path) && errno != ENOENT)
		error = -errno;
	return error;
}

/* A real file system: nobody swaps on tmpfs. */
static bool holds_files(const char *folder)
{
	struct statfs system;

	return folder && *folder == '/' && strlen(folder) < 60 && !access(folder, W_OK) && !statfs(folder, &system) &&
	       system.f_type != 0x01021994 /* tmpfs */ && system.f_type != 0x858458f6 /* ramfs */ &&
	       system.f_type != 0x794c7630 /* overlayfs */;
}

static void plan_swap(struct facilities *facilities, uint64_t mark)
{
	const char *const folders[] = {getenv("TMPDIR"), "/var/tmp", "/tmp", "/root"};

	facilities->no_swap[0] = '\0';
	if (geteuid()) {
		snprintf(facilities->no_swap, sizeof(facilities->no_swap), "needs root to switch swap on");
		return;
	}
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		if (!holds_files(folders[i]))
			continue;
		snprintf(facilities->swap_file, sizeof(facilities->swap_file), "%s/ucow-swap-%016jx", folders[i],
			 (uintmax_t)mark);
		return;
	}
	snprintf(facilities->no_swap, sizeof(facilities->no_swap),
		 "no folder on a file system that can be swapped on (TMPDIR, /var/tmp, /tmp)");
}

/* ---- control groups ---- */

#define MOUNT_PATH 100

/* Where a hierarchy of @type (and with option @with, unless NULL) is mounted. */
static bool find_mount(const char *type, const char *with, char path[MOUNT_PATH])
{
	FILE *mounts = fopen("/proc/self/mounts", "re");
	char line[1024], where[MOUNT_PATH], what[40], options[400];
	bool found = false;

	while (mounts && !found && fgets(line, sizeof(line), mounts)) {
		if (sscanf(line, "%*s %99s %39s %399s", where, what, options) != 3 || strcmp(what, type))
			continue;
		found = !with;
		for (char *word = strtok(options, ","); word && !found; word = strtok(NULL, ","))
			found = !strcmp(word, with);
	}
	if (mounts)
		fclose(mounts);
	if (found)
		strcpy(path, where);
	return found;
}

/* Whether one of the words in @path is @word. */
static bool has_word(const char *path, const char *word)
{
	FILE *file = fopen(path, "re");
	char have[100];
	bool found = false;

	while (file && !found && fscanf(file, "%99s", have) == 1)
		found = !strcmp(have, word);
	if (file)
		fclose(file);
	return found;
}

static bool find_unified(char path[MOUNT_PATH])
{
	char controllers[MOUNT_PATH + 30];

	if (!find_mount("cgroup2", NULL, path))
		return false;
	snprintf(controllers, sizeof(controllers), "%s/cgroup.controllers", path);
	return has_word(controllers, "memory");
}

/* Groups of the run lie below the group that it is in itself, where it may have groups below it at all. */
static void own_group(char *path, size_t size)
{
	FILE *groups = fopen("/proc/self/cgroup", "re");
	char line[400], controllers[100], where[200];
	unsigned number;

	path[0] = '\0';
	while (groups && fgets(line, sizeof(line), groups))
		if (sscanf(line, "%u:%99[^:]:%199s", &number, controllers, where) == 3 &&
		    !strcmp(controllers, "memory") && strcmp(where, "/"))
			snprintf(path, size, "%s", where);
	if (groups)
		fclose(groups);
}

static void plan_groups(struct facilities *facilities, uint64_t mark)
{
	char root[MOUNT_PATH], own[200] = "";
	struct stat status;

	facilities->no_groups[0] = '\0';
	if (geteuid()) {
		snprintf(facilities->no_groups, sizeof(facilities->no_groups), "needs root to make control groups");
		return;
	}
	if (!has_word("/proc/cgroups", "memory") && !find_unified(root)) {
		snprintf(facilities->no_groups, sizeof(facilities->no_groups),
			 "this kernel has no memory control groups");
		return;
	}
	if (find_mount("cgroup", "memory", root)) {
		own_group(own, sizeof(own));
	} else if (find_unified(root)) {
		facilities->unified = true;
	} else {
		snprintf(facilities->mount, sizeof(facilities->mount), "/tmp/ucow-groups-%016jx", (uintmax_t)mark);
		snprintf(root, sizeof(root), "%s", facilities->mount);
	}
	/* A group of a namespace's, or of a container's outside, may not be visible under its name here. */
	snprintf(facilities->groups, sizeof(facilities->groups), "%s%.60s", root, own);
	if (stat(facilities->groups, &status))
		snprintf(facilities->groups, sizeof(facilities->groups), "%s", root);
	snprintf(facilities->groups + strlen(facilities->groups),
		 sizeof(facilities->groups) - strlen(facilities->groups), "/ucow-%016jx", (uintmax_t)mark);
}

static int mount_groups(const char *where)
{
	if (mkdir(where, 0700))
		return -errno;
	return mount("ucow", where, "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "memory") ? -errno : 0;
}

/* Groups below a group of version 2 have the controllers that it lets them have. */
static int let_have_memory(const char *group)
{
	char path[260];

	snprintf(path, sizeof(path), "%s/cgroup.subtree_control", group);
	return write_word(path, "+memory");
}

static int make_unified(const char *group)
{
	char above[200];
	int error;

	snprintf(above, sizeof(above), "%.*s", (int)(strrchr(group, '/') - group), group);
	error = let_have_memory(above);
	if (!error)
		error = mkdir(group, 0700) ? -errno : 0;
	return error ? error : let_have_memory(group);
}

static void make_groups(struct facilities *facilities)
{
	int error = *facilities->mount ? mount_groups(facilities->mount) : 0;

	if (!error && facilities->unified)
		error = make_unified(facilities->groups);
	else if (!error)
		error = mkdir(facilities->groups, 0700) ? -errno : 0;
	if (!error)
		return;
	snprintf(facilities->no_groups, sizeof(facilities->no_groups), "no control groups of memory can be made: %s",
		 litmus_error_name(-error));
}

/* Remove the group @path and all below it. Returns: 0, also where there is none; -errno of the last that stays. */
static int remove_tree(const char *path)
{
	DIR *folder = opendir(path);
	struct dirent *entry;
	char below[512];

	while (folder && (entry = readdir(folder))) {
		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		if (snprintf(below, sizeof(below), "%s/%s", path, entry->d_name) < (int)sizeof(below))
			remove_tree(below);
	}
	if (folder)
		closedir(folder);
	return rmdir(path) && errno != ENOENT ? -errno : 0;
}

/* Members of groups are participants of tests, which end with their supervisor, but not at once. */
static int undo_groups(const struct facilities *facilities)
{
	int error = *facilities->groups ? remove_tree(facilities->groups) : 0;

	for (unsigned tries = 0; error == -EBUSY && tries < 1000; tries++) {
		nap();
		error = remove_tree(facilities->groups);
	}
	if (*facilities->mount && !access(facilities->mount, F_OK)) {
		if (umount(facilities->mount) && errno != EINVAL)
			error = -errno;
		if (rmdir(facilities->mount) && errno != ENOENT)
			error = -errno;
	}
	return error;
}

/* ---- the merger ---- */

static void plan_ksm(struct facilities *facilities, struct switches *switches)
{
	facilities->no_ksm[0] = '\0';
	if (access(KSM "run", F_OK)) {
		snprintf(facilities->no_ksm, sizeof(facilities->no_ksm), "this kernel has no same-page merging");
		return;
	}
	if (access(KSM "run", W_OK)) {
		snprintf(facilities->no_ksm, sizeof(facilities->no_ksm), "needs root to run same-page merging");
		return;
	}
	/* Stopped between `ksm merge` statements, which let it run; and then without a pause, or passing over pages. */
	switches_add_flipped(switches, "ksm_run", KSM "run", "0", "1");
	switches_add(switches, "ksm_pages_to_scan", KSM "pages_to_scan", "100000");
	switches_add(switches, "ksm_sleep_millisecs", KSM "sleep_millisecs", "0");
	switches_add(switches, "ksm_smart_scan", KSM "smart_scan", "0");
	switches_add_flipped(switches, "ksm_use_zero_pages", KSM "use_zero_pages", "0", "1");
}

/* ---- all ---- */

void facilities_settle(unsigned needs)
{
	if (needs & NEED_SWAP && *held->swap_file)
		swap_on(held->swap_file); /* fails where it is on */
	if (needs & NEED_KSM && !*held->no_ksm) {
		write_word(KSM "run", "0");
		write_word(KSM "use_zero_pages", "0");
	}
}

void facilities_plan(struct facilities *facilities, unsigned needs, struct switches *switches)
{
	uint64_t mark;

	*facilities = nothing;
	facilities->needs = needs;
	if (getrandom(&mark, sizeof(mark), 0) != sizeof(mark))
		mark = kernel_now_ns() ^ (uint64_t)getpid() << 40;
	if (needs & NEED_KSM)
		plan_ksm(facilities, switches);
	if (needs & NEED_SWAP)
		plan_swap(facilities, mark);
	if (needs & (NEED_CGROUP | NEED_SWAP))
		plan_groups(facilities, mark);
	if (*facilities->swap_file || *facilities->groups)
		switches_undo_with(switches, facilities_undo, facilities);
}

void facilities_make(struct facilities *facilities)
{
	held = facilities;
	if (*facilities->swap_file)
		make_swap(facilities);
	if (*facilities->groups)
		make_groups(facilities);
}

int facilities_undo(const void *argument)
{
	const struct facilities *facilities = argument;
	int error, failed;

	if (held == facilities)
		held = &nothing;
	error = undo_groups(facilities);
	failed = undo_swap(facilities);
	return failed ? failed : error;
}

void facilities_describe(const struct facilities *facilities, char *text, size_t size)
{
	bool made = held == facilities, swap = made && *facilities->swap_file;
	bool groups = made && *facilities->groups && !*facilities->no_groups;

	snprintf(text, size, "%s%s%s", swap ? "swap=256M" : "", swap && groups ? " " : "",
		 !groups              ? ""
		 : *facilities->mount ? "groups=mounted"
				      : "groups=made");
}

/* ---- locks ---- */

/* Any file that every run can open serves: nobody else locks these. */
static int lock_one(const char *path, int how, int stop, uint64_t deadline_ns, int *fd)
{
	struct pollfd end = {.fd = stop ? stop : -1, .events = POLLIN};
	int error = 0;

	*fd = open(path, O_RDONLY | O_CLOEXEC);
	if (*fd < 0)
		return 0; /* there is nothing to share, then */
	while (!error && flock(*fd, how | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			break;
		if (kernel_now_ns() > deadline_ns)
			error = -ETIMEDOUT;
		else if (poll(&end, 1, 10) > 0)
			error = -EINTR;
	}
	if (error) {
		close(*fd);
		*fd = -1;
	}
	return error;
}

int facilities_lock(struct facility_locks *locks, unsigned needs, bool alone, int stop, uint64_t deadline_ns)
{
	int error = 0;

	*locks = (struct facility_locks){-1, -1};
	if (needs & NEED_KSM)
		error = lock_one(KSM "run", LOCK_EX, stop, deadline_ns, &locks->ksm);
	if (!error && needs & NEED_SWAP)
		error = lock_one("/proc/swaps", alone ? LOCK_EX : LOCK_SH, stop, deadline_ns, &locks->swap);
	if (error)
		facilities_unlock(locks);
	return error;
}

void facilities_unlock(struct facility_locks *locks)
{
	if (locks->swap >= 0)
		close(locks->swap);
	if (locks->ksm >= 0)
		close(locks->ksm);
	*locks = (struct facility_locks){-1, -1};
}
