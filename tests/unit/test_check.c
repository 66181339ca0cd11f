/* SPDX-License-Identifier: MIT */
/*
 * The whole-machine check checked: each kind of damage is done to a sound machine, must be reported under its
 * invariant's id, and is repaired again. Would catch a checker that looks away.
 */
#include "fixture.h"

#include "fault/fault.h"

/* A parent and a child that share a page; a page of the parent's own; a pinned one; shared memory; a read-only range.
 */
struct patient {
	struct world w;
	struct ucow_mm *child;
	struct ucow_page *pin;
};

enum { SHARED_PAGE = 0, OWN_PAGE = 1, PINNED_PAGE = 2, READONLY_PAGE = 3, ZERO_PAGE = 4, HIDDEN_PAGE = 5, MAPPED = 6 };

static uint64_t at(unsigned page)
{
	return BASE + page * PAGE;
}

static struct patient open_patient(void)
{
	struct patient p = {.w = world_open()};
	uint64_t value;

	map_private(p.w.mm, MAPPED);
	for (unsigned i = 0; i < MAPPED; i++)
		if (i != ZERO_PAGE)
			put64(p.w.cpu, at(i), i);
	p.child = fork_mm(p.w.mm);
	for (unsigned i = OWN_PAGE; i < MAPPED; i++)
		if (i != ZERO_PAGE)
			put64(p.w.cpu, at(i), i + 10);
	p.pin = pin_page(p.w.cpu, at(PINNED_PAGE), UCOW_FOLL_WRITE);
	REQUIRE_EQ(ucow_mprotect(p.w.mm, at(READONLY_PAGE), PAGE, UCOW_PROT_READ), 0);
	REQUIRE_EQ(ucow_mprotect(p.w.mm, at(HIDDEN_PAGE), PAGE, UCOW_PROT_NONE), 0);
	REQUIRE_EQ(ucow_load_u64(p.w.cpu, at(ZERO_PAGE), &value), 0);
	REQUIRE_EQ(ucow_load_u64(p.w.cpu, at(OWN_PAGE), &value), 0);
	check_invariants(p.w.machine);
	return p;
}

static void close_patient(struct patient *p)
{
	ucow_unpin_user_pages(&p->pin, 1);
	REQUIRE_EQ(ucow_mm_destroy(p->child), 0);
	world_close(&p->w);
}

static struct table *leaf_of(const struct patient *p, unsigned page)
{
	struct table *leaf = table_find_leaf(&p->w.mm->pt, at(page));

	REQUIRE(leaf != NULL);
	return leaf;
}

static struct pte entry(const struct patient *p, unsigned page)
{
	return leaf_get(leaf_of(p, page), at(page));
}

/* Past leaf_set, which would keep the totals. */
static void overwrite(const struct patient *p, unsigned page, struct pte pte)
{
	atomic_store(&leaf_of(p, page)->slots[(at(page) >> UCOW_PAGE_SHIFT) % table_fanout(0)], pte.v);
}

static struct ucow_page *page_at(const struct patient *p, unsigned page)
{
	return pte_page(&p->w.machine->frames, entry(p, page));
}

static bool reported(const struct patient *p, const char *id)
{
	char why[300] = "";
	int rc = ucow_machine_check(p->w.machine, why, sizeof(why));

	if (rc == -EUCLEAN && strncmp(why, id, strlen(id)) == 0 && why[strlen(id)] == ':')
		return true;
	printf("# wanted %s, got %d: %s\n", id, rc, why);
	return false;
}

static bool sound(const struct patient *p)
{
	return ucow_machine_check(p->w.machine, NULL, 0) == 0;
}

/* ---- entries ---- */

static void check_entry_damage(unsigned page, struct pte (*damage)(struct pte pte), const char *id)
{
	struct patient p = open_patient();
	struct pte pte = entry(&p, page);

	ucow_cpu_attach(p.w.cpu, NULL); /* translations would be wrong as well */
	overwrite(&p, page, damage(pte));
	CHECK(reported(&p, id));
	overwrite(&p, page, pte);
	CHECK(sound(&p));
	ucow_cpu_attach(p.w.cpu, p.w.mm);
	close_patient(&p);
}

TEST(writable_entry_of_a_shared_page_is_reported)
{
	check_entry_damage(SHARED_PAGE, pte_mkwrite, "INV-COW-1");
}

TEST(writable_zero_page_is_reported)
{
	check_entry_damage(ZERO_PAGE, pte_mkwrite, "INV-COW-1");
}

TEST(writable_entry_of_a_readonly_mapping_is_reported)
{
	check_entry_damage(READONLY_PAGE, pte_mkwrite, "INV-PT-2");
}

TEST(accessible_entry_of_a_hidden_mapping_is_reported)
{
	check_entry_damage(HIDDEN_PAGE, pte_clear_protnone, "INV-PT-2");
}

