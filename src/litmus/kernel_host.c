/* SPDX-License-Identifier: MIT */
/*
 * Facts about the kernel and the machine. What the kernel says in a file is taken from there; what it lets this user do
 * is found out by doing it, in a way that leaves nothing behind.
 */
#include "kernel_host.h"

#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

/* ---- adding facts ---- */

static struct host_fact *add(struct kernel_host *host, const char *group, const char *key)
{
	static struct host_fact spare;
	struct host_fact *fact = host->n < HOST_FACTS_MAX ? &host->facts[host->n++] : &spare;

	*fact = (struct host_fact){.group = group, .key = key};
	return fact;
}

void kernel_host_add(struct kernel_host *host, const char *group, const char *key, const char *text)
{
	struct host_fact *fact = add(host, group, key);

	fact->kind = HOST_TEXT;
	snprintf(fact->text, sizeof(fact->text), "%s", text);
}

static void add_number(struct kernel_host *host, const char *group, const char *key, int64_t number)
{
	struct host_fact *fact = add(host, group, key);

	fact->kind = HOST_NUMBER;
	fact->number = number;
}

static void add_flag(struct kernel_host *host, const char *group, const char *key, bool holds)
{
	struct host_fact *fact = add(host, group, key);

	fact->kind = HOST_FLAG;
	fact->number = holds;
}

/* ---- files ---- */

/* Read the first line of @path. Returns: whether there is one. */
static bool read_line(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "re");
	bool found = file && fgets(line, (int)size, file);

	if (file)
		fclose(file);
	if (found)
		line[strcspn(line, "\n")] = '\0';
	return found;
}

/* Of `always [madvise] never` the word in brackets; else nothing changes. */
static void keep_chosen(char *line)
{
	char *start = strchr(line, '['), *end = start ? strchr(start, ']') : NULL;

	if (!end)
		return;
	*end = '\0';
	memmove(line, start + 1, strlen(start));
}

/* The number or the text that @path holds. */
static void add_file(struct kernel_host *host, const char *group, const char *key, const char *path)
{
	struct host_fact *fact = add(host, group, key);
	char *end;

	if (!read_line(path, fact->text, sizeof(fact->text)))
		return;
	keep_chosen(fact->text);
	fact->number = strtoll(fact->text, &end, 10);
	fact->kind = end > fact->text && !*end ? HOST_NUMBER : HOST_TEXT;
}

/* Whether a line of @path has all of @words. */
static bool file_has(const char *path, const char *const words[], size_t nwords)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t room = 0, found = 0;

	while (file && found < nwords && getline(&line, &room, file) > 0)
		for (found = 0; found < nwords && strstr(line, words[found]);)
			found++;
	free(line);
	if (file)
		fclose(file);
	return found == nwords;
}

uint64_t kernel_host_taint(void)
{
	char line[32];

	return read_line("/proc/sys/kernel/tainted", line, sizeof(line)) ? strtoull(line, NULL, 10) : 0;
}

/* ---- the kernel and the machine ---- */

static void describe_kernel(struct kernel_host *host)
{
	struct utsname system;

	if (!uname(&system)) {
		kernel_host_add(host, "kernel", "release", system.release);
		kernel_host_add(host, "kernel", "version", system.version);
		kernel_host_add(host, "kernel", "machine", system.machine);
	}
	add_file(host, "kernel", "tainted", "/proc/sys/kernel/tainted");
}

static void describe_machine(struct kernel_host *host)
{
	struct sysinfo info;
	cpu_set_t cpus;
	char nodes[100];

	add_number(host, "machine", "page_size", sysconf(_SC_PAGESIZE));
	add_number(host, "machine", "cpus", sysconf(_SC_NPROCESSORS_ONLN));
	if (!sched_getaffinity(0, sizeof(cpus), &cpus))
		add_number(host, "machine", "cpus_allowed", CPU_COUNT(&cpus));
	if (read_line("/sys/devices/system/node/online", nodes, sizeof(nodes)))
		kernel_host_add(host, "machine", "nodes_online", nodes);
	if (sysinfo(&info))
		return;
	add_number(host, "machine", "memory_mib", (int64_t)((uint64_t)info.totalram * info.mem_unit >> 20));
	add_number(host, "machine", "swap_mib", (int64_t)((uint64_t)info.totalswap * info.mem_unit >> 20));
}

/* ---- what this user may see and do ---- */

