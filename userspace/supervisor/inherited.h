/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that came from the supervisor before, by way of an execve, systemd or a worker, until
 * each was asked for by what it refers to. One thread. */
#ifndef SUPERVISOR_INHERITED_H
#define SUPERVISOR_INHERITED_H

#include <stddef.h>

#include "supervisor/state.h"

struct inherited {
	struct inherited_fd {
		int fd;
		struct file_id id;
	} * list;
	size_t n;
};

/* Takes @fd; it is close-on-exec from now on. Closed, too, when memory is out. */
void inherited_add(struct inherited *in, int fd);

/* Every descriptor of this process from @from to @last that an execve let through. */
void inherited_add_open(struct inherited *in, int from, int last);

/* The descriptor that refers to @id, the caller's; -1: none did. */
int inherited_take(struct inherited *in, struct file_id id);

/* What nobody asked for is closed. */
void inherited_close(struct inherited *in);

#endif
