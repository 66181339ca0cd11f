/* SPDX-License-Identifier: MIT */
/* The lanes of a block, and the hooks that the engine's code calls (base/hook.h, base/futex.h). */
#include "explore_lanes.h"

#include "explore_fibre.h"
#include "explore_future.h"

#include "base/event.h"
#include "base/futex.h"
#include "base/thread.h"

#include <errno.h>
#include <string.h>

#define STACK_BYTES    ((size_t)256 << 10)
#define WIPED_BYTES    ((size_t)4 << 10)
#define WIPED_AT_FIRST ((size_t)32 << 10)
#define LANE_NODES     20000   /* a lane that comes to more choices, */
#define LANE_STEPS     4000000 /* or takes more steps, does not end */
#define BUFFER_STORES  16      /* a fuller buffer must let one go first */
#define BIT(proc)      ((uint32_t)1 << (proc))

struct stored {
	volatile char *object;
	uint64_t value;
	size_t nbytes;
	uint32_t number; /* of the object */
	int32_t node;    /* of the step that put it in */
};

struct lane {
	struct fibre fibre;
	bool ended;
	uint32_t steps, nodes;
	size_t next; /* of a schedule, or of the nodes that are repeated: where it stands next */
	/* Its next step. */
	struct op op;
	hook_ready *ready;
	const volatile void *object;
	uintptr_t arg;
	bool drained; /* it needs an empty buffer */
	bool stores;  /* it stores @value, @nbytes of it */
	uint64_t value;
	size_t nbytes;
	const struct hook_site *site;
	uint16_t locks; /* that it holds */
	/* Its store buffer, oldest first. */
	struct stored buffer[BUFFER_STORES];
	unsigned nbuffered;
	/* What it sleeps on. */
	const volatile void *sleeps_on;
	bool woken;
};

static struct {
	struct lanes_options options;
	struct fibre main;
	struct lane lanes[SEARCH_LANES];
	unsigned nlanes, quiet, block;
	bool within, over, pretends;
	unsigned current; /* the running lane; outside of a block, who hook_lane says it is */
	uint32_t alive;
	enum lanes_end end;
	size_t followed;
	bool shown;    /* the choice is the schedule's own, not what came after it */
	unsigned last; /* lane that ran last, where no search keeps it */
	void (*entry)(void *arg, unsigned number);
	void *arg;
} live;

bool hook_live;

static bool is_silent(void)
{
	return !hook_live;
}

static void set_live(void)
{
	hook_live = live.within && !live.quiet;
}

int lanes_open(void)
{
	for (unsigned i = 0; i < SEARCH_LANES; i++)
		if (fibre_create(&live.lanes[i].fibre, STACK_BYTES))
			return -ENOMEM;
	return 0;
}

void lanes_begin_run(const struct lanes_options *options)
{
	live.options = *options;
	live.within = false;
	live.current = 0;
	live.quiet = 0;
	live.followed = 0;
	live.block = 0;
	set_live();
	if (options->search)
		search_begin_run(options->search);
}

void lanes_coarse(const void *start, size_t nbytes, size_t coarse)
{
	live.options.coarse_start = start;
	live.options.coarse_end = live.options.coarse_start + nbytes;
	live.options.coarse = coarse;
}

/* ---- objects ---- */

#define CONDITIONS 8
/* What lanes have ever waited for on an object, so that one knows afterwards whether it held. */
struct condition {
	hook_ready *ready;
	uintptr_t arg;
};
static struct condition conditions[SEARCH_OBJECTS][CONDITIONS];

static const volatile void *coarsen(const volatile void *object)
{
	const volatile char *at = object;

	if (at >= live.options.coarse_start && at < live.options.coarse_end)
		return (const volatile void *)((uintptr_t)at & ~(uintptr_t)(live.options.coarse - 1));
	return object;
}

static uint32_t number_of(const volatile void *object)
{
	return live.options.search ? search_object(live.options.search, coarsen(object)) : 1;
}

/* The number of a condition among those of its object; one more than there is room for is never known. */
static uint8_t condition_of(uint32_t object, hook_ready *ready, uintptr_t arg)
{
	struct search *search = live.options.search;
	unsigned i;

	if (!search)
		return 0;
	for (i = 0; i < CONDITIONS && conditions[object][i].ready; i++)
		if (conditions[object][i].ready == ready && conditions[object][i].arg == arg)
			break;
	if (i == CONDITIONS)
		return CONDITIONS;
	conditions[object][i] = (struct condition){ready, arg};
	search->objects[object].known |= (uint8_t)(1u << i);
	return (uint8_t)i;
}

