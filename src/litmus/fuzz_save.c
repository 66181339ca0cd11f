/* SPDX-License-Identifier: MIT */
/*
 * A divergence as a litmus file: the program up to where it diverges, with the outcomes that the reference had, what
 * both showed, and checks that hold where the reference is right.
 */
#include "fuzz_program.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct saver {
	FILE *out;
	const struct fuzz_program *program;
	const struct fuzz_divergence *divergence;
	struct fuzz_test test;
	unsigned sees;                   /* what the reference sees */
	size_t nstmts;                   /* of the program, that the file has */
	size_t ndone;                    /* of those, that the reference has done for this file */
	struct fuzz_view *view, *before; /* after the last of those, and after the one before it */
	unsigned nchecks;
	bool skip_zeros; /* of checks that are there for want of better ones */
};

/* ---- what the reference shows ---- */

static const struct fuzz_page *page_of(const struct saver *s, int process, int page)
{
	return &s->view->pages[process][page];
}

static bool is_about(const struct saver *s, const char *what)
{
	return strstr(s->divergence->what, what) != NULL;
}

/* Of what has been printed so far. */
static const struct stmt *definition_of(const struct saver *s, int name)
{
	for (size_t i = 0; i < s->ndone; i++)
		if (s->test.litmus->stmts[i].name == name)
			return &s->test.litmus->stmts[i];
	return NULL;
}

/* Whether the file has the region of @page so far, and @process lives. */
static bool is_there(const struct saver *s, int process, int page)
{
	return s->view->alive[process] && (!process || definition_of(s, s->test.layout.process[process])) &&
	       definition_of(s, s->test.layout.page[page].region);
}

/* ---- texts ---- */

/* Free text of a header line: what would end it, or is no character, is written as an escape. */
static void print_free(struct saver *s, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		fprintf(s->out, c < 0x20 || c >= 0x7f || c == '#' ? "\\x%02x" : "%c", c);
	}
}

/* The bytes at a spot, all of them: what else may stand behind a text shows there. */
static void print_spot(struct saver *s, const uint8_t *window, unsigned spot)
{
	const uint8_t *bytes = window + (size_t)spot * FUZZ_TEXT;

	fprintf(s->out, "\"");
	for (unsigned i = 0; i < FUZZ_TEXT; i++)
		fprintf(s->out,
			bytes[i] == '"' || bytes[i] == '\\'   ? "\\%c"
			: bytes[i] < 0x20 || bytes[i] >= 0x7f ? "\\x%02x"
							      : "%c",
			bytes[i]);
	fprintf(s->out, "\"\n");
}

static const char *name_of(const struct saver *s, int name)
{
	return s->test.litmus->names[name].text;
}

static const char *process_name(const struct saver *s, int process)
{
	return name_of(s, s->test.layout.process[process]);
}

static void print_place(struct saver *s, int page)
{
	fprintf(s->out, "%s[%u]", name_of(s, s->test.layout.page[page].region), s->test.layout.page[page].page);
}

static void print_plus(struct saver *s, unsigned offset)
{
	if (offset)
		fprintf(s->out, "+%u", offset);
}

/* ---- statements ---- */

/* How many faults a store takes is whether memory is writable before it. */
static void print_writable(struct saver *s, const struct stmt *stmt)
{
	unsigned faults = s->view->faults;

	if (!is_about(s, "fault") || s->view->outcome || faults == UINT_MAX || stmt->kind != STMT_WRITE ||
	    (faults && stmt->place.npages > 1))
		return;
	fprintf(s->out, "check %s %s[%u", name_of(s, stmt->proc), name_of(s, stmt->place.region),
		(unsigned)stmt->place.first);
	if (stmt->place.npages > 1)
		fprintf(s->out, "..%u", (unsigned)(stmt->place.first + stmt->place.npages - 1));
	fprintf(s->out, "] is %swritable\n", faults ? "not " : "");
	s->nchecks++;
}

/* The child of a fork that fails would be no name to use below: there it may fail. */
static void print_stmt(struct saver *s, const struct stmt *stmt, int outcome)
{
	bool makes_process = stmt->kind == STMT_FORK || stmt->kind == STMT_SNAPSHOT;

	fprintf(s->out, "%s", stmt->source);
	if (outcome)
		fprintf(s->out, " %s %s", makes_process ? "may fail" : "fails", litmus_error_name(outcome));
	fprintf(s->out, "\n");
}

