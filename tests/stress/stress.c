/* SPDX-License-Identifier: MIT */
/*
 * Usage: stress [--seed N] [--seconds N] [--families N] [--threads N] [--fork MODE] [--pressure] [--merge] [--soak]
 * [--self-test]
 *
 * Prints its seed first. Exit status 0: nothing went wrong; 1: something did (the last line says what and how to run it
 * again); 2: usage; 77: the machine cannot be had. With --self-test one wrong stamp is planted, and not noticing is the
 * failure. --pressure: the families are members of memory groups that have room for half of them, and the rest is
 * swapped. --merge: a thread merges equal pages meanwhile.
 * --soak goes on until it is interrupted, with another seed each minute.
 */
#include "stress.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RAM_BYTES ((uint64_t)64 << 20)

uint64_t stress_random(struct worker *worker, uint64_t limit)
{
	worker->random = worker->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (worker->random >> 33) % limit;
}

void stress_fail(struct stress *stress, const char *format, ...)
{
	va_list args;

	pthread_mutex_lock(&stress->lock);
	if (!atomic_load(&stress->failed)) {
		va_start(args, format);
		vsnprintf(stress->what, sizeof(stress->what), format, args);
		va_end(args);
		atomic_store(&stress->failed, true);
		atomic_store(&stress->stop, true);
	}
	pthread_mutex_unlock(&stress->lock);
}

/* ---- threads ---- */

/* What --self-test wants to see noticed: a stamp from nowhere, in a page that is not this thread's. */
static void plant(struct worker *worker)
{
	unsigned page = (worker->number + 1) % worker->family->stress->options.threads;

	for (unsigned i = 0; i < 1000 && !atomic_load(&worker->family->stress->stop); i++)
		(void)!ucow_store_u64(worker->cpu, page_va(worker->family, page), stamp_make(0x7777, page, 1));
}

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct stress *stress = worker->family->stress;

	if (ucow_cpu_create(stress->machine, &worker->cpu) || ucow_cpu_create(stress->machine, &worker->child_cpu)) {
		stress_fail(stress, "no cpu");
		return NULL;
	}
	worker->device = device_create();
	ucow_cpu_attach(worker->cpu, worker->family->mm);
	while (!atomic_load_explicit(&stress->stop, memory_order_relaxed)) {
		stress_operation(worker);
		if (stress->options.plant && worker->done == 2000)
			plant(worker);
	}
	stress_release(worker);
	ucow_cpu_destroy(worker->child_cpu);
	ucow_cpu_destroy(worker->cpu);
	device_destroy(worker->device);
	return NULL;
}

/* ---- pressure ---- */

static int pressure_make(struct stress *stress)
{
	const struct ucow_swap_options swap = {
		.size = sizeof(swap),
		.nbytes = RAM_BYTES / 4,
		.flags = UCOW_SWAP_MEMORY,
	};
	int error = ucow_swapon(stress->machine, &swap, &stress->swap);

	if (error)
		return error;
	return ucow_memcg_create(stress->machine, NULL, (uint64_t)stress->options.families * STRESS_PAGES / 2,
				 UCOW_MEMCG_NO_LIMIT, &stress->memcg);
}

/* Every other one has a limit of its own. */
static int pressure_join(struct family *family)
{
	struct stress *stress = family->stress;
	uint64_t limit = family->number & 1 ? UCOW_MEMCG_NO_LIMIT : STRESS_PAGES * 2 / 3;
	int error = ucow_memcg_create(stress->machine, stress->memcg, limit, UCOW_MEMCG_NO_LIMIT, &family->memcg);

	return error ? error : ucow_mm_join(family->mm, family->memcg);
}

/* All spaces have gone: nothing is charged any more, and no slot is in use. */
static void pressure_clear(struct stress *stress)
{
	struct ucow_memcg_stat stat;
	struct ucow_swap_stat swap;

	ucow_memcg_stat(stress->memcg, &stat);
	if (stat.usage || stat.swap_usage || stat.peak > stat.limit)
		stress_fail(stress, "charged in the end: %llu pages, %llu slots; at most %llu of %llu",
			    (unsigned long long)stat.usage, (unsigned long long)stat.swap_usage,
			    (unsigned long long)stat.peak, (unsigned long long)stat.limit);
	for (unsigned i = 0; i < stress->options.families; i++)
		if (ucow_memcg_destroy(stress->families[i].memcg))
			stress_fail(stress, "a group cannot be destroyed");
	if (ucow_swap_stat(stress->machine, stress->swap, &swap) || swap.used)
		stress_fail(stress, "%llu slots are left", (unsigned long long)swap.used);
	printf("# %llu pages reclaimed, %llu operations had to wait, %llu failed\n", (unsigned long long)stat.reclaimed,
	       (unsigned long long)stat.max_events, (unsigned long long)stat.oom_events);
	if (ucow_memcg_destroy(stress->memcg))
		stress_fail(stress, "the group above cannot be destroyed");
}

