/* SPDX-License-Identifier: Apache-2.0 */
/* A frame of `cairn top` as lines of text. */
#ifndef CLI_TOP_PRINT_H
#define CLI_TOP_PRINT_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* @rows: how many lines there is room for; UINT32_MAX: as many as it takes. */
void top_print(const cJSON *frame, bool colours, uint32_t rows, FILE *out);

/* @text cut to the screen, each line to its columns: escape codes take none. */
void top_put(const char *text, uint32_t columns, uint32_t rows, FILE *out);

#endif
