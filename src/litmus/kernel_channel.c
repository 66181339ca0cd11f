/* SPDX-License-Identifier: MIT */
/*
 * Channels between the supervisor and the agents: message sockets that can carry a descriptor. The other end's death
 * shows as EPIPE.
 */
#include "kernel_agent.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t kernel_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int channel_pair(int ends[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) ? errno : 0;
}

/* Room for one descriptor beside a message. */
union descriptor_room {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int))];
};

static void attach_descriptor(struct msghdr *header, union descriptor_room *room, int fd)
{
	struct cmsghdr *control;

	memset(room, 0, sizeof(*room));
	header->msg_control = room->bytes;
	header->msg_controllen = sizeof(room->bytes);
	control = CMSG_FIRSTHDR(header);
	control->cmsg_level = SOL_SOCKET;
	control->cmsg_type = SCM_RIGHTS;
	control->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(control), &fd, sizeof(int));
}

int channel_send(int channel, const void *message, size_t nbytes, int fd)
{
	struct iovec part = {(void *)(uintptr_t)message, nbytes};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
	union descriptor_room room;
	ssize_t sent;

	if (fd >= 0)
		attach_descriptor(&header, &room, fd);
	do
		sent = sendmsg(channel, &header, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == ECONNRESET ? EPIPE : errno;
	return (size_t)sent == nbytes ? 0 : EMSGSIZE;
}

static int wait_readable(int channel, uint64_t deadline_ns)
{
	struct pollfd wait = {.fd = channel, .events = POLLIN};

	for (;;) {
		uint64_t now = kernel_now_ns();
		int ready;

		if (now >= deadline_ns)
			return ETIMEDOUT;
		ready = poll(&wait, 1, (int)((deadline_ns - now) / 1000000u) + 1);
		if (ready > 0)
			return 0;
		if (ready < 0 && errno != EINTR)
			return errno;
	}
}

static int taken_descriptor(struct msghdr *header)
{
	struct cmsghdr *control = CMSG_FIRSTHDR(header);
	int fd = -1;

	if (control && control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(control), sizeof(int));
	return fd;
}

int channel_receive(int channel, void *message, size_t room, int *fd, uint64_t deadline_ns)
{
	union descriptor_room descriptors;
	struct iovec part = {message, room};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
	ssize_t got;
	int error = deadline_ns ? wait_readable(channel, deadline_ns) : 0;

	*fd = -1;
	if (error)
		return error;
	header.msg_control = descriptors.bytes;
	header.msg_controllen = sizeof(descriptors.bytes);
	do
		got = recvmsg(channel, &header, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == ECONNRESET ? EPIPE : errno;
	if (got == 0)
		return EPIPE;
	*fd = taken_descriptor(&header);
	return 0;
}

int channel_send_command(int channel, const struct agent_command *command, int fd)
{
	return channel_send(channel, command, offsetof(struct agent_command, bytes) + command->nbytes, fd);
}

int channel_send_reply(int channel, const struct agent_reply *reply, int fd)
{
	return channel_send(channel, reply, offsetof(struct agent_reply, bytes) + reply->nbytes, fd);
}
