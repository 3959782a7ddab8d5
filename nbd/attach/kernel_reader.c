/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/attach/kernel_reader.h"

#include <endian.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include "base/clock.h"
#include "nbd/ledger.h"
#include "nbd/protocol.h"
#include "nbd/tcp_count.h"

#define LOOK_NS (200 * 1000L)

static int send_ahead(int worker, int ledger)
{
	const uint32_t magic = htobe32(NBD_SIMPLE_REPLY_MAGIC);
	int rc = ledger_set_ahead(ledger, sizeof(magic));

	_Static_assert(sizeof(magic) <= LEDGER_AHEAD_MAX, "the ledger counts them");
	if (rc)
		return rc;
	return send(worker, &magic, sizeof(magic), MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(magic)
		       ? 0
		       : -EPIPE;
}

static int count_unread(const int *kernel, uint32_t n)
{
	int unread = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct tcp_count c;
		int rc = tcp_count(kernel[i], &c);

		if (rc)
			return rc;
		unread += c.received == 0;
	}
	return unread;
}

int kernel_readers_wait(const int *kernel, const int *worker, const int *ledgers, uint32_t n,
			uint32_t ms)
{
	uint64_t end = clock_now_ns() + ms * NSEC_PER_MSEC;
	int rc = 0;

	for (uint32_t i = 0; !rc && i < n; i++)
		rc = send_ahead(worker[i], ledgers[i]);
	if (rc)
		return rc;
	while ((rc = count_unread(kernel, n)) > 0 && clock_now_ns() < end)
		nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
	return rc;
}

bool kernel_reader_has(int fd)
{
	struct timeval t = {0};
	socklen_t len = sizeof(t);

	return !getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, &len) && (t.tv_sec || t.tv_usec);
}
