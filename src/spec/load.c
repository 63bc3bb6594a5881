/* SPDX-License-Identifier: Apache-2.0 */
/* Walks a document by the field table and fills the object. It goes on after a problem, so that all of a file
 * are told at once. */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "spec/parse.h"
#include "spec/rules.h"
#include "spec/schema.h"

#define ITEMS_MAX 4096 /* items of a list */
#define PAIRS_MAX 1024 /* pairs of a map */

struct walk {
	yaml_document_t *doc;
	struct spec_context context;
	struct problems *problems;
	struct buf path; /* of the field at hand: "files[2].mode" */
};

/* ---- messages ---- */

static int _printf_(4, 5)
	wrong(struct walk *w, const yaml_node_t *at, const char *allowed, const char *fmt, ...)
{
	char what[ERR_TEXT_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return problem_add(w->problems, at->start_mark.line, at->start_mark.column, "%s: %s%s%s",
			   buf_cstr(&w->path), what, allowed ? "; allowed: " : "",
			   allowed ? allowed : "");
}

/* Appends ".name" or "[i]" to the path; path_up() with the value it gave takes that away again. */
static size_t path_down(struct walk *w, const char *name)
{
	size_t was = buf_len(&w->path);
	char shown[RULE_SHOWN];
	buf_addf(&w->path, "%s%s", was ? "." : "", rule_shown(name, shown));
	return was;
}

static size_t path_item(struct walk *w, size_t i)
{
	size_t was = buf_len(&w->path);
	buf_addf(&w->path, "[%zu]", i);
	return was;
}

static void path_up(struct walk *w, size_t was)
{
	w->path.end = w->path.start + was;
}

static char *names_of(const struct spec_field *fields)
{
	struct buf b = BUF_INIT;
	for (const struct spec_field *f = fields; f->name; f++)
		buf_addf(&b, "%s%s", f == fields ? "" : ", ", f->name);
	return buf_take(&b);
}

/* ---- nodes ---- */

static const yaml_node_t *node(struct walk *w, int id)
{
	return yaml_document_get_node(w->doc, id);
}

static const char *kind_name(const yaml_node_t *n)
{
	if (n->type == YAML_SCALAR_NODE)
		return n->data.scalar.length == 0 && n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE
			       ? "has no value"
			       : "is one value";
	return n->type == YAML_SEQUENCE_NODE ? "is a list" : "is a map";
}

/* The scalar's text, or NULL with a problem added. */
static const char *text_of(struct walk *w, const yaml_node_t *n, const char *allowed, bool may_be_absent)
{
	if (n->type != YAML_SCALAR_NODE) {
		wrong(w, n, allowed, "%s, not one value", kind_name(n));
		return NULL;
	}
	const char *text = (const char *)n->data.scalar.value;
	if (strlen(text) != n->data.scalar.length) {
		wrong(w, n, allowed, "has a NUL character in it");
		return NULL;
	}
	if (!may_be_absent && !*text && n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
		wrong(w, n, allowed, "has no value");
		return NULL;
	}
	return text;
}

static int fill_map(struct walk *w, const yaml_node_t *n, const struct spec_field *fields, void *object);

static int fill_text(struct walk *w, const yaml_node_t *n, const struct spec_field *f, void *object)
{
	struct err err = ERR_INIT;
	const char *text = text_of(w, n, f->allowed, false);
	if (!text)
		return -1;
	if (f->set(&w->context, object, text, &err) < 0)
		return wrong(w, n, f->allowed, "%s", err.text);
	return 0;
}

static int fill_list(struct walk *w, const yaml_node_t *n, const struct spec_field *f, void *object)
{
	const yaml_node_item_t *items = n->data.sequence.items.start;
	size_t count = (size_t)(n->data.sequence.items.top - items);
	int code = 0;
	if (count > ITEMS_MAX)
		return wrong(w, n, NULL, "has %zu items; allowed: at most %d", count, ITEMS_MAX);
	for (size_t i = 0; i < count; i++) {
		const yaml_node_t *item = node(w, items[i]);
		size_t was = path_item(w, i);
		if (f->kind == SPEC_LIST) {
			code |= fill_text(w, item, f, object);
		} else {
			void *sub = f->add(object);
			code |= item->type == YAML_MAPPING_NODE
					? fill_map(w, item, f->fields, sub)
					: wrong(w, item, f->allowed, "%s, not a map", kind_name(item));
		}
		path_up(w, was);
	}
	return code;
}

/* Where the same key stands before pair i, or NULL. */
static const yaml_node_t *earlier(struct walk *w, const yaml_node_t *map,
				  const yaml_node_pair_t *end, const yaml_node_t *key)
{
	for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < end; p++) {
		const yaml_node_t *k = node(w, p->key);
		if (k->type == YAML_SCALAR_NODE && k->data.scalar.length == key->data.scalar.length &&
		    memcmp(k->data.scalar.value, key->data.scalar.value, k->data.scalar.length) == 0)
			return k;
	}
	return NULL;
}

