/* SPDX-License-Identifier: Apache-2.0 */
/* A hook is a group of programs that answer one question together. Which hooks to try is read from
 * BTF, never from a version; what the verifier or the attach call refuses is dropped, the next way
 * to the same answer tried, and the rest loaded without it.
 */
#include "observe/loader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <heat.h>
#include <observe.h>
#include <policy.h>

#include "base/clock.h"
#include "base/log.h"
#include "observe/hooks.h"
#include "bpf/watched.h"
#include "bpf/observer.skel.h"

#define MAJOR_LOOP 7
#define MAJOR_NBD  43

struct program {
	enum observe_hook hook;
	const char *name;   /* in the object */
	const char *target; /* in BTF: a tracepoint's name, or a function's */
};

static const struct program programs[] = {
	{OBSERVE_REQUESTS, "requests_bio_queue", "block_bio_queue"},
	{OBSERVE_WINDOWS_TP, "windows_tp_unbounded", "page_cache_ra_unbounded"},
	{OBSERVE_WINDOWS_TP, "windows_tp_order", "page_cache_ra_order"},
	{OBSERVE_WINDOWS_FENTRY, "windows_fentry_unbounded", "page_cache_ra_unbounded"},
	{OBSERVE_WINDOWS_FENTRY, "windows_fentry_order", "page_cache_ra_order"},
	{OBSERVE_WINDOWS_ADDED, "windows_added", "mm_filemap_add_to_page_cache"},
	{OBSERVE_HITS_READ, "hits_get_pages", "mm_filemap_get_pages"},
	{OBSERVE_HITS_FAULT, "hits_map_pages", "mm_filemap_map_pages"},
	{OBSERVE_HITS_FAULT, "hits_fault", "mm_filemap_fault"},
};
#define PROGRAMS (sizeof(programs) / sizeof(programs[0]))

struct slot {
	char device[64]; /* "" = free */
	dev_t dev;
	int heat_fd;
	uint32_t shift, cells, generation;
};

struct loader {
	struct observer_bpf *bpf; /* NULL = off */
	uint32_t hooks;
	uint32_t dropped;		  /* refused by the kernel */
	struct bpf_link *links[PROGRAMS]; /* of what is attached now */
	char line[512];
	struct slot slots[OBSERVE_DEVICES];
	uint32_t next, watched; /* the slot to try first; devices */
	uint32_t generation;	/* the last given */
	uint64_t hits_due_ns;	/* next attach or detach; 0 = detached and nothing due */
	bool hits_on;
};

/* ---- which hooks ---- */

static bool btf_has(const struct btf *btf, const struct program *p)
{
	char typedef_name[128];

	if (p->hook == OBSERVE_WINDOWS_FENTRY)
		return btf__find_by_name_kind(btf, p->target, BTF_KIND_FUNC) > 0;
	snprintf(typedef_name, sizeof(typedef_name), "btf_trace_%s", p->target);
	return btf__find_by_name_kind(btf, typedef_name, BTF_KIND_TYPEDEF) > 0;
}

static uint32_t hooks_possible(const struct btf *btf, uint32_t dropped)
{
	uint32_t hooks = 0;

	for (size_t i = 0; i < PROGRAMS; i++)
		if (btf_has(btf, &programs[i]))
			hooks |= programs[i].hook;
	hooks &= ~dropped;
	if (hooks & OBSERVE_WINDOWS_TP) /* one way to windows is enough, the best there is */
		hooks &= ~(OBSERVE_WINDOWS_FENTRY | OBSERVE_WINDOWS_ADDED);
	else if (hooks & OBSERVE_WINDOWS_FENTRY)
		hooks &= ~OBSERVE_WINDOWS_ADDED;
	return hooks;
}

/* ---- loading ---- */

static int print_to_log(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	char text[600];

	if (level != LIBBPF_WARN)
		return 0;
	vsnprintf(text, sizeof(text), fmt, ap);
	for (char *p = text; *p; p++)
		if (*p == '\n' || *p == '"')
			*p = ' ';
	log_debug("observe", "libbpf says", "text=\"%s\"", text);
	return 0;
}

static struct bpf_program *program_of(struct observer_bpf *bpf, size_t i)
{
	return bpf_object__find_program_by_name(bpf->obj, programs[i].name);
}

