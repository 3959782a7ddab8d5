/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/death.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "base/log.h"
#include "crash/oom.h"

void deaths_worker_starts(struct deaths *d)
{
	d->oom_kills = crash_oom_kills();
}

static void log_death(const struct crash_death *d, const char *doing)
{
	if (!d->signal)
		log_error("supervisor", "the worker ended by itself", "status=%d", d->status);
	else
		log_error("supervisor", "the worker was killed",
			  "signal=%d name=\"%s\" cause=%s thread=%s doing=\"%s\"%s", d->signal,
			  strsignal(d->signal), crash_cause_name(d->cause),
			  d->thread[0] ? d->thread : "?", doing, d->core ? " core=dumped" : "");
}

unsigned deaths_note(struct deaths *d, struct crash_end *e)
{
	struct crash_death death;
	struct timespec now;
	char doing[512];
	bool poison;
	unsigned ms;

	clock_gettime(CLOCK_REALTIME, &now);
	e->time_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	e->oom = crash_oom_kills() > d->oom_kills;
	poison = crash_record_end(d->record, e, &death);
	crash_doing_text(&death.doing, doing, sizeof(doing));
	log_death(&death, doing);
	if (poison)
		log_error("supervisor", "this request killed two workers; the next refuses it",
			  "request=\"%s\"", doing);
	ms = crash_backoff_ms(&d->in_a_row, e->ran_ms);
	/* Someone killed it: nothing says that the next one would fare worse, and readers wait. */
	if (crash_is_from_outside(&death))
		ms = d->in_a_row = 0;
	atomic_store(&d->record->in_a_row, d->in_a_row);
	return ms;
}

void deaths_tell(const struct deaths *d, unsigned restarts, unsigned wait_ms)
{
	bool loop = crash_is_loop(d->in_a_row);

	sd_notifyf(0, "STATUS=%sworker died %u times, %u in a row; next start in %u ms",
		   loop ? "crash loop: " : "", restarts, d->in_a_row, wait_ms);
	if (loop)
		log_error("supervisor", "the worker dies again and again",
			  "in_a_row=%u next_start_ms=%u see=\"cairn status --crashes\"",
			  d->in_a_row, wait_ms);
}
