/* SPDX-License-Identifier: Apache-2.0 */
/* The table of keys, and the INI reader and printer made from it.
 *
 * inih calls back with section, name and value; it does not say on which line, so our own line
 * reader counts. inih splits a line longer than its buffer without a word: the reader refuses it.
 */
#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#include "base/bytes.h"

enum key_type {
	KEY_TEXT,
	KEY_PATH,
	KEY_SOCKET,
	KEY_ADDRESS,
	KEY_CHOICE,
	KEY_COUNT,
	KEY_BYTES,
	KEY_SIZE_OR_AUTO,
	KEY_SECONDS
};

struct config_key {
	const char *section, *name;
	enum key_type type;
	size_t at;	   /* offset in struct config */
	size_t room;	   /* bytes there, for text */
	uint64_t min, max; /* in the unit the person writes */
	const char *def;
	const char *choices; /* KEY_CHOICE: "a|b|c" */
	const char *help;
};

#define TEXT(field)		offsetof(struct config, field), sizeof(((struct config *)0)->field), 0, 0
#define NUMBER(field, min, max) offsetof(struct config, field), sizeof(uint64_t), (min), (max)

static const struct config_key keys[] = {
	{"daemon", "control_socket", KEY_SOCKET, TEXT(control_socket), "/run/cairn/control.sock",
	 NULL, "Where the cairn command reaches the daemon."},
	{"daemon", "control_group", KEY_TEXT, TEXT(control_group), "cairn", NULL,
	 "Members of this group, if there is one, may ask what is served; changing it is for "
	 "root."},
	{"daemon", "user", KEY_TEXT, TEXT(user), "cairn", NULL,
	 "Whom the worker runs as when cairnd is started as root; the store is made this user's."},
	{"daemon", "seccomp", KEY_CHOICE, TEXT(seccomp), "on", "on|off",
	 "The worker may make no system calls but those that it needs."},
	{"daemon", "core_dumps", KEY_CHOICE, TEXT(core_dumps), "off", "on|off",
	 "A crash may leave a core file, which holds secrets."},
	{"daemon", "runtime_dir", KEY_PATH, TEXT(runtime_dir), "/run/cairn", NULL,
	 "Mount points and pid files of attached devices; a tmpfs is right."},
	{"daemon", "metrics_listen", KEY_ADDRESS, TEXT(metrics_listen), "", NULL,
	 "Serve /metrics on this ADDRESS:PORT as well; empty = on the control socket only."},
	{"daemon", "log_level", KEY_CHOICE, TEXT(log_level), "info", "debug|info|warn|error",
	 "The least level that is logged."},
	{"daemon", "event_loop", KEY_CHOICE, TEXT(event_loop), "auto", "auto|io_uring|epoll",
	 "auto takes io_uring where it works."},
	{"nbd", "socket", KEY_SOCKET, TEXT(nbd_socket), "/run/cairn/nbd.sock", NULL,
	 "Where exports are served over NBD."},
	{"nbd", "threads", KEY_COUNT, NUMBER(nbd_threads, 0, 256), "0", NULL,
	 "Data threads; 0 = one a CPU, at most 8."},
	{"nbd", "max_connections", KEY_COUNT, NUMBER(nbd_max_connections, 1, 65536), "1024", NULL,
	 "More NBD connections than this are refused."},
	{"nbd", "miss_memory", KEY_BYTES, NUMBER(nbd_miss_memory, MIB, TIB), "48MiB", NULL,
	 "Most bytes of reads waiting for a fill; when reached, sockets are read no further."},
	{"store", "path", KEY_PATH, TEXT(store_path), "/var/lib/cairn", NULL,
	 "The node's cache; a file system that can punch holes (ext4, xfs)."},
	{"store", "size", KEY_SIZE_OR_AUTO, NUMBER(store_size, 64 * MIB, 1024 * TIB), "auto", NULL,
	 "Most bytes kept; auto = 80 % of the file system."},
	{"store", "page_cache", KEY_CHOICE, TEXT(page_cache), "auto", "auto|keep",
	 "auto: what only devices read is not left in the page cache, where their mounts have it."},
	{"fill", "threads", KEY_COUNT, NUMBER(fill_threads, 1, 256), "2", NULL,
	 "Threads that fetch and verify; one core verifies about 1.7 GB/s."},
	{"fill", "memory", KEY_BYTES, NUMBER(fill_memory, 4 * MIB, TIB), "80MiB", NULL,
	 "Buffers of fills in flight."},
	{"fill", "deadline", KEY_SECONDS, NUMBER(fill_deadline_ms, 1, 86400), "90", NULL,
	 "Seconds until a read that no source answers fails, or is tried again."},
	{"fill", "on_deadline", KEY_CHOICE, TEXT(on_deadline), "eio", "eio|wait",
	 "What a read gets whose deadline passed: an error, or patience until its source is back."},
	{"fill", "readahead", KEY_BYTES, NUMBER(readahead, 0, 16 * GIB), "64MiB", NULL,
	 "Most that is fetched ahead of readers at a time; 0 = only what they ask for."},
	{"origin", "connections", KEY_COUNT, NUMBER(origin_connections, 1, 4096), "32", NULL,
	 "Most requests to origins in flight, over all fill threads."},
	{"origin", "api_version", KEY_TEXT, TEXT(api_version), "2021-12-02", NULL,
	 "The x-ms-version that Blob is asked in."},
	{"origin", "ca_file", KEY_PATH, TEXT(ca_file), "", NULL,
	 "PEM file with further certificates to trust; empty = the system's only."},
	{"azure", "account", KEY_TEXT, TEXT(azure_account), "", NULL,
	 "Storage account; empty = AZURE_STORAGE_ACCOUNT."},
	{"azure", "key_file", KEY_PATH, TEXT(azure_key_file), "", NULL,
	 "File that holds the account key; empty = AZURE_STORAGE_KEY."},
	{"azure", "sas_token_file", KEY_PATH, TEXT(azure_sas_token_file), "", NULL,
	 "File that holds a SAS token; empty = AZURE_STORAGE_SAS_TOKEN."},
	{"azure", "connection_string_file", KEY_PATH, TEXT(azure_connection_string_file), "", NULL,
	 "File that holds a connection string; empty = AZURE_STORAGE_CONNECTION_STRING."},
	{"azure", "identity", KEY_CHOICE, TEXT(azure_identity), "auto",
	 "auto|off|environment|workload|managed",
	 "auto: an identity is used where no key or SAS fits; a named one is used alone."},
	{"azure", "client_id", KEY_TEXT, TEXT(azure_client_id), "", NULL,
	 "The identity's client id, object:ID or resource id; empty = AZURE_CLIENT_ID."},
	{"image", "manifest_max_age", KEY_SECONDS, NUMBER(manifest_max_age_ms, 0, 31536000), "3600",
	 NULL, "Seconds a manifest in the store is used without asking its origin again."},
	{"observe", "enable", KEY_CHOICE, TEXT(observe), "auto", "auto|off",
	 "Count what is read of attached devices by BPF programs; auto = where the kernel lets "
	 "it."},
};
#define KEYS (sizeof(keys) / sizeof(keys[0]))

