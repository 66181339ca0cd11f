/* SPDX-License-Identifier: MIT */
/*
 * The engine as a subject: the statements of the engine's runner one by one, on a machine that many tests use. After
 * each test all is given back and the balance drawn. Looking must not disturb: absent private pages stay absent unless
 * the test looks by loads, and no reference is taken, which would unshare tables.
 */
#include "fuzz.h"

#include "engine.h"

#include <ucow/ucow.h>

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RAM_BYTES   (UINT64_C(4) << 20)
#define SMALL_BYTES ((uint64_t)FUZZ_SMALL_FRAMES * UCOW_PAGE_SIZE)
/*
 * Statements; after each such one, and after the last, the machine is checked. By their number, so that a program
 * shows the same whenever it is run.
 */
#define CHECK_EVERY 4

/* A machine that many tests use, with plenty of memory or, but for some frames, held by somebody else. */
struct ground {
	struct ucow_machine *machine;
	unsigned room;
	const char *ram; /* where frame 0 lies */
	struct ucow_mm *holder;
	struct ucow_page *held[SMALL_BYTES / UCOW_PAGE_SIZE];
	size_t nheld;
};
enum { GROUNDS = 4 };

struct subject {
	struct fuzz_subject subject;
	struct ground *grounds[GROUNDS], *ground; /* the first has plenty */
	uint64_t tally[FUZZ_TALLIES], counted[FUZZ_TALLIES];
	struct run_options options;
	struct run_result result;
	struct engine engine;
	const struct stmt *volatile at[1];
	const struct fuzz_test *test;
	bool may_run_out;
	bool is_last; /* the statement is the test's last one */
	union engine_object objects[FUZZ_PROCESSES + FUZZ_PAGES + FUZZ_HANDLES + FUZZ_FILES + FUZZ_GROUPS];
	struct ucow_cpu *cpus[FUZZ_PROCESSES + FUZZ_PAGES + FUZZ_HANDLES + FUZZ_FILES + FUZZ_GROUPS];
};

static struct subject *own(struct fuzz_subject *subject)
{
	return (struct subject *)subject;
}

/* ---- looking ---- */

static void take_window(uint8_t window[FUZZ_WINDOW], const char *page)
{
	static const unsigned offsets[FUZZ_SPOTS] = FUZZ_SPOT_OFFSETS;

	for (unsigned spot = 0; spot < FUZZ_SPOTS; spot++)
		memcpy(window + spot * FUZZ_TEXT, page + offsets[spot], FUZZ_TEXT);
}

/* Loads of the page, which may fault it in. Returns: whether it may be read. */
static bool load_window(struct subject *s, int process, uint64_t va, uint8_t window[FUZZ_WINDOW])
{
	static const unsigned offsets[FUZZ_SPOTS] = FUZZ_SPOT_OFFSETS;
	struct ucow_cpu *cpu = engine_cpu(&s->engine, NULL, process);

	for (unsigned spot = 0; spot < FUZZ_SPOTS; spot++)
		if (!cpu || ucow_read(cpu, va + offsets[spot], window + spot * FUZZ_TEXT, FUZZ_TEXT, NULL))
			return false;
	return true;
}

static uint64_t page_va(const struct subject *s, unsigned page)
{
	int region = s->test->layout.page[page].region;
	uint64_t va = s->objects[region].va;

	return va ? va + (uint64_t)s->test->layout.page[page].page * UCOW_PAGE_SIZE : 0;
}

/*
 * A mapping is of one kind from the statement that made it on; what is moved stays what it was. Files count as shared
 * where they are private too: what is there only a load tells.
 */
static bool is_shared_region(const struct litmus *litmus, int region)
{
	while (litmus->names[region].region >= 0)
		region = litmus->names[region].region;
	for (size_t i = 0; i < litmus->nstmts; i++)
		if (litmus->stmts[i].kind == STMT_MAP && litmus->stmts[i].name == region)
			return litmus->stmts[i].options & MAP_OPT_SHARED || litmus->stmts[i].file >= 0;
	return false;
}

