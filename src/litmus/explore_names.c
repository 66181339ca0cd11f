/* SPDX-License-Identifier: MIT */
/*
 * Names for addresses inside the engine. The only file outside the engine that knows its structures: it looks, and
 * changes nothing.
 */
#include "explore_names.h"

#include "space/mm.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

struct noun {
	const struct engine *engine;
	const struct hook_site *site;
	const volatile void *object;
	char text[80];
	uint64_t frame;
	bool is_bytes, is_word;
};

static bool within(const volatile void *object, const volatile void *start, size_t nbytes)
{
	return (uintptr_t)object - (uintptr_t)start < nbytes;
}

static const char *process_of(const struct engine *engine, const struct ucow_mm *mm)
{
	const struct litmus *litmus = engine->litmus;

	for (size_t i = 0; i < litmus->nnames; i++)
		if (litmus->names[i].kind == NAME_PROCESS && engine->objects[i].process.mm == mm)
			return litmus->names[i].text;
	return "a new process";
}

/* ---- RAM and its descriptors ---- */

void explore_ram(const struct engine *engine, const void **start, size_t *nbytes)
{
	const struct frame_pool *frames = &engine->machine->frames;

	*start = frames->ram;
	*nbytes = frames->npages << UCOW_PAGE_SHIFT;
}

void explore_counters(const struct engine *engine, const void **start, size_t *nbytes)
{
	*start = &engine->machine->counters;
	*nbytes = sizeof(engine->machine->counters);
}

bool explore_page_is_locked(const struct ucow_page *page)
{
	return *(const uint32_t *)(const void *)&page->flags & PAGE_LOCKED;
}

const volatile void *explore_page_flags(const struct ucow_page *page)
{
	return &page->flags;
}

static bool name_bytes(struct noun *noun)
{
	const struct frame_pool *frames = &noun->engine->machine->frames;

	if (!within(noun->object, frames->ram, frames->npages << UCOW_PAGE_SHIFT))
		return false;
	noun->frame = (uint64_t)((const volatile char *)noun->object - frames->ram) >> UCOW_PAGE_SHIFT;
	noun->is_bytes = true;
	snprintf(noun->text, sizeof(noun->text), "bytes of page %" PRIu64, noun->frame);
	return true;
}

static const char *page_field(size_t offset)
{
	switch (offset) {
	case offsetof(struct ucow_page, word):
		return "references";
	case offsetof(struct ucow_page, mapcount):
		return "mapcount";
	case offsetof(struct ucow_page, flags):
		return "flags";
	default:
		return "descriptor";
	}
}

static bool name_page(struct noun *noun)
{
	const struct frame_pool *frames = &noun->engine->machine->frames;
	size_t offset = (size_t)((uintptr_t)noun->object - (uintptr_t)frames->pages);

	if (!within(noun->object, frames->pages, frames->npages * sizeof(*frames->pages)))
		return false;
	noun->frame = offset / sizeof(*frames->pages);
	offset %= sizeof(*frames->pages);
	noun->is_word = offset == offsetof(struct ucow_page, word);
	snprintf(noun->text, sizeof(noun->text), "%s of page %" PRIu64, page_field(offset), noun->frame);
	return true;
}

/* ---- spaces and cpus ---- */

#define FIELD(type, field, name)                                                   \
	{                                                                          \
		offsetof(type, field), sizeof(((type *)(void *)NULL)->field), name \
	}
struct field {
	size_t offset, nbytes;
	const char *name;
};

/* Returns: NULL: none of them. */
static const char *find_field(const struct field *fields, size_t n, size_t offset)
{
	for (size_t i = 0; i < n; i++)
		if (offset - fields[i].offset < fields[i].nbytes)
			return fields[i].name;
	return NULL;
}

static const struct field mm_fields[] = {
	FIELD(struct ucow_mm, mmap_lock, "mmap_lock"),
	FIELD(struct ucow_mm, pt.root_lock, "lock of the root"),
	FIELD(struct ucow_mm, pt.root, "root"),
	FIELD(struct ucow_mm, pt.cpu_slots, "set of threads"),
	FIELD(struct ucow_mm, pt.shape, "shape"),
	FIELD(struct ucow_mm, pt.generations, "generation"),
	FIELD(struct ucow_mm, write_protect_seq, "write_protect_seq"),
	FIELD(struct ucow_mm, has_pinned, "has_pinned"),
	FIELD(struct ucow_mm, account, "pin account"),
	FIELD(struct ucow_mm, attached, "count of cpus"),
};

