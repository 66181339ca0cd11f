/* SPDX-License-Identifier: MIT */
/*
 * Sort a file of lines of one length that is four times as large as the memory for it, in the manner of umap's
 * umapsort.
 *
 * The file appears as a region of a ucow space, but nothing maps it: a userfaultfd tells of every page that is missed,
 * and the pager below reads it from the file and supplies it write-protected. The first store to a page is reported
 * too, so the pager knows which pages are dirty. When memory is short the oldest page goes: a dirty one is protected
 * again, pinned for reading as a device would, written back and dropped; a clean one is only dropped. A wrong answer to
 * a read pin, breaking copy-on-write as if it were a store, comes back to the pager as a fault of its own making: that
 * is what the rules of Linux 5.8 did to umapsort (-p force-cow).
 *
 * Usage: umapsort [-p POLICY] [FILE]: sorts FILE in place, as LC_ALL=C sort would. Without FILE it makes one, sorts it
 * and checks. Exit status: 0; 1: an error, or not sorted; 3: the pager has faulted.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ucow/ucow.h>

#define TIMES    4              /* the file's size in terms of the memory's */
#define SPARE    ((uint64_t)16) /* pages of memory that the pager leaves to others */
#define LINE_MAX ((size_t)256)  /* bytes of a line, its end included */
#define SMALL    ((uint64_t)64) /* lines that are sorted in a buffer */
#define THREADS  2
#define OWN_SIZE ((uint64_t)8 << 20) /* of the file that is made */