static void look_at_entry(struct subject *s, struct ucow_mm *mm, uint64_t va, struct fuzz_page *page)
{
	struct ucow_entry_info info;

	ucow_query(mm, va, &info);
	page->mapped = info.mapped;
	page->present = info.present;
	page->zero = info.zero_page;
	page->exclusive = info.exclusive && !info.zero_page;
	page->wp = info.uffd_wp;
	page->soft_dirty = info.soft_dirty;
	page->swapped = info.swapped;
	page->mapcount = info.zero_page ? 0 : info.mapcount;
	page->frame = info.present && !info.special ? info.pfn + 1 : 0;
	if (!info.mapped || page->shared || s->test->looks)
		return;
	page->has_bytes = true;
	if (page->frame)
		take_window(page->bytes, s->ground->ram + info.pfn * UCOW_PAGE_SIZE);
	else
		memset(page->bytes, 0, FUZZ_WINDOW);
}

/* What lies on a swap device is brought back at the end only: else no page would ever stay there. */
static void bring_back(struct subject *s, int name, uint64_t va, struct fuzz_page *page)
{
	if (page->swapped && s->is_last && load_window(s, name, va, page->bytes))
		look_at_entry(s, s->objects[name].process.mm, va, page);
}

static void look_at_page(struct subject *s, unsigned process, unsigned number, struct fuzz_page *page)
{
	int name = s->test->layout.process[process];
	uint64_t va = page_va(s, number);

	page->mapped = page->has_bytes = page->present = page->zero = page->exclusive = page->wp = false;
	page->soft_dirty = false;
	page->swapped = false;
	page->frame = page->mapcount = 0;
	page->shared = is_shared_region(s->test->litmus, s->test->layout.page[number].region);
	if (!va)
		return;
	if (page->shared || s->test->looks)
		page->has_bytes = load_window(s, name, va, page->bytes);
	look_at_entry(s, s->objects[name].process.mm, va, page);
	bring_back(s, name, va, page);
}

static void look_at_handle(struct subject *s, unsigned number, struct fuzz_held *held)
{
	const struct engine_handle *handle = &s->objects[s->test->layout.handle[number]].handle;

	held->bound = handle->state == HANDLE_HELD;
	held->npages = held->bound ? (unsigned)handle->npages : 0;
	for (unsigned i = 0; i < held->npages; i++) {
		held->has_bytes[i] = true;
		take_window(held->bytes[i], ucow_page_address(handle->pages[i]));
	}
}

/* Through the cache; and after a sync, what the host has. */
static void look_at_mapped_file(struct subject *s, const struct engine_file *file, bool synced, struct fuzz_file *shown)
{
	char page[UCOW_PAGE_SIZE];
	struct ucow_file_stat stat;
	unsigned npages;

	(void)s;
	ucow_file_stat(file->file, &stat);
	npages = (unsigned)((stat.size + UCOW_PAGE_SIZE - 1) / UCOW_PAGE_SIZE);
	shown->made = true;
	shown->npages = npages;
	shown->synced = synced && file->fd >= 0;
	for (unsigned i = 0; i < npages && i < FUZZ_FILE_PAGES; i++) {
		memset(page, 0, sizeof(page));
		if (ucow_file_read(file->file, page, sizeof(page), i * UCOW_PAGE_SIZE) < 0)
			memset(page, 0xee, sizeof(page));
		take_window(shown->bytes[i], page);
		memset(page, 0, sizeof(page));
		if (shown->synced && pread(file->fd, page, sizeof(page), (off_t)(i * UCOW_PAGE_SIZE)) < 0)
			memset(page, 0xee, sizeof(page));
		take_window(shown->stored[i], page);
	}
}

static void look_at_file(struct subject *s, unsigned number, const struct stmt *stmt, struct fuzz_file *shown)
{
	int name = s->test->layout.file[number];
	const struct engine_file *file = &s->objects[name].file;

	if (file->file) {
		look_at_mapped_file(s, file, stmt->kind == STMT_SYNC && stmt->file == name, shown);
		return;
	}
	shown->synced = false;
	shown->made = file->bytes;
	shown->npages = file->bytes ? (unsigned)file->npages : 0;
	for (unsigned i = 0; i < shown->npages && i < FUZZ_FILE_PAGES; i++)
		take_window(shown->bytes[i], (const char *)file->bytes + i * UCOW_PAGE_SIZE);
}

