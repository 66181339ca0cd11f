/* SPDX-License-Identifier: MIT */
/*
 * Test harness: TAP on stdout, every test in a process of its own with an alarm, so that a crash or a hang is the
 * failure of one property and not of the run. A test's name is the property it holds up.
 *
 *	TEST(pin_survives_fork) { CHECK_EQ(f(), 0); }
 *	TAP_MAIN()
 */
#ifndef UCOW_TESTS_TAP_H
#define UCOW_TESTS_TAP_H

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A test that passed says so: whatever ends its process early with status 0 is a failure. */
enum { TAP_PASS_STATUS = 42, TAP_SKIP_STATUS = 77, TAP_FAIL_STATUS = 1, TAP_DEFAULT_TIMEOUT = 60 };
#define TAP_DEFAULT_SEED 20220313u

struct tap_test {
	const char *name;
	void (*run)(void);
	struct tap_test *next;
};

static struct tap_test *tap_first, **tap_last = &tap_first;
static unsigned int tap_count;
static bool tap_failed;       /* by the running test */
static char tap_skipped[200]; /* why the running test was skipped; empty when it was not */
static int tap_skip_pipe = -1;

static inline void tap_register(struct tap_test *t)
{
	*tap_last = t;
	tap_last = &t->next;
	tap_count++;
}

/* The seed of everything random in a test program; printed with the results so that a failure can be repeated. */
static inline uint64_t tap_seed(void)
{
	const char *s = getenv("UCOW_TEST_SEED");

	return s && *s ? strtoull(s, NULL, 0) : TAP_DEFAULT_SEED;
}

static inline unsigned long tap_env(const char *name, unsigned long otherwise)
{
	const char *s = getenv(name);

	return s && *s ? strtoul(s, NULL, 0) : otherwise;
}

