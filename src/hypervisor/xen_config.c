/* SPDX-License-Identifier: Apache-2.0 */
/* From a spec to the text of an xl.cfg. Pure: the unit test compares it with golden text. */
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <string.h>

#include "base/alloc.h"
#include "hypervisor/xen.h"

static bool is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '_' || c == '.';
}

/* The last part of the folder above the VM's own, as far as a domain's name can hold it. */
static void cluster_of(const char *dir, char out[32])
{
	_cleanup_free_ char *copy = xstrdup(dir ? dir : "");
	const char *base = basename(dirname(copy));
	size_t n = 0;
	for (; *base && n < 31; base++)
		out[n++] = is_word(*base) ? *base : '-';
	out[n] = '\0';
}

void xen_identify(const struct hv_spec *spec, const uint8_t random[16], struct xen_id *ret)
{
	uint8_t r[16];
	char cluster[32];
	memcpy(r, random, 16);
	r[6] = (uint8_t)((r[6] & 0x0f) | 0x40); /* RFC 4122, version 4 */
	r[8] = (uint8_t)((r[8] & 0x3f) | 0x80);
	snprintf(ret->uuid, sizeof(ret->uuid),
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", r[0], r[1],
		 r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14],
		 r[15]);
	cluster_of(spec->dir, cluster);
	snprintf(ret->name, sizeof(ret->name), "vse-%s-%" PRIu32 "-%.8s", cluster, spec->rank,
		 ret->uuid);
}

const char *xen_type_name(enum xen_type t)
{
	static const char *const names[] = {"pv", "pvh", "hvm"};
	return names[t];
}

int xen_type(const struct hv_spec *spec, const struct xen_host *host, enum xen_type *ret, struct err *err)
{
	const char *m = spec->machine ? spec->machine : "auto";
	enum xen_type t;
	if (strcmp(m, "auto") == 0)
		/* A PVH guest uses the processor's own page tables: the faster one wherever it runs. */
		t = host->hvm && spec->vmlinux ? XEN_PVH : host->pv ? XEN_PV : XEN_HVM;
	else if (strcmp(m, "pv") == 0)
		t = XEN_PV;
	else if (strcmp(m, "pvh") == 0)
		t = XEN_PVH;
	else if (strcmp(m, "hvm") == 0)
		t = XEN_HVM;
	else
		return err_set(err, EINVAL,
			       "machine type %s: unknown, allowed are auto, pv, pvh and hvm", m);
	if (t == XEN_PV ? !host->pv : !host->hvm)
		return err_set(err, EINVAL, "machine type %s: this node's Xen runs no %s guests (xl info: virt_caps)",
			       m, t == XEN_PV ? "PV" : "PVH and HVM");
	*ret = t;
	return 0;
}

/* A string of the configuration's language, which knows no escape that all versions share: one that has the quote is put
 * into the other kind. */
static int add_string(struct buf *b, const char *what, const char *s, struct err *err)
{
	for (const char *c = s; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f || *c == '\\')
			return err_set(err, EINVAL,
				       "%s: a control character or backslash cannot be told to xl",
				       what);
	if (strchr(s, '"') && strchr(s, '\''))
		return err_set(err, EINVAL, "%s: both kinds of quotes cannot be told to xl", what);
	char quote = strchr(s, '"') ? '\'' : '"';
	buf_addc(b, quote);
	buf_adds(b, s);
	buf_addc(b, quote);
	return 0;
}

static int add_key(struct buf *b, const char *key, const char *value, struct err *err)
{
	buf_addf(b, "%s = ", key);
	if (add_string(b, key, value, err) < 0)
		return -1;
	buf_addc(b, '\n');
	return 0;
}

/* No backendtype: a raw file goes through a loop device, the only way that can be read-only (QEMU's disk back end refuses
 * a read-only node, and xl create does not tell). What is written goes through QEMU, which needs no loop device. */
static int add_disk(struct buf *b, const char *vdev, const char *options, const char *path,
		    struct err *err)
{
	_cleanup_free_ char *text = xasprintf("format=raw,vdev=%s,%s,target=%s", vdev, options, path);
	return add_string(b, path, text, err);
}

/* Of an HVM guest's first four disks libxl makes IDE disks, too, which cannot be read-only. */
static int add_disks(struct buf *b, const struct hv_spec *s, enum xen_type type, struct err *err)
{
	bool hvm = type == XEN_HVM;
	if (!s->root && !s->scratch)
		return 0;
	buf_adds(b, "disk = [ ");
	if (s->root && add_disk(b, hvm ? "xvde" : "xvda", "access=ro", s->root, err) < 0)
		return -1;
	if (s->root && s->scratch)
		buf_adds(b, ", ");
	if (s->scratch &&
	    add_disk(b, hvm ? "xvdf" : "xvdb", "access=rw,backendtype=qdisk", s->scratch, err) < 0)
		return -1;
	buf_adds(b, " ]\n");
	return 0;
}

