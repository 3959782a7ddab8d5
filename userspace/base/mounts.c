/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mounts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* \040 and its like, for space, tab, newline and backslash. */
static void unescape(char *s)
{
	char *out = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*out++ = *s++;
		}
	}
	*out = 0;
}

bool mount_parse(char *line, struct mount_entry *out)
{
	char *dash = strstr(line, " - "), *save, *word;

	if (!dash)
		return false;
	*dash = 0;
	if (!strtok_r(line, " ", &save) || !strtok_r(NULL, " ", &save)) /* id, parent */
		return false;
	word = strtok_r(NULL, " ", &save);
	if (!word || sscanf(word, "%u:%u", &out->major, &out->minor) != 2)
		return false;
	if (!strtok_r(NULL, " ", &save)) /* root within the file system */
		return false;
	word = strtok_r(NULL, " ", &save);
	if (!word || strlen(word) >= sizeof(out->point))
		return false;
	strcpy(out->point, word);
	unescape(out->point);
	word = strtok_r(dash + 3, " ", &save);
	if (!word || strlen(word) >= sizeof(out->type))
		return false;
	strcpy(out->type, word);
	word = strtok_r(NULL, " ", &save);
	if (!word || strlen(word) >= sizeof(out->source))
		return false;
	strcpy(out->source, word);
	unescape(out->source);
	return true;
}

int mounts_each(const char *mountinfo, bool (*fn)(void *arg, const struct mount_entry *m),
		void *arg)
{
	struct mount_entry m;
	char *line = NULL;
	size_t room = 0;
	FILE *f = fopen(mountinfo, "re");

	if (!f)
		return -errno;
	while (getline(&line, &room, f) > 0)
		if (mount_parse(line, &m) && !fn(arg, &m))
			break;
	free(line);
	fclose(f);
	return 0;
}

struct search {
	unsigned major, minor;
	const char *point;
	struct mount_entry *out;
	bool found;
};

static bool on_mount(void *arg, const struct mount_entry *m)
{
	struct search *s = arg;
	bool hit = s->point ? strcmp(m->point, s->point) == 0
			    : m->major == s->major && m->minor == s->minor;

	if (hit) {
		*s->out = *m;
		s->found = true;
	}
	return true; /* a later one covers it */
}

bool mounts_find_device(const char *mountinfo, unsigned major, unsigned minor,
			struct mount_entry *out)
{
	struct search s = {.major = major, .minor = minor, .out = out};

	mounts_each(mountinfo, on_mount, &s);
	return s.found;
}

bool mounts_find_point(const char *mountinfo, const char *point, struct mount_entry *out)
{
	struct search s = {.point = point, .out = out};

	mounts_each(mountinfo, on_mount, &s);
	return s.found;
}
