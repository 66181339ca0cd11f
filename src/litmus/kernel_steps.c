/* SPDX-License-Identifier: MIT */
/*
 * Statements about processes and their memory, done by their agents; and the table of all statements and checks.
 */
#include "kernel.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLD
#define MADV_COLD    20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

uint64_t kernel_va(const struct kernel_run *run, const struct place *place, uint64_t page)
{
	return run->objects[place->region].va + (place->first + page) * KERNEL_PAGE + place->offset;
}

/* A command about the statement's place. */
static struct agent_command command_on_place(const struct kernel_step *step, enum agent_op op)
{
	const struct place *place = &step->stmt->place;

	return (struct agent_command){.op = op, .va = kernel_va(step->run, place, 0), .npages = place->npages};
}

static int call(struct kernel_step *step, struct agent_command *command)
{
	struct agent_reply reply;

	return kernel_call(step, step->stmt->proc, command, -1, &reply);
}

static void put_text(struct agent_command *command, const struct stmt *stmt)
{
	const struct text *text = &stmt->texts[0];

	command->nbytes = (uint32_t)text->nbytes;
	memcpy(command->bytes, text->bytes, text->nbytes);
}

static int prot_bits(enum litmus_prot prot)
{
	return prot == LITMUS_PROT_NONE ? PROT_NONE : prot == LITMUS_PROT_R ? PROT_READ : PROT_READ | PROT_WRITE;
}

/* ---- memory ---- */

static int step_map(struct kernel_step *step)
{
	const struct stmt *stmt = step->stmt;
	struct agent_reply reply;
	struct agent_command command = {
		.op = AGENT_MAP,
		.to = stmt->file_page * KERNEL_PAGE,
		.va = step->run->objects[stmt->name].va,
		.npages = stmt->count,
		.number = prot_bits(stmt->prot),
		.flags = (stmt->options & MAP_OPT_SHARED ? AGENT_SHARED : 0) |
			 (stmt->options & MAP_OPT_POPULATE ? AGENT_POPULATE : 0),
	};
	int file = -1, error;

	if (stmt->file >= 0)
		file = kernel_file_open(&step->run->objects[stmt->file].file, stmt->options & MAP_OPT_READONLY);
	if (stmt->file >= 0 && file < 0)
		return kernel_error(step, "kernel: no descriptor of the file");
	error = kernel_call(step, stmt->proc, &command, file, &reply);
	if (file >= 0)
		close(file);
	return error;
}

static int step_unmap(struct kernel_step *step)
{
	struct agent_command command = command_on_place(step, AGENT_UNMAP);

	return call(step, &command);
}

static int step_protect(struct kernel_step *step)
{
	struct agent_command command = command_on_place(step, AGENT_PROTECT);

	command.number = prot_bits(step->stmt->prot);
	return call(step, &command);
}

static int step_move(struct kernel_step *step)
{
	struct agent_command command = command_on_place(step, AGENT_MOVE);

	command.to = step->run->objects[step->stmt->name].va;
	command.number = step->stmt->options & 1;
	return call(step, &command);
}

static int advise(struct kernel_step *step)
{
	static const int advice[ADVICE_COUNT] = {
		[ADVICE_DONTFORK] = MADV_DONTFORK,
		[ADVICE_DOFORK] = MADV_DOFORK,
		[ADVICE_WIPEONFORK] = MADV_WIPEONFORK,
		[ADVICE_KEEPONFORK] = MADV_KEEPONFORK,
		[ADVICE_DONTNEED] = MADV_DONTNEED,
		[ADVICE_FREE] = MADV_FREE,
		[ADVICE_POPULATE_READ] = MADV_POPULATE_READ,
		[ADVICE_POPULATE_WRITE] = MADV_POPULATE_WRITE,
		[ADVICE_MERGEABLE] = MADV_MERGEABLE,
		[ADVICE_UNMERGEABLE] = MADV_UNMERGEABLE,
		[ADVICE_COLD] = MADV_COLD,
		[ADVICE_PAGEOUT] = MADV_PAGEOUT,
	};
	struct agent_command command = command_on_place(step, AGENT_ADVISE);

	command.number = advice[step->stmt->advice];
	return call(step, &command);
}