/* ---- merging ---- */

/* Pages of zeros, and copies that nobody has written to yet, are equal. */
static int merge_make(struct stress *stress)
{
	const struct ucow_ksm_options options = {
		.size = sizeof(options), .use_zero_pages = true, .max_page_sharing = 8, .pages_to_scan = 64};
	int error = ucow_ksm_configure(stress->machine, &options);

	return error ? error : ucow_ksm_start(stress->machine);
}

static void merge_clear(struct stress *stress)
{
	struct ucow_ksm_stat stat;

	ucow_ksm_stop(stress->machine);
	ucow_ksm_stat(stress->machine, &stat);
	printf("# %llu pages merged, %llu looked at\n", (unsigned long long)stat.merged,
	       (unsigned long long)stat.pages_scanned);
}

/* ---- a round ---- */

static int family_make(struct family *family, struct stress *stress, unsigned number)
{
	int error;

	family->stress = stress;
	family->number = number;
	error = ucow_mm_create(stress->machine, &family->mm);
	if (!error)
		error = ucow_mmap(family->mm, 0, (uint64_t)STRESS_PAGES * UCOW_PAGE_SIZE,
				  UCOW_PROT_READ | UCOW_PROT_WRITE, UCOW_MAP_PRIVATE, &family->va);
	if (!error && stress->options.pressure)
		error = pressure_join(family);
	if (!error && stress->options.merge)
		error = ucow_madvise(family->mm, family->va, (uint64_t)STRESS_PAGES * UCOW_PAGE_SIZE,
				     UCOW_MADV_MERGEABLE);
	if (!error && number == 1)
		error = ucow_snapshot_group_create(family->mm, NULL, &family->group);
	return error;
}

static int stage_make(struct stress *stress)
{
	struct ucow_machine_options options = {
		.size = sizeof(options),
		.ram_bytes = RAM_BYTES,
		.fork_mode = stress->options.fork,
		.flags = UCOW_MACHINE_POISON,
	};
	int error = ucow_machine_create(&options, &stress->machine);

	if (!error && stress->options.pressure)
		error = pressure_make(stress);
	if (!error && stress->options.merge)
		error = merge_make(stress);
	stress->families = calloc(stress->options.families, sizeof(*stress->families));
	for (unsigned i = 0; !error && i < stress->options.families; i++)
		error = family_make(&stress->families[i], stress, i + 1);
	return error;
}

/* Nothing runs any more: the engine's own checks, and everything must be given back. */
static void stage_clear(struct stress *stress)
{
	struct ucow_machine_stat stat;
	char why[200];

	if (stress->options.merge)
		merge_clear(stress);
	if (ucow_machine_check(stress->machine, why, sizeof(why)))
		stress_fail(stress, "after the last operation: %s", why);
	for (unsigned i = 0; i < stress->options.families; i++) {
		ucow_snapshot_group_destroy(stress->families[i].group);
		if (ucow_mm_destroy(stress->families[i].mm))
			stress_fail(stress, "a space cannot be destroyed");
	}
	if (ucow_machine_check(stress->machine, why, sizeof(why)))
		stress_fail(stress, "after all spaces were destroyed: %s", why);
	ucow_machine_synchronize(stress->machine);
	ucow_machine_stat(stress->machine, &stat);
	if (stat.used_pages || stat.table_bytes || stat.pins || stat.gets)
		stress_fail(stress, "left behind: %llu pages, %llu bytes of tables, %llu pins, %llu gets",
			    (unsigned long long)stat.used_pages, (unsigned long long)stat.table_bytes,
			    (unsigned long long)stat.pins, (unsigned long long)stat.gets);
	if (stress->options.pressure)
		pressure_clear(stress);
	if (ucow_machine_destroy(stress->machine))
		stress_fail(stress, "the machine cannot be destroyed");
	free(stress->families);
}