static const struct field machine_fields[] = {
	FIELD(struct ucow_machine, lock, "lock of the machine"),
	FIELD(struct ucow_machine, epoch.users, "set of threads with sections"),
	FIELD(struct ucow_machine, epoch.lock, "lock of the epoch"),
	FIELD(struct ucow_machine, inject, "injection"),
	FIELD(struct ucow_machine, tables.bytes, "bytes of tables"),
};

static bool name_in_mm(struct noun *noun, const struct ucow_mm *mm)
{
	const char *field;

	if (!within(noun->object, mm, sizeof(*mm)))
		return false;
	field = find_field(mm_fields, ARRAY_SIZE(mm_fields), (uintptr_t)noun->object - (uintptr_t)mm);
	if (!field)
		return false;
	snprintf(noun->text, sizeof(noun->text), "%s of %s", field, process_of(noun->engine, mm));
	return true;
}

static bool name_space(struct noun *noun)
{
	LIST_FOR_EACH (link, &noun->engine->machine->spaces)
		if (name_in_mm(noun, container_of(link, struct ucow_mm, link)))
			return true;
	return false;
}

static bool name_cpu(struct noun *noun)
{
	LIST_FOR_EACH (link, &noun->engine->machine->cpus) {
		const struct ucow_cpu *cpu = container_of(link, struct ucow_cpu, link);

		if (!within(noun->object, &cpu->fast.active, sizeof(cpu->fast.active)))
			continue;
		snprintf(noun->text, sizeof(noun->text), "access of a cpu of %s", process_of(noun->engine, cpu->mm));
		return true;
	}
	return false;
}

static bool name_machine(struct noun *noun)
{
	const struct ucow_machine *machine = noun->engine->machine;
	const char *field = NULL;

	if (within(noun->object, machine, sizeof(*machine)))
		field = find_field(machine_fields, ARRAY_SIZE(machine_fields),
				   (uintptr_t)noun->object - (uintptr_t)machine);
	for (unsigned i = 0; !field && i < THREAD_SLOTS; i++) {
		if (!within(noun->object, &machine->epoch.slots[i], sizeof(machine->epoch.slots[i])))
			continue;
		snprintf(noun->text, sizeof(noun->text), "%s of thread %u",
			 within(noun->object, &machine->epoch.slots[i].active, 4) ? "section" : "backlog", i);
		return true;
	}
	if (field)
		snprintf(noun->text, sizeof(noun->text), "%s", field);
	return field;
}

/* ---- tables ---- */

struct table_search {
	struct noun *noun;
	const char *process;
};

static void name_in_table(struct noun *noun, const struct table *table, uint64_t start, const char *process)
{
	size_t offset = (uintptr_t)noun->object - (uintptr_t)table;
	char place[40];

	if (table->level)
		snprintf(place, sizeof(place), "table %u levels up", table->level);
	else
		snprintf(place, sizeof(place), "leaf 0x%" PRIx64, start);
	if (offset == offsetof(struct table, refcount))
		snprintf(noun->text, sizeof(noun->text), "users of %s, %s", place, process);
	else if (offset == offsetof(struct table, lock))
		snprintf(noun->text, sizeof(noun->text), "lock of %s, %s", place, process);
	else if (offset == offsetof(struct table, hints))
		snprintf(noun->text, sizeof(noun->text), "mark of %s, %s", place, process);
	else if (offset >= offsetof(struct table, slots))
		snprintf(noun->text, sizeof(noun->text), "entry %zu of %s, %s",
			 (offset - offsetof(struct table, slots)) / sizeof(uint64_t), place, process);
	else
		snprintf(noun->text, sizeof(noun->text), "%s, %s", place, process);
}

