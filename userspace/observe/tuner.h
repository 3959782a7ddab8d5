/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices of the worker's exports are watched, and how they and cgroups are tuned: what
 * stands between the control API and the view. It applies what was saved when a device comes, and
 * works with the observer off: then read_ahead_kb alone can be tuned. Thread-safe; calls may ask
 * the supervisor, so not on data threads.
 */
#ifndef OBSERVE_WATCH_H
#define OBSERVE_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "observe/tune.h"
#include "observe/view.h"

struct watch;

/* @view is borrowed. Policies are saved in @folder; cgroups that are saved and there are tuned at
 * once. NULL without memory. */
struct watch *watch_new(struct view *view, int supervisor_fd, const char *folder);
void watch_free(struct watch *w);
struct view *watch_view(struct watch *w);

struct watch_device {
	const char *export_name;
	const char *image; /* its digest, or its URL without secrets when it has none */
	uint64_t len;	   /* of the device, bytes */
};

/* A device stands on an export, and what was saved for its image is in force from now on; or it is
 * gone. A device that was there already is no error. */
void watch_attached(struct watch *w, const struct watch_device *d);
void watch_detached(struct watch *w, const char *export_name);

/* Its slot in the view, or -ENOENT. */
int watch_slot(struct watch *w, const char *export_name);

enum tuned_from { TUNED_DEFAULT, TUNED_SET, TUNED_SAVED };

/* What is in force, key by key, and where from. */
struct tuned {
	struct tuning now; /* .have: the keys that the subject has now */
	enum tuned_from from[TUNE_KEYS];
};

int watch_tuned(struct watch *w, const struct watch_device *d, struct tuned *out, struct err *err);
int watch_tune(struct watch *w, const struct watch_device *d, const struct tuning *t, bool save,
	       struct err *err);

int watch_cgroup_tuned(struct watch *w, const char *path, struct tuned *out, struct err *err);
int watch_cgroup_tune(struct watch *w, const char *path, const struct tuning *t, bool save,
		      struct err *err);

/* Paths of the cgroups that were tuned or saved, each for the caller to free, as the array. */
size_t watch_cgroups(struct watch *w, char ***out);

#endif
