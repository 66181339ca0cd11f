/* SPDX-License-Identifier: MIT */
/*
 * The litmus parser: what it makes of good input, where it finds the fault in bad input, what it does without memory.
 * Malformed files are replayed in test_malformed.c.
 */
#include "litmus/litmus.h"
#include "litmus/parse_internal.h"

#include "litmus_ast.h"
#include "tap.h"

#include <ucow/machine.h>

/* ---- helpers ---- */

static struct litmus_error last_error;

static int parse_bytes(const char *bytes, size_t nbytes, struct litmus **litmus)
{
	char *exact = malloc(nbytes ? nbytes : 1); /* a read past the end is seen */
	int err;

	REQUIRE(exact);
	memcpy(exact, bytes, nbytes);
	err = litmus_parse("folder/some.litmus", exact, nbytes, litmus, &last_error);
	free(exact);
	if (!err) {
		const char *complaint = ast_complain(*litmus);

		if (complaint)
			printf("# %s in: %.*s\n", complaint, (int)nbytes, bytes);
		REQUIRE(!complaint);
	}
	return err;
}

static struct litmus *parse(const char *text)
{
	struct litmus *litmus = NULL;
	int err = parse_bytes(text, strlen(text), &litmus);

	if (err)
		printf("# %u:%u: %s in: %s\n", last_error.loc.line, last_error.loc.column, last_error.text, text);
	REQUIRE_EQ(err, 0);
	return litmus;
}

/* Whether @text is refused at that place. */
static bool refused_at(const char *text, unsigned line, unsigned column)
{
	struct litmus *litmus = NULL;
	int err = parse_bytes(text, strlen(text), &litmus);

	if (err == -EINVAL && last_error.loc.line == line && last_error.loc.column == column)
		return true;
	printf("# result %d, %u:%u instead of %u:%u, %s\n# in: %s\n", err, last_error.loc.line, last_error.loc.column,
	       line, column, last_error.text, text);
	if (!err)
		litmus_free(litmus);
	return false;
}

/* xorshift64* */
static uint64_t random_state;
static uint64_t random_below(uint64_t limit)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * 0x2545f4914f6cdd1du >> 11) % limit;
}

/* ---- the language, by example ---- */

/* Defines one of everything; the statements below stand after it, each alone. */
#define PRELUDE                             \
	"title: a test\n"                   \
	"machine: nodes=4\n"                \
	"A map buf 8\n"                     \
	"A map other 8 shared\n"            \
	"file f 8 \"file\"\n"               \
	"cgroup g limit=64\n"               \
	"A fork B\n"                        \
	"A pin buf[0..3] w longterm -> p\n" \
	"A get buf[4]+4000 r -> q\n"        \
	"A splice buf -> s\n"               \
	"A uffd other wp+missing -> u\n"    \
	"A lock buf[7] -> l\n"
enum { PRELUDE_LINES = 12, PRELUDE_STMTS = 10 };