static uint64_t usage_of(const struct subject *s, unsigned number)
{
	struct ucow_memcg *group = s->objects[s->test->layout.group[number]].group;
	struct ucow_memcg_stat stat = {0};

	if (group)
		ucow_memcg_stat(group, &stat);
	return stat.usage;
}

static void look(struct subject *s, const struct stmt *stmt, struct fuzz_view *view)
{
	const struct fuzz_layout *layout = &s->test->layout;

	for (unsigned process = 0; process < layout->nprocesses; process++) {
		view->alive[process] = s->objects[layout->process[process]].process.mm;
		for (unsigned page = 0; view->alive[process] && page < layout->npages; page++)
			look_at_page(s, process, page, &view->pages[process][page]);
	}
	for (unsigned handle = 0; handle < layout->nhandles; handle++)
		look_at_handle(s, handle, &view->held[handle]);
	for (unsigned file = 0; file < layout->nfiles; file++)
		look_at_file(s, file, stmt, &view->files[file]);
	for (unsigned group = 0; group < layout->ngroups; group++)
		view->usage[group] = usage_of(s, group);
}

/* Only swapoff, which must bring everything back, charges more than a group may have. */
static bool is_over_limit(const struct subject *s)
{
	const struct litmus *litmus = s->test->litmus;
	bool over = false;

	for (unsigned i = 0; i < s->test->layout.ngroups; i++) {
		struct ucow_memcg *group = s->objects[s->test->layout.group[i]].group;
		struct ucow_memcg_stat stat = {0};

		if (group)
			ucow_memcg_stat(group, &stat);
		over |= stat.usage > stat.limit;
	}
	for (size_t i = 0; over && i < litmus->nstmts; i++)
		over = litmus->stmts[i].kind != STMT_SWAPOFF;
	return over;
}

/* ---- running out of memory ---- */

/* How often an operation found none, with what could be reclaimed. */
static uint64_t count_shortages(const struct subject *s)
{
	uint64_t n = ucow_machine_counter(s->engine.machine, UCOW_COUNTER_FAULT_NOMEM);

	for (unsigned i = 0; i < s->test->layout.ngroups; i++) {
		struct ucow_memcg *group = s->objects[s->test->layout.group[i]].group;
		struct ucow_memcg_stat stat = {0};

		if (group)
			ucow_memcg_stat(group, &stat);
		n += stat.oom_events;
	}
	return n;
}

/*
 * Who found no memory says so, and is not compared any further: so take all that can be had now, of the groups that
 * refused, or of the machine if none did.
 */
static unsigned reclaim_rest(struct subject *s)
{
	long freed = 0;
	bool any = false;

	for (unsigned i = 0; i < s->test->layout.ngroups; i++) {
		struct ucow_memcg *group = s->objects[s->test->layout.group[i]].group;
		struct ucow_memcg_stat stat = {0};

		if (group)
			ucow_memcg_stat(group, &stat);
		if (!stat.oom_events)
			continue;
		any = true;
		freed = ucow_reclaim(s->engine.machine, group, SMALL_BYTES);
	}
	if (!any)
		freed = ucow_reclaim(s->engine.machine, NULL, SMALL_BYTES);
	return freed > 0 ? (unsigned)freed : 0;
}

/* ---- machines ---- */

static int make_machine(const struct subject *s, struct ground *ground)
{
	struct ucow_machine_options options = {
		.size = sizeof(options),
		.ram_bytes = ground->room ? SMALL_BYTES : RAM_BYTES,
		.policy = s->options.policy,
		.fork_mode = s->options.fork,
		.flags = UCOW_MACHINE_POISON,
	};

	return ucow_machine_create(&options, &ground->machine);
}