static void __attribute__((noreturn)) fail(const char *what, int err)
{
	fprintf(stderr, "umapsort: %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(1);
}

static void must(const char *what, int err)
{
	if (err)
		fail(what, err);
}

/* ---- the pager ---- */

static _Thread_local int writing_back;

enum page_state { ABSENT, CLEAN, DIRTY };

static struct {
	pthread_mutex_t lock;
	struct ucow_mm *mm;
	int fd;
	uint64_t va, nbytes, npages; /* of the region */
	unsigned char *states;       /* enum page_state of each page */
	uint64_t *queue;             /* pages that are there, oldest first: a ring of `room` */
	uint64_t room, first, count;
	uint64_t reads, writes, drops;
	enum ucow_policy policy;
} pager = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t address_of(uint64_t page)
{
	return pager.va + page * UCOW_PAGE_SIZE;
}

/* The last page of the file may be a part of one. */
static size_t bytes_of(uint64_t page)
{
	uint64_t left = pager.nbytes - page * UCOW_PAGE_SIZE;

	return (size_t)(left < UCOW_PAGE_SIZE ? left : UCOW_PAGE_SIZE);
}

/* Nobody stores to the page from here on: whoever tries is reported, and waits for the pager's lock. */
static void write_back(struct ucow_uffd *uffd, uint64_t page)
{
	struct ucow_page *pinned;
	long got;

	must("protect", ucow_uffd_writeprotect(uffd, address_of(page), UCOW_PAGE_SIZE, UCOW_UFFD_MODE_WP));
	writing_back = 1;
	got = ucow_pin_user_pages_remote(pager.mm, address_of(page), 1, 0, &pinned);
	writing_back = 0;
	if (got != 1)
		fail("pin", got ? (int)got : EAGAIN);
	if (pwrite(pager.fd, ucow_page_address(pinned), bytes_of(page), (off_t)(page * UCOW_PAGE_SIZE)) !=
	    (ssize_t)bytes_of(page))
		fail("write", errno);
	ucow_unpin_user_pages(&pinned, 1);
	pager.writes++;
}

static void drop_oldest(struct ucow_uffd *uffd)
{
	uint64_t page = pager.queue[pager.first];

	if (pager.states[page] == DIRTY)
		write_back(uffd, page);
	must("drop", ucow_madvise(pager.mm, address_of(page), UCOW_PAGE_SIZE, UCOW_MADV_DONTNEED));
	pager.states[page] = ABSENT;
	pager.first = (pager.first + 1) % pager.room;
	pager.count--;
	pager.drops++;
}

static void supply(struct ucow_uffd *uffd, uint64_t page)
{
	static unsigned char bytes[UCOW_PAGE_SIZE]; /* under the lock */

	if (pager.count == pager.room)
		drop_oldest(uffd);
	memset(bytes, 0, sizeof(bytes));
	if (pread(pager.fd, bytes, bytes_of(page), (off_t)(page * UCOW_PAGE_SIZE)) != (ssize_t)bytes_of(page))
		fail("read", errno);
	must("supply", ucow_uffd_copy(uffd, address_of(page), bytes, UCOW_PAGE_SIZE, UCOW_UFFD_MODE_WP, NULL));
	pager.states[page] = CLEAN;
	pager.queue[(pager.first + pager.count++) % pager.room] = page;
	pager.reads++;
}

/* By the time the lock is ours another thread may have asked for the same, or the page may be gone: then try again. */
static enum ucow_uffd_answer on_fault(void *arg, struct ucow_uffd *uffd, const struct ucow_uffd_msg *msg)
{
	uint64_t page = (msg->va - pager.va) / UCOW_PAGE_SIZE;

	(void)arg;
	if (writing_back) {
		fputs("umapsort: a read pin of a protected page was reported as a store to it\n", stderr);
		exit(3);
	}
	pthread_mutex_lock(&pager.lock);
	if (!(msg->flags & UCOW_UFFD_FAULT_WP)) {
		if (pager.states[page] == ABSENT)
			supply(uffd, page);
	} else if (pager.states[page] == CLEAN) {
		pager.states[page] = DIRTY;
		must("lift", ucow_uffd_writeprotect(uffd, msg->va, UCOW_PAGE_SIZE, 0));
	}
	pthread_mutex_unlock(&pager.lock);
	return UCOW_UFFD_RESOLVED;
}

static void write_back_all(struct ucow_uffd *uffd)
{
	while (pager.count)
		drop_oldest(uffd);
	must("sync", fsync(pager.fd) ? errno : 0);
}

/* ---- sorting: quicksort, by as many threads as there are, of what a space shows ---- */

struct part {
	uint64_t first, end; /* lines */
	unsigned threads;
};

static size_t line_bytes;

static void load(struct ucow_cpu *cpu, uint64_t line, void *bytes, uint64_t n)
{
	must("load", ucow_read(cpu, pager.va + line * line_bytes, bytes, (size_t)n * line_bytes, NULL));
}

static void store(struct ucow_cpu *cpu, uint64_t line, const void *bytes, uint64_t n)
{
	must("store", ucow_write(cpu, pager.va + line * line_bytes, bytes, (size_t)n * line_bytes, NULL));
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, line_bytes);
}

static void sort_small(struct ucow_cpu *cpu, uint64_t first, uint64_t end)
{
	unsigned char lines[SMALL * LINE_MAX];

	load(cpu, first, lines, end - first);
	qsort(lines, (size_t)(end - first), line_bytes, compare);
	store(cpu, first, lines, end - first);
}

/* The median of three lines, which is neither the least nor the greatest unless they are equal. */
static void choose_pivot(struct ucow_cpu *cpu, uint64_t first, uint64_t end, unsigned char *pivot)
{
	unsigned char lines[3 * LINE_MAX];

	load(cpu, first, lines, 1);
	load(cpu, first + (end - first) / 2, lines + line_bytes, 1);
	load(cpu, end - 1, lines + 2 * line_bytes, 1);
	qsort(lines, 3, line_bytes, compare);
	memcpy(pivot, lines + line_bytes, line_bytes);
}

