/* SPDX-License-Identifier: MIT */
/*
 * Truncating files and making holes in them, against mappings, private copies, pins, forks, and threads that fault
 * meanwhile.
 */
#include "files.h"

#include <pthread.h>
#include <stdatomic.h>

#define NPAGES 40
#define FAR    ((uint64_t)1 << 40)

TEST(what_is_cut_off_goes_from_all_mappings)
{
	for (int in_memory = 0; in_memory < 2; in_memory++) {
		struct world w = world_open();
		int fd;
		struct ucow_file *file = open_filled(w.machine, in_memory, NPAGES, &fd);
		uint64_t value;

		map_file(w.mm, BASE, NPAGES, RW, UCOW_MAP_SHARED, file, 0);
		map_file(w.mm, FAR, NPAGES, RW, UCOW_MAP_PRIVATE, file, 0);
		for (uint64_t i = 0; i < NPAGES; i++) {
			put64(w.cpu, BASE + i * PAGE + 8, i);
			put64(w.cpu, FAR + i * PAGE + 16, i);
		}
		REQUIRE_EQ(ucow_file_truncate(file, 10 * PAGE + 12), 0);
		check_invariants(w.machine);
		CHECK_EQ(file_stat(file).size, 10 * PAGE + 12);
		CHECK_EQ(file_stat(file).cached, 11);
		for (uint64_t i = 0; i < NPAGES; i++) {
			CHECK_EQ(ucow_load_u64(w.cpu, BASE + i * PAGE, &value), i > 10 ? -ENXIO : 0);
			/* Private copies beyond the end go as well. */
			CHECK_EQ(ucow_load_u64(w.cpu, FAR + i * PAGE, &value), i > 10 ? -ENXIO : 0);
			CHECK_EQ(ucow_store_u64(w.cpu, FAR + i * PAGE + 24, 1), i > 10 ? -ENXIO : 0);
		}
		CHECK_EQ(get64(w.cpu, FAR + 9 * PAGE + 16), 9);
		CHECK_EQ(get64(w.cpu, FAR + 10 * PAGE + 16), 10); /* a copy keeps what is behind the end */
		CHECK_EQ(get64(w.cpu, BASE + 10 * PAGE + 16), 0);
		/* It comes back as zeros. */
		REQUIRE_EQ(ucow_file_truncate(file, NPAGES * PAGE), 0);
		CHECK_EQ(get64(w.cpu, BASE + 20 * PAGE + 8), 0);
		CHECK_EQ(get64(w.cpu, FAR + 20 * PAGE), 0);
		CHECK_EQ(get64(w.cpu, BASE + 10 * PAGE), file_value(10));
		check_invariants(w.machine);
		CHECK_EQ(ucow_file_close(file), 0);
		world_close(&w);
		if (fd >= 0) {
			CHECK_EQ(host_size(fd), NPAGES * PAGE);
			CHECK_EQ(host_get64(fd, 9 * PAGE + 8), 9);
			CHECK_EQ(host_get64(fd, 11 * PAGE), 0);
			close(fd);
		}
	}
}

TEST(what_a_mapping_stored_behind_the_end_is_not_seen_when_that_moves)
{
	struct world w = world_open();
	int fd = host_file(PAGE + 100);
	struct ucow_file *file = open_file(w.machine, fd, 0);

	map_file(w.mm, BASE, 2, RW, UCOW_MAP_SHARED, file, 0);
	put64(w.cpu, BASE + PAGE + 200, 7);
	REQUIRE_EQ(ucow_file_truncate(file, 2 * PAGE), 0);
	CHECK_EQ(get64(w.cpu, BASE + PAGE + 200), 0);
	put64(w.cpu, BASE + PAGE + 200, 8);
	REQUIRE_EQ(ucow_file_truncate(file, PAGE + 100), 0);
	CHECK_EQ(get64(w.cpu, BASE + PAGE + 200), 0);
	put64(w.cpu, BASE + PAGE + 200, 9);
	file_put64(file, 3 * PAGE, 1);
	CHECK_EQ(get64(w.cpu, BASE + PAGE + 200), 0);
	CHECK_EQ(ucow_file_close(file), 0);
	world_close(&w);
	CHECK_EQ(host_size(fd), 3 * PAGE + 8);
	CHECK_EQ(host_get64(fd, PAGE), file_value(1));
	CHECK_EQ(host_get64(fd, PAGE + 200), 0);
	CHECK_EQ(host_get64(fd, 2 * PAGE), 0);
	CHECK_EQ(host_get64(fd, 3 * PAGE), 1);
	close(fd);
}