/* The address of a page's bytes, less its number. */
static int find_ram(struct ground *ground)
{
	struct ucow_entry_info info;
	struct ucow_page *page;
	struct ucow_mm *mm;
	uint64_t va;
	int error = ucow_mm_create(ground->machine, &mm);

	if (error)
		return error;
	error = ucow_mmap(mm, 0, UCOW_PAGE_SIZE, UCOW_PROT_READ | UCOW_PROT_WRITE, UCOW_MAP_PRIVATE | UCOW_MAP_POPULATE,
			  &va);
	if (!error)
		error = ucow_lookup_page(mm, va, &page);
	if (!error) {
		ucow_query(mm, va, &info);
		ground->ram = (const char *)ucow_page_address(page) - info.pfn * UCOW_PAGE_SIZE;
		ucow_put_pages(&page, 1);
	}
	return ucow_mm_destroy(mm) ? -EBUSY : error;
}

static size_t frames_left(const struct ground *ground)
{
	struct ucow_machine_stat stat;

	ucow_machine_stat(ground->machine, &stat);
	return stat.ram_pages - stat.used_pages;
}

/* Somebody pins all frames but so many. Without a swap device, so that no list has them and no reclaim looks at them.
 */
static int hold_the_rest(struct ground *ground)
{
	uint64_t va;
	long taken = 0;
	int error = ucow_mm_create(ground->machine, &ground->holder);

	if (!error)
		error = ucow_mmap(ground->holder, 0, SMALL_BYTES, UCOW_PROT_READ | UCOW_PROT_WRITE, UCOW_MAP_PRIVATE,
				  &va);
	while (!error && taken >= 0 && frames_left(ground) > ground->room) {
		taken = ucow_pin_user_pages_remote(ground->holder, va + ground->nheld * UCOW_PAGE_SIZE, 1,
						   UCOW_FOLL_WRITE | UCOW_FOLL_LONGTERM, &ground->held[ground->nheld]);
		ground->nheld += taken > 0;
	}
	return taken < 0 ? (int)taken : error;
}

/* What cannot be given back is left. */
static void drop_ground(struct ground *ground)
{
	if (ground->nheld)
		ucow_unpin_user_pages(ground->held, ground->nheld);
	if (ground->holder)
		(void)ucow_mm_destroy(ground->holder);
	if (ground->machine)
		(void)ucow_machine_destroy(ground->machine);
	free(ground);
}

static int make_ground(const struct subject *s, unsigned room, struct ground **made)
{
	struct ground *ground = calloc(1, sizeof(*ground));
	int error;

	if (!ground)
		return -ENOMEM;
	ground->room = room;
	error = make_machine(s, ground);
	if (!error)
		error = find_ram(ground);
	if (!error && room)
		error = hold_the_rest(ground);
	if (error)
		drop_ground(ground);
	else
		*made = ground;
	return error;
}

/* One that is there, or a new one, in the place of the last if there is no other. */
static int choose_ground(struct subject *s, unsigned room)
{
	unsigned i = room ? 1 : 0;

	while (i < GROUNDS - 1 && s->grounds[i] && s->grounds[i]->room != room)
		i++;
	if (s->grounds[i] && s->grounds[i]->room != room) {
		drop_ground(s->grounds[i]);
		s->grounds[i] = NULL;
	}
	if (!s->grounds[i]) {
		int error = make_ground(s, room, &s->grounds[i]);

		if (error)
			return error;
	}
	s->ground = s->grounds[i];
	return 0;
}

/* ---- stepping ---- */

static int wrong(const char *what, const char *detail, char *why, size_t size)
{
	snprintf(why, size, "%s%s%s", what, detail[0] ? ": " : "", detail);
	return -EIO;
}

static void count_tally(const struct subject *s, uint64_t counts[FUZZ_TALLIES])
{
	static const unsigned counters[FUZZ_TALLIES] = {
#define FUZZ_TALLY_COUNTER(id, name, counter) [id] = UCOW_COUNTER_##counter,
		FUZZ_TALLY(FUZZ_TALLY_COUNTER)
#undef FUZZ_TALLY_COUNTER
	};

	for (unsigned i = 0; i < FUZZ_TALLIES; i++)
		counts[i] = ucow_machine_counter(s->ground->machine, counters[i]);
}