static uint8_t conditions_that_hold(uint32_t object, uint8_t known)
{
	const volatile void *address = live.options.search->objects[object].address;
	uint8_t ready = 0;

	for (unsigned i = 0; known >> i; i++)
		if (known >> i & 1 && conditions[object][i].ready(address, conditions[object][i].arg))
			ready |= (uint8_t)(1u << i);
	return ready;
}

/* ---- who can run ---- */

static bool buffers_empty(void)
{
	for (unsigned i = 0; i < live.nlanes; i++)
		if (live.lanes[i].nbuffered)
			return false;
	return true;
}

static bool lane_can_run(const struct lane *lane)
{
	if (lane->ended || (lane->drained && lane->nbuffered))
		return false;
	if (lane->op.kind == OP_EXPEDITE && !buffers_empty())
		return false;
	if (lane->op.kind == OP_PUSH && lane->nbuffered == BUFFER_STORES)
		return false;
	return !lane->op.waits || lane->ready(lane->object, lane->arg);
}

static uint32_t who_can_run(void)
{
	uint32_t mask = 0;

	for (unsigned i = 0; i < live.nlanes; i++) {
		if (lane_can_run(&live.lanes[i]))
			mask |= BIT(i);
		if (live.lanes[i].nbuffered)
			mask |= BIT(search_flusher(i));
	}
	return mask;
}

static enum lanes_end nobody_can_run(void)
{
	enum lanes_end end = LANES_DONE;

	for (unsigned i = 0; i < live.nlanes; i++) {
		if (live.lanes[i].ended)
			continue;
		if (live.lanes[i].sleeps_on)
			return LANES_LOST_WAKE;
		end = LANES_DEADLOCK;
	}
	return end;
}

/* ---- choosing ---- */

/* What the schedule says; where it says no more, the lane that runs goes on, else the first that can. */
static unsigned follow(uint32_t enabled)
{
	const struct lanes_choice *choice = &live.options.schedule[live.followed];

	live.shown = false;
	if (live.followed == live.options.nmade || choice->block != live.block)
		return live.last != SEARCH_NOBODY && enabled & BIT(live.last) ? live.last
									      : (unsigned)__builtin_ctz(enabled);
	if (choice->proc >= SEARCH_PROCS || !(enabled & BIT(choice->proc)) ||
	    (choice->proc < SEARCH_LANES && choice->at != live.lanes[choice->proc].steps))
		return SEARCH_NOBODY;
	live.followed++;
	live.shown = true;
	return choice->proc;
}

/* A store that changes nothing goes together with whatever a load does. */
static bool changes(const volatile void *object, uint64_t value, size_t nbytes)
{
	return memcmp((const void *)(uintptr_t)object, &value, nbytes);
}

static struct op flush_op(const struct lane *lane)
{
	const struct stored *stored = &lane->buffer[0];
	bool changing = changes(stored->object, stored->value, stored->nbytes);

	return (struct op){.kind = changing ? OP_STORE : OP_LOAD, .object = stored->number};
}

static struct op lane_op(const struct lane *lane)
{
	struct op op = lane->op;

	if (op.kind == OP_STORE && lane->stores && !changes(lane->object, lane->value, lane->nbytes))
		op.kind = OP_LOAD;
	return op;
}

/* Beside what the objects say: who needs buffers empty comes after the flushes that emptied them, a flush after its
 * store. */
static void order_after(struct search_world *world, unsigned proc)
{
	const struct search *search = live.options.search;
	const struct lane *lane = &live.lanes[proc % SEARCH_LANES];

	if (!live.options.tso)
		return;
	if (proc >= SEARCH_LANES)
		world->after[world->nafter++] = lane->buffer[0].node;
	else if (lane->op.kind == OP_EXPEDITE)
		for (unsigned i = 0; i < live.nlanes; i++)
			world->after[world->nafter++] = search->last_of_proc[search_flusher(i)];
	else if (lane->drained)
		world->after[world->nafter++] = search->last_of_proc[search_flusher(proc)];
}

