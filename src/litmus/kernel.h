/* SPDX-License-Identifier: MIT */
/*
 * One run of a litmus test on the live kernel, as the files kernel_*.c share it.
 *
 *   caller ── supervisor     one per run; holds devices, pipes and files, looks at /proc, ends everybody
 *                ├── A       participants; each is the supervisor's own child, whoever forked it, and
 *                ├── B       carries out commands that come over its channel (kernel_agent.h)
 *
 * The supervisor touches no page under test: devices reach them through the kernel's own references.
 *
 * A step returns an *outcome*, in the coding of struct stmt.error: 0, an errno value (positive), LITMUS_SIGSEGV or
 * LITMUS_SIGBUS; or STEP_ENDED when it has told the result already (a break, an error, a test to skip), and
 * STEP_SKIPPED when a check could not be made.
 */
#ifndef LITMUS_KERNEL_H
#define LITMUS_KERNEL_H

#include "judge.h"
#include "kernel_agent.h"
#include "run.h"

#include <limits.h>
#include <linux/userfaultfd.h>
#include <pthread.h>

#define KERNEL_PATH 512 /* of a control group's file */

#define STEP_ENDED   INT_MIN
#define STEP_SKIPPED (INT_MIN + 1)

struct kernel_participant {
	_Atomic pid_t pid;   /* 0: not forked yet */
	_Atomic int channel; /* of its main thread; -1 when it is gone; lanes look at it while another lets it exit */
};

enum kernel_handle_state { KERNEL_UNBOUND, KERNEL_HELD, KERNEL_RELEASED };

/* A pin (a ring with one fixed buffer), a get or a splice (a pipe). */
struct kernel_handle {
	pthread_mutex_t lock; /* lanes may use one handle at a time */
	enum kernel_handle_state state;
	uint64_t npages;
	uint64_t offset; /* of the place, into each page */
	struct kernel_device *device;
	int pipe;             /* its reading end; -1 when closed */
	unsigned char *bytes; /* what the pipe held when it was drained, page after page */
};

/* A userfaultfd, and the thread that reads its events (kernel_uffd.c). */
struct kernel_uffd {
	struct kernel_run *run;
	pthread_mutex_t lock; /* of the events */
	pthread_cond_t came;
	int fd;   /* -1: not made, or closed */
	int stop; /* an eventfd that ends the reader; -1: there is none */
	bool closed;
	int process; /* whose memory it is about */
	pthread_t reader;
	struct uffd_msg events[64];
	unsigned nevents, taken;
};

/* What stands behind names[i] of the test; which member, the name's kind says. */
union kernel_object {
	struct kernel_participant participant;
	struct kernel_handle handle;
	uint64_t va; /* regions: chosen before the first process starts */
	struct kernel_file {
		int direct; /* opened O_DIRECT, where nobody maps files; -1: not made yet */
		int cached; /* the same file past no cache, where somebody does; else -1 */
	} file;
	struct kernel_uffd uffd;
	struct kernel_group {
		uint64_t inode; /* of its directory; 0: not made yet */
		int above;      /* the name of the group that it is in, or -1 */
	} group;
};

/* What can be seen here of the kernel's pages (kernel_observe.c). */
struct kernel_eyes {
	bool frames;           /* frame numbers are shown */
	int kpageflags;        /* -1: not readable */
	int kpagecount;        /* -1: not readable */
	int kpagecgroup;       /* -1: not readable */
	unsigned major, minor; /* the kernel's version */
};

/* Frames, in the order of their numbers and each once, unless said otherwise. */
struct kernel_frames {
	uint64_t *list;
	size_t n, room;
};

struct kernel_run {
	const struct litmus *litmus;
	const struct run_options *options;
	struct run_result *result;   /* (L) */
	pthread_mutex_t result_lock; /* L */
	_Atomic bool over;           /* the verdict stands: start nothing more */
	uint64_t deadline_ns;
	const struct stmt *_Atomic at;     /* the statement outside of lanes that is under way, or NULL */
	union kernel_object *objects;      /* one a name */
	uint64_t window_start, window_end; /* all regions lie in between, and nothing else does */
	struct meeting *meeting;
	int leash; /* a descriptor that participants keep */
	struct kernel_eyes eyes;
	int *cpus; /* that participants may use; the first is everybody's outside lanes */
	size_t ncpus;
	char groups[256];           /* the directory of the run's control groups; "": there is none */
	bool counts_usage;          /* `check usage` comes, so: */
	struct kernel_frames known; /* frames that some process has mapped at the end of some statement */
	bool only_finds;            /* a scan's result is judged by whoever made the run: */
	uint64_t found;             /* bits of the pages of the last one's place */
	bool takes_more; /* a reclaim may take more pages than the statement says: whoever made the run knows it */
};

