/* SPDX-License-Identifier: MIT */
/*
 * Running a program on the engine and on the model side by side: every operation's results are compared, then the
 * contents of every page of every space, what every pin and get sees, and the engine's own accounts.
 *
 * Looking must not disturb: a page is loaded through a cpu only in programs that say so (program.looks); otherwise only
 * present pages are looked at, by their frame numbers, for a reference would unshare tables and leave a mark.
 */
#include "runner.h"
#include "litmus/flat.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <ucow/ucow.h>

/* 16 pages below a 2 MiB boundary, so that the busy pages lie in two leaf tables under two upper ones. */
#define WINDOW_VPN ((uint64_t)0x40000000 / MODEL_PAGE - 16)

struct run {
	const struct program *program;
	struct outcome *outcome;
	bool judges_bytes;   /* policy exclusive: the model is right about every byte */
	bool judges_entries; /* and about the entries, in eager mode */
	bool may_stay_own;   /* lazy mode: what nobody else looked at is exclusive again when the others have gone */
	bool pressure;
	bool failed;
	struct model m;
	struct ucow_machine *machine;
	const uint8_t *ram; /* of the host, where frame 0 lies */
	struct {
		struct ucow_mm *mm;
		struct ucow_cpu *cpus[2];
	} spaces[MODEL_SPACES];
	struct ucow_page *pages[MODEL_HANDLES][MODEL_HANDLE_PAGES];
};

static void __attribute__((format(printf, 2, 3))) differ(struct run *r, const char *format, ...)
{
	va_list args;

	if (r->failed)
		return;
	r->failed = true;
	va_start(args, format);
	vsnprintf(r->outcome->why, sizeof(r->outcome->why), format, args);
	va_end(args);
}

static void same(struct run *r, const char *what, int64_t engine, int64_t model)
{
	if (engine != model)
		differ(r, "%s: engine %lld, model %lld", what, (long long)engine, (long long)model);
}

static void same_at(struct run *r, const char *what, unsigned space, uint64_t vpn, int64_t engine, int64_t model)
{
	if (engine != model)
		differ(r, "S%u page [%lld] %s: engine %lld, model %lld", space, (long long)(vpn - WINDOW_VPN), what,
		       (long long)engine, (long long)model);
}

static struct ucow_cpu *cpu_of(const struct run *r, const struct op *op)
{
	return r->spaces[op->space].cpus[!!(op->flags & F_CPU2)];
}

/* Page numbers of the window are addresses in it; higher ones count the pages that mremap moved somewhere else. */
static uint64_t place(struct run *r, unsigned space, unsigned at)
{
	struct model_space *s = &r->m.spaces[space];
	unsigned outside = 0;

	if (at < PROGRAM_WINDOW)
		return WINDOW_VPN + at;
	for (unsigned i = 0; i < MODEL_SLOTS; i++)
		if (s->pages[i].mapped && s->pages[i].vpn - WINDOW_VPN >= 2 * PROGRAM_WINDOW &&
		    outside++ == at - PROGRAM_WINDOW)
			return s->pages[i].vpn;
	return WINDOW_VPN + at;
}

static void pattern(uint8_t *buffer, uint64_t nbytes, uint64_t value)
{
	for (uint64_t i = 0; i < nbytes; i++)
		buffer[i] = (uint8_t)(value >> (8 * (i % 8))) ^ (uint8_t)(i / 8);
}

/* ---- comparing ---- */

static void compare_bytes(struct run *r, unsigned space, const struct model_page *p, const uint8_t *engine)
{
	const uint8_t *model = model_content(&r->m, p);

	for (unsigned i = 0; r->judges_bytes && i < MODEL_PAGE; i++)
		if (engine[i] != model[i]) {
			differ(r, "S%u page [%lld] byte %u: engine %#x, model %#x", space,
			       (long long)(p->vpn - WINDOW_VPN), i, engine[i], model[i]);
			return;
		}
}

static void compare_by_load(struct run *r, unsigned space, const struct model_page *p)
{
	uint8_t buffer[MODEL_PAGE];
	int rc = ucow_read(r->spaces[space].cpus[0], p->vpn * MODEL_PAGE, buffer, sizeof(buffer), NULL);

	same_at(r, "comparing load", space, p->vpn, rc, 0);
	if (!rc)
		compare_bytes(r, space, p, buffer);
}

/* What the entry may say about a private page. Exactly so in eager mode only; docs/semantics.md B.1. */
static void compare_entry(struct run *r, unsigned space, const struct model_page *p, const struct ucow_entry_info *e)
{
	bool own = p->bytes && p->exclusive;

	same_at(r, "present and anon", space, p->vpn, e->present && e->anon, p->bytes != NULL);
	same_at(r, "exclusive", space, p->vpn, e->exclusive, own);
	if (e->writable && !(own && (p->prot & UCOW_PROT_WRITE)))
		differ(r, "S%u page [%lld] is writable", space, (long long)(p->vpn - WINDOW_VPN));
	if (own)
		same_at(r, "mapcount", space, p->vpn, e->mapcount, 1);
}

