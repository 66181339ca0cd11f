/* SPDX-License-Identifier: MIT */
/*
 * Looking at participants without disturbing them: areas from maps, entries from pagemap, contents of present private
 * pages from mem, which takes a plain reference for a moment and changes nothing. What can only be seen by loads
 * (shared mappings; everything, where the test says so) the participants load themselves, all of it in one command.
 */
#include "fuzz_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_COLD
#define MADV_COLD 20
#endif

static const unsigned spots[FUZZ_SPOTS] = FUZZ_SPOT_OFFSETS;

static void take_window(uint8_t window[FUZZ_WINDOW], const void *page)
{
	for (unsigned spot = 0; spot < FUZZ_SPOTS; spot++)
		memcpy(window + (size_t)spot * FUZZ_TEXT, (const char *)page + spots[spot], FUZZ_TEXT);
}

/* Which page of the window page @i of the layout is. */
static unsigned index_of(const struct fuzz_kernel *kernel, unsigned i)
{
	uint64_t va = kernel->run.objects[kernel->test->layout.page[i].region].va;

	return (unsigned)((va - kernel->window) / KERNEL_PAGE) + kernel->test->layout.page[i].page;
}

static struct kernel_participant *participant_of(const struct fuzz_kernel *kernel, unsigned process)
{
	return &kernel->run.objects[kernel->test->layout.process[process]].participant;
}

static const char *name_of(const struct fuzz_kernel *kernel, unsigned process)
{
	return kernel->run.litmus->names[kernel->test->layout.process[process]].text;
}

unsigned fuzz_kernel_area(const struct fuzz_kernel *kernel, int process, uint64_t page)
{
	for (unsigned i = 0; i < kernel->test->layout.nprocesses; i++)
		if (kernel->test->layout.process[i] == process)
			return page < WINDOW_PAGES ? kernel->gazes[i].areas[page] : 0;
	return 0;
}

/* ---- files of /proc ---- */

static int open_one(pid_t pid, const char *name)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void close_one(int fd)
{
	if (fd >= 0)
		close(fd);
}

void fuzz_kernel_look_away(struct fuzz_kernel *kernel, unsigned process)
{
	struct kernel_gaze *gaze = &kernel->gazes[process];

	if (gaze->pid) {
		close_one(gaze->pagemap);
		close_one(gaze->mem);
		close_one(gaze->maps);
	}
	gaze->pid = 0;
}

static int open_gaze(struct fuzz_kernel *kernel, unsigned process)
{
	struct kernel_gaze *gaze = &kernel->gazes[process];

	if (gaze->pid)
		return 0;
	gaze->pid = participant_of(kernel, process)->pid;
	gaze->pagemap = open_one(gaze->pid, "pagemap");
	gaze->mem = open_one(gaze->pid, "mem");
	gaze->maps = open_one(gaze->pid, "maps");
	if (gaze->pagemap >= 0 && gaze->mem >= 0 && gaze->maps >= 0)
		return 0;
	return fuzz_kernel_fail(kernel, errno, "/proc of process %s", name_of(kernel, process));
}

/* ---- areas ---- */

static void mark_area(struct fuzz_kernel *kernel, struct kernel_gaze *gaze, uint64_t start, uint64_t end, unsigned area)
{
	for (unsigned i = 0; i < WINDOW_PAGES; i++) {
		uint64_t va = kernel->window + i * KERNEL_PAGE;

		if (va >= start && va < end)
			gaze->areas[i] = (uint8_t)area;
	}
}

/* The kernel answers questions about single areas since 6.11, ioctl 17 of /proc/PID/maps; older headers lack it. */
struct area_question {
	uint64_t size, flags, va;
	uint64_t start, end, answer_flags;
	uint64_t page_size, offset, inode;
	uint32_t major, minor, name_size, build_id_size;
	uint64_t name, build_id;
};
#define ASK_AREA      _IOWR('f', 17, struct area_question)
#define AREA_OR_NEXT  0x10u
#define ANSWER_SHARED 0x08u