static void wait_seconds(struct stress *stress, unsigned seconds)
{
	const struct timespec tick = {0, 20 * 1000 * 1000};

	for (unsigned i = 0; i < seconds * 50 && !atomic_load(&stress->stop); i++)
		nanosleep(&tick, NULL);
	atomic_store(&stress->stop, true);
}

static int run_round(struct stress *stress, uint64_t *done)
{
	unsigned nworkers = stress->options.families * stress->options.threads;
	struct worker *workers = calloc(nworkers, sizeof(*workers));
	int error = workers ? stage_make(stress) : -ENOMEM;

	if (error)
		return error;
	atomic_store(&stress->stop, false);
	for (unsigned i = 0; i < nworkers; i++) {
		workers[i].family = &stress->families[i / stress->options.threads];
		workers[i].number = i % stress->options.threads;
		workers[i].random = stress->options.seed * 1000003 + i;
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			abort();
	}
	wait_seconds(stress, stress->options.seconds);
	for (unsigned i = 0; i < nworkers; i++) {
		pthread_join(workers[i].thread, NULL);
		*done += workers[i].done;
	}
	stage_clear(stress);
	free(workers);
	return 0;
}

/* ---- the command ---- */

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	if (*end || end == text || value < least || value > most) {
		fprintf(stderr, "stress: `%s' is no number from %llu to %llu\n", text, (unsigned long long)least,
			(unsigned long long)most);
		exit(2);
	}
	return value;
}

static void parse(int argc, char **argv, struct stress_options *options)
{
	static const struct option known[] = {
		{"seed", required_argument, NULL, 's'},     {"seconds", required_argument, NULL, 't'},
		{"families", required_argument, NULL, 'f'}, {"threads", required_argument, NULL, 'n'},
		{"fork", required_argument, NULL, 'm'},     {"soak", no_argument, NULL, 'k'},
		{"self-test", no_argument, NULL, 'p'},      {"pressure", no_argument, NULL, 'r'},
		{"merge", no_argument, NULL, 'e'},          {0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1)
		switch (option) {
		case 's':
			options->seed = number(optarg, 0, UINT64_MAX);
			break;
		case 't':
			options->seconds = (unsigned)number(optarg, 1, 1000000);
			break;
		case 'f':
			options->families = (unsigned)number(optarg, 1, 16);
			break;
		case 'n':
			options->threads = (unsigned)number(optarg, 1, STRESS_THREADS);
			break;
		case 'm':
			if (ucow_fork_mode_parse(optarg, &options->fork)) {
				fprintf(stderr, "stress: there is no fork mode `%s'\n", optarg);
				exit(2);
			}
			break;
		case 'r':
			options->pressure = true;
			break;
		case 'e':
			options->merge = true;
			break;
		case 'k':
			options->soak = true;
			options->seconds = 60;
			break;
		case 'p':
			options->plant = true;
			break;
		default:
			exit(2);
		}
	if (optind != argc)
		exit(2);
}

static int report(struct stress *stress, uint64_t done)
{
	const struct stress_options *options = &stress->options;
	bool failed = atomic_load(&stress->failed);

	printf("# seed %llu: %llu operations by %u threads in %u spaces\n", (unsigned long long)options->seed,
	       (unsigned long long)done, options->threads, options->families);
	if (options->plant) {
		printf("%s\n",
		       failed ? "ok: the planted stamp was noticed" : "not ok: nobody noticed the planted stamp");
		return !failed;
	}
	if (failed)
		printf("not ok: %s\n# again: --seed %llu --families %u --threads %u --fork %s%s%s\n", stress->what,
		       (unsigned long long)options->seed, options->families, options->threads,
		       ucow_fork_mode_name(options->fork), options->pressure ? " --pressure" : "",
		       options->merge ? " --merge" : "");
	else
		printf("ok\n");
	fflush(stdout);
	return failed;
}

int main(int argc, char **argv)
{
	struct stress stress = {
		.options = {.seed = 1, .seconds = 3, .families = 2, .threads = 3, .fork = UCOW_FORK_LAZY},
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
	uint64_t done = 0;
	int error, status;

	parse(argc, argv, &stress.options);
	do {
		done = 0;
		error = run_round(&stress, &done);
		if (error) {
			printf("# no stage: %s\n", strerror(-error));
			return 77;
		}
		status = report(&stress, done);
		if (stress.options.soak)
			stress.options.seed++;
	} while (stress.options.soak && !status);
	stress_print_operations();
	return status;
}