static void compare_page(struct run *r, unsigned space, const struct model_page *p)
{
	struct model_space *s = &r->m.spaces[space];
	struct ucow_entry_info e = {0};

	ucow_query(r->spaces[space].mm, p->vpn * MODEL_PAGE, &e);
	same_at(r, "mapped", space, p->vpn, e.mapped, true);
	if (s->read_only)
		same_at(r, "writable in a snapshot", space, p->vpn, e.writable, false);
	same_at(r, "prot", space, p->vpn, e.prot, p->prot);
	if (!p->object && r->judges_entries)
		compare_entry(r, space, p, &e);
	if (r->judges_bytes && p->bytes && p->bytes->pins)
		same_at(r, "maybe pinned", space, p->vpn, e.maybe_pinned, true);
	if (r->program->looks && !model_may(s, p->vpn, false, false))
		compare_by_load(r, space, p);
	else if (e.present && r->judges_bytes)
		compare_bytes(r, space, p, r->ram + e.pfn * MODEL_PAGE);
}

static void compare_space(struct run *r, unsigned space)
{
	struct model_space *s = &r->m.spaces[space];
	struct ucow_mm_stat stat;

	ucow_mm_stat(r->spaces[space].mm, &stat);
	same(r, "mapped_pages", (int64_t)stat.mapped_pages, model_mapped(s));
	if (r->judges_bytes && !r->m.pins_are_mixed)
		same(r, "pinned", (int64_t)stat.pinned, model_pinned(&r->m, s));
	if (r->judges_entries)
		same(r, "rss_anon", (int64_t)stat.rss_anon, model_populated(s));
	for (unsigned i = 0; i < MODEL_SLOTS && !r->failed; i++)
		if (s->pages[i].mapped)
			compare_page(r, space, &s->pages[i]);
}

static void compare_handle(struct run *r, unsigned handle)
{
	const struct model_handle *h = &r->m.handles[handle];

	for (unsigned k = 0; k < h->npages; k++) {
		const uint8_t *engine = ucow_page_address(r->pages[handle][k]);

		for (unsigned i = 0; r->judges_bytes && i < MODEL_PAGE; i++)
			if (engine[i] != h->bytes[k]->data[i]) {
				differ(r, "h%u page %u byte %u: engine %#x, model %#x", handle, k, i, engine[i],
				       h->bytes[k]->data[i]);
				return;
			}
	}
}

static void compare_invariants(struct run *r)
{
	char why[300] = "";
	int rc = ucow_machine_check(r->machine, why, sizeof(why));

	if (rc)
		differ(r, "ucow_machine_check: %d: %s", rc, why);
}

/* What a visit of differing pages has shown so far. */
struct differences {
	struct run *r;
	struct model_space *a, *b;
	uint64_t last; /* page number of the last one, plus one */
	unsigned n;
	uint64_t vpns[2 * MODEL_SLOTS];
};

static int note_difference(void *arg, uint64_t va, enum ucow_diff_kind kind)
{
	struct differences *d = arg;
	uint64_t vpn = va / MODEL_PAGE;
	bool in_a = model_find(d->a, vpn), in_b = model_find(d->b, vpn);

	if (vpn < d->last || d->n == sizeof(d->vpns) / sizeof(d->vpns[0]))
		differ(d->r, "diff: page [%lld] out of order", (long long)(vpn - WINDOW_VPN));
	if (in_a != (kind != UCOW_DIFF_ONLY_B) || in_b != (kind != UCOW_DIFF_ONLY_A))
		differ(d->r, "diff: page [%lld] of kind %d", (long long)(vpn - WINDOW_VPN), kind);
	if (d->r->failed)
		return 1;
	d->last = vpn + 1;
	d->vpns[d->n++] = vpn;
	return 0;
}

static bool was_visited(const struct differences *d, uint64_t vpn)
{
	for (unsigned i = 0; i < d->n; i++)
		if (d->vpns[i] == vpn)
			return true;
	return false;
}

/* Where both map something, what is not visited reads the same. */
static void compare_difference(struct run *r, unsigned a, unsigned b)
{
	struct differences d = {.r = r, .a = &r->m.spaces[a], .b = &r->m.spaces[b]};
	int rc = ucow_diff(r->spaces[a].mm, r->spaces[b].mm, note_difference, &d);

	if (!r->failed)
		same(r, "diff", rc, 0);
	for (unsigned i = 0; i < MODEL_SLOTS && !r->failed; i++) {
		const struct model_page *p = &d.a->pages[i], *q = p->mapped ? model_find(d.b, p->vpn) : NULL;

		if (q && !model_beyond_object(p) && !model_beyond_object(q) && !was_visited(&d, p->vpn) &&
		    memcmp(model_content(&r->m, p), model_content(&r->m, q), MODEL_PAGE) != 0)
			differ(r, "diff of S%u and S%u: page [%lld] differs", a, b, (long long)(p->vpn - WINDOW_VPN));
	}
}

/* One pair of spaces an operation: the first one in turn, with the next that is there. */
static void compare_differences(struct run *r)
{
	unsigned a = r->outcome->at % MODEL_SPACES;

	if (!r->judges_bytes || !r->m.spaces[a].live)
		return;
	for (unsigned b = (a + 1) % MODEL_SPACES; b != a; b = (b + 1) % MODEL_SPACES)
		if (r->m.spaces[b].live)
			return compare_difference(r, a, b);
}

static void compare_snapshots(struct run *r)
{
	for (unsigned i = 0; i < MODEL_SPACES && !r->failed; i++) {
		int rc;

		if (!r->m.spaces[i].live)
			continue;
		rc = ucow_snapshot_verify(r->spaces[i].mm);
		if (!r->m.spaces[i].read_only)
			same(r, "verify of no snapshot", rc, -EINVAL);
		else if (rc && rc != -ENODATA)
			differ(r, "S%u: a snapshot's checksum: %d", i, rc);
	}
}

