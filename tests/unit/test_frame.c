/* SPDX-License-Identifier: MIT */
/* Frames: the buddy allocator, known-zero and poisoned frames, give-back, references, pins and their accounts. */
#include "frame/frame.h"
#include "tap.h"

#include <errno.h>
#include <pthread.h>

static struct frame_pool pool;
static struct inject inject;
static struct counters counters;

static void open_pool(unsigned blocks, bool poison)
{
	memset(&inject, 0, sizeof(inject));
	memset(&counters, 0, sizeof(counters));
	REQUIRE_EQ(frame_pool_init(&pool, blocks * FRAME_BLOCK_BYTES, &inject, &counters, poison, false), 0);
}

static void close_pool(void)
{
	const char *wrong = buddy_check(&pool);

	CHECK_STR_EQ(wrong ? wrong : "", "");
	CHECK_EQ(frame_pool_used(&pool), 0);
	frame_pool_destroy(&pool);
}

static uint64_t draw(uint64_t *state, uint64_t n)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % n;
}

static bool is_filled_with(const struct ucow_page *page, uint8_t byte)
{
	const uint8_t *bytes = page_bytes(page);

	for (unsigned i = 0; i < UCOW_PAGE_SIZE; i++)
		if (bytes[i] != byte)
			return false;
	return true;
}

/* ---- buddy ---- */

TEST(blocks_are_aligned_to_their_order_and_disjoint)
{
	static struct ucow_page *blocks[FRAME_MAX_ORDER + 1];

	open_pool(4, false);
	for (unsigned order = 0; order <= FRAME_MAX_ORDER; order++) {
		blocks[order] = buddy_alloc(&pool, order);
		CHECK(blocks[order] != NULL);
		CHECK_EQ(page_to_pfn(blocks[order]) % (1u << order), 0);
		for (unsigned k = 0; k < order; k++) {
			uint64_t a = page_to_pfn(blocks[order]), b = page_to_pfn(blocks[k]);

			CHECK(a + (1u << order) <= b || b + (1u << k) <= a);
		}
	}
	CHECK_EQ(frame_pool_used(&pool), 1023);
	for (unsigned order = 0; order <= FRAME_MAX_ORDER; order++)
		buddy_free(&pool, blocks[order], order);
	close_pool();
}

/* Would catch buddies that do not find each other again: memory that falls to pieces for good. */
TEST(freed_blocks_merge_again)
{
	static struct ucow_page *pages[FRAME_BLOCK_PAGES];
	uint64_t state = tap_seed(), whole;
	struct ucow_page *block;

	open_pool(2, false);
	block = buddy_alloc(&pool, FRAME_MAX_ORDER); /* the other block has the zero page */
	CHECK(block != NULL);
	buddy_free(&pool, block, FRAME_MAX_ORDER);
	whole = pool.free_blocks;
	for (unsigned i = 0; i < FRAME_BLOCK_PAGES; i++)
		pages[i] = buddy_alloc(&pool, 0);
	for (unsigned i = FRAME_BLOCK_PAGES; i; i--) { /* in any order */
		unsigned k = (unsigned)draw(&state, i);
		struct ucow_page *page = pages[k];

		pages[k] = pages[i - 1];
		buddy_free(&pool, page, 0);
	}
	CHECK_EQ(pool.free_blocks, whole);
	CHECK_EQ(pool.free_pages, 1023);
	close_pool();
}

TEST(splitting_leaves_one_block_of_each_order)
{
	struct ucow_page *page;

	open_pool(1, false); /* the zero page has split the only block already */
	for (unsigned order = 0; order < FRAME_MAX_ORDER; order++) {
		CHECK(!list_is_empty(&pool.free[order]));
		CHECK(pool.free[order].next == pool.free[order].prev);
	}
	CHECK(list_is_empty(&pool.free[FRAME_MAX_ORDER]));
	page = buddy_alloc(&pool, FRAME_MAX_ORDER);
	CHECK(page == NULL);
	close_pool();
}