/* Those that decide what runs and what is seen. */
static void describe_capabilities(struct kernel_host *host)
{
	static const struct {
		const char *name;
		unsigned bit;
	} known[] = {
		{" sys_admin", CAP_SYS_ADMIN},
		{" sys_ptrace", CAP_SYS_PTRACE},
		{" ipc_lock", CAP_IPC_LOCK},
		{" sys_resource", CAP_SYS_RESOURCE},
	};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2] = {0};
	char text[100] = "";

	if (syscall(SYS_capget, &header, sets))
		return;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (sets[known[i].bit / 32].effective >> known[i].bit % 32 & 1)
			strcat(text, known[i].name);
	kernel_host_add(host, "rights", "capabilities", *text ? text + 1 : "none");
}

static void describe_rights(struct kernel_host *host)
{
	struct kernel_eyes eyes;
	struct rlimit memlock;
	char limit[30] = "unlimited";

	add_number(host, "rights", "uid", geteuid());
	describe_capabilities(host);
	if (!getrlimit(RLIMIT_MEMLOCK, &memlock) && memlock.rlim_max != RLIM_INFINITY)
		snprintf(limit, sizeof(limit), "%ju", (uintmax_t)memlock.rlim_max >> 10);
	kernel_host_add(host, "rights", "memlock_kib", limit);
	kernel_open_eyes(&eyes);
	add_flag(host, "rights", "sees_frames", eyes.frames);
	add_flag(host, "rights", "sees_page_flags", eyes.frames && eyes.kpageflags >= 0);
	add_flag(host, "rights", "sees_map_counts", eyes.frames && eyes.kpagecount >= 0);
	add_flag(host, "rights", "sees_exclusive", !kernel_blind_to_exclusive(&eyes));
	kernel_close_eyes(&eyes);
}

/* ---- what the kernel has ---- */

/* "yes", or "no" and why. */
static void add_probe(struct kernel_host *host, const char *key, int error)
{
	char text[40];

	snprintf(text, sizeof(text), "no: %s", litmus_error_name(error));
	kernel_host_add(host, "interfaces", key, error ? text : "yes");
}

static int try_io_uring(void)
{
	struct io_uring_params params = {0};
	int fd = (int)syscall(SYS_io_uring_setup, 1, &params);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static void add_userfaultfd(struct kernel_host *host)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC), error = fd < 0 ? errno : 0;

#ifdef UFFD_USER_MODE_ONLY
	if (fd < 0) {
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
		if (fd >= 0)
			kernel_host_add(host, "interfaces", "userfaultfd", "user mode only");
		else
			add_probe(host, "userfaultfd", error);
	} else
#endif
		add_probe(host, "userfaultfd", error);
	if (fd >= 0)
		close(fd);
}

/* What `poke` needs: a write through /proc/PID/mem into memory that its process may not write. */
static int try_forced_write(char *page)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC), error = 0;

	if (fd < 0)
		return errno;
	if (pwrite(fd, "!", 1, (off_t)(uintptr_t)page) != 1)
		error = errno;
	close(fd);
	return error;
}

#define PAGEMAP_SOFT_DIRTY (UINT64_C(1) << 55)

/* A fresh mapping is soft-dirty where the kernel keeps that bit. */
static bool shows_soft_dirty(const struct kernel_eyes *eyes, char *page)
{
	struct kernel_page seen;

	*(volatile char *)page = 1;
	return !kernel_look(eyes, getpid(), (uint64_t)(uintptr_t)page, &seen) && seen.entry & PAGEMAP_SOFT_DIRTY;
}