static void compare(struct run *r)
{
	struct ucow_machine_stat stat;

	for (unsigned i = 0; i < MODEL_SPACES && !r->failed; i++)
		if (r->m.spaces[i].live)
			compare_space(r, i);
	for (unsigned i = 0; i < MODEL_HANDLES && !r->failed; i++)
		if (r->m.handles[i].live)
			compare_handle(r, i);
	compare_differences(r);
	compare_snapshots(r);
	ucow_machine_stat(r->machine, &stat);
	if (r->judges_bytes) /* which pins are of the zero page, and so none, is a matter of policy */
		same(r, "pins", (int64_t)stat.pins, model_pinned(&r->m, NULL));
	if (r->program->suspects || r->outcome->at % 8 == 7)
		compare_invariants(r);
}

/* ---- operations ---- */

static void run_mmap(struct run *r, const struct op *op)
{
	struct model_space *s = &r->m.spaces[op->space];
	uint64_t vpn = place(r, op->space, op->at), va = 0;
	unsigned flags = op->flags & F_SHARED ? UCOW_MAP_SHARED : UCOW_MAP_PRIVATE;
	bool taken = (op->flags & F_NOREPLACE) && !model_range_free(s, vpn, op->n);
	int rc;

	if (model_mapped(s) + op->n > MODEL_SLOTS - 20)
		return;
	flags |= op->flags & F_NOREPLACE ? UCOW_MAP_FIXED_NOREPLACE : UCOW_MAP_FIXED;
	flags |= op->flags & F_POPULATE ? UCOW_MAP_POPULATE : 0;
	rc = ucow_mmap(r->spaces[op->space].mm, vpn * MODEL_PAGE, op->n * MODEL_PAGE, op->arg, flags, &va);
	same(r, "mmap", rc, taken ? -EEXIST : 0);
	if (rc || r->failed)
		return;
	same(r, "address", (int64_t)va, (int64_t)(vpn * MODEL_PAGE));
	model_mmap(&r->m, op->space, vpn, op->n, op->arg, op->flags & F_SHARED, op->flags & F_POPULATE);
}

static void run_munmap(struct run *r, const struct op *op)
{
	uint64_t vpn = place(r, op->space, op->at);

	same(r, "munmap", ucow_munmap(r->spaces[op->space].mm, vpn * MODEL_PAGE, op->n * MODEL_PAGE), 0);
	model_munmap(&r->m, op->space, vpn, op->n);
}

static void run_mprotect(struct run *r, const struct op *op)
{
	uint64_t vpn = place(r, op->space, op->at);
	int rc = ucow_mprotect(r->spaces[op->space].mm, vpn * MODEL_PAGE, op->n * MODEL_PAGE, op->arg);

	same(r, "mprotect", rc, model_mprotect(&r->m, op->space, vpn, op->n, op->arg));
}

static const enum ucow_advice advices[] = {
	[MODEL_DONTFORK] = UCOW_MADV_DONTFORK,           [MODEL_DOFORK] = UCOW_MADV_DOFORK,
	[MODEL_WIPEONFORK] = UCOW_MADV_WIPEONFORK,       [MODEL_KEEPONFORK] = UCOW_MADV_KEEPONFORK,
	[MODEL_DONTNEED] = UCOW_MADV_DONTNEED,           [MODEL_FREE] = UCOW_MADV_FREE,
	[MODEL_POPULATE_READ] = UCOW_MADV_POPULATE_READ, [MODEL_POPULATE_WRITE] = UCOW_MADV_POPULATE_WRITE,
};

static void run_madvise(struct run *r, const struct op *op)
{
	uint64_t vpn = place(r, op->space, op->at);
	int rc;

	/* Under pressure its contents may be gone at once, or later: no model is right about them. */
	if (r->pressure && op->arg == MODEL_FREE)
		return;
	rc = ucow_madvise(r->spaces[op->space].mm, vpn * MODEL_PAGE, op->n * MODEL_PAGE, advices[op->arg]);

	same(r, "madvise", rc, model_madvise(&r->m, op->space, vpn, op->n, op->arg));
}

static void run_numa_hint(struct run *r, const struct op *op)
{
	uint64_t vpn = place(r, op->space, op->at);
	int rc = ucow_numa_hint(r->spaces[op->space].mm, vpn * MODEL_PAGE, op->n * MODEL_PAGE);

	same(r, "numa-hint", rc, model_covered(&r->m.spaces[op->space], vpn, op->n));
}

static bool overlap(uint64_t a, uint64_t a_n, uint64_t b, uint64_t b_n)
{
	return a < b + b_n && b < a + a_n;
}

/* An mremap that the model found well-formed and possible; the engine returned @rc and @to. */
static void follow_mremap(struct run *r, const struct op *op, uint64_t vpn, uint64_t new_n, uint64_t to)
{
	struct model_space *s = &r->m.spaces[op->space];
	bool fixed = op->flags & F_FIXED, keep = op->flags & F_DONTUNMAP;
	bool stays = !fixed && !keep && (new_n <= op->n || model_range_free(s, vpn + op->n, new_n - op->n));

	if (fixed)
		same(r, "address", (int64_t)to, (int64_t)place(r, op->space, op->to));
	else if (stays)
		same(r, "address", (int64_t)to, (int64_t)vpn);
	else if (!model_range_free(s, to, new_n))
		differ(r, "mremap moved over something");
	if (r->failed)
		return;
	if (!stays)
		model_move(&r->m, op->space, vpn, op->n, new_n, to, keep);
	else if (new_n <= op->n)
		model_munmap(&r->m, op->space, vpn + new_n, op->n - new_n);
	else
		model_grow(&r->m, op->space, vpn, op->n, new_n);
}

