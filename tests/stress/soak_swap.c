/* SPDX-License-Identifier: MIT */
/*
 * A soak under memory pressure: threads dirty random pages of a space several times larger than RAM, with forks,
 * snapshots, pins, discards and requests to page out in between. Every page says what it is and how often it was
 * written, in bytes that do not compress; whoever comes by checks that, and at the end every byte is checked.
 */
#include <ucow/debug.h>
#include <ucow/swap.h>
#include <ucow/ucow.h>

#include <argp.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WORDS       (UCOW_PAGE_SIZE / sizeof(uint64_t))
#define LAST        (WORDS - 1)
#define MAX_THREADS 8
#define MAX_PINS    8
#define MIB         ((uint64_t)1 << 20)
#define RETRIES     100 /* of a store that finds no memory, before that is taken for a fault */

struct options {
	uint64_t seed, space, ram, swap; /* bytes */
	unsigned seconds, threads;
	enum ucow_fork_mode fork;
	bool buffered, memory, self_test;
};

struct soak {
	struct options options;
	struct ucow_machine *machine;
	struct ucow_mm *mm;
	uint64_t va, npages, spare; /* spare: pages beyond the space's that RAM and swap hold */
	uint64_t deadline;
	struct page_state *pages;
	_Atomic bool failed;
	_Atomic uint64_t visits, verified, forks, snapshots, pins, discards, pageouts, refused;
};

/*
 * What a page holds: nothing but zeros (never written, or discarded: base 0), or words made from `base`, with the first
 * and the last made from `version`.
 */
struct page_state {
	uint32_t base, version;
};

/* Some pages of one space, as the one thread that writes them knows them. */
struct view {
	struct soak *soak;
	struct ucow_cpu *cpu;
	struct ucow_mm *mm;
	struct page_state *pages;
	uint64_t first, npages; /* in the space */
	bool read_only;
};

struct pin {
	struct ucow_page *page;
	uint64_t index; /* in the view */
};

struct worker {
	struct soak *soak;
	pthread_t thread;
	struct view parent, child; /* the child's space: NULL when there is none */
	struct pin pins[MAX_PINS];
	unsigned npins;
	uint64_t random, visits, born; /* born: at which visit the child came */
	uint32_t version;              /* of this thread's last store */
	int err;
};

/* ---- contents ---- */

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t mix(uint64_t word)
{
	word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
	word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
	return word ^ (word >> 31);
}

static uint64_t draw(struct worker *worker, uint64_t limit)
{
	worker->random += 0x9e3779b97f4a7c15;
	return ((mix(worker->random) >> 32) * limit) >> 32;
}

/* Word @i of page @page (of the space). */
static uint64_t word_of(uint64_t page, struct page_state state, size_t i)
{
	uint64_t from = i == 0 || i == LAST ? state.version : state.base;

	return state.base ? mix(((page << 32) | from) * WORDS + i) : 0;
}

static void page_of(uint64_t page, struct page_state state, uint64_t words[WORDS])
{
	for (size_t i = 0; i < WORDS; i++)
		words[i] = word_of(page, state, i);
}

static int wrong(struct view *view, uint64_t index, size_t word, uint64_t seen)
{
	struct page_state state = view->pages[index];

	if (!atomic_exchange(&view->soak->failed, true))
		printf("# page %llu word %zu: %016llx, not %016llx (base %u, version %u)\n",
		       (unsigned long long)(view->first + index), word, (unsigned long long)seen,
		       (unsigned long long)word_of(view->first + index, state, word), state.base, state.version);
	return -EUCLEAN;
}

/* ---- one page ---- */

static uint64_t page_va(const struct view *view, uint64_t index)
{
	return view->soak->va + (view->first + index) * UCOW_PAGE_SIZE;
}

static int check_word(struct view *view, uint64_t index, size_t word)
{
	uint64_t seen;
	int err = ucow_load_u64(view->cpu, page_va(view, index) + word * sizeof(seen), &seen);

	if (err || seen == word_of(view->first + index, view->pages[index], word))
		return err;
	return wrong(view, index, word, seen);
}

