/* SPDX-License-Identifier: MIT */
/*
 * Random programs on the engine and on the flat reference model. A program on which they differ, or which crashes or
 * hangs the engine, is shrunk and printed with what repeats it.
 *
 * UCOW_TEST_SEED, UCOW_MODEL_PROGRAMS, UCOW_MODEL_OPS; UCOW_MODEL_ONLY=N runs the N-th program alone.
 */
#include "program.h"
#include "runner.h"
#include "tap.h"

#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { DEFAULT_PROGRAMS = 60 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
enum { DEFAULT_PROGRAMS = 60 };
#else
enum { DEFAULT_PROGRAMS = 300 };
#endif
#else
enum { DEFAULT_PROGRAMS = 300 };
#endif
enum { DEFAULT_OPS = 60, RUN_SECONDS = 20, SHRINK_RUNS = 3000 };

static struct outcome *shared; /* of the run in the child process */

/* Runs @p in a process of its own: a crash or a hang is an outcome too. True when engine and model agreed. */
static bool agrees(const struct program *p, const struct setting *setting, struct outcome *outcome)
{
	int status = 0;
	pid_t pid;

	memset(shared, 0, sizeof(*shared));
	fflush(stdout);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		alarm(RUN_SECONDS);
		program_run(p, setting, shared);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	*outcome = *shared;
	if (WIFSIGNALED(status))
		snprintf(outcome->why, sizeof(outcome->why), "killed by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status))
		snprintf(outcome->why, sizeof(outcome->why), "exit status %d", WEXITSTATUS(status));
	return !status && outcome->agreed;
}

static void drop_ops(struct program *p, size_t at, size_t n)
{
	memmove(&p->ops[at], &p->ops[at + n], (p->nops - at - n) * sizeof(p->ops[0]));
	p->nops -= n;
}

/* Drops runs of operations as long as the rest still fails: long runs first, then single ones, until none goes. */
static void shrink_length(struct program *p, const struct setting *setting, unsigned *runs)
{
	struct outcome o;
	bool dropped = true;

	for (size_t n = p->nops / 2 ? p->nops / 2 : 1; n; n = n > 1 || !dropped ? n / 2 : 1) {
		dropped = false;
		for (size_t at = 0; at + n <= p->nops && *runs < SHRINK_RUNS;) {
			struct program shorter = *p;

			drop_ops(&shorter, at, n);
			++*runs;
			if (agrees(&shorter, setting, &o)) {
				at += n;
				continue;
			}
			*p = shorter;
			dropped = true;
		}
	}
}

static void try_simpler(struct program *p, const struct program *simpler, const struct setting *setting, unsigned *runs)
{
	struct outcome o;

	if (memcmp(p, simpler, sizeof(*p)) == 0 || ++*runs > SHRINK_RUNS || agrees(simpler, setting, &o))
		return;
	*p = *simpler;
}

/* Then single operations are made plainer. */
static void shrink_ops(struct program *p, const struct setting *setting, unsigned *runs)
{
	for (size_t i = 0; i < p->nops; i++) {
		struct program simpler = *p;

		simpler.ops[i].n = 1;
		try_simpler(p, &simpler, setting, runs);
		simpler = *p;
		simpler.ops[i].offset = 0;
		try_simpler(p, &simpler, setting, runs);
		for (unsigned bit = 1; bit <= F_SNAPSHOT; bit <<= 1) {
			simpler = *p;
			simpler.ops[i].flags &= (uint16_t)~bit;
			try_simpler(p, &simpler, setting, runs);
		}
	}
}

static void print_program(const struct program *p, const struct outcome *o)
{
	char line[200];

	printf("# %s loads after every operation\n", p->looks ? "with" : "without");
	for (size_t i = 0; i < p->nops; i++) {
		program_format_op(&p->ops[i], line, sizeof(line));
		printf("#   %2zu  %s%s\n", i, line, i == o->at ? "    <-- here" : "");
	}
	printf("# %s%s\n", o->at >= p->nops ? "at the end: " : "", o->why);
}

static void report(struct program *p, uint64_t index, const struct setting *setting)
{
	struct program simpler = *p;
	struct outcome o;
	unsigned runs = 0;

	alarm(600); /* shrinking takes longer than a test */
	simpler.suspects = true;
	try_simpler(p, &simpler, setting, &runs);
	shrink_length(p, setting, &runs);
	shrink_ops(p, setting, &runs);
	shrink_length(p, setting, &runs);
	if (agrees(p, setting, &o))
		snprintf(o.why, sizeof(o.why), "(does not fail every time)");
	print_program(p, &o);
	printf("# UCOW_TEST_SEED=%" PRIu64 " UCOW_MODEL_ONLY=%" PRIu64 " repeats it\n", tap_seed(), index);
}

static uint64_t program_seed(uint64_t index)
{
	return tap_seed() * 0x100000001b3 + index;
}

/* @part: how many of the programs, in hundredths. */
static void check_programs(const struct setting *setting, unsigned part)
{
	uint64_t first = 0, last = (tap_env("UCOW_MODEL_PROGRAMS", DEFAULT_PROGRAMS) * part + 99) / 100, calls = 0;
	size_t nops = tap_env("UCOW_MODEL_OPS", DEFAULT_OPS);
	static struct program p;
	struct outcome o;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(shared != MAP_FAILED);
	if (getenv("UCOW_MODEL_ONLY")) {
		first = tap_env("UCOW_MODEL_ONLY", 0);
		last = first + 1;
	}
	for (uint64_t i = first; i < last; i++) {
		program_generate(&p, program_seed(i), nops);
		if (!agrees(&p, setting, &o)) {
			report(&p, i, setting);
			TAP_FAIL("program %" PRIu64 " differs under %s, %s", i, ucow_policy_name(setting->policy),
				 ucow_fork_mode_name(setting->mode));
		}
		calls += o.calls;
	}
	/* Programs of nothing but operations on dead slots would agree too. */
	CHECK(calls * 3 > (last - first) * nops || getenv("UCOW_MODEL_ONLY"));
}

static bool mode_is_built(enum ucow_fork_mode mode)
{
	struct ucow_machine_options options = {.size = sizeof(options), .fork_mode = mode};
	struct ucow_machine *machine;
	int rc = ucow_machine_create(&options, &machine);

	if (rc == -EOPNOTSUPP)
		return false;
	REQUIRE_EQ(rc, 0);
	REQUIRE_EQ(ucow_machine_destroy(machine), 0);
	return true;
}

/* Would catch any operation that, after any others, shows a space or a pin bytes that are not its own. */
TEST(engine_agrees_with_flat_model_eager)
{
	check_programs(&(struct setting){UCOW_POLICY_EXCLUSIVE, UCOW_FORK_EAGER, false}, 100);
}

/* Would catch a sharer that sees another's change through a leaf table of both. */
TEST(engine_agrees_with_flat_model_tables)
{
	if (!mode_is_built(UCOW_FORK_TABLES))
		SKIP("fork mode tables is not built yet");
	check_programs(&(struct setting){UCOW_POLICY_EXCLUSIVE, UCOW_FORK_TABLES, false}, 100);
}

/* Would catch a missed unshare of a path below a shared root. */
TEST(engine_agrees_with_flat_model_lazy)
{
	if (!mode_is_built(UCOW_FORK_LAZY))
		SKIP("fork mode lazy is not built yet");
	check_programs(&(struct setting){UCOW_POLICY_EXCLUSIVE, UCOW_FORK_LAZY, false}, 100);
}

/* Would catch a page that comes back from swap with other bytes, with somebody else's rights, or twice. */
TEST(engine_agrees_with_flat_model_under_pressure)
{
	for (int mode = UCOW_FORK_EAGER; mode < UCOW_FORK_MODE_COUNT; mode++) {
		check_programs(&(struct setting){UCOW_POLICY_EXCLUSIVE, mode, true}, 50);
		CHECK_GO_ON();
	}
}

/* Would catch a count that goes wrong, or a crash, where a historical rule and today's engine meet. */
TEST(every_policy_keeps_results_and_invariants)
{
	for (int policy = UCOW_POLICY_MAPCOUNT; policy < UCOW_POLICY_COUNT; policy++) {
		check_programs(&(struct setting){policy, UCOW_FORK_EAGER, false}, 15);
		CHECK_GO_ON();
	}
}

TAP_MAIN()