TEST(a_hole_reads_as_zeros_and_private_copies_stay)
{
	for (int in_memory = 0; in_memory < 2; in_memory++) {
		struct world w = world_open();
		int fd;
		struct ucow_file *file = open_filled(w.machine, in_memory, NPAGES, &fd);

		map_file(w.mm, BASE, NPAGES, RW, UCOW_MAP_SHARED, file, 0);
		map_file(w.mm, FAR, NPAGES, RW, UCOW_MAP_PRIVATE, file, 0);
		for (uint64_t i = 0; i < NPAGES; i++) {
			put64(w.cpu, BASE + i * PAGE + 3000, i);
			(void)get64(w.cpu, FAR + i * PAGE);
		}
		put64(w.cpu, FAR + 6 * PAGE + 8, 66);
		CHECK_EQ(ucow_file_punch(file, PAGE, 0), -EINVAL);
		REQUIRE_EQ(ucow_file_punch(file, 5 * PAGE + 8, 4 * PAGE), 0);
		check_invariants(w.machine);
		CHECK_EQ(file_stat(file).size, NPAGES * PAGE);
		CHECK_EQ(get64(w.cpu, BASE + 5 * PAGE), file_value(5));
		CHECK_EQ(get64(w.cpu, BASE + 5 * PAGE + 3000), 0);
		for (uint64_t i = 6; i < 9; i++) {
			CHECK_EQ(get64(w.cpu, BASE + i * PAGE), 0);
			CHECK_EQ(get64(w.cpu, BASE + i * PAGE + 3000), 0);
		}
		CHECK_EQ(get64(w.cpu, BASE + 9 * PAGE), 0);
		CHECK_EQ(get64(w.cpu, BASE + 9 * PAGE + 3000), 9);
		CHECK_EQ(get64(w.cpu, FAR + 6 * PAGE), file_value(6));
		CHECK_EQ(get64(w.cpu, FAR + 6 * PAGE + 8), 66);
		CHECK_EQ(get64(w.cpu, FAR + 7 * PAGE), 0);
		/* Within one page; and behind the end, where there is nothing to do. */
		REQUIRE_EQ(ucow_file_punch(file, 20 * PAGE + 2992, 16), 0);
		CHECK_EQ(get64(w.cpu, BASE + 20 * PAGE), file_value(20));
		CHECK_EQ(get64(w.cpu, BASE + 20 * PAGE + 3000), 0);
		REQUIRE_EQ(ucow_file_punch(file, 100 * PAGE, PAGE), 0);
		put64(w.cpu, BASE + 7 * PAGE, 70);
		CHECK_EQ(get64(w.cpu, FAR + 7 * PAGE), 70);
		check_invariants(w.machine);
		CHECK_EQ(ucow_file_close(file), 0);
		world_close(&w);
		if (fd >= 0) {
			CHECK_EQ(host_get64(fd, 5 * PAGE), file_value(5));
			CHECK_EQ(host_get64(fd, 5 * PAGE + 3000), 0);
			CHECK_EQ(host_get64(fd, 6 * PAGE), 0);
			CHECK_EQ(host_get64(fd, 7 * PAGE), 70);
			CHECK_EQ(host_get64(fd, 9 * PAGE + 3000), 9);
			CHECK_EQ(host_size(fd), NPAGES * PAGE);
			close(fd);
		}
	}
}

