/* SPDX-License-Identifier: Apache-2.0 */
/* What a saved VM of the back end `fake` is: a line with its guest's age and boot id, then bytes that stand for its
 * memory, so that the stream does not fit into a socket and can be cut anywhere, then a last line. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "hypervisor/fake.h"

#define HEAD "fake state 1 "
#define TAIL "end of state\n"

static void write_fill(struct buf *out, uint64_t n)
{
	buf_reserve(out, n);
	for (uint64_t i = 0; i < n; i++)
		out->data[out->end + i] = (char)('a' + i % 23);
	out->end += n;
}

/* ---- out ---- */

static void finish_out(struct fake_out *o, const struct err *err)
{
	stream_destroy(TAKE_PTR(o->stream));
	o->on_end(o->arg, err);
}

static void on_out_data(void *arg _unused_, struct buf *in)
{
	buf_clear(in);
}

static void on_out_close(void *arg, const struct err *err _unused_)
{
	struct err e = ERR_INIT;
	err_set(&e, EPIPE, "the reader of the state went away");
	finish_out(arg, &e);
}

static void on_out_drain(void *arg)
{
	finish_out(arg, NULL);
}

int fake_out_begin(struct fake_out *o, struct loop *l, uint64_t fill, uint64_t age_ms,
		   const char *boot, int *ret_fd, struct err *err)
{
	static const struct stream_ops ops = {.on_data = on_out_data,
					      .on_close = on_out_close,
					      .on_drain = on_out_drain};
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(err, errno, "socketpair");
	o->stream = stream_create(l, pair[0], &ops, o, err);
	if (!o->stream) {
		close(pair[1]);
		return -1;
	}
	struct buf *out = stream_out(o->stream);
	buf_addf(out, HEAD "%" PRIu64 " %s\n", age_ms, boot);
	write_fill(out, fill);
	buf_adds(out, TAIL);
	o->bytes = buf_len(out);
	stream_flush(o->stream);
	*ret_fd = pair[1];
	return 0;
}

void fake_out_finish(struct fake_out *o)
{
	stream_destroy(TAKE_PTR(o->stream));
}

/* ---- in ---- */

static int read_all(const char *text, size_t len, uint64_t n, uint64_t *ret_age, char boot[20])
{
	_cleanup_buf_ struct buf fill = BUF_INIT;
	const char *nl = memchr(text, '\n', len);
	if (!nl || sscanf(text, HEAD "%" SCNu64 " %19[0-9a-f]", ret_age, boot) != 2)
		return -1;
	size_t head = (size_t)(nl + 1 - text), tail = strlen(TAIL);
	write_fill(&fill, n);
	return len == head + n + tail && memcmp(nl + 1, buf_head(&fill), n) == 0 &&
			       memcmp(text + head + n, TAIL, tail) == 0
		       ? 0
		       : -1;
}

static void on_in_data(void *arg, struct buf *in)
{
	struct fake_in *i = arg;
	if (buf_len(&i->text) + buf_len(in) <= 2 * i->fill + 256)
		buf_add(&i->text, buf_head(in), buf_len(in));
	buf_clear(in);
}

static void on_in_close(void *arg, const struct err *err _unused_)
{
	struct fake_in *i = arg;
	uint64_t age = 0;
	char boot[20] = "";
	stream_destroy(TAKE_PTR(i->stream));
	bool whole = read_all(buf_cstr(&i->text), buf_len(&i->text), i->fill, &age, boot) == 0;
	buf_finish(&i->text);
	i->on_end(i->arg, whole, age, boot);
}

int fake_in_begin(struct fake_in *i, struct loop *l, int fd, struct err *err)
{
	static const struct stream_ops ops = {.on_data = on_in_data, .on_close = on_in_close};
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (own < 0)
		return err_errno(err, errno, "the descriptor of the saved state");
	i->stream = stream_create(l, own, &ops, i, err);
	return i->stream ? 0 : -1;
}

void fake_in_finish(struct fake_in *i)
{
	stream_destroy(TAKE_PTR(i->stream));
	buf_finish(&i->text);
}