/* Statements in canonical form, every kind and every option among them, and what they imply beyond the prelude. */
static const struct {
	const char *line;
	enum stmt_kind kind;
	unsigned needs;
} examples[] = {
	{"A map new 1", STMT_MAP, 0},
	{"B map new 262144", STMT_MAP, 0},
	{"A map new 4 prot=r", STMT_MAP, 0},
	{"A map new 4 prot=none", STMT_MAP, 0},
	{"A map new 4 shared", STMT_MAP, 0},
	{"A map new 4 file=f", STMT_MAP, NEED_FILE},
	{"A map new 512 huge", STMT_MAP, NEED_THP},
	{"A map new 512 hugetlb", STMT_MAP, NEED_HUGETLB},
	{"A map new 4 populate", STMT_MAP, 0},
	{"A map new 4 shared file=f@3 readonly", STMT_MAP, NEED_FILE},
	{"A map new 512 prot=r shared file=f huge hugetlb populate", STMT_MAP, NEED_FILE | NEED_THP | NEED_HUGETLB},
	{"A map new-region_2 4 fails ENOMEM", STMT_MAP, 0},
	{"A unmap buf", STMT_UNMAP, 0},
	{"B unmap buf[7]", STMT_UNMAP, 0},
	{"A unmap buf[0..7] may fail EINVAL", STMT_UNMAP, 0},
	{"A protect buf none", STMT_PROTECT, 0},
	{"A protect buf[1..6] r", STMT_PROTECT, 0},
	{"A protect buf[0] rw fails EACCES", STMT_PROTECT, 0},
	{"A move buf -> new", STMT_MOVE, 0},
	{"A move buf[2..3] -> new fails ENOMEM", STMT_MOVE, 0},
	{"A move buf -> new dontunmap", STMT_MOVE, 0},
	{"A advise buf dontfork", STMT_ADVISE, 0},
	{"A advise buf dofork", STMT_ADVISE, 0},
	{"A advise buf wipeonfork", STMT_ADVISE, 0},
	{"A advise buf keeponfork", STMT_ADVISE, 0},
	{"A advise buf mergeable", STMT_ADVISE, NEED_KSM},
	{"A advise buf unmergeable", STMT_ADVISE, NEED_KSM},
	{"A advise buf hugepage", STMT_ADVISE, NEED_THP},
	{"A advise buf nohugepage", STMT_ADVISE, NEED_THP},
	{"A advise buf dontneed", STMT_ADVISE, 0},
	{"A advise buf free", STMT_ADVISE, 0},
	{"A advise buf cold", STMT_ADVISE, NEED_SWAP},
	{"A advise buf pageout", STMT_ADVISE, NEED_SWAP},
	{"A advise buf populate-read", STMT_ADVISE, 0},
	{"A advise buf populate-write", STMT_ADVISE, 0},
	{"A advise buf collapse", STMT_ADVISE, NEED_THP},
	{"A write buf \"text\"", STMT_WRITE, 0},
	{"A write buf[3]+512 \"a \\\"quoted\\\" #text\\n\\t\\\\\\x00\\xff\"", STMT_WRITE, 0},
	{"A write buf[0..7] \"no\" fails SIGSEGV", STMT_WRITE, 0},
	{"A write buf[0]+4095 \"x\" may fail SIGBUS", STMT_WRITE, 0},
	{"A read buf", STMT_READ, 0},
	{"B read buf[1]+7 fails SIGSEGV", STMT_READ, 0},
	{"A read buf fails ENOMEM", STMT_READ, 0},
	{"A fork C", STMT_FORK, 0},
	{"B fork C into g", STMT_FORK, NEED_CGROUP},
	{"A fork Kid * 1100", STMT_FORK, 0},
	{"A fork K2 * 1 into g", STMT_FORK, NEED_CGROUP},
	{"A fork C fails ENOMEM", STMT_FORK, 0},
	{"A snapshot S", STMT_SNAPSHOT, NEED_SNAPSHOT},
	{"A exit", STMT_EXIT, 0},
	{"A pin buf r -> new", STMT_PIN, 0},
	{"A pin buf w -> new", STMT_PIN, 0},
	{"A pin buf r fast -> new", STMT_PIN, 0},
	{"A pin buf r longterm -> new", STMT_PIN, 0},
	{"A pin buf w force -> new", STMT_PIN, 0},
	{"A pin buf[1]+64 w fast longterm force -> new fails EFAULT", STMT_PIN, 0},
	{"A get buf r -> new", STMT_GET, 0},
	{"B get buf w force -> new may fail EFAULT", STMT_GET, 0},
	{"device p write \"dev!\"", STMT_DEVICE_WRITE, 0},
	{"device q write \"dev!\"", STMT_DEVICE_WRITE, 0},
	{"unpin p", STMT_UNPIN, 0},
	{"unpin p dirty", STMT_UNPIN, 0},
	{"put q", STMT_PUT, 0},
	{"put s", STMT_PUT, 0},
	{"A splice buf -> new", STMT_SPLICE, 0},
	{"A direct-out buf f", STMT_DIRECT_OUT, NEED_DIRECT_IO},
	{"A direct-out buf[2] f@7", STMT_DIRECT_OUT, NEED_DIRECT_IO},
	{"A direct-out buf f@262136", STMT_DIRECT_OUT, NEED_DIRECT_IO},
	{"A direct-in buf[7] f", STMT_DIRECT_IN, NEED_DIRECT_IO},
	{"A direct-in buf[1]+512 f@0 fails EFAULT", STMT_DIRECT_IN, NEED_DIRECT_IO},
	{"A peek B buf \"text\"", STMT_PEEK, 0},
	{"A peek B buf[1]+8 \"one\" or \"two\" or zero in all", STMT_PEEK, 0},
	{"A peek B buf \"text\" fails EIO", STMT_PEEK, 0},
	{"A poke B buf[1] \"text\"", STMT_POKE, 0},
	{"A remote-write B buf \"text\" fails EFAULT", STMT_REMOTE_WRITE, 0},
	{"file new 4 \"text\"", STMT_FILE, 0},
	{"file new 4 \"text\" memory", STMT_FILE, 0},
	{"sync f", STMT_SYNC, NEED_FILE},
	{"sync f fails EIO", STMT_SYNC, NEED_FILE},
	{"A msync other[1..2]", STMT_MSYNC, NEED_FILE},
	{"A msync other async fails ENOMEM", STMT_MSYNC, NEED_FILE},
	{"punch f[1]", STMT_PUNCH, NEED_FILE},
	{"punch f[0..7]", STMT_PUNCH, NEED_FILE},
	{"store f[2] \"text\"", STMT_STORE, NEED_FILE},
	{"drop f", STMT_DROP, NEED_FILE},
	{"truncate f 0", STMT_TRUNCATE, NEED_FILE},
	{"truncate f 262144", STMT_TRUNCATE, NEED_FILE},
	{"A uffd buf wp -> new", STMT_UFFD, 0},
	{"A uffd buf missing -> new", STMT_UFFD, 0},
	{"A uffd buf minor -> new", STMT_UFFD, 0},
	{"A uffd buf[1..2] wp+missing+minor async -> new fails EINVAL", STMT_UFFD, 0},
	{"A uffd buf wp async sigbus unpopulated on-fork on-remap on-remove on-unmap -> new", STMT_UFFD, 0},
	{"u poison buf[3]", STMT_UFFD_POISON, 0},
	{"u wake buf", STMT_UFFD_WAKE, 0},
	{"u register buf wp+minor", STMT_UFFD_REGISTER, 0},
	{"u unregister buf[2..3]", STMT_UFFD_UNREGISTER, 0},
	{"u copy buf \"text\" wp", STMT_UFFD_COPY, 0},
	{"u continue buf wp fails EEXIST", STMT_UFFD_CONTINUE, 0},
	{"A mlock buf", STMT_MLOCK, 0},
	{"A mlock buf onfault fails ENOMEM", STMT_MLOCK, 0},
	{"B munlock buf[1]", STMT_MUNLOCK, 0},
	{"A scan buf written finds nothing", STMT_SCAN, 0},
	{"A scan buf written protect finds buf[0] buf[2..3]", STMT_SCAN, 0},
	{"A scan buf[1..6] written+present not file+zero-page protect async-only max=3 finds buf[1]", STMT_SCAN, 0},
	{"A scan buf swapped finds buf[0..7]", STMT_SCAN, NEED_SWAP},
	{"A scan buf not soft-dirty finds nothing", STMT_SCAN, NEED_SOFT_DIRTY},
	{"A scan buf wp-allowed protect fails EPERM", STMT_SCAN, 0},
	{"u protect buf", STMT_UFFD_PROTECT, 0},
	{"u unprotect buf[1]", STMT_UFFD_UNPROTECT, 0},
	{"u copy buf \"text\"", STMT_UFFD_COPY, 0},
	{"u zeropage buf", STMT_UFFD_ZEROPAGE, 0},
	{"u continue buf", STMT_UFFD_CONTINUE, 0},
	{"u move buf[0..1] other[6..7] fails EBUSY", STMT_UFFD_MOVE, 0},
	{"u close", STMT_UFFD_CLOSE, 0},
	{"A clear-soft-dirty", STMT_CLEAR_SOFT_DIRTY, NEED_SOFT_DIRTY},
	{"ksm merge", STMT_KSM_MERGE, NEED_KSM},
	{"reclaim 100000", STMT_RECLAIM, NEED_SWAP},
	{"swapoff", STMT_SWAPOFF, NEED_SWAP},
	{"swapoff fails ENOMEM", STMT_SWAPOFF, NEED_SWAP},
	{"A numa-hint buf[3]", STMT_NUMA_HINT, 0},
	{"migrate B buf[0..2] node=3", STMT_MIGRATE, 0},
	{"cgroup new limit=16", STMT_CGROUP, 0},
	{"cgroup new limit=16 swap=0", STMT_CGROUP, NEED_SWAP},
	{"A join g", STMT_JOIN, NEED_CGROUP},
	{"cgroup new limit=16 swap=7 in=g", STMT_CGROUP, NEED_SWAP},
	{"ksm merge zero-pages", STMT_KSM_MERGE, NEED_KSM},
	{"inject alloc 1", STMT_INJECT_ALLOC, 0},
	{"inject read 2", STMT_INJECT_READ, NEED_SWAP},
	{"inject write 3 may fail ENOMEM", STMT_INJECT_WRITE, NEED_SWAP},
	{"A lock buf[1..2] -> new", STMT_LOCK, 0},
	{"unlock l", STMT_UNLOCK, 0},
	{"check A reads buf \"text\"", STMT_CHECK_READS, 0},
	{"check B reads buf[0..1] zero or \"text\" or zero", STMT_CHECK_READS, 0},
	{"check A reads buf[3]+4092 \"four\" in all", STMT_CHECK_READS, 0},
	{"check p reads \"text\"", STMT_CHECK_HANDLE_READS, 0},
	{"check q reads zero", STMT_CHECK_HANDLE_READS, 0},
	{"check s reads \"one\" or \"two\"", STMT_CHECK_HANDLE_READS, 0},
	{"check file f[7] reads \"text\" or zero", STMT_CHECK_FILE_READS, 0},
	{"check p pages 4", STMT_CHECK_PAGES, 0},
	{"check q pages 0", STMT_CHECK_PAGES, 0},
	{"check A buf is present", STMT_CHECK_FLAG, 0},
	{"check A buf is not exclusive", STMT_CHECK_FLAG, 0},
	{"check A buf[0] is writable in all", STMT_CHECK_FLAG, 0},
	{"check A buf is dirty", STMT_CHECK_FLAG, 0},
	{"check A buf is accessed", STMT_CHECK_FLAG, 0},
	{"check A buf is not soft-dirty", STMT_CHECK_FLAG, NEED_SOFT_DIRTY},
	{"check A buf is wp", STMT_CHECK_FLAG, 0},
	{"check A buf is swapped", STMT_CHECK_FLAG, NEED_SWAP},
	{"check A buf is not ksm", STMT_CHECK_FLAG, NEED_KSM},
	{"check A buf is huge", STMT_CHECK_FLAG, NEED_THP},
	{"check A buf is zero-page", STMT_CHECK_FLAG, 0},
	{"check A buf is pinned", STMT_CHECK_FLAG, 0},
	{"check A buf[0..7] is mapped", STMT_CHECK_FLAG, 0},
	{"check A buf same B buf", STMT_CHECK_SAME, 0},
	{"check A buf[1] differs A other[2] in all", STMT_CHECK_SAME, 0},
	{"check A mapcount buf 2", STMT_CHECK_MAPCOUNT, 0},
	{"check B rss 0 in all", STMT_CHECK_RSS, 0},
	{"check g usage 17", STMT_CHECK_USAGE, 0},
	{"check count faults 3", STMT_CHECK_COUNT, 0},
	{"check count reuse 3+", STMT_CHECK_COUNT, 0},
	{"check count copy 0", STMT_CHECK_COUNT, 0},
	{"check count unshare 1 in all", STMT_CHECK_COUNT, 0},
	{"check count early-copy 1+ in all", STMT_CHECK_COUNT, 0},
	{"check count zero-fill 1", STMT_CHECK_COUNT, 0},
	{"check count table-share 1", STMT_CHECK_COUNT, 0},
	{"check count table-unshare 1", STMT_CHECK_COUNT, 0},
	{"check count pins 1", STMT_CHECK_COUNT, 0},
	{"check count unpins 1", STMT_CHECK_COUNT, 0},
	{"check count swap-in 1", STMT_CHECK_COUNT, NEED_SWAP},
	{"check count swap-out 1", STMT_CHECK_COUNT, NEED_SWAP},
	{"check count ksm-merge 1", STMT_CHECK_COUNT, NEED_KSM},
	{"check count wp-event 1", STMT_CHECK_COUNT, 0},
	{"check u event wp buf", STMT_CHECK_EVENT, 0},
	{"check u event missing buf[1]", STMT_CHECK_EVENT, 0},
	{"check u event minor buf", STMT_CHECK_EVENT, 0},
	{"check u event fork -> new", STMT_CHECK_EVENT, 0},
	{"check u event remap buf[0..1] other[2..3]", STMT_CHECK_EVENT, 0},
	{"check u event remove buf[0..1]", STMT_CHECK_EVENT, 0},
	{"check u event unmap buf", STMT_CHECK_EVENT, 0},
	{"check u event none", STMT_CHECK_EVENT, 0},
	{"check file f[1] holds \"text\" or zero", STMT_CHECK_FILE_HOLDS, NEED_FILE},
};
#define NEXAMPLES (sizeof(examples) / sizeof(examples[0]))
/* uffd and cgroup are in the prelude, and a machine of four nodes. */
#define PRELUDE_NEEDS (NEED_UFFD | NEED_CGROUP | NEED_NUMA)

