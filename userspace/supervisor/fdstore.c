/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/fdstore.h"

#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "base/log.h"

static int compare(const void *a, const void *b)
{
	const struct file_id *x = a, *y = b;

	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

void fdstore_open(struct fdstore *s, struct inherited *in)
{
	int n = sd_listen_fds(1);

	s->on = getenv("NOTIFY_SOCKET") != NULL;
	if (n <= 0)
		return;
	s->list = calloc((size_t)n, sizeof(*s->list));
	for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + n; fd++) {
		if (s->list)
			s->list[s->n++] = file_id_of(fd);
		inherited_add(in, fd);
	}
	if (s->list)
		qsort(s->list, s->n, sizeof(*s->list), compare);
}

/* Its name in the store says what it refers to, so that any supervisor can remove it. */
static void name_of(struct file_id id, char out[64])
{
	snprintf(out, 64, "%llx-%llx", (unsigned long long)id.dev, (unsigned long long)id.ino);
}

static void store(struct file_id id, int fd)
{
	char name[64], text[128];

	name_of(id, name);
	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
	if (sd_pid_notify_with_fds(0, 0, text, &fd, 1) < 0)
		log_warn("supervisor", "systemd does not take a descriptor", "name=%s", name);
}

static void unstore(struct file_id id)
{
	char name[64];

	name_of(id, name);
	sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

static bool is_in(struct file_id id, const struct file_id *list, size_t n)
{
	return n && bsearch(&id, list, n, sizeof(*list), compare);
}

void fdstore_sync(struct fdstore *s, const int *fds, size_t n)
{
	struct file_id *now = s->on ? calloc(n + 1, sizeof(*now)) : NULL;
	size_t count = 0;

	if (!now)
		return;
	for (size_t i = 0; i < n; i++) {
		struct file_id id = file_id_of(fds[i]);

		if (!id.ino)
			continue;
		if (!is_in(id, s->list, s->n))
			store(id, fds[i]);
		now[count++] = id;
	}
	qsort(now, count, sizeof(*now), compare);
	for (size_t i = 0; i < s->n; i++)
		if (!is_in(s->list[i], now, count))
			unstore(s->list[i]);
	free(s->list);
	s->list = now;
	s->n = count;
}

void fdstore_empty(struct fdstore *s)
{
	for (size_t i = 0; s->on && i < s->n; i++)
		unstore(s->list[i]);
	free(s->list);
	*s = (struct fdstore){0};
}
