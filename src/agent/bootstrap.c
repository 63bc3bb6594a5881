/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/bootstrap.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/hostlist.h"
#include "base/rundir.h"
#include "base/time.h"
#include "wire/message.h"

#define VERSION 1
#define FANOUT_MAX 1024
#define MS_MAX 86400000

static char *to_hex(const uint8_t *p, size_t n)
{
	char *text = xmalloc(2 * n + 1);
	for (size_t i = 0; i < n; i++)
		snprintf(text + 2 * i, 3, "%02x", p[i]);
	return text;
}

static int digit(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int from_hex(const json_t *j, const char *key, uint8_t *ret, size_t n, struct err *err)
{
	const char *text;
	if (message_str(j, key, &text, err) < 0)
		return -1;
	if (strlen(text) != 2 * n)
		return err_set(err, EPROTO, "bootstrap: '%s' has not %zu bytes", key, n);
	for (size_t i = 0; i < n; i++) {
		int hi = digit(text[2 * i]), lo = digit(text[2 * i + 1]);
		if (hi < 0 || lo < 0)
			return err_set(err, EPROTO, "bootstrap: '%s' is not hexadecimal", key);
		ret[i] = (uint8_t)(hi << 4 | lo);
	}
	return 0;
}

static bool names_known(const struct bootstrap *b)
{
	for (size_t i = 0; i < b->nodes.n; i++)
		if (!b->nodes.v[i][0])
			return false;
	return true;
}

char *bootstrap_id(const struct bootstrap *b)
{
	return to_hex(b->id, sizeof(b->id));
}

char *bootstrap_write(const struct bootstrap *b, struct err *err)
{
	_cleanup_free_ char *id = bootstrap_id(b), *secret = to_hex(b->secret, sizeof(b->secret)),
			    *hosts = names_known(b) ? hostlist_fold(b->nodes.v, b->nodes.n) : NULL;
	_cleanup_json_ json_t *j = json_pack(
		"{s:i, s:s, s:s, s:s, s:s*, s:s, s:I, s:s*, s:I, s:I, s:I, s:I, s:s*, s:s*}", "vse",
		VERSION, "name", b->name, "id", id, "secret", secret, "home", b->home, "root", b->root,
		"count", (json_int_t)b->nodes.n, "hosts", hosts, "fanout", (json_int_t)b->fanout,
		"beat_ms", (json_int_t)b->beat_ms, "lost_ms", (json_int_t)b->lost_ms, "give_up_ms",
		(json_int_t)b->give_up_ms, "hypervisors", b->hypervisors, "accel", b->accel);
	_cleanup_free_ char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	explicit_bzero(secret, strlen(secret));
	if (!text) {
		err_set(err, EILSEQ, "bootstrap: a name is not UTF-8 text");
		return NULL;
	}
	char *line = xasprintf("%s\n", text);
	explicit_bzero(text, strlen(text));
	return line;
}

static int read_nodes(const json_t *j, struct bootstrap *b, struct err *err)
{
	const char *hosts = json_string_value(json_object_get(j, "hosts"));
	json_int_t count;
	if (message_int(j, "count", 1, HOSTLIST_MAX, &count, err) < 0)
		return -1;
	if (hosts && hostlist_expand(hosts, &b->nodes, err) < 0)
		return -1;
	while (!hosts && b->nodes.n < (size_t)count)
		strvec_add(&b->nodes, "");
	return b->nodes.n == (size_t)count
		       ? 0
		       : err_set(err, EPROTO, "bootstrap: 'hosts' are not 'count'");
}

static int read_fields(const json_t *j, struct bootstrap *b, struct err *err)
{
	json_int_t version, fanout, beat, lost, give_up;
	const char *name, *root;
	if (message_int(j, "vse", VERSION, VERSION, &version, err) < 0 ||
	    message_str(j, "name", &name, err) < 0 || message_str(j, "root", &root, err) < 0 ||
	    from_hex(j, "id", b->id, sizeof(b->id), err) < 0 ||
	    from_hex(j, "secret", b->secret, sizeof(b->secret), err) < 0 ||
	    cluster_name_check(name, err) < 0 ||
	    message_int(j, "fanout", 0, FANOUT_MAX, &fanout, err) < 0 ||
	    message_int(j, "beat_ms", 0, MS_MAX, &beat, err) < 0 ||
	    message_int(j, "lost_ms", 0, MS_MAX, &lost, err) < 0 ||
	    message_int(j, "give_up_ms", 0, MS_MAX, &give_up, err) < 0 || read_nodes(j, b, err) < 0)
		return -1;
	b->name = xstrdup(name);
	b->home = xstrdup(json_string_value(json_object_get(j, "home")));
	b->root = xstrdup(root);
	b->hypervisors = xstrdup(json_string_value(json_object_get(j, "hypervisors")));
	b->accel = xstrdup(json_string_value(json_object_get(j, "accel")));
	b->fanout = (uint32_t)fanout;
	b->beat_ms = (uint32_t)beat;
	b->lost_ms = (uint32_t)lost;
	b->give_up_ms = (uint32_t)give_up;
	return 0;
}

int bootstrap_parse(const char *text, size_t len, struct bootstrap *ret, struct err *err)
{
	json_error_t where;
	_cleanup_json_ json_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	struct bootstrap b = {0};
	if (!json_is_object(j))
		return err_set(err, EPROTO, "bootstrap: not a line of JSON: %.80s",
			       j ? "no object" : where.text);
	if (read_fields(j, &b, err) < 0) {
		bootstrap_finish(&b);
		return -1;
	}
	*ret = b;
	return 0;
}

static int take(int fd, uint64_t until, struct buf *line, struct err *err)
{
	for (;;) {
		uint64_t now = time_mono_ms();
		struct pollfd p = {.fd = fd, .events = POLLIN};
		char c;
		if (now >= until || poll(&p, 1, (int)(until - now)) == 0)
			return err_set(err, ETIMEDOUT, "bootstrap: nothing came on the standard input");
		/* Byte by byte: what follows the newline is not ours. */
		ssize_t n = read(fd, &c, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(
				err, EPROTO,
				"bootstrap: the standard input ended before a whole line came");
		if (c == '\n')
			return 0;
		buf_add(line, &c, 1);
		if (buf_len(line) > BOOTSTRAP_MAX)
			return err_set(err, E2BIG, "bootstrap: the line is longer than %u bytes",
				       BOOTSTRAP_MAX);
	}
}

int bootstrap_read_fd(int fd, uint64_t bound_ms, struct bootstrap *ret, struct err *err)
{
	_cleanup_buf_ struct buf line = BUF_INIT;
	int rc = take(fd, time_mono_ms() + bound_ms, &line, err);
	if (rc == 0)
		rc = bootstrap_parse(buf_cstr(&line), buf_len(&line), ret, err);
	if (line.data)
		explicit_bzero(line.data, line.end);
	return rc;
}

int bootstrap_read_file(const char *path, struct bootstrap *ret, struct err *err)
{
	struct stat st;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "bootstrap %s", path);
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 0077)
		return err_set(err, EPERM,
			       "bootstrap %s: is not a file of ours that is closed to others", path);
	return bootstrap_read_fd(fd, 10000, ret, err);
}

void bootstrap_finish(struct bootstrap *b)
{
	free(b->name);
	free(b->home);
	free(b->root);
	free(b->hypervisors);
	free(b->accel);
	strvec_finish(&b->nodes);
	explicit_bzero(b, sizeof(*b));
}
