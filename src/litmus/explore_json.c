/* SPDX-License-Identifier: MIT */
/*
 * Explored tests as one JSON object (docs/litmus.md, "Commands"), and a finding read back from it. Lanes count from 0;
 * `statement` is the line in the file.
 */
#include "explore.h"
#include "report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifdef UCOW_HAVE_JANSSON
#include <jansson.h>

/* ---- writing ---- */

/* Names may be any bytes; JSON is UTF-8: what is not becomes a question mark. */
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

static json_t *json_step(const struct explore_step *step)
{
	json_t *object = json_pack("{s:i, s:i, s:o, s:o, s:i, s:i}", "lane", (int)step->lane, "statement",
				   (int)step->statement, "step", json_text(step->what), "saw", json_text(step->saw),
				   "block", (int)step->block, "at", (int)step->at);

	if (object && step->flush)
		json_object_set_new(object, "flush", json_true());
	if (object && step->stop)
		json_object_set_new(object, "stop", json_true());
	if (object && step->frame != EXPLORE_NO_FRAME)
		json_object_set_new(object, "frame", json_integer((json_int_t)step->frame));
	return object;
}

static json_t *json_schedule(const struct explore_result *result)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < result->nsteps; i++)
		if (json_array_append_new(array, json_step(&result->schedule[i]))) {
			json_decref(array);
			array = NULL;
		}
	return array;
}

static json_t *json_result(const struct explore_result *result)
{
	json_t *object = json_pack(
		"{s:o, s:o, s:s, s:s, s:s, s:I, s:I, s:b, s:s, s:b, s:I, s:o, s:o, s:o, s:o}", "test",
		json_text(result->litmus->test), "file", json_text(result->litmus->path), "policy",
		ucow_policy_name(result->options.policy), "fork", ucow_fork_mode_name(result->options.fork), "memory",
		result->options.memory == EXPLORE_TSO ? "tso" : "sc", "interleavings",
		(json_int_t)result->interleavings, "states", (json_int_t)result->states, "complete",
		(int)result->complete, "verdict", report_verdict_name(result->verdict), "expected",
		(int)result->expected, "line", (json_int_t)result->line, "check", json_text(result->check), "saw",
		json_text(result->saw), "reason", json_text(result->reason), "schedule", json_schedule(result));

	return object;
}

static int end_json(const struct explore_report *report)
{
	json_int_t count[VERDICT_ERROR + 1] = {0}, unexpected = 0, interleavings = 0;
	json_t *results = json_array(), *object;
	int error = 0;

	for (size_t i = 0; results && i < report->nresults; i++) {
		const struct explore_result *result = &report->results[i];

		count[result->verdict]++;
		unexpected += !result->expected;
		interleavings += (json_int_t)result->interleavings;
		if (json_array_append_new(results, json_result(result))) {
			json_decref(results);
			results = NULL;
		}
	}
	object = json_pack("{s:i, s:o, s:{s:I, s:I, s:I, s:I, s:I, s:I}}", "version", 1, "results", results, "summary",
			   "pass", count[VERDICT_PASS], "break", count[VERDICT_BREAK], "skip", count[VERDICT_SKIP],
			   "error", count[VERDICT_ERROR], "unexpected", unexpected, "interleavings", interleavings);
	if (!object)
		return -ENOMEM;
	if (json_dumpf(object, report->out, JSON_INDENT(1)) || fputc('\n', report->out) == EOF)
		error = -EIO;
	json_decref(object);
	return error;
}

bool explore_has_json(void)
{
	return true;
}

/* ---- reading a finding back ---- */

#define MOST_CHOICES ((size_t)1 << 20)
#define MOST_LANES   64

static int complain(char *why, size_t size, const char *path, const char *what)
{
	snprintf(why, size, "%s: %s", path, what);
	return -EINVAL;
}

/* The object itself, or the first result with a schedule in a whole output. */
static json_t *find_result(json_t *root)
{
	json_t *results = json_object_get(root, "results"), *result;
	size_t i;

	if (!results)
		return json_object_get(root, "schedule") ? root : NULL;
	json_array_foreach(results, i, result) if (json_array_size(json_object_get(result, "schedule"))) return result;
	return NULL;
}

