/* SPDX-License-Identifier: Apache-2.0 */
/* Small caches of names that say which expert would hit most: pure.
 *
 * They see a sample of the extents, drawn by a hash of their names, and have room for as large a
 * part of the stored extents, so that their hits are about those of a whole cache under that
 * expert.
 */
#ifndef STORE_EVICT_SHADOW_H
#define STORE_EVICT_SHADOW_H

#include "store/evict_use.h"

#define SHADOW_ROOM   256  /* names at most */
#define SHADOW_MEMORY 2048 /* reads after which a hit's weight is 1 / e */

struct evict_shadow {
	uint32_t n;
	uint64_t name[SHADOW_ROOM], use[SHADOW_ROOM];
	double hits; /* decayed */
};

struct evict_shadows {
	enum evict_expert chosen;
	uint32_t room; /* <= SHADOW_ROOM */
	double reads;  /* decayed */
	struct evict_shadow of[EVICT_EXPERTS];
};

void shadows_init(struct evict_shadows *s);

/* From now on @room names of another sample; who leads is not forgotten. */
void shadows_resize(struct evict_shadows *s, uint32_t room, bool other_sample);

/* An extent of the sample was read. @use: as it is after that. */
void shadows_read(struct evict_shadows *s, uint64_t name, uint64_t use, uint32_t now);

#endif
