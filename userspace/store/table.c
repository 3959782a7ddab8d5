/* SPDX-License-Identifier: Apache-2.0 */
/* The table of a store's objects, found by id. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/store_impl.h"

static bool is_same(const struct object_id *a, const struct object_id *b)
{
	return a->kind == b->kind && memcmp(a->id, b->id, sizeof(a->id)) == 0;
}

/* Ids are hashes, so any part of one is as good as another hash of it. @nbuckets: a power of 2. */
static uint64_t bucket_of(const struct object_id *id, uint64_t nbuckets)
{
	uint64_t h;

	memcpy(&h, id->id, sizeof(h));
	return (h + (uint64_t)id->kind) & (nbuckets - 1);
}

static void bucket_add(struct store *s, struct object *o)
{
	struct object **bucket = &s->buckets[bucket_of(&o->id, s->cap)];

	o->bucket_next = *bucket;
	*bucket = o;
}

static int table_grow(struct store *s)
{
	uint64_t cap = s->cap ? s->cap * 2 : 64;
	void *objects, *buckets;

	objects = reallocarray(s->objects, cap, sizeof(*s->objects));
	if (!objects)
		return -ENOMEM;
	s->objects = objects;
	buckets = calloc(cap, sizeof(*s->buckets));
	if (!buckets)
		return -ENOMEM;
	free(s->buckets);
	s->buckets = buckets;
	s->cap = cap;
	for (uint64_t i = 0; i < s->nobjects; i++)
		bucket_add(s, s->objects[i]);
	return 0;
}

int store_make_room(struct store *s)
{
	return s->nobjects == s->cap ? table_grow(s) : 0;
}

int store_add(struct store *s, struct object *o)
{
	int rc = store_make_room(s);

	if (rc)
		return rc;
	s->objects[s->nobjects++] = o;
	bucket_add(s, o);
	return 0;
}

struct object *store_find(struct store *s, const struct object_id *id)
{
	struct object *o = s->cap ? s->buckets[bucket_of(id, s->cap)] : NULL;

	while (o && !is_same(&o->id, id))
		o = o->bucket_next;
	return o;
}
