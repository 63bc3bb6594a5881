/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of hosts: what is accepted, folded and read again, gives the same names. */
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hostlist.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = xmemdup0(data, size), *fold = NULL;
	_cleanup_strvec_ struct strvec names = STRVEC_INIT, again = STRVEC_INIT;
	struct err err;
	if (hostlist_expand(text, &names, &err) < 0) {
		if (names.n)
			abort();
		return 0;
	}
	fold = hostlist_fold(names.v, names.n);
	if (strlen(fold) > HOSTLIST_TEXT_MAX)
		return 0;
	if (hostlist_expand(fold, &again, &err) < 0 || again.n != names.n)
		abort();
	for (size_t i = 0; i < names.n; i++)
		if (strcmp(names.v[i], again.v[i]) != 0 || host_name_check(names.v[i], NULL) < 0)
			abort();
	return 0;
}
