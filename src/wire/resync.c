/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/resync.h"

#include <string.h>

#include "wire/frame.h"
#include "wire/kv.h"

/* How a frame with "hello" begins, after its length: header and first pair are the same in every one. */
static void write_mark(struct buf *mark)
{
	_cleanup_buf_ struct buf kv = BUF_INIT;
	kv_adds(&kv, "verb", "hello");
	frame_write(mark, &(struct frame){.type = FRAME_MESSAGE,
					  .len = (uint32_t)buf_len(&kv),
					  .payload = buf_head(&kv)});
	buf_consume(mark, sizeof(uint32_t));
}

bool resync_find(struct buf *in)
{
	_cleanup_buf_ struct buf mark = BUF_INIT;
	write_mark(&mark);
	size_t n = buf_len(in), keep = sizeof(uint32_t) + buf_len(&mark) - 1;
	const char *at = n > keep ? memmem(buf_head(in) + sizeof(uint32_t), n - sizeof(uint32_t),
					   buf_head(&mark), buf_len(&mark))
				  : NULL;
	if (at)
		buf_consume(in, (size_t)(at - buf_head(in)) - sizeof(uint32_t));
	else if (n > keep)
		buf_consume(in, n - keep);
	return at != NULL;
}

void resync_knock(struct buf *out)
{
	size_t n = FRAME_MAX_GUEST + FRAME_HEADER;
	buf_reserve(out, n);
	memset(out->data + out->end, 0, n);
	out->end += n;
}