static int check_page(struct view *view, uint64_t index)
{
	uint64_t seen[WORDS], wanted[WORDS];
	int err = ucow_read(view->cpu, page_va(view, index), seen, sizeof(seen), NULL);
	size_t word = 0;

	if (err)
		return err;
	atomic_fetch_add_explicit(&view->soak->verified, 1, memory_order_relaxed);
	page_of(view->first + index, view->pages[index], wanted);
	if (memcmp(seen, wanted, sizeof(seen)) == 0)
		return 0;
	while (seen[word] == wanted[word])
		word++;
	return wrong(view, index, word, seen[word]);
}

static int write_page(struct view *view, uint64_t index, uint32_t version)
{
	struct page_state state = {.base = version, .version = version};
	uint64_t words[WORDS];
	int err;

	page_of(view->first + index, state, words);
	err = ucow_write(view->cpu, page_va(view, index), words, sizeof(words), NULL);
	if (!err)
		view->pages[index] = state;
	return err;
}

/* The second store cannot fail for want of memory alone: the first has just made the page the space's own. */
static int stamp_page(struct view *view, uint64_t index, uint32_t version)
{
	struct page_state state = {.base = view->pages[index].base, .version = version};
	uint64_t page = view->first + index, va = page_va(view, index);
	int err = ucow_store_u64(view->cpu, va, word_of(page, state, 0));

	for (unsigned i = 0; !err && i < RETRIES; i++) {
		err = ucow_store_u64(view->cpu, va + LAST * sizeof(uint64_t), word_of(page, state, LAST));
		if (err != -ENOMEM)
			break;
	}
	if (!err)
		view->pages[index] = state;
	return err;
}

/* ---- children ---- */

static void end_child(struct worker *worker)
{
	struct view *child = &worker->child;

	if (!child->mm)
		return;
	ucow_cpu_attach(child->cpu, NULL);
	(void)ucow_mm_destroy(child->mm);
	child->mm = NULL;
}

static int begin_child(struct worker *worker, bool snapshot)
{
	struct view *parent = &worker->parent, *child = &worker->child;
	int err = snapshot ? ucow_snapshot(parent->mm, &child->mm) : ucow_fork(parent->mm, &child->mm);

	if (err) {
		child->mm = NULL;
		return err;
	}
	memcpy(child->pages, parent->pages, parent->npages * sizeof(*parent->pages));
	child->read_only = snapshot;
	ucow_cpu_attach(child->cpu, child->mm);
	worker->born = worker->visits;
	atomic_fetch_add(snapshot ? &worker->soak->snapshots : &worker->soak->forks, 1);
	return 0;
}

/*
 * While a child lives every page that is written costs one more. So many visits that all children of all threads get by
 * with what is spare.
 */
static uint64_t child_life(const struct soak *soak)
{
	uint64_t threads = soak->options.threads;

	return soak->spare / (4 * threads * threads + 2 * threads) + 16;
}

/* ---- visits ---- */

/* Look at a page, and write it: mostly its stamp, now and then all of it. */
static int visit(struct worker *worker, struct view *view)
{
	uint64_t index = draw(worker, view->npages);
	bool whole = draw(worker, 16) == 0 || view->pages[index].base == 0;
	int err;

	if (whole) {
		err = check_page(view, index);
	} else {
		err = check_word(view, index, 0);
		if (!err)
			err = check_word(view, index, draw(worker, WORDS));
		if (!err)
			err = check_word(view, index, LAST);
	}
	if (err || view->read_only)
		return err;
	worker->version++;
	return whole ? write_page(view, index, worker->version) : stamp_page(view, index, worker->version);
}

static void release_pins(struct worker *worker)
{
	for (unsigned i = 0; i < worker->npins; i++)
		ucow_unpin_user_pages_dirty_lock(&worker->pins[i].page, 1, true);
	worker->npins = 0;
}