static struct litmus *parse_line(const char *line)
{
	char text[8192];

	snprintf(text, sizeof(text), "%s%s\n", PRELUDE, line);
	return parse(text);
}

static void print_stmt(const struct litmus *litmus, const struct stmt *st, char *text, size_t room)
{
	FILE *out = fmemopen(text, room, "w");

	REQUIRE(out);
	ast_print_stmt(out, litmus, st);
	fclose(out);
	text[strcspn(text, "\n")] = '\0';
}

TEST(every_statement_kind_round_trips)
{
	bool seen[STMT_KIND_COUNT] = {0};
	char printed[1024];

	for (size_t i = 0; i < NEXAMPLES; i++) {
		struct litmus *litmus = parse_line(examples[i].line);
		const struct stmt *st = &litmus->stmts[PRELUDE_STMTS];

		CHECK_EQ(litmus->nstmts, PRELUDE_STMTS + 1);
		CHECK_EQ(st->kind, examples[i].kind);
		CHECK_STR_EQ(st->source, examples[i].line);
		CHECK_EQ(st->loc.line, PRELUDE_LINES + 1);
		CHECK_EQ(st->loc.column, 1);
		print_stmt(litmus, st, printed, sizeof(printed));
		CHECK_STR_EQ(printed, examples[i].line);
		seen[st->kind] = true;
		litmus_free(litmus);
	}
	for (unsigned i = 0; i < STMT_KIND_COUNT; i++) {
		if (!seen[i])
			printf("# no example of %s\n", litmus_stmt_name(i));
		CHECK(seen[i]);
	}
}

TEST(statements_imply_their_facilities)
{
	for (size_t i = 0; i < NEXAMPLES; i++) {
		struct litmus *litmus = parse_line(examples[i].line);

		if (litmus->needs != (PRELUDE_NEEDS | examples[i].needs))
			printf("# %s: %#x\n", examples[i].line, litmus->needs);
		CHECK_EQ(litmus->needs, PRELUDE_NEEDS | examples[i].needs);
		CHECK_EQ(litmus->declared_needs, 0);
		litmus_free(litmus);
	}
}

TEST(a_plain_test_needs_nothing)
{
	struct litmus *litmus = parse("title: t\nfile f 4 \"x\"\nA map buf 4 shared\nA pin buf r longterm -> p\n"
				      "A numa-hint buf\ninject alloc 2\ncheck file f[0] reads \"x\"\n");

	CHECK_EQ(litmus->needs, 0);
	litmus_free(litmus);
}

/* Tokens of a line of examples[], by blanks outside texts: calls @visit with the offset of each and of the end. */
static void each_token(const char *line, void (*visit)(const char *line, size_t at))
{
	bool in_text = false;

	for (size_t i = 0; line[i]; i++) {
		if (!in_text && line[i] != ' ' && (!i || line[i - 1] == ' '))
			visit(line, i);
		if (line[i] == '"' && (!i || line[i - 1] != '\\'))
			in_text = !in_text;
	}
	visit(line, strlen(line));
}

static void check_cut(const char *line, size_t at)
{
	char text[8192];
	size_t end = at && line[at] ? at - 1 : at; /* before the blank */
	struct litmus *litmus = NULL;
	int err, n;

	n = snprintf(text, sizeof(text), "%s%.*s", PRELUDE, (int)at, line);
	err = parse_bytes(text, (size_t)n, &litmus);
	if (!err) {
		litmus_free(litmus);
		return;
	}
	if (last_error.loc.line != PRELUDE_LINES + 1 || last_error.loc.column != end + 1)
		printf("# %u:%u: %s in: %.*s\n", last_error.loc.line, last_error.loc.column, last_error.text, (int)at,
		       line);
	CHECK_EQ(err, -EINVAL);
	CHECK_EQ(last_error.loc.line, PRELUDE_LINES + 1);
	CHECK_EQ(last_error.loc.column, end + 1);
}

TEST(a_statement_cut_short_is_refused_where_it_ends)
{
	for (size_t i = 0; i < NEXAMPLES; i++) {
		each_token(examples[i].line, check_cut);
		CHECK_GO_ON();
	}
}

static void check_junk(const char *line, size_t at)
{
	char text[8192];

	snprintf(text, sizeof(text), "%s%.*s$%s\n", PRELUDE, (int)at, line, line + at);
	CHECK(refused_at(text, PRELUDE_LINES + 1, (unsigned)at + 1));
}

TEST(junk_before_any_token_is_refused_where_it_stands)
{
	for (size_t i = 0; i < NEXAMPLES; i++) {
		each_token(examples[i].line, check_junk);
		CHECK_GO_ON();
	}
}

static void check_extra(const char *line, size_t at)
{
	char text[8192];

	if (line[at])
		return;
	snprintf(text, sizeof(text), "%s%s  0\n", PRELUDE, line);
	CHECK(refused_at(text, PRELUDE_LINES + 1, (unsigned)at + 3));
}

TEST(a_word_too_many_is_refused_where_it_stands)
{
	for (size_t i = 0; i < NEXAMPLES; i++) {
		each_token(examples[i].line, check_extra);
		CHECK_GO_ON();
	}
}

/* A line with its blanks made longer or tabs, indented, with a comment, inside a CRLF file. */
static void disguise(const char *line, char *out)
{
	static const char *const blanks[] = {" ", "  ", "\t", " \t "};
	bool in_text = false;

	out += sprintf(out, "%s", blanks[random_below(4)]);
	for (size_t i = 0; line[i]; i++) {
		if (line[i] == '"' && (!i || line[i - 1] != '\\'))
			in_text = !in_text;
		if (line[i] == ' ' && !in_text)
			out += sprintf(out, "%s", blanks[random_below(4)]);
		else
			*out++ = line[i];
	}
	sprintf(out, "%s", random_below(2) ? " # A comment \"with\" \xc3\xa9verything\r\n" : "\t\r\n");
}

TEST(blanks_comments_and_line_ends_mean_nothing)
{
	char text[8192], line[4096], printed[1024];

	random_state = tap_seed();
	for (size_t i = 0; i < NEXAMPLES; i++) {
		struct litmus *litmus;

		disguise(examples[i].line, line);
		snprintf(text, sizeof(text), "%s\n# comment\n\t\n%s", PRELUDE, line);
		litmus = parse(text);
		print_stmt(litmus, &litmus->stmts[PRELUDE_STMTS], printed, sizeof(printed));
		CHECK_STR_EQ(printed, examples[i].line);
		CHECK_EQ(litmus->stmts[PRELUDE_STMTS].loc.line, PRELUDE_LINES + 4);
		CHECK_EQ(litmus->stmts[PRELUDE_STMTS].loc.column, strspn(line, " \t") + 1);
		litmus_free(litmus);
	}
}

