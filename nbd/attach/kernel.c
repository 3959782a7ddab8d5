/* SPDX-License-Identifier: Apache-2.0 */
/* Attach by the kernel's own NBD client.
 *
 * The supervisor makes a pair of loopback TCP sockets for each queue; the kernel takes one end of
 * each, the worker the other, and the supervisor keeps hold of the worker's ends and their ledgers.
 * A worker that dies leaves them open, and its successor goes on where it was.
 *
 * A connection that the kernel does not read (kernel_reader.h) would lose what is sent on it, so a
 * device with such a one is made anew before anybody uses it.
 *
 * Connections that died all the same (the kernel gave one up, a ledger was refused) are made anew.
 * Until then a request that was sent on a dead one waits for TIMEOUT and is sent anew on a live
 * one; a request that finds none alive waits for DEAD_CONN_TIMEOUT. Both are a little more than the
 * worker takes at most to answer a read, so neither gives up on what is still being fetched.
 *
 * In runtime_dir/attach/NAME/: nbd.json, device_note.h.
 */
#include "nbd/attach/kernel.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "nbd/attach/kernel_impl.h"
#include "nbd/attach/device_note.h"
#include "nbd/attach/in_use.h"
#include "nbd/attach/kernel_device.h"
#include "nbd/attach/kernel_reader.h"
#include "nbd/attach/module.h"
#include "nbd/protocol.h"
#include "nbd/attach/tcp_pair.h"

#define BLOCK_SIZE                                                                                 \
	512 /* the least any file system wants: xfs and partition tables read single ones */
#define DEADLINE_MARGIN_S 10
/* A read that waits may pass TIMEOUT: the kernel then drops its connection and sends it anew on
 * another, which is no error but delays what else that connection carried. 0 would be no better:
 * with two connections or more the kernel does the same every 30 s. */
#define WAIT_TIMEOUT_S	  600
#define WAIT_DEAD_S	  86400
#define RECONNECT_WAIT_MS 2000
/* Until each connection is read: it takes less than a millisecond, or for ever, or a loaded node is
 * slow to make a thread. A device that is made anew finds the threads that came too late. */
#define READ_WAIT_MS 200 /* doubled each time */
#define READ_TRIES   6
#define FREE_WAIT_MS 2000

/* ---- what is held open ---- */

int attach_kernel_new(struct attach_kernel **out, struct err *err)
{
	struct attach_kernel *k = calloc(1, sizeof(*k));

	if (!k)
		return err_set(err, -ENOMEM, "out of memory");
	k->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (k->epoll < 0) {
		free(k);
		return err_set(err, -errno, "epoll: %s", strerror(errno));
	}
	*out = k;
	return 0;
}

void attach_kernel_free(struct attach_kernel *k)
{
	if (!k)
		return;
	nbd_netlink_close(k->netlink);
	close(k->epoll);
	free(k);
}

int attach_kernel_events_fd(const struct attach_kernel *k)
{
	return k->epoll;
}

int attach_kernel_ready(struct attach_kernel *k, struct err *err)
{
	struct epoll_event e = {.events = EPOLLIN};
	int rc;

	if (k->netlink)
		return 0;
	rc = nbd_module_load(err);
	if (!rc)
		rc = nbd_netlink_open(&k->netlink, err);
	if (rc)
		return rc;
	e.data.fd = nbd_netlink_events_fd(k->netlink);
	if (epoll_ctl(k->epoll, EPOLL_CTL_ADD, e.data.fd, &e)) {
		rc = err_set(err, -errno, "epoll: %s", strerror(errno));
		nbd_netlink_close(k->netlink);
		k->netlink = NULL;
	}
	return rc;
}

static int kernel_available(const struct attach_env *env, struct err *err)
{
	return attach_kernel_ready(env->kernel, err);
}

/* ---- the note ---- */

