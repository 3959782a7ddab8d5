/* SPDX-License-Identifier: Apache-2.0 */
/* Read a published image back, whole, and check every byte of it against its digest. */
#ifndef IMAGE_VERIFY_H
#define IMAGE_VERIFY_H

#include "image/crew.h"
#include "image/open.h"

struct verify_report {
	uint8_t digest[SHA256_LEN];
	uint64_t length;
	uint64_t blocks;      /* of data read and hashed; zero parts are checked against the tree */
	uint64_t tree_blocks; /* likewise */
	uint64_t bad_blocks;  /* of data, that did not match */
	uint64_t first_bad_off; /* byte of the image; valid when bad_blocks > 0 */
	uint32_t new_etags;	/* blobs whose ETag is no more what the manifest says */
};

/* 0 when all of it is right. -EBADMSG when something is damaged: the text names the blob, the first
 * bad place and how many; -ENOENT when there is no manifest. */
int image_verify(const char *url, unsigned threads, const struct image_progress *progress,
		 struct verify_report *out, struct err *err);

#endif
