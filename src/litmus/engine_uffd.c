/* SPDX-License-Identifier: MIT */
/*
 * Userfaultfds on the engine. Their events are kept as they come, on the thread that they come from. A fault of a lane
 * then waits in the queue for another lane; outside of lanes nobody else could resolve it, and that is a break at once.
 */
#include "engine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static uint64_t place_bytes(const struct place *place)
{
	return place->npages * UCOW_PAGE_SIZE;
}

/* ---- events ---- */

/* The shared lock is held. */
static struct engine_uffd *find(struct engine *engine, const struct ucow_uffd *uffd)
{
	for (size_t i = 0; i < engine->litmus->nnames; i++)
		if (engine->litmus->names[i].kind == NAME_UFFD && engine->objects[i].uffd.uffd == uffd)
			return &engine->objects[i].uffd;
	return NULL;
}

/* Returns: whether it is kept; what no name of the test stands for yet is not. */
static bool keep(struct engine *engine, const struct ucow_uffd *of, const struct ucow_uffd_msg *message)
{
	struct engine_uffd *uffd;
	bool kept;

	engine_lock_shared();
	uffd = find(engine, of);
	kept = uffd && uffd->nevents < sizeof(uffd->events) / sizeof(uffd->events[0]);
	if (kept)
		uffd->events[uffd->nevents++] = *message;
	engine_wake();
	engine_unlock_shared();
	return kept;
}

/* On the thread whose access or call it is: the test's handler is one that is quick. */
static enum ucow_uffd_answer on_event(void *arg, struct ucow_uffd *uffd, const struct ucow_uffd_msg *message)
{
	struct engine *engine = engine_current();
	bool kept;

	(void)arg;
	if (message->event == UCOW_UFFD_EVENT_PAGEFAULT && !engine->block) {
		run_result_break(engine->result, engine->at[engine->lane], "waits for a userfaultfd, for ever");
		return UCOW_UFFD_SIGBUS;
	}
	kept = keep(engine, uffd, message);
	if (message->event == UCOW_UFFD_EVENT_PAGEFAULT)
		return UCOW_UFFD_QUEUE;
	if (message->event == UCOW_UFFD_EVENT_FORK && !kept)
		ucow_uffd_close(message->child);
	return UCOW_UFFD_RESOLVED;
}

/* ---- their life ---- */

static uint32_t features(unsigned options)
{
	return (options & UFFD_MODE_ASYNC ? UCOW_UFFD_FEATURE_WP_ASYNC : 0) |
	       (options & UFFD_SIGBUS ? UCOW_UFFD_FEATURE_SIGBUS : 0) |
	       (options & UFFD_UNPOPULATED ? UCOW_UFFD_FEATURE_WP_UNPOPULATED : 0) |
	       (options & UFFD_ON_FORK ? UCOW_UFFD_FEATURE_EVENT_FORK : 0) |
	       (options & UFFD_ON_REMAP ? UCOW_UFFD_FEATURE_EVENT_REMAP : 0) |
	       (options & UFFD_ON_REMOVE ? UCOW_UFFD_FEATURE_EVENT_REMOVE : 0) |
	       (options & UFFD_ON_UNMAP ? UCOW_UFFD_FEATURE_EVENT_UNMAP : 0);
}

static unsigned modes(unsigned options)
{
	return (options & UFFD_MODE_WP ? UCOW_UFFD_WP : 0) | (options & UFFD_MODE_MISSING ? UCOW_UFFD_MISSING : 0) |
	       (options & UFFD_MODE_MINOR ? UCOW_UFFD_MINOR : 0);
}

int engine_uffd(struct engine *engine, const struct stmt *stmt)
{
	struct engine_process *process = engine_process(engine, stmt, stmt->proc);
	struct engine_uffd *made = &engine->objects[stmt->name].uffd;
	struct ucow_uffd_options options = {
		.size = sizeof(options), .features = features(stmt->options), .callback = on_event};
	struct ucow_uffd *uffd;
	int error;

	if (!process)
		return 0;
	error = ucow_uffd_create(process->mm, &options, &uffd);
	if (error)
		return engine_outcome(error);
	error = ucow_uffd_register(uffd, engine_va_start(engine, &stmt->place), place_bytes(&stmt->place),
				   modes(stmt->options), NULL);
	if (error)
		ucow_uffd_close(uffd);
	else
		*made = (struct engine_uffd){.state = HANDLE_HELD, .uffd = uffd};
	return engine_outcome(error);
}

/* Close it, if it is open. */
void engine_drop_uffd(struct engine_uffd *uffd)
{
	struct engine_uffd old;

	engine_lock_shared();
	while (uffd->users)
		engine_wait();
	old = *uffd;
	if (old.state == HANDLE_HELD)
		*uffd = (struct engine_uffd){.state = HANDLE_RELEASED};
	engine_unlock_shared();
	if (old.state != HANDLE_HELD)
		return;
	for (unsigned i = old.taken; i < old.nevents; i++)
		if (old.events[i].event == UCOW_UFFD_EVENT_FORK)
			ucow_uffd_close(old.events[i].child);
	ucow_uffd_close(old.uffd);
}