static struct op op_of(unsigned proc)
{
	return proc < SEARCH_LANES ? lane_op(&live.lanes[proc]) : flush_op(&live.lanes[proc - SEARCH_LANES]);
}

static uint64_t position_of(const struct lane *lane)
{
	return (uint64_t)live.block << 32 | lane->steps;
}

/* Of @enabled, who is not expected to race with what other lanes do. */
static uint32_t who_is_alone(uint32_t enabled)
{
	uint32_t alone = enabled;

	for (uint32_t left = enabled; left; left &= left - 1) {
		unsigned proc = (unsigned)__builtin_ctz(left);
		struct op op = op_of(proc);

		for (unsigned i = 0; i < live.nlanes; i++) {
			const struct lane *other = &live.lanes[i];

			if (i != proc % SEARCH_LANES && (!other->ended || other->nbuffered) &&
			    (future_expects(i, position_of(other), &op) ||
			     future_expects(search_flusher(i), position_of(other), &op)))
				alone &= ~BIT(proc);
		}
	}
	return alone;
}

static void tell_search(unsigned proc)
{
	struct search *search = live.options.search;
	struct op op = op_of(proc);
	struct search_world world;

	if (search_repeats(search)) {
		search_step(search, proc, &op, NULL);
		return;
	}
	world = (struct search_world){.block = live.block, .at = proc < SEARCH_LANES ? live.lanes[proc].steps : 0};
	world.position = position_of(&live.lanes[proc % SEARCH_LANES]);
	order_after(&world, proc);
	for (unsigned i = 0; i < live.nlanes; i++) {
		if (!live.lanes[i].ended) {
			world.ops[i] = lane_op(&live.lanes[i]);
			world.alive |= BIT(i);
		}
		if (live.lanes[i].nbuffered) {
			world.ops[search_flusher(i)] = flush_op(&live.lanes[i]);
			world.alive |= BIT(search_flusher(i));
		}
	}
	world.known = op.kind == OP_LOCAL ? 0 : search->objects[op.object].known;
	world.ready = world.known ? conditions_that_hold(op.object, world.known) : 0;
	search_step(search, proc, &op, &world);
}

/* What waits for ever could have come earlier too. */
static void tell_blocked(void)
{
	struct search_world world = {.block = live.block};

	for (unsigned i = 0; i < live.nlanes; i++)
		if (!live.lanes[i].ended)
			search_blocked(live.options.search, i, &live.lanes[i].op, &world);
}

/* ---- states ---- */

/* What a lane that stands before a step will do, beside what its stack says. */
struct stand {
	uint64_t ended, kind, waits, drained, stores, value, nbytes, woken;
	const volatile void *object, *sleeps_on;
	hook_ready *ready;
	uint64_t arg;
};

static void add_lane(struct state_sum *sum, const struct lane *lane)
{
	uint64_t number = (uint64_t)(lane - live.lanes) * 4;
	const char *top = lane->fibre.top, *end = lane->fibre.stack + lane->fibre.nbytes;
	struct stand stand = {.ended = lane->ended, .sleeps_on = lane->sleeps_on, .woken = lane->woken};

	if (!lane->ended) {
		stand.kind = lane->op.kind;
		stand.object = lane->object;
		stand.waits = lane->op.waits;
		stand.drained = lane->drained;
		stand.stores = lane->stores;
		stand.ready = lane->op.waits ? lane->ready : NULL;
		stand.arg = lane->op.waits ? lane->arg : 0;
		stand.value = lane->stores ? lane->value : 0;
		stand.nbytes = lane->stores ? lane->nbytes : 0;
		states_add_part(sum, number, top, (size_t)(end - top));
	}
	states_add_part(sum, number + 1, &stand, sizeof(stand));
	for (unsigned i = 0; i < lane->nbuffered; i++) {
		const struct stored *stored = &lane->buffer[i];
		uint64_t word[] = {i, (uint64_t)(uintptr_t)stored->object, stored->value, stored->nbytes};

		states_add_part(sum, number + 2, word, sizeof(word));
	}
}

/* Whether a run has stood here before; in *circles, whether it was this one, and one lane alone has run since. Numbers
 * of parts from 2^32 on are those of memory. */
