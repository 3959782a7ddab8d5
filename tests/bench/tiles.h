/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles: files that are longer than the disk would like, since they repeat a shorter one. */
#ifndef TESTS_BENCH_TILES_H
#define TESTS_BENCH_TILES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TILES_MAX 16

struct tile {
	char *name, *file;
	uint64_t size;
};

static struct tile tiles[TILES_MAX];
static unsigned ntiles;

static inline const struct tile *tile_find(const char *name)
{
	for (unsigned i = 0; i < ntiles; i++)
		if (strcmp(tiles[i].name, name) == 0)
			return &tiles[i];
	return NULL;
}

/* NAME=BYTES:FILE; @text stays, and is cut. */
static inline bool tile_add(char *text)
{
	char *size = strchr(text, '='), *end;
	struct tile *t = &tiles[ntiles];

	if (!size || ntiles == TILES_MAX)
		return false;
	*size++ = 0;
	t->size = strtoull(size, &end, 10);
	if (*end != ':' || t->size == 0 || end[1] == 0 || text[0] == 0)
		return false;
	t->name = text;
	t->file = end + 1;
	ntiles++;
	return true;
}

#endif
