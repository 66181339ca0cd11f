/* SPDX-License-Identifier: MIT */
/*
 * One run of a litmus test on the engine, as the files engine_*.c share it: processes are spaces of one machine, each
 * with a cpu in each lane that uses it; devices, pipes and files are arrays of this program. Only the public API of
 * ucow is used.
 *
 * Statements return an *outcome*, in the coding of struct stmt.error: 0, an errno value (positive), LITMUS_SIGSEGV or
 * LITMUS_SIGBUS. A check that does not hold, and a misuse by the test, go to the result at once and return 0.
 */
#ifndef LITMUS_ENGINE_H
#define LITMUS_ENGINE_H

#include "engine_hooks.h"
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
};

struct engine_file {
	unsigned char *bytes; /* an array, where the test maps no file */
	uint64_t npages;
	struct ucow_file *file; /* or one of the engine's, in front of: */
	int fd;                 /* a host file; -1: nothing */
};

/* A userfaultfd and its events so far (engine_uffd.c). (L): engine_lock_shared. */
struct engine_uffd {
	enum handle_state state;         /* (L) */
	struct ucow_uffd *uffd;          /* (L) */
	unsigned users;                  /* (L) statements under way: it is not closed meanwhile */
	struct ucow_uffd_msg events[32]; /* (L) */
	unsigned nevents, taken;         /* (L) the latter were looked at */
};

/* What stands behind names[i] of the test; which member, the name's kind says. */
union engine_object {
	struct engine_process process;
	struct engine_handle handle;
	struct engine_file file;
	struct engine_uffd uffd;
	struct ucow_memcg *group; /* NULL: not made yet */
	uint64_t va;              /* regions; 0: not mapped yet */
};

/* A `parallel` block while its lanes run, and one of them (engine_lanes.c). */
struct engine_block;

/*
 * A run, as one thread sees it: the main thread, or a lane. Only the machine and the objects are everybody's. No lane
 * defines or ends what another one uses, so objects need a lock only where the test can make them meet all the same:
 * pages of `lock` handles, and files (engine_lock_shared).
 */
struct engine {
	const struct litmus *litmus;
	const struct run_options *options;
	struct run_result *result; /* the thread's own */
	struct ucow_machine *machine;
	struct ucow_machine_stat fresh;  /* before the first process */
	union engine_object *objects;    /* one a name */
	uint64_t next_va;                /* addresses from here on were never used */
	uint64_t random;                 /* state of the generator that delays lanes */
	const struct stmt *volatile *at; /* says which statement runs, by lane */
	struct ucow_cpu **cpus;          /* the thread's own, one a name; NULL: not used yet */
	struct engine_block *block;      /* NULL: no lanes run */
	unsigned lane;                   /* 0 in the main thread */
	struct ucow_page *met; /* page whose lock, held by somebody else, the running statement met; or NULL */
	uint64_t stored;       /* pages that the running statement has stored to, should it begin again */
	uint64_t *found;   /* NULL, or where bits of the pages of its place go that a scan finds, judged by others */
	bool check_always; /* run the invariant checkers after every statement */
};

/* engine_run_here - run a test that the engine supports, in this process. @at, one a lane, always name what runs. */
void engine_run_here(const struct litmus *litmus, const struct run_options *options, struct run_result *result,
		     const struct stmt *volatile *at);
