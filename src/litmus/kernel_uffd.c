/* SPDX-License-Identifier: MIT */
/*
 * Userfaultfds on the live kernel. A participant makes one and passes it to the supervisor, which does everything else
 * with it. A thread for each reads its events as soon as they come, so that nobody waits for a reader; a fault waits
 * until a statement resolves it. Only lanes may wait: outside of them nobody else could resolve anything.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* What headers older than the kernel lack. */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

const char *kernel_no_uffd(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return errno == EPERM ? "needs root, or vm.unprivileged_userfaultfd" : "this kernel has no userfaultfd";
	close(fd);
	return NULL;
}

/* ---- events ---- */

/* Take what there is. The lock is held. */
static void drain(struct kernel_uffd *uffd)
{
	struct uffd_msg message;

	while (uffd->fd >= 0 && read(uffd->fd, &message, sizeof(message)) == sizeof(message)) {
		if (uffd->nevents == sizeof(uffd->events) / sizeof(uffd->events[0]))
			return; /* no test waits in so many places */
		uffd->events[uffd->nevents++] = message;
		pthread_cond_broadcast(&uffd->came);
	}
}

static bool has_fault(const struct kernel_uffd *uffd)
{
	for (unsigned i = uffd->taken; i < uffd->nevents; i++)
		if (uffd->events[i].event == UFFD_EVENT_PAGEFAULT)
			return true;
	return false;
}

/* Whoever waits for it goes on, without an answer. The number stays taken: another lane may be about to use it. */
static void abandon(struct kernel_uffd *uffd)
{
	int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (nothing < 0)
		return;
	if (uffd->fd >= 0)
		dup2(nothing, uffd->fd);
	close(nothing);
}

void kernel_abandon_uffds(struct kernel_run *run)
{
	for (size_t i = 0; i < run->litmus->nnames; i++)
		if (run->litmus->names[i].kind == NAME_UFFD)
			abandon(&run->objects[i].uffd);
}

/* A fault outside of lanes waits for a statement that can only come after it. */
static void end_stuck(struct kernel_uffd *uffd)
{
	struct kernel_step step = {.run = uffd->run, .stmt = uffd->run->at};

	if (!step.stmt || !has_fault(uffd))
		return;
	kernel_break(&step, "waits for a userfaultfd, for ever");
	abandon(uffd);
}

static void *read_events(void *arg)
{
	struct kernel_uffd *uffd = arg;
	struct pollfd ends[] = {{.fd = uffd->fd, .events = POLLIN}, {.fd = uffd->stop, .events = POLLIN}};

	while (poll(ends, 2, -1) >= 0 || errno == EINTR) {
		if (ends[1].revents)
			break;
		pthread_mutex_lock(&uffd->lock);
		drain(uffd);
		end_stuck(uffd);
		pthread_mutex_unlock(&uffd->lock);
		if (ends[0].revents & (POLLHUP | POLLNVAL | POLLERR) || uffd->run->over)
			ends[0].fd = -1;
	}
	return NULL;
}

/* ---- their life ---- */

void kernel_uffd_init(struct kernel_uffd *uffd)
{
	uffd->fd = uffd->stop = -1;
	pthread_mutex_init(&uffd->lock, NULL);
	pthread_cond_init(&uffd->came, NULL);
}

void kernel_uffd_close(struct kernel_uffd *uffd)
{
	if (uffd->fd < 0)
		return;
	if (uffd->stop >= 0) {
		eventfd_write(uffd->stop, 1);
		pthread_join(uffd->reader, NULL);
		close(uffd->stop);
	}
	for (unsigned i = uffd->taken; i < uffd->nevents; i++)
		if (uffd->events[i].event == UFFD_EVENT_FORK)
			close((int)uffd->events[i].arg.fork.ufd);
	close(uffd->fd);
	uffd->fd = uffd->stop = -1;
	uffd->closed = true;
}

/* From here on @fd is the object's. Returns: 0; an errno value. */
static int adopt(struct kernel_run *run, struct kernel_uffd *uffd, int process, int fd)
{
	int error;

	uffd->run = run;
	uffd->process = process;
	uffd->fd = fd;
	uffd->stop = eventfd(0, EFD_CLOEXEC);
	error = uffd->stop < 0 ? errno : pthread_create(&uffd->reader, NULL, read_events, uffd);
	if (!error)
		return 0;
	if (uffd->stop >= 0)
		close(uffd->stop);
	close(fd);
	uffd->fd = uffd->stop = -1;
	return error;
}