static struct pte write_protect_by_uffd(struct pte pte)
{
	return (struct pte){pte.v | PTE_UFFD_WP};
}

TEST(writable_entry_with_uffd_wp_is_reported)
{
	check_entry_damage(OWN_PAGE, write_protect_by_uffd, "INV-UFFD-1");
}

TEST(protection_that_nobody_asked_for_is_reported)
{
	check_entry_damage(READONLY_PAGE, write_protect_by_uffd, "INV-UFFD-2");
}

TEST(mapping_watched_for_nothing_is_reported)
{
	struct patient p = open_patient();
	struct vma *vma = vma_at(&p.w.mm->vmas, at(OWN_PAGE));

	vma->flags |= VMA_UFFD_MISSING;
	CHECK(reported(&p, "INV-UFFD-2"));
	vma->flags &= ~(unsigned)VMA_UFFD_MISSING;
	CHECK(sound(&p));
	close_patient(&p);
}

static struct pte wild_frame(struct pte pte)
{
	return (struct pte){pte.v | PTE_FRAME_MASK};
}

TEST(entry_of_a_frame_that_is_not_there_is_reported)
{
	check_entry_damage(SHARED_PAGE, wild_frame, "INV-FRAME-2");
}

static struct pte empty(struct pte pte)
{
	(void)pte;
	return pte_none();
}

TEST(lost_entry_is_reported)
{
	check_entry_damage(OWN_PAGE, empty, "INV-TABLE-1");
}

/* An entry where no mapping is: the mapping ends one page too early. */
TEST(entry_outside_every_mapping_is_reported)
{
	struct patient p = open_patient();
	struct vma *vma = vma_at(&p.w.mm->vmas, at(HIDDEN_PAGE));

	ucow_cpu_attach(p.w.cpu, NULL);
	vma_remove(&p.w.mm->vmas, vma);
	CHECK(reported(&p, "INV-PT-1"));
	vma_insert(&p.w.mm->vmas, vma);
	CHECK(sound(&p));
	ucow_cpu_attach(p.w.cpu, p.w.mm);
	close_patient(&p);
}

/* ---- pages ---- */

static void check_flag_damage(unsigned page, uint32_t flag, const char *id)
{
	struct patient p = open_patient();
	struct ucow_page *damaged = page_at(&p, page);
	uint32_t flags = atomic_load(&damaged->flags);

	atomic_store(&damaged->flags, flags ^ flag);
	CHECK(reported(&p, id));
	atomic_store(&damaged->flags, flags);
	CHECK(sound(&p));
	close_patient(&p);
}

TEST(exclusive_flag_of_a_shared_page_is_reported)
{
	check_flag_damage(SHARED_PAGE, PAGE_EXCLUSIVE, "INV-COW-3");
}

TEST(lost_exclusive_flag_of_a_writable_page_is_reported)
{
	check_flag_damage(OWN_PAGE, PAGE_EXCLUSIVE, "INV-COW-1");
}

TEST(exclusive_merged_page_is_reported)
{
	check_flag_damage(OWN_PAGE, PAGE_KSM, "INV-KSM-1");
}

/* Read-only, so that the pin is what the flag is missed for. */
TEST(pinned_page_without_the_flag_is_reported)
{
	struct patient p = open_patient();
	struct ucow_page *page = page_at(&p, PINNED_PAGE);

	CHECK_EQ(ucow_mprotect(p.w.mm, at(PINNED_PAGE), PAGE, UCOW_PROT_READ), 0);
	CHECK(sound(&p));
	page_clear(page, PAGE_EXCLUSIVE);
	CHECK(reported(&p, "INV-PIN-1"));
	page_set(page, PAGE_EXCLUSIVE);
	close_patient(&p);
}

static void check_count_damage(uint64_t word, uint32_t mapcount, const char *id)
{
	struct patient p = open_patient();
	struct ucow_page *page = page_at(&p, SHARED_PAGE);

	atomic_fetch_add(&page->word, word);
	atomic_fetch_add(&page->mapcount, mapcount);
	CHECK(reported(&p, id));
	atomic_fetch_sub(&page->word, word);
	atomic_fetch_sub(&page->mapcount, mapcount);
	CHECK(sound(&p));
	close_patient(&p);
}

TEST(leaked_reference_is_reported)
{
	check_count_damage(1, 0, "INV-FRAME-1");
}

TEST(lost_reference_is_reported)
{
	check_count_damage((uint64_t)-1, 0, "INV-FRAME-1");
}

TEST(wrong_mapcount_is_reported)
{
	check_count_damage(0, 1, "INV-FRAME-1");
	check_count_damage(0, (uint32_t)-1, "INV-FRAME-1");
}

