/* SPDX-License-Identifier: MIT */
/*
 * Who pinned a page. Almost every pinned page is pinned through one space (a pinned anon page is exclusive), and then
 * the page's word names the account. Pages that several spaces have pinned (shared mappings, historical policies) say
 * PIN_ACCOUNT_MANY, and the owners stand in a table here; a release without the space takes the oldest owner's.
 *
 * Ordering: a word that says MANY is written under pins_lock after the owners are in the table, and an unpin that read
 * MANY takes the lock, so it finds an owner.
 */
#include "frame/frame.h"

#include "base/host.h"

#include <errno.h>

/* One outstanding pin of a page with several owners, oldest first. */
struct pin_shares {
	struct pin_shares *next;
	struct ucow_page *page;
	struct pin_account *account;
};

/* ---- accounts ---- */

static int account_number_take(struct frame_pool *pool, struct pin_account *account)
{
	if (!pool->accounts) {
		void *area = host_map(PIN_ACCOUNT_LIMIT * sizeof(*pool->accounts));

		if (!area)
			return -ENOMEM;
		pool->accounts = area;
	}
	for (unsigned tries = 1; tries < PIN_ACCOUNT_LIMIT; tries++) {
		unsigned id = pool->next_account++ % (PIN_ACCOUNT_LIMIT - 1) + 1;

		if (!pool->accounts[id]) {
			pool->accounts[id] = account;
			account->id = (uint16_t)id;
			return 0;
		}
	}
	return -ENOMEM;
}

struct pin_account *pin_account_create(struct frame_pool *pool, uint64_t limit)
{
	struct pin_account *account;
	int error;

	if (inject_fails(pool->inject, UCOW_INJECT_OTHER))
		return NULL;
	account = host_alloc(sizeof(*account));
	if (!account)
		return NULL;
	atomic_init(&account->state, PIN_ACCOUNT_OPEN);
	atomic_init(&account->limit, limit);
	account->pool = pool;
	mutex_lock(&pool->pins_lock);
	error = account_number_take(pool, account);
	mutex_unlock(&pool->pins_lock);
	if (error) {
		host_free(account);
		return NULL;
	}
	return account;
}

static void account_free(struct pin_account *account)
{
	struct frame_pool *pool = account->pool;

	mutex_lock(&pool->pins_lock);
	pool->accounts[account->id] = NULL;
	mutex_unlock(&pool->pins_lock);
	host_free(account);
}

void pin_account_close(struct pin_account *account)
{
	if (account && atomic_fetch_and(&account->state, ~PIN_ACCOUNT_OPEN) == PIN_ACCOUNT_OPEN)
		account_free(account);
}

uint64_t pin_account_reserve(struct pin_account *account, uint64_t npages)
{
	uint64_t limit = atomic_load_explicit(&account->limit, memory_order_relaxed);
	uint64_t before = atomic_fetch_add(&account->state, npages) & ~PIN_ACCOUNT_OPEN, room, excess;

	if (likely(!limit))
		return npages;
	room = limit > before ? limit - before : 0;
	excess = npages > room ? npages - room : 0;
	if (excess)
		atomic_fetch_sub(&account->state, excess);
	return npages - excess;
}

void pin_account_release(struct pin_account *account, uint64_t npages)
{
	if (npages && atomic_fetch_sub(&account->state, npages) == npages)
		account_free(account);
}

/* ---- pages ---- */

static uint64_t word_account(uint64_t word)
{
	return word >> 48;
}

static uint64_t word_pins(uint64_t word)
{
	return word >> 32 & 0xffff;
}

static bool word_is_full(uint64_t word)
{
	return word_pins(word) == PAGE_PIN_MAX || (word & PAGE_REF_MASK) + UCOW_GUP_PIN_COUNTING_BIAS >= PAGE_REF_MAX;
}

static struct pin_shares **share_bucket(struct frame_pool *pool, const struct ucow_page *page)
{
	return &pool->shares[(uint64_t)(page - pool->pages) % FRAME_PIN_BUCKETS];
}

/* Note that @account has @n more pins on @page. All or nothing. Returns: 0; -ENOMEM. */
static int shares_append(struct frame_pool *pool, struct ucow_page *page, struct pin_account *account, uint64_t n)
{
	struct pin_shares **end = share_bucket(pool, page), **start;

	while (*end)
		end = &(*end)->next;
	for (start = end; n; n--) {
		struct pin_shares *share = inject_fails(pool->inject, UCOW_INJECT_OTHER) ? NULL
											 : host_alloc(sizeof(*share));

		if (!share)
			break;
		*share = (struct pin_shares){.page = page, .account = account};
		*end = share;
		end = &share->next;
	}
	while (n && *start) {
		struct pin_shares *share = *start;

		*start = share->next;
		host_free(share);
	}
	return n ? -ENOMEM : 0;
}

/*
 * Strike out one pin of @page: the oldest of @account, else (NULL, or a plain release has taken that one) the oldest of
 * all. Returns: whose it was.
 */