static bool stood_here(bool *circles)
{
	struct search *search = live.options.search;
	struct state_sum sum = {live.block, 0};

	for (unsigned i = 0; i < live.nlanes; i++)
		add_lane(&sum, &live.lanes[i]);
	hook_quiet_begin();
	live.options.add_memory(&sum);
	hook_quiet_end();
	search->end_block = live.block;
	if (states_meet(&sum, &search->end_future)) {
		*circles = search->end_future == FUTURE_OPEN && search_circles(search, &sum);
		return true;
	}
	search->end_future = FUTURE_NOTHING;
	search_note_state(search, &sum);
	return false;
}

static bool choose(unsigned *proc)
{
	struct search *search = live.options.search;
	bool circles = false;
	uint32_t enabled;

	if (search && search_repeats(search)) {
		*proc = search_choose(search, 0);
		return true;
	}
	enabled = who_can_run();
	if (!enabled) {
		live.end = nobody_can_run();
		if (search)
			tell_blocked();
		return false;
	}
	/* The choice that this run is to make otherwise is one at a state that was met. */
	if (live.options.add_memory && search->depth > search->chosen && stood_here(&circles)) {
		live.end = circles ? LANES_LIVELOCK : LANES_PRUNED;
		return false;
	}
	if (search && search->by_states && search->depth > search->chosen)
		search->alone = who_is_alone(enabled);
	*proc = search ? search_choose(search, enabled) : follow(enabled);
	if (*proc == SEARCH_NOBODY)
		live.end = search ? LANES_PRUNED : LANES_MISFIT;
	return *proc != SEARCH_NOBODY;
}

static void tell_observer(unsigned proc)
{
	const struct lanes_observer *observer = live.options.observer;
	const struct lane *lane = &live.lanes[proc % SEARCH_LANES];
	bool preempts = live.last != SEARCH_NOBODY && proc < SEARCH_LANES && proc != live.last &&
			lane_can_run(&live.lanes[live.last]);
	struct lanes_choice choice = {(uint8_t)proc, live.block, proc < SEARCH_LANES ? lane->steps : 0};

	hook_quiet_begin();
	if (proc < SEARCH_LANES)
		observer->step(observer->arg, &choice, lane->op.kind, lane->op.waits, lane->object, lane->site,
			       preempts);
	else
		observer->step(observer->arg, &choice, OP_STORE, false, lane->buffer[0].object, NULL, false);
	hook_quiet_end();
}

/* The schedule ends here: where the other lanes stand. */
static void tell_stops(unsigned running)
{
	const struct lanes_observer *observer = live.options.observer;

	hook_quiet_begin();
	for (unsigned i = 0; i < live.nlanes; i++) {
		const struct lane *lane = &live.lanes[i];
		struct lanes_choice choice = {(uint8_t)i, live.block, lane->steps};

		if (i != running && !lane->ended)
			observer->stop(observer->arg, &choice, lane->op.kind, lane->op.waits, lane->object, lane->site);
	}
	hook_quiet_end();
}

static void flush_oldest(struct lane *lane)
{
	memcpy((void *)(uintptr_t)lane->buffer[0].object, &lane->buffer[0].value, lane->buffer[0].nbytes);
	memmove(lane->buffer, lane->buffer + 1, --lane->nbuffered * sizeof(*lane->buffer));
}

/* ---- going on ---- */

/* Leave the running lane; the block's own stack takes over, and chooses. */
static void leave(void)
{
	fibre_change(&live.lanes[live.current].fibre, &live.main);
}

/* End the block as @end. Does not return to the lane. */
static void finish(enum lanes_end end)
{
	live.end = end;
	live.over = true;
	leave();
}

/* Where the lanes stand, for whoever finds the process crashed. */
static void note_stop(unsigned lane, bool stands)
{
	if (live.options.search)
		live.options.search->stops[lane] = (struct search_stop){stands, live.block, live.lanes[lane].steps};
}

static void tell(unsigned proc)
{
	if (live.options.observer && live.shown)
		tell_observer(proc);
	if (live.options.observer && live.shown && live.followed == live.options.nmade)
		tell_stops(proc);
	if (live.options.search)
		tell_search(proc);
}

/*
 * Choose and let go on, until nobody can or one has ended the block. Lanes come back here before every choice: what is
 * chosen, and how, leaves no trace on their stacks.
 */