/* ---- values ---- */

static int seconds_parse(const char *s, uint64_t *ms)
{
	char *end;
	double v;

	if (!isdigit((unsigned char)s[0]))
		return -EINVAL;
	v = strtod(s, &end);
	if (strcmp(end, "s") != 0 && *end)
		return -EINVAL;
	if (v > 1e12)
		return -ERANGE;
	*ms = (uint64_t)(v * 1000 + 0.5);
	return 0;
}

static int count_parse(const char *s, uint64_t *out)
{
	char *end;

	if (!isdigit((unsigned char)s[0]))
		return -EINVAL;
	errno = 0;
	*out = strtoull(s, &end, 10);
	return errno ? -ERANGE : *end ? -EINVAL : 0;
}

/* ADDRESS:PORT, [V6]:PORT or :PORT. */
int config_split_address(const char *s, char *host, size_t host_len, char *port, size_t port_len)
{
	const char *colon = strrchr(s, ':');
	size_t len = colon ? (size_t)(colon - s) : 0;
	uint64_t n;

	if (!colon || count_parse(colon + 1, &n) || n < 1 || n > 65535 ||
	    strlen(colon + 1) >= port_len)
		return -EINVAL;
	if (len && s[0] == '[') {
		if (s[len - 1] != ']')
			return -EINVAL;
		s++;
		len -= 2;
	} else if (memchr(s, ':', len)) {
		return -EINVAL; /* an IPv6 address without brackets: which colon is the port's? */
	}
	if (len >= host_len)
		return -EINVAL;
	memcpy(host, s, len);
	host[len] = 0;
	strcpy(port, colon + 1);
	return 0;
}