TEST(a_page_that_is_pinned_outlives_its_place_in_the_file)
{
	for (int punch = 0; punch < 2; punch++) {
		struct world w = world_open();
		int fd;
		struct ucow_file *file = open_filled(w.machine, punch, 4, &fd);
		struct ucow_page *read_pin, *write_pin;

		map_file(w.mm, BASE, 4, RW, UCOW_MAP_SHARED, file, 0);
		put64(w.cpu, BASE + 2 * PAGE, 2);
		read_pin = pin_page(w.cpu, BASE + 2 * PAGE, 0);
		write_pin = pin_page(w.cpu, BASE + 3 * PAGE, UCOW_FOLL_WRITE);
		if (punch)
			REQUIRE_EQ(ucow_file_punch(file, 2 * PAGE, 2 * PAGE), 0);
		else
			REQUIRE_EQ(ucow_file_truncate(file, 2 * PAGE), 0);
		check_invariants(w.machine);
		CHECK_EQ(device_read64(read_pin), 2);
		device_write64(write_pin, 33); /* to nowhere */
		if (!punch)
			REQUIRE_EQ(ucow_file_truncate(file, 4 * PAGE), 0);
		CHECK_EQ(get64(w.cpu, BASE + 2 * PAGE), 0);
		CHECK_EQ(get64(w.cpu, BASE + 3 * PAGE), 0);
		put64(w.cpu, BASE + 2 * PAGE, 5);
		CHECK_EQ(device_read64(read_pin), 2);
		ucow_unpin_user_pages(&read_pin, 1);
		ucow_unpin_user_pages_dirty_lock(&write_pin, 1, true);
		check_invariants(w.machine);
		CHECK_EQ(ucow_file_close(file), 0);
		close_fd(fd);
		world_close(&w);
	}
}

/* What has been pinned through a private mapping is anon, and belongs to the pin. */
TEST(a_private_copy_that_is_pinned_lives_on)
{
	struct world w = world_open();
	struct ucow_file *file = open_file(w.machine, -1, 4 * PAGE);
	struct ucow_page *pin;
	uint64_t value;

	map_file(w.mm, BASE, 4, RW, UCOW_MAP_PRIVATE, file, 0);
	pin = pin_page(w.cpu, BASE + 3 * PAGE, UCOW_FOLL_LONGTERM | UCOW_FOLL_WRITE);
	put64(w.cpu, BASE + 3 * PAGE, 3);
	REQUIRE_EQ(ucow_file_truncate(file, PAGE), 0);
	CHECK_EQ(ucow_load_u64(w.cpu, BASE + 3 * PAGE, &value), -ENXIO);
	CHECK_EQ(device_read64(pin), 3);
	ucow_unpin_user_pages(&pin, 1);
	CHECK_EQ(ucow_file_close(file), 0);
	world_close(&w);
}

TEST(children_and_snapshots_lose_what_is_cut_off)
{
	struct world w = world_open();
	int fd;
	struct ucow_file *file = open_filled(w.machine, false, NPAGES, &fd);
	struct ucow_mm *mms[4];
	uint64_t value;

	map_file(w.mm, BASE, NPAGES, RW, UCOW_MAP_SHARED, file, 0);
	map_file(w.mm, FAR, NPAGES, RW, UCOW_MAP_PRIVATE, file, 0);
	map_private(w.mm, 1);
	map_file(w.mm, BASE, 1, RW, UCOW_MAP_SHARED, file, 0);
	for (uint64_t i = 0; i < NPAGES; i += 2)
		put64(w.cpu, FAR + i * PAGE + 8, i);
	for (uint64_t i = 0; i < NPAGES; i++)
		put64(w.cpu, BASE + i * PAGE + 16, i);
	mms[0] = fork_mm(w.mm);
	mms[1] = fork_mm(mms[0]);
	REQUIRE_EQ(ucow_snapshot(w.mm, &mms[2]), 0);
	put64(w.cpu, FAR + 8, 100);
	mms[3] = fork_mm(w.mm);
	REQUIRE_EQ(ucow_file_truncate(file, 4 * PAGE), 0);
	check_invariants(w.machine);
	for (unsigned k = 0; k < 4; k++) {
		struct ucow_cpu *cpu = cpu_on(mms[k]);

		CHECK_EQ(get64(cpu, FAR + 8), k == 3 ? 100 : 0);
		CHECK_EQ(get64(cpu, FAR + 2 * PAGE + 8), 2);
		CHECK_EQ(get64(cpu, BASE + 3 * PAGE + 16), 3);
		for (uint64_t i = 4; i < NPAGES; i++) {
			CHECK_EQ(ucow_load_u64(cpu, FAR + i * PAGE, &value), -ENXIO);
			CHECK_EQ(ucow_load_u64(cpu, BASE + i * PAGE, &value), -ENXIO);
		}
		exit_mm(cpu, mms[k]);
	}
	CHECK_EQ(ucow_file_close(file), 0);
	close(fd);
	world_close(&w);
}

