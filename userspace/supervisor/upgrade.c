/* SPDX-License-Identifier: Apache-2.0 */
/* Another worker in place of the one that serves, as planned: supervisor/replacement.h is the
 * machine, this is what it means for the supervisor. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "supervisor/answer.h"
#include "supervisor/supervisor_impl.h"

void upgrade_init(struct supervisor *s, const char *file)
{
	ssize_t n = readlink("/proc/self/exe", s->own_program, sizeof(s->own_program) - 1);

	s->own_program[n > 0 ? n : 0] = 0;
	s->settings_file = file;
	s->replacement.next.channel = -1;
}

void upgrade_tell(const struct supervisor *s, struct supervisor_reply *r)
{
	r->value[0] = s->left_ns;
	r->value[1] = (uint64_t)s->left_pid;
	r->value[2] = s->left_planned;
}

static void begin_answer(struct supervisor *s, uint32_t id)
{
	struct supervisor_reply r = {
		.magic = SUPERVISOR_MAGIC, .version = SUPERVISOR_VERSION, .id = id};

	upgrade_tell(s, &r);
	if (answer_send(s->worker.channel, &r, NULL))
		log_warn("supervisor", "the worker takes no reply", "pid=%d", s->worker.pid);
}

/* The next one is the worker from now on. */
static void worker_take(struct supervisor *s)
{
	uint32_t id = s->replacement.begin;

	replacement_follow(&s->replacement, &s->worker);
	s->worker_is_stranger = false;
	s->started_ns = clock_now_ns();
	deaths_worker_starts(&s->deaths);
	if (id)
		begin_answer(s, id);
}

bool upgrade_follows(struct supervisor *s, int status)
{
	s->left_planned = s->replacement.state == REPLACEMENT_RELEASING;
	if (!s->left_planned)
		return false;
	/* of a stranger the status is not told */
	if (!s->worker_is_stranger && (!WIFEXITED(status) || WEXITSTATUS(status)))
		log_warn("supervisor", "the old worker did not end in order", "pid=%d status=%#x",
			 s->left_pid, status);
	s->left_ns = s->replacement.released_ns;
	worker_take(s);
	return true;
}

bool upgrade_steps_in(struct supervisor *s)
{
	if (s->replacement.state == REPLACEMENT_STARTING) {
		worker_take(s);
		s->in.restarts++;
		return true;
	}
	s->replacement.state = REPLACEMENT_NONE; /* settling: program and settings as before */
	return false;
}

static void upgrade_answer(struct supervisor *s, const struct err *err)
{
	struct supervisor_reply r = {.magic = SUPERVISOR_MAGIC,
				     .version = SUPERVISOR_VERSION,
				     .id = s->replacement.asked,
				     .value = {(uint64_t)s->replacement.next.pid}};

	if (!r.id || !s->worker.pid)
		return;
	if (err)
		answer_error(&r, err);
	answer_send(s->worker.channel, &r, NULL);
	s->replacement.asked = 0;
}

int worker_replace(struct supervisor *s, const struct config *cfg, const char *program,
		   uint32_t asked, struct err *err)
{
	int rc;

	if (!s->worker.pid || !s->ready)
		return err_set(err, -EAGAIN, "the worker is being started: ask again");
	rc = replacement_start(&s->replacement, cfg, program, &s->in, err);
	if (!rc)
		s->replacement.asked = asked;
	return rc;
}

void upgrade_next_died(struct supervisor *s, int status)
{
	struct err err;

	err_set(&err, -EIO,
		"the new worker (pid %d) ended with %s %d before it served, and the old one serves "
		"on; its own words are in cairnd's log",
		s->replacement.next.pid, WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	log_error("supervisor", "the worker was not replaced", "why=\"%s\"", err.text);
	close(s->replacement.next.channel);
	s->replacement.next = (struct worker_process){.channel = -1};
	upgrade_answer(s, &err);
	/* releasing: the old one is on its way out, and is followed as if it had died */
	s->replacement.state = REPLACEMENT_NONE;
}

void upgrade_settled(struct supervisor *s)
{
	enum log_level level;

	if (s->replacement.state != REPLACEMENT_SETTLING)
		return;
	s->replacement.state = REPLACEMENT_NONE;
	s->cfg = s->replacement.cfg;
	strcpy(s->program, s->replacement.program);
	s->in.program = s->program;
	devices_settings(&s->devices, &s->cfg);
	if (!log_level_parse(s->cfg.log_level, &level))
		log_set_level(level);
	log_info("supervisor", "the worker was replaced", "from=%d to=%d gap_ms=%llu", s->left_pid,
		 s->worker.pid,
		 (unsigned long long)((clock_now_ns() - s->left_ns) / NSEC_PER_MSEC));
}

/* The program on disk goes on in our place, and then has another worker in place of ours. */
static int become(struct supervisor *s, const char *program, uint32_t id, struct err *err)
{
	if (!s->worker.pid || !s->ready)
		return err_set(err, -EAGAIN, "the worker is being started: ask again");
	if (s->replacement.state != REPLACEMENT_NONE)
		return err_set(err, -EBUSY, "the worker is being replaced already");
	log_info("supervisor", "becoming the program on disk", "program=%s", program);
	return supervisor_execve(s, program, id, err);
}

void upgrade_after(struct supervisor *s, uint32_t asked)
{
	struct config *cfg = malloc(sizeof(*cfg));
	struct err err = {0};
	int rc = cfg ? 0 : err_set(&err, -ENOMEM, "out of memory");

	if (!rc) {
		*cfg = *s->settings;
		strcpy(cfg->runtime_dir, s->cfg.runtime_dir); /* its real path */
		rc = worker_replace(s, cfg, NULL, asked, &err);
	}
	free(cfg);
	if (!rc)
		return;
	log_error("supervisor", "the worker of the supervisor before is not replaced", "why=\"%s\"",
		  err.text);
	s->replacement.asked = asked;
	upgrade_answer(s, &err);
}

bool upgrade_ask(struct supervisor *s, uint32_t id, struct supervisor_reply *r)
{
	struct config *cfg = malloc(sizeof(*cfg));
	struct err err = {0};
	int rc = cfg ? replacement_check(&s->cfg, s->own_program, s->settings_file, cfg, &err)
		     : err_set(&err, -ENOMEM, "out of memory");

	if (!rc)
		rc = become(s, s->own_program, id, &err);
	free(cfg);
	if (rc)
		answer_error(r, &err);
	return !rc;
}

bool upgrade_begin(struct supervisor *s, const struct supervisor_request *q)
{
	if (s->replacement.state != REPLACEMENT_STARTING || q->op != SUPERVISOR_BEGIN)
		return false;
	upgrade_answer(s, NULL);
	replacement_release(&s->replacement, s->worker.pid, q->id);
	return true;
}
