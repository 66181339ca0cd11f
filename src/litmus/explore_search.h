/* SPDX-License-Identifier: MIT */
/*
 * The search through the interleavings of processes that announce their steps. It knows nothing of what the steps do,
 * only which objects they touch and how.
 *
 * A run is a sequence of nodes, one a step: the choice that was made there, and the step. After a run the search looks
 * for steps of different processes that touch one object, are not ordered by others, and could have come the other way
 * round, and notes at the earlier one that another process has to be tried there. The next run repeats the nodes up to
 * the deepest that has such a note. Without a bound this is dynamic partial-order reduction with source sets and sleep
 * sets (Abdulla, Aronis, Jonsson, Sagonas 2014); with one, bounded partial-order reduction (Coons, Musuvathi, McKinley
 * 2013), which adds a note wherever the bound might have kept the search from getting there in another way.
 *
 * By states there are no clocks: another process is tried at a node if something that it did in what followed the
 * node's step depends on that (Flanagan, Godefroid 2005), and what follows a state that was met is remembered (Yang,
 * Chen, Gopalakrishnan, Kirby 2008).
 */
#ifndef LITMUS_EXPLORE_SEARCH_H
#define LITMUS_EXPLORE_SEARCH_H

#include "explore_states.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Processes: the lanes, and for each the one that empties its store buffer. */
#define SEARCH_LANES   6
#define SEARCH_PROCS   (2 * SEARCH_LANES)
#define SEARCH_NODES   60000 /* clocks have 16 bits */
#define SEARCH_NOBODY  UINT8_MAX
#define SEARCH_NO_NODE (-1)

static inline unsigned search_flusher(unsigned lane)
{
	return SEARCH_LANES + lane;
}

enum op_kind { OP_LOAD, OP_STORE, OP_ADD, OP_UPDATE, OP_PUSH, OP_EXPEDITE, OP_LOCAL };

/* What a process does next. */
struct op {
	enum op_kind kind;
	bool waits;      /* it runs only when its condition holds */
	uint8_t wait;    /* which of the object's conditions */
	uint16_t locks;  /* that the process holds: a number of explore_future.h */
	uint32_t object; /* number, from search_object; OP_LOCAL: 0 */
};

/* The object of OP_PUSH and OP_EXPEDITE: how stores into buffers and membarriers follow one another. */
#define SEARCH_FENCES 0u

/* Processes in the order in which a race is to come the other way round. */
struct guide {
	uint32_t n;
	uint8_t procs[];
};

struct node {
	/* The choice; masks are of processes. */
	uint32_t enabled;
	uint32_t sleep;       /* asleep when the node was reached: a run with them here was made elsewhere */
	uint32_t done;        /* tried here */
	uint32_t backtrack;   /* to be tried here, or tried */
	uint16_t preemptions; /* before this node */
	uint8_t running;      /* the lane that ran last; SEARCH_NOBODY: none yet */
	/* The step. */
	uint8_t proc;
	uint8_t kind;
	bool waits;
	uint8_t wait;
	uint8_t ready; /* the object's conditions that held before the step, one bit each */
	uint8_t known; /* those that there were at all */
	uint32_t object;
	int32_t before_on_object, before_of_proc;
	uint32_t block, at; /* which block, and which of its lane's steps there, those counted that are no nodes */
	struct guide *guides[SEARCH_PROCS]; /* how to go on with a process that is to be tried, or NULL */
	uint16_t clock[SEARCH_PROCS];       /* the last node of each process, plus one, that this one comes after */
};

struct search_object {
	const volatile void *address;
	int32_t last;                      /* node */
	uint8_t known;                     /* conditions that somebody waited for */
	uint8_t loaders, adders, changers; /* lanes that ever touched it so */
	bool shared;                       /* in a way that does not commute: steps on it are nodes */
	bool found;                        /* will be, when the search begins anew */
};

/* A lane that stands before a step that it has not taken yet. */
struct search_stop {
	bool stands;
	uint32_t block, at;
};

#define SEARCH_OBJECTS 65536 /* a power of two */

