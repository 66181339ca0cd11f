/* SPDX-License-Identifier: MIT */
/* An intrusive, circular, doubly linked list. No locking: the owner says what guards it. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include "base/base.h"

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *head)
{
	head->next = head->prev = head;
}

static inline bool list_is_empty(const struct list *head)
{
	return head->next == head;
}

static inline void list_add(struct list *head, struct list *item)
{
	item->next = head->next;
	item->prev = head;
	head->next->prev = item;
	head->next = item;
}

static inline void list_add_tail(struct list *head, struct list *item)
{
	list_add(head->prev, item);
}

static inline void list_del(struct list *item)
{
	item->prev->next = item->next;
	item->next->prev = item->prev;
}

#define LIST_FOR_EACH(item, head) for (struct list *item = (head)->next; item != (head); item = item->next)

#endif
