/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/attach.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct attach_way *const ways[] = {&attach_nbdfuse};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

int attach_choose(const struct attach_env *env, const char *name, const struct attach_way **out,
		  struct err *err)
{
	bool automatic = strcmp(name, "auto") == 0;
	char known[256] = "auto";
	int rc = 0;

	for (size_t i = 0; i < WAYS; i++) {
		size_t n = strlen(known);

		snprintf(known + n, sizeof(known) - n, ", %s", ways[i]->name);
		if (!automatic && strcmp(ways[i]->name, name) != 0)
			continue;
		rc = ways[i]->available(env, err);
		if (!rc)
			*out = ways[i];
		if (!rc || !automatic)
			return rc;
	}
	return rc ? rc
		  : err_set(err, -EINVAL, "no attach way is called %.40s; there are %s", name,
			    known);
}

void attach_sweep(const struct attach_env *env)
{
	for (size_t i = 0; i < WAYS; i++)
		ways[i]->sweep(env);
}

static bool is_plain(char c, const char *more)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-' || (c && strchr(more, c));
}

static int percent_encode(const char *s, const char *more, char *out, size_t len)
{
	size_t n = 0;

	for (const char *p = s; *p; p++) {
		bool plain = is_plain(*p, more) && !(*p == '.' && p == s);

		if (n + (plain ? 1 : 3) >= len)
			return -ENAMETOOLONG;
		if (plain)
			out[n++] = *p;
		else
			n += (size_t)sprintf(out + n, "%%%02X", (unsigned char)*p);
	}
	out[n] = 0;
	return 0;
}

int attach_dir_name(const char *name, char *out, size_t len)
{
	return percent_encode(name, ".", out, len);
}

int attach_uri(const char *nbd_socket, const char *name, char *out, size_t len)
{
	static const char head[] = "nbd+unix:///", middle[] = "?socket=";
	size_t n = sizeof(head) - 1;

	if (len < sizeof(head))
		return -ENAMETOOLONG;
	memcpy(out, head, sizeof(head));
	if (percent_encode(name, ".~", out + n, len - n))
		return -ENAMETOOLONG;
	n += strlen(out + n);
	if (len - n < sizeof(middle))
		return -ENAMETOOLONG;
	memcpy(out + n, middle, sizeof(middle));
	n += sizeof(middle) - 1;
	return percent_encode(nbd_socket, ".~/", out + n, len - n);
}
