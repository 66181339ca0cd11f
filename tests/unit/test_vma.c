/* SPDX-License-Identifier: MIT */
/*
 * The set of mappings, alone. An address space is drawn as text, one character a page: a letter is a mapping of that
 * kind, '.' nothing, '|' (no page) the border between two mappings that touch.
 *
 *	aaa|aa..ss	two private mappings that touch, two free pages, a shared mapping
 */
#include "space/vma.h"
#include "tap.h"

#include <errno.h>

enum { MAX_NODES = 4096, MAX_PAGES = 512 };
#define LOW  ((uint64_t)0x10000)
#define SIZE UCOW_PAGE_SIZE

static struct vma nodes[MAX_NODES];
static unsigned next_node;
static int objects[2]; /* two things that shared mappings may show */

struct kind {
	char letter;
	unsigned flags;
	void *object;
};

static const struct kind kinds[] = {
	{'a', VMA_READ | VMA_WRITE, NULL},
	{'r', VMA_READ, NULL},
	{'n', 0, NULL},
	{'d', VMA_READ | VMA_WRITE | VMA_DONTCOPY, NULL},
	{'w', VMA_READ | VMA_WRITE | VMA_WIPEONFORK, NULL},
	{'p', VMA_READ | VMA_WRITE | VMA_PFNMAP, NULL},
	{'s', VMA_READ | VMA_WRITE | VMA_SHARED, &objects[0]},
	{'t', VMA_READ | VMA_WRITE | VMA_SHARED, &objects[1]},
};

static const struct kind *kind_of(char letter)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].letter == letter)
			return &kinds[i];
	REQUIRE(!"a letter that stands for a mapping");
	return NULL;
}

static char letter_of(const struct vma *vma)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].flags == vma->flags && kinds[i].object == vma->object)
			return kinds[i].letter;
	return '?';
}

static uint64_t at(uint64_t page)
{
	return LOW + page * SIZE;
}

static uint64_t page_of(uint64_t va)
{
	return (va - LOW) / SIZE;
}

static struct vma *new_node(void)
{
	REQUIRE(next_node < MAX_NODES);
	return &nodes[next_node++];
}

/* A mapping whose first page has the page number @pgoff of what it shows. */
static struct vma *insert_at(struct vma_set *set, uint64_t page, uint64_t npages, char letter, uint64_t pgoff)
{
	struct vma *vma = new_node();

	*vma = (struct vma){.start = at(page),
			    .end = at(page + npages),
			    .pgoff = pgoff,
			    .flags = kind_of(letter)->flags,
			    .object = kind_of(letter)->object};
	vma_insert(set, vma);
	return vma;
}

/* As mmap would: private memory is named by its own page numbers, so that neighbours fit together. */
static struct vma *insert(struct vma_set *set, uint64_t page, uint64_t npages, char letter)
{
	return insert_at(set, page, npages, letter, page);
}

static void build(struct vma_set *set, const char *drawing)
{
	uint64_t page = 0;

	vma_set_init(set, LOW, at(MAX_PAGES));
	for (const char *c = drawing; *c;) {
		uint64_t n = 0;

		if (*c == '|' || *c == '.') {
			page += *c++ == '.';
			continue;
		}
		while (c[n] == *c)
			n++;
		insert(set, page, n, *c);
		page += n;
		c += n;
	}
}

static const char *draw(const struct vma_set *set)
{
	static char text[2 * MAX_PAGES + 1];
	uint64_t page = 0, end = 0;
	char *c = text;

	VMA_FOR_EACH (vma, set) {
		for (; page < page_of(vma->start); page++)
			*c++ = '.';
		if (end && vma->start == end)
			*c++ = '|';
		for (; page < page_of(vma->end); page++)
			*c++ = letter_of(vma);
		end = vma->end;
	}
	*c = 0;
	return text;
}