TEST(source_is_the_line_without_indentation_and_comment)
{
	struct litmus *litmus = parse("title: t\r\n \t A  map\tbuf 1 \t # note\r\nA write buf \"# no\" # yes");

	CHECK_EQ(litmus->nstmts, 2);
	CHECK_STR_EQ(litmus->stmts[0].source, "A  map\tbuf 1");
	CHECK_EQ(litmus->stmts[0].loc.column, 4);
	CHECK_STR_EQ(litmus->stmts[1].source, "A write buf \"# no\"");
	litmus_free(litmus);
}

/* ---- header ---- */

TEST(header_is_taken_as_written)
{
	struct litmus *litmus = parse(
		"# first\n"
		"  title:   a \"test\": with everything  # note\n"
		"about: one\nsource:two: three\nabout: four\nsource: h\xc3\xa9 \"quoted\"\nabout: five\n"
		"catches: a mistake\n"
		"needs: direct-io swap\n"
		"forks: lazy eager\n"
		"breaks: refcount-pin exclusive\n"
		"machine: cpus=2 swap=8K ram=1G nodes=1\n"
		"A exit\n");

	CHECK_STR_EQ(litmus->path, "folder/some.litmus");
	CHECK_STR_EQ(litmus->test, "some");
	CHECK_STR_EQ(litmus->title, "a \"test\": with everything");
	CHECK_EQ(litmus->nabout, 3);
	CHECK_STR_EQ(litmus->about[0], "one");
	CHECK_STR_EQ(litmus->about[2], "five");
	CHECK_EQ(litmus->nsource, 2);
	CHECK_STR_EQ(litmus->source[0], "two: three");
	CHECK_STR_EQ(litmus->source[1], "h\xc3\xa9 \"quoted\"");
	CHECK_STR_EQ(litmus->catches, "a mistake");
	CHECK_EQ(litmus->declared_needs, NEED_DIRECT_IO | NEED_SWAP);
	CHECK_EQ(litmus->needs, NEED_DIRECT_IO | NEED_SWAP);
	CHECK_EQ(litmus->forks, 1u << UCOW_FORK_LAZY | 1u << UCOW_FORK_EAGER);
	CHECK_EQ(litmus->breaks, 1u << UCOW_POLICY_REFCOUNT_PIN | 1u << UCOW_POLICY_EXCLUSIVE);
	CHECK_EQ(litmus->machine.ram_bytes, 1u << 30);
	CHECK_EQ(litmus->machine.swap_bytes, 8192);
	CHECK_EQ(litmus->machine.nodes, 1);
	CHECK_EQ(litmus->machine.cpus, 2);
	litmus_free(litmus);
}

TEST(header_may_be_a_title_alone)
{
	struct litmus *litmus = parse("title:t\nA exit");

	CHECK_STR_EQ(litmus->title, "t");
	CHECK(!litmus->catches && !litmus->nabout && !litmus->nsource);
	CHECK(!litmus->forks && !litmus->breaks && !litmus->needs);
	CHECK(!litmus->machine.ram_bytes && !litmus->machine.swap_bytes && !litmus->machine.nodes &&
	      !litmus->machine.cpus);
	litmus_free(litmus);
}

TEST(every_policy_mode_and_facility_has_a_word)
{
	char text[256];

	for (unsigned i = 0; i < UCOW_POLICY_COUNT; i++) {
		snprintf(text, sizeof(text), "title: t\nbreaks: %s\nA exit\n", ucow_policy_name(i));
		struct litmus *litmus = parse(text);
		CHECK_EQ(litmus->breaks, 1u << i);
		litmus_free(litmus);
	}
	for (unsigned i = UCOW_FORK_EAGER; i < UCOW_FORK_MODE_COUNT; i++) {
		snprintf(text, sizeof(text), "title: t\nforks: %s\nA exit\n", ucow_fork_mode_name(i));
		struct litmus *litmus = parse(text);
		CHECK_EQ(litmus->forks, 1u << i);
		litmus_free(litmus);
	}
	for (unsigned i = 0; i < NEED_COUNT - 1; i++) {
		snprintf(text, sizeof(text), "title: t\nneeds: %s\nA exit\n", litmus_need_name(1u << i));
		struct litmus *litmus = parse(text);
		CHECK_EQ(litmus->declared_needs, 1u << i);
		litmus_free(litmus);
	}
}

TEST(machine_implies_swap_and_nodes)
{
	struct litmus *litmus = parse("title: t\nmachine: swap=64M\nA exit\n");

	CHECK_EQ(litmus->needs, NEED_SWAP);
	litmus_free(litmus);
	litmus = parse("title: t\nmachine: nodes=2\nA exit\n");
	CHECK_EQ(litmus->needs, NEED_NUMA);
	CHECK_EQ(litmus->declared_needs, 0);
	litmus_free(litmus);
	litmus = parse("title: t\nmachine: nodes=1 cpus=8 ram=128M\nA exit\n");
	CHECK_EQ(litmus->needs, 0);
	litmus_free(litmus);
}

/* ---- places and sizes ---- */

TEST(places_are_resolved)
{
	static const struct {
		const char *text;
		uint64_t first, npages, offset;
		bool whole;
	} rows[] = {
		{"buf", 0, 8, 0, true},
		{"buf[0]", 0, 1, 0, false},
		{"buf[7]", 7, 1, 0, false},
		{"buf[0..7]", 0, 8, 0, false},
		{"buf[2..2]", 2, 1, 0, false},
		{"buf[6..7]", 6, 2, 0, false},
		{"buf[3]+512", 3, 1, 512, false},
		{"buf[3]+0", 3, 1, 0, false},
		{"buf[0]+4095", 0, 1, 4095, false},
		{"buf[007]+0010", 7, 1, 10, false},
	};
	char line[100];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		snprintf(line, sizeof(line), "A read %s", rows[i].text);
		struct litmus *litmus = parse_line(line);
		const struct place *place = &litmus->stmts[PRELUDE_STMTS].place;

		CHECK_STR_EQ(litmus->names[place->region].text, "buf");
		CHECK_EQ(place->first, rows[i].first);
		CHECK_EQ(place->npages, rows[i].npages);
		CHECK_EQ(place->offset, rows[i].offset);
		CHECK_EQ(place->whole, rows[i].whole);
		CHECK_EQ(place->loc.line, PRELUDE_LINES + 1);
		CHECK_EQ(place->loc.column, 8);
		litmus_free(litmus);
	}
}

TEST(sizes_are_pages_or_bytes)
{
	static const struct {
		const char *text;
		uint64_t npages;
	} rows[] = {
		{"1", 1},    {"4", 4},       {"4K", 1},          {"64K", 16},
		{"2M", 512}, {"1G", 262144}, {"262144", 262144}, {"1048576K", 262144},
	};
	char line[100];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		snprintf(line, sizeof(line), "A map new %s", rows[i].text);
		struct litmus *litmus = parse_line(line);
		const struct stmt *st = &litmus->stmts[PRELUDE_STMTS];

		CHECK_EQ(st->count, rows[i].npages);
		CHECK_EQ(litmus->names[st->name].npages, rows[i].npages);
		litmus_free(litmus);
	}
}

/* Every page around both ends of regions of every small size. */
TEST(pages_outside_their_region_are_refused_at_the_number)
{
	char text[200];

	for (unsigned npages = 1; npages <= 5; npages++) {
		for (unsigned page = 0; page <= 6; page++) {
			snprintf(text, sizeof(text), "title: t\nA map r %u\nA read r[%u]\n", npages, page);
			if (page < npages)
				litmus_free(parse(text));
			else
				CHECK(refused_at(text, 3, 10));
			snprintf(text, sizeof(text), "title: t\nA map r %u\nA read r[0..%u]\n", npages, page);
			if (page < npages)
				litmus_free(parse(text));
			else
				CHECK(refused_at(text, 3, 13));
		}
	}
}

TEST(moved_regions_are_as_large_as_what_moved)
{
	struct litmus *litmus = parse_line("A move buf[2..4] -> new");
	const struct stmt *st = &litmus->stmts[PRELUDE_STMTS];
	const struct name *name = &litmus->names[st->name];

	CHECK_EQ(name->kind, NAME_REGION);
	CHECK_EQ(name->npages, 3);
	CHECK_EQ(name->first, 2);
	CHECK_EQ(name->region, st->place.region);
	litmus_free(litmus);
}