/* A fork counts what it shares; what is cut off afterwards is taken from all. */
TEST(every_size_and_every_number_of_forks)
{
	struct world w = world_open();
	struct ucow_file *file = open_file(w.machine, -1, NPAGES * PAGE);
	struct ucow_mm *mms[6];
	uint64_t state = tap_seed(), value;

	map_file(w.mm, BASE, NPAGES, RW, UCOW_MAP_PRIVATE, file, 0);
	for (unsigned round = 0; round < 60; round++) {
		uint64_t npages = draw(&state) % NPAGES;
		unsigned n = (unsigned)(draw(&state) % 6);

		REQUIRE_EQ(ucow_file_truncate(file, NPAGES * PAGE), 0);
		for (uint64_t i = 0; i < NPAGES; i += 1 + draw(&state) % 4)
			put64(w.cpu, BASE + i * PAGE, round);
		for (unsigned k = 0; k < n; k++)
			mms[k] = fork_mm(k ? mms[draw(&state) % k] : w.mm);
		REQUIRE_EQ(draw(&state) % 2 ? ucow_file_truncate(file, npages * PAGE)
					    : ucow_file_punch(file, npages * PAGE, PAGE + draw(&state) % 9 * PAGE),
			   0);
		if (round % 10 == 0)
			check_invariants(w.machine);
		CHECK_EQ(ucow_load_u64(w.cpu, BASE + (NPAGES - 1) * PAGE, &value),
			 file_stat(file).size == NPAGES * PAGE ? 0 : -ENXIO);
		for (unsigned k = 0; k < n; k++)
			REQUIRE_EQ(ucow_mm_destroy(mms[k]), 0);
	}
	CHECK_EQ(ucow_file_close(file), 0);
	world_close(&w);
}

/* ---- against a model ---- */

enum { SPACES = 6, STEPS = 4000 };

/* What every page of the file has at its start, and every space's copy of it. */
struct model {
	struct world w;
	struct ucow_file *file;
	int fd;
	uint64_t state, next, size; /* pages */
	uint64_t of_file[NPAGES];
	struct {
		struct ucow_mm *mm; /* NULL: none */
		struct ucow_cpu *cpu;
		uint64_t copy[NPAGES];
		bool has_copy[NPAGES];
	} spaces[SPACES];
};

static unsigned any_space(struct model *m)
{
	unsigned k;

	do
		k = (unsigned)(draw(&m->state) % SPACES);
	while (!m->spaces[k].mm);
	return k;
}

static void model_load(struct model *m, unsigned k, uint64_t i)
{
	uint64_t shared = 0, private = 0;
	int expected = i < m->size ? 0 : -ENXIO;

	REQUIRE_EQ(ucow_load_u64(m->spaces[k].cpu, BASE + i * PAGE, &shared), expected);
	REQUIRE_EQ(ucow_load_u64(m->spaces[k].cpu, FAR + i * PAGE, &private), expected);
	if (expected)
		return;
	REQUIRE_EQ(shared, m->of_file[i]);
	REQUIRE_EQ(private, m->spaces[k].has_copy[i] ? m->spaces[k].copy[i] : m->of_file[i]);
}

static void model_store(struct model *m, unsigned k, uint64_t i, bool is_private)
{
	int error = ucow_store_u64(m->spaces[k].cpu, (is_private ? FAR : BASE) + i * PAGE, ++m->next);

	REQUIRE_EQ(error, i < m->size ? 0 : -ENXIO);
	if (!error && is_private) {
		m->spaces[k].copy[i] = m->next;
		m->spaces[k].has_copy[i] = true;
	} else if (!error) {
		m->of_file[i] = m->next;
	}
}

