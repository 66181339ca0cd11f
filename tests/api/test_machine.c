/* SPDX-License-Identifier: MIT */
/* Machines: options, names, limits, destruction, and several of them in one process. */
#include "fixture.h"

static int create_with(const struct ucow_machine_options *options)
{
	struct ucow_machine *machine = NULL;
	int rc = ucow_machine_create(options, &machine);

	if (!rc)
		REQUIRE_EQ(ucow_machine_destroy(machine), 0);
	else
		REQUIRE(machine == NULL); /* results are written on success only */
	return rc;
}

/* Would catch a library that reads options beyond what the caller's header knew. */
TEST(options_of_unknown_size_are_refused)
{
	struct ucow_machine_options options = default_options();

	options.size = 0;
	CHECK_EQ(create_with(&options), -EINVAL);
	options.size = sizeof(options) + 8;
	CHECK_EQ(create_with(&options), -EINVAL);
	options.size = 1;
	CHECK_EQ(create_with(&options), -EINVAL);
}

TEST(unknown_policy_mode_and_flag_are_refused)
{
	struct ucow_machine_options options = default_options();

	options.policy = UCOW_POLICY_COUNT;
	CHECK_EQ(create_with(&options), -EINVAL);
	options = default_options();
	options.fork_mode = UCOW_FORK_MODE_COUNT;
	CHECK_EQ(create_with(&options), -EINVAL);
	options = default_options();
	options.flags = 1u << 31;
	CHECK_EQ(create_with(&options), -EINVAL);
}

/* All policies but exclusive are defined in eager mode only. */
TEST(historical_policies_run_in_eager_mode_only)
{
	for (int policy = 1; policy < UCOW_POLICY_COUNT; policy++) {
		struct ucow_machine_options options = default_options();

		options.policy = policy;
		options.fork_mode = UCOW_FORK_EAGER;
		CHECK_EQ(create_with(&options), 0);
		options.fork_mode = UCOW_FORK_DEFAULT;
		CHECK_EQ(create_with(&options), 0);
		options.fork_mode = UCOW_FORK_TABLES;
		CHECK_EQ(create_with(&options), -EOPNOTSUPP);
		options.fork_mode = UCOW_FORK_LAZY;
		CHECK_EQ(create_with(&options), -EOPNOTSUPP);
	}
}

TEST(zero_options_mean_defaults)
{
	struct ucow_machine_options options = {.size = sizeof(options)};
	struct ucow_machine_stat stat;
	struct ucow_machine *machine;

	CHECK_EQ(ucow_machine_create(&options, &machine), 0);
	ucow_machine_stat(machine, &stat);
	CHECK_EQ(stat.ram_pages, 64 << 20 >> 12);
	CHECK_EQ(stat.used_pages, 0);
	CHECK_EQ(stat.spaces, 0);
	CHECK_EQ(ucow_machine_destroy(machine), 0);
}

TEST(ram_is_rounded_up_to_whole_blocks)
{
	struct ucow_machine_options options = default_options();
	struct ucow_machine_stat stat;
	struct ucow_machine *machine;

	options.ram_bytes = 1;
	CHECK_EQ(ucow_machine_create(&options, &machine), 0);
	ucow_machine_stat(machine, &stat);
	CHECK_EQ(stat.ram_pages, 512);
	CHECK_EQ(ucow_machine_destroy(machine), 0);
}

/* A machine that the host cannot hold is an error, not a crash. */
TEST(absurd_ram_is_refused)
{
	struct ucow_machine_options options = default_options();

	options.ram_bytes = (uint64_t)1 << 62;
	CHECK_EQ(create_with(&options), -ENOMEM);
	options.ram_bytes = UINT64_MAX;
	CHECK_EQ(create_with(&options), -ENOMEM);
}