/* 0, the error that mremap must return, or 1 where success and -EFAULT are both right. */
static int predict_mremap(struct run *r, const struct op *op, uint64_t vpn, uint64_t new_n, uint64_t to)
{
	struct model_space *s = &r->m.spaces[op->space];
	bool moves_anyway = op->flags & (F_FIXED | F_DONTUNMAP);
	enum model_one all = model_one_mapping(s, vpn, op->n);
	enum model_one kept = model_one_mapping(s, vpn, new_n < op->n ? new_n : op->n);

	if ((op->flags & F_FIXED) && overlap(vpn, op->n, to, new_n))
		return -EINVAL;
	if ((op->flags & F_FIXED) && !(op->flags & F_DONTUNMAP) && new_n == op->n)
		return model_find(s, vpn) ? 0 : -EFAULT;
	if (kept == MODEL_ONE_NO)
		return new_n <= op->n && !moves_anyway && model_find(s, vpn) ? 1 : -EFAULT;
	if (!moves_anyway && new_n > op->n && !(op->flags & F_MAYMOVE) &&
	    !model_range_free(s, vpn + op->n, new_n - op->n))
		return all == MODEL_ONE_YES ? -ENOMEM : 2;
	return all == MODEL_ONE_YES ? 0 : 1;
}

static void run_mremap(struct run *r, const struct op *op)
{
	struct model_space *s = &r->m.spaces[op->space];
	uint64_t vpn = place(r, op->space, op->at), to = place(r, op->space, op->to), result = 0;
	uint64_t new_n = op->flags & F_DONTUNMAP ? op->n : op->to_n;
	unsigned flags = (op->flags & F_DONTUNMAP ? UCOW_MREMAP_DONTUNMAP : 0) |
			 (op->flags & F_FIXED ? UCOW_MREMAP_FIXED : 0) |
			 (op->flags & (F_MAYMOVE | F_FIXED | F_DONTUNMAP) ? UCOW_MREMAP_MAYMOVE : 0);
	int expected = predict_mremap(r, op, vpn, new_n, to), rc;

	if (model_mapped(s) + new_n > MODEL_SLOTS - 20)
		return;
	if (expected == -EINVAL && !model_find(s, vpn))
		return; /* two errors at once: either will do */
	rc = ucow_mremap(r->spaces[op->space].mm, vpn * MODEL_PAGE, op->n * MODEL_PAGE, new_n * MODEL_PAGE, flags,
			 op->flags & F_FIXED ? to * MODEL_PAGE : 0, &result);
	if ((expected == 1 && rc != -EFAULT) || (expected == 2 && rc != -EFAULT))
		expected = expected == 1 ? 0 : -ENOMEM;
	if (expected <= 0)
		same(r, "mremap", rc, expected);
	if (!rc && !r->failed)
		follow_mremap(r, op, vpn, new_n, result / MODEL_PAGE);
}

/* ---- access ---- */

enum { BUFFER = 3 * MODEL_PAGE };

static void run_read(struct run *r, const struct op *op)
{
	uint64_t va = place(r, op->space, op->at) * MODEL_PAGE + op->offset, nbytes = 1 + op->value % 9000, model_done;
	uint8_t engine[BUFFER], model[BUFFER];
	size_t done = 0;
	int rc = ucow_read(cpu_of(r, op), va, engine, nbytes, &done);

	same(r, "read", rc, model_read(&r->m, op->space, va, model, nbytes, &model_done));
	same(r, "bytes read", (int64_t)done, (int64_t)model_done);
	if (r->judges_bytes && !r->failed && memcmp(engine, model, done) != 0)
		differ(r, "read: other bytes");
}

static void run_write(struct run *r, const struct op *op)
{
	uint64_t va = place(r, op->space, op->at) * MODEL_PAGE + op->offset, model_done;
	uint64_t nbytes = op->arg < 3 ? 1 + op->value % 64 : 1 + op->value % 9000;
	uint8_t buffer[BUFFER];
	size_t done = 0;
	int rc;

	pattern(buffer, nbytes, op->value);
	rc = ucow_write(cpu_of(r, op), va, buffer, nbytes, &done);
	same(r, "write", rc, model_write(&r->m, op->space, va, buffer, nbytes, &model_done));
	same(r, "bytes written", (int64_t)done, (int64_t)model_done);
}

static int engine_load(struct ucow_cpu *cpu, uint64_t va, unsigned size, uint8_t *bytes)
{
	switch (size) {
	case 1:
		return ucow_load_u8(cpu, va, bytes);
	case 2:
		return ucow_load_u16(cpu, va, (uint16_t *)bytes);
	case 4:
		return ucow_load_u32(cpu, va, (uint32_t *)bytes);
	default:
		return ucow_load_u64(cpu, va, (uint64_t *)bytes);
	}
}

static void run_load(struct run *r, const struct op *op)
{
	uint64_t va = place(r, op->space, op->at) * MODEL_PAGE + op->offset, engine = 0, model = 0, done;
	int rc = engine_load(cpu_of(r, op), va, 1u << op->arg, (uint8_t *)&engine);

	same(r, "load", rc, model_read(&r->m, op->space, va, (uint8_t *)&model, 1u << op->arg, &done));
	if (!rc && r->judges_bytes)
		same(r, "loaded value", (int64_t)engine, (int64_t)model);
}