static struct pin_account *share_take(struct frame_pool *pool, const struct ucow_page *page,
				      const struct pin_account *account)
{
	struct pin_shares **found = NULL, *share;
	struct pin_account *owner;

	for (struct pin_shares **link = share_bucket(pool, page); *link; link = &(*link)->next) {
		if ((*link)->page != page || (found && (*link)->account != account))
			continue;
		found = link;
		if (!account || (*link)->account == account)
			break;
	}
	if (!found)
		UCOW_BUG("a shared pin has no owner");
	share = *found;
	owner = share->account;
	*found = share->next;
	host_free(share);
	return owner;
}

static uint64_t word_with_account(uint64_t word, uint64_t account)
{
	return (word & ~((uint64_t)0xffff << 48)) | account << 48;
}

/* The word still names one owner: move its pins to the table. Returns: 0, also if the word changed meanwhile; -ENOMEM.
 */
static int word_make_shared(struct frame_pool *pool, struct ucow_page *page, uint64_t word)
{
	struct pin_account *owner = pool->accounts[word_account(word)];
	uint64_t npins = word_pins(word);
	int error = shares_append(pool, page, owner, npins);

	if (error)
		return error;
	if (!atomic_compare_exchange_strong(&page->word, &word, word_with_account(word, PIN_ACCOUNT_MANY)))
		while (npins--)
			share_take(pool, page, owner);
	return 0;
}

/* One try to pin a page that somebody else may have pinned. Returns: 0; -EAGAIN (the word changed); -ENOMEM. */
static int pin_shared_locked(struct frame_pool *pool, struct ucow_page *page, struct pin_account *account)
{
	uint64_t word = atomic_load(&page->word), id = account->id;
	int error;

	if (word_is_full(word))
		return -ENOMEM;
	if (word_pins(word) && word_account(word) != id) {
		if (word_account(word) != PIN_ACCOUNT_MANY) {
			error = word_make_shared(pool, page, word);
			return error ? error : -EAGAIN;
		}
		error = shares_append(pool, page, account, 1);
		if (error)
			return error;
		id = PIN_ACCOUNT_MANY;
	}
	if (atomic_compare_exchange_strong(&page->word, &word, word_with_account(word, id) + PAGE_ONE_PIN))
		return 0;
	if (id == PIN_ACCOUNT_MANY)
		share_take(pool, page, account);
	return -EAGAIN;
}

static int pin_shared(struct ucow_page *page, struct pin_account *account)
{
	struct frame_pool *pool = page_pool(page);
	int error;

	mutex_lock(&pool->pins_lock);
	do
		error = pin_shared_locked(pool, page, account);
	while (error == -EAGAIN);
	mutex_unlock(&pool->pins_lock);
	return error;
}

int page_pin(struct ucow_page *page, struct pin_account *account)
{
	uint64_t before = atomic_load_explicit(&page->word, memory_order_relaxed), wanted;

	do {
		UCOW_BUG_ON((before & PAGE_REF_MASK) == 0);
		if (unlikely(word_is_full(before)))
			return -ENOMEM;
		if (unlikely(word_pins(before) && word_account(before) != account->id))
			return pin_shared(page, account);
		wanted = word_with_account(before, account->id) + PAGE_ONE_PIN;
	} while (!atomic_compare_exchange_weak_explicit(&page->word, &before, wanted, memory_order_acq_rel,
							memory_order_relaxed));
	return 0;
}

int page_try_pin(struct ucow_page *page, const struct pin_account *account)
{
	uint64_t before = atomic_load_explicit(&page->word, memory_order_relaxed), wanted;

	do {
		if ((before & PAGE_REF_MASK) == 0 || word_is_full(before) ||
		    (word_pins(before) && word_account(before) != account->id))
			return -EAGAIN;
		wanted = word_with_account(before, account->id) + PAGE_ONE_PIN;
	} while (!atomic_compare_exchange_weak(&page->word, &before, wanted));
	return 0;
}

struct pin_account *page_unpin(struct ucow_page *page, const struct pin_account *account)
{
	struct frame_pool *pool = page_pool(page);
	uint64_t before = atomic_fetch_sub_explicit(&page->word, PAGE_ONE_PIN, memory_order_acq_rel);
	struct pin_account *owner;

	if (!word_pins(before) || (before & PAGE_REF_MASK) < UCOW_GUP_PIN_COUNTING_BIAS)
		UCOW_BUG("unpin of a page that is not pinned");
	if (unlikely(word_account(before) == PIN_ACCOUNT_MANY)) {
		mutex_lock(&pool->pins_lock);
		owner = share_take(pool, page, account);
		mutex_unlock(&pool->pins_lock);
	} else {
		owner = pool->accounts[word_account(before)];
	}
	if ((before & PAGE_REF_MASK) == UCOW_GUP_PIN_COUNTING_BIAS)
		page_free(page);
	return owner;
}