#define CHECK_DRAWING(set, drawing)                         \
	do {                                                \
		const char *tap_wrong = vma_set_check(set); \
		if (tap_wrong)                              \
			TAP_FAIL("%s", tap_wrong);          \
		CHECK_STR_EQ(draw(set), drawing);           \
	} while (0)

static struct vma *vma_at_page(const struct vma_set *set, uint64_t page)
{
	return vma_at(set, at(page));
}

static void split(struct vma_set *set, uint64_t page)
{
	vma_split(set, vma_at_page(set, page), at(page), new_node());
}

/* ---- finding ---- */

TEST(find_in_an_empty_set)
{
	struct vma_set set;

	build(&set, "");
	CHECK(!vma_first(&set) && !vma_find(&set, 0) && !vma_at(&set, LOW) && !vma_find(&set, UINT64_MAX));
	CHECK(vma_range_is_free(&set, LOW, at(MAX_PAGES)));
	CHECK(!vma_range_is_mapped(&set, LOW, at(1)));
	CHECK_DRAWING(&set, "");
}

/* Would catch off-by-one at either border. */
TEST(find_at_the_borders)
{
	struct vma_set set;
	struct vma *a, *s;

	build(&set, "..aa..ss");
	a = vma_at_page(&set, 2);
	s = vma_at_page(&set, 6);
	CHECK(a && s && a != s);
	CHECK(vma_at(&set, a->start - 1) == NULL && vma_find(&set, a->start - 1) == a);
	CHECK(vma_at(&set, a->end - 1) == a && vma_find(&set, a->end - 1) == a);
	CHECK(vma_at(&set, a->end) == NULL && vma_find(&set, a->end) == s);
	CHECK(vma_at(&set, s->end) == NULL && vma_find(&set, s->end) == NULL);
	CHECK(vma_next(a) == s && vma_prev(s) == a && !vma_prev(a) && !vma_next(s));
}

TEST(ranges_are_free_or_mapped_or_neither)
{
	struct vma_set set;

	build(&set, "..aa|rr..ss");
	CHECK(vma_range_is_mapped(&set, at(2), at(6))); /* across a border */
	CHECK(vma_range_is_mapped(&set, at(3), at(4)));
	CHECK(!vma_range_is_mapped(&set, at(2), at(7)));
	CHECK(!vma_range_is_mapped(&set, at(1), at(3)));
	CHECK(!vma_range_is_mapped(&set, at(2), at(10)));
	CHECK(vma_range_is_free(&set, at(0), at(2)));
	CHECK(vma_range_is_free(&set, at(6), at(8)));
	CHECK(!vma_range_is_free(&set, at(6), at(9)));
	CHECK(!vma_range_is_free(&set, at(1), at(3)));
	CHECK(!vma_range_is_free(&set, at(4), at(5)));
	CHECK(vma_range_is_free(&set, at(10), at(MAX_PAGES)));
}

/* ---- split ---- */

TEST(split_in_the_middle_and_at_each_page)
{
	struct vma_set set;

	build(&set, "..aaaaaa..");
	split(&set, 5);
	CHECK_DRAWING(&set, "..aaa|aaa");
	split(&set, 3);
	CHECK_DRAWING(&set, "..a|aa|aaa");
	split(&set, 7);
	CHECK_DRAWING(&set, "..a|aa|aa|a");
	CHECK_EQ(set.count, 4);
	CHECK_EQ(set.npages, 6);
}

/* The upper part goes on where the lower part ends, also in what it shows. */
TEST(split_keeps_page_numbers_and_attributes)
{
	struct vma_set set;
	struct vma *upper;

	build(&set, "");
	insert_at(&set, 4, 10, 's', 100);
	split(&set, 9);
	upper = vma_at_page(&set, 9);
	CHECK_EQ(upper->pgoff, 105);
	CHECK_EQ(vma_page_index(upper, at(11)), 107);
	CHECK_EQ(vma_page_index(vma_at_page(&set, 4), at(8)), 104);
	CHECK(upper->object == &objects[0] && upper->flags == kind_of('s')->flags);
	CHECK_DRAWING(&set, "....sssss|sssss");
}

