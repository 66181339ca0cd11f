/* SPDX-License-Identifier: MIT */
/*
 * `parallel`: each lane is driven by a thread of the supervisor and has a cpu. A participant that acts in one lane does
 * so with its main thread; one that acts in several gets a thread for each.
 */
#include "kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* A block as a whole. */
struct block {
	struct kernel_run *run;
	const struct stmt *stmts;
	size_t nstmts;
	struct kernel_lane *lanes;
	unsigned nlanes;
};

static int cpu_of(const struct kernel_run *run, unsigned lane)
{
	return run->cpus[lane % run->ncpus];
}

/* ---- who acts where ---- */

/* Whether a participant carries out @stmt; other statements are the supervisor's. */
static bool is_agents(const struct stmt *stmt)
{
	return stmt->proc >= 0 &&
	       (!litmus_is_check(stmt->kind) || stmt->kind == STMT_CHECK_READS || stmt->kind == STMT_PEEK);
}

static bool acts_in(const struct block *block, int name, unsigned lane)
{
	for (size_t i = 0; i < block->nstmts; i++)
		if (block->stmts[i].lane == lane && block->stmts[i].proc == name)
			return true;
	return false;
}

static unsigned count_lanes_of(const struct block *block, int name)
{
	unsigned n = 0;

	for (unsigned lane = 0; lane < block->nlanes; lane++)
		n += acts_in(block, name, lane);
	return n;
}

static bool is_alive(const struct block *block, int name)
{
	return block->run->litmus->names[name].kind == NAME_PROCESS &&
	       block->run->objects[name].participant.channel >= 0;
}

/* ---- threads and cpus ---- */

static int send_to_cpu(struct kernel_step *step, int name, int channel, int cpu)
{
	struct agent_command command = {.op = AGENT_CPU, .number = cpu};
	struct agent_reply reply;

	return kernel_call_on(step, name, channel, &command, -1, &reply);
}

static int give_thread(struct kernel_step *step, struct kernel_lane *lane, int name)
{
	struct agent_command command = {.op = AGENT_THREAD};
	struct agent_reply reply;
	int ends[2], error = channel_pair(ends);

	if (error)
		return error;
	error = kernel_call(step, name, &command, ends[1], &reply);
	close(ends[1]);
	if (error)
		close(ends[0]);
	else
		lane->channels[name] = ends[0];
	return error;
}

/* Make participant @name ready to act in @lane. */
static int prepare_actor(struct kernel_step *step, struct kernel_lane *lane, int name, bool own_thread)
{
	int error = own_thread ? give_thread(step, lane, name) : 0;
	int channel = own_thread ? lane->channels[name] : step->run->objects[name].participant.channel;

	return error ? error : send_to_cpu(step, name, channel, cpu_of(step->run, lane->number));
}

static int prepare_actors(struct block *block, struct kernel_step *step)
{
	int error = 0;

	for (int name = 0; name < (int)block->run->litmus->nnames; name++) {
		unsigned count = is_alive(block, name) ? count_lanes_of(block, name) : 0;

		for (unsigned lane = 0; !error && count && lane < block->nlanes; lane++)
			if (acts_in(block, name, lane))
				error = prepare_actor(step, &block->lanes[lane], name, count > 1);
	}
	return error;
}

/* Back to one cpu: the lanes' own threads leave theirs, then end. */
static int dismiss_thread(struct block *block, struct kernel_step *step, struct kernel_lane *lane, int name)
{
	int channel = lane->channels[name];
	int error = is_alive(block, name) ? send_to_cpu(step, name, channel, cpu_of(block->run, 0)) : 0;

	close(channel);
	lane->channels[name] = -1;
	return error;
}

static int dismiss_participant(struct block *block, struct kernel_step *step, int name)
{
	struct agent_command command = {.op = AGENT_JOIN};
	struct agent_reply reply;
	int error = 0;

	for (unsigned lane = 0; !error && lane < block->nlanes; lane++)
		if (block->lanes[lane].channels[name] >= 0)
			error = dismiss_thread(block, step, &block->lanes[lane], name);
	if (error || !is_alive(block, name))
		return error;
	error = kernel_call(step, name, &command, -1, &reply);
	return error ? error
		     : send_to_cpu(step, name, block->run->objects[name].participant.channel, cpu_of(block->run, 0));
}

