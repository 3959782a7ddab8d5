/* SPDX-License-Identifier: Apache-2.0 */
#include "base/ring.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The shared library of liburing 2.3 declares io_uring_enable_rings() and
 * io_uring_register_restrictions() and exports neither. */
static int ring_register(struct io_uring *ring, unsigned op, void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, op, arg, n) < 0 ? -errno : 0;
}

static int restrict_ring(struct io_uring *ring)
{
	static const uint8_t ops[] = {IORING_OP_POLL_ADD, IORING_OP_POLL_REMOVE, IORING_OP_READ};
	struct io_uring_restriction rules[4] = {
		{.opcode = IORING_RESTRICTION_REGISTER_OP,
		 .register_op = IORING_REGISTER_ENABLE_RINGS},
	};

	for (size_t i = 0; i < sizeof(ops); i++) {
		rules[1 + i].opcode = IORING_RESTRICTION_SQE_OP;
		rules[1 + i].sqe_op = ops[i];
	}
	return ring_register(ring, IORING_REGISTER_RESTRICTIONS, rules, 4);
}

/* A filter may allow one of the three system calls and not the others. A disabled ring answers an
 * enter with -EBADFD. */
static int probe_ring(struct io_uring *ring)
{
	int rc = restrict_ring(ring);

	if (rc == 0)
		rc = io_uring_get_events(ring);
	return rc == -EBADFD ? 0 : rc;
}

/* 6.1 has all of them, 6.0 no DEFER_TASKRUN, 5.19 no SINGLE_ISSUER, 5.15 none. */
static int init_ring(struct io_uring *ring, unsigned sq_entries, unsigned cq_entries)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	int rc = -EINVAL;

	for (size_t i = 0; rc == -EINVAL && i < sizeof(flags) / sizeof(flags[0]); i++) {
		struct io_uring_params p = {
			.flags = flags[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
			.cq_entries = cq_entries,
		};

		rc = io_uring_queue_init_params(sq_entries, ring, &p);
	}
	return rc;
}

int ring_open(struct io_uring *ring, unsigned sq_entries, unsigned cq_entries, struct err *err)
{
	/* RSRC_TAGS came with 5.13, as multishot poll did, which has no flag of its own. */
	const unsigned need = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_RSRC_TAGS;
	int rc = init_ring(ring, sq_entries, cq_entries);

	if (rc < 0)
		goto refused;
	rc = (ring->features & need) == need ? probe_ring(ring) : -ENOSYS;
	if (rc == 0)
		return 0;
	io_uring_queue_exit(ring);
refused:
	return err_set(err, rc,
		       "io_uring is refused: %s (a seccomp filter, kernel.io_uring_disabled, or a "
		       "kernel before 5.13)",
		       strerror(-rc));
}

int ring_enable(struct io_uring *ring)
{
	return ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}
