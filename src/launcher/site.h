/* SPDX-License-Identifier: Apache-2.0 */
/* Launchers that a site or a user describes: NAME.conf in /etc/vse/launchers.d or $XDG_CONFIG_HOME/vse/launchers.d
 * (~/.config). Lines "key = value", # begins a comment; docs/launchers.md tells the keys. */
#ifndef VSE_LAUNCHER_SITE_H
#define VSE_LAUNCHER_SITE_H

#include "launcher/launcher.h"

#define SITE_FILE_MAX (64u << 10)

struct site_launcher {
	char *summary;
	char *inside_env;    /* set within an allocation; NULL: never chosen by itself */
	char *job_env;       /* holds the job's id; may be NULL */
	char *nodes_env;     /* one of the three, or none: holds a host list, */
	char *nodes_file;    /* path, or $VARIABLE that holds one, of a file as PBS_NODEFILE, */
	struct strvec nodes; /* or a command that prints a host list */
	struct strvec launch;
	bool per_node;
	enum { SITE_STDIN_NONE, SITE_STDIN_FIRST, SITE_STDIN_ALL } input;
};

/* Reads one description. EINVAL says which line and what. */
int site_parse(const char *text, struct site_launcher **ret, struct err *err);
void site_destroy(struct site_launcher *s); /* NULL is fine */

/* Those of the folders, read at the first call and kept; one that is malformed is there too, its probe says why. */
const struct launcher *site_launcher_at(size_t i); /* NULL past the last */
void site_forget(void);                            /* reads anew at the next call; for tests */

#endif
