/* SPDX-License-Identifier: MIT */
/*
 * The whole-machine check: recount everything that is counted from the tables, and hold the invariants against every
 * entry, page and cached translation. The ids are listed in docs/invariants.md.
 */
#include "base/host.h"
#include "cache/cache.h"
#include "fault/fault.h"
#include "swap/swap.h"

#include <ucow/debug.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

/* What names a memory group: frames and slots that are charged to it or (within) also to groups below it; members. */
struct memcg_tally {
	uint64_t frames, frames_within, slots, slots_within, spaces;
};

struct check {
	struct ucow_machine *machine;
	struct ucow_mm *mm;                 /* the space being walked */
	uint32_t *maps;                     /* by frame number: entries found that map it */
	uint32_t *slots[UCOW_SWAP_DEVICES]; /* by swap slot: entries found that name it */
	struct memcg_tally *memcgs;         /* by number; [0]: of no group */
	const char *family;                 /* what is wrong with one; or NULL */
	const struct ucow_page *homeless;   /* a page whose home is not where it is; or NULL */
	uint64_t table_bytes;
	uint64_t merged_zero; /* entries */
	uint64_t pins, accounted_pins, gets;
	char *why;
	size_t nbytes;
};

static int __attribute__((format(printf, 3, 4))) broken(struct check *check, const char *id, const char *format, ...)
{
	va_list args;
	int n = snprintf(check->why, check->nbytes, "%s: ", id);

	va_start(args, format);
	if (n >= 0 && (size_t)n < check->nbytes)
		vsnprintf(check->why + n, check->nbytes - (size_t)n, format, args);
	va_end(args);
	return -EUCLEAN;
}

/* ---- entries ---- */

/* Somebody must know of the protection, to lift it again. */
static int check_protection(struct check *check, const struct vma *vma, uint64_t va, struct pte pte)
{
	if (pte_is_uffd_wp(pte) && !(vma->flags & VMA_UFFD_WP))
		return broken(check, "INV-UFFD-2", "va %#lx: write-protected entry of a mapping that nobody watches",
			      va);
	return 0;
}

static int check_permissions(struct check *check, const struct vma *vma, uint64_t va, struct pte pte)
{
	if (!vma_is_accessible(vma) && !pte_is_protnone(pte) && !pte_is_marker(pte))
		return broken(check, "INV-PT-2", "va %#lx: accessible entry of a mapping without permissions", va);
	if (!pte_is_writable(pte))
		return check_protection(check, vma, va, pte);
	if (!(vma->flags & VMA_WRITE) || (pte_is_protnone(pte) && !check->machine->policy->numa_keeps_write))
		return broken(check, "INV-PT-2", "va %#lx: writable entry of a read-only mapping", va);
	if (pte_is_uffd_wp(pte))
		return broken(check, "INV-UFFD-1", "va %#lx: write-protected entry is writable", va);
	if (needs_soft_dirty(vma, pte))
		return broken(check, "INV-DIRTY-1", "va %#lx: writable, but a store would not be noted", va);
	if (vma_is_cow(vma) && pte_is_special(pte))
		return broken(check, "INV-COW-1", "va %#lx: private entry without a page is writable", va);
	return 0;
}

static int check_exclusivity(struct check *check, const struct vma *vma, uint64_t va, struct pte pte,
			     const struct ucow_page *page, bool is_private)
{
	bool exclusive = page_is(page, PAGE_EXCLUSIVE);

	if (page_is(page, PAGE_KSM) && (exclusive || pte_is_writable(pte)))
		return broken(check, "INV-KSM-1", "va %#lx: merged page is exclusive or writable", va);
	if (!check->machine->policy->uses_exclusive)
		return 0;
	if (vma_is_cow(vma) && pte_is_writable(pte) && !exclusive)
		return broken(check, "INV-COW-1", "va %#lx: writable anon entry is not exclusive", va);
	if (exclusive && page_mapcount(page) != 1)
		return broken(check, "INV-COW-3", "va %#lx: exclusive page has mapcount %u", va, page_mapcount(page));
	if (page_is(page, PAGE_KSM) && page_pincount(page))
		return broken(check, "INV-KSM-1", "va %#lx: merged page is pinned", va);
	if (exclusive && !is_private && page_refcount(page) != 1u + page_is(page, PAGE_SWAPCACHE))
		return broken(check, "INV-TABLE-2", "va %#lx: exclusive page under a shared table has %u references",
			      va, page_refcount(page));
	if (page_is(page, PAGE_ANON) && page_pincount(page) && !exclusive)
		return broken(check, "INV-PIN-1", "va %#lx: pinned anon page is not exclusive", va);
	return 0;
}

