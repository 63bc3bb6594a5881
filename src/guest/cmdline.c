/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "guest/guest.h"

char *cmdline_get(const char *name)
{
	_cleanup_free_ char *text = NULL;
	size_t n = strlen(name);
	if (path_read("/proc/cmdline", 65536, &text, NULL, NULL) < 0)
		return NULL;
	for (char *rest = text, *word; (word = strsep(&rest, " \t\n"));)
		if (strncmp(word, name, n) == 0 && word[n] == '=')
			return xstrdup(word + n + 1);
	return NULL;
}
