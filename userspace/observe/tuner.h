/* SPDX-License-Identifier: Apache-2.0 */
/* How devices of the worker's exports, and cgroups, are tuned: what stands between the control API,
 * the view's policies and the device's readahead. It applies what was saved when a device comes,
 * and works with the observer off: then read_ahead_kb alone can be tuned. Thread-safe; calls may
 * ask the supervisor, so not on data threads.
 */
#ifndef OBSERVE_TUNER_H
#define OBSERVE_TUNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "observe/tune.h"
#include "observe/view.h"

struct tuner;

/* @view is borrowed. Policies are saved in @folder; cgroups that are saved and there are tuned at
 * once. NULL without memory. */
struct tuner *tuner_new(struct view *view, int supervisor_fd, const char *folder);
void tuner_free(struct tuner *u);
struct view *tuner_view(struct tuner *u);

struct tuner_device {
	const char *export_name;
	const char *image; /* its digest, or its URL without secrets when it has none */
	int slot;	   /* in the view; negative: not watched */
};

/* A device stands on an export: what was saved for its image is in force from now on, unless it was
 * tuned already, as one that outlived a worker may be. Or it is gone. */
void tuner_attached(struct tuner *u, const struct tuner_device *d);
void tuner_detached(struct tuner *u, const char *export_name);

enum tuned_from { TUNED_DEFAULT, TUNED_SET, TUNED_SAVED };

/* What is in force, key by key, and where from. */
struct tuned {
	struct tuning now; /* .have: the keys that the subject has now */
	enum tuned_from from[TUNE_KEYS];
};

int tuner_get(struct tuner *u, const struct tuner_device *d, struct tuned *out, struct err *err);
int tuner_set(struct tuner *u, const struct tuner_device *d, const struct tuning *t, bool save,
	      struct err *err);

int tuner_cgroup_get(struct tuner *u, const char *path, struct tuned *out, struct err *err);
int tuner_cgroup_set(struct tuner *u, const char *path, const struct tuning *t, bool save,
		     struct err *err);

/* Paths of the cgroups that were tuned or saved, each for the caller to free, as the array. */
size_t tuner_cgroups(struct tuner *u, char ***out);

#endif
