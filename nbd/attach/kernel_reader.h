/* SPDX-License-Identifier: Apache-2.0 */
/* Does the kernel read a connection that it was given?
 *
 * nbd.ko receives the replies of each connection in a work item, which runs as long as the
 * connection lives (drivers/block/nbd.c, nbd_start_device() and recv_work()). Its workqueue has a
 * rescuer (WQ_MEM_RECLAIM). When a thread for the next item takes longer than 10 ms to come, on a
 * loaded node or one short of memory, the rescuer takes all items of the device that wait and runs
 * them one after the other (kernel/workqueue.c, rescuer_thread()): the first one, for ever. What is
 * sent on the connections of the others is never read, each of their requests waits for TIMEOUT,
 * and an item that runs at last, when the first one's connection ends, may read beside the one of
 * the connection that came in place of its own. So no device is used before each of its connections
 * was seen to be read, and later ones are added one at a time.
 *
 * Seen how: every simple reply begins with the same four bytes. They are sent before there is a
 * request; who reads takes them out of the socket at once and waits for the rest, and the socket's
 * own counters tell. The server goes on behind them (`ahead` in include/ledger.h).
 */
#ifndef NBD_KERNEL_READER_H
#define NBD_KERNEL_READER_H

#include <stdbool.h>
#include <stdint.h>

/* Send the four bytes on each of @n connections, with a new ledger each, and wait at most @ms until
 * the kernel has read them. kernel[i] and worker[i] are a pair of tcp_pairs_open(); nothing was
 * sent on either. How many it did not read, or a negative errno. */
int kernel_readers_wait(const int *kernel, const int *worker, const int *ledgers, uint32_t n,
			uint32_t ms);

/* The kernel took @fd, of a pair, in the place of a dead one: it sets its TIMEOUT as SO_SNDTIMEO on
 * what it takes (nbd_reconnect_socket()). */
bool kernel_reader_has(int fd);

#endif
