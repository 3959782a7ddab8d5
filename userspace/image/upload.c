/* SPDX-License-Identifier: Apache-2.0 */
#include "image/upload.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_MIN  (8 * MIB)
#define CHUNKS_MAX 50000 /* Azure's limit on the blocks of a blob */
#define ID_LEN	   64	 /* hex digits */
#define ID_HASH	   28	 /* bytes of hash in an id; 4 bytes of place follow */

/* One upload_blob(). */
struct sending {
	struct upload *u;
	struct crew crew;
	uint64_t len, chunk;
	uint64_t nchunks;
	char (*ids)[ID_LEN + 1];
	char (*staged)[ID_LEN + 1]; /* what the origin says it has, by place; "" = none */
	uint64_t *staged_len;
	_Atomic uint64_t sent;
	_Atomic bool differs; /* a committed blob isn't ours */
};

static uint64_t chunk_len(const struct sending *s, uint64_t i)
{
	uint64_t left = s->len - i * s->chunk;

	return left < s->chunk ? left : s->chunk;
}

/* The part that holds byte @at of the blob. */
static const struct manifest_part *part_at(const struct upload *u, uint64_t at)
{
	uint32_t lo = 0, hi = u->nparts;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (u->parts[mid].blob_off <= at)
			lo = mid;
		else
			hi = mid;
	}
	return &u->parts[lo];
}

/* Call fn for each run of the file that makes up [at, at + len) of the blob. */
static int for_each_run(const struct sending *s, uint64_t at, uint64_t len,
			int (*fn)(const struct upload *u, struct run file, uint8_t *out,
				  struct err *err),
			uint8_t *out, uint64_t (*advance)(uint64_t len), struct err *err)
{
	while (len) {
		const struct manifest_part *p = part_at(s->u, at);
		uint64_t skip = at - p->blob_off, here = p->len - skip;
		int rc;

		if (here > len)
			here = len;
		rc = fn(s->u, (struct run){p->off + skip, here}, out, err);
		if (rc)
			return rc;
		out += advance(here);
		at += here;
		len -= here;
	}
	return 0;
}

static int read_run(const struct upload *u, struct run file, uint8_t *out, struct err *err)
{
	int rc = pread_all(u->fd, out, file.len, file.off);

	if (rc == -ENODATA)
		return err_set(err, -ESTALE, "the image became shorter while it was pushed");
	return rc ? err_set(err, rc, "reading at byte %llu: %s", (unsigned long long)file.off,
			    strerror(-rc))
		  : 0;
}

static uint64_t bytes_of(uint64_t len)
{
	return len;
}

static int hashes_of_run(const struct upload *u, struct run file, uint8_t *out, struct err *err)
{
	return image_tree_hashes(u->tree, file.off >> BLOCK_SHIFT,
				 (uint32_t)((file.len + BLOCK_SIZE - 1) >> BLOCK_SHIFT), out, err);
}

static uint64_t hash_bytes_of(uint64_t len)
{
	return ((len + BLOCK_SIZE - 1) >> BLOCK_SHIFT) * SHA256_LEN;
}

static void make_id(const void *content, size_t len, uint64_t place, char id[ID_LEN + 1])
{
	uint8_t raw[SHA256_LEN];
	uint32_t be = htobe32((uint32_t)place);

	sha256(content, len, raw);
	memcpy(raw + ID_HASH, &be, sizeof(be));
	hex_encode(raw, sizeof(raw), id);
}

static bool is_staged(const struct sending *s, uint64_t i)
{
	return s->staged_len[i] == chunk_len(s, i) && memcmp(s->staged[i], s->ids[i], ID_LEN) == 0;
}

/* The image's chunk as it is now, against the hashes that its digest is made of. */
static int check_chunk(const struct sending *s, uint64_t i, uint8_t *buf, const uint8_t *want,
		       uint64_t *bad)
{
	uint64_t len = chunk_len(s, i), n = hash_bytes_of(len) / SHA256_LEN;
	uint8_t hash[SHA256_LEN];

	for (uint64_t b = 0; b < n; b++) {
		uint64_t at = b << BLOCK_SHIFT;

		image_hash_blocks(buf + at, len - at < BLOCK_SIZE ? len - at : BLOCK_SIZE, hash);
		if (memcmp(hash, want + b * SHA256_LEN, SHA256_LEN) != 0) {
			*bad = i * s->chunk + at;
			return -ESTALE;
		}
	}
	return 0;
}

static int read_chunk(struct sending *s, uint64_t i, uint8_t *buf, const uint8_t *want,
		      struct err *err)
{
	const struct manifest_part *p;
	uint64_t bad;
	int rc = for_each_run(s, i * s->chunk, chunk_len(s, i), read_run, buf, bytes_of, err);

	if (rc || !s->u->tree || !check_chunk(s, i, buf, want, &bad))
		return rc;
	p = part_at(s->u, bad);
	return err_set(err, -ESTALE, "the image changed at byte %llu while it was pushed",
		       (unsigned long long)(p->off + bad - p->blob_off));
}

