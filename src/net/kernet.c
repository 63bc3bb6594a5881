/* SPDX-License-Identifier: Apache-2.0 */
#include "net/kernet.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <linux/if_tun.h>
#include <linux/major.h>
#include <linux/sockios.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "net/filter.h"
#include "net/kernet_link.h"
#include "net/kernet_plan.h"
#include "net/rtnetlink.h"

#define TUN "/dev/net/tun"
#define TUN_MINOR 200 /* (Documentation/admin-guide/devices.txt) */
#define BATCH 64      /* frames read at once; the loop has other things to do */
#define PROBE_PORT 4790

struct kernet {
	struct members members;
	uint32_t mtu;
	int netns;         /* the cluster's own */
	int in;            /* rtnetlink there */
	int bridge, vxlan; /* index; vxlan 0: none */
	int *taps;         /* by rank, index; 0: none */
	bool *away;        /* by rank: it has an entry in the VXLAN */
	int agent;         /* a tap of our own */
	struct watch *watch;
	struct kernet_stats stats;
};

/* ---- between namespaces: the calling thread alone ---- */

static int own_netns(struct err *err)
{
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	return fd < 0 ? err_errno(err, errno, "/proc/thread-self/ns/net") : fd;
}

/* Nothing can be done in the wrong one: it would be the cluster's taps that our links were made over. */
static void back_to(int own)
{
	if (setns(own, CLONE_NEWNET) < 0) {
		log_error("back to the node's network namespace: %s", strerror(errno));
		abort();
	}
}

/* No addresses come by themselves, and frames on the bridge are no business of iptables. What the kernel does not have
 * need not be switched off. */
static void settle_netns(void)
{
	static const struct {
		const char *file, *value;
	} settings[] = {
		{"/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"},
		{"/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"},
		{"/proc/sys/net/bridge/bridge-nf-call-iptables", "0"},
		{"/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0"},
		{"/proc/sys/net/bridge/bridge-nf-call-arptables", "0"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		_cleanup_close_ int fd = open(settings[i].file, O_WRONLY | O_CLOEXEC);
		if (fd >= 0 && write(fd, settings[i].value, 1) < 0)
			log_debug("%s: %s", settings[i].file, strerror(errno));
	}
}

static int make_netns(struct kernet *k, struct err *err)
{
	_cleanup_close_ int own = own_netns(err);
	if (own < 0)
		return -1;
	if (unshare(CLONE_NEWNET) < 0)
		return err_errno(err, errno, "a network namespace%s",
				 errno == EPERM
					 ? " (root is needed: CAP_SYS_ADMIN and CAP_NET_ADMIN)"
					 : "");
	settle_netns();
	k->netns = own_netns(err);
	if (k->netns >= 0)
		k->in = rtnetlink_open(err);
	back_to(own);
	return k->in < 0 ? -1 : 0;
}

/* A tap among the descriptors of another process. */
static int find_tap(pid_t pid)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/fd", (int)pid);
	_cleanup_close_ int process = (int)syscall(SYS_pidfd_open, pid, 0);
	DIR *d = opendir(path);
	struct dirent *e;
	int tap = -1;
	while (d && process >= 0 && tap < 0 && (e = readdir(d))) {
		struct stat st;
		if (fstatat(dirfd(d), e->d_name, &st, 0) == 0 && S_ISCHR(st.st_mode) &&
		    st.st_rdev == makedev(MISC_MAJOR, TUN_MINOR))
			tap = (int)syscall(SYS_pidfd_getfd, process, atoi(e->d_name), 0);
	}
	if (d)
		closedir(d);
	return tap;
}

static int find_netns(struct kernet *k, pid_t vmm, struct err *err)
{
	_cleanup_close_ int own = own_netns(err), tap = find_tap(vmm);
	if (own < 0)
		return -1;
	if (tap < 0)
		return err_set(err, ENOENT, "process %d has no tap that can be found", (int)vmm);
	k->netns = ioctl(tap, SIOCGSKNS);
	if (k->netns < 0 || fcntl(k->netns, F_SETFD, FD_CLOEXEC) < 0 ||
	    setns(k->netns, CLONE_NEWNET) < 0)
		return err_errno(err, errno, "the network of process %d", (int)vmm);
	k->in = rtnetlink_open(err);
	back_to(own);
	return k->in < 0 ? -1 : 0;
}

/* Index of a device in our namespace; 0: none. */
static int index_of(const struct kernet *k, const char *name)
{
	_cleanup_close_ int own = own_netns(NULL);
	if (own < 0 || setns(k->netns, CLONE_NEWNET) < 0)
		return 0;
	int index = (int)if_nametoindex(name);
	back_to(own);
	return index;
}

