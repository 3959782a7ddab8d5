/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/continuity.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "nbd/attach/kernel_impl.h"
#include "nbd/attach/tcp_pair.h"
#include "supervisor/continuity_impl.h"
#include "supervisor/hello.h"

#define HELLO_WAIT_MS 5000
#define KILL_WAIT_MS  5000
#define EXECVE_ENV    "CAIRN_EXECVE"
#define RECORD	      "supervisor.state"
#define FDS_FIXED     4 /* beside links and ledgers */

const char *continuity_way_name(enum continuity_way way)
{
	static const char *const names[] = {"new", "execve", "stored", "hello", "nothing"};

	return names[way];
}

static int file_open(const struct config *cfg, const char *name, struct err *err)
{
	char path[CONFIG_PATH_MAX + 32];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", cfg->runtime_dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : fd;
}

static void file_remove(const struct config *cfg, const char *name)
{
	char path[CONFIG_PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/%s", cfg->runtime_dir, name);
	unlink(path);
}

/* ---- who was before us ---- */

/* The record, if it is one of this boot. */
static bool record_find(struct continuity *c)
{
	char boot[BOOT_ID_LEN];
	struct err err;
	int rc = state_load(c->fd, &c->before, &err);

	if (rc && rc != -ENOENT)
		log_error("supervisor", "what the supervisor before wrote is of no use",
			  "why=\"%s\" effect=\"its devices are taken away\"", err.text);
	if (rc)
		return false;
	if (!boot_id(boot) && strcmp(boot, c->before.boot) == 0)
		return true;
	state_clear(&c->before);
	return false;
}

static void worker_kill(const struct process *w)
{
	log_warn("supervisor", "killing the worker of the supervisor before", "pid=%d", w->pid);
	if (process_is(w))
		kill(w->pid, SIGKILL);
	if (!process_ends(w, KILL_WAIT_MS))
		log_error("supervisor", "it does not end", "pid=%d", w->pid);
}

/* The worker of the one before lives, and we have no channel to it. */
static void worker_hear(struct continuity *c, const struct config *cfg)
{
	struct err err;

	c->way = CONTINUITY_NOTHING;
	if (c->before.ready) {
		if (!hello_wait(cfg->runtime_dir, &c->before, HELLO_WAIT_MS, &c->pool, &c->channel,
				&err)) {
			c->way = CONTINUITY_HELLO;
			return;
		}
		log_warn("supervisor", "no hello", "why=\"%s\"", err.text);
	}
	worker_kill(&c->before.worker);
}

int continuity_open(struct continuity *c, const struct config *cfg, struct err *err)
{
	bool execve, lives;

	*c = (struct continuity){.channel = -1};
	execve = continuity_after_execve(&c->pool);
	fdstore_open(&c->store, &c->pool);
	c->fd = file_open(cfg, RECORD, err);
	if (c->fd < 0)
		return c->fd;
	if (!record_find(c))
		return 0;
	c->takeovers = c->before.takeovers + 1;
	lives = process_is(&c->before.worker);
	if (!lives) /* threads of it may be on their way out, and hold the store */
		process_ends(&c->before.worker, KILL_WAIT_MS);
	c->channel = inherited_take(&c->pool, c->before.channel);
	if (c->channel >= 0 && (!lives || !c->before.ready)) {
		close(c->channel);
		c->channel = -1;
	}
	c->way = execve ? CONTINUITY_EXECVE : c->pool.n ? CONTINUITY_STORED : CONTINUITY_NOTHING;
	if (lives && !c->before.ready)
		worker_kill(&c->before.worker);
	else if (lives && c->channel < 0)
		worker_hear(c, cfg);
	return 0;
}

int continuity_check(const struct config *cfg, struct err *err)
{
	char path[CONFIG_PATH_MAX + 32];
	struct state s;
	int fd, rc;

	snprintf(path, sizeof(path), "%s/" RECORD, cfg->runtime_dir);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	rc = state_load(fd, &s, err);
	close(fd);
	if (!rc)
		state_clear(&s);
	return rc;
}

/* ---- what it held ---- */

static int listener_take(struct continuity *c, struct file_id id, const char *path,
			 const char *path_before)
{
	int fd = inherited_take(&c->pool, id);

	if (fd < 0 || strcmp(path, path_before) == 0)
		return fd;
	close(fd);
	return -1;
}

int continuity_control_listen(struct continuity *c, const struct config *cfg)
{
	return listener_take(c, c->before.control, cfg->control_socket, c->before.control_socket);
}

int continuity_nbd_listen(struct continuity *c, const struct config *cfg)
{
	return listener_take(c, c->before.nbd, cfg->nbd_socket, c->before.nbd_socket);
}

int continuity_crash(struct continuity *c)
{
	return inherited_take(&c->pool, c->before.crash);
}

int continuity_roster(struct continuity *c, const struct config *cfg, struct err *err)
{
	int fd = file_open(cfg, "exports", err);

	if (fd < 0 || (c->way != CONTINUITY_NEW && file_id_equal(file_id_of(fd), c->before.roster)))
		return fd;
	if (ftruncate(fd, 0)) {
		err_set(err, -errno, "the roster of exports: %s", strerror(errno));
		close(fd);
		return err->code;
	}
	return fd;
}

static void links_take(struct continuity *c, struct devices *d, struct attachment *a,
		       const struct state_device *s)
{
	for (uint32_t i = 0; i < s->nlinks; i++) {
		int fd = inherited_take(&c->pool, s->links[i]);
		int ledger = inherited_take(&c->pool, s->ledgers[i]);

		if (fd >= 0 && ledger >= 0 && !tcp_peer_is_gone(fd)) {
			links_restore(d->env.kernel, a, fd, ledger);
			continue;
		}
		if (fd >= 0) {
			shutdown(fd, SHUT_RDWR);
			close(fd);
		}
		if (ledger >= 0)
			close(ledger);
	}
	if (a->nlinks < a->queues && !a->promoted.ino)
		a->dead = true;
	if (c->channel >= 0) /* the worker has them */
		a->fresh = 0;
}

static int device_restore(struct continuity *c, struct devices *d, const struct state_device *s,
			  struct err *err)
{
	const struct attach_way *way = attach_find(s->way);
	struct attachment a = {.way = way,
			       .size = s->size,
			       .wished = s->wished,
			       .queues = s->queues,
			       .index = s->index,
			       .pid = s->helper.pid,
			       .pid_started = s->helper.started,
			       .generation = s->generation,
			       .dead = s->dead,
			       .promoted = {s->promoted.dev, s->promoted.ino},
			       .owner = s->owner};
	int rc;

	if (!way)
		return err_set(err, -EINVAL, "no attach way is called %s", s->way);
	strcpy(a.name, s->name);
	strcpy(a.identity, s->identity);
	strcpy(a.device, s->device);
	rc = way->restore(&d->env, &a, err);
	if (rc)
		return rc;
	links_take(c, d, &a, s);
	return devices_add(d, &a, err);
}

void continuity_devices(struct continuity *c, struct devices *d)
{
	for (size_t i = 0; i < c->before.ndevices; i++) {
		const struct state_device *s = &c->before.devices[i];
		struct err err = {0};

		if (device_restore(c, d, s, &err))
			log_error("attach", "a device was not taken over",
				  "device=%s export=%s why=\"%s\"", s->device, s->name, err.text);
	}
}

bool continuity_worker(struct continuity *c, struct worker_process *out)
{
	if (c->channel < 0)
		return false;
	*out = (struct worker_process){.pid = c->before.worker.pid, .channel = c->channel};
	c->channel = -1;
	return true;
}

void continuity_begun(struct continuity *c)
{
	if (c->way != CONTINUITY_NEW)
		log_info("supervisor", "follows another supervisor",
			 "way=%s pid_before=%d worker=%d devices=%zu takeovers=%u",
			 continuity_way_name(c->way), c->before.supervisor.pid,
			 c->before.worker.pid, c->before.ndevices, c->takeovers);
	inherited_close(&c->pool);
	state_clear(&c->before);
}

/* ---- what we hold ---- */

static void device_describe(const struct attachment *a, struct state_device *s)
{
	strcpy(s->name, a->name);
	snprintf(s->way, sizeof(s->way), "%s", a->way->name);
	strcpy(s->identity, a->identity);
	strcpy(s->device, a->device);
	s->size = a->size;
	s->wished = a->wished;
	s->index = a->index;
	s->queues = a->queues;
	s->generation = a->generation;
	s->dead = a->dead;
	s->promoted = (struct file_id){a->promoted.dev, a->promoted.ino};
	s->owner = a->owner;
	s->helper = a->pid ? (struct process){a->pid, a->pid_started} : (struct process){0};
	s->nlinks = a->nlinks;
	for (uint32_t i = 0; i < a->nlinks; i++) {
		s->links[i] = file_id_of(a->links[i]);
		s->ledgers[i] = file_id_of(a->ledgers[i]);
	}
}

static int describe(const struct continuity *c, const struct continuity_now *now, struct state *s)
{
	const struct devices *d = now->devices;
	int rc;

	*s = (struct state){.supervisor = process_of(getpid()),
			    .worker = process_of(now->worker->pid),
			    .ready = now->ready,
			    .restarts = now->in->restarts,
			    .takeovers = c->takeovers,
			    .pending = now->pending,
			    .control = file_id_of(now->in->control_listen),
			    .nbd = file_id_of(now->in->nbd_listen),
			    .roster = file_id_of(now->in->exports_memfd),
			    .crash = file_id_of(now->in->crash_memfd),
			    .channel = file_id_of(now->worker->channel)};
	rc = boot_id(s->boot);
	strcpy(s->control_socket, now->cfg->control_socket);
	strcpy(s->nbd_socket, now->cfg->nbd_socket);
	s->devices = d->n ? calloc(d->n, sizeof(*s->devices)) : NULL;
	if (rc || (d->n && !s->devices))
		return rc ? rc : -ENOMEM;
	s->ndevices = d->n;
	for (size_t i = 0; i < d->n; i++)
		device_describe(&d->list[i], &s->devices[i]);
	return 0;
}

/* FNV-1a over all that is written down. */
static uint64_t signature(const struct state *s)
{
	const unsigned char *parts[] = {(const unsigned char *)s,
					(const unsigned char *)s->devices};
	size_t lens[] = {sizeof(*s), s->ndevices * sizeof(*s->devices)};
	uint64_t h = 0xcbf29ce484222325ULL;
	struct state plain = *s;

	plain.devices = NULL; /* an address */
	parts[0] = (const unsigned char *)&plain;
	for (size_t p = 0; p < 2; p++)
		for (size_t i = 0; i < lens[p]; i++)
			h = (h ^ parts[p][i]) * 0x100000001b3ULL;
	return h;
}

int *continuity_fds(const struct continuity_now *now, size_t *count)
{
	const struct devices *d = now->devices;
	size_t n = 0;
	int *fds = calloc(d->n * 2 * ATTACH_LINKS_MAX + FDS_FIXED, sizeof(int));

	if (!fds)
		return NULL;
	fds[n++] = now->in->control_listen;
	fds[n++] = now->in->nbd_listen;
	fds[n++] = now->worker->channel;
	fds[n++] = now->in->crash_memfd;
	for (size_t i = 0; i < d->n; i++) {
		const struct attachment *a = &d->list[i];

		memcpy(fds + n, a->links, a->nlinks * sizeof(int));
		n += a->nlinks;
		memcpy(fds + n, a->ledgers, a->nlinks * sizeof(int));
		n += a->nlinks;
	}
	*count = n;
	return fds;
}

static void store(struct continuity *c, const struct continuity_now *now)
{
	size_t n;
	int *fds = c->store.on ? continuity_fds(now, &n) : NULL;

	if (fds)
		fdstore_sync(&c->store, fds, n);
	free(fds);
}

/* Stored before written down: what the record names and nobody has is a dead link, the other way
 * round it is one that nothing serves. */
void continuity_save(struct continuity *c, const struct continuity_now *now)
{
	struct state s = {0};
	uint64_t sign;
	int rc = describe(c, now, &s);

	sign = signature(&s);
	if (!rc && sign != c->saved) {
		store(c, now);
		rc = state_save(c->fd, &s);
		c->saved = rc ? 0 : sign;
	}
	if (rc)
		log_error("supervisor", "can't write down what a successor needs", "why=\"%s\"",
			  strerror(-rc));
	state_clear(&s);
}

void continuity_close(struct continuity *c, const struct config *cfg, bool clean)
{
	if (clean) {
		fdstore_empty(&c->store);
		file_remove(cfg, RECORD);
		file_remove(cfg, "exports");
	}
	if (c->channel >= 0)
		close(c->channel);
	inherited_close(&c->pool);
	state_clear(&c->before);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}
