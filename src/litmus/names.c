/* SPDX-License-Identifier: MIT */
/*
 * The words of the litmus language: tables, lookups, names for messages. No grammar.
 */
#include "parse_internal.h"

#include <errno.h>
#include <string.h>

const char *const litmus_need_words[NEED_COUNT] = {
	"swap",       "file", "thp",    "hugetlb",     "ksm",       "uffd",
	"soft-dirty", "numa", "cgroup", "ro-longterm", "direct-io", "snapshot",
};

const char *const litmus_advice_words[ADVICE_COUNT] = {
#define X(id, word) [ADVICE_##id] = word,
	ADVICE_WORDS(X)
#undef X
};

const char *const litmus_flag_words[LFLAG_COUNT] = {
#define X(id, word) [LFLAG_##id] = word,
	FLAG_WORDS(X)
#undef X
};

const char *const litmus_event_words[EVENT_COUNT] = {
#define X(id, word) [EVENT_##id] = word,
	EVENT_WORDS(X)
#undef X
};

const char *const litmus_scan_words[SCAN_COUNT] = {
#define X(id, word) [SCAN_##id] = word,
	SCAN_WORDS(X)
#undef X
};

static const char *const stmt_words[STMT_KIND_COUNT] = {
#define X(id, syntax) [STMT_##id] = syntax,
	STMT_KINDS(X)
#undef X
};

/* clang-format off */
#define ERROR(name) {#name, name}
static const struct {
	const char *name;
	int value;
} errors[] = {
	ERROR(EPERM), ERROR(ENOENT), ERROR(ESRCH), ERROR(EINTR), ERROR(EIO), ERROR(ENXIO), ERROR(E2BIG),
	ERROR(ENOEXEC), ERROR(EBADF), ERROR(ECHILD), ERROR(EAGAIN), ERROR(ENOMEM), ERROR(EACCES), ERROR(EFAULT),
	ERROR(EBUSY), ERROR(EEXIST), ERROR(EXDEV), ERROR(ENODEV), ERROR(ENOTDIR), ERROR(EISDIR), ERROR(EINVAL),
	ERROR(ENFILE), ERROR(EMFILE), ERROR(ENOTTY), ERROR(ETXTBSY), ERROR(EFBIG), ERROR(ENOSPC), ERROR(ESPIPE),
	ERROR(EROFS), ERROR(EMLINK), ERROR(EPIPE), ERROR(EDOM), ERROR(ERANGE), ERROR(EDEADLK), ERROR(ENAMETOOLONG),
	ERROR(ENOLCK), ERROR(ENOSYS), ERROR(ENODATA), ERROR(ETIME), ERROR(EOVERFLOW), ERROR(EOPNOTSUPP),
	ERROR(ENOBUFS), ERROR(EALREADY), ERROR(EINPROGRESS), ERROR(ETIMEDOUT), ERROR(ESTALE), ERROR(EDQUOT),
	ERROR(ECANCELED), ERROR(EHWPOISON),
	{"SIGSEGV", LITMUS_SIGSEGV}, {"SIGBUS", LITMUS_SIGBUS},
};
/* clang-format on */

const char *litmus_need_name(unsigned need_bit)
{
	for (unsigned i = 0; i < NEED_COUNT; i++)
		if (need_bit == 1u << i)
			return litmus_need_words[i];
	return "unknown facility";
}

const char *litmus_stmt_name(enum stmt_kind kind)
{
	return (unsigned)kind < STMT_KIND_COUNT ? stmt_words[kind] : "unknown statement";
}

const char *litmus_flag_name(enum litmus_flag flag)
{
	return (unsigned)flag < LFLAG_COUNT ? litmus_flag_words[flag] : "unknown flag";
}

const char *litmus_event_name(enum litmus_event event)
{
	return (unsigned)event < EVENT_COUNT ? litmus_event_words[event] : "unknown event";
}

const char *litmus_error_name(int error)
{
	if (error == 0)
		return "success";
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].value == error)
			return errors[i].name;
	return "unknown error";
}

bool litmus_is_check(enum stmt_kind kind)
{
	return kind == STMT_PEEK || kind == STMT_SCAN || (kind >= STMT_CHECK_READS && kind < STMT_KIND_COUNT);
}

void word_list_add(struct word_list *list, const char *word)
{
	size_t nbytes = strlen(word);

	if (list->nbytes + nbytes + 2 > sizeof(list->text))
		return;
	if (list->nbytes)
		list->text[list->nbytes++] = ' ';
	memcpy(list->text + list->nbytes, word, nbytes + 1);
	list->nbytes += nbytes;
}

int words_find(const struct parser *p, const char *const *words, size_t nwords)
{
	for (size_t i = 0; i < nwords; i++)
		if (words[i] && lex_is(p, words[i]))
			return (int)i;
	return -1;
}

int words_take(struct parser *p, const char *what, const char *const *words, size_t nwords, int *index)
{
	struct word_list list = {0};

	*index = words_find(p, words, nwords);
	if (*index >= 0)
		return lex_next(p);
	for (size_t i = 0; i < nwords; i++)
		if (words[i])
			word_list_add(&list, words[i]);
	return parse_fail_token(p, "%s expected, found %s; possible: %s", what, parse_quote(p), list.text);
}

int error_take(struct parser *p, int *error)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (lex_is(p, errors[i].name)) {
			*error = errors[i].value;
			return lex_next(p);
		}
	}
	return parse_fail_token(
		p,
		"an error expected, found %s; possible: errno names such as ENOMEM EFAULT EINVAL EACCES EBUSY "
		"EPERM, and SIGSEGV SIGBUS for read and write",
		parse_quote(p));
}