static bool is_at(const struct saver *s, const struct stmt *stmt, int page)
{
	uint64_t number = s->test.layout.page[page].page;

	return stmt->place.region == s->test.layout.page[page].region && number >= stmt->place.first &&
	       number < stmt->place.first + stmt->place.npages;
}

/*
 * Whether looking at @page by a load, as subjects do at shared memory, may have changed it after @stmt: else it was
 * there, as it was before.
 */
static bool load_matters(const struct saver *s, const struct stmt *stmt, int process, int page)
{
	const struct fuzz_page *now = page_of(s, process, page), *before = &s->before->pages[process][page];

	if (!is_there(s, process, page) || !now->has_bytes || !(s->test.looks || now->shared))
		return false;
	return is_at(s, stmt, page) || !s->before->alive[process] || !before->present || !before->mapped ||
	       before->frame != now->frame;
}

static void print_loads(struct saver *s, const struct stmt *stmt)
{
	for (int process = 0; process < (int)s->test.layout.nprocesses; process++) {
		for (int page = 0; page < (int)s->test.layout.npages; page++) {
			if (!load_matters(s, stmt, process, page))
				continue;
			fprintf(s->out, "%s read ", process_name(s, process));
			print_place(s, page);
			fprintf(s->out, "\n");
		}
	}
}

static int step(struct saver *s, struct fuzz_subject *reference)
{
	const struct stmt *stmt = &s->test.litmus->stmts[s->ndone];
	struct fuzz_view *before = s->view;
	char why[160];
	int err;

	s->view = s->before;
	s->before = before;
	err = reference->type->step(reference, s->ndone, s->view, why, sizeof(why));
	if (err)
		return err;
	s->ndone++;
	if (s->ndone == s->nstmts)
		print_writable(s, stmt);
	print_stmt(s, stmt, s->view->outcome);
	print_loads(s, stmt);
	return 0;
}

/* The statements as the reference does them once more, and those that it does not come to. */
static void print_stmts(struct saver *s, struct fuzz_subject *reference)
{
	char why[160];

	if (reference->type->begin(reference, &s->test, why, sizeof(why)) == 0) {
		while (s->ndone < s->nstmts && !step(s, reference))
			continue;
		reference->type->end(reference, why, sizeof(why));
	}
	for (size_t i = s->ndone; i < s->nstmts; i++)
		print_stmt(s, &s->test.litmus->stmts[i], 0);
}

/* ---- checks of pages ---- */

static const unsigned spots[FUZZ_SPOTS] = FUZZ_SPOT_OFFSETS;

static bool is_zero(const uint8_t *bytes, size_t nbytes)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, nbytes - 1);
}

/* What was seen by a load, a load sees; what was seen in the page itself may be behind a mapping without access. */
static void print_reader(struct saver *s, int process, int page)
{
	const char *name = process_name(s, process);

	if (s->test.looks || page_of(s, process, page)->shared)
		fprintf(s->out, "check %s reads ", name);
	else
		fprintf(s->out, "%s peek %s ", name, name);
	print_place(s, page);
}

/* Nothing is ever written but at the spots. */
static void check_bytes(struct saver *s, int process, int page)
{
	const struct fuzz_page *seen = page_of(s, process, page);
	bool all_zero = is_zero(seen->bytes, FUZZ_WINDOW);

	for (unsigned spot = 0; seen->has_bytes && spot < (all_zero ? 1 : FUZZ_SPOTS); spot++) {
		if (s->skip_zeros && !all_zero && is_zero(seen->bytes + (size_t)spot * FUZZ_TEXT, FUZZ_TEXT))
			continue;
		print_reader(s, process, page);
		s->nchecks++;
		if (!all_zero)
			print_plus(s, spots[spot]);
		fprintf(s->out, all_zero ? " zero\n" : " ");
		if (!all_zero)
			print_spot(s, seen->bytes, spot);
	}
}

static void check_flag(struct saver *s, int process, int page, bool holds, const char *flag)
{
	fprintf(s->out, "check %s ", process_name(s, process));
	print_place(s, page);
	fprintf(s->out, " is %s%s\n", holds ? "" : "not ", flag);
	s->nchecks++;
}