/* Exclusivity lives in the entry while the page is out; the page in the cache has no flag then (semantics.md 0.1, 5).
 */
static int check_swap_entry(struct check *check, const struct vma *vma, uint64_t va, struct pte pte, bool is_private)
{
	struct swap *swap = machine_swap(check->machine);
	struct swap_entry entry = pte_swap_entry(pte);
	const struct swap_device *device = swap ? swap_device_of(swap, entry) : NULL;
	const struct swap_slot *slot;

	(void)is_private;
	if (!vma_is_cow(vma))
		return broken(check, "INV-SWAP-1", "va %#lx: a swap entry in a shared mapping", va);
	if (!device || swap_entry_slot(entry) >= device->nslots)
		return broken(check, "INV-SWAP-1", "va %#lx: an entry names a slot that does not exist", va);
	slot = &device->slots[swap_entry_slot(entry)];
	if (slot->page && page_is(slot->page, PAGE_EXCLUSIVE) && !page_mapcount(slot->page))
		return broken(check, "INV-SWAP-2", "va %#lx: the page of a swap entry has its exclusive flag set", va);
	if (pte_swap_is_exclusive(pte) && slot->count != 1)
		return broken(check, "INV-SWAP-2", "va %#lx: exclusive swap entry, but %u name the slot", va,
			      slot->count);
	return 0;
}

/* The page is in the mapping's cache, as the number that the address has there; what may be stored to is dirty (B.8).
 */
static int check_cached(struct check *check, const struct vma *vma, uint64_t va, struct pte pte)
{
	const struct ucow_page *page = pte_page(&check->machine->frames, pte);

	if (!vma->object || cache_of(page) != vma->object || page->index != vma_page_index(vma, va))
		return broken(check, "INV-CACHE-2", "va %#lx: a page that is not the one of the file there", va);
	if (vma_is_tracked(vma) && pte_is_writable(pte) && !page_is(page, PAGE_DIRTY))
		return broken(check, "INV-CACHE-3", "va %#lx: may be stored to, and the page is clean", va);
	return 0;
}

static int check_entry(struct check *check, const struct vma *vma, uint64_t va, struct pte pte, bool is_private)
{
	const struct frame_pool *frames = &check->machine->frames;
	int error = check_permissions(check, vma, va, pte);

	if (!error && pte_is_swap(pte))
		return check_swap_entry(check, vma, va, pte, is_private);
	if (error || !pte_has_page(pte))
		return error;
	if (pte_is_locked(pte) != !!(vma->flags & VMA_LOCKED))
		return broken(check, "INV-MLOCK-1", "va %#lx: entry and mapping do not agree on being locked", va);
	if (pte_kind(pte) == PTE_KIND_ANON && !vma->has_anon)
		return broken(check, "INV-VMA-2", "va %#lx: anon page in a mapping that claims to have none", va);
	if (pte_frame(pte) >= frames->npages || !page_refcount(&frames->pages[pte_frame(pte)]))
		return broken(check, "INV-FRAME-2", "va %#lx maps frame %lu, which is free", va, pte_frame(pte));
	if (pte_kind(pte) == PTE_KIND_SHARED && check_cached(check, vma, va, pte))
		return -EUCLEAN;
	return check_exclusivity(check, vma, va, pte, pte_page(frames, pte), is_private);
}