static int note_path(const struct attach_env *env, const struct attachment *a, bool make,
		     char out[PATH_MAX], struct err *err)
{
	char dir[PATH_MAX - 16];
	int rc = attach_dir(env, a->name, make, dir, sizeof(dir), err);

	if (!rc)
		snprintf(out, PATH_MAX, "%s/" KERNEL_NOTE, dir);
	return rc;
}

static int note_write(const struct attach_env *env, const struct attachment *a, struct err *err)
{
	struct device_note note = {.index = a->index};
	char path[PATH_MAX];
	int rc = note_path(env, a, true, path, err);

	if (rc)
		return rc;
	rc = device_note_sign(&note);
	if (a->owner) /* another pid namespace than the first shows another */
		note.pid = a->owner;
	snprintf(note.identity, sizeof(note.identity), "%s", a->identity);
	for (uint32_t i = 0; i < a->nlinks; i++)
		note.ports[note.nports++] = tcp_peer_port(a->links[i]);
	if (!rc)
		rc = device_note_save(path, &note);
	return rc ? err_set(err, rc, "%s: %s", path, strerror(-rc)) : 0;
}

static void note_remove(const struct attach_env *env, const struct attachment *a)
{
	char path[PATH_MAX];

	if (note_path(env, a, false, path, NULL))
		return;
	unlink(path);
	*strrchr(path, '/') = 0;
	rmdir(path);
}

/* ---- connecting ---- */

unsigned kernel_timeout_s(unsigned deadline_s, bool wait)
{
	unsigned s = deadline_s + DEADLINE_MARGIN_S;

	return wait && s < WAIT_TIMEOUT_S ? WAIT_TIMEOUT_S : s;
}

unsigned kernel_dead_timeout_s(unsigned deadline_s, bool wait)
{
	return wait ? WAIT_DEAD_S : deadline_s + DEADLINE_MARGIN_S;
}

static struct nbd_netlink_device description(const struct attach_env *env,
					     const struct attachment *a, const int *sockets,
					     uint32_t n)
{
	return (struct nbd_netlink_device){
		.index = a->index,
		.sockets = sockets,
		.nsockets = n,
		.timeout_s = kernel_timeout_s(env->deadline_s, a->wait),
		.dead_conn_timeout_s = kernel_dead_timeout_s(env->deadline_s, a->wait),
		.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_CAN_MULTI_CONN,
		.identity = a->identity,
	};
}

static int busy(const struct attachment *a, struct err *err)
{
	char who[256];

	kernel_device_describe(a->wished, who, sizeof(who));
	return err_set(err, -EBUSY, "%s; choose another, or leave --device away", who);
}

/* @why: what netlink said. */
static int refusal(const struct err *why, const struct attachment *a, struct err *err)
{
	if (why->code == -EBUSY && a->wished >= 0)
		return busy(a, err);
	if (why->code == -EPERM)
		return err_set(err, why->code, "%s", why->text);
	if (a->wished >= 0)
		return err_set(err, why->code,
			       "%.500s; choose a lower number, or leave --device away", why->text);
	return err_set(err, why->code,
		       "%.500s; if all NBD devices are in use, detach one, or load nbd with a "
		       "larger nbds_max=",
		       why->text);
}

static int connect_device(const struct attach_env *env, struct attachment *a, const int *kernel,
			  struct err *err)
{
	struct nbd_netlink_device d;
	char identity[KERNEL_IDENTITY_MAX];
	struct err why = {0};
	pid_t pid;

	a->index = a->wished;
	if (a->wished >= 0 && kernel_device_owner(a->wished, &pid, identity))
		return busy(a, err);
	d = description(env, a, kernel, a->queues);
	d.size = a->size;
	d.block_size = BLOCK_SIZE;
	if (nbd_netlink_connect(env->kernel->netlink, &d, &why))
		return refusal(&why, a, err);
	a->index = d.index;
	snprintf(a->device, sizeof(a->device), "/dev/nbd%d", a->index);
	if (!kernel_device_owner(a->index, &pid, identity))
		return err_set(err, -EIO,
			       "another program took %s away as soon as it stood; attach again",
			       a->device);
	a->owner = pid;
	return 0;
}

