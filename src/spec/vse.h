/* SPDX-License-Identifier: Apache-2.0 */
/* The VSE: what a user wants to run, as one checked object. The YAML form is described in
 * docs/vse-file.md and vse.yaml(5); spec/schema.c is the one table of its fields. */
#ifndef VSE_SPEC_VSE_H
#define VSE_SPEC_VSE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strvec.h"

enum vse_base {
	VSE_BASE_DISTRO, /* "debian:bookworm", "ubuntu:jammy" */
	VSE_BASE_DIR,    /* a folder that holds a root file system */
	VSE_BASE_TAR,    /* a tar archive of one, compressed or not */
};

enum vse_init { VSE_INIT_VSE, VSE_INIT_SYSTEMD };

struct vse_file {
	char *path;    /* absolute path inside the VM, no ".." */
	char *source;  /* absolute path on this host, or NULL when content is given */
	char *content; /* inline text, or NULL */
	unsigned mode; /* permission bits; default 0644, or the source's */
	unsigned uid, gid; /* default 0 */
};

struct vse_env {
	char *name, *value;
};

struct vse {
	char *file;        /* the path it was read from, as given */
	char *name;        /* [a-z][a-z0-9-]{0,31}, not all digits */
	char *description; /* or NULL */
	enum vse_base base;
	char *distro, *suite; /* VSE_BASE_DISTRO */
	char *base_path;      /* VSE_BASE_DIR, VSE_BASE_TAR: absolute */
	char *arch;           /* "amd64" or "arm64" as Debian names them; default: the host's */
	char *mirror;         /* URL, or NULL: the host's own apt configuration */
	struct strvec components; /* apt components, default main */
	struct strvec packages;   /* in file order */
	struct vse_file *files;
	size_t n_files;
	struct vse_env *env;
	size_t n_env;
	struct strvec build; /* build steps: each a shell text run by /bin/sh -e inside the root as root, in order */
	enum vse_init init;
	char *kernel;        /* "auto" (the distribution's cloud kernel), a package name, or an absolute path of a bzImage/vmlinux */
	/* needs: what one VM asks for; `up` and `run` may override them */
	unsigned cpus;           /* default 1 */
	uint64_t memory;         /* bytes, default 512 MiB */
	uint64_t scratch;        /* bytes of writable scratch disk, 0 = none: changes live in memory */
	bool net_outbound;       /* NAT to the outside */
	char *net_subnet;        /* "10.199.0.0/16" by default: the virtual network's IPv4 */
};

/* Reads and checks a VSE file. On failure every problem found is appended to `problems`, one
 * "file:line:column: field: what is wrong, what is allowed" each (at least one), and -1 is given with err
 * set to the first (EINVAL; or the errno of reading the file). */
int vse_load(const char *path, struct vse **ret, struct strvec *problems, struct err *err);
void vse_destroy(struct vse *v); /* NULL is fine */
/* The whole definition with all defaults filled in, as JSON (new reference) or as YAML text (malloc'ed). */
json_t *vse_to_json(const struct vse *v);
char *vse_to_yaml(const struct vse *v);

#endif
