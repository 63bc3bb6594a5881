/* SPDX-License-Identifier: Apache-2.0 */
/* What xl prints. Every text is data: rows of other people's domains, lines of libraries below xl. */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "hypervisor/xen.h"

/* ---- xl info ---- */

/* The value of "key   : value", not terminated; NULL: no such line. */
static const char *info_value(const char *text, const char *key, size_t *ret_len)
{
	size_t n = strlen(key);
	for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
		if (strncmp(p, key, n) != 0)
			continue;
		p += n + strspn(p + n, " \t");
		if (*p != ':')
			continue;
		p += 1 + strspn(p + 1, " \t");
		*ret_len = strcspn(p, "\n");
		return p;
	}
	return NULL;
}

static bool has_word(const char *text, size_t len, const char *word)
{
	return text && memmem(text, len, word, strlen(word)) != NULL;
}

int xen_parse_info(const char *text, struct xen_host *ret, struct err *err)
{
	size_t n, n_caps = 0, n_virt = 0, n_free, n_cpus;
	unsigned major, minor;
	const char *version = info_value(text, "xen_version", &n);
	const char *caps = info_value(text, "xen_caps", &n_caps),
		   *virt = info_value(text, "virt_caps", &n_virt),
		   *mem = info_value(text, "free_memory", &n_free),
		   *cpus = info_value(text, "nr_cpus", &n_cpus);
	if (!version || sscanf(version, "%3u.%3u", &major, &minor) != 2)
		return err_set(err, EPROTO, "xl info does not say the version of Xen");
	struct xen_host h = {.number = major * 100 + minor};
	snprintf(h.version, sizeof(h.version), "%.*s", (int)MIN(n, sizeof(h.version) - 1), version);
	text_clean(h.version);
	/* virt_caps knows "pv" from 4.13 on; xen_caps always did, but names each width. */
	h.pv = has_word(caps, n_caps, "xen-3.0-x86_64");
	h.hvm = has_word(caps, n_caps, "hvm-3.0-x86_64") && (!virt || has_word(virt, n_virt, "hvm"));
	if (mem)
		h.free = strtoull(mem, NULL, 10) << 20;
	if (cpus)
		h.cpus = (unsigned)strtoul(cpus, NULL, 10);
	*ret = h;
	return 0;
}

/* ---- xl list -v ---- */

