/* SPDX-License-Identifier: MIT */
/*
 * Files of tests. Where a test maps none, a file is an array of this program: only the memory side of a transfer is the
 * engine's. Where it does, files are the engine's, in front of a nameless host file or of nothing.
 */
#include "engine.h"
#include "judge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct engine_file *file_of(struct engine *engine, int name)
{
	return &engine->objects[name].file;
}

/* ---- arrays ---- */

/* With the lock held: the array may move. */
static bool resize_array(struct engine *engine, const struct stmt *stmt, struct engine_file *file, uint64_t npages)
{
	unsigned char *bytes = realloc(file->bytes, npages ? npages * UCOW_PAGE_SIZE : 1);

	if (!bytes) {
		run_result_error(engine->result, stmt, "out of memory");
		return false;
	}
	if (npages > file->npages)
		memset(bytes + file->npages * UCOW_PAGE_SIZE, 0, (npages - file->npages) * UCOW_PAGE_SIZE);
	file->bytes = bytes;
	file->npages = npages;
	return true;
}

static int define_array(struct engine *engine, const struct stmt *stmt, struct engine_file *file)
{
	const struct text *text = stmt->ntexts ? &stmt->texts[0] : NULL;
	uint64_t npages = engine->litmus->names[stmt->name].npages;

	if (!resize_array(engine, stmt, file, npages))
		return 0;
	for (uint64_t i = 0; text && i < npages; i++)
		memcpy(file->bytes + i * UCOW_PAGE_SIZE, text->bytes, text->nbytes);
	return 0;
}

static void check_array(struct engine *engine, const struct stmt *stmt, const struct engine_file *file)
{
	uint64_t start = stmt->file_page * UCOW_PAGE_SIZE;
	size_t nbytes = judge_wanted(stmt, 0, UCOW_PAGE_SIZE);
	char saw[JUDGE_SAW_SIZE];

	engine_lock_shared();
	if (start + nbytes > file->npages * UCOW_PAGE_SIZE)
		run_result_break(engine->result, stmt, "the end of the file");
	else if (!judge_bytes(stmt, file->bytes + start, nbytes, saw))
		run_result_break(engine->result, stmt, "%s", saw);
	engine_unlock_shared();
}

/* ---- files that are mapped ---- */

/* The text at the start of each page, before the engine sees the host file or, where there is none, through it. */
static int fill(const struct stmt *stmt, const struct engine_file *file)
{
	const struct text *text = &stmt->texts[0];

	for (uint64_t i = 0; i < stmt->count; i++) {
		uint64_t offset = i * UCOW_PAGE_SIZE;
		long put = file->file ? ucow_file_write(file->file, text->bytes, text->nbytes, offset)
				      : pwrite(file->fd, text->bytes, text->nbytes, (off_t)offset);

		if (put != (long)text->nbytes)
			return put < 0 && file->file ? (int)-put : EIO;
	}
	return 0;
}

static int open_file(struct engine *engine, const struct stmt *stmt, struct engine_file *file)
{
	struct ucow_file_options options = {.size = sizeof(options), .fd = file->fd};

	if (file->fd < 0)
		options.length = stmt->count * UCOW_PAGE_SIZE;
	return engine_outcome(ucow_file_open(engine->machine, &options, &file->file));
}

static int define_file(struct engine *engine, const struct stmt *stmt, struct engine_file *file)
{
	int error = 0;

	file->fd = stmt->options & 1 ? -1 : engine_host_file(stmt->count * UCOW_PAGE_SIZE);
	if (file->fd < 0 && !(stmt->options & 1))
		return errno;
	if (file->fd >= 0 && !ENGINE_LANES_ARE_FIBRES)
		error = fill(stmt, file);
	if (!error)
		error = open_file(engine, stmt, file);
	if (!error && (file->fd < 0 || ENGINE_LANES_ARE_FIBRES))
		error = fill(stmt, file);
	if (!error && file->fd >= 0)
		error = engine_outcome(ucow_file_sync(file->file));
	return error;
}

int engine_define_file(struct engine *engine, const struct stmt *stmt)
{
	struct engine_file *file = file_of(engine, stmt->name);

	return engine->litmus->needs & NEED_FILE ? define_file(engine, stmt, file) : define_array(engine, stmt, file);
}

void engine_drop_file(struct engine_file *file)
{
	if (file->file) {
		(void)ucow_file_close(file->file);
		if (file->fd > 0)
			close(file->fd);
	}
	free(file->bytes);
	*file = (struct engine_file){0};
}

int engine_map_file(struct engine *engine, const struct stmt *stmt, struct ucow_mm *mm, unsigned prot, unsigned flags)
{
	struct ucow_file *file = file_of(engine, stmt->file)->file, *opener = file;
	uint64_t mapped;
	int error = 0;

	if (stmt->options & MAP_OPT_READONLY)
		error = ucow_file_reopen(file, UCOW_FILE_READ_ONLY, &opener);
	if (error)
		return error;
	error = ucow_mmap_file(mm, engine->objects[stmt->name].va, stmt->count * UCOW_PAGE_SIZE, prot, flags, opener,
			       stmt->file_page * UCOW_PAGE_SIZE, &mapped);
	if (opener != file)
		(void)ucow_file_close(opener);
	return error;
}

/* ---- statements ---- */

int engine_sync(struct engine *engine, const struct stmt *stmt)
{
	return engine_outcome(ucow_file_sync(file_of(engine, stmt->file)->file));
}