/* Random orders, random lifetimes, no two blocks share a frame; in the end all of it is free. */
TEST(random_blocks_do_not_overlap)
{
	static struct {
		struct ucow_page *page;
		unsigned order;
	} held[200];
	static uint8_t owner[4 * FRAME_BLOCK_PAGES];
	uint64_t state = tap_seed();
	unsigned refused = 0;

	open_pool(4, false);
	for (unsigned step = 0; step < 20000; step++) {
		unsigned i = (unsigned)draw(&state, 200), order = (unsigned)draw(&state, FRAME_MAX_ORDER + 1);

		if (held[i].page) {
			memset(owner + page_to_pfn(held[i].page), 0, (size_t)1 << held[i].order);
			buddy_free(&pool, held[i].page, held[i].order);
			held[i].page = NULL;
			continue;
		}
		held[i].page = buddy_alloc(&pool, order);
		held[i].order = order;
		refused += !held[i].page;
		for (unsigned k = 0; held[i].page && k < 1u << order; k++)
			CHECK(!owner[page_to_pfn(held[i].page) + k]++);
		if (step % 500 == 0)
			CHECK(!buddy_check(&pool));
	}
	CHECK(refused > 100); /* fragmentation and exhaustion were met */
	for (unsigned i = 0; i < 200; i++)
		if (held[i].page)
			buddy_free(&pool, held[i].page, held[i].order);
	CHECK_EQ(pool.free_pages, 4 * FRAME_BLOCK_PAGES - 1);
	close_pool();
}

static struct ucow_page *first_free(unsigned order)
{
	return container_of(pool.free[order].next, struct ucow_page, link);
}

/* Would catch a checker that looks away: each kind of damage is seen, and its repair as well. */
TEST(the_checker_sees_damage)
{
	struct ucow_page *page;

	open_pool(1, false);
	page = first_free(3);
	CHECK(!buddy_check(&pool));
	page->order = 4;
	CHECK(buddy_check(&pool));
	page->order = 3;
	page_clear(page, PAGE_FREE);
	CHECK(buddy_check(&pool));
	page_set(page, PAGE_FREE);
	atomic_store(&page->word, 1);
	CHECK(buddy_check(&pool));
	atomic_store(&page->word, 0);
	atomic_store(&page->mapcount, 1);
	CHECK(buddy_check(&pool));
	atomic_store(&page->mapcount, 0);
	pool.free_pages++;
	CHECK(buddy_check(&pool));
	pool.free_pages--;
	close_pool();
}

/* ---- single frames ---- */

/* Every frame but the zero page can be had, each once; then NULL; then again. */
TEST(all_frames_can_be_had)
{
	static struct ucow_page *pages[2 * FRAME_BLOCK_PAGES];
	enum { N = 2 * FRAME_BLOCK_PAGES - 1 };

	open_pool(2, true);
	for (int round = 0; round < 3; round++) {
		for (unsigned i = 0; i < N; i++) {
			pages[i] = frame_alloc(&pool, FRAME_ANY);
			CHECK(pages[i] && page_refcount(pages[i]) == 1 && page_mapcount(pages[i]) == 0);
			CHECK(pages[i] != pool.zero_page && !page_is(pages[i], PAGE_DIRTY));
			page_set(pages[i], PAGE_DIRTY); /* nobody gets it twice, nobody inherits flags */
			*(unsigned *)page_bytes(pages[i]) = i;
		}
		CHECK(!frame_alloc(&pool, FRAME_ANY));
		CHECK_EQ(frame_pool_used(&pool), N);
		for (unsigned i = 0; i < N; i++)
			CHECK_EQ(*(unsigned *)page_bytes(pages[i]), i);
		for (unsigned i = 0; i < N; i++)
			page_put(pages[(i * 7) % N]);
	}
	close_pool();
}

static void *free_half(void *arg)
{
	struct ucow_page **pages = arg;

	for (unsigned i = 0; i < 40; i++)
		page_put(pages[i]);
	return NULL;
}

