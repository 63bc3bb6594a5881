/* SPDX-License-Identifier: Apache-2.0 */
#include "overlay/proto.h"

#include <assert.h>
#include <string.h>

#include "overlay/members.h"

struct reader {
	const uint8_t *p, *end;
	bool bad;
};

static uint64_t get(struct reader *r, unsigned bytes)
{
	uint64_t v = 0;
	if ((size_t)(r->end - r->p) < bytes) {
		r->bad = true;
		r->p = r->end;
		return 0;
	}
	while (bytes--)
		v = v << 8 | *r->p++;
	return v;
}

static uint64_t get_in(struct reader *r, unsigned bytes, uint64_t min, uint64_t max)
{
	uint64_t v = get(r, bytes);
	if (v < min || v > max)
		r->bad = true;
	return v;
}

static const uint8_t *get_bytes(struct reader *r, size_t n)
{
	const uint8_t *p = r->p;
	if ((size_t)(r->end - r->p) < n) {
		r->bad = true;
		r->p = r->end;
		return p;
	}
	r->p += n;
	return p;
}

static uint32_t get_index(struct reader *r)
{
	return (uint32_t)get_in(r, 4, 0, OVERLAY_NODES_MAX - 1);
}

static void get_address(struct reader *r, struct proto_text *ret, bool may_be_empty)
{
	ret->len = (size_t)get(r, 1);
	ret->s = (const char *)get_bytes(r, ret->len);
	if (!r->bad && !(ret->len ? proto_address_ok(ret->s, ret->len) : may_be_empty))
		r->bad = true;
}

static void get_resources(struct reader *r, struct proto_text *ret)
{
	ret->len = (size_t)get_in(r, 2, 0, OVERLAY_RESOURCES_MAX);
	ret->s = (const char *)get_bytes(r, r->bad ? 0 : ret->len);
}

static void get_items(struct reader *r, struct proto *m, unsigned max, unsigned size)
{
	m->n = (uint16_t)get_in(r, 2, 1, max);
	m->items = get_bytes(r, r->bad ? 0 : (size_t)m->n * size);
}

static void get_ancestors(struct reader *r, struct proto *m)
{
	m->n_ancestors = (uint8_t)get_in(r, 1, 1, TREE_DEPTH_MAX + 1);
	for (unsigned i = 0; !r->bad && i < m->n_ancestors; i++)
		get_address(r, &m->ancestors[i], true);
}

static void get_who(struct reader *r, struct proto *m)
{
	if (get(r, 4) != PROTO_MAGIC)
		r->bad = true;
	m->version = (uint16_t)get(r, 2);
	if (m->version != PROTO_VERSION) { /* what follows may look otherwise */
		r->p = r->end;
		return;
	}
	memcpy(m->cluster, get_bytes(r, r->bad ? 0 : 16), r->bad ? 0 : 16);
	m->node = get_index(r);
	m->incarnation = (uint32_t)get(r, 4);
	m->seq = (uint32_t)get(r, 4);
	m->epoch = get(r, 8);
}

static void check_runs(struct reader *r, const struct proto *m)
{
	uint64_t all = 0;
	for (uint16_t i = 0; !r->bad && i < m->n; i++) {
		struct proto_run run;
		proto_run(m, i, &run);
		all += run.count;
		r->bad = all > OVERLAY_NODES_MAX || run.node >= OVERLAY_NODES_MAX || !run.count ||
			 run.count > OVERLAY_NODES_MAX - run.node || !run.incarnation ||
			 run.state < MEMBER_ATTACHED || run.state > MEMBER_SILENT ||
			 run.depth >= TREE_DEPTH_MAX;
	}
}