/* Hoare's partition. Returns: where the upper part begins; both parts have a line at least. */
static uint64_t partition(struct ucow_cpu *cpu, uint64_t first, uint64_t end)
{
	unsigned char pivot[LINE_MAX], low[LINE_MAX], high[LINE_MAX];
	uint64_t i = first, j = end - 1;

	choose_pivot(cpu, first, end, pivot);
	for (;; i++, j--) {
		for (load(cpu, i, low, 1); compare(low, pivot) < 0; load(cpu, i, low, 1))
			i++;
		for (load(cpu, j, high, 1); compare(high, pivot) > 0; load(cpu, j, high, 1))
			j--;
		if (i >= j)
			return i > first ? i : i + 1;
		store(cpu, i, high, 1);
		store(cpu, j, low, 1);
	}
}

static void *sort_part(void *arg);

static void sort_range(struct ucow_cpu *cpu, uint64_t first, uint64_t end, unsigned threads)
{
	while (end - first > SMALL) {
		uint64_t middle = partition(cpu, first, end);
		struct part lower = {first, middle, threads / 2};
		pthread_t thread;

		if (threads > 1) {
			must("thread", pthread_create(&thread, NULL, sort_part, &lower));
			sort_range(cpu, middle, end, threads - threads / 2);
			pthread_join(thread, NULL);
			return;
		}
		/* The smaller part first, so that the stack stays small. */
		if (middle - first < end - middle) {
			sort_range(cpu, first, middle, 1);
			first = middle;
		} else {
			sort_range(cpu, middle, end, 1);
			end = middle;
		}
	}
	if (end > first)
		sort_small(cpu, first, end);
}

static void *sort_part(void *arg)
{
	const struct part *part = arg;
	struct ucow_cpu *cpu;

	must("cpu", ucow_cpu_create(ucow_mm_machine(pager.mm), &cpu));
	ucow_cpu_attach(cpu, pager.mm);
	sort_range(cpu, part->first, part->end, part->threads);
	ucow_cpu_destroy(cpu);
	return NULL;
}

/* ---- the file ---- */

/* The length of all lines, their ends included; 0: they differ, or there is an unfinished one. */
static size_t length_of_lines(void)
{
	unsigned char bytes[UCOW_PAGE_SIZE];
	size_t length = 0, at = 0;

	for (uint64_t page = 0; page * UCOW_PAGE_SIZE < pager.nbytes; page++) {
		if (pread(pager.fd, bytes, bytes_of(page), (off_t)(page * UCOW_PAGE_SIZE)) != (ssize_t)bytes_of(page))
			fail("read", errno);
		for (size_t i = 0; i < bytes_of(page); i++) {
			at++;
			if (bytes[i] != '\n')
				continue;
			if (length && at != length)
				return 0;
			length = at;
			at = 0;
		}
	}
	return at || length > LINE_MAX ? 0 : length;
}

static void measure_lines(void)
{
	line_bytes = length_of_lines();
	if (!line_bytes) {
		fprintf(stderr, "umapsort: the file is not one of lines of one length, of up to %zu bytes\n", LINE_MAX);
		exit(1);
	}
}

static void open_pager(uint64_t ram)
{
	pager.npages = (pager.nbytes + UCOW_PAGE_SIZE - 1) / UCOW_PAGE_SIZE;
	pager.room = ram / UCOW_PAGE_SIZE - SPARE;
	pager.states = calloc(pager.npages, 1);
	pager.queue = calloc(pager.room, sizeof(*pager.queue));
	if (!pager.states || !pager.queue)
		fail("memory", ENOMEM);
}

/* RAM comes in units of 2 MiB, so that a small file may have less than its share left over, never more. */
static uint64_t ram_for(uint64_t nbytes)
{
	uint64_t unit = (uint64_t)2 << 20;

	return nbytes / TIMES < unit ? unit : nbytes / TIMES / unit * unit;
}