static int engine_store(struct ucow_cpu *cpu, uint64_t va, unsigned size, uint64_t value)
{
	switch (size) {
	case 1:
		return ucow_store_u8(cpu, va, (uint8_t)value);
	case 2:
		return ucow_store_u16(cpu, va, (uint16_t)value);
	case 4:
		return ucow_store_u32(cpu, va, (uint32_t)value);
	default:
		return ucow_store_u64(cpu, va, value);
	}
}

/* An offset at which @size bytes lie within one page. */
static uint64_t within_page(const struct op *op, unsigned size)
{
	return op->offset > MODEL_PAGE - size ? MODEL_PAGE - size : op->offset;
}

static void run_store(struct run *r, const struct op *op)
{
	unsigned size = 1u << op->arg;
	uint64_t va = place(r, op->space, op->at) * MODEL_PAGE + within_page(op, size), done;
	int rc = engine_store(cpu_of(r, op), va, size, op->value);

	same(r, "store", rc, model_write(&r->m, op->space, va, (const uint8_t *)&op->value, size, &done));
}

static int engine_cmpxchg(struct ucow_cpu *cpu, uint64_t va, unsigned size, uint64_t *expected, uint64_t v, bool *done)
{
	switch (size) {
	case 1:
		return ucow_cmpxchg_u8(cpu, va, (uint8_t *)expected, (uint8_t)v, done);
	case 2:
		return ucow_cmpxchg_u16(cpu, va, (uint16_t *)expected, (uint16_t)v, done);
	case 4:
		return ucow_cmpxchg_u32(cpu, va, (uint32_t *)expected, (uint32_t)v, done);
	default:
		return ucow_cmpxchg_u64(cpu, va, expected, v, done);
	}
}

/* Expects what is there in half of the draws. A compare-exchange that declines is a store all the same to the page. */
static void run_cmpxchg(struct run *r, const struct op *op)
{
	struct model_space *s = &r->m.spaces[op->space];
	unsigned size = 1u << op->arg;
	uint64_t vpn = place(r, op->space, op->at), offset = op->offset / size * size, there = 0, expected, done;
	int granted = model_may(s, vpn, true, false), rc;
	bool exchanged = false;

	if (!granted)
		memcpy(&there, model_content(&r->m, model_find(s, vpn)) + offset, size);
	expected = there ^ (op->value & 1);
	rc = engine_cmpxchg(cpu_of(r, op), vpn * MODEL_PAGE + offset, size, &expected, op->value, &exchanged);
	same(r, "cmpxchg", rc, granted);
	if (rc || r->failed)
		return;
	if (r->judges_bytes) {
		same(r, "exchanged", exchanged, !(op->value & 1));
		same(r, "found", (int64_t)expected, (int64_t)there);
	}
	model_touch_for_write(&r->m, op->space, vpn, false);
	if (exchanged)
		model_write(&r->m, op->space, vpn * MODEL_PAGE + offset, (const uint8_t *)&op->value, size, &done);
}

static void run_span(struct run *r, const struct op *op, bool write)
{
	uint64_t vpn = place(r, op->space, op->at), done;
	unsigned nbytes = 1 + op->value % (MODEL_PAGE - op->offset);
	uint64_t va = vpn * MODEL_PAGE + op->offset;
	uint8_t model[MODEL_PAGE];
	void *span = NULL;
	int rc = ucow_span_begin(cpu_of(r, op), va, nbytes, write, &span);

	same(r, "span", rc, model_may(&r->m.spaces[op->space], vpn, write, false));
	if (rc)
		return;
	if (write)
		pattern(span, nbytes, op->value);
	else if (r->judges_bytes && !model_read(&r->m, op->space, va, model, nbytes, &done) &&
		 memcmp(span, model, nbytes) != 0)
		differ(r, "span: other bytes");
	ucow_span_end(cpu_of(r, op));
	if (!write)
		return;
	pattern(model, nbytes, op->value);
	model_write(&r->m, op->space, va, model, nbytes, &done);
}

/* ---- spaces ---- */

static void open_cpus(struct run *r, unsigned space)
{
	for (int i = 0; i < 2; i++) {
		same(r, "cpu_create", ucow_cpu_create(r->machine, &r->spaces[space].cpus[i]), 0);
		ucow_cpu_attach(r->spaces[space].cpus[i], r->spaces[space].mm);
	}
}

static void run_create(struct run *r, unsigned space)
{
	int rc = ucow_mm_create(r->machine, &r->spaces[space].mm);

	same(r, "mm_create", rc, 0);
	if (rc)
		return;
	open_cpus(r, space);
	model_create(&r->m, space);
}

static void run_fork(struct run *r, const struct op *op)
{
	int rc;

	if (r->m.spaces[op->other].live)
		return;
	if (op->flags & F_SNAPSHOT)
		rc = ucow_snapshot_with_flags(r->spaces[op->space].mm, op->value & 1 ? UCOW_SNAPSHOT_CHECKSUM : 0,
					      &r->spaces[op->other].mm);
	else
		rc = ucow_fork(r->spaces[op->space].mm, &r->spaces[op->other].mm);
	same(r, "fork", rc, 0);
	if (rc)
		return;
	open_cpus(r, op->other);
	model_fork(&r->m, op->space, op->other);
	r->m.spaces[op->other].read_only = op->flags & F_SNAPSHOT;
}