static void take_turns(void)
{
	unsigned proc;

	while (!live.over && choose(&proc)) {
		tell(proc);
		if (proc >= SEARCH_LANES) {
			flush_oldest(&live.lanes[proc - SEARCH_LANES]);
			continue;
		}
		note_stop(proc, false);
		live.last = live.current = proc;
		fibre_change(&live.main, &live.lanes[proc].fibre);
		if (live.options.add_memory)
			fibre_wipe(&live.lanes[proc].fibre, WIPED_BYTES);
	}
}

static void lane_begin(void *arg)
{
	struct lane *lane = arg;

	live.entry(live.arg, (unsigned)(lane - live.lanes));
	lane->ended = true;
	leave();
}

static void prepare_lane(struct lane *lane)
{
	struct fibre fibre = lane->fibre;

	*lane = (struct lane){.fibre = fibre, .op = {.kind = OP_LOCAL}, .next = live.followed};
	fibre_prepare(&lane->fibre, lane_begin, lane);
	if (live.options.add_memory)
		fibre_wipe(&lane->fibre, WIPED_AT_FIRST);
}

enum lanes_end lanes_run(unsigned n, void (*entry)(void *arg, unsigned number), void *arg)
{
	live.nlanes = n;
	live.block++;
	live.entry = entry;
	live.arg = arg;
	live.last = SEARCH_NOBODY;
	live.end = LANES_DONE;
	for (unsigned i = 0; i < n; i++) {
		prepare_lane(&live.lanes[i]);
		note_stop(i, true);
	}
	if (live.options.search)
		search_begin_block(live.options.search);
	live.within = true;
	live.over = false;
	set_live();
	take_turns();
	live.within = false;
	live.current = 0;
	live.quiet = 0;
	set_live();
	return live.end;
}

bool lanes_unfinished(unsigned lane)
{
	return lane < live.nlanes && !live.lanes[lane].ended;
}

void lanes_as(int lane)
{
	live.pretends = lane >= 0;
	live.current = live.pretends ? (unsigned)lane : 0;
}

int lanes_current(void)
{
	return live.within || live.pretends ? (int)live.current : -1;
}

bool lanes_within(void)
{
	return live.within;
}

bool lanes_followed(void)
{
	return live.followed == live.options.nmade;
}

/* ---- hooks ---- */

static enum op_kind op_kind(enum hook_kind kind)
{
	switch (kind) {
	case HOOK_LOAD:
		return OP_LOAD;
	case HOOK_STORE:
		return OP_STORE;
	case HOOK_ADD:
		return OP_ADD;
	case HOOK_UPDATE:
		return OP_UPDATE;
	case HOOK_FENCE:
		return OP_LOCAL;
	case HOOK_EXPEDITE:
		break;
	}
	return OP_EXPEDITE;
}

/* Whether the lane has a store to @object, or to something beside it that it cannot be told from, in its buffer. */
static bool is_buffered(const struct lane *lane, const volatile void *object)
{
	for (unsigned i = 0; i < lane->nbuffered; i++)
		if (coarsen(lane->buffer[i].object) == coarsen(object))
			return true;
	return false;
}

/* The lane's next step is as the fields say: wait for its turn. */
static void take_turn(struct lane *lane)
{
	struct search *search = live.options.search;

	if (++lane->nodes > LANE_NODES || (search && search->depth >= SEARCH_NODES - 2))
		finish(LANES_LIVELOCK);
	note_stop(live.current, true);
	leave();
}

/* The choice of the schedule that is the lane's next; it stays there until it has come to that step. */
static bool is_scheduled(struct lane *lane)
{
	const struct lanes_options *options = &live.options;

	for (; lane->next < options->nschedule; lane->next++) {
		const struct lanes_choice *choice = &options->schedule[lane->next];

		if (choice->block == live.block && choice->proc == live.current && choice->at >= lane->steps)
			return choice->at == lane->steps;
	}
	return false;
}

/*
 * Whether the nodes that this run repeats say if the lane's next step is a choice; then in *choice. Of a lane without a
 * node left among them they say nothing, and with store buffers steps that are none may have to wait.
 */
