/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/launcher.h"

#include <errno.h>
#include <string.h>

#define LAUNCHER(x) extern const struct launcher launcher_##x;
#include "launcher/launchers.def"
#undef LAUNCHER

static const struct launcher *const table[] = {
#define LAUNCHER(x) &launcher_##x,
#include "launcher/launchers.def"
#undef LAUNCHER
};

const struct launcher *launcher_at(size_t i)
{
	return i < ARRAY_SIZE(table) ? table[i] : NULL;
}

const struct launcher *launcher_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (strcmp(table[i]->name, name) == 0)
			return table[i];
	return NULL;
}

int launcher_launch(const struct launcher *l, const struct launch *what, struct err *err)
{
	if (!l->launch)
		return err_set(err, ENOTSUP, "launcher %s cannot start agents", l->name);
	return l->launch(what, err) < 0 ? err_prefix(err, "launcher %s: ", l->name) : 0;
}
