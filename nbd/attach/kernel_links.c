/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor's hold on the worker's ends of a device's connections, and how their death is
 * noticed: the kernel, or nbdfuse, shuts its end of a connection that it gives up, which the watch
 * of each link sees; the kernel also says so by netlink, which drops under load. Either alone is
 * enough; after a drop every device is looked at.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "nbd/attach/kernel_impl.h"
#include "nbd/ledger.h"
#include "nbd/attach/tcp_pair.h"

#define EVENTS_A_TURN 64

int links_restore(struct attach_kernel *k, struct attachment *a, int fd, int ledger)
{
	struct epoll_event e = {.events = EPOLLRDHUP, .data.fd = fd};

	if (a->nlinks == ATTACH_LINKS_MAX || epoll_ctl(k->epoll, EPOLL_CTL_ADD, fd, &e)) {
		shutdown(fd, SHUT_RDWR);
		close(fd);
		close(ledger);
		return -ENOMEM;
	}
	a->ledgers[a->nlinks] = ledger;
	a->links[a->nlinks++] = fd;
	a->fresh++;
	return 0;
}

int links_add(struct attach_kernel *k, struct attachment *a, int fd)
{
	int ledger = ledger_new(NULL);

	if (ledger >= 0)
		return links_restore(k, a, fd, ledger);
	shutdown(fd, SHUT_RDWR);
	close(fd);
	return -ENOMEM;
}

/* The worker holds the same socket, so epoll would keep it when only this end is closed. */
static void link_remove(struct attach_kernel *k, struct attachment *a, uint32_t i)
{
	epoll_ctl(k->epoll, EPOLL_CTL_DEL, a->links[i], NULL);
	shutdown(a->links[i], SHUT_RDWR);
	close(a->links[i]);
	close(a->ledgers[i]);
	if (i >= a->nlinks - a->fresh)
		a->fresh--;
	a->nlinks--;
	memmove(&a->links[i], &a->links[i + 1], (a->nlinks - i) * sizeof(a->links[0]));
	memmove(&a->ledgers[i], &a->ledgers[i + 1], (a->nlinks - i) * sizeof(a->ledgers[0]));
}

void links_cut(struct attach_kernel *k, struct attachment *a)
{
	while (a->nlinks)
		link_remove(k, a, a->nlinks - 1);
}

uint32_t links_drop_dead(struct attach_kernel *k, struct attachment *a)
{
	uint32_t n = 0;

	for (uint32_t i = a->nlinks; i-- > 0;) {
		if (!tcp_peer_is_gone(a->links[i]))
			continue;
		link_remove(k, a, i);
		n++;
	}
	return n;
}

/* ---- events ---- */

struct look {
	struct attach_kernel *k;
	struct attachment *list;
	size_t n;
};

static bool is_kernels(const struct attachment *a)
{
	return a->way == &attach_kernel_nbd;
}

void attach_kernel_look(struct attach_kernel *k, struct attachment *a)
{
	uint32_t died = links_drop_dead(k, a);

	if (!died)
		return;
	a->dead = true;
	log_warn("attach", "connections of a device died", "device=%s export=%s died=%u left=%u",
		 a->device, a->name, died, a->nlinks);
}

static void look_at_index(void *arg, int index)
{
	struct look *l = arg;

	for (size_t i = 0; i < l->n; i++)
		if (is_kernels(&l->list[i]) && l->list[i].index == index)
			attach_kernel_look(l->k, &l->list[i]);
}

static void look_at_fd(struct look *l, int fd)
{
	for (size_t i = 0; i < l->n; i++)
		for (uint32_t j = 0; j < l->list[i].nlinks; j++)
			if (l->list[i].links[j] == fd) {
				attach_kernel_look(l->k, &l->list[i]);
				return;
			}
}

/* The kernel had more to say than the socket held. */
static void look_at_all(struct look *l)
{
	log_warn("attach", "link-dead events were lost; looking at every device", "devices=%zu",
		 l->n);
	for (size_t i = 0; i < l->n; i++) {
		struct attachment *a = &l->list[i];

		if (!is_kernels(a))
			continue;
		attach_kernel_look(l->k, a);
		if (nbd_netlink_status(l->k->netlink, a->index, NULL) != 0)
			continue;
		a->dead = true;
		log_warn("attach", "someone disconnected a device of ours", "device=%s export=%s",
			 a->device, a->name);
	}
}

void attach_kernel_events(struct attach_kernel *k, struct attachment *list, size_t n)
{
	struct look l = {.k = k, .list = list, .n = n};
	struct epoll_event e[EVENTS_A_TURN];
	int got = epoll_wait(k->epoll, e, EVENTS_A_TURN, 0);

	for (int i = 0; i < got; i++) {
		if (!k->netlink || e[i].data.fd != nbd_netlink_events_fd(k->netlink))
			look_at_fd(&l, e[i].data.fd);
		else if (nbd_netlink_events_drain(k->netlink, look_at_index, &l) == -ENOBUFS)
			look_at_all(&l);
	}
}