/* engine_run_apart - the same in a forked process, ended when its time is over (engine_apart.c). */
void engine_run_apart(const struct litmus *litmus, const struct run_options *options, struct run_result *result);
/* engine_statement - run @stmt, checks included. Returns: its outcome. */
int engine_statement(struct engine *engine, const struct stmt *stmt);
/* engine_run_statement - run @stmt and judge it, in the thread that @engine belongs to. */
void engine_run_statement(struct engine *engine, const struct stmt *stmt);
/* engine_begin - a machine, and process A. Returns: whether there is one; else the result says why not. */
bool engine_begin(struct engine *engine);
/* engine_next - run statement @i, or the block that starts there, to a grace period. Returns: the one after it. */
size_t engine_next(struct engine *engine, size_t i);
/* engine_settle - after the last statement: check the machine, let everybody exit, and draw the balance. */
void engine_settle(struct engine *engine);
/* engine_suits - whether the engine can run the test in fork mode @mode; else the reason is in @why. */
bool engine_suits(const struct litmus *litmus, enum ucow_fork_mode mode, char *why, size_t size);
/* engine_at - what the thread of @engine runs from here on. */
void engine_at(struct engine *engine, const struct stmt *stmt);
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
/* engine_cpu - as engine_process: a cpu of this thread, attached to the space. */
struct ucow_cpu *engine_cpu(struct engine *engine, const struct stmt *stmt, int name);
/* engine_held - the handle that @stmt uses, if it holds pages. NULL without a report: it was never bound. */
struct engine_handle *engine_held(struct engine *engine, const struct stmt *stmt);
/* engine_va - the address of page @page of @place, its offset included. */
uint64_t engine_va(const struct engine *engine, const struct place *place, uint64_t page);
/* engine_va_start - the address where the first page of @place starts. */
uint64_t engine_va_start(const struct engine *engine, const struct place *place);
/* engine_fresh_va - an address for @npages pages that was never used. Returns: 0; ENOMEM. */
int engine_fresh_va(struct engine *engine, uint64_t npages, uint64_t *va);
/* engine_place_region - the address of the region that @stmt makes. Returns: 0; ENOMEM. */
int engine_place_region(struct engine *engine, const struct stmt *stmt);

/* ---- outcomes ---- */

/* engine_outcome - the outcome that a ucow call's 0 or -errno stands for. */
int engine_outcome(int error);
/* engine_access_outcome - the same for loads and stores: signals. */
int engine_access_outcome(int error);

/* ---- statements, by theme: engine_space.c, engine_device.c, engine_file.c, engine_pressure.c, engine_track.c,
 * engine_uffd.c, engine_check.c ---- */

typedef int engine_run(struct engine *engine, const struct stmt *stmt);

engine_run engine_map, engine_unmap, engine_protect, engine_move, engine_advise, engine_write, engine_read, engine_fork,
	engine_snapshot, engine_exit, engine_numa_hint, engine_inject;
engine_run engine_pin, engine_get, engine_device_write, engine_unpin, engine_put, engine_splice, engine_direct_out,
	engine_direct_in, engine_poke, engine_remote_write, engine_define_file, engine_sync, engine_msync,
	engine_truncate, engine_punch, engine_store, engine_drop, engine_lock, engine_unlock;
engine_run engine_reclaim, engine_swapoff, engine_ksm_merge, engine_cgroup, engine_join, engine_inject_io;
engine_run engine_peek, engine_check_reads, engine_check_handle_reads, engine_check_file_reads, engine_check_file_holds,
	engine_check_pages, engine_check_flag, engine_check_same, engine_check_mapcount, engine_check_rss,
	engine_check_count, engine_check_usage;

engine_run engine_clear_soft_dirty, engine_mlock, engine_scan;
engine_run engine_uffd, engine_uffd_operate, engine_uffd_close, engine_check_event;

/* engine_map_file - what engine_map does where it maps a file. Returns: 0; -errno. */
int engine_map_file(struct engine *engine, const struct stmt *stmt, struct ucow_mm *mm, unsigned prot, unsigned flags);
/* engine_drop_file - close it; what is mapped is unmapped already. */
void engine_drop_file(struct engine_file *file);
/* engine_extend_file - make room for a direct-out. Returns: whether there is. engine_transfer - do a direct-*. */
bool engine_extend_file(struct engine *engine, const struct stmt *stmt);
void engine_transfer(struct engine *engine, const struct stmt *stmt, struct ucow_page **pages, bool to_file);
/* engine_drop_uffd - close it, if it is open. */
void engine_drop_uffd(struct engine_uffd *uffd);
/* engine_abandon_uffds - the lanes are decided: nobody waits for a userfaultfd any more. */
void engine_abandon_uffds(struct engine *engine);
/* engine_begin_pressure - the swap device and the merging that the test asks for. Returns: as engine_begin. */
bool engine_begin_pressure(struct engine *engine);
/* engine_left_behind - called by engine_settle for whatever is not given back: what was seen, in words. */
typedef void engine_left_behind(struct engine *engine, const char *what);
/*
 * engine_settle_pressure - when every process has left: report what groups are still charged and what swap still
 * holds, and give up the groups.
 */
