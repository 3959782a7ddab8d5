/* SPDX-License-Identifier: Apache-2.0 */
/* What each thread of the worker is doing, kept where it outlives the worker, and what is not tried
 * again because two workers died of it.
 *
 * A thread says so around each request it serves and each turn of a flight: three stores, and the
 * names where they differ from the last request's. Works the same in a process that has no record
 * (tests, the command): then it is kept in the thread.
 */
#ifndef CRASH_DOING_H
#define CRASH_DOING_H

#include <stdbool.h>
#include <stddef.h>

#include <crash_record.h>

/* Whom requests are of: an export, or the source of a flight. Embedded in it; read by any thread,
 * unchanged after its init. */
struct crash_subject {
	uint64_t serial; /* 0: not initialised, and then nothing is told of it */
	bool has_poison;
	char export_name[CRASH_EXPORT_LEN];
	char identity[CRASH_IDENTITY_LEN];
};

/* Any thread. Names are copied, and cut. @export_name may be "". */
void crash_subject_init(struct crash_subject *s, const char *export_name, const char *identity);

extern _Thread_local struct crash_doing *crash_doing_mine; /* NULL before the first use */

struct crash_doing *crash_doing_begin(void);
void crash_doing_name(struct crash_doing *d, const struct crash_subject *s);

/* This thread now serves this. False: it was doing something already, which stands, and the caller
 * must not leave. @s may be NULL. */
static inline bool crash_enter(enum crash_what what, const struct crash_subject *s, uint64_t off,
			       uint32_t len)
{
	struct crash_doing *d = crash_doing_mine ? crash_doing_mine : crash_doing_begin();

	if (d->what)
		return false;
	if (d->subject != (s ? s->serial : 0))
		crash_doing_name(d, s);
	d->off = off;
	d->len = len;
	atomic_signal_fence(memory_order_release);
	d->what = what;
	return true;
}

static inline void crash_leave(bool entered)
{
	atomic_signal_fence(memory_order_release);
	if (entered)
		crash_doing_mine->what = CRASH_IDLE;
}

/* Call it something else for a while; returns what it was, to be put back. No-op when idle. */
static inline uint32_t crash_turn_to(uint32_t what)
{
	struct crash_doing *d = crash_doing_mine;
	uint32_t was = d ? d->what : CRASH_IDLE;

	if (was)
		d->what = what;
	return was;
}

enum crash_look { CRASH_LOOK, CRASH_REFUSE, CRASH_LOOK_HOPELESS };

bool crash_look_up(const struct crash_subject *s, enum crash_what what, uint64_t off, uint32_t len,
		   enum crash_look look);

/* Did exactly this kill two workers? */
static inline bool crash_is_poison(const struct crash_subject *s, enum crash_what what,
				   uint64_t off, uint32_t len)
{
	return __builtin_expect(s->has_poison, false) &&
	       crash_look_up(s, what, off, len, CRASH_LOOK);
}

/* The same; then it is counted and, once, logged: answer it EIO. */
static inline bool crash_is_refused(const struct crash_subject *s, enum crash_what what,
				    uint64_t off, uint32_t len)
{
	return __builtin_expect(s->has_poison, false) &&
	       crash_look_up(s, what, off, len, CRASH_REFUSE);
}

/* Did it kill CRASH_HOPELESS, two of them when a reply that had begun was gone on with? */
static inline bool crash_is_hopeless(const struct crash_subject *s, enum crash_what what,
				     uint64_t off, uint32_t len)
{
	return __builtin_expect(s->has_poison, false) &&
	       crash_look_up(s, what, off, len, CRASH_LOOK_HOPELESS);
}

/* What a reader of a refused fill is told. */
extern const char crash_refused_text[];

/* ---- the worker's start ---- */

/* Keep the record on @fd from now on: log lines, what threads do, and how this process dies of a
 * signal of its own making. Call once, with one thread, before exports are opened. On error
 * (-EPROTO: a supervisor of another version; -EBUSY: two others have it) the process goes on
 * without. */
int crash_begin(int fd);

/* The record of this process, or NULL. */
struct crash_record *crash_record_mine(void);

/* Poisons are lifted at once, and no death before now makes one. */
void crash_clear(void);

#endif
