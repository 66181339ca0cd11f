/* SPDX-License-Identifier: MIT */
/* Nodes, clocks, races, and what is still to be tried. */
#include "explore_search.h"

#include "explore_future.h"

#include <stdlib.h>
#include <string.h>

#define BIT(proc)   ((uint32_t)1 << (proc))
#define MOST_RACES  SEARCH_NODES
#define MOST_WASTED 2000 /* runs of a search by states after it has learnt that it must begin anew */

/* What a search by states knows of a node. */
static struct stand {
	struct op ops[SEARCH_PROCS]; /* the next steps of those that were tried */
	uint32_t barred;             /* of these, who found that no condition of its object held */
	uint32_t alive;
	bool noted;
	struct state_sum state;
	struct future future;
} stands[SEARCH_NODES];
static struct future blocked; /* what processes stand before that can never go on */

void search_init(struct search *search, uint32_t bound, bool bounded)
{
	search->bound = bound;
	search->bounded = bounded;
	search->chosen = SEARCH_NO_NODE;
	search->nobjects = 1; /* SEARCH_FENCES */
	search->objects[SEARCH_FENCES].last = SEARCH_NO_NODE;
	for (unsigned i = 0; i < SEARCH_PROCS; i++)
		search->last_of_proc[i] = SEARCH_NO_NODE;
}

void search_begin_run(struct search *search)
{
	search->depth = 0;
	search->running = SEARCH_NOBODY;
	search->preemptions = 0;
	memset(search->base, 0, sizeof(search->base));
	search->end_future = FUTURE_NOTHING;
	future_clear(&blocked);
	search->end_block = 0;
}

void search_begin_block(struct search *search)
{
	for (int32_t i = 0; i < search->depth; i++)
		search->base[search->nodes[i].proc] = (uint16_t)(i + 1);
	search->running = SEARCH_NOBODY;
}

/* Addresses are words; the golden ratio spreads them. */
uint32_t search_object(struct search *search, const volatile void *address)
{
	uint32_t mask = 2 * SEARCH_OBJECTS - 1;
	uint32_t at = (uint32_t)(((uintptr_t)address * UINT64_C(0x9e3779b97f4a7c15)) >> 40) & mask;

	for (; search->hash[at]; at = (at + 1) & mask)
		if (search->objects[search->hash[at] - 1].address == address)
			return search->hash[at] - 1;
	if (search->nobjects == SEARCH_OBJECTS)
		abort();
	search->objects[search->nobjects] = (struct search_object){.address = address, .last = SEARCH_NO_NODE};
	search->hash[at] = ++search->nobjects;
	return search->nobjects - 1;
}

bool search_is_shared(struct search *search, unsigned lane, enum op_kind kind, uint32_t number)
{
	struct search_object *object = &search->objects[number];
	uint8_t all;

	if (object->shared || object->found)
		return object->shared;
	if (kind == OP_LOAD)
		object->loaders |= (uint8_t)BIT(lane);
	else if (kind == OP_ADD)
		object->adders |= (uint8_t)BIT(lane);
	else
		object->changers |= (uint8_t)BIT(lane);
	all = object->loaders | object->adders | object->changers;
	if (!(all & (all - 1)) || (!object->changers && !(object->loaders && object->adders)))
		return false;
	if (!search->again)
		search->patience = 2 * search->runs_of_pass + MOST_WASTED;
	search->again = object->found = true;
	if (!search->exhaustive && !search->by_states)
		object->shared = true;
	return object->shared;
}

/* ---- what goes together ---- */

bool search_kinds_depend(enum op_kind a, enum op_kind b)
{
	return a != b || (a != OP_LOAD && a != OP_ADD && a != OP_PUSH && a != OP_EXPEDITE);
}

static bool ops_depend(const struct op *a, const struct op *b)
{
	if (a->kind == OP_LOCAL || b->kind == OP_LOCAL)
		return false;
	return a->object == b->object && search_kinds_depend(a->kind, b->kind);
}

/* Whether going on with @proc takes the processor from a lane that could have run on. */
static bool preempts(const struct node *node, unsigned proc)
{
	return proc < SEARCH_LANES && node->running != SEARCH_NOBODY && proc != node->running &&
	       node->enabled & BIT(node->running);
}

