/* SPDX-License-Identifier: Apache-2.0 */
/* cairn image build|push|seal|inspect|verify */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "cli/cli_image.h"
#include "cli/progress.h"
#include "image/build.h"
#include "image/digest.h"
#include "image/inspect.h"
#include "image/push.h"
#include "image/verify.h"

#define URLS                                                                                       \
	"\nURL: az://ACCOUNT/CONTAINER/NAME, "                                                     \
	"https://ACCOUNT.blob.core.windows.net/CONTAINER/NAME[?SAS]\n"                             \
	"or file:///PATH. Credentials come from the AZURE_STORAGE_* variables or the URL's SAS.\n"

static const char help_image[] =
	"Usage: cairn image COMMAND ...\n\n"
	"  build DIR IMAGE   make an erofs or ext4 image of a directory\n"
	"  push IMAGE URL    publish an image: data, tree, then the manifest\n"
	"  seal URL          give a blob that is there already a tree and a manifest\n"
	"  inspect URL       show what a published image is made of\n"
	"  verify URL        read all of a published image and check it\n\n"
	"`cairn image COMMAND --help` tells more.\n";

static const char help_build[] =
	"Usage: cairn image build DIR IMAGE [--fs erofs|ext4] [--force]\n\n"
	"Make IMAGE, a read-only file system of what is in DIR, and print its digest. It is "
	"written as\n"
	"IMAGE.tmp and renamed when it is whole.\n\n"
	"      --fs FS    erofs (default; mkfs.erofs, package erofs-utils) or ext4 (mke2fs, "
	"package\n"
	"                 e2fsprogs)\n"
	"  -f, --force    replace IMAGE if it exists\n"
	"  -q, --quiet    print the digest only\n\n"
	"The same tree gives the same image: names, types, owners, modes, sizes, contents, mtimes "
	"and\n"
	"extended attributes count, atimes and ctimes do not. A `cp -a` copy on another file "
	"system gives\n"
	"the same image, too, if that file system keeps all of these (SELinux labels and "
	"sub-second times\n"
	"may differ). For ext4 it also takes the same mke2fs: e2fsprogs 1.47.0 takes names in "
	"sorted order,\n"
	"but another one may take them in the order in which the copy's file system lists them, "
	"which nobody\n"
	"controls; and holes in files must have been kept.\n";

static const char help_push[] =
	"Usage: cairn image push IMAGE URL [--part-size SIZE] [--threads N]\n\n"
	"Publish IMAGE, a regular file of any content, at URL, and print its digest. Holes are "
	"neither read\n"
	"nor sent. Data and tree go first and the manifest last, so what is half published can't "
	"be seen;\n"
	"run again after a kill it sends only what is missing. The same image again is no error, "
	"another\n"
	"image under a name in use is.\n\n"
	"      --part-size SIZE  put at most SIZE (64KiB and more) of data in a blob, so that many "
	"readers\n"
	"                        are served by several blobs; by default one blob holds all\n"
	"      --threads N       that many blocks at once (default 16); hashing takes every CPU\n"
	"  -q, --quiet           print the digest only\n" URLS;

static const char help_seal[] = "Usage: cairn image seal URL [--threads N]\n\n"
				"Read the plain blob at URL and put its tree and its manifest "
				"beside it, so that readers can check\n"
				"every byte. The blob stays as it is. Prints the digest.\n\n"
				"      --threads N  that many reads at once (default 16)\n"
				"  -q, --quiet      print the digest only\n" URLS;

static const char help_inspect[] =
	"Usage: cairn image inspect URL [--json]\n\n"
	"Show the digest, length, holes, blobs and tree of a published image.\n\n"
	"      --json  one JSON object\n" URLS;

static const char help_verify[] = "Usage: cairn image verify URL [--threads N]\n\n"
				  "Read every part of a published image and its tree and check all "
				  "of it against the digest. Names\n"
				  "the first damaged place and how many there are.\n\n"
				  "      --threads N  that many reads at once (default 16)\n"
				  "  -q, --quiet      no progress\n" URLS;

/* What the options of all five commands come to. */
struct request {
	const char *command, *help;
	enum build_fs fs;
	bool force, quiet, json;
	uint64_t part_size;
	unsigned threads;
	const char *args[2];
	struct progress progress;
};

enum { OPT_FS = 256, OPT_PART_SIZE, OPT_THREADS, OPT_JSON };