static int open_and_load(const struct btf *btf, uint32_t hooks, struct observer_bpf **out)
{
	struct observer_bpf *bpf = observer_bpf__open();
	int rc;

	if (!bpf)
		return -errno;
	for (size_t i = 0; i < PROGRAMS; i++)
		bpf_program__set_autoload(program_of(bpf, i),
					  (hooks & programs[i].hook) && btf_has(btf, &programs[i]));
	rc = observer_bpf__load(bpf);
	if (rc) {
		observer_bpf__destroy(bpf);
		return rc;
	}
	*out = bpf;
	return 0;
}

/* Which of @hooks the kernel does not load even alone. */
static uint32_t hooks_refused(const struct btf *btf, uint32_t hooks)
{
	uint32_t refused = 0;

	for (uint32_t hook = 1; hook <= OBSERVE_HITS_FAULT; hook <<= 1) {
		struct observer_bpf *bpf;

		if (!(hooks & hook))
			continue;
		if (open_and_load(btf, hook, &bpf))
			refused |= hook;
		else
			observer_bpf__destroy(bpf);
	}
	return refused;
}

static void hooks_detach(struct loader *l, uint32_t hooks)
{
	for (size_t i = 0; i < PROGRAMS; i++) {
		if (!(programs[i].hook & hooks) || !l->links[i])
			continue;
		bpf_link__destroy(l->links[i]);
		l->links[i] = NULL;
	}
}

/* All of @hooks; the hook that could not be attached, or 0. */
static uint32_t hooks_attach(struct loader *l, uint32_t hooks)
{
	for (size_t i = 0; i < PROGRAMS; i++) {
		struct bpf_program *p = program_of(l->bpf, i);

		if (!(programs[i].hook & hooks) || !bpf_program__autoload(p) || l->links[i])
			continue;
		l->links[i] = bpf_program__attach(p);
		if (!l->links[i])
			return programs[i].hook;
	}
	return 0;
}

static void unload(struct loader *l)
{
	hooks_detach(l, ~0U);
	observer_bpf__destroy(l->bpf);
	l->bpf = NULL;
	l->hooks = 0;
}

/* 0, -EAGAIN after another hook was dropped, or why none can be loaded at all. */
static int load_round(struct loader *l, const struct btf *btf)
{
	uint32_t hooks = hooks_possible(btf, l->dropped), refused;
	int rc;

	if (!hooks)
		return -ENOENT;
	rc = open_and_load(btf, hooks, &l->bpf);
	if (rc) {
		refused = hooks_refused(btf, hooks);
		if (!refused || refused == hooks) /* not one hook's fault */
			return rc;
		l->dropped |= refused;
		return -EAGAIN;
	}
	l->hooks = hooks;
	l->bpf->bss->watched.page_shift = (uint32_t)__builtin_ctzl((size_t)sysconf(_SC_PAGESIZE));
	refused = hooks_attach(l, hooks);
	if (!refused) {
		hooks_detach(l, HOOKS_HITS); /* it works; loader_tick() decides when */
		return 0;
	}
	l->dropped |= refused;
	unload(l);
	return -EAGAIN;
}

/* ---- what is told ---- */

static void off(struct loader *l, const char *why)
{
	snprintf(l->line, sizeof(l->line), "off: %s", why);
}

static void off_for(struct loader *l, int rc)
{
	char why[200];

	if (rc == -EPERM || rc == -EACCES) {
		off(l, "no right to load BPF (root, or CAP_BPF and CAP_PERFMON)");
	} else if (rc == -ENOENT) {
		off(l, l->dropped ? "this kernel refuses every hook"
				  : "this kernel has none of the hooks");
	} else {
		snprintf(why, sizeof(why), "BPF can't be loaded: %s", strerror(-rc));
		off(l, why);
	}
}

struct loader *loader_open(bool enabled)
{
	struct loader *l = calloc(1, sizeof(*l));
	struct btf *btf;
	int rc;

