/* SPDX-License-Identifier: Apache-2.0 */
/* As much of NBD as the load tool and the reference server speak, apart from nbd/ on purpose: a
 * measure must not share its subject's mistakes. All fields are big-endian. */
#ifndef TESTS_BENCH_WIRE_H
#define TESTS_BENCH_WIRE_H

#include <errno.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#define WIRE_GREETING	     0x4e42444d41474943ULL /* "NBDMAGIC" */
#define WIRE_OPTION	     0x49484156454f5054ULL /* "IHAVEOPT" */
#define WIRE_OPTION_REPLY    0x0003e889045565a9ULL
#define WIRE_REQUEST	     0x25609513U
#define WIRE_REPLY	     0x67446698U
#define WIRE_FIXED_NO_ZEROES 3
#define WIRE_NAME_MAX	     255

enum { OPT_ABORT = 2, OPT_INFO = 6, OPT_GO = 7 };
enum { REP_ACK = 1, REP_INFO = 3, REP_ERR = 1U << 31, REP_ERR_UNSUP = REP_ERR + 1 };
enum { CMD_READ = 0, CMD_DISC = 2 };
enum { FLAG_HAS_FLAGS = 1, FLAG_READ_ONLY = 2, FLAG_MULTI_CONN = 256 };

struct wire_greeting {
	uint64_t magic, option;
	uint16_t flags;
} __attribute__((packed));

struct wire_option {
	uint64_t magic;
	uint32_t option, len;
} __attribute__((packed));

struct wire_option_reply {
	uint64_t magic;
	uint32_t option, type, len;
} __attribute__((packed));

struct wire_info_export {
	uint16_t type; /* 0 */
	uint64_t size;
	uint16_t flags;
} __attribute__((packed));

struct wire_request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, off;
	uint32_t len;
} __attribute__((packed));

struct wire_reply {
	uint32_t magic, error;
	uint64_t cookie;
} __attribute__((packed));

/* All of @len: 0, or -1 when the other side is gone. */
static inline int wire_recv(int fd, void *buf, size_t len)
{
	char *p = buf;

	while (len > 0) {
		ssize_t n = recv(fd, p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static inline int wire_send(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len > 0) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

#endif
