/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor's side of the boundary to the worker, which may be anybody's by now.
 *
 * A device is made or taken away only while somebody who may order that, root or who started
 * cairnd, is connected to the control socket and asks: the worker passes that very connection
 * along, and the kernel says whose it is. One connection brings at most one new device. For what
 * already stands (connections anew, counting, readahead) no consent is needed.
 *
 * One thread; nothing here waits.
 */
#ifndef SUPERVISOR_GUARD_H
#define SUPERVISOR_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <supervisor_protocol.h>

#include "base/err.h"

#define GUARD_DEVICES_MAX   4096
#define GUARD_READ_AHEAD_KB (1024 * 1024)
#define GUARD_RATE	    1000  /* requests a second, in the long run */
#define GUARD_BURST	    10000 /* at once: a new worker asks for each device of its predecessor */
#define GUARD_USED	    256

struct guard {
	const char *control_socket;
	uid_t owner; /* who started cairnd */
	double credit;
	uint64_t credit_ns;	   /* when it was counted */
	uint64_t used[GUARD_USED]; /* connections that brought a device, by cookie; the oldest goes
				    */
	unsigned nused;
};

struct guard_fds {
	int fd[SUPERVISOR_FDS_MAX];
	uint32_t n;
};

/* @control_socket: the path, the caller's. */
void guard_init(struct guard *g, const char *control_socket, uint64_t now_ns);

/* One record and what descriptors came with it, close-on-exec and the caller's until
 * guard_release(). Its length, or a negative errno (-EAGAIN: none there; -EPIPE: the end). */
ssize_t guard_receive(int channel, struct supervisor_request *q, struct guard_fds *fds);

/* Closes them in a way that can't hold up the caller, whatever they are. */
void guard_release(struct guard_fds *fds);

/* May the worker have this? @q passed supervisor_request_check(); @devices stand. 0, or -EINVAL (a
 * value that nobody asks for), -EPERM (nobody who may ask asks), -ENOSPC (too many devices). */
int guard_check(struct guard *g, const struct supervisor_request *q, const struct guard_fds *fds,
		size_t devices, struct err *err);

/* Work is rationed. What a worker asks by itself is charged by the time it took, twice, so that
 * half of the supervisor's time is its own; what somebody asked for may take long. Until
 * guard_wait_ms() is 0 nothing is read. */
void guard_charge_request(struct guard *g, const struct supervisor_request *q, uint64_t began_ns,
			  uint64_t now_ns);
int guard_wait_ms(const struct guard *g, uint64_t now_ns);

#endif
