/* SPDX-License-Identifier: MIT */
/*
 * The flat reference model: what address spaces, forks, pins and gets must look like to those who read them, with no
 * sharing, no tables and no frames. Every page of every space is bytes of its own; fork copies them all.
 *
 * Results are 0 or -errno as the engine must return them. Nothing here includes engine code.
 */
#ifndef LITMUS_FLAT_H
#define LITMUS_FLAT_H

#include <stdbool.h>
#include <stdint.h>

enum {
	MODEL_PAGE = 4096,
	MODEL_SPACES = 12,
	MODEL_SLOTS = 160, /* mapped pages per space */
	MODEL_HANDLES = 13,
	MODEL_HANDLE_PAGES = 6,
};

/*
 * One page's bytes. A pin or get that must agree with its owner refers to the owner's bytes; when the owner's mapping
 * goes away the bytes live on for those who still refer to them.
 */
struct model_bytes {
	unsigned refs;
	unsigned pins;         /* of those references: pins */
	unsigned pinned_by;    /* the space through which the first of them was taken */
	bool pinned_by_others; /* and others as well, since there were none */
	uint8_t data[MODEL_PAGE];
	uint8_t *loose; /* NULL, or for each byte whether it may as well be zero by now: it was advised free */
};

/* What a shared mapping shows, or a file has. Beyond its size there is nothing. */
struct model_object {
	unsigned refs; /* mapped pages */
	unsigned npages, room;
	bool on_host; /* a file that is written back: B.8 */
	bool held;    /* by a plain reference for writing, sometime: what a device stores may miss writeback (B.8) */
	struct model_bytes **pages; /* NULL: zeros, nobody looked */
};

/* One mapped page of one space. */
struct model_page {
	bool mapped;
	bool dontfork;
	bool wipeonfork;
	unsigned prot;
	uint64_t vpn;
	/* Two neighbours with one birth and consecutive offsets are certainly of one mapping. */
	unsigned birth;
	uint64_t offset;
	struct model_object *object; /* shared mappings; offset is the page in it */
	struct model_object *file;   /* the same of private mappings of files: what is there until it is stored to */
	struct model_bytes *bytes;   /* private mappings; NULL: reads as zeros, nothing was ever put here */
	bool exclusive;              /* private, bytes: written or pinned since the last fork that shared it */
	bool locked;
	bool soft_dirty;  /* private: stored to since the bits were cleared */
	unsigned tracker; /* the userfaultfd that it is registered with; 0: none */
	bool is_async;    /* which notes stores by itself: else they fail */
	bool wp;
	bool wp_open; /* `wp` means nothing: the file was cut, or a hole punched, under it */
	bool refused; /* a store was refused: zeros of its own may be here, as well as the zero page */
};

struct model_space {
	bool live;
	bool read_only; /* a snapshot */
	unsigned id;    /* no two spaces of a run have the same */
	struct model_page pages[MODEL_SLOTS];
};

/* A pin or a get of some pages. */
struct model_handle {
	bool live;
	bool pin;
	bool write;
	unsigned space_id; /* of the space through which it was taken */
	unsigned npages;
	struct model_bytes *bytes[MODEL_HANDLE_PAGES]; /* model->zero for the zero page */
	bool frozen[MODEL_HANDLE_PAGES];               /* a get whose page is shared: it sees what was, nobody's now */
	bool unknown[MODEL_HANDLE_PAGES];              /* of a page whose store was refused: see there */
};

struct model {
	struct model_space spaces[MODEL_SPACES];
	struct model_handle handles[MODEL_HANDLES];
	struct model_bytes *zero;
	unsigned births;
	unsigned ids;
	/*
	 * A page that was pinned through two spaces had a pin released by a call that does not say whose it was: the
	 * spaces' own counts are not defined any more, only their sum is.
	 */
	bool pins_are_mixed;
	bool drops_freed; /* memory is short: what is advised free may be gone, until it is written */
};

void model_init(struct model *m);
void model_fini(struct model *m);

struct model_page *model_find(struct model_space *s, uint64_t vpn);
/* The bytes that a load of the page sees. */
const uint8_t *model_content(const struct model *m, const struct model_page *page);
/* Those of its bytes that may as well be zero, as in struct model_bytes. */
const uint8_t *model_loose(const struct model_page *page);
/* model_get_loose, model_put_loose - the same of @nbytes from @offset on. */
void model_get_loose(const struct model_bytes *bytes, uint64_t offset, uint8_t *loose, uint64_t nbytes);
void model_put_loose(struct model_bytes *bytes, uint64_t offset, const uint8_t *loose, uint64_t nbytes);
/* A page of a shared mapping behind which there is nothing. */
bool model_beyond_object(const struct model_page *page);
/* Whether an access is granted: 0, -EFAULT, or -ENXIO for a shared page beyond its object. */
int model_may(struct model_space *s, uint64_t vpn, bool write, bool force);