static bool choice_is_known(const char *choices, const char *v)
{
	size_t len = strlen(v);

	for (const char *c = strchr(v, '|') ? NULL : choices; c; c = strchr(c, '|')) {
		c += *c == '|';
		if (len && strncmp(c, v, len) == 0 && (c[len] == '|' || !c[len]))
			return true;
	}
	return false;
}

/* What a key takes, as a person reads it: "1 to 65536", "an absolute path", .. */
static const char *key_allowed(const struct config_key *k, char *buf, size_t len)
{
	char lo[24], hi[24];

	switch (k->type) {
	case KEY_TEXT:
		snprintf(buf, len, "text of at most %zu bytes", k->room - 1);
		break;
	case KEY_PATH:
		snprintf(buf, len, "an absolute path of at most %zu bytes", k->room - 1);
		break;
	case KEY_SOCKET:
		snprintf(buf, len, "an absolute path of at most %zu bytes (a Unix socket's limit)",
			 sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
		break;
	case KEY_ADDRESS:
		snprintf(buf, len, "ADDRESS:PORT, [IPV6]:PORT or empty");
		break;
	case KEY_CHOICE:
		snprintf(buf, len, "one of %s", k->choices);
		break;
	case KEY_COUNT:
		snprintf(buf, len, "a whole number from %llu to %llu", (unsigned long long)k->min,
			 (unsigned long long)k->max);
		break;
	case KEY_SECONDS:
		snprintf(buf, len, "seconds from %llu to %llu", (unsigned long long)k->min,
			 (unsigned long long)k->max);
		break;
	case KEY_BYTES:
	case KEY_SIZE_OR_AUTO:
		snprintf(buf, len, "%sa size from %s to %s, like 512MiB or 2TiB",
			 k->type == KEY_SIZE_OR_AUTO ? "auto, or " : "",
			 bytes_format(k->min, lo, 24), bytes_format(k->max, hi, 24));
		break;
	}
	return buf;
}

static int number_set(const struct config_key *k, const char *v, uint64_t *field)
{
	uint64_t n, scale = k->type == KEY_SECONDS ? 1000 : 1;
	int rc;

	if (k->type == KEY_SIZE_OR_AUTO && strcmp(v, "auto") == 0) {
		*field = 0;
		return 0;
	}
	if (k->type == KEY_COUNT)
		rc = count_parse(v, &n);
	else if (k->type == KEY_SECONDS)
		rc = seconds_parse(v, &n);
	else
		rc = bytes_parse(v, &n);
	if (rc)
		return rc;
	if (n < k->min * scale || n > k->max * scale)
		return -ERANGE;
	*field = n;
	return 0;
}

static int text_set(const struct config_key *k, const char *v, char *field)
{
	char host[64], port[8];
	bool path = k->type == KEY_PATH || k->type == KEY_SOCKET;
	bool optional = !k->def[0];

	if (!v[0] && !optional)
		return -EINVAL;
	if (strlen(v) >= k->room)
		return -ENAMETOOLONG;
	if (k->type == KEY_SOCKET && strlen(v) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return -ENAMETOOLONG;
	if (path && v[0] && v[0] != '/')
		return -EINVAL;
	if (k->type == KEY_CHOICE && !choice_is_known(k->choices, v))
		return -EINVAL;
	if (k->type == KEY_ADDRESS && v[0] &&
	    config_split_address(v, host, sizeof(host), port, sizeof(port)))
		return -EINVAL;
	strcpy(field, v);
	return 0;
}

static int key_set(const struct config_key *k, const char *v, struct config *c)
{
	char *field = (char *)c + k->at;

	if (k->type >= KEY_COUNT)
		return number_set(k, v, (uint64_t *)field);
	return text_set(k, v, field);
}

void config_defaults(struct config *c)
{
	memset(c, 0, sizeof(*c));
	for (size_t i = 0; i < KEYS; i++)
		if (key_set(&keys[i], keys[i].def, c))
			abort(); /* the table contradicts itself; the unit test sees it first */
}

/* ---- the file ---- */

struct reading {
	struct config *c;
	struct err *err;
	const char *path;
	FILE *f;
	unsigned line;	 /* last line handed to inih */
	unsigned failed; /* line of the first error, 0 = none */
	unsigned seen[KEYS];
};

static int fail(struct reading *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Keep the first error: what follows is often its echo. */
static int fail(struct reading *r, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (r->failed)
		return 0;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	r->failed = r->line;
	err_set(r->err, -EINVAL, "%s:%u: %s", r->path, r->line, text);
	return 0; /* inih's "error" */
}

static bool section_is_known(const char *s)
{
	for (size_t i = 0; i < KEYS; i++)
		if (strcmp(keys[i].section, s) == 0)
			return true;
	return false;
}

static unsigned edit_distance(const char *a, const char *b)
{
	unsigned row[64];
	size_t n = strlen(b);

	if (n >= 63 || strlen(a) >= 63)
		return 99;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; *a; a++, i++) {
		unsigned diag = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			unsigned best = diag + (tolower((unsigned char)*a) != b[j - 1]);

			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diag = row[j];
			row[j] = best;
		}
	}
	return row[n];
}

/* The key the person most likely meant: the same name elsewhere, or a near one. */
static const struct config_key *key_nearest(const char *section, const char *name)
{
	const struct config_key *best = NULL;
	unsigned least = 2 + (unsigned)strlen(name) / 4;

	for (size_t i = 0; i < KEYS; i++) {
		unsigned d = 2 * edit_distance(name, keys[i].name) +
			     (strcmp(section, keys[i].section) != 0);

		if (d <= 2 * least && (!best || d < least * 2)) {
			best = &keys[i];
			least = (d + 1) / 2;
		}
	}
	return best;
}

static void list_names(const char *section, char *buf, size_t len)
{
	const char *last = "";
	size_t n = 0;

	buf[0] = 0;
	for (size_t i = 0; i < KEYS && n < len; i++) {
		const char *word = section ? keys[i].name : keys[i].section;

		if (section ? strcmp(keys[i].section, section) != 0 : strcmp(last, word) == 0)
			continue;
		last = word;
		n += (size_t)snprintf(buf + n, len - n, "%s%s", n ? ", " : "", word);
	}
}

/* Words people put a secret under; the value is never repeated in an error or a log. */
static const char *secret_remedy(const char *section, const char *name, const char *value)
{
	static const char *const words[][2] = {
		{"key", "key_file"},
		{"account_key", "key_file"},
		{"storage_key", "key_file"},
		{"sas", "sas_token_file"},
		{"sas_token", "sas_token_file"},
		{"connection_string", "connection_string_file"},
	};

	if (strcasestr(value, "AccountKey="))
		return "connection_string_file";
	if (strcasestr(value, "sig="))
		return "sas_token_file";
	for (size_t i = 0; strcmp(section, "azure") == 0 && i < sizeof(words) / sizeof(words[0]);
	     i++)
		if (strcasecmp(name, words[i][0]) == 0)
			return words[i][1];
	return NULL;
}

static int on_key(void *arg, const char *section, const char *name, const char *value)
{
	struct reading *r = arg;
	const struct config_key *k = NULL, *near;
	const char *remedy = secret_remedy(section, name, value);
	char allowed[256];

	if (remedy)
		return fail(
			r,
			"[%s] %s: a secret does not belong in this file; put it in a file of its "
			"own, readable by root only, and name that: [azure] %s = PATH",
			section, name, remedy);
	for (size_t i = 0; i < KEYS && !k; i++)
		if (strcmp(keys[i].section, section) == 0 && strcmp(keys[i].name, name) == 0)
			k = &keys[i];
	if (!k && !section_is_known(section)) {
		list_names(NULL, allowed, sizeof(allowed));
		return fail(r,
			    section[0] ? "unknown section [%s]; there are %s"
				       : "a key before any [section%s]; there are %s",
			    section, allowed);
	}
	if (!k) {
		near = key_nearest(section, name);
		if (near)
			return fail(r, "unknown key '%s' in [%s]; did you mean [%s] %s?", name,
				    section, near->section, near->name);
		list_names(section, allowed, sizeof(allowed));
		return fail(r, "unknown key '%s' in [%s]; it takes %s", name, section, allowed);
	}
	if (r->seen[k - keys])
		return fail(r, "[%s] %s is set a second time (first on line %u)", section, name,
			    r->seen[k - keys]);
	r->seen[k - keys] = r->line;
	if (key_set(k, value, r->c))
		return fail(r, "[%s] %s = %s: must be %s", section, name, value,
			    key_allowed(k, allowed, sizeof(allowed)));
	return 1;
}

/* A section without keys never reaches on_key, so a misspelt one is caught here. */
static void check_section(struct reading *r, const char *line)
{
	const char *p = line + strspn(line, " \t"), *end = strchr(p, ']');
	char name[64], all[256];

	if (*p != '[' || !end || (size_t)(end - p) > sizeof(name))
		return;
	memcpy(name, p + 1, (size_t)(end - p - 1));
	name[end - p - 1] = 0;
	if (section_is_known(name))
		return;
	list_names(NULL, all, sizeof(all));
	fail(r, "unknown section [%s]; there are %s", name, all);
}

static char *next_line(char *buf, int len, void *arg)
{
	struct reading *r = arg;
	size_t n;

	if (!fgets(buf, len, r->f))
		return NULL;
	r->line++;
	n = strlen(buf);
	if (n && buf[n - 1] != '\n' && !feof(r->f)) {
		int c;

		fail(r, "this line is longer than %d bytes", len - 2);
		while ((c = fgetc(r->f)) != EOF && c != '\n')
			;
	}
	check_section(r, buf);
	return buf;
}

int config_load(const char *path, struct config *c, struct err *err)
{
	struct config fresh;
	struct reading r = {.c = &fresh, .path = path, .err = err};
	int rc;

	config_defaults(&fresh);
	r.f = fopen(path, "re");
	if (!r.f)
		return err_set(err, -errno, "%s: %s; name another file with -c FILE", path,
			       strerror(errno));
	/* One object serves as both reader state and handler state. */
	rc = ini_parse_stream(next_line, &r, on_key, &r);
	if (rc >= 0 && ferror(r.f)) {
		fclose(r.f);
		return err_set(err, -EIO, "%s: cannot be read (is it a directory?)", path);
	}
	fclose(r.f);
	if (rc < 0)
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	/* inih saw a malformed line before any error of ours */
	if (rc > 0 && (!r.failed || (unsigned)rc < r.failed))
		return err_set(err, -EINVAL,
			       "%s:%d: not a line of an INI file; write `[section]`, "
			       "`key = value` or `# comment`",
			       path, rc);
	if (r.failed)
		return -EINVAL;
	*c = fresh;
	return 0;
}

/* ---- printing ---- */

static void size_print(uint64_t n, FILE *out)
{
	static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
	int u = 0;

	while (n && n % 1024 == 0 && u < 4) {
		n /= 1024;
		u++;
	}
	fprintf(out, "%llu%s", (unsigned long long)n, units[u]);
}

static void value_print(const struct config_key *k, const struct config *c, FILE *out)
{
	const char *field = (const char *)c + k->at;
	uint64_t n = 0;

	if (k->type >= KEY_COUNT)
		memcpy(&n, field, sizeof(n));
	if (k->type >= KEY_COUNT || field[0])
		fputc(' ', out);
	if (k->type < KEY_COUNT)
		fputs(field, out);
	else if (k->type == KEY_SIZE_OR_AUTO && n == 0)
		fputs("auto", out);
	else if (k->type == KEY_COUNT)
		fprintf(out, "%llu", (unsigned long long)n);
	else if (k->type == KEY_SECONDS)
		fprintf(out, "%.10g", (double)n / 1000);
	else
		size_print(n, out);
}

void config_print(const struct config *c, FILE *out)
{
	const char *section = "";
	char allowed[256];

	for (size_t i = 0; i < KEYS; i++) {
		const struct config_key *k = &keys[i];

		if (strcmp(section, k->section) != 0)
			fprintf(out, "%s[%s]\n", i ? "\n" : "", k->section);
		section = k->section;
		fprintf(out, "# %s\n# Takes %s; default: %s\n%s =", k->help,
			key_allowed(k, allowed, sizeof(allowed)), k->def[0] ? k->def : "empty",
			k->name);
		value_print(k, c, out);
		fputc('\n', out);
	}
}
