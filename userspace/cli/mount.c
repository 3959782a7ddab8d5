/* SPDX-License-Identifier: Apache-2.0 */
/* cairn mount, umount: in the caller's mount namespace, which is why the daemon doesn't do it. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/mounts.h"
#include "cli/cli.h"
#include "cli/fstype.h"
#include "control/client.h"

static const char mount_usage[] =
	"Usage: cairn mount URL DIR [--name NAME] [--fs TYPE] [--way WAY] [--device /dev/nbdN]\n"
	"                       [--queues N] [--on-deadline POLICY] [--promote WHEN] [--wait]\n"
	"                       [--refresh]\n"
	"Attach the image at URL and mount it on DIR: read-only, nosuid, nodev.\n"
	"\n"
	"  --name NAME   serve it as NAME (default: made from the URL)\n"
	"  --fs TYPE     erofs, ext4, xfs, squashfs (default: what the image holds)\n"
	"  --way WAY     auto (default: the first that works here), nbd or nbdfuse\n"
	"  --device DEV  this one and no other; nbd only\n"
	"  --queues N    connections, 1 to 64 (default: one a CPU, at most 8); nbd only\n"
	"  --on-deadline POLICY\n"
	"                eio or wait: fail a read that no source answers in time, or wait until "
	"one\n"
	"                is back (default: [fill] on_deadline of the daemon)\n"
	"  --promote WHEN\n"
	"                auto: once all of the image is on this node, the device reads it without\n"
	"                cairnd, and it stays in the store until detached (default: never)\n"
	"                erofs-file: mount the store's file itself, without a device; all of it "
	"has to\n"
	"                be on this node\n"
	"  --wait        first bring all of the image to this node\n"
	"  --refresh     ask the origin for the manifest, however fresh the stored one is\n";

static const char umount_usage[] =
	"Usage: cairn umount DIR\n"
	"Unmount what `cairn mount` mounted on DIR, and detach its device unless it is mounted\n"
	"elsewhere too.\n";

struct mount_wishes {
	struct export_wish x;
	const char *dir, *fs;
	bool wait, help;
};

/* 0, or the exit status. */
static int mount_take(const char *command, int opt, struct mount_wishes *w)
{
	if (opt == '?')
		return 2;
	if (opt == 't')
		w->fs = optarg;
	w->wait = w->wait || opt == 'W';
	w->help = w->help || opt == 'h';
	return cli_wish_take(command, opt, true, &w->x);
}

static int mount_parse_args(int argc, char **argv, struct mount_wishes *w)
{
	static const struct option options[] = {
		{"name", required_argument, NULL, 'n'},
		{"fs", required_argument, NULL, 't'},
		{"way", required_argument, NULL, 'w'},
		{"device", required_argument, NULL, 'd'},
		{"queues", required_argument, NULL, 'q'},
		{"wait", no_argument, NULL, 'W'},
		{"refresh", no_argument, NULL, 'r'},
		{"on-deadline", required_argument, NULL, 'o'},
		{"promote", required_argument, NULL, 'p'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int opt;

	*w = (struct mount_wishes){.x.way = "auto"};
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1)
		if (mount_take(argv[0], opt, w))
			return 2;
	if (w->help)
		return 0;
	if (optind + 2 != argc)
		return cli_usage_error(argv[0], "takes a URL and a folder");
	w->x.url = argv[optind];
	w->dir = argv[optind + 1];
	return 0;
}

static int folder_check(const char *dir, struct err *err)
{
	struct stat st;

	if (geteuid() != 0)
		return err_set(err, -EPERM, "mounting needs root");
	if (stat(dir, &st))
		return err_set(err, -errno, "%s: %s%s", dir, strerror(errno),
			       errno == ENOENT ? "; make it first (mkdir)" : "");
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "%s is no folder", dir);
	return 0;
}

static int device_mount(const char *device, const char *dir, const char *fs, struct err *err)
{
	char found[FSTYPE_MAX];

	if (!fs) {
		int rc = fstype_detect(device, found, err);

		if (rc)
			return rc;
		fs = found;
	}
	if (!mount(device, dir, fs, MS_RDONLY | MS_NOSUID | MS_NODEV, fstype_options(fs)))
		return 0;
	if (errno == ENOTBLK)
		return err_set(err, -ENOTSUP,
			       "this kernel mounts no erofs without a device (Linux 6.12 with "
			       "CONFIG_EROFS_FS_BACKED_BY_FILE does)");
	if (errno == ENODEV)
		return err_set(err, -ENODEV, "this kernel knows no file system %s (modprobe %s?)",
			       fs, fs);
	return err_set(err, -errno, "mounting %s (%s) on %s: %s", device, fs, dir, strerror(errno));
}