/* Scratch: the chunk's bytes, then the hashes of its blocks. */
static int stage_chunk(void *arg, struct crew_hand *hand, uint64_t i, struct err *err)
{
	struct sending *s = arg;
	uint64_t len = chunk_len(s, i);
	uint8_t *buf = hand->scratch, *hashes = hand->scratch + s->chunk;
	int rc;

	if (s->u->tree) {
		rc = for_each_run(s, i * s->chunk, len, hashes_of_run, hashes, hash_bytes_of, err);
		if (rc)
			return rc;
		make_id(hashes, hash_bytes_of(len), i, s->ids[i]);
	}
	if (!s->u->tree || !is_staged(s, i)) {
		rc = read_chunk(s, i, buf, hashes, err);
		if (rc)
			return rc;
	}
	if (!s->u->tree)
		make_id(buf, len, i, s->ids[i]);
	if (!is_staged(s, i)) {
		rc = origin_stage(hand->client, s->u->origin, s->u->name, s->ids[i], buf, len, err);
		if (rc)
			return rc;
		atomic_fetch_add(&s->sent, len);
	}
	atomic_fetch_add(&s->crew.done, len);
	return 0;
}

static int compare_chunk(void *arg, struct crew_hand *hand, uint64_t i, struct err *err)
{
	struct sending *s = arg;
	uint64_t len = chunk_len(s, i), bad;
	uint8_t *buf = hand->scratch, *hashes = hand->scratch + s->chunk;
	int rc = for_each_run(s, i * s->chunk, len, hashes_of_run, hashes, hash_bytes_of, err);

	if (!rc)
		rc = origin_pread(hand->client, s->u->origin, s->u->name, s->u->etag, i * s->chunk,
				  (uint32_t)len, buf, err);
	if (rc == -ESTALE || rc == -ERANGE || (!rc && check_chunk(s, i, buf, hashes, &bad))) {
		atomic_store(&s->differs, true);
		return err_set(err, -ESTALE, "blob %s holds something else", s->u->name);
	}
	atomic_fetch_add(&s->crew.done, rc ? 0 : len);
	return rc;
}

static void note_staged(void *arg, const char *id, uint64_t len)
{
	struct sending *s = arg;
	uint32_t be;
	uint64_t place;

	if (strlen(id) != ID_LEN || hex_decode(id + 2 * ID_HASH, &be, sizeof(be)))
		return;
	place = be32toh(be);
	if (place >= s->nchunks)
		return;
	strcpy(s->staged[place], id);
	s->staged_len[place] = len;
}

/* Is the blob there already, from a push that ended after its commit? @found only on success. */
static int find_committed(struct sending *s, struct origin_client *client, bool *found,
			  struct err *err)
{
	struct origin_stat st;
	int rc = origin_stat(client, s->u->origin, s->u->name, &st, err);

	*found = false;
	if (rc == -ENOENT || (!rc && st.length != s->len))
		return 0;
	if (rc)
		return rc;
	strcpy(s->u->etag, st.etag);
	s->crew.run = compare_chunk;
	s->crew.phase = "checking what is there";
	atomic_store(&s->crew.done, s->u->done_before);
	rc = crew_run(&s->crew, err);
	*found = rc == 0;
	return atomic_load(&s->differs) ? 0 : rc;
}

static int stage_and_commit(struct sending *s, struct origin_client *client, struct err *err)
{
	struct upload *u = s->u;
	const char **ids;
	int rc = origin_staged(client, u->origin, u->name, note_staged, s, err);

	if (rc)
		return rc;
	s->crew.run = stage_chunk;
	s->crew.phase = u->phase;
	atomic_store(&s->crew.done, u->done_before);
	rc = crew_run(&s->crew, err);
	u->sent = atomic_load(&s->sent);
	if (rc)
		return rc;
	ids = calloc(s->nchunks, sizeof(*ids));
	if (!ids)
		return err_set(err, -ENOMEM, "no memory for the ids of %s", u->name);
	for (uint64_t i = 0; i < s->nchunks; i++)
		ids[i] = s->ids[i];
	rc = origin_commit(client, u->origin, u->name, ids, s->nchunks, u->etag, err);
	free(ids);
	return rc;
}

static int sending_init(struct sending *s, struct err *err)
{
	const struct manifest_part *last = &s->u->parts[s->u->nparts - 1];

	s->len = last->blob_off + last->len;
	s->chunk = (s->len / CHUNKS_MAX + BLOCK_SIZE) & ~(uint64_t)(BLOCK_SIZE - 1);
	if (s->chunk < CHUNK_MIN)
		s->chunk = CHUNK_MIN;
	if (s->chunk > ORIGIN_BLOCK_MAX)
		return err_set(err, -EFBIG, "blob %s would be too large: use --part-size",
			       s->u->name);
	s->nchunks = (s->len + s->chunk - 1) / s->chunk;
	s->ids = calloc(s->nchunks, sizeof(*s->ids));
	s->staged = calloc(s->nchunks, sizeof(*s->staged));
	s->staged_len = calloc(s->nchunks, sizeof(*s->staged_len));
	if (!s->ids || !s->staged || !s->staged_len)
		return err_set(err, -ENOMEM, "no memory for the ids of %s", s->u->name);
	s->crew.threads = s->u->threads;
	s->crew.jobs = s->nchunks;
	s->crew.scratch = s->chunk + hash_bytes_of(s->chunk);
	s->crew.config = s->u->config;
	s->crew.arg = s;
	s->crew.progress = s->u->progress;
	s->crew.total = s->u->total ? s->u->total : s->len;
	return 0;
}

int upload_blob(struct upload *u, struct origin_client *client, struct err *err)
{
	struct sending s = {.u = u};
	bool found = false;
	int rc = sending_init(&s, err);

	u->sent = 0;
	if (!rc && u->tree)
		rc = find_committed(&s, client, &found, err);
	if (!rc && !found)
		rc = stage_and_commit(&s, client, err);
	free(s.ids);
	free(s.staged);
	free(s.staged_len);
	return rc;
}
