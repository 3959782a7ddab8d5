/* SPDX-License-Identifier: Apache-2.0 */
/* One text in a file, replaced whole while its writer may be killed at any instruction.
 *
 * The file holds two slots, written in turn: magic, version, sequence number, length, SHA-256, then
 * the text. Loading takes the valid slot of the higher sequence, so a torn write leaves the text
 * before it. The file is sparse; its descriptor may be a memfd. A power cut is not covered: nothing
 * is synced. One writer at a time. */
#ifndef BASE_SLOTS_H
#define BASE_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLOTS_ROOM (64ULL << 20) /* of one, header and text */

/* What a writer knows of its last save, so that the next one need not read and hash both slots to
 * find out. All zeros at first. */
struct slots_last {
	bool is_known;
	unsigned slot;
	uint64_t sequence;
};

/* @magic names the kind of text. @last is of this file and writer, or NULL. 0, -EFBIG, -ENOMEM or a
 * write's errno. */
int slots_save(int fd, uint64_t magic, struct slots_last *last, const char *text, size_t len);

/* Fresh memory with a NUL after it, the caller's; NULL and 0 for a file never written. -EBADMSG:
 * written, and no slot is valid. Out-parameters are set on success only; @sequence may be NULL. */
int slots_load(int fd, uint64_t magic, char **text, size_t *len, uint64_t *sequence);

#endif