/* Returns: 0; an errno value, ENOTTY where the kernel is too old. */
static int ask_areas(struct fuzz_kernel *kernel, struct kernel_gaze *gaze)
{
	struct area_question area = {.end = kernel->window};
	uint64_t end = kernel->window + (uint64_t)WINDOW_PAGES * KERNEL_PAGE;

	while (area.end < end) {
		area = (struct area_question){.size = sizeof(area), .flags = AREA_OR_NEXT, .va = area.end};
		if (ioctl(gaze->maps, ASK_AREA, &area))
			return errno == ENOENT ? 0 : errno;
		mark_area(kernel, gaze, area.start, area.end,
			  AREA_MAPPED | (area.answer_flags & ANSWER_SHARED || area.inode ? AREA_SHARED : 0));
	}
	return 0;
}

static int read_areas(struct fuzz_kernel *kernel, struct kernel_gaze *gaze)
{
	FILE *maps;
	unsigned long long start, end, inode;
	char access[5], line[512], path[40];

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)gaze->pid);
	maps = fopen(path, "re");
	if (!maps)
		return errno;
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%llx-%llx %4s %*x %*x:%*x %llu", &start, &end, access, &inode) == 4)
			mark_area(kernel, gaze, start, end,
				  AREA_MAPPED | (access[3] == 's' || inode ? AREA_SHARED : 0));
	fclose(maps);
	return 0;
}

static int look_at_areas(struct fuzz_kernel *kernel, unsigned process)
{
	struct kernel_gaze *gaze = &kernel->gazes[process];
	int error;

	memset(gaze->areas, 0, sizeof(gaze->areas));
	error = ask_areas(kernel, gaze);
	if (error == ENOTTY)
		error = read_areas(kernel, gaze);
	return error ? fuzz_kernel_fail(kernel, error, "maps of process %s", name_of(kernel, process)) : 0;
}

/* ---- loads ---- */

static bool is_loaded(const struct fuzz_kernel *kernel, unsigned area)
{
	return area & AREA_MAPPED && (kernel->test->looks || area & AREA_SHARED);
}

static void ask_for(const struct fuzz_kernel *kernel, const struct kernel_gaze *gaze, struct agent_look *look)
{
	*look = (struct agent_look){0};
	for (unsigned spot = 0; spot < FUZZ_SPOTS; spot++)
		look->offsets[spot] = spots[spot];
	for (unsigned i = 0; i < WINDOW_PAGES; i++) {
		if (!is_loaded(kernel, gaze->areas[i]))
			continue;
		if (!i || !is_loaded(kernel, gaze->areas[i - 1]))
			look->ranges[look->nranges++].va = kernel->window + i * KERNEL_PAGE;
		look->ranges[look->nranges - 1].npages++;
	}
}

static void take_loads(struct fuzz_kernel *kernel, unsigned process, struct fuzz_view *view)
{
	const struct agent_glimpse *glimpses = (const struct agent_glimpse *)(const void *)kernel->reply.bytes;
	const struct agent_glimpse *of[WINDOW_PAGES] = {NULL};

	for (unsigned i = 0; i < WINDOW_PAGES; i++)
		if (is_loaded(kernel, kernel->gazes[process].areas[i]))
			of[i] = glimpses++;
	for (unsigned i = 0; i < kernel->test->layout.npages; i++) {
		struct fuzz_page *page = &view->pages[process][i];
		const struct agent_glimpse *glimpse = of[index_of(kernel, i)];

		if (!glimpse)
			continue;
		page->has_bytes = !glimpse->error;
		memcpy(page->bytes, glimpse->bytes, FUZZ_WINDOW);
	}
}