/* The features that the test asks for; a kernel that lacks one refuses all. */
static int set_features(int fd, unsigned options)
{
	static const struct {
		unsigned option, feature;
	} features[] = {
		{UFFD_MODE_ASYNC, UFFD_FEATURE_WP_ASYNC},        {UFFD_SIGBUS, UFFD_FEATURE_SIGBUS},
		{UFFD_UNPOPULATED, UFFD_FEATURE_WP_UNPOPULATED}, {UFFD_ON_FORK, UFFD_FEATURE_EVENT_FORK},
		{UFFD_ON_REMAP, UFFD_FEATURE_EVENT_REMAP},       {UFFD_ON_REMOVE, UFFD_FEATURE_EVENT_REMOVE},
		{UFFD_ON_UNMAP, UFFD_FEATURE_EVENT_UNMAP},
	};
	struct uffdio_api api = {.api = UFFD_API};

	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		if (options & features[i].option)
			api.features |= features[i].feature;
	return ioctl(fd, UFFDIO_API, &api) ? errno : 0;
}

static struct uffdio_range range_of(const struct kernel_step *step)
{
	return (struct uffdio_range){kernel_va(step->run, &step->stmt->place, 0),
				     step->stmt->place.npages * KERNEL_PAGE};
}

static int register_range(struct kernel_step *step, int fd)
{
	struct uffdio_register with = {.range = range_of(step)};

	with.mode = (step->stmt->options & UFFD_MODE_WP ? UFFDIO_REGISTER_MODE_WP : 0) |
		    (step->stmt->options & UFFD_MODE_MISSING ? UFFDIO_REGISTER_MODE_MISSING : 0) |
		    (step->stmt->options & UFFD_MODE_MINOR ? UFFDIO_REGISTER_MODE_MINOR : 0);
	return ioctl(fd, UFFDIO_REGISTER, &with) ? errno : 0;
}

int kernel_uffd(struct kernel_step *step)
{
	struct kernel_uffd *uffd = &step->run->objects[step->stmt->name].uffd;
	struct agent_command command = {.op = AGENT_UFFD};
	struct agent_reply reply;
	int error = kernel_call(step, step->stmt->proc, &command, -1, &reply), fd = step->fd;

	if (error)
		return error;
	if (set_features(fd, step->stmt->options)) {
		close(fd);
		return kernel_skip_test(step, "this kernel's userfaultfd lacks a feature that the test asks for");
	}
	error = register_range(step, fd);
	if (error)
		close(fd);
	return error ? error : adopt(step->run, uffd, step->stmt->proc, fd);
}

/* The userfaultfd that @step uses. NULL: none was bound (*outcome 0), or it is closed. */
static struct kernel_uffd *used(struct kernel_step *step, int *outcome)
{
	struct kernel_uffd *uffd = &step->run->objects[step->stmt->handle].uffd;

	*outcome = 0;
	if (uffd->fd >= 0)
		return uffd;
	if (uffd->closed)
		*outcome = kernel_error(step, "%s has been closed", step->run->litmus->names[step->stmt->handle].text);
	return NULL;
}

int kernel_uffd_end(struct kernel_step *step)
{
	int outcome;
	struct kernel_uffd *uffd = used(step, &outcome);

	if (uffd)
		kernel_uffd_close(uffd);
	return outcome;
}

/* ---- operations ---- */

static int protect(struct kernel_step *step, int fd, __u64 mode)
{
	struct uffdio_writeprotect with = {.range = range_of(step), .mode = mode};

	return ioctl(fd, UFFDIO_WRITEPROTECT, &with) ? errno : 0;
}

/* Each page of the place gets the text at its start. */
static int copy(struct kernel_step *step, int fd)
{
	const struct text *text = &step->stmt->texts[0];
	static const size_t page_size = KERNEL_PAGE;
	struct uffdio_range range = range_of(step);
	char page[KERNEL_PAGE] = {0};
	int error = 0;

	memcpy(page, text->bytes, text->nbytes);
	for (__u64 done = 0; !error && done < range.len; done += page_size) {
		struct uffdio_copy with = {.dst = range.start + done,
					   .src = (__u64)(uintptr_t)page,
					   .len = page_size,
					   .mode = step->stmt->options & 1 ? UFFDIO_COPY_MODE_WP : 0};

		error = ioctl(fd, UFFDIO_COPY, &with) ? errno : 0;
	}
	return error;
}