static const struct option opts_build[] = {{"fs", 1, NULL, OPT_FS},
					   {"force", 0, NULL, 'f'},
					   {"quiet", 0, NULL, 'q'},
					   {"help", 0, NULL, 'h'},
					   {NULL, 0, NULL, 0}};
static const struct option opts_push[] = {{"part-size", 1, NULL, OPT_PART_SIZE},
					  {"threads", 1, NULL, OPT_THREADS},
					  {"quiet", 0, NULL, 'q'},
					  {"help", 0, NULL, 'h'},
					  {NULL, 0, NULL, 0}};
static const struct option opts_threads[] = {{"threads", 1, NULL, OPT_THREADS},
					     {"quiet", 0, NULL, 'q'},
					     {"help", 0, NULL, 'h'},
					     {NULL, 0, NULL, 0}};
static const struct option opts_inspect[] = {
	{"json", 0, NULL, OPT_JSON}, {"help", 0, NULL, 'h'}, {NULL, 0, NULL, 0}};

/* @arg may be a URL with a SAS in it. */
static int usage_error(const struct request *r, const char *what, const char *arg)
{
	char shown[ORIGIN_URL_MAX];

	fprintf(stderr, "cairn: image %s: %s%s; see cairn image %s --help\n", r->command, what,
		origin_redact_url(arg, shown, sizeof(shown)), r->command);
	return 2;
}

static int failed(struct request *r, const struct err *err)
{
	progress_end(&r->progress);
	fprintf(stderr, "cairn: image %s: %s\n", r->command, err->text);
	return 1;
}

static void print_digest(const uint8_t digest[SHA256_LEN])
{
	char hex[2 * SHA256_LEN + 1];

	hex_encode(digest, SHA256_LEN, hex);
	printf("sha256:%s\n", hex);
}

static int image_file_digest(const char *path, struct request *r, struct err *err)
{
	struct image_tree *t;
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
	char size[24];

	if (fd < 0 || fstat(fd, &st)) {
		rc = err_set(err, -errno, "can't read %s: %s", path, strerror(errno));
	} else {
		rc = image_tree_build(fd, (uint64_t)st.st_size, 0, &r->progress.image, &t, err);
	}
	if (fd >= 0)
		close(fd);
	if (rc)
		return rc;
	if (!r->quiet)
		fprintf(stderr, "built %s: %s, %s of data\n", path,
			r->fs == BUILD_EXT4 ? "ext4" : "erofs",
			bytes_format(runs_total(&t->data), size, sizeof(size)));
	print_digest(t->digest);
	image_tree_free(t);
	return 0;
}

static int run_build(struct request *r)
{
	struct err err = {0};
	int rc = image_build(r->args[0], r->args[1], r->fs, r->force, &err);

	if (!rc)
		rc = image_file_digest(r->args[1], r, &err);
	return rc ? failed(r, &err) : 0;
}

static void tell_published(const struct request *r, const struct publish_result *res,
			   const char *done)
{
	char length[24], sent[24];

	if (!r->quiet && res->was_there)
		fprintf(stderr, "already published at %s\n", res->url);
	else if (!r->quiet)
		fprintf(stderr, "%s %s of image at %s, %s sent\n", done,
			bytes_format(res->length, length, sizeof(length)), res->url,
			bytes_format(res->sent, sent, sizeof(sent)));
	print_digest(res->digest);
}

static int run_push(struct request *r)
{
	struct publish_options opt = {r->threads, &r->progress.image, r->part_size};
	struct publish_result res;
	struct err err = {0};

	if (image_push(r->args[0], r->args[1], &opt, &res, &err))
		return failed(r, &err);
	tell_published(r, &res, "published");
	return 0;
}

static int run_seal(struct request *r)
{
	struct publish_options opt = {r->threads, &r->progress.image, 0};
	struct publish_result res;
	struct err err = {0};

	if (image_seal(r->args[0], &opt, &res, &err))
		return failed(r, &err);
	tell_published(r, &res, "sealed");
	return 0;
}

static int run_inspect(struct request *r)
{
	struct err err = {0};

	return image_inspect(r->args[0], r->json, stdout, &err) ? failed(r, &err) : 0;
}

