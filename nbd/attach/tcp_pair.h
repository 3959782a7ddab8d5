/* SPDX-License-Identifier: Apache-2.0 */
/* Connected loopback TCP sockets with both ends ours, for the kernel's NBD client and our server:
 * unlike an AF_UNIX pair they keep exact counts of bytes received and acknowledged, also of a
 * process that was killed. */
#ifndef NBD_TCP_PAIR_H
#define NBD_TCP_PAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* @n pairs: kernel[i] is the other end of worker[i], non-blocking where the kernel does not have
 * it. Close-on-exec. Nothing is left open on error. Bounded to a few seconds. */
int tcp_pairs_open(int *kernel, int *worker, uint32_t n, struct err *err);

/* The other end was shut or closed. */
bool tcp_peer_is_gone(int fd);

/* The other end's port; 0 when it is gone. */
uint16_t tcp_peer_port(int fd);

void fds_close(int *fds, uint32_t n);

#endif
