/* SPDX-License-Identifier: MIT */
/*
 * Machines: RAM, copy-on-write policy, fork mode, limits and counters.
 */
#ifndef UCOW_MACHINE_H
#define UCOW_MACHINE_H

#include <ucow/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The copy-on-write rules that a machine obeys. EXCLUSIVE is Linux since 5.19 and the only one to use for real work;
 * the others exist to show, by execution, why they were replaced or not taken (docs/semantics.md B.3).
 */
enum ucow_policy {
	UCOW_POLICY_EXCLUSIVE = 0,   /* PageAnonExclusive: since 5.19 */
	UCOW_POLICY_MAPCOUNT,        /* to 5.7: reuse when nobody else maps the page */
	UCOW_POLICY_FORCE_COW,       /* 5.8: mapcount, and every GUP of a COW mapping is a write fault */
	UCOW_POLICY_REFCOUNT,        /* 5.9-rc: reuse when nobody else holds any reference */
	UCOW_POLICY_REFCOUNT_PIN,    /* to 5.18: refcount, and fork copies pinned pages for the child */
	UCOW_POLICY_PIN_BREAKS_COW,  /* proposal: refcount, and every pin breaks COW at GUP time */
	UCOW_POLICY_REUSE_PINNED,    /* proposal: refcount, but a maybe-pinned page is judged by mapcount */
	UCOW_POLICY_DONTCOPY_PINNED, /* proposal: refcount, and fork leaves pinned pages out of the child */
	UCOW_POLICY_COUNT
};

/** How fork duplicates the tables (docs/architecture.md). One semantics, three costs. */
enum ucow_fork_mode {
	UCOW_FORK_DEFAULT = 0, /* what this version does best */
	UCOW_FORK_EAGER,       /* one pass over all entries, as Linux does */
	UCOW_FORK_TABLES,      /* Linux's accounting, leaf tables shared */
	UCOW_FORK_LAZY,        /* the root is shared, nothing is looked at */
	UCOW_FORK_MODE_COUNT
};

/** What the pinned-fork callback is told. */
struct ucow_pinned_fork {
	struct ucow_mm *parent;
	uint64_t pinned_pages; /* exact number of pins the parent held when it forked */
	uint64_t early_copies; /* pages that were copied for the child at once */
};

/** Poison freed frames and check the poison on allocation (always on in debug builds). */
#define UCOW_MACHINE_POISON (1u << 0)
/** Never give committed RAM back to the host: for latency that does not depend on what was freed before. */
#define UCOW_MACHINE_KEEP_RAM (1u << 1)

struct ucow_machine_options {
	size_t size;                   /* sizeof(struct ucow_machine_options) */
	uint64_t ram_bytes;            /* maximum RAM; rounded up to 2 MiB; committed on use; 0: 64 MiB */
	enum ucow_policy policy;       /* 0: UCOW_POLICY_EXCLUSIVE */
	enum ucow_fork_mode fork_mode; /* 0: UCOW_FORK_DEFAULT */
	uint32_t flags;                /* UCOW_MACHINE_* */
	uint64_t pin_limit;            /* most pins per space, in pages; 0: no limit */
	/*
	 * Called at the end of a successful fork of a space that held pins, on the forking thread, with no lock held;
	 * may be NULL.
	 */
	void (*on_pinned_fork)(void *arg, const struct ucow_pinned_fork *info);
	/*
	 * Called, with the space's mmap_lock held shared (so it must not call ucow on the space), before a fault waits
	 * for a page lock that somebody else holds (policies MAPCOUNT and FORCE_COW only, [INV-LOCK-1]). Return true to
	 * wait, false to give up: the access then fails with -EDEADLK and nothing has changed. NULL: wait.
	 */
	bool (*on_page_lock_wait)(void *arg, struct ucow_page *page);
	void *arg; /* passed to the callbacks */
};

/**
 * ucow_machine_create - reserve RAM and make a machine.
 *
 * RAM is address space only until pages are used. It is not inherited by a fork(2) of the host process.
 * Returns: 0; -ENOMEM; -EINVAL (unknown policy, mode, flag or size of @options); -EOPNOTSUPP (a fork mode that the
 * policy does not have; every policy but EXCLUSIVE runs in EAGER mode only).
 * Thread: any.
 */
UCOW_API UCOW_NODISCARD int ucow_machine_create(const struct ucow_machine_options *options,
						struct ucow_machine **machine);

/**
 * ucow_machine_destroy - give everything back to the host.
 *
 * Returns: 0; -EBUSY while a space, a cpu, a get or a pin is left: nothing changed.
 * Thread: any; no other call on @machine may be running.
 */
UCOW_API int ucow_machine_destroy(struct ucow_machine *machine);

/**
 * ucow_machine_synchronize - wait for a grace period, then do what was put off until one: frames and tables that
 * another thread could still have been looking at are free afterwards, pages that a copy left behind may be reused by
 * their last owner. The engine does the same by itself when enough is waiting; nothing is ever put off while one thread
 * alone uses the machine.
 *
 * Thread: any, but not inside a span and not from a callback.
 */
UCOW_API void ucow_machine_synchronize(struct ucow_machine *machine);

/** ucow_policy_name - "exclusive", "mapcount", ...; NULL for no policy. */
UCOW_API const char *ucow_policy_name(enum ucow_policy policy);
/** ucow_policy_parse - the policy called @name. Returns: 0; -EINVAL. */
UCOW_API UCOW_NODISCARD int ucow_policy_parse(const char *name, enum ucow_policy *policy);
/** ucow_fork_mode_name - "eager", "tables", "lazy"; "default" for UCOW_FORK_DEFAULT; NULL for no mode. */
UCOW_API const char *ucow_fork_mode_name(enum ucow_fork_mode mode);
/** ucow_fork_mode_parse - the mode called @name. Returns: 0; -EINVAL. */
UCOW_API UCOW_NODISCARD int ucow_fork_mode_parse(const char *name, enum ucow_fork_mode *mode);

/** Counters; see ucow/counters.inc for their meaning. */
enum ucow_counter {
#define UCOW_COUNTER(id, name, meaning) UCOW_COUNTER_##id,
#include <ucow/counters.inc>
#undef UCOW_COUNTER
	UCOW_COUNTER_COUNT
};

/** ucow_counter_name - as in counters.inc; NULL for no counter. */
UCOW_API const char *ucow_counter_name(enum ucow_counter counter);

/**
 * ucow_machine_counter - the sum of a counter over all threads since the machine was made.
 * Thread: any; a sum read while others count is a value that the counter had or passed meanwhile.
 */
UCOW_API uint64_t ucow_machine_counter(const struct ucow_machine *machine, enum ucow_counter counter);

/** What a machine holds, in pages unless said. */
struct ucow_machine_stat {
	uint64_t ram_pages;       /* the maximum */
	uint64_t committed_pages; /* backed by the host now */
	uint64_t used_pages;      /* allocated frames, the zero page not counted */
	uint64_t table_bytes;     /* tables in use */
	uint64_t spaces;          /* live address spaces */
	uint64_t gets;            /* outstanding plain references */
	uint64_t pins;            /* outstanding pins */
};
/** ucow_machine_stat - fill @stat. Thread: any. */
UCOW_API void ucow_machine_stat(const struct ucow_machine *machine, struct ucow_machine_stat *stat);

#ifdef __cplusplus
}
#endif
#endif