	if (!l)
		return NULL;
	if (!enabled) {
		off(l, "[observe] enable = off");
		return l;
	}
	libbpf_set_print(print_to_log);
	btf = btf__load_vmlinux_btf();
	if (!btf) {
		char why[200];

		snprintf(why, sizeof(why), "this kernel shows no BTF (/sys/kernel/btf/vmlinux: %s)",
			 strerror(errno));
		off(l, why);
		return l;
	}
	do
		rc = load_round(l, btf);
	while (rc == -EAGAIN);
	btf__free(btf);
	if (rc)
		off_for(l, rc);
	else
		hooks_line(l->hooks, l->dropped != 0, l->line, sizeof(l->line));
	return l;
}

void loader_close(struct loader *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < OBSERVE_DEVICES; i++)
		if (l->slots[i].device[0])
			close(l->slots[i].heat_fd);
	if (l->bpf)
		unload(l);
	free(l);
}

const char *loader_hooks(const struct loader *l, uint32_t *hooks)
{
	if (hooks)
		*hooks = l->hooks;
	return l->line;
}

int loader_fds(const struct loader *l, int fds[LOADER_FDS])
{
	if (!l->bpf)
		return -ENOTSUP;
	fds[0] = bpf_map__fd(l->bpf->maps.cairn_policy);
	fds[1] = bpf_map__fd(l->bpf->maps.cairn_stats);
	fds[2] = bpf_map__fd(l->bpf->maps.cairn_events);
	return 0;
}

/* ---- devices ---- */

static struct slot *slot_find(struct loader *l, const char *device)
{
	for (size_t i = 0; i < OBSERVE_DEVICES; i++)
		if (l->slots[i].device[0] && strcmp(l->slots[i].device, device) == 0)
			return &l->slots[i];
	return NULL;
}

/* In turn, so that one who still names a slot that was given up does not soon name another's. */
static struct slot *slot_free(struct loader *l)
{
	for (uint32_t i = 0; i < OBSERVE_DEVICES; i++) {
		struct slot *s = &l->slots[(l->next + i) % OBSERVE_DEVICES];

		if (s->device[0])
			continue;
		l->next = (uint32_t)(s - l->slots + 1) % OBSERVE_DEVICES;
		return s;
	}
	return NULL;
}

static uint16_t *slot_by_dev(struct loader *l, dev_t dev)
{
	return &l->bpf->bss->watched.slot[major(dev) == MAJOR_NBD][minor(dev)];
}

static int device_stat(const char *device, dev_t *dev, struct err *err)
{
	char path[80];
	struct stat st;

	snprintf(path, sizeof(path), "/dev/%s", device);
	if (stat(path, &st))
		return err_set(err, -ENODEV, "%s: %s", path, strerror(errno));
	if (!S_ISBLK(st.st_mode) ||
	    (major(st.st_rdev) != MAJOR_LOOP && major(st.st_rdev) != MAJOR_NBD) ||
	    minor(st.st_rdev) >= WATCHED_MINORS)
		return err_set(err, -ENODEV, "%s is no loop or nbd device that can be watched",
			       path);
	*dev = st.st_rdev;
	return 0;
}

/* A fresh array of cells under @slot. */
static int heat_make(struct loader *l, uint32_t slot, struct slot *s, struct err *err)
{
	struct bpf_map_create_opts opts = {.sz = sizeof(opts),
					   .map_flags = BPF_F_MMAPABLE | BPF_F_INNER_MAP};
	int rc;

	/* a value is 8 bytes, two cells */
	s->heat_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "cairn_cells", sizeof(uint32_t),
				    sizeof(uint64_t), (s->cells + 1) / 2, &opts);
	if (s->heat_fd < 0)
		return err_set(err, s->heat_fd, "no heat map of %u cells: %s", s->cells,
			       strerror(-s->heat_fd));
	rc = bpf_map_update_elem(bpf_map__fd(l->bpf->maps.cairn_heat), &slot, &s->heat_fd, BPF_ANY);
	if (!rc)
		return 0;
	close(s->heat_fd);
	return err_set(err, rc, "the heat map is not taken: %s", strerror(-rc));
}

/* Nothing of the slot's last device. */
static void slot_clear(struct loader *l, uint32_t slot)
{
	static const struct observe_stats no_stats;
	static const struct policy no_policy;

	for (uint32_t i = 0; i < OBSERVE_STRIPES; i++) {
		uint32_t key = slot * OBSERVE_STRIPES + i;

		bpf_map_update_elem(bpf_map__fd(l->bpf->maps.cairn_stats), &key, &no_stats,
				    BPF_ANY);
	}
	bpf_map_update_elem(bpf_map__fd(l->bpf->maps.cairn_policy), &slot, &no_policy, BPF_ANY);
}

