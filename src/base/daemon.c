/* SPDX-License-Identifier: MIT */
/* Threads that wait for a time or for their end, whatever comes first. */
#include "base/daemon.h"

#include <errno.h>
#include <time.h>

#define NS_PER_S ((uint64_t)1000 * 1000 * 1000)

static struct timespec time_after(uint64_t ns)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	ns += (uint64_t)until.tv_nsec;
	until.tv_sec += (time_t)(ns / NS_PER_S);
	until.tv_nsec = (long)(ns % NS_PER_S);
	return until;
}

/* Returns: whether to go on. */
static bool pause_for(struct daemon *daemon, uint64_t ns)
{
	struct timespec until = time_after(ns);
	bool ending;

	pthread_mutex_lock(&daemon->lock);
	while (ns && !daemon->ending && pthread_cond_timedwait(&daemon->wake, &daemon->lock, &until) != ETIMEDOUT)
		;
	ending = daemon->ending;
	pthread_mutex_unlock(&daemon->lock);
	return !ending;
}

static void *run(void *arg)
{
	struct daemon *daemon = arg;
	uint64_t ns = daemon->pause;

	while (pause_for(daemon, ns))
		ns = daemon->turn(daemon->arg);
	return NULL;
}

static void destroy(struct daemon *daemon)
{
	pthread_cond_destroy(&daemon->wake);
	pthread_mutex_destroy(&daemon->lock);
}

int daemon_start(struct daemon *daemon, uint64_t (*turn)(void *arg), void *arg, uint64_t pause)
{
	pthread_condattr_t attr;
	int error;

	daemon->turn = turn;
	daemon->arg = arg;
	daemon->pause = pause;
	pthread_mutex_init(&daemon->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&daemon->wake, &attr);
	pthread_condattr_destroy(&attr);
	error = pthread_create(&daemon->thread, NULL, run, daemon);
	if (error)
		destroy(daemon);
	return -error;
}

void daemon_stop(struct daemon *daemon)
{
	pthread_mutex_lock(&daemon->lock);
	daemon->ending = true;
	pthread_cond_signal(&daemon->wake);
	pthread_mutex_unlock(&daemon->lock);
	pthread_join(daemon->thread, NULL);
	destroy(daemon);
}
