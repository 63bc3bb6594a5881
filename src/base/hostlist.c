/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hostlist.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"

#define DIGITS_MAX 18 /* of a number: fits 64 bits */
#define NUMBER_MAX 999999999999999999ull

int host_name_check(const char *name, struct err *err)
{
	size_t n = strlen(name);
	if (!n || n > HOST_NAME_LENGTH_MAX || name[0] == '-')
		return err_set(err, EINVAL, "'%.40s': no host name", name);
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("._-:@%+", name[i]))
			return err_set(err, EINVAL, "a character that no host name has, at %zu", i);
	return 0;
}

/* ---- expansion: item by item, each name by recursion over its parts ---- */

struct expansion {
	struct strvec names;
	const char *end; /* of the item */
	struct err *err;
};

static int item(struct expansion *x, const char *at, char *name, size_t len);

static int number(const char **at, const char *end, uint64_t *ret, int *ret_width)
{
	const char *p = *at;
	uint64_t v = 0;
	while (p < end && isdigit((unsigned char)*p) && p - *at < DIGITS_MAX)
		v = v * 10 + (uint64_t)(*p++ - '0');
	if (p == *at || (p < end && isdigit((unsigned char)*p)))
		return -1;
	*ret = v;
	*ret_width = (int)(p - *at);
	*at = p;
	return 0;
}

/* All names with each number of one range, "3" or "03-17". */
static int range(struct expansion *x, const char **at, const char *close, char *name, size_t len)
{
	uint64_t low, high;
	int width, ignored;
	if (number(at, close, &low, &width) < 0)
		return err_set(x->err, EINVAL, "a bracket needs numbers, as in n[1-8]");
	high = low;
	if (*at < close && **at == '-') {
		++*at;
		if (number(at, close, &high, &ignored) < 0 || high < low)
			return err_set(x->err, EINVAL,
				       "a range needs a low and a high end, as in n[1-8]");
	}
	if (high - low >= HOSTLIST_MAX)
		return err_set(x->err, E2BIG, "more than %u hosts", HOSTLIST_MAX);
	for (uint64_t v = low; v <= high; v++) {
		char text[DIGITS_MAX + 3];
		int n = snprintf(text, sizeof(text), "%0*" PRIu64, width, v);
		if (len + (size_t)n > HOST_NAME_LENGTH_MAX)
			return err_set(x->err, E2BIG, "a host name of more than %u bytes",
				       HOST_NAME_LENGTH_MAX);
		memcpy(name + len, text, (size_t)n);
		if (item(x, close + 1, name, len + (size_t)n) < 0)
			return -1;
	}
	return 0;
}

/* The rest of the item from `at` on, behind the `len` bytes of the name that are there. */
static int item(struct expansion *x, const char *at, char *name, size_t len)
{
	while (at < x->end && *at != '[') {
		if (len == HOST_NAME_LENGTH_MAX)
			return err_set(x->err, E2BIG, "a host name of more than %u bytes",
				       HOST_NAME_LENGTH_MAX);
		name[len++] = *at++;
	}
	if (at == x->end) {
		name[len] = '\0';
		if (x->names.n == HOSTLIST_MAX)
			return err_set(x->err, E2BIG, "more than %u hosts", HOSTLIST_MAX);
		if (host_name_check(name, x->err) < 0)
			return -1;
		strvec_add(&x->names, name);
		return 0;
	}
	const char *close = memchr(at, ']', (size_t)(x->end - at));
	if (!close)
		return err_set(x->err, EINVAL, "'[' without ']'");
	at++;
	for (;;) {
		if (range(x, &at, close, name, len) < 0)
			return -1;
		if (at == close)
			return 0;
		if (*at++ != ',')
			return err_set(x->err, EINVAL, "a bracket needs numbers, as in n[1-8]");
	}
}

static bool separator(char c)
{
	return c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Past the item: commas within brackets belong to it. */
static const char *item_end(const char *at)
{
	bool in = false;
	for (; *at && (in || !separator(*at)); at++)
		in = *at == '[' ? true : *at == ']' ? false : in;
	return at;
}

int hostlist_expand(const char *text, struct strvec *ret, struct err *err)
{
	char name[HOST_NAME_LENGTH_MAX + 1];
	struct expansion x = {.err = err};
	int rc = 0;
	if (strnlen(text, HOSTLIST_TEXT_MAX + 1) > HOSTLIST_TEXT_MAX)
		return err_set(err, E2BIG, "list of hosts: longer than %u bytes", HOSTLIST_TEXT_MAX);
	for (const char *at = text; rc == 0 && *at; at = x.end) {
		while (separator(*at))
			at++;
		x.end = item_end(at);
		if (at < x.end && (rc = item(&x, at, name, 0)) < 0)
			err_prefix(err, "list of hosts, at '%.40s': ", at);
	}
	if (rc == 0)
		strvec_copy(ret, &x.names);
	strvec_finish(&x.names);
	return rc;
}

/* ---- folding ---- */

struct numbered {
	size_t prefix; /* bytes before the last number, which ends the name; the whole name when there is none */
	int width;
	uint64_t value;
};

static struct numbered split(const char *name)
{
	struct numbered n = {.prefix = strlen(name)};
	size_t len = n.prefix;
	while (n.prefix && len - n.prefix < DIGITS_MAX && isdigit((unsigned char)name[n.prefix - 1]))
		n.prefix--;
	n.width = (int)(len - n.prefix);
	for (size_t i = n.prefix; i < len; i++)
		n.value = n.value * 10 + (uint64_t)(name[i] - '0');
	return n;
}

/* b is the number after a, written as a range from a writes it. */
static bool follows(const char *a, struct numbered na, const char *b, struct numbered nb, uint64_t value)
{
	char text[DIGITS_MAX + 3];
	if (!na.width || !nb.width || na.prefix != nb.prefix || memcmp(a, b, na.prefix) != 0 ||
	    nb.value != value || value > NUMBER_MAX)
		return false;
	snprintf(text, sizeof(text), "%0*" PRIu64, na.width, value);
	return strcmp(text, b + nb.prefix) == 0;
}

char *hostlist_fold(char *const *names, size_t n)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	for (size_t i = 0, next; i < n; i = next) {
		struct numbered first = split(names[i]);
		for (next = i + 1; next < n; next++)
			if (!follows(names[i], first, names[next], split(names[next]),
				     first.value + (next - i)))
				break;
		if (i)
			buf_addc(&out, ',');
		if (next == i + 1)
			buf_adds(&out, names[i]);
		else
			buf_addf(&out, "%.*s[%s-%s]", (int)first.prefix, names[i],
				 names[i] + first.prefix, names[next - 1] + first.prefix);
	}
	return buf_take(&out);
}