void model_create(struct model *m, unsigned space);
void model_exit(struct model *m, unsigned space);
void model_fork(struct model *m, unsigned parent, unsigned child);

bool model_range_free(struct model_space *s, uint64_t vpn, uint64_t n);
unsigned model_mapped(const struct model_space *s);
void model_mmap(struct model *m, unsigned space, uint64_t vpn, uint64_t n, unsigned prot, bool shared, bool populate);
/* A file has a reference of its own. */
struct model_object *model_file(unsigned npages, unsigned room, bool on_host);
void model_file_drop(struct model_object *file);
/* model_file_store - write(2). */
void model_file_store(struct model_object *file, uint64_t page, const uint8_t *bytes, uint64_t nbytes);
const uint8_t *model_file_content(const struct model *m, const struct model_object *file, uint64_t page);
void model_mmap_file(struct model *m, unsigned space, uint64_t vpn, uint64_t n, unsigned prot, bool shared,
		     bool populate, struct model_object *file, uint64_t first);
void model_truncate(struct model *m, struct model_object *file, unsigned npages);
void model_punch(struct model *m, struct model_object *file, uint64_t first, uint64_t n);

/* Userfaultfds that track stores; @id is not 0. */
int model_track(struct model *m, unsigned space, uint64_t vpn, uint64_t n, unsigned id, bool is_async);
void model_untrack(struct model *m, unsigned id);
int model_protect(struct model *m, unsigned space, uint64_t vpn, uint64_t n, bool protect);
/* mlock, munlock */
int model_mlock(struct model *m, unsigned space, uint64_t vpn, uint64_t n, bool on_fault);
int model_munlock(struct model *m, unsigned space, uint64_t vpn, uint64_t n);

void model_munmap(struct model *m, unsigned space, uint64_t vpn, uint64_t n);
int model_mprotect(struct model *m, unsigned space, uint64_t vpn, uint64_t n, unsigned prot);

/* Advice in the engine's own numbering is not known here. */
enum model_advice {
	MODEL_DONTFORK,
	MODEL_DOFORK,
	MODEL_WIPEONFORK,
	MODEL_KEEPONFORK,
	MODEL_DONTNEED,
	MODEL_FREE,
	MODEL_POPULATE_READ,
	MODEL_POPULATE_WRITE,
};
int model_madvise(struct model *m, unsigned space, uint64_t vpn, uint64_t n, enum model_advice advice);
/* -ENOMEM when the range has a hole. */
int model_covered(struct model_space *s, uint64_t vpn, uint64_t n);

/* How sure the model is that a range is one mapping: merging of unrelated neighbours is the engine's choice. */
enum model_one { MODEL_ONE_NO, MODEL_ONE_MAYBE, MODEL_ONE_YES };
enum model_one model_one_mapping(struct model_space *s, uint64_t vpn, uint64_t n);

/* Moves @old_n pages to @to (which is emptied first) and makes them @new_n; @keep: the old range stays, empty. */
void model_move(struct model *m, unsigned space, uint64_t vpn, uint64_t old_n, uint64_t new_n, uint64_t to, bool keep);
/* Makes a mapping that ends at vpn + old_n longer; what follows is free. */
void model_grow(struct model *m, unsigned space, uint64_t vpn, uint64_t old_n, uint64_t new_n);

/* Up to the first page that does not grant it; *done bytes were transferred. */
int model_read(struct model *m, unsigned space, uint64_t va, uint8_t *buffer, uint64_t nbytes, uint64_t *done);
int model_write(struct model *m, unsigned space, uint64_t va, const uint8_t *buffer, uint64_t nbytes, uint64_t *done);
/* A store of what is there already: permission and copy-on-write without new contents. */
int model_touch_for_write(struct model *m, unsigned space, uint64_t vpn, bool force);

/* The number of pages taken, or -EFAULT. */
long model_take(struct model *m, unsigned handle, unsigned space, uint64_t vpn, uint64_t n, bool pin, bool write,
		bool force, bool longterm);
/* @named: the release says through which space the pins were taken. */
void model_release(struct model *m, unsigned handle, bool named);
/* Whether a store by the device through the handle has one defined meaning: it was taken for writing, nothing froze. */
bool model_device_may_write(const struct model *m, unsigned handle);
void model_device_write(struct model *m, unsigned handle, unsigned offset, const uint8_t *buffer, unsigned nbytes);

/* What the engine must count. */
unsigned model_populated(const struct model_space *s);
unsigned model_pinned(const struct model *m, const struct model_space *s); /* NULL: through any space */

#endif
