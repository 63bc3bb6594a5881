/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: whatever comes is refused or is a frame that, written again, gives the same bytes. */
#include <stdint.h>
#include <string.h>

#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void folded(const struct frame *f)
{
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	const char *p;
	size_t n;
	if (frame_folded(f, &ranks, &p, &n, NULL) == 0 &&
	    (p < f->payload || p + n != f->payload + f->len))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf in = BUF_INIT, out = BUF_INIT;
	struct frame f;
	struct err err = ERR_INIT;
	int code;
	buf_add(&in, data, size);
	size_t used = 0;
	while ((code = frame_read(&in, FRAME_MAX_MESSAGE, &f, &err)) > 0) {
		if (f.len > FRAME_MAX_MESSAGE || f.fd > 2)
			abort();
		if (f.type == FRAME_CREDIT)
			frame_credit(&f);
		if (f.type == FRAME_FOLDED)
			folded(&f);
		buf_clear(&out);
		frame_write(&out, &f);
		if (buf_len(&out) != FRAME_HEADER + f.len ||
		    memcmp(buf_head(&out), data + used, buf_len(&out)) != 0)
			abort();
		used += buf_len(&out);
		frame_drop(&in, &f);
	}
	if (code < 0 && !err.code)
		abort();
	return 0;
}