static int add_kernel(struct buf *b, const struct hv_spec *s, enum xen_type type, struct err *err)
{
	/* hvmloader hands the kernel to QEMU, which takes a bzImage. The others save the unpacking in dom0. */
	const char *kernel = type != XEN_HVM && s->vmlinux ? s->vmlinux : s->kernel;
	if (!kernel)
		return err_set(err, EINVAL, "no kernel given");
	/* An HVM guest that panics resets itself as any PC does, but for this word (Linux 5.5; before it did by itself): then it
	 * tells Xen that it is a crash. */
	_cleanup_free_ char *words = xasprintf("console=" XEN_CONSOLE
					       " quiet panic=-1 vse.ch=" XEN_CHANNEL
					       " cryptomgr.notests%s%s%s",
					       type == XEN_HVM ? " xen_legacy_crash" : "",
					       s->cmdline && s->cmdline[0] ? " " : "",
					       s->cmdline ? s->cmdline : "");
	if (add_key(b, "kernel", kernel, err) < 0 ||
	    (s->initrd && add_key(b, "ramdisk", s->initrd, err) < 0) ||
	    add_key(b, "cmdline", words, err) < 0)
		return -1;
	return 0;
}

/* Two, and one is used: what is the guest's second console is the first channel, but the second where libxl takes the
 * first for the console itself and drops it (seen with 4.17; repaired in 2025). xenstore tells which it is. */
static int add_channels(struct buf *b, const struct hv_spec *s, struct err *err)
{
	if (strchr(s->dir, ',') || strlen(s->dir) + sizeof("/" XEN_CHANNEL_0) > 108)
		return err_set(err, EINVAL,
			       "folder %s: a path with a comma, or too long for a socket", s->dir);
	_cleanup_free_ char *one =
		xasprintf("name=" XEN_CHANNEL_0 ",connection=socket,path=%s/" XEN_CHANNEL_0, s->dir);
	_cleanup_free_ char *two =
		xasprintf("name=" XEN_CHANNEL_1 ",connection=socket,path=%s/" XEN_CHANNEL_1, s->dir);
	buf_adds(b, "channel = [ ");
	if (add_string(b, "channel", one, err) < 0)
		return -1;
	buf_adds(b, ", ");
	if (add_string(b, "channel", two, err) < 0)
		return -1;
	buf_adds(b, " ]\n");
	return 0;
}

static int add_extra(struct buf *b, const struct hv_spec *s, struct err *err)
{
	if (!s->extra_args || !s->extra_args->n)
		return 0;
	buf_adds(b, "device_model_args = [ ");
	for (size_t i = 0; i < s->extra_args->n; i++) {
		if (i)
			buf_adds(b, ", ");
		if (add_string(b, "VMM argument", s->extra_args->v[i], err) < 0)
			return -1;
	}
	buf_adds(b, " ]\n");
	return 0;
}

static int add_pins(struct buf *b, const struct hv_spec *s)
{
	if (!s->pins)
		return 0;
	buf_adds(b, "cpus = [");
	for (unsigned i = 0; i < s->cpus; i++)
		buf_addf(b, "%s\"%u\"", i ? ", " : " ", s->pins[i]);
	buf_adds(b, " ]\n");
	return 0;
}

int xen_config(const struct hv_spec *s, const struct xen_id *id, enum xen_type type,
	       const char *bridge, struct buf *out, struct err *err)
{
	const uint8_t *m = s->mac;
	uint64_t mib = (s->memory + (1u << 20) - 1) >> 20;
	if (s->accel && strcmp(s->accel, "auto") != 0 && strcmp(s->accel, "xen") != 0)
		return err_set(err, EINVAL, "accelerator %s: this node was probed for xen", s->accel);
	if (add_key(out, "name", id->name, err) < 0 || add_key(out, "uuid", id->uuid, err) < 0 ||
	    add_key(out, "type", xen_type_name(type), err) < 0)
		return -1;
	buf_addf(out, "memory = %" PRIu64 "\nmaxmem = %" PRIu64 "\nvcpus = %u\n", mib, mib, s->cpus);
	if (add_kernel(out, s, type, err) < 0 || add_disks(out, s, type, err) < 0 ||
	    add_channels(out, s, err) < 0)
		return -1;
	if (s->nic)
		buf_addf(out, "vif = [ \"mac=%02x:%02x:%02x:%02x:%02x:%02x,bridge=%s,script=vif-bridge,type=vif\" ]\n",
			 m[0], m[1], m[2], m[3], m[4], m[5], bridge);
	add_pins(out, s);
	if (add_extra(out, s, err) < 0)
		return -1;
	/* Nothing acts on its end but we: so the reason of the end can still be read. */
	buf_adds(out,
		 "on_poweroff = \"preserve\"\non_reboot = \"preserve\"\non_crash = \"preserve\"\n"
		 "on_watchdog = \"preserve\"\non_soft_reset = \"preserve\"\n"
		 "vga = \"none\"\nnographic = 1\n");
	return 0;
}