/* name: as the kernel gives it, from a pattern such as "vm3.%d". */
static int open_tap(const struct kernet *k, const char *pattern, short flags, int *ret_index,
		    struct err *err)
{
	struct ifreq r;
	_cleanup_close_ int own = own_netns(err);
	memset(&r, 0, sizeof(r));
	r.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | flags);
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", pattern);
	if (own < 0)
		return -1;
	if (setns(k->netns, CLONE_NEWNET) < 0)
		return err_errno(err, errno, "the cluster's network namespace");
	_cleanup_close_ int fd = open(TUN, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	int rc = fd < 0 || ioctl(fd, TUNSETIFF, &r) < 0 ? errno : 0;
	*ret_index = rc ? 0 : (int)if_nametoindex(r.ifr_name);
	back_to(own);
	if (rc)
		return err_errno(err, rc, "a tap (%s)", TUN);
	return TAKE_FD(fd);
}

/* ---- what the agent answers ---- */

static void answer(struct kernet *k, const uint8_t *frame, size_t len)
{
	struct member from;
	struct filtered f;
	uint32_t rank;
	if (len < FRAME_HEADER || !address_mac_rank(frame + 6, &rank) || rank >= k->members.size)
		return;
	member_init(&from, &k->members, rank);
	if (filter_frame(&k->members, &from, frame, len, &f) != VERDICT_ANSWER) {
		k->stats.ignored++;
		return;
	}
	/* What the device does not take is lost, as on a switch: who asked asks again. */
	if (write(k->agent, f.answer, f.answer_len) == (ssize_t)f.answer_len)
		k->stats.answered++;
}

static void on_frames(void *arg, int events _unused_)
{
	struct kernet *k = arg;
	uint8_t frame[2048];
	for (int i = 0; i < BATCH; i++) {
		ssize_t n = read(k->agent, frame, sizeof(frame));
		if (n <= 0)
			return;
		answer(k, frame, (size_t)n);
	}
}

static int start_agent(struct kernet *k, struct loop *l, struct err *err)
{
	struct kernet_port p = {.bridge = k->bridge, .mtu = k->mtu, .agent = true};
	k->agent = open_tap(k, "agent.%d", 0, &p.index, err);
	if (k->agent < 0 || kernet_add_port(k->in, &p, err) < 0)
		return -1;
	k->watch = watch_create(l, k->agent, on_frames, k, err);
	if (!k->watch)
		return -1;
	watch_set(k->watch, WATCH_READ);
	return 0;
}

/* ---- life ---- */

static int prepare(struct kernet *k, const struct kernet_config *c, struct loop *l, struct err *err)
{
	if ((c->vmm ? find_netns(k, c->vmm, err) : make_netns(k, err)) < 0 ||
	    kernet_add_bridge(k->in, k->mtu, err) < 0)
		return -1;
	k->bridge = index_of(k, KERNET_BRIDGE);
	k->vxlan = index_of(k, KERNET_VXLAN);
	return start_agent(k, l, err);
}

int kernet_create(struct loop *l, const struct kernet_config *c, struct kernet **ret, struct err *err)
{
	struct kernet *k = xcalloc(1, sizeof(*k));
	*k = (struct kernet){.members = {.subnet = c->subnet, .size = c->size},
			     .mtu = c->mtu,
			     .netns = -1,
			     .in = -1,
			     .agent = -1,
			     .taps = xcalloc(c->size, sizeof(*k->taps)),
			     .away = xcalloc(c->size, sizeof(*k->away))};
	if (prepare(k, c, l, err) < 0) {
		err_prefix(err, "network by the kernel: ");
		kernet_destroy(k);
		return -1;
	}
	*ret = k;
	return 0;
}

static void close_one(int fd)
{
	if (fd >= 0)
		close(fd);
}

void kernet_destroy(struct kernet *k)
{
	struct err err = ERR_INIT;
	if (!k)
		return;
	/* At once, and not when the kernel gets round to it: the VXLAN's identifier may be wanted again. */
	if (k->in >= 0 && ((k->vxlan && kernet_remove(k->in, k->vxlan, &err) < 0) ||
			   (k->bridge && kernet_remove(k->in, k->bridge, &err) < 0)))
		log_warn("network by the kernel: %s", err.text);
	watch_destroy(k->watch);
	close_one(k->agent);
	close_one(k->in);
	close_one(k->netns);
	free(k->taps);
	free(k->away);
	free(k);
}