static void model_fork(struct model *m, unsigned k)
{
	for (unsigned child = 1; child < SPACES; child++) {
		if (m->spaces[child].mm)
			continue;
		m->spaces[child] = m->spaces[k];
		m->spaces[child].mm = fork_mm(m->spaces[k].mm);
		m->spaces[child].cpu = cpu_on(m->spaces[child].mm);
		return;
	}
}

static void model_exit(struct model *m, unsigned k)
{
	if (!k)
		return;
	exit_mm(m->spaces[k].cpu, m->spaces[k].mm);
	m->spaces[k].mm = NULL;
}

static void model_resize(struct model *m, uint64_t npages)
{
	REQUIRE_EQ(ucow_file_truncate(m->file, npages * PAGE), 0);
	for (uint64_t i = npages; i < NPAGES; i++) {
		m->of_file[i] = 0;
		for (unsigned k = 0; k < SPACES; k++)
			m->spaces[k].has_copy[i] = false;
	}
	m->size = npages;
}

static void model_punch(struct model *m, uint64_t first, uint64_t n)
{
	REQUIRE_EQ(ucow_file_punch(m->file, first * PAGE, n * PAGE), 0);
	for (uint64_t i = first; i < first + n && i < m->size; i++)
		m->of_file[i] = 0;
}

static void model_write(struct model *m, uint64_t i)
{
	if (i >= m->size)
		return;
	file_put64(m->file, i * PAGE, ++m->next);
	m->of_file[i] = m->next;
}

static void model_step(struct model *m)
{
	uint64_t i = draw(&m->state) % NPAGES;
	unsigned k = any_space(m);

	switch (draw(&m->state) % 16) {
	case 0:
		model_fork(m, k);
		break;
	case 1:
		model_exit(m, k);
		break;
	case 2:
		if (draw(&m->state) % 8 == 0)
			model_resize(m, draw(&m->state) % (NPAGES + 1));
		else
			model_resize(m, NPAGES);
		break;
	case 3:
		model_punch(m, i, 1 + draw(&m->state) % 5);
		break;
	case 4:
		REQUIRE_EQ(ucow_file_sync(m->file), 0);
		break;
	case 5:
		/* Several times, for what was used has a second chance. */
		for (unsigned n = (unsigned)(draw(&m->state) % 6); n; n--)
			REQUIRE(ucow_reclaim(m->w.machine, NULL, NPAGES) >= 0);
		break;
	case 6:
		model_write(m, i);
		break;
	case 7:
		REQUIRE_EQ(ucow_mprotect(m->spaces[k].mm, BASE + i * PAGE, PAGE, UCOW_PROT_READ), 0);
		REQUIRE_EQ(ucow_mprotect(m->spaces[k].mm, BASE + i * PAGE, PAGE, RW), 0);
		break;
	case 8:
		REQUIRE_EQ(ucow_madvise(m->spaces[k].mm, BASE + i * PAGE, PAGE, UCOW_MADV_DONTNEED), 0);
		break;
	case 9:
		REQUIRE_EQ(ucow_madvise(m->spaces[k].mm, BASE, NPAGES * PAGE, UCOW_MADV_PAGEOUT), 0);
		break;
	case 10:
	case 11:
		model_store(m, k, i, true);
		break;
	case 12:
	case 13:
		model_store(m, k, i, false);
		break;
	default:
		for (k = 0; k < SPACES; k++)
			for (i = 0; i < NPAGES && m->spaces[k].mm; i++)
				model_load(m, k, i);
		break;
	}
}

