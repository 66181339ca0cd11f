/* SPDX-License-Identifier: MIT */
/* A campaign's result as one JSON object (docs/litmus.md, "Commands"). */
#include "fuzz_campaign.h"

#include <errno.h>

#ifdef UCOW_HAVE_JANSSON
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Paths and what programs said may be any bytes; JSON is UTF-8: what is not becomes a question mark. */
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

/* A list that lacks something must not look whole: it is none. */
static json_t *append(json_t *array, json_t *value)
{
	if (array && !json_array_append_new(array, value))
		return array;
	if (!array)
		json_decref(value);
	json_decref(array);
	return NULL;
}

static json_t *json_saved(const struct campaign_result *result)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < result->nfindings; i++)
		if (result->findings[i].path[0])
			array = append(array, json_text(result->findings[i].path));
	return array;
}

static json_t *json_finding(const struct campaign_finding *finding)
{
	const struct fuzz_divergence *divergence = &finding->divergence;
	json_t *object = json_pack(
		"{s:I, s:f, s:s, s:[s, s], s:[o, o], s:b, s:o, s:o}", "program", (json_int_t)finding->number, "seconds",
		finding->seconds, "what", divergence->what, "subjects", divergence->subjects[0],
		divergence->subjects[1], "saw", json_text(divergence->saw[0]), json_text(divergence->saw[1]), "repeats",
		(int)finding->repeats, "problem", json_text(finding->problem), "said", json_text(finding->said));

	if (object && finding->path[0])
		json_object_set_new(object, "saved", json_text(finding->path));
	return object;
}

static json_t *json_findings(const struct campaign_result *result)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < result->nfindings; i++)
		array = append(array, json_finding(&result->findings[i]));
	return array;
}

static json_t *json_noise(const struct campaign_result *result)
{
	json_t *array = json_array();

	for (int class = 0; class < FUZZ_NOISE_CLASSES; class ++)
		array = append(array,
			       json_pack("{s:s, s:I, s:s}", "name", fuzz_noise_name(class), "count",
					 (json_int_t)result->totals.noise[class], "reason", fuzz_noise_reason(class)));
	return array;
}

static json_t *json_missing(const struct campaign_options *options, const struct fuzz_pairs *pairs)
{
	json_t *array = json_array();

	for (unsigned first = 0; first < FUZZ_OP_KINDS; first++)
		for (unsigned second = 0; second < FUZZ_OP_KINDS; second++)
			if (!pairs->met[first][second] &&
			    fuzz_pair_possible((enum fuzz_op_kind)first, (enum fuzz_op_kind)second, options->against,
					       options->pressure))
				array = append(array, json_pack("[s, s]", fuzz_op_name((enum fuzz_op_kind)first),
								fuzz_op_name((enum fuzz_op_kind)second)));
	return array;
}

static json_t *json_coverage(const struct campaign_options *options, const struct campaign_result *result)
{
	struct fuzz_coverage coverage;

	fuzz_pairs_coverage(&result->pairs, options->against, options->pressure, &coverage);
	return json_pack("{s:i, s:i, s:I, s:o}", "possible", (int)coverage.possible, "met", (int)coverage.met, "rarest",
			 (json_int_t)coverage.rarest, "missing", json_missing(options, &result->pairs));
}

/* What stands in every version of the format, in its order. */
static json_t *json_first(const struct campaign_options *options, const struct campaign_result *result)
{
	const struct campaign_totals *totals = &result->totals;

	return json_pack("{s:i, s:I, s:I, s:I, s:I, s:o}", "version", 1, "seed", (json_int_t)options->seed, "programs",
			 (json_int_t)totals->programs, "operations", (json_int_t)totals->operations, "divergences",
			 (json_int_t)totals->divergences, "saved", json_saved(result));
}

static json_t *json_asked(const struct campaign_options *options, const struct campaign_result *result)
{
	return json_pack("{s:s, s:i, s:I, s:[i, i], s:i}", "against", campaign_against_name(options->against), "ops",
			 (int)options->ops, "first", (json_int_t)options->first, "shard", (int)options->shard + 1,
			 (int)options->nshards, "workers", (int)result->workers);
}

static json_t *json_end(const struct campaign_result *result)
{
	return json_pack("{s:f, s:b, s:b, s:b}", "seconds", result->totals.seconds, "stopped", (int)result->stopped,
			 "out_of_time", (int)result->out_of_time, "enough", (int)result->enough);
}

static json_t *json_tally(const struct campaign_result *result)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < FUZZ_TALLIES; i++)
		array = append(array, json_pack("{s:s, s:I, s:I}", "name", fuzz_tally_name((enum fuzz_tally)i), "count",
						(json_int_t)result->totals.tally[i], "programs",
						(json_int_t)result->totals.tallied[i]));
	return array;
}

static json_t *json_details(const struct campaign_options *options, const struct campaign_result *result)
{
	return json_pack("{s:I, s:o, s:I, s:I, s:o, s:o, s:o, s:o}", "unjudged", (json_int_t)result->totals.unjudged,
			 "unjudged_why", json_text(result->unjudged), "same", (json_int_t)result->same, "only_counted",
			 (json_int_t)result->left, "findings", json_findings(result), "noise", json_noise(result),
			 "pressure", json_tally(result), "coverage", json_coverage(options, result));
}

static json_t *json_campaign(const struct campaign_options *options, const struct campaign_result *result)
{
	json_t *parts[] = {json_first(options, result), json_asked(options, result), json_end(result),
			   json_details(options, result)};
	bool whole = parts[0];

	for (unsigned i = 1; i < sizeof(parts) / sizeof(parts[0]); i++) {
		whole = whole && parts[i] && !json_object_update(parts[0], parts[i]);
		json_decref(parts[i]);
	}
	if (whole)
		return parts[0];
	json_decref(parts[0]);
	return NULL;
}

int campaign_json(FILE *out, const struct campaign_options *options, const struct campaign_result *result)
{
	json_t *object = json_campaign(options, result);
	int error = 0;

	if (!object)
		return -ENOMEM;
	if (json_dumpf(object, out, JSON_INDENT(1)) || fputc('\n', out) == EOF)
		error = -EIO;
	json_decref(object);
	return error;
}

bool campaign_has_json(void)
{
	return true;
}
#else
int campaign_json(FILE *out, const struct campaign_options *options, const struct campaign_result *result)
{
	(void)out;
	(void)options;
	(void)result;
	return -EOPNOTSUPP;
}

bool campaign_has_json(void)
{
	return false;
}
#endif