/* The key's text when it is one and is new, or NULL with a problem added. */
static const char *key_of(struct walk *w, const yaml_node_t *map, const yaml_node_pair_t *pair)
{
	const yaml_node_t *k = node(w, pair->key);
	size_t was = path_down(w, "?");
	const char *key = text_of(w, k, "a name", true);
	path_up(w, was);
	if (!key)
		return NULL;
	const yaml_node_t *first = earlier(w, map, pair, k);
	if (first) {
		was = path_down(w, key);
		wrong(w, k, "once", "is there already, on line %zu", first->start_mark.line + 1);
		path_up(w, was);
		return NULL;
	}
	return key;
}

static int too_many_pairs(struct walk *w, const yaml_node_t *n)
{
	size_t count = (size_t)(n->data.mapping.pairs.top - n->data.mapping.pairs.start);
	return count > PAIRS_MAX
		       ? wrong(w, n, NULL, "has %zu fields; allowed: at most %d", count, PAIRS_MAX)
		       : 0;
}

static int fill_pairs(struct walk *w, const yaml_node_t *n, const struct spec_field *f, void *object)
{
	int code = too_many_pairs(w, n);
	if (code)
		return code;
	for (const yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top;
	     p++) {
		struct err err = ERR_INIT;
		const char *key = key_of(w, n, p), *text;
		if (!key) {
			code = -1;
			continue;
		}
		size_t was = path_down(w, key);
		if (f->name_rule(key, &err) < 0)
			code = wrong(w, node(w, p->key), f->allowed, "%s", err.text);
		else if (!(text = text_of(w, node(w, p->value), f->allowed, true)))
			code = -1;
		else if (f->pair(object, key, text, &err) < 0)
			code = wrong(w, node(w, p->value), f->allowed, "%s", err.text);
		path_up(w, was);
	}
	return code;
}

static int fill_field(struct walk *w, const yaml_node_t *n, const struct spec_field *f, void *object)
{
	switch (f->kind) {
	case SPEC_TEXT: return fill_text(w, n, f, object);
	case SPEC_LIST:
	case SPEC_MAPS:
		return n->type == YAML_SEQUENCE_NODE
			       ? fill_list(w, n, f, object)
			       : wrong(w, n, f->allowed, "%s, not a list", kind_name(n));
	case SPEC_MAP:
		return n->type == YAML_MAPPING_NODE
			       ? fill_map(w, n, f->fields, object)
			       : wrong(w, n, f->allowed, "%s, not a map", kind_name(n));
	case SPEC_PAIRS:
		return n->type == YAML_MAPPING_NODE
			       ? fill_pairs(w, n, f, object)
			       : wrong(w, n, f->allowed, "%s, not a map", kind_name(n));
	}
	return -1;
}

