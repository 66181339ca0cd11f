/* SPDX-License-Identifier: MIT */
/* What `ucow bench` wants to know of the machine that it runs on, and the one thing that it asks of it: a fixed cpu. */
#include "bench.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The first "model name" of /proc/cpuinfo; Arm has none. */
static void describe_cpu(char *cpu, size_t nbytes)
{
	FILE *file = fopen("/proc/cpuinfo", "r");
	char line[256], *value;

	snprintf(cpu, nbytes, "unknown cpu");
	while (file && fgets(line, sizeof(line), file)) {
		value = strchr(line, ':');
		if (strncmp(line, "model name", 10) != 0 || !value)
			continue;
		snprintf(cpu, nbytes, "%s", value + 1 + strspn(value + 1, " "));
		cpu[strcspn(cpu, "\n")] = '\0';
		break;
	}
	if (file)
		fclose(file);
}

void bench_host_describe(struct bench_host *host)
{
	struct utsname name;
	struct sysinfo info;

	memset(host, 0, sizeof(*host));
	if (uname(&name) == 0) {
		snprintf(host->kernel, sizeof(host->kernel), "%s %s", name.sysname, name.release);
		snprintf(host->architecture, sizeof(host->architecture), "%s", name.machine);
	}
	describe_cpu(host->cpu, sizeof(host->cpu));
	host->cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (sysinfo(&info) == 0)
		host->memory = (uint64_t)info.totalram * info.mem_unit;
}

static uint64_t read_number(const char *path)
{
	FILE *file = fopen(path, "r");
	unsigned long long number;
	int got;

	if (!file)
		return UINT64_MAX;
	got = fscanf(file, "%llu", &number);
	fclose(file);
	return got == 1 ? number : UINT64_MAX; /* "max" is no number: no limit */
}

uint64_t bench_memory_available(void)
{
	uint64_t limit = read_number("/sys/fs/cgroup/memory.max"), used = read_number("/sys/fs/cgroup/memory.current");
	uint64_t left = UINT64_MAX, group = UINT64_MAX;
	unsigned long long kib;
	char line[128];
	FILE *file = fopen("/proc/meminfo", "r");

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			left = (uint64_t)kib * 1024;
	if (file)
		fclose(file);
	if (limit != UINT64_MAX && used != UINT64_MAX)
		group = limit > used ? limit - used : 0;
	return left < group ? left : group;
}

uint64_t bench_swap_available(void)
{
	const char *folder = getenv("TMPDIR");
	struct statvfs room;

	if (statvfs(folder ? folder : "/var/tmp", &room))
		return 0;
	return (uint64_t)room.f_bavail * room.f_frsize;
}

void bench_stay_on_one_cpu(void)
{
	int cpu = sched_getcpu();
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	(void)sched_setaffinity(0, sizeof(set), &set);
}
