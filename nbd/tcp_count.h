/* SPDX-License-Identifier: Apache-2.0 */
/* How many bytes a process took from a TCP socket and put into it, as the kernel counts them: exact
 * also when that process was killed inside of a call. */
#ifndef NBD_TCP_COUNT_H
#define NBD_TCP_COUNT_H

#include <stdint.h>

struct tcp_count {
	uint64_t received; /* bytes taken out by any process since the connection began */
	uint64_t sent;	   /* bytes put in, left or not; may count the SYN, so use differences */
};

/* Nobody may be receiving or sending meanwhile on this end; the other end may. Any thread. 0, or a
 * negative errno: not TCP, or -EAGAIN when the other end never stood still. */
int tcp_count(int fd, struct tcp_count *out);

#endif
