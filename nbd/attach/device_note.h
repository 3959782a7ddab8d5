/* SPDX-License-Identifier: Apache-2.0 */
/* What a supervisor writes down of a kernel device it set up, for the one that finds it after a
 * crash: JSON {"version", "index", "identity", "pid", "started", "boot", "ports"} in
 * runtime_dir/attach/NAME/nbd.json. A device is that supervisor's when boot, index, identity and
 * pid are what the kernel shows; it is dead when no connection from those ports stands.
 */
#ifndef NBD_DEVICE_NOTE_H
#define NBD_DEVICE_NOTE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/process.h"

#define NOTE_PORTS_MAX	  64
#define NOTE_IDENTITY_LEN 288
#define NOTE_BOOT_LEN	  BOOT_ID_LEN

struct device_note {
	int index; /* -1: not known when it was written */
	char identity[NOTE_IDENTITY_LEN];
	pid_t pid;	  /* who connected: what sysfs shows */
	uint64_t started; /* of that process, in clock ticks since boot */
	char boot[NOTE_BOOT_LEN];
	uint16_t ports[NOTE_PORTS_MAX]; /* the kernel's ends */
	uint32_t nports;
};

/* pid, started and boot of this process. 0 or a negative errno. */
int device_note_sign(struct device_note *n);

/* A process that runs now and is the one of the note, by pid and start. */
bool device_note_writer_lives(const struct device_note *n);

/* Replaces @path, by a new file beside it. */
int device_note_save(const char *path, const struct device_note *n);

/* -ENOENT; -EBADMSG: damaged or of another version. *out is written on success only. */
int device_note_load(const char *path, struct device_note *out);
int device_note_parse(const char *json, struct device_note *out);

#endif
