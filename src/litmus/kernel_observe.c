/* SPDX-License-Identifier: MIT */
/*
 * What /proc shows of pages and areas (semantics.md D): pagemap, kpageflags, kpagecount, maps, smaps. Nothing here
 * touches a page under test.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#define FRAME_MASK ((UINT64_C(1) << 55) - 1)

/* ---- pages ---- */

static int read_word(int fd, uint64_t index, uint64_t *word)
{
	ssize_t got = pread(fd, word, sizeof(*word), (off_t)(index * sizeof(*word)));

	return got == sizeof(*word) ? 0 : got < 0 ? errno : ENODATA;
}

static int read_entry(pid_t pid, uint64_t va, uint64_t *entry)
{
	char path[40];
	int fd, error;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	error = read_word(fd, va / KERNEL_PAGE, entry);
	close(fd);
	return error;
}

/* Who may not see frame numbers sees zeros: look at a page that is certainly there. */
static bool shows_frames(void)
{
	volatile char here = 1;
	uint64_t entry;

	return !read_entry(getpid(), (uint64_t)(uintptr_t)&here, &entry) && entry & FRAME_MASK;
}

void kernel_open_eyes(struct kernel_eyes *eyes)
{
	struct utsname system;

	*eyes = (struct kernel_eyes){
		.frames = shows_frames(),
		.kpageflags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC),
		.kpagecount = open("/proc/kpagecount", O_RDONLY | O_CLOEXEC),
		.kpagecgroup = open("/proc/kpagecgroup", O_RDONLY | O_CLOEXEC),
	};
	if (uname(&system) || sscanf(system.release, "%u.%u", &eyes->major, &eyes->minor) != 2)
		eyes->major = eyes->minor = 0;
}

void kernel_close_eyes(struct kernel_eyes *eyes)
{
	if (eyes->kpageflags >= 0)
		close(eyes->kpageflags);
	if (eyes->kpagecount >= 0)
		close(eyes->kpagecount);
	if (eyes->kpagecgroup >= 0)
		close(eyes->kpagecgroup);
	eyes->kpageflags = eyes->kpagecount = eyes->kpagecgroup = -1;
}

const char *kernel_blind(const struct kernel_eyes *eyes)
{
	if (!eyes->frames)
		return "needs root (CAP_SYS_ADMIN) to see frame numbers";
	if (eyes->kpageflags < 0 || eyes->kpagecount < 0)
		return "/proc/kpageflags and /proc/kpagecount cannot be read here";
	return NULL;
}

const char *kernel_blind_to_exclusive(const struct kernel_eyes *eyes)
{
	if (kernel_blind(eyes))
		return kernel_blind(eyes);
	return eyes->major > 5 || (eyes->major == 5 && eyes->minor >= 19) ? NULL
									  : "kernels before 5.19 have no such flag";
}

int kernel_look(const struct kernel_eyes *eyes, pid_t pid, uint64_t va, struct kernel_page *page)
{
	int error;

	*page = (struct kernel_page){0};
	error = read_entry(pid, va, &page->entry);
	if (error || !(page->entry & PAGEMAP_PRESENT) || kernel_blind(eyes))
		return error;
	page->frame = page->entry & FRAME_MASK;
	error = read_word(eyes->kpageflags, page->frame, &page->flags);
	return error ? error : read_word(eyes->kpagecount, page->frame, &page->mapcount);
}

/*
 * An entry with a type and an offset (bits 0-4, 5-54) is a swap slot, or something of the kernel's own, for which it
 * keeps the highest types: pages on their way to another frame, markers, poison. There are nine of them at most.
 */
bool kernel_is_swapped(uint64_t entry)
{
	return entry & PAGEMAP_SWAPPED && !(entry & PAGEMAP_PRESENT) && (entry & 31) < 32 - 9;
}

const char *kernel_blind_to_owners(const struct kernel_eyes *eyes)
{
	if (kernel_blind(eyes))
		return kernel_blind(eyes);
	return eyes->kpagecgroup < 0 ? "/proc/kpagecgroup cannot be read here" : NULL;
}

int kernel_owner(const struct kernel_eyes *eyes, uint64_t frame, uint64_t *inode)
{
	return read_word(eyes->kpagecgroup, frame, inode);
}

int kernel_flags(const struct kernel_eyes *eyes, uint64_t frame, uint64_t *flags)
{
	return read_word(eyes->kpageflags, frame, flags);
}

int kernel_mapcount(const struct kernel_eyes *eyes, uint64_t frame, uint64_t *mapcount)
{
	return read_word(eyes->kpagecount, frame, mapcount);
}

int kernel_frames(pid_t pid, uint64_t va, uint64_t npages, int (*add)(void *arg, uint64_t frame), void *arg)
{
	uint64_t entries[512];
	char path[40];
	int fd, error = 0;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ESRCH ? 0 : errno;
	for (uint64_t done = 0; !error && done < npages;) {
		size_t n = npages - done < 512 ? npages - done : 512;
		ssize_t got = pread(fd, entries, n * sizeof(entries[0]),
				    (off_t)((va / KERNEL_PAGE + done) * sizeof(entries[0])));

		if (got == 0)
			break; /* it has just dropped its memory */
		if (got != (ssize_t)(n * sizeof(entries[0])))
			error = got < 0 ? errno : EIO;
		for (size_t i = 0; !error && i < n; i++)
			if (entries[i] & PAGEMAP_PRESENT && entries[i] & FRAME_MASK)
				error = add(arg, entries[i] & FRAME_MASK);
		done += n;
	}
	close(fd);
	return error;
}

/* ---- areas ---- */

/* A head line of maps or smaps. */
struct area {
	uint64_t start, end;
	int prot;
};

static bool parse_area(const char *line, struct area *area)
{
	char access[5];

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &area->start, &area->end, access) != 3)
		return false;
	area->prot = (access[0] == 'r' ? PROT_READ : 0) | (access[1] == 'w' ? PROT_WRITE : 0);
	return true;
}

static int open_proc(pid_t pid, const char *name, FILE **file)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	*file = fopen(path, "re");
	return *file ? 0 : errno;
}

int kernel_covered(pid_t pid, uint64_t va, uint64_t npages, int prot, uint64_t *covered)
{
	uint64_t reached = va, end = va + npages * KERNEL_PAGE;
	struct area area;
	char *line = NULL;
	size_t room = 0;
	FILE *maps;
	int error = open_proc(pid, "maps", &maps);

	if (error)
		return error;
	while (reached < end && getline(&line, &room, maps) > 0)
		if (parse_area(line, &area) && area.start <= reached && reached < area.end &&
		    (area.prot & prot) == prot)
			reached = area.end;
	free(line);
	fclose(maps);
	*covered = ((reached < end ? reached : end) - va) / KERNEL_PAGE;
	return 0;
}

/* smaps walks the entries, so that its sums are exact; the zero page is not in them. */
int kernel_rss(pid_t pid, uint64_t start, uint64_t end, uint64_t *npages)
{
	struct area area = {0};
	uint64_t kilobytes;
	char *line = NULL;
	size_t room = 0;
	FILE *smaps;
	int error = open_proc(pid, "smaps", &smaps);

	if (error)
		return error;
	*npages = 0;
	while (getline(&line, &room, smaps) > 0)
		if (!parse_area(line, &area) && area.start >= start && area.end <= end &&
		    sscanf(line, "Rss: %" SCNu64, &kilobytes) == 1)
			*npages += kilobytes * 1024 / KERNEL_PAGE;
	free(line);
	fclose(smaps);
	return 0;
}