/* Would catch frames that stay in the cache of a thread that has gone while others starve. */
TEST(frames_in_other_threads_caches_are_free_memory)
{
	static struct ucow_page *pages[FRAME_BLOCK_PAGES];
	enum { N = FRAME_BLOCK_PAGES - 1 };
	pthread_t thread;

	open_pool(1, true);
	for (unsigned i = 0; i < N; i++)
		pages[i] = frame_alloc(&pool, FRAME_ANY);
	CHECK(!frame_alloc(&pool, FRAME_ANY));
	CHECK_EQ(pthread_create(&thread, NULL, free_half, pages), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(frame_pool_used(&pool), N - 40);
	for (unsigned i = 0; i < 40; i++) {
		pages[i] = frame_alloc(&pool, FRAME_ANY);
		CHECK(pages[i] != NULL);
	}
	for (unsigned i = 0; i < N; i++)
		page_put(pages[i]);
	close_pool();
}

/* Whatever a frame held before: known to be zero means zero. */
TEST(zeroed_frames_are_zero)
{
	static struct ucow_page *pages[700];

	for (int poison = 0; poison < 2; poison++) {
		open_pool(2, poison);
		for (unsigned round = 0; round < 4; round++) {
			for (unsigned i = 0; i < 700; i++) {
				pages[i] = frame_alloc(&pool, FRAME_ZEROED);
				CHECK(pages[i] && is_filled_with(pages[i], 0));
				if (i % 3)
					memset(page_bytes(pages[i]), (int)i, UCOW_PAGE_SIZE);
			}
			for (unsigned i = 0; i < 700; i++)
				page_put(pages[i]);
		}
		close_pool();
	}
}

/* Would catch a block that counts as zero because one half of it does. */
TEST(merging_does_not_spread_the_zero_mark)
{
	static struct ucow_page *pages[FRAME_BLOCK_PAGES];
	enum { N = FRAME_BLOCK_PAGES - 1 };

	open_pool(1, false);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < N; i++) {
			pages[i] = frame_alloc(&pool, i % 2 ? FRAME_ZEROED : FRAME_ANY);
			CHECK(pages[i] != NULL);
			if (i % 2)
				CHECK(is_filled_with(pages[i], 0));
			if ((i + round) % 5 == 0)
				memset(page_bytes(pages[i]), 0xee, UCOW_PAGE_SIZE);
		}
		for (unsigned i = 0; i < N; i++)
			page_put(pages[i]);
	}
	close_pool();
}

TEST(freed_frames_hold_the_poison)
{
	struct ucow_page *page;

	open_pool(1, true);
	page = frame_alloc(&pool, FRAME_ZEROED);
	CHECK(!frame_poison_check(page));
	page_put(page);
	CHECK(frame_poison_check(page));
	((uint8_t *)page_bytes(page))[4095] ^= 1;
	CHECK(!frame_poison_check(page));
	((uint8_t *)page_bytes(page))[4095] ^= 1;
	close_pool();
}

