/* SPDX-License-Identifier: Apache-2.0 */
/* What a saved VM of the back end `fake` is: a line with its guest's age and boot id, then bytes that stand for its
 * memory, so that the stream does not fit into a socket and can be cut anywhere, then a last line. By post-copy there is another
 * line in the middle of them, and who has read all says so with a byte. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "hypervisor/fake.h"

#define HEAD "fake state 1 "
#define TAIL "end of state\n"
#define SWITCH "switch\n"

static void write_fill(struct buf *out, uint64_t from, uint64_t to)
{
	buf_reserve(out, to - from);
	for (uint64_t i = from; i < to; i++)
		out->data[out->end++] = (char)('a' + i % 23);
}

/* ---- out ---- */

static void finish_out(struct fake_out *o, const struct err *err)
{
	stream_destroy(TAKE_PTR(o->stream));
	o->on_end(o->arg, err);
}

static void on_out_data(void *arg, struct buf *in)
{
	struct fake_out *o = arg;
	buf_clear(in);
	if (o->switched)
		finish_out(o, NULL);
}

static void on_out_close(void *arg, const struct err *err _unused_)
{
	struct err e = ERR_INIT;
	err_set(&e, EPIPE, "the reader of the state went away");
	finish_out(arg, &e);
}

static void on_out_drain(void *arg)
{
	struct fake_out *o = arg;
	if (!o->post_copy)
		finish_out(o, NULL);
	else if (!o->switched && o->on_switch)
		o->on_switch(o->arg);
}

void fake_out_switch(struct fake_out *o)
{
	struct buf *out = stream_out(o->stream);
	o->switched = true;
	buf_adds(out, SWITCH);
	write_fill(out, o->fill / 2, o->fill);
	buf_adds(out, TAIL);
	o->bytes += buf_len(out);
	stream_flush(o->stream);
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
	o->fill = fill;
	write_fill(out, 0, o->post_copy ? fill / 2 : fill);
	if (!o->post_copy)
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

/* Bytes that make n of memory, up to the switch or (rest) after it. */
static void write_expected(const struct fake_in *i, bool rest, struct buf *b)
{
	uint64_t half = i->post_copy ? i->fill / 2 : 0;
	if (!rest && i->post_copy) {
		write_fill(b, 0, half);
		buf_adds(b, SWITCH);
		return;
	}
	write_fill(b, half, i->fill);
	buf_adds(b, TAIL);
}

/* 1: it begins with what is expected, which is then dropped; 0: it is not long enough yet; -1: it does not. */
static int take_expected(struct fake_in *i, size_t head, bool rest)
{
	_cleanup_buf_ struct buf want = BUF_INIT;
	size_t had = buf_len(&i->text) - head;
	if (had < (i->post_copy ? i->fill / 2 : i->fill))
		return 0;
	write_expected(i, rest, &want);
	if (had < buf_len(&want))
		return 0;
	if (memcmp(buf_head(&i->text) + head, buf_head(&want), buf_len(&want)) != 0)
		return -1;
	buf_consume(&i->text, head + buf_len(&want));
	return 1;
}

/* As take_expected(): the line, and what follows it. */
static int take_first(struct fake_in *i, uint64_t *ret_age, char boot[20])
{
	const char *text = buf_cstr(&i->text), *nl = memchr(text, '\n', buf_len(&i->text));
	if (!nl || sscanf(text, HEAD "%" SCNu64 " %19[0-9a-f]", ret_age, boot) != 2)
		return nl ? -1 : 0;
	return take_expected(i, (size_t)(nl + 1 - text), false);
}

static void look_for_switch(struct fake_in *i)
{
	uint64_t age = 0;
	char boot[20] = "";
	if (i->came || take_first(i, &age, boot) <= 0)
		return;
	i->came = true;
	i->on_end(i->arg, true, age, boot); /* as a rule it is not the end of the VM */
}

static void on_in_data(void *arg, struct buf *in)
{
	struct fake_in *i = arg;
	if (buf_len(&i->text) + buf_len(in) <= 2 * i->fill + 256)
		buf_add(&i->text, buf_head(in), buf_len(in));
	buf_clear(in);
	if (!i->post_copy)
		return;
	look_for_switch(i);
	if (!i->stream || !i->came || take_expected(i, 0, true) <= 0 || buf_len(&i->text))
		return;
	stream_write(i->stream, "!", 1);
	i->post_copy = false;
	i->on_rest(i->arg, true);
}

static void on_in_close(void *arg, const struct err *err _unused_)
{
	struct fake_in *i = arg;
	uint64_t age = 0;
	char boot[20] = "";
	stream_destroy(TAKE_PTR(i->stream));
	bool whole = !i->came && !i->post_copy && take_first(i, &age, boot) > 0 && !buf_len(&i->text);
	buf_finish(&i->text);
	if (!i->came)
		i->on_end(i->arg, whole, age, boot);
	else if (i->post_copy)
		i->on_rest(i->arg, false);
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
