/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/watch.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

int watch_open(struct watch *w)
{
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	return w->epoll < 0 ? -errno : 0;
}

void watch_close(struct watch *w)
{
	if (w->epoll >= 0)
		close(w->epoll);
	w->epoll = -1;
}

/* The pidfd and the pid in one word: the set of descriptors is the only list there is. */
int watch_add(struct watch *w, const struct process *p)
{
	int fd = process_open(p);
	struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT,
				.data.u64 = (uint64_t)p->pid << 32 | (uint32_t)fd};

	if (fd < 0)
		return fd;
	if (!epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &e))
		return 0;
	close(fd);
	return -ENOMEM;
}

pid_t watch_next(struct watch *w)
{
	struct epoll_event e;

	if (epoll_wait(w->epoll, &e, 1, 0) <= 0)
		return 0;
	close((int)(e.data.u64 & UINT32_MAX));
	return (pid_t)(e.data.u64 >> 32);
}
