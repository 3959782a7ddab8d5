/* SPDX-License-Identifier: Apache-2.0 */
/* What the worker asks about devices and the observer, answered. One thread, which waits for no
 * worker. */
#ifndef SUPERVISOR_ANSWER_H
#define SUPERVISOR_ANSWER_H

#include <supervisor_protocol.h>

#include "observe/loader.h"
#include "supervisor/devices.h"

struct answer_fds {
	int fd[SUPERVISOR_FDS_MAX]; /* of r->nfds; borrowed */
};

/* Fills all but the reply's id. @q was checked. @observer may be NULL where @q does not ask for it.
 */
void answer_request(struct devices *d, struct loader *observer, const struct supervisor_request *q,
		    struct supervisor_reply *r, struct answer_fds *fds);

/* Connections of the device that the worker has not got yet, into the reply. */
void answer_links(const struct attachment *a, struct supervisor_reply *r, struct answer_fds *fds);

void answer_error(struct supervisor_reply *r, const struct err *err);

/* -EAGAIN when the worker does not read. */
int answer_send(int channel, const struct supervisor_reply *r, const struct answer_fds *fds);

#endif
