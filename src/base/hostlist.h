/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of host names as Slurm writes them and people give them: "n[1-8],login[01-03],r[1-2]n[1,5-9]".
 * Items are parted by commas or white space; several brackets of an item multiply, the last runs fastest; a number has
 * the width of the low end of its range ("[09-011]" is 09 10 11); text may follow a bracket. The order stays, and a
 * name that is given twice is there twice. Checked against `scontrol show hostnames` of Slurm 22.05. */
#ifndef VSE_BASE_HOSTLIST_H
#define VSE_BASE_HOSTLIST_H

#include "base/err.h"
#include "base/strvec.h"

#define HOSTLIST_MAX 131072u         /* names of one list */
#define HOSTLIST_TEXT_MAX (1u << 20) /* bytes */
#define HOST_NAME_LENGTH_MAX 255u

/* A name that may stand in an argv: letters, digits and . _ - : @ % + only, not empty, not beginning with a hyphen.
 * EINVAL. */
int host_name_check(const char *name, struct err *err);
/* Appends the names. EINVAL: malformed, or a name that host_name_check() refuses; E2BIG: past a bound above. Nothing is
 * appended on error. */
int hostlist_expand(const char *text, struct strvec *ret, struct err *err);
/* The short form, malloc'ed: neighbours with rising numbers are folded, the order stays. hostlist_expand() of it
 * gives the names again. */
char *hostlist_fold(char *const *names, size_t n);

#endif