static bool wants_file(const struct mount_wishes *w)
{
	return w->x.promote && strcmp(w->x.promote, "erofs-file") == 0;
}

/* A file is only given when all of it is there, a device before that. */
static int image_ready(struct mount_wishes *w, cJSON **reply, struct err *err)
{
	struct export_wish first = w->x;
	int rc;

	if (!wants_file(w) || !w->wait)
		return cli_export_post(&w->x, reply, err);
	first.promote = NULL;
	rc = cli_export_post(&first, reply, err);
	if (rc)
		return rc;
	rc = cli_fetch_whole(cli_text(*reply, "name"), err);
	cJSON_Delete(*reply);
	return rc ? rc : cli_export_post(&w->x, reply, err);
}

/* As it was before, unless someone else attached it. */
static void undo(const char *command, const cJSON *reply)
{
	struct err err = {0};

	if (!cli_text(reply, "file")[0] &&
	    !cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(reply, "newly_attached")))
		return;
	if (cli_export_delete(cli_text(reply, "name"), false, &err))
		fprintf(stderr, "cairn: %s: and detaching it again: %s\n", command, err.text);
}

int cli_mount(int argc, char **argv)
{
	struct mount_wishes w;
	struct err err = {0};
	cJSON *reply;
	int rc = mount_parse_args(argc, argv, &w);

	if (rc)
		return rc;
	if (w.help)
		return fputs(mount_usage, stdout) < 0;
	if (wants_file(&w))
		w.x.way = "none";
	if (folder_check(w.dir, &err) || image_ready(&w, &reply, &err))
		return cli_fail(argv[0], &err);
	if (wants_file(&w))
		rc = device_mount(cli_text(reply, "file"), w.dir, "erofs", &err);
	else if (w.wait)
		rc = cli_fetch_whole(cli_text(reply, "name"), &err);
	if (!rc && !wants_file(&w))
		rc = device_mount(cli_text(reply, "device"), w.dir, w.fs, &err);
	if (rc)
		undo(argv[0], reply);
	cJSON_Delete(reply);
	return rc ? cli_fail(argv[0], &err) : 0;
}

/* The /dev path of a block device's number. */
static int device_path(unsigned major, unsigned minor, char out[PATH_MAX])
{
	char link[64], target[PATH_MAX];
	ssize_t n;

	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major, minor);
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = 0;
	snprintf(out, PATH_MAX, "/dev/%.*s", 255,
		 strrchr(target, '/') ? strrchr(target, '/') + 1 : target);
	return 0;
}

/* The device mounted on @dir, if the daemon made it. */
static int device_find(const char *dir, struct mount_entry *m, char device[PATH_MAX],
		       struct err *err)
{
	char *real = realpath(dir, NULL), *path;
	bool mounted;
	int rc;

	if (!real)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	mounted = mounts_find_point("/proc/self/mountinfo", real, m);
	free(real);
	if (!mounted)
		return err_set(err, -EINVAL, "nothing is mounted on %s", dir);
	if (m->major == 0 && strcmp(m->type, "erofs") == 0 && m->source[0] == '/')
		strcpy(device, m->source); /* the store's file */
	else if (m->major == 0 || device_path(m->major, m->minor, device))
		return err_set(err, -EINVAL,
			       "%s is not a mount of ours (%s, no block device); use umount", dir,
			       m->type);
	path = client_path("/v1/exports/", device);
	rc = path ? cli_ask("GET", path, NULL, NULL, err) : err_set(err, -ENOMEM, "out of memory");
	free(path);
	if (rc == -ENOENT)
		return err_set(err, rc, "%s is not a mount of ours: its device is %s; use umount",
			       dir, device);
	return rc;
}

static int unmount(const char *dir, struct err *err)
{
	struct mount_entry m;
	char device[PATH_MAX];
	int rc = device_find(dir, &m, device, err);

	if (rc)
		return rc;
	if (umount2(dir, 0))
		return err_set(err, -errno, "%s: %s%s", dir, strerror(errno),
			       errno == EBUSY ? "; end what uses it (fuser -vm DIR)" : "");
	if (mounts_find_device("/proc/self/mountinfo", m.major, m.minor, &m))
		return 0; /* the other mount's umount detaches */
	rc = cli_export_delete(device, false, err);
	return rc ? err_prefix(err, "%s is unmounted, but %s stays", dir, device) : 0;
}

int cli_umount(int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	struct err err = {0};
	int opt = getopt_long(argc, argv, "h", options, NULL);

	if (opt == 'h')
		return fputs(umount_usage, stdout) < 0;
	if (opt != -1)
		return 2;
	if (optind + 1 != argc)
		return cli_usage_error(argv[0], "takes one folder");
	return unmount(argv[optind], &err) ? cli_fail(argv[0], &err) : 0;
}