static int unknown(struct walk *w, const yaml_node_t *k, const struct spec_field *fields, const char *key)
{
	if (strcmp(key, "<<") == 0)
		return wrong(w, k, "the fields written out", "YAML's merge key is not used here");
	_cleanup_free_ char *names = names_of(fields);
	const char *near = spec_suggest(fields, key);
	return wrong(w, k, names, "unknown field%s%s%s", near ? ", did you mean '" : "",
		     near ? near : "", near ? "'?" : "");
}

/* Required fields, and those of which exactly one is given. `seen` has a bit for each line of the table. */
static int check_presence(struct walk *w, const yaml_node_t *n, const struct spec_field *fields,
			  uint64_t seen)
{
	int code = 0;
	for (size_t i = 0; fields[i].name; i++) {
		const struct spec_field *f = &fields[i];
		size_t was = path_down(w, f->name);
		if (f->required && !(seen >> i & 1))
			code = wrong(w, n, f->allowed, "is missing");
		for (size_t k = 0; f->either && k < i; k++) {
			if (fields[k].either != f->either || (seen >> i & 1) != (seen >> k & 1))
				continue;
			code = wrong(w, n, NULL,
				     seen >> i & 1
					     ? "is given beside %s; allowed: one of the two"
					     : "is missing, and so is %s; allowed: one of the two",
				     fields[k].name);
		}
		path_up(w, was);
	}
	return code;
}

static int fill_map(struct walk *w, const yaml_node_t *n, const struct spec_field *fields, void *object)
{
	uint64_t seen = 0;
	int code = too_many_pairs(w, n);
	if (code)
		return code;
	for (const yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top;
	     p++) {
		const char *key = key_of(w, n, p);
		if (!key) {
			code = -1;
			continue;
		}
		const struct spec_field *f = spec_find(fields, key);
		size_t was = path_down(w, key);
		if (!f) {
			code = unknown(w, node(w, p->key), fields, key);
		} else {
			seen |= UINT64_C(1) << (f - fields);
			code |= fill_field(w, node(w, p->value), f, object);
			strvec_add(&w->context.vse->given, buf_cstr(&w->path));
		}
		path_up(w, was);
	}
	return code | check_presence(w, n, fields, seen);
}

/* ---- the whole ---- */

/* The value of a top-level field, or NULL. */
static const yaml_node_t *top_value(struct walk *w, const char *name)
{
	const yaml_node_t *root = yaml_document_get_root_node(w->doc);
	for (const yaml_node_pair_t *p = root->data.mapping.pairs.start;
	     p < root->data.mapping.pairs.top; p++) {
		const yaml_node_t *k = node(w, p->key);
		if (k->type == YAML_SCALAR_NODE && strcmp((const char *)k->data.scalar.value, name) == 0)
			return node(w, p->value);
	}
	return NULL;
}

/* A file of another version is told that and nothing else: its fields are not ours to judge. */
static int other_version(struct walk *w)
{
	const yaml_node_t *n = top_value(w, "vse");
	const char *text = n && n->type == YAML_SCALAR_NODE ? (const char *)n->data.scalar.value : "";
	char shown[RULE_SHOWN];
	if (!*text || text[strspn(text, "0123456789.")] || strcmp(text, "1") == 0)
		return 0;
	path_down(w, "vse");
	return wrong(w, n, "1", "'%s' is not a version this vse reads", rule_shown(text, shown));
}

/* What only shows when all fields are read: what belongs to a distribution means nothing to a root file system
 * that is there already. An empty list is fine, as it asks for nothing. */
static int check_whole(struct walk *w)
{
	static const char *const of_distro[] = {"mirror", "components", "packages"};
	int code = 0;
	for (size_t i = 0; i < ARRAY_SIZE(of_distro) && w->context.vse->base_path; i++) {
		const yaml_node_t *n = top_value(w, of_distro[i]);
		if (!n || (n->type == YAML_SEQUENCE_NODE &&
			   n->data.sequence.items.start == n->data.sequence.items.top))
			continue;
		size_t was = path_down(w, of_distro[i]);
		code = wrong(w, n, "beside a debian: or ubuntu: base; what such a base lacks is installed by a build step",
			     "is given beside a base that is a folder or an archive");
		path_up(w, was);
	}
	return code;
}

