/* SPDX-License-Identifier: MIT */
/* Two parts of a row's work side by side: threads of this process, or a process and its forked child. */
#include "bench_parts.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

void bench_stay_on(unsigned who)
{
	cpu_set_t set;

	for (int cpu = 0, found = 0; cpu < CPU_SETSIZE; cpu++) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		if (!sched_setaffinity(0, sizeof(set), &set) && found++ == (int)who)
			return;
	}
}

void bench_part_do(struct bench_start *start, unsigned who, bench_part *run, void *arg)
{
	atomic_fetch_add(&start->ready, 1);
	while (atomic_load(&start->ready) < start->nparts)
		;
	start->began[who] = bench_now();
	start->err[who] = run(arg, who);
	start->ended[who] = bench_now();
}

double bench_took(const struct bench_start *start)
{
	uint64_t first = start->began[0], last = start->ended[0];

	if (start->nparts == 2) {
		first = start->began[1] < first ? start->began[1] : first;
		last = start->ended[1] > last ? start->ended[1] : last;
	}
	return (double)(last - first);
}

struct part {
	struct bench_start *start;
	unsigned who;
	bench_part *run, *before, *after;
	void *arg;
};

static void *part_thread(void *arg)
{
	const struct part *part = arg;
	int err;

	bench_stay_on(part->who);
	err = part->before(part->arg, part->who);
	bench_part_do(part->start, part->who, part->run, part->arg);
	if (err)
		part->start->err[part->who] = err;
	(void)part->after(part->arg, part->who);
	return NULL;
}

int bench_nothing(void *arg, unsigned who)
{
	(void)arg;
	(void)who;
	return 0;
}

int bench_run_threads(unsigned nparts, bench_part *before, bench_part *run, bench_part *after, void *arg, double *ns)
{
	struct bench_start start = {.nparts = nparts};
	struct part parts[2];
	pthread_t threads[2];

	for (unsigned i = 0; i < nparts; i++) {
		parts[i] = (struct part){&start, i, run, before, after, arg};
		if (pthread_create(&threads[i], NULL, part_thread, &parts[i]))
			abort(); /* the others wait for it */
	}
	for (unsigned i = 0; i < nparts; i++)
		pthread_join(threads[i], NULL);
	*ns = bench_took(&start);
	return start.err[0] ? start.err[0] : start.err[1];
}