/* One lane of a `parallel` block, driven by a thread of the supervisor. */
struct kernel_lane {
	struct kernel_run *run;
	unsigned number;
	const struct stmt *stmts; /* the block's, all lanes */
	size_t nstmts;
	uint32_t meet, delay_ns; /* for the first command; then 0 */
	int *channels;           /* by name: this lane's own thread of the participant, or -1: its main thread */
	pthread_t thread;
};

/* A statement being done. */
struct kernel_step {
	struct kernel_run *run;
	struct kernel_lane *lane; /* NULL outside `parallel` */
	const struct stmt *stmt;
	uint64_t value; /* of the last answer that a participant gave */
	int fd;         /* that came with it; whoever asked for one takes it; else -1 */
};

typedef int kernel_step_function(struct kernel_step *step);

/* ---- kernel_plan.c ---- */

/* kernel_unsupported - the first thing in the test that cannot be done here, in @why. Returns: whether there is one. */
bool kernel_unsupported(const struct litmus *litmus, char *why, size_t size);
/* kernel_describe_skip - put into @why that @stmt is what cannot be done, and @what is missing. */
void kernel_describe_skip(char *why, size_t size, const struct stmt *stmt, const char *what);

/* ---- kernel_supervise.c ---- */

/*
 * kernel_supervise - run the test in this process, which is nobody else's; end and reap everybody; fill @result. The
 * participants keep descriptor @leash open as long as they live.
 */
void kernel_supervise(const struct litmus *litmus, const struct run_options *options, int leash,
		      struct run_result *result);

/* kernel_become_supervisor - make this process fit to have participants. */
void kernel_become_supervisor(void);
/* kernel_make_objects - what stands behind the names of the run's test. Returns: 0; an errno value. */
int kernel_make_objects(struct kernel_run *run);
/* kernel_drop_objects - close and free them; participants must have ended. */
void kernel_drop_objects(struct kernel_run *run);

/* ---- kernel_result.c: the result, from any lane ---- */

/* Each tells the result, once, ends the run, and returns STEP_ENDED. */
int kernel_break(struct kernel_step *step, const char *saw, ...) __attribute__((format(printf, 2, 3)));
int kernel_error(struct kernel_step *step, const char *reason, ...) __attribute__((format(printf, 2, 3)));
int kernel_skip_test(struct kernel_step *step, const char *reason, ...) __attribute__((format(printf, 2, 3)));
/* kernel_skip_check - count a check that cannot be made. Returns: STEP_SKIPPED. */
int kernel_skip_check(struct kernel_step *step, const char *reason, ...) __attribute__((format(printf, 2, 3)));
/* kernel_judge - count @step's statement if it was a check, and judge how it ended. */
void kernel_judge(struct kernel_step *step, int outcome);

/* ---- kernel_process.c ---- */

/* kernel_start_first - fork process A. Returns: 0; an errno value. */
int kernel_start_first(struct kernel_run *run);
/* kernel_await_end - wait until @pid has ended, its memory dropped, and reap it. Returns: whether it did in time. */
bool kernel_await_end(pid_t pid, uint64_t deadline_ns, int *status);
/* kernel_look_for_dead - an error if a participant has died that was not told to, though nobody missed it. */
void kernel_look_for_dead(struct kernel_step *step);
/* kernel_end_all - end and reap every process of the run. Returns: whether all are gone. */
bool kernel_end_all(struct kernel_run *run);
/* kernel_participant - names[@name], which must be alive. NULL after an error. */
struct kernel_participant *kernel_participant(struct kernel_step *step, int name);
/*
 * kernel_call - let participant @name carry out @command, with descriptor @fd (or -1) beside it; the answer is in
 * @reply. Returns: the answer's error; STEP_ENDED when there was none in time, or the participant died.
 */
int kernel_call(struct kernel_step *step, int name, struct agent_command *command, int fd, struct agent_reply *reply);
/* kernel_call_on - the same on one of its channels, whatever the lane. */
int kernel_call_on(struct kernel_step *step, int name, int channel, struct agent_command *command, int fd,
		   struct agent_reply *reply);
kernel_step_function kernel_fork, kernel_exit;

/* ---- kernel_lanes.c ---- */

/* kernel_run_block - run the lanes of the block that @stmts are. */
void kernel_run_block(struct kernel_run *run, const struct stmt *stmts, size_t nstmts);

/* ---- kernel_steps.c ---- */