/* Whether @misuse, in a process with a pool of its own, ends in an abort. */
static bool aborts(void (*misuse)(void))
{
	int status = 0;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		REQUIRE(freopen("/dev/null", "w", stderr) != NULL);
		open_pool(1, true);
		misuse();
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void write_after_free(void)
{
	struct ucow_page *page = frame_alloc(&pool, FRAME_ZEROED);

	page_put(page);
	*(uint8_t *)page_bytes(page) = 1;
	for (unsigned i = 0; i < FRAME_BLOCK_PAGES - 1; i++)
		frame_alloc(&pool, FRAME_ANY);
}

/* A device that writes after its page was freed is found out when the frame is used again. */
TEST(write_after_free_aborts)
{
	CHECK(aborts(write_after_free));
}

/* With a pin's worth of other references, so that the count alone does not show it. */
static void unpin_a_get(void)
{
	struct ucow_page *page = frame_alloc(&pool, FRAME_ZEROED);

	for (unsigned i = 0; i < 2 * UCOW_GUP_PIN_COUNTING_BIAS; i++)
		page_get(page);
	page_unpin(page, NULL);
}

/* Would catch a release that eats the references of others. */
TEST(unpin_of_what_was_not_pinned_aborts)
{
	CHECK(aborts(unpin_a_get));
}

/* RAM that is not used goes back to the host in blocks, with hysteresis, and comes back as zeros. */
TEST(free_blocks_are_given_back)
{
	enum { BLOCKS = 44 };
	static struct ucow_page *blocks[BLOCKS];
	uint64_t most;

	open_pool(BLOCKS + 1, false);
	for (unsigned i = 0; i < BLOCKS; i++) {
		blocks[i] = buddy_alloc(&pool, FRAME_MAX_ORDER);
		CHECK(blocks[i] != NULL);
		memset(page_bytes(blocks[i]), 0xee, UCOW_PAGE_SIZE);
	}
	most = pool.committed_blocks;
	for (unsigned i = 0; i < BLOCKS; i++) {
		for (unsigned k = 0; k < FRAME_BLOCK_PAGES; k++)
			page_clear(&blocks[i][k], PAGE_ZEROED);
		buddy_free(&pool, blocks[i], FRAME_MAX_ORDER);
	}
	CHECK(pool.committed_blocks < most && pool.committed_blocks > 1);
	CHECK(!list_is_empty(&pool.cold));
	for (unsigned i = 0; i < BLOCKS; i++) {
		blocks[i] = buddy_alloc(&pool, FRAME_MAX_ORDER);
		CHECK(blocks[i] != NULL);
		if (page_is(blocks[i], PAGE_ZEROED))
			CHECK(is_filled_with(blocks[i], 0));
	}
	CHECK_EQ(pool.committed_blocks, most);
	for (unsigned i = 0; i < BLOCKS; i++)
		buddy_free(&pool, blocks[i], FRAME_MAX_ORDER);
	close_pool();
}

TEST(a_pool_that_keeps_its_blocks_gives_none_back)
{
	enum { BLOCKS = 40 };
	static struct ucow_page *blocks[BLOCKS];
	uint64_t most;

	memset(&inject, 0, sizeof(inject));
	REQUIRE_EQ(frame_pool_init(&pool, (BLOCKS + 1) * FRAME_BLOCK_BYTES, &inject, &counters, false, true), 0);
	for (unsigned i = 0; i < BLOCKS; i++)
		blocks[i] = buddy_alloc(&pool, FRAME_MAX_ORDER);
	most = pool.committed_blocks;
	for (unsigned i = 0; i < BLOCKS; i++)
		buddy_free(&pool, blocks[i], FRAME_MAX_ORDER);
	CHECK(pool.committed_blocks == most && list_is_empty(&pool.cold));
	close_pool();
}

TEST(injected_failure_takes_no_frame)
{
	struct ucow_page *page;

	open_pool(1, true);
	inject_arm(&inject, UCOW_INJECT_FRAME, 2);
	page = frame_alloc(&pool, FRAME_ANY);
	CHECK(page != NULL);
	CHECK(!frame_alloc(&pool, FRAME_ANY));
	CHECK_EQ(frame_pool_used(&pool), 1);
	page_put(page);
	page = frame_alloc(&pool, FRAME_ANY);
	CHECK(page != NULL);
	page_put(page);
	close_pool();
}

TEST(two_pools_keep_their_frames_apart)
{
	static struct frame_pool other;
	struct ucow_page *a, *b;

	open_pool(1, true);
	CHECK_EQ(frame_pool_init(&other, FRAME_BLOCK_BYTES, &inject, &counters, true, false), 0);
	a = frame_alloc(&pool, FRAME_ANY);
	b = frame_alloc(&other, FRAME_ANY);
	CHECK(page_pool(a) == &pool && page_pool(b) == &other && page_bytes(a) != page_bytes(b));
	CHECK(pfn_to_page(&pool, page_to_pfn(a)) == a && pfn_to_page(&other, page_to_pfn(b)) == b);
	page_put(b);
	CHECK_EQ(frame_pool_used(&pool), 1);
	frame_pool_destroy(&other);
	page_put(a);
	close_pool();
}

/* ---- references and pins ---- */

TEST(references_keep_a_frame)
{
	struct ucow_page *page;

	open_pool(1, true);
	page = frame_alloc(&pool, FRAME_ANY);
	page_get(page);
	CHECK_EQ(page_try_get(page), 0);
	CHECK_EQ(page_refcount(page), 3);
	page_put(page);
	page_put(page);
	CHECK_EQ(frame_pool_used(&pool), 1);
	page_put(page);
	CHECK_EQ(frame_pool_used(&pool), 0);
	close_pool();
}

/* Would catch a count that wraps to zero and frees a page in use. */
TEST(reference_count_refuses_to_overflow)
{
	struct ucow_page *page;

	open_pool(1, true);
	page = frame_alloc(&pool, FRAME_ANY);
	atomic_fetch_add(&page->word, PAGE_REF_MAX - 2);
	CHECK_EQ(page_try_get(page), 0);
	CHECK_EQ(page_try_get(page), -ENOMEM);
	CHECK_EQ(page_refcount(page), PAGE_REF_MAX);
	atomic_fetch_sub(&page->word, PAGE_REF_MAX - 1);
	page_put(page);
	close_pool();
}

static struct pin_account *open_account(uint64_t limit)
{
	struct pin_account *account = pin_account_create(&pool, limit);

	REQUIRE(account != NULL);
	return account;
}

/* Pins one page as get_user_pages does: the count first, then the page. */
static int pin(struct ucow_page *page, struct pin_account *account)
{
	int error;

	if (!pin_account_reserve(account, 1))
		return -ENOMEM;
	error = page_pin(page, account);
	if (error)
		pin_account_release(account, 1);
	return error;
}

static void unpin(struct ucow_page *page)
{
	pin_account_release(page_unpin(page, NULL), 1);
}

TEST(a_pin_is_1024_references_and_one_pin)
{
	struct pin_account *account;
	struct ucow_page *page;

	open_pool(1, true);
	account = open_account(0);
	page = frame_alloc(&pool, FRAME_ANY);
	CHECK(!page_maybe_pinned(page));
	CHECK_EQ(pin(page, account), 0);
	CHECK_EQ(page_refcount(page), 1 + UCOW_GUP_PIN_COUNTING_BIAS);
	CHECK_EQ(page_pincount(page), 1);
	CHECK(page_maybe_pinned(page));
	CHECK_EQ(pin(page, account), 0);
	CHECK_EQ(page_pincount(page), 2);
	CHECK_EQ(pin_account_count(account), 2);
	unpin(page);
	page_put(page); /* the pin keeps it */
	CHECK_EQ(frame_pool_used(&pool), 1);
	unpin(page);
	CHECK_EQ(frame_pool_used(&pool), 0);
	CHECK_EQ(pin_account_count(account), 0);
	pin_account_close(account);
	close_pool();
}

/* The public question has false positives, the pin count has none. */
TEST(many_references_only_look_like_a_pin)
{
	struct ucow_page *page;

	open_pool(1, true);
	page = frame_alloc(&pool, FRAME_ANY);
	for (unsigned i = 0; i < UCOW_GUP_PIN_COUNTING_BIAS - 2; i++)
		page_get(page);
	CHECK(!page_maybe_pinned(page));
	page_get(page);
	CHECK(page_maybe_pinned(page));
	CHECK_EQ(page_pincount(page), 0);
	for (unsigned i = 0; i < UCOW_GUP_PIN_COUNTING_BIAS; i++)
		page_put(page);
	close_pool();
}

TEST(the_zero_page_is_never_pinned)
{
	open_pool(1, true);
	CHECK(page_is(pool.zero_page, PAGE_ZERO));
	CHECK(!page_maybe_pinned(pool.zero_page));
	CHECK(is_filled_with(pool.zero_page, 0));
	close_pool();
}

TEST(pin_count_refuses_to_overflow)
{
	struct pin_account *account;
	struct ucow_page *page;
	unsigned pins = 0;

	open_pool(1, true);
	account = open_account(0);
	page = frame_alloc(&pool, FRAME_ANY);
	while (pins < 3000000 && !pin(page, account))
		pins++;
	CHECK_EQ(pins, PAGE_PIN_MAX);
	CHECK_EQ(page_pincount(page), PAGE_PIN_MAX);
	CHECK_EQ(pin_account_count(account), PAGE_PIN_MAX);
	for (; pins; pins--)
		unpin(page);
	CHECK_EQ(page_refcount(page), 1);
	page_put(page);
	pin_account_close(account);
	close_pool();
}

TEST(limits_reserve_what_fits)
{
	struct pin_account *account;

	open_pool(1, true);
	account = open_account(10);
	CHECK_EQ(pin_account_reserve(account, 4), 4);
	CHECK_EQ(pin_account_reserve(account, 8), 6);
	CHECK_EQ(pin_account_reserve(account, 1), 0);
	pin_account_release(account, 3);
	CHECK_EQ(pin_account_reserve(account, 8), 3);
	atomic_store(&account->limit, 5); /* lowered below what is held */
	CHECK_EQ(pin_account_reserve(account, 1), 0);
	atomic_store(&account->limit, 0);
	CHECK_EQ(pin_account_reserve(account, 100), 100);
	pin_account_release(account, 110);
	pin_account_close(account);
	close_pool();
}

/* The space goes first, its pins later. Run with a leak checker: the account goes with the last of them. */
TEST(an_account_outlives_its_space)
{
	struct pin_account *account;
	struct ucow_page *pages[3];

	open_pool(1, true);
	account = open_account(0);
	for (int i = 0; i < 3; i++) {
		pages[i] = frame_alloc(&pool, FRAME_ANY);
		CHECK_EQ(pin(pages[i], account), 0);
		page_put(pages[i]);
	}
	pin_account_close(account);
	for (int i = 0; i < 3; i++)
		unpin(pages[i]);
	CHECK_EQ(frame_pool_used(&pool), 0);
	close_pool();
}

/* Several spaces pin one page: the sum is right at any time, and each count is back at zero in the end. */
TEST(several_accounts_share_a_page)
{
	enum { ACCOUNTS = 4, PINS = 400 };
	struct pin_account *accounts[ACCOUNTS];
	uint64_t state = tap_seed(), held = 0, sum;
	struct ucow_page *page;

	open_pool(1, true);
	for (int i = 0; i < ACCOUNTS; i++)
		accounts[i] = open_account(0);
	page = frame_alloc(&pool, FRAME_ANY);
	for (unsigned step = 0; step < 4 * PINS; step++) {
		if (held && (draw(&state, 2) || step >= 3 * PINS)) {
			unpin(page);
			held--;
		} else {
			CHECK_EQ(pin(page, accounts[draw(&state, ACCOUNTS)]), 0);
			held++;
		}
		sum = 0;
		for (int i = 0; i < ACCOUNTS; i++)
			sum += pin_account_count(accounts[i]);
		CHECK_EQ(sum, held);
		CHECK_EQ(page_pincount(page), held);
	}
	for (; held; held--)
		unpin(page);
	for (int i = 0; i < ACCOUNTS; i++) {
		CHECK_EQ(pin_account_count(accounts[i]), 0);
		pin_account_close(accounts[i]);
	}
	page_put(page);
	close_pool();
}

/* A release that says whose pin it is settles with that account, in any order. */
TEST(named_releases_settle_with_their_account)
{
	struct pin_account *a, *b, *owner;
	struct ucow_page *page;

	open_pool(1, true);
	a = open_account(0);
	b = open_account(0);
	page = frame_alloc(&pool, FRAME_ANY);
	CHECK_EQ(pin(page, a), 0);
	CHECK_EQ(pin(page, b), 0);
	CHECK_EQ(pin(page, a), 0);
	owner = page_unpin(page, b);
	CHECK(owner == b);
	pin_account_release(owner, 1);
	CHECK(pin_account_count(a) == 2 && pin_account_count(b) == 0);
	CHECK_EQ(pin(page, b), 0);
	unpin(page); /* unnamed: the oldest, one of a's */
	CHECK(pin_account_count(a) == 1 && pin_account_count(b) == 1);
	owner = page_unpin(page, b);
	CHECK(owner == b);
	pin_account_release(owner, 1);
	unpin(page);
	CHECK(pin_account_count(a) == 0 && pin_account_count(b) == 0);
	pin_account_close(a);
	pin_account_close(b);
	page_put(page);
	close_pool();
}

/* Account numbers are used again, thousands of spaces later. */
TEST(account_numbers_do_not_run_out)
{
	open_pool(1, true);
	for (unsigned i = 0; i < 70000; i++)
		pin_account_close(open_account(0));
	close_pool();
}

/* ---- page lock ---- */

static void *lock_and_count(void *arg)
{
	struct ucow_page *page = arg;

	for (unsigned i = 0; i < 2000; i++) {
		page_lock(page);
		++*(uint64_t *)page_bytes(page); /* not atomic: the lock is what makes this right */
		page_unlock(page);
	}
	return NULL;
}

TEST(page_lock_excludes)
{
	struct ucow_page *page;
	pthread_t threads[3];

	open_pool(1, true);
	page = frame_alloc(&pool, FRAME_ZEROED);
	CHECK(page_trylock(page));
	CHECK(!page_trylock(page));
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, lock_and_count, page), 0);
	CHECK_EQ(*(uint64_t *)page_bytes(page), 0); /* they wait */
	page_unlock(page);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(*(uint64_t *)page_bytes(page), 6000);
	CHECK(page_trylock(page));
	page_unlock(page);
	page_put(page);
	close_pool();
}

TAP_MAIN()
