/* SPDX-License-Identifier: MIT */
/*
 * Plain references for reading: vmsplice puts the pages of a participant into a pipe, which holds a reference on each
 * until they are read out of it or it is closed. The pipe is the supervisor's.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* A pipe with a slot for each of @npages pages. */
static int open_pipe(uint64_t npages, int ends[2])
{
	int error;

	if (npages * KERNEL_PAGE > INT_MAX)
		return EINVAL;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return errno;
	if (fcntl(ends[1], F_SETPIPE_SZ, (int)(npages * KERNEL_PAGE)) >= 0)
		return 0;
	error = errno;
	close(ends[0]);
	close(ends[1]);
	return error;
}

static void bind_pipe(struct kernel_step *step, int pipe, uint64_t npages)
{
	struct kernel_handle *handle = &step->run->objects[step->stmt->name].handle;

	pthread_mutex_lock(&handle->lock);
	handle->state = KERNEL_HELD;
	handle->npages = npages;
	handle->offset = step->stmt->place.offset;
	handle->pipe = pipe;
	pthread_mutex_unlock(&handle->lock);
}

int kernel_splice(struct kernel_step *step)
{
	const struct place *place = &step->stmt->place;
	struct agent_command command = {
		.op = AGENT_VMSPLICE, .va = kernel_va(step->run, place, 0) - place->offset, .npages = place->npages};
	struct agent_reply reply;
	int ends[2], error = open_pipe(place->npages, ends);

	if (error)
		return kernel_skip_test(step, "no pipe for %llu pages: %s", (unsigned long long)place->npages,
					litmus_error_name(error));
	error = kernel_call(step, step->stmt->proc, &command, ends[1], &reply);
	close(ends[1]);
	if (error)
		close(ends[0]);
	else
		bind_pipe(step, ends[0], reply.value / KERNEL_PAGE);
	return error;
}

static int read_all(int pipe, unsigned char *bytes, size_t nbytes)
{
	ssize_t got;

	for (size_t done = 0; done < nbytes; done += (size_t)got) {
		got = read(pipe, bytes + done, nbytes - done);
		if (got <= 0)
			return got ? errno : EIO;
	}
	return 0;
}

/* Read a duplicate of the pipe: the references in it stay. */
static int look_into(int pipe, unsigned char *bytes, uint64_t npages)
{
	int ends[2], error = open_pipe(npages, ends);
	ssize_t duplicated;

	if (error)
		return error;
	duplicated = tee(pipe, ends[1], npages * KERNEL_PAGE, SPLICE_F_NONBLOCK);
	if (duplicated < 0)
		error = errno;
	else
		error = (uint64_t)duplicated == npages * KERNEL_PAGE ? read_all(ends[0], bytes, npages * KERNEL_PAGE)
								     : EIO;
	close(ends[0]);
	close(ends[1]);
	return error;
}

int kernel_pipe_read(struct kernel_handle *handle, bool drain)
{
	int error;

	if (handle->pipe < 0)
		return 0; /* drained before: handle->bytes stays what came out */
	if (!handle->bytes)
		handle->bytes = malloc(handle->npages * KERNEL_PAGE);
	if (!handle->bytes)
		return ENOMEM;
	if (!drain)
		return look_into(handle->pipe, handle->bytes, handle->npages);
	error = read_all(handle->pipe, handle->bytes, handle->npages * KERNEL_PAGE);
	close(handle->pipe);
	handle->pipe = -1;
	return error;
}

void kernel_pipe_close(struct kernel_handle *handle)
{
	if (handle->pipe >= 0)
		close(handle->pipe);
	handle->pipe = -1;
	free(handle->bytes);
	handle->bytes = NULL;
}
