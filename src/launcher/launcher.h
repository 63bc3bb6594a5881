/* SPDX-License-Identifier: Apache-2.0 */
/* Launchers: how agents get onto nodes. A launcher is one file that ends in `const struct launcher launcher_NAME`
 * plus its word in src/launcher/meson.build. Two halves: which nodes there are, and how a program is started there.
 * launcher.c is the only caller of the ops. */
#ifndef VSE_LAUNCHER_LAUNCHER_H
#define VSE_LAUNCHER_LAUNCHER_H

#include <stdbool.h>

#include "base/err.h"
#include "base/strvec.h"

struct launch {
	const char *agent; /* path of vse-agent */
	const char *base;  /* run directory */
	const char *name;  /* of the cluster */
	bool verbose;
	int hold_fd; /* inherited by the agent and kept open (a lock on the image); -1 = none */
};

struct launcher {
	const char *name, *summary;
	/* Inside an allocation of this manager. NULL: never chosen by itself. */
	bool (*inside)(void);
	/* The nodes of the allocation, by name. */
	int (*nodes)(struct strvec *ret, struct err *err);
	/* Starts one agent on each node; returns once all answer, or with the reason of the first that does not. */
	int (*launch)(const struct launch *l, struct err *err);
};

const struct launcher *launcher_find(const char *name); /* NULL: none */
const struct launcher *launcher_at(size_t i);           /* NULL past the last */
int launcher_launch(const struct launcher *l, const struct launch *what, struct err *err);

#endif