/* ---- snapshot groups ---- */

struct kept {
	const struct frame_pool *frames;
	uint8_t *seen; /* by frame number */
	int64_t pages; /* seen for the first time */
};

static int mark_pages(void *arg, struct table *table, uint64_t start, bool is_private)
{
	struct kept *kept = arg;

	(void)is_private;
	for (uint64_t va = start; !table->level && va < start + table_span(0); va += UCOW_PAGE_SIZE) {
		struct pte pte = leaf_get(table, va);

		if (pte_kind(pte) != PTE_KIND_ANON || pte_frame(pte) >= kept->frames->npages)
			continue;
		kept->pages += !kept->seen[pte_frame(pte)];
		kept->seen[pte_frame(pte)] = 1;
	}
	return 0;
}

/* How many pages the group's snapshots map and its live space does not. Returns: -1: no memory to count. */
static int64_t recount_kept(struct check *check, struct ucow_snapshot_group *group)
{
	struct kept kept = {.frames = &check->machine->frames, .seen = host_alloc(check->machine->frames.npages)};

	if (!kept.seen)
		return -1;
	table_walk(&group->live->pt, mark_pages, &kept);
	kept.pages = 0;
	LIST_FOR_EACH (link, &group->members) {
		struct snapshot *snapshot = container_of(link, struct snapshot, link);

		table_walk(&container_of(snapshot, struct ucow_mm, snapshot)->pt, mark_pages, &kept);
	}
	host_free(kept.seen);
	return kept.pages;
}

/* Requires: nothing changes meanwhile, as for the rest of the check. */
static int check_group(struct check *check, struct ucow_snapshot_group *group)
{
	int64_t sum = 0, pages;

	LIST_FOR_EACH (link, &group->members)
		sum += container_of(link, struct snapshot, link)->charge;
	if (sum != page_counter_usage(&group->kept))
		return broken(check, "INV-SNAP-1", "a group is charged %ld pages, its snapshots %ld",
			      page_counter_usage(&group->kept), sum);
	/* Which pages are whose cannot be recounted where some are out. */
	if (!group->recountable || machine_swap(check->machine))
		return 0;
	pages = recount_kept(check, group);
	if (pages >= 0 && pages != sum)
		return broken(check, "INV-SNAP-1", "a group is charged %ld pages, recounted %ld", sum, pages);
	return 0;
}

/* ---- tables ---- */

/* A get or a pin that a lazy fork has to see. */
static bool holds_reference(const struct check *check, struct pte pte)
{
	const struct ucow_page *page;

	if (pte_kind(pte) != PTE_KIND_ANON)
		return false;
	page = pte_page(&check->machine->frames, pte);
	return page_is(page, PAGE_EXCLUSIVE) && page_refcount(page) > 1u + page_is(page, PAGE_SWAPCACHE);
}

static int check_leaf(struct check *check, struct table *leaf, uint64_t start, bool is_private)
{
	unsigned used = 0, anon = 0, file = 0, swap = 0;
	uint32_t wp = 0;
	int error = 0;

	for (unsigned i = 0; i < table_fanout(0) && !error; i++) {
		uint64_t va = start + i * UCOW_PAGE_SIZE;
		struct pte pte = leaf_get(leaf, va);
		const struct vma *vma = vma_at(&check->mm->vmas, va);

		if (pte_is_none(pte))
			continue;
		if (!vma)
			return broken(check, "INV-PT-1", "va %#lx: an entry outside every mapping", va);
		used++;
		wp |= (uint32_t)pte_is_uffd_wp(pte) << i;
		anon += pte_kind(pte) == PTE_KIND_ANON;
		file += pte_kind(pte) == PTE_KIND_SHARED;
		swap += pte_kind(pte) == PTE_KIND_SWAP;
		error = check_entry(check, vma, va, pte, is_private);
		if (!error && holds_reference(check, pte) && !(leaf->hints & TABLE_MAY_HOLD_REFS))
			return broken(check, "INV-TABLE-2", "va %#lx: a reference below a table without a mark", va);
	}
	if (!error && (used != leaf->used || anon != leaf->anon || file != leaf->file || swap != leaf->swap))
		return broken(check, "INV-TABLE-1", "leaf at %#lx: totals %u/%u/%u/%u, recounted %u/%u/%u/%u", start,
			      leaf->used, leaf->anon, leaf->file, leaf->swap, used, anon, file, swap);
	if (!error && wp != leaf_wp_mask(leaf))
		return broken(check, "INV-TABLE-1", "leaf at %#lx: write-protected %#x, recounted %#x", start,
			      leaf_wp_mask(leaf), wp);
	return error;
}