TEST(handles_know_where_they_come_from)
{
	static const struct {
		const char *line;
		enum name_kind kind;
	} rows[] = {
		{"A pin buf[2..4] w -> new", NAME_PIN},
		{"A get buf[2..4] r -> new", NAME_GET},
		{"A splice buf[2..4] -> new", NAME_PIPE},
		{"A uffd buf[2..4] wp -> new", NAME_UFFD},
		{"A lock buf[2..4] -> new", NAME_LOCK},
		{"A pin buf[2..4] w -> new fails EFAULT", NAME_PIN},
		{"A get buf[2..4] w -> new may fail EFAULT", NAME_GET},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct litmus *litmus = parse_line(rows[i].line);
		const struct stmt *st = &litmus->stmts[PRELUDE_STMTS];
		const struct name *name = &litmus->names[st->name];

		CHECK_STR_EQ(name->text, "new");
		CHECK_EQ(name->kind, rows[i].kind);
		CHECK_EQ(name->region, st->place.region);
		CHECK_EQ(name->first, 2);
		CHECK_EQ(name->nhandle, 3);
		CHECK_EQ(name->loc.line, PRELUDE_LINES + 1);
		CHECK_EQ(name->loc.column, strstr(rows[i].line, "new") - rows[i].line + 1);
		litmus_free(litmus);
	}
}

TEST(pages_of_files_are_those_that_can_be_there)
{
	static const char *const good[] = {
		"check file f[3] reads zero\n",
		"truncate f 9\ncheck file f[8] reads zero\n",
		"truncate f 1\ncheck file f[3] reads zero\n",
		"A direct-out buf[0..1] f@7\ncheck file f[8] reads zero\nA direct-in buf f@8\n",
		"A direct-out buf[7] f\nA direct-in buf[7] f\n",
	};
	static const struct {
		const char *text;
		unsigned line, column;
	} bad[] = {
		{"check file f[4] reads zero\n", 4, 14},
		{"truncate f 9\ncheck file f[9] reads zero\n", 5, 14},
		{"A direct-out buf[0..1] f@7\ncheck file f[9] reads zero\n", 5, 14},
		{"A direct-in buf[4] f\n", 4, 21},
		{"A direct-out buf f@262137\n", 4, 20},
	};
	char text[400];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		snprintf(text, sizeof(text), "title: t\nA map buf 8\nfile f 4 \"x\"\n%s", good[i]);
		litmus_free(parse(text));
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "title: t\nA map buf 8\nfile f 4 \"x\"\n%s", bad[i].text);
		CHECK(refused_at(text, bad[i].line, bad[i].column));
	}
}

/* ---- texts ---- */

TEST(every_byte_can_be_written_in_a_text)
{
	char line[100];

	for (unsigned byte = 0; byte < 256; byte++) {
		snprintf(line, sizeof(line), "A write buf \"<\\x%02x\\x%02X>\"", byte, byte);
		struct litmus *litmus = parse_line(line);
		const struct text *text = litmus->stmts[PRELUDE_STMTS].texts;

		CHECK_EQ(text->nbytes, 4);
		CHECK_EQ((unsigned char)text->bytes[1], byte);
		CHECK_EQ((unsigned char)text->bytes[2], byte);
		CHECK(text->bytes[0] == '<' && text->bytes[3] == '>' && !text->bytes[4]);
		litmus_free(litmus);
	}
}

TEST(printable_characters_stand_for_themselves)
{
	char line[100];

	for (unsigned byte = ' '; byte < 0x7f; byte++) {
		if (byte == '"' || byte == '\\')
			continue;
		snprintf(line, sizeof(line), "A write buf \"%c\"", byte);
		struct litmus *litmus = parse_line(line);
		const struct text *text = litmus->stmts[PRELUDE_STMTS].texts;

		CHECK_EQ(text->nbytes, 1);
		CHECK_EQ(text->bytes[0], byte);
		litmus_free(litmus);
	}
	struct litmus *litmus = parse_line("A write buf \"\xc3\xa9\t\xf0\x9f\x98\x80\"");
	CHECK_STR_EQ(litmus->stmts[PRELUDE_STMTS].texts->bytes, "\xc3\xa9\t\xf0\x9f\x98\x80");
	litmus_free(litmus);
}

/* Texts of every length around the end of the page, from several offsets, in bytes and not in characters. */
TEST(texts_end_within_their_page)
{
	static const unsigned offsets[] = {0, 1, 512, 4000, 4095};
	char text[8192], bytes[4200];

	memset(bytes, 'x', sizeof(bytes));
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		for (int more = -1; more <= 1; more++) {
			int length = (int)(4096 - offsets[i]) + more;
			int n = snprintf(text, sizeof(text), "title: t\nA map r 1\nA write r[0]+%u ", offsets[i]);
			unsigned column = (unsigned)(n - (int)strlen("title: t\nA map r 1\n")) + 1;

			if (!length)
				continue;
			snprintf(text + n, sizeof(text) - (size_t)n, "\"%.*s\"\n", length, bytes);
			if (more <= 0)
				litmus_free(parse(text));
			else
				CHECK(refused_at(text, 3, column));
		}
	}
}

/* ---- names ---- */

TEST(names_are_one_name_space)
{
	static const char *const definitions[] = {
		"A map %s 1",         "A move buf -> %s",    "file %s 1 \"x\"",
		"cgroup %s limit=1",  "A pin buf r -> %s",   "A get buf r -> %s",
		"A splice buf -> %s", "A uffd buf wp -> %s", "A lock buf -> %s",
	};
	enum { N = sizeof(definitions) / sizeof(definitions[0]) };
	char text[400], first[100], second[100];

	for (unsigned i = 0; i < N * N; i++) {
		snprintf(first, sizeof(first), definitions[i / N], "name");
		snprintf(second, sizeof(second), definitions[i % N], "name");
		snprintf(text, sizeof(text), "title: t\nA map buf 1\n%s\n%s\n", first, second);
		CHECK(refused_at(text, 4, (unsigned)(strstr(second, "name") - second) + 1));
		snprintf(second, sizeof(second), definitions[i % N], "other");
		snprintf(text, sizeof(text), "title: t\nA map buf 1\n%s\n%s\n", first, second);
		litmus_free(parse(text));
	}
}

TEST(capitals_are_for_processes_only)
{
	static const char *const small[] = {
		"A map %s 1",         "A move buf -> %s",    "file %s 1 \"x\"",
		"cgroup %s limit=1",  "A pin buf r -> %s",   "A get buf r -> %s",
		"A splice buf -> %s", "A uffd buf wp -> %s", "A lock buf -> %s",
	};
	char text[300], line[100];

	for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
		snprintf(line, sizeof(line), small[i], "New");
		snprintf(text, sizeof(text), "title: t\nA map buf 1\n%s\n", line);
		CHECK(refused_at(text, 3, (unsigned)(strstr(line, "New") - line) + 1));
	}
	CHECK(refused_at("title: t\nA fork b\n", 2, 8));
	CHECK(refused_at("title: t\nA fork b * 2\n", 2, 8));
	CHECK(refused_at("title: t\nA snapshot s\n", 2, 12));
}

TEST(names_may_be_words_of_the_language_where_nothing_is_unclear)
{
	struct litmus *litmus = parse("title: t\nA map file 4\nA map count 4\nfile check 1 \"x\"\nA fork Check\n"
				      "A pin file r -> zero\ncheck A reads file zero\ncheck zero reads zero\n"
				      "check A count is present\ncheck file check[0] reads \"x\"\nCheck read count\n");

	CHECK_EQ(litmus->nstmts, 10);
	litmus_free(litmus);
}

TEST(a_starred_fork_defines_all_its_children)
{
	struct litmus *litmus = parse("title: t\nA fork Kid * 1100\nKid1 exit\nKid1100 fork Kid1101\n");
	const struct stmt *st = &litmus->stmts[0];
	char name[32];

	CHECK_EQ(litmus->nnames, 1 + 1100 + 1);
	CHECK(st->starred);
	CHECK_EQ(st->count, 1100);
	for (unsigned i = 0; i < 1100; i++) {
		snprintf(name, sizeof(name), "Kid%u", i + 1);
		CHECK_STR_EQ(litmus->names[(unsigned)st->name + i].text, name);
		CHECK_EQ(litmus->names[(unsigned)st->name + i].kind, NAME_PROCESS);
		CHECK_EQ(litmus->names[(unsigned)st->name + i].loc.column, 8);
	}
	litmus_free(litmus);
}

