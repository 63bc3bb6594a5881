/* SPDX-License-Identifier: Apache-2.0 */
#include "spec/rules.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/pci.h"
#include "base/size.h"

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGIT "0123456789"

/* `bad(err, s, "has ...")`: the value, then what is wrong with it. */
#define bad(err, s, ...) bad_value(err, s, __VA_ARGS__)

static int _printf_(3, 4) bad_value(struct err *err, const char *s, const char *fmt, ...)
{
	char value[RULE_SHOWN], why[256];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return err_set(err, EINVAL, "'%s' %s", rule_shown(s, value), why);
}

static bool is_inside_char(char c) /* not the first byte of a character in UTF-8 */
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

const char *rule_shown(const char *text, char out[RULE_SHOWN])
{
	size_t len = strlen(text), room = RULE_SHOWN - 1, from = 0, n = 0;
	bool cut = len > room, path = text[0] == '/';
	if (cut)
		room -= 3;
	if (cut && path) { /* of a path the end tells most */
		for (from = len - room; is_inside_char(text[from]); from++)
			;
		n = (size_t)snprintf(out, RULE_SHOWN, "...");
	} else if (cut) {
		for (len = room; is_inside_char(text[len]); len--)
			;
	}
	for (size_t i = from; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		out[n++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
	}
	snprintf(out + n, RULE_SHOWN - n, "%s", cut && !path ? "..." : "");
	return out;
}

/* Says which character does not belong, by its look. */
static int bad_char(struct err *err, const char *s, const char *at)
{
	unsigned char c = (unsigned char)*at;
	if (c == ' ')
		return bad(err, s, "has a space in it");
	if (c < 0x20 || c == 0x7f)
		return bad(err, s, "has a control character in it");
	if (c >= 0x80)
		return bad(err, s, "has a character outside ASCII in it");
	return bad(err, s, "has '%c' in it", c);
}

/* Non-empty, at most max bytes, only the characters of `set`. */
static int word(const char *s, size_t max, const char *set, struct err *err)
{
	if (!*s)
		return bad(err, s, "is empty");
	const char *end = s + strspn(s, set);
	if (*end)
		return bad_char(err, s, end);
	if (strlen(s) > max)
		return bad(err, s, "is %zu characters long", strlen(s));
	return 0;
}

static const char *control_char(const char *s, const char *but)
{
	for (; *s; s++)
		if (((unsigned char)*s < 0x20 || *s == 0x7f) && !strchr(but, *s))
			return s;
	return NULL;
}

int rule_name(const char *s, struct err *err)
{
	if (*s && !s[strspn(s, DIGIT)])
		return bad(err, s, "is only digits");
	if (s[strcspn(s, UPPER)])
		return bad(err, s, "has a capital letter in it");
	if (word(s, 32, LOWER DIGIT "-", err) < 0)
		return -1;
	if (!islower((unsigned char)*s))
		return bad(err, s, "does not begin with a letter");
	if (s[strlen(s) - 1] == '-')
		return bad(err, s, "ends with '-'");
	return 0;
}

int rule_description(const char *s, struct err *err)
{
	if (control_char(s, "\n\t"))
		return bad(err, s, "has a control character in it");
	if (strlen(s) > 4096)
		return bad(err, s, "is %zu bytes long", strlen(s));
	return 0;
}

int rule_suite(const char *s, struct err *err)
{
	if (word(s, 64, LOWER DIGIT ".-", err) < 0)
		return -1;
	return islower((unsigned char)*s) ? 0 : bad(err, s, "does not begin with a letter");
}

int rule_mirror(const char *s, struct err *err)
{
	static const char *const schemes[] = {"http://", "https://", "file:///"};
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_SIZE(schemes) && !n; i++)
		if (strncmp(s, schemes[i], strlen(schemes[i])) == 0)
			n = strlen(schemes[i]);
	if (!n || !s[n])
		return bad(err, s, "is not a URL of a package mirror");
	return word(s, 512, LOWER UPPER DIGIT "-._~:/@%+,=&?", err);
}