static void run_exit(struct run *r, unsigned space)
{
	same(r, "exit with cpus", ucow_mm_destroy(r->spaces[space].mm), -EBUSY);
	ucow_cpu_destroy(r->spaces[space].cpus[0]);
	ucow_cpu_destroy(r->spaces[space].cpus[1]);
	same(r, "exit", ucow_mm_destroy(r->spaces[space].mm), 0);
	model_exit(&r->m, space);
}

static void run_cpu(struct run *r, const struct op *op)
{
	struct ucow_cpu **cpu = &r->spaces[op->space].cpus[op->value & 1];

	ucow_cpu_attach(*cpu, NULL);
	if (op->value & 2) {
		ucow_cpu_destroy(*cpu);
		same(r, "cpu_create", ucow_cpu_create(r->machine, cpu), 0);
	}
	ucow_cpu_attach(*cpu, r->spaces[op->space].mm);
}

/* ---- references ---- */

static long engine_take(struct run *r, const struct op *op, uint64_t va, unsigned n, unsigned flags)
{
	struct ucow_page **pages = r->pages[op->other];
	struct ucow_mm *mm = r->spaces[op->space].mm;
	struct ucow_cpu *cpu = cpu_of(r, op);
	bool pin = op->kind == OP_PIN;

	if (op->flags & F_REMOTE)
		return pin ? ucow_pin_user_pages_remote(mm, va, n, flags, pages)
			   : ucow_get_user_pages_remote(mm, va, n, flags, pages);
	if (op->flags & F_FAST)
		return pin ? ucow_pin_user_pages_fast(cpu, va, n, flags, pages)
			   : ucow_get_user_pages_fast(cpu, va, n, flags, pages);
	return pin ? ucow_pin_user_pages(cpu, va, n, flags, pages) : ucow_get_user_pages(cpu, va, n, flags, pages);
}

/*
 * Whether a plain reference sees the owner's next store depends on the exclusive flag, and that may be back without a
 * fault in lazy mode. The engine says; what it then shows to the owner and to all others is compared as ever.
 */
static void adopt_exclusive(struct run *r, unsigned space, uint64_t vpn)
{
	struct model_page *p = model_find(&r->m.spaces[space], vpn);
	struct ucow_entry_info e;

	if (!p || !p->bytes)
		return;
	ucow_query(r->spaces[space].mm, vpn * MODEL_PAGE, &e);
	p->exclusive |= e.exclusive;
}

static void run_take(struct run *r, const struct op *op)
{
	uint64_t vpn = place(r, op->space, op->at);
	unsigned n = op->n < MODEL_HANDLE_PAGES ? op->n : MODEL_HANDLE_PAGES;
	unsigned flags = (op->flags & F_WRITE ? UCOW_FOLL_WRITE : 0) | (op->flags & F_FORCE ? UCOW_FOLL_FORCE : 0) |
			 (op->flags & F_LONGTERM ? UCOW_FOLL_LONGTERM : 0);
	long got;

	if (r->m.handles[op->other].live)
		return;
	for (unsigned k = 0; r->may_stay_own && k < n; k++)
		adopt_exclusive(r, op->space, vpn + k);
	got = engine_take(r, op, vpn * MODEL_PAGE, n, flags);
	same(r, "pages taken", got,
	     model_take(&r->m, op->other, op->space, vpn, n, op->kind == OP_PIN, op->flags & F_WRITE,
			op->flags & F_FORCE, op->flags & F_LONGTERM));
}

/* The space through which a handle was taken, if it is still there. */
static struct ucow_mm *owner_of(const struct run *r, const struct model_handle *h)
{
	for (unsigned i = 0; i < MODEL_SPACES; i++)
		if (r->m.spaces[i].live && r->m.spaces[i].id == h->space_id)
			return r->spaces[i].mm;
	return NULL;
}

static void run_release(struct run *r, const struct op *op)
{
	const struct model_handle *h = &r->m.handles[op->other];
	struct ucow_mm *owner = op->flags & F_REMOTE && !r->m.pins_are_mixed ? owner_of(r, h) : NULL;

	if (!h->live)
		return;
	if (!h->pin)
		ucow_put_pages(r->pages[op->other], h->npages);
	else if (owner)
		ucow_unpin_user_pages_remote(owner, r->pages[op->other], h->npages);
	else if (op->flags & F_DIRTY)
		ucow_unpin_user_pages_dirty_lock(r->pages[op->other], h->npages, true);
	else
		ucow_unpin_user_pages(r->pages[op->other], h->npages);
	model_release(&r->m, op->other, owner != NULL);
}

static void run_device_write(struct run *r, const struct op *op)
{
	const struct model_handle *h = &r->m.handles[op->other];
	unsigned offset = op->offset > MODEL_PAGE - 16 ? MODEL_PAGE - 16 : op->offset;
	uint8_t buffer[16];

	if (!h->live || !model_device_may_write(&r->m, op->other))
		return;
	pattern(buffer, sizeof(buffer), op->value);
	for (unsigned k = 0; k < h->npages; k++)
		memcpy((uint8_t *)ucow_page_address(r->pages[op->other][k]) + offset, buffer, sizeof(buffer));
	model_device_write(&r->m, op->other, offset, buffer, sizeof(buffer));
}