static int visit_table(void *arg, struct table *table, uint64_t start, bool is_private)
{
	struct table_search *search = arg;

	(void)is_private;
	if (!within(search->noun->object, table, table_size(table->level)))
		return 0;
	name_in_table(search->noun, table, start, search->process);
	return 1;
}

static bool name_table(struct noun *noun)
{
	LIST_FOR_EACH (link, &noun->engine->machine->spaces) {
		const struct ucow_mm *mm = container_of(link, struct ucow_mm, link);
		struct table_search search = {noun, process_of(noun->engine, mm)};

		if (mm->pt.root && table_walk(&mm->pt, visit_table, &search))
			return true;
	}
	return false;
}

/* ---- the rest ---- */

/* The source's own words. */
static void name_expression(struct noun *noun)
{
	const char *words = noun->site ? noun->site->expression : "a word";

	while (*words == '&' || *words == '(')
		words++;
	snprintf(noun->text, sizeof(noun->text), "%.40s (%.30s)", words, noun->site ? noun->site->function : "");
}

static void name_object(struct noun *noun)
{
	if (!noun->object || name_bytes(noun) || name_page(noun) || name_space(noun) || name_cpu(noun) ||
	    name_machine(noun) || name_table(noun))
		return;
	name_expression(noun);
}

static const char *verb(const struct explore_step *step, enum op_kind kind, bool waits, const struct hook_site *site)
{
	if (step->flush)
		return "its store reaches memory:";
	if (kind == OP_STORE && site && !strcmp(site->expression, "&lock->held"))
		return "unlock";
	switch (kind) {
	case OP_LOAD:
		return waits ? "wait for" : "load";
	case OP_STORE:
		return "store";
	case OP_ADD:
		return "add to";
	case OP_UPDATE:
		return waits ? "lock" : "change";
	case OP_PUSH:
		return "store, as yet unseen,";
	case OP_EXPEDITE:
		return "membarrier";
	case OP_LOCAL:
		break;
	}
	return site ? "fence" : "begin";
}

/* ---- what is seen ---- */

static void see_bytes(char *saw, size_t size, const volatile void *object)
{
	const char *bytes = (const char *)((uintptr_t)object & UCOW_PAGE_MASK);
	size_t n = 0;

	while (n < 8 && isprint((unsigned char)bytes[n]))
		n++;
	if (n)
		snprintf(saw, size, "\"%.*s\"", (int)n, bytes);
	else
		snprintf(saw, size, "%s", bytes[0] ? "..." : "zero");
}

static void see_word(char *saw, size_t size, uint64_t word)
{
	uint64_t pins = word >> 32 & 0xffff;

	if (pins)
		snprintf(saw, size, "%" PRIu64 ", of which %" PRIu64 " pins", word & PAGE_REF_MASK, pins);
	else
		snprintf(saw, size, "%" PRIu64, word & PAGE_REF_MASK);
}

static void see(const struct noun *noun, char *saw, size_t size)
{
	uint64_t value = 0;

	if (noun->is_bytes) {
		see_bytes(saw, size, noun->object);
		return;
	}
	if (!noun->site || !noun->site->nbytes || noun->site->nbytes > sizeof(value) || !noun->object)
		return;
	memcpy(&value, (const void *)(uintptr_t)noun->object, noun->site->nbytes);
	if (noun->is_word)
		see_word(saw, size, value);
	else
		snprintf(saw, size, value < 1000000 ? "%" PRIu64 : "0x%" PRIx64, value);
}

void explore_name_step(const struct engine *engine, struct explore_step *step, enum op_kind kind, bool waits,
		       const volatile void *object, const struct hook_site *site)
{
	struct noun noun = {.engine = engine, .site = site, .object = object, .frame = EXPLORE_NO_FRAME};

	if (kind == OP_LOCAL || kind == OP_EXPEDITE)
		noun.object = NULL;
	name_object(&noun);
	snprintf(step->what, sizeof(step->what), "%s%s%s", verb(step, kind, waits, site), *noun.text ? " " : "",
		 noun.text);
	step->frame = noun.frame;
	if (!step->flush && !waits && (kind == OP_LOAD || kind == OP_ADD || kind == OP_UPDATE))
		see(&noun, step->saw, sizeof(step->saw));
}