static bool is_uuid(const char *s, size_t n)
{
	if (n != XEN_UUID_LEN)
		return false;
	for (size_t i = 0; i < n; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		if (dash ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
			return false;
	}
	return true;
}

struct word {
	const char *p;
	size_t n;
};

/* Takes the last word off [line, line + *len). */
static struct word last_word(const char *line, size_t *len)
{
	size_t end = *len;
	while (end && (line[end - 1] == ' ' || line[end - 1] == '\t' || line[end - 1] == '\r'))
		end--;
	size_t start = end;
	while (start && line[start - 1] != ' ' && line[start - 1] != '\t')
		start--;
	*len = start;
	return (struct word){line + start, end - start};
}

static bool word_number(struct word w, uint64_t *ret)
{
	char text[24], *end;
	if (!w.n || w.n >= sizeof(text) || !isdigit((unsigned char)w.p[0]))
		return false;
	memcpy(text, w.p, w.n);
	text[w.n] = '\0';
	*ret = strtoull(text, &end, 10);
	return *end == '\0';
}

static bool word_seconds(struct word w, uint64_t *ret_ms)
{
	char text[24];
	unsigned long long s;
	unsigned tenth;
	if (!w.n || w.n >= sizeof(text))
		return false;
	memcpy(text, w.p, w.n);
	text[w.n] = '\0';
	if (sscanf(text, "%15llu.%1u", &s, &tenth) != 2)
		return false;
	*ret_ms = s * 1000 + tenth * 100;
	return true;
}

/* "r-----", "-b----", "--p---", "--psr-": one letter or dash for each flag. */
static bool word_state(struct word w, struct xen_domain *d)
{
	if (w.n != 6)
		return false;
	for (size_t i = 0; i < w.n; i++)
		if (!strchr("rbpscd-", w.p[i]))
			return false;
	d->paused = memchr(w.p, 'p', w.n);
	d->shutdown = memchr(w.p, 's', w.n) || memchr(w.p, 'c', w.n);
	d->dying = memchr(w.p, 'd', w.n);
	return true;
}

/* The words after the UUID: the reason in hex or a dash, and a label. */
static int reason_of(const char *p, size_t n)
{
	char text[12];
	while (n && (*p == ' ' || *p == '\t'))
		p++, n--;
	size_t len = 0;
	while (len < n && p[len] != ' ' && p[len] != '\t')
		len++;
	if (!len || len >= sizeof(text) || !isxdigit((unsigned char)*p))
		return -1;
	memcpy(text, p, len);
	text[len] = '\0';
	unsigned long v = strtoul(text, NULL, 16);
	return v > 255 ? -1 : (int)v;
}

/* From the right, since a name may have blanks: NAME ID MEM VCPUS STATE TIME UUID REASON [LABEL]. */
bool xen_parse_row(const char *line, size_t len, struct xen_domain *ret)
{
	struct xen_domain d = {.reason = -1};
	size_t rest = len;
	struct word w;
	uint64_t id, mib, vcpus;
	int spare = 4;
	do
		w = last_word(line, &rest);
	while (!is_uuid(w.p, w.n) && w.n && --spare);
	if (!is_uuid(w.p, w.n))
		return false;
	memcpy(d.uuid, w.p, w.n);
	d.reason = reason_of(w.p + w.n, len - (size_t)(w.p + w.n - line));
	if (!word_seconds(last_word(line, &rest), &d.cpu_ms) ||
	    !word_state(last_word(line, &rest), &d) || !word_number(last_word(line, &rest), &vcpus) ||
	    !word_number(last_word(line, &rest), &mib) ||
	    !word_number(last_word(line, &rest), &id) || id > 65535)
		return false;
	while (rest && line[rest - 1] == ' ')
		rest--;
	snprintf(d.name, sizeof(d.name), "%.*s", (int)MIN(rest, sizeof(d.name) - 1), line);
	d.id = (unsigned)id;
	d.memory = mib << 20;
	*ret = d;
	return true;
}

bool xen_parse_list(const char *text, const char *uuid, struct xen_domain *ret)
{
	for (const char *p = text; *p;) {
		size_t n = strcspn(p, "\n");
		struct xen_domain d;
		if (xen_parse_row(p, n, &d) && strcasecmp(d.uuid, uuid) == 0) {
			*ret = d;
			return true;
		}
		p += n + (p[n] == '\n');
	}
	return false;
}

/* ---- xl list -l ---- */

int xen_parse_long(const char *text, size_t len, const char *uuid, int *ret_type, size_t *ret_disks,
		   struct err *err)
{
	json_error_t why;
	json_t *all = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why), *e;
	size_t i;
	int rc = -1;
	if (!json_is_array(all)) {
		json_decref(all);
		return err_set(err, EPROTO, "xl list -l: not what xl prints");
	}
	json_array_foreach (all, i, e) {
		const json_t *config = json_object_get(e, "config"),
			     *c = json_object_get(config, "c_info");
		const char *u = json_string_value(json_object_get(c, "uuid")),
			   *t = json_string_value(json_object_get(c, "type"));
		if (!u || strcasecmp(u, uuid) != 0)
			continue;
		*ret_type = -1;
		for (int k = XEN_PV; t && k <= XEN_HVM; k++)
			if (strcmp(t, xen_type_name((enum xen_type)k)) == 0)
				*ret_type = k;
		*ret_disks = json_array_size(json_object_get(config, "disks"));
		rc = 0;
		break;
	}
	json_decref(all);
	return rc == 0 ? 0 : err_set(err, ESRCH, "xl list -l: no such domain");
}

/* ---- errors ---- */

/* What users meet, and what it means. `tail`: what follows the needle belongs to the message. In the order in which a line
 * is looked through; of several lines that match, the first. */