static int check_table(void *arg, struct table *table, uint64_t start, bool is_private)
{
	struct check *check = arg;

	if ((table->hints & TABLE_MAY_HOLD_REFS) && !is_private)
		return broken(check, "INV-TABLE-2", "table of level %u at %#lx may hold references and is shared",
			      table->level, start);
	return table->level ? 0 : check_leaf(check, table, start, is_private);
}

static void recount_slot(struct check *check, struct swap_entry entry, uint32_t n)
{
	struct swap *swap = machine_swap(check->machine);
	const struct swap_device *device = swap ? swap_device_of(swap, entry) : NULL;

	if (device && swap_entry_slot(entry) < device->nslots && check->slots[swap_entry_device(entry)])
		check->slots[swap_entry_device(entry)][swap_entry_slot(entry)] += n;
}

/*
 * Whether a walk from @page finds the entry in @slot of @leaf: the page's home is that slot, by one of the families
 * that the leaf belongs to. Merged pages are found by the homes that their node lists.
 */
static bool is_at_home(const struct table *leaf, int slot, const struct ucow_page *page)
{
	for (const struct kin *kin = leaf_kin(leaf); kin; kin = kin->next)
		if (kin->family && kin->family == page->mapping && page->home + kin->shift == slot)
			return true;
	return page_is(page, PAGE_KSM);
}

static void check_home(struct check *check, const struct table *leaf, uint64_t va, struct pte pte)
{
	const struct ucow_page *page;

	if (exploring || pte_kind(pte) != PTE_KIND_ANON || pte_frame(pte) >= check->machine->frames.npages)
		return;
	page = pte_page(&check->machine->frames, pte);
	if (!is_at_home(leaf, leaf_slot(va), page))
		check->homeless = page;
}

static void check_families(struct check *check, const struct table *leaf)
{
	for (const struct kin *kin = leaf_kin(leaf); kin && kin->family; kin = kin->next) {
		const char *wrong = family_check(kin->family);

		check->family = wrong ? wrong : check->family;
	}
}

/* Once for each table, however many spaces see it: the pages of a leaf are counted for `accounted` paths. */
static void recount_table(void *arg, struct table *table)
{
	struct check *check = arg;

	check->table_bytes += table_size(table->level);
	if (!table->level)
		check_families(check, table);
	for (uint64_t va = 0; !table->level && va < table_span(0); va += UCOW_PAGE_SIZE) {
		struct pte pte = leaf_get(table, va);

		if (pte_has_page(pte) && pte_frame(pte) < check->machine->frames.npages)
			check->maps[pte_frame(pte)] += table->accounted;
		check_home(check, table, va, pte);
		if (pte_is_swap(pte))
			recount_slot(check, pte_swap_entry(pte), table->accounted);
		check->merged_zero += pte_is_merged_zero(pte);
	}
}

static int check_watch(struct check *check, struct ucow_mm *mm)
{
	VMA_FOR_EACH (vma, &mm->vmas) {
		if (!vma->uffd != !(vma->flags & VMA_UFFD))
			return broken(check, "INV-UFFD-2", "va %#lx: watched by nobody, or for nothing", vma->start);
		if (vma->uffd && atomic_load(&vma->uffd->mm) != mm)
			return broken(check, "INV-UFFD-2", "va %#lx: watched by another space's userfaultfd",
				      vma->start);
	}
	return 0;
}

