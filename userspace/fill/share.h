/* SPDX-License-Identifier: Apache-2.0 */
/* Whose fills are whose: one export's part in memory and connections, and its limit.
 *
 * Reference-counted: the export's owner holds one, each flight another. Any thread.
 */
#ifndef FILL_SHARE_H
#define FILL_SHARE_H

#include <stdint.h>

struct share;

struct share *share_new(void); /* NULL without memory */
struct share *share_ref(struct share *s);
void share_unref(struct share *s);

/* Most bytes a second from the origin, demand and prefetch together, over all threads; 0 = any. */
void share_set_rate(struct share *s, uint64_t rate);
uint64_t share_rate(const struct share *s);

/* How long its next request has to wait for the limit, ns; 0 = not at all. */
uint64_t share_wait_ns(struct share *s);
void share_charge(struct share *s, uint64_t bytes);

#endif
