/* SPDX-License-Identifier: Apache-2.0 */
#include "spec/parse.h"

#include <stdbool.h>
#include <string.h>

#include "spec/vse.h"

/* Length of the well-formed UTF-8 character at p (Unicode 15, table 3-7), 0 if there is none. */
static size_t utf8_char(const unsigned char *p, size_t left)
{
	static const struct {
		unsigned char lead_lo, lead_hi, second_lo, second_hi, len;
	} forms[] = {
		{0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3},
		{0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
		{0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	if (*p < 0x80)
		return 1;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		if (*p < forms[i].lead_lo || *p > forms[i].lead_hi)
			continue;
		if (left < forms[i].len || p[1] < forms[i].second_lo || p[1] > forms[i].second_hi)
			return 0;
		for (size_t k = 2; k < forms[i].len; k++)
			if (p[k] < 0x80 || p[k] > 0xbf)
				return 0;
		return forms[i].len;
	}
	return 0;
}

/* Only what YAML 1.1 calls printable may stand in a file; libyaml would tell no line for the rest. */
static bool printable(const unsigned char *p, size_t len)
{
	if (len == 1)
		return *p >= 0x20 ? *p != 0x7f : *p == '\t' || *p == '\n' || *p == '\r';
	if (len == 2)
		return *p != 0xc2 || p[1] >= 0xa0 || p[1] == 0x85;
	return !(len == 3 && p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe);
}

static int check_text(const char *text, size_t len, struct problems *p)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t line = 0, column = 0, directives = 0, n;
	for (size_t i = 0; i < len; i += n) {
		n = utf8_char(s + i, len - i);
		if (!n)
			return problem_add(p, line, column,
					   "byte 0x%02x is not UTF-8; allowed: text in UTF-8", s[i]);
		if (!printable(s + i, n))
			return problem_add(p, line, column,
					   "a control character (byte 0x%02x) stands in the file; "
					   "allowed: text, tabs and "
					   "line ends",
					   s[i]);
		if (column++ == 0 && s[i] == '%' && ++directives > PARSE_DIRECTIVES_MAX)
			return problem_add(p, line, 0, "too many directives; allowed: %d",
					   PARSE_DIRECTIVES_MAX);
		if (s[i] == '\n') {
			line++;
			column = 0;
		}
	}
	return 0;
}

static int syntax_problem(const yaml_parser_t *y, struct problems *p)
{
	const yaml_mark_t *at = &y->problem_mark;
	const char *what = y->problem ? y->problem : "cannot be read";
	if (y->error == YAML_MEMORY_ERROR)
		return problem_add(p, 0, 0, "out of memory");
	if (!y->context || (y->context_mark.line == at->line && y->context_mark.column == at->column))
		return problem_add(p, at->line, at->column, "not valid YAML: %s", what);
	return problem_add(p, at->line, at->column, "not valid YAML: %s, %s that begins on line %zu",
			   what, y->context, y->context_mark.line + 1);
}

struct budget {
	yaml_document_t *doc;
	struct problems *problems;
	size_t nodes, text;
};

static bool tag_fits(const yaml_node_t *n)
{
	const char *tag = (const char *)n->tag;
	const char *want = n->type == YAML_SCALAR_NODE     ? YAML_STR_TAG
			   : n->type == YAML_SEQUENCE_NODE ? YAML_SEQ_TAG
							   : YAML_MAP_TAG;
	return !tag || strcmp(tag, want) == 0;
}

/* Counts a node and all below it as often as it is reached: aliases cannot make more work than the bounds
 * allow, and a node that holds itself runs into the bound of depth. */
static int spend(struct budget *b, int id, size_t depth)
{
	const yaml_node_t *n = yaml_document_get_node(b->doc, id);
	size_t line = n->start_mark.line, column = n->start_mark.column;
	if (depth > PARSE_DEPTH_MAX)
		return problem_add(b->problems, line,
				   column, "is nested too deeply by its aliases, or is one that holds itself; allowed: %d levels",
				   PARSE_DEPTH_MAX);
	if (n->type == YAML_SCALAR_NODE)
		b->text += n->data.scalar.length;
	if (++b->nodes > PARSE_NODES_MAX || b->text > PARSE_TEXT_MAX)
		return problem_add(b->problems, line, column,
				   "the file holds too much, with each alias counted as what it "
				   "stands for; allowed: %d "
				   "values and %u bytes",
				   PARSE_NODES_MAX, PARSE_TEXT_MAX);
	if (!tag_fits(n))
		return problem_add(b->problems, line, column,
				   "YAML tags are not used here; allowed: no tag");
	if (n->type == YAML_SEQUENCE_NODE)
		for (const yaml_node_item_t *i = n->data.sequence.items.start;
		     i < n->data.sequence.items.top; i++)
			if (spend(b, *i, depth + 1) < 0)
				return -1;
	if (n->type == YAML_MAPPING_NODE)
		for (const yaml_node_pair_t *i = n->data.mapping.pairs.start;
		     i < n->data.mapping.pairs.top; i++)
			if (spend(b, i->key, depth + 1) < 0 || spend(b, i->value, depth + 1) < 0)
				return -1;
	return 0;
}

static void start(yaml_parser_t *y, const char *text, size_t len)
{
	if (!yaml_parser_initialize(y))
		abort(); /* out of memory, as in xmalloc() */
	yaml_parser_set_encoding(y, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(y, (const unsigned char *)text, len);
}

static bool has_anchor(const yaml_event_t *e)
{
	return (e->type == YAML_SCALAR_EVENT && e->data.scalar.anchor) ||
	       (e->type == YAML_SEQUENCE_START_EVENT && e->data.sequence_start.anchor) ||
	       (e->type == YAML_MAPPING_START_EVENT && e->data.mapping_start.anchor);
}

struct shape {
	size_t depth, anchors;
};

static int check_event(struct shape *s, const yaml_event_t *e, struct problems *p)
{
	yaml_event_type_t t = e->type;
	if (t == YAML_SEQUENCE_END_EVENT || t == YAML_MAPPING_END_EVENT)
		s->depth--;
	else if ((t == YAML_SEQUENCE_START_EVENT || t == YAML_MAPPING_START_EVENT) &&
		 ++s->depth > PARSE_DEPTH_MAX)
		return problem_add(p, e->start_mark.line, e->start_mark.column,
				   "is nested too deeply; allowed: %d levels", PARSE_DEPTH_MAX);
	if (has_anchor(e) && ++s->anchors > PARSE_ANCHORS_MAX)
		return problem_add(p, e->start_mark.line, e->start_mark.column,
				   "too many anchors; allowed: %d", PARSE_ANCHORS_MAX);
	return 0;
}

/* A pass of its own before the document is made: libyaml's time grows with the square of the depth and of the
 * number of anchors, and it has no bound but the file's end (100,000 brackets took 20 seconds). */
static int check_shape(const char *text, size_t len, struct problems *p)
{
	yaml_parser_t y;
	yaml_event_t e;
	struct shape shape = {0};
	int code = 0;
	start(&y, text, len);
	for (yaml_event_type_t type = YAML_NO_EVENT; !code && type != YAML_STREAM_END_EVENT;) {
		if (!yaml_parser_parse(&y, &e)) {
			code = syntax_problem(&y, p);
			break;
		}
		type = e.type;
		code = check_event(&shape, &e, p);
		yaml_event_delete(&e);
	}
	yaml_parser_delete(&y);
	return code;
}

static int load_only_document(const char *text, size_t len, yaml_document_t *ret, struct problems *p)
{
	yaml_parser_t y;
	yaml_document_t doc, next;
	int code = 0;
	start(&y, text, len);
	if (!yaml_parser_load(&y, &doc)) {
		code = syntax_problem(&y, p);
		yaml_parser_delete(&y);
		return code;
	}
	if (!yaml_document_get_root_node(&doc)) {
		code = problem_add(p, 0, 0,
				   "the file is empty; allowed: a map of fields, with 'vse: 1'");
	} else if (!yaml_parser_load(&y, &next)) {
		code = syntax_problem(&y, p);
	} else {
		if (yaml_document_get_root_node(&next))
			code = problem_add(
				p, next.start_mark.line, next.start_mark.column,
				"a second document begins here; allowed: one document a file");
		yaml_document_delete(&next);
	}
	yaml_parser_delete(&y);
	if (code < 0)
		yaml_document_delete(&doc);
	else
		*ret = doc;
	return code;
}

int parse_yaml(const char *text, size_t len, yaml_document_t *ret, struct problems *p)
{
	yaml_document_t doc;
	if (len > VSE_FILE_MAX)
		return problem_add(p, 0, 0, "the file is %zu bytes long; allowed: %d bytes", len,
				   VSE_FILE_MAX);
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		text += 3;
		len -= 3;
	}
	if (len == 0)
		text = ""; /* libyaml takes no NULL */
	if (check_text(text, len, p) < 0 || check_shape(text, len, p) < 0 ||
	    load_only_document(text, len, &doc, p) < 0)
		return -1;
	struct budget b = {.doc = &doc, .problems = p};
	if (spend(&b, 1, 1) < 0) { /* the root is node 1 */
		yaml_document_delete(&doc);
		return -1;
	}
	*ret = doc;
	return 0;
}
