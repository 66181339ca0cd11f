/* SPDX-License-Identifier: MIT */
/*
 * ucow_diff: each kind of difference and of no difference by itself, and everything at once against an oracle that
 * looks at every page of both spaces. Spaces are random: trees of forks and strangers, with stores, mappings, moves and
 * pins.
 */
#include "fixture.h"

/* ---- what was visited ---- */

enum { MOST = 512 };

struct visits {
	unsigned n, stop_at; /* stop_at 0: never */
	struct {
		uint64_t va;
		enum ucow_diff_kind kind;
	} of[MOST];
};

static int note(void *arg, uint64_t va, enum ucow_diff_kind kind)
{
	struct visits *visits = arg;

	REQUIRE(visits->n < MOST);
	visits->of[visits->n].va = va;
	visits->of[visits->n].kind = kind;
	return ++visits->n == visits->stop_at ? 77 : 0;
}

static struct visits diff(struct ucow_mm *a, struct ucow_mm *b)
{
	struct visits visits = {0};

	REQUIRE_EQ(ucow_diff(a, b, note, &visits), 0);
	return visits;
}

static enum ucow_diff_kind reversed(enum ucow_diff_kind kind)
{
	if (kind == UCOW_DIFF_DIFFERENT)
		return kind;
	return kind == UCOW_DIFF_ONLY_A ? UCOW_DIFF_ONLY_B : UCOW_DIFF_ONLY_A;
}

/* Exactly these pages, from BASE on, all of one kind; and the same from the other side. */
static void check_pages(struct ucow_mm *a, struct ucow_mm *b, enum ucow_diff_kind kind, const unsigned *pages,
			unsigned n)
{
	struct visits there = diff(a, b), back = diff(b, a);

	CHECK_EQ(there.n, n);
	CHECK_EQ(back.n, n);
	for (unsigned i = 0; i < n; i++) {
		CHECK_EQ(there.of[i].va, BASE + pages[i] * PAGE);
		CHECK_EQ(back.of[i].va, BASE + pages[i] * PAGE);
		CHECK_EQ(there.of[i].kind, kind);
		CHECK_EQ(back.of[i].kind, reversed(kind));
	}
}