static void watch_fill(const struct loader *l, const struct slot *s, struct loader_watch *out)
{
	*out = (struct loader_watch){.heat_fd = s->heat_fd,
				     .slot = (uint32_t)(s - l->slots),
				     .heat_shift = s->shift,
				     .cells = s->cells,
				     .generation = s->generation};
}

static uint32_t cells_of(uint64_t len, uint32_t shift)
{
	return len ? (uint32_t)((len - 1) >> shift) + 1 : 0;
}

int loader_add(struct loader *l, const char *device, uint64_t len, struct loader_watch *out,
	       struct err *err)
{
	struct slot *s, fresh = {.shift = heat_shift(len)};
	struct watched_device *w;
	uint32_t slot;
	int rc;

	if (!l->bpf)
		return err_set(err, -ENOTSUP, "the observer is %s", l->line);
	s = slot_find(l, device);
	if (s && s->shift == fresh.shift && s->cells == cells_of(len, s->shift)) {
		watch_fill(l, s, out);
		return 0;
	}
	if (s) /* another length: another device under its name */
		loader_remove(l, device, 0);
	if (!len || strlen(device) >= sizeof(fresh.device))
		return err_set(err, -ENODEV, "%.100s: nothing to watch", device);
	rc = device_stat(device, &fresh.dev, err);
	if (rc)
		return rc;
	s = slot_free(l);
	if (!s)
		return err_set(err, -ENOSPC, "%d devices are watched already", OBSERVE_DEVICES);
	slot = (uint32_t)(s - l->slots);
	fresh.cells = cells_of(len, fresh.shift);
	rc = heat_make(l, slot, &fresh, err);
	if (rc)
		return rc;
	fresh.generation = ++l->generation;
	strcpy(fresh.device, device);
	*s = fresh;
	slot_clear(l, slot);
	w = &l->bpf->bss->watched.device[slot];
	w->generation = s->generation;
	w->heat_shift = s->shift;
	w->cells = s->cells;
	__atomic_store_n(slot_by_dev(l, s->dev), (uint16_t)(slot + 1), __ATOMIC_RELEASE);
	l->watched++;
	watch_fill(l, s, out);
	return 0;
}

void loader_remove(struct loader *l, const char *device, uint32_t generation)
{
	struct slot *s = l->bpf ? slot_find(l, device) : NULL;
	uint32_t slot;

	if (!s || (generation && s->generation != generation))
		return;
	slot = (uint32_t)(s - l->slots);
	__atomic_store_n(slot_by_dev(l, s->dev), 0, __ATOMIC_RELEASE);
	bpf_map_delete_elem(bpf_map__fd(l->bpf->maps.cairn_heat), &slot);
	close(s->heat_fd);
	*s = (struct slot){0};
	l->watched--;
}

/* ---- the hits, by the clock ---- */

static void hits_switch(struct loader *l, bool on)
{
	if (on && hooks_attach(l, HOOKS_HITS)) { /* it went well at start: try again next time */
		hooks_detach(l, HOOKS_HITS);
		on = false;
	}
	/* hits and misses count by this alone: attaching takes its time */
	__atomic_store_n(&l->bpf->bss->watched.hits_on, on, __ATOMIC_RELAXED);
	if (!on)
		hooks_detach(l, HOOKS_HITS);
	l->hits_on = on;
}

int loader_tick(struct loader *l)
{
	uint64_t now = clock_now_ns(), on_ns = LOADER_HITS_ON_MS * NSEC_PER_MSEC;

	if (!(l->hooks & HOOKS_HITS) || (!l->watched && !l->hits_on))
		return -1;
	if (now >= l->hits_due_ns) {
		hits_switch(l, !l->hits_on && l->watched);
		now = clock_now_ns();
		l->hits_due_ns =
			now + (l->hits_on ? on_ns : LOADER_HITS_PERIOD_MS * NSEC_PER_MSEC - on_ns);
	}
	if (!l->watched && !l->hits_on)
		return -1;
	return (int)((l->hits_due_ns - now) / NSEC_PER_MSEC) + 1;
}
