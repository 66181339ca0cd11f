/* SPDX-License-Identifier: MIT */
/* What stamps are right, from what their writers say. */
#include "stress.h"

struct look model_look(const struct family *family, unsigned page)
{
	const struct page_state *state = &family->pages[page];
	uint64_t drops = atomic_load(&state->drops);

	return (struct look){.least = atomic_load(&state->written), .drops = drops};
}

bool model_may_be_gone(const struct family *family, unsigned page, struct look look)
{
	return (look.drops & 1) || atomic_load(&family->pages[page].drops) != look.drops;
}

static const char *check_identity(const struct family *family, unsigned page, uint64_t stamp)
{
	if (stamp_space(stamp) != family->number)
		return "a stamp of another space";
	return stamp_page(stamp) == page ? NULL : "a stamp of another page";
}

const char *model_check(const struct family *family, unsigned page, struct look look, uint64_t stamp)
{
	const char *wrong;

	if (!stamp)
		return !look.least || model_may_be_gone(family, page, look) ? NULL : "zeros";
	wrong = check_identity(family, page, stamp);
	if (wrong)
		return wrong;
	if (stamp_version(stamp) < look.least)
		return "a version that was overwritten before";
	return stamp_version(stamp) <= atomic_load(&family->pages[page].started) ? NULL
										 : "a version that nobody has written";
}

struct frozen model_freeze(const struct family *family, unsigned page, struct look before)
{
	return (struct frozen){
		.before = before,
		.most = atomic_load(&family->pages[page].started),
		.may_be_gone = model_may_be_gone(family, page, before),
	};
}

const char *model_check_frozen(const struct family *family, unsigned page, struct frozen frozen, uint64_t stamp)
{
	const char *wrong;

	if (!stamp)
		return !frozen.before.least || frozen.may_be_gone ? NULL : "zeros";
	wrong = check_identity(family, page, stamp);
	if (wrong)
		return wrong;
	if (stamp_version(stamp) < frozen.before.least)
		return "a version that was overwritten before the fork";
	return stamp_version(stamp) <= frozen.most ? NULL : "a version that was written after the fork";
}