static int check_space(struct check *check, struct ucow_mm *mm)
{
	const char *wrong = vma_set_check(&mm->vmas);
	struct pin_account *account = atomic_load(&mm->account);

	if (wrong)
		return broken(check, "INV-VMA-1", "%s", wrong);
	if (check_watch(check, mm))
		return -EUCLEAN;
	check->mm = mm;
	check->memcgs[mm->memcg ? mm->memcg->id : 0].spaces++;
	if (mm->group && !mm->read_only && check_group(check, mm->group))
		return -EUCLEAN;
	if (account)
		check->accounted_pins += pin_account_count(account);
	return table_walk(&mm->pt, check_table, check);
}

/* ---- cached translations ---- */

static bool is_current(const struct ucow_cpu *cpu, const struct ucow_tlb_entry *entry)
{
	return entry->read_tag != ~(uint64_t)0 &&
	       entry->generation == generation_read(&cpu->mm->pt.generations, entry->read_tag);
}

/* Rule 5: an empty entry of readable private memory may be cached as the zero page, read-only. */
static bool reads_zeros(const struct check *check, const struct ucow_cpu *cpu, const struct ucow_tlb_entry *entry,
			struct pte pte)
{
	uint64_t va = entry->read_tag;
	const struct vma *vma = vma_at(&cpu->mm->vmas, va);

	return pte_is_none(pte) && vma && vma_is_cow(vma) && !vma->object && vma_is_accessible(vma) &&
	       entry->write_tag == ~(uint64_t)0 &&
	       entry->addend + va == (uintptr_t)page_bytes(check->machine->frames.zero_page);
}

static int check_translation(struct check *check, const struct ucow_cpu *cpu, const struct ucow_tlb_entry *entry)
{
	uint64_t va = entry->read_tag;
	struct walk walk = table_walk_path(&cpu->mm->pt, va);
	struct pte pte = walk.leaf ? leaf_get(walk.leaf, va) : pte_none();

	if (cpu->mm->read_only && entry->write_tag == va)
		return broken(check, "INV-SNAP-2", "va %#lx: cached for writing in a snapshot", va);
	if (reads_zeros(check, cpu, entry, pte))
		return 0;
	if (!pte_is_present(pte) || pte_is_protnone(pte))
		return broken(check, "INV-TLB-1", "va %#lx: a cached translation that a walk would refuse", va);
	if ((uintptr_t)pte_host(&check->machine->frames, pte) != entry->addend + va)
		return broken(check, "INV-TLB-1", "va %#lx: a cached translation to another page", va);
	if (entry->write_tag == va && !(pte_is_writable(pte) && pte_is_dirty(pte) && walk.is_private))
		return broken(check, "INV-TLB-1", "va %#lx: cached for writing, the entry is not", va);
	return 0;
}

static int check_cpu(struct check *check, const struct ucow_cpu *cpu)
{
	int error = 0;

	for (unsigned i = 0; cpu->mm && i < TLB_DEFAULT_ENTRIES && !error; i++)
		if (is_current(cpu, &cpu->tlb[i]))
			error = check_translation(check, cpu, &cpu->tlb[i]);
	return error;
}

/* ---- memory groups ---- */

/* A frame says whom it is charged to: a group that is known, and nobody if it is free. */
static int check_tag(struct check *check, uint64_t pfn, const struct ucow_page *page)
{
	if (page->memcg > check->machine->memcgs.last)
		return broken(check, "INV-MEMCG-1", "frame %lu is charged to group %u, of %u", pfn, page->memcg,
			      check->machine->memcgs.last);
	if (page->memcg && !page_refcount(page))
		return broken(check, "INV-MEMCG-1", "frame %lu is free and charged to group %u", pfn, page->memcg);
	check->memcgs[page->memcg].frames++;
	return 0;
}