int kernet_tap(struct kernet *k, uint32_t rank, int *ret_fd, struct err *err)
{
	struct sock_filter filter[KERNET_FILTER_MAX];
	char pattern[IFNAMSIZ];
	uint8_t mac[6];
	if (rank >= k->members.size)
		return err_set(err, ERANGE, "tap: there is no vm%u", rank);
	struct kernet_port p = {.bridge = k->bridge, .mtu = k->mtu, .locked = true, .filter = filter};
	p.n = (uint16_t)kernet_filter(&k->members.subnet, rank, filter);
	snprintf(pattern, sizeof(pattern), "vm%u.%%d", rank & 0xffffff);
	_cleanup_close_ int fd = open_tap(k, pattern, IFF_VNET_HDR, &p.index, err);
	address_mac(rank, mac);
	if (fd < 0 || kernet_add_port(k->in, &p, err) < 0)
		return -1;
	/* One that is on its way here belongs to another node until it is placed. */
	if (!k->away[rank] && kernet_forward(k->in, p.index, mac, err) < 0)
		return -1;
	k->taps[rank] = p.index;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* ---- other nodes ---- */

static int add_vxlan(struct kernet *k, uint32_t vni, uint16_t port, struct err *err)
{
	struct sock_filter filter[KERNET_FILTER_MAX];
	_cleanup_close_ int outside = rtnetlink_open(err);
	/* One that was found with the namespace may be no port yet: it is made one, again. */
	if (outside < 0 ||
	    (!k->vxlan && kernet_add_vxlan(outside, k->netns, vni, port, k->mtu, err) < 0))
		return -1;
	k->vxlan = index_of(k, KERNET_VXLAN);
	struct kernet_port p = {
		.index = k->vxlan, .bridge = k->bridge, .mtu = k->mtu, .locked = true, .filter = filter};
	p.n = (uint16_t)kernet_filter(&k->members.subnet, KERNET_ANY_RANK, filter);
	if (kernet_add_port(k->in, &p, err) == 0)
		return 0;
	kernet_remove(k->in, k->vxlan, NULL); /* half of one is none */
	k->vxlan = 0;
	return -1;
}

static int join(struct kernet *k, uint32_t vni, uint16_t port, struct err *err)
{
	struct err why = ERR_INIT;
	if (add_vxlan(k, vni, port, &why) == 0)
		return 0;
	if (why.code == EEXIST)
		return err_set(err, EEXIST,
			       "VXLAN %u at UDP port %u is taken on this node, by a cluster whose "
			       "id gives the same number (the next start has another) or "
			       "by what is being cleared up",
			       vni, port);
	if (why.code == EADDRINUSE)
		return err_set(err, EADDRINUSE,
			       "UDP port %u is taken on this node by another program", port);
	return err_copy(err, &why);
}

int kernet_join(struct kernet *k, const char *cluster, struct err *err)
{
	return join(k, kernet_vni(cluster), KERNET_PORT, err);
}

int kernet_place(struct kernet *k, uint32_t rank, struct in_addr node, struct err *err)
{
	uint8_t mac[6];
	if (rank >= k->members.size)
		return err_set(err, ERANGE, "there is no vm%u", rank);
	address_mac(rank, mac);
	if (node.s_addr != INADDR_ANY) {
		if (kernet_tunnel(k->in, k->vxlan, mac, node, err) < 0 ||
		    kernet_forward(k->in, k->vxlan, mac, err) < 0)
			return -1;
		k->away[rank] = true;
	} else if (k->away[rank]) {
		k->away[rank] = false;
		kernet_untunnel(k->in, k->vxlan, mac, NULL);
		if (!k->taps[rank] || kernet_forward(k->in, k->taps[rank], mac, NULL) < 0)
			kernet_unforward(k->in, k->vxlan, mac, NULL);
	}
	return 0;
}

void kernet_stats(const struct kernet *k, struct kernet_stats *ret)
{
	*ret = k->stats;
}

/* Not the port that clusters have, and an identifier that none has: nobody is in the way. Who is there by chance, at this
 * moment, has nothing to do with what the kernel can. */
static int probe_vxlan(struct kernet *k, struct err *err)
{
	struct err why = ERR_INIT;
	if (join(k, 1 + (uint32_t)getpid() % 0xffffff, PROBE_PORT, &why) == 0 ||
	    why.code == EADDRINUSE || why.code == EEXIST)
		return 0;
	return err_copy(err, &why);
}

int kernet_probe(struct err *err)
{
	struct kernet_config c = {.subnet = {.base = 10u << 24, .bits = 24}, .size = 2, .mtu = 1500};
	struct loop *l = loop_create();
	struct kernet *k = NULL;
	int fd = -1;
	int rc = kernet_create(l, &c, &k, err);
	if (rc == 0)
		rc = kernet_tap(k, 0, &fd, err);
	if (rc == 0)
		rc = probe_vxlan(k, err);
	close_one(fd);
	kernet_destroy(k);
	loop_destroy(l);
	return rc;
}