static bool has_word(const char *words, const char *word)
{
	char spaced[100], wanted[32];

	snprintf(spaced, sizeof(spaced), " %s ", words);
	snprintf(wanted, sizeof(wanted), " %s ", word);
	return strstr(spaced, wanted);
}

/* Which kinds of name each part of a statement takes: everything else is refused at the name. */
TEST(names_of_the_wrong_kind_are_refused_at_the_name)
{
	static const struct {
		const char *before, *after, *good;
	} rows[] = {
		{"A read ", "", "buf"},
		{"A pin ", " r -> new", "buf"},
		{"A peek ", " buf \"x\"", "B"},
		{"unpin ", "", "p"},
		{"put ", "", "q s"},
		{"device ", " write \"x\"", "p q"},
		{"unlock ", "", "l"},
		{"sync ", "", "f"},
		{"A direct-out buf ", "", "f"},
		{"A join ", "", "g"},
		{"A fork C into ", "", "g"},
		{"check ", " reads \"x\"", "p q s"},
		{"check ", " pages 1", "p q"},
		{"check ", " usage 1", "g"},
		{"check ", " event wp buf", "u"},
		{"check file ", "[0] reads \"x\"", "f"},
		{"migrate ", " buf node=1", "B"},
		{"A map new 1 file=", "", "f"},
		{"check A buf same ", " buf", "B"},
		{"u move buf ", "", "buf"},
	};
	static const char *const names[] = {"B", "buf", "f", "g", "p", "q", "s", "u", "l", "nobody"};
	char text[2048];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (size_t j = 0; j < sizeof(names) / sizeof(names[0]); j++) {
			unsigned column = (unsigned)strlen(rows[i].before) + 1;
			bool after_check = !strcmp(rows[i].before, "check ");
			struct litmus *litmus;

			snprintf(text, sizeof(text), "%s%s%s%s\n", PRELUDE, rows[i].before, names[j], rows[i].after);
			if (has_word(rows[i].good, names[j])) {
				litmus_free(parse(text));
				continue;
			}
			/* After `check`, a name that has checks may be right and the check wrong. */
			if (after_check && has_word("B g p q s u", names[j])) {
				CHECK_EQ(parse_bytes(text, strlen(text), &litmus), -EINVAL);
				CHECK_EQ(last_error.loc.line, PRELUDE_LINES + 1);
				CHECK(last_error.loc.column >= column + strlen(names[j]) + 1);
				continue;
			}
			CHECK(refused_at(text, PRELUDE_LINES + 1, column));
		}
	}
}

/* ---- who is there when ---- */

TEST(processes_that_may_be_there_may_act)
{
	static const char *const good[] = {
		"A fork B\nB exit may fail ESRCH\nB read buf\n",
		"A fork B\nB exit fails ESRCH\nB read buf\n",
		"A fork B may fail ENOMEM\nB read buf\n",
		"A fork B\nparallel\nlane\nB exit\nlane\nB read buf\ncheck B reads buf zero\nend\n",
		"A fork B\nparallel\nlane\nA read buf\nlane\nB exit\nend\nA fork C\n",
		"A fork B\nA exit\nB fork C\nC fork D\nB exit\nD read buf\n",
		"parallel\nlane\nA fork B\nB read buf\nlane\nA fork C\nC exit\nend\nB read buf\nB exit\n",
		"parallel\nlane\nA fork B\nlane\nA read buf\nend\nparallel\nlane\nB read buf\nlane\nB exit\nend\n",
		"A pin buf r -> p\nA exit\ncheck p reads zero\nunpin p\n",
		"inject alloc 1\nA pin buf r -> p fails ENOMEM\ncheck p reads zero\nunpin p\n",
	};
	char text[400];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		snprintf(text, sizeof(text), "title: t\nA map buf 1\n%s", good[i]);
		litmus_free(parse(text));
	}
}

TEST(processes_that_cannot_be_there_may_not_act)
{
	static const struct {
		const char *text;
		unsigned line, column;
	} rows[] = {
		{"A fork B\nB exit\nB read buf\n", 5, 1},
		{"A fork B\nB exit\nA peek B buf \"x\"\n", 5, 8},
		{"A fork B fails ENOMEM\ncheck B reads buf \"x\"\n", 4, 7},
		{"A fork K * 3 fails ENOMEM\nK3 exit\n", 4, 1},
		{"A fork B\nparallel\nlane\nB exit\nB read buf\nlane\nA read buf\nend\n", 7, 1},
		{"A fork B\nparallel\nlane\nB exit\nlane\nA read buf\nend\nB read buf\n", 10, 1},
		{"A fork B\nparallel\nlane\nB exit\nlane\nA read buf\nend\nparallel\nlane\nA read buf\nlane\nB "
		 "exit\nend\n",
		 14, 1},
		{"parallel\nlane\nA read buf\nlane\nA map new 1\nlane\nA read new\nend\n", 9, 8},
		{"parallel\nlane\nA map new 1\nlane\nA map new 1\nend\n", 7, 7},
	};
	char text[400];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		snprintf(text, sizeof(text), "title: t\nA map buf 1\n%s", rows[i].text);
		CHECK(refused_at(text, rows[i].line, rows[i].column));
	}
}

TEST(blocks_and_lanes_are_numbered)
{
	static const struct {
		unsigned block, lane;
	} expected[] = {{0, 0}, {1, 0}, {1, 0}, {1, 1}, {0, 0}, {2, 0}, {2, 1}, {2, 2}, {3, 0}};
	struct litmus *litmus = parse(
		"title: t\nA map buf 1\n"
		"parallel\nlane\nA read buf\nA read buf\nlane\nA write buf \"x\"\nend\n"
		"check A reads buf \"x\"\n"
		"  parallel # three\n lane\nA read buf\n lane\nA read buf\n lane\nA read buf\n end\n"
		"parallel\nlane\nA exit\nend\n");

	CHECK_EQ(litmus->nblocks, 3);
	CHECK_EQ(litmus->nstmts, 9);
	for (size_t i = 0; i < 9; i++) {
		CHECK_EQ(litmus->stmts[i].block, expected[i].block);
		CHECK_EQ(litmus->stmts[i].lane, expected[i].lane);
	}
	litmus_free(litmus);
}

/* ---- words ---- */

TEST(options_of_map_come_in_any_order)
{
	static const char *const words[] = {"prot=r", "shared", "file=f", "huge", "populate"};
	char line[200];

	for (unsigned order = 0; order < 120; order++) {
		unsigned left[] = {0, 1, 2, 3, 4}, n = 5, number = order;
		size_t at = (size_t)sprintf(line, "A map new 512");
		struct litmus *litmus;
		const struct stmt *st;

		for (; n; number /= n, n--) {
			unsigned pick = number % n;

			at += (size_t)sprintf(line + at, " %s", words[left[pick]]);
			left[pick] = left[n - 1];
		}
		litmus = parse_line(line);
		st = &litmus->stmts[PRELUDE_STMTS];
		CHECK_EQ(st->options, MAP_OPT_SHARED | MAP_OPT_HUGE | MAP_OPT_POPULATE);
		CHECK_EQ(st->prot, LITMUS_PROT_R);
		CHECK_STR_EQ(litmus->names[st->file].text, "f");
		litmus_free(litmus);
	}
}

TEST(every_error_name_is_accepted)
{
	char line[100];
	unsigned found = 0;

	for (int error = 1; error < 200; error++) {
		if (!strcmp(litmus_error_name(error), "unknown error"))
			continue;
		snprintf(line, sizeof(line), "A unmap buf fails %s", litmus_error_name(error));
		struct litmus *litmus = parse_line(line);
		CHECK_EQ(litmus->stmts[PRELUDE_STMTS].error, error);
		CHECK_EQ(litmus->stmts[PRELUDE_STMTS].outcome, OUTCOME_FAILS);
		litmus_free(litmus);
		found++;
	}
	CHECK(found >= 40);
	struct litmus *litmus = parse_line("A write buf \"x\" may fail SIGSEGV");
	CHECK_EQ(litmus->stmts[PRELUDE_STMTS].error, LITMUS_SIGSEGV);
	CHECK_EQ(litmus->stmts[PRELUDE_STMTS].outcome, OUTCOME_MAY_FAIL);
	litmus_free(litmus);
	litmus = parse_line("A read buf fails SIGBUS");
	CHECK_EQ(litmus->stmts[PRELUDE_STMTS].error, LITMUS_SIGBUS);
	litmus_free(litmus);
}

