/* SPDX-License-Identifier: MIT */
/*
 * An in-memory store that is saved to a file while it goes on serving writes.
 *
 * The store is a hash table of accounts in a ucow space. One thread moves money between accounts. Another streams a
 * snapshot, taken between two transfers, to a temporary file. The file must show the moment of the snapshot and nothing
 * later: every record carries the number of the transfer that wrote it last, and all balances must add up to what they
 * were at the start, which no half-done transfer and no mixture of two moments would do.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ucow/ucow.h>

#define SLOTS    (1u << 15)
#define ACCOUNTS 20000u
#define DEPOSIT  100
#define BEFORE   50000u /* transfers before the snapshot */
#define DURING   50000u /* at least, while it is streamed */

struct record {
	char key[40]; /* empty: a free slot */
	int64_t balance;
	uint64_t stamp; /* the transfer that wrote this record last */
	uint64_t check; /* over the rest of the record */
};

static struct ucow_machine *machine;
static struct ucow_mm *live;
static struct ucow_cpu *cpu;
static uint64_t table_va;
static uint64_t stamps[SLOTS]; /* what the host remembers of the stamps, to compare the file with */

/* ---- records ---- */

static uint64_t hash(const void *bytes, size_t nbytes)
{
	const unsigned char *at = bytes;
	uint64_t sum = 14695981039346656037u;

	while (nbytes--)
		sum = (sum ^ *at++) * 1099511628211u;
	return sum;
}

static uint64_t check_of(const struct record *record)
{
	return hash(record, offsetof(struct record, check));
}

static uint64_t slot_va(unsigned slot)
{
	return table_va + (uint64_t)slot * sizeof(struct record);
}

static int load(struct ucow_cpu *through, unsigned slot, struct record *record)
{
	return ucow_read(through, slot_va(slot), record, sizeof(*record), NULL);
}

static int save(unsigned slot, struct record *record)
{
	record->check = check_of(record);
	stamps[slot] = record->stamp;
	return ucow_write(cpu, slot_va(slot), record, sizeof(*record), NULL);
}

/* The slot of @key, or a free one for it, and what is there. */
static int find(const char *key, unsigned *slot, struct record *record)
{
	int err;

	*slot = (unsigned)hash(key, strlen(key)) % SLOTS;
	for (;; *slot = (*slot + 1) % SLOTS) {
		err = load(cpu, *slot, record);
		if (err || !record->key[0] || !strcmp(record->key, key))
			return err;
	}
}

/* ---- the store ---- */

static void name_account(char *key, size_t size, unsigned account)
{
	snprintf(key, size, "account-%u", account);
}

static int add(unsigned account, int64_t amount, uint64_t stamp)
{
	struct record record;
	char key[sizeof(record.key)] = "";
	unsigned slot;
	int err;

	name_account(key, sizeof(key), account);
	err = find(key, &slot, &record);
	if (err)
		return err;
	memcpy(record.key, key, sizeof(key));
	record.balance += amount;
	record.stamp = stamp;
	return save(slot, &record);
}

static int transfer(uint64_t stamp)
{
	unsigned from = (unsigned)rand() % ACCOUNTS, to = (unsigned)rand() % ACCOUNTS;
	int64_t amount = rand() % 10;
	int err = add(from, -amount, stamp);

	return err ? err : add(to, amount, stamp);
}

static int open_store(void)
{
	const struct ucow_machine_options options = {.size = sizeof(options)};
	int err = ucow_machine_create(&options, &machine);

	if (!err)
		err = ucow_mm_create(machine, &live);
	if (!err)
		err = ucow_cpu_create(machine, &cpu);
	if (!err)
		err = ucow_mmap(live, 0, SLOTS * sizeof(struct record), UCOW_PROT_READ | UCOW_PROT_WRITE,
				UCOW_MAP_PRIVATE, &table_va);
	if (!err)
		ucow_cpu_attach(cpu, live);
	for (unsigned account = 0; account < ACCOUNTS && !err; account++)
		err = add(account, DEPOSIT, 0);
	return err;
}

/* ---- streaming ---- */

struct stream {
	struct ucow_mm *snapshot;
	FILE *file;
	_Atomic uint64_t written; /* transfers since the snapshot */
	_Atomic bool done;
	int err;
};