static bool is_pinned(const struct worker *worker, uint64_t index)
{
	for (unsigned i = 0; i < worker->npins; i++)
		if (worker->pins[i].index == index)
			return true;
	return false;
}

/* What a device does: it writes the stamp through the pinned page, and the space must see it. */
static int device_write(struct worker *worker)
{
	struct pin *pin = &worker->pins[draw(worker, worker->npins)];
	struct view *view = &worker->parent;
	struct page_state *state = &view->pages[pin->index];
	uint64_t *words = ucow_page_address(pin->page), page = view->first + pin->index;

	state->version = ++worker->version;
	__atomic_store_n(&words[0], word_of(page, *state, 0), __ATOMIC_RELAXED);
	__atomic_store_n(&words[LAST], word_of(page, *state, LAST), __ATOMIC_RELAXED);
	return check_page(view, pin->index);
}

static int pin_one(struct worker *worker)
{
	struct view *view = &worker->parent;
	struct pin *pin = &worker->pins[worker->npins];
	uint64_t index = draw(worker, view->npages);
	long got;

	if (view->pages[index].base == 0 || is_pinned(worker, index))
		return 0;
	got = ucow_pin_user_pages(view->cpu, page_va(view, index), 1, UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM, &pin->page);
	if (got != 1)
		return (int)got;
	pin->index = index;
	worker->npins++;
	atomic_fetch_add(&worker->soak->pins, 1);
	return 0;
}

static int pin_or_release(struct worker *worker)
{
	if (worker->npins == MAX_PINS)
		release_pins(worker);
	return pin_one(worker);
}

/* A run of this thread's pages: dropped, or sent to swap. */
static int advise(struct worker *worker, enum ucow_advice advice)
{
	struct view *view = &worker->parent;
	uint64_t n = 1 + draw(worker, 64), index;

	n = n < view->npages ? n : view->npages;
	index = draw(worker, view->npages - n + 1);
	if (advice != UCOW_MADV_DONTNEED) {
		atomic_fetch_add(&worker->soak->pageouts, n);
		return ucow_madvise(view->mm, page_va(view, index), n * UCOW_PAGE_SIZE, advice);
	}
	release_pins(worker);
	memset(&view->pages[index], 0, n * sizeof(*view->pages));
	atomic_fetch_add(&worker->soak->discards, n);
	return ucow_madvise(view->mm, page_va(view, index), n * UCOW_PAGE_SIZE, advice);
}

/* What comes by now and then, by the number of the visit. */
static int event(struct worker *worker)
{
	uint64_t n = worker->visits, life = child_life(worker->soak);

	if (worker->child.mm && n - worker->born >= life)
		end_child(worker);
	if (!worker->child.mm && n - worker->born >= 2 * life)
		return begin_child(worker, draw(worker, 2));
	if (n % 1009 == 0)
		return pin_or_release(worker);
	if (n % 4001 == 0)
		return advise(worker, UCOW_MADV_DONTNEED);
	if (n % 5003 == 0)
		return advise(worker, UCOW_MADV_PAGEOUT);
	if (n % 6007 == 0)
		return advise(worker, UCOW_MADV_COLD);
	if (worker->npins && n % 257 == 0)
		return device_write(worker);
	return 0;
}

/* Where there is no memory the children go, and it is tried again; nothing may have changed. */
static int again(struct worker *worker, int err, unsigned *tries)
{
	if (err != -ENOMEM || ++*tries > RETRIES)
		return err;
	atomic_fetch_add(&worker->soak->refused, 1);
	end_child(worker);
	release_pins(worker);
	ucow_machine_synchronize(worker->soak->machine);
	return 0;
}

static int step(struct worker *worker)
{
	bool child = worker->child.mm && worker->visits % 4 == 0;
	int err = event(worker);

	if (!err)
		err = visit(worker, child && worker->child.mm ? &worker->child : &worker->parent);
	worker->visits++;
	return err;
}