static int load_pages(struct fuzz_kernel *kernel, unsigned process, const struct stmt *stmt, struct fuzz_view *view)
{
	struct agent_command command = {.op = AGENT_LOOK, .nbytes = sizeof(struct agent_look)};
	struct agent_look *look = (struct agent_look *)(void *)command.bytes;
	struct kernel_step step = {.run = &kernel->run, .stmt = stmt};
	int error;

	_Static_assert((int)AGENT_PARTS == (int)FUZZ_SPOTS && (int)AGENT_PART_BYTES == (int)FUZZ_TEXT, "one window");
	_Static_assert((int)AGENT_GLIMPSES >= (int)FUZZ_PAGES, "an answer holds all pages");
	_Static_assert((int)AGENT_RANGES >= (int)FUZZ_PAGES, "a question holds all ranges");
	ask_for(kernel, &kernel->gazes[process], look);
	if (!look->nranges)
		return 0;
	error = kernel_call(&step, kernel->test->layout.process[process], &command, -1, &kernel->reply);
	if (error)
		return fuzz_kernel_fail(kernel, error > 0 ? error : EIO, "loads of process %s",
					name_of(kernel, process));
	take_loads(kernel, process, view);
	return 0;
}

/* ---- entries and frames ---- */

#define FRAME_MASK ((UINT64_C(1) << 55) - 1)

static int read_word(int fd, uint64_t index, uint64_t *word)
{
	ssize_t got = pread(fd, word, sizeof(*word), (off_t)(index * sizeof(*word)));

	return got == sizeof(*word) ? 0 : got < 0 ? errno : ENODATA;
}

/* What protects an empty entry stays; the highest type of what is no swap slot. */
static bool is_marker(uint64_t entry)
{
	return (entry & 31) == 31;
}

/* Something moves pages now and then; wait until each is where it is, in memory or on a swap device. */
static bool settled(const struct kernel_gaze *gaze)
{
	for (unsigned i = 0; i < WINDOW_PAGES; i++)
		if (gaze->entries[i] & PAGEMAP_SWAPPED && !kernel_is_swapped(gaze->entries[i]) &&
		    !is_marker(gaze->entries[i]))
			return false;
	return true;
}

static int look_at_entries(struct fuzz_kernel *kernel, unsigned process)
{
	struct kernel_gaze *gaze = &kernel->gazes[process];
	off_t at = (off_t)(kernel->window / KERNEL_PAGE * sizeof(gaze->entries[0]));
	ssize_t got;

	for (unsigned tries = 0; tries < 2000; tries++) {
		got = pread(gaze->pagemap, gaze->entries, sizeof(gaze->entries), at);
		if (got != sizeof(gaze->entries))
			return fuzz_kernel_fail(kernel, got < 0 ? errno : EIO, "pagemap of process %s",
						name_of(kernel, process));
		if (settled(gaze))
			return 0;
		usleep(1000); /* who moves it may need this cpu */
	}
	return fuzz_kernel_fail(kernel, EAGAIN, "an entry of process %s stays neither present nor empty",
				name_of(kernel, process));
}

/* Who may not see frames can ask for one fact about them: ioctl 16 of pagemap, since 6.7. */
struct scan_question {
	uint64_t size, flags, start, end, walk_end, found, nfound, most;
	uint64_t inverted, mask, any_mask, answer_mask;
};
struct scan_found {
	uint64_t start, end, categories;
};
#define SCAN_PAGES     _IOWR('f', 16, struct scan_question)
#define SCAN_ZERO_PAGE 0x20u

/* Returns: 0; an errno value. */
static int ask_zero_page(int pagemap, uint64_t va, bool *is_zero)
{
	struct scan_found found;
	struct scan_question question = {
		.size = sizeof(question),
		.start = va,
		.end = va + KERNEL_PAGE,
		.found = (uint64_t)(uintptr_t)&found,
		.nfound = 1,
		.mask = SCAN_ZERO_PAGE,
		.answer_mask = SCAN_ZERO_PAGE,
	};
	int nfound = ioctl(pagemap, SCAN_PAGES, &question);

	*is_zero = nfound > 0;
	return nfound < 0 ? errno : 0;
}

