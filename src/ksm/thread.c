/* SPDX-License-Identifier: MIT */
/* The thread that scans. */
#include "ksm/ksm.h"

#include "base/host.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#define IDLE_US     20000 /* there was nothing to look at */
#define GIVE_WAY_US 200   /* somebody waits for the scanner */

struct ksm_thread {
	struct ksm *ksm;
	pthread_t thread;
	pthread_mutex_t lock; /* guards `ending`; innermost */
	pthread_cond_t wake;
	bool ending;
};

/* Returns: whether to go on. */
static bool pause_for(struct ksm_thread *self, uint64_t us)
{
	struct timespec until;
	bool ending;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(us / 1000000);
	until.tv_nsec += (long)(us % 1000000) * 1000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_mutex_lock(&self->lock);
	while (us && !self->ending && pthread_cond_timedwait(&self->wake, &self->lock, &until) != ETIMEDOUT)
		;
	ending = self->ending;
	pthread_mutex_unlock(&self->lock);
	return !ending;
}

/* Without memory it tries again later. */
static void *run(void *arg)
{
	struct ksm_thread *self = arg;
	struct ksm *ksm = self->ksm;
	uint64_t us;

	do {
		mutex_lock(&ksm->lock);
		us = ksm_scan(ksm, ksm->options.pages_to_scan) && !ksm->error ? ksm->options.sleep_us : IDLE_US;
		ksm->error = 0;
		mutex_unlock(&ksm->lock);
		if (!us && atomic_load(&ksm->waiting))
			us = GIVE_WAY_US;
	} while (pause_for(self, us));
	return NULL;
}

static struct ksm_thread *thread_create(struct ksm *ksm)
{
	struct ksm_thread *self;
	pthread_condattr_t attr;

	if (inject_fails(&ksm->machine->inject, UCOW_INJECT_OTHER))
		return NULL;
	self = host_alloc(sizeof(*self));
	if (!self)
		return NULL;
	self->ksm = ksm;
	pthread_mutex_init(&self->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&self->wake, &attr);
	pthread_condattr_destroy(&attr);
	return self;
}

static void thread_free(struct ksm_thread *self)
{
	pthread_cond_destroy(&self->wake);
	pthread_mutex_destroy(&self->lock);
	host_free(self);
}

/* Requires: the scanner's lock. */
static int start(struct ksm *ksm)
{
	struct ksm_thread *self;
	int error;

	if (ksm->thread)
		return -EBUSY;
	self = thread_create(ksm);
	if (!self)
		return -ENOMEM;
	error = pthread_create(&self->thread, NULL, run, self);
	if (error) {
		thread_free(self);
		return -error;
	}
	ksm->thread = self;
	ksm->stop = ucow_ksm_stop;
	return 0;
}

int ucow_ksm_start(struct ucow_machine *machine)
{
	struct ksm *ksm;
	int error = ksm_of(machine, &ksm);

	if (error)
		return error;
	ksm_lock(ksm);
	error = start(ksm);
	ksm_unlock(ksm);
	return error;
}

void ucow_ksm_stop(struct ucow_machine *machine)
{
	struct ksm_thread *self;
	struct ksm *ksm;

	mutex_lock(&machine->lock);
	ksm = machine->ksm;
	mutex_unlock(&machine->lock);
	if (!ksm)
		return;
	ksm_lock(ksm);
	self = ksm->thread;
	ksm->thread = NULL;
	ksm_unlock(ksm);
	if (!self)
		return;
	pthread_mutex_lock(&self->lock);
	self->ending = true;
	pthread_cond_signal(&self->wake);
	pthread_mutex_unlock(&self->lock);
	pthread_join(self->thread, NULL);
	thread_free(self);
}