TEST(policy_names_go_both_ways)
{
	static const char *const names[UCOW_POLICY_COUNT] = {
		[UCOW_POLICY_EXCLUSIVE] = "exclusive",       [UCOW_POLICY_MAPCOUNT] = "mapcount",
		[UCOW_POLICY_FORCE_COW] = "force-cow",       [UCOW_POLICY_REFCOUNT] = "refcount",
		[UCOW_POLICY_REFCOUNT_PIN] = "refcount-pin", [UCOW_POLICY_PIN_BREAKS_COW] = "pin-breaks-cow",
		[UCOW_POLICY_REUSE_PINNED] = "reuse-pinned", [UCOW_POLICY_DONTCOPY_PINNED] = "dontcopy-pinned",
	};

	for (int i = 0; i < UCOW_POLICY_COUNT; i++) {
		enum ucow_policy policy = UCOW_POLICY_COUNT;

		CHECK_STR_EQ(ucow_policy_name(i), names[i]);
		CHECK_EQ(ucow_policy_parse(names[i], &policy), 0);
		CHECK_EQ(policy, i);
	}
	CHECK(ucow_policy_name(UCOW_POLICY_COUNT) == NULL);
}

/* Would catch prefix matching and a result written in spite of an error. */
TEST(unknown_policy_names_are_refused)
{
	static const char *const wrong[] = {"", "exclusiv", "exclusive ", "Exclusive", "refcount-pin2", "all"};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		enum ucow_policy policy = UCOW_POLICY_REUSE_PINNED;

		CHECK_EQ(ucow_policy_parse(wrong[i], &policy), -EINVAL);
		CHECK_EQ(policy, UCOW_POLICY_REUSE_PINNED);
	}
}

TEST(fork_mode_names_go_both_ways)
{
	static const char *const names[UCOW_FORK_MODE_COUNT] = {
		[UCOW_FORK_DEFAULT] = "default",
		[UCOW_FORK_EAGER] = "eager",
		[UCOW_FORK_TABLES] = "tables",
		[UCOW_FORK_LAZY] = "lazy",
	};
	enum ucow_fork_mode mode = UCOW_FORK_MODE_COUNT;

	for (int i = 0; i < UCOW_FORK_MODE_COUNT; i++)
		CHECK_STR_EQ(ucow_fork_mode_name(i), names[i]);
	for (int i = UCOW_FORK_EAGER; i < UCOW_FORK_MODE_COUNT; i++) {
		CHECK_EQ(ucow_fork_mode_parse(names[i], &mode), 0);
		CHECK_EQ(mode, i);
	}
	CHECK_EQ(ucow_fork_mode_parse("eagerly", &mode), -EINVAL);
	CHECK(ucow_fork_mode_name(UCOW_FORK_MODE_COUNT) == NULL);
}

/* Would catch two counters under one name. */
TEST(every_counter_has_a_name_of_its_own)
{
	for (int i = 0; i < UCOW_COUNTER_COUNT; i++) {
		CHECK(ucow_counter_name(i) && *ucow_counter_name(i));
		for (int j = 0; j < i; j++)
			CHECK(strcmp(ucow_counter_name(i), ucow_counter_name(j)) != 0);
	}
	CHECK(ucow_counter_name(UCOW_COUNTER_COUNT) == NULL);
}

TEST(version_is_the_headers_version)
{
	char version[40];

	snprintf(version, sizeof(version), "%d.%d.%d", UCOW_VERSION_MAJOR, UCOW_VERSION_MINOR, UCOW_VERSION_PATCH);
	CHECK_STR_EQ(ucow_version(), version);
}

/* Would catch a machine that dies under a space, a cpu, a get or a pin. */
TEST(machine_in_use_is_not_destroyed)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	CHECK_EQ(ucow_machine_destroy(w.machine), -EBUSY);
	page = pin_page(w.cpu, va, UCOW_FOLL_WRITE);
	ucow_cpu_attach(w.cpu, NULL);
	CHECK_EQ(ucow_mm_destroy(w.mm), 0);
	w.mm = NULL;
	CHECK_EQ(ucow_machine_destroy(w.machine), -EBUSY); /* the cpu and the pin */
	ucow_cpu_destroy(w.cpu);
	w.cpu = NULL;
	CHECK_EQ(ucow_machine_destroy(w.machine), -EBUSY); /* the pin */
	CHECK_EQ(device_read64(page), 1);
	ucow_unpin_user_pages(&page, 1);
	world_close(&w);
}

