/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/inherited.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

void inherited_add(struct inherited *in, int fd)
{
	struct inherited_fd *more = realloc(in->list, (in->n + 1) * sizeof(*more));

	if (!more) {
		close(fd);
		return;
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	in->list = more;
	in->list[in->n++] = (struct inherited_fd){fd, file_id_of(fd)};
}

void inherited_add_open(struct inherited *in, int from, int last)
{
	for (int fd = from; fd <= last; fd++) {
		int flags = fcntl(fd, F_GETFD);

		if (flags >= 0 && !(flags & FD_CLOEXEC))
			inherited_add(in, fd);
	}
}

int inherited_take(struct inherited *in, struct file_id id)
{
	for (size_t i = 0; i < in->n; i++) {
		int fd = in->list[i].fd;

		if (!file_id_equal(in->list[i].id, id))
			continue;
		in->list[i] = in->list[--in->n];
		return fd;
	}
	return -1;
}

void inherited_close(struct inherited *in)
{
	for (size_t i = 0; i < in->n; i++)
		close(in->list[i].fd);
	free(in->list);
	*in = (struct inherited){0};
}
