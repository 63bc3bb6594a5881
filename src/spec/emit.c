/* SPDX-License-Identifier: Apache-2.0 */
/* Why not libyaml's emitter: it quotes any text with a tab in it, so that every C source or Makefile in a VSE
 * file would become one line of escapes. What is written here is a small part of YAML 1.1; the tests and the
 * fuzzer hold that libyaml reads the same out of it. */
#include "spec/emit.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "base/buf.h"

#define STEP 2 /* spaces of each level */

static void indent(struct buf *b, size_t n)
{
	buf_addf(b, "%*s", (int)n, "");
}

/* Length of the character at p if YAML takes it for a line end of its own or for unprintable: such a one is
 * written as an escape. 0: it may stand as it is. */
static size_t special(const unsigned char *p)
{
	if (*p < 0x20 || *p == 0x7f)
		return 1;
	if (p[0] == 0xc2 && p[1] < 0xa0)
		return 2; /* U+0080 to U+009F, among them NEL */
	if (p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9))
		return 3; /* line and paragraph separator */
	if (p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf)
		return 3; /* byte order mark */
	if (p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe)
		return 3; /* no characters */
	return 0;
}

static unsigned code_point(const unsigned char *p, size_t len)
{
	if (len == 1)
		return *p;
	if (len == 2)
		return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
	return (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
}

static void add_quoted(struct buf *b, const char *text)
{
	buf_addc(b, '"');
	for (const unsigned char *p = (const unsigned char *)text; *p;) {
		size_t n = special(p);
		if (*p == '\n')
			buf_adds(b, "\\n");
		else if (*p == '\t')
			buf_adds(b, "\\t");
		else if (n)
			buf_addf(b, "\\u%04x", code_point(p, n));
		else if (*p == '"' || *p == '\\')
			buf_addf(b, "\\%c", *p);
		else
			buf_addc(b, (char)*p);
		p += n ? n : 1;
	}
	buf_addc(b, '"');
}

/* May stand unquoted after "key: " or "- ": no sign of YAML's at its begin, no ": " and no " #" in it. */
static bool is_plain(const char *text)
{
	if (!isalnum((unsigned char)*text) && !strchr("/_.$(", *text))
		return false;
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if (special(p) || (*p == ':' && (!p[1] || p[1] == ' ')) || (*p == '#' && p[-1] == ' '))
			return false;
	return *text && text[strlen(text) - 1] != ' ';
}

/* May be a block: its first line shows the indentation, and no line needs an escape. */
static bool is_block(const char *text)
{
	if (!strchr(text, '\n') || strchr(" \t\n", *text))
		return false;
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if (*p != '\n' && *p != '\t' && special(p))
			return false;
	return true;
}

static void add_block(struct buf *b, const char *text, size_t level)
{
	size_t len = strlen(text);
	bool ended = text[len - 1] == '\n';
	buf_addf(b, "|%s", !ended ? "-" : text[len - 2] == '\n' ? "+" : "");
	for (const char *p = text; *p;) {
		size_t n = strcspn(p, "\n");
		buf_addc(b, '\n');
		if (n)
			indent(b, level);
		buf_add(b, p, n);
		p += n + (p[n] == '\n');
	}
}

static void add_text(struct buf *b, const char *text, size_t level)
{
	if (is_block(text))
		add_block(b, text, level);
	else if (is_plain(text))
		buf_adds(b, text);
	else
		add_quoted(b, text);
}

/* With the largest unit that keeps the number whole. */
static void add_bytes(struct buf *b, uint64_t n)
{
	static const char units[] = "\0KMGT";
	size_t u = 0;
	for (; n && n % 1024 == 0 && u < 4; u++)
		n /= 1024;
	buf_addf(b, "%" PRIu64 "%.1s", n, units + u);
}

static void add_scalar(struct buf *b, const json_t *j, const struct spec_field *f, size_t level)
{
	if (json_is_integer(j) && f && f->bytes)
		add_bytes(b, (uint64_t)json_integer_value(j));
	else if (json_is_integer(j))
		buf_addf(b, "%" JSON_INTEGER_FORMAT, json_integer_value(j));
	else if (json_is_boolean(j))
		buf_adds(b, json_is_true(j) ? "true" : "false");
	else
		add_text(b, json_string_value(j), level);
	buf_addc(b, '\n');
}

static void add_value(struct buf *b, const json_t *j, const struct spec_field *f, size_t level);

/* The pairs, of which the first stands where the line is. */
static void add_pairs(struct buf *b, const json_t *j, const struct spec_field *fields, size_t level)
{
	const char *key;
	json_t *value;
	bool first = true;
	json_object_foreach ((json_t *)j, key, value) {
		indent(b, first ? 0 : level);
		first = false;
		buf_addf(b, "%s:", key);
		add_value(b, value, fields ? spec_find(fields, key) : NULL, level);
	}
}

static void add_items(struct buf *b, const json_t *j, const struct spec_field *f, size_t level)
{
	size_t i;
	json_t *item;
	json_array_foreach (j, i, item) {
		indent(b, level);
		buf_adds(b, "- ");
		if (json_is_object(item) && json_object_size(item))
			add_pairs(b, item, f ? f->fields : NULL, level + STEP);
		else if (json_is_object(item))
			buf_adds(b, "{}\n");
		else
			add_scalar(b, item, f, level + STEP);
	}
}

/* What follows "key:" of a map at this level. */
static void add_value(struct buf *b, const json_t *j, const struct spec_field *f, size_t level)
{
	if (json_is_array(j) && json_array_size(j)) {
		buf_addc(b, '\n');
		add_items(b, j, f, level + STEP);
	} else if (json_is_object(j) && json_object_size(j)) {
		buf_addc(b, '\n');
		indent(b, level + STEP);
		add_pairs(b, j, f ? f->fields : NULL, level + STEP);
	} else if (json_is_array(j) || json_is_object(j)) {
		buf_adds(b, json_is_array(j) ? " []\n" : " {}\n");
	} else {
		buf_addc(b, ' ');
		add_scalar(b, j, f, level + STEP);
	}
}

char *emit_yaml(const json_t *object, const struct spec_field *fields)
{
	struct buf b = BUF_INIT;
	add_pairs(&b, object, fields, 0);
	return buf_take(&b);
}