/* Flags and count of the frame that the entry shows. Returns: 0; an errno value. */
static int read_frame(const struct kernel_eyes *eyes, uint64_t entry, struct fuzz_page *page)
{
	uint64_t flags = 0, mapcount = 0;
	int error;

	page->frame = entry & FRAME_MASK;
	error = read_word(eyes->kpageflags, page->frame, &flags);
	if (!error)
		error = read_word(eyes->kpagecount, page->frame, &mapcount);
	page->zero = flags & PAGE_ZERO;
	page->exclusive = flags & PAGE_ANON && flags & PAGE_EXCLUSIVE;
	page->mapcount = (uint32_t)mapcount;
	return !error && flags & (PAGE_COMPOUND | PAGE_HUGETLB) ? ENOTSUP : error;
}

/*
 * Frame, flags and count of a present page. What moves pages may do so between the looks: a frame that nothing maps, or
 * that is no longer the entry's, was one that the page has left. Returns: 0; an errno value.
 */
static int look_at_frame(struct fuzz_kernel *kernel, const struct kernel_gaze *gaze, unsigned index,
			 struct fuzz_page *page)
{
	const struct kernel_eyes *eyes = &kernel->run.eyes;
	uint64_t entry = gaze->entries[index], again;
	int error = 0;

	if (kernel_blind(eyes))
		return kernel->type.sees & FUZZ_SEES_PRESENT
			       ? ask_zero_page(gaze->pagemap, kernel->window + index * KERNEL_PAGE, &page->zero)
			       : 0;
	for (unsigned tries = 0; !error && tries < 1000; tries++) {
		if (entry & PAGEMAP_PRESENT)
			error = read_frame(eyes, entry, page);
		if (!error)
			error = read_word(gaze->pagemap, kernel->window / KERNEL_PAGE + index, &again);
		if (!error && entry & PAGEMAP_PRESENT && (again & FRAME_MASK) == page->frame &&
		    (page->mapcount || page->zero))
			return 0;
		entry = again;
		sched_yield();
	}
	return error ? error : EAGAIN;
}

static int look_at_page(struct fuzz_kernel *kernel, unsigned process, unsigned i, struct fuzz_page *page)
{
	const struct kernel_gaze *gaze = &kernel->gazes[process];
	unsigned index = index_of(kernel, i);
	int error = 0;

	page->mapped = gaze->areas[index] & AREA_MAPPED;
	page->shared = gaze->areas[index] & AREA_SHARED;
	page->present = gaze->entries[index] & PAGEMAP_PRESENT;
	page->wp = gaze->entries[index] & PAGEMAP_UFFD_WP;
	page->swapped = kernel_is_swapped(gaze->entries[index]);
	if (page->present)
		error = look_at_frame(kernel, gaze, index, page);
	return error ? fuzz_kernel_fail(kernel, error, "a frame of process %s", name_of(kernel, process)) : 0;
}

/* ---- contents of private pages ---- */

static bool is_peeked(const struct fuzz_kernel *kernel, const struct kernel_gaze *gaze, unsigned index)
{
	return gaze->areas[index] & AREA_MAPPED && !is_loaded(kernel, gaze->areas[index]) &&
	       gaze->entries[index] & PAGEMAP_PRESENT;
}

/* Put pages into their places of the buffer, runs at a time. Forced, as a tracer may: protections do not matter. */
static int peek_pages(struct fuzz_kernel *kernel, unsigned process)
{
	const struct kernel_gaze *gaze = &kernel->gazes[process];

	for (unsigned start = 0, end; start < WINDOW_PAGES; start = end) {
		size_t nbytes;

		end = start + 1;
		if (!is_peeked(kernel, gaze, start))
			continue;
		while (end < WINDOW_PAGES && is_peeked(kernel, gaze, end))
			end++;
		nbytes = (size_t)(end - start) * KERNEL_PAGE;
		if (pread(gaze->mem, kernel->buffer + (size_t)start * KERNEL_PAGE, nbytes,
			  (off_t)(kernel->window + (uint64_t)start * KERNEL_PAGE)) != (ssize_t)nbytes)
			return fuzz_kernel_fail(kernel, EIO, "mem of process %s", name_of(kernel, process));
	}
	return 0;
}

