/* SPDX-License-Identifier: Apache-2.0 */
/* Letters of 5 by 7 dots, for the labels of pictures. */
#ifndef OBSERVE_FONT_H
#define OBSERVE_FONT_H

#include <stdint.h>

#define FONT_WIDTH  5
#define FONT_HEIGHT 7

/* Column by column, the topmost dot in bit 0. Printable ASCII; all else is a box. */
const uint8_t *font_glyph(char c);

#endif
