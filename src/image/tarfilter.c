/* SPDX-License-Identifier: Apache-2.0 */
#include "image/tarfilter.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"

#define BLOCK 512u
#define EXTENSION_MAX (1u << 20) /* a long name or a set of pax records */
#define COPY_BYTES (1u << 16)

/* Offsets of the header's fields. */
enum {
	AT_NAME = 0,
	AT_UID = 108,
	AT_GID = 116,
	AT_SIZE = 124,
	AT_SUM = 148,
	AT_TYPE = 156,
	AT_LINK = 157,
	AT_MAGIC = 257,
	AT_PREFIX = 345,
	AT_SPARSE_MORE = 482,
	AT_SPARSE_MORE2 = 504
};

struct member {
	unsigned char h[BLOCK];
	struct buf held;                   /* extension headers that belong to it, raw */
	char *name, *link;                 /* from the extensions, or NULL */
	bool has_size, root_uid, root_gid; /* a record named the owner who becomes root: it is left out */
	uint64_t size;
};

struct copy {
	int in, out;
	uint64_t at; /* bytes read */
	struct tar_filter *f;
};

const char *tar_name_problem(const char *name)
{
	if (!*name)
		return "has no name";
	if (*name == '/')
		return "has an absolute path";
	for (const char *p = name; *p;) {
		size_t n = strcspn(p, "/");
		if (n == 2 && p[0] == '.' && p[1] == '.')
			return "has a path with \"..\"";
		p += n;
		p += strspn(p, "/");
	}
	return NULL;
}

static bool number(const unsigned char *p, size_t n, uint64_t *ret)
{
	uint64_t v = 0;
	size_t i = 0;
	if (p[0] & 0x80) { /* base 256, GNU: only what fits and is not negative */
		if (p[0] != 0x80)
			return false;
		for (i = 1; i < n; i++) {
			if (v >> 55)
				return false;
			v = v << 8 | p[i];
		}
		*ret = v;
		return true;
	}
	while (i < n && p[i] == ' ')
		i++;
	for (; i < n && p[i] >= '0' && p[i] <= '7'; i++)
		v = v << 3 | (uint64_t)(p[i] - '0');
	if (i < n && p[i] != ' ' && p[i] != '\0')
		return false;
	*ret = v;
	return true;
}

static uint64_t checksum(const unsigned char *h)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < BLOCK; i++)
		sum += i >= AT_SUM && i < AT_SUM + 8 ? ' ' : h[i];
	return sum;
}

static bool header_ok(const unsigned char *h)
{
	uint64_t sum;
	return number(h + AT_SUM, 8, &sum) && sum == checksum(h);
}

const char *tar_compressor(const unsigned char *d, size_t n)
{
	static const struct {
		const char *magic;
		size_t len;
		const char *program;
	} known[] = {{"\x1f\x8b", 2, "gzip"},
		     {"\xfd"
		      "7zXZ",
		      5, "xz"},
		     {"\x28\xb5\x2f\xfd", 4, "zstd"},
		     {"BZh", 3, "bzip2"},
		     {"\x04\x22\x4d\x18", 4, "lz4"}};
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (n >= known[i].len && memcmp(d, known[i].magic, known[i].len) == 0)
			return known[i].program;
	return n >= BLOCK && header_ok(d) ? "" : NULL;
}

/* 1: a whole block; 0: the end of the file before it. */
static int read_block(struct copy *c, unsigned char *b, struct err *err)
{
	ssize_t n = fd_read_full(c->in, b, BLOCK);
	if (n < 0)
		return err_errno(err, errno, "read archive");
	c->at += (uint64_t)n;
	if (n == 0)
		return 0;
	if (n != BLOCK)
		return err_set(err, EINVAL, "archive is cut off at byte %llu",
			       (unsigned long long)c->at);
	return 1;
}