/* The worker's ends, from @worker on, become links. Those that fail are closed. */
static int links_add_all(struct attach_kernel *k, struct attachment *a, const int *worker,
			 uint32_t n)
{
	int rc = 0;

	for (uint32_t i = 0; i < n; i++)
		if (links_add(k, a, worker[i]))
			rc = -ENOMEM;
	return rc;
}

static int connect_and_give(const struct attach_env *env, struct attachment *a, const int *kernel,
			    uint32_t ms, struct err *err)
{
	int unread;
	int rc = connect_device(env, a, kernel, err);

	if (rc)
		return rc;
	rc = note_write(env, a, err);
	unread = rc ? 0 : kernel_readers_wait(kernel, a->links, a->ledgers, a->queues, ms);
	if (unread > 0)
		rc = err_set(err, -EAGAIN,
			     "the kernel does not read %d of the %u connections of %s: attach with "
			     "one queue, or when the node has less to do",
			     unread, a->queues, a->device);
	else if (unread < 0)
		rc = err_set(err, unread, "the connections of %s: %s", a->device,
			     strerror(-unread));
	if (!rc) /* whoever looks at a new device reads it: that must not hold up what follows */
		rc = attach_give(env, a, err);
	if (rc) {
		nbd_netlink_disconnect(env->kernel->netlink, a->index, NULL);
		kernel_device_wait_free(a->index, FREE_WAIT_MS);
	}
	return rc;
}

static int attach_with(const struct attach_env *env, struct attachment *a, const int *kernel,
		       uint32_t ms, struct err *err)
{
	int rc;

	a->index = -1; /* not known yet, should we be killed in between */
	rc = note_write(env, a, err);
	return rc ? rc : connect_and_give(env, a, kernel, ms, err);
}

static int attach_once(const struct attach_env *env, struct attachment *a, uint32_t ms,
		       struct err *err)
{
	int kernel[ATTACH_LINKS_MAX], worker[ATTACH_LINKS_MAX], rc;

	a->nlinks = a->fresh = 0;
	a->owner = 0;
	rc = tcp_pairs_open(kernel, worker, a->queues, err);
	if (rc)
		return rc;
	rc = links_add_all(env->kernel, a, worker, a->queues);
	if (!rc)
		rc = attach_with(env, a, kernel, ms, err);
	else
		err_set(err, rc, "out of memory");
	fds_close(kernel, a->queues);
	if (rc) {
		links_cut(env->kernel, a);
		note_remove(env, a);
	}
	return rc;
}

static int kernel_attach(const struct attach_env *env, struct attachment *a, struct err *err)
{
	int rc = -EAGAIN;

	if (!a->queues)
		a->queues = env->queues;
	if (!a->size || a->queues > ATTACH_LINKS_MAX)
		return err_set(err, -EINVAL, "a device of %llu bytes with %u queues can't be made",
			       (unsigned long long)a->size, a->queues);
	for (uint32_t i = 0; rc == -EAGAIN && i < READ_TRIES; i++) {
		struct err why = {0};

		rc = attach_once(env, a, READ_WAIT_MS << i, &why);
		if (rc == -EAGAIN)
			log_warn("attach", "connections that the kernel does not read; made anew",
				 "device=%s export=%s", a->device, a->name);
		if (rc)
			err_set(err, rc, "%s", why.text);
	}
	if (rc)
		return rc;
	kernel_device_tune(a->index);
	a->dead = false;
	return 0;
}

/* ---- after another supervisor ---- */

/* Still the device that was set up, and not someone else's by now? */
static bool is_ours(const struct attachment *a)
{
	char identity[KERNEL_IDENTITY_MAX];
	pid_t pid;

	return kernel_device_owner(a->index, &pid, identity) && pid == a->owner &&
	       (!identity[0] || strncmp(identity, a->identity, sizeof(identity) - 1) == 0);
}

