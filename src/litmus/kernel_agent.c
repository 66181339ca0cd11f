/* SPDX-License-Identifier: MIT */
/*
 * The agent: the code that runs inside each participant of a kernel run, and what it can do to its own memory and, by
 * system calls, to that of others. Its stack and buffers lie far from the regions under test. Fork and threads are
 * here; who is forked when, and what it means, is the supervisor's business.
 */
#include "kernel_agent.h"

#include "litmus.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <linux/membarrier.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef UFFDIO_MOVE /* since 6.8 */
struct uffdio_move {
	__u64 dst, src, len, mode;
	__s64 move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

/* One serving thread of a participant: its main thread, or one that serves a lane. */
struct agent {
	int channel;
	bool is_thread; /* ends alone when its channel closes; else the whole process ends */
	pid_t supervisor;
	int leash;
	struct meeting *meeting;
	struct agent_thread *threads; /* that this one has started */
	struct agent_command command;
	struct agent_reply reply;
	int fd;     /* that came with the command; closed after it unless the operation takes it (-1) */
	int answer; /* descriptor that goes with the reply, and is closed then; or -1 */
};

struct agent_thread {
	struct agent agent;
	pthread_t thread;
	struct agent_thread *next;
};

/* ---- loads and stores that may fault ---- */

/* Volatile: the compiler sees no reader between the store and the access that may fault. */
static __thread sigjmp_buf *volatile fault_escape;

static void on_fault(int sig)
{
	if (fault_escape)
		siglongjmp(*fault_escape, sig);
	/* Not one of ours: let it happen again and end this process, so that the supervisor sees the signal. */
	signal(sig, SIG_DFL);
}

static int catch_faults(void)
{
	struct sigaction action = {.sa_handler = on_fault};
	sigset_t faults;

	sigemptyset(&faults);
	sigaddset(&faults, SIGSEGV);
	sigaddset(&faults, SIGBUS);
	if (sigaction(SIGSEGV, &action, NULL) || sigaction(SIGBUS, &action, NULL))
		return errno;
	return pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
}

/* Run @access under the handler. Returns: 0, LITMUS_SIGSEGV or LITMUS_SIGBUS. */
static int guarded(struct agent *agent, void (*access)(struct agent *agent))
{
	sigjmp_buf escape;
	int error = 0;

	switch (sigsetjmp(escape, 1)) {
	case 0:
		fault_escape = &escape;
		access(agent);
		break;
	case SIGBUS:
		error = LITMUS_SIGBUS;
		break;
	default:
		error = LITMUS_SIGSEGV;
		break;
	}
	fault_escape = NULL;
	return error;
}

/* What a test does to its memory, racing or not, is no business of a sanitizer's. */
#define UNCHECKED __attribute__((no_sanitize("address", "thread")))

static volatile char *byte_at(uint64_t va)
{
	return (volatile char *)(uintptr_t)va;
}

UNCHECKED static void store_bytes(struct agent *agent)
{
	const struct agent_command *command = &agent->command;

	for (uint64_t page = 0; page < command->npages; page++)
		for (uint32_t i = 0; i < command->nbytes; i++)
			byte_at(command->va + page * KERNEL_PAGE)[i] = command->bytes[i];
}

UNCHECKED static void touch_pages(struct agent *agent)
{
	const struct agent_command *command = &agent->command;

	for (uint64_t page = 0; page < command->npages; page++)
		(void)*byte_at(command->va + page * KERNEL_PAGE);
}

UNCHECKED static void load_bytes(struct agent *agent)
{
	for (uint32_t i = 0; i < agent->command.wanted; i++)
		agent->reply.bytes[i] = byte_at(agent->command.va)[i];
}

static int do_load(struct agent *agent)
{
	int error = guarded(agent, load_bytes);

	agent->reply.nbytes = error ? 0 : agent->command.wanted;
	return error;
}

UNCHECKED static void glimpse(struct agent *agent)
{
	const struct agent_look *look = (const struct agent_look *)(const void *)agent->command.bytes;
	struct agent_glimpse *glimpse = (struct agent_glimpse *)(void *)(agent->reply.bytes + agent->reply.nbytes);

	for (uint32_t part = 0; part < AGENT_PARTS; part++)
		for (uint32_t i = 0; i < AGENT_PART_BYTES; i++)
			glimpse->bytes[part][i] = byte_at(agent->command.va + look->offsets[part])[i];
}

static void look_at_page(struct agent *agent, uint64_t va)
{
	struct agent_glimpse *seen = (struct agent_glimpse *)(void *)(agent->reply.bytes + agent->reply.nbytes);

	agent->command.va = va;
	seen->error = (int8_t)guarded(agent, glimpse);
	agent->reply.nbytes += sizeof(*seen);
}

static int do_look(struct agent *agent)
{
	const struct agent_look *look = (const struct agent_look *)(const void *)agent->command.bytes;

	for (uint32_t range = 0; range < look->nranges; range++)
		for (uint64_t page = 0; page < look->ranges[range].npages; page++) {
			if (agent->reply.nbytes + sizeof(struct agent_glimpse) > sizeof(agent->reply.bytes))
				return E2BIG;
			look_at_page(agent, look->ranges[range].va + page * KERNEL_PAGE);
		}
	return 0;
}

static uint64_t faults_so_far(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (uint64_t)usage.ru_minflt + (uint64_t)usage.ru_majflt;
}

/*
 * Run @access on the command's pages and answer how many faults it took. The same is done to a page of our own before,
 * so that what counts is theirs alone: code, stack and buffers are there.
 */
static int count_faults(struct agent *agent, void (*access)(struct agent *agent))
{
	static char page[KERNEL_PAGE];
	struct agent_command *command = &agent->command;
	uint64_t va = command->va, npages = command->npages, before;
	int error;

	command->va = (uint64_t)(uintptr_t)page;
	command->npages = 1;
	guarded(agent, access);
	faults_so_far();
	command->va = va;
	command->npages = npages;
	before = faults_so_far();
	error = guarded(agent, access);
	agent->reply.value = faults_so_far() - before;
	return error;
}

static int do_write(struct agent *agent)
{
	return count_faults(agent, store_bytes);
}

static int do_touch(struct agent *agent)
{
	return count_faults(agent, touch_pages);
}

/* A compare-exchange writes whatever the outcome, so the byte keeps its value and the store is real. */
UNCHECKED static uint64_t faults_of_store(volatile char *byte)
{
	uint64_t before = faults_so_far();
	char value = 0;

	__atomic_compare_exchange_n(byte, &value, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	return faults_so_far() - before;
}

UNCHECKED static void count_faults_of_store(struct agent *agent)
{
	static volatile char mine;

	/* The page is present: before the store counts, let this code, its data and a sanitizer's shadows be, too. */
	faults_of_store(&mine);
	(void)*byte_at(agent->command.va);
	agent->reply.value = faults_of_store(byte_at(agent->command.va));
}

static int do_store_faults(struct agent *agent)
{
	return guarded(agent, count_faults_of_store);
}

/* ---- calls on its own memory ---- */

static void *pointer(uint64_t va)
{
	return (void *)(uintptr_t)va;
}

static size_t bytes_of(const struct agent_command *command)
{
	return command->npages * KERNEL_PAGE;
}

/* As MAP_POPULATE does: what cannot be populated (no access, no memory) is left for later faults. */
static void populate(const struct agent_command *command)
{
	int advice = command->number & PROT_WRITE ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;

	madvise(pointer(command->va), bytes_of(command), advice);
}

static int do_map(struct agent *agent)
{
	const struct agent_command *command = &agent->command;
	int flags = MAP_FIXED_NOREPLACE | (command->flags & AGENT_SHARED ? MAP_SHARED : MAP_PRIVATE) |
		    (agent->fd < 0 ? MAP_ANONYMOUS : 0);
	void *at = mmap(pointer(command->va), bytes_of(command), command->number, flags, agent->fd, (off_t)command->to);

	if (at == MAP_FAILED)
		return errno;
	if (at != pointer(command->va)) {
		munmap(at, bytes_of(command));
		return EEXIST;
	}
	/* The rules under test are those of base pages. Fails where the kernel has no huge pages: as good. */
	madvise(at, bytes_of(command), MADV_NOHUGEPAGE);
	if (command->flags & AGENT_POPULATE)
		populate(command);
	return 0;
}

static int do_unmap(struct agent *agent)
{
	return munmap(pointer(agent->command.va), bytes_of(&agent->command)) ? errno : 0;
}

static int do_protect(struct agent *agent)
{
	const struct agent_command *command = &agent->command;

	return mprotect(pointer(command->va), bytes_of(command), command->number) ? errno : 0;
}

static int do_move(struct agent *agent)
{
	const struct agent_command *command = &agent->command;
	size_t nbytes = bytes_of(command);
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (command->number ? MREMAP_DONTUNMAP : 0);
	void *moved = mremap(pointer(command->va), nbytes, nbytes, flags, pointer(command->to));

	return moved == MAP_FAILED ? errno : 0;
}

static int do_advise(struct agent *agent)
{
	const struct agent_command *command = &agent->command;

	return madvise(pointer(command->va), bytes_of(command), command->number) ? errno : 0;
}

static int do_msync(struct agent *agent)
{
	const struct agent_command *command = &agent->command;

	return msync(pointer(command->va), bytes_of(command), command->number) ? errno : 0;
}

static int do_mlock(struct agent *agent)
{
	const struct agent_command *command = &agent->command;

	return mlock2(pointer(command->va), bytes_of(command), command->number ? MLOCK_ONFAULT : 0) ? errno : 0;
}

static int do_munlock(struct agent *agent)
{
	/* Not munlock(3), which AddressSanitizer makes do nothing. */
	return syscall(SYS_munlock, pointer(agent->command.va), bytes_of(&agent->command)) ? errno : 0;
}

/* It is about this process's memory, but used by whoever gets it. */
static int do_uffd(struct agent *agent)
{
	agent->answer = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	return agent->answer < 0 ? errno : 0;
}

/* The kernel moves pages for the process that they belong to alone. */
static int do_uffd_move(struct agent *agent)
{
	const struct agent_command *command = &agent->command;
	struct uffdio_move with = {.dst = command->to, .src = command->va, .len = command->length};
	int error = ioctl(agent->fd, UFFDIO_MOVE, &with) ? errno : 0;

	agent->reply.value = with.move > 0 ? (uint64_t)with.move : 0;
	return error;
}

/* ---- references and transfers ---- */

/* Rings cannot travel beside a message (since 6.7): fetch the supervisor's. */
static int fetch_ring(struct agent *agent, int *ring)
{
	int supervisor = (int)syscall(SYS_pidfd_open, agent->supervisor, 0);

	if (supervisor < 0)
		return errno;
	*ring = (int)syscall(SYS_pidfd_getfd, supervisor, agent->command.number, 0);
	close(supervisor);
	return *ring < 0 ? errno : 0;
}

static int do_register(struct agent *agent)
{
	struct iovec buffer = {pointer(agent->command.va), bytes_of(&agent->command)};
	int ring = -1, error = fetch_ring(agent, &ring);

	if (error)
		return error;
	agent->reply.value = 1;
	error = syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1) ? errno : 0;
	close(ring);
	return error;
}

/* The pipe has room for all; a page that cannot be taken ends the splice there, as it ends a get. */
static int do_vmsplice(struct agent *agent)
{
	const struct agent_command *command = &agent->command;
	ssize_t done;

	while (agent->reply.value < bytes_of(command)) {
		struct iovec rest = {pointer(command->va + agent->reply.value), bytes_of(command) - agent->reply.value};

		done = vmsplice(agent->fd, &rest, 1, SPLICE_F_NONBLOCK);
		if (done <= 0)
			return agent->reply.value ? 0 : done ? errno : EFAULT;
		agent->reply.value += (uint64_t)done;
	}
	return 0;
}

/*
 * The pins of a transfer may be dropped a moment after the call has returned, by the interrupt that completed it. Who
 * has run anything on each cpu since then has seen that interrupt end: the kernel does so to gather its statistics, if
 * root asks. Others wait for a grace period, which no interrupt handler outlives.
 */
static void outlast_interrupts(void)
{
	int fd = open("/proc/sys/vm/stat_refresh", O_WRONLY | O_CLOEXEC);
	bool gathered = fd >= 0 && write(fd, "1", 1) == 1;

	if (fd >= 0)
		close(fd);
	if (!gathered)
		syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}

static int direct(struct agent *agent, ssize_t (*transfer)(struct agent *agent))
{
	ssize_t done = transfer(agent);
	int error = done < 0 ? errno : 0;

	outlast_interrupts();
	agent->reply.value = error ? 0 : (uint64_t)done;
	return error;
}

static ssize_t to_file(struct agent *agent)
{
	const struct agent_command *command = &agent->command;

	return pwrite(agent->fd, pointer(command->va), command->length, (off_t)command->to);
}

static ssize_t from_file(struct agent *agent)
{
	const struct agent_command *command = &agent->command;

	return pread(agent->fd, pointer(command->va), command->length, (off_t)command->to);
}

static int do_direct_out(struct agent *agent)
{
	return direct(agent, to_file);
}

static int do_direct_in(struct agent *agent)
{
	return direct(agent, from_file);
}

/* ---- the memory of others ---- */

static int open_memory(pid_t pid, int flags, int *fd)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	*fd = open(path, flags | O_CLOEXEC);
	return *fd < 0 ? errno : 0;
}

