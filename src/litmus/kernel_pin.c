/* SPDX-License-Identifier: MIT */
/*
 * Held pins: a fixed buffer registered with an io_uring pins its pages for writing, long term. The ring belongs to the
 * supervisor; the participant registers the buffer, so the pages are those that it maps then. Fixed reads and writes
 * reach the pages through the kernel's own list of them, whatever becomes of the mapping, or of the participant.
 */
#include "kernel.h"

#ifdef UCOW_HAVE_LIBURING

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct kernel_device {
	struct io_uring ring;
	int pipe[2]; /* what goes in and out of the pages passes through here */
	uint64_t va; /* where the buffer was registered; the kernel counts from here */
};

/* ---- the device ---- */

static int open_device(uint64_t va, struct kernel_device **device)
{
	struct kernel_device *new = calloc(1, sizeof(*new));
	int error;

	if (!new)
		return ENOMEM;
	new->va = va;
	error = pipe2(new->pipe, O_CLOEXEC | O_NONBLOCK) ? errno : 0;
	if (error)
		goto fail_pipe;
	error = -io_uring_queue_init(4, &new->ring, 0);
	if (error)
		goto fail_ring;
	*device = new;
	return 0;
fail_ring:
	close(new->pipe[0]);
	close(new->pipe[1]);
fail_pipe:
	free(new);
	return error;
}

void kernel_device_close(struct kernel_device *device)
{
	if (!device)
		return;
	/* Unpins now; the end of a ring would do so some time later. */
	io_uring_unregister_buffers(&device->ring);
	io_uring_queue_exit(&device->ring);
	close(device->pipe[0]);
	close(device->pipe[1]);
	free(device);
}

/* Submit the one prepared request, which can complete at once. Returns: 0 if it moved @nbytes; an errno value. */
static int transfer(struct kernel_device *device, size_t nbytes)
{
	struct __kernel_timespec patience = {.tv_sec = 5};
	struct io_uring_cqe *cqe;
	int moved, error = io_uring_submit(&device->ring);

	if (error < 0)
		return -error;
	error = io_uring_wait_cqe_timeout(&device->ring, &cqe, &patience);
	if (error)
		return -error;
	moved = cqe->res;
	io_uring_cqe_seen(&device->ring, cqe);
	return moved < 0 ? -moved : (size_t)moved == nbytes ? 0 : EIO;
}

static void *buffer_at(const struct kernel_device *device, uint64_t page, uint64_t offset)
{
	return (void *)(uintptr_t)(device->va + page * KERNEL_PAGE + offset);
}

int kernel_device_read(struct kernel_device *device, uint64_t page, uint64_t offset, void *bytes, size_t nbytes)
{
	void *from = buffer_at(device, page, offset);
	int error;

	io_uring_prep_write_fixed(io_uring_get_sqe(&device->ring), device->pipe[1], from, (unsigned)nbytes, 0, 0);
	error = transfer(device, nbytes);
	if (error)
		return error;
	return read(device->pipe[0], bytes, nbytes) == (ssize_t)nbytes ? 0 : EIO;
}

static int device_write(struct kernel_device *device, uint64_t page, uint64_t offset, const struct text *text)
{
	void *to = buffer_at(device, page, offset);

	if (write(device->pipe[1], text->bytes, text->nbytes) != (ssize_t)text->nbytes)
		return EIO;
	io_uring_prep_read_fixed(io_uring_get_sqe(&device->ring), device->pipe[0], to, (unsigned)text->nbytes, 0, 0);
	return transfer(device, text->nbytes);
}

/* ---- statements ---- */

/* A registration takes all of a range or nothing; a pin of a range that breaks off later would hold its first part. */
static bool breaks_off(struct kernel_step *step, const struct kernel_participant *participant, uint64_t va)
{
	uint64_t npages = step->stmt->place.npages, usable;

	return !kernel_covered(participant->pid, va, npages, PROT_READ | PROT_WRITE, &usable) && usable &&
	       usable < npages;
}

static int register_buffer(struct kernel_step *step, struct kernel_device *device)
{
	struct agent_command command = {
		.op = AGENT_REGISTER,
		.number = device->ring.ring_fd,
		.va = device->va,
		.npages = step->stmt->place.npages,
	};
	struct agent_reply reply;
	int error = kernel_call(step, step->stmt->proc, &command, -1, &reply);

	if (error > 0 && !reply.value)
		return kernel_skip_test(step, "no ring from another process here: %s", litmus_error_name(error));
	/* Pinned memory of other programs of this user counts too: says nothing about the rules. */
	if (error == ENOMEM && step->stmt->outcome == OUTCOME_OK && geteuid())
		return kernel_skip_test(step, "more memory than this user may lock (ulimit -l)");
	return error;
}

static void bind_pin(struct kernel_step *step, struct kernel_device *device)
{
	struct kernel_handle *handle = &step->run->objects[step->stmt->name].handle;

	pthread_mutex_lock(&handle->lock);
	handle->state = KERNEL_HELD;
	handle->npages = step->stmt->place.npages;
	handle->offset = step->stmt->place.offset;
	handle->device = device;
	pthread_mutex_unlock(&handle->lock);
}

int kernel_pin(struct kernel_step *step)
{
	struct kernel_participant *participant = kernel_participant(step, step->stmt->proc);
	uint64_t va = kernel_va(step->run, &step->stmt->place, 0) - step->stmt->place.offset;
	struct kernel_device *device;
	int error;

	if (!participant)
		return STEP_ENDED;
	if (breaks_off(step, participant, va))
		return kernel_skip_test(step, "no stock interface holds a part of a range");
	error = open_device(va, &device);
	if (error)
		return kernel_skip_test(step, "no io_uring here: %s", litmus_error_name(error));
	error = register_buffer(step, device);
	if (error)
		kernel_device_close(device);
	else
		bind_pin(step, device);
	return error;
}

int kernel_device_write(struct kernel_step *step)
{
	int error;
	struct kernel_handle *handle = kernel_held(step, &error);

	if (!handle)
		return error;
	for (uint64_t page = 0; !error && page < handle->npages; page++)
		error = device_write(handle->device, page, handle->offset, &step->stmt->texts[0]);
	kernel_let_go(handle);
	return error;
}

#else /* Tests with pins are skipped before anything starts (kernel_plan.c): nothing below is reached. */

#include <errno.h>

int kernel_pin(struct kernel_step *step)
{
	return kernel_error(step, "pin: built without liburing");
}

int kernel_device_write(struct kernel_step *step)
{
	return kernel_error(step, "device: built without liburing");
}

int kernel_device_read(struct kernel_device *device, uint64_t page, uint64_t offset, void *bytes, size_t nbytes)
{
	(void)device;
	(void)page;
	(void)offset;
	(void)bytes;
	(void)nbytes;
	return ENOSYS;
}

void kernel_device_close(struct kernel_device *device)
{
	(void)device;
}

#endif