/* Would catch a split that drops the note that there are pages: fork would lose them. */
TEST(split_keeps_the_note_of_anon_pages)
{
	struct vma_set set;

	build(&set, "aaaa");
	vma_at_page(&set, 0)->has_anon = true;
	split(&set, 2);
	CHECK(vma_at_page(&set, 0)->has_anon && vma_at_page(&set, 2)->has_anon);
}

/* ---- merge ---- */

TEST(merge_with_the_successor)
{
	struct vma_set set;
	struct vma *lower, *upper;

	build(&set, "..aaa|aa.");
	lower = vma_at_page(&set, 2);
	upper = vma_at_page(&set, 5);
	CHECK(vma_merge_next(&set, lower) == upper);
	CHECK_DRAWING(&set, "..aaaaa");
	CHECK(vma_at_page(&set, 6) == lower);
	CHECK(vma_merge_next(&set, lower) == NULL);
}

/* The kernel's order: before, behind, and both sides at once. */
TEST(merge_on_all_sides)
{
	struct vma_set set;

	build(&set, "aaa......");
	insert(&set, 3, 2, 'a'); /* behind a mapping */
	CHECK(vma_merge_next(&set, vma_at_page(&set, 0)) != NULL);
	CHECK_DRAWING(&set, "aaaaa");
	insert(&set, 8, 2, 'a');
	insert(&set, 7, 1, 'a'); /* before one */
	CHECK(vma_merge_next(&set, vma_at_page(&set, 7)) != NULL);
	CHECK_DRAWING(&set, "aaaaa..aaa");
	insert(&set, 5, 2, 'a'); /* between two */
	CHECK(vma_merge_next(&set, vma_at_page(&set, 0)) != NULL);
	CHECK(vma_merge_next(&set, vma_at_page(&set, 0)) != NULL);
	CHECK_DRAWING(&set, "aaaaaaaaaa");
	CHECK_EQ(set.count, 1);
}

/* A hole of one page is a hole. */
TEST(merge_needs_touching_borders)
{
	struct vma_set set;

	build(&set, "aa.aa");
	CHECK(vma_merge_next(&set, vma_at_page(&set, 0)) == NULL);
	CHECK_DRAWING(&set, "aa.aa");
}

/* Every pair of flags: alike merges, unlike does not. */
TEST(every_difference_of_flags_prevents_a_merge)
{
	enum { ALL = VMA_READ | VMA_WRITE | VMA_SHARED | VMA_PFNMAP | VMA_DONTCOPY | VMA_WIPEONFORK };

	for (unsigned a = 0; a <= ALL; a++)
		for (unsigned b = 0; b <= ALL; b++) {
			struct vma lower = {.start = at(0), .end = at(2), .pgoff = 0, .flags = a};
			struct vma upper = {.start = at(2), .end = at(3), .pgoff = 2, .flags = b};

			CHECK_EQ(vma_can_merge(&lower, &upper), a == b);
		}
}

TEST(different_objects_and_offsets_prevent_a_merge)
{
	struct vma_set set;

	build(&set, "");
	insert_at(&set, 0, 2, 's', 0);
	insert_at(&set, 2, 2, 't', 2);
	CHECK(vma_merge_next(&set, vma_at_page(&set, 0)) == NULL); /* another object */
	insert_at(&set, 4, 2, 't', 5);
	CHECK(vma_merge_next(&set, vma_at_page(&set, 2)) == NULL); /* a page of the object is skipped */
	insert_at(&set, 6, 2, 't', 6);
	CHECK(vma_merge_next(&set, vma_at_page(&set, 4)) == NULL); /* a page of the object comes twice */
	insert_at(&set, 8, 2, 't', 8);
	CHECK(vma_merge_next(&set, vma_at_page(&set, 6)) != NULL);
	insert_at(&set, 10, 1, 'a', 3); /* moved here: its pages are named by where they were first */
	insert_at(&set, 11, 1, 'a', 11);
	CHECK(vma_merge_next(&set, vma_at_page(&set, 10)) == NULL);
	CHECK_DRAWING(&set, "ss|tt|tt|tttt|a|a");
}

