/* SPDX-License-Identifier: Apache-2.0 */
#include "net/kernet_plan.h"

#include <assert.h>
#include <linux/if_ether.h>
#include <string.h>

uint32_t kernet_vni(const char *cluster)
{
	uint32_t h = 2166136261u; /* FNV-1a, folded */
	for (; *cluster; cluster++)
		h = (h ^ (uint8_t)*cluster) * 16777619u;
	h = (h >> 24) ^ (h & 0xffffff);
	return h ? h : 1;
}

/* ---- a small assembler ---- */

/* Where a jump goes; NEXT: to the instruction behind it. */
enum label {
	NEXT,
	PASS,
	DROP,
	UNICAST,
	ARP,
	IPV4,
	IPV6,
	LOCAL,
	NONE,
	UPPER,
	ICMPV6,
	ADVERT,
	LOCAL_TARGET,
	LABELS
};

struct program {
	struct sock_filter *out;
	size_t n;
	size_t at[LABELS];
	enum label yes[KERNET_FILTER_MAX], no[KERNET_FILTER_MAX];
};

enum { /* offsets in a frame */
       TO = 0,
       FROM = 6,
       TYPE = 12,
       ARP_KIND = 14, /* of addresses, and their lengths */
       ARP_FROM_MAC = 22,
       ARP_FROM_IP = 28,
       IPV4_FROM = 26,
       IPV6_NEXT = 20,
       IPV6_FROM = 22,
       ICMPV6_TYPE = 54,
       ICMPV6_TARGET = 62,
};

static void add(struct program *p, uint16_t code, uint32_t k, enum label yes, enum label no)
{
	assert(p->n < KERNET_FILTER_MAX);
	p->out[p->n] = (struct sock_filter){.code = code, .k = k};
	p->yes[p->n] = yes;
	p->no[p->n++] = no;
}

static void put(struct program *p, enum label l)
{
	p->at[l] = p->n;
}

static void load(struct program *p, uint16_t size, uint32_t offset)
{
	add(p, BPF_LD | size | BPF_ABS, offset, NEXT, NEXT);
}

static void equal(struct program *p, uint32_t k, enum label yes, enum label no)
{
	add(p, BPF_JMP | BPF_JEQ | BPF_K, k, yes, no);
}

static void word(struct program *p, uint32_t offset, uint32_t want)
{
	load(p, BPF_W, offset);
	equal(p, want, NEXT, DROP);
}

/* X has the rank: the word is that plus `base`. */
static void word_of_rank(struct program *p, uint32_t offset, uint32_t base)
{
	load(p, BPF_W, offset);
	add(p, BPF_ALU | BPF_SUB | BPF_X, 0, NEXT, NEXT);
	equal(p, base, NEXT, DROP);
}

static void go(struct program *p, enum label l)
{
	add(p, BPF_JMP | BPF_JA, 0, l, NEXT);
}

/* Group addresses go to `yes`. */
static void multicast(struct program *p, enum label yes, enum label no)
{
	load(p, BPF_B, TO);
	add(p, BPF_JMP | BPF_JSET | BPF_K, 1, yes, no);
}

static void resolve(struct program *p)
{
	for (size_t i = 0; i < p->n; i++) {
		struct sock_filter *f = &p->out[i];
		size_t yes = p->yes[i] ? p->at[p->yes[i]] - i - 1 : 0,
		       no = p->no[i] ? p->at[p->no[i]] - i - 1 : 0;
		assert(yes < 256 && no < 256);
		if (f->code == (BPF_JMP | BPF_JA))
			f->k = (uint32_t)yes;
		else
			f->jt = (uint8_t)yes, f->jf = (uint8_t)no;
	}
}

/* ---- the rules ---- */

/* The address behind fd76:7365:: or fe80:: of the rank in X; its first word was looked at. */
static void rest_of_global(struct program *p, uint32_t offset)
{
	word(p, offset + 4, 0);
	word(p, offset + 8, 0);
	word_of_rank(p, offset + 12, 1);
}

static void rest_of_local(struct program *p, uint32_t offset)
{
	word(p, offset + 4, 0);
	word(p, offset + 8, 0x505400ff);
	word_of_rank(p, offset + 12, 0xfe000000);
}

