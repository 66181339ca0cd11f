/* SPDX-License-Identifier: MIT */
/*
 * For tests of the litmus parser: a parsed test printed back in one canonical form, and everything that litmus.h
 * promises of a parsed test checked. Shares no code with the parser.
 */
#ifndef UCOW_TESTS_LITMUS_AST_H
#define UCOW_TESTS_LITMUS_AST_H

#include "litmus/litmus.h"

#include <ucow/machine.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- printing ---- */

static inline void ast_print_place(FILE *out, const struct litmus *litmus, const struct place *place)
{
	fprintf(out, " %s", litmus->names[place->region].text);
	if (place->whole)
		return;
	if (place->npages == 1)
		fprintf(out, "[%" PRIu64 "]", place->first);
	else
		fprintf(out, "[%" PRIu64 "..%" PRIu64 "]", place->first, place->first + place->npages - 1);
	if (place->offset)
		fprintf(out, "+%" PRIu64, place->offset);
}

static inline void ast_print_text(FILE *out, const struct text *text)
{
	if (text->zero) {
		fputs(" zero", out);
		return;
	}
	fputs(" \"", out);
	for (size_t i = 0; i < text->nbytes; i++) {
		unsigned char c = (unsigned char)text->bytes[i];

		if (c == '\n' || c == '\t')
			fputs(c == '\n' ? "\\n" : "\\t", out);
		else if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			fprintf(out, "\\x%02x", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

static inline void ast_print_texts(FILE *out, const struct stmt *st)
{
	for (size_t i = 0; i < st->ntexts; i++) {
		if (i)
			fputs(" or", out);
		ast_print_text(out, &st->texts[i]);
	}
}

static inline const char *ast_name(const struct litmus *litmus, int name)
{
	return litmus->names[name].text;
}

static inline void ast_print_map(FILE *out, const struct litmus *litmus, const struct stmt *st)
{
	fprintf(out, " %s %" PRIu64, ast_name(litmus, st->name), st->count);
	if (st->prot != LITMUS_PROT_RW)
		fputs(st->prot == LITMUS_PROT_R ? " prot=r" : " prot=none", out);
	if (st->options & MAP_OPT_SHARED)
		fputs(" shared", out);
	if (st->file >= 0)
		fprintf(out, " file=%s", ast_name(litmus, st->file));
	if (st->file >= 0 && st->file_page)
		fprintf(out, "@%" PRIu64, st->file_page);
	if (st->options & MAP_OPT_HUGE)
		fputs(" huge", out);
	if (st->options & MAP_OPT_HUGETLB)
		fputs(" hugetlb", out);
	if (st->options & MAP_OPT_POPULATE)
		fputs(" populate", out);
	if (st->options & MAP_OPT_READONLY)
		fputs(" readonly", out);
}

static inline void ast_print_gup(FILE *out, const struct litmus *litmus, const struct stmt *st)
{
	ast_print_place(out, litmus, &st->place);
	fputs(st->options & GUP_OPT_WRITE ? " w" : " r", out);
	if (st->options & GUP_OPT_FAST)
		fputs(" fast", out);
	if (st->options & GUP_OPT_LONGTERM)
		fputs(" longterm", out);
	if (st->options & GUP_OPT_FORCE)
		fputs(" force", out);
	fprintf(out, " -> %s", ast_name(litmus, st->name));
}

static inline void ast_print_modes(FILE *out, unsigned modes)
{
	const char *separator = " ";

	for (unsigned i = 0; i < 3; i++) {
		if (!(modes & 1u << i))
			continue;
		fprintf(out, "%s%s", separator, i == 0 ? "wp" : i == 1 ? "missing" : "minor");
		separator = "+";
	}
}

static inline void ast_print_features(FILE *out, unsigned options)
{
	static const char *const words[] = {"async",    "sigbus",    "unpopulated", "on-fork",
					    "on-remap", "on-remove", "on-unmap"};

	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (options & UFFD_MODE_ASYNC << i)
			fprintf(out, " %s", words[i]);
}

static inline void ast_print_categories(FILE *out, unsigned bits)
{
	static const char *const words[] = {
#define X(id, word) word,
		SCAN_WORDS(X)
#undef X
	};
	const char *separator = " ";

	for (unsigned i = 0; i < SCAN_COUNT; i++) {
		if (!(bits & 1u << i))
			continue;
		fprintf(out, "%s%s", separator, words[i]);
		separator = "+";
	}
}

static inline void ast_print_scan(FILE *out, const struct litmus *litmus, const struct stmt *st)
{
	struct place found = st->place;

	ast_print_place(out, litmus, &st->place);
	ast_print_categories(out, st->required & ~st->inverted);
	if (st->inverted)
		fputs(" not", out);
	ast_print_categories(out, st->inverted);
	if (st->options & SCAN_OPT_PROTECT)
		fputs(" protect", out);
	if (st->options & SCAN_OPT_ASYNC_ONLY)
		fputs(" async-only", out);
	if (st->count)
		fprintf(out, " max=%" PRIu64, st->count);
	if (st->outcome == OUTCOME_FAILS)
		return;
	fputs(st->nranges ? " finds" : " finds nothing", out);
	found.whole = false;
	for (size_t i = 0; i < st->nranges; i++) {
		found.first = st->ranges[i].first;
		found.npages = st->ranges[i].npages;
		ast_print_place(out, litmus, &found);
	}
}

static inline void ast_print_event(FILE *out, const struct litmus *litmus, const struct stmt *st)
{
	fprintf(out, " %s", litmus_event_name(st->event));
	if (st->event == EVENT_FORK)
		fprintf(out, " -> %s", ast_name(litmus, st->name));
	if (st->place.region >= 0)
		ast_print_place(out, litmus, &st->place);
	if (st->place2.region >= 0)
		ast_print_place(out, litmus, &st->place2);
}

static inline void ast_print_fork(FILE *out, const struct litmus *litmus, const struct stmt *st)
{
	const char *name = ast_name(litmus, st->name);

	if (st->starred)
		fprintf(out, " %.*s * %" PRIu64, (int)strlen(name) - 1, name, st->count);
	else
		fprintf(out, " %s", name);
	if (st->cgroup >= 0)
		fprintf(out, " into %s", ast_name(litmus, st->cgroup));
}

/* What stands after the first word or words of a statement. */
static inline void ast_print_operands(FILE *out, const struct litmus *litmus, const struct stmt *st)
{
	static const char *const prots[] = {"none", "r", "", "rw"};
	static const char *const advices[] = {
#define X(id, word) word,
		ADVICE_WORDS(X)
#undef X
	};

	switch (st->kind) {
	case STMT_MAP:
		ast_print_map(out, litmus, st);
		break;
	case STMT_UNMAP:
	case STMT_READ:
	case STMT_NUMA_HINT:
	case STMT_UFFD_PROTECT:
	case STMT_UFFD_UNPROTECT:
	case STMT_UFFD_ZEROPAGE:
	case STMT_UFFD_POISON:
	case STMT_UFFD_WAKE:
	case STMT_UFFD_UNREGISTER:
	case STMT_MUNLOCK:
		ast_print_place(out, litmus, &st->place);
		break;
	case STMT_UFFD_CONTINUE:
		ast_print_place(out, litmus, &st->place);
		fputs(st->options ? " wp" : "", out);
		break;
	case STMT_UFFD_REGISTER:
		ast_print_place(out, litmus, &st->place);
		ast_print_modes(out, st->options);
		break;
	case STMT_MLOCK:
		ast_print_place(out, litmus, &st->place);
		fputs(st->options ? " onfault" : "", out);
		break;
	case STMT_MSYNC:
		ast_print_place(out, litmus, &st->place);
		fputs(st->options ? " async" : "", out);
		break;
	case STMT_SCAN:
		ast_print_scan(out, litmus, st);
		break;
	case STMT_PROTECT:
		ast_print_place(out, litmus, &st->place);
		fprintf(out, " %s", prots[st->prot]);
		break;
	case STMT_MOVE:
	case STMT_SPLICE:
	case STMT_LOCK:
		ast_print_place(out, litmus, &st->place);
		fprintf(out, " -> %s%s", ast_name(litmus, st->name), st->options ? " dontunmap" : "");
		break;
	case STMT_ADVISE:
		ast_print_place(out, litmus, &st->place);
		fprintf(out, " %s", advices[st->advice]);
		break;
	case STMT_WRITE:
	case STMT_UFFD_COPY:
		ast_print_place(out, litmus, &st->place);
		ast_print_texts(out, st);
		fputs(st->options ? " wp" : "", out);
		break;
	case STMT_FORK:
		ast_print_fork(out, litmus, st);
		break;
	case STMT_SNAPSHOT:
		fprintf(out, " %s", ast_name(litmus, st->name));
		break;
	case STMT_PIN:
	case STMT_GET:
		ast_print_gup(out, litmus, st);
		break;
	case STMT_UNPIN:
	case STMT_PUT:
	case STMT_UNLOCK:
		fprintf(out, " %s%s", ast_name(litmus, st->handle), st->options ? " dirty" : "");
		break;
	case STMT_DIRECT_OUT:
	case STMT_DIRECT_IN:
		ast_print_place(out, litmus, &st->place);
		fprintf(out, " %s", ast_name(litmus, st->file));
		if (st->file_page != st->place.first)
			fprintf(out, "@%" PRIu64, st->file_page);
		break;
	case STMT_PEEK:
	case STMT_POKE:
	case STMT_REMOTE_WRITE:
		fprintf(out, " %s", ast_name(litmus, st->proc2));
		ast_print_place(out, litmus, &st->place);
		ast_print_texts(out, st);
		break;
	case STMT_FILE:
		fprintf(out, " %s %" PRIu64, ast_name(litmus, st->name), st->count);
		ast_print_texts(out, st);
		fputs(st->options ? " memory" : "", out);
		break;
	case STMT_PUNCH:
		fprintf(out, " %s[%" PRIu64, ast_name(litmus, st->file), st->file_page);
		if (st->count > 1)
			fprintf(out, "..%" PRIu64, st->file_page + st->count - 1);
		fputc(']', out);
		break;
	case STMT_STORE:
		fprintf(out, " %s[%" PRIu64 "]", ast_name(litmus, st->file), st->file_page);
		ast_print_texts(out, st);
		break;
	case STMT_SYNC:
	case STMT_DROP:
		fprintf(out, " %s", ast_name(litmus, st->file));
		break;
	case STMT_TRUNCATE:
		fprintf(out, " %s %" PRIu64, ast_name(litmus, st->file), st->count);
		break;
	case STMT_UFFD:
		ast_print_place(out, litmus, &st->place);
		ast_print_modes(out, st->options);
		ast_print_features(out, st->options);
		fprintf(out, " -> %s", ast_name(litmus, st->name));
		break;
	case STMT_UFFD_MOVE:
		ast_print_place(out, litmus, &st->place);
		ast_print_place(out, litmus, &st->place2);
		break;
	case STMT_RECLAIM:
	case STMT_INJECT_ALLOC:
	case STMT_INJECT_READ:
	case STMT_INJECT_WRITE:
	case STMT_CHECK_RSS:
	case STMT_CHECK_USAGE:
	case STMT_CHECK_PAGES:
		fprintf(out, " %" PRIu64, st->count);
		break;
	case STMT_MIGRATE:
		fprintf(out, " %s", ast_name(litmus, st->proc));
		ast_print_place(out, litmus, &st->place);
		fprintf(out, " node=%" PRIu64, st->count);
		break;
	case STMT_CGROUP:
		fprintf(out, " %s limit=%" PRIu64, ast_name(litmus, st->name), st->count);
		if (st->swap_limit != UINT64_MAX)
			fprintf(out, " swap=%" PRIu64, st->swap_limit);
		if (st->cgroup >= 0)
			fprintf(out, " in=%s", ast_name(litmus, st->cgroup));
		break;
	case STMT_KSM_MERGE:
		fputs(st->options ? " zero-pages" : "", out);
		break;
	case STMT_JOIN:
		fprintf(out, " %s", ast_name(litmus, st->cgroup));
		break;
	case STMT_DEVICE_WRITE:
	case STMT_CHECK_HANDLE_READS:
		ast_print_texts(out, st);
		break;
	case STMT_CHECK_READS:
		ast_print_place(out, litmus, &st->place);
		ast_print_texts(out, st);
		break;
	case STMT_CHECK_FILE_READS:
	case STMT_CHECK_FILE_HOLDS:
		fprintf(out, " %s[%" PRIu64 "] %s", ast_name(litmus, st->file), st->file_page,
			st->kind == STMT_CHECK_FILE_READS ? "reads" : "holds");
		ast_print_texts(out, st);
		break;
	case STMT_CHECK_FLAG:
		ast_print_place(out, litmus, &st->place);
		fprintf(out, " is%s %s", st->negated ? " not" : "", litmus_flag_name(st->flag));
		break;
	case STMT_CHECK_SAME:
		ast_print_place(out, litmus, &st->place);
		fprintf(out, " %s %s", st->negated ? "differs" : "same", ast_name(litmus, st->proc2));
		ast_print_place(out, litmus, &st->place2);
		break;
	case STMT_CHECK_MAPCOUNT:
		ast_print_place(out, litmus, &st->place);
		fprintf(out, " %" PRIu64, st->count);
		break;
	case STMT_CHECK_COUNT:
		fprintf(out, " %s %" PRIu64 "%s", st->counter, st->count, st->at_least ? "+" : "");
		break;
	case STMT_CHECK_EVENT:
		ast_print_event(out, litmus, st);
		break;
	case STMT_EXIT:
	case STMT_UFFD_CLOSE:
	case STMT_CLEAR_SOFT_DIRTY:
	case STMT_SWAPOFF:
	case STMT_KIND_COUNT:
		break;
	}
}

/* Whether what the statement is about stands between `check` or `device` and its verb, or before its verb. */
static inline const char *ast_subject(const struct litmus *litmus, const struct stmt *st)
{
	if (st->kind == STMT_UNPIN || st->kind == STMT_PUT || st->kind == STMT_UNLOCK || st->kind == STMT_MIGRATE)
		return NULL; /* the verb comes first */
	if (st->proc >= 0)
		return ast_name(litmus, st->proc);
	if (st->handle >= 0)
		return ast_name(litmus, st->handle);
	return st->kind == STMT_CHECK_USAGE ? ast_name(litmus, st->cgroup) : NULL;
}

static inline void ast_print_words(FILE *out, const struct litmus *litmus, const struct stmt *st)
{
	const char *subject = ast_subject(litmus, st);
	bool check = st->kind >= STMT_CHECK_READS;

	if (check)
		fputs("check ", out);
	if (st->kind == STMT_DEVICE_WRITE)
		fputs("device ", out);
	if (subject)
		fputs(subject, out);
	if (st->kind == STMT_CHECK_FLAG || st->kind == STMT_CHECK_SAME)
		return;
	if (subject)
		fputc(' ', out);
	if (st->kind == STMT_CHECK_HANDLE_READS)
		fputs("reads", out);
	else if (st->kind == STMT_CHECK_FILE_READS || st->kind == STMT_CHECK_FILE_HOLDS)
		fputs("file", out);
	else if (st->kind == STMT_DEVICE_WRITE)
		fputs("write", out);
	else
		fputs(litmus_stmt_name(st->kind) + (check ? 6 : 0), out);
}

static inline void ast_print_stmt(FILE *out, const struct litmus *litmus, const struct stmt *st)
{
	ast_print_words(out, litmus, st);
	ast_print_operands(out, litmus, st);
	if (st->outcome != OUTCOME_OK)
		fprintf(out, " %s %s", st->outcome == OUTCOME_FAILS ? "fails" : "may fail",
			litmus_error_name(st->error));
	if (st->in_all)
		fputs(" in all", out);
	fputc('\n', out);
}

static inline void ast_print_machine(FILE *out, const struct litmus_machine *machine)
{
	if (!machine->ram_bytes && !machine->swap_bytes && !machine->nodes && !machine->cpus)
		return;
	fputs("machine:", out);
	if (machine->ram_bytes)
		fprintf(out, " ram=%" PRIu64 "K", machine->ram_bytes >> 10);
	if (machine->swap_bytes)
		fprintf(out, " swap=%" PRIu64 "K", machine->swap_bytes >> 10);
	if (machine->nodes)
		fprintf(out, " nodes=%u", machine->nodes);
	if (machine->cpus)
		fprintf(out, " cpus=%u", machine->cpus);
	fputc('\n', out);
}

static inline void ast_print_header(FILE *out, const struct litmus *litmus)
{
	fprintf(out, "title: %s\n", litmus->title);
	for (size_t i = 0; i < litmus->nabout; i++)
		fprintf(out, "about: %s\n", litmus->about[i]);
	for (size_t i = 0; i < litmus->nsource; i++)
		fprintf(out, "source: %s\n", litmus->source[i]);
	if (litmus->catches)
		fprintf(out, "catches: %s\n", litmus->catches);
	for (unsigned i = 0; i < NEED_COUNT; i++)
		if (litmus->declared_needs & 1u << i)
			fprintf(out, "%s %s",
				litmus->declared_needs & ((1u << i) - 1) ? "" : "needs:", litmus_need_name(1u << i));
	fputs(litmus->declared_needs ? "\n" : "", out);
	for (unsigned i = 0; i < UCOW_FORK_MODE_COUNT; i++)
		if (litmus->forks & 1u << i)
			fprintf(out, "%s %s", litmus->forks & ((1u << i) - 1) ? "" : "forks:", ucow_fork_mode_name(i));
	fputs(litmus->forks ? "\n" : "", out);
	for (unsigned i = 0; i < UCOW_POLICY_COUNT; i++)
		if (litmus->breaks & 1u << i)
			fprintf(out, "%s %s", litmus->breaks & ((1u << i) - 1) ? "" : "breaks:", ucow_policy_name(i));
	fputs(litmus->breaks ? "\n" : "", out);
	ast_print_machine(out, &litmus->machine);
}

/* The whole test, for free(). */
static inline char *ast_print(const struct litmus *litmus, size_t *nbytes)
{
	char *bytes = NULL;
	FILE *out = open_memstream(&bytes, nbytes);
	const struct stmt *last = NULL;

	if (!out)
		return NULL;
	ast_print_header(out, litmus);
	for (const struct stmt *st = litmus->stmts; st < litmus->stmts + litmus->nstmts; last = st++) {
		if (last && last->block && last->block != st->block)
			fputs("end\n", out);
		if (st->block && (!last || last->block != st->block))
			fputs("parallel\n", out);
		if (st->block && (!last || last->block != st->block || last->lane != st->lane))
			fputs("lane\n", out);
		ast_print_stmt(out, litmus, st);
	}
	if (last && last->block)
		fputs("end\n", out);
	fclose(out);
	return bytes;
}

/* ---- checking ---- */

#define AST_PAGE_BYTES 4096u

static inline bool ast_is(const struct litmus *litmus, int name, unsigned kinds)
{
	return name >= 0 && (size_t)name < litmus->nnames && kinds & 1u << litmus->names[name].kind;
}

static inline bool ast_is_or_none(const struct litmus *litmus, int name, unsigned kinds)
{
	return name == -1 || ast_is(litmus, name, kinds);
}

static inline bool ast_place_is_good(const struct litmus *litmus, const struct place *place)
{
	if (place->region == -1)
		return place->npages == 0;
	return ast_is(litmus, place->region, 1u << NAME_REGION) && place->npages &&
	       place->first < litmus->names[place->region].npages &&
	       place->npages <= litmus->names[place->region].npages - place->first && place->offset < AST_PAGE_BYTES &&
	       (!place->offset || (place->npages == 1 && !place->whole)) && place->loc.line && place->loc.column;
}

static inline bool ast_texts_are_good(const struct stmt *st)
{
	for (size_t i = 0; i < st->ntexts; i++) {
		const struct text *text = &st->texts[i];

		if (text->zero && (text->bytes || text->nbytes || !litmus_is_check(st->kind)))
			return false;
		if (!text->zero && (!text->bytes || !text->nbytes || text->bytes[text->nbytes] ||
				    st->place.offset + text->nbytes > AST_PAGE_BYTES))
			return false;
	}
	return true;
}

#define AST_KIND(kind) (1u << NAME_##kind)

/* What is wrong with a statement, or NULL. */
static inline const char *ast_complain_stmt(const struct litmus *litmus, const struct stmt *st)
{
	unsigned handles = AST_KIND(PIN) | AST_KIND(GET) | AST_KIND(PIPE) | AST_KIND(UFFD) | AST_KIND(LOCK);

	if ((unsigned)st->kind >= STMT_KIND_COUNT)
		return "kind";
	if (!st->loc.line || !st->loc.column || !st->source || !*st->source)
		return "place in the file";
	if (!ast_is_or_none(litmus, st->proc, AST_KIND(PROCESS)) ||
	    !ast_is_or_none(litmus, st->proc2, AST_KIND(PROCESS)))
		return "processes";
	if (!ast_is_or_none(litmus, st->handle, handles) || !ast_is_or_none(litmus, st->file, AST_KIND(FILE)) ||
	    !ast_is_or_none(litmus, st->cgroup, AST_KIND(CGROUP)) || !ast_is_or_none(litmus, st->name, ~0u))
		return "names";
	if (!ast_place_is_good(litmus, &st->place) || !ast_place_is_good(litmus, &st->place2))
		return "places";
	if (st->place2.region >= 0 && st->place.npages != st->place2.npages)
		return "sizes of places";
	if (!ast_texts_are_good(st))
		return "texts";
	if ((st->outcome == OUTCOME_OK) != (st->error == 0) || (st->in_all && !litmus_is_check(st->kind)))
		return "ending";
	if ((unsigned)st->prot > 3 || (unsigned)st->advice >= ADVICE_COUNT || (unsigned)st->flag >= LFLAG_COUNT)
		return "words";
	if ((unsigned)st->event >= EVENT_COUNT || (st->required | st->inverted) >> SCAN_COUNT)
		return "words";
	for (size_t i = 0; i < st->nranges; i++)
		if (!st->ranges[i].npages ||
		    (i && st->ranges[i].first < st->ranges[i - 1].first + st->ranges[i - 1].npages))
			return "what a scan finds";
	if (st->kind == STMT_FORK && (!st->count || (size_t)st->name + st->count > litmus->nnames))
		return "children";
	return NULL;
}

/* Blocks and lanes count up, without gaps. */
static inline const char *ast_complain_blocks(const struct litmus *litmus)
{
	unsigned block = 0, lane = 0;

	for (size_t i = 0; i < litmus->nstmts; i++) {
		const struct stmt *st = &litmus->stmts[i];

		if (!st->block && st->lane)
			return "lane outside a block";
		if (!st->block)
			continue;
		if (st->block == block ? st->lane != lane && st->lane != lane + 1 : st->block != block + 1 || st->lane)
			return "order of blocks and lanes";
		block = st->block;
		lane = st->lane;
	}
	return block == litmus->nblocks ? NULL : "number of blocks";
}

/* What is wrong with a parsed test, or NULL. */
static inline const char *ast_complain(const struct litmus *litmus)
{
	const char *complaint = ast_complain_blocks(litmus);

	if (!litmus->path || !litmus->test || !litmus->title || !*litmus->title || !litmus->nstmts || !litmus->nnames)
		return "something is missing";
	if (litmus->names[0].kind != NAME_PROCESS || strcmp(litmus->names[0].text, "A"))
		return "process A";
	if (litmus->declared_needs & ~litmus->needs || litmus->needs >> NEED_COUNT)
		return "needs";
	for (size_t i = 0; !complaint && i < litmus->nstmts; i++)
		complaint = ast_complain_stmt(litmus, &litmus->stmts[i]);
	for (size_t i = 0; !complaint && i < litmus->nnames; i++)
		if (litmus->names[i].region != -1 && !ast_is(litmus, litmus->names[i].region, AST_KIND(REGION)))
			complaint = "region of a handle";
	return complaint;
}

#endif
