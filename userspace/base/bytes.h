/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, hex and SHA-256: what every layer names bytes with. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KIB 1024ULL
#define MIB (1024ULL * KIB)
#define GIB (1024ULL * MIB)
#define TIB (1024ULL * GIB)

#define SHA256_LEN 32

/* "4096", "64KiB", "10GiB", "1.5TiB" (also K M G T, all binary). 0, or -EINVAL/-ERANGE. */
int bytes_parse(const char *s, uint64_t *out);

/* "4.0 MiB" into @buf (at least 16 bytes); returns @buf. */
const char *bytes_format(uint64_t n, char *buf, size_t len);

/* Lower-case hex; @out holds 2 * len + 1. */
void hex_encode(const void *src, size_t len, char *out);

/* Exactly 2 * len hex digits, then NUL. 0 or -EINVAL; @out untouched on error. */
int hex_decode(const char *s, void *out, size_t len);

/* SHA-256 of one run of memory. Thread-safe; cannot fail. */
void sha256(const void *data, size_t len, uint8_t out[SHA256_LEN]);

/* The same of two runs of @len bytes, in little more time than one takes where the processor has
 * instructions for SHA. */
void sha256_pair(const void *a, const void *b, size_t len, uint8_t out_a[SHA256_LEN],
		 uint8_t out_b[SHA256_LEN]);

/* True if all @len bytes are 0. */
bool bytes_are_zero(const void *p, size_t len);

/* All of @len or a negative errno; -ENODATA when the file ends first. Retries EINTR. */
int pread_all(int fd, void *buf, size_t len, uint64_t off);
int pwrite_all(int fd, const void *buf, size_t len, uint64_t off);

/* A whole small file into fresh memory with a NUL after it (the caller frees);
 * -EFBIG over @limit. Out-parameters are written on success only. */
int file_read_all(const char *path, size_t limit, char **out, size_t *len);

#endif
