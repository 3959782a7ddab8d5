/* SPDX-License-Identifier: Apache-2.0 */
/* What fill/density.h finds worth having is fetched here, behind what readers wait for. */
#ifndef WORKER_COMPLETION_H
#define WORKER_COMPLETION_H

#include <stdint.h>

struct volume;

/* Under the volume's lock. */
struct completion {
	uint64_t next, left; /* extents; after the last comes the first */
	uint32_t in_flight;
};

/* The image is about to be mounted: file systems keep what a mount reads first (superblock, group
 * descriptors, the first inodes) in the first extent. It comes in four requests at once, while the
 * device is being made. Any thread. */
void completion_expect_mount(struct volume *v);

/* A read that misses, on a data thread. */
void completion_note(struct volume *v, uint64_t off, uint32_t len);

/* A read that was a hit; cheap when there is nothing to learn from it. */
void completion_served(struct volume *v, uint64_t off, uint32_t len);

#endif
