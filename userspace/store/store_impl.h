/* SPDX-License-Identifier: Apache-2.0 */
/* What the store's own files share. */
#ifndef STORE_STORE_IMPL_H
#define STORE_STORE_IMPL_H

#include <pthread.h>

#include "store/store.h"

#define STORE_FORMAT "cairn-store 1\n"

struct store {
	char path[1024];
	int dir_fd, objects_fd, urls_fd, lock_fd;
	uint64_t size;
	pthread_mutex_t opening; /* one object_open() at a time; taken before the lock */
	pthread_mutex_t lock;	 /* objects, eviction, first pins */
	struct object **objects;
	struct object **buckets; /* by id, chained; as many as @cap */
	uint64_t nobjects, cap;
	pthread_mutex_t evict_lock; /* the policy, for a moment at a time; inside of `lock` */
	struct evict evict;
	struct quiesce quiesce;
	struct store_counters counters;
	struct pages *pages; /* store/pages.c; NULL: they stay */
};

/* pages.c */
void pages_stop(struct store *s);
void object_pages_free(struct object *o);
void object_pages_advise(struct object *o); /* after data_fd was opened anew */

/* object.c */
struct clean;
int object_load(struct store *s, const char *name, const struct clean *clean, struct object **out,
		struct err *err);
void object_free(struct object *o);
/* publish.c */
/* Make an extent invisible and free of bits, on disk too; @mask is what was stored. Then, after
 * quiesce_wait(), object_punch_hidden(): the object's files stay open until that. -EBUSY when a
 * reader took hold of it meanwhile, or what the present file's write said: then nothing changed. */
int object_hide(struct object *o, uint64_t extent, uint64_t *mask);
void object_punch_hidden(struct object *o, uint64_t extent, uint64_t mask);

/* The blocks of an extent that the object has. */
uint64_t object_mask(const struct object *o, uint64_t extent);

/* complete.c */
/* Before the first change to a sealed object: the mark goes, and data_fd, which is open, writes
 * again. Under the lock, before threads, or while nobody else has the files open. */
int object_unseal(struct object *o);
bool object_is_marked(const struct object *o);
bool object_is_vouched(struct object *o);
void object_load_promoted(struct object *o);

/* files.c: descriptors, opened by the first and closed by the last. Any thread; they wait for
 * nothing but another's open or close of the same files. */
int object_files_open(struct object *o);
void object_files_close(struct object *o);
void object_direct_close(struct object *o);  /* if no device reads */
void object_direct_open(struct object *o);   /* direct_fd, if the file system has such reads */
int object_dir_open(const struct object *o); /* a descriptor, the caller's; or a negative errno */
/* Reads don't look whether to note when they were: it costs 0.1 us each, and nobody asks. */
void file_skip_atime(int fd);

/* What the files are like, or were when they were closed. */
int object_stamps(struct object *o, struct object_stamps *out);

/* The extent takes space: the policy may find it. By who has it pinned, or hides it. */
void object_list(struct object *o, uint64_t extent);

/* table.c: under the lock, or before threads */
int store_make_room(struct store *s); /* store_add() will not fail then */
int store_add(struct store *s, struct object *o);
struct object *store_find(struct store *s, const struct object_id *id); /* NULL: not there */

/* reserve.c */
/* Room for @bytes of the object, within its quota and the store; -ENOSPC. */
int object_reserve(struct object *o, uint64_t bytes);
/* They are written, or not: of the store's space @back is free again. */
void object_reserved(struct object *o, uint64_t bytes, uint64_t back);
void store_unreserve(struct store *s, uint64_t bytes);
/* Evict @bytes; what was freed. Not under the lock, which it takes for a few extents at a time: who
 * begins a flight meanwhile waits for those. */
uint64_t store_evict(struct store *s, uint64_t bytes);

/* attr.c: small files, replaced whole. */
int attr_write(int dir_fd, const char *name, const void *buf, size_t len);
/* The same, but a power cut may leave it empty. */
int attr_write_soon(int dir_fd, const char *name, const void *buf, size_t len);
int attr_read(int dir_fd, const char *name, size_t limit, char **buf, size_t *len);

/* clean.c: the mark of an orderly stop. */
struct clean *clean_take(struct store *s); /* reads and removes it; NULL = unclean */
/* "NAME data-stamp present-stamp sums-stamp"; - in place of what is not there. */
int object_stamp(struct object *o, char *buf, size_t len);
bool clean_vouches(const struct clean *c, struct object *o);
void clean_free(struct clean *c);
int clean_leave(struct store *s);

#endif
