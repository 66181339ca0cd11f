/* SPDX-License-Identifier: MIT */
/* A device: the kernel, which reads a pipe into the page through io_uring. */
#include "stress.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef UCOW_HAVE_LIBURING
#include <liburing.h>

struct device {
	struct io_uring ring;
	int fds[2];
};

struct device *device_create(void)
{
	struct device *device = calloc(1, sizeof(*device));

	if (!device)
		return NULL;
	if (pipe(device->fds)) {
		free(device);
		return NULL;
	}
	if (io_uring_queue_init(2, &device->ring, 0)) {
		close(device->fds[0]);
		close(device->fds[1]);
		free(device);
		return NULL;
	}
	return device;
}

void device_destroy(struct device *device)
{
	if (!device)
		return;
	io_uring_queue_exit(&device->ring);
	close(device->fds[0]);
	close(device->fds[1]);
	free(device);
}

int device_write(struct device *device, void *address, uint64_t stamp)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&device->ring);
	struct io_uring_cqe *cqe;
	int result;

	if (!sqe)
		return -EBUSY;
	if (write(device->fds[1], &stamp, sizeof(stamp)) != (ssize_t)sizeof(stamp))
		return -EIO;
	io_uring_prep_read(sqe, device->fds[0], address, sizeof(stamp), 0);
	result = io_uring_submit_and_wait(&device->ring, 1);
	if (result < 0)
		return result;
	result = io_uring_wait_cqe(&device->ring, &cqe);
	if (result)
		return result;
	result = cqe->res == (int)sizeof(stamp) ? 0 : cqe->res < 0 ? cqe->res : -EIO;
	io_uring_cqe_seen(&device->ring, cqe);
	return result;
}
#else
struct device *device_create(void)
{
	return NULL;
}

void device_destroy(struct device *device)
{
	(void)device;
}

int device_write(struct device *device, void *address, uint64_t stamp)
{
	(void)device, (void)address, (void)stamp;
	return -EOPNOTSUPP;
}
#endif