void engine_settle_pressure(struct engine *engine, engine_left_behind *left_behind);
/* engine_advice - the engine's word for @advice. Returns: whether it has one. */
bool engine_advice(enum litmus_advice advice, enum ucow_advice *word);
/* engine_exit_process - drop this thread's cpu and the space of process @name. */
void engine_exit_process(struct engine *engine, int name);
/* engine_destroy_cpu - this thread's for process @name, if there is one; engine_destroy_cpus - all of this thread's. */
void engine_destroy_cpu(struct engine *engine, int name);
void engine_destroy_cpus(struct engine *engine);
/* engine_drop_handle - release what @handle holds. */
void engine_drop_handle(enum name_kind kind, struct engine_handle *handle, bool dirty);

/* ---- lanes: engine_lanes.c ---- */

/* engine_parallel - run the block that starts at statement @start. Returns: the statement after it. */
size_t engine_parallel(struct engine *engine, size_t start);
/*
 * engine_block_open - make the lanes of the block at @start; then engine_lane_run for each; then engine_block_close,
 * also after an error. Returns: 0 and the number of lanes; ENOMEM.
 */
int engine_block_open(struct engine *engine, size_t start, unsigned *nlanes);
/* engine_block_agrees - whether no lane ends what another one uses; else it is reported. */
bool engine_block_agrees(struct engine *engine);
/* engine_lane_prepare - make the cpus that lane @lane of the open block will need, in the thread or fibre of that lane.
 */
void engine_lane_prepare(struct engine *engine, unsigned lane);
/* engine_block_close - the lanes' results become one. All lanes have ended. Returns: the statement after the block. */
size_t engine_block_close(struct engine *engine);
/* engine_lane_warm_up - engine_lane_prepare, for some lanes, by seed. */
void engine_lane_warm_up(struct engine *engine, unsigned lane);
/* engine_lane_run - run lane @lane of the open block, in this thread or fibre, until its end or the run's decision. */
void engine_lane_run(struct engine *engine, unsigned lane);
/* engine_lane_cancel - instead of engine_lane_run, in the same thread: give back what the lane was warmed up with. */
void engine_lane_cancel(struct engine *engine, unsigned lane);
/*
 * engine_wait_page - the lock of @page is taken: wait until trying again makes sense. Returns: 0; EDEADLK (it never
 * will); ECANCELED (the run is decided).
 */
int engine_wait_page(struct engine *engine, struct ucow_page *page);
/* engine_is_decided - whether the lanes of the block that runs stop before their next statements. */
bool engine_is_decided(const struct engine *engine);
/* engine_random - the next number. */
uint64_t engine_random(uint64_t *state);

/* ---- threads: engine_threads.c; the explorer has others ---- */

#if defined(UCOW_EXPLORE) && UCOW_EXPLORE
#define ENGINE_LANES_ARE_FIBRES true
#else
#define ENGINE_LANES_ARE_FIBRES false
#endif

/* engine_run_lanes - engine_lane_run for each lane, all at once; back when all have ended. Returns: 0; an errno value.
 */
int engine_run_lanes(struct engine *engine, unsigned nlanes);
/* engine_lock_shared, engine_unlock_shared - around what lanes change of one another's. Not held while one waits. */
void engine_lock_shared(void);
void engine_unlock_shared(void);
/* engine_wait - with the lock held: release it, wait for engine_wake, take it again. May end without. */
void engine_wait(void);
void engine_wake(void);
/* engine_yield - let others get on, one of which holds the lock of @page. */
void engine_yield(const struct ucow_page *page);
/* engine_pause - between two statements of a lane: a little time, by seed. */
void engine_pause(struct engine *engine);
/* engine_current - what engine_set_current was last called with in this thread. */
struct engine *engine_current(void);
void engine_set_current(struct engine *engine);
/* engine_host_file - a host file without a name, all zeros. Returns: a descriptor; -1, and errno. */
int engine_host_file(uint64_t nbytes);
/* engine_host_read - what it holds. Returns: how many bytes; -errno. */
long engine_host_read(int fd, void *bytes, size_t nbytes, uint64_t offset);
/* engine_store_bytes, engine_load_bytes - to and from a page as a device does: others may use it at the same time. */
void engine_store_bytes(void *page, const void *bytes, size_t nbytes);
void engine_load_bytes(void *bytes, const void *page, size_t nbytes);

#endif