int engine_msync(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	unsigned how = stmt->options & 1 ? UCOW_MS_ASYNC : UCOW_MS_SYNC;

	if (!process)
		return 0;
	return engine_outcome(ucow_msync(process->mm, engine_va_start(engine, &stmt->place),
					 stmt->place.npages * UCOW_PAGE_SIZE, how));
}

int engine_truncate(struct engine *engine, const struct stmt *stmt)
{
	return engine_outcome(ucow_file_truncate(file_of(engine, stmt->file)->file, stmt->count * UCOW_PAGE_SIZE));
}

int engine_punch(struct engine *engine, const struct stmt *stmt)
{
	return engine_outcome(ucow_file_punch(file_of(engine, stmt->file)->file, stmt->file_page * UCOW_PAGE_SIZE,
					      stmt->count * UCOW_PAGE_SIZE));
}

int engine_store(struct engine *engine, const struct stmt *stmt)
{
	const struct text *text = &stmt->texts[0];
	long put = ucow_file_write(file_of(engine, stmt->file)->file, text->bytes, text->nbytes,
				   stmt->file_page * UCOW_PAGE_SIZE);

	return put < 0 ? engine_outcome((int)put) : (size_t)put < text->nbytes ? EIO : 0;
}

/* A hint, as on the kernel: there is no call for it, and nobody may rely on what is gone. */
int engine_drop(struct engine *engine, const struct stmt *stmt)
{
	(void)engine;
	(void)stmt;
	return 0;
}

/* ---- checks ---- */

/* @got bytes of a page, as read(2) says. */
static int compare(struct engine *engine, const struct stmt *stmt, const unsigned char *bytes, long got)
{
	size_t wanted = judge_wanted(stmt, 0, UCOW_PAGE_SIZE);
	char saw[JUDGE_SAW_SIZE];

	if (got < 0)
		return engine_outcome((int)got);
	if ((size_t)got < wanted)
		run_result_break(engine->result, stmt, "the end of the file");
	else if (!judge_bytes(stmt, bytes, wanted, saw))
		run_result_break(engine->result, stmt, "%s", saw);
	return 0;
}

int engine_check_file_reads(struct engine *engine, const struct stmt *stmt)
{
	struct engine_file *file = file_of(engine, stmt->file);
	unsigned char bytes[UCOW_PAGE_SIZE];

	if (!file->file) {
		check_array(engine, stmt, file);
		return 0;
	}
	return compare(engine, stmt, bytes,
		       ucow_file_read(file->file, bytes, sizeof(bytes), stmt->file_page * UCOW_PAGE_SIZE));
}

int engine_check_file_holds(struct engine *engine, const struct stmt *stmt)
{
	struct engine_file *file = file_of(engine, stmt->file);
	unsigned char bytes[UCOW_PAGE_SIZE];
	long got;

	if (file->fd < 0) {
		run_result_error(engine->result, stmt, "a file in memory is written back nowhere");
		return 0;
	}
	got = engine_host_read(file->fd, bytes, sizeof(bytes), stmt->file_page * UCOW_PAGE_SIZE);
	if (got != -EOPNOTSUPP)
		return compare(engine, stmt, bytes, got);
	run_result_skip_check(engine->result, stmt, "engine: a stand-in for a host file shows nothing");
	return 0;
}

/* ---- O_DIRECT ---- */

/* One page, or what is left of it from @offset on. Returns: whether the file goes so far. */
static bool transfer_page(struct engine_file *file, uint64_t page, uint64_t offset, unsigned char *memory, bool to_file)
{
	uint64_t start = page * UCOW_PAGE_SIZE + offset;
	size_t nbytes = UCOW_PAGE_SIZE - offset;
	unsigned char bytes[UCOW_PAGE_SIZE] = {0};
	bool there = true;

	if (to_file)
		engine_load_bytes(bytes, memory, nbytes);
	if (file->file) {
		there = (to_file ? ucow_file_write(file->file, bytes, nbytes, start)
				 : ucow_file_read(file->file, bytes, nbytes, start)) > 0;
	} else {
		engine_lock_shared();
		there = page < file->npages;
		if (there)
			memcpy(to_file ? file->bytes + start : bytes, to_file ? bytes : file->bytes + start, nbytes);
		engine_unlock_shared();
	}
	if (there && !to_file)
		engine_store_bytes(memory, bytes, nbytes);
	return there;
}

void engine_transfer(struct engine *engine, const struct stmt *stmt, struct ucow_page **pages, bool to_file)
{
	struct engine_file *file = file_of(engine, stmt->file);
	bool there = true;

	for (uint64_t i = 0; there && i < stmt->place.npages; i++)
		there = transfer_page(file, stmt->file_page + i, stmt->place.offset,
				      (unsigned char *)ucow_page_address(pages[i]) + stmt->place.offset, to_file);
}

/* A write may make the file longer. Returns: whether there is room. */
bool engine_extend_file(struct engine *engine, const struct stmt *stmt)
{
	struct engine_file *file = file_of(engine, stmt->file);
	uint64_t npages = stmt->file_page + stmt->place.npages;
	bool enough;

	if (file->file)
		return true; /* writing does it */
	engine_lock_shared();
	enough = npages <= file->npages || resize_array(engine, stmt, file, npages);
	engine_unlock_shared();
	return enough;
}