int rule_component(const char *s, struct err *err)
{
	return word(s, 64, LOWER DIGIT "-/", err);
}

/* Debian Policy 5.6.1: lower-case letters, digits, "+-.", two characters or more, the first a letter or digit.
 * apt reads "name-" as "remove name", so a last '-' is no name here. */
static int package_name(const char *s, const char *whole, struct err *err)
{
	if (s[strcspn(s, UPPER)])
		return bad(err, whole, "has a capital letter in it");
	const char *end = s + strspn(s, LOWER DIGIT "+-.");
	if (*end == '/')
		return bad(err, whole, "names a suite: only a version can be chosen, as NAME=VERSION");
	if (*end)
		return bad_char(err, whole, end);
	size_t n = strlen(s);
	if (n < 2 || n > 128)
		return bad(err, whole, "is too %s for a package name", n < 2 ? "short" : "long");
	if (!isalnum((unsigned char)*s))
		return bad(err, whole, "does not begin with a letter or digit");
	return s[n - 1] == '-' ? bad(err, whole, "ends with '-'") : 0;
}

int rule_package(const char *s, struct err *err)
{
	char name[512];
	if (strlen(s) >= sizeof(name))
		return bad(err, s, "is too long for a package name");
	memcpy(name, s, strlen(s) + 1);
	char *version = strchr(name, '=');
	if (version) {
		*version++ = '\0';
		if (!isdigit((unsigned char)*version))
			return bad(err, s, "has a version that does not begin with a digit");
		const char *end = version + strspn(version, LOWER UPPER DIGIT ".+-~:");
		if (*end)
			return bad_char(err, s, end);
	}
	char *arch = strchr(name, ':');
	if (arch) {
		*arch++ = '\0';
		if (!*arch || arch[strspn(arch, LOWER DIGIT "-")])
			return bad(err, s, "has no architecture's name after ':'");
	}
	return package_name(name, s, err);
}

static bool is_below(const char *s, const char *dir) /* or is it */
{
	size_t n = strlen(dir);
	return strncmp(s, dir, n) == 0 && (s[n] == '/' || !s[n]);
}

int rule_guest_path(const char *s, struct err *err)
{
	static const struct {
		const char *dir, *why;
	} hidden[] = {{"/proc", "made anew at each start"}, {"/sys", "made anew at each start"},
		      {"/dev", "made anew at each start"},  {"/run", "made anew at each start"},
		      {"/tmp", "emptied in every image"},   {"/var/tmp", "emptied in every image"}};
	if (*s != '/')
		return bad(err, s, "is not an absolute path");
	if (strlen(s) > 1024)
		return bad(err, s, "is %zu bytes long", strlen(s));
	if (control_char(s, ""))
		return bad(err, s, "has a control character in it");
	for (const char *p = s; *p;) {
		size_t n = strcspn(++p, "/");
		if (n == 0)
			return s[1] == '\0' ? bad(err, s, "is the root itself")
					    : bad(err, s, "has an empty part (a '/' too many)");
		if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return bad(err, s, "has '%.*s' as a part", (int)n, p);
		if (n > 255)
			return bad(err, s, "has a part of more than 255 bytes");
		p += n;
	}
	for (size_t i = 0; i < ARRAY_SIZE(hidden); i++) {
		if (is_below(s, hidden[i].dir))
			return bad(err, s, "is below %s, which is %s", hidden[i].dir, hidden[i].why);
	}
	return 0;
}

bool rule_paths_meet(const char *a, const char *b)
{
	return is_below(a, b) || is_below(b, a);
}

/* What is mounted there hides what is in the image; and what is written there is written on the node. */
int rule_mount_guest(const char *s, struct err *err)
{
	static const char *const whole[] = {"/etc",   "/boot",  "/bin",    "/sbin",     "/lib",
					    "/lib32", "/lib64", "/libx32", "/root/.ssh"},
				 *const itself[] = {"/usr",     "/usr/bin",   "/usr/sbin",
						    "/usr/lib", "/usr/lib64", "/var",
						    "/root"};
	if (rule_guest_path(s, err) < 0)
		return -1;
	if (strpbrk(s, " \\"))
		return bad_char(err, s, strpbrk(s, " \\"));
	for (size_t i = 0; i < ARRAY_SIZE(whole); i++)
		if (is_below(s, whole[i]))
			return strcmp(s, whole[i]) == 0
				       ? bad(err, s, "is a part of the system")
				       : bad(err, s, "is below %s, which is a part of the system",
					     whole[i]);
	for (size_t i = 0; i < ARRAY_SIZE(itself); i++)
		if (strcmp(s, itself[i]) == 0)
			return bad(err, s, "is a part of the system");
	return 0;
}