static void add_tally(struct subject *s)
{
	uint64_t now[FUZZ_TALLIES];

	count_tally(s, now);
	for (unsigned i = 0; i < FUZZ_TALLIES; i++)
		s->tally[i] += now[i] - s->counted[i];
}

static int begin(struct fuzz_subject *subject, const struct fuzz_test *test, char *why, size_t size)
{
	struct subject *s = own(subject);
	struct ucow_machine *machine;
	int error = choose_ground(s, test->room);

	if (error)
		return wrong("no machine", litmus_error_name(-error), why, size);
	machine = s->ground->machine;
	s->test = test;
	s->may_run_out = fuzz_may_run_out(test);
	s->result = (struct run_result){0};
	memset(s->objects, 0, sizeof(s->objects[0]) * test->litmus->nnames);
	memset(s->cpus, 0, sizeof(s->cpus[0]) * test->litmus->nnames);
	s->engine = (struct engine){
		.litmus = test->litmus,
		.options = &s->options,
		.result = &s->result,
		.machine = machine,
		.objects = s->objects,
		.cpus = s->cpus,
		.at = s->at,
	};
	engine_set_current(&s->engine);
	ucow_machine_stat(machine, &s->engine.fresh);
	count_tally(s, s->counted);
	if (!engine_begin_pressure(&s->engine))
		return wrong("no swap", s->result.reason, why, size);
	error = ucow_mm_create(machine, &s->objects[0].process.mm);
	return error ? wrong("no first process", litmus_error_name(-error), why, size) : 0;
}

static int check_machine(struct subject *s, char *why, size_t size)
{
	char what[120];

	return ucow_machine_check(s->engine.machine, what, sizeof(what)) ? wrong("invariants", what, why, size) : 0;
}

static int step(struct fuzz_subject *subject, size_t i, struct fuzz_view *view, char *why, size_t size)
{
	struct subject *s = own(subject);
	const struct stmt *stmt = &s->test->litmus->stmts[i];
	const struct engine_handle *handle = &s->objects[stmt->name >= 0 ? stmt->name : 0].handle;
	bool takes = stmt->kind == STMT_PIN || stmt->kind == STMT_GET || stmt->kind == STMT_SPLICE;
	uint64_t faults = ucow_machine_counter(s->engine.machine, UCOW_COUNTER_FAULTS);
	uint64_t shortages = count_shortages(s);

	engine_at(&s->engine, stmt);
	s->engine.stored = 0;
	s->engine.found = &view->found;
	view->found = 0;
	view->scanned = stmt->kind == STMT_SCAN;
	view->outcome = engine_statement(&s->engine, stmt);
	faults = ucow_machine_counter(s->engine.machine, UCOW_COUNTER_FAULTS) - faults;
	view->faults = stmt->kind == STMT_READ || stmt->kind == STMT_WRITE ? (unsigned)faults : UINT_MAX;
	view->pages_taken = takes && !view->outcome ? handle->npages : 0;
	view->undefined = false;
	s->is_last = i + 1 == s->test->litmus->nstmts;
	if (s->result.verdict != VERDICT_PASS)
		return wrong("the runner", s->result.reason, why, size);
	ucow_machine_synchronize(s->engine.machine);
	look(s, stmt, view);
	if (is_over_limit(s))
		return wrong("limits", "a group is charged for more than it may have", why, size);
	view->ran_out = view->outcome == ENOMEM || count_shortages(s) != shortages;
	view->reclaimable = view->ran_out && s->may_run_out ? reclaim_rest(s) : 0;
	return i % CHECK_EVERY ? 0 : check_machine(s, why, size);
}

/* ---- the end ---- */

static int check_balance(struct subject *s, char *why, size_t size)
{
	struct ucow_machine_stat now;
	const struct ucow_machine_stat *fresh = &s->engine.fresh;

	ucow_machine_stat(s->engine.machine, &now);
	if (now.used_pages != fresh->used_pages)
		return wrong("left behind", "frames", why, size);
	if (now.table_bytes != fresh->table_bytes)
		return wrong("left behind", "tables", why, size);
	if (now.spaces != fresh->spaces)
		return wrong("left behind", "spaces", why, size);
	return now.gets != fresh->gets || now.pins != fresh->pins ? wrong("left behind", "references", why, size) : 0;
}