static int do_peek(struct agent *agent)
{
	const struct agent_command *command = &agent->command;
	int fd, error = open_memory(command->pid, O_RDONLY, &fd);
	ssize_t got;

	if (error)
		return error;
	got = pread(fd, agent->reply.bytes, command->wanted, (off_t)command->va);
	error = got < 0 ? errno : (size_t)got < command->wanted ? EIO : 0;
	close(fd);
	agent->reply.nbytes = error ? 0 : command->wanted;
	return error;
}

static int do_poke(struct agent *agent)
{
	const struct agent_command *command = &agent->command;
	int fd, error = open_memory(command->pid, O_WRONLY, &fd);

	if (error)
		return error;
	for (uint64_t page = 0; !error && page < command->npages; page++) {
		off_t va = (off_t)(command->va + page * KERNEL_PAGE);
		ssize_t put = pwrite(fd, command->bytes, command->nbytes, va);

		error = put < 0 ? errno : (size_t)put < command->nbytes ? EIO : 0;
	}
	close(fd);
	return error;
}

static int do_remote_write(struct agent *agent)
{
	struct agent_command *command = &agent->command;
	struct iovec local = {command->bytes, command->nbytes};
	int error = 0;

	for (uint64_t page = 0; !error && page < command->npages; page++) {
		struct iovec remote = {pointer(command->va + page * KERNEL_PAGE), command->nbytes};
		ssize_t put = process_vm_writev(command->pid, &local, 1, &remote, 1, 0);

		error = put < 0 ? errno : (size_t)put < command->nbytes ? EFAULT : 0;
	}
	return error;
}