static void check_mapcount(struct saver *s, int process, int page)
{
	fprintf(s->out, "check %s mapcount ", process_name(s, process));
	print_place(s, page);
	fprintf(s->out, " %" PRIu32 "\n", page_of(s, process, page)->mapcount);
	s->nchecks++;
}

static void check_same(struct saver *s, int process, int page, int process2, int page2)
{
	bool same = page_of(s, process, page)->frame == page_of(s, process2, page2)->frame;

	fprintf(s->out, "check %s ", process_name(s, process));
	print_place(s, page);
	fprintf(s->out, " %s %s ", same ? "same" : "differs", process_name(s, process2));
	print_place(s, page2);
	fprintf(s->out, "\n");
	s->nchecks++;
}

/* Against the same page of the other processes, and all others with the same frame. */
static void check_frames(struct saver *s, int process, int page)
{
	const struct fuzz_layout *layout = &s->test.layout;
	uint64_t frame = page_of(s, process, page)->frame;

	for (int process2 = 0; frame && process2 < (int)layout->nprocesses; process2++) {
		for (int page2 = 0; s->view->alive[process2] && page2 < (int)layout->npages; page2++) {
			uint64_t frame2 = page_of(s, process2, page2)->frame;
			bool itself = process == process2 && page == page2;

			if (frame2 && !itself && (page == page2 || frame == frame2))
				check_same(s, process, page, process2, page2);
		}
	}
}

static void print_unreadable(struct saver *s, int process, int page)
{
	fprintf(s->out, "%s read ", process_name(s, process));
	print_place(s, page);
	fprintf(s->out, " fails SIGSEGV\n");
}

/* The property that differs, if there are words for it. */
static void check_page(struct saver *s, int process, int page)
{
	const struct fuzz_page *seen = page_of(s, process, page);

	if (!is_there(s, process, page))
		return;
	if (s->sees & FUZZ_SEES_MAPPED && (is_about(s, "mapped") || !seen->mapped))
		check_flag(s, process, page, seen->mapped, "mapped");
	if (!seen->mapped)
		return;
	if (s->sees & FUZZ_SEES_PRESENT && is_about(s, "present"))
		check_flag(s, process, page, seen->present, "present");
	if (s->sees & FUZZ_SEES_PRESENT && is_about(s, "zero"))
		check_flag(s, process, page, seen->zero, "zero-page");
	if (s->sees & FUZZ_SEES_EXCLUSIVE && is_about(s, "exclusive") && seen->present)
		check_flag(s, process, page, seen->exclusive, "exclusive");
	if (s->sees & FUZZ_SEES_MAPCOUNT && is_about(s, "mapcount") && seen->present && !seen->shared)
		check_mapcount(s, process, page);
	if (s->sees & FUZZ_SEES_FRAMES && (is_about(s, "frame") || is_about(s, "copy")))
		check_frames(s, process, page);
	if (s->sees & FUZZ_SEES_BYTES && (is_about(s, "byte") || is_about(s, "readable")))
		check_bytes(s, process, page);
	if (s->sees & FUZZ_SEES_BYTES && is_about(s, "readable") && !seen->has_bytes)
		print_unreadable(s, process, page);
}

/* ---- checks of handles and files ---- */

/* A device looks where its place begins, and at all pages alike. */
static void check_held_bytes(struct saver *s, const struct stmt *made, const struct fuzz_held *held)
{
	unsigned spot = 0;

	while (spot < FUZZ_SPOTS && spots[spot] != made->place.offset)
		spot++;
	for (unsigned i = 0; i < held->npages; i++) {
		const uint8_t *bytes = held->bytes[i] + (size_t)spot * FUZZ_TEXT;

		if (spot == FUZZ_SPOTS || !held->has_bytes[i] ||
		    memcmp(bytes, held->bytes[0] + (size_t)spot * FUZZ_TEXT, FUZZ_TEXT))
			return;
	}
	fprintf(s->out, "check %s reads ", name_of(s, made->name));
	print_spot(s, held->bytes[0], spot);
	s->nchecks++;
}

