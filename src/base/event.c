/* SPDX-License-Identifier: MIT */
/* Event descriptors, by eventfd(2). */
#include "base/event.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int event_open(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

void event_close(int fd)
{
	close(fd);
}

/* The counter says how often it was set and never comes near its end: it is cleared by every reader. */
void event_set(int fd)
{
	while (eventfd_write(fd, 1) && errno == EINTR)
		;
}

void event_clear(int fd)
{
	eventfd_t ignored;

	while (eventfd_read(fd, &ignored) && errno == EINTR)
		;
}