static void add_source(struct program *p, uint32_t rank)
{
	load(p, BPF_W, (uint32_t)SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT);
	equal(p, 0, NEXT, DROP);
	load(p, BPF_H, FROM);
	equal(p, 0x5254, NEXT, DROP);
	load(p, BPF_W, FROM + 2);
	add(p, BPF_JMP | BPF_JGT | BPF_K, 0xffffff, DROP, NEXT);
	if (rank != KERNET_ANY_RANK)
		equal(p, rank, NEXT, DROP);
	add(p, BPF_MISC | BPF_TAX, 0, NEXT, NEXT);
	load(p, BPF_H, TYPE);
	equal(p, ETH_P_ARP, ARP, NEXT);
	equal(p, ETH_P_IP, IPV4, NEXT);
	equal(p, ETH_P_IPV6, IPV6, NEXT);
	equal(p, ETH_P_8021Q, DROP, NEXT);
	equal(p, ETH_P_8021AD, DROP, UNICAST);
}

static void add_ipv4(struct program *p, const struct subnet *s)
{
	put(p, ARP);
	word(p, ARP_KIND, 0x00010800);
	load(p, BPF_H, ARP_KIND + 4);
	equal(p, 0x0604, NEXT, DROP);
	load(p, BPF_H, ARP_FROM_MAC);
	equal(p, 0x5254, NEXT, DROP);
	word_of_rank(p, ARP_FROM_MAC + 2, 0);
	load(p, BPF_W, ARP_FROM_IP);
	equal(p, 0, PASS, NEXT); /* a probe */
	add(p, BPF_ALU | BPF_SUB | BPF_X, 0, NEXT, NEXT);
	equal(p, s->base + 1, PASS, DROP);
	put(p, IPV4);
	word_of_rank(p, IPV4_FROM, s->base + 1);
	go(p, UNICAST);
}

static void add_ipv6(struct program *p)
{
	put(p, IPV6);
	load(p, BPF_W, IPV6_FROM);
	equal(p, 0xfe800000, LOCAL, NEXT);
	equal(p, 0, NONE, NEXT);
	equal(p, 0xfd767365, NEXT, DROP);
	rest_of_global(p, IPV6_FROM);
	go(p, UPPER);
	put(p, LOCAL);
	rest_of_local(p, IPV6_FROM);
	go(p, UPPER);
	put(p, NONE); /* unspecified: to ask whether an address is taken */
	word(p, IPV6_FROM + 4, 0);
	word(p, IPV6_FROM + 8, 0);
	word(p, IPV6_FROM + 12, 0);
	load(p, BPF_B, IPV6_NEXT);
	equal(p, 58, NEXT, DROP);
	load(p, BPF_B, ICMPV6_TYPE);
	equal(p, 135, NEXT, DROP);
	multicast(p, PASS, DROP);
	put(p, UPPER);
	load(p, BPF_B, IPV6_NEXT);
	equal(p, 58, ICMPV6, NEXT);
	equal(p, 0, DROP, NEXT);
	equal(p, 43, DROP, NEXT);
	equal(p, 51, DROP, NEXT);
	equal(p, 60, DROP, UNICAST);
}

static void add_icmpv6(struct program *p)
{
	put(p, ICMPV6);
	load(p, BPF_B, ICMPV6_TYPE);
	equal(p, 135, PASS, NEXT); /* to a group: to the agent; else to who answers for itself */
	equal(p, 136, ADVERT, NEXT);
	equal(p, 143, DROP, NEXT);
	add(p, BPF_JMP | BPF_JGT | BPF_K, 137, UNICAST, NEXT);
	add(p, BPF_JMP | BPF_JGE | BPF_K, 130, DROP, UNICAST);
	put(p, ADVERT);
	load(p, BPF_W, ICMPV6_TARGET);
	equal(p, 0xfe800000, LOCAL_TARGET, NEXT);
	equal(p, 0xfd767365, NEXT, DROP);
	rest_of_global(p, ICMPV6_TARGET);
	go(p, UNICAST);
	put(p, LOCAL_TARGET);
	rest_of_local(p, ICMPV6_TARGET);
}

size_t kernet_filter(const struct subnet *s, uint32_t rank, struct sock_filter out[KERNET_FILTER_MAX])
{
	struct program p = {.out = out};
	add_source(&p, rank);
	add_ipv4(&p, s);
	add_ipv6(&p);
	add_icmpv6(&p);
	put(&p, UNICAST);
	multicast(&p, DROP, PASS);
	put(&p, PASS);
	add(&p, BPF_RET | BPF_K, 1, NEXT, NEXT);
	put(&p, DROP);
	add(&p, BPF_RET | BPF_K, 0, NEXT, NEXT);
	resolve(&p);
	return p.n;
}