static int check_memcg(struct check *check, const struct ucow_memcg *memcg)
{
	const struct memcg_tally *tally = &check->memcgs[memcg->id];

	if (page_counter_usage(&memcg->pages) != (int64_t)tally->frames_within)
		return broken(check, "INV-MEMCG-1", "group %u is charged %ld pages, recounted %lu", memcg->id,
			      page_counter_usage(&memcg->pages), tally->frames_within);
	if (page_counter_usage(&memcg->swap) != (int64_t)tally->slots_within)
		return broken(check, "INV-MEMCG-1", "group %u is charged %ld slots, recounted %lu", memcg->id,
			      page_counter_usage(&memcg->swap), tally->slots_within);
	if (memcg->spaces != tally->spaces)
		return broken(check, "INV-MEMCG-1", "group %u has %lu spaces, recounted %lu", memcg->id, memcg->spaces,
			      tally->spaces);
	return 0;
}

/* Requires: all frames, slots and spaces have been tallied. */
static int check_memcgs(struct check *check)
{
	struct ucow_machine *machine = check->machine;
	uint64_t known = check->memcgs[0].frames;
	struct ucow_memcg *memcg = NULL;
	int error = 0;

	while ((memcg = memcg_next(machine, memcg))) {
		known += check->memcgs[memcg->id].frames;
		for (const struct ucow_memcg *above = memcg; above; above = above->parent) {
			check->memcgs[above->id].frames_within += check->memcgs[memcg->id].frames;
			check->memcgs[above->id].slots_within += check->memcgs[memcg->id].slots;
		}
	}
	if (known != machine->frames.next_block * FRAME_BLOCK_PAGES)
		return broken(check, "INV-MEMCG-1", "frames are charged to groups that do not exist");
	while (!error && (memcg = memcg_next(machine, memcg)))
		error = check_memcg(check, memcg);
	memcg_put(memcg);
	return error;
}

/* ---- frames ---- */

/* References = mappings + pins x bias + the object's; what remains are gets, compared in total. */
static int check_frame(struct check *check, uint64_t pfn)
{
	const struct ucow_page *page = &check->machine->frames.pages[pfn];
	uint64_t known, refs = page_refcount(page);
	const char *wrong;

	if (page_mapcount(page) != check->maps[pfn])
		return broken(check, "INV-FRAME-1", "frame %lu: mapcount %u, recounted %u", pfn, page_mapcount(page),
			      check->maps[pfn]);
	if (!refs || page_is(page, PAGE_ZERO))
		return 0;
	wrong = page_is(page, PAGE_KSM) ? check->machine->ksm_ops->check(check->machine, page) : NULL;
	if (wrong)
		return broken(check, "INV-KSM-2", "frame %lu, a merged page, %s", pfn, wrong);
	known = check->maps[pfn] + (uint64_t)page_pincount(page) * UCOW_GUP_PIN_COUNTING_BIAS + cache_is_in(page) +
		page_is(page, PAGE_SWAPCACHE);
	if (refs < known)
		return broken(check, "INV-FRAME-1", "frame %lu: %lu references, at least %lu are needed", pfn, refs,
			      known);
	check->gets += refs - known;
	check->pins += page_pincount(page);
	return 0;
}

