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

#define VSE_FORMAT 1               /* the `vse: 1` of the file */
#define VSE_FILE_MAX (1024 * 1024) /* bytes of a VSE file */

enum vse_base {
	VSE_BASE_DISTRO, /* "debian:bookworm", "ubuntu:jammy" */
	VSE_BASE_DIR,    /* a folder that holds a root file system */
	VSE_BASE_TAR,    /* a tar archive of one, compressed or not */
};

enum vse_init { VSE_INIT_VSE, VSE_INIT_SYSTEMD };

struct vse_file {
	char *path; /* absolute path inside the VM, clean: no "..", ".", "//"; not below /proc /sys /dev /run */
	char *source; /* absolute path of a file or folder on this host, or NULL when content is given */
	char *content; /* inline text, or NULL. Exactly one of source and content is set */
	unsigned mode; /* permission bits; default 0644, or the source's (& 0777). Where the source is a folder
			* it is the folder's own mode: what is inside keeps its modes */
	unsigned uid, gid; /* default 0, at most 65534; hold for all that is inside a folder */
};

/* A directory of the node that the VM sees. */
struct vse_mount {
	char *host; /* absolute path on the node; looked up there, when a VM starts */
	char *guest; /* absolute path inside the VM, clean; not one that the system itself needs; none below another's */
	bool rw; /* the VM may write to it */
};

#define VSE_MOUNTS_MAX 8 /* each is a device of the VM */
#define VSE_DEVICES_MAX 8

struct vse_env {
	char *name, *value; /* value: one line of text, may be empty */
};

struct vse {
	char *file;        /* the path it was read from, as given */
	char *name;        /* [a-z][a-z0-9-]{0,31}, no '-' at the end */
	char *description; /* or NULL */
	enum vse_base base;
	char *distro, *suite;     /* VSE_BASE_DISTRO */
	char *base_path;          /* VSE_BASE_DIR, VSE_BASE_TAR: absolute */
	char *arch;               /* "amd64" or "arm64" as Debian names them; default: the host's */
	char *mirror;             /* URL, or NULL: the host's own apt configuration */
	struct strvec components; /* apt components, default main */
	struct strvec packages; /* NAME, NAME:ARCH, NAME=VERSION or NAME:ARCH=VERSION; in file order */
	struct vse_file *files; /* no path twice */
	size_t n_files;
	struct vse_env *env; /* no name twice, none that begins with VSE_ */
	size_t n_env;
	struct strvec build; /* build steps: each a shell text run by /bin/sh -e inside the root as root, in order */
	enum vse_init init;
	/* "auto" (the distribution's cloud kernel; with mounts the general one, which has 9p), a package's name, or an
	 * absolute path of a bzImage/vmlinux */
	char *kernel;
	char *protection; /* "vm" or "container": the least that shall stand between a VM and the node; NULL: not said */
	/* needs: what one VM asks for; `up` and `run` may override them (spec/rules.h checks those) */
	unsigned cpus;   /* default 1 */
	uint64_t memory; /* bytes, default 512 MiB; whole MiB, at least 64 */
	uint64_t scratch; /* bytes of writable scratch disk, 0 = none: changes live in memory; whole MiB */
	struct strvec devices;    /* names of base/pci.h; in file order, at most VSE_DEVICES_MAX */
	struct vse_mount *mounts; /* `up` and `run` may add some */
	size_t n_mounts;
	bool net_outbound; /* NAT to the outside */
	char *net_subnet;  /* "10.199.0.0/16" by default: the virtual network's IPv4 */
	/* The fields that the file itself gives, sorted: "name", "needs.memory", "files[0].mode". */
	struct strvec given;
};

#define _cleanup_vse_ _cleanup_(vse_destroyp)

/* Reads and checks a VSE file. On failure every problem found (at most 100, in file order) is appended to
 * `problems`, one "file:line:column: field: what is wrong; allowed: ..." each (at least one), and -1 is given
 * with err set to the first (EINVAL; or the errno of reading the file). */
int vse_load(const char *path, struct vse **ret, struct strvec *problems, struct err *err);
/* The same from memory. `name` stands for the file in messages, and relative paths are relative to its folder. */
int vse_load_text(const char *name, const char *text, size_t len, struct vse **ret,
		  struct strvec *problems, struct err *err);
void vse_destroy(struct vse *v); /* NULL is fine */
static inline void vse_destroyp(struct vse **v)
{
	vse_destroy(*v);
}
/* Adds a mount of the text HOST:GUEST, HOST:GUEST:ro or HOST:GUEST:rw; a HOST that is not absolute begins in the folder
 * `dir`. EINVAL with what is wrong. */
int vse_add_mount(struct vse *v, const char *text, const char *dir, struct err *err);
bool vse_gives(const struct vse *v, const char *field); /* the file itself gives "needs.memory" */
/* The whole definition with all defaults filled in, as JSON (new reference) or as YAML text (malloc'ed) that
 * loads to the same object. The JSON has the fields of the YAML form in the order of the table; sizes are bytes,
 * modes are octal text ("0644"), and a field without a value (description, mirror) is left out. */
json_t *vse_to_json(const struct vse *v);
char *vse_to_yaml(const struct vse *v);
/* The same with only those fields that the file gives. */
json_t *vse_given_json(const struct vse *v);
char *vse_given_yaml(const struct vse *v);

#endif
