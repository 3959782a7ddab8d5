/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/attach/attach.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* "auto" takes the first that works. */
static const struct attach_way *const ways[] = {&attach_kernel_nbd, &attach_nbdfuse};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static int choose_automatically(const struct attach_env *env, const struct attach_way **out,
				struct err *passed_over, struct err *err)
{
	struct err why = {0};
	int rc = 0;

	*passed_over = (struct err){0};
	for (size_t i = 0; i < WAYS; i++) {
		rc = ways[i]->available(env, &why);
		if (!rc) {
			*out = ways[i];
			return 0;
		}
		err_prefix(&why, "%s", ways[i]->name);
		if (!i)
			*passed_over = why;
	}
	return err_set(err, rc, "%.380s; %.380s", passed_over->text, why.text);
}

int attach_choose(const struct attach_env *env, const char *name, const struct attach_way **out,
		  struct err *passed_over, struct err *err)
{
	char known[256] = "auto";
	int rc;

	*passed_over = (struct err){0};
	if (geteuid() != 0)
		return err_set(
			err, -ENOTSUP,
			"attaching needs root: run cairnd as root, or use `cairn export` and "
			"an NBD client of your own");
	if (strcmp(name, "auto") == 0)
		return choose_automatically(env, out, passed_over, err);
	for (size_t i = 0; i < WAYS; i++) {
		size_t n = strlen(known);

		snprintf(known + n, sizeof(known) - n, ", %s", ways[i]->name);
		if (strcmp(ways[i]->name, name) != 0)
			continue;
		rc = ways[i]->available(env, err);
		if (!rc)
			*out = ways[i];
		return rc;
	}
	return err_set(err, -EINVAL, "no attach way is called %.40s; there are %s", name, known);
}

const struct attach_way *attach_find(const char *name)
{
	for (size_t i = 0; i < WAYS; i++)
		if (strcmp(ways[i]->name, name) == 0)
			return ways[i];
	return NULL;
}

void attach_sweep(const struct attach_env *env, const struct attachment *kept, size_t n)
{
	struct attach_env sweeping = *env;

	sweeping.kept = kept;
	sweeping.nkept = n;
	for (size_t i = 0; i < WAYS; i++)
		ways[i]->sweep(&sweeping);
}

bool attach_keeps(const struct attach_env *env, const char *dir)
{
	char name[NAME_MAX + 1];

	for (size_t i = 0; i < env->nkept; i++)
		if (!attach_dir_name(env->kept[i].name, name, sizeof(name)) &&
		    strcmp(name, dir) == 0)
			return true;
	return false;
}

void attach_leftovers_each(const struct attach_env *env,
			   void (*fn)(const struct attach_env *env, const char *path))
{
	char base[PATH_MAX], path[PATH_MAX];
	struct dirent *d;
	DIR *folder;

	snprintf(base, sizeof(base), "%s/attach", env->runtime_dir);
	folder = opendir(base);
	while (folder && (d = readdir(folder))) {
		snprintf(path, sizeof(path), "%.*s/%s", PATH_MAX - 300, base, d->d_name);
		if (d->d_name[0] != '.' && !attach_keeps(env, d->d_name))
			fn(env, path);
	}
	if (folder)
		closedir(folder);
}

int attach_give(const struct attach_env *env, struct attachment *a, struct err *err)
{
	int rc = env->give ? env->give(env->asker, a) : 0;

	return rc ? err_set(err, rc,
			    "the worker that asked for the device takes no connections: %s",
			    strerror(-rc))
		  : 0;
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

int attach_dir(const struct attach_env *env, const char *name, bool make, char *out, size_t len,
	       struct err *err)
{
	char part[NAME_MAX - 8];

	if (attach_dir_name(name, part, sizeof(part)) ||
	    snprintf(out, len, "%s/attach/%s", env->runtime_dir, part) >= (int)len)
		return err_set(err, -ENAMETOOLONG,
			       "the export's name is too long for a folder under %s; "
			       "choose one with --name",
			       env->runtime_dir);
	if (!make)
		return 0;
	out[strlen(out) - strlen(part) - 1] = 0;
	if (mkdir(out, 0700) && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", out, strerror(errno));
	out[strlen(out)] = '/';
	if (mkdir(out, 0700) && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", out, strerror(errno));
	return 0;
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