static int put(struct copy *c, const void *data, size_t n, struct err *err)
{
	if (fd_write_all(c->out, data, n) < 0)
		return err_errno(err, errno, "unpack archive");
	return 0;
}

/* Reads size bytes and their padding; passes them on if `pass`. */
static int data_blocks(struct copy *c, uint64_t size, bool pass, struct err *err)
{
	_cleanup_free_ char *b = xmalloc(COPY_BYTES);
	uint64_t left = (size + BLOCK - 1) / BLOCK * BLOCK;
	while (left) {
		size_t want = (size_t)MIN(left, (uint64_t)COPY_BYTES);
		ssize_t n = fd_read_full(c->in, b, want);
		if (n < 0)
			return err_errno(err, errno, "read archive");
		c->at += (uint64_t)n;
		if ((size_t)n != want)
			return err_set(err, EINVAL, "archive is cut off at byte %llu",
				       (unsigned long long)c->at);
		if (pass && put(c, b, want, err) < 0)
			return -1;
		left -= want;
	}
	return 0;
}

static void set(char **to, const char *p, size_t n)
{
	free(*to);
	*to = xstrndup(p, n);
}

static bool is_number(const char *p, size_t n, uint64_t want)
{
	char text[24];
	return n == (size_t)snprintf(text, sizeof(text), "%llu", (unsigned long long)want) &&
	       memcmp(p, text, n) == 0;
}

/* Is it an owner who becomes root? One that does not fit into the header's field has a record of its own. */
static bool owner_record(struct copy *c, struct member *m, const char *key, size_t kn,
			 const char *value, size_t vn)
{
	if (!c->f->map_owner || kn != 3 || (memcmp(key, "uid", 3) != 0 && memcmp(key, "gid", 3) != 0))
		return false;
	bool uid = key[0] == 'u';
	if (!is_number(value, vn, uid ? c->f->uid : c->f->gid))
		return false;
	*(uid ? &m->root_uid : &m->root_gid) = true;
	return true;
}

/* "LEN KEY=VALUE\n", LEN counting all of it. kept: those that are passed on. */
static int pax_records(struct copy *c, struct member *m, const char *p, size_t n, struct buf *kept,
		       struct err *err)
{
	while (n) {
		size_t len = 0, i = 0;
		while (i < n && i < 9 && p[i] >= '0' && p[i] <= '9')
			len = len * 10 + (size_t)(p[i++] - '0');
		if (i >= n || p[i] != ' ' || len <= i + 1 || len > n || p[len - 1] != '\n')
			return err_set(err, EINVAL, "archive: damaged pax header");
		const char *key = p + i + 1, *eq = memchr(key, '=', (size_t)(p + len - key));
		if (!eq)
			return err_set(err, EINVAL, "archive: damaged pax header");
		size_t kn = (size_t)(eq - key), vn = (size_t)(p + len - 1 - (eq + 1));
		if (memchr(eq + 1, '\0', vn) && kn <= 15 && memmem(key, kn, "path", 4))
			return err_set(err, EINVAL, "archive: a name with a zero byte");
		if ((kn == 4 && !memcmp(key, "path", 4)) ||
		    (kn == 15 && !memcmp(key, "GNU.sparse.name", 15)))
			set(&m->name, eq + 1, vn);
		else if (kn == 8 && !memcmp(key, "linkpath", 8))
			set(&m->link, eq + 1, vn);
		else if (kn == 4 && !memcmp(key, "size", 4)) {
			m->has_size = true;
			m->size = 0;
			for (size_t j = 0; j < vn; j++) {
				if (eq[1 + j] < '0' || eq[1 + j] > '9' || m->size > (UINT64_MAX >> 8))
					return err_set(err, EINVAL, "archive: damaged pax size");
				m->size = m->size * 10 + (uint64_t)(eq[1 + j] - '0');
			}
		}
		if (!owner_record(c, m, key, kn, eq + 1, vn))
			buf_add(kept, p, len);
		p += len;
		n -= len;
	}
	return 0;
}

