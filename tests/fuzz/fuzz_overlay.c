/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between agents. A message that is read, written again, gives the same bytes; and an agent that is sent
 * anything, as a node by its parent or as a root by a child, keeps to its bounds. The first byte says what is tried. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "overlay/overlay.h"
#include "overlay/proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const uint8_t *data, size_t size)
{
	static uint8_t again[OVERLAY_MESSAGE_MAX];
	struct proto m;
	if (!proto_read(&m, data, size))
		return;
	if (m.type == PROTO_HELLO && m.version != PROTO_VERSION)
		return; /* the rest of another version's hello is not looked at */
	size_t len = proto_write(&m, again);
	if (len != size || memcmp(again, data, len) != 0)
		abort();
}

static void drain(struct overlay *o, uint32_t *ret_link)
{
	struct overlay_action a;
	struct proto m;
	while (overlay_next(o, &a)) {
		if (a.type == OVERLAY_SEND && !proto_read(&m, a.data, a.len))
			abort(); /* what it says is always well formed */
		if (a.type == OVERLAY_CONNECT)
			*ret_link = a.link;
	}
}

/* The input after the first byte: messages of a length (u8, or u16 after 255) and so many bytes. */
static void talk(bool root, const uint8_t *p, size_t size)
{
	struct overlay_config c = {
		.index = root ? 0 : 5, .fanout = 2, .n_nodes = 20, .incarnation = 1, .epoch = root};
	struct overlay *o = overlay_create(&c, 1000, NULL);
	uint32_t link = 0;
	uint64_t now = 1000;
	if (!root)
		overlay_hint(o, now, 0, "h:1");
	overlay_start(o, now);
	drain(o, &link);
	if (root)
		link = overlay_accepted(o, now, "10.0.0.1");
	else
		overlay_connected(o, now, link);
	drain(o, &link);
	while (size) {
		size_t len = *p++;
		size--;
		if (len == 255 && size >= 2) {
			len = (size_t)p[0] << 8 | p[1];
			p += 2;
			size -= 2;
		}
		if (len > size)
			len = size;
		overlay_message(o, now += 100, link, p, len);
		drain(o, &link);
		overlay_tick(o, now);
		drain(o, &link);
		p += len;
		size -= len;
	}
	if (overlay_memory(o) > 40u << 20)
		abort();
	overlay_destroy(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (data[0] % 3 == 0)
		round_trip(data + 1, size - 1);
	else
		talk(data[0] % 3 == 1, data + 1, size - 1);
	return 0;
}