/* Like ptrace: one page of somebody else's memory, FORCE. */
static void run_ptrace(struct run *r, const struct op *op, bool write)
{
	struct model_space *s = &r->m.spaces[op->space];
	uint64_t vpn = place(r, op->space, op->at), offset = within_page(op, 8), done;
	unsigned flags = UCOW_FOLL_FORCE | (write ? UCOW_FOLL_WRITE : 0);
	struct ucow_page *page = NULL;
	long n = ucow_get_user_pages_remote(r->spaces[op->space].mm, vpn * MODEL_PAGE, 1, flags, &page);
	struct model_page *p = model_find(s, vpn);

	same(r, write ? "poke" : "peek", n, model_may(s, vpn, write, true) ? -EFAULT : 1);
	if (n != 1 || r->failed)
		return;
	if (write) {
		unsigned prot = p->prot;

		memcpy((uint8_t *)ucow_page_address(page) + offset, &op->value, 8);
		p->prot = UCOW_PROT_READ | UCOW_PROT_WRITE;
		model_write(&r->m, op->space, vpn * MODEL_PAGE + offset, (const uint8_t *)&op->value, 8, &done);
		p->prot = prot;
	}
	compare_bytes(r, op->space, p, ucow_page_address(page));
	ucow_put_pages(&page, 1);
}

/* ---- the whole ---- */

static void run_on_space(struct run *r, const struct op *op)
{
	switch ((enum op_kind)op->kind) {
	case OP_MMAP:
		return run_mmap(r, op);
	case OP_MUNMAP:
		return run_munmap(r, op);
	case OP_MPROTECT:
		return run_mprotect(r, op);
	case OP_MREMAP:
		return run_mremap(r, op);
	case OP_MADVISE:
		return run_madvise(r, op);
	case OP_READ:
		return run_read(r, op);
	case OP_WRITE:
		return run_write(r, op);
	case OP_LOAD:
		return run_load(r, op);
	case OP_STORE:
		return run_store(r, op);
	case OP_CMPXCHG:
		return run_cmpxchg(r, op);
	case OP_SPAN_READ:
	case OP_SPAN_WRITE:
		return run_span(r, op, op->kind == OP_SPAN_WRITE);
	case OP_FORK:
		return run_fork(r, op);
	case OP_EXIT:
		return run_exit(r, op->space);
	case OP_PIN:
	case OP_GET:
		return run_take(r, op);
	case OP_PEEK:
	case OP_POKE:
		return run_ptrace(r, op, op->kind == OP_POKE);
	case OP_NUMA_HINT:
		return run_numa_hint(r, op);
	case OP_CPU:
		return run_cpu(r, op);
	case OP_RELEASE:
	case OP_DEVICE_WRITE:
	case OP_CREATE:
	case OP_COUNT:
		return;
	}
}

static bool is_change(const struct op *op)
{
	static const bool always[OP_COUNT] = {
		[OP_MMAP] = true,       [OP_MUNMAP] = true, [OP_MPROTECT] = true, [OP_MREMAP] = true,
		[OP_MADVISE] = true,    [OP_WRITE] = true,  [OP_STORE] = true,    [OP_CMPXCHG] = true,
		[OP_SPAN_WRITE] = true, [OP_POKE] = true,
	};

	return always[op->kind] || ((op->kind == OP_PIN || op->kind == OP_GET) && (op->flags & F_WRITE));
}

static int change_access(struct run *r, const struct op *op, uint64_t va)
{
	uint64_t expected = 0;
	bool exchanged = false;
	void *span = NULL;

	if (op->kind == OP_WRITE)
		return ucow_write(cpu_of(r, op), va + op->offset, &op->value, 8, NULL);
	if (op->kind == OP_STORE)
		return engine_store(cpu_of(r, op), va, 1u << op->arg, op->value);
	if (op->kind == OP_CMPXCHG)
		return engine_cmpxchg(cpu_of(r, op), va, 1u << op->arg, &expected, op->value, &exchanged);
	return ucow_span_begin(cpu_of(r, op), va, 8, true, &span);
}

static int change_mapping(struct run *r, const struct op *op, uint64_t va)
{
	struct ucow_mm *mm = r->spaces[op->space].mm;
	uint64_t result = 0;

	if (op->kind == OP_MMAP)
		return ucow_mmap(mm, va, op->n * MODEL_PAGE, op->arg, UCOW_MAP_PRIVATE | UCOW_MAP_FIXED, &result);
	if (op->kind == OP_MUNMAP)
		return ucow_munmap(mm, va, op->n * MODEL_PAGE);
	if (op->kind == OP_MPROTECT)
		return ucow_mprotect(mm, va, op->n * MODEL_PAGE, op->arg);
	if (op->kind == OP_MADVISE)
		return ucow_madvise(mm, va, op->n * MODEL_PAGE, advices[op->arg]);
	return ucow_mremap(mm, va, op->n * MODEL_PAGE, op->to_n * MODEL_PAGE, UCOW_MREMAP_MAYMOVE, 0, &result);
}

static long change_by_reference(struct run *r, const struct op *op, uint64_t va)
{
	unsigned flags = UCOW_FOLL_WRITE | (op->flags & F_FORCE || op->kind == OP_POKE ? UCOW_FOLL_FORCE : 0);
	struct ucow_mm *mm = r->spaces[op->space].mm;
	struct ucow_page *page;

	if (op->kind == OP_PIN)
		return ucow_pin_user_pages_fast(cpu_of(r, op), va, 1, flags, &page);
	return ucow_get_user_pages_remote(mm, va, 1, flags, &page);
}

