/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzzers share: the input taken from its front, and what must hold.
 *
 * Each tests/fuzz/fuzz_NAME.c is a program of its own: one thread, nothing kept from one input to
 * the next, so that an input that was found repeats by itself.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* What must hold of every input. */
#define must(x)                                                                                    \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #x);     \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct input {
	const uint8_t *at;
	size_t left;
};

static inline uint64_t take_number(struct input *in, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++) {
		v = v << 8 | (in->left ? *in->at : 0);
		if (in->left) {
			in->at++;
			in->left--;
		}
	}
	return v;
}

/* The input up to @end or its own end, as a string of its own; the caller frees. */
static inline char *take_string(struct input *in, uint8_t end)
{
	const uint8_t *stop = in->left ? memchr(in->at, end, in->left) : NULL;
	size_t n = stop ? (size_t)(stop - in->at) : in->left;
	char *s = malloc(n + 1);

	must(s);
	if (n)
		memcpy(s, in->at, n);
	s[n] = 0;
	in->at += n + (stop != NULL);
	in->left -= n + (stop != NULL);
	return s;
}

/* A file of these bytes, and a path that names it until it is closed. */
static inline int file_of(const void *data, size_t len, char path[64])
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	must(fd >= 0);
	must(write(fd, data, len) == (ssize_t)len);
	must(lseek(fd, 0, SEEK_SET) == 0);
	snprintf(path, 64, "/proc/self/fd/%d", fd);
	return fd;
}

#endif