static bool within_bound(const struct search *search, const struct node *node, unsigned proc)
{
	return !search->bounded || (uint32_t)node->preemptions + preempts(node, proc) <= search->bound;
}

/* ---- choosing ---- */

/* Stay with the lane that runs; else the first. Stores leave their buffers as late as possible. */
static unsigned prefer(const struct search *search, uint32_t mask)
{
	if (search->by_states && mask & search->alone)
		mask &= search->alone;
	if (search->running != SEARCH_NOBODY && mask & BIT(search->running))
		return search->running;
	return (unsigned)__builtin_ctz(mask);
}

static void clear_guides(struct node *node)
{
	for (unsigned i = 0; i < SEARCH_PROCS; i++) {
		free(node->guides[i]);
		node->guides[i] = NULL;
	}
}

static void follow_guide(struct search *search, struct node *node, uint32_t awake)
{
	uint32_t at = (uint32_t)(search->depth - search->chosen);

	if (at < search->guide->n && awake & BIT(search->guide->procs[at]))
		node->proc = search->guide->procs[at];
	else
		search->guide = NULL;
}

void search_note_state(struct search *search, const struct state_sum *sum)
{
	stands[search->depth].noted = true;
	stands[search->depth].state = *sum;
}

bool search_circles(const struct search *search, const struct state_sum *sum)
{
	for (int32_t i = search->depth - 1; i >= 0 && search->nodes[i].proc == search->nodes[search->depth - 1].proc;
	     i--)
		if (stands[i].noted && stands[i].state.low == sum->low && stands[i].state.high == sum->high)
			return true;
	return false;
}

unsigned search_choose(struct search *search, uint32_t enabled)
{
	struct node *node = &search->nodes[search->depth];
	uint32_t awake;

	if (search->depth <= search->chosen)
		return node->proc;
	clear_guides(node);
	node->enabled = enabled;
	node->running = search->running;
	node->preemptions = search->preemptions;
	node->done = 0;
	future_clear(&stands[search->depth].future);
	if (!search->depth)
		node->sleep = 0;
	awake = enabled & ~node->sleep;
	if (!awake)
		return SEARCH_NOBODY;
	node->proc = (uint8_t)prefer(search, awake);
	if (search->guide)
		follow_guide(search, node, awake);
	node->backtrack = search->exhaustive ? enabled : BIT(node->proc);
	return node->proc;
}

/* ---- races ---- */

static bool comes_before(const struct search *search, int32_t earlier, const uint16_t *clock)
{
	return clock[search->nodes[earlier].proc] > earlier;
}

static void join(uint16_t *clock, const uint16_t *other)
{
	for (unsigned i = 0; i < SEARCH_PROCS; i++)
		if (other[i] > clock[i])
			clock[i] = other[i];
}

/*
 * Which processes could begin a run that has the last node's step before that of node @at, and all else that can be
 * kept: of the steps after @at that do not depend on it, those that come after no other of them.
 */
static uint32_t beginnings(const struct search *search, int32_t at)
{
	unsigned proc = search->nodes[at].proc;
	int32_t first[SEARCH_PROCS], last = search->depth;
	uint32_t seen = 0, result = 0;

	for (int32_t i = at + 1; i <= last; i++) {
		const struct node *node = &search->nodes[i];
		bool begins = true;

		if (seen & BIT(node->proc) || (i < last && node->clock[proc] > at))
			continue;
		for (uint32_t left = seen; left && begins; left &= left - 1) {
			unsigned other = (unsigned)__builtin_ctz(left);

			begins = node->clock[other] <= first[other];
		}
		first[node->proc] = i;
		seen |= BIT(node->proc);
		if (begins)
			result |= BIT(node->proc);
	}
	return result;
}

static void note(struct search *search, int32_t at, unsigned proc)
{
	struct node *node = &search->nodes[at];

	node->backtrack |= node->enabled & BIT(proc) ? BIT(proc) : node->enabled;
}

