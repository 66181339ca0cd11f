/* SPDX-License-Identifier: MIT */
/*
 * What the supervisor of a kernel run and its participants say to each other. A participant's code (its *agent*) waits
 * for commands on a socket, does each with plain system calls or loads and stores of its own, and answers. One command
 * is under way on a channel at a time.
 *
 * Errors are in the coding of struct stmt.error: 0, an errno value (positive), LITMUS_SIGSEGV or LITMUS_SIGBUS.
 */
#ifndef LITMUS_KERNEL_AGENT_H
#define LITMUS_KERNEL_AGENT_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#define KERNEL_PAGE 4096u

/* X(id): what an agent can do; the fields of a command that matter stand beside it. */
#define AGENT_OPS(X)                                                                                         \
	X(MAP)          /* va, npages, number: prot, flags: AGENT_SHARED, AGENT_POPULATE; may pass a         \
			   file, to: its offset */                                                           \
	X(UNMAP)        /* va, npages */                                                                     \
	X(PROTECT)      /* va, npages, number: prot */                                                       \
	X(MOVE)         /* va, npages, to: the new address, number: 1 = the old area stays */                \
	X(ADVISE)       /* va, npages, number: MADV_* */                                                     \
	X(MSYNC)        /* va, npages, number: MS_* */                                                       \
	X(MLOCK)        /* va, npages, number: 1 = on fault */                                               \
	X(MUNLOCK)      /* va, npages */                                                                     \
	X(UFFD)         /* answers a userfaultfd of its own, beside the reply */                             \
	X(UFFD_MOVE)    /* passes one; va, length, to: the pages at va go to `to`; answers bytes in value */ \
	X(WRITE)        /* va, npages, bytes: a store into each page; answers faults in value */             \
	X(TOUCH)        /* va, npages: a load from each page; answers faults in value */                     \
	X(LOAD)         /* va, wanted; answers the bytes */                                                  \
	X(LOOK)         /* bytes: struct agent_look; answers a struct agent_glimpse for each page */         \
	X(STORE_FAULTS) /* va; answers in value how many faults a store of what is there takes */            \
	X(FORK)         /* passes the child's channel; answers the child's pid in value */                   \
	X(EXIT)         /* no answer */                                                                      \
	X(REGISTER)     /* number: the supervisor's descriptor of a ring; va, npages: the fixed buffer;      \
			   answers in value whether it came as far as the registration */                    \
	X(VMSPLICE)     /* passes a pipe's write end; va, npages; answers bytes spliced in value */          \
	X(DIRECT_OUT)   /* passes an O_DIRECT file; va, length, to: offset; answers bytes in value */        \
	X(DIRECT_IN)    /* the same, from the file */                                                        \
	X(PEEK)         /* pid, va, wanted; answers the bytes */                                             \
	X(POKE)         /* pid, va, npages, bytes */                                                         \
	X(REMOTE_WRITE) /* pid, va, npages, bytes */                                                         \
	X(THREAD)       /* passes a channel: serve it in a new thread */                                     \
	X(JOIN)         /* wait for the threads, whose channels are closed */                                \
	X(CPU)          /* number: the cpu to stay on from now on */

enum agent_op {
#define X(id) AGENT_##id,
	AGENT_OPS(X)
#undef X
		AGENT_OP_COUNT
};

#define AGENT_SHARED   1u
#define AGENT_POPULATE 2u

struct agent_command {
	uint32_t op; /* enum agent_op */
	uint32_t flags;
	int32_t number;
	int32_t pid;
	uint32_t meet;     /* how many lanes start together with this command; 0: it starts at once */
	uint32_t delay_ns; /* to spin after they have met */
	uint64_t va, npages, to, length;
	uint32_t wanted; /* how many bytes the answer should hold */
	uint32_t nbytes; /* how many of bytes[] count */
	char bytes[KERNEL_PAGE];
};

struct agent_reply {
	int32_t error;
	uint32_t nbytes; /* how many of bytes[] count */
	uint64_t value;
	char bytes[KERNEL_PAGE];
};

/* What to look at, by loads: parts of pages, on each page of some ranges. */
enum { AGENT_PARTS = 3, AGENT_PART_BYTES = 16, AGENT_RANGES = 80 };
struct agent_look {
	uint32_t offsets[AGENT_PARTS];
	uint32_t nranges;
	struct {
		uint64_t va, npages;
	} ranges[AGENT_RANGES];
};
struct agent_glimpse {
	int8_t error; /* 0, LITMUS_SIGSEGV or LITMUS_SIGBUS; then no bytes */
	char bytes[AGENT_PARTS][AGENT_PART_BYTES];
};
enum { AGENT_GLIMPSES = KERNEL_PAGE / sizeof(struct agent_glimpse) };

/* Where the lanes of a `parallel` block meet, in memory that all participants share. */
struct meeting {
	_Atomic uint32_t arrived;
};

/*
 * agent_main - be the first participant: serve @channel until its other end is closed. @supervisor is the parent; it
 * and all participants keep @leash open.
 */
_Noreturn void agent_main(int channel, pid_t supervisor, int leash, struct meeting *meeting);

/* ---- kernel_channel.c ---- */

/* kernel_now_ns - the monotonic clock. */
uint64_t kernel_now_ns(void);

/* channel_pair - two connected ends. Returns: 0; an errno value. */
int channel_pair(int ends[2]);
/* channel_send - one message, with a descriptor beside it unless @fd is -1. Returns: 0; an errno value. */
int channel_send(int channel, const void *message, size_t nbytes, int fd);
/*
 * channel_receive - wait for one message until @deadline_ns (0: for ever); *fd is the descriptor that came with it, or
 * -1. Returns: 0; EPIPE (the other end is gone); ETIMEDOUT; another errno value.
 */
int channel_receive(int channel, void *message, size_t room, int *fd, uint64_t deadline_ns);

int channel_send_command(int channel, const struct agent_command *command, int fd);
int channel_send_reply(int channel, const struct agent_reply *reply, int fd);

#endif