/* A pin that no space accounts for. */
TEST(wrong_pin_count_is_reported)
{
	struct patient p = open_patient();
	struct ucow_page *page = page_at(&p, PINNED_PAGE);

	atomic_fetch_add(&page->word, PAGE_ONE_PIN);
	CHECK(reported(&p, "INV-PIN-3"));
	atomic_fetch_sub(&page->word, PAGE_ONE_PIN);
	CHECK(sound(&p));
	close_patient(&p);
}

/* ---- tables, mappings, translations ---- */

TEST(wrong_table_reference_is_reported)
{
	struct patient p = open_patient();
	struct table *leaf = leaf_of(&p, SHARED_PAGE);

	atomic_fetch_add(&leaf->refcount, 1);
	CHECK(reported(&p, "INV-TABLE-1"));
	atomic_fetch_sub(&leaf->refcount, 1);
	leaf->anon++;
	CHECK(reported(&p, "INV-TABLE-1"));
	leaf->anon--;
	leaf->used++;
	CHECK(reported(&p, "INV-TABLE-1"));
	leaf->used--;
	CHECK(sound(&p));
	close_patient(&p);
}

TEST(wrong_table_account_is_reported)
{
	struct patient p = open_patient();

	atomic_fetch_add(&p.w.machine->tables.bytes, 64);
	CHECK(reported(&p, "INV-TABLE-1"));
	atomic_fetch_sub(&p.w.machine->tables.bytes, 64);
	close_patient(&p);
}

TEST(damaged_set_of_mappings_is_reported)
{
	struct patient p = open_patient();

	p.w.mm->vmas.npages++;
	CHECK(reported(&p, "INV-VMA-1"));
	p.w.mm->vmas.npages--;
	close_patient(&p);
}

/* Each way in which a cached translation can be stronger than a walk. */
TEST(stale_translations_are_reported)
{
	struct patient p = open_patient();
	struct pte pte = entry(&p, OWN_PAGE);
	uint64_t value;

	CHECK_EQ(ucow_store_u64(p.w.cpu, at(OWN_PAGE), 1), 0); /* cached for writing */
	overwrite(&p, OWN_PAGE, pte_wrprotect(pte));
	CHECK(reported(&p, "INV-TLB-1"));
	overwrite(&p, OWN_PAGE, pte_mkclean(pte));
	CHECK(reported(&p, "INV-TLB-1"));
	overwrite(&p, OWN_PAGE, pte);
	CHECK(sound(&p));
	tlb_invalidate(&p.w.mm->pt.generations, at(OWN_PAGE), at(OWN_PAGE) + PAGE);
	CHECK_EQ(ucow_load_u64(p.w.cpu, at(ZERO_PAGE), &value), 0); /* cached for reading */
	pte = entry(&p, ZERO_PAGE);
	overwrite(&p, ZERO_PAGE, pte_mk_protnone(pte));
	CHECK(reported(&p, "INV-TLB-1"));
	overwrite(&p, ZERO_PAGE, pte);
	CHECK(sound(&p));
	close_patient(&p);
}

TEST(translation_to_another_page_is_reported)
{
	struct patient p = open_patient();
	struct ucow_tlb_entry *cached = NULL;
	uint64_t value;

	CHECK_EQ(ucow_load_u64(p.w.cpu, at(OWN_PAGE), &value), 0);
	for (unsigned i = 0; i < TLB_DEFAULT_ENTRIES; i++)
		if (p.w.cpu->tlb[i].read_tag == at(OWN_PAGE))
			cached = &p.w.cpu->tlb[i];
	CHECK(cached != NULL);
	cached->addend += PAGE;
	CHECK(reported(&p, "INV-TLB-1"));
	cached->addend -= PAGE;
	CHECK(sound(&p));
	close_patient(&p);
}

/* ---- what no public call shows ---- */

/* The page's own dirty flag: writeback will ask for it, the entry's dirty bit says nothing about what a device wrote.
 */
TEST(unpin_dirty_marks_the_page_and_plain_unpin_does_not)
{
	struct patient p = open_patient();
	struct ucow_page *page = p.pin, *second = pin_page(p.w.cpu, at(PINNED_PAGE), UCOW_FOLL_WRITE);

	CHECK(second == page);
	page_clear(page, PAGE_DIRTY);
	ucow_unpin_user_pages(&second, 1);
	CHECK(!page_is(page, PAGE_DIRTY));
	second = pin_page(p.w.cpu, at(PINNED_PAGE), UCOW_FOLL_WRITE);
	ucow_unpin_user_pages_dirty_lock(&second, 1, false);
	CHECK(!page_is(page, PAGE_DIRTY));
	second = pin_page(p.w.cpu, at(PINNED_PAGE), UCOW_FOLL_WRITE);
	ucow_unpin_user_pages_dirty_lock(&second, 1, true);
	CHECK(page_is(page, PAGE_DIRTY));
	close_patient(&p);
}

TAP_MAIN()