static int dismiss_all(struct block *block, struct kernel_step *step)
{
	int error = 0;

	for (int name = 0; !error && name < (int)block->run->litmus->nnames; name++)
		if (block->run->litmus->names[name].kind == NAME_PROCESS)
			error = dismiss_participant(block, step, name);
	return error;
}

/* ---- running ---- */

static void *lane_main(void *arg)
{
	struct kernel_lane *lane = arg;

	for (size_t i = 0; i < lane->nstmts; i++) {
		struct kernel_step step = {.run = lane->run, .lane = lane, .stmt = &lane->stmts[i]};

		if (step.stmt->lane == lane->number)
			kernel_statement(&step);
	}
	/* The others may wait for what this one will not do any more. */
	if (lane->run->over)
		kernel_abandon_uffds(lane->run);
	return NULL;
}

/* splitmix64 (Steele, Lea, Flood 2014) of the seed and the lane. */
static uint64_t random_for(uint64_t seed, unsigned block, unsigned lane)
{
	uint64_t z = seed + UINT64_C(0x9e3779b97f4a7c15) * (block * 64u + lane + 1);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static const struct stmt *first_of_lane(const struct block *block, unsigned lane)
{
	const struct stmt *stmt = block->stmts;

	while (stmt->lane != lane && stmt + 1 < block->stmts + block->nstmts)
		stmt++;
	return stmt;
}

/*
 * Lanes whose first statement is a participant's start it together, then each spins for a time that the seed chooses:
 * about as long as a small fork takes, so that repeated runs meet it at different points.
 */
static void plan_meeting(struct block *block)
{
	uint32_t meet = 0;

	for (unsigned lane = 0; lane < block->nlanes; lane++)
		meet += block->lanes[lane].meet = is_agents(first_of_lane(block, lane));
	for (unsigned lane = 0; lane < block->nlanes; lane++) {
		uint64_t random = random_for(block->run->options->seed, block->stmts->block, lane);

		block->lanes[lane].meet *= meet;
		block->lanes[lane].delay_ns = (uint32_t)(random % 131072u);
	}
	block->run->meeting->arrived = 0;
}

static void run_lanes(struct block *block, struct kernel_step *step)
{
	unsigned started = 0;
	int error = 0;

	plan_meeting(block);
	while (!error && started < block->nlanes) {
		struct kernel_lane *lane = &block->lanes[started];

		error = pthread_create(&lane->thread, NULL, lane_main, lane);
		started += !error;
	}
	if (error)
		kernel_error(step, "kernel: no thread for a lane: %s", litmus_error_name(error));
	while (started)
		pthread_join(block->lanes[--started].thread, NULL);
}

static bool make_lanes(struct block *block)
{
	size_t nnames = block->run->litmus->nnames;

	for (size_t i = 0; i < block->nstmts; i++)
		if (block->stmts[i].lane >= block->nlanes)
			block->nlanes = block->stmts[i].lane + 1;
	block->lanes = calloc(block->nlanes, sizeof(*block->lanes));
	for (unsigned i = 0; block->lanes && i < block->nlanes; i++) {
		struct kernel_lane *lane = &block->lanes[i];

		*lane = (struct kernel_lane){
			.run = block->run, .number = i, .stmts = block->stmts, .nstmts = block->nstmts};
		lane->channels = malloc(nnames * sizeof(*lane->channels));
		if (!lane->channels)
			return false;
		for (size_t name = 0; name < nnames; name++)
			lane->channels[name] = -1;
	}
	return block->lanes;
}

static void free_lanes(struct block *block)
{
	for (unsigned i = 0; block->lanes && i < block->nlanes; i++)
		free(block->lanes[i].channels); /* what a broken-off run left open ends with the supervisor */
	free(block->lanes);
}

void kernel_run_block(struct kernel_run *run, const struct stmt *stmts, size_t nstmts)
{
	struct block block = {.run = run, .stmts = stmts, .nstmts = nstmts};
	struct kernel_step step = {.run = run, .stmt = stmts};
	int error = make_lanes(&block) ? prepare_actors(&block, &step) : ENOMEM;

	if (!error) {
		run_lanes(&block, &step);
		error = run->over ? 0 : dismiss_all(&block, &step);
	}
	if (error && error != STEP_ENDED)
		kernel_error(&step, "kernel: the lanes cannot be set up: %s", litmus_error_name(error));
	free_lanes(&block);
}
