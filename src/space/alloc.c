/* SPDX-License-Identifier: MIT */
/*
 * Frames for spaces: allocated and charged where locks are held, and found room for, by the same thread a moment later,
 * where none is.
 */
#include "base/mutate.h"
#include "space/mm.h"

#include <sched.h>

#define SHORTAGE_RAM ((uint32_t)1 << 16) /* else the number of the group that refused */

/* ---- allocating ---- */

/* Returns: NULL, for the caller to return. */
static struct ucow_page *note_shortage(struct ucow_machine *machine, uint32_t what)
{
	atomic_store_explicit(&machine->shortage[thread_slot()], what, memory_order_relaxed);
	return NULL;
}

static struct ucow_page *alloc_charged(struct ucow_machine *machine, struct ucow_memcg *memcg, enum frame_want want)
{
	struct ucow_memcg *refused;
	struct ucow_page *page;

	if (memcg && !memcg_charge(memcg, &refused))
		return note_shortage(machine, refused->id);
	page = frame_alloc(&machine->frames, want);
	if (page) {
		page->memcg = memcg ? memcg->id : 0;
		return page;
	}
	if (memcg)
		memcg_uncharge_id(&machine->frames, memcg->id);
	return note_shortage(machine, SHORTAGE_RAM);
}

struct ucow_page *mm_lacks_ram(struct ucow_mm *mm)
{
	return note_shortage(mm->machine, SHORTAGE_RAM);
}

struct ucow_page *mm_alloc_charged(struct ucow_mm *mm, enum frame_want want)
{
	return alloc_charged(mm->machine, mm->memcg, want);
}

struct ucow_page *mm_alloc_page_of(struct ucow_machine *machine, struct ucow_mm *mm, uint16_t id, enum frame_want want)
{
	struct ucow_memcg *memcg;
	struct ucow_page *page;

	if (mm && (!id || MUTATED(SWAPIN_CHARGES_FAULTER) || (mm->memcg && mm->memcg->id == id)))
		return mm_alloc_page(mm, want);
	memcg = memcg_hold_id(machine, id, !mm);
	page = memcg || !mm ? alloc_charged(machine, memcg, want) : mm_alloc_page(mm, want);
	memcg_put(memcg);
	return page;
}

/* Why the calling thread's last allocation of a page failed; 0: it was something else. Threads that share a slot share
 * the answer, and it stays. */
static uint32_t shortage_take(struct ucow_machine *machine)
{
	unsigned slot = thread_slot();

	if (slot == THREAD_SLOT_SHARED)
		return atomic_load_explicit(&machine->shortage[slot], memory_order_relaxed);
	return atomic_exchange_explicit(&machine->shortage[slot], 0, memory_order_relaxed);
}

/* ---- room ---- */

#define GRACE_TRIES    3  /* of an operation that lacks other things than pages: only what was put off can help */
#define RELIEVE_TRIES  16 /* in a row that bring no more than RELIEVE_FEW pages */
#define RELIEVE_FEW    8  /* so many may be what the operation itself has just brought back from swap */
#define RELIEVE_PAGES  32 /* reclaimed at a time; twice as many after every RELIEVE_TRIES, RELIEVE_DOUBLE times */
#define RELIEVE_DOUBLE 5
#define RELIEVE_ROUNDS 4096 /* in all: others may take what comes free for ever */

/* Whether threads beside this one may have pages in hand that are neither used nor listed. */
static bool has_others(void)
{
	uint32_t self = (uint32_t)1 << thread_slot(), shared = (uint32_t)1 << THREAD_SLOT_SHARED;

	return !exploring && (self == shared || thread_slots_alive() & ~(self | shared));
}

static uint64_t shrink(struct ucow_machine *machine, struct ucow_memcg *memcg, uint64_t npages)
{
	uint64_t n;

	rwlock_read_lock(&machine->relief_lock);
	n = machine->shrink(machine, memcg, npages);
	rwlock_read_unlock(&machine->relief_lock);
	return n;
}

/* What there is may be in the hands of others who reclaim too: once more when they have finished, alone. */
static uint64_t shrink_alone(struct ucow_machine *machine, struct ucow_memcg *memcg, uint64_t npages)
{
	uint64_t n;

	rwlock_write_lock(&machine->relief_lock);
	n = machine->shrink(machine, memcg, npages);
	rwlock_write_unlock(&machine->relief_lock);
	return n;
}

/* Returns: whether there may be room now, in @memcg or (NULL) in RAM; *progress: enough was found to go on for long. */
static bool make_room(struct ucow_machine *machine, struct ucow_memcg *memcg, unsigned round, bool *progress)
{
	uint64_t npages = (uint64_t)RELIEVE_PAGES << min_u64(round / RELIEVE_TRIES, RELIEVE_DOUBLE);
	uint64_t n = shrink(machine, memcg, npages);

	if (!n && !(memcg && page_counter_fits(&memcg->pages, 1))) {
		if (!machine->frames.lru || !has_others())
			return false;
		n = shrink_alone(machine, memcg, npages);
		if (!n)
			sched_yield();
	}
	*progress = n > RELIEVE_FEW;
	return true;
}

bool machine_relieve(struct ucow_machine *machine, unsigned *tries)
{
	uint32_t short_of = shortage_take(machine);
	struct ucow_memcg *memcg = short_of ? memcg_hold_id(machine, (uint16_t)short_of, false) : NULL;
	unsigned fruitless = *tries & 0xff, rounds = *tries >> 8;
	bool again = false, progress = false;

	if (fruitless < (short_of ? RELIEVE_TRIES : GRACE_TRIES) && rounds < RELIEVE_ROUNDS) {
		again = epoch_synchronize(&machine->epoch);
		if (short_of)
			again |= lru_drain(&machine->frames) || make_room(machine, memcg, rounds, &progress);
	}
	*tries = (rounds + 1) << 8 | (progress ? 0 : fruitless + 1);
	if (memcg)
		memcg_count_refusal(memcg, rounds == 0, !again);
	memcg_put(memcg);
	return again;
}