static void describe_page_interfaces(struct kernel_host *host)
{
	const struct kernel_eyes blind = {.kpageflags = -1, .kpagecount = -1};
	char *page = mmap(NULL, KERNEL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return;
	add_flag(host, "interfaces", "soft_dirty", shows_soft_dirty(&blind, page));
	if (!mprotect(page, KERNEL_PAGE, PROT_READ))
		add_probe(host, "forced_write", try_forced_write(page));
	munmap(page, KERNEL_PAGE);
}

static void describe_interfaces(struct kernel_host *host)
{
	char line[4096], *option;

	add_probe(host, "io_uring", try_io_uring());
	add_file(host, "interfaces", "io_uring_disabled", "/proc/sys/kernel/io_uring_disabled");
#ifdef UCOW_HAVE_LIBURING
	add_flag(host, "interfaces", "built_with_liburing", true);
#else
	add_flag(host, "interfaces", "built_with_liburing", false);
#endif
	add_userfaultfd(host);
	add_file(host, "interfaces", "unprivileged_userfaultfd", "/proc/sys/vm/unprivileged_userfaultfd");
	describe_page_interfaces(host);
	option = read_line("/proc/cmdline", line, sizeof(line)) ? strstr(line, "proc_mem.force_override=") : NULL;
	if (option) {
		option += strlen("proc_mem.force_override=");
		option[strcspn(option, " ")] = '\0';
		kernel_host_add(host, "interfaces", "proc_mem_force_override", option);
	}
	add_file(host, "interfaces", "ptrace_scope", "/proc/sys/kernel/yama/ptrace_scope");
}

/* ---- what else moves pages about ---- */

static void add_memcg(struct kernel_host *host)
{
	static const char *const v1[] = {" cgroup ", "memory"};
	static const char *const unified[] = {"memory"};
	bool has_v1 = file_has("/proc/mounts", v1, 2);
	bool has_v2 = file_has("/sys/fs/cgroup/cgroup.controllers", unified, 1);

	kernel_host_add(host, "background", "memcg", has_v2 ? "v2" : has_v1 ? "v1" : "none");
}

static void describe_background(struct kernel_host *host)
{
	add_file(host, "background", "ksm_run", "/sys/kernel/mm/ksm/run");
	add_file(host, "background", "numa_balancing", "/proc/sys/kernel/numa_balancing");
	add_file(host, "background", "thp", "/sys/kernel/mm/transparent_hugepage/enabled");
	add_file(host, "background", "thp_shmem", "/sys/kernel/mm/transparent_hugepage/shmem_enabled");
	add_file(host, "background", "zswap", "/sys/module/zswap/parameters/enabled");
	add_file(host, "background", "lru_gen", "/sys/kernel/mm/lru_gen/enabled");
	add_file(host, "background", "swappiness", "/proc/sys/vm/swappiness");
	add_memcg(host);
}

/* ---- how it was built ---- */

/* Options that change what a test sees, or that make a broken kernel say so. */
static const char *const config_options[] = {
	"DEBUG_PAGE_REF",
	"DEBUG_VM",
	"GUP_TEST",
	"HUGETLB_PAGE",
	"IO_URING",
	"KASAN",
	"KCSAN",
	"KSM",
	"LRU_GEN_ENABLED",
	"MEMCG",
	"MEMCG_V1",
	"MEM_SOFT_DIRTY",
	"NO_PAGE_MAPCOUNT",
	"NUMA_BALANCING",
	"PAGE_MAPCOUNT",
	"PAGE_TABLE_CHECK",
	"PREEMPT_RT",
	"PROC_MEM_ALWAYS_FORCE",
	"PROC_MEM_FORCE_PTRACE",
	"PROC_MEM_NO_FORCE",
	"PROVE_LOCKING",
	"SWAP",
	"TRANSPARENT_HUGEPAGE",
	"USERFAULTFD",
	"ZSWAP",
};

/* " KSM=y" for `CONFIG_KSM=y`, if it is one of them. */
static void keep_option(char *text, size_t size, const char *line)
{
	size_t used = strlen(text), nconfig = strlen("CONFIG_");

	for (size_t i = 0; i < sizeof(config_options) / sizeof(config_options[0]); i++) {
		size_t length = strlen(config_options[i]);

		if (strncmp(line, "CONFIG_", nconfig) || strncmp(line + nconfig, config_options[i], length) ||
		    line[nconfig + length] != '=')
			continue;
		line += nconfig;
		snprintf(text + used, size - used, "%s%.*s", used ? " " : "", (int)strcspn(line, "\n"), line);
		return;
	}
}

/* A kernel may carry its configuration, compressed; a distribution puts it beside the kernel. */
static void describe_config(struct kernel_host *host)
{
	FILE *config = popen("gzip -dc </proc/config.gz 2>/dev/null || cat /boot/config-$(uname -r) 2>/dev/null", "re");
	struct host_fact *fact = add(host, "config", "config");
	char *line = NULL;
	size_t room = 0;

	while (config && getline(&line, &room, config) > 0)
		keep_option(fact->text, sizeof(fact->text), line);
	free(line);
	if (config)
		pclose(config);
	if (*fact->text)
		fact->kind = HOST_TEXT;
}

/* ---- */

void kernel_host_describe(struct kernel_host *host)
{
	host->n = 0;
	describe_kernel(host);
	describe_machine(host);
	describe_rights(host);
	describe_interfaces(host);
	describe_background(host);
	describe_config(host);
}