static int kernel_restore(const struct attach_env *env, struct attachment *a, struct err *err)
{
	int rc = attach_kernel_ready(env->kernel, err);

	if (!rc && !is_ours(a))
		rc = err_set(err, -ENODEV, "%s is not set up as it was", a->device);
	return rc;
}

/* ---- detach ---- */

static int kernel_detach(const struct attach_env *env, struct attachment *a, bool force,
			 struct err *err)
{
	int rc = 0;

	if (is_ours(a)) {
		rc = force ? 0 : device_in_use(a->device + 5, err);
		if (rc)
			return rc;
		if (force) /* a request that is stuck in a full socket must not hold it up */
			links_cut(env->kernel, a);
		rc = nbd_netlink_disconnect(env->kernel->netlink, a->index, err);
		if (rc)
			return rc;
		if (!kernel_device_wait_free(a->index, force ? 0 : FREE_WAIT_MS))
			log_warn("attach",
				 "a device goes when its last user lets go; its reads fail",
				 "device=%s export=%s", a->device, a->name);
	}
	links_cut(env->kernel, a);
	note_remove(env, a);
	return 0;
}

/* ---- after a connection died ---- */

/* A pair of sockets for the kernel to put in the place of a dead one; the worker's end is a link
 * when the kernel took the other. *unread: it did, and does not read it yet. */
static int reconnect_with(const struct attach_env *env, struct attachment *a, int kernel,
			  int worker, bool *unread, struct err *err)
{
	struct nbd_netlink_device d = description(env, a, &kernel, 1);
	int rc = nbd_netlink_reconfigure(env->kernel->netlink, &d, err);

	if (rc || !kernel_reader_has(kernel)) {
		close(worker);
		return rc;
	}
	if (links_add(env->kernel, a, worker))
		return err_set(err, -ENOMEM, "out of memory");
	*unread = kernel_readers_wait(&kernel, &a->links[a->nlinks - 1], &a->ledgers[a->nlinks - 1],
				      1, RECONNECT_WAIT_MS) > 0;
	return 0;
}

static int reconnect(const struct attach_env *env, struct attachment *a, bool *unread,
		     struct err *err)
{
	int kernel, worker, rc = tcp_pairs_open(&kernel, &worker, 1, err);

	if (rc)
		return rc;
	rc = reconnect_with(env, a, kernel, worker, unread, err);
	close(kernel);
	links_drop_dead(env->kernel, a);
	return rc ? rc : note_write(env, a, err);
}

static int kernel_revive(const struct attach_env *env, struct attachment *a, struct err *err)
{
	uint64_t end = clock_now_ns() + RECONNECT_WAIT_MS * NSEC_PER_MSEC;
	bool unread = false;
	int rc = 0;

	if (!is_ours(a))
		return err_set(err, -ENODEV, "someone disconnected %s: detach it and attach again",
			       a->device);
	links_drop_dead(env->kernel, a);
	/* the kernel sees the end of the old ones a moment after we shut them */
	while (!rc && !unread && a->nlinks < a->queues && clock_now_ns() < end) {
		uint32_t had = a->nlinks;

		rc = reconnect(env, a, &unread, err);
		if (!rc && a->nlinks == had)
			nanosleep(&(struct timespec){.tv_nsec = 5 * NSEC_PER_MSEC}, NULL);
	}
	if (rc)
		return rc;
	if (unread) /* alone it is read some day; another one behind it might not be */
		log_warn("attach", "the kernel does not read a new connection yet",
			 "device=%s export=%s", a->device, a->name);
	if (!a->nlinks)
		return err_set(
			err, -ETIMEDOUT,
			"the kernel takes no new connection for %s: detach it and attach again",
			a->device);
	a->dead = a->nlinks < a->queues;
	return 0;
}

const struct attach_way attach_kernel_nbd = {
	.name = "nbd",
	.available = kernel_available,
	.attach = kernel_attach,
	.detach = kernel_detach,
	.revive = kernel_revive,
	.restore = kernel_restore,
	.sweep = attach_kernel_sweep,
};