static const struct {
	const char *needle, *cause;
	bool tail;
} causes[] = {
	{"privileged command interface: Permission denied",
	 "root is needed: xl may not use /dev/xen/privcmd", false},
	{"privileged command interface", "this node does not run under Xen, or not as its dom0", false},
	{"cannot open libxc handle", "this node does not run under Xen, or not as its dom0", false},
	{"Is xenstore daemon running", "Xen's tools are not running in dom0 (xenstored)", false},
	{"cannot connect to xenstore", "Xen's tools are not running in dom0 (xenstored)", false},
	{"xenstore is not running", "Xen's tools are not running in dom0 (xenstored)", false},
	{"can't allocate low memory", "too little free memory on the node (xl info: free_memory)", false},
	{"failed to free memory for the domain",
	 "too little free memory on the node (xl info: free_memory)", false},
	{"Out of memory", "too little free memory on the node (xl info: free_memory)", false},
	{"Cannot allocate memory", "too little free memory on the node (xl info: free_memory)", false},
	{"oom: can't allocate", "too little free memory on the node (xl info: free_memory)", false},
	{"kernel image too large", "the kernel does not fit: the VM has too little memory", false},
	{"segment kernel too large", "the kernel does not fit: the VM has too little memory", false},
	{"segment ramdisk too large", "the initramfs does not fit: the VM has too little memory", false},
	{"already exists", "a domain of this name is there already", false},
	{"failed to stat: ", "disk ", true},
	{"failed to open file ", "kernel or initramfs: ", true},
	{"Could not find bridge device ", "there is no bridge ", true},
	{"because of timeout", "a hotplug script took longer than libxl waits (40 s)", false},
	{"Device or resource busy", "a device is in use", false},
	{"is already mounted", "a disk is in use by another domain or by dom0", false},
	{"no loader found", "the kernel is not one that Xen can start (no Xen note in it)", false},
	{"not capable of booting inside a HVM", "the kernel has no PVH entry", false},
	{"Not a Xen-ELF image", "the kernel is not one that Xen can start (no Xen note in it)", false},
	{"does not support unprivileged", "the kernel is not one that Xen can start", false},
	{"not supported by xen kernel", "this node's Xen runs no guests of this kind", false},
	{"unable to parse kernel", "the kernel is not one that Xen can start", false},
	{"xc_dom_parse_image", "the kernel is not one that Xen can start", false},
	{"xc_dom_find_loader", "the kernel is not one that Xen can start", false},
	{"xc_dom_kernel_file", "the kernel cannot be read", false},
	{"is not executable", "the device model (qemu) is not installed (Debian: qemu-system-xen)", false},
	{"Device Model didn't respond", "the device model (qemu) did not answer", false},
	{"device model did not start", "the device model (qemu) did not start", false},
	{"device model: spawn", "the device model (qemu) did not start", false},
	{"exec of device model",
	 "the device model (qemu) is not installed (Debian: qemu-system-xen)", false},
	{"device model", "the device model (qemu) failed", false},
	{"hvm guests are not supported", "this node's processor or Xen runs no PVH and HVM guests", false},
	{"unable to add vif devices", "eth0 cannot be connected (hotplug script)", false},
	{"unable to add disk devices", "a disk cannot be connected (hotplug script)", false},
	{"Failed to enable logdirty", XEN_NO_LOG_DIRTY, false},
	{"Failed to read config file", "xl cannot read the configuration", false},
	{"reading ipc msg header", "nobody reads the state any more, or xl's helper was ended", false},
	{"Unable to write", "nobody reads the state any more", false},
	{"Failed to write", "nobody reads the state any more", false},
	{"save callback suspend() failed",
	 "the guest did not suspend (no Xen support in its kernel?)", false},
	{"failed to suspend at sender", "the guest did not suspend (no Xen support in its kernel?)",
	 false},
	{"Can't open restore file: ", "the saved state cannot be opened: ", true},
	{"mandatory flag(s)", "the saved state is of a later xl", false},
	{"Invalid Version: Expected", "the saved state is of another version of Xen", false},
	{"Savefile truncated", "the saved state is cut off", false},
	{"Failed to read", "the saved state is damaged or cut off", false},
	{"wrong magic number", "the saved state is damaged, or is no saved state", false},
	{"Saved domain's ", "the saved state is damaged, or is no saved state", false},
	{"Invalid ident", "the saved state is damaged, or is no saved state", false},
	{"failed to read", "the saved state is damaged or cut off", false},
	{"unexpected eof", "the saved state is cut off", false},
	{"Unexpected end of", "the saved state is cut off", false},
	{"hit unexpected EOF", "the saved state is cut off", false},
	{"savefile", "the saved state is damaged or cut off", false},
	{"stream", "the saved state is damaged or cut off", false},
	{"guest didn't acknowledge suspend",
	 "the guest did not answer the request to suspend (no Xen support in its kernel?)", false},
	{"guest did not suspend", "the guest did not suspend (no Xen support in its kernel?)", false},
	{"didn't suspend", "the guest did not suspend (no Xen support in its kernel?)", false},
	{"unable to retrieve domain configuration",
	 "xl knows no configuration of this domain: it is gone, or another tool's", false},
	{"No config file stored",
	 "xl knows no configuration of this domain: it is gone, or another tool's", false},
	{"PV control interface not available",
	 "the guest cannot be asked: no driver of Xen runs in it", false},
	{"Could not set affinity", "the vCPU cannot be put onto this CPU (xl cpupool-list -c)", false},
	{"unable to get domain type", "there is no such domain", false},
	{"(rc=-21)", "there is no such domain", false},
	{"invalid domain identifier", "there is no such domain", false},
	{"maybe this domain does not exist", "there is no such domain", false},
	{"does not exist.", "there is no such domain", false},
	{"No such process", "there is no such domain", false},
	{"config parsing error ", "xl does not understand the configuration: ", true},
	{"Domain name must be specified", "xl does not understand the configuration: no name", false},
	{"Neither kernel nor bootloader specified",
	 "xl does not understand the configuration: no kernel", false},
	{"Config file not specified", "xl was given no configuration", false},
	{"Failed to parse config", "xl does not understand the configuration", false},
	{"command not implemented", "this xl does not know the command", false},
	{"Usage", "this xl does not know the command, or a word of it", false},
	{"No space left on device", "no space left on the device", false},
	{"(rc=-15)", "another xl works on this domain", false},
};

