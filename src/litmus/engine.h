/* SPDX-License-Identifier: MIT */
/*
 * One run of a litmus test on the engine, as the files engine_*.c share it: processes are spaces of one machine, each
 * with a cpu; devices, pipes and files are arrays of this program. Only the public API of ucow is used.
 *
 * Statements return an *outcome*, in the coding of struct stmt.error: 0, an errno value (positive), LITMUS_SIGSEGV or
 * LITMUS_SIGBUS. A check that does not hold, and a misuse by the test, go to the result at once and return 0.
 */
#ifndef LITMUS_ENGINE_H
#define LITMUS_ENGINE_H

#include "run.h"

#include <ucow/ucow.h>

enum handle_state { HANDLE_UNBOUND, HANDLE_HELD, HANDLE_DRAINED, HANDLE_RELEASED };

/* A pin, a get, a pipe or a lock. */
struct engine_handle {
	enum handle_state state;
	struct ucow_page **pages;
	size_t npages;
	uint64_t offset;      /* of the place, into each page */
	unsigned char *bytes; /* a drained pipe: what its pages held, page after page */
};

struct engine_process {
	struct ucow_mm *mm; /* NULL: not forked yet, or gone */
	struct ucow_cpu *cpu;
};

struct engine_file {
	unsigned char *bytes;
	uint64_t npages;
};

/* What stands behind names[i] of the test; which member, the name's kind says. */
union engine_object {
	struct engine_process process;
	struct engine_handle handle;
	struct engine_file file;
	uint64_t va; /* regions; 0: not mapped yet */
};

struct engine {
	const struct litmus *litmus;
	const struct run_options *options;
	struct run_result *result;
	struct ucow_machine *machine;
	struct ucow_machine_stat fresh;  /* before the first process */
	union engine_object *objects;    /* one a name */
	uint64_t next_va;                /* addresses from here on were never used */
	uint64_t random;                 /* state of the generator that orders lanes */
	const struct stmt *volatile *at; /* says which statement runs */
	bool page_lock_held;             /* the running statement met a page lock that somebody else holds */
	bool check_always;               /* run the invariant checkers after every statement */
};

/* engine_run_here - run a test that the engine supports, in this process. *@at always names the running statement. */
void engine_run_here(const struct litmus *litmus, const struct run_options *options, struct run_result *result,
		     const struct stmt *volatile *at);
/* engine_run_apart - the same in a forked process, ended when its time is over (engine_apart.c). */
void engine_run_apart(const struct litmus *litmus, const struct run_options *options, struct run_result *result);
/* engine_statement - run @stmt, checks included. Returns: its outcome. */
int engine_statement(struct engine *engine, const struct stmt *stmt);
/* engine_unsupported - the first thing in the test that the engine cannot do, in @why. Returns: whether there is one.
 */
bool engine_unsupported(const struct litmus *litmus, char *why, size_t size);
/* engine_skip - end the run: the engine cannot do what the test asks for. */
void engine_skip(struct engine *engine, const char *why);
/* engine_release_all - drop every handle and lock, and let every process exit. */
void engine_release_all(struct engine *engine);
/* engine_free - the memory of handles and files. */
void engine_free(struct engine *engine);

/* ---- lookups; NULL after a report to the result ---- */

struct engine_process *engine_process(struct engine *engine, const struct stmt *stmt, int name);
/* engine_cpu - as engine_process, with a cpu attached to the space. */
struct ucow_cpu *engine_cpu(struct engine *engine, const struct stmt *stmt, int name);
/* engine_held - the handle that @stmt uses, if it holds pages. NULL without a report: it was never bound. */
struct engine_handle *engine_held(struct engine *engine, const struct stmt *stmt);
/* engine_va - the address of page @page of @place, its offset included. */
uint64_t engine_va(const struct engine *engine, const struct place *place, uint64_t page);
/* engine_va_start - the address where the first page of @place starts. */
uint64_t engine_va_start(const struct engine *engine, const struct place *place);
/* engine_fresh_va - an address for @npages pages that was never used. Returns: 0; ENOMEM. */
int engine_fresh_va(struct engine *engine, uint64_t npages, uint64_t *va);

/* ---- outcomes ---- */

/* engine_outcome - the outcome that a ucow call's 0 or -errno stands for. */
int engine_outcome(int error);
/* engine_access_outcome - the same for loads and stores: signals. */
int engine_access_outcome(int error);

/* ---- statements, by theme: engine_space.c, engine_device.c, engine_check.c ---- */

typedef int engine_run(struct engine *engine, const struct stmt *stmt);

engine_run engine_map, engine_unmap, engine_protect, engine_move, engine_advise, engine_write, engine_read, engine_fork,
	engine_snapshot, engine_exit, engine_numa_hint, engine_inject;
engine_run engine_pin, engine_get, engine_device_write, engine_unpin, engine_put, engine_splice, engine_direct_out,
	engine_direct_in, engine_poke, engine_remote_write, engine_define_file, engine_sync, engine_truncate,
	engine_lock, engine_unlock;
engine_run engine_peek, engine_check_reads, engine_check_handle_reads, engine_check_file_reads, engine_check_pages,
	engine_check_flag, engine_check_same, engine_check_mapcount, engine_check_rss, engine_check_count;

/* engine_advice - the engine's word for @advice. Returns: whether it has one. */
bool engine_advice(enum litmus_advice advice, enum ucow_advice *word);
/* engine_exit_process - drop the cpu and the space. */
void engine_exit_process(struct engine *engine, struct engine_process *process);
/* engine_drop_handle - release what @handle holds. */
void engine_drop_handle(enum name_kind kind, struct engine_handle *handle, bool dirty);

#endif