static void take_private_bytes(struct fuzz_kernel *kernel, unsigned process, struct fuzz_view *view)
{
	const struct kernel_gaze *gaze = &kernel->gazes[process];

	for (unsigned i = 0; i < kernel->test->layout.npages; i++) {
		struct fuzz_page *page = &view->pages[process][i];
		unsigned index = index_of(kernel, i);

		if (is_loaded(kernel, gaze->areas[index]) || !(gaze->areas[index] & AREA_MAPPED))
			continue;
		page->has_bytes = true;
		if (is_peeked(kernel, gaze, index))
			take_window(page->bytes, kernel->buffer + (size_t)index * KERNEL_PAGE);
		else
			memset(page->bytes, 0, sizeof(page->bytes));
	}
}

/* ---- processes ---- */

static int look_at_process(struct fuzz_kernel *kernel, unsigned process, struct fuzz_view *view)
{
	int error = look_at_entries(kernel, process);

	for (unsigned i = 0; !error && i < kernel->test->layout.npages; i++)
		error = look_at_page(kernel, process, i, &view->pages[process][i]);
	if (!error)
		error = peek_pages(kernel, process);
	if (!error)
		take_private_bytes(kernel, process, view);
	return error;
}

/* Loads come first, of all: they may map pages. */
static int load_process(struct fuzz_kernel *kernel, unsigned process, const struct stmt *stmt, struct fuzz_view *view)
{
	int error = open_gaze(kernel, process);

	memset(view->pages[process], 0, sizeof(view->pages[process][0]) * kernel->test->layout.npages);
	if (!error)
		error = look_at_areas(kernel, process);
	return error ? error : load_pages(kernel, process, stmt, view);
}

static int look_at_processes(struct fuzz_kernel *kernel, const struct stmt *stmt, struct fuzz_view *view)
{
	const struct fuzz_layout *layout = &kernel->test->layout;
	int error = 0;

	for (unsigned process = 0; !error && process < layout->nprocesses; process++) {
		view->alive[process] = participant_of(kernel, process)->channel >= 0;
		if (view->alive[process])
			error = load_process(kernel, process, stmt, view);
		else
			fuzz_kernel_look_away(kernel, process);
	}
	for (unsigned process = 0; !error && process < layout->nprocesses; process++)
		if (view->alive[process])
			error = look_at_process(kernel, process, view);
	return error;
}

/* ---- handles ---- */

/* Returns: 0; an errno value. */
static int fetch_held(struct fuzz_kernel *kernel, struct kernel_handle *handle)
{
	size_t nbytes = handle->npages * KERNEL_PAGE;
	int error;

	if (handle->device)
		return kernel_device_read(handle->device, 0, 0, kernel->buffer, nbytes);
	error = kernel_pipe_read(handle, false);
	if (!error)
		memcpy(kernel->buffer, handle->bytes, nbytes);
	return error;
}

static int look_at_handle(struct fuzz_kernel *kernel, unsigned i, struct fuzz_held *held)
{
	int name = kernel->test->layout.handle[i], error;
	struct kernel_handle *handle = &kernel->run.objects[name].handle;

	memset(held->loose, 0, sizeof(held->loose));
	held->bound = handle->state == KERNEL_HELD;
	if (!held->bound)
		return 0;
	held->npages = (unsigned)handle->npages;
	error = fetch_held(kernel, handle);
	if (error)
		return fuzz_kernel_fail(kernel, error, "what %s holds", kernel->run.litmus->names[name].text);
	for (unsigned page = 0; page < held->npages; page++) {
		held->has_bytes[page] = true;
		take_window(held->bytes[page], kernel->buffer + (size_t)page * KERNEL_PAGE);
	}
	return 0;
}

/* ---- files ---- */

static int read_file(struct fuzz_kernel *kernel, unsigned i)
{
	int name = kernel->test->layout.file[i], fd = kernel_file_seen(&kernel->run.objects[name].file);
	struct fuzz_file *file = &kernel->files[i];
	ssize_t got;

	file->made = fd >= 0;
	if (!file->made)
		return 0;
	got = pread(fd, kernel->buffer, (size_t)FUZZ_FILE_PAGES * KERNEL_PAGE, 0);
	if (got < 0)
		return fuzz_kernel_fail(kernel, errno, "file %s", kernel->run.litmus->names[name].text);
	file->npages = (unsigned)got / KERNEL_PAGE;
	for (unsigned page = 0; page < file->npages; page++)
		take_window(file->bytes[page], kernel->buffer + (size_t)page * KERNEL_PAGE);
	return 0;
}