static int zero(struct kernel_step *step, int fd)
{
	struct uffdio_zeropage with = {.range = range_of(step)};

	return ioctl(fd, UFFDIO_ZEROPAGE, &with) ? errno : 0;
}

static int let_continue(struct kernel_step *step, int fd)
{
	/* Bit 1: write-protected, newer than some headers. */
	struct uffdio_continue with = {.range = range_of(step), .mode = step->stmt->options & 1 ? 2 : 0};

	return ioctl(fd, UFFDIO_CONTINUE, &with) ? errno : 0;
}

static int poison(struct kernel_step *step, int fd)
{
	struct uffdio_poison with = {.range = range_of(step)};

	return ioctl(fd, UFFDIO_POISON, &with) ? errno : 0;
}

/* From the first place to the second. A scanner that has a page locked for a moment makes it EAGAIN. */
static int move(struct kernel_step *step, const struct kernel_uffd *uffd)
{
	uint64_t left = step->stmt->place.npages * KERNEL_PAGE, from = kernel_va(step->run, &step->stmt->place, 0);
	uint64_t to = kernel_va(step->run, &step->stmt->place2, 0);
	struct agent_reply reply;
	int error = 0;

	for (unsigned tries = 0; tries < 100; tries++) {
		struct agent_command command = {.op = AGENT_UFFD_MOVE, .va = from, .to = to, .length = left};

		error = kernel_call(step, uffd->process, &command, uffd->fd, &reply);
		if (error != EAGAIN)
			break;
		from += reply.value;
		to += reply.value;
		left -= reply.value;
	}
	return error;
}

static int on_range(struct kernel_step *step, int fd, unsigned long call)
{
	struct uffdio_range range = range_of(step);

	return ioctl(fd, call, &range) ? errno : 0;
}

static int operate(struct kernel_step *step, const struct kernel_uffd *uffd)
{
	int fd = uffd->fd;

	switch ((int)step->stmt->kind) {
	case STMT_UFFD_PROTECT:
		return protect(step, fd, UFFDIO_WRITEPROTECT_MODE_WP);
	case STMT_UFFD_UNPROTECT:
		return protect(step, fd, 0);
	case STMT_UFFD_COPY:
		return copy(step, fd);
	case STMT_UFFD_ZEROPAGE:
		return zero(step, fd);
	case STMT_UFFD_CONTINUE:
		return let_continue(step, fd);
	case STMT_UFFD_MOVE:
		return move(step, uffd);
	case STMT_UFFD_POISON:
		return poison(step, fd);
	case STMT_UFFD_WAKE:
		return on_range(step, fd, UFFDIO_WAKE);
	case STMT_UFFD_REGISTER:
		return register_range(step, fd);
	case STMT_UFFD_UNREGISTER:
		return on_range(step, fd, UFFDIO_UNREGISTER);
	}
	return ENOSYS;
}

int kernel_uffd_operate(struct kernel_step *step)
{
	int outcome;
	struct kernel_uffd *uffd = used(step, &outcome);

	return uffd ? operate(step, uffd) : outcome;
}

/* ---- check event ---- */

/* What @message is, and the page or pages that it is about. */
static enum litmus_event kind_of(const struct uffd_msg *message, uint64_t *va, uint64_t *npages)
{
	*va = message->arg.remove.start;
	*npages = (message->arg.remove.end - message->arg.remove.start) / KERNEL_PAGE;
	switch (message->event) {
	case UFFD_EVENT_FORK:
		return EVENT_FORK;
	case UFFD_EVENT_REMAP:
		*va = message->arg.remap.from;
		*npages = message->arg.remap.len / KERNEL_PAGE;
		return EVENT_REMAP;
	case UFFD_EVENT_REMOVE:
		return EVENT_REMOVE;
	case UFFD_EVENT_UNMAP:
		return EVENT_UNMAP;
	}
	*va = message->arg.pagefault.address & ~(uint64_t)(KERNEL_PAGE - 1);
	*npages = 1;
	return message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP      ? EVENT_WP
	       : message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR ? EVENT_MINOR
									  : EVENT_MISSING;
}