TEST(get_alone_keeps_the_machine)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page;

	put64(w.cpu, va, 7);
	page = get_page(w.cpu, va, 0);
	exit_mm(w.cpu, w.mm);
	w.cpu = NULL;
	w.mm = NULL;
	CHECK_EQ(ucow_machine_destroy(w.machine), -EBUSY);
	CHECK_EQ(device_read64(page), 7);
	ucow_put_pages(&page, 1);
	world_close(&w);
}

TEST(cpu_alone_keeps_the_machine)
{
	struct world w = world_open();

	ucow_cpu_attach(w.cpu, NULL);
	CHECK_EQ(ucow_mm_destroy(w.mm), 0);
	w.mm = NULL;
	CHECK_EQ(ucow_machine_destroy(w.machine), -EBUSY);
	world_close(&w);
}

/* Out of memory is -ENOMEM, and what was there stays readable and the machine works on once memory is freed. */
TEST(exhaustion_is_survivable)
{
	struct ucow_machine_options options = default_options();
	struct world w;
	uint64_t va, value = 1;
	unsigned filled = 0;

	options.ram_bytes = (uint64_t)2 << 20;
	w = world_open_with(&options);
	va = map_private(w.mm, 1024);
	while (filled < 1024 && !ucow_write(w.cpu, va + filled * PAGE, &value, 8, NULL))
		filled++;
	CHECK(filled > 256 && filled <= 512);
	CHECK_EQ(ucow_write(w.cpu, va + filled * PAGE, &value, 8, NULL), -ENOMEM);
	CHECK(counted(&w, UCOW_COUNTER_FAULT_NOMEM) >= 1);
	for (unsigned i = 0; i < filled; i++)
		CHECK_EQ(get64(w.cpu, va + i * PAGE), 1);
	check_invariants(w.machine);
	CHECK_EQ(ucow_munmap(w.mm, va, 16 * PAGE), 0);
	for (unsigned i = 0; i < 8; i++)
		put64(w.cpu, va + (filled + i) * PAGE, 2);
	world_close(&w);
}

/* Would catch freed frames that show what their last owner wrote. */
TEST(recycled_memory_reads_as_zeros)
{
	struct world w = world_open();

	for (int round = 0; round < 3; round++) {
		uint64_t va = map_private(w.mm, 64);

		for (unsigned i = 0; i < 64; i++) {
			uint8_t bytes[4096];

			CHECK_EQ(ucow_read(w.cpu, va + i * PAGE, bytes, sizeof(bytes), NULL), 0);
			for (size_t k = 0; k < sizeof(bytes); k++)
				CHECK_EQ(bytes[k], 0);
			put64(w.cpu, va + i * PAGE + 8 * i, UINT64_MAX); /* zero-fill of a recycled frame */
			CHECK_EQ(ucow_read(w.cpu, va + i * PAGE, bytes, sizeof(bytes), NULL), 0);
			for (size_t k = 0; k < sizeof(bytes); k++)
				CHECK_EQ(bytes[k], k / 8 == i ? 0xff : 0);
			memset(bytes, 0xa5, sizeof(bytes));
			CHECK_EQ(ucow_write(w.cpu, va + i * PAGE, bytes, sizeof(bytes), NULL), 0);
		}
		CHECK_EQ(ucow_munmap(w.mm, va, 64 * PAGE), 0);
	}
	world_close(&w);
}