static void seal(unsigned char *h)
{
	snprintf((char *)h + AT_SUM, 8, "%06llo", (unsigned long long)checksum(h));
	h[AT_SUM + 7] = ' ';
}

static int pax_header(struct copy *c, struct member *m, const char *data, size_t size, struct err *err)
{
	static const char zero[BLOCK];
	_cleanup_buf_ struct buf kept = BUF_INIT;
	if (pax_records(c, m, data, size, &kept, err) < 0)
		return -1;
	size_t n = buf_len(&kept);
	if (!n)
		return 0;
	if (n != size) {
		snprintf((char *)m->h + AT_SIZE, 12, "%011o", (unsigned)n & (2 * EXTENSION_MAX - 1));
		seal(m->h);
	}
	buf_add(&m->held, m->h, BLOCK);
	buf_add(&m->held, buf_head(&kept), n);
	buf_add(&m->held, zero, (BLOCK - n % BLOCK) % BLOCK);
	return 0;
}

/* A header that describes the next member: kept until that is known to be wanted. */
static int extension(struct copy *c, struct member *m, char type, uint64_t size, struct err *err)
{
	if (size > EXTENSION_MAX)
		return err_set(err, EINVAL, "archive: a header of %llu bytes at byte %llu",
			       (unsigned long long)size, (unsigned long long)c->at);
	size_t padded = (size_t)((size + BLOCK - 1) / BLOCK * BLOCK);
	_cleanup_free_ char *b = xmalloc(padded + 1);
	ssize_t n = fd_read_full(c->in, b, padded);
	if (n != (ssize_t)padded)
		return err_set(err, EINVAL, "archive is cut off at byte %llu",
			       (unsigned long long)c->at);
	c->at += padded;
	b[size] = '\0';
	if (type == 'g') /* about the whole archive: nothing in it that a root file system needs */
		return 0;
	if (type == 'x')
		return pax_header(c, m, b, (size_t)size, err);
	buf_add(&m->held, m->h, BLOCK);
	buf_add(&m->held, b, padded);
	set(type == 'L' ? &m->name : &m->link, b, strlen(b));
	return 0;
}

static void own_names(struct member *m)
{
	const char *h = (const char *)m->h;
	if (!m->name) {
		size_t pn = memcmp(h + AT_MAGIC, "ustar\0", 6) == 0 ? strnlen(h + AT_PREFIX, 155) : 0;
		m->name = xasprintf("%.*s%s%.*s", (int)pn, h + AT_PREFIX, pn ? "/" : "", 100,
				    h + AT_NAME);
	}
	if (!m->link)
		m->link = xasprintf("%.*s", 100, h + AT_LINK);
}

static int check_names(struct member *m, char type, struct err *err)
{
	const char *why = tar_name_problem(m->name);
	if (why)
		return err_set(err, EINVAL, "archive: member %s %s: refused",
			       *m->name ? m->name : "without a name", why);
	why = type == '1' ? tar_name_problem(m->link) : NULL;
	if (why)
		return err_set(err, EINVAL, "archive: member %s: its hard link %s %s: refused",
			       m->name, m->link, why);
	return 0;
}

static const char *inner_name(const char *name)
{
	while (name[0] == '.' && name[1] == '/')
		for (name += 2; *name == '/'; name++)
			;
	return name;
}

static bool wanted(struct copy *c, const struct member *m, char type)
{
	const char *in = inner_name(m->name);
	if (strncmp(in, "dev/", 4) == 0 && in[4 + strspn(in + 4, "/")])
		return false;
	if (type != '3' && type != '4')
		return true;
	_cleanup_free_ char *text = xasprintf("device node /%s left out", in);
	if (c->f->note)
		c->f->note(c->f->arg, text);
	return false;
}

