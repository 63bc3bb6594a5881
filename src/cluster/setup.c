/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/setup.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "base/time.h"
#include "wire/kv.h"

#define SEED_BYTES 64

/* getrandom() blocks only before the host's own pool was ever filled: not on a machine that runs VMs. So few bytes
 * it gives whole. */
static void fill_random(unsigned char *p, size_t n)
{
	if (getrandom(p, n, 0) != (ssize_t)n)
		abort(); /* only on a Linux before 3.17, where nothing else of vse runs */
}

void setup_texts_init(struct setup_texts *t, const struct cluster_spec *s)
{
	_cleanup_buf_ struct buf hosts = BUF_INIT, hostfile = BUF_INIT;
	char ip[16];
	for (uint32_t r = 0; r < s->size; r++) {
		address_ipv4_text(address_ipv4(&s->subnet, r), ip);
		buf_addf(&hosts, "%s vm%u\n", ip, r);
		buf_addf(&hostfile, "vm%u slots=%u\n", r, s->cpus);
	}
	*t = (struct setup_texts){.hosts = buf_take(&hosts), .hostfile = buf_take(&hostfile)};
	fill_random(t->ids, sizeof(t->ids));
}

void setup_texts_finish(struct setup_texts *t)
{
	free(t->hosts);
	free(t->hostfile);
	*t = (struct setup_texts){0};
}

static void add_seed(struct buf *kv)
{
	unsigned char seed[SEED_BYTES];
	fill_random(seed, sizeof(seed));
	kv_add(kv, "seed", seed, sizeof(seed));
	explicit_bzero(seed, sizeof(seed));
}

static void add_machine_id(struct buf *kv, const struct setup_texts *t, uint32_t rank)
{
	static const char hex[] = "0123456789abcdef";
	unsigned char id[sizeof(t->ids)];
	char text[33];
	memcpy(id, t->ids, sizeof(id));
	for (size_t i = 0; i < sizeof(rank); i++)
		id[i] ^= (unsigned char)(rank >> (8 * i));
	/* Version 4 of RFC 4122, as systemd makes a machine id. */
	id[6] = (unsigned char)((id[6] & 0x0f) | 0x40);
	id[8] = (unsigned char)((id[8] & 0x3f) | 0x80);
	for (size_t i = 0; i < sizeof(id); i++) {
		text[2 * i] = hex[id[i] >> 4];
		text[2 * i + 1] = hex[id[i] & 15];
	}
	text[32] = '\0';
	kv_adds(kv, "machine_id", text);
}

static void add_network(struct buf *kv, const struct cluster_spec *s, uint32_t rank)
{
	uint8_t mac[6];
	char text[INET6_ADDRSTRLEN + 8], ip[INET6_ADDRSTRLEN];
	struct in6_addr a6;
	address_mac(rank, mac);
	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
		 mac[3], mac[4], mac[5]);
	kv_adds(kv, "mac", text);
	address_ipv4_text(address_ipv4(&s->subnet, rank), ip);
	snprintf(text, sizeof(text), "%s/%u", ip, s->subnet.bits);
	kv_adds(kv, "ipv4", text);
	address_ipv6(rank, &a6);
	inet_ntop(AF_INET6, &a6, ip, sizeof(ip));
	snprintf(text, sizeof(text), "%s/64", ip);
	kv_adds(kv, "ipv6", text);
	kv_addu(kv, "mtu", CLUSTER_MTU);
}

void setup_write(struct buf *kv, const struct cluster_spec *s, const struct setup_texts *t,
		 uint32_t rank, bool network, bool again)
{
	char text[64];
	kv_adds(kv, "verb", "setup");
	snprintf(text, sizeof(text), "vm%u", rank);
	kv_adds(kv, "hostname", text);
	kv_addu(kv, "rank", rank);
	kv_addu(kv, "size", s->size);
	kv_adds(kv, "cluster", s->name);
	kv_addu(kv, "time_ns", time_wall_ns());
	add_seed(kv); /* also of one that was restored: from one save there may be several */
	if (!again)
		add_machine_id(kv, t, rank);
	if (network) {
		add_network(kv, s, rank);
		kv_adds(kv, "hosts", t->hosts);
	}
	kv_adds(kv, "hostfile", t->hostfile);
	if (s->outbound)
		kv_adds(kv, "nat", "1");
	for (size_t i = 0; i < s->n_mounts; i++) {
		_cleanup_free_ char *mount = xasprintf("vse%zu %s %s", i, s->mounts[i].rw ? "rw" : "ro",
						       s->mounts[i].guest);
		kv_adds(kv, "mount", mount);
	}
	for (size_t i = 0; i < s->env.n; i++)
		kv_adds(kv, "env", s->env.v[i]);
	snprintf(text, sizeof(text), "VSE_RANK=%u", rank);
	kv_adds(kv, "env", text);
	snprintf(text, sizeof(text), "VSE_SIZE=%u", s->size);
	kv_adds(kv, "env", text);
	snprintf(text, sizeof(text), "VSE_NAME=%s", s->vse);
	kv_adds(kv, "env", text);
	snprintf(text, sizeof(text), "VSE_CLUSTER=%s", s->name);
	kv_adds(kv, "env", text);
	if (network && s->ssh_private) {
		kv_adds(kv, "ssh_private", s->ssh_private);
		kv_adds(kv, "ssh_public", s->ssh_public);
		kv_adds(kv, "ssh_authorized", s->ssh_public);
	}
}