/* kernel_is_driven - whether there is code for statements and checks of @kind. */
bool kernel_is_driven(enum stmt_kind kind);
/* kernel_do - do one statement or check. Returns: its outcome, STEP_ENDED or STEP_SKIPPED. */
int kernel_do(struct kernel_step *step);
/* kernel_statement - do one statement or check, and judge its outcome. */
void kernel_statement(struct kernel_step *step);
/* kernel_va - the address of page @page of @place, offset included. */
uint64_t kernel_va(const struct kernel_run *run, const struct place *place, uint64_t page);
/* kernel_held - the handle that @step uses, locked. NULL: nothing was ever bound (*outcome 0), or an error was told. */
struct kernel_handle *kernel_held(struct kernel_step *step, int *outcome);
/* kernel_let_go - unlock it. */
void kernel_let_go(struct kernel_handle *handle);
/* kernel_release - give back what @handle holds, if anything. */
void kernel_release(struct kernel_handle *handle);

/* ---- kernel_group.c: control groups ---- */

/* kernel_open_groups - make the run's own, where there are any. Returns: 0; an errno value. */
int kernel_open_groups(struct kernel_run *run);
/* kernel_enter_groups - let @first, and all that it will fork, be charged below them. Returns: 0; an errno value. */
int kernel_enter_groups(struct kernel_run *run, pid_t first);
/* kernel_drop_groups - remove the test's groups, whose members have ended; kernel_close_groups - the run's own. */
void kernel_drop_groups(struct kernel_run *run);
void kernel_close_groups(struct kernel_run *run);
/* kernel_enter_group - let @pid be a member of names[@name]. Returns: 0; STEP_ENDED. */
int kernel_enter_group(struct kernel_step *step, int name, pid_t pid);
/* kernel_note_frames - remember what is mapped now, if anybody asks later who is charged for it. */
void kernel_note_frames(struct kernel_run *run);
/* kernel_count_usage - the test's pages that are charged to names[@group], or below it. Returns: 0; an errno value. */
int kernel_count_usage(struct kernel_run *run, int group, uint64_t *npages);
/* kernel_drain_batches - let every cpu hand on the pages that wait in its batches, as far as that can be asked for. */
void kernel_drain_batches(struct kernel_run *run);
kernel_step_function kernel_define_group, kernel_join_group, kernel_check_usage, kernel_reclaim;

/* ---- kernel_swap.c, kernel_ksm.c ---- */

/*
 * kernel_until_swapped - do @swap_out until the checks that follow the statement find no page in memory that they want
 * swapped; a test whose pages stay is skipped. Returns: as a step.
 */
int kernel_until_swapped(struct kernel_step *step, kernel_step_function *swap_out);
kernel_step_function kernel_swapoff, kernel_ksm_merge;

/* ---- kernel_uffd.c ---- */

/* kernel_no_uffd - why no userfaultfd can be had here, or NULL. */
const char *kernel_no_uffd(void);
void kernel_uffd_init(struct kernel_uffd *uffd);
void kernel_uffd_close(struct kernel_uffd *uffd);
/* kernel_abandon_uffds - the run is over: nobody waits for them any more. From any lane. */
void kernel_abandon_uffds(struct kernel_run *run);
kernel_step_function kernel_uffd, kernel_uffd_operate, kernel_uffd_end, kernel_check_event;

/* ---- kernel_track.c: soft-dirty, scans, locked memory ---- */

/* kernel_no_soft_dirty - why no soft-dirty bits can be had here, or NULL. */
const char *kernel_no_soft_dirty(void);
kernel_step_function kernel_clear_soft_dirty, kernel_mlock, kernel_scan;

/* ---- checks: kernel_check.c ---- */

kernel_step_function kernel_check_reads, kernel_check_handle_reads, kernel_check_file_reads, kernel_check_file_holds,
	kernel_check_pages, kernel_check_flag, kernel_check_same, kernel_check_mapcount, kernel_check_rss,
	kernel_check_count, kernel_peek;

/* ---- kernel_pin.c: devices ---- */

kernel_step_function kernel_pin, kernel_device_write;
/* kernel_device_read - @nbytes that the device sees at @offset of page @page. Returns: 0; an errno value. */
int kernel_device_read(struct kernel_device *device, uint64_t page, uint64_t offset, void *bytes, size_t nbytes);
/* kernel_device_close - unpin, and give the ring up. NULL does nothing. */
void kernel_device_close(struct kernel_device *device);

/* ---- kernel_pipe.c: plain references ---- */

/* get (kept: reading looks at a duplicate) and splice (reading drains). */
kernel_step_function kernel_splice;
/* kernel_pipe_close - put the pages. Does nothing where there is no pipe. */
void kernel_pipe_close(struct kernel_handle *handle);
/* kernel_pipe_read - make handle->bytes hold what the pipe's pages hold. Returns: 0; an errno value. */
int kernel_pipe_read(struct kernel_handle *handle, bool drain);

