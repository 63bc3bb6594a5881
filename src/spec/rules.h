/* SPDX-License-Identifier: Apache-2.0 */
/* What each value of a VSE may be. Every rule gives 0, or -1 with an err (EINVAL) that says what is wrong with
 * the text; what is allowed instead is in the field table (spec/schema.c). The text is any NUL-terminated UTF-8. */
#ifndef VSE_SPEC_RULES_H
#define VSE_SPEC_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define RULE_SHOWN 64
#define RULE_CPUS_MAX 1024u
#define RULE_MEMORY_MIN (UINT64_C(64) << 20)
#define RULE_MEMORY_MAX (UINT64_C(64) << 40)
#define RULE_SCRATCH_MIN (UINT64_C(16) << 20)

/* The text as it may stand in a message: one printable line, cut with "..." at a character's end (a path
 * at its beginning). Gives out. */
const char *rule_shown(const char *text, char out[RULE_SHOWN]);

int rule_name(const char *s, struct err *err); /* of a VSE */
int rule_description(const char *s, struct err *err);
int rule_suite(const char *s, struct err *err); /* of a distribution */
int rule_mirror(const char *s, struct err *err);
int rule_component(const char *s, struct err *err);
int rule_package(const char *s, struct err *err);     /* NAME[:ARCH][=VERSION] */
int rule_guest_path(const char *s, struct err *err);  /* where a file may go in the image */
int rule_mount_guest(const char *s, struct err *err); /* where a host directory may be seen */
int rule_mount_host(const char *s, struct err *err);  /* an absolute path */
int rule_mount_mode(const char *s, bool *ret_rw, struct err *err);
/* One of the two is the other, or below it. */
bool rule_paths_meet(const char *a, const char *b);
int rule_device(const char *s, struct err *err);       /* a kind of PCI devices */
int rule_device_place(const char *s, struct err *err); /* or the place of one */
int rule_env_name(const char *s, struct err *err);
int rule_env_value(const char *s, struct err *err);
int rule_build_step(const char *s, struct err *err);
int rule_subnet(const char *s, struct err *err); /* IPv4, "10.199.0.0/16" */
int rule_bool(const char *s, bool *ret, struct err *err);
int rule_mode(const char *s, unsigned *ret, struct err *err); /* octal: 644, 0644, 0o644 */
int rule_owner(const char *s, unsigned *ret_uid, unsigned *ret_gid, struct err *err);
int rule_cpus(const char *s, unsigned *ret, struct err *err);
/* Bytes, rounded up to whole MiB. */
int rule_memory(const char *s, uint64_t *ret, struct err *err);
int rule_scratch(const char *s, uint64_t *ret, struct err *err); /* 0: none */

#endif