/*
 * A file that nobody maps changes by transfers only, which are over when the statement is: reading it each time would
 * cost the most.
 */
static bool may_change_files(const struct litmus *litmus, const struct stmt *stmt)
{
	return stmt->kind == STMT_FILE || stmt->kind == STMT_DIRECT_OUT || litmus->needs & NEED_FILE;
}

/* ---- groups ---- */

static int look_at_groups(struct fuzz_kernel *kernel, struct fuzz_view *view)
{
	const struct fuzz_layout *layout = &kernel->test->layout;
	int error = 0;

	kernel_note_frames(&kernel->run);
	for (unsigned i = 0; kernel->run.counts_usage && !error && i < layout->ngroups; i++) {
		view->usage[i] = 0;
		if (kernel->run.objects[layout->group[i]].group.inode)
			error = kernel_count_usage(&kernel->run, layout->group[i], &view->usage[i]);
	}
	return error ? fuzz_kernel_fail(kernel, error, "who pays for pages") : 0;
}

/* ---- all ---- */

/*
 * New pages, and pages that calls reach again and again (ours, too), wait with a reference in batches of their cpu:
 * such a page would be copied where it could be reused. Before the kernel ages pages on request it pushes out what
 * waits on the cpu, which is everybody's here; no page needs to be there.
 */
static void push_batches(const struct fuzz_kernel *kernel)
{
	madvise(kernel->scratch, KERNEL_PAGE, MADV_COLD);
}

int fuzz_kernel_look(struct fuzz_kernel *kernel, size_t at, struct fuzz_view *view)
{
	const struct fuzz_layout *layout = &kernel->test->layout;
	const struct stmt *stmt = &kernel->test->litmus->stmts[at];
	bool read_files = may_change_files(kernel->test->litmus, stmt) || at + 1 == kernel->test->litmus->nstmts;
	int error = look_at_processes(kernel, stmt, view);

	for (unsigned i = 0; !error && i < layout->nhandles; i++)
		error = look_at_handle(kernel, i, &view->held[i]);
	for (unsigned i = 0; !error && read_files && i < layout->nfiles; i++)
		error = read_file(kernel, i);
	memcpy(view->files, kernel->files, sizeof(view->files));
	if (!error)
		error = look_at_groups(kernel, view);
	push_batches(kernel);
	return error;
}

/* Whether the zero page can be told from others without seeing frames. */
static bool tells_zero_page(void)
{
	volatile char *page = mmap(NULL, KERNEL_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	bool is_zero = false;

	if (page != MAP_FAILED) {
		(void)*page;
		if (pagemap < 0 || ask_zero_page(pagemap, (uint64_t)(uintptr_t)page, &is_zero))
			is_zero = false;
		munmap((void *)(uintptr_t)page, KERNEL_PAGE);
	}
	close_one(pagemap);
	return is_zero;
}

unsigned fuzz_kernel_sees(const struct kernel_eyes *eyes)
{
	unsigned sees = FUZZ_SEES_BYTES | FUZZ_SEES_MAPPED | FUZZ_SEES_WP | FUZZ_SEES_FAULTS | FUZZ_SEES_OUTCOME;

	if (!kernel_blind(eyes))
		sees |= FUZZ_SEES_FRAMES | FUZZ_SEES_MAPCOUNT;
	if (!kernel_blind(eyes) || tells_zero_page())
		sees |= FUZZ_SEES_PRESENT;
	if (!kernel_blind_to_exclusive(eyes))
		sees |= FUZZ_SEES_EXCLUSIVE;
	if (!kernel_blind_to_owners(eyes))
		sees |= FUZZ_SEES_USAGE;
	return sees;
}
