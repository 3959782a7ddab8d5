/* SPDX-License-Identifier: Apache-2.0 */
#include "crash/oom.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The number behind "oom_kill". */
static uint64_t count_in(const char *path)
{
	FILE *f = fopen(path, "re");
	char line[128];
	uint64_t n = 0;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "oom_kill %" SCNu64, &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

/* "0::/path" (v2), "5:memory:/path" (v1) */
static uint64_t kills_by_line(const char *line, const char *root)
{
	const char *path = strchr(line, ':'), *names = path ? path + 1 : NULL;
	char file[4352];

	path = names ? strchr(names, ':') : NULL;
	if (!path)
		return 0;
	path++;
	if (*names == ':')
		snprintf(file, sizeof(file), "%s%s/memory.events", root, path);
	else if (strncmp(names, "memory:", 7) == 0)
		snprintf(file, sizeof(file), "%s/memory%s/memory.oom_control", root, path);
	else
		return 0;
	return count_in(file);
}

uint64_t crash_oom_kills_of(const char *cgroup_file, const char *root)
{
	FILE *f = fopen(cgroup_file, "re");
	char line[4200];
	uint64_t n = 0;

	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		n += kills_by_line(line, root);
	}
	if (f)
		fclose(f);
	return n;
}

uint64_t crash_oom_kills(void)
{
	return crash_oom_kills_of("/proc/self/cgroup", "/sys/fs/cgroup");
}