static void check_handle(struct saver *s, int handle)
{
	const struct fuzz_held *held = &s->view->held[handle];
	const struct stmt *made = definition_of(s, s->test.layout.handle[handle]);

	if (!made || !held->bound || !held->npages || held->npages > FUZZ_HANDLE_PAGES)
		return;
	if (made->kind != STMT_SPLICE) {
		fprintf(s->out, "check %s pages %u\n", name_of(s, made->name), held->npages);
		s->nchecks++;
	}
	check_held_bytes(s, made, held);
}

static void check_files(struct saver *s)
{
	for (unsigned file = 0; file < s->test.layout.nfiles; file++) {
		const struct fuzz_file *seen = &s->view->files[file];

		for (unsigned page = 0; seen->made && page < seen->npages && page < FUZZ_FILE_PAGES; page++) {
			fprintf(s->out, "check file %s[%u] reads ", name_of(s, s->test.layout.file[file]), page);
			print_spot(s, seen->bytes[page], 0);
			s->nchecks++;
		}
	}
}

/* ---- the file ---- */

/* A test has a check: where there are no words for what differs, that memory is as the reference has it. */
static void check_anything(struct saver *s)
{
	const struct fuzz_layout *layout = &s->test.layout;

	s->skip_zeros = true;
	for (int process = 0; process < (int)layout->nprocesses; process++)
		for (int page = 0; page < (int)layout->npages; page++)
			if (is_there(s, process, page) && page_of(s, process, page)->mapped)
				check_bytes(s, process, page);
	for (int process = 0; process < (int)layout->nprocesses && !s->nchecks; process++)
		if (is_there(s, process, 0) && s->sees & FUZZ_SEES_MAPPED)
			check_flag(s, process, 0, page_of(s, process, 0)->mapped, "mapped");
	if (!s->nchecks)
		check_files(s);
}

static void print_checks(struct saver *s)
{
	const struct fuzz_divergence *divergence = s->divergence;

	if (s->ndone < s->nstmts)
		return;
	if (divergence->process >= 0 && divergence->page >= 0)
		check_page(s, divergence->process, divergence->page);
	if (divergence->handle >= 0)
		check_handle(s, divergence->handle);
	if (is_about(s, "file"))
		check_files(s);
	if (!s->nchecks)
		check_anything(s);
}

static void print_observation(struct saver *s, unsigned which)
{
	fprintf(s->out, "about: %s: ", s->divergence->subjects[which]);
	print_free(s, s->divergence->saw[which][0] ? s->divergence->saw[which] : "nothing to tell");
	fprintf(s->out, "\n");
}

static void print_header(struct saver *s)
{
	const struct fuzz_divergence *divergence = s->divergence;
	const char *against = s->program->against == FUZZ_AGAINST_KERNEL ? "kernel" : "modes";

	fprintf(s->out, "title: %s and %s differ: ", divergence->subjects[0], divergence->subjects[1]);
	print_free(s, divergence->what);
	fprintf(s->out, "\nabout: after the statement ");
	print_free(s, s->test.litmus->stmts[s->nstmts - 1].source);
	fprintf(s->out, "\n");
	print_observation(s, 0);
	if (!divergence->is_error)
		print_observation(s, 1);
	if (s->program->looks)
		fprintf(s->out, "about: every page is loaded after each statement, where that may matter\n");
	if (s->ndone < s->nstmts)
		fprintf(s->out, "about: the reference did not come to an end again: outcomes and checks are missing\n");
	fprintf(s->out, "source: ucow fuzz --against %s, the program of seed %" PRIu64 ", made smaller\n", against,
		s->program->seed);
	fprintf(s->out, "catches: a mistake in the rules for ");
	print_free(s, divergence->what);
	if (s->program->room)
		fprintf(s->out, "\nmachine: ram=2M swap=4M");
	fprintf(s->out, "\n\n");
}

static int close_text(struct saver *s)
{
	bool failed = ferror(s->out);

	return fclose(s->out) || failed ? -ENOMEM : 0;
}

/* Somebody holds all but the frames that the program had to spare. */
static void print_holder(struct saver *s)
{
	unsigned nheld = FUZZ_SMALL_FRAMES - s->program->room;

	if (s->program->room)
		fprintf(s->out, "A fork Holder\nHolder map held %u\nHolder pin held w longterm -> rest\n", nheld);
}