/* Begin to use it, so that it stays. Returns: whether it is open. */
static bool begin_use(struct engine_uffd *uffd)
{
	bool open;

	engine_lock_shared();
	open = uffd->state == HANDLE_HELD;
	uffd->users += open;
	engine_unlock_shared();
	return open;
}

static void end_use(struct engine_uffd *uffd)
{
	engine_lock_shared();
	uffd->users--;
	engine_wake();
	engine_unlock_shared();
}

void engine_abandon_uffds(struct engine *engine)
{
	for (size_t i = 0; i < engine->litmus->nnames; i++) {
		struct engine_uffd *uffd = &engine->objects[i].uffd;

		if (engine->litmus->names[i].kind != NAME_UFFD || !begin_use(uffd))
			continue;
		for (size_t region = 0; region < engine->litmus->nnames; region++)
			if (engine->litmus->names[region].kind == NAME_REGION && engine->objects[region].va)
				(void)ucow_uffd_unregister(uffd->uffd, engine->objects[region].va,
							   engine->litmus->names[region].npages * UCOW_PAGE_SIZE);
		end_use(uffd);
	}
}

/* The userfaultfd that @stmt uses, until end_use(). NULL: none was bound; or the result says why not. */
static struct engine_uffd *use(struct engine *engine, const struct stmt *stmt)
{
	struct engine_uffd *uffd = &engine->objects[stmt->handle].uffd;

	if (begin_use(uffd))
		return uffd;
	if (uffd->state == HANDLE_RELEASED)
		run_result_error(engine->result, stmt, "%s has been closed", engine->litmus->names[stmt->handle].text);
	return NULL;
}

int engine_uffd_close(struct engine *engine, const struct stmt *stmt)
{
	struct engine_uffd *uffd = use(engine, stmt);

	if (!uffd)
		return 0;
	end_use(uffd);
	engine_drop_uffd(uffd);
	return 0;
}

/* ---- operations ---- */

/* Each page of the place gets the text at its start. */
static int copy(struct engine *engine, const struct stmt *stmt, struct ucow_uffd *uffd)
{
	unsigned char page[UCOW_PAGE_SIZE] = {0};
	unsigned mode = stmt->options & 1 ? UCOW_UFFD_MODE_WP : 0;
	int error = 0;

	memcpy(page, stmt->texts[0].bytes, stmt->texts[0].nbytes);
	while (!error && engine->stored < stmt->place.npages) {
		error = ucow_uffd_copy(uffd, engine_va(engine, &stmt->place, engine->stored), page, UCOW_PAGE_SIZE,
				       mode, NULL);
		engine->stored += !error;
	}
	return error;
}

static int operate(struct engine *engine, const struct stmt *stmt, struct ucow_uffd *uffd)
{
	uint64_t va = engine_va_start(engine, &stmt->place), nbytes = place_bytes(&stmt->place);

	switch ((int)stmt->kind) {
	case STMT_UFFD_PROTECT:
		return ucow_uffd_writeprotect(uffd, va, nbytes, UCOW_UFFD_MODE_WP);
	case STMT_UFFD_UNPROTECT:
		return ucow_uffd_writeprotect(uffd, va, nbytes, 0);
	case STMT_UFFD_COPY:
		return copy(engine, stmt, uffd);
	case STMT_UFFD_ZEROPAGE:
		return ucow_uffd_zeropage(uffd, va, nbytes, 0, NULL);
	case STMT_UFFD_CONTINUE:
		return ucow_uffd_continue(uffd, va, nbytes, stmt->options & 1 ? UCOW_UFFD_MODE_WP : 0, NULL);
	case STMT_UFFD_MOVE:
		return ucow_uffd_move(uffd, engine_va_start(engine, &stmt->place2), va, nbytes, 0, NULL);
	case STMT_UFFD_POISON:
		return ucow_uffd_poison(uffd, va, nbytes, 0, NULL);
	case STMT_UFFD_WAKE:
		return ucow_uffd_wake(uffd, va, nbytes);
	case STMT_UFFD_REGISTER:
		return ucow_uffd_register(uffd, va, nbytes, modes(stmt->options), NULL);
	case STMT_UFFD_UNREGISTER:
		return ucow_uffd_unregister(uffd, va, nbytes);
	}
	return -ENOSYS;
}

int engine_uffd_operate(struct engine *engine, const struct stmt *stmt)
{
	struct engine_uffd *uffd = use(engine, stmt);
	int error;

	if (!uffd)
		return 0;
	error = operate(engine, stmt, uffd->uffd);
	end_use(uffd);
	return engine_outcome(error);
}