int rule_mount_host(const char *s, struct err *err)
{
	if (*s != '/')
		return bad(err, s, "is not an absolute path");
	if (!s[strspn(s, "/")])
		return bad(err, s, "is the node's root itself: name the directories");
	if (control_char(s, ""))
		return bad(err, s, "has a control character in it");
	return strlen(s) > 1024 ? bad(err, s, "is %zu bytes long", strlen(s)) : 0;
}

int rule_device(const char *s, struct err *err)
{
	if (pci_is_place(s))
		return bad(err, s, "is a place on a node, which the command line may name (--device)");
	return pci_is_kind(s) ? 0 : bad(err, s, "is not pci:VENDOR:DEVICE");
}

int rule_device_place(const char *s, struct err *err)
{
	return pci_is_kind(s) || pci_is_place(s)
		       ? 0
		       : bad(err, s, "is neither pci:VENDOR:DEVICE nor pci:ADDRESS");
}

int rule_mount_mode(const char *s, bool *ret_rw, struct err *err)
{
	bool rw = strcmp(s, "rw") == 0;
	if (!rw && strcmp(s, "ro") != 0)
		return bad(err, s, "is neither ro nor rw");
	*ret_rw = rw;
	return 0;
}

int rule_env_name(const char *s, struct err *err)
{
	if (strcmp(s, "<<") == 0)
		return err_set(err, EINVAL, "YAML's merge key is not used here");
	if (isdigit((unsigned char)*s))
		return bad(err, s, "begins with a digit");
	if (word(s, 128, LOWER UPPER DIGIT "_", err) < 0)
		return -1;
	return strncmp(s, "VSE_", 4) == 0 ? bad(err, s, "begins with VSE_, which vse itself sets") : 0;
}

int rule_env_value(const char *s, struct err *err)
{
	if (control_char(s, "\t"))
		return bad(err, s, "is more than one line or has a control character in it");
	return strlen(s) > 32768 ? bad(err, s, "is %zu bytes long", strlen(s)) : 0;
}

int rule_build_step(const char *s, struct err *err)
{
	if (!s[strspn(s, " \t\n\r")])
		return err_set(err, EINVAL, "is empty");
	return strlen(s) > 65536 ? bad(err, s, "is %zu bytes long", strlen(s)) : 0;
}

/* Inside the address space that hosts may have: not 0/8, loopback, link-local, multicast or above. */
static bool usable(uint32_t ip)
{
	uint32_t top = ip >> 24;
	return top != 0 && top != 127 && top < 224 && ip >> 16 != 0xa9fe;
}

int rule_subnet(const char *s, struct err *err)
{
	char text[32];
	const char *slash = strchr(s, '/');
	struct in_addr a;
	int64_t bits;
	if (!slash || (size_t)(slash - s) >= sizeof(text))
		return bad(err, s, "is not an IPv4 subnet");
	memcpy(text, s, (size_t)(slash - s));
	text[slash - s] = '\0';
	if (inet_pton(AF_INET, text, &a) != 1 || int_parse(slash + 1, 0, 32, &bits, NULL) < 0 ||
	    strlen(slash) > 3)
		return bad(err, s, "is not an IPv4 subnet");
	uint32_t ip = ntohl(a.s_addr);
	if (bits > 29)
		return bad(err, s, "is too small: it holds %u addresses", 1u << (32 - (unsigned)bits));
	if (bits < 8)
		return bad(err, s, "is too large");
	uint32_t mask = UINT32_MAX << (32 - (unsigned)bits);
	if (ip & ~mask) {
		a.s_addr = htonl(ip & mask);
		inet_ntop(AF_INET, &a, text, sizeof(text));
		return bad(err, s, "is an address in a subnet, which is %s/%d", text, (int)bits);
	}
	return usable(ip)
		       ? 0
		       : bad(err, s, "is not for hosts (loopback, link-local, multicast or reserved)");
}