/* ---- kernel_file.c ---- */

kernel_step_function kernel_define_file, kernel_direct_out, kernel_direct_in, kernel_sync, kernel_truncate,
	kernel_punch, kernel_store, kernel_drop;
/* kernel_file_read - the bytes of page @page of descriptor @file. Returns: 0; an errno value. */
int kernel_file_read(int file, uint64_t page, char bytes[KERNEL_PAGE]);
/* kernel_file_seen - the descriptor by which readers of @file see it. */
int kernel_file_seen(const struct kernel_file *file);
void kernel_file_close(struct kernel_file *file);
/* kernel_file_open - one more descriptor of a mapped file, for reading alone or not; -1: errno says why. */
int kernel_file_open(const struct kernel_file *file, bool readonly);

/* ---- kernel_observe.c: /proc ---- */

struct kernel_page {
	uint64_t entry;    /* of pagemap */
	uint64_t frame;    /* 0: not present, or not shown */
	uint64_t flags;    /* of kpageflags, if shown */
	uint64_t mapcount; /* of kpagecount, if shown */
};
#define PAGEMAP_SOFT_DIRTY (UINT64_C(1) << 55)
#define PAGEMAP_UFFD_WP    (UINT64_C(1) << 57)
#define PAGEMAP_SWAPPED    (UINT64_C(1) << 62) /* or on its way elsewhere, or a marker: see kernel_is_swapped() */
#define PAGEMAP_PRESENT    (UINT64_C(1) << 63)
#define PAGE_ANON          (UINT64_C(1) << 12)
#define PAGE_SWAPCACHE     (UINT64_C(1) << 13)
#define PAGE_SWAPBACKED    (UINT64_C(1) << 14)
#define PAGE_COMPOUND      (UINT64_C(3) << 15)
#define PAGE_HUGETLB       (UINT64_C(1) << 17)
#define PAGE_KSM           (UINT64_C(1) << 21)
#define PAGE_THP           (UINT64_C(1) << 22)
#define PAGE_ZERO          (UINT64_C(1) << 24)
#define PAGE_EXCLUSIVE     (UINT64_C(1) << 34) /* of anonymous base pages, since 5.19 */

void kernel_open_eyes(struct kernel_eyes *eyes);
void kernel_close_eyes(struct kernel_eyes *eyes);
/* kernel_blind - why frame numbers and flags cannot be seen here, or NULL. */
const char *kernel_blind(const struct kernel_eyes *eyes);
/* kernel_blind_to_exclusive - the same for the exclusive flag. */
const char *kernel_blind_to_exclusive(const struct kernel_eyes *eyes);
/* kernel_look - what /proc says of the page that process @pid maps at @va. Returns: 0; an errno value. */
int kernel_look(const struct kernel_eyes *eyes, pid_t pid, uint64_t va, struct kernel_page *page);
/* kernel_is_swapped - whether the entry @entry of pagemap stands for a page on a swap device. */
bool kernel_is_swapped(uint64_t entry);
/* kernel_blind_to_owners - why it cannot be seen who is charged for a page, or NULL. */
const char *kernel_blind_to_owners(const struct kernel_eyes *eyes);
/* kernel_owner - the inode of the control group that is charged for @frame. Returns: 0; an errno value. */
int kernel_owner(const struct kernel_eyes *eyes, uint64_t frame, uint64_t *inode);
/* kernel_flags, kernel_mapcount - what kpageflags and kpagecount say of @frame. Return: 0; an errno value. */
int kernel_mapcount(const struct kernel_eyes *eyes, uint64_t frame, uint64_t *mapcount);
int kernel_flags(const struct kernel_eyes *eyes, uint64_t frame, uint64_t *flags);
/*
 * kernel_frames - call @add(@arg, frame) for each page of the @npages from @va on that process @pid maps, none if
 * it has exited. Returns: 0; the first errno value of @add; another.
 */
int kernel_frames(pid_t pid, uint64_t va, uint64_t npages, int (*add)(void *arg, uint64_t frame), void *arg);
/*
 * kernel_covered - how many of the @npages pages from @va on lie, without a hole, in areas that @pid may use as @prot
 * (PROT_*) says. Returns: 0; an errno value.
 */
int kernel_covered(pid_t pid, uint64_t va, uint64_t npages, int prot, uint64_t *covered);
/* kernel_rss - resident pages of @pid in [@start, @end). Returns: 0; an errno value. */
int kernel_rss(pid_t pid, uint64_t start, uint64_t end, uint64_t *npages);

#endif