static void get_body(struct reader *r, struct proto *m)
{
	switch (m->type) {
	case PROTO_HELLO:
		get_who(r, m);
		if (m->version != PROTO_VERSION)
			break;
		m->port = (uint16_t)get(r, 2);
		m->skip = (uint8_t)get(r, 1);
		m->flags = (uint8_t)get_in(r, 1, 0, HELLO_PATIENT | HELLO_BYPASS);
		get_address(r, &m->address, true);
		get_resources(r, &m->resources);
		break;
	case PROTO_PROBE:
	case PROTO_ALIVE:
		get_who(r, m);
		m->flags = (uint8_t)get_in(r, 1, 0, 1);
		break;
	case PROTO_ACCEPT:
		m->epoch = get(r, 8);
		get_address(r, &m->address, true);
		get_ancestors(r, m);
		break;
	case PROTO_ANCESTORS: get_ancestors(r, m); break;
	case PROTO_REDIRECT:
	case PROTO_MOVE:
		m->node = get_index(r);
		get_address(r, &m->address, false);
		break;
	case PROTO_WAIT: m->arg = (uint32_t)get_in(r, 4, 1, 60000); break;
	case PROTO_REFUSE:
		m->kind = (uint8_t)get_in(r, 1, 1, REFUSE_KINDS - 1);
		m->arg = (uint32_t)get(r, 4);
		break;
	case PROTO_ATTACH:
		m->seq = (uint32_t)get(r, 4);
		m->tag = (uint16_t)get(r, 2);
		break;
	case PROTO_CONFIRM:
		m->seq = (uint32_t)get(r, 4);
		m->epoch = get(r, 8);
		break;
	case PROTO_BEAT: m->stamp = get(r, 8); break;
	case PROTO_PULSE:
		m->stamp = get(r, 8);
		m->arg = (uint32_t)get(r, 4);
		m->epoch = get(r, 8);
		break;
	case PROTO_REPORT:
		m->arg = (uint32_t)get(r, 4);
		get_items(r, m, PROTO_RUNS_MAX, PROTO_RUN_SIZE);
		check_runs(r, m);
		break;
	case PROTO_ACK: m->arg = (uint32_t)get(r, 4); break;
	case PROTO_VERDICT:
		m->node = get_index(r);
		m->incarnation = (uint32_t)get(r, 4);
		m->kind = (uint8_t)get_in(r, 1, 1, REFUSE_KINDS - 1);
		m->arg = (uint32_t)get(r, 4);
		break;
	case PROTO_WHOIS:
		get_items(r, m, PROTO_WHOIS_MAX, 4);
		for (uint16_t i = 0; !r->bad && i < m->n; i++)
			r->bad = proto_node(m, i) >= OVERLAY_NODES_MAX;
		break;
	case PROTO_INFO:
		m->node = get_index(r);
		m->incarnation = (uint32_t)get(r, 4);
		get_address(r, &m->address, true);
		get_resources(r, &m->resources);
		break;
	default: r->bad = true;
	}
}

bool proto_read(struct proto *m, const void *data, size_t len)
{
	struct reader r = {.p = data, .end = (const uint8_t *)data + len};
	if (len > OVERLAY_MESSAGE_MAX || !len)
		return false;
	m->type = (uint8_t)get(&r, 1);
	get_body(&r, m);
	return !r.bad && r.p == r.end;
}

static uint8_t *put(uint8_t *p, unsigned bytes, uint64_t v)
{
	for (unsigned i = bytes; i-- > 0; v >>= 8)
		p[i] = (uint8_t)v;
	return p + bytes;
}

static uint8_t *put_text(uint8_t *p, unsigned bytes, const struct proto_text *t)
{
	p = put(p, bytes, t->len);
	if (t->len)
		memcpy(p, t->s, t->len);
	return p + t->len;
}

static uint8_t *put_who(uint8_t *p, const struct proto *m)
{
	p = put(p, 4, PROTO_MAGIC);
	p = put(p, 2, m->version);
	memcpy(p, m->cluster, 16);
	p = put(p + 16, 4, m->node);
	p = put(p, 4, m->incarnation);
	p = put(p, 4, m->seq);
	return put(p, 8, m->epoch);
}

static uint8_t *put_ancestors(uint8_t *p, const struct proto *m)
{
	p = put(p, 1, m->n_ancestors);
	for (unsigned i = 0; i < m->n_ancestors; i++)
		p = put_text(p, 1, &m->ancestors[i]);
	return p;
}