/* The header tells how far the statements came: they are printed before it. */
static int print_file(struct saver *s, struct fuzz_subject *reference, char **text, size_t *nbytes)
{
	char *body = NULL;
	size_t nbody;
	int err;

	s->out = open_memstream(&body, &nbody);
	if (!s->out)
		return -ENOMEM;
	print_stmts(s, reference);
	print_checks(s);
	err = close_text(s);
	s->out = err ? NULL : open_memstream(text, nbytes);
	if (s->out) {
		print_header(s);
		print_holder(s);
		fprintf(s->out, "%s", body);
		err = close_text(s);
	}
	free(body);
	return s->out ? err : -ENOMEM;
}

/* ---- into the folder ---- */

/* A new file: the first number that is free. */
static int create_file(const char *dir, const struct saver *s, char *path, size_t size)
{
	char what[sizeof(s->divergence->what)];
	int fd = -1;

	for (size_t i = 0; i < sizeof(what); i++) {
		char c = s->divergence->what[i];

		what[i] = !c || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? c : '-';
	}
	what[sizeof(what) - 1] = '\0';
	for (unsigned n = 1; fd < 0 && n < 10000; n++) {
		char number[16] = "";

		if (n > 1)
			snprintf(number, sizeof(number), "-%u", n);
		if ((size_t)snprintf(path, size, "%s/fuzz-%s-%" PRIu64 "%s.litmus", dir, what, s->program->seed,
				     number) >= size)
			return -ENAMETOOLONG;
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (fd < 0 && errno != EEXIST)
			return -errno;
	}
	return fd < 0 ? -EEXIST : fd;
}

static int write_all(int fd, const char *bytes, size_t nbytes)
{
	while (nbytes) {
		ssize_t n = write(fd, bytes, nbytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		bytes += n;
		nbytes -= (size_t)n;
	}
	return 0;
}

/* With all those that it lies in. */
static int make_folder(const char *dir)
{
	char path[4096];
	size_t length = strlen(dir);

	if (length >= sizeof(path))
		return -ENAMETOOLONG;
	memcpy(path, dir, length + 1);
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(path, 0777) && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return mkdir(path, 0777) && errno != EEXIST ? -errno : 0;
}

static int write_file(const char *dir, const struct saver *s, const char *text, size_t nbytes, char *path, size_t size)
{
	int fd, err = *dir ? make_folder(dir) : -ENOENT;

	if (err)
		return err;
	fd = create_file(dir, s, path, size);
	if (fd < 0)
		return fd;
	err = write_all(fd, text, nbytes);
	if (close(fd) && !err)
		err = -errno;
	if (err)
		unlink(path);
	return err;
}

/* ---- from the program ---- */

static int open_test(struct saver *s, struct litmus **litmus)
{
	struct litmus_error error;
	char *text;
	size_t nbytes;
	int err = fuzz_print(s->program, &text, &nbytes);

	if (err)
		return err;
	err = litmus_parse("fuzz.litmus", text, nbytes, litmus, &error);
	free(text);
	if (err)
		return err;
	s->test.litmus = *litmus;
	s->test.looks = s->program->looks;
	s->nstmts = s->divergence->at < (*litmus)->nstmts ? s->divergence->at + 1 : (*litmus)->nstmts;
	return fuzz_lay_out(*litmus, &s->test.layout) ? 0 : -E2BIG;
}

int fuzz_save(const char *dir, const struct fuzz_program *program, struct fuzz_subject *reference,
	      const struct fuzz_divergence *divergence, char *path, size_t size)
{
	struct saver s = {.program = program, .divergence = divergence, .sees = reference->type->sees};
	struct litmus *litmus = NULL;
	char *text = NULL;
	size_t nbytes = 0;
	int err = open_test(&s, &litmus);

	s.view = calloc(1, sizeof(*s.view));
	s.before = calloc(1, sizeof(*s.before));
	if (!err)
		err = s.view && s.before ? print_file(&s, reference, &text, &nbytes) : -ENOMEM;
	if (!err)
		err = write_file(dir, &s, text, nbytes, path, size);
	free(text);
	free(s.view);
	free(s.before);
	litmus_free(litmus);
	return err;
}
