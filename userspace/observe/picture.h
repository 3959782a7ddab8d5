/* SPDX-License-Identifier: Apache-2.0 */
/* A picture in memory, and its PNG file. Coordinates in pixels from the top left; what lies outside
 * is not drawn. */
#ifndef OBSERVE_PICTURE_H
#define OBSERVE_PICTURE_H

#include <stdint.h>

#include "base/err.h"

struct picture {
	uint32_t width, height;
	uint8_t *rgb; /* 3 bytes a pixel, rows from the top */
};

struct colour {
	uint8_t r, g, b;
};

#define PICTURE_SIDE_MAX 16384U

/* Black. -EINVAL: no or too long a side. */
int picture_new(uint32_t width, uint32_t height, struct picture *out);
void picture_free(struct picture *p);

void picture_fill(struct picture *p, int x, int y, int width, int height, struct colour c);

/* @text in letters of 5 by 7 dots, each @scale pixels wide, one dot apart; returns where it ends.
 */
int picture_text(struct picture *p, int x, int y, int scale, struct colour c, const char *text);
int picture_text_width(int scale, const char *text);

/* Whole or not at all: written beside @path and renamed. With it the text of a tEXt chunk "Title".
 */
int picture_write_png(const struct picture *p, const char *path, const char *title,
		      struct err *err);

#endif