/* A change is refused, whatever else is wrong with it; everything else means what it means in any space. */
static void run_on_snapshot(struct run *r, const struct op *op)
{
	uint64_t va = place(r, op->space, op->at) * MODEL_PAGE;

	if (!is_change(op))
		run_on_space(r, op);
	else if (op->kind == OP_PIN || op->kind == OP_GET || op->kind == OP_POKE)
		same(r, "a write reference to a snapshot", change_by_reference(r, op, va), -EACCES);
	else if (op->kind <= OP_MADVISE)
		same(r, "a change to a snapshot's mappings", change_mapping(r, op, va), -EACCES);
	else
		same(r, "a store to a snapshot", change_access(r, op, va), -EACCES);
}

static void run_op(struct run *r, const struct op *op)
{
	bool live = r->m.spaces[op->space].live;

	r->outcome->calls++;
	if (op->kind == OP_RELEASE)
		run_release(r, op);
	else if (op->kind == OP_DEVICE_WRITE)
		run_device_write(r, op);
	else if (live && r->m.spaces[op->space].read_only)
		run_on_snapshot(r, op);
	else if (live)
		run_on_space(r, op);
	else if (op->kind == OP_CREATE)
		run_create(r, op->space);
	else
		r->outcome->calls--;
}

/* Everything goes; programs that look release their pins before their spaces, the others after. */
static void tear_down(struct run *r, const struct ucow_machine_stat *before)
{
	struct ucow_machine_stat now;

	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < MODEL_SPACES + MODEL_HANDLES; i++) {
			bool handle = i >= MODEL_SPACES;

			if (handle != (r->program->looks == (pass == 0)))
				continue;
			if (handle)
				run_release(r, &(struct op){.other = (uint8_t)(i - MODEL_SPACES)});
			else if (r->m.spaces[i].live)
				run_exit(r, i);
		}
	compare_invariants(r);
	ucow_machine_stat(r->machine, &now);
	same(r, "used_pages at the end", (int64_t)now.used_pages, (int64_t)before->used_pages);
	same(r, "table_bytes at the end", (int64_t)now.table_bytes, (int64_t)before->table_bytes);
	same(r, "spaces at the end", (int64_t)now.spaces, 0);
	same(r, "gets at the end", (int64_t)now.gets, 0);
	same(r, "pins at the end", (int64_t)now.pins, 0);
	same(r, "machine_destroy", ucow_machine_destroy(r->machine), 0);
}

/* By a page of a space that is gone before the program begins. */
static const uint8_t *find_ram(struct run *r)
{
	struct ucow_page *page = NULL;
	struct ucow_entry_info e = {0};
	struct ucow_mm *mm = NULL;
	const uint8_t *ram = NULL;
	uint64_t va = 0;

	same(r, "mm_create", ucow_mm_create(r->machine, &mm), 0);
	same(r, "mmap", ucow_mmap(mm, 0, MODEL_PAGE, UCOW_PROT_READ | UCOW_PROT_WRITE, UCOW_MAP_PRIVATE, &va), 0);
	same(r, "reference", ucow_get_user_pages_remote(mm, va, 1, UCOW_FOLL_WRITE, &page), 1);
	if (page) {
		ucow_query(mm, va, &e);
		ram = (const uint8_t *)ucow_page_address(page) - e.pfn * MODEL_PAGE;
		ucow_put_pages(&page, 1);
	}
	same(r, "exit", ucow_mm_destroy(mm), 0);
	return ram;
}

static void add_swap(struct run *r)
{
	const struct ucow_swap_options options = {
		.size = sizeof(options),
		.nbytes = (uint64_t)16 << 20,
		.flags = UCOW_SWAP_MEMORY,
	};

	same(r, "swapon", ucow_swapon(r->machine, &options, NULL), 0);
}

/* As the operation's value has it: some pages go, or many, or none; now and then the device itself. */
static void press(struct run *r, const struct op *op)
{
	unsigned how = (unsigned)(op->value >> 40) % 8;

	if (how < 4)
		(void)ucow_reclaim(r->machine, NULL, 1u << (2 * how));
	if (how != 7 || (op->value >> 50) % 4)
		return;
	same(r, "swapoff", ucow_swapoff(r->machine, 0), 0);
	add_swap(r);
}

void program_run(const struct program *p, const struct setting *setting, struct outcome *outcome)
{
	struct ucow_machine_options options = {
		.size = sizeof(options),
		.ram_bytes = (uint64_t)16 << 20,
		.policy = setting->policy,
		.fork_mode = setting->mode,
		.flags = UCOW_MACHINE_POISON,
	};
	static struct run r; /* one program at a time, in a process of its own */
	struct ucow_machine_stat before;

	memset(&r, 0, sizeof(r));
	r.program = p;
	r.outcome = outcome;
	r.judges_bytes = setting->policy == UCOW_POLICY_EXCLUSIVE;
	r.judges_entries = r.judges_bytes && setting->mode == UCOW_FORK_EAGER && !setting->pressure;
	r.pressure = setting->pressure;
	same(&r, "machine_create", ucow_machine_create(&options, &r.machine), 0);
	if (r.failed)
		return;
	r.may_stay_own = setting->mode == UCOW_FORK_LAZY;
	r.ram = find_ram(&r);
	if (r.pressure)
		add_swap(&r);
	ucow_machine_stat(r.machine, &before);
	model_init(&r.m);
	run_create(&r, 0);
	for (outcome->at = 0; outcome->at < p->nops && !r.failed; outcome->at++) {
		run_op(&r, &p->ops[outcome->at]);
		if (r.pressure)
			press(&r, &p->ops[outcome->at]);
		compare(&r);
		if (r.failed)
			return;
	}
	tear_down(&r, &before);
	model_fini(&r.m);
	outcome->agreed = !r.failed;
}
