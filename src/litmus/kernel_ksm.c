/* SPDX-License-Identifier: MIT */
/*
 * `ksm merge` on the live kernel: let the same-page merger run until nothing more merges. It is stopped at all other
 * times (facilities.c), so that nothing merges behind a test's back.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KSM "/sys/kernel/mm/ksm/"

static int read_number(const char *path, uint64_t *number)
{
	char text[32];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return errno;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (got <= 0)
		return EIO;
	text[got] = '\0';
	*number = strtoull(text, NULL, 10);
	return 0;
}

static int set(const char *path, bool value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), error = 0;

	if (fd < 0)
		return errno;
	if (write(fd, value ? "1" : "0", 1) != 1)
		error = errno;
	close(fd);
	return error;
}

/* What the merger has come to. */
struct progress {
	uint64_t scans, shared, sharing;
};

static int read_progress(struct progress *progress)
{
	int error = read_number(KSM "full_scans", &progress->scans);

	if (!error)
		error = read_number(KSM "pages_shared", &progress->shared);
	return error ? error : read_number(KSM "pages_sharing", &progress->sharing);
}

/* Whether process @pid has memory that the merger may scan: without any it does not even count its scans. */
static bool is_mergeable(pid_t pid)
{
	char path[40], line[400];
	bool found = false;
	FILE *smaps;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	smaps = fopen(path, "re");
	while (smaps && !found && fgets(line, sizeof(line), smaps))
		found = !strncmp(line, "VmFlags:", 8) && strstr(line, " mg");
	if (smaps)
		fclose(smaps);
	return found;
}

static bool has_mergeable(const struct kernel_run *run)
{
	for (size_t i = 0; i < run->litmus->nnames; i++)
		if (run->litmus->names[i].kind == NAME_PROCESS && run->objects[i].participant.channel >= 0 &&
		    is_mergeable(run->objects[i].participant.pid))
			return true;
	return false;
}

/*
 * A page is merged in the third pass over it: the first notes its checksum, the second finds it unchanged. The pass
 * under way when the merger starts may have been past it. Then nothing may have changed for two passes.
 */
static int await_merging(struct kernel_step *step)
{
	const struct timespec a_moment = {.tv_nsec = 2000000};
	struct progress start = {0}, now = {0}, last;
	int error = read_progress(&start);

	for (last = start; !error;) {
		/* Another run that ends may have stopped it. */
		error = set(KSM "run", true);
		if (!error)
			error = read_progress(&now);
		if (error || kernel_now_ns() > step->run->deadline_ns)
			break;
		if (now.shared != last.shared || now.sharing != last.sharing)
			last = now;
		if (now.scans >= start.scans + 4 && now.scans >= last.scans + 2)
			return 0;
		nanosleep(&a_moment, NULL);
	}
	return error ? error : ETIMEDOUT;
}

int kernel_ksm_merge(struct kernel_step *step)
{
	bool zero_pages = step->stmt->options;
	int error, stopped;

	if (!has_mergeable(step->run))
		return 0;
	error = zero_pages ? set(KSM "use_zero_pages", true) : 0;
	if (!error)
		error = await_merging(step);
	stopped = set(KSM "run", false);
	if (zero_pages && !stopped)
		stopped = set(KSM "use_zero_pages", false);
	if (error || stopped)
		return kernel_error(step, "kernel: the same-page merger does not come to an end: %s",
				    litmus_error_name(error ? error : stopped));
	return 0;
}