static int dirty_at_random(struct worker *worker)
{
	unsigned tries = 0;
	int err = 0;

	while (!err && !atomic_load_explicit(&worker->soak->failed, memory_order_relaxed)) {
		if (worker->visits % 64 == 0 && now() > worker->soak->deadline)
			break;
		err = again(worker, step(worker), &tries);
		if (worker->visits % 1024 == 0)
			tries = 0;
	}
	atomic_fetch_add(&worker->soak->visits, worker->visits);
	return err;
}

static int fill(struct worker *worker)
{
	struct view *view = &worker->parent;
	int err = 0;

	for (uint64_t i = 0; !err && i < view->npages; i++)
		err = write_page(view, i, ++worker->version);
	return err;
}

static int check_all(struct worker *worker)
{
	struct view *view = &worker->parent;
	int err = 0;

	for (uint64_t i = 0; !err && i < view->npages; i++)
		err = check_page(view, i);
	return err;
}

/* ---- threads ---- */

typedef int phase_run(struct worker *worker);

struct run {
	struct worker *worker;
	phase_run *phase;
};

static int worker_attach(struct worker *worker)
{
	int err = ucow_cpu_create(worker->soak->machine, &worker->parent.cpu);

	if (!err)
		err = ucow_cpu_create(worker->soak->machine, &worker->child.cpu);
	if (!err)
		ucow_cpu_attach(worker->parent.cpu, worker->parent.mm);
	return err;
}

static void worker_detach(struct worker *worker)
{
	end_child(worker);
	release_pins(worker);
	ucow_cpu_destroy(worker->child.cpu);
	ucow_cpu_destroy(worker->parent.cpu);
	worker->child.cpu = worker->parent.cpu = NULL;
}

static void *thread_main(void *arg)
{
	struct run *run = arg;
	struct worker *worker = run->worker;

	worker->err = worker_attach(worker);
	if (!worker->err)
		worker->err = run->phase(worker);
	worker_detach(worker);
	return NULL;
}

/* All threads do @phase. Returns: 0, or what the first that failed said. */
static int run_phase(struct soak *soak, struct worker workers[], phase_run *phase)
{
	struct run runs[MAX_THREADS];
	int err = 0;

	for (unsigned i = 0; i < soak->options.threads; i++) {
		runs[i] = (struct run){&workers[i], phase};
		if (pthread_create(&workers[i].thread, NULL, thread_main, &runs[i]))
			abort();
	}
	for (unsigned i = 0; i < soak->options.threads; i++) {
		pthread_join(workers[i].thread, NULL);
		err = err ? err : workers[i].err;
	}
	return err;
}

static int workers_make(struct soak *soak, struct worker workers[])
{
	uint64_t share = soak->npages / soak->options.threads;

	for (unsigned i = 0; i < soak->options.threads; i++) {
		struct worker *worker = &workers[i];

		worker->soak = soak;
		worker->random = soak->options.seed * MAX_THREADS + i;
		worker->parent = (struct view){.soak = soak, .mm = soak->mm, .pages = soak->pages + i * share};
		worker->parent.first = i * share;
		worker->parent.npages = i + 1 < soak->options.threads ? share : soak->npages - i * share;
		worker->child = worker->parent;
		worker->child.mm = NULL;
		worker->child.pages = calloc(worker->parent.npages, sizeof(*worker->child.pages));
		if (!worker->child.pages)
			return -ENOMEM;
	}
	return 0;
}

/* ---- the stage ---- */

static int stage_open(struct soak *soak)
{
	const struct options *options = &soak->options;
	const struct ucow_machine_options machine = {
		.size = sizeof(machine),
		.ram_bytes = options->ram,
		.fork_mode = options->fork,
	};
	const struct ucow_swap_options swap = {
		.size = sizeof(swap),
		.nbytes = options->swap,
		.flags = options->memory     ? UCOW_SWAP_MEMORY
			 : options->buffered ? 0
					     : UCOW_SWAP_DIRECT,
	};
	int err = ucow_machine_create(&machine, &soak->machine);

	if (!err)
		err = ucow_swapon(soak->machine, &swap, NULL);
	if (!err)
		err = ucow_mm_create(soak->machine, &soak->mm);
	if (!err)
		err = ucow_mmap(soak->mm, 0, options->space, UCOW_PROT_READ | UCOW_PROT_WRITE, UCOW_MAP_PRIVATE,
				&soak->va);
	soak->npages = options->space / UCOW_PAGE_SIZE;
	soak->spare = (options->ram + options->swap - options->space) / UCOW_PAGE_SIZE;
	soak->pages = calloc(soak->npages, sizeof(*soak->pages));
	return err ? err : soak->pages ? 0 : -ENOMEM;
}