/* Forks, holes, truncation, reclaim and writeback in any order: everybody reads what the model says. */
TEST(random_steps_against_a_model)
{
	struct model m = {.w = world_open(), .state = tap_seed(), .size = NPAGES};

	m.file = open_filled(m.w.machine, false, NPAGES, &m.fd);
	map_file(m.w.mm, BASE, NPAGES, RW, UCOW_MAP_SHARED, m.file, 0);
	map_file(m.w.mm, FAR, NPAGES, RW, UCOW_MAP_PRIVATE, m.file, 0);
	for (uint64_t i = 0; i < NPAGES; i++)
		m.of_file[i] = file_value(i);
	m.spaces[0].mm = m.w.mm;
	m.spaces[0].cpu = m.w.cpu;
	for (unsigned step = 0; step < STEPS; step++) {
		model_step(&m);
		if (step % 500 == 0)
			check_invariants(m.w.machine);
	}
	for (unsigned k = 1; k < SPACES; k++)
		if (m.spaces[k].mm)
			model_exit(&m, k);
	check_invariants(m.w.machine);
	model_resize(&m, m.size);
	REQUIRE_EQ(ucow_file_sync(m.file), 0);
	for (uint64_t i = 0; i < m.size; i++)
		CHECK_EQ(host_get64(m.fd, i * PAGE), m.of_file[i]);
	CHECK_EQ(ucow_file_close(m.file), 0);
	world_close(&m.w);
	close(m.fd);
}

/* ---- at the same time ---- */

struct race {
	struct ucow_machine *machine;
	struct ucow_file *file;
	_Atomic bool stop;
	_Atomic uint64_t refused, done;
};

static void count_outcome(struct race *race, int rc)
{
	REQUIRE(rc == 0 || rc == -ENXIO);
	atomic_fetch_add(rc ? &race->refused : &race->done, 1);
}

/* Loads, stores, pins, forks and writeback, in a space of its own with both kinds of mappings. */
static void *fault_all_over(void *arg)
{
	struct race *race = arg;
	struct ucow_mm *mm = NULL, *child;
	struct ucow_cpu *cpu;
	uint64_t state = tap_seed() + (uintptr_t)&mm, value;

	REQUIRE_EQ(ucow_mm_create(race->machine, &mm), 0);
	cpu = cpu_on(mm);
	map_file(mm, BASE, NPAGES, RW, UCOW_MAP_SHARED, race->file, 0);
	map_file(mm, FAR, NPAGES, RW, UCOW_MAP_PRIVATE, race->file, 0);
	while (!atomic_load(&race->stop)) {
		uint64_t va = (draw(&state) % 2 ? BASE : FAR) + draw(&state) % NPAGES * PAGE;
		struct ucow_page *page;
		long got;

		switch (draw(&state) % 10) {
		case 0:
			REQUIRE_EQ(ucow_fork(mm, &child), 0);
			REQUIRE_EQ(ucow_mm_destroy(child), 0);
			break;
		case 1:
			got = ucow_pin_user_pages_fast(cpu, va, 1, UCOW_FOLL_WRITE, &page);
			REQUIRE(got == 1 || got == -EFAULT);
			if (got == 1)
				ucow_unpin_user_pages_dirty_lock(&page, 1, true);
			break;
		case 2:
			REQUIRE_EQ(ucow_madvise(mm, va, PAGE, UCOW_MADV_DONTNEED), 0);
			break;
		case 8:
			REQUIRE(ucow_file_writeback(race->file, 0, 0, UCOW_WRITEBACK_WAIT) >= 0);
			break;
		case 9:
			REQUIRE_EQ(ucow_mprotect(mm, va, PAGE, UCOW_PROT_READ), 0);
			REQUIRE_EQ(ucow_mprotect(mm, va, PAGE, RW), 0);
			break;
		case 3:
		case 4:
			count_outcome(race, ucow_store_u64(cpu, va, draw(&state)));
			break;
		default:
			count_outcome(race, ucow_load_u64(cpu, va, &value));
		}
	}
	exit_mm(cpu, mm);
	return NULL;
}

