/* SPDX-License-Identifier: Apache-2.0 */
/* cairnd's INI file: one table of keys, each with section, name, type, range, default and a line of
 * help; `cairnd --check-config`, docs and errors are made from the same table. */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

#define CONFIG_PATH_MAX 1024

struct config {
	/* [daemon] */
	char control_socket[CONFIG_PATH_MAX]; /* /run/cairn/control.sock */
	char control_group[64];		      /* may ask on it; need not be there */
	char user[64];			      /* cairn: of the worker, when started as root */
	char seccomp[8];		      /* on | off */
	char core_dumps[8];		      /* off | on */
	char runtime_dir[CONFIG_PATH_MAX];    /* /run/cairn: nbdfuse mount points, pid files */
	char metrics_listen[128];	      /* "" = off, or ADDRESS:PORT */
	char log_level[16];		      /* info */
	char event_loop[16];		      /* auto | io_uring | epoll */
	/* [nbd] */
	char nbd_socket[CONFIG_PATH_MAX]; /* /run/cairn/nbd.sock */
	uint64_t nbd_threads;		  /* 0 = one a CPU, at most 8 */
	uint64_t nbd_max_connections;	  /* 1024 */
	uint64_t nbd_miss_memory;	  /* 48MiB */
	/* [store] */
	char store_path[CONFIG_PATH_MAX]; /* /var/lib/cairn */
	uint64_t store_size;		  /* 0 = auto: 80 % of the file system */
	char page_cache[8];		  /* auto | keep: see store/pages.h */
	/* [fill] */
	uint64_t fill_threads;	   /* 2 */
	uint64_t fill_memory;	   /* 80MiB: buffers of fills in flight */
	uint64_t fill_deadline_ms; /* key `deadline`, seconds, 90 */
	char on_deadline[8];	   /* eio | wait */
	uint64_t readahead;	   /* 64MiB: most that is fetched ahead of readers, 0 = off */
	/* [origin] */
	uint64_t origin_connections; /* 32 over all fill threads */
	char api_version[32];	     /* 2021-12-02 */
	char ca_file[CONFIG_PATH_MAX];
	/* [azure] secrets come from files or the environment, never from this file itself */
	char azure_account[128];
	char azure_key_file[CONFIG_PATH_MAX];
	char azure_sas_token_file[CONFIG_PATH_MAX];
	char azure_connection_string_file[CONFIG_PATH_MAX];
	char azure_identity[16];   /* auto | off | environment | workload | managed */
	char azure_client_id[256]; /* of the identity */
	/* [image] */
	uint64_t manifest_max_age_ms; /* key `manifest_max_age`, seconds, 3600: how long a manifest
				       * that is in the store is used without asking the origin
				       * again */
	/* [observe] */
	char observe[16]; /* key `enable`, auto | off */
};

void config_defaults(struct config *c);

/* Defaults, then the file. Errors name file, line, key, and what is allowed. */
int config_load(const char *path, struct config *c, struct err *err);

/* Every key with its value, default and help, as a valid INI file. */
void config_print(const struct config *c, FILE *out);

/* "ADDRESS:PORT", "[IPV6]:PORT" or ":PORT" (every address) in two; 0 or -EINVAL. */
int config_split_address(const char *s, char *host, size_t host_len, char *port, size_t port_len);

#endif