#define TEST(test_name)                                                         \
	static void test_name(void);                                            \
	__attribute__((constructor)) static void tap_register_##test_name(void) \
	{                                                                       \
		static struct tap_test t = {#test_name, test_name, NULL};       \
		tap_register(&t);                                               \
	}                                                                       \
	static void test_name(void)

static inline void __attribute__((noreturn)) tap_give_up(const char *file, int line, const char *what)
{
	printf("# %s:%d: not so: %s\n", file, line, what);
	fflush(stdout);
	_exit(TAP_FAIL_STATUS);
}

/* Says where, fails the test and leaves the function; the cases below are all made of this one. */
#define TAP_FAIL(...)                                    \
	do {                                             \
		tap_failed = true;                       \
		printf("# %s:%d: ", __FILE__, __LINE__); \
		printf(__VA_ARGS__);                     \
		putchar('\n');                           \
		return;                                  \
	} while (0)

#define CHECK(cond)                                    \
	do {                                           \
		if (!(cond))                           \
			TAP_FAIL("not so: %s", #cond); \
	} while (0)

#define CHECK_EQ(a, b)                                                                                           \
	do {                                                                                                     \
		intmax_t tap_a = (intmax_t)(a), tap_b = (intmax_t)(b);                                           \
		if (tap_a != tap_b)                                                                              \
			TAP_FAIL("%s is %jd (%#jx), not %s, %jd (%#jx)", #a, tap_a, (uintmax_t)tap_a, #b, tap_b, \
				 (uintmax_t)tap_b);                                                              \
	} while (0)

#define CHECK_STR_EQ(a, b)                                                                                            \
	do {                                                                                                          \
		const char *tap_a = (a), *tap_b = (b);                                                                \
		if (!tap_a || !tap_b || strcmp(tap_a, tap_b) != 0)                                                    \
			TAP_FAIL("%s is \"%s\", not \"%s\"", #a, tap_a ? tap_a : "(null)", tap_b ? tap_b : "(null)"); \
	} while (0)

/* For helpers that return something and for set-up: prints like CHECK, then ends the test's process as failed. */
#define REQUIRE(cond)                                           \
	do {                                                    \
		if (!(cond))                                    \
			tap_give_up(__FILE__, __LINE__, #cond); \
	} while (0)

#define REQUIRE_EQ(a, b)                                                          \
	do {                                                                      \
		intmax_t tap_a = (intmax_t)(a), tap_b = (intmax_t)(b);            \
		if (tap_a != tap_b) {                                             \
			printf("# %s is %jd, %s is %jd\n", #a, tap_a, #b, tap_b); \
			tap_give_up(__FILE__, __LINE__, #a " == " #b);            \
		}                                                                 \
	} while (0)

/* After a helper that CHECKs by itself: leave the test too if it failed. */
#define CHECK_GO_ON()           \
	do {                    \
		if (tap_failed) \
			return; \
	} while (0)

#define SKIP(...)                                                        \
	do {                                                             \
		snprintf(tap_skipped, sizeof(tap_skipped), __VA_ARGS__); \
		return;                                                  \
	} while (0)

/* The test's own process: its exit status is the result, the reason of a skip goes up the pipe. */
static inline int tap_child(const struct tap_test *t)
{
	t->run();
	fflush(stdout);
	if (tap_failed)
		return TAP_FAIL_STATUS;
	if (!tap_skipped[0])
		return TAP_PASS_STATUS;
	return write(tap_skip_pipe, tap_skipped, strlen(tap_skipped)) < 0 ? TAP_FAIL_STATUS : TAP_SKIP_STATUS;
}

static inline void tap_read_reason(int fd)
{
	ssize_t n = read(fd, tap_skipped, sizeof(tap_skipped) - 1);

	tap_skipped[n > 0 ? n : 0] = 0;
}

/* Runs @t in a child of its own process group, so that what it started dies with it; true when it passed. */
static inline bool tap_run_forked(const struct tap_test *t)
{
	unsigned int timeout = (unsigned int)tap_env("UCOW_TEST_TIMEOUT", TAP_DEFAULT_TIMEOUT);
	int fds[2], status = 0;
	pid_t pid;

	if (pipe(fds) < 0 || (pid = fork()) < 0) {
		printf("# cannot start: %s\n", strerror(errno));
		return false;
	}
	if (!pid) {
		setpgid(0, 0);
		close(fds[0]);
		tap_skip_pipe = fds[1];
		alarm(timeout);
		exit(tap_child(t));
	}
	close(fds[1]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	kill(-pid, SIGKILL);
	if (WIFEXITED(status) && WEXITSTATUS(status) == TAP_SKIP_STATUS)
		tap_read_reason(fds[0]);
	close(fds[0]);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		printf("# stopped after %u s\n", timeout);
	else if (WIFSIGNALED(status))
		printf("# killed by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) != TAP_PASS_STATUS && !tap_skipped[0])
		printf("# exit status %d\n", WEXITSTATUS(status));
	return WIFEXITED(status) && (WEXITSTATUS(status) == TAP_PASS_STATUS || tap_skipped[0]);
}

static inline bool tap_run_here(const struct tap_test *t)
{
	tap_failed = false;
	t->run();
	return !tap_failed;
}

static inline int tap_main(int argc, char **argv)
{
	const char *filter = NULL;
	unsigned int n = 0, failures = 0, planned = 0;
	bool no_fork = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--no-fork"))
			no_fork = true;
		else
			filter = argv[i];
	}
	for (const struct tap_test *t = tap_first; t; t = t->next)
		planned += !filter || strstr(t->name, filter);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n1..%u\n# seed %" PRIu64 "\n", planned, tap_seed());
	for (const struct tap_test *t = tap_first; t; t = t->next) {
		bool ok;

		if (filter && !strstr(t->name, filter))
			continue;
		tap_skipped[0] = 0;
		fflush(stdout);
		ok = no_fork ? tap_run_here(t) : tap_run_forked(t);
		failures += !ok;
		printf("%s %u - %s%s%s\n", ok ? "ok" : "not ok", ++n, t->name, ok && tap_skipped[0] ? " # SKIP " : "",
		       ok ? tap_skipped : "");
	}
	if (!planned)
		printf("# no test is called %s\n", filter ? filter : "anything");
	return failures || !planned ? 1 : 0;
}

#define TAP_MAIN()                           \
	int main(int argc, char **argv)      \
	{                                    \
		return tap_main(argc, argv); \
	}

#endif