TEST(words_for_messages_are_never_null)
{
	CHECK_STR_EQ(litmus_error_name(ENOMEM), "ENOMEM");
	CHECK_STR_EQ(litmus_error_name(0), "success");
	CHECK_STR_EQ(litmus_error_name(LITMUS_SIGSEGV), "SIGSEGV");
	CHECK_STR_EQ(litmus_error_name(LITMUS_SIGBUS), "SIGBUS");
	for (int error = -200; error < 5000; error++)
		CHECK(litmus_error_name(error) && *litmus_error_name(error));
	CHECK_STR_EQ(litmus_need_name(NEED_RO_LONGTERM), "ro-longterm");
	CHECK_STR_EQ(litmus_need_name(NEED_SNAPSHOT), "snapshot");
	for (unsigned bit = 0; bit < 32; bit++)
		CHECK(litmus_need_name(1u << bit) && *litmus_need_name(1u << bit));
	CHECK(litmus_need_name(0) && litmus_need_name(3));
	CHECK_STR_EQ(litmus_stmt_name(STMT_DIRECT_OUT), "direct-out");
	CHECK_STR_EQ(litmus_flag_name(LFLAG_ZERO_PAGE), "zero-page");
	for (unsigned i = 0; i <= STMT_KIND_COUNT; i++)
		CHECK(litmus_stmt_name(i) && *litmus_stmt_name(i));
	for (unsigned i = 0; i <= LFLAG_COUNT; i++)
		CHECK(litmus_flag_name(i) && *litmus_flag_name(i));
}

TEST(checks_are_the_kinds_that_compare)
{
	for (unsigned i = 0; i < STMT_KIND_COUNT; i++)
		CHECK_EQ(litmus_is_check(i),
			 i == STMT_PEEK || i == STMT_SCAN || !strncmp(litmus_stmt_name(i), "check ", 6));
	CHECK(!litmus_is_check(STMT_KIND_COUNT));
}

/* An unknown word is answered with all the words that would do, in a message that is not cut. */
TEST(messages_list_what_is_possible)
{
	static const struct {
		const char *line, *words;
	} rows[] = {
		{"A frobnicate-this-thing-that-nobody-has-ever-heard-of",
		 "map unmap protect move advise write read fork snapshot exit pin get splice direct-out direct-in peek "
		 "poke "
		 "remote-write uffd clear-soft-dirty mlock munlock msync scan numa-hint join lock"},
		{"frobnicate-this-thing-that-nobody-has-ever-heard-of",
		 "check parallel lane end device unpin put unlock file sync truncate punch store drop ksm reclaim "
		 "swapoff migrate cgroup inject"},
		{"u frobnicate-this-thing-that-nobody-has-ever-heard-of",
		 "protect unprotect copy zeropage continue move poison wake register unregister close"},
		{"A advise buf frobnicate-this-thing-that-nobody-has-ever-heard-of",
		 "dontfork dofork wipeonfork keeponfork mergeable unmergeable hugepage nohugepage dontneed free cold "
		 "pageout "
		 "populate-read populate-write collapse"},
		{"check A buf is frobnicate-this-thing-that-nobody-has-ever-heard-of",
		 "present exclusive writable dirty accessed soft-dirty wp swapped ksm huge zero-page pinned mapped"},
		{"check count frobnicate-this-thing-that-nobody-has-ever-heard-of 1",
		 "faults reuse copy unshare early-copy zero-fill table-share table-unshare pins unpins swap-in "
		 "swap-out ksm-merge "
		 "wp-event"},
		{"A map new 1 frobnicate-this-thing-that-nobody-has-ever-heard-of",
		 "shared huge hugetlb populate readonly prot file"},
		{"A pin buf w frobnicate-this-thing-that-nobody-has-ever-heard-of -> new", "fast longterm force"},
		{"A protect buf frobnicate-this-thing-that-nobody-has-ever-heard-of", "none r rw"},
		{"inject frobnicate-this-thing-that-nobody-has-ever-heard-of 1", "alloc read write"},
		{"cgroup new frobnicate-this-thing-that-nobody-has-ever-heard-of=1", "limit swap in"},
		{"A uffd buf frobnicate-this-thing-that-nobody-has-ever-heard-of -> new", "wp missing minor"},
		{"check u event frobnicate-this-thing-that-nobody-has-ever-heard-of buf",
		 "wp missing minor fork remap remove unmap none"},
		{"A scan buf frobnicate-this-thing-that-nobody-has-ever-heard-of finds nothing",
		 "written present swapped file zero-page soft-dirty wp-allowed"},
		{"A scan buf written frobnicate-this-thing-that-nobody-has-ever-heard-of", "protect async-only max"},
		{"A uffd buf wp frobnicate-this-thing-that-nobody-has-ever-heard-of -> new",
		 "async sigbus unpopulated on-fork on-remap on-remove on-unmap"},
		{"check p frobnicate-this-thing-that-nobody-has-ever-heard-of", "reads pages"},
		{"check g frobnicate-this-thing-that-nobody-has-ever-heard-of", "usage"},
		{"check u frobnicate-this-thing-that-nobody-has-ever-heard-of", "event"},
		{"check A buf frobnicate-this-thing-that-nobody-has-ever-heard-of", "is same differs"},
	};
	char text[2048];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct litmus *litmus;

		snprintf(text, sizeof(text), "%s%s\n", PRELUDE, rows[i].line);
		CHECK_EQ(parse_bytes(text, strlen(text), &litmus), -EINVAL);
		if (!strstr(last_error.text, rows[i].words) || !strstr(last_error.text, "'frobnicate-"))
			printf("# %s\n", last_error.text);
		CHECK(strstr(last_error.text, rows[i].words) != NULL);
		CHECK(strstr(last_error.text, "'frobnicate-") != NULL);
		CHECK(strlen(last_error.text) < sizeof(last_error.text) - 1);
	}
	static const char *const headers[][2] = {
		{"needs: disk", "swap file thp hugetlb ksm uffd soft-dirty numa cgroup ro-longterm direct-io"},
		{"forks: disk", "eager tables lazy"},
		{"breaks: disk",
		 "exclusive mapcount force-cow refcount refcount-pin pin-breaks-cow reuse-pinned dontcopy-pinned"},
		{"machine: disk=1G", "ram swap nodes cpus"},
		{"disk: big", "title about source catches needs forks breaks machine"},
	};
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		struct litmus *litmus;

		snprintf(text, sizeof(text), "title: t\n%s\nA exit\n", headers[i][0]);
		CHECK_EQ(parse_bytes(text, strlen(text), &litmus), -EINVAL);
		CHECK(strstr(last_error.text, headers[i][1]) != NULL);
	}
}

/* ---- files that end or change anywhere ---- */

static char *whole_program(void)
{
	char *text = NULL;
	size_t nbytes;
	FILE *out = open_memstream(&text, &nbytes);

	REQUIRE(out);
	fputs(PRELUDE, out);
	for (size_t i = 0; i < NEXAMPLES; i++) /* those that define nothing and end nothing stand together */
		if (!strstr(examples[i].line, "new") && !strstr(examples[i].line, "fork ") &&
		    !strstr(examples[i].line, "snapshot") && !strstr(examples[i].line, " exit"))
			fprintf(out, "%s\n", examples[i].line);
	fputs("parallel\nlane\nA read buf\nlane\nB exit\nend\n", out);
	fclose(out);
	return text;
}

/* A refusal has a place in the file: a line that exists and a column at most one behind its last character. */
static void check_place(const char *bytes, size_t nbytes)
{
	const char *line = bytes, *end = bytes + nbytes, *feed;
	unsigned number = 1;

	for (; number < last_error.loc.line; number++) {
		feed = memchr(line, '\n', (size_t)(end - line));
		CHECK(feed != NULL);
		line = feed + 1;
	}
	feed = memchr(line, '\n', (size_t)(end - line));
	CHECK(last_error.loc.line >= 1);
	CHECK(last_error.loc.column >= 1);
	CHECK(last_error.loc.column <= (size_t)((feed ? feed : end) - line) + 1);
	CHECK(last_error.text[0] && !strchr(last_error.text, '\n'));
}