/* The last change of lanes before node @at. */
static int32_t change_before(const struct search *search, int32_t at)
{
	int32_t i = at - 1;

	while (i > 0 && search->nodes[i - 1].proc == search->nodes[i].proc)
		i--;
	return i;
}

static void note_bounded(struct search *search, int32_t at, unsigned proc)
{
	int32_t change = change_before(search, at);

	note(search, at, proc);
	if (change >= 0)
		note(search, change, proc);
}

/*
 * What a run does that has the last node's step before that of node @at, and else goes as this one did: the steps after
 * @at that do not depend on it, then the last. Left to itself it might not come there before all has been tried.
 */
static struct guide *make_guide(const struct search *search, int32_t at)
{
	unsigned proc = search->nodes[at].proc;
	struct guide *guide = malloc(sizeof(*guide) + (size_t)(search->depth - at));

	if (!guide)
		return NULL;
	guide->n = 0;
	for (int32_t i = at + 1; i <= search->depth; i++)
		if (i == search->depth || search->nodes[i].clock[proc] <= at)
			guide->procs[guide->n++] = search->nodes[i].proc;
	return guide;
}

static void note_race(struct search *search, int32_t at, unsigned proc)
{
	struct node *node = &search->nodes[at];
	struct guide *guide;
	uint32_t begin;

	if (search->exhaustive)
		return;
	if (search->bounded) {
		note_bounded(search, at, proc);
		return;
	}
	begin = beginnings(search, at);
	if (begin & (node->backtrack | node->sleep))
		return;
	guide = make_guide(search, at);
	if (guide && node->enabled & BIT(guide->procs[0])) {
		node->backtrack |= BIT(guide->procs[0]);
		node->guides[guide->procs[0]] = guide;
		return;
	}
	free(guide);
	note(search, at, begin & BIT(proc) ? proc : (unsigned)__builtin_ctz(begin));
}

/* Whether one knows that @step could, or could not, have run before @node: a step that waits only if its condition
 * held.
 */
static bool knows(const struct node *step, const struct node *node)
{
	return !step->waits || node->known >> step->wait & 1;
}

static bool could_come_before(const struct node *step, const struct node *node)
{
	return !step->waits || !knows(step, node) || node->ready >> step->wait & 1;
}

/*
 * Find what the new step races with, and complete its clock. Of several earlier steps on the object those count that
 * are not ordered before the new one by another of them; with a bound all that the process did not know of, since the
 * way round by the others may be barred.
 */
static void find_races(struct search *search, struct node *step, const uint16_t *late)
{
	uint16_t known[SEARCH_PROCS], pending[SEARCH_PROCS] = {0};
	static int32_t races[MOST_RACES];
	unsigned nraces = 0;

	memcpy(known, step->clock, sizeof(known));
	for (int32_t i = step->before_on_object; i != SEARCH_NO_NODE; i = search->nodes[i].before_on_object) {
		const struct node *node = &search->nodes[i];
		bool could;

		if (!search_kinds_depend((enum op_kind)node->kind, (enum op_kind)step->kind))
			continue;
		join(pending, node->clock);
		if (comes_before(search, i, known))
			continue;
		/*
		 * A wait that could not end yet is no race, but with a bound it is a change of lanes for nothing.
		 * Before an addition it could, if the process's own addition, which goes together with that, had come
		 * too.
		 */
		could = could_come_before(step, node);
		if (!search->bounded && !could && node->kind != OP_ADD)
			continue;
		if (nraces == MOST_RACES)
			abort();
		races[nraces++] = i;
		if (!search->bounded && could && knows(step, node))
			join(known, pending);
	}
	join(step->clock, pending);
	join(step->clock, late);
	for (unsigned i = 0; i < nraces; i++)
		note_race(search, races[i], step->proc);
}

static void start_clock(struct search *search, struct node *step)
{
	if (step->before_of_proc != SEARCH_NO_NODE)
		memcpy(step->clock, search->nodes[step->before_of_proc].clock, sizeof(step->clock));
	else
		memset(step->clock, 0, sizeof(step->clock));
	join(step->clock, search->base);
}