static void sort_file(int fd)
{
	struct ucow_machine_options machine_options = {.size = sizeof(machine_options)};
	const struct ucow_uffd_options options = {.size = sizeof(options), .callback = on_fault};
	struct ucow_machine *machine;
	struct ucow_uffd *uffd;
	struct part all = {.threads = THREADS};
	struct stat stat;

	must("stat", fstat(fd, &stat) ? errno : 0);
	pager.fd = fd;
	pager.nbytes = (uint64_t)stat.st_size;
	if (!pager.nbytes)
		return;
	measure_lines();
	machine_options.ram_bytes = ram_for(pager.nbytes);
	machine_options.policy = pager.policy;
	machine_options.fork_mode = pager.policy ? UCOW_FORK_EAGER : UCOW_FORK_DEFAULT;
	open_pager(machine_options.ram_bytes);
	must("machine", ucow_machine_create(&machine_options, &machine));
	must("space", ucow_mm_create(machine, &pager.mm));
	must("map", ucow_mmap(pager.mm, 0, pager.npages * UCOW_PAGE_SIZE, UCOW_PROT_READ | UCOW_PROT_WRITE,
			      UCOW_MAP_PRIVATE, &pager.va));
	must("uffd", ucow_uffd_create(pager.mm, &options, &uffd));
	must("register",
	     ucow_uffd_register(uffd, pager.va, pager.npages * UCOW_PAGE_SIZE, UCOW_UFFD_MISSING | UCOW_UFFD_WP, NULL));
	all.end = pager.nbytes / line_bytes;
	sort_part(&all);
	write_back_all(uffd);
	ucow_uffd_close(uffd);
	must("exit", ucow_mm_destroy(pager.mm));
	must("destroy", ucow_machine_destroy(machine));
	printf("%llu lines of %zu bytes, %llu pages of memory for %llu: %llu pages read, %llu dropped, %llu of them "
	       "written\n",
	       (unsigned long long)all.end, line_bytes, (unsigned long long)pager.room,
	       (unsigned long long)pager.npages, (unsigned long long)pager.reads, (unsigned long long)pager.drops,
	       (unsigned long long)pager.writes);
	free(pager.states);
	free(pager.queue);
}

/* ---- a file of its own ---- */

static uint64_t draw(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* What sorting must not change: a sum over all lines. */
static uint64_t sum_of(const char *line)
{
	uint64_t sum = 14695981039346656037u;

	for (; *line != '\n'; line++)
		sum = (sum ^ (unsigned char)*line) * 1099511628211u;
	return sum;
}

static uint64_t make_lines(FILE *file)
{
	uint64_t state = 20220313, sum = 0;
	char line[32];

	for (uint64_t at = 0; at + 17 <= OWN_SIZE; at += 17) {
		snprintf(line, sizeof(line), "%016llx\n", (unsigned long long)draw(&state));
		sum += sum_of(line);
		if (fputs(line, file) == EOF)
			fail("write", errno);
	}
	if (fflush(file))
		fail("write", errno);
	return sum;
}

/* Returns: whether the lines are in order, and the same as before. */
static int check_lines(FILE *file, uint64_t sum)
{
	char before[32] = "", line[32];
	uint64_t now = 0;

	rewind(file);
	while (fgets(line, sizeof(line), file)) {
		if (strcmp(before, line) > 0)
			return 0;
		memcpy(before, line, sizeof(line));
		now += sum_of(line);
	}
	return now == sum;
}

static int sort_own_file(void)
{
	FILE *file = tmpfile();
	uint64_t sum;
	int sorted;

	if (!file)
		fail("temporary file", errno);
	sum = make_lines(file);
	sort_file(fileno(file));
	sorted = check_lines(file, sum);
	fclose(file);
	puts(sorted ? "sorted" : "NOT SORTED");
	return !sorted;
}

int main(int argc, char **argv)
{
	int fd, option;

	while ((option = getopt(argc, argv, "p:")) != -1)
		if (option != 'p' || ucow_policy_parse(optarg, &pager.policy)) {
			fputs("usage: umapsort [-p POLICY] [FILE]\n", stderr);
			return 1;
		}
	if (optind == argc)
		return sort_own_file();
	fd = open(argv[optind], O_RDWR | O_CLOEXEC);
	if (fd < 0)
		fail(argv[optind], errno);
	sort_file(fd);
	close(fd);
	return 0;
}