static int check_sums(struct check *check)
{
	struct ucow_machine_stat stat;
	const char *wrong = buddy_check(&check->machine->frames);

	ucow_machine_stat(check->machine, &stat);
	if (wrong)
		return broken(check, "INV-FRAME-3", "%s", wrong);
	if (check->gets != stat.gets)
		return broken(check, "INV-FRAME-1", "%lu gets on the frames, %lu outstanding", check->gets, stat.gets);
	if (check->pins != stat.pins)
		return broken(check, "INV-PIN-3", "%lu pins on the frames, %lu outstanding", check->pins, stat.pins);
	if (check->accounted_pins > stat.pins)
		return broken(check, "INV-PIN-3", "spaces account for %lu pins, %lu outstanding", check->accounted_pins,
			      stat.pins);
	if (check->merged_zero != atomic_load(&check->machine->tables.merged_zero))
		return broken(check, "INV-KSM-3", "%lu merged pages of zeros, recounted %lu",
			      atomic_load(&check->machine->tables.merged_zero), check->merged_zero);
	if (check->table_bytes != stat.table_bytes)
		return broken(check, "INV-TABLE-1", "%lu bytes of tables in use, %lu reachable", stat.table_bytes,
			      check->table_bytes);
	return 0;
}

static int check_frames(struct check *check)
{
	struct frame_pool *frames = &check->machine->frames;
	int error = 0;

	for (uint64_t pfn = 0; pfn < frames->next_block * FRAME_BLOCK_PAGES && !error; pfn++) {
		error = check_tag(check, pfn, &frames->pages[pfn]);
		if (!error)
			error = check_frame(check, pfn);
	}
	return error;
}

/* [INV-SWAP-1] A slot is named as often as it says, and has a page or a name; a page in the cache and its slot agree.
 */
static int check_slot(struct check *check, unsigned number, const struct swap_device *device, uint64_t at)
{
	const struct swap_slot *slot = &device->slots[at];
	bool taken = device->taken[at / 64] >> at % 64 & 1;

	if (slot->count != check->slots[number][at])
		return broken(check, "INV-SWAP-1", "slot %u:%lu is named %u times, recounted %u", number, at,
			      slot->count, check->slots[number][at]);
	if (taken != (slot->count || slot->page) || taken != !!(slot->flags & SLOT_USED))
		return broken(check, "INV-SWAP-1", "slot %u:%lu is taken for nothing, or named and free", number, at);
	if (slot->memcg > check->machine->memcgs.last || (slot->memcg && !taken))
		return broken(check, "INV-MEMCG-1", "slot %u:%lu is charged to group %u, of %u, or free", number, at,
			      slot->memcg, check->machine->memcgs.last);
	check->memcgs[slot->memcg].slots++;
	if (slot->page && page_swap_entry(slot->page).v != swap_entry_make(number, at).v)
		return broken(check, "INV-SWAP-3", "slot %u:%lu has a page that has another slot", number, at);
	return 0;
}

static int check_devices(struct check *check)
{
	struct swap *swap = machine_swap(check->machine);
	const char *wrong = lru_check(&check->machine->frames);
	uint64_t used = 0, cached = 0;
	int error = 0;

	if (wrong)
		return broken(check, "INV-LRU-1", "%s", wrong);
	for (unsigned i = 0; swap && i < UCOW_SWAP_DEVICES && !error; i++) {
		const struct swap_device *device = &swap->devices[i];

		used = cached = 0;
		for (uint64_t at = 0; at < device->nslots && !error; at++) {
			error = check_slot(check, i, device, at);
			used += device->slots[at].flags & SLOT_USED;
			cached += device->slots[at].page != NULL;
		}
		if (!error && (used != device->used || cached != device->cached))
			error = broken(check, "INV-SWAP-1",
				       "device %u: %lu slots used and %lu cached, recounted %lu and %lu", i,
				       device->used, device->cached, used, cached);
	}
	return error;
}

static int check_caches(struct check *check)
{
	int error = 0;

	LIST_FOR_EACH (link, &check->machine->caches) {
		const char *wrong = cache_check(container_of(link, struct cache, link));

		if (wrong && !error)
			error = broken(check, "INV-CACHE-1", "%s", wrong);
	}
	return error;
}

