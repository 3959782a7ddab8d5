/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/tcp_count.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define LOOKS_MAX 100000

/* As the kernel numbers them: netinet/tcp.h has them, but not beside linux/tcp.h. */
enum { STATE_CLOSE_WAIT = 8, STATE_LAST_ACK = 9, STATE_CLOSING = 11 };

static int info_of(int fd, struct tcp_info *out)
{
	socklen_t len = sizeof(*out);

	memset(out, 0, sizeof(*out));
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, out, &len) ? -errno : 0;
}

static bool stood_still(const struct tcp_info *a, const struct tcp_info *b)
{
	return a->tcpi_bytes_received == b->tcpi_bytes_received &&
	       a->tcpi_bytes_acked == b->tcpi_bytes_acked && a->tcpi_state == b->tcpi_state;
}

/* The other end's FIN takes a number in the stream: it counts as received, never as waiting. */
static uint64_t fin_of(const struct tcp_info *i)
{
	return i->tcpi_state == STATE_CLOSE_WAIT || i->tcpi_state == STATE_LAST_ACK ||
	       i->tcpi_state == STATE_CLOSING;
}

int tcp_count(int fd, struct tcp_count *out)
{
	struct tcp_info before, after;
	int inq, outq, rc = info_of(fd, &after);

	/* Bytes go from the network to the queue, and from the queue to acknowledged, while we
	 * look: look until nothing moved between the two terms of each sum. */
	for (int i = 0; !rc && i < LOOKS_MAX; i++) {
		before = after;
		if (ioctl(fd, SIOCINQ, &inq) || ioctl(fd, SIOCOUTQ, &outq))
			return -errno;
		rc = info_of(fd, &after);
		if (rc || !stood_still(&before, &after))
			continue;
		out->received = after.tcpi_bytes_received - fin_of(&after) - (uint64_t)inq;
		out->sent = after.tcpi_bytes_acked + (uint64_t)outq;
		return 0;
	}
	return rc ? rc : -EAGAIN;
}