static void race_with(struct race *race, unsigned rounds)
{
	pthread_t threads[2];
	uint64_t state = tap_seed();

	for (unsigned i = 0; i < 2; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, fault_all_over, race), 0);
	for (unsigned i = 0; i < rounds || !race->done || !race->refused; i++) {
		uint64_t nbytes = draw(&state) % (NPAGES * PAGE), value = i;

		REQUIRE_EQ(ucow_file_truncate(race->file, nbytes), 0);
		REQUIRE_EQ(ucow_file_truncate(race->file, NPAGES * PAGE), 0);
		/* What was cut off is zeros, unless somebody has stored to it since: then it is one of his values. */
		REQUIRE_EQ(ucow_file_punch(race->file, draw(&state) % (NPAGES * PAGE), 1 + draw(&state) % (9 * PAGE)),
			   0);
		REQUIRE_EQ(ucow_file_write(race->file, &value, sizeof(value), draw(&state) % NPAGES * PAGE + 1024),
			   sizeof(value));
	}
	atomic_store(&race->stop, true);
	for (unsigned i = 0; i < 2; i++)
		REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
}

TEST(faults_against_truncation)
{
	for (int in_memory = 0; in_memory < 2; in_memory++) {
		struct world w = world_open();
		int fd;
		struct ucow_file *file = open_filled(w.machine, in_memory, NPAGES, &fd);
		struct race race = {.machine = w.machine, .file = file};

		race_with(&race, 150);
		ucow_machine_synchronize(w.machine);
		check_invariants(w.machine);
		REQUIRE_EQ(ucow_file_truncate(file, 0), 0);
		CHECK_EQ(file_stat(file).cached, 0);
		CHECK_EQ(ucow_file_close(file), 0);
		close_fd(fd);
		world_close(&w);
	}
}

/* What was stored to the file is there as long as the hole is not. */
TEST(a_hole_that_the_host_refuses_changes_nothing)
{
	struct world w = world_open();
	int fd;
	struct ucow_file *file = open_filled(w.machine, false, 4, &fd);

	map_file(w.mm, BASE, 4, RW, UCOW_MAP_SHARED, file, 0);
	for (uint64_t i = 0; i < 4; i++)
		put64(w.cpu, BASE + i * PAGE, 7000 + i);
	ucow_machine_inject(w.machine, UCOW_INJECT_WRITE, 1);
	CHECK_EQ(ucow_file_punch(file, 8, 3 * PAGE), -EIO);
	CHECK(!ucow_machine_inject(w.machine, 0, 0));
	for (uint64_t i = 0; i < 4; i++) {
		CHECK_EQ(get64(w.cpu, BASE + i * PAGE), 7000 + i);
		CHECK_EQ(file_get64(file, i * PAGE), 7000 + i);
	}
	put64(w.cpu, BASE + PAGE, 8001); /* to the file, not to a page that has left it */
	CHECK_EQ(file_get64(file, PAGE), 8001);
	check_invariants(w.machine);
	CHECK_EQ(ucow_file_close(file), 0);
	world_close(&w);
	for (uint64_t i = 0; i < 4; i++)
		CHECK_EQ(host_get64(fd, i * PAGE), i == 1 ? 8001 : 7000 + i);
	close_fd(fd);
}

/* What fails midway leaves no page mapped that is not in the file any more: stores to it would be lost. */
TEST(a_hole_that_memory_lacks_for_leaves_no_page_behind)
{
	struct world w = world_open();
	int fd;
	struct ucow_file *file = open_filled(w.machine, false, 4, &fd);
	struct ucow_mm *child;

	map_file(w.mm, BASE, 4, RW, UCOW_MAP_SHARED, file, 0);
	for (uint64_t nth = 1, value = 1;; nth++, value++) {
		int error;

		for (uint64_t i = 0; i < 4; i++)
			put64(w.cpu, BASE + i * PAGE, value);
		child = fork_mm(w.mm);
		ucow_machine_inject(w.machine, UCOW_INJECT_ALL, nth);
		error = ucow_file_punch(file, PAGE, 2 * PAGE);
		if (ucow_machine_inject(w.machine, 0, 0)) {
			CHECK_EQ(error, 0);
			ucow_mm_destroy(child);
			break;
		}
		CHECK(error == 0 || error == -ENOMEM);
		put64(w.cpu, BASE + PAGE, 5);
		CHECK_EQ(file_get64(file, PAGE), 5);
		check_invariants(w.machine);
		ucow_mm_destroy(child);
	}
	CHECK_EQ(ucow_file_close(file), 0);
	world_close(&w);
	close_fd(fd);
}

TAP_MAIN()