/* [INV-CACHE-4] A mapping of a file is in the list that its cache has for the space, and nothing else is. */
static int check_users(struct check *check, struct ucow_mm *mm)
{
	uint64_t listed = 0;

	VMA_FOR_EACH (vma, &mm->vmas) {
		if (!vma->file != !vma->user || (vma->user && (vma->user->mm != mm || vma->user->cache != vma->object)))
			return broken(check, "INV-CACHE-4", "the mapping at %#lx is not listed by its file",
				      vma->start);
		listed += vma->user != NULL;
	}
	LIST_FOR_EACH (user, &mm->file_users)
		LIST_FOR_EACH (link, &container_of(user, struct cache_user, of_space)->mappings) {
			const struct vma *vma = cache_mapping(link);

			if (vma_at(&mm->vmas, vma->start) != vma)
				return broken(check, "INV-CACHE-4", "a file lists a mapping that is not there");
			listed--;
		}
	return listed ? broken(check, "INV-CACHE-4", "a file does not list a mapping") : 0;
}

/* Returns: 0; -ENOMEM. */
static int open_slots(struct check *check)
{
	struct swap *swap = machine_swap(check->machine);

	for (unsigned i = 0; swap && i < UCOW_SWAP_DEVICES; i++) {
		const struct swap_device *device = &swap->devices[i];

		if (!swap_device_is_there(device))
			continue;
		check->slots[i] = host_alloc(device->nslots * sizeof(uint32_t));
		if (!check->slots[i])
			return -ENOMEM;
	}
	return 0;
}

static void close_slots(struct check *check)
{
	for (unsigned i = 0; i < UCOW_SWAP_DEVICES; i++)
		host_free(check->slots[i]);
}

static int check_tables(struct check *check)
{
	const char *wrong = NULL;

	LIST_FOR_EACH (link, &check->machine->spaces)
		table_tally(&container_of(link, struct ucow_mm, link)->pt, recount_table, check);
	LIST_FOR_EACH (link, &check->machine->spaces) {
		const char *found = table_verify(&container_of(link, struct ucow_mm, link)->pt);

		wrong = wrong ? wrong : found;
	}
	if (!wrong && check->family)
		return broken(check, "INV-RMAP-1", "%s", check->family);
	if (!wrong && check->homeless)
		return broken(check, "INV-RMAP-1", "frame %lu: an entry that no walk from the page finds",
			      page_to_pfn(check->homeless));
	return wrong ? broken(check, "INV-TABLE-1", "%s", wrong) : 0;
}

int ucow_machine_check(struct ucow_machine *machine, char *why, size_t nbytes)
{
	struct check check = {.machine = machine, .why = why, .nbytes = nbytes};
	int error = 0;

	check.maps = host_alloc(machine->frames.npages * sizeof(*check.maps));
	check.memcgs = host_alloc((machine->memcgs.last + 1) * sizeof(*check.memcgs));
	if (!check.maps || !check.memcgs || open_slots(&check)) {
		close_slots(&check);
		host_free(check.maps);
		host_free(check.memcgs);
		return -ENOMEM;
	}
	if (nbytes)
		why[0] = '\0';
	pressure_ops.settle(machine);
	if (machine->frames.lru)
		lru_drain(&machine->frames);
	epoch_synchronize(&machine->epoch); /* what waits for a grace period would look like a reference too many */
	mutex_lock(&machine->lock);
	error = check_tables(&check);
	LIST_FOR_EACH (link, &machine->spaces) {
		if (error)
			break;
		error = check_space(&check, container_of(link, struct ucow_mm, link));
		if (!error)
			error = check_users(&check, container_of(link, struct ucow_mm, link));
	}
	LIST_FOR_EACH (link, &machine->cpus) {
		if (error)
			break;
		error = check_cpu(&check, container_of(link, struct ucow_cpu, link));
	}
	mutex_unlock(&machine->lock);
	if (!error)
		error = check_caches(&check);
	if (!error)
		error = check_frames(&check);
	if (!error)
		error = check_devices(&check);
	if (!error)
		error = check_memcgs(&check);
	if (!error)
		error = check_sums(&check);
	close_slots(&check);
	host_free(check.maps);
	host_free(check.memcgs);
	return error;
}
