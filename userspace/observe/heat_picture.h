/* SPDX-License-Identifier: Apache-2.0 */
/* How an image looks by heat and presence: a cell's hue and brightness are its heat (log scale;
 * cold is slate blue), and the cell is filled from below as far as it is in the store, dimmed
 * above. One palette for the PNG and the terminal. Pure.
 */
#ifndef OBSERVE_HEAT_PICTURE_H
#define OBSERVE_HEAT_PICTURE_H

#include <stdbool.h>

#include "observe/picture.h"

#define HEAT_PRESENT_ALL 64 /* blocks */

struct heat_scene {
	const char *name, *device, *note; /* note: "" or a line, as that the observer is off */
	uint64_t length, bytes_present, cell_bytes;
	bool observed;
	double half_life_s;
	uint32_t ncells;
	const double *heat;
	const uint8_t *present; /* blocks of 64 */
};

/* The hottest cell; the scale ends there. At least 1. */
double heat_scene_max(const struct heat_scene *s);

/* How hot, 0 to 1 on the log scale: 0 is cold. */
double heat_share(double heat, double max);

/* A cell's colour by its share; and that of the part that is not in the store. */
struct colour heat_colour(double share);
struct colour heat_colour_absent(double share);

/* The whole picture, 1,024 wide, with title and legend. Free with picture_free(). */
int heat_picture_draw(const struct heat_scene *s, struct picture *out);

#endif
