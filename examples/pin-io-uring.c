/* SPDX-License-Identifier: MIT */
/*
 * A real device writes into pinned pages while their space is forked.
 *
 * The pages are pinned, and an O_DIRECT read of a file into them is submitted to io_uring. The space is forked before
 * the read is done: the pinned pages stay with the parent, and the child gets copies of what they held at the fork. So
 * the parent finds the file's bytes and the child the old ones. (With the rules that Linux had before 5.9 either of the
 * two could lose.)
 *
 * Exits with 77 where O_DIRECT or io_uring cannot be had.
 */
#include <stdio.h>

#define SKIP 77

#ifdef UCOW_HAVE_LIBURING

#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <ucow/ucow.h>

#define NPAGES 4
#define NBYTES (NPAGES * UCOW_PAGE_SIZE)

struct example {
	struct ucow_machine *machine;
	struct ucow_mm *parent, *child;
	struct ucow_cpu *cpu;
	uint64_t va;
	struct ucow_page *pages[NPAGES];
	struct iovec buffers[NPAGES]; /* the pages' bytes, as a device needs them */
	struct io_uring ring;
	int file;
	int gate; /* an eventfd; the read waits for it */
};

static int skip(const char *why)
{
	printf("skipped: %s\n", why);
	return SKIP;
}

/* A file of NPAGES pages of 'F', opened for direct I/O, without a name. */
static int make_file(void)
{
	const char *folder = getenv("TMPDIR");
	char path[4096], *bytes = NULL;
	int writer, file = -1;

	snprintf(path, sizeof(path), "%s/ucow-pin-XXXXXX", folder && folder[0] ? folder : "/tmp");
	writer = mkstemp(path);
	if (writer < 0)
		return -1;
	bytes = malloc(NBYTES);
	if (bytes) {
		memset(bytes, 'F', NBYTES);
		if (write(writer, bytes, NBYTES) == (ssize_t)NBYTES && fsync(writer) == 0)
			file = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	}
	free(bytes);
	unlink(path);
	close(writer);
	return file;
}

static int set_up(struct example *e)
{
	const struct ucow_machine_options options = {.size = sizeof(options)};
	int err = ucow_machine_create(&options, &e->machine);

	if (!err)
		err = ucow_mm_create(e->machine, &e->parent);
	if (!err)
		err = ucow_cpu_create(e->machine, &e->cpu);
	if (!err)
		err = ucow_mmap(e->parent, 0, NBYTES, UCOW_PROT_READ | UCOW_PROT_WRITE, UCOW_MAP_PRIVATE, &e->va);
	if (err)
		return err;
	ucow_cpu_attach(e->cpu, e->parent);
	for (unsigned i = 0; i < NPAGES && !err; i++)
		err = ucow_write(e->cpu, e->va + i * UCOW_PAGE_SIZE, "old", 4, NULL);
	return err;
}

/* From here to the unpin, ucow_page_address is where the parent's memory is, whatever happens to its tables. */
static int pin(struct example *e)
{
	long got = ucow_pin_user_pages(e->cpu, e->va, NPAGES, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM, e->pages);

	if (got != NPAGES)
		return -1;
	for (unsigned i = 0; i < NPAGES; i++)
		e->buffers[i] = (struct iovec){ucow_page_address(e->pages[i]), UCOW_PAGE_SIZE};
	return 0;
}

/* Submit the read behind a poll of the gate, so that it cannot be over before the fork. */
static int submit_read(struct example *e)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&e->ring);

	io_uring_prep_poll_add(sqe, e->gate, POLLIN);
	sqe->flags |= IOSQE_IO_LINK;
	io_uring_sqe_set_data64(sqe, 1);
	sqe = io_uring_get_sqe(&e->ring);
	io_uring_prep_readv(sqe, e->file, e->buffers, NPAGES, 0);
	io_uring_sqe_set_data64(sqe, 2);
	return io_uring_submit(&e->ring) == 2 ? 0 : -1;
}

/* Open the gate and wait for both completions. Returns: what the read returned. */
static int finish_read(struct example *e)
{
	struct io_uring_cqe *cqe;
	int result = -1;

	if (eventfd_write(e->gate, 1))
		return -1;
	for (unsigned i = 0; i < 2; i++) {
		if (io_uring_wait_cqe(&e->ring, &cqe))
			return -1;
		if (io_uring_cqe_get_data64(cqe) == 2)
			result = cqe->res;
		io_uring_cqe_seen(&e->ring, cqe);
	}
	return result;
}

static bool every_page_reads(struct example *e, const char *who, struct ucow_mm *mm, const char *expected)
{
	bool right = true;
	char text[4];

	ucow_cpu_attach(e->cpu, mm);
	for (unsigned i = 0; i < NPAGES; i++)
		if (ucow_read(e->cpu, e->va + i * UCOW_PAGE_SIZE, text, 4, NULL) || memcmp(text, expected, 4) != 0)
			right = false;
	printf("%s: %s\n", who, right ? "reads what it should" : "WRONG");
	return right;
}

/* The fork happens while the read is in flight. */
static int run(struct example *e)
{
	bool right;
	int got;

	if (set_up(e) || pin(e))
		return 1;
	if (submit_read(e) || ucow_fork(e->parent, &e->child))
		return 1;
	got = finish_read(e);
	if (got == -EINVAL || got == -EOPNOTSUPP)
		return skip("the file system refuses direct I/O to this memory");
	printf("the device wrote %d bytes after the fork\n", got);
	right = got == (int)NBYTES;

	ucow_unpin_user_pages_dirty_lock(e->pages, NPAGES, true);
	right &= every_page_reads(e, "parent", e->parent, "FFFF");
	right &= every_page_reads(e, "child ", e->child, "old");

	ucow_cpu_destroy(e->cpu);
	right &= ucow_mm_destroy(e->child) == 0;
	right &= ucow_mm_destroy(e->parent) == 0;
	right &= ucow_machine_destroy(e->machine) == 0;
	return right ? 0 : 1;
}

int main(void)
{
	static struct example example;
	int status;

	example.file = make_file();
	if (example.file < 0)
		return skip("no O_DIRECT in TMPDIR");
	example.gate = eventfd(0, EFD_CLOEXEC);
	if (example.gate < 0 || io_uring_queue_init(4, &example.ring, 0))
		return skip("no io_uring");
	status = run(&example);
	io_uring_queue_exit(&example.ring);
	return status;
}

#else

int main(void)
{
	puts("skipped: built without liburing");
	return SKIP;
}

#endif