/* ---- processes and threads ---- */

static void close_between(int below, int above)
{
	unsigned first = below < STDERR_FILENO ? STDERR_FILENO + 1 : (unsigned)below + 1;

	if ((int)first < above)
		close_range(first, (unsigned)above - 1, 0);
}

/* All descriptors but two: what a parent happened to have open must not hold references in its child. */
static void close_all_but(int channel, int leash)
{
	int low = channel < leash ? channel : leash, high = channel < leash ? leash : channel;

	close_between(STDERR_FILENO, low);
	close_between(low, high);
	close_between(high, INT_MAX);
}

/* Make the process that has just been made a participant, which serves @channel. */
static void become_participant(struct agent *agent, int channel)
{
	/* Be ended with the supervisor, which may have been ended already. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != agent->supervisor)
		_exit(1);
	/* Others of this test may look into our memory, also where the system restricts that to ancestors. */
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	close_all_but(channel, agent->leash);
	agent->channel = channel;
	agent->is_thread = false;
	agent->threads = NULL;
}

/*
 * fork(2) in all that concerns memory, but the child becomes the supervisor's own: whoever exits in between, the
 * supervisor reaps it, learns how it ended, and takes it along when it dies itself. The C library's fork cannot do
 * that. Its preparations are not missed: no thread of this process is inside the allocator while a command is carried
 * out. Parent and child both answer, each on its own channel.
 */
