/* SPDX-License-Identifier: Apache-2.0 */
/* Key-value records: a record that is accepted, written again, gives the same bytes. */
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "wire/kv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *d = (const char *)data;
	struct kv_iter it = {.data = d, .len = size};
	_cleanup_buf_ struct buf again = BUF_INIT;
	struct kv e;
	bool ok = kv_check(d, size);
	while (kv_next(&it, &e)) {
		_cleanup_free_ char *key = xmemdup0(e.key, e.key_len);
		kv_add(&again, key, e.value, e.value_len);
		free(kv_dup(d, size, key));
		if (kv_num(d, size, key, 0) > INT64_MAX)
			abort();
	}
	if (ok && (it.bad || buf_len(&again) != size || memcmp(buf_head(&again), data, size) != 0))
		abort();
	return 0;
}