static int run_verify(struct request *r)
{
	struct verify_report rep;
	struct err err = {0};
	int rc = image_verify(r->args[0], r->threads, &r->progress.image, &rep, &err);

	if (rep.new_etags && !r->quiet)
		fprintf(stderr,
			"%u blobs have another ETag than the manifest says; what they hold "
			"counts\n",
			rep.new_etags);
	if (rc)
		return failed(r, &err);
	printf("every block is right: %llu of data, %llu of the tree\n",
	       (unsigned long long)rep.blocks, (unsigned long long)rep.tree_blocks);
	print_digest(rep.digest);
	return 0;
}

static const struct command {
	const char *name, *help;
	int nargs;
	const char *args; /* for the error */
	const struct option *options;
	int (*run)(struct request *r);
} commands[] = {
	{"build", help_build, 2, "DIR and IMAGE are needed", opts_build, run_build},
	{"push", help_push, 2, "IMAGE and URL are needed", opts_push, run_push},
	{"seal", help_seal, 1, "URL is needed", opts_threads, run_seal},
	{"inspect", help_inspect, 1, "URL is needed", opts_inspect, run_inspect},
	{"verify", help_verify, 1, "URL is needed", opts_threads, run_verify},
};

static int take_fs(struct request *r, const char *arg)
{
	if (strcmp(arg, "erofs") != 0 && strcmp(arg, "ext4") != 0)
		return usage_error(r, "--fs is erofs or ext4, not ", arg);
	r->fs = strcmp(arg, "ext4") == 0 ? BUILD_EXT4 : BUILD_EROFS;
	return 0;
}

static int take_threads(struct request *r, const char *arg)
{
	char *end;
	long n = strtol(arg, &end, 10);

	if (*end || n < 1 || n > 256)
		return usage_error(r, "--threads is 1 to 256, not ", arg);
	r->threads = (unsigned)n;
	return 0;
}

static int take_part_size(struct request *r, const char *arg)
{
	if (bytes_parse(arg, &r->part_size) || r->part_size < BLOCK_SIZE || r->part_size > 4 * TIB)
		return usage_error(r, "--part-size is 64KiB to 4TiB, not ", arg);
	return 0;
}

/* 0, or the exit status plus one. */
static int take_option(struct request *r, int c)
{
	int rc = 0;

	switch (c) {
	case OPT_FS:
		rc = take_fs(r, optarg);
		break;
	case OPT_PART_SIZE:
		rc = take_part_size(r, optarg);
		break;
	case OPT_THREADS:
		rc = take_threads(r, optarg);
		break;
	case OPT_JSON:
		r->json = true;
		break;
	case 'f':
		r->force = true;
		break;
	case 'q':
		r->quiet = true;
		break;
	case 'h':
		fputs(r->help, stdout);
		return 1;
	}
	return rc ? rc + 1 : 0;
}

static int run_command(const struct command *cmd, int argc, char **argv)
{
	struct request r = {.command = cmd->name, .help = cmd->help};
	int c, rc;

	optind = 0; /* main() has used getopt before */
	opterr = 0;
	while ((c = getopt_long(argc, argv, "fqh", cmd->options, NULL)) != -1) {
		if (c == '?')
			return usage_error(&r, "unknown, or lacks its value: ", argv[optind - 1]);
		rc = take_option(&r, c);
		if (rc)
			return rc - 1;
	}
	if (argc - optind < cmd->nargs)
		return usage_error(&r, cmd->args, "");
	if (argc - optind > cmd->nargs)
		return usage_error(&r, "one argument too many: ", argv[optind + cmd->nargs]);
	for (int i = 0; i < cmd->nargs; i++)
		r.args[i] = argv[optind + i];
	progress_init(&r.progress, r.quiet);
	rc = cmd->run(&r);
	if (rc == 0 && (fflush(stdout) || ferror(stdout))) {
		fprintf(stderr, "cairn: image %s: can't write to stdout: %s\n", cmd->name,
			strerror(errno));
		return 1;
	}
	return rc;
}

int cli_image(int argc, char **argv)
{
	if (argc < 2) {
		fputs("cairn: image: a command is needed: build, push, seal, inspect or verify; "
		      "see cairn "
		      "image --help\n",
		      stderr);
		return 2;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		fputs(help_image, stdout);
		return 0;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return run_command(&commands[i], argc - 1, argv + 1);
	fprintf(stderr, "cairn: image: there is no command \"%s\"; see cairn image --help\n",
		argv[1]);
	return 2;
}
