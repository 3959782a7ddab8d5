/* SPDX-License-Identifier: Apache-2.0 */
#include "crash/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const cause_names[CRASH_CAUSES] = {
	"segv", "bus", "ill", "fpe", "abort", "oom", "kill", "term", "signal", "exit",
};

static const char *const what_names[CRASH_WHATS] = {
	"", "read", "cache", "block status", "fill", "recheck", "handshake", "control",
};

const char *crash_cause_name(uint32_t cause)
{
	return cause < CRASH_CAUSES ? cause_names[cause] : "?";
}

const char *crash_what_name(uint32_t what)
{
	return what < CRASH_WHATS ? what_names[what] : "?";
}

/* ---- making and mapping ---- */

static struct crash_record *map(int fd)
{
	void *p =
		mmap(NULL, sizeof(struct crash_record), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

int crash_record_new(struct crash_record **out, struct err *err)
{
	int fd = memfd_create("cairn-crashes", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct crash_record *r = NULL;
	int rc = 0;

	/* sealed: a worker that cut it short would have the supervisor die of SIGBUS */
	if (fd < 0 || ftruncate(fd, sizeof(*r)) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) || !(r = map(fd)))
		rc = -errno;
	if (rc) {
		if (fd >= 0)
			close(fd);
		return err_set(err, rc, "memfd: %s", strerror(-rc));
	}
	r->size = sizeof(*r);
	r->version = CRASH_VERSION;
	r->magic = CRASH_MAGIC;
	*out = r;
	return fd;
}

int crash_record_map(int fd, struct crash_record **out)
{
	struct crash_record *r;
	struct stat st;

	/* shorter: touching it would be SIGBUS */
	if (fstat(fd, &st) || st.st_size != sizeof(*r))
		return -EPROTO;
	r = map(fd);
	if (!r)
		return -errno;
	if (r->magic != CRASH_MAGIC || r->version != CRASH_VERSION || r->size != sizeof(*r)) {
		crash_record_unmap(r);
		return -EPROTO;
	}
	*out = r;
	return 0;
}

void crash_record_unmap(struct crash_record *r)
{
	if (r)
		munmap(r, sizeof(*r));
}

/* ---- checking copies ---- */

/* Printable, ended, and zeros behind the end. */
static void text_check(char *s, size_t room)
{
	size_t n = strnlen(s, room - 1);

	memset(s + n, 0, room - n);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
			s[i] = '?';
}

static void doing_check(struct crash_doing *d)
{
	if (d->what >= CRASH_WHATS)
		*d = (struct crash_doing){0};
	text_check(d->export_name, sizeof(d->export_name));
	text_check(d->identity, sizeof(d->identity));
}

static void death_check(struct crash_death *d)
{
	if (d->nframes > CRASH_FRAMES)
		d->nframes = 0;
	if (d->cause >= CRASH_CAUSES)
		d->cause = CRASH_SIGNAL;
	if (d->signal < 0 || d->signal > SIGRTMAX)
		d->signal = 0;
	text_check(d->build, sizeof(d->build));
	text_check(d->thread, sizeof(d->thread));
	doing_check(&d->doing);
}

/* Keep the whole lines, oldest first, numbered from 0. */
static void log_copy(const struct crash_log *from, struct crash_log *to)
{
	uint64_t next = atomic_load(&from->next), n = 0;

	memset(to, 0, sizeof(*to));
	for (uint64_t i = next < CRASH_LINES ? 0 : next - CRASH_LINES; i != next; i++) {
		const struct crash_line *l = &from->line[i % CRASH_LINES];
		struct crash_line *copy = &to->line[n];

		if (atomic_load_explicit(&l->seq, memory_order_acquire) != i + 1)
			continue;
		memcpy(copy->text, l->text, sizeof(copy->text));
		copy->len = l->len;
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(&l->seq, memory_order_relaxed) != i + 1 ||
		    copy->len >= sizeof(copy->text)) {
			memset(copy, 0, sizeof(*copy));
			continue;
		}
		copy->text[copy->len] = 0;
		text_check(copy->text, sizeof(copy->text));
		atomic_store(&copy->seq, ++n);
	}
	atomic_store(&to->next, n);
}

unsigned crash_log_lines(const struct crash_log *log)
{
	uint64_t n = atomic_load(&log->next);

	return n < CRASH_LINES ? (unsigned)n : CRASH_LINES;
}

const char *crash_log_line(const struct crash_log *log, unsigned i)
{
	return i < crash_log_lines(log) ? log->line[i].text : NULL;
}

/* ---- a death ---- */

static uint32_t cause_of(int status, bool oom)
{
	if (!WIFSIGNALED(status))
		return CRASH_EXIT;
	switch (WTERMSIG(status)) {
	case SIGSEGV:
		return CRASH_SEGV;
	case SIGBUS:
		return CRASH_BUS;
	case SIGILL:
		return CRASH_ILL;
	case SIGFPE:
		return CRASH_FPE;
	case SIGABRT:
		return CRASH_ABORT;
	case SIGKILL:
		return oom ? CRASH_OOM : CRASH_KILL;
	case SIGTERM:
		return CRASH_TERM;
	}
	return CRASH_SIGNAL;
}

static struct crash_area *area_of(struct crash_record *r, pid_t pid)
{
	for (int i = 0; i < CRASH_AREAS; i++)
		if (atomic_load(&r->area[i].pid) == pid)
			return &r->area[i];
	return NULL;
}

static bool signal_may_be_told(int signo)
{
	return signo == SIGSEGV || signo == SIGBUS || signo == SIGILL || signo == SIGFPE ||
	       signo == SIGABRT;
}

/* What the handler told counts only if the wait status says the same signal. */
static void death_make(const struct crash_area *a, const struct crash_end *e, struct crash_death *d)
{
	bool told = a && atomic_load(&a->state) == CRASH_TOLD;
	int status = e->status, signo;

	if (told && e->status_is_guess && signal_may_be_told(a->death.signal))
		status = a->death.signal;
	signo = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	memset(d, 0, sizeof(*d));
	if (told && a->death.signal == signo)
		*d = a->death;
	else if (a)
		memcpy(d->build, a->death.build, sizeof(d->build));
	d->time_ms = e->time_ms;
	d->ran_ms = e->ran_ms;
	d->pid = e->pid;
	d->signal = signo;
	d->status = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
	d->core = WIFSIGNALED(status) && WCOREDUMP(status);
	d->cause = cause_of(status, e->oom);
	death_check(d);
}

static bool is_blamed_again(const struct crash_record *r, const struct crash_death *d)
{
	uint64_t cleared = atomic_load(&r->cleared);

	if (!crash_is_own_fault(d) || !crash_is_blamable(&d->doing))
		return false;
	for (int i = 0; i < CRASH_DEATHS; i++) {
		struct crash_death old = r->death[i];

		death_check(&old);
		if (old.seq > cleared && crash_is_own_fault(&old) &&
		    crash_is_blamable(&old.doing) && crash_is_same(&old.doing, &d->doing))
			return true;
	}
	return false;
}

static struct crash_poison *poison_of(struct crash_record *r, const struct crash_death *d)
{
	if (!crash_is_own_fault(d) || !crash_is_blamable(&d->doing))
		return NULL;
	for (int i = 0; i < CRASH_POISONS; i++)
		if (atomic_load(&r->poison[i].used) &&
		    crash_is_same(&r->poison[i].doing, &d->doing))
			return &r->poison[i];
	return NULL;
}

static void poison_make(struct crash_record *r, const struct crash_death *d)
{
	struct crash_poison *p = &r->poison[r->next_poison++ % CRASH_POISONS];

	atomic_store(&p->used, 0);
	p->cause = d->cause;
	p->deaths = 2;
	p->time_ms = d->time_ms;
	p->doing = d->doing;
	atomic_store(&p->refused, 0);
	atomic_store(&p->used, 1);
}

static void death_put(struct crash_record *r, const struct crash_area *a,
		      const struct crash_death *d)
{
	uint64_t seq = atomic_load(&r->deaths) + 1;
	struct crash_death *to = &r->death[seq % CRASH_DEATHS];
	struct crash_log *log = &r->log[seq % CRASH_DEATHS];

	atomic_store(&to->seq, 0);
	atomic_thread_fence(memory_order_release);
	*to = *d; /* seq 0, too */
	if (a)
		log_copy(&a->log, log);
	else
		memset(log, 0, sizeof(*log));
	atomic_store_explicit(&to->seq, seq, memory_order_release);
	atomic_store(&r->deaths, seq);
	atomic_fetch_add(&r->by_cause[d->cause], 1);
}

bool crash_record_end(struct crash_record *r, const struct crash_end *e, struct crash_death *out)
{
	struct crash_area *a = area_of(r, e->pid);
	struct crash_poison *p;
	struct crash_death d;
	bool blamed;

	death_make(a, e, &d);
	p = poison_of(r, &d);
	blamed = !p && is_blamed_again(r, &d);
	if (p)
		p->deaths++;
	else if (blamed)
		poison_make(r, &d);
	death_put(r, a, &d);
	if (a)
		atomic_store(&a->pid, 0);
	if (out)
		*out = d;
	return blamed;
}

/* ---- reading ---- */

static bool death_copy(const struct crash_record *r, uint64_t seq, struct crash_death_view *out)
{
	const struct crash_death *d = &r->death[seq % CRASH_DEATHS];

	if (atomic_load_explicit(&d->seq, memory_order_acquire) != seq)
		return false;
	out->death = *d;
	log_copy(&r->log[seq % CRASH_DEATHS], &out->log);
	atomic_thread_fence(memory_order_acquire);
	if (atomic_load_explicit(&d->seq, memory_order_relaxed) != seq)
		return false;
	death_check(&out->death);
	return true;
}

size_t crash_record_deaths(const struct crash_record *r, struct crash_death_view *out)
{
	uint64_t seq = atomic_load(&r->deaths);
	size_t n = 0;

	for (int i = 0; i < CRASH_DEATHS && seq; i++, seq--)
		n += death_copy(r, seq, &out[n]);
	return n;
}

size_t crash_record_poisons(const struct crash_record *r, struct crash_poison out[CRASH_POISONS])
{
	size_t n = 0;

	for (int i = 0; i < CRASH_POISONS; i++) {
		const struct crash_poison *p = &r->poison[i];

		if (!atomic_load(&p->used))
			continue;
		out[n] = *p;
		doing_check(&out[n].doing);
		if (out[n].cause >= CRASH_CAUSES)
			out[n].cause = CRASH_SIGNAL;
		n += crash_is_blamable(&out[n].doing);
	}
	return n;
}

void crash_record_clear(struct crash_record *r)
{
	atomic_store(&r->cleared, atomic_load(&r->deaths));
	for (int i = 0; i < CRASH_POISONS; i++)
		atomic_store(&r->poison[i].used, 0);
}

void crash_doing_text(const struct crash_doing *d, char *buf, size_t len)
{
	switch (d->what) {
	case CRASH_IDLE:
		snprintf(buf, len, "nothing that is noted");
		break;
	case CRASH_HANDSHAKE:
		snprintf(buf, len, "a client's handshake");
		break;
	case CRASH_CONTROL:
		snprintf(buf, len, "%s", d->export_name);
		break;
	default:
		snprintf(buf, len, "%s of %" PRIu32 " bytes at %" PRIu64 " of %s%s%s",
			 crash_what_name(d->what), d->len, d->off, d->export_name,
			 d->export_name[0] ? ", " : "", d->identity);
	}
}
