/* SPDX-License-Identifier: MIT */
/* The thread that scans. */
#include "ksm/ksm.h"

#include "base/daemon.h"
#include "base/host.h"

#include <errno.h>

#define NS_PER_US   1000
#define IDLE_US     20000 /* there was nothing to look at */
#define GIVE_WAY_US 200   /* somebody waits for the scanner */

/* Without memory it tries again later. */
static uint64_t turn(void *arg)
{
	struct ksm *ksm = arg;
	uint64_t us;

	mutex_lock(&ksm->lock);
	us = ksm_scan(ksm, ksm->options.pages_to_scan) && !ksm->error ? ksm->options.sleep_us : IDLE_US;
	ksm->error = 0;
	mutex_unlock(&ksm->lock);
	if (!us && atomic_load(&ksm->waiting))
		us = GIVE_WAY_US;
	return us * NS_PER_US;
}

/* Requires: the scanner's lock. */
static int start(struct ksm *ksm)
{
	struct daemon *thread;
	int error;

	if (ksm->thread)
		return -EBUSY;
	thread = inject_fails(&ksm->machine->inject, UCOW_INJECT_OTHER) ? NULL : host_alloc(sizeof(*thread));
	if (!thread)
		return -ENOMEM;
	error = daemon_start(thread, turn, ksm, 0);
	if (error) {
		host_free(thread);
		return error;
	}
	ksm->thread = thread;
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
	struct daemon *thread;
	struct ksm *ksm;

	mutex_lock(&machine->lock);
	ksm = machine->ksm;
	mutex_unlock(&machine->lock);
	if (!ksm)
		return;
	ksm_lock(ksm);
	thread = ksm->thread;
	ksm->thread = NULL;
	ksm_unlock(ksm);
	if (!thread)
		return;
	daemon_stop(thread);
	host_free(thread);
}
