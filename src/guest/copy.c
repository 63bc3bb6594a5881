/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/alloc.h"
#include "guest/request.h"
#include "wire/archive.h"
#include "wire/guestproto.h"
#include "wire/kv.h"

#define BLOCKS_A_ROUND 8 /* so that one copy does not keep others waiting */

void copy_put(struct guest *g, uint32_t id, const char *data, size_t len)
{
	_cleanup_free_ char *path = kv_dup(data, len, "path"), *name = NULL;
	_cleanup_close_ int fd = -1;
	struct archive_reader *reader;
	struct err err = ERR_INIT;
	struct request *r;
	if (!path || !*path) {
		err_set(&err, EINVAL, "put: no path");
	} else if (archive_target(path, kv_num(data, len, "into", 0), &fd, &name, &err) == 0 &&
		   archive_reader_create(fd, name, &reader, &err) == 0) {
		if ((r = request_new(g, id, REQUEST_PUT, &err))) {
			r->copy.reader = reader;
			return;
		}
		archive_reader_destroy(reader);
	}
	agent_send_error(g, id, &err);
}

void copy_get(struct guest *g, uint32_t id, const char *data, size_t len)
{
	_cleanup_free_ char *path = kv_dup(data, len, "path");
	struct archive_writer *writer;
	struct err err = ERR_INIT;
	struct request *r;
	if (!path || !*path) {
		err_set(&err, EINVAL, "get: no path");
	} else if (archive_writer_create(&path, 1, &writer, &err) == 0) {
		if ((r = request_new(g, id, REQUEST_GET, &err))) {
			r->copy.writer = writer;
			r->credit[1] = kv_num(data, len, "window", GUESTPROTO_STDIN_WINDOW);
			return;
		}
		archive_writer_destroy(writer);
	}
	agent_send_error(g, id, &err);
}

static void send_done(struct guest *g, struct request *r, struct archive_count count)
{
	_cleanup_buf_ struct buf more = BUF_INIT;
	kv_addu(&more, "files", count.files);
	kv_addu(&more, "bytes", count.bytes);
	if (count.skipped)
		kv_addu(&more, "skipped", count.skipped);
	agent_send(g, r->id, "done", &more);
	r->over = true;
}

void copy_data(struct guest *g, struct request *r, const struct frame *f)
{
	struct err err = ERR_INIT;
	if (r->kind != REQUEST_PUT)
		return;
	if (archive_reader_feed(r->copy.reader, f->payload, f->len, &err) < 0) {
		request_fail(g, r, &err);
		return;
	}
	request_taken(g, r, f->len);
	if (!(f->flags & FRAME_EOF))
		return;
	if (archive_reader_finish(r->copy.reader, &err) < 0)
		request_fail(g, r, &err);
	else
		send_done(g, r, archive_reader_count(r->copy.reader));
}

static bool can_send(const struct guest *g, const struct request *r)
{
	return r->kind == REQUEST_GET && r->credit[1] && buf_len(&g->out) < GUEST_OUT_HIGH;
}

void copy_watch(struct guest *g, struct request *r, struct watches *w)
{
	if (can_send(g, r))
		watch_until(w, 0);
}

static void send_block(struct guest *g, struct request *r)
{
	char block[GUEST_BLOCK];
	struct err err = ERR_INIT;
	size_t max = MIN((uint64_t)sizeof(block), r->credit[1]);
	ssize_t n = archive_writer_read(r->copy.writer, block, max, &err);
	if (n < 0) {
		request_fail(g, r, &err);
		return;
	}
	frame_write_data(&g->out, r->id, 0, 1, block, (size_t)n, n == 0);
	r->credit[1] -= (uint64_t)n;
	if (n == 0)
		send_done(g, r, archive_writer_count(r->copy.writer));
}

void copy_tick(struct guest *g, struct request *r)
{
	for (int i = 0; i < BLOCKS_A_ROUND && !r->over && can_send(g, r); i++)
		send_block(g, r);
}

void copy_cancel(struct guest *g, struct request *r)
{
	struct err err = ERR_INIT;
	err_set(&err, ECANCELED, "cancelled");
	request_fail(g, r, &err);
}

void copy_finish(struct request *r)
{
	archive_reader_destroy(r->copy.reader);
	archive_writer_destroy(r->copy.writer);
}
