/* SPDX-License-Identifier: Apache-2.0 */
/* Between a user's tar archive and the tar program that unpacks it as root of a namespace. Every
 * member is looked at before tar sees it (POSIX.1-2008 pax, "ustar Interchange Format"; GNU tar,
 * "Basic Tar Format").
 *
 * Refused, with one line naming the member: names or hard links that are absolute or have a ".."
 * part, bad checksums and sizes, a truncated archive. Left out: what lies below dev/ (the guest has
 * devtmpfs), and device nodes anywhere else (an ordinary user cannot make them, and the image must
 * not depend on who builds it); the latter are told by note. */
#ifndef VSE_IMAGE_TARFILTER_H
#define VSE_IMAGE_TARFILTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct tar_filter {
	/* Archives we make ourselves from a user's folder: this owner becomes root. */
	bool map_owner;
	uint32_t uid, gid;
	void (*note)(void *arg, const char *text); /* may be NULL */
	void *arg;
	uint64_t members; /* out: passed on */
};

/* Copies the archive from in to out. EPIPE: the reader of out has gone. */
int tar_filter(int in, int out, struct tar_filter *f, struct err *err);

/* NULL: not an archive we know. "" plain, else the program that unpacks it to stdout with -dc.
 * data: the first bytes of the file, at least 512 unless it is shorter. */
const char *tar_compressor(const unsigned char *data, size_t n);

/* 0 = fine; else the reason in words. */
const char *tar_name_problem(const char *name);

#endif