#define CHECK_PAGES(a, b, kind, ...)                                                          \
	do {                                                                                  \
		const unsigned pages[] = {__VA_ARGS__};                                       \
		check_pages(a, b, UCOW_DIFF_##kind, pages, sizeof(pages) / sizeof(pages[0])); \
		CHECK_GO_ON();                                                                \
	} while (0)
#define CHECK_SAME(a, b)                                         \
	do {                                                     \
		check_pages(a, b, UCOW_DIFF_DIFFERENT, NULL, 0); \
		CHECK_GO_ON();                                   \
	} while (0)

/* A space with @n private pages, all written, and its fork. */
struct pair {
	struct world w;
	struct ucow_mm *child;
	struct ucow_cpu *cpu; /* on the child */
};

static struct pair open_pair(unsigned n)
{
	struct pair p = {.w = world_open()};

	map_private(p.w.mm, n);
	for (unsigned i = 0; i < n; i++)
		put64(p.w.cpu, BASE + i * PAGE, i + 1);
	p.child = fork_mm(p.w.mm);
	p.cpu = cpu_on(p.child);
	return p;
}

static void close_pair(struct pair *p)
{
	exit_mm(p->cpu, p->child);
	world_close(&p->w);
}

/* ---- one at a time ---- */

TEST(a_space_does_not_differ_from_itself_nor_from_its_fork)
{
	struct pair p = open_pair(40);
	struct ucow_mm *grandchild = fork_mm(p.child);

	CHECK_SAME(p.w.mm, p.w.mm);
	CHECK_SAME(p.w.mm, p.child);
	CHECK_SAME(p.w.mm, grandchild);
	for (unsigned i = 0; i < 40; i++)
		CHECK_EQ(get64(p.cpu, BASE + i * PAGE), i + 1);
	CHECK_SAME(p.w.mm, p.child);
	CHECK_EQ(ucow_mm_destroy(grandchild), 0);
	close_pair(&p);
}

/* Would catch whole leaves reported for one store, and stores of one side only. */
TEST(stores_of_either_side_differ_page_by_page)
{
	struct pair p = open_pair(40);

	put64(p.cpu, BASE + 3 * PAGE, 1);
	put64(p.w.cpu, BASE + 17 * PAGE, 1);
	put64(p.cpu, BASE + 39 * PAGE, 1);
	put64(p.w.cpu, BASE + 39 * PAGE, 1);
	CHECK_PAGES(p.w.mm, p.child, DIFFERENT, 3, 17, 39);
	close_pair(&p);
}

TEST(frames_are_compared_and_not_bytes)
{
	struct pair p = open_pair(2);

	put64(p.cpu, BASE, 1); /* what is there already */
	CHECK_PAGES(p.w.mm, p.child, DIFFERENT, 0);
	close_pair(&p);
}

TEST(the_visitor_ends_the_visits)
{
	struct pair p = open_pair(40);
	struct visits visits = {.stop_at = 2};

	for (unsigned i = 10; i < 30; i++)
		put64(p.cpu, BASE + i * PAGE, 0);
	CHECK_EQ(ucow_diff(p.w.mm, p.child, note, &visits), 77);
	CHECK_EQ(visits.n, 2);
	CHECK(visits.of[0].va == BASE + 10 * PAGE && visits.of[1].va == BASE + 11 * PAGE);
	put64(p.cpu, BASE, 0); /* no lock was left */
	CHECK_EQ(ucow_munmap(p.w.mm, BASE, PAGE), 0);
	close_pair(&p);
}

TEST(spaces_of_two_machines_are_refused)
{
	struct world w = world_open(), other = world_open();
	struct visits visits = {0};

	map_private(w.mm, 1);
	put64(w.cpu, BASE, 1);
	CHECK_EQ(ucow_diff(w.mm, other.mm, note, &visits), -EINVAL);
	CHECK_EQ(visits.n, 0);
	world_close(&other);
	world_close(&w);
}

/* Only what is there counts: page 2 of the parent has the zero page, page 3 has nothing. */
TEST(unmapped_pages_are_only_on_the_other_side)
{
	struct world w = world_open();
	struct ucow_mm *child;

	map_private(w.mm, 8);
	put64(w.cpu, BASE, 1);
	put64(w.cpu, BASE + PAGE, 1);
	put64(w.cpu, BASE + 7 * PAGE, 1);
	CHECK_EQ(get64(w.cpu, BASE + 2 * PAGE), 0);
	child = fork_mm(w.mm);
	CHECK_EQ(ucow_munmap(child, BASE + PAGE, 7 * PAGE), 0);
	CHECK_PAGES(w.mm, child, ONLY_A, 1, 7);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(zeros_are_zeros_with_or_without_the_zero_page)
{
	struct pair p = open_pair(4);

	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(ucow_madvise(i % 2 ? p.child : p.w.mm, BASE + i * PAGE, PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(get64(p.cpu, BASE + PAGE), 0);
	CHECK_PAGES(p.w.mm, p.child, DIFFERENT, 0, 1, 2, 3);
	CHECK_EQ(ucow_madvise(p.child, BASE, 2 * PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(ucow_madvise(p.w.mm, BASE, 2 * PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_EQ(get64(p.w.cpu, BASE), 0);
	CHECK_PAGES(p.w.mm, p.child, DIFFERENT, 2, 3);
	close_pair(&p);
}

TEST(protections_and_advice_are_no_difference)
{
	struct pair p = open_pair(40);

	CHECK_EQ(ucow_mprotect(p.child, BASE, 4 * PAGE, UCOW_PROT_NONE), 0);
	CHECK_EQ(ucow_mprotect(p.w.mm, BASE + 20 * PAGE, PAGE, UCOW_PROT_READ), 0);
	CHECK_EQ(ucow_madvise(p.child, BASE + 30 * PAGE, PAGE, UCOW_MADV_DONTFORK), 0);
	CHECK_SAME(p.w.mm, p.child);
	close_pair(&p);
}

TEST(pages_hidden_from_a_child_differ)
{
	struct world w = world_open();
	struct ucow_mm *child;
	struct visits visits;

	map_private(w.mm, 4);
	for (unsigned i = 0; i < 3; i++)
		put64(w.cpu, BASE + i * PAGE, 1);
	CHECK_EQ(ucow_madvise(w.mm, BASE, PAGE, UCOW_MADV_DONTFORK), 0);
	CHECK_EQ(ucow_madvise(w.mm, BASE + 2 * PAGE, 2 * PAGE, UCOW_MADV_WIPEONFORK), 0);
	child = fork_mm(w.mm);
	visits = diff(w.mm, child);
	CHECK_EQ(visits.n, 2);
	CHECK(visits.of[0].va == BASE && visits.of[0].kind == UCOW_DIFF_ONLY_A);
	CHECK(visits.of[1].va == BASE + 2 * PAGE && visits.of[1].kind == UCOW_DIFF_DIFFERENT);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* The child has a copy of its own from the start. */
TEST(a_pinned_page_differs_after_fork)
{
	struct world w = world_open();
	struct ucow_page *page;
	struct ucow_mm *child;

	map_private(w.mm, 40);
	for (unsigned i = 0; i < 40; i++)
		put64(w.cpu, BASE + i * PAGE, 1);
	page = pin_page(w.cpu, BASE + 20 * PAGE, UCOW_FOLL_WRITE);
	child = fork_mm(w.mm);
	CHECK_PAGES(w.mm, child, DIFFERENT, 20);
	ucow_unpin_user_pages(&page, 1);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

TEST(moved_pages_differ_where_they_were_and_where_they_are)
{
	struct pair p = open_pair(4);
	uint64_t to;
	struct visits visits;

	CHECK_EQ(ucow_mremap(p.child, BASE + PAGE, PAGE, PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED,
			     BASE + ((uint64_t)1 << 40), &to),
		 0);
	visits = diff(p.w.mm, p.child);
	CHECK_EQ(visits.n, 2);
	CHECK(visits.of[0].va == BASE + PAGE && visits.of[0].kind == UCOW_DIFF_ONLY_A);
	CHECK(visits.of[1].va == to && visits.of[1].kind == UCOW_DIFF_ONLY_B);
	close_pair(&p);
}

/* ---- shared mappings ---- */

/* Would catch a comparison by entries: a fork does not copy those of shared mappings. */
TEST(one_shared_mapping_never_differs)
{
	struct world w = world_open();
	struct ucow_mm *child;
	struct ucow_cpu *cpu;

	map_shared(w.mm, 40);
	put64(w.cpu, BASE, 1);
	child = fork_mm(w.mm);
	cpu = cpu_on(child);
	CHECK_SAME(w.mm, child);
	put64(cpu, BASE + 20 * PAGE, 1);
	put64(w.cpu, BASE + 30 * PAGE, 1);
	CHECK_SAME(w.mm, child);
	CHECK_EQ(ucow_madvise(child, BASE, 40 * PAGE, UCOW_MADV_DONTNEED), 0);
	CHECK_SAME(w.mm, child);
	exit_mm(cpu, child);
	world_close(&w);
}

/* What is there is there for everybody who maps it, whoever touched it. */
TEST(a_shared_mapping_of_one_side_differs_where_somebody_touched_it)
{
	struct world w = world_open();
	struct ucow_mm *child, *other;

	map_shared(w.mm, 40);
	other = fork_mm(w.mm);
	child = fork_mm(w.mm);
	ucow_cpu_attach(w.cpu, other);
	put64(w.cpu, BASE + 5 * PAGE, 1);
	ucow_cpu_attach(w.cpu, w.mm);
	put64(w.cpu, BASE + 33 * PAGE, 1);
	CHECK_EQ(ucow_munmap(child, BASE, 40 * PAGE), 0);
	CHECK_PAGES(w.mm, child, ONLY_A, 5, 33);
	map_at(child, BASE, 40, RW, UCOW_MAP_PRIVATE);
	CHECK_PAGES(w.mm, child, DIFFERENT, 5, 33);
	map_at(child, BASE, 40, RW, UCOW_MAP_SHARED);
	CHECK_PAGES(w.mm, child, DIFFERENT, 5, 33);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	CHECK_EQ(ucow_mm_destroy(other), 0);
	world_close(&w);
}

/* Pages 0 to 7 of the object in the parent; 1 to 7 in the child, one page lower, then nothing. */
TEST(one_shared_mapping_at_two_offsets_differs)
{
	struct world w = world_open();
	struct ucow_mm *child;
	struct visits visits;
	uint64_t to;

	map_shared(w.mm, 8);
	child = fork_mm(w.mm);
	put64(w.cpu, BASE + 4 * PAGE, 1);
	CHECK_EQ(ucow_munmap(child, BASE, PAGE), 0);
	CHECK_EQ(ucow_mremap(child, BASE + PAGE, 7 * PAGE, 7 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED,
			     BASE + 64 * PAGE, &to),
		 0);
	CHECK_EQ(ucow_mremap(child, to, 7 * PAGE, 7 * PAGE, UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED, BASE, &to), 0);
	CHECK_PAGES(w.mm, child, DIFFERENT, 3, 4);
	put64(w.cpu, BASE + 7 * PAGE, 1);
	visits = diff(w.mm, child);
	CHECK_EQ(visits.n, 4);
	CHECK(visits.of[2].va == BASE + 6 * PAGE && visits.of[2].kind == UCOW_DIFF_DIFFERENT);
	CHECK(visits.of[3].va == BASE + 7 * PAGE && visits.of[3].kind == UCOW_DIFF_ONLY_A);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* Address order, although one kind of mapping is compared by objects and the other by tables. */
TEST(shared_and_private_differences_come_in_one_order)
{
	struct pair p = open_pair(40);
	unsigned pages[40];

	for (unsigned i = 0; i < 40; i++) {
		pages[i] = i;
		if (i % 3 == 0)
			map_at(p.child, BASE + i * PAGE, 1, RW, UCOW_MAP_SHARED);
		else
			put64(p.cpu, BASE + i * PAGE, 1);
	}
	check_pages(p.w.mm, p.child, UCOW_DIFF_DIFFERENT, pages, 40);
	close_pair(&p);
}

TEST(inserted_memory_is_compared_by_its_address)
{
	static uint64_t device[2][512] __attribute__((aligned(4096)));
	struct world w = world_open();
	struct ucow_mm *child;

	map_at(w.mm, BASE, 4, RW, UCOW_MAP_SHARED | UCOW_MAP_PFN);
	map_at(w.mm, BASE + 4 * PAGE, 4, RW, UCOW_MAP_PRIVATE | UCOW_MAP_PFN);
	CHECK_EQ(ucow_insert_pfn(w.mm, BASE, device[0]), 0);
	CHECK_EQ(ucow_insert_pfn(w.mm, BASE + 4 * PAGE, device[0]), 0);
	child = fork_mm(w.mm);
	CHECK_SAME(w.mm, child);
	CHECK_EQ(ucow_insert_pfn(w.mm, BASE + 2 * PAGE, device[0]), 0);
	CHECK_EQ(ucow_insert_pfn(w.mm, BASE + 5 * PAGE, device[0]), 0);
	CHECK_EQ(ucow_insert_pfn(child, BASE + 5 * PAGE, device[1]), 0);
	CHECK_EQ(ucow_insert_pfn(w.mm, BASE + 6 * PAGE, device[1]), 0);
	CHECK_EQ(ucow_insert_pfn(child, BASE + 6 * PAGE, device[1]), 0);
	CHECK_PAGES(w.mm, child, DIFFERENT, 2, 5);
	CHECK_EQ(ucow_munmap(child, BASE, 8 * PAGE), 0);
	CHECK_PAGES(w.mm, child, ONLY_A, 0, 2, 4, 5, 6);
	CHECK_EQ(ucow_mm_destroy(child), 0);
	world_close(&w);
}

/* ---- looking changes nothing ---- */

TEST(looking_leaves_no_trace)
{
	struct pair p = open_pair(40);
	struct ucow_machine_stat before, after;
	uint64_t faults;

	put64(p.cpu, BASE, 1);
	ucow_machine_stat(p.w.machine, &before);
	faults = counted(&p.w, UCOW_COUNTER_FAULTS);
	CHECK_PAGES(p.w.mm, p.child, DIFFERENT, 0);
	ucow_machine_stat(p.w.machine, &after);
	CHECK(memcmp(&before, &after, sizeof(before)) == 0);
	CHECK_EQ(counted(&p.w, UCOW_COUNTER_FAULTS), faults);
	close_pair(&p);
}

/* ---- everything at once, against an oracle ---- */

/* Pages on both sides of boundaries of tables of every level. */
enum { AREA_PAGES = 40, AREAS = 5, PAGES = AREA_PAGES * AREAS, SPACES = 5, OBJECTS = 4000, PINS = 8 };

static uint64_t address(unsigned page)
{
	static const uint64_t apart[AREAS] = {0, (uint64_t)4 << 20, (uint64_t)128 << 20, (uint64_t)3 << 30,
					      (uint64_t)1 << 40};

	return BASE + apart[page / AREA_PAGES] + page % AREA_PAGES * PAGE;
}

/* What only the test can know: of which object a page of a shared mapping is. */
struct place {
	bool mapped;
	int object; /* 0: private memory */
	unsigned index;
};

struct subject {
	struct ucow_mm *mm; /* NULL: none */
	struct ucow_cpu *cpu;
	struct place at[PAGES];
	struct ucow_entry_info seen[PAGES];
};

struct lab {
	struct world w;
	uint64_t random;
	struct subject subjects[SPACES];
	int objects;
	bool touched[OBJECTS][AREA_PAGES];
	unsigned npins;
	struct ucow_page *pins[PINS];
};

/* How much the random spaces gave to see: an oracle that is never asked is none. */
struct experience {
	unsigned of[UCOW_DIFF_DIFFERENT + 1], common;
};
static struct experience met;

static unsigned pick(struct lab *lab, unsigned n)
{
	return (unsigned)(draw(&lab->random) % n);
}

static void touch(struct lab *lab, const struct place *place)
{
	if (place->object)
		lab->touched[place->object][place->index] = true;
}

/* A run of pages inside one area. */
static unsigned pick_run(struct lab *lab, unsigned *n)
{
	unsigned area = pick(lab, AREAS), first = pick(lab, AREA_PAGES);

	*n = 1 + pick(lab, pick(lab, 3) ? 4 : AREA_PAGES);
	if (*n > AREA_PAGES - first)
		*n = AREA_PAGES - first;
	return area * AREA_PAGES + first;
}

static void do_store(struct lab *lab, struct subject *s)
{
	unsigned page, n;
	uint64_t value = draw(&lab->random);

	page = pick_run(lab, &n);
	for (unsigned i = page; i < page + n; i++)
		if (ucow_write(s->cpu, address(i) + 8 * pick(lab, 512), &value, sizeof(value), NULL) == 0)
			touch(lab, &s->at[i]);
}

static void do_load(struct lab *lab, struct subject *s)
{
	unsigned page, n;
	uint64_t value;

	page = pick_run(lab, &n);
	for (unsigned i = page; i < page + n; i++)
		if (ucow_read(s->cpu, address(i), &value, sizeof(value), NULL) == 0)
			touch(lab, &s->at[i]);
}

static void do_map(struct lab *lab, struct subject *s)
{
	unsigned n, page = pick_run(lab, &n);
	bool shared = pick(lab, 3) == 0;
	int object = shared ? ++lab->objects : 0;

	REQUIRE(lab->objects < OBJECTS);
	map_at(s->mm, address(page), n, RW, shared ? UCOW_MAP_SHARED : UCOW_MAP_PRIVATE);
	for (unsigned i = 0; i < n; i++)
		s->at[page + i] = (struct place){.mapped = true, .object = object, .index = i};
}

static void do_unmap(struct lab *lab, struct subject *s)
{
	unsigned n, page = pick_run(lab, &n);

	REQUIRE_EQ(ucow_munmap(s->mm, address(page), n * PAGE), 0);
	for (unsigned i = page; i < page + n; i++)
		s->at[i] = (struct place){0};
}

/* Holes end these early, and mappings of the other sort are refused: the oracle does not care. */
static void do_protect(struct lab *lab, struct subject *s)
{
	static const unsigned prots[] = {UCOW_PROT_NONE, UCOW_PROT_READ, RW, RW, RW};
	unsigned n, page = pick_run(lab, &n);
	int rc = ucow_mprotect(s->mm, address(page), n * PAGE, prots[pick(lab, 5)]);

	REQUIRE(rc == 0 || rc == -ENOMEM);
}

static void do_advise(struct lab *lab, struct subject *s)
{
	static const enum ucow_advice advices[] = {UCOW_MADV_DONTNEED,  UCOW_MADV_DONTNEED, UCOW_MADV_DONTNEED,
						   UCOW_MADV_DONTFORK,  UCOW_MADV_DOFORK,   UCOW_MADV_WIPEONFORK,
						   UCOW_MADV_KEEPONFORK};
	unsigned n, page = pick_run(lab, &n);
	int rc = ucow_madvise(s->mm, address(page), n * PAGE, advices[pick(lab, 7)]);

	REQUIRE(rc == 0 || rc == -ENOMEM || rc == -EINVAL);
}

static void do_move(struct lab *lab, struct subject *s)
{
	unsigned n, room, from = pick_run(lab, &n), to = pick_run(lab, &room);
	unsigned flags = UCOW_MREMAP_MAYMOVE | UCOW_MREMAP_FIXED | (pick(lab, 4) ? 0 : UCOW_MREMAP_DONTUNMAP);
	uint64_t result;
	int rc;

	n = n < room ? n : room;
	if (from < to + n && to < from + n)
		return;
	rc = ucow_mremap(s->mm, address(from), n * PAGE, n * PAGE, flags, address(to), &result);
	REQUIRE(rc == 0 || rc == -EFAULT || rc == -EINVAL);
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		if (!s->at[from + i].mapped)
			continue; /* a hole between mappings, which takes nothing along */
		s->at[to + i] = s->at[from + i];
		if (!(flags & UCOW_MREMAP_DONTUNMAP))
			s->at[from + i] = (struct place){0};
	}
}

static void do_pin(struct lab *lab, struct subject *s)
{
	unsigned page = pick(lab, PAGES);

	if (lab->npins == PINS) {
		ucow_unpin_user_pages(lab->pins, PINS);
		lab->npins = 0;
	}
	if (ucow_pin_user_pages(s->cpu, address(page), 1, pick(lab, 2) ? UCOW_FOLL_WRITE : 0, &lab->pins[lab->npins]) !=
	    1)
		return;
	lab->npins++;
	touch(lab, &s->at[page]);
}

static void do_exit(struct subject *s)
{
	exit_mm(s->cpu, s->mm);
	*s = (struct subject){0};
}

static struct subject *empty_place(struct lab *lab)
{
	for (unsigned i = 0; i < SPACES; i++)
		if (!lab->subjects[i].mm)
			return &lab->subjects[i];
	do_exit(&lab->subjects[pick(lab, SPACES)]);
	return empty_place(lab);
}

static void do_fork(struct lab *lab, const struct subject *parent)
{
	struct ucow_mm *made = fork_mm(parent->mm);
	struct place at[PAGES];
	struct subject *child;

	memcpy(at, parent->at, sizeof(at));
	child = empty_place(lab); /* the parent may be the one to go */
	child->mm = made;
	child->cpu = cpu_on(made);
	for (unsigned i = 0; i < PAGES; i++)
		child->at[i] = query(made, address(i)).mapped ? at[i] : (struct place){0};
}

static void do_stranger(struct lab *lab)
{
	struct subject *s = empty_place(lab);

	REQUIRE_EQ(ucow_mm_create(lab->w.machine, &s->mm), 0);
	s->cpu = cpu_on(s->mm);
}

static void do_something(struct lab *lab)
{
	struct subject *s;

	do
		s = &lab->subjects[pick(lab, SPACES)];
	while (!s->mm);
	switch (pick(lab, 16)) {
	case 0:
	case 1:
		do_map(lab, s);
		break;
	case 2:
		do_unmap(lab, s);
		break;
	case 3:
		do_protect(lab, s);
		break;
	case 4:
	case 5:
		do_advise(lab, s);
		break;
	case 6:
		do_move(lab, s);
		break;
	case 7:
		do_pin(lab, s);
		break;
	case 8:
	case 9:
		do_fork(lab, s);
		break;
	case 10:
		do_load(lab, s);
		break;
	case 11:
		if (pick(lab, 8) == 0)
			do_stranger(lab);
		break;
	default:
		do_store(lab, s);
		break;
	}
}

/* The memory behind a page, by name; 0: none. */
static uint64_t memory_of(const struct lab *lab, const struct subject *s, unsigned page)
{
	const struct ucow_entry_info *e = &s->seen[page];
	const struct place *place = &s->at[page];

	if (place->object)
		return lab->touched[place->object][place->index]
			       ? (uint64_t)1 << 62 | (uint64_t)place->object << 20 | place->index
			       : 0;
	return e->present && !e->zero_page ? (uint64_t)1 << 61 | e->pfn : 0;
}

/* Returns: whether the page should be visited. */
static bool expected(const struct lab *lab, const struct subject *a, const struct subject *b, unsigned page,
		     enum ucow_diff_kind *kind)
{
	uint64_t in_a = memory_of(lab, a, page), in_b = memory_of(lab, b, page);

	if (a->at[page].mapped && b->at[page].mapped) {
		*kind = UCOW_DIFF_DIFFERENT;
		return in_a != in_b;
	}
	*kind = a->at[page].mapped ? UCOW_DIFF_ONLY_A : UCOW_DIFF_ONLY_B;
	return in_a || in_b;
}

static void look(struct lab *lab)
{
	for (unsigned i = 0; i < SPACES; i++)
		for (unsigned page = 0; lab->subjects[i].mm && page < PAGES; page++) {
			lab->subjects[i].seen[page] = query(lab->subjects[i].mm, address(page));
			REQUIRE_EQ(lab->subjects[i].seen[page].mapped, lab->subjects[i].at[page].mapped);
		}
}

static void compare(const struct lab *lab, const struct subject *a, const struct subject *b)
{
	struct visits visits = diff(a->mm, b->mm);
	unsigned n = 0;

	for (unsigned page = 0; page < PAGES; page++) {
		enum ucow_diff_kind kind;

		if (!expected(lab, a, b, page, &kind)) {
			met.common += memory_of(lab, a, page) != 0 && memory_of(lab, b, page) != 0;
			continue;
		}
		met.of[kind]++;
		CHECK(n < visits.n);
		CHECK_EQ(visits.of[n].va, address(page));
		CHECK_EQ(visits.of[n].kind, kind);
		n++;
	}
	CHECK_EQ(visits.n, n);
}

static bool is_readable(const struct subject *s, unsigned page)
{
	return s->at[page].mapped && (s->seen[page].prot & UCOW_PROT_READ);
}

/* What was not visited reads the same. Reading touches: it comes last, and tells the model. */
static void compare_bytes(struct lab *lab, struct subject *a, struct subject *b)
{
	static const char zeros[PAGE];
	char in_a[PAGE] = {0}, in_b[PAGE] = {0};
	struct visits visits = diff(a->mm, b->mm);
	unsigned n = 0;

	for (unsigned page = 0; page < PAGES; page++) {
		bool a_reads = is_readable(a, page), b_reads = is_readable(b, page);

		if (n < visits.n && visits.of[n].va == address(page)) {
			n++;
			continue;
		}
		if (a_reads)
			CHECK_EQ(ucow_read(a->cpu, address(page), in_a, PAGE, NULL), 0);
		if (b_reads)
			CHECK_EQ(ucow_read(b->cpu, address(page), in_b, PAGE, NULL), 0);
		if (a_reads)
			touch(lab, &a->at[page]);
		if (b_reads)
			touch(lab, &b->at[page]);
		if (a_reads && b_reads)
			CHECK(memcmp(in_a, in_b, PAGE) == 0);
		else if (a_reads && !b->at[page].mapped)
			CHECK(memcmp(in_a, zeros, PAGE) == 0);
		else if (b_reads && !a->at[page].mapped)
			CHECK(memcmp(in_b, zeros, PAGE) == 0);
	}
	CHECK_EQ(n, visits.n);
}

/* ucow_mm_stat's view of the same pages. */
static void check_owners(const struct subject *s)
{
	uint64_t exclusive = 0, shared = 0;
	struct ucow_mm_stat stat;

	for (unsigned page = 0; page < PAGES; page++) {
		exclusive += s->seen[page].anon && s->seen[page].exclusive;
		shared += s->seen[page].anon && s->seen[page].mapcount > 1;
	}
	ucow_mm_stat(s->mm, &stat);
	CHECK_EQ(stat.frames_exclusive, exclusive);
	CHECK_EQ(stat.frames_shared, shared);
	CHECK(exclusive + shared <= stat.rss_anon);
}

static void check_everything(struct lab *lab)
{
	look(lab);
	for (unsigned i = 0; i < SPACES; i++)
		for (unsigned k = 0; k < SPACES; k++)
			if (lab->subjects[i].mm && lab->subjects[k].mm) {
				compare(lab, &lab->subjects[i], &lab->subjects[k]);
				CHECK_GO_ON();
			}
	for (unsigned i = 0; i < SPACES; i++)
		if (lab->subjects[i].mm) {
			check_owners(&lab->subjects[i]);
			CHECK_GO_ON();
		}
	for (unsigned i = 1; i < SPACES; i++)
		if (lab->subjects[i - 1].mm && lab->subjects[i].mm) {
			compare_bytes(lab, &lab->subjects[i - 1], &lab->subjects[i]);
			CHECK_GO_ON();
		}
}

static void run_lab(struct lab *lab, unsigned rounds)
{
	for (unsigned area = 0; area < AREAS; area++) {
		map_at(lab->subjects[0].mm, address(area * AREA_PAGES), AREA_PAGES, RW, UCOW_MAP_PRIVATE);
		for (unsigned i = 0; i < AREA_PAGES; i++)
			lab->subjects[0].at[area * AREA_PAGES + i].mapped = true;
	}
	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < 8; i++)
			do_something(lab);
		check_everything(lab);
		CHECK_GO_ON();
	}
	check_invariants(lab->w.machine);
}

TEST(random_spaces_differ_as_the_oracle_says)
{
	static struct lab lab;

	for (unsigned run = 0; run < 12; run++) {
		uint64_t seed = tap_seed() + run;

		lab = (struct lab){.w = world_open(), .random = seed};
		lab.subjects[0] = (struct subject){.mm = lab.w.mm, .cpu = lab.w.cpu};
		run_lab(&lab, 12);
		if (tap_failed)
			printf("# run %u of seed %" PRIu64 "\n", run, tap_seed());
		CHECK_GO_ON();
		ucow_unpin_user_pages(lab.pins, lab.npins);
		for (unsigned i = 0; i < SPACES; i++)
			if (lab.subjects[i].mm)
				do_exit(&lab.subjects[i]);
		check_balance(lab.w.machine, &lab.w.before);
		CHECK_EQ(ucow_machine_destroy(lab.w.machine), 0);
	}
	printf("# common %u, only one %u and %u, different %u\n", met.common, met.of[UCOW_DIFF_ONLY_A],
	       met.of[UCOW_DIFF_ONLY_B], met.of[UCOW_DIFF_DIFFERENT]);
	CHECK(met.common > 1000 && met.of[UCOW_DIFF_ONLY_A] > 1000 && met.of[UCOW_DIFF_ONLY_B] > 1000);
	CHECK(met.of[UCOW_DIFF_DIFFERENT] > 1000);
}

TAP_MAIN()
