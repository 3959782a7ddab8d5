/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/links_kept.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nbd/attach/tcp_pair.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct link_kept *kept; /* under lock */
static size_t nkept;

/* Under the lock: those whose other end is gone are of no use to anyone. */
static void drop_dead(void)
{
	for (size_t i = nkept; i-- > 0;) {
		if (!tcp_peer_is_gone(kept[i].fd))
			continue;
		close(kept[i].fd);
		close(kept[i].ledger);
		kept[i] = kept[--nkept];
	}
}

static void keep_one(const char *name, int fd, int ledger)
{
	struct link_kept *more = realloc(kept, (nkept + 1) * sizeof(*kept));
	struct link_kept k = {.fd = -1, .ledger = -1};

	if (!more)
		return;
	kept = more;
	snprintf(k.name, sizeof(k.name), "%s", name);
	k.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	k.ledger = fcntl(ledger, F_DUPFD_CLOEXEC, 0);
	if (k.fd >= 0 && k.ledger >= 0) {
		kept[nkept++] = k;
		return;
	}
	if (k.fd >= 0)
		close(k.fd);
	if (k.ledger >= 0)
		close(k.ledger);
}

void links_keep(const char *name, const struct privileged_links *l)
{
	pthread_mutex_lock(&lock);
	drop_dead();
	for (uint32_t i = 0; i < l->n; i++)
		keep_one(name, l->fd[i], l->ledger[i]);
	pthread_mutex_unlock(&lock);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct link_kept *)a)->name, ((const struct link_kept *)b)->name);
}

const struct link_kept *links_kept_hold(size_t *n)
{
	pthread_mutex_lock(&lock);
	drop_dead();
	if (nkept)
		qsort(kept, nkept, sizeof(*kept), by_name);
	*n = nkept;
	return kept;
}

void links_kept_release(void)
{
	pthread_mutex_unlock(&lock);
}