static void fill_defaults(struct vse *v)
{
	if (v->base == VSE_BASE_DISTRO && !vse_gives(v, "components"))
		strvec_add(&v->components, "main");
	for (size_t i = 0; i < v->n_files; i++)
		if (v->files[i].mode == UINT32_MAX)
			v->files[i].mode = 0644;
}

static int walk(struct walk *w)
{
	const yaml_node_t *root = yaml_document_get_root_node(w->doc);
	if (root->type != YAML_MAPPING_NODE)
		return problem_add(
			w->problems, root->start_mark.line, root->start_mark.column,
			"the file %s, not a map; allowed: a map of fields, with 'vse: 1'",
			kind_name(root));
	if (other_version(w) < 0)
		return -1;
	int code = fill_map(w, root, spec_fields, w->context.vse);
	return code | check_whole(w);
}

/* The absolute folder of a file; malloc'ed. */
static char *folder_of(const char *file)
{
	char cwd[PATH_MAX];
	const char *slash = strrchr(file, '/');
	_cleanup_free_ char *dir = slash ? xstrndup(file, MAX((size_t)(slash - file), 1))
					 : xstrdup(".");
	if (*dir == '/' || !getcwd(cwd, sizeof(cwd)))
		return TAKE_PTR(dir);
	return path_join(cwd, dir);
}

int vse_load_text(const char *name, const char *text, size_t len, struct vse **ret,
		  struct strvec *problems, struct err *err)
{
	struct problems p = {.file = name};
	yaml_document_t doc;
	_cleanup_free_ char *dir = folder_of(name);
	_cleanup_vse_ struct vse *v = xcalloc(1, sizeof(*v));
	spec_vse_init(v);
	v->file = xstrdup(name);
	if (parse_yaml(text, len, &doc, &p) == 0) {
		struct walk w = {.doc = &doc, .context = {v, dir}, .problems = &p};
		walk(&w);
		buf_finish(&w.path);
		yaml_document_delete(&doc);
	}
	int code = problems_report(&p, problems, err);
	problems_finish(&p);
	if (code < 0)
		return -1;
	strvec_sort(&v->given);
	fill_defaults(v);
	*ret = TAKE_PTR(v);
	return 0;
}

int vse_load(const char *path, struct vse **ret, struct strvec *problems, struct err *err)
{
	_cleanup_free_ char *text = NULL;
	size_t len;
	struct err why = ERR_INIT;
	if (path_read_any(path, VSE_FILE_MAX, &text, &len, &why) < 0) {
		strvec_add(problems, why.text);
		return err_copy(err, &why);
	}
	return vse_load_text(path, text, len, ret, problems, err);
}

void vse_destroy(struct vse *v)
{
	if (!v)
		return;
	char *texts[] = {v->file,      v->name, v->description, v->distro, v->suite,
			 v->base_path, v->arch, v->mirror,      v->kernel, v->net_subnet};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		free(texts[i]);
	for (size_t i = 0; i < v->n_files; i++) {
		free(v->files[i].path);
		free(v->files[i].source);
		free(v->files[i].content);
	}
	free(v->files);
	for (size_t i = 0; i < v->n_env; i++) {
		free(v->env[i].name);
		free(v->env[i].value);
	}
	free(v->env);
	for (size_t i = 0; i < v->n_mounts; i++) {
		free(v->mounts[i].host);
		free(v->mounts[i].guest);
	}
	free(v->mounts);
	strvec_finish(&v->components);
	strvec_finish(&v->packages);
	strvec_finish(&v->build);
	strvec_finish(&v->devices);
	strvec_finish(&v->given);
	free(v);
}

static int compare(const void *key, const void *item)
{
	return strcmp(key, *(char *const *)item);
}

bool vse_gives(const struct vse *v, const char *field)
{
	return v->given.n && bsearch(field, v->given.v, v->given.n, sizeof(*v->given.v), compare);
}