/* Would catch a merge after which fork believes that there are no pages. */
TEST(merge_keeps_the_note_of_anon_pages)
{
	for (int which = 0; which < 2; which++) {
		struct vma_set set;

		build(&set, "aa|aa");
		vma_at_page(&set, which ? 2 : 0)->has_anon = true;
		CHECK(vma_merge_next(&set, vma_at_page(&set, 0)) != NULL);
		CHECK(vma_at_page(&set, 0)->has_anon);
	}
}

/* Would catch a merge after which a grandchild gets entries of memory that its grandparent's child never wrote. */
TEST(inherited_pages_stay_apart)
{
	enum { NONE, OWN, INHERITED, KINDS };
	static const bool merges[KINDS][KINDS] = {
		[NONE] = {true, true, false},
		[OWN] = {true, true, false},
		[INHERITED] = {false, false, true},
	};

	for (int lower = 0; lower < KINDS; lower++)
		for (int upper = 0; upper < KINDS; upper++) {
			struct vma_set set;

			build(&set, "aa|aa");
			vma_at_page(&set, 0)->has_anon = lower != NONE;
			vma_at_page(&set, 0)->inherited = lower == INHERITED;
			vma_at_page(&set, 2)->has_anon = upper != NONE;
			vma_at_page(&set, 2)->inherited = upper == INHERITED;
			CHECK_EQ(vma_merge_next(&set, vma_at_page(&set, 0)) != NULL, merges[lower][upper]);
		}
}

TEST(split_and_merge_are_inverse)
{
	struct vma_set set;

	build(&set, "..ssssssss..");
	for (uint64_t page = 3; page < 10; page++) {
		split(&set, page);
		CHECK_EQ(set.count, 2);
		CHECK(vma_merge_next(&set, vma_at_page(&set, 2)) != NULL);
		CHECK_DRAWING(&set, "..ssssssss");
	}
}

/* mprotect of the middle and back: r in the middle, then one mapping again. */
TEST(protect_the_middle_and_back)
{
	struct vma_set set;

	build(&set, "aaaaaa");
	split(&set, 2);
	split(&set, 4);
	vma_at_page(&set, 2)->flags = kind_of('r')->flags;
	CHECK_DRAWING(&set, "aa|rr|aa");
	CHECK(vma_merge_next(&set, vma_at_page(&set, 0)) == NULL);
	CHECK(vma_merge_next(&set, vma_at_page(&set, 2)) == NULL);
	vma_at_page(&set, 2)->flags = kind_of('a')->flags;
	CHECK(vma_merge_next(&set, vma_at_page(&set, 0)) != NULL);
	CHECK(vma_merge_next(&set, vma_at_page(&set, 0)) != NULL);
	CHECK_DRAWING(&set, "aaaaaa");
}

TEST(grow_takes_the_room_behind)
{
	struct vma_set set;

	build(&set, "aa...r");
	vma_grow(&set, vma_at_page(&set, 0), at(4));
	CHECK_DRAWING(&set, "aaaa.r");
	vma_grow(&set, vma_at_page(&set, 0), at(5));
	CHECK_DRAWING(&set, "aaaaa|r");
	vma_grow(&set, vma_at_page(&set, 5), at(9));
	CHECK_DRAWING(&set, "aaaaa|rrrr");
	CHECK_EQ(set.npages, 9);
}