/* Who or what is at @va, for what was seen. */
static void describe(const struct kernel_run *run, uint64_t va, uint64_t npages, char text[100])
{
	const struct litmus *litmus = run->litmus;

	snprintf(text, 100, "an address outside");
	for (size_t i = 0; i < litmus->nnames; i++) {
		uint64_t page = (va - run->objects[i].va) / KERNEL_PAGE;

		if (litmus->names[i].kind != NAME_REGION || va < run->objects[i].va || page >= litmus->names[i].npages)
			continue;
		if (npages == 1)
			snprintf(text, 100, "%.40s[%" PRIu64 "]", litmus->names[i].text, page);
		else
			snprintf(text, 100, "%.40s[%" PRIu64 "..%" PRIu64 "]", litmus->names[i].text, page,
				 page + npages - 1);
	}
}

/* Wait for an event until the lane's time is over; outside of lanes it is there or never comes. The lock is held. */
static bool await_event(struct kernel_step *step, struct kernel_uffd *uffd)
{
	drain(uffd);
	while (uffd->taken == uffd->nevents && step->lane && !step->run->over &&
	       kernel_now_ns() < step->run->deadline_ns) {
		struct timespec soon;

		clock_gettime(CLOCK_REALTIME, &soon);
		soon.tv_nsec += 20000000;
		soon.tv_sec += soon.tv_nsec / 1000000000;
		soon.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&uffd->came, &uffd->lock, &soon);
	}
	return uffd->taken < uffd->nevents;
}

/* The process that the last fork before the check has made. */
static int youngest(const struct kernel_step *step)
{
	const struct stmt *stmt = step->stmt;

	while (stmt > step->run->litmus->stmts && stmt->kind != STMT_FORK)
		stmt--;
	return stmt->kind == STMT_FORK ? stmt->name : 0;
}

static int compare_event(struct kernel_step *step, const struct uffd_msg *message, uint64_t page)
{
	const struct stmt *stmt = step->stmt;
	bool is_fault = stmt->event <= EVENT_MINOR;
	uint64_t va, npages, wanted = is_fault ? 1 : stmt->place.npages;
	enum litmus_event seen = kind_of(message, &va, &npages);
	char text[100];
	int error;

	if (seen == stmt->event && seen == EVENT_FORK) {
		error = adopt(step->run, &step->run->objects[stmt->name].uffd, youngest(step),
			      (int)message->arg.fork.ufd);
		return error ? kernel_error(step, "kernel: no reader: %s", litmus_error_name(error)) : 0;
	}
	if (seen == EVENT_FORK)
		close((int)message->arg.fork.ufd);
	describe(step->run, va, npages, text);
	if (seen != stmt->event || va != kernel_va(step->run, &stmt->place, page) || npages != wanted)
		return kernel_break(step, "%s %s", litmus_event_name(seen), seen == EVENT_FORK ? "" : text);
	if (seen == EVENT_REMAP && message->arg.remap.to != kernel_va(step->run, &stmt->place2, 0))
		return kernel_break(step, "remap %s to elsewhere", text);
	return 0;
}

static int check_no_event(struct kernel_step *step, struct kernel_uffd *uffd)
{
	uint64_t va, npages;
	char text[100];

	drain(uffd);
	if (uffd->taken == uffd->nevents)
		return 0;
	kind_of(&uffd->events[uffd->taken], &va, &npages);
	describe(step->run, va, npages, text);
	return kernel_break(step, "%s %s", litmus_event_name(kind_of(&uffd->events[uffd->taken], &va, &npages)), text);
}

static int check_events(struct kernel_step *step, struct kernel_uffd *uffd)
{
	uint64_t n = step->stmt->event <= EVENT_MINOR ? step->stmt->place.npages : 1;
	int error = 0;

	if (step->stmt->event == EVENT_NONE)
		return check_no_event(step, uffd);
	for (uint64_t page = 0; !error && page < n; page++) {
		if (!await_event(step, uffd))
			return step->run->over ? STEP_ENDED : kernel_break(step, "no event");
		error = compare_event(step, &uffd->events[uffd->taken++], page);
	}
	return error;
}

int kernel_check_event(struct kernel_step *step)
{
	int outcome;
	struct kernel_uffd *uffd = used(step, &outcome);

	if (!uffd)
		return outcome;
	pthread_mutex_lock(&uffd->lock);
	outcome = check_events(step, uffd);
	pthread_mutex_unlock(&uffd->lock);
	return outcome;
}
