/* SPDX-License-Identifier: MIT */
/*
 * What the kernel's results depend on, at the head of a report for people: a paragraph a group of facts.
 */
#include "report.h"

#include <inttypes.h>
#include <string.h>

#define WIDTH  120
#define INDENT 14

void report_host_value(const struct host_fact *fact, char text[400])
{
	switch (fact->kind) {
	case HOST_UNKNOWN:
		snprintf(text, 400, "?");
		break;
	case HOST_TEXT:
		snprintf(text, 400, "%s", fact->text);
		break;
	case HOST_NUMBER:
		snprintf(text, 400, "%" PRId64, fact->number);
		break;
	case HOST_FLAG:
		snprintf(text, 400, "%s", fact->number ? "yes" : "no");
		break;
	}
}

/* Print words of @text from column *@at on, with new lines where they would go too far. */
static void print_words(const struct report *report, const char *text, size_t *at)
{
	while (*text) {
		size_t length = strcspn(text, " ");

		if (*at + 1 + length > WIDTH) {
			fprintf(report->out, "\n%*s", INDENT, "");
			*at = INDENT;
		}
		*at += (size_t)fprintf(report->out, "%s%.*s", *at > INDENT ? " " : "", (int)length, text);
		text += length + strspn(text + length, " ");
	}
}

static void print_fact(const struct report *report, const struct host_fact *fact, bool more, size_t *at)
{
	char value[400], text[500];

	report_host_value(fact, value);
	/* A group of one fact is called like it. */
	snprintf(text, sizeof(text), "%s%s%s%s", strcmp(fact->group, fact->key) ? fact->key : "",
		 strcmp(fact->group, fact->key) ? " " : "", value, more ? ";" : "");
	print_words(report, text, at);
}

void report_host_lines(const struct report *report)
{
	const struct kernel_host *host = report->host;
	const char *group = "";
	size_t at = 0;

	for (size_t i = 0; host && i < host->n; i++) {
		const struct host_fact *fact = &host->facts[i];

		if (strcmp(fact->group, group)) {
			fputs(i ? "\n" : "", report->out);
			report_paint(report, "1");
			at = (size_t)fprintf(report->out, "  %-*s", INDENT - 2, fact->group);
			report_paint(report, "");
		}
		group = fact->group;
		print_fact(report, fact, i + 1 < host->n && !strcmp(fact[1].group, group), &at);
	}
	fputs(host ? "\n\n" : "", report->out);
}
