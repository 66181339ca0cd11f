/* SPDX-License-Identifier: MIT */
/*
 * Results as one JSON object (docs/litmus.md, "Commands"). On the kernel there is neither policy nor fork mode: both
 * are null.
 */
#include "report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifdef UCOW_HAVE_JANSSON
#include <jansson.h>

/* File names may be any bytes; JSON is UTF-8: what is not becomes a question mark. */
static json_t *json_text(const char *text)
{
	json_t *json = json_string(text);
	char *copy;

	if (json)
		return json;
	copy = strdup(text);
	for (char *c = copy; c && *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	json = copy ? json_string(copy) : NULL;
	free(copy);
	return json;
}

/* Add a member; *object becomes NULL if that or an earlier step failed. */
static void set(json_t **object, const char *key, json_t *value)
{
	if (*object && !json_object_set_new(*object, key, value))
		return;
	if (!*object)
		json_decref(value);
	json_decref(*object);
	*object = NULL;
}

static json_t *json_skipped(const struct run_result *result)
{
	json_t *array = json_array();

	for (unsigned i = 0; array && i < result->skipped_checks && i < MAX_SKIPPED_CHECKS; i++) {
		json_t *object = json_object();

		set(&object, "line", json_integer(result->skipped[i].line));
		set(&object, "reason", json_text(result->skipped[i].reason));
		if (!object || json_array_append_new(array, object)) {
			json_decref(array);
			array = NULL;
		}
	}
	return array;
}

static json_t *json_result(const struct report_test *test, const struct report_column *column,
			   const struct report_cell *cell)
{
	const struct run_result *result = &cell->result;
	const char *policy = ucow_policy_name(column->policy), *fork = ucow_fork_mode_name(column->fork);
	json_t *object = json_object();

	set(&object, "test", json_text(test->litmus->test));
	set(&object, "file", json_text(test->litmus->path));
	set(&object, "on", json_string(column->on_kernel ? "kernel" : "engine"));
	set(&object, "policy", column->on_kernel ? json_null() : json_string(policy));
	set(&object, "fork", column->on_kernel ? json_null() : json_string(fork));
	set(&object, "verdict", json_string(report_verdict_name(result->verdict)));
	set(&object, "expected", json_boolean(cell->expected));
	set(&object, "line", json_integer(result->line));
	set(&object, "check", json_text(result->check));
	set(&object, "saw", json_text(result->saw));
	set(&object, "reason", json_text(result->reason));
	set(&object, "skipped_checks", json_integer(result->skipped_checks));
	set(&object, "skipped", json_skipped(result));
	return object;
}

static json_t *json_results(const struct report *report)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < report->ndone; i++)
		for (size_t j = 0; array && j < report->ncolumns; j++) {
			const struct report_test *test = &report->tests[i];

			if (!json_array_append_new(array, json_result(test, &report->columns[j], &test->cells[j])))
				continue;
			json_decref(array);
			array = NULL;
		}
	return array;
}

static json_t *json_fact(const struct host_fact *fact)
{
	switch (fact->kind) {
	case HOST_UNKNOWN:
		break;
	case HOST_TEXT:
		return json_text(fact->text);
	case HOST_NUMBER:
		return json_integer(fact->number);
	case HOST_FLAG:
		return json_boolean(fact->number);
	}
	return json_null();
}

/* Facts in one object, whatever their group; their keys are unique. */
static json_t *json_host(const struct kernel_host *host)
{
	json_t *object = json_object();

	for (size_t i = 0; i < host->n; i++)
		set(&object, host->facts[i].key, json_fact(&host->facts[i]));
	return object;
}

static int end_json(const struct report *report)
{
	struct report_totals totals = report_totals(report);
	json_t *object = json_pack("{s:i, s:o, s:{s:I, s:I, s:I, s:I, s:I}}", "version", 1, "results",
				   json_results(report), "summary", "pass", (json_int_t)totals.pass, "break",
				   (json_int_t)totals.broken, "skip", (json_int_t)totals.skip, "error",
				   (json_int_t)totals.error, "unexpected", (json_int_t)totals.unexpected);
	int error = 0;

	if (report->host)
		set(&object, "host", json_host(report->host));
	if (report->interrupted_by)
		set(&object, "interrupted", json_sprintf("SIG%s", sigabbrev_np(report->interrupted_by)));
	if (!object)
		return -ENOMEM;
	if (json_dumpf(object, report->out, JSON_INDENT(1)) || fputc('\n', report->out) == EOF)
		error = -EIO;
	json_decref(object);
	return error;
}

bool report_has_json(void)
{
	return true;
}
#else
static int end_json(const struct report *report)
{
	(void)report;
	return -EOPNOTSUPP;
}

bool report_has_json(void)
{
	return false;
}
#endif

const struct report_format report_json = {NULL, NULL, end_json};
