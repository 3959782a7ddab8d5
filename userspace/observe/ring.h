/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a BPF ring buffer (BPF_MAP_TYPE_RINGBUF) through its mapping, with no bpf(2) call. One
 * reader, one thread.
 *
 * The layout is uapi: a page with the consumer's position (ours to write), one with the producer's,
 * then the data twice in a row, so that a record is never broken. A record is a header of
 * 8 bytes and a body, padded to 8; the header's first word is the body's length with two flags.
 */
#ifndef OBSERVE_RING_H
#define OBSERVE_RING_H

#include <stddef.h>
#include <stdint.h>

struct observe_ring {
	uint64_t *consumer;	  /* position */
	const uint64_t *producer; /* position */
	const uint8_t *data;	  /* twice @size bytes */
	size_t size;		  /* a power of two */
};

/* Map the ring at @fd, of @size bytes of data. 0 or a negative errno. */
int observe_ring_open(struct observe_ring *r, int fd, size_t size);
void observe_ring_close(struct observe_ring *r); /* one that was opened */

/* Every record that is complete, in order, to @fn, which may read it until it returns. A record
 * still being written ends the round; what the programs discarded is passed over. Positions that
 * make no sense (a ring of another size) take everything: nothing is read then. Returns how many
 * @fn saw. */
size_t observe_ring_drain(struct observe_ring *r,
			  void (*fn)(void *arg, const void *rec, size_t len), void *arg);

#endif
