/* SPDX-License-Identifier: MIT */
/* Cpus: attaching to a space, and the soft TLB's emptiness. */
#include "space/mm.h"

#include "base/host.h"

#include <errno.h>

/* What a detached cpu's lookups compare with; its TLB is empty, so the value never matters. */
static const uint64_t no_generations[UCOW_TLB_REGIONS];
/*
 * Without membarrier an access must begin with a full fence, which the inline functions do not have: they are given a
 * TLB of one entry that never matches, so that all accesses go through the library.
 */
static struct ucow_tlb_entry no_tlb = {.read_tag = ~(uint64_t)0, .write_tag = ~(uint64_t)0};

static void entry_clear(struct ucow_tlb_entry *entry)
{
	entry->read_tag = entry->write_tag = ~(uint64_t)0;
}

static void tlb_clear(struct ucow_cpu *cpu)
{
	if (cpu->nnoted <= TLB_NOTED)
		for (unsigned i = 0; i < cpu->nnoted; i++)
			entry_clear(&cpu->tlb[cpu->noted[i]]);
	else
		for (unsigned i = 0; i < TLB_DEFAULT_ENTRIES; i++)
			entry_clear(&cpu->tlb[i]);
	cpu->nnoted = 0;
}

int ucow_cpu_create(struct ucow_machine *machine, struct ucow_cpu **result)
{
	struct ucow_cpu *cpu;

	if (inject_fails(&machine->inject, UCOW_INJECT_OTHER))
		return -ENOMEM;
	cpu = host_alloc(sizeof(*cpu));
	if (!cpu)
		return -ENOMEM;
	cpu->machine = machine;
	cpu->fast.tlb = barrier_is_symmetric ? &no_tlb : cpu->tlb;
	cpu->fast.tlb_mask = barrier_is_symmetric ? 0 : TLB_DEFAULT_ENTRIES - 1;
	cpu->fast.generations = no_generations;
	cpu->nnoted = TLB_NOTED + 1;
	tlb_clear(cpu);
	epoch_join(&machine->epoch, &cpu->member, cpu_active(cpu));
	mutex_lock(&machine->lock);
	list_add_tail(&machine->cpus, &cpu->link);
	machine->ncpus++;
	mutex_unlock(&machine->lock);
	*result = cpu;
	return 0;
}

void ucow_cpu_destroy(struct ucow_cpu *cpu)
{
	if (!cpu)
		return;
	ucow_cpu_attach(cpu, NULL);
	epoch_quit(&cpu->machine->epoch, &cpu->member);
	mutex_lock(&cpu->machine->lock);
	list_del(&cpu->link);
	cpu->machine->ncpus--;
	mutex_unlock(&cpu->machine->lock);
	host_free(cpu);
}

/*
 * @mm has other cpus. Faults that began before we were counted may have left a bump out because nobody else could have
 * cached anything: let them end before we look at an entry. [ORD-MASK-1]
 */
static void meet_others(struct ucow_mm *mm)
{
	rwlock_write_lock(&mm->mmap_lock);
	rwlock_write_unlock(&mm->mmap_lock);
	if (!tlb_is_mine(&mm->pt))
		rwlock_spread(&mm->mmap_lock);
}

void ucow_cpu_attach(struct ucow_cpu *cpu, struct ucow_mm *mm)
{
	struct ucow_mm *old = cpu->mm;

	UCOW_BUG_ON(cpu->span_open || (mm && mm->machine != cpu->machine));
	if (old != mm) {
		/* A detached cpu's stale entries would match no_generations; another space's would match by accident.
		 */
		if (!mm || cpu->tlb_serial != mm->serial)
			tlb_clear(cpu);
		cpu->tlb_serial = mm ? mm->serial : 0;
		cpu->walk.leaf = NULL;
	}
	if (mm && old != mm)
		atomic_fetch_add(&mm->attached, 1);
	tlb_attach(&cpu->machine->epoch, &cpu->member, mm ? &mm->pt : NULL, old ? &old->pt : NULL);
	if (old && old != mm)
		atomic_fetch_sub(&old->attached, 1); /* last: the space may go from here on */
	cpu->mm = mm;
	cpu->fast.generations = mm ? mm->pt.generations.of : no_generations;
	if (mm && old != mm && unlikely(atomic_load(&mm->attached) > 1))
		meet_others(mm);
}

struct ucow_mm *ucow_cpu_mm(const struct ucow_cpu *cpu)
{
	return cpu->mm;
}