struct search {
	uint32_t bound;
	bool bounded;
	bool exhaustive; /* no reduction: every choice at every node (tests) */
	bool by_states;  /* no clocks and sleepers: states that were met are known, and what can follow them */
	/* The run. */
	int32_t depth;             /* nodes so far */
	int32_t chosen;            /* before this one they are those of the last run; its own choice is made already */
	const struct guide *guide; /* followed from node @chosen on; NULL: not, or no longer */
	int32_t last_of_proc[SEARCH_PROCS];
	uint16_t base[SEARCH_PROCS]; /* clock at the start of the block */
	uint8_t running;
	uint16_t preemptions;
	uint32_t alone; /* by states: who had better go first at the next node, since nobody is expected to race */
	/* By states: where the run has ended, and what can follow there. */
	uint32_t end_block, end_future;
	bool diverged; /* a repeated node was another step: a bug of the explorer */
	bool again;    /* an object has turned out to be shared: what was searched so far did not know */
	struct search_stop stops[SEARCH_LANES];
	uint64_t runs, steps;
	uint64_t runs_of_pass, patience; /* since it began anew; so many, and it does again */
	uint32_t passes;                 /* how often it began anew */
	struct node nodes[SEARCH_NODES];
	uint32_t nobjects;
	struct search_object objects[SEARCH_OBJECTS];
	uint32_t hash[2 * SEARCH_OBJECTS]; /* numbers of objects plus one, by address */
};

/* search_init - @search is zeroed memory. */
void search_init(struct search *search, uint32_t bound, bool bounded);
/* search_begin_run - from the first node. */
void search_begin_run(struct search *search);
/* search_begin_block - processes of the block before have all ended: they come before everything that follows. */
void search_begin_block(struct search *search);
/* search_object - the number of the object at @address; never 0. */
uint32_t search_object(struct search *search, const volatile void *address);

/*
 * search_is_shared - note that @lane touches @object. Returns: whether lanes have touched it in ways that do not
 * commute: then the step is a node. Most objects are one lane's alone, or are only looked at; steps on them need no
 * choice. When that turns out to be wrong the search begins anew, and knows better.
 */
bool search_is_shared(struct search *search, unsigned lane, enum op_kind kind, uint32_t object);

/* search_repeats - whether the next node is one of the last run's. */
static inline bool search_repeats(const struct search *search)
{
	return search->depth < search->chosen;
}

/* search_note_state - the next node is where @sum was met first. */
void search_note_state(struct search *search, const struct state_sum *sum);
/* search_circles - whether the run has come back to @sum, and only one lane has taken steps meanwhile. */
bool search_circles(const struct search *search, const struct state_sum *sum);
/*
 * search_choose - the process for the next node. @enabled: those that could run, not empty; not looked at where
 * search_repeats. Returns: a process, or SEARCH_NOBODY: every continuation was tried elsewhere.
 */
unsigned search_choose(struct search *search, uint32_t enabled);
/* What a new step needs to know beside itself. */
struct search_world {
	uint8_t ready, known;        /* of the object's conditions: which hold, which there are */
	int32_t after[SEARCH_LANES]; /* nodes that it is ordered after beside what objects say, or SEARCH_NO_NODE */
	unsigned nafter;
	uint32_t block, at;          /* see struct node */
	uint64_t position;           /* how far its lane is, see future_expects */
	uint32_t alive;              /* processes that have a next step, */
	struct op ops[SEARCH_PROCS]; /* this one */
};

/* search_step - the process chosen does @op. @world: not looked at where search_repeats. */
void search_step(struct search *search, unsigned proc, const struct op *op, const struct search_world *world);
/* search_blocked - @proc would do @op, but no process can run any more. */
void search_blocked(struct search *search, unsigned proc, const struct op *op, const struct search_world *world);
/* search_begin_anew - after a run: forget all but which objects are shared. */
void search_begin_anew(struct search *search, uint32_t bound, bool bounded);
/* search_kinds_depend - whether two steps of these kinds on one object do not commute. */
bool search_kinds_depend(enum op_kind a, enum op_kind b);
/* search_next - prepare the next run. Returns: whether there is one. */
bool search_next(struct search *search);

#endif