/* Who sleeps on: a step that goes together with what they would do does not wake them. */
static uint32_t sleepers_after(const struct node *node, const struct op *op, const struct op *ops, uint32_t alive)
{
	uint32_t sleep = 0;

	for (uint32_t left = (node->sleep | node->done) & alive & ~BIT(node->proc); left; left &= left - 1)
		if (!ops_depend(&ops[__builtin_ctz(left)], op))
			sleep |= left & -left;
	return sleep;
}

static void link_step(struct search *search, struct node *step)
{
	step->before_of_proc = search->last_of_proc[step->proc];
	step->before_on_object = step->kind == OP_LOCAL ? SEARCH_NO_NODE : search->objects[step->object].last;
}

static void account(struct search *search, const struct node *node, unsigned proc)
{
	search->preemptions = (uint16_t)(node->preemptions + preempts(node, proc));
	if (proc < SEARCH_LANES)
		search->running = (uint8_t)proc;
	search->depth++;
	search->steps++;
}

static void describe(struct node *step, const struct op *op, const struct search_world *world)
{
	step->kind = (uint8_t)op->kind;
	step->object = op->object;
	step->waits = op->waits;
	step->wait = op->wait;
	step->ready = world->ready;
	step->known = world->known;
	step->block = world->block;
	step->at = world->at;
}

/* What a search by states wants to know of a step. */
static void stand_before(struct search *search, const struct node *step, const struct op *op,
			 const struct search_world *world)
{
	struct stand *stand = &stands[search->depth];
	/* An addition that goes together with this one could make way for a wait. */
	bool barred = op->kind != OP_ADD && step->known && !step->ready &&
		      search->objects[op->object].known == step->known;

	stand->ops[step->proc] = *op;
	stand->barred = (stand->barred & ~BIT(step->proc)) | (barred ? BIT(step->proc) : 0);
	stand->alive = world->alive;
}

/*
 * A membarrier comes after the stores that it drove out of the buffers, but it races with putting them in: what it is
 * ordered after beside the objects is told to its clock @late.
 */
static void order(struct search *search, struct node *step, const struct search_world *world)
{
	uint16_t late[SEARCH_PROCS] = {0};

	start_clock(search, step);
	for (unsigned i = 0; i < world->nafter; i++)
		if (world->after[i] != SEARCH_NO_NODE)
			join(step->kind == OP_EXPEDITE ? late : step->clock, search->nodes[world->after[i]].clock);
	if (step->kind != OP_LOCAL)
		find_races(search, step, late);
}

void search_step(struct search *search, unsigned proc, const struct op *op, const struct search_world *world)
{
	struct node *step = &search->nodes[search->depth];

	if (search_repeats(search)) {
		search->diverged |= step->kind != op->kind || step->object != op->object;
		account(search, step, proc);
		return;
	}
	describe(step, op, world);
	link_step(search, step);
	future_seen(proc, op, world->position);
	if (search->by_states)
		stand_before(search, step, op, world);
	else if (!search->exhaustive)
		order(search, step, world);
	step->clock[proc] = (uint16_t)(search->depth + 1);
	search->last_of_proc[proc] = search->depth;
	if (op->kind != OP_LOCAL)
		search->objects[op->object].last = search->depth;
	search->nodes[search->depth + 1].sleep = search->bounded || search->exhaustive || search->by_states
							 ? 0
							 : sleepers_after(step, op, world->ops, world->alive);
	account(search, step, proc);
}

void search_blocked(struct search *search, unsigned proc, const struct op *op, const struct search_world *world)
{
	struct node *step = &search->nodes[search->depth];

	if (search->by_states) {
		search->end_block = world->block;
		future_add(&blocked, proc, op);
		return;
	}
	step->proc = (uint8_t)proc;
	describe(step, op, world);
	link_step(search, step);
	order(search, step, world);
}

/* ---- the next run ---- */

/* Forget the steps from node @from on. */
static void forget(struct search *search, int32_t from)
{
	for (int32_t i = search->depth - 1; i >= from; i--) {
		const struct node *node = &search->nodes[i];

		search->last_of_proc[node->proc] = node->before_of_proc;
		if (node->kind != OP_LOCAL)
			search->objects[node->object].last = node->before_on_object;
	}
}