static uint8_t *put_items(uint8_t *p, const struct proto *m, unsigned size)
{
	p = put(p, 2, m->n);
	memcpy(p, m->items, (size_t)m->n * size);
	return p + (size_t)m->n * size;
}

static uint8_t *put_body(uint8_t *p, const struct proto *m)
{
	switch (m->type) {
	case PROTO_HELLO:
		p = put(put_who(p, m), 2, m->port);
		p = put(put(p, 1, m->skip), 1, m->flags);
		return put_text(put_text(p, 1, &m->address), 2, &m->resources);
	case PROTO_PROBE:
	case PROTO_ALIVE: return put(put_who(p, m), 1, m->flags);
	case PROTO_ACCEPT: return put_ancestors(put_text(put(p, 8, m->epoch), 1, &m->address), m);
	case PROTO_ANCESTORS: return put_ancestors(p, m);
	case PROTO_REDIRECT:
	case PROTO_MOVE: return put_text(put(p, 4, m->node), 1, &m->address);
	case PROTO_REFUSE: return put(put(p, 1, m->kind), 4, m->arg);
	case PROTO_ATTACH: return put(put(p, 4, m->seq), 2, m->tag);
	case PROTO_CONFIRM: return put(put(p, 4, m->seq), 8, m->epoch);
	case PROTO_BEAT: return put(p, 8, m->stamp);
	case PROTO_PULSE: return put(put(put(p, 8, m->stamp), 4, m->arg), 8, m->epoch);
	case PROTO_REPORT: return put_items(put(p, 4, m->arg), m, PROTO_RUN_SIZE);
	case PROTO_WAIT:
	case PROTO_ACK: return put(p, 4, m->arg);
	case PROTO_VERDICT:
		return put(put(put(put(p, 4, m->node), 4, m->incarnation), 1, m->kind), 4, m->arg);
	case PROTO_WHOIS: return put_items(p, m, 4);
	case PROTO_INFO:
		p = put(put(p, 4, m->node), 4, m->incarnation);
		return put_text(put_text(p, 1, &m->address), 2, &m->resources);
	default: assert(false); return p;
	}
}

size_t proto_write(const struct proto *m, uint8_t out[OVERLAY_MESSAGE_MAX])
{
	return (size_t)(put_body(put(out, 1, m->type), m) - out);
}

void proto_run(const struct proto *m, uint16_t i, struct proto_run *ret)
{
	struct reader r = {.p = m->items + (size_t)i * PROTO_RUN_SIZE};
	r.end = r.p + PROTO_RUN_SIZE;
	ret->node = (uint32_t)get(&r, 4);
	ret->count = (uint32_t)get(&r, 4);
	ret->incarnation = (uint32_t)get(&r, 4);
	ret->seq = (uint32_t)get(&r, 4);
	ret->state = (uint8_t)get(&r, 1);
	ret->depth = (uint8_t)get(&r, 1);
	ret->tag = (uint16_t)get(&r, 2);
	ret->parent_tag = (uint16_t)get(&r, 2);
}

uint32_t proto_node(const struct proto *m, uint16_t i)
{
	struct reader r = {.p = m->items + (size_t)i * 4};
	r.end = r.p + 4;
	return (uint32_t)get(&r, 4);
}

void proto_put_run(uint8_t out[PROTO_RUN_SIZE], const struct proto_run *r)
{
	uint8_t *p = put(put(out, 4, r->node), 4, r->count);
	p = put(put(put(put(p, 4, r->incarnation), 4, r->seq), 1, r->state), 1, r->depth);
	put(put(p, 2, r->tag), 2, r->parent_tag);
}

void proto_put_node(uint8_t out[4], uint32_t node)
{
	put(out, 4, node);
}

bool proto_address_ok(const char *s, size_t len)
{
	if (!len || len > OVERLAY_ADDRESS_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if (s[i] <= ' ' || s[i] > '~')
			return false;
	return true;
}