TEST(every_beginning_of_a_test_is_a_test_or_refused_in_place)
{
	char *text = whole_program();
	size_t nbytes = strlen(text);
	unsigned good = 0;

	for (size_t n = 0; n <= nbytes; n++) {
		struct litmus *litmus = NULL;
		int err = parse_bytes(text, n, &litmus);

		if (!err) {
			litmus_free(litmus);
			good++;
			continue;
		}
		CHECK_EQ(err, -EINVAL);
		check_place(text, n);
		CHECK_GO_ON();
	}
	CHECK(good >= 100);
	free(text);
}

TEST(changed_bytes_are_a_test_or_refused_in_place)
{
	char *text = whole_program();
	size_t nbytes = strlen(text);

	random_state = tap_seed();
	for (unsigned i = 0; i < 20000; i++) {
		size_t at = random_below(nbytes);
		char old[4];
		size_t n = 1 + random_below(nbytes - at < 4 ? nbytes - at : 4);
		struct litmus *litmus = NULL;
		int err;

		memcpy(old, text + at, n);
		for (size_t j = 0; j < n; j++)
			text[at + j] = random_below(2) ? (char)random_below(256) : text[random_below(nbytes)];
		err = parse_bytes(text, nbytes, &litmus);
		if (!err) {
			litmus_free(litmus);
		} else {
			CHECK_EQ(err, -EINVAL);
			check_place(text, nbytes);
			CHECK_GO_ON();
		}
		memcpy(text + at, old, n);
	}
	free(text);
}

TEST(a_printed_test_parses_to_itself)
{
	char *text = whole_program(), *once, *twice;
	struct litmus *litmus = parse(text), *again;
	size_t nbytes;

	once = ast_print(litmus, &nbytes);
	again = parse(once);
	twice = ast_print(again, &nbytes);
	CHECK_STR_EQ(once, twice);
	CHECK_EQ(litmus->nstmts, again->nstmts);
	CHECK_EQ(litmus->nnames, again->nnames);
	litmus_free(litmus);
	litmus_free(again);
	free(text);
	free(once);
	free(twice);
}

/* ---- exhaustion and limits ---- */

TEST(every_failed_allocation_is_enomem_and_nothing_leaks)
{
	char *text = whole_program();
	unsigned long n = 0;
	int err;

	do {
		struct litmus *litmus = NULL;

		litmus_fail_allocation = ++n;
		err = parse_bytes(text, strlen(text), &litmus);
		CHECK_EQ(err, litmus_fail_allocation ? 0 : -ENOMEM);
		if (err) {
			CHECK(!litmus);
			CHECK_STR_EQ(last_error.text, "out of memory");
		}
		litmus_free(litmus);
	} while (err);
	CHECK(n > 200);
	litmus_fail_allocation = 0;
	free(text);
}

static char *repeat(const char *before, const char *line, size_t count, const char *after)
{
	size_t nbefore = strlen(before), nline = strlen(line), nafter = strlen(after);
	char *text = malloc(nbefore + nline * count + nafter + 1), *at = text;

	REQUIRE(text);
	at = mempcpy(at, before, nbefore);
	while (count--)
		at = mempcpy(at, line, nline);
	memcpy(at, after, nafter + 1);
	return text;
}

TEST(limits_are_reached_and_not_passed)
{
	char *text = repeat("title: t\nA map buf 1\n", "A read buf\n", MAX_STATEMENTS - 1, "");

	litmus_free(parse(text));
	free(text);
	text = repeat("title: t\nA map buf 1\n", "A read buf\n", MAX_STATEMENTS - 1, "A read buf\n");
	CHECK(refused_at(text, MAX_STATEMENTS + 2, 1));
	free(text);
	text = repeat("title: ", "t", MAX_LINE_BYTES - 7, "\nA exit\n");
	litmus_free(parse(text));
	free(text);
	text = repeat("title: ", "t", MAX_LINE_BYTES * 5, "\nA exit\n");
	CHECK(refused_at(text, 1, MAX_LINE_BYTES + 1));
	free(text);
	text = repeat("title: t\nA exit\n", "#\n", (MAX_INPUT_BYTES - 16) / 2, "");
	CHECK_EQ(strlen(text), MAX_INPUT_BYTES);
	litmus_free(parse(text));
	free(text);
	text = repeat("title: t\nA exit\n", "#\n", (MAX_INPUT_BYTES - 16) / 2, "\n");
	CHECK(refused_at(text, 1, 1));
	free(text);
}

/* As many processes as there may be, and @nregions regions. */
static char *program_of_names(unsigned nregions)
{
	char *text = NULL;
	size_t nbytes;
	FILE *out = open_memstream(&text, &nbytes);

	REQUIRE(out);
	fputs("title: t\n", out);
	for (unsigned i = 0; i < 4; i++)
		fprintf(out, "A fork P%c * %u\n", 'a' + i, i < 3 ? MAX_CHILDREN : MAX_CHILDREN - 1);
	for (unsigned i = 0; i < nregions; i++)
		fprintf(out, "A map r%u 1\n", i);
	fclose(out);
	return text;
}

TEST(names_are_limited)
{
	unsigned left = MAX_NAMES - MAX_PROCESSES;
	char *text = program_of_names(left);

	litmus_free(parse(text));
	free(text);
	text = program_of_names(left + 1);
	CHECK(refused_at(text, 1 + 4 + left + 1, 7));
	free(text);
}

/* ---- files ---- */

TEST(files_are_read_and_named)
{
	const char *base = getenv("TMPDIR");
	char folder[200], path[300];
	struct litmus *litmus = NULL;
	FILE *file;

	snprintf(folder, sizeof(folder), "%s/ucow-parse-XXXXXX", base ? base : P_tmpdir);
	REQUIRE(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/a.test.litmus", folder);
	file = fopen(path, "w");
	REQUIRE(file);
	fputs("title: from a file\nA exit\n", file);
	for (unsigned i = 0; i < 20000; i++)
		fputs("# more than one read takes\n", file);
	fclose(file);
	CHECK_EQ(litmus_parse_file(path, &litmus, &last_error), 0);
	CHECK_STR_EQ(litmus->path, path);
	CHECK_STR_EQ(litmus->test, "a.test");
	CHECK_STR_EQ(litmus->title, "from a file");
	litmus_free(litmus);
	unlink(path);
	CHECK_EQ(litmus_parse_file(path, &litmus, &last_error), -ENOENT);
	CHECK_EQ(last_error.loc.line, 0);
	CHECK_EQ(last_error.loc.column, 0);
	CHECK(strlen(last_error.text) > 0);
	CHECK_EQ(litmus_parse_file(folder, &litmus, &last_error), -EISDIR);
	CHECK_EQ(last_error.loc.line, 0);
	rmdir(folder);
}

TEST(endless_and_empty_files_are_refused)
{
	struct litmus *litmus = NULL;

	CHECK_EQ(litmus_parse_file("/dev/zero", &litmus, &last_error), -EINVAL);
	CHECK_EQ(last_error.loc.line, 1);
	CHECK_EQ(last_error.loc.column, 1);
	CHECK_EQ(litmus_parse_file("/dev/null", &litmus, &last_error), -EINVAL);
	CHECK_EQ(last_error.loc.line, 1);
	CHECK_EQ(last_error.loc.column, 1);
	CHECK_EQ(litmus_parse("x", NULL, 0, &litmus, &last_error), -EINVAL);
	CHECK(!litmus);
	litmus_free(NULL);
}

TEST(a_test_is_called_as_its_file)
{
	static const char *const rows[][2] = {
		{"a.litmus", "a"},        {"x/y/pin-r.litmus", "pin-r"},
		{"./fork", "fork"},       {"a.litmus.bak", "a.litmus.bak"},
		{"x/.litmus", ".litmus"}, {"<stdin>", "<stdin>"},
	};
	struct litmus *litmus;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CHECK_EQ(litmus_parse(rows[i][0], "title: t\nA exit", 15, &litmus, &last_error), 0);
		CHECK_STR_EQ(litmus->path, rows[i][0]);
		CHECK_STR_EQ(litmus->test, rows[i][1]);
		litmus_free(litmus);
	}
}

TAP_MAIN()