/* After the last space not a slot may be left. */
static int stage_close(struct soak *soak)
{
	struct ucow_swap_stat stat = {0};
	int err = ucow_mm_destroy(soak->mm);

	ucow_machine_synchronize(soak->machine);
	if (!err)
		err = ucow_swap_stat(soak->machine, 0, &stat);
	if (!err && stat.used) {
		printf("# %llu slots are in use after the end of all spaces\n", (unsigned long long)stat.used);
		err = -EUCLEAN;
	}
	if (!err)
		err = ucow_machine_destroy(soak->machine);
	free(soak->pages);
	return err;
}

static void print_figures(struct soak *soak, double seconds)
{
	static const enum ucow_counter shown[] = {
		UCOW_COUNTER_REUSE,          UCOW_COUNTER_COPY_SHARED,        UCOW_COUNTER_COPY_REFERENCED,
		UCOW_COUNTER_COPY_LOCKED,    UCOW_COUNTER_EARLY_COPY,         UCOW_COUNTER_ZERO_FILL,
		UCOW_COUNTER_SWAP_IN,        UCOW_COUNTER_SWAP_OUT,           UCOW_COUNTER_SWAP_CACHE_HIT,
		UCOW_COUNTER_SWAP_READAHEAD, UCOW_COUNTER_SWAP_READAHEAD_HIT, UCOW_COUNTER_RECLAIM_SCANNED,
		UCOW_COUNTER_RECLAIM_STOLEN, UCOW_COUNTER_RECLAIM_REFERENCED, UCOW_COUNTER_RECLAIM_HELD,
		UCOW_COUNTER_FAULT_NOMEM,
	};
	struct ucow_swap_stat stat = {0};

	(void)ucow_swap_stat(soak->machine, 0, &stat);
	printf("# %llu visits in %.1f s, %.2f us each; %llu pages verified whole\n", (unsigned long long)soak->visits,
	       seconds, seconds * 1e6 / (double)(soak->visits + !soak->visits), (unsigned long long)soak->verified);
	printf("# %llu forks, %llu snapshots, %llu pins; pages discarded %llu, sent to swap %llu; refused %llu times\n",
	       (unsigned long long)soak->forks, (unsigned long long)soak->snapshots, (unsigned long long)soak->pins,
	       (unsigned long long)soak->discards, (unsigned long long)soak->pageouts,
	       (unsigned long long)soak->refused);
	printf("# swap: %llu of %llu slots used, %llu cached; read %llu, written %llu\n", (unsigned long long)stat.used,
	       (unsigned long long)stat.capacity, (unsigned long long)stat.cached, (unsigned long long)stat.read,
	       (unsigned long long)stat.written);
	for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
		printf("# %s %llu\n", ucow_counter_name(shown[i]),
		       (unsigned long long)ucow_machine_counter(soak->machine, shown[i]));
}

static int check_machine(struct soak *soak)
{
	char why[256];
	int err = ucow_machine_check(soak->machine, why, sizeof(why));

	if (err)
		printf("# %s\n", why);
	return err;
}

/* One byte that nobody should have written. */
static int plant(struct worker *worker)
{
	const char byte = 1;

	return ucow_write(worker->parent.cpu, page_va(&worker->parent, worker->parent.npages / 2) + 1234, &byte, 1,
			  NULL);
}