static uint32_t untried(const struct search *search, const struct node *node)
{
	uint32_t mask = node->backtrack & ~node->done & ~node->sleep;

	for (uint32_t left = mask; left; left &= left - 1)
		if (!within_bound(search, node, (unsigned)__builtin_ctz(left)))
			mask &= ~(left & -left);
	return mask;
}

void search_begin_anew(struct search *search, uint32_t bound, bool bounded)
{
	search->bound = bound;
	search->bounded = bounded;
	for (unsigned i = 0; i < SEARCH_PROCS; i++)
		search->last_of_proc[i] = SEARCH_NO_NODE;
	for (uint32_t i = 0; i < search->nobjects; i++) {
		search->objects[i].last = SEARCH_NO_NODE;
		search->objects[i].shared |= search->objects[i].found;
	}
	search->again = false;
	search->runs_of_pass = 0;
	search->passes++;
	search->chosen = SEARCH_NO_NODE;
	search->guide = NULL;
}

/*
 * A search by states that has learnt of a shared object goes on for as long again before it begins anew: there may be
 * more to learn, and every new beginning costs all that was done.
 */
static bool begins_anew(const struct search *search)
{
	return search->again &&
	       (!(search->exhaustive || search->by_states) || search->runs_of_pass >= search->patience);
}

/* Who has to be tried at @node because of what was seen to follow it. */
static void widen(struct node *node, const struct stand *stand)
{
	for (uint32_t left = node->done; left; left &= left - 1) {
		unsigned proc = (unsigned)__builtin_ctz(left);

		for (unsigned other = 0; other < SEARCH_PROCS && node->backtrack != node->enabled; other++) {
			unsigned first = other;

			/* What it would flush has yet to be put in. */
			if (other >= SEARCH_LANES && !(stand->alive & BIT(other)))
				first = other - SEARCH_LANES;
			if (first == proc || !(stand->alive & BIT(first)) || node->backtrack & BIT(first))
				continue;
			if (future_races(&stand->future, other, &stand->ops[proc], stand->barred & BIT(proc)))
				node->backtrack |= node->enabled & BIT(first) ? BIT(first) : node->enabled;
		}
	}
}

static bool next_by_states(struct search *search)
{
	for (int32_t i = search->depth - 1; i >= 0; i--) {
		struct node *node = &search->nodes[i];
		struct stand *stand = &stands[i];
		struct op op = stand->ops[node->proc];
		bool last = i == search->depth - 1;
		uint32_t left;

		/* What is done in a later block comes after all of this one. */
		if (last && search->end_block == node->block) {
			future_join_stored(&stand->future, search->end_future);
			future_join(&stand->future, &blocked);
		} else if (!last && search->nodes[i + 1].block == node->block) {
			future_join(&stand->future, &stands[i + 1].future);
		}
		future_add(&stand->future, node->proc, &op);
		node->done |= BIT(node->proc);
		widen(node, stand);
		left = node->backtrack & ~node->done;
		if (left) {
			forget(search, i);
			node->proc = (uint8_t)__builtin_ctz(left);
			search->chosen = i;
			return true;
		}
		if (stand->noted)
			states_close(&stand->state, future_store(&stand->future));
	}
	if (!search->again)
		return false;
	search_begin_anew(search, search->bound, search->bounded);
	return true;
}

bool search_next(struct search *search)
{
	search->runs_of_pass++;
	if (begins_anew(search)) {
		search_begin_anew(search, search->bound, search->bounded);
		return true;
	}
	if (search->by_states)
		return next_by_states(search);
	for (int32_t i = search->depth - 1; i >= 0; i--) {
		struct node *node = &search->nodes[i];
		uint32_t left;

		node->done |= BIT(node->proc);
		left = untried(search, node);
		if (!left)
			continue;
		forget(search, i);
		node->proc = (uint8_t)__builtin_ctz(left);
		search->chosen = i;
		search->guide = node->guides[node->proc];
		return true;
	}
	if (!search->again)
		return false;
	search_begin_anew(search, search->bound, search->bounded);
	return true;
}