static bool is_repeated(struct lane *lane, bool *choice)
{
	const struct search *search = live.options.search;
	int32_t at = (int32_t)lane->next;

	if (!search_repeats(search) || live.options.tso)
		return false;
	if (at < search->depth)
		at = search->depth;
	while (at < search->chosen && search->nodes[at].proc != live.current)
		at++;
	lane->next = (size_t)at;
	if (at == search->chosen)
		return false;
	*choice = search->nodes[at].block == live.block && search->nodes[at].at == lane->steps;
	return true;
}

/* Whether the lane's next step, @kind of @object, is a choice. */
static bool is_choice(struct lane *lane, enum op_kind kind, const volatile void *object)
{
	struct search *search = live.options.search;
	bool choice;

	if (++lane->steps > LANE_STEPS)
		finish(LANES_LIVELOCK);
	if (!search)
		return is_scheduled(lane);
	if (is_repeated(lane, &choice))
		return choice;
	if (kind == OP_LOCAL || kind == OP_EXPEDITE)
		return true;
	return search_is_shared(search, live.current, kind, number_of(object)) || live.options.every_step;
}

static struct lane *announce(enum op_kind kind, const volatile void *object, const struct hook_site *site)
{
	struct lane *lane = &live.lanes[live.current];
	bool has_object = kind != OP_LOCAL && kind != OP_PUSH && kind != OP_EXPEDITE;

	lane->op = (struct op){
		.kind = kind, .object = has_object ? number_of(object) : SEARCH_FENCES, .locks = lane->locks};
	lane->object = object;
	lane->site = site;
	lane->stores = false;
	lane->drained = live.options.tso && lane->nbuffered && kind != OP_PUSH &&
			(kind != OP_LOAD || is_buffered(lane, object));
	return lane;
}

/* A locked operation empties the buffer, whatever it is on. */
static bool must_drain(const struct lane *lane, enum op_kind kind)
{
	return lane->nbuffered && kind != OP_LOAD;
}

/* Returns: false: the step is no choice, and needs no buffer emptied. */
static bool come_to(enum op_kind kind, const volatile void *object, const struct hook_site *site)
{
	struct lane *lane = &live.lanes[live.current];
	bool choice = is_choice(lane, kind, object);

	if (!choice && !must_drain(lane, kind))
		return false;
	announce(choice ? kind : OP_LOCAL, object, site);
	return true;
}

void hook_step_at(enum hook_kind kind, const volatile void *object, const struct hook_site *site)
{
	if (is_silent() || (!live.options.tso && (kind == HOOK_FENCE || kind == HOOK_EXPEDITE)))
		return;
	if (come_to(op_kind(kind), object, site))
		take_turn(&live.lanes[live.current]);
}

void hook_await_at(enum hook_kind kind, const volatile void *object, hook_ready *ready, uintptr_t arg,
		   const struct hook_site *site)
{
	struct lane *lane = &live.lanes[live.current];

	if (is_silent()) {
		if (!ready(object, arg))
			UCOW_BUG("a wait that nobody can end");
		return;
	}
	if (!come_to(op_kind(kind), object, site) && ready(object, arg))
		return;
	announce(op_kind(kind), object, site);
	lane->op.waits = true;
	lane->op.wait = condition_of(lane->op.object, ready, arg);
	lane->ready = ready;
	lane->arg = arg;
	take_turn(lane);
}

static void push(volatile void *object, uint64_t value, size_t nbytes, const struct hook_site *site)
{
	struct lane *lane = announce(OP_PUSH, object, site);

	take_turn(lane);
	lane->buffer[lane->nbuffered++] = (struct stored){
		.object = object,
		.value = value,
		.nbytes = nbytes,
		.number = number_of(object),
		.node = live.options.search ? live.options.search->depth - 1 : 0,
	};
}

/* A store that nobody else sees need not wait; others do if @buffered, or behind others that do. */
static void store(volatile void *object, uint64_t value, size_t nbytes, bool buffered, const struct hook_site *site)
{
	struct lane *lane = &live.lanes[live.current];
	enum op_kind kind = changes(object, value, nbytes) ? OP_STORE : OP_LOAD;
	bool choice = !is_silent() && is_choice(lane, kind, object);

	if (choice && live.options.tso && (buffered || lane->nbuffered)) {
		push(object, value, nbytes, site);
		return;
	}
	if (choice) {
		announce(OP_STORE, object, site);
		lane->stores = true;
		lane->value = value;
		lane->nbytes = nbytes;
		take_turn(lane);
	}
	memcpy((void *)(uintptr_t)object, &value, nbytes);
}

