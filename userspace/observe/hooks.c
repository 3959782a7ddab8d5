/* SPDX-License-Identifier: Apache-2.0 */
#include "observe/hooks.h"

#include <stdio.h>
#include <string.h>

static const char *windows_word(uint32_t hooks)
{
	if (hooks & OBSERVE_WINDOWS_TP)
		return "windows (tracepoint)";
	return hooks & OBSERVE_WINDOWS_FENTRY ? "windows (fentry)" : "windows (pages added)";
}

static const char *hits_word(uint32_t hooks)
{
	if ((hooks & HOOKS_HITS) == HOOKS_HITS)
		return "page-cache hits (reads, faults)";
	return hooks & OBSERVE_HITS_READ ? "page-cache hits (reads)" : "page-cache hits (faults)";
}

static void add(char *out, size_t len, const char *sep, const char *word)
{
	size_t n = strlen(out);

	snprintf(out + n, len - n, "%s%s", n ? sep : "", word);
}

void hooks_line(uint32_t hooks, bool refused, char *out, size_t len)
{
	const struct {
		bool on;
		const char *with, *without;
	} questions[] = {
		{hooks & OBSERVE_REQUESTS, "requests", "requests"},
		{hooks & HOOKS_WINDOWS, windows_word(hooks), "windows"},
		{hooks & HOOKS_HITS, hits_word(hooks), "page-cache hits"},
	};
	const char *sep = "; off: ";

	out[0] = 0;
	for (int i = 0; i < 3; i++)
		if (questions[i].on)
			add(out, len, ", ", questions[i].with);
	for (int i = 0; i < 3; i++) {
		if (questions[i].on)
			continue;
		add(out, len, sep, questions[i].without);
		sep = ", ";
	}
	if (sep[0] == ',')
		add(out, len, "", refused ? " (refused by this kernel)" : " (not in this kernel)");
}