static int do_fork(struct agent *agent)
{
	long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);

	if (pid < 0)
		return errno;
	if (pid == 0) {
		become_participant(agent, agent->fd);
		agent->fd = -1;
	}
	agent->reply.value = (uint64_t)pid;
	return 0;
}

static int do_exit(struct agent *agent)
{
	(void)agent;
	_exit(0);
}

static void serve(struct agent *agent);

static void *thread_main(void *arg)
{
	struct agent_thread *thread = arg;

	serve(&thread->agent);
	close(thread->agent.channel);
	return NULL;
}

static int start_thread(struct agent_thread *thread)
{
	pthread_attr_t attributes;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 256u << 10);
	error = pthread_create(&thread->thread, &attributes, thread_main, thread);
	pthread_attr_destroy(&attributes);
	return error;
}

static int do_thread(struct agent *agent)
{
	struct agent_thread *thread = calloc(1, sizeof(*thread));
	int error;

	if (!thread)
		return ENOMEM;
	thread->agent.channel = agent->fd;
	thread->agent.is_thread = true;
	thread->agent.supervisor = agent->supervisor;
	thread->agent.leash = agent->leash;
	thread->agent.meeting = agent->meeting;
	error = start_thread(thread);
	if (error) {
		free(thread);
		return error;
	}
	agent->fd = -1;
	thread->next = agent->threads;
	agent->threads = thread;
	return 0;
}