static int step_advise(struct kernel_step *step)
{
	return step->stmt->advice == ADVICE_PAGEOUT ? kernel_until_swapped(step, advise) : advise(step);
}

static int step_msync(struct kernel_step *step)
{
	struct agent_command command = command_on_place(step, AGENT_MSYNC);

	command.number = step->stmt->options & 1 ? MS_ASYNC : MS_SYNC;
	return call(step, &command);
}

static int step_write(struct kernel_step *step)
{
	struct agent_command command = command_on_place(step, AGENT_WRITE);

	put_text(&command, step->stmt);
	return call(step, &command);
}

static int step_read(struct kernel_step *step)
{
	struct agent_command command = command_on_place(step, AGENT_TOUCH);

	return call(step, &command);
}

/* ---- the memory of others ---- */

static int store_remotely(struct kernel_step *step, enum agent_op op)
{
	struct kernel_participant *other = kernel_participant(step, step->stmt->proc2);
	struct agent_command command = command_on_place(step, op);

	if (!other)
		return STEP_ENDED;
	command.pid = other->pid;
	put_text(&command, step->stmt);
	return call(step, &command);
}

/* Some kernels are told to refuse what a tracer may do elsewhere: try on memory of this process. */
static bool may_force(void)
{
	char *page = mmap(NULL, KERNEL_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	bool may = page != MAP_FAILED && fd >= 0 && pwrite(fd, "", 1, (off_t)(uintptr_t)page) == 1;

	if (fd >= 0)
		close(fd);
	if (page != MAP_FAILED)
		munmap(page, KERNEL_PAGE);
	return may;
}

static int step_poke(struct kernel_step *step)
{
	int error = store_remotely(step, AGENT_POKE);

	if (error > 0 && step->stmt->outcome == OUTCOME_OK && !may_force())
		return kernel_skip_test(step, "this kernel refuses forced writes (proc_mem.force_override)");
	return error;
}

static int step_remote_write(struct kernel_step *step)
{
	return store_remotely(step, AGENT_REMOTE_WRITE);
}

/* ---- handles ---- */

struct kernel_handle *kernel_held(struct kernel_step *step, int *outcome)
{
	struct kernel_handle *handle = &step->run->objects[step->stmt->handle].handle;

	*outcome = 0;
	pthread_mutex_lock(&handle->lock);
	if (handle->state == KERNEL_HELD)
		return handle;
	if (handle->state == KERNEL_RELEASED)
		*outcome = kernel_error(step, "%s has been released",
					step->run->litmus->names[step->stmt->handle].text);
	pthread_mutex_unlock(&handle->lock);
	return NULL;
}

void kernel_let_go(struct kernel_handle *handle)
{
	pthread_mutex_unlock(&handle->lock);
}

static int step_release(struct kernel_step *step)
{
	int outcome;
	struct kernel_handle *handle = kernel_held(step, &outcome);

	if (!handle)
		return outcome;
	kernel_release(handle);
	kernel_let_go(handle);
	return 0;
}

void kernel_release(struct kernel_handle *handle)
{
	if (handle->state != KERNEL_HELD)
		return;
	kernel_device_close(handle->device);
	handle->device = NULL;
	kernel_pipe_close(handle);
	handle->state = KERNEL_RELEASED;
}

/* ---- the table ---- */

static kernel_step_function *const steps[STMT_KIND_COUNT] = {
	[STMT_MAP] = step_map,
	[STMT_UNMAP] = step_unmap,
	[STMT_PROTECT] = step_protect,
	[STMT_MOVE] = step_move,
	[STMT_ADVISE] = step_advise,
	[STMT_WRITE] = step_write,
	[STMT_READ] = step_read,
	[STMT_FORK] = kernel_fork,
	[STMT_EXIT] = kernel_exit,
	[STMT_PIN] = kernel_pin,
	[STMT_GET] = kernel_splice,
	[STMT_DEVICE_WRITE] = kernel_device_write,
	[STMT_UNPIN] = step_release,
	[STMT_PUT] = step_release,
	[STMT_SPLICE] = kernel_splice,
	[STMT_DIRECT_OUT] = kernel_direct_out,
	[STMT_DIRECT_IN] = kernel_direct_in,
	[STMT_PEEK] = kernel_peek,
	[STMT_POKE] = step_poke,
	[STMT_REMOTE_WRITE] = step_remote_write,
	[STMT_FILE] = kernel_define_file,
	[STMT_SYNC] = kernel_sync,
	[STMT_MSYNC] = step_msync,
	[STMT_TRUNCATE] = kernel_truncate,
	[STMT_PUNCH] = kernel_punch,
	[STMT_STORE] = kernel_store,
	[STMT_DROP] = kernel_drop,
	[STMT_UFFD] = kernel_uffd,
	[STMT_UFFD_PROTECT] = kernel_uffd_operate,
	[STMT_UFFD_UNPROTECT] = kernel_uffd_operate,
	[STMT_UFFD_COPY] = kernel_uffd_operate,
	[STMT_UFFD_ZEROPAGE] = kernel_uffd_operate,
	[STMT_UFFD_CONTINUE] = kernel_uffd_operate,
	[STMT_UFFD_MOVE] = kernel_uffd_operate,
	[STMT_UFFD_POISON] = kernel_uffd_operate,
	[STMT_UFFD_WAKE] = kernel_uffd_operate,
	[STMT_UFFD_REGISTER] = kernel_uffd_operate,
	[STMT_UFFD_UNREGISTER] = kernel_uffd_operate,
	[STMT_UFFD_CLOSE] = kernel_uffd_end,
	[STMT_CLEAR_SOFT_DIRTY] = kernel_clear_soft_dirty,
	[STMT_MLOCK] = kernel_mlock,
	[STMT_MUNLOCK] = kernel_mlock,
	[STMT_SCAN] = kernel_scan,
	[STMT_KSM_MERGE] = kernel_ksm_merge,
	[STMT_RECLAIM] = kernel_reclaim,
	[STMT_SWAPOFF] = kernel_swapoff,
	[STMT_CGROUP] = kernel_define_group,
	[STMT_JOIN] = kernel_join_group,
	[STMT_CHECK_READS] = kernel_check_reads,
	[STMT_CHECK_HANDLE_READS] = kernel_check_handle_reads,
	[STMT_CHECK_FILE_READS] = kernel_check_file_reads,
	[STMT_CHECK_FILE_HOLDS] = kernel_check_file_holds,
	[STMT_CHECK_EVENT] = kernel_check_event,
	[STMT_CHECK_PAGES] = kernel_check_pages,
	[STMT_CHECK_FLAG] = kernel_check_flag,
	[STMT_CHECK_SAME] = kernel_check_same,
	[STMT_CHECK_MAPCOUNT] = kernel_check_mapcount,
	[STMT_CHECK_RSS] = kernel_check_rss,
	[STMT_CHECK_USAGE] = kernel_check_usage,
	[STMT_CHECK_COUNT] = kernel_check_count,
};

bool kernel_is_driven(enum stmt_kind kind)
{
	return steps[kind];
}

int kernel_do(struct kernel_step *step)
{
	return steps[step->stmt->kind](step);
}

void kernel_statement(struct kernel_step *step)
{
	int outcome;

	if (step->run->over)
		return;
	outcome = kernel_do(step);
	if (outcome != STEP_ENDED && outcome != STEP_SKIPPED)
		kernel_judge(step, outcome);
}