static int read_options(json_t *object, struct explore_options *options)
{
	const char *policy, *fork, *memory = "sc";

	if (json_unpack(object, "{s:s, s:s, s?s}", "policy", &policy, "fork", &fork, "memory", &memory))
		return -EINVAL;
	*options = (struct explore_options){.bound = EXPLORE_UNBOUNDED};
	if (ucow_policy_parse(policy, &options->policy) || ucow_fork_mode_parse(fork, &options->fork) ||
	    options->fork == UCOW_FORK_DEFAULT)
		return -EINVAL;
	if (!strcmp(memory, "tso"))
		options->memory = EXPLORE_TSO;
	else if (strcmp(memory, "sc"))
		return -EINVAL;
	return 0;
}

static int read_choices(json_t *schedule, struct explore_finding *finding)
{
	size_t n = json_array_size(schedule), i;
	json_t *step;

	if (!n || n > MOST_CHOICES)
		return -EINVAL;
	finding->choices = calloc(n, sizeof(*finding->choices));
	if (!finding->choices)
		return -ENOMEM;
	finding->nchoices = n;
	json_array_foreach(schedule, i, step)
	{
		json_int_t lane, block, at;
		int flush = 0, stop = 0;

		if (json_unpack(step, "{s:I, s:I, s:I, s?b, s?b}", "lane", &lane, "block", &block, "at", &at, "flush",
				&flush, "stop", &stop) ||
		    lane < 0 || lane >= MOST_LANES || block < 1 || block > UINT32_MAX || at < 0 || at > UINT32_MAX)
			return -EINVAL;
		finding->choices[i] = (struct explore_choice){.block = (uint32_t)block,
							      .lane = (uint32_t)lane,
							      .at = (uint32_t)at,
							      .flush = flush,
							      .stop = stop};
	}
	return 0;
}

static int read_result(json_t *result, struct explore_finding *finding, const char *path, char *why, size_t size)
{
	const char *file;
	int error;

	if (!result)
		return complain(why, size, path, "holds no result with a schedule");
	if (json_unpack(result, "{s:s}", "file", &file))
		return complain(why, size, path, "the result names no file");
	if (read_options(result, &finding->options))
		return complain(why, size, path, "policy, fork mode or memory model is missing or unknown");
	error = read_choices(json_object_get(result, "schedule"), finding);
	if (error == -EINVAL)
		return complain(why, size, path, "the schedule is not a list of steps with a lane each");
	if (!error)
		finding->file = strdup(file);
	return error ? error : finding->file ? 0 : -ENOMEM;
}

int explore_read_finding(const char *path, struct explore_finding *finding, char *why, size_t size)
{
	json_error_t wrong;
	FILE *in = fopen(path, "re");
	json_t *root;
	int error;

	*finding = (struct explore_finding){0};
	why[0] = '\0';
	if (!in) {
		error = -errno;
		snprintf(why, size, "%s: %s", path, strerror(errno));
		return error;
	}
	root = json_loadf(in, 0, &wrong);
	fclose(in);
	if (!root) {
		snprintf(why, size, "%s:%d:%d: %s", path, wrong.line, wrong.column, wrong.text);
		return -EINVAL;
	}
	error = read_result(find_result(root), finding, path, why, size);
	json_decref(root);
	if (error)
		explore_finding_clear(finding);
	return error;
}
#else
static int end_json(const struct explore_report *report)
{
	(void)report;
	return -EOPNOTSUPP;
}

bool explore_has_json(void)
{
	return false;
}

int explore_read_finding(const char *path, struct explore_finding *finding, char *why, size_t size)
{
	*finding = (struct explore_finding){0};
	snprintf(why, size, "%s: this build reads no JSON (built without jansson)", path);
	return -EOPNOTSUPP;
}
#endif

void explore_finding_clear(struct explore_finding *finding)
{
	free(finding->file);
	free(finding->choices);
	*finding = (struct explore_finding){0};
}

const struct explore_format explore_json = {NULL, NULL, end_json};
