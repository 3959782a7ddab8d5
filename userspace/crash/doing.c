/* SPDX-License-Identifier: Apache-2.0 */
#include "crash/doing.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "crash/handler.h"
#include "crash/record.h"

const char crash_refused_text[] = "reading this extent killed the worker twice, so it is not tried "
				  "again (see `cairn status`)";

_Thread_local struct crash_doing *crash_doing_mine;

static _Thread_local struct crash_doing unkept; /* without a record, or with all slots in use */
static _Atomic uint64_t serials;
static struct crash_record *record;
static struct crash_area *area;
static pthread_key_t thread_end;

/* ---- threads ---- */

static struct crash_slot *slot_take(void)
{
	uint32_t tid = (uint32_t)gettid();

	for (int i = 0; area && i < CRASH_SLOTS; i++) {
		uint32_t none = 0;

		if (atomic_compare_exchange_strong(&area->slot[i].tid, &none, tid))
			return &area->slot[i];
	}
	return NULL;
}

struct kept_thread {
	struct crash_slot *slot; /* may be NULL */
	void *stack;
};

static void thread_ends(void *arg)
{
	struct kept_thread *t = arg;

	crash_doing_mine = &unkept;
	if (t->slot) {
		t->slot->doing.what = CRASH_IDLE;
		atomic_store(&t->slot->tid, 0);
	}
	crash_handler_thread_end(t->stack);
	free(t);
}

struct crash_doing *crash_doing_begin(void)
{
	struct kept_thread *t = area ? calloc(1, sizeof(*t)) : NULL;

	crash_doing_mine = &unkept;
	if (!t)
		return crash_doing_mine;
	t->slot = slot_take();
	t->stack = crash_handler_thread_begin();
	pthread_setspecific(thread_end, t);
	if (t->slot)
		crash_doing_mine = &t->slot->doing;
	return crash_doing_mine;
}

void crash_doing_name(struct crash_doing *d, const struct crash_subject *s)
{
	if (s) {
		memcpy(d->export_name, s->export_name, sizeof(d->export_name));
		memcpy(d->identity, s->identity, sizeof(d->identity));
	} else {
		d->export_name[0] = d->identity[0] = 0;
	}
	d->subject = s ? s->serial : 0;
}

/* ---- what is refused ---- */

static bool has_poison(const char *identity)
{
	for (int i = 0; record && i < CRASH_POISONS; i++)
		if (atomic_load(&record->poison[i].used) &&
		    strncmp(record->poison[i].doing.identity, identity, CRASH_IDENTITY_LEN) == 0)
			return true;
	return false;
}

void crash_subject_init(struct crash_subject *s, const char *export_name, const char *identity)
{
	*s = (struct crash_subject){.serial = atomic_fetch_add(&serials, 1) + 1};
	snprintf(s->export_name, sizeof(s->export_name), "%s", export_name);
	snprintf(s->identity, sizeof(s->identity), "%s", identity);
	s->has_poison = has_poison(s->identity);
}

static void log_refusal(const struct crash_poison *p)
{
	char what[512];

	crash_doing_text(&p->doing, what, sizeof(what));
	log_error("crash", "a request that killed the worker twice is answered with an error",
		  "request=\"%s\" cause=%s remedy=\"cairn upgrade, report it; cairn status "
		  "--clear-crashes tries again\"",
		  what, crash_cause_name(p->cause));
}

bool crash_look_up(const struct crash_subject *s, enum crash_what what, uint64_t off, uint32_t len,
		   enum crash_look look)
{
	static _Atomic uint32_t logged; /* a bit a poison */
	struct crash_doing d = {.what = what, .off = off, .len = len};

	memcpy(d.identity, s->identity, sizeof(d.identity));
	for (unsigned i = 0; record && i < CRASH_POISONS; i++) {
		struct crash_poison *p = &record->poison[i];

		if (!atomic_load(&p->used) || !crash_is_same(&p->doing, &d))
			continue;
		if (look == CRASH_LOOK_HOPELESS)
			return p->deaths >= CRASH_HOPELESS;
		if (look == CRASH_REFUSE) {
			atomic_fetch_add(&p->refused, 1);
			atomic_fetch_add(&record->refused, 1);
		}
		if (look == CRASH_REFUSE && !(atomic_fetch_or(&logged, 1U << i) >> i & 1))
			log_refusal(p);
		return true;
	}
	return false;
}

void crash_clear(void)
{
	if (record)
		crash_record_clear(record);
}

/* ---- start ---- */

static bool is_gone(int32_t pid)
{
	return kill(pid, 0) < 0 && errno == ESRCH;
}

/* Free, or of a worker that nobody noticed the end of. */
static struct crash_area *area_take(struct crash_record *r)
{
	int32_t pid = getpid();

	for (int i = 0; i < CRASH_AREAS; i++) {
		struct crash_area *a = &r->area[i];
		int32_t other = atomic_load(&a->pid);

		if ((other && !is_gone(other)) ||
		    !atomic_compare_exchange_strong(&a->pid, &other, pid))
			continue;
		memset((char *)a + sizeof(a->pid), 0, sizeof(*a) - sizeof(a->pid));
		snprintf(a->death.build, sizeof(a->death.build), "%s", CAIRN_VERSION);
		return a;
	}
	return NULL;
}

static void log_keep(const char *line, size_t len)
{
	uint64_t n = atomic_fetch_add(&area->log.next, 1);
	struct crash_line *l = &area->log.line[n % CRASH_LINES];

	if (len >= sizeof(l->text))
		len = sizeof(l->text) - 1;
	atomic_store_explicit(&l->seq, 0, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	memcpy(l->text, line, len);
	l->len = (uint32_t)len;
	atomic_store_explicit(&l->seq, n + 1, memory_order_release);
}

int crash_begin(int fd)
{
	struct crash_record *r;
	int rc = crash_record_map(fd, &r);

	if (rc)
		return rc;
	area = area_take(r);
	if (!area || pthread_key_create(&thread_end, thread_ends)) {
		area = NULL;
		crash_record_unmap(r);
		return -EBUSY;
	}
	record = r;
	log_set_keeper(log_keep);
	crash_doing_mine = NULL;
	crash_doing_begin();
	crash_handler_begin(area);
	return 0;
}

struct crash_record *crash_record_mine(void)
{
	return record;
}