int rule_bool(const char *s, bool *ret, struct err *err)
{
	bool yes = strcmp(s, "true") == 0;
	if (!yes && strcmp(s, "false") != 0)
		return bad(err, s, "is neither true nor false");
	*ret = yes;
	return 0;
}

int rule_mode(const char *s, unsigned *ret, struct err *err)
{
	const char *d = s[0] == '0' && s[1] == 'o' ? s + 2 : s;
	size_t n = strspn(d, "01234567");
	if (d[n] || n < 3 || n > 5)
		return bad(err, s, "is not three or four octal digits");
	unsigned long v = strtoul(d, NULL, 8);
	if (v > 07777)
		return bad(err, s, "is above 7777");
	*ret = (unsigned)v;
	return 0;
}

static int owner_id(const char *whole, const char *s, size_t n, unsigned *ret, struct err *err)
{
	char text[16];
	int64_t v;
	if (n == 4 && memcmp(s, "root", 4) == 0) {
		*ret = 0;
		return 0;
	}
	if (n == 0)
		return bad(err, whole, "lacks a user or a group");
	if (strspn(s, DIGIT) < n)
		return bad(err, whole, "has a part that is neither root nor a number");
	snprintf(text, sizeof(text), "%.*s", (int)MIN(n, sizeof(text) - 1), s);
	/* An image made by an ordinary user holds the 65536 ids of its user namespace; 65535 is never an owner. */
	if (n >= sizeof(text) || int_parse(text, 0, 65534, &v, NULL) < 0)
		return bad(err, whole, "has a number above 65534");
	*ret = (unsigned)v;
	return 0;
}

int rule_owner(const char *s, unsigned *ret_uid, unsigned *ret_gid, struct err *err)
{
	unsigned uid, gid;
	const char *colon = strchr(s, ':');
	if (!colon)
		return bad(err, s, "is not USER:GROUP");
	if (owner_id(s, s, (size_t)(colon - s), &uid, err) < 0 ||
	    owner_id(s, colon + 1, strlen(colon + 1), &gid, err) < 0)
		return -1;
	*ret_uid = uid;
	*ret_gid = gid;
	return 0;
}

int rule_cpus(const char *s, unsigned *ret, struct err *err)
{
	int64_t v;
	if (!*s || s[strspn(s, DIGIT)])
		return bad(err, s, "is not a whole number");
	if (int_parse(s, 1, RULE_CPUS_MAX, &v, NULL) < 0)
		return bad(err, s, "is not within 1 to %u", RULE_CPUS_MAX);
	*ret = (unsigned)v;
	return 0;
}

static int size(const char *s, uint64_t min, uint64_t max, uint64_t *ret, struct err *err)
{
	uint64_t v, mib = UINT64_C(1) << 20;
	struct err why = ERR_INIT;
	if (size_parse(s, &v, &why) < 0 && why.code == EINVAL)
		return bad(err, s, "is not a size");
	if (why.code || v > max)
		return bad(err, s, "is more than %s", "64T");
	if (v < min)
		return bad(err, s, "is less than %uM%s", (unsigned)(min / mib),
			   s[strspn(s, DIGIT)] ? "" : " (a number without a unit is bytes)");
	*ret = (v + mib - 1) / mib * mib;
	return 0;
}

int rule_memory(const char *s, uint64_t *ret, struct err *err)
{
	return size(s, RULE_MEMORY_MIN, RULE_MEMORY_MAX, ret, err);
}

int rule_scratch(const char *s, uint64_t *ret, struct err *err)
{
	if (strcmp(s, "0") == 0) {
		*ret = 0;
		return 0;
	}
	return size(s, RULE_SCRATCH_MIN, RULE_MEMORY_MAX, ret, err);
}