static void left_behind(struct engine *engine, const char *what)
{
	run_result_error(engine->result, NULL, "left behind: %s", what);
}

/* Slots are counted, and the device goes: the next test has its own, or none. */
static int settle_swap(struct subject *s, char *why, size_t size)
{
	s->result = (struct run_result){0};
	engine_settle_pressure(&s->engine, left_behind);
	if (engine_swapoff(&s->engine, NULL))
		return wrong("swapoff", "failed at the end", why, size);
	return s->result.verdict == VERDICT_PASS ? 0 : wrong("the end", s->result.reason, why, size);
}

static void forget_ground(struct subject *s)
{
	for (unsigned i = 0; i < GROUNDS; i++)
		if (s->grounds[i] == s->ground)
			s->grounds[i] = NULL;
	drop_ground(s->ground);
	s->ground = NULL;
}

static int end(struct fuzz_subject *subject, char *why, size_t size)
{
	struct subject *s = own(subject);
	int error = check_machine(s, why, size);

	engine_release_all(&s->engine);
	ucow_machine_synchronize(s->engine.machine);
	if (!error)
		error = check_machine(s, why, size);
	if (!error)
		error = settle_swap(s, why, size);
	if (!error)
		error = check_balance(s, why, size);
	for (size_t i = 0; i < s->test->litmus->nnames; i++)
		if (s->test->litmus->names[i].kind == NAME_FILE)
			engine_drop_file(&s->objects[i].file);
	add_tally(s);
	/* What is wrong with this machine is no fault of the next test. */
	if (error)
		forget_ground(s);
	return error;
}

static void close_subject(struct fuzz_subject *subject)
{
	struct subject *s = own(subject);

	for (unsigned i = 0; i < GROUNDS; i++)
		if (s->grounds[i])
			drop_ground(s->grounds[i]);
	free(s);
}

static const struct fuzz_subject_type types[] = {
	[UCOW_FORK_EAGER] = {"eager",
			     FUZZ_SEES_BYTES | FUZZ_SEES_MAPPED | FUZZ_SEES_PRESENT | FUZZ_SEES_FRAMES |
				     FUZZ_SEES_EXCLUSIVE | FUZZ_SEES_MAPCOUNT | FUZZ_SEES_WP | FUZZ_SEES_FAULTS |
				     FUZZ_SEES_OUTCOME | FUZZ_SEES_USAGE | FUZZ_SEES_SOFT_DIRTY,
			     begin, step, end, close_subject},
	[UCOW_FORK_TABLES] = {"tables",
			      FUZZ_SEES_WP | FUZZ_SEES_SOFT_DIRTY | FUZZ_SEES_BYTES | FUZZ_SEES_MAPPED |
				      FUZZ_SEES_OUTCOME | FUZZ_SEES_USAGE,
			      begin, step, end, close_subject},
	[UCOW_FORK_LAZY] = {"lazy",
			    FUZZ_SEES_WP | FUZZ_SEES_SOFT_DIRTY | FUZZ_SEES_BYTES | FUZZ_SEES_MAPPED |
				    FUZZ_SEES_OUTCOME | FUZZ_SEES_USAGE,
			    begin, step, end, close_subject},
};

int fuzz_engine_open(int mode, struct fuzz_subject **subject)
{
	struct subject *s = calloc(1, sizeof(*s));
	int error;

	if (!s)
		return -ENOMEM;
	s->subject.type = &types[mode];
	s->options = (struct run_options){.policy = UCOW_POLICY_EXCLUSIVE, .fork = (enum ucow_fork_mode)mode};
	s->subject.tally = s->tally;
	error = choose_ground(s, 0);
	if (error) {
		close_subject(&s->subject);
		return error;
	}
	*subject = &s->subject;
	return 0;
}