TEST(remove_leaves_the_neighbours)
{
	struct vma_set set;

	build(&set, "aa|rr|ss..n");
	vma_remove(&set, vma_at_page(&set, 2));
	CHECK_DRAWING(&set, "aa..ss..n");
	vma_remove(&set, vma_at_page(&set, 0));
	CHECK_DRAWING(&set, "....ss..n");
	vma_remove(&set, vma_at_page(&set, 8));
	vma_remove(&set, vma_at_page(&set, 4));
	CHECK_DRAWING(&set, "");
	CHECK_EQ(set.count + set.npages, 0);
}

/* ---- room ---- */

static int64_t room(const struct vma_set *set, uint64_t npages, uint64_t align_pages)
{
	uint64_t va = 0;
	int rc = vma_find_room(set, npages * SIZE, align_pages * SIZE, &va);

	return rc ? rc : (int64_t)page_of(va);
}

TEST(room_is_the_lowest_that_fits)
{
	struct vma_set set;

	build(&set, ".aa..r...s");
	CHECK_EQ(room(&set, 1, 1), 0);
	CHECK_EQ(room(&set, 2, 1), 3);
	CHECK_EQ(room(&set, 3, 1), 6);
	CHECK_EQ(room(&set, 4, 1), 10);
	CHECK_EQ(room(&set, MAX_PAGES - 10, 1), 10);
	CHECK_EQ(room(&set, MAX_PAGES - 9, 1), -ENOMEM);
	CHECK_EQ(room(&set, UINT64_MAX / SIZE, 1), -ENOMEM);
}

TEST(room_in_an_empty_and_in_a_full_set)
{
	struct vma_set set;

	build(&set, "");
	CHECK_EQ(room(&set, MAX_PAGES, 1), 0);
	CHECK_EQ(room(&set, MAX_PAGES + 1, 1), -ENOMEM);
	insert(&set, 0, MAX_PAGES, 'a');
	CHECK_EQ(room(&set, 1, 1), -ENOMEM);
}

/* A gap that is large enough, but not from an aligned address on, is passed over. LOW is 16 pages up. */
TEST(room_is_aligned)
{
	struct vma_set set;

	build(&set, "a.........a...................a");
	CHECK_EQ(room(&set, 8, 8), 16);
	CHECK_EQ(room(&set, 2, 8), 8);
	CHECK_EQ(room(&set, 9, 16), 16);
	CHECK_EQ(room(&set, 20, 16), 32);
}

/* ---- random, against a plain array ---- */

struct oracle {
	struct vma_set set;
	struct vma *owner[MAX_PAGES]; /* by page; NULL: free */
	uint64_t state;
};

static uint64_t draw_below(struct oracle *o, uint64_t n)
{
	uint64_t z = o->state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % n;
}

static bool is_free(const struct oracle *o, uint64_t page, uint64_t n)
{
	for (uint64_t i = page; i < page + n; i++)
		if (o->owner[i])
			return false;
	return true;
}

static bool is_mapped(const struct oracle *o, uint64_t page, uint64_t n)
{
	for (uint64_t i = page; i < page + n; i++)
		if (!o->owner[i])
			return false;
	return true;
}

static void claim(struct oracle *o, uint64_t page, uint64_t end, struct vma *vma)
{
	for (; page < end; page++)
		o->owner[page] = vma;
}

static int64_t oracle_room(const struct oracle *o, uint64_t n, uint64_t align)
{
	for (uint64_t page = 0; page + n <= MAX_PAGES; page++)
		if (at(page) % (align * SIZE) == 0 && is_free(o, page, n))
			return (int64_t)page;
	return -ENOMEM;
}

static void compare_pages(struct oracle *o)
{
	struct vma *next = NULL;

	for (uint64_t page = MAX_PAGES; page--;) {
		if (o->owner[page])
			next = o->owner[page];
		CHECK(vma_at(&o->set, at(page) + 5) == o->owner[page]);
		CHECK(vma_find(&o->set, at(page) + 5) == next);
	}
}

