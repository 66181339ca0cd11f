/* SPDX-License-Identifier: MIT */
/*
 * Machine-wide switches, with files in place of the machine's: set while held, restored whatever happens to the program
 * or to the guardian.
 */
#include "litmus/switches.h"

#include "tap.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

/* ---- files that stand for switches ---- */

static const char *new_switch(const char *value)
{
	static char paths[8][64];
	static int n;
	char *path = paths[n++];
	FILE *file;
	int fd;

	snprintf(path, 64, "%s/switch-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	fd = mkstemp(path);
	REQUIRE(fd >= 0);
	file = fdopen(fd, "w");
	REQUIRE(file);
	fprintf(file, "%s\n", value);
	fclose(file);
	return path;
}

static void put(const char *path, const char *value)
{
	FILE *file = fopen(path, "w");

	REQUIRE(file);
	fprintf(file, "%s\n", value);
	fclose(file);
}

static bool reads(const char *path, const char *value)
{
	char line[64] = "";
	FILE *file = fopen(path, "r");

	REQUIRE(file);
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0';
	fclose(file);
	line[strcspn(line, "\n")] = '\0';
	return !strcmp(line, value);
}

/* What another process does comes when it comes; the harness's alarm bounds it. */
static void await(const char *path, const char *value)
{
	const struct timespec millisecond = {.tv_nsec = 1000000};

	while (!reads(path, value))
		nanosleep(&millisecond, NULL);
}

/* ---- a program of its own that holds a switch until it is killed ---- */

static pid_t start_holder(const char *path, pid_t *guardian)
{
	struct switches switches = {0};
	int line[2];
	pid_t pid;

	REQUIRE(!pipe(line));
	pid = fork();
	if (pid == 0) {
		switches_add(&switches, "one", path, "0");
		if (switches_hold(&switches) || write(line[1], &switches.guardian, sizeof(pid_t)) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	REQUIRE_EQ(read(line[0], guardian, sizeof(*guardian)), sizeof(*guardian));
	close(line[0]);
	close(line[1]);
	return pid;
}

/* ---- tests ---- */

TEST(set_while_held_and_restored_after)
{
	const char *one = new_switch("1"), *two = new_switch("some text");
	struct switches switches = {0};

	CHECK(switches_add(&switches, "one", one, "0"));
	CHECK(switches_add(&switches, "two", two, "other"));
	CHECK(reads(one, "1") && reads(two, "some text"));
	CHECK_EQ(switches_hold(&switches), 0);
	CHECK(reads(one, "0") && reads(two, "other"));
	CHECK_EQ(switches_release(&switches), 0);
	CHECK(reads(one, "1") && reads(two, "some text"));
	CHECK_EQ(switches_release(&switches), 0);
	unlink(one);
	unlink(two);
}

TEST(no_guardian_where_nothing_is_to_be_set)
{
	const char *one = new_switch("0");
	struct switches switches = {0};

	CHECK(!switches_add(&switches, "one", one, "0"));
	CHECK(!switches_add(&switches, "none", "/proc/sys/there/is/none", "0"));
	CHECK_EQ(switches_hold(&switches), 0);
	CHECK_EQ(switches.guardian, 0);
	CHECK_EQ(switches_release(&switches), 0);
	CHECK(reads(one, "0"));
	unlink(one);
}

TEST(what_may_not_be_written_is_left_alone)
{
	struct switches switches = {0};
	const char *one;

	if (!geteuid())
		SKIP("root may write everything");
	one = new_switch("1");
	chmod(one, 0444);
	CHECK(!switches_add(&switches, "one", one, "0"));
	unlink(one);
}

TEST(one_that_cannot_be_set_undoes_the_rest)
{
	const char *one = new_switch("1");
	struct switches switches = {0};

	CHECK(switches_add(&switches, "one", one, "0"));
	CHECK(switches_add(&switches, "full", "/dev/full", "0"));
	CHECK_EQ(switches_hold(&switches), -ENOSPC);
	CHECK(reads(one, "1"));
	CHECK_EQ(switches.guardian, 0);
	unlink(one);
}

TEST(what_somebody_else_has_set_meanwhile_stays)
{
	const char *one = new_switch("1");
	struct switches switches = {0};

	switches_add(&switches, "one", one, "0");
	CHECK_EQ(switches_hold(&switches), 0);
	put(one, "2");
	CHECK_EQ(switches_release(&switches), 0);
	CHECK(reads(one, "2"));
	unlink(one);
}

TEST(what_its_holder_flips_is_restored_too)
{
	const char *one = new_switch("1"), *same = new_switch("0");
	struct switches switches = {0};

	CHECK(switches_add_flipped(&switches, "one", one, "0", "2"));
	CHECK(switches_add_flipped(&switches, "same", same, "0", "1"));
	CHECK(!switches_add(&switches, "one", one, "7"));
	CHECK_EQ(switches_hold(&switches), 0);
	CHECK(reads(one, "0"));
	put(one, "2");
	put(same, "1");
	CHECK_EQ(switches_release(&switches), 0);
	CHECK(reads(one, "1") && reads(same, "0"));
	unlink(one);
	unlink(same);
}

static int remove_file(const void *path)
{
	return unlink(path) && errno != ENOENT ? -errno : 0;
}

TEST(what_else_is_to_be_undone_is_undone_by_whoever_is_left)
{
	for (unsigned killed = 0; killed < 2; killed++) {
		const char *file = new_switch("here");
		struct switches switches = {0};

		switches_undo_with(&switches, remove_file, file);
		CHECK_EQ(switches_hold(&switches), 0);
		CHECK(switches.guardian && reads(file, "here"));
		if (killed)
			kill(switches.guardian, SIGKILL);
		CHECK_EQ(switches_release(&switches), 0);
		CHECK(access(file, F_OK));
	}
}

TEST(undone_though_the_program_was_killed)
{
	const struct timespec millisecond = {.tv_nsec = 1000000};
	const char *file = new_switch("here");
	struct switches switches = {0};
	pid_t pid = fork();

	if (pid == 0) {
		switches_undo_with(&switches, remove_file, file);
		if (switches_hold(&switches))
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	waitpid(pid, NULL, 0);
	while (!access(file, F_OK))
		nanosleep(&millisecond, NULL);
}

TEST(restored_though_the_guardian_was_killed)
{
	const char *one = new_switch("1");
	struct switches switches = {0};

	switches_add(&switches, "one", one, "0");
	CHECK_EQ(switches_hold(&switches), 0);
	kill(switches.guardian, SIGKILL);
	CHECK_EQ(switches_release(&switches), 0);
	CHECK(reads(one, "1"));
	unlink(one);
}

TEST(restored_though_the_program_was_killed)
{
	const char *one = new_switch("1");
	pid_t guardian, pid = start_holder(one, &guardian);

	CHECK(reads(one, "0"));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	await(one, "1");
	unlink(one);
}

TEST(the_guardian_outlives_what_a_terminal_or_a_service_manager_sends_to_all)
{
	static const int deadly[] = {SIGINT, SIGHUP, SIGTERM, SIGQUIT, SIGPIPE};
	const char *one = new_switch("1");
	pid_t guardian, pid = start_holder(one, &guardian);

	for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++)
		kill(guardian, deadly[i]);
	CHECK(reads(one, "0"));
	CHECK(getpgid(guardian) != getpgid(0));
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
	await(one, "1");
	unlink(one);
}

TAP_MAIN()
