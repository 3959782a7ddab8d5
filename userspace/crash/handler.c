/* SPDX-License-Identifier: Apache-2.0 */
/* Runs in a process that is broken: no lock, no memory taken, nothing read but what the thread
 * wrote for this. Order matters, since each step may be the one that crashes again: then the
 * signal, which is blocked here, ends the process at once, and what was told before stands.
 *
 * backtrace() is no async-signal-safe function. Since glibc 2.35 it takes no lock once libgcc_s is
 * loaded, which crash_handler_begin() sees to; a damaged stack is the step that may crash again.
 */
#include "crash/handler.h"

#include <execinfo.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "crash/doing.h"

#define STACK_LEN (64U << 10)

static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
#define SIGNALS (sizeof(signals) / sizeof(signals[0]))

extern const char __executable_start[], _end[]; /* the linker's */

static struct crash_area *mine;

static void tell(struct crash_death *d, int signo, const siginfo_t *info)
{
	const struct crash_doing *doing = crash_doing_mine;

	d->signal = signo;
	if (info->si_code > 0) { /* the kernel's: an access failed */
		d->address = (uintptr_t)info->si_addr;
		d->has_address = signo != SIGABRT;
	} else {
		d->from_outside = info->si_pid != getpid();
	}
	prctl(PR_GET_NAME, d->thread);
	if (doing)
		d->doing = *doing;
	atomic_store(&mine->state, CRASH_TOLD);
}

static void tell_frames(struct crash_death *d)
{
	void *frames[CRASH_FRAMES + 2];
	int n = backtrace(frames, CRASH_FRAMES + 2);

	for (int i = 2; i < n; i++) /* neither this nor on_crash() */
		d->frame[i - 2] = (uintptr_t)frames[i];
	d->nframes = n > 2 ? (uint32_t)n - 2 : 0;
}

static void on_crash(int signo, siginfo_t *info, void *context)
{
	static const struct timespec a_second = {.tv_sec = 1};
	struct sigaction plain = {.sa_handler = SIG_DFL};
	uint32_t alive = CRASH_ALIVE;

	(void)context;
	if (atomic_compare_exchange_strong(&mine->state, &alive, CRASH_DYING)) {
		tell(&mine->death, signo, info);
		tell_frames(&mine->death);
	} else { /* another thread came first, and ends all */
		nanosleep(&a_second, NULL);
	}
	/* Blocked until this returns; then it strikes where it struck, so a core shows the place.
	 */
	sigaction(signo, &plain, NULL);
	raise(signo);
}

static void signals_let_through(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < SIGNALS; i++)
		sigaddset(&set, signals[i]);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void crash_handler_begin(struct crash_area *a)
{
	struct sigaction sa = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	void *once[1];

	mine = a;
	a->death.base = (uintptr_t)__executable_start;
	a->death.base_end = (uintptr_t)_end;
	backtrace(once, 1);
	sigfillset(&sa.sa_mask);
	for (size_t i = 0; i < SIGNALS; i++)
		sigaction(signals[i], &sa, NULL);
}

struct handler_stack {
	stack_t before;
	max_align_t memory[STACK_LEN / sizeof(max_align_t)];
};

void *crash_handler_thread_begin(void)
{
	struct handler_stack *s = malloc(sizeof(*s));
	stack_t now;

	signals_let_through();
	if (!s)
		return NULL;
	now = (stack_t){.ss_sp = s->memory, .ss_size = sizeof(s->memory)};
	if (sigaltstack(&now, &s->before)) {
		free(s);
		return NULL;
	}
	return s;
}

void crash_handler_thread_end(void *stack)
{
	struct handler_stack *s = stack;

	if (!s)
		return;
	sigaltstack(&s->before, NULL);
	free(s);
}
