/* SPDX-License-Identifier: Apache-2.0 */
#include "base/slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"

#define SLOTS_VERSION 1u

struct slot_header {
	uint64_t magic;
	uint32_t version, reserved;
	uint64_t sequence, len;
	uint8_t sum[SHA256_LEN]; /* of the text with this header's sequence and len before it */
};

static void slot_sum(const struct slot_header *h, const char *text, uint8_t sum[SHA256_LEN])
{
	uint64_t frame[2] = {h->sequence, h->len};
	uint8_t both[SHA256_LEN + sizeof(frame)];

	sha256(text, h->len, both);
	memcpy(both + SHA256_LEN, frame, sizeof(frame));
	sha256(both, sizeof(both), sum);
}

/* The slot's text in fresh memory with a NUL after it, or NULL. */
static char *slot_read(int fd, unsigned slot, uint64_t magic, struct slot_header *h)
{
	uint8_t sum[SHA256_LEN];
	char *text;

	if (pread_all(fd, h, sizeof(*h), slot * SLOTS_ROOM) || h->magic != magic ||
	    h->version != SLOTS_VERSION || h->len > SLOTS_ROOM - sizeof(*h))
		return NULL;
	text = malloc(h->len + 1);
	if (!text)
		return NULL;
	if (pread_all(fd, text, h->len, slot * SLOTS_ROOM + sizeof(*h))) {
		free(text);
		return NULL;
	}
	text[h->len] = 0;
	slot_sum(h, text, sum);
	if (memcmp(sum, h->sum, sizeof(sum)) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* The newest valid text (NULL = none), its header and its slot. */
static char *newest(int fd, uint64_t magic, struct slot_header *header, unsigned *slot)
{
	struct slot_header h;
	char *best = NULL;

	*header = (struct slot_header){0};
	*slot = 1;
	for (unsigned i = 0; i < 2; i++) {
		char *text = slot_read(fd, i, magic, &h);

		if (!text || (best && h.sequence < header->sequence)) {
			free(text);
			continue;
		}
		free(best);
		best = text;
		*header = h;
		*slot = i;
	}
	return best;
}

static struct slots_last last_found(int fd, uint64_t magic)
{
	struct slots_last last = {.is_known = true};
	struct slot_header h;

	free(newest(fd, magic, &h, &last.slot));
	last.sequence = h.sequence;
	return last;
}

int slots_save(int fd, uint64_t magic, struct slots_last *last, const char *text, size_t len)
{
	struct slots_last was = last && last->is_known ? *last : last_found(fd, magic);
	struct slot_header h = {
		.magic = magic, .version = SLOTS_VERSION, .sequence = was.sequence + 1, .len = len};
	unsigned slot = !was.slot;
	int rc;

	if (len > SLOTS_ROOM - sizeof(h))
		return -EFBIG;
	slot_sum(&h, text, h.sum);
	rc = pwrite_all(fd, text, len, slot * SLOTS_ROOM + sizeof(h));
	if (!rc)
		rc = pwrite_all(fd, &h, sizeof(h), slot * SLOTS_ROOM);
	if (last) /* after an error the slot's state is not known */
		*last = (struct slots_last){!rc, slot, h.sequence};
	return rc;
}

int slots_load(int fd, uint64_t magic, char **text, size_t *len, uint64_t *sequence)
{
	struct slot_header h;
	struct stat st;
	unsigned slot;
	char *got;

	if (fstat(fd, &st))
		return -errno;
	got = st.st_size ? newest(fd, magic, &h, &slot) : NULL;
	if (st.st_size && !got)
		return -EBADMSG;
	*text = got;
	*len = got ? h.len : 0;
	if (sequence)
		*sequence = got ? h.sequence : 0;
	return 0;
}