/* ---- check event ---- */

static enum litmus_event kind_of(const struct ucow_uffd_msg *message)
{
	switch (message->event) {
	case UCOW_UFFD_EVENT_FORK:
		return EVENT_FORK;
	case UCOW_UFFD_EVENT_REMAP:
		return EVENT_REMAP;
	case UCOW_UFFD_EVENT_REMOVE:
		return EVENT_REMOVE;
	case UCOW_UFFD_EVENT_UNMAP:
		return EVENT_UNMAP;
	case UCOW_UFFD_EVENT_PAGEFAULT:
		break;
	}
	return message->flags & UCOW_UFFD_FAULT_WP      ? EVENT_WP
	       : message->flags & UCOW_UFFD_FAULT_MINOR ? EVENT_MINOR
							: EVENT_MISSING;
}

static uint64_t pages_of(const struct ucow_uffd_msg *message)
{
	return message->event == UCOW_UFFD_EVENT_PAGEFAULT ? 1 : message->length / UCOW_PAGE_SIZE;
}

/* What @message is about, as the test calls it. */
static void describe(const struct engine *engine, const struct ucow_uffd_msg *message, char text[120])
{
	const struct litmus *litmus = engine->litmus;
	const char *event = litmus_event_name(kind_of(message));

	snprintf(text, 120, "%s", event);
	for (size_t i = 0; message->event != UCOW_UFFD_EVENT_FORK && i < litmus->nnames; i++) {
		uint64_t start = engine->objects[i].va, page = (message->va - start) / UCOW_PAGE_SIZE;

		if (litmus->names[i].kind != NAME_REGION || message->va < start || page >= litmus->names[i].npages)
			continue;
		snprintf(text, 120, "%s %.40s[%" PRIu64 "..%" PRIu64 "]", event, litmus->names[i].text, page,
			 page + pages_of(message) - 1);
	}
}

static bool is_expected(const struct engine *engine, const struct stmt *stmt, const struct ucow_uffd_msg *message,
			uint64_t page)
{
	uint64_t wanted = stmt->event <= EVENT_MINOR ? 1 : stmt->place.npages;

	if (kind_of(message) != stmt->event)
		return false;
	if (stmt->event == EVENT_FORK)
		return true;
	return message->va == engine_va(engine, &stmt->place, page) && pages_of(message) == wanted &&
	       (stmt->event != EVENT_REMAP || message->to == engine_va_start(engine, &stmt->place2));
}

/* The next event. A lane waits for it until it comes or the run is decided. The shared lock is held. */
static bool next_event(struct engine *engine, struct engine_uffd *uffd, struct ucow_uffd_msg *message)
{
	while (uffd->taken == uffd->nevents && engine->block && !engine_is_decided(engine))
		engine_wait();
	if (uffd->taken == uffd->nevents)
		return false;
	*message = uffd->events[uffd->taken++];
	return true;
}

static void compare(struct engine *engine, const struct stmt *stmt, const struct ucow_uffd_msg *message, uint64_t page)
{
	char text[120];

	if (is_expected(engine, stmt, message, page)) {
		if (message->event == UCOW_UFFD_EVENT_FORK)
			engine->objects[stmt->name].uffd = (struct engine_uffd){.state = HANDLE_HELD,
										.uffd = message->child};
		return;
	}
	if (message->event == UCOW_UFFD_EVENT_FORK)
		ucow_uffd_close(message->child);
	describe(engine, message, text);
	run_result_break(engine->result, stmt, "%s", text);
}

static void check_next(struct engine *engine, const struct stmt *stmt, struct engine_uffd *uffd, uint64_t page)
{
	struct ucow_uffd_msg message;
	bool found;

	engine_lock_shared();
	found = next_event(engine, uffd, &message);
	engine_unlock_shared();
	if (found)
		compare(engine, stmt, &message, page);
	else if (!engine_is_decided(engine))
		run_result_break(engine->result, stmt, "no event");
}

static void check_no_event(struct engine *engine, const struct stmt *stmt, struct engine_uffd *uffd)
{
	char text[120];

	engine_lock_shared();
	if (uffd->taken < uffd->nevents) {
		describe(engine, &uffd->events[uffd->taken], text);
		run_result_break(engine->result, stmt, "%s", text);
	}
	engine_unlock_shared();
}

int engine_check_event(struct engine *engine, const struct stmt *stmt)
{
	uint64_t n = stmt->event <= EVENT_MINOR ? stmt->place.npages : 1;
	struct engine_uffd *uffd = use(engine, stmt);

	if (!uffd)
		return 0;
	if (stmt->event == EVENT_NONE)
		check_no_event(engine, stmt, uffd);
	else
		for (uint64_t page = 0; page < n && engine->result->verdict == VERDICT_PASS; page++)
			check_next(engine, stmt, uffd, page);
	end_use(uffd);
	return 0;
}