/* What xl tells of its doings, among its errors. */
static bool is_chatter(const char *p, size_t n)
{
	static const char *const starts[] = {"Parsing config",
					     "Saving to ",
					     "Loading new save file",
					     " Savefile ",
					     "migration sender: ",
					     "migration target: ",
					     "migration child ",
					     "migration transport process ",
					     "Migration failed, resuming"};
	for (size_t i = 0; i < ARRAY_SIZE(starts); i++)
		if (n >= strlen(starts[i]) && strncmp(p, starts[i], strlen(starts[i])) == 0)
			return true;
	return false;
}

/* "libxl: error: libxl_x.c:12:libxl__do: Domain 5:what" -> "what"; "xc: error: what" -> "what". */
static void strip(const char **p, size_t *n)
{
	const char *s = *p, *end = *p + *n, *q = memmem(s, *n, "error: ", 7);
	if (!q)
		return;
	s = q + 7;
	if (strncmp(s, "libxl", 5) == 0 && (q = memmem(s, (size_t)(end - s), ": ", 2)))
		s = q + 2;
	if (strncmp(s, "Domain ", 7) == 0 && (q = memchr(s, ':', (size_t)(end - s))))
		s = q + 1;
	*p = s;
	*n = (size_t)(end - s);
}

static bool known_cause(const char *p, size_t n, char *out, size_t size)
{
	for (size_t i = 0; i < ARRAY_SIZE(causes); i++) {
		const char *at = memmem(p, n, causes[i].needle, strlen(causes[i].needle));
		if (!at)
			continue;
		size_t skip = (size_t)(at - p) + strlen(causes[i].needle);
		snprintf(out, size, "%s%.*s", causes[i].cause,
			 causes[i].tail ? (int)MIN(n - skip, (size_t)200) : 0, p + skip);
		return true;
	}
	return false;
}

void xen_cause(const char *text, char *out, size_t size)
{
	const char *first = NULL;
	size_t first_len = 0;
	bool first_error = false, known = false;
	out[0] = '\0';
	for (const char *p = text; *p && !known;) {
		size_t n = strcspn(p, "\n"), len = n;
		const char *line = p;
		bool error = memmem(p, n, "error: ", 7);
		if (is_chatter(p, n)) {
			p += n + (p[n] == '\n');
			continue;
		}
		strip(&line, &len);
		known = known_cause(line, len, out, size);
		if (len && (!first || (error && !first_error))) {
			first = line;
			first_len = len;
			first_error = error;
		}
		p += n + (p[n] == '\n');
	}
	if (!known && first)
		snprintf(out, size, "%.*s", (int)MIN(first_len, size - 1), first);
	text_clean(out);
}
