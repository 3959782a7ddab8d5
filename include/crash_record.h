/* SPDX-License-Identifier: Apache-2.0 */
/* What is kept of workers that died: a memfd that the supervisor makes once and every worker maps.
 *
 *	area	one for each worker alive (two while one takes over from another). Written by
 *		that worker: what each thread is doing, its log, and, by the signal handler of a
 *thread that crashes, the death death	written by the supervisor from an area when its worker has
 *ended poison	the requests that two workers died of; what the next one does not try again
 *
 * Either side may die at any instruction, and a worker that goes wrong may write anything: readers
 * copy first, then check. No lock is here. No secret either: log lines and names are redacted
 * before they come. Both ends are usually of one version; one that finds another does without.
 */
#ifndef CRASH_RECORD_H
#define CRASH_RECORD_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#define CRASH_MAGIC   0x43524e43u /* "CRNC" */
#define CRASH_VERSION 1u

#define CRASH_AREAS    2
#define CRASH_SLOTS    128 /* threads of a worker that are told of */
#define CRASH_LINES    32  /* of the log: 16 KiB */
#define CRASH_LINE_LEN 496 /* a longer line is cut */
#define CRASH_DEATHS   8
#define CRASH_FRAMES   16
#define CRASH_POISONS  16
#define CRASH_HOPELESS 4 /* deaths of one request: its reply is not gone on with, either */

#define CRASH_EXPORT_LEN   256
#define CRASH_IDENTITY_LEN 80
#define CRASH_THREAD_LEN   16
#define CRASH_BUILD_LEN	   32

enum crash_what {
	CRASH_IDLE,
	CRASH_READ,  /* off, len: the request */
	CRASH_CACHE, /* the same */
	CRASH_STATUS,
	CRASH_FILL,    /* off, len: the extent */
	CRASH_RECHECK, /* the same; of a block on disk */
	CRASH_HANDSHAKE,
	CRASH_CONTROL, /* export_name: method and path, without what may be secret */
	CRASH_WHATS
};

enum crash_cause {
	CRASH_SEGV,
	CRASH_BUS,
	CRASH_ILL,
	CRASH_FPE,
	CRASH_ABORT,
	CRASH_OOM,    /* SIGKILL, and the cgroup counts one more process killed for memory */
	CRASH_KILL,   /* SIGKILL: who sent it is not known */
	CRASH_TERM,   /* SIGTERM that the supervisor did not send */
	CRASH_SIGNAL, /* another one */
	CRASH_EXIT,   /* ended by itself */
	CRASH_CAUSES
};

struct crash_doing {
	uint32_t what; /* enum crash_what; written last */
	uint32_t len;
	uint64_t off;
	uint64_t subject; /* whose names stand below; the worker's own number */
	char export_name[CRASH_EXPORT_LEN];
	char identity[CRASH_IDENTITY_LEN]; /* of the object: image-HEX, tree-HEX */
};

struct crash_slot {
	_Atomic uint32_t tid; /* 0: free */
	uint32_t reserved;
	struct crash_doing doing;
};

/* A line is whole when seq is its number + 1. One that a death cut off has 0. */
struct crash_line {
	_Atomic uint64_t seq;
	uint32_t len, reserved;
	char text[CRASH_LINE_LEN];
};

struct crash_log {
	_Atomic uint64_t next; /* number of the line to come */
	struct crash_line line[CRASH_LINES];
};

struct crash_death {
	_Atomic uint64_t seq; /* from 1; 0 while it is being written */
	uint64_t time_ms;     /* since 1970 */
	uint64_t ran_ms;
	uint64_t address; /* of the access that failed */
	uint64_t base;	  /* where the program was loaded; frames less this are its own */
	uint64_t base_end;
	uint64_t frame[CRASH_FRAMES]; /* return addresses, innermost first */
	uint32_t nframes;
	int32_t pid;
	uint32_t cause; /* enum crash_cause */
	int32_t signal; /* 0: none */
	int32_t status; /* of exit */
	uint32_t has_address;
	uint32_t from_outside; /* sent by another process: not the worker's own fault */
	uint32_t core;	       /* dumped */
	char build[CRASH_BUILD_LEN];
	char thread[CRASH_THREAD_LEN];
	struct crash_doing doing; /* of the thread that crashed; else idle */
};

enum crash_state {
	CRASH_ALIVE,
	CRASH_DYING, /* a thread writes the death */
	CRASH_TOLD,  /* signal, address, thread and doing stand */
};

struct crash_area {
	_Atomic int32_t pid; /* of the worker; 0: free */
	_Atomic uint32_t state;
	struct crash_death death; /* as far as the handler knows it */
	struct crash_slot slot[CRASH_SLOTS];
	struct crash_log log;
};

/* A request that killed two workers. Reads are compared by range, fills by extent. */
struct crash_poison {
	_Atomic uint32_t used; /* written last */
	uint32_t cause;	       /* of the second death */
	uint32_t deaths;
	uint32_t reserved;
	_Atomic uint64_t refused;
	uint64_t time_ms;
	struct crash_doing doing;
};

struct crash_record {
	uint32_t magic, version;
	uint64_t size; /* of all this */
	_Atomic uint64_t deaths;
	_Atomic uint64_t cleared;  /* deaths up to this number make no poison */
	_Atomic uint32_t in_a_row; /* deaths without a worker that lived long */
	uint32_t next_poison;
	_Atomic uint64_t by_cause[CRASH_CAUSES];
	_Atomic uint64_t refused;		/* requests, ever */
	struct crash_death death[CRASH_DEATHS]; /* number n at n % CRASH_DEATHS */
	struct crash_log log[CRASH_DEATHS];	/* of the worker that died, at the same place */
	struct crash_poison poison[CRASH_POISONS];
	struct crash_area area[CRASH_AREAS];
};

/* Deaths that a request may be blamed for. */
static inline int crash_is_own_fault(const struct crash_death *d)
{
	return d->cause <= CRASH_ABORT && !d->from_outside;
}

/* Deaths that say nothing of how the next worker will fare. */
static inline int crash_is_from_outside(const struct crash_death *d)
{
	return d->cause == CRASH_KILL || d->from_outside;
}

/* What a poison can be made of. */
static inline int crash_is_blamable(const struct crash_doing *d)
{
	return (d->what == CRASH_READ || d->what == CRASH_FILL || d->what == CRASH_RECHECK) &&
	       d->identity[0];
}

/* The same request? A fill and a recheck of an extent are one: both come again by its flight. */
static inline int crash_is_same(const struct crash_doing *a, const struct crash_doing *b)
{
	return (a->what == CRASH_READ) == (b->what == CRASH_READ) && a->off == b->off &&
	       a->len == b->len && strncmp(a->identity, b->identity, CRASH_IDENTITY_LEN) == 0;
}

#endif
