/* SPDX-License-Identifier: MIT */
/* Signals that ask to end: a handler notes the first one and makes a descriptor readable, for whoever waits in poll. */
#include "interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

static volatile sig_atomic_t came;
static int wake = -1; /* what the handler writes into */
static pid_t owner;

static void on_signal(int sig)
{
	int saved = errno;

	/* A forked child has this handler too, and is nobody to be asked: it dies when the signal is unblocked. */
	if (getpid() != owner) {
		signal(sig, SIG_DFL);
		raise(sig);
		return;
	}
	came = sig;
	(void)!write(wake, "!", 1);
	errno = saved;
}

static void watch(int sig)
{
	struct sigaction now, action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	sigemptyset(&action.sa_mask);
	if (!sigaction(sig, NULL, &now) && now.sa_handler != SIG_IGN)
		sigaction(sig, &action, NULL);
}

/* Not among the standard streams, where a closed one has left room. */
static int raise_descriptor(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);

	close(fd);
	return high;
}

int interrupt_watch(void)
{
	int ends[2], asked;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return 0;
	asked = raise_descriptor(ends[0]);
	wake = raise_descriptor(ends[1]);
	if (asked < 0 || wake < 0)
		return 0;
	owner = getpid();
	watch(SIGINT);
	watch(SIGTERM);
	watch(SIGHUP);
	return asked;
}

int interrupt_signal(void)
{
	return came;
}

_Noreturn void interrupt_end(int sig)
{
	signal(sig, SIG_DFL);
	raise(sig);
	_exit(128 + sig);
}