/* One cpu for this thread: the snapshot is a space of its own, nothing here waits for the writer's thread. */
static int stream_slots(struct stream *stream, struct ucow_cpu *reader)
{
	struct record record;
	int err = 0;

	for (unsigned slot = 0; slot < SLOTS && !err; slot++) {
		/* So that the store really is written meanwhile, be the host as busy as it may. */
		while (slot == SLOTS / 2 && atomic_load(&stream->written) < DURING / 2)
			;
		err = load(reader, slot, &record);
		if (!err && fwrite(&record, sizeof(record), 1, stream->file) != 1)
			err = -1;
	}
	return err;
}

static void *run_stream(void *arg)
{
	struct stream *stream = arg;
	struct ucow_cpu *reader;

	stream->err = ucow_cpu_create(machine, &reader);
	if (!stream->err) {
		ucow_cpu_attach(reader, stream->snapshot);
		stream->err = stream_slots(stream, reader);
		ucow_cpu_destroy(reader);
	}
	atomic_store(&stream->done, true);
	return NULL;
}

/* Transfers until the stream is done, and never fewer than DURING. */
static int serve(struct stream *stream)
{
	int err = 0;

	while (!err && (atomic_load(&stream->written) < DURING || !atomic_load(&stream->done))) {
		err = transfer(BEFORE + 1 + atomic_load(&stream->written));
		atomic_fetch_add(&stream->written, 1);
	}
	if (err)
		atomic_store(&stream->written, DURING); /* nobody waits for what does not come */
	return err;
}

/* ---- the proof ---- */

/* Returns: whether the file shows the store as of @expected, each record whole and the sum right. */
static bool file_is_consistent(FILE *file, const uint64_t *expected)
{
	unsigned accounts = 0, later = 0, torn = 0;
	struct record record;
	int64_t sum = 0;

	rewind(file);
	for (unsigned slot = 0; slot < SLOTS; slot++) {
		if (fread(&record, sizeof(record), 1, file) != 1)
			return false;
		if (!record.key[0])
			continue;
		accounts++;
		torn += record.check != check_of(&record);
		later += record.stamp != expected[slot];
		sum += record.balance;
	}
	printf("file: %u accounts, %u torn, %u of another moment, balances add up to %lld\n", accounts, torn, later,
	       (long long)sum);
	return accounts == ACCOUNTS && !torn && !later && sum == (int64_t)ACCOUNTS * DEPOSIT;
}

/* Take the snapshot, stream it, and serve writes meanwhile. */
static bool save_while_serving(struct ucow_snapshot_group *group, struct stream *stream)
{
	static uint64_t expected[SLOTS];
	struct ucow_snapshot_group_stat stat;
	pthread_t thread;
	bool right;

	if (ucow_snapshot_take(group, UCOW_SNAPSHOT_CHECKSUM, &stream->snapshot))
		return false;
	memcpy(expected, stamps, sizeof(stamps));
	if (pthread_create(&thread, NULL, run_stream, stream))
		return false;
	right = !serve(stream);
	pthread_join(thread, NULL);
	ucow_snapshot_group_stat(group, &stat);
	printf("%llu transfers while the snapshot was streamed, %llu KiB kept for it\n",
	       (unsigned long long)atomic_load(&stream->written), (unsigned long long)stat.kept_bytes / 1024);
	right = right && !stream->err && !fflush(stream->file) && file_is_consistent(stream->file, expected);
	right = right && memcmp(expected, stamps, sizeof(stamps)) && stat.kept_bytes;
	right = right && !ucow_snapshot_verify(stream->snapshot);
	return !ucow_mm_destroy(stream->snapshot) && right;
}

int main(void)
{
	struct stream stream = {.file = tmpfile()};
	struct ucow_snapshot_group *group;
	bool right;

	if (!stream.file || open_store() || ucow_snapshot_group_create(live, NULL, &group))
		return 1;
	for (uint64_t stamp = 1; stamp <= BEFORE; stamp++)
		if (transfer(stamp))
			return 1;
	right = save_while_serving(group, &stream);
	fclose(stream.file);

	ucow_snapshot_group_destroy(group);
	ucow_cpu_destroy(cpu);
	if (ucow_mm_destroy(live) || ucow_machine_destroy(machine))
		return 1;
	puts(right ? "the file is the store as it was at the snapshot" : "the file is NOT the store at the snapshot");
	return right ? 0 : 1;
}