static int do_join(struct agent *agent)
{
	while (agent->threads) {
		struct agent_thread *thread = agent->threads;

		pthread_join(thread->thread, NULL);
		agent->threads = thread->next;
		free(thread);
	}
	return 0;
}

/*
 * New pages wait, with a reference, in a batch of their cpu until enough have gathered; a page that waits on another
 * cpu is copied where it could be reused (semantics.md D.3). Before leaving a cpu, push out what waits there.
 */
static void flush_page_batches(void)
{
	size_t nbytes = 64 * KERNEL_PAGE;
	char *pages = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED)
		return;
	madvise(pages, nbytes, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < nbytes; i += KERNEL_PAGE)
		((volatile char *)pages)[i] = 1;
	munmap(pages, nbytes);
}

static int do_cpu(struct agent *agent)
{
	cpu_set_t set;

	flush_page_batches();
	CPU_ZERO(&set);
	CPU_SET(agent->command.number, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? errno : 0;
}

/* ---- serving ---- */

static int (*const operations[AGENT_OP_COUNT])(struct agent *agent) = {
	[AGENT_MAP] = do_map,
	[AGENT_UNMAP] = do_unmap,
	[AGENT_PROTECT] = do_protect,
	[AGENT_MOVE] = do_move,
	[AGENT_ADVISE] = do_advise,
	[AGENT_MSYNC] = do_msync,
	[AGENT_MLOCK] = do_mlock,
	[AGENT_MUNLOCK] = do_munlock,
	[AGENT_UFFD] = do_uffd,
	[AGENT_UFFD_MOVE] = do_uffd_move,
	[AGENT_WRITE] = do_write,
	[AGENT_TOUCH] = do_touch,
	[AGENT_LOAD] = do_load,
	[AGENT_LOOK] = do_look,
	[AGENT_STORE_FAULTS] = do_store_faults,
	[AGENT_FORK] = do_fork,
	[AGENT_EXIT] = do_exit,
	[AGENT_REGISTER] = do_register,
	[AGENT_VMSPLICE] = do_vmsplice,
	[AGENT_DIRECT_OUT] = do_direct_out,
	[AGENT_DIRECT_IN] = do_direct_in,
	[AGENT_PEEK] = do_peek,
	[AGENT_POKE] = do_poke,
	[AGENT_REMOTE_WRITE] = do_remote_write,
	[AGENT_THREAD] = do_thread,
	[AGENT_JOIN] = do_join,
	[AGENT_CPU] = do_cpu,
};

/* Wait, for a short while at most, until the other lanes are here, then for this lane's own delay. */
static void meet_lanes(struct agent *agent)
{
	const uint64_t patience_ns = 50000000;
	uint64_t start = kernel_now_ns();

	atomic_fetch_add(&agent->meeting->arrived, 1);
	while (atomic_load(&agent->meeting->arrived) < agent->command.meet && kernel_now_ns() - start < patience_ns)
		sched_yield();
	start = kernel_now_ns();
	while (kernel_now_ns() - start < agent->command.delay_ns)
		continue;
}

/* Carry out the command that lies in agent->command and answer it. Returns: whether the channel still stands. */
static bool carry_out(struct agent *agent)
{
	int error;

	agent->reply.nbytes = 0;
	agent->reply.value = 0;
	agent->answer = -1;
	if (agent->command.meet)
		meet_lanes(agent);
	agent->reply.error = operations[agent->command.op](agent);
	if (agent->fd >= 0)
		close(agent->fd);
	error = channel_send_reply(agent->channel, &agent->reply, agent->answer);
	if (agent->answer >= 0)
		close(agent->answer);
	return !error;
}

static void serve(struct agent *agent)
{
	bool standing = true;

	while (standing) {
		standing = channel_receive(agent->channel, &agent->command, sizeof(agent->command), &agent->fd, 0) == 0;
		if (standing)
			standing = carry_out(agent);
	}
	if (!agent->is_thread)
		_exit(0);
}

_Noreturn void agent_main(int channel, pid_t supervisor, int leash, struct meeting *meeting)
{
	static struct agent agent;

	agent.supervisor = supervisor;
	agent.leash = leash;
	agent.meeting = meeting;
	become_participant(&agent, channel);
	if (catch_faults())
		_exit(1);
	serve(&agent);
	_exit(0);
}