void hook_store_at(volatile void *object, uint64_t value, size_t nbytes, const struct hook_site *site)
{
	store(object, value, nbytes, true, site);
}

void hook_sync_store_at(volatile void *object, uint64_t value, size_t nbytes, const struct hook_site *site)
{
	store(object, value, nbytes, false, site);
}

/* What the lane itself has stored last, if its buffer holds all of it. */
static bool forward(const struct lane *lane, const volatile char *object, size_t nbytes, uint64_t *value)
{
	for (unsigned i = lane->nbuffered; i--;) {
		const struct stored *stored = &lane->buffer[i];

		if (object + nbytes <= stored->object || stored->object + stored->nbytes <= object)
			continue;
		if (object < stored->object || object + nbytes > stored->object + stored->nbytes)
			return false;
		memcpy(value, (const char *)&stored->value + (object - stored->object), nbytes);
		return true;
	}
	return false;
}

uint64_t hook_load_at(const volatile void *object, size_t nbytes, const struct hook_site *site)
{
	struct lane *lane = &live.lanes[live.current];
	uint64_t value = 0;

	if (!is_silent() && come_to(OP_LOAD, object, site)) {
		/* A choice in any case: what it sees depends on whether the store has left the buffer by then. */
		if (lane->drained && forward(lane, object, nbytes, &value))
			lane->drained = false;
		take_turn(lane);
	}
	if (live.within && forward(lane, object, nbytes, &value))
		return value;
	value = 0;
	memcpy(&value, (const void *)(uintptr_t)object, nbytes);
	return value;
}

void hook_hold(const volatile void *lock, bool alone)
{
	struct lane *lane = &live.lanes[live.current];
	uint16_t number;

	if (is_silent() || !live.options.search)
		return;
	number = future_hold(FUTURE_NO_LOCKS, number_of(lock), alone);
	for (unsigned i = 0; i < live.nlanes; i++)
		if (i != live.current && !live.lanes[i].ended && future_excludes(live.lanes[i].locks, number))
			UCOW_BUG("two lanes have one lock");
	lane->locks = future_hold(lane->locks, number_of(lock), alone);
}

void hook_release(const volatile void *lock)
{
	struct lane *lane = &live.lanes[live.current];

	if (!is_silent() && live.options.search)
		lane->locks = future_release(lane->locks, number_of(lock));
}

void hook_quiet_begin(void)
{
	live.quiet++;
	set_live();
}

void hook_quiet_end(void)
{
	live.quiet--;
	set_live();
}

unsigned hook_lane(void)
{
	return live.current < THREAD_SLOT_SHARED ? live.current : THREAD_SLOT_SHARED;
}

/* ---- descriptors: nobody outside is there to poll one ---- */

int event_open(void)
{
	return -EMFILE;
}

void event_close(int fd)
{
	(void)fd;
}

void event_set(int fd)
{
	(void)fd;
}

void event_clear(int fd)
{
	(void)fd;
}

/* ---- sleeping ---- */

static bool is_woken(const volatile void *queue, uintptr_t lane)
{
	(void)queue;
	return live.lanes[lane].woken;
}

/*
 * The kernel looks at the word and queues the thread in one. Here the lane is queued first: a wake-up between the two
 * is one for no reason, which may be, and one that comes before both is lost as it should be.
 */
void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	const volatile char *queue = (const volatile char *)word + 1;
	struct lane *lane = &live.lanes[live.current];

	if (is_silent())
		UCOW_BUG("a sleep that nobody can end");
	hook_step(HOOK_ADD, queue);
	lane->sleeps_on = word;
	lane->woken = false;
	hook_step(HOOK_LOAD, word);
	if (__atomic_load_n((uint32_t *)(void *)word, __ATOMIC_RELAXED) == value)
		hook_await(HOOK_LOAD, queue, is_woken, live.current);
	lane->sleeps_on = NULL;
}

void futex_wake(_Atomic uint32_t *word)
{
	const volatile char *queue = (const volatile char *)word + 1;

	hook_step(HOOK_UPDATE, queue);
	for (unsigned i = 0; i < live.nlanes; i++)
		if (live.lanes[i].sleeps_on == word)
			live.lanes[i].woken = true;
}