static int soak_run(struct soak *soak, struct worker workers[])
{
	uint64_t start;
	int err = run_phase(soak, workers, fill), check_err;
	double seconds;

	start = now();
	soak->deadline = start + (uint64_t)soak->options.seconds * 1000000000u;
	if (!err)
		err = run_phase(soak, workers, dirty_at_random);
	seconds = (double)(now() - start) / 1e9;
	if (!err && soak->options.self_test)
		err = run_phase(soak, workers, plant);
	if (!err)
		err = run_phase(soak, workers, check_all);
	check_err = check_machine(soak);
	print_figures(soak, seconds);
	if (err && err != -EUCLEAN)
		printf("# a thread was refused: %s\n", strerror(-err));
	return err ? err : check_err;
}

/* ---- the command line ---- */

static const struct argp_option argp_options[] = {
	{"seconds", 's', "N", 0, "how long to dirty pages (3)", 0},
	{"space", 'n', "MIB", 0, "size of the space (44)", 0},
	{"ram", 'r', "MIB", 0, "RAM of the machine (8)", 0},
	{"swap", 'w', "MIB", 0, "swap (40)", 0},
	{"threads", 't', "N", 0, "threads, each with pages of its own (2)", 0},
	{"fork", 'f', "MODE", 0, "fork mode (lazy)", 0},
	{"seed", 'e', "N", 0, "what is done (1)", 0},
	{"buffered", 'b', NULL, 0, "swap through the host's page cache", 0},
	{"memory", 'm', NULL, 0, "swap to memory, without a file", 0},
	{"self-test", 'x', NULL, 0, "write one wrong byte, which must be noticed", 0},
	{0},
};

static uint64_t number(const struct argp_state *state, const char *text, uint64_t most)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	if (end == text || *end || value == 0 || value > most)
		argp_error(state, "not a number from 1 to %llu: %s", (unsigned long long)most, text);
	return value;
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 's':
		options->seconds = (unsigned)number(state, value, 1000000);
		return 0;
	case 'n':
		options->space = number(state, value, 1 << 20) * MIB;
		return 0;
	case 'r':
		options->ram = number(state, value, 1 << 20) * MIB;
		return 0;
	case 'w':
		options->swap = number(state, value, 1 << 20) * MIB;
		return 0;
	case 't':
		options->threads = (unsigned)number(state, value, MAX_THREADS);
		return 0;
	case 'f':
		if (ucow_fork_mode_parse(value, &options->fork))
			argp_error(state, "no fork mode is called `%s`", value);
		return 0;
	case 'e':
		options->seed = number(state, value, UINT32_MAX);
		return 0;
	case 'b':
		options->buffered = true;
		return 0;
	case 'm':
		options->memory = true;
		return 0;
	case 'x':
		options->self_test = true;
		return 0;
	case ARGP_KEY_END:
		if (options->ram + options->swap < options->space)
			argp_error(state, "the space is larger than RAM and swap together");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int main(int argc, char **argv)
{
	static struct soak soak = {
		.options = {.seed = 1, .seconds = 3, .threads = 2, .fork = UCOW_FORK_LAZY},
	};
	static struct worker workers[MAX_THREADS];
	const struct argp argp = {.options = argp_options, .parser = parse_option};
	int err, close_err;

	soak.options.space = 44 * MIB;
	soak.options.ram = 8 * MIB;
	soak.options.swap = 40 * MIB;
	argp_parse(&argp, argc, argv, 0, NULL, &soak.options);
	setvbuf(stdout, NULL, _IOLBF, 0);
	err = stage_open(&soak);
	if (!err)
		err = workers_make(&soak, workers);
	if (err) {
		printf("# no stage: %s\n", strerror(-err));
		return 77;
	}
	err = soak_run(&soak, workers);
	close_err = stage_close(&soak);
	for (unsigned i = 0; i < soak.options.threads; i++)
		free(workers[i].child.pages);
	if (close_err)
		printf("# the end: %s\n", strerror(-close_err));
	if (soak.options.self_test)
		return err == -EUCLEAN && !close_err ? 0 : 1;
	printf("# %s\n", err || close_err ? "failed" : "every byte is right");
	return err || close_err ? 1 : 0;
}