static void to_root(unsigned char *field, uint32_t from, bool anyway)
{
	uint64_t v;
	if (anyway || (number(field, 8, &v) && v == from))
		memcpy(field, "0000000", 8);
}

static void map_owner(struct copy *c, struct member *m)
{
	if (!c->f->map_owner)
		return;
	to_root(m->h + AT_UID, c->f->uid, m->root_uid);
	to_root(m->h + AT_GID, c->f->gid, m->root_gid);
	seal(m->h);
}

/* The old GNU sparse map may go on in blocks of its own before the data. */
static int sparse_blocks(struct copy *c, const unsigned char *h, bool pass, struct err *err)
{
	unsigned char b[BLOCK];
	bool more = h[AT_SPARSE_MORE];
	while (more) {
		int n = read_block(c, b, err);
		if (n <= 0)
			return n < 0 ? -1
				     : err_set(err, EINVAL, "archive is cut off at byte %llu",
					       (unsigned long long)c->at);
		if (pass && put(c, b, BLOCK, err) < 0)
			return -1;
		more = b[AT_SPARSE_MORE2];
	}
	return 0;
}

static int member(struct copy *c, struct member *m, char type, uint64_t size, struct err *err)
{
	own_names(m);
	if (check_names(m, type, err) < 0)
		return -1;
	bool has_data = strchr("07S", type) != NULL; /* strchr finds '\0' too: the oldest form of a file */
	if (!has_data && !strchr("123456", type))
		return err_set(err, EINVAL, "archive: member %s is of type '%c', which is not supported",
			       m->name, type);
	if (m->has_size)
		size = m->size;
	if (!has_data && size)
		return err_set(err, EINVAL, "archive: member %s has a size but cannot have data",
			       m->name);
	bool pass = wanted(c, m, type);
	map_owner(c, m);
	if (pass &&
	    (put(c, buf_head(&m->held), buf_len(&m->held), err) < 0 || put(c, m->h, BLOCK, err) < 0))
		return -1;
	c->f->members += pass;
	if (type == 'S' && sparse_blocks(c, m->h, pass, err) < 0)
		return -1;
	return data_blocks(c, size, pass, err);
}

static void member_reset(struct member *m)
{
	buf_finish(&m->held);
	free(m->name);
	free(m->link);
	m->name = m->link = NULL;
	m->has_size = m->root_uid = m->root_gid = false;
}

/* 1: go on; 0: the end. */
static int one_header(struct copy *c, struct member *m, struct err *err)
{
	static const unsigned char zero[BLOCK];
	uint64_t size;
	int n = read_block(c, m->h, err);
	if (n <= 0 || memcmp(m->h, zero, BLOCK) == 0)
		return n < 0 ? -1 : 0;
	if (!header_ok(m->h) || !number(m->h + AT_SIZE, 12, &size) || size > (1ull << 60))
		return err_set(err, EINVAL, "archive: damaged header before byte %llu",
			       (unsigned long long)c->at);
	char type = (char)m->h[AT_TYPE];
	if (strchr("xgLK", type) && type)
		return extension(c, m, type, size, err) < 0 ? -1 : 1;
	n = member(c, m, type, size, err);
	member_reset(m);
	return n < 0 ? -1 : 1;
}

int tar_filter(int in, int out, struct tar_filter *f, struct err *err)
{
	static const char end[2 * BLOCK];
	struct copy c = {.in = in, .out = out, .f = f};
	struct member m = {.held = BUF_INIT};
	int n;
	f->members = 0;
	while ((n = one_header(&c, &m, err)) > 0)
		;
	member_reset(&m);
	if (n < 0 || put(&c, end, sizeof(end), err) < 0)
		return -1;
	/* The program before us must not die of a closed pipe over the padding of its last record.
	 * */
	char b[4096];
	while ((n = (int)read(in, b, sizeof(b))) > 0 || (n < 0 && errno == EINTR))
		;
	return 0;
}