TEST(stat_counts_what_is_held)
{
	struct world w = world_open();
	struct ucow_machine_stat stat;
	struct ucow_page *pages[3];
	uint64_t va = map_private(w.mm, 8);

	for (unsigned i = 0; i < 8; i++)
		put64(w.cpu, va + i * PAGE, i);
	CHECK_EQ(ucow_pin_user_pages(w.cpu, va, 2, UCOW_FOLL_WRITE, pages), 2);
	CHECK_EQ(ucow_get_user_pages(w.cpu, va, 1, 0, pages + 2), 1);
	ucow_machine_stat(w.machine, &stat);
	CHECK_EQ(stat.used_pages, 8);
	CHECK_EQ(stat.spaces, 1);
	CHECK_EQ(stat.pins, 2);
	CHECK_EQ(stat.gets, 1);
	CHECK(stat.table_bytes > 0 && stat.committed_pages >= 8 && stat.ram_pages == 8192);
	ucow_unpin_user_pages(pages, 2);
	ucow_put_pages(pages + 2, 1);
	world_close(&w);
}

/* Would catch state of one machine kept in globals. */
TEST(two_machines_do_not_know_each_other)
{
	struct world a = world_open(), b = world_open_policy(UCOW_POLICY_MAPCOUNT);
	uint64_t va = map_private(a.mm, 4);
	struct ucow_mm *child;

	CHECK_EQ(map_private(b.mm, 4), va);
	put64(a.cpu, va, 0xa);
	put64(b.cpu, va, 0xb);
	CHECK_EQ(get64(a.cpu, va), 0xa);
	CHECK_EQ(get64(b.cpu, va), 0xb);
	child = fork_mm(a.mm);
	CHECK_EQ(counted(&a, UCOW_COUNTER_FORKS), 1);
	CHECK_EQ(counted(&b, UCOW_COUNTER_FORKS), 0);
	CHECK_EQ(counted(&b, UCOW_COUNTER_ZERO_FILL), 1);
	CHECK(ucow_mm_machine(child) == a.machine && ucow_mm_machine(b.mm) == b.machine);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&a);
	CHECK_EQ(get64(b.cpu, va), 0xb);
	world_close(&b);
}

/* An armed injection that never fired is reported, and disarming works. */
TEST(injection_can_be_taken_back)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);

	CHECK(!ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 1000000));
	put64(w.cpu, va, 1);
	CHECK(ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 0));
	CHECK(!ucow_machine_inject(w.machine, UCOW_INJECT_FRAME, 1));
	CHECK_EQ(ucow_write(w.cpu, va + PAGE, &va, 8, NULL), -ENOMEM);
	CHECK(!ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 0)); /* it fired */
	put64(w.cpu, va + PAGE, 1);
	world_close(&w);
}

/* Would catch an injection that lets through the wrong kind. */
TEST(injection_hits_only_its_kinds)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 4);

	put64(w.cpu, va, 1);
	ucow_machine_inject(w.machine, UCOW_INJECT_TABLE | UCOW_INJECT_OTHER, 1);
	put64(w.cpu, va + PAGE, 1); /* the tables are there: a frame is all that it takes */
	CHECK(ucow_machine_inject(w.machine, UCOW_INJECT_ALL, 0));
	world_close(&w);
}

/* Whether a child of the host process can read the byte: it must crash. */
static bool readable_after_host_fork(const volatile uint8_t *byte)
{
	enum { IT_WAS_READ = 40 };
	int status = 0;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		REQUIRE(freopen("/dev/null", "w", stderr) != NULL); /* a sanitizer's report of the crash */
		_exit(*byte == 1 ? IT_WAS_READ : IT_WAS_READ + 1);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && (WEXITSTATUS(status) == IT_WAS_READ || WEXITSTATUS(status) == IT_WAS_READ + 1);
}

/* A copy-on-write copy of the RAM in a child of the host process would break pins of real devices. */
TEST(ram_is_not_inherited_by_a_fork_of_the_host)
{
	struct world w = world_open();
	uint64_t va = map_private(w.mm, 1);
	struct ucow_page *page;

	put64(w.cpu, va, 1);
	page = pin_page(w.cpu, va, UCOW_FOLL_WRITE);
	CHECK(!readable_after_host_fork(ucow_page_address(page)));
	ucow_unpin_user_pages(&page, 1);
	world_close(&w);
}

TAP_MAIN()