static void compare_ranges(struct oracle *o)
{
	for (int i = 0; i < 8; i++) {
		uint64_t page = draw_below(o, MAX_PAGES), n = 1 + draw_below(o, MAX_PAGES - page);
		uint64_t align = (uint64_t)1 << draw_below(o, 5);

		CHECK_EQ(vma_range_is_free(&o->set, at(page), at(page + n)), is_free(o, page, n));
		CHECK_EQ(vma_range_is_mapped(&o->set, at(page), at(page + n)), is_mapped(o, page, n));
		CHECK_EQ(room(&o->set, n, align), oracle_room(o, n, align));
		n = 1 + n % 6;
		CHECK_EQ(room(&o->set, n, align), oracle_room(o, n, align));
	}
}

static void random_insert(struct oracle *o, uint64_t page)
{
	uint64_t n = 1 + draw_below(o, 9);

	if (page + n > MAX_PAGES || !is_free(o, page, n) || next_node > MAX_NODES - 10)
		return;
	claim(o, page, page + n, insert(&o->set, page, n, "arnds"[draw_below(o, 5)]));
}

static void random_split(struct oracle *o, struct vma *vma)
{
	uint64_t n = (vma->end - vma->start) / SIZE, page;

	if (n < 2 || next_node > MAX_NODES - 10)
		return;
	page = page_of(vma->start) + 1 + draw_below(o, n - 1);
	split(&o->set, page);
	claim(o, page, page_of(vma_at_page(&o->set, page)->end), vma_at_page(&o->set, page));
}

static void random_step(struct oracle *o)
{
	uint64_t page = draw_below(o, MAX_PAGES), end;
	struct vma *vma = o->owner[page];

	if (!vma)
		return random_insert(o, page);
	switch (draw_below(o, 6)) {
	case 0:
		vma_remove(&o->set, vma);
		claim(o, page_of(vma->start), page_of(vma->end), NULL);
		return;
	case 1:
	case 2:
		return random_split(o, vma);
	case 3:
		end = page_of(vma->end) + 1 + draw_below(o, 3);
		if (end > MAX_PAGES || !is_free(o, page_of(vma->end), end - page_of(vma->end)))
			return;
		vma_grow(&o->set, vma, at(end));
		claim(o, page_of(vma->start), end, vma);
		return;
	default:
		vma_merge_next(&o->set, vma);
		claim(o, page_of(vma->start), page_of(vma->end), vma);
		return;
	}
}

TEST(random_operations_agree_with_an_array)
{
	for (uint64_t round = 0; round < 6; round++) {
		static struct oracle o;

		memset(&o, 0, sizeof(o));
		next_node = 0;
		o.state = tap_seed() + round;
		vma_set_init(&o.set, LOW, at(MAX_PAGES));
		for (unsigned step = 0; step < 1500; step++) {
			const char *wrong;

			random_step(&o);
			wrong = vma_set_check(&o.set);
			CHECK_STR_EQ(wrong ? wrong : "", "");
			if (step % 20 == 0) {
				compare_pages(&o);
				CHECK_GO_ON();
				compare_ranges(&o);
				CHECK_GO_ON();
			}
		}
	}
}

/* Would catch a checker that checks nothing: each kind of damage must be seen. */
TEST(the_checker_sees_damage)
{
	struct vma_set set;
	struct vma *vma;

	build(&set, "aa..rr..ss");
	vma = vma_at_page(&set, 4);
	CHECK(!vma_set_check(&set));
	vma->gap++;
	CHECK(vma_set_check(&set));
	vma->gap--;
	vma->max_gap += 100;
	CHECK(vma_set_check(&set));
	vma->max_gap -= 100;
	vma->end = vma->start;
	CHECK(vma_set_check(&set));
	vma->end = at(6);
	vma->end += 3 * SIZE;
	CHECK(vma_set_check(&set));
	vma->end -= 3 * SIZE;
	set.npages++;
	CHECK(vma_set_check(&set));
	set.npages--;
	set.count--;
	CHECK(vma_set_check(&set));
	set.count++;
	CHECK(!vma_set_check(&set));
}

TAP_MAIN()
