/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/crashes.h"

#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const cJSON *member(const cJSON *o, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(o, key);
}

static const cJSON *first(const cJSON *list)
{
	return list ? list->child : NULL;
}

static const char *how(const cJSON *death, char *buf, size_t len)
{
	const char *cause = cli_text(death, "cause");

	if (strcmp(cause, "exit") == 0)
		snprintf(buf, len, "ended by itself with status %.0f", cli_number(death, "status"));
	else if (strcmp(cause, "oom") == 0)
		snprintf(buf, len, "killed by the kernel for want of memory");
	else if (strcmp(cause, "kill") == 0)
		snprintf(buf, len, "killed (SIGKILL); by whom is not known");
	else
		snprintf(buf, len, "%s%s", cli_text(death, "signal"),
			 cJSON_IsTrue(member(death, "from_outside")) ? ", sent by another process"
								     : "");
	return buf;
}

static void death_print(const cJSON *death)
{
	const cJSON *doing = member(death, "doing"), *i;
	const char *address = cli_text(death, "address");
	char text[128];

	printf("%s  %s, after %.1f s, version %s, pid %.0f%s\n", cli_text(death, "time"),
	       how(death, text, sizeof(text)), cli_number(death, "ran_seconds"),
	       cli_text(death, "version"), cli_number(death, "pid"),
	       cJSON_IsTrue(member(death, "core_dumped")) ? ", core dumped" : "");
	if (cli_text(death, "thread")[0])
		printf("  doing   %s (thread %s)\n", cli_text(doing, "text"),
		       cli_text(death, "thread"));
	if (address[0])
		printf("  address %s\n", address);
	if (cJSON_GetArraySize(member(death, "frames"))) {
		printf("  at     ");
		for (i = first(member(death, "frames")); i; i = i->next)
			printf(" %s", cJSON_GetStringValue(i));
		printf("\n");
	}
	for (i = first(member(death, "log")); i; i = i->next)
		printf("  | %s\n", cJSON_GetStringValue(i));
}

static void refused_print(const cJSON *refused)
{
	const cJSON *i;

	for (i = first(refused); i; i = i->next)
		printf("refused %s: it killed two workers (%s) and was answered with an error "
		       "%.0f times since\n",
		       cli_text(member(i, "doing"), "text"), cli_text(i, "cause"),
		       cli_number(i, "times"));
	if (cJSON_GetArraySize(refused))
		printf("        report it with `cairn status --crashes` and run `cairn upgrade`; "
		       "`cairn status --clear-crashes` has it tried again\n");
}

static void causes_print(const cJSON *causes)
{
	const char *comma = "";
	const cJSON *i;

	for (i = first(causes); i; i = i->next) {
		if (i->valuedouble <= 0)
			continue;
		printf("%s%.0f %s", comma, i->valuedouble, i->string);
		comma = ", ";
	}
}

void crashes_print(const cJSON *crashes)
{
	const cJSON *last = member(crashes, "last");

	if (!cJSON_IsObject(last))
		return;
	printf("deaths ");
	causes_print(member(crashes, "by_cause"));
	printf("; the last:\n");
	death_print(last);
	if (cJSON_IsTrue(member(crashes, "loop")))
		printf("crash loop: %.0f deaths in a row, each restart waits longer, up to 10 s; "
		       "see `cairn status --crashes`\n",
		       cli_number(crashes, "in_a_row"));
	refused_print(member(crashes, "refused"));
}

void crashes_print_all(const cJSON *all)
{
	const cJSON *deaths = member(all, "deaths"), *i;

	if (!cJSON_GetArraySize(deaths))
		printf("no worker died since cairnd started\n");
	for (i = first(deaths); i; i = i->next)
		death_print(i);
	refused_print(member(all, "refused"));
}
